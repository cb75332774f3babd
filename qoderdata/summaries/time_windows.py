"""Compute wall clocks and windows in a zone, such as days, and ages before an end, on every dataframe engine."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import narwhals as nw
import numpy as np
import pandas as pd

from qoderdata.arguments import Instant, Span, pandas_zone, parse_bound, parse_span, parse_window, parse_zone
from qoderdata.summaries.dataframe_engines import EngineExpr, add_column
from qoderdata.time_math import (
    DAY_MICROS,
    MICROSECOND,
    MINUTE_MICROS,
    list_windows,
    no_windows_error,
    to_micros,
    window_origin,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qoderdata.summaries.dataframe_engines import Source


@dataclass(frozen=True)
class Windows:
    """Windows that cover all time and never overlap.

    Days, weeks and months are those of the wall clock, from midnight to midnight (weeks from Monday), so that a
    day has 23 or 25 hours when clocks change. Windows of several days or weeks are counted from 1970, so that they
    do not depend on the frame. Hours and minutes are real ones, counted from the start of each local day.
    """

    #: The length in microseconds; ``None``: calendar months.
    step: int | None
    #: The IANA zone.
    zone: str
    #: The column of times.
    column: str

    @classmethod
    def parse(cls, freq: str, tz: str, column: str) -> Windows:
        """Parse the parameters `freq` and `tz` of a summary."""
        return cls(step=parse_window(freq), zone=parse_zone(tz).key, column=column)

    @property
    def _by_wall_clock(self) -> bool:
        return self.zone != "UTC" and (self.step is None or self.step >= DAY_MICROS)

    def label(self, frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        """Add the integer column ``window``, to group by; `begin` converts it to a time.

        Raise `ValueError` for times at the ends of the calendar, for which pandas has no wall clock.
        """
        try:
            frame = add_column(frame, "_at", wall_clock(self.zone) if self._by_wall_clock else EPOCH, self.column)
            if self.step is None:
                return add_column(frame, "window", _MONTH, "_at")
            at, origin = nw.col("_at"), nw.lit(window_origin(self.step))
            if self.zone != "UTC" and not self._by_wall_clock:
                frame = add_column(frame, "_wall", wall_clock(self.zone), self.column)
                frame = frame.with_columns((nw.col("_wall") - nw.col("_wall") % DAY_MICROS).alias("_midnight"))
                frame = add_column(frame, "_day", first_instant(self.zone), "_midnight")
                origin = nw.col("_day")
        except OverflowError:
            raise no_windows_error(self.column, self.zone) from None
        return frame.with_columns((at - (at - origin) % self.step).alias("window"))

    def begin(self, frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        """Replace the labels with the times at which the windows begin."""
        to_instant = [first_instant(self.zone)] if self._by_wall_clock else []
        for expr in (*to_instant, instant(self.zone)):
            frame = add_column(frame, "_begin", expr, "window").drop("window").rename({"_begin": "window"})
        return frame

    def with_empty(
        self, grouped: nw.LazyFrame[Any], rows: nw.LazyFrame[Any], source: Source[Any], *, sums: Sequence[str]
    ) -> nw.LazyFrame[Any]:
        """Return a row for every group and every window from the first window of `rows` to the last.

        In new rows the `sums` are 0 and the other columns are missing. The new rows are added and grouped again,
        since a join would lose groups with a missing key. Both frames are computed here.
        """
        counted, label = grouped.collect(), nw.col("window")
        ends = rows.select(label.min().alias("first"), label.max().alias("last")).collect()
        first, last = ends["first"].item(), ends["last"].item()
        if pd.isna(first):
            return counted.lazy()
        grouping = source.grouping
        named = [nw.col(name).max() for name in source.names]
        groups = counted.group_by(*grouping).agg(*named) if named else counted.select(*grouping).unique()
        labels = self.between(int(first), int(last), groups=len(groups))
        all_windows = nw.from_dict({"window": labels}, backend=counted.implementation)
        kept = {*grouping, "window", *sums}
        others = [nw.col(name).max() for name in counted.columns if name not in kept]
        zeros = (nw.lit(0, dtype=counted.schema[name]).alias(name) for name in sums)
        empty = groups.join(all_windows, how="cross").with_columns(*zeros)
        both = nw.concat([counted, empty], how="diagonal")
        return both.group_by(*grouping, "window").agg(nw.col(*sums).sum(), *others).lazy()

    def between(self, first: int, last: int, *, groups: int = 1) -> list[int]:
        """Return all labels from one to another, both included; raise `ValueError` if they are too many."""
        zone = pandas_zone(self.zone)
        return [*list_windows(first, last, self.step, zone, column=self.column, groups=groups).values()]


def parse_micros(value: Span, *, name: str) -> int:
    """Parse a length of time above 0; return microseconds."""
    length = parse_span(value, name=name)
    if length <= timedelta(0):
        raise ValueError(f"{name}={value!r} must be longer than 0, such as '3D'")
    return length // MICROSECOND


def with_age(rows: nw.LazyFrame[Any], until: Instant | Span | None) -> nw.LazyFrame[Any]:
    """Add ``_age``, the microseconds from ``_at`` to `until`; it is above 0 for times before `until`.

    Without `until`, measure to the end of the minute of the newest time in the whole frame.
    """
    at = nw.col("_at")
    if until is not None:
        bound = parse_bound(until, now=datetime.now(UTC), name="until")
        return rows.with_columns((to_micros(bound) - at).alias("_age"))
    newest = at.max()
    return rows.with_columns((newest - newest % MINUTE_MICROS + MINUTE_MICROS - at).alias("_age"))


def local_midnight(time: pd.Timestamp, tz: str, *, days: int = 0) -> pd.Timestamp:
    """Return the first instant of the local day of a time, or of the day a number of days later.

    Examples
    --------
    >>> local_midnight(pd.Timestamp("2026-04-24T10:00Z"), "Africa/Cairo").isoformat()  # clocks skip midnight
    '2026-04-24T01:00:00+03:00'
    """
    wall = wall_clock(tz).pandas(pd.Series([time]))
    midnight = first_instant(tz).pandas(wall - wall % DAY_MICROS + days * DAY_MICROS)
    return pd.Timestamp(midnight.item(), unit="us", tz=pandas_zone(tz))


def _wall_clock_pandas(series: pd.Series[Any], zone: str) -> pd.Series[Any]:
    # pandas 2 ignores the zone of a series of an Arrow type.
    times = pd.DatetimeIndex(series.to_numpy("datetime64[us]"), tz="UTC")
    wall = times.tz_convert(pandas_zone(zone)).tz_localize(None).to_numpy()
    return pd.Series(pd.arrays.IntegerArray(wall.astype("int64"), np.isnat(wall)), index=series.index)


#: An instant as microseconds since 1970 in UTC.
EPOCH = EngineExpr(
    pandas=functools.partial(_wall_clock_pandas, zone="UTC"),
    polars=lambda column: column.dt.epoch("us"),
    duckdb="epoch_us({}::TIMESTAMPTZ)",
    spark="unix_micros({})",
)


def _month_pandas(series: pd.Series[Any]) -> pd.Series[Any]:
    months = series.to_numpy("int64", na_value=0).astype("datetime64[us]").astype("datetime64[M]")
    micros = months.astype("datetime64[us]").astype("int64")
    return pd.Series(pd.arrays.IntegerArray(micros, series.isna().to_numpy(bool)), index=series.index)


def _month_polars(column: Any) -> Any:  # noqa: ANN401
    import polars as pl  # noqa: PLC0415

    return column.cast(pl.Datetime("us")).dt.truncate("1mo").dt.epoch("us")


#: The first instant of the calendar month of a wall-clock time; both are microseconds since 1970.
_MONTH = EngineExpr(
    pandas=_month_pandas,
    polars=_month_polars,
    duckdb="epoch_us(date_trunc('month', make_timestamp({})))",
    # The times of Spark depend on the zone of the session, its dates do not.
    spark=f"unix_date(trunc(date_from_unix_date(int(({{0}} - pmod({{0}}, {DAY_MICROS})) div {DAY_MICROS})), 'MM'))"
    f" * {DAY_MICROS}",
)


def wall_clock(zone: str) -> EngineExpr:
    """Return an expression for the wall-clock time in `zone`, as microseconds since 1970-01-01 on that clock."""
    return EngineExpr(
        pandas=functools.partial(_wall_clock_pandas, zone=zone),
        polars=lambda column: column.dt.convert_time_zone(zone).dt.replace_time_zone(None).dt.epoch("us"),
        duckdb=f"epoch_us(timezone('{zone}', {{}}::TIMESTAMPTZ))",
        spark=f"unix_micros(from_utc_timestamp({{}}, '{zone}'))",
    )


def first_instant(zone: str) -> EngineExpr:
    """Return an expression for the first instant at which the clock in `zone` shows a wall-clock time.

    Both times are in microseconds since 1970, the result in UTC. A time that occurs twice gives the first of the
    two; a time that a clock change skips is read with the offset before the change. Both are computed with the
    offset of the day before, which is in effect until the change.
    """

    def pandas(series: pd.Series[Any]) -> pd.Series[Any]:
        codes, unique = pd.factorize(series.to_numpy("int64", na_value=0))
        naive = pd.DatetimeIndex(np.asarray(unique).astype("datetime64[us]"))

        def attach(when: pd.DatetimeIndex) -> pd.DatetimeIndex:
            return when.tz_localize(pandas_zone(zone), ambiguous=np.ones(len(when), dtype=bool), nonexistent="NaT")

        own, before = attach(naive), attach(naive - timedelta(days=1)) + timedelta(days=1)
        first = before.where((before.tz_localize(None) == naive) | own.isna(), own)
        values = first.tz_convert("UTC").tz_localize(None).to_numpy("datetime64[us]").astype("int64")[codes]
        return pd.Series(pd.arrays.IntegerArray(values, series.isna().to_numpy(bool)), index=series.index)

    def polars(column: Any) -> Any:  # noqa: ANN401
        import polars as pl  # noqa: PLC0415

        def attach(when: Any) -> Any:  # noqa: ANN401
            return when.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.epoch("us")

        naive = column.cast(pl.Datetime("us"))
        return attach(naive).fill_null(attach(naive - pl.duration(days=1)) + DAY_MICROS)

    # For a time that occurs twice, ICU (DuckDB) gives the later instant and Java (Spark) the earlier one. For a
    # skipped time, both use the offset before the change.
    own = f"timezone('{zone}', make_timestamp({{0}}))"
    before = f"timezone('{zone}', make_timestamp({{0}} - {DAY_MICROS})) + INTERVAL 24 HOUR"
    first = f"CASE WHEN timezone('{zone}', {before}) = make_timestamp({{0}}) THEN {before} ELSE {own} END"
    return EngineExpr(
        pandas=pandas,
        polars=polars,
        duckdb=f"epoch_us({first})",
        spark=f"unix_micros(to_utc_timestamp(timestamp_micros({{}}), '{zone}'))",
    )


def instant(zone: str) -> EngineExpr:
    """Return an expression for microseconds since 1970 as a time in `zone` (the session's on DuckDB and Spark)."""

    def pandas(series: pd.Series[Any]) -> pd.Series[Any]:
        stamps = series.to_numpy("int64", na_value=np.iinfo("int64").min).astype("datetime64[us]")
        times = pd.DatetimeIndex(stamps).tz_localize("UTC").tz_convert(pandas_zone(zone))
        return pd.Series(times, index=series.index)

    def polars(column: Any) -> Any:  # noqa: ANN401
        import polars as pl  # noqa: PLC0415

        return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC").dt.convert_time_zone(zone)

    return EngineExpr(pandas=pandas, polars=polars, duckdb="make_timestamptz({})", spark="timestamp_micros({})")
