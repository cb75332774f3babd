"""The picture of load: how many triggers start in each hour of the week."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from qoderdata.errors import require_columns
from qoderdata.plots.canvas import WEEKDAYS, axes_for, cells, hatch, sentence
from qoderdata.plots.times import days_words, zone_words, zoned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_HEIGHT_INCHES = 3.6
_HOURS, _HOUR_MINUTES = 24, 60


def plot_trigger_load(triggers: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw how many triggers start in each hour of the week, weekday by hour.

    A square holds the triggers divided by how often the time from the first to the last has that hour of the
    week, in whole hours and at least once, so that a span of ten days does not make three weekdays look busier
    than the others. An hour of the week that this time does not have is hatched: nothing is known of it. One
    that it has, without triggers, is 0.

    Parameters
    ----------
    triggers
        What `qoderdata.next_triggers` gives; weekdays and hours are those of the zone of its ``trigger_at``.
    ax
        What to draw on. ``None`` makes a new figure, about 9 by 3.6 inches.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on: x is the hour, 0 to 23, y the weekday, Monday (0) on top.

    Raises
    ------
    MissingColumnError
        The frame is not one of triggers.
    ValueError
        ``trigger_at`` has no zone.

    Examples
    --------
    >>> times = pd.date_range("2026-06-15T09:00", periods=3, freq="1h", tz="Asia/Shanghai")
    >>> ax = plot_trigger_load(pd.DataFrame({"trigger_at": times}))
    >>> ax.get_xlabel()
    'hour of day, Asia/Shanghai (UTC+08:00); 2026-06-15; hatched: no data'
    """
    require_columns(triggers.columns, ["trigger_at"], what="triggers")
    times = zoned(triggers["trigger_at"], given="next_triggers")
    ax = axes_for(ax, height=_HEIGHT_INCHES)
    ax.set_title("Triggers by weekday and hour")
    if times.empty:
        sentence(ax, "Nothing fires in this time.")
        return ax

    from matplotlib import colormaps  # noqa: PLC0415 - heavy, and needed only when drawing
    from matplotlib.colors import Normalize  # noqa: PLC0415 - as above

    mean = _mean_by_hour(times)
    known = np.isfinite(mean)
    whole = bool((mean[known] == np.floor(mean[known])).all())
    texts = np.array([[_number(value, whole=whole) for value in row] for row in mean])
    colours, norm = colormaps["Blues"], Normalize(0, max(1.0, float(mean[known].max())))
    cells(ax, mean, colours=colours, norm=norm, texts=texts)
    hatch(ax, ~known, "////")
    ax.set_xticks(range(0, _HOURS, 2), [f"{hour:02d}" for hour in range(0, _HOURS, 2)])
    ax.set_yticks(range(len(WEEKDAYS)), WEEKDAYS)
    ax.set_ylabel("weekday")
    words = f"hour of day, {zone_words(times)}; {days_words(times)}"
    ax.set_xlabel(words if known.all() else f"{words}; hatched: no data")
    _colour_bar(ax, "triggers per hour")
    return ax


def _mean_by_hour(times: pd.DatetimeIndex) -> NDArray[np.float64]:
    """Count triggers by weekday and hour, and divide by how often the span has that hour; NaN where never."""
    minutes = pd.date_range(times.min(), times.max(), freq="1min")
    # Both halves of the hour in which a week begins and ends make one hour, and a part of one counts as one.
    often = np.maximum(1.0, np.floor(_by_hour(minutes) / _HOUR_MINUTES + 0.5))
    counts = _by_hour(times)
    known = (_by_hour(minutes) > 0) | (counts > 0)
    mean: NDArray[np.float64] = np.where(known, counts / often, np.nan)
    return mean


def _by_hour(times: pd.DatetimeIndex) -> NDArray[np.int64]:
    """Count times by weekday and hour."""
    hours = len(WEEKDAYS) * _HOURS
    return np.bincount(times.day_of_week * _HOURS + times.hour, minlength=hours).reshape(len(WEEKDAYS), _HOURS)


def _number(value: float, *, whole: bool) -> str:
    """Write what fits into a square."""
    if not np.isfinite(value):
        return ""
    if value >= 1000:  # noqa: PLR2004 - four digits are too wide for a square
        return f"{value / 1000:.1f}k" if value < 10_000 else f"{value / 1000:.0f}k"  # noqa: PLR2004 - likewise
    return f"{value:.0f}" if whole or value >= 10 else f"{value:.1f}"  # noqa: PLR2004 - one digit below ten


def _colour_bar(ax: Axes, words: str) -> None:
    """Draw the scale of colours inside the room of the axes, so that no other axes has to shrink."""
    bar = ax.inset_axes((1.02, 0.0, 0.02, 1.0))
    ax.figure.colorbar(ax.collections[0], cax=bar, label=words)
    bar.spines[:].set_visible(False)
