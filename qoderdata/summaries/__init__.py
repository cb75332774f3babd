"""Compute rates, comparisons, streaks, errors, durations, costs and counters: frame in, frame out.

==================== ======================================================================================
`counters`           which rates follow from lifetime counters, and do the counters agree with the runs?
`run_rates`          how often do runs fail, in total, over time, and in a row?
`run_errors`         which errors make runs fail, by type, or by message without its variable parts?
`comparison`         what changed from one period to another, and how much of an error budget is used?
`deployment_changes` what changed between two deployments frames?
`costs`              what do sessions cost, and more than before?
`run_durations`      what got slower, how late do runs start, and which runs are unusual or stuck?
`wilson`             how certain is a rate?
`time_windows`       what is a day or an hour in a zone?
`dataframe_engines`  what differs between pandas, Polars, PyArrow, DuckDB, Dask and Spark?
==================== ======================================================================================

Every function is pure. `changes`, `consistency` and `fill_counters` take pandas frames. The others return the kind
of frame that they are given (pandas, Polars, PyArrow, DuckDB, Dask, PySpark), and lazy frames stay lazy. Every row
of a runs frame is counted: a pandas frame in which a run's ``id`` occurs more than once gives a
`DataQualityWarning`, and so does one of deployments in `failure_rates`. Each session counts once.
"""

from qoderdata.summaries.comparison import compare_periods, error_budget
from qoderdata.summaries.costs import compare_costs, session_costs
from qoderdata.summaries.counters import consistency, failure_rates, fill_counters
from qoderdata.summaries.deployment_changes import changes
from qoderdata.summaries.run_durations import duration_regressions, start_delays, unusual_runs
from qoderdata.summaries.run_errors import error_breakdown, error_groups
from qoderdata.summaries.run_rates import failure_streaks, run_failure_rates

__all__ = [
    "changes",
    "compare_costs",
    "compare_periods",
    "consistency",
    "duration_regressions",
    "error_breakdown",
    "error_budget",
    "error_groups",
    "failure_rates",
    "failure_streaks",
    "fill_counters",
    "run_failure_rates",
    "session_costs",
    "start_delays",
    "unusual_runs",
]
