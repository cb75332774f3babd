"""What differs from engine to engine, so that the summaries themselves are one text.

Owns how a frame of any engine that narwhals knows is read, and in what form the result goes back. A pandas
frame gives a pandas frame, with the group keys as its index and exact dtypes; other engines give their own
frame with the keys as the first columns, and stay lazy where they are lazy. PyArrow goes through DuckDB,
since it has no grouped quantile.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import narwhals as nw
from narwhals.dependencies import is_dask_dataframe

from qoderdata import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from narwhals.typing import IntoFrame

#: A column that is 1 in every row: one group of all, where that is wanted.
ALL = "_all"


def group_keys(by: str | Sequence[str] | None, *, results: Collection[str]) -> list[str]:
    """Read what a caller wrote for `by`.

    Parameters
    ----------
    by
        A column, several columns, or ``None`` for one group of all rows.
    results
        The columns of the result, which cannot be keys as well.

    Returns
    -------
    list of str
        The key columns; none for ``None``.

    Raises
    ------
    ValueError
        No column in a list, the same one twice, or the name of a result.
    """
    if by is None:
        return []
    keys = [by] if isinstance(by, str) else list(by) if isinstance(by, Iterable) else []
    if not keys or not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
        raise ValueError(f"by={by!r} must be a column, a list of different columns, or None for one row of all")
    if taken := [key for key in keys if key in results]:
        raise ValueError(f"by={by!r}: {taken[0]!r} is a column of the result; rename the column to group by it")
    return keys


def open_frame(native: Any) -> nw.DataFrame[Any] | nw.LazyFrame[Any]:  # noqa: ANN401 a frame of any engine
    """Open a frame with narwhals, which warns of its own plans on the way; all of this package comes by here."""
    if not is_dask_dataframe(native):
        opened: nw.DataFrame[Any] | nw.LazyFrame[Any] = nw.from_native(native)
        return opened
    with warnings.catch_warnings():
        # narwhals 2.29 asks for a package of its own for Dask that does not exist yet.
        warnings.filterwarnings("ignore", message="Dask support is moving", category=FutureWarning)
        return nw.from_native(native)


def flag(condition: nw.Expr) -> nw.Expr:
    """Turn a condition into 0 or 1, since not every engine sums conditions; unknown is 0."""
    return condition.fill_null(value=False).cast(nw.Int64)


@dataclass(frozen=True)
class Source:
    """A caller's frame, ready to be summed up.

    Attributes
    ----------
    frame
        The wanted columns, lazily.
    engine
        What the caller passed.
    eager
        The caller passed data, not a plan: warnings about rows and empty windows are possible.
    keys
        The columns that the caller wants to group by.
    """

    frame: nw.LazyFrame[Any]
    engine: nw.Implementation
    eager: bool
    keys: list[str]

    @property
    def grouping(self) -> list[str]:
        """The columns to group by; never none, so that an empty frame gives an empty result."""
        return self.keys or [ALL]

    def refuse_dask(self, operation: str, need: str) -> None:
        """Say what Dask cannot do, and who can."""
        if self.engine.is_dask():
            raise NotImplementedError(
                f"{operation} needs {need}, which Dask does not have; open the same files in DuckDB or Spark, "
                "with scan_runs(engine='duckdb') or scan_runs(engine='pyspark')"
            )

    def give(
        self,
        grouped: nw.LazyFrame[Any],
        finish: Callable[[nw.LazyFrame[Any]], nw.LazyFrame[Any]],
        *,
        keys: Sequence[str],
        dtypes: Mapping[str, str],
        order: Mapping[str, bool],
    ) -> Any:  # noqa: ANN401 the caller's own kind
        """Do what remains once rows are grouped, and hand the result back in the caller's own kind of frame.

        Parameters
        ----------
        grouped
            One row a group: few rows, which eager callers get computed here.
        finish
            Adds what the groups tell. Dask sends it to its workers, with all that it refers to: never the frame.
        keys
            The key columns of the result.
        dtypes
            Its other columns, in order, with what they are on pandas.
        order
            Columns to sort by and whether descending, missing last; ties are in order of the keys.

        Returns
        -------
        frame
            With the keys as index on pandas, as the first columns elsewhere.
        """
        whole = functools.partial(_whole, finish=finish, keys=list(keys), names=list(dtypes), order=dict(order))
        if self.engine.is_dask():
            # Dask sorts by one column, and computes at once to do it; pandas sorts its one partition, later.
            one = grouped.to_native().repartition(npartitions=1)
            return one.map_partitions(_whole_partition, whole, dict(dtypes))
        if not self.eager:
            return whole(grouped).to_native()
        if self.engine.is_pyarrow():
            return whole(open_frame(_in_utc(grouped.collect("pyarrow").to_native())).lazy()).collect().to_native()
        native = whole(grouped.collect().lazy()).collect().to_native()
        if not self.engine.is_pandas():
            return native
        native = native.astype(dtypes)
        return native.set_index(list(keys)) if keys else native.reset_index(drop=True)


def read(
    frame: IntoFrame, *, keys: list[str], wanted: Collection[str], what: str, where_there: Collection[str] = ()
) -> Source:
    """Open a frame of any engine.

    Parameters
    ----------
    frame
        A frame that narwhals knows.
    keys
        The columns to group by.
    wanted
        Further columns that are needed.
    what
        ``"deployments"`` or ``"runs"``, for messages.
    where_there
        Columns that are taken when they are there.

    Returns
    -------
    Source
        The frame, cut down to these columns.

    Raises
    ------
    MissingColumnError
        A column is not there.
    TypeError
        Not a frame.
    ImportError
        A PyArrow table, and DuckDB is not installed.
    """
    try:
        opened = open_frame(frame)
    except TypeError as error:
        raise TypeError(
            f"{what} must be a frame (pandas, Polars, PyArrow, DuckDB, Dask, PySpark): {error}"
        ) from error
    names = opened.collect_schema().names()
    errors.require_columns(names, [*keys, *wanted], what=what)
    columns = list(dict.fromkeys([*keys, *wanted, *(name for name in where_there if name in names)]))
    cut = opened.select(*columns, nw.lit(1).alias(ALL))
    if not isinstance(cut, nw.DataFrame):
        return Source(frame=cut, engine=opened.implementation, eager=False, keys=keys)
    lazy = _in_duckdb(cut.to_native()) if opened.implementation.is_pyarrow() else cut.lazy()
    return Source(frame=lazy, engine=opened.implementation, eager=True, keys=keys)


def _whole(
    frame: nw.LazyFrame[Any],
    *,
    finish: Callable[[nw.LazyFrame[Any]], nw.LazyFrame[Any]],
    keys: Sequence[str],
    names: Sequence[str],
    order: Mapping[str, bool],
) -> nw.LazyFrame[Any]:
    by = {**order, **dict.fromkeys(keys, False)}
    chosen = finish(frame).select(*keys, *names)
    return chosen.sort(*by, descending=list(by.values()), nulls_last=True) if by else chosen


def _whole_partition(
    part: Any,  # noqa: ANN401 a pandas frame
    whole: Callable[[nw.LazyFrame[Any]], nw.LazyFrame[Any]],
    dtypes: Mapping[str, str],
) -> Any:  # noqa: ANN401 likewise
    return whole(open_frame(part).lazy()).to_native().astype(dtypes).reset_index(drop=True)


def _in_duckdb(table: Any) -> nw.LazyFrame[Any]:  # noqa: ANN401 a pyarrow.Table
    """Open a PyArrow table in a DuckDB of its own, so that nobody else's session plays a part."""
    try:
        import duckdb  # noqa: PLC0415 only who passes PyArrow needs it
    except ImportError as error:
        raise ImportError(
            "summaries of a PyArrow table go through DuckDB, which is not installed: "
            "pip install 'qoderdata[duckdb]', or pass a pandas frame (table.to_pandas())"
        ) from error
    return open_frame(duckdb.connect().from_arrow(table)).lazy()


def _in_utc(table: Any) -> Any:  # noqa: ANN401 a pyarrow.Table
    """DuckDB labels times with its session's zone; here they are in UTC, as they came."""
    import pyarrow as pa  # noqa: PLC0415

    fields = [
        field.with_type(pa.timestamp(field.type.unit, "UTC"))
        if pa.types.is_timestamp(field.type) and field.type.tz
        else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))
