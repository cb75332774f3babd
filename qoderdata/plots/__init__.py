"""Pictures: frame in, Axes out.

Computes nothing that a summary or timeline should. Every function draws on the axes that it is given, or on
those of a new figure, and hands them back; none shows, saves or closes anything, or changes matplotlib's
settings. matplotlib is imported when the first picture is drawn.

- `failures`: failure rates as bars, worst first.
- `triggers`: what fires next, and the load by weekday and hour.
- `canvas`, `lettering`: what they share, and names as labels.
"""

from __future__ import annotations

from qoderdata.plots.failures import plot_failure_rates
from qoderdata.plots.triggers import plot_next_triggers

__all__ = ["plot_failure_rates", "plot_next_triggers"]
