"""Tests of stores whose rows were stored before the schema had all of its columns."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qoderdata.decode import from_records
from qoderdata.errors import CacheError, CacheWarning, DataQualityWarning
from qoderdata.files import Folder
from qoderdata.schema import RUNS, SESSIONS, Column, Kind
from qoderdata.store import (
    RUNS_TABLE,
    SESSIONS_TABLE,
    DamagedStoreError,
    JournalEntry,
    Listing,
    StoredTable,
    TableStore,
    partitions,
)
from qoderdata.store.manifest import DataFile
from tests.runs_store import NOW, commit_entries, killed_after, make_store, page, run

#: A column in a nested object, one whose key is escaped in ``extra``, and one with a value that may not fit.
ADDED = (
    Column("region", ("place", "region"), Kind.TEXT, ""),
    Column("ratio", ("a.b",), Kind.NUMBER, ""),
    Column("retried_at", ("retried_at",), Kind.TIME, ""),
)
WIDER = replace(RUNS, columns=(*RUNS.columns[:5], *ADDED[:2], *RUNS.columns[5:], ADDED[2]))
WIDER_TABLE = replace(RUNS_TABLE, schema=WIDER)
RECORDS = [
    run(3, status="running", place={"region": "eu", "zone": "a"}),
    {**run(2, retried_at="soon"), "a.b": "1.50"},
    run(1, day=13, retried_at="2026-06-13T12:00:01Z"),
]
IDS = ("drun_003", "drun_002", "drun_001")


def expected() -> list[dict[str, Any]]:
    """Return the rows that a version with all columns reads from the service."""
    return rows(WIDER.resolve(decoded(WIDER)))


def decoded(schema: Any = RUNS, records: list[dict[str, Any]] = RECORDS) -> pa.Table:  # noqa: ANN401 - a schema
    with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
        return from_records(records, schema)


def rows(table: pa.Table) -> list[dict[str, Any]]:
    return table.sort_by([("id", "descending")]).to_pylist()


def entry() -> JournalEntry:
    return JournalEntry(RUNS.resolve(decoded()), NOW, Listing(None, IDS, None))


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, clean_memory: None) -> Folder:
    """Return a folder with a store of an earlier version."""
    del clean_memory
    found = Folder(tmp_path if request.param == "local" else f"memory://{tmp_path.name}")
    commit_entries(make_store(found), entry())
    return found


def data_files(store: TableStore) -> list[str]:
    return sorted(info.path for info in store.folder.files("data") if info.path.endswith(".parquet"))


def columns_of(store: TableStore) -> list[list[str]]:
    return [pq.read_schema(path, filesystem=store.folder.filesystem).names for path in data_files(store)]


def test_first_writer_rewrites_data_files_and_nothing_is_read_again(folder: Folder) -> None:
    before = make_store(folder)
    before.load()
    store = make_store(folder, WIDER_TABLE)
    with warnings.catch_warnings(action="error"):
        store.recover()
    assert rows(store.read()) == expected()
    assert store.coverage == before.coverage
    assert store.coverage.covers(None)
    assert store.open_rows == before.open_rows
    if folder.local:
        assert columns_of(store) == [WIDER.names] * 2
    assert not store.lacks_columns
    files = store.files()
    again = make_store(folder, WIDER_TABLE)
    again.recover()
    assert again.files() == files
    commit_entries(again, JournalEntry(WIDER.resolve(decoded(WIDER)), NOW, Listing(None, IDS, None)))
    assert rows(again.read()) == expected()
    assert again.files() == files, "a second reading of the same rows replaces no row"


def test_reader_without_lock_reads_all_columns(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: Any, **__: Any) -> Any:  # noqa: ANN401
        raise CacheError("another process holds the lock")

    monkeypatch.setattr(Folder, "lock", locked)
    store = make_store(folder, WIDER_TABLE)
    store.recover()
    assert store.lacks_columns
    assert rows(store.read()) == expected()
    some = store.read(["id", "created_at", "region", "extra"])
    assert some.schema.names == ["id", "created_at", "region", "extra"]
    assert rows(some) == [{name: row[name] for name in some.schema.names} for row in expected()]
    assert store.newest_rows(["region"])["region"].to_pylist() == ["eu", None]


def test_read_only_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_entries(make_store(tmp_path), entry())

    def refuse(*_: Any, **__: Any) -> Any:  # noqa: ANN401
        raise PermissionError("read only")

    for method in ("replace", "lock", "remove", "move"):
        monkeypatch.setattr(Folder, method, refuse)
    store = make_store(tmp_path, WIDER_TABLE)
    with pytest.warns(CacheWarning, match="the runs are not kept"):
        store.recover()
    assert rows(store.read()) == expected()


def test_journal_entry_lacks_columns(tmp_path: Path) -> None:
    old = make_store(tmp_path)
    with old.writer_lock():
        old.add(entry())
    store = make_store(tmp_path, WIDER_TABLE)
    store.recover()
    assert rows(store.read()) == expected()
    assert store.coverage.covers(None)


def test_new_rows_are_committed_to_days_with_old_files(folder: Folder) -> None:
    store = make_store(folder, WIDER_TABLE)
    new = decoded(WIDER, [run(4, place={"region": "us"}), run(3)])
    commit_entries(
        store, JournalEntry(WIDER.resolve(new), NOW, Listing(None, ("drun_004", "drun_003"), "drun_003"))
    )
    regions = {row["id"]: row["region"] for row in store.read().to_pylist()}
    assert regions == {"drun_004": "us", "drun_003": None, "drun_002": None, "drun_001": None}
    assert not store.open_rows


def test_dictionary_column_is_added_and_an_old_one_is_kept(tmp_path: Path) -> None:
    records = [
        {
            "id": f"s_{number}",
            "created_at": "2026-06-14T12:00:00Z",
            "agent": {"system": "x"},
            "box": {"kind": number % 2},
        }
        for number in range(4)
    ]
    box = Column("box", ("box",), Kind.SHARED_OBJECT, "")
    wider = replace(SESSIONS, columns=(*SESSIONS.columns, box))
    table = decoded(SESSIONS, records)
    commit_entries(make_store(tmp_path, SESSIONS_TABLE), JournalEntry(table, NOW, Listing(None, (), None)))
    store = make_store(tmp_path, replace(SESSIONS_TABLE, schema=wider))
    store.recover()
    found = store.read()
    assert found.schema.equals(wider.arrow)
    assert rows(found) == rows(decoded(wider, records))


def test_manifest_that_is_gone_or_damaged_is_rebuilt_with_all_columns(tmp_path: Path) -> None:
    for content in (None, b"{"):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        commit_entries(make_store(tmp_path), entry())
        (manifest,) = tmp_path.glob("runs/*/manifest.json")
        manifest.unlink()
        if content is not None:
            manifest.write_bytes(content)
        store = make_store(tmp_path, WIDER_TABLE)
        with warnings.catch_warnings(action="ignore", category=CacheWarning):
            store.recover()
        assert rows(store.read()) == expected()
        assert columns_of(store) == [WIDER.names] * 2


def test_damaged_file_that_lacks_columns_is_set_aside(tmp_path: Path) -> None:
    commit_entries(make_store(tmp_path), entry())
    path = Path(data_files(make_store(tmp_path))[0])
    content = bytearray(path.read_bytes())
    for index in range(4, len(content), 211):
        changed = bytearray(content)
        changed[index] ^= 1
        path.write_bytes(changed)
        store = make_store(tmp_path, WIDER_TABLE)
        store._load()
        with pytest.raises(DamagedStoreError, match="is not what was written"):
            store.read()
    with pytest.warns(CacheWarning, match="data files that cannot be used; 2 rows were recovered; 1 file that"):
        store.recover()
    assert rows(store.read()) == expected()[:2]
    assert not store.coverage.covers(None)


def test_file_with_a_column_of_a_later_version_counts_as_damaged(tmp_path: Path) -> None:
    later = JournalEntry(WIDER.resolve(decoded(WIDER)), NOW, Listing(None, IDS, None))
    commit_entries(make_store(tmp_path, WIDER_TABLE), later)
    store = make_store(tmp_path)
    store.recover()
    with pytest.raises(DamagedStoreError):
        store.read()
    with pytest.warns(CacheWarning, match="2 of 2 data files .* are gone or damaged; 2 files that cannot be used"):
        commit_entries(store, page(run(2)))
    assert [row["id"] for row in store.read().to_pylist()] == ["drun_002"]
    assert len(list(tmp_path.glob("runs/*/set-aside-*/**/*.parquet"))) == 2


@pytest.mark.parametrize("changes_before_kill", range(8))
def test_killed_rewriting_is_repeated(tmp_path: Path, changes_before_kill: int) -> None:
    commit_entries(make_store(tmp_path), entry())
    with killed_after(changes_before_kill, "replace", "remove", "delete"):
        make_store(tmp_path, WIDER_TABLE).recover()
    store = make_store(tmp_path, WIDER_TABLE)
    store.recover()
    assert rows(store.read()) == expected()
    assert store.coverage.covers(None)
    assert data_files(store) == sorted(store.files())


def test_two_writers_without_locks_rewrite_files_at_once(
    clean_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object store has no locks; the second writer finds that the files of its manifest are gone."""
    del clean_memory
    folder = Folder("memory://at-once")
    commit_entries(make_store(folder), entry())
    monkeypatch.setattr(partitions, "_is_leftover", lambda _: True)
    rebuild = partitions.Dataset.rebuild

    def rebuild_second(*arguments: Any) -> Any:  # noqa: ANN401
        monkeypatch.setattr(partitions.Dataset, "rebuild", rebuild)
        make_store(folder, WIDER_TABLE).recover()
        return rebuild(*arguments)

    monkeypatch.setattr(partitions.Dataset, "rebuild", rebuild_second)
    store = make_store(folder, WIDER_TABLE)
    store.recover()
    for one in (store, make_store(folder, WIDER_TABLE)):
        one.load()
        assert rows(one.read()) == expected()
        assert one.coverage.covers(None)


def test_row_moves_to_its_day_if_a_new_column_changes_its_time(tmp_path: Path) -> None:
    """The scheduled time is the trigger time of a record without a status."""
    record = {"id": "drun_1", "created_at": "2026-06-14T00:00:01Z", "session_id": "s",
              "trigger_context": {"scheduled_at": "2026-06-13T23:59:00Z"}}  # fmt: skip
    lacking = {"status_from", "trigger_scheduled_at"}
    old = replace(RUNS, columns=tuple(one for one in RUNS.columns if one.name not in lacking))
    old_table: StoredTable = replace(RUNS_TABLE, schema=replace(old, resolve=lambda table: table))
    commit_entries(
        make_store(tmp_path, old_table),
        JournalEntry(decoded(old, [record]), NOW, Listing(None, ("drun_1",), None)),
    )
    store = make_store(tmp_path)
    store.recover()
    (path,) = data_files(store)
    assert "day=2026-06-13" in path
    (row,) = store.read(until=datetime(2026, 6, 14, tzinfo=UTC)).to_pylist()
    assert row["extra"] is None


def test_manifest_without_numbers_of_columns_is_completed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(partitions, "DataFile", lambda rows, checksum, _: DataFile(rows, checksum))
        commit_entries(make_store(tmp_path), entry())
    store = make_store(tmp_path)
    files = data_files(store)
    store._load()
    assert store.lacks_columns
    store.recover()
    assert not store.lacks_columns
    assert data_files(store) == files
