"""Tests of `load_runs` with inconsistent lists, cursors that jump, invalid single runs, and clock changes."""

from __future__ import annotations

import contextlib
import itertools
import json
import tempfile
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoderdata import errors
from qoderdata.errors import CacheWarning, DataQualityWarning
from qoderdata.load import refresh
from qoderdata.load.runs import load_runs
from qoderdata.load.sessions import load_sessions
from qoderdata.store import TableStore
from tests.runs_store import FakeClient, runs_table
from tests.runs_store import run as run_record
from tests.wall_clock import WallClock, set_wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from qoderdata.client import Client

Run = dict[str, Any]
START = datetime(2026, 6, 1, tzinfo=UTC)


@dataclass
class FakeService(FakeClient):
    """A fake client that returns pages of 100 from a list that a test can put into any order.

    A cursor is the id of a page's last run or, with `offset_cursors`, the number of runs after the page.
    `change_page` gets the number of each page in this call, and the page, and returns the page to show.
    `get_run`, if given, returns a single run by its id.
    """

    runs: list[Run] = field(default_factory=list)
    change_page: Callable[[int, dict[str, Any]], dict[str, Any]] = lambda _, page: page
    get_run: Callable[[str], Run] | None = None
    requests: list[str] = field(default_factory=list)
    created: int = 0
    pages: int = 0
    offset_cursors: bool = False

    def make(self, count: int, **facts: Any) -> list[Run]:  # noqa: ANN401
        """Return new runs, newest first, that are not in the list."""
        made: list[Run] = []
        for _ in range(count):
            self.created += 1
            at = f"{START + timedelta(minutes=self.created):%Y-%m-%dT%H:%M:%SZ}"
            run = {"id": f"drun_{self.created:05d}", "status": "completed", "created_at": at, "triggered_at": at}
            made.insert(0, {**run, **facts})
        return made

    def create(self, count: int, **facts: Any) -> list[Run]:  # noqa: ANN401
        made = self.make(count, **facts)
        self.runs[:0] = made
        return made

    def create_with_sessions(self, count: int) -> list[Run]:
        """Add runs of the newest edition, which have a session and no status."""
        made = self.create(count)
        for run in made:
            del run["status"], run["triggered_at"]
            run["session_id"] = f"sess_{run['id']}"
        return made

    def get(self, path: str, params: Mapping[str, str], read: Callable[[bytes], Any]) -> Any:  # noqa: ANN401
        self.requests.append(path)
        if path != "/deployment_runs":
            return read(json.dumps(self._read_run(path.rsplit("/", 1)[-1])).encode())
        after = params.get("after_id")
        start = 0 if after is None else 1 + self._index(after)
        shown = self.runs[start : start + int(params["limit"])]
        more = start + len(shown) < len(self.runs)
        last = shown[-1]["id"] if shown else None
        if self.offset_cursors and shown:
            last = str(len(self.runs) - start - len(shown))
        page = {"data": shown, "has_more": more, "last_id": last}
        page = self.change_page(self.pages, page)
        self.pages += 1
        return read(json.dumps(page).encode())

    def _index(self, cursor: str) -> int:
        if self.offset_cursors:
            return len(self.runs) - int(cursor) - 1
        return [run["id"] for run in self.runs].index(cursor)

    def _read_run(self, id_: str) -> Run:
        if self.get_run is not None:
            return self.get_run(id_)
        return next(run for run in self.runs if run["id"] == id_)

    def load(self, folder: Path, **options: Any) -> pd.DataFrame:  # noqa: ANN401
        self.pages = 0
        self.requests.clear()
        return load_runs(client=cast("Client", self), cache_dir=folder, progress=False, **options)

    def load_all(self, folder: Path, **options: Any) -> pd.DataFrame:  # noqa: ANN401
        """Load from the correct list, and check that all its runs are there."""
        self.change_page = lambda _, page: page
        frame = self.load(folder, **options)
        assert set(frame["id"]) == ids_of(self)
        assert frame["id"].is_unique
        assert frame.attrs["complete"]
        return frame


@pytest.fixture
def service() -> FakeService:
    return FakeService()


def stored_service(folder: Path, count: int, **first: Any) -> FakeService:  # noqa: ANN401
    """Return a service whose runs are stored; with `first`, the oldest one has these values."""
    service = FakeService()
    if first:
        service.create(1, **first)
    service.create(count)
    service.load(folder)
    return service


def ids_of(service: FakeService) -> set[str]:
    return {run["id"] for run in service.runs}


EMPTY_PAGE = {"data": [], "has_more": False, "last_id": None}


def last_page_at(at: int) -> Callable[[int, dict[str, Any]], dict[str, Any]]:
    return lambda number, page: {**page, "has_more": False} if number == at else page


def empty_page_at(at: int) -> Callable[[int, dict[str, Any]], dict[str, Any]]:
    return lambda number, page: EMPTY_PAGE if number == at else page


def fail_at(at: int) -> Callable[[int, dict[str, Any]], dict[str, Any]]:
    def fail_on_page(number: int, page: dict[str, Any]) -> dict[str, Any]:
        if number == at:
            raise errors.AuthenticationError("revoked")
        return page

    return fail_on_page


def test_list_is_past_a_time_only_after_20_records_whose_times_are_known() -> None:
    times, ten = refresh._RecentTimes(), runs_table(*map(run_record, range(10)))
    assert times.reached(ten) is None
    times.add(ten)
    assert times.reached(ten) == datetime(2026, 6, 14, 12, 0, 0, 1, tzinfo=UTC)
    assert times.reached(runs_table(*map(run_record, range(9)), run_record(9, day=None))) is None


def test_list_is_past_a_time_only_if_the_whole_page_is() -> None:
    times = refresh._RecentTimes()
    times.add(runs_table(*(run_record(number, day=16) for number in range(20))))
    page = runs_table(run_record(20, day=15), *map(run_record, range(21, 45)))
    assert times.reached(page) == datetime(2026, 6, 15, 12, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize("index", [50, 101, 250, 900])
def test_late_run_is_found_on_first_page_or_with_refresh_all(tmp_path: Path, index: int) -> None:
    service = stored_service(tmp_path, 1000)
    late = {**service.runs[index], "id": "drun_late"}
    service.runs.insert(index, late)
    refreshed = service.load(tmp_path, refresh=True)
    assert len(service.requests) == 1
    assert ("drun_late" in set(refreshed["id"])) == (index < 100)
    service.load_all(tmp_path, refresh="all")
    assert service.load(tmp_path).attrs["requests"] == 0


def test_known_run_listed_again_above_new_runs_does_not_end_the_refresh(tmp_path: Path) -> None:
    service = stored_service(tmp_path, 300)
    known = service.runs[0]
    service.create(500)
    service.runs.insert(0, known)
    service.load_all(tmp_path, refresh=True)
    assert len(service.requests) == 6


def test_known_run_listed_again_does_not_close_a_gap_between_segments(tmp_path: Path) -> None:
    """The store has two segments with a gap between them; a run of the lower one is listed again at the top."""
    service = stored_service(tmp_path, 300)
    low = service.runs[0]
    service.create(500)
    service.change_page = fail_at(2)
    with pytest.raises(errors.AuthenticationError):
        service.load(tmp_path, refresh=True)
    service.create(50)
    service.runs.insert(0, low)
    service.load_all(tmp_path, refresh=True)


@pytest.mark.parametrize("at", [0, 1, 3])
def test_empty_page_above_stored_runs_warns_and_is_incomplete(
    service: FakeService, tmp_path: Path, at: int
) -> None:
    service.create(1000)
    stored = service.load(tmp_path)
    service.create(700)
    service.change_page = empty_page_at(at)
    with pytest.warns(DataQualityWarning, match="ended the list of runs above older runs"):
        frame = service.load(tmp_path, refresh=True)
    assert frame.attrs["complete"] is False
    assert set(stored["id"]) <= set(frame["id"])
    assert len(frame) == 1000 + 100 * at
    service.load_all(tmp_path, refresh=True)


@pytest.mark.parametrize("at", [0, 1, 3])
def test_early_last_page_above_stored_runs_warns_and_is_incomplete(
    service: FakeService, tmp_path: Path, at: int
) -> None:
    """A page that ends the list above stored runs, without showing them, leaves a gap of missing runs."""
    service.create(1000)
    stored = service.load(tmp_path)
    service.create(700)
    service.change_page = last_page_at(at)
    for _ in range(2):
        with pytest.warns(DataQualityWarning, match="ended the list of runs above older runs"):
            frame = service.load(tmp_path, refresh=True)
        assert frame.attrs["complete"] is False
        assert len(frame) >= 1000 + 100 * (at + 1)
        service.change_page = last_page_at(min(at, 1))
    with pytest.warns(DataQualityWarning, match="not all runs that are asked for are kept"):
        assert service.load(tmp_path, offline=True).attrs["complete"] is False
    assert set(stored["id"]) <= set(frame["id"])
    service.load_all(tmp_path, refresh=True)


@pytest.mark.parametrize("at", [1, 3])
def test_early_last_page_with_since_warns_and_is_incomplete(tmp_path: Path, at: int) -> None:
    """Pages after the first are filtered by time, so the list may end early; the stored runs are in the range."""
    service = stored_service(tmp_path, 1000)
    service.create(700)
    since = START + timedelta(minutes=10)
    service.change_page = lambda number, page: {**page, "has_more": False} if number >= at else page
    with pytest.warns(DataQualityWarning, match="ended the list of runs above older runs"):
        frame = service.load(tmp_path, refresh=True, since=since)
    assert frame.attrs["complete"] is False
    service.change_page = lambda _, page: page
    frame = service.load(tmp_path, refresh=True, since=since)
    assert len(frame) == 1691
    assert frame.attrs["complete"]


def test_refresh_all_accepts_that_the_service_forgot_all_stored_runs(tmp_path: Path) -> None:
    """The list cannot show whether there were runs between the stored and the listed ones."""
    service = stored_service(tmp_path, 300)
    service.runs.clear()
    service.create(150)
    with pytest.warns(DataQualityWarning, match="refresh='all' if the service has forgotten the older runs"):
        frame = service.load(tmp_path, refresh=True)
    assert len(frame) == 450
    for mode in ("all", True, False):
        frame = service.load(tmp_path, refresh=mode)
        assert len(frame) == 450
        assert frame.attrs["complete"]


def test_refresh_after_an_empty_page_in_the_first_pull_loads_the_rest(
    service: FakeService, tmp_path: Path
) -> None:
    """The empty page looks like the end of the list; the next refresh loads the rest."""
    service.create(1000)
    service.change_page = empty_page_at(3)
    assert len(service.load(tmp_path)) == 300
    assert service.load(tmp_path).attrs["requests"] == 0
    service.load_all(tmp_path, refresh=True)
    assert len(service.requests) == 8


def test_refresh_after_an_empty_page_with_since_loads_the_rest(service: FakeService, tmp_path: Path) -> None:
    """The pages after the first are filtered by time, so that an empty one may be correct."""
    service.create(1000)
    since = START + timedelta(minutes=10)
    service.change_page = lambda number, page: EMPTY_PAGE if number in {3, 4} else page
    assert len(service.load(tmp_path, since=since)) == 300
    service.change_page = lambda _, page: page
    assert len(service.load(tmp_path, since=since, refresh=True)) == 991


def test_refresh_of_an_account_without_runs_is_complete(service: FakeService, tmp_path: Path) -> None:
    for refresh_ in (True, True, "all", True):
        assert service.load(tmp_path, refresh=refresh_).attrs["complete"]
        assert len(service.requests) == 1


def test_refresh_all_loads_runs_that_a_cursor_skipped(service: FakeService, tmp_path: Path) -> None:
    service.create(1000)
    service.change_page = lambda number, page: (
        {**page, "last_id": service.runs[499]["id"]} if number == 2 else page
    )
    assert len(service.load(tmp_path)) == 800
    service.load_all(tmp_path, refresh="all")


def test_old_run_on_first_page_does_not_end_a_load_with_since(service: FakeService, tmp_path: Path) -> None:
    service.create(1000)
    now = datetime.now(UTC)
    for number, run in enumerate(service.runs):
        run["created_at"] = run["triggered_at"] = (now - timedelta(minutes=number)).isoformat()
    old = {**service.runs[0], "id": "drun_old", "created_at": START.isoformat(), "triggered_at": START.isoformat()}
    service.runs.insert(0, old)
    service.change_page = lambda number, page: (
        {"data": [old], "has_more": True, "last_id": "drun_old"} if number == 0 else page
    )
    assert len(service.load(tmp_path / "store", since="1D")) == 1000
    assert len(service.load(tmp_path / "filtered", since="1D", trigger_type=None, status="completed")) == 1000


def test_load_with_since_reads_small_pages_until_20_runs_are_older(service: FakeService, tmp_path: Path) -> None:
    service.page_limit = 5
    service.create(100)
    frame = service.load(tmp_path, since=START + timedelta(minutes=76))
    assert (len(frame), len(service.requests)) == (25, 9)


def test_filtered_load_with_since_reads_no_older_pages(service: FakeService, tmp_path: Path) -> None:
    service.create(1000)
    frame = service.load(tmp_path, since=START + timedelta(minutes=951), status="completed")
    assert (len(frame), len(service.requests)) == (50, 2)


def test_filter_that_means_something_else_is_sent_once(service: FakeService, tmp_path: Path) -> None:
    """The first filtered page shows it; then the whole list is read."""
    service.create_with_sessions(500)
    frame = service.load(tmp_path, has_error=False, outcomes="runs")
    assert (len(frame), len(service.requests)) == (500, 1 + 5)


def test_400_that_names_no_filter_is_raised(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(path: str, params: Mapping[str, str], read: Callable[[bytes], Any]) -> Any:  # noqa: ANN401
        del path, read
        assert "status" in params, "the whole list is requested"
        raise status_error(400)

    monkeypatch.setattr(service, "get", get)
    with pytest.raises(errors.BadRequestError):
        service.load(tmp_path, status="completed")


def test_end_of_a_list_that_ignores_the_filter_by_time_is_stored(service: FakeService, tmp_path: Path) -> None:
    service.create(150)
    service.load(tmp_path, since=START + timedelta(minutes=100))
    service.load_all(tmp_path)
    assert service.requests == []


@pytest.mark.parametrize(
    ("cursors", "param", "requests"),
    [
        (itertools.repeat("same"), None, 4),
        (map(str, itertools.count()), None, 8),
        (map(str, itertools.count()), "limit", 2),
    ],
    ids=["same cursor", "new cursors", "limit"],
)
def test_list_whose_cursors_are_all_refused_raises(
    service: FakeService,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    cursors: Iterator[str],
    param: str | None,
    requests: int,
) -> None:
    service.create(200)
    service.change_page = lambda _, page: {**page, "last_id": next(cursors)}
    answer = service.get

    def get(path: str, params: Mapping[str, str], read: Callable[[bytes], Any]) -> Any:  # noqa: ANN401
        if "after_id" not in params:
            return answer(path, params, read)
        service.requests.append(path)
        assert len(service.requests) < 10, "refused cursors are requested again and again"
        error = status_error(400)
        error.param = param
        raise error

    monkeypatch.setattr(service, "get", get)
    monkeypatch.setattr(refresh, "_REFUSALS", 3)
    with pytest.raises(errors.BadRequestError):
        service.load(tmp_path)
    assert len(service.requests) == requests


def test_refresh_all_keeps_runs_that_the_service_forgot(service: FakeService, tmp_path: Path) -> None:
    service.create(500)
    first = service.load(tmp_path)
    del service.runs[200:]
    service.create(10)
    frame = service.load(tmp_path, refresh="all")
    assert set(frame["id"]) == set(first["id"]) | ids_of(service)
    assert frame.attrs["complete"]


def test_load_continues_a_refresh_all_that_failed(tmp_path: Path) -> None:
    service = stored_service(tmp_path, 1000)
    service.runs.insert(900, {**service.runs[900], "id": "drun_late"})
    service.change_page = fail_at(5)
    with pytest.raises(errors.AuthenticationError):
        service.load(tmp_path, refresh="all")
    service.load_all(tmp_path)
    assert len(service.requests) <= 7


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-5],
        lambda text: text.replace(b": 2,", b": 999,", 1),
        lambda _: b"[]",
        lambda _: b'{"format": 999}',
    ],
    ids=["truncated", "wrong number", "list", "unknown format"],
)
def test_damaged_manifest_is_rebuilt_with_runs_that_the_service_forgot(
    service: FakeService, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    service.create(500)
    first = service.load(tmp_path)
    del service.runs[100:]
    (manifest,) = tmp_path.glob("runs/*/manifest.json")
    manifest.write_bytes(damage(manifest.read_bytes()))
    with pytest.warns(CacheWarning, match=r"its manifest cannot be used.*500 rows were recovered"):
        frame = service.load(tmp_path)
    assert frame.equals(first)
    assert frame.attrs["complete"]
    again = service.load(tmp_path)
    assert again.equals(frame)
    assert again.attrs["requests"] == 0
    files = tmp_path.glob("runs/*/data/*/*.parquet")
    assert sum(len(pd.read_parquet(file, columns=["id"])) for file in files) == len(frame)


operations = st.one_of(
    st.tuples(st.just("create"), st.integers(1, 9)),
    st.tuples(st.just("list again"), st.integers(0, 40)),
    st.tuples(st.just("empty page"), st.integers(0, 5)),
    st.tuples(st.just("failure"), st.integers(0, 5)),
    st.tuples(st.just("load"), st.none() | st.integers(0, 40)),
)


def check_random_faults(page: int, operations: list[tuple[Any, ...]]) -> None:
    """Check that each refresh of a correct list loads all its runs, and that the store never loses a run."""
    service = FakeService(page_limit=page, offset_cursors=True)
    with tempfile.TemporaryDirectory() as name:
        folder, seen = Path(name), set[str]()
        for operation in [*operations, ("load", None)]:
            service.change_page = lambda _, shown: shown
            match operation:
                case ("create", count):
                    service.create(count)
                case ("list again", which) if service.runs:
                    service.runs.insert(0, service.runs[which % len(service.runs)])
                    frame = service.load(folder, refresh=True)
                    assert ids_of(service) <= set(frame["id"])
                    del service.runs[0]
                    seen |= set(frame["id"])
                case ("empty page", at):
                    service.change_page = empty_page_at(at)
                    with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
                        frame = service.load(folder, refresh=True)
                    assert seen <= set(frame["id"])
                    seen |= set(frame["id"])
                case ("failure", at):
                    service.change_page = fail_at(at)
                    with contextlib.suppress(errors.AuthenticationError):
                        seen |= set(service.load(folder, refresh=True)["id"])
                case ("load", minutes):
                    newest = START + timedelta(minutes=service.created)
                    since = None if minutes is None else newest - timedelta(minutes=minutes)
                    frame = service.load(folder, refresh=True, since=since)
                    wanted = {
                        run["id"]
                        for run in service.runs
                        if since is None or run["created_at"] >= since.isoformat()
                    }
                    assert wanted <= set(frame["id"])
                    assert frame["id"].is_unique
                    assert frame.attrs["complete"]
                    seen |= set(frame["id"])
        assert seen == ids_of(service)


with_random_operations = given(page=st.integers(2, 4), operations=st.lists(operations, max_size=14))
test_repeated_runs_empty_pages_and_failures_lose_no_run = settings(max_examples=20, deadline=None)(
    with_random_operations(check_random_faults)
)
test_500_random_sequences_of_faults_lose_no_run = pytest.mark.long(
    settings(max_examples=500, deadline=None)(with_random_operations(check_random_faults))
)


@pytest.fixture
def _wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = ("load.runs", "load.refresh", "load.stored", "store.table_store")
    set_wall_clock(monkeypatch, datetime(2026, 6, 20, tzinfo=UTC), *modules, step=timedelta(milliseconds=1))


@pytest.mark.usefixtures("_wall_clock")
def test_pull_finishes_when_the_clock_is_set_back(service: FakeService, tmp_path: Path) -> None:
    service.create(500)

    def set_back(number: int, page: dict[str, Any]) -> dict[str, Any]:
        if number == 2:
            WallClock.moment -= timedelta(hours=1)
        assert number < 10, "the same page is requested again and again"
        return page

    service.change_page = set_back
    frame = service.load(tmp_path, refresh=True)
    assert set(frame["id"]) == ids_of(service)
    assert len(service.requests) == 5


@pytest.mark.usefixtures("_wall_clock")
def test_open_run_is_read_again_after_the_clock_was_ahead(service: FakeService, tmp_path: Path) -> None:
    service.create(1, status="running")
    service.create(200)
    WallClock.moment += timedelta(days=3)
    service.load(tmp_path)
    WallClock.moment -= timedelta(days=3)
    service.runs[-1]["status"] = "completed"
    for options in ({"refresh": True}, {}):
        frame = service.load(tmp_path, **options)
        assert list(frame.loc[frame["id"] == "drun_00001", "status"]) == ["completed"]
    assert service.requests == []


@pytest.mark.usefixtures("_wall_clock")
@pytest.mark.parametrize("refresh", [False, True])
def test_new_runs_are_requested_after_the_clock_was_ahead(
    service: FakeService, tmp_path: Path, *, refresh: bool
) -> None:
    service.create(3)
    WallClock.moment += timedelta(days=3)
    service.load(tmp_path)
    WallClock.moment -= timedelta(days=3)
    service.create(1)
    service.load_all(tmp_path, refresh=refresh)


@pytest.mark.usefixtures("_wall_clock")
def test_cached_answer_of_a_clock_that_was_ahead_is_not_used(service: FakeService, tmp_path: Path) -> None:
    service.create(3)
    WallClock.moment += timedelta(days=3)
    assert len(service.load(tmp_path, status="completed")) == 3
    WallClock.moment -= timedelta(days=3)
    service.create(1)
    service.load_all(tmp_path)
    assert len(service.load(tmp_path, status="completed")) == 4


@pytest.mark.usefixtures("_wall_clock")
def test_end_of_the_list_is_requested_again_after_a_failed_refresh(service: FakeService, tmp_path: Path) -> None:
    service.create(1000)
    service.change_page = empty_page_at(3)
    service.load(tmp_path)
    WallClock.moment += timedelta(hours=1)
    service.change_page = fail_at(1)
    with pytest.raises(errors.AuthenticationError):
        service.load(tmp_path)
    service.load_all(tmp_path)


@pytest.mark.usefixtures("_wall_clock")
def test_open_runs_outside_the_time_asked_for_are_not_requested(service: FakeService, tmp_path: Path) -> None:
    opened = []
    for _ in range(3):
        opened += service.create(1, status="running")
        service.create(200)
        service.created += 2 * 24 * 60
    service.load(tmp_path)
    WallClock.moment += timedelta(hours=1)
    newest: dict[str, Any] = {"since": START + timedelta(days=4)}
    assert len(service.load(tmp_path, **newest)) == 201
    assert service.requests == ["/deployment_runs", f"/deployment_runs/{opened[2]['id']}"]
    assert service.load(tmp_path, status="running", **newest).attrs["requests"] == 0
    assert len(service.load(tmp_path, until=START + timedelta(days=1))) == 201
    assert service.requests == [f"/deployment_runs/{opened[0]['id']}"]


@pytest.mark.usefixtures("_wall_clock")
def test_open_run_that_was_refused_is_not_requested_again_before_max_age(
    service: FakeService, tmp_path: Path
) -> None:
    service.create(1, status="running")
    service.create(200)
    service.load(tmp_path)

    def get_run(_: str) -> Run:
        raise status_error(403)

    service.get_run = get_run
    WallClock.moment += timedelta(hours=1)
    with pytest.warns(DataQualityWarning, match="1 open run could not be read again"):
        service.load(tmp_path)
    assert service.load(tmp_path).attrs["requests"] == 0
    WallClock.moment += timedelta(hours=1)
    with pytest.warns(DataQualityWarning, match="1 open run could not be read again"):
        service.load(tmp_path)


def status_error(status: int) -> errors.APIStatusError:
    error = errors.status_error_class(status)(f"GET refused with {status}")
    error.status_code = status
    return error


def test_filter_by_time_that_is_refused_with_a_cursor_is_left_out(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.create(350)
    answer, is_filtered = service.get, []

    def get(path: str, params: Mapping[str, str], read: Callable[[bytes], Any]) -> Any:  # noqa: ANN401
        is_filtered.append("created_at[gte]" in params)
        if is_filtered[-1]:
            raise status_error(400)
        return answer(path, params, read)

    monkeypatch.setattr(service, "get", get)
    service.load_all(tmp_path, since=START)
    assert is_filtered == [False, True, False, False, False]


@pytest.mark.parametrize("status", [400, 403, 409, 410, 500])
def test_open_run_that_fails_to_load_is_kept_with_a_warning(
    service: FakeService, tmp_path: Path, status: int
) -> None:
    open_runs = service.create(2, status="running")
    service.create(200)
    service.load(tmp_path)

    def get_run(id_: str) -> Run:
        if id_ == "drun_00001":
            raise status_error(status)
        return {**open_runs[0], "status": "failed"}

    service.get_run = get_run
    service.create(3)
    with pytest.warns(DataQualityWarning, match="1 open run could not be read again.*'drun_00001', GET refused"):
        frame = service.load(tmp_path, refresh=True)
    statuses = dict(zip(frame["id"], frame["status"], strict=True))
    assert (statuses["drun_00001"], statuses["drun_00002"]) == ("running", "failed")
    assert set(frame["id"]) == ids_of(service)
    assert service.load(tmp_path).attrs["requests"] == 0
    service.get_run = lambda _: {**open_runs[1], "status": "completed"}
    frame = service.load(tmp_path, refresh=True)
    assert dict(zip(frame["id"], frame["status"], strict=True))["drun_00001"] == "completed"


def test_open_runs_are_not_all_requested_when_all_fail(service: FakeService, tmp_path: Path) -> None:
    service.create(40, status="running")
    service.create(200)
    service.load(tmp_path)

    def get_run(_: str) -> Run:
        raise status_error(503)

    service.get_run = get_run
    with pytest.warns(DataQualityWarning, match="40 open runs could not be read again"):
        service.load(tmp_path, refresh=True)
    assert len(service.requests) == 1 + refresh.MAX_FAILURES


@pytest.mark.usefixtures("_wall_clock")
def test_open_runs_that_could_not_be_read_are_requested_at_each_call(service: FakeService, tmp_path: Path) -> None:
    service.create(40, status="running")
    service.create(200)
    service.load(tmp_path)
    WallClock.moment += timedelta(hours=1)

    def get_run(id_: str) -> Run:
        raise status_error(403 if id_ == "drun_00001" else 503)

    service.get_run = get_run
    with pytest.warns(DataQualityWarning, match="40 open runs could not be read again"):
        service.load(tmp_path)
    for run in service.runs:
        run["status"] = "completed"
    service.get_run = None
    frame = service.load(tmp_path)
    assert list(frame["id"][frame["status"] == "running"]) in ([], ["drun_00001"])
    assert service.load(tmp_path).attrs["requests"] == 0


def test_open_run_on_the_first_page_costs_no_further_request(service: FakeService, tmp_path: Path) -> None:
    service.create(200)
    service.create(1, status="running")
    service.load(tmp_path)
    service.load_all(tmp_path, refresh=True)
    assert service.requests == ["/deployment_runs"]


@pytest.mark.usefixtures("_wall_clock")
@pytest.mark.parametrize("id_", ["", ".", ".."])
def test_open_run_with_an_id_unfit_for_a_path_is_kept_with_a_warning(tmp_path: Path, id_: str) -> None:
    service = stored_service(tmp_path, 200, status="running", id=id_)
    WallClock.moment += timedelta(hours=1)
    with pytest.warns(DataQualityWarning, match="no request can name this id"):
        frame = service.load(tmp_path, refresh=True)
    assert len(frame) == 201
    assert service.requests == ["/deployment_runs"]
    assert service.load(tmp_path).attrs["requests"] == 0


def test_id_of_an_open_run_is_quoted_in_the_path(tmp_path: Path) -> None:
    service = stored_service(tmp_path, 200, status="running", id="drun/1?")
    service.get_run = lambda _: {**service.runs[-1], "status": "completed"}
    assert set(service.load(tmp_path, refresh=True)["status"]) == {"completed"}
    assert service.requests == ["/deployment_runs", "/deployment_runs/drun%2F1%3F"]


@pytest.mark.parametrize("status", [401, 429])
def test_401_or_429_for_an_open_run_is_raised(tmp_path: Path, status: int) -> None:
    service = stored_service(tmp_path, 200, status="running")

    def get_run(_: str) -> Run:
        raise status_error(status)

    service.get_run = get_run
    with pytest.raises(errors.status_error_class(status)):
        service.load(tmp_path, refresh=True)


@pytest.mark.parametrize("value", ["1e400", "1.50", "9" * 5000, '"\\ud800"', '{"a": 1, "a": 2}', "-0"])
def test_single_run_is_decoded_like_a_run_in_a_page(service: FakeService, tmp_path: Path, value: str) -> None:
    """A value that is valid in a page is valid in a single run, and is decoded to the same value."""
    service.create(1, status="running")
    service.create(200)
    service.load(tmp_path / "single")
    text = json.dumps(service.runs[-1])[:-1].replace('"running"', '"completed"') + f', "odd": {value}}}'
    get = FakeService.get

    def get_changed(path: str, params: Mapping[str, str], read: Callable[[bytes], Any]) -> Any:  # noqa: ANN401
        if path == "/deployment_runs":
            return get(service, path, params, lambda body: read(body.replace(json.dumps(old).encode(), listed)))
        return read(text.encode())

    old, listed = service.runs[-1], json.dumps(service.runs[-1]).encode()
    service.get = get_changed  # type: ignore[method-assign]
    with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
        single = service.load(tmp_path / "single", refresh=True)
        listed = text.encode()
        paged = service.load(tmp_path / "page")
    assert list(single["status"]) == ["completed"] * 201
    assert single.equals(paged)


def test_refresh_of_many_runs_without_a_status_sends_one_request(service: FakeService, tmp_path: Path) -> None:
    """Runs of the newest edition never change, so none is open."""
    service.page_limit = 1000
    service.create_with_sessions(2_000)
    service.load(tmp_path, outcomes="runs")
    service.create(3)
    frame = service.load(tmp_path, refresh=True, outcomes="runs")
    assert len(service.requests) == 1
    assert len(frame) == 2_003
    assert frame["triggered_at"].notna().all()


INVALID_RESPONSES: dict[str, Callable[[Callable[[bytes], Any]], Any]] = {
    "500": lambda _: raise_status_error(500),
    "403": lambda _: raise_status_error(403),
    "other record": lambda read: read(b'{"id": "another"}'),
    "list instead of object": lambda read: read(b"[]"),
    "repeated cursor": lambda read: read(b'{"data": [], "has_more": true, "last_id": "x"}'),
    "has_more without cursor": lambda read: read(b'{"data": [], "has_more": true}'),
}


def raise_status_error(status: int) -> Any:  # noqa: ANN401
    raise status_error(status)


class FakeSessionService(FakeService):
    """The newest edition: each run has an idle session, whose events say that it was cancelled."""

    def __init__(self, bad: Mapping[str, str], *, in_list: bool = True) -> None:
        super().__init__()
        self.bad = bad
        self.create_with_sessions(6)
        self.sessions = [self.session(run) for run in self.runs] if in_list else []

    @staticmethod
    def session(run: Run) -> Run:
        at = run["created_at"]
        return {"id": run["session_id"], "status": "idle", "created_at": at, "updated_at": at}

    def get(self, path: str, params: Mapping[str, str], read: Callable[[bytes], Any]) -> Any:  # noqa: ANN401
        if not path.startswith("/sessions"):
            return super().get(path, params, read)
        self.requests.append(path)
        if path == "/sessions":
            return read(json.dumps({"data": self.sessions, "has_more": False}).encode())
        if path in self.bad:
            return INVALID_RESPONSES[self.bad[path]](read)
        if path.endswith("/events"):
            idle = {"id": "e", "type": "session.status_idle", "stop_reason": {"type": "cancelled"}}
            return read(json.dumps({"data": [idle], "has_more": False}).encode())
        run = next(run for run in self.runs if path == f"/sessions/{run['session_id']}")
        return read(json.dumps(self.session(run)).encode())

    def statuses(self, folder: Path, **options: Any) -> dict[str, str]:  # noqa: ANN401
        frame = self.load(folder, outcomes="events", **options)
        return dict(zip(frame["id"].str[-1], frame["status"].fillna("unknown"), strict=True))


@pytest.mark.parametrize("in_list", [False, True])
@pytest.mark.parametrize("response", INVALID_RESPONSES)
def test_session_that_cannot_be_read_is_skipped_with_a_warning(
    tmp_path: Path, response: str, *, in_list: bool
) -> None:
    """The events are read if the session is in the list, else the session itself."""
    service = FakeSessionService({f"/sessions/sess_drun_00004{'/events' * in_list}": response}, in_list=in_list)
    with pytest.warns(DataQualityWarning, match="1 session could not be read.*'sess_drun_00004'"):
        found = service.statuses(tmp_path)
    assert found == {**dict.fromkeys("12356", "cancelled"), "4": "completed" if in_list else "unknown"}
    if response == "403":
        assert service.statuses(tmp_path) == found
        assert service.requests == []
    service.bad = {}
    # A refused session is requested again after `max_age`, all others at each call.
    assert service.statuses(tmp_path, max_age="0s" if response == "403" else "15min")["4"] == "cancelled"


@pytest.mark.parametrize(
    ("end", "old", "new"),
    [("sess_drun_00004", b"}", b', "title": 5}'), ("events", b'"id": "e"', b'"id": "e", "processed_at": 5')],
    ids=["session", "events"],
)
def test_values_of_the_wrong_type_in_a_session_or_its_events_cause_a_warning(
    tmp_path: Path, end: str, old: bytes, new: bytes
) -> None:
    service = FakeSessionService({}, in_list=False)
    get = service.get

    def get_changed(path: str, params: Mapping[str, str], read: Callable[[bytes], Any]) -> Any:  # noqa: ANN401
        return get(path, params, lambda body: read(body.replace(old, new) if path.endswith(end) else body))

    service.get = get_changed  # type: ignore[method-assign]
    with pytest.warns(DataQualityWarning, match="did not fit a column"):
        assert set(service.statuses(tmp_path).values()) == {"cancelled"}


def test_old_session_without_a_known_end_is_read_by_id_if_it_is_not_listed(tmp_path: Path) -> None:
    service = FakeSessionService({})
    service.created += 8 * 24 * 60
    service.sessions[:0] = map(service.session, service.create_with_sessions(1))
    get = service.get

    def get_without_events(path: str, params: Mapping[str, str], read: Callable[[bytes], Any]) -> Any:  # noqa: ANN401
        return get(
            path, params, lambda body: read(json.dumps(EMPTY_PAGE).encode() if path.endswith("events") else body)
        )

    service.get = get_without_events  # type: ignore[method-assign]
    service.statuses(tmp_path)
    del service.sessions[-1]
    service.requests.clear()
    load_sessions(client=cast("Client", service), cache_dir=tmp_path, progress=False, refresh=True)
    assert service.requests == ["/sessions", "/sessions/sess_drun_00001"]


def test_old_running_session_of_an_ended_run_is_read_by_id_if_it_is_not_listed(tmp_path: Path) -> None:
    service = FakeSessionService({})
    service.created += 8 * 24 * 60
    service.sessions[:0] = map(service.session, service.create_with_sessions(1))
    service.statuses(tmp_path)
    service.sessions[-1] |= {"status": "running", "updated_at": service.runs[0]["created_at"]}
    options: dict[str, Any] = {"cache_dir": tmp_path, "progress": False, "refresh": True}
    load_sessions(client=cast("Client", service), **options)
    del service.sessions[-1]
    service.requests.clear()
    load_sessions(client=cast("Client", service), **options)
    assert service.requests == ["/sessions", "/sessions/sess_drun_00001"]


def test_session_that_is_much_older_than_its_run_is_found_in_the_store(tmp_path: Path) -> None:
    service = FakeSessionService({})
    service.sessions[2]["created_at"] = "2026-05-20T00:00:00Z"
    assert set(service.statuses(tmp_path).values()) == {"cancelled"}
    assert not [path for path in service.requests if path == "/sessions/sess_drun_00004"]


def test_auto_of_a_list_that_is_not_all_stored_is_incomplete(tmp_path: Path) -> None:
    service = FakeSessionService({})
    service.page_limit, service.change_page = 3, fail_at(1)
    with pytest.raises(errors.AuthenticationError):
        service.load(tmp_path)
    of_runs = pytest.warns(DataQualityWarning, match="not all runs that are asked for are kept")
    of_sessions = pytest.warns(
        DataQualityWarning, match="3 sessions of these runs are not stored, .* Call without"
    )
    with of_runs, of_sessions:
        assert service.load(tmp_path, offline=True).attrs["complete"] is False


def test_missing_records_end_a_series_of_errors() -> None:
    def read(id_: str) -> None:
        raise status_error(404 if int(id_) % 2 else 500)

    singles = refresh.SingleReads()
    assert [id_ for id_, _ in singles.each(map(str, range(10)), read)] == ["1", "3", "5", "7", "9"]
    assert singles.unread == ["0", "2", "4", "6", "8"]


def test_refusals_end_a_series_of_errors() -> None:
    def read(id_: str) -> None:
        raise status_error(403 if int(id_) % 2 else 500)

    singles = refresh.SingleReads()
    assert list(singles.each(map(str, range(10)), read)) == []
    assert singles.unread == list("0123456789")
    assert singles.refused == list("13579")
    message = r"^10 runs were not read \(the first: '0', GET refused with 500\)$"
    with pytest.warns(DataQualityWarning, match=message):
        singles.warn("run", "were not read")


class ServiceWithoutSessions(FakeSessionService):
    """A service that has deleted all sessions, and fails at the request of the number `fails_at` for one."""

    fails_at = 0

    def get(self, path: str, params: Mapping[str, str], read: Callable[[bytes], Any]) -> Any:  # noqa: ANN401
        if not path.startswith("/sessions/"):
            return super().get(path, params, read)
        self.requests.append(path)
        self.fails_at -= 1
        raise status_error(404 if self.fails_at else 429)


@pytest.mark.filterwarnings("ignore:the service ended the list of sessions")
def test_sessions_found_missing_before_an_error_are_not_requested_again(tmp_path: Path) -> None:
    service = ServiceWithoutSessions({})
    for session in service.sessions:
        session["status"] = "running"
    service.statuses(tmp_path)
    (run,) = service.create_with_sessions(1)
    service.sessions, service.fails_at = [service.session(run) | {"status": "running"}], 4
    with pytest.raises(errors.RateLimitError):
        service.statuses(tmp_path, refresh=True)
    service.statuses(tmp_path, refresh=True)
    assert len([path for path in service.requests if path.startswith("/sessions/")]) == 3


def test_store_of_ends_is_not_read_for_each_missing_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, tables = TableStore.read, []

    def counted_read(store: TableStore, *columns: Any, **options: Any) -> Any:  # noqa: ANN401
        tables.append(store.table.name)
        return read(store, *columns, **options)

    monkeypatch.setattr(TableStore, "read", counted_read)
    counts = []
    for number, more in enumerate((0, 50)):
        service = ServiceWithoutSessions({}, in_list=False)
        service.create_with_sessions(more)
        tables.clear()
        assert set(service.statuses(tmp_path / str(number)).values()) == {"unknown"}
        counts.append(len(tables))
    assert counts[0] == counts[1]


def test_events_are_not_all_requested_when_all_fail(tmp_path: Path) -> None:
    service = FakeSessionService({f"/sessions/sess_drun_{number:05}/events": "500" for number in range(1, 7)})
    with pytest.warns(DataQualityWarning, match="6 sessions could not be read"):
        assert set(service.statuses(tmp_path).values()) == {"completed"}
    # One more request may have been sent already.
    assert len([path for path in service.requests if path.endswith("/events")]) <= refresh.MAX_FAILURES + 1


@pytest.mark.parametrize("id_", ["", ".", ".."])
@pytest.mark.parametrize("in_list", [False, True])
def test_session_with_an_id_unfit_for_a_path_is_skipped_with_a_warning(
    tmp_path: Path, id_: str, *, in_list: bool
) -> None:
    service = FakeSessionService({}, in_list=in_list)
    service.runs[2]["session_id"] = id_
    if in_list:
        service.sessions[2]["id"] = id_
    with pytest.warns(DataQualityWarning, match=r"1 session could not be read.*no request can name this id"):
        found = service.statuses(tmp_path)
    assert found == {**dict.fromkeys("12356", "cancelled"), "4": "completed" if in_list else "unknown"}
    assert not [path for path in service.requests if path.split("/")[2:3] == [id_]]


@pytest.mark.parametrize("response", ["other record", "list instead of object"])
def test_open_run_with_an_invalid_response_is_kept_with_a_warning(tmp_path: Path, response: str) -> None:
    service = stored_service(tmp_path, 200, status="running")
    get = service.get

    def get_changed(path: str, params: Mapping[str, str], read: Callable[[bytes], Any]) -> Any:  # noqa: ANN401
        return get(path, params, read) if path == "/deployment_runs" else INVALID_RESPONSES[response](read)

    service.get = get_changed  # type: ignore[method-assign]
    service.create(3)
    with pytest.warns(DataQualityWarning, match="1 open run could not be read again"):
        frame = service.load(tmp_path, refresh=True)
    assert set(frame["id"]) == ids_of(service)
    assert dict(zip(frame["id"], frame["status"], strict=True))["drun_00001"] == "running"


@pytest.mark.parametrize("count", [20, 250])
def test_run_at_the_latest_possible_time_is_loaded(service: FakeService, tmp_path: Path, count: int) -> None:
    service.create(count)
    service.runs[3]["created_at"] = "9999-12-31T23:59:59.999999999Z"
    service.load_all(tmp_path)
    assert len(service.load(tmp_path, since="2026-06-01T00:00Z", refresh=True)) == count
    assert service.load(tmp_path).attrs["requests"] == 0


@pytest.mark.parametrize("refresh", [False, True])
def test_since_and_until_in_the_first_hour_of_year_1_are_accepted(
    service: FakeService, tmp_path: Path, *, refresh: bool
) -> None:
    service.create(250)
    assert len(service.load(tmp_path, since="0001-01-01T00:30Z", refresh=refresh)) == 250
    with pytest.warns(DataQualityWarning, match="no run is in the time asked for"):
        assert service.load(tmp_path, until="0001-01-01T00:00Z", refresh=refresh).empty


def test_runs_and_sessions_in_the_first_hour_of_year_1_are_loaded(tmp_path: Path) -> None:
    service = FakeSessionService({})
    for record in service.runs + service.sessions:
        record["created_at"] = record["updated_at"] = "0001-01-01T00:30:00Z"
    for _ in range(2):
        assert set(service.statuses(tmp_path, refresh=True).values()) == {"cancelled"}
        sessions = load_sessions(client=cast("Client", service), cache_dir=tmp_path, progress=False, refresh=True)
        assert len(sessions) == 6
