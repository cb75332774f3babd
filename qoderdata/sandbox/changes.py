"""Change an account while somebody reads it: create, archive, run, finish, forget, delete, rewrite.

Each function takes the ledger, changes records and counters together, and returns the places of what it changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qoderdata.sandbox.account import Occurrences, Pair
from qoderdata.sandbox.json_records import UPCOMING
from qoderdata.sandbox.run_history import ERRORS
from qoderdata.sandbox.sample_values import SECOND, nanoseconds, stamp, uuid7
from qoderdata.sandbox.stories import FINAL, IDLE, TERMINATED, End, Later, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qoderdata.sandbox.json_records import Record
    from qoderdata.sandbox.ledger import Ledger, Table

_DAILY = Pair("0 9 * * *", "Asia/Shanghai", 24)
_UNFINISHED = ("pending", "running")
#: What runs that are created can be: the status of their records, and the end of their session.
_CREATED = {
    "pending": ("pending", End.FRESH),
    "running": ("running", End.RUNNING),
    "completed": ("completed", End.DONE),
    "failed": ("failed", End.EXHAUSTED),
    "skipped": ("skipped", None),
    "cancelled": ("failed", End.CANCELLED),
    "waiting": ("running", End.WAITING),
}
_API_ERROR = ERRORS.index("api_error")


def create_deployments(ledger: Ledger, count: int) -> list[int]:
    """Create active, daily ones that never ran."""
    upcoming = [stamp(at) for at in Occurrences(_DAILY, ledger.now, 1).upcoming(ledger.now, UPCOMING)]
    records = []
    for _ in range(count):
        now, identity = ledger.tick("dep")
        records.append(
            {
                "agent": {"id": next(iter(ledger.agents)), "type": "agent", "version": 1},
                "archived_at": None,
                "created_at": stamp(now),
                "description": "Created while somebody was reading.",
                "environment_id": ledger.environment,
                "id": identity,
                "initial_events": [{"content": "Say what changed.", "type": "user.message"}],
                "metadata": {
                    "cas_config": {
                        "config": {"max_concurrent": 1, "max_retries": 0, "timeout_ms": 300_000},
                        "session_strategy": "new_session",
                        "stats": {
                            "consecutive_failures": 0,
                            "next_trigger_at": upcoming[0],
                            "total_failures": 0,
                            "total_runs": 0,
                        },
                    }
                },
                "name": f"created at {stamp(now)}",
                "paused_reason": None,
                "resources": [],
                "schedule": {
                    "expression": _DAILY.expression,
                    "timezone": _DAILY.timezone,
                    "type": "cron",
                    "upcoming_runs_at": upcoming,
                },
                "status": "active",
                "type": "deployment",
                "updated_at": stamp(now),
                "vault_ids": [],
            }
        )
    return _append(ledger.deployments, records, [ledger.deployment_columns(record) for record in records])


def archive(ledger: Ledger, identity: str) -> int:
    """Archive one as the service does: the name gets a suffix, and the next trigger stays, stale."""
    place = _find(ledger.deployments, identity)
    record = ledger.deployments.record(place)
    if record["archived_at"] is not None:
        raise ValueError(f"{identity} is archived already")
    now, _ = ledger.tick("dep")
    record["archived_at"] = record["updated_at"] = stamp(now)
    record["name"] += f"_archived_{now // SECOND}"
    if record["schedule"] is not None:
        record["schedule"]["upcoming_runs_at"] = []
    ledger.deployments.change(place, record, ledger.deployment_columns(record))
    return place


def create_runs(ledger: Ledger, count: int, *, status: str, deployment_id: str | None) -> list[int]:
    """Start runs by hand, which are over at once or go on."""
    if status not in _CREATED:
        raise ValueError(f"status={status!r} is none of {', '.join(_CREATED)}")
    told, end = _CREATED[status]
    if deployment_id is None:
        places = np.flatnonzero(~ledger.deployments.columns["archived"]).tolist()
    else:
        places = [_find(ledger.deployments, deployment_id)]
    if count and not places:
        raise ValueError("no deployment is there to run")
    records, columns = [], []
    for number in range(count):
        place = places[number % len(places)]
        now, identity = ledger.tick("drun")
        record: Record = {
            "agent": ledger.deployments.record(place)["agent"],
            "cas_run_extras": {"attempt": 1},
            "created_at": stamp(now),
            "deployment_id": ledger.deployments.ids[place],
            "error": None,
            "id": identity,
            "status": told,
            "trigger_context": {"type": "manual"},
            "triggered_at": stamp(now),
            "type": "deployment_run",
        }
        session = -1 if end is None else _create_session(ledger, place, end, now, run=len(ledger.runs) + number)
        if told not in ("pending", "skipped"):
            _start(ledger, record, session, now)
        if told in ("completed", "failed"):
            _end(ledger, record, session, status=told, started=now, now=now)
        records.append(record)
        refusal = Refusal.REJECTED if end is None else Refusal.NONE
        columns.append(ledger.run_columns(record) | {"refusal": refusal, "scheduled": 0, "session": session})
    created = _append(ledger.runs, records, columns)
    by_deployment: dict[str, list[Record]] = {}
    for record in records:
        by_deployment.setdefault(record["deployment_id"], []).append(record)
    for identity, its in by_deployment.items():
        _count(ledger, identity, new=its, failures=len(its) if told == "failed" else 0)
    return created


def finish_run(ledger: Ledger, identity: str, *, status: str) -> int:
    """Let an unfinished run end."""
    ends = {"completed": End.DONE, "failed": End.EXHAUSTED, "cancelled": End.CANCELLED}
    if status not in ends:
        raise ValueError(f"status={status!r} is not how a run ends; completed, failed or cancelled is")
    place = _find(ledger.runs, identity)
    record = ledger.runs.record(place)
    if record["status"] not in _UNFINISHED:
        raise ValueError(f"{identity} is {record['status']} already, and such runs never change")
    now, _ = ledger.tick("drun")
    session = int(ledger.runs.columns["session"][place])
    extras = record.setdefault("cas_run_extras", {"attempt": 1})
    change: dict[str, Any] = {"end": ends[status], "ended": now, "updated": now, "status": IDLE}
    if ledger.sessions.columns["end"][session] == End.FRESH:
        change["started"] = now
    if status == "failed":
        change["error"] = _API_ERROR
    _change_session(ledger, session, change)
    if "started_at" not in extras:
        _start(ledger, record, session, int(ledger.sessions.columns["started"][session]))
    told = "completed" if status == "completed" else "failed"
    _end(ledger, record, session, status=told, started=nanoseconds(extras["started_at"]), now=now)
    ledger.runs.change(place, record, ledger.run_columns(record))
    _count(ledger, record["deployment_id"], new=[], failures=int(told == "failed"))
    return place


def archive_session(ledger: Ledger, identity: str) -> int:
    """Archive a session; where its events proved an end, archiving adds one more."""
    place = _find(ledger.sessions, identity)
    columns = ledger.sessions.columns
    if columns["archived"][place]:
        raise ValueError(f"{identity} is archived already")
    if columns["end"][place] not in (*FINAL, End.SILENT, End.FATAL):
        raise ValueError(f"{identity} has not ended")
    now, _ = ledger.tick("sess")
    _change_session(ledger, place, {"archived": now, "updated": now, "status": TERMINATED})
    return place


def continue_session(ledger: Ledger, identity: str) -> int:
    """Let a person continue a session that has ended; the second turn ends at once."""
    place = _find(ledger.sessions, identity)
    columns = ledger.sessions.columns
    if columns["end"][place] not in FINAL or columns["archived"][place] or columns["later"][place]:
        raise ValueError(f"{identity} has not ended, is archived, or was continued already")
    now, _ = ledger.tick("sess")
    turn = {"later": Later.DONE, "continued": now, "continued_end": now}
    _change_session(ledger, place, turn | {"updated": now, "status": IDLE})
    return place


def delete_session(ledger: Ledger, identity: str) -> None:
    """Delete a session: it is neither listed nor found any more."""
    place = _find(ledger.sessions, identity)
    ledger.tick("sess")
    ledger.sessions.forget(np.arange(len(ledger.sessions)) == place)


def forget_runs(ledger: Ledger, before: int) -> int:
    """Let retention take the runs created before a time; the lifetime counters stay."""
    old = (ledger.runs.columns["created"] < before) & ledger.runs.columns["kept"]
    ledger.runs.forget(old)
    return int(old.sum())


def rewrite(ledger: Ledger, record: Mapping[str, Any]) -> None:
    """Serve a record as it is given, whatever it holds, in the place of the one that has its id."""
    identity = record["id"]
    table = next((table for table in ledger.tables if table.place(identity) is not None), ledger.deployments)
    columns: dict[str, Any] = {}
    if table is ledger.runs:
        columns = ledger.run_columns(record)
    elif table is ledger.deployments:
        columns = ledger.deployment_columns(record)
    table.replace(_find(table, identity), record, columns)


def _find(table: Table, identity: str) -> int:
    """Find a record, or raise `KeyError`."""
    place = table.place(identity)
    if place is None:
        raise KeyError(f"nothing has the id {identity!r}")
    return place


def _append(table: Table, records: list[Record], columns: list[dict[str, Any]]) -> list[int]:
    """Add records, and return their places."""
    first = len(table)
    table.append([record["id"] for record in records], records, columns)
    return list(range(first, len(table)))


def _create_session(ledger: Ledger, deployment: int, end: End, now: int, *, run: int) -> int:
    """Add the session of a run that starts now, and return its place."""
    place, identity = len(ledger.sessions), f"sess_{uuid7(now, 2)}"
    over = end not in (End.FRESH, End.RUNNING, End.WAITING)
    columns = {
        "run": run, "deployment": deployment, "agent": int(ledger.deployments.columns["agent"][deployment]),
        "tail": 2, "before": 0, "later": 0,
        "created": now, "started": now, "ended": now if over else 0, "asked": now if end == End.WAITING else 0,
        "continued": 0, "continued_end": 0, "archived": 0, "updated": now, "end": int(end),
        "error": _API_ERROR if end == End.EXHAUSTED else -1,
        "status": 0 if end in (End.FRESH, End.RUNNING) else IDLE, "leader": place,
    }  # fmt: skip
    ledger.sessions.append([identity], [], [columns])
    return place


def _change_session(ledger: Ledger, place: int, columns: Mapping[str, Any]) -> None:
    """Change a session, and what stands for it up to edition C."""
    ledger.sessions.change(place, None, columns)
    leader = int(ledger.sessions.columns["leader"][place])
    if leader != place:
        ledger.sessions.change(leader, None, {})


def _start(ledger: Ledger, record: Record, session: int, now: int) -> None:
    """Return a run its session."""
    record["cas_run_extras"] |= {"started_at": stamp(now), "turn_id": f"turn_{uuid7(now, 1)}"}
    record["session_id"] = ledger.sessions.ids[ledger.sessions.columns["leader"][session]]


def _end(ledger: Ledger, record: Record, session: int, *, status: str, started: int, now: int) -> None:
    """Write how a run ended."""
    record["completed_at"] = stamp(now)
    record["duration_ms"] = (now - started) // 1_000_000
    record["status"] = status
    if status == "failed":
        record["error"] = ledger.session_error(session)


def _count(ledger: Ledger, identity: str, *, new: list[Record], failures: int) -> None:
    """Bring a deployment's counters up to date."""
    place = _find(ledger.deployments, identity)
    record = ledger.deployments.record(place)
    stats = record["metadata"].get("cas_config", {}).get("stats")
    if stats is not None:
        stats["total_runs"] += len(new)
        stats["total_failures"] += failures
        stats["consecutive_failures"] = ledger.streak(place)
    if new:
        last = new[-1]["triggered_at"]
        if stats is not None:
            stats["last_triggered_at"] = last
        if record["schedule"] is not None:
            record["schedule"]["last_run_at"] = last
    ledger.deployments.change(place, record, ledger.deployment_columns(record))
