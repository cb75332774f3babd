"""Which records does a test see in each edition, and how do they change while a client reads them?"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from qoderdata.cron import EPOCH
from qoderdata.sandbox.account import upcoming
from qoderdata.sandbox.run_history import COMPLETED, ERRORS, FAILED, MANUAL, PENDING, RUNNING, SKIPPED, STATUSES
from qoderdata.sandbox.sample_values import SECOND, as_datetime, stamp, uuid7
from qoderdata.sandbox.scenarios import FINAL, IDLE, OPEN, SESSION_RUNNING, TERMINATED, End, Refusal, SecondTurn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qoderdata.sandbox.database import Database, Table
    from qoderdata.sandbox.json_records import Record

EDITIONS = ("A", "B", "C", "D")
#: The status of runs that a test creates or ends, and the end of their session.
_KINDS = {
    "pending": (PENDING, End.FRESH),
    "running": (RUNNING, End.RUNNING),
    "completed": (COMPLETED, End.DONE),
    "failed": (FAILED, End.EXHAUSTED),
    "skipped": (SKIPPED, None),
    "cancelled": (FAILED, End.CANCELLED),
    "waiting": (RUNNING, End.WAITING),
}
_API_ERROR = ERRORS.index("api_error")


class ChangingAccount:
    """The records of an account as an edition serves them, and methods that change them.

    Each change updates records and counters together.
    """

    def __init__(self, database: Database, edition: str) -> None:
        self._database = database
        self.edition = edition

    @property
    def edition(self) -> str:
        """The edition that is served: ``"A"``, ``"B"``, ``"C"`` or ``"D"``."""
        return self._edition

    @edition.setter
    def edition(self, edition: str) -> None:
        if edition not in EDITIONS:
            raise ValueError(f"edition={edition!r} is none of {', '.join(EDITIONS)}")
        self._edition = edition

    @property
    def now(self) -> datetime:
        """The account's clock, in UTC."""
        return as_datetime(self._database.now)

    @property
    def deployments(self) -> list[dict[str, Any]]:
        """Every deployment exactly as the edition serves it, newest first, archived ones included."""
        return self._list(self._database.deployments)

    @property
    def runs(self) -> list[dict[str, Any]]:
        """Every run exactly as the edition serves it, newest first."""
        return self._list(self._database.runs)

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """Every session exactly as the edition serves it, newest first; archived ones too, deleted ones not."""
        return self._list(self._database.sessions)

    @property
    def agents(self) -> list[dict[str, Any]]:
        """Every agent exactly as it is served, newest first, archived ones included."""
        return self._list(self._database.tables["agents"])

    @property
    def environments(self) -> list[dict[str, Any]]:
        """Every environment exactly as it is served, newest first, archived ones included."""
        return self._list(self._database.tables["environments"])

    def events(self, session_id: str) -> list[dict[str, Any]]:
        """Return all events of a session exactly as the edition serves them, oldest first."""
        with self._database as database:
            return database.events(database.sessions.find(session_id), self.edition)

    @property
    def outcomes(self) -> list[dict[str, Any]]:
        """The outcome of every run, as far as sessions and events of edition D show it, in the order of `runs`.

        Each has ``id``, ``deployment_id``, ``session_id``, ``triggered_at``, ``status``, ``status_from``
        (``"run"``, ``"session"``, ``"events"``, or None if the session was deleted), ``error_type``,
        ``error_message``, ``started_at``, ``completed_at``, ``session_status``, ``session_archived`` and
        ``session_deleted``. Times are texts with nanoseconds; unknown values are None. Rewritten events and runs
        are ignored.
        """
        with self._database as database:
            return [database.outcome(index) for index in database.runs.select()[::-1].tolist()]

    @property
    def left_out(self) -> list[tuple[str, datetime]]:
        """The deployment and time of each scheduled occurrence that was not run, in order of time."""
        return [(identity, as_datetime(at)) for identity, at in self._database.left_out]

    def create_deployments(self, count: int) -> list[dict[str, Any]]:
        """Create deployments that never ran; they are first in the list."""
        with self._database as database:
            created = []
            for _ in range(count):
                now, identity = database.tick(), database.new_id("dep")
                created.append(database.deployments.add(identity, _daily(database, identity, now)))
            return [database.deployments.record(index, self.edition) for index in created]

    def archive(self, deployment_id: str) -> dict[str, Any]:
        """Archive a deployment."""
        with self._database as database:
            index = database.deployments.find(deployment_id)
            record = database.deployments.record(index)
            if record["archived_at"] is not None:
                raise ValueError(f"{deployment_id} is archived already")
            now = database.tick()
            record["archived_at"] = record["updated_at"] = stamp(now)
            record["name"] += f"_archived_{now // SECOND}"
            if record["schedule"] is not None:
                record["schedule"]["upcoming_runs_at"] = []
            database.deployments.change(index, record)
            return database.deployments.record(index, self.edition)

    def create_runs(
        self, count: int, *, status: str = "completed", deployment_id: str | None = None
    ) -> list[dict[str, Any]]:
        """Start runs by hand, of one deployment or of all in turn, and update the counters.

        `status` is one of those that runs have up to edition C, ``"cancelled"`` or ``"waiting"``.
        """
        with self._database as database:
            if status not in _KINDS:
                raise ValueError(f"status={status!r} is none of {', '.join(_KINDS)}")
            run_status, end = _KINDS[status]
            if deployment_id is None:
                indices = np.flatnonzero(~database.deployments.columns["archived"]).tolist()
            else:
                indices = [database.deployments.find(deployment_id)]
            if count and not indices:
                raise ValueError("there is no deployment to run")
            created = []
            for number in range(count):
                index = indices[number % len(indices)]
                now, identity = database.tick(), database.new_id("drun")
                columns = {
                    "agent": database.deployments.columns["agent"][index],
                    "attempt": 1,
                    "by_test": True,
                    "deployment": index,
                    "error": run_status == FAILED,
                    "refusal": Refusal.REJECTED if end is None else Refusal.NONE,
                    "session": -1 if end is None else _create_session(database, index, end, now),
                    "status": run_status,
                    "trigger": MANUAL,
                    **dict.fromkeys(("triggered", "created", "started", "completed"), now),
                }
                created.append(database.runs.add(identity, None, columns))
                _update_counters(database, created[-1], is_new=True)
            return [database.runs.record(index, self.edition) for index in created]

    def finish_run(self, run_id: str, *, status: str = "completed") -> dict[str, Any]:
        """End an unfinished run as ``"completed"``, ``"failed"`` or ``"cancelled"``, and update the counters."""
        with self._database as database:
            if status not in ("completed", "failed", "cancelled"):
                raise ValueError(f"status={status!r} is not how a run ends; completed, failed or cancelled is")
            run_status, end = _KINDS[status]
            index = database.runs.find(run_id)
            run = database.runs.row(index)
            if run["status"] not in (PENDING, RUNNING):
                raise ValueError(f"{run_id} is {STATUSES[run['status']]} already, and such runs never change")
            now, session = database.tick(), run["session"]
            error = _API_ERROR if status == "failed" else -1
            change = {"end": end, "ended": now, "updated": now, "status": IDLE, "error": error}
            if database.sessions.columns["end"][session] == End.FRESH:
                change["started"] = now
            _change_session(database, session, change)
            started = database.sessions.columns["started"][session] if run["status"] == PENDING else run["started"]
            change = {"status": run_status, "error": run_status == FAILED, "started": started, "completed": now}
            database.runs.change(index, None, {**change, "by_test": True})
            _update_counters(database, index, is_new=False)
            return database.runs.record(index, self.edition)

    def archive_session(self, session_id: str) -> dict[str, Any]:
        """Archive a session that has ended."""
        with self._database as database:
            index = database.sessions.find(session_id)
            columns = database.sessions.columns
            if columns["archived"][index]:
                raise ValueError(f"{session_id} is archived already")
            if columns["end"][index] not in (*FINAL, End.IDLE_WITHOUT_EVENTS, End.FATAL):
                raise ValueError(f"{session_id} has not ended")
            now = database.tick()
            _change_session(database, index, {"archived": now, "updated": now, "status": TERMINATED})
            return database.sessions.record(index, self.edition)

    def continue_session(self, session_id: str) -> dict[str, Any]:
        """Continue a session that has ended, as a person does; the outcome of its run stays."""
        with self._database as database:
            index = database.sessions.find(session_id)
            columns = database.sessions.columns
            if columns["end"][index] not in FINAL or columns["archived"][index] or columns["later"][index]:
                raise ValueError(f"{session_id} has not ended, is archived, or was continued already")
            now = database.tick()
            turn = {"later": SecondTurn.DONE, "continued": now, "continued_end": now}
            _change_session(database, index, turn | {"updated": now, "status": IDLE})
            return database.sessions.record(index, self.edition)

    def delete_session(self, session_id: str) -> None:
        """Delete a session: it is no longer listed, and a request for it is a 404."""
        with self._database as database:
            index = database.sessions.find(session_id)
            database.tick()
            database.sessions.forget(np.arange(len(database.sessions)) == index)

    def forget_runs(self, before: datetime) -> int:
        """Remove the runs created before a time, and return their number; the lifetime counters stay."""
        with self._database as database:
            created = database.runs.columns["created"]
            old = (created < nanoseconds_of(before, name="before")) & database.runs.columns["kept"]
            database.runs.forget(old)
            return int(old.sum())

    def rewrite(self, record: Mapping[str, Any]) -> None:
        """Serve this record in every edition from now on, in place of the one with its id; it is not checked."""
        with self._database as database:
            tables = (table for table in database.tables.values() if table.index(record["id"]) is not None)
            next(tables, database.deployments).replace(record)

    def rewrite_events(self, session_id: str, events: Sequence[Mapping[str, Any]]) -> None:
        """Serve these events of a session from now on, oldest first; only their ids are checked.

        Raise `ValueError` for an event without an id.
        """
        if not all(isinstance(event.get("id"), str) for event in events):
            raise ValueError("an event has no id that is text")
        with self._database as database:
            database.own_events[session_id] = [dict(event) for event in events]

    def _list(self, table: Table) -> list[dict[str, Any]]:
        """Return the records as the edition serves them, newest first."""
        with self._database as database:
            shown = table.select(*database.known(table, self.edition))
            return [table.record(index, self.edition) for index in shown[::-1].tolist()]


def _daily(database: Database, identity: str, now: int) -> Record:
    """Return the record of an active, daily deployment that never ran."""
    pair = database.fleet.pairs[0]
    times = [stamp(at) for at in upcoming(pair, now)]
    stats = {"consecutive_failures": 0, "next_trigger_at": times[0], "total_failures": 0, "total_runs": 0}
    config = {"max_concurrent": 1, "max_retries": 0, "timeout_ms": 300_000}
    return {
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
            "expression": pair.expression,
            "timezone": pair.timezone,
            "type": "cron",
            "upcoming_runs_at": times,
        },
        "status": "active",
        "type": "deployment",
        "updated_at": stamp(now),
        "vault_ids": [],
    }


def _create_session(database: Database, deployment: int, end: End, now: int) -> int:
    """Add the session of the next run, which starts now, and return its index."""
    agent = int(database.deployments.columns["agent"][deployment])
    columns = {
        "run": len(database.runs),
        "deployment": deployment,
        "agent": agent,
        "version": agent % 7 + 1,
        "tail": 2,
        **dict.fromkeys(("created", "started", "updated"), now),
        "ended": 0 if end in OPEN else now,
        "asked": now if end == End.WAITING else 0,
        "end": end,
        "error": _API_ERROR if end == End.EXHAUSTED else -1,
        **dict.fromkeys(("status", "last_status"), SESSION_RUNNING if end in (End.FRESH, End.RUNNING) else IDLE),
        "leader": len(database.sessions),
    }
    return database.sessions.add(f"sess_{uuid7(now, 2)}", None, columns)


def _change_session(database: Database, index: int, columns: Mapping[str, Any]) -> None:
    """Change a session, and the status of the session that is served in its place up to edition C."""
    database.sessions.change(index, None, columns)
    leader = int(database.sessions.columns["leader"][index])
    last = database.members(leader, "C")[-1]
    database.sessions.change(leader, None, {"last_status": database.sessions.columns["status"][last]})


def _update_counters(database: Database, run_index: int, *, is_new: bool) -> None:
    run = database.runs.record(run_index)
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


def nanoseconds_of(time: datetime, *, name: str) -> int:
    """Convert a time that a caller gave to nanoseconds since 1970."""
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise ValueError(f"{name}={time!r} must be a datetime with a time zone")
    return (time - EPOCH) // timedelta(microseconds=1) * 1_000
