"""Generate the runs of an account: which runs there are, and when each was triggered, started and completed.

One row per run, one array per column. The scheduled runs of a deployment are all of its occurrences from its
creation to the present (or until it was paused or archived), except those left out on purpose. The time of
creation is chosen so that their number is right. Retries and manual runs are added up to the exact total.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from qoderdata.sandbox.account import NEVER_RAN, ORDINARY, PAUSED_BY_ERROR, UNSCHEDULED, occurrences
from qoderdata.sandbox.sample_values import DAY, HOUR, MINUTE, SECOND, Columns, first_case

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qoderdata.sandbox.account import Fleet

#: Codes of the columns `trigger`, `status` and `error`; their names are what the service sends.
TRIGGERS = ("schedule", "manual", "retry")
SCHEDULE, MANUAL, RETRY = range(3)
STATUSES = ("pending", "running", "completed", "failed", "skipped")
PENDING, RUNNING, COMPLETED, FAILED, SKIPPED = range(5)
ERRORS = ("timeout_error", "tool_error", "rate_limit_error", "overloaded_error", "permission_error", "api_error")
TIMEOUT, OVERLOADED = 0, 3

#: In milliseconds. A failed run and all its retries end within half an hour.
_LONGEST_FAILURE = 170_000
_SHORTEST_TIMEOUT = 300_000

#: The share of the runs that are retries, or manual runs of scheduled deployments.
_EXTRA_SHARE = 0.06
#: The maximum age of deployments in days: the usual one, and the largest one if many runs are needed.
_DAYS, _MOST_DAYS = 400, 20_000
#: With fewer runs, none is made unfinished on purpose.
_FEW = 20


class Runs(Columns):
    """The columns of some runs; times in nanoseconds since 1970.

    Generates one run for each `key`, with the same trigger and attempt; those with `must_fail` fail. `at` is the
    scheduled time, or that of the trigger; `scheduled` is the scheduled time of the first attempt.
    """

    def __init__(
        self,
        fleet: Fleet,
        deployment: NDArray[np.int64],
        at: NDArray[np.int64],
        *,
        key: NDArray[np.int64],
        trigger: int,
        attempt: int = 1,
        scheduled: NDArray[np.int64] | None = None,
        must_fail: NDArray[np.bool_] | bool = False,
    ) -> None:
        draws, now = fleet.draws, fleet.now
        name = f"{TRIGGERS[trigger]} {attempt}"

        def chance(purpose: str) -> NDArray[np.float64]:
            return draws.uniform(f"{name} {purpose}", key)

        self.deployment = deployment
        self.trigger = np.full(len(at), trigger)
        self.attempt = np.full(len(at), attempt)
        if scheduled is None:
            scheduled = at if trigger == SCHEDULE else np.zeros(len(at), dtype=np.int64)
        #: The scheduled time; a retry has that of the first attempt, a manual run has 0.
        self.scheduled = scheduled
        late = chance("delay")
        seconds = np.where(late < 0.9, late * 4, 3 + (late - 0.9) * 860) if trigger == SCHEDULE else 0.0 * late
        triggered = _with_some_precision(at + (seconds * SECOND).astype(np.int64), chance("grain"), at)
        self.triggered = np.minimum(triggered, now)
        lag = chance("lag")
        created = self.triggered + (np.maximum(lag - 0.6, 0) * 5_000).astype(np.int64) * 1_000_000
        self.created = np.minimum(created, now)
        wait = chance("wait")
        waited = 20_000 + (wait * wait * 3e6).astype(np.int64) + np.where(wait > 0.97, 30_000_000, 0)
        self.started = self.created + waited * 1_000

        rate = fleet.rate[deployment]
        rate = np.where(_incident(fleet, deployment, at), np.maximum(rate, 0.6), rate)
        failed = (chance("outcome") < (rate if attempt == 1 else 0.35)) | must_fail
        often = (fleet.hours()[deployment] <= 6) & (trigger == SCHEDULE)
        skipped = often & ~failed & (chance("skipped") < 0.03)

        error = _errors(fleet, deployment, at, chance("error"))
        timeout = fleet.timeout[deployment]
        error = np.where((error == TIMEOUT) & (timeout > _SHORTEST_TIMEOUT), TIMEOUT + 1, error)
        spread = chance("duration")
        slow = (fleet.number[deployment] % 17 == 3) & (at > now - 3 * DAY)  # each 17th deployment got slower
        length = fleet.duration[deployment] * (0.6 + 0.8 * spread) * np.where(slow, 1.9, 1)
        length = np.minimum(length * np.where(chance("tail") > 0.97, 2.5, 1), timeout * 0.95)
        length = np.where(failed, np.minimum(length * spread, _LONGEST_FAILURE), length)
        microseconds = (length * 1_000).astype(np.int64)
        over_time = timeout * 1_000 + (spread * 900).astype(np.int64)
        microseconds = np.where(failed & (error == TIMEOUT), over_time, microseconds)
        #: When it ended; without meaning for a skipped run.
        self.completed = self.started + microseconds * 1_000
        cases = [
            (skipped, SKIPPED), (self.started > now, PENDING), (self.completed > now, RUNNING), (failed, FAILED),
        ]  # fmt: skip
        self.status = first_case(cases, COMPLETED)
        self.error = np.where(self.status == FAILED, error, -1)
        #: The random bits of the id.
        self.tail = draws.tails(name, key)
        #: The number on which its random draws depend.
        self.key = key
        self.must_fail = np.full(len(at), must_fail)


def _retries(fleet: Fleet, runs: Runs, most: int) -> Runs:
    """Generate at most `most` retries of failed runs of one attempt, soon after they failed."""
    attempt = int(runs.attempt[0]) + 1
    draws = fleet.draws
    at = runs.completed + 30 * SECOND + draws.below(f"retry wait {attempt}", runs.key, 30_000) * 1_000_000
    chosen = (runs.status == FAILED) & (fleet.retries[runs.deployment] >= attempt - 1) & (at <= fleet.now)
    chosen &= draws.uniform(f"retry {attempt}", runs.key) < 0.6  # not all failed runs are retried
    which = np.flatnonzero(chosen)[:most]
    failed = runs.take(which)
    return Runs(
        fleet, failed.deployment, at[which], key=failed.key, trigger=RETRY, attempt=attempt,
        scheduled=failed.scheduled, must_fail=failed.must_fail,
    )  # fmt: skip


def streaks(runs: Runs, deployments: int) -> NDArray[np.int64]:
    """Count the failures of each deployment since its last success; skipped and unfinished runs do not count."""
    position = np.arange(len(runs))
    succeeded = np.full(deployments, -1)
    good = runs.status == COMPLETED
    np.maximum.at(succeeded, runs.deployment[good], position[good])
    since = (runs.status == FAILED) & (position > succeeded[runs.deployment])
    return np.bincount(runs.deployment[since], minlength=deployments)


def _with_some_precision(
    times: NDArray[np.int64], chance: NDArray[np.float64], least: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Cut each time to seconds, milliseconds or microseconds, or leave it; none becomes earlier than `least`."""
    grain = first_case([(chance < 0.06, SECOND), (chance < 0.16, 1_000_000), (chance < 0.9, 1_000)], 1)
    cut: NDArray[np.int64] = np.maximum(times // grain * grain, least)
    return cut


def _incident(fleet: Fleet, deployment: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which runs met the overloaded model of the second agent: last weekend at the default clock."""
    within = (at > fleet.now - 46 * HOUR) & (at < fleet.now - 8 * HOUR)
    affected: NDArray[np.bool_] = within & (fleet.agent[deployment] == 1)
    return affected


def _errors(
    fleet: Fleet, deployment: NDArray[np.int64], at: NDArray[np.int64], chance: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Choose the errors of failed runs; most errors of a deployment are the same."""
    own = fleet.draws.below("error", fleet.number, len(ERRORS))[deployment]
    error = np.where(chance < 0.7, own, (chance * 1_000).astype(np.int64) % len(ERRORS))
    return np.where(_incident(fleet, deployment, at), OVERLOADED, error)


@dataclass
class Planned(Columns):
    """The planned occurrences, one per row; times in nanoseconds since 1970."""

    deployment: NDArray[np.int64]
    at: NDArray[np.int64]
    #: The next occurrence, or the end.
    until: NDArray[np.int64]
    #: How many occurrences of the deployment come before it; `from_last` is how many come after.
    from_first: NDArray[np.int64]
    from_last: NDArray[np.int64]


def make_runs(fleet: Fleet, count: int, left_out: int) -> tuple[Runs, Planned]:
    """Generate `count` runs of a fleet, oldest first; also return the occurrences that are left out.

    Set the fleet's `created`, and the `ends` of deployments that failures paused. Raise `ValueError` if there is
    no history with `count` runs.
    """
    unscheduled = _without_schedule(fleet, count)
    scheduled = count - int(count * _EXTRA_SHARE) - len(unscheduled)
    while True:
        planned = _plan(fleet, _scheduled_counts(fleet, scheduled + left_out))
        kept = _choose_kept(fleet, planned, left_out)
        parts = [unscheduled, *_attempts(fleet, planned, kept, (count - scheduled - len(unscheduled)) // 2)]
        if count >= _FEW:
            parts.append(_unfinished(fleet, parts, count - sum(map(len, parts))))
        missing = count - sum(map(len, parts))
        parts.append(_manual(fleet, planned, missing))
        missing -= len(parts[-1])
        if not missing:
            break
        scheduled += missing
    everything = Runs.join(*parts)
    return everything.take(np.lexsort((everything.tail, everything.created))), planned.take(~kept)


def _without_schedule(fleet: Fleet, runs: int) -> Runs:
    """Generate the runs of deployments without a schedule, and set when these were created."""
    which = np.flatnonzero(fleet.has_role(UNSCHEDULED))
    counts = np.zeros(len(fleet), dtype=np.int64)
    if len(which):
        share = min(runs * len(which) // (2 * len(fleet)), 40 * len(which))
        counts[which] = share // len(which)
        counts[which[: share % len(which)]] += 1
    spacing = 6 * HOUR + fleet.draws.below("spacing", fleet.number, 30 * 3600) * SECOND
    fleet.created = np.where(fleet.has_role(UNSCHEDULED), fleet.now - (counts + 1) * spacing, fleet.created)
    deployment = np.repeat(np.arange(len(fleet)), counts)
    position = _positions(counts)
    key = _key(fleet, deployment, position)
    shift = (fleet.draws.uniform("shift", key) * 0.6 * spacing[deployment]).astype(np.int64)
    at = fleet.created[deployment] + (position * spacing[deployment] + shift) // 1_000 * 1_000
    return Runs(fleet, deployment, at, key=key, trigger=MANUAL)


def _scheduled_counts(fleet: Fleet, total: int) -> NDArray[np.int64]:
    """Return how many scheduled runs each deployment has: more for frequent ones, within the greatest age."""
    hours = np.where(fleet.has_role(UNSCHEDULED, NEVER_RAN), np.inf, fleet.hours())
    weight = (0.3 + 2.7 * fleet.draws.uniform("appetite", fleet.number)) * np.sqrt(np.sqrt(24 / hours))
    counts = np.zeros(len(fleet), dtype=np.int64)
    if total == 0:
        return counts
    if not weight.any():
        raise ValueError("no deployment of this account ever runs; ask for runs=0, or for more deployments")
    days = _DAYS
    while (limits := np.floor(days * 24 / hours).astype(np.int64)).sum() < total:
        days *= 2
        if days > _MOST_DAYS:
            raise ValueError(f"{total} runs would make {len(fleet)} deployments decades old; ask for fewer")
    low, high = 0.0, (total + 1) / weight[weight > 0].min()
    for _ in range(80):
        middle = (low + high) / 2
        counts = np.minimum(limits, (middle * weight).astype(np.int64))
        low, high = (middle, high) if counts.sum() <= total else (low, middle)
    counts = np.minimum(limits, (low * weight).astype(np.int64))
    room = np.flatnonzero(counts < limits)
    by_remainder = room[np.argsort(-(low * weight % 1)[room], kind="stable")]
    counts[by_remainder[: total - int(counts.sum())]] += 1
    return counts


def _plan(fleet: Fleet, counts: NDArray[np.int64]) -> Planned:
    """Find the occurrences to run, and set the times of creation just before the first of them."""
    chance = fleet.draws.uniform("created", fleet.number)
    by_pair = np.argsort(fleet.pair, kind="stable")
    bounds = np.searchsorted(fleet.pair[by_pair], np.arange(len(fleet.pairs) + 1))
    parts = [Planned(*[np.zeros(0, dtype=np.int64)] * len(fields(Planned)))]
    for pair, (first, last) in enumerate(pairwise(bounds)):
        members = by_pair[first:last]
        if not len(members):
            continue
        taken = counts[members]
        at = _occurrences_of_pair(fleet, pair, taken, fleet.ends[members])
        # An occurrence at the end time itself counts as the next one.
        stop = np.searchsorted(at, fleet.ends[members])
        start = stop - taken
        # The service pauses after the last failed run and its retries, well before the next occurrence.
        failed = (fleet.role[members] == PAUSED_BY_ERROR) & (taken > 0)
        end = np.where(failed, at[stop - 1] + 25 * MINUTE, fleet.ends[members])
        fleet.ends[members] = end
        fleet.created[members] = _between(at[start - 1], np.where(taken > 0, at[start], end), chance[members])
        row = np.repeat(np.arange(len(members)), taken)
        position = _positions(taken)
        index = start[row] + position
        until = np.minimum(at[index + 1], end[row])
        parts.append(Planned(members[row], at[index], until, position, taken[row] - 1 - position))
    return Planned.join(*parts)


def _occurrences_of_pair(
    fleet: Fleet, pair: int, taken: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return a pair's occurrences, beginning before the first one that these deployments ran."""
    days = (fleet.now - int(ends.min())) / DAY + (int(taken.max()) + 2) * fleet.pairs[pair].hours / 20
    # A power of two, so that the pairs of a zone share its clock changes.
    back = 1 << int(days).bit_length()
    at = occurrences(fleet.pairs[pair], fleet.now, back)
    while (np.searchsorted(at, ends) - taken).min() < 1:
        back *= 2
        at = occurrences(fleet.pairs[pair], fleet.now, back)
    return at


def _choose_kept(fleet: Fleet, planned: Planned, count: int) -> NDArray[np.bool_]:
    """Choose the occurrences to leave out, never a first or last one, and return which others are kept."""
    certain = fleet.has_role(ORDINARY)[planned.deployment]
    certain &= (planned.from_first > 0) & (planned.from_last > 0)
    candidates = np.flatnonzero(certain)
    if count > len(candidates):
        raise ValueError(f"left_out={count}: only {len(candidates)} occurrences can be; ask for more runs")
    key = _key(fleet, planned.deployment, planned.from_last)[candidates]
    kept = np.ones(len(planned.at), dtype=np.bool_)
    kept[candidates[np.argsort(fleet.draws.uniform("left out", key), kind="stable")[:count]]] = False
    fleet.edited[planned.deployment[~kept]] = False
    return kept


def _attempts(fleet: Fleet, planned: Planned, kept: NDArray[np.bool_], most: int) -> list[Runs]:
    """Generate the runs of the occurrences that are kept, and at most `most` retries."""
    key = _key(fleet, planned.deployment, planned.from_last)[kept]
    deployment = planned.deployment[kept]
    must_fail = planned.from_last[kept] < fleet.streak[deployment]
    parts = [Runs(fleet, deployment, planned.at[kept], key=key, trigger=SCHEDULE, must_fail=must_fail)]
    while len(parts[-1]) and most > 0:
        parts.append(_retries(fleet, parts[-1], most))
        most -= len(parts[-1])
    return parts


def _unfinished(fleet: Fleet, parts: list[Runs], most: int) -> Runs:
    """Generate manual runs of the last minutes that are unfinished."""
    last = np.zeros(len(fleet), dtype=np.int64)
    for part in parts:
        np.maximum.at(last, part.deployment, part.triggered)
    ran = (last > 0) & (last <= fleet.now - 26 * MINUTE)
    free = np.flatnonzero(ran & fleet.has_role(ORDINARY, UNSCHEDULED))
    chosen = free[np.argsort(fleet.draws.uniform("fresh", fleet.number[free]), kind="stable")]
    chosen = chosen[: min(most, max(2, len(fleet) // 50))]
    key = _key(fleet, chosen, np.full(len(chosen), (1 << 24) - 1))
    age = fleet.draws.below("age", key, 90) * SECOND
    age[::3] //= 1_000
    runs = Runs(fleet, chosen, fleet.now - age, key=key, trigger=MANUAL)
    runs.completed = np.maximum(runs.completed, fleet.now + SECOND)
    runs.status = np.where(runs.started > fleet.now, PENDING, RUNNING)
    runs.error[:] = -1
    return runs


def _manual(fleet: Fleet, planned: Planned, most: int) -> Runs:
    """Generate manual runs between two occurrences, after all attempts of the first."""
    idle = np.flatnonzero(np.bincount(planned.deployment, minlength=len(fleet)) == 0)
    idle = idle[~fleet.has_role(NEVER_RAN, UNSCHEDULED)[idle]]
    deployment = np.concatenate([planned.deployment, idle])
    since = np.concatenate([planned.at, fleet.created[idle]])
    until = np.concatenate([planned.until, fleet.ends[idle]])
    key = _key(fleet, deployment, np.concatenate([planned.from_last, np.full(len(idle), (1 << 24) - 2)]))
    wide = np.flatnonzero(until - since >= HOUR)
    chosen = wide[np.argsort(fleet.draws.uniform("by hand", key[wide]), kind="stable")[:most]]
    share = 0.46 + 0.25 * fleet.draws.uniform("moment", key[chosen])
    at = since[chosen] + (share * ((until - since)[chosen] // 1_000)).astype(np.int64) * 1_000
    from_last = np.concatenate([planned.from_last, np.full(len(idle), 1 << 24)])[chosen]
    must_fail = from_last < fleet.streak[deployment[chosen]]
    return Runs(fleet, deployment[chosen], at, key=key[chosen], trigger=MANUAL, must_fail=must_fail)


def _positions(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the position of each row in its group, for groups of these sizes."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _key(fleet: Fleet, deployment: NDArray[np.int64], position: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number for each run, on which its random draws depend."""
    return (fleet.number[deployment] << 24) + position


def _between(
    earliest: NDArray[np.int64], latest: NDArray[np.int64], chance: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Choose a time between two times, in whole seconds, milliseconds or microseconds."""
    exact = earliest + ((0.05 + 0.9 * chance) * ((latest - earliest) // 1_000)).astype(np.int64) * 1_000
    grain = first_case([(chance * 7 % 1 < 0.6, SECOND), (chance * 7 % 1 < 0.75, 1_000_000)], 1)
    cut = exact // grain * grain
    return np.where(cut > earliest, cut, exact)
