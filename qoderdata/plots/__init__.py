"""Plot frames: frame in, Axes out.

A plot computes nothing that a summary or timeline should. Every function draws on the axes that it is given, or on
those of a new figure, and returns them; none shows, saves or closes anything, or changes matplotlib's settings.
matplotlib is imported when the first plot is drawn.

| file | question |
|---|---|
| `failure_plots` | who fails most, and how does the failure rate change over time? |
| `timeline_plots` | what ran when, what was missed, what fires next, and how is the load spread over the week? |
| `cost_plots` | what costs most, and how does it change over time? |
| `run_plots` | which days went badly, and how long do runs take? |
| `axes` | how are axes, rows, grids, legends and numbers drawn, and a user's own figure styled? |
| `time_axes` | how is something drawn over time: windows and panels, ticks, limits and words for times? |
| `labels` | how does a name become a label? |
"""
