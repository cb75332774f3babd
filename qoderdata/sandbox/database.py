"""Keep the records of one account: the columns for filters, the bytes of each record, and the clock.

A `Table` has one kind of record, oldest first. A record is written when it is first requested in an edition, and
kept as bytes. `Database` has all tables of an account.
"""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from operator import eq, ne
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from qoderdata.sandbox.account import ARCHIVED, PAUSED, PAUSED_BY_ERROR, Fleet
from qoderdata.sandbox.json_records import DeploymentRecords, refusal_error, run_of_d, run_record
from qoderdata.sandbox.run_history import COMPLETED, FAILED, STATUSES, TRIGGERS, make_runs
from qoderdata.sandbox.sample_values import DAY, make_ids, nanoseconds, stamp, uuid7, uuid7_time
from qoderdata.sandbox.scenarios import End, decide
from qoderdata.sandbox.session_records import SessionRecords, agent_record, environment_record, served_sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from typing import Self

    from numpy.typing import NDArray

    from qoderdata.sandbox.json_records import Record

    #: The name of a column, a comparison, and a value.
    Condition = tuple[str, Callable[[Any, Any], Any], Hashable]

_TICK = 1_000_000
DEPLOYMENT_STATUSES = ("active", "paused")
#: The number of filters whose results are cached between two changes.
_REMEMBERED = 64


def encode(record: Mapping[str, Any]) -> bytes:
    """Write a record as Go does: compact, and with ``<``, ``>`` and ``&`` escaped."""
    text = orjson.dumps(record)
    text = text.replace(b"&", b"\\u0026").replace(b"<", b"\\u003c").replace(b">", b"\\u003e")
    # A copy: the bytes that orjson returns keep a buffer of several times their size.
    return bytes(memoryview(text))


class Table:
    """Records, oldest first.

    `columns` are arrays by name, one value per record, for filters. `write` returns the record at an index in the
    form of an edition; its third argument is the record of edition C, if that was changed. `read` returns the
    values of the columns for a record that is new or was changed.
    """

    def __init__(
        self,
        ids: list[str],
        columns: dict[str, NDArray[Any]],
        write: Callable[[int, str, Record | None], Record],
        *,
        read: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda _: {},
    ) -> None:
        self.ids, self.columns, self._write, self._read = ids, columns, write, read
        self._bodies: dict[str, dict[int, bytes]] = defaultdict(dict)
        #: Records of edition C that are new or were changed, and which of them all editions serve unchanged.
        self._changed: dict[int, bytes] = {}
        self._rewritten: set[int] = set()
        self._indices = {identity: index for index, identity in enumerate(ids)}
        #: Returns the ascending indices of served records that meet all conditions; cached until a change.
        self.select = lru_cache(_REMEMBERED)(self._select)
        self.columns.setdefault("kept", np.ones(len(ids), dtype=np.bool_))

    def __len__(self) -> int:
        """Return the number of records, including forgotten ones."""
        return len(self.ids)

    def index(self, identity: str) -> int | None:
        """Return the index of a record; it also has one after it was forgotten, so that cursors stay valid."""
        return self._indices.get(identity)

    def find(self, identity: str) -> int:
        """Return the index of a record, or raise `KeyError`."""
        if identity not in self._indices:
            raise KeyError(f"nothing has the id {identity!r}")
        return self._indices[identity]

    def body(self, index: int, edition: str = "C") -> bytes:
        """Return the bytes of a record in a response."""
        if index in self._rewritten:
            return self._changed[index]
        bodies = self._bodies[edition]
        if index not in bodies:
            changed = self._changed.get(index)
            bodies[index] = encode(self._write(index, edition, None if changed is None else orjson.loads(changed)))
        return bodies[index]

    def record(self, index: int, edition: str = "C") -> Record:
        """Return a record as a new dictionary."""
        record: Record = orjson.loads(self.body(index, edition))
        return record

    def row(self, index: int) -> dict[str, Any]:
        """Return the id of a record, and its values in the columns."""
        return {"id": self.ids[index], **{name: column.item(index) for name, column in self.columns.items()}}

    def _select(self, *conditions: Condition) -> NDArray[np.int64]:
        chosen = self.columns["kept"].copy()
        for column, compare, value in conditions:
            chosen &= compare(self.columns[column], value)
        return np.flatnonzero(chosen)

    def change(self, index: int, record: Mapping[str, Any] | None, columns: Mapping[str, Any] = {}) -> None:
        """Replace the record of edition C, if `record` is given, and values in the columns."""
        if record is not None:
            self._changed[index] = encode(record)
            columns = {**self._read(record), **columns}
        for bodies in self._bodies.values():
            bodies.pop(index, None)
        for name, value in columns.items():
            self.columns[name][index] = value
        self.select.cache_clear()

    def replace(self, record: Mapping[str, Any]) -> None:
        """Serve this record in every edition, in place of the one with its id."""
        index = self.find(record["id"])
        self.change(index, record)
        self._rewritten.add(index)

    def add(self, identity: str, record: Record | None, columns: Mapping[str, Any] = {}) -> int:
        """Add a record, newer than all others; a column without a given value is 0 or true.

        Without `record`, the record is written from the columns.
        """
        index = self._indices[identity] = len(self)
        self.ids.append(identity)
        for name, values in self.columns.items():
            self.columns[name] = np.append(values, values.dtype == np.bool_)
        self.change(index, record, columns)
        return index

    def forget(self, which: NDArray[np.bool_]) -> None:
        """Stop serving these records."""
        self.columns["kept"] = self.columns["kept"] & ~which
        self.select.cache_clear()


class Database:
    """The records of one account."""

    def __init__(
        self, deployments: int, *, seed: int, runs: int, now: int, left_out: int, new_fields: bool
    ) -> None:
        fleet = Fleet(deployments, seed=seed, now=now)
        table, not_run = make_runs(fleet, runs, left_out)
        tails = fleet.draws.tails("deployment", fleet.number)
        order = np.lexsort((tails, fleet.created))
        fleet.sort(order)
        for rows in (table, not_run):
            rows.deployment = np.argsort(order)[rows.deployment]
        ids = make_ids("dep", fleet.created, tails[order])
        scenarios, refusal = decide(fleet, table)
        self.fleet = fleet
        self._deployment_writer = DeploymentRecords(fleet, table, ids, new_fields=new_fields)
        self.deployments = Table(
            ids,
            {
                "agent": fleet.agent,
                "archived": fleet.has_role(ARCHIVED),
                "created": fleet.created,
                "status": fleet.has_role(PAUSED, PAUSED_BY_ERROR).astype(np.int64),
            },
            self._deployment,
            read=self._deployment_columns,
        )
        leader = served_sessions(fleet, scenarios)
        columns = scenarios.by_name() | {
            "leader": leader,
            "leads": leader == np.arange(len(leader)),
            "last_status": scenarios.status.copy(),
            "version": scenarios.agent % 7 + 1,
        }
        columns["last_status"][leader] = scenarios.status
        self.sessions = Table(make_ids("sess", scenarios.created, scenarios.tail), columns, self._session)
        self.session_writer = SessionRecords(fleet, self.sessions.row, self._template)
        of_run = np.full(len(table), -1)
        of_run[scenarios.run[scenarios.run >= 0]] = np.flatnonzero(scenarios.run >= 0)
        columns = table.by_name() | {
            "agent": fleet.agent[table.deployment],
            # Whether a test created or ended it.
            "by_test": np.zeros(len(table), dtype=np.bool_),
            "error": table.status == FAILED,
            "refusal": refusal,
            "session": of_run,
        }
        self.runs = Table(make_ids("drun", table.created, table.tail), columns, self._run, read=self._run_columns)
        self.tables = {
            "deployments": self.deployments,
            "deployment_runs": self.runs,
            "sessions": self.sessions,
            "agents": _named_table("agent", fleet.agents, agent_record, now),
            "environments": _named_table("env", fleet.environments, environment_record, now),
        }
        self.now = now
        self.agents = {identity: number for number, identity in enumerate(fleet.agents)}
        pairs = zip(not_run.deployment.tolist(), not_run.at.tolist(), strict=True)
        #: The deployment's id and the time in nanoseconds since 1970, in order of time.
        self.left_out = sorted(((ids[index], at) for index, at in pairs), key=lambda pair: pair[::-1])
        self.own_events: dict[str, list[Record]] = {}
        self._lock = RLock()

    def __enter__(self) -> Self:
        """Lock the database against other threads."""
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def tick(self) -> int:
        """Advance the clock, and return its time."""
        self.now += _TICK
        return self.now

    def new_id(self, prefix: str) -> str:
        """Return the id of a record that is created now."""
        now = np.array([self.now])
        return make_ids(prefix, now, self.fleet.draws.tails("tick", now))[0]

    def _deployment_columns(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the columns for filters; a value that does not fit counts as missing."""
        agent = record.get("agent")
        return {
            "agent": self.agents.get(str(agent.get("id")), -1) if isinstance(agent, dict) else -1,
            "archived": record.get("archived_at") is not None,
            "created": _time(record.get("created_at")),
            "status": _code(DEPLOYMENT_STATUSES, record.get("status")),
        }

    def _run_columns(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the columns for filters; a value that does not fit counts as missing."""
        context = record.get("trigger_context")
        index = self.deployments.index(str(record.get("deployment_id")))
        return {
            "created": _time(record.get("created_at")),
            "deployment": -1 if index is None else index,
            "error": record.get("error") is not None,
            "status": _code(STATUSES, record.get("status")),
            "trigger": _code(TRIGGERS, context.get("type")) if isinstance(context, dict) else -1,
            "triggered": _time(record.get("triggered_at")),
        }

    def streak(self, index: int) -> int:
        """Count the failures of a deployment since its last success."""
        status = self.runs.columns["status"][self.runs.columns["deployment"] == index]
        good = np.flatnonzero(status == COMPLETED)
        return int((status[good[-1] + 1 if len(good) else 0 :] == FAILED).sum())

    def members(self, index: int, edition: str) -> list[int]:
        """Return the sessions that an edition serves as this one session."""
        if edition >= "D":
            return [index]
        found: list[int] = np.flatnonzero(self.sessions.columns["leader"] == index).tolist()
        return found

    def known(self, table: Table, edition: str) -> list[Condition]:
        """Return the conditions for records that an edition has: up to C, some runs share one session."""
        if table is not self.sessions or edition >= "D":
            return []
        return [("leads", eq, True), ("end", ne, End.FRESH)]

    def events(self, index: int, edition: str) -> list[Record]:
        """Return the events of a session, oldest first."""
        own = self.own_events.get(self.sessions.ids[index])
        if own is not None:
            return own
        return self.session_writer.events(self.members(index, edition), self.now)

    def outcome(self, index: int) -> Record:
        """Return the outcome of a run that is known in edition D."""
        run = self.runs.row(index)
        deployment, of_run = self.deployments.ids[run["deployment"]], run["session"]
        outcome: Record = {
            "id": run["id"], "deployment_id": deployment, "session_id": None,
            "triggered_at": stamp(run["scheduled"] or run["created"]),
            "status": None, "status_from": None, "error_type": None, "error_message": None, "started_at": None,
            "completed_at": None, "session_status": None, "session_archived": False, "session_deleted": False,
        }  # fmt: skip
        if run["refusal"]:
            error = refusal_error(run["refusal"], deployment)
            failed = {"status": "failed", "status_from": "run"}
            return outcome | failed | {"error_type": error["type"], "error_message": error["message"]}
        outcome["session_id"] = self.sessions.ids[of_run]
        if not self.sessions.columns["kept"][of_run]:
            return outcome | {"session_deleted": True}
        record = self.sessions.record(of_run, "D")
        outcome["session_status"] = record["status"]
        outcome["session_archived"] = record["archived_at"] is not None
        return outcome | self.session_writer.session(of_run).outcome()

    def _deployment(self, index: int, edition: str, changed: Record | None) -> Record:
        record = changed or self._deployment_writer.write(index)
        return self._deployment_writer.as_d(index, record) if edition >= "D" else record

    def _template(self, index: int) -> Record:
        """Write a deployment of edition D as it was created."""
        known = index < len(self.fleet)
        record = self._deployment_writer.write(index) if known else self.deployments.record(index)
        if record["archived_at"] is not None and "_archived_" in record["name"]:
            record["name"] = record["name"].rpartition("_archived_")[0]
        return self._deployment_writer.as_d(index, record)

    def _run(self, index: int, edition: str, _: Record | None) -> Record:
        run = self.runs.row(index)
        deployment, session = self.deployments.ids[run["deployment"]], run["session"]
        refusal = refusal_error(run["refusal"], deployment) if run["refusal"] else None
        own, shared = None, None
        if refusal is None:
            leader = self.sessions.columns["leader"][session]
            own, shared = self.sessions.ids[session], self.sessions.ids[leader]
        error = None
        if run["status"] == FAILED:
            error = refusal or self.session_writer.session(session).error_in_record()
        record = run_record(self.fleet, run, deployment, shared, error)
        return run_of_d(record, run["scheduled"], own, refusal) if edition >= "D" else record

    def _session(self, index: int, edition: str, _: Record | None) -> Record:
        return self.session_writer.write(self.members(index, edition), edition)


def _named_table(prefix: str, used: list[str], write: Callable[[str, int, int], Record], now: int) -> Table:
    """Make a table of agents or environments: the used ones, an archived one and an unused one."""
    archived, unused = (f"{prefix}_{uuid7(now - days * DAY, days)}" for days in (820, 120))
    numbers = {identity: number for number, identity in enumerate([*used, unused])} | {archived: -1}
    ids = sorted(numbers)
    columns = {
        "archived": np.array([identity == archived for identity in ids]),
        "created": np.array([uuid7_time(identity) for identity in ids]),
    }
    return Table(ids, columns, lambda index, *_: write(ids[index], numbers[ids[index]], now))


def _code(names: tuple[str, ...], value: object) -> int:
    """Return the index of a name; -1 for any other value."""
    return names.index(value) if isinstance(value, str) and value in names else -1


def _time(value: object) -> int:
    """Return a time in nanoseconds; 0 for any other value."""
    try:
        return nanoseconds(value) if isinstance(value, str) else 0
    except ValueError:
        return 0
