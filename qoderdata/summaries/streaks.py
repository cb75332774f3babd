"""Who is failing right now, since when, and how long it took to recover.

Owns what a streak and an incident are. Leaves to `run_rates` how often runs fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import narwhals as nw

from qoderdata.summaries import clock, engines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narwhals.typing import IntoFrameT

_STREAKS = {
    "current_streak": "Int64",
    "current_streak_since": "datetime64[us, UTC]",
    "longest_streak": "Int64",
    "incidents": "Int64",
    "mttr_ms": "float64",
    "open_incidents": "Int64",
}


def failure_streaks(runs: IntoFrameT, by: str | Sequence[str] | None = "deployment_id") -> IntoFrameT:
    """Tell who fails in a row now, since when, how long the worst row was, and how long recoveries took.

    Runs are put in order of ``triggered_at`` (then ``id``). ``skipped`` and unfinished runs neither break nor
    extend a streak; a run without a time cannot be placed and does neither. An incident is a streak of one or
    more failures: closed by the next success, open as long as there is none.

    Parameters
    ----------
    runs
        A runs frame, of pandas or any engine that narwhals knows, except Dask, which cannot put a group in
        order.
    by
        A column, a list of columns (the streak is then that of their runs together), or ``None`` for all runs.
        A missing key is a group of its own.

    Returns
    -------
    frame
        One row a group, the longest current streak first, then the longest ever, then by key. On pandas the
        keys are the index; on other engines they are the first columns, and what is lazy stays lazy. An empty
        frame gives no rows.

        ======================== ==================== =====================================================
        ``current_streak``       Int64                failures since the last success; 0 after a success
        ``current_streak_since`` datetime64[us, UTC]  ``triggered_at`` of its first failure; NaT without one
        ``longest_streak``       Int64                the longest ever, the current one included
        ``incidents``            Int64                closed incidents
        ``mttr_ms``              float64              mean time to recovery of the closed incidents, from the
                                                      ``triggered_at`` of the first failure to that of the
                                                      next success; NaN (null) where none is closed
        ``open_incidents``       Int64                1 where an incident is open, else 0; not in ``mttr_ms``
        ======================== ==================== =====================================================

    Raises
    ------
    NotImplementedError
        The frame is Dask's.
    ValueError
        ``by`` makes no sense.
    MissingColumnError
        A column is not there; the message lists those that are.

    Examples
    --------
    >>> import pandas as pd
    >>> runs = pd.DataFrame({
    ...     "id": ["r1", "r2", "r3", "r4"], "deployment_id": ["dep_1"] * 4,
    ...     "status": ["failed", "completed", "failed", "failed"],
    ...     "triggered_at": pd.to_datetime([f"2026-06-15T0{hour}:00Z" for hour in range(4)]),
    ... })
    >>> failure_streaks(runs)[["current_streak", "incidents", "mttr_ms", "open_incidents"]]
                   current_streak  incidents    mttr_ms  open_incidents
    deployment_id
    dep_1                       2          1  3600000.0               1
    """
    keys = engines.group_keys(by, results=_STREAKS)
    source = engines.read(runs, keys=keys, wanted=["id", "status", "triggered_at"], what="runs")
    source.refuse_dask("failure_streaks", "runs in order of time within a group")

    rows = clock.add(source.frame, "_at", clock.EPOCH, "triggered_at")
    at = nw.col("_at")
    rows = rows.with_columns(
        engines.flag((nw.col("status") == "failed") & ~at.is_null()).alias("_failure"),
        engines.flag((nw.col("status") == "completed") & ~at.is_null()).alias("_success"),
    )
    # A stretch is what happens from one success to the next: none or more failures, closed by the next success.
    successes = nw.col("_success").cum_sum().over(*source.grouping, order_by=["triggered_at", "id"])
    rows = rows.with_columns(successes.alias("_successes"))
    rows = rows.with_columns(
        (nw.col("_successes") - nw.col("_success")).alias("_stretch"),
        nw.when(nw.col("_failure") == 1).then(at).alias("_failed_at"),
        nw.when(nw.col("_success") == 1).then(at).alias("_recovered_at"),
    )
    stretches = rows.group_by(*source.grouping, "_stretch").agg(
        nw.col("_failure").sum(), nw.col("_failed_at").min(), nw.col("_recovered_at").max()
    )
    failures = nw.col("_failure").cast(nw.Int64)
    closed = ~nw.col("_recovered_at").is_null() & (failures > 0)
    open_ = nw.col("_recovered_at").is_null() & (failures > 0)
    stretches = stretches.with_columns(
        failures.alias("longest_streak"),
        nw.when(open_).then(failures).otherwise(nw.lit(0)).alias("current_streak"),
        nw.when(open_).then(nw.col("_failed_at")).alias("_since"),
        engines.flag(closed).alias("incidents"),
        engines.flag(open_).alias("open_incidents"),
        nw.when(closed).then(nw.col("_recovered_at") - nw.col("_failed_at")).alias("_took"),
    )
    counts = ["current_streak", "incidents", "open_incidents"]
    grouped = stretches.group_by(*source.grouping).agg(
        nw.col(*counts).sum(), nw.col("longest_streak", "_since").max(), nw.col("_took").mean()
    )
    grouped = grouped.with_columns(nw.col(*counts).cast(nw.Int64))

    def finish(frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        frame = frame.with_columns((nw.col("_took").cast(nw.Float64) / 1000).alias("mttr_ms"))
        return clock.add(frame, "current_streak_since", clock.instant("UTC"), "_since")

    order = {"current_streak": True, "longest_streak": True}
    streaks: IntoFrameT = source.give(grouped, finish, keys=keys, dtypes=_STREAKS, order=order)
    return streaks
