"""A fake service of edition D for tests of the loaders over real HTTP, written only from the API's description.

`KINDS` gives the expected outcome of each kind of run; its session and events are made to match.
The module repeats no rule of the package.
"""

from __future__ import annotations

import bisect
import http.server
import json
import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence

TOKEN = "pt-edition-d-test-token"  # noqa: S105 - of no service
#: Part of every secret value of the account; it must not be in anything that a user sees.
SECRET = "s3cr3t"  # noqa: S105 - of no service
Record = dict[str, Any]


class Kind(NamedTuple):
    """The events of a session, and the expected outcome of its run.

    A script has one step per event: the type without ``session.status_``, and a stop reason or retry status. Marks
    before a step: ``^`` the run's start, ``$`` its end, ``!`` the error that it failed with, ``-`` no time,
    ``@90`` 90 minutes after the session's start. ``day``: the next step is a day later.
    """

    name: str
    runs: int
    script: str
    status: str | None = "completed"
    status_from: str | None = "events"
    error: str | None = None
    session: str | None = "idle"
    archived: bool = False
    eventless: str | None = "completed"  # the status expected from the run and its session, without events
    eventless_from: str | None = "session"
    eventless_error: str | None = None
    seconds: float = 0
    served: str = "listed"  # or "by id", "gone": how the session is served
    requests: int = 1  # needed to read its events

    @property
    def is_open(self) -> bool:
        """Whether the run may still change."""
        return self.status in {"running", "waiting", "pending"} or self.status_from == "session"


_TERMINATED: dict[str, Any] = {
    "session": "terminated",
    "eventless": "failed",
    "eventless_error": "session_terminated",
}
_RUNNING: dict[str, Any] = {"status": "running", "status_from": "session", "eventless": "running", "requests": 0}
_NONE: dict[str, Any] = {"requests": 0, "session": None}
KINDS = (
    Kind("done", 110, "^run; msg; call; $idle end_turn"),
    Kind("done, without a reason", 10, "^run; $idle"),
    Kind("done, the reason is null", 5, "^run; $idle null"),
    Kind("done, the reason is empty", 5, "^run; $idle {}"),
    Kind("done, without a start", 6, "$idle end_turn"),
    Kind("recovered", 10, "^run; error retrying; rescheduled; run; $idle end_turn"),
    Kind("fatal, then a new turn", 5, "^run; error exhausted; run; $idle"),
    Kind("fatal, then rescheduled", 6, "^run; error terminal; rescheduled; $idle"),
    Kind("fatal, then done", 6, "^run; error exhausted; $idle end_turn"),
    Kind("an error after the end", 6, "^run; $idle end_turn; error terminal"),
    Kind("an error, done without a reason", 6, "^run; error retrying; $idle"),
    Kind("an error without a retry status", 6, "^run; error; $idle"),
    Kind("cancelled", 12, "^run; $idle cancelled", "cancelled"),
    Kind("cancelled after an error", 5, "^run; error exhausted; $idle cancelled", "cancelled"),
    Kind("out of retries", 13, "^run; !error exhausted; $idle retries_exhausted", "failed"),
    Kind("out of retries, no error", 6, "^run; $idle retries_exhausted", "failed", error="retries_exhausted"),
    Kind("out of budget", 10, "^run; $idle budget_reached", "failed", error="budget_reached"),
    Kind("out of budget after an error", 6, "^run; error retrying; !error retrying; $idle budget_reached",
         "failed"),
    Kind("fatal, then another", 5, "^run; !error exhausted; error retrying; $idle retries_exhausted", "failed"),
    Kind("fatal twice", 5, "^run; error exhausted; !error terminal; $idle retries_exhausted", "failed"),
    Kind("fatal, a new turn, out of retries", 5, "^run; !error exhausted; run; $idle retries_exhausted", "failed"),
    Kind("fatal, idle without a reason", 6, "^run; !error exhausted; $idle", "failed"),
    Kind("fatal, no end", 5, "^run; $!error exhausted", "failed"),
    Kind("terminal, no end", 6, "^run; $!error terminal; msg", "failed"),
    Kind("fatal, then waits", 5, "^run; $!error exhausted; idle requires_action", "failed"),
    Kind("terminated", 10, "^run; !error terminal; $terminated", "failed", **_TERMINATED),
    Kind("terminated, no error", 6, "^run; $terminated", "failed", error="session_terminated", **_TERMINATED),
    Kind("terminated after an error", 5, "^run; !error retrying; $terminated", "failed", **_TERMINATED),
    Kind("terminated, archived", 6, "^run; !error terminal; $terminated", "failed", session="terminated",
         archived=True),
    Kind("terminated, no end", 5, "^run; msg", "failed", "session", "session_terminated", **_TERMINATED),
    Kind("terminated, no events", 5, "", "failed", "session", "session_terminated", **_TERMINATED),
    Kind("done, then terminated", 5, "^run; $idle end_turn; day; run; terminated", **_TERMINATED),
    Kind("waits", 8, "^run; idle requires_action", "waiting"),
    Kind("waits, archived", 3, "^run; idle requires_action", "waiting", archived=True),
    Kind("waited", 5, "^run; idle requires_action; run; $idle end_turn"),
    Kind("done, then waits", 5, "^run; $idle end_turn; day; run; idle requires_action"),
    Kind("continued, failed", 6, "^run; $idle end_turn; day; run; error terminal; idle retries_exhausted"),
    Kind("failed, continued", 6, "^run; !error exhausted; $idle retries_exhausted; day; run; idle end_turn",
         "failed"),
    Kind("cancelled, continued", 5, "^run; $idle cancelled; day; run; idle end_turn", "cancelled"),
    Kind("unknown stop", 6, "^run; idle handed_over", None),
    Kind("unknown stop, continued", 5, "^run; idle handed_over; day; run; idle end_turn", None),
    Kind("archived", 13, "^run; $idle end_turn", archived=True),
    Kind("archiving writes events", 8, "^run; $idle end_turn; day; terminated", session="terminated",
         archived=True),
    Kind("archived, no events", 5, "", status_from="session", archived=True),
    Kind("archived, failed", 5, "^run; !error terminal; $idle retries_exhausted", "failed", archived=True),
    Kind("runs", 6, "run", session="running", **_RUNNING),
    Kind("runs, archived", 2, "run", session="running", archived=True, **_RUNNING),
    Kind("runs again", 4, "run; idle end_turn; run", session="running", **_RUNNING),
    Kind("rescheduling", 3, "run; error retrying; rescheduled", session="rescheduling", **_RUNNING),
    Kind("canceling", 3, "run", session="canceling", seconds=77, **_RUNNING),
    Kind("processes", 2, "run", session="processing", **_RUNNING),
    Kind("idle, no end", 6, "^run; msg", status_from="session"),
    Kind("idle, no end, with seconds", 5, "^run", status_from="session", seconds=42.5),
    Kind("idle, no events", 6, "", status_from="session"),
    Kind("waits, then rescheduled", 4, "^run; idle requires_action; rescheduled", status_from="session"),
    Kind("unknown session status", 4, "^run", None, "session", session="suspended", eventless=None),
    Kind("unknown session status, done", 4, "^run; $idle end_turn", session="suspended", eventless=None),
    Kind("unknown session status, archived", 3, "^run", status_from="session", session="suspended", archived=True),
    Kind("session without a status", 3, "^run", None, "session", session=None, eventless=None),
    Kind("no time at the end", 6, "^run; -idle end_turn", seconds=12),
    Kind("no time at the start", 6, "-run; run; $idle end_turn"),
    Kind("no time, failed", 5, "-run; -!error exhausted; -idle retries_exhausted", "failed"),
    Kind("times out of order", 6, "^@50 run; $@60 idle end_turn; @10 run; @20 idle cancelled"),
    Kind("with seconds", 5, "^run; $idle end_turn", seconds=9.25),
    Kind("long", 3, "^run; " + "rescheduled; run; " * 70 + "$idle end_turn", requests=2),
    Kind("long, waits", 2, "^run; " + "idle requires_action; run; " * 110 + "idle requires_action", "waiting",
         requests=3),
    Kind("long after the end", 3, "^run; $idle end_turn" + "; run; idle end_turn" * 80),
    Kind("many messages", 3, "^run; " + "msg; " * 250 + "$idle end_turn"),
    Kind("ends a page", 2, "^run; " + "rescheduled; " * 98 + "$idle end_turn"),
    Kind("a new turn on the next page", 2, "^run; " + "rescheduled; " * 98 + "error exhausted; run; $idle",
         requests=2),
    Kind("fatal on the previous page", 2, "^run; " + "rescheduled; " * 98 + "!error exhausted; $idle", "failed",
         requests=2),
    Kind("not listed", 3, "^run; $idle end_turn", served="by id"),
    Kind("deleted", 6, "", None, None, eventless=None, eventless_from=None, served="gone", requests=0),
    Kind("no session", 14, "", "failed", "run", "!", eventless="failed", eventless_from="run", eventless_error="!",
         **_NONE),
    Kind("pending", 3, "", "pending", "run", eventless="pending", eventless_from="run", **_NONE),
    Kind("old, done", 12, "", status_from="service", eventless_from="service", requests=0),
    Kind("old, failed", 6, "", "failed", "service", "!", eventless="failed", eventless_from="service",
         eventless_error="!", requests=0),
    Kind("old, skipped", 4, "", "skipped", "service", eventless="skipped", eventless_from="service", requests=0),
)  # fmt: skip
SETTLED = tuple(kind for kind in KINDS if not kind.is_open)


@dataclass
class Truth:
    """The expected values of one run in a frame."""

    status: str | None
    status_from: str | None
    triggered_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    duration_ms: float | None = None
    error_type: str | None = None
    error_message: str | None = None


@dataclass
class Request:
    """One request, and the status code of its response."""

    path: str
    query: list[tuple[str, str]]
    status: int = 0

    @property
    def list(self) -> str:
        """The requested list or kind of object, such as ``sessions``, ``sessions/*``."""
        parts = self.path.split("/")
        return "/".join([parts[0], *("*" if index % 2 else part for index, part in enumerate(parts[1:], 1))])


class Refusal(Exception):  # noqa: N818 - a response, not an error of this program
    """An error response of the service."""

    def __init__(self, status: int, type_: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        error = {"type": type_, "message": message} | ({} if param is None else {"param": param})
        self.status, self.error = status, error


def invalid(param: str, message: str) -> Refusal:
    """Return the 400 response for an invalid query parameter."""
    return Refusal(400, "invalid_request_error", f"{param}: {message}", param)


def format_time(time: datetime, digits: int = 0) -> str:
    """Format a time as the service does; clients drop the digits after the sixth."""
    micro = f"{time.microsecond:06}999"[:digits]
    return f"{time:%Y-%m-%dT%H:%M:%S}" + (f".{micro}" if digits else "") + "Z"


def parse(time: str) -> datetime:
    """Parse a time."""
    return datetime.fromisoformat(time)


@dataclass
class Account:
    """The records of an account, and the expected values of its runs.

    `truth` has those with events, `truth_without_events` those from the run and its session.
    """

    kinds: Sequence[Kind] = KINDS
    spacing: int = 75  # minutes from run to run
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    deployments: list[Record] = field(default_factory=list)
    agents: list[Record] = field(default_factory=list)
    environments: list[Record] = field(default_factory=list)
    runs: list[Record] = field(default_factory=list)
    sessions: list[Record] = field(default_factory=list)
    not_listed: set[str] = field(default_factory=set)
    events: dict[str, list[Record]] = field(default_factory=dict)
    kind_of: dict[str, Kind] = field(default_factory=dict)
    truth: dict[str, Truth] = field(default_factory=dict)
    truth_without_events: dict[str, Truth] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = random.Random(20261014)  # noqa: S311 - no secrets
        self._number = 0
        self._add_names()
        drawn = [kind for kind in self.kinds for _ in range(kind.runs)]
        old = [kind for kind in drawn if kind.name.startswith("old")]
        drawn = [kind for kind in drawn if not kind.name.startswith("old")]
        self.rng.shuffle(drawn)
        drawn = old + drawn
        time = self.now - timedelta(minutes=self.spacing) * len(drawn)
        for index in range(150):  # sessions of users, older than any run
            self.add_session(Kind("of a user", 0, ""), time - timedelta(minutes=120 + 5 * index), None)
        for index, kind in enumerate(drawn):
            if index % 50:  # else in the same second as the run before
                time = self.now - timedelta(
                    minutes=self.spacing * (len(drawn) - index), seconds=self.rng.randrange(60)
                )
            self.add_run(kind, time, again=index % 25 == 7)
            if index % 20 == 3:
                self.add_session(Kind("of a user", 0, ""), time + timedelta(minutes=9), None)

    def _add_names(self) -> None:
        born = self.now - timedelta(days=400)
        for number in range(6):
            named = {"id": f"agent_{number:04}", "type": "agent", "name": f"Agent {number}, 经办"}
            model = "ultimate" if number % 2 else {"id": "lite", "effective_context_window": 200_000}
            rest: Record = {"description": "", "model": model, "system": "Be brief.", "tools": [], "skills": []}
            self.agents.insert(
                0, {**named, **rest, **self._dates(born, archived=number == 4), "version": number + 1}
            )
            named = {"id": f"env_{number:04}", "type": "environment", "name": f"Room {number}"}
            rest = {"description": None, "config": {"type": "cloud", "packages": {"pip": ["x"]}}}
            self.environments.insert(0, {**named, **rest, **self._dates(born, archived=number == 5)})
        for number in range(40):
            nine = self.now.replace(hour=9, minute=0, second=0) + timedelta(days=self.now.hour >= 9)
            upcoming = [format_time(nine + timedelta(days=day)) for day in range(5)]
            schedule = {"type": "cron", "expression": "0 9 * * *", "timezone": "UTC", "upcoming_runs_at": upcoming}
            record: Record = {
                "id": f"dep_{number:04}",
                "type": "deployment",
                "name": f"Deployment {number}",
                "description": None,
                "agent": {"id": f"agent_{number % 6:04}", "type": "agent", "version": 1},
                "environment_id": f"env_{number % 6:04}",
                "environment_variables": f"API_KEY={SECRET}-{number}\nMODE=x; OTHER={SECRET}-o{number}",
                "initial_events": [{"type": "user.message", "content": [{"type": "text", "text": "Go"}]}],
                "paused_reason": {"type": "manual"} if number == 7 else None,
                "resources": [],
                "schedule": schedule,
                "status": "paused" if number == 7 else "active",
                "vault_ids": [],
                **self._dates(born + timedelta(hours=number), archived=number == 9),
            }
            if number % 3 == 0:
                record["budget"] = {"type": "limit", "max_credit_cost": "12.50"}
            self.deployments.insert(0, record)

    def _dates(self, born: datetime, *, archived: bool) -> Record:
        dates = {"created_at": format_time(born, 5), "updated_at": format_time(born, 6)}
        return {
            **dates,
            "archived_at": format_time(born + timedelta(days=1)) if archived else None,
            "metadata": {"team": "财务"},
        }

    def add_run(self, kind: Kind, time: datetime, *, again: bool = False) -> Record:
        """Add the newest run; with `again`, for the deployment and the scheduled time of the previous one."""
        self._number += 1
        number = self._number
        last = self.runs[0] if again and self.runs else {}
        last = last if "scheduled_at" in last.get("trigger_context", {}) else {}
        created = time + timedelta(seconds=37)
        trigger: Record = {"type": "manual"}
        if last or self.rng.random() < 0.8:
            trigger = {"type": "schedule", "scheduled_at": format_time(time)}
        trigger = last.get("trigger_context") or trigger
        deployment = last.get("deployment_id") or f"dep_{self.rng.randrange(38):04}"  # two have no runs
        run: Record = {
            "id": f"drun_{number:06}",
            "type": "deployment_run",
            "deployment_id": deployment,
            "agent": {"id": f"agent_{int(deployment[4:]) % 6:04}", "type": "agent", "version": 1},
            "created_at": format_time(created),
            "trigger_context": trigger,
            "session_id": None,
            "error": None,
        }
        triggered = parse(str(trigger.get("scheduled_at", run["created_at"])))
        truth = Truth(kind.status, kind.status_from, triggered, error_type=kind.error)
        without_events = Truth(kind.eventless, kind.eventless_from, triggered, error_type=kind.eventless_error)
        if kind.error == "!":
            run["error"] = {"type": self.rng.choice(_ERRORS), "message": f"not started: {number} “нет”"}
            for each in (truth, without_events):
                each.error_type, each.error_message = run["error"]["type"], run["error"]["message"]
        if kind.name.startswith("old"):
            self._make_old(run, kind, created, truth)
            without_events = truth
        if kind.served == "gone":
            run["session_id"] = f"sess_gone{number:06}"
        elif kind.session or kind.name == "session without a status":
            near = created + timedelta(milliseconds=self.rng.choice([-150, 40, 333]))
            session = self.add_session(kind, near, run)
            run["session_id"] = session["id"]
            if not kind.name.startswith("old"):
                self._add_event_values(kind, session, truth)
                without_events.started_at = parse(session["created_at"])
                if kind.seconds and kind.eventless != "running":
                    without_events.duration_ms = kind.seconds * 1000
        self.runs.insert(0, run)
        self.kind_of[run["id"]] = kind
        self.truth[run["id"]], self.truth_without_events[run["id"]] = truth, without_events
        return run

    def _make_old(self, run: Record, kind: Kind, created: datetime, truth: Truth) -> None:
        """Add the fields of edition C to a run."""
        started, ended = created + timedelta(seconds=1), created + timedelta(seconds=62, microseconds=7)
        truth.triggered_at, truth.started_at = created - timedelta(seconds=3), started
        truth.completed_at, truth.duration_ms = ended, 61_000
        run |= {
            "status": kind.status,
            "triggered_at": format_time(truth.triggered_at),
            "completed_at": format_time(ended, 6),
        }
        run |= {"duration_ms": 61_000, "cas_run_extras": {"attempt": 1, "started_at": format_time(started)}}
        run["trigger_context"] = {"type": self.rng.choice(["schedule", "retry", "manual"])}

    def add_session(self, kind: Kind, created: datetime, run: Record | None) -> Record:
        """Add a session, with its events."""
        self._number += 1
        agent = next(each for each in self.agents if run is None or each["id"] == run["agent"]["id"])
        snapshot = {key: agent[key] for key in ("id", "type", "version", "name", "model", "system", "tools")}
        session: Record = {
            "id": f"sess_{self._number:06}",
            "type": "session",
            "agent": snapshot,
            "environment_id": "env_0001",
            "title": f"Session {self._number}",
            "status": kind.session,
            "metadata": {},
            "resources": [],
            "vault_ids": [],
            "deployment_id": run and run["deployment_id"],
            "outcome_evaluations": [],
            "stats": {"active_seconds": 0, "duration_seconds": kind.seconds},
            "environment_variables": {"API_KEY": f"{SECRET}-{self._number}"},
            "archived_at": format_time(created + timedelta(days=1)) if kind.archived else None,
            "created_at": format_time(created, 9),
            "updated_at": format_time(created, 9),
        }
        usage = self.rng.choice([None, {"total_credits": 0}, {"total_credits": 1.25}, _FULL_USAGE])
        if usage is not None:
            session["usage"] = usage
        bisect.insort(self.sessions, session, key=lambda each: -parse(each["created_at"]).timestamp())
        if kind.served == "by id":
            self.not_listed.add(session["id"])
        self.events[session["id"]] = []
        self.continue_session(session["id"], kind.script)
        return session

    def _add_event_values(self, kind: Kind, session: Record, truth: Truth) -> None:
        """Add the values of the marked events to the truth."""
        created = parse(session["created_at"])
        truth.started_at = created
        started = False
        steps = [step.strip() for step in kind.script.split(";") if step.strip() not in {"", "day"}]
        for step, event in zip(steps, self.events[session["id"]], strict=True):
            time = parse(event["processed_at"]) if "processed_at" in event else None
            marks = step.split(" ")[0]
            if "^" in marks:
                truth.started_at, started = time, True
            if "$" in marks:
                truth.completed_at = time
            if "!" in marks:
                truth.error_type, truth.error_message = event["error"]["type"], event["error"]["message"]
        if started and truth.started_at and truth.completed_at:
            truth.duration_ms = (truth.completed_at - truth.started_at) / timedelta(milliseconds=1)
        elif kind.seconds and kind.status != "running":
            truth.duration_ms = kind.seconds * 1000

    def continue_session(self, id_: str, script: str, status: str | None = None) -> list[Record]:
        """Add events to a session, set its `updated_at` and, if given, its status; return the new events."""
        session = self.session(id_)
        events = self.events[id_]
        born = parse(session["created_at"])
        time = max(born, parse(session["updated_at"])) + timedelta(milliseconds=1_500 if events else 20)
        added = []
        for step in map(str.strip, script.split(";")):
            if step == "day":
                time += timedelta(days=1)
            elif step:
                time += timedelta(seconds=31, microseconds=self.rng.randrange(10**6))
                added.append(self._event(step, time, born))
        self.events[id_] = events + added
        session["updated_at"] = format_time(time, 6)
        if status is not None:
            session["status"] = status
        return added

    def _event(self, step: str, time: datetime, born: datetime) -> Record:
        self._number += 1
        event: Record = {"id": f"evt_{self._number:07}"}
        marks = step[: len(step) - len(step.lstrip("^$!-@0123456789"))]
        if "@" in marks:
            time = born + timedelta(minutes=int(marks.partition("@")[2]))
        if "-" not in marks:
            event["processed_at"] = format_time(time, self.rng.choice([0, 3, 6, 9]))
        what, _, how = step.lstrip("^$!-@0123456789 ").partition(" ")
        if what == "msg":
            return event | {"type": "agent.message", "content": [{"type": "text", "text": "好"}]}
        if what == "call":
            return event | {"type": "span.model_request_end", "is_error": False, "model_usage": {"credits": 0.37}}
        if what == "error":
            error: Record = {"type": self.rng.choice(_EVENT_ERRORS), "message": f"failed: {self._number} «да»\n"}
            return event | {
                "type": "session.error",
                "error": error | ({"retry_status": {"type": how}} if how else {}),
            }
        event["type"] = f"session.status_{'running' if what == 'run' else what}"
        if how:
            event["stop_reason"] = {"null": None, "{}": {}}.get(how, {"type": how})
        return event

    @property
    def lists(self) -> dict[str, list[Record]]:
        """The records by the path of their list."""
        return {
            "deployments": self.deployments,
            "deployment_runs": self.runs,
            "sessions": self.sessions,
            "agents": self.agents,
            "environments": self.environments,
        }

    def session(self, id_: str) -> Record:
        """Return a session."""
        return next(each for each in self.sessions if each["id"] == id_)


_FULL_USAGE = {"total_credits": 3.07, "model_credits": 2.5, "sandbox_runtime_credits": 0.57}
_ERRORS = ("session_creation_rejected_error", "agent_archived_error", "vault_not_found_error", "unknown_error")
_EVENT_ERRORS = ("model_overloaded_error", "mcp_connection_failed_error", "billing_error")
_TIMES = tuple(f"created_at[{bound}]" for bound in ("gt", "gte", "lt", "lte"))
_FROM_TO = ("created_at[gte]", "created_at[lte]")
_CURSORS = ("page", "after_id", "before_id")
_PARAMETERS: dict[str, tuple[str, ...]] = {
    "deployments": (*_CURSORS, "status", "include_archived", "agent_id", *_FROM_TO),
    "deployment_runs": (*_CURSORS, "deployment_id", "trigger_type", "has_error", *_TIMES),
    "sessions": ("page", "agent_id", "deployment_id", "order", "include_archived", *_TIMES),
    "sessions/*/events": (*_CURSORS, "types[]", "order"),
    "agents": ("page", "include_archived", *_FROM_TO),
    "environments": ("page", "include_archived", *_FROM_TO),
}
_CHOICES = {
    "order": ("asc", "desc"),
    "trigger_type": ("manual", "schedule"),
    "has_error": ("true", "false"),
    "include_archived": ("true", "false"),
    "status": ("active", "paused"),
}


class EditionD:
    """Serve an account on loopback while the context is open.

    Attributes
    ----------
    requests : list of Request
        Every request.
    before : callable or None
        Called with each request before it is answered. It may raise `Refusal`, or `ConnectionError` to close the
        connection.
    max_requests : int
        All further requests are refused, so that no test runs forever.
    """

    def __init__(self, account: Account | None = None, *, max_requests: int = 20_000) -> None:
        self.account = account or Account()
        self.max_requests = max_requests
        self.requests: list[Request] = []
        self.before: Callable[[Request], None] | None = None
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.service = self
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}/api/v1/cloud"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request: Request, authorization: str | None) -> Record:
        """Return the body of the response."""
        if authorization != f"Bearer {TOKEN}":
            raise Refusal(401, "authentication_error", "Invalid API key or token.")
        account, name = self.account, request.list
        parts = [unquote(part) for part in request.path.split("/")]
        if len(self.requests) > self.max_requests:
            raise Refusal(403, "permission_error", "This client sends too many requests.")
        if self.before is not None:
            self.before(request)
        if name in _PARAMETERS:
            _check_query(request.query, ("limit", *_PARAMETERS[name]))
            return self._page(name, parts, request.query)
        _check_query(request.query, ())
        return _find(account.lists.get(name.removesuffix("/*"), []), parts[-1])

    def _page(self, name: str, parts: list[str], pairs: list[tuple[str, str]]) -> Record:
        account, query = self.account, dict(pairs)
        limit = query.get("limit", "20")
        if not limit.isdecimal() or not 1 <= int(limit) <= 100:
            raise invalid("limit", "must be between 1 and 100")
        records = account.lists.get(name, [])
        if name == "sessions/*/events":
            _find(account.sessions, parts[1])
            records = account.events[parts[1]]
        if query.get("order") == ("desc" if name == "sessions/*/events" else "asc"):
            records = records[::-1]
        types = {value for name, value in pairs if name == "types[]"}

        def keep(record: Record) -> bool:
            is_listed = record["id"] not in account.not_listed and (not types or record["type"] in types)
            return is_listed and _matches(name, record, query)

        return _make_page(records, keep, int(limit), query)


def _check_query(pairs: list[tuple[str, str]], known: tuple[str, ...]) -> None:
    """Refuse unknown parameters, invalid values, and more than one cursor."""
    names = [key for key, _ in pairs]
    for key, value in pairs:
        if key not in known:
            raise invalid(key, "unknown query parameter")
        if key in _CHOICES and value not in _CHOICES[key]:
            raise invalid(key, f"must be one of {', '.join(_CHOICES[key])}")
        if not key.endswith("[]") and names.count(key) > 1:
            raise invalid(key, "given twice")
        if key.startswith("created_at"):
            try:
                aware = parse(value).tzinfo is not None
            except ValueError:
                aware = False
            if not aware:
                raise invalid(key, "must be an RFC 3339 time")
    cursors = [key for key in names if key in _CURSORS]
    if len(cursors) > 1:
        raise invalid(cursors[1], "cursors are mutually exclusive")


def _find(records: Sequence[Record], id_: str) -> Record:
    for record in records:
        if record["id"] == id_:
            return record
    raise Refusal(404, "not_found_error", f"There is no {id_}.")


def _matches(name: str, record: Record, query: dict[str, str]) -> bool:
    hides = (
        name in {"sessions", "deployments", "agents", "environments"} and query.get("include_archived") != "true"
    )
    if hides and record["archived_at"] is not None:
        return False
    tests: dict[str, Callable[[str], bool]] = {
        "status": lambda value: record["status"] == value,
        "agent_id": lambda value: record["agent"]["id"] == value,
        "deployment_id": lambda value: record["deployment_id"] == value,
        "trigger_type": lambda value: record["trigger_context"]["type"] == value,
        "has_error": lambda value: str(record["error"] is not None).lower() == value,
        "created_at[gt]": lambda value: parse(record["created_at"]) > parse(value),
        "created_at[gte]": lambda value: parse(record["created_at"]) >= parse(value),
        "created_at[lt]": lambda value: parse(record["created_at"]) < parse(value),
        "created_at[lte]": lambda value: parse(record["created_at"]) <= parse(value),
    }
    return all(tests[key](value) for key, value in query.items() if key in tests)


def _make_page(
    records: Sequence[Record], keep: Callable[[Record], bool], limit: int, query: dict[str, str]
) -> Record:
    """Return one page; a cursor is opaque, and is a position in the unfiltered list."""
    records = list(records)
    for key in _CURSORS:
        if key in query:
            ids = [each["id"] for each in records]
            id_ = query[key].removeprefix("cur.")
            if id_ not in ids:
                raise invalid(key, "this cursor is not known")
            at = ids.index(id_)
            records = records[:at] if key == "before_id" else records[at + 1 :]
    records = list(filter(keep, records))
    shown = records[-limit:] if "before_id" in query else records[:limit]
    first, last = (f"cur.{shown[0]['id']}", f"cur.{shown[-1]['id']}") if shown else (None, None)
    has_more = len(records) > limit
    page = {"data": shown, "first_id": first, "last_id": last, "has_more": has_more}
    return {**page, "next_page": last if has_more else None}


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 50
    service: EditionD

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:  # noqa: ANN401
        """Ignore the broken connections of killed clients."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:  # http.server's name for it
        service = self.server.service
        parts = urlsplit(self.path)
        request = Request(
            parts.path.removeprefix("/api/v1/cloud/"), parse_qsl(parts.query, keep_blank_values=True)
        )
        with service.lock:
            service.requests.append(request)
            number = len(service.requests)
            try:
                answer = service.answer(request, self.headers.get("Authorization"))
                request.status, body = 200, json.dumps(answer, ensure_ascii=False)
            except Refusal as refusal:
                request.status = refusal.status
                error = {"type": "error", "error": refusal.error, "request_id": f"req_{number}"}
                body = json.dumps(error)
            except ConnectionError:
                self.close_connection = True
                return
        raw = body.encode()
        names = {"Content-Type": "application/json", "Content-Length": str(len(raw))}
        if request.status == 200:
            names["x-request-id"] = f"req_{number}"
        head = "".join(f"{name}: {value}\r\n" for name, value in names.items())
        self.wfile.write(f"HTTP/1.1 {request.status} X\r\n{head}\r\n".encode() + raw)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def count_requests(requests: Sequence[Request]) -> dict[str, int]:
    """Count the requests per list or kind of object; refused ones are counted separately by status."""
    answered = ((request.list, request.status) for request in requests)
    return dict(Counter(name if status == 200 else f"{name} {status}" for name, status in answered))


def walk(records: Callable[[dict[str, str]], Record], cursor: str = "page", **query: str) -> Iterator[Record]:
    """Yield the records of all pages of a list, without the package's code."""
    while True:
        page = records(query)
        yield from page["data"]
        if not page["has_more"]:
            return
        query[cursor] = page["next_page"]
