"""Times as numbers, and windows of time in a zone: the few words that narwhals has no word for on every engine.

Owns how an instant becomes microseconds, and how a wall clock is read, on each engine. DuckDB and Spark
keep the zone in the session and evaluate late; so the zone stands in the expression, and no session is
ever changed. Leaves to others what is counted in a window.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import narwhals as nw
import numpy as np
import pandas as pd

from qoderdata import times
from qoderdata.summaries import engines

if TYPE_CHECKING:
    from collections.abc import Callable

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
_UNITS = {"min": MINUTE, "h": HOUR, "D": DAY, "W": 7 * DAY}
_FIRST_MONDAY = 4 * DAY  # 1970-01-05


@dataclass(frozen=True)
class Step:
    """One new column out of one column, in the words of each engine (SQL with ``{}`` for the column)."""

    pandas: Callable[[Any], Any]
    polars: Callable[[Any], Any]
    duckdb: str
    spark: str


def add(frame: nw.LazyFrame[Any], name: str, step: Step, source: str) -> nw.LazyFrame[Any]:
    """Add column `name`, made by `step` out of column `source`, in the frame's own engine."""
    native = frame.to_native()
    engine = frame.implementation
    if engine.is_polars():
        import polars as pl  # noqa: PLC0415 only who passes Polars needs it

        native = native.with_columns(step.polars(pl.col(source)).alias(name))
    elif engine.is_duckdb():
        native = native.project(f'*, {step.duckdb.format(_quoted(source))} AS "{name}"')
    elif engine.is_spark_like():
        native = native.selectExpr("*", f"{step.spark.format(f'`{source}`')} AS `{name}`")
    elif engine.is_dask():
        native = native.map_partitions(_assign, name, step.pandas, source)
    elif engine.is_pyarrow():
        import pyarrow as pa  # noqa: PLC0415

        native = native.append_column(name, pa.Array.from_pandas(step.pandas(native[source].to_pandas())))
    else:
        native = _assign(native, name, step.pandas, source)
    return engines.open_frame(native).lazy()


def _quoted(name: str) -> str:
    return f'"{name}"'


def _assign(frame: pd.DataFrame, name: str, make: Callable[[Any], Any], source: str) -> pd.DataFrame:
    return frame.assign(**{name: make(frame[source])})


def _integers(stamps: Any, index: pd.Index[Any]) -> pd.Series[Any]:  # noqa: ANN401
    values = np.asarray(stamps, dtype="datetime64[us]")
    return pd.Series(pd.arrays.IntegerArray(values.astype("int64"), np.isnat(values)), index=index)


def _epoch_pandas(series: pd.Series[Any]) -> pd.Series[Any]:
    return _integers(series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]"), series.index)


#: The instant as microseconds since 1970 in UTC.
EPOCH = Step(
    pandas=_epoch_pandas,
    polars=lambda column: column.dt.epoch("us"),
    duckdb="epoch_us({})",
    spark="unix_micros({})",
)


def wall(zone: str) -> Step:
    """Read the wall clock in `zone`, as microseconds since it read 1970-01-01."""

    def pandas(series: pd.Series[Any]) -> pd.Series[Any]:
        return _integers(series.dt.tz_convert(zone).dt.tz_localize(None).to_numpy("datetime64[us]"), series.index)

    return Step(
        pandas=pandas,
        polars=lambda column: column.dt.convert_time_zone(zone).dt.replace_time_zone(None).dt.epoch("us"),
        duckdb=f"epoch_us(timezone('{zone}', {{}}))",
        spark=f"unix_micros(from_utc_timestamp({{}}, '{zone}'))",
    )


def first_instant(zone: str) -> Step:
    """When the wall clock in `zone` first reads this (microseconds of wall clock in, of UTC out).

    A clock that goes back over midnight reads it twice, and the first counts; one that goes forward over it
    skips it, and the change counts. Both are found with the offset of the day before: there the clock reads
    this for the first time, or would if it had not been changed.
    """

    def pandas(series: pd.Series[Any]) -> pd.Series[Any]:
        codes, unique = pd.factorize(series.to_numpy("int64", na_value=0))
        naive = pd.DatetimeIndex(np.asarray(unique).astype("datetime64[us]"))

        def attach(when: pd.DatetimeIndex) -> pd.DatetimeIndex:
            return when.tz_localize(zone, ambiguous=np.ones(len(when), dtype=bool), nonexistent="NaT")

        reads, would = attach(naive), attach(naive - pd.Timedelta(days=1)) + pd.Timedelta(days=1)
        first = would.where((would.tz_localize(None) == naive) | reads.isna(), reads)
        values = first.tz_convert("UTC").tz_localize(None).to_numpy("datetime64[us]").astype("int64")[codes]
        return pd.Series(pd.arrays.IntegerArray(values, series.isna().to_numpy(bool)), index=series.index)

    def polars(column: Any) -> Any:  # noqa: ANN401
        import polars as pl  # noqa: PLC0415

        def attach(when: Any) -> Any:  # noqa: ANN401
            return when.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.epoch("us")

        naive = column.cast(pl.Datetime("us"))
        return attach(naive).fill_null(attach(naive - pl.duration(days=1)) + DAY)

    # ICU takes the later of two readings, and past a gap the offset before it; Java the earlier one, and likewise.
    reads = f"timezone('{zone}', make_timestamp({{0}}))"
    would = f"timezone('{zone}', make_timestamp({{0}} - {DAY})) + INTERVAL 24 HOUR"
    first = f"CASE WHEN timezone('{zone}', {would}) = make_timestamp({{0}}) THEN {would} ELSE {reads} END"
    return Step(
        pandas=pandas,
        polars=polars,
        duckdb=f"epoch_us({first})",
        spark=f"unix_micros(to_utc_timestamp(timestamp_micros({{}}), '{zone}'))",
    )


def instant(zone: str) -> Step:
    """Turn microseconds since 1970 into a time in `zone` (DuckDB and Spark show it in the session's zone)."""

    def pandas(series: pd.Series[Any]) -> pd.Series[Any]:
        stamps = series.to_numpy("int64", na_value=np.iinfo("int64").min).astype("datetime64[us]")
        return pd.Series(pd.DatetimeIndex(stamps).tz_localize("UTC").tz_convert(zone), index=series.index)

    def polars(column: Any) -> Any:  # noqa: ANN401
        import polars as pl  # noqa: PLC0415

        return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC").dt.convert_time_zone(zone)

    return Step(
        pandas=pandas,
        polars=polars,
        duckdb="make_timestamptz({})",
        spark="timestamp_micros({})",
    )


@dataclass(frozen=True)
class Windows:
    """Windows of equal name in a zone, such as each day: they cover all time and never overlap.

    Days and weeks are the wall clock's, from midnight to midnight (weeks from Monday), and so have 23 or 25
    hours where clocks change; several days or weeks are counted from 1970, so that a window does not depend on
    what else is in the frame. Hours and minutes are absolute, counted from the start of each local day.
    """

    step: int
    zone: str

    @classmethod
    def read(cls, freq: str, tz: str) -> Windows:
        """Read what a caller wrote.

        Parameters
        ----------
        freq
            ``"1h"``, ``"15min"``, ``"1D"``, ``"1W"``: a count (1 where left out) and a unit.
        tz
            An IANA zone.

        Returns
        -------
        Windows
            The windows.

        Raises
        ------
        ValueError
            Not such a text, a part of a day that does not fill days evenly, or no such zone.
        """
        zone = times.zone(tz).key
        match = re.fullmatch(r"([1-9][0-9]{0,5})?(min|h|D|W)", freq) if isinstance(freq, str) else None
        if match is None:
            raise ValueError(
                f"freq={freq!r} must be a count with min, h, D or W, such as '15min', '1h', '1D' or '1W'"
            )
        step = int(match[1] or 1) * _UNITS[match[2]]
        if match[2] in {"min", "h"} and (step >= DAY or DAY % step):
            raise ValueError(
                f"freq={freq!r} must fill a day evenly, such as '30min' or '6h'; whole days are written '1D'"
            )
        return cls(step=step, zone=zone)

    @property
    def _origin(self) -> int:
        return _FIRST_MONDAY if self.step % (7 * DAY) == 0 else 0

    @property
    def _by_wall_clock(self) -> bool:
        return self.zone != "UTC" and self.step >= DAY

    def label(self, frame: nw.LazyFrame[Any], source: str) -> nw.LazyFrame[Any]:
        """Add the integer column ``window``, to group by; `begin` turns it into a time."""
        at = nw.col("_at")
        if self._by_wall_clock:
            frame = add(frame, "_at", wall(self.zone), source)
            origin = nw.lit(self._origin)
        elif self.zone == "UTC":
            frame = add(frame, "_at", EPOCH, source)
            origin = nw.lit(self._origin)
        else:
            frame = add(add(frame, "_at", EPOCH, source), "_wall", wall(self.zone), source)
            frame = frame.with_columns((nw.col("_wall") - nw.col("_wall") % DAY).alias("_midnight"))
            frame = add(frame, "_day", first_instant(self.zone), "_midnight")
            origin = nw.col("_day")
        return frame.with_columns((at - (at - origin) % self.step).alias("window"))

    def begin(self, frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        """Turn the labels into the instants at which the windows begin."""
        if self._by_wall_clock:
            frame = (
                add(frame, "_begin", first_instant(self.zone), "window")
                .drop("window")
                .rename({"_begin": "window"})
            )
        return add(frame, "_begin", instant(self.zone), "window").drop("window").rename({"_begin": "window"})

    def between(self, first: int, last: int) -> list[int]:
        """List the labels from one to another, both included."""
        if self.zone == "UTC":
            return list(range(first, last + 1, self.step))
        begins = first_instant(self.zone).pandas
        if self._by_wall_clock:
            labels = pd.Series(range(first, last + 1, self.step), dtype="Int64")
            # A day that a zone left out (Samoa, 2011-12-30) begins when the next one does, and is none.
            return [int(label) for label in labels[~begins(labels).duplicated(keep="last")]]
        edges = pd.Series([first, last], dtype="Int64").astype("datetime64[us]").dt.tz_localize("UTC")
        from_, to = wall(self.zone).pandas(edges)
        days = pd.Series(range(from_ - from_ % DAY, to + 2 * DAY, DAY), dtype="Int64")
        starts = [int(start) for start in begins(days).drop_duplicates()]
        all_ = (at for start, end in itertools.pairwise(starts) for at in range(start, end, self.step))
        return [label for label in all_ if first <= label <= last]
