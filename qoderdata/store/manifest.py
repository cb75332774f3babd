"""What counts in a store of runs: its files, the complete stretches of the list, and the runs that are open."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003 - the file is read by these annotations
from typing import TYPE_CHECKING

import msgspec

from qoderdata.errors import CacheWarning, warn
from qoderdata.store.coverage import Coverage

if TYPE_CHECKING:
    from qoderdata.files import Folder

#: Goes up whenever what is stored changes its meaning, so that older stores are pulled again.
FORMAT = 1
NAME = "manifest.json"


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that had not ended when it was last read.

    Parameters
    ----------
    day
        The partition that it lies in.
    read_at
        When it was read.
    """

    day: str
    read_at: datetime


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that counts.

    Parameters
    ----------
    base_url, workspace_id, account
        Whose runs these are; the account is a digest.
    format
        The format of the store.
    sequence
        The number of the last answer that is in the data set.
    files
        The data files that count, by their name below ``data``, each with its number of runs.
    coverage
        Which stretches of the list are complete.
    open_runs
        The runs that are open, by their ids.
    """

    base_url: str
    workspace_id: str | None
    account: str
    format: int = FORMAT
    sequence: int = 0
    files: dict[str, int] = field(default_factory=dict)
    coverage: Coverage = field(default_factory=Coverage)
    open_runs: dict[str, OpenRun] = field(default_factory=dict)

    @property
    def runs(self) -> int:
        """How many runs the data set has."""
        return sum(self.files.values())


def read(folder: Folder) -> Manifest | None:
    """Read a store's manifest.

    Parameters
    ----------
    folder
        The store's folder.

    Returns
    -------
    Manifest or None
        ``None`` where there is none that can be used.

    Warns
    -----
    CacheWarning
        There is one, but it is damaged or of another format.

    Raises
    ------
    OSError
        It cannot be read now, so that nobody knows what it says.
    """
    content = folder.read(NAME)
    if content is None:
        return None
    try:
        return _decode(content.to_pybytes())
    except ValueError as error:
        warn(
            f"the store of runs in {folder.location} was passed over: its manifest cannot be used ({error}). "
            "The runs are pulled again",
            CacheWarning,
        )
        return None


def write(folder: Folder, manifest: Manifest) -> None:
    """Replace a store's manifest, in one step.

    Parameters
    ----------
    folder
        The store's folder.
    manifest
        What counts from now on.

    Raises
    ------
    OSError
        The folder cannot be written; the old manifest counts.
    """
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    folder.replace(NAME, lambda sink: sink.write(content))


def _decode(content: bytes) -> Manifest:
    written = msgspec.json.decode(content, type=_Written)
    if written.format != FORMAT:
        raise ValueError(f"it is of format {written.format}, not {FORMAT}")
    return msgspec.json.decode(content, type=Manifest)


@dataclass(frozen=True, slots=True)
class _Written:
    """What every format of a manifest has."""

    format: int
