"""Plot costs: which sessions cost most, of what the credits are made, and how they change over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from qoderdata.formatting import format_percent
from qoderdata.frame_checks import require_frame
from qoderdata.plots import axes, time_axes
from qoderdata.plots.labels import title_of_groups

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer

    from qoderdata.plots.axes import Part

_TITLE, _TITLE_OVER_TIME = "Credits{by}", "Credits{by} over time"
_ORDER = "credits", ", most expensive first"
_HEIGHT_INCHES = 3.6
#: The legend stands below the ticks.
_TICK_POINTS = 20.0
_COLUMNS = ["sessions", "credits", "model_credits", "sandbox_runtime_credits", "share", "unknown"]
#: The service truncates each figure to two decimals: the sum of the parts may be this much below the total.
_ROUNDING = 0.0101
#: What credits were used for, in the order of the stack and of the legend.
_PARTS = ("model", "sandbox runtime", "not itemized")


def plot_costs(
    costs: pd.DataFrame, *, ax: Axes | None = None, top: int = 20, labels: Mapping[str, str] | None = None
) -> Axes:
    """Plot the credits of sessions as bars, split into what the model and the sandbox used.

    Without windows there is a horizontal bar per group, with the credits, their share and the number of sessions
    beside it. With windows (``freq``) there is a vertical bar per window. Several groups have a panel each, all
    with the same scales, those with the most credits first. If the service does not say what the credits were
    for, the bar is pale.

    Sessions without usage are unknown, not free: how many there are is written beside the bars or below them. A
    group whose sessions are all unknown has no bar, and such a window has a question mark.

    Parameters
    ----------
    costs
        What `qoderdata.session_costs` returns. Without windows it is drawn in the order it is in.
    ax
        What to draw on. ``None`` makes a new figure, about 9 inches wide and as high as rows or panels need. Names
        need room: give a figure with ``layout="constrained"``.
    top
        The most groups to draw; the title says how many there are.
    labels
        Names to show by group key, instead of the frame's own.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on. Without windows x is the credits, and row 0 is at the top; with windows x is the start
        of the window, y the credits, and the panels of several groups are in ``ax.child_axes``.

    Raises
    ------
    FrameTypeError
        The argument is no frame, or a column has lost its dtype.
    MissingColumnError
        The frame is not one of costs.
    ValueError
        The costs have no keys as their index, `top` is less than 1, or the windows span more than 100 years.

    Warns
    -----
    UserWarning
        Once, when no installed font has some of the characters in the names; they are drawn as boxes.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> sessions = pd.DataFrame({
    ...     "id": ["sess_1", "sess_2", "sess_3"], "deployment_id": ["dep_1", "dep_1", "dep_2"],
    ...     "usage_total_credits": [1.5, None, 0.5], "usage_model_credits": [1.0, None, 0.5],
    ...     "usage_sandbox_runtime_credits": [0.5, None, 0.0],
    ... })
    >>> ax = qd.plot_costs(qd.session_costs(sessions), labels={"dep_1": "nightly"})
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['nightly', 'dep_2']
    >>> [float(bar.get_width()) for bar in ax.patches]
    [1.0, 0.5, 0.5, 0.0]
    """
    axes.check_top_and_labels(top, labels)
    costs = require_frame(costs, _COLUMNS, what="costs")
    if "window" in costs.index.names:
        return _plot_over_time(costs, ax, top, labels)
    ax, shown = axes.open_rows(ax, _TITLE, _ORDER, costs, top)
    if shown.empty:
        return axes.show_message(ax, "There are no sessions to show.")

    points = axes.prepare_rows(ax, shown, labels)
    samples = axes.stack_bars(ax.barh, np.arange(len(shown), dtype=np.float64), _parts(ax, shown), 0.62)
    highest = float(shown["credits"].max())
    ax.set_xlim(0, 1.02 * highest if highest > 0 else 1.0)
    axes.number_axis(ax.xaxis)
    axes.label_x(ax, "credits", _unknown_note(shown))
    end = 0.0
    for header, texts in _texts(shown).items():
        end = axes.write_column(ax, header, texts, offset=end + 10, points=points)
    if samples:
        axes.legend_beside(ax, samples, right=end, below=_room_below(ax, _TICK_POINTS))
    return ax


def _plot_over_time(costs: pd.DataFrame, ax: Axes | None, top: int, labels: Mapping[str, str] | None) -> Axes:
    """Plot a bar per window, in a panel per group if there are several."""
    groups = time_axes.split_windows(costs, what="costs")
    shown = sorted(groups, key=lambda group: -float(group.rows["credits"].sum()))[:top]
    is_single = len(groups) <= 1
    ax = axes.given_or_new(ax, height=_HEIGHT_INCHES if is_single else time_axes.panels_height(len(shown)))
    title, properties = title_of_groups(_TITLE_OVER_TIME, costs)
    axes.write_title(ax, title, len(shown), len(groups), "shown, most expensive first", **properties)
    if not groups:
        return axes.show_message(ax, "There are no sessions to show.")

    # A window without sessions has 0 credits, and does not make those of the others known.
    used = [group.rows.loc[group.rows["sessions"].gt(0), "credits"] for group in shown]
    totals = [_credits(amounts.sum(min_count=1)) for amounts in used]
    panels = [ax] if is_single else time_axes.group_panels(ax, shown, labels, totals)
    drawn = pd.concat(group.rows for group in shown)
    times = pd.DatetimeIndex(drawn.index)
    time_axes.set_time_ticks(panels[0], times, is_panel=not is_single)
    width = time_axes.set_window_limits(panels[0], times)
    samples: dict[str, BarContainer] = {}
    for panel, group in zip(panels, shown, strict=True):
        samples |= axes.stack_bars(
            panel.bar, time_axes.day_numbers(group.rows.index), _parts(panel, group.rows), width
        )
        _mark_unknown(panel, group.rows, points=6.0 if is_single else 4.0)
        axes.style_values(panel)
        panel.set_axisbelow(True)
    highest = float(drawn["credits"].max())
    end = 1.05 * highest if highest > 0 else 1.0
    panels[0].set(ylim=(0, end), yticks=axes.ticks_up_to(end, 6 if is_single else 4))
    axes.number_axis(panels[0].yaxis)
    titles = "" if is_single else "; titles: credits"
    axes.label_x(ax, f"start of window, {time_axes.describe_times(times)}{titles}", _unknown_note(drawn))
    ax.set_ylabel("credits")
    if samples:
        samples = {name: samples[name] for name in _PARTS if name in samples}
        right, below = (6.0, None) if is_single else (0.0, _room_below(ax, ax.xaxis.labelpad))
        axes.legend_beside(ax, samples, right=right, below=below)
    return ax


def _room_below(ax: Axes, ticks: float) -> float:
    """Return the points from the axes to the lower edge of the x label; `ticks` is the height above the label."""
    label = ax.xaxis.label
    return ticks + 6 + 1.25 * float(label.get_fontsize()) * (1 + label.get_text().count("\n"))


def _parts(ax: Axes, costs: pd.DataFrame) -> dict[str, Part]:
    """Split credits into those of the model, those of the sandbox, and what is in neither, each with its look."""
    whole, model, sandbox = (
        costs[name].fillna(0.0).to_numpy(np.float64)
        for name in ("credits", "model_credits", "sandbox_runtime_credits")
    )
    other = np.maximum(whole - model - sandbox, 0.0)
    is_rounding = other <= _ROUNDING * costs["sessions"].to_numpy(np.float64)
    edge = {"edgecolor": ax.get_facecolor(), "linewidth": 0.0}
    return {
        "model": (model, edge | {"facecolor": axes.series_color()}),
        "sandbox runtime": (sandbox, edge | {"facecolor": axes.ORANGE, "hatch": "////"}),
        "not itemized": (np.where(is_rounding, 0.0, other), edge | {"facecolor": axes.pale_color()}),
    }


def _mark_unknown(ax: Axes, costs: pd.DataFrame, *, points: float) -> None:
    """Write a question mark at each window whose sessions all have unknown credits."""
    times = time_axes.day_numbers(costs.index[costs["credits"].isna()])
    if len(times):  # a line without points would take room
        look: dict[str, Any] = {"linestyle": "none", "color": axes.line_color(), "markeredgewidth": 0.2}
        look |= {"marker": "$?$", "markersize": points, "clip_on": False}
        ax.plot(times, np.full(len(times), 0.06), transform=ax.get_xaxis_transform(), **look)


def _credits(amount: float) -> str:
    return "unknown" if pd.isna(amount) else f"{amount:,.2f}"


def _texts(shown: pd.DataFrame) -> dict[str, list[str]]:
    """Return the texts of the columns beside the bars, by header."""
    texts = {
        "credits": [_credits(amount) for amount in shown["credits"]],
        "share": [format_percent(share) if pd.notna(share) else "" for share in shown["share"]],
        "sessions": [f"{count:,}" for count in shown["sessions"]],
    }
    if shown["unknown"].fillna(0).gt(0).any():
        texts["unknown"] = [f"{count:,}" if count else "" for count in shown["unknown"].fillna(0)]
    return texts


def _unknown_note(costs: pd.DataFrame) -> str:
    """Return a line of a label: how many sessions have unknown credits."""
    unknown, sessions = int(costs["unknown"].sum()), int(costs["sessions"].sum())
    return f"credits of {unknown:,} of {sessions:,} sessions are unknown, and not counted" if unknown else ""
