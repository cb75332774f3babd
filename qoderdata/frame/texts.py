"""What stays JSON text, a page at a time: events, resources, the callers' metadata, and learned fields.

The text on the wire becomes the text in the column, once orjson has proved that it is what the exact way would
write: compact, no needless escapes, no number that Python would change, no key twice.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import orjson
import pyarrow as pa

from qoderdata.frame.exact import dotted, keep
from qoderdata.frame.shapes import NULL, Open, Path, Shape
from qoderdata.schema import EXTRA

if TYPE_CHECKING:
    from collections.abc import Sequence

_ESCAPE = re.compile(rb"(?:\\u[0-9a-fA-F]{4})+|\\.", re.DOTALL)
#: An escaped letter, digit or underscore. No writer of JSON does that to a key, but it would hide one.
_HIDDEN_NAME = re.compile(rb"\\u00(?:3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF])")
_LIST_OR_NULL = {list, type(None)}
_WRITER = msgspec.json.Encoder()


class Refused(Exception):  # noqa: N818 - no error: the exact way takes over
    """The page may hold something that only the exact way can judge."""


def read_texts(body: bytes, records: Sequence[Any], shape: Shape) -> dict[str, Any]:
    """Read the columns that are JSON text.

    Parameters
    ----------
    body
        The page.
    records
        Its records, as ``shape.page`` gives them.
    shape
        What is known of it.

    Returns
    -------
    dict
        The columns by name; ``extra`` holds the learned fields.

    Raises
    ------
    Refused
        Some text is not canonical, or a list is none.
    msgspec.MsgspecError, orjson.JSONDecodeError, orjson.JSONEncodeError
        Likewise.
    """
    texts: dict[str, Sequence[bytes | msgspec.Raw]] = {}
    learned = {path: shape.raws(records, path) for path in shape.learned if path[0] not in shape.open}
    for key, opened in shape.open.items():
        texts[opened.column.name], inner = _own_texts(shape.raws(records, (key,)), opened)
        learned |= {path: opened.level.raws(inner, path[2:]) for path in opened.learned}
    for column in shape.lists:
        texts[column.name] = shape.raws(records, column.path)
    _refuse_repeats(body, learned)

    count, width = len(records), len(texts)
    sent = [text for column in texts.values() for text in column]
    values, as_sent = _canonical(joined([*sent, *(text for column in learned.values() for text in column)]))
    if not set(map(type, values[len(shape.open) * count : width * count])) <= _LIST_OR_NULL:
        raise Refused("a list is something else")
    array = (_as_sent if as_sent else _rewritten)(values[: width * count], sent)
    found = {name: array.slice(place * count, count) for place, name in enumerate(texts)}
    columns = [values[place * count : (place + 1) * count] for place in range(width, width + len(learned))]
    found[EXTRA] = _extra([dotted(path) for path in learned], columns, count)
    return found


def joined(texts: Sequence[bytes | msgspec.Raw]) -> bytes:
    """Write JSON texts as one list."""
    return b"[" + b",".join(texts) + b"]"


def _own_texts(wholes: Sequence[msgspec.Raw], opened: Open) -> tuple[list[bytes], Sequence[Any]]:
    """Cut what belongs to other columns out of open objects; give the rest, and what was cut out."""
    text = joined(wholes)
    members = opened.members.decode(text)
    # A key that came twice would be gone.
    _same(_WRITER.encode(members), text)
    inner = [NULL if own is None else own.pop(opened.inner, NULL) for own in members]
    return [_WRITER.encode(own) for own in members], opened.inners.decode(joined(inner))


def _canonical(text: bytes) -> tuple[Any, bool]:
    """Read JSON text, and prove that it is written like that, but for needless escapes; tell if there are none."""
    values = orjson.loads(text)
    return values, _same(orjson.dumps(values), text)


def _same(written: bytes, text: bytes) -> bool:
    """Prove that JSON text is what was written of it, but for needless escapes; tell if there are none."""
    if written == text:
        return True
    if _ESCAPE.sub(_unescaped, written) == _ESCAPE.sub(_unescaped, text):
        return False
    raise Refused("JSON text is not canonical")


def _unescaped(match: re.Match[bytes]) -> bytes:
    escape = match[0]
    return orjson.dumps(orjson.loads(b'"' + escape + b'"'))[1:-1] if escape[1] in b"u/" else escape


def _refuse_repeats(body: bytes, learned: dict[Path, list[msgspec.Raw]]) -> None:
    """Refuse a learned key twice in one object: msgspec takes the last, and pyarrow.json does not look."""
    if not learned:
        return
    counts: Counter[str] = Counter()
    for path, column in learned.items():
        counts[path[-1]] += sum(raw is not NULL for raw in column)
    once = all(body.count(f'"{name}"'.encode()) == count for name, count in counts.items())
    if not once or (b"\\u00" in body and _HIDDEN_NAME.search(body)):
        _canonical(body)


def _as_sent(values: Sequence[Any], texts: Sequence[bytes | msgspec.Raw]) -> Any:  # noqa: ANN401 - an Arrow array
    """Make a column of texts as they came, without a Python object each; ``null`` is missing."""
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=offsets[1:])
    valid = np.fromiter((value is not None for value in values), np.bool_, len(texts))
    data = pa.py_buffer(b"".join(texts))
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(offsets.tobytes()), data, bits(valid))


def bits(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> pa.Buffer:
    """Write truth values as Arrow does; `pyarrow.array` would import pandas, and wait for that."""
    return pa.py_buffer(np.packbits(mask, bitorder="little").tobytes())


def _rewritten(values: Sequence[Any], _: object) -> Any:  # noqa: ANN401 - likewise
    return pa.array([None if value is None else orjson.dumps(value) for value in values], pa.large_string())


def _extra(paths: Sequence[str], columns: Sequence[Sequence[Any]], count: int) -> Any:  # noqa: ANN401 - likewise
    if not paths:
        return pa.nulls(count, pa.large_string())
    texts: list[bytes | None] = []
    for row in zip(*columns, strict=True):
        extra: dict[str, object] = {}
        for path, value in zip(paths, row, strict=True):
            if isinstance(value, dict):
                keep(value, path, extra)
            elif value is not None:
                extra[path] = value
        texts.append(orjson.dumps(dict(sorted(extra.items()))) if extra else None)
    return pa.array(texts, pa.large_string())
