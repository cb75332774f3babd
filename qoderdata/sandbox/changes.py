"""Change an account while somebody reads it: create, archive, run, finish, forget, delete, rewrite.

Each function changes records and counters of the database together, and returns the indices of what it changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qoderdata.sandbox.account import Occurrences, Pair
from qoderdata.sandbox.json_records import UPCOMING
from qoderdata.sandbox.run_history import ERRORS
from qoderdata.sandbox.sample_values import SECOND, nanoseconds, stamp, uuid7
from qoderdata.sandbox.scenarios import FINAL, IDLE, SESSION_RUNNING, TERMINATED, End, Later, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qoderdata.sandbox.database import Database
    from qoderdata.sandbox.json_records import Record

_DAILY = Pair("0 9 * * *", "Asia/Shanghai", 24)
#: What runs that are created or end can be: the status of their records, and the end of their session.
_KINDS = {
    "pending": ("pending", End.FRESH),
    "running": ("running", End.RUNNING),
    "completed": ("completed", End.DONE),
    "failed": ("failed", End.EXHAUSTED),
    "skipped": ("skipped", None),
    "cancelled": ("failed", End.CANCELLED),
    "waiting": ("running", End.WAITING),
}
_API_ERROR = ERRORS.index("api_error")


def create_deployments(database: Database, count: int) -> list[int]:
    """Create active, daily ones that never ran."""
    upcoming = [stamp(at) for at in Occurrences(_DAILY, database.now, 1).upcoming(database.now, UPCOMING)]
    stats = {"consecutive_failures": 0, "next_trigger_at": upcoming[0], "total_failures": 0, "total_runs": 0}
    config = {"max_concurrent": 1, "max_retries": 0, "timeout_ms": 300_000}
    created = []
    for _ in range(count):
        now, identity = database.tick("dep")
        record: Record = {
            "agent": {"id": database.fleet.agents[0], "type": "agent", "version": 1},
            "archived_at": None,
            "created_at": stamp(now),
            "description": "Created while somebody was reading.",
            "environment_id": database.fleet.environments[0],
            "id": identity,
            "initial_events": [{"content": "Say what changed.", "type": "user.message"}],
            "metadata": {"cas_config": {"config": config, "session_strategy": "new_session", "stats": stats}},
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
        created.append(database.deployments.add(identity, record))
    return created


def archive(database: Database, identity: str) -> int:
    """Archive one as the service does: the name gets a suffix, and the next trigger stays, stale."""
    index = database.deployments.find(identity)
    record = database.deployments.record(index)
    if record["archived_at"] is not None:
        raise ValueError(f"{identity} is archived already")
    now, _ = database.tick("dep")
    record["archived_at"] = record["updated_at"] = stamp(now)
    record["name"] += f"_archived_{now // SECOND}"
    if record["schedule"] is not None:
        record["schedule"]["upcoming_runs_at"] = []
    database.deployments.change(index, record)
    return index


def create_runs(database: Database, count: int, *, status: str, deployment_id: str | None) -> list[int]:
    """Create manual runs, which end at once or stay unfinished."""
    if status not in _KINDS:
        raise ValueError(f"status={status!r} is none of {', '.join(_KINDS)}")
    run_status, end = _KINDS[status]
    if deployment_id is None:
        indices = np.flatnonzero(~database.deployments.columns["archived"]).tolist()
    else:
        indices = [database.deployments.find(deployment_id)]
    if count and not indices:
        raise ValueError("no deployment is there to run")
    created = []
    for number in range(count):
        index = indices[number % len(indices)]
        now, identity = database.tick("drun")
        record: Record = {
            "agent": database.deployments.record(index)["agent"],
            "cas_run_extras": {"attempt": 1},
            "created_at": stamp(now),
            "deployment_id": database.deployments.ids[index],
            "error": None,
            "id": identity,
            "status": run_status,
            "trigger_context": {"type": "manual"},
            "triggered_at": stamp(now),
            "type": "deployment_run",
        }
        session = -1 if end is None else _create_session(database, index, end, now)
        if run_status not in ("pending", "skipped"):
            _start(database, record, session, now)
        if run_status in ("completed", "failed"):
            _end(database, record, session, status=run_status, now=now)
        refusal = Refusal.REJECTED if end is None else Refusal.NONE
        created.append(database.runs.add(identity, record, {"refusal": refusal, "session": session}))
        _count(database, record, is_new=True)
    return created


def finish_run(database: Database, identity: str, *, status: str) -> int:
    """Let an unfinished run end."""
    if status not in ("completed", "failed", "cancelled"):
        raise ValueError(f"status={status!r} is not how a run ends; completed, failed or cancelled is")
    run_status, end = _KINDS[status]
    index = database.runs.find(identity)
    record = database.runs.record(index)
    if record["status"] not in ("pending", "running"):
        raise ValueError(f"{identity} is {record['status']} already, and such runs never change")
    now, _ = database.tick("drun")
    session = int(database.runs.columns["session"][index])
    extras = record.setdefault("cas_run_extras", {"attempt": 1})
    change: dict[str, Any] = {"end": end, "ended": now, "updated": now, "status": IDLE}
    if database.sessions.columns["end"][session] == End.FRESH:
        change["started"] = now
    if status == "failed":
        change["error"] = _API_ERROR
    _change_session(database, session, change)
    if "started_at" not in extras:
        _start(database, record, session, int(database.sessions.columns["started"][session]))
    _end(database, record, session, status=run_status, now=now)
    database.runs.change(index, record)
    _count(database, record, is_new=False)
    return index


def archive_session(database: Database, identity: str) -> int:
    """Archive a session; where its events proved an end, archiving adds one more."""
    index = database.sessions.find(identity)
    columns = database.sessions.columns
    if columns["archived"][index]:
        raise ValueError(f"{identity} is archived already")
    if columns["end"][index] not in (*FINAL, End.SILENT, End.FATAL):
        raise ValueError(f"{identity} has not ended")
    now, _ = database.tick("sess")
    _change_session(database, index, {"archived": now, "updated": now, "status": TERMINATED})
    return index


def continue_session(database: Database, identity: str) -> int:
    """Let a person continue a session that has ended; the second turn ends at once."""
    index = database.sessions.find(identity)
    columns = database.sessions.columns
    if columns["end"][index] not in FINAL or columns["archived"][index] or columns["later"][index]:
        raise ValueError(f"{identity} has not ended, is archived, or was continued already")
    now, _ = database.tick("sess")
    turn = {"later": Later.DONE, "continued": now, "continued_end": now}
    _change_session(database, index, turn | {"updated": now, "status": IDLE})
    return index


def delete_session(database: Database, identity: str) -> None:
    """Delete a session: it is neither listed nor found any more."""
    index = database.sessions.find(identity)
    database.tick("sess")
    database.sessions.forget(np.arange(len(database.sessions)) == index)


def forget_runs(database: Database, before: int) -> int:
    """Let retention take the runs created before a time; the lifetime counters stay."""
    old = (database.runs.columns["created"] < before) & database.runs.columns["kept"]
    database.runs.forget(old)
    return int(old.sum())


def rewrite(database: Database, record: Mapping[str, Any]) -> None:
    """Serve a record as it is given, whatever it holds, instead of the one with its id."""
    tables = database.tables.values()
    table = next((table for table in tables if table.index(record["id"]) is not None), database.deployments)
    table.replace(record)


def _create_session(database: Database, deployment: int, end: End, now: int) -> int:
    """Add the session of the next run, which starts now, and return its index."""
    agent = int(database.deployments.columns["agent"][deployment])
    over = end not in (End.FRESH, End.RUNNING, End.WAITING)
    columns = {
        "run": len(database.runs),
        "deployment": deployment,
        "agent": agent,
        "version": agent % 7 + 1,
        "tail": 2,
        **dict.fromkeys(("created", "started", "updated"), now),
        "ended": now if over else 0,
        "asked": now if end == End.WAITING else 0,
        "end": end,
        "error": _API_ERROR if end == End.EXHAUSTED else -1,
        "status": SESSION_RUNNING if end in (End.FRESH, End.RUNNING) else IDLE,
        "leader": len(database.sessions),
    }
    return database.sessions.add(f"sess_{uuid7(now, 2)}", None, columns)


def _change_session(database: Database, index: int, columns: Mapping[str, Any]) -> None:
    """Change a session, and what stands for it up to edition C."""
    database.sessions.change(index, None, columns)
    database.sessions.change(int(database.sessions.columns["leader"][index]), None)


def _start(database: Database, record: Record, session: int, now: int) -> None:
    """Write the start and the session into a run."""
    record["cas_run_extras"] |= {"started_at": stamp(now), "turn_id": f"turn_{uuid7(now, 1)}"}
    record["session_id"] = database.sessions.ids[database.sessions.columns["leader"][session]]


def _end(database: Database, record: Record, session: int, *, status: str, now: int) -> None:
    """Write how a run ended."""
    started = nanoseconds(record["cas_run_extras"]["started_at"])
    record["completed_at"] = stamp(now)
    record["duration_ms"] = (now - started) // 1_000_000
    record["status"] = status
    if status == "failed":
        record["error"] = database.session_error(session)


def _count(database: Database, run: Record, *, is_new: bool) -> None:
    """Bring the counters of a run's deployment up to date."""
    index = database.deployments.find(run["deployment_id"])
    record = database.deployments.record(index)
    stats = record["metadata"].get("cas_config", {}).get("stats", {})
    if stats:
        stats["total_runs"] += is_new
        stats["total_failures"] += run["status"] == "failed"
        stats["consecutive_failures"] = database.streak(index)
    if stats and is_new:
        stats["last_triggered_at"] = run["triggered_at"]
    if record["schedule"] is not None and is_new:
        record["schedule"]["last_run_at"] = run["triggered_at"]
    database.deployments.change(index, record)
