"""Keep the fields that have no column, and values that do not fit one, in the column ``extra``.

It is JSON text of dotted paths and values, an object leaf by leaf.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from qoderdata.decode.jsontext import DEEPEST, is_canonical, join_list, parse, too_deep_error, write_bytes
from qoderdata.errors import APIResponseValidationError

if TYPE_CHECKING:
    import msgspec

#: A key in a dotted path, and an escaped character in it.
_KEY = re.compile(r"(?:^|\.)((?:\\.|[^.\\])*)")
_ESCAPE = re.compile(r"\\(.)")

FieldPath = tuple[str, ...]


def dotted(path: Iterable[str]) -> str:
    r"""Return keys as one path; a dot or backslash in a key is escaped, so that no two paths are the same.

    Examples
    --------
    >>> print(dotted(["budget", "v1.limit"]))
    budget.v1\.limit
    """
    return ".".join(map(_escaped, path))


def add_to_extra(value: object, path: str, extra: dict[str, object], *, depth: int = 0) -> None:
    """Put a value into `extra`, an object leaf by leaf; ``null`` leaves no trace."""
    if depth > DEEPEST:
        raise too_deep_error()
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            add_to_extra(item, f"{path}.{_escaped(key)}", extra, depth=depth + 1)
    elif value is not None:
        extra[path] = value


def to_nested(extra: Mapping[str, object]) -> dict[str, Any]:
    """Return the fields in ``extra`` as nested objects; it reverses `add_to_extra`."""
    record: dict[str, Any] = {}
    for path, value in extra.items():
        *above, key = (_ESCAPE.sub(r"\1", part) for part in _KEY.findall(path))
        inner = record
        for name in above:
            inner = inner.setdefault(name, {})
        inner[key] = value
    return record


def extra_column(fields: Mapping[FieldPath, Sequence[msgspec.Raw]], count: int) -> Any:  # noqa: ANN401 - an Arrow array
    """Return the fields of many records that have no column, given by path, as ``extra``."""
    if not fields or not count:
        return pa.nulls(count, pa.large_string())
    joined = [join_list(texts) for texts in fields.values()]
    load, dump = (orjson.loads, orjson.dumps) if all(map(is_canonical, joined)) else (parse, write_bytes)
    rows: list[dict[str, object]] = [{} for _ in range(count)]
    for path, text in zip(fields, joined, strict=True):
        name = dotted(path)
        for row, value in zip(rows, load(text), strict=True):
            add_to_extra(value, name, row)
    return pa.array([dump(dict(sorted(row.items()))) if row else None for row in rows], pa.large_string())


def _escaped(key: object) -> str:
    if not isinstance(key, str):
        raise APIResponseValidationError(f"a record has a key of type {type(key).__name__}; JSON keys are strings")
    return key.replace("\\", "\\\\").replace(".", "\\.") if "." in key or "\\" in key else key
