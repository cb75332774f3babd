"""Tests of `TableStore` with runs: partitions, merging of readings, compaction, and several processes."""

from __future__ import annotations

import errno
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pandas as pd
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qoderdata import files
from qoderdata.decode import from_records
from qoderdata.errors import CacheError, CacheWarning, NotStoredWarning
from qoderdata.files import Folder
from qoderdata.frames import to_pandas
from qoderdata.load import caches
from qoderdata.load.caches import clear_stores, store_files
from qoderdata.outcomes import resolve_outcomes
from qoderdata.schema import RUNS, resolve_record
from qoderdata.store import (
    MANIFEST_NAME,
    RUNS_TABLE,
    DamagedStoreError,
    JournalEntry,
    Listing,
    TableStore,
    journal,
    partitions,
    row_ids,
)
from qoderdata.store import manifest as store_manifest
from qoderdata.store.partitions import NO_DAY, is_day_within
from tests.runs_store import BASE_URL, NOW, commit_entries, data_files, make_store, page, run, runs_table, stored

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def load_store(folder: Folder) -> TableStore:
    reader = make_store(folder)
    reader.load()
    return reader


def entry_of(*runs: dict[str, Any], **facts: Any) -> JournalEntry:  # noqa: ANN401
    return JournalEntry(runs_table(*runs) if runs else RUNS.arrow.empty_table(), NOW, **facts)


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    return make_store(Folder(tmp_path))


def ids_by_partition(folder: Path) -> dict[str, list[str]]:
    """Return the ids in the data files of each partition, read without the store."""
    found: dict[str, list[str]] = {}
    for file in sorted(folder.glob("runs/*/data/*/*.parquet")):
        found.setdefault(file.parent.name, []).extend(row_ids(pq.ParquetFile(file).read(["id"])))
    return found


def file_names(folder: Path, pattern: str) -> list[str]:
    return sorted(file.name for file in folder.glob(f"runs/*/{pattern}"))


def test_runs_are_stored_in_the_partition_of_their_day(store: TableStore, tmp_path: Path) -> None:
    commit_entries(store, page(run(3), run(2, day=13), run(1, day=None)))
    assert ids_by_partition(tmp_path) == {
        "day=2026-06-14": ["drun_003"],
        "day=2026-06-13": ["drun_002"],
        f"day={NO_DAY}": ["drun_001"],
    }
    assert list(stored(store)) == ["drun_003", "drun_002", "drun_001"]
    assert file_names(tmp_path, "journal/*") == []


def test_files_and_folders_are_private(store: TableStore, tmp_path: Path) -> None:
    commit_entries(store, page(run(1)))
    for path in (tmp_path / "runs").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("engine", ["duckdb", "polars", "pyarrow"])
def test_other_engines_read_the_data_files_directly(store: TableStore, engine: str) -> None:
    commit_entries(store, page(*(run(number, day=1 + number % 14) for number in range(60)), run(60, day=None)))
    folder = store.folder.path_of("data")
    if engine == "duckdb":
        duckdb = pytest.importorskip("duckdb")
        found = duckdb.sql(
            f"select count(*), count(distinct id), count(distinct day), min(day)::varchar "  # noqa: S608
            f"from read_parquet('{folder}/**/*.parquet', hive_partitioning=true)"
        ).fetchall()[0]
    elif engine == "polars":
        polars = pytest.importorskip("polars")
        frame = polars.scan_parquet(f"{folder}/**/*.parquet", hive_partitioning=True).collect()
        found = (len(frame), frame["id"].n_unique(), frame["day"].drop_nulls().n_unique(), str(frame["day"].min()))
    else:
        read = ds.dataset(folder, partitioning="hive").to_table()
        days = read["day"].drop_null()
        found = (read.num_rows, len(read["id"].unique()), len(days.unique()), str(pc.min(days)))
    assert found == (61, 61, 14, "2026-06-01")


def test_ended_runs_stay_and_open_runs_are_replaced(store: TableStore, tmp_path: Path) -> None:
    commit_entries(store, page(run(3, status="running"), run(2, status="pending", day=None), run(1)))
    assert set(store.open_rows) == {"drun_003", "drun_002"}
    commit_entries(
        store, entry_of(run(3, duration_ms=7), run(2, status="running", day=13), run(1, status="running"))
    )
    assert stored(store) == {"drun_003": "completed", "drun_002": "running", "drun_001": "completed"}
    assert stored(store, "duration_ms")["drun_003"] == 7
    assert {name: known.day for name, known in store.open_rows.items()} == {"drun_002": "2026-06-13"}
    assert sorted(ids_by_partition(tmp_path).items()) == [
        ("day=2026-06-13", ["drun_002"]),
        ("day=2026-06-14", ["drun_003", "drun_001"]),
    ]


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        (["running", "completed"], "completed"),
        (["completed", "running"], "completed"),
        (["pending", "running"], "running"),
        (["running", "pending"], "pending"),
    ],
)
def test_last_reading_in_a_commit_is_used_but_no_ended_run_reopens(
    store: TableStore, readings: Iterable[str], expected: str
) -> None:
    commit_entries(store, *(entry_of(run(1, status=status)) for status in readings))
    assert stored(store) == {"drun_001": expected}


def check_random_readings(
    commits: list[list[list[tuple[int, str]]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Check that an ended reading replaces an open one, and that a commit uses its last ended reading."""
    store = make_store(Folder(tmp_path_factory.mktemp("store")))
    statuses: dict[str, str] = {}
    read_at: dict[str, datetime] = {}
    for commit in commits:
        statuses_after = dict(statuses)
        ended_before = {id_ for id_, status in statuses.items() if status != "running"}
        entries: list[JournalEntry] = []
        for read in commit:
            entry = replace(entry_of(), read_at=NOW + timedelta(minutes=len(entries) + len(read_at)))
            rows = {f"drun_{number:03}": status for number, status in read}
            entries.append(
                replace(entry, table=runs_table(*(run(int(id_[-3:]), status=rows[id_]) for id_ in rows)))
            )
            for id_, status in rows.items():
                if id_ not in ended_before and (
                    status != "running" or statuses_after.get(id_, "running") == "running"
                ):
                    statuses_after[id_] = status
                    read_at[id_] = entry.read_at
        commit_entries(store, *entries)
        statuses = statuses_after
    assert stored(store) == statuses
    known = {id_: one.read_at for id_, one in store.open_rows.items()}
    assert known == {id_: read_at[id_] for id_, status in statuses.items() if status == "running"}


with_random_readings = given(
    commits=st.lists(
        st.lists(
            st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["running", "completed", "failed"])), max_size=4)
        ),
        max_size=4,
    )
)
test_random_readings_are_merged_as_a_reference_loop_does = settings(max_examples=20, deadline=None)(
    with_random_readings(check_random_readings)
)
test_500_sequences_of_readings_are_merged_as_a_reference_loop_does = pytest.mark.long(
    settings(max_examples=500, deadline=None)(with_random_readings(check_random_readings))
)


@pytest.mark.parametrize(
    ("record", "is_open"),
    [
        (run(1, status="pending"), True),
        (run(1, status="running"), True),
        (run(1, status="skipped"), False),
        (run(1, status="cancelling"), True),
        (run(1, status="cancelled", completed_at="2026-06-14T13:00:00Z"), False),
        ({"id": "drun_001"}, True),
    ],
)
def test_run_is_open_without_an_ended_status_or_end_time(
    store: TableStore, record: dict[str, Any], *, is_open: bool
) -> None:
    """A run with an unknown status has ended if it has an end time."""
    commit_entries(store, page(record))
    assert bool(store.open_rows) is is_open


@pytest.mark.parametrize("triggered", [None, "2026-06-13T23:59:50Z", "2026-06-15T00:00:01Z"])
def test_run_on_different_days_in_two_editions_is_stored_once(
    store: TableStore, tmp_path: Path, triggered: str | None
) -> None:
    """Runs of the newest edition have no trigger time and no status."""
    commit_entries(store, page(run(1) | {"triggered_at": triggered}))
    record = {"id": "drun_001", "session_id": "sess_1", "created_at": "2026-06-14T00:00:02Z"}
    commit_entries(store, JournalEntry(RUNS.resolve(runs_table(record)), NOW))
    assert stored(store) == {"drun_001": "completed"}
    assert sum(map(len, ids_by_partition(tmp_path).values())) == 1


def test_gone_run_stays_and_is_no_longer_open(store: TableStore) -> None:
    commit_entries(store, page(run(1, status="running")))
    commit_entries(store, entry_of(gone=("drun_001",)))
    assert stored(store) == {"drun_001": "running"}
    assert store.open_rows == {}


def test_store_contains_each_row_of_a_data_file(store: TableStore) -> None:
    runs = [run(number) for number in range(1, 4)]
    commit_entries(store, page(*runs))
    assert all(store.contains(each["id"], runs_table(each)) for each in runs)
    assert not store.contains("drun_004", runs_table(run(4)))


def test_open_before_returns_open_runs_within_bounds(store: TableStore) -> None:
    commit_entries(
        store,
        page(*(run(day, status="running", day=day) for day in (14, 13, 12)), run(1, status="pending", day=None)),
    )
    later = NOW + timedelta(hours=1)
    bounds = {"since": datetime(2026, 6, 13, tzinfo=UTC), "until": datetime(2026, 6, 14, tzinfo=UTC)}
    assert store.open_before(later, **bounds) == {"drun_013", "drun_001"}
    assert store.open_before(NOW) == set()


@pytest.mark.parametrize(
    ("day", "since", "until", "within"),
    [
        ("2026-06-14", None, None, True),
        ("2026-06-14", "2026-06-14T23:59+00:00", None, True),
        ("2026-06-14", "2026-06-15T00:00+00:00", None, False),
        ("2026-06-14", None, "2026-06-14T00:00+00:00", False),
        ("2026-06-14", None, "2026-06-14T00:01+00:00", True),
        (NO_DAY, None, "2026-06-14T00:00+00:00", False),
    ],
)
def test_is_day_within_bounds(day: str, since: str | None, until: str | None, *, within: bool) -> None:
    bounds = [None if bound is None else datetime.fromisoformat(bound) for bound in (since, until)]
    assert is_day_within(day, since=bounds[0], until=bounds[1], undated=False) is within


def test_files_with_bounds_are_those_of_the_days_within(store: TableStore) -> None:
    commit_entries(store, page(run(3), run(2, day=13), run(1, day=None)))
    days = [file.split("day=")[1][:10] for file in store.files(until=datetime(2026, 6, 14, 1, tzinfo=UTC))]
    assert days == ["2026-06-14", "2026-06-13"]
    assert len(store.files()) == 3
    assert stored(store, since=datetime(2026, 6, 14, tzinfo=UTC)) == {"drun_003": "completed"}


def test_newest_rows_are_those_of_the_newest_day(store: TableStore) -> None:
    assert store.newest() is None
    commit_entries(store, page(run(4), run(3), run(2, day=13), run(1, day=None)))
    assert sorted(row_ids(store.newest_rows(["id"]))) == ["drun_003", "drun_004"]
    assert store.newest() == pd.Timestamp(run(4)["triggered_at"])


def commit_separately(store: TableStore, *, count: int) -> None:
    """Commit pages of one run each, as a long pull does."""
    for number in range(count):
        store.add(page(run(number), more=True))
        store.commit()


def test_day_has_one_file_after_compaction(store: TableStore, tmp_path: Path) -> None:
    with store.writer_lock():
        commit_separately(store, count=5)
        assert len(file_names(tmp_path, "data/*/*")) == 5
        store.commit(compact=True)
    assert len(file_names(tmp_path, "data/*/*")) == 1
    assert len(stored(store)) == 5


def test_files_of_a_pull_that_was_killed_before_compaction_are_joined(store: TableStore, tmp_path: Path) -> None:
    with store.writer_lock():
        commit_separately(store, count=5)
    other = make_store(Folder(tmp_path))
    other.recover()
    assert len(file_names(tmp_path, "data/*/*")) == 1
    assert len(stored(other)) == 5
    assert file_names(tmp_path, "journal/*") == []


def test_day_with_many_runs_keeps_a_few_files(
    store: TableStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "_SMALL_DAY", 3)
    for number in range(12):
        commit_entries(store, page(run(number)))
        assert len(file_names(tmp_path, "data/*/*")) <= partitions._MOST_FILES
    assert len(stored(store)) == 12


def test_full_journal_is_committed_during_a_pull(
    store: TableStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_FULL_ROWS", 4)
    with store.writer_lock():
        store.add(page(run(5), run(4), more=True))
        assert len(file_names(tmp_path, "journal/*.arrow")) == 1
        store.add(page(run(3), run(2), after="drun_004", more=True))
        assert file_names(tmp_path, "journal/*.arrow") == []
        assert len(ids_by_partition(tmp_path)["day=2026-06-14"]) == 4


def test_journal_of_a_killed_pull_is_recovered(store: TableStore, tmp_path: Path) -> None:
    with store.writer_lock():
        store.add(page(run(2), more=True))
    other = make_store(Folder(tmp_path))
    other.load()
    assert not other.exists
    other.recover()
    assert stored(other) == {"drun_002": "completed"}
    assert other.coverage.cursor == "drun_002"
    assert file_names(tmp_path, "journal/*") == []


def test_journal_of_a_killed_pull_stays_if_it_cannot_be_committed(
    store: TableStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.writer_lock():
        store.add(page(run(2), more=True))
    full = OSError(errno.ENOSPC, "No space left on device")
    other = make_store(Folder(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(partitions.Dataset, "add", Mock(side_effect=full))
        with pytest.warns(NotStoredWarning, match="the runs are not kept"):
            other.recover()
    assert stored(other) == {"drun_002": "completed"}
    later = make_store(Folder(tmp_path))
    later.recover()
    assert stored(later) == {"drun_002": "completed"}
    assert later.coverage.cursor == "drun_002"
    assert file_names(tmp_path, "journal/*") == []


def test_journal_is_read_if_a_store_without_a_manifest_cannot_be_rebuilt(
    store: TableStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk became full during the first commit: there are data files, but no manifest."""
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(store_manifest, "write_manifest", Mock(side_effect=full))
        with store.writer_lock():
            store.add(page(run(2), more=True))
            with pytest.warns(NotStoredWarning, match="the runs are not kept"):
                store.commit()
        assert file_names(tmp_path, "data/*")
        other = make_store(Folder(tmp_path))
        with pytest.warns(NotStoredWarning, match="the runs are not kept"):
            other.recover()
        assert stored(other) == {"drun_002": "completed"}
    later = make_store(Folder(tmp_path))
    later.recover()
    assert stored(later) == {"drun_002": "completed"}
    assert file_names(tmp_path, "journal/*") == []


def test_journal_entry_that_was_committed_but_not_removed_is_not_added_again(
    store: TableStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "remove", lambda *_, **__: None)
        commit_entries(store, page(run(1, status="pending")))
        commit_entries(store, page(run(1, status="running")))
    (_, newer) = sorted(tmp_path.glob("runs/*/journal/*.arrow"))
    newer.unlink()
    later = make_store(tmp_path)
    later.recover()
    assert stored(later) == {"drun_001": "running"}
    assert not list(tmp_path.glob("runs/*/journal/*"))


def test_damaged_journal_entry_is_ignored(store: TableStore, tmp_path: Path) -> None:
    with store.writer_lock():
        store.add(page(run(3), more=True))
        store.add(page(run(2), after="drun_003", more=True))
        store.add(page(run(1), after="drun_002"))
    sorted(tmp_path.glob("runs/*/journal/*"))[1].write_bytes(b"damaged")
    other = make_store(Folder(tmp_path))
    other.recover()
    assert list(stored(other)) == ["drun_003", "drun_001"]
    assert other.coverage.cursor == "drun_003"
    assert file_names(tmp_path, "journal/*") == []


def test_files_of_an_interrupted_commit_are_removed(store: TableStore, tmp_path: Path) -> None:
    """The interrupted commit only compacts files, so the journal is empty."""
    with pytest.MonkeyPatch.context() as patch, store.writer_lock():
        commit_separately(store, count=2)
        patch.setattr("qoderdata.store.manifest.write_manifest", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.commit(compact=True)
    (data,) = tmp_path.glob("runs/*/data/*")
    (data / ".half.parquet.1-ab.tmp").write_bytes(b"PAR1")
    assert len(ids_by_partition(tmp_path)["day=2026-06-14"]) == 4
    make_store(Folder(tmp_path)).recover()
    assert sorted(ids_by_partition(tmp_path)["day=2026-06-14"]) == ["drun_000", "drun_001"]
    assert file_names(tmp_path, "**/*.tmp") == []


def test_new_file_outside_the_manifest_is_kept_on_an_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec")
    folder = Folder("memory://store-leftovers")
    store = make_store(folder)
    commit_entries(store, page(run(1)))
    for name in ("20260615T000000-ab.parquet", "20260615T020000-cd.parquet"):
        store.folder.replace(f"data/day=2026-06-14/{name}", lambda sink: sink.write(b"PAR1"))
    monkeypatch.setattr(partitions, "_is_leftover", lambda name: name < "20260615T010000")
    store._dataset.remove_unlisted(store._manifest.files)
    left = [info.base_name for info in store.folder.files("data")]
    assert len(left) == 2
    assert "20260615T020000-cd.parquet" in left
    clear_stores(folder)


def test_data_file_that_no_manifest_names_is_a_leftover_after_an_hour() -> None:
    now = datetime.now(UTC)
    names = [f"{now - timedelta(minutes=age):%Y%m%dT%H%M%S}-ab-cd.parquet" for age in (0, 50, 70)]
    assert list(map(partitions._is_leftover, names)) == [False, False, True]


def test_read_during_a_commit_is_repeated_with_the_new_manifest(store: TableStore, tmp_path: Path) -> None:
    """The reader has read the manifest; then another process replaces the files that it names."""
    commit_entries(store, page(run(1, status="running")))
    reader = load_store(Folder(tmp_path))
    commit_entries(store, entry_of(run(1)))
    assert reader.newest() == pd.Timestamp(run(1)["triggered_at"])
    reader = load_store(Folder(tmp_path))
    commit_entries(store, page(run(2)), entry_of(run(1)))
    assert stored(reader) == {"drun_002": "completed", "drun_001": "completed"}


def test_read_of_a_cleared_store_raises_cache_error(store: TableStore, tmp_path: Path) -> None:
    commit_entries(store, page(run(1)))
    reader = load_store(Folder(tmp_path))
    clear_stores(Folder(tmp_path))
    with pytest.raises(CacheError, match="gone or damaged"):
        reader.read()


def test_lost_data_file_and_damaged_manifest_raise_damaged_store_error(store: TableStore, tmp_path: Path) -> None:
    commit_entries(store, page(run(1)))
    (file,) = data_files(tmp_path)
    file.unlink()
    store.folder.replace(MANIFEST_NAME, lambda sink: sink.write(b"{"))
    with pytest.raises(DamagedStoreError, match="gone or damaged"):
        store.read()


def test_stored_rows_contradict_an_empty_list_after_the_coverage_is_forgotten(store: TableStore) -> None:
    with store.writer_lock():
        store.add(page(run(1)))
        store.forget_coverage()
        assert store.coverage.contradicts(Listing(None, (), None))
        store.commit()
        store.forget_coverage()
    assert store.coverage.contradicts(Listing(None, (), None))


def test_second_writer_waits_for_the_first(
    store: TableStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_NOTICE", 60)  # so that a slow disk causes no warning in the other thread
    other, order = make_store(Folder(tmp_path)), []

    def pull() -> None:
        with other.writer_lock():
            order.append(f"second writer reads {len(other.read())} runs")

    with store.writer_lock():
        thread = threading.Thread(target=pull)
        thread.start()
        store.add(page(run(1)))
        reader = make_store(Folder(tmp_path))
        reader.recover()
        assert not reader.exists
        store.commit()
        order.append("first writer ends")
    thread.join()
    assert order == ["first writer ends", "second writer reads 1 runs"]


def test_two_writers_without_a_lock_keep_correct_coverage() -> None:
    """On an object store the last manifest is used; a page after one of the other writer adds no coverage."""
    pytest.importorskip("fsspec")
    folder = Folder("memory://store-two-writers")
    one, two = make_store(folder), make_store(folder)
    with one.writer_lock(), two.writer_lock():
        one.add(page(run(9), run(8), more=True))
        two.add(page(run(9), more=True))
        two.commit()
        one.add(page(run(7), run(6), after="drun_008", more=True))
        one.commit()
        two.add(page(run(8), after="drun_009", more=True))
        two.commit(compact=True)
    reader = load_store(folder)
    assert list(stored(reader)) == ["drun_009", "drun_008", "drun_007", "drun_006"]
    assert reader.coverage.cursor in {"drun_006", "drun_008"}
    clear_stores(folder)


def test_refused_cursor_after_a_damaged_data_file_leaves_nothing_complete(
    store: TableStore, tmp_path: Path
) -> None:
    commit_entries(store, page(run(9), run(8), more=True))
    data_files(tmp_path)[0].write_bytes(b"damaged")
    other = make_store(tmp_path)
    with other.writer_lock():
        other.add(page(run(7), run(6), after="drun_008", more=True))
        with pytest.warns(CacheWarning, match="damaged"):
            other.drop_last_cursor()
    assert other.coverage.segments == ()
    assert stored(other) == {"drun_007": "completed", "drun_006": "completed"}


def test_store_in_an_unwritable_folder_keeps_rows_in_memory(store: TableStore, tmp_path: Path) -> None:
    """Stored runs are still read, each once, and ended runs stay ended."""
    commit_entries(store, page(run(2, status="running"), run(1)))
    other = make_store(Folder(tmp_path))
    lock = next(tmp_path.glob("runs/*.lock"))
    lock.unlink()
    lock.mkdir()
    with pytest.warns(CacheWarning, match="the runs are not kept"):
        commit_entries(other, page(run(3), run(2), run(1, status="running"), more=True))
    other.commit()
    other.drop_last_cursor()
    assert stored(other, since=datetime(2026, 6, 1, tzinfo=UTC)) == {
        "drun_003": "completed",
        "drun_002": "completed",
        "drun_001": "completed",
    }
    assert stored(other, where=pc.field("status") == "running") == {}
    assert other.newest() == pd.Timestamp(run(3)["triggered_at"])
    assert ids_by_partition(tmp_path) == {"day=2026-06-14": ["drun_002", "drun_001"]}


def test_store_files_and_clear_stores(store: TableStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store_files(Folder(tmp_path), RUNS_TABLE) == []
    assert clear_stores(Folder(tmp_path)) == 0
    commit_entries(store, page(run(3, status="running"), run(2, day=13), run(1)))
    ((account, files),) = store_files(Folder(tmp_path), RUNS_TABLE)
    sizes = {str(file): file.stat().st_size for file in tmp_path.glob("runs/*/**/*.*") if file.is_file()}
    assert len(sizes) == 3
    assert {info.path: info.size for info in files} == sizes
    assert tuple(account.values()) == (BASE_URL, None, "someone")
    monkeypatch.setattr(caches, "_LOCK_SECONDS", 0)
    with store.writer_lock(), pytest.raises(CacheError, match="a process is pulling runs into it"):
        clear_stores(Folder(tmp_path))
    assert clear_stores(Folder(tmp_path)) == 3
    assert store_files(Folder(tmp_path), RUNS_TABLE) == []
    assert ids_by_partition(tmp_path) == {}


@given(data=st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_resolve_record_equals_resolve_outcomes(data: st.DataObject) -> None:
    """The store applies the rules of `resolve_outcomes` to Arrow tables."""
    texts, times = (
        st.sampled_from(["x", None]),
        st.sampled_from(["2026-06-15T00:00:00Z", "2026-06-16T01:00:00Z", None]),
    )
    records = [
        {
            "id": f"drun_{number}",
            "status": data.draw(st.sampled_from(["completed", "failed", "odd", None])),
            "session_id": data.draw(texts),
            "error": {"type": data.draw(texts), "message": data.draw(texts)},
            "created_at": data.draw(times),
            "triggered_at": data.draw(times),
            "completed_at": data.draw(times),
            "duration_ms": data.draw(st.sampled_from([0, 5, None])),
            "cas_run_extras": {"started_at": data.draw(times)},
            "trigger_context": {"type": "schedule", "scheduled_at": data.draw(times)},
        }
        for number in range(data.draw(st.integers(0, 5)))
    ]
    table = from_records(records, RUNS)
    pd.testing.assert_frame_equal(to_pandas(resolve_record(table), RUNS), resolve_outcomes(to_pandas(table, RUNS)))
