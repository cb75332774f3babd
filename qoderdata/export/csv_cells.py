r"""How is each kind of value written as a CSV cell, what would a spreadsheet run, and which values may be secrets?

Arrow's plain types are written in bulk; Python objects, lists and structures one by one, as JSON.

A cell is a formula when it starts with ``=``, ``+``, ``-`` or ``@``. Programs differ in what they skip before they
look (spaces, quotes, an apostrophe, invisible characters), and East Asian versions take the full-width forms too.
Some skip a tab or a line break at the start, in others it starts a new cell. A program that takes ``;`` or a tab
for the separator sees further cells inside a text. So an apostrophe goes before whatever looks dangerous at the
start of a text, after ``;``, after a tab or after a line break. A text that looks escaped already is escaped once
more, so `unescape` returns every text.

The values of ``environment_variables`` may be secrets. Deployments have one text there (``KEY=VALUE`` lines),
sessions an object. Both are masked wherever they can stand: under that key in JSON text (``extra``, as a whole or
as a dotted path), at any depth of a list or object, and in a column of that name. The keys of an object stay; a
text becomes `MASK` as a whole, since a value may hold what looks like the next line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from qoderdata.decode import jsontext
from qoderdata.errors import APIResponseValidationError

if TYPE_CHECKING:
    from collections.abc import Callable

_MARK = "'"
#: Skipped by one program or another before it looks: quotes, controls, spaces, invisible characters.
_SKIPPED = (
    r"""['"\x01-\x08\x0b\x0c\x0e-\x20\x7f-\xa0\xad"""
    "\u061c\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]*"
)
#: Starts a formula, or hides what follows (NUL). Full-width and small forms are what East Asian versions take.
_STARTS = "[=+@\\-\\x00\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b]"
_SEPARATORS = r"[;\t\r\n]"
_BREAKS = r"[\t\r\n]"

_AT_START = rf"\A(?={_SKIPPED}{_BREAKS})"
_IN_EACH_CELL = rf"(?:\A|(?<={_SEPARATORS}))(?={_SKIPPED}{_STARTS})"
_ESCAPE = re.compile(f"{_AT_START}|{_IN_EACH_CELL}")
_UNESCAPE = re.compile(rf"\A'(?={_SKIPPED}{_BREAKS})|(?:\A|(?<={_SEPARATORS}))'(?={_SKIPPED}{_STARTS})")
#: The same as `_ESCAPE` for Arrow's regular expressions, which cannot look around; `\x00` is spelt for RE2.
_NEEDS = rf"\A{_SKIPPED}{_BREAKS}|(?:\A|{_SEPARATORS}){_SKIPPED}{_STARTS}"
_OFFSET = r"([+-]\d\d)(\d\d)$"
_IDLE_ZEROS = r"\.0+($|[+-])"

#: Stands where a value was.
MASK = "***"
SECRET = "environment_variables"  # noqa: S105 - the name of the field, not a secret
#: Texts that may hold the key; an escape such as ``\\u0065`` could spell it.
_MAY_BE_SECRET = rf"{SECRET}|\\u"
_SECRET_PATTERN = re.compile(_MAY_BE_SECRET)


def cells(column: pa.Array[Any] | list[object], *, name: str, safe: bool) -> pa.Array[Any]:
    """Return one column, or a piece of it, as cells.

    Parameters
    ----------
    column
        The values: an Arrow array, or Python objects.
    name
        The column's name, which may say that its values are secrets.
    safe
        Whether to escape what a spreadsheet could run.

    Returns
    -------
    pyarrow.Array
        Numbers and booleans as they are, everything else as texts; missing values stay missing.
    """
    hide = is_secret(name)
    if isinstance(column, pa.DictionaryArray):
        return cells(column.dictionary, name=name, safe=safe).take(column.indices)
    if isinstance(column, pa.Array) and not hide:
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            texts = column.cast(pa.large_string())
            texts = replace_some(texts, _MAY_BE_SECRET, mask_text)
            return escape_array(texts) if safe else texts
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
        text = mask_text(plain, hide=hide).encode(errors="backslashreplace").decode()
    else:
        masked = mask_value(plain, hide=hide)
        text = masked if isinstance(masked, str) else jsontext.write(masked)
    is_number = isinstance(value, Number) and not hide
    return escape(text) if safe and not is_number else text


def _json(value: object) -> object:
    """Return what JSON can hold: gaps as ``None``, times and lengths of time in ISO 8601, arrays as lists."""
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


def escape(text: str) -> str:
    """Put an apostrophe before everything that a spreadsheet could run.

    Parameters
    ----------
    text
        Any text.

    Returns
    -------
    str
        The same text where there is nothing to fear.

    Examples
    --------
    >>> escape("=1+1"), escape("Nightly - report"), escape("a;  =1+1")
    ("'=1+1", 'Nightly - report', "a;'  =1+1")
    """
    return _ESCAPE.sub(_MARK, text)


def unescape(text: str) -> str:
    """Return the text that `escape` was given.

    Parameters
    ----------
    text
        What `escape` returned.

    Returns
    -------
    str
        The text before.

    Examples
    --------
    >>> unescape("'=1+1"), unescape(escape("'=1+1")), unescape("'tis")
    ('=1+1', "'=1+1", "'tis")
    """
    return _UNESCAPE.sub("", text)


def escape_array(texts: pa.Array[Any]) -> pa.Array[Any]:
    """Escape every text of an Arrow array; missing ones stay missing.

    Parameters
    ----------
    texts
        A string array of any width.

    Returns
    -------
    pyarrow.Array
        An array of the same length and type.
    """
    return replace_some(texts, _NEEDS, escape)


def replace_some(texts: pa.Array[Any], pattern: str, change: Callable[[str], str]) -> pa.Array[Any]:
    """Change those texts that match a pattern, so that the many others never become Python objects.

    Parameters
    ----------
    texts
        A string array of any width.
    pattern
        RE2: which texts are looked at.
    change
        What becomes of one of them.

    Returns
    -------
    pyarrow.Array
        An array of the same length and type.
    """
    matches: Any = pc.match_substring_regex(texts, pattern).fill_null(fill_value=False)
    found = texts.filter(matches).to_pylist()
    if not found:
        return texts
    changed = pa.array([change(str(text)) for text in found], texts.type)
    replaced: pa.Array[Any] = pc.replace_with_mask(texts, matches, changed)
    return replaced


def is_secret(name: object) -> bool:
    """Tell whether a column or key names such values, also as a part of a path.

    Parameters
    ----------
    name
        The name of a column, or the key of an object.

    Returns
    -------
    bool
        Whether all that it holds is to be masked.

    Examples
    --------
    >>> is_secret("environment_variables"), is_secret("environment_variables_API_KEY"), is_secret("environment_id")
    (True, True, False)
    """
    return SECRET in str(name)


def mask_value(value: object, *, hide: bool = False) -> object:
    """Mask the secret values inside a list or object.

    Parameters
    ----------
    value
        What JSON, or a nested column, holds.
    hide
        Whether it is such a value already; then everything in it but keys and gaps is masked.

    Returns
    -------
    object
        The value, with new lists and objects.

    Examples
    --------
    >>> mask_value({"environment_variables": {"KEY": "s3cret", "OFF": None}, "environment_variables.A": 1, "b": 2})
    {'environment_variables': {'KEY': '***', 'OFF': None}, 'environment_variables.A': '***', 'b': 2}
    """
    if isinstance(value, Mapping):
        return {key: mask_value(item, hide=hide or is_secret(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [mask_value(item, hide=hide) for item in value]
    return MASK if hide and value is not None else value


def mask_text(text: str, *, hide: bool = False) -> str:
    """Mask the secret values in JSON text; any other text is left alone.

    Parameters
    ----------
    text
        JSON, or not.
    hide
        Whether the whole text is such a value; then text that is not a JSON list or object becomes `MASK`.

    Returns
    -------
    str
        The text; canonical JSON where something was masked.

    Examples
    --------
    >>> mask_text('{"environment_variables":{"KEY":"s3cret"}}')
    '{"environment_variables":{"KEY":"***"}}'
    >>> mask_text('{"environment_variables":"KEY=s3cret"}')
    '{"environment_variables":"***"}'
    >>> mask_text("about environment_variables")
    'about environment_variables'
    """
    if not hide and not _SECRET_PATTERN.search(text):
        return text
    try:
        value = jsontext.parse(text.encode())
    except (jsontext.NotJSONError, APIResponseValidationError):
        return MASK if hide else text
    masked = mask_value(value, hide=hide)
    return text if masked == value else jsontext.write(masked)
