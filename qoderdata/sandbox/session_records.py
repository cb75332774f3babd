"""How are sessions, their events, agents and environments written as JSON, in the form of each edition?"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from qoderdata.sandbox.run_history import ERRORS
from qoderdata.sandbox.sample_values import DAY, SECOND, TEXTS, Dice, stamp, uuid7, uuid7_time
from qoderdata.sandbox.scenarios import FINAL, SESSION_STATUSES, TERMINATED, BeforeEnd, End, SecondTurn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from qoderdata.sandbox.account import Fleet
    from qoderdata.sandbox.json_records import Record
    from qoderdata.sandbox.scenarios import Scenarios

#: The names of `scenarios.SESSION_STATUSES` up to edition B.
OLD_STATUSES = ("processing", *SESSION_STATUSES[1:])
#: The greatest age of sessions whose credits are divided into parts.
_PARTS_SINCE = 45 * DAY
_STOP_REASONS = {
    End.DONE: "end_turn",
    End.UNKNOWN_REASON: "max_iterations_reached",
    End.CANCELLED: "cancelled",
    **dict.fromkeys((End.EXHAUSTED, End.EXHAUSTED_NO_RETRY_STATUS, End.EXHAUSTED_NO_ERROR), "retries_exhausted"),
    End.BUDGET_REACHED: "budget_reached",
}
_LATER_STOP_REASONS = {
    SecondTurn.DONE: "end_turn",
    SecondTurn.CANCELLED: "cancelled",
    SecondTurn.EXHAUSTED: "retries_exhausted",
}
#: The status of a run in edition D by its end; for all other ends it is failed.
_OUTCOMES = {
    **dict.fromkeys((End.FRESH, End.RUNNING), "running"),
    **dict.fromkeys((End.IDLE_WITHOUT_EVENTS, End.DONE, End.IDLE_WITHOUT_REASON), "completed"),
    End.WAITING: "waiting",
    End.CANCELLED: "cancelled",
    End.UNKNOWN_REASON: None,
}
#: The message in run records for failures without an error of the session.
_MESSAGES = {
    "cancelled": "The session was cancelled.",
    "retries_exhausted": "The session gave up after several retries.",
    "budget_reached": "The session reached its budget.",
    "session_terminated": "The session was terminated.",
}


class Session(SimpleNamespace):
    """One row of `scenarios.Scenarios`, with its `id`, and its deployment's `timeout` and typical `duration`.

    Both are in milliseconds.
    """

    @property
    def failure(self) -> tuple[str, str | None]:
        """The type and message of the session's error; the reason why it stopped if it has no error."""
        if self.error < 0:
            return _STOP_REASONS.get(self.end, "session_terminated"), None
        message = Dice(f"{self.id}/error").pick(TEXTS["messages"][ERRORS[self.error]])
        return ERRORS[self.error], message.replace("{timeout}", str(self.timeout))

    def error_in_record(self) -> Record:
        """Return the error in the record of a failed run, up to edition C."""
        kind, message = self.failure
        return {"message": message or _MESSAGES[kind], "type": kind}

    def outcome(self) -> Record:
        """Return the outcome of a run in edition D; unknown values are None."""
        silent = self.end in (End.FRESH, End.RUNNING, End.IDLE_WITHOUT_EVENTS, End.TERMINATED_WITHOUT_EVENTS)
        status = _OUTCOMES.get(self.end, "failed")
        error_type, error_message = self.failure if status == "failed" else (None, None)
        is_start_known = self.has_start and (not silent or self.end == End.RUNNING)
        is_end_known = self.has_end and not silent and status in ("completed", "failed", "cancelled")
        return {
            "status": status,
            "status_from": "session" if silent else "events",
            "error_type": error_type,
            "error_message": error_message,
            "started_at": stamp(self.started if is_start_known else self.created),
            "completed_at": stamp(self.ended) if is_end_known else None,
        }


class _Writer:
    """The events of one session, added one after the other."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._dice = Dice(f"{session.id}/events")
        self.events: list[Record] = []

    def write(self, prompt: str, *, credits_used: float, now: int) -> None:
        """Write all events up to `now`, oldest first; the model calls together cost `credits_used`."""
        session, end = self._session, self._session.end
        self._message("user.message", session.created, prompt)
        if end == End.FRESH:
            return
        if end in (End.IDLE_WITHOUT_EVENTS, End.TERMINATED_WITHOUT_EVENTS):
            self._message("agent.message", session.started, self._dice.pick(TEXTS["replies"]))
            return
        self._add("session.status_running", session.started, timed=session.has_start)
        self._recover()
        if end == End.RUNNING and session.before == BeforeEnd.RESCHEDULED:
            return
        self._write_calls(credits_used, now)
        if session.asked:
            self._write_question()
        if end in (End.WAITING, End.RUNNING):
            return
        self._write_end()
        if session.later:
            self._write_second_turn()
        if session.archived and session.status == TERMINATED and end in FINAL:
            self._add("session.status_terminated", session.archived)

    def _recover(self) -> None:
        """Write the errors after which the turn continued, or will continue."""
        session, dice = self._session, self._dice
        at, before = session.started, session.before
        rounds = 45 if dice.percent(5) else dice.pick((1, 1, 2, 3))
        if before == BeforeEnd.PLAIN:
            return
        is_voided = before == BeforeEnd.VOIDED
        for _ in range(rounds if before == BeforeEnd.RECOVERED else 1):
            self._error(at, "exhausted" if is_voided else "retrying", message=dice.pick(TEXTS["temporary_errors"]))
            if not is_voided or dice.percent(40):
                self._add("session.status_rescheduled", at)
            if before != BeforeEnd.RESCHEDULED or session.end != End.RUNNING:
                self._add("session.status_running", at)

    def _write_question(self) -> None:
        """Write that the session asked a person, and the answer if there was one."""
        session, command = self._session, {"command": "git push"}
        tool = self._add("agent.tool_use", session.asked, input=command, name="Bash", evaluated_permission="ask")
        self._idle(session.asked, "requires_action", event_ids=[tool])
        if session.end != End.WAITING:
            self._add("user.tool_confirmation", session.ended, result="allow", tool_use_id=tool)
            self._add("session.status_running", session.ended)

    def _write_calls(self, credits_used: float, now: int) -> None:
        """Write model calls and tool calls; for a turn that still runs, those up to `now`."""
        session, dice = self._session, self._dice
        calls = 40 + dice.below(41) if dice.percent(3) else dice.pick((1, 2, 2, 3, 5, 8))
        pace = int(session.duration * 1_000_000 / (calls + 1))
        for number in range(calls):
            at = session.started + pace * number
            if session.end == End.RUNNING and at > now:
                return
            stop = session.asked or session.ended
            at = min(at, stop) if stop else at
            usage = {
                "credits": round(credits_used / calls, 4),
                "input_tokens": 900 + 37 * number,
                "output_tokens": 120,
            }
            self._add("span.model_request_end", at, is_error=dice.percent(2), model_usage=usage)
            name = dice.pick(("Bash", "Read", "Grep", "Write"))
            tool = self._add("agent.tool_use", at, input={"path": f"/workspace/{number}"}, name=name)
            content = [{"text": "ok", "type": "text"}]
            self._add("agent.tool_result", at, content=content, is_error=False, tool_use_id=tool)

    def _write_end(self) -> None:
        """Write the end of the first turn."""
        session, dice = self._session, self._dice
        at, timed, end = session.ended, session.has_end, session.end
        if end in (End.DONE, End.IDLE_WITHOUT_REASON, End.UNKNOWN_REASON):
            # Sometimes a message is processed after the end of the turn.
            late = SECOND if dice.percent(5) else 0
            self._message("agent.message", at + late, dice.pick(TEXTS["replies"]))
        if end == End.CANCELLED:
            self._add("user.interrupt", at)
        if end == End.FATAL:
            self._error(at, dice.pick(("exhausted", "terminal")), timed=timed)
            return
        if end in (End.EXHAUSTED, End.FATAL_THEN_IDLE, End.EXHAUSTED_NO_RETRY_STATUS):
            self._error(at, None if end == End.EXHAUSTED_NO_RETRY_STATUS else "exhausted")
        elif end == End.FATAL_THEN_TERMINATED:
            self._error(at, "terminal")
        if end in (End.FATAL_THEN_TERMINATED, End.TERMINATED_NO_ERROR):
            self._add("session.status_terminated", at, timed=timed)
        else:
            self._idle(at, _STOP_REASONS.get(end), timed=timed)

    def _write_second_turn(self) -> None:
        """Write the turn that a person started a day later."""
        session, dice = self._session, self._dice
        at, over, later = session.continued, session.continued_end, session.later
        self._message("user.message", at, dice.pick(TEXTS["follow_ups"]))
        self._add("session.status_running", at)
        self._message("agent.message", (at + over) // 2, dice.pick(TEXTS["replies"]))
        if later in (SecondTurn.TERMINATED, SecondTurn.EXHAUSTED):
            retry = "terminal" if later == SecondTurn.TERMINATED else "exhausted"
            self._error(over, retry, message=dice.pick(TEXTS["temporary_errors"]))
        if later == SecondTurn.TERMINATED:
            self._add("session.status_terminated", over)
        elif later == SecondTurn.WAITING:
            self._idle(over, "requires_action", event_ids=[self.events[-1]["id"]])
        elif later != SecondTurn.RUNNING:
            self._idle(over, _LATER_STOP_REASONS[later])

    def _add(self, kind: str, at: int, *, timed: bool | None = None, **content: Any) -> str:  # noqa: ANN401 - JSON
        """Write an event, and return its id; `timed`: whether it has a time; ``None``: one in twenty has none."""
        index = len(self.events)
        dice = Dice(f"{self._session.id}/{index}")
        identity = f"evt_{uuid7(self._session.created + index * 1_000_000, dice.below(1 << 54))}"
        event = {"id": identity, "type": kind} | content
        if dice.percent(95) if timed is None else timed:
            event["processed_at"] = stamp(at)
        self.events.append(event)
        return identity

    def _error(self, at: int, retry: str | None, *, timed: bool | None = None, message: str | None = None) -> None:
        """Write the session's error, or a temporary one with `message`."""
        kind, text = ("api_error", message) if message else self._session.failure
        error: Record = {"message": text, "type": kind}
        if retry is not None:
            error["retry_status"] = {"type": retry}
        self._add("session.error", at, timed=timed, error=error)

    def _idle(self, at: int, reason: str | None, *, timed: bool | None = None, **details: Any) -> None:  # noqa: ANN401
        """Write the end of a turn."""
        stop = {} if reason is None else {"stop_reason": {"type": reason} | details}
        self._add("session.status_idle", at, timed=timed, **stop)

    def _message(self, kind: str, at: int, text: str) -> None:
        """Write what a person or the agent said."""
        self._add(kind, at, content=[{"text": text, "type": "text"}])


class SessionRecords:
    """Write the sessions of an account, and their events.

    `row` returns one row of the scenarios with its `id`. `template` returns a deployment as it was created, in the
    form of edition D.
    """

    def __init__(
        self, fleet: Fleet, row: Callable[[int], dict[str, Any]], template: Callable[[int], Record]
    ) -> None:
        self._fleet, self._row = fleet, row
        self._template, self._snapshots = cache(template), cache(self._snapshot)

    def _deployment(self, session: Session) -> Record:
        """Return the deployment that started a session, as it was created; empty if a person started it."""
        return self._template(session.deployment) if session.deployment >= 0 else {}

    def session(self, index: int) -> Session:
        """Return one row of the scenarios."""
        row = self._row(index)
        fleet, deployment = self._fleet, row["deployment"]
        timeout, duration = 300_000, 20_000.0
        if 0 <= deployment < len(fleet):
            timeout, duration = int(fleet.timeout[deployment]), float(fleet.duration[deployment])
        return Session(timeout=timeout, duration=duration, **row)

    def write(self, indices: list[int], edition: str) -> Record:
        """Write a session in the form of an edition.

        In editions in which one session served several runs, the further indices are those of the other runs.
        """
        sessions = [self.session(index) for index in indices]
        session, last = sessions[0], sessions[-1]
        dice = Dice(session.id)
        deployment = self._deployment(session)
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
            "status": (OLD_STATUSES if edition in "AB" else SESSION_STATUSES)[last.status],
            "title": deployment.get("name") or dice.pick(TEXTS["titles"]),
            "type": "session",
            "updated_at": stamp(max(one.updated for one in sessions)),
            "vault_ids": deployment.get("vault_ids", []),
        }
        if "budget" in deployment:
            record["budget"] = deployment["budget"]
        usage = self._usage(sessions)
        if usage is not None and edition not in "AB":
            record["usage"] = usage
        return record

    def events(self, indices: list[int], now: int) -> list[Record]:
        """Write the events of one session, which may have several indices as in `write`."""
        events: list[Record] = []
        for index in indices:
            session = self.session(index)
            prompts = (
                event["content"][0]["text"]
                for event in self._deployment(session).get("initial_events", ())
                if event["type"] == "user.message"
            )
            prompt = next(prompts, None) or Dice(session.id).pick(TEXTS["prompts"])
            models, _ = self._credits(session)
            writer = _Writer(session)
            writer.write(prompt, credits_used=models, now=now)
            events += writer.events
        return events

    def _credits(self, session: Session) -> tuple[float, float]:
        """Return the credits for models and for runtime."""
        deployment = self._deployment(session)
        base = 0.12 * 1.6 ** Dice(f"{deployment.get('id')}/credits").below(9)
        dice = Dice(f"{session.id}/credits")
        total = base * (0.5 + dice.below(1_000) / 1_000) * (2.5 if dice.percent(3) else 1)
        if "budget" in deployment:
            budget = float(deployment["budget"]["max_credit_cost"])
            total = budget + 0.004 if session.end == End.BUDGET_REACHED else min(total, 0.96 * budget)
        return total * 0.83, total * 0.17

    def _usage(self, sessions: list[Session]) -> Record | None:
        """Return the credits of a session so far, cut to two decimals; sometimes None."""
        session = sessions[-1]
        dice = Dice(f"{session.id}/usage")
        if session.end == End.FRESH and len(sessions) == 1:
            return {"total_credits": 0}
        if dice.percent(6):
            return None
        if dice.percent(3):
            return {"total_credits": 0}
        models, runtime = (sum(part) for part in zip(*map(self._credits, sessions), strict=True))
        usage: Record = {"total_credits": _two_decimals(models + runtime)}
        if session.created > self._fleet.now - _PARTS_SINCE:
            usage = {
                "model_credits": _two_decimals(models),
                "sandbox_runtime_credits": _two_decimals(runtime),
            } | usage
        return usage

    def _snapshot(self, agent: int) -> Record:
        """Write the agent at the time when the session began; the same for all sessions of one version."""
        record = agent_record(self._fleet.agents[agent], agent, self._fleet.now)
        kept = ("description", "id", "mcp_servers", "model", "name", "skills", "system", "tools", "type")
        return {name: record[name] for name in kept} | {"version": agent % 7 + 1}


def served_sessions(fleet: Fleet, scenarios: Scenarios) -> NDArray[np.int64]:
    """Return for each session the one served in its place up to edition C; three runs share a reused session."""
    index = np.arange(len(scenarios))
    if not len(fleet):
        return index
    is_shared = (scenarios.deployment >= 0) & fleet.reuses_session[scenarios.deployment]
    which = np.flatnonzero(is_shared & (scenarios.end != End.FRESH))
    order = which[np.argsort(scenarios.deployment[which], kind="stable")]
    deployments = scenarios.deployment[order]
    first = np.searchsorted(deployments, deployments)
    position = np.arange(len(order))
    index[order] = order[position - (position - first) % 3]
    return index


def agent_record(identity: str, number: int, now: int) -> Record:
    """Write an agent; its id has the time of its creation, and number -1 is archived."""
    dice = Dice(f"{identity}/agent")
    name, description = _entry(TEXTS["agents"], number)
    model = dice.pick(TEXTS["models"])
    toolset = {
        "enabled_tools": ["Bash", "Read", "Write", "Edit", "Glob", "Grep"],
        "type": "agent_toolset_20260401",
    }
    created = uuid7_time(identity)
    archived = _archived(created, number, now)
    return {
        "archived_at": archived,
        "created_at": stamp(created),
        "description": description,
        "id": identity,
        "mcp_servers": [],
        "metadata": {"team": dice.pick(TEXTS["teams"])} if dice.percent(50) else {},
        "model": {"effective_context_window": 200_000, "id": model} if dice.percent(50) else model,
        "multiagent": None,
        "name": name,
        "skills": [],
        "system": dice.pick(TEXTS["systems"]),
        "tools": [toolset] if dice.percent(70) else [],
        "type": "agent",
        "updated_at": archived or stamp(created + dice.below(100) * DAY),
        "version": number % 7 + 2,
    }


def environment_record(identity: str, number: int, now: int) -> Record:
    """Write an environment, as `agent_record` does an agent."""
    name, description, packages = _entry(TEXTS["environments"], number)
    created = uuid7_time(identity)
    archived = _archived(created, number, now)
    others: Record = {kind: [] for kind in ("cargo", "gem", "go", "npm", "pip")}
    return {
        "archived_at": archived,
        "config": {"packages": {"apt": list(packages), **others, "type": "packages"}, "type": "cloud"},
        "created_at": stamp(created),
        "description": description,
        "id": identity,
        "metadata": {},
        "name": name,
        "type": "environment",
        "updated_at": archived or stamp(created),
    }


def _entry(listed: Sequence[tuple[Any, ...]], number: int) -> tuple[Any, ...]:
    """Return an entry of a list; after its end, start again and add a number to the name."""
    rounds, position = divmod(number, len(listed))
    name, *rest = listed[position]
    return (f"{name} {rounds + 1}" if rounds > 0 else name, *rest)


def _archived(created: int, number: int, now: int) -> str | None:
    return stamp(created + (now - created) // 2) if number == -1 else None


def _evaluations(session: Session, deployment: Record) -> list[Record]:
    """Write how the outcome was evaluated, if the deployment defines one."""
    defines = any(event["type"] == "user.define_outcome" for event in deployment.get("initial_events", ()))
    if not defines or session.end != End.DONE:
        return []
    return [
        {
            "completed_at": stamp(session.ended + SECOND),
            "description": TEXTS["outcome"],
            "explanation": "Every number has a source.",
            "iteration": 1,
            "outcome_id": f"outc_{uuid7(session.created, 1)}",
            "result": "satisfied",
            "type": "outcome_evaluation",
        }
    ]


def _two_decimals(amount: float) -> float:
    """Cut credits to two decimals."""
    return int(amount * 100) / 100
