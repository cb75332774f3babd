"""The picture of failure rates over time: since when, and on how many runs the number stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from qoderdata.errors import require_columns
from qoderdata.plots.canvas import (
    DISTINCT,
    HATCHED,
    PALE,
    VERMILLION,
    axes_for,
    in_percent,
    legend_beside,
    sentence,
)
from qoderdata.plots.lettering import key_words, letter
from qoderdata.plots.times import day_numbers, time_axis

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_HEIGHT_INCHES = 4.6
_MARKERS = ("o", "s", "^", "D", "v", "P")
_GROUP_COLUMNS = 24
_NARROWEST_SCALE = 0.05
_COUNTS = ["runs", "completed", "failed", "skipped", "unfinished"]
_FEWEST_WINDOWS = 7
_COUNTS_SHARE, _GAP_SHARE = 0.2, 0.07


def plot_run_failure_rates(rates: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw failure rates over time, each with its interval, and below them how many runs there were.

    A window without a decided run has no rate: there the line has a gap. Of several groups, the six with the
    most failures are drawn, and the runs below are those of these six together.

    Parameters
    ----------
    rates
        What `qoderdata.run_failure_rates` gives with ``freq``; the time axis is in the zone of its windows.
    ax
        What to draw on. ``None`` makes a new figure, about 9 by 4.6 inches.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on: x is the start of the window, y the rate, 0 to 1 labelled in per cent. The numbers
        of runs are in axes of their own, inside its lower part (``ax.child_axes``).

    Raises
    ------
    MissingColumnError
        The frame is not one of failure rates of runs.
    ValueError
        The rates are not over time.

    Warns
    -----
    UserWarning
        Once, when no installed font has some of the characters in the names; boxes stand for them.

    Examples
    --------
    >>> from qoderdata.summaries import run_failure_rates
    >>> runs = pd.DataFrame({
    ...     "id": ["run_1", "run_2"], "deployment_id": "dep_1", "status": ["completed", "failed"],
    ...     "triggered_at": pd.to_datetime(["2026-06-15T00:00Z", "2026-06-16T00:00Z"]), "duration_ms": 1000,
    ... })
    >>> plot_run_failure_rates(run_failure_rates(runs, by=None, freq="1D")).get_xlabel()
    'start of window, UTC; 2026-06-15 to 2026-06-16'
    """
    require_columns(rates.columns, ["failure_rate", "ci_low", "ci_high", *_COUNTS], what="rates")
    if "window" not in rates.index.names:
        raise ValueError(
            "these rates are not over time; give freq, as in run_failure_rates(runs, freq='1D'), or draw "
            "them with plot_failure_rates"
        )
    groups = _groups(rates)
    shown = dict(sorted(groups.items(), key=lambda item: -int(item[1]["failed"].sum()))[: len(DISTINCT)])
    ax = axes_for(ax, height=_HEIGHT_INCHES)
    cut = f" ({len(shown)} of {len(groups):,} shown, most failures first)" if len(shown) < len(groups) else ""
    ax.set_title(f"Failure rate over time{cut}")
    if not len(rates):
        sentence(ax, "There are no runs to show.")
        return ax

    lettering = letter(list(shown), [None] * len(shown), None, columns=_GROUP_COLUMNS)
    one = len(groups) == 1
    lines = [
        _line(ax, group, colour=colour, marker=marker, shade=one)
        for group, colour, marker in zip(shown.values(), DISTINCT, _MARKERS, strict=False)
    ]
    drawn = pd.concat(shown.values())
    _rate_axis(ax, float(drawn["ci_high"].astype("float64").max()))
    bars = _bars(ax, drawn[_COUNTS].groupby(level="window").sum())
    texts = ["rate, with Wilson interval"] if one else lettering.texts
    legend_beside(ax, [*lines, *bars.values()], [*texts, *bars], properties=None if one else lettering.properties)
    time_axis(ax, pd.DatetimeIndex(drawn.index.get_level_values("window")), what="start of window")
    return ax


def _groups(rates: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Split a frame into its groups, each by ``window`` alone."""
    keys = [name for name in rates.index.names if name != "window"]
    if not keys:
        return {"all": rates}
    groups = {}
    for key, group in rates.groupby(level=keys, dropna=False, sort=False):
        groups[key_words(key)] = group.droplevel(keys).sort_index()
    return groups


def _line(ax: Axes, group: pd.DataFrame, *, colour: str, marker: str, shade: bool) -> Artist:
    """Draw one group's rates and intervals."""
    numbers = group[["failure_rate", "ci_low", "ci_high"]].astype("float64")
    times = day_numbers(pd.DatetimeIndex(group.index))
    rate, low, high = (numbers[name].to_numpy() for name in numbers)
    if shade:  # of several, the shades would hide one another
        ax.fill_between(times, low, high, color=colour, alpha=0.12, linewidth=0)
    container = ax.errorbar(
        times,
        rate,
        yerr=np.array([rate - low, high - rate]),
        color=colour,
        marker=marker,
        markersize=4,
        linewidth=1.6,
        elinewidth=0.9,
    )
    container.lines[2][0].set_alpha(0.5)
    line: Artist = container.lines[0]
    return line


def _rate_axis(ax: Axes, highest: float) -> None:
    """Mark the rates on the upper part of the axes; the lower part is left to the bars."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - heavy, and needed only when drawing

    top = 1.02 * min(1.0, max(_NARROWEST_SCALE, highest if np.isfinite(highest) else 1.0))
    below = _COUNTS_SHARE + _GAP_SHARE
    ax.set_ylim(-top * below / (1 - below), top)
    ax.set_yticks([tick for tick in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(0, top) if 0 <= tick <= top])
    in_percent(ax.yaxis)
    ax.set_ylabel("failure rate", y=(1 + below) / 2)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines["left"].set_bounds(0, top)
    ax.grid(visible=True, axis="y", alpha=0.35, linewidth=0.6)


def _bars(ax: Axes, counts: pd.DataFrame) -> dict[str, Artist]:
    """Draw the numbers of runs below the rates, and give a sample of each colour by what it means."""
    from matplotlib.patches import Patch  # noqa: PLC0415 - heavy, and needed only when drawing
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - as above

    below = ax.inset_axes((0.0, 0.0, 1.0, _COUNTS_SHARE), sharex=ax)
    below.patch.set_visible(False)
    times = day_numbers(pd.DatetimeIndex(counts.index))
    width = 0.8 * (float(np.diff(times).min()) if len(times) > 1 else 1.0)
    heights: dict[str, pd.Series[int]] = {
        "failed runs": counts["failed"],
        "completed": counts["completed"],
        "skipped or unfinished": counts["skipped"] + counts["unfinished"],
    }
    looks: list[dict[str, Any]] = [{"facecolor": VERMILLION}, {"facecolor": PALE}, {"hatch": "////", **HATCHED}]
    room = width * max(1.0, (_FEWEST_WINDOWS - len(times)) / 2)
    ax.set_xlim(times.min() - room, times.max() + room)
    floor = np.zeros(len(counts))
    samples: dict[str, Artist] = {}
    for (words, height), look in zip(heights.items(), looks, strict=True):
        numbers = height.to_numpy(dtype=np.float64)
        if numbers.any():
            below.bar(times, numbers, width=width, bottom=floor, **look)
            samples[words] = Patch(**look)
        floor += numbers
    below.set_ylim(0, max(1.0, float(floor.max())))
    below.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    below.set_ylabel("runs")
    below.tick_params(axis="x", bottom=False, labelbottom=False)
    below.spines[["top", "right", "bottom"]].set_visible(False)
    return samples
