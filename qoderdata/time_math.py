"""Compute with times: microseconds since 1970, differences, and windows of time in a zone.

The integers are exact, and reach over all years of `datetime`.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MICROSECOND = timedelta(microseconds=1)
#: Lengths of time in microseconds. 1970 began on a Thursday, so the first Monday is 4 days later.
SECOND_MICROS, MINUTE_MICROS, HOUR_MICROS, DAY_MICROS = 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000
WEEK_MICROS, FIRST_MONDAY_MICROS = 7 * DAY_MICROS, 4 * DAY_MICROS
#: The length of the shortest month.
_MONTH_MICROS = 28 * DAY_MICROS
#: The most windows of time that one result may have.
MAX_WINDOWS = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_micros(time: datetime) -> int:
    """Return a zone-aware time in microseconds since 1970 in UTC."""
    return (time - _EPOCH) // MICROSECOND


def from_micros(microseconds: int) -> datetime:
    """Return microseconds since 1970 as a time in UTC."""
    return _EPOCH + microseconds * MICROSECOND


def earlier(time: datetime, span: timedelta) -> datetime:
    """Return a time minus a span, or the first instant of year 1 if the difference is before that.

    Examples
    --------
    >>> earlier(datetime.fromisoformat("0001-01-01T00:30+00:00"), timedelta(hours=1)).isoformat()
    '0001-01-01T00:00:00+00:00'
    """
    try:
        return time - span
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def window_origin(length: int) -> int:
    """Return the wall-clock time from which windows of whole days are counted, in microseconds as `length` is."""
    return FIRST_MONDAY_MICROS if length % WEEK_MICROS == 0 else 0


def list_windows(
    first: int, last: int, length: int | None, zone: tzinfo, *, column: str, groups: int = 1
) -> dict[int, int]:
    """Return the windows from that of the first time to that of the last: when each begins, with its label.

    If `length` is a day or more, or ``None`` for calendar months, `first`, `last` and the labels are wall-clock
    times, and a label is the time at which the window begins. Shorter windows are counted from each local
    midnight, and all times are in UTC. All is in microseconds since 1970. Each of `groups` has all windows. Raise
    `ValueError` for too many windows, or times at the ends of the calendar.

    Examples
    --------
    >>> from zoneinfo import ZoneInfo
    >>> night = to_micros(datetime(2026, 3, 29, tzinfo=UTC))  # clocks skip an hour
    >>> days = list_windows(night, night + DAY_MICROS, DAY_MICROS, ZoneInfo("Europe/Berlin"), column="trigger_at")
    >>> [from_micros(begin).isoformat() for begin in days]
    ['2026-03-28T23:00:00+00:00', '2026-03-29T22:00:00+00:00']
    """
    require_few_windows(first, last, length or _MONTH_MICROS, column=column, groups=groups)
    try:
        if length is None or length >= DAY_MICROS:
            labels = _months(first, last) if length is None else _days(first, last, length)
            # A day that a zone skipped begins when the next one does, and is no window.
            return {_first_instant(label, zone): label for label in labels}
        from_, to = (to_micros(from_micros(at).astimezone(zone).replace(tzinfo=UTC)) for at in (first, last))
        midnights = dict.fromkeys(
            _first_instant(day, zone) for day in range(from_ - from_ % DAY_MICROS, to + 1, DAY_MICROS)
        )
    except OverflowError:
        raise no_windows_error(column, str(zone)) from None
    begins = [at for start, end in pairwise([*midnights, last + 1]) for at in range(start, end, length)]
    return {at: at for at in begins[bisect_right(begins, first) - 1 :]}


def _days(first: int, last: int, length: int) -> Iterable[int]:
    """Return the labels of windows of whole days."""
    return range(first - (first - window_origin(length)) % length, last + 1, length)


def _months(first: int, last: int) -> Iterator[int]:
    """Yield the labels of calendar months."""
    month = from_micros(first - first % DAY_MICROS).replace(day=1)
    while to_micros(month) <= last:
        yield to_micros(month)
        month = (month + timedelta(days=31)).replace(day=1)


def require_few_windows(first: int, last: int, length: int, *, column: str, groups: int = 1) -> None:
    """Raise if there are too many windows of time, as one wrong time in the year 1 or 9999 would make.

    Times and the length are in microseconds; each of `groups` has all windows. Raise `ValueError` for more windows
    than `MAX_WINDOWS`, or ten times as many rows; the message names the column and both times.

    Examples
    --------
    >>> require_few_windows(0, 10**12, 60_000_000, column="triggered_at")
    """
    windows = (last - first) // length + 1
    if windows <= MAX_WINDOWS and windows * groups <= 10 * MAX_WINDOWS:
        return
    begin, end = (_format_instant(micros) for micros in (first, last))
    shared = f" for each of {groups:,} groups" if groups > 1 else ""
    error = ValueError(
        f"{column} reaches from {begin} to {end}, which makes {windows:,} windows{shared}, too many to list; "
        "choose longer windows, such as freq='1W', or a shorter period"
    )
    condition = f"frame[{column!r}] > '2020-01-01T00:00Z'"
    error.add_note(f"If one of the two is wrong, leave its row out, as in frame[{condition}].")
    raise error


def no_windows_error(column: str, zone: str) -> ValueError:
    """Return the error for times at the ends of the calendar."""
    error = ValueError(f"{column} reaches to an end of the years 1 to 9999, where there are no windows in {zone}")
    condition = f"frame[{column!r}].between('2000-01-01T00:00Z', '2100-01-01T00:00Z')"
    error.add_note(f"Leave its row out, as in frame[{condition}].")
    return error


def _first_instant(wall: int, zone: tzinfo) -> int:
    """Return the first instant of a wall-clock time; a skipped one has the offset before the change."""
    return to_micros(from_micros(wall).replace(tzinfo=zone))


def _format_instant(micros: int) -> str:
    # The wall clock may show a day before year 1 or after year 9999.
    first, last = to_micros(datetime.min.replace(tzinfo=UTC)), to_micros(datetime.max.replace(tzinfo=UTC))
    return from_micros(min(max(micros, first), last)).isoformat(timespec="minutes").replace("+00:00", "Z")
