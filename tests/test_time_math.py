"""Tests of `qoderdata.time_math`: microseconds, differences of times, and windows of time."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoderdata import time_math
from qoderdata.time_math import DAY_MICROS, HOUR_MICROS, MINUTE_MICROS, to_micros

FROM, TO = datetime.fromisoformat("2015-01-01"), datetime.fromisoformat("2026-01-01")
ZONES = ["UTC", "Asia/Shanghai", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "America/Sao_Paulo"]


def in_zone(wall: pd.DatetimeIndex, zone: str) -> pd.DatetimeIndex:
    """Return the instants of wall-clock times: the first of two, or the clock change that skips the time."""
    return wall.tz_localize(zone, nonexistent="shift_forward", ambiguous=np.ones(len(wall), bool)).tz_convert(
        "UTC"
    )


@given(time=st.datetimes(timezones=st.just(UTC)))
def test_microseconds_are_exact_in_both_directions(time: datetime) -> None:
    micros = to_micros(time)
    assert time_math.from_micros(micros) == time
    assert micros == np.datetime64(time.replace(tzinfo=None), "us").astype(int)


@given(time=st.datetimes(timezones=st.just(UTC)), span=st.timedeltas(min_value=timedelta(0)))
def test_earlier_is_the_difference_unless_that_is_before_year_1(time: datetime, span: timedelta) -> None:
    first = datetime.min.replace(tzinfo=UTC)
    assert time_math.earlier(time, span) == (time - span if span <= time - first else first)


@given(
    first=st.datetimes(FROM, TO, timezones=st.just(UTC)),
    length=st.sampled_from([timedelta(minutes=20), timedelta(hours=1), timedelta(hours=6)]),
    zone=st.sampled_from(ZONES),
    days=st.integers(0, 300),
)
def test_windows_of_a_part_of_a_day_start_again_at_each_local_midnight(
    first: datetime, length: timedelta, zone: str, days: int
) -> None:
    last = first + timedelta(days=days)
    micros = length // time_math.MICROSECOND
    begins = time_math.list_windows(to_micros(first), to_micros(last), micros, ZoneInfo(zone), column="t")
    local = pd.date_range(
        pd.Timestamp(first).tz_convert(zone).tz_localize(None).normalize(),
        pd.Timestamp(last).tz_convert(zone).tz_localize(None).normalize() + pd.Timedelta("1D"),
        freq="1D",
    )
    midnights = in_zone(local, zone).as_unit("us").asi8.tolist()
    expected = [time for start, end in pairwise(midnights) for time in range(start, end, micros)]
    # The first window is the last one that begins before the first time, or at it.
    expected = expected[bisect_right(expected, to_micros(first)) - 1 : bisect_right(expected, to_micros(last))]
    assert list(begins) == expected


@given(first=st.datetimes(FROM, TO), weeks=st.booleans(), days=st.integers(0, 500))
def test_windows_of_whole_days_are_labelled_by_the_wall_clock(first: datetime, days: int, *, weeks: bool) -> None:
    last = first + timedelta(days=days)
    length, zone = (7 if weeks else 1) * DAY_MICROS, ZoneInfo("America/Sao_Paulo")
    windows = time_math.list_windows(
        to_micros(first.replace(tzinfo=UTC)), to_micros(last.replace(tzinfo=UTC)), length, zone, column="t"
    )
    labels = pd.period_range(first, last, freq="W-SUN" if weeks else "D").start_time
    assert list(pd.to_datetime(list(windows.values()), unit="us")) == list(labels)
    begins = in_zone(labels, zone.key)
    assert list(pd.to_datetime(list(windows), unit="us", utc=True)) == list(begins)


def test_day_that_a_zone_skipped_is_no_window() -> None:
    start = to_micros(datetime(2011, 12, 29, tzinfo=UTC))
    windows = time_math.list_windows(
        start, start + 2 * DAY_MICROS, DAY_MICROS, ZoneInfo("Pacific/Apia"), column="t"
    )
    assert [time_math.from_micros(label).day for label in windows.values()] == [29, 31]


def test_a_time_late_on_the_last_day_of_a_month_is_in_that_month() -> None:
    time = to_micros(datetime(2026, 1, 31, 18, tzinfo=UTC))
    windows = time_math.list_windows(time, time, None, UTC, column="t")
    assert list(windows) == [to_micros(datetime(2026, 1, 1, tzinfo=UTC))]


@pytest.mark.parametrize("length", [7 * HOUR_MICROS, DAY_MICROS])
def test_the_last_window_is_that_of_the_last_time(length: int) -> None:
    for last in (DAY_MICROS - 1, DAY_MICROS):
        windows = time_math.list_windows(0, last, length, UTC, column="t")
        expected = [*range(0, DAY_MICROS, length), *([DAY_MICROS] if last == DAY_MICROS else [])]
        assert list(windows) == expected
    assert list(time_math.list_windows(0, length - 1, length, UTC, column="t")) == [0]


def test_too_many_windows_are_refused() -> None:
    time_math.require_few_windows(0, 694 * DAY_MICROS, MINUTE_MICROS, column="t")
    with pytest.raises(
        ValueError, match=r"t reaches from 1970-01-01T00:00Z to 1971-11-27T00:00Z.*1,000,801 windows, too"
    ):
        time_math.require_few_windows(0, 695 * DAY_MICROS, MINUTE_MICROS, column="t")
    most = (time_math.MAX_WINDOWS - 1) * MINUTE_MICROS
    time_math.require_few_windows(0, most, MINUTE_MICROS, column="t", groups=10)
    with pytest.raises(ValueError, match="1,000,001 windows"):
        time_math.require_few_windows(0, most + MINUTE_MICROS, MINUTE_MICROS, column="t")
    with pytest.raises(ValueError, match="windows for each of 11 groups"):
        time_math.list_windows(0, most, MINUTE_MICROS, UTC, column="t", groups=11)


@pytest.mark.parametrize("year", [1, 9999])
def test_windows_at_an_end_of_the_calendar_are_refused(year: int) -> None:
    time = to_micros(datetime(year, *((1, 1, 0) if year == 1 else (12, 31, 23)), tzinfo=UTC))
    zone = ZoneInfo("America/St_Johns" if year == 1 else "Asia/Shanghai")
    with pytest.raises(ValueError, match=rf"t reaches to an end of the years 1 to 9999.*windows in {zone.key}"):
        time_math.list_windows(time, time, HOUR_MICROS, zone, column="t")
