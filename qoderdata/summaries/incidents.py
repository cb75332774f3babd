"""Which groups are failing now and since when, how long recoveries took, and which errors made runs fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import narwhals as nw

from qoderdata.summaries.dataframe_engines import EPOCH, add_column, flag, group_keys, instant, open_source
from qoderdata.summaries.run_rates import count_outcomes, outcomes_of, warn_of_unknown

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
_ERRORS = {
    "count": "Int64",
    "share": "float64",
    "first_seen": "datetime64[us, UTC]",
    "last_seen": "datetime64[us, UTC]",
}


def failure_streaks(runs: IntoFrameT, by: str | Sequence[str] | None = "deployment_id") -> IntoFrameT:
    """Compute current and longest streaks of failures, and how long recoveries took.

    Runs are ordered by ``triggered_at``, then ``created_at`` where the frame has it, then ``id``. Only
    ``completed`` and ``failed`` runs count, ``completed`` ones also where that is assumed: all others (skipped,
    cancelled, unfinished, of unknown status, or without a time) neither break nor extend a streak. An incident is
    a streak of one or more failures: closed by the next success, open as long as there is none.

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
        keys are the index; on other engines they are the first columns, and what is lazy stays lazy. Names of
        the ids in `by` come first, as in `run_failure_rates`. An empty frame gives no rows.

        ======================== ==================== =====================================================
        ``current_streak``       Int64                failures since the last success; 0 after a success
        ``current_streak_since`` datetime64[us, UTC]  ``triggered_at`` of its first failure; NaT without one
        ``longest_streak``       Int64                the longest ever, the current one included
        ``incidents``            Int64                closed incidents
        ``mttr_ms``              float64              mean time to recovery of the closed incidents, from the
                                                      ``triggered_at`` of the first failure to that of the
                                                      next success (0 where that is another run of the same
                                                      scheduled time); NaN (null) where none is closed
        ``open_incidents``       Int64                1 where an incident is open, else 0; not in ``mttr_ms``
        ======================== ==================== =====================================================

    Raises
    ------
    NotImplementedError
        The frame is Dask's.
    ValueError
        ``by`` makes no sense.
    FrameTypeError
        Not a frame, or a column that has lost its dtype; the message says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.

    Warns
    -----
    DataQualityWarning
        A run's ``id`` is in a pandas frame more than once: each row counts.
    UnknownOutcomesWarning
        The outcome of more than 5 % of the runs is not known; frames that are lazy are not read for this.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> runs = pd.DataFrame({
    ...     "id": ["r1", "r2", "r3", "r4"], "deployment_id": ["dep_1"] * 4,
    ...     "status": ["failed", "completed", "failed", "failed"],
    ...     "triggered_at": pd.to_datetime([f"2026-06-15T0{hour}:00Z" for hour in range(4)]),
    ... })
    >>> qd.failure_streaks(runs)[["current_streak", "incidents", "mttr_ms", "open_incidents"]]
                   current_streak  incidents    mttr_ms  open_incidents
    deployment_id
    dep_1                       2          1  3600000.0               1
    """
    keys = group_keys(by, results=_STREAKS)
    wanted = ["id", "status", "triggered_at"]
    source = open_source(runs, keys=keys, wanted=wanted, what="runs", optional=["created_at", "status_from"])
    source.refuse_dask("failure_streaks", "runs in order of time within a group")
    if source.eager:
        so = "a streak may be longer than this says, or have ended"
        warn_of_unknown(count_outcomes(source.frame), outcomes_of(runs), so=so)

    rows = add_column(source.frame, "_at", EPOCH, "triggered_at")
    at = nw.col("_at")
    rows = rows.with_columns(
        flag((nw.col("status") == "failed") & ~at.is_null()).alias("_failure"),
        flag((nw.col("status") == "completed") & ~at.is_null()).alias("_success"),
    )
    # An interval reaches from one success to the next: any number of failures, closed by the next success.
    order_by = [name for name in ("triggered_at", "created_at", "id") if name in rows.collect_schema()]
    successes = nw.col("_success").cum_sum().over(*source.grouping, order_by=order_by)
    rows = rows.with_columns(successes.alias("_successes"))
    rows = rows.with_columns(
        (nw.col("_successes") - nw.col("_success")).alias("_interval"),
        nw.when(nw.col("_failure") == 1).then(at).alias("_failed_at"),
        nw.when(nw.col("_success") == 1).then(at).alias("_recovered_at"),
    )
    intervals = rows.group_by(*source.grouping, "_interval").agg(
        nw.col("_failure").sum(),
        nw.col("_failed_at").min(),
        nw.col("_recovered_at").max(),
        *source.aggregated_names(),
    )
    failures = nw.col("_failure").cast(nw.Int64)
    closed = ~nw.col("_recovered_at").is_null() & (failures > 0)
    open_ = nw.col("_recovered_at").is_null() & (failures > 0)
    intervals = intervals.with_columns(
        failures.alias("longest_streak"),
        nw.when(open_).then(failures).otherwise(nw.lit(0)).alias("current_streak"),
        nw.when(open_).then(nw.col("_failed_at")).alias("_since"),
        flag(closed).alias("incidents"),
        flag(open_).alias("open_incidents"),
        nw.when(closed).then(nw.col("_recovered_at") - nw.col("_failed_at")).alias("_took"),
    )
    counts = ["current_streak", "incidents", "open_incidents"]
    grouped = intervals.group_by(*source.grouping).agg(
        nw.col(*counts).sum(),
        nw.col("longest_streak", "_since", *source.names).max(),
        nw.col("_took").mean(),
    )
    grouped = grouped.with_columns(nw.col(*counts).cast(nw.Int64))

    def finish(frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        frame = frame.with_columns((nw.col("_took").cast(nw.Float64) / 1000).alias("mttr_ms"))
        return add_column(frame, "current_streak_since", instant("UTC"), "_since")

    order = {"current_streak": True, "longest_streak": True}
    streaks: IntoFrameT = source.finalize(grouped, finish, keys=keys, dtypes=_STREAKS, order=order)
    return streaks


def error_breakdown(runs: IntoFrameT, by: str | Sequence[str] | None = None) -> IntoFrameT:
    """Count the error types of failed runs.

    Only runs with status ``failed`` count, so that the counts add up to ``failed`` of `run_failure_rates`:
    cancelled and skipped runs do not, whatever their error. A failed run without an error type has a row of its
    own, with the type missing.

    Parameters
    ----------
    runs
        A runs frame, of pandas or any engine that narwhals knows.
    by
        ``None`` for all runs together; or a column or a list of columns, to break each group down.

    Returns
    -------
    frame
        One row a group and error type; in order of the keys, then the most frequent first, then by type. On
        pandas the keys and ``error_type`` are the index; on other engines they are the first columns, and what
        is lazy stays lazy. Names of the ids in `by` come first, as in `run_failure_rates`. Without failed runs
        there are no rows.

        =============== ==================== ==========================================
        ``count``       Int64                failed runs of this type
        ``share``       float64              of all failed runs of the group; never 0
        ``first_seen``  datetime64[us, UTC]  the earliest ``triggered_at``
        ``last_seen``   datetime64[us, UTC]  the latest
        =============== ==================== ==========================================

    Raises
    ------
    ValueError
        ``by`` makes no sense.
    FrameTypeError
        Not a frame, or a column that has lost its dtype; the message says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.

    Warns
    -----
    DataQualityWarning
        A run's ``id`` is in a pandas frame more than once: each row counts.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> runs = pd.DataFrame({
    ...     "status": ["failed", "failed", "failed", "completed"],
    ...     "error_type": ["timeout", None, "timeout", None],
    ...     "triggered_at": pd.to_datetime(["2026-06-15T00:00Z"] * 4),
    ... })
    >>> qd.error_breakdown(runs)[["count", "share"]].round(3)
                count  share
    error_type
    timeout         2  0.667
    NaN             1  0.333
    """
    keys = group_keys(by, results=[*_ERRORS, "error_type"])
    source = open_source(runs, keys=keys, wanted=["status", "error_type", "triggered_at"], what="runs")
    failed = add_column(source.frame.filter(nw.col("status") == "failed"), "_at", EPOCH, "triggered_at")
    grouped = failed.group_by(*source.grouping, "error_type").agg(
        nw.len().alias("count"),
        nw.col("_at").min().alias("_first"),
        nw.col("_at").max().alias("_last"),
        *source.aggregated_names(),
    )
    grouped = grouped.with_columns(nw.col("count").cast(nw.Int64))
    grouping = source.grouping

    def finish(frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        all_ = nw.col("count").sum().over(*grouping)
        frame = frame.with_columns((nw.col("count") / all_.cast(nw.Float64)).alias("share"))
        frame = add_column(frame, "first_seen", instant("UTC"), "_first")
        return add_column(frame, "last_seen", instant("UTC"), "_last")

    shown = [*keys, "error_type"]
    order = {**dict.fromkeys(keys, False), "count": True}
    breakdown: IntoFrameT = source.finalize(grouped, finish, keys=shown, dtypes=_ERRORS, order=order)
    return breakdown
