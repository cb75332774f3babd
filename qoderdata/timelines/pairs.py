"""The distinct pairs of cron text and zone in a deployments frame, each read once.

A fleet shares few of them, so everything about cron is worked out a pair at a time and then spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from qoderdata.cron import CronError, Schedule, parse
from qoderdata.errors import DataQualityWarning, warn
from qoderdata.words import one_line, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_NAMED_IDS = 20
_ID_COLUMNS = 80


@dataclass(frozen=True)
class Pairs:
    """The distinct pairs of a frame.

    Attributes
    ----------
    schedules : list of Schedule or CronError
        One a pair; the error where it cannot be read.
    of_row : numpy.ndarray
        For each row of the frame the number of its pair; -1 for a manual-only deployment, which has none.
    """

    schedules: list[Schedule | CronError]
    of_row: NDArray[np.int64]

    @classmethod
    def read(cls, df: pd.DataFrame) -> Pairs:
        """Read each distinct pair of ``schedule_expression`` and ``schedule_timezone`` once.

        Parameters
        ----------
        df
            A deployments frame.

        Returns
        -------
        Pairs
            The pairs, in no particular order.
        """
        expressions, expression_of = _distinct(df["schedule_expression"])
        timezones, timezone_of = _distinct(df["schedule_timezone"])
        both = (expression_of + 1) * (len(timezones) + 1) + timezone_of + 1
        distinct, of_row = np.unique(both, return_inverse=True)
        schedules: list[Schedule | CronError] = []
        for expression_at, timezone_at in zip(*np.divmod(distinct, len(timezones) + 1), strict=True):
            expression = expressions[expression_at - 1] if expression_at else None
            timezone = timezones[timezone_at - 1] if timezone_at else None
            schedules.append(_read(expression, timezone))
        return cls(schedules, np.where(both == 0, -1, of_row))

    def readable(self, df: pd.DataFrame, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Leave out the rows without a schedule that can be read, and warn of those that have another one.

        Parameters
        ----------
        df
            The frame.
        rows
            Positions of the rows that matter.

        Returns
        -------
        numpy.ndarray
            The rows that are left.

        Warns
        -----
        DataQualityWarning
            A cron text or zone cannot be read; names the first ids.
        """
        good = np.array([isinstance(schedule, Schedule) for schedule in self.schedules] + [False])
        bad = rows[~good[self.of_row[rows]] & (self.of_row[rows] >= 0)]
        if bad.size:
            reason = one_line(str(self.schedules[self.of_row[bad[0]]]))
            warn(
                f"{bad.size} deployments have a cron text or zone that cannot be read, and give no rows "
                f"(the first: {reason}): {few_ids(df['id'].iloc[bad])}",
                DataQualityWarning,
            )
        left: NDArray[np.int64] = rows[good[self.of_row[rows]]]
        return left


def few_ids(ids: Iterable[str]) -> str:
    """List ids for a warning, safe to print, and how many more there are.

    Parameters
    ----------
    ids
        All of them.

    Returns
    -------
    str
        At most 20 of them.

    Examples
    --------
    >>> few_ids(f"dep_{number}" for number in range(22))
    'dep_0, dep_1, ... dep_19 and 2 more'
    """
    names = [shorten(one_line(id_), _ID_COLUMNS) for id_ in ids]
    more = f" and {len(names) - _NAMED_IDS} more" if len(names) > _NAMED_IDS else ""
    return ", ".join(names[:_NAMED_IDS]) + more


def _distinct(column: pd.Series[str]) -> tuple[list[str], NDArray[np.int64]]:
    codes, values = pd.factorize(column)
    return list(values), codes.astype(np.int64)


def _read(expression: str | None, timezone: str | None) -> Schedule | CronError:
    if expression is None or timezone is None:
        return CronError(f"there is no {'cron text' if expression is None else 'zone'}")
    try:
        return parse(expression, timezone)
    except CronError as error:
        return error
