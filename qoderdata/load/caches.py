"""How much is kept on disk, and how is it removed: cached answers, stores, and snapshots."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypedDict

from qoderdata import cache, history
from qoderdata.errors import CacheError, CacheWarning, warn
from qoderdata.files import Folder
from qoderdata.settings import Account, resolve_cache_dir
from qoderdata.store import MANIFEST_NAME, TABLES, StoredTable, UnusableManifestError, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pyarrow import fs

#: How long to wait for a process that is pulling.
_LOCK_SECONDS = 5.0


class FileSizes(TypedDict):
    """The number of the files of one kind, and their size in bytes."""

    files: int
    bytes: int


class CacheUsage(TypedDict):
    """The location of the cache, and the number and size of its files of each kind."""

    location: str
    queries: FileSizes
    runs: FileSizes
    sessions: FileSizes
    outcomes: FileSizes
    snapshots: FileSizes


def cache_usage(cache_dir: str | Path | None = None) -> CacheUsage:
    """Return where the cache is and how large it is.

    Parameters
    ----------
    cache_dir
        The cache's folder, a path or a URL; ``None``: ``QODERDATA_CACHE_DIR``, else the platform's user cache
        folder.

    Returns
    -------
    CacheUsage
        ``location``, and for ``queries`` (cached answers), ``runs``, ``sessions`` and ``outcomes`` (stores) and
        ``snapshots`` (of the deployments) the number of ``files`` and their size in ``bytes``.

    Raises
    ------
    CacheError
        A store, or the folder of answers or snapshots, cannot be read now.

    Warns
    -----
    CacheWarning
        A store has a damaged manifest; its files are not counted.

    Examples
    --------
    >>> import qoderdata as qd
    >>> qd.cache_usage("no-such-folder")["queries"]
    {'files': 0, 'bytes': 0}
    """
    folder = Folder(resolve_cache_dir(cache_dir))
    answers, dated = folder.folder(cache.FOLDER), folder.folder(history.FOLDER)
    with answers.raising_cache_error("cached answers"):
        queries = _file_sizes(answers.parquet_files())
    with dated.raising_cache_error("snapshots"):
        snapshots = _file_sizes(dated.parquet_files())
    runs, sessions, outcomes = (
        _file_sizes(info for _, infos in store_files(folder, table) for info in infos) for table in TABLES
    )
    return {
        "location": folder.location,
        "queries": queries,
        "runs": runs,
        "sessions": sessions,
        "outcomes": outcomes,
        "snapshots": snapshots,
    }


def _file_sizes(infos: Iterable[fs.FileInfo]) -> FileSizes:
    sizes = [info.size or 0 for info in infos]
    return {"files": len(sizes), "bytes": sum(sizes)}


def clear_cache(cache_dir: str | Path | None = None) -> int:
    """Remove all cached answers, all stores and all snapshots.

    Other files in the folder stay, but not other Parquet files below its folders ``queries`` and ``history``.
    Runs and sessions that the service no longer has are lost with their store, and the history of the deployments
    with their snapshots: export them first to keep them.

    Parameters
    ----------
    cache_dir
        The cache's folder, a path or a URL; ``None``: ``QODERDATA_CACHE_DIR``, else the platform's user cache
        folder.

    Returns
    -------
    int
        The number of files removed.

    Raises
    ------
    CacheError
        Another process is pulling into a store; or a folder cannot be read or emptied.

    Examples
    --------
    >>> import qoderdata as qd
    >>> qd.clear_cache("no-such-folder")
    0
    """
    folder = Folder(resolve_cache_dir(cache_dir))
    answers, dated = folder.folder(cache.FOLDER), folder.folder(history.FOLDER)
    with answers.raising_cache_error("cached answers", is_deleted=True):
        removed = answers.clear()
    removed += clear_stores(folder)
    with dated.raising_cache_error("snapshots", is_deleted=True):
        return removed + dated.clear()


def store_files(folder: Folder, table: StoredTable) -> list[tuple[Account, list[fs.FileInfo]]]:
    """Return the files of each store of a table; leave out one whose manifest cannot be used, with a warning."""
    found = []
    for key in _keys(folder, table):
        store = folder.folder(table.name).folder(key)
        with store.raising_cache_error(f"store of {table.name}"):
            try:
                known = read_manifest(store)
            except UnusableManifestError as error:
                known = error.old
                if known is None:
                    warn(f"the store of {table.name} in {store.location} was ignored: {error}", CacheWarning)
            if known is not None:
                found.append((known.identity.owner, store.files()))
    return found


def clear_stores(folder: Folder) -> int:
    """Remove all stores of all tables below a cache folder, and return how many files were removed.

    Raise `CacheError` if a process is writing to one of them, or one cannot be read or removed now.
    """
    removed = 0
    for table in TABLES:
        parent = folder.folder(table.name)
        for key in _keys(folder, table):
            store = parent.folder(key)
            raising = store.raising_cache_error(f"store of {table.name}", is_deleted=True)
            with raising, contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(parent.lock(key, timeout=_LOCK_SECONDS))
                except CacheError as error:
                    raise CacheError(
                        f"{store.location} is not cleared: a process is pulling {table.name} into it"
                    ) from error
                removed += len(store.files())
                # The manifest first, so that it never names a file that is gone; a folder in its place names none.
                with contextlib.suppress(IsADirectoryError):
                    store.remove(MANIFEST_NAME)
                store.remove_all()
    return removed


def _keys(folder: Folder, table: StoredTable) -> list[str]:
    parent = folder.folder(table.name)
    with parent.raising_cache_error(f"stores of {table.name}"):
        return parent.folders()
