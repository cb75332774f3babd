"""Tests of `qoderdata.arguments`: times, ages, spans, periods, windows, ids and time zones."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoderdata import arguments

NOW = datetime(2026, 6, 15, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    "value", [["a"], ([],), np.array(["a", "b"]), pd.Series(["a"]), pd.NA, {"a": 1}, float("nan")]
)
def test_a_value_that_cannot_be_compared_is_not_a_choice(value: object) -> None:
    with pytest.raises(ValueError, match="is not known; allowed are 'a', None"):
        arguments.check_choice(value, ("a", None), name="status")  # type: ignore[type-var]


@pytest.mark.parametrize("refresh", ["yes", np.array([True, False]), pd.Series(["all"]), pd.NA, None])
def test_refresh_of_another_kind_is_refused(refresh: object) -> None:
    with pytest.raises(ValueError, match=r"is not known; allowed are True, False and 'all'"):
        arguments.check_refresh(refresh=refresh, offline=False, may_be_all=True)


class TestParseInstant:
    @pytest.mark.parametrize(
        ("value", "utc"),
        [
            ("2026-06-15T00:00Z", "2026-06-15T00:00:00"),
            ("2026-06-15T09:00+08:00", "2026-06-15T01:00:00"),
            ("2026-06-15 00:00:00.123456+00:00", "2026-06-15T00:00:00.123456"),
            ("20260615T0000Z", "2026-06-15T00:00:00"),
            ("2026-06-15T00:00:00.123456789Z", "2026-06-15T00:00:00.123456"),
            (datetime(2026, 6, 15, tzinfo=timezone(timedelta(hours=-3))), "2026-06-15T03:00:00"),
            (datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")), "2026-10-25T00:30:00"),
            (datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1), "2026-10-25T01:30:00"),
            (pd.Timestamp("2026-06-15", tz="Asia/Shanghai"), "2026-06-14T16:00:00"),
        ],
    )
    def test_result_is_in_utc_and_microseconds(self, value: arguments.Instant, utc: str) -> None:
        stamp = arguments.parse_instant(value, name="since")
        assert stamp == pd.Timestamp(utc, tz="UTC")
        assert (str(stamp.tz), stamp.unit) == ("UTC", "us")

    @pytest.mark.parametrize(
        "value",
        [
            "2026-06-15",
            "2026-06-15T00:00",
            datetime(2026, 6, 15),  # noqa: DTZ001 - without a time zone on purpose
            date(2026, 6, 15),
            pd.Timestamp("2026-06-15"),
            np.datetime64("2026-06-15"),
            1_750_000_000,
        ],
    )
    def test_time_without_time_zone_is_refused(self, value: arguments.Instant) -> None:
        """A guessed time zone could be wrong by hours."""
        with pytest.raises(ValueError, match=r"since=.* has no time zone"):
            arguments.parse_instant(value, name="since")

    @pytest.mark.parametrize("value", ["", "soon", "NaT", None, pd.NaT, "2026-02-30T00:00Z", [], object()])
    def test_invalid_time_is_refused(self, value: arguments.Instant) -> None:
        with pytest.raises(ValueError, match=r"since=.* is not a time"):
            arguments.parse_instant(value, name="since")

    @pytest.mark.parametrize("value", ["2026-02-30T00:00Z", "2026-06-15T25:00Z", "20260615 CST"])
    def test_day_or_hour_that_does_not_exist_is_said_to_be_wrong(self, value: str) -> None:
        with pytest.raises(ValueError, match="is not a time; give an existing day and hour, like '2026-"):
            arguments.parse_instant(value, name="since")

    @pytest.mark.parametrize(
        "value",
        ["01/06/2026 00:00Z", "10:00Z", "15.06.2026 00:00Z", "June 2026 Z", "2026-06Z", "2026-0615T00:00Z"],
    )
    def test_ambiguous_text_is_refused(self, value: str) -> None:
        with pytest.raises(
            ValueError, match=r"since=.* is not a time; write year, month and day first, like '2026-"
        ):
            arguments.parse_instant(value, name="since")

    @pytest.mark.parametrize("date", ["-400000-06-15", "-0001-06-15", "0000-12-31", "10000-01-01", "400000-06-15"])
    def test_years_outside_1_to_9999_are_refused(self, date: str) -> None:
        value = pd.Timestamp(np.datetime64(date, "s")).tz_localize("UTC")
        with pytest.raises(
            ValueError, match=r"^since=.*T00:00:00\+00:00' is not a time of the years 1 to 9999 in UTC"
        ):
            arguments.parse_instant(value, name="since")

    @given(st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1), timezones=st.timezones()))  # noqa: DTZ001
    def test_any_aware_datetime_keeps_its_instant(self, value: datetime) -> None:
        assert arguments.parse_instant(value, name="t").to_pydatetime() == value.astimezone(UTC)


class TestParseSpan:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("15min", 900), ("7D", 604_800), ("1h30min", 5400), ("0s", 0), (timedelta(minutes=1), 60),
            (pd.Timedelta(seconds=1.5), 1.5),
            # Units of which pandas would warn that they are deprecated.
            ("1w", 604_800), ("2d", 172_800), ("3H", 10_800), ("5S", 5), ("1d 12H", 129_600), ("60MIN", 3600),
        ],
    )  # fmt: skip
    def test_valid_span_is_read(self, value: arguments.Span, seconds: float) -> None:
        assert arguments.parse_span(value, name="max_age").total_seconds() == seconds

    @given(st.integers(1, 400_000), st.sampled_from(["min", "h", "D", "W"]))
    def test_number_with_unit_equals_pandas_timedelta(self, count: int, unit: str) -> None:
        """These common formats are parsed without pandas."""
        text = f"{count}{unit}"
        try:
            expected = pd.Timedelta(text)
        except ValueError:
            with pytest.raises(ValueError, match=f"max_age='{text}' is too long; the longest is '106751D'"):
                arguments.parse_span(text, name="max_age")
        else:
            assert arguments.parse_span(text, name="max_age") == expected

    @pytest.mark.parametrize(
        "value",
        [24, 0, -1, 1.5, True, np.int64(24), np.float64(2), np.timedelta64(5), Decimal(3),
         "24", "30", "1.5", " 7 ", "-1", "1_0", "1 2", "1,5", "+ 5", "5-3", "1 2h", "1,5h", "P5", "PT1H5"],
    )  # fmt: skip
    def test_number_without_unit_is_refused_with_a_list_of_units(self, value: arguments.Span) -> None:
        """Pandas would read it as nanoseconds."""
        with pytest.raises(ValueError, match=r"max_age=.* has no unit \(s, min, h, D or W\); write one like '7D'"):
            arguments.parse_span(value, name="max_age")

    @given(st.one_of(st.integers(), st.floats(), st.decimals()).map(str) | st.integers() | st.floats())
    def test_any_number_is_refused_as_a_span(self, value: arguments.Span) -> None:
        with pytest.raises(ValueError, match="max_age="):
            arguments.parse_span(value, name="max_age")

    @pytest.mark.parametrize("value", [np.timedelta64(2, "h"), "02:00:00", "PT2H", "2 hours"])
    def test_other_formats_with_a_unit_are_read(self, value: arguments.Span) -> None:
        assert arguments.parse_span(value, name="max_age") == timedelta(hours=2)

    @pytest.mark.parametrize(
        "value",
        ["", "soon", "-1h", timedelta(seconds=-1), "NaT", None, [], "7 parsecs", "60T", "1h 5 t", "6L",
         "6n"],
    )  # fmt: skip
    def test_invalid_span_is_refused(self, value: arguments.Span) -> None:
        with pytest.raises(ValueError, match=r"max_age=.* is not a length of time"):
            arguments.parse_span(value, name="max_age")

    @pytest.mark.parametrize(
        "value",
        ["1M", "M", "MS", "ME", "BMS", "1Q", "QS-JAN", "2QE", "1Y", "YS", "AS", "1 month", "3 Months", "1mo",
         "quarter", "quarterly", "2 years", "1yr", "1y"],
    )  # fmt: skip
    def test_months_quarters_and_years_are_refused_with_what_works_instead(self, value: str) -> None:
        expected = f"horizon='{value}' is not a length of time, as months, quarters and years have no fixed length"
        with pytest.raises(ValueError, match=f"^{expected}; write days, like '30D'$"):
            arguments.parse_span(value, name="horizon")

    @pytest.mark.parametrize("value", ["1M", "M", "MS", "1MS", "ME", "1 month", "1mo", "monthly"])
    def test_windows_may_be_calendar_months(self, value: str) -> None:
        """A span of "1MS" would be a millisecond, which is no window."""
        assert arguments.parse_window(value) is None

    @pytest.mark.parametrize(
        "value", ["2M", "2MS", "BMS", "1Q", "QS-JAN", "2QE", "1Y", "YS", "3 Months", "quarterly"]
    )
    def test_windows_of_several_months_are_refused(self, value: str) -> None:
        with pytest.raises(ValueError, match=r"^freq=.* write days, like '30D', or '1M' for calendar months$"):
            arguments.parse_window(value)


class TestParseBound:
    @pytest.mark.parametrize(
        ("value", "utc"),
        [
            ("30D", "2026-05-16T09:00"), ("0s", "2026-06-15T09:00"),
            (timedelta(hours=1), "2026-06-15T08:00"), (pd.Timedelta(hours=1), "2026-06-15T08:00"),
            ("2026-06-01T00:00Z", "2026-06-01T00:00"),
            (datetime(2026, 6, 1, tzinfo=UTC), "2026-06-01T00:00"),
            (pd.Timestamp("2026-06-01T08:00+08:00"), "2026-06-01T00:00"),
        ],
    )  # fmt: skip
    def test_time_or_age_is_read(self, value: arguments.Instant | arguments.Span, utc: str) -> None:
        stamp = arguments.parse_bound(value, now=NOW, name="since")
        assert stamp == pd.Timestamp(utc, tz="UTC")
        assert (str(stamp.tz), stamp.unit) == ("UTC", "us")

    @pytest.mark.parametrize("value", ["", "soon", "-1h", "2026-06-15", datetime(2026, 6, 15)])  # noqa: DTZ001
    def test_invalid_bound_is_refused(self, value: arguments.Instant | arguments.Span) -> None:
        with pytest.raises(ValueError, match=r"since="):
            arguments.parse_bound(value, now=NOW, name="since")

    @pytest.mark.parametrize(
        "value", [7, 1.5, True, np.int64(7), np.timedelta64(7), "7", "1 2", "30", "2026", "20260615"]
    )
    def test_number_without_unit_is_refused_with_both_formats(self, value: arguments.Span) -> None:
        with pytest.raises(
            ValueError, match=r"since=.* has no unit; .*\(s, min, h, D or W\), like '7D', or a time"
        ):
            arguments.parse_bound(value, now=NOW, name="since")

    @pytest.mark.parametrize("value", ["2026-06-08", "soon", "-1h", "2026-02-30T00:00Z"])
    def test_error_has_no_cause_or_context(self, value: str) -> None:
        with pytest.raises(ValueError, match="or an age, like '30D'") as caught:
            arguments.parse_bound(value, now=NOW, name="since")
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None

    @pytest.mark.parametrize(
        ("value", "reason"), [("400000D", "too long"), ("1M", "not a length of time, as months")]
    )
    def test_age_that_cannot_be_used_is_not_called_a_wrong_time(self, value: str, reason: str) -> None:
        with pytest.raises(ValueError, match=f"^since='{value}' is {reason}"):
            arguments.parse_bound(value, now=NOW, name="since")

    @pytest.mark.parametrize("value", ["0001-01-01T00:00+08:00", "9999-12-31T23:00-05:00"])
    def test_time_outside_years_1_to_9999_in_utc_is_refused(self, value: str) -> None:
        with pytest.raises(ValueError, match=r"since=.* is not a time of the years 1 to 9999"):
            arguments.parse_bound(value, now=NOW, name="since")


class TestParsePeriod:
    def test_bounds_may_be_times_ages_or_none(self) -> None:
        since, until = arguments.parse_period("7D", "2026-06-15T00:00Z", now=NOW, what="run")
        assert (since, until) == (NOW - timedelta(days=7), pd.Timestamp("2026-06-15T00:00Z"))
        assert arguments.parse_period(None, None, now=NOW, what="run") == (None, None)

    @pytest.mark.parametrize(("since", "until"), [("1D", "1D"), ("1D", "2D"), (NOW, "0s")])
    def test_empty_period_is_refused(self, since: arguments.Instant, until: arguments.Instant) -> None:
        with pytest.raises(ValueError, match=r"is not before until=.*: no run can be in between"):
            arguments.parse_period(since, until, now=NOW, what="run")

    def test_error_message_names_the_parameters(self) -> None:
        with pytest.raises(
            ValueError, match=r"^created_since='1D' is not before created_until='2D': no deployment"
        ):
            arguments.parse_period("1D", "2D", now=NOW, what="deployment", prefix="created_")


MISSING_VALUES = [None, float("nan"), np.float32("nan"), pd.NA]


class TestCheckId:
    @pytest.mark.parametrize("value", [*MISSING_VALUES, "", "  ", ".", "..", " .. ", "a\ud800", 5, b"dep_1"])
    def test_invalid_id_is_refused(self, value: object) -> None:
        with pytest.raises(ValueError, match=r"deployment_id=.* is not the id of anything; ids look like"):
            arguments.check_id(value, name="deployment_id")

    def test_the_message_shows_an_id_of_its_kind(self) -> None:
        with pytest.raises(ValueError, match="session_id='' is not the id of anything; ids look like sess_0197…"):
            arguments.check_id("", name="session_id")

    @pytest.mark.parametrize("value", [["sess_1"], [], np.array([1.0, 2.0]), pd.Series(["sess_1", "sess_2"])])
    def test_several_ids_are_refused_with_advice(self, value: object) -> None:
        """Once, the message showed all of them, each on a line of its own."""
        for name, advice in (("session_id", r"join .* pd\.concat"), ("deployment_id", "select rows with isin")):
            message = f"{name} must be one id, not {type(value).__name__}; for several ids, load .*, and {advice}"
            with pytest.raises(ValueError, match=message):
                arguments.check_id(value, name=name)

    @pytest.mark.parametrize("value", MISSING_VALUES)
    def test_missing_session_id_is_refused_with_its_reason(self, value: object) -> None:
        with pytest.raises(ValueError, match=r"session_id=.* is a missing value: this run has no session"):
            arguments.check_id(value, name="session_id")

    @pytest.mark.parametrize("value", ["dep_1", " a/b ", "nan", "...", "会话"])
    def test_other_text_is_returned_unchanged(self, value: str) -> None:
        assert arguments.check_id(value, name="session_id") == value


class TestCheckFlag:
    @pytest.mark.parametrize("value", [True, False, np.True_, np.False_])
    def test_true_and_false_are_accepted(self, value: object) -> None:
        arguments.check_flag(value, name="refresh")

    @pytest.mark.parametrize("value", ["false", "nope", None, 0, 1, pd.NA, []])
    def test_value_other_than_true_or_false_is_refused(self, value: object) -> None:
        with pytest.raises(ValueError, match=r"refresh=.* is neither True nor False"):
            arguments.check_flag(value, name="refresh")


class TestParseWindow:
    @pytest.mark.parametrize(
        ("freq", "length"),
        [
            ("15min", timedelta(minutes=15)), ("min", timedelta(minutes=1)), ("h", timedelta(hours=1)),
            ("3D", timedelta(days=3)), ("W", timedelta(7)), ("d", timedelta(days=1)), ("2w", timedelta(weeks=2)),
            ("2 days", timedelta(days=2)), ("3600S", timedelta(hours=1)), ("60MIN", timedelta(hours=1)),
            ("1H", timedelta(hours=1)), ("1h30min", timedelta(minutes=90)), ("PT2H", timedelta(hours=2)),
        ],
    )  # fmt: skip
    def test_valid_window_is_read(self, freq: str, length: timedelta) -> None:
        assert arguments.parse_window(freq) == length // timedelta(microseconds=1)

    @pytest.mark.parametrize(
        "freq", ["", "1", "7h", "24h", "25h", "36h", "1.5D", "0h", "0D", "30s", "2M", "-1h", "soon", None, 60]
    )
    def test_invalid_window_is_refused(self, freq: str) -> None:
        with pytest.raises(ValueError, match="freq="):
            arguments.parse_window(freq)


class TestParseZone:
    @pytest.mark.parametrize("key", ["UTC", "Asia/Shanghai", "Australia/Lord_Howe", "America/Argentina/Ushuaia"])
    def test_valid_time_zone_is_returned(self, key: str) -> None:
        assert arguments.parse_zone(key).key == key

    @pytest.mark.parametrize(
        "key", ["", "Mars/Base", "../etc/passwd", "/etc/localtime", "Asia/", "UTC\x00", "上海"]
    )
    def test_unknown_time_zone_is_refused(self, key: str) -> None:
        with pytest.raises(ValueError, match=r"tz=.* is not an IANA time zone"):
            arguments.parse_zone(key)

    @pytest.mark.parametrize(
        ("key", "zone"),
        [
            ("shanghai", "Asia/Shanghai"), ("New York", "America/New_York"), ("Europe/Tokyo", "Asia/Tokyo"),
            ("Europe/UTC", "UTC"),
        ],
    )  # fmt: skip
    def test_zone_of_a_city_is_suggested(self, key: str, zone: str) -> None:
        with pytest.raises(ValueError, match=f"tz='{key}' is not an IANA time zone; did you mean '{zone}'"):
            arguments.parse_zone(key)

    @pytest.mark.parametrize(
        ("zone", "name"), [(ZoneInfo("Asia/Shanghai"), "Asia/Shanghai"), (ZoneInfo("UTC"), "UTC"), (UTC, "UTC")]
    )
    def test_zone_that_is_not_a_name_is_refused_with_its_name(self, zone: tzinfo, name: str) -> None:
        with pytest.raises(ValueError, match=rf"is not the name of a time zone; pass its name, as tz='{name}'$"):
            arguments.parse_zone(zone)  # type: ignore[arg-type] # not a name

    def test_no_name_is_made_up_for_a_zone_that_has_none(self) -> None:
        with pytest.raises(ValueError, match=r"pass its name, such as tz='Asia/Shanghai'$"):
            arguments.parse_zone(timezone(timedelta(hours=8)))  # type: ignore[arg-type] # not a name
