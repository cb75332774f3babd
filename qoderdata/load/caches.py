"""How much is kept on disk, and how is it removed: cached answers, and the stores of runs, sessions and outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from qoderdata import cache, store
from qoderdata.files import Folder
from qoderdata.load._answers import QUERIES
from qoderdata.settings import resolve_cache_dir

if TYPE_CHECKING:
    from pathlib import Path


class Kept(TypedDict):
    """How much there is of one kind."""

    files: int
    bytes: int


class CacheUsage(TypedDict):
    """Where the cache is, and how much it holds of each kind."""

    location: str
    queries: Kept
    runs: Kept
    sessions: Kept
    outcomes: Kept


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
        ``location``, and for ``queries`` (cached answers), ``runs``, ``sessions`` and ``outcomes`` (stores) the
        number of ``files`` and of ``bytes``.

    Raises
    ------
    CacheError
        A store cannot be read now.

    Examples
    --------
    >>> cache_usage("no-such-folder")["queries"]
    {'files': 0, 'bytes': 0}
    """
    folder = Folder(resolve_cache_dir(cache_dir))
    answers = cache.entries(folder.folder(QUERIES))

    def kept(table: store.StoredTable) -> Kept:
        stores = store.usage(folder, table)
        return {"files": sum(one.files for one in stores), "bytes": sum(one.size for one in stores)}

    return {
        "location": folder.location,
        "queries": {"files": len(answers), "bytes": sum(entry.size for entry in answers)},
        "runs": kept(store.RUNS_TABLE),
        "sessions": kept(store.SESSIONS_TABLE),
        "outcomes": kept(store.OUTCOMES_TABLE),
    }


def clear_cache(cache_dir: str | Path | None = None) -> int:
    """Remove all cached answers and all stores; nothing else in the folder is touched.

    Runs and sessions that the service no longer has are lost with their store: export them first to keep them.

    Parameters
    ----------
    cache_dir
        The cache's folder, a path or a URL; ``None``: ``QODERDATA_CACHE_DIR``, else the platform's user cache
        folder.

    Returns
    -------
    int
        How many files were removed.

    Raises
    ------
    CacheError
        Another process is pulling into a store.

    Examples
    --------
    >>> clear_cache("no-such-folder")
    0
    """
    folder = Folder(resolve_cache_dir(cache_dir))
    return cache.clear(folder.folder(QUERIES)) + store.clear(folder)
