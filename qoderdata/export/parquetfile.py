"""Any frame to one Parquet file, types and attrs kept; which frames there are is `engines`'."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import narwhals as nw
import pyarrow.parquet as pq

from qoderdata import files
from qoderdata.export import engines

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

#: Where pandas itself looks for a frame's attrs.
_ATTRS = b"PANDAS_ATTRS"


def export_parquet(frame: Any, path: str | Path) -> None:  # noqa: ANN401 - any frame that narwhals knows
    """Write a frame to one Parquet file, whole or not at all.

    Nothing is masked or changed: what may hold secrets, such as ``environment_variables`` in ``extra``, is in
    the file as it is.

    Parameters
    ----------
    frame
        Any frame that narwhals knows: pandas, Polars, PyArrow, a DuckDB relation, Dask, Spark. Polars, DuckDB
        and Dask work a lazy frame through piece by piece; a Spark frame comes to this process as a whole, so
        write with Spark's own writer what does not fit.
    path
        The file. One that is there stays until the new one is whole.

    Raises
    ------
    TypeError
        `frame` is no frame that narwhals knows.
    OSError
        The folder is not there or cannot be written.
    pyarrow.ArrowInvalid
        A column of Python objects mixes types, which Parquet cannot hold.

    Notes
    -----
    `pandas.read_parquet` gives a pandas frame back with its types, its index and its ``attrs`` (JSON in the
    schema's metadata under ``PANDAS_ATTRS``, pandas's own place). The arrays of ``schedule_upcoming_runs_at``
    are lists of UTC times in the file, as they are in the service, for DuckDB, Polars and Spark to read.

    Examples
    --------
    >>> import pandas as pd, tempfile
    >>> frame = pd.DataFrame({"id": ["dep_1"], "runs": pd.array([None], dtype="Int64")})
    >>> frame.attrs["complete"] = True
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_parquet(frame, f"{folder}/runs.parquet")
    ...     again = pd.read_parquet(f"{folder}/runs.parquet")
    >>> again.dtypes.equals(frame.dtypes), again.attrs
    (True, {'complete': True})
    """
    files.replace(path, lambda sink: _write(frame, sink))


def _write(frame: Any, sink: pa.NativeFile) -> None:  # noqa: ANN401 - as `export_parquet`
    if nw.dependencies.is_polars_lazyframe(frame):
        frame.sink_parquet(sink)  # type: ignore[call-overload]  # it takes Arrow's files too
        return
    batches = engines.read(frame)
    metadata = dict(batches.schema.metadata or {})
    attrs = getattr(frame, "attrs", None)
    if isinstance(attrs, dict) and attrs:
        metadata[_ATTRS] = json.dumps(attrs, default=str).encode()
    schema = batches.schema.with_metadata(metadata)
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(metadata))
