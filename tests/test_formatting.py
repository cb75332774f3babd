"""Tests of `qoderdata.formatting`: hostile text, text widths, percentages, durations and times."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoderdata.formatting import (
    MISSING,
    display_width,
    format_duration,
    format_interval,
    format_milliseconds,
    format_percent,
    format_time,
    make_distinct,
    one_line,
    truncate,
    truncate_middle,
)

MISSING_VALUES = [None, float("nan"), pd.NA, pd.NaT]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nightly report", "nightly report"),
        ("  nightly\t\r\n report\n", "nightly report"),
        ("a\u2028b\u2029c\x85d\x0be\x0cf", "a b c d e f"),
        ("red \x1b[31m", "red �[31m"),
        ("\x1b]0;owned\x07", "�]0;owned�"),
        ("bell\x07, null\x00, delete\x7f, C1 \x9b31m", "bell�, null�, delete�, C1 �31m"),
        ("safe\u202egnp.exe", "safe�gnp.exe"),
        ("\u2066isolated\u2069 \u200fmark\u200e \u061carabic", "�isolated� �mark� �arabic"),
        ("zero\u200bwidth\ufeffspace\u2060", "zero�width�space�"),
        ("tag\U000e0041s", "tag�s"),
        ("half \ud800 pair", "half � pair"),
        ("own \ue000 use, \U0010ffff no character", "own � use, � no character"),
        ("报告 отчёт دوري αναφορά", "报告 отчёт دوري αναφορά"),
        ("क्‍ष \U0001f469\u200d\U0001f52c می\u200cروم", "क्‍ष \U0001f469\u200d\U0001f52c می\u200cروم"),
        ("", ""),
        (7, "7"),
        (2.5, "2.5"),
        *((missing, MISSING) for missing in MISSING_VALUES),
    ],
)
def test_one_line(text: str | float | None, expected: str) -> None:
    assert one_line(text) == expected


@given(st.text())
def test_one_line_has_only_printable_characters(text: str) -> None:
    line = one_line(text)
    assert line.splitlines() in ([], [line])
    assert line == line.strip()
    kept = line.replace("\u200c", "").replace("\u200d", "").replace("\N{REPLACEMENT CHARACTER}", "")
    assert all(
        character == " " or not unicodedata.category(character).startswith(("C", "Z")) for character in kept
    )
    assert one_line(line) == line


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("", 0), ("ok", 2), ("报告", 4), ("\uff46\uff55\uff4c\uff4c", 8), ("ﾊﾝｶｸ", 4), ("e\u0301te\u0301", 3),
        ("\U0001f680", 2), ("❤\ufe0f", 2), ("\U0001f469\u200d\U0001f680", 2), ("می\u200cروم", 5),
    ],
)  # fmt: skip
def test_display_width(text: str, columns: int) -> None:
    assert display_width(text) == columns


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("nightly report", 14, "nightly report"), ("nightly report", 13, "nightly repo…"),
        ("nightly", 1, "…"), ("报告报告", 8, "报告报告"), ("报告报告", 7, "报告报…"), ("报告报告", 6, "报告…"),
        ("e\u0301e\u0301e\u0301", 2, "e\u0301…"), ("", 1, ""), ("❤\ufe0f" * 10, 8, "❤\ufe0f" * 3 + "…"),
    ],
)  # fmt: skip
def test_truncate(text: str, columns: int, expected: str) -> None:
    assert truncate(text, columns) == expected


@given(st.text(), st.integers(1, 40))
def test_truncated_text_fits_and_ends_with_an_ellipsis(text: str, columns: int) -> None:
    short = truncate(text, columns)
    assert display_width(short) <= columns
    assert short == text or (short.endswith("…") and text.startswith(short[:-1]) and display_width(text) > columns)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0, "0.0 %"), (0.0, "0.0 %"), (1e-9, "<0.1 %"), (0.0004, "<0.1 %"), (0.0006, "0.1 %"),
        (0.125, "12.5 %"), (0.9994, "99.9 %"), (0.9996, ">99.9 %"), (1, "100.0 %"),
        *((missing, MISSING) for missing in MISSING_VALUES),
    ],
)  # fmt: skip
def test_format_percent(share: float | None, expected: str) -> None:
    assert format_percent(share) == expected


@given(st.integers(1, 10**9), st.data())
def test_0_and_100_percent_are_written_only_for_exactly_0_and_1(runs: int, data: st.DataObject) -> None:
    failures = data.draw(st.integers(0, runs))
    text = format_percent(failures / runs)
    assert (text == "0.0 %") == (failures == 0)
    assert (text == "100.0 %") == (failures == runs)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.042, 0.21, "4.2–21.0 %"), (0.0, 1.0, "0.0–100.0 %"), (None, 0.5, MISSING), (0.5, None, MISSING),
        (float("nan"), float("nan"), MISSING), (0.0001, 0.9999, "<0.1–>99.9 %"),
    ],
)  # fmt: skip
def test_format_interval(low: float | None, high: float | None, expected: str) -> None:
    assert format_interval(low, high) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"), (0.001, "1 ms"), (0.04, "40 ms"), (0.999, "999 ms"), (0.9996, "1 s"), (1, "1 s"),
        (1.5, "1.5 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min"), (61, "1 min 1 s"),
        (3599.4, "59 min 59 s"), (3599.6, "1 h"), (3600 + 59, "1 h"),
        (3 * 3600 + 20 * 60 + 7, "3 h 20 min"), (86400, "1 d"), (90000, "1 d 1 h"),
        (400 * 86400 + 3599, "400 d"), (-0.5, "-500 ms"), (-7200, "-2 h"),
    ],
)  # fmt: skip
def test_format_duration(seconds: float, expected: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == expected
    assert format_duration(pd.Timedelta(seconds=seconds)) == expected
    assert format_milliseconds(1000 * seconds) == expected


@given(text=st.text(max_size=80), columns=st.integers(3, 40))
def test_truncate_middle_keeps_both_ends(text: str, columns: int) -> None:
    short = truncate_middle(text, columns)
    assert display_width(short) <= columns
    if short != text:
        cuts = [at for at, character in enumerate(short) if character == "…"]
        assert any(text.startswith(short[:at]) and text.endswith(short[at + 1 :]) for at in cuts)


@pytest.mark.parametrize(
    ("text", "columns", "short"),
    [
        ("nightly", 7, "nightly"), ("nightly-report", 8, "night…rt"), ("夜间报表生成", 8, "夜间…成"),
        ("夜间报表生成", 12, "夜间报表生成"), ("abcdefgh\u0303\u0303ij", 8, "abcde…ij"),
        ("ab" + "❤\ufe0f" * 9, 8, "ab❤\ufe0f…❤\ufe0f"),
    ],
)  # fmt: skip
def test_truncate_middle(text: str, columns: int, short: str) -> None:
    assert truncate_middle(text, columns) == short


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (2**62, "53375995583 d 15 h"), (-(2**63), "-106751991167 d 7 h"), (1e300, "1157407407407407"),
        (float("inf"), MISSING), (float("-inf"), MISSING),
    ],
)  # fmt: skip
def test_format_milliseconds_of_very_large_numbers(count: float, expected: str) -> None:
    """A number of milliseconds may be too large for a `timedelta`."""
    assert format_milliseconds(count).startswith(expected)


@pytest.mark.parametrize("missing", [None, pd.NaT])
def test_missing_duration_is_not_zero(missing: pd.Timedelta | None) -> None:
    assert format_duration(missing) == MISSING


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_missing_milliseconds_are_not_zero(missing: float | None) -> None:
    assert format_milliseconds(missing) == MISSING


_SECONDS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400}


@settings(max_examples=300)
@given(st.timedeltas(timedelta(0), timedelta(days=5000)))
def test_formatted_duration_is_close_to_the_duration(length: timedelta) -> None:
    """The difference is at most one of the smaller unit, and no number reaches one of the next larger unit."""
    parts = re.findall(r"([\d.]+) (ms|s|min|h|d)\b", format_duration(length))
    assert 1 <= len(parts) <= 2
    read = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    unit = parts[0][1]
    allowed = {"ms": 0.0006, "s": 0.51, "min": 1, "h": 60, "d": 3600}[unit]
    assert abs(read - length.total_seconds()) <= allowed
    largest = {"ms": 999, "s": 59, "min": 59, "h": 23, "d": 5000}
    assert all(float(number) <= largest[unit] for number, unit in parts)


@pytest.mark.parametrize(
    ("time", "tz", "expected"),
    [
        (pd.Timestamp("2026-06-15T01:00Z"), "UTC", "2026-06-15 01:00 UTC"),
        (pd.Timestamp("2026-06-15T01:00:59.9Z"), "Asia/Shanghai", "2026-06-15 09:00 +08:00"),
        (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), "Europe/Berlin", "2026-10-25 02:30 +02:00"),
        (datetime(2026, 10, 25, 1, 30, tzinfo=UTC), "Europe/Berlin", "2026-10-25 02:30 +01:00"),
        (datetime(2026, 6, 15, 9, tzinfo=ZoneInfo("Asia/Tokyo")), "UTC", "2026-06-15 00:00 UTC"),
        (pd.Timestamp("1900-06-15T01:00Z"), "Asia/Shanghai", "1900-06-15 09:05 +08:05"),
        (pd.Timestamp("2026-06-15T01:00Z"), "America/St_Johns", "2026-06-14 22:30 -02:30"),
        (pd.Timestamp("0001-01-01T00:00Z"), "UTC", "0001-01-01 00:00 UTC"),
        (pd.Timestamp("0001-01-01T00:00Z"), "America/New_York", "0001-01-01 00:00 UTC"),
        (pd.Timestamp("9999-12-31T23:59Z"), "Asia/Shanghai", "9999-12-31 23:59 UTC"),
        (pd.Timestamp("9999-12-31T23:59Z"), "Europe/Berlin", "9999-12-31 23:59 UTC"),
        (None, "UTC", MISSING),
        (pd.NaT, "UTC", MISSING),
    ],
)
def test_format_time(time: datetime | None, tz: str, expected: str) -> None:
    assert format_time(time, tz) == expected


def test_names_of_different_ids_differ_even_if_the_ends_of_the_ids_are_equal() -> None:
    ids = ["dep_a0001", "dep_b0001", "dep_c0002", "dep_d0001", "d1"]
    names = make_distinct(["nightly", "nightly", "hourly", "daily", "daily"], ids)
    assert names == ["nightly ·a0001", "nightly ·b0001", "hourly", "daily ·0001", "daily ·d1"]
    assert make_distinct(["nightly", "nightly"], ["dep_1", "dep_1"]) == ["nightly"] * 2


def test_names_of_long_keys_are_numbered_and_have_no_control_characters() -> None:
    keys = [f"the request to {host} failed, and the agent gave up" for host in ("a", "b", "c")]
    assert make_distinct(["the request…", "the request…", "other"], keys) == [
        "the request… ·1",
        "the request… ·2",
        "other",
    ]
    assert make_distinct(["red", "red"], ["red", "red\n"]) == ["red ·1", "red ·2"]
