"""What does a schedule say in plain English: first the time of day, then the days?

The description depends on what the cron text matches, not on its spelling: ``1-5`` and ``MON-FRI`` read alike.
"""

from __future__ import annotations

from calendar import monthrange
from itertools import pairwise
from typing import TYPE_CHECKING

from qoderdata.translation import gettext as _
from qoderdata.translation import mark, ngettext

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qoderdata.cron.schedule import Schedule

MONTHS = (
    mark("January"), mark("February"), mark("March"), mark("April"), mark("May"), mark("June"),
    mark("July"), mark("August"), mark("September"), mark("October"), mark("November"), mark("December"),
)  # fmt: skip
#: From Monday, so that a weekend is in a row.
WEEKDAYS = (
    mark("Monday"), mark("Tuesday"), mark("Wednesday"), mark("Thursday"), mark("Friday"), mark("Saturday"),
    mark("Sunday"),
)  # fmt: skip

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
    times, on_days, zone = _times(schedule), days(schedule), schedule.timezone
    if not on_days:
        return _("{times}, {zone}", times=times, zone=zone)
    return _("{times}, {days}, {zone}", times=times, days=on_days, zone=zone)


def _times(schedule: Schedule) -> str:
    hours, minutes = schedule.hours, schedule.minutes
    if len(minutes) == 1 or len(hours) * len(minutes) <= _FEW_TIMES:
        return _at(hours, minutes)
    every = _every_few_minutes(minutes)
    when = every or _("at minutes {minutes}", minutes=numbers(minutes))
    if len(hours) == _HOURS:
        return every or _("{minutes} of every hour", minutes=when)
    if every and hours[-1] - hours[0] == len(hours) - 1:
        return _span(every, f"{hours[0]:02d}:00", f"{hours[-1]:02d}:{minutes[-1]:02d}")
    facts = {"minutes": when, "hours": numbers(hours)}
    if every:
        return ngettext("{minutes} in the hour {hours}", "{minutes} in the hours {hours}", len(hours), **facts)
    return ngettext("{minutes} of the hour {hours}", "{minutes} of the hours {hours}", len(hours), **facts)


def _span(often: str, first: str, last: str) -> str:
    return _("{often} from {first} to {last}", often=often, first=first, last=last)


def _at(hours: Sequence[int], minutes: Sequence[int]) -> str:
    """Describe times of day, one by one or as a range of hours."""
    if len(hours) == _HOURS:
        return _("every hour at minute {minute}", minute=minutes[0])
    is_each = hours[-1] - hours[0] == len(hours) - 1
    often = ngettext("every hour", "every {count} hours", 1) if is_each else _every_from_any(hours)
    if often and len(hours) * len(minutes) > _FEW_TIMES:
        return _span(often, f"{hours[0]:02d}:{minutes[0]:02d}", f"{hours[-1]:02d}:{minutes[0]:02d}")
    return _("at {times}", times=listed([f"{hour:02d}:{minute:02d}" for hour in hours for minute in minutes]))


def _every_few_minutes(values: Sequence[int]) -> str:
    """Return "every n minutes" where the values are evenly spaced over the whole hour, else an empty text."""
    step = _MINUTES // len(values)
    if tuple(values) != tuple(range(0, _MINUTES, step)) or _MINUTES % step:
        return ""
    return ngettext("every minute", "every {count} minutes", step)


def _every_from_any(hours: Sequence[int]) -> str:
    """Return "every n hours" where the hours are evenly spaced over the day, from any hour, else an empty text."""
    step = _HOURS // len(hours)
    even = _HOURS % len(hours) == 0 and all(later - earlier == step for earlier, later in pairwise(hours))
    return ngettext("every hour", "every {count} hours", step) if even else ""


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
        on = ngettext(
            "on day {days} of {months}", "on days {days} of {months}", len(schedule.days),
            days=numbers(schedule.days), months=in_months or _("the month"),
        )  # fmt: skip
        if not on_weekdays:
            sometimes = schedule.days[0] > min(map(days_in_month, schedule.months))
            return _("{days}, where there is one", days=on) if sometimes else on
        facts = {"days": on, "weekdays": _names(week, WEEKDAYS, is_or=True), "months": in_months}
        if not schedule.either_day:
            return _("{days} if that is a {weekdays}", **facts)
        if in_months:
            return _("{days} or any {weekdays} in {months}", **facts)
        return _("{days} or any {weekdays}", **facts)
    if on_weekdays:
        names = _names(week, WEEKDAYS)
        names = _("every {weekday}", weekday=names) if len(week) == 1 else names
    else:
        names = _("every day") if in_months or len(schedule.hours) < _HOURS else ""
    return _("{days} in {months}", days=names, months=in_months) if in_months else names


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
    return listed([_run(*map(str, run)) for run in _runs(values)])


def _run(first: str, last: str | None = None) -> str:
    return first if last is None else _("{first} to {last}", first=first, last=last)


def _names(values: Sequence[int], names: Sequence[str], *, is_or: bool = False) -> str:
    return listed([_run(*(_(names[value - 1]) for value in run)) for run in _runs(values)], is_or=is_or)


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


def listed(words: Sequence[str], *, is_or: bool = False) -> str:
    """Join words with commas, and a word before the last one.

    Parameters
    ----------
    words
        What to join; at least one.
    is_or
        Whether "or" stands before the last one, instead of "and".

    Returns
    -------
    str
        Such as ``"a, b and c"``.

    Examples
    --------
    >>> listed(["09:00", "12:00", "17:00"])
    '09:00, 12:00 and 17:00'
    """
    if len(words) == 1:
        return words[0]
    first, last = _(", ").join(words[:-1]), words[-1]
    return (
        _("{first} or {last}", first=first, last=last)
        if is_or
        else _("{first} and {last}", first=first, last=last)
    )
