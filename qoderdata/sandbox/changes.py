"""What changes an account while somebody reads it: things made, archived, run, finished, forgotten, rewritten.

Each function takes the ledger, changes records and counters together, and returns the records as they now are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qoderdata.sandbox.draws import SECOND, nanoseconds, stamp, uuid7
from qoderdata.sandbox.records import UPCOMING
from qoderdata.sandbox.runs import STATUSES
from qoderdata.sandbox.schedules import Occurrences, Pair

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qoderdata.sandbox.ledger import Ledger
    from qoderdata.sandbox.records import Record
    from qoderdata.sandbox.table import Table

_DAILY = Pair("0 9 * * *", "Asia/Shanghai", 24)
_UNFINISHED = ("pending", "running")


def create_deployments(ledger: Ledger, count: int) -> list[Record]:
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
    ledger.deployments.append(records, [ledger.deployment_columns(record) for record in records])
    return records


def archive(ledger: Ledger, identity: str) -> Record:
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
    ledger.deployments.put(place, record, ledger.deployment_columns(record))
    return record


def create_runs(ledger: Ledger, count: int, *, status: str, deployment_id: str | None) -> list[Record]:
    """Start runs by hand, which are over at once or go on."""
    if status not in STATUSES:
        raise ValueError(f"status={status!r} is none of {', '.join(STATUSES)}")
    if deployment_id is None:
        places = np.flatnonzero(~ledger.deployments.columns["archived"]).tolist()
    else:
        places = [_find(ledger.deployments, deployment_id)]
    if count and not places:
        raise ValueError("no deployment is there to run")
    records = []
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
            "status": status,
            "trigger_context": {"type": "manual"},
            "triggered_at": stamp(now),
            "type": "deployment_run",
        }
        if status not in ("pending", "skipped"):
            _start(record, now)
        if status in ("completed", "failed"):
            _end(record, status, now, now)
        records.append(record)
    ledger.runs.append(records, [ledger.run_columns(record) for record in records])
    by_deployment: dict[str, list[Record]] = {}
    for record in records:
        by_deployment.setdefault(record["deployment_id"], []).append(record)
    for identity, its in by_deployment.items():
        _count(ledger, identity, new=its, failures=len(its) if status == "failed" else 0)
    return records


def finish_run(ledger: Ledger, identity: str, *, status: str) -> Record:
    """Let an unfinished run end."""
    if status not in ("completed", "failed"):
        raise ValueError(f"status={status!r} is not how a run ends; completed or failed is")
    place = _find(ledger.runs, identity)
    record = ledger.runs.record(place)
    if record["status"] not in _UNFINISHED:
        raise ValueError(f"{identity} is {record['status']} already, and such runs never change")
    now, _ = ledger.tick("drun")
    extras = record.setdefault("cas_run_extras", {"attempt": 1})
    if "started_at" not in extras:
        _start(record, now)
    _end(record, status, nanoseconds(extras["started_at"]), now)
    ledger.runs.put(place, record, ledger.run_columns(record))
    _count(ledger, record["deployment_id"], new=[], failures=int(status == "failed"))
    return record


def forget_runs(ledger: Ledger, before: int) -> int:
    """Let retention take the runs created before a time; the lifetime counters stay."""
    old = (ledger.runs.columns["created"] < before) & ledger.runs.columns["kept"]
    ledger.runs.forget(old)
    return int(old.sum())


def rewrite(ledger: Ledger, record: Mapping[str, Any]) -> None:
    """Serve a record as it is given, whatever it holds, in the place of the one that has its id."""
    identity = record["id"]
    if ledger.runs.place(identity) is not None:
        ledger.runs.put(_find(ledger.runs, identity), record, ledger.run_columns(record))
    else:
        ledger.deployments.put(_find(ledger.deployments, identity), record, ledger.deployment_columns(record))


def _find(table: Table, identity: str) -> int:
    """Find a record, or raise `KeyError`."""
    place = table.place(identity)
    if place is None:
        raise KeyError(f"nothing has the id {identity!r}")
    return place


def _start(record: Record, now: int) -> None:
    """Give a run its session."""
    record["cas_run_extras"] |= {"started_at": stamp(now), "turn_id": f"turn_{uuid7(now, 1)}"}
    record["session_id"] = f"sess_{uuid7(now, 2)}"


def _end(record: Record, status: str, started: int, now: int) -> None:
    """Write how a run ended."""
    record["completed_at"] = stamp(now)
    record["duration_ms"] = (now - started) // 1_000_000
    record["status"] = status
    if status == "failed":
        record["error"] = {"message": "Internal error.", "type": "api_error"}


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
    ledger.deployments.put(place, record, ledger.deployment_columns(record))
