"""How does a table that an earlier version stored get the columns that it lacks, and are two columns equal?

A field without a column is in ``extra``. When a later version has a column for it, stored values are taken from
there, by the rules for records that are decoded now.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qoderdata.decode.exact import Row, to_array
from qoderdata.decode.jsontext import parse, write
from qoderdata.decode.unknown_fields import dotted, to_nested
from qoderdata.schema import EXTRA, is_readable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qoderdata.schema import Schema

    _Values = pa.Array[Any] | pa.ChunkedArray[Any]


def with_all_columns(table: pa.Table, schema: Schema) -> pa.Table:
    """Return a stored table with the columns of the schema; fill those that it lacks from its ``extra``.

    A value that does not fit its column stays there. Raise `ValueError` if the table has other columns.
    """
    if table.schema.names == schema.names:
        return table.cast(schema.arrow)
    if not is_readable(table.schema, schema.arrow):
        raise ValueError("it has columns that this version does not have, or other types")
    lacking = [column for column in schema.columns if column.name not in table.schema.names]
    parents = {column.path[:-1] for column in lacking if column.path}
    constants = tuple(one for one in schema.constants if one[0][:-1] in parents)
    tree = replace(schema, columns=tuple(lacking), constants=constants).tree
    paths = [*(column.path for column in lacking if column.path), *(path for path, _ in constants)]
    keys = [write(dotted(path)).removesuffix('"') for path in paths]
    extra = table[EXTRA].to_pylist()
    values: dict[str, list[object]] = {column.name: [None] * len(extra) for column in lacking}
    for index, text in enumerate(extra):
        if text is None or not any(key in text for key in keys):
            continue
        row = Row(set())
        row.walk(to_nested(parse(text.encode())), tree)
        for name, column in values.items():
            column[index] = row.columns.get(name)
        extra[index] = row.extra_text()
    columns: dict[str, Any] = {name: table[name] for name in table.schema.names}
    columns |= {name: to_array(values[name], schema.arrow.field(name).type) for name in values}
    columns[EXTRA] = to_array(extra, pa.large_string())
    return schema.resolve(pa.table(columns).select(schema.names).cast(schema.arrow))


def are_equal(old: _Values, new: _Values) -> Any:  # noqa: ANN401 - an Arrow array or a chunked one
    """Return for each row whether two columns have the same value, or are both missing."""
    neither = pc.and_(pc.is_null(old), pc.is_null(new))
    equal: Any = _are_lists_equal(old, new) if pa.types.is_list(new.type) else pc.equal(old, new)
    return pc.or_(pc.fill_null(equal, False), neither)  # noqa: FBT003 - Arrow's signature


def _are_lists_equal(old: _Values, new: _Values) -> pa.Array[Any]:
    """Return for each row whether two columns of lists have equal lists, which Arrow cannot compare."""
    old_lengths: Any = pc.list_value_length(old)
    lengths: Any = pc.list_value_length(new)
    alike: Any = pc.fill_null(pc.equal(old_lengths, lengths), False)  # noqa: FBT003 - as above
    items = are_equal(pc.list_flatten(old.filter(alike)), pc.list_flatten(new.filter(alike)))
    differing = np.cumsum(~np.asarray(items.to_numpy(zero_copy_only=False), dtype=bool), dtype=np.int64)
    ends = np.cumsum(lengths.filter(alike).to_numpy(zero_copy_only=False).astype(np.int64))
    result: NDArray[np.bool_] = np.array(alike.to_numpy(zero_copy_only=False), dtype=bool)
    result[result] = np.diff(np.concatenate([[0], differing])[ends], prepend=0) == 0
    return pa.array(result)
