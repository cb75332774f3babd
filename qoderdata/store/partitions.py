"""The data set of a store of runs: Parquet files in one folder a day of ``triggered_at``, and who is in them.

Files are never changed: what takes the place of others is written beside them, and it is the manifest that says
which count.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from qoderdata.errors import CacheError
from qoderdata.schema import RUNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from qoderdata.files import Folder

FOLDER = "data"
#: Where Hive puts what has no day.
NO_DAY = "__HIVE_DEFAULT_PARTITION__"

#: How a data file's name begins: with the time when it was written, in UTC.
TIME = "%Y%m%dT%H%M%S"

_SUFFIX = ".parquet"
_KEY = "day="
_BATCH_ROWS = 65_536
_GROUP_ROWS = 262_144

_FORMAT = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)


class DamagedStoreError(CacheError):
    """A data file that the manifest names is gone or cannot be read."""


def unreadable(folder: Folder, error: OSError) -> CacheError:
    """Say that a store cannot be read, which is no reason to give up what is in it."""
    return CacheError(
        f"the store of runs in {folder.location} cannot be read now ({error.strerror or error}). Nothing in it "
        "was touched: try again later, or take another cache_dir"
    )


def ids(table: pa.Table) -> list[str]:
    """Give each run's id."""
    return cast("list[str]", table["id"].to_pylist())


def days(table: pa.Table) -> list[str]:
    """Give each run's partition.

    Examples
    --------
    >>> triggered = [datetime.fromisoformat("2026-06-14T23:59:59.999999+00:00"), None]
    >>> days(pa.table({"triggered_at": pa.array(triggered, pa.timestamp("us", tz="UTC"))}))
    ['2026-06-14', '__HIVE_DEFAULT_PARTITION__']
    """
    dates = table["triggered_at"].cast(pa.timestamp("us")).cast(pa.date32()).cast(pa.string())
    return [NO_DAY if day is None else day for day in dates.to_pylist()]


def within(files: Iterable[str], *, since: datetime | None, until: datetime | None) -> list[str]:
    """Give those files that can have runs with ``since <= triggered_at < until``.

    Parameters
    ----------
    files
        Names of data files.
    since, until
        Bounds in UTC; ``None``: none.

    Returns
    -------
    list of str
        The names, newest day first, runs without a day last; those only where there is no bound.
    """
    undated = since is None and until is None
    wanted = [name for name in files if is_within(_day(name), since=since, until=until, undated=undated)]
    return sorted(wanted, key=lambda name: ("" if _day(name) == NO_DAY else _day(name), name), reverse=True)


def is_within(day: str, *, since: datetime | None, until: datetime | None, undated: bool) -> bool:
    """Tell whether a day can have runs with ``since <= triggered_at < until``; `undated` says it for no day."""
    if day == NO_DAY:
        return undated
    first = "" if since is None else since.date().isoformat()
    last = "9999-12-31" if until is None else (until - timedelta(microseconds=1)).date().isoformat()
    return first <= day <= last


def read(folder: Folder, files: Iterable[str], *, where: pc.Expression | None = None) -> pa.Table:
    """Read runs.

    Parameters
    ----------
    folder
        The store's folder.
    files
        Names of data files.
    where
        Which runs; ``None``: all.

    Returns
    -------
    pyarrow.Table
        The runs, columns of `RUNS`.

    Raises
    ------
    DamagedStoreError
        A file is gone or cannot be read.
    """
    names = list(files)
    if not names:
        return RUNS.arrow.empty_table()
    with _naming_damage(folder):
        return _dataset(folder, names).to_table(filter=where)


def add(
    folder: Folder, files: Mapping[str, int], runs: pa.Table, *, open_days: Mapping[str, str]
) -> tuple[dict[str, int], pa.Table]:
    """Write runs into the data set.

    Parameters
    ----------
    folder
        The store's folder.
    files
        The data files that count, each with its number of runs.
    runs
        What to add, an id once. Those that are stored and ended already are passed over.
    open_days
        The runs that are stored and open, each with its partition: what comes now takes their place.

    Returns
    -------
    tuple of dict and pyarrow.Table
        The files that count from now on, and the runs that are new or changed.

    Raises
    ------
    DamagedStoreError
        A file is gone or cannot be read.
    OSError
        The folder cannot be written.
    """
    before = by_day(files)
    run_ids, run_days = ids(runs), days(runs)
    stored = _stored(folder, [name for day in set(run_days) for name in before.get(day, [])], run_ids)
    new: dict[str, list[int]] = defaultdict(list)
    replaced: dict[str, set[str]] = defaultdict(set)
    for place, (run, day) in enumerate(zip(run_ids, run_days, strict=True)):
        if run in open_days:
            replaced[open_days[run]].add(run)
        elif run in stored:
            continue
        new[day].append(place)
    after = dict(files)
    for day in sorted({*new, *replaced}):
        old = before[day] if day in replaced else []
        name, rows = write(folder, day, stream(folder, old, without=replaced[day]), _rows(runs, new[day]))
        for superseded in old:
            del after[superseded]
        if rows:
            after[name] = rows
        else:
            folder.remove(f"{FOLDER}/{name}")
    return after, _rows(runs, sorted(itertools.chain.from_iterable(new.values())))


def _rows(table: pa.Table, places: list[int]) -> pa.Table:
    return table.take(pa.array(places, pa.int64()))


def _stored(folder: Folder, files: list[str], run_ids: list[str]) -> set[str]:
    """Give those runs that are in the files."""
    if not files:
        return set()
    wanted = ds.field("id").isin(pa.array(run_ids, pa.large_string()))
    with _naming_damage(folder):
        return set(ids(_dataset(folder, files).to_table(columns=["id"], filter=wanted)))


def stream(folder: Folder, files: list[str], *, without: AbstractSet[str]) -> Iterator[pa.RecordBatch]:
    """Read runs a batch at a time, so that a day never is in memory as a whole."""
    if not files:
        return
    where = ~ds.field("id").isin(pa.array(sorted(without), pa.large_string())) if without else None
    with _naming_damage(folder):
        yield from _dataset(folder, files).to_batches(filter=where, batch_size=_BATCH_ROWS)


def write(folder: Folder, day: str, batches: Iterator[pa.RecordBatch], table: pa.Table) -> tuple[str, int]:
    """Write one data file, the new runs before the old, and give its name and how many runs it has."""
    # The time is for `upkeep.sweep`: not every file system that a URL opens tells how old a file is.
    name = f"{_KEY}{day}/{datetime.now(UTC).strftime(TIME)}-{secrets.token_hex(4)}{_SUFFIX}"
    rows = 0

    def write(sink: pa.NativeFile) -> None:
        nonlocal rows
        with pq.ParquetWriter(sink, RUNS.arrow, compression="zstd", write_page_checksum=True) as writer:
            for group in _groups(table, batches):
                writer.write_table(group)
                rows += group.num_rows

    folder.replace(f"{FOLDER}/{name}", write)
    return name, rows


def _groups(table: pa.Table, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Gather batches to tables of the size of a row group."""
    waiting, rows = table.to_batches(), table.num_rows
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= _GROUP_ROWS:
            yield pa.Table.from_batches(waiting, schema=RUNS.arrow)
            waiting, rows = [], 0
    if rows:
        yield pa.Table.from_batches(waiting, schema=RUNS.arrow)


def _dataset(folder: Folder, files: Iterable[str]) -> ds.Dataset:
    paths = [folder.full(f"{FOLDER}/{name}") for name in files]
    return ds.dataset(paths, schema=RUNS.arrow, format=_FORMAT, filesystem=folder.filesystem)


def by_day(files: Iterable[str]) -> dict[str, list[str]]:
    """Give the names of data files by their day."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in files:
        found[_day(name)].append(name)
    return found


def _day(name: str) -> str:
    return name.partition("/")[0].removeprefix(_KEY)


def is_whole(content: pa.Buffer) -> bool:
    """Tell whether the bytes of a data file can be read from the first run to the last."""
    try:
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
            for _ in file.iter_batches(_BATCH_ROWS):
                pass
            return bool(file.schema_arrow.equals(RUNS.arrow))
    except (OSError, pa.ArrowException):
        return False


@contextlib.contextmanager
def _naming_damage(folder: Folder) -> Iterator[None]:
    try:
        with folder.naming_failure():
            yield
    except (OSError, pa.ArrowException) as error:
        raise DamagedStoreError(
            f"a data file of the store of runs in {folder.location} is gone or damaged: {error}"
        ) from error
