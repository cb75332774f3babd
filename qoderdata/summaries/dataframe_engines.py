"""What differs between dataframe engines, so that each summary is written once?

This module opens a frame of any engine that narwhals knows, and returns the result in the form of that engine. It
also adds columns whose expressions narwhals lacks. A pandas frame gives a pandas frame with the group keys as its
index. Other engines give their own frame with the keys as first columns, and lazy frames stay lazy. PyArrow tables
go through DuckDB, since PyArrow has no quantile of groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

import narwhals as nw
import pandas as pd
import pyarrow as pa
from narwhals.typing import IntoFrameT

from qoderdata import errors, frame_checks
from qoderdata.frames import KINDS, NAMES
from qoderdata.outcomes import open_frame
from qoderdata.schema import DEPLOYMENTS, RUNS, SESSIONS, Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

#: The columns of the deployments by which other frames can be grouped, once they are added.
_DEPLOYMENT_KEYS = {column.name for column in DEPLOYMENTS.columns if column.kind not in {Kind.TEXTS, Kind.TIMES}}
#: The columns that the loaders of other frames give.
_LOADED_COLUMNS = {"runs": RUNS.names, "sessions": SESSIONS.names}
#: A column that is 1 in every row, to group all rows together.
ALL = "_all"


def group_keys(by: str | Sequence[str] | None, *, results: Collection[str]) -> list[str]:
    """Return the columns to group by; an empty list for ``None``, which is one group of all rows.

    Raise `ValueError` for an empty list, a column that is in it twice, or the name of a column of the result.
    """
    if by is None:
        return []
    if isinstance(by, pd.Series):
        raise ValueError("by must name columns, not be a Series; add it: frame.assign(key=…), and give by='key'")  # noqa: TRY004 - as for other values
    keys = [by] if isinstance(by, str) else list(by) if isinstance(by, Iterable) else []
    if not keys or not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
        raise ValueError(f"by={by!r} must be a column, a list of different columns, or None for one row of all")
    if taken := [key for key in keys if key in results]:
        raise ValueError(f"by={taken[0]!r} is a column of the result; rename the column to group by it")
    return keys


def flag(condition: nw.Expr) -> nw.Expr:
    """Return a condition as 0 or 1, since not every engine sums conditions; null is 0."""
    return condition.fill_null(value=False).cast(nw.Int64)


def median(column: str) -> nw.Expr:
    """Return the median of a column; of an even number of rows, the mean of the two middle values."""
    return _quantile(column, 0.5)


def _quantile(column: str, share: float) -> nw.Expr:
    return nw.col(column).quantile(share, interpolation="linear")


def with_missing(frame: nw.LazyFrame[Any], names: Iterable[str]) -> nw.LazyFrame[Any]:
    """Add the columns that a frame lacks, as floats that are missing in every row."""
    known = frame.collect_schema()
    missing = [nw.lit(None, dtype=nw.Float64).alias(name) for name in names if name not in known]
    return frame.with_columns(*missing) if missing else frame


@dataclass(frozen=True)
class Source(Generic[IntoFrameT]):
    """A caller's frame with the columns that are needed."""

    #: The wanted columns.
    frame: nw.LazyFrame[Any]
    engine: nw.Implementation
    #: Whether the frame holds data and is not lazy: warnings about rows and empty windows are possible.
    eager: bool
    keys: list[str]
    #: The columns with the names of the ids to group by, as far as the caller's frame has them: the column in the
    #: result (``name`` if there is only one), and the caller's column.
    names: dict[str, str]

    @property
    def grouping(self) -> list[str]:
        """The columns to group by; at least one, so that an empty frame gives an empty result."""
        return self.keys or [ALL]

    def group(
        self, rows: nw.LazyFrame[Any], *aggregations: nw.Expr, sums: Iterable[str], within: Sequence[str] = ()
    ) -> nw.LazyFrame[Any]:
        """Return one row per group and value of `within`: sums of integers, names, and other aggregations."""
        names = (nw.col(name).max() for name in self.names)
        keys = [*self.grouping, *within]
        # DuckDB takes "a.b" for the column "b" of a table "a".
        plain = {key: f"_key_{number}" for number, key in enumerate(keys) if "." in key}
        groups = rows.rename(plain).group_by(*(plain.get(key, key) for key in keys))
        totals = groups.agg(nw.col(*sums).sum(), *names, *aggregations)
        totals = totals.rename({name: key for key, name in plain.items()})
        return totals.with_columns(nw.col(*sums).cast(nw.Int64))  # some engines sum to another type

    def quantiles(self, column: str, shares: Mapping[str, float], *, scan: str) -> list[nw.Expr]:
        """Return the expressions for quantiles within groups; none on Dask, with a warning that names `scan`."""
        if self.engine.is_dask():
            errors.warn(
                f"Dask has no percentiles within groups: {' and '.join(shares)} are missing; "
                f"DuckDB and Spark have them on the same files, with {scan}(engine='duckdb') or 'pyspark'",
                errors.DataQualityWarning,
            )
            return []
        return [_quantile(column, share).alias(name) for name, share in shares.items()]

    def open_same_engine(
        self,
        frame: Any,  # noqa: ANN401 a frame of any engine
        *,
        wanted: Collection[str],
        what: str,
        optional: Collection[str] = (),
        shared: Collection[str] = (),
    ) -> nw.LazyFrame[Any]:
        """Open a second, small frame, of pandas or the same engine, in the engine of this one, to join both.

        Parameters and exceptions are those of `open_source`.
        """
        other = open_source(frame, wanted=[*shared, *wanted], what=what, optional=optional, shared=shared)
        cut = other.frame.drop(ALL)
        if other.engine is self.engine and not self.engine.is_pyarrow():
            return cut
        if not other.engine.is_pandas() and (self.engine.is_pandas() or not other.engine.is_pyarrow()):
            own = "" if self.engine.is_pandas() else f" or one of {self.engine.name.lower()}"
            raise errors.not_a_frame(frame, what=what, kinds=f"a pandas frame{own}")
        native, given = self.frame.to_native(), cut.collect("pyarrow").to_native()
        if self.engine.is_polars():
            import polars as pl  # noqa: PLC0415 needed for Polars frames only

            native = pl.LazyFrame(given)
        elif self.engine.is_duckdb() or self.engine.is_pyarrow():
            # A relation can only be joined with relations of its own connection; `query` uses that connection.
            native = native.query("_", "SELECT * FROM given")
        elif self.engine.is_spark_like():
            # Spark reads the first chunk only.
            native = native.sparkSession.createDataFrame(given.combine_chunks())
        else:
            import dask.dataframe as dd  # noqa: PLC0415 likewise

            native = dd.from_pandas(cut.collect("pandas").to_native(), npartitions=1)  # type: ignore[no-untyped-call] # Dask has no types
        return open_frame(native).lazy()

    def refuse_dask(self, operation: str, need: str, *, scan: str = "scan_runs") -> None:
        """Raise `NotImplementedError` if the frame is Dask's, and name the engines that can do it."""
        if self.engine.is_dask():
            raise NotImplementedError(
                f"{operation} needs {need}, which Dask does not have; open the same files in DuckDB or Spark, "
                f"with {scan}(engine='duckdb') or {scan}(engine='pyspark')"
            )

    def finalize(
        self,
        grouped: nw.LazyFrame[Any],
        finish: Callable[[nw.LazyFrame[Any]], nw.LazyFrame[Any]] = lambda frame: frame,
        *,
        within: Sequence[str] = (),
        dtypes: Mapping[str, Any],
        order: Mapping[str, bool],
    ) -> IntoFrameT:
        """Return the groups in the caller's kind of frame, sorted by `order`, missing last, then by the keys.

        `grouped` has one row per group and value of `within`; for eager frames it is computed here. `finish` adds
        the columns that depend on whole groups. Dask sends it to its workers with everything that it refers to, so
        it must not refer to a frame. The keys are the index on pandas, and the first columns on other engines;
        `dtypes` are those of the other columns on pandas.
        """
        keys = [*self.keys, *within]
        dtypes = {**dict.fromkeys(self.names, frame_checks.TEXT), **dtypes}
        by = {**order, **dict.fromkeys(keys, False)}

        def complete(frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
            chosen = finish(frame).select(*keys, *dtypes)
            return chosen.sort(*by, descending=list(by.values()), nulls_last=True)

        def complete_partition(part: pd.DataFrame) -> pd.DataFrame:
            completed: pd.DataFrame = complete(open_frame(part).lazy()).to_native()
            return completed.astype(dtypes).reset_index(drop=True)

        result: IntoFrameT
        if self.engine.is_dask():
            # Dask sorts by one column only, and computes at once to do so. With one partition, pandas sorts
            # lazily.
            result = grouped.to_native().repartition(npartitions=1).map_partitions(complete_partition)
        elif self.eager:
            result = complete(grouped).collect().to_native()
        else:
            result = complete(grouped).to_native()
        if isinstance(result, pd.DataFrame):
            typed = result.astype(dtypes)
            result = typed.set_index(keys) if keys else typed.reset_index(drop=True)
        return result


def open_source(
    frame: IntoFrameT,
    by: str | Sequence[str] | None = None,
    *,
    results: Collection[str] = (),
    wanted: Collection[str],
    what: str,
    optional: Collection[str] = (),
    shared: Collection[str] = (),
) -> Source[IntoFrameT]:
    """Open a frame of any engine, and check its columns and their dtypes.

    The result has the columns to group by, of any dtype, the names of their ids, the `wanted` columns, and the
    `optional` ones that the frame has. It does not have the index, which may have the name of a column. `results`
    are columns of the result, which cannot be keys; `shared` are wanted columns by which another frame is grouped.
    Raise `ValueError` for a `by` that is not valid, `MissingColumnError`, `FrameTypeError`, or `ImportError` for a
    PyArrow table without DuckDB. Warn if a pandas frame of runs or deployments has an ``id`` twice.
    """
    keys = group_keys(by, results=results)
    native: Any = frame
    if isinstance(frame, pd.DataFrame):
        _require_keys(frame.columns, keys, what=what, shared=shared, levels=frame.index.names)
        texts = [*keys, *_name_columns(keys, frame.columns, what=what).values()]
        native = frame_checks.require_frame(frame, wanted, what=what, optional=optional, keys=texts)
        native = frame_checks.without_repeated_columns(native)
        _refuse_lists(native, keys)
    try:
        opened = open_frame(native)
    except TypeError:
        raise errors.not_a_frame(frame, what=what, kinds=KINDS) from None
    schema = opened.collect_schema()
    _require_keys(schema.names(), keys, what=what, shared=shared)
    errors.require_columns(schema.names(), [*keys, *wanted], what=what)
    if opened.implementation.is_spark_like():
        _refuse_dots(keys)
    taken = [*wanted, *(name for name in optional if name in schema)]
    if not opened.implementation.is_pandas():
        frame_checks.require_dtypes(schema, taken, what=what)
    names = _name_columns(keys, schema.names(), what=what)
    if opened.implementation.is_polars() or opened.implementation.is_pyarrow() or opened.implementation.is_dask():
        others = (*names.values(), *taken)
        to_cast = {name for name in (*keys, *others) if isinstance(schema[name], nw.Unknown)}
        to_cast |= {name for name in others if isinstance(schema[name], nw.Categorical | nw.Enum)} - {*keys}
        if to_cast:
            opened = opened.with_columns(*(nw.col(name).cast(_type_of(name)) for name in to_cast))
    selected = {**{name: name for name in (*keys, *taken)}, **names}
    cut = opened.select(*(nw.col(column).alias(name) for name, column in selected.items()), nw.lit(1).alias(ALL))
    if opened.implementation.is_pandas():
        cut = open_frame(cut.to_native().reset_index(drop=True))
        if what in {"runs", "deployments"}:
            # A frame may have several states of a deployment in different groups, such as those of snapshots.
            frame_checks.warn_of_repeats(opened.to_native(), keys if what == "deployments" else (), what=what)
    eager = isinstance(cut, nw.DataFrame)
    lazy = _in_duckdb(cut.to_native()) if opened.implementation.is_pyarrow() else cut.lazy()
    return Source(frame=lazy, engine=opened.implementation, eager=eager, keys=keys, names=names)


def _require_keys(
    present: Collection[str],
    keys: Sequence[str],
    *,
    what: str,
    shared: Collection[str],
    levels: Collection[object] = (),
) -> None:
    """Raise `MissingColumnError` for a missing key that no table has; say how to add names and metadata keys."""
    advice = (
        "with_names adds the names of ids, and the keys of the deployments' metadata: metadata=['team'] gives the "
        "column 'metadata_team'"
    )
    added = [key for key in keys if key not in frame_checks.DTYPES or key in NAMES.values()]
    errors.require_columns(present, added, what=what, advice=advice, levels=levels)
    loaded = _LOADED_COLUMNS.get(what, DEPLOYMENTS.names)
    for key in [key for key in keys if key in _DEPLOYMENT_KEYS and key not in loaded]:
        advice = f"{what}[{key!r}] = {what}['deployment_id'].map(df.set_index('id')[{key!r}]) adds it"
        errors.require_columns(present, [key], what=what, advice=advice, levels=levels)
    advice = (
        f"the columns to group by are needed in both frames: with_names({what}, df, metadata=['team']) adds "
        f"'metadata_team', and a column of the deployments comes with {what}['agent_id'] = "
        f"{what}['deployment_id'].map(df.set_index('id')['agent_id'])"
    )
    errors.require_columns(present, shared, what=what, advice=advice, levels=levels)


def _refuse_lists(frame: pd.DataFrame, keys: Sequence[str]) -> None:
    for key in keys:
        dtype = frame[key].dtype
        is_nested = isinstance(dtype, pd.ArrowDtype) and pa.types.is_nested(dtype.pyarrow_dtype)
        is_object = pd.api.types.is_object_dtype(dtype)
        if is_nested or (is_object and not frame[key].map(pd.api.types.is_hashable).all()):
            raise ValueError(
                f"by={key!r} holds lists or objects, which are no groups; make a column of text first"
            )


def _refuse_dots(keys: Sequence[str]) -> None:
    for key in keys:
        if "." in key:
            plain = key.replace(".", "_")
            raise ValueError(
                f"by={key!r}: Spark takes a dot in a name for a field of a struct; rename the column: "
                f"frame.withColumnRenamed({key!r}, {plain!r})"
            )


def _type_of(name: str) -> nw.dtypes.DType:
    """Return the type for a column that has none because PyArrow or Polars only read missing values."""
    types = {
        frame_checks.Dtype.INTEGER: nw.Int64(),
        frame_checks.Dtype.NUMBER: nw.Float64(),
        frame_checks.Dtype.TIME: nw.Datetime("us", "UTC"),
        frame_checks.Dtype.FLAG: nw.Boolean(),
    }
    return types.get(frame_checks.DTYPES.get(name, frame_checks.Dtype.TEXT), nw.String())


def _name_columns(keys: Sequence[str], columns: Collection[str], *, what: str) -> dict[str, str]:
    """Return the columns with the names of the ids to group by; the keys are their names in the result."""
    if keys == ["id"] and what == "deployments" and "name" in columns:
        return {"name": "name"}
    ids = [key for key in keys if key in NAMES]
    found = [NAMES[key] for key in ids if NAMES[key] in columns and NAMES[key] not in keys]
    is_one = found and len(ids) == 1 and not {"id", "name"} & set(keys)
    return {"name": found[0]} if is_one else {name: name for name in found}


def _in_duckdb(table: pa.Table) -> nw.LazyFrame[Any]:
    """Open a PyArrow table in its own DuckDB connection, which gives times in UTC."""
    try:
        import duckdb  # noqa: PLC0415 needed for PyArrow tables only
    except ImportError as error:
        raise ImportError(
            "summaries of a PyArrow table go through DuckDB, which is not installed: "
            "pip install 'qoderdata[duckdb]', or pass a pandas frame (table.to_pandas())"
        ) from error
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return open_frame(connection.from_arrow(table)).lazy()


@dataclass(frozen=True)
class EngineExpr:
    """An expression of one column in the language of each engine (SQL with ``{}`` for the column)."""

    pandas: Callable[[Any], Any]
    polars: Callable[[Any], Any]
    duckdb: str
    spark: str


def add_column(frame: nw.LazyFrame[Any], name: str, expr: EngineExpr, source: str) -> nw.LazyFrame[Any]:
    """Add column `name`, computed by `expr` from column `source`, in the frame's own engine."""
    native = frame.to_native()
    engine = frame.implementation
    if engine.is_polars():
        import polars as pl  # noqa: PLC0415 needed for Polars frames only

        native = native.with_columns(expr.polars(pl.col(source)).alias(name))
    elif engine.is_duckdb():
        quoted = f'"{source}"'
        native = native.project(f'*, {expr.duckdb.format(quoted)} AS "{name}"')
    elif engine.is_spark_like():
        native = native.selectExpr("*", f"{expr.spark.format(f'`{source}`')} AS `{name}`")
    elif engine.is_dask():
        native = native.map_partitions(_assign, name, expr.pandas, source)
    elif engine.is_pyarrow():
        native = native.append_column(name, pa.Array.from_pandas(expr.pandas(native[source].to_pandas())))
    else:
        native = _assign(native, name, expr.pandas, source)
    return open_frame(native).lazy()


def _assign(frame: pd.DataFrame, name: str, make: Callable[[Any], Any], source: str) -> pd.DataFrame:
    return frame.assign(**{name: make(frame[source])})
