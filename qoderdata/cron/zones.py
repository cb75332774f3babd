"""When the clocks of a zone change: the stretches of time in which its offset from UTC stays the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from qoderdata.cron.fields import CronError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = 86_400

#: Files beside the zones: this machine's own zone, and copies with other rules (right/ counts leap seconds).
_NO_ZONES = ("localtime", "posixrules", "Factory")
_NO_FOLDERS = ("posix/", "right/")


class Stretch(NamedTuple):
    """A time in which a zone's offset stays the same: ``begin <= t < end`` and the offset, in seconds, UTC."""

    begin: int
    end: int
    offset: int


def find(timezone: str) -> ZoneInfo:
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
    >>> find("Asia/Shanghai").key
    'Asia/Shanghai'
    """
    try:
        if timezone not in _NO_ZONES and not timezone.startswith(_NO_FOLDERS):
            return ZoneInfo(timezone)
        reason = None
    except (ZoneInfoNotFoundError, ValueError, TypeError, AttributeError, OSError) as error:
        reason = error
    raise CronError(f"{timezone!r:.80} is not an IANA time zone, like 'Asia/Shanghai' or 'UTC'") from reason


@lru_cache(maxsize=4096)
def stretches(timezone: str, start: int, end: int) -> tuple[Stretch, ...]:
    """Cut ``[start, end)`` where the clocks of a zone change.

    Parameters
    ----------
    timezone
        The zone's IANA name.
    start, end
        In seconds since 1970 in UTC, ``start < end``.

    Returns
    -------
    tuple of Stretch
        In order, without gaps; neighbours differ in their offset.

    Examples
    --------
    >>> night = int(datetime(2026, 10, 25, tzinfo=UTC).timestamp())
    >>> [offset for _, _, offset in stretches("Europe/Berlin", night, night + DAY)]
    [7200, 3600]
    """
    zone = find(timezone)

    def offset_at(second: int) -> int:
        offset = (EPOCH + timedelta(seconds=second)).astimezone(zone).utcoffset()
        return 0 if offset is None else offset // timedelta(seconds=1)

    found = []
    begin, offset = start, offset_at(start)
    look = start
    # A look a day finds every change: no zone has changed its offset twice within a week since 1970.
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
        found.append(Stretch(begin, after, offset))
        begin, offset = after, new
    return (*found, Stretch(begin, end, offset))


def whole_seconds(time: datetime) -> int:
    """Give a time in seconds since 1970, rounded up.

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
