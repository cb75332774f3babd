"""Plot what fires next: a timeline of triggers, and their load by weekday and hour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from qoderdata.columns import require_frame
from qoderdata.formatting import counted, truncate_middle
from qoderdata.plots import axes
from qoderdata.plots.labels import Labels, keep_direction, keys_and_names, make_labels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_ROW_INCHES, _MARGIN_INCHES = 0.25, 1.3
_AGENT_COLUMNS = 20
_TITLE = "Next triggers, soonest first"
_HEIGHT_INCHES = 3.6
_HOURS, _HOUR_MINUTES = 24, 60


def plot_next_triggers(
    triggers: pd.DataFrame, *, ax: Axes | None = None, top: int = 40, labels: Mapping[str, str] | None = None
) -> Axes:
    """Plot a timeline of triggers: one lane a deployment, a mark a trigger, colored by agent.

    Parameters
    ----------
    triggers
        What `qoderdata.next_triggers` gives; the time axis is in the zone of its ``trigger_at``. Agents are shown
        by name where `qoderdata.with_names` has added ``agent_name``.
    ax
        What to draw on. ``None`` makes a new figure, about 9 inches wide and as high as the lanes need. Names
        and legend need room: give a figure with ``layout="constrained"``.
    top
        The most lanes to draw, those that fire soonest; the title says how many there are.
    labels
        Names to show by id of deployment or agent.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on: one line of marks an agent, lane 0 at the top. The agents with the most lanes have
        colors of their own, all others are grey.

    Raises
    ------
    FrameTypeError
        The argument is no frame, or a column has lost its dtype.
    MissingColumnError
        The frame is not one of triggers.
    ValueError
        `top` is less than 1, or ``trigger_at`` has no zone.

    Warns
    -----
    UserWarning
        Once, when no installed font has some of the characters in the names; boxes stand for them.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> times = pd.date_range("2026-06-15T09:00", periods=3, freq="1h", tz="Asia/Shanghai")
    >>> triggers = pd.DataFrame(
    ...     {"trigger_at": times, "deployment_id": "dep_1", "name": "hourly", "agent_id": "agent_1"}
    ... )
    >>> qd.plot_next_triggers(triggers).get_xlabel()
    'trigger time, Asia/Shanghai (UTC+08:00); 2026-06-15'
    """
    axes.check_top(top)
    wanted = ["trigger_at", "deployment_id", "name", "agent_id"]
    triggers = require_frame(triggers, wanted, what="triggers", optional=["agent_name"])
    triggers = triggers[triggers["trigger_at"].notna()].reset_index(drop=True)
    axes.check_times(triggers["trigger_at"])
    firsts = _first_of_each(triggers)
    first = firsts.head(top)
    ax = axes.given_or_new(ax, height=_MARGIN_INCHES + _ROW_INCHES * max(len(first), axes.FEWEST_ROWS))
    axes.write_title(ax, _TITLE, len(first), len(firsts), "deployments shown")
    if first.empty:
        axes.show_message(ax, "Nothing fires in this time.")
        return ax

    from matplotlib.lines import Line2D  # noqa: PLC0415 - heavy, and needed only when drawing

    agents = [str(agent) for agent in first["agent_id"].dropna().value_counts().index]
    own = agents[: len(axes.DISTINCT)]
    ids, names = keys_and_names(first)
    agent_names = first.dropna(subset="agent_name").set_index("agent_id")["agent_name"].to_dict()
    keys, named = [*ids, *own], [*names, *map(agent_names.get, own)]
    texts, properties = make_labels(keys, named, labels, columns=axes.label_columns(ax, len(first)))
    points = axes.prepare_rows(ax, Labels(texts[: len(first)], properties))

    shown = triggers[triggers["deployment_id"].isin(first.index)]
    times = pd.DatetimeIndex(shown["trigger_at"])
    axes.set_time_limits(ax, times)
    axes.time_axis(ax, times)
    axes.label_x(ax, f"trigger time, {axes.describe_times(times)}")
    _marks(ax, shown, first.index, own=own, points=points)
    # An agent has a number too, for readers who do not see colors.
    numbers = {agent: f"{number}" for number, agent in enumerate(own, start=1)}
    numbers_end = axes.write_column(
        ax, "", [numbers.get(agent, "") for agent in first["agent_id"]], offset=2, points=0.9 * points
    )
    agent_texts = [
        f"{numbers[agent]}  {keep_direction(truncate_middle(text, _AGENT_COLUMNS))}"
        for agent, text in zip(own, texts[len(first) :], strict=True)
    ]
    if len(agents) > len(own):
        agent_texts.append(counted(len(agents) - len(own), "other agent"))
    elif first["agent_id"].isna().any():
        agent_texts.append("no agent")
    colors = [*axes.DISTINCT[: len(own)], axes.GREY][: len(agent_texts)]
    handles = [Line2D([], [], linewidth=5, color=color) for color in colors]
    axes.legend_beside(ax, handles, agent_texts, title="agent", properties=properties, right=numbers_end + 12)
    return ax


def _first_of_each(triggers: pd.DataFrame) -> pd.DataFrame:
    """Return the first trigger of every deployment, soonest first, as plain objects by ``deployment_id``."""
    columns = ["deployment_id", "name", "agent_id", "agent_name"]
    first = triggers.sort_values("trigger_at", kind="stable").drop_duplicates("deployment_id")
    return first.reindex(columns=columns).astype("object").set_index("deployment_id")


def _marks(ax: Axes, shown: pd.DataFrame, lanes: pd.Index[Any], *, own: list[str], points: float) -> None:
    """Draw the triggers, one line of markers an agent: those stay fast where there are hundreds of thousands."""
    rows = lanes.get_indexer(pd.Index(shown["deployment_id"].astype("object")))
    times = axes.day_numbers(shown["trigger_at"])
    agents = pd.Index(own).get_indexer(pd.Index(shown["agent_id"].astype("object")))
    look: dict[str, Any] = {"marker": "|", "markersize": 1.4 * points, "markeredgewidth": 1.4}
    for number, color in (*enumerate(axes.DISTINCT[: len(own)]), (-1, axes.GREY)):
        mine = agents == number
        if mine.any():
            ax.plot(times[mine], rows[mine], linestyle="none", color=color, **look)


def plot_trigger_load(triggers: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Plot how many triggers start in each hour of the week, weekday by hour.

    The triggers of each minute of the week are divided by how often the time from the first to the last has that
    minute, so that a span of ten days does not make three weekdays look busier than the others; a square holds
    the sum of its 60 minutes. An hour of the week that this time does not have is hatched: nothing is known of
    it. One that it has, without triggers, is 0.

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
    FrameTypeError
        The argument is no frame, or a column has lost its dtype.
    MissingColumnError
        The frame is not one of triggers.
    ValueError
        ``trigger_at`` has no zone.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> times = pd.date_range("2026-06-15T09:00", periods=3, freq="1h", tz="Asia/Shanghai")
    >>> ax = qd.plot_trigger_load(pd.DataFrame({"trigger_at": times}))
    >>> ax.get_xlabel()
    'hour of day, Asia/Shanghai (UTC+08:00); 2026-06-15; hatched: no data'
    """
    triggers = require_frame(triggers, ["trigger_at"], what="triggers")
    times = axes.check_times(triggers["trigger_at"], years=10)
    ax = axes.given_or_new(ax, height=_HEIGHT_INCHES)
    axes.write_title(ax, "Triggers by weekday and hour")
    if times.empty:
        axes.show_message(ax, "Nothing fires in this time.")
        return ax

    from matplotlib import colormaps  # noqa: PLC0415 - heavy, and needed only when drawing
    from matplotlib.colors import Normalize  # noqa: PLC0415 - as above

    mean = _mean_by_hour(times)
    known = np.isfinite(mean)
    whole = bool((mean[known] == np.floor(mean[known])).all())
    texts = np.array([[_number(value, whole=whole) for value in row] for row in mean])
    colors, norm = colormaps[axes.HEAT_COLORS], Normalize(0, max(1.0, float(mean[known].max())))
    axes.draw_grid(ax, mean, colors=colors, norm=norm, texts=texts)
    axes.hatch_cells(ax, ~known, "////")
    axes.label_ticks(ax.xaxis, {hour: f"{hour:02d}" for hour in range(0, _HOURS, 2)}, most=_HOURS // 2)
    ax.set_yticks(range(len(axes.WEEKDAYS)), axes.WEEKDAYS)
    ax.set_ylabel("weekday")
    hatched = "" if known.all() else "; hatched: no data"
    axes.label_x(ax, f"hour of day, {axes.describe_times(times)}{hatched}")
    _color_bar(ax, "triggers per hour")
    return ax


def _mean_by_hour(times: pd.DatetimeIndex) -> NDArray[np.float64]:
    """Return the mean triggers by weekday and hour: the sum of the means of its minutes; NaN where unknown."""
    first, last = (time.tz_convert("UTC").floor("min") for time in (times.min(), times.max()))
    often = _by_minute(pd.date_range(first, last, freq="1min").tz_convert(times.tz))
    mean: NDArray[np.float64] = (_by_minute(times) / np.maximum(often, 1)).sum(axis=2)
    return np.where(often.any(axis=2), mean, np.nan)


def _by_minute(times: pd.DatetimeIndex) -> NDArray[np.int64]:
    """Count times by weekday, hour and minute."""
    shape = len(axes.WEEKDAYS), _HOURS, _HOUR_MINUTES
    minutes = (times.day_of_week * _HOURS + times.hour) * _HOUR_MINUTES + times.minute
    return np.bincount(minutes, minlength=np.prod(shape)).reshape(shape)


def _number(value: float, *, whole: bool) -> str:
    """Format a number so that it fits into a square."""
    if not np.isfinite(value):
        return ""
    if value >= 1000:  # noqa: PLR2004 - four digits are too wide for a square
        return f"{value / 1000:.1f}k" if value < 10_000 else f"{value / 1000:.0f}k"  # noqa: PLR2004 - likewise
    return f"{value:.0f}" if whole or value >= 10 else f"{value:.1f}"  # noqa: PLR2004 - one digit below ten


def _color_bar(ax: Axes, words: str) -> None:
    """Draw the scale of colors inside the room of the axes, so that no other axes has to shrink."""
    bar = ax.inset_axes((1.02, 0.0, 0.02, 1.0))
    ax.figure.colorbar(ax.collections[0], cax=bar, label=words)
    for shades in bar.collections:  # in an SVG file they would be a picture otherwise
        shades.set(rasterized=False, antialiased=False)
    bar.spines[:].set_visible(False)
