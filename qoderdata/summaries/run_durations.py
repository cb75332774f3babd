"""Which groups got slower, how late do runs start, and which runs took unusually long or are stuck?"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import narwhals as nw

from qoderdata.arguments import Instant, check_count, check_number, parse_instant
from qoderdata.frame_checks import TEXT
from qoderdata.frames import NAMES
from qoderdata.outcomes import STATUSES
from qoderdata.summaries.dataframe_engines import ALL, Source, add_column, flag, median, open_source
from qoderdata.summaries.time_windows import EPOCH, parse_micros
from qoderdata.time_math import to_micros

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from narwhals.typing import IntoFrameT

    from qoderdata.arguments import Span

_SLOWER = {
    **dict.fromkeys(("recent_runs", "baseline_runs"), "Int64"),
    **dict.fromkeys(("recent_p50_ms", "baseline_p50_ms", "change_ms", "ratio"), "float64"),
}
_DELAYS = {"runs": "Int64", **dict.fromkeys(("delay_p50_ms", "delay_p95_ms", "delay_max_ms"), "float64")}
_UNUSUAL: dict[str, Any] = {
    **dict.fromkeys(("run_id", "deployment_id", "kind", "status"), TEXT),
    "triggered_at": "datetime64[us, UTC]",
    "duration_ms": "Int64",
    **dict.fromkeys(("median_ms", "z_score"), "float64"),
    "timeout_ms": "Int64",
}
#: The constants of Iglewicz and Hoaglin: with them, both deviations estimate the standard deviation of normal
#: data.
_OF_MEDIAN_DEVIATION, _OF_MEAN_DEVIATION = 0.6745, 1.253314
_STUCK_MEDIANS = 10


def duration_regressions(
    runs: IntoFrameT,
    by: str | Sequence[str] | None = "deployment_id",
    *,
    recent: Span = "3D",
    baseline: Span = "14D",
    min_runs: int = 5,
    min_change_ms: float = 1000,
) -> IntoFrameT:
    """Compare the median duration of recent completed runs with that of the period before.

    The end is the latest ``triggered_at`` of the whole frame, so that an old frame gives the same result at any
    time. Recent is ``end - recent <= triggered_at <= end``; the baseline is the period of length `baseline`
    before that, without ``end - recent``. Only completed runs with a duration count, even if ``completed`` is
    assumed. The median of an agent or a team also increases if its slow deployments run more often than before:
    group by deployment to see whether anything is slower.

    Parameters
    ----------
    runs
        A runs frame, of pandas or any engine that narwhals knows, except Dask, which has no median of a group.
    by
        A column, a list of columns, or ``None`` for all runs together.
    recent, baseline
        Lengths of time: text with a unit such as ``"3D"``, or a `datetime.timedelta`.
    min_runs
        The least number of successes in each of the two periods, so that one slow run is no regression.
    min_change_ms
        The least increase of the median in milliseconds, so that noise is no regression.

    Returns
    -------
    frame
        One row per group that got slower, the largest change first, then by key. On pandas the keys are the
        index; on other engines they are the first columns, and lazy frames stay lazy. Names of the ids in `by`
        come first, as in `run_failure_rates`. If nothing got slower, there are no rows.

        ====================================== ========= =====================================================
        ``recent_runs``, ``baseline_runs``     Int64     the number of successes
        ``recent_p50_ms``, ``baseline_p50_ms`` float64   their medians
        ``change_ms``                          float64   the recent median minus the baseline's
        ``ratio``                              float64   the recent one divided by the baseline's; NaN (null) if
                                                         that is 0
        ====================================== ========= =====================================================

    Raises
    ------
    NotImplementedError
        The frame is Dask's.
    ValueError
        A parameter is not valid; the message says what is allowed.
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
    ...     "deployment_id": "dep_1", "status": "completed", "duration_ms": [2000] * 10 + [5000] * 5,
    ...     "triggered_at": pd.date_range("2026-06-01", periods=15, freq="12h", tz="UTC"),
    ... })
    >>> qd.duration_regressions(runs, recent="2D")[["recent_p50_ms", "baseline_p50_ms", "change_ms", "ratio"]]
                   recent_p50_ms  baseline_p50_ms  change_ms  ratio
    deployment_id
    dep_1                 5000.0           2000.0     3000.0    2.5
    """
    recent_us, baseline_us = parse_micros(recent, name="recent"), parse_micros(baseline, name="baseline")
    check_count(min_runs, name="min_runs")
    must = "be milliseconds, 0 or more"
    check_number(min_change_ms, lambda number: number >= 0, name="min_change_ms", must=must)
    wanted = ["status", "triggered_at", "duration_ms"]
    source = open_source(runs, by, results=_SLOWER, wanted=wanted, what="runs")
    source.refuse_dask("duration_regressions", "a median within a group")

    rows = add_column(source.frame, "_at", EPOCH, "triggered_at")
    rows = rows.with_columns((nw.col("_at").max() - nw.col("_at")).alias("_ago"))
    ago, counts = nw.col("_ago"), (nw.col("status") == "completed") & ~nw.col("duration_ms").is_null()
    rows = rows.with_columns(
        flag(counts & (ago <= recent_us)).alias("recent_runs"),
        flag(counts & (ago > recent_us) & (ago <= recent_us + baseline_us)).alias("baseline_runs"),
    )
    duration = nw.col("duration_ms").cast(nw.Float64)
    rows = rows.with_columns(
        nw.when(nw.col("recent_runs") == 1).then(duration).alias("recent_p50_ms"),
        nw.when(nw.col("baseline_runs") == 1).then(duration).alias("baseline_p50_ms"),
    )
    medians = median("recent_p50_ms"), median("baseline_p50_ms")
    grouped = source.group(rows, *medians, sums=["recent_runs", "baseline_runs"])

    def finish(frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        before, after = nw.col("baseline_p50_ms"), nw.col("recent_p50_ms")
        frame = frame.with_columns(change_ms=after - before, ratio=after / nw.when(before > 0).then(before))
        enough = (nw.col("recent_runs") >= min_runs) & (nw.col("baseline_runs") >= min_runs)
        slower = (nw.col("change_ms") > 0) & (nw.col("change_ms") >= min_change_ms)
        return frame.filter(enough & slower)

    return source.finalize(grouped, finish, dtypes=_SLOWER, order={"change_ms": True})


def start_delays(runs: IntoFrameT) -> IntoFrameT:
    """Compute how late runs start, per deployment.

    The delay is the time from ``trigger_scheduled_at`` (or ``triggered_at`` if a run does not have it) to
    ``started_at``. A run without ``started_at`` has no delay: it is left out, not counted as 0. Of the runs of one
    deployment with the same ``trigger_scheduled_at``, only the first one has a delay (by ``created_at``, then
    ``id``, if `runs` has them, then ``started_at``): a retry is due only after the attempt before it has failed.

    Parameters
    ----------
    runs
        A runs frame, of pandas or any engine that narwhals knows, except Dask, which has no percentiles of groups.

    Returns
    -------
    frame
        One row per deployment, the largest 95th percentile first, missing last, then by ``deployment_id``. On
        pandas that is the index; on other engines it is the first column, and lazy frames stay lazy. If `runs` has
        ``deployment_name`` (see `with_names`), the first column is ``name``. An empty frame gives no rows.

        ==================================== ========= ======================================
        ``runs``                             Int64     runs with a delay
        ``delay_p50_ms``, ``delay_p95_ms``   float64   milliseconds, linear between ranks
        ``delay_max_ms``                     float64   the longest
        ==================================== ========= ======================================

    Raises
    ------
    NotImplementedError
        The frame is Dask's.
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
    ...     "deployment_id": "dep_1", "triggered_at": pd.to_datetime(["2026-06-15T00:00Z"] * 2),
    ...     "started_at": pd.to_datetime(["2026-06-15T00:00:02Z", None]),
    ... })
    >>> qd.start_delays(runs)
                   runs  delay_p50_ms  delay_p95_ms  delay_max_ms
    deployment_id
    dep_1             1        2000.0        2000.0        2000.0
    """
    wanted, optional = ["triggered_at", "started_at"], ["trigger_scheduled_at", "created_at", "id"]
    source = open_source(runs, "deployment_id", wanted=wanted, what="runs", optional=optional)
    source.refuse_dask("start_delays", "a percentile within a group")
    rows = add_column(source.frame, "_triggered", EPOCH, "triggered_at")
    rows = add_column(rows, "_started", EPOCH, "started_at")
    columns, due = rows.collect_schema().names(), nw.col("_triggered")
    if "trigger_scheduled_at" in columns:
        rows = add_column(rows, "_scheduled", EPOCH, "trigger_scheduled_at")
        order_by = [name for name in ("created_at", "id", "started_at") if name in columns]
        earlier = nw.col(ALL).shift(1).over("deployment_id", "_scheduled", order_by=order_by)
        rows = rows.with_columns(earlier.alias("_earlier"))
        is_first = nw.col("_scheduled").is_null() | nw.col("_earlier").is_null()
        due = nw.when(is_first).then(nw.coalesce("_scheduled", "_triggered"))
    rows = rows.with_columns(_delay=(nw.col("_started") - due).cast(nw.Float64) / 1000)
    rows = rows.with_columns(flag(~nw.col("_delay").is_null()).alias("runs"))
    quantiles = source.quantiles("_delay", {"delay_p50_ms": 0.5, "delay_p95_ms": 0.95}, scan="scan_runs")
    grouped = source.group(rows, *quantiles, nw.col("_delay").max().alias("delay_max_ms"), sums=["runs"])
    return source.finalize(grouped, dtypes=_DELAYS, order={"delay_p95_ms": True})


def unusual_runs(
    runs: IntoFrameT,
    df: pd.DataFrame | IntoFrameT | None = None,
    *,
    now: Instant | None = None,
    threshold: float = 3.5,
    min_runs: int = 10,
) -> IntoFrameT:
    """Return the runs that took unusually long or short, ran past their timeout, or are stuck.

    Completed runs are compared with those of the same deployment by the modified z score of ``ln(duration_ms)``:
    ``0.6745 (x - median) / MAD``, with the median absolute deviation. If that is 0, the score is ``(x - median) /
    (1.253314 MeanAD)``, with the mean absolute deviation from the median; if that is 0 too, there is no score.
    Iglewicz, B. and Hoaglin, D. (1993), "How to Detect and Handle Outliers", ASQC Quality Press. A duration of 0
    counts as 1 ms.

    Parameters
    ----------
    runs
        A runs frame, of pandas or any engine that narwhals knows, except Dask, which has no median of a group.
    df
        A deployments frame (pandas, or of the engine of `runs`), whose ``config_timeout_ms`` is the timeout; 0 or
        missing means unknown. ``None``: no timeout is known.
    now
        The zone-aware time up to which unfinished runs have been running; ``None``: the time of the call.
    threshold
        A run is unusual if its score is further from 0; Iglewicz and Hoaglin recommend 3.5.
    min_runs
        The least number of completed runs with a duration from which the median of a deployment is computed.

    Returns
    -------
    frame
        One row per run and kind, the newest first (by ``triggered_at``), then by ``run_id`` and ``kind``. A
        `pandas.RangeIndex` on pandas; on other engines lazy frames stay lazy. If `runs` has ``deployment_name``,
        the first column is ``name``; for metadata keys, call `with_names` on the result. If nothing is unusual,
        there are no rows. Runs without a ``deployment_id`` are compared with none.

        ================= ==================== ===============================================================
        ``run_id``        str                  the run
        ``deployment_id`` str                  as in `runs`
        ``kind``          str                  ``too_short`` or ``too_long`` (a completed run; see above);
                                               ``past_timeout`` (completed, failed or cancelled after more than
                                               its timeout); ``stuck`` (pending, running or waiting for longer
                                               than its timeout or, if that is not known, than 10 times the
                                               median; never if there is no median either)
        ``status``        str                  as in `runs`
        ``triggered_at``  datetime64[us, UTC]  as in `runs`
        ``duration_ms``   Int64                how long it took; of a stuck run, the time from ``started_at``,
                                               else ``triggered_at``, to `now`
        ``median_ms``     float64              of the deployment's completed runs; NaN (null) if there are fewer
                                               than `min_runs`
        ``z_score``       float64              the modified z score; NaN (null) for runs that are not completed
        ``timeout_ms``    Int64                the timeout, if it is known
        ================= ==================== ===============================================================

    Raises
    ------
    NotImplementedError
        The frame is Dask's.
    ValueError
        A parameter is not valid; the message says what is allowed.
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
    ...     "id": [f"drun_{number}" for number in range(12)], "deployment_id": "dep_1", "status": "completed",
    ...     "triggered_at": pd.date_range("2026-06-01", periods=12, freq="1D", tz="UTC"),
    ...     "duration_ms": [900, 1000, 1100] * 3 + [950, 1050, 60_000],
    ... })
    >>> qd.unusual_runs(runs)[["run_id", "kind", "duration_ms", "median_ms"]]
        run_id      kind  duration_ms  median_ms
    0  drun_11  too_long        60000     1000.0
    """
    must = "be a number above 0, such as 3.5"
    check_number(threshold, lambda number: number > 0, name="threshold", must=must)
    check_count(min_runs, name="min_runs")
    present = parse_instant(datetime.now(UTC) if now is None else now, name="now")
    wanted = ["id", "deployment_id", "status", "triggered_at", "duration_ms"]
    optional = ["started_at", NAMES["deployment_id"]]
    source = open_source(runs, wanted=wanted, what="runs", optional=optional)
    source.refuse_dask("unusual_runs", "a median within a group")

    rows = source.frame.with_columns(nw.col("duration_ms").cast(nw.Int64))
    rows = _with_scores(rows, min_runs=min_runs)
    rows = _with_timeouts(rows, source, df)
    rows = _with_elapsed(rows, to_micros(present))
    z, timeout, duration = nw.col("z_score"), nw.col("timeout_ms"), nw.col("duration_ms")
    limit = nw.coalesce(timeout.cast(nw.Float64), nw.col("median_ms") * _STUCK_MEDIANS)
    ended = [*STATUSES["completed"], *STATUSES["failed"], "cancelled"]
    kinds = {
        "too_short": z < -threshold,
        "too_long": z > threshold,
        "past_timeout": nw.col("status").is_in(ended) & (duration > timeout),
        "stuck": nw.col("status").is_in(STATUSES["unfinished"]) & (nw.col("_elapsed") > limit),
    }
    rows = nw.concat([
        rows.filter(condition.fill_null(value=False)).with_columns(nw.lit(kind).alias("kind"))
        for kind, condition in kinds.items()
    ])  # fmt: skip
    took = nw.when(nw.col("kind") == "stuck").then(nw.col("_elapsed")).otherwise(duration)
    rows = rows.with_columns(took.alias("duration_ms"), nw.col("id").alias("run_id"))

    dtypes = _UNUSUAL
    if NAMES["deployment_id"] in rows.collect_schema():
        rows = rows.with_columns(nw.col(NAMES["deployment_id"]).alias("name"))
        dtypes = {"name": TEXT, **_UNUSUAL}
    return source.finalize(rows, dtypes=dtypes, order={"triggered_at": True, "run_id": False, "kind": False})


def _with_scores(rows: nw.LazyFrame[Any], *, min_runs: int) -> nw.LazyFrame[Any]:
    """Add the median of each run's deployment as ``median_ms``, and the score of completed runs as ``z_score``."""
    key = "deployment_id"
    duration = nw.col("duration_ms").cast(nw.Float64)
    is_measured = (nw.col("status") == "completed") & ~nw.col("duration_ms").is_null()
    positive = nw.when(duration > 0).then(duration).otherwise(nw.lit(1.0))
    rows = rows.with_columns(_ln=nw.when(is_measured).then(positive.log()))
    measured = rows.filter(is_measured)
    medians = (
        measured.with_columns(duration.alias("_ms"))
        .group_by(key)
        .agg(nw.len().alias("_n"), median("_ms").alias("median_ms"), median("_ln").alias("_middle"))
        .filter(nw.col("_n") >= min_runs)
        .drop("_n")
    )
    deviations = (
        measured.select(key, "_ln")
        .join(medians, on=key)
        .with_columns(_deviation=(nw.col("_ln") - nw.col("_middle")).abs())
        .group_by(key)
        .agg(median("_deviation").alias("_mad"), nw.col("_deviation").mean().alias("_mean"))
    )
    scale = (
        nw.when(nw.col("_mad") > 0)
        .then(nw.col("_mad") / _OF_MEDIAN_DEVIATION)
        .when(nw.col("_mean") > 0)
        .then(nw.col("_mean") * _OF_MEAN_DEVIATION)
    )
    rows = rows.join(medians, on=key, how="left").join(deviations, on=key, how="left")
    return rows.with_columns(((nw.col("_ln") - nw.col("_middle")) / scale).alias("z_score"))


def _with_timeouts(rows: nw.LazyFrame[Any], source: Source[Any], df: Any) -> nw.LazyFrame[Any]:  # noqa: ANN401
    """Add the timeout of each run's deployment as ``timeout_ms``."""
    key = "deployment_id"
    if df is None:
        # Missing in every row; pandas has no literal for a missing integer.
        return rows.with_columns(nw.when(nw.col("duration_ms").is_null()).then("duration_ms").alias("timeout_ms"))
    deployments = source.open_same_engine(df, wanted=["id", "config_timeout_ms"], what="deployments")
    timeout = nw.col("config_timeout_ms").cast(nw.Int64)
    known = deployments.filter(timeout > 0).select(nw.col("id").alias(key), timeout.alias("timeout_ms"))
    return rows.join(known.group_by(key).agg(nw.col("timeout_ms").max()), on=key, how="left")


def _with_elapsed(rows: nw.LazyFrame[Any], now: int) -> nw.LazyFrame[Any]:
    """Add how long ago a run began, in milliseconds."""
    rows = add_column(rows, "_triggered", EPOCH, "triggered_at")
    began = nw.col("_triggered")
    if "started_at" in rows.collect_schema():
        rows = add_column(rows, "_started", EPOCH, "started_at")
        began = nw.coalesce("_started", "_triggered")
    return rows.with_columns(((now - began) // 1000).alias("_elapsed"))
