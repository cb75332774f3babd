"""Parquet files opened lazily, each engine by its own means; which files is not decided here.

At a URL, DuckDB and Polars read through a dataset of pyarrow's, and Dask through the store's own file
system, so that none needs an extension of its own; Spark alone reads URLs by its own means.
"""

from __future__ import annotations

import functools
import importlib
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.dataset as ds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from types import ModuleType

    import pandas as pd
    import pyarrow as pa
    from pyarrow import fs

    from qoderdata.files import Folder
    from qoderdata.schema import Schema

ENGINES = ("duckdb", "polars", "dask", "pyspark")
#: What DuckDB does not take as it is in a path.
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound that every row keeps.

    Parameters
    ----------
    column
        A column of times.
    operator
        ``">="`` or ``"<"``.
    time
        Zone-aware.
    """

    column: str
    operator: str
    time: datetime

    def holds(self, column: Any) -> Any:  # noqa: ANN401 - a column of any engine that compares
        """Give the condition on an engine's column."""
        return column >= self.time if self.operator == ">=" else column < self.time


def check_engine(engine: str) -> None:
    """Raise `ValueError` for an engine that is not known."""
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r} is not known; allowed are {', '.join(map(repr, ENGINES))}")


def open_session(engine: str) -> Any:  # noqa: ANN401 - a DuckDB connection, or nothing
    """Return what frames share that are to be joined: DuckDB joins relations of one connection only."""
    if engine != "duckdb":
        return None
    connection = _need("duckdb", "duckdb").connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def open_files(
    engine: str,
    folder: Folder,
    paths: list[str],
    schema: Schema,
    *,
    where: Sequence[Bound] = (),
    session: Any = None,  # noqa: ANN401 - see `open_session`
) -> Any:  # noqa: ANN401 - whatever the engine's lazy frame is
    """Open Parquet files in an engine.

    Parameters
    ----------
    engine
        One that `check_engine` lets pass.
    folder
        Whose file system the paths are in.
    paths
        The files; none gives a frame without rows.
    schema
        The columns.
    where
        Which rows.
    session
        What `open_session` returned, for frames that are to be joined.

    Returns
    -------
    frame
        The engine's lazy frame, with the schema's columns.

    Raises
    ------
    ImportError
        The engine is not installed; the message names the extra.
    """
    if engine == "duckdb":
        return _duckdb(session or open_session(engine), folder, paths, schema, where)
    return _OPENERS[engine](folder, paths, schema, where)


def _need(module: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is not installed: pip install 'qoderdata[{extra}]'") from error


def _dataset(folder: Folder, paths: list[str], schema: Schema) -> ds.Dataset:
    return ds.dataset(paths, schema=schema.arrow, format="parquet", filesystem=folder.filesystem)


def _duckdb(
    connection: Any,  # noqa: ANN401
    folder: Folder,
    paths: list[str],
    schema: Schema,
    where: Sequence[Bound],
) -> Any:  # noqa: ANN401
    if folder.local and paths and not _GLOB.search(folder.path):
        relation = connection.read_parquet(paths, hive_partitioning=False).project(
            ", ".join(f'"{name}"' for name in schema.names)
        )
    else:
        relation = connection.from_arrow(_dataset(folder, paths, schema))
    for bound in where:
        relation = relation.filter(f"{bound.column} {bound.operator} TIMESTAMPTZ '{bound.time.isoformat()}'")
    return relation


def _polars(folder: Folder, paths: list[str], schema: Schema, where: Sequence[Bound]) -> Any:  # noqa: ANN401
    polars = _need("polars", "polars")
    if folder.local and paths:
        frame = polars.scan_parquet(paths, hive_partitioning=False, glob=False).select(schema.names)
    else:
        frame = polars.scan_pyarrow_dataset(_dataset(folder, paths, schema))
    return frame.filter(*(bound.holds(polars.col(bound.column)) for bound in where))


def _dask(folder: Folder, paths: list[str], schema: Schema, where: Sequence[Bound]) -> Any:  # noqa: ANN401
    dask = _need("dask.dataframe", "dask")
    no_rows = _arrow_frame(schema.arrow.empty_table())
    if not paths:
        return dask.from_pandas(no_rows, npartitions=1)
    # Not `read_parquet`, which takes the folder's name for a column, or puts into the plan what cannot be sent.
    return dask.from_map(
        _read_part, paths, meta=no_rows, schema=schema.arrow, filesystem=folder.filesystem, where=tuple(where)
    )


def _read_part(
    path: str,
    *,
    columns: list[str] | None = None,
    schema: pa.Schema,
    filesystem: fs.FileSystem,
    where: Sequence[Bound],
) -> pd.DataFrame:
    """Read a file as one partition; Dask says by `columns` which ones it needs."""
    dataset = ds.dataset([path], schema=schema, format="parquet", filesystem=filesystem)
    conditions = [bound.holds(ds.field(bound.column)) for bound in where]
    wanted = functools.reduce(operator.and_, conditions) if conditions else None
    return _arrow_frame(dataset.to_table(columns=columns or schema.names, filter=wanted))


def _arrow_frame(table: pa.Table) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415 - no other engine needs it

    return table.to_pandas(types_mapper=pd.ArrowDtype)


def _spark(folder: Folder, paths: list[str], schema: Schema, where: Sequence[Bound]) -> Any:  # noqa: ANN401
    sql = _need("pyspark.sql", "spark")
    session = sql.SparkSession.getActiveSession() or sql.SparkSession.builder.getOrCreate()
    if not paths:
        types = _need("pyspark.sql.pandas.types", "spark")
        return session.createDataFrame([], types.from_arrow_schema(schema.arrow))
    prefix = "file://" if folder.local else f"{folder.location.split('://', 1)[0]}://"
    frame = session.read.parquet(*(prefix + path for path in paths)).select(*schema.names)
    for bound in where:
        frame = frame.where(bound.holds(frame[bound.column]))
    return frame


_OPENERS: dict[str, Callable[[Folder, list[str], Schema, Sequence[Bound]], Any]] = {
    "polars": _polars,
    "dask": _dask,
    "pyspark": _spark,
}
