"""Time on an axis: ticks and a label that follow the zone of the data, the zone named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray


def zoned(times: pd.Series[pd.Timestamp], *, given: str) -> pd.DatetimeIndex:
    """Give the times that are there, refusing those without a zone: nobody could say whose weekday they are.

    Parameters
    ----------
    times
        A column of a frame.
    given
        The function whose frames have a zone there, for the message.

    Returns
    -------
    pandas.DatetimeIndex
        Without the missing ones.

    Raises
    ------
    ValueError
        The times have no zone.
    """
    known = pd.DatetimeIndex(times.dropna())
    if known.tz is None:
        raise ValueError(f"{times.name} has no time zone; give what {given} gives")
    return known


def day_numbers(times: pd.Series[pd.Timestamp] | pd.DatetimeIndex) -> NDArray[np.float64]:
    """Turn zone-aware times into matplotlib's days since 1970 in UTC."""
    from matplotlib.dates import date2num  # noqa: PLC0415 - heavy, and needed only when drawing

    utc = pd.DatetimeIndex(times).tz_convert("UTC").tz_localize(None)
    numbers: NDArray[np.float64] = date2num(utc.to_numpy())  # type: ignore[no-untyped-call]  # matplotlib types it not
    return numbers


def time_axis(ax: Axes, times: pd.DatetimeIndex, *, what: str) -> None:
    """Mark the x axis in the zone of the data, and say which that is.

    Parameters
    ----------
    ax
        Its x values are `day_numbers`.
    times
        Zone-aware; the zone and its offsets from UTC are taken from them.
    what
        What the times are, for the label.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415 - as above

    locator = AutoDateLocator(tz=times.tz, minticks=4, maxticks=9)  # type: ignore[no-untyped-call]  # matplotlib types it not
    ax.xaxis_date(times.tz)
    ax.xaxis.set_major_locator(locator)
    # Its own remark of the date would stand where the axis label is; the label says it instead.
    formatter = ConciseDateFormatter(locator, tz=times.tz, show_offset=False)  # type: ignore[no-untyped-call]  # ditto
    ax.xaxis.set_major_formatter(formatter)
    ax.set_xlabel(f"{what}, {zone_words(times)}; {days_words(times)}")


def zone_words(times: pd.DatetimeIndex) -> str:
    """Name the zone of times with the offsets that it has at the first and the last.

    Examples
    --------
    >>> zone_words(pd.DatetimeIndex(["2026-03-28T12:00", "2026-03-30T12:00"], tz="Europe/Berlin"))
    'Europe/Berlin (UTC+01:00 to UTC+02:00)'
    >>> zone_words(pd.DatetimeIndex(["2026-03-28T12:00"], tz="UTC"))
    'UTC'
    """
    name = str(times.tz)
    if name == "UTC" or not len(times):
        return name
    offsets = dict.fromkeys(stamp.strftime("%z") for stamp in (times.min(), times.max()))
    return f"{name} ({' to '.join(f'UTC{text[:3]}:{text[3:]}' for text in offsets)})"


def days_words(times: pd.DatetimeIndex) -> str:
    """Name the first and the last day of times.

    Examples
    --------
    >>> days_words(pd.DatetimeIndex(["2026-03-28T12:00", "2026-03-30T12:00"], tz="UTC"))
    '2026-03-28 to 2026-03-30'
    """
    days = dict.fromkeys(stamp.strftime("%Y-%m-%d") for stamp in (times.min(), times.max()))
    return " to ".join(days)
