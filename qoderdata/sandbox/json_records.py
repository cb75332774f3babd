"""Write deployments and runs as JSON objects, with the keys in the service's order.

The writers give the records of edition C. `DeploymentRecords.as_d` and `run_of_d` convert such a record to
edition D.
Small choices, such as a description, only depend on the record's id.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from qoderdata.sandbox.account import ARCHIVED, PAUSED, PAUSED_BY_ERROR, upcoming
from qoderdata.sandbox.run_history import COMPLETED, FAILED, RUNNING, STATUSES, TRIGGERS, streaks
from qoderdata.sandbox.sample_values import DAY, NAMES, SECOND, TEXTS, Dice, stamp, uuid7
from qoderdata.sandbox.scenarios import Refusal

if TYPE_CHECKING:
    from qoderdata.sandbox.account import Fleet
    from qoderdata.sandbox.run_history import Runs

#: One JSON object.
Record = dict[str, Any]

#: Go's zero time, which the service may send if there is no time.
_ZERO_TIME = "0001-01-01T00:00:00Z"
#: Budgets of deployments, in credits.
BUDGETS = ("5.00", "12.50", "50.00")


class DeploymentRecords:
    """Write the deployments of a fleet, sorted by creation; some may have the fields of newer editions."""

    def __init__(self, fleet: Fleet, runs: Runs, ids: list[str], *, new_fields: bool) -> None:
        self._fleet, self._ids, self._new_fields = fleet, ids, new_fields
        self._total = np.bincount(runs.deployment, minlength=len(fleet))
        self._failures = np.bincount(runs.deployment[runs.status == FAILED], minlength=len(fleet))
        self._streaks = streaks(runs, len(fleet))
        self._last = np.zeros(len(fleet), dtype=np.int64)
        np.maximum.at(self._last, runs.deployment, runs.triggered)
        # Most deployments of a pair have the same end time, which is now.
        self._times = cache(lambda pair, end: [stamp(at) for at in upcoming(fleet.pairs[pair], end)])

    def _updated(self, index: int) -> int:
        """Return the time of the last update, in nanoseconds since 1970."""
        fleet = self._fleet
        created, end = int(fleet.created[index]), int(fleet.ends[index])
        if end != fleet.now:
            return max(end, created)
        if not fleet.edited[index]:
            return created
        share = 1 + Dice(f"{self._ids[index]}/updated").below(99)
        return created + (end - created) // 1_000 * share // 100 * 1_000

    def write(self, index: int) -> Record:
        """Write one deployment."""
        fleet, identity = self._fleet, self._ids[index]
        dice = Dice(identity)
        number, role = int(fleet.number[index]), int(fleet.role[index])
        created, updated = stamp(int(fleet.created[index])), self._updated(index)
        archived = role == ARCHIVED
        name, description = _name_and_description(number, dice)
        record: Record = {
            "agent": {
                "id": fleet.agents[fleet.agent[index]],
                "type": "agent",
                "version": int(fleet.agent[index]) % 7 + 1 + dice.below(2),
            },
            "archived_at": stamp(updated) if archived else None,
            "created_at": created,
            "description": description,
            "environment_id": fleet.environments[fleet.environment[index]],
            "id": identity,
            "initial_events": _initial_events(dice),
            "metadata": self._metadata(index, dice),
            "name": f"{name}_archived_{updated // SECOND}" if archived else name,
            "paused_reason": _pause(role, identity),
            "resources": _resources(dice),
            "schedule": self._schedule(index),
            "status": "paused" if role in (PAUSED, PAUSED_BY_ERROR) else "active",
            "type": "deployment",
            "updated_at": stamp(updated),
            "vault_ids": [
                f"vault_{uuid7(fleet.now - 500 * DAY, 1 + dice.below(9))}"
                for _ in range(dice.pick((0, 0, 0, 1, 2)))
            ],
        }
        if self._new_fields:
            record |= self._newer_fields(index)
        return record

    def as_d(self, index: int, record: Record) -> Record:
        """Convert the record of one deployment from edition C to edition D."""
        record["metadata"].pop("cas_config", None)
        record |= {"environment_variables": ""} | self._newer_fields(index)
        for event in record["initial_events"]:
            if isinstance(event.get("content"), str):
                event["content"] = [{"text": event["content"], "type": "text"}]
        return dict(sorted(record.items()))

    def _newer_fields(self, index: int) -> Record:
        """Return the fields of one deployment that earlier editions than D may lack, as far as it has them."""
        if index >= len(self._fleet):
            return {}
        identity, number = self._ids[index], int(self._fleet.number[index])
        fields: Record = {}
        if self._fleet.has_budget[index]:
            fields["budget"] = {"max_credit_cost": Dice(f"{identity}/budget").pick(BUDGETS), "type": "limit"}
        if number % 16 == 7:
            separator = "\n" if number % 32 == 7 else ";"
            fields["environment_variables"] = f"REPORT_TOKEN=sandbox-secret-{identity[-8:]}{separator}MODE=nightly"
        return fields

    def _upcoming(self, index: int) -> list[str]:
        """Write the next triggers after a deployment's end time."""
        return self._times(int(self._fleet.pair[index]), int(self._fleet.ends[index]))

    def _schedule(self, index: int) -> Record | None:
        fleet = self._fleet
        if fleet.pair[index] < 0:
            return None
        pair = fleet.pairs[fleet.pair[index]]
        schedule: Record = {"expression": pair.expression}
        if self._last[index]:
            schedule["last_run_at"] = stamp(int(self._last[index]))
        schedule["timezone"] = pair.timezone
        schedule["type"] = "cron"
        schedule["upcoming_runs_at"] = [] if fleet.role[index] == ARCHIVED else self._upcoming(index)
        return schedule

    def _metadata(self, index: int, dice: Dice) -> Record:
        """Write the keys of callers, and the reserved key of the service."""
        metadata: Record = {}
        number = int(self._fleet.number[index])
        if number % 40 != 29:  # one in forty has none
            metadata["cas_config"] = self._cas_config(index, leave_out=number % 40)
        for key, values, share in (
            ("cost_center", ("1000", "2040", "=3+4", "007"), 25),
            ("owner", TEXTS["owners"], 70),
            ("priority", ("high", "low", "p1"), 20),
            ("team", TEXTS["teams"], 85),
            ("环境", ("生产", "测试"), 10),
        ):
            if dice.percent(share):
                metadata[key] = dice.pick(values)
        return metadata

    def _cas_config(self, index: int, *, leave_out: int) -> Record:
        """Write the service's settings and counters; parts of them may be absent."""
        fleet = self._fleet
        stats: Record = {"consecutive_failures": int(self._streaks[index])}
        if self._last[index]:
            stats["last_triggered_at"] = stamp(int(self._last[index]))
        if fleet.pair[index] >= 0:
            stats["next_trigger_at"] = self._upcoming(index)[0]
        elif leave_out % 3:
            stats["next_trigger_at"] = _ZERO_TIME if leave_out % 3 == 1 else None
        stats["total_failures"] = int(self._failures[index])
        stats["total_runs"] = int(self._total[index])
        config = {
            "max_concurrent": 1 + int(fleet.number[index]) % 9 // 7,
            "max_retries": int(fleet.retries[index]),
            "timeout_ms": int(fleet.timeout[index]),
        }
        parts = {
            "config": config,
            "session_strategy": "reuse" if fleet.reuses_session[index] else "new_session",
            "stats": stats,
        }
        absent = {31: "config", 33: "session_strategy", 37: "stats"}.get(leave_out)
        return {name: part for name, part in parts.items() if name != absent}


def run_record(
    fleet: Fleet, run: dict[str, Any], deployment_id: str, session_id: str | None, error: Record | None
) -> Record:
    """Write a run of edition C from its row in the database.

    `session_id` is the id of its session, `error` the reason why it failed.
    """
    dice = Dice(run["id"])
    status, started, completed = run["status"], run["started"], run["completed"]
    agent = run["agent"]
    begun, ended = status in (RUNNING, COMPLETED, FAILED), status in (COMPLETED, FAILED)
    extras: Record = {"attempt": run["attempt"]}
    if begun:
        extras |= {"started_at": stamp(started), "turn_id": f"turn_{uuid7(started, dice.below(1 << 54))}"}
    record: Record = {
        "agent": {"id": fleet.agents[agent], "type": "agent", "version": agent % 7 + 1},
        "created_at": stamp(run["created"]),
        "deployment_id": deployment_id,
        "error": error,
        "id": run["id"],
        "status": STATUSES[status],
        "trigger_context": {"type": TRIGGERS[run["trigger"]]},
        "triggered_at": stamp(run["triggered"]),
        "type": "deployment_run",
    }
    if run["attempt"] > 1 or run["by_test"] or not dice.percent(4):
        record["cas_run_extras"] = extras
    if ended:
        record |= {"completed_at": stamp(completed), "duration_ms": (completed - started) // 1_000_000}
    if begun and session_id is not None:
        record["session_id"] = session_id
    return dict(sorted(record.items()))


def _name_and_description(number: int, dice: Dice) -> tuple[str, str | None]:
    examples = TEXTS["examples"]
    if 2 <= number < len(examples) + 2:
        name, description = examples[number - 2]
        return name, description
    name = NAMES[(number * 193) % len(NAMES)]
    if rounds := number // len(NAMES):
        name += f" {rounds + 1}"
    return name, None if dice.percent(12) else dice.pick(TEXTS["descriptions"])


def _pause(role: int, identity: str) -> Record | None:
    """Return the reason why a deployment is paused; an error is that of its last run."""
    if role == PAUSED:
        return {"type": "manual"}
    if role == PAUSED_BY_ERROR:
        return {"error": {"type": refusal_error(Refusal.PAUSING, identity)["type"]}, "type": "error"}
    return None


def refusal_error(refusal: int, deployment_id: str) -> Record:
    """Return the error of a run that has no session."""
    if refusal == Refusal.PAUSING:
        kind, message = Dice(f"{deployment_id}/pause").pick(TEXTS["pausing_errors"])
    else:
        kind, message = TEXTS["rejected"] if refusal == Refusal.REJECTED else TEXTS["rate_limited"]
    return {"message": message, "type": kind}


def run_of_d(record: Record, scheduled: int, session_id: str | None, error: Record | None) -> Record:
    """Convert a run of edition C to edition D: with its own session, or an error instead.

    `scheduled` is the scheduled time in nanoseconds since 1970, or 0 for a run that the schedule did not trigger.
    """
    context: Record = {"scheduled_at": stamp(scheduled), "type": "schedule"} if scheduled else {"type": "manual"}
    return {
        "agent": record["agent"],
        "created_at": record["created_at"],
        "deployment_id": record["deployment_id"],
        "error": error,
        "id": record["id"],
        "session_id": session_id,
        "trigger_context": context,
        "type": "deployment_run",
    }


def _initial_events(dice: Dice) -> list[Record]:
    """Choose what a session starts with; `content` is a text or a list of blocks."""
    prompt = dice.pick(TEXTS["prompts"])
    events: list[Record] = []
    if dice.percent(25):
        events.append({"content": [{"text": TEXTS["system_prompt"], "type": "text"}], "type": "system.message"})
    content: str | list[Record] = prompt
    if not dice.percent(60):
        content = [{"text": text, "type": "text"} for text in (prompt, dice.pick(TEXTS["descriptions"]))]
    events.append({"content": content, "type": "user.message"})
    if dice.percent(12):
        events.append(
            {
                "description": TEXTS["outcome"],
                "max_iterations": 3,
                "rubric": {"content": TEXTS["rubric"], "type": "text"},
                "type": "user.define_outcome",
            }
        )
    return events


def _resources(dice: Dice) -> list[Record]:
    """Choose what a session can reach."""
    resources: list[Record] = []
    if dice.percent(45):
        repository = dice.pick(("reports", "platform", "数据平台", "web & app"))
        resources.append(
            {
                "checkout": {"name": dice.pick(("main", "release/2026-06")), "type": "branch"},
                "mount_path": f"/workspace/{repository}",
                "type": "github_repository",
                "url": f"https://git.example.invalid/acme/{repository}",
            }
        )
    if dice.percent(15):
        file = f"file_{uuid7(1, dice.below(1 << 54))}"
        resources.append({"file_id": file, "mount_path": "/data/in.csv", "type": "file"})
    return resources
