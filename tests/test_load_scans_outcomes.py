"""Tests of outcomes in `scan_runs`: every engine gives the same outcomes as `load_runs` in pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from qoderdata import Client, load_runs, load_sessions, run_failure_rates, scan_runs, scan_sessions
from qoderdata.errors import DataQualityWarning
from qoderdata.sandbox import Sandbox
from qoderdata.schema import RUNS, SESSIONS
from tests.engine_frames import by_id, collected_scan, computed, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

EACH_ENGINE = pytest.mark.parametrize("engine", ["duckdb", "polars", "dask"])


@pytest.fixture(scope="module")
def account() -> Iterator[tuple[Sandbox, Client]]:
    with Sandbox(deployments=20, seed=9, edition="D", runs=60) as sandbox:
        yield sandbox, Client(sandbox.pat, sandbox.base_url, min_interval=0)


@pytest.fixture(scope="module")
def folder(account: tuple[Sandbox, Client], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache folder in which every outcome is known."""
    path = tmp_path_factory.mktemp("cache")
    load_runs(client=account[1], cache_dir=path, outcomes="events")
    return path


@EACH_ENGINE
@pytest.mark.parametrize("since", [None, "2026-06-01T00:00Z"])
def test_scanned_runs_have_the_outcomes_of_load_runs(
    account: tuple[Sandbox, Client], folder: Path, engine: str, since: str | None
) -> None:
    lazy = scan_runs(folder, engine=engine, since=since, client=account[1])
    expected = load_runs(client=account[1], cache_dir=folder, outcomes="sessions", since=since, offline=True)
    assert {"failed", "completed", "cancelled"} <= set(expected["status"].dropna())
    found = collected_scan(lazy, RUNS, optimize=since is None)
    pd.testing.assert_frame_equal(found, by_id(expected), check_flags=False)


@EACH_ENGINE
@pytest.mark.filterwarnings("ignore:Dask has no percentiles:qoderdata.errors.DataQualityWarning")
def test_failure_rates_of_a_scan_equal_those_of_pandas(
    account: tuple[Sandbox, Client], folder: Path, engine: str
) -> None:
    runs = load_runs(client=account[1], cache_dir=folder, outcomes="sessions", offline=True)
    expected = run_failure_rates(runs, by=None)
    if engine == "dask":
        expected[["duration_p50_ms", "duration_p95_ms"]] = None
    found = computed(run_failure_rates(scan_runs(folder, engine=engine, client=account[1]), by=None))
    assert rows_of(found) == rows_of(expected)


def test_waiting_end_is_used_only_while_its_session_is_unchanged(tmp_path: Path) -> None:
    """After a waiting session was continued, its own status gives the outcome until its events are read."""
    with Sandbox(deployments=3, seed=7, edition="D", runs=9) as sandbox:
        client = Client(sandbox.pat, sandbox.base_url, min_interval=0)
        runs = load_runs(client=client, cache_dir=tmp_path / "a", outcomes="sessions")
        run, session = runs.loc[runs["status"] == "completed", ["id", "session_id"]].iloc[0]
        events = sandbox.events(session)
        waits = {"type": "session.status_idle", "stop_reason": {"type": "requires_action"}, "id": "evt_waits"}
        sandbox.rewrite_events(session, [events[0], waits])
        before = load_runs(client=client, cache_dir=tmp_path, outcomes="events").set_index("id")
        assert before.loc[run, "status"] == "waiting"
        sandbox.continue_session(session)
        after = load_runs(client=client, cache_dir=tmp_path, outcomes="sessions", refresh=True).set_index("id")
        assert after.loc[run, "status_from"] == "session"
        for engine in ("duckdb", "polars", "dask"):
            lazy = collected_scan(scan_runs(tmp_path, engine=engine, client=client), RUNS).set_index("id")
            assert lazy.loc[run, "status"] == after.loc[run, "status"]


@EACH_ENGINE
def test_scanned_sessions_are_those_of_the_account(
    account: tuple[Sandbox, Client], folder: Path, engine: str
) -> None:
    load_sessions(client=account[1], cache_dir=folder)
    found = collected_scan(scan_sessions(folder, engine=engine, client=account[1]), SESSIONS)
    listed = {session["id"] for session in account[0].sessions}
    assert set(found["id"]) == listed
    credits_ = found["usage_total_credits"].sum()
    expected = [session["usage"]["total_credits"] for session in account[0].sessions if "usage" in session]
    assert credits_ == pytest.approx(sum(expected))


def test_scan_outside_the_stored_range_causes_a_warning(tmp_path: Path) -> None:
    """Loading the runs since a time also stores the sessions since that time."""
    scans: tuple[Callable[..., Any], ...] = (scan_runs, scan_sessions)
    with Sandbox(deployments=10, seed=7, edition="D", runs=250) as sandbox:
        client = Client(sandbox.pat, sandbox.base_url, min_interval=0)
        since = pd.Timestamp(sandbox.now) - pd.Timedelta("3D")
        load_runs(client=client, cache_dir=tmp_path, outcomes="sessions", since=since)
        for scan in scans:
            scan(tmp_path, engine="polars", since=since + pd.Timedelta("1D"), client=client)
            with pytest.warns(DataQualityWarning, match="not all .* asked for are stored"):
                scan(tmp_path, engine="polars", since=since - pd.Timedelta("90D"), client=client)
        load_runs(client=client, cache_dir=tmp_path, outcomes="sessions")
        load_sessions(client=client, cache_dir=tmp_path)
        for scan in scans:
            scan(tmp_path, engine="polars", client=client)
