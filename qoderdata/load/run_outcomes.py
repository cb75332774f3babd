"""Which sessions and events are read, so that runs whose records have no status have outcomes.

Sessions are kept in a store like runs. The end of each session, as its events tell it, is kept in a store of
outcomes: a final end never changes; any other is read again when its session has changed.
"""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, cast

import pyarrow as pa
import pyarrow.compute as pc

from qoderdata.background import prefetch
from qoderdata.decode import Decoder
from qoderdata.frames import events_to_pandas, to_pandas
from qoderdata.load.lists import events_path
from qoderdata.load.refresh import (
    CLOCKS_DIFFER,
    Freshness,
    ListReader,
    SingleReads,
    bring_up_to_date,
    is_current,
)
from qoderdata.load.sessions import RUNNING, SESSION_LIST, reread_bound
from qoderdata.outcomes import ends_from_events
from qoderdata.pages import SAFE_PAGE, PageSize, Progress, fetch_pages, list_query, progress_bar
from qoderdata.parsing import earlier
from qoderdata.schema import EVENTS, OUTCOMES, SESSIONS
from qoderdata.store import OUTCOMES_TABLE, SESSIONS_TABLE, DamagedStoreError, JournalEntry, TableStore, row_ids

if TYPE_CHECKING:
    import pandas as pd

    from qoderdata.client import Client
    from qoderdata.decode import Page
    from qoderdata.files import Folder

#: What `load_runs` reads to tell outcomes.
Level = Literal["auto", "runs", "sessions", "events"]
LEVELS: tuple[Level, ...] = ("auto", "runs", "sessions", "events")

#: The types of events that tell what became of a run.
_OUTCOME_TYPES = [
    "session.status_running",
    "session.status_idle",
    "session.status_rescheduled",
    "session.status_terminated",
    "session.error",
]
_UNREAD = ("session", "could not be read, and what was known of their runs is kept")
_WAITING, _GONE = (pa.array([end], pa.large_string()) for end in ("waiting", "gone"))


@dataclass(frozen=True, slots=True)
class SessionsAndEnds:
    """The sessions of some runs, and the ends of these sessions, as `apply_ends` takes them."""

    sessions: pd.DataFrame
    ends: pd.DataFrame


class RunOutcomes:
    """Read and keep what tells the outcomes of runs."""

    def __init__(self, client: Client, folder: Folder, *, freshness: Freshness, progress: bool | None) -> None:
        #: What is known; ``"events"`` also where no more of these can be read.
        self.level: Level = "runs"
        self.done = Progress()
        self._client = client
        self._freshness = freshness
        self._progress = progress
        self._sessions = TableStore(folder, SESSIONS_TABLE, **client.identity)
        self._ends = TableStore(folder, OUTCOMES_TABLE, **client.identity)
        self._decoder = Decoder(EVENTS)

    def read(self, runs: pa.Table, level: Level, *, offline: bool) -> SessionsAndEnds | None:
        """Return what is known of the sessions of runs, after reading what is missing; what was read is kept.

        ``None`` where the runs, resolved from their records alone, tell everything, or nothing else is to be read.
        """
        needed = runs.filter(pc.and_(runs["status_from"].is_null(), runs["session_id"].is_valid()))
        if level == "runs" or not needed.num_rows:
            return None
        self.level = "events" if level == "events" and not offline else "sessions"
        for store in (self._sessions, self._ends):
            store.recover()
        try:
            sessions, ends = self._read(needed, offline=offline)
        except DamagedStoreError:
            for store in (self._sessions, self._ends):
                with store.writer_lock():
                    store.forget_damaged()
            sessions, ends = self._read(needed, offline=offline)
        return SessionsAndEnds(
            to_pandas(sessions, SESSIONS), to_pandas(ends, OUTCOMES).rename(columns={"id": "session_id"})
        )

    def _read(self, needed: pa.Table, *, offline: bool) -> tuple[pa.Table, pa.Table]:
        oldest = pc.min(needed["created_at"]).as_py()
        since = None if oldest is None or needed["created_at"].null_count else earlier(oldest, CLOCKS_DIFFER)
        if not offline:
            self._list_sessions(since)
        wanted = pc.unique(needed["session_id"])
        sessions, ends = self._known(wanted, since)
        if not offline and self._read_missing(needed, wanted, sessions, ends):
            sessions, ends = self._known(wanted, since)
        if not offline and self.level == "events" and self._undecided(sessions, ends):
            self._read_events(needed, wanted, since)
            sessions, ends = self._known(wanted, since)
        if not len(_unknown(wanted, sessions, ends)) and not self._undecided(sessions, ends):
            self.level = "events"
        return sessions, ends

    def _known(self, wanted: Any, since: datetime | None) -> tuple[pa.Table, pa.Table]:  # noqa: ANN401
        """Return the stored sessions and ends; an end that is not final counts while its session is unchanged."""
        sessions = self._stored(self._sessions, wanted, since)
        ends = self._stored(self._ends, wanted, since)
        is_kept = pc.invert(OUTCOMES_TABLE.may_change(ends))
        index = pc.index_in(ends["id"], value_set=sessions["id"].combine_chunks())
        updated_at = sessions["updated_at"].take(index)
        return sessions, ends.filter(pc.or_kleene(is_kept, pc.equal(ends["session_updated_at"], updated_at)))

    def _stored(self, store: TableStore, wanted: Any, since: datetime | None) -> pa.Table:  # noqa: ANN401
        """Return the stored rows of some sessions; nearly all were created after the first run was."""
        found = store.read(since=since, where=pc.field("id").isin(wanted))
        rest = wanted.filter(pc.invert(pc.is_in(wanted, value_set=found["id"].combine_chunks())))
        if since is None or not len(rest):
            return found
        older = store.read(until=since, where=pc.field("id").isin(rest))
        return pa.concat_tables([found, older]).unify_dictionaries()

    def _list_sessions(self, since: datetime | None) -> None:
        if is_current(self._sessions, self._freshness, since=since, until=None):
            return
        reread_since, open_sessions = self._open_sessions()
        oldest = since if since is None or reread_since is None else min(since, reread_since)
        with self._reader(oldest) as reader:
            reader.unlisted = set(open_sessions)
            bring_up_to_date(
                self._sessions, reader, self._freshness, since=since, until=None, reread_since=reread_since
            )
            self._read_sessions(reader, {id_: open_sessions[id_] for id_ in reader.unlisted})
        reader.warn_misfits()

    def _open_sessions(self) -> tuple[datetime | None, dict[str, datetime | None]]:
        """Return from when on sessions are listed again, and the open sessions with the times of their creation.

        A few old open sessions are read by id, as those are that the list no longer has; many are listed again.
        """
        bound = reread_bound(self._sessions, self._freshness)
        if bound is None:
            return None, {}
        ends = self._ends.read_columns(["id", "end"])
        undecided = ends["id"].filter(pc.or_(ends["end"].is_null(), pc.is_in(ends["end"], value_set=_WAITING)))
        gone = ends["id"].filter(pc.is_in(ends["end"], value_set=_GONE))
        is_open = pc.field("status").isin(RUNNING) | pc.field("id").isin(undecided.combine_chunks())
        open_ = self._sessions.read(where=is_open & ~pc.field("id").isin(gone.combine_chunks()))
        created_at = dict(zip(row_ids(open_), open_["created_at"].to_pylist(), strict=True))
        old = [time for time in created_at.values() if time is not None and time < bound]
        oldest = min(old, default=bound)
        pages = math.ceil(self._sessions.count(since=oldest, until=bound) / SAFE_PAGE) if old else 0
        return (bound if len(old) <= pages else oldest), created_at

    def _read_missing(self, needed: pa.Table, wanted: Any, sessions: pa.Table, ends: pa.Table) -> bool:  # noqa: ANN401
        """Read sessions that the list did not bring by id, each once; return whether there were any."""
        missing = _unknown(wanted, sessions, ends).to_pylist()
        if not missing:
            return False
        created_at = _times(needed)
        with self._reader(None) as reader:
            self._read_sessions(reader, {id_: created_at[id_] for id_ in missing})
        reader.warn_misfits()
        return True

    def _reader(self, oldest: datetime | None) -> closing[ListReader]:
        done, progress = self.done, self._progress
        return closing(
            ListReader(self._client, SESSION_LIST, self._sessions, done, oldest=oldest, progress=progress)
        )

    def _read_sessions(self, reader: ListReader, created_at: dict[str, datetime | None]) -> None:
        """Read sessions by id, given with the times when they were created; gone ones are remembered."""
        if not created_at:
            return
        singles = SingleReads()
        with self._sessions.writer_lock(), self._ends.writer_lock():
            for id_, found in singles.each(created_at, reader.read_one):
                if found is None:
                    self._add_end(id_, {"end": "gone", "created_at": created_at[id_]} | self._last_wait(id_))
                else:
                    asked_at, table = found
                    self._sessions.add(JournalEntry(table, asked_at))
            self._sessions.commit(compact=True)
            self._ends.commit(compact=True)
        singles.warn(*_UNREAD)

    def _read_events(self, needed: pa.Table, wanted: Any, since: datetime | None) -> None:  # noqa: ANN401
        with self._ends.writer_lock():
            # Another process may have read some while this one waited.
            undecided = self._undecided(*self._known(wanted, since))
            created_at = _times(needed)
            singles = SingleReads()
            found = prefetch(singles.each(undecided, self._end_of), name="qoderdata-events")
            with closing(found) as results, progress_bar("sessions", progress=self._progress) as shown:
                shown.total = len(undecided)
                for id_, told in results:
                    end = {"end": "gone"} if told is None else {**told, "session_updated_at": undecided[id_]}
                    self._add_end(id_, {**end, "created_at": created_at[id_]})
                    shown.update()
            self._ends.commit(compact=True)
        self._decoder.warn_misfits()
        singles.warn(*_UNREAD)

    def _undecided(self, sessions: pa.Table, ends: pa.Table) -> dict[str, datetime | None]:
        """Return the sessions whose events are to be read, newest first, each with its `updated_at`."""
        is_running = pc.is_in(sessions["status"], value_set=RUNNING)
        has_end = pc.is_in(sessions["id"], value_set=ends["id"].combine_chunks())
        sessions = sessions.filter(pc.invert(pc.or_(is_running, has_end)))
        return dict(zip(row_ids(sessions), sessions["updated_at"].to_pylist(), strict=True))

    def _end_of(self, id_: str) -> dict[str, Any]:
        """Read a session's events, oldest first, until they tell a final end, and return what they tell."""
        path, params = events_path(id_), {"types[]": _OUTCOME_TYPES, "order": "asc"}
        client = self._client

        def fetch(cursor: str | None, limit: int) -> Page:
            self.done.requests += 1
            query = list_query(params, cursor, limit, cursor_param="page")
            return client.get(path, query, self._decoder.read_page)

        events, end = EVENTS.arrow.empty_table(), {}
        for page in fetch_pages(fetch, limit=PageSize(SAFE_PAGE), max_pages=client.max_pages, mask=client.mask):
            events = pa.concat_tables([events, self._decoder.to_table(page)])
            end = _first_row(ends_from_events(events_to_pandas(events, id_)))
            if end.get("end") == "final":
                break
        return end

    def _last_wait(self, id_: str) -> dict[str, Any]:
        """Return the stored end of a session that waited, as its last one; nothing for any other session."""
        ends = self._ends.read(where=(pc.field("id") == id_) & (pc.field("end") == "waiting")).to_pylist()
        return {**ends[0], "end": "final"} if ends else {}

    def _add_end(self, id_: str, facts: dict[str, Any]) -> None:
        now = datetime.now(UTC)
        row = {name: facts.get(name) for name in OUTCOMES.names} | {"id": id_, "read_at": now}
        self._ends.add(JournalEntry(pa.Table.from_pylist([row], schema=OUTCOMES.arrow), now))


def _unknown(wanted: Any, sessions: pa.Table, ends: pa.Table) -> Any:  # noqa: ANN401 - arrays of ids
    """Return the ids of sessions that are in neither table."""
    known = pa.concat_arrays([table["id"].combine_chunks() for table in (sessions, ends)])
    return wanted.filter(pc.invert(pc.is_in(wanted, value_set=known)))


def _times(runs: pa.Table) -> dict[str, datetime | None]:
    """Return when the run of each session was created."""
    ids = cast("list[str]", runs["session_id"].to_pylist())
    return dict(zip(ids, runs["created_at"].to_pylist(), strict=True))


def _first_row(ends: pd.DataFrame) -> dict[str, Any]:
    """Return the only row, without its session; nothing where no event tells an end."""
    if ends.empty:
        return {}
    row = ends.drop(columns="session_id").iloc[0].to_dict()
    return {str(name): None if value != value else value for name, value in row.items()}  # noqa: PLR0124 - NaN, NaT
