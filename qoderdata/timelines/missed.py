"""What should have fired but did not: scheduled times against the runs that are there.

Works a distinct schedule at a time, on whole numbers. Leaves it to cron when a schedule fires, and says what
the service's records cannot tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from qoderdata import times
from qoderdata.cron import Schedule
from qoderdata.errors import require_columns
from qoderdata.timelines import clock
from qoderdata.timelines.pairs import Pairs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from numpy.typing import NDArray

_DEPLOYMENT_COLUMNS = (
    "id", "name", "status", "created_at", "updated_at", "archived_at", "schedule_expression", "schedule_timezone",
)  # fmt: skip
_RUN_COLUMNS = ("deployment_id", "trigger_type", "triggered_at")
#: So many squares (deployments by scheduled times) are looked at together, at one byte each.
_SQUARES = 1 << 24
_FAR = 1 << 62


def missed_triggers(
    df: pd.DataFrame,
    runs: pd.DataFrame,
    *,
    since: times.Instant,
    until: times.Instant,
    grace: times.Span = "10min",
) -> pd.DataFrame:
    """List the scheduled times that no run answers to.

    A time ``t`` in ``[since, until - grace)`` is missed when no run with ``trigger_type == "schedule"`` has
    ``t <= triggered_at <= t + grace``. Each run serves one time: where times lie closer together than `grace`, a
    run serves the latest one that it can, unless another run leaves it no choice. A skipped run is a run.

    Parameters
    ----------
    df
        A deployments frame, with the archived ones.
    runs
        All runs of these deployments in the window; one that is not there counts as missed.
    since, until
        The window, zone-aware.
    grace
        How late a run may be triggered; anything `pandas.Timedelta` takes.

    Returns
    -------
    pandas.DataFrame
        One row a missed time, in order of ``scheduled_at`` and ``deployment_id``; none before a deployment was
        created and none after it was archived. Nothing missed: no rows, same columns and dtypes.

        ================= =================== ==============================================================
        ``scheduled_at``  datetime64[us, UTC] when it should have fired
        ``deployment_id`` str                 as in ``df``
        ``name``          str                 as in ``df``
        ``certain``       bool                False where the service's records cannot tell, as they have no
                                              history of pauses and of cron texts: the deployment is paused
                                              now, was updated after `since` (its creation is no update), or
                                              its creation time is missing
        ================= =================== ==============================================================

    Raises
    ------
    ValueError
        A parameter makes no sense, or an id is in ``df`` twice.
    MissingColumnError
        A column is not there; the message lists those that are.

    Warns
    -----
    DataQualityWarning
        A cron text or zone cannot be read: that deployment gives no rows. Names the first ids.

    Examples
    --------
    >>> from qoderdata.frame import flatten_deployments, flatten_runs
    >>> df = flatten_deployments([{
    ...     "id": "dep_1", "name": "report", "status": "active", "created_at": "2026-06-01T00:00:00Z",
    ...     "schedule": {"expression": "0 9 * * *", "timezone": "Asia/Shanghai"},
    ... }])
    >>> runs = flatten_runs([{
    ...     "id": "drun_1", "deployment_id": "dep_1", "trigger_context": {"type": "schedule"},
    ...     "triggered_at": "2026-06-15T01:00:02Z",
    ... }])
    >>> missed_triggers(df, runs, since="2026-06-15T00:00Z", until="2026-06-17T00:00Z")
                   scheduled_at deployment_id    name  certain
    0 2026-06-16 01:00:00+00:00         dep_1  report     True
    """
    require_columns(df.columns, _DEPLOYMENT_COLUMNS, what="deployments")
    require_columns(runs.columns, _RUN_COLUMNS, what="runs")
    window = _Window.read(since, until, grace)
    if not df["id"].is_unique:
        raise ValueError("an id is in the deployments frame twice; drop one of its rows")
    pairs = Pairs.read(df)
    rows = pairs.readable(df, np.flatnonzero(pairs.of_row >= 0))
    rows = rows[np.argsort(pairs.of_row[rows], kind="stable")]
    scheduled_runs = _Runs.read(df, runs, rows, window)
    created, archived = (
        clock.column(df["created_at"], missing=-_FAR),
        clock.column(df["archived_at"], missing=_FAR),
    )

    found_row, found_at = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for schedule, begin, end in _alike(pairs, rows):
        scheduled = clock.instants(schedule, window.since, window.until)
        at_once = max(1, _SQUARES // max(1, scheduled.size))
        for first in range(begin, end, at_once):
            some = rows[first : min(first + at_once, end)]
            lives = np.searchsorted(scheduled, created[some]), np.searchsorted(scheduled, archived[some])
            missed = _unanswered(scheduled, lives, scheduled_runs.between(first, first + some.size), window.grace)
            missed[:, np.searchsorted(scheduled, window.due) :] = False
            deployment, time = np.nonzero(missed)
            found_row.append(some[deployment])
            found_at.append(scheduled[time])
    row, at = np.concatenate(found_row), np.concatenate(found_at)
    order = np.lexsort((_ranks(df["id"])[row], at))
    row, at = row[order], at[order]

    updated = clock.column(df["updated_at"], missing=-_FAR)
    changed = (updated > created) & (updated >= window.begin)
    doubtful = changed | df["status"].eq("paused").fillna(value=False).to_numpy(dtype=bool) | (created == -_FAR)
    return pd.DataFrame({
        "scheduled_at": clock.stamps(at).tz_localize("UTC"),
        "deployment_id": df["id"].iloc[row].astype("str").reset_index(drop=True),
        "name": df["name"].iloc[row].astype("str").reset_index(drop=True),
        "certain": ~doubtful[row],
    })  # fmt: skip


@dataclass(frozen=True)
class _Window:
    """The time that is looked at; `due` is until when a time can be missed, in microseconds since 1970."""

    since: datetime
    until: datetime
    grace: int

    @classmethod
    def read(cls, since: times.Instant, until: times.Instant, grace: times.Span) -> _Window:
        return cls(
            times.instant(since, name="since").to_pydatetime(),
            times.instant(until, name="until").to_pydatetime(),
            times.span(grace, name="grace") // clock.MICROSECOND,
        )

    @property
    def begin(self) -> int:
        return clock.since_1970(self.since)

    @property
    def end(self) -> int:
        return clock.since_1970(self.until)

    @property
    def due(self) -> int:
        return self.end - self.grace


@dataclass(frozen=True)
class _Runs:
    """The runs that schedules triggered: by deployment (its place among the rows that matter), then by time."""

    place: NDArray[np.int64]
    at: NDArray[np.int64]

    @classmethod
    def read(cls, df: pd.DataFrame, runs: pd.DataFrame, rows: NDArray[np.int64], window: _Window) -> _Runs:
        at = clock.column(runs["triggered_at"], missing=-_FAR)
        # Ids are looked up once for each deployment, not for each run.
        deployment, ids = pd.factorize(runs["deployment_id"])
        place_of = np.append(pd.Index(df["id"].iloc[rows]).get_indexer(pd.Index(ids)), [-1])
        place = place_of[deployment]
        scheduled = runs["trigger_type"].eq("schedule").fillna(value=False).to_numpy(dtype=bool)
        wanted = scheduled & (at >= window.begin) & (at < window.end) & (place >= 0)
        at, place = at[wanted], place[wanted]
        order = np.lexsort((at, place))
        return cls(place[order], at[order])

    def between(self, first: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give the runs of some places: the place counted from the first, and the time."""
        low, high = np.searchsorted(self.place, (first, last))
        return self.place[low:high] - first, self.at[low:high]


def _alike(pairs: Pairs, rows: NDArray[np.int64]) -> Iterator[tuple[Schedule, int, int]]:
    """Give each schedule, and from where to where its rows lie."""
    of_row = pairs.of_row[rows]
    edges = [0, *(np.flatnonzero(np.diff(of_row)) + 1).tolist(), rows.size]
    for begin, end in pairwise(edges):
        if begin < end and isinstance(schedule := pairs.schedules[of_row[begin]], Schedule):
            yield schedule, begin, end


def _unanswered(
    scheduled: NDArray[np.int64],
    lives: tuple[NDArray[np.int64], NDArray[np.int64]],
    runs: tuple[NDArray[np.int64], NDArray[np.int64]],
    grace: int,
) -> NDArray[np.bool_]:
    """Find which times of some deployments with one schedule no run answers to.

    Takes for each deployment the first and the end of its scheduled times, and for each run its deployment and
    its time. Gives one row a deployment and one column a scheduled time.
    """
    (first, last), (run_of, run_at) = lives, runs
    number = np.arange(scheduled.size)
    unanswered = (number >= first[:, None]) & (number < last[:, None])
    if not scheduled.size:
        return unanswered
    # A run's own time is the latest one before it. Where no two runs share theirs, each serves its own.
    own = np.minimum(np.searchsorted(scheduled, run_at, side="right"), last[run_of]) - 1
    serves = (own >= first[run_of]) & (run_at - scheduled[own] <= grace)
    run_of, run_at, own = run_of[serves], run_at[serves], own[serves]
    unanswered[run_of, own] = False
    if np.diff(scheduled).min(initial=grace + 1) > grace:
        return unanswered
    shared = (run_of[1:] == run_of[:-1]) & (own[1:] == own[:-1])
    for deployment in np.unique(run_of[1:][shared]).tolist():
        lived = slice(first[deployment], last[deployment])
        low, high = np.searchsorted(run_of, (deployment, deployment + 1))
        unanswered[deployment, lived] = _unmatched(scheduled[lived].tolist(), run_at[low:high].tolist(), grace)
    return unanswered


def _unmatched(scheduled: list[int], run_at: list[int], grace: int) -> list[bool]:
    """Match runs to times from the last time to the first, each to the latest run that is left.

    As all times have the same grace, this leaves as few times as can be without a run.
    """
    unmatched = [True] * len(scheduled)
    left = len(run_at) - 1
    for place in range(len(scheduled) - 1, -1, -1):
        while left >= 0 and run_at[left] > scheduled[place] + grace:
            left -= 1
        if left >= 0 and run_at[left] >= scheduled[place]:
            unmatched[place] = False
            left -= 1
    return unmatched


def _ranks(ids: pd.Series[str]) -> NDArray[np.int64]:
    """Give each row's place in the order of ids."""
    ranks = np.empty(len(ids), np.int64)
    ranks[ids.reset_index(drop=True).sort_values(kind="stable").index.to_numpy()] = np.arange(len(ids))
    return ranks
