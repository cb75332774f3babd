"""A page to an Arrow table, many records at a time: the same table as the exact way gives, or a refusal.

Three readers look at the same bytes. msgspec, given only the known names, proves that no other field is there
and hands over what stays JSON text. pyarrow.json reads the typed columns, and refuses every value of another
type and every known key that comes twice; it does not hold Python's lock. orjson proves the JSON texts
canonical. Whatever these cannot prove, such as a misfit, is refused and left to `qoderdata.frame.exact`.

Few calls, each over a whole page: every call into Arrow lets go of Python's lock, and to get it back costs more
than most of them.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from qoderdata.frame.exact import ZERO_TIME, dotted, keep
from qoderdata.frame.shapes import NULL, Path, Shape
from qoderdata.schema import EXTRA, Branch, Column, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The service's time stamps; those with an offset are left to the exact way.
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z$"
#: The characters of a time stamp up to the microsecond.
_MICROSECOND = 26
_UTC = pa.timestamp("us", tz="UTC")
_ZERO_TIME = pa.scalar(ZERO_TIME, pa.int64()).cast(_UTC)

_ESCAPE = re.compile(rb"(?:\\u[0-9a-fA-F]{4})+|\\.", re.DOTALL)
#: An escaped letter, digit or underscore. No writer of JSON does that to a key, but it would hide one.
_HIDDEN_NAME = re.compile(rb"\\u00(?:3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF])")


class Refused(Exception):  # noqa: N818 - no error: the exact way takes over
    """The page may hold something that only the exact way can judge."""


def read(body: bytes, records: Sequence[Any], shape: Shape) -> pa.Table:
    """Read one page.

    Parameters
    ----------
    body
        A page, proved to be whole JSON in UTF-8.
    records
        Its records, as ``shape.page`` gives them.
    shape
        What is known of it.

    Returns
    -------
    pyarrow.Table
        Columns of ``shape.schema.arrow``: the very table that the exact way gives.

    Raises
    ------
    Refused
        It cannot be proved that this is so.
    """
    try:
        found = {**_texts(body, records, shape), **_typed(body, len(records), shape)}
    except (msgspec.MsgspecError, pa.ArrowInvalid, orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
        raise Refused(str(error)) from error
    return pa.Table.from_arrays([found[name] for name in shape.schema.names], schema=shape.schema.arrow)


def _typed(body: bytes, count: int, shape: Shape) -> dict[str, Any]:
    """Read the columns that are not JSON text."""
    page = pyarrow.json.read_json(
        pa.BufferReader(body),  # type: ignore[arg-type]  # the stubs know no Arrow files here
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(body) + 1),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=shape.arrow, unexpected_field_behavior="ignore"),
    )
    records = page["data"].chunk(0).flatten()
    if page.num_rows != 1 or len(records) != count:
        raise Refused("the readers count differently")
    found: dict[str, Any] = {}
    kinds = {column.name: column.kind for column in shape.schema.columns}
    _spread(records, shape.schema.tree, found)
    if found["id"].null_count:
        raise Refused("a record has no id")
    lists = {name: array for name, array in found.items() if kinds[name] in {Kind.TEXTS, Kind.TIMES}}
    if any(array.values.null_count for array in lists.values()):
        raise Refused("a list holds null")
    times = {name: array for name, array in found.items() if kinds[name] is Kind.TIME}
    times |= {name: array.values for name, array in lists.items() if kinds[name] is Kind.TIMES}
    found |= _times(times)
    for name, array in lists.items():
        if kinds[name] is Kind.TIMES:
            if found[name].null_count:
                raise Refused("a list holds the zero time")
            found[name] = _same_lists(array, found[name])
    return found


def _spread(structs: Any, branch: Branch, found: dict[str, Any]) -> None:  # noqa: ANN401
    """Find the columns in nested structs."""
    parts = structs.flatten()
    if all(part.null_count > structs.null_count for part in parts) and branch.rest is None:
        # Perhaps one is {}: it leaves a trace, and Arrow shows it as an object of nothing but null.
        empty = structs.is_valid()
        for part in parts:
            empty = pc.and_(empty, part.is_null())
        if pc.any(empty).as_py():
            raise Refused("an object may be empty")
    for known, part in zip(branch.keys.values(), parts, strict=True):
        if isinstance(known, Branch):
            _spread(part, known, found)
        elif isinstance(known, Column) and known.kind is not Kind.JSON_LIST:
            found[known.name] = part


def _times(texts: dict[str, Any]) -> dict[str, Any]:
    """Read time stamps: digits past the microsecond are cut, the zero time is missing."""
    joint = pa.concat_arrays(list(texts.values()))
    if pc.all(pc.match_substring_regex(joint, _TIME)).as_py() is False:
        raise Refused("a time stamp is not as the service writes it")
    cut = pc.binary_slice(pc.binary_slice(joint.cast(pa.large_binary()), 0, -1), 0, _MICROSECOND)
    times = cut.cast(pa.large_string()).cast(pa.timestamp("us")).view(_UTC)
    times = pc.if_else(pc.equal(times, _ZERO_TIME), None, times)
    found, start = {}, 0
    for name, array in texts.items():
        found[name] = times.slice(start, len(array))
        start += len(array)
    return found


def _same_lists(lists: Any, values: Any) -> Any:  # noqa: ANN401
    """Put other values into lists."""
    validity, offsets = lists.buffers()[:2]
    return pa.ListArray.from_buffers(
        pa.list_(values.type), len(lists), [validity, offsets], lists.null_count, lists.offset, [values]
    )


def _texts(body: bytes, records: Sequence[Any], shape: Shape) -> dict[str, Any]:
    """Read the columns that are JSON text, and the learned fields, which go to ``extra``."""
    views: dict[str, Sequence[Any]] = {}
    raws: dict[Path, list[msgspec.Raw]] = {}
    for key, decoder in shape.open_lists.items():
        raws[key,] = shape.raws(records, (key,))
        views[key] = decoder.decode(joined(raws[key,]))
    listed = [column for column in shape.schema.columns if column.kind is Kind.JSON_LIST]
    for column in listed:
        raws[column.path] = shape.raws(records, column.path)
    for path in shape.learned:
        raws[path] = shape.raws(views.get(path[0], records), path)
    _refuse_repeats(body, {path: raws[path] for path in shape.learned})

    values, as_sent = _canonical(joined([raw for column in raws.values() for raw in column]))
    count = len(records)
    by_path = {path: values[place * count : (place + 1) * count] for place, path in enumerate(raws)}
    found: dict[str, Any] = {}
    for key, branch in shape.open_objects.items():
        if branch.rest is not None:
            found[branch.rest.name] = _own_keys(by_path[key,], branch)
    for column in listed:
        found[column.name] = _lists(by_path[column.path], raws[column.path] if as_sent else None)
    found[EXTRA] = _extra({path: by_path[path] for path in shape.learned}, count)
    return found


def joined(raws: Sequence[msgspec.Raw]) -> bytes:
    """Write JSON texts as one list."""
    return b"[" + b",".join(raws) + b"]"


def _canonical(text: bytes) -> tuple[Any, bool]:
    """Read JSON text, and prove that writing it gives the same text, but for needless escapes.

    What comes out the same has no number that Python would change, no key twice and no idle white space.
    """
    values = orjson.loads(text)
    written = orjson.dumps(values)
    if written == text:
        return values, True
    if written == _ESCAPE.sub(_unescaped, text):
        return values, False
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


def _own_keys(values: Sequence[Any], branch: Branch) -> Any:  # noqa: ANN401
    """Write objects as JSON text, without the keys that have columns of their own."""
    texts: list[bytes | None] = []
    for value in values:
        if value is None:
            texts.append(None)
            continue
        for key in branch.keys:
            value.pop(key, None)
        texts.append(orjson.dumps(value) if value else b"{}")
    return _text_column(texts)


def _lists(values: Sequence[Any], raws: Sequence[msgspec.Raw] | None) -> Any:  # noqa: ANN401
    if raws is None:
        return _text_column([None if value is None else orjson.dumps(value) for value in values])
    return _text_column([None if value is None else bytes(raw) for value, raw in zip(values, raws, strict=True)])


def _extra(values: dict[Path, Sequence[Any]], count: int) -> Any:  # noqa: ANN401
    if not values:
        return pa.nulls(count, pa.large_string())
    texts: list[bytes | None] = []
    paths = [dotted(path) for path in values]
    for row in zip(*values.values(), strict=True):
        extra: dict[str, object] = {}
        for path, value in zip(paths, row, strict=True):
            keep(value, path, extra)
        texts.append(orjson.dumps(dict(sorted(extra.items()))) if extra else None)
    return _text_column(texts)


def _text_column(texts: list[bytes | None]) -> Any:  # noqa: ANN401
    return pa.array(texts, pa.large_binary()).cast(pa.large_string())
