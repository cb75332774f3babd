"""What became of a run, the slow way: one run at a time, on plain dicts, without anything from the package."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

Row = dict[str, Any]

_FINAL_FAILURES = {"retries_exhausted", "budget_reached"}
_MILLISECOND = timedelta(milliseconds=1)


def resolve_slowly(runs: list[Row], sessions: list[Row] | None, events: list[Row] | None) -> list[Row]:
    """Return the filled fields of each run; events of a session are in the order in which they are given."""
    known = {session["id"]: session for session in sessions or []}
    lists: dict[str, list[Row]] = {}
    for event in events or []:
        lists.setdefault(event["session_id"], []).append(event)
    return [_resolve(run, known.get(run["session_id"]), lists.get(run["session_id"], [])) for run in runs]


def _resolve(run: Row, session: Row | None, events: list[Row]) -> Row:
    names = ["status", "triggered_at", "started_at", "completed_at", "duration_ms", "error_type", "error_message"]
    found = {name: run[name] for name in names}
    if run["status"] is not None:
        return {**found, "status_from": "service"}
    told: Row = {"status": None, "status_from": None}
    if run["error_type"] is not None or run["error_message"] is not None:
        told = {"status": "failed", "status_from": "run"}
        session, events = None, []
    elif run["session_id"] is None:
        told = {"status": "pending", "status_from": "run"}
    else:
        by_events = _from_events(events)
        if "status_from" in by_events:
            told = by_events
        elif session is not None:
            told = _from_session(session)
    told["triggered_at"] = run["trigger_scheduled_at"] or run["created_at"]
    told["started_at"] = _started_by_events(events) or (session and session["created_at"])
    told["duration_ms"] = _duration(told, _started_by_events(events), session)
    for name in names:
        if found[name] is None:
            found[name] = told.get(name)
    return {**found, "status_from": told["status_from"]}


def _until_the_end(events: list[Row]) -> tuple[list[Row], Row | None]:
    """Return the events before the first of the three ends, and this end."""
    for position, event in enumerate(events):
        idle = event["type"] == "session.status_idle"
        if event["type"] == "session.status_terminated" or (idle and event["stop_reason"] != "requires_action"):
            return events[:position], event
    return events, None


def _from_events(events: list[Row]) -> Row:
    before, end = _until_the_end(events)
    fatal = _fatal(before)
    mistakes = [event for event in before if event["type"] == "session.error"]
    if end is None and fatal:
        end = fatal[0]
        return {**_failed(end, [end], []), "status_from": "events"}
    if end is not None:
        reason = end["stop_reason"] if end["type"] == "session.status_idle" else None
        told: Row = {"status": None}
        if reason == "end_turn":
            told = {"status": "completed", "completed_at": end["processed_at"]}
        elif reason == "cancelled":
            told = {"status": "cancelled", "completed_at": end["processed_at"]}
        elif reason in _FINAL_FAILURES or end["type"] == "session.status_terminated" or (reason is None and fatal):
            told = _failed(end, fatal, mistakes)
        elif reason is None:
            told = {"status": "completed", "completed_at": end["processed_at"]}
        return {**told, "status_from": "events"}
    statuses = [event for event in events if (event["type"] or "").startswith("session.status_")]
    if statuses and (statuses[-1]["type"], statuses[-1]["stop_reason"]) == (
        "session.status_idle",
        "requires_action",
    ):
        return {"status": "waiting", "status_from": "events"}
    return {}


def _fatal(events: list[Row]) -> list[Row]:
    """Return the fatal errors that nothing voids."""
    fatal: list[Row] = []
    for event in events:
        if event["type"] in {"session.status_running", "session.status_rescheduled"}:
            fatal = []
        if event["type"] == "session.error" and event["retry_status"] in {"exhausted", "terminal"}:
            fatal.append(event)
    return fatal


def _failed(end: Row, fatal: list[Row], mistakes: list[Row]) -> Row:
    reason = end["stop_reason"] if end["type"] == "session.status_idle" else None
    cause = (fatal or mistakes or [{"error_type": reason or "session_terminated", "error_message": None}])[-1]
    return {
        "status": "failed",
        "completed_at": end["processed_at"],
        "error_type": cause["error_type"],
        "error_message": cause["error_message"],
    }


def _from_session(session: Row) -> Row:
    told: Row = {"status": None, "status_from": "session"}
    if session["status"] in {"running", "rescheduling", "canceling", "processing"}:
        told["status"] = "running"
    elif session["status"] == "terminated" and session["archived_at"] is None:
        told |= {"status": "failed", "error_type": "session_terminated"}
    elif session["status"] == "idle" or session["archived_at"] is not None:
        told["status"] = "completed"
    return told


def _started_by_events(events: list[Row]) -> datetime | None:
    for event in _until_the_end(events)[0]:
        if event["type"] == "session.status_running":
            started: datetime | None = event["processed_at"]
            return started
    return None


def _duration(told: Row, started: datetime | None, session: Row | None) -> int | None:
    completed = told.get("completed_at")
    if completed and started and completed >= started:
        return int((completed - started) / _MILLISECOND)
    if session is None or session["status"] in {"running", "rescheduling", "canceling", "processing"}:
        return None
    seconds = session["stats_duration_seconds"]
    return int(seconds * 1000 + 0.5) if seconds is not None and seconds > 0 else None
