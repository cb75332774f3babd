"""Which scheduled times did no run serve, when could a deployment fire, and is that certain?

A deployment's record shows its state since it was last changed; snapshots show earlier states. Times are whole
microseconds since 1970 in UTC.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from qoderdata.arguments import Instant, Span, parse_period, parse_span
from qoderdata.cron import CronError, Schedule
from qoderdata.frame_checks import TEXT, require_frame, require_snapshots, require_unique_deployments
from qoderdata.frames import fetched_at
from qoderdata.time_math import MICROSECOND, MINUTE_MICROS, SECOND_MICROS, from_micros, to_micros
from qoderdata.timelines.distinct_schedules import (
    DistinctSchedules,
    column_micros,
    schedule_columns,
    timestamps,
    trigger_micros,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

#: How late a run may start, by default.
GRACE = "10min"
#: A time after all others, in microseconds; its negative is before all others, and means an unknown time.
_FAR = 1 << 62

_STATE_COLUMNS = ("id", "status", "updated_at", "schedule_expression", "schedule_timezone")
_CERTAIN, _PAUSED, _CHANGED, _CREATED, _INCOMPLETE = range(5)
_NO_SCHEDULE = -1
_DEPLOYMENT_COLUMNS = (*_STATE_COLUMNS, "name", "created_at", "archived_at")
_OPTIONAL = ("schedule_type",)
_RUN_COLUMNS = ("deployment_id", "trigger_type", "triggered_at")
#: About how many scheduled times are matched at once.
_TIMES_AT_ONCE = 1 << 21
#: Bits that hold the seconds of all years from 1 to 9999.
_KEY_BITS = 40


def missed_triggers(
    df: pd.DataFrame,
    runs: pd.DataFrame,
    *,
    since: Instant | Span,
    until: Instant | Span,
    grace: Span = GRACE,
    snapshots: Sequence[pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """Return the scheduled times that no run serves.

    A time ``t`` in ``[since, until - grace)`` is missed when no run that the schedule started
    (``trigger_type == "schedule"``) serves it. A run whose ``trigger_scheduled_at`` lies in the minute of a
    scheduled time serves that time, as does a retry that names it. Any other run serves one time with
    ``t <= due <= t + grace``, ``due`` being its ``trigger_scheduled_at``, else its ``triggered_at``: if times
    lie closer together than `grace`, runs are matched so that as few times as possible are left. A run of any
    status serves its time, a skipped or failed one too.

    Parameters
    ----------
    df
        A deployments frame, with the archived ones.
    runs
        All runs of these deployments in the window: the time of a run that is left out counts as missed. If
        ``attrs["complete"]`` is False, as after ``load_runs(offline=True)``, no time is certain. A frame
        without ``trigger_scheduled_at``, such as an old file, is matched by ``triggered_at`` alone. Of rows with
        the same ``id``, if the frame has it, the last counts.
    since, until
        The window: zone-aware times, or ages before now, such as ``"12h"`` and ``"0h"``.
    grace
        How late a run may be due: a length of time with a unit.
    snapshots
        Earlier deployments frames with ``attrs["fetched_at"]``, as `load_snapshots` returns them, of this
        account; ``df`` counts as one of them. They show pauses and earlier schedules. If the snapshot before a
        time and the one after it show the same schedule and an active deployment, the times of that schedule are
        certain. If both show it paused, nothing was due. If they differ, the times of both schedules are listed.
        If the later one shows when the change was made, the times of its schedule after that are certain. A
        change that was undone between two snapshots is not seen.

    Returns
    -------
    pandas.DataFrame
        One row per missed time, in order of ``scheduled_at`` and ``deployment_id``; none before a deployment was
        created, none after it was archived, and none for a deployment that is paused and was last changed before
        `since`, as it was paused the whole time. Nothing missed: no rows, same columns and dtypes.

        ================= =================== ==============================================================
        ``scheduled_at``  datetime64[us, UTC] when it should have fired
        ``deployment_id`` str                 as in ``df``
        ``name``          str                 as in ``df``
        ``certain``       bool                False if neither the records nor snapshots show whether it
                                              was due
        ``reason``        str                 why it is not certain: ``"paused since <time>"`` (it is paused
                                              now, or in the snapshot after it), ``"changed at <time>"`` (after
                                              `since`; its creation is no change), ``"created without time"``,
                                              ``"the runs are not complete"``; the time is
                                              ``"an unknown time"`` if no record says it. ``""`` if it is
                                              certain. Without `snapshots`, a reason is given for all times of
                                              a deployment, also for those after the change
        ================= =================== ==============================================================

    Raises
    ------
    ValueError
        A parameter is not valid, `since` is not before `until`, or an id is in `df` or a snapshot twice.
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
    df = require_frame(df, _DEPLOYMENT_COLUMNS, what="deployments", optional=_OPTIONAL)
    df = df[[name for name in (*_DEPLOYMENT_COLUMNS, *_OPTIONAL) if name in df]]
    df = df.reset_index(drop=True).sort_values("id", kind="stable", ignore_index=True)
    runs = require_frame(runs, _RUN_COLUMNS, what="runs", optional=["id", "trigger_scheduled_at"])
    if "id" in runs:
        runs = runs[~runs["id"].duplicated(keep="last") | runs["id"].isna()]
    earlier = require_snapshots(snapshots)
    bounds = parse_period(since, until, now=datetime.now(UTC), what="scheduled time")
    for name, bound in zip(("since", "until"), bounds, strict=True):
        if bound is None:
            raise ValueError(f"{name}=None must be a time with its zone, or an age such as '7D'; '0D' is now")
    begin, end = (to_micros(bound) for bound in bounds if bound is not None)
    grace_micros = parse_span(grace, name="grace") // MICROSECOND
    schedules, periods = _schedule_history(df, earlier, since=begin, until=end)
    scheduled_runs = _scheduled_runs(df, runs, begin, end)
    found = []
    for times in _scheduled_times(schedules, periods):
        is_over = times["scheduled_at"].to_numpy() < end - grace_micros
        found.append(times[is_over & _is_unserved(times, scheduled_runs, grace_micros)])
    missed = pd.concat(found).sort_values("scheduled_at", kind="stable", ignore_index=True)
    # The reason is that of the last period that had begun.
    periods = periods.sort_values("begin", kind="stable")
    missed = pd.merge_asof(missed, periods, left_on="scheduled_at", right_on="begin", by="row")
    if runs.attrs.get("complete") is False:
        missed["kind"] = missed["kind"].replace(_CERTAIN, _INCOMPLETE)
    reasons = list(map(_reason, missed["kind"].tolist(), missed["reason_at"].tolist()))
    return pd.DataFrame({
        "scheduled_at": timestamps(missed["scheduled_at"].to_numpy()).tz_localize("UTC"),
        "deployment_id": df["id"].iloc[missed["row"]].astype(TEXT).reset_index(drop=True),
        "name": df["name"].iloc[missed["row"]].astype(TEXT).reset_index(drop=True),
        "certain": (missed["kind"] == _CERTAIN).to_numpy(),
        "reason": pd.Series(reasons, dtype=TEXT),
    })  # fmt: skip


@dataclass(frozen=True)
class _State:
    """What one frame says about each deployment of the newest frame, in the order of its rows."""

    fetched_at: int
    is_listed: NDArray[np.bool_]
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
            np.append(column_micros(frame["updated_at"], missing=-_FAR), -_FAR)[row],
        )

    @property
    def active_schedule(self) -> NDArray[np.int64]:
        """The schedule by which each deployment fires; -1 for none."""
        return np.where(self.is_paused, _NO_SCHEDULE, self.schedule)

    def paused_since_before(self, time: int) -> NDArray[np.bool_]:
        """Return which deployments are paused and were last changed before a time: they did not fire since."""
        is_known: NDArray[np.bool_] = (self.updated != -_FAR) & (self.updated < time)
        return self.is_paused & is_known

    def filled_from(self, older: _State) -> _State:
        """Return this state, filled from an older one for deployments that this one lacks."""
        names = ("is_paused", "schedule", "updated")
        values = (np.where(self.is_listed, getattr(self, name), getattr(older, name)) for name in names)
        return _State(self.fetched_at, self.is_listed | older.is_listed, *values)


def _schedule_history(
    df: pd.DataFrame, snapshots: Sequence[pd.DataFrame], *, since: int, until: int
) -> tuple[list[Schedule | CronError], pd.DataFrame]:
    """Return the distinct schedules of some frames, and the periods in which each deployment could fire by each.

    `_periods` says what the columns are. If either of two schedules may have been active, each has a period.
    """
    frames = [
        require_frame(one, _STATE_COLUMNS, what="deployments", optional=_OPTIONAL) for one in (df, *snapshots)
    ]
    for frame in frames:
        require_unique_deployments(frame)
    times = [_FAR if at is None else to_micros(at) for at in map(fetched_at, (df, *snapshots))]
    all_rows = DistinctSchedules.parse(pd.concat([schedule_columns(one) for one in frames]))
    of_rows = np.split(all_rows.of_row, np.cumsum([len(one) for one in frames])[:-1])
    ids = pd.Index(df["id"])
    states = [
        _State.of(frame, schedule, ids, time) for frame, schedule, time in zip(frames, of_rows, times, strict=True)
    ]

    newest = states[0]
    created = column_micros(df["created_at"], missing=-_FAR)
    archived = column_micros(df["archived_at"], missing=_FAR)
    distinct = DistinctSchedules(all_rows.schedules, of_rows[0])
    distinct.parsed_rows(df, np.flatnonzero(~newest.paused_since_before(since)))  # warns of the others
    if len(states) == 1:
        found = [_from_one_record(newest, created, since=since)]
    else:
        found = list(_from_snapshots(sorted(states, key=lambda state: state.fetched_at), created))
    periods = pd.concat(found, ignore_index=True)
    periods["begin"] = np.maximum(periods["begin"], np.maximum(created, since)[periods["row"]])
    periods["end"] = np.minimum(periods["end"], np.minimum(archived, until)[periods["row"]])
    return distinct.schedules, _merge_adjacent(periods[periods["begin"] < periods["end"]])


def _from_one_record(state: _State, created: NDArray[np.int64], *, since: int) -> pd.DataFrame:
    """Return the periods that one record shows: a change after `since` makes all times doubtful."""
    is_changed = (state.updated > created) & (state.updated >= since)
    kind = np.where(created == -_FAR, _CREATED, _CERTAIN)
    kind = np.where(is_changed, _CHANGED, kind)
    kind = np.where(state.is_paused, _PAUSED, kind)
    row = np.flatnonzero(~state.paused_since_before(since))
    schedule, changed_at = state.schedule[row], state.updated[row]
    return _periods(row, begin=-_FAR, end=_FAR, schedule=schedule, kind=kind[row], reason_at=changed_at)


def _from_snapshots(states: Sequence[_State], created: NDArray[np.int64]) -> Iterator[pd.DataFrame]:
    """Yield the periods before the first state, between each two, and after the last."""
    nothing = np.zeros(created.size, dtype=bool)
    none = np.full(created.size, _NO_SCHEDULE)
    before = _State(-_FAR, nothing, nothing, none, none)
    seen_at = np.full(created.size, -_FAR)
    for state in states:
        is_first = state.is_listed & ~before.is_listed
        yield from _periods_before_first(state, np.flatnonzero(is_first), created)
        yield from _periods_between(before, state, np.flatnonzero(state.is_listed & before.is_listed), seen_at)
        before = state.filled_from(before)
        seen_at = np.where(state.is_listed, state.fetched_at, seen_at)
    row = np.flatnonzero(before.is_listed)
    yield _periods(row, begin=seen_at[row], end=_FAR, schedule=before.active_schedule[row])


def _periods_before_first(
    state: _State, row: NDArray[np.int64], created: NDArray[np.int64]
) -> Iterator[pd.DataFrame]:
    """Yield the periods before the first snapshot, which shows the state since the record was last changed."""
    updated, paused = state.updated[row], state.is_paused[row]
    as_created = ~paused & (updated <= created[row])
    known_since = np.where(as_created, -_FAR, np.where(updated == -_FAR, state.fetched_at, updated))
    known_since = np.minimum(known_since, state.fetched_at)
    unknown_creation = as_created & (created[row] == -_FAR)
    kind = np.where(unknown_creation, _CREATED, _CERTAIN)
    yield _periods(row, begin=known_since, end=state.fetched_at, schedule=state.active_schedule[row], kind=kind)
    kind = np.where(paused, _PAUSED, _CHANGED)
    yield _periods(row, begin=-_FAR, end=known_since, schedule=state.schedule[row], kind=kind, reason_at=updated)


def _periods_between(
    before: _State, after: _State, row: NDArray[np.int64], seen_at: NDArray[np.int64]
) -> Iterator[pd.DataFrame]:
    """Yield the periods between two snapshots; if these differ, the later one may date the change."""
    old, new = before.active_schedule[row], after.active_schedule[row]
    begin, updated = seen_at[row], after.updated[row]
    is_dated = (updated > begin) & (updated <= after.fetched_at)
    known_since = np.where(old == new, begin, np.where(is_dated, updated, after.fetched_at))
    yield _periods(row, begin=known_since, end=after.fetched_at, schedule=new)
    kind = np.where(after.is_paused[row], _PAUSED, _CHANGED)
    changed_at = np.where(is_dated, updated, -_FAR)
    for schedule in (old, new):
        yield _periods(row, begin=begin, end=known_since, schedule=schedule, kind=kind, reason_at=changed_at)


def _periods(
    row: NDArray[np.int64],
    *,
    begin: NDArray[np.int64] | int,
    end: NDArray[np.int64] | int,
    schedule: NDArray[np.int64],
    kind: NDArray[np.int64] | int = _CERTAIN,
    reason_at: NDArray[np.int64] | int = 0,
) -> pd.DataFrame:
    """Return the periods that are not empty and have a schedule."""
    # `row` is the deployment's in `df`, `schedule` an index of the distinct schedules. `kind` says why the period
    # is not certain, and `reason_at` is the time of that reason.
    columns = {"begin": begin, "end": end, "schedule": schedule, "kind": kind, "reason_at": reason_at}
    periods = pd.DataFrame({"row": row, **columns})
    return periods[(periods["begin"] < periods["end"]) & (periods["schedule"] != _NO_SCHEDULE)]


def _merge_adjacent(periods: pd.DataFrame) -> pd.DataFrame:
    """Return periods in order of row and begin, with those joined that follow one another and are equal."""
    periods = periods.sort_values(["row", "schedule", "begin"], kind="stable")
    before = periods.shift(fill_value=-1)
    same = ["row", "schedule", "kind", "reason_at"]
    goes_on = (periods[same] == before[same]).all(axis=1) & (periods["begin"] == before["end"])
    ends = periods["end"].groupby((~goes_on).cumsum()).last()
    joined = periods[~goes_on].assign(end=ends.to_numpy())
    return joined.sort_values(["row", "begin", "schedule"], ignore_index=True)


def _scheduled_times(schedules: Sequence[Schedule | CronError], periods: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the scheduled times, those of some deployments at once, in order of row and time."""
    row, begin, end = (periods[name].to_numpy() for name in ("row", "begin", "end"))
    times: defaultdict[int, list[NDArray[np.int64]]] = defaultdict(list)
    by_schedule = periods.groupby("schedule").indices
    for index, schedule in enumerate(schedules):
        if index in by_schedule and isinstance(schedule, Schedule):
            some = by_schedule[index]
            first, last = from_micros(int(begin[some].min())), from_micros(int(end[some].max()))
            at = trigger_micros(schedule, first, last)
            bounds = np.searchsorted(at, (begin[some], end[some])).T.tolist()
            for one, (low, high) in zip(row[some].tolist(), bounds, strict=True):
                times[one].append(at[low:high])
    rows = np.array(sorted(times), np.int64)
    # If either of two schedules may have been active, both may fire at one time.
    each = [
        parts[0] if len(parts) == 1 else np.unique(np.concatenate(parts)) for _, parts in sorted(times.items())
    ]
    lengths = np.array([part.size for part in each], np.int64)
    edges = np.flatnonzero(np.diff(np.cumsum(lengths) // _TIMES_AT_ONCE)) + 1
    for low, high in pairwise([0, *edges.tolist(), rows.size]):
        at = np.concatenate([np.empty(0, np.int64), *each[low:high]])
        yield pd.DataFrame({"row": np.repeat(rows[low:high], lengths[low:high]), "scheduled_at": at})


def _scheduled_runs(df: pd.DataFrame, runs: pd.DataFrame, begin: int, end: int) -> pd.DataFrame:
    """Return the runs that schedules started, in order of the row of their deployment and when they were due."""
    due = column_micros(runs["triggered_at"], missing=-_FAR)
    names_its_time = np.zeros(len(runs), dtype=bool)
    if "trigger_scheduled_at" in runs:
        scheduled_at = column_micros(runs["trigger_scheduled_at"], missing=-_FAR)
        names_its_time = scheduled_at != -_FAR
        due = np.where(names_its_time, scheduled_at, due)
    # Ids are looked up once for each deployment, not for each run.
    codes, ids = pd.factorize(runs["deployment_id"])
    row = np.append(pd.Index(df["id"]).get_indexer(pd.Index(ids)), -1)[codes]
    # A retry, or a run whose kind is not known, serves the time that it names.
    may_serve = runs["trigger_type"].isna() | runs["trigger_type"].eq("retry")
    by_schedule = runs["trigger_type"].eq("schedule").to_numpy() | (may_serve.to_numpy() & names_its_time)
    in_window = (due >= begin) & (due < end + np.where(names_its_time, MINUTE_MICROS, 0))
    found = pd.DataFrame({"row": row, "due": due, "names_its_time": names_its_time})
    return found[by_schedule & in_window & (row >= 0)].sort_values(["row", "due"])


def _is_unserved(times: pd.DataFrame, runs: pd.DataFrame, grace: int) -> NDArray[np.bool_]:
    """Return which scheduled times no run serves; both frames are in order of row and time."""
    row, at = times["row"].to_numpy(), times["scheduled_at"].to_numpy()
    unserved = np.ones(at.size, dtype=bool)
    if not at.size:
        return unserved
    key = _sort_key(row, at)
    run_row, due = runs["row"].to_numpy(), runs["due"].to_numpy()
    first = np.searchsorted(key, _sort_key(run_row, due - due % MINUTE_MICROS)).clip(max=at.size - 1)
    is_exact = (row[first] == run_row) & (at[first] // MINUTE_MICROS == due // MINUTE_MICROS)
    is_exact &= runs["names_its_time"].to_numpy()
    unserved[first[is_exact]] = False
    run_row, due = run_row[~is_exact], due[~is_exact]
    # The last scheduled time before a run is its own. If no other run serves that time, this run serves it.
    own = np.searchsorted(key, _sort_key(run_row, due), side="right") - 1
    can_serve = (own >= 0) & (row[own] == run_row) & (due - at[own] <= grace)
    run_row, due, own = run_row[can_serve], due[can_serve], own[can_serve]
    is_taken = ~unserved[own]
    is_taken[1:] |= own[1:] == own[:-1]
    # A run whose time is taken can serve an earlier one, if times lie closer together than `grace`.
    is_close = (np.diff(row) == 0) & (np.diff(at) <= grace)
    crowded = np.intersect1d(run_row[is_taken], row[1:][is_close])
    unserved[own[~np.isin(run_row, crowded)]] = False
    for one in crowded.tolist():
        low, high = np.searchsorted(row, (one, one + 1))
        left = low + np.flatnonzero(unserved[low:high])
        begin, end = np.searchsorted(run_row, (one, one + 1))
        unserved[left] = _unmatched(at[left].tolist(), due[begin:end].tolist(), grace)
    return unserved


def _sort_key(row: NDArray[np.int64], micros: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return integers in order of row, then of time in whole seconds, in which schedules fire."""
    return (row << _KEY_BITS) + micros // SECOND_MICROS


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


@lru_cache(maxsize=4096)
def _reason(kind: int, at: int) -> str:
    if kind == _CREATED:
        return "created without time"
    if kind == _CERTAIN:
        return ""
    if kind == _INCOMPLETE:
        return "the runs are not complete"
    minute = np.datetime64(at, "us").astype("datetime64[m]")
    time = "an unknown time" if at == -_FAR else f"{minute} UTC".replace("T", " ", 1)
    return f"{'paused since' if kind == _PAUSED else 'changed at'} {time}"
