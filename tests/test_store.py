"""The store of runs on disk: what lies where, which reading of a run counts, and what others see meanwhile."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from qoderdata.errors import CacheError, CacheWarning
from qoderdata.files import Folder
from qoderdata.frame import from_records
from qoderdata.schema import RUNS
from qoderdata.store import Listing, Reading, RunReader, RunStore, clear, inbox, stores, upkeep, usage
from qoderdata.store.partitions import NO_DAY, ids, is_within

if TYPE_CHECKING:
    from collections.abc import Iterable

NOW = datetime(2026, 6, 15, tzinfo=UTC)
WHO = ("https://service.test", None, "someone")


def make(folder: Folder) -> RunStore:
    base_url, workspace_id, account = WHO
    return RunStore(folder, base_url=base_url, workspace_id=workspace_id, account=account)


def look(folder: Folder) -> RunReader:
    base_url, workspace_id, account = WHO
    reader = RunReader(folder, base_url=base_url, workspace_id=workspace_id, account=account)
    reader.load()
    return reader


def run(number: int, *, status: str = "completed", day: int | None = 14, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    at = None if day is None else f"2026-06-{day:02}T12:00:00Z"
    return {"id": f"drun_{number:03}", "status": status, "triggered_at": at, "created_at": at, **more}


def table(*runs: dict[str, Any]) -> pa.Table:
    return from_records(list(runs), RUNS)


def page(*runs: dict[str, Any], after: str | None = None, more: bool = False) -> tuple[Reading, pa.Table]:
    ids = tuple(one["id"] for one in runs)
    return Reading(NOW, Listing(after, ids, ids[-1] if more else None)), table(*runs)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return make(Folder(tmp_path))


def put(store: RunStore, *answers: tuple[Reading, pa.Table], compact: bool = True) -> None:
    with store.pulling():
        for answer in answers:
            store.add(*answer)
        store.fold(compact=compact)


def stored(store: RunReader, column: str = "status", **bounds: Any) -> dict[str, Any]:  # noqa: ANN401
    found = store.read(**bounds)
    assert found.schema.equals(RUNS.arrow)
    return dict(zip(ids(found), found[column].to_pylist(), strict=True))


def lying(folder: Path) -> dict[str, list[str]]:
    """Give what a reader of the bare folder sees: the runs of each partition."""
    found: dict[str, list[str]] = {}
    for file in sorted(folder.glob("runs/*/data/*/*.parquet")):
        found.setdefault(file.parent.name, []).extend(ids(pq.ParquetFile(file).read(["id"])))
    return found


def names(folder: Path, pattern: str) -> list[str]:
    return sorted(file.name for file in folder.glob(f"runs/*/{pattern}"))


def test_runs_lie_in_the_partition_of_their_day(store: RunStore, tmp_path: Path) -> None:
    put(store, page(run(3), run(2, day=13), run(1, day=None)))
    assert lying(tmp_path) == {
        "day=2026-06-14": ["drun_003"],
        "day=2026-06-13": ["drun_002"],
        f"day={NO_DAY}": ["drun_001"],
    }
    assert list(stored(store)) == ["drun_003", "drun_002", "drun_001"]
    assert names(tmp_path, "inbox/*") == []


def test_files_and_folders_are_private(store: RunStore, tmp_path: Path) -> None:
    put(store, page(run(1)))
    for path in (tmp_path / "runs").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("engine", ["duckdb", "polars", "pyarrow"])
def test_other_engines_read_the_data_set_as_it_lies(store: RunStore, engine: str) -> None:
    put(store, page(*(run(number, day=1 + number % 14) for number in range(60)), run(60, day=None)))
    folder = store.folder.full("data")
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


def test_what_ended_stays_and_what_is_open_is_replaced(store: RunStore, tmp_path: Path) -> None:
    put(store, page(run(3, status="running"), run(2, status="pending", day=None), run(1)))
    assert set(store.open_runs) == {"drun_003", "drun_002"}
    later = (
        Reading(NOW),
        table(run(3, duration_ms=7), run(2, status="running", day=13), run(1, status="running")),
    )
    put(store, later)
    assert stored(store) == {"drun_003": "completed", "drun_002": "running", "drun_001": "completed"}
    assert stored(store, "duration_ms")["drun_003"] == 7
    assert {name: known.day for name, known in store.open_runs.items()} == {"drun_002": "2026-06-13"}
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
    store: RunStore, readings: Iterable[str], counts: str
) -> None:
    put(store, *((Reading(NOW), table(run(1, status=status))) for status in readings))
    assert stored(store) == {"drun_001": counts}


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
def test_which_runs_are_open(store: RunStore, record: dict[str, Any], *, is_open: bool) -> None:
    """A status that newer editions may add is taken as an end where the run has one."""
    put(store, page(record))
    assert bool(store.open_runs) is is_open


def test_a_run_that_is_gone_stays_and_is_no_longer_asked_for(store: RunStore) -> None:
    put(store, page(run(1, status="running")))
    put(store, (Reading(NOW, gone=("drun_001",)), RUNS.arrow.empty_table()))
    assert stored(store) == {"drun_001": "running"}
    assert store.open_runs == {}


def test_open_runs_of_a_time(store: RunStore) -> None:
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
    assert is_within(day, since=bounds[0], until=bounds[1], undated=False) is within


def test_files_are_those_of_the_time_and_all_together(store: RunStore) -> None:
    put(store, page(run(3), run(2, day=13), run(1, day=None)))
    days = [file.split("day=")[1][:10] for file in store.files(until=datetime(2026, 6, 14, 1, tzinfo=UTC))]
    assert days == ["2026-06-14", "2026-06-13"]
    assert len(store.files()) == 3
    assert stored(store, since=datetime(2026, 6, 14, tzinfo=UTC)) == {"drun_003": "completed"}


def test_a_day_has_one_file_after_compaction(store: RunStore, tmp_path: Path) -> None:
    for number in range(5):
        put(store, page(run(number)), compact=False)
    assert len(names(tmp_path, "data/*/*")) == 5
    put(store)
    assert len(names(tmp_path, "data/*/*")) == 1
    assert len(stored(store)) == 5


def test_a_day_of_very_many_runs_is_left_with_a_few_files(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_SMALL", 3)
    for number in range(12):
        put(store, page(run(number)))
        assert len(names(tmp_path, "data/*/*")) <= upkeep._FEW
    assert len(stored(store)) == 12


def test_a_full_inbox_is_folded_on_the_way(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "_FULL_ROWS", 4)
    with store.pulling():
        store.add(*page(run(5), run(4), more=True))
        assert len(names(tmp_path, "inbox/*.arrow")) == 1
        store.add(*page(run(3), run(2), after="drun_004", more=True))
        assert names(tmp_path, "inbox/*") == []
        assert len(lying(tmp_path)["day=2026-06-14"]) == 4


def test_what_a_killed_pull_left_is_taken_over(store: RunStore, tmp_path: Path) -> None:
    with store.pulling():
        store.add(*page(run(2), more=True))
    other = make(Folder(tmp_path))
    other.load()
    assert not other.exists
    other.take_over()
    assert stored(other) == {"drun_002": "completed"}
    assert other.coverage.cursor == "drun_002"
    assert names(tmp_path, "inbox/*") == []


def test_an_answer_that_cannot_be_read_is_one_that_never_came(store: RunStore, tmp_path: Path) -> None:
    with store.pulling():
        store.add(*page(run(3), more=True))
        store.add(*page(run(2), after="drun_003", more=True))
        store.add(*page(run(1), after="drun_002"))
    sorted(tmp_path.glob("runs/*/inbox/*"))[1].write_bytes(b"torn")
    other = make(Folder(tmp_path))
    other.take_over()
    assert list(stored(other)) == ["drun_003", "drun_001"]
    assert other.coverage.cursor == "drun_003"
    assert names(tmp_path, "inbox/*") == []


def test_leftovers_of_a_fold_that_was_cut_off_are_removed(store: RunStore, tmp_path: Path) -> None:
    put(store, page(run(1)))
    (data,) = tmp_path.glob("runs/*/data/*")
    (data / "orphan.parquet").write_bytes((next(data.glob("*.parquet"))).read_bytes())
    (data / ".half.parquet.1-ab.tmp").write_bytes(b"PAR1")
    (data.parent.parent / "inbox" / "folding").touch()
    make(Folder(tmp_path)).take_over()
    assert lying(tmp_path) == {"day=2026-06-14": ["drun_001"]}
    assert names(tmp_path, "**/*.tmp") == []


def test_on_an_object_store_a_new_file_that_no_manifest_names_may_be_another_writers() -> None:
    pytest.importorskip("fsspec")
    folder = Folder("memory://store-leftovers")
    store = make(folder)
    put(store, page(run(1)))
    for name in ("20260615T000000-ab.parquet", "20260615T020000-cd.parquet"):
        store.folder.replace(f"data/day=2026-06-14/{name}", lambda sink: sink.write(b"PAR1"))
    upkeep.sweep(store.folder, store._manifest.files, before=datetime(2026, 6, 15, 1, tzinfo=UTC))
    left = [info.base_name for info in store.folder.files("data")]
    assert len(left) == 2
    assert "20260615T020000-cd.parquet" in left
    clear(folder)


def test_a_reader_in_the_middle_of_a_fold_begins_anew(store: RunStore, tmp_path: Path) -> None:
    """It had read the manifest; then another process replaced the files that it names."""
    put(store, page(run(1, status="running")))
    reader = look(Folder(tmp_path))
    put(store, (Reading(NOW), table(run(1))))
    assert stored(reader) == {"drun_001": "completed"}


def test_a_reader_does_not_take_a_cleared_store_for_an_empty_one(store: RunStore, tmp_path: Path) -> None:
    put(store, page(run(1)))
    reader = look(Folder(tmp_path))
    clear(Folder(tmp_path))
    with pytest.raises(CacheError, match="gone or damaged"):
        reader.read()


def test_who_wants_to_pull_waits_for_who_pulls(store: RunStore, tmp_path: Path) -> None:
    other, order = make(Folder(tmp_path)), []

    def pull() -> None:
        with other.pulling():
            order.append(f"second finds {other.runs}")

    with store.pulling():
        thread = threading.Thread(target=pull)
        thread.start()
        store.add(*page(run(1)))
        looking = make(Folder(tmp_path))
        looking.take_over()
        assert not looking.exists
        store.fold()
        order.append("first is done")
    thread.join()
    assert order == ["first is done", "second finds 1"]


def test_two_writers_without_a_lock_claim_nothing_false() -> None:
    """On an object store the last manifest counts; a page of the other writer's leg fits nowhere."""
    pytest.importorskip("fsspec")
    folder = Folder("memory://store-two-writers")
    one, two = make(folder), make(folder)
    with one.pulling(), two.pulling():
        one.add(*page(run(9), run(8), more=True))
        two.add(*page(run(9), more=True))
        two.fold()
        one.add(*page(run(7), run(6), after="drun_008", more=True))
        one.fold()
        two.add(*page(run(8), after="drun_009", more=True))
        two.fold(compact=True)
    reader = look(folder)
    assert list(stored(reader)) == ["drun_009", "drun_008", "drun_007", "drun_006"]
    assert reader.coverage.cursor in {"drun_006", "drun_008"}
    clear(folder)


def test_a_folder_that_cannot_be_written_keeps_all_in_memory(store: RunStore, tmp_path: Path) -> None:
    """What was stored before is still read, each run once; and what ended there stays so."""
    put(store, page(run(2, status="running"), run(1)))
    other = make(Folder(tmp_path))
    lock = next(tmp_path.glob("runs/*.lock"))
    lock.unlink()
    lock.mkdir()
    with pytest.warns(CacheWarning, match="the runs are not kept"):
        put(other, page(run(3), run(2), run(1, status="running"), more=True))
    other.fold()
    other.retreat()
    assert stored(other, since=datetime(2026, 6, 1, tzinfo=UTC)) == {
        "drun_003": "completed",
        "drun_002": "completed",
        "drun_001": "completed",
    }
    assert lying(tmp_path) == {"day=2026-06-14": ["drun_002", "drun_001"]}


def test_usage_and_clear(store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usage(Folder(tmp_path)) == []
    assert clear(Folder(tmp_path)) == 0
    put(store, page(run(3, status="running"), run(2, day=13), run(1)))
    (known,) = usage(Folder(tmp_path))
    assert (known.runs, known.open_runs, known.files, known.whole, known.read_at) == (3, 1, 3, True, NOW)
    assert known.size == sum(file.stat().st_size for file in Path(known.location).rglob("*.*") if file.is_file())
    assert (known.base_url, known.workspace_id, known.account) == WHO
    monkeypatch.setattr(stores, "_PATIENCE_SECONDS", 0)
    with store.pulling(), pytest.raises(CacheError, match="a process is pulling runs into it"):
        clear(Folder(tmp_path))
    assert clear(Folder(tmp_path)) == 3
    assert usage(Folder(tmp_path)) == []
    assert lying(tmp_path) == {}
