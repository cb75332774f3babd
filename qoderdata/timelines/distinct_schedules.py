"""The distinct schedules of a deployments frame, and the triggers that the service lists for them.

Many deployments share few schedules, so each distinct one is parsed and projected once. Times are whole
microseconds since 1970 in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from qoderdata.cron import CronError, Schedule, parse
from qoderdata.errors import DataQualityWarning, warn
from qoderdata.formatting import first_few, one_line, truncate
from qoderdata.frame_checks import TEXT
from qoderdata.frames import listed_times
from qoderdata.time_math import MICROSECOND, from_micros, to_micros
from qoderdata.translation import gettext as _
from qoderdata.translation import ngettext

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

#: How many columns of a name a warning shows.
_NAMED = 36


@dataclass(frozen=True)
class DistinctSchedules:
    """The distinct pairs of cron text and zone in a frame."""

    #: One per pair; the error if it cannot be parsed.
    schedules: list[Schedule | CronError]
    #: For each row of the frame the index of its pair; -1 for a manual-only deployment, which has no schedule.
    of_row: NDArray[np.int64]

    @classmethod
    def parse(cls, df: pd.DataFrame) -> DistinctSchedules:
        """Parse each distinct pair of ``schedule_expression`` and ``schedule_timezone`` once.

        A schedule without a cron text is told apart by its ``schedule_type``, if the frame has it.
        """
        pairs = schedule_columns(df).reset_index(drop=True)
        pairs["schedule_type"] = pairs["schedule_type"].where(pairs["schedule_expression"].isna())
        of_row = pairs.groupby(list(pairs), sort=False, dropna=False).ngroup().to_numpy(np.int64)
        first = np.unique(of_row, return_index=True)[1]
        schedules = [_parse(*pair) for pair in pairs.iloc[first].itertuples(index=False, name=None)]
        return cls(schedules, np.where(pairs.isna().all(axis=1), -1, of_row))

    def parsed_rows(self, df: pd.DataFrame, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of some rows whose schedule could be parsed; warn of those whose schedule could not."""
        # False comes last, for the index -1 of none.
        of_schedule = np.array([*(isinstance(schedule, Schedule) for schedule in self.schedules), False])
        is_parsed: NDArray[np.bool_] = of_schedule[self.of_row[rows]]
        bad = rows[~is_parsed & (self.of_row[rows] >= 0)]
        if bad.size:
            reason = one_line(str(self.schedules[self.of_row[bad[0]]]))
            warn(
                ngettext(
                    "{count} deployment has a schedule that cannot be read or never fires, and gives no rows "
                    "({reason}): {ids}",
                    "{count} deployments have a schedule that cannot be read or never fires, and give no rows "
                    "(the first: {reason}): {ids}",
                    bad.size,
                    reason=reason,
                    ids=_names(df, bad),
                ),
                DataQualityWarning,
            )
        return rows[is_parsed]


@dataclass(frozen=True)
class UpcomingTriggers:
    """One schedule with one list of the triggers that the service gives for it."""

    schedule: Schedule
    #: Ascending, in microseconds since 1970; may be empty.
    listed: NDArray[np.int64]

    def agrees(self) -> bool:
        """Return whether cron gives the same triggers from the first listed one to the last."""
        if not self.listed.size:
            return True
        listed: list[int] = self.listed.tolist()
        following = self.schedule.following(from_micros(listed[0]) - MICROSECOND)
        return [to_micros(time) for time in islice(following, len(listed))] == listed


def distinct_upcoming_triggers(
    df: pd.DataFrame, distinct: DistinctSchedules, rows: NDArray[np.int64]
) -> tuple[list[UpcomingTriggers], NDArray[np.int64]]:
    """Return the distinct pairs of schedule and listed triggers of some rows, and the index of each row's pair.

    Warn if cron and the service's list disagree. The schedules of all rows must be parsed.
    """
    numbers: dict[tuple[int, bytes], int] = {}
    of_row = np.empty(rows.size, np.int64)
    lists = df["schedule_upcoming_runs_at"].iloc[rows].tolist()
    for index, (schedule_index, listed) in enumerate(zip(distinct.of_row[rows].tolist(), lists, strict=True)):
        of_row[index] = numbers.setdefault((schedule_index, listed_times(listed).tobytes()), len(numbers))
    found = []
    for schedule_index, raw in numbers:
        schedule = distinct.schedules[schedule_index]
        assert isinstance(schedule, Schedule)  # noqa: S101 - for mypy
        times = np.frombuffer(raw, "datetime64[us]")
        known = np.unique(times[~np.isnat(times)]).astype(np.int64)
        found.append(UpcomingTriggers(schedule, known))
    disagree = np.array([not triggers.agrees() for triggers in found], dtype=bool)
    doubtful = rows[disagree[of_row]]
    if doubtful.size:
        warn(
            ngettext(
                "cron and the service's own list of triggers disagree for {count} deployment; the list is taken "
                "as far as it reaches. If its schedule was changed since, refresh=True reads it again: {ids}",
                "cron and the service's own list of triggers disagree for {count} deployments; the list is taken "
                "as far as it reaches. If schedules were changed since, refresh=True reads them again: {ids}",
                doubtful.size,
                ids=_names(df, doubtful),
            ),
            DataQualityWarning,
        )
    return found, of_row


def _names(df: pd.DataFrame, rows: NDArray[np.int64]) -> str:
    """Return the names and ids of some deployments, for a warning."""
    shown = df.iloc[rows]
    ids = shown["id"].tolist()
    names = shown["name"].tolist() if "name" in shown else [None] * len(ids)
    return first_few(
        [
            f"{truncate(name, _NAMED)!r} ({id_})" if isinstance(name, str) else id_
            for id_, name in zip(ids, names, strict=True)
        ]
    )


def schedule_columns(df: pd.DataFrame) -> pd.DataFrame:
    """Return the columns by which schedules are told apart; one that the frame lacks is missing everywhere."""
    columns = ["schedule_expression", "schedule_timezone", "schedule_type"]
    return df[[name for name in columns if name in df]].reindex(columns=columns).astype(TEXT)


def _parse(expression: str | float, timezone: str | float, kind: str | float) -> Schedule | CronError:
    if isinstance(kind, str) and kind != "cron":
        return CronError(_("its type is {type}, and only cron can be read", type=repr(kind)))
    if not isinstance(expression, str) or not isinstance(timezone, str):
        return CronError(_("there is no zone") if isinstance(expression, str) else _("there is no cron text"))
    try:
        return parse(expression, timezone)
    except CronError as error:
        return error


def trigger_micros(schedule: Schedule, start: datetime, end: datetime) -> NDArray[np.int64]:
    """Return when a schedule fires in ``[start, end)``, ascending, in microseconds since 1970."""
    return schedule.instants(start, end).astype("datetime64[us]").astype(np.int64)


def column_micros(times: pd.Series[pd.Timestamp], *, missing: int) -> NDArray[np.int64]:
    """Return a zone-aware column in microseconds since 1970, with `missing` for a missing time."""
    known = times.to_numpy("datetime64[us]")  # in UTC
    return np.where(np.isnat(known), missing, known.astype(np.int64))


def timestamps(microseconds: NDArray[np.int64]) -> pd.DatetimeIndex:
    """Return microseconds as time stamps without a zone that share their memory."""
    return pd.DatetimeIndex(microseconds.view("datetime64[us]"), copy=False)
