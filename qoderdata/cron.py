"""Which cron texts are valid, at which instants do they fire in their zone, and what do they say in plain English?

A cron text that the service would refuse, or that implementations read differently, is an error and not a guess.
A schedule fires at every instant whose local time in its zone matches the text: a local time that a clock change
skips does not fire, and one that occurs twice fires twice. A description depends on what the text matches, not on
its spelling: that of ``1-5`` and ``MON-FRI`` is the same.

Nothing here knows frames or the network. For many deployments, evaluate each distinct pair of text and zone once.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from calendar import monthrange
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from qoderdata.translation import gettext as _
from qoderdata.translation import mark, ngettext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = 86_400
#: The years 1 to 9999, in seconds since 1970.
_CALENDAR_BEGIN, _CALENDAR_END = -62_135_596_800, 253_402_300_800

#: Names that are no zones: this machine's own zone, and copies of zones with other rules (right/ counts leap
#: seconds).
_NO_ZONES = ("localtime", "posixrules", "Factory")
_NO_FOLDERS = ("posix/", "right/")

#: Everything that a cron text may be made of. Its length is bounded because it comes from elsewhere.
_ALLOWED_TEXT = re.compile(r"[0-9A-Za-z*,/ \t-]{1,1000}")
#: How many characters of a wrong text an error shows.
_SHOWN = 80

#: One item of a comma-separated list: `*`, `a` or `a-b`, each with an optional step.
_ITEM = re.compile(
    r"(?:(?P<star>\*)|(?P<first>[0-9]{1,4}|[A-Z]{3})(?:-(?P<last>[0-9]{1,4}|[A-Z]{3}))?)(?:/(?P<step>[0-9]{1,4}))?"
)

_LEAP_YEAR = 2028
#: 29 February on a given weekday can be 40 years away; a schedule with a longer gap never fires.
_LONGEST_GAP = 50 * 366 * DAY

MONTHS = (
    mark("January"), mark("February"), mark("March"), mark("April"), mark("May"), mark("June"),
    mark("July"), mark("August"), mark("September"), mark("October"), mark("November"), mark("December"),
)  # fmt: skip
#: From Monday, so that Saturday and Sunday are consecutive.
WEEKDAYS = (
    mark("Monday"), mark("Tuesday"), mark("Wednesday"), mark("Thursday"), mark("Friday"), mark("Saturday"),
    mark("Sunday"),
)  # fmt: skip

_MINUTES, _HOURS, _DAYS = 60, 24, 31
#: The most times of day that are listed one by one, and the most numbers of an evenly spaced list.
_FEW_TIMES, _FEW_NUMBERS = 4, 5
#: The fewest consecutive numbers that are written as "a to b".
_SHORTEST_RANGE = 3


class CronError(ValueError):
    """A cron text that cannot be read or never fires, or a zone that does not exist."""


class NeverFiresError(CronError):
    """A cron text that can be read, but has no time in the future.

    Attributes
    ----------
    reason : str
        Why.
    """

    def __init__(self, expression: str, reason: str) -> None:
        super().__init__(_("{text} never fires: {reason}", text=repr(expression), reason=reason))
        self.reason = reason


class CronField(NamedTuple):
    """One of the five fields: its range of whole numbers, and names that count up from the least one."""

    name: str
    least: int
    largest: int
    names: tuple[str, ...] = ()


class OffsetSegment(NamedTuple):
    """A period, ``begin <= t < end``, in which a zone has one offset; all in seconds, from 1970 in UTC."""

    begin: int
    end: int
    offset: int


FIELDS = (
    CronField(mark("minute"), 0, 59),
    CronField(mark("hour"), 0, 23),
    CronField(mark("day of month"), 1, 31),
    CronField(
        mark("month"), 1, 12, ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
    ),
    CronField(mark("day of week"), 0, 7, ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")),
)


@dataclass(frozen=True)
class Schedule:
    """One valid cron text in one zone; made by `parse`."""

    expression: str
    timezone: str
    #: What each field matches, ascending; Sunday is 0.
    minutes: tuple[int, ...] = field(repr=False, compare=False)
    hours: tuple[int, ...] = field(repr=False, compare=False)
    days: tuple[int, ...] = field(repr=False, compare=False)
    months: tuple[int, ...] = field(repr=False, compare=False)
    weekdays: tuple[int, ...] = field(repr=False, compare=False)
    #: Both day fields are restricted, so that a day matches when either of them does.
    either_day: bool = field(repr=False, compare=False)

    def instants(self, start: datetime, end: datetime) -> NDArray[np.datetime64]:
        """Return every instant in ``[start, end)`` at which it fires, in UTC, ascending.

        Examples
        --------
        02:30 does not exist in Berlin on 29 March 2026:

        >>> schedule = parse("30 2 * * *", "Europe/Berlin")
        >>> schedule.instants(datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 3, 31, tzinfo=UTC))
        array(['2026-03-28T01:30:00', '2026-03-30T00:30:00'], dtype='datetime64[s]')
        """
        return self._seconds(whole_seconds(start), whole_seconds(end)).astype("datetime64[s]")

    def following(self, after: datetime) -> Iterator[datetime]:
        """Yield the instants strictly after a time in UTC, ascending, lazily and without end.

        Ends only if the schedule does not fire for 50 years, such as one whose only local time is skipped by a
        yearly clock change, and at the end of the calendar (the year 9999).

        Examples
        --------
        >>> following = parse("0 9 29 2 *", "UTC").following(datetime(2026, 6, 15, tzinfo=UTC))
        >>> next(following).isoformat(), next(following).isoformat()
        ('2028-02-29T09:00:00+00:00', '2032-02-29T09:00:00+00:00')
        """
        begin = last_fired = whole_seconds(after + timedelta(microseconds=1))
        length = 2 * DAY
        last = whole_seconds(datetime(9999, 12, 30, tzinfo=UTC))
        while begin < last and begin - last_fired < _LONGEST_GAP:
            end = min(begin + length, last)
            for second in self._seconds(begin, end).tolist():
                last_fired = second
                yield EPOCH + timedelta(seconds=second)
            begin, length = end, min(2 * length, 366 * DAY)

    def describe(self) -> str:
        """Return in plain English when the schedule fires: time of day, days and zone.

        Examples
        --------
        >>> parse("0 9 * * 1-5", "Asia/Shanghai").describe()
        'at 09:00, Monday to Friday, Asia/Shanghai'
        >>> parse("*/15 8-17 1,15 * MON", "UTC").describe()
        'every 15 minutes from 08:00 to 17:45, on days 1 and 15 of the month or any Monday, UTC'
        """
        times, days, zone = _describe_times(self), describe_days(self), self.timezone
        if not days:
            return _("{times}, {zone}", times=times, zone=zone)
        return _("{times}, {days}, {zone}", times=times, days=days, zone=zone)

    def wall_times(self, start: int, end: int) -> NDArray[np.int64]:
        """Return the local times in ``[start, end)`` that match, as if the clocks of the zone never changed.

        All are in seconds since 1970-01-01T00:00 local time, ascending.

        Examples
        --------
        >>> parse("30 2 * * *", "Europe/Berlin").wall_times(0, 2 * DAY)
        array([ 9000, 95400])
        """
        days = np.arange(start // DAY, -(-end // DAY))
        dates = days.astype("datetime64[D]")
        months = dates.astype("datetime64[M]")
        on_day = _lookup_table(self.days, 32)[(dates - months).astype(np.int64) + 1]
        on_weekday = _lookup_table(self.weekdays, 7)[(days + 4) % 7]
        on = (on_day | on_weekday) if self.either_day else (on_day & on_weekday)
        on &= _lookup_table(self.months, 13)[months.astype(np.int64) % 12 + 1]
        of_day = np.add.outer(np.array(self.hours) * 3600, np.array(self.minutes) * 60).ravel()
        times: NDArray[np.int64] = np.add.outer(days[on] * DAY, of_day).ravel()
        low, high = np.searchsorted(times, (start, end))
        return times[low:high]

    def _seconds(self, start: int, end: int) -> NDArray[np.int64]:
        """Return the instants in ``[start, end)``, in seconds since 1970 in UTC."""
        if start >= end:
            return np.empty(0, np.int64)
        segments = offset_segments(self.timezone, start, end)
        offsets = [offset for _, _, offset in segments]
        local = self.wall_times(start + min(offsets), end + max(offsets))
        # Within a segment, local time differs from UTC by one offset: a skipped local time lies in no segment, a
        # repeated one in two.
        parts = []
        for begin, until, offset in segments:
            low, high = np.searchsorted(local, (begin + offset, until + offset))
            parts.append(local[low:high] - offset)
        return np.concatenate(parts)


@lru_cache(maxsize=4096)
def parse(expression: str, timezone: str) -> Schedule:
    """Read a cron text and its IANA zone.

    Five fields (minute, hour, day of month, month, day of week) of ``[0-9A-Za-z*,/-]``: lists, ranges, steps
    (``5/20`` is ``5-59/20``), names JAN-DEC and SUN-SAT in any case; Sunday is 0 or 7. Raise `CronError` if the
    text cannot be read or never fires, or there is no such zone.

    Examples
    --------
    >>> parse("0 9 * * mon-fri", "Asia/Shanghai")
    Schedule(expression='0 9 * * mon-fri', timezone='Asia/Shanghai')
    >>> parse("0 9 30 2 *", "UTC")
    Traceback (most recent call last):
    qoderdata.cron.NeverFiresError: '0 9 30 2 *' never fires: none of its months has such a day
    """
    texts = split_fields(expression)
    try:
        minutes, hours, days, months, weekdays = map(field_values, texts, FIELDS)
    except CronError as error:
        raise CronError(_("{text} is not a cron text: {error}", text=repr(expression), error=error)) from None
    find_zone(timezone)
    either_day = not (texts[2].startswith("*") or texts[4].startswith("*"))
    if not either_day and min(days) > max(monthrange(_LEAP_YEAR, month)[1] for month in months):
        raise NeverFiresError(expression, _("none of its months has such a day"))
    weekdays = tuple(sorted({weekday % 7 for weekday in weekdays}))
    return Schedule(expression, timezone, minutes, hours, days, months, weekdays, either_day)


@lru_cache(maxsize=4096)
def _lookup_table(values: tuple[int, ...], length: int) -> NDArray[np.bool_]:
    """Return for each number below ``length`` whether it is among the values."""
    return np.isin(np.arange(length), values)


def split_fields(expression: str) -> list[str]:
    """Split a cron text into the texts of its five fields, in upper case; raise `CronError` if it has not five.

    Examples
    --------
    >>> split_fields("0 9 * * mon-fri")
    ['0', '9', '*', '*', 'MON-FRI']
    """
    if not isinstance(expression, str):
        raise CronError(_("{text} is not a cron text", text=repr(expression)))
    if not _ALLOWED_TEXT.fullmatch(expression):
        raise CronError(
            _(
                "{text} is not a cron text: write digits, names and * , / - only, at most 1,000",
                text=repr(expression[:_SHOWN]),
            )
        )
    texts = expression.upper().split()
    if len(texts) != len(FIELDS):
        raise CronError(
            ngettext(
                "{text} is not a cron text: it has {count} field, not five",
                "{text} is not a cron text: it has {count} fields, not five",
                len(texts),
                text=repr(expression[:_SHOWN]),
            )
        )
    return texts


def field_values(text: str, field: CronField) -> tuple[int, ...]:
    """Return the numbers that a field's text in upper case matches, ascending; raise `CronError` for another.

    Examples
    --------
    >>> field_values("5/20,*/30", FIELDS[0])
    (0, 5, 25, 30, 45)
    """
    found: set[int] = set()
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise CronError(
                _(
                    "{text} is no {field}, no range of them and no step",
                    text=repr(item[:_SHOWN]),
                    field=_(field.name),
                )
            )
        step = int(match["step"] or 1)
        if step == 0:
            raise CronError(_("the {field} {text} has a step of 0", field=_(field.name), text=repr(item)))
        first = field.least if match["star"] else _number(match["first"], field)
        # `*`, and a step without a range, run to the field's end.
        is_open = match["star"] or (match["step"] and not match["last"])
        last = field.largest if is_open else _number(match["last"] or match["first"], field)
        if first > last:
            raise CronError(
                _("the range {text} of the {field} runs backwards", text=repr(item), field=_(field.name))
            )
        found.update(range(first, last + 1, step))
    return tuple(sorted(found))


def _number(word: str, field: CronField) -> int:
    if word in field.names:
        return field.names.index(word) + field.least
    if not word.isdigit() or not field.least <= int(word) <= field.largest:
        raise CronError(
            _(
                "{text} is no {field} ({least} to {largest})",
                text=repr(word),
                field=_(field.name),
                least=field.least,
                largest=field.largest,
            )
        )
    return int(word)


def find_zone(timezone: str) -> ZoneInfo:
    """Find a zone by its IANA name; raise `CronError` if there is no such zone.

    Examples
    --------
    >>> find_zone("Asia/Shanghai").key
    'Asia/Shanghai'
    """
    try:
        if timezone not in _NO_ZONES and not timezone.startswith(_NO_FOLDERS):
            return ZoneInfo(timezone)
        reason = None
    except (ZoneInfoNotFoundError, ValueError, TypeError, AttributeError, OSError) as error:
        reason = error
    raise CronError(
        _("{text} is not an IANA time zone, like 'Asia/Shanghai' or 'UTC'", text=f"{timezone!r:.80}")
    ) from reason


@lru_cache(maxsize=4096)
def offset_segments(timezone: str, start: int, end: int) -> tuple[OffsetSegment, ...]:
    """Split ``[start, end)``, in seconds since 1970 in UTC, where the offset of a zone changes.

    Examples
    --------
    >>> night = int(datetime(2026, 10, 25, tzinfo=UTC).timestamp())
    >>> [offset for _, _, offset in offset_segments("Europe/Berlin", night, night + DAY)]
    [7200, 3600]
    """
    zone = find_zone(timezone)

    def offset_at(second: int) -> int:
        # Local times may lie outside of the calendar in its first and last day, in which no offset changes.
        second = min(max(second, _CALENDAR_BEGIN + DAY), _CALENDAR_END - DAY)
        offset = (EPOCH + timedelta(seconds=second)).astimezone(zone).utcoffset()
        return 0 if offset is None else offset // timedelta(seconds=1)

    # One check a day finds every change: no zone has changed its offset twice within a week since 1970.
    days = [*range(start, end - 1, DAY), end - 1]
    changes = [
        before + bisect_left(range(before, after), True, key=lambda at: offset_at(at) != old)  # noqa: FBT003 - its signature
        for (before, old), (after, new) in pairwise((day, offset_at(day)) for day in days)
        if old != new
    ]
    return tuple(OffsetSegment(*ends, offset_at(ends[0])) for ends in pairwise([start, *changes, end]))


def whole_seconds(time: datetime) -> int:
    """Return a zone-aware time in seconds since 1970, rounded up; raise `ValueError` without a zone.

    Examples
    --------
    >>> whole_seconds(datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC))
    2
    """
    if time.utcoffset() is None:
        raise ValueError(f"{time!r} has no time zone")
    return -((EPOCH - time) // timedelta(seconds=1))


# -- descriptions ------------------------------------------------------------------------------------------------


def _describe_times(schedule: Schedule) -> str:
    hours, minutes = schedule.hours, schedule.minutes
    if len(minutes) == 1 or len(hours) * len(minutes) <= _FEW_TIMES:
        return _describe_times_of_day(hours, minutes)
    step = _even_step(minutes, _MINUTES)
    every = ngettext("every minute", "every {count} minutes", step) if step and minutes[0] == 0 else ""
    when = every or _("at minutes {minutes}", minutes=describe_numbers(minutes))
    if len(hours) == _HOURS:
        return every or _("{minutes} of every hour", minutes=when)
    if every and hours[-1] - hours[0] == len(hours) - 1:
        return _from_to(every, f"{hours[0]:02d}:00", f"{hours[-1]:02d}:{minutes[-1]:02d}")
    facts = {"minutes": when, "hours": describe_numbers(hours)}
    if every:
        return ngettext("{minutes} in the hour {hours}", "{minutes} in the hours {hours}", len(hours), **facts)
    return ngettext("{minutes} of the hour {hours}", "{minutes} of the hours {hours}", len(hours), **facts)


def _from_to(often: str, first: str, last: str) -> str:
    return _("{often} from {first} to {last}", often=often, first=first, last=last)


def _describe_times_of_day(hours: Sequence[int], minutes: Sequence[int]) -> str:
    """Describe times of day, one by one or as a range of hours."""
    if len(hours) == _HOURS:
        return _("every hour at minute {minute}", minute=minutes[0])
    step = 1 if hours[-1] - hours[0] == len(hours) - 1 else _even_step(hours, _HOURS)
    if step and len(hours) * len(minutes) > _FEW_TIMES:
        often = ngettext("every hour", "every {count} hours", step)
        return _from_to(often, f"{hours[0]:02d}:{minutes[0]:02d}", f"{hours[-1]:02d}:{minutes[0]:02d}")
    return _("at {times}", times=join_words([f"{hour:02d}:{minute:02d}" for hour in hours for minute in minutes]))


def _even_step(values: Sequence[int], whole: int) -> int:
    """Return the step of values that are evenly spaced over a whole hour or day, from any value on; else 0."""
    step, rest = divmod(whole, len(values))
    is_even = rest == 0 and all(later - earlier == step for earlier, later in pairwise(values))
    return step if is_even else 0


def describe_days(schedule: Schedule) -> str:
    """Describe on which days a schedule fires; empty if it is every hour of every day.

    Examples
    --------
    >>> describe_days(parse("0 9 13 * FRI", "UTC"))
    'on day 13 of the month or any Friday'
    """
    on_days = len(schedule.days) < _DAYS
    on_weekdays = len(schedule.weekdays) < len(WEEKDAYS)
    # If either field is enough and one of them matches every day, the schedule fires every day.
    if schedule.either_day and not (on_days and on_weekdays):
        on_days = on_weekdays = False
    in_months = "" if len(schedule.months) == len(MONTHS) else describe_months(schedule.months)
    week = sorted(day or len(WEEKDAYS) for day in schedule.weekdays)
    if on_days:
        on = ngettext(
            "on day {days} of {months}", "on days {days} of {months}", len(schedule.days),
            days=describe_numbers(schedule.days), months=in_months or _("the month"),
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


def describe_months(values: Sequence[int]) -> str:
    """Write the names of months, 1 to 12 and ascending; three or more consecutive ones as "a to b".

    Examples
    --------
    >>> describe_months([1, 6, 7, 8])
    'January and June to August'
    """
    return _names(values, MONTHS)


def days_in_month(month: int) -> int:
    """Return how many days a month, 1 to 12, has at least.

    Examples
    --------
    >>> days_in_month(2), days_in_month(6), days_in_month(7)
    (28, 30, 31)
    """
    return monthrange(2026, month)[1]


def describe_numbers(values: Sequence[int]) -> str:
    """Write ascending numbers: consecutive ones as "a to b", a long evenly spaced list as "a, b, ..., z".

    Examples
    --------
    >>> describe_numbers([0, 15]), describe_numbers([1, 2, 3, 9]), describe_numbers(range(0, 60, 7))
    ('0 and 15', '1 to 3 and 9', '0, 7, …, 56')
    """
    steps = {later - earlier for earlier, later in pairwise(values)}
    if len(values) > _FEW_NUMBERS and len(steps) == 1 and steps != {1}:
        return f"{values[0]}, {values[1]}, …, {values[-1]}"
    return join_words(_ranges(values, str))


def _names(values: Sequence[int], names: Sequence[str], *, is_or: bool = False) -> str:
    return join_words(_ranges(values, lambda value: _(names[value - 1])), is_or=is_or)


def _ranges(values: Sequence[int], write: Callable[[int], str]) -> list[str]:
    """Write each three or more consecutive numbers as "a to b", and all others one by one."""
    found: list[str] = []
    for part in np.split(values, np.flatnonzero(np.diff(values) != 1) + 1):
        words = [write(number) for number in part.tolist()]
        if len(words) >= _SHORTEST_RANGE:
            words = [_("{first} to {last}", first=words[0], last=words[-1])]
        found += words
    return found


def join_words(words: Sequence[str], *, is_or: bool = False) -> str:
    """Join words with commas, and "and" or "or" before the last one.

    Examples
    --------
    >>> join_words(["09:00", "12:00", "17:00"])
    '09:00, 12:00 and 17:00'
    """
    if len(words) == 1:
        return words[0]
    first, last = _(", ").join(words[:-1]), words[-1]
    if is_or:
        return _("{first} or {last}", first=first, last=last)
    return _("{first} and {last}", first=first, last=last)
