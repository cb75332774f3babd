"""Read a frame of any engine as Arrow batches; a lazy one piece by piece where that is possible."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import narwhals as nw
import pandas as pd
import pyarrow as pa

from qoderdata.columns import not_a_frame
from qoderdata.schema import AGENTS, DEPLOYMENTS, ENVIRONMENTS, EVENTS, RUNS, SESSIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Rows a batch: enough for Arrow to be quick, few enough to hold several.
ROWS = 65_536

#: Columns of arrays whose Arrow type pandas cannot tell: its naive times are UTC, and a gap alone has no type.
LISTS = {
    field.name: field.type
    for table in (DEPLOYMENTS, RUNS, SESSIONS, EVENTS, AGENTS, ENVIRONMENTS)
    for field in table.arrow
    if pa.types.is_list(field.type)
}


def read_batches(frame: Any) -> pa.RecordBatchReader:  # noqa: ANN401 - any frame that narwhals knows
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
    FrameTypeError
        It is no frame that narwhals knows.
    pyarrow.ArrowInvalid
        A column of Python objects mixes types.
    """
    if isinstance(frame, pd.DataFrame):
        return to_arrow(frame).to_reader(ROWS)
    if nw.dependencies.is_dask_dataframe(frame):
        return _read_partitions(frame)
    try:
        known = nw.from_native(frame)
    except TypeError:
        raise not_a_frame(frame, what="frame", kinds="one of a library that narwhals knows") from None
    if isinstance(known, nw.DataFrame):
        return known.to_arrow().to_reader(ROWS)
    if known.implementation is nw.Implementation.DUCKDB:
        return pa.RecordBatchReader.from_stream(frame)
    collected: pa.Table = known.collect("pyarrow").to_native()
    return collected.to_reader(ROWS)


def to_arrow(frame: pd.DataFrame, *, keep_index: bool | None = None) -> pa.Table:
    """Return a pandas frame as an Arrow table that pandas reads back the same.

    Parameters
    ----------
    frame
        Any frame. Of its attrs, what JSON does not know becomes text.
    keep_index
        Whether to keep its index; ``None`` as pandas does: numbers of the rows take no column.

    Returns
    -------
    pyarrow.Table
        The table.
    """
    if frame.attrs:
        frame = frame.copy(deep=False)
        frame.attrs = json.loads(json.dumps(frame.attrs, default=str))
    table = pa.Table.from_pandas(frame, preserve_index=keep_index)
    for index, field in enumerate(table.schema):
        known = LISTS.get(field.name)
        if known and (pa.types.is_list(field.type) or pa.types.is_null(field.type)):
            table = table.set_column(index, pa.field(field.name, known), table.column(index).cast(known))
        elif pa.types.is_dictionary(field.type) and pa.types.is_null(field.type.value_type):
            # Categories without a single one; Parquet would read them as no categories at all.
            texts = pa.nulls(len(table), pa.dictionary(field.type.index_type, pa.large_string()))
            table = table.set_column(index, pa.field(field.name, texts.type), texts)
    return table


def is_meaningful(index: pd.Index[Any]) -> bool:
    """Tell whether an index is more than the numbers of the rows.

    Parameters
    ----------
    index
        The index of a frame, of one level or more.

    Returns
    -------
    bool
        ``True`` where it has a name, several levels, or anything but integers.
    """
    return index.nlevels > 1 or index.name is not None or not pd.api.types.is_integer_dtype(index.dtype)


def _read_partitions(frame: Any) -> pa.RecordBatchReader:  # noqa: ANN401 - Dask has no types
    """Compute one partition after the other; the first one with rows decides about types that Dask leaves open."""
    parts = (part.compute() for part in frame.partitions)
    first = next((part for part in parts if len(part)), frame.head(0))
    keep_index = None if is_meaningful(first.index) else False
    start = to_arrow(first, keep_index=keep_index)

    def batches() -> Iterator[pa.RecordBatch]:
        yield from start.to_batches(ROWS)
        for part in parts:
            yield from pa.Table.from_pandas(part, start.schema, preserve_index=keep_index).to_batches(ROWS)

    return pa.RecordBatchReader.from_batches(start.schema, batches())
