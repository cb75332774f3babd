"""What do a session's events, its run's record up to edition C, and its run's outcome say of what happened?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qoderdata.sandbox import sample_values
from qoderdata.sandbox.run_history import ERRORS
from qoderdata.sandbox.sample_values import SECOND, Dice, stamp, uuid7
from qoderdata.sandbox.stories import FINAL, TERMINATED, Before, End, Later

_STOP_REASONS = {
    End.DONE: "end_turn",
    End.UNKNOWN: "max_iterations_reached",
    End.CANCELLED: "cancelled",
    **dict.fromkeys((End.EXHAUSTED, End.SOFT, End.BARE), "retries_exhausted"),
    End.BUDGET: "budget_reached",
}
#: What edition D can tell of a run; of all other ends, that it failed.
_TOLD = {
    **dict.fromkeys((End.FRESH, End.RUNNING), "running"),
    **dict.fromkeys((End.SILENT, End.DONE, End.QUIET), "completed"),
    End.WAITING: "waiting",
    End.CANCELLED: "cancelled",
    End.UNKNOWN: None,
}
#: What run records say of failures that have no error of the session.
_NAMED = {
    End.CANCELLED: ("cancelled", "The session was cancelled."),
    End.BARE: ("retries_exhausted", "The session gave up after several retries."),
    End.BUDGET: ("budget_reached", "The session reached its budget."),
    End.TERMINATED: ("session_terminated", "The session was terminated."),
    End.SILENT_TERMINATED: ("session_terminated", "The session was terminated."),
}


@dataclass(frozen=True)
class Session:
    """One row of `stories.Stories`, with its id and what its deployment gives to it."""

    id: str
    deployment: int
    agent: int
    created: int
    started: int
    ended: int
    asked: int
    continued: int
    continued_end: int
    archived: int
    updated: int
    before: int
    end: int
    later: int
    error: int
    status: int
    has_start: bool
    has_end: bool
    timeout: int
    duration: float
    """Of a typical run of the deployment; both in milliseconds."""

    @property
    def failure(self) -> tuple[str, str]:
        """The type and message of the session's error."""
        message = Dice(f"{self.id}/error").pick(sample_values.MESSAGES[self.error])
        return ERRORS[self.error], message.replace("{timeout}", str(self.timeout))


def told_by_record(session: Session) -> tuple[str, str]:
    """Return the error of a failed run as its record tells it, up to edition C."""
    return _NAMED.get(End(session.end)) or session.failure


def told_by_events(session: Session) -> dict[str, Any]:
    """Return what edition D tells of the run of a session, by the session and its events.

    Parameters
    ----------
    session
        The session.

    Returns
    -------
    dict
        ``status``, ``status_from``, ``error_type``, ``error_message``, ``started_at``, ``completed_at``; what
        nobody can know is None.
    """
    end = End(session.end)
    silent = end in (End.FRESH, End.RUNNING, End.SILENT, End.SILENT_TERMINATED)
    told: dict[str, Any] = {
        "status": _TOLD.get(end, "failed"), "status_from": "session" if silent else "events", "error_type": None,
        "error_message": None, "started_at": stamp(session.created), "completed_at": None,
    }  # fmt: skip
    if told["status"] == "failed" and session.error >= 0:
        told["error_type"], told["error_message"] = session.failure
    elif told["status"] == "failed":
        told["error_type"] = _STOP_REASONS.get(end, "session_terminated")
    if session.has_start and end not in (End.FRESH, End.SILENT, End.SILENT_TERMINATED):
        told["started_at"] = stamp(session.started)
    decided = not silent and told["status"] in ("completed", "failed", "cancelled")
    if decided and session.has_end:
        told["completed_at"] = stamp(session.ended)
    return told


class _Writer:
    """The events of one session as they are written, in order."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.events: list[dict[str, Any]] = []

    def add(self, kind: str, at: int, *, timed: bool | None = None, **content: Any) -> str:  # noqa: ANN401 - JSON
        """Write an event; one in twenty has no time, unless `timed` decides."""
        index = len(self.events)
        dice = Dice(f"{self._session.id}/{index}")
        identity = f"evt_{uuid7(self._session.created + index * 1_000_000, dice.below(1 << 54))}"
        event = {"id": identity, "type": kind} | content
        if dice.percent(95) if timed is None else timed:
            event["processed_at"] = stamp(at)
        self.events.append(event)
        return identity

    def error(self, at: int, retry: str | None, *, timed: bool | None = None, message: str | None = None) -> None:
        """Write the session's error, or a passing one."""
        kind, text = self._session.failure if message is None else ("api_error", message)
        error: dict[str, Any] = {"message": text, "type": kind}
        if retry is not None:
            error["retry_status"] = {"type": retry}
        self.add("session.error", at, timed=timed, error=error)

    def idle(self, at: int, reason: str | None, *, timed: bool | None = None, **details: Any) -> None:  # noqa: ANN401
        """Write the end of a turn."""
        stop = {} if reason is None else {"stop_reason": {"type": reason} | details}
        self.add("session.status_idle", at, timed=timed, **stop)

    def message(self, kind: str, at: int, text: str) -> None:
        """Write what a person or the agent said."""
        self.add(kind, at, content=[{"text": text, "type": "text"}])


def event_list(session: Session, *, prompt: str, credits_used: float, now: int) -> list[dict[str, Any]]:
    """Write the events of a session, oldest first.

    Parameters
    ----------
    session
        The session.
    prompt
        What it was asked.
    credits_used
        What its models cost; shared out over the model calls.
    now
        The clock. Events of a session that runs grow with it, and none ever changes.

    Returns
    -------
    list of dict
        The events.
    """
    writer, dice, end = _Writer(session), Dice(f"{session.id}/events"), End(session.end)
    writer.message("user.message", session.created, prompt)
    if end == End.FRESH:
        return writer.events
    if end in (End.SILENT, End.SILENT_TERMINATED):
        writer.message("agent.message", session.started, dice.pick(sample_values.REPLIES))
        return writer.events
    writer.add("session.status_running", session.started, timed=session.has_start)
    _recover(writer, session, dice)
    if end == End.RUNNING and session.before == Before.RESCHEDULED:
        return writer.events
    _work(writer, session, dice, credits_used, now)
    if session.asked:
        _ask(writer, session)
    if end in (End.WAITING, End.RUNNING):
        return writer.events
    _finish(writer, session, end, dice)
    if session.later:
        _continue(writer, session, Later(session.later), dice)
    if session.archived and session.status == TERMINATED and end in FINAL:
        writer.add("session.status_terminated", session.archived)
    return writer.events


def _recover(writer: _Writer, session: Session, dice: Dice) -> None:
    """Write the errors after which work went on."""
    at = session.started
    rounds = 45 if dice.percent(5) else dice.pick((1, 1, 2, 3))
    if session.before == Before.RECOVERED:
        for _ in range(rounds):
            writer.error(at, "retrying", message=dice.pick(sample_values.PASSING))
            writer.add("session.status_rescheduled", at)
            writer.add("session.status_running", at)
    elif session.before == Before.VOIDED:
        writer.error(at, "exhausted", message=dice.pick(sample_values.PASSING))
        if dice.percent(40):
            writer.add("session.status_rescheduled", at)
        writer.add("session.status_running", at)
    elif session.before == Before.RESCHEDULED:
        writer.error(at, "retrying", message=dice.pick(sample_values.PASSING))
        writer.add("session.status_rescheduled", at)
        if session.end != End.RUNNING:
            writer.add("session.status_running", at)


def _ask(writer: _Writer, session: Session) -> None:
    """Write that the session asked a person, and the answer if there was one."""
    at, command = session.asked, {"command": "git push"}
    tool = writer.add("agent.tool_use", at, input=command, name="Bash", evaluated_permission="ask")
    writer.idle(at, "requires_action", event_ids=[tool])
    if session.end != End.WAITING:
        writer.add("user.tool_confirmation", session.ended, result="allow", tool_use_id=tool)
        writer.add("session.status_running", session.ended)


def _work(writer: _Writer, session: Session, dice: Dice, credits_used: float, now: int) -> None:
    """Write model calls and tool calls; those of a turn that still runs as far as the clock."""
    calls = 40 + dice.below(41) if dice.percent(3) else dice.pick((1, 2, 2, 3, 5, 8))
    pace = int(session.duration * 1_000_000 / (calls + 1))
    for number in range(calls):
        at = session.started + pace * number
        if session.end == End.RUNNING and at > now:
            return
        stop = session.asked or session.ended
        at = min(at, stop) if stop else at
        failed = dice.percent(2)
        usage = {
            "credits": round(credits_used / calls, 4),
            "input_tokens": 900 + 37 * number,
            "output_tokens": 120,
        }
        writer.add("span.model_request_end", at, is_error=failed, model_usage=usage)
        name = dice.pick(("Bash", "Read", "Grep", "Write"))
        tool = writer.add("agent.tool_use", at, input={"path": f"/workspace/{number}"}, name=name)
        writer.add(
            "agent.tool_result", at, content=[{"text": "ok", "type": "text"}], is_error=False, tool_use_id=tool
        )


def _finish(writer: _Writer, session: Session, end: End, dice: Dice) -> None:
    """Write the end of the first turn."""
    at, timed = session.ended, session.has_end
    if end in (End.DONE, End.QUIET, End.UNKNOWN):
        # Sometimes a message is processed after the turn has ended.
        late = SECOND if dice.percent(5) else 0
        writer.message("agent.message", at + late, dice.pick(sample_values.REPLIES))
    if end == End.CANCELLED:
        writer.add("user.interrupt", at)
    if end == End.FATAL:
        writer.error(at, dice.pick(("exhausted", "terminal")), timed=timed)
        return
    if end in (End.EXHAUSTED, End.FATAL_IDLE, End.SOFT):
        writer.error(at, None if end == End.SOFT else "exhausted")
    elif end == End.TERMINAL:
        writer.error(at, "terminal")
    if end in (End.TERMINAL, End.TERMINATED):
        writer.add("session.status_terminated", at, timed=timed)
    else:
        writer.idle(at, _STOP_REASONS.get(end), timed=timed)


def _continue(writer: _Writer, session: Session, later: Later, dice: Dice) -> None:
    """Write the turn that a person started a day later."""
    at, over = session.continued, session.continued_end
    writer.message("user.message", at, dice.pick(sample_values.FOLLOW_UPS))
    writer.add("session.status_running", at)
    writer.message("agent.message", (at + over) // 2, dice.pick(sample_values.REPLIES))
    if later == Later.DONE:
        writer.idle(over, "end_turn")
    elif later == Later.TERMINATED:
        writer.error(over, "terminal", message=dice.pick(sample_values.PASSING))
        writer.add("session.status_terminated", over)
    elif later == Later.CANCELLED:
        writer.idle(over, "cancelled")
    elif later == Later.EXHAUSTED:
        writer.error(over, "exhausted", message=dice.pick(sample_values.PASSING))
        writer.idle(over, "retries_exhausted")
    elif later == Later.WAITING:
        writer.idle(over, "requires_action", event_ids=[writer.events[-1]["id"]])
