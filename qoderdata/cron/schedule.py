"""Which cron texts are valid, and at which instants do they fire in their zone?

A cron text that the service would refuse, or that implementations read differently, is an error and not a guess.
A schedule fires at every instant whose local time in its zone matches the text: a local time that a clock change
skips does not fire, and one that occurs twice fires twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from qoderdata.cron import descriptions
from qoderdata.translation import gettext as _
from qoderdata.translation import mark

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = 86_400

#: Files beside the zones: this machine's own zone, and copies with other rules (right/ counts leap seconds).
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

_LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
#: 29 February on a given weekday can be 40 years away; what is silent for longer never fires.
_SILENCE = 50 * 366 * DAY


class CronError(ValueError):
    """A cron text that cannot be read or never fires, or a zone that does not exist."""


class NeverFiresError(CronError):
    """A cron text that can be read, and has no time to come.

    Attributes
    ----------
    reason : str
        Why.
    """

    def __init__(self, expression: str, reason: str) -> None:
        super().__init__(_("{text} never fires: {reason}", text=repr(expression), reason=reason))
        self.reason = reason


class CronField(NamedTuple):
    """What one of the five fields may hold: whole numbers, or names that count up from the least one."""

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
    """One valid cron text in one zone; made by `parse`.

    Attributes
    ----------
    expression : str
        The cron text, as given.
    timezone : str
        The IANA name of the zone.
    minutes, hours, days, months, weekdays : tuple of int
        What each field matches, ascending; Sunday is 0.
    either_day : bool
        Both day fields are restricted, so that a day matches when either of them does.
    """

    expression: str
    timezone: str
    minutes: tuple[int, ...] = field(repr=False, compare=False)
    hours: tuple[int, ...] = field(repr=False, compare=False)
    days: tuple[int, ...] = field(repr=False, compare=False)
    months: tuple[int, ...] = field(repr=False, compare=False)
    weekdays: tuple[int, ...] = field(repr=False, compare=False)
    either_day: bool = field(repr=False, compare=False)

    def instants(self, start: datetime, end: datetime) -> NDArray[np.datetime64]:
        """Return every instant at which the schedule fires in ``[start, end)``.

        Parameters
        ----------
        start, end
            Zone-aware times.

        Returns
        -------
        numpy.ndarray
            ``datetime64[s]`` in UTC, ascending, without duplicates.

        Examples
        --------
        02:30 does not exist in Berlin on 29 March 2026:

        >>> schedule = parse("30 2 * * *", "Europe/Berlin")
        >>> schedule.instants(datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 3, 31, tzinfo=UTC))
        array(['2026-03-28T01:30:00', '2026-03-30T00:30:00'], dtype='datetime64[s]')
        """
        return self._seconds(whole_seconds(start), whole_seconds(end)).astype("datetime64[s]")

    def following(self, after: datetime) -> Iterator[datetime]:
        """Yield the instants strictly after a time, lazily and without end.

        Parameters
        ----------
        after
            A zone-aware time.

        Yields
        ------
        datetime.datetime
            In UTC, ascending. Ends only where the schedule stays silent for 50 years, as one does whose only
            local time falls into the gap of a yearly clock change, and with the calendar (the year 9999).

        Examples
        --------
        >>> following = parse("0 9 29 2 *", "UTC").following(datetime(2026, 6, 15, tzinfo=UTC))
        >>> next(following).isoformat(), next(following).isoformat()
        ('2028-02-29T09:00:00+00:00', '2032-02-29T09:00:00+00:00')
        """
        begin = heard = whole_seconds(after + timedelta(microseconds=1))
        length = 2 * DAY
        last = whole_seconds(datetime(9999, 12, 30, tzinfo=UTC))
        while begin < last and begin - heard < _SILENCE:
            end = min(begin + length, last)
            for second in self._seconds(begin, end).tolist():
                heard = second
                yield EPOCH + timedelta(seconds=second)
            begin, length = end, min(2 * length, 366 * DAY)

    def describe(self) -> str:
        """Return in plain English when the schedule fires.

        Returns
        -------
        str
            Time of day, days and zone.

        Examples
        --------
        >>> parse("0 9 * * 1-5", "Asia/Shanghai").describe()
        'at 09:00, Monday to Friday, Asia/Shanghai'
        """
        return descriptions.describe(self)

    def wall_times(self, start: int, end: int) -> NDArray[np.int64]:
        """Return the local times in ``[start, end)`` that match, as if the clocks of the zone never changed.

        Parameters
        ----------
        start, end
            Local times, in seconds since 1970-01-01T00:00 local time.

        Returns
        -------
        numpy.ndarray
            Ascending, in the same seconds.

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
        # Within a segment of one offset, local time and UTC run side by side: a skipped time lies in no segment,
        # a repeated one in two.
        parts = []
        for begin, until, offset in segments:
            low, high = np.searchsorted(local, (begin + offset, until + offset))
            parts.append(local[low:high] - offset)
        return np.concatenate(parts)


@lru_cache(maxsize=4096)
def parse(expression: str, timezone: str) -> Schedule:
    """Read a cron text and its zone.

    Parameters
    ----------
    expression
        Five fields (minute, hour, day of month, month, day of week) of ``[0-9A-Za-z*,/-]``: lists, ranges,
        steps (``5/20`` is ``5-59/20``), names JAN-DEC and SUN-SAT in any case; Sunday is 0 or 7.
    timezone
        An IANA name, such as ``"Asia/Shanghai"``.

    Returns
    -------
    Schedule
        The schedule.

    Raises
    ------
    CronError
        The text cannot be read or never fires, or there is no such zone.

    Examples
    --------
    >>> parse("0 9 * * mon-fri", "Asia/Shanghai")
    Schedule(expression='0 9 * * mon-fri', timezone='Asia/Shanghai')
    >>> parse("0 9 30 2 *", "UTC")
    Traceback (most recent call last):
    qoderdata.cron.schedule.NeverFiresError: '0 9 30 2 *' never fires: none of its months has such a day
    """
    texts = split_fields(expression)
    try:
        minutes, hours, days, months, weekdays = map(field_values, texts, FIELDS)
    except CronError as error:
        raise CronError(_("{text} is not a cron text: {error}", text=repr(expression), error=error)) from None
    find_zone(timezone)
    either_day = not (texts[2].startswith("*") or texts[4].startswith("*"))
    if not either_day and min(days) > max(_LONGEST_MONTHS[month - 1] for month in months):
        raise NeverFiresError(expression, _("none of its months has such a day"))
    weekdays = tuple(sorted({weekday % 7 for weekday in weekdays}))
    return Schedule(expression, timezone, minutes, hours, days, months, weekdays, either_day)


@lru_cache(maxsize=4096)
def _lookup_table(values: tuple[int, ...], length: int) -> NDArray[np.bool_]:
    """Return for each number below ``length`` whether it is among the values."""
    return np.isin(np.arange(length), values)


def split_fields(expression: str) -> list[str]:
    """Split a cron text into the texts of its five fields, in upper case.

    Parameters
    ----------
    expression
        The cron text.

    Returns
    -------
    list of str
        Minute, hour, day of month, month, day of week.

    Raises
    ------
    CronError
        It is no text, has other characters than a cron text, or not five fields.

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
                "{text} is not a cron text: write digits, names and * , / - only",
                text=repr(expression[:_SHOWN]),
            )
        )
    texts = expression.upper().split()
    if len(texts) != len(FIELDS):
        raise CronError(
            _(
                "{text} is not a cron text: it has {count} fields, not five",
                text=repr(expression[:_SHOWN]),
                count=len(texts),
            )
        )
    return texts


def field_values(text: str, field: CronField) -> tuple[int, ...]:
    """Return the numbers that one field matches.

    Parameters
    ----------
    text
        The field's text, in upper case.
    field
        Which field it is.

    Returns
    -------
    tuple of int
        Ascending, without duplicates.

    Raises
    ------
    CronError
        Not a list of numbers, names, ranges and steps, or one that is out of bounds or runs backwards.

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
    """Find a zone by its IANA name.

    Parameters
    ----------
    timezone
        The name, such as ``"Asia/Shanghai"``.

    Returns
    -------
    zoneinfo.ZoneInfo
        The zone.

    Raises
    ------
    CronError
        There is no such zone.

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
    """Split ``[start, end)`` where the offset of a zone changes.

    Parameters
    ----------
    timezone
        The zone's IANA name.
    start, end
        In seconds since 1970 in UTC, ``start < end``.

    Returns
    -------
    tuple of OffsetSegment
        In order, without gaps; neighbours differ in their offset.

    Examples
    --------
    >>> night = int(datetime(2026, 10, 25, tzinfo=UTC).timestamp())
    >>> [offset for _, _, offset in offset_segments("Europe/Berlin", night, night + DAY)]
    [7200, 3600]
    """
    zone = find_zone(timezone)

    def offset_at(second: int) -> int:
        offset = (EPOCH + timedelta(seconds=second)).astimezone(zone).utcoffset()
        return 0 if offset is None else offset // timedelta(seconds=1)

    found = []
    begin, offset = start, offset_at(start)
    look = start
    # One look a day finds every change: no zone has changed its offset twice within a week since 1970.
    while look < end - 1:
        before, look = look, min(look + DAY, end - 1)
        new = offset_at(look)
        if new == offset:
            continue
        # The change lies in (before, look]: halve until it is known to the second.
        after = look
        while after - before > 1:
            middle = (before + after) // 2
            before, after = (middle, after) if offset_at(middle) == offset else (before, middle)
        found.append(OffsetSegment(begin, after, offset))
        begin, offset = after, new
    return (*found, OffsetSegment(begin, end, offset))


def whole_seconds(time: datetime) -> int:
    """Return a time in seconds since 1970, rounded up.

    Parameters
    ----------
    time
        A zone-aware time.

    Returns
    -------
    int
        The least whole second that is not before it.

    Raises
    ------
    ValueError
        The time has no zone.

    Examples
    --------
    >>> whole_seconds(datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC))
    2
    """
    if time.utcoffset() is None:
        raise ValueError(f"{time!r} has no time zone")
    return -((EPOCH - time) // timedelta(seconds=1))
