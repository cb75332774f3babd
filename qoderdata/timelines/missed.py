"""Which scheduled times did no run serve, when could a deployment fire, and is that certain?

A deployment's record shows its state since it was last changed; snapshots show earlier states. Times are whole
microseconds since 1970 in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from qoderdata.columns import TEXT, require_frame, require_unique_deployments
from qoderdata.cron import Schedule
from qoderdata.errors import FrameTypeError
from qoderdata.frames import fetched_at
from qoderdata.parsing import (
    MICROSECOND,
    MINUTE_MICROS,
    Instant,
    Span,
    from_micros,
    parse_period,
    parse_span,
    to_micros,
)
from qoderdata.timelines.distinct_schedules import DistinctSchedules, column_micros, timestamps, trigger_micros

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

#: Before all times, and after them.
FAR = 1 << 62

_SCHEDULE_COLUMNS = ("schedule_expression", "schedule_timezone")
_STATE_COLUMNS = ("id", "status", "updated_at", *_SCHEDULE_COLUMNS)
_CERTAIN, _PAUSED, _CHANGED, _CREATED = range(4)
_NO_SCHEDULE = -1
_DEPLOYMENT_COLUMNS = (*_STATE_COLUMNS, "name", "created_at", "archived_at")
_RUN_COLUMNS = ("deployment_id", "trigger_type", "triggered_at")
#: The most cells (deployments by scheduled times) of the matrix that is filled at once, at one byte each.
_MAX_CELLS = 1 << 24


@dataclass(frozen=True)
class Periods:
    """Periods of time in which a deployment could fire by one schedule, in order of row and time.

    Attributes
    ----------
    row : numpy.ndarray
        The deployment, by its row in the frame.
    begin, end : numpy.ndarray
        From when to when, half-open.
    schedule : numpy.ndarray
        The index of its schedule among the distinct ones. Where either of two may have been active, each has a
        period.
    kind, at : numpy.ndarray
        Why it is not certain, and the time of that reason.
    """

    row: NDArray[np.int64]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    schedule: NDArray[np.int64]
    kind: NDArray[np.int64]
    at: NDArray[np.int64]

    def reasons(self, row: NDArray[np.int64], time: NDArray[np.int64]) -> pd.Series[str]:
        """Return why each scheduled time is not certain; an empty text where it is certain."""
        times = np.unique(np.concatenate([self.begin, time]))
        begins = self.row * times.size + np.searchsorted(times, self.begin)
        index = np.searchsorted(begins, row * times.size + np.searchsorted(times, time), side="right") - 1
        both = np.stack([self.kind[index], self.at[index]])
        distinct, of_time = np.unique(both, axis=1, return_inverse=True)
        texts = np.array([_reason(kind, at) for kind, at in distinct.T.tolist()], dtype=object)
        return pd.Series(texts[of_time.reshape(-1)], dtype=TEXT)

    def merged(self) -> Periods:
        """Return the same periods in order, with adjacent equal ones joined."""
        one = self.take(np.lexsort((self.begin, self.schedule, self.row)))
        starts = np.ones(one.row.size, dtype=bool)
        starts[1:] = one.begin[1:] != one.end[:-1]
        for name in ("row", "schedule", "kind", "at"):
            starts[1:] |= np.diff(getattr(one, name)) != 0
        first = np.flatnonzero(starts)
        last = np.append(first[1:], starts.size)[: first.size] - 1
        joined = replace(one.take(first), end=one.end[last])
        return joined.take(np.lexsort((joined.schedule, joined.begin, joined.row)))

    def within(self, begin: NDArray[np.int64], end: NDArray[np.int64]) -> Periods:
        """Return the periods, cut to a begin and an end for each deployment."""
        cut = replace(self, begin=np.maximum(self.begin, begin[self.row]), end=np.minimum(self.end, end[self.row]))
        return cut.take(np.flatnonzero(cut.begin < cut.end))

    def take(self, index: NDArray[np.int64]) -> Periods:
        """Return the periods at these indices, in this order."""
        return Periods(*(getattr(self, field.name)[index] for field in fields(self)))


def _reason(kind: int, at: int) -> str:
    if kind == _CREATED:
        return "created without time"
    if kind == _CERTAIN:
        return ""
    minute = np.datetime64(at, "us").astype("datetime64[m]")
    time = "an unknown time" if at == -FAR else f"{minute} UTC".replace("T", " ", 1)
    return f"{'paused since' if kind == _PAUSED else 'changed at'} {time}"


@dataclass(frozen=True)
class _State:
    """What one frame says about each deployment of the newest frame, in the order of its rows."""

    fetched_at: int
    is_there: NDArray[np.bool_]
    is_paused: NDArray[np.bool_]
    schedule: NDArray[np.int64]
    updated: NDArray[np.int64]

    @classmethod
    def of(cls, frame: pd.DataFrame, schedule: NDArray[np.int64], ids: pd.Index[str], fetched_at: int) -> _State:
        """Read a frame whose rows have these schedules, for deployments of these ids."""
        row = pd.Index(frame["id"]).get_indexer(ids)
        paused = frame["status"].eq("paused").to_numpy()
        return cls(
            fetched_at,
            row >= 0,
            np.append(paused, False)[row],
            np.append(schedule, _NO_SCHEDULE)[row],
            np.append(column_micros(frame["updated_at"], missing=-FAR), -FAR)[row],
        )

    @property
    def firing(self) -> NDArray[np.int64]:
        """The schedule by which each deployment fires; -1 for none."""
        return np.where(self.is_paused, _NO_SCHEDULE, self.schedule)

    def paused_since_before(self, time: int) -> NDArray[np.bool_]:
        """Return which deployments are paused and were last changed before a time: they did not fire since."""
        is_known: NDArray[np.bool_] = (self.updated != -FAR) & (self.updated < time)
        return self.is_paused & is_known

    def filled_from(self, older: _State) -> _State:
        """Return this state, filled from an older one for deployments that this one lacks."""
        names = ("is_paused", "schedule", "updated")
        values = (np.where(self.is_there, getattr(self, name), getattr(older, name)) for name in names)
        return _State(self.fetched_at, self.is_there | older.is_there, *values)


def schedule_history(
    df: pd.DataFrame, snapshots: Sequence[pd.DataFrame], *, since: int, until: int
) -> tuple[DistinctSchedules, Periods]:
    """Return the distinct schedules of some frames, and the periods in which each deployment could fire by each.

    Parameters
    ----------
    df
        The deployments.
    snapshots
        Earlier frames, with ``attrs["fetched_at"]``, in any order.
    since, until
        The window that the periods are cut to, in microseconds since 1970.

    Returns
    -------
    DistinctSchedules
        Those of all frames; `of_row` has the rows of ``df``.
    Periods
        In order of row and time.

    Raises
    ------
    ValueError
        An id is in a frame twice, or a snapshot does not say when it was fetched.
    """
    frames = [require_frame(one, _STATE_COLUMNS, what="deployments") for one in (df, *snapshots)]
    for frame in frames:
        require_unique_deployments(frame)
    fetched = [fetched_at(one) for one in (df, *snapshots)]
    if None in fetched[1:]:
        raise ValueError("a snapshot has no attrs['fetched_at']; pass the frames that load_snapshots gives")
    times = [FAR if at is None else to_micros(at) for at in fetched]
    all_rows = DistinctSchedules.parse(pd.concat([one[list(_SCHEDULE_COLUMNS)] for one in frames]))
    of_rows = np.split(all_rows.of_row, np.cumsum([len(one) for one in frames])[:-1])
    ids = pd.Index(df["id"])
    states = [
        _State.of(frame, schedule, ids, time) for frame, schedule, time in zip(frames, of_rows, times, strict=True)
    ]
    distinct = DistinctSchedules(all_rows.schedules, of_rows[0])

    newest = states[0]
    created = column_micros(df["created_at"], missing=-FAR)
    archived = column_micros(df["archived_at"], missing=FAR)
    distinct.warn_of_unreadable(df, np.flatnonzero(~newest.paused_since_before(since)))
    if len(states) == 1:
        found = [_from_one_record(newest, created, since=since)]
    else:
        found = list(_from_snapshots(sorted(states, key=lambda state: state.fetched_at), created))
    whole = Periods(*(np.concatenate([getattr(one, field.name) for one in found]) for field in fields(Periods)))
    return distinct, whole.within(np.maximum(created, since), np.minimum(archived, until)).merged()


def _from_one_record(state: _State, created: NDArray[np.int64], *, since: int) -> Periods:
    """Return the periods that one record shows: a change after `since` makes all times doubtful."""
    is_changed = (state.updated > created) & (state.updated >= since)
    kind = np.where(created == -FAR, _CREATED, _CERTAIN)
    kind = np.where(is_changed, _CHANGED, kind)
    kind = np.where(state.is_paused, _PAUSED, kind)
    row = np.flatnonzero(~state.paused_since_before(since))
    return _periods(row, -FAR, FAR, state.schedule[row], kind[row], state.updated[row])


def _from_snapshots(states: Sequence[_State], created: NDArray[np.int64]) -> Iterator[Periods]:
    """Yield the periods before the first state, between each two, and after the last."""
    nothing = np.zeros(created.size, dtype=bool)
    none = np.full(created.size, _NO_SCHEDULE)
    before = _State(-FAR, nothing, nothing, none, none)
    seen_at = np.full(created.size, -FAR)
    for state in states:
        is_first = state.is_there & ~before.is_there
        yield from _before_first(state, np.flatnonzero(is_first), created)
        yield from _between(before, state, np.flatnonzero(state.is_there & before.is_there), seen_at)
        before = state.filled_from(before)
        seen_at = np.where(state.is_there, state.fetched_at, seen_at)
    row = np.flatnonzero(before.is_there)
    yield _periods(row, seen_at[row], FAR, before.firing[row], _CERTAIN, 0)


def _before_first(state: _State, row: NDArray[np.int64], created: NDArray[np.int64]) -> Iterator[Periods]:
    """Yield the periods before the first snapshot, which shows the state since the record was last changed."""
    updated, paused = state.updated[row], state.is_paused[row]
    as_created = ~paused & (updated <= created[row])
    known_since = np.where(as_created, -FAR, np.where(updated == -FAR, state.fetched_at, updated))
    known_since = np.minimum(known_since, state.fetched_at)
    unknown_creation = as_created & (created[row] == -FAR)
    kind = np.where(unknown_creation, _CREATED, _CERTAIN)
    yield _periods(row, known_since, state.fetched_at, state.firing[row], kind, 0)
    kind = np.where(paused, _PAUSED, _CHANGED)
    yield _periods(row, -FAR, known_since, state.schedule[row], kind, updated)


def _between(
    before: _State, after: _State, row: NDArray[np.int64], seen_at: NDArray[np.int64]
) -> Iterator[Periods]:
    """Yield the periods between two snapshots; where these differ, the later one may date the change."""
    old, new, begin, updated = before.firing[row], after.firing[row], seen_at[row], after.updated[row]
    is_dated = (updated > begin) & (updated <= after.fetched_at)
    known_since = np.where(old == new, begin, np.where(is_dated, updated, after.fetched_at))
    yield _periods(row, known_since, after.fetched_at, new, _CERTAIN, 0)
    kind = np.where(after.is_paused[row], _PAUSED, _CHANGED)
    at = np.where(is_dated, updated, -FAR)
    for schedule in (old, new):
        yield _periods(row, begin, known_since, schedule, kind, at)


def _periods(row: NDArray[np.int64], *columns: NDArray[np.int64] | int) -> Periods:
    """Return the periods that are not empty and have a schedule."""
    values = [np.broadcast_to(np.asarray(column, dtype=np.int64), row.shape) for column in columns]
    begin, end, schedule = values[:3]
    wanted = (begin < end) & (schedule != _NO_SCHEDULE)
    return Periods(row[wanted], *(value[wanted] for value in values))


def missed_triggers(
    df: pd.DataFrame,
    runs: pd.DataFrame,
    *,
    since: Instant | Span,
    until: Instant | Span,
    grace: Span = "10min",
    snapshots: Sequence[pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """Return the scheduled times that no run serves.

    A time ``t`` in ``[since, until - grace)`` is missed when no run that the schedule started
    (``trigger_type == "schedule"``) serves it. A run whose ``trigger_scheduled_at`` lies in the minute of a
    scheduled time serves that time, as does a retry that names it. Any other run serves one time with
    ``t <= due <= t + grace``, ``due`` being its ``trigger_scheduled_at``, else its ``triggered_at``: where times
    lie closer together than `grace`, runs are matched so that as few times as possible are left. A run of any
    status serves its time, a skipped or failed one too.

    Parameters
    ----------
    df
        A deployments frame, with the archived ones.
    runs
        All runs of these deployments in the window; one that is left out counts as missed. A frame without
        ``trigger_scheduled_at``, such as an old file, is matched by ``triggered_at`` alone.
    since, until
        The window: zone-aware times, or ages before now, such as ``"12h"`` and ``"0h"``.
    grace
        How late a run may be due: a length of time with a unit.
    snapshots
        Earlier deployments frames with ``attrs["fetched_at"]``, as `load_snapshots` gives them, of this account;
        ``df`` is one more. They show pauses and former schedules: where the snapshot before a time and the one
        after it show the same schedule and an active deployment, the times of that schedule are certain. Where
        both show it paused, nothing was due. Where they differ, the times of both schedules are listed, certain
        only after the change that the later one dates. What changed and was undone between two snapshots is not
        seen.

    Returns
    -------
    pandas.DataFrame
        One row a missed time, in order of ``scheduled_at`` and ``deployment_id``; none before a deployment was
        created, none after it was archived, and none for a deployment that is paused and was last changed before
        `since`, as it was paused all the while. Nothing missed: no rows, same columns and dtypes.

        ================= =================== ==============================================================
        ``scheduled_at``  datetime64[us, UTC] when it should have fired
        ``deployment_id`` str                 as in ``df``
        ``name``          str                 as in ``df``
        ``certain``       bool                False where neither the records nor snapshots show whether it
                                              was due
        ``reason``        str                 why not: ``"paused since <time>"`` (it is paused now, or in the
                                              snapshot after it), ``"changed at <time>"`` (after `since`; its
                                              creation is no change), ``"created without time"``; the time is
                                              ``"an unknown time"`` where no record says it. ``""`` where it
                                              is certain
        ================= =================== ==============================================================

    Raises
    ------
    ValueError
        A parameter makes no sense, `since` is not before `until`, or an id is in a frame twice.
    FrameTypeError
        Not a pandas frame, `snapshots` is one frame and not a list, or a column has lost its dtype; the message
        says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.

    Warns
    -----
    DataQualityWarning
        A cron text or zone cannot be parsed: that deployment gives no rows. Names the first ids.

    Examples
    --------
    >>> import qoderdata as qd
    >>> df = qd.flatten_deployments([{
    ...     "id": "dep_1", "name": "report", "status": "active", "created_at": "2026-06-01T00:00:00Z",
    ...     "schedule": {"expression": "0 9 * * *", "timezone": "Asia/Shanghai"},
    ... }])
    >>> runs = qd.flatten_runs([{
    ...     "id": "drun_1", "deployment_id": "dep_1", "trigger_context": {"type": "schedule"},
    ...     "triggered_at": "2026-06-15T01:00:02Z",
    ... }])
    >>> qd.missed_triggers(df, runs, since="2026-06-15T00:00Z", until="2026-06-17T00:00Z")
                   scheduled_at deployment_id    name  certain reason
    0 2026-06-16 01:00:00+00:00         dep_1  report     True
    """
    df = require_frame(df, _DEPLOYMENT_COLUMNS, what="deployments")[list(_DEPLOYMENT_COLUMNS)]
    df = df.reset_index(drop=True).sort_values("id", kind="stable", ignore_index=True)
    runs = require_frame(runs, _RUN_COLUMNS, what="runs", optional=["trigger_scheduled_at"])
    if isinstance(snapshots, pd.DataFrame):
        raise FrameTypeError("snapshots must be a list of frames, as load_snapshots gives it, not one frame")
    bounds = parse_period(since, until, now=datetime.now(UTC), what="scheduled time")
    begin, end = (to_micros(bound) for bound in bounds if bound is not None)
    wait = parse_span(grace, name="grace") // MICROSECOND
    distinct, periods = schedule_history(df, snapshots or (), since=begin, until=end)
    groups = list(_groups(distinct, periods))
    rows = np.concatenate([np.empty(0, np.int64), *(group.rows for group in groups)])
    scheduled_runs = _ScheduledRuns.of(df, runs, rows, begin, end)

    found_row, found_at, first = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for group in groups:
        at_once = max(1, _MAX_CELLS // max(1, group.scheduled.size))
        for low in range(0, group.rows.size, at_once):
            some = slice(low, min(low + at_once, group.rows.size))
            ranges = group.first[some], group.last[some]
            served_by = scheduled_runs.between(first + some.start, first + some.stop)
            missed = _unserved(group.scheduled, ranges, served_by, wait)
            missed[:, np.searchsorted(group.scheduled, end - wait) :] = False  # not missed yet
            deployment, time = np.nonzero(missed)
            found_row.append(group.rows[some][deployment])
            found_at.append(group.scheduled[time])
        first += group.rows.size
    row, at = np.concatenate(found_row), np.concatenate(found_at)
    order = np.lexsort((row, at))
    row, at = row[order], at[order]
    reasons = periods.reasons(row, at)
    return pd.DataFrame({
        "scheduled_at": timestamps(at).tz_localize("UTC"),
        "deployment_id": df["id"].iloc[row].astype(TEXT).reset_index(drop=True),
        "name": df["name"].iloc[row].astype(TEXT).reset_index(drop=True),
        "certain": (reasons == "").to_numpy(dtype=bool),
        "reason": reasons,
    })  # fmt: skip


@dataclass(frozen=True)
class _Group:
    """Some deployments, by their rows, and the scheduled times of all of them."""

    rows: NDArray[np.int64]
    scheduled: NDArray[np.int64]
    #: For each deployment the index of its first scheduled time, and the index after its last one.
    first: NDArray[np.int64]
    last: NDArray[np.int64]


def _groups(distinct: DistinctSchedules, periods: Periods) -> Iterator[_Group]:
    """Yield the deployments with one uninterrupted schedule by schedule, then the others one by one."""
    row, starts, counts = np.unique(periods.row, return_index=True, return_counts=True)
    ends = starts + counts
    goes_on = np.ones(periods.row.size, dtype=bool)
    goes_on[1:] = (np.diff(periods.schedule) == 0) & (periods.begin[1:] == periods.end[:-1])
    goes_on[starts] = True
    is_plain = np.logical_and.reduceat(goes_on, starts) if row.size else np.empty(0, dtype=bool)
    plain = np.flatnonzero(is_plain)
    plain = plain[np.argsort(periods.schedule[starts[plain]], kind="stable")]
    schedule, begin, end = (
        periods.schedule[starts[plain]],
        periods.begin[starts[plain]],
        periods.end[ends[plain] - 1],
    )
    edges = [0, *(np.flatnonzero(np.diff(schedule)) + 1).tolist(), plain.size]
    for low, high in pairwise(edges):
        if low < high:
            some = slice(low, high)
            times = _times(distinct, schedule[low], int(begin[some].min()), int(end[some].max()))
            ranges = np.searchsorted(times, begin[some]), np.searchsorted(times, end[some])
            yield _Group(row[plain[some]], times, *ranges)
    for index in np.flatnonzero(~is_plain).tolist():
        some = slice(starts[index], ends[index])
        parts = zip(periods.schedule[some], periods.begin[some].tolist(), periods.end[some].tolist(), strict=True)
        times = np.unique(np.concatenate([_times(distinct, *part) for part in parts]))
        yield _Group(row[index : index + 1], times, np.array([0]), np.array([times.size]))


def _times(distinct: DistinctSchedules, index: int, begin: int, end: int) -> NDArray[np.int64]:
    """Return when a schedule fires between two times; never where it cannot be read."""
    schedule = distinct.schedules[index]
    if not isinstance(schedule, Schedule):
        return np.empty(0, np.int64)
    return trigger_micros(schedule, from_micros(begin), from_micros(end))


@dataclass(frozen=True)
class _ScheduledRuns:
    """The runs that schedules started, in order of deployment (its index among `rows`) and time."""

    deployment: NDArray[np.int64]
    due: NDArray[np.int64]
    names_its_time: NDArray[np.bool_]

    @classmethod
    def of(
        cls, df: pd.DataFrame, runs: pd.DataFrame, rows: NDArray[np.int64], begin: int, end: int
    ) -> _ScheduledRuns:
        due = column_micros(runs["triggered_at"], missing=-FAR)
        names_its_time = np.zeros(len(runs), dtype=bool)
        if "trigger_scheduled_at" in runs:
            scheduled_at = column_micros(runs["trigger_scheduled_at"], missing=-FAR)
            names_its_time = scheduled_at != -FAR
            due = np.where(names_its_time, scheduled_at, due)
        # Ids are looked up once for each deployment, not for each run.
        codes, ids = pd.factorize(runs["deployment_id"])
        index_of = np.append(pd.Index(df["id"].iloc[rows]).get_indexer(pd.Index(ids)), [-1])
        deployment = index_of[codes]
        is_retry = runs["trigger_type"].eq("retry").to_numpy() & names_its_time
        by_schedule = runs["trigger_type"].eq("schedule").to_numpy() | is_retry
        in_window = (due >= begin) & (due < end + np.where(names_its_time, MINUTE_MICROS, 0))
        wanted = np.flatnonzero(by_schedule & in_window & (deployment >= 0))
        wanted = wanted[np.lexsort((due[wanted], deployment[wanted]))]
        return cls(deployment[wanted], due[wanted], names_its_time[wanted])

    def between(self, first: int, last: int) -> _ScheduledRuns:
        """Return the runs of the deployments from `first` to before `last`, whose indices then begin at 0."""
        low, high = np.searchsorted(self.deployment, (first, last))
        return _ScheduledRuns(self.deployment[low:high] - first, self.due[low:high], self.names_its_time[low:high])


def _unserved(
    scheduled: NDArray[np.int64],
    ranges: tuple[NDArray[np.int64], NDArray[np.int64]],
    runs: _ScheduledRuns,
    grace: int,
) -> NDArray[np.bool_]:
    """Return a matrix, deployments by scheduled times: True where no run serves the time.

    `ranges` has, for each deployment, the index of its first scheduled time and the index after its last one.
    """
    first, last = ranges
    index = np.arange(scheduled.size)
    unserved = (index >= first[:, None]) & (index < last[:, None])
    if not scheduled.size:
        return unserved
    minute = np.searchsorted(scheduled, runs.due - runs.due % MINUTE_MICROS)
    exact = runs.names_its_time & (minute < scheduled.size)
    exact[exact] = scheduled[minute[exact]] // MINUTE_MICROS == runs.due[exact] // MINUTE_MICROS
    unserved[runs.deployment[exact], minute[exact]] = False
    run_of, due = runs.deployment[~exact], runs.due[~exact]
    # The last scheduled time before a run is its own. Where no other run serves that time, this run serves it.
    own = np.minimum(np.searchsorted(scheduled, due, side="right"), last[run_of]) - 1
    can_serve = (own >= first[run_of]) & (due - scheduled[own] <= grace)
    run_of, due, own = run_of[can_serve], due[can_serve], own[can_serve]
    taken = ~unserved[run_of, own]
    taken[1:] |= (run_of[1:] == run_of[:-1]) & (own[1:] == own[:-1])
    if np.diff(scheduled).min(initial=grace + 1) > grace:
        unserved[run_of, own] = False
        return unserved
    crowded = np.unique(run_of[taken])
    alone = ~np.isin(run_of, crowded)
    unserved[run_of[alone], own[alone]] = False
    for deployment in crowded.tolist():
        left = np.flatnonzero(unserved[deployment])
        low, high = np.searchsorted(run_of, (deployment, deployment + 1))
        unserved[deployment, left] = _unmatched(scheduled[left].tolist(), due[low:high].tolist(), grace)
    return unserved


def _unmatched(scheduled: list[int], due: list[int], grace: int) -> list[bool]:
    """Match runs to times from the last time to the first, each to the latest run that is left.

    As all times have the same grace, this leaves as few times as possible without a run.
    """
    unmatched = [True] * len(scheduled)
    left = len(due) - 1
    for index in range(len(scheduled) - 1, -1, -1):
        while left >= 0 and due[left] > scheduled[index] + grace:
            left -= 1
        if left >= 0 and due[left] >= scheduled[index]:
            unmatched[index] = False
            left -= 1
    return unmatched
