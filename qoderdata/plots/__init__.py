"""Pictures: frame in, Axes out.

Computes nothing that a summary or timeline should. Every function draws on the axes that it is given, or on
those of a new figure, and hands them back; none shows, saves or closes anything, or changes matplotlib's
settings. matplotlib is imported when the first picture is drawn.

- `failures`: failure rates as bars, worst first.
- `triggers`: what fires next, one lane a deployment.
- `week`: the load by weekday and hour.
- `trend`: failure rates over time.
- `calendar`: days by how badly their runs went.
- `durations`: how long runs take.
- `canvas`, `times`, `lettering`: what they share, and names as labels.
"""

from __future__ import annotations

from qoderdata.plots.calendar import plot_run_calendar
from qoderdata.plots.durations import plot_durations
from qoderdata.plots.failures import plot_failure_rates
from qoderdata.plots.trend import plot_run_failure_rates
from qoderdata.plots.triggers import plot_next_triggers
from qoderdata.plots.week import plot_trigger_load

__all__ = [
    "plot_durations",
    "plot_failure_rates",
    "plot_next_triggers",
    "plot_run_calendar",
    "plot_run_failure_rates",
    "plot_trigger_load",
]
