"""Read a page that keeps to the contract, many records at a time.

msgspec reads typed structs that are made from the schema; a field that they do not have, or a value of another
type, is an error there. The records then go to `qoderdata.decode.exact`, which defines what is right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qoderdata.decode.exact import MISFIT, ZERO_TIME, Row, fit, to_array
from qoderdata.decode.jsontext import canonical, is_canonical, join_list, parse
from qoderdata.decode.unknown_fields import FieldPath, extra_column
from qoderdata.schema import EXTRA, Branch, Column, Kind, Schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NULL = msgspec.Raw(b"null")
#: The most unknown fields that a reader learns, so that no answer makes it grow without end.
MAX_LEARNED = 64

_TIME = Kind.TIME.arrow
_TEXT_LIST = pa.list_(pa.large_string())
#: The length of a time's text up to its seconds, and up to its microseconds.
_TO_SECOND, _TO_MICROSECOND = 19, 26
#: Every third character of a time's text, from the ``T`` to the one after the seconds.
_SEPARATORS = (b"T::Z", b"T::.", None)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+")
_ENCODER = msgspec.json.Encoder()
#: The type that msgspec reads for each kind; JSON text stays as it is.
_TYPES: dict[Kind, Any] = {
    Kind.TEXT: str | None,
    Kind.TEXT_OR_ID: str | None,
    Kind.INTEGER: int | None,
    Kind.NUMBER: float | str | None,
    Kind.TIME: str | None,
    Kind.TEXTS: list[str] | None,
    Kind.TIMES: list[str] | None,
    Kind.JSON_LIST: msgspec.Raw,
}


T = TypeVar("T")


class NeedsExactPath(Exception):  # noqa: N818 - not an error: the exact reader takes over
    """The records may hold a value that only the exact reader can judge."""


class PageFields(msgspec.Struct, Generic[T], gc=False):
    """The fields of a page: its records, and where the list continues."""

    data: list[T]
    has_more: bool
    last_id: str | None = None
    next_page: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class ParsedPage:
    """A page whose records are structs of the reader that parsed it."""

    reader: FastReader
    fields: PageFields[Any]

    def table(self) -> pa.Table:
        """Return its table, one row per record; raise `NeedsExactPath` if a value may not fit its column."""
        return self.reader.table(self.fields.data)


@dataclass(frozen=True)
class _Level:
    """One JSON object: its struct, and for each field of the struct its path and what is known of it."""

    struct: type[msgspec.Struct]
    fields: list[tuple[FieldPath, Branch | Column | str | None]]
    nested: dict[FieldPath, _Level]
    #: Replaces an object that is absent; ``None`` for the record itself.
    empty: msgspec.Struct | None


@dataclass
class _Found:
    """The values of many records by column, the texts of times, and the JSON texts of learned fields by path."""

    count: int
    columns: dict[str, Any] = field(default_factory=dict)
    times: dict[Column, Sequence[Any]] = field(default_factory=dict)
    learned: dict[FieldPath, Sequence[msgspec.Raw]] = field(default_factory=dict)


class FastReader:
    """Read records of one schema; `learned` are the unknown fields that it expects."""

    def __init__(self, schema: Schema, learned: frozenset[FieldPath] = frozenset()) -> None:
        self.schema = schema
        self.learned = learned
        self._root = self._level(schema.tree, ())
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(PageFields[self._root.struct])  # type: ignore[name-defined]

    def learn(self, unknown: set[FieldPath]) -> FastReader:
        """Return a reader that also expects these fields, as far as there is room for them."""
        new = sorted(path for path in unknown - self.learned if all(map(_PLAIN_NAME.fullmatch, path)))
        new = new[: MAX_LEARNED - len(self.learned)]
        return FastReader(self.schema, self.learned.union(new)) if new else self

    def parse(self, body: bytes) -> ParsedPage:
        """Parse a page; raise `NeedsExactPath` if a field is unknown, or a value is of another type."""
        try:
            return ParsedPage(self, self._decoder.decode(body))
        except (msgspec.MsgspecError, RecursionError) as error:
            raise NeedsExactPath(str(error)) from error

    def table(self, records: Sequence[msgspec.Struct]) -> pa.Table:
        """Return the table of parsed records; raise `NeedsExactPath` if a value may not fit its column."""
        try:
            found = _Found(len(records))
            self._read(records, self._root, found)
            found.columns |= _time_columns(found.times)
            found.columns[EXTRA] = extra_column(found.learned, found.count)
            columns = [
                found.columns[part.name] if part.name in found.columns else pa.nulls(found.count, part.type)
                for part in self.schema.arrow
            ]
            return pa.Table.from_arrays(columns, schema=self.schema.arrow)
        except (pa.ArrowInvalid, OverflowError, msgspec.MsgspecError, RecursionError) as error:
            raise NeedsExactPath(str(error)) from error

    def _level(self, branch: Branch, above: FieldPath) -> _Level:
        parts: list[tuple[str, Any, Any]] = []
        fields: list[tuple[FieldPath, Branch | Column | str | None]] = []
        nested: dict[FieldPath, _Level] = {}
        learned = {path[-1]: None for path in sorted(self.learned) if path[:-1] == above}
        for key, known in {**branch.keys, **learned}.items():
            path, default = (*above, key), None
            if isinstance(known, str):
                kind: Any = Literal[known] | None
            elif isinstance(known, Column) and key == "id" and not above:
                kind, default = str, msgspec.NODEFAULT
            elif isinstance(known, Column):
                kind = _TYPES[known.kind]
            elif known is None or (known.rest is not None and known.rest.kind is Kind.SHARED_OBJECT):
                kind = msgspec.Raw
            else:
                nested[path] = self._level(known, path)
                kind = (nested[path].struct if known.rest is None else dict[str, msgspec.Raw]) | None
            parts.append((f"field{len(parts)}", kind, NULL if kind is msgspec.Raw else default))
            fields.append((path, known))
        names = {part[0]: path[-1] for part, (path, _) in zip(parts, fields, strict=True)}
        struct = msgspec.defstruct(
            "Record", parts, rename=names, forbid_unknown_fields=True, gc=False, kw_only=True
        )
        return _Level(struct, fields, nested, struct() if above else None)

    def _read(self, objects: Sequence[Any], level: _Level, found: _Found) -> None:
        """Read all fields of many objects of one level."""
        rows = list(zip(*map(msgspec.structs.astuple, objects), strict=True)) or [()] * len(level.fields)
        for (path, known), values in zip(level.fields, rows, strict=True):
            if known is None:
                found.learned[path] = values
            elif isinstance(known, Column):
                self._read_column(known, values, found)
            elif isinstance(known, Branch):
                if known.rest is None:
                    self._read(_present(values, level.nested[path]), level.nested[path], found)
                elif known.rest.kind is Kind.SHARED_OBJECT:
                    found.columns |= self._read_shared(values, known, path)
                else:
                    self._read_open(values, known.rest, level.nested[path], found)

    def _read_column(self, column: Column, values: Sequence[Any], found: _Found) -> None:
        if column.kind in {Kind.TIME, Kind.TIMES}:
            found.times[column] = values
        elif column.kind is Kind.JSON_LIST:
            found.columns[column.name] = _json_column(values, first=b"[")
        elif column.kind is Kind.NUMBER:
            fitted = [None if value is None else fit(value, Kind.NUMBER) for value in values]
            if MISFIT in fitted:
                raise NeedsExactPath("a text is not a decimal number")
            found.columns[column.name] = pa.array(fitted, pa.float64())
        else:
            found.columns[column.name] = pa.array(values, column.kind.arrow)

    def _read_open(
        self, objects: Sequence[dict[str, msgspec.Raw] | None], rest: Column, inner: _Level, found: _Found
    ) -> None:
        """Read an object of which some keys have columns, and the others are JSON text."""
        values = [value and value.copy() for value in objects]
        for path, level in inner.nested.items():
            raws = [NULL if value is None else value.pop(path[-1], NULL) for value in values]
            structs = msgspec.json.decode(join_list(raws), type=list[level.struct | None])  # type: ignore[name-defined]
            self._read(_present(structs, level), level, found)
        found.columns[rest.name] = _json_column(list(map(_ENCODER.encode, values)), first=b"{")

    def _read_shared(self, raws: Sequence[msgspec.Raw], branch: Branch, path: FieldPath) -> dict[str, Any]:
        """Read an object that many records share: each distinct text once."""
        texts: Any = pa.array(map(bytes, raws), pa.large_binary()).dictionary_encode()
        row, rows = Row(set()), []
        for text in texts.dictionary.to_pylist():
            value = parse(text)
            row.columns = {}
            if value is not None and not isinstance(value, dict):
                raise NeedsExactPath("a shared object is of another type")
            if value is not None:
                row.walk(value, branch, path)
            rows.append(row.columns)
        if row.extra or row.misfits:
            raise NeedsExactPath("a value in a shared object does not fit")
        return {
            column.name: to_array([row.get(column.name) for row in rows], column.kind.arrow).take(texts.indices)
            for column in self.schema.columns
            if column.path[: len(path)] == path
        }


def _present(values: Sequence[Any], level: _Level) -> list[Any]:
    """Replace absent objects by empty ones; raise `NeedsExactPath` if an object of the page may be empty."""
    if level.empty in values:
        raise NeedsExactPath("an object may be empty, which leaves a trace")
    return [level.empty if value is None else value for value in values]


def _json_column(texts: Sequence[bytes | msgspec.Raw], *, first: bytes) -> Any:  # noqa: ANN401 - an Arrow array
    """Return JSON texts in canonical form; ``null`` is missing, and all others begin with `first`."""
    if not is_canonical(join_list(texts)):
        texts = [canonical(bytes(text)) for text in texts]
    data = b"".join(texts)
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=offsets[1:])
    starts = np.frombuffer(data, np.uint8)[offsets[:-1]]
    valid = starts != ord("n")
    if not (starts[valid] == ord(first)).all():
        raise NeedsExactPath("JSON text is of another type")
    validity = pa.py_buffer(np.packbits(valid, bitorder="little").tobytes())
    buffers: list[pa.Buffer | None] = [validity, pa.py_buffer(offsets.tobytes()), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_string(), len(texts), buffers)


def _time_columns(columns: Mapping[Column, Sequence[Any]]) -> dict[str, Any]:
    """Return times and lists of times by column; all of them are converted at once."""
    arrays: dict[Column, Any] = {
        column: pa.array(values, _TEXT_LIST if column.kind is Kind.TIMES else pa.large_string())
        for column, values in columns.items()
    }
    flat = [array.flatten() if column.kind is Kind.TIMES else array for column, array in arrays.items()]
    times = _times(pa.concat_arrays(flat))
    found, start = {}, 0
    for (column, array), part in zip(arrays.items(), flat, strict=True):
        found[column.name] = times.slice(start, len(part))
        if column.kind is Kind.TIMES:
            found[column.name] = _lists(array, found[column.name])
        start += len(part)
    return found


def _times(texts: Any) -> Any:  # noqa: ANN401 - Arrow arrays
    """Return texts as times: digits after the microsecond are cut, the zero time is missing.

    The cast checks all before those digits, except for what it also accepts: a blank for the ``T``, and times
    without seconds.
    """
    texts = texts.view(pa.large_binary())
    rest: Any = pc.binary_slice(texts, _TO_MICROSECOND, -1)
    separators = pc.binary_slice(texts, 10, _TO_SECOND + 1, 3)
    checks = (
        pc.is_in(separators, value_set=pa.array(_SEPARATORS, pa.large_binary())),
        pc.ends_with(texts, "Z"),
        pc.ascii_is_decimal(rest.filter(pc.not_equal(rest, pa.scalar(b""))).view(pa.large_string())),
    )
    if not all(pc.all(check, min_count=0).as_py() for check in checks):
        raise NeedsExactPath("a time is not as the service writes it")
    cut = pc.binary_slice(pc.binary_slice(texts, 0, -1), 0, _TO_MICROSECOND)
    times = cut.view(pa.large_string()).cast(pa.timestamp("us")).view(_TIME)
    micros = times.view(pa.int64())
    earliest = pc.min(micros).as_py()
    if earliest is not None and earliest < ZERO_TIME:
        raise NeedsExactPath("a time is before the year 1")
    if earliest == ZERO_TIME:
        times = pc.if_else(pc.equal(micros, pa.scalar(ZERO_TIME)), pa.scalar(None, _TIME), times)
    return times


def _lists(texts: Any, times: Any) -> Any:  # noqa: ANN401 - Arrow arrays
    """Return lists of texts as lists of times, whose items are in one array."""
    if times.null_count:
        raise NeedsExactPath("a list holds the zero time")
    return pa.ListArray.from_arrays(texts.offsets, times, mask=texts.is_null())
