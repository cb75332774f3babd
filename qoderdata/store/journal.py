"""Which responses of the service are on disk, but not in the data set yet?

Each response is one Arrow file, numbered in the order of arrival. A file is written completely or not at all, and
its name has a checksum of its bytes, so that a process that is killed loses none. Writes are not flushed to the
disk: an entry that a power failure damaged is ignored, and its response is requested again. From the first commit
of a pull until its last one, which joins small data files, the folder also has a marker. So an empty journal means
that nothing is left to do. `table_store` commits what an interrupted pull has left.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - msgspec reads these annotations
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qoderdata.store.coverage import Listing  # noqa: TC001 - likewise
from qoderdata.store.manifest import Identity, checksum
from qoderdata.store.tables import take_rows
from qoderdata.stored_columns import with_all_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qoderdata.files import Folder
    from qoderdata.store.tables import StoredTable

FOLDER = "journal"
#: The folder of the journal of version 0.1, whose entries name no account and have no checksum.
OLD_FOLDER = "inbox"

_MARKER = f"{FOLDER}/committing"
_SUFFIX = ".arrow"
_METADATA_KEY = b"qoderdata"
_NUMBER = slice(0, 12)
_FULL_ENTRIES = 200
_FULL_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One response of the service."""

    #: Its rows, in the response's order.
    table: pa.Table
    #: When it was requested.
    read_at: datetime
    #: Its position in the list; ``None`` for a response about single records.
    listing: Listing | None = None
    #: The ids of records that the service no longer has.
    gone: tuple[str, ...] = ()
    #: The ids of records that the service refused, or that no request can name.
    unreadable: tuple[str, ...] = ()


class _Facts(msgspec.Struct):
    """The facts in the metadata of an entry's file."""

    read_at: datetime
    #: ``None`` in version 0.1.
    identity: Identity | None = None
    listing: Listing | None = None
    gone: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


class Journal:
    """The entries that are not in the data set yet; those of another account are ignored."""

    def __init__(self, folder: Folder, table: StoredTable, identity: Identity) -> None:
        self.entries: list[JournalEntry] = []
        #: The number of the last entry, committed or not.
        self.number = 0
        self._folder = folder
        self._table = table
        self._identity = identity

    @property
    def is_full(self) -> bool:
        """Whether to commit now: more entries would use more memory, and make recovery slower."""
        rows = sum(entry.table.num_rows for entry in self.entries)
        return len(self.entries) >= _FULL_ENTRIES or rows >= _FULL_ROWS

    @property
    def is_empty_on_disk(self) -> bool:
        """Whether there is nothing to commit, and the last pull was completed."""
        return not self._folder.files(FOLDER)

    def load(self, *, after: int) -> None:
        """Read the entries after a number; ignore those that cannot be read."""
        files = self._files(FOLDER)
        self.number = max([after, *files.values()])
        self.entries = self._entries(files, after=after)

    def convert_old(self, *, after: int) -> None:
        """Read the entries after a number, and write those of version 0.1 in the present format after them."""
        self.load(after=after)
        for entry in self._entries(self._files(OLD_FOLDER), after=after):
            self.append(entry)

    def append(self, entry: JournalEntry) -> None:
        """Add an entry; if the folder cannot be written, raise `OSError` and do not add it."""
        content = self._encode(entry)
        # The random part: on an object store, two writers may take the same number.
        name = f"{self.number + 1:012d}-{secrets.token_hex(4)}-{checksum(content)}{_SUFFIX}"
        self._folder.replace(f"{FOLDER}/{name}", lambda sink: sink.write(content), durable=False)
        self.number += 1
        self.entries.append(entry)

    def rows(self) -> pa.Table:
        """Return each row of all entries once: the last reading, or the last one that cannot change."""
        rows = pa.concat_tables([self._table.schema.arrow.empty_table(), *(entry.table for entry in self.entries)])
        rows = rows.unify_dictionaries().combine_chunks()
        ids = pc.unique(rows["id"])
        if len(ids) == len(rows):
            return rows
        # The last row that cannot change, otherwise the last one.
        rank = np.arange(len(rows)) + len(rows) * ~np.asarray(self._table.may_change(rows), bool)
        best = np.zeros(len(ids), np.int64)
        np.maximum.at(best, pc.index_in(rows["id"], value_set=ids).to_numpy(), rank)
        return take_rows(rows, np.sort(best % len(rows)))

    def set_marker(self) -> None:
        """Write the marker; it comes before all other writes of a commit."""
        self._folder.replace(_MARKER, lambda _: None)

    def remove_marker(self) -> None:
        """Remove the marker, after the last commit of a pull."""
        self._folder.remove(_MARKER)

    def remove(self, *, upto: int) -> None:
        """Remove the files of the entries up to a number, which are committed or unusable."""
        for name, number in self._files(FOLDER).items():
            if number <= upto:
                self._folder.remove(name)

    def _encode(self, entry: JournalEntry) -> pa.Buffer:
        facts = _Facts(entry.read_at, self._identity, entry.listing, entry.gone, entry.unreadable)
        # The file format allows one dictionary per column.
        table = entry.table.unify_dictionaries().replace_schema_metadata(
            {_METADATA_KEY: msgspec.json.encode(facts)}
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue()

    def _files(self, below: str) -> dict[str, int]:
        """Return the files of entries in a folder, in order, each with its number."""
        names = sorted(info.base_name for info in self._folder.files(below) if info.base_name.endswith(_SUFFIX))
        return {f"{below}/{name}": int(name[_NUMBER]) for name in names if name[_NUMBER].isdecimal()}

    def _entries(self, files: Mapping[str, int], *, after: int) -> list[JournalEntry]:
        found = [self._read(name) for name, number in files.items() if number > after]
        return [entry for entry in found if entry is not None]

    def _read(self, name: str) -> JournalEntry | None:
        is_old = name.startswith(OLD_FOLDER)
        try:
            content = self._folder.read(name)
            if content is None:
                return None
            if not is_old and not name.endswith(f"-{checksum(content)}{_SUFFIX}"):
                return None
            table = pa.ipc.open_file(content).read_all()
            table.validate(full=True)
            facts = msgspec.json.decode((table.schema.metadata or {}).get(_METADATA_KEY, b""), type=_Facts)
            if facts.identity != (None if is_old else self._identity):
                return None
            table = with_all_columns(table, self._table.schema)
        except (OSError, ValueError, msgspec.MsgspecError, pa.ArrowException):
            return None
        return JournalEntry(table, facts.read_at, facts.listing, facts.gone, facts.unreadable)
