"""The store of runs, to add to: answers into the inbox, the inbox into the data set, and one writer at a time."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from qoderdata.errors import CacheError, CacheWarning, warn
from qoderdata.store import manifest, merging, partitions, upkeep
from qoderdata.store.coverage import Coverage
from qoderdata.store.partitions import DamagedStoreError
from qoderdata.store.reader import RunReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from qoderdata.files import Folder
    from qoderdata.store.inbox import Reading

_logger = logging.getLogger("qoderdata")

#: On an object store, a file that no manifest names may be one that another process is about to name.
_LEFTOVER_AGE = timedelta(hours=1)


class RunStore(RunReader):
    """The runs of one account, to read and to add to."""

    def __init__(self, folder: Folder, *, base_url: str, workspace_id: str | None, account: str) -> None:
        super().__init__(folder, base_url=base_url, workspace_id=workspace_id, account=account)
        self._writable = True

    def load(self) -> None:
        """Read what is kept; where that cannot be read now, it is left alone, and what comes is kept in memory.

        Warns
        -----
        CacheWarning
            The manifest is damaged or of another format, and all is forgotten; or it cannot be read now.
        """
        try:
            super().load()
        except CacheError as error:
            if self._writable:
                self._writable = False
                warn(f"the runs are not kept: {error}", CacheWarning)

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
        """Load, with what an earlier pull left when it was cut off, unless another process is pulling just now."""
        self.load()
        if self._inbox.is_clear:
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
        if self._writable:
            try:
                self._inbox.put(reading, table)
            except OSError as error:
                self._keep_in_memory(error)
        if not self._writable:
            self._inbox.hold(reading, table)
        self._count(reading)
        if self._inbox.is_full:
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
        """Give up the data files that are damaged, and every claim: what was in them has to be read again.

        Warns
        -----
        CacheWarning
            Says how many files were given up.

        Raises
        ------
        CacheError
            A file cannot be read now, so that nobody knows; nothing is given up.
        """
        lost = set(upkeep.damaged(self.folder, self._manifest.files))
        if not lost:
            return
        files = {name: rows for name, rows in self._manifest.files.items() if name not in lost}
        warn(
            f"{len(lost)} of {len(self._manifest.files)} data files in {self.folder.location} are gone or "
            "damaged. They are given up, and the list of runs is read again",
            CacheWarning,
        )
        self._manifest = replace(self._manifest, files=files)
        self._claim(Coverage())

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
        is_clear = self._inbox.is_clear
        self._inbox.load(after=self._manifest.sequence)
        for item in self._inbox.items:
            self._count(item.reading)
        is_new = self._manifest is self._empty
        if (is_clear and not is_new) or not self._writable:
            return
        if self._inbox.items:
            _logger.info("runs: %d answers that an earlier pull left are taken over", len(self._inbox.items))
        if not is_clear:
            self.fold(compact=True)
        with contextlib.suppress(OSError):
            upkeep.sweep(self.folder, self._manifest.files, before=datetime.now(UTC) - _LEFTOVER_AGE)
            self.folder.sweep()
            self._inbox.sweep(upto=self._inbox.number)

    def _count(self, reading: Reading) -> None:
        if reading.listing is not None:
            self.coverage = self.coverage.add(reading.listing, read_at=reading.read_at)

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
        self._inbox.mark()
        after = merging.folded(self.folder, before, self._inbox.items)
        superseded = before.files.keys() | after.files.keys()
        if compact:
            after = replace(after, files=upkeep.compact(self.folder, after.files))
        if after != before:
            manifest.write(self.folder, after)
        self._manifest, self._inbox.items = after, []
        self.coverage, self.open_runs = after.coverage, dict(after.open_runs)
        with contextlib.suppress(OSError):
            # What cannot be removed now is removed by the next call.
            for name in superseded - after.files.keys():
                self.folder.remove(f"{partitions.FOLDER}/{name}")
            self._inbox.sweep(upto=after.sequence)

    def _keep_in_memory(self, error: OSError) -> None:
        self._writable = False
        warn(
            f"the runs are not kept: {self.folder.location} cannot be written ({error.strerror or error}). "
            "Set QODERDATA_CACHE_DIR or cache_dir to a folder that can",
            CacheWarning,
        )
