"""Why runs fail: error types by count and share, first and last seen.

Owns what counts as an error here: that of a failed run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import narwhals as nw

from qoderdata.summaries import clock, engines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narwhals.typing import IntoFrameT

_ERRORS = {
    "count": "Int64",
    "share": "float64",
    "first_seen": "datetime64[us, UTC]",
    "last_seen": "datetime64[us, UTC]",
}
_TYPE = "error_type"


def error_breakdown(runs: IntoFrameT, by: str | Sequence[str] | None = None) -> IntoFrameT:
    """Tell what failed runs failed of.

    Only runs with status ``failed`` count, so that the counts add up to ``failed`` of `run_failure_rates`. A
    failed run without an error type has a row of its own, with the type missing.

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
        is lazy stays lazy. Without failed runs there are no rows.

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
    MissingColumnError
        A column is not there; the message lists those that are.

    Examples
    --------
    >>> import pandas as pd
    >>> runs = pd.DataFrame({
    ...     "status": ["failed", "failed", "failed", "completed"],
    ...     "error_type": ["timeout", None, "timeout", None],
    ...     "triggered_at": pd.to_datetime(["2026-06-15T00:00Z"] * 4),
    ... })
    >>> error_breakdown(runs)[["count", "share"]].round(3)
                count  share
    error_type
    timeout         2  0.667
    NaN             1  0.333
    """
    keys = engines.group_keys(by, results=[*_ERRORS, _TYPE])
    source = engines.read(runs, keys=keys, wanted=["status", _TYPE, "triggered_at"], what="runs")
    failed = clock.add(source.frame.filter(nw.col("status") == "failed"), "_at", clock.EPOCH, "triggered_at")
    grouped = failed.group_by(*source.grouping, _TYPE).agg(
        nw.len().alias("count"), nw.col("_at").min().alias("_first"), nw.col("_at").max().alias("_last")
    )
    grouped = grouped.with_columns(nw.col("count").cast(nw.Int64))
    grouping = source.grouping

    def finish(frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        all_ = nw.col("count").sum().over(*grouping)
        frame = frame.with_columns((nw.col("count") / all_.cast(nw.Float64)).alias("share"))
        frame = clock.add(frame, "first_seen", clock.instant("UTC"), "_first")
        return clock.add(frame, "last_seen", clock.instant("UTC"), "_last")

    shown = [*keys, _TYPE]
    order = {**dict.fromkeys(keys, False), "count": True}
    errors: IntoFrameT = source.give(grouped, finish, keys=shown, dtypes=_ERRORS, order=order)
    return errors
