"""`scan_runs` tells the same outcomes in every engine as `load_runs` does in pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from qoderdata import Client, load_runs, load_sessions, run_failure_rates, scan_runs, scan_sessions
from qoderdata.errors import DataQualityWarning
from qoderdata.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COLUMNS = ["status", "status_from", "error_type", "error_message", "duration_ms"]
TIMES = ["triggered_at", "started_at", "completed_at"]

EACH_ENGINE = pytest.mark.parametrize("engine", ["duckdb", "polars", "dask"])


@pytest.fixture(scope="module")
def account() -> Iterator[tuple[Sandbox, Client]]:
    with Sandbox(deployments=20, seed=9, edition="D", runs=60) as sandbox:
        yield sandbox, Client(sandbox.pat, sandbox.base_url, min_interval=0)


@pytest.fixture(scope="module")
def folder(account: tuple[Sandbox, Client], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache in which every outcome is known."""
    path = tmp_path_factory.mktemp("cache")
    load_runs(client=account[1], cache_dir=path, outcomes="events")
    return path


def computed(frame: Any) -> pd.DataFrame:  # noqa: ANN401 - a frame of any engine
    found = (
        frame.compute() if hasattr(frame, "compute") else frame.collect() if hasattr(frame, "collect") else frame
    )
    return (
        found
        if isinstance(found, pd.DataFrame)
        else found.to_arrow_table().to_pandas()
        if hasattr(found, "to_arrow_table")
        else found.to_pandas()
    )


def comparable(frame: pd.DataFrame) -> pd.DataFrame:
    """Sort by id, and write missing values in one way."""
    frame = frame.set_index("id").sort_index()
    texts = (
        frame[COLUMNS]
        .astype(object)
        .where(frame[COLUMNS].notna(), None)
        .map(lambda value: None if value is None else str(value).removesuffix(".0"))
    )
    times = frame[TIMES].apply(lambda column: pd.Series(pd.to_datetime(column, utc=True)).dt.as_unit("us"))
    return pd.concat([texts, times], axis=1)


@EACH_ENGINE
@pytest.mark.parametrize("since", [None, "2026-06-01T00:00Z"])
def test_runs_are_resolved(account: tuple[Sandbox, Client], folder: Path, engine: str, since: str | None) -> None:
    lazy = scan_runs(folder, engine=engine, since=since, client=account[1])
    expected = load_runs(client=account[1], cache_dir=folder, outcomes="sessions", since=since, offline=True)
    assert {"failed", "completed", "cancelled"} <= set(expected["status"].dropna())
    found = computed(lazy)
    assert list(found.columns) == list(expected.columns)
    pd.testing.assert_frame_equal(
        comparable(found), comparable(expected), check_dtype=False, check_index_type=False
    )


@EACH_ENGINE
@pytest.mark.filterwarnings("ignore:Dask has no percentiles:qoderdata.errors.DataQualityWarning")
def test_rates_are_those_of_pandas(account: tuple[Sandbox, Client], folder: Path, engine: str) -> None:
    runs = load_runs(client=account[1], cache_dir=folder, outcomes="sessions", offline=True)
    expected = run_failure_rates(runs, by=None)
    found = computed(run_failure_rates(scan_runs(folder, engine=engine, client=account[1]), by=None))
    for name in ("runs", "completed", "assumed", "failed", "skipped", "unfinished", "unknown"):
        assert int(found[name].iloc[0]) == int(expected[name].iloc[0]), name
    assert found["failure_rate"].iloc[0] == pytest.approx(expected["failure_rate"].iloc[0])


def test_an_end_that_is_not_final_counts_while_its_session_is_unchanged(tmp_path: Path) -> None:
    """A session that waited and was continued since is told by its session again, until its events are read."""
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
            lazy = computed(scan_runs(tmp_path, engine=engine, client=client)).set_index("id")
            assert lazy.loc[run, "status"] == after.loc[run, "status"]


@EACH_ENGINE
def test_sessions(account: tuple[Sandbox, Client], folder: Path, engine: str) -> None:
    load_sessions(client=account[1], cache_dir=folder)
    found = computed(scan_sessions(folder, engine=engine, client=account[1]))
    listed = {session["id"] for session in account[0].sessions}
    assert set(found["id"]) == listed
    credits_ = found["usage_total_credits"].sum()
    told = [session["usage"]["total_credits"] for session in account[0].sessions if "usage" in session]
    assert credits_ == pytest.approx(sum(told))


@pytest.mark.parametrize("scan", [scan_runs, scan_sessions])
def test_what_is_not_stored_is_said(tmp_path: Path, scan: Callable[..., Any]) -> None:
    """Runs since a time are in the store, with the sessions since then."""
    with Sandbox(deployments=40, seed=7, edition="D", runs=250) as sandbox:
        client = Client(sandbox.pat, sandbox.base_url, min_interval=0)
        since = pd.Timestamp(sandbox.now) - pd.Timedelta("3D")
        load_runs(client=client, cache_dir=tmp_path, outcomes="sessions", since=since)
        scan(tmp_path, engine="polars", since=since + pd.Timedelta("1D"), client=client)
        with pytest.warns(DataQualityWarning, match="not all .* asked for are stored"):
            scan(tmp_path, engine="polars", since=since - pd.Timedelta("90D"), client=client)
        load_runs(client=client, cache_dir=tmp_path, outcomes="sessions")
        load_sessions(client=client, cache_dir=tmp_path)
        scan(tmp_path, engine="polars", client=client)
