"""How much a cache folder's stores of runs hold, and how to clear them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyarrow import fs

from qoderdata.errors import CacheError
from qoderdata.store import manifest, reader
from qoderdata.store.partitions import unreadable

if TYPE_CHECKING:
    from datetime import datetime

    from qoderdata.files import Folder

_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Usage:
    """One store.

    Parameters
    ----------
    location
        Its folder.
    base_url, workspace_id, account
        Whose runs these are; the account is a digest.
    runs, open_runs
        How many runs it has, and how many of them had not ended when last read.
    files, size
        How many files, of how many bytes together.
    read_at
        When the head of the list was last read; ``None``: never.
    whole
        Whether everything back to the end of the list is there, as of `read_at`.
    """

    location: str
    base_url: str
    workspace_id: str | None
    account: str
    runs: int
    open_runs: int
    files: int
    size: int
    read_at: datetime | None
    whole: bool


def usage(folder: Folder) -> list[Usage]:
    """Tell how much each store below a cache folder holds, largest first; a damaged one is left out.

    Raises
    ------
    CacheError
        One cannot be read now.
    """
    found = []
    for key in _keys(folder):
        store = folder.folder(reader.FOLDER).folder(key)
        try:
            known = manifest.read(store)
        except OSError as error:
            raise unreadable(store, error) from error
        if known is None:
            continue
        infos = store.files()
        found.append(
            Usage(
                location=store.location,
                base_url=known.base_url,
                workspace_id=known.workspace_id,
                account=known.account,
                runs=known.runs,
                open_runs=len(known.open_runs),
                files=len(infos),
                size=sum(info.size or 0 for info in infos),
                read_at=known.coverage.read_at,
                whole=known.coverage.covers(None),
            )
        )
    return sorted(found, key=lambda one: one.size, reverse=True)


def clear(folder: Folder) -> int:
    """Remove all stores below a cache folder.

    Parameters
    ----------
    folder
        The cache's folder.

    Returns
    -------
    int
        How many files were removed.

    Raises
    ------
    CacheError
        A process is pulling into one of them.
    """
    parent = folder.folder(reader.FOLDER)
    removed = 0
    for key in _keys(folder):
        store = parent.folder(key)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(parent.lock(key, timeout=_PATIENCE_SECONDS))
            except CacheError as error:
                raise CacheError(f"{store.location} is not cleared: a process is pulling runs into it") from error
            removed += len(store.files())
            # The manifest first, so that none ever names a file that is gone.
            store.remove(manifest.NAME)
            with contextlib.suppress(FileNotFoundError):
                store.filesystem.delete_dir(store.path)
    return removed


def _keys(folder: Folder) -> list[str]:
    """List the stores below a cache folder."""
    parent = folder.folder(reader.FOLDER)
    infos = parent.filesystem.get_file_info(fs.FileSelector(parent.path, allow_not_found=True))
    return sorted(info.base_name for info in infos if info.type == fs.FileType.Directory)
