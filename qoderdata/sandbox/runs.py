"""How runs go: when each was triggered, created, started and completed, and with what outcome.

One row a run, one array a column. Which runs there are is the history's; how they are written is the records'.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from qoderdata.sandbox.draws import DAY, HOUR, SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from qoderdata.sandbox.account import Fleet

#: Codes of the columns `trigger`, `status` and `error`; their names are what the service sends.
TRIGGERS = ("schedule", "manual", "retry")
SCHEDULE, MANUAL, RETRY = range(3)
STATUSES = ("pending", "running", "completed", "failed", "skipped")
PENDING, RUNNING, COMPLETED, FAILED, SKIPPED = range(5)
ERRORS = ("timeout_error", "tool_error", "rate_limit_error", "overloaded_error", "permission_error", "api_error")
TIMEOUT, OVERLOADED = 0, 3

#: A run that is tried again, and all its attempts, are over within less than half an hour.
_LONGEST_FAILURE = 170_000
_SHORTEST_TIMEOUT = 300_000


@dataclass
class Runs:
    """The columns of some runs; times in nanoseconds since 1970."""

    deployment: NDArray[np.int64]
    trigger: NDArray[np.int64]
    attempt: NDArray[np.int64]
    triggered: NDArray[np.int64]
    created: NDArray[np.int64]
    started: NDArray[np.int64]
    completed: NDArray[np.int64]
    """When it ended; of a skipped one, nothing."""
    status: NDArray[np.int64]
    error: NDArray[np.int64]
    tail: NDArray[np.int64]
    """The random bits of the id."""
    key: NDArray[np.int64]
    """What its draws depend on."""

    def __len__(self) -> int:
        """Return how many runs there are."""
        return len(self.deployment)

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> Runs:
        """Return some of the runs."""
        return Runs(*(getattr(self, field.name)[which] for field in fields(self)))


def join(parts: Sequence[Runs]) -> Runs:
    """Put runs one after the other."""
    return Runs(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Runs)))


def begin(
    fleet: Fleet,
    deployment: NDArray[np.int64],
    at: NDArray[np.int64],
    *,
    key: NDArray[np.int64],
    trigger: int,
    attempt: int = 1,
    doomed: NDArray[np.bool_] | None = None,
) -> Runs:
    """Let runs happen.

    Parameters
    ----------
    fleet
        Whose runs.
    deployment
        Which deployment each is of.
    at
        The scheduled time; of runs that have none, the time of the trigger.
    key
        What chance depends on; one number a run.
    trigger, attempt
        What triggered them, and the how manieth attempt they are.
    doomed
        Those that fail in any case.

    Returns
    -------
    Runs
        In the same order.
    """
    draws, now = fleet.draws, fleet.now
    name = f"{TRIGGERS[trigger]} {attempt}"

    def chance(purpose: str) -> NDArray[np.float64]:
        return draws.uniform(f"{name} {purpose}", key)

    late = chance("delay")
    seconds = np.where(late < 0.9, late * 4, 3 + (late - 0.9) * 860) if trigger == SCHEDULE else 0.0 * late  # noqa: PLR2004
    triggered = np.minimum(_grained(at + (seconds * SECOND).astype(np.int64), chance("grain"), at), now)
    lag = chance("lag")
    created = np.minimum(triggered + (np.maximum(lag - 0.6, 0) * 5_000).astype(np.int64) * 1_000_000, now)
    wait = chance("wait")
    waited = 20_000 + (wait * wait * 3e6).astype(np.int64) + np.where(wait > 0.97, 30_000_000, 0)  # noqa: PLR2004
    started = created + waited * 1_000

    rate = fleet.rate[deployment]
    rate = np.where(_incident(fleet, deployment, at), np.maximum(rate, 0.6), rate)
    if attempt > 1:
        rate = np.full(len(at), 0.35)
    failed = chance("outcome") < rate
    if doomed is not None:
        failed |= doomed
    often = (fleet.hours()[deployment] <= 6) & (trigger == SCHEDULE)  # noqa: PLR2004 - hours
    skipped = often & ~failed & (chance("skipped") < 0.03)  # noqa: PLR2004

    error = _errors(fleet, deployment, at, chance("error"))
    timeout = fleet.timeout[deployment]
    error = np.where((error == TIMEOUT) & (timeout > _SHORTEST_TIMEOUT), TIMEOUT + 1, error)
    spread = chance("duration")
    slow = (fleet.number[deployment] % 17 == 3) & (at > now - 3 * DAY)  # noqa: PLR2004 - every 17th got slower
    length = fleet.duration[deployment] * (0.6 + 0.8 * spread) * np.where(slow, 1.9, 1)
    length = np.minimum(length * np.where(chance("tail") > 0.97, 2.5, 1), timeout * 0.95)  # noqa: PLR2004
    length = np.where(failed, np.minimum(length * spread, _LONGEST_FAILURE), length)
    microseconds = (length * 1_000).astype(np.int64)
    over_time = timeout * 1_000 + (spread * 900).astype(np.int64)
    microseconds = np.where(failed & (error == TIMEOUT), over_time, microseconds)
    completed = started + microseconds * 1_000

    cases = [(skipped, SKIPPED), (started > now, PENDING), (completed > now, RUNNING), (failed, FAILED)]
    status = np.select([case for case, _ in cases], [code for _, code in cases], COMPLETED)
    return Runs(
        deployment=deployment,
        trigger=np.full(len(at), trigger),
        attempt=np.full(len(at), attempt),
        triggered=triggered,
        created=created,
        started=started,
        completed=completed,
        status=status,
        error=np.where(status == FAILED, error, -1),
        tail=draws.tails(name, key),
        key=key,
    )


def try_again(fleet: Fleet, runs: Runs, doomed: NDArray[np.bool_]) -> tuple[Runs, NDArray[np.bool_]]:
    """Let some of the failed runs be tried again, soon after they failed.

    Parameters
    ----------
    fleet
        Whose runs.
    runs
        All of one attempt.
    doomed
        Those whose next attempt fails as well.

    Returns
    -------
    tuple
        The next attempts, and those of them that are doomed.
    """
    attempt = int(runs.attempt[0]) + 1 if len(runs) else 2
    draws = fleet.draws
    chosen = runs.status == FAILED
    chosen &= fleet.retries[runs.deployment] >= attempt - 1
    chosen &= draws.uniform(f"retry {attempt}", runs.key) < 0.6  # noqa: PLR2004 - some give up
    at = runs.completed + 30 * SECOND + draws.below(f"retry wait {attempt}", runs.key, 30_000) * 1_000_000
    chosen &= at <= fleet.now
    again = begin(
        fleet, runs.deployment[chosen], at[chosen], key=runs.key[chosen], trigger=RETRY, attempt=attempt,
        doomed=doomed[chosen],
    )  # fmt: skip
    return again, doomed[chosen]


def streaks(runs: Runs, deployments: int) -> NDArray[np.int64]:
    """Count the failures of each deployment since its last success; what is skipped or unfinished is neither.

    Parameters
    ----------
    runs
        Oldest first.
    deployments
        How many there are.

    Returns
    -------
    numpy.ndarray
        One count a deployment.
    """
    place = np.arange(len(runs))
    succeeded = np.full(deployments, -1)
    good = runs.status == COMPLETED
    np.maximum.at(succeeded, runs.deployment[good], place[good])
    since = (runs.status == FAILED) & (place > succeeded[runs.deployment])
    return np.bincount(runs.deployment[since], minlength=deployments)


def _grained(times: NDArray[np.int64], chance: NDArray[np.float64], least: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cut times to seconds, milliseconds, microseconds, or not; none becomes earlier than `least`."""
    grain = np.select([chance < 0.06, chance < 0.16, chance < 0.9], [SECOND, 1_000_000, 1_000], 1)  # noqa: PLR2004
    grained: NDArray[np.int64] = np.maximum(times // grain * grain, least)
    return grained


def _incident(fleet: Fleet, deployment: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Over the last weekend (at the default clock), the second agent's model was overloaded."""
    within: NDArray[np.bool_] = (at > fleet.now - 46 * HOUR) & (at < fleet.now - 8 * HOUR)
    of_it: NDArray[np.bool_] = within & (fleet.agent[deployment] == 1)
    return of_it


def _errors(
    fleet: Fleet, deployment: NDArray[np.int64], at: NDArray[np.int64], chance: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Each deployment has an error of its own, most of the time."""
    own = fleet.draws.below("error", fleet.number, len(ERRORS))[deployment]
    error = np.where(chance < 0.7, own, (chance * 1_000).astype(np.int64) % len(ERRORS))  # noqa: PLR2004
    return np.where(_incident(fleet, deployment, at), OVERLOADED, error)
