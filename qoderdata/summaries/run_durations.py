"""Which groups got slower, and how late runs start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import narwhals as nw

from qoderdata.summaries.dataframe_engines import ALL, EPOCH, add_column, flag, group_keys, open_source
from qoderdata.summaries.time_windows import parse_micros

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narwhals.typing import IntoFrameT

    from qoderdata.parsing import Span

_SLOWER = {
    "recent_runs": "Int64",
    "baseline_runs": "Int64",
    "recent_p50_ms": "float64",
    "baseline_p50_ms": "float64",
    "change_ms": "float64",
    "ratio": "float64",
}
_DELAYS = {
    "runs": "Int64",
    "delay_p50_ms": "float64",
    "delay_p95_ms": "float64",
    "delay_max_ms": "float64",
}


def _median(name: str) -> nw.Expr:
    return nw.col(name).quantile(0.5, interpolation="linear")


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
    before that, ``end - recent`` excluded. Only completed runs with a duration count, also where ``completed`` is
    assumed.

    Parameters
    ----------
    runs
        A runs frame, of pandas or any engine that narwhals knows, except Dask, which has no median of a group.
    by
        A column, a list of columns, or ``None`` for all runs together.
    recent, baseline
        Lengths of time with a unit, such as ``"3D"`` or a `datetime.timedelta`.
    min_runs
        A group needs so many successes in each of the two, so that one slow run is no regression.
    min_change_ms
        A median must have grown by so many milliseconds, so that noise is no regression.

    Returns
    -------
    frame
        One row a group that got slower, the largest change first, then by key. On pandas the keys are the
        index; on other engines they are the first columns, and what is lazy stays lazy. Names of the ids in `by`
        come first, as in `run_failure_rates`. Nothing slower gives no rows.

        ====================================== ========= =====================================================
        ``recent_runs``, ``baseline_runs``     Int64     successes that were compared
        ``recent_p50_ms``, ``baseline_p50_ms`` float64   their medians
        ``change_ms``                          float64   the recent median less the baseline's
        ``ratio``                              float64   the recent one by the baseline's; NaN (null) if that is 0
        ====================================== ========= =====================================================

    Raises
    ------
    NotImplementedError
        The frame is Dask's.
    ValueError
        A parameter makes no sense; the message names what is allowed.
    FrameTypeError
        Not a frame, or a column that has lost its dtype; the message says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.

    Examples
    --------
    >>> import pandas as pd
    >>> runs = pd.DataFrame({
    ...     "deployment_id": "dep_1", "status": "completed", "duration_ms": [2000] * 10 + [5000] * 5,
    ...     "triggered_at": pd.date_range("2026-06-01", periods=15, freq="12h", tz="UTC"),
    ... })
    >>> duration_regressions(runs, recent="2D")[["recent_p50_ms", "baseline_p50_ms", "change_ms", "ratio"]]
                   recent_p50_ms  baseline_p50_ms  change_ms  ratio
    deployment_id
    dep_1                 5000.0           2000.0     3000.0    2.5
    """
    recent_us, baseline_us = parse_micros(recent, name="recent"), parse_micros(baseline, name="baseline")
    if isinstance(min_runs, bool) or not isinstance(min_runs, int) or min_runs < 1:
        raise ValueError(f"min_runs={min_runs!r} must be a whole number, 1 or more")
    if not min_change_ms >= 0:
        raise ValueError(f"min_change_ms={min_change_ms!r} must be milliseconds, 0 or more")
    keys = group_keys(by, results=_SLOWER)
    source = open_source(runs, keys=keys, wanted=["status", "triggered_at", "duration_ms"], what="runs")
    source.refuse_dask("duration_regressions", "a median within a group")

    rows = add_column(source.frame, "_at", EPOCH, "triggered_at")
    rows = rows.with_columns((nw.col("_at").max().over(ALL) - nw.col("_at")).alias("_ago"))
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
    grouped = rows.group_by(*source.grouping).agg(
        nw.col("recent_runs", "baseline_runs").sum(),
        _median("recent_p50_ms"),
        _median("baseline_p50_ms"),
        *source.aggregated_names(),
    )
    grouped = grouped.with_columns(nw.col("recent_runs", "baseline_runs").cast(nw.Int64))

    def finish(frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        before, after = nw.col("baseline_p50_ms"), nw.col("recent_p50_ms")
        frame = frame.with_columns((after - before).alias("change_ms"))
        frame = frame.with_columns((after / nw.when(before > 0).then(before)).alias("ratio"))
        enough = (nw.col("recent_runs") >= min_runs) & (nw.col("baseline_runs") >= min_runs)
        slower = (nw.col("change_ms") > 0) & (nw.col("change_ms") >= min_change_ms)
        return frame.filter(enough & slower)

    dtypes = {**source.name_dtypes, **_SLOWER}
    slower: IntoFrameT = source.finalize(grouped, finish, keys=keys, dtypes=dtypes, order={"change_ms": True})
    return slower


def start_delays(runs: IntoFrameT) -> IntoFrameT:
    """Compute how late runs start, per deployment.

    The delay reaches from ``trigger_scheduled_at`` where a run has it, else from ``triggered_at``, to
    ``started_at``. A run without ``started_at`` has no delay: it is left out, not counted as 0.

    Parameters
    ----------
    runs
        A runs frame, of pandas or any engine that narwhals knows, except Dask, which has no percentile of a
        group.

    Returns
    -------
    frame
        One row a deployment, the largest 95th percentile first, missing last, then by ``deployment_id``: that
        is the index on pandas and the first column on other engines, where what is lazy stays lazy. Where
        `runs` has ``deployment_name`` (see `with_names`), the first column is ``name``. An empty frame gives no
        rows.

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

    Examples
    --------
    >>> import pandas as pd
    >>> runs = pd.DataFrame({
    ...     "deployment_id": "dep_1", "triggered_at": pd.to_datetime(["2026-06-15T00:00Z"] * 2),
    ...     "started_at": pd.to_datetime(["2026-06-15T00:00:02Z", None]),
    ... })
    >>> start_delays(runs)
                   runs  delay_p50_ms  delay_p95_ms  delay_max_ms
    deployment_id
    dep_1             1        2000.0        2000.0        2000.0
    """
    keys = ["deployment_id"]
    wanted = ["triggered_at", "started_at"]
    source = open_source(runs, keys=keys, wanted=wanted, what="runs", optional=["trigger_scheduled_at"])
    source.refuse_dask("start_delays", "a percentile within a group")
    rows = add_column(source.frame, "_triggered", EPOCH, "triggered_at")
    rows = add_column(rows, "_started", EPOCH, "started_at")
    due = nw.col("_triggered")
    if "trigger_scheduled_at" in rows.collect_schema():
        rows = add_column(rows, "_scheduled", EPOCH, "trigger_scheduled_at")
        due = nw.coalesce("_scheduled", "_triggered")
    delay = (nw.col("_started") - due).cast(nw.Float64) / 1000
    rows = rows.with_columns(delay.alias("_delay"))
    rows = rows.with_columns(flag(~nw.col("_delay").is_null()).alias("runs"))
    grouped = rows.group_by(*keys).agg(
        nw.col("runs").sum(),
        _median("_delay").alias("delay_p50_ms"),
        nw.col("_delay").quantile(0.95, interpolation="linear").alias("delay_p95_ms"),
        nw.col("_delay").max().alias("delay_max_ms"),
        *source.aggregated_names(),
    )
    grouped = grouped.with_columns(nw.col("runs").cast(nw.Int64))
    dtypes = {**source.name_dtypes, **_DELAYS}
    delays: IntoFrameT = source.finalize(
        grouped, lambda frame: frame, keys=keys, dtypes=dtypes, order={"delay_p95_ms": True}
    )
    return delays
