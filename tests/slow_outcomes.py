"""A slow reference for run outcomes: one run at a time, with plain dicts, without code of the package."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

Row = dict[str, Any]

_FINAL_FAILURES = {"retries_exhausted", "budget_reached"}
_MILLISECOND = timedelta(milliseconds=1)


def resolve_slowly(runs: list[Row], sessions: list[Row] | None, events: list[Row] | None) -> list[Row]:
    """Return the outcome fields of each run; the events of a session are used in the given order."""
    known = {session["id"]: session for session in sessions or []}
    lists: dict[str, list[Row]] = {}
    for event in events or []:
        lists.setdefault(event["session_id"], []).append(event)
    return [_resolve(run, known.get(run["session_id"]), lists.get(run["session_id"], [])) for run in runs]


def _resolve(run: Row, session: Row | None, events: list[Row]) -> Row:
    names = ["status", "triggered_at", "started_at", "completed_at", "duration_ms", "error_type", "error_message"]
    fields = {name: run[name] for name in names}
    if run["status"] is not None:
        return {**fields, "status_from": "service"}
    outcome: Row = {"status": None, "status_from": None}
    if run["error_type"] is not None or run["error_message"] is not None:
        outcome = {"status": "failed", "status_from": "run"}
        session, events = None, []
    elif run["session_id"] is None:
        outcome = {"status": "pending", "status_from": "run"}
    else:
        event_outcome = _from_events(events)
        if "status_from" in event_outcome:
            outcome = event_outcome
        elif session is not None:
            outcome = _from_session(session)
    outcome["triggered_at"] = run["trigger_scheduled_at"] or run["created_at"]
    outcome["started_at"] = _started_by_events(events) or (session and session["created_at"])
    outcome["duration_ms"] = _duration(outcome, _started_by_events(events), session)
    for name in names:
        if fields[name] is None:
            fields[name] = outcome.get(name)
    return {**fields, "status_from": outcome["status_from"]}


def _split_at_end(events: list[Row]) -> tuple[list[Row], Row | None]:
    """Return the events before the first one that ends the session, and that event."""
    for position, event in enumerate(events):
        idle = event["type"] == "session.status_idle"
        if event["type"] == "session.status_terminated" or (idle and event["stop_reason"] != "requires_action"):
            return events[:position], event
    return events, None


def _from_events(events: list[Row]) -> Row:
    before, end = _split_at_end(events)
    fatal = _fatal(before)
    other_errors = [event for event in before if event["type"] == "session.error"]
    if end is None and fatal:
        end = fatal[0]
        return {**_failed(end, [end], []), "status_from": "events"}
    if end is not None:
        reason = end["stop_reason"] if end["type"] == "session.status_idle" else None
        outcome: Row = {"status": None}
        if reason == "end_turn":
            outcome = {"status": "completed", "completed_at": end["processed_at"]}
        elif reason == "cancelled":
            outcome = {"status": "cancelled", "completed_at": end["processed_at"]}
        elif reason in _FINAL_FAILURES or end["type"] == "session.status_terminated" or (reason is None and fatal):
            outcome = _failed(end, fatal, other_errors)
        elif reason is None:
            outcome = {"status": "completed", "completed_at": end["processed_at"]}
        return {**outcome, "status_from": "events"}
    statuses = [event for event in events if (event["type"] or "").startswith("session.status_")]
    if statuses and (statuses[-1]["type"], statuses[-1]["stop_reason"]) == (
        "session.status_idle",
        "requires_action",
    ):
        return {"status": "waiting", "status_from": "events"}
    return {}


def _fatal(events: list[Row]) -> list[Row]:
    """Return the fatal errors after the last start or rescheduling of the session."""
    fatal: list[Row] = []
    for event in events:
        if event["type"] in {"session.status_running", "session.status_rescheduled"}:
            fatal = []
        if event["type"] == "session.error" and event["retry_status"] in {"exhausted", "terminal"}:
            fatal.append(event)
    return fatal


def _failed(end: Row, fatal: list[Row], other_errors: list[Row]) -> Row:
    reason = end["stop_reason"] if end["type"] == "session.status_idle" else None
    cause = (fatal or other_errors or [{"error_type": reason or "session_terminated", "error_message": None}])[-1]
    return {
        "status": "failed",
        "completed_at": end["processed_at"],
        "error_type": cause["error_type"],
        "error_message": cause["error_message"],
    }


def _from_session(session: Row) -> Row:
    outcome: Row = {"status": None, "status_from": "session"}
    if session["status"] in {"running", "rescheduling", "canceling", "processing"}:
        outcome["status"] = "running"
    elif session["status"] == "terminated" and session["archived_at"] is None:
        outcome |= {"status": "failed", "error_type": "session_terminated"}
    elif session["status"] == "idle" or session["archived_at"] is not None:
        outcome["status"] = "completed"
    return outcome


def _started_by_events(events: list[Row]) -> datetime | None:
    for event in _split_at_end(events)[0]:
        if event["type"] == "session.status_running":
            started: datetime | None = event["processed_at"]
            return started
    return None


def _duration(outcome: Row, started: datetime | None, session: Row | None) -> int | None:
    completed = outcome.get("completed_at")
    if completed and started and completed >= started:
        return int((completed - started) / _MILLISECOND)
    if session is None or session["status"] in {"running", "rescheduling", "canceling", "processing"}:
        return None
    seconds = session["stats_duration_seconds"]
    return int(seconds * 1000 + 0.5) if seconds is not None and seconds > 0 else None
