"""An Arrow table to a pandas frame, by the schema, so that types never depend on the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa

from qoderdata.frame.collecting import UNCOLLECTED

if TYPE_CHECKING:
    from qoderdata.schema import Schema

_DTYPES: dict[pa.DataType, pd.api.extensions.ExtensionDtype] = {
    pa.large_string(): pd.StringDtype(na_value=float("nan")),
    pa.int64(): pd.Int64Dtype(),
}


def to_pandas(table: pa.Table, schema: Schema) -> pd.DataFrame:
    """Give a table as a frame.

    Parameters
    ----------
    table
        A table with the columns of ``schema``, in any order; string columns of any Arrow string type.
    schema
        The columns.

    Returns
    -------
    pandas.DataFrame
        One row a row of the table, a `pandas.RangeIndex`, the schema's columns in its order: texts ``str``,
        integers ``Int64``, times ``datetime64[us, UTC]``, lists ``object`` (a NumPy array a row, of strings, or
        of ``datetime64[us]`` in UTC; ``None`` where absent).

    Examples
    --------
    >>> from qoderdata.schema import RUNS
    >>> to_pandas(RUNS.arrow.empty_table(), RUNS).dtypes["duration_ms"]
    Int64Dtype()
    """
    table = table.select(schema.names).cast(schema.arrow).replace_schema_metadata(None)
    with UNCOLLECTED:
        return table.to_pandas(types_mapper=_DTYPES.get)
