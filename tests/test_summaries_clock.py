"""Days begin when the wall clock says so, in every zone of the world, on every engine that takes part."""

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
#: Zones whose rules change so late that an engine's own list of zones may not know it yet.
SETTLED = np.datetime64("2026-01-01", "us").astype(int)
NIGHTS = [
    ("Africa/Cairo", "2014-05-16"), ("America/Havana", "2025-11-02"), ("America/Sao_Paulo", "2018-11-04"),
    ("America/Scoresbysund", "2022-10-30"), ("Asia/Amman", "2021-10-29"), ("Asia/Beirut", "2025-03-30"),
    ("Asia/Chita", "2014-10-26"), ("Atlantic/Azores", "2025-10-26"), ("Australia/Lord_Howe", "2025-10-05"),
    ("Pacific/Apia", "2011-12-31"), ("Africa/Casablanca", "2025-02-23"), ("Europe/Berlin", "2025-10-26"),
    ("UTC", "2025-06-15"),
]  # fmt: skip


def wall(instants: Any, zone: str) -> Any:  # noqa: ANN401 arrays of microseconds
    stamps = pd.Series(pd.DatetimeIndex(instants.astype("datetime64[us]")).tz_localize("UTC"))
    return dataframe_engines.wall_clock(zone).pandas(stamps).to_numpy("int64")


@pytest.mark.parametrize("part", range(4))
def test_the_first_instant_of_every_day_in_every_zone(part: int) -> None:
    """The clock reads the day's date there, read an earlier one a microsecond ago, and any time before."""
    days = DAYS.to_numpy("int64")
    for zone in sorted(zoneinfo.available_timezones() - {"localtime"})[part::4]:
        begins = dataframe_engines.first_instant(zone).pandas(DAYS).to_numpy("int64")
        assert (wall(begins, zone) >= days).all(), zone
        for before in (1, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR):
            assert (wall(begins - before, zone) < days).all(), zone


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_times_of_an_arrow_type_are_read_as_others(unit: Literal["s", "us", "ns"]) -> None:
    """As in the frames of Dask that `scan_runs` opens; an empty one too, which Dask asks for the dtypes."""
    plain = pd.to_datetime(pd.Series(["2026-06-14T20:00Z", None]), utc=True).dt.as_unit(unit)
    arrow = plain.astype(pd.ArrowDtype(pa.timestamp(unit, "UTC")))
    local = dataframe_engines.wall_clock("Asia/Shanghai").pandas
    pd.testing.assert_series_equal(local(arrow), local(plain))
    pd.testing.assert_series_equal(local(arrow[:0]), local(plain[:0]))
    assert local(arrow)[0] == pd.Timestamp("2026-06-15T04:00").value // 1000


@pytest.mark.parametrize("zone", [zone for zone, _ in NIGHTS])
def test_engines_agree_on_wall_clocks_and_days(zone: str) -> None:
    """Whatever the session's zone is, and on both sides of every change of the last years."""
    days = DAYS[DAYS < SETTLED].to_numpy("int64")
    expected = dataframe_engines.first_instant(zone).pandas(DAYS[DAYS < SETTLED]).to_numpy("int64")
    table = pa.table({"day": days, "at": pa.array(expected, pa.timestamp("us", "UTC"))})
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'America/New_York'")
        for native in (pl.DataFrame(table).lazy(), connection.from_arrow(table)):
            lazy = dataframe_engines.add_column(
                nw.from_native(native), "wall", dataframe_engines.wall_clock(zone), "at"
            )
            lazy = dataframe_engines.add_column(lazy, "begins", dataframe_engines.first_instant(zone), "day")
            lazy = dataframe_engines.add_column(lazy, "epoch", dataframe_engines.EPOCH, "at")
            got = (
                dataframe_engines.add_column(lazy, "again", dataframe_engines.instant(zone), "epoch")
                .collect("pyarrow")
                .to_native()
            )
            assert (got["begins"].to_numpy() == expected).all()
            assert (got["wall"].to_numpy() == wall(expected, zone)).all()
            assert (got["epoch"].to_numpy() == expected).all()
            assert got["again"].cast(pa.timestamp("us", "UTC")) == table["at"]
        assert connection.execute("SELECT current_setting('TimeZone')").fetchall() == [("America/New_York",)]


@pytest.mark.parametrize(("zone", "day"), NIGHTS)
@pytest.mark.parametrize("freq", ["1D", "1h", "6h", "15min", "1W"])
def test_windows_follow_each_other_without_gap_or_overlap(zone: str, day: str, freq: str) -> None:
    """Every instant lies in the window that the list of all windows says, on nights when clocks change."""
    windows = time_windows.Windows.parse(freq, zone)
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    times = pd.Series(
        pd.date_range(noon - timedelta(days=4), noon + timedelta(days=2), freq="10min").as_unit("us")
    )
    framed = windows.label(nw.from_native(pd.DataFrame({"at": times})).lazy(), "at")
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


def test_a_day_that_a_zone_left_out_is_no_window() -> None:
    """Samoa went from 29 to 31 December 2011."""
    windows = time_windows.Windows.parse("1D", "Pacific/Apia")
    labels = windows.between(*(int(np.datetime64(day, "us").astype(int)) for day in ("2011-12-28", "2012-01-01")))
    assert [str(np.datetime64(label, "us").astype("datetime64[D]")) for label in labels] == [
        "2011-12-28", "2011-12-29", "2011-12-31", "2012-01-01",
    ]  # fmt: skip
