"""What are a deployment's lifetime counters, where the service gives none?"""

from __future__ import annotations

import pandas as pd

from qoderdata.columns import require_frame
from qoderdata.summaries.incidents import failure_streaks
from qoderdata.summaries.run_rates import run_failure_rates

_COUNTERS = {
    "stats_total_runs": "runs",
    "stats_total_failures": "failed",
    "stats_consecutive_failures": "current_streak",
}
_LAST = "stats_last_triggered_at"


def fill_counters(df: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return the deployments with the counters that the service does not give, counted in their runs.

    The newest edition of the service has no lifetime counters. They are counted in `runs`, so they reach back no
    further than `runs` does, and say what its ``status`` says: resolve the runs first, as `load_runs` does.

    Parameters
    ----------
    df
        A deployments frame, as `load_deployments` returns it: its columns ``id``, ``stats_total_runs``,
        ``stats_total_failures``, ``stats_consecutive_failures`` and ``stats_last_triggered_at``.
    runs
        A runs frame, as `load_runs` returns it: its columns ``id``, ``deployment_id``, ``status``,
        ``triggered_at`` and ``duration_ms``.

    Returns
    -------
    pandas.DataFrame
        A copy of `df` with the same rows, index and columns. A deployment with any of the three numbers keeps all
        of its counters as they are. For the others these are filled:

        ============================== =================== ====================================================
        ``stats_total_runs``           Int64               its runs, of any status; 0 where there is none
        ``stats_total_failures``       Int64               its failed runs
        ``stats_consecutive_failures`` Int64               its current streak, as `failure_streaks` counts it
        ``stats_last_triggered_at``    datetime64[us, UTC] the last ``triggered_at``; missing where there is none
        ============================== =================== ====================================================

        Where one is filled, ``attrs["counted_since"]`` is the first ``triggered_at`` in `runs` as ISO 8601 text,
        and ``None`` where no run has a time.

    Raises
    ------
    FrameTypeError
        Not a pandas frame, or a column that has lost its dtype; the message says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> df = qd.flatten_deployments([{"id": "dep_1", "name": "nightly"}, {"id": "dep_2", "name": "hourly"}])
    >>> runs = pd.DataFrame({
    ...     "id": ["drun_2", "drun_1"], "deployment_id": "dep_1", "status": ["failed", "completed"],
    ...     "triggered_at": pd.to_datetime(["2026-06-15T02:00Z", "2026-06-15T01:00Z"]),
    ...     "duration_ms": [9000, 7000],
    ... })
    >>> counted = fill_counters(df, runs)
    >>> counted[["id", "stats_total_runs", "stats_total_failures"]]
          id  stats_total_runs  stats_total_failures
    0  dep_1                 2                     1
    1  dep_2                 0                     0
    >>> counted.attrs["counted_since"]
    '2026-06-15T01:00:00+00:00'
    """
    deployments = require_frame(df, ["id", *_COUNTERS, _LAST], what="deployments")
    wanted = ["id", "deployment_id", "status", "triggered_at", "duration_ms"]
    runs = require_frame(runs, wanted, what="runs")[wanted]
    result = deployments.copy()
    uncounted = deployments[list(_COUNTERS)].isna().all(axis=1)
    if not uncounted.any():
        return result
    counts = run_failure_rates(runs).join(failure_streaks(runs))
    ids = deployments.loc[uncounted, "id"].to_numpy()
    for column, figure in _COUNTERS.items():
        filled = counts[figure].reindex(ids).fillna(0).astype("Int64").array
        result[column] = result[column].astype("Int64")
        result.loc[uncounted, column] = filled
    last = runs.groupby("deployment_id")["triggered_at"].max().reindex(ids)
    result.loc[uncounted, _LAST] = result.loc[uncounted, _LAST].fillna(
        pd.Series(last.array, result.index[uncounted])
    )
    first = runs["triggered_at"].min()
    result.attrs["counted_since"] = None if pd.isna(first) else first.isoformat()
    return result
