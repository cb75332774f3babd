"""Resolve what became of a run, from its record, its session and its session's events.

Older editions of the service say it in the record's ``status``; the newest says it in the session alone. The work
is in two steps, so that the first one's result can be kept on disk: `ends_from_events` reduces a session's events
to one row, and `apply_ends` (pandas) or `apply_ends_lazy` (other engines) fill the columns of the runs.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from narwhals.dependencies import is_dask_dataframe

from qoderdata import errors
from qoderdata.schema import EVENTS, OUTCOMES, RUNS, SESSIONS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from qoderdata.schema import Schema

_TEXT: Any = pa.large_string()
_TIME: Any = Kind.TIME.arrow
_DTYPES: dict[Any, Any] = {
    _TEXT: pd.StringDtype(na_value=np.nan),
    _TIME: pd.DatetimeTZDtype("us", "UTC"),
    pa.int64(): pd.Int64Dtype(),
    pa.float64(): np.dtype("float64"),
}


def _types(table: Schema, *names: str) -> dict[str, Any]:
    return {name: table.arrow.field(name).type for name in names}


#: Columns of a runs frame that the rules read or fill.
_RUNS = _types(
    RUNS, "status", "session_id", "trigger_scheduled_at", "triggered_at", "created_at", "started_at",
    "completed_at", "duration_ms", "error_type", "error_message", "status_from",
)  # fmt: skip
#: Those that are added if they are absent.
_ADDED = ("trigger_scheduled_at", "status_from")
_REQUIRED = [name for name in _RUNS if name not in _ADDED]
_FILLED = [name for name in _RUNS if name not in ("session_id", "trigger_scheduled_at", "created_at")]
#: Columns of an events frame that tell how a session ended.
_EVENTS = {"session_id": _TEXT} | _types(
    EVENTS, "type", "processed_at", "stop_reason", "error_type", "error_message", "retry_status"
)
#: Columns of the frames that are joined to runs by session.
_SESSIONS = _types(SESSIONS, "id", "status", "archived_at", "created_at", "stats_duration_seconds")
_ENDS = {"session_id": _TEXT} | _types(
    OUTCOMES, "end", "status", "started_at", "completed_at", "error_type", "error_message"
)
#: All columns that the rules read; joined ones have the name of their frame before their own.
_JOINED = {
    **_RUNS,
    **{f"_sessions_{name}": kind for name, kind in _SESSIONS.items()},
    **{f"_ends_{name}": kind for name, kind in _ENDS.items()},
}

#: The statuses of runs that are documented, by how they are counted.
STATUSES = {
    "unfinished": ["pending", "running", "waiting"],
    "completed": ["completed"],
    "failed": ["failed"],
    "skipped": ["cancelled", "skipped"],
}
#: The statuses of sessions that still run.
RUNNING_SESSIONS = ["running", "rescheduling", "canceling", "processing"]
_STATUS_BY_STOP_REASON = {
    "end_turn": "completed",
    "cancelled": "cancelled",
    "retries_exhausted": "failed",
    "budget_reached": "failed",
}
_SESSION_TERMINATED = "session_terminated"
#: The end of a text that holds a time and its offset.
_OFFSET = r":\d\d.*(?:Z|UTC|[+-]\d\d(?::?\d\d)?)$"
#: A longer duration is wrong, and its milliseconds might not fit 64 bits.
_MAX_SECONDS = 1e12


def is_assumed(runs: pd.DataFrame) -> pd.Series[bool]:
    """Return which runs count as completed because of their session's state alone."""
    if "status_from" not in runs:
        return pd.Series(data=False, index=runs.index)
    return runs["status"].eq("completed") & runs["status_from"].eq("session")


def is_unknown(runs: pd.DataFrame) -> pd.Series[bool]:
    """Return which runs have no outcome: no status, or one that is not documented."""
    return ~runs["status"].isin([status for known in STATUSES.values() for status in known])


def resolve_outcomes(
    runs: pd.DataFrame, sessions: pd.DataFrame | None = None, events: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return the runs with what became of them: status, times, duration and error.

    A run whose record has a ``status`` keeps every field as it is. For the other runs this fills the fields that
    are missing, from the record, the run's session and the session's events. A run ends with the first end of
    its session, in the order of the event list; what a person did in the session later does not count.

    Parameters
    ----------
    runs
        A runs frame, as `load_runs` or `flatten_runs` returns it. ``trigger_scheduled_at`` and ``status_from`` may
        be absent.
    sessions
        A sessions frame, as `load_sessions` returns it: its columns ``id``, ``status``, ``archived_at``,
        ``created_at`` and ``stats_duration_seconds``. The last row of an id counts. ``None``: no session is known.
    events
        The events of any number of sessions, as `load_events` returns them for one: its columns ``session_id``,
        ``type``, ``processed_at``, ``stop_reason``, ``error_type``, ``error_message`` and ``retry_status``. A
        session's events are in the order of ``position``, and in that of the rows if this column is absent.
        ``None``: no event is known.

    Returns
    -------
    pandas.DataFrame
        The same rows, index, ``attrs`` and columns as ``runs``; ``trigger_scheduled_at`` and ``status_from`` are
        added if they are absent. No row is dropped. These columns are filled:

        ================================ =================== ==================================================
        ``status``                       str                 ``completed``, ``failed``, ``cancelled``,
                                                             ``waiting`` (for a person), ``running``,
                                                             ``pending``; missing if it is not known
        ``status_from``                  str                 ``service`` (the record has a status), ``run``
                                                             (the rest of the record), ``session``,
                                                             ``events``; missing if the session is unknown
        ``triggered_at``                 datetime64[us, UTC] ``trigger_scheduled_at``, else ``created_at``
        ``started_at``                   datetime64[us, UTC] first time at which the session ran, else the
                                                             session's ``created_at``
        ``completed_at``                 datetime64[us, UTC] time of the end of a completed, failed or
                                                             cancelled run, from events
        ``duration_ms``                  Int64               between these two if events have both, in
                                                             this order, else the session's
                                                             ``stats_duration_seconds``
        ``error_type``                   str                 of a failed run
        ``error_message``                str                 likewise
        ================================ =================== ==================================================

        ``completed`` with ``status_from == "session"`` is an assumption: the session is idle or archived, and
        failures inside it are not seen without its events.

    Raises
    ------
    FrameTypeError
        Not a pandas frame, or a column that has lost its dtype, such as times without a zone, also as text; or
        some events have no ``position``.
    MissingColumnError
        A frame lacks a column; the message lists those that it has.

    Notes
    -----
    A frame that was resolved before may be resolved again. If ``status_from`` is ``session`` or ``events``,
    the fields ``status``, ``started_at``, ``completed_at``, ``duration_ms``, ``error_type`` and
    ``error_message`` are cleared first; if it is ``run``, ``status`` is, and the record's own error stays. So
    an earlier assumption is always replaced, and facts that were only given to the earlier call are lost: pass
    all sessions and events that are known.

    A run whose record has an error takes nothing from a session.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> runs = qd.flatten_runs([
    ...     {"id": "drun_2", "session_id": "sess_2", "created_at": "2026-06-15T02:00:00Z"},
    ...     {"id": "drun_1", "error": {"type": "agent_archived_error"}, "created_at": "2026-06-15T01:00:00Z"},
    ... ])
    >>> sessions = pd.DataFrame({
    ...     "id": ["sess_2"], "status": ["idle"], "archived_at": [pd.NaT],
    ...     "created_at": pd.to_datetime(["2026-06-15T02:00:01Z"]), "stats_duration_seconds": [12.5],
    ... })
    >>> qd.resolve_outcomes(runs, sessions)[["id", "status", "status_from", "duration_ms", "error_type"]]
           id     status status_from  duration_ms            error_type
    0  drun_2  completed     session        12500                   NaN
    1  drun_1     failed         run         <NA>  agent_archived_error
    """
    return apply_ends(runs, sessions, None if events is None else ends_from_events(events))


def ends_from_events(events: pd.DataFrame) -> pd.DataFrame:
    """Return how each session ended, from events as `resolve_outcomes` takes them, in order of first appearance.

    The columns are ``session_id``, and those of `qoderdata.schema.OUTCOMES` from ``end`` to ``error_message``.
    Only events up to a session's first end are considered. An error is fatal if its ``retry_status`` is
    ``exhausted`` or ``terminal`` and no later ``session.status_running`` or ``session.status_rescheduled`` voids
    it. The ``error_type`` of a failed run is that of the first fatal error if ``end`` is ``error``; else that of
    the last fatal error, else of the last error, else the stop reason or ``session_terminated``.
    """
    _require_frame(events, _EVENTS, what="events")
    return ends_from_table(_event_table(events)).to_pandas(types_mapper=_DTYPES.get)


def ends_from_table(events: pa.Table) -> pa.Table:
    """Return what `ends_from_events` returns, for a table that has each session's events together and in order."""
    listed = _Events(events)
    final = listed.first(listed.ends)
    by_final = final >= 0
    before = (listed.rows < final[listed.codes]) | ~by_final[listed.codes]
    restarted = listed.last(before & (listed.running | listed.rescheduled))
    fatal = before & listed.fatal & (listed.rows > restarted[listed.codes])
    first_fatal, last_fatal = listed.first(fatal), listed.last(fatal)
    by_error = ~by_final & (last_fatal >= 0)
    waits = ~by_final & ~by_error & listed.at(listed.waits, listed.last(before & listed.any_status))

    end_row = np.where(by_final, final, first_fatal)
    by_idle = listed.at(listed.idle, end_row)
    stop_reason = listed.take("stop_reason", np.where(by_idle, end_row, -1))
    has_no_reason = by_idle & _mask(pc.is_null(stop_reason))
    statuses = pa.array(list(_STATUS_BY_STOP_REASON.values()), _TEXT)
    status = statuses.take(pc.index_in(stop_reason, value_set=pa.array(list(_STATUS_BY_STOP_REASON), _TEXT)))
    for mask, word in (
        (has_no_reason & (last_fatal < 0), "completed"),
        ((has_no_reason & (last_fatal >= 0)) | by_error | (by_final & ~by_idle), "failed"),
        (waits, "waiting"),
    ):
        status = pc.if_else(pa.array(mask), pa.scalar(word, _TEXT), status)

    failed, decided = _one_of(status, ["failed"]), _one_of(status, ["completed", "failed", "cancelled"])
    last_error = listed.last(before & listed.error)
    cause = np.select([~failed, by_error, last_fatal >= 0], [-1, first_fatal, last_fatal], last_error)
    type_without_error = pc.coalesce(stop_reason, pa.scalar(_SESSION_TERMINATED, _TEXT))
    type_without_error = pc.if_else(pa.array(failed), type_without_error, None)
    end = np.select([by_final, by_error, waits], [0, 1, 2], -1)
    columns = {
        "session_id": listed.sessions,
        "end": _take(pa.array(["final", "error", "waiting"], _TEXT), end),
        "status": status,
        "started_at": listed.take("processed_at", listed.first(before & listed.running)),
        "completed_at": listed.take("processed_at", np.where(decided, end_row, -1)),
        "error_type": pc.if_else(pa.array(cause >= 0), listed.take("error_type", cause), type_without_error),
        "error_message": listed.take("error_message", cause),
    }
    return pa.table(columns)


def apply_ends(
    runs: pd.DataFrame, sessions: pd.DataFrame | None = None, ends: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Fill the columns of a pandas runs frame from its sessions, and ends as `ends_from_events` returns them.

    The last row of a session counts. A row whose ``end`` is ``gone`` has no end: the service no longer has the
    session.
    """
    _require_frame(runs, _REQUIRED, what="runs")
    runs = runs.copy(deep=False)
    names = _result_names(runs.columns)
    for name in set(names).difference(runs.columns):
        runs[name] = pd.Series(pd.NA, index=runs.index, dtype=_DTYPES[_RUNS[name]])
    columns = {name: _arrow(runs[name], kind, what="runs") for name, kind in _RUNS.items()}
    for what, key, kinds, frame in (("sessions", "id", _SESSIONS, sessions), ("ends", "session_id", _ENDS, ends)):
        if frame is not None:
            _require_frame(frame, kinds, what=what)
            found = {name: _arrow(frame[name], kind, what=what) for name, kind in kinds.items()}
            rows = _last_rows(found[key], columns["session_id"])
            columns |= {f"_{what}_{name}": _take(column, rows) for name, column in found.items()}
    return _with_filled(runs[names], columns)


def apply_ends_lazy(runs: Any, sessions: Any, ends: Any) -> Any:  # noqa: ANN401 frames of any engine
    """Fill the columns of a runs frame of another engine, in no particular order; lazy frames stay lazy.

    All are frames of one engine (DuckDB relations of one connection; Polars, Dask, PySpark frames), with all
    columns of their tables. Sessions and ends are unique by session.
    """
    frame: Any = open_frame(runs)
    names = frame.collect_schema().names()
    for what, key, kinds, native in (("sessions", "id", _SESSIONS, sessions), ("ends", "session_id", _ENDS, ends)):
        renamed = (nw.col(name).alias(f"_{what}_{name}") for name in kinds)
        keyed = open_frame(native).select(nw.col(key).alias("_key"), *renamed)
        frame = frame.join(keyed, how="left", left_on="session_id", right_on="_key")
    if frame.implementation.is_dask():
        return frame.to_native().map_partitions(_resolve_partition, names)
    filled = _fill(frame)
    return filled.select(
        *(nw.col(f"_new_{name}" if name in _FILLED else name).alias(name) for name in names)
    ).to_native()


def current_ends_lazy(sessions: Any, ends: Any) -> Any:  # noqa: ANN401 frames of any engine
    """Return the ends for which `is_current_end` is true; each is stored with its session as ``id``."""
    known: Any = open_frame(sessions).select(
        *(nw.col(name).alias(f"_{name}") for name in ("id", "status", "updated_at"))
    )
    stored: Any = open_frame(ends)
    joined = stored.rename({"id": "session_id"}).join(known, how="left", left_on="session_id", right_on="_id")
    return joined.filter(is_current_end()).select(*_ENDS).to_native()


def is_current_end() -> nw.Expr:
    """Return which stored ends still count: final ones, and those whose session is unchanged since they were read.

    The end of a session that changed, but could not be read, counts unless the session runs. The columns are those
    of stored ends, and of their sessions ``_status`` and ``_updated_at``.
    """
    is_final = nw.col("end").is_in(["final", "gone"])
    is_unchanged = nw.col("session_updated_at") == nw.col("_updated_at")
    is_unread = nw.col("session_updated_at").is_null() & ~nw.col("end").is_null()
    is_running = nw.col("_status").is_in(RUNNING_SESSIONS)
    return _is_true(is_final) | _is_true(is_unchanged) | (is_unread & ~_is_true(is_running))


def _fill(frame: Any) -> Any:  # noqa: ANN401 a narwhals frame of any engine
    """Apply the rules, on every engine: add the filled columns, as ``_new_…``."""
    return _with_new_fields(_with_new_status(_with_conditions(_with_milliseconds(frame))))


def _with_conditions(frame: Any) -> Any:  # noqa: ANN401 a narwhals frame of any engine
    """Add the conditions of the rules, which are never null."""
    col = nw.col
    is_resolved = _is_true(col("status_from").is_in(["run", "session", "events"]))
    frame = frame.with_columns(
        (~col("status").is_null() & ~is_resolved).alias("_has_own_status"),
        _is_true(col("status_from").is_in(["session", "events"])).alias("_is_cleared"),
        _is_true(col("_ends_end") == "gone").alias("_is_gone"),
        _is_true(col("_ends_end").is_in(["final", "error", "waiting"])).alias("_has_end"),
        _is_true(col("_sessions_status").is_in(RUNNING_SESSIONS)).alias("_is_running"),
    )
    has_error = ~(col("error_type").is_null() & col("error_message").is_null())
    has_error |= _is_true((col("status_from") == "run") & (col("status") == "failed"))  # an error without a column
    own_error = has_error & ~col("_has_own_status") & ~col("_is_cleared")
    return frame.with_columns(own_error.alias("_has_own_error"))


def _with_new_status(frame: Any) -> Any:  # noqa: ANN401 a narwhals frame of any engine
    col = nw.col
    own_status, own_error, has_end = col("_has_own_status"), col("_has_own_error"), col("_has_end")
    pending = col("session_id").is_null()
    archived = ~col("_sessions_archived_at").is_null()
    status = _first_match(
        (own_status, col("status")),
        (own_error, nw.lit("failed")),
        (pending, nw.lit("pending")),
        (has_end, col("_ends_status")),
        (col("_is_running") & ~col("_is_gone"), nw.lit("running")),
        (_is_true(col("_sessions_status") == "terminated") & ~archived, nw.lit("failed")),
        (_is_true(col("_sessions_status") == "idle") | archived, nw.lit("completed")),
    )
    status_from = _first_match(
        (own_status, nw.lit("service")),
        (own_error | pending, nw.lit("run")),
        (has_end, nw.lit("events")),
        (~col("_sessions_id").is_null() & ~(col("_is_running") & col("_is_gone")), nw.lit("session")),
    )
    return frame.with_columns(status.alias("_new_status"), status_from.alias("_new_status_from"))


def _with_new_fields(frame: Any) -> Any:  # noqa: ANN401 a narwhals frame of any engine
    """Add times, duration and error, which depend on the new status."""
    col = nw.col
    terminated = _is_true(col("_new_status_from") == "session") & _is_true(col("_new_status") == "failed")
    seconds = col("_sessions_stats_duration_seconds")
    measured = nw.when(_is_true((seconds > 0) & (seconds < _MAX_SECONDS)) & ~col("_is_running")).then(seconds)
    uses_session = ~col("_has_own_status") & ~col("_has_own_error")
    uses_events = uses_session & ~col("_is_gone")
    in_order = _is_true(col("_ends_completed_at") >= col("_ends_started_at"))
    sources = {
        "started_at": (
            nw.when(uses_events).then(col("_ends_started_at")),
            nw.when(uses_session).then(col("_sessions_created_at")),
        ),
        "completed_at": (nw.when(uses_events).then(col("_ends_completed_at")),),
        "duration_ms": (
            nw.when(uses_events & in_order).then(col("_ends_ms")),
            nw.when(uses_session).then((measured * 1000 + 0.5).floor().cast(nw.Int64)),
        ),
        "error_type": (
            nw.when(uses_events).then(col("_ends_error_type")),
            nw.when(terminated).then(nw.lit(_SESSION_TERMINATED)),
        ),
        "error_message": (nw.when(uses_events).then(col("_ends_error_message")),),
    }
    triggered = nw.coalesce(col("triggered_at"), col("trigger_scheduled_at"), col("created_at"))
    return frame.with_columns(
        nw.when(col("_has_own_status")).then(col("triggered_at")).otherwise(triggered).alias("_new_triggered_at"),
        *(
            nw.coalesce(nw.when(~col("_is_cleared")).then(col(name)), *others).alias(f"_new_{name}")
            for name, others in sources.items()
        ),
    )


def _first_match(*cases: tuple[nw.Expr, nw.Expr]) -> nw.Expr:
    """Return the value of the first condition that is true; null if none is."""
    found: nw.Expr = nw.lit(None, nw.String)
    for condition, value in reversed(cases):
        found = nw.when(condition).then(value).otherwise(found)
    return found


def _with_milliseconds(frame: Any) -> Any:  # noqa: ANN401 a narwhals frame of any engine
    """Add the time from start to end as ``_ends_ms``; SQL engines need an expression of their own."""
    if frame.implementation.is_duckdb():
        sql = "(epoch_us(_ends_completed_at) - epoch_us(_ends_started_at)) // 1000"
        return open_frame(frame.to_native().project(f"*, {sql} AS _ends_ms"))
    if frame.implementation.is_spark_like():
        sql = "(unix_micros(_ends_completed_at) - unix_micros(_ends_started_at)) div 1000"
        return open_frame(frame.to_native().selectExpr("*", f"{sql} AS _ends_ms"))
    took = nw.col("_ends_completed_at") - nw.col("_ends_started_at")
    return frame.with_columns(took.dt.total_milliseconds().cast(nw.Int64).alias("_ends_ms"))


def _is_true(condition: nw.Expr) -> nw.Expr:
    return condition.fill_null(value=False)


def open_frame(native: Any) -> nw.DataFrame[Any] | nw.LazyFrame[Any]:  # noqa: ANN401 a frame of any engine
    """Open a frame with narwhals, without the warning that it gives for Dask."""
    if not is_dask_dataframe(native):
        opened: nw.DataFrame[Any] | nw.LazyFrame[Any] = nw.from_native(native)
        return opened
    with warnings.catch_warnings():
        # narwhals 2.29 asks for a package of its own for Dask that does not exist yet.
        warnings.filterwarnings("ignore", message="Dask support is moving", category=FutureWarning)
        return nw.from_native(native)


def _require_frame(frame: object, wanted: Iterable[str], *, what: str) -> None:
    if not isinstance(frame, pd.DataFrame):
        raise errors.not_a_frame(frame, what=what, kinds="a pandas frame")
    errors.require_columns(frame.columns, wanted, what=what, levels=frame.index.names)


def _result_names(names: Iterable[str]) -> list[str]:
    """Return the columns of the result: added ones come before ``extra``, the last column of every frame."""
    present = list(names)
    added = [name for name in _ADDED if name not in present]
    at = -1 if present[-1] == "extra" else len(present)
    return [*present[:at], *added, *present[at:]]


def _resolve_partition(part: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Fill the columns of one partition of a Dask frame that has been joined with its sessions and ends."""
    columns = {name: _arrow(part[name], kind, what="runs") for name, kind in _JOINED.items()}
    return _with_filled(part[names], columns)


def _with_filled(runs: pd.DataFrame, columns: dict[str, Any]) -> pd.DataFrame:
    """Evaluate the rules on Arrow columns, and put the results into a runs frame."""
    nulls = {name: pa.nulls(len(runs), kind) for name, kind in _JOINED.items() if name not in columns}
    filled = _fill(nw.from_native(pa.table({**columns, **nulls}))).to_native()
    found = {name: filled[f"_new_{name}"].cast(_RUNS[name]) for name in _FILLED}
    return runs.assign(**{name: _extension(column, runs[name].dtype) for name, column in found.items()})


def _extension(column: Any, dtype: Any) -> Any:  # noqa: ANN401 Arrow in, a pandas array out
    """Return an Arrow column as a pandas array, of an Arrow dtype if the frame had one."""
    wanted: Any = pd.ArrowDtype(column.type) if isinstance(dtype, pd.ArrowDtype) else _DTYPES[column.type]
    return wanted.__from_arrow__(column)


def _arrow(series: pd.Series[Any], kind: Any, *, what: str) -> Any:  # noqa: ANN401 a chunked Arrow array
    dtype = _DTYPES[kind]
    try:
        series = _zoned(series).astype(dtype) if kind == _TIME else series.astype(dtype)
    except (TypeError, ValueError) as error:
        if not series.isna().all():
            name = str(series.name)
            mistake = errors.FrameTypeError(
                f"column {name!r} of the {what} frame holds values of dtype {series.dtype}, not {dtype}"
                f"{errors.frame_hint(what)}"
            )
            mistake.column = name
            raise mistake from error
        return pa.nulls(len(series), kind)
    array = pa.Array.from_pandas(series, type=kind)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _zoned(times: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column of times; raise if one has no zone, which pandas would take as one in UTC."""
    dtype = times.dtype.pyarrow_dtype if isinstance(times.dtype, pd.ArrowDtype) else times.dtype
    if not getattr(dtype, "tz", None) and not times.dropna().astype(str).str.contains(_OFFSET).all():
        raise ValueError("a time has no zone")
    return times


def _last_rows(values: Any, wanted: Any) -> NDArray[np.int64]:  # noqa: ANN401 Arrow arrays
    """Return for each wanted text the last row that has it; -1 for none."""
    reversed_ = values.take(pa.array(np.arange(len(values))[::-1]))
    found: Any = pc.index_in(wanted, value_set=reversed_, skip_nulls=True)
    rows: NDArray[np.int64] = found.fill_null(len(values)).to_numpy(zero_copy_only=False).astype(np.int64)
    return len(values) - 1 - rows


def _take(column: Any, rows: NDArray[Any]) -> Any:  # noqa: ANN401 Arrow arrays
    """Return these rows of an Arrow array; null for -1."""
    return column.take(pa.array(rows, pa.int64(), mask=rows < 0))


def _mask(condition: Any) -> NDArray[np.bool_]:  # noqa: ANN401 an Arrow array
    mask: NDArray[np.bool_] = condition.fill_null(False).to_numpy(zero_copy_only=False)  # noqa: FBT003 Arrow's signature
    return mask


def _one_of(column: Any, words: Sequence[str]) -> NDArray[np.bool_]:  # noqa: ANN401 an Arrow array
    return _mask(pc.is_in(column, value_set=pa.array(words, column.type)))


def _event_table(events: pd.DataFrame) -> pa.Table:
    """Return events with each session's together, in the list's order; those without a session are left out."""
    events = events[events["session_id"].notna()]
    table = pa.table({name: _arrow(events[name], _EVENTS[name], what="events") for name in _EVENTS})
    sessions: Any = table["session_id"].combine_chunks()
    positions = []
    if "position" in events.columns:
        if events["position"].isna().any():
            raise errors.FrameTypeError(
                "the events frame has events without a position, so that their order is not known; leave out the "
                "column 'position' if the rows are in order"
            )
        positions = [events["position"].to_numpy("int64")]
    order = np.lexsort([*positions, sessions.dictionary_encode().indices])
    return table.take(order) if (np.diff(order) < 0).any() else table


class _Events:
    """The events of all sessions, each session's in one piece and in the list's order."""

    def __init__(self, events: pa.Table) -> None:
        self.columns: dict[str, Any] = {name: events[name].combine_chunks() for name in _EVENTS}
        sessions = self.columns["session_id"].dictionary_encode()
        self.sessions = sessions.dictionary
        self.codes: NDArray[np.int32] = sessions.indices.to_numpy()
        self.rows = np.arange(len(self.codes))
        types = self.columns["type"]
        self.running = _one_of(types, ["session.status_running"])
        self.rescheduled = _one_of(types, ["session.status_rescheduled"])
        self.idle = _one_of(types, ["session.status_idle"])
        self.error = _one_of(types, ["session.error"])
        self.any_status = _mask(pc.starts_with(types, "session.status_"))
        self.waits = self.idle & _one_of(self.columns["stop_reason"], ["requires_action"])
        self.ends = (self.idle & ~self.waits) | _one_of(types, ["session.status_terminated"])
        self.fatal = self.error & _one_of(self.columns["retry_status"], ["exhausted", "terminal"])

    def first(self, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return each session's first row in `mask`; -1 for none."""
        return self._row_of_session(np.flatnonzero(mask)[::-1])

    def last(self, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return each session's last row in `mask`; -1 for none."""
        return self._row_of_session(np.flatnonzero(mask))

    def _row_of_session(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return for each session the last one of some rows."""
        found = np.full(len(self.sessions), -1)
        found[self.codes[rows]] = rows
        return found

    def take(self, name: str, rows: NDArray[np.int64]) -> Any:  # noqa: ANN401 an Arrow array
        """Return a column's values in these rows; null for -1."""
        return _take(self.columns[name], rows)

    @staticmethod
    def at(mask: NDArray[np.bool_], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether each of these rows is in `mask`; False for -1."""
        return np.append(mask, False)[rows]
