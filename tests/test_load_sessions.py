"""`load_sessions` on real HTTP: every session as it is now, for the requests of what may have changed."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from qoderdata.client import Client
from qoderdata.decode import Decoder
from qoderdata.errors import AuthenticationError, CacheError
from qoderdata.frames import to_pandas
from qoderdata.load.caches import cache_usage, clear_cache
from qoderdata.load.scans import scan_sessions
from qoderdata.load.sessions import REREAD, load_sessions
from qoderdata.sandbox import Sandbox
from qoderdata.schema import SESSIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module", params=["B", "C", "D"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Serve one account; the sessions of edition A are those of B."""
    with Sandbox(deployments=20, seed=7, runs=450, edition=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def stored(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """Load all sessions into a folder that tests only read."""
    folder = tmp_path_factory.mktemp("stored")
    return folder, load(sandbox, folder)


def load(sandbox: Sandbox, folder: Path, **options: Any) -> pd.DataFrame:  # noqa: ANN401
    client = Client(pat=sandbox.pat, base_url=sandbox.base_url, min_interval=0)
    return load_sessions(client=client, cache_dir=folder, progress=False, **options)


def listed(sandbox: Sandbox) -> pd.DataFrame:
    """Read all sessions without this package's loaders."""
    client = Client(pat=sandbox.pat, base_url=sandbox.base_url, min_interval=0)
    decoder, tables = Decoder(SESSIONS), []
    params = {"include_archived": "true", "limit": "100"}
    while True:
        page = client.get("/sessions", params, decoder.read_page)
        tables.append(decoder.to_table(page))
        if not page.has_more:
            return to_pandas(decoder.finish(tables), SESSIONS)
        params["page"] = str(page.next_page)


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Compare sessions; which categories there are, and in which order, is nobody's business."""
    pd.testing.assert_frame_equal(plain(one), plain(other), check_flags=False)


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(agent=frame["agent"].astype("str"), vault_ids=frame["vault_ids"].map(_listed))


def _listed(value: Any) -> list[str] | None:  # noqa: ANN401
    return None if value is None else list(value)


def test_all_sessions_in_the_fewest_requests(sandbox: Sandbox, tmp_path: Path) -> None:
    truth = listed(sandbox)
    before = len(sandbox.requests)
    frame = load(sandbox, tmp_path)
    same(frame, truth)
    assert len(sandbox.requests) - before == -(-len(truth) // 100)
    assert {request.query.get("include_archived") for request in sandbox.requests[before:]} == {"true"}
    assert all(int(request.query["limit"]) <= 100 for request in sandbox.requests[before:])
    assert not any("after_id" in request.query for request in sandbox.requests[before:])
    assert frame["archived_at"].notna().any()
    assert str(frame["agent"].dtype) == "category"
    again = load(sandbox, tmp_path)
    same(again, frame)
    assert again.attrs["requests"] == 0


def test_a_time_costs_its_own_pages_and_more_time_only_what_is_missing(
    sandbox: Sandbox, stored: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    _, truth = stored
    since = truth["created_at"].iloc[150]
    near = load(sandbox, tmp_path, since=since)
    assert list(near["id"]) == list(truth.loc[truth["created_at"] >= since, "id"])
    assert near.attrs["requests"] <= 3
    same(load(sandbox, tmp_path), truth)
    between = load(sandbox, tmp_path, since=truth["created_at"].iloc[300], until=since)
    assert list(between["id"]) == list(truth["id"].iloc[151:301])


def test_filters_give_the_same_from_the_service_and_from_the_store(
    sandbox: Sandbox, stored: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    folder, truth = stored
    for name in ("deployment_id", "agent_id"):
        value = truth[name].dropna().iloc[0]
        asked = load(sandbox, tmp_path, **{name: value})
        kept = load(sandbox, folder, **{name: value})
        assert list(asked["id"]) == list(kept["id"]) == list(truth.loc[truth[name] == value, "id"])
        assert kept.attrs["requests"] == 0


def test_what_changed_in_the_last_days_is_read_again(tmp_path: Path) -> None:
    with Sandbox(deployments=20, seed=7, runs=450, edition="D") as sandbox:
        load(sandbox, tmp_path)
        created = [run["id"] for run in sandbox.create_runs(3, status="running")]
        frame = load(sandbox, tmp_path, refresh=True)
        same(frame, listed(sandbox))
        assert "running" in set(frame["status"].head(3))
        for run in created:
            sandbox.finish_run(run)
        frame = load(sandbox, tmp_path, refresh=True)
        same(frame, listed(sandbox))
        assert "running" not in set(frame["status"].head(3))


def test_a_refresh_reads_back_to_seven_days_before_the_last_one(tmp_path: Path) -> None:
    """And reads the few older ones that ran by id; of one that is deleted it asks once, not for good."""
    with Sandbox(deployments=20, seed=7, runs=1_000, edition="D") as sandbox:
        frame = load(sandbox, tmp_path)
        is_recent = frame["created_at"] >= frame["created_at"].max() - REREAD
        running = frame["status"].isin(["running", "rescheduling", "canceling"])
        listed, older = int(is_recent.sum()), int((running & ~is_recent).sum())
        assert 0 < older < (len(frame) - listed) // 100
        deleted = frame.loc[running & ~is_recent, "id"].iloc[-1]
        sandbox.delete_session(deleted)
        for times in (1, 0):
            before = len(sandbox.requests)
            refreshed = load(sandbox, tmp_path, refresh=True)
            read_by_id = older - 1 + times
            assert listed // 100 <= refreshed.attrs["requests"] - read_by_id <= listed // 100 + 2
            assert sum(deleted in request.path for request in sandbox.requests[before:]) == times
            same(refreshed, frame)


@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_to_sessions_a_refresh_shows_it(tmp_path: Path, seed: int) -> None:
    """Sessions of the last days go on, old ones that ran end, some are deleted, and refreshes are cut off."""
    chance = random.Random(seed)  # noqa: S311 - changes, not secrets
    with Sandbox(deployments=40, seed=seed, runs=300, edition="D") as sandbox:
        frame = load(sandbox, tmp_path)
        running: list[str] = []
        for _ in range(4):
            running += [run["id"] for run in sandbox.create_runs(3, status="running")]
            sandbox.finish_run(running.pop(chance.randrange(len(running))))
            sandbox.create_runs(chance.randrange(1, 90))
            sandbox.delete_session(chance.choice(sandbox.sessions)["id"])
            recent = frame.loc[frame["created_at"] > frame["created_at"].max() - REREAD, "id"]
            done = {run["session_id"] for run in sandbox.outcomes if run["status"] == "completed"}
            done.intersection_update(s["id"] for s in sandbox.sessions if s["archived_at"] is None)
            sandbox.continue_session(chance.choice([id_ for id_ in recent if id_ in done]))
            sandbox._database.now += chance.choice((1, 8)) * 86_400 * 10**9
            sandbox.misbehave("401", at=chance.randrange(1, 4))
            with pytest.raises(AuthenticationError):
                load(sandbox, tmp_path, refresh="all")
            frame = load(sandbox, tmp_path, refresh=True)
            truth = listed(sandbox)
            same(frame[frame["id"].isin(truth["id"])].reset_index(drop=True), truth)


def test_a_pull_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    with Sandbox(deployments=20, seed=7, runs=450, edition="D") as sandbox:
        sandbox.misbehave("401", at=3)
        with pytest.raises(AuthenticationError) as caught:
            load(sandbox, tmp_path)
        assert "The pages that came are kept: the next call goes on from there." in caught.value.__notes__
        frame = load(sandbox, tmp_path)
        assert frame.attrs["requests"] == -(-len(frame) // 100) - 3
        same(frame, listed(sandbox))
        with pytest.raises(CacheError, match="has no sessions"):
            load(sandbox, tmp_path / "nothing", offline=True)
        same(load(sandbox, tmp_path, offline=True), frame)


def test_a_refresh_that_was_cut_off_reads_again_what_it_would_have(tmp_path: Path) -> None:
    """Also where the next call comes at once."""
    with Sandbox(deployments=100, seed=7, runs=500, edition="D") as sandbox:
        frame = load(sandbox, tmp_path)
        week = frame[(frame["created_at"] > frame["created_at"].max() - REREAD) & frame["archived_at"].isna()]
        completed = {run["session_id"] for run in sandbox.outcomes if run["status"] == "completed"}
        oldest = list(week.loc[week["id"].isin(completed), "id"])
        for page, refresh in itertools.product((1, 3), (False, True)):
            sandbox.continue_session(oldest.pop())
            sandbox.misbehave("401", at=page)
            with pytest.raises(AuthenticationError):
                load(sandbox, tmp_path, refresh=True)
            same(load(sandbox, tmp_path, refresh=refresh), listed(sandbox))
            assert load(sandbox, tmp_path).attrs["requests"] == 0


def test_a_refresh_that_was_cut_off_does_not_move_the_seven_days(tmp_path: Path) -> None:
    """Else the first page of a month of new sessions would be a reading of the week before that month."""
    with Sandbox(deployments=20, seed=7, runs=1_000, edition="D") as sandbox:
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
        same(load(sandbox, tmp_path, refresh=True), listed(sandbox))


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """Store the sessions of a small account."""
    folder = tmp_path_factory.mktemp("scanned")
    with Sandbox(deployments=10, seed=7, runs=110, edition="D") as sandbox:
        return folder, load(sandbox, folder)


@pytest.mark.parametrize("engine", ["duckdb", "polars", "dask"])
def test_a_scan_gives_the_same(scanned: tuple[Path, pd.DataFrame], engine: str) -> None:
    folder, frame = scanned
    lazy = scan_sessions(folder, engine=engine, since=frame["created_at"].iloc[99])
    match engine:
        case "duckdb":
            table = lazy.to_arrow_table()
        case "polars":
            table = lazy.collect().to_arrow()
        case _:
            import pyarrow as pa  # noqa: PLC0415

            table = pa.Table.from_pandas(lazy.compute(scheduler="synchronous"), preserve_index=False)
    found = to_pandas(table.cast(SESSIONS.arrow), SESSIONS).sort_values("id", ignore_index=True)
    same(found, frame.head(100).sort_values("id", ignore_index=True))


def test_usage_and_clear_know_sessions(tmp_path: Path) -> None:
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
def test_what_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_sessions(**options)
