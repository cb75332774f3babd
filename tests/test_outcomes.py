"""Tests of `qoderdata.outcomes`: each rule, all rules on random data, and equal results on every engine."""

from __future__ import annotations

import random
import time
from datetime import datetime
from functools import cache
from io import StringIO
from typing import Any

import dask.dataframe as dd
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from qoderdata import flatten_runs, flatten_sessions, resolve_outcomes
from qoderdata.errors import FrameTypeError, MissingColumnError
from qoderdata.outcomes import apply_ends, apply_ends_lazy, current_ends_lazy, ends_from_events
from tests.engine_frames import computed
from tests.slow_outcomes import Row, resolve_slowly

TEXT: Any = pa.large_string()
TIME: Any = pa.timestamp("us", tz="UTC")
INTEGER: Any = pa.int64()
FILLED_COLUMNS: dict[str, Any] = {
    "status": TEXT, "status_from": TEXT, "triggered_at": TIME, "started_at": TIME, "completed_at": TIME,
    "duration_ms": INTEGER, "error_type": TEXT, "error_message": TEXT,
}  # fmt: skip
RUN_COLUMNS: dict[str, Any] = {
    "id": TEXT, "session_id": TEXT, "trigger_scheduled_at": TIME, "created_at": TIME, **FILLED_COLUMNS,
    "extra": TEXT,
}  # fmt: skip
SESSION_COLUMNS = {
    "id": TEXT, "status": TEXT, "archived_at": TIME, "created_at": TIME, "stats_duration_seconds": pa.float64(),
}  # fmt: skip
EVENT_COLUMNS = {
    "session_id": TEXT, "position": INTEGER, "type": TEXT, "processed_at": TIME, "stop_reason": TEXT,
    "error_type": TEXT, "error_message": TEXT, "retry_status": TEXT,
}  # fmt: skip
END_COLUMNS = {
    "session_id": TEXT, "end": TEXT, "status": TEXT, "started_at": TIME, "completed_at": TIME, "error_type": TEXT,
    "error_message": TEXT,
}  # fmt: skip
DTYPES: dict[Any, Any] = {
    TEXT: pd.StringDtype(na_value=np.nan),
    INTEGER: pd.Int64Dtype(),
    TIME: pd.DatetimeTZDtype("us", "UTC"),
}
ZONE_OF_THE_SESSION = "America/New_York"


def at(minute: int | None) -> pd.Timestamp | None:
    return None if minute is None else pd.Timestamp("2026-06-15", tz="UTC") + pd.Timedelta(minutes=minute)


def arrow_table(rows: list[Row], columns: dict[str, Any]) -> pa.Table:
    complete = [
        {name: row.get(name, position if name == "position" else None) for name in columns}
        for position, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(complete, schema=pa.schema(list(columns.items())))


def pandas_frame(rows: list[Row], columns: dict[str, Any]) -> pd.DataFrame:
    """Return a frame with the dtypes that the loaders use."""
    frame = arrow_table(rows, columns).to_pandas(types_mapper=DTYPES.get)
    return frame.astype({"position": "int64"}) if "position" in columns else frame


def run(**fields: Any) -> Row:  # noqa: ANN401 cells
    return {"id": "drun_1", "session_id": "sess_1", "created_at": at(0), **fields}


def session(status: str | None = "idle", **fields: Any) -> Row:  # noqa: ANN401 cells
    return {"id": "sess_1", "status": status, "created_at": at(1), **fields}


def make_events(*given: tuple[Any, ...]) -> list[Row]:
    """Return events from ``(type, minute, stop reason or (error type, retry status))``, in this order."""
    rows = []
    for position, (type_, minute, *rest) in enumerate(given):
        row: Row = {"session_id": "sess_1", "position": position, "processed_at": at(minute)}
        row["type"] = (
            type_ if "." in type_ else f"session.{type_}" if type_ == "error" else f"session.status_{type_}"
        )
        if type_ == "error":
            row["error_type"], row["retry_status"] = rest[0]
            row["error_message"] = f"message of {row['error_type']}"
        elif rest:
            (row["stop_reason"],) = rest
        rows.append(row)
    return rows


def plain_rows(frame: pd.DataFrame, names: list[str] | None = None) -> list[Row]:
    """Return the rows, with missing values as `None`."""
    chosen = frame[names or list(FILLED_COLUMNS)]
    return [
        {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for row in chosen.to_dict("records")
    ]


def runs_frame(*rows: Row) -> pd.DataFrame:
    return pandas_frame(list(rows), RUN_COLUMNS)


def sessions_frame(*rows: Row) -> pd.DataFrame:
    return pandas_frame(list(rows), SESSION_COLUMNS)


def events_frame(*given: tuple[Any, ...]) -> pd.DataFrame:
    return pandas_frame(make_events(*given), EVENT_COLUMNS)


def resolve_one(runs: Row, sessions: list[Row] | None = None, events: list[Row] | None = None) -> Row:
    frame = resolve_outcomes(
        runs_frame(runs),
        None if sessions is None else sessions_frame(*sessions),
        None if events is None else pandas_frame(events, EVENT_COLUMNS),
    )
    return plain_rows(frame)[0]


RUNNING = ("running", 2)
EXHAUSTED = ("error", 3, ("overloaded", "exhausted"))
SERVICE, BY_RUN, BY_EVENTS, BY_SESSION = "service", "run", "events", "session"


TABLE: dict[str, tuple[Any, ...]] = {
    "the record has a status": ({"status": "odd"}, session(), [], "odd", SERVICE, None),
    "the record has an error": ({"error_type": "e", "session_id": None}, None, [], "failed", BY_RUN, "e"),
    "the record has neither an error nor a session": ({"session_id": None}, None, [], "pending", BY_RUN, None),
    "end_turn": ({}, session("running"), [("idle", 9, "end_turn")], "completed", BY_EVENTS, None),
    "idle without a stop reason": ({}, session(), [RUNNING, ("idle", 9)], "completed", BY_EVENTS, None),
    "cancelled": ({}, session(), [("idle", 9, "cancelled")], "cancelled", BY_EVENTS, None),
    "retries_exhausted": (
        {}, session(), [("idle", 9, "retries_exhausted")], "failed", BY_EVENTS, "retries_exhausted",
    ),
    "budget_reached": ({}, session(), [("idle", 9, "budget_reached")], "failed", BY_EVENTS, "budget_reached"),
    "terminated": ({}, session(), [RUNNING, ("terminated", 9)], "failed", BY_EVENTS, "session_terminated"),
    "fatal error, idle without a stop reason": (
        {}, session(), [RUNNING, EXHAUSTED, ("idle", 9)], "failed", BY_EVENTS, "overloaded",
    ),
    "fatal error without an end": ({}, session(), [RUNNING, EXHAUSTED], "failed", BY_EVENTS, "overloaded"),
    "unknown stop reason": ({}, session(), [("idle", 9, "odd")], None, BY_EVENTS, None),
    "requires_action": ({}, session(), [RUNNING, ("idle", 9, "requires_action")], "waiting", BY_EVENTS, None),
    **{
        f"session {word}": ({}, session(word), [RUNNING], "running", BY_SESSION, None)
        for word in ("running", "rescheduling", "canceling", "processing")
    },
    "session running, archived": ({}, session("running", archived_at=at(9)), [], "running", BY_SESSION, None),
    "session terminated": ({}, session("terminated"), [], "failed", BY_SESSION, "session_terminated"),
    "session idle": ({}, session(), [], "completed", BY_SESSION, None),
    "session terminated, archived": (
        {}, session("terminated", archived_at=at(9)), [], "completed", BY_SESSION, None,
    ),
    "session of unknown status, archived": (
        {}, session("odd", archived_at=at(9)), [], "completed", BY_SESSION, None,
    ),
    "session of unknown status": ({}, session("odd"), [], None, BY_SESSION, None),
    "session without a status": ({}, session(None), [], None, BY_SESSION, None),
    "unknown session without events": ({}, None, [], None, None, None),
    "unknown session, events without an end": ({}, None, [RUNNING], None, None, None),
}  # fmt: skip


@pytest.mark.parametrize(
    ("record", "known", "events", "status", "status_from", "error_type"), TABLE.values(), ids=TABLE
)
def test_each_rule_gives_the_documented_outcome(  # noqa: PLR0917 one per column of the table
    record: Row,
    known: Row | None,
    events: list[Any],
    status: str | None,
    status_from: str | None,
    error_type: str | None,
) -> None:
    row = resolve_one(run(**record), None if known is None else [known], make_events(*events))
    assert (row["status"], row["status_from"], row["error_type"]) == (status, status_from, error_type)
    assert resolve_slowly(
        [{**dict.fromkeys(RUN_COLUMNS), **run(**record)}],
        [{**dict.fromkeys(SESSION_COLUMNS), **known}] if known else None,
        [{**dict.fromkeys(EVENT_COLUMNS), **event} for event in make_events(*events)],
    ) == [row]


ENDS: dict[str, tuple[Any, ...]] = {
    "running voids a fatal error": ([RUNNING, EXHAUSTED, ("running", 4), ("idle", 5)], ("completed", 5, None)),
    "rescheduled voids a fatal error": (
        [RUNNING, EXHAUSTED, ("rescheduled", 4), ("idle", 5)], ("completed", 5, None),
    ),
    "voided error without an end": ([RUNNING, EXHAUSTED, ("running", 4)], (None, None, None)),
    "end is the first fatal error that is not voided": (
        [EXHAUSTED, ("running", 4), ("error", 5, ("b", "terminal")), ("error", 6, ("c", "exhausted"))],
        ("failed", 5, "b"),
    ),
    "error that is retried is no end": ([RUNNING, ("error", 3, ("a", "retrying"))], (None, None, None)),
    "error without a retry status is no end": ([RUNNING, ("error", 3, ("a", None))], (None, None, None)),
    "error type of the last fatal error": (
        [EXHAUSTED, ("error", 4, ("b", "retrying")), ("idle", 5, "budget_reached")], ("failed", 5, "overloaded"),
    ),
    "error type of the last error if none is fatal": (
        [EXHAUSTED, ("running", 4), ("error", 5, ("b", None)), ("idle", 6, "budget_reached")], ("failed", 6, "b"),
    ),
    "error type of a terminated session": (
        [("error", 3, ("a", "retrying")), ("terminated", 4)], ("failed", 4, "a"),
    ),
    "running after the end voids nothing": ([EXHAUSTED, ("idle", 5), ("running", 6)], ("failed", 5, "overloaded")),
    "session continued after its end": (
        [RUNNING, ("idle", 5, "end_turn"), ("running", 900), ("error", 901, ("z", "terminal")), ("idle", 902)],
        ("completed", 5, None),
    ),
    "session archived after its end": (
        [RUNNING, ("idle", 5, "end_turn"), ("terminated", 9)], ("completed", 5, None),
    ),
    "end after a wait": (
        [RUNNING, ("idle", 3, "requires_action"), ("running", 4), ("idle", 5, "end_turn")], ("completed", 5, None),
    ),
    "running ends a wait": ([("idle", 3, "requires_action"), ("running", 4)], (None, None, None)),
    "canceling ends a wait": ([("idle", 3, "requires_action"), ("canceling", 4)], (None, None, None)),
    "message and retried error do not end a wait": (
        [("idle", 3, "requires_action"), ("user.message", 4), ("error", 5, ("a", "retrying"))],
        ("waiting", None, None),
    ),
    "fatal error ends a wait": ([("idle", 3, "requires_action"), EXHAUSTED], ("failed", 3, "overloaded")),
    "end without a time": ([RUNNING, ("idle", None, "end_turn")], ("completed", None, None)),
    "first end in list order, not by time": (
        [RUNNING, ("idle", 9, "end_turn"), ("idle", 3, "cancelled")], ("completed", 9, None),
    ),
    "unknown stop reason gives no time": ([RUNNING, ("idle", 5, "odd")], (None, None, None)),
    "events of other types": ([("user.message", 1), (".", 2)], (None, None, None)),
}  # fmt: skip


@pytest.mark.parametrize(("events", "expected"), ENDS.values(), ids=ENDS)
def test_ends_from_events_finds_the_end_and_its_outcome(
    events: list[Any], expected: tuple[str | None, int | None, str | None]
) -> None:
    ends = ends_from_events(events_frame(*events))
    (row,) = plain_rows(ends, ["status", "completed_at", "error_type"])
    status, minute, error_type = expected
    assert row == {"status": status, "completed_at": at(minute), "error_type": error_type}


def test_ends_from_events_tells_the_kind_of_end() -> None:
    kinds: dict[str | None, list[Any]] = {
        "final": [("idle", 5, "odd")],
        "error": [EXHAUSTED],
        "waiting": [("idle", 5, "requires_action")],
        None: [RUNNING],
    }
    for kind, events in kinds.items():
        row = plain_rows(ends_from_events(events_frame(*events)), ["session_id", "end"])[0]
        assert row == {"session_id": "sess_1", "end": kind}


def test_error_message_comes_from_the_error_event() -> None:
    row = resolve_one(run(), [session()], make_events(RUNNING, EXHAUSTED))
    assert row["error_message"] == "message of overloaded"
    assert resolve_one(run(), [session()], make_events(("idle", 5, "budget_reached")))["error_message"] is None


def test_times_and_duration_come_from_events_else_from_the_session() -> None:
    known = [session(stats_duration_seconds=12.5)]
    by_events = resolve_one(run(), known, make_events(RUNNING, ("idle", 9, "end_turn")))
    assert (by_events["started_at"], by_events["completed_at"]) == (at(2), at(9))
    assert by_events["duration_ms"] == 7 * 60_000
    ended = ("idle", 9, "end_turn")
    for events in ([ended], [("running", None), ended], [ended, ("running", 10)]):
        row = resolve_one(run(), known, make_events(*events))
        assert (row["started_at"], row["completed_at"], row["duration_ms"]) == (at(1), at(9), 12_500)
    row = resolve_one(run(), known, make_events(RUNNING, ("idle", None, "end_turn")))
    assert (row["started_at"], row["completed_at"], row["duration_ms"]) == (at(2), None, 12_500)
    row = resolve_one(run(), known)
    assert (row["started_at"], row["completed_at"], row["duration_ms"]) == (at(1), None, 12_500)


def test_a_run_that_ended_as_it_started_took_0_ms() -> None:
    row = resolve_one(run(), [session(stats_duration_seconds=9.0)], make_events(RUNNING, ("idle", 2, "end_turn")))
    assert (row["started_at"], row["completed_at"], row["duration_ms"]) == (at(2), at(2), 0)


def test_times_out_of_order_are_not_used_for_the_duration() -> None:
    events = make_events(RUNNING, ("idle", 1, "end_turn"))
    row = resolve_one(run(), [session(stats_duration_seconds=12.5)], events)
    assert (row["started_at"], row["completed_at"], row["duration_ms"]) == (at(2), at(1), 12_500)
    assert resolve_one(run(), [session()], events)["duration_ms"] is None


def test_duration_is_truncated_to_milliseconds() -> None:
    events = make_events(RUNNING, ("idle", 9, "end_turn"))
    events[0]["processed_at"] += pd.Timedelta(microseconds=1)
    assert resolve_one(run(), None, events)["duration_ms"] == 7 * 60_000 - 1


@pytest.mark.parametrize(
    ("seconds", "word", "expected"),
    [
        (0.0, "idle", None), (-1.0, "idle", None), (None, "idle", None), (1e300, "idle", None),
        (1.001, "idle", 1001), (12.5, "running", None), (12.5, "canceling", None),
        (12.5, "terminated", 12_500), (12.5, None, 12_500),
    ],
)  # fmt: skip
def test_duration_of_an_ended_session_is_used_if_it_is_valid(
    seconds: float | None, word: str | None, expected: int | None
) -> None:
    """0 means that the service has no duration; a session that still runs has none yet."""
    assert resolve_one(run(), [session(word, stats_duration_seconds=seconds)])["duration_ms"] == expected


def test_triggered_at_is_the_scheduled_time_else_created_at() -> None:
    assert resolve_one(run(trigger_scheduled_at=at(3)))["triggered_at"] == at(3)
    assert resolve_one(run())["triggered_at"] == at(0)
    assert resolve_one(run(created_at=None))["triggered_at"] is None
    assert resolve_one(run(trigger_scheduled_at=at(3), triggered_at=at(4)))["triggered_at"] == at(4)


def test_record_with_a_status_keeps_every_field() -> None:
    """Missing fields stay missing too, whatever the session says."""
    record = run(status="pending", trigger_scheduled_at=at(3))
    row = resolve_one(record, [session(stats_duration_seconds=9)], make_events(RUNNING, EXHAUSTED))
    assert row == {**dict.fromkeys(FILLED_COLUMNS), "status": "pending", "status_from": "service"}


def test_record_with_an_error_ignores_its_session() -> None:
    row = resolve_one(
        run(error_message="no"), [session(stats_duration_seconds=9)], make_events(RUNNING, ("idle", 9))
    )
    expected = {"status": "failed", "status_from": "run", "triggered_at": at(0), "error_message": "no"}
    assert row == {**dict.fromkeys(FILLED_COLUMNS), **expected}


@pytest.mark.filterwarnings("ignore:1 value of 1 run did not fit:qoderdata.errors.DataQualityWarning")
@pytest.mark.parametrize("error", [{}, {"code": 1}, {"type": 5}, "no", ["no"]])
def test_record_with_an_error_of_another_form_failed(error: object) -> None:
    """Its error is in `extra`; a list in which a key has this name is no error."""
    others = {"session_id": "sess_1", "error.x": 1, "other": [{"error": 1}], "more": {"error": 1}}
    runs = flatten_runs([{"id": "run_1", "session_id": "sess_1", "error": error}, {"id": "run_2", **others}])
    resolved = resolve_outcomes(runs, flatten_sessions([{"id": "sess_1", "status": "idle"}]))
    assert resolved["status"].tolist() == ["failed", "completed"]
    assert resolved["status_from"].tolist() == ["run", "session"]


def test_last_row_of_a_session_is_used() -> None:
    known = [session("running"), session("terminated"), session(id="sess_2")]
    assert resolve_one(run(), known)["status"] == "failed"
    listings = [make_events(EXHAUSTED), make_events(("idle", 1))]
    ends = pd.concat([ends_from_events(pandas_frame(events, EVENT_COLUMNS)) for events in listings])
    frame = apply_ends(runs_frame(run()), None, ends)
    assert frame["status"].tolist() == ["completed"]


def test_gone_session_gives_no_outcome_and_does_not_count_as_running() -> None:
    ends = ends_from_events(events_frame(RUNNING, EXHAUSTED)).assign(end="gone")
    runs = runs_frame(run())
    assert plain_rows(apply_ends(runs, None, ends)) == plain_rows(apply_ends(runs))
    sessions = sessions_frame(session())
    assert plain_rows(apply_ends(runs, sessions, ends)) == plain_rows(apply_ends(runs, sessions))
    ran = sessions_frame(session("running"))
    assert apply_ends(runs, ran)["status"].tolist() == ["running"]
    assert apply_ends(runs, ran, ends)[["status", "status_from"]].isna().all(axis=None)


def test_events_are_ordered_by_position() -> None:
    """Sessions may be interleaved; without positions the order of rows is used, never `processed_at`."""
    events = make_events(RUNNING, ("idle", 9, "end_turn"), ("idle", 3, "cancelled"))
    other = [{**event, "session_id": "sess_2"} for event in make_events(RUNNING, EXHAUSTED)]
    frame = pandas_frame([events[2], other[1], events[1], other[0], events[0]], EVENT_COLUMNS)
    ends = ends_from_events(frame).set_index("session_id")
    assert ends["status"].to_dict() == {"sess_1": "completed", "sess_2": "failed"}
    assert ends.loc["sess_1", "completed_at"] == at(9)
    ends = ends_from_events(frame.drop(columns="position")).sort_values("session_id")
    assert plain_rows(ends, ["session_id", "status", "completed_at"]) == [
        {"session_id": "sess_1", "status": "cancelled", "completed_at": at(3)},
        {"session_id": "sess_2", "status": None, "completed_at": None},
    ]


@pytest.mark.parametrize("dtype", ["float64", "Int64"])
def test_events_without_a_position_are_refused(dtype: str) -> None:
    events = events_frame(RUNNING, ("idle", 3, "end_turn"), ("idle", 9, "cancelled"))
    assert ends_from_events(events.astype({"position": dtype}))["status"].tolist() == ["completed"]
    events["position"] = pd.Series([0, 1, None], dtype=dtype)
    with pytest.raises(FrameTypeError, match=r"events without a position.* leave out the column 'position'"):
        resolve_outcomes(runs_frame(run()), events=events)


def test_rows_index_attrs_columns_and_dtypes_are_kept() -> None:
    runs = runs_frame(run(), run(id="drun_2", session_id="sess_2"), run(id="drun_3", session_id=None))
    runs = runs.set_axis(pd.Index([7, 7, 3], name="row"))
    runs.attrs = {"source": "api"}
    before = runs.copy()
    result = resolve_outcomes(runs, sessions_frame(session()), events_frame(RUNNING))
    pd.testing.assert_frame_equal(runs, before)
    assert runs.attrs == result.attrs == {"source": "api"}
    pd.testing.assert_index_equal(result.index, before.index)
    assert result.columns.tolist() == list(RUN_COLUMNS)
    assert result.dtypes.to_dict() == before.dtypes.to_dict()
    assert result["status"].fillna("").tolist() == ["completed", "", "pending"]


def test_absent_columns_are_added_before_extra() -> None:
    runs = runs_frame(run()).drop(columns=["trigger_scheduled_at", "status_from"])
    result = resolve_outcomes(runs)
    assert result.columns[-3:].tolist() == ["trigger_scheduled_at", "status_from", "extra"]
    assert result[["trigger_scheduled_at", "status_from"]].dtypes.tolist() == [DTYPES[TIME], DTYPES[TEXT]]
    assert resolve_outcomes(runs.drop(columns="extra")).columns[-1] == "status_from"


def test_empty_frames_keep_their_dtypes() -> None:
    runs, sessions, events = runs_frame(), sessions_frame(), events_frame()
    pd.testing.assert_frame_equal(resolve_outcomes(runs, sessions, events), runs)
    one = runs_frame(run())
    assert plain_rows(resolve_outcomes(one, sessions, events)) == plain_rows(resolve_outcomes(one))
    ends = ends_from_events(events)
    assert ends.dtypes.tolist() == [DTYPES[kind] for kind in (TEXT, TEXT, TEXT, TIME, TIME, TEXT, TEXT)]


def test_columns_without_values_may_have_any_dtype() -> None:
    runs = runs_frame(run())
    untyped = runs.astype({"status": object, "duration_ms": object}).assign(
        completed_at=pd.Series([None], dtype="datetime64[ns]"), error_type=None
    )
    sessions = pd.DataFrame([{**dict.fromkeys(SESSION_COLUMNS), **session()}])
    events = pd.DataFrame([{**dict.fromkeys(EVENT_COLUMNS), **make_events(RUNNING)[0]}])
    pd.testing.assert_frame_equal(
        resolve_outcomes(untyped, sessions, events),
        resolve_outcomes(runs, sessions_frame(session()), events_frame(RUNNING)),
    )


def test_missing_columns_and_wrong_types_are_refused() -> None:
    runs, sessions, events = runs_frame(run()), sessions_frame(session()), events_frame()
    for name in set(RUN_COLUMNS) - {"id", "trigger_scheduled_at", "status_from", "extra"}:
        with pytest.raises(MissingColumnError, match=f"the runs frame has no column '{name}'"):
            resolve_outcomes(runs.drop(columns=name))
    for name in SESSION_COLUMNS:
        with pytest.raises(MissingColumnError, match=f"the sessions frame has no column '{name}';"):
            resolve_outcomes(runs, sessions.drop(columns=name))
    for name in set(EVENT_COLUMNS) - {"position"}:
        with pytest.raises(MissingColumnError, match=f"the events frame has no column '{name}'"):
            resolve_outcomes(runs, sessions, events.drop(columns=name))
    with pytest.raises(FrameTypeError, match="'created_at' of the runs frame holds values of dtype datetime64"):
        resolve_outcomes(runs.assign(created_at=runs["created_at"].dt.tz_localize(None)))


@pytest.mark.parametrize("dtype", ["str", "object", pd.ArrowDtype(pa.string())])
def test_times_as_text_without_an_offset_are_refused(dtype: Any) -> None:  # noqa: ANN401 a dtype
    runs, sessions, events = runs_frame(run()), sessions_frame(session()), events_frame()
    expected = resolve_outcomes(runs, sessions)
    for text in ("2026-06-15T00:00:00Z", "2026-06-15 08:00:00+08:00"):
        given = runs.assign(created_at=pd.Series([text], dtype=dtype))
        assert plain_rows(resolve_outcomes(given, sessions)) == plain_rows(expected)
    for text in ("2026-06-15 08:00:00", "2026-06-15", "2026-06-15T08:00"):
        local = pd.Series([text], dtype=dtype)
        with pytest.raises(FrameTypeError, match="'created_at' of the runs frame holds values of dtype") as caught:
            resolve_outcomes(runs.assign(created_at=local), sessions)
        assert caught.value.column == "created_at"
        with pytest.raises(
            FrameTypeError, match=r"'archived_at' of the sessions frame holds .*load_sessions returns"
        ):
            resolve_outcomes(runs, sessions.assign(archived_at=local))
        with pytest.raises(
            FrameTypeError, match=r"'processed_at' of the events frame holds .*load_events returns"
        ):
            resolve_outcomes(
                runs, sessions, events.reindex([0]).assign(session_id="s", processed_at=local, position=0)
            )


def test_csv_read_with_arrow_dtypes_is_resolved() -> None:
    runs, events = runs_frame(run()), make_events(RUNNING, ("idle", 4, "end_turn"))
    read = pd.read_csv(StringIO(runs.to_csv(index=False)), dtype_backend="pyarrow")
    assert read["status"].dtype == pd.ArrowDtype(pa.null())
    found = resolve_outcomes(read, events=pandas_frame(events, EVENT_COLUMNS))
    assert plain_rows(found) == plain_rows(resolve_outcomes(runs, events=pandas_frame(events, EVENT_COLUMNS)))
    assert {name: found[name].dtype for name in FILLED_COLUMNS} == {
        name: pd.ArrowDtype(RUN_COLUMNS[name]) for name in FILLED_COLUMNS
    }


@pytest.mark.parametrize("value", [pd.Timestamp("2026-06-15"), datetime(2026, 6, 15), 1_781_481_600_000])  # noqa: DTZ001 must be refused
def test_naive_datetimes_and_numbers_are_refused_as_times(value: Any) -> None:  # noqa: ANN401 not a time
    runs = runs_frame(run())
    for dtype in ("object", None):
        with pytest.raises(FrameTypeError, match="'created_at' of the runs frame holds values of dtype"):
            resolve_outcomes(runs.assign(created_at=pd.Series([value], dtype=dtype)))


MINUTES = [None, *map(at, range(0, 61, 4))]
TEXTS = [None, "a", "b"]
TYPES = [f"session.status_{name}" for name in ("running", "idle", "rescheduled", "terminated", "odd")]
NEW_RUN_VALUES: dict[str, list[Any]] = {
    "trigger_scheduled_at": MINUTES,
    "created_at": MINUTES,
    "error_type": [None, None, None, "a"],
}
RUN_VALUES: dict[str, list[Any]] = {
    "status": [None, None, "completed", "failed", "pending", "odd"],
    **dict.fromkeys(["trigger_scheduled_at", "created_at", "triggered_at", "started_at", "completed_at"], MINUTES),
    "duration_ms": [None, 0, 1, 10**6],
    "error_type": TEXTS,
    "error_message": TEXTS,
}
SESSION_VALUES: dict[str, list[Any]] = {
    "status": [None, "idle", "running", "canceling", "processing", "terminated", "odd"],
    "archived_at": [*[None] * 16, *MINUTES],
    "created_at": MINUTES,
    "stats_duration_seconds": [None, -1.0, 0.0, 0.0004, 1.001, 12.5, 86400.123456],
}
EVENT_VALUES: dict[str, list[Any]] = {
    "type": [*TYPES, *TYPES[:2], "session.error", "session.error", "user.message", None],
    "processed_at": MINUTES,
    "stop_reason": [
        None, "requires_action", "requires_action", "end_turn", "cancelled", "retries_exhausted", "odd",
    ],
    "error_type": TEXTS,
    "error_message": TEXTS,
    "retry_status": [None, "retrying", "exhausted", "terminal"],
}  # fmt: skip


def random_row(draw: random.Random, choices: dict[str, list[Any]], **given: Any) -> Row:  # noqa: ANN401 cells
    return {**given, **{name: draw.choice(values) for name, values in choices.items()}}


def random_rows(
    draw: random.Random, a_run: dict[str, list[Any]], count: int = 200
) -> tuple[list[Row], list[Row], list[Row]]:
    """Draw runs, sessions and events; some sessions are listed twice or never, and have no events or many."""
    ids = [f"sess_{number}" for number in range(count)]
    runs = [random_row(draw, a_run, session_id=draw.choice([None, *draw.choices(ids, k=9)])) for _ in range(count)]
    sessions = [random_row(draw, SESSION_VALUES, id=draw.choice(ids)) for _ in range(count)]
    owners = [id_ for id_ in ids for _ in range(draw.randrange(13) * draw.randrange(2))]
    draw.shuffle(owners)
    return runs, sessions, [random_row(draw, EVENT_VALUES, session_id=id_) for id_ in owners]


def with_all_columns(rows: list[Row] | None, columns: dict[str, Any]) -> list[Row] | None:
    return None if rows is None else [{**dict.fromkeys(columns), **row} for row in rows]


def frame_or_none(rows: list[Row] | None, columns: dict[str, Any]) -> pd.DataFrame | None:
    return None if rows is None else pandas_frame(rows, columns)


@pytest.mark.parametrize("has_sessions", [True, False])
@pytest.mark.parametrize("has_events", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_random_rows_equal_the_slow_version(seed: int, has_events: bool, has_sessions: bool) -> None:  # noqa: FBT001
    draw = random.Random(seed)  # noqa: S311 not for secrets
    runs, some_sessions, some_events = random_rows(draw, RUN_VALUES)
    sessions, events = some_sessions if has_sessions else None, some_events if has_events else None
    expected = resolve_slowly(
        with_all_columns(runs, RUN_COLUMNS) or [],
        with_all_columns(sessions, SESSION_COLUMNS),
        with_all_columns(events, EVENT_COLUMNS),
    )
    given_runs, known = runs_frame(*runs), frame_or_none(sessions, SESSION_COLUMNS)
    assert plain_rows(resolve_outcomes(given_runs, known, frame_or_none(events, EVENT_COLUMNS))) == expected
    if events is not None:
        shuffled = [{**event, "position": position} for position, event in enumerate(events)]
        draw.shuffle(shuffled)
        assert plain_rows(resolve_outcomes(given_runs, known, pandas_frame(shuffled, EVENT_COLUMNS))) == expected


@pytest.mark.parametrize("seed", range(5))
def test_resolving_again_replaces_earlier_outcomes(seed: int) -> None:
    """Runs that were resolved with older sessions and fewer events are resolved from their records again."""
    draw = random.Random(seed)  # noqa: S311 not for secrets
    runs, sessions, events = random_rows(draw, NEW_RUN_VALUES)
    _, old_sessions, _ = random_rows(draw, NEW_RUN_VALUES)
    fresh, known = (runs_frame(*runs), (sessions_frame(*sessions), pandas_frame(events, EVENT_COLUMNS)))
    expected = resolve_outcomes(fresh, *known)
    assert expected["status_from"].nunique() == 3
    pd.testing.assert_frame_equal(resolve_outcomes(expected, *known), expected)
    read = events[: draw.randrange(len(events))]
    before = resolve_outcomes(
        fresh, pandas_frame(old_sessions[:150], SESSION_COLUMNS), pandas_frame(read, EVENT_COLUMNS)
    )
    pd.testing.assert_frame_equal(resolve_outcomes(before, *known), expected)


EVENTS_OF_A_RUN: list[Any] = [
    RUNNING,
    ("error", 3, ("a", "retrying")),
    ("rescheduled", 4),
    ("error", 5, ("b", "exhausted")),
    ("idle", 6),
]


@cache
def random_tables() -> dict[str, pa.Table]:
    """Draw runs (some resolved before), sessions and ends; each session occurs once."""
    draw, count = random.Random(7), 400  # noqa: S311 not for secrets
    ids = [f"sess_{number}" for number in range(count)]

    def choice_or_none(*values: Any) -> Any:  # noqa: ANN401 cells
        return draw.choice([None, *values])

    def random_time() -> Any:  # noqa: ANN401 a cell
        return choice_or_none(pd.Timestamp(draw.randrange(10**15, 10**15 + 10**14), unit="us", tz="UTC"))

    def row(columns: dict[str, Any], **given: Any) -> Row:  # noqa: ANN401 cells
        return {**{name: random_time() if kind == TIME else None for name, kind in columns.items()}, **given}

    runs = [
        row(
            RUN_COLUMNS,
            id=f"drun_{number}",
            session_id=choice_or_none(*draw.choices(ids, k=9)),
            status=choice_or_none("completed", "failed", "pending") if draw.random() < 0.5 else None,
            status_from=choice_or_none("service", "run", "session", "events"),
            duration_ms=choice_or_none(5),
            error_type=choice_or_none("a") if draw.random() < 0.2 else None,
            error_message=choice_or_none("b") if draw.random() < 0.2 else None,
        )
        for number in range(count)
    ]
    sessions = [
        row(
            SESSION_COLUMNS,
            id=id_,
            status=choice_or_none("idle", "idle", "running", "canceling", "terminated", "terminated", "odd"),
            stats_duration_seconds=choice_or_none(0.0, 0.0004, 1.001, 1e300, 12.5, draw.random() * 1e5),
        )
        for id_ in draw.sample(ids, count * 3 // 4)
    ]
    ends = [
        row(
            END_COLUMNS,
            session_id=id_,
            end=choice_or_none("final", "final", "error", "waiting", "gone"),
            status=choice_or_none("completed", "failed", "cancelled", "waiting"),
            error_type=choice_or_none("c"),
            error_message=choice_or_none("d"),
        )
        for id_ in draw.sample(ids, count // 2)
    ]
    return {
        "runs": arrow_table(runs, RUN_COLUMNS),
        "sessions": arrow_table(sessions, SESSION_COLUMNS),
        "ends": arrow_table(ends, END_COLUMNS),
    }


class Engine:
    """An engine: it opens tables in one session, and collects results as Arrow tables."""

    def __init__(self, name: str) -> None:
        self.name = name
        if name == "duckdb":
            self.connection = duckdb.connect()
            self.connection.execute(f"SET TimeZone = '{ZONE_OF_THE_SESSION}'")

    def open(self, table: pa.Table) -> Any:  # noqa: ANN401 a frame of any engine
        match self.name:
            case "duckdb":
                return self.connection.from_arrow(table)
            case "polars lazy":
                return pl.LazyFrame(table)
            case "polars":
                return pl.DataFrame(table)
            case "dask":
                frame = table.to_pandas(types_mapper=DTYPES.get)
            case _:
                frame = table.to_pandas(types_mapper=pd.ArrowDtype)
        return dd.from_pandas(frame, npartitions=3)  # type: ignore[no-untyped-call] # Dask has no types

    def collect(self, frame: Any) -> pd.DataFrame:  # noqa: ANN401 a frame of any engine
        if self.name.startswith("dask"):
            table = pa.Table.from_pandas(computed(frame), preserve_index=False)
        elif self.name == "duckdb":
            table = frame.to_arrow_table()
        else:
            table = frame.lazy().collect().to_arrow()
        return by_id(table)


def by_id(table: pa.Table) -> pd.DataFrame:
    frame = (
        table.select(list(RUN_COLUMNS))
        .cast(pa.schema(list(RUN_COLUMNS.items())))
        .to_pandas(types_mapper=DTYPES.get)
    )
    return frame.sort_values("id", ignore_index=True)


ENGINES = ["duckdb", "polars", "polars lazy", "dask", "dask of Arrow"]
KNOWN = [("sessions", "ends"), ("sessions",), ("ends",), ()]


def tables_with_rows(known: tuple[str, ...]) -> list[pa.Table]:
    """Return the tables of runs, sessions and ends; the last two are empty unless they are `known`."""
    return [table if name in {"runs", *known} else table.slice(0, 0) for name, table in random_tables().items()]


@cache
def outcomes_of_pandas(known: tuple[str, ...]) -> pd.DataFrame:
    frames = {name: table.to_pandas(types_mapper=DTYPES.get) for name, table in random_tables().items()}
    resolved_runs = apply_ends(frames["runs"], **{name: frames[name] for name in known})
    return resolved_runs.sort_values("id", ignore_index=True)


@pytest.mark.parametrize("known", KNOWN, ids=" and ".join)
@pytest.mark.parametrize("name", ENGINES)
def test_engines_give_the_same_outcomes_as_pandas(name: str, known: tuple[str, ...]) -> None:
    engine = Engine(name)
    lazy = apply_ends_lazy(*(engine.open(table) for table in tables_with_rows(known)))
    assert isinstance(lazy, pl.LazyFrame) == (name == "polars lazy")
    assert list(lazy.collect_schema() if name == "polars lazy" else lazy.columns) == list(RUN_COLUMNS)
    pd.testing.assert_frame_equal(engine.collect(lazy), outcomes_of_pandas(known))


@pytest.mark.parametrize("name", ENGINES)
def test_engines_accept_empty_tables(name: str) -> None:
    engine, (runs, *others) = Engine(name), tables_with_rows(())
    runs = runs.slice(0, 0)
    expected = apply_ends(runs.to_pandas(types_mapper=DTYPES.get))
    got = engine.collect(apply_ends_lazy(engine.open(runs), *map(engine.open, others)))
    pd.testing.assert_frame_equal(got, by_id(pa.Table.from_pandas(expected)))


@pytest.mark.parametrize("name", ENGINES)
def test_ends_are_used_while_their_session_is_unchanged(name: str) -> None:
    engine = Engine(name)
    columns = {"id": TEXT, "session_updated_at": TIME, **END_COLUMNS}
    rows: list[Row] = [
        {"id": f"{end} {minute} {status}", "end": end, "session_updated_at": at(minute)}
        for end in ("final", "gone", "waiting", None)
        for minute in (1, 2, None)
        for status in ("idle", "running")
    ]
    sessions = [{"id": row["id"], "status": row["id"].split()[2], "updated_at": at(2)} for row in rows]
    ends = current_ends_lazy(
        engine.open(arrow_table(sessions, {"id": TEXT, "status": TEXT, "updated_at": TIME})),
        engine.open(arrow_table(rows, columns).drop_columns(["session_id"])),
    )
    runs = [{"id": row["id"], "session_id": row["id"]} for row in rows]
    opened, none = engine.open(arrow_table(runs, RUN_COLUMNS)), engine.open(arrow_table([], SESSION_COLUMNS))
    counted = engine.collect(apply_ends_lazy(opened, none, ends))
    used = set(counted["id"][counted["status_from"] == "events"])
    final = {f"final {minute} {status}" for minute in (1, 2, None) for status in ("idle", "running")}
    assert used == {*final, "waiting 2 idle", "waiting 2 running", "waiting None idle"}


@pytest.mark.spark
@pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")
@pytest.mark.parametrize("known", KNOWN, ids=" and ".join)
def test_spark_gives_the_same_outcomes_as_pandas(spark: Any, known: tuple[str, ...]) -> None:  # noqa: ANN401 a SparkSession
    lazy = apply_ends_lazy(*map(spark.createDataFrame, tables_with_rows(known)))
    pd.testing.assert_frame_equal(by_id(lazy.toArrow()), outcomes_of_pandas(known))


def test_100000_runs_are_resolved_in_less_than_20_cpu_seconds() -> None:
    """100,000 runs and 500,000 events take about 0.5 s of CPU time; a Python loop would take minutes."""
    count, each = 100_000, len(EVENTS_OF_A_RUN)
    ids = pd.Series([f"sess_{number}" for number in range(count)], dtype=DTYPES[TEXT])
    runs = runs_frame(run()).loc[np.zeros(count, dtype=int)].assign(session_id=ids.array)
    sessions = sessions_frame(session()).loc[np.zeros(count, dtype=int)].assign(id=ids.array)
    events = events_frame(*EVENTS_OF_A_RUN).loc[np.tile(np.arange(each), count)]
    events = events.assign(session_id=ids.repeat(each).array).reset_index(drop=True)
    start = time.process_time()
    result = resolve_outcomes(runs, sessions, events)
    assert time.process_time() - start < 20
    assert (result["status"] == "failed").all()
    assert (result["error_type"] == "b").all()
