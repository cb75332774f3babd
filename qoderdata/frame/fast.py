"""A page to an Arrow table, many records at a time: the same table as the exact way gives, or a refusal.

Three readers look at the same bytes. msgspec hands over what stays JSON text. pyarrow.json reads the typed
columns, and refuses every value of another type and every known key that comes twice; it does not hold Python's
lock. orjson proves the JSON texts canonical. That no field was passed over shows in a count: the page has as many
keys with a value as the readers found. Whatever this cannot prove, such as a misfit, is refused and left to
`qoderdata.frame.exact`.

Few calls, each over a whole page: every call into Arrow lets go of Python's lock, and to get it back costs more
than most of them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from qoderdata.frame.counting import has_no_more
from qoderdata.frame.exact import ZERO_TIME
from qoderdata.frame.shapes import Refused
from qoderdata.frame.texts import bits, read_texts
from qoderdata.schema import Branch, Column, Kind

if TYPE_CHECKING:
    from qoderdata.frame.repeats import Repeats
    from qoderdata.frame.shapes import Shape

#: How long a time stamp is up to the T, the second, and the microsecond.
_T, _SECOND, _MICROSECOND = 10, 19, 26
_UTC = pa.timestamp("us", tz="UTC")


def read(body: bytes, shape: Shape, repeats: Repeats) -> pa.Table:
    """Read one page.

    Parameters
    ----------
    body
        What may be a page.
    shape
        What is known of it.
    repeats
        What pages before have proved.

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
        # The typed columns come first: misfits show there, and the next page can be asked for meanwhile.
        found, typed = _typed(body, shape)
        records = shape.page.decode(body).data
        if len(records) != len(found["id"]):
            raise Refused("the readers count differently")
        texts = read_texts(body, records, shape, repeats)
        others = 1 + typed + texts.learned  # one for the key "data"
        if not has_no_more(_up_to_the_last_list(body), texts.joined, others, verbatim=texts.verbatim):
            raise Refused("there is a field that is not known")
    except (msgspec.MsgspecError, pa.ArrowInvalid, orjson.JSONDecodeError, RecursionError) as error:
        raise Refused(str(error)) from error
    found |= texts.columns
    return pa.Table.from_arrays([found[name] for name in shape.schema.names], schema=shape.schema.arrow)


def _up_to_the_last_list(body: bytes) -> memoryview:
    """Give a page without what usually follows its records: an envelope may have any fields."""
    return memoryview(body)[: body.rfind(b"]") + 1]


def check_utf8(body: bytes) -> None:
    """Raise `pyarrow.ArrowInvalid` where a body is not UTF-8; done without Python's lock."""
    offsets = pa.py_buffer(struct.pack("=qq", 0, len(body)))
    pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(body)).validate(full=True)


def _typed(body: bytes, shape: Shape) -> tuple[dict[str, Any], int]:
    """Read the columns that are not JSON text; tell how many keys with a value were read."""
    check_utf8(body)
    page = pyarrow.json.read_json(
        pa.BufferReader(body),  # type: ignore[arg-type]  # the stubs know no Arrow files here
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(body) + 1),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=shape.arrow, unexpected_field_behavior="ignore"),
        memory_pool=pa.system_memory_pool(),  # it gives back at once what a page took
    )
    if page.num_rows != 1:
        raise Refused("there is more than one page")
    records = page["data"].chunk(0).flatten()
    found: dict[str, Any] = {}
    kinds = {column.name: column.kind for column in shape.schema.columns}
    count = _spread(records, shape.schema.tree, found)
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
    return found, count


def _spread(structs: Any, branch: Branch, found: dict[str, Any]) -> int:  # noqa: ANN401
    """Find the columns in nested structs; tell how many values there are that are not null."""
    parts = structs.flatten()
    if all(part.null_count > structs.null_count for part in parts) and branch.rest is None:
        # Perhaps one is {}: it leaves a trace, and Arrow shows it as an object of nothing but null.
        empty = structs.is_valid()
        for part in parts:
            empty = pc.and_(empty, part.is_null())
        if pc.any(empty).as_py():
            raise Refused("an object may be empty")
    count: int = sum(len(part) - part.null_count for part in parts)
    for known, part in zip(branch.keys.values(), parts, strict=True):
        if isinstance(known, Branch):
            count += _spread(part, known, found)
        elif isinstance(known, Column) and known.kind is not Kind.JSON_LIST:
            found[known.name] = part
    return count


def _times(texts: dict[str, Any]) -> dict[str, Any]:
    """Read time stamps: digits past the microsecond are cut, the zero time is missing."""
    joint = pa.concat_arrays(list(texts.values()))
    _refuse_other_times(joint)
    cut = pc.binary_slice(pc.binary_slice(joint.cast(pa.large_binary()), 0, -1), 0, _MICROSECOND)
    times = cut.cast(pa.large_string()).cast(pa.timestamp("us"))
    earliest = pc.min(times.view(pa.int64())).as_py()
    if earliest is not None and earliest < ZERO_TIME:
        raise Refused("a time stamp is before the year 1")
    times = times.view(_UTC)
    if earliest == ZERO_TIME:
        times = pc.if_else(pc.equal(times.view(pa.int64()), pa.scalar(ZERO_TIME)), None, times)
    found, start = {}, 0
    for name, array in texts.items():
        found[name] = times.slice(start, len(array))
        start += len(array)
    return found


def _refuse_other_times(texts: Any) -> None:  # noqa: ANN401 - an Arrow array
    """Refuse what is no time stamp of the service, as far as the cast, which takes other forms too, would not.

    It takes a space for the ``T``, leaves out minutes and seconds, and sees nothing of the last character and of
    those that were cut.
    """
    _, offset_buffer, data_buffer = texts.buffers()
    offsets, data = np.frombuffer(offset_buffer, np.int64), np.frombuffer(data_buffer or b"", np.uint8)
    ends = offsets[texts.offset : texts.offset + len(texts) + 1]
    starts, lengths = ends[:-1], np.diff(ends)
    there = texts.is_valid().to_numpy(zero_copy_only=False)
    if not (lengths[there] > _SECOND).all():
        raise Refused("a time stamp is too short")
    if (
        not (data[starts[there] + _T] == ord("T")).all()
        or not (data[starts[there] + lengths[there] - 1] == ord("Z")).all()
    ):
        raise Refused("a time stamp has no T or no Z")
    long = lengths > _MICROSECOND + 1
    if long.any():
        tails = pc.binary_slice(
            texts.filter(pa.BooleanArray.from_buffers(pa.bool_(), len(long), [None, bits(long)])).cast(
                pa.large_binary()
            ),
            _MICROSECOND,
            -1,
        )
        if not pc.all(pc.ascii_is_decimal(tails.cast(pa.large_string()))).as_py():
            raise Refused("a time stamp has digits that are none")


def _same_lists(lists: Any, values: Any) -> Any:  # noqa: ANN401
    """Put other values into lists."""
    validity, offsets = lists.buffers()[:2]
    return pa.ListArray.from_buffers(
        pa.list_(values.type), len(lists), [validity, offsets], lists.null_count, lists.offset, [values]
    )
