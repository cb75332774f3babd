"""Pages with mutated records, and a slow account of what became of each leaf; nothing here is the package's own.

A record is held as a list of pairs of JSON texts, so that keys may come twice and numbers keep their digits.
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


#: What is put into a text that is damaged: nothing, or one of these bytes.
PUT = [b"", *(bytes([byte]) for byte in b'"\\{}[],:0-e\x00\xff\xc3 n')]


@dataclass
class Mutator:
    """Make records that keep to a schema, and mutate them.

    Parameters
    ----------
    chance
        Where the choices come from.
    """

    chance: random.Random
    counter: int = 0
    #: How often each kind of mutation was made.
    made: dict[str, int] = field(default_factory=dict)

    def records(self, schema: Schema, count: int) -> list[Node]:
        """Make records with one to three mutations each; one in six has none."""
        found = []
        for _ in range(count):
            self.counter += 1
            record = [pair for pair in self._object(schema.tree) if pair[0] != '"id"']
            record.insert(self.chance.randrange(len(record) + 1), ('"id"', f'"id_{self.counter}"'))
            for _ in range(self.chance.choice((0, 1, 1, 2, 2, 3))):
                self._mutate(record)
            found.append(record)
        return found

    def page(self, records: list[Node]) -> tuple[bytes, list[bytes]]:
        """Write a page and each record alone; one page in twelve is then damaged as text, and has no records."""
        style = self.chance.choice(list(STYLES))
        envelope = [
            ('"data"', records), ('"has_more"', self.chance.choice(("true", "false"))),
            ('"first_id"', '"a"'), ('"last_id"', self.chance.choice(('"b"', "null"))),
            ('"next_page"', self.chance.choice(('"c"', "null"))),
        ]  # fmt: skip
        if not self.chance.randrange(8):
            self.chance.shuffle(envelope)
        body = STYLES[style](write(envelope)).encode()
        if not self.chance.randrange(12):
            return self._damage(body), []
        return body, [STYLES[style](write(record)).encode() for record in records]

    def _object(self, branch: Branch) -> list[tuple[str, Node]]:
        found: list[tuple[str, Node]] = []
        for key, known in branch.keys.items():
            if self.chance.random() < 0.1:
                continue
            found.append((json.dumps(key), self._value(known)))
        if branch.rest is not None:
            found += [
                (f'"x{number}"', self.chance.choice(ODD_TEXTS)) for number in range(self.chance.randrange(3))
            ]
        return found

    def _value(self, known: Branch | object) -> Node:
        if self.chance.random() < 0.05:
            return "null"
        if isinstance(known, Branch):
            return self._object(known)
        if isinstance(known, str):
            return json.dumps(known)
        return self._fitting(known.kind)  # type: ignore[attr-defined] # a column

    def _fitting(self, kind: Kind) -> Node:
        chance = self.chance
        integers = (0, 1, 7, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), chance.randrange(10**6))
        some = range(chance.randrange(3))
        texts = ('"active"', '"名前"', '"a \\"b\\""', f'"t{chance.randrange(99)}"')
        makers: dict[Kind, Callable[[], Node]] = {
            Kind.INTEGER: lambda: str(chance.choice(integers)),
            Kind.NUMBER: lambda: chance.choice(("0", "1.5", "2", "0.1", '"12.50"', "123456.789")),
            Kind.TIME: self._time,
            Kind.TEXTS: lambda: [f'"v{chance.randrange(9)}"' for _ in some],
            Kind.TIMES: lambda: [self._time() for _ in some],
            Kind.JSON_LIST: lambda: [[('"k"', chance.choice(ODD_VALUES))] for _ in some],
        }
        maker = makers.get(kind)
        return chance.choice(texts) if maker is None else maker()

    def _time(self) -> str:
        seconds = self.chance.randrange(-(10**9), 4 * 10**9)
        digits = self.chance.choice(("", ".5", ".123456", ".999999999", ".000000001"))
        text = f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}"
        return f'"{text}{digits}Z"'

    def _mutate(self, record: Node) -> None:
        """Change one thing at a random place of a record."""
        places = [place for place in walk(record) if place[0] is not record or place[0][place[1]][0] != '"id"']
        kind = self.chance.choice(
            ("replace", "replace", "replace", "drop", "twice", "add", "wrap", "swap", "nest", "id twice")
        )
        if not places and kind != "add":
            kind = "add"
        self.made[kind] = self.made.get(kind, 0) + 1
        if kind == "id twice":
            record.insert(0, ('"id"', self.chance.choice(ODD_VALUES)))
            return
        if kind == "add":
            objects = [record, *(value for _, _, value in walk(record) if is_object(value))]
            new_key = self.chance.choice(ODD_KEYS)
            if new_key != "id":
                chosen = self.chance.choice(objects)
                chosen.insert(self.chance.randrange(len(chosen) + 1), (json.dumps(new_key), self._odd()))
            return
        parent, index, value = self.chance.choice(places)
        key: str | None = parent[index][0] if isinstance(parent[index], tuple) else None
        if kind == "drop":
            del parent[index]
        elif kind == "twice" and key is not None:
            parent.insert(self.chance.randrange(index + 1), (key, self._odd()))
        else:
            new = {"wrap": [value], "nest": [('"id"', value)], "swap": [('"type"', '"x"'), ('"v"', value)]}.get(
                kind, self._odd() if kind != "twice" else "null"
            )
            parent[index] = new if key is None else (key, new)

    def _odd(self) -> Node:
        chance = self.chance.random()
        if chance < 0.8:
            return self.chance.choice(ODD_VALUES)
        if chance < 0.9:
            return [self.chance.choice(ODD_VALUES) for _ in range(self.chance.randrange(3))]
        return [
            (json.dumps(self.chance.choice(ODD_KEYS)), self.chance.choice(ODD_VALUES))
            for _ in range(self.chance.randrange(3))
        ] or _EMPTY.copy()

    def _damage(self, body: bytes) -> bytes:
        self.made["bytes"] = self.made.get("bytes", 0) + 1
        for _ in range(self.chance.choice((1, 1, 2))):
            place = self.chance.randrange(len(body))
            put = self.chance.choice(PUT)
            body = {
                "replace": body[:place] + put + body[place + 1 :],
                "insert": body[:place] + put + body[place:],
                "cut": body[:place],
            }[self.chance.choice(("replace", "replace", "insert", "insert", "cut"))]
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
    """Yield each value below a value with its parent and its place there."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            below = item[1] if isinstance(item, tuple) else item
            yield value, index, below
            yield from walk(below)


def write(value: Node) -> str:
    """Write a value as compact JSON text."""
    if is_object(value):
        return "{" + ",".join(f"{key}:{write(item)}" for key, item in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    return str(value)


class Digits(str):
    """The text of a number."""

    __slots__ = ()


def parse(text: bytes | str) -> Any:  # noqa: ANN401 - any JSON value
    """Parse JSON by Python's own parser, with numbers as their digits; of a key twice the last counts."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    if isinstance(text, bytes):
        text = text.decode()
    return json.loads(text, parse_int=Digits, parse_float=Digits, parse_constant=refuse)


def leaves(value: Any, path: str = "") -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    """List by path all values that are no objects, and empty objects; ``null`` is no leaf."""
    if not isinstance(value, dict) or not value:
        return {} if value is None else {path: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        step = key.replace("\\", "\\\\").replace(".", "\\.")
        found |= leaves(inner, f"{path}.{step}" if path else f"/{step}")
    return found


def micros(text: str) -> int | None:
    """Read a time in microseconds since 1970, digits after that cut; ``None`` for what is no such time."""
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


def exactly(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Write a value so that all that differs differs, digits too."""
    if isinstance(value, Digits):
        return f"number {value}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key!r}:{exactly(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(exactly, value)) + "]"
    return repr(value)


@dataclass
class Account:
    """What was sent of a record, and what a row has of it, by path."""

    sent: dict[str, Any]
    elsewhere: dict[str, Any]
    faults: list[str] = field(default_factory=list)

    def take(self, path: str, value: Any, kind: Kind) -> None:  # noqa: ANN401 - a cell
        """Take a cell."""
        if path in self.elsewhere:
            self.faults.append(f"{path} is in its column and elsewhere")
        if path not in self.sent:
            self.faults.append(f"{path} is in a column, and was not sent")
        elif not holds(value, self.sent.pop(path), kind):
            self.faults.append(f"{path} is {value!r} in its column")

    def take_object(self, path: str, text: str) -> None:
        """Take a cell with the rest of an object, as JSON text."""
        inside = leaves(parse(text), path)
        if inside == {path: {}} and path not in self.sent:
            return
        if self.elsewhere.keys() & inside.keys():
            self.faults.append(f"{path} is there twice")
        self.elsewhere |= inside

    def close(self, untraced: dict[str, str]) -> list[str]:
        """Compare the rest, but for values that leave no trace."""
        self.faults += [f"{path} was not sent" for path in self.elsewhere.keys() - self.sent.keys()]
        for path, value in self.sent.items():
            if path in self.elsewhere and exactly(self.elsewhere[path]) != exactly(value):
                self.faults.append(f"{path} is {exactly(self.elsewhere[path])[:80]}, not {exactly(value)[:80]}")
            elif path not in self.elsewhere and untraced.get(path) != exactly(value):
                self.faults.append(f"{path} is lost: {exactly(value)[:80]}")
        return self.faults


def lost(record: dict[str, Any], row: dict[str, Any], schema: Schema) -> list[str]:
    """Return what a row of a table does not hold of a record, holds differently, or holds besides.

    Parameters
    ----------
    record
        What `parse` makes of the record's text.
    row
        The row, with times as microseconds since 1970.
    schema
        Its columns.

    Returns
    -------
    list of str
        A line for each fault; none where the row holds each leaf once, in its column or in ``extra``.
    """
    in_extra = {f"/{path}": value for path, value in parse(row["extra"] or "{}").items()}
    account = Account(leaves(record), in_extra)
    untraced = {"/" + ".".join(path): exactly(value) for path, value in schema.constants}
    for column in (column for column in schema.columns if column.path):
        path, value = "/" + ".".join(column.path), row[column.name]
        sent = account.sent.get(path)
        if value is None:
            if column.kind is Kind.TIME and type(sent) is str and micros(sent) == micros(ZERO_TIME):
                untraced[path] = exactly(sent)
        elif column.kind.is_object:
            account.take_object(path, value)
        else:
            is_id = column.kind is Kind.TEXT_OR_ID and f"{path}.id" in account.sent
            account.take(f"{path}.id" if is_id else path, value, column.kind)
    return account.close(untraced)


def holds(value: Any, sent: Any, kind: Kind) -> bool:  # noqa: ANN401 - a cell, and any JSON value
    """Return whether a cell holds what was sent."""
    if kind in {Kind.INTEGER, Kind.NUMBER}:
        number = int if kind is Kind.INTEGER else float
        return isinstance(sent, Digits if kind is Kind.INTEGER else str) and bool(value == number(sent))
    if kind is Kind.TIMES:
        return isinstance(sent, list) and value == [micros(item) if type(item) is str else None for item in sent]
    if kind in {Kind.TEXTS, Kind.JSON_LIST}:
        return isinstance(sent, list) and exactly(value if kind is Kind.TEXTS else parse(value)) == exactly(sent)
    return type(sent) is str and bool(value == (micros(sent) if kind is Kind.TIME else sent))
