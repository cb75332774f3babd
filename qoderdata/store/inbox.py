"""The inbox of a store of runs: one Arrow file an answer of the service, numbered in the order they came.

A file is there whole or not at all. It holds the runs of the answer, and what the answer says about the list.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - files are read by these annotations
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from qoderdata.schema import RUNS
from qoderdata.store.coverage import Listing  # noqa: TC001 - likewise

if TYPE_CHECKING:
    from qoderdata.files import Folder

FOLDER = "inbox"

_SUFFIX = ".arrow"
_METADATA_KEY = b"qoderdata"
_NUMBER = slice(0, 12)


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says, besides its runs.

    Parameters
    ----------
    read_at
        When it was asked for.
    listing
        The page of the list that it is; ``None`` for an answer about single runs.
    gone
        Runs that the service no longer knows.
    """

    read_at: datetime
    listing: Listing | None = None
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """An answer that is not in the data set yet.

    Parameters
    ----------
    number
        Its place in the order in which the answers came.
    name
        Its file in the store's folder; ``None`` where it is only in memory.
    reading
        What it says.
    table
        Its runs, columns of `RUNS`.
    """

    number: int
    name: str | None
    reading: Reading
    table: pa.Table


def names(folder: Folder) -> dict[str, int]:
    """List the files of a store's inbox in the order in which they came, each with its number."""
    found = sorted(info.base_name for info in folder.files(FOLDER) if info.base_name.endswith(_SUFFIX))
    return {f"{FOLDER}/{name}": int(name[_NUMBER]) for name in found if name[_NUMBER].isdecimal()}


def write(folder: Folder, number: int, reading: Reading, table: pa.Table) -> str:
    """Keep an answer, and give its file's name.

    Parameters
    ----------
    folder
        The store's folder.
    number
        Its place in the order in which the answers came.
    reading
        What it says.
    table
        Its runs.

    Raises
    ------
    OSError
        The folder cannot be written.
    """
    # A part by chance, since an object store does not keep two writers from the same number.
    name = f"{FOLDER}/{number:012d}-{secrets.token_hex(4)}{_SUFFIX}"
    table = table.replace_schema_metadata({_METADATA_KEY: msgspec.json.encode(reading)})

    def write_table(sink: pa.NativeFile) -> None:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    folder.replace(name, write_table)
    return name


def read(folder: Folder, name: str, number: int) -> Item | None:
    """Give an answer that was kept; ``None`` where its file is not there any more, or cannot be used.

    An answer that cannot be used is one that was not got: the service is asked again.
    """
    try:
        content = folder.read(name)
        if content is None:
            return None
        table = pa.ipc.open_file(content).read_all()
        reading = msgspec.json.decode((table.schema.metadata or {}).get(_METADATA_KEY, b""), type=Reading)
        table.validate(full=True)
        return Item(number, name, reading, table.replace_schema_metadata(None).cast(RUNS.arrow))
    except (OSError, ValueError, pa.ArrowException):
        return None
