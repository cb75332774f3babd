"""Helpers for tests of several engines: open a frame in an engine, and collect a result."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dask
import dask.dataframe as dd
import duckdb
import narwhals as nw
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from dask.local import get_sync

from qoderdata.errors import DataQualityWarning
from qoderdata.frames import to_pandas

if TYPE_CHECKING:
    from collections.abc import Callable

    from qoderdata.schema import Schema

ENGINES = ["polars", "polars lazy", "pyarrow", "duckdb", "dask"]
ZONE_OF_THE_SESSION = "America/New_York"


def opened(given: Any, engine: str) -> Any:  # noqa: ANN401 a pandas frame or an Arrow table in, any frame out
    """Return a pandas frame or an Arrow table as a frame of an engine; Dask and pandas need a pandas frame."""
    table = given if isinstance(given, pa.Table) else pa.Table.from_pandas(given, preserve_index=False)
    match engine:
        case "polars":
            return pl.DataFrame(table)
        case "polars lazy":
            return pl.LazyFrame(table)
        case "pyarrow":
            return table
        case "duckdb":
            connection = duckdb.connect()
            connection.execute(f"SET TimeZone = '{ZONE_OF_THE_SESSION}'")
            return connection.from_arrow(table)
        case "dask":
            plain = given.drop(columns=["schedule_upcoming_runs_at", "vault_ids"], errors="ignore")
            return dd.from_pandas(plain, npartitions=2)  # type: ignore[no-untyped-call] # Dask has no types
        case _:
            return given


def computed(frame: Any) -> Any:  # noqa: ANN401 Dask has no types
    """Compute a Dask frame without Dask's slow optimizer; return any other frame unchanged."""
    if not isinstance(frame, dd.DataFrame):
        return frame
    lowered: Any = frame.expr.lower_completely()
    return pd.concat(get_sync(lowered.__dask_graph__(), lowered.__dask_keys__()))


def collected(result: Any) -> pa.Table:  # noqa: ANN401 a frame of any engine
    """Collect a frame of any engine as an Arrow table, with the keys first."""
    if isinstance(result, dd.DataFrame):
        result = result.compute()  # type: ignore[no-untyped-call] # Dask has no types
    if isinstance(result, pd.DataFrame):
        keyed = result if result.index.names == [None] else result.reset_index()
        return pa.Table.from_pandas(keyed, preserve_index=False)
    frame = nw.from_native(result)
    return (frame.collect("pyarrow") if isinstance(frame, nw.LazyFrame) else frame).to_arrow()


def collected_scan(scanned: Any, of: Schema, *, optimize: bool = False) -> pd.DataFrame:  # noqa: ANN401 a frame of any engine
    """Compute a scan, sorted by id, with the dtypes of pandas; `optimize` says whether Dask optimizes its plan."""
    with dask.config.set(scheduler="synchronous"):
        table = collected(scanned if optimize else computed(scanned))
    return by_id(to_pandas(table.cast(of.arrow), of))


def rows_of(result: Any) -> list[dict[str, Any]]:  # noqa: ANN401 a frame of any engine
    """Collect the rows to compare engines: times in UTC, floats compared approximately."""
    return [{name: plain(value) for name, value in row.items()} for row in collected(result).to_pylist()]


def by_id(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values("id", ignore_index=True)


def plain(value: Any) -> Any:  # noqa: ANN401 one cell
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    return pytest.approx(value) if isinstance(value, float) else value


def quietly(summarise: Callable[[Any], Any], native: Any) -> Any:  # noqa: ANN401 frames of any engine
    """Call a summary without warnings about data quality."""
    with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
        return summarise(native)
