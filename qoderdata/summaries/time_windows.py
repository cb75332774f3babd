"""Windows of time in a zone, such as each day, and periods before an end, on every dataframe engine."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import narwhals as nw
import numpy as np
import pandas as pd

from qoderdata.parsing import (
    DAY_MICROS,
    FIRST_MONDAY_MICROS,
    MICROSECOND,
    MINUTE_MICROS,
    WEEK_MICROS,
    Instant,
    Span,
    pandas_zone,
    parse_bound,
    parse_span,
    parse_window,
    parse_zone,
    require_few_windows,
    to_micros,
)
from qoderdata.summaries.dataframe_engines import EPOCH, add_column, first_instant, instant, wall_clock

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


@dataclass(frozen=True)
class Windows:
    """Windows that cover all time and never overlap.

    Days and weeks are those of the wall clock, from midnight to midnight (weeks from Monday), so they have 23 or
    25 hours where clocks change; several days or weeks are counted from 1970, so that a window does not depend on
    the frame. Hours and minutes are absolute, counted from the start of each local day.
    """

    #: The length in microseconds.
    step: int
    #: The IANA zone.
    zone: str

    @classmethod
    def parse(cls, freq: str, tz: str) -> Windows:
        """Parse the parameters `freq` and `tz` of a summary."""
        zone = parse_zone(tz).key
        return cls(step=parse_window(freq) // MICROSECOND, zone=zone)

    @property
    def _origin(self) -> int:
        return FIRST_MONDAY_MICROS if self.step % WEEK_MICROS == 0 else 0

    @property
    def _by_wall_clock(self) -> bool:
        return self.zone != "UTC" and self.step >= DAY_MICROS

    def label(self, frame: nw.LazyFrame[Any], source: str) -> nw.LazyFrame[Any]:
        """Add the integer column ``window``, to group by; `begin` turns it into a time."""
        at = nw.col("_at")
        if self._by_wall_clock:
            frame = add_column(frame, "_at", wall_clock(self.zone), source)
            origin = nw.lit(self._origin)
        elif self.zone == "UTC":
            frame = add_column(frame, "_at", EPOCH, source)
            origin = nw.lit(self._origin)
        else:
            frame = add_column(add_column(frame, "_at", EPOCH, source), "_wall", wall_clock(self.zone), source)
            frame = frame.with_columns((nw.col("_wall") - nw.col("_wall") % DAY_MICROS).alias("_midnight"))
            frame = add_column(frame, "_day", first_instant(self.zone), "_midnight")
            origin = nw.col("_day")
        return frame.with_columns((at - (at - origin) % self.step).alias("window"))

    def begin(self, frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        """Replace the labels by the instants at which the windows begin."""
        if self._by_wall_clock:
            frame = (
                add_column(frame, "_begin", first_instant(self.zone), "window")
                .drop("window")
                .rename({"_begin": "window"})
            )
        return (
            add_column(frame, "_begin", instant(self.zone), "window").drop("window").rename({"_begin": "window"})
        )

    def labels(self, rows: nw.LazyFrame[Any], column: str) -> list[int]:
        """Return the labels of all windows from that of the first row to that of the last."""
        label = nw.col("window")
        known = rows.filter(~label.is_null())
        ends = known.select(label.min().alias("first"), label.max().alias("last")).collect()
        first, last = ends["first"].to_list() + ends["last"].to_list()
        return [] if pd.isna(first) else self.between(int(first), int(last), column=column)

    def with_empty(
        self,
        frame: nw.LazyFrame[Any],
        grouping: Sequence[str],
        labels: Sequence[int],
        *,
        sums: Sequence[str],
        names: Collection[str] = (),
        column: str,
    ) -> nw.LazyFrame[Any]:
        """Return a row for every group and window: the `sums` of new ones are 0, their other columns missing.

        Rows are added and grouped again, as a join would lose groups without a key. `names` are those of groups.
        """
        counted = frame.collect()
        keys = [key for key in grouping if key != "window"]
        named = [nw.col(name).max() for name in names]
        groups = counted.group_by(*keys).agg(*named) if named else counted.select(*keys).unique()
        require_few_windows(labels[0], labels[-1], self.step, column=column, groups=len(groups))
        all_windows = nw.from_dict({"window": list(labels)}, backend=counted.implementation)
        others = [name for name in counted.columns if name not in {*grouping, *sums}]
        missing = [name for name in others if name not in names]
        empty = groups.join(all_windows, how="cross").with_columns(
            *(nw.lit(0, dtype=counted.schema[name]).alias(name) for name in sums),
            *(nw.lit(None, dtype=counted.schema[name]).alias(name) for name in missing),
        )
        both = nw.concat([counted, empty.select(*counted.columns)])
        return both.group_by(*grouping).agg(nw.col(*sums).sum(), *(nw.col(name).max() for name in others)).lazy()

    def between(self, first: int, last: int, *, column: str = "triggered_at") -> list[int]:
        """Return all labels from one to another, both included; raise where they are too many."""
        require_few_windows(first, last, self.step, column=column)
        if self.zone == "UTC":
            return list(range(first, last + 1, self.step))
        try:
            return self._between_in_zone(first, last)
        except NotImplementedError:
            # pandas knows no zone's clock in the year 10000.
            message = f"{column} reaches to the end of the year 9999, where there are no windows in {self.zone}"
        raise ValueError(f"{message}; leave its row out, as in frame[frame[{column!r}] < '2100-01-01T00:00Z']")

    def _between_in_zone(self, first: int, last: int) -> list[int]:
        begins = first_instant(self.zone).pandas
        if self._by_wall_clock:
            labels = pd.Series(np.arange(first, last + 1, self.step)).astype("Int64")
            # A day that a zone skipped (Samoa, 2011-12-30) begins when the next one does, and is no window.
            return [int(label) for label in labels[~begins(labels).duplicated(keep="last")]]
        edges = pd.Series([first, last], dtype="Int64").astype("datetime64[us]").dt.tz_localize("UTC")
        from_, to = wall_clock(self.zone).pandas(edges)
        days = pd.Series(np.arange(from_ - from_ % DAY_MICROS, to + 2 * DAY_MICROS, DAY_MICROS)).astype("Int64")
        starts = [int(start) for start in begins(days).drop_duplicates()]
        all_ = (at for start, end in itertools.pairwise(starts) for at in range(start, end, self.step))
        return [label for label in all_ if first <= label <= last]


def parse_micros(value: Span, *, name: str) -> int:
    """Parse a length of time above 0, in microseconds."""
    length = parse_span(value, name=name)
    if length <= timedelta(0):
        raise ValueError(f"{name}={value!r} must be longer than nothing, such as '3D'")
    return length // MICROSECOND


def with_age(rows: nw.LazyFrame[Any], until: Instant | Span | None) -> nw.LazyFrame[Any]:
    """Add the time from ``_at`` to `until` as ``_age``, both in microseconds; it is above 0 before `until`.

    Without `until` the end is that of the minute of the newest time in the whole frame.
    """
    at = nw.col("_at")
    if until is not None:
        bound = parse_bound(until, now=datetime.now(UTC), name="until").to_pydatetime()
        return rows.with_columns((to_micros(bound) - at).alias("_age"))
    newest = at.max()
    return rows.with_columns((newest - newest % MINUTE_MICROS + MINUTE_MICROS - at).alias("_age"))


def local_midnight(time: pd.Timestamp, tz: str, *, days: int = 0) -> pd.Timestamp:
    """Return the first instant of the local day of a time, or of the day so many days later.

    Examples
    --------
    >>> local_midnight(pd.Timestamp("2026-04-24T10:00Z"), "Africa/Cairo").isoformat()  # clocks skip midnight
    '2026-04-24T01:00:00+03:00'
    """
    wall = wall_clock(tz).pandas(pd.Series([time]))
    midnight = first_instant(tz).pandas(wall - wall % DAY_MICROS + days * DAY_MICROS)
    return pd.Timestamp(midnight.item(), unit="us", tz=pandas_zone(tz))
