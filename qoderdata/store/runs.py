"""The store of runs: what is kept of one account's list, put together from inbox, data set and manifest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from qoderdata.errors import CacheError, CacheWarning
from qoderdata.store import inbox, manifest, merging, partitions
from qoderdata.store.coverage import Coverage
from qoderdata.store.inbox import Item, Reading
from qoderdata.store.manifest import Manifest, OpenRun
from qoderdata.store.partitions import DamagedStoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    import pyarrow.compute as pc

    from qoderdata.files import Folder

_logger = logging.getLogger("qoderdata")

#: Below the cache folder.
FOLDER = "runs"

_DIGEST_LENGTH = 24
#: The inbox is folded when it has this many answers or runs: more would cost memory and time after a kill.
_FOLD_ITEMS = 200
_FOLD_ROWS = 50_000
#: How often a reader begins anew because a fold of another process took a file away.
_READS = 5
#: On an object store, a file that no manifest names may be one that another process is about to name.
_LEFTOVER_AGE = timedelta(hours=1)


class RunStore:
    """The runs of one account, as far as they were read.

    Making one touches nothing. What `coverage`, `open_runs` and `runs` say is what was there at `load`, and what
    this object added since.

    Parameters
    ----------
    folder
        The cache's folder.
    base_url, workspace_id, account
        Whose runs these are; the account is a digest.

    Attributes
    ----------
    folder : Folder
        The store's own folder.
    coverage : Coverage
        Which stretches of the list are complete.
    open_runs : dict
        The runs that had not ended when they were last read, by their ids.
    """

    def __init__(self, folder: Folder, *, base_url: str, workspace_id: str | None, account: str) -> None:
        canonical = json.dumps([base_url, workspace_id, account])
        self._key = hashlib.sha256(canonical.encode()).hexdigest()[:_DIGEST_LENGTH]
        self._parent = folder.folder(FOLDER)
        self.folder = self._parent.folder(self._key)
        self._empty = Manifest(base_url, workspace_id, account)
        self._manifest = self._empty
        self._items: list[Item] = []
        self._number = 0
        self._writable = True
        self.coverage: Coverage = self._manifest.coverage
        self.open_runs: dict[str, OpenRun] = {}

    @property
    def exists(self) -> bool:
        """Whether anything is kept."""
        return bool(self.coverage.stretches or self._manifest.files or self._items)

    @property
    def runs(self) -> int:
        """How many runs are in the data set."""
        return self._manifest.runs

    def open_before(
        self, moment: datetime, *, since: datetime | None = None, until: datetime | None = None
    ) -> set[str]:
        """Give the open runs that were last read before a time, and may have ``since <= triggered_at < until``."""
        return {
            run
            for run, known in self.open_runs.items()
            if known.read_at < moment and partitions.is_within(known.day, since=since, until=until, undated=True)
        }

    def load(self) -> None:
        """Read what is kept; answers in the inbox are not seen before a fold.

        Warns
        -----
        CacheWarning
            The manifest is damaged or of another format; all is forgotten then.
        """
        self._manifest = manifest.read(self.folder) or self._empty
        self.coverage = self._manifest.coverage
        self.open_runs = dict(self._manifest.open_runs)

    @contextlib.contextmanager
    def pulling(self) -> Iterator[None]:
        """Be the only one who writes, with everything folded that an earlier pull left in the inbox.

        Another process that pulls the same runs is waited for.

        Warns
        -----
        CacheWarning
            The folder cannot be written; what comes is kept in memory.
        """
        with contextlib.ExitStack() as stack:
            try:
                self._acquire(stack)
            except OSError as error:
                self._keep_in_memory(error)
            self.load()
            self._recover()
            yield

    def take_over(self) -> None:
        """Load, with what an earlier pull left in the inbox, unless another process is pulling just now."""
        self.load()
        if not inbox.names(self.folder):
            return
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._parent.lock(self._key, timeout=0))
            except CacheError:
                return
            except OSError:
                self._writable = False
            self.load()
            self._recover()

    def add(self, reading: Reading, table: pa.Table) -> None:
        """Keep an answer. When this returns, a kill does not lose it.

        Parameters
        ----------
        reading
            What the answer says.
        table
            Its runs, columns of `RUNS`, in the answer's order.

        Warns
        -----
        CacheWarning
            The folder cannot be written; this and what comes after is kept in memory.
        """
        self._number += 1
        name = None
        if self._writable:
            try:
                name = inbox.write(self.folder, self._number, reading, table)
            except OSError as error:
                self._keep_in_memory(error)
        self._take(Item(self._number, name, reading, table))
        if len(self._items) >= _FOLD_ITEMS or sum(item.table.num_rows for item in self._items) >= _FOLD_ROWS:
            self.fold()

    def fold(self, *, compact: bool = False) -> None:
        """Take what is in the inbox into the data set.

        Parameters
        ----------
        compact
            Make few files of many, too.

        Warns
        -----
        CacheWarning
            The folder cannot be written, and the answers stay in memory; or a data file is gone or damaged, and
            nothing is claimed to be complete any more.
        """
        if not self._writable:
            return
        try:
            try:
                self._fold(compact=compact)
            except DamagedStoreError:
                self.forget_damaged()
                self._fold(compact=compact)
        except OSError as error:
            self._keep_in_memory(error)

    def retreat(self) -> None:
        """Claim less of the newest stretch, after the service refused its cursor."""
        self.fold()
        self._claim(self.coverage.retreat())

    def forget_damaged(self) -> None:
        """Give up the data files that cannot be read, and every claim: what was in them has to be read again.

        Warns
        -----
        CacheWarning
            Says how many files were given up.
        """
        lost = set(partitions.damaged(self.folder, self._manifest.files))
        files = {name: rows for name, rows in self._manifest.files.items() if name not in lost}
        warnings.warn(
            f"{len(lost)} of {len(self._manifest.files)} data files in {self.folder.location} are gone or "
            "damaged. They are given up, and the list of runs is read again",
            CacheWarning,
            stacklevel=2,
        )
        self._manifest = replace(self._manifest, files=files)
        self._claim(Coverage())

    def files(self, *, since: datetime | None = None, until: datetime | None = None) -> list[str]:
        """Give the data files that count and can have runs with ``since <= triggered_at < until``.

        Parameters
        ----------
        since, until
            Bounds in UTC; ``None``: none.

        Returns
        -------
        list of str
            Paths in ``folder.filesystem``, newest day first.
        """
        names = partitions.within(self._manifest.files, since=since, until=until)
        return [self.folder.full(f"{partitions.FOLDER}/{name}") for name in names]

    def read(
        self, *, since: datetime | None = None, until: datetime | None = None, where: pc.Expression | None = None
    ) -> pa.Table:
        """Give runs.

        Parameters
        ----------
        since, until
            ``since <= triggered_at < until``, in UTC; ``None``: no bound.
        where
            A further condition; ``None``: none.

        Returns
        -------
        pyarrow.Table
            One row a run, newest first: by `created_at`, then `id`, both descending, runs without `created_at`
            last. Columns of `RUNS`.

        Raises
        ------
        DamagedStoreError
            A data file that counts is gone or damaged.
        """
        condition = merging.condition(since, until, where)
        for reads_left in reversed(range(_READS)):
            names = partitions.within(self._manifest.files, since=since, until=until)
            try:
                table = partitions.read(self.folder, names, where=condition)
                break
            except DamagedStoreError:
                # A fold of another process may have put another file in its place.
                found = manifest.read(self.folder)
                if not reads_left or found is None or found.files == self._manifest.files:
                    raise
                self._manifest = found
        if self._items:
            table = merging.with_items(table, self._items, condition)
        return merging.newest_first(table)

    def _acquire(self, stack: contextlib.ExitStack) -> None:
        try:
            stack.enter_context(self._parent.lock(self._key, timeout=0))
        except CacheError:
            _logger.info(
                "runs: waiting for another process that pulls the same runs into %s", self.folder.location
            )
            stack.enter_context(self._parent.lock(self._key))

    def _recover(self) -> None:
        """Take over what an earlier pull left when it was cut off, and remove what does not count."""
        names = inbox.names(self.folder)
        self._number = max([self._manifest.sequence, *names.values()])
        self._items = []
        for name, number in names.items():
            item = inbox.read(self.folder, name, number) if number > self._manifest.sequence else None
            if item is not None:
                self._take(item)
        if self._items:
            _logger.info("runs: %d answers that an earlier pull left are taken over", len(self._items))
            self.fold()
        if self._writable:
            with contextlib.suppress(OSError):
                for name in names:
                    self.folder.remove(name)
                partitions.sweep(self.folder, self._manifest.files, before=datetime.now(UTC) - _LEFTOVER_AGE)
                self.folder.sweep()

    def _take(self, item: Item) -> None:
        self._items.append(item)
        if item.reading.listing is not None:
            self.coverage = self.coverage.add(item.reading.listing, read_at=item.reading.read_at)

    def _claim(self, coverage: Coverage) -> None:
        self.coverage = coverage
        self._manifest = replace(self._manifest, coverage=coverage)
        if self._writable:
            try:
                manifest.write(self.folder, self._manifest)
            except OSError as error:
                self._keep_in_memory(error)

    def _fold(self, *, compact: bool) -> None:
        before = manifest.read(self.folder) or self._empty
        after = merging.folded(self.folder, before, self._items)
        if compact:
            after = replace(after, files=partitions.compact(self.folder, after.files))
        if after != before:
            manifest.write(self.folder, after)
        folded, self._items, self._manifest = self._items, [], after
        self.coverage, self.open_runs = after.coverage, dict(after.open_runs)
        with contextlib.suppress(OSError):
            # What cannot be removed now is removed by the next pull.
            for item in folded:
                if item.name is not None:
                    self.folder.remove(item.name)
            for name in before.files.keys() - after.files.keys():
                self.folder.remove(f"{partitions.FOLDER}/{name}")

    def _keep_in_memory(self, error: OSError) -> None:
        self._writable = False
        warnings.warn(
            f"the runs are not kept: {self.folder.location} cannot be written ({error.strerror or error}). "
            "Set QODERDATA_CACHE_DIR or cache_dir to a folder that can",
            CacheWarning,
            stacklevel=3,
        )
