"""Turn pages into one table: which reader does a page need, and how are the tables of all pages joined?

`Decoder.read_page` checks that a body is a whole page, `Decoder.to_table` makes its table, and `Decoder.finish`
joins the tables of all pages, and warns of repeated ids and of values that did not fit.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qoderdata.decode.exact import Misfit, flatten, require_record
from qoderdata.decode.fast import FastReader, NeedsExactPath, PageFields, ParsedPage
from qoderdata.decode.jsontext import NotJSONError, is_utf8, join_list, parse
from qoderdata.errors import APIResponseValidationError, DataQualityWarning, warn
from qoderdata.formatting import counted, first_few

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qoderdata.schema import Schema

Records = Mapping[str, Any] | Iterable[Mapping[str, Any]]

#: The most records of a page that go to the exact reader at once.
_EXACT_RECORDS = 20
#: Records that are held as Python objects at a time.
_BATCH = 5_000


@dataclass(frozen=True, slots=True, repr=False)
class Page:
    """One page of a list."""

    has_more: bool
    #: The cursor of the next page: ``next_page`` of the envelope, else its ``last_id``; ``None`` for neither.
    cursor: str | None
    #: How many records the page has.
    count: int
    #: The body of the answer, which has them.
    body: bytes
    #: The page as the fast reader parsed it; ``None`` if it could not.
    parsed: ParsedPage | None


class _Object(msgspec.Struct, gc=False):
    """A record whose fields are skipped."""

    id: str


_PAGE_FIELDS: msgspec.json.Decoder[PageFields[_Object]] = msgspec.json.Decoder(PageFields[_Object])
_TEXTS: msgspec.json.Decoder[PageFields[msgspec.Raw]] = msgspec.json.Decoder(PageFields[msgspec.Raw])


class Decoder:
    """Decode the pages of one list.

    Examples
    --------
    >>> from qoderdata.schema import RUNS
    >>> decoder = Decoder(RUNS)
    >>> page = decoder.read_page(b'{"data": [{"id": "drun_1", "duration_ms": 5}], "has_more": false}')
    >>> page.has_more
    False
    >>> decoder.finish([decoder.to_table(page)]).select(["id", "duration_ms"]).to_pylist()
    [{'id': 'drun_1', 'duration_ms': 5}]
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._reader = FastReader(schema)
        self._misfits: list[Misfit] = []

    def read_page(self, body: bytes) -> Page:
        """Read the body of a page; its envelope is known then, and its JSON is proved whole.

        Raise `NotJSONError` if it is cut short or is not JSON, and `APIResponseValidationError` if it is
        JSON, but not the envelope of the contract, or if a record is not an object or has no id.
        """
        try:
            # `bytes.decode` would make a text of the whole body, which takes ten times as long.
            ends = pa.py_buffer(np.array([0, len(body)], np.int64).tobytes())
            pa.Array.from_buffers(pa.large_string(), 1, [None, ends, pa.py_buffer(body)]).validate(full=True)
        except pa.ArrowInvalid as error:
            raise NotJSONError("the answer is not valid JSON: it is not UTF-8") from error
        parsed: ParsedPage | None = None
        try:
            parsed = self._reader.parse(body)
            fields: PageFields[Any] = parsed.fields
        except NeedsExactPath:
            try:
                fields = _PAGE_FIELDS.decode(body)
            except (msgspec.MsgspecError, RecursionError):
                return _exact_page(body)
        return Page(fields.has_more, fields.next_page or fields.last_id, len(fields.data), body, parsed)

    def to_table(self, page: Page) -> pa.Table:
        """Return the table of a page: one row per record, in the page's order."""
        return pa.concat_tables(self._tables(page.body, page.parsed)).unify_dictionaries()

    def _tables(self, body: bytes, parsed: ParsedPage | None) -> Iterator[pa.Table]:
        """Read a page, in halves until only few records have to go to the exact reader."""
        try:
            yield (parsed or self._reader.parse(body)).table()
        except NeedsExactPath:
            texts = _texts(body)
            if len(texts) <= _EXACT_RECORDS:
                yield self._exact(parse(body)["data"])
                return
            middle = len(texts) // 2
            for half in (texts[:middle], texts[middle:]):
                yield from self._tables(b'{"data":%b,"has_more":false}' % join_list(half), None)

    def _exact(self, records: Sequence[Mapping[str, object]]) -> pa.Table:
        table, misfits, unknown = flatten(records, self.schema)
        self._misfits += misfits
        self._reader = self._reader.learn(unknown)
        return table

    def finish(self, tables: Sequence[pa.Table]) -> pa.Table:
        """Join the tables of all pages, in the order given: one row per id, the last record with that id.

        Warn once of all values that did not fit their columns, and once of all ids that came more than once.
        """
        self.warn_misfits()
        table = pa.concat_tables([self.schema.arrow.empty_table(), *tables]).unify_dictionaries()
        ids = table["id"]
        if len(pc.unique(ids)) == len(ids):
            return table
        names = [str(name) for name in ids.to_pylist()]
        last = {name: index for index, name in enumerate(names)}
        repeated = [name for name, count in Counter(names).items() if count > 1]
        warn(
            f"{counted(len(repeated), self.schema.singular)} came more than once; the later record of each is "
            f"kept. Ids: {first_few(repeated)}",
            DataQualityWarning,
        )
        return table.take(sorted(last.values()))

    def warn_misfits(self) -> None:
        """Warn once of all values so far that did not fit their columns; `finish` does it too."""
        if self._misfits:
            ids = list(dict.fromkeys(misfit.id for misfit in self._misfits))
            counts = Counter(misfit.path for misfit in self._misfits).most_common()
            paths = [f"{path}: {count}" for path, count in counts]
            warn(
                f"{counted(len(self._misfits), 'value')} of {counted(len(ids), self.schema.singular)} did not fit "
                f"a column, which is missing there; 'extra' has the values ({first_few(paths)}). Ids: "
                f"{first_few(ids)}",
                DataQualityWarning,
            )


def from_records(records: Records, schema: Schema) -> pa.Table:
    """Flatten records to a table, one row per id.

    They are any iterable, read once, or one envelope: a mapping with the list ``data``. Raise
    `APIResponseValidationError` if a record is not a dict with an id, or ``data`` is not a list, and
    `TypeError` if it is neither, such as a frame.
    """
    decoder, remaining = Decoder(schema), _checked(_record_list(records))
    tables = []
    while batch := list(itertools.islice(remaining, _BATCH)):
        tables.append(decoder._exact(batch))  # noqa: SLF001 - of this module
    return decoder.finish(tables)


def _record_list(records: Records) -> Iterable[object]:
    if isinstance(records, Mapping):
        if "data" not in records:
            raise TypeError(
                "records is a mapping without 'data', so it is no envelope; for a single record, give a list of it"
            )
        if not isinstance(records["data"], list | tuple):
            raise APIResponseValidationError("the envelope's data is not a list of records; nothing was flattened")
        return list(records["data"])
    if isinstance(records, str | bytes) or hasattr(records, "columns") or not isinstance(records, Iterable):
        raise TypeError(
            f"records is a {type(records).__name__}; give an iterable of dicts, or an envelope (with 'data')"
        )
    return records


def _checked(records: Iterable[object]) -> Iterator[Mapping[str, object]]:
    """Check records that a caller gave, since the messages of `require_record` are about a response."""
    for index, record in enumerate(records):
        name = record.get("id") if isinstance(record, Mapping) else None
        if not isinstance(record, Mapping) or not isinstance(name, str) or not is_utf8(name):
            raise APIResponseValidationError(
                f"record {index} is not a dict with an 'id' that is text; nothing was flattened"
            )
        yield record


def _texts(body: bytes) -> list[msgspec.Raw]:
    """Return the JSON text of each record of a page; none if only the exact reader can read it."""
    try:
        return _TEXTS.decode(body).data
    except (msgspec.MsgspecError, RecursionError):
        return []


def _exact_page(body: bytes) -> Page:
    """Read a page with the exact reader alone."""
    envelope = parse(body)
    if not isinstance(envelope, dict):
        raise _not_a_page_error("is not an object")
    if not isinstance(envelope.get("data"), list):
        raise _not_a_page_error("has no list data")
    if not isinstance(envelope.get("has_more"), bool):
        raise _not_a_page_error("has no has_more that is true or false")
    last_id, next_page = (envelope.get(name) for name in ("last_id", "next_page"))
    for cursor in (last_id, next_page):
        if cursor is not None and not (isinstance(cursor, str) and is_utf8(cursor)):
            raise _not_a_page_error("has a cursor that is not text")
    for index, record in enumerate(envelope["data"]):
        require_record(record, index)
    return Page(envelope["has_more"], next_page or last_id, len(envelope["data"]), body, None)


def _not_a_page_error(what: str) -> APIResponseValidationError:
    return APIResponseValidationError(
        f"the answer {what}, so that it is not a page of a list. Check that the base URL is the service's; "
        "nothing was loaded"
    )
