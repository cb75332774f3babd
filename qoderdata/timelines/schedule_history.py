"""From when to when could a deployment fire, by which schedule, and is that certain?

One record tells what holds since it was last changed; snapshots tell more. Times are whole microseconds since 1970
in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from qoderdata.columns import TEXT, require_frame
from qoderdata.cron import Schedule
from qoderdata.parsing import parse_instant
from qoderdata.timelines.distinct_schedules import DistinctSchedules, column_micros, to_micros

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

#: Before all times, and after them.
FAR = 1 << 62

_SCHEDULE_COLUMNS = ("schedule_expression", "schedule_timezone")
_STATE_COLUMNS = ("id", "status", "updated_at", *_SCHEDULE_COLUMNS)
_CERTAIN, _PAUSED, _CHANGED, _CREATED = range(4)
_NO_SCHEDULE = -1


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
        The index of its schedule among the distinct ones. Where two could hold, each has a stretch.
    kind, at : numpy.ndarray
        Why it is not certain, and the time that belongs to that.
    """

    row: NDArray[np.int64]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    schedule: NDArray[np.int64]
    kind: NDArray[np.int64]
    at: NDArray[np.int64]

    def reasons(self, row: NDArray[np.int64], time: NDArray[np.int64]) -> pd.Series[str]:
        """Return for each of some scheduled times why it is not certain, or an empty text."""
        times = np.unique(np.concatenate([self.begin, time]))
        begins = self.row * times.size + np.searchsorted(times, self.begin)
        index = np.searchsorted(begins, row * times.size + np.searchsorted(times, time), side="right") - 1
        both = np.stack([self.kind[index], self.at[index]])
        distinct, of_time = np.unique(both, axis=1, return_inverse=True)
        texts = np.array([_reason(kind, at) for kind, at in distinct.T.tolist()], dtype=object)
        return pd.Series(texts[of_time.reshape(-1)], dtype=TEXT)

    def merged(self) -> Periods:
        """Return the same in order, with periods that go on joined."""
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
        """Return what lies in the life of each deployment."""
        cut = replace(self, begin=np.maximum(self.begin, begin[self.row]), end=np.minimum(self.end, end[self.row]))
        return cut.take(np.flatnonzero(cut.begin < cut.end))

    def take(self, index: NDArray[np.int64]) -> Periods:
        """Return some of them, in this order."""
        return Periods(*(getattr(self, field.name)[index] for field in fields(self)))


def _reason(kind: int, at: int) -> str:
    if kind == _CREATED:
        return "created without time"
    if kind == _CERTAIN:
        return ""
    return f"{'paused since' if kind == _PAUSED else 'changed at'} {_format(at)}"


def _format(micros: int) -> str:
    if micros == -FAR:
        return "an unknown time"
    return f"{np.datetime64(micros, 'us').astype('datetime64[m]')} UTC".replace("T", " ", 1)


@dataclass(frozen=True)
class _State:
    """What one frame says of each deployment of the newest frame, in the order of its rows."""

    fetched_at: int
    is_there: NDArray[np.bool_]
    is_paused: NDArray[np.bool_]
    schedule: NDArray[np.int64]
    updated: NDArray[np.int64]

    @classmethod
    def of(cls, frame: pd.DataFrame, schedule: NDArray[np.int64], ids: pd.Index[str], fetched_at: int) -> _State:
        """Read a frame whose rows have these schedules, for deployments of these ids."""
        row = pd.Index(frame["id"]).get_indexer(ids)
        paused = frame["status"].eq("paused").fillna(value=False).to_numpy(dtype=bool)
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

    def over(self, older: _State) -> _State:
        """Return this state, and the older one of deployments that are not in this."""
        names = ("is_paused", "schedule", "updated")
        values = (np.where(self.is_there, getattr(self, name), getattr(older, name)) for name in names)
        return _State(self.fetched_at, self.is_there | older.is_there, *values)


def schedule_history(
    df: pd.DataFrame, snapshots: Sequence[pd.DataFrame], *, since: int
) -> tuple[DistinctSchedules, Periods]:
    """Return the distinct schedules of some frames, and from when to when each deployment could fire by which.

    Parameters
    ----------
    df
        The deployments.
    snapshots
        Earlier frames, with ``attrs["fetched_at"]``, in any order.
    since
        The time from which on the periods matter.

    Returns
    -------
    DistinctSchedules
        Those of all frames; `of_row` has the rows of ``df``.
    Periods
        Of those schedules that can be read.

    Raises
    ------
    ValueError
        An id is in a frame twice, or a snapshot does not say when it was fetched.
    """
    frames = [require_frame(one, _STATE_COLUMNS, what="deployments") for one in (df, *snapshots)]
    if not all(one["id"].is_unique for one in frames):
        raise ValueError("an id is in a deployments frame twice; drop one of its rows")
    times = [_fetched_at(df, default=FAR), *(_fetched_at(one) for one in snapshots)]
    all_rows = DistinctSchedules.parse(pd.concat([one[list(_SCHEDULE_COLUMNS)] for one in frames]))
    of_rows = np.split(all_rows.of_row, np.cumsum([len(one) for one in frames])[:-1])
    ids = pd.Index(df["id"])
    states = [_State.of(*facts) for facts in zip(frames, of_rows, [ids] * len(frames), times, strict=True)]
    distinct = DistinctSchedules(all_rows.schedules, of_rows[0])

    newest = states[0]
    created = column_micros(df["created_at"], missing=-FAR)
    archived = column_micros(df["archived_at"], missing=FAR)
    always_paused = newest.is_paused & (newest.updated != -FAR) & (newest.updated < since)
    distinct.parsed_rows(df, np.flatnonzero((distinct.of_row >= 0) & ~always_paused))  # warns
    if len(states) == 1:
        found = [_from_one_record(newest, created, since=since)]
    else:
        found = list(_from_snapshots(sorted(states, key=lambda state: state.fetched_at), created))
    whole = Periods(*(np.concatenate([getattr(one, field.name) for one in found]) for field in fields(Periods)))
    is_read = np.array([*(isinstance(one, Schedule) for one in all_rows.schedules), False])
    whole = whole.take(np.flatnonzero(is_read[whole.schedule]))
    return distinct, whole.within(created, archived).merged()


def _from_one_record(state: _State, created: NDArray[np.int64], *, since: int) -> Periods:
    """Return what a record tells alone: a change after `since` makes all times doubtful."""
    is_changed = (state.updated > created) & (state.updated >= since)
    kind = np.where(created == -FAR, _CREATED, _CERTAIN)
    kind = np.where(is_changed, _CHANGED, kind)
    kind = np.where(state.is_paused, _PAUSED, kind)
    always_paused = state.is_paused & (state.updated != -FAR) & (state.updated < since)
    row = np.flatnonzero(~always_paused)
    begin, end = np.full(row.size, -FAR), np.full(row.size, FAR)
    return Periods(row, begin, end, state.schedule[row], kind[row], state.updated[row])


def _from_snapshots(states: Sequence[_State], created: NDArray[np.int64]) -> Iterator[Periods]:
    """Yield what is known before the first state, between each two, and after the last."""
    nothing = np.zeros(created.size, dtype=bool)
    none = np.full(created.size, _NO_SCHEDULE)
    before = _State(-FAR, nothing, nothing, none, none)
    seen_at = np.full(created.size, -FAR)
    for state in states:
        is_first = state.is_there & ~before.is_there
        yield from _before_first(state, np.flatnonzero(is_first), created)
        yield from _between(before, state, np.flatnonzero(state.is_there & before.is_there), seen_at)
        before = state.over(before)
        seen_at = np.where(state.is_there, state.fetched_at, seen_at)
    row = np.flatnonzero(before.is_there)
    yield _periods(row, seen_at[row], FAR, before.firing[row], _CERTAIN, 0)


def _before_first(state: _State, row: NDArray[np.int64], created: NDArray[np.int64]) -> Iterator[Periods]:
    """Yield what holds before the first snapshot: since the record was last changed, it is as it shows."""
    updated, paused = state.updated[row], state.is_paused[row]
    as_created = ~paused & (updated <= created[row])
    known_since = np.where(as_created, -FAR, np.where(updated == -FAR, state.fetched_at, updated))
    known_since = np.minimum(known_since, state.fetched_at)
    unknown_birth = as_created & (created[row] == -FAR)
    kind = np.where(unknown_birth, _CREATED, _CERTAIN)
    yield _periods(row, known_since, state.fetched_at, state.firing[row], kind, 0)
    kind = np.where(paused, _PAUSED, _CHANGED)
    yield _periods(row, -FAR, known_since, state.schedule[row], kind, updated)


def _between(
    before: _State, after: _State, row: NDArray[np.int64], seen_at: NDArray[np.int64]
) -> Iterator[Periods]:
    """Yield what holds between two snapshots; where they differ, since the change that the later one dates."""
    old, new, begin, updated = before.firing[row], after.firing[row], seen_at[row], after.updated[row]
    is_dated = (updated > begin) & (updated <= after.fetched_at)
    known_since = np.where(old == new, begin, np.where(is_dated, updated, after.fetched_at))
    yield _periods(row, known_since, after.fetched_at, new, _CERTAIN, 0)
    kind = np.where(after.is_paused[row], _PAUSED, _CHANGED)
    at = np.where(is_dated, updated, -FAR)
    for schedule in (old, new):
        yield _periods(row, begin, known_since, schedule, kind, at)


def _periods(row: NDArray[np.int64], *columns: NDArray[np.int64] | int) -> Periods:
    """Return those that are not empty."""
    values = [np.broadcast_to(np.asarray(column, dtype=np.int64), row.shape) for column in columns]
    begin, end, schedule = values[:3]
    wanted = (begin < end) & (schedule != _NO_SCHEDULE)
    return Periods(row[wanted], *(value[wanted] for value in values))


def _fetched_at(frame: pd.DataFrame, *, default: int | None = None) -> int:
    text = frame.attrs.get("fetched_at")
    if text is None and default is not None:
        return default
    if text is None:
        raise ValueError("a snapshot has no attrs['fetched_at']; pass the frames that load_snapshots gives")
    return to_micros(parse_instant(text, name="fetched_at").to_pydatetime())
