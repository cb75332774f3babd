"""What is kept of one account's runs, to read: the data set as the manifest counts it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING

from qoderdata.store import manifest, merging, partitions
from qoderdata.store.inbox import Inbox
from qoderdata.store.manifest import Manifest, OpenRun
from qoderdata.store.partitions import DamagedStoreError, unreadable

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa
    import pyarrow.compute as pc

    from qoderdata.files import Folder
    from qoderdata.store.coverage import Coverage

#: Below the cache folder.
FOLDER = "runs"

_DIGEST_LENGTH = 24
#: How often a reader begins anew because a fold of another process took a file away.
_READS = 5


class RunReader:
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
        self._inbox = Inbox(self.folder)
        self.coverage: Coverage = self._manifest.coverage
        self.open_runs: dict[str, OpenRun] = {}

    @property
    def exists(self) -> bool:
        """Whether anything is kept."""
        return bool(self.coverage.stretches or self._manifest.files or self._inbox.items)

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

        Raises
        ------
        CacheError
            It cannot be read now.
        """
        try:
            self._manifest = manifest.read(self.folder) or self._empty
        except OSError as error:
            raise unreadable(self.folder, error) from error
        self.coverage = self._manifest.coverage
        self.open_runs = dict(self._manifest.open_runs)

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
                tables = [partitions.read(self.folder, names, where=condition)]
                break
            except DamagedStoreError:
                # A fold of another process may have put another file in its place.
                found = None
                with contextlib.suppress(OSError):
                    found = manifest.read(self.folder)
                if not reads_left or found is None or found.files == self._manifest.files:
                    raise
                self._manifest = found
        if self._inbox.items:
            tables = merging.with_items(tables.pop(), self._inbox.items, condition)
        return merging.newest_first(tables)
