"""How often runs fail, over all and over time.

Owns which runs decide a rate. Leaves to `wilson` how sure it is, to `occurrences` which attempt counts, and to
`clock` what a window of time is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import narwhals as nw
import pandas as pd

from qoderdata import errors
from qoderdata.summaries import clock, engines, occurrences, wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narwhals.typing import IntoFrameT

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
_COUNTS = ["runs", "completed", "failed", "skipped", "unfinished"]
_DURATIONS = ["duration_p50_ms", "duration_p95_ms"]
_MISSING = nw.lit(None, dtype=nw.Float64)


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
        The IANA zone of the windows. Every engine knows the rules of zones from a list of its own; where a
        government has changed them lately, an old engine cuts days at the old hour.
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
    >>> import pandas as pd
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
    keys = engines.group_keys(by, results=[*_DECIDED, "window"])
    wanted = ["status", "duration_ms"]
    wanted += ["triggered_at"] if windows else []
    wanted += occurrences.COLUMNS if per == "occurrence" else []
    source = engines.read(runs, keys=keys, wanted=wanted, what="runs")

    rows = windows.label(source.frame, "triggered_at") if windows else source.frame
    labels = _labels(rows, windows) if windows and source.eager else []
    if per == "occurrence":
        source.refuse_dask("per='occurrence'", "runs in order of time within a deployment")
        rows = occurrences.last_attempts(rows)
    status = nw.col("status")
    completed = status == "completed"
    rows = rows.with_columns(
        engines.flag(completed).alias("completed"),
        engines.flag(status == "failed").alias("failed"),
        engines.flag(status == "skipped").alias("skipped"),
        engines.flag((status == "pending") | (status == "running")).alias("unfinished"),
        nw.when(completed).then(nw.col("duration_ms").cast(nw.Float64)).alias("_ms"),
    )
    shown = [*keys, "window"] if windows else keys
    grouping = [*source.grouping, "window"] if windows else source.grouping
    grouped = rows.group_by(*grouping).agg(nw.len().alias("runs"), nw.col(*_COUNTS[1:]).sum(), *_quantiles(source))
    grouped = grouped.with_columns(nw.col(*_COUNTS).cast(nw.Int64))
    without_durations = source.engine.is_dask()

    def finish(frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        if without_durations:
            frame = frame.with_columns(*(_MISSING.alias(name) for name in _DURATIONS))
        if labels:
            frame = _with_empty_windows(frame, grouping, labels)
        frame = frame.with_columns((nw.col("completed") + nw.col("failed")).alias("_decided"))
        frame = wilson.add_rate(frame, "failed", "_decided", confidence=confidence)
        return windows.begin(frame) if windows else frame

    order = {} if windows else {"failure_rate": True, "failed": True}
    rates: IntoFrameT = source.give(grouped, finish, keys=shown, dtypes=_DECIDED, order=order)
    return rates


def _quantiles(source: engines.Source) -> list[nw.Expr]:
    """Ask for the percentiles of duration, or say that this engine has none."""
    if source.engine.is_dask():
        errors.warn(
            f"Dask has no percentiles within groups: {' and '.join(_DURATIONS)} are missing; "
            "DuckDB and Spark have them on the same files, with scan_runs(engine='duckdb') or 'pyspark'",
            errors.DataQualityWarning,
        )
        return []
    return [
        nw.col("_ms").quantile(share, interpolation="linear").alias(name)
        for name, share in zip(_DURATIONS, (0.5, 0.95), strict=True)
    ]


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
            *(_MISSING.alias(name) for name in _DURATIONS),
        )
    )
    columns = counted.columns
    both = nw.concat([counted, empty.select(*columns)])
    return both.group_by(*grouping).agg(nw.col(*_COUNTS).sum(), nw.col(*_DURATIONS).max()).lazy()
