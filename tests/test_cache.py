"""A kept answer is the answer, whole, or it counts as absent; and a cache that cannot be used costs a warning."""

from __future__ import annotations

import errno
import os
import threading
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from qoderdata import cache
from qoderdata.decode import from_records
from qoderdata.errors import CacheWarning
from qoderdata.files import Folder
from qoderdata.schema import DEPLOYMENTS, RUNS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FETCHED_AT = datetime(2026, 6, 15, 1, 30, 20, 123456, tzinfo=UTC)
NAME = "deployments-0123456789abcdef01234567.parquet"

#: Hostile in what it holds: every missing and every extreme value, and text that looks like the cache's own.
RECORDS: list[dict[str, Any]] = [
    {"id": "dep_1", "name": "crc32:00000000", "description": "\x00 \U0001f680 报告", "vault_ids": []},
    {"id": "dep_2", "created_at": "2026-06-14T08:58:17.13334Z", "agent": {"version": 2**63 - 1}},
    {"id": "dep_3", "created_at": "1900-01-01T00:00:00Z", "agent": {"version": -(2**63)}, "vault_ids": ["crc32:"]},
    {"id": "dep_4", "schedule": {"upcoming_runs_at": ["2026-06-15T01:00:00Z"]}, "metadata": {"qoderdata": "1"}},
    {"id": "dep_5", "schedule": {"upcoming_runs_at": []}, "resources": [{}], "new": {"field": [1]}},
]


@pytest.fixture(scope="module")
def answer() -> cache.CachedTable:
    return cache.CachedTable(from_records(RECORDS, DEPLOYMENTS), FETCHED_AT)


@pytest.fixture(params=["local", "url"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    """Return a folder that is not there yet."""
    yield Folder(tmp_path / "cache" / "queries" if request.param == "local" else "memory://cache/queries")
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture
def local(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "cache" / "queries")


def path_of(folder: Folder) -> Path:
    return Path(folder.path_of(NAME))


def read(folder: Folder) -> cache.CachedTable | None:
    return cache.read(folder, NAME, DEPLOYMENTS.arrow)


def same(one: cache.CachedTable | None, other: cache.CachedTable) -> bool:
    return one is not None and bool(one.table.equals(other.table)) and one.fetched_at == other.fetched_at


# -- the name ------------------------------------------------------------------------------------------------


QUERY: dict[str, object] = {
    "base_url": "https://api.qoder.com",
    "workspace": None,
    "account": "a1",
    "status": "active",
}


def test_the_same_call_has_the_same_file() -> None:
    assert cache.file_name("deployments", QUERY) == cache.file_name("deployments", dict(reversed(QUERY.items())))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("runs", {}),
        ("deployments", {"base_url": "https://api.qoder.com.cn"}),
        ("deployments", {"workspace": "ws_1"}),
        ("deployments", {"workspace": "null"}),
        ("deployments", {"account": "a2"}),
        ("deployments", {"status": "paused"}),
        ("deployments", {"agent_id": "active"}),
        ("deployments", {"status": 'active", "agent_id": "x'}),
    ],
)
def test_another_call_has_another_file(kind: str, change: dict[str, str]) -> None:
    assert cache.file_name(kind, QUERY | change) != cache.file_name("deployments", QUERY)


@given(st.dictionaries(st.text(), st.text() | st.none()))
def test_a_name_is_a_name_whatever_is_asked(query: dict[str, str | None]) -> None:
    """What callers write is hostile too: no path, no secret, nothing that a file system does not take."""
    name = cache.file_name("deployments", query)
    digest = name.removeprefix("deployments-").removesuffix(".parquet")
    assert len(digest) == 24
    assert set(digest) <= set("0123456789abcdef")


# -- what is kept --------------------------------------------------------------------------------------------


def test_what_is_written_is_read(folder: Folder, answer: cache.CachedTable) -> None:
    assert read(folder) is None
    cache.write(folder, NAME, answer)
    assert same(read(folder), answer)


@pytest.mark.parametrize("schema", [DEPLOYMENTS, RUNS], ids=lambda schema: schema.name)
def test_an_empty_answer_is_an_answer(folder: Folder, schema: Any) -> None:  # noqa: ANN401 - either
    empty = cache.CachedTable(schema.arrow.empty_table(), FETCHED_AT)
    cache.write(folder, NAME, empty)
    found = cache.read(folder, NAME, schema.arrow)
    assert same(found, empty)


def test_the_later_answer_replaces_the_earlier(folder: Folder, answer: cache.CachedTable) -> None:
    cache.write(folder, NAME, answer)
    later = cache.CachedTable(answer.table.slice(2), FETCHED_AT + timedelta(seconds=1))
    cache.write(folder, NAME, later)
    assert same(read(folder), later)
    assert len(folder.parquet_files()) == 1


values = st.fixed_dictionaries(
    {"id": st.text(max_size=8)},
    optional={
        "name": st.none() | st.text(max_size=30),
        "agent": st.fixed_dictionaries({"version": st.integers(-(2**70), 2**70)}),
        "created_at": st.datetimes(timezones=st.just(UTC)),
        "vault_ids": st.lists(st.text(max_size=3), max_size=3),
        "schedule": st.fixed_dictionaries({"upcoming_runs_at": st.lists(st.datetimes(timezones=st.just(UTC)))}),
        "metadata": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
        "unknown": st.floats(allow_nan=False, allow_infinity=False),
    },
)


@settings(max_examples=60, deadline=None)
@given(records=st.lists(values, max_size=20, unique_by=lambda record: str(record["id"])), at=st.datetimes())
def test_any_answer_is_read_as_it_was_written(records: list[dict[str, Any]], at: datetime) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of the integers do not fit
        table = from_records(records, DEPLOYMENTS)
    given_answer = cache.CachedTable(table, at.replace(tzinfo=UTC))
    folder = Folder("memory://property")
    cache.write(folder, NAME, given_answer)
    assert same(read(folder), given_answer)


def test_other_tools_read_the_file_where_it_lies(local: Folder, answer: cache.CachedTable) -> None:
    cache.write(local, NAME, answer)
    path = path_of(local)
    assert pq.read_table(path).equals(answer.table)
    assert pd.read_parquet(path)["id"].tolist() == [record["id"] for record in RECORDS]
    found = duckdb.execute("select name from read_parquet(?) limit 1", [str(path)]).fetchall()
    assert found == [("crc32:00000000",)]


def test_it_is_the_users_alone(local: Folder, answer: cache.CachedTable, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        cache.write(local, NAME, answer)
    finally:
        os.umask(old)
    found = {path.relative_to(tmp_path).as_posix(): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert found == {"cache": 0o700, "cache/queries": 0o700, f"cache/queries/{NAME}": 0o600}


# -- what counts as absent -----------------------------------------------------------------------------------


@pytest.fixture
def content(local: Folder, answer: cache.CachedTable) -> bytes:
    cache.write(local, NAME, answer)
    return path_of(local).read_bytes()


def is_absent(folder: Folder) -> bool:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read(folder)
    return found is None and [warning.category for warning in caught] == [CacheWarning]


def test_no_changed_bit_goes_unseen(local: Folder, content: bytes) -> None:
    """Parquet's own checksums are of the pages; a bit in the footer can change the values, the time, the rows."""
    path = path_of(local)
    unseen = []
    for place in range(len(content)):
        if place % 5 and place < len(content) - 64:
            continue
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        if not is_absent(local):
            unseen.append(place)
    assert unseen == []
    path.write_bytes(content)
    assert read(local) is not None


def test_no_truncation_goes_unseen(local: Folder, content: bytes) -> None:
    lengths = {0, 1, 3, 4, 7, 8, 11, 12, len(content) - 1, *range(0, len(content), 97)}
    for length in lengths:
        path_of(local).write_bytes(content[:length])
        assert is_absent(local), length


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content + b"\0",
        lambda content: content + content,
        lambda content: content[::-1],
        lambda content: bytes(len(content)),
        lambda _: b"PAR1" + b"\xff" * 8 + b"PAR1",
        lambda content: content.replace(b"crc32:", b"crc32;"),
        lambda _: b"<html>Sign in</html>",
        lambda _: b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_rubbish_counts_as_absent(local: Folder, content: bytes, damage: Callable[[bytes], bytes]) -> None:
    path_of(local).write_bytes(damage(content))
    assert is_absent(local)


def test_another_format_counts_as_absent(
    local: Folder, answer: cache.CachedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one of a later version of this package, which may be installed elsewhere."""
    for number in (cache.FORMAT - 1, cache.FORMAT + 1):
        with monkeypatch.context() as patch:
            patch.setattr(cache, "FORMAT", number)
            cache.write(local, NAME, answer)
        with pytest.warns(CacheWarning, match="counts as absent: it is of another format"):
            assert read(local) is None


def test_other_columns_or_types_count_as_absent(local: Folder, answer: cache.CachedTable) -> None:
    table = answer.table
    agent_version = table.schema.get_field_index("agent_version")
    for other in (
        table.drop_columns(["extra"]),
        table.append_column("more", table["id"]),
        table.select(list(reversed(table.column_names))),
        table.set_column(agent_version, "agent_version", table["agent_version"].cast(pa.float64(), safe=False)),
        RUNS.arrow.empty_table(),
    ):
        cache.write(local, NAME, replace(answer, table=other))
        with pytest.warns(CacheWarning, match="counts as absent: it is of another format"):
            assert read(local) is None


def test_a_file_under_another_accounts_name_counts_as_absent(local: Folder, answer: cache.CachedTable) -> None:
    """Its content belongs to whoever asked for it first."""
    cache.write(local, NAME, answer)
    other = cache.file_name("deployments", QUERY | {"account": "another"})
    Path(local.path_of(NAME)).rename(local.path_of(other))
    with pytest.warns(CacheWarning, match="another query or account"):
        assert cache.read(local, other, DEPLOYMENTS.arrow) is None


def test_a_parquet_file_that_is_not_ours_counts_as_absent(local: Folder, answer: cache.CachedTable) -> None:
    cache.write(local, NAME, answer)
    pq.write_table(answer.table, path_of(local))
    with pytest.warns(CacheWarning, match="counts as absent: it is damaged or of another format") as caught:
        assert read(local) is None
    assert NAME in str(caught[0].message)
    assert caught[0].filename == __file__, "the warning points to who called"


def test_a_folder_in_the_place_of_the_file_counts_as_absent(local: Folder) -> None:
    path_of(local).mkdir(parents=True)
    assert is_absent(local)


# -- what cannot be kept -------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "/inner", "/inner/deep"])
def test_a_file_in_the_way_of_the_folder_costs_one_warning(
    tmp_path: Path, answer: cache.CachedTable, below: str
) -> None:
    (tmp_path / "file").write_text("the user's own")
    folder = Folder(f"{tmp_path}/file{below}")
    assert read(folder) is None
    with pytest.warns(CacheWarning, match=r"cannot be written \(.*QODERDATA_CACHE_DIR") as caught:
        cache.write(folder, NAME, answer)
    assert len(caught) == 1
    assert (tmp_path / "file").read_text() == "the user's own"


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


STEPS = [
    (os, "open"),
    (os, "fsync"),
    (Path, "replace"),
    (pa, "OSFile"),
    (pq, "ParquetWriter"),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[1])
@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("no number"),
        pa.ArrowInvalid("no such encoding"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_write_that_fails_leaves_the_old_file(
    local: Folder,
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
    *,
    step: tuple[Any, str],
    error: Exception,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*step, failing(error))
        with pytest.warns(CacheWarning, match="the answer was not cached"):
            cache.write(local, NAME, cache.CachedTable(DEPLOYMENTS.arrow.empty_table(), FETCHED_AT))
    assert [path.name for path in path_of(local).parent.iterdir()] == [NAME]
    assert path_of(local).read_bytes() == content


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[1])
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_write_leaves_the_old_file(
    local: Folder,
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
    *,
    step: tuple[Any, str],
    interruption: type[BaseException],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*step, failing(interruption()))
        with pytest.raises(interruption):
            cache.write(local, NAME, cache.CachedTable(DEPLOYMENTS.arrow.empty_table(), FETCHED_AT))
    assert [path.name for path in path_of(local).parent.iterdir()] == [NAME]
    assert path_of(local).read_bytes() == content


class OddStoreError(Exception):
    """Stands for what an object store's own library raises; many are no `OSError`."""


def test_an_object_store_that_fails_in_its_own_way_costs_a_warning(
    answer: cache.CachedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder("memory://odd/queries")
    cache.write(folder, NAME, answer)
    for way in ("_open", "cat_file", "pipe_file"):
        monkeypatch.setattr(MemoryFileSystem, way, failing(OddStoreError("no credentials")))
    with pytest.warns(CacheWarning, match=r"cannot be written \(.*no credentials\)"):
        cache.write(folder, NAME, answer)
    with pytest.warns(CacheWarning, match="counts as absent: .*no credentials"):
        assert read(folder) is None


# -- the folder ----------------------------------------------------------------------------------------------


def test_entries_are_whole_files(local: Folder, answer: cache.CachedTable) -> None:
    assert local.parquet_files() == []
    names = [f"deployments-{number:024x}.parquet" for number in range(3)]
    for name in names:
        cache.write(local, name, answer)
    stray = Path(local.path) / f".{NAME}.1234-abcdef01.tmp"
    stray.write_bytes(b"half of")
    (Path(local.path) / "notes.txt").write_text("the user's own")
    paths = [Path(local.path_of(name)) for name in names]
    found = sorted((info.path, info.size) for info in local.parquet_files())
    assert found == [(path.as_posix(), path.stat().st_size) for path in paths]


def test_clearing_takes_what_is_the_caches_own(folder: Folder, answer: cache.CachedTable) -> None:
    assert folder.clear() == 0
    for number in range(3):
        cache.write(folder, f"deployments-{number:024x}.parquet", answer)
    assert folder.clear() == 3
    assert folder.parquet_files() == []
    assert folder.clear() == 0


def test_clearing_takes_what_killed_processes_left(local: Folder, answer: cache.CachedTable) -> None:
    """Half of a file has half of the records, which the user wants to be gone."""
    cache.write(local, NAME, answer)
    below = Path(local.path)
    (below / f".{NAME}.1234-abcdef01.tmp").write_bytes(b"half of")
    (below / "notes.txt").write_text("the user's own")
    assert local.clear() == 1
    assert [path.name for path in below.iterdir()] == ["notes.txt"]


def test_clearing_while_another_process_writes_harms_neither(
    local: Folder, answer: cache.CachedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def clear_meanwhile(descriptor: int) -> None:
        fsync(descriptor)
        local.clear()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", clear_meanwhile)
        with pytest.warns(CacheWarning, match="the answer was not cached"):
            cache.write(local, NAME, answer)
    assert not Path(local.path).exists()
    cache.write(local, NAME, answer)
    assert same(read(local), answer)


def test_readers_see_the_old_answer_or_the_new_one(local: Folder, answer: cache.CachedTable) -> None:
    answers = [
        cache.CachedTable(answer.table.slice(number), FETCHED_AT + timedelta(days=number)) for number in range(3)
    ]
    cache.write(local, NAME, answers[0])

    def write_all() -> None:
        for number in range(30):
            cache.write(local, NAME, answers[number % 3])

    writers = [threading.Thread(target=write_all) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        found = read(local)
        assert any(same(found, known) for known in answers)
    for writer in writers:
        writer.join()
    assert [path.name for path in Path(local.path).iterdir()] == [NAME]
