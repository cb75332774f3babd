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
_HOURS = 24
_CLOCK_STEP = "15min"  # the offsets from UTC of all zones today are whole multiples of it


def plot_trigger_load(triggers: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw how many triggers start in each hour of the week, weekday by hour.

    A square holds the mean over the weeks that the triggers span, so that a span of ten days does not make
    three weekdays look busier than the others. An hour of the week outside the span, from the hour of the
    first trigger to that of the last, is hatched: nothing is known of it. One inside without triggers is 0.

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
    """Count triggers by weekday and hour, and divide by how often that hour lies in the span; NaN where never."""
    shape = (len(WEEKDAYS), _HOURS)
    counts = np.bincount(times.day_of_week * _HOURS + times.hour, minlength=len(WEEKDAYS) * _HOURS).reshape(shape)
    clock = pd.DatetimeIndex([*pd.date_range(times.min(), times.max(), freq=_CLOCK_STEP), times.max()])
    hours = pd.DataFrame({"day": clock.date, "weekday": clock.day_of_week, "hour": clock.hour}).drop_duplicates()
    spanned = np.zeros(shape, dtype=np.int64)
    np.add.at(spanned, (hours["weekday"].to_numpy(), hours["hour"].to_numpy()), 1)
    mean: NDArray[np.float64] = np.divide(counts, spanned, out=np.full(shape, np.nan), where=spanned > 0)
    return mean


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
