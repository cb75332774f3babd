"""Read records one value at a time: which value fits a column, and where does every other value go?

This reader takes any record and loses nothing. A value goes to its column, or to ``extra`` under its dotted path.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from qoderdata.decode.jsontext import Number, is_utf8, write
from qoderdata.decode.unknown_fields import FieldPath, add_to_extra, dotted
from qoderdata.errors import APIResponseValidationError
from qoderdata.schema import EXTRA, Branch, Column, Kind, Schema
from qoderdata.time_math import to_micros

#: The service's zero time, in microseconds since 1970; it means that nothing happened yet.
ZERO_TIME = -62135596800000000
#: Returned for a value that does not fit; ``None`` means missing, which fits.
MISFIT = object()
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_CLOCK = r"([01]\d|2[0-3]):[0-5]\d"
_TIME = re.compile(rf"\d{{4}}-\d\d-\d\dT{_CLOCK}:[0-5]\d(\.\d+)?(Z|[+-]{_CLOCK})", re.ASCII)
_DECIMAL = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")


@dataclass(frozen=True, slots=True)
class Misfit:
    """A value that does not fit its column: the record's id, and the value's path."""

    id: str
    path: str


def flatten(
    records: Sequence[Mapping[str, object]], schema: Schema
) -> tuple[pa.Table, list[Misfit], set[FieldPath]]:
    """Flatten JSON objects, as `qoderdata.decode.jsontext.parse` returns them, to a table, one row per record.

    Return also the misfits in it, and the paths of fields that have no column. All records have an ``id``.
    """
    rows: dict[str, list[object]] = {name: [] for name in schema.names}
    misfits: list[Misfit] = []
    unknown: set[FieldPath] = set()
    for record in records:
        row = Row(unknown)
        row.walk(record, schema.tree)
        row.columns[EXTRA] = row.extra_text()
        for name, values in rows.items():
            values.append(row.columns.get(name))
        misfits += [Misfit(row.columns["id"], path) for path in row.misfits]
    arrays = [to_array(rows[part.name], part.type) for part in schema.arrow]
    return pa.Table.from_arrays(arrays, schema=schema.arrow), misfits, unknown


def require_record(record: object, index: int) -> Mapping[str, object]:
    """Return a record of an answer; raise `APIResponseValidationError` if it is not an object with an ``id``."""
    if not isinstance(record, Mapping):
        lack = "is not an object"
    elif record.get("id") is None or fit(record["id"], Kind.TEXT) is MISFIT:
        lack = "has no id that is text"
    else:
        return record
    raise APIResponseValidationError(
        f"record {index} of the answer {lack}. Look at what was sent: nothing was loaded"
    )


def to_array(values: Sequence[object], kind: pa.DataType) -> Any:  # noqa: ANN401 - an Arrow array
    """Return values as an Arrow array."""
    if pa.types.is_dictionary(kind):
        # pyarrow 18 cannot make a dictionary of long texts in one step.
        return pa.array(values, pa.large_string()).dictionary_encode()
    return pa.array(values, kind)


class Row:
    """The values of one record: by column, the rest by dotted path, and the paths of misfits."""

    __slots__ = ("columns", "extra", "misfits", "unknown")

    def __init__(self, unknown: set[FieldPath]) -> None:
        self.columns: dict[str, Any] = {}
        self.extra: dict[str, object] = {}
        self.misfits: list[str] = []
        self.unknown = unknown

    def walk(self, value: Mapping[str, object], branch: Branch, above: FieldPath = ()) -> None:
        """Put each value of an object into its column, into the column of other keys, or into `extra`."""
        own: dict[str, object] = {}
        for key, item in value.items():
            known = branch.keys.get(key)
            if known is None and branch.rest is not None:
                own[key] = item
                continue
            if known is None:
                self.unknown.add((*above, key))
            rest = None if item is None else self._take(item, known, (*above, key))
            if rest is None:
                continue
            if branch.rest is not None:
                own[key] = rest
            else:
                add_to_extra(rest, dotted((*above, key)), self.extra)
        if branch.rest is not None:
            self.columns[branch.rest.name] = write(own)

    def extra_text(self) -> str | None:
        """Return `extra` as JSON text."""
        return write(dict(sorted(self.extra.items()))) if self.extra else None

    def _take(self, item: object, known: Branch | Column | str | None, path: FieldPath) -> object:
        """Put a value into its column or into `extra`; return what the column does not store of an object."""
        if isinstance(known, Column):
            rest = None
            if known.kind is Kind.TEXT_OR_ID and isinstance(item, Mapping) and isinstance(item.get("id"), str):
                rest = {key: inner for key, inner in item.items() if key != "id"}
                item, path = item["id"], (*path, "id")
            fitted = fit(item, known.kind)
            if fitted is not MISFIT:
                self.columns[known.name] = fitted
                return rest or None
            self.misfits.append(dotted(path))
            if rest:
                add_to_extra(rest, dotted(path[:-1]), self.extra)
        elif isinstance(known, str):
            if isinstance(item, str) and item == known:
                return None
        elif known is not None:
            if not isinstance(item, Mapping):
                self.misfits.append(dotted(path))
            elif item or known.rest is not None:
                self.walk(item, known, path)
                return None
        add_to_extra(item, dotted(path), self.extra)
        return None


def fit(value: object, kind: Kind) -> object:
    """Return the column's value for a JSON value: ``None`` for missing, `MISFIT` if it does not fit."""
    return _FIT[kind](value)


def _text(value: object) -> object:
    return value if isinstance(value, str) and is_utf8(value) else MISFIT


def _integer(value: object) -> object:
    """Fit an integer of 64 bits; ``-0`` is 0, and ``1.0`` is not an integer."""
    if isinstance(value, Number | Decimal) and write(value) == "-0":
        return 0
    if not isinstance(value, int) or isinstance(value, bool):
        return MISFIT
    return int(value) if _INT64_MIN <= value <= _INT64_MAX else MISFIT


def _number(value: object) -> object:
    """Fit a finite number, or a decimal number as text, to the nearest 64-bit float."""
    if isinstance(value, Number):
        value = value.text
    elif isinstance(value, bool) or (isinstance(value, str) and not _DECIMAL.fullmatch(value)):
        return MISFIT
    if not isinstance(value, int | float | str | Decimal):
        return MISFIT
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return MISFIT
    return number + 0.0 if math.isfinite(number) else MISFIT


def _time(value: object) -> object:
    """Fit a time: microseconds since 1970 in UTC, later digits cut; ``None`` for the zero time."""
    if isinstance(value, str) and _TIME.fullmatch(value):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:  # no such day
            return MISFIT
    if not isinstance(value, datetime):
        return MISFIT
    if value.tzinfo is None:
        # `pandas.NaT` is a datetime too, and the only one that is not equal to itself.
        return MISFIT if value == value else None  # noqa: PLR0124
    try:
        micros = to_micros(value.astimezone(UTC))
    except OverflowError:
        return MISFIT
    return None if micros == ZERO_TIME else micros


def _list_of(fit_item: Callable[[object], object]) -> Callable[[object], object]:
    def fit_list(value: object) -> object:
        """Fit a list of which every element fits and is not missing."""
        if not isinstance(value, list | tuple):
            return MISFIT
        fitted = [fit_item(item) for item in value]
        return MISFIT if any(item is MISFIT or item is None for item in fitted) else fitted

    return fit_list


def _json_list(value: object) -> object:
    return write(value) if isinstance(value, list | tuple) else MISFIT


_FIT: dict[Kind, Callable[[object], object]] = {
    Kind.TEXT: _text,
    Kind.TEXT_OR_ID: _text,
    Kind.INTEGER: _integer,
    Kind.NUMBER: _number,
    Kind.TIME: _time,
    Kind.TEXTS: _list_of(_text),
    Kind.TIMES: _list_of(_time),
    Kind.JSON_LIST: _json_list,
}
