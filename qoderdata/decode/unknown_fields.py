"""Keep the fields that have no column, and values that do not fit one, in the column ``extra``.

It is JSON text of dotted paths and values, an object leaf by leaf.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from qoderdata.decode.jsontext import DEEPEST, is_canonical, join_list, parse, too_deep_error, write
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
    if not fields:
        return pa.nulls(count, pa.large_string())
    joined = [join_list(texts) for texts in fields.values()]
    load, dump = (orjson.loads, orjson.dumps) if all(map(is_canonical, joined)) else (parse, write)
    leaves = [
        leaf
        for path, text in zip(fields, joined, strict=True)
        for leaf in _leaves(dict(enumerate(load(text))), dotted(path))
    ]
    rows: list[dict[str, object]] = [{} for _ in range(count)]
    for name, values in sorted(leaves, key=itemgetter(0)):
        for index, value in values.items():
            rows[index][name] = value
    return pa.array([dump(row) if row else None for row in rows], pa.large_string())


def _escaped(key: object) -> str:
    if not isinstance(key, str):
        raise APIResponseValidationError(f"a record has a key of type {type(key).__name__}; JSON keys are strings")
    return key.replace("\\", "\\\\").replace(".", "\\.") if "." in key or "\\" in key else key


def _leaves(values: Mapping[int, object], path: str, depth: int = 0) -> Iterator[tuple[str, dict[int, object]]]:
    """Yield the path of each leaf of some values, with its values by row; `add_to_extra` does it for one row."""
    if depth > DEEPEST:
        raise too_deep_error()
    leaves: dict[int, object] = {}
    nested: dict[str, dict[int, object]] = {}
    for index, value in values.items():
        if isinstance(value, dict) and value:
            for key, item in value.items():
                nested.setdefault(key, {})[index] = item
        elif value is not None:
            leaves[index] = value
    yield path, leaves
    for key, inner in nested.items():
        yield from _leaves(inner, f"{path}.{_escaped(key)}", depth + 1)
