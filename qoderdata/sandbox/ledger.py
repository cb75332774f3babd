"""One account as the endpoints see it: its records in two tables, its clock, and what changes them.

Made from a plan, a history and the records' writers. Every change moves the clock by a millisecond a record,
so that what is new is newer than all before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qoderdata.sandbox.account import ARCHIVED, BROKEN, PAUSED, plan
from qoderdata.sandbox.draws import Draws, nanoseconds, uuid7
from qoderdata.sandbox.history import History
from qoderdata.sandbox.query import DEPLOYMENT_STATUSES
from qoderdata.sandbox.records import Deployments, RunRecords
from qoderdata.sandbox.runs import FAILED, STATUSES, TRIGGERS
from qoderdata.sandbox.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_TICK = 1_000_000


class Ledger:
    """The records of one account.

    Parameters
    ----------
    deployments, seed, runs, left_out
        As `Sandbox` has them.
    now
        The clock, in nanoseconds since 1970.
    new_fields
        Whether some deployments have the fields that newer editions added.
    """

    def __init__(
        self, deployments: int, *, seed: int, runs: int, now: int, left_out: int, new_fields: bool
    ) -> None:
        fleet = plan(deployments, seed=seed, now=now)
        history = History(fleet, runs, left_out)
        tails = fleet.draws.tails("deployment", fleet.number)
        order = np.lexsort((tails, fleet.created))
        history.sort(order)
        ids = _ids("dep", fleet.created, tails[order])
        writer = Deployments(fleet, history, ids, new_fields=new_fields)
        self.deployments = Table(
            ids,
            {
                "agent": fleet.agent,
                "archived": fleet.plays(ARCHIVED),
                "created": fleet.created,
                "status": fleet.plays(PAUSED, BROKEN).astype(np.int64),
            },
            writer.write,
        )
        table = history.runs
        run_ids = _ids("drun", table.created, table.tail)
        self.runs = Table(
            run_ids,
            {
                "created": table.created,
                "deployment": table.deployment,
                "error": table.status == FAILED,
                "status": table.status,
                "trigger": table.trigger,
                "triggered": table.triggered,
            },
            RunRecords(fleet, history, run_ids, ids).write,
        )
        self.now = now
        self.agents = {identity: number for number, identity in enumerate(fleet.agents)}
        self.environment = fleet.environments[0]
        #: Deployment's id and nanoseconds since 1970, by time.
        self.left_out = sorted(((ids[place], at) for place, at in history.left_out), key=lambda pair: pair[::-1])
        self._tails = Draws(seed)

    def tick(self, prefix: str) -> tuple[int, str]:
        """Let the clock go on, and return the time and the id of something made at it."""
        self.now += _TICK
        tail = self._tails.tails("tick", np.array([self.now]))[0]
        return self.now, f"{prefix}_{uuid7(self.now, int(tail))}"

    def deployment_columns(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return what filters look at; what does not fit counts as no value."""
        agent = record.get("agent")
        return {
            "agent": self.agents.get(str(agent.get("id")), -1) if isinstance(agent, dict) else -1,
            "archived": record.get("archived_at") is not None,
            "created": _time(record.get("created_at")),
            "status": _code(DEPLOYMENT_STATUSES, record.get("status")),
        }

    def run_columns(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return what filters look at; what does not fit counts as no value."""
        context = record.get("trigger_context")
        place = self.deployments.place(str(record.get("deployment_id")))
        return {
            "created": _time(record.get("created_at")),
            "deployment": -1 if place is None else place,
            "error": record.get("error") is not None,
            "status": _code(STATUSES, record.get("status")),
            "trigger": _code(TRIGGERS, context.get("type")) if isinstance(context, dict) else -1,
            "triggered": _time(record.get("triggered_at")),
        }

    def streak(self, place: int) -> int:
        """Count the failures of a deployment since its last success."""
        status = self.runs.columns["status"][self.runs.columns["deployment"] == place]
        good = np.flatnonzero(status == STATUSES.index("completed"))
        return int((status[good[-1] + 1 if len(good) else 0 :] == FAILED).sum())


def _ids(prefix: str, created: NDArray[np.int64], tails: NDArray[np.int64]) -> list[str]:
    """Name records by the time of their creation."""
    return [f"{prefix}_{uuid7(at, tail)}" for at, tail in zip(created.tolist(), tails.tolist(), strict=True)]


def _code(names: tuple[str, ...], value: object) -> int:
    """Return the number of a name; -1 for what is none."""
    return names.index(value) if isinstance(value, str) and value in names else -1


def _time(value: object) -> int:
    """Return a time in nanoseconds; 0 for what is none."""
    try:
        return nanoseconds(value) if isinstance(value, str) else 0
    except ValueError:
        return 0
