"""What does a schedule say in plain English: first the time of day, then the days?

The description depends on what the cron text matches, not on its spelling: ``1-5`` and ``MON-FRI`` read alike.
"""

from __future__ import annotations

from calendar import monthrange
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qoderdata.cron.schedule import Schedule

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
#: From Monday, so that a weekend is in a row.
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_MINUTES, _HOURS, _DAYS = 60, 24, 31
#: So many times of day are listed one by one, and so many numbers of a regular row.
_FEW_TIMES, _FEW_NUMBERS = 4, 5
_RUN = 3


def describe(schedule: Schedule) -> str:
    """Describe when a schedule fires.

    Parameters
    ----------
    schedule
        The schedule.

    Returns
    -------
    str
        Time of day, days and zone, separated by commas.

    Examples
    --------
    >>> from qoderdata.cron import parse
    >>> describe(parse("0 9 * * 1-5", "Asia/Shanghai"))
    'at 09:00, Monday to Friday, Asia/Shanghai'
    >>> describe(parse("*/15 8-17 1,15 * MON", "UTC"))
    'every 15 minutes from 08:00 to 17:45, on days 1 and 15 of the month or any Monday, UTC'
    """
    return ", ".join(part for part in (_times(schedule), days(schedule), schedule.timezone) if part)


def _times(schedule: Schedule) -> str:
    hours, minutes = schedule.hours, schedule.minutes
    if len(minutes) == 1 or len(hours) * len(minutes) <= _FEW_TIMES:
        return _at(hours, minutes)
    every = _every(minutes, _MINUTES, "minute")
    when = every or f"at minutes {numbers(minutes)}"
    if len(hours) == _HOURS:
        return every or f"{when} of every hour"
    if every and hours[-1] - hours[0] == len(hours) - 1:
        return f"{every} from {hours[0]:02d}:00 to {hours[-1]:02d}:{minutes[-1]:02d}"
    return f"{when} {'in' if every else 'of'} the hour{'s' if len(hours) > 1 else ''} {numbers(hours)}"


def _at(hours: Sequence[int], minutes: Sequence[int]) -> str:
    """Describe times of day, one by one or as a range of hours."""
    if len(hours) == _HOURS:
        return f"every hour at minute {minutes[0]}"
    often = "every hour" if hours[-1] - hours[0] == len(hours) - 1 else _every_from_any(hours)
    if often and len(hours) * len(minutes) > _FEW_TIMES:
        return f"{often} from {hours[0]:02d}:{minutes[0]:02d} to {hours[-1]:02d}:{minutes[0]:02d}"
    return "at " + listed([f"{hour:02d}:{minute:02d}" for hour in hours for minute in minutes])


def _every(values: Sequence[int], size: int, unit: str) -> str:
    """Return "every n minutes" where the values are evenly spaced over the whole size, else an empty text."""
    step = size // len(values)
    if tuple(values) != tuple(range(0, size, step)) or size % step:
        return ""
    return f"every {unit}" if step == 1 else f"every {step} {unit}s"


def _every_from_any(hours: Sequence[int]) -> str:
    """Return "every n hours" where the hours are evenly spaced over the day, from any hour, else an empty text."""
    step = _HOURS // len(hours)
    even = _HOURS % len(hours) == 0 and all(later - earlier == step for earlier, later in pairwise(hours))
    return f"every {step} hours" if even else ""


def days(schedule: Schedule) -> str:
    """Describe on which days a schedule fires.

    Parameters
    ----------
    schedule
        The schedule.

    Returns
    -------
    str
        Such as ``"Monday to Friday in June"``; empty where it is every hour of every day.

    Examples
    --------
    >>> from qoderdata.cron import parse
    >>> days(parse("0 9 13 * FRI", "UTC"))
    'on day 13 of the month or any Friday'
    """
    on_days = len(schedule.days) < _DAYS
    on_weekdays = len(schedule.weekdays) < len(WEEKDAYS)
    # Either field matches, and one of them matches every day: then every day it is.
    if schedule.either_day and not (on_days and on_weekdays):
        on_days = on_weekdays = False
    in_months = "" if len(schedule.months) == len(MONTHS) else months(schedule.months)
    week = sorted(day or len(WEEKDAYS) for day in schedule.weekdays)
    if on_days:
        on = (
            f"on day{'s' if len(schedule.days) > 1 else ''} {numbers(schedule.days)} of {in_months or 'the month'}"
        )
        if not on_weekdays:
            sometimes = schedule.days[0] > min(map(days_in_month, schedule.months))
            return f"{on}, where there is one" if sometimes else on
        names = _names(week, WEEKDAYS, word="or")
        if schedule.either_day:
            return f"{on} or any {names}" + (f" in {in_months}" if in_months else "")
        return f"{on} if that is a {names}"
    if on_weekdays:
        names = ("every " if len(week) == 1 else "") + _names(week, WEEKDAYS)
    else:
        names = "every day" if in_months or len(schedule.hours) < _HOURS else ""
    return f"{names} in {in_months}" if in_months else names


def months(values: Sequence[int]) -> str:
    """Write the names of months.

    Parameters
    ----------
    values
        1 to 12, ascending.

    Returns
    -------
    str
        Three or more in a row as "a to b".

    Examples
    --------
    >>> months([1, 6, 7, 8])
    'January and June to August'
    """
    return _names(values, MONTHS)


def days_in_month(month: int) -> int:
    """Return how many days a month has at least.

    Parameters
    ----------
    month
        1 to 12.

    Returns
    -------
    int
        28 to 31.

    Examples
    --------
    >>> days_in_month(2), days_in_month(6), days_in_month(7)
    (28, 30, 31)
    """
    return monthrange(2026, month)[1]


def numbers(values: Sequence[int]) -> str:
    """Write numbers: a row without gaps as "a to b", a long regular one as "a, b, ..., z".

    Parameters
    ----------
    values
        Ascending.

    Returns
    -------
    str
        The words.

    Examples
    --------
    >>> numbers([0, 15]), numbers([1, 2, 3, 9]), numbers(range(0, 60, 7))
    ('0 and 15', '1 to 3 and 9', '0, 7, …, 56')
    """
    steps = {later - earlier for earlier, later in pairwise(values)}
    if len(values) > _FEW_NUMBERS and len(steps) == 1 and steps != {1}:
        return f"{values[0]}, {values[1]}, …, {values[-1]}"
    return listed([" to ".join(map(str, run)) for run in _runs(values)])


def _names(values: Sequence[int], names: Sequence[str], *, word: str = "and") -> str:
    return listed([" to ".join(names[value - 1] for value in run) for run in _runs(values)], word=word)


def _runs(values: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the two ends of each run of three or more consecutive numbers, and all others one by one."""
    rows: list[list[int]] = []
    for value in values:
        if rows and value - rows[-1][-1] == 1:
            rows[-1].append(value)
        else:
            rows.append([value])
    found: list[tuple[int, ...]] = []
    for row in rows:
        found.extend([(row[0], row[-1])] if len(row) >= _RUN else [(value,) for value in row])
    return found


def listed(words: Sequence[str], *, word: str = "and") -> str:
    """Join words with commas, and a word before the last one.

    Parameters
    ----------
    words
        What to join; at least one.
    word
        What stands before the last one.

    Returns
    -------
    str
        Such as ``"a, b and c"``.

    Examples
    --------
    >>> listed(["09:00", "12:00", "17:00"])
    '09:00, 12:00 and 17:00'
    """
    return f" {word} ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
