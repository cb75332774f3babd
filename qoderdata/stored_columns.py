"""How does a table that an earlier version stored get the columns that it lacks?

A field without a column is in ``extra``. When a later version has a column for it, stored values are taken from
there, by the rules for records that are decoded now.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from qoderdata.decode.exact import Row, to_array
from qoderdata.decode.jsontext import parse, write
from qoderdata.decode.unknown_fields import dotted, to_nested
from qoderdata.schema import EXTRA, is_readable

if TYPE_CHECKING:
    from qoderdata.schema import Schema


def with_all_columns(table: pa.Table, schema: Schema) -> pa.Table:
    """Return a stored table with the columns of the schema; fill those that it lacks from its ``extra``.

    A value that does not fit its column stays there. Raise `ValueError` if the table has other columns.
    """
    if table.schema.names == schema.names:
        return table.cast(schema.arrow)
    if not is_readable(table.schema, schema.arrow):
        raise ValueError("it has columns that this version does not have, or other types")
    lacking = [column for column in schema.columns if column.name not in table.schema.names]
    tree = replace(schema, columns=tuple(lacking), constants=()).tree
    keys = [write(dotted(column.path)).removesuffix('"') for column in lacking if column.path]
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
