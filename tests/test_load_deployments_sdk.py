"""Tests that the official SDK reads the same records from the sandbox as this package."""

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
from qoderdata.sandbox.changes import EDITIONS
from tests.sandbox_loads import sandbox_with_newest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qoderdata.sandbox import Sandbox

Record = dict[str, Any]
Mode = Literal["python", "json"]


@pytest.fixture(scope="module")
def account() -> Iterator[Sandbox]:
    with sandbox_with_newest(205, deployments=205, generated=600, seed=9) as sandbox:
        yield sandbox


@pytest.fixture(params=EDITIONS)
def sandbox(request: pytest.FixtureRequest, account: Sandbox) -> Sandbox:
    account.edition = request.param
    account.requests.clear()
    return account


@pytest.fixture
def official(sandbox: Sandbox) -> Iterator[OfficialClient]:
    with OfficialClient(pat=sandbox.pat, base_url=sandbox.base_url, max_retries=0) as client:
        yield client


def dicts(records: Any, mode: Mode) -> list[Record]:  # noqa: ANN401 - a paginator of the SDK
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Pydantic serializer warnings", UserWarning)
        return [record.to_dict(mode=mode) for record in records]


def cut_to_microseconds(time: re.Match[str]) -> str:
    """Drop the digits of a time after the microseconds."""
    digits = time[1][:6].rstrip("0")
    return f".{digits}Z" if digits else "Z"


def normalize(frame: pd.DataFrame) -> pd.DataFrame:
    """Sort the keys of JSON texts and shorten their times, in which the SDK differs."""
    texts = ("initial_events", "resources", "metadata", "agent", "outcome_evaluations", "extra")

    def normalize_text(text: str) -> str:
        return re.sub(r"\.(\d+)Z(?=\")", cut_to_microseconds, json.dumps(json.loads(text), sort_keys=True))

    return frame.assign(
        **{name: frame[name].map(normalize_text, na_action="ignore") for name in texts if name in frame}
    )


@pytest.mark.parametrize("mode", ["python", "json"])
def test_sdk_deployments_flattened_equal_load_deployments(
    sandbox: Sandbox, client: Client, official: OfficialClient, tmp_path: Path, mode: Mode
) -> None:
    """In mode "python" the SDK's times are datetimes, in mode "json" they are texts."""
    records = dicts(official.deployments.list(limit=100, include_archived=True), mode)
    assert [request.status for request in sandbox.requests] == [200] * 3
    assert all(type(record["created_at"]) is {"python": datetime, "json": str}[mode] for record in records)
    loaded = load_deployments(include_archived=True, client=client, cache_dir=tmp_path)
    assert len(loaded) == 205
    pd.testing.assert_frame_equal(normalize(flatten_deployments(records)), normalize(loaded))


@pytest.mark.parametrize("filters", [{}, {"status": "paused"}], ids=str)
def test_sdk_filters_give_the_same_deployments(
    client: Client, official: OfficialClient, tmp_path: Path, filters: dict[str, Any]
) -> None:
    records = dicts(official.deployments.list(limit=100, **filters), "python")
    loaded = load_deployments(client=client, cache_dir=tmp_path, **filters)
    assert 0 < len(loaded) < 205
    assert [record["id"] for record in records] == list(loaded["id"])


@pytest.mark.parametrize("mode", ["python", "json"])
def test_sdk_runs_flattened_equal_the_runs_of_the_account(
    sandbox: Sandbox, official: OfficialClient, mode: Mode
) -> None:
    records = dicts(official.deployment_runs.list(limit=100), mode)
    assert [request.status for request in sandbox.requests] == [200] * 3
    pd.testing.assert_frame_equal(flatten_runs(records), flatten_runs(sandbox.runs))


def test_sdk_sessions_flattened_equal_load_sessions(
    sandbox: Sandbox, client: Client, official: OfficialClient, tmp_path: Path
) -> None:
    records = dicts(official.sessions.list(limit=100, include_archived=True), "json")
    loaded = load_sessions(client=client, cache_dir=tmp_path)
    assert list(loaded["id"]) == [session["id"] for session in sandbox.sessions]
    pd.testing.assert_frame_equal(normalize(flatten_sessions(records)), normalize(loaded))


def test_sdk_events_flattened_equal_load_events(
    sandbox: Sandbox, client: Client, official: OfficialClient
) -> None:
    for session in sandbox.sessions[::35]:
        records = dicts(official.sessions.events.list(session["id"], limit=100), "json")
        loaded = load_events(session["id"], client=client)
        assert len(loaded) == len(sandbox.events(session["id"])) > 0
        pd.testing.assert_frame_equal(normalize(flatten_events(records, session["id"])), normalize(loaded))


def test_sdk_agents_and_environments_equal_loaded_ones(
    client: Client, official: OfficialClient, tmp_path: Path
) -> None:
    for load, listed in ((load_agents, official.agents), (load_environments, official.environments)):
        records = dicts(listed.list(limit=100, include_archived=True), "json")
        loaded = load(client=client, cache_dir=tmp_path)
        assert [(record["id"], record["name"]) for record in records] == list(
            zip(loaded["id"], loaded["name"], strict=True)
        )
