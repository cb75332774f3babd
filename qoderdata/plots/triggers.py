"""The pictures of what will fire: a timeline of triggers, and their load by weekday and hour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from qoderdata.errors import require_columns
from qoderdata.plots.canvas import (
    DISTINCT,
    FEWEST_LANES,
    GREY,
    axes_for,
    lanes,
    legend_beside,
    row_points,
    sentence,
)
from qoderdata.plots.lettering import Lettering, letter
from qoderdata.plots.times import day_numbers, time_axis

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

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
        `top` is less than 1.

    Warns
    -----
    UserWarning
        Once, when no installed font has some of the characters in the names; boxes stand for them.
    """
    if top < 1:
        raise ValueError(f"top={top} draws nothing; give 1 or more")
    require_columns(triggers.columns, ["trigger_at", "deployment_id", "name", "agent_id"], what="triggers")
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
    lettering = letter(ids, names, labels)
    agent_lettering = letter(own, [None] * len(own), labels, columns=_AGENT_COLUMNS)
    lanes(ax, len(first))
    points = row_points(ax, len(first))
    ax.set_yticks(range(len(first)), lettering.texts, fontsize=points, **lettering.properties)

    shown = triggers[triggers["deployment_id"].isin(first.index)]
    lane = pd.Series(range(len(first)), index=first.index)
    rows = lane.loc[shown["deployment_id"].astype("object")].to_numpy()
    numbers = day_numbers(shown["trigger_at"])
    agent_of_mark = shown["agent_id"].astype("object")
    for agent, colour in zip(own, DISTINCT, strict=False):
        mine = agent_of_mark.eq(agent).to_numpy()
        _marks(ax, numbers[mine], rows[mine], colour=colour, points=points)
    rest = ~agent_of_mark.isin(own).to_numpy()
    if rest.any():
        _marks(ax, numbers[rest], rows[rest], colour=GREY, points=points)
        others = len(agents) - len(own)
        agent_lettering.texts.append(f"{others:,} other agents" if others else "no agent")
    _agent_legend(ax, agent_lettering)
    time_axis(ax, pd.DatetimeIndex(shown["trigger_at"]), what="trigger time")
    return ax


def _first_of_each(triggers: pd.DataFrame) -> pd.DataFrame:
    """Give the first trigger of every deployment, soonest first, as plain objects by ``deployment_id``."""
    columns = ["deployment_id", "name", "agent_id"]
    first = triggers.sort_values("trigger_at", kind="stable").drop_duplicates("deployment_id")
    return first[columns].astype("object").set_index("deployment_id")


def _marks(ax: Axes, times: NDArray[np.float64], rows: NDArray[np.integer], *, colour: str, points: float) -> None:
    """Draw one agent's triggers; markers of one line stay fast where there are hundreds of thousands."""
    ax.plot(times, rows, linestyle="none", marker="|", markersize=1.4 * points, markeredgewidth=1.4, color=colour)


def _agent_legend(ax: Axes, lettering: Lettering) -> None:
    """Say which colour is which agent, to the right of the lanes."""
    from matplotlib.lines import Line2D  # noqa: PLC0415 - heavy, and needed only when drawing

    colours = [*DISTINCT[: len(lettering.texts)], GREY][: len(lettering.texts)]
    handles = [Line2D([], [], linewidth=5, color=colour) for colour in colours]
    legend_beside(ax, handles, lettering.texts, title="agent", properties=lettering.properties)
