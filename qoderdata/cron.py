"""One cron text in one zone: is it valid, what does it say in words, when does it fire.

Wall-clock matching: a schedule fires at every instant whose local rendering in its zone matches the text. So
a local time that a clock change skips does not fire, and one that occurs twice fires twice. Knows nothing of
frames and of the network; for many deployments, evaluate each distinct pair of text and zone once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_DAYS_IN_MONTH = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class _Field(NamedTuple):
    """What one of the five fields may hold: whole numbers, or names that count up from the least one."""

    name: str
    least: int
    largest: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _WEEKDAYS),
)

#: One item of a comma-separated list: `*`, `a` or `a-b`, each with an optional step.
_ITEM = re.compile(
    r"(?:(?P<star>\*)|(?P<first>[0-9]{1,4}|[A-Z]{3})(?:-(?P<last>[0-9]{1,4}|[A-Z]{3}))?)(?:/(?P<step>[0-9]{1,4}))?"
)

#: Everything that a cron text may be made of. Its length is bounded because it comes from elsewhere.
_ALPHABET = re.compile(r"[0-9A-Za-z*,/ \t-]{1,1000}")
_SHOWN = 80

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400
#: Between two looks at a zone's offset, in seconds. No zone has changed its offset twice within a week since 1970.
_LOOK = _DAY
#: 29 February on a given weekday can be 40 years away; what is silent for longer never fires.
_SILENCE = 50 * 366 * _DAY


class CronError(ValueError):
    """A cron text that cannot be read or never fires, or a zone that does not exist."""


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
        """List every instant at which the schedule fires in ``[start, end)``.

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
        return self._seconds(_whole_seconds(start), _whole_seconds(end)).astype("datetime64[s]")

    def following(self, after: datetime) -> Iterator[datetime]:
        """Give the instants strictly after a time, one by one, lazily and without end.

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
        begin = heard = _whole_seconds(after + timedelta(microseconds=1))
        length = 2 * _DAY
        last = _whole_seconds(datetime(9999, 12, 30, tzinfo=UTC))
        while begin < last and begin - heard < _SILENCE:
            end = min(begin + length, last)
            for second in self._seconds(begin, end).tolist():
                heard = second
                yield _EPOCH + timedelta(seconds=second)
            begin, length = end, min(2 * length, 366 * _DAY)

    def describe(self) -> str:
        """Say in plain English when the schedule fires.

        Returns
        -------
        str
            Such as ``"at 09:00, Monday to Friday, Asia/Shanghai"``.
        """
        return f"{self.expression}, {self.timezone}"

    def _seconds(self, start: int, end: int) -> NDArray[np.int64]:
        """List the instants in ``[start, end)``, in seconds since 1970 in UTC."""
        if start >= end:
            return np.empty(0, np.int64)
        stretches = _stretches(self.timezone, start, end)
        offsets = [offset for _, _, offset in stretches]
        local = self._local(start + min(offsets), end + max(offsets))
        # Within a stretch of one offset, local time and UTC run side by side: a skipped time lies in no stretch,
        # a repeated one in two.
        parts = []
        for begin, until, offset in stretches:
            low, high = np.searchsorted(local, (begin + offset, until + offset))
            parts.append(local[low:high] - offset)
        return np.concatenate(parts)

    def _local(self, start: int, end: int) -> NDArray[np.int64]:
        """List the matching wall-clock times of all days that touch ``[start, end)``, in seconds since 1970."""
        days = np.arange(start // _DAY, -(-end // _DAY))
        dates = days.astype("datetime64[D]")
        months = dates.astype("datetime64[M]")
        on_day = _holds(self.days, 32)[(dates - months).astype(np.int64) + 1]
        on_weekday = _holds(self.weekdays, 7)[(days + 4) % 7]
        on = (on_day | on_weekday) if self.either_day else (on_day & on_weekday)
        on &= _holds(self.months, 13)[months.astype(np.int64) % 12 + 1]
        times = np.add.outer(np.array(self.hours) * 3600, np.array(self.minutes) * 60).ravel()
        local: NDArray[np.int64] = np.add.outer(days[on] * _DAY, times).ravel()
        return local


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
    qoderdata.cron.CronError: '0 9 30 2 *' never fires: none of its months has such a day
    """
    if not isinstance(expression, str):
        raise CronError(f"{expression!r} is not a cron text")
    if not _ALPHABET.fullmatch(expression):
        raise CronError(f"{expression[:_SHOWN]!r} is not a cron text: digits, letters and * , / - in five fields")
    texts = re.split(r"[ \t]+", expression.strip(" \t"))
    if len(texts) != len(_FIELDS):
        raise CronError(f"{expression!r} is not a cron text: it has {len(texts)} fields, not five")
    minutes, hours, days, months, weekdays = (
        _values(text.upper(), of, expression) for text, of in zip(texts, _FIELDS, strict=True)
    )
    either_day = not (texts[2].startswith("*") or texts[4].startswith("*"))
    if not either_day and min(days) > max(_DAYS_IN_MONTH[month] for month in months):
        raise CronError(f"{expression!r} never fires: none of its months has such a day")
    _zone(timezone)
    weekdays = tuple(sorted({weekday % 7 for weekday in weekdays}))
    return Schedule(expression, timezone, minutes, hours, days, months, weekdays, either_day)


def _values(text: str, of: _Field, expression: str) -> tuple[int, ...]:
    """List what one field matches, ascending."""

    def number(word: str) -> int:
        value = of.names.index(word) + of.least if word in of.names else int(word) if word.isdigit() else -1
        if not of.least <= value <= of.largest:
            raise CronError(
                f"{expression!r} is not a cron text: {word!r} is no {of.name} ({of.least} to {of.largest})"
            )
        return value

    values: set[int] = set()
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise CronError(f"{expression!r} is not a cron text: {item!r} is no {of.name}, range or step")
        step = int(match["step"] or 1)
        if step == 0:
            raise CronError(f"{expression!r} is not a cron text: {item!r} has a step of 0")
        first = of.least if match["star"] else number(match["first"])
        # `*` and a step without a range run to the field's end.
        last = number(match["last"]) if match["last"] else of.largest if match["star"] or match["step"] else first
        if first > last:
            raise CronError(f"{expression!r} is not a cron text: the range {item!r} runs backwards")
        values.update(range(first, last + 1, step))
    return tuple(sorted(values))


def _zone(timezone: str) -> ZoneInfo:
    """Find a zone, or raise `CronError`."""
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
        raise CronError(f"{timezone!r} is not an IANA time zone, like 'Asia/Shanghai' or 'UTC'") from error


@lru_cache(maxsize=4096)
def _stretches(timezone: str, start: int, end: int) -> tuple[tuple[int, int, int], ...]:
    """Cut ``[start, end)`` into stretches of one UTC offset: begin, end, offset, all in seconds."""
    zone = ZoneInfo(timezone)

    def offset_at(second: int) -> int:
        offset = (_EPOCH + timedelta(seconds=second)).astimezone(zone).utcoffset()
        return 0 if offset is None else round(offset.total_seconds())

    stretches = []
    begin, offset = start, offset_at(start)
    look = start
    while look < end - 1:
        before, look = look, min(look + _LOOK, end - 1)
        if (new := offset_at(look)) == offset:
            continue
        # The change lies in (before, look]: halve until it is known to the second.
        while look - before > 1:
            middle = (before + look) // 2
            before, look = (middle, look) if offset_at(middle) == offset else (before, middle)
        stretches.append((begin, look, offset))
        begin, offset = look, new
    stretches.append((begin, end, offset))
    return tuple(stretches)


@lru_cache(maxsize=4096)
def _holds(values: tuple[int, ...], length: int) -> NDArray[np.bool_]:
    """Make a look-up table: which of the numbers below ``length`` are among the values."""
    return np.isin(np.arange(length), values)


def _whole_seconds(time: datetime) -> int:
    """Give a zone-aware time in seconds since 1970, rounded up."""
    if time.utcoffset() is None:
        raise ValueError(f"{time!r} has no time zone")
    return -((_EPOCH - time) // timedelta(seconds=1))
