"""Parse JSON text exactly, and write it in one canonical form.

Numbers that a Python number would change keep their digits, and lone surrogates keep their escapes. What JSON
forbids (``NaN``, bad UTF-8, trailing data) is an error. A key that occurs twice in an object: the last one counts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

import orjson

from qoderdata.errors import APIResponseValidationError

if TYPE_CHECKING:
    import msgspec

#: How deeply lists and objects may be nested. The contract has six levels.
DEEPEST = 256

_INT64_CHARACTERS = 20
#: Python refuses to make an `int` of more digits.
_LONGEST_INT = 4300
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class NotJSONError(ValueError):
    """The body is cut short or is not JSON; a new request may help."""


@dataclass(frozen=True, slots=True)
class Number:
    """The text of a number that a Python number would change."""

    text: str


def parse(text: bytes, *, plain: bool = False) -> Any:  # noqa: ANN401 - any JSON value
    """Parse one JSON text to Python values; integers of up to 20 characters become `int`, other numbers `Number`.

    `plain`: numbers become an `int`, else a `decimal.Decimal`, else text if neither can hold them.

    Raise `NotJSONError` if it is cut short, followed by other data, ``NaN``, or not UTF-8, and
    `APIResponseValidationError` if it is nested too deeply.

    Examples
    --------
    >>> parse(b'{"a": [1, 1.50]}')
    {'a': [1, Number(text='1.50')]}
    """
    try:
        return (_PLAIN_DECODER if plain else _DECODER).decode(text.decode())
    except RecursionError:
        raise too_deep_error() from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise NotJSONError(f"the answer is not whole, valid JSON: {error}") from error


def too_deep_error() -> APIResponseValidationError:
    """Return the error for values that are nested too deeply."""
    return APIResponseValidationError(
        f"the answer nests lists and objects more than {DEEPEST} levels deep; the service's contract has six. "
        "Look at what it sent: nothing was loaded"
    )


def is_utf8(text: str) -> bool:
    """Return whether UTF-8 can encode a string; a lone surrogate cannot be encoded."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def write(value: object, depth: int = 0) -> str:
    r"""Return a value as canonical JSON text: compact, non-ASCII characters as they are, keys in their order.

    Takes what `parse` returns, and tuples, floats, and datetimes, which become RFC 3339 text (in UTC if they
    have a zone). A lone surrogate, which UTF-8 cannot encode, is written as its escape. Raise
    `APIResponseValidationError` if the value has no JSON form (``NaN``, a key that is not a string, another
    type), or is nested too deeply.

    Examples
    --------
    >>> print(write({"b": [1, None], "a": "é\\n"}))
    {"b":[1,null],"a":"é\\n"}
    """
    if isinstance(value, str):
        return _LONE_SURROGATE.sub(_escape, encode_basestring(value))
    if depth > DEEPEST:
        raise too_deep_error()
    if isinstance(value, Mapping):
        return "{" + ",".join([_key(key) + ":" + write(item, depth + 1) for key, item in value.items()]) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join([write(item, depth + 1) for item in value]) + "]"
    return _scalar(value)


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise APIResponseValidationError(f"a record has the key {key!r:.100}; JSON keys are strings")
    return write(key)


def _scalar(value: object) -> str:
    if value is None or isinstance(value, bool):
        return _LITERALS[value]
    if isinstance(value, Number):
        return value.text
    if isinstance(value, datetime):
        return encode_basestring(stamp(value))
    if isinstance(value, int):
        return _integer_text(value)
    if isinstance(value, float) and math.isfinite(value):
        return float.__repr__(value)
    if isinstance(value, Decimal) and value.is_finite():
        return str(value)
    raise APIResponseValidationError(
        f"a record holds a {type(value).__name__} that has no JSON form; give strings, finite numbers, booleans, "
        "None, lists, dicts and datetimes"
    )


def _integer_text(value: int) -> str:
    try:
        return int.__repr__(value)
    except ValueError as error:
        raise APIResponseValidationError(
            "a record holds an integer of more than 4,300 digits, which Python does not write. Give it as text"
        ) from error


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def join_list(texts: Iterable[bytes | msgspec.Raw]) -> bytes:
    """Return JSON texts as the text of one JSON list."""
    return b"[%b]" % b",".join(texts)


def is_canonical(text: bytes) -> bool:
    """Return whether JSON text is exactly as `write` writes it."""
    try:
        return orjson.dumps(orjson.loads(text)) == text
    except (orjson.JSONDecodeError, TypeError):  # orjson raises the latter for text that is nested too deeply
        return False


def canonical(text: bytes) -> bytes:
    """Return JSON text in its canonical form."""
    return text if is_canonical(text) else write(parse(text)).encode()


def stamp(value: datetime) -> str:
    """Return a time as the service writes it: RFC 3339 without trailing zeros in the fraction.

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


def _integer(text: str) -> int | Number:
    return int(text) if len(text) <= _INT64_CHARACTERS and text != "-0" else Number(text)


def _plain_number(text: str) -> int | Decimal | str:
    try:
        is_integer = text.lstrip("-").isdigit() and text != "-0"
        return int(text) if is_integer and len(text) <= _LONGEST_INT else Decimal(text)
    except InvalidOperation:
        return text


def _no_constant(text: str) -> object:
    raise NotJSONError(f"the answer is not valid JSON: it has {text}")


_LITERALS: dict[object, str] = {None: "null", True: "true", False: "false"}
_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=Number, parse_constant=_no_constant)
_PLAIN_DECODER = json.JSONDecoder(parse_int=_plain_number, parse_float=_plain_number, parse_constant=_no_constant)
