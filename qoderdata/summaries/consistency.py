"""Where the service's counters and its list of runs disagree."""

from __future__ import annotations

import pandas as pd

from qoderdata.columns import require_frame
from qoderdata.summaries.incidents import failure_streaks
from qoderdata.summaries.run_rates import run_failure_rates

_FIGURES = ["total_runs", "total_failures", "consecutive_failures"]


def consistency(df: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Compare the service's lifetime counters with the runs that it lists.

    ``total_runs`` is compared with the number of listed runs of the deployment, whatever their status,
    ``total_failures`` with the failed ones, ``consecutive_failures`` with the current streak of
    `failure_streaks`. A counter that is missing is not compared; runs of deployments that are not in `df` (such
    as archived ones) are not looked at. Runs of a part of the time only, or ones that the service has forgotten
    since, show as differences: they are.

    Parameters
    ----------
    df
        A deployments frame, pandas.
    runs
        All runs of these deployments, pandas.

    Returns
    -------
    pandas.DataFrame
        One row a counter that disagrees, in the order of `df`; no rows where all agree. Columns:
        ``deployment_id``, ``name``, ``figure`` (``"total_runs"``, ``"total_failures"`` or
        ``"consecutive_failures"``), all ``str``; ``counter`` (what the service counted), ``listed`` (what its runs
        say) and ``difference`` (``counter - listed``), all ``Int64``.

    Raises
    ------
    FrameTypeError
        Not a pandas frame, or a column that has lost its dtype; the message says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.

    Examples
    --------
    >>> df = pd.DataFrame({
    ...     "id": ["dep_1"], "name": ["nightly"], "stats_total_runs": [3],
    ...     "stats_total_failures": [1], "stats_consecutive_failures": [1],
    ... })
    >>> runs = pd.DataFrame({
    ...     "id": ["r1", "r2"], "deployment_id": "dep_1", "status": ["completed", "failed"],
    ...     "triggered_at": pd.to_datetime(["2026-06-15T00:00Z", "2026-06-16T00:00Z"]), "duration_ms": [5, 5],
    ... })
    >>> consistency(df, runs)[["deployment_id", "figure", "counter", "listed", "difference"]]
      deployment_id      figure  counter  listed  difference
    0         dep_1  total_runs        3       2           1
    """
    df = require_frame(df, ["id", "name", *(f"stats_{figure}" for figure in _FIGURES)], what="deployments")
    runs = require_frame(runs, ["id", "deployment_id"], what="runs")
    rates = run_failure_rates(runs)
    listed = pd.DataFrame(
        {
            "total_runs": rates["runs"],
            "total_failures": rates["failed"],
            "consecutive_failures": failure_streaks(runs)["current_streak"],
        },
        dtype="Int64",
    ).reindex(df["id"], fill_value=0)
    compared = pd.concat(
        [
            pd.DataFrame(
                {
                    "deployment_id": df["id"].to_numpy(),
                    "name": df["name"].to_numpy(),
                    "figure": figure,
                    "counter": df[f"stats_{figure}"].astype("Int64").to_numpy(),
                    "listed": listed[figure].to_numpy(),
                }
            ).astype(
                {"deployment_id": "str", "name": "str", "figure": "str", "counter": "Int64", "listed": "Int64"}
            )
            for figure in _FIGURES
        ]
    ).sort_index(kind="stable")
    compared["difference"] = compared["counter"] - compared["listed"]
    differs = (compared["difference"] != 0).fillna(value=False)
    return compared[differs].reset_index(drop=True)
