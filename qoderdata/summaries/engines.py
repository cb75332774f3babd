"""What differs from engine to engine, so that the summaries themselves are one text.

Owns how a frame of any engine that narwhals knows is read, and in what form the result goes back. A pandas
frame gives a pandas frame, with the group keys as its index and exact dtypes; other engines give their own
frame with the keys as the first columns, and stay lazy where they are lazy. PyArrow goes through DuckDB,
since it has no grouped quantile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import narwhals as nw

from qoderdata import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from narwhals.typing import IntoFrame

#: Where there is nothing to group by, one group for all.
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
    keys = [by] if isinstance(by, str) else list(by)
    if not keys or not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
        raise ValueError(f"by={by!r} must be a column, a list of different columns, or None for one row of all")
    if taken := [key for key in keys if key in results]:
        raise ValueError(f"by={by!r}: {taken[0]!r} is a column of the result; rename the column to group by it")
    return keys


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

    def finish(
        self, grouped: nw.LazyFrame[Any], text: Callable[[nw.LazyFrame[Any]], nw.LazyFrame[Any]]
    ) -> nw.LazyFrame[Any]:
        """Apply what remains to be done once rows are grouped: few rows, in any engine.

        Dask sorts by no more than one column and computes at once to do it, so there pandas does it, later,
        inside the one partition of the result.
        """
        if self.engine.is_dask():
            one = grouped.to_native().repartition(npartitions=1)
            done: nw.LazyFrame[Any] = nw.from_native(
                one.map_partitions(lambda part: text(nw.from_native(part).lazy()).to_native())
            )
            return done
        if self.engine.is_pyarrow():
            return text(nw.from_native(_in_utc(grouped.collect("pyarrow").to_native())).lazy())
        if self.eager:
            return text(grouped.collect().lazy())
        return text(grouped)

    def give(self, result: nw.LazyFrame[Any], keys: Sequence[str], dtypes: Mapping[str, str]) -> Any:  # noqa: ANN401
        """Hand the result back in the caller's own kind of frame: the keys, then the columns of `dtypes`."""
        result = result.select(*keys, *dtypes)
        if not self.eager:
            return result.to_native()
        native = result.collect().to_native()
        if not self.engine.is_pandas():
            return native
        native = native.astype(dict(dtypes))
        return native.set_index(list(keys)) if keys else native.reset_index(drop=True)


def read(frame: IntoFrame, *, keys: list[str], wanted: Collection[str], what: str) -> Source:
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
    """
    try:
        opened = nw.from_native(frame)
    except TypeError as error:
        raise TypeError(
            f"{what} must be a frame (pandas, Polars, PyArrow, DuckDB, Dask, PySpark): {error}"
        ) from error
    names = opened.collect_schema().names()
    errors.require_columns(names, [*keys, *wanted], what=what)
    columns = list(dict.fromkeys([*keys, *wanted]))
    cut = opened.select(*columns) if keys else opened.select(*columns, nw.lit(1).alias(ALL))
    eager = isinstance(cut, nw.DataFrame)
    lazy = (
        cut.lazy("duckdb" if cut.implementation.is_pyarrow() else None) if isinstance(cut, nw.DataFrame) else cut
    )
    return Source(frame=lazy, engine=opened.implementation, eager=eager, keys=keys)


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
