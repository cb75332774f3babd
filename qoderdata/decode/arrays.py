"""How do the values of many records become Arrow arrays?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qoderdata.decode.jsontext import canonical, is_canonical, join_list

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import msgspec

#: The service's zero time, in microseconds since 1970; it means that nothing happened yet.
ZERO_TIME = -62135596800000000
_UTC = pa.timestamp("us", tz="UTC")
_MICROSECOND = 26
_TIME_PATTERN = r"^\d{4}-\d\d-\d\dT([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?Z$"


class NeedsExactPath(Exception):  # noqa: N818 - not an error: the exact reader takes over
    """The records may hold a value that only the exact reader can judge."""


def json_column(texts: Sequence[bytes | msgspec.Raw], *, first: bytes) -> Any:  # noqa: ANN401 - an Arrow array
    """Return JSON texts in canonical form; ``null`` is missing, and all others begin with `first`."""
    if not is_canonical(join_list(texts)):
        texts = [canonical(bytes(text)) for text in texts]
    data = b"".join(texts)
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=offsets[1:])
    starts = np.frombuffer(data, np.uint8)[offsets[:-1]]
    valid = starts != ord("n")
    if not (starts[valid] == ord(first)).all():
        raise NeedsExactPath("JSON text is of another type")
    validity = pa.py_buffer(np.packbits(valid, bitorder="little").tobytes())
    buffers: list[pa.Buffer | None] = [validity, pa.py_buffer(offsets.tobytes()), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_string(), len(texts), buffers)


def time_columns(columns: Mapping[str, Sequence[str | None]]) -> dict[str, Any]:
    """Return times: digits after the microsecond are cut, the zero time is missing."""
    texts = pa.array([text for values in columns.values() for text in values], pa.large_string())
    if not pc.all(pc.match_substring_regex(texts, _TIME_PATTERN), min_count=0).as_py():
        raise NeedsExactPath("a time is not as the service writes it")
    cut = pc.binary_slice(pc.ascii_rtrim(texts, "Z").view(pa.large_binary()), 0, _MICROSECOND)
    times = cut.view(pa.large_string()).cast(pa.timestamp("us")).view(_UTC)
    micros = times.view(pa.int64())
    earliest = pc.min(micros).as_py()
    if earliest is not None and earliest < ZERO_TIME:
        raise NeedsExactPath("a time is before the year 1")
    if earliest == ZERO_TIME:
        times = pc.if_else(pc.equal(micros, pa.scalar(ZERO_TIME)), pa.scalar(None, _UTC), times)
    found, start = {}, 0
    for name, values in columns.items():
        found[name] = times.slice(start, len(values))
        start += len(values)
    return found


def time_list_column(lists: Sequence[list[str] | None], times: Any) -> Any:  # noqa: ANN401 - Arrow arrays
    """Return lists of times, whose items follow one another in one array."""
    if times.null_count:
        raise NeedsExactPath("a list holds the zero time")
    offsets: Any = pa.array(np.cumsum([0, *(len(texts or ()) for texts in lists)], dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, times, mask=pa.array([texts is None for texts in lists], pa.bool_()))


def to_array(values: Sequence[object], kind: pa.DataType) -> Any:  # noqa: ANN401 - an Arrow array
    """Return values as an Arrow array, dictionary-encoded where its type is."""
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.large_string()).dictionary_encode()
    return pa.array(values, kind)
