"""One column to the cells of a CSV file: how each kind of value is written.

Arrow's plain types are written in bulk; Python objects, lists and structures one by one, as JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from qoderdata.export import formulas, masking
from qoderdata.frame import jsontext

if TYPE_CHECKING:
    from collections.abc import Callable

_OFFSET = r"([+-]\d\d)(\d\d)$"
_IDLE_ZEROS = r"\.0+($|[+-])"


def cells(column: pa.Array[Any] | list[object], *, name: str, safe: bool) -> pa.Array[Any]:
    """Write one column, or a piece of it.

    Parameters
    ----------
    column
        Its values: an Arrow array, or Python objects.
    name
        Its name, which may say that its values are secrets.
    safe
        Whether to escape what a spreadsheet could run.

    Returns
    -------
    pyarrow.Array
        Numbers and booleans as they are, everything else as texts; missing values stay missing.
    """
    hide = masking.is_secret(name)
    if isinstance(column, pa.DictionaryArray):
        return cells(column.dictionary, name=name, safe=safe).take(column.indices)
    if isinstance(column, pa.Array) and not hide:
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            texts = column.cast(pa.large_string())
            texts = formulas.replace_some(texts, masking.PATTERN, masking.mask_text)
            return formulas.escape_array(texts) if safe else texts
        if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            return column
        if pa.types.is_floating(kind):
            numbers: pa.Array[Any] = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
            return numbers
        if pa.types.is_timestamp(kind):
            return _times(column)
    values = column.to_pylist() if isinstance(column, pa.Array) else column
    return pa.array([_text(value, hide=hide, safe=safe) for value in values], pa.large_string())


def _times(times: pa.Array[Any]) -> pa.Array[Any]:
    zoned = times.type.tz is not None
    texts = pc.strftime(times, "%Y-%m-%dT%H:%M:%S%z" if zoned else "%Y-%m-%dT%H:%M:%S")
    texts = pc.replace_substring_regex(texts, _OFFSET, r"\1:\2") if zoned else texts
    whole: pa.Array[Any] = pc.replace_substring_regex(texts, _IDLE_ZEROS, r"\1").cast(pa.large_string())
    return whole


def _text(value: object, *, hide: bool, safe: bool) -> str | None:
    plain = _json(value)
    if plain is None:
        return None
    if isinstance(plain, str):
        text = masking.mask_text(plain, hide=hide).encode(errors="backslashreplace").decode()
    else:
        masked = masking.mask_value(plain, hide=hide)
        text = masked if isinstance(masked, str) else jsontext.write(masked)
    is_number = isinstance(value, Number) and not hide
    return formulas.escape(text) if safe and not is_number else text


def _json(value: object) -> object:
    """Give what JSON can hold: gaps as ``None``, times and lengths of time in ISO 8601, arrays as lists."""
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return [_json(item) for item in (pd.Series(value) if value.dtype.kind in "mM" else value.tolist())]
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_json(item) for item in value), key=str)
    return _scalar(value)


def _scalar(value: Any) -> object:  # noqa: ANN401 - whatever stands in a column of objects
    if pd.isna(value):
        return None
    if isinstance(value, np.generic):
        value = pd.Series([value])[0] if value.dtype.kind in "mM" else value.item()
    for kinds, write in _SCALARS:
        if isinstance(value, kinds):
            return write(value)
    return str(value)


_SCALARS: tuple[tuple[type | tuple[type, ...], Callable[[Any], object]], ...] = (
    ((str, bool, int), lambda value: value),
    (float, lambda value: value if math.isfinite(value) else str(value)),
    (Decimal, lambda value: jsontext.Number(str(value)) if value.is_finite() else str(value)),
    (timedelta, lambda value: pd.Timedelta(value).isoformat()),
    ((date, time), lambda value: value.isoformat()),
    (bytes, bytes.hex),
)
