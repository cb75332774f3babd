"""The pages of one pull to one Arrow table.

`Decoder.scan` finds in a page what the next one is to be asked with, `Decoder.decode` proves the page whole and
makes a table of it, meanwhile and in any thread, `Decoder.finish` joins the tables and says once what was odd.
Knows nothing of network and disk.
"""

from __future__ import annotations

import itertools
import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from qoderdata.errors import APIResponseValidationError
from qoderdata.frame.collecting import UNCOLLECTED
from qoderdata.frame.exact import Misfit, flatten
from qoderdata.frame.fast import check_utf8, read
from qoderdata.frame.joining import join
from qoderdata.frame.jsontext import NotJSONError, is_utf8, parse
from qoderdata.frame.repeats import Repeats
from qoderdata.frame.shapes import Refused, Shape
from qoderdata.frame.texts import joined

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
    """One page, and what its envelope says.

    Parameters
    ----------
    number
        Its place in the pull, from 0.
    body
        The answer's body.
    has_more
        Whether more pages follow.
    first_id, last_id, next_page
        The cursors of the envelope, ``None`` where it has none.
    """

    number: int
    body: bytes
    has_more: bool
    first_id: str | None
    last_id: str | None
    next_page: str | None


class _Parts(msgspec.Struct, gc=False):
    data: list[msgspec.Raw]


_PARTS = msgspec.json.Decoder(_Parts)
_CURSORS = ("first_id", "last_id", "next_page")
#: How the service begins a page.
_HEAD = b'{"data":['


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
    >>> page.has_more
    False
    >>> decoder.finish([decoder.decode(page)]).select(["id", "duration_ms"]).to_pylist()
    [{'id': 'drun_1', 'duration_ms': 5}]
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._shape = Shape(schema)
        self._repeats = Repeats()
        self._numbers = itertools.count()
        self._misfits: dict[int, list[Misfit]] = {}
        self._lock = threading.Lock()

    def scan(self, body: bytes) -> Page:
        """Read a page's envelope, so that the next page can be asked for.

        Where the envelope ends the body, as the service writes it, that end alone is read, and `decode` proves the
        rest; else the body is proved whole here. What the envelope has beyond the contract is not looked at.

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
        envelope = _envelope_at_the_end(body) or _read_closely(body)[0]
        cursors = (envelope.get(name) for name in _CURSORS)
        return Page(next(self._numbers), body, envelope["has_more"], *cursors)

    def decode(self, page: Page) -> pa.Table:
        """Prove that a page is whole, and make its table.

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
        NotJSONError
            The body is not JSON after all, before its end.
        APIResponseValidationError
            A record is not an object, has no id or a key twice.
        """
        with UNCOLLECTED:
            return self._decode(page)

    def _decode(self, page: Page) -> pa.Table:
        table = self._fast(page.body)
        if table is not None:
            return table
        _, records = _read_closely(page.body)
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

    def _fast(self, body: bytes) -> pa.Table | None:
        try:
            return read(body, self._shape, self._repeats)
        except Refused:
            return None

    def _exact(self, body: bytes, first: int, number: int) -> pa.Table:
        columns = flatten(parse(body)["data"], self.schema, first=first)
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


def _envelope_at_the_end(body: bytes) -> dict[str, Any] | None:
    """Read the envelope from what follows the last list, if it is told there.

    If the whole is JSON, with no key twice, this is its envelope: what closes one object, and nothing else, stands
    in that object, and the object is the outermost. What is missing there must stand nowhere, or it may be told
    before that list.
    """
    end = body.rfind(b"]")
    if end < 0 or not body.startswith(_HEAD):
        return None
    try:
        envelope = _checked(parse(_HEAD + body[end:]))
    except (NotJSONError, APIResponseValidationError):
        return None
    missing = [name.encode() for name in _CURSORS if name not in envelope]
    told_before = missing and (b"\\u" in body or any(b'"%b"' % name in body for name in missing))
    return None if told_before or "last_id" not in envelope else envelope


def _read_closely(body: bytes) -> tuple[dict[str, Any], list[msgspec.Raw]]:
    """Prove that a body is whole JSON and a page; give its envelope, and its records where msgspec finds them."""
    try:
        check_utf8(body)
    except pa.ArrowInvalid as error:
        raise NotJSONError("the answer is not valid JSON: it is not UTF-8") from error
    try:
        records = _PARTS.decode(body).data
    except (msgspec.MsgspecError, RecursionError):
        records = []
    return _checked(parse(_without(records, body))), records


def _checked(envelope: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    """Refuse what is no envelope of the contract."""
    if not isinstance(envelope, dict):
        raise _broken("is not an object")
    if not isinstance(envelope.get("data"), list):
        raise _broken("has no list data")
    if not isinstance(envelope.get("has_more"), bool):
        raise _broken("has no has_more that is true or false")
    cursors = (envelope.get(name) for name in _CURSORS)
    if not all(cursor is None or (isinstance(cursor, str) and is_utf8(cursor)) for cursor in cursors):
        raise _broken("has a cursor that is not text")
    return envelope


def _without(records: Sequence[msgspec.Raw], body: bytes) -> bytes:
    """Cut the records out of a page, so that its envelope can be read by itself, and exactly."""
    if not records:
        return body
    page, first, last = (pa.py_buffer(part) for part in (body, records[0], records[-1]))
    return body[: first.address - page.address] + body[last.address + last.size - page.address :]


def _page(records: Sequence[msgspec.Raw]) -> bytes:
    return b'{"data":%b,"has_more":false}' % joined(records)


def _broken(what: str) -> APIResponseValidationError:
    return APIResponseValidationError(
        f"the answer {what}, so that it is not a page of a list. Check that the base URL is the service's; "
        "nothing was loaded"
    )
