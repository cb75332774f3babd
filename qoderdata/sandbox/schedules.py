"""Choose the cron texts of an account, and find their occurrences around its clock.

Each distinct pair of cron text and zone is evaluated once.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qoderdata import cron
from qoderdata.sandbox.draws import SECOND, Dice

if TYPE_CHECKING:
    from numpy.typing import NDArray


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Pair(NamedTuple):
    """One cron text in one zone, and how many hours lie between two occurrences on average."""

    expression: str
    timezone: str
    hours: float


_ZONES = (
    "Asia/Shanghai", "Asia/Shanghai", "Asia/Shanghai", "UTC", "UTC", "Europe/Berlin", "America/New_York",
    "America/Los_Angeles", "Asia/Tokyo", "Asia/Kolkata", "Europe/London", "Australia/Sydney", "America/Sao_Paulo",
    "Africa/Cairo", "Asia/Kathmandu", "Pacific/Auckland", "America/St_Johns", "Africa/Casablanca",
    "Australia/Lord_Howe", "Asia/Singapore",
)  # fmt: skip

#: What every account has: the documented one first, and those that a lint has something to say about.
_FIRST = (
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


def _invent(dice: Dice) -> Pair:
    """Make up one more pair; daily ones are the most frequent, monthly ones the rarest."""
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


def pool(size: int, seed: int) -> list[Pair]:
    """List the pairs that an account shares.

    Parameters
    ----------
    size
        How many.
    seed
        The account's.

    Returns
    -------
    list of Pair
        Distinct pairs, in a fixed order.
    """
    pairs = dict.fromkeys(_FIRST[:size])
    number = 0
    while len(pairs) < size:
        pairs[_invent(Dice(f"{seed}/pair/{number}"))] = None
        number += 1
    return list(pairs)


class Occurrences:
    """The occurrences of one pair around the account's clock, as far back as they are needed.

    Parameters
    ----------
    pair
        The pair.
    now
        The clock; like all times here in nanoseconds since 1970.
    back
        How many days to look back at first.
    """

    def __init__(self, pair: Pair, now: int, back: int) -> None:
        self._schedule = cron.parse(pair.expression, pair.timezone)
        self._now = _EPOCH + timedelta(microseconds=now // 1_000)
        self._ahead = timedelta(hours=pair.hours * 12, days=3)
        self.look_back(back)

    def look_back(self, days: int) -> None:
        """Look further back; `back` is how far."""
        self.back = days
        found = self._schedule.instants(self._now - timedelta(days=days), self._now + self._ahead)
        #: The occurrences, ascending.
        self.at: NDArray[np.int64] = found.astype("datetime64[ns]").astype(np.int64)

    def upcoming(self, since: int, count: int) -> list[int]:
        """Return the first occurrences at a time or after it."""
        first = int(np.searchsorted(self.at, since))
        found: list[int] = self.at[first : first + count].tolist()
        if len(found) == count:
            return found
        later = self._schedule.following(_EPOCH + timedelta(microseconds=(since - 1) // 1_000))
        return [(at - _EPOCH) // timedelta(seconds=1) * SECOND for at in islice(later, count)]
