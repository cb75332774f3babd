"""What do sessions cost, in credits: in total, over time, and compared with the period before?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa

from qoderdata import errors
from qoderdata.formatting import counted
from qoderdata.frames import with_names
from qoderdata.outcomes import open_frame
from qoderdata.summaries.dataframe_engines import (
    Source,
    add_column,
    flag,
    group_keys,
    median,
    open_source,
    with_missing,
)
from qoderdata.summaries.time_windows import EPOCH, Windows, parse_micros, with_age

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narwhals.typing import IntoFrameT

    from qoderdata.arguments import Instant, Span

_SUMS = {
    "credits": "usage_total_credits",
    "model_credits": "usage_model_credits",
    "sandbox_runtime_credits": "usage_sandbox_runtime_credits",
}
_QUANTILES = {"credits_p50": 0.5, "credits_p95": 0.95}
_COSTS = {
    "sessions": "Int64",
    **dict.fromkeys([*_SUMS, *_QUANTILES, "credits_max", "share"], "float64"),
    "unknown": "Int64",
}
#: The number of a row of a PyArrow table.
_ROW = "_row"
_COUNTS = ["sessions", *(f"_known_{name}" for name in _SUMS)]
_PERIODS = ("recent", "baseline")
_COMPARED = {
    **{
        f"{period}_{name}": _COSTS[name]
        for period in _PERIODS
        for name in ("sessions", "credits", "credits_p50", "unknown")
    },
    "change": "float64",
}


def session_costs(
    sessions: IntoFrameT,
    by: str | Sequence[str] | None = "deployment_id",
    *,
    freq: str | None = None,
    tz: str = "UTC",
) -> IntoFrameT:
    """Add up the credits of sessions.

    The credits of a session are what it has used so far, so each session counts once. Of several rows with one id,
    the last one counts; in frames without an order (DuckDB, Spark), the one with the latest ``updated_at``, then
    with the most credits. Sessions without usage are unknown, not free: they are counted separately, and the sums
    are those of the others. Credits are neither computed from tokens nor converted to money.

    Parameters
    ----------
    sessions
        A sessions frame, of pandas or any engine that narwhals knows.
    by
        A column, a list of columns, or ``None`` for all sessions together. A missing key is a group of its own,
        such as the sessions that no deployment started.
    freq
        Windows of time, by ``created_at``, as in `run_failure_rates`: ``"1D"``, ``"1W"``, ``"1M"`` and so on.
        ``None``: no windows.
    tz
        The IANA zone of the windows.

    Returns
    -------
    frame
        One row per group, the most expensive first (by ``credits``, descending, missing last, then by key); with
        `freq` one row per group and window, in order of key and time. On pandas the keys are the index, with
        ``window`` its last level; on other engines they are the first columns, and lazy frames stay lazy. If `by`
        is an id and the frame has the column of its names, the first column is ``name``. For an agent that was
        renamed, it is the name in its newest session (on other engines than pandas, the last name in alphabetical
        order). With `freq` every group has every window from the first to the last session of the whole frame;
        lazy frames only have windows with sessions. An empty frame gives no rows.

        ============================= ======= ==============================================================
        ``sessions``                  Int64   the number of sessions
        ``credits``                   float64 their sum; NaN (null) if no session has usage; 0 in a window
                                              without sessions
        ``model_credits``             float64 part of ``credits``, with NaN (null) and 0 as above
        ``sandbox_runtime_credits``   float64 part of ``credits``, likewise
        ``credits_p50``               float64 the median of sessions with usage
        ``credits_p95``               float64 their 95th percentile, linear between ranks
        ``credits_max``               float64 the credits of the most expensive session
        ``share``                     float64 the share of all credits; the rows add up to 1;
                                              NaN (null) if all credits are 0
        ``unknown``                   Int64   sessions without ``usage_total_credits``
        ============================= ======= ==============================================================

    Raises
    ------
    ValueError
        A parameter is not valid; the message says what is allowed. Or `freq` would give more than a million
        windows, or windows before year 1 or after year 9999.
    FrameTypeError
        Not a frame, or a column that has lost its dtype; the message says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.

    Warns
    -----
    DataQualityWarning
        The frame is Dask's, which has no percentiles: both are missing. Or a session of a pandas frame has several
        values of `by`: only its last row counts.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> sessions = pd.DataFrame({
    ...     "id": ["sess_1", "sess_2", "sess_3"], "deployment_id": ["dep_1", "dep_1", None],
    ...     "usage_total_credits": [1.5, None, 0.5], "usage_model_credits": [1.0, None, 0.5],
    ...     "usage_sandbox_runtime_credits": [0.5, None, 0.0],
    ... })
    >>> qd.session_costs(sessions)[["sessions", "credits", "share", "unknown"]]
                   sessions  credits  share  unknown
    deployment_id
    dep_1                 2      1.5   0.75        1
    NaN                   1      0.5   0.25        0
    """
    windows = None if freq is None else Windows.parse(freq, tz, "created_at")
    wanted = [*_SUMS.values(), *(["created_at"] if windows else [])]
    source = _open_sessions(sessions, by, results=[*_COSTS, "window", "name"], wanted=wanted)
    rows = _each_once(source).with_columns(nw.col(*_SUMS.values()).cast(nw.Float64))
    rows = windows.label(rows) if windows else rows
    rows = rows.with_columns(
        nw.lit(1).alias("sessions"),
        *(flag(~nw.col(column).is_null()).alias(f"_known_{name}") for name, column in _SUMS.items()),
        *(nw.col(column).fill_null(0.0).alias(name) for name, column in _SUMS.items()),
    )
    within = ["window"] if windows else []
    quantiles = source.quantiles("usage_total_credits", _QUANTILES, scan="scan_sessions")
    highest = nw.col("usage_total_credits").max().alias("credits_max")
    grouped = source.group(rows, nw.col(*_SUMS).sum(), highest, *quantiles, sums=_COUNTS, within=within)
    if windows and source.eager:
        grouped = windows.with_empty(grouped, rows, source, sums=[*_COUNTS, *_SUMS])

    def finish(frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        frame = with_missing(frame, _QUANTILES).with_columns(
            (nw.col("sessions") - nw.col("_known_credits")).alias("unknown"),
            *(
                nw.when((nw.col(f"_known_{name}") > 0) | (nw.col("sessions") == 0)).then(nw.col(name))
                for name in _SUMS
            ),
        )
        total = nw.col("credits").sum()
        frame = frame.with_columns(share=nw.col("credits") / nw.when(total > 0).then(total))
        return windows.begin(frame) if windows else frame

    order = {} if windows else {"credits": True}
    return source.finalize(grouped, finish, within=within, dtypes=_COSTS, order=order)


def compare_costs(
    sessions: IntoFrameT,
    by: str | Sequence[str] | None = "deployment_id",
    *,
    recent: Span = "7D",
    baseline: Span | None = None,
    until: Instant | Span | None = None,
) -> IntoFrameT:
    """Compare the credits of the sessions of a recent period with those of the period before it.

    Recent is ``until - recent <= created_at < until``; the baseline is the period of length `baseline` before
    that. A session counts in the period in which it was created, with all credits that it has used so far, so
    recent sessions that still run will cost more. Each session counts once, as in `session_costs`, and sessions
    without usage are unknown, not free.

    Parameters
    ----------
    sessions
        A sessions frame, of pandas or any engine that narwhals knows, except Dask, which has no median of a group.
    by
        A column, a list of columns, or ``None`` for all sessions together. A missing key is a group of its own,
        such as the sessions that no deployment started.
    recent, baseline
        Lengths of time: text with a unit such as ``"7D"``, or a `datetime.timedelta`. ``baseline=None`` is as long
        as `recent`.
    until
        The end of the recent period: a zone-aware time, or an age before now, such as ``"12h"``. ``None`` is the
        end of the minute of the newest session in the whole frame.

    Returns
    -------
    frame
        One row per group with a session in either period, the largest increase first (by ``change``, descending,
        missing last, then by key). On pandas the keys are the index; on other engines they are the first columns,
        and lazy frames stay lazy. If `by` is an id and the frame has the column of its names, the first column is
        ``name``, of a renamed agent as in `session_costs`. No sessions give no rows.

        ============================================== ======= =================================================
        ``recent_sessions``, ``baseline_sessions``     Int64   the number of sessions
        ``recent_credits``, ``baseline_credits``       float64 their credits; NaN (null) if no session of the
                                                               period has usage; 0 without sessions
        ``recent_credits_p50``                         float64 the median of the sessions with usage
        ``baseline_credits_p50``                       float64 the same for the period before
        ``recent_unknown``, ``baseline_unknown``       Int64   sessions without ``usage_total_credits``
        ``change``                                     float64 ``recent_credits`` minus ``baseline_credits``;
                                                               if the periods differ in length, the latter are
                                                               first multiplied by ``recent / baseline``
        ============================================== ======= =================================================

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
        A session of a pandas frame has several values of `by`: only its last row counts.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> sessions = pd.DataFrame({
    ...     "id": [f"sess_{number}" for number in range(8)], "deployment_id": ["dep_1", "dep_2"] * 4,
    ...     "created_at": pd.date_range("2026-06-01", periods=8, freq="12h", tz="UTC"),
    ...     "usage_total_credits": [1.0, 2.0, 1.0, None, 4.0, 2.0, 4.0, 1.0],
    ... })
    >>> compared = qd.compare_costs(sessions, recent="2D")
    >>> compared[["recent_credits", "baseline_credits", "baseline_unknown", "change"]]
                   recent_credits  baseline_credits  baseline_unknown  change
    deployment_id
    dep_1                     8.0               2.0                 0     6.0
    dep_2                     3.0               2.0                 1     1.0
    """
    recent_us = parse_micros(recent, name="recent")
    baseline_us = recent_us if baseline is None else parse_micros(baseline, name="baseline")
    wanted = ["usage_total_credits", "created_at"]
    source = _open_sessions(sessions, by, results=[*_COMPARED, "name"], wanted=wanted)
    source.refuse_dask("compare_costs", "a median within a group", scan="scan_sessions")
    rows = with_age(add_column(_each_once(source), "_at", EPOCH, "created_at"), until)
    age, credits_ = nw.col("_age"), nw.col("usage_total_credits").cast(nw.Float64)
    rows = rows.filter((age > 0) & (age <= recent_us + baseline_us))
    inside = {"recent": age <= recent_us, "baseline": age > recent_us}
    for period, is_inside in inside.items():
        rows = rows.with_columns(
            flag(is_inside).alias(f"{period}_sessions"),
            flag(is_inside & credits_.is_null()).alias(f"{period}_unknown"),
            nw.when(is_inside).then(credits_).alias(f"{period}_credits_p50"),
            nw.when(is_inside).then(credits_).otherwise(0.0).fill_null(0.0).alias(f"{period}_credits"),
        )
    medians = [median(f"{period}_credits_p50") for period in _PERIODS]
    sums = [nw.col(f"{period}_credits").sum() for period in _PERIODS]
    counts = [f"{period}_{name}" for period in _PERIODS for name in ("sessions", "unknown")]
    grouped = source.group(rows, *medians, *sums, sums=counts)

    def finish(frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        for period in _PERIODS:
            count, unknown = nw.col(f"{period}_sessions"), nw.col(f"{period}_unknown")
            spent = nw.col(f"{period}_credits")
            frame = frame.with_columns(nw.when((unknown < count) | (count == 0)).then(spent))
        before = nw.col("baseline_credits") * (recent_us / baseline_us)
        return frame.with_columns(change=nw.col("recent_credits") - before)

    return source.finalize(grouped, finish, dtypes=_COMPARED, order={"change": True})


def _open_sessions(
    sessions: IntoFrameT, by: str | Sequence[str] | None, *, results: Sequence[str], wanted: Sequence[str]
) -> Source[IntoFrameT]:
    """Open a sessions frame with the columns that `_each_once` needs; `results` and `wanted` as `open_source`."""
    keys = group_keys(by, results=results)
    if "agent_id" in keys and "agent_name" not in keys:
        sessions = _with_newest_names(sessions)
    given: Any = sessions
    if isinstance(given, pa.Table):  # DuckDB does not keep its order
        given = given.append_column(_ROW, pa.array(np.arange(len(given))))
    optional = ["updated_at", _ROW]
    return open_source(given, keys or None, wanted=["id", *wanted], what="sessions", optional=optional)


def _with_newest_names(sessions: Any) -> Any:  # noqa: ANN401 a frame of any engine
    """Return sessions in which a renamed agent has its newest name only; unchanged without names or times."""
    if not isinstance(sessions, pd.DataFrame) or not {"agent_id", "agent_name", "created_at"} <= {*sessions}:
        return sessions
    try:
        return with_names(sessions, agents=sessions)
    except errors.FrameTypeError:
        return sessions


def _each_once(source: Source[Any]) -> nw.LazyFrame[Any]:
    """Return the last row of each session."""
    native, engine = source.frame.to_native(), source.engine
    if engine.is_pandas():
        _warn_of_several_groups(native, source.keys)
    if engine.is_pandas() or engine.is_dask():
        return open_frame(native.drop_duplicates(subset=["id"], keep="last")).lazy()
    if engine.is_polars():
        return open_frame(native.unique(subset=["id"], keep="last", maintain_order=True)).lazy()
    columns = source.frame.collect_schema().names()
    order_by = [name for name in (_ROW, "updated_at", "usage_total_credits") if name in columns]
    return source.frame.unique("id", keep="last", order_by=order_by)


def _warn_of_several_groups(sessions: pd.DataFrame, keys: list[str]) -> None:
    """Warn if one version of a session is in several groups: only the group of its last row counts."""
    version = [name for name in ("id", "updated_at") if name in sessions]
    versions = sessions[[*dict.fromkeys([*version, *keys])]].drop_duplicates()
    count = versions.loc[versions.duplicated(version), "id"].nunique()
    if count:
        errors.warn(
            f"{counted(count, 'session')} of the frame {'has' if count == 1 else 'have'} several values of "
            f"{' and '.join(keys)}, as after a merge with a table that has a key twice; only the last row of a "
            "session counts",
            errors.DataQualityWarning,
        )
