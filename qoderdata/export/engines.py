"""A frame of any engine, read as Arrow batches; a lazy one is worked through piece by piece where it can be.

What the batches are written to is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import narwhals as nw
import pandas as pd
import pyarrow as pa

from qoderdata.schema import DEPLOYMENTS, RUNS

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Rows a batch: enough for Arrow to be quick, few enough to hold several.
ROWS = 65_536

#: Columns of arrays whose Arrow type pandas cannot tell: its naive times are UTC, and a gap alone has no type.
LISTS = {
    field.name: field.type
    for schema in (DEPLOYMENTS.arrow, RUNS.arrow)
    for field in schema
    if pa.types.is_list(field.type)
}


def read(frame: Any) -> pa.RecordBatchReader:  # noqa: ANN401 - any frame that narwhals knows
    """Open a frame as a stream of Arrow batches.

    Parameters
    ----------
    frame
        A pandas, Polars, PyArrow, Dask or Spark frame, a DuckDB relation, or another that narwhals knows.
        DuckDB's relations and Dask's partitions are computed as they are read; any other lazy frame is
        collected first.

    Returns
    -------
    pyarrow.RecordBatchReader
        The batches and their schema, with pandas's own metadata where it is a pandas or Dask frame.

    Raises
    ------
    TypeError
        It is no frame that narwhals knows.
    pyarrow.ArrowInvalid
        A column of Python objects mixes types.
    """
    if isinstance(frame, pd.DataFrame):
        return pandas_table(frame).to_reader(ROWS)
    known = nw.from_native(frame)
    if isinstance(known, nw.DataFrame):
        return known.to_arrow().to_reader(ROWS)
    if known.implementation is nw.Implementation.DUCKDB:
        return pa.RecordBatchReader.from_stream(frame)
    if known.implementation is nw.Implementation.DASK:
        return _read_partitions(frame)
    collected: pa.Table = known.collect("pyarrow").to_native()
    return collected.to_reader(ROWS)


def pandas_table(frame: pd.DataFrame, schema: pa.Schema | None = None) -> pa.Table:
    """Turn a pandas frame into an Arrow table that pandas reads back the same.

    Parameters
    ----------
    frame
        Any frame; its index is stored as pandas stores it, its attrs too.
    schema
        The types to use; ``None`` takes them from the frame.

    Returns
    -------
    pyarrow.Table
        The table.
    """
    if schema is None:
        schema = pa.Schema.from_pandas(frame)
        for name in LISTS.keys() & set(schema.names):
            if pd.api.types.is_object_dtype(frame[name].dtype):
                schema = schema.set(schema.get_field_index(name), pa.field(name, LISTS[name]))
    return pa.Table.from_pandas(frame, schema=schema)


def _read_partitions(frame: Any) -> pa.RecordBatchReader:  # noqa: ANN401 - Dask is no dependency
    """Compute one partition after the other; the first one with rows decides about types that Dask leaves open."""
    parts = (part.compute() for part in frame.partitions)
    first = next((part for part in parts if len(part)), frame._meta)  # noqa: SLF001 - Dask has no public name for it
    start = pandas_table(first)

    def batches() -> Iterator[pa.RecordBatch]:
        yield from start.to_batches(ROWS)
        for part in parts:
            yield from pandas_table(part, start.schema).to_batches(ROWS)

    return pa.RecordBatchReader.from_batches(start.schema, batches())
