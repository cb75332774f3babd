"""Decide which deployments an account has: their roles, schedules, agents and failure rates.

One row a deployment, one array a column. `run_history` decides when each was created, and what it ran since.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isqrt
from typing import TYPE_CHECKING

import numpy as np

from qoderdata.sandbox.draws import DAY, HOUR, SECOND, Draws, uuid7
from qoderdata.sandbox.schedules import pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qoderdata.sandbox.schedules import Pair


#: What a deployment is an example of.
ROLES = range(7)
ORDINARY, FAILING, PAUSED, BROKEN, ARCHIVED, UNSCHEDULED, NEW = ROLES
# Broken ones were paused by the service after a streak of failures; unscheduled ones run by
# hand only; new ones have a schedule, and never ran.

#: The roles of every 25 deployments; the first seven have one of each.
_ROLE_PATTERN = (*ROLES, ARCHIVED, FAILING, UNSCHEDULED, *[ORDINARY] * 15)

#: How often a run of an ordinary deployment fails.
_RATES = (0, 0, 0, 0, 0.005, 0.01, 0.01, 0.02, 0.02, 0.03, 0.03, 0.05, 0.05, 0.08, 0.12, 0.3)

#: A typical run, in milliseconds.
_DURATIONS = (3_000, 4_000, 9_000, 17_000, 31_000, 62_000, 118_000, 240_000, 420_000)


@dataclass
class Fleet:
    """The deployments of one account; every array has one value a deployment."""

    draws: Draws
    now: int
    pairs: list[Pair]
    agents: list[str]
    environments: list[str]

    number: NDArray[np.int64]
    """In the order of generation; names and examples go by it."""
    role: NDArray[np.int64]
    pair: NDArray[np.int64]
    """Which of the pairs; -1 without a schedule."""
    agent: NDArray[np.int64]
    environment: NDArray[np.int64]
    ends: NDArray[np.int64]
    """Until when it fires, in nanoseconds since 1970: now, or when it was paused or archived."""
    created: NDArray[np.int64]
    """In nanoseconds since 1970; 0 until the history decides."""
    edited: NDArray[np.bool_]
    """Whether an active one was updated after its creation."""
    rate: NDArray[np.float64]
    """How likely a run fails."""
    streak: NDArray[np.int64]
    """How many scheduled runs failed last."""
    retries: NDArray[np.int64]
    timeout: NDArray[np.int64]
    """In milliseconds."""
    duration: NDArray[np.float64]
    """Of a typical run, in milliseconds."""

    def __len__(self) -> int:
        """Return how many deployments there are."""
        return len(self.number)

    def hours(self) -> NDArray[np.float64]:
        """Return the hours between two scheduled runs, on average; infinite without a schedule."""
        return np.array([*(pair.hours for pair in self.pairs), np.inf])[self.pair]

    def has_role(self, *roles: int) -> NDArray[np.bool_]:
        """Return which deployments have one of the roles."""
        return np.isin(self.role, roles)

    def sort(self, order: NDArray[np.int64]) -> None:
        """Put the deployments in another order."""
        for field in fields(self):
            column = getattr(self, field.name)
            if isinstance(column, np.ndarray):
                setattr(self, field.name, column[order])


def plan(deployments: int, *, seed: int, now: int) -> Fleet:
    """Decide which deployments an account has.

    Parameters
    ----------
    deployments
        How many, archived ones among them.
    seed
        Two accounts of one seed are the same.
    now
        The account's clock, in nanoseconds since 1970.

    Returns
    -------
    Fleet
        In order of generation, without the times of creation.
    """
    draws = Draws(seed)
    number = np.arange(deployments)
    role = np.empty(deployments, dtype=np.int64)
    role[np.argsort(draws.uniform("role", number), kind="stable")] = np.resize(_ROLE_PATTERN, deployments)
    pairs = pool(max(1, min(500, 8 + deployments // 10, deployments)), seed)
    popularity = draws.uniform("pair", number)
    liking = draws.uniform("liking", number)
    agents = _ids("agent", max(1, min(deployments, 4 + isqrt(deployments) * 2 // 3)), draws, now)
    environments = _ids("env", 2 + len(str(deployments)), draws, now)
    fleet = Fleet(
        draws=draws,
        now=now,
        pairs=pairs,
        agents=agents,
        environments=environments,
        number=number,
        role=role,
        pair=np.where(role == UNSCHEDULED, -1, (popularity * popularity * len(pairs)).astype(np.int64)),
        agent=(liking * draws.uniform("agent", number) * len(agents)).astype(np.int64),
        environment=draws.below("environment", number, len(environments)),
        ends=np.full(deployments, now),
        created=np.zeros(deployments, dtype=np.int64),
        edited=draws.uniform("edited", number) < 0.3,  # noqa: PLR2004 - the share of edited ones
        rate=draws.among("rate", number, _RATES),
        streak=np.zeros(deployments, dtype=np.int64),
        retries=draws.among("retries", number, (0, 0, 0, 1, 1, 2, 3)).astype(np.int64),
        timeout=draws.among("timeout", number, (300_000, 300_000, 600_000, 1_800_000)).astype(np.int64),
        duration=draws.among("duration", number, _DURATIONS) * (0.7 + 0.6 * draws.uniform("own duration", number)),
    )
    _apply_roles(fleet)
    return fleet


def _apply_roles(fleet: Fleet) -> None:
    """Set until when each deployment fires, and how often it fails, by its role."""
    draws, number = fleet.draws, fleet.number
    since = draws.uniform("end", number)
    # Whole seconds: a history is cut at them, and an occurrence lies before or after, never at the same time.
    for role, least, most in (
        (PAUSED, HOUR, 45 * DAY),
        (BROKEN, 2 * HOUR, 10 * DAY),
        (ARCHIVED, DAY, 200 * DAY),
    ):
        ends = fleet.now - least - (since * ((most - least) // SECOND)).astype(np.int64) * SECOND
        fleet.ends = np.where(fleet.role == role, ends, fleet.ends)
    fleet.streak[fleet.role == FAILING] = 2 + draws.below("streak", number, 9)[fleet.role == FAILING]
    fleet.streak[fleet.role == BROKEN] = 3 + draws.below("streak", number, 4)[fleet.role == BROKEN]
    fleet.rate = np.where(fleet.has_role(FAILING, BROKEN), 0.1 + fleet.rate, fleet.rate)


def _ids(prefix: str, count: int, draws: Draws, now: int) -> list[str]:
    """Return ids of agents or environments, older than any deployment is likely to be."""
    index = np.arange(count)
    times = np.sort(draws.below(f"{prefix} time", index, 300)) * DAY + now - 800 * DAY
    tails = draws.tails(prefix, index)
    return [f"{prefix}_{uuid7(int(at), int(tail))}" for at, tail in zip(times, tails, strict=True)]
