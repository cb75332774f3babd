"""Which sessions and events are read to find the outcomes of runs whose records have no status?

Sessions are kept in a store, as runs are. The end of each session, according to its events, is kept in a store of
outcomes. A final end never changes; any other end is read again when its session has changed. If the service
refuses a session or its events, they are requested again after `max_age`; until then the run keeps its known
outcome.
"""

from __future__ import annotations

import functools
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import narwhals as nw
import pyarrow as pa
import pyarrow.compute as pc

from qoderdata.background import prefetch
from qoderdata.decode import Decoder
from qoderdata.frames import to_pandas
from qoderdata.load.lists import events_path
from qoderdata.load.refresh import CLOCK_SKEW, Freshness, SingleReads, is_current
from qoderdata.load.sessions import RUNNING, SessionLoading
from qoderdata.load.stored import Query
from qoderdata.outcomes import ends_from_table, is_current_end
from qoderdata.pages import SAFE_PAGE, PageSize, fetch_pages, list_query, progress_bar
from qoderdata.schema import EVENTS, OUTCOMES, SESSIONS
from qoderdata.store import LONG_AGO, OUTCOMES_TABLE, JournalEntry, TableStore, row_ids
from qoderdata.time_math import earlier

if TYPE_CHECKING:
    import pandas as pd

    from qoderdata.client import Client
    from qoderdata.decode import Page
    from qoderdata.files import Folder

#: How much `load_runs` reads to resolve outcomes.
Level = Literal["auto", "runs", "sessions", "events"]
LEVELS: tuple[Level, ...] = get_args(Level)

#: The types of events that determine the outcome of a run.
OUTCOME_TYPES = [
    "session.status_running",
    "session.status_idle",
    "session.status_rescheduled",
    "session.status_terminated",
    "session.error",
]
#: The columns of stored sessions that are read: those that the rules need, and the time of the last change.
_SESSION_COLUMNS = ["id", "status", "created_at", "updated_at", "archived_at", "stats_duration_seconds"]
_KEPT = "could not be read, and what was known of their runs is kept"


class RunOutcomes:
    """Read and store the sessions and events that determine the outcomes of runs."""

    def __init__(
        self, runs: pa.Table, client: Client, folder: Folder, *, freshness: Freshness, progress: bool | None
    ) -> None:
        #: How much was read; ``"events"`` also if there are no more events to read.
        self.level: Level = "runs"
        #: How many sessions have events that were not read and would determine an outcome.
        self.undecided = 0
        #: How many sessions are not stored, and were never refused.
        self.missing = 0
        self._decoder = Decoder(EVENTS)
        #: The runs that need their sessions; for the others, the record is enough.
        self._runs = runs.filter(pc.and_(runs["status_from"].is_null(), runs["session_id"].is_valid()))
        self._wanted = pc.unique(self._runs["session_id"])
        created_at = self._runs["created_at"]
        oldest = pc.min(created_at).as_py()
        #: All sessions were created at this time or later; ``None``: unknown.
        self._since = None if oldest is None or created_at.null_count else earlier(oldest, CLOCK_SKEW)
        #: Reads and keeps the sessions.
        self.loading = SessionLoading(Query(since=self._since), client, folder, freshness, progress)
        self._sessions, self._ends = self.loading.store, self.loading.ends

    @functools.cached_property
    def _created_at(self) -> dict[str, datetime | None]:
        """When the run of each session was created."""
        ids = cast("list[str]", self._runs["session_id"].to_pylist())
        return dict(zip(ids, self._runs["created_at"].to_pylist(), strict=True))

    def read(self, level: Level, *, offline: bool) -> tuple[pd.DataFrame, pd.DataFrame] | None:
        """Return the sessions of the runs and their ends, after reading what is missing.

        ``None`` if the records of all runs are enough, or `level` allows nothing else to be read.
        """
        if level == "runs" or not self._runs.num_rows:
            return None
        self.level = "events" if level == "events" and not offline else "sessions"
        for store in (self._sessions, self._ends):
            store.recover()
        read = self._known if offline else self._read
        sessions, ends = self.loading.unless_damaged(read) or read()
        unknown = self._unknown(sessions, ends).to_pylist()
        self.undecided = self._undecided(sessions, ends).num_rows
        self.missing = len(set(unknown) - self.loading.stored_ends(unknown).keys())
        if not self.undecided and not unknown:
            self.level = "events"
        return to_pandas(sessions, SESSIONS), to_pandas(ends, OUTCOMES).rename(columns={"id": "session_id"})

    def _read(self) -> tuple[pa.Table, pa.Table]:
        if not is_current(self._sessions, self.loading.freshness, since=self._since, until=None):
            self.loading.bring_up_to_date()
        sessions, ends = self._known()
        if missing := self._without_refused(self._unknown(sessions, ends).to_pylist()):
            self._read_missing(missing)
            sessions, ends = self._known()
        if self.level == "events" and self._undecided(sessions, ends).num_rows:
            self._read_events()
            sessions, ends = self._known()
        return sessions, ends

    def _known(self) -> tuple[pa.Table, pa.Table]:
        """Return the stored sessions, and the ends that still count."""
        sessions = self._stored(self._sessions, _SESSION_COLUMNS)
        ends = self._stored(self._ends, OUTCOMES.names)
        index = pc.index_in(ends["id"], value_set=sessions["id"])
        joined = ends
        for name in ("status", "updated_at"):
            joined = joined.append_column(f"_{name}", sessions[name].take(index))
        return sessions, nw.from_native(joined).filter(is_current_end()).select(*OUTCOMES.names).to_native()

    def _stored(self, store: TableStore, columns: list[str]) -> pa.Table:
        """Return the stored rows of the sessions; nearly all were created after the first run."""
        # Most rows are needed, and searching for many ids in each file takes longer than reading all rows.
        found = store.read(columns, since=self._since)
        found = found.filter(pc.is_in(found["id"], value_set=self._wanted))
        rest = _ids_not_in(self._wanted, found)
        if self._since is None or not len(rest):
            return found
        older = store.read(columns, until=self._since, where=pc.field("id").isin(rest))
        return pa.concat_tables([found, older]).unify_dictionaries()

    def _unknown(self, sessions: pa.Table, ends: pa.Table) -> Any:  # noqa: ANN401 - an Arrow array
        """Return the ids of the sessions that are not stored and have no known end."""
        return _ids_not_in(_ids_not_in(self._wanted, sessions), _final_or_read(ends))

    def _undecided(self, sessions: pa.Table, ends: pa.Table) -> pa.Table:
        """Return the sessions whose events must be read, newest first."""
        is_running = pc.is_in(sessions["status"], value_set=RUNNING)
        has_end = pc.is_in(sessions["id"], value_set=_final_or_read(ends)["id"])
        return sessions.filter(pc.invert(pc.or_(is_running, has_end)))

    def _without_refused(self, ids: list[str]) -> list[str]:
        """Return the ids without those of sessions that the service refused within `max_age`."""
        refused = {
            row["id"]
            for row in self.loading.stored_ends(ids).values()
            if row["session_updated_at"] is None and self.loading.freshness.is_recent(row["read_at"])
        }
        return [id_ for id_ in ids if id_ not in refused]

    def _read_missing(self, ids: list[str]) -> None:
        """Read by id the sessions that are not in the list."""
        singles = SingleReads()
        with self.loading.reader(None) as reader, self._sessions.writer_lock(), self._ends.writer_lock():
            stored = self.loading.stored_ends(ids)
            for id_, found in singles.each(ids, reader.read_one):
                if found is None:
                    self.loading.add_gone(id_, stored, created_at=self._created_at[id_])
                else:
                    asked_at, table = found
                    self._sessions.add(JournalEntry(table, asked_at))
            self._add_unread(singles)
            self._sessions.commit(compact=True)
            self._ends.commit(compact=True)
        reader.decoder.warn_misfits()
        singles.warn("session", _KEPT)

    def _read_events(self) -> None:
        with self._ends.writer_lock():
            # Another process may have read some events while this one waited for the lock.
            undecided = self._undecided(*self._known())
            updated_at = dict(zip(row_ids(undecided), undecided["updated_at"].to_pylist(), strict=True))
            wanted = self._without_refused(list(updated_at))
            stored, singles = self.loading.stored_ends(wanted), SingleReads()
            found = prefetch(singles.each(wanted, self._read_end), name="qoderdata-events")
            bar = progress_bar("sessions", of="events", progress=self.loading.progress)
            with closing(found) as results, bar as shown:
                shown.total = len(wanted)
                for id_, end in results:
                    created_at = self._created_at[id_]
                    if end is None:
                        self.loading.add_gone(id_, stored, created_at=created_at)
                    else:
                        facts = {**end, "session_updated_at": updated_at[id_], "created_at": created_at}
                        self.loading.add_end(id_, facts)
                    shown.update()
            self._add_unread(singles)
            self._ends.commit(compact=True)
        self._decoder.warn_misfits()
        singles.warn("session", _KEPT)

    def _add_unread(self, singles: SingleReads) -> None:
        """Record which sessions could not be read: those that have a stored end, which stays, and refused ones."""
        stored = self.loading.stored_ends(singles.unread)
        for id_ in dict.fromkeys([*stored, *singles.refused]):
            read_at = datetime.now(UTC) if id_ in singles.refused else LONG_AGO
            facts = {"created_at": self._created_at[id_], **stored.get(id_, {})}
            self.loading.add_end(id_, {**facts, "session_updated_at": None, "read_at": read_at})

    def _read_end(self, id_: str) -> dict[str, Any]:
        """Read a session's events, oldest first, up to a final end; return the end that follows from them."""
        path, params = events_path(id_), {"types[]": OUTCOME_TYPES, "order": "asc"}
        client = self.loading.client

        def fetch(cursor: str | None, limit: int) -> Page:
            self.loading.counts.requests += 1
            query = list_query(params, cursor, limit, cursor_param="page")
            return client.get(path, query, self._decoder.read_page)

        events: pa.Table = EVENTS.arrow.empty_table()
        end: dict[str, Any] = {}
        size, most = PageSize(SAFE_PAGE), client.max_pages
        for page in fetch_pages(path, fetch, limit=size, max_pages=most, mask=client.mask):
            events = pa.concat_tables([events, self._decoder.to_table(page)])
            session_ids: Any = pa.repeat(pa.scalar(id_, pa.large_string()), len(events))
            end = next(iter(ends_from_table(events.append_column("session_id", session_ids)).to_pylist()), {})
            if end.get("end") == "final":
                break
        return end


def _final_or_read(ends: pa.Table) -> pa.Table:
    """Return the ends that are final, or whose session's events could be read at the last attempt."""
    is_final = pc.invert(OUTCOMES_TABLE.may_change(ends))
    return ends.filter(pc.or_(is_final, ends["session_updated_at"].is_valid()))


def _ids_not_in(ids: Any, table: pa.Table) -> Any:  # noqa: ANN401 - Arrow arrays
    """Return the ids that a table does not have."""
    return ids.filter(pc.invert(pc.is_in(ids, value_set=table["id"])))
