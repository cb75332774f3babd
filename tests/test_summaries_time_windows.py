"""Tests of `summaries.time_windows` and of the wall clock of each dataframe engine, in all time zones."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import duckdb
import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from qoderdata.summaries import dataframe_engines, time_windows

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAYS = pd.Series(
    np.arange(
        np.datetime64("2009-01-01", "us").astype(int), np.datetime64("2034-01-01", "us").astype(int), 24 * HOUR
    ),
    dtype="Int64",
)
#: Engines are compared up to this day only: their own time zone data may lack later rule changes.
COMPARED_UNTIL = np.datetime64("2026-01-01", "us").astype(int)
CLOCK_CHANGES = [
    ("Africa/Cairo", "2014-05-16"), ("America/Havana", "2025-11-02"), ("America/Sao_Paulo", "2018-11-04"),
    ("America/Scoresbysund", "2022-10-30"), ("Asia/Amman", "2021-10-29"), ("Asia/Beirut", "2025-03-30"),
    ("Asia/Chita", "2014-10-26"), ("Atlantic/Azores", "2025-10-26"), ("Australia/Lord_Howe", "2025-10-05"),
    ("Pacific/Apia", "2011-12-31"), ("Africa/Casablanca", "2025-02-23"), ("Europe/Berlin", "2025-10-26"),
    ("UTC", "2025-06-15"),
]  # fmt: skip


def local_micros(instants: Any, zone: str) -> Any:  # noqa: ANN401 arrays of microseconds
    stamps = pd.Series(pd.DatetimeIndex(instants.astype("datetime64[us]")).tz_localize("UTC"))
    return time_windows.wall_clock(zone).pandas(stamps).to_numpy("int64")


@pytest.mark.parametrize("part", range(4))
def test_first_instant_of_each_day_in_each_zone(part: int) -> None:
    """From that instant on local time is on the day or later; up to 3 h before, it is on an earlier day."""
    days = DAYS.to_numpy("int64")
    for zone in sorted(zoneinfo.available_timezones() - {"localtime"})[part::4]:
        begins = time_windows.first_instant(zone).pandas(DAYS).to_numpy("int64")
        assert (local_micros(begins, zone) >= days).all(), zone
        for before in (1, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR):
            assert (local_micros(begins - before, zone) < days).all(), zone


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_wall_clock_reads_arrow_timestamps_like_numpy_ones(unit: Literal["s", "us", "ns"]) -> None:
    """Dask frames of `scan_runs` have such columns; Dask infers dtypes from an empty one."""
    plain = pd.to_datetime(pd.Series(["2026-06-14T20:00Z", None]), utc=True).dt.as_unit(unit)
    arrow = plain.astype(pd.ArrowDtype(pa.timestamp(unit, "UTC")))
    local = time_windows.wall_clock("Asia/Shanghai").pandas
    pd.testing.assert_series_equal(local(arrow), local(plain))
    pd.testing.assert_series_equal(local(arrow[:0]), local(plain[:0]))
    assert local(arrow)[0] == pd.Timestamp("2026-06-15T04:00").value // 1000


@pytest.mark.parametrize("zone", [zone for zone, _ in CLOCK_CHANGES])
def test_polars_and_duckdb_have_the_wall_clock_and_days_of_pandas(zone: str) -> None:
    """The time zone of the DuckDB session does not matter."""
    days = DAYS[DAYS < COMPARED_UNTIL].to_numpy("int64")
    expected = time_windows.first_instant(zone).pandas(DAYS[DAYS < COMPARED_UNTIL]).to_numpy("int64")
    table = pa.table({"day": days, "at": pa.array(expected, pa.timestamp("us", "UTC"))})
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'America/New_York'")
        for native in (pl.DataFrame(table).lazy(), connection.from_arrow(table)):
            lazy = dataframe_engines.add_column(
                nw.from_native(native), "wall", time_windows.wall_clock(zone), "at"
            )
            lazy = dataframe_engines.add_column(lazy, "begins", time_windows.first_instant(zone), "day")
            lazy = dataframe_engines.add_column(lazy, "epoch", time_windows.EPOCH, "at")
            got = (
                dataframe_engines.add_column(lazy, "again", time_windows.instant(zone), "epoch")
                .collect("pyarrow")
                .to_native()
            )
            assert (got["begins"].to_numpy() == expected).all()
            assert (got["wall"].to_numpy() == local_micros(expected, zone)).all()
            assert (got["epoch"].to_numpy() == expected).all()
            assert got["again"].cast(pa.timestamp("us", "UTC")) == table["at"]
        assert connection.execute("SELECT current_setting('TimeZone')").fetchall() == [("America/New_York",)]


@pytest.mark.parametrize(("zone", "day"), CLOCK_CHANGES)
@pytest.mark.parametrize("freq", ["1D", "1h", "6h", "15min", "1W", "1M"])
def test_windows_have_no_gap_and_no_overlap_at_clock_changes(zone: str, day: str, freq: str) -> None:
    """Each time is in the last listed window that begins at or before it."""
    windows = time_windows.Windows.parse(freq, zone, "at")
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    times = pd.Series(
        pd.date_range(noon - timedelta(days=4), noon + timedelta(days=2), freq="10min").as_unit("us")
    )
    framed = windows.label(nw.from_native(pd.DataFrame({"at": times})).lazy())
    label = framed.to_native()["window"].astype("int64")
    begins = windows.begin(framed).to_native()["window"]
    assert str(begins.dtype) == f"datetime64[us, {zone}]"
    every = windows.between(int(label.min()), int(label.max()))
    assert sorted(set(label)) == every
    listed = windows.begin(nw.from_native(pd.DataFrame({"window": every})).lazy()).to_native()["window"]
    assert listed.is_monotonic_increasing
    last = np.searchsorted(listed, times, side="right") - 1
    assert last.min() == 0
    assert begins.tolist() == listed.iloc[last].tolist()


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/Havana"])
def test_months_are_those_of_the_wall_clock_on_each_engine(zone: str) -> None:
    """In Kathmandu, 1986 began at 00:15, and in Havana the first hour of 1 November 2020 came twice."""
    months = [
        datetime(year, month, 1, tzinfo=ZoneInfo(zone)) for year in range(1900, 2026) for month in range(1, 13)
    ]
    begins = pd.DatetimeIndex([month.astimezone(UTC) for month in months]).as_unit("us")
    times = pd.Series(begins.union(begins[1:] - pd.Timedelta("1us")).union(begins + pd.Timedelta("20D")))
    expected = begins[np.searchsorted(begins, times, side="right") - 1].tolist()
    windows = time_windows.Windows.parse("1M", zone, "at")
    table = pa.table({"at": pa.array(times, pa.timestamp("us", "UTC"))})
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'America/New_York'")
        for native in (pd.DataFrame({"at": times}), pl.DataFrame(table).lazy(), connection.from_arrow(table)):
            framed = windows.begin(windows.label(nw.from_native(native).lazy())).select("at", "window")
            rows = framed.collect("pyarrow").to_native().sort_by("at").to_pandas()
            assert rows["window"].dt.tz_convert("UTC").tolist() == expected
    labels = windows.label(nw.from_native(pd.DataFrame({"at": times})).lazy()).to_native()["window"]
    assert windows.between(labels.min(), labels.max()) == sorted(set(labels))


def test_a_day_that_a_zone_skipped_has_no_window() -> None:
    """Samoa skipped 30 December 2011."""
    windows = time_windows.Windows.parse("1D", "Pacific/Apia", "at")
    labels = windows.between(*(int(np.datetime64(day, "us").astype(int)) for day in ("2011-12-28", "2012-01-01")))
    assert [str(np.datetime64(label, "us").astype("datetime64[D]")) for label in labels] == [
        "2011-12-28", "2011-12-29", "2011-12-31", "2012-01-01",
    ]  # fmt: skip
