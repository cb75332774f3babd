"""What the data tells, frame in and frame out: rates, streaks, errors, durations, consistency.

Of lifetime counters: `failure_rates`. Of runs: `run_failure_rates`, `failure_streaks`, `error_breakdown`,
`duration_regressions`, `start_delays`. Of both: `consistency`.

Every function is pure, and written once for all engines that narwhals knows: a pandas frame in gives a pandas
frame out; Polars, PyArrow, DuckDB, Dask and PySpark give their own, and stay lazy where they are lazy.
"""

from qoderdata.summaries.consistency import consistency
from qoderdata.summaries.durations import duration_regressions, start_delays
from qoderdata.summaries.error_types import error_breakdown
from qoderdata.summaries.rates import failure_rates
from qoderdata.summaries.run_rates import run_failure_rates
from qoderdata.summaries.streaks import failure_streaks

__all__ = [
    "consistency",
    "duration_regressions",
    "error_breakdown",
    "failure_rates",
    "failure_streaks",
    "run_failure_rates",
    "start_delays",
]
