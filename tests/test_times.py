"""Times, ages and zones as callers write them: read exactly, or refused by the parameter's name."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoderdata import times

NOW = datetime(2026, 6, 15, 9, tzinfo=UTC)


class TestInstant:
    @pytest.mark.parametrize(
        ("value", "utc"),
        [
            ("2026-06-15T00:00Z", "2026-06-15T00:00:00"),
            ("2026-06-15T09:00+08:00", "2026-06-15T01:00:00"),
            ("2026-06-15 00:00:00.123456+00:00", "2026-06-15T00:00:00.123456"),
            ("2026-06-15T00:00:00.123456789Z", "2026-06-15T00:00:00.123456"),
            (datetime(2026, 6, 15, tzinfo=timezone(timedelta(hours=-3))), "2026-06-15T03:00:00"),
            (datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")), "2026-10-25T00:30:00"),
            (datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1), "2026-10-25T01:30:00"),
            (pd.Timestamp("2026-06-15", tz="Asia/Shanghai"), "2026-06-14T16:00:00"),
        ],
    )
    def test_it_is_read_in_utc_and_microseconds(self, value: times.Instant, utc: str) -> None:
        stamp = times.instant(value, name="since")
        assert stamp == pd.Timestamp(utc, tz="UTC")
        assert (str(stamp.tz), stamp.unit) == ("UTC", "us")

    @pytest.mark.parametrize(
        "value",
        [
            "2026-06-15",
            "2026-06-15T00:00",
            datetime(2026, 6, 15),  # noqa: DTZ001 - the point of it
            date(2026, 6, 15),
            pd.Timestamp("2026-06-15"),
            np.datetime64("2026-06-15"),
            1_750_000_000,
        ],
    )
    def test_without_a_zone_it_is_no_instant(self, value: times.Instant) -> None:
        """A guess would be wrong by hours somewhere."""
        with pytest.raises(ValueError, match=r"since=.* has no time zone"):
            times.instant(value, name="since")

    @pytest.mark.parametrize("value", ["", "soon", "NaT", None, pd.NaT, "2026-02-30T00:00Z", [], object()])
    def test_what_is_no_time(self, value: times.Instant) -> None:
        with pytest.raises(ValueError, match=r"since=.* is not a time"):
            times.instant(value, name="since")

    @given(st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1), timezones=st.timezones()))  # noqa: DTZ001
    def test_any_aware_time_comes_back(self, value: datetime) -> None:
        assert times.instant(value, name="t").to_pydatetime() == value.astimezone(UTC)


class TestSpan:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("15min", 900),
            ("7D", 604_800),
            ("1h30min", 5400),
            ("0s", 0),
            (timedelta(minutes=1), 60),
            (pd.Timedelta(seconds=1.5), 1.5),
        ],
    )
    def test_it_is_read(self, value: times.Span, seconds: float) -> None:
        assert times.span(value, name="max_age").total_seconds() == seconds

    @given(st.integers(1, 400_000), st.sampled_from(["min", "h", "D", "W"]))
    def test_the_usual_forms_mean_what_pandas_says(self, count: int, unit: str) -> None:
        """They are read without it."""
        text = f"{count}{unit}"
        try:
            expected = pd.Timedelta(text)
        except ValueError:
            with pytest.raises(ValueError, match="not a length of time"):
                times.span(text, name="max_age")
        else:
            assert times.span(text, name="max_age") == expected

    @pytest.mark.parametrize(
        "value", ["", "soon", "-1h", timedelta(seconds=-1), "NaT", None, [], "7 parsecs", "99999W"]
    )
    def test_what_is_no_length(self, value: times.Span) -> None:
        with pytest.raises(ValueError, match=r"max_age=.* is not a length of time"):
            times.span(value, name="max_age")


class TestMoment:
    @pytest.mark.parametrize(
        ("value", "utc"),
        [
            ("30D", "2026-05-16T09:00"),
            ("0s", "2026-06-15T09:00"),
            (timedelta(hours=1), "2026-06-15T08:00"),
            (pd.Timedelta(hours=1), "2026-06-15T08:00"),
            ("2026-06-01T00:00Z", "2026-06-01T00:00"),
            (datetime(2026, 6, 1, tzinfo=UTC), "2026-06-01T00:00"),
            (pd.Timestamp("2026-06-01T08:00+08:00"), "2026-06-01T00:00"),
        ],
    )
    def test_an_instant_or_an_age(self, value: times.Instant | times.Span, utc: str) -> None:
        stamp = times.moment(value, now=NOW, name="since")
        assert stamp == pd.Timestamp(utc, tz="UTC")
        assert (str(stamp.tz), stamp.unit) == ("UTC", "us")

    @pytest.mark.parametrize("value", ["", "soon", "-1h", "2026-06-15", datetime(2026, 6, 15)])  # noqa: DTZ001
    def test_neither(self, value: times.Instant | times.Span) -> None:
        with pytest.raises(ValueError, match=r"since="):
            times.moment(value, now=NOW, name="since")


class TestZone:
    @pytest.mark.parametrize("key", ["UTC", "Asia/Shanghai", "Australia/Lord_Howe", "America/Argentina/Ushuaia"])
    def test_it_is_found(self, key: str) -> None:
        assert times.zone(key).key == key

    @pytest.mark.parametrize(
        "key", ["", "Mars/Base", "../etc/passwd", "/etc/localtime", "Asia/", "UTC\x00", "上海"]
    )
    def test_there_is_none(self, key: str) -> None:
        with pytest.raises(ValueError, match=r"tz=.* is not an IANA time zone"):
            times.zone(key)
