"""What people read: text made safe for one line, shares, lengths of time, times with their zone.

Text from the service is hostile until it has passed `one_line`: it may hold line breaks, escape sequences of
a terminal, or marks that turn the direction of what follows.
"""

from __future__ import annotations

import unicodedata
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

#: What stands where there is no value: missing is not zero.
NOTHING = "–"

#: A unit and the next smaller one, in seconds.
_UNITS = (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1))
_ELLIPSIS = "…"
_WIDE = frozenset("WF")
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINERS = frozenset("\u200c\u200d")


def one_line(text: str | float | None) -> str:
    r"""Make text safe to stand in one line.

    Parameters
    ----------
    text
        Text from anywhere; a missing value becomes `NOTHING`.

    Returns
    -------
    str
        White space, line breaks too, as single blanks; control characters, direction marks and
        characters without a meaning as ``�``.

    Examples
    --------
    >>> one_line("nightly\n report \x1b[31m")
    'nightly report �[31m'
    """
    if _is_missing(text):
        return NOTHING
    return "".join(_printable(character) for character in " ".join(str(text).split()))


def _printable(character: str) -> str:
    if character not in _JOINERS and unicodedata.category(character) in _UNPRINTABLE:
        return "\N{REPLACEMENT CHARACTER}"
    return character


def width(text: str) -> int:
    """Give how many columns of a terminal a text takes.

    Parameters
    ----------
    text
        One line.

    Returns
    -------
    int
        Columns: two for a wide character, such as a Chinese one, none for a combining mark.

    Examples
    --------
    >>> width("报告 ok")
    7
    """
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if (
        unicodedata.combining(character)
        or character in _JOINERS
        or unicodedata.category(character) in {"Mn", "Me"}
    ):
        return 0
    return 2 if unicodedata.east_asian_width(character) in _WIDE else 1


def shorten(text: str, columns: int) -> str:
    """Cut a text to a number of columns, with an ellipsis where something is lost.

    Parameters
    ----------
    text
        One line.
    columns
        The most columns that it may take, at least 1.

    Returns
    -------
    str
        The text, or its beginning and ``…``.

    Examples
    --------
    >>> shorten("nightly report", 8)
    'nightly…'
    """
    if width(text) <= columns:
        return text
    kept, used = [], 1
    for character in text:
        used += _columns(character)
        if used > columns:
            break
        kept.append(character)
    return "".join(kept) + _ELLIPSIS


def percent(share: float | None) -> str:
    """Write a share as a percentage with one digit; what is not nothing and not all never reads so.

    Parameters
    ----------
    share
        Between 0 and 1, or missing.

    Returns
    -------
    str
        Such as ``"12.5 %"``, or `NOTHING`.

    Examples
    --------
    >>> percent(0.125), percent(0), percent(0.0002), percent(0.9998), percent(None)
    ('12.5 %', '0.0 %', '<0.1 %', '>99.9 %', '–')
    """
    if share is None or _is_missing(share):
        return NOTHING
    text = f"{100 * share:.1f}"
    if text == "0.0" and share > 0:
        return "<0.1 %"
    return ">99.9 %" if text == "100.0" and share < 1 else f"{text} %"


def interval(low: float | None, high: float | None) -> str:
    """Write an interval of shares.

    Parameters
    ----------
    low, high
        Its ends, between 0 and 1, or missing.

    Returns
    -------
    str
        Such as ``"4.2–21.0 %"``, or `NOTHING`.

    Examples
    --------
    >>> interval(0.042, 0.21)
    '4.2–21.0 %'
    """
    if low is None or high is None or _is_missing(low) or _is_missing(high):
        return NOTHING
    return f"{100 * low:.1f}–{100 * high:.1f} %"


def duration(length: timedelta | None) -> str:
    """Write a length of time with its two largest units.

    Parameters
    ----------
    length
        The length, or missing.

    Returns
    -------
    str
        Such as ``"3 h 20 min"``, ``"1.5 s"`` or ``"40 ms"``, or `NOTHING`.

    Examples
    --------
    >>> duration(timedelta(hours=3, minutes=20, seconds=7)), duration(timedelta(milliseconds=1500))
    ('3 h 20 min', '1.5 s')
    >>> duration(timedelta(milliseconds=40))
    '40 ms'
    """
    if length is None or _is_missing(length):
        return NOTHING
    seconds = length.total_seconds()
    if seconds < 0:
        return "-" + duration(-length)
    thousandths, tenths, whole = round(1000 * seconds), round(10 * seconds), round(seconds)
    if 0 < thousandths < 1000:  # noqa: PLR2004 - a second
        return f"{thousandths} ms"
    if tenths < 100:  # noqa: PLR2004 - a digit below ten seconds
        return f"{tenths / 10:g} s"
    for unit, size, smaller, part in _UNITS:
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit} {rest} {smaller}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def milliseconds(count: float | None) -> str:
    """Write milliseconds as a `duration`.

    Parameters
    ----------
    count
        Milliseconds, or missing.

    Returns
    -------
    str
        Such as ``"17.3 s"``, or `NOTHING`.

    Examples
    --------
    >>> milliseconds(9300)
    '9.3 s'
    """
    return NOTHING if count is None or _is_missing(count) else duration(timedelta(milliseconds=float(count)))


def moment(time: datetime | None, tz: str = "UTC") -> str:
    """Write an instant to the minute, with its zone.

    Parameters
    ----------
    time
        A zone-aware instant, or missing.
    tz
        The IANA zone to write it in.

    Returns
    -------
    str
        Such as ``"2026-06-15 09:00 CST"``, or `NOTHING`.

    Examples
    --------
    >>> from datetime import datetime
    >>> moment(datetime.fromisoformat("2026-06-15T01:00Z"), "Asia/Shanghai")
    '2026-06-15 09:00 CST'
    """
    import pandas as pd  # noqa: PLC0415 - see _is_missing

    if time is None or pd.isna(time):
        return NOTHING
    # pandas refuses a time without a zone; Python would take it for the machine's own.
    return pd.Timestamp(time).tz_convert(tz).strftime("%Y-%m-%d %H:%M %Z")


def _is_missing(value: str | float | timedelta | datetime | None) -> bool:
    import pandas as pd  # noqa: PLC0415 - slow to import, and few calls are made where it is not there already

    return bool(pd.isna(value))
