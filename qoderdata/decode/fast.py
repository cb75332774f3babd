"""A page that keeps to the contract to a table, many records at a time.

msgspec reads typed structs that are made from the schema; a field that they do not have, or a value of another
type, is an error there. The records then go to `qoderdata.decode.exact`, which defines what is right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import orjson
import pyarrow as pa

from qoderdata.decode.arrays import NeedsExactPath, json_column, time_columns, time_list_column, to_array
from qoderdata.decode.exact import MISFIT, Path, Row, dotted, fit, keep
from qoderdata.decode.jsontext import is_canonical, join_list, parse, write
from qoderdata.schema import EXTRA, Branch, Column, Kind, Schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NULL = msgspec.Raw(b"null")
#: The most unknown fields that a reader learns, so that no answer makes it grow without end.
MAX_LEARNED = 64

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


@dataclass(frozen=True)
class _Level:
    """One JSON object: its struct, and for each field of the struct its path and what is known of it."""

    struct: type[msgspec.Struct]
    fields: list[tuple[Path, Branch | Column | str | None]]
    nested: dict[Path, _Level]
    empty: msgspec.Struct


@dataclass
class _Found:
    """The values of many records by column, the texts of times, and the JSON texts of learned fields by path."""

    count: int
    columns: dict[str, Any] = field(default_factory=dict)
    times: dict[str, Sequence[str | None]] = field(default_factory=dict)
    time_lists: dict[str, Sequence[list[str] | None]] = field(default_factory=dict)
    learned: dict[Path, Sequence[msgspec.Raw]] = field(default_factory=dict)


class FastReader:
    """Read records of one schema.

    Parameters
    ----------
    schema
        The columns.
    learned
        Paths of fields that have no column but are expected; their values go to ``extra``.

    Attributes
    ----------
    records : msgspec.json.Decoder
        Decodes a list of records.
    page : msgspec.json.Decoder
        Decodes a page with its envelope.
    """

    def __init__(self, schema: Schema, learned: Iterable[Path] = ()) -> None:
        self.schema = schema
        self.learned = frozenset(learned)
        self._root = self._level(schema.tree, ())
        self.records: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[self._root.struct])  # type: ignore[name-defined]
        envelope: list[tuple[str, Any] | tuple[str, Any, Any]] = [
            ("data", list[self._root.struct]),  # type: ignore[name-defined]
            ("has_more", bool),
            *((name, str | None, None) for name in ("first_id", "last_id", "next_page")),
        ]
        self.page: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
            msgspec.defstruct("Envelope", envelope, gc=False)
        )

    def learn(self, unknown: Iterable[Path]) -> FastReader:
        """Return a reader that also expects these fields, as far as there is room for them."""
        new = sorted(path for path in set(unknown) - self.learned if all(map(_PLAIN_NAME.fullmatch, path)))
        new = new[: MAX_LEARNED - len(self.learned)]
        return FastReader(self.schema, self.learned.union(new)) if new else self

    def table(self, records: Sequence[Any]) -> pa.Table:
        """Return a table with one row per record.

        Parameters
        ----------
        records
            Structs, as `records` and `page` decode them.

        Returns
        -------
        pyarrow.Table
            Columns of ``schema.arrow``.

        Raises
        ------
        NeedsExactPath
            A value may not fit its column.
        """
        found = _Found(len(records))
        try:
            self._read(records, self._root, found)
            found.columns |= time_columns(found.times)
            for name, lists in found.time_lists.items():
                found.columns[name] = time_list_column(lists, found.columns[name])
            found.columns[EXTRA] = _extra(found)
            columns = [
                found.columns[part.name] if part.name in found.columns else pa.nulls(found.count, part.type)
                for part in self.schema.arrow
            ]
            return pa.Table.from_arrays(columns, schema=self.schema.arrow)
        except (pa.ArrowInvalid, OverflowError, msgspec.MsgspecError, RecursionError) as error:
            raise NeedsExactPath(str(error)) from error

    def _level(self, branch: Branch, above: Path) -> _Level:
        parts: list[tuple[str, Any, Any]] = []
        fields: list[tuple[Path, Branch | Column | str | None]] = []
        nested: dict[Path, _Level] = {}
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
        empty = struct() if above else None
        return _Level(struct, fields, nested, empty)  # type: ignore[arg-type]

    def _read(self, objects: Sequence[Any], level: _Level, found: _Found) -> None:
        """Read all fields of many objects of one level."""
        rows = list(zip(*map(msgspec.structs.astuple, objects), strict=True)) or [()] * len(level.fields)
        for (path, known), values in zip(level.fields, rows, strict=True):
            if known is None:
                found.learned[path] = values
            elif isinstance(known, Column):
                self._read_column(known, values, found)
            elif isinstance(known, Branch) and known.rest is None:
                self._read(_present(values, level.nested[path]), level.nested[path], found)
            elif isinstance(known, Branch) and known.rest is not None:
                if known.rest.kind is Kind.SHARED_OBJECT:
                    found.columns |= self._read_shared(values, known, path)
                else:
                    self._read_open(values, known.rest, level.nested[path], found)

    def _read_column(self, column: Column, values: Sequence[Any], found: _Found) -> None:
        if column.kind is Kind.TIME:
            found.times[column.name] = values
        elif column.kind is Kind.TIMES:
            found.time_lists[column.name] = values
            found.times[column.name] = [text for texts in values if texts for text in texts]
        elif column.kind is Kind.JSON_LIST:
            found.columns[column.name] = json_column(values, first=b"[")
        elif column.kind is Kind.NUMBER:
            fitted = [None if value is None else fit(value, Kind.NUMBER) for value in values]
            if MISFIT in fitted:
                raise NeedsExactPath("a text is not a decimal number")
            found.columns[column.name] = pa.array(fitted, pa.float64())
        else:
            found.columns[column.name] = pa.array(values, column.kind.arrow)

    def _read_open(
        self, values: Sequence[dict[str, msgspec.Raw] | None], rest: Column, inner: _Level, found: _Found
    ) -> None:
        """Read an object of which some keys have columns, and the others are JSON text."""
        own = [None if value is None else dict(value) for value in values]
        for path, level in inner.nested.items():
            raws = [NULL if value is None else value.pop(path[-1], NULL) for value in own]
            objects = msgspec.json.decode(join_list(raws), type=list[level.struct | None])  # type: ignore[name-defined]
            self._read(_present(objects, level), level, found)
        found.columns[rest.name] = json_column(list(map(_ENCODER.encode, own)), first=b"{")

    def _read_shared(self, raws: Sequence[msgspec.Raw], branch: Branch, path: Path) -> dict[str, Any]:
        """Read an object that many records share: each distinct text once."""
        texts = list(map(bytes, raws))
        distinct = {text: index for index, text in enumerate(dict.fromkeys(texts))}
        row, rows = Row(set()), []
        for text in distinct:
            value = parse(text)
            row.columns = {}
            if value is not None and not isinstance(value, dict):
                raise NeedsExactPath("a shared object is of another type")
            if value is not None:
                row.walk(value, branch, path)
            rows.append(row.columns)
        if row.extra or row.misfits:
            raise NeedsExactPath("a value in a shared object does not fit")
        index = pa.array([distinct[text] for text in texts], pa.int32())
        kinds = {
            column.name: column.kind.arrow for column in self.schema.columns if column.path[: len(path)] == path
        }
        return {name: to_array([row.get(name) for row in rows], kind).take(index) for name, kind in kinds.items()}


def _present(values: Sequence[Any], level: _Level) -> list[Any]:
    """Replace absent objects by empty ones; an object that is really empty needs the exact path."""
    if level.empty in values:
        raise NeedsExactPath("an object may be empty, which leaves a trace")
    return [level.empty if value is None else value for value in values]


def _extra(found: _Found) -> Any:  # noqa: ANN401 - an Arrow array
    """Return the learned fields of each record as JSON text."""
    if not found.learned or not found.count:
        return pa.nulls(found.count, pa.large_string())
    paths = sorted(found.learned)
    names = [dotted(path) for path in paths]
    text = join_list(raw for path in paths for raw in found.learned[path])
    load, dump = (orjson.loads, orjson.dumps) if is_canonical(text) else (parse, write)
    values = load(text)
    columns = [values[start : start + found.count] for start in range(0, len(values), found.count)]
    texts = []
    for row in zip(*columns, strict=True):
        extra: dict[str, object] = {}
        for name, value in zip(names, row, strict=True):
            keep(value, name, extra)
        texts.append(dump(dict(sorted(extra.items()))) if extra else None)
    return pa.array(texts, pa.large_string())
