"""Text that people read: safe in one line whatever the service sends, and exact to the digit that is shown."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoderdata.words import (
    NOTHING,
    duration,
    interval,
    milliseconds,
    moment,
    one_line,
    percent,
    shorten,
    width,
)

MISSING = [None, float("nan"), pd.NA, pd.NaT]


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
        *((missing, NOTHING) for missing in MISSING),
    ],
)
def test_one_line(text: str | float | None, expected: str) -> None:
    assert one_line(text) == expected


@given(st.text())
def test_one_line_is_one_line_of_characters_that_print(text: str) -> None:
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
        ("", 0),
        ("ok", 2),
        ("报告", 4),
        ("\uff46\uff55\uff4c\uff4c", 8),
        ("ﾊﾝｶｸ", 4),
        ("e\u0301te\u0301", 3),
        ("\U0001f680", 2),
        ("❤\ufe0f", 1),
        ("می\u200cروم", 5),
    ],
)
def test_width(text: str, columns: int) -> None:
    assert width(text) == columns


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("nightly report", 14, "nightly report"),
        ("nightly report", 13, "nightly repo…"),
        ("nightly", 1, "…"),
        ("报告报告", 8, "报告报告"),
        ("报告报告", 7, "报告报…"),
        ("报告报告", 6, "报告…"),
        ("e\u0301e\u0301e\u0301", 2, "e\u0301…"),
        ("", 1, ""),
    ],
)
def test_shorten(text: str, columns: int, expected: str) -> None:
    assert shorten(text, columns) == expected


@given(st.text(), st.integers(1, 40))
def test_what_is_shortened_fits_and_says_that_it_is(text: str, columns: int) -> None:
    short = shorten(text, columns)
    assert width(short) <= columns
    assert short == text or (short.endswith("…") and text.startswith(short[:-1]) and width(text) > columns)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0, "0.0 %"),
        (0.0, "0.0 %"),
        (1e-9, "<0.1 %"),
        (0.0004, "<0.1 %"),
        (0.0006, "0.1 %"),
        (0.125, "12.5 %"),
        (0.9994, "99.9 %"),
        (0.9996, ">99.9 %"),
        (1, "100.0 %"),
        *((missing, NOTHING) for missing in MISSING),
    ],
)
def test_percent(share: float | None, expected: str) -> None:
    assert percent(share) == expected


@given(st.integers(1, 10**9), st.data())
def test_none_and_all_are_written_for_none_and_all_alone(runs: int, data: st.DataObject) -> None:
    failures = data.draw(st.integers(0, runs))
    text = percent(failures / runs)
    assert (text == "0.0 %") == (failures == 0)
    assert (text == "100.0 %") == (failures == runs)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.042, 0.21, "4.2–21.0 %"),
        (0.0, 1.0, "0.0–100.0 %"),
        (None, 0.5, NOTHING),
        (0.5, None, NOTHING),
        (float("nan"), float("nan"), NOTHING),
    ],
)
def test_interval(low: float | None, high: float | None, expected: str) -> None:
    assert interval(low, high) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (0.001, "1 ms"),
        (0.04, "40 ms"),
        (0.999, "999 ms"),
        (0.9996, "1 s"),
        (1, "1 s"),
        (1.5, "1.5 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h"),
        (3600 + 59, "1 h"),
        (3 * 3600 + 20 * 60 + 7, "3 h 20 min"),
        (86400, "1 d"),
        (90000, "1 d 1 h"),
        (400 * 86400 + 3599, "400 d"),
        (-0.5, "-500 ms"),
        (-7200, "-2 h"),
    ],
)
def test_duration(seconds: float, expected: str) -> None:
    assert duration(timedelta(seconds=seconds)) == expected
    assert duration(pd.Timedelta(seconds=seconds)) == expected
    assert milliseconds(1000 * seconds) == expected


@pytest.mark.parametrize("missing", [None, pd.NaT])
def test_no_duration_is_not_zero(missing: pd.Timedelta | None) -> None:
    assert duration(missing) == NOTHING


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_no_milliseconds_are_not_zero(missing: float | None) -> None:
    assert milliseconds(missing) == NOTHING


_SECONDS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400}


@settings(max_examples=300)
@given(st.timedeltas(timedelta(0), timedelta(days=5000)))
def test_a_duration_reads_as_what_it_is(length: timedelta) -> None:
    """What is read back is never further away than one of the smaller unit; sixty seconds are a minute."""
    parts = re.findall(r"([\d.]+) (ms|s|min|h|d)\b", duration(length))
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
        (pd.Timestamp("2026-06-15T01:00:59.9Z"), "Asia/Shanghai", "2026-06-15 09:00 CST"),
        (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), "Europe/Berlin", "2026-10-25 02:30 CEST"),
        (datetime(2026, 10, 25, 1, 30, tzinfo=UTC), "Europe/Berlin", "2026-10-25 02:30 CET"),
        (datetime(2026, 6, 15, 9, tzinfo=ZoneInfo("Asia/Tokyo")), "UTC", "2026-06-15 00:00 UTC"),
        (None, "UTC", NOTHING),
        (pd.NaT, "UTC", NOTHING),
    ],
)
def test_moment(time: datetime | None, tz: str, expected: str) -> None:
    assert moment(time, tz) == expected
