"""Mutated records and pages, and a slow check that a row holds each value of its record.

The code is independent of the package's decoders. An object is a list of pairs of a key and a value in JSON text,
so that it can have the same key twice and numbers keep their digits.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from qoderdata.schema import Branch, Kind, Schema

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

#: A JSON value: its text, a list of values, or an object as pairs of a key's text and a value.
Node = Any
ZERO_TIME = "0001-01-01T00:00:00Z"
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)

ODD_NUMBERS = (
    "0", "-0", "1.0", "1.50", "-1", "5", "1e2", "1E+2", "1e-7", "0.1", "1e400", "-1e400", "9" * 19, "9" * 20,
    "9" * 5_000, "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
    "9007199254740993", "0.30000000000000004", "1" + "0" * 400, "1." + "0" * 400 + "1", "-0.0", "-0e5",
    "12345678901234567.5",
)  # fmt: skip
ODD_TEXTS = (
    '""', '"x"', r'"\ud800"', r'"a\udead"', r'"\ud83d\ude00"', '"\u2028"', r'"\u0000"', '"\u00e9"', r'"\\"',
    '"a.b"',
    '"1"', '"1.50"', '"-0"', '"NaN"', '"null"', '"deployment_run"', '"agent"', '"limit"', '"' + "x" * 3_000 + '"',
    '"\U0001f600"', r'"\u00e9\n\t\/"', '"{}"', '"[1]"', r'"\"],\"has_more\":false}"',
)  # fmt: skip
ODD_TIMES = (
    f'"{ZERO_TIME}"', '"0001-01-01T00:00:00.000000001Z"', '"9999-12-31T23:59:59.999999999Z"',
    '"0000-02-29T00:00:00Z"', '"2026-02-30T00:00:00Z"', '"2026-06-14T24:00:00Z"', '"2026-06-14T08:58:60Z"',
    '"2026-06-14T08:58:01+08:00"', '"2026-06-14T08:58:01-23:59"', '"2026-06-14T08:58:01+24:00"',
    '"2026-06-14 08:58:01Z"', '"2026-06-14T08:58:01"', '"2026-06-14"', '"2026-06-14T08:58:01.Z"',
    '"2026-06-14T08:58:01.1234567890123Z"', '"2026-06-14T08:58:01.5+00:30"', '"0001-01-01T00:00:00+01:00"',
    '"9999-12-31T23:59:59-01:00"', '"2026-06-14t08:58:01z"', '" 2026-06-14T08:58:01Z"', '"١٩٢٦-06-14T08:58:01Z"',
)  # fmt: skip
ODD_VALUES = ("null", "true", "false", *ODD_NUMBERS, *ODD_TEXTS, *ODD_TIMES)
ODD_KEYS = (
    "id", "type", "extra", "status", "a", "a.b", "a.b.c", "", ".", "..", "\\", "a\\.b", "é", "\u2028",
    "\U0001f600", "__class__", "environment_variables", "data", "has_more", "metadata", "cas_config", "agent",
    "created_at", "x" * 300,
)  # fmt: skip


#: Bytes that are put into a damaged text: none, or one of these.
DAMAGE_BYTES = [b"", *(bytes([byte]) for byte in b'"\\{}[],:0-e\x00\xff\xc3 n')]


@dataclass
class Mutator:
    """Make valid records of a schema, and mutate them.

    Parameters
    ----------
    rng
        The random number generator.
    """

    rng: random.Random
    counter: int = 0
    #: Number of mutations by kind.
    mutation_counts: dict[str, int] = field(default_factory=dict)

    def records(self, schema: Schema, count: int) -> list[Node]:
        """Make records with up to three mutations each; about one in six has none."""
        found = []
        for _ in range(count):
            self.counter += 1
            record = [pair for pair in self._object(schema.tree) if pair[0] != '"id"']
            record.insert(self.rng.randrange(len(record) + 1), ('"id"', f'"id_{self.counter}"'))
            for _ in range(self.rng.choice((0, 1, 1, 2, 2, 3))):
                self._mutate(record)
            found.append(record)
        return found

    def page(self, records: list[Node]) -> tuple[bytes, list[bytes]]:
        """Return the text of a page and of each record; one page in twelve is damaged and has no record texts."""
        style = self.rng.choice(list(STYLES))
        envelope = [
            ('"data"', records), ('"has_more"', self.rng.choice(("true", "false"))),
            ('"first_id"', '"a"'), ('"last_id"', self.rng.choice(('"b"', "null"))),
            ('"next_page"', self.rng.choice(('"c"', "null"))),
        ]  # fmt: skip
        if not self.rng.randrange(8):
            self.rng.shuffle(envelope)
        body = STYLES[style](write(envelope)).encode()
        if not self.rng.randrange(12):
            return self._damage_bytes(body), []
        return body, [STYLES[style](write(record)).encode() for record in records]

    def _object(self, branch: Branch) -> list[tuple[str, Node]]:
        found: list[tuple[str, Node]] = []
        for key, known in branch.keys.items():
            if self.rng.random() < 0.1:
                continue
            found.append((json.dumps(key), self._value(known)))
        if branch.rest is not None:
            found += [(f'"x{number}"', self.rng.choice(ODD_TEXTS)) for number in range(self.rng.randrange(3))]
        return found

    def _value(self, known: Branch | object) -> Node:
        if self.rng.random() < 0.05:
            return "null"
        if isinstance(known, Branch):
            return self._object(known)
        if isinstance(known, str):
            return json.dumps(known)
        return self._valid_value(known.kind)  # type: ignore[attr-defined] # a column

    def _valid_value(self, kind: Kind) -> Node:
        rng = self.rng
        integers = (0, 1, 7, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), rng.randrange(10**6))
        few = range(rng.randrange(3))
        texts = ('"active"', '"名前"', '"a \\"b\\""', f'"t{rng.randrange(99)}"')
        makers: dict[Kind, Callable[[], Node]] = {
            Kind.INTEGER: lambda: str(rng.choice(integers)),
            Kind.NUMBER: lambda: rng.choice(("0", "1.5", "2", "0.1", '"12.50"', "123456.789")),
            Kind.TIME: self._time,
            Kind.TEXTS: lambda: [f'"v{rng.randrange(9)}"' for _ in few],
            Kind.TIMES: lambda: [self._time() for _ in few],
            Kind.JSON_LIST: lambda: [[('"k"', rng.choice(ODD_VALUES))] for _ in few],
        }
        maker = makers.get(kind)
        return rng.choice(texts) if maker is None else maker()

    def _time(self) -> str:
        seconds = self.rng.randrange(-(10**9), 4 * 10**9)
        digits = self.rng.choice(("", ".5", ".123456", ".999999999", ".000000001"))
        text = f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}"
        return f'"{text}{digits}Z"'

    def _mutate(self, record: Node) -> None:
        """Make one mutation at a random place of a record."""
        places = [place for place in walk(record) if place[0] is not record or place[0][place[1]][0] != '"id"']
        kind = self.rng.choice(
            ("replace", "replace", "replace", "drop", "twice", "add", "wrap", "swap", "nest", "id twice")
        )
        if not places and kind != "add":
            kind = "add"
        self.mutation_counts[kind] = self.mutation_counts.get(kind, 0) + 1
        if kind == "id twice":
            record.insert(0, ('"id"', self.rng.choice(ODD_VALUES)))
            return
        if kind == "add":
            objects = [record, *(value for _, _, value in walk(record) if is_object(value))]
            new_key = self.rng.choice(ODD_KEYS)
            if new_key != "id":
                chosen = self.rng.choice(objects)
                chosen.insert(self.rng.randrange(len(chosen) + 1), (json.dumps(new_key), self._odd_value()))
            return
        parent, index, value = self.rng.choice(places)
        key: str | None = parent[index][0] if isinstance(parent[index], tuple) else None
        if kind == "drop":
            del parent[index]
        elif kind == "twice" and key is not None:
            parent.insert(self.rng.randrange(index + 1), (key, self._odd_value()))
        else:
            new = {"wrap": [value], "nest": [('"id"', value)], "swap": [('"type"', '"x"'), ('"v"', value)]}.get(
                kind, self._odd_value() if kind != "twice" else "null"
            )
            parent[index] = new if key is None else (key, new)

    def _odd_value(self) -> Node:
        draw = self.rng.random()
        if draw < 0.8:
            return self.rng.choice(ODD_VALUES)
        if draw < 0.9:
            return [self.rng.choice(ODD_VALUES) for _ in range(self.rng.randrange(3))]
        return [
            (json.dumps(self.rng.choice(ODD_KEYS)), self.rng.choice(ODD_VALUES))
            for _ in range(self.rng.randrange(3))
        ] or _EMPTY.copy()

    def _damage_bytes(self, body: bytes) -> bytes:
        self.mutation_counts["bytes"] = self.mutation_counts.get("bytes", 0) + 1
        for _ in range(self.rng.choice((1, 1, 2))):
            position = self.rng.randrange(len(body))
            inserted = self.rng.choice(DAMAGE_BYTES)
            body = {
                "replace": body[:position] + inserted + body[position + 1 :],
                "insert": body[:position] + inserted + body[position:],
                "cut": body[:position],
            }[self.rng.choice(("replace", "replace", "insert", "insert", "cut"))]
        return body


#: An object without keys; an empty Python list is a JSON list.
_EMPTY: list[tuple[str, str]] = []

STYLES: dict[str, Callable[[str], str]] = {
    "compact": lambda text: text,
    "spaced": lambda text: text.replace('":', '" : '),
    "escaped": lambda text: json.dumps(text)[1:-1].replace('\\"', '"').replace("\\\\", "\\"),
    "needlessly escaped": lambda text: text.replace("é", r"\u00e9").replace('"x"', r'"\u0078"'),
}


def is_object(value: Node) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], tuple)


def walk(value: Node) -> Iterator[tuple[Any, int, Node]]:
    """Yield the parent, the index in it, and the value, of each value nested in a value."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            below = item[1] if isinstance(item, tuple) else item
            yield value, index, below
            yield from walk(below)


def write(value: Node) -> str:
    """Format a value as compact JSON text."""
    if is_object(value):
        return "{" + ",".join(f"{key}:{write(item)}" for key, item in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    return str(value)


class Digits(str):
    """The text of a number."""

    __slots__ = ()


def parse(text: bytes | str) -> Any:  # noqa: ANN401 - any JSON value
    """Parse JSON with Python's parser, with numbers as `Digits`; the last value of a repeated key is used."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    if isinstance(text, bytes):
        text = text.decode()
    return json.loads(text, parse_int=Digits, parse_float=Digits, parse_constant=refuse)


def leaves(value: Any, path: str = "") -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    """Return the values that are not objects, and empty objects, by path; ``null`` is left out."""
    if not isinstance(value, dict) or not value:
        return {} if value is None else {path: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        step = key.replace("\\", "\\\\").replace(".", "\\.")
        found |= leaves(inner, f"{path}.{step}" if path else f"/{step}")
    return found


def to_microseconds(text: str) -> int | None:
    """Parse a time as whole microseconds since 1970, rounded down; return ``None`` for an invalid time."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    whole, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(whole).replace(tzinfo=UTC)
        if zone != "Z":
            hours, minutes = int(zone[1:3]), int(zone[4:])
            moment -= (1 if zone[0] == "+" else -1) * timedelta(hours=hours, minutes=minutes)
    except (ValueError, OverflowError):
        return None
    return (moment - _EPOCH) // _MICROSECOND + int((fraction or ".0")[1:7].ljust(6, "0"))


def to_exact_text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Format a value so that different values give different texts, also numbers with different digits."""
    if isinstance(value, Digits):
        return f"number {value}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key!r}:{to_exact_text(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(to_exact_text, value)) + "]"
    return repr(value)


@dataclass
class RowComparison:
    """Compare the values of a record with those of its row, by path."""

    sent: dict[str, Any]
    in_other_cells: dict[str, Any]
    faults: list[str] = field(default_factory=list)

    def compare_cell(self, path: str, value: Any, kind: Kind) -> None:  # noqa: ANN401 - a cell
        """Compare the cell of a column with the record."""
        if path in self.in_other_cells:
            self.faults.append(f"{path} is in its column and elsewhere")
        if path not in self.sent:
            self.faults.append(f"{path} is in a column, and was not sent")
        elif not cell_holds(value, self.sent.pop(path), kind):
            self.faults.append(f"{path} is {value!r} in its column")

    def add_object_cell(self, path: str, text: str) -> None:
        """Add the values of a cell that holds the rest of an object as JSON text."""
        inside = leaves(parse(text), path)
        if inside == {path: {}} and path not in self.sent:
            return
        if self.in_other_cells.keys() & inside.keys():
            self.faults.append(f"{path} is there twice")
        self.in_other_cells |= inside

    def compare_rest(self, not_stored: dict[str, str]) -> list[str]:
        """Compare the values that are in no column, except those that are not stored; return all faults."""
        self.faults += [f"{path} was not sent" for path in self.in_other_cells.keys() - self.sent.keys()]
        for path, value in self.sent.items():
            if path in self.in_other_cells and to_exact_text(self.in_other_cells[path]) != to_exact_text(value):
                self.faults.append(
                    f"{path} is {to_exact_text(self.in_other_cells[path])[:80]}, not {to_exact_text(value)[:80]}"
                )
            elif path not in self.in_other_cells and not_stored.get(path) != to_exact_text(value):
                self.faults.append(f"{path} is lost: {to_exact_text(value)[:80]}")
        return self.faults


def lost(record: dict[str, Any], row: dict[str, Any], schema: Schema) -> list[str]:
    """Return the values of a record that are missing or different in its row, and those that were not sent.

    Parameters
    ----------
    record
        The record, as `parse` returns it.
    row
        The row, with times as microseconds since 1970.
    schema
        Its columns.

    Returns
    -------
    list of str
        One line per fault; empty if the row holds each value once, in its column or in ``extra``.
    """
    in_extra = {f"/{path}": value for path, value in parse(row["extra"] or "{}").items()}
    comparison = RowComparison(leaves(record), in_extra)
    not_stored = {"/" + ".".join(path): to_exact_text(value) for path, value in schema.constants}
    for column in (column for column in schema.columns if column.path):
        path, value = "/" + ".".join(column.path), row[column.name]
        sent = comparison.sent.get(path)
        if value is None:
            if (
                column.kind is Kind.TIME
                and type(sent) is str
                and to_microseconds(sent) == to_microseconds(ZERO_TIME)
            ):
                not_stored[path] = to_exact_text(sent)
        elif column.kind.is_object:
            comparison.add_object_cell(path, value)
        else:
            is_id = column.kind is Kind.TEXT_OR_ID and f"{path}.id" in comparison.sent
            comparison.compare_cell(f"{path}.id" if is_id else path, value, column.kind)
    return comparison.compare_rest(not_stored)


def cell_holds(value: Any, sent: Any, kind: Kind) -> bool:  # noqa: ANN401 - a cell, and any JSON value
    """Return whether a cell holds the value that was sent."""
    if kind in {Kind.INTEGER, Kind.NUMBER}:
        number = int if kind is Kind.INTEGER else float
        return isinstance(sent, Digits if kind is Kind.INTEGER else str) and bool(value == number(sent))
    if kind is Kind.TIMES:
        return isinstance(sent, list) and value == [
            to_microseconds(item) if type(item) is str else None for item in sent
        ]
    if kind in {Kind.TEXTS, Kind.JSON_LIST}:
        return isinstance(sent, list) and to_exact_text(
            value if kind is Kind.TEXTS else parse(value)
        ) == to_exact_text(sent)
    return type(sent) is str and bool(value == (to_microseconds(sent) if kind is Kind.TIME else sent))
