"""Plot runs: the share of failed runs on each day, and how long runs take."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from qoderdata.arguments import parse_zone
from qoderdata.formatting import counted, format_milliseconds
from qoderdata.frame_checks import require_frame, warn_of_repeats
from qoderdata.outcomes import STATUSES, is_assumed, is_unknown
from qoderdata.plots import axes, time_axes

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

# From light to dark also in grey: after ColorBrewer's OrRd, with a pale blue for what is well. On a dark
# background from dark to light, as the worst days would be the faintest otherwise.
_SEVERITY_COLORS = ("#CFE3F1", "#FDBE85", "#F98E52", "#D7301F", "#7F0000")
_COLORS_IN_DARK = ("#2F4B61", "#8A3A12", "#C9501C", "#F98E52", "#FFE0B5")
_SEVERITY_LABELS = ("none failed", "up to 5 %", "5 to 20 %", "20 to 50 %", "over 50 %")
_BOUNDS = (0.0, 0.05, 0.2, 0.5)
_LARGEST_INCHES, _GRID_INCHES, _SIDE_INCHES, _FEWEST_WEEKS = 0.42, 6.6, 3.2, 8
#: In lower rows, weekdays overlap, and the legend is higher than the figure.
_LOWEST_ROW_INCHES = 0.12
_WEEKS_OF_YEAR = 52
_SILENT, _UNDECIDED = "////", "...."
_HEIGHT_INCHES = 3.8
_BINS = 40
#: One mark gives no scale.
_FEWEST_TICKS, _MOST_TICKS = 2, 8
#: A narrower span of lengths has no room for its labels.
_NARROWEST = 1.25
_SECOND, _MINUTE, _HOUR, _DAY = 1000, 60_000, 3_600_000, 86_400_000
# Round lengths of time in milliseconds, for the ticks of the axis.
_ROUND = (
    *(1, 2, 5, 10, 20, 50, 100, 200, 500),
    *(number * _SECOND for number in (1, 2, 5, 10, 20, 30)),
    *(number * _MINUTE for number in (1, 2, 5, 10, 20, 30)),
    *(number * _HOUR for number in (1, 2, 6, 12)),
    *(number * _DAY for number in (1, 2, 7, 14, 30, 90, 365)),
)


def plot_run_calendar(runs: pd.DataFrame, *, ax: Axes | None = None, tz: str = "UTC") -> Axes:
    """Plot one square per day, colored by the share of its decided runs that failed.

    A run belongs to the day of its ``triggered_at``. Days without any run, between the first and the last, are
    hatched. Days whose runs were all skipped, have not ended or have an unknown outcome are dotted: they have no
    rate. Squares that are large enough hold the number of failed runs.

    Parameters
    ----------
    runs
        What `qoderdata.load_runs` returns.
    ax
        What to draw on. ``None`` makes a new figure, at most about 10 inches wide. The legend needs room:
        give a figure with ``layout="constrained"``.
    tz
        The IANA zone of the days.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on: x counts weeks from the first, y the weekdays, Monday (0) on top.

    Raises
    ------
    FrameTypeError
        The argument is no frame, or a column has lost its dtype.
    MissingColumnError
        The frame is not one of runs.
    ValueError
        There is no such zone, or ``triggered_at`` has none.

    Warns
    -----
    DataQualityWarning
        A run's ``id`` is in `runs` more than once: each row counts.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> times = pd.date_range("2026-06-15T20:00Z", periods=3, freq="1D")
    >>> ax = qd.plot_run_calendar(pd.DataFrame({"triggered_at": times, "status": "completed"}), tz="Asia/Shanghai")
    >>> print(ax.get_xlabel())
    week from Monday, days in Asia/Shanghai
    2026-06-16 to 2026-06-18
    """
    runs = require_frame(runs, ["triggered_at", "status"], what="runs", optional=["status_from"])
    warn_of_repeats(runs, what="runs")
    counts = _by_day(runs, parse_zone(tz))
    days = pd.DatetimeIndex(counts.index)
    weeks = days.to_period("W").unique()
    columns = max(len(weeks), _FEWEST_WEEKS)
    square = min(_LARGEST_INCHES, _GRID_INCHES / columns)
    height = 1.5 + 7 * max(square, _LOWEST_ROW_INCHES)
    ax = axes.given_or_new(ax, height=height, width=_SIDE_INCHES + square * columns)
    axes.write_title(ax, "Failed runs by day")
    if counts.empty:
        return axes.show_message(ax, "There are no runs to show.")

    from matplotlib.colors import BoundaryNorm, ListedColormap  # noqa: PLC0415 - heavy, and needed only when drawing

    severity = _severity(counts)
    texts = counts["failed"].map(lambda failed: f"{failed}" if failed else "")
    axes.draw_grid(
        ax,
        _on_grid(severity, np.nan),
        colors=ListedColormap(_severity_colors()),
        norm=BoundaryNorm(np.arange(len(_SEVERITY_COLORS) + 1) - 0.5, len(_SEVERITY_COLORS)),
        texts=_on_grid(texts, ""),
        fewest_columns=columns,
    )
    silent = counts["runs"].eq(0)
    undecided = severity.isna() & ~silent
    axes.hatch_cells(ax, _on_grid(silent, fill=False), _SILENT)
    axes.hatch_cells(ax, _on_grid(undecided, fill=False), _UNDECIDED)
    form = time_axes.DAY if len(weeks) <= _WEEKS_OF_YEAR else "%b %Y"
    axes.label_ticks(ax, dict(enumerate(weeks.start_time.strftime(form))), most=columns)
    note = axes.assumed_note(counts["assumed"].sum(), counts["completed"].sum())
    axes.label_x(ax, f"week from Monday, days in {tz}", time_axes.describe_days(days), note)
    _severity_legend(ax, has_silent_days=bool(silent.any()), undecided=counts[undecided])
    return ax


def _by_day(runs: pd.DataFrame, local_zone: ZoneInfo) -> pd.DataFrame:
    """Count runs, completed and failed ones, on every day from the first to the last."""
    known = runs[runs["triggered_at"].notna()]
    days = time_axes.check_times(known["triggered_at"]).tz_convert(local_zone).tz_localize(None).normalize()
    status = known["status"].set_axis(days)
    flags = pd.DataFrame({"runs": 1, **{name: status.isin(STATUSES[name]) for name in ("completed", "failed")}})
    flags["unknown"] = is_unknown(known).to_numpy()
    flags["assumed"] = is_assumed(known).to_numpy()
    return flags.astype("int64").resample("1D").sum()


def _severity(counts: pd.DataFrame) -> pd.Series[float]:
    """Return the index of each day's color; NaN if no run was decided."""
    decided = counts["completed"] + counts["failed"]
    share = counts["failed"] / decided.where(decided > 0)
    return pd.Series(np.searchsorted(_BOUNDS, share), counts.index, dtype="float64").where(decided > 0)


def _severity_colors() -> tuple[str, ...]:
    return _COLORS_IN_DARK if axes.is_dark() else _SEVERITY_COLORS


def _on_grid(values: pd.Series[Any], fill: str | float) -> NDArray[Any]:
    """Return values by day as a matrix of weekdays by weeks."""
    weeks = pd.DatetimeIndex(values.index).to_period("W")
    days = pd.date_range(weeks[0].start_time, weeks[-1].end_time)
    return values.reindex(days, fill_value=fill).to_numpy().reshape(-1, len(axes.WEEKDAYS)).T


def _severity_legend(ax: Axes, *, has_silent_days: bool, undecided: pd.DataFrame) -> None:
    """Draw a legend of the colors, and of the hatched days if there are some."""
    from matplotlib.patches import Patch  # noqa: PLC0415 - heavy, and needed only when drawing

    colors = zip(_SEVERITY_LABELS, _severity_colors(), strict=True)
    samples = {words: Patch(facecolor=color) for words, color in colors}
    if len(undecided):
        or_unknown = " or unknown" if undecided["unknown"].any() else ""
        samples[f"only skipped or unfinished{or_unknown}"] = Patch(**axes.hatched(_UNDECIDED))
    if has_silent_days:
        samples["no runs"] = Patch(**axes.hatched(_SILENT))
    axes.legend_beside(ax, samples, title="failed, of decided runs")


def plot_durations(runs: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Plot how long completed and failed runs took, as two histograms over one logarithmic time axis.

    Two upright lines mark the median and the 95th percentile of the completed runs. Runs that have not ended,
    were skipped, or have no valid duration (missing or negative) are left out; the legend says how many
    are counted.

    Parameters
    ----------
    runs
        What `qoderdata.load_runs` returns.
    ax
        What to draw on. ``None`` makes a new figure, about 9 by 3.8 inches. The legend needs room: give
        a figure with ``layout="constrained"``.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on: x is the duration in milliseconds, labeled in seconds, minutes and hours (a run of
        0 ms stands at 1 ms), y the number of runs.

    Raises
    ------
    FrameTypeError
        The argument is no frame, or a column has lost its dtype.
    MissingColumnError
        The frame is not one of runs.

    Warns
    -----
    DataQualityWarning
        A run's ``id`` is in `runs` more than once: each row counts.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> ax = qd.plot_durations(pd.DataFrame({"status": "completed", "duration_ms": [9_000, 12_000, 70_000]}))
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['10 s', '20 s', '30 s', '1 min']
    """
    runs = require_frame(runs, ["status", "duration_ms"], what="runs", optional=["status_from"])
    warn_of_repeats(runs, what="runs")
    ax = axes.given_or_new(ax, height=_HEIGHT_INCHES)
    axes.write_title(ax, "Durations of runs")
    completed, failed = _milliseconds(runs, "completed"), _milliseconds(runs, "failed")
    both = np.concatenate([completed, failed])
    if not both.size:
        return axes.show_message(ax, "No run with a duration has ended.")

    edges = _edges(both)
    samples: dict[str, Artist] = {}
    ax.set_xscale("log")
    if completed.size:
        bars = ax.stairs(np.histogram(completed, edges)[0], edges, fill=True, color=axes.pale_color())
        assumed = int(is_assumed(runs[runs["duration_ms"] >= 0]).sum())
        note = f", {assumed:,} assumed" if assumed else ""
        samples[f"completed ({counted(completed.size, 'run')}{note})"] = bars
        for share, words, style in ((0.5, "median", "solid"), (0.95, "95th percentile", "dashed")):
            length = float(np.quantile(completed, share))
            line = ax.axvline(length, color=axes.line_color(), linewidth=1.2, linestyle=style)
            samples[f"{words}, completed: {format_milliseconds(length)}"] = line
    if failed.size:
        counts = np.histogram(failed, edges)[0]
        outline = ax.stairs(counts, edges, color=axes.VERMILLION, linewidth=1.8)
        samples[f"failed ({counted(failed.size, 'run')})"] = outline
    axes.legend_beside(ax, samples)
    _duration_axis(ax, edges)
    ax.set_ylabel("runs")
    ax.locator_params(axis="y", steps=[1, 2, 5, 10], integer=True)
    axes.number_axis(ax.yaxis)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _milliseconds(runs: pd.DataFrame, counted_as: str) -> NDArray[np.float64]:
    """Return the durations of the runs that ended so; a logarithmic axis begins at 1 ms."""
    ended = runs.loc[runs["status"].isin(STATUSES[counted_as]), "duration_ms"]
    lengths: NDArray[np.float64] = ended[ended >= 0].clip(lower=1).to_numpy(np.float64)
    return lengths


def _edges(lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide the span of all lengths evenly on the logarithmic axis; a single one is in the middle of a bin."""
    shortest, longest = float(lengths.min()), float(lengths.max())
    if longest < _NARROWEST * shortest:
        middle = (shortest * longest) ** 0.5
        return np.geomspace(middle / 2, middle * 2, _BINS)
    return np.geomspace(shortest, longest, _BINS + 1)


def _duration_axis(ax: Axes, edges: NDArray[np.float64]) -> None:
    """Mark round lengths of time, thinned out to as many as there is room for."""
    from matplotlib.ticker import NullLocator  # noqa: PLC0415 - heavy, and needed only when drawing

    low, high = edges[0] / 1.15, edges[-1] * 1.15
    ticks = [length for length in _ROUND if low <= length <= high]
    ticks = ticks[:: max(1, ceil(len(ticks) / _MOST_TICKS))]
    if len(ticks) < _FEWEST_TICKS:
        ticks = _whole_lengths(low, high)
    ax.set_xlim(low, high)
    axes.label_ticks(ax, {length: format_milliseconds(length) for length in ticks}, most=len(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("duration (logarithmic)")


def _whole_lengths(low: float, high: float) -> list[int]:
    """Return multiples of the longest unit that has two or more within a span; their labels are exact."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - as above

    locator = MaxNLocator(4, steps=[1, 2, 5, 10], integer=True)
    by_unit = (
        [unit * int(number) for number in locator.tick_values(low / unit, high / unit) if number.is_integer()]
        for unit in (_DAY, _HOUR, _MINUTE, _SECOND, 1)
    )
    within = ([length for length in lengths if low <= length <= high] for lengths in by_unit)
    return next(lengths for lengths in within if len(lengths) >= _FEWEST_TICKS)
