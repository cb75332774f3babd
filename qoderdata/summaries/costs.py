"""What do sessions cost, in credits, in total and over time?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa

from qoderdata import errors
from qoderdata.frames import with_names
from qoderdata.outcomes import open_frame
from qoderdata.summaries.dataframe_engines import Source, flag, group_keys, open_source, with_missing
from qoderdata.summaries.time_windows import Windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narwhals.typing import IntoFrameT

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
        Windows of time, by ``created_at``, as in `run_failure_rates`: ``"1h"``, ``"1D"``, ``"1W"`` and so on.
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
        ``model_credits``,            float64 parts of ``credits``, with NaN (null) and 0 as above
        ``sandbox_runtime_credits``
        ``credits_p50``,              float64 percentiles of sessions with usage, linear between ranks
        ``credits_p95``
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
        The frame is Dask's, which has no percentiles: both are missing.

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
    keys = group_keys(by, results=[*_COSTS, "window", "name"])
    wanted, optional = ["id", *_SUMS.values(), *(["created_at"] if windows else [])], ["updated_at", _ROW]
    if "agent_id" in keys and "agent_name" not in keys:
        sessions = _with_newest_names(sessions)
    given: Any = sessions
    if isinstance(given, pa.Table):  # DuckDB does not keep its order
        given = given.append_column(_ROW, pa.array(np.arange(len(given))))
    source: Source[IntoFrameT] = open_source(
        given, keys or None, wanted=wanted, what="sessions", optional=optional
    )
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


def _with_newest_names(sessions: Any) -> Any:  # noqa: ANN401 a frame of any engine
    """Return sessions in which a renamed agent has its newest name only; unchanged without names or times."""
    if not isinstance(sessions, pd.DataFrame) or not {"agent_id", "agent_name", "created_at"} <= {*sessions}:
        return sessions
    sessions = sessions.reset_index(drop=True)
    try:
        return with_names(sessions, agents=sessions)
    except errors.FrameTypeError:
        return sessions


def _each_once(source: Source[Any]) -> nw.LazyFrame[Any]:
    """Return the last row of each session."""
    native, engine = source.frame.to_native(), source.engine
    if engine.is_pandas() or engine.is_dask():
        return open_frame(native.drop_duplicates(subset=["id"], keep="last")).lazy()
    if engine.is_polars():
        return open_frame(native.unique(subset=["id"], keep="last", maintain_order=True)).lazy()
    columns = source.frame.collect_schema().names()
    order_by = [name for name in (_ROW, "updated_at", "usage_total_credits") if name in columns]
    return source.frame.unique("id", keep="last", order_by=order_by)
