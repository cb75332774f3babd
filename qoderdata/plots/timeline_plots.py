"""Plot what happened when: a lane a deployment, a bar a run, and what was missed or comes next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from qoderdata.columns import TEXT, require_frame
from qoderdata.formatting import format_duration
from qoderdata.outcomes import is_assumed, is_unknown
from qoderdata.parsing import parse_zone
from qoderdata.plots import axes
from qoderdata.plots.labels import format_key, keys_and_names, make_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    #: A sample and a text of what is drawn.
    _Legend = dict[str, tuple[Artist, str]]

_TITLE, _ORDER = "Runs over time", ", most failed or missed first"
_ROW_INCHES, _MARGIN_INCHES = 0.25, 1.5
_NARROWEST_POINTS = 4.0
_LEAST_FUTURE = pd.Timedelta("1h")
_LONGEST = pd.Timedelta(days=366 * 100)


class _Bar(NamedTuple):
    """The look of a run that has ended; also the height, a share of the lane, differs by outcome."""

    words: str
    height: float
    color: str
    filled: bool = True


#: From back to front.
_BARS = {
    "assumed": _Bar("completed, assumed", 0.5, axes.GREY, filled=False),
    "completed": _Bar("completed", 0.5, axes.PALE),
    "cancelled": _Bar("cancelled", 0.2, axes.GREY),
    "failed": _Bar("failed", 0.86, axes.VERMILLION),
}
#: What a run that has not ended is called, and its line.
_OPEN: dict[str, tuple[str, Any]] = {
    "running": ("running or pending", "solid"),
    "waiting": ("waits for a person", (0, (1, 1))),
}
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
    """Plot runs as bars from start to end, one lane a deployment, with what was missed and what fires next.

    The outcome of a run is shown by color and by shape: tall bars failed, those of half the height completed, flat
    ones were cancelled, hollow ones only count as completed because of their session's state (``status_from`` is
    ``"session"``). A run that has not ended is a line with an arrow up to the newest time in `runs` and `missed`,
    dotted where it waits for a person. A cross is a skipped run, a question mark one whose outcome is not known.
    Hollow diamonds are missed times, hollow circles are times that were perhaps missed (``certain`` is False), and
    upright marks are next triggers.

    A bar begins at ``started_at``, else at ``triggered_at``, and ends at ``completed_at``, else ``duration_ms``
    later. Bars are never narrower than about 4 points, so that a run of two seconds is seen beside one of two
    hours; the legend says how long that is, how many runs are shorter, and of how many the end is not known.

    Parameters
    ----------
    runs
        What `qoderdata.load_runs` gives, with ``deployment_name`` where lanes should have names. Runs without a
        ``triggered_at`` and a ``started_at`` are left out.
    missed
        What `qoderdata.missed_triggers` gives; ``None`` draws none.
    triggers
        What `qoderdata.next_triggers` gives; ``None`` draws none. Where there are runs or missed times, triggers
        later than the newest of these by more than the time that they span (at least an hour) are left out, and
        the legend says up to when they are shown.
    ax
        What to draw on. ``None`` makes a new figure, about 9 inches wide and as high as the lanes need. Names
        and legend need room: give a figure with ``layout="constrained"``.
    tz
        The IANA zone of the time axis.
    top
        The most lanes to draw: those with the most failed runs and certainly missed times, in order of their
        names where these are equal. The title says how many there are.
    labels
        Names to show by id of deployment, instead of the frames' own.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on: x is the time, lane 0 is at the top, and bars are one collection an outcome.

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
    UserWarning
        Once, when no installed font has some of the characters in the names; boxes stand for them.

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
    axes.check_top(top)
    zone = parse_zone(tz)
    spans = _spans(runs)
    missed_times = _points(missed, "scheduled_at", what="missed", optional=["certain"])
    next_times = _points(triggers, "trigger_at", what="triggers")
    past = axes.check_times(pd.concat([spans["start"], spans["end"], missed_times["time"]]).rename("scheduled_at"))
    until = past.max() + max(past.max() - past.min(), _LEAST_FUTURE) if len(past) else next_times["time"].max()
    is_cut = bool((next_times["time"] > until).any())
    next_times = next_times[next_times["time"] <= until]

    lanes = _lanes(spans, missed_times, next_times)
    shown = lanes.head(top)
    ax = axes.given_or_new(ax, height=_MARGIN_INCHES + _ROW_INCHES * max(len(shown), axes.FEWEST_ROWS + 3))
    title = f"{_TITLE}{_ORDER if len(shown) > 1 else ''}"
    axes.write_title(ax, title, len(shown), len(lanes), "deployments shown")
    if shown.empty:
        axes.show_message(ax, "There are no runs to show.")
        return ax

    columns = axes.label_columns(ax, len(shown))
    points = axes.prepare_rows(ax, make_labels(*keys_and_names(shown), labels, columns=columns))
    ax.grid(visible=True, axis="y", alpha=0.25, linewidth=0.6)
    spans, missed_times, next_times = (_in_lanes(frame, shown) for frame in (spans, missed_times, next_times))
    parts = [spans["start"], spans["end"], missed_times["time"], next_times["time"], pd.Series(past).nlargest(1)]
    times = pd.DatetimeIndex(pd.concat([pd.to_datetime(part, utc=True) for part in parts]).dropna()).tz_convert(
        zone
    )
    days = axes.set_time_limits(ax, times)
    narrowest = days * _NARROWEST_POINTS / axes.width_points(ax)
    axes.time_axis(ax, times)
    axes.label_x(ax, f"time, {axes.describe_times(times)}")

    legend = _bars(ax, spans, narrowest) | _open_runs(ax, spans, past.max(), points)
    legend |= _marks(ax, spans, missed_times, next_times, points) | _narrow_note(spans, narrowest)
    if is_cut and "next" in legend:
        sample, words = legend["next"]
        legend["next"] = sample, f"{words},\nup to {until.astimezone(zone):%Y-%m-%d %H:%M}"
    if len(past) and {"running", "waiting", "next"} & legend.keys():
        look: dict[str, Any] = {"color": axes.line_color(), "linewidth": 0.9, "linestyle": "dotted", "zorder": 1.5}
        end_line = ax.axvline(axes.day_numbers(past).max(), **look)  # nothing is known beyond it
        legend["newest"] = end_line, "newest time of these runs"
    entries = [legend[kind] for kind in _LEGEND_ORDER if kind in legend]
    axes.legend_beside(ax, [sample for sample, _ in entries], [words for _, words in entries])
    return ax


def _spans(runs: pd.DataFrame) -> pd.DataFrame:
    """Return deployment, name, outcome, start and end of every run that has a time."""
    optional = ["status_from", "started_at", "completed_at", "duration_ms"]
    runs = require_frame(runs, ["deployment_id", "status", "triggered_at"], what="runs", optional=optional)
    triggered = runs["triggered_at"]
    missing = pd.Series(pd.NaT, index=runs.index, dtype="datetime64[us, UTC]")
    started, completed = (runs.get(name, missing) for name in ("started_at", "completed_at"))
    for times in (triggered, started, completed):
        axes.check_times(pd.concat([triggered, times.dropna()]).rename(times.name))
    start = started.fillna(triggered)
    outcome = drawn_outcomes(runs)
    length = pd.Series(runs.get("duration_ms"), runs.index, dtype="Float64").astype("float64")
    is_known = length.between(0, _LONGEST / pd.Timedelta("1ms"))
    # pandas 2 may warn of an overflow where it converts missing values.
    lasting = pd.to_timedelta(length.where(is_known, 0.0), unit="ms").dt.as_unit("us")
    end = completed.fillna((start + lasting).where(is_known))
    end = end.where((end >= start) & outcome.isin(list(_BARS)))
    names = runs.get("deployment_name")
    spans = {"deployment_id": _keys(runs), "name": names, "outcome": outcome, "start": start, "end": end}
    return pd.DataFrame(spans)[start.notna()]


def drawn_outcomes(runs: pd.DataFrame) -> pd.Series[str]:
    """Return the outcome that each run is drawn as."""
    outcome = runs["status"].astype("object").mask(is_unknown(runs), "unknown")
    return outcome.mask(outcome.eq("pending"), "running").mask(is_assumed(runs), "assumed")


def _points(frame: pd.DataFrame | None, column: str, *, what: str, optional: Sequence[str] = ()) -> pd.DataFrame:
    """Return deployment, name, time and certainty of missed times or triggers; no rows where there is no frame."""
    if frame is None:
        frame = pd.DataFrame(
            {"deployment_id": pd.Series(dtype=TEXT), column: pd.Series(dtype="datetime64[us, UTC]")}
        )
    frame = require_frame(frame, ["deployment_id", column], what=what, optional=optional)
    times = frame[column]
    axes.check_times(times)
    certain = frame["certain"].fillna(value=False).astype(bool) if "certain" in frame else True
    points = {"deployment_id": _keys(frame), "name": frame.get("name"), "time": times, "certain": certain}
    return pd.DataFrame(points, index=frame.index)[times.notna()]


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
    """Draw the runs that have ended, one collection an outcome."""
    from matplotlib.collections import PolyCollection  # noqa: PLC0415 - heavy, and needed only when drawing

    legend: _Legend = {}
    for zorder, (outcome, look) in enumerate(_BARS.items()):
        mine = spans[spans["outcome"].eq(outcome)]
        if mine.empty:
            continue
        left, rows = axes.day_numbers(mine["start"]), mine["row"].to_numpy(dtype=np.float64)
        # fmax ignores NaN, so a missing end gives the narrowest bar.
        right = np.fmax(axes.day_numbers(mine["end"]), left + narrowest)
        low, high = rows - look.height / 2, rows + look.height / 2
        corners = np.stack([np.stack(x, 1) for x in ([left, left, right, right], [low, high, high, low])], 2)
        face, edge, width = (look.color, ax.get_facecolor(), 0.4) if look.filled else ("none", look.color, 0.9)
        bars = PolyCollection(list(corners), facecolors=face, edgecolors=edge, linewidths=width)
        bars.set_zorder(2 + zorder / 10)
        ax.add_collection(bars, autolim=False)  # the limits are set, and a NaN must not move them
        legend[outcome] = _sample_bar(look), f"{look.words} ({len(mine):,})"
    return legend


def _sample_bar(look: _Bar) -> Artist:
    """Return a bar for the legend, as high as it is in a lane."""
    half = look.height / 2
    shape = [(-1, -half), (1, -half), (1, half), (-1, half), (-1, -half)]
    return _sample(shape, look.color, filled=look.filled)


def _sample(marker: Any, color: str, *, filled: bool = True, size: float = 12, **style: Any) -> Artist:  # noqa: ANN401 - a path, or the name of one
    from matplotlib.lines import Line2D  # noqa: PLC0415 - heavy, and needed only when drawing

    face = color if filled else "none"
    style = {"linestyle": "none", "color": color, **style}
    return Line2D([], [], marker=marker, markersize=size, markerfacecolor=face, markeredgewidth=0.9, **style)


def _narrow_note(spans: pd.DataFrame, narrowest: float) -> _Legend:
    """Return a legend entry: how long the narrowest bar is, how many runs are shorter or have no known end."""
    ended = spans[spans["outcome"].isin(list(_BARS))]
    length = pd.Timedelta(days=narrowest)
    unknown = int(ended["end"].isna().sum())
    shorter = int((ended["end"] - ended["start"]).lt(length).sum())
    parts = [f"{shorter:,} shorter"] if shorter else []
    parts += [f"{unknown:,} without a known end"] if unknown else []
    if not parts:
        return {}
    unit = next((unit for unit in ("1D", "1h", "1min", "1s") if length >= 5 * pd.Timedelta(unit)), "1ms")
    words = f"narrowest bar: {format_duration(length.round(unit))}\n" + "\n".join(f"({part})" for part in parts)
    bar = [(-0.3, -1), (0.3, -1), (0.3, 1), (-0.3, 1), (-0.3, -1)]
    return {"narrowest": (_sample(bar, axes.line_color(), size=7), words)}


def _open_runs(ax: Axes, spans: pd.DataFrame, newest: pd.Timestamp, size: float) -> _Legend:
    """Draw the runs that have not ended as lines with an arrow up to the newest time."""
    legend: _Legend = {}
    for outcome, (words, dashes) in _OPEN.items():
        mine = spans[spans["outcome"].eq(outcome)]
        if mine.empty:
            continue
        color = axes.series_color() if outcome == "running" else axes.ORANGE
        left, rows = axes.day_numbers(mine["start"]), mine["row"].to_numpy(dtype=np.float64)
        right = np.maximum(axes.day_numbers(pd.DatetimeIndex([newest])), left)
        ax.hlines(rows, left, right, colors=color, linewidth=0.25 * size, linestyles=dashes, zorder=2.6)
        look: dict[str, Any] = {"linestyle": "none", "color": color, "zorder": 2.7}
        ax.plot(left, rows, marker="|", markersize=size, markeredgewidth=1.2, **look)
        ax.plot(right, rows, marker=">", markersize=0.9 * size, clip_on=False, **look)
        sample = _sample(">", color, size=6, linestyle=dashes, linewidth=1.8)
        legend[outcome] = sample, f"{words} ({len(mine):,})"
    return legend


def _marks(
    ax: Axes, spans: pd.DataFrame, missed_times: pd.DataFrame, next_times: pd.DataFrame, size: float
) -> _Legend:
    """Draw what has no length: skipped runs, those of an unknown outcome, missed times, next triggers."""
    certain = missed_times["certain"].astype(bool)
    by_kind = {
        "skipped": ("skipped", spans.loc[spans["outcome"].eq("skipped")], "x", axes.GREY),
        "unknown": ("outcome unknown", spans.loc[spans["outcome"].eq("unknown")], "$?$", axes.line_color()),
        "uncertain": ("perhaps missed", missed_times.loc[~certain], "o", axes.line_color()),
        "missed": ("missed", missed_times.loc[certain], "D", axes.VERMILLION),
        "next": ("next triggers", next_times, "|", axes.series_color()),
    }
    legend: _Legend = {}
    for kind, (words, frame, marker, color) in by_kind.items():
        if frame.empty:
            continue
        look: dict[str, Any] = {"marker": marker, "color": color, "linestyle": "none", "markerfacecolor": "none"}
        look |= {"markeredgewidth": 1.2, "markersize": (0.75 if marker in "Dox" else 1.0) * size}
        if kind == "unknown":
            look |= {"markerfacecolor": color, "markeredgewidth": 0.3}
        times = frame["time"] if "time" in frame else frame["start"]
        ax.plot(axes.day_numbers(times), frame["row"], zorder=3, **look)
        sample = _sample(marker, color, size=6.5, filled=kind == "unknown")
        legend[kind] = sample, f"{words} ({len(frame):,})"
    return legend
