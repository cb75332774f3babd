"""JSON text to Python values and back, with nothing lost on the way.

Numbers that Python would change keep their digits, half surrogate pairs keep their escapes, and whatever JSON
forbids or leaves open (a key twice, ``NaN``, bad UTF-8, something after the end) is an error, not a guess.
Knows nothing of columns.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from json.encoder import encode_basestring
from typing import Any

from qoderdata.errors import APIResponseValidationError

#: How deep lists and objects may stand in one another. The contract has six levels.
DEEPEST = 256

_INT64_CHARACTERS = 20
_HALF_PAIR = re.compile("[\ud800-\udfff]")


class NotJSONError(ValueError):
    """A body that is not whole, or not JSON at all: asking again may help."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was written, because a Python number would not write it back the same."""

    text: str


def parse(text: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Read one JSON text, exactly.

    Parameters
    ----------
    text
        UTF-8 JSON, whole.

    Returns
    -------
    Any
        Objects, lists, strings, booleans and ``None`` as Python's own; integers of up to 20 characters as
        `int`; every other number as `Number`.

    Raises
    ------
    NotJSONError
        It is not JSON: cut short, followed by something, ``NaN``, or not UTF-8.
    APIResponseValidationError
        It is JSON, but an object has the same key twice, or it is nested too deeply.

    Examples
    --------
    >>> parse(b'{"a": [1, 1.50]}')
    {'a': [1, Number(text='1.50')]}
    """
    try:
        return _DECODER.decode(text.decode())
    except RecursionError:
        raise too_deep() from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise NotJSONError(f"the answer is not whole, valid JSON: {error}") from error


def too_deep() -> APIResponseValidationError:
    """Give the error for values that are nested beyond what is read."""
    return APIResponseValidationError(
        f"the answer nests lists and objects more than {DEEPEST} levels deep; the service's contract has six. "
        "Look at what it sent: nothing was loaded"
    )


def is_utf8(text: str) -> bool:
    """Tell whether UTF-8 can carry a string: half a surrogate pair, which JSON can escape, it cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def write(value: object, depth: int = 0) -> str:
    r"""Write a value as canonical JSON text: compact, non-ASCII as it is, keys in the order they have.

    Parameters
    ----------
    value
        What `parse` gives, or Python's own equivalents: tuples, floats, and datetimes, which become RFC 3339
        text (in UTC where they have a zone).
    depth
        How deep it stands already.

    Returns
    -------
    str
        The text. Half of a surrogate pair, which UTF-8 cannot carry, is written as its escape.

    Raises
    ------
    APIResponseValidationError
        The value has no JSON form (``NaN``, a key that is no string, another type), or is nested too deeply.

    Examples
    --------
    >>> print(write({"b": [1, None], "a": "é\\n"}))
    {"b":[1,null],"a":"é\\n"}
    """
    if isinstance(value, str):
        return _HALF_PAIR.sub(_escape, encode_basestring(value))
    if depth > DEEPEST:
        raise too_deep()
    if isinstance(value, Mapping):
        return "{" + ",".join([_key(key) + ":" + write(item, depth + 1) for key, item in value.items()]) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join([write(item, depth + 1) for item in value]) + "]"
    return _scalar(value)


def _scalar(value: object) -> str:
    if value is None or isinstance(value, bool):
        return _LITERALS[value]
    if isinstance(value, Number):
        return value.text
    if isinstance(value, datetime):
        return encode_basestring(stamp(value))
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    raise APIResponseValidationError(
        f"a record holds a {type(value).__name__} that has no JSON form; give strings, finite numbers, booleans, "
        "None, lists, dicts and datetimes"
    )


def stamp(value: datetime) -> str:
    """Write a time as the service does: RFC 3339, no idle zeros after the point.

    Examples
    --------
    >>> stamp(datetime(2026, 6, 14, 8, 58, 17, 133340, tzinfo=UTC))
    '2026-06-14T08:58:17.13334Z'
    """
    try:
        value = value if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        return value.isoformat()
    text, zone = value.replace(tzinfo=None).isoformat(timespec="microseconds"), "" if value.tzinfo is None else "Z"
    return text.rstrip("0").removesuffix(".") + zone


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise APIResponseValidationError(f"a record has the key {key!r:.100}; JSON keys are strings")
    return _HALF_PAIR.sub(_escape, encode_basestring(key))


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [key for key, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise APIResponseValidationError(
            f"an object in the answer has the key {twice!r:.100} twice, so that its value would be a guess. "
            "Look at what the service sent: nothing was loaded"
        )
    return found


def _integer(text: str) -> int | Number:
    return int(text) if len(text) <= _INT64_CHARACTERS and text != "-0" else Number(text)


def _no_constant(text: str) -> object:
    raise NotJSONError(f"the answer is not valid JSON: it has {text}")


_LITERALS: dict[object, str] = {None: "null", True: "true", False: "false"}
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=Number, parse_constant=_no_constant
)
