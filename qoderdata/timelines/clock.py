"""Times as whole microseconds since 1970 in UTC: what all timelines reckon in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qoderdata.cron import Schedule

MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def since_1970(time: datetime) -> int:
    """Give a zone-aware time in microseconds.

    Parameters
    ----------
    time
        The time.

    Returns
    -------
    int
        Microseconds since 1970 in UTC.

    Examples
    --------
    >>> since_1970(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    return (time - _EPOCH) // MICROSECOND


def at(microseconds: int) -> datetime:
    """Give a number of microseconds as a time in UTC.

    Parameters
    ----------
    microseconds
        Since 1970 in UTC.

    Returns
    -------
    datetime.datetime
        The time.

    Examples
    --------
    >>> at(1_000_000).isoformat()
    '1970-01-01T00:00:01+00:00'
    """
    return _EPOCH + microseconds * MICROSECOND


def instants(schedule: Schedule, start: datetime, end: datetime) -> NDArray[np.int64]:
    """List when a schedule fires in ``[start, end)``.

    Parameters
    ----------
    schedule
        The schedule.
    start, end
        Zone-aware times.

    Returns
    -------
    numpy.ndarray
        Microseconds since 1970, ascending.
    """
    return schedule.instants(start, end).astype("datetime64[us]").astype(np.int64)


def column(times: pd.Series[pd.Timestamp], *, missing: int) -> NDArray[np.int64]:
    """Read a zone-aware column.

    Parameters
    ----------
    times
        The column.
    missing
        What stands for a missing time.

    Returns
    -------
    numpy.ndarray
        Microseconds since 1970, one a row.
    """
    known = times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]")
    return np.where(np.isnat(known), missing, known.astype(np.int64))


def stamps(microseconds: NDArray[np.int64]) -> pd.DatetimeIndex:
    """Give microseconds as time stamps without a zone, sharing their memory.

    Parameters
    ----------
    microseconds
        Since 1970, in whatever zone.

    Returns
    -------
    pandas.DatetimeIndex
        ``datetime64[us]``.
    """
    return pd.DatetimeIndex(microseconds.view("datetime64[us]"), copy=False)
