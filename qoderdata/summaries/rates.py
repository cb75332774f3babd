"""How often deployments fail: by the service's lifetime counters, and by the runs themselves.

Owns the meaning of a failure rate. Leaves to `wilson` how sure it is, to `occurrences` which attempt counts,
and to `clock` what a window of time is.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import narwhals as nw
import pandas as pd

from qoderdata import errors
from qoderdata.summaries import clock, engines, occurrences, wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narwhals.typing import IntoFrameT

_RUNS, _FAILURES, _STREAK = "stats_total_runs", "stats_total_failures", "stats_consecutive_failures"
_SHOWN_IDS = 5

_LIFETIME = {
    "deployments": "Int64",
    "total_runs": "Int64",
    "total_failures": "Int64",
    "failure_rate": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "consecutive_failures": "Int64",
    "failing": "Int64",
    "never_run": "Int64",
}
_DECIDED = {
    "runs": "Int64",
    "completed": "Int64",
    "failed": "Int64",
    "skipped": "Int64",
    "unfinished": "Int64",
    "failure_rate": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "duration_p50_ms": "float64",
    "duration_p95_ms": "float64",
}
_LIFETIME_COUNTS = [name for name, dtype in _LIFETIME.items() if dtype == "Int64"]
_COUNTS = ["runs", "completed", "failed", "skipped", "unfinished"]
_DURATIONS = ["duration_p50_ms", "duration_p95_ms"]


def _flag(condition: nw.Expr) -> nw.Expr:
    """Turn a condition into 0 or 1, since not every engine sums conditions; unknown is 0."""
    return nw.when(condition).then(nw.lit(1)).otherwise(nw.lit(0))


def failure_rates(
    df: IntoFrameT, by: str | Sequence[str] | None = "id", *, confidence: float = 0.95
) -> IntoFrameT:
    """Tell how often deployments failed in their lifetime, by the service's own counters.

    ``total_failures / total_runs``: no run, no rate. A deployment without counters counts in ``deployments``
    only. Counters that cannot be (negative, or more failures than runs) give no rate and are left out of sums.

    Parameters
    ----------
    df
        A deployments frame, of pandas or any engine that narwhals knows.
    by
        ``"id"`` for one row a deployment; a column or a list of columns to pool the counters of all deployments
        that share them (a missing key is a group of its own); ``None`` for one row of all.
    confidence
        How often intervals made this way hold the true rate.

    Returns
    -------
    frame
        One row a group, worst first: by ``failure_rate``, then ``total_failures``, both descending, missing
        last, then by key. On pandas the keys are the index (with ``by="id"`` the first column is ``name``); on
        other engines they are the first columns, and what is lazy stays lazy. An empty frame gives no rows.

        =========================== ========= ==========================================================
        ``deployments``             Int64     how many
        ``total_runs``              Int64     missing where no deployment has counters
        ``total_failures``          Int64     likewise
        ``failure_rate``            float64   between 0 and 1; NaN (null elsewhere) where nothing ran
        ``ci_low``, ``ci_high``     float64   Wilson score interval of the rate
        ``consecutive_failures``    Int64     the longest streak of now
        ``failing``                 Int64     how many deployments have a streak now
        ``never_run``               Int64     how many have counters that say 0 runs
        =========================== ========= ==========================================================

    Raises
    ------
    ValueError
        ``by`` or ``confidence`` makes no sense.
    MissingColumnError
        A column is not there; the message lists those that are.

    Warns
    -----
    DataQualityWarning
        Counters that cannot be, with the first ids. Not on lazy frames, which are not read here.

    Notes
    -----
    The interval: Wilson, E. B. (1927), "Probable inference, the law of succession, and statistical
    inference", J. Am. Stat. Assoc. 22, 209-212.

    Examples
    --------
    >>> df = pd.DataFrame({
    ...     "id": ["dep_1", "dep_2"], "name": ["nightly", "hourly"], "stats_total_runs": [10, 0],
    ...     "stats_total_failures": [2, 0], "stats_consecutive_failures": [1, 0],
    ... })
    >>> failure_rates(df)[["name", "failure_rate", "ci_low", "ci_high"]].round(3)
              name  failure_rate  ci_low  ci_high
    id
    dep_1  nightly           0.2   0.057     0.51
    dep_2   hourly           NaN     NaN      NaN
    """
    columns = {"name": "str", **_LIFETIME} if by in ("id", ["id"]) else _LIFETIME
    confidence = wilson.check_confidence(confidence)
    keys = engines.group_keys(by, results=columns)
    named = [*keys, "name"] if "name" in columns else keys
    source = engines.read(df, keys=named, wanted=[_RUNS, _FAILURES, _STREAK, "id"], what="deployments")

    runs, failures, streak = (nw.col(name).cast(nw.Int64) for name in (_RUNS, _FAILURES, _STREAK))
    impossible = (runs < 0) | (failures < 0) | (failures > runs) | (streak < 0)
    rows = source.frame.with_columns(_flag(impossible).alias("_impossible"))
    possible = nw.col("_impossible") == 0
    known = possible & ~runs.is_null() & ~failures.is_null()
    rows = rows.with_columns(
        _flag(known).alias("_known"),
        nw.when(known).then(runs).alias("total_runs"),
        nw.when(known).then(failures).alias("total_failures"),
        nw.when(possible).then(streak).alias("consecutive_failures"),
        _flag(possible & (streak > 0)).alias("failing"),
        _flag(known & (runs == 0)).alias("never_run"),
    )
    if source.eager:
        _warn_of_impossible(rows)
    grouped = rows.group_by(*source.grouping).agg(
        nw.len().alias("deployments"),
        nw.col("_known", "total_runs", "total_failures", "failing", "never_run").sum(),
        nw.col("consecutive_failures").max(),
    )
    grouped = grouped.with_columns(nw.col("_known", *_LIFETIME_COUNTS).cast(nw.Int64))

    def finish(frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        some = nw.col("_known") > 0
        return (
            frame.with_columns(
                # The sum of nothing is missing, not zero.
                *(nw.when(some).then(nw.col(name)).alias(name) for name in ("total_runs", "total_failures"))
            )
            .with_columns(
                wilson.rate_with_interval(
                    "total_failures", "total_runs", rate="failure_rate", confidence=confidence
                )
            )
            .sort(
                "failure_rate",
                "total_failures",
                *source.grouping,
                descending=[True, True, *(False for _ in source.grouping)],
                nulls_last=True,
            )
        )

    result = source.finish(grouped, finish)
    rates: IntoFrameT = source.give(result, keys, columns)
    return rates


def _warn_of_impossible(rows: nw.LazyFrame[Any]) -> None:
    ids = [str(id_) for id_ in rows.filter(nw.col("_impossible") == 1).select("id").collect()["id"].to_list()]
    if ids:
        first = ", ".join(ids[:_SHOWN_IDS]) + (", ..." if len(ids) > _SHOWN_IDS else "")
        warnings.warn(
            f"{len(ids)} deployments have counters that cannot be (negative, or more failures than runs); "
            f"they get no rate and are left out of sums: {first}",
            errors.DataQualityWarning,
            stacklevel=3,
        )


def run_failure_rates(
    runs: IntoFrameT,
    by: str | Sequence[str] | None = "deployment_id",
    *,
    freq: str | None = None,
    tz: str = "UTC",
    per: str = "attempt",
    confidence: float = 0.95,
) -> IntoFrameT:
    """Tell how often runs fail: of those that were decided, the share that failed.

    ``failed / (completed + failed)``: ``skipped``, ``pending`` and ``running`` runs decide nothing and are
    counted apart. A status that this package does not know counts in ``runs`` only.

    Parameters
    ----------
    runs
        A runs frame, of pandas or any engine that narwhals knows.
    by
        A column, a list of columns, or ``None`` for all runs together. A missing key is a group of its own.
    freq
        Windows of time, by ``triggered_at``: a count and ``min``, ``h``, ``D`` or ``W``, such as ``"15min"``,
        ``"1h"``, ``"1D"``, ``"1W"``. Days and weeks (from Monday) are those of the wall clock in `tz`, so they
        have 23 or 25 hours where clocks change, and several are counted from 1970; hours and minutes are
        absolute, counted from each local midnight, and must fill a day evenly. ``None``: no windows.
    tz
        The IANA zone of the windows.
    per
        ``"attempt"`` counts every run; ``"occurrence"`` counts a scheduled time once, by its last attempt (and
        in the window of that attempt). The service names no occurrence: a retry with attempt n is taken to
        continue the latest earlier failed run of its deployment with attempt n - 1. Not on Dask.
    confidence
        How often intervals made this way hold the true rate.

    Returns
    -------
    frame
        One row a group, worst first (by ``failure_rate``, then ``failed``, both descending, missing last, then
        by key); with `freq` one row a group and window, in order of key and time. On pandas the keys are the
        index, with ``window`` its last level; on other engines they are the first columns, and what is lazy
        stays lazy. ``window`` is when it begins, zone-aware in `tz` (DuckDB and Spark keep no zone in the type
        and show it in their session's, which is never changed). Every group has every window from the first
        to the last run of the whole frame, empty ones with 0 runs and no rate; lazy frames, which are not read
        here, have only windows with runs. Runs without a time have a missing window.

        ================================================= ========= =====================================
        ``runs``                                          Int64     all
        ``completed``, ``failed``, ``skipped``            Int64     by status
        ``unfinished``                                    Int64     pending or running
        ``failure_rate``                                  float64   NaN (null) where nothing was decided
        ``ci_low``, ``ci_high``                           float64   Wilson score interval of the rate
        ``duration_p50_ms``, ``duration_p95_ms``          float64   of completed runs, linear between ranks
        ================================================= ========= =====================================

    Raises
    ------
    ValueError
        A parameter makes no sense; the message names what is allowed.
    MissingColumnError
        A column is not there; the message lists those that are.

    Examples
    --------
    >>> runs = pd.DataFrame({
    ...     "deployment_id": ["dep_1"] * 4, "status": ["completed", "failed", "completed", "skipped"],
    ...     "duration_ms": pd.array([1000, 9000, 3000, None], dtype="Int64"),
    ... })
    >>> run_failure_rates(runs)[["runs", "failed", "failure_rate", "duration_p50_ms"]].round(3)
                   runs  failed  failure_rate  duration_p50_ms
    deployment_id
    dep_1             4       1         0.333           2000.0
    """
    confidence = wilson.check_confidence(confidence)
    if per not in ("attempt", "occurrence"):
        raise ValueError(f"per={per!r} must be 'attempt' or 'occurrence'")
    windows = None if freq is None else clock.Windows.read(freq, tz)
    columns = dict(_DECIDED)
    keys = engines.group_keys(by, results=[*columns, "window"])
    wanted = ["status", "duration_ms"]
    wanted += ["triggered_at"] if windows else []
    wanted += occurrences.COLUMNS if per == "occurrence" else []
    source = engines.read(runs, keys=keys, wanted=wanted, what="runs")

    rows = windows.label(source.frame, "triggered_at") if windows else source.frame
    labels = _labels(rows, windows) if windows and source.eager else []
    if per == "occurrence":
        rows = occurrences.last_attempts(rows)
    status = nw.col("status")
    completed = status == "completed"
    rows = rows.with_columns(
        _flag(completed).alias("completed"),
        _flag(status == "failed").alias("failed"),
        _flag(status == "skipped").alias("skipped"),
        _flag((status == "pending") | (status == "running")).alias("unfinished"),
        nw.when(completed).then(nw.col("duration_ms").cast(nw.Float64)).alias("_ms"),
    )
    grouping = [*source.grouping, "window"] if windows else source.grouping
    grouped = rows.group_by(*grouping).agg(
        nw.len().alias("runs"),
        nw.col(*_COUNTS[1:]).sum(),
        nw.col("_ms").quantile(0.5, interpolation="linear").alias("duration_p50_ms"),
        nw.col("_ms").quantile(0.95, interpolation="linear").alias("duration_p95_ms"),
    )
    grouped = grouped.with_columns(nw.col(*_COUNTS).cast(nw.Int64))

    def finish(frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        if labels:
            frame = _with_empty_windows(frame, grouping, labels)
        frame = frame.with_columns((nw.col("completed") + nw.col("failed")).alias("_decided"))
        frame = frame.with_columns(
            wilson.rate_with_interval("failed", "_decided", rate="failure_rate", confidence=confidence)
        )
        if windows:
            return windows.begin(frame.sort(*grouping, nulls_last=True))
        descending = [True, True, *(False for _ in grouping)]
        return frame.sort("failure_rate", "failed", *grouping, descending=descending, nulls_last=True)

    result = source.finish(grouped, finish)
    rates: IntoFrameT = source.give(result, [*keys, "window"] if windows else keys, columns)
    return rates


def _labels(rows: nw.LazyFrame[Any], windows: clock.Windows) -> list[int]:
    """List all windows from the first to the last run."""
    label = nw.col("window")
    ends = rows.filter(~label.is_null()).select(label.min().alias("first"), label.max().alias("last")).collect()
    first, last = ends["first"].to_list() + ends["last"].to_list()
    return [] if pd.isna(first) else windows.between(int(first), int(last))


def _with_empty_windows(frame: nw.LazyFrame[Any], grouping: Sequence[str], labels: list[int]) -> nw.LazyFrame[Any]:
    """Give every group a row for every window.

    Empty rows are added to all and summed up with what is there; a join would lose groups without a key.
    """
    counted = frame.collect()
    keys = [key for key in grouping if key != "window"]
    all_windows = nw.from_dict({"window": labels}, backend=counted.implementation)
    empty = (
        counted.select(*keys)
        .unique()
        .join(all_windows, how="cross")
        .with_columns(
            *(nw.lit(0, dtype=nw.Int64).alias(name) for name in _COUNTS),
            *(nw.when(nw.lit(1) < 0).then(nw.lit(0.0)).alias(name) for name in _DURATIONS),
        )
    )
    columns = counted.columns
    both = nw.concat([counted, empty.select(*columns)])
    return both.group_by(*grouping).agg(nw.col(*_COUNTS).sum(), nw.col(*_DURATIONS).max()).lazy()
