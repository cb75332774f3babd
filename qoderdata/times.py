"""What a caller may write for a time, an age and a zone, and what it means.

A time without a zone is an error, never a guess; everything comes out in UTC.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

if TYPE_CHECKING:
    import pandas as pd

#: What may stand for an instant: ISO 8601 text with an offset, or a zone-aware datetime.
Instant = str | datetime
#: What may stand for a length of time: anything `pandas.Timedelta` takes.
Span = str | timedelta

_WINDOW = re.compile(r"([1-9][0-9]{0,5})?(min|h|D|W)")
#: What `pandas.Timedelta` takes at most, 292 years.
_LONGEST = timedelta(days=106_751)
_UNITS = {
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "D": timedelta(days=1),
    "W": timedelta(weeks=1),
}


def instant(value: Instant, *, name: str) -> pd.Timestamp:
    """Read an instant.

    Parameters
    ----------
    value
        ISO 8601 text with an offset (``"2026-06-15T00:00Z"``), or a zone-aware datetime.
    name
        The parameter's name, for the message.

    Returns
    -------
    pandas.Timestamp
        The same instant in UTC, in microseconds.

    Raises
    ------
    ValueError
        The value is not a time, or has no zone.

    Examples
    --------
    >>> instant("2026-06-15T09:00+08:00", name="since")
    Timestamp('2026-06-15 01:00:00+0000', tz='UTC')
    """
    import pandas as pd  # noqa: PLC0415 - slow to import, and most pulls are given no time

    try:
        stamp = pd.Timestamp(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}={value!r} is not a time; write one like '2026-06-15T00:00Z'") from error
    if pd.isna(stamp):
        raise ValueError(f"{name}={value!r} is not a time; write one like '2026-06-15T00:00Z'")
    if stamp.tzinfo is None:
        raise ValueError(f"{name}={value!r} has no time zone; write one, like '2026-06-15T00:00Z' for UTC")
    return stamp.tz_convert("UTC").as_unit("us")


def span(value: Span, *, name: str) -> timedelta:
    """Read a length of time that is not negative.

    Parameters
    ----------
    value
        Anything `pandas.Timedelta` takes: ``"15min"``, ``"7D"``, a `datetime.timedelta`.
    name
        The parameter's name, for the message.

    Returns
    -------
    datetime.timedelta
        The length, in microseconds.

    Raises
    ------
    ValueError
        The value is not a length of time, or is negative.

    Examples
    --------
    >>> span("15min", name="max_age"), span("1 days 12:00:00", name="max_age")
    (datetime.timedelta(seconds=900), datetime.timedelta(days=1, seconds=43200))
    """
    usual = _WINDOW.fullmatch(value) if isinstance(value, str) else None
    if usual is not None and usual[1] is not None and int(usual[1]) * _UNITS[usual[2]] <= _LONGEST:
        return int(usual[1]) * _UNITS[usual[2]]
    import pandas as pd  # noqa: PLC0415 - slow to import, and a pull whose age is written as usual has no need of it

    try:
        length = pd.Timedelta(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}={value!r} is not a length of time; write one like '15min' or '7D'") from error
    if pd.isna(length) or length < pd.Timedelta(0):
        raise ValueError(f"{name}={value!r} is not a length of time; write one like '15min' or '7D'")
    return length.as_unit("us").to_pytimedelta()


def moment(value: Instant | Span, *, now: datetime, name: str) -> pd.Timestamp:
    """Read an instant, or an age before now.

    Parameters
    ----------
    value
        What `instant` takes, or what `span` takes.
    now
        What an age is counted back from; zone-aware.
    name
        The parameter's name, for the message.

    Returns
    -------
    pandas.Timestamp
        The instant in UTC, in microseconds.

    Raises
    ------
    ValueError
        The value is neither, or is a time without a zone.

    Examples
    --------
    >>> moment("30D", now=datetime.fromisoformat("2026-06-15T09:00+00:00"), name="since")
    Timestamp('2026-05-16 09:00:00+0000', tz='UTC')
    """
    if isinstance(value, datetime):
        return instant(value, name=name)
    try:
        age = span(value, name=name)
    except ValueError as not_an_age:
        try:
            return instant(str(value), name=name)
        except ValueError as error:
            raise ValueError(f"{error}; or an age, like '30D'") from not_an_age
    return instant(now, name="now") - age


def zone(key: str, *, name: str = "tz") -> ZoneInfo:
    """Read an IANA time zone.

    Parameters
    ----------
    key
        An IANA name, such as ``"Asia/Shanghai"`` or ``"UTC"``.
    name
        The parameter's name, for the message.

    Returns
    -------
    zoneinfo.ZoneInfo
        The zone.

    Raises
    ------
    ValueError
        There is no such zone.

    Examples
    --------
    >>> zone("Asia/Shanghai").key
    'Asia/Shanghai'
    """
    try:
        return ZoneInfo(key)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name}={key!r} is not an IANA time zone, like 'Asia/Shanghai' or 'UTC'") from error


def window(freq: str, *, name: str = "freq") -> timedelta:
    """Read the length of windows of time.

    Parameters
    ----------
    freq
        A count (1 where left out) and ``min``, ``h``, ``D`` or ``W``. What is shorter than a day must fill it
        evenly.
    name
        The parameter's name, for the message.

    Returns
    -------
    datetime.timedelta
        The length; of a day or more, it counts days of the wall clock.

    Raises
    ------
    ValueError
        Not such a text, or a part of a day that does not fill days evenly.

    Examples
    --------
    >>> window("15min"), window("1D")
    (datetime.timedelta(seconds=900), datetime.timedelta(days=1))
    """
    match = _WINDOW.fullmatch(freq) if isinstance(freq, str) else None
    if match is None:
        raise ValueError(
            f"{name}={freq!r} must be a count with min, h, D or W, such as '15min', '1h', '1D' or '1W'"
        )
    length = int(match[1] or 1) * _UNITS[match[2]]
    if match[2] in {"min", "h"} and (length >= _UNITS["D"] or _UNITS["D"] % length):
        raise ValueError(
            f"{name}={freq!r} must fill a day evenly, such as '30min' or '6h'; whole days are written '1D'"
        )
    return length
