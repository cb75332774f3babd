"""Windows of time in a zone, such as each day, on every dataframe engine."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from qoderdata.parsing import parse_window, parse_zone, require_few_windows
from qoderdata.summaries.dataframe_engines import EPOCH, add_column, first_instant, instant, wall_clock

_MICROSECOND = timedelta(microseconds=1)
_DAY = timedelta(days=1) // _MICROSECOND
_FIRST_MONDAY = 4 * _DAY  # 1970-01-05


@dataclass(frozen=True)
class Windows:
    """Windows that cover all time and never overlap.

    Days and weeks are those of the wall clock, from midnight to midnight (weeks from Monday), so they have 23 or
    25 hours where clocks change; several days or weeks are counted from 1970, so that a window does not depend on
    the frame. Hours and minutes are absolute, counted from the start of each local day.

    Attributes
    ----------
    step : int
        The length in microseconds.
    zone : str
        The IANA zone.
    """

    step: int
    zone: str

    @classmethod
    def parse(cls, freq: str, tz: str) -> Windows:
        """Parse the parameters `freq` and `tz` of a summary."""
        zone = parse_zone(tz).key
        return cls(step=parse_window(freq) // _MICROSECOND, zone=zone)

    @property
    def _origin(self) -> int:
        return _FIRST_MONDAY if self.step % (7 * _DAY) == 0 else 0

    @property
    def _by_wall_clock(self) -> bool:
        return self.zone != "UTC" and self.step >= _DAY

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
            frame = frame.with_columns((nw.col("_wall") - nw.col("_wall") % _DAY).alias("_midnight"))
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

    def between(self, first: int, last: int) -> list[int]:
        """Return all labels from one to another, both included; raise where they are too many."""
        require_few_windows(first, last, self.step, column="triggered_at")
        if self.zone == "UTC":
            return list(range(first, last + 1, self.step))
        try:
            return self._between_in_zone(first, last)
        except NotImplementedError:
            # pandas knows no zone's clock in the year 10000.
            message = (
                f"triggered_at reaches to the end of the year 9999, where there are no windows in {self.zone}"
            )
        raise ValueError(f"{message}; leave its row out, as in frame[frame['triggered_at'] < '2100-01-01T00:00Z']")

    def _between_in_zone(self, first: int, last: int) -> list[int]:
        begins = first_instant(self.zone).pandas
        if self._by_wall_clock:
            labels = pd.Series(np.arange(first, last + 1, self.step)).astype("Int64")
            # A day that a zone skipped (Samoa, 2011-12-30) begins when the next one does, and is no window.
            return [int(label) for label in labels[~begins(labels).duplicated(keep="last")]]
        edges = pd.Series([first, last], dtype="Int64").astype("datetime64[us]").dt.tz_localize("UTC")
        from_, to = wall_clock(self.zone).pandas(edges)
        days = pd.Series(np.arange(from_ - from_ % _DAY, to + 2 * _DAY, _DAY)).astype("Int64")
        starts = [int(start) for start in begins(days).drop_duplicates()]
        all_ = (at for start, end in itertools.pairwise(starts) for at in range(start, end, self.step))
        return [label for label in all_ if first <= label <= last]
