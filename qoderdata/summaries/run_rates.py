"""How often do runs fail, in total, over time, and in a row?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import narwhals as nw

from qoderdata import errors
from qoderdata.arguments import check_choice
from qoderdata.outcomes import STATUSES
from qoderdata.summaries import wilson
from qoderdata.summaries.dataframe_engines import add_column, flag, open_source, with_missing
from qoderdata.summaries.time_windows import EPOCH, Windows, instant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narwhals.typing import IntoFrameT

_COUNTS = ["runs", "completed", "assumed", "failed", "skipped", "unfinished", "unknown"]
_DURATIONS = {"duration_p50_ms": 0.5, "duration_p95_ms": 0.95}
_RATES = {
    **dict.fromkeys(_COUNTS, "Int64"),
    **dict.fromkeys(("failure_rate", "ci_low", "ci_high", *_DURATIONS), "float64"),
}
_STREAKS = {
    "current_streak": "Int64",
    "current_streak_since": "datetime64[us, UTC]",
    "longest_streak": "Int64",
    "incidents": "Int64",
    "mttr_ms": "float64",
    "open_incidents": "Int64",
}
#: The columns that determine which attempt of an occurrence is the last one.
_ATTEMPT_COLUMNS = ["id", "deployment_id", "status", "trigger_type", "attempt", "triggered_at"]
#: Warn if a larger share of the runs has an unknown outcome, as `qoderdata.check` does; do not compare two periods
#: whose shares of assumed runs differ by more.
DOUBTFUL = 0.05


def run_failure_rates(
    runs: IntoFrameT,
    by: str | Sequence[str] | None = "deployment_id",
    *,
    freq: str | None = None,
    tz: str = "UTC",
    per: str = "attempt",
    confidence: float = 0.95,
) -> IntoFrameT:
    """Compute the failure rate of runs: the share of the decided runs that failed.

    The rate is ``failed / (completed + failed)``. Skipped, cancelled and unfinished runs, and runs of unknown
    status, are not decided and are counted separately, so that ``completed + failed + skipped + unfinished +
    unknown = runs``.

    Parameters
    ----------
    runs
        A runs frame, of pandas or any engine that narwhals knows.
    by
        A column, a list of columns, or ``None`` for all runs together. A missing key is a group of its own.
    freq
        Windows of time, by ``triggered_at``: a length of time with a unit, such as ``"15min"``, ``"1h"``,
        ``"1D"``, ``"1W"``, or ``"1M"`` for calendar months. Days, weeks (from Monday) and months are those of the
        wall clock in `tz`, so that a day has 23 or 25 hours when clocks change; windows of several days or weeks
        are counted from 1970. Hours and minutes are real ones, counted from each local midnight, and must fill a
        day evenly. ``None``: no windows.
    tz
        The IANA zone of the windows. Every engine has its own time zone data: after a change of the law, an old
        engine begins days at the old hour.
    per
        ``"attempt"`` counts every run; ``"occurrence"`` counts a scheduled time once, by its last run (and in
        the window of that run). Runs of one deployment with the same ``trigger_scheduled_at`` are one occurrence,
        and the run with the latest ``created_at`` (then ``triggered_at``, then ``id``) counts. For runs without
        ``trigger_scheduled_at``, a retry with attempt n is assumed to follow the latest earlier failed run of its
        deployment with attempt n - 1. Not on Dask.
    confidence
        The share of such intervals that contain the true rate.

    Returns
    -------
    frame
        One row per group, worst first (by ``failure_rate``, then ``failed``, both descending, missing last, then
        by key); with `freq` one row per group and window, in order of key and time. On pandas the keys are the
        index, with ``window`` as its last level; on other engines they are the first columns, and lazy frames
        stay lazy. ``window`` is the time at which the window begins, zone-aware in `tz` (DuckDB and Spark have no
        zone in the type and show the time in the session's zone, which is never changed). Every group has every
        window from the first to the last run of the whole frame, empty ones with 0 runs and no rate; lazy frames,
        which are not read here, only have windows with runs. Runs without a time have a missing window. If `runs`
        has the names of the id in `by` (see `with_names`), the first column is ``name``; with several ids,
        ``deployment_name`` and so on.

        ========================================= ========= ================================================
        ``runs``                                  Int64     all runs
        ``completed``                             Int64     runs with this status
        ``assumed``                               Int64     completed runs whose session has stopped, without
                                                            knowing how (``status_from`` is ``"session"``);
                                                            0 in a frame without that column
        ``failed``                                Int64     runs with this status
        ``skipped``                               Int64     skipped or cancelled
        ``unfinished``                            Int64     pending, running or waiting
        ``unknown``                               Int64     without a status, or with one not listed here
        ``failure_rate``                          float64   NaN (null) if nothing was decided
        ``ci_low``, ``ci_high``                   float64   Wilson score interval of the rate
        ``duration_p50_ms``, ``duration_p95_ms``  float64   of completed runs, linear between ranks
        ========================================= ========= ================================================

    Raises
    ------
    ValueError
        A parameter is not valid; the message says what is allowed. Or `freq` would give more than a million
        windows, for example if a run is of the year 1; the message names the first and the last time. Or the day
        of a run in `tz` is before year 1 or after year 9999.
    FrameTypeError
        Not a frame, or a column that has lost its dtype; the message says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.
    NotImplementedError
        ``per="occurrence"`` on a Dask frame.

    Warns
    -----
    DataQualityWarning
        The frame is Dask's, which has no percentiles: both durations are missing. Or a run's ``id`` is in a pandas
        frame more than once: each row counts.
    UnknownOutcomesWarning
        The outcome of more than 5 % of the runs is not known. Lazy frames are not read for this warning.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> runs = pd.DataFrame({
    ...     "deployment_id": ["dep_1"] * 4, "status": ["completed", "failed", "completed", "skipped"],
    ...     "duration_ms": pd.array([1000, 9000, 3000, None], dtype="Int64"),
    ... })
    >>> qd.run_failure_rates(runs)[["runs", "failed", "failure_rate", "duration_p50_ms"]].round(3)
                   runs  failed  failure_rate  duration_p50_ms
    deployment_id
    dep_1             4       1         0.333           2000.0
    """
    confidence = wilson.check_confidence(confidence)
    check_choice(per, ("attempt", "occurrence"), name="per")
    windows = None if freq is None else Windows.parse(freq, tz, "triggered_at")
    wanted = ["status", "duration_ms"]
    wanted += ["triggered_at"] if windows else []
    wanted += _ATTEMPT_COLUMNS if per == "occurrence" else []
    optional = ["status_from", *(("trigger_scheduled_at", "created_at") if per == "occurrence" else ())]
    source = open_source(runs, by, results=[*_RATES, "window"], wanted=wanted, what="runs", optional=optional)

    rows = labelled = windows.label(source.frame) if windows else source.frame
    if per == "occurrence":
        source.refuse_dask("per='occurrence'", "runs in order of time within a deployment")
        rows = _last_runs(rows)
    rows = _with_flags(rows).with_columns(
        nw.when(nw.col("status") == "completed").then(nw.col("duration_ms").cast(nw.Float64)).alias("_ms")
    )
    within = ["window"] if windows else []
    quantiles = source.quantiles("_ms", _DURATIONS, scan="scan_runs")
    grouped = source.group(rows, *quantiles, sums=_COUNTS, within=within)
    if windows and source.eager:
        grouped = windows.with_empty(grouped, labelled, source, sums=_COUNTS)

    def finish(frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        frame = with_missing(frame, _DURATIONS)
        frame = frame.with_columns((nw.col("completed") + nw.col("failed")).alias("_decided"))
        frame = wilson.add_rate(frame, "failed", "_decided", confidence=confidence)
        return windows.begin(frame) if windows else frame

    order = {} if windows else {"failure_rate": True, "failed": True}
    rates = source.finalize(grouped, finish, within=within, dtypes=_RATES, order=order)
    if source.eager:
        counts: Any = nw.from_native(rates)
        warn_of_unknown({name: int(counts[name].sum()) for name in _COUNTS}, runs)
    return rates


def failure_streaks(runs: IntoFrameT, by: str | Sequence[str] | None = "deployment_id") -> IntoFrameT:
    """Compute current and longest streaks of failures, and how long recoveries took.

    Runs are ordered by ``triggered_at``, then ``created_at`` if the frame has it, then ``id``. Only ``completed``
    and ``failed`` runs count, ``completed`` ones even if that is assumed. All others (skipped, cancelled,
    unfinished, of unknown status, or without a time) neither end nor extend a streak. A failed retry extends it.
    An incident is a streak of one or more failures. The next success closes it; until then it is open.

    Parameters
    ----------
    runs
        A runs frame, of pandas or any engine that narwhals knows, except Dask, which cannot sort within a group.
    by
        A column, a list of columns (the streak is then that of their runs together), or ``None`` for all runs.
        A missing key is a group of its own.

    Returns
    -------
    frame
        One row per group, the longest current streak first, then the longest ever, then by key. On pandas the
        keys are the index; on other engines they are the first columns, and lazy frames stay lazy. Names of
        the ids in `by` come first, as in `run_failure_rates`. An empty frame gives no rows.

        ======================== ==================== =====================================================
        ``current_streak``       Int64                failures since the last success; 0 after a success
        ``current_streak_since`` datetime64[us, UTC]  ``triggered_at`` of its first failure; NaT without one
        ``longest_streak``       Int64                the longest ever, the current one included
        ``incidents``            Int64                closed incidents
        ``mttr_ms``              float64              mean time to recovery of the closed incidents, from the
                                                      ``triggered_at`` of the first failure to that of the
                                                      next success (from ``created_at`` to ``created_at``,
                                                      else 0, if that is another run of the same scheduled
                                                      time); NaN (null) if none is closed
        ``open_incidents``       Int64                1 if an incident is open, else 0; not in ``mttr_ms``
        ======================== ==================== =====================================================

    Raises
    ------
    NotImplementedError
        The frame is Dask's.
    ValueError
        ``by`` is not valid.
    FrameTypeError
        Not a frame, or a column that has lost its dtype; the message says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.

    Warns
    -----
    DataQualityWarning
        A run's ``id`` is in a pandas frame more than once: each row counts.
    UnknownOutcomesWarning
        The outcome of more than 5 % of the runs is not known. Lazy frames are not read for this warning.

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
    wanted, optional = ["id", "status", "triggered_at"], ["created_at", "status_from"]
    source = open_source(runs, by, results=_STREAKS, wanted=wanted, what="runs", optional=optional)
    source.refuse_dask("failure_streaks", "runs in order of time within a group")
    if source.eager:
        consequence = "a streak may be longer than this says, or have ended"
        warn_of_unknown(count_outcomes(source.frame), runs, consequence=consequence)

    order_by = [name for name in ("triggered_at", "created_at", "id") if name in source.frame.collect_schema()]
    rows = add_column(source.frame, "_at", EPOCH, "triggered_at")
    rows = add_column(rows, "_created", EPOCH, "created_at" if "created_at" in order_by else "triggered_at")
    at, created = nw.col("_at"), nw.col("_created")
    rows = rows.with_columns(
        flag(nw.col("status").is_in(STATUSES["failed"]) & ~at.is_null()).alias("_failure"),
        flag(nw.col("status") == "completed").alias("_success"),
    )
    # An interval has the failures after a success, and the next success.
    rows = rows.with_columns(_successes=nw.col("_success").cum_sum().over(*source.grouping, order_by=order_by))
    rows = rows.with_columns(
        (nw.col("_successes") - nw.col("_success")).alias("_interval"),
        nw.when(nw.col("_failure") == 1).then(at).alias("_failed_at"),
        nw.when(nw.col("_failure") == 1).then(created).alias("_failed_created"),
        nw.when(nw.col("_success") == 1).then(at).alias("_recovered_at"),
        nw.when(nw.col("_success") == 1).then(created).alias("_recovered_created"),
    )
    began = nw.col("_failed_at", "_failed_created").min()
    ended = nw.col("_recovered_at", "_recovered_created").max()
    intervals = source.group(rows, began, ended, sums=["_failure"], within=["_interval"])
    failures = nw.col("_failure")
    closed = ~nw.col("_recovered_at").is_null() & (failures > 0)
    open_ = nw.col("_recovered_at").is_null() & (failures > 0)
    took = nw.col("_recovered_at") - nw.col("_failed_at")
    took_by_retry = (nw.col("_recovered_created") - nw.col("_failed_created")).fill_null(0)
    intervals = intervals.with_columns(
        failures.alias("longest_streak"),
        nw.when(open_).then(failures).otherwise(nw.lit(0)).alias("current_streak"),
        nw.when(open_).then(nw.col("_failed_at")).alias("_since"),
        flag(closed).alias("incidents"),
        flag(open_).alias("open_incidents"),
        nw.when(closed).then(nw.when(took > 0).then(took).otherwise(took_by_retry)).alias("_took"),
    )
    largest, mean = nw.col("longest_streak", "_since").max(), nw.col("_took").mean()
    grouped = source.group(intervals, largest, mean, sums=["current_streak", "incidents", "open_incidents"])

    def finish(frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        frame = frame.with_columns((nw.col("_took").cast(nw.Float64) / 1000).alias("mttr_ms"))
        return add_column(frame, "current_streak_since", instant("UTC"), "_since")

    order = {"current_streak": True, "longest_streak": True}
    return source.finalize(grouped, finish, dtypes=_STREAKS, order=order)


def count_outcomes(runs: nw.LazyFrame[Any]) -> dict[str, int]:
    """Return the counts of all rows together, by their column names in `run_failure_rates`."""
    sums = _with_flags(runs).select(nw.col(*_COUNTS).sum()).collect()
    return {name: int(sums[name].item()) for name in _COUNTS}


def warn_of_unknown(
    counts: dict[str, int], frame: object, consequence: str = "rates are those of the other runs alone"
) -> None:
    """Warn if the outcome of too many runs is not known; `consequence` says what follows from that."""
    runs, unknown, assumed = counts["runs"], counts["unknown"], counts["assumed"]
    if unknown > DOUBTFUL * runs:
        errors.warn(
            f"the outcome of {unknown:,} of {runs:,} counted runs is not known, and {assumed:,} are assumed to "
            f"have completed; failures among these are not counted, so {consequence}. {outcomes_advice(frame)}",
            errors.UnknownOutcomesWarning,
        )


def outcomes_advice(frame: object) -> str:
    """Return a sentence that says how to read more outcomes than `load_runs` read for a frame of runs."""
    if getattr(frame, "attrs", {}).get("outcomes") == "events":
        return "The service gave no session or no end for them"
    return "load_runs(outcomes='events') reads how they ended, where the service still has their sessions"


def _with_flags(runs: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
    """Add a 0/1 column for each count."""
    flags = {name: flag(nw.col("status").is_in(words)) for name, words in STATUSES.items()}
    runs = runs.with_columns(runs=nw.lit(1), **flags)
    assumed = nw.lit(0)
    if "status_from" in runs.collect_schema():
        assumed = nw.col("completed") * flag(nw.col("status_from") == "session")
    unknown = 1 - nw.col("completed") - nw.col("failed") - nw.col("skipped") - nw.col("unfinished")
    return runs.with_columns(assumed=assumed, unknown=unknown)


def _last_runs(runs: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
    """Return the last run of each occurrence."""
    columns = runs.collect_schema().names()
    if "trigger_scheduled_at" not in columns:
        return _last_attempts(runs)
    unscheduled = nw.col("trigger_scheduled_at").is_null()
    order_by = [*(["created_at"] if "created_at" in columns else []), "triggered_at", "id"]
    occurrence = ["deployment_id", "trigger_scheduled_at"]
    last = runs.filter(~unscheduled).unique(occurrence, keep="last", order_by=order_by)
    return nw.concat([_last_attempts(runs.filter(unscheduled)), last])


def _last_attempts(runs: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
    """Leave out every run that was retried, for runs that do not name their scheduled time.

    A retry has the trigger ``retry`` or an attempt above 1; a missing attempt counts as 1, that of a retry as 2.
    """
    attempt = nw.col("attempt").cast(nw.Int64)
    columns = runs.collect_schema().names()
    retry = (nw.col("trigger_type") == "retry") | (attempt > 1)
    runs = runs.with_columns(_retry=flag(retry), _failed=flag(nw.col("status").is_in(STATUSES["failed"])))
    least = nw.col("_retry") + 1
    runs = runs.with_columns(_attempt=nw.when(attempt > least).then(attempt).otherwise(least).cast(nw.Int64))
    # Failed runs with attempt n and retries with attempt n + 1 form one chain in order of time. A failed run that
    # a retry follows is left out. A failed retry is in two chains: as a retry, and as a run that may be retried.
    failed = runs.filter(nw.col("_failed") == 1).with_columns(_chain="_attempt", _continues=nw.lit(0))
    retries = runs.filter(nw.col("_retry") == 1).with_columns(_chain=nw.col("_attempt") - 1, _continues=nw.lit(1))
    following = nw.col("_continues").shift(-1).over("deployment_id", "_chain", order_by=["triggered_at", "id"])
    chains = nw.concat([failed, retries]).with_columns(following.alias("_next"))
    last = chains.filter(nw.col("_continues") == 0, nw.col("_next").fill_null(0) == 0)
    return nw.concat([runs.filter(nw.col("_failed") == 0).select(*columns), last.select(*columns)])
