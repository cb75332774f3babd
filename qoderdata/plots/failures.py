"""The picture of failure rates: which fail most, and can the number be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from qoderdata.errors import require_columns
from qoderdata.plots.canvas import (
    FEWEST_LANES,
    PALE,
    VERMILLION,
    axes_for,
    column,
    in_percent,
    ink,
    lanes,
    row_points,
    sentence,
)
from qoderdata.plots.lettering import key_words, letter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

_TITLE = "Failure rate, worst first"
_ROW_INCHES, _MARGIN_INCHES = 0.27, 1.2
_NARROWEST_SCALE = 0.05


def plot_failure_rates(
    rates: pd.DataFrame, *, ax: Axes | None = None, top: int = 20, labels: Mapping[str, str] | None = None
) -> Axes:
    """Draw failure rates as horizontal bars, worst first, each with its interval.

    To the right of the bars stand the counts behind each rate, and who is failing now: how many runs in a row
    have failed, or, where a row pools several deployments, how many of them have a streak. Those bars are
    dark.

    Parameters
    ----------
    rates
        What `qoderdata.failure_rates` gives, or `qoderdata.run_failure_rates` without ``freq`` (there is no
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
        The axes drawn on: x is the rate, 0 to 1 labelled in per cent; row 0 is at the top.

    Raises
    ------
    MissingColumnError
        The frame is not one of failure rates.
    ValueError
        `top` is less than 1.

    Warns
    -----
    UserWarning
        Once, when no installed font has some of the characters in the names; boxes stand for them.

    Examples
    --------
    >>> from qoderdata.summaries import failure_rates
    >>> deployments = pd.DataFrame({
    ...     "id": ["dep_1", "dep_2"], "name": ["nightly", "hourly"], "stats_total_runs": [10, 40],
    ...     "stats_total_failures": [2, 12], "stats_consecutive_failures": [1, 0],
    ... })
    >>> ax = plot_failure_rates(failure_rates(deployments), labels={"dep_2": "hourly (Asia)"})
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['hourly (Asia)', 'nightly']
    """
    if top < 1:
        raise ValueError(f"top={top} draws nothing; give 1 or more")
    by_runs = "completed" in rates.columns
    require_columns(rates.columns, ["failure_rate", "ci_low", "ci_high"], what="rates")
    require_columns(rates.columns, ["failed"] if by_runs else ["total_runs", "total_failures"], what="rates")
    shown = rates.head(top)
    ax = axes_for(ax, height=_MARGIN_INCHES + _ROW_INCHES * max(len(shown), FEWEST_LANES))
    ax.set_title(_TITLE if len(shown) == len(rates) else f"{_TITLE} ({len(shown)} of {len(rates):,} shown)")
    if shown.empty:
        sentence(ax, "There are no failure rates to show.")
        return ax

    lettering = letter(*_ids_and_names(shown), labels)
    failing = shown["failing"].fillna(0).gt(0) if "failing" in shown else pd.Series(data=False, index=shown.index)
    lanes(ax, len(shown))
    _bars(ax, shown, failing)
    points = row_points(ax, len(shown))
    ax.set_yticks(range(len(shown)), lettering.texts, fontsize=points, **lettering.properties)
    what = "decided runs" if by_runs else "runs"
    ax.set_xlabel(f"failure rate (failed / {what}); line: Wilson interval")
    end = column(ax, f"failed / {what}", _counts(shown, by_runs=by_runs), offset=6, points=points)
    if failing.any():
        column(ax, "failing now", _streaks(shown), offset=end + 10, points=points, colour=VERMILLION)
    return ax


def _bars(ax: Axes, shown: pd.DataFrame, failing: pd.Series[bool]) -> None:
    """Draw the rows that have a rate."""
    numbers = shown[["failure_rate", "ci_low", "ci_high"]].astype("float64").reset_index(drop=True)
    known = numbers["failure_rate"].notna()
    numbers = numbers[known]
    rate = numbers["failure_rate"]
    colours = [VERMILLION if now else PALE for now in failing.to_numpy()[known.to_numpy()]]
    ax.barh(numbers.index, rate, height=0.62, color=colours)
    ax.errorbar(
        rate,
        numbers.index,
        xerr=[rate - numbers["ci_low"], numbers["ci_high"] - rate],
        fmt="none",
        ecolor=ink(),
        elinewidth=1.1,
        capsize=2.5,
    )
    highest = float(numbers["ci_high"].max()) if len(numbers) else 1.0
    ax.set_xlim(0, 1.02 * min(1.0, max(highest, _NARROWEST_SCALE)))
    in_percent(ax.xaxis)


def _ids_and_names(shown: pd.DataFrame) -> tuple[list[str], list[str | None]]:
    """Say what each row is, and what it is called where that is something else."""
    if all(name is None for name in shown.index.names):
        return ["all"] * len(shown), [None] * len(shown)
    ids = [key_words(key) for key in shown.index]
    if shown.index.name == "id" and "name" in shown:
        return ids, [None if pd.isna(name) else str(name) for name in shown["name"]]
    return ids, [None] * len(shown)


def _counts(shown: pd.DataFrame, *, by_runs: bool) -> list[str]:
    """Write the counts that each rate is made of."""
    failures = shown["failed"] if by_runs else shown["total_failures"]
    runs = shown["completed"] + shown["failed"] if by_runs else shown["total_runs"]
    texts = []
    for failed, all_runs in zip(failures, runs, strict=True):
        if pd.isna(failed) or pd.isna(all_runs):
            texts.append("unknown")
        elif all_runs == 0:
            texts.append("no runs")
        else:
            texts.append(f"{failed:,} / {all_runs:,}")
    return texts


def _streaks(shown: pd.DataFrame) -> list[str]:
    """Write who is failing now."""
    texts = []
    for failing, deployments, longest in zip(
        shown["failing"], shown["deployments"], shown["consecutive_failures"], strict=True
    ):
        if pd.isna(failing) or failing == 0:
            texts.append("")
        elif deployments == 1:
            texts.append(f"{longest:,} in a row")
        else:
            texts.append(f"{failing:,} of {deployments:,}")
    return texts
