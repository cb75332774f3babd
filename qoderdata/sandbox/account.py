"""Which deployments does an account have, and when do their schedules fire?

`Fleet` decides roles, schedules, agents and failure rates: one row per deployment, one array per column.
`run_history` decides when each deployment was created and what it has run since; it evaluates each distinct pair
of cron text and zone once, for all deployments that have it.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import islice
from math import isqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qoderdata import cron
from qoderdata.sandbox.sample_values import DAY, HOUR, SECOND, Dice, Draws, as_datetime, make_ids

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The roles of deployments.
ROLES = range(7)
ORDINARY, FAILING, PAUSED, PAUSED_BY_ERROR, ARCHIVED, UNSCHEDULED, NEVER_RAN = ROLES
# Unscheduled deployments are started by hand only; those that never ran have a schedule.

#: The roles of each group of 25 deployments; the first seven have one of each.
_ROLE_PATTERN = (*ROLES, ARCHIVED, FAILING, UNSCHEDULED, *[ORDINARY] * 15)

#: The failure rates of ordinary deployments.
_RATES = (0, 0, 0, 0, 0.005, 0.01, 0.01, 0.02, 0.02, 0.03, 0.03, 0.05, 0.05, 0.08, 0.12, 0.3)

#: The duration of a typical run, in milliseconds.
_DURATIONS = (3_000, 4_000, 9_000, 17_000, 31_000, 62_000, 118_000, 240_000, 420_000)

#: How many of the next triggers the service lists.
_UPCOMING = 5


class Pair(NamedTuple):
    """One cron text in one zone, and the average number of hours between two occurrences."""

    expression: str
    timezone: str
    hours: float


_ZONES = (
    "Asia/Shanghai", "Asia/Shanghai", "Asia/Shanghai", "UTC", "UTC", "Europe/Berlin", "America/New_York",
    "America/Los_Angeles", "Asia/Tokyo", "Asia/Kolkata", "Europe/London", "Australia/Sydney", "America/Sao_Paulo",
    "Africa/Cairo", "Asia/Kathmandu", "Pacific/Auckland", "America/St_Johns", "Africa/Casablanca",
    "Australia/Lord_Howe", "Asia/Singapore",
)  # fmt: skip

#: The pairs that every account has: the documented one first, then pairs for which there are lints.
_COMMON_PAIRS = (
    Pair("0 9 * * *", "Asia/Shanghai", 24),
    Pair("30 8 * * MON-FRI", "Europe/Berlin", 33.6),
    Pair("17 * * * *", "UTC", 1),
    Pair("0 6 * * 1", "America/New_York", 168),
    Pair("0 */6 * * *", "Asia/Kolkata", 6),
    Pair("30 2 * * *", "America/New_York", 24),
    Pair("0 3 1 * *", "UTC", 730),
    Pair("15 2 * * *", "Australia/Lord_Howe", 24),
    Pair("0 */7 * * *", "Asia/Tokyo", 6),
    Pair("0 8 1 * MON", "Europe/London", 140),
    Pair("0 7 31 * *", "Asia/Shanghai", 1250),
    Pair("30 0 * * SUN", "Africa/Cairo", 168),
)


class Fleet:
    """The deployments of one account; every array has one value per deployment.

    The same seed gives the same deployments. `run_history` decides the times of creation.
    """

    def __init__(self, deployments: int, *, seed: int, now: int) -> None:
        draws, number = Draws(seed), np.arange(deployments)
        self.draws, self.now = draws, now
        self.pairs = make_pairs(max(1, min(500, 8 + deployments // 10, deployments)), seed)
        self.agents = _ids("agent", max(1, min(deployments, 4 + isqrt(deployments) * 2 // 3)), draws, now)
        self.environments = _ids("env", 2 + len(str(deployments)), draws, now)
        #: The order of generation, which decides names and examples.
        self.number = number
        self.role = np.empty(deployments, dtype=np.int64)
        by_chance = np.argsort(draws.uniform("role", number), kind="stable")
        self.role[by_chance] = np.resize(_ROLE_PATTERN, deployments)
        share = draws.uniform("pair", number)
        pair = (share * share * len(self.pairs)).astype(np.int64)
        #: The index of the pair; -1 without a schedule.
        self.pair = np.where(self.has_role(UNSCHEDULED), -1, pair)
        share = draws.uniform("liking", number) * draws.uniform("agent", number)
        self.agent = (share * len(self.agents)).astype(np.int64)
        self.environment = draws.below("environment", number, len(self.environments))
        #: The time until which it fires, in nanoseconds since 1970: now, or when it was paused or archived.
        self.ends = self._ends()
        #: In nanoseconds since 1970; 0 until the history decides.
        self.created = np.zeros(deployments, dtype=np.int64)
        #: Whether an active one was updated after its creation.
        self.edited = draws.uniform("edited", number) < 0.3
        #: The probability that a run fails.
        self.rate = draws.among("rate", number, _RATES) + np.where(self.has_role(FAILING, PAUSED_BY_ERROR), 0.1, 0)
        last_failed = [2 + draws.below("streak", number, 9), 3 + draws.below("streak", number, 4)]
        #: How many of the last scheduled runs failed.
        self.streak = np.select([self.has_role(FAILING), self.has_role(PAUSED_BY_ERROR)], last_failed, 0)
        self.retries = draws.among("retries", number, (0, 0, 0, 1, 1, 2, 3)).astype(np.int64)
        #: Whether it used one session for several runs, up to edition C.
        self.reuses_session = number % 40 % 9 == 4
        self.has_budget = number % 16 == 5
        #: In milliseconds.
        self.timeout = draws.among("timeout", number, (300_000, 300_000, 600_000, 1_800_000)).astype(np.int64)
        spread = 0.7 + 0.6 * draws.uniform("own duration", number)
        #: Of a typical run, in milliseconds.
        self.duration = draws.among("duration", number, _DURATIONS) * spread

    def __len__(self) -> int:
        """Return the number of deployments."""
        return len(self.number)

    def hours(self) -> NDArray[np.float64]:
        """Return the average number of hours between two scheduled runs; infinite without a schedule."""
        return np.array([*(pair.hours for pair in self.pairs), np.inf])[self.pair]

    def has_role(self, *roles: int) -> NDArray[np.bool_]:
        """Return which deployments have one of the roles."""
        return np.isin(self.role, roles)

    def sort(self, order: NDArray[np.int64]) -> None:
        """Sort the deployments in a given order."""
        for name, column in vars(self).items():
            if isinstance(column, np.ndarray):
                setattr(self, name, column[order])

    def _ends(self) -> NDArray[np.int64]:
        """Choose the time until which each deployment fires."""
        ends = np.full(len(self), self.now)
        since = self.draws.uniform("end", self.number)
        # Whole seconds: a history is cut at them, and an occurrence lies before or after, never at the same time.
        for role, least, most in (
            (PAUSED, HOUR, 45 * DAY),
            (PAUSED_BY_ERROR, 2 * HOUR, 10 * DAY),
            (ARCHIVED, DAY, 200 * DAY),
        ):
            ago = least + (since * ((most - least) // SECOND)).astype(np.int64) * SECOND
            ends = np.where(self.role == role, self.now - ago, ends)
        return ends


def _ids(prefix: str, count: int, draws: Draws, now: int) -> list[str]:
    """Return ids of agents or environments that are older than most deployments."""
    index = np.arange(count)
    times = np.sort(draws.below(f"{prefix} time", index, 300)) * DAY + now - 800 * DAY
    return make_ids(prefix, times, draws.tails(prefix, index))


def _random_pair(dice: Dice) -> Pair:
    """Return a random pair; daily ones are the most frequent, monthly ones the rarest."""
    minute, hour = dice.pick((0, 0, 0, 30, 15, 45, dice.below(60))), dice.below(24)
    step = dice.pick((2, 3, 4, 6, 8, 12))
    weekdays = dice.pick(("1-5", "MON-FRI", "mon,tue,wed,thu,fri"))
    day = dice.pick(("MON", "1", "FRI", "7", "0", "Wed"))
    kinds = (
        *[(f"{minute} {hour} * * *", 24)] * 6,
        *[(f"{minute} {hour} * * {weekdays}", 33.6)] * 4,
        *[(f"{minute} {hour} * * {day}", 168)] * 3,
        *[(f"{dice.below(60)} * * * *", 1)] * 2,
        *[(f"{minute} */{step} * * *", step)] * 2,
        (f"{minute} 8-18/2 * * MON-FRI", 5.6),
        (f"{minute} {hour} 1,15 * *", 365),
        (f"{minute} {hour} {1 + dice.below(31)} {dice.pick(('*', '*', 'JAN-DEC/3'))} *", 730),
    )
    expression, hours = dice.pick(kinds)
    return Pair(expression, dice.pick(_ZONES), hours)


def make_pairs(size: int, seed: int) -> list[Pair]:
    """Return `size` distinct pairs: those that every account has, then random ones."""
    pairs = dict.fromkeys(_COMMON_PAIRS[:size])
    number = 0
    while len(pairs) < size:
        pairs[_random_pair(Dice(f"{seed}/pair/{number}"))] = None
        number += 1
    return list(pairs)


def upcoming(pair: Pair, since: int) -> list[int]:
    """Return the next triggers that the service lists at a time, in nanoseconds since 1970."""
    following = cron.parse(pair.expression, pair.timezone).following(as_datetime(since - 1))
    return [int(at.timestamp()) * SECOND for at in islice(following, _UPCOMING)]


def occurrences(pair: Pair, now: int, days: int) -> NDArray[np.int64]:
    """Return a pair's occurrences from some days before `now` to several after it, in nanoseconds since 1970."""
    middle, ahead = as_datetime(now), timedelta(hours=pair.hours * 12, days=3)
    found = cron.parse(pair.expression, pair.timezone).instants(middle - timedelta(days=days), middle + ahead)
    return found.astype("datetime64[ns]").astype(np.int64)
