"""A schedule: one valid cron text in one zone, and the instants at which it fires.

Wall-clock matching: it fires at every instant whose local rendering in its zone matches the text. So a local
time that a clock change skips does not fire, and one that occurs twice fires twice. Leaves the text to
`fields`, the zones to `zones`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from qoderdata.cron import fields, words, zones
from qoderdata.cron.zones import DAY, EPOCH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
#: 29 February on a given weekday can be 40 years away; what is silent for longer never fires.
_SILENCE = 50 * 366 * DAY


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
        return self._seconds(zones.whole_seconds(start), zones.whole_seconds(end)).astype("datetime64[s]")

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
        begin = heard = zones.whole_seconds(after + timedelta(microseconds=1))
        length = 2 * DAY
        last = zones.whole_seconds(datetime(9999, 12, 30, tzinfo=UTC))
        while begin < last and begin - heard < _SILENCE:
            end = min(begin + length, last)
            for second in self._seconds(begin, end).tolist():
                heard = second
                yield EPOCH + timedelta(seconds=second)
            begin, length = end, min(2 * length, 366 * DAY)

    def describe(self) -> str:
        """Say in plain English when the schedule fires.

        Returns
        -------
        str
            Time of day, days and zone.

        Examples
        --------
        >>> parse("0 9 * * 1-5", "Asia/Shanghai").describe()
        'at 09:00, Monday to Friday, Asia/Shanghai'
        """
        return words.describe(self)

    def wall_times(self, start: int, end: int) -> NDArray[np.int64]:
        """List the times in ``[start, end)`` that match on a clock that nobody ever changes.

        Parameters
        ----------
        start, end
            What the clock reads, in seconds since it read 1970-01-01.

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
        on_day = _holds(self.days, 32)[(dates - months).astype(np.int64) + 1]
        on_weekday = _holds(self.weekdays, 7)[(days + 4) % 7]
        on = (on_day | on_weekday) if self.either_day else (on_day & on_weekday)
        on &= _holds(self.months, 13)[months.astype(np.int64) % 12 + 1]
        of_day = np.add.outer(np.array(self.hours) * 3600, np.array(self.minutes) * 60).ravel()
        times: NDArray[np.int64] = np.add.outer(days[on] * DAY, of_day).ravel()
        low, high = np.searchsorted(times, (start, end))
        return times[low:high]

    def _seconds(self, start: int, end: int) -> NDArray[np.int64]:
        """List the instants in ``[start, end)``, in seconds since 1970 in UTC."""
        if start >= end:
            return np.empty(0, np.int64)
        stretches = zones.stretches(self.timezone, start, end)
        offsets = [offset for _, _, offset in stretches]
        local = self.wall_times(start + min(offsets), end + max(offsets))
        # Within a stretch of one offset, local time and UTC run side by side: a skipped time lies in no stretch,
        # a repeated one in two.
        parts = []
        for begin, until, offset in stretches:
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
    qoderdata.cron.fields.CronError: '0 9 30 2 *' never fires: none of its months has such a day
    """
    texts = fields.split(expression)
    try:
        minutes, hours, days, months, weekdays = map(fields.values, texts, fields.FIELDS)
    except fields.CronError as error:
        raise fields.CronError(f"{expression!r} is not a cron text: {error}") from None
    either_day = not (texts[2].startswith("*") or texts[4].startswith("*"))
    if not either_day and min(days) > max(_LONGEST_MONTHS[month - 1] for month in months):
        raise fields.CronError(f"{expression!r} never fires: none of its months has such a day")
    zones.find(timezone)
    weekdays = tuple(sorted({weekday % 7 for weekday in weekdays}))
    return Schedule(expression, timezone, minutes, hours, days, months, weekdays, either_day)


@lru_cache(maxsize=4096)
def _holds(values: tuple[int, ...], length: int) -> NDArray[np.bool_]:
    """Make a look-up table: which of the numbers below ``length`` are among the values."""
    return np.isin(np.arange(length), values)
