"""The picture of days: which had runs, and how badly those went."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from qoderdata.errors import require_columns
from qoderdata.plots.canvas import HATCHED, WEEKDAYS, axes_for, cells, hatch, legend_beside, sentence
from qoderdata.plots.times import days_words, zoned
from qoderdata.times import zone

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

# From light to dark also in grey: after ColorBrewer's OrRd, with a pale blue for what is well.
_COLOURS = ("#CFE3F1", "#FDBE85", "#F98E52", "#D7301F", "#7F0000")
_WORDS = ("none failed", "up to 5 %", "5 to 20 %", "20 to 50 %", "over 50 %")
_BOUNDS = (0.05, 0.2, 0.5)
_LARGEST_INCHES, _GRID_INCHES, _SIDE_INCHES, _FEWEST_WEEKS = 0.42, 6.6, 3.2, 8
_TICK_INCHES = 0.9  # what "27 Apr" takes, and the part of the width that names and legend will take
_SILENT, _UNDECIDED = "////", "...."
_NARROWEST_WITH_TEXT_INCHES = 0.24


def plot_run_calendar(runs: pd.DataFrame, *, ax: Axes | None = None, tz: str = "UTC") -> Axes:
    """Draw one square a day, coloured by the share of its decided runs that failed.

    A day belongs to the run by ``triggered_at``. A day between the first and the last without any run is
    hatched, and so, with dots, is one whose runs were all skipped or have not ended: no failures is one
    thing, not knowing another. Where the squares are large enough they hold the number of failed runs.

    Parameters
    ----------
    runs
        What `qoderdata.load_runs` gives.
    ax
        What to draw on. ``None`` makes a new figure, at most about 10 inches wide.
    tz
        The IANA zone whose days are meant.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on: x counts weeks from the first, y the weekdays, Monday (0) on top.

    Raises
    ------
    MissingColumnError
        The frame is not one of runs.
    ValueError
        There is no such zone, or ``triggered_at`` has none.

    Examples
    --------
    >>> times = pd.date_range("2026-06-15T20:00Z", periods=3, freq="1D")
    >>> ax = plot_run_calendar(pd.DataFrame({"triggered_at": times, "status": "completed"}), tz="Asia/Shanghai")
    >>> print(ax.get_xlabel())
    week from Monday, days in Asia/Shanghai
    2026-06-16 to 2026-06-18
    """
    require_columns(runs.columns, ["triggered_at", "status"], what="runs")
    local_zone = zone(tz)
    counts = _by_day(runs, local_zone)
    days = pd.DatetimeIndex(counts.index)
    weeks = int(_week(days)[-1]) + 1 if len(days) else _FEWEST_WEEKS
    square = min(_LARGEST_INCHES, _GRID_INCHES / weeks)
    ax = axes_for(ax, height=1.5 + 7 * square, width=_SIDE_INCHES + square * max(weeks, _FEWEST_WEEKS))
    ax.set_title("Failed runs by day")
    if counts.empty:
        sentence(ax, "There are no runs to show.")
        return ax

    from matplotlib.colors import BoundaryNorm, ListedColormap  # noqa: PLC0415 - heavy, and needed only when drawing

    severity = _severity(counts)
    texts = counts["failed"].map(lambda failed: f"{failed}" if failed else "")
    inches = ax.bbox.width / ax.figure.dpi / max(weeks, _FEWEST_WEEKS)
    cells(
        ax,
        _on_grid(severity, np.nan),
        colours=ListedColormap(_COLOURS),
        norm=BoundaryNorm(np.arange(len(_COLOURS) + 1) - 0.5, len(_COLOURS)),
        texts=_on_grid(texts, "") if inches >= _NARROWEST_WITH_TEXT_INCHES else None,
    )
    silent = counts["runs"].eq(0)
    undecided = severity.isna() & ~silent
    hatch(ax, _on_grid(silent, fill=False), _SILENT)
    hatch(ax, _on_grid(undecided, fill=False), _UNDECIDED)
    ax.set_xlim(-0.5, max(weeks, _FEWEST_WEEKS) - 0.5)
    mondays = pd.date_range(_monday(days[0]), periods=weeks, freq="7D")
    step = ceil(_TICK_INCHES / inches)
    ax.set_xticks(range(0, weeks, step), [f"{day:%d %b}" for day in mondays[::step]])
    ax.set_yticks(range(len(WEEKDAYS)), WEEKDAYS)
    ax.set_xlabel(f"week from Monday, days in {tz}\n{days_words(days)}")
    ax.set_ylabel("weekday")
    _severity_legend(ax, silent=bool(silent.any()), undecided=bool(undecided.any()))
    return ax


def _by_day(runs: pd.DataFrame, local_zone: ZoneInfo) -> pd.DataFrame:
    """Count runs, completed and failed ones, on every day from the first to the last."""
    known = runs[runs["triggered_at"].notna()]
    days = zoned(known["triggered_at"], given="load_runs").tz_convert(local_zone).tz_localize(None).normalize()
    status = known["status"].set_axis(days)
    flags = pd.DataFrame({"runs": 1, "completed": status.eq("completed"), "failed": status.eq("failed")})
    counts = flags.fillna(value=False).astype("int64").groupby(level=0).sum()
    return counts.reindex(pd.date_range(days.min(), days.max()), fill_value=0) if len(days) else counts


def _severity(counts: pd.DataFrame) -> pd.Series[float]:
    """Say which colour a day has; NaN where no run was decided."""
    decided = counts["completed"] + counts["failed"]
    share = counts["failed"] / decided.where(decided > 0)
    level = np.searchsorted(_BOUNDS, share) + 1.0
    return pd.Series(level, index=counts.index).mask(share.eq(0), 0.0).where(decided > 0)


def _monday(day: pd.Timestamp) -> pd.Timestamp:
    return day - pd.Timedelta(days=day.weekday())


def _week(days: pd.DatetimeIndex) -> NDArray[np.int64]:
    """Give each day the number of its week, counted from that of the first day."""
    return np.asarray((days - _monday(days[0])).days // len(WEEKDAYS), dtype=np.int64)


def _on_grid(values: pd.Series[Any], fill: object) -> NDArray[Any]:
    """Lay a value a day out as weekdays by weeks."""
    days = pd.DatetimeIndex(values.index)
    week = _week(days)
    grid = np.full((len(WEEKDAYS), int(week[-1]) + 1), fill, dtype=values.to_numpy().dtype)
    grid[days.day_of_week, week] = values.to_numpy()
    return grid


def _severity_legend(ax: Axes, *, silent: bool, undecided: bool) -> None:
    """Say which colour is how bad, and what the hatched days are, where there are some."""
    from matplotlib.patches import Patch  # noqa: PLC0415 - heavy, and needed only when drawing

    handles, texts = [Patch(facecolor=colour) for colour in _COLOURS], list(_WORDS)
    if undecided:
        handles.append(Patch(hatch=_UNDECIDED, **HATCHED))
        texts.append("only skipped or unfinished")
    if silent:
        handles.append(Patch(hatch=_SILENT, **HATCHED))
        texts.append("no runs")
    legend_beside(ax, handles, texts, title="failed, of decided runs")
