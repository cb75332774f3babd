"""A store of runs on disk: what lies where, which reading of a run counts, and what others see meanwhile."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qoderdata import files
from qoderdata.decode import from_records
from qoderdata.errors import CacheError, CacheWarning
from qoderdata.files import Folder
from qoderdata.frames import to_pandas
from qoderdata.load import caches
from qoderdata.load.caches import clear_stores, store_files
from qoderdata.outcomes import resolve_outcomes
from qoderdata.schema import RUNS, resolve_record
from qoderdata.store import RUNS_TABLE, JournalEntry, Listing, TableStore, dataset, journal, row_ids
from qoderdata.store.dataset import NO_DAY, is_day_within

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NOW = datetime(2026, 6, 15, tzinfo=UTC)
WHO = ("https://service.test", None, "someone")


def make(folder: Folder) -> TableStore:
    base_url, workspace_id, account = WHO
    return TableStore(folder, RUNS_TABLE, base_url=base_url, workspace_id=workspace_id, account=account)


def look(folder: Folder) -> TableStore:
    reader = make(folder)
    reader.load()
    return reader


def run(number: int, *, status: str = "completed", day: int | None = 14, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    at = None if day is None else f"2026-06-{day:02}T12:00:00Z"
    return {"id": f"drun_{number:03}", "status": status, "triggered_at": at, "created_at": at, **more}


def table(*runs: dict[str, Any]) -> pa.Table:
    return from_records(list(runs), RUNS)


def page(*runs: dict[str, Any], after: str | None = None, more: bool = False) -> JournalEntry:
    ids = tuple(one["id"] for one in runs)
    return JournalEntry(table(*runs), NOW, Listing(after, ids, ids[-1] if more else None))


def single(*runs: dict[str, Any], **facts: Any) -> JournalEntry:  # noqa: ANN401
    return JournalEntry(table(*runs) if runs else RUNS.arrow.empty_table(), NOW, **facts)


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    return make(Folder(tmp_path))


def put(store: TableStore, *entries: JournalEntry, compact: bool = True) -> None:
    with store.writer_lock():
        for entry in entries:
            store.add(entry)
        store.commit(compact=compact)


def stored(store: TableStore, column: str = "status", **bounds: Any) -> dict[str, Any]:  # noqa: ANN401
    found = store.read(**bounds)
    assert found.schema.equals(RUNS.arrow)
    return dict(zip(row_ids(found), found[column].to_pylist(), strict=True))


def lying(folder: Path) -> dict[str, list[str]]:
    """Return what a reader of the bare folder sees: the runs of each partition."""
    found: dict[str, list[str]] = {}
    for file in sorted(folder.glob("runs/*/data/*/*.parquet")):
        found.setdefault(file.parent.name, []).extend(row_ids(pq.ParquetFile(file).read(["id"])))
    return found


def names(folder: Path, pattern: str) -> list[str]:
    return sorted(file.name for file in folder.glob(f"runs/*/{pattern}"))


def test_runs_lie_in_the_partition_of_their_day(store: TableStore, tmp_path: Path) -> None:
    put(store, page(run(3), run(2, day=13), run(1, day=None)))
    assert lying(tmp_path) == {
        "day=2026-06-14": ["drun_003"],
        "day=2026-06-13": ["drun_002"],
        f"day={NO_DAY}": ["drun_001"],
    }
    assert list(stored(store)) == ["drun_003", "drun_002", "drun_001"]
    assert names(tmp_path, "journal/*") == []


def test_files_and_folders_are_private(store: TableStore, tmp_path: Path) -> None:
    put(store, page(run(1)))
    for path in (tmp_path / "runs").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("engine", ["duckdb", "polars", "pyarrow"])
def test_other_engines_read_the_data_set_as_it_lies(store: TableStore, engine: str) -> None:
    put(store, page(*(run(number, day=1 + number % 14) for number in range(60)), run(60, day=None)))
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


def test_what_ended_stays_and_what_is_open_is_replaced(store: TableStore, tmp_path: Path) -> None:
    put(store, page(run(3, status="running"), run(2, status="pending", day=None), run(1)))
    assert set(store.open_rows) == {"drun_003", "drun_002"}
    put(store, single(run(3, duration_ms=7), run(2, status="running", day=13), run(1, status="running")))
    assert stored(store) == {"drun_003": "completed", "drun_002": "running", "drun_001": "completed"}
    assert stored(store, "duration_ms")["drun_003"] == 7
    assert {name: known.day for name, known in store.open_rows.items()} == {"drun_002": "2026-06-13"}
    assert sorted(lying(tmp_path).items()) == [
        ("day=2026-06-13", ["drun_002"]),
        ("day=2026-06-14", ["drun_003", "drun_001"]),
    ]


@pytest.mark.parametrize(
    ("readings", "counts"),
    [
        (["running", "completed"], "completed"),
        (["completed", "running"], "completed"),
        (["pending", "running"], "running"),
        (["running", "pending"], "pending"),
    ],
)
def test_of_several_readings_that_wait_together_the_last_counts_but_no_run_opens_again(
    store: TableStore, readings: Iterable[str], counts: str
) -> None:
    put(store, *(single(run(1, status=status)) for status in readings))
    assert stored(store) == {"drun_001": counts}


@settings(max_examples=60, deadline=None)
@given(
    commits=st.lists(
        st.lists(
            st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["running", "completed", "failed"])), max_size=4)
        ),
        max_size=4,
    )
)
def test_whatever_is_read_again_counts_as_a_walk_over_the_readings_says(
    commits: list[list[list[tuple[int, str]]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Reading by reading: one of a run that ended replaces an open one; within a commit the last end counts."""
    store = make(Folder(tmp_path_factory.mktemp("store")))
    statuses: dict[str, str] = {}
    read_at: dict[str, datetime] = {}
    for commit in commits:
        together = dict(statuses)
        ended_before = {id_ for id_, status in statuses.items() if status != "running"}
        entries: list[JournalEntry] = []
        for read in commit:
            entry = replace(single(), read_at=NOW + timedelta(minutes=len(entries) + len(read_at)))
            rows = {f"drun_{number:03}": status for number, status in read}
            entries.append(replace(entry, table=table(*(run(int(id_[-3:]), status=rows[id_]) for id_ in rows))))
            for id_, status in rows.items():
                if id_ not in ended_before and (status != "running" or together.get(id_, "running") == "running"):
                    together[id_] = status
                    read_at[id_] = entry.read_at
        put(store, *entries)
        statuses = together
    assert stored(store) == statuses
    known = {id_: one.read_at for id_, one in store.open_rows.items()}
    assert known == {id_: read_at[id_] for id_, status in statuses.items() if status == "running"}


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
def test_which_runs_are_open(store: TableStore, record: dict[str, Any], *, is_open: bool) -> None:
    """A status that newer editions may add is taken as an end where the run has one."""
    put(store, page(record))
    assert bool(store.open_rows) is is_open


@pytest.mark.parametrize("triggered", [None, "2026-06-13T23:59:50Z", "2026-06-15T00:00:01Z"])
def test_a_run_that_another_edition_puts_on_another_day_is_stored_once(
    store: TableStore, tmp_path: Path, triggered: str | None
) -> None:
    """The newest edition does not tell when a run was triggered, nor what became of it."""
    put(store, page(run(1) | {"triggered_at": triggered}))
    record = {"id": "drun_001", "session_id": "sess_1", "created_at": "2026-06-14T00:00:02Z"}
    put(store, JournalEntry(RUNS_TABLE.resolve(table(record)), NOW))
    assert stored(store) == {"drun_001": "completed"}
    assert sum(map(len, lying(tmp_path).values())) == 1


def test_a_run_that_is_gone_stays_and_is_no_longer_asked_for(store: TableStore) -> None:
    put(store, page(run(1, status="running")))
    put(store, single(gone=("drun_001",)))
    assert stored(store) == {"drun_001": "running"}
    assert store.open_rows == {}


def test_open_runs_of_a_time(store: TableStore) -> None:
    put(
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
def test_which_partitions_a_time_needs(day: str, since: str | None, until: str | None, *, within: bool) -> None:
    bounds = [None if bound is None else datetime.fromisoformat(bound) for bound in (since, until)]
    assert is_day_within(day, since=bounds[0], until=bounds[1], undated=False) is within


def test_files_are_those_of_the_time_and_all_together(store: TableStore) -> None:
    put(store, page(run(3), run(2, day=13), run(1, day=None)))
    days = [file.split("day=")[1][:10] for file in store.files(until=datetime(2026, 6, 14, 1, tzinfo=UTC))]
    assert days == ["2026-06-14", "2026-06-13"]
    assert len(store.files()) == 3
    assert stored(store, since=datetime(2026, 6, 14, tzinfo=UTC)) == {"drun_003": "completed"}


def test_a_day_has_one_file_after_compaction(store: TableStore, tmp_path: Path) -> None:
    for number in range(5):
        put(store, page(run(number)), compact=False)
    assert len(names(tmp_path, "data/*/*")) == 5
    put(store)
    assert len(names(tmp_path, "data/*/*")) == 1
    assert len(stored(store)) == 5


def test_a_day_of_very_many_runs_is_left_with_a_few_files(
    store: TableStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "_SMALL", 3)
    for number in range(12):
        put(store, page(run(number)))
        assert len(names(tmp_path, "data/*/*")) <= dataset._FEW
    assert len(stored(store)) == 12


def test_a_full_journal_is_committed_on_the_way(
    store: TableStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_FULL_ROWS", 4)
    with store.writer_lock():
        store.add(page(run(5), run(4), more=True))
        assert len(names(tmp_path, "journal/*.arrow")) == 1
        store.add(page(run(3), run(2), after="drun_004", more=True))
        assert names(tmp_path, "journal/*") == []
        assert len(lying(tmp_path)["day=2026-06-14"]) == 4


def test_what_a_killed_pull_left_is_recovered(store: TableStore, tmp_path: Path) -> None:
    with store.writer_lock():
        store.add(page(run(2), more=True))
    other = make(Folder(tmp_path))
    other.load()
    assert not other.exists
    other.recover()
    assert stored(other) == {"drun_002": "completed"}
    assert other.coverage.cursor == "drun_002"
    assert names(tmp_path, "journal/*") == []


def test_an_answer_that_cannot_be_read_is_one_that_never_came(store: TableStore, tmp_path: Path) -> None:
    with store.writer_lock():
        store.add(page(run(3), more=True))
        store.add(page(run(2), after="drun_003", more=True))
        store.add(page(run(1), after="drun_002"))
    sorted(tmp_path.glob("runs/*/journal/*"))[1].write_bytes(b"torn")
    other = make(Folder(tmp_path))
    other.recover()
    assert list(stored(other)) == ["drun_003", "drun_001"]
    assert other.coverage.cursor == "drun_003"
    assert names(tmp_path, "journal/*") == []


def test_leftovers_of_a_commit_that_was_cut_off_are_removed(store: TableStore, tmp_path: Path) -> None:
    """Also of one that only joins files, so that no response is left in the journal."""
    for number in (1, 2):
        put(store, page(run(number), more=True), compact=False)

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, store.writer_lock():
        patch.setattr("qoderdata.store.manifest.write_manifest", cut_off)
        with pytest.raises(KeyboardInterrupt):
            store.commit(compact=True)
    (data,) = tmp_path.glob("runs/*/data/*")
    (data / ".half.parquet.1-ab.tmp").write_bytes(b"PAR1")
    assert len(lying(tmp_path)["day=2026-06-14"]) == 4
    make(Folder(tmp_path)).recover()
    assert sorted(lying(tmp_path)["day=2026-06-14"]) == ["drun_001", "drun_002"]
    assert names(tmp_path, "**/*.tmp") == []


def test_on_an_object_store_a_new_file_that_no_manifest_names_may_be_another_writers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("fsspec")
    folder = Folder("memory://store-leftovers")
    store = make(folder)
    put(store, page(run(1)))
    for name in ("20260615T000000-ab.parquet", "20260615T020000-cd.parquet"):
        store.folder.replace(f"data/day=2026-06-14/{name}", lambda sink: sink.write(b"PAR1"))
    monkeypatch.setattr(dataset, "_is_old", lambda name: name < "20260615T010000")
    store._dataset.remove_unlisted(store._manifest.files)
    left = [info.base_name for info in store.folder.files("data")]
    assert len(left) == 2
    assert "20260615T020000-cd.parquet" in left
    clear_stores(folder)


def test_a_reader_in_the_middle_of_a_commit_begins_anew(store: TableStore, tmp_path: Path) -> None:
    """It had read the manifest; then another process replaced the files that it names."""
    put(store, page(run(1, status="running")))
    reader = look(Folder(tmp_path))
    put(store, single(run(1)))
    assert stored(reader) == {"drun_001": "completed"}


def test_a_reader_does_not_take_a_cleared_store_for_an_empty_one(store: TableStore, tmp_path: Path) -> None:
    put(store, page(run(1)))
    reader = look(Folder(tmp_path))
    clear_stores(Folder(tmp_path))
    with pytest.raises(CacheError, match="gone or damaged"):
        reader.read()


def test_who_wants_to_pull_waits_for_who_pulls(
    store: TableStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_NOTICE", 60)  # else a slow disk makes it warn, in the other thread
    other, order = make(Folder(tmp_path)), []

    def pull() -> None:
        with other.writer_lock():
            order.append(f"second finds {len(other.read())}")

    with store.writer_lock():
        thread = threading.Thread(target=pull)
        thread.start()
        store.add(page(run(1)))
        looking = make(Folder(tmp_path))
        looking.recover()
        assert not looking.exists
        store.commit()
        order.append("first is done")
    thread.join()
    assert order == ["first is done", "second finds 1"]


def test_two_writers_without_a_lock_claim_nothing_false() -> None:
    """On an object store the last manifest counts; a page of the other writer's leg fits nowhere."""
    pytest.importorskip("fsspec")
    folder = Folder("memory://store-two-writers")
    one, two = make(folder), make(folder)
    with one.writer_lock(), two.writer_lock():
        one.add(page(run(9), run(8), more=True))
        two.add(page(run(9), more=True))
        two.commit()
        one.add(page(run(7), run(6), after="drun_008", more=True))
        one.commit()
        two.add(page(run(8), after="drun_009", more=True))
        two.commit(compact=True)
    reader = look(folder)
    assert list(stored(reader)) == ["drun_009", "drun_008", "drun_007", "drun_006"]
    assert reader.coverage.cursor in {"drun_006", "drun_008"}
    clear_stores(folder)


def test_a_folder_that_cannot_be_written_keeps_all_in_memory(store: TableStore, tmp_path: Path) -> None:
    """What was stored before is still read, each run once; and what ended there stays so."""
    put(store, page(run(2, status="running"), run(1)))
    other = make(Folder(tmp_path))
    lock = next(tmp_path.glob("runs/*.lock"))
    lock.unlink()
    lock.mkdir()
    with pytest.warns(CacheWarning, match="the runs are not kept"):
        put(other, page(run(3), run(2), run(1, status="running"), more=True))
    other.commit()
    other.drop_last_cursor()
    assert stored(other, since=datetime(2026, 6, 1, tzinfo=UTC)) == {
        "drun_003": "completed",
        "drun_002": "completed",
        "drun_001": "completed",
    }
    assert lying(tmp_path) == {"day=2026-06-14": ["drun_002", "drun_001"]}


def test_usage_and_clear(store: TableStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store_files(Folder(tmp_path), RUNS_TABLE) == []
    assert clear_stores(Folder(tmp_path)) == 0
    put(store, page(run(3, status="running"), run(2, day=13), run(1)))
    ((account, files),) = store_files(Folder(tmp_path), RUNS_TABLE)
    sizes = {str(file): file.stat().st_size for file in tmp_path.glob("runs/*/**/*.*") if file.is_file()}
    assert len(sizes) == 3
    assert {info.path: info.size for info in files} == sizes
    assert tuple(account.values()) == WHO
    monkeypatch.setattr(caches, "_CLEAR_SECONDS", 0)
    with store.writer_lock(), pytest.raises(CacheError, match="a process is pulling runs into it"):
        clear_stores(Folder(tmp_path))
    assert clear_stores(Folder(tmp_path)) == 3
    assert store_files(Folder(tmp_path), RUNS_TABLE) == []
    assert lying(tmp_path) == {}


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_record_alone_says_the_same_to_the_store_and_to_the_rules(data: st.DataObject) -> None:
    """The store fills pages as they come, in Arrow; `resolve_outcomes` is where the rules stand."""
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
