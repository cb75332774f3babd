"""Assign times to windows in a zone, such as days, and compute ages before an end, on every dataframe engine."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import narwhals as nw
import pandas as pd

from qoderdata.arguments import Instant, Span, pandas_zone, parse_bound, parse_span, parse_window, parse_zone
from qoderdata.summaries.dataframe_engines import EPOCH, add_column, first_instant, instant, wall_clock
from qoderdata.time_math import (
    DAY_MICROS,
    MICROSECOND,
    MINUTE_MICROS,
    list_windows,
    no_windows_error,
    require_few_windows,
    to_micros,
    window_origin,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qoderdata.summaries.dataframe_engines import Source


@dataclass(frozen=True)
class Windows:
    """Windows that cover all time and never overlap.

    Days and weeks are those of the wall clock, from midnight to midnight (weeks from Monday), so that a day has 23
    or 25 hours when clocks change. Windows of several days or weeks are counted from 1970, so that they do not
    depend on the frame. Hours and minutes are real ones, counted from the start of each local day.
    """

    #: The length in microseconds.
    step: int
    #: The IANA zone.
    zone: str
    #: The column of times.
    column: str

    @classmethod
    def parse(cls, freq: str, tz: str, column: str) -> Windows:
        """Parse the parameters `freq` and `tz` of a summary."""
        zone = parse_zone(tz).key
        return cls(step=parse_window(freq) // MICROSECOND, zone=zone, column=column)

    @property
    def _by_wall_clock(self) -> bool:
        return self.zone != "UTC" and self.step >= DAY_MICROS

    def label(self, frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        """Add the integer column ``window``, to group by; `begin` converts it to a time.

        Raise `ValueError` for times at the ends of the calendar, for which pandas has no wall clock.
        """
        at, origin = nw.col("_at"), nw.lit(window_origin(self.step))
        try:
            frame = add_column(frame, "_at", wall_clock(self.zone) if self._by_wall_clock else EPOCH, self.column)
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
        labels, grouping = self.between(int(first), int(last)), source.grouping
        named = [nw.col(name).max() for name in source.names]
        groups = counted.group_by(*grouping).agg(*named) if named else counted.select(*grouping).unique()
        require_few_windows(labels[0], labels[-1], self.step, column=self.column, groups=len(groups))
        all_windows = nw.from_dict({"window": labels}, backend=counted.implementation)
        others = [name for name in counted.columns if name not in {*grouping, "window", *sums}]
        zeros = (nw.lit(0, dtype=counted.schema[name]).alias(name) for name in sums)
        empty = groups.join(all_windows, how="cross").with_columns(*zeros)
        both = nw.concat([counted, empty], how="diagonal")
        return (
            both.group_by(*grouping, "window")
            .agg(nw.col(*sums).sum(), *(nw.col(name).max() for name in others))
            .lazy()
        )

    def between(self, first: int, last: int) -> list[int]:
        """Return all labels from one to another, both included; raise `ValueError` if they are too many."""
        return [*list_windows(first, last, self.step, pandas_zone(self.zone), column=self.column).values()]


def parse_micros(value: Span, *, name: str) -> int:
    """Parse a length of time above 0; return microseconds."""
    length = parse_span(value, name=name)
    if length <= timedelta(0):
        raise ValueError(f"{name}={value!r} must be longer than nothing, such as '3D'")
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
