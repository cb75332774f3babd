"""The data set kept in order: few files, no leftovers, and which files are damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qoderdata.schema import RUNS
from qoderdata.store import partitions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from qoderdata.files import Folder

#: A day with fewer runs than this has one file after `compact`; a larger one is left with up to `_FEW`, since to
#: write it anew each time would cost more than the few files do.
_SMALL = 500_000
_FEW = 8


def compact(folder: Folder, files: Mapping[str, int]) -> dict[str, int]:
    """Make one file of all those of a day, where that is worth it.

    Parameters
    ----------
    folder
        The store's folder.
    files
        The data files that count, each with its number of runs.

    Returns
    -------
    dict
        The files that count from now on.

    Raises
    ------
    DamagedStoreError
        A file is gone or cannot be read.
    OSError
        The folder cannot be written.
    """
    after = dict(files)
    for day, old in partitions.by_day(files).items():
        if len(old) == 1 or (len(old) <= _FEW and sum(files[name] for name in old) >= _SMALL):
            continue
        name, rows = partitions.write(
            folder, day, partitions.stream(folder, old, without=set()), RUNS.arrow.empty_table()
        )
        for superseded in old:
            del after[superseded]
        after[name] = rows
    return after


def sweep(folder: Folder, files: Iterable[str], *, before: datetime) -> None:
    """Remove data files that do not count: superseded ones, and those of a fold that was cut off.

    Parameters
    ----------
    folder
        The store's folder.
    files
        The data files that count.
    before
        On an object store, where nobody is locked out, only those that were written before this time.

    Raises
    ------
    OSError
        The folder cannot be written.
    """
    current = {folder.full(f"{partitions.FOLDER}/{name}") for name in files}
    latest = before.strftime(partitions.TIME)
    for info in folder.files(partitions.FOLDER):
        if info.path not in current and (folder.local or info.base_name < latest):
            folder.filesystem.delete_file(info.path)


def damaged(folder: Folder, files: Iterable[str]) -> list[str]:
    """Give those files that are gone, or whose bytes are not what was written.

    Raises
    ------
    CacheError
        A file is there and cannot be read now, which says nothing of what is in it.
    """
    found = []
    for name in files:
        try:
            content = folder.read(f"{partitions.FOLDER}/{name}")
        except OSError as error:
            raise partitions.unreadable(folder, error) from error
        if content is None or not partitions.is_whole(content):
            found.append(name)
    return found
