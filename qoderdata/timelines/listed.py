"""The triggers that the service lists itself (``schedule_upcoming_runs_at``), and whether cron agrees with them.

Deployments with the same schedule and the same list have the same future: it is worked out once for all of
them. Leaves it to `triggers` what a list means beside cron.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from qoderdata.cron import Schedule
from qoderdata.errors import DataQualityWarning, warn
from qoderdata.timelines import clock
from qoderdata.timelines.pairs import Pairs, few_ids

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A list that spans longer is compared trigger by trigger: cron may have millions in between.
_SHORT = timedelta(days=366)


@dataclass(frozen=True)
class Future:
    """One schedule with one list of the service's.

    Attributes
    ----------
    pair : int
        The number of the pair.
    schedule : Schedule
        The schedule itself.
    listed : numpy.ndarray
        What the service lists, ascending, in microseconds since 1970; may be empty.
    """

    pair: int
    schedule: Schedule
    listed: NDArray[np.int64]

    def agrees(self) -> bool:
        """Tell whether cron gives the same triggers from the first listed one to the last."""
        if not self.listed.size:
            return True
        first, last = clock.at(int(self.listed[0])), clock.at(int(self.listed[-1]))
        if last - first > _SHORT:
            following = islice(self.schedule.following(first - clock.MICROSECOND), self.listed.size)
            expected = [clock.since_1970(at) for at in following]
        else:
            expected = clock.instants(self.schedule, first, last + clock.MICROSECOND).tolist()
        listed: list[int] = self.listed.tolist()
        return expected == listed


def futures(df: pd.DataFrame, pairs: Pairs, rows: NDArray[np.int64]) -> tuple[list[Future], NDArray[np.int64]]:
    """Find the distinct futures of some rows, and warn where cron and the service's list disagree.

    Parameters
    ----------
    df
        A deployments frame.
    pairs
        Its pairs.
    rows
        Positions of rows whose schedule can be read.

    Returns
    -------
    list of Future
        The distinct ones.
    numpy.ndarray
        For each of the rows the number of its future.

    Warns
    -----
    DataQualityWarning
        Cron and the list disagree; names the first ids.
    """
    numbers: dict[tuple[int, bytes], int] = {}
    of_row = np.empty(rows.size, np.int64)
    lists = df["schedule_upcoming_runs_at"].iloc[rows].tolist()
    for place, (pair, listed) in enumerate(zip(pairs.of_row[rows].tolist(), lists, strict=True)):
        of_row[place] = numbers.setdefault((pair, _bytes(listed)), len(numbers))
    found = []
    for pair, raw in numbers:
        schedule = pairs.schedules[pair]
        if isinstance(schedule, Schedule):  # the rows are those
            listed_times = np.frombuffer(raw, "datetime64[us]")
            known = np.unique(listed_times[~np.isnat(listed_times)]).astype(np.int64)
            found.append(Future(pair, schedule, known))
    disagree = np.array([not future.agrees() for future in found], dtype=bool)
    doubtful = rows[disagree[of_row]] if found else rows
    if doubtful.size:
        warn(
            f"cron and the service's own list of triggers disagree for {doubtful.size} deployments; the list is"
            " taken as far as it reaches. A schedule may have changed since the pull, so load them again:"
            f" {few_ids(df['id'].iloc[doubtful])}",
            DataQualityWarning,
        )
    return found, of_row


def _bytes(listed: object) -> bytes:
    """Read one cell of the column, whatever library made it: nothing, an array in UTC, or a list of times."""
    if isinstance(listed, np.ndarray) and listed.dtype.kind == "M":
        return listed.astype("datetime64[us]", copy=False).tobytes()
    if isinstance(listed, np.ndarray | list | tuple):
        return (
            pd.DatetimeIndex(pd.to_datetime(list(listed), utc=True))
            .tz_localize(None)
            .as_unit("us")
            .to_numpy()
            .tobytes()
        )
    return b""
