"""Write sessions, agents and environments as JSON objects, in the form of each edition."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from qoderdata.sandbox import sample_values
from qoderdata.sandbox.sample_values import DAY, MINUTE, Dice, stamp, uuid7
from qoderdata.sandbox.session_events import Session, event_list
from qoderdata.sandbox.stories import STATUSES, End, Stories, reuses

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from qoderdata.sandbox.account import Fleet
    from qoderdata.sandbox.json_records import Record

#: The words of `stories.STATUSES` up to edition B.
OLD_STATUSES = ("processing", *STATUSES[1:])
#: Since when sessions tell the parts of their credits, in days before the clock.
_PARTS_SINCE = 45 * DAY


class SessionRecords:
    """Write the sessions of an account, and their events.

    Parameters
    ----------
    fleet
        The deployments.
    stories
        The sessions, which the caller may extend and change.
    ids
        Their ids.
    template
        Returns a deployment as it was created, in the form of edition D.
    """

    def __init__(
        self, fleet: Fleet, stories: dict[str, Any], ids: list[str], template: Callable[[int], Record]
    ) -> None:
        self._fleet, self._columns, self._ids = fleet, stories, ids
        self._template, self._snapshots = cache(template), cache(self._snapshot)

    def session(self, place: int) -> Session:
        """Return one row."""
        row = {name: self._columns[name][place].item() for name in _COLUMNS}
        deployment = row["deployment"]
        known = 0 <= deployment < len(self._fleet)
        return Session(
            id=self._ids[place],
            **row,
            timeout=int(self._fleet.timeout[deployment]) if known else 300_000,
            duration=float(self._fleet.duration[deployment]) if known else 20_000.0,
        )

    def write(self, places: list[int], form: str) -> Record:
        """Write a session.

        Parameters
        ----------
        places
            The session, and those that it stands for in editions in which one session served several runs.
        form
            The first edition with this form: ``"A"``, ``"C"`` or ``"D"``.

        Returns
        -------
        dict
            The record.
        """
        sessions = [self.session(place) for place in places]
        session, last = sessions[0], sessions[-1]
        dice = Dice(session.id)
        deployment = self._template(session.deployment) if session.deployment >= 0 else {}
        variables = deployment.get("environment_variables", "").replace(";", "\n").splitlines()
        record: Record = {
            "agent": self._snapshots(session.agent),
            "archived_at": stamp(last.archived) if last.archived else None,
            "created_at": stamp(session.created),
            "deployment_id": deployment.get("id"),
            "environment_id": deployment.get("environment_id") or dice.pick(self._fleet.environments),
            "environment_variables": dict(variable.split("=", 1) for variable in variables),
            "id": session.id,
            "metadata": {"ticket": f"OPS-{100 + dice.below(900)}"} if dice.percent(10) else {},
            "outcome_evaluations": _evaluations(last, deployment),
            "resources": [
                {"created_at": stamp(session.created), "id": f"sesrsc_{uuid7(session.created, number)}"} | resource
                for number, resource in enumerate(deployment.get("resources", ()))
            ],
            "stats": {"active_seconds": 0, "duration_seconds": 0},
            "status": (OLD_STATUSES if form == "A" else STATUSES)[last.status],
            "title": deployment.get("name") or dice.pick(sample_values.TITLES),
            "type": "session",
            "updated_at": stamp(max(one.updated for one in sessions)),
            "vault_ids": deployment.get("vault_ids", []),
        }
        if "budget" in deployment:
            record["budget"] = deployment["budget"]
        usage = self._usage(sessions)
        if usage is not None and form != "A":
            record["usage"] = usage
        return record

    def events(self, places: list[int], now: int) -> list[Record]:
        """Write the events of a session, and of those that it stands for."""
        events: list[Record] = []
        for place in places:
            session = self.session(place)
            deployment = self._template(session.deployment) if session.deployment >= 0 else {}
            texts = [
                event["content"][0]["text"]
                for event in deployment.get("initial_events", ())
                if event["type"] == "user.message"
            ]
            prompt = texts[0] if texts else Dice(session.id).pick(sample_values.PROMPTS)
            models, _ = self._credits(session)
            events += event_list(session, prompt=prompt, credits_used=models, now=now)
        return events

    def _credits(self, session: Session) -> tuple[float, float]:
        """Return what the models and the runtime of a session cost."""
        deployment = self._template(session.deployment) if session.deployment >= 0 else {}
        base = 0.12 * 1.6 ** Dice(f"{deployment.get('id')}/credits").below(9)
        dice = Dice(f"{session.id}/credits")
        total = base * (0.5 + dice.below(1_000) / 1_000) * (2.5 if dice.percent(3) else 1)
        if "budget" in deployment:
            budget = float(deployment["budget"]["max_credit_cost"])
            total = budget + 0.004 if session.end == End.BUDGET else min(total, 0.96 * budget)
        return total * 0.83, total * 0.17

    def _usage(self, sessions: list[Session]) -> Record | None:
        """Return the credits of a session so far, cut to two decimals; sometimes nothing is known."""
        session = sessions[-1]
        dice = Dice(f"{session.id}/usage")
        if session.end == End.FRESH and len(sessions) == 1:
            return {"total_credits": 0}
        if dice.percent(6):
            return None
        if dice.percent(3):
            return {"total_credits": 0}
        models, runtime = (sum(part) for part in zip(*map(self._credits, sessions), strict=True))
        usage: Record = {"total_credits": _cut(models + runtime)}
        if session.created > self._fleet.now - _PARTS_SINCE:
            usage = {"model_credits": _cut(models), "sandbox_runtime_credits": _cut(runtime)} | usage
        return usage

    def _snapshot(self, agent: int) -> Record:
        """Write the agent as it was when the session began; the same for every session of a version."""
        record = agent_record(self._fleet.agents[agent], agent, self._fleet.now)
        kept = ("description", "id", "mcp_servers", "model", "name", "skills", "system", "tools", "type")
        return {name: record[name] for name in kept} | {"version": agent % 7 + 1}


_COLUMNS = tuple(name for name in Session.__dataclass_fields__ if name not in ("id", "timeout", "duration"))


def leaders(fleet: Fleet, stories: Stories) -> NDArray[np.int64]:
    """Return which session stood for each one up to edition C: where it was reused, three runs shared one."""
    place = np.arange(len(stories))
    result = place.copy()
    if not len(fleet):
        return result
    which = np.flatnonzero(
        (stories.deployment >= 0) & reuses(fleet)[stories.deployment] & (stories.end != End.FRESH)
    )
    order = which[np.argsort(stories.deployment[which], kind="stable")]
    deployments = stories.deployment[order]
    first = np.searchsorted(deployments, deployments)
    index = np.arange(len(order))
    result[order] = order[index - (index - first) % 3]
    return result


def agent_record(identity: str, number: int, now: int) -> Record:
    """Write an agent.

    Parameters
    ----------
    identity
        Its id, which has the time of its creation.
    number
        Its number in the account; -1 is archived.
    now
        The clock, in nanoseconds since 1970.

    Returns
    -------
    dict
        The record.
    """
    dice = Dice(f"{identity}/agent")
    name, description = sample_values.AGENTS[number % len(sample_values.AGENTS)]
    if number >= len(sample_values.AGENTS):
        name = f"{name} {number // len(sample_values.AGENTS) + 1}"
    model = dice.pick(sample_values.MODELS)
    toolset = {
        "enabled_tools": ["Bash", "Read", "Write", "Edit", "Glob", "Grep"],
        "type": "agent_toolset_20260401",
    }
    created = int(identity.split("_")[1][:12], 16) * 1_000_000
    archived = stamp(created + (now - created) // 2) if number == -1 else None
    return {
        "archived_at": archived,
        "created_at": stamp(created),
        "description": description,
        "id": identity,
        "mcp_servers": [],
        "metadata": {"team": dice.pick(sample_values.TEAMS)} if dice.percent(50) else {},
        "model": {"effective_context_window": 200_000, "id": model} if dice.percent(50) else model,
        "multiagent": None,
        "name": name,
        "skills": [],
        "system": dice.pick(sample_values.SYSTEMS),
        "tools": [toolset] if dice.percent(70) else [],
        "type": "agent",
        "updated_at": archived or stamp(created + dice.below(100) * DAY),
        "version": number % 7 + 2,
    }


def environment_record(identity: str, number: int, now: int) -> Record:
    """Write an environment; the parameters are those of `agent_record`."""
    name, description, packages = sample_values.ENVIRONMENTS[number % len(sample_values.ENVIRONMENTS)]
    if number >= len(sample_values.ENVIRONMENTS):
        name = f"{name} {number // len(sample_values.ENVIRONMENTS) + 1}"
    created = int(identity.split("_")[1][:12], 16) * 1_000_000
    archived = stamp(created + (now - created) // 2) if number == -1 else None
    kinds = ("apt", "cargo", "gem", "go", "npm", "pip")
    listed = {kind: list(packages) if kind == "apt" else [] for kind in kinds}
    return {
        "archived_at": archived,
        "config": {"packages": listed | {"type": "packages"}, "type": "cloud"},
        "created_at": stamp(created),
        "description": description,
        "id": identity,
        "metadata": {},
        "name": name,
        "type": "environment",
        "updated_at": archived or stamp(created),
    }


def numbered(prefix: str, ids: list[str], now: int) -> dict[str, int]:
    """Return the number of each agent or environment by id, oldest first, with one archived and one unused."""
    archived, unused = (f"{prefix}_{uuid7(now - days * DAY, days)}" for days in (820, 120))
    numbers = {identity: number for number, identity in enumerate(ids)} | {archived: -1, unused: len(ids)}
    return dict(sorted(numbers.items()))


def _evaluations(session: Session, deployment: Record) -> list[Record]:
    """Write how the outcome was judged, where the deployment defines one."""
    defines = any(event["type"] == "user.define_outcome" for event in deployment.get("initial_events", ()))
    if not defines or session.end != End.DONE:
        return []
    return [
        {
            "completed_at": stamp(session.ended + MINUTE // 60),
            "description": sample_values.OUTCOME,
            "explanation": "Every number has a source.",
            "iteration": 1,
            "outcome_id": f"outc_{uuid7(session.created, 1)}",
            "result": "satisfied",
            "type": "outcome_evaluation",
        }
    ]


def _cut(amount: float) -> float:
    """Cut credits to two decimals."""
    return int(amount * 100) / 100
