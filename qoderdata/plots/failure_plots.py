"""Plot failure rates: which fail most and can the number be trusted, and since when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from qoderdata.frame_checks import require_frame
from qoderdata.plots import axes, time_axes
from qoderdata.plots.labels import title_of_groups

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from numpy.typing import NDArray

    from qoderdata.plots.time_axes import Group


_TITLE, _TITLE_OVER_TIME = "Failure rate{by}", "Failure rate{by} over time"
_ORDER = "failure_rate", ", worst first"
_NARROWEST_SCALE = 0.05
_HEIGHT_INCHES = 4.6
_COUNTS = ["runs", "completed", "failed", "skipped", "unfinished"]
#: Columns that not every rates frame has; a missing one counts as 0.
_OPTIONAL = ("failing", "completed", "assumed", "unknown")
_FEWEST_DECIDED, _FAINT = 5, 0.5
_RATE, _FEW = "rate, with Wilson interval", f"fewer than {_FEWEST_DECIDED} decided runs"
_MARKER_POINTS = 4.0
#: Shares of the height: the bars of the numbers of runs; what is below the rates, with them and in a panel.
_COUNTS_SHARE, _BELOW, _PANEL_BELOW = 0.2, 0.27, 0.05


def plot_failure_rates(
    rates: pd.DataFrame, *, ax: Axes | None = None, top: int = 20, labels: Mapping[str, str] | None = None
) -> Axes:
    """Plot failure rates as horizontal bars, each with its interval.

    To the right of each bar are its counts, and what is failing now: the number of failures in a row or, if a row
    has several deployments, how many of them fail. Bars of rows that are failing now are orange red, the others
    pale.

    Parameters
    ----------
    rates
        What `qoderdata.failure_rates` returns, or `qoderdata.run_failure_rates` without ``freq`` (there is no
        streak in those). Drawn in the order they are in.
    ax
        What to draw on. ``None`` makes a new figure, about 9 inches wide and as high as the rows need. Names
        need room: give a figure with ``layout="constrained"``.
    top
        The most rows to draw, from the first; the title says how many there are.
    labels
        Names to show by id or group key, instead of the frame's own.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on: x is the rate, 0 to 1 labeled in per cent; row 0 is at the top.

    Raises
    ------
    FrameTypeError
        The argument is no frame, or a column has lost its dtype.
    MissingColumnError
        The frame is not one of failure rates.
    ValueError
        The rates are over time, have no keys as their index, or `top` is less than 1.

    Warns
    -----
    UserWarning
        Once, when no installed font has some of the characters in the names; they are drawn as boxes.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> deployments = pd.DataFrame({
    ...     "id": ["dep_1", "dep_2"], "name": ["nightly", "hourly"], "stats_total_runs": [10, 40],
    ...     "stats_total_failures": [2, 12], "stats_consecutive_failures": [1, 0],
    ... })
    >>> ax = qd.plot_failure_rates(qd.failure_rates(deployments), labels={"dep_2": "hourly (Asia)"})
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['hourly (Asia)', 'nightly']
    """
    axes.check_top_and_labels(top, labels)
    given = require_frame(rates, [], what="rates").columns
    by_runs = "completed" in given
    counts = ["completed", "failed"] if by_runs else ["total_runs", "total_failures"]
    streaks = ["deployments", "consecutive_failures"] if "failing" in given else []
    wanted = ["failure_rate", "ci_low", "ci_high", *counts, *streaks]
    rates = require_frame(rates, wanted, what="rates", optional=["assumed", "unknown"])
    if "window" in rates.index.names:
        raise ValueError("these rates are over time; draw them with plot_run_failure_rates, or leave out freq")
    rates = rates.assign(**{name: 0 for name in _OPTIONAL if name not in rates})
    ax, shown = axes.open_rows(ax, _TITLE, _ORDER, rates, top)
    if shown.empty:
        return axes.show_message(ax, "There are no failure rates to show.")

    points = axes.prepare_rows(ax, shown, labels)
    failing = shown["failing"].fillna(0).gt(0).to_numpy(dtype=bool)
    _rate_bars(ax, shown, failing)
    what = "decided runs" if by_runs else "runs"
    note = axes.assumed_note(shown["assumed"].sum(), shown["completed"].sum())
    axes.label_x(ax, f"failure rate (failed / {what}); line: Wilson interval", note)
    end = axes.write_column(ax, f"failed / {what}", _counts(shown, by_runs=by_runs), offset=6, points=points)
    if failing.any():
        texts = _streaks(shown)
        axes.write_column(ax, "failing now", texts, offset=end + 10, points=points, color=axes.alert_text_color())
    return ax


def _rate_bars(ax: Axes, shown: pd.DataFrame, failing: NDArray[np.bool_]) -> None:
    """Draw the rows that have a rate."""
    rate, low, high = _rates_and_intervals(shown)
    rows = np.flatnonzero(np.isfinite(rate))
    rate, low, high = rate[rows], low[rows], high[rows]
    ax.barh(rows, rate, height=0.62, color=np.where(failing[rows], axes.VERMILLION, axes.pale_color()).tolist())
    lines: dict[str, Any] = {"fmt": "none", "ecolor": axes.line_color(), "elinewidth": 1.1, "capsize": 2.5}
    ax.errorbar(rate, rows, xerr=[rate - low, high - rate], **lines)
    ax.set_xlim(0, _scale_end(np.fmax(rate, high)))
    axes.percent_axis(ax.xaxis)


def _rates_and_intervals(rates: pd.DataFrame) -> list[NDArray[np.float64]]:
    """Return rates, and the lower and upper ends of their intervals; NaN if there are none."""
    return [rates[name].to_numpy(np.float64, na_value=np.nan) for name in ("failure_rate", "ci_low", "ci_high")]


def _scale_end(shares: NDArray[np.float64]) -> float:
    """Return the end of a scale that holds some rates; that of 100 % if none is known."""
    known = shares[~np.isnan(shares)]
    highest = float(known.max(initial=_NARROWEST_SCALE)) if known.size else 1.0
    return 1.02 * min(1.0, highest)


def _counts(shown: pd.DataFrame, *, by_runs: bool) -> list[str]:
    failures = shown["failed"] if by_runs else shown["total_failures"]
    runs = _decided(shown) if by_runs else shown["total_runs"]
    texts = []
    for failed, all_runs, of_unknown_outcome in zip(failures, runs, shown["unknown"].fillna(0), strict=True):
        if pd.isna(failed) or pd.isna(all_runs) or (all_runs == 0 and of_unknown_outcome):
            texts.append("unknown")
        elif all_runs == 0:
            texts.append("none decided" if by_runs else "no runs")
        else:
            texts.append(f"{failed:,} / {all_runs:,}")
    return texts


def _streaks(shown: pd.DataFrame) -> list[str]:
    """Return as text what is failing now in each row."""
    texts = []
    for failing, deployments, longest in zip(
        shown["failing"], shown["deployments"], shown["consecutive_failures"], strict=True
    ):
        if pd.isna(failing) or failing == 0:
            texts.append("")
        elif pd.isna(deployments) or pd.isna(longest):
            texts.append(f"{failing:,}")
        elif deployments == 1:
            texts.append(f"{longest:,} in a row")
        else:
            texts.append(f"{failing:,} of {deployments:,}")
    return texts


def plot_run_failure_rates(
    rates: pd.DataFrame, *, ax: Axes | None = None, top: int = 12, labels: Mapping[str, str] | None = None
) -> Axes:
    """Plot failure rates over time, each with its interval.

    One group is drawn with the numbers of runs below its rates. Of several groups, each has a panel of its own,
    all with the same scales, those with the most failures first; the title of a panel says how many of its decided
    runs failed. A window without a decided run has no rate: there the line has a gap. Windows with fewer than 5
    decided runs are drawn faintly, as their rates say little.

    Parameters
    ----------
    rates
        What `qoderdata.run_failure_rates` returns with ``freq``; the time axis is in the zone of its windows.
    ax
        What to draw on. ``None`` makes a new figure, about 9 by 4.6 inches, or as high as the panels need.
        The legend needs room: give a figure with ``layout="constrained"``.
    top
        The most panels to draw; the title says how many groups there are.
    labels
        Names to show by group key, instead of the frame's own.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on: x is the start of the window, y the rate, 0 to 1 labeled in per cent. Inside it, in
        ``ax.child_axes``, are the numbers of runs of one group, or the panels of several.

    Raises
    ------
    FrameTypeError
        The argument is no frame, or a column has lost its dtype.
    MissingColumnError
        The frame is not one of failure rates of runs.
    ValueError
        The rates are not over time, or `top` is less than 1.

    Warns
    -----
    UserWarning
        Once, when no installed font has some of the characters in the names; they are drawn as boxes.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> runs = pd.DataFrame({
    ...     "id": ["run_1", "run_2"], "deployment_id": ["dep_1", "dep_2"], "status": ["completed", "failed"],
    ...     "triggered_at": pd.to_datetime(["2026-06-15T00:00Z", "2026-06-16T00:00Z"]), "duration_ms": 1000,
    ... })
    >>> qd.plot_run_failure_rates(qd.run_failure_rates(runs, by=None, freq="1D")).get_xlabel()
    'start of window, UTC; 2026-06-15 to 2026-06-16'
    >>> ax = qd.plot_run_failure_rates(qd.run_failure_rates(runs, freq="1D"), labels={"dep_2": "nightly"})
    >>> [panel.texts[0].get_text() for panel in ax.child_axes]
    ['nightly: 1 / 1', 'dep_1: 0 / 1']
    """
    axes.check_top_and_labels(top, labels)
    rates = require_frame(
        rates, ["failure_rate", "ci_low", "ci_high", *_COUNTS], what="rates", optional=["assumed", "unknown"]
    )
    if "window" not in rates.index.names:
        if "window" in rates.columns:
            raise ValueError("the groups and window must be the index: rates.set_index([…, 'window'])")
        raise ValueError(
            "these rates are not over time; give freq, as in run_failure_rates(runs, freq='1D'), or draw "
            "them with plot_failure_rates"
        )
    groups = time_axes.split_windows(rates, what="rates")
    shown = sorted(groups, key=lambda group: -int(group.rows["failed"].sum()))[:top]
    is_single = len(groups) <= 1
    ax = axes.given_or_new(ax, height=_HEIGHT_INCHES if is_single else time_axes.panels_height(len(shown)))
    title, properties = title_of_groups(_TITLE_OVER_TIME, rates)
    axes.write_title(ax, title, len(shown), len(groups), "shown, most failures first", **properties)
    if not groups:
        return axes.show_message(ax, "There are no runs to show.")

    drawn = pd.concat(group.rows for group in shown)
    counts = drawn.reindex(columns=[*_COUNTS, "assumed", "unknown"], fill_value=0).groupby(level="window").sum()
    times = pd.DatetimeIndex(drawn.index)
    end = _scale_end(_rates_and_intervals(drawn)[2])
    words = f"start of window, {time_axes.describe_times(times)}"
    note = axes.assumed_note(counts["assumed"].sum(), counts["completed"].sum())
    if is_single:
        lines = _rate_lines(ax, shown[0].rows, is_panel=False)
        if lines.keys() == {_FEW}:
            lines = {f"{_RATE};\n{_FEW}": lines[_FEW]}
        _rate_axis(ax, end, is_panel=False)
        ax.set_ylabel("failure rate", y=(1 + _BELOW) / 2)
        time_axes.set_time_ticks(ax, times)
        axes.legend_beside(ax, lines | _count_bars(ax, counts))
        axes.label_x(ax, words, note)
    else:
        has_few = _rate_panels(ax, shown, times, end=end, labels=labels)
        meaning = "titles: failed / decided runs; upright: Wilson intervals"
        axes.label_x(ax, words, f"{meaning}; faint: {_FEW}" if has_few else meaning, note)
    return ax


def _rate_panels(
    ax: Axes, groups: list[Group], times: pd.DatetimeIndex, *, end: float, labels: Mapping[str, str] | None
) -> bool:
    """Draw a panel per group, all with the same scales; return whether there are rates of few runs."""
    figures = [f"{int(group.rows['failed'].sum()):,} / {int(_decided(group.rows).sum()):,}" for group in groups]
    panels = time_axes.group_panels(ax, groups, labels, figures)
    time_axes.set_time_ticks(panels[0], times, is_panel=True)
    samples: dict[str, Artist] = {}
    for panel, group in zip(panels, groups, strict=True):
        samples |= _rate_lines(panel, group.rows, is_panel=True)
        axes.style_values(panel)
    _rate_axis(panels[0], end, is_panel=True)
    time_axes.set_window_limits(panels[0], times)
    ax.set_ylabel("failure rate")
    return _FEW in samples


def _decided(rates: pd.DataFrame) -> pd.Series[int]:
    return rates["completed"] + rates["failed"]


def _rate_lines(ax: Axes, rates: pd.DataFrame, *, is_panel: bool) -> dict[str, Artist]:
    """Draw rates and intervals, those of few decided runs faintly; return legend samples by meaning."""
    times = time_axes.day_numbers(rates.index)
    rate, low, high = _rates_and_intervals(rates)
    known = np.isfinite(rate)
    few = known & _decided(rates).lt(_FEWEST_DECIDED).fillna(value=True).to_numpy(dtype=bool)
    color, size = axes.series_color(), 0.6 * _MARKER_POINTS if is_panel else _MARKER_POINTS
    if not is_panel:  # in a panel it would hide the lines
        ax.fill_between(times, low, high, color=color, alpha=0.12, linewidth=0)
    samples: dict[str, Artist] = {}
    for words, mine, alpha in ((_RATE, known & ~few, 1.0), (_FEW, few, _FAINT)):
        if not mine.any():
            continue
        lines: dict[str, Any] = {"fmt": "none", "ecolor": color, "elinewidth": 0.9, "alpha": 0.6 * alpha}
        ax.errorbar(times[mine], rate[mine], yerr=np.array([rate - low, high - rate])[:, mine], **lines)
        # The faint line leads through all windows, so that it joins those of few runs with the others.
        y = np.where(mine, rate, np.nan) if words == _RATE else rate
        look: dict[str, Any] = {"color": color, "linewidth": 0.4 * size, "markersize": size, "alpha": alpha}
        look |= {"marker": "o", "markevery": np.flatnonzero(mine).tolist()}
        samples[words] = ax.plot(times, y, **look)[0]
    return samples


def _rate_axis(ax: Axes, end: float, *, is_panel: bool) -> None:
    """Mark the rates on the upper part of the axes; the lower part is left free."""
    below = _PANEL_BELOW if is_panel else _BELOW
    ax.set_ylim(-end * below / (1 - below), end)
    ax.set_yticks(axes.ticks_up_to(end, 4 if is_panel else 6))
    axes.percent_axis(ax.yaxis)
    axes.style_values(ax)
    ax.spines["left"].set_bounds(0, end)


def _count_bars(ax: Axes, counts: pd.DataFrame) -> dict[str, BarContainer]:
    """Draw the numbers of runs below the rates; return their bars by meaning."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - heavy, and needed only when drawing

    below = ax.inset_axes((0.0, 0.0, 1.0, _COUNTS_SHARE), sharex=ax)
    below.patch.set_visible(False)
    width = time_axes.set_window_limits(ax, counts.index)
    others = counts["skipped"] + counts["unfinished"] + counts["unknown"]
    or_unknown = " or unknown" if counts["unknown"].any() else ""
    parts = {
        "failed runs": (counts["failed"].to_numpy(np.float64), {"facecolor": axes.VERMILLION}),
        "completed": (counts["completed"].to_numpy(np.float64), {"facecolor": axes.pale_color()}),
        f"skipped or unfinished{or_unknown}": (others.to_numpy(np.float64), axes.hatched("////")),
    }
    bars = axes.stack_bars(below.bar, time_axes.day_numbers(counts.index), parts, width)
    below.set_ylim(0, max(1.0, float((_decided(counts) + others).max())))
    below.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    axes.number_axis(below.yaxis)
    axes.scale_texts(below, axes.text_scale(ax))
    below.set_ylabel("runs")
    below.tick_params(axis="x", bottom=False, labelbottom=False)
    below.spines[["top", "right", "bottom"]].set_visible(False)
    return bars
