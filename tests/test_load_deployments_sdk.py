"""The official SDK, which nobody here wrote, walks the sandbox its own way and gets what this package gets."""

from __future__ import annotations

import json
import re
import warnings
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import pytest
from qca.managed import Client as OfficialClient

from qoderdata import (
    Client,
    flatten_deployments,
    flatten_events,
    flatten_runs,
    flatten_sessions,
    load_agents,
    load_deployments,
    load_environments,
    load_events,
    load_sessions,
)
from qoderdata.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Record = dict[str, Any]
Mode = Literal["python", "json"]


@pytest.fixture(scope="module")
def account() -> Iterator[Sandbox]:
    with Sandbox(deployments=205, seed=9, runs=205) as sandbox:
        yield sandbox


@pytest.fixture(params="ABCD")
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


def cut(time: re.Match[str]) -> str:
    """Cut the fraction of a time to the microsecond."""
    digits = time[1][:6].rstrip("0")
    return f".{digits}Z" if digits else "Z"


def unordered(frame: pd.DataFrame) -> pd.DataFrame:
    """Sort the keys in texts of JSON, and cut the times in them: the SDK does both its own way."""
    texts = ("initial_events", "resources", "metadata", "agent", "outcome_evaluations", "extra")

    def plain(text: str) -> str:
        return re.sub(r"\.(\d+)Z(?=\")", cut, json.dumps(json.loads(text), sort_keys=True))

    return frame.assign(**{name: frame[name].map(plain, na_action="ignore") for name in texts if name in frame})


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
    assert len(loaded) == 205
    pd.testing.assert_frame_equal(unordered(flatten_deployments(records)), unordered(loaded))


@pytest.mark.parametrize("filters", [{}, {"status": "paused"}], ids=str)
def test_its_filters_give_the_same_rows(
    sandbox: Sandbox, official: OfficialClient, tmp_path: Path, filters: dict[str, Any]
) -> None:
    records = dicts(official.deployments.list(**filters), "python")
    client = Client(sandbox.pat, sandbox.base_url)
    loaded = load_deployments(client=client, cache_dir=tmp_path, **filters)
    assert 0 < len(loaded) < 205
    assert [record["id"] for record in records] == list(loaded["id"])


@pytest.mark.parametrize("mode", ["python", "json"])
def test_its_runs_flattened_are_the_accounts(sandbox: Sandbox, official: OfficialClient, mode: Mode) -> None:
    records = dicts(official.deployment_runs.list(limit=100), mode)
    assert [request.status for request in sandbox.requests] == [200] * 3
    pd.testing.assert_frame_equal(flatten_runs(records), flatten_runs(sandbox.runs))


def test_its_sessions_flattened_are_those_that_are_loaded(
    sandbox: Sandbox, official: OfficialClient, tmp_path: Path
) -> None:
    records = dicts(official.sessions.list(limit=100, include_archived=True), "json")
    loaded = load_sessions(client=Client(sandbox.pat, sandbox.base_url), cache_dir=tmp_path)
    assert list(loaded["id"]) == [session["id"] for session in sandbox.sessions]
    pd.testing.assert_frame_equal(unordered(flatten_sessions(records)), unordered(loaded))


def test_its_events_flattened_are_those_that_are_loaded(sandbox: Sandbox, official: OfficialClient) -> None:
    client = Client(sandbox.pat, sandbox.base_url)
    for session in sandbox.sessions[::35]:
        records = dicts(official.sessions.events.list(session["id"], limit=100), "json")
        loaded = load_events(session["id"], client=client)
        assert len(loaded) == len(sandbox.events(session["id"])) > 0
        pd.testing.assert_frame_equal(unordered(flatten_events(records, session["id"])), unordered(loaded))


def test_its_agents_and_environments_are_those_that_are_loaded(
    sandbox: Sandbox, official: OfficialClient, tmp_path: Path
) -> None:
    client = Client(sandbox.pat, sandbox.base_url)
    for load, listed in ((load_agents, official.agents), (load_environments, official.environments)):
        records = dicts(listed.list(limit=100, include_archived=True), "json")
        loaded = load(client=client, cache_dir=tmp_path)
        assert [(record["id"], record["name"]) for record in records] == list(
            zip(loaded["id"], loaded["name"], strict=True)
        )
