"""How is a table on disk read, extended and repaired?"""

from __future__ import annotations

import contextlib
import functools
import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pyarrow.compute as pc

from qoderdata.errors import CacheError, CacheWarning, NotStoredWarning, warn
from qoderdata.files import digest
from qoderdata.formatting import counted
from qoderdata.store import manifest as manifests
from qoderdata.store import partitions
from qoderdata.store.coverage import Coverage
from qoderdata.store.journal import OLD_FOLDER, Journal, JournalEntry
from qoderdata.store.manifest import Identity, Manifest, OpenRow, UnusableManifestError
from qoderdata.store.partitions import DamagedStoreError, Dataset
from qoderdata.store.tables import row_ids, with_ids, without_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from qoderdata.files import Folder
    from qoderdata.store.manifest import DataFile
    from qoderdata.store.tables import StoredTable

_logger = logging.getLogger("qoderdata")

#: How many times a read is tried if commits of other processes replace files.
_READS = 5
_SET_ASIDE = "set-aside-"


class TableStore:
    """The rows of one table of one account, on disk.

    Creating the object reads and writes nothing. `load` reads `coverage` and `open_rows`; `add` changes
    `coverage`, and a commit changes both. Responses that cannot be written are kept in memory, with a
    `NotStoredWarning`.
    """

    def __init__(
        self, folder: Folder, table: StoredTable, *, base_url: str, workspace_id: str | None, account: str
    ) -> None:
        self.table = table
        self._identity = Identity(table.name, base_url, workspace_id, account)
        self._key = digest([base_url, workspace_id, account])
        self._parent = folder.folder(table.name)
        self.folder = self._parent.folder(self._key)
        self._title = f"the store of {table.name} in {self.folder.location}"
        self._dataset = Dataset(self.folder, table, self._identity)
        self._journal = Journal(self.folder, table, self._identity)
        self._manifest = Manifest(self._identity)
        self._unusable: UnusableManifestError | None = None
        self._has_manifest = False
        self._writable = True
        self.coverage: Coverage = self._manifest.coverage

    @property
    def exists(self) -> bool:
        """Whether anything is stored."""
        return bool(self.coverage.segments or self._manifest.files or self._journal.entries)

    @property
    def open_rows(self) -> dict[str, OpenRow]:
        """The rows that may still change, by their ids, if the table's rows are read one by one."""
        return self._manifest.open_rows

    @property
    def lacks_columns(self) -> bool:
        """Whether an earlier version wrote some data files, in which other engines do not find all columns."""
        return any(map(self._dataset.lacks_columns, self._manifest.files.values()))

    def open_before(
        self, time: datetime, *, since: datetime | None = None, until: datetime | None = None
    ) -> set[str]:
        """Return the open rows that were last read before a time, and may have ``since <= time < until``.

        A reading in the future counts as too old, since a clock was wrong.
        """
        now = datetime.now(UTC)
        return {
            id_
            for id_, known in self.open_rows.items()
            if not time <= known.read_at <= now
            and partitions.is_day_within(known.day, since=since, until=until, undated=True)
        }

    def contains(self, id_: str, row: pa.Table) -> bool:
        """Return whether a row that was read now is stored: in the partition of its time, or as an open row."""
        if id_ in self.open_rows:
            return True
        (day,) = partitions.row_days(row, self.table.time_column)
        try:
            return self._dataset.contains(self._manifest.files, day, id_)
        except DamagedStoreError:
            # A commit in another thread may have replaced the file. A wrong False costs requests, but no rows.
            return False

    def load(self) -> None:
        """Read the manifest; entries in the journal are not visible before a commit.

        If data files lack columns, also `recover`, which rewrites them.
        """
        self._load()
        if self.lacks_columns:
            self.recover()
        if self._unusable is not None:
            warn(f"{self._title} was ignored: {self._unusable}. The next load repairs it", CacheWarning)

    def recover(self, *, must_be_readable: bool = False) -> None:
        """Load, and commit what an interrupted pull left, unless another process is writing now.

        `must_be_readable`: raise `CacheError` if the store cannot be read; otherwise a warning says so.
        """
        if must_be_readable:
            self._load()
        else:
            self._load_or_keep_in_memory()
        if not self._writable or self._is_in_order():
            return
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._parent.lock(self._key, timeout=0))
            except CacheError:
                return
            except OSError as error:
                self._keep_in_memory(error)
            self._load_or_keep_in_memory()
            self._repair()

    @contextlib.contextmanager
    def writer_lock(self) -> Iterator[None]:
        """Hold the writer's lock, and first commit everything that an earlier pull left.

        Wait while another process writes; raise `CacheError` if it makes no progress for minutes.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._parent.lock(self._key))
            except OSError as error:
                self._keep_in_memory(error)
            has_unsaved_rows = not self._writable and self._journal.entries
            if not has_unsaved_rows:
                self._load_or_keep_in_memory()
                self._repair()
            yield

    def add(self, entry: JournalEntry) -> None:
        """Store a response; after this has returned, a process that is killed does not lose it."""
        if self._writable:
            try:
                self._journal.append(entry)
            except OSError as error:
                self._keep_in_memory(error)
        if not self._writable:
            self._journal.entries.append(entry)
        self.coverage = _extended(self.coverage, [entry])
        if self._journal.is_full:
            self.commit()

    def commit(self, *, compact: bool = False) -> None:
        """Write the journal's rows to the data set; `compact`: also join small files.

        If a data file is damaged, nothing counts as complete any more.
        """
        if not self._writable:
            return
        try:
            try:
                self._commit(compact=compact)
            except DamagedStoreError:
                self.forget_damaged()
                self._commit(compact=compact)
        except OSError as error:
            self._keep_in_memory(error)

    def drop_last_cursor(self) -> None:
        """Shorten the newest segment, after the service refused its cursor."""
        self.commit()
        # If the commit found a damaged file, nothing counts as complete, and there is no cursor.
        if self.coverage.segments:
            self._write_coverage(self.coverage.drop_last_cursor())

    def forget_coverage(self) -> None:
        """Let no part of the list count as complete, so that all of it is read again; the rows stay."""
        self._write_coverage(Coverage(has_unclaimed=bool(self._manifest.files or self._journal.entries)))

    def forget_damaged(self) -> None:
        """Set the damaged data files aside; nothing counts as complete any more, as their rows must be read again.

        Raise `CacheError`, and change nothing, if a file cannot be read now: it may be damaged or not.
        """
        with self._raising_cache_error():
            lost = self._dataset.damaged(self._manifest.files)
        if not lost:
            return
        files = {name: file for name, file in self._manifest.files.items() if name not in lost}
        note = self._set_aside(f"{partitions.FOLDER}/{name}" for name in lost)
        warn(
            f"{len(lost)} of {counted(len(self._manifest.files), 'data file')} in {self.folder.location} "
            f"{'is' if len(lost) == 1 else 'are'} gone or damaged"
            f"{note}. The list of {self.table.name} is read again",
            CacheWarning,
        )
        self._manifest = replace(self._manifest, files=files)
        self._write_coverage(Coverage(has_unclaimed=True))

    def files(self, *, since: datetime | None = None, until: datetime | None = None) -> list[str]:
        """Return the valid data files that can have rows with ``since <= time < until``, newest day first.

        They are paths in ``folder.filesystem``.
        """
        files = partitions.files_within(self._manifest.files, since=since, until=until)
        return [self._dataset.path(name) for name in files]

    def count(self, *, since: datetime, until: datetime) -> int:
        """Return the number of rows that are stored for the days from `since` to `until`, without reading them."""
        files = partitions.files_within(self._manifest.files, since=since, until=until)
        return sum(file.rows for file in files.values())

    def newest(self) -> datetime | None:
        """Return the latest time of all rows; ``None`` if there is none."""
        column = self.table.time_column
        rows = self.read() if self._journal.entries else self.newest_rows([column])
        time = pc.max(rows[column]).as_py()
        return cast("datetime | None", time)

    def newest_rows(self, columns: list[str]) -> pa.Table:
        """Return columns of the rows of the newest day."""

        def of_newest_day(files: dict[str, DataFile]) -> dict[str, DataFile]:
            newest_first = partitions.by_day(partitions.files_within(files, since=None, until=None))
            return next(iter(newest_first.values()), {})

        empty = self.table.schema.arrow.empty_table().select(columns)
        return pa.concat_tables([empty, *self._read_files(of_newest_day, columns=columns)])

    def read(
        self,
        columns: list[str] | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        where: pc.Expression | None = None,
    ) -> pa.Table:
        """Return the rows with ``since <= time < until`` and a further condition, each once, newest first.

        `columns`: those to read, including ``id`` and ``created_at``; ``None``: all. Raise `DamagedStoreError` if
        a data file is gone or has changed.
        """
        condition = self.table.condition(since, until, where)
        # Whether a row in memory replaces a stored one depends on all columns of both, and not on the condition.
        found_columns, found_where = (None, None) if self._journal.entries else (columns, condition)
        wanted = functools.partial(partitions.files_within, since=since, until=until)
        tables = self._read_files(wanted, where=found_where, columns=found_columns)
        if self._journal.entries:
            rows = self._with_entries(tables)
            tables = [rows if condition is None else rows.filter(condition)]
        return self.table.newest_first(tables, columns)

    def _read_files(
        self,
        wanted: Callable[[dict[str, DataFile]], dict[str, DataFile]],
        *,
        where: pc.Expression | None = None,
        columns: list[str] | None = None,
    ) -> list[pa.Table]:
        """Read the data files that `wanted` selects; again if a commit of another process replaced one."""
        for _ in range(_READS):
            files = self._manifest.files
            try:
                return self._dataset.read(wanted(files), where=where, columns=columns)
            except DamagedStoreError:
                found = None
                with contextlib.suppress(OSError, UnusableManifestError):
                    found = manifests.read_manifest(self.folder, self._identity)
                if found is None or found.files == files:
                    raise
                self._manifest = found
        return self._dataset.read(wanted(self._manifest.files), where=where, columns=columns)

    def _load(self) -> None:
        self._unusable, found = None, None
        try:
            with self._raising_cache_error():
                found = manifests.read_manifest(self.folder, self._identity)
        except UnusableManifestError as error:
            self._unusable = error
        self._has_manifest = found is not None
        self._set_manifest(found or Manifest(self._identity))

    def _load_or_keep_in_memory(self) -> None:
        try:
            self._load()
        except CacheError as error:
            self._keep_in_memory(error)

    def _raising_cache_error(self) -> contextlib.AbstractContextManager[None]:
        return self.folder.raising_cache_error(f"store of {self.table.name}")

    def _set_manifest(self, manifest: Manifest) -> None:
        self._manifest, self.coverage = manifest, manifest.coverage

    def _is_in_order(self) -> bool:
        """Return whether there is nothing to commit or repair; False if the folder cannot be listed."""
        try:
            return self._journal.is_empty_on_disk and not self._needs_rebuild()
        except OSError:
            return False

    def _needs_rebuild(self) -> bool:
        """Return whether there are files, but no usable manifest, or files lack columns."""
        if self._has_manifest:
            return self.lacks_columns
        return self._unusable is not None or bool(self._dataset.names())

    def _repair(self) -> None:
        """Commit what an earlier pull left, rebuild a store without a manifest, and remove other files."""
        try:
            if self._needs_rebuild():
                self._rebuild()
        except OSError as error:
            self._keep_in_memory(error)
        try:
            is_clean = self._journal.is_empty_on_disk
            self._journal.load(after=self._manifest.sequence)
        except OSError as error:
            self._keep_in_memory(error)
            return
        self.coverage = _extended(self.coverage, self._journal.entries)
        if is_clean or not self._writable:
            return
        if self._journal.entries:
            _logger.info(
                "%s: %d responses that an earlier pull left are recovered",
                self.table.name,
                len(self._journal.entries),
            )
        self.commit(compact=True)
        if not self._writable:
            return
        with contextlib.suppress(OSError):
            self._dataset.remove_unlisted(self._manifest.files)
            self.folder.remove_temporary_files()

    def _rebuild(self) -> None:
        """Write a new manifest from the data files that can be used, and set the others aside."""
        unusable, self._unusable = self._unusable, None
        if not self._writable:
            if unusable is not None:
                warn(f"{self._title} was ignored: {unusable}", CacheWarning)
            return
        if unusable is not None and unusable.is_foreign:
            note = self._set_aside(self._all_files())
            self._warn_repaired(f"{unusable}{note}")
            return
        old = self._manifest if self._has_manifest else None if unusable is None else unusable.old
        files, useless = self._dataset.rebuild(self._dataset.names() if old is None else old.files)
        if self._has_manifest and self._newest_manifest() != old:
            # An object store has no lock: another process has rewritten the files meanwhile.
            self._load_or_keep_in_memory()
            return
        self._journal.set_marker()
        # Set files aside before the manifest is written: a file that no manifest names may be removed.
        in_the_way = [manifests.NAME] if unusable is not None and unusable.is_folder else []
        note = self._set_aside([f"{partitions.FOLDER}/{name}" for name in useless] + in_the_way)
        coverage = old.coverage if old and not useless else Coverage(has_unclaimed=bool(files))
        before = old or Manifest(self._identity)
        open_rows = self._dataset.open_rows(files, before.open_rows) if self.table.is_read_singly else {}
        manifest = replace(before, files=files, coverage=coverage, open_rows=open_rows)
        if old is not None:
            self._journal.convert_old(after=old.sequence)
        manifests.write_manifest(self.folder, manifest)
        self._has_manifest = True
        self._set_manifest(manifest)
        with contextlib.suppress(OSError):
            self.folder.delete(info.path for info in self.folder.files(OLD_FOLDER))
        reason = "it has data files that cannot be used" if useless else None
        if unusable is not None and old is None:
            reason = str(unusable)
        if reason is not None:
            rows = sum(file.rows for file in files.values())
            self._warn_repaired(f"{reason}; {rows} rows were recovered{note}")

    def _warn_repaired(self, reason: str) -> None:
        warn(f"{self._title} was repaired: {reason}. The list is read again", CacheWarning)

    def _all_files(self) -> list[str]:
        """Return the names of all files of the store, with the manifest last."""
        prefix = self.folder.path_of("")
        names = [info.path.removeprefix(prefix) for info in self.folder.files()]
        present = [name for name in names if not name.startswith(_SET_ASIDE)]
        return sorted(present, key=lambda name: name == manifests.NAME)

    def _set_aside(self, names: Iterable[str]) -> str:
        """Move files to a separate folder, where they are ignored; return a note about it for a warning."""
        folder = f"{_SET_ASIDE}{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        moved = sum(self.folder.move(name, f"{folder}/{name}") for name in names)
        if not moved:
            return ""
        verb = "is" if moved == 1 else "are"
        return f"; {counted(moved, 'file')} that cannot be used {verb} in {self.folder.location}/{folder}"

    def _write_coverage(self, coverage: Coverage) -> None:
        self.coverage = coverage
        self._manifest = replace(self._manifest, coverage=coverage)
        if self._writable:
            try:
                manifests.write_manifest(self.folder, self._manifest)
            except OSError as error:
                self._keep_in_memory(error)

    def _commit(self, *, compact: bool) -> None:
        # An object store has no lock: another process may have written a manifest.
        before = self._manifest if self.folder.local else self._newest_manifest()
        self._journal.set_marker()
        after = self._write_entries(before)
        names = before.files.keys() | after.files.keys()
        if compact:
            after = replace(after, files=self._dataset.compact(after.files))
        if after != before or not self._has_manifest:
            manifests.write_manifest(self.folder, after)
            self._has_manifest = True
        self._set_manifest(after)
        self._journal.entries = []
        with contextlib.suppress(OSError):
            # Files that cannot be removed now are removed by the next call.
            for name in names - after.files.keys():
                self.folder.remove(f"{partitions.FOLDER}/{name}")
            self._journal.remove(upto=after.sequence)
            if compact:
                self._journal.remove_marker()

    def _newest_manifest(self) -> Manifest:
        try:
            return manifests.read_manifest(self.folder, self._identity) or Manifest(self._identity)
        except UnusableManifestError:
            return self._manifest

    def _write_entries(self, before: Manifest) -> Manifest:
        """Write the journal's rows to new data files, and return the manifest that names them."""
        entries = self._journal.entries
        files, accepted = self._dataset.add(before.files, self._journal.rows(), open_rows=before.open_rows)
        open_rows = dict(before.open_rows)
        if self.table.is_read_singly:
            for id_ in row_ids(with_ids(accepted, open_rows)):
                del open_rows[id_]
            opened = accepted.filter(self.table.may_change(accepted))
            ids = row_ids(opened)
            read_at = {id_: entry.read_at for entry in entries for id_ in row_ids(with_ids(entry.table, ids))}
            for id_, day in zip(ids, partitions.row_days(opened, self.table.time_column), strict=True):
                open_rows[id_] = OpenRow(day, read_at[id_])
        for entry in entries:
            for id_ in entry.gone:
                open_rows.pop(id_, None)
            for id_ in entry.unreadable:
                if id_ in open_rows:
                    open_rows[id_] = replace(open_rows[id_], read_at=entry.read_at)
        coverage = _extended(before.coverage, entries)
        sequence = max(before.sequence, self._journal.number)
        return replace(before, sequence=sequence, files=files, coverage=coverage, open_rows=open_rows)

    def _with_entries(self, tables: list[pa.Table]) -> pa.Table:
        """Join stored rows with those that are only in memory, which replace stored rows that may change."""
        rows = self._journal.rows()
        stored = pa.concat_tables([self.table.schema.arrow.empty_table(), *tables]).unify_dictionaries()
        again = with_ids(stored, rows["id"])
        final = again.filter(pc.invert(self.table.may_change(again)))
        rows = without_ids(rows, final["id"])
        return pa.concat_tables([without_ids(stored, rows["id"]), rows]).unify_dictionaries()

    def _keep_in_memory(self, error: OSError | CacheError) -> None:
        if self._writable:
            self._writable = False
            reason = self.folder.describe_write_failure(error) if isinstance(error, OSError) else error
            warn(f"the {self.table.name} are not kept: {reason}", NotStoredWarning)


def _extended(coverage: Coverage, entries: Iterable[JournalEntry]) -> Coverage:
    """Return the coverage with the pages of a list among some entries."""
    for entry in entries:
        if entry.listing is not None:
            coverage = coverage.add(entry.listing, read_at=entry.read_at)
    return coverage
