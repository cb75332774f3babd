"""Tests of `load_sessions` over real HTTP: all sessions with current values, for few requests."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from qoderdata.client import Client
from qoderdata.decode import Decoder
from qoderdata.errors import AuthenticationError, CacheError, CacheWarning
from qoderdata.frames import to_pandas
from qoderdata.load.caches import cache_usage, clear_cache
from qoderdata.load.scans import scan_sessions
from qoderdata.load.sessions import REREAD, load_sessions
from qoderdata.sandbox import Sandbox
from qoderdata.schema import SESSIONS
from tests.engine_frames import by_id, collected_scan
from tests.sandbox_loads import sandbox_with_newest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module", params=["B", "C", "D"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Serve an account; editions A and B have the same sessions."""
    with sandbox_with_newest(400, deployments=100, generated=1_000, edition=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def stored(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """Load all sessions into a folder that tests only read."""
    folder = tmp_path_factory.mktemp("stored")
    return folder, load(sandbox, folder)


def load(sandbox: Sandbox, folder: Path, **options: Any) -> pd.DataFrame:  # noqa: ANN401
    client = Client(pat=sandbox.pat, base_url=sandbox.base_url, min_interval=0)
    return load_sessions(client=client, cache_dir=folder, progress=False, **options)


def read_sessions(sandbox: Sandbox) -> pd.DataFrame:
    """Read all sessions without this package's loaders."""
    client = Client(pat=sandbox.pat, base_url=sandbox.base_url, min_interval=0)
    decoder, tables = Decoder(SESSIONS), []
    params = {"include_archived": "true", "limit": "100"}
    while True:
        page = client.get("/sessions", params, decoder.read_page)
        tables.append(decoder.to_table(page))
        if not page.has_more:
            return to_pandas(decoder.finish(tables), SESSIONS)
        params["page"] = str(page.cursor)


def assert_equal_sessions(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Compare sessions; the categories and their order may differ."""
    pd.testing.assert_frame_equal(comparable(one), comparable(other), check_flags=False)


def comparable(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(agent=frame["agent"].astype("str"), vault_ids=frame["vault_ids"].map(_to_list))


def _to_list(value: Any) -> list[str] | None:  # noqa: ANN401
    return None if value is None else list(value)


def test_all_sessions_are_loaded_with_the_fewest_requests(sandbox: Sandbox, tmp_path: Path) -> None:
    truth = read_sessions(sandbox)
    before = len(sandbox.requests)
    frame = load(sandbox, tmp_path)
    assert_equal_sessions(frame, truth)
    assert len(sandbox.requests) - before == -(-len(truth) // 100)
    assert {request.query.get("include_archived") for request in sandbox.requests[before:]} == {"true"}
    assert all(int(request.query["limit"]) <= 100 for request in sandbox.requests[before:])
    assert not any("after_id" in request.query for request in sandbox.requests[before:])
    assert frame["archived_at"].notna().any()
    assert str(frame["agent"].dtype) == "category"
    again = load(sandbox, tmp_path)
    assert_equal_sessions(again, frame)
    assert again.attrs["requests"] == 0


def test_load_of_more_time_requests_only_the_missing_sessions(
    sandbox: Sandbox, stored: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    _, truth = stored
    since = truth["created_at"].iloc[150]
    near = load(sandbox, tmp_path, since=since)
    assert list(near["id"]) == list(truth.loc[truth["created_at"] >= since, "id"])
    everything = load(sandbox, tmp_path)
    assert_equal_sessions(everything, truth)
    assert near.attrs["requests"] + everything.attrs["requests"] <= -(-len(truth) // 100) + 1
    between = load(sandbox, tmp_path, since=truth["created_at"].iloc[300], until=since)
    assert list(between["id"]) == list(truth["id"].iloc[151:301])


def test_filters_give_the_same_rows_from_service_and_store(
    sandbox: Sandbox, stored: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    folder, truth = stored
    for name in ("deployment_id", "agent_id"):
        value = truth[name].dropna().iloc[0]
        from_service = load(sandbox, tmp_path, **{name: value})
        from_store = load(sandbox, folder, **{name: value})
        expected = list(truth.loc[truth[name] == value, "id"])
        assert list(from_service["id"]) == list(from_store["id"]) == expected
        assert from_store.attrs["requests"] == 0


def test_refresh_shows_new_and_ended_sessions(tmp_path: Path) -> None:
    with sandbox_with_newest(250, edition="D") as sandbox:
        load(sandbox, tmp_path)
        created = [run["id"] for run in sandbox.create_runs(3, status="running")]
        frame = load(sandbox, tmp_path, refresh=True)
        assert_equal_sessions(frame, read_sessions(sandbox))
        assert "running" in set(frame["status"].head(3))
        for run in created:
            sandbox.finish_run(run)
        frame = load(sandbox, tmp_path, refresh=True)
        assert_equal_sessions(frame, read_sessions(sandbox))
        assert "running" not in set(frame["status"].head(3))


def test_refresh_reads_sessions_from_seven_days_before_the_last_one(tmp_path: Path) -> None:
    """It reads older running sessions by id; a deleted one is requested only once."""
    with sandbox_with_newest(900, deployments=100, generated=1_000, edition="D") as sandbox:
        frame = load(sandbox, tmp_path)
        is_recent = frame["created_at"] >= frame["created_at"].max() - REREAD
        running = frame["status"].isin(["running", "rescheduling", "canceling"])
        recent, older = int(is_recent.sum()), int((running & ~is_recent).sum())
        assert 1 < older < (len(frame) - recent) // 100
        deleted = frame.loc[running & ~is_recent, "id"].iloc[-1]
        sandbox.delete_session(deleted)
        for times in (1, 0):
            before = len(sandbox.requests)
            refreshed = load(sandbox, tmp_path, refresh=True)
            read_by_id = older - 1 + times
            assert recent // 100 <= refreshed.attrs["requests"] - read_by_id <= recent // 100 + 2
            assert sum(deleted in request.path for request in sandbox.requests[before:]) == times
            assert_equal_sessions(refreshed, frame)


def test_many_old_running_sessions_are_read_in_pages(tmp_path: Path) -> None:
    with sandbox_with_newest(20, edition="D") as sandbox:
        for count, status in ((150, "running"), (200, "completed"), (50, "completed")):
            sandbox.create_runs(count, status=status)
            sandbox._database.now += 10 * 86_400 * 10**9
        first = load(sandbox, tmp_path).attrs["requests"]
        assert load(sandbox, tmp_path, refresh=True).attrs["requests"] == first


@pytest.mark.parametrize("seed", range(2))
def test_refresh_shows_all_changes_of_sessions(tmp_path: Path, seed: int) -> None:
    """Recent sessions continue, running ones end, some are deleted, and refreshes fail in between."""
    rng = random.Random(seed)  # noqa: S311 - no secrets
    with sandbox_with_newest(350, seed=seed, edition="D") as sandbox:
        frame = load(sandbox, tmp_path)
        running: list[str] = []
        for _ in range(4):
            running += [run["id"] for run in sandbox.create_runs(3, status="running")]
            sandbox.finish_run(running.pop(rng.randrange(len(running))))
            sandbox.create_runs(rng.randrange(1, 90))
            sandbox.delete_session(rng.choice(sandbox.sessions)["id"])
            recent = frame.loc[frame["created_at"] > frame["created_at"].max() - REREAD, "id"]
            done = {run["session_id"] for run in sandbox.outcomes if run["status"] == "completed"}
            done.intersection_update(s["id"] for s in sandbox.sessions if s["archived_at"] is None)
            sandbox.continue_session(rng.choice([id_ for id_ in recent if id_ in done]))
            sandbox._database.now += rng.choice((1, 8)) * 86_400 * 10**9
            sandbox.misbehave("401", at=rng.randrange(1, 4))
            with pytest.raises(AuthenticationError):
                load(sandbox, tmp_path, refresh="all")
            frame = load(sandbox, tmp_path, refresh=True)
            truth = read_sessions(sandbox)
            assert_equal_sessions(frame[frame["id"].isin(truth["id"])].reset_index(drop=True), truth)


def test_pull_continues_after_a_failure(tmp_path: Path) -> None:
    with sandbox_with_newest(450, deployments=100, generated=1_000, edition="D") as sandbox:
        sandbox.misbehave("401", at=3)
        with pytest.raises(AuthenticationError) as caught:
            load(sandbox, tmp_path)
        assert "The pages that were read are stored: the next call continues from there." in caught.value.__notes__
        frame = load(sandbox, tmp_path)
        assert frame.attrs["requests"] == -(-len(frame) // 100) - 3
        assert_equal_sessions(frame, read_sessions(sandbox))
        with pytest.raises(CacheError, match="has no sessions"):
            load(sandbox, tmp_path / "nothing", offline=True)
        assert_equal_sessions(load(sandbox, tmp_path, offline=True), frame)


@pytest.mark.parametrize(("count", "index"), [(400, -1), (395, 150)])
def test_load_after_a_failed_refresh_shows_the_changes(tmp_path: Path, count: int, index: int) -> None:
    """A load without `refresh` shows them too, also if older sessions are not stored."""
    with sandbox_with_newest(400, deployments=100, generated=1_000, edition="D") as sandbox:
        since = read_sessions(sandbox)["created_at"].iloc[:count].min()
        frame = load(sandbox, tmp_path, since=since)
        week = frame[(frame["created_at"] > frame["created_at"].max() - REREAD) & frame["archived_at"].isna()]
        completed = {run["session_id"] for run in sandbox.outcomes if run["status"] == "completed"}
        ended = list(week.loc[week["id"].isin(completed), "id"])
        for page, refresh in itertools.product((1, 3), (False, True)):
            sandbox.continue_session(ended.pop(index))
            sandbox.misbehave("401", at=page)
            with pytest.raises(AuthenticationError):
                load(sandbox, tmp_path, refresh=True, since=since)
            truth = read_sessions(sandbox)
            truth = truth[truth["created_at"] >= since].reset_index(drop=True)
            assert_equal_sessions(load(sandbox, tmp_path, refresh=refresh, since=since), truth)
            assert load(sandbox, tmp_path, since=since).attrs["requests"] == 0


def test_sessions_of_a_damaged_data_file_are_loaded_again(tmp_path: Path) -> None:
    with sandbox_with_newest(110, edition="D") as sandbox:
        frame = load(sandbox, tmp_path)
        for refresh in (False, True):
            next(iter(sorted(tmp_path.glob("sessions/*/data/*/*.parquet")))).unlink()
            with pytest.warns(CacheWarning, match=r"1 of \d+ data files .* is gone or damaged"):
                assert_equal_sessions(load(sandbox, tmp_path, refresh=refresh), frame)


def test_failed_refresh_does_not_move_the_start_of_the_next_one(tmp_path: Path) -> None:
    """The next refresh still starts seven days before the last complete one, a month ago."""
    with sandbox_with_newest(350, edition="D") as sandbox:
        for session in sandbox.sessions:
            if session["status"] not in {"idle", "terminated"}:
                sandbox.delete_session(session["id"])
        load(sandbox, tmp_path)
        done = [run["session_id"] for run in sandbox.outcomes if run["status"] == "completed"]
        known = {session["id"] for session in sandbox.sessions if not session["archived_at"]}
        sandbox.continue_session([id_ for id_ in done if id_ in known][200])
        sandbox._database.now += 30 * 86_400 * 10**9
        sandbox.create_runs(250)
        for _ in range(2):
            sandbox.misbehave("401", at=1)
            with pytest.raises(AuthenticationError):
                load(sandbox, tmp_path, refresh=True)
        assert_equal_sessions(load(sandbox, tmp_path, refresh=True), read_sessions(sandbox))


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """Store the sessions of a small account."""
    folder = tmp_path_factory.mktemp("scanned")
    with sandbox_with_newest(110, edition="D") as sandbox:
        return folder, load(sandbox, folder)


@pytest.mark.parametrize("engine", ["duckdb", "polars", "dask"])
def test_scan_sessions_gives_the_same_rows(scanned: tuple[Path, pd.DataFrame], engine: str) -> None:
    folder, frame = scanned
    lazy = scan_sessions(folder, engine=engine, since=frame["created_at"].iloc[99])
    found = collected_scan(lazy, SESSIONS, optimize=True)
    assert_equal_sessions(found, by_id(frame.head(100)))


def test_cache_usage_and_clear_cache_include_sessions(tmp_path: Path) -> None:
    with Sandbox(deployments=5, seed=7, runs=40, edition="D") as sandbox:
        load(sandbox, tmp_path)
    usage = cache_usage(tmp_path)
    assert usage["sessions"]["files"] > 1
    assert usage["sessions"]["bytes"] > 0
    assert usage["runs"] == usage["outcomes"] == {"files": 0, "bytes": 0}
    assert clear_cache(tmp_path) == usage["sessions"]["files"]
    assert cache_usage(tmp_path)["sessions"]["files"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deployment_id": " "}, "deployment_id=' ' is not the id of anything"),
        ({"agent_id": 5}, "agent_id=5 is not the id of anything"),
        ({"since": "2026-06-01"}, "has no time zone"),
        ({"refresh": "all", "offline": True}, "give one of them"),
        ({"refresh": 1}, "refresh=1 is not known; allowed are True, False and 'all'"),
        ({"offline": "false"}, "offline='false' is neither True nor False"),
    ],
)
def test_invalid_arguments_raise_value_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_sessions(**options)
