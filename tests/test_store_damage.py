"""Tests of stores that are damaged, copied, or written by version 0.1, and of locks."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qoderdata import cache_usage, clear_cache, files
from qoderdata.decode import from_records
from qoderdata.errors import CacheError, CacheWarning
from qoderdata.files import Folder
from qoderdata.load.caches import clear_stores, store_files
from qoderdata.schema import OUTCOMES, RUNS, SESSIONS
from qoderdata.store import (
    OUTCOMES_TABLE,
    RUNS_TABLE,
    SESSIONS_TABLE,
    DamagedStoreError,
    JournalEntry,
    Listing,
    StoredTable,
    TableStore,
    partitions,
    row_ids,
)
from qoderdata.store.coverage import Coverage
from tests.runs_store import (
    NOW,
    commit_entries,
    data_files,
    killed_after,
    make_store,
    page,
    run,
    runs_table,
    stored,
)

if TYPE_CHECKING:
    from collections.abc import Callable

OLD_STORE = Path(__file__).resolve().parent / "data" / "store-0.1"


def recover_store(folder: Path, table: StoredTable = RUNS_TABLE, *, account: str = "someone") -> TableStore:
    store = make_store(folder, table, account=account)
    store.recover()
    return store


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """Return a folder with a store of three runs on two days, one of them open."""
    commit_entries(make_store(tmp_path), page(run(3, status="running"), run(2), run(1, day=13)))
    return tmp_path


ALL = {"drun_003": "running", "drun_002": "completed", "drun_001": "completed"}


def manifest_of(folder: Path) -> Path:
    (found,) = folder.glob("runs/*/manifest.json")
    return found


def files_set_aside(folder: Path, table: str = "runs") -> list[str]:
    found = folder.glob(f"{table}/*/set-aside-*/**/*")
    return sorted(file.name for file in found if file.is_file())


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-5],
        lambda content: content[:100],
        lambda _: b"",
        lambda _: b"{}",
        lambda _: b"[]",
        lambda content: content.replace(b'"format": 2', b'"format": 999'),
        lambda content: content.replace(b"2026-06-15", b"2026-06-16"),
    ],
    ids=["5 bytes short", "truncated", "empty", "no keys", "list", "unknown format", "wrong date"],
)
def test_damaged_manifest_is_rebuilt_from_the_data_files(filled: Path, damage: Callable[[bytes], bytes]) -> None:
    manifest_of(filled).write_bytes(damage(manifest_of(filled).read_bytes()))
    with pytest.warns(CacheWarning, match="was repaired: its manifest cannot be used .* 3 rows were recovered"):
        store = recover_store(filled)
    assert stored(store) == ALL
    assert store.coverage == Coverage(has_unclaimed=True)
    assert store.open_before(NOW) == {"drun_003"}
    again = recover_store(filled)
    assert stored(again) == ALL
    commit_entries(again, page(run(3)))
    assert stored(again) == {**ALL, "drun_003": "completed"}


def test_missing_manifest_is_rebuilt_from_the_data_files(filled: Path) -> None:
    manifest_of(filled).unlink()
    store = recover_store(filled)
    assert stored(store) == ALL
    assert not store.coverage.segments


def test_manifest_with_a_changed_bit_warns_or_is_equal(filled: Path) -> None:
    content = manifest_of(filled).read_bytes()
    original = make_store(filled)
    original.load()
    for index in range(0, len(content), 5):
        changed = bytearray(content)
        changed[index] ^= 1 << (index % 8)
        manifest_of(filled).write_bytes(bytes(changed))
        store = make_store(filled)
        with warnings.catch_warnings(record=True, action="always") as caught:
            store.load()
        assert caught or (store._manifest == original._manifest), index


def byte_positions(folder: Path) -> list[tuple[Path, int]]:
    """Return some byte positions of each data file, in its footer and in its pages."""
    found = []
    for file in data_files(folder):
        content = file.read_bytes()
        footer = int.from_bytes(content[-8:-4], "little") + 8
        indexes = [*range(0, len(content) - footer, 997), *range(len(content) - footer, len(content), 97)]
        found += [(file, index) for index in indexes]
    return found


def test_an_empty_list_after_a_damaged_file_contradicts(filled: Path) -> None:
    data_files(filled)[0].write_bytes(b"damaged")
    store = make_store(filled)
    with pytest.warns(CacheWarning, match=r"1 of \d data files"), store.writer_lock():
        store.forget_damaged()
    assert store.coverage.contradicts(Listing(None, (), None))


def test_data_file_with_a_changed_bit_raises_damaged_store_error(filled: Path) -> None:
    for file, index in byte_positions(filled):
        content = file.read_bytes()
        changed = bytearray(content)
        changed[index] ^= 1 << (index % 8)
        file.write_bytes(bytes(changed))
        store = make_store(filled)
        store.load()
        with pytest.raises(DamagedStoreError, match="is not what was written"):
            store.read()
        file.write_bytes(content)


def other_rows(file: Path) -> pa.Table:
    table = pq.ParquetFile(file).read()
    return table.slice(0, table.num_rows - 1)


def other_columns(file: Path) -> pa.Table:
    return pq.ParquetFile(file).read().drop_columns(["extra"])


@pytest.mark.parametrize("change", [other_rows, other_columns])
def test_data_file_with_other_rows_or_columns_is_set_aside(
    filled: Path, change: Callable[[Path], pa.Table]
) -> None:
    file = data_files(filled)[1]
    pq.write_table(change(file), file)
    store, head = make_store(filled), Listing(None, ("drun_004", "drun_003"), "drun_003")
    expected = r"1 of 2 data files .* is gone.*; 1 file that cannot be used is in .*set-aside"
    with pytest.warns(CacheWarning, match=expected):
        commit_entries(store, replace(page(run(4), run(3, status="running")), listing=head))
    assert files_set_aside(filled) == [file.name]
    assert stored(store) == {"drun_004": "completed", "drun_003": "running", "drun_001": "completed"}
    assert not store.coverage.covers(None)


def test_folder_in_place_of_a_data_file_raises_cache_error(filled: Path) -> None:
    file = data_files(filled)[0]
    file.unlink()
    file.mkdir()
    store = make_store(filled)
    store.load()
    with pytest.raises(CacheError):
        store.read()


def test_damaged_data_file_is_set_aside_if_the_manifest_is_damaged(filled: Path) -> None:
    manifest_of(filled).write_bytes(b"{")
    file = data_files(filled)[0]
    file.write_bytes(file.read_bytes()[:-1] + b"X")
    with pytest.warns(CacheWarning, match="2 rows were recovered; 1 file that cannot be used is in"):
        store = recover_store(filled)
    assert set(stored(store)) == {"drun_003", "drun_002"}
    assert files_set_aside(filled) == [file.name]


def test_rebuilt_manifest_uses_the_ended_one_of_two_rows(filled: Path) -> None:
    """A commit was interrupted after its data files, then the manifest was damaged: the ended row is used."""
    old = [(file, file.read_bytes()) for file in data_files(filled)]
    commit_entries(make_store(filled), page(run(3), run(4)))
    for file, content in old:
        file.write_bytes(content)
    manifest_of(filled).write_bytes(b"{")
    with pytest.warns(CacheWarning, match="4 rows were recovered"):
        store = recover_store(filled)
    assert stored(store) == {**ALL, "drun_003": "completed", "drun_004": "completed"}
    assert store.open_rows == {}


@pytest.mark.parametrize("is_damaged", [False, True])
def test_copied_store_of_another_account_is_not_read(filled: Path, *, is_damaged: bool) -> None:
    """Data files and journal entries name the account too, so this also holds without a manifest."""
    theirs = make_store(filled, account="another")
    with theirs.writer_lock():
        pass
    mine = make_store(filled)
    with mine.writer_lock():
        mine.add(page(run(9)))
    shutil.rmtree(theirs.folder.path, ignore_errors=True)
    shutil.copytree(mine.folder.path, theirs.folder.path)
    if is_damaged:
        (Path(theirs.folder.path) / "manifest.json").write_bytes(b"{")
    with pytest.warns(CacheWarning, match="was repaired"):
        theirs = recover_store(filled, account="another")
    assert stored(theirs) == {}
    assert not theirs.exists
    commit_entries(theirs, page(run(7)))
    assert stored(recover_store(filled, account="another")) == {"drun_007": "completed"}
    assert stored(recover_store(filled)) == {**ALL, "drun_009": "completed"}
    assert len([name for name in files_set_aside(filled) if name.endswith(".parquet")]) == 2


def test_load_of_a_copied_store_warns_and_finds_nothing(filled: Path) -> None:
    mine, theirs = make_store(filled), make_store(filled, account="another")
    shutil.copytree(mine.folder.path, theirs.folder.path)
    with pytest.warns(CacheWarning, match="of another account"):
        theirs.load()
    assert not theirs.exists


def test_journal_entry_with_a_changed_bit_is_ignored(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    with store.writer_lock():
        store.add(JournalEntry(from_records([run(2)], RUNS), NOW, Listing(None, ("drun_002",), "drun_002")))
        store.add(JournalEntry(from_records([run(1)], RUNS), NOW, Listing("drun_002", ("drun_001",), None)))
    (first, _) = sorted(tmp_path.glob("runs/*/journal/*.arrow"))
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 4
    first.write_bytes(bytes(content))
    store = recover_store(tmp_path)
    assert stored(store) == {"drun_001": "completed"}
    assert not store.coverage.segments


@pytest.mark.parametrize("name", ["journal", "data"])
def test_file_in_place_of_a_folder_warns(tmp_path: Path, name: str) -> None:
    store = make_store(tmp_path)
    Path(store.folder.path).mkdir(parents=True)
    (Path(store.folder.path) / name).write_text("in the way")
    with pytest.warns(CacheWarning, match="the runs are not kept"):
        commit_entries(store, page(run(1)))
    assert stored(store) == {"drun_001": "completed"}


def test_lock_that_cannot_be_acquired_warns(tmp_path: Path) -> None:
    """An earlier pull left a journal entry, and recovering it needs the lock."""
    store = make_store(tmp_path)
    with store.writer_lock():
        store.add(JournalEntry(from_records([run(2)], RUNS), NOW, Listing(None, ("drun_002",), "drun_002")))
    (lock,) = tmp_path.glob("runs/*.lock")
    lock.unlink()
    lock.mkdir()
    later = make_store(tmp_path)
    with pytest.warns(CacheWarning, match="the runs are not kept"):
        later.recover()
    commit_entries(later, page(run(1)))
    assert stored(later) == {"drun_001": "completed", "drun_002": "completed"}


@pytest.mark.parametrize(
    ("use", "fault"),
    [
        (cache_usage, r"read now \(permission denied\). Call as the user who owns"),
        (
            clear_cache,
            r"deleted \(permission denied\). Make the folder writable, or clear the cache as the user who",
        ),
    ],
)
@pytest.mark.parametrize(
    ("name", "what"), [("queries", "cached answers"), ("runs", "store of runs"), ("history", "snapshots")]
)
def test_permission_error_of_a_listing_is_raised_as_cache_error(
    filled: Path,
    monkeypatch: pytest.MonkeyPatch,
    use: Callable[[Path], object],
    fault: str,
    *,
    name: str,
    what: str,
) -> None:
    files_of = Folder.files

    def refuse(folder: Folder, below: str = "") -> list[Any]:
        if name in Path(folder.path).parts:
            raise PermissionError(13, "permission denied")
        return files_of(folder, below)

    monkeypatch.setattr(Folder, "files", refuse)
    with pytest.raises(CacheError, match=f"{what} .* cannot be {fault}"):
        use(filled)


def test_data_file_that_does_not_match_its_name_is_not_recovered(filled: Path) -> None:
    file = data_files(filled)[0]
    file.rename(file.with_name("20260614T000000-ab-00000000.parquet"))
    manifest_of(filled).write_bytes(b"{")
    with pytest.warns(CacheWarning, match="2 rows were recovered; 1 file that cannot be used"):
        recover_store(filled)


def test_files_of_a_store_with_a_damaged_manifest_are_not_counted(filled: Path) -> None:
    manifest_of(filled).write_bytes(b"{")
    with pytest.warns(CacheWarning, match="the store of runs in .* was ignored: its manifest cannot be used"):
        assert cache_usage(filled)["runs"] == {"files": 0, "bytes": 0}


@pytest.mark.parametrize("name", ["x" * 300, "file"])
def test_invalid_folder_warns_on_write_and_raises_on_store_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "runs").write_text("in the way")
    for folder in (tmp_path / name, tmp_path):
        with pytest.warns(CacheWarning, match="the runs are not kept"):
            commit_entries(make_store(folder), page(run(1)))
    with pytest.raises(CacheError, match="cannot be read now"):
        store_files(Folder(tmp_path), RUNS_TABLE)


def write(folder: Folder, name: str, content: bytes) -> None:
    folder.replace(name, lambda sink: sink.write(content))


def test_object_store_is_rebuilt_and_a_copied_store_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder("memory://damage")
    mine, theirs = make_store(folder), make_store(folder, account="another")
    commit_entries(mine, page(run(3, status="running"), run(2), run(1, day=13)))
    for info in mine.folder.files():
        name = info.path.removeprefix(mine.folder.path).lstrip("/")
        content = mine.folder.read(name)
        assert content is not None
        write(theirs.folder, name, content.to_pybytes())
    with pytest.warns(CacheWarning, match="of another account.*; 3 files that cannot be used are in"):
        theirs.recover()
    assert not theirs.exists
    write(mine.folder, "manifest.json", b"{")
    # New files are not removed, because another writer may need them.
    monkeypatch.setattr(partitions, "_is_leftover", lambda _: True)
    with pytest.warns(CacheWarning, match="3 rows were recovered"):
        mine.recover()
    assert stored(mine) == ALL
    clear_stores(folder)


@pytest.fixture
def old_store(tmp_path: Path) -> Path:
    """Return a copy of a store of version 0.1 with runs of all editions, and a page in its inbox."""
    shutil.copytree(OLD_STORE, tmp_path / "cache")
    return tmp_path / "cache"


def check_upgraded(store: TableStore, folder: Path) -> None:
    found = {row["id"]: row for row in store.read().to_pylist()}
    assert sorted(found) == [f"drun_{number:03}" for number in range(1, 12)]
    columns = ("status", "status_from", "trigger_scheduled_at", "triggered_at", "extra")
    values = {id_: tuple(row[column] for column in columns) for id_, row in found.items()}

    def at(day: int, hour: int, minute: int = 0, second: int = 0, micro: int = 0) -> datetime:
        return datetime(2026, 6, day, hour, minute, second, micro, tzinfo=UTC)

    assert values["drun_009"] == (None, None, at(15, 0, micro=123456), at(15, 0, micro=123456), None)
    assert values["drun_008"] == (None, None, at(13, 20), at(13, 20), '{"other.n":1.5}')
    assert values["drun_007"] == ("failed", "run", None, at(14, 19, second=1), None)
    assert values["drun_006"] == (
        None,
        None,
        None,
        at(14, 18, second=1),
        '{"trigger_context.scheduled_at":"soon"}',
    )
    assert values["drun_005"] == ("pending", "run", None, at(14, 17, second=1), None)
    assert values["drun_004"] == ("running", "service", None, at(14, 12), None)
    assert values["drun_001"][:2] == ("skipped", "service")
    assert found["drun_001"]["attempt"] == 2
    assert values["drun_011"] == (None, None, at(15, 9), at(15, 9), None)
    assert set(store.open_rows) == {"drun_005", "drun_004"}
    assert store.coverage.covers(None)
    days = {}
    for file in data_files(folder):
        days[file.parent.name] = set(pq.ParquetFile(file).read(["id"])["id"].to_pylist())
    assert days == {
        "day=2026-06-13": {"drun_008", "drun_002", "drun_001"},
        "day=2026-06-14": {"drun_007", "drun_006", "drun_005", "drun_004", "drun_003"},
        "day=2026-06-15": {"drun_011", "drun_010", "drun_009"},
    }
    assert not list(folder.glob("runs/*/inbox/*"))
    assert files_set_aside(folder) == []


def test_store_of_version_0_1_is_upgraded_once(old_store: Path) -> None:
    """Runs without a trigger time move to their day, and the page in the inbox is added."""
    check_upgraded(recover_store(old_store), old_store)
    files_before = {file: file.read_bytes() for file in data_files(old_store)}
    again = recover_store(old_store)
    check_upgraded(again, old_store)
    assert {file: file.read_bytes() for file in data_files(old_store)} == files_before


def test_files_of_a_store_of_version_0_1_are_counted(old_store: Path) -> None:
    sizes = [file.stat().st_size for file in (old_store / "runs").rglob("*") if file.is_file()]
    assert cache_usage(old_store)["runs"] == {"files": len(sizes), "bytes": sum(sizes)}
    assert clear_cache(old_store) == len(sizes)


@pytest.mark.parametrize("changes_before_kill", range(24))
def test_killed_upgrade_is_repeated(old_store: Path, changes_before_kill: int) -> None:
    with killed_after(changes_before_kill, "replace", "remove"):
        recover_store(old_store)
    check_upgraded(recover_store(old_store), old_store)


def test_damaged_data_file_of_version_0_1_is_set_aside(old_store: Path) -> None:
    file = data_files(old_store)[0]
    content = bytearray(file.read_bytes())
    content[20] ^= 255
    file.write_bytes(bytes(content))
    with pytest.warns(CacheWarning, match="data files that cannot be used; 7 rows were recovered; 1 file"):
        store = recover_store(old_store)
    assert files_set_aside(old_store) == [file.name]
    assert {"drun_009", "drun_003"} <= set(stored(store))
    assert not store.coverage.covers(None)


def test_damaged_manifest_of_version_0_1_loses_no_row(old_store: Path) -> None:
    manifest_of(old_store).write_bytes(manifest_of(old_store).read_bytes()[:-5])
    with pytest.warns(CacheWarning, match="9 rows were recovered"):
        store = recover_store(old_store)
    assert set(stored(store)) == {f"drun_{number:03}" for number in range(1, 10)}
    assert set(store.open_before(NOW)) == {"drun_005", "drun_004"}


def session(number: int, *, status: str = "idle", text: str = "system", day: int = 14) -> dict[str, Any]:
    agent = {"id": "agent_1", "version": 2, "system": text}
    at = f"2026-06-{day:02}T12:00:00Z"
    return {"id": f"sess_{number}", "status": status, "agent": agent, "created_at": at, "vault_ids": ["v"]}


def whole_session_list(*sessions: dict[str, Any]) -> JournalEntry:
    ids = tuple(one["id"] for one in sessions)
    return JournalEntry(from_records(list(sessions), SESSIONS), NOW, Listing(None, ids, None))


def test_latest_session_is_used_and_agents_stay_dictionary_encoded(tmp_path: Path) -> None:
    store = make_store(tmp_path, SESSIONS_TABLE)
    commit_entries(store, whole_session_list(session(3), session(2, text="other"), session(1, day=13)))
    commit_entries(
        store,
        whole_session_list(session(4), session(3, status="running")),
        whole_session_list(session(3, status="terminated")),
    )
    assert stored(store) == {"sess_4": "idle", "sess_3": "terminated", "sess_2": "idle", "sess_1": "idle"}
    found = recover_store(tmp_path, SESSIONS_TABLE).read()
    assert found.schema.equals(SESSIONS.arrow)
    assert pa.types.is_dictionary(found["agent"].type)
    texts = dict(zip(row_ids(found), found["agent"].to_pylist(), strict=True))
    assert texts["sess_2"] == '{"system":"other"}'
    assert texts["sess_1"] == '{"system":"system"}'
    assert found["vault_ids"].to_pylist() == [["v"]] * 4
    (file,) = tmp_path.glob("sessions/*/data/day=2026-06-14/*.parquet")
    assert pq.ParquetFile(file).metadata.num_rows == 3


def test_unchanged_sessions_are_not_written_again(tmp_path: Path) -> None:
    store = make_store(tmp_path, SESSIONS_TABLE)
    sessions = [session(3), session(2, text="other"), session(1, day=13)]
    commit_entries(store, whole_session_list(*sessions))
    before = sorted(tmp_path.glob("sessions/*/data/*/*"))
    commit_entries(store, whole_session_list(*sessions))
    assert sorted(tmp_path.glob("sessions/*/data/*/*")) == before
    changes: list[dict[str, Any]] = [
        {"status": "running"},
        {"vault_ids": ["w"]},
        {"vault_ids": []},
        {"agent": {"system": "new"}},
    ]
    for change in changes:
        sessions[0] |= change
        commit_entries(store, whole_session_list(*sessions))
        found = {row["id"]: row for row in store.read().to_pylist()}
        truth = from_records([sessions[0]], SESSIONS).to_pylist()[0]
        assert found["sess_3"] == truth
        assert len(found) == 3


def test_a_refused_run_in_the_journal_of_a_killed_pull_is_not_read_again(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    commit_entries(store, page(run(2, status="running"), run(1)))
    hour_later = NOW + timedelta(hours=1)
    with store.writer_lock():
        store.add(JournalEntry(runs_table(), hour_later, unreadable=("drun_002",)))
    later = make_store(tmp_path)
    later.recover()
    assert later.open_before(hour_later) == set()


def test_sessions_in_the_journal_of_a_killed_pull_are_recovered(tmp_path: Path) -> None:
    store = make_store(tmp_path, SESSIONS_TABLE)
    with store.writer_lock():
        store.add(whole_session_list(session(1), session(2, text="other")))
        entry = whole_session_list(session(3, text="third"))
        both = pa.concat_tables([entry.table, from_records([session(4, text="fourth")], SESSIONS)])
        store.add(JournalEntry(both, NOW))
    found = recover_store(tmp_path, SESSIONS_TABLE).read()
    texts = {str(text) for text in found["agent"].to_pylist()}
    assert texts == {f'{{"system":"{name}"}}' for name in ("system", "other", "third", "fourth")}


def outcome(number: int, end: str | None, status: str | None) -> dict[str, Any]:
    return {"id": f"sess_{number}", "created_at": NOW, "end": end, "status": status}


def test_final_and_gone_outcomes_stay_and_others_are_replaced(tmp_path: Path) -> None:
    store = make_store(tmp_path, OUTCOMES_TABLE)

    def entry_of(*outcomes: dict[str, Any]) -> JournalEntry:
        return JournalEntry(pa.Table.from_pylist(list(outcomes), schema=OUTCOMES.arrow), NOW)

    commit_entries(
        store,
        entry_of(
            outcome(1, "final", "completed"),
            outcome(2, "error", "failed"),
            outcome(3, "waiting", "waiting"),
            outcome(4, "gone", None),
            outcome(5, None, None),
        ),
    )
    commit_entries(store, entry_of(*(outcome(number, "final", "cancelled") for number in range(1, 6))))
    assert stored(store) == {
        "sess_1": "completed",
        "sess_2": "cancelled",
        "sess_3": "cancelled",
        "sess_4": None,
        "sess_5": "cancelled",
    }


_HOLD = """
import sys, time
from qoderdata.files import Folder
from qoderdata.load.caches import clear_stores, store_files
with Folder(sys.argv[1]).lock("name"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_of_a_stopped_process_warns_and_then_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_NOTICE", 0.05)
    monkeypatch.setattr(files, "LOCK_PATIENCE", 0.2)
    command = [sys.executable, "-c", _HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGSTOP)
        try:
            with (
                pytest.warns(CacheWarning, match=r"waiting for another process, which holds .*name\.lock"),
                pytest.raises(CacheError, match=r"holds .*name\.lock and has done nothing"),
                Folder(tmp_path).lock("name"),
            ):
                pass
        finally:
            holder.kill()
    with Folder(tmp_path).lock("name"):
        pass


def test_lock_of_a_running_process_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for without a limit, because it renews its lock.

    Each call of the fake clock adds 50 s, and the lock is renewed between two checks of it.
    """
    monkeypatch.setattr(files, "LOCK_NOTICE", 0.02)
    monkeypatch.setattr(files, "LOCK_RENEWAL", 0.005)
    monkeypatch.setattr(files, "time", SimpleNamespace(monotonic=itertools.count(0, 50).__next__))
    assert files.LOCK_PATIENCE < 3 * 50
    touched_at, checks = files._touched_at, [0]
    held, waited, order = threading.Event(), threading.Event(), []

    def renewed_at(path: Path) -> int | None:
        while (found := touched_at(path)) == checks[-1] and thread.is_alive():
            time.sleep(0.001)
        checks.append(found or 0)
        if len(checks) > 10:
            waited.set()
        return found

    monkeypatch.setattr(files, "_touched_at", renewed_at)

    def hold() -> None:
        with Folder(tmp_path).lock("name"):
            held.set()
            waited.wait()
            order.append("released")

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    held.wait()
    with pytest.warns(CacheWarning, match="waiting"), Folder(tmp_path).lock("name"):
        order.append("acquired")
    thread.join()
    assert order == ["released", "acquired"]
