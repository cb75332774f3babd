"""Which runs took unusually long or short, ran past their timeout, or are stuck."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import narwhals as nw

from qoderdata.columns import TEXT
from qoderdata.frames import NAMES
from qoderdata.parsing import Instant, parse_instant
from qoderdata.summaries.dataframe_engines import EPOCH, Source, add_column, open_source

if TYPE_CHECKING:
    import pandas as pd
    from narwhals.typing import IntoFrameT

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNUSUAL: dict[str, Any] = {
    "run_id": TEXT,
    "deployment_id": TEXT,
    "kind": TEXT,
    "status": TEXT,
    "triggered_at": "datetime64[us, UTC]",
    "duration_ms": "Int64",
    "median_ms": "float64",
    "z_score": "float64",
    "timeout_ms": "Int64",
}
_ENDED = ["completed", "failed", "cancelled"]
_UNFINISHED = ["pending", "running", "waiting"]
#: The constants of Iglewicz and Hoaglin, with which both deviations estimate the standard one of normal data.
_OF_MEDIAN_DEVIATION, _OF_MEAN_DEVIATION = 0.6745, 1.253314
_STUCK_MEDIANS = 10


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
    ``0.6745 (x - median) / MAD``, with the median absolute deviation, or, where that is 0,
    ``(x - median) / (1.253314 MeanAD)``, with the mean absolute deviation from the median; none where that is 0
    too. Iglewicz, B. and Hoaglin, D. (1993), "How to Detect and Handle Outliers", ASQC Quality Press. A duration
    of 0 counts as 1 ms.

    Parameters
    ----------
    runs
        A runs frame, of pandas or any engine that narwhals knows, except Dask, which has no median of a group.
    df
        A deployments frame (pandas, or of the engine of `runs`), whose ``config_timeout_ms`` is the timeout; 0 or
        missing: not known. ``None``: no timeout is known.
    now
        The zone-aware time up to which an unfinished run has been running; ``None`` is the present.
    threshold
        A run whose score is further from 0 is unusual; Iglewicz and Hoaglin recommend 3.5.
    min_runs
        So many completed runs with a duration a deployment needs for a median.

    Returns
    -------
    frame
        One row a run and kind, the newest first (by ``triggered_at``), then by ``run_id`` and ``kind``. A
        `pandas.RangeIndex` on pandas; what is lazy on other engines stays lazy. Begins with ``name`` where `runs`
        has ``deployment_name``. Nothing unusual: no rows.

        ================= ==================== ===============================================================
        ``run_id``        str                  the run
        ``deployment_id`` str                  as in `runs`
        ``kind``          str                  ``too_short`` or ``too_long`` (a completed run; see above);
                                               ``past_timeout`` (completed, failed or cancelled after more than
                                               its timeout); ``stuck`` (pending, running or waiting for longer
                                               than its timeout, or, where that is not known, than 10 times the
                                               median)
        ``status``        str                  as in `runs`
        ``triggered_at``  datetime64[us, UTC]  as in `runs`
        ``duration_ms``   Int64                how long it took; for a stuck one, from ``started_at``, else
                                               ``triggered_at``, up to `now`
        ``median_ms``     float64              of the deployment's completed runs; NaN (null) where there are
                                               less than `min_runs`
        ``z_score``       float64              the modified z score; NaN (null) for runs that are not completed
        ``timeout_ms``    Int64                the timeout, where it is known
        ================= ==================== ===============================================================

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
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not threshold > 0:
        raise ValueError(f"threshold={threshold!r} must be a number above 0, such as 3.5")
    if isinstance(min_runs, bool) or not isinstance(min_runs, int) or min_runs < 1:
        raise ValueError(f"min_runs={min_runs!r} must be a whole number, 1 or more")
    present = parse_instant(datetime.now(UTC) if now is None else now, name="now").to_pydatetime()
    wanted = ["id", "deployment_id", "status", "triggered_at", "duration_ms"]
    optional = ["started_at", NAMES["deployment_id"]]
    source = open_source(runs, keys=[], wanted=wanted, what="runs", optional=optional)
    source.refuse_dask("unusual_runs", "a median within a group")

    rows = _with_limits(source, df, min_runs=min_runs)
    rows = _with_elapsed(rows, (present - _EPOCH) // timedelta(microseconds=1))
    z, timeout, duration = nw.col("z_score"), nw.col("timeout_ms"), nw.col("duration_ms")
    limit = nw.coalesce(timeout.cast(nw.Float64), nw.col("median_ms") * _STUCK_MEDIANS)
    kinds = {
        "too_short": z < -threshold,
        "too_long": z > threshold,
        "past_timeout": nw.col("status").is_in(_ENDED) & (duration > timeout),
        "stuck": nw.col("status").is_in(_UNFINISHED) & (nw.col("_elapsed") > limit),
    }
    rows = nw.concat([
        rows.filter(condition.fill_null(value=False)).with_columns(nw.lit(kind).alias("kind"))
        for kind, condition in kinds.items()
    ])  # fmt: skip
    took = nw.when(nw.col("kind") == "stuck").then(nw.col("_elapsed")).otherwise(duration)
    rows = rows.with_columns(took.alias("duration_ms"), nw.col("id").alias("run_id"))

    dtypes = {"name": TEXT, **_UNUSUAL} if "name" in rows.collect_schema() else _UNUSUAL
    order = {"triggered_at": True, "run_id": False, "kind": False}
    unusual: IntoFrameT = source.finalize(rows, lambda frame: frame, keys=[], dtypes=dtypes, order=order)
    return unusual


def _with_limits(source: Source, df: Any, *, min_runs: int) -> nw.LazyFrame[Any]:  # noqa: ANN401
    """Add ``median_ms`` and ``z_score``, and ``timeout_ms``."""
    rows = source.frame.with_columns(nw.col("duration_ms").cast(nw.Int64))
    own = rows.collect_schema().names()
    name = NAMES["deployment_id"]
    rows = rows.with_columns(nw.col(name).alias("name")) if name in own else rows
    key = "deployment_id"
    duration = nw.col("duration_ms").cast(nw.Float64)
    is_measured = (nw.col("status") == "completed") & ~nw.col("duration_ms").is_null()
    rows = rows.with_columns(
        nw.when(is_measured).then(nw.when(duration > 0).then(duration).otherwise(nw.lit(1.0)).log()).alias("_ln")
    )
    measured = rows.filter(is_measured)
    medians = (
        measured.with_columns(duration.alias("_ms"))
        .group_by(key)
        .agg(nw.len().alias("_n"), _median("_ms").alias("median_ms"), _median("_ln").alias("_middle"))
        .filter(nw.col("_n") >= min_runs)
        .select(nw.col(key).alias("_of"), "median_ms", "_middle")
    )
    deviation = (nw.col("_ln") - nw.col("_middle")).abs()
    deviations = (
        measured.select(key, "_ln")
        .join(medians, how="inner", left_on=key, right_on="_of")
        .with_columns(deviation.alias("_deviation"))
        .group_by(key)
        .agg(_median("_deviation").alias("_mad"), nw.col("_deviation").mean().alias("_mean"))
        .select(nw.col(key).alias("_of"), "_mad", "_mean")
    )
    scale = (
        nw.when(nw.col("_mad") > 0)
        .then(nw.col("_mad") / _OF_MEDIAN_DEVIATION)
        .when(nw.col("_mean") > 0)
        .then(nw.col("_mean") * _OF_MEAN_DEVIATION)
    )
    rows = _left_join(_left_join(rows, medians), deviations)
    rows = rows.with_columns(((nw.col("_ln") - nw.col("_middle")) / scale).alias("z_score"))
    if df is None:
        return rows.with_columns(nw.when(nw.col("duration_ms").is_null()).then("duration_ms").alias("timeout_ms"))
    deployments = source.adopt(df, wanted=["id", "config_timeout_ms"], what="deployments")
    timeout = nw.col("config_timeout_ms").cast(nw.Int64)
    known = deployments.filter(timeout > 0).select(nw.col("id").alias("_of"), timeout.alias("timeout_ms"))
    return _left_join(rows, known.group_by("_of").agg(nw.col("timeout_ms").max()))


def _with_elapsed(rows: nw.LazyFrame[Any], now: int) -> nw.LazyFrame[Any]:
    """Add how long ago a run began, in milliseconds."""
    rows = add_column(rows, "_triggered", EPOCH, "triggered_at")
    began = nw.col("_triggered")
    if "started_at" in rows.collect_schema():
        rows = add_column(rows, "_started", EPOCH, "started_at")
        began = nw.coalesce("_started", "_triggered")
    return rows.with_columns(((now - began) // 1000).alias("_elapsed"))


def _left_join(rows: nw.LazyFrame[Any], others: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
    return rows.join(others, how="left", left_on="deployment_id", right_on="_of")


def _median(name: str) -> nw.Expr:
    return nw.col(name).quantile(0.5, interpolation="linear")
