"""What changed from one period to another, and how much of an error budget is used?"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import narwhals as nw

from qoderdata import errors
from qoderdata.arguments import check_number
from qoderdata.frame_checks import TEXT
from qoderdata.outcomes import STATUSES
from qoderdata.summaries import wilson
from qoderdata.summaries.dataframe_engines import ALL, Source, add_column, flag, median, open_source
from qoderdata.summaries.run_rates import DOUBTFUL, count_outcomes, outcomes_advice, warn_of_unknown
from qoderdata.summaries.time_windows import EPOCH, parse_micros, with_age
from qoderdata.time_math import DAY_MICROS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from narwhals.typing import IntoFrameT

    from qoderdata.arguments import Instant, Span

_PERIODS = ("recent", "baseline")
_COMPARED: dict[str, Any] = {
    **{
        f"{period}_{name}": dtype
        for period in _PERIODS
        for name, dtype in (("decided", "Int64"), ("failed", "Int64"), ("rate", "float64"))
    },
    **dict.fromkeys(("change", "change_low", "change_high"), "float64"),
    "verdict": TEXT,
    **{f"{period}_p50_ms": "float64" for period in _PERIODS},
}
#: The columns that the rows of runs and of missed triggers share.
_SHARED = ["_at", "_decided", "_failed", "_missed"]
_BUDGET = {
    **dict.fromkeys(("decided", "failed", "missed"), "Int64"),
    **dict.fromkeys(("success_rate", "budget", "used", "burn_rate"), "float64"),
}


def compare_periods(
    runs: IntoFrameT,
    by: str | Sequence[str] | None = "deployment_id",
    *,
    recent: Span = "7D",
    baseline: Span | None = None,
    until: Instant | Span | None = None,
    confidence: float = 0.95,
) -> IntoFrameT:
    """Compare the failure rates of a recent period with those of the period before it.

    Recent is ``until - recent <= triggered_at < until``; the baseline is the period of length `baseline` before
    that. Only decided runs count: failed ones, and completed ones, even if that is assumed. The
    interval of the difference is Newcombe's method 10, from the Wilson intervals of both rates: Newcombe, R. G.
    (1998), "Interval estimation for the difference between independent proportions: comparison of eleven
    methods", Statistics in Medicine 17, 873-890. With many groups, some differ by chance: at 95 %, about one in
    twenty of those that did not change. The rate and the durations of an agent or a team also change if some of
    its deployments run more often than before: group by deployment to see which one changed.

    Parameters
    ----------
    runs
        A runs frame, of pandas or any engine that narwhals knows, except Dask, which has no median of a group.
    by
        A column, a list of columns, or ``None`` for all runs together. A missing key is a group of its own.
    recent, baseline
        Lengths of time: text with a unit such as ``"7D"``, or a `datetime.timedelta`. ``baseline=None`` is as long
        as `recent`.
    until
        The end of the recent period: a zone-aware time, or an age before now, such as ``"12h"``. ``None`` is the
        end of the minute of the newest run in the whole frame, so that an old frame gives the same result at any
        time.
    confidence
        The share of such intervals that contain the true difference.

    Returns
    -------
    frame
        One row per group with runs in one of the two periods, the worst first (by ``change_low``, descending,
        missing last, then by key). On pandas the keys are the index; on other engines they are the first columns,
        and lazy frames stay lazy. If `by` is an id and the frame has the column of its names, the first column is
        ``name``. No runs give no rows.

        ========================================== ========= ===================================================
        ``recent_decided``, ``recent_failed``      Int64     decided runs; failed runs
        ``recent_rate``                            float64   the share that failed; NaN (null) if none is
                                                             decided
        ``baseline_decided``, ``baseline_failed``  Int64     the same for the period before
        ``baseline_rate``                          float64   the same for the period before
        ``change``                                 float64   the recent rate minus the baseline's
        ``change_low``, ``change_high``            float64   bounds of its interval
        ``verdict``                                str       ``worse`` (``change_low`` is above 0), ``better``
                                                             (``change_high`` is below 0), ``new`` (nothing is
                                                             decided in the baseline), ``gone`` (nothing is
                                                             decided recently), otherwise ``unclear``, also if
                                                             nothing is decided in both
        ``recent_p50_ms``, ``baseline_p50_ms``     float64   the median duration of completed runs
        ========================================== ========= ===================================================

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
    UnknownOutcomesWarning
        The outcome of more than 5 % of the runs is not known. Or the share of completed runs that is assumed
        (``status_from`` is ``"session"``) differs by more than 5 percentage points between the periods, and the
        interval of this difference does not contain 0. A verdict may then come from failures that are visible in
        one period only. Lazy frames are not read for these warnings.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> runs = pd.DataFrame({
    ...     "deployment_id": "dep_1", "status": ["completed"] * 24 + ["failed"] * 6, "duration_ms": 2000,
    ...     "triggered_at": pd.date_range("2026-06-01", periods=30, freq="12h", tz="UTC"),
    ... })
    >>> compared = qd.compare_periods(runs, recent="5D", baseline="10D")
    >>> compared[["recent_rate", "baseline_rate", "change_low", "verdict"]].round(3)
                   recent_rate  baseline_rate  change_low verdict
    deployment_id
    dep_1                  0.6            0.0       0.271   worse
    """
    confidence = wilson.check_confidence(confidence)
    recent_us = parse_micros(recent, name="recent")
    baseline_us = recent_us if baseline is None else parse_micros(baseline, name="baseline")
    results, wanted = [*_COMPARED, "name"], ["status", "triggered_at", "duration_ms"]
    source = open_source(runs, by, results=results, wanted=wanted, what="runs", optional=["status_from"])
    source.refuse_dask("compare_periods", "a median within a group")

    rows = with_age(add_column(source.frame, "_at", EPOCH, "triggered_at"), until)
    age, duration = nw.col("_age"), nw.col("duration_ms").cast(nw.Float64)
    rows = rows.filter((age > 0) & (age <= recent_us + baseline_us))
    inside = {"recent": age <= recent_us, "baseline": age > recent_us}
    if source.eager:
        counted = {one: count_outcomes(rows.filter(inside[one])) for one in _PERIODS}
        both = {name: sum(counted[one][name] for one in _PERIODS) for name in counted["recent"]}
        warn_of_unknown(both, runs)
        _warn_of_different_shares(counted, runs, confidence=confidence)
    completed, failed = (nw.col("status").is_in(STATUSES[name]) for name in ("completed", "failed"))
    rows = rows.with_columns(
        *(flag((completed | failed) & inside[one]).alias(f"{one}_decided") for one in _PERIODS),
        *(flag(failed & inside[one]).alias(f"{one}_failed") for one in _PERIODS),
        *(nw.when(completed & inside[one]).then(duration).alias(f"{one}_p50_ms") for one in _PERIODS),
    )
    counts = [f"{period}_{name}" for period in _PERIODS for name in ("decided", "failed")]
    grouped = source.group(rows, *(median(f"{one}_p50_ms") for one in _PERIODS), sums=counts)

    def finish(frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        frame = _add_change(frame, "failed", "decided", confidence=confidence)
        return frame.with_columns(_verdict().alias("verdict"))

    return source.finalize(grouped, finish, dtypes=_COMPARED, order={"change_low": True})


def _add_change(frame: nw.LazyFrame[Any], hits: str, trials: str, *, confidence: float) -> nw.LazyFrame[Any]:
    """Add the rate of each period and their difference."""
    names = {one: (f"{one}_rate", f"{one}_low", f"{one}_high") for one in _PERIODS}
    for one in _PERIODS:
        frame = wilson.add_rate(frame, f"{one}_{hits}", f"{one}_{trials}", confidence=confidence, names=names[one])
    return wilson.add_change(frame, names["recent"], names["baseline"])


def _warn_of_different_shares(counts: dict[str, dict[str, int]], runs: object, *, confidence: float) -> None:
    """Warn if the share of assumed runs differs between the periods too much, and by more than chance."""
    recent, baseline = (counts[one] for one in _PERIODS)
    if not recent["completed"] or not baseline["completed"]:
        return
    if abs(recent["assumed"] / recent["completed"] - baseline["assumed"] / baseline["completed"]) <= DOUBTFUL:
        return
    columns = {f"{one}_{name}": [counts[one][name]] for one in _PERIODS for name in ("assumed", "completed")}
    frame = nw.from_dict(columns, backend="pandas").lazy()
    shares = _add_change(frame, "assumed", "completed", confidence=confidence).collect()
    low, high = (shares[name].item() for name in ("change_low", "change_high"))
    if low > 0 or high < 0:
        errors.warn(
            f"{recent['assumed']:,} of {recent['completed']:,} completed runs of the recent period are assumed to "
            f"have completed, and {baseline['assumed']:,} of {baseline['completed']:,} of the baseline: failures "
            "inside these sessions are not seen, so the rates of the periods are not comparable. "
            f"{outcomes_advice(runs)}",
            errors.UnknownOutcomesWarning,
        )


def _verdict() -> nw.Expr:
    recently, before = nw.col("recent_decided") > 0, nw.col("baseline_decided") > 0
    verdicts = {
        "worse": nw.col("change_low") > 0,
        "better": nw.col("change_high") < 0,
        "new": recently & ~before,
        "gone": before & ~recently,
    }
    found = nw.lit("unclear")
    for verdict, condition in verdicts.items():
        found = nw.when(condition.fill_null(value=False)).then(nw.lit(verdict)).otherwise(found)
    return found


def error_budget(
    runs: IntoFrameT,
    missed: pd.DataFrame | IntoFrameT | None = None,
    *,
    target: float = 0.99,
    window: Span = "30D",
    by: str | Sequence[str] | None = None,
    until: Instant | Span | None = None,
) -> IntoFrameT:
    """Compute how much of the failures that a target allows has been used.

    The completed and failed runs with ``until - window <= triggered_at < until`` count, and the certain missed
    triggers with ``scheduled_at`` in the same window. Skipped, cancelled and unfinished runs do not count. Without
    data in the window, the result is unknown, not good.

    Parameters
    ----------
    runs
        A runs frame, of pandas or any engine that narwhals knows.
    missed
        What `missed_triggers` returns for the same window, or for the last day if that is longer (a pandas frame,
        or one of the engine of `runs`), with the columns to group by. Only its certain rows count. ``None``:
        missed triggers are not known.
    target
        The share of runs that should succeed, such as 0.99.
    window
        A length of time with a unit, such as ``"30D"``.
    by
        A column, a list of columns, or ``None`` for all runs together. A missing key is a group of its own.
    until
        The end of the window: a zone-aware time, or an age before now. ``None`` is the end of the minute of the
        newest run or certain missed trigger.

    Returns
    -------
    frame
        One row per group of runs or certain missed triggers, the largest ``used`` first, missing last, then by
        key. On pandas the keys are the index; on other engines they are the first columns, and lazy frames stay
        lazy. If `by` is an id and the frame has the column of its names, the first column is ``name``. Empty
        frames give no rows.

        ================ ========= =========================================================================
        ``decided``      Int64     completed and failed runs
        ``failed``       Int64     failed ones
        ``missed``       Int64     certain missed triggers; missing if `missed` is ``None``
        ``success_rate`` float64   ``1 - (failed + missed) / (decided + missed)``
        ``budget``       float64   ``(1 - target) * (decided + missed)``: how many may fail or be missed
        ``used``         float64   ``(failed + missed) / budget``; above 1, the target is not met
        ``burn_rate``    float64   ``(failed + missed) / (decided + missed) / (1 - target)`` of the day before
                                   `until`; at 1, the budget lasts exactly for the window
        ================ ========= =========================================================================

        The last four are NaN (null) if nothing was decided or missed.

    Raises
    ------
    ValueError
        A parameter is not valid; the message says what is allowed.
    FrameTypeError
        Not a frame, a column that has lost its dtype, or a `missed` of another engine.
    MissingColumnError
        A column is not there; the message lists those that are.

    Warns
    -----
    DataQualityWarning
        A run's ``id`` is in a pandas frame more than once: each row counts.
    UnknownOutcomesWarning
        The outcome of more than 5 % of the runs in the window is not known. Lazy frames are not read for this
        warning.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> runs = pd.DataFrame({
    ...     "status": ["completed"] * 99 + ["failed"],
    ...     "triggered_at": pd.date_range("2026-06-01", periods=100, freq="6h", tz="UTC"),
    ... })
    >>> qd.error_budget(runs, target=0.98)[["decided", "failed", "success_rate", "budget", "used"]]
       decided  failed  success_rate  budget  used
    0      100       1          0.99     2.0   0.5
    """
    check_number(target, lambda share: 0 < share < 1, name="target", must="lie between 0 and 1, such as 0.99")
    # In floats 1 - 0.9 is less than 0.1, and a target that is just met would seem to be missed.
    window_us, allowed = parse_micros(window, name="window"), float(1 - Decimal(str(float(target))))
    results, wanted = [*_BUDGET, "name"], ["status", "triggered_at"]
    source = open_source(runs, by, results=results, wanted=wanted, what="runs", optional=["status_from"])
    completed, failed = (nw.col("status").is_in(STATUSES[name]) for name in ("completed", "failed"))
    counted = add_column(source.frame, "_at", EPOCH, "triggered_at").with_columns(
        flag(completed | failed).alias("_decided"),
        flag(failed).alias("_failed"),
        nw.lit(0).alias("_missed"),
    )
    rows = counted.select(*dict.fromkeys([*source.grouping, *source.names, *_SHARED]))
    if missed is not None:
        rows = nw.concat([rows, _missed_rows(missed, source, rows.collect_schema())])
    rows = with_age(rows, until)
    at, age = nw.col("_at"), nw.col("_age")
    if source.eager:
        # The sum is the end of the window in every row.
        end = rows.select((at + age).max().alias("end")).collect()["end"].fill_null(0).item()
        in_time = counted.filter((at < end) & (at >= end - window_us))
        consequence = "more of the budget may be used than this says"
        warn_of_unknown(count_outcomes(in_time), runs, consequence=consequence)
    in_window, in_day = flag((age > 0) & (age <= window_us)), flag((age > 0) & (age <= DAY_MICROS))
    rows = rows.with_columns(
        *((nw.col(f"_{name}") * in_window).alias(name) for name in ("decided", "failed", "missed")),
        ((nw.col("_failed") + nw.col("_missed")) * in_day).alias("_day_bad"),
        ((nw.col("_decided") + nw.col("_missed")) * in_day).alias("_day_all"),
    )
    grouped = source.group(rows, sums=["decided", "failed", "missed", "_day_bad", "_day_all"])
    unknown = missed is None

    def finish(frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        bad = nw.col("failed") + nw.col("missed")
        of = _divisor(nw.col("decided") + nw.col("missed"))
        day = nw.col("_day_bad") / _divisor(nw.col("_day_all"))
        frame = frame.with_columns(
            success_rate=(of - bad) / of, budget=of * allowed, used=bad / (of * allowed), burn_rate=day / allowed
        )
        # Missing in every row; pandas has no literal for a missing integer.
        return frame.with_columns(nw.when(nw.col("missed") < 0).then(nw.col("missed"))) if unknown else frame

    return source.finalize(grouped, finish, dtypes=_BUDGET, order={"used": True})


def _missed_rows(missed: Any, source: Source[Any], schema: nw.Schema) -> nw.LazyFrame[Any]:  # noqa: ANN401
    """Return the certain missed triggers as rows like those of runs, in their engine."""
    optional = ["name", *source.names.values()]
    wanted = ["scheduled_at", "certain"]
    rows = source.open_same_engine(missed, wanted=wanted, what="missed", optional=optional, shared=source.keys)
    own, names = rows.collect_schema(), {}
    for name, column in source.names.items():
        # The column `name` of `missed_triggers` is the name of the deployment.
        found = "name" if column == "deployment_name" and column not in own else column
        names[name] = nw.col(found) if found in own else nw.lit(None, dtype=nw.String)
    counts = {"_decided": nw.lit(0), "_failed": nw.lit(0), "_missed": nw.lit(1), ALL: nw.lit(1)}
    rows = add_column(rows.filter(nw.col("certain")), "_at", EPOCH, "scheduled_at").with_columns(**names, **counts)
    return rows.select(*(nw.col(name).cast(dtype) for name, dtype in schema.items()))


def _divisor(count: nw.Expr) -> nw.Expr:
    """Return a count as a float, missing if it is 0, as engines differ in the result of a division by 0."""
    return nw.when(count > 0).then(count.cast(nw.Float64))
