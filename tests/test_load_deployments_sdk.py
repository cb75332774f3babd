"""The official SDK, which nobody here wrote, walks the sandbox its own way and gets what this package gets."""

from __future__ import annotations

import json
import warnings
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import pytest
from qca.managed import Client as OfficialClient

from qoderdata import Client, flatten_deployments, flatten_runs, load_deployments
from qoderdata.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Record = dict[str, Any]
Mode = Literal["python", "json"]


@pytest.fixture(scope="module")
def account() -> Iterator[Sandbox]:
    with Sandbox(deployments=230, seed=9, runs=640) as sandbox:
        yield sandbox


@pytest.fixture(params="ABC")
def sandbox(request: pytest.FixtureRequest, account: Sandbox) -> Sandbox:
    account.edition = request.param
    account.requests.clear()
    return account


@pytest.fixture
def official(sandbox: Sandbox) -> Iterator[OfficialClient]:
    with OfficialClient(pat=sandbox.pat, base_url=sandbox.base_url, max_retries=0) as client:
        yield client


def dicts(records: Any, mode: Mode) -> list[Record]:  # noqa: ANN401 - the SDK's own paginator
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Pydantic serializer warnings", UserWarning)
        return [record.to_dict(mode=mode) for record in records]


def unordered(frame: pd.DataFrame) -> pd.DataFrame:
    """Sort the keys in texts of JSON: the SDK orders them its own way."""
    texts = ("initial_events", "resources", "metadata")
    return frame.assign(
        **{
            name: frame[name].map(lambda text: json.dumps(json.loads(text), sort_keys=True), na_action="ignore")
            for name in texts
            if name in frame
        }
    )


@pytest.mark.parametrize("mode", ["python", "json"])
def test_its_deployments_flattened_are_those_that_are_loaded(
    sandbox: Sandbox, official: OfficialClient, tmp_path: Path, mode: Mode
) -> None:
    """Its times are datetimes in one mode and texts in the other."""
    records = dicts(official.deployments.list(limit=100, include_archived=True), mode)
    assert [request.status for request in sandbox.requests] == [200] * 3
    assert all(type(record["created_at"]) is {"python": datetime, "json": str}[mode] for record in records)
    client = Client(sandbox.pat, sandbox.base_url)
    loaded = load_deployments(include_archived=True, client=client, cache_dir=tmp_path)
    assert len(loaded) == 230
    pd.testing.assert_frame_equal(unordered(flatten_deployments(records)), unordered(loaded))


@pytest.mark.parametrize("filters", [{}, {"status": "paused"}], ids=str)
def test_its_filters_give_the_same_rows(
    sandbox: Sandbox, official: OfficialClient, tmp_path: Path, filters: dict[str, Any]
) -> None:
    records = dicts(official.deployments.list(**filters), "python")
    client = Client(sandbox.pat, sandbox.base_url)
    loaded = load_deployments(client=client, cache_dir=tmp_path, **filters)
    assert 0 < len(loaded) < 230
    assert [record["id"] for record in records] == list(loaded["id"])


@pytest.mark.parametrize("mode", ["python", "json"])
def test_its_runs_flattened_are_the_accounts(sandbox: Sandbox, official: OfficialClient, mode: Mode) -> None:
    records = dicts(official.deployment_runs.list(limit=100), mode)
    assert [request.status for request in sandbox.requests] == [200] * 7
    pd.testing.assert_frame_equal(flatten_runs(records), flatten_runs(sandbox.runs))
