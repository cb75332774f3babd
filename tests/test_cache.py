"""Tests of `qoderdata.cache`: file names, reading and writing, damaged files, and failed writes."""

from __future__ import annotations

import errno
import os
import threading
import time
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

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
from qoderdata.errors import CacheWarning, NotStoredWarning
from qoderdata.files import Folder
from qoderdata.schema import DEPLOYMENTS, RUNS

if TYPE_CHECKING:
    from collections.abc import Callable

FETCHED_AT = datetime(2026, 6, 15, 1, 30, 20, 123456, tzinfo=UTC)
NAME = "deployments-0123456789abcdef01234567.parquet"

#: Missing and extreme values, and text that looks like the metadata of the cache.
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
def folder(request: pytest.FixtureRequest, tmp_path: Path, clean_memory: None) -> Folder:
    """Return a folder that does not exist yet."""
    del clean_memory  # needed only for its effect
    return Folder(tmp_path / "cache" / "queries" if request.param == "local" else "memory://cache/queries")


@pytest.fixture
def local_folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "cache" / "queries")


def path_of(folder: Folder) -> Path:
    return Path(folder.path_of(NAME))


def read_cached(folder: Folder) -> cache.CachedTable | None:
    return cache.read(folder, NAME, DEPLOYMENTS)


def is_same(one: cache.CachedTable | None, other: cache.CachedTable) -> bool:
    return one is not None and bool(one.table.equals(other.table)) and one.fetched_at == other.fetched_at


# -- file names ----------------------------------------------------------------------------------------------


QUERY: dict[str, object] = {
    "base_url": "https://api.qoder.com",
    "workspace": None,
    "account": "a1",
    "status": "active",
}


def test_file_name_does_not_depend_on_the_order_of_the_query() -> None:
    assert cache.cache_key("deployments", QUERY) == cache.cache_key("deployments", dict(reversed(QUERY.items())))


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
def test_file_name_differs_for_another_query(kind: str, change: dict[str, str]) -> None:
    assert cache.cache_key(kind, QUERY | change) != cache.cache_key("deployments", QUERY)


@given(st.dictionaries(st.text(), st.text() | st.none()))
def test_file_name_has_only_a_digest_for_any_query(query: dict[str, str | None]) -> None:
    """Text from callers is untrusted: none of it may become part of a path."""
    name = cache.cache_key("deployments", query)
    digest = name.removeprefix("deployments-").removesuffix(".parquet")
    assert len(digest) == 24
    assert set(digest) <= set("0123456789abcdef")


# -- write and read ------------------------------------------------------------------------------------------


def test_written_table_is_read(folder: Folder, answer: cache.CachedTable) -> None:
    assert read_cached(folder) is None
    cache.write(folder, NAME, answer)
    assert is_same(read_cached(folder), answer)


@pytest.mark.parametrize("schema", [DEPLOYMENTS, RUNS], ids=lambda schema: schema.name)
def test_empty_table_is_cached(folder: Folder, schema: Any) -> None:  # noqa: ANN401 - either
    empty = cache.CachedTable(schema.arrow.empty_table(), FETCHED_AT)
    cache.write(folder, NAME, empty)
    found = cache.read(folder, NAME, schema)
    assert is_same(found, empty)


def test_second_write_replaces_the_first(folder: Folder, answer: cache.CachedTable) -> None:
    cache.write(folder, NAME, answer)
    later = cache.CachedTable(answer.table.slice(2), FETCHED_AT + timedelta(seconds=1))
    cache.write(folder, NAME, later)
    assert is_same(read_cached(folder), later)
    assert len(folder.parquet_files()) == 1


record_strategy = st.fixed_dictionaries(
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
@given(
    records=st.lists(record_strategy, max_size=20, unique_by=lambda record: str(record["id"])), at=st.datetimes()
)
def test_any_table_is_read_as_it_was_written(records: list[dict[str, Any]], at: datetime) -> None:
    with warnings.catch_warnings(action="ignore"):  # about integers that do not fit in 64 bits
        table = from_records(records, DEPLOYMENTS)
    given_answer = cache.CachedTable(table, at.replace(tzinfo=UTC))
    folder = Folder("memory://property")
    cache.write(folder, NAME, given_answer)
    assert is_same(read_cached(folder), given_answer)


def test_file_is_readable_by_pyarrow_pandas_and_duckdb(local_folder: Folder, answer: cache.CachedTable) -> None:
    cache.write(local_folder, NAME, answer)
    path = path_of(local_folder)
    assert pq.read_table(path).equals(answer.table)
    assert pd.read_parquet(path)["id"].tolist() == [record["id"] for record in RECORDS]
    found = duckdb.execute("select name from read_parquet(?) limit 1", [str(path)]).fetchall()
    assert found == [("crc32:00000000",)]


def test_files_and_folders_are_private(local_folder: Folder, answer: cache.CachedTable, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        cache.write(local_folder, NAME, answer)
    finally:
        os.umask(old)
    found = {path.relative_to(tmp_path).as_posix(): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert found == {"cache": 0o700, "cache/queries": 0o700, f"cache/queries/{NAME}": 0o600}


# -- files that count as absent ------------------------------------------------------------------------------


@pytest.fixture
def content(local_folder: Folder, answer: cache.CachedTable) -> bytes:
    cache.write(local_folder, NAME, answer)
    return path_of(local_folder).read_bytes()


def is_absent(folder: Folder) -> bool:
    """Return whether reading gives no table and one `CacheWarning`."""
    with warnings.catch_warnings(record=True, action="always") as caught:
        found = read_cached(folder)
    return found is None and [warning.category for warning in caught] == [CacheWarning]


def test_every_changed_bit_is_detected(local_folder: Folder, content: bytes) -> None:
    """The checksums of Parquet cover only pages; a bit in the footer can change values, the time and the rows."""
    path = path_of(local_folder)
    undetected = []
    for index in range(len(content)):
        if index % 5 and index < len(content) - 64:
            continue
        damaged = bytearray(content)
        damaged[index] ^= 1 << index % 8
        path.write_bytes(damaged)
        if not is_absent(local_folder):
            undetected.append(index)
    assert undetected == []
    path.write_bytes(content)
    assert read_cached(local_folder) is not None


def test_every_truncation_is_detected(local_folder: Folder, content: bytes) -> None:
    lengths = {0, 1, 3, 4, 7, 8, 11, 12, len(content) - 1, *range(0, len(content), 97)}
    for length in lengths:
        path_of(local_folder).write_bytes(content[:length])
        assert is_absent(local_folder), length


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "one byte more": lambda content: content + b"\0",
    "content twice": lambda content: content + content,
    "reversed bytes": lambda content: content[::-1],
    "zero bytes": lambda content: bytes(len(content)),
    "invalid footer": lambda _: b"PAR1" + b"\xff" * 8 + b"PAR1",
    "empty file": lambda _: b"",
    "no checksum": lambda content: content.replace(b"crc32:", b"crc32;"),
    "HTML page": lambda _: b"<html>Sign in</html>",
    "Git LFS pointer": lambda _: b"version https://git-lfs.github.com/spec/v1\n",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_file_counts_as_absent(
    local_folder: Folder, content: bytes, damage: Callable[[bytes], bytes]
) -> None:
    path_of(local_folder).write_bytes(damage(content))
    with pytest.warns(CacheWarning, match="counts as absent: it is damaged or of another format") as caught:
        assert read_cached(local_folder) is None
    assert len(caught) == 1


def test_other_format_number_counts_as_absent(
    local_folder: Folder, answer: cache.CachedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older and later: another environment may have a later version of this package."""
    for number in (cache.FORMAT - 1, cache.FORMAT + 1):
        with monkeypatch.context() as patch:
            patch.setattr(cache, "FORMAT", number)
            cache.write(local_folder, NAME, answer)
        with pytest.warns(CacheWarning, match="counts as absent: it is of another format"):
            assert read_cached(local_folder) is None


def test_other_columns_or_types_count_as_absent(local_folder: Folder, answer: cache.CachedTable) -> None:
    table = answer.table
    agent_version = table.schema.get_field_index("agent_version")
    for other in (
        table.drop_columns(["extra"]),
        table.append_column("more", table["id"]),
        table.select(list(reversed(table.column_names))),
        table.set_column(agent_version, "agent_version", table["agent_version"].cast(pa.float64(), safe=False)),
        RUNS.arrow.empty_table(),
    ):
        cache.write(local_folder, NAME, replace(answer, table=other))
        with pytest.warns(CacheWarning, match="counts as absent: it is of another format"):
            assert read_cached(local_folder) is None


def test_columns_that_a_cached_answer_lacks_are_filled_from_extra(folder: Folder) -> None:
    old = replace(DEPLOYMENTS, columns=tuple(one for one in DEPLOYMENTS.columns if one.name != "agent_version"))
    cache.write(folder, NAME, cache.CachedTable(from_records(RECORDS, old), FETCHED_AT))
    assert is_same(read_cached(folder), cache.CachedTable(from_records(RECORDS, DEPLOYMENTS), FETCHED_AT))


def test_file_renamed_to_another_account_counts_as_absent(local_folder: Folder, answer: cache.CachedTable) -> None:
    """Otherwise one account could read the data of another."""
    cache.write(local_folder, NAME, answer)
    other = cache.cache_key("deployments", QUERY | {"account": "another"})
    Path(local_folder.path_of(NAME)).rename(local_folder.path_of(other))
    with pytest.warns(CacheWarning, match="another query or account"):
        assert cache.read(local_folder, other, DEPLOYMENTS) is None


def test_parquet_file_without_cache_metadata_counts_as_absent(
    local_folder: Folder, answer: cache.CachedTable
) -> None:
    cache.write(local_folder, NAME, answer)
    pq.write_table(answer.table, path_of(local_folder))
    with pytest.warns(CacheWarning, match="counts as absent: it is damaged or of another format") as caught:
        assert read_cached(local_folder) is None
    assert NAME in str(caught[0].message)
    assert caught[0].filename == __file__, "the warning points to the line of the caller"


def test_folder_in_place_of_the_file_counts_as_absent(local_folder: Folder) -> None:
    path_of(local_folder).mkdir(parents=True)
    assert is_absent(local_folder)


# -- failed writes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "/inner", "/inner/deep"])
def test_file_in_place_of_the_folder_causes_one_warning(
    tmp_path: Path, answer: cache.CachedTable, below: str
) -> None:
    (tmp_path / "file").write_text("the user's own")
    folder = Folder(f"{tmp_path}/file{below}")
    assert read_cached(folder) is None
    with pytest.warns(CacheWarning, match=r"cannot be written \(.*QODERDATA_CACHE_DIR") as caught:
        cache.write(folder, NAME, answer)
    assert len(caught) == 1
    assert (tmp_path / "file").read_text() == "the user's own"


WRITE_STEPS = [(os, "open"), (os, "fsync"), (Path, "replace"), (pa, "OSFile"), (pq, "ParquetWriter")]


@pytest.mark.parametrize("step", WRITE_STEPS, ids=lambda step: step[1])
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
def test_failed_write_warns_and_leaves_the_old_file(
    local_folder: Folder,
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
    *,
    step: tuple[Any, str],
    error: Exception,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*step, Mock(side_effect=error))
        advice = "on another disk$" if getattr(error, "errno", 0) == errno.ENOSPC else "that can be written$"
        with pytest.warns(NotStoredWarning, match=f"the answer was not cached.* to a folder {advice}"):
            cache.write(local_folder, NAME, cache.CachedTable(DEPLOYMENTS.arrow.empty_table(), FETCHED_AT))
    assert [path.name for path in path_of(local_folder).parent.iterdir()] == [NAME]
    assert path_of(local_folder).read_bytes() == content


@pytest.mark.parametrize("step", WRITE_STEPS, ids=lambda step: step[1])
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_interrupted_write_leaves_the_old_file(
    local_folder: Folder,
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
    *,
    step: tuple[Any, str],
    interruption: type[BaseException],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*step, Mock(side_effect=interruption()))
        with pytest.raises(interruption):
            cache.write(local_folder, NAME, cache.CachedTable(DEPLOYMENTS.arrow.empty_table(), FETCHED_AT))
    assert [path.name for path in path_of(local_folder).parent.iterdir()] == [NAME]
    assert path_of(local_folder).read_bytes() == content


class ObjectStoreError(Exception):
    """Like an exception of the library of an object store, which is often no `OSError`."""


def test_custom_exception_of_an_object_store_causes_a_warning(
    answer: cache.CachedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder("memory://odd/queries")
    cache.write(folder, NAME, answer)
    for method in ("_open", "cat_file", "pipe_file"):
        monkeypatch.setattr(MemoryFileSystem, method, Mock(side_effect=ObjectStoreError("no credentials")))
    with pytest.warns(CacheWarning, match=r"cannot be written \(.*no credentials\)"):
        cache.write(folder, NAME, answer)
    with pytest.warns(CacheWarning, match="counts as absent: .*no credentials"):
        assert read_cached(folder) is None


# -- the folder ----------------------------------------------------------------------------------------------


def test_parquet_files_lists_only_complete_files(local_folder: Folder, answer: cache.CachedTable) -> None:
    assert local_folder.parquet_files() == []
    names = [f"deployments-{number:024x}.parquet" for number in range(3)]
    for name in names:
        cache.write(local_folder, name, answer)
    temporary = Path(local_folder.path) / f".{NAME}.1234-abcdef01.tmp"
    temporary.write_bytes(b"half of")
    (Path(local_folder.path) / "notes.txt").write_text("the user's own")
    paths = [Path(local_folder.path_of(name)) for name in names]
    found = sorted((info.path, info.size) for info in local_folder.parquet_files())
    assert found == [(path.as_posix(), path.stat().st_size) for path in paths]


def test_clear_removes_all_cached_files(folder: Folder, answer: cache.CachedTable) -> None:
    assert folder.clear() == 0
    for number in range(3):
        cache.write(folder, f"deployments-{number:024x}.parquet", answer)
    assert folder.clear() == 3
    assert folder.parquet_files() == []
    assert folder.clear() == 0


def test_clear_removes_temporary_files_of_killed_processes(
    local_folder: Folder, answer: cache.CachedTable
) -> None:
    """They contain records that the user wants to remove."""
    cache.write(local_folder, NAME, answer)
    below = Path(local_folder.path)
    (below / f".{NAME}.1234-abcdef01.tmp").write_bytes(b"half of")
    (below / "notes.txt").write_text("the user's own")
    assert local_folder.clear() == 1
    assert [path.name for path in below.iterdir()] == ["notes.txt"]


def test_a_write_removes_old_temporary_files_of_killed_processes(
    local_folder: Folder, answer: cache.CachedTable
) -> None:
    cache.write(local_folder, NAME, answer)
    below = Path(local_folder.path)
    for number, age in enumerate([7200, 60]):
        (below / f".{NAME}.{number}-abcdef01.tmp").write_bytes(b"half of")
        os.utime(below / f".{NAME}.{number}-abcdef01.tmp", times=(time.time() - age,) * 2)
    (below / ".notes.txt").write_text("the user's own")
    cache.write(local_folder, NAME, answer)
    assert {path.name for path in below.iterdir()} == {NAME, f".{NAME}.1-abcdef01.tmp", ".notes.txt"}


def test_clear_during_a_write_causes_only_a_warning(
    local_folder: Folder, answer: cache.CachedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def fsync_and_clear(descriptor: int) -> None:
        fsync(descriptor)
        local_folder.clear()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync_and_clear)
        with pytest.warns(CacheWarning, match="the answer was not cached"):
            cache.write(local_folder, NAME, answer)
    assert not Path(local_folder.path).exists()
    cache.write(local_folder, NAME, answer)
    assert is_same(read_cached(local_folder), answer)


def test_reads_during_writes_return_a_complete_table(local_folder: Folder, answer: cache.CachedTable) -> None:
    answers = [
        cache.CachedTable(answer.table.slice(number), FETCHED_AT + timedelta(days=number)) for number in range(3)
    ]
    cache.write(local_folder, NAME, answers[0])

    def write_all() -> None:
        for number in range(30):
            cache.write(local_folder, NAME, answers[number % 3])

    writers = [threading.Thread(target=write_all) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        found = read_cached(local_folder)
        assert any(is_same(found, known) for known in answers)
    for writer in writers:
        writer.join()
    assert [path.name for path in Path(local_folder.path).iterdir()] == [NAME]
