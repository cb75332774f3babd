"""The pages of one pull to one Arrow table.

`Decoder.scan` proves in the fetching thread that a page is whole, `Decoder.decode` makes a table of it in any
thread, `Decoder.finish` joins the tables and says once what was odd. Knows nothing of network and disk.
"""

from __future__ import annotations

import itertools
import math
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from qoderdata.errors import APIResponseValidationError
from qoderdata.frame.collecting import UNCOLLECTED
from qoderdata.frame.exact import Misfit, flatten
from qoderdata.frame.fast import read
from qoderdata.frame.joining import join
from qoderdata.frame.jsontext import NotJSONError, is_utf8, parse
from qoderdata.frame.shapes import Shape
from qoderdata.frame.texts import Refused, joined

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qoderdata.schema import Schema

#: A page that is refused by the fast way is divided into this many parts, and each refused part again.
_DIVISOR = 4
#: So few records go the exact way at once.
_FEW = 20
#: With so many refused parts, dividing is no gain.
_TOO_MANY = 3


@dataclass(frozen=True, slots=True, repr=False)
class Page:
    """One scanned page: what its envelope says, and what was read of its records so far.

    Parameters
    ----------
    number
        Its place in the pull, from 0.
    body
        The answer's body.
    count
        How many records it has; it may be fewer than were asked for.
    has_more
        Whether more pages follow.
    first_id, last_id, next_page
        The cursors of the envelope, ``None`` where it has none.
    shape
        What was known of pages when this one was scanned.
    records
        The records as ``shape`` sees them; ``None`` where it does not fit.
    """

    number: int
    body: bytes
    count: int
    has_more: bool
    first_id: str | None
    last_id: str | None
    next_page: str | None
    shape: Shape
    records: list[Any] | None = None


class _Parts(msgspec.Struct, gc=False):
    data: list[msgspec.Raw]


_PARTS = msgspec.json.Decoder(_Parts)


class Decoder:
    """Turns the pages of one pull into one table; `decode` may be called from several threads.

    Parameters
    ----------
    schema
        The columns.

    Examples
    --------
    >>> from qoderdata.schema import RUNS
    >>> decoder = Decoder(RUNS)
    >>> page = decoder.scan(b'{"data": [{"id": "drun_1", "duration_ms": 5}], "has_more": false}')
    >>> page.count, page.has_more
    (1, False)
    >>> decoder.finish([decoder.decode(page)]).select(["id", "duration_ms"]).to_pylist()
    [{'id': 'drun_1', 'duration_ms': 5}]
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._shape = Shape(schema)
        self._numbers = itertools.count()
        self._misfits: dict[int, list[Misfit]] = {}
        self._lock = threading.Lock()

    def scan(self, body: bytes) -> Page:
        """Prove that a body is a whole page, and read its envelope.

        What the envelope has beyond the contract is not looked at.

        Parameters
        ----------
        body
            The answer's body.

        Returns
        -------
        Page
            The page.

        Raises
        ------
        NotJSONError
            The body is cut short or not JSON.
        APIResponseValidationError
            It is JSON, but not the contract's envelope.
        """
        with UNCOLLECTED:
            return self._scan(body)

    def _scan(self, body: bytes) -> Page:
        _refuse_bad_utf8(body)
        shape = self._shape
        try:
            envelope = shape.page.decode(body)
        except (msgspec.MsgspecError, RecursionError):
            return self._scan_closely(body, shape)
        records = envelope.data
        cursors = (envelope.first_id, envelope.last_id, envelope.next_page)
        return Page(next(self._numbers), body, len(records), envelope.has_more, *cursors, shape, records)

    def _scan_closely(self, body: bytes, shape: Shape) -> Page:
        """Scan what is not whole, no envelope, or holds something that only the exact way takes."""
        try:
            records = _PARTS.decode(body).data
        except (msgspec.MsgspecError, RecursionError):
            envelope = parse(body)
            count = None
        else:
            envelope = parse(_without(records, body))
            count = len(records)
        if not isinstance(envelope, dict):
            raise _broken("is not an object")
        if not isinstance(envelope.get("data"), list):
            raise _broken("has no list data")
        if not isinstance(envelope.get("has_more"), bool):
            raise _broken("has no has_more that is true or false")
        cursors = (envelope.get("first_id"), envelope.get("last_id"), envelope.get("next_page"))
        if not all(cursor is None or (isinstance(cursor, str) and is_utf8(cursor)) for cursor in cursors):
            raise _broken("has a cursor that is not text")
        count = len(envelope["data"]) if count is None else count
        return Page(next(self._numbers), body, count, envelope["has_more"], *cursors, shape)

    def decode(self, page: Page) -> pa.Table:
        """Make the table of one page.

        Parameters
        ----------
        page
            What `scan` gave. Let go of it afterwards: the table does not need it.

        Returns
        -------
        pyarrow.Table
            One row a record, in the page's order; columns of ``schema.arrow``.

        Raises
        ------
        APIResponseValidationError
            A record is not an object, has no id or a key twice, or is not JSON in its depths.
        """
        with UNCOLLECTED:
            return self._decode(page)

    def _decode(self, page: Page) -> pa.Table:
        if page.records is not None:
            table = self._fast(page.body, page.records, page.shape)
        else:
            table = self._fast(page.body) if self._shape is not page.shape else None
        if table is not None:
            return table
        try:
            records = _PARTS.decode(page.body).data
        except (msgspec.MsgspecError, RecursionError):
            records = []
        if len(records) <= _FEW:
            return self._exact(page.body, 0, page.number)
        return pa.concat_tables(self._apart(records, 0, page.number))

    def _apart(self, records: Sequence[msgspec.Raw], first: int, number: int) -> Iterator[pa.Table]:
        """Divide records until those that only the exact way can judge stand almost alone."""
        size = math.ceil(len(records) / _DIVISOR)
        refused = 0
        for start in range(0, len(records), size):
            if refused == _TOO_MANY:
                yield self._exact(_page(records[start:]), first + start, number)
                return
            part = records[start : start + size]
            body = _page(part)
            table = self._fast(body)
            if table is not None:
                yield table
                continue
            refused += 1
            if size > _FEW:
                yield from self._apart(part, first + start, number)
            else:
                yield self._exact(body, first + start, number)

    def _fast(
        self, body: bytes, records: Sequence[Any] | None = None, shape: Shape | None = None
    ) -> pa.Table | None:
        try:
            if records is None or shape is None:
                shape = self._shape
                records = shape.page.decode(body).data
            return read(body, records, shape)
        except (Refused, msgspec.MsgspecError, RecursionError):
            return None

    def _exact(self, body: bytes, first: int, number: int) -> pa.Table:
        try:
            records = parse(body)["data"]
        except NotJSONError as error:
            raise APIResponseValidationError(str(error)) from error
        columns = flatten(records, self.schema, first=first)
        with self._lock:
            self._misfits.setdefault(number, []).extend(columns.misfits)
            self._shape = self._shape.learn(columns.unknown)
        return columns.table

    def finish(self, tables: Sequence[pa.Table]) -> pa.Table:
        """Join the tables of all pages, in the order given, and warn of what was odd.

        Parameters
        ----------
        tables
            What `decode` gave, in the order of the pages.

        Returns
        -------
        pyarrow.Table
            One row an id. Where an id came twice, the later record is kept, in its place.

        Warns
        -----
        DataQualityWarning
            Once for all values that did not fit their columns, once for all ids that came twice.
        """
        misfits = itertools.chain.from_iterable(self._misfits[number] for number in sorted(self._misfits))
        return join(tables, misfits, self.schema)


def _refuse_bad_utf8(body: bytes) -> None:
    offsets = struct.pack("=qq", 0, len(body))
    text = pa.LargeStringArray.from_buffers(1, pa.py_buffer(offsets), pa.py_buffer(body))
    try:
        text.validate(full=True)
    except pa.ArrowInvalid as error:
        raise NotJSONError("the answer is not valid JSON: it is not UTF-8") from error


def _without(records: Sequence[msgspec.Raw], body: bytes) -> bytes:
    """Cut the records out of a page, so that its envelope can be read by itself, and exactly."""
    if not records:
        return body
    page, first, last = (pa.py_buffer(part) for part in (body, records[0], records[-1]))
    return body[: first.address - page.address] + body[last.address + last.size - page.address :]


def _page(records: Sequence[msgspec.Raw]) -> bytes:
    return b'{"has_more":false,"data":' + joined(records) + b"}"


def _broken(what: str) -> APIResponseValidationError:
    return APIResponseValidationError(
        f"the answer {what}, so that it is not a page of a list. Check that the base URL is the service's; "
        "nothing was loaded"
    )
