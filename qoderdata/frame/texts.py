"""What stays JSON text, a page at a time: events, resources, the callers' metadata, and learned fields.

The text on the wire becomes the text in the column, once orjson has proved that it is what the exact way would
write: compact, no needless escapes, no number that Python would change, no key twice.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import orjson
import pyarrow as pa

from qoderdata.frame.exact import dotted, keep
from qoderdata.frame.shapes import NULL, Open, Path, Refused, Shape
from qoderdata.schema import EXTRA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qoderdata.frame.repeats import Repeats

_ESCAPE = re.compile(rb"(?:\\u[0-9a-fA-F]{4})+|\\.", re.DOTALL)
#: An escaped letter, digit or underscore. No writer of JSON does that to a key, but it would hide one.
_HIDDEN_NAME = re.compile(rb"\\u00(?:3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF])")
_WRITER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Texts:
    """What stays JSON text.

    Attributes
    ----------
    columns : dict
        The columns by name; ``extra`` holds the learned fields.
    joined : bytes
        What they were read from, one after the other.
    verbatim : bool
        Whether each stands in the page like that.
    learned : int
        How many values the learned fields have.
    """

    columns: dict[str, Any]
    joined: bytes
    verbatim: bool
    learned: int


def read_texts(body: bytes, records: Sequence[Any], shape: Shape, repeats: Repeats) -> Texts:
    """Read the columns that are JSON text.

    Parameters
    ----------
    body
        The page.
    records
        Its records, as ``shape.page`` gives them.
    shape
        What is known of it.
    repeats
        What pages before have proved.

    Returns
    -------
    Texts
        The columns, and what they were read from.

    Raises
    ------
    Refused
        Some text is not canonical.
    msgspec.MsgspecError, orjson.JSONDecodeError
        Likewise.
    """
    texts: dict[str, Sequence[bytes | msgspec.Raw]] = {}
    learned = {path: shape.raws(records, path) for path in shape.learned if path[0] not in shape.open}
    verbatim = True
    for key, opened in shape.open.items():
        texts[opened.column.name], inner, as_sent = _own_texts(shape.raws(records, (key,)), opened)
        learned |= {path: opened.level.raws(inner, path[2:]) for path in opened.learned}
        verbatim &= as_sent
    for column in shape.lists:
        texts[column.name] = shape.raws(records, column.path)
    _refuse_repeats(body, learned)

    unproved = [text for name, column in texts.items() for text in repeats.unproved(name, column)]
    others = [text for column in learned.values() for text in column]
    values, as_sent = _canonical(joined([*unproved, *others]))
    if as_sent:
        repeats.add(unproved)
    sent = [text for column in texts.values() for text in column]
    data = b"".join(sent)
    array = _as_sent(sent, data) if as_sent else _rewritten(sent)
    count = len(records)
    found = {name: array.slice(place * count, count) for place, name in enumerate(texts)}
    rest = values[len(unproved) :]
    columns = [rest[place * count : (place + 1) * count] for place in range(len(learned))]
    found[EXTRA] = _extra([dotted(path) for path in learned], columns, count)
    text = b"".join([data, *others]) if others else data
    return Texts(found, text, verbatim, sum(value is not None for value in rest))


def joined(texts: Sequence[bytes | msgspec.Raw]) -> bytes:
    """Write JSON texts as one list."""
    return b"[%b]" % b",".join(texts)


def _own_texts(wholes: Sequence[msgspec.Raw], opened: Open) -> tuple[list[bytes], Sequence[Any], bool]:
    """Cut what belongs to other columns out of open objects.

    Give the rest, what was cut out as far as it was learned, and whether the rest is as it was sent.
    """
    text = joined(wholes)
    members = opened.members.decode(text)
    # A key that came twice would be gone.
    as_sent = _same(_WRITER.encode(members), text)
    inner = [NULL if own is None else own.pop(opened.inner, NULL) for own in members]
    known = opened.inners.decode(joined(inner)) if opened.learned else ()
    return list(map(_WRITER.encode, members)), known, as_sent


def _canonical(text: bytes) -> tuple[Any, bool]:
    """Read JSON text, and prove that it is written like that, but for needless escapes; tell if there are none."""
    values = orjson.loads(text)
    try:
        written = orjson.dumps(values)
    except TypeError as error:
        # What orjson raises where it is too deep; caught here alone, lest it hide a mistake of ours.
        raise Refused(str(error)) from error
    return values, _same(written, text)


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


def _as_sent(texts: Sequence[bytes | msgspec.Raw], data: bytes) -> Any:  # noqa: ANN401 - an Arrow array
    """Make a column of texts that were joined, without a Python object each; ``null`` is missing."""
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=offsets[1:])
    valid = np.frombuffer(data, np.uint8)[offsets[:-1]] != ord("n")
    return pa.LargeStringArray.from_buffers(
        len(texts), pa.py_buffer(offsets.tobytes()), pa.py_buffer(data), bits(valid)
    )


def bits(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> pa.Buffer:
    """Write truth values as Arrow does; `pyarrow.array` would import pandas, and wait for that."""
    return pa.py_buffer(np.packbits(mask, bitorder="little").tobytes())


def _rewritten(texts: Sequence[bytes | msgspec.Raw]) -> Any:  # noqa: ANN401 - likewise
    values = orjson.loads(joined(texts))
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
