"""In which partition is a row, which of its readings is valid, and is a data file unchanged since it was written?

A data set is Hive-partitioned Parquet, one folder per UTC day. Data files are never changed: new files are written
beside the old ones, and the manifest says which are valid. The name of a file has the time when it was written and
a checksum of its bytes; its metadata have the account. Every read compares the checksum.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import os
import secrets
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qoderdata.errors import CacheError
from qoderdata.files import LEFTOVER_AGE
from qoderdata.schema import is_readable
from qoderdata.store.coverage import LONG_AGO
from qoderdata.store.manifest import DataFile, Identity, OpenRow, checksum
from qoderdata.store.tables import row_ids, take_rows, with_ids, without_ids
from qoderdata.stored_columns import are_equal, with_all_columns
from qoderdata.time_math import MICROSECOND, earlier

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from numpy.typing import NDArray

    from qoderdata.files import Folder
    from qoderdata.store.tables import StoredTable

FOLDER = "data"
#: The value that Hive gives to a missing partition key.
NO_DAY = "__HIVE_DEFAULT_PARTITION__"

#: The format of the time at the beginning of a data file's name: when it was written, in UTC.
_TIME = "%Y%m%dT%H%M%S"
_SUFFIX = ".parquet"
_KEY = "day="
_METADATA_KEY = b"qoderdata"
_BATCH_ROWS = 65_536
_GROUP_ROWS = 262_144
#: A day with fewer rows has one file after `Dataset.compact`. A larger day may have a few: rewriting it each time
#: would cost more than reading several files.
_SMALL_DAY = 500_000
_MOST_FILES = 8
_THREADS = min(4, os.cpu_count() or 1)
#: The number of files whose ids are kept in memory.
_REMEMBERED = 16


class DamagedStoreError(CacheError):
    """A data file that the manifest names is gone, has changed, or cannot be read now."""


def row_days(table: pa.Table, time_column: str) -> list[str]:
    """Return each row's partition.

    Examples
    --------
    >>> times = [datetime.fromisoformat("2026-06-14T23:59:59.999999+00:00"), None]
    >>> row_days(pa.table({"triggered_at": pa.array(times, pa.timestamp("us", tz="UTC"))}), "triggered_at")
    ['2026-06-14', '__HIVE_DEFAULT_PARTITION__']
    """
    return [NO_DAY if day is None else day for day in _dates(table, time_column).cast(pa.string()).to_pylist()]


def files_within(
    files: Mapping[str, DataFile], *, since: datetime | None, until: datetime | None
) -> dict[str, DataFile]:
    """Return the data files that can have rows with ``since <= time < until``, newest day first.

    Files of rows without a time come last, and only if there is no bound.
    """
    undated = since is None and until is None
    wanted = [name for name in files if is_day_within(_day(name), since=since, until=until, undated=undated)]
    wanted.sort(key=lambda name: ("" if _day(name) == NO_DAY else _day(name), name), reverse=True)
    return {name: files[name] for name in wanted}


def by_day(files: Mapping[str, DataFile]) -> dict[str, dict[str, DataFile]]:
    """Return the data files of each partition, in their order."""
    found: dict[str, dict[str, DataFile]] = defaultdict(dict)
    for name, file in files.items():
        found[_day(name)][name] = file
    return found


def is_day_within(day: str, *, since: datetime | None, until: datetime | None, undated: bool) -> bool:
    """Return whether a day can have rows with ``since <= time < until``; `undated` is the result for no day."""
    if day == NO_DAY:
        return undated
    first = "" if since is None else since.date().isoformat()
    last = "9999-12-31" if until is None else earlier(until, MICROSECOND).date().isoformat()
    return first <= day <= last


class Dataset:
    """The data files of one store."""

    def __init__(self, folder: Folder, table: StoredTable, identity: Identity) -> None:
        self._folder = folder
        self._table = table
        self._metadata = {_METADATA_KEY: msgspec.json.encode(identity)}
        self._ids = functools.lru_cache(_REMEMBERED)(lambda name, file: self._columns(name, file, ["id"])["id"])

    def path(self, name: str) -> str:
        """Return the path of a data file in the folder's file system."""
        return self._folder.path_of(f"{FOLDER}/{name}")

    def lacks_columns(self, file: DataFile) -> bool:
        """Return whether an earlier version wrote a data file, without columns that were added since."""
        return file.columns < len(self._table.schema.arrow)

    def read(
        self,
        files: Mapping[str, DataFile],
        *,
        where: pc.Expression | None = None,
        columns: list[str] | None = None,
    ) -> list[pa.Table]:
        """Read data files in parallel; return the rows of each. Raise `DamagedStoreError` for a damaged one."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="qoderdata-read") as pool:
            return list(pool.map(lambda name: self._columns(name, files[name], columns, where=where), files))

    def contains(self, files: Mapping[str, DataFile], day: str, id_: str) -> bool:
        """Return whether a row is stored in a partition."""
        names = [name for name in files if _day(name) == day]
        wanted = pa.scalar(id_, pa.large_string())
        return any(pc.index(self._ids(name, files[name]), wanted).as_py() >= 0 for name in names)

    def add(
        self, files: Mapping[str, DataFile], rows: pa.Table, *, open_rows: Mapping[str, OpenRow]
    ) -> tuple[dict[str, DataFile], pa.Table]:
        """Write rows; skip those that are already stored and cannot change any more.

        Each id is in `rows` once. A new reading of an open row may have another day. Return the files that are
        valid now, and the rows that were not skipped.
        """
        days = self._days_searched(self._indices_by_day(rows))
        days |= {open_rows[id_].day for id_ in row_ids(with_ids(rows, open_rows))}
        stored = self._stored(files, days, rows["id"])
        changing = {id_: set(partitions) for id_, partitions in stored.items() if all(partitions.values())}
        unchanged = self._unchanged(files, rows, changing)
        accepted = without_ids(rows, stored.keys() - changing.keys())
        new = without_ids(accepted, unchanged)
        indices = self._indices_by_day(new)
        replaced: dict[str, set[str]] = defaultdict(set)
        for id_ in changing.keys() - unchanged:
            for day in changing[id_]:
                replaced[day].add(id_)
        superseded = by_day({name: file for name, file in files.items() if _day(name) in replaced})
        after = {name: file for name, file in files.items() if _day(name) not in replaced}

        def write(day: str) -> dict[str, DataFile]:
            old = superseded.get(day, {})
            return self._write(day, old, without=replaced[day], new=take_rows(new, indices.get(day, [])))

        with ThreadPoolExecutor(_THREADS, thread_name_prefix="qoderdata-write") as pool:
            for written in pool.map(write, sorted({*indices, *replaced})):
                after |= written
        return after, accepted

    def compact(self, files: Mapping[str, DataFile]) -> dict[str, DataFile]:
        """Join the files of a day into one if that saves time later, and return the valid files."""
        after: dict[str, DataFile] = {}
        for day, old in by_day(files).items():
            is_large = sum(file.rows for file in old.values()) >= _SMALL_DAY
            is_compact = len(old) == 1 or (is_large and len(old) <= _MOST_FILES)
            after |= old if is_compact else self._write(day, old)
        return after

    def damaged(self, files: Mapping[str, DataFile]) -> list[str]:
        """Return the names of the files that are gone or have changed.

        Raise `OSError` if one cannot be read now.
        """
        lost = []
        for name, file in files.items():
            content = self._content(name)
            try:
                self._opened(name, file, content)
            except (OSError, pa.ArrowException):
                lost.append(name)
        return lost

    def names(self) -> list[str]:
        """Return the names of the data files in the folder, oldest first, without those of other writers."""
        prefix = self.path("")
        names = [path.removeprefix(prefix) for path in self._own_paths() if path.endswith(_SUFFIX)]
        return sorted(names, key=lambda name: name.rsplit("/", 1)[-1])

    def remove_unlisted(self, files: Iterable[str]) -> None:
        """Remove all other data files: superseded ones, and those of an interrupted commit."""
        current = {self.path(name) for name in files}
        self._folder.delete(path for path in self._own_paths() if path not in current)

    def rebuild(self, names: Iterable[str]) -> tuple[dict[str, DataFile], list[str]]:
        """Return the data files that can be used, without a manifest, and the names of the others; remove nothing.

        Files that lack columns are rewritten. `names` are sorted oldest first. If a row is in several files, the
        one that cannot change any more is kept, otherwise the newest.
        """
        files: dict[str, DataFile] = {}
        unusable = []
        for name in names:
            content = self._content(name)
            found = None if content is None else self._recovered_files(name, content)
            if found is None:
                unusable.append(name)
            else:
                files |= found
        return self._without_duplicates(files), unusable

    def open_rows(self, files: Mapping[str, DataFile], known: Mapping[str, OpenRow]) -> dict[str, OpenRow]:
        """Return the rows that may change; those that are not in `known` count as never read."""
        return {
            id_: OpenRow(_day(name), known[id_].read_at if id_ in known else LONG_AGO)
            for name, file in files.items()
            for id_, is_open in self._states(name, file).items()
            if is_open
        }

    def _own_paths(self) -> list[str]:
        """Return the paths of the files in the folder, without those that another writer may be writing."""
        infos = self._folder.files(FOLDER)
        return [info.path for info in infos if self._folder.local or _is_leftover(info.base_name)]

    def _content(self, name: str) -> pa.Buffer | None:
        """Return the bytes of a data file; ``None`` if it is gone, or a folder has its name."""
        try:
            return self._folder.read(f"{FOLDER}/{name}")
        except IsADirectoryError:
            return None

    def _open(self, name: str, file: DataFile) -> pq.ParquetFile:
        """Open a data file; raise `DamagedStoreError` if it cannot be read."""
        try:
            return self._opened(name, file, self._folder.read(f"{FOLDER}/{name}"))
        except (OSError, pa.ArrowException) as error:
            raise DamagedStoreError(
                f"a data file of the store of {self._table.name} in {self._folder.location} is gone or damaged: "
                f"{error}"
            ) from error

    def _opened(self, name: str, file: DataFile, content: pa.Buffer | None) -> pq.ParquetFile:
        """Open the content of a data file; raise `OSError` if it is not what was written."""
        if content is None:
            raise FileNotFoundError(f"{self.path(name)} is gone")
        if checksum(content) != file.checksum:
            raise OSError(f"{self.path(name)} is not what was written")
        opened = pq.ParquetFile(pa.BufferReader(content))
        if not is_readable(opened.schema_arrow, self._table.schema.arrow):
            raise OSError(f"{self.path(name)} has other columns than were written")
        return opened

    def _columns(
        self, name: str, file: DataFile, columns: list[str] | None, *, where: pc.Expression | None = None
    ) -> pa.Table:
        """Return columns of a data file; `where` may use these columns and the table's time."""
        arrow = self._table.schema.arrow
        columns = arrow.names if columns is None else columns
        names = list(dict.fromkeys([*columns, self._table.time_column]))
        opened = self._open(name, file)
        if self.lacks_columns(file):
            found = with_all_columns(opened.read(), self._table.schema).select(names)
        else:
            found = opened.read(names).select(names).cast(pa.schema([arrow.field(name) for name in names]))
        return (found if where is None else found.filter(where)).select(columns)

    def _states(self, name: str, file: DataFile, ids: pa.ChunkedArray[Any] | None = None) -> dict[str, bool]:
        """Return by id whether a row may change; `ids`: only for these rows."""
        states = self._columns(name, file, ["id", *self._table.state_columns])
        states = states if ids is None else with_ids(states, ids)
        return dict(zip(row_ids(states), self._table.may_change(states).to_pylist(), strict=True))

    def _stored(
        self, files: Mapping[str, DataFile], days: AbstractSet[str], ids: pa.ChunkedArray[Any]
    ) -> dict[str, dict[str, bool]]:
        """Return by id in which of some partitions each row is stored, and whether that row may change."""
        found: dict[str, dict[str, bool]] = defaultdict(dict)
        for name, file in files.items():
            if _day(name) not in days:
                continue
            for id_, is_open in self._states(name, file, ids).items():
                found[id_][_day(name)] = is_open
        return found

    def _days_searched(self, days: Iterable[str]) -> set[str]:
        """Return the partitions in which rows of some days may already be stored.

        If an edition gives no trigger time, `created_at` is used instead, which may be on the next day.
        """
        if self._table.time_column == "created_at":
            return set(days)
        found = {NO_DAY, *days}
        for day in tuple(found):
            for shift in (timedelta(days=-1), timedelta(days=1)):
                # `NO_DAY`, or the first or last day of the calendar.
                with contextlib.suppress(ValueError, OverflowError):
                    found.add((dt.date.fromisoformat(day) + shift).isoformat())
        return found

    def _indices_by_day(self, table: pa.Table) -> dict[str, NDArray[np.int64]]:
        """Return the indices of the rows of each partition, in their order."""
        days = _dates(table, self._table.time_column).combine_chunks().dictionary_encode(null_encoding="encode")
        codes = days.indices.to_numpy()
        names = days.dictionary.cast(pa.string()).to_pylist()
        return {NO_DAY if day is None else day: np.flatnonzero(codes == code) for code, day in enumerate(names)}

    def _unchanged(
        self, files: Mapping[str, DataFile], rows: pa.Table, partitions: Mapping[str, AbstractSet[str]]
    ) -> set[str]:
        """Return the ids of the rows that are stored unchanged in their own partition."""
        rows = with_ids(rows, partitions)
        days = row_days(rows, self._table.time_column)
        again = [index for index, id_ in enumerate(row_ids(rows)) if partitions[id_] == {days[index]}]
        if not again:
            return set()
        found = take_rows(rows, again)
        wanted = pc.field("id").isin(found["id"].combine_chunks())
        searched = {days[index] for index in again}
        stored = pa.concat_tables(
            self._columns(name, file, None, where=wanted) for name, file in files.items() if _day(name) in searched
        ).unify_dictionaries()
        stored = stored.take(pc.index_in(found["id"], value_set=stored["id"]))
        is_unchanged = functools.reduce(pc.and_, map(are_equal, found.columns, stored.columns))
        return set(row_ids(found.filter(is_unchanged)))

    def _write(
        self,
        day: str,
        old: Mapping[str, DataFile],
        *,
        without: AbstractSet[str] = frozenset(),
        new: pa.Table | None = None,
    ) -> dict[str, DataFile]:
        """Write one data file, with the new rows before those of old files; write none if there are no rows."""
        arrow = self._table.schema.arrow.with_metadata(self._metadata)
        sink, rows = pa.BufferOutputStream(), 0
        # Most texts are distinct, and zstd compresses repeated ones: dictionaries would take more time and space.
        with pq.ParquetWriter(
            sink, arrow, compression="zstd", use_dictionary=False, write_page_checksum=True
        ) as writer:
            for group in self._groups(new, old, without):
                writer.write_table(group)
                rows += group.num_rows
        if not rows:
            return {}
        content = sink.getvalue()
        file = DataFile(rows, checksum(content), len(arrow))
        time = datetime.now(UTC).strftime(_TIME)
        name = f"{_KEY}{day}/{time}-{secrets.token_hex(4)}-{file.checksum}{_SUFFIX}"
        self._folder.replace(f"{FOLDER}/{name}", lambda sink: sink.write(content))
        return {name: file}

    def _groups(
        self, new: pa.Table | None, old: Mapping[str, DataFile], without: AbstractSet[str]
    ) -> Iterator[pa.Table]:
        """Yield rows as tables of the size of a row group, so that a large day is never in memory completely."""
        schema = self._table.schema.arrow
        lost = pa.array(sorted(without), pa.large_string())
        waiting, rows = ([], 0) if new is None else (new.to_batches(), new.num_rows)
        for name, file in old.items():
            for batch in self._open(name, file).iter_batches(_BATCH_ROWS):
                kept = batch.filter(pc.invert(pc.is_in(batch["id"], value_set=lost))) if without else batch
                waiting.append(kept.cast(schema))
                rows += kept.num_rows
                if rows >= _GROUP_ROWS:
                    yield pa.Table.from_batches(waiting, schema=schema)
                    waiting, rows = [], 0
        if rows:
            yield pa.Table.from_batches(waiting, schema=schema)

    def _recovered_files(self, name: str, content: pa.Buffer) -> dict[str, DataFile] | None:
        """Return the manifest's entries for a data file, rewritten if it lacks columns; ``None`` if unusable."""
        found, arrow = checksum(content), self._table.schema.arrow
        # The names of version 0.1 have no checksum, and its files name no account.
        is_version_0_1 = name.rpartition("/")[2].count("-") == 1
        try:
            with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
                schema, rows = file.schema_arrow, file.metadata.num_rows
                identity = None if is_version_0_1 else self._metadata[_METADATA_KEY]
                is_whole = is_version_0_1 or name.endswith(f"-{found}{_SUFFIX}")
                is_own = (schema.metadata or {}).get(_METADATA_KEY) == identity
                if not (is_whole and is_own and is_readable(schema, arrow)):
                    return None
                if schema.names == arrow.names:
                    return {name: DataFile(rows, found, len(arrow))}
                table = with_all_columns(file.read(), self._table.schema)
        except (OSError, ValueError, pa.ArrowException):
            return None
        files: dict[str, DataFile] = {}
        for day, some in self._indices_by_day(table).items():
            files |= self._write(day, {}, new=take_rows(table, some))
        return files

    def _without_duplicates(self, files: dict[str, DataFile]) -> dict[str, DataFile]:
        states = {name: self._states(name, file) for name, file in files.items()}
        winners: dict[str, str] = {}
        superseded: dict[str, set[str]] = defaultdict(set)
        for name, found in states.items():
            for id_, is_open in found.items():
                winner = winners.setdefault(id_, name)
                if winner == name:
                    continue
                loser = name if is_open and not states[winner][id_] else winner
                superseded[loser].add(id_)
                if loser == winner:
                    winners[id_] = name
        after = dict(files)
        for name, lost in superseded.items():
            after |= self._write(_day(name), {name: after.pop(name)}, without=lost)
        return after


def _dates(table: pa.Table, time_column: str) -> Any:  # noqa: ANN401 - an Arrow array
    return table[time_column].cast(pa.timestamp("us")).cast(pa.date32())


def _day(name: str) -> str:
    return name.partition("/")[0].removeprefix(_KEY)


def _is_leftover(base_name: str) -> bool:
    """Return whether a file is too old for a commit in progress, by its name: not every store has file times."""
    return base_name < (datetime.now(UTC) - LEFTOVER_AGE).strftime(_TIME)
