"""Records to an Arrow table, one value at a time: the way that takes anything and loses nothing.

Every value of a record goes to its column, or under its dotted path to ``extra``. What fits a column is said
here; the fast way (`qoderdata.frame.fast`) takes only what it can prove to be the same.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from qoderdata.errors import APIResponseValidationError
from qoderdata.frame.jsontext import DEEPEST, is_utf8, too_deep, write
from qoderdata.schema import EXTRA, Branch, Column, Kind, Schema

#: What a column is given where the value does not fit it; ``None`` is missing, and fits.
_MISFIT = object()
_INT64 = range(-(2**63), 2**63)
#: The zero time of the service, in microseconds since 1970: nothing happened yet.
ZERO_TIME = -62135596800000000
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)


@dataclass(frozen=True, slots=True)
class Misfit:
    """One value that does not fit its column: whose, and which."""

    id: str
    path: str


@dataclass(slots=True)
class Columns:
    """What `flatten` gives: the table, what did not fit, and the paths of fields that have no column."""

    table: pa.Table
    misfits: list[Misfit]
    unknown: set[tuple[str, ...]]


def flatten(records: Sequence[object], schema: Schema, *, first: int = 0) -> Columns:
    """Flatten records, one value at a time.

    Parameters
    ----------
    records
        JSON objects, as `qoderdata.frame.jsontext.parse` gives them, or as Python's own values.
    schema
        The columns.
    first
        The place of the first record in what it is part of, for messages.

    Returns
    -------
    Columns
        A table of ``schema.arrow``, one row a record in the same order; and the misfits.

    Raises
    ------
    APIResponseValidationError
        A record is not an object, or has no ``id``.
    """
    rows: dict[str, list[object]] = {name: [] for name in schema.names}
    misfits: list[Misfit] = []
    unknown: set[tuple[str, ...]] = set()
    for place, record in enumerate(records, start=first):
        if not isinstance(record, Mapping):
            raise APIResponseValidationError(
                f"record {place} of the answer is not an object. Look at what was sent: nothing was loaded"
            )
        row = _Row(unknown)
        row.walk(record, schema.tree)
        if row.columns.get("id") is None:
            raise APIResponseValidationError(
                f"record {place} of the answer has no id that is text. Look at what was sent: nothing was loaded"
            )
        if row.extra:
            row.columns[EXTRA] = write(dict(sorted(row.extra.items())))
        for name, values in rows.items():
            values.append(row.columns.get(name))
        misfits += [Misfit(row.columns["id"], path) for path in row.misfits]
    arrays = [pa.array(rows[part.name], type=part.type) for part in schema.arrow]
    return Columns(pa.Table.from_arrays(arrays, schema=schema.arrow), misfits, unknown)


class _Row:
    """What one record gives: its columns, its leftovers by path, and the paths of its misfits."""

    __slots__ = ("columns", "extra", "misfits", "unknown")

    def __init__(self, unknown: set[tuple[str, ...]]) -> None:
        self.columns: dict[str, Any] = {}
        self.extra: dict[str, object] = {}
        self.misfits: list[str] = []
        self.unknown = unknown

    def walk(self, value: Mapping[str, object], branch: Branch, above: tuple[str, ...] = ()) -> None:
        own: dict[str, object] = {}
        for key, item in value.items():
            known = branch.keys.get(key)
            if known is None and branch.rest is not None:
                own[key] = item
            elif item is not None:
                self._take(item, known, (*above, key))
        if branch.rest is not None:
            self.columns[branch.rest.name] = write(own)

    def _take(self, item: object, known: Branch | Column | str | None, path: tuple[str, ...]) -> None:
        if known is None:
            self.unknown.add(path)
        elif isinstance(known, Column):
            fitted = _FIT[known.kind](item)
            if fitted is not _MISFIT:
                self.columns[known.name] = fitted
                return
            self.misfits.append(dotted(path))
        elif isinstance(known, str):
            if isinstance(item, str) and item == known:
                return
        elif not isinstance(item, Mapping):
            self.misfits.append(dotted(path))
        elif item or known.rest is not None:
            self.walk(item, known, path)
            return
        keep(item, dotted(path), self.extra)


def dotted(path: Iterable[str]) -> str:
    r"""Join keys to one path; a dot or backslash in a key is escaped, so that no two paths are the same.

    Examples
    --------
    >>> print(dotted(["budget", "v1.limit"]))
    budget.v1\.limit
    """
    return ".".join(map(_escaped, path))


def keep(value: object, path: str, extra: dict[str, object], *, depth: int = 0) -> None:
    """Put a value into `extra`, an object leaf by leaf; ``null`` leaves no trace there."""
    if depth > DEEPEST:
        raise too_deep()
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            keep(item, f"{path}.{_escaped(key)}", extra, depth=depth + 1)
    elif value is not None:
        extra[path] = value


def _escaped(key: object) -> str:
    """Write a key as one step of a dotted path, so that no two paths are the same."""
    if not isinstance(key, str):
        raise APIResponseValidationError(f"a record has a key of type {type(key).__name__}; JSON keys are strings")
    return key.replace("\\", "\\\\").replace(".", "\\.") if "." in key or "\\" in key else key


def _text(value: object) -> object:
    """Take any string that UTF-8 can carry: half a surrogate pair cannot be in a column."""
    return value if isinstance(value, str) and is_utf8(value) else _MISFIT


def _integer(value: object) -> object:
    return value if isinstance(value, int) and not isinstance(value, bool) and value in _INT64 else _MISFIT


def _time(value: object) -> object:
    """Give microseconds since 1970 in UTC, later digits cut; ``None`` for the zero time."""
    micros = _moment(value) if isinstance(value, datetime) else _read_time(value)
    return None if micros == ZERO_TIME else micros


def _moment(value: datetime) -> object:
    if value.tzinfo is None:
        # `pandas.NaT` is a datetime too, and the only one that is not equal to itself.
        return _MISFIT if value == value else None  # noqa: PLR0124
    try:
        return calendar.timegm(value.utctimetuple()) * 1_000_000 + value.microsecond
    except OverflowError:
        return _MISFIT


def _read_time(value: object) -> object:
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return _MISFIT
    *parts, fraction, sign, hours, minutes = found.groups()
    try:
        moment = datetime(*map(int, parts), int((fraction or "")[:6].ljust(6, "0")), tzinfo=UTC)  # type: ignore[misc,arg-type]
        if sign is not None:
            if int(hours) > 23 or int(minutes) > 59:  # noqa: PLR2004 - the clock's own numbers
                return _MISFIT
            offset = timedelta(hours=int(hours), minutes=int(minutes))
            moment = moment - offset if sign == "+" else moment + offset
    except (ValueError, OverflowError):
        return _MISFIT
    return calendar.timegm(moment.utctimetuple()) * 1_000_000 + moment.microsecond


def _list_of(fit: Callable[[object], object]) -> Callable[[object], object]:
    def fit_list(value: object) -> object:
        """Take a list whose every element is a real value: one bad one and the list does not fit."""
        if not isinstance(value, list | tuple):
            return _MISFIT
        fitted = [fit(item) for item in value]
        return _MISFIT if any(item is _MISFIT or item is None for item in fitted) else fitted

    return fit_list


def _json_list(value: object) -> object:
    return write(value) if isinstance(value, list | tuple) else _MISFIT


_FIT: dict[Kind, Callable[[object], object]] = {
    Kind.TEXT: _text,
    Kind.INTEGER: _integer,
    Kind.TIME: _time,
    Kind.TEXTS: _list_of(_text),
    Kind.TIMES: _list_of(_time),
    Kind.JSON_LIST: _json_list,
}
