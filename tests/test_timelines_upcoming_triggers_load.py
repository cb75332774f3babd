"""Tests of `trigger_load`: windows, empty windows, and clock changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoderdata.frames import flatten_deployments
from qoderdata.timelines import next_triggers, trigger_load

COUNTS = ["triggers", "deployments", "at_minute_0"]
ZONES = sorted(available_timezones() - {"localtime", "Factory"})


def triggers(tz: str, *rows: tuple[str, str]) -> pd.DataFrame:
    """Build a triggers frame from (time, deployment)."""
    instants = [datetime.fromisoformat(time).astimezone(UTC).replace(tzinfo=None) for time, _ in rows]
    times = pd.DatetimeIndex(np.array(instants, "datetime64[us]")).tz_localize("UTC").tz_convert(tz)
    return pd.DataFrame({"trigger_at": times, "deployment_id": [id_ for _, id_ in rows]})


def half_hourly(tz: str, first: str, last: str) -> pd.DataFrame:
    """Build a triggers frame with a trigger every 30 minutes."""
    times = pd.date_range(first, last, freq="30min", tz="UTC", unit="us").tz_convert(tz)
    return pd.DataFrame({"trigger_at": times, "deployment_id": "dep_1"})


def test_empty_windows_have_rows() -> None:
    frame = triggers(
        "UTC",
        ("2026-06-15T09:00:00Z", "dep_1"), ("2026-06-15T09:00:59Z", "dep_2"), ("2026-06-15T09:01:00Z", "dep_2"),
        ("2026-06-15T09:59:59.999999Z", "dep_1"), ("2026-06-15T12:00:00Z", "dep_3"),
    )  # fmt: skip
    load = trigger_load(frame)
    assert [str(window) for window in load["window"]] == [
        f"2026-06-15 {hour:02d}:00:00+00:00" for hour in (9, 10, 11, 12)
    ]
    assert load[COUNTS].to_numpy().tolist() == [[4, 2, 2], [0, 0, 0], [0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    ("tz", "first", "last", "freq", "expected"),
    [
        ("Europe/Berlin", "2026-03-28T23:00", "2026-03-29T21:59", "1D", {"2026-03-29T00:00+01:00": 46}),
        ("Europe/Berlin", "2026-10-24T22:00", "2026-10-25T22:59", "1D", {"2026-10-25T00:00+02:00": 50}),
        ("Europe/Berlin", "2026-10-25T00:00", "2026-10-25T01:59", "1h",
         {"2026-10-25T02:00+02:00": 2, "2026-10-25T02:00+01:00": 2}),
        ("Europe/Berlin", "2026-03-29T00:00", "2026-03-29T01:59", "1h",
         {"2026-03-29T01:00+01:00": 2, "2026-03-29T03:00+02:00": 2}),
        ("America/Santiago", "2026-09-06T03:00", "2026-09-07T03:00", "1D",
         {"2026-09-05T00:00-04:00": 2, "2026-09-06T01:00-03:00": 46, "2026-09-07T00:00-03:00": 1}),
        ("Asia/Kolkata", "2026-06-15T00:00", "2026-06-15T01:00", "1h",
         {"2026-06-15T05:00+05:30": 1, "2026-06-15T06:00+05:30": 2}),
        ("Pacific/Apia", "2011-12-30T09:00", "2011-12-30T10:30", "1D",
         {"2011-12-29T00:00-10:00": 2, "2011-12-31T00:00+14:00": 2}),
        ("UTC", "2026-06-14T23:00", "2026-06-15T00:59", "1W",
         {"2026-06-08T00:00+00:00": 2, "2026-06-15T00:00+00:00": 2}),
        ("Asia/Shanghai", "2026-06-14T15:00", "2026-06-14T16:59", "W",
         {"2026-06-08T00:00+08:00": 2, "2026-06-15T00:00+08:00": 2}),
        ("UTC", "2026-06-15T00:00", "2026-06-15T00:59", "15min",
         {"2026-06-15T00:00+00:00": 1, "2026-06-15T00:15+00:00": 0, "2026-06-15T00:30+00:00": 1}),
        ("America/Santiago", "2026-04-05T02:00", "2026-04-05T04:00", "1D",
         {"2026-04-04T00:00-03:00": 4, "2026-04-05T00:00-04:00": 1}),
        ("America/New_York", "2026-11-01T03:30", "2026-11-01T10:30", "6h",
         {"2026-10-31T18:00-04:00": 1, "2026-11-01T00:00-04:00": 12, "2026-11-01T05:00-05:00": 2}),
    ],
    ids=["day of 23 hours", "day of 25 hours", "repeated hour", "skipped hour", "day without midnight",
         "zone with half-hour offset", "skipped day", "weeks begin on Monday", "weeks begin on local Monday",
         "15 minutes", "repeated evening", "6-hour windows from local midnight"],
)  # fmt: skip
def test_windows_around_clock_changes(tz: str, first: str, last: str, freq: str, expected: dict[str, int]) -> None:
    load = trigger_load(half_hourly(tz, first, last), freq)
    found = {
        f"{window:%Y-%m-%dT%H:%M}{window:%z}": count
        for window, count in zip(load["window"], load["triggers"], strict=True)
    }
    assert found == {
        window.replace(window[-6:], window[-6:].replace(":", "")): n for window, n in expected.items()
    }


def test_at_minute_0_uses_local_time() -> None:
    frame = triggers("Asia/Kolkata", ("2026-06-15T00:30:00Z", "dep_1"), ("2026-06-15T01:00:00Z", "dep_1"))
    assert trigger_load(frame, "1D")["at_minute_0"].tolist() == [1]


@pytest.mark.parametrize("tz", ["UTC", "Asia/Shanghai"])
@pytest.mark.parametrize("freq", ["1h", "1D", "1W", "15min"])
def test_columns_and_dtypes_with_and_without_rows(tz: str, freq: str) -> None:
    full = trigger_load(triggers(tz, ("2026-06-15T09:00Z", "dep_1")), freq)
    empty = trigger_load(triggers(tz), freq)
    assert len(full) == 1
    assert empty.empty
    assert list(empty.columns) == ["window", *COUNTS]
    assert dict(empty.dtypes) == dict(full.dtypes)
    assert full["window"].dtype == f"datetime64[us, {tz}]"
    assert all(full[name].dtype == "int64" for name in COUNTS)


def test_trigger_load_accepts_results_of_next_triggers() -> None:
    record = {
        "id": "dep_1", "status": "active",
        "schedule": {"expression": "0 */6 * * *", "timezone": "Asia/Shanghai"},
    }  # fmt: skip
    df = flatten_deployments([record])
    for frame in (df, df.iloc[:0]):
        fired = next_triggers(frame, "2D", start="2026-06-15T00:00Z", tz="Asia/Shanghai")
        load = trigger_load(fired, "1D")
        assert load["triggers"].sum() == len(fired)
        assert load["window"].dtype == fired["trigger_at"].dtype


def test_windows_after_2037_follow_dst() -> None:
    """Before version 3, pandas turned zone names into pytz zones, which know no DST after 2037."""
    df = flatten_deployments(
        [
            {
                "id": "dep_1",
                "created_at": "2026-06-15T00:00:00Z",
                "status": "active",
                "schedule": {"type": "cron", "expression": "0 12 * * *", "timezone": "Europe/Berlin"},
            }
        ]
    )
    found = next_triggers(df, "1D", start="2050-07-01T00:00Z", tz="Europe/Berlin")
    assert [time.isoformat() for time in found["trigger_at"]] == ["2050-07-01T12:00:00+02:00"]
    assert found["trigger_at"].dtype == pd.DatetimeTZDtype("us", ZoneInfo("Europe/Berlin"))
    assert [time.isoformat() for time in trigger_load(found, "1D")["window"]] == ["2050-07-01T00:00:00+02:00"]
    by_name = found.assign(trigger_at=found["trigger_at"].dt.tz_convert("UTC").dt.tz_convert("Asia/Shanghai"))
    assert [time.isoformat() for time in trigger_load(by_name)["window"]] == ["2050-07-01T18:00:00+08:00"]


def test_all_weeks_up_to_year_9999_have_rows() -> None:
    load = trigger_load(triggers("UTC", ("2026-01-01T00:00Z", "dep_1"), ("9999-12-31T23:00Z", "dep_1")), "1W")
    assert load["window"].is_monotonic_increasing
    assert load["window"].diff().dropna().eq(pd.Timedelta("7D")).all()
    assert load["triggers"].iloc[[0, -1]].tolist() == [1, 1]
    assert load["triggers"].sum() == 2


def test_windows_on_the_last_day_of_year_9999() -> None:
    last = triggers("UTC", ("9999-12-31T22:00Z", "dep_1"), ("9999-12-31T23:30Z", "dep_1"))
    assert trigger_load(last)["triggers"].tolist() == [1, 1]
    shanghai = last.assign(trigger_at=last["trigger_at"].dt.tz_convert(ZoneInfo("Asia/Shanghai")))
    with pytest.raises(ValueError, match=r"trigger_at reaches to an end of the years .*\nLeave its row out"):
        trigger_load(shanghai)


def test_missing_times_are_ignored() -> None:
    frame = triggers("UTC", ("2026-06-15T09:00Z", "dep_1"), ("2026-06-15T09:30Z", "dep_2"))
    frame.loc[1, "trigger_at"] = pd.NaT
    assert trigger_load(frame)[COUNTS].to_numpy().tolist() == [[1, 1, 1]]


def test_a_missing_id_is_not_counted_as_a_deployment() -> None:
    frame = triggers(
        "UTC", ("2026-06-15T09:00Z", "dep_1"), ("2026-06-15T10:30Z", "dep_2"), ("2026-06-15T11:00Z", "dep_3")
    )
    frame.loc[1, "deployment_id"] = None
    assert trigger_load(frame)["deployments"].tolist() == [1, 0, 1]
    assert trigger_load(frame.assign(deployment_id=None))["deployments"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("freq", ["", "1", "2M", "0h", "7h", "25h", "-1h", "1Q", None, 3600])
def test_invalid_freq_is_refused(freq: str) -> None:
    with pytest.raises(ValueError, match="freq="):
        trigger_load(triggers("UTC"), freq)


def test_times_without_a_zone_are_refused() -> None:
    frame = pd.DataFrame({"trigger_at": pd.to_datetime(["2026-06-15"]), "deployment_id": ["dep_1"]})
    with pytest.raises(ValueError, match="no time zone"):
        trigger_load(frame)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.integers(10**9, 2 * 10**9),
    st.lists(st.tuples(st.integers(0, 20 * 86_400), st.integers(0, 3)), min_size=1, max_size=40),
    st.sampled_from(["1h", "15min", "6h", "1D", "1W", "3D", "1M"]),
)
def test_random_triggers_are_counted_in_their_windows(
    tz: str, begin: int, moments: list[tuple[int, int]], freq: str
) -> None:
    """In all zones, each trigger is in its window, windows are consecutive, and counts are those of the rows."""
    at = pd.to_datetime([begin + offset for offset, _ in moments], unit="s", utc=True).as_unit("us").tz_convert(tz)
    frame = pd.DataFrame({"trigger_at": at, "deployment_id": [f"dep_{number}" for _, number in moments]})
    copy = frame.copy(deep=True)
    load = trigger_load(frame, freq)
    pd.testing.assert_frame_equal(frame, copy)

    windows = pd.DatetimeIndex(load["window"])
    assert windows.is_monotonic_increasing
    assert windows.is_unique
    assert load["triggers"].iloc[[0, -1]].min() > 0
    by_wall = freq.endswith(("D", "W", "M"))  # where midnight occurs twice, the hour between is in the day before
    wall, wall_windows = at.tz_localize(None), windows.tz_localize(None)
    window_number = (
        wall_windows.searchsorted(wall, side="right") if by_wall else windows.searchsorted(at, side="right")
    ) - 1
    assert (window_number >= 0).all()
    rows = frame.assign(window=window_number, minute=at.minute == 0).groupby("window")
    for name, expected in [
        ("triggers", rows.size()),
        ("deployments", rows["deployment_id"].nunique()),
        ("at_minute_0", rows["minute"].sum()),
    ]:
        assert load[name][load["triggers"] > 0].tolist() == expected.tolist(), name
        assert load[name].sum() == expected.sum()
    if by_wall:
        zone = ZoneInfo(tz)
        assert all(
            window.to_pydatetime().replace(tzinfo=None).time().isoformat() == "00:00:00"
            or (window - timedelta(seconds=1)).astimezone(zone).utcoffset() != window.utcoffset()
            for window in windows
        ), "a window does not begin at the first instant of a day"
    else:
        assert np.diff(windows.as_unit("us").asi8).max(initial=0) <= pd.Timedelta(freq) // pd.Timedelta("1us")
