"""Which sessions does an account have: from the service and the store of sessions to a frame."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from qoderdata.arguments import (
    Instant,
    Span,
    bound_text,
    check_id,
    check_refresh,
    parse_period,
    parse_span,
    warn_if_no_id,
)
from qoderdata.client import Client, given_client
from qoderdata.files import Folder
from qoderdata.load.refresh import Freshness, RemoteList, Reread
from qoderdata.load.stored import Query, StoredLoading
from qoderdata.outcomes import RUNNING_SESSIONS
from qoderdata.pages import SAFE_PAGE
from qoderdata.schema import OUTCOMES
from qoderdata.settings import resolve_cache_dir
from qoderdata.store import OUTCOMES_TABLE, SESSIONS_TABLE, JournalEntry, TableStore, all_of, row_ids
from qoderdata.time_math import earlier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

#: Each refresh lists the sessions of this time before the last refresh again.
REREAD = timedelta(days=7)

RUNNING = pa.array(RUNNING_SESSIONS, pa.large_string())
_WAITING = pa.array(["waiting"], pa.large_string())


def load_sessions(
    *,
    deployment_id: str | None = None,
    agent_id: str | None = None,
    since: Instant | Span | None = None,
    until: Instant | Span | None = None,
    client: Client | None = None,
    cache_dir: str | Path | None = None,
    max_age: Span = "15min",
    refresh: bool | Literal["all"] = False,
    offline: bool = False,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Return the sessions of an account, archived ones too; the service is asked only for what may have changed.

    The list of all sessions is kept in a store on disk, with the latest reading of each session. Any session may
    be continued. So each refresh reads again the sessions that were created in the 7 days before the last refresh,
    and older ones that still ran or waited, until the service no longer has them. A pull that was interrupted, for
    any reason, continues where it ended. A call with filters is answered from the store if that goes back far
    enough and is recent; otherwise only those sessions are requested, and the answer is cached separately.

    Parameters
    ----------
    deployment_id
        Only the sessions that this deployment started.
    agent_id
        Only those of this agent.
    since
        Only those created at this time or later: ISO 8601 text with an offset, a zone-aware datetime, or an age
        such as ``"30D"``. Older sessions are not requested either; ``None``: all, back to the first session.
    until
        Only those created before this time, or this long ago.
    client
        The account; ``None`` makes a `Client` from the environment.
    cache_dir
        The cache's folder, a path or a URL; ``None``: ``QODERDATA_CACHE_DIR``, else the platform's user cache
        folder.
    max_age
        How old stored answers may be: anything that `pandas.Timedelta` accepts, except a bare number.
    refresh
        Always ask for what is new or may have changed. ``"all"`` reads the list again from the newest session back
        to `since`; sessions that only the store has are kept. Those before `since` are read again by the next call
        that asks for them.
    offline
        Never use the network; take what the store has, of any age.
    progress
        Draw a progress bar; ``None``: on a terminal or in a notebook, once a pull takes more than a second.

    Returns
    -------
    pandas.DataFrame
        One row per session, newest first (by `created_at`), with the columns and dtypes of
        `qoderdata.schema.SESSIONS`, also if there are none. Times are in UTC. Credits are a snapshot; a missing
        value is unknown, not 0. ``attrs`` holds ``source``, ``fetched_at`` (when the newest sessions were read),
        ``from_cache``, ``complete`` (false offline if not all is stored, or if the service contradicts the
        store) and ``requests``.

    Raises
    ------
    ValueError
        A parameter cannot be understood, such as a time without a zone.
    CredentialError
        There is no token.
    APIError
        The list could not be read to its end. What was read is kept, and the next call continues from there.
    CacheError
        ``offline=True``, and nothing is stored, or a stored file is damaged; or another process locks the store
        and makes no progress.

    Warns
    -----
    DataQualityWarning
        Values that do not fit their column were kept in ``extra``; ``offline=True`` and not all sessions are
        stored; the list ended although older sessions are stored; or open sessions could not be read again.
    CacheWarning
        The store could not be read or written (`NotStoredWarning`), was repaired, or is locked by another
        process.

    Examples
    --------
    >>> import qoderdata as qd
    >>> from qoderdata.sandbox import Sandbox
    >>> with Sandbox(deployments=30, seed=7) as sandbox:
    ...     client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url)
    ...     sessions = qd.load_sessions(client=client)
    ...     again = qd.load_sessions(client=client)
    >>> sessions["id"].is_unique, again.equals(sessions), again.attrs["requests"]
    (True, True, 0)
    """
    now = datetime.now(UTC)
    start, end = parse_period(since, until, now=now, what="session")
    ids = {"deployment_id": deployment_id, "agent_id": agent_id}
    asked = {name: check_id(value, name=name) for name, value in ids.items() if value is not None}
    age = parse_span(max_age, name="max_age")
    check_refresh(refresh=refresh, offline=offline, may_be_all=True)
    loading = SessionLoading(
        Query(
            since=start,
            until=end,
            since_text=bound_text(since),
            params=asked,
            where=all_of(pc.field(name) == value for name, value in asked.items()),
        ),
        given_client(client),
        Folder(resolve_cache_dir(cache_dir)),
        Freshness(now if refresh else now - age, everything=refresh == "all"),
        progress,
    )
    sessions = loading.frame(loading.offline() if offline else loading.online())
    if sessions.empty:
        for name, value in asked.items():
            warn_if_no_id(value, name=name)
    return sessions


class SessionLoading(StoredLoading):
    """Bring the stored sessions up to date: read new ones, and again those that may have changed.

    Sessions of the time `REREAD` are read again even if they have ended, since any of them may be continued. An
    open session is read again whatever its age: it ran, it waited, or its events have no end. A session that the
    service no longer has is remembered in the store of ends, `ends`, so that it is requested only once.
    """

    remote = RemoteList("/sessions", SESSIONS_TABLE, cursor_param="page", params={"include_archived": "true"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.ends = TableStore(self.folder, OUTCOMES_TABLE, **self.client.identity)
        self.stores.append(self.ends)

    def reread(self) -> Reread:
        """Return the time since which sessions are listed again, and the open sessions.

        Old open sessions are read by id if they are few; otherwise the list is read back to the oldest of them.
        Open sessions that the list no longer has are read by id too.
        """
        bound = self._reread_bound()
        if bound is None:
            return Reread()
        self.ends.recover()
        ends = self.ends.read(["id", "created_at", "end", "session_updated_at"])
        has_unknown_end = pc.and_(ends["end"].is_null(), ends["session_updated_at"].is_valid())
        undecided = ends["id"].filter(pc.or_(has_unknown_end, pc.is_in(ends["end"], value_set=_WAITING)))
        is_gone = pc.and_not(ends["session_updated_at"].is_null(), OUTCOMES_TABLE.may_change(ends))
        gone = ends["id"].filter(is_gone)
        stored = self.store.read(["id", "created_at", "status"])
        has_no_end = pc.is_in(stored["id"], value_set=undecided)
        is_open = pc.or_(pc.is_in(stored["status"], value_set=RUNNING), has_no_end)
        open_ = stored.filter(pc.and_not(is_open, pc.is_in(stored["id"], value_set=gone)))
        old = open_["created_at"].filter(pc.less(open_["created_at"], pa.scalar(bound, open_["created_at"].type)))
        oldest = pc.min(old).as_py()
        pages = math.ceil(self.store.count(since=oldest, until=bound) / SAFE_PAGE) if len(old) else 0
        return Reread(bound if len(old) <= pages else oldest, frozenset(row_ids(open_)))

    def remember_gone(self, ids: Sequence[str]) -> None:
        """Remember sessions that the service no longer has."""
        if not ids:
            return
        rows = self.store.read(["id", "created_at"], where=pc.field("id").isin(pa.array(ids, pa.large_string())))
        with self.ends.writer_lock():
            stored = self.stored_ends(ids)
            for id_, created_at in zip(row_ids(rows), rows["created_at"].to_pylist(), strict=True):
                self.add_gone(id_, stored, created_at=created_at)
            self.ends.commit(compact=True)

    def stored_ends(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the stored ends of sessions by id, whether they are still valid or not."""
        if not ids:
            return {}
        ends = self.ends.read(where=pc.field("id").isin(pa.array(ids, pa.large_string())))
        return {row["id"]: row for row in ends.to_pylist()}

    def add_gone(self, id_: str, stored: Mapping[str, Mapping[str, Any]], *, created_at: datetime | None) -> None:
        """Record that the service no longer has a session; an end in `stored`, such as waiting, becomes final.

        A stored end keeps its `created_at`, which determines its partition: that is the time of the run, and the
        session may have been created on the next day.
        """
        end = stored.get(id_, {"created_at": created_at})
        kind = "final" if end.get("end") else "gone"
        self.add_end(id_, {**end, "end": kind, "session_updated_at": None})

    def add_end(self, id_: str, facts: Mapping[str, Any]) -> None:
        """Add what is known of a session's end to the journal; the caller commits it."""
        now = datetime.now(UTC)
        row = {"read_at": now, **facts, "id": id_}
        self.ends.add(JournalEntry(pa.Table.from_pylist([row], schema=OUTCOMES.arrow), now))

    def _reread_bound(self) -> datetime | None:
        """Return the time from which sessions are read again; ``None`` if nothing is stored, or all is recent.

        After an interrupted refresh this may be the earlier time back to which that one had to read.
        """
        coverage, newest = self.store.coverage, self.store.newest()
        if coverage.read_at is None or newest is None:
            return None
        if coverage.reread_since is None and self.freshness.is_recent(coverage.read_at):
            return None
        # The newest session counts, since the service's clock may be behind this one.
        bound = earlier(min(coverage.read_at, newest, datetime.now(UTC)), REREAD)
        return min(bound, coverage.reread_since or bound)
