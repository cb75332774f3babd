"""The picture of durations: how long runs take, and whether failed ones end early or time out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qoderdata.errors import require_columns
from qoderdata.plots.canvas import PALE, VERMILLION, axes_for, ink, legend_beside, sentence
from qoderdata.words import milliseconds

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_HEIGHT_INCHES = 3.8
_BINS = 40
_MOST_TICKS = 8
_SECOND, _MINUTE, _HOUR, _DAY = 1000, 60_000, 3_600_000, 86_400_000
# Lengths that people say, in milliseconds: what may be marked on the axis.
_ROUND = (
    *(1, 2, 5, 10, 20, 50, 100, 200, 500),
    *(number * _SECOND for number in (1, 2, 5, 10, 20, 30)),
    *(number * _MINUTE for number in (1, 2, 5, 10, 20, 30)),
    *(number * _HOUR for number in (1, 2, 6, 12)),
    *(number * _DAY for number in (1, 2, 7, 14, 30, 90, 365)),
)


def plot_durations(runs: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw how long completed and failed runs took, as two histograms over one logarithmic time axis.

    Two upright lines mark the median and the 95th percentile of the completed runs. Runs that have not ended,
    were skipped, or have no duration that could be (missing, negative) are left out; the legend says how many
    are counted.

    Parameters
    ----------
    runs
        What `qoderdata.load_runs` gives.
    ax
        What to draw on. ``None`` makes a new figure, about 9 by 3.8 inches.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on: x is the duration in milliseconds, labelled in seconds, minutes and hours (a run of
        0 ms stands at 1 ms), y the number of runs.

    Raises
    ------
    MissingColumnError
        The frame is not one of runs.

    Examples
    --------
    >>> import pandas as pd
    >>> ax = plot_durations(pd.DataFrame({"status": "completed", "duration_ms": [9_000, 12_000, 70_000]}))
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['10 s', '20 s', '30 s', '1 min']
    """
    require_columns(runs.columns, ["status", "duration_ms"], what="runs")
    ax = axes_for(ax, height=_HEIGHT_INCHES)
    ax.set_title("Durations of runs")
    completed, failed = _milliseconds(runs, "completed"), _milliseconds(runs, "failed")
    both = np.concatenate([completed, failed])
    if not both.size:
        sentence(ax, "No run with a duration has ended.")
        return ax

    edges = _edges(both)
    handles: list[Artist] = []
    texts: list[str] = []
    ax.set_xscale("log")
    if completed.size:
        handles.append(ax.stairs(np.histogram(completed, edges)[0], edges, fill=True, color=PALE))
        texts.append(f"completed ({completed.size:,} runs)")
        for share, words, style in ((0.5, "median", "solid"), (0.95, "95th percentile", "dashed")):
            length = float(np.quantile(completed, share))
            handles.append(ax.axvline(length, color=ink(), linewidth=1.2, linestyle=style))
            texts.append(f"{words}, completed: {_words(length)}")
    if failed.size:
        counts = np.histogram(failed, edges)[0]
        handles.append(ax.stairs(counts, edges, color=VERMILLION, linewidth=1.8))
        texts.append(f"failed ({failed.size:,} runs)")
    legend_beside(ax, handles, texts)
    _duration_axis(ax, edges)
    ax.set_ylabel("runs")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _milliseconds(runs: pd.DataFrame, status: str) -> NDArray[np.float64]:
    """Give the durations of the runs that ended so; a logarithmic axis begins at 1 ms."""
    ended = runs.loc[runs["status"].eq(status).fillna(value=False), "duration_ms"].dropna()
    lengths: NDArray[np.float64] = ended[ended >= 0].clip(lower=1).to_numpy(np.float64)
    return lengths


def _edges(lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide the span of all lengths evenly on the logarithmic axis."""
    shortest, longest = float(lengths.min()), float(lengths.max())
    if shortest == longest:
        shortest, longest = shortest / 2, longest * 2
    edges: NDArray[np.float64] = np.geomspace(shortest, longest, _BINS + 1)
    edges[[0, -1]] = shortest, longest  # the logarithm is not exact, and no run may fall off the ends
    return edges


def _words(length: float) -> str:
    """Write a duration so that two round ones never read alike."""
    return f"{length:.0f} ms" if length < _SECOND else milliseconds(length)


def _duration_axis(ax: Axes, edges: NDArray[np.float64]) -> None:
    """Mark round lengths of time, thinned out to as many as there is room for."""
    from matplotlib.ticker import NullLocator  # noqa: PLC0415 - heavy, and needed only when drawing

    low, high = edges[0] / 1.15, edges[-1] * 1.15
    ticks = [length for length in _ROUND if low <= length <= high]
    ticks = ticks[:: -(-len(ticks) // _MOST_TICKS) or 1]
    if len(ticks) < 2:  # noqa: PLR2004 - one mark gives no scale
        ticks = [round(float(length)) for length in np.geomspace(edges[0], edges[-1], 4)]
    ax.set_xlim(low, high)
    ax.set_xticks(ticks, [_words(length) for length in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("duration (logarithmic)")
