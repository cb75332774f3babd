"""One kind of record in order of creation: its ids, the columns that filters look at, its bytes.

A record is written the first time that somebody asks for it, and kept as the bytes that go over the wire.
Knows nothing of what a record means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from numpy.typing import NDArray

#: How many filters' answers are remembered between two changes.
_REMEMBERED = 64


def encode(record: Mapping[str, Any]) -> bytes:
    """Write a record as Go does: compact, and with ``<``, ``>`` and ``&`` escaped."""
    text = orjson.dumps(record)
    text = text.replace(b"&", b"\\u0026").replace(b"<", b"\\u003c").replace(b">", b"\\u003e")
    # A copy: what orjson returns keeps the room that it grew into, several times what it needs.
    return bytes(memoryview(text))


class Table:
    """Records, oldest first.

    Parameters
    ----------
    ids
        One a record.
    columns
        Arrays by name, one value a record, for filters.
    write
        Makes the record at a place.
    """

    def __init__(
        self, ids: list[str], columns: dict[str, NDArray[Any]], write: Callable[[int], dict[str, Any]]
    ) -> None:
        self.ids = ids
        self.columns = columns
        self._write = write
        self._bodies: list[bytes | None] = [None] * len(ids)
        self._places = {identity: place for place, identity in enumerate(ids)}
        self._selected: dict[Hashable, NDArray[np.int64]] = {}
        self.columns["kept"] = np.ones(len(ids), dtype=np.bool_)

    def __len__(self) -> int:
        """Return how many records there are, forgotten ones among them."""
        return len(self.ids)

    def place(self, identity: str) -> int | None:
        """Find a record; its place stays when it is forgotten, so that cursors hold."""
        return self._places.get(identity)

    def body(self, place: int) -> bytes:
        """Return a record as it goes over the wire."""
        body = self._bodies[place]
        if body is None:
            body = self._bodies[place] = encode(self._write(place))
        return body

    def record(self, place: int) -> dict[str, Any]:
        """Return a record; a fresh dictionary every time."""
        record: dict[str, Any] = orjson.loads(self.body(place))
        return record

    def records(self) -> list[dict[str, Any]]:
        """Return all that are not forgotten, newest first."""
        return [self.record(place) for place in np.flatnonzero(self.columns["kept"])[::-1].tolist()]

    def select(self, key: Hashable, choose: Callable[[], NDArray[np.bool_]]) -> NDArray[np.int64]:
        """Return the places that a filter leaves, ascending; asked once for each key between two changes."""
        found = self._selected.get(key)
        if found is None:
            while len(self._selected) >= _REMEMBERED:
                self._selected.pop(next(iter(self._selected)))
            found = self._selected[key] = np.flatnonzero(choose() & self.columns["kept"])
        return found

    def put(self, place: int, record: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
        """Replace a record and its values in the columns."""
        self._bodies[place] = encode(record)
        for name, value in columns.items():
            self.columns[name][place] = value
        self._selected.clear()

    def append(self, records: Sequence[Mapping[str, Any]], columns: Sequence[Mapping[str, Any]]) -> None:
        """Add records, each newer than all before it."""
        for record in records:
            self._places[record["id"]] = len(self.ids)
            self.ids.append(record["id"])
            self._bodies.append(encode(record))
        for name, values in self.columns.items():
            added = np.array([row.get(name, True) for row in columns], dtype=values.dtype)
            self.columns[name] = np.concatenate([values, added])
        self._selected.clear()

    def forget(self, which: NDArray[np.bool_]) -> None:
        """Serve these no more."""
        self.columns["kept"] = self.columns["kept"] & ~which
        self._selected.clear()
