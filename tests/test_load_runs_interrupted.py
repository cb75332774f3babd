"""Tests of `load_runs` that is killed at any operation while the list changes: no run is lost or repeated."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import shutil
import tempfile
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from qoderdata import pages
from qoderdata.errors import BadRequestError, DataQualityWarning, NotFoundError
from qoderdata.files import Folder
from qoderdata.load.runs import load_runs
from qoderdata.store import journal
from tests.runs_store import FakeClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    import pandas as pd

    from qoderdata.client import Client

Run = dict[str, Any]

START = datetime(2026, 6, 14, 20, tzinfo=UTC)


class Killed(BaseException):
    """Simulates the end of the process: nothing in the package catches it."""


@dataclass
class KillCountdown:
    """Raise `Killed` after `left` more operations on the service or the disk; never if it is ``None``."""

    left: int | None = None

    def count_operation(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed


KILL_COUNTDOWN = KillCountdown()
#: Files that were written without fsync: a power cut may leave them empty.
UNFLUSHED: list[Path] = []


@dataclass
class Service(FakeClient):
    """A fake client with pages of a few runs.

    Edition A ignores the filter on `created_at`. C applies it before it makes a page. L applies it to a finished
    page, so that pages are not full and a cursor can be that of a run that is not shown.
    """

    page: int
    edition: str = "A"
    runs: list[Run] = field(default_factory=list)
    versions: dict[str, list[Run]] = field(default_factory=dict)
    requests: int = 0
    now: datetime = START
    page_limit: int | None = field(default=None, kw_only=True)

    def create(self, count: int, *, status: str, minutes: int) -> None:
        for _ in range(count):
            number = len(self.versions)
            self.now += timedelta(minutes=minutes)
            created = self.now
            triggered = None if number % 11 == 0 else _text(created - timedelta(seconds=20))
            run: Run = {
                "id": f"drun_{number:04d}",
                "status": status,
                "created_at": _text(created),
                "triggered_at": triggered,
            }
            self.runs.insert(0, run)
            self.versions[run["id"]] = [dict(run)]

    def finish(self, index: int) -> None:
        """End an open run; its `triggered_at` may change, which moves it to another day."""
        running = [run for run in self.runs if run["status"] == "running"]
        if running:
            run = running[index % len(running)]
            run |= {"status": "completed", "duration_ms": 5, "triggered_at": run["created_at"]}
            self.versions[run["id"]].append(dict(run))

    def get(self, path: str, params: Mapping[str, str], read: Callable[[bytes], Any]) -> Any:  # noqa: ANN401
        self.requests += 1
        KILL_COUNTDOWN.count_operation()
        if path != "/deployment_runs":
            return read(json.dumps(self.get_run(path.removeprefix("/deployment_runs/"))).encode())
        limit = int(params["limit"])
        if limit > self.page:
            raise _refusal(f"limit must be between 1 and {self.page}", "limit")
        ids = [run["id"] for run in self.runs]
        after = params.get("after_id")
        if after is not None and after not in ids:
            raise _refusal("after_id is not a valid cursor", "after_id")
        rest = self.runs if after is None else self.runs[ids.index(after) + 1 :]
        earliest = params.get("created_at[gte]") if self.edition != "A" else None
        new = [run for run in rest if earliest is None or _time(run["created_at"]) >= _time(earliest)]
        if self.edition == "L":
            counted, more = rest[:limit], len(rest) > limit
            shown = [run for run in counted if run in new]
        else:
            counted = shown = new[:limit]
            more = len(new) > limit
        last = counted[-1]["id"] if counted else None
        answer = {"data": shown, "has_more": more, "last_id": last, "next_page": last if more else None}
        return read(json.dumps(answer).encode())

    def get_run(self, run: str) -> Run:
        for known in self.runs:
            if known["id"] == run:
                return dict(known)
        raise NotFoundError(run)

    def load(self, folder: str, **options: Any) -> pd.DataFrame:  # noqa: ANN401
        with warnings.catch_warnings():
            # Both warnings are correct for some of these lists; the rows are checked in any case.
            warnings.filterwarnings("ignore", "no run is in the time asked for", DataQualityWarning)
            warnings.filterwarnings("ignore", "the service ended the list", DataQualityWarning)
            return load_runs(client=cast("Client", self), cache_dir=folder, progress=False, **options)

    def wanted(self, since: datetime | None, until: datetime | None) -> list[Run]:
        """Return the runs of a time range that the service has now."""
        return [run for run in self.runs if is_within(run, since, until)]


def is_within(run: Run, since: datetime | None, until: datetime | None) -> bool:
    if since is None and until is None:
        return True
    at = run["triggered_at"] and _time(run["triggered_at"])
    return bool(at) and (since is None or since <= at) and (until is None or at < until)


def _text(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _refusal(message: str, param: str) -> BadRequestError:
    error = BadRequestError(message)
    error.param = param
    return error


@pytest.fixture(autouse=True)
def count_disk_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count each change on the disk as an operation, and load pages without a thread."""

    def prefetch_here(items: Iterable[Any], *, name: str) -> Iterator[Any]:
        del name
        end = object()
        ahead = next(items := iter(items), end)
        while ahead is not end:
            page, failure = ahead, None
            try:
                ahead = next(items, end)
            except BaseException as error:  # noqa: BLE001 - raised again when the page is needed
                failure = error
            yield page
            if failure is not None:
                raise failure

    replace, remove = Folder.replace, Folder.remove

    def counted_replace(self: Folder, name: str, write: Callable[[Any], object], *, durable: bool = True) -> None:
        KILL_COUNTDOWN.count_operation()
        replace(self, name, write, durable=durable)
        KILL_COUNTDOWN.count_operation()
        if not durable:
            UNFLUSHED.append(Path(self.path_of(name)))

    def counted_remove(self: Folder, name: str) -> None:
        KILL_COUNTDOWN.count_operation()
        remove(self, name)

    monkeypatch.setattr(pages, "prefetch", prefetch_here)
    monkeypatch.setattr(Folder, "replace", counted_replace)
    monkeypatch.setattr(Folder, "remove", counted_remove)
    monkeypatch.setattr(KILL_COUNTDOWN, "left", None)
    monkeypatch.setattr(journal, "_FULL_ENTRIES", 4)


def values_by_id(frame: pd.DataFrame) -> dict[str, Run]:
    """Return the values of each run in a frame, by id."""
    columns = frame[["id", "status", "triggered_at", "created_at", "duration_ms"]].astype(object)
    records = cast("list[Run]", columns.where(columns.notna(), None).to_dict("records"))
    return {row["id"]: row for row in records}


def expected_values(runs: Iterable[Run]) -> dict[str, Run]:
    """Return the expected values of each run, by id."""
    found: dict[str, Run] = {run["id"]: {"triggered_at": None, "duration_ms": None} | run for run in runs}
    for run in found.values():
        run |= {name: run[name] and _time(run[name]) for name in ("triggered_at", "created_at")}
    return found


def check(
    service: Service, folder: str, frame: pd.DataFrame, since: datetime | None, until: datetime | None
) -> None:
    """Check that listed runs have their current values, forgotten ones earlier values, and no run is repeated."""
    assert frame["id"].is_unique
    assert list(frame["id"]) == sorted(frame["id"], reverse=True)
    found, now = values_by_id(frame), expected_values(service.wanted(since, until))
    assert {run: found.get(run) for run in now} == now
    forgotten = {run: found[run] for run in found.keys() - now.keys()}
    assert forgotten.keys().isdisjoint(run["id"] for run in service.runs)
    check_first_or_last_values(service, forgotten)
    # Other engines read the data files without the manifest, so these must have each run once.
    files = list(Path(folder).glob("runs/*/data/*/*.parquet"))
    ids = [run for file in files for run in pq.ParquetFile(file).read(["id"])["id"].to_pylist()]
    assert len(ids) == len(set(ids))
    assert set(ids).issuperset(found)
    assert len({file.parent for file in files}) == len(files)
    assert not list(Path(folder).glob("runs/*/journal/*"))


def check_first_or_last_values(service: Service, found: dict[str, Run]) -> None:
    """Check that each run has its first or its last values; a run changes at most once."""
    first, last = (expected_values(service.versions[run][index] for run in found) for index in (0, -1))
    assert all(row in (first[run], last[run]) for run, row in found.items())


ages = st.none() | st.integers(0, 100)
operations = st.one_of(
    st.tuples(st.just("create"), st.integers(1, 9), st.booleans(), st.integers(0, 200)),
    st.tuples(st.just("finish"), st.integers(0, 9)),
    st.tuples(st.just("forget"), st.integers(1, 6)),
    st.tuples(st.just("load"), ages, ages),
    st.tuples(st.just("killed"), ages, st.integers(0, 40), st.sets(st.integers(0, 5), max_size=3)),
)


def hours_before_newest(service: Service, hours: int | None) -> datetime | None:
    return (
        None
        if hours is None or not service.runs
        else _time(service.runs[0]["created_at"]) - timedelta(hours=hours)
    )


def empty_files(lost: AbstractSet[int]) -> None:
    """Empty some of the newest files that were written without fsync, as a power cut does."""
    for index, path in enumerate(path for path in reversed(UNFLUSHED) if path.exists()):
        if index in lost:
            path.write_bytes(b"")


def run_operations(page: int, edition: str, operations: list[tuple[object, ...]]) -> None:
    """Change the list, load and kill as the operations say, and check the result of each finished load."""
    service = Service(page, edition)
    with tempfile.TemporaryDirectory() as folder:
        for operation in operations:
            match operation:
                case ("create", int(count), bool(is_open), int(minutes)):
                    service.create(count, status="running" if is_open else "skipped", minutes=minutes)
                case ("finish", int(index)):
                    service.finish(index)
                case ("forget", int(count)):
                    del service.runs[-count:]
                case ("load", int() | None as since, int() | None as until):
                    start, end = hours_before_newest(service, since), hours_before_newest(service, until)
                    if start is None or end is None or start < end:
                        frame = service.load(folder, since=start, until=end, refresh=True)
                        check(service, folder, frame, start, end)
                case ("killed", int() | None as since, int(done), set(lost)):
                    UNFLUSHED.clear()
                    KILL_COUNTDOWN.left = done
                    with contextlib.suppress(Killed):
                        service.load(folder, since=hours_before_newest(service, since), refresh=True)
                    KILL_COUNTDOWN.left = None
                    empty_files(lost)
        check(service, folder, service.load(folder, refresh=True), None, None)


with_random_operations = given(
    page=st.integers(1, 4), edition=st.sampled_from("ACL"), operations=st.lists(operations, max_size=12)
)
bounded = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

test_random_operations_and_kills_lose_no_run = settings(bounded, max_examples=25)(
    with_random_operations(run_operations)
)
test_500_random_sequences_of_operations_and_kills_lose_no_run = pytest.mark.long(
    settings(bounded, max_examples=500)(with_random_operations(run_operations))
)


@functools.cache
def requests_without_a_kill(page: int) -> int:
    """Return the number of requests of the first load of 16 runs."""
    service = Service(page)
    service.create(16, status="completed", minutes=100)
    with tempfile.TemporaryDirectory() as folder:
        service.load(folder)
    return service.requests


@settings(bounded, max_examples=12)
@example(page=2, kills=[13, 21, 13, 28])  # the last kill is between a commit and the joining of small files
@given(page=st.integers(1, 3), kills=st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_each_kill_adds_at_most_four_requests(page: int, kills: list[int]) -> None:
    """The requests are: the page size, the first page, the page being stored, and the page being loaded."""
    uninterrupted = requests_without_a_kill(page)
    service = Service(page)
    service.create(16, status="completed", minutes=100)
    with tempfile.TemporaryDirectory() as folder:
        killed = 0
        for done in kills:
            KILL_COUNTDOWN.left = done
            try:
                service.load(folder, refresh=True)
            except Killed:
                killed += 1
            KILL_COUNTDOWN.left = service.page_limit = None
        frame = service.load(folder)
        check(service, folder, frame, None, None)
    # A load that is not killed is a refresh without new runs: the page size and the first page.
    assert service.requests <= uninterrupted + 4 * killed + 2 * (len(kills) - killed)


@pytest.fixture(scope="module")
def running_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Service, Path]:
    """Store 12 running runs."""
    service, folder = Service(3), tmp_path_factory.mktemp("running")
    service.create(12, status="running", minutes=200)
    service.load(str(folder))
    return service, folder


@pytest.mark.parametrize("operations_before_kill", range(0, 120, 8))
def test_killed_refresh_stores_each_changed_run_once(
    running_runs: tuple[Service, Path], operations_before_kill: int
) -> None:
    """The refresh rewrites runs that have ended; after the kill each is stored once, with old or new values."""
    service, stored_folder = copy.deepcopy(running_runs)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(stored_folder, folder, dirs_exist_ok=True)
        service.create(4, status="completed", minutes=200)
        for index in range(6):
            service.finish(index)
        KILL_COUNTDOWN.left = operations_before_kill
        with contextlib.suppress(Killed):
            service.load(folder, refresh=True)
        KILL_COUNTDOWN.left = None
        with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
            stored = values_by_id(service.load(folder, offline=True))
        check_first_or_last_values(service, stored)
        check(service, folder, service.load(folder, refresh=True), None, None)


@pytest.mark.parametrize("edition", ["A", "C", "L"])
@pytest.mark.parametrize("page", [2, 3])
def test_load_after_a_load_with_since_has_all_runs_in_each_edition(page: int, edition: str) -> None:
    """A load with `since` and then a load of the whole list give all runs."""
    for minutes in range(0, 400, 100):
        service = Service(page, edition)
        service.create(14, status="completed", minutes=40)
        with tempfile.TemporaryDirectory() as folder:
            since = service.now - timedelta(minutes=minutes)
            check(service, folder, service.load(folder, since=since), since, None)
            frame = service.load(folder)
            check(service, folder, frame, None, None)
            assert len(frame) == 14
