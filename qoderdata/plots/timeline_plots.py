"""Plot what happened when and what comes next: lanes of runs and of triggers, and the load of the week."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from qoderdata.arguments import parse_zone
from qoderdata.formatting import counted, format_duration, truncate_middle
from qoderdata.frame_checks import TEXT, require_frame, warn_of_repeats
from qoderdata.outcomes import STATUSES, is_assumed, is_unknown
from qoderdata.plots import axes, time_axes
from qoderdata.plots.labels import Labels, format_key, keep_direction, keys_and_names, make_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    #: A sample and a text of what is drawn.
    _Legend = dict[str, tuple[Artist, str]]

_TITLE, _ORDER = "Runs over time", ", most failed or missed first"
_ROW_INCHES, _MARGIN_INCHES, _NEXT_MARGIN_INCHES, _LOAD_INCHES = 0.25, 1.5, 1.3, 3.6
#: The legend is as high as this many lanes.
_FEWEST_LANES = 6
_NARROWEST_POINTS = 4.0
_LEAST_FUTURE = pd.Timedelta("1h")
_LONGEST = pd.Timedelta(days=366 * 100)
_AGENT_COLUMNS = 20
_HOURS, _HOUR_MINUTES = 24, 60


class _Bar(NamedTuple):
    """The look of a run that has ended; also the height, a share of the lane, differs by outcome."""

    height: float
    color: str
    is_filled: bool = True


#: From back to front.
_BARS = {
    "assumed": _Bar(0.5, axes.GREY, is_filled=False),
    "completed": _Bar(0.5, axes.PALE),  # in a dark style `pale_color`
    "cancelled": _Bar(0.2, axes.GREY),
    "failed": _Bar(0.86, axes.VERMILLION),
}
#: The lines of runs that have not ended.
_OPEN_LINES: dict[str, Any] = {"running": "solid", "waiting": (0, (1, 1))}
#: The displayed names of outcomes, if they differ from the outcome.
OUTCOME_WORDS = {"assumed": "completed, assumed", "running": "running or pending", "waiting": "waits for a person"}
_LEGEND_ORDER = (
    "failed", "missed", "uncertain", "completed", "assumed", "cancelled", "skipped", "unknown", "running",
    "waiting", "next", "newest", "narrowest",
)  # fmt: skip


def plot_run_timeline(
    runs: pd.DataFrame,
    *,
    missed: pd.DataFrame | None = None,
    triggers: pd.DataFrame | None = None,
    ax: Axes | None = None,
    tz: str = "UTC",
    top: int = 40,
    labels: Mapping[str, str] | None = None,
) -> Axes:
    """Plot runs as bars from start to end, one lane per deployment, with what was missed and what fires next.

    The outcome of a run is shown by color and by shape: tall bars failed, those of half the height completed, flat
    ones were cancelled, hollow ones only count as completed because of their session's state (``status_from`` is
    ``"session"``). A run that has not ended is a line with an arrow up to the newest time in `runs` and `missed`,
    dotted if it waits for a person. A cross is a skipped run, a question mark one whose outcome is not known.
    Hollow diamonds are missed times, hollow circles are times that were perhaps missed (``certain`` is False), and
    upright marks are next triggers.

    A bar begins at ``started_at``, else at ``triggered_at``, and ends at ``completed_at``, else ``duration_ms``
    later. Bars are never narrower than about 4 points, so that a run of two seconds is seen beside one of two
    hours; the legend says how long that is, how many runs are shorter, and of how many the end is not known.

    Parameters
    ----------
    runs
        What `qoderdata.load_runs` returns, with ``deployment_name`` if lanes should have names. Runs without a
        ``triggered_at`` and a ``started_at`` are left out.
    missed
        What `qoderdata.missed_triggers` returns; ``None`` draws none.
    triggers
        What `qoderdata.next_triggers` returns; ``None`` draws none. After runs or missed times, triggers are
        shown for as long a time as these span, at least an hour; the legend says up to when.
    ax
        What to draw on. ``None`` makes a new figure, about 9 inches wide and as high as the lanes need. Names
        and legend need room: give a figure with ``layout="constrained"``.
    tz
        The IANA zone of the time axis.
    top
        The most lanes to draw: those with the most failed runs and certainly missed times, in order of their
        names if these are equal. The title says how many there are.
    labels
        Names to show by id of deployment, instead of the frames' own.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on: x is the time, lane 0 is at the top, and bars are one collection per outcome.

    Raises
    ------
    FrameTypeError
        An argument is no frame, or a column has lost its dtype.
    MissingColumnError
        A frame is not what its parameter asks for.
    ValueError
        There is no such zone, `top` is less than 1, or times span more than 100 years.

    Warns
    -----
    DataQualityWarning
        A run's ``id`` is in `runs` more than once: each row counts.
    UserWarning
        Once, when no installed font has some of the characters in the names; they are drawn as boxes.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> runs = pd.DataFrame({
    ...     "deployment_id": ["dep_1", "dep_2"], "deployment_name": ["nightly", "hourly"],
    ...     "status": ["completed", "failed"],
    ...     "triggered_at": pd.to_datetime(["2026-06-15T01:00Z", "2026-06-15T02:00Z"]),
    ...     "duration_ms": [2_000, 7_200_000],
    ... })
    >>> ax = qd.plot_run_timeline(runs, tz="Asia/Shanghai")
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['hourly', 'nightly']
    >>> ax.get_xlabel()
    'time, Asia/Shanghai (UTC+08:00); 2026-06-15'
    """
    axes.check_top_and_labels(top, labels)
    zone = parse_zone(tz)
    spans = _spans(runs)
    missed_times = _points(missed, "scheduled_at", what="missed", optional=["certain"])
    next_times = _points(triggers, "trigger_at", what="triggers")
    past = time_axes.check_times(
        pd.concat([spans["start"], spans["end"], missed_times["time"]]).rename("scheduled_at")
    )
    until = past.max() + max(past.max() - past.min(), _LEAST_FUTURE) if len(past) else next_times["time"].max()
    is_cut = bool((next_times["time"] > until).any())
    next_times = next_times[next_times["time"] <= until]

    lanes = _lanes(spans, missed_times, next_times)
    shown = lanes.head(top)
    ax = axes.given_or_new(ax, height=_MARGIN_INCHES + _ROW_INCHES * max(len(shown), _FEWEST_LANES))
    title = f"{_TITLE}{_ORDER if len(shown) > 1 else ''}"
    axes.write_title(ax, title, len(shown), len(lanes), "deployments shown")
    if shown.empty:
        return axes.show_message(ax, "There are no runs to show.")

    points = axes.prepare_rows(ax, shown, labels)
    ax.grid(visible=True, axis="y", alpha=0.25, linewidth=0.6)
    spans, missed_times, next_times = (_in_lanes(frame, shown) for frame in (spans, missed_times, next_times))
    parts = [spans["start"], spans["end"], missed_times["time"], next_times["time"], pd.Series(past).nlargest(1)]
    times = pd.DatetimeIndex(pd.concat([part.dt.tz_convert(zone) for part in parts]).dropna())
    days = time_axes.set_time_limits(ax, times)
    narrowest = days * _NARROWEST_POINTS / axes.width_points(ax)
    time_axes.set_time_ticks(ax, times)
    axes.label_x(ax, f"time, {time_axes.describe_times(times)}")

    legend = _bars(ax, spans, narrowest) | _open_runs(ax, spans, past.max(), points)
    legend |= _marks(ax, spans, missed_times, next_times, points) | _narrow_note(spans, narrowest)
    if is_cut and "next" in legend:
        sample, words = legend["next"]
        legend["next"] = sample, f"{words},\nup to {until.astimezone(zone):%Y-%m-%d %H:%M}"
    if len(past) and {"running", "waiting", "next"} & legend.keys():
        look: dict[str, Any] = {"color": axes.line_color(), "linewidth": 0.9, "linestyle": "dotted", "zorder": 1.5}
        end_line = ax.axvline(time_axes.day_numbers(past).max(), **look)  # nothing is known beyond it
        legend["newest"] = end_line, "newest time of these runs"
    entries = [legend[kind] for kind in _LEGEND_ORDER if kind in legend]
    axes.legend_beside(ax, {words: sample for sample, words in entries})
    return ax


def _spans(runs: pd.DataFrame) -> pd.DataFrame:
    """Return deployment, name, outcome, start and end of every run that has a time."""
    optional = ["status_from", "started_at", "completed_at", "duration_ms"]
    runs = require_frame(runs, ["deployment_id", "status", "triggered_at"], what="runs", optional=optional)
    warn_of_repeats(runs, what="runs")
    missing = pd.Series(pd.NaT, index=runs.index, dtype="datetime64[us, UTC]")
    columns = ("triggered_at", "started_at", "completed_at")
    triggered, started, completed = (runs.get(name, missing).dt.tz_convert("UTC") for name in columns)
    for times in (triggered, started, completed):
        time_axes.check_times(pd.concat([triggered, times.dropna()]).rename(times.name))
    start = started.fillna(triggered)
    outcome = drawn_outcomes(runs)
    length = pd.Series(runs.get("duration_ms"), runs.index, dtype="Float64").astype("float64")
    is_known = length.between(0, _LONGEST / pd.Timedelta("1ms"))
    # pandas 2 may warn of an overflow if it converts missing values.
    lasting = pd.to_timedelta(length.where(is_known, 0.0), unit="ms").dt.as_unit("us")
    end = completed.fillna((start + lasting).where(is_known))
    end = end.where((end >= start) & outcome.isin(list(_BARS)))
    names = runs.get("deployment_name")
    spans = {"deployment_id": _keys(runs), "name": names, "outcome": outcome, "start": start, "end": end}
    return pd.DataFrame(spans).dropna(subset="start")


def drawn_outcomes(runs: pd.DataFrame) -> pd.Series[str]:
    """Return the outcome that each run is drawn as."""
    outcome = runs["status"].astype("object").mask(is_unknown(runs), "unknown")
    outcome = outcome.mask(outcome.isin(STATUSES["failed"]), "failed")
    return outcome.mask(outcome.eq("pending"), "running").mask(is_assumed(runs), "assumed")


def _points(frame: pd.DataFrame | None, column: str, *, what: str, optional: Sequence[str] = ()) -> pd.DataFrame:
    """Return deployment, name, time and certainty of missed times or triggers; no rows if there is no frame."""
    if frame is None:
        frame = pd.DataFrame(
            {"deployment_id": pd.Series(dtype=TEXT), column: pd.Series(dtype="datetime64[us, UTC]")}
        )
    frame = require_frame(frame, ["deployment_id", column], what=what, optional=optional)
    times = frame[column].dt.tz_convert("UTC")
    time_axes.check_times(times)
    certain = frame["certain"].fillna(value=False).astype(bool) if "certain" in frame else True
    points = {"deployment_id": _keys(frame), "name": frame.get("name"), "time": times, "certain": certain}
    return pd.DataFrame(points, index=frame.index).dropna(subset="time")


def _keys(frame: pd.DataFrame) -> pd.Series[str]:
    return frame["deployment_id"].astype("object").map(format_key)


def _lanes(spans: pd.DataFrame, missed_times: pd.DataFrame, next_times: pd.DataFrame) -> pd.DataFrame:
    """Return the name and the number of failed runs and missed times of each lane, most first, then by name."""
    parts = [
        spans.assign(bad=spans["outcome"].eq("failed")),
        missed_times.assign(bad=missed_times["certain"]),
        next_times.assign(bad=False),
    ]
    kinds = {"name": "object", "bad": "int64"}
    rows = pd.concat([part[["deployment_id", *kinds]].astype(kinds) for part in parts])
    lanes = rows.groupby("deployment_id").agg(name=("name", "first"), bad=("bad", "sum"))
    lanes["text"] = lanes["name"].fillna(lanes.index.to_series()).astype(TEXT)
    return lanes.sort_values(["bad", "text"], ascending=[False, True], kind="stable")


def _in_lanes(frame: pd.DataFrame, lanes: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the lanes that are drawn, with the number of the lane."""
    mine = frame[frame["deployment_id"].isin(lanes.index)]
    return mine.assign(row=lanes.index.get_indexer(pd.Index(mine["deployment_id"])))


def _bars(ax: Axes, spans: pd.DataFrame, narrowest: float) -> _Legend:
    """Draw the runs that have ended, one collection per outcome."""
    from matplotlib.collections import PolyCollection  # noqa: PLC0415 - heavy, and needed only when drawing

    legend: _Legend = {}
    for zorder, (outcome, look) in enumerate(_BARS.items()):
        mine = spans[spans["outcome"].eq(outcome)]
        if mine.empty:
            continue
        left, rows = time_axes.day_numbers(mine["start"]), mine["row"].to_numpy(dtype=np.float64)
        # fmax ignores NaN, so a missing end gives the narrowest bar.
        right = np.fmax(time_axes.day_numbers(mine["end"]), left + narrowest)
        low, high = rows - look.height / 2, rows + look.height / 2
        corners = np.array([[left, left, right, right], [low, high, high, low]]).T
        color = axes.pale_color() if outcome == "completed" else look.color
        face, edge, width = (color, ax.get_facecolor(), 0.4) if look.is_filled else ("none", color, 0.9)
        bars = PolyCollection(list(corners), facecolors=face, edgecolors=edge, linewidths=width)
        bars.set_zorder(2 + zorder / 10)
        ax.add_collection(bars, autolim=False)  # the limits are set, and a NaN must not move them
        sample = _sample_bar(1, look.height / 2, color, is_filled=look.is_filled)
        legend[outcome] = sample, f"{OUTCOME_WORDS.get(outcome, outcome)} ({len(mine):,})"
    return legend


def _sample_bar(x: float, y: float, color: str, **style: Any) -> Artist:  # noqa: ANN401 - as `_sample` takes it
    """Return a bar for the legend, from -x to x and from -y to y."""
    return _sample([(-x, -y), (x, -y), (x, y), (-x, y), (-x, -y)], color, **style)


def _sample(marker: Any, color: str, *, is_filled: bool = True, size: float = 12, **style: Any) -> Artist:  # noqa: ANN401 - a path, or the name of one
    from matplotlib.lines import Line2D  # noqa: PLC0415 - heavy, and needed only when drawing

    face = color if is_filled else "none"
    style = {"linestyle": "none", "color": color, **style}
    return Line2D([], [], marker=marker, markersize=size, markerfacecolor=face, markeredgewidth=0.9, **style)


def _narrow_note(spans: pd.DataFrame, narrowest: float) -> _Legend:
    """Return a legend entry: how long the narrowest bar is, how many runs are shorter or have no known end."""
    ended = spans[spans["outcome"].isin(list(_BARS))]
    length = pd.Timedelta(days=narrowest)
    flags = {"shorter": (ended["end"] - ended["start"]).lt(length), "without a known end": ended["end"].isna()}
    notes = [f"({flag.sum():,} {what})" for what, flag in flags.items() if flag.any()]
    if not notes:
        return {}
    unit = next((unit for unit in ("1D", "1h", "1min", "1s") if length >= 5 * pd.Timedelta(unit)), "1ms")
    words = "\n".join([f"narrowest bar: {format_duration(length.round(unit))}", *notes])
    return {"narrowest": (_sample_bar(0.3, 1, axes.line_color(), size=7), words)}


def _open_runs(ax: Axes, spans: pd.DataFrame, newest: pd.Timestamp, size: float) -> _Legend:
    """Draw the runs that have not ended as lines with an arrow up to the newest time."""
    legend: _Legend = {}
    for outcome, dashes in _OPEN_LINES.items():
        mine = spans[spans["outcome"].eq(outcome)]
        if mine.empty:
            continue
        color = axes.series_color() if outcome == "running" else axes.ORANGE
        left, rows = time_axes.day_numbers(mine["start"]), mine["row"].to_numpy(dtype=np.float64)
        right = np.maximum(time_axes.day_numbers(pd.DatetimeIndex([newest])), left)
        ax.hlines(rows, left, right, colors=color, linewidth=0.25 * size, linestyles=dashes, zorder=2.6)
        look: dict[str, Any] = {"linestyle": "none", "color": color, "zorder": 2.7}
        ax.plot(left, rows, marker="|", markersize=size, markeredgewidth=1.2, **look)
        ax.plot(right, rows, marker=">", markersize=0.9 * size, clip_on=False, **look)
        sample = _sample(">", color, size=6, linestyle=dashes, linewidth=1.8)
        legend[outcome] = sample, f"{OUTCOME_WORDS[outcome]} ({len(mine):,})"
    return legend


def _marks(
    ax: Axes, spans: pd.DataFrame, missed_times: pd.DataFrame, next_times: pd.DataFrame, size: float
) -> _Legend:
    """Draw what has no length: skipped runs, those of an unknown outcome, missed times, next triggers."""
    certain = missed_times["certain"].astype(bool)
    by_kind = {
        "skipped": ("skipped", spans.loc[spans["outcome"].eq("skipped")], "x", axes.GREY),
        "unknown": ("outcome unknown", spans.loc[spans["outcome"].eq("unknown")], "$?$", axes.line_color()),
        "uncertain": ("perhaps missed", missed_times.loc[~certain], "o", axes.GREY),
        "missed": ("missed", missed_times.loc[certain], "D", axes.VERMILLION),
        "next": ("next triggers", next_times, "|", axes.series_color()),
    }
    legend: _Legend = {}
    for kind, (words, frame, marker, color) in by_kind.items():
        if frame.empty:
            continue
        look: dict[str, Any] = {"marker": marker, "color": color, "linestyle": "none", "markerfacecolor": "none"}
        look |= {"markeredgewidth": 1.2, "markersize": (0.75 if marker in {"D", "o", "x"} else 1.0) * size}
        if kind == "unknown":
            look |= {"markerfacecolor": color, "markeredgewidth": 0.3}
        times = frame["time"] if "time" in frame else frame["start"]
        # Dense marks of what is not certain may not hide runs.
        ax.plot(time_axes.day_numbers(times), frame["row"], zorder=1.8 if kind == "uncertain" else 3, **look)
        sample = _sample(marker, color, size=6.5, is_filled=kind == "unknown")
        legend[kind] = sample, f"{words} ({len(frame):,})"
    return legend


def plot_next_triggers(
    triggers: pd.DataFrame, *, ax: Axes | None = None, top: int = 40, labels: Mapping[str, str] | None = None
) -> Axes:
    """Plot a timeline of triggers: one lane per deployment, a mark per trigger, colored by agent.

    Parameters
    ----------
    triggers
        What `qoderdata.next_triggers` returns; the time axis is in the zone of its ``trigger_at``. Agents are
        shown by name if `qoderdata.with_names` has added ``agent_name``.
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
        The axes drawn on: one line of marks per agent, lane 0 at the top. The agents with the most lanes have
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
        Once, when no installed font has some of the characters in the names; they are drawn as boxes.

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
    axes.check_top_and_labels(top, labels)
    wanted = ["trigger_at", "deployment_id", "name", "agent_id"]
    triggers = require_frame(triggers, wanted, what="triggers", optional=["agent_name"])
    triggers = triggers[triggers["trigger_at"].notna()].reset_index(drop=True)
    time_axes.check_times(triggers["trigger_at"])
    firsts = _first_of_each(triggers)
    first = firsts.head(top)
    ax = axes.given_or_new(ax, height=_NEXT_MARGIN_INCHES + _ROW_INCHES * max(len(first), axes.FEWEST_ROWS))
    title = f"Next triggers{', soonest first' if len(firsts) > 1 else ''}"
    axes.write_title(ax, title, len(first), len(firsts), "deployments shown")
    if first.empty:
        return axes.show_message(ax, "Nothing fires in this time.")

    from matplotlib.lines import Line2D  # noqa: PLC0415 - heavy, and needed only when drawing

    agents = [str(agent) for agent in first["agent_id"].dropna().value_counts().index]
    color_of = dict(zip(agents, axes.DISTINCT, strict=False))
    own = [*color_of]
    ids, names = keys_and_names(first)
    agent_names = first.dropna(subset="agent_name").set_index("agent_id")["agent_name"].to_dict()
    keys, named = [*ids, *own], [*names, *map(agent_names.get, own)]
    columns = axes.label_columns(ax, len(first))
    texts, properties = make_labels(keys, named, labels, columns=columns, rows=len(first))
    points = axes.label_rows(ax, Labels(texts[: len(first)], properties))

    shown = triggers[triggers["deployment_id"].isin(first.index)]
    times = pd.DatetimeIndex(shown["trigger_at"])
    time_axes.set_time_limits(ax, times)
    time_axes.set_time_ticks(ax, times)
    axes.label_x(ax, f"trigger time, {time_axes.describe_times(times)}")
    _trigger_marks(ax, shown, first.index, color_of, points)
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
        others = counted(len(agents) - len(own), "other agent")
        agent_texts.append(f"{others}, or none" if first["agent_id"].isna().any() else others)
    elif first["agent_id"].isna().any():
        agent_texts.append("no agent")
    lines = [Line2D([], [], linewidth=5, color=color) for color in (*color_of.values(), axes.GREY)]
    samples = dict(zip(agent_texts, lines, strict=False))  # the last line is of the others, where there are any
    axes.legend_beside(ax, samples, title="agent", properties=properties, right=numbers_end + 12)
    return ax


def _first_of_each(triggers: pd.DataFrame) -> pd.DataFrame:
    """Return the first trigger of every deployment, soonest first, as plain objects by ``deployment_id``."""
    columns = ["deployment_id", "name", "agent_id", "agent_name"]
    first = triggers.sort_values("trigger_at", kind="stable").drop_duplicates("deployment_id")
    return first.reindex(columns=columns).astype("object").set_index("deployment_id")


def _trigger_marks(
    ax: Axes, shown: pd.DataFrame, lanes: pd.Index[Any], color_of: Mapping[str, str], points: float
) -> None:
    """Draw the triggers, one line of markers per agent, which is fast for hundreds of thousands of them."""
    rows = lanes.get_indexer(pd.Index(shown["deployment_id"].astype("object")))
    times = time_axes.day_numbers(shown["trigger_at"])
    colors = shown["agent_id"].astype("object").map(lambda agent: color_of.get(agent, axes.GREY))
    look: dict[str, Any] = {"marker": "|", "markersize": 1.4 * points, "markeredgewidth": 1.4}
    for color in (*color_of.values(), axes.GREY):
        mine = colors.eq(color).to_numpy()
        if mine.any():
            ax.plot(times[mine], rows[mine], linestyle="none", color=color, **look)


def plot_trigger_load(triggers: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Plot how many triggers start in each hour of the week, weekday by hour.

    The number of triggers in each minute of the week is divided by how often that minute occurs from the first
    trigger to the last, so that a span of ten days does not make three weekdays look busier than the others. A
    square shows the sum of its 60 minutes. An hour of the week that does not occur in this span is hatched:
    nothing is known about it. An hour that occurs, but has no triggers, is 0.

    Parameters
    ----------
    triggers
        What `qoderdata.next_triggers` returns; weekdays and hours are those of the zone of its ``trigger_at``.
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
    times = time_axes.check_times(triggers["trigger_at"], years=10)
    ax = axes.given_or_new(ax, height=_LOAD_INCHES)
    axes.write_title(ax, "Triggers by weekday and hour")
    if times.empty:
        return axes.show_message(ax, "Nothing fires in this time.")

    from matplotlib import colormaps  # noqa: PLC0415 - heavy, and needed only when drawing
    from matplotlib.colors import Normalize  # noqa: PLC0415 - as above

    mean = _mean_by_hour(times)
    known = np.isfinite(mean)
    are_whole = bool((mean[known] == np.floor(mean[known])).all())
    texts = np.array([[_number(value, are_whole=are_whole) for value in row] for row in mean])
    colors = colormaps["Blues_r" if axes.is_dark() else "Blues"]  # 0 is like the background
    norm = Normalize(0, max(1.0, float(mean[known].max())))
    axes.draw_grid(ax, mean, colors=colors, norm=norm, texts=texts)
    axes.hatch_cells(ax, ~known, "////")
    axes.label_ticks(ax, {hour: f"{hour:02d}" for hour in range(0, _HOURS, 2)}, most=_HOURS // 2)
    hatched = "" if known.all() else "; hatched: no data"
    axes.label_x(ax, f"hour of day, {time_axes.describe_times(times)}{hatched}")
    _color_bar(ax)
    return ax


def _mean_by_hour(times: pd.DatetimeIndex) -> NDArray[np.float64]:
    """Return the mean triggers by weekday and hour: the sum of the means of its minutes; NaN if unknown."""
    first, last = (time.tz_convert("UTC").floor("min") for time in (times.min(), times.max()))
    often = _by_minute(pd.date_range(first, last, freq="1min").tz_convert(times.tz))
    mean: NDArray[np.float64] = (_by_minute(times) / np.maximum(often, 1)).sum(axis=2)
    return np.where(often.any(axis=2), mean, np.nan)


def _by_minute(times: pd.DatetimeIndex) -> NDArray[np.int64]:
    """Count times by weekday, hour and minute."""
    shape = len(axes.WEEKDAYS), _HOURS, _HOUR_MINUTES
    minutes = (times.day_of_week * _HOURS + times.hour) * _HOUR_MINUTES + times.minute
    return np.bincount(minutes, minlength=np.prod(shape)).reshape(shape)


def _number(value: float, *, are_whole: bool) -> str:
    """Format a number so that it fits into a square."""
    if not np.isfinite(value):
        return ""
    if value >= 1000:  # noqa: PLR2004 - four digits are too wide for a square
        return f"{value / 1000:.1f}k" if value < 10_000 else f"{value / 1000:.0f}k"  # noqa: PLR2004 - likewise
    if are_whole or value >= 10 or not value:  # noqa: PLR2004 - one digit below ten
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 0.05 else "<0.1"  # noqa: PLR2004 - less is rounded to 0


def _color_bar(ax: Axes) -> None:
    """Draw the scale of colors inside the room of the axes, so that no other axes has to shrink."""
    bar = ax.inset_axes((1.02, 0.0, 0.02, 1.0))
    axes.scale_texts(bar, axes.text_scale(ax))
    ax.figure.colorbar(ax.collections[0], cax=bar, label="triggers per hour")
    axes.number_axis(bar.yaxis)
    for shades in bar.collections:  # in an SVG file they would be a picture otherwise
        shades.set(rasterized=False, antialiased=False)
    bar.spines[:].set_visible(False)
