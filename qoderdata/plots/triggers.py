"""The pictures of what will fire: a timeline of triggers, and their load by weekday and hour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from qoderdata.errors import require_columns
from qoderdata.plots.canvas import (
    DISTINCT,
    FEWEST_LANES,
    GREY,
    axes_for,
    column,
    lanes,
    legend_beside,
    row_points,
    sentence,
)
from qoderdata.plots.lettering import letter, shorten
from qoderdata.plots.times import day_numbers, time_axis, zoned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

_ROW_INCHES, _MARGIN_INCHES = 0.25, 1.3
_AGENT_COLUMNS = 20
_TITLE = "Next triggers, soonest first"


def plot_next_triggers(
    triggers: pd.DataFrame, *, ax: Axes | None = None, top: int = 40, labels: Mapping[str, str] | None = None
) -> Axes:
    """Draw a timeline of triggers: one lane a deployment, a mark a trigger, coloured by agent.

    Parameters
    ----------
    triggers
        What `qoderdata.next_triggers` gives; the time axis is in the zone of its ``trigger_at``.
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
        colours of their own, all others are grey.

    Raises
    ------
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
    >>> times = pd.date_range("2026-06-15T09:00", periods=3, freq="1h", tz="Asia/Shanghai")
    >>> triggers = pd.DataFrame(
    ...     {"trigger_at": times, "deployment_id": "dep_1", "name": "hourly", "agent_id": "agent_1"}
    ... )
    >>> plot_next_triggers(triggers).get_xlabel()
    'trigger time, Asia/Shanghai (UTC+08:00); 2026-06-15'
    """
    if top < 1:
        raise ValueError(f"top={top} draws nothing; give 1 or more")
    require_columns(triggers.columns, ["trigger_at", "deployment_id", "name", "agent_id"], what="triggers")
    zoned(triggers["trigger_at"], given="next_triggers")
    firsts = _first_of_each(triggers)
    first = firsts.head(top)
    ax = axes_for(ax, height=_MARGIN_INCHES + _ROW_INCHES * max(len(first), FEWEST_LANES))
    cut = len(first) < len(firsts)
    ax.set_title(f"{_TITLE} ({len(first)} of {len(firsts):,} deployments shown)" if cut else _TITLE)
    if first.empty:
        sentence(ax, "Nothing fires in this time.")
        return ax

    agents = [str(agent) for agent in first["agent_id"].dropna().value_counts().index]
    own = agents[: len(DISTINCT)]
    ids = [str(identifier) for identifier in first.index]
    names = [None if pd.isna(name) else str(name) for name in first["name"]]
    texts, properties = letter([*ids, *own], [*names, *[None] * len(own)], labels)
    lanes(ax, len(first))
    points = row_points(ax, len(first))
    ax.set_yticks(range(len(first)), texts[: len(first)], fontsize=points, **properties)

    shown = triggers[triggers["deployment_id"].isin(first.index)]
    time_axis(ax, pd.DatetimeIndex(shown["trigger_at"]), what="trigger time")
    _marks(ax, shown, pd.Series(range(len(first)), index=first.index), own=own, points=points)
    # Beside its colour an agent has a number, for whoever sees no colours.
    numbers = {agent: f"{number}" for number, agent in enumerate(own, start=1)}
    numbers_end = column(
        ax, "", [numbers.get(agent, "") for agent in first["agent_id"]], offset=2, points=0.9 * points
    )
    agent_texts = [
        f"{numbers[agent]}  {shorten(text, _AGENT_COLUMNS)}"
        for agent, text in zip(own, texts[len(first) :], strict=True)
    ]
    if len(agents) > len(own):
        agent_texts.append(f"{len(agents) - len(own):,} other agents")
    elif first["agent_id"].isna().any():
        agent_texts.append("no agent")
    _agent_legend(ax, own, agent_texts, properties, offset=numbers_end + 12)
    return ax


def _first_of_each(triggers: pd.DataFrame) -> pd.DataFrame:
    """Give the first trigger of every deployment, soonest first, as plain objects by ``deployment_id``."""
    columns = ["deployment_id", "name", "agent_id"]
    first = triggers.sort_values("trigger_at", kind="stable").drop_duplicates("deployment_id")
    return first[columns].astype("object").set_index("deployment_id")


def _marks(ax: Axes, shown: pd.DataFrame, lane: pd.Series[int], *, own: list[str], points: float) -> None:
    """Draw the triggers, one line of markers an agent: those stay fast where there are hundreds of thousands."""
    rows = lane.loc[shown["deployment_id"].astype("object")].to_numpy()
    times = day_numbers(shown["trigger_at"])
    agents = shown["agent_id"].astype("object")
    masks = [agents.eq(agent) for agent in own]
    for colour, mask in zip((*DISTINCT[: len(own)], GREY), (*masks, ~agents.isin(own)), strict=True):
        mine = mask.to_numpy(dtype=bool)
        if mine.any():
            look: dict[str, Any] = {
                "marker": "|",
                "markersize": 1.4 * points,
                "markeredgewidth": 1.4,
                "color": colour,
            }
            ax.plot(times[mine], rows[mine], linestyle="none", **look)


def _agent_legend(
    ax: Axes, own: list[str], texts: list[str], properties: dict[str, Any], *, offset: float
) -> None:
    """Say which colour and number is which agent, to the right of the lanes."""
    from matplotlib.lines import Line2D  # noqa: PLC0415 - heavy, and needed only when drawing

    colours = [*DISTINCT[: len(own)], GREY][: len(texts)]
    handles = [Line2D([], [], linewidth=5, color=colour) for colour in colours]
    legend_beside(ax, handles, texts, title="agent", properties=properties, offset=offset)
