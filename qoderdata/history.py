"""Dated snapshots of the deployments: how are they written, thinned, and read back?

A series is one account's, with archived deployments or without; it has a folder of its own. A snapshot is stored
as its differences from a base: prompts, names and schedules rarely change, so that a base is written once in
`BASE_AGE`, and a snapshot holds little but counters and times. A base is no snapshot; it is kept as long as a
snapshot may refer to it.

The name of a file holds its time, its number of rows and the checksum of its bytes; the metadata hold the account.
Files are only added and removed, never changed, so that processes need no lock.
"""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qoderdata.errors import CacheWarning, warn
from qoderdata.files import digest
from qoderdata.schema import DEPLOYMENTS, EXTRA
from qoderdata.settings import Account
from qoderdata.stored_columns import are_equal, with_all_columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qoderdata.files import Folder

#: The folder of all series, below the cache folder.
FOLDER = "history"
#: Increases when older files can no longer be read.
FORMAT = 1
#: All snapshots are kept for this long; after that, the last of each day (UTC).
KEEP_ALL_FOR = timedelta(days=1)
#: No snapshot is kept for longer.
KEEP_DAILY_FOR = timedelta(days=400)
#: For how long after a base was written new snapshots may refer to it.
BASE_AGE = timedelta(days=14)

_METADATA_KEY = b"qoderdata"
_NAME = re.compile(r"(?P<base>base-)?(?P<time>\d{8}T\d{12}Z)-(?P<rows>\d+)-(?P<checksum>[0-9a-f]{8})\.parquet")
_TIME_FORMAT = "%Y%m%dT%H%M%S%fZ"
_BASE_ROW = "_base_row"
_SAME = "_same_"
_ROW_GROUP = 2_500
#: A base is read in pieces: as a whole it would add a tenth to the memory of a pull.
_PIECE = 2**20
_BASE_COMPRESSION = 1
_COMPRESSION = 6


class SeriesIdentity(Account):
    """The facts that identify a series; each of its files repeats them."""

    include_archived: bool


@dataclass(frozen=True, slots=True)
class Series:
    """The snapshots of one account, with archived deployments or without."""

    folder: Folder
    identity: SeriesIdentity


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A snapshot or a base, as described by the name of its file."""

    name: str
    #: When the pull began, in UTC.
    fetched_at: datetime
    #: The number of deployments.
    rows: int
    size: int
    #: Whether it is a base, and no snapshot.
    is_base: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The deployments of an account at the time that its file names: one row each, in the service's order."""

    table: pa.Table
    file: SnapshotFile


@dataclass(frozen=True, slots=True)
class _Base:
    """A base, and for each deployment of a new snapshot its row in the base; missing if it has none."""

    name: str
    file: pq.ParquetFile
    rows: pa.Array[Any] | pa.ChunkedArray[Any]


def series(cache_folder: Folder, account: Account, *, include_archived: bool) -> Series:
    """Return an account's series, in a folder named by a digest of its identity; nothing is created."""
    whole: SeriesIdentity = {**account, "include_archived": include_archived}
    return Series(cache_folder.folder(f"{FOLDER}/{digest(whole)}"), whole)


def write(series: Series, table: pa.Table, fetched_at: datetime) -> None:
    """Add a snapshot to its series, and remove those that are too old or too many.

    Raise what the folder or object store raises if it cannot be read or written; old snapshots stay.
    """
    earlier = _list(series.folder)
    base = _usable_base(series, earlier, table, fetched_at) or _new_base(series, table, fetched_at)
    difference = _encode(_difference(table, base), series.identity, base=base.name)
    _write_file(series, "", table, fetched_at, difference)
    _thin(series, earlier, now=fetched_at)
    series.folder.remove_temporary_files(others_write=True)
    # Otherwise Arrow keeps the free memory, and NumPy needs more for the frame that a loader makes next.
    pa.default_memory_pool().release_unused()


def files_of(series: Series) -> list[SnapshotFile]:
    """Return the snapshots of a series, the oldest first, without reading them."""
    return [file for file in _list(series.folder) if not file.is_base]


def read(
    series: Series,
    files: Iterable[SnapshotFile],
    columns: Sequence[str] | None = None,
    *,
    most: int | None = None,
) -> list[Snapshot]:
    """Return snapshots in the order given; damaged ones are left out, with one warning.

    A column that a file does not have is filled from its ``extra``; `columns`: read these alone; `most`: no more
    snapshots than these.
    """
    wanted = DEPLOYMENTS.names if columns is None else columns
    bases: dict[str, pa.Table] = {}
    found: list[Snapshot] = []
    refused = []
    for file in files:
        if len(found) == most:
            break
        try:
            found.append(Snapshot(_read_one(series, file.name, wanted, bases), file))
        except FileNotFoundError:
            continue  # thinned by another process meanwhile
        except Exception as error:  # noqa: BLE001 - a damaged file fails in any way, an object store in its own
            refused.append((file, str(error)))
    if refused:
        file, reason = refused[0]
        others = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        warn(
            f"the snapshot of {file.fetched_at:%Y-%m-%d %H:%M} UTC{others} in {series.folder.location} was left "
            f"out: {reason}",
            CacheWarning,
        )
    return found


def accounts(cache_folder: Folder) -> list[Account]:
    """Return the account of each series below a cache folder, not checked.

    It is read from the newest file of each series that can be read; a series without one is left out. Raise
    `CacheError` if the folder cannot be read now.
    """
    folder = cache_folder.folder(FOLDER)
    with folder.raising_cache_error("snapshots"):
        paths = sorted((info.path for info in folder.parquet_files()), reverse=True)
    found: dict[str, Account] = {}
    for path in paths:
        place = path.rpartition("/")[0]
        if place in found:
            continue
        with contextlib.suppress(Exception):  # a damaged file fails in any way
            schema = pq.read_schema(path, filesystem=cache_folder.filesystem)
            identity = json.loads(schema.metadata[_METADATA_KEY])["identity"]
            del identity["include_archived"]
            found[place] = identity
    return list(found.values())


# -- files -------------------------------------------------------------------------------------------------------


def _list(folder: Folder) -> list[SnapshotFile]:
    """Return the files of a series, the oldest first."""
    found = []
    for info in folder.files():
        match = _NAME.fullmatch(info.base_name)
        if match is None or info.path != folder.path_of(info.base_name):
            continue
        with contextlib.suppress(ValueError):  # no time, such as one of month 13
            time = datetime.strptime(match["time"], _TIME_FORMAT).replace(tzinfo=UTC)
            found.append(
                SnapshotFile(info.base_name, time, int(match["rows"]), info.size or 0, match["base"] is not None)
            )
    return sorted(found, key=lambda file: (file.fetched_at, file.name))


def _write_file(series: Series, prefix: str, table: pa.Table, fetched_at: datetime, content: pa.Buffer) -> str:
    """Write a snapshot or a base, and return its name."""
    time = fetched_at.astimezone(UTC).strftime(_TIME_FORMAT)
    name = f"{prefix}{time}-{table.num_rows}-{zlib.crc32(memoryview(content)):08x}.parquet"
    series.folder.replace(name, lambda sink: sink.write(content))
    return name


def _encode(table: pa.Table, identity: SeriesIdentity, *, base: str | None = None) -> pa.Buffer:
    facts = {"format": FORMAT, "identity": identity, "base": base}
    table = table.replace_schema_metadata({_METADATA_KEY: json.dumps(facts).encode()})
    encodings = {}
    for field in table.schema:
        is_list = pa.types.is_list(field.type)
        kind: pa.DataType = field.type.value_type if is_list else field.type
        if pa.types.is_timestamp(kind) or pa.types.is_integer(kind):
            encodings[f"{field.name}.list.element" if is_list else field.name] = "BYTE_STREAM_SPLIT"
    if base is not None:
        encodings[_BASE_ROW] = "DELTA_BINARY_PACKED"
    sink = pa.BufferOutputStream()
    # A base has many long texts, and is read with every pull; counters and times are what differs in a snapshot.
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=_BASE_COMPRESSION if base is None else _COMPRESSION,
        row_group_size=_ROW_GROUP if base is None else None,
        write_statistics=False,
        use_dictionary=False,
        column_encoding=encodings,
    )
    return sink.getvalue()


def _open(series: Series, name: str) -> tuple[pq.ParquetFile, dict[str, Any]]:
    """Return a file whose checksum and account are right, and the facts in its metadata."""
    source = series.folder.open_file(name)
    if source is None:
        raise FileNotFoundError(f"{series.folder.path_of(name)} is not there")
    checksum = 0
    while piece := source.read(_PIECE):
        checksum = zlib.crc32(piece, checksum)
    match = _NAME.fullmatch(name)
    if match is None or f"{checksum:08x}" != match["checksum"]:
        raise ValueError(f"{name} is damaged")
    source.seek(0)
    file = pq.ParquetFile(source)
    facts = json.loads((file.schema_arrow.metadata or {}).get(_METADATA_KEY, b"{}"))
    if facts.get("format") != FORMAT:
        raise ValueError(f"{name} is of another format")
    if facts.get("identity") != series.identity:
        raise ValueError(f"{name} was written for another account")
    return file, facts


def _read_one(series: Series, name: str, wanted: Sequence[str], bases: dict[str, pa.Table]) -> pa.Table:
    """Read a snapshot; `bases` holds those that were read before."""
    file, facts = _open(series, name)
    present = set(file.schema_arrow.names)
    stored = [column for column in DEPLOYMENTS.names if _SAME + column in present]
    lacking = set(DEPLOYMENTS.names).difference(stored)
    is_filled = bool(lacking) and not {EXTRA, *lacking}.isdisjoint(wanted)
    columns = stored if is_filled else wanted
    base = str(facts["base"])
    if base not in bases:
        try:
            bases[base] = _open(series, base)[0].read(columns=list(columns))
        except Exception as error:
            raise ValueError(f"its base cannot be read: {error}") from error
    names = [_BASE_ROW, *(part for column in columns for part in (column, _SAME + column))]
    fields = pa.schema([DEPLOYMENTS.arrow.field(column) for column in columns])
    table = _restored(bases[base], file.read(columns=names), fields)
    return with_all_columns(table, DEPLOYMENTS).select(wanted) if is_filled else table


def _usable_base(
    series: Series, files: Sequence[SnapshotFile], table: pa.Table, fetched_at: datetime
) -> _Base | None:
    """Return the newest young base that can be read; ``None`` if it has less than half of the deployments."""
    for file in reversed(files):
        if not file.is_base or not timedelta(0) <= fetched_at - file.fetched_at <= BASE_AGE:
            continue
        try:
            opened = _open(series, file.name)[0]
            ids = opened.read(columns=["id"], use_threads=False)["id"]
            rows = pc.index_in(table["id"], ids)
        except Exception:  # noqa: BLE001, S112 - a new base is written in its place
            continue
        is_usable = opened.schema_arrow.equals(table.schema) and 2 * rows.null_count <= len(table)
        return _Base(file.name, opened, rows) if is_usable else None
    return None


def _new_base(series: Series, table: pa.Table, fetched_at: datetime) -> _Base:
    content = _encode(table, series.identity)
    name = _write_file(series, "base-", table, fetched_at, content)
    rows = pa.array(np.arange(len(table), dtype=np.int32))
    return _Base(name, pq.ParquetFile(pa.BufferReader(content)), rows)


def _thin(series: Series, files: Sequence[SnapshotFile], *, now: datetime) -> None:
    """Remove the snapshots that are not kept, then the bases to which no snapshot refers or can refer.

    `files` were there before the present snapshot was written. If all of them seem to be too old, nothing is
    removed, since a clock may be wrong.
    """
    snapshots = [file for file in files if not file.is_base]
    if snapshots and now - snapshots[-1].fetched_at > KEEP_DAILY_FOR:
        return
    last_of_day = {file.fetched_at.date(): file for file in snapshots}
    oldest_kept = now
    for file in snapshots:
        age = now - file.fetched_at
        if age <= KEEP_ALL_FOR or (last_of_day[file.fetched_at.date()] is file and age <= KEEP_DAILY_FOR):
            oldest_kept = min(oldest_kept, file.fetched_at)
        else:
            series.folder.remove(file.name)
    for file in files:
        # Another process may still write a snapshot that it began a day ago.
        if file.is_base and file.fetched_at + BASE_AGE + KEEP_ALL_FOR < oldest_kept:
            series.folder.remove(file.name)


# -- differences -------------------------------------------------------------------------------------------------


def _difference(table: pa.Table, base: _Base) -> pa.Table:
    """Return the rows; a value that equals that of the deployment in the base is missing.

    Some row groups of the base are read at a time: all its texts at once would double the memory of a pull.
    """
    file = base.file
    ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
    parts = [_differing(table.slice(0, 0), table.slice(0, 0))]
    for start in range(0, len(table), _ROW_GROUP):
        new, rows = table.slice(start, _ROW_GROUP), base.rows.slice(start, _ROW_GROUP).drop_null().to_numpy()
        groups = np.unique(np.searchsorted(ends, rows, side="right")).tolist()
        old = file.read_row_groups(groups or [0], use_threads=False)  # pyarrow 18 cannot read none
        parts.append(_differing(_take(old, pc.index_in(new["id"], old["id"])), new))
    return pa.concat_tables(parts, promote_options="default").append_column(_BASE_ROW, base.rows)


def _take(table: pa.Table, index: Any) -> pa.Table:  # noqa: ANN401 - an Arrow array
    """Return the rows at some indices; consecutive rows are not copied."""
    rows = index.to_numpy()
    is_run = len(rows) > 0 and not index.null_count and (np.diff(rows) == 1).all()
    return table.slice(int(rows[0]), len(rows)) if is_run else table.take(index)


def _differing(old: pa.Table, new: pa.Table) -> pa.Table:
    """Return for each column which values are equal, and the values that differ, if there are any."""
    columns: dict[str, Any] = {}
    for name in new.schema.names:
        if old[name].equals(new[name]):
            columns[_SAME + name] = np.ones(len(new), dtype=bool)
            continue
        same = are_equal(old[name], new[name])
        columns[_SAME + name] = same
        differing: Any = pa.array(np.arange(len(new)), mask=same.to_numpy())
        columns[name] = new[name].take(differing)
    return pa.table(columns)


def _restored(base: pa.Table, difference: pa.Table, wanted: pa.Schema) -> pa.Table:
    """Return a snapshot from its differences."""
    row = difference[_BASE_ROW].combine_chunks()
    arrays: list[pa.Array[Any]] = []
    for field in wanted:
        value: Any = base[field.name].combine_chunks().take(row)
        if field.name in difference.schema.names:
            same = difference[_SAME + field.name].combine_chunks()
            value = pc.if_else(same, value, difference[field.name].combine_chunks())
        arrays.append(value)
    return pa.Table.from_arrays(arrays, schema=wanted.remove_metadata())
