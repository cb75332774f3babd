"""The inbox of a store of runs: one Arrow file an answer of the service, numbered in the order they came.

A file is there whole or not at all. It holds the runs of the answer, and what the answer says about the list. As
long as a fold is under way, a mark lies there too, so that an inbox without files says that all is in order.
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

_MARK = f"{FOLDER}/folding"
_SUFFIX = ".arrow"
_METADATA_KEY = b"qoderdata"
_NUMBER = slice(0, 12)
_FULL_ITEMS = 200
_FULL_ROWS = 50_000


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


class Inbox:
    """The answers that are not in the data set yet.

    Parameters
    ----------
    folder
        The store's folder.

    Attributes
    ----------
    items : list of Item
        The answers, in the order in which they came.
    number : int
        The number of the last answer, in this inbox or before it.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.items: list[Item] = []
        self.number = 0

    @property
    def is_full(self) -> bool:
        """Whether it is time to fold: more would cost memory, and time after a kill."""
        return len(self.items) >= _FULL_ITEMS or sum(item.table.num_rows for item in self.items) >= _FULL_ROWS

    @property
    def is_clear(self) -> bool:
        """Whether nothing is to be folded, and the last fold was not cut off."""
        return not self.folder.files(FOLDER)

    def files(self) -> dict[str, int]:
        """List its files in the order in which they came, each with its number."""
        found = sorted(info.base_name for info in self.folder.files(FOLDER) if info.base_name.endswith(_SUFFIX))
        return {f"{FOLDER}/{name}": int(name[_NUMBER]) for name in found if name[_NUMBER].isdecimal()}

    def load(self, *, after: int) -> None:
        """Read the answers that came after that of a number; one that cannot be read is one that never came."""
        files = self.files()
        self.number = max([after, *files.values()])
        items = [self._read(name, number) for name, number in files.items() if number > after]
        self.items = [item for item in items if item is not None]

    def put(self, reading: Reading, table: pa.Table) -> None:
        """Keep an answer in a file.

        Parameters
        ----------
        reading
            What it says.
        table
            Its runs.

        Raises
        ------
        OSError
            The folder cannot be written; the answer is not kept.
        """
        number = self.number + 1
        # A part by chance, since an object store does not keep two writers from the same number.
        name = f"{FOLDER}/{number:012d}-{secrets.token_hex(4)}{_SUFFIX}"
        described = table.replace_schema_metadata({_METADATA_KEY: msgspec.json.encode(reading)})

        def write(sink: pa.NativeFile) -> None:
            with pa.ipc.new_file(sink, described.schema) as writer:
                writer.write_table(described)

        self.folder.replace(name, write)
        self.number = number
        self.items.append(Item(number, name, reading, table))

    def hold(self, reading: Reading, table: pa.Table) -> None:
        """Keep an answer in memory only."""
        self.number += 1
        self.items.append(Item(self.number, None, reading, table))

    def mark(self) -> None:
        """Say that a fold is under way, before it writes anything."""
        self.folder.replace(_MARK, lambda _: None)

    def sweep(self, *, upto: int) -> None:
        """Remove the files of answers up to that of a number, which are folded or worth nothing; and the mark."""
        for name, number in self.files().items():
            if number <= upto:
                self.folder.remove(name)
        self.folder.remove(_MARK)

    def _read(self, name: str, number: int) -> Item | None:
        try:
            content = self.folder.read(name)
            if content is None:
                return None
            table = pa.ipc.open_file(content).read_all()
            reading = msgspec.json.decode((table.schema.metadata or {}).get(_METADATA_KEY, b""), type=Reading)
            table.validate(full=True)
            return Item(number, name, reading, table.replace_schema_metadata(None).cast(RUNS.arrow))
        except (OSError, ValueError, pa.ArrowException):
            return None
