"""Decide what happened in each session.

One row per session, one array per column. The same things happened in every edition; the editions only differ in
how they are written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from qoderdata.sandbox.account import PAUSED_BY_ERROR
from qoderdata.sandbox.run_history import (
    COMPLETED,
    ERRORS,
    FAILED,
    MANUAL,
    OVERLOADED,
    PENDING,
    RETRY,
    RUNNING,
    SKIPPED,
)  # fmt: skip
from qoderdata.sandbox.sample_values import DAY, HOUR, MINUTE, SECOND, Columns, first_case

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qoderdata.sandbox.account import Fleet
    from qoderdata.sandbox.run_history import Runs


class BeforeEnd(IntEnum):
    """What happened before the end of the first turn."""

    PLAIN = 0
    RECOVERED = 1  # errors that were retried
    VOIDED = 2  # a fatal error, after which the work continued
    RESCHEDULED = 3  # an error just now; the session will continue


class End(IntEnum):
    """How the first turn ended, or its state if it did not."""

    FRESH = 0  # created, nothing happened yet
    RUNNING = 1
    WAITING = 2  # for a person
    IDLE_WITHOUT_EVENTS = 3  # its events say nothing about the turn
    TERMINATED_WITHOUT_EVENTS = 4  # likewise
    FATAL = 5  # a fatal error, and no event after it
    DONE = 6
    IDLE_WITHOUT_REASON = 7
    UNKNOWN_REASON = 8  # idle with a stop reason that is not documented
    CANCELLED = 9
    EXHAUSTED = 10  # a fatal error, then retries_exhausted
    EXHAUSTED_NO_RETRY_STATUS = 11  # an error without a retry status, then retries_exhausted
    EXHAUSTED_NO_ERROR = 12
    BUDGET_REACHED = 13
    FATAL_THEN_TERMINATED = 14
    TERMINATED_NO_ERROR = 15
    FATAL_THEN_IDLE = 16  # idle without a stop reason


class SecondTurn(IntEnum):
    """How the second turn, which a person started a day later, ended."""

    NEVER = 0  # nobody continued the session
    DONE = 1
    TERMINATED = 2
    CANCELLED = 3
    EXHAUSTED = 4
    WAITING = 5
    RUNNING = 6


class Refusal(IntEnum):
    """Why a run has no session."""

    NONE = 0
    RATE_LIMITED = 1
    REJECTED = 2  # what editions A to C call skipped
    PAUSING = 3  # an error that paused the deployment


#: The share of the runs of the last two days that wait for a person.
_WAITING = 0.03
#: States of a first turn that has not ended.
OPEN = (End.FRESH, End.RUNNING, End.WAITING)
#: Ends that an event proves, so that later events do not change them.
FINAL = tuple(end for end in End if end >= End.DONE)
#: Ends after an error of the session.
_WITH_ERROR = (
    End.FATAL, End.EXHAUSTED, End.EXHAUSTED_NO_RETRY_STATUS, End.FATAL_THEN_TERMINATED, End.FATAL_THEN_IDLE,
)  # fmt: skip
SESSION_STATUSES = ("running", "rescheduling", "canceling", "idle", "terminated")
SESSION_RUNNING, RESCHEDULING, CANCELING, IDLE, TERMINATED = range(5)


@dataclass
class Scenarios(Columns):
    """The columns of the sessions of an account; times in nanoseconds since 1970, 0 for never.

    `_after_first_turn` sets the columns that are not arguments.
    """

    #: The index of the run that created it; -1 for a session that a person started.
    run: NDArray[np.int64]
    deployment: NDArray[np.int64]
    agent: NDArray[np.int64]
    tail: NDArray[np.int64]
    created: NDArray[np.int64]
    started: NDArray[np.int64]
    ended: NDArray[np.int64]
    #: When it asked a person for an answer.
    asked: NDArray[np.int64]
    #: When a person continued it; `continued_end` is the end of that turn.
    continued: NDArray[np.int64] = field(init=False)
    continued_end: NDArray[np.int64] = field(init=False)
    archived: NDArray[np.int64] = field(init=False)
    updated: NDArray[np.int64] = field(init=False)
    before: NDArray[np.int64]
    end: NDArray[np.int64]
    later: NDArray[np.int64] = field(init=False)
    #: The error of the session; -1 for none.
    error: NDArray[np.int64]
    status: NDArray[np.int64] = field(init=False)
    #: Whether it was not deleted.
    kept: NDArray[np.bool_] = field(init=False)
    #: Whether the event of the start has a time; `has_end`: whether that of the end has.
    has_start: NDArray[np.bool_]
    has_end: NDArray[np.bool_]


def decide(fleet: Fleet, runs: Runs) -> tuple[Scenarios, NDArray[np.int64]]:
    """Decide what happened in the sessions of an account, and why runs have no session (`Refusal`).

    Sessions and runs are oldest first. This changes `runs`: those that wait for a person become running, and those
    without a session get an early end.
    """
    draws, now = fleet.draws, fleet.now
    refusal = _refuse(fleet, runs)
    failed = np.isin(refusal, (Refusal.PAUSING, Refusal.RATE_LIMITED))
    short = runs.started + draws.below("refused", runs.tail, 800) * 1_000_000
    runs.completed = np.where(failed, np.minimum(runs.completed, short), runs.completed)
    runs.error = np.where(failed, -1, runs.error)
    index = np.flatnonzero(refusal == Refusal.NONE)
    some = runs.take(index)
    chance = draws.uniform("story", some.tail)

    good = some.status == COMPLETED
    waits = good & (some.completed > now - 2 * DAY) & (draws.uniform("waits", some.tail) < _WAITING)
    # Some runs that were started by hand in the last minutes wait for the person who started them.
    waits |= (some.status == RUNNING) & (chance < 0.25) & (some.started < now - 2 * SECOND)
    cases = [
        (waits, End.WAITING),
        (some.status == PENDING, End.FRESH),
        (some.status == RUNNING, End.RUNNING),
        (good & (chance < 0.04), End.IDLE_WITHOUT_REASON),
        (good & (chance < 0.06), End.UNKNOWN_REASON),
        (good & (chance < 0.09), End.IDLE_WITHOUT_EVENTS),
    ]
    end = first_case([*cases, *_failures(fleet, runs, some, chance)], End.DONE)
    runs.status[index[waits]] = RUNNING

    draw = draws.uniform("before", some.tail)
    after_errors = (End.DONE, End.EXHAUSTED, End.FATAL_THEN_TERMINATED, End.UNKNOWN_REASON, End.CANCELLED)
    before = first_case(
        [
            ((draw < 0.06) & np.isin(end, after_errors), BeforeEnd.RECOVERED),
            ((draw > 0.97) & np.isin(end, (End.DONE, End.EXHAUSTED)), BeforeEnd.VOIDED),
            ((draw < 0.2) & (end == End.RUNNING), BeforeEnd.RESCHEDULED),
        ],
        BeforeEnd.PLAIN,
    )
    answered = (
        np.isin(end, (End.DONE, End.IDLE_WITHOUT_REASON, End.FATAL_THEN_TERMINATED, End.CANCELLED))
        & (draw > 0.5)
        & (draw < 0.53)
    )
    asked = np.where(waits, np.minimum(some.completed, (some.started + now) // 2), 0)
    asked = np.where(answered, some.started + (some.completed - some.started) // 2, asked)
    scenarios = Scenarios(
        run=index,
        deployment=some.deployment,
        agent=fleet.agent[some.deployment],
        tail=draws.tails("session", some.tail),
        created=np.minimum(some.created + (some.started - some.created) // 2, now),
        started=some.started,
        ended=np.where(np.isin(end, OPEN), 0, some.completed),
        asked=asked,
        before=before,
        end=end,
        error=np.where(np.isin(end, _WITH_ERROR), some.error, -1),
        has_start=draws.uniform("start", some.tail) >= 0.03,
        has_end=draws.uniform("end event", some.tail) >= 0.03,
    ).join(_without_deployment(fleet, (len(runs) + 49) // 50))
    _after_first_turn(fleet, scenarios)
    return scenarios.take(np.lexsort((scenarios.tail, scenarios.created))), refusal


def _refuse(fleet: Fleet, runs: Runs) -> NDArray[np.int64]:
    """Choose the runs that got no session."""
    refusal = np.where(runs.status == SKIPPED, Refusal.REJECTED, Refusal.NONE)
    limited = (runs.status == FAILED) & (fleet.draws.uniform("refusal", runs.tail) < 0.03)
    refusal[limited] = Refusal.RATE_LIMITED
    last = np.full(len(fleet), -1)
    np.maximum.at(last, runs.deployment, np.arange(len(runs)))
    refusal[last[fleet.has_role(PAUSED_BY_ERROR) & (last >= 0)]] = Refusal.PAUSING
    return refusal


def _failures(
    fleet: Fleet, runs: Runs, some: Runs, chance: NDArray[np.float64]
) -> list[tuple[NDArray[np.bool_], End]]:
    """Return the cases of failed runs; a run that was retried, or met the overloaded model, has an error."""
    failed = some.status == FAILED
    code = (runs.key << 3) + runs.attempt
    retried = np.isin((some.key << 3) + some.attempt + 1, code[runs.trigger == RETRY]) & (some.trigger != MANUAL)
    any_kind = failed & ~retried & (some.error != OVERLOADED)
    return [
        (any_kind & fleet.has_budget[some.deployment] & (chance < 0.5), End.BUDGET_REACHED),
        (failed & (chance < 0.66), End.EXHAUSTED),
        (failed & (chance < 0.76), End.FATAL_THEN_TERMINATED),
        (failed & (chance < 0.80), End.FATAL),
        (failed & (chance < 0.83), End.FATAL_THEN_IDLE),
        (failed & (chance < 0.86), End.EXHAUSTED_NO_RETRY_STATUS),
        (any_kind & (chance < 0.92), End.CANCELLED),
        (any_kind & (chance < 0.94), End.EXHAUSTED_NO_ERROR),
        (any_kind & (chance < 0.97), End.TERMINATED_NO_ERROR),
        (any_kind, End.TERMINATED_WITHOUT_EVENTS),
        (failed, End.EXHAUSTED),
    ]


def _without_deployment(fleet: Fleet, count: int) -> Scenarios:
    """Generate sessions that people started, in the last 40 days."""
    draws, now = fleet.draws, fleet.now
    index = np.arange(count if len(fleet) else 0)

    def chance(purpose: str) -> NDArray[np.float64]:
        return draws.uniform(f"person {purpose}", index)

    ends = np.array(
        [*[End.DONE] * 7, *[End.IDLE_WITHOUT_EVENTS] * 3, *[End.WAITING] * 2, *[End.RUNNING] * 2, End.CANCELLED,
         End.FATAL_THEN_TERMINATED, End.EXHAUSTED, End.UNKNOWN_REASON]
    )  # fmt: skip
    end = ends[draws.below("person end", index, len(ends))]
    running = end == End.RUNNING
    ago = np.where(running, HOUR, 40 * DAY) // 1_000
    created = now - (chance("created") * ago).astype(np.int64) * 1_000 - MINUTE
    started = created + draws.below("person wait", index, 3_000) * 1_000_000
    ended = np.minimum(started + draws.below("person length", index, 900) * SECOND, now)
    failed = np.isin(end, (End.FATAL_THEN_TERMINATED, End.EXHAUSTED))
    return Scenarios(
        run=np.full(len(index), -1),
        deployment=np.full(len(index), -1),
        agent=draws.below("person agent", index, len(fleet.agents)),
        tail=draws.tails("person", index),
        created=created,
        started=started,
        ended=np.where(running | (end == End.WAITING), 0, ended),
        asked=np.where(end == End.WAITING, ended, 0),
        before=np.where(running & (chance("before") < 0.4), BeforeEnd.RESCHEDULED, BeforeEnd.PLAIN),
        end=end,
        error=np.where(failed, draws.below("person error", index, len(ERRORS)), -1),
        has_start=chance("start") >= 0.03,
        has_end=chance("end event") >= 0.03,
    )


def _after_first_turn(fleet: Fleet, scenarios: Scenarios) -> None:
    """Choose the sessions that people continued, archived or deleted, and set the status of each."""
    draws, now, index = fleet.draws, fleet.now, scenarios.tail
    own = scenarios.deployment < 0
    if len(fleet):
        own |= ~fleet.reuses_session[scenarios.deployment]
    chance = draws.uniform("later", index)
    continued = scenarios.ended + 20 * HOUR + draws.below("continued", index, 8 * 3600) * SECOND
    may_continue = (End.DONE, End.IDLE_WITHOUT_REASON, End.UNKNOWN_REASON, End.EXHAUSTED, End.CANCELLED)
    is_continued = own & np.isin(scenarios.end, may_continue) & (chance < 0.04) & (continued < now - HOUR)
    kinds = np.array([SecondTurn.DONE] + [kind for kind in SecondTurn if kind != SecondTurn.NEVER])
    scenarios.later = np.where(is_continued, kinds[draws.below("later end", index, len(kinds))], SecondTurn.NEVER)
    scenarios.continued = np.where(is_continued, continued, 0)
    scenarios.continued_end = np.where(is_continued, continued + 5 * MINUTE, 0)
    over = np.isin(scenarios.end, (*FINAL, End.IDLE_WITHOUT_EVENTS, End.FATAL)) & own
    over &= ~np.isin(scenarios.later, (SecondTurn.WAITING, SecondTurn.RUNNING))
    last = np.maximum.reduce([scenarios.ended, scenarios.started, scenarios.continued_end])
    archived = last + HOUR + draws.below("archive time", index, 72 * 3600) * SECOND
    removal = draws.uniform("fate", index)
    scenarios.archived = np.where(over & (removal < 0.05) & (archived < now), archived, 0)
    is_deleted = over & (removal > 0.98) & (last < now - DAY)
    scenarios.kept = ~is_deleted

    draw = draws.uniform("status", index)
    running = scenarios.end == End.RUNNING
    terminated = np.isin(
        scenarios.end, (End.FATAL_THEN_TERMINATED, End.TERMINATED_NO_ERROR, End.TERMINATED_WITHOUT_EVENTS)
    )
    scenarios.status = first_case(
        [
            ((scenarios.archived > 0) & (draw < 0.7), TERMINATED),
            ((scenarios.later == SecondTurn.RUNNING) | (scenarios.end == End.FRESH), SESSION_RUNNING),
            (terminated | (scenarios.later == SecondTurn.TERMINATED), TERMINATED),
            (running & (scenarios.before == BeforeEnd.RESCHEDULED), RESCHEDULING),
            (running & (draw < 0.3), CANCELING),
            (running, SESSION_RUNNING),
        ],
        IDLE,
    )
    begun = np.where(scenarios.end == End.FRESH, scenarios.created, np.minimum(scenarios.started, now))
    scenarios.updated = np.maximum.reduce(
        [scenarios.ended, scenarios.asked, begun, scenarios.continued_end, scenarios.archived]
    )
