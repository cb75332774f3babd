"""Is a call answered from the store, from the service, or from a cached answer?"""

from __future__ import annotations

import logging
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from qoderdata import cache
from qoderdata.errors import APIError, BadRequestError, CacheError, DataQualityWarning, warn
from qoderdata.formatting import counted, format_duration
from qoderdata.frames import loaded_frame
from qoderdata.load.refresh import Freshness, ListedPage, ListReader, Refresh, RemoteList, Reread, is_current
from qoderdata.pages import ReadCounts
from qoderdata.store import DamagedStoreError, TableStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from qoderdata.client import Client
    from qoderdata.files import Folder

T = TypeVar("T")

_logger = logging.getLogger("qoderdata")


@dataclass(frozen=True, slots=True)
class Query:
    """What a call asks for: ``since <= time < until``, in UTC, and filters."""

    since: datetime | None = None
    until: datetime | None = None
    #: `since` as the caller wrote it; part of the name of the cached answer.
    since_text: str | None = None
    #: The filters as parameters of the request; empty if all rows of the period are requested.
    params: Mapping[str, str] = field(default_factory=dict)
    #: The same filters as a condition on rows, since an edition may ignore a filter; ``None``: no filters.
    where: pc.Expression | None = None
    #: Whether the filters have the same meaning at the service only if its records have a status.
    needs_status: bool = False


@dataclass(frozen=True, slots=True)
class LoadedTable:
    """The rows that a call returns, newest first."""

    table: pa.Table
    #: When the newest rows were read.
    fetched_at: datetime | None
    #: Whether all rows that the call asks for are there.
    complete: bool = True


@dataclass
class StoredLoading:
    """One call of a loader whose list, `remote`, is kept in a store."""

    remote: ClassVar[RemoteList]

    query: Query
    client: Client
    folder: Folder
    freshness: Freshness
    progress: bool | None
    #: Counts what this call reads from the network.
    counts: ReadCounts = field(default_factory=ReadCounts)

    def __post_init__(self) -> None:
        name, account = self.remote.table.name, self.client.identity
        self.store = TableStore(self.folder, self.remote.table, **account)
        #: All stores that this call reads; if one is damaged, each of them is repaired.
        self.stores = [self.store]
        self._began = time.monotonic()
        self._answers = self.folder.folder(cache.FOLDER)
        self._answer_name = cache.cache_key(name, {**account, **self.query.params, "since": self.query.since_text})

    def online(self) -> LoadedTable:
        """Return stored rows if they are recent enough, otherwise ask the service; pages read stay stored."""
        query, freshness = self.query, self.freshness
        self.store.recover()
        if is_current(self.store, freshness, since=query.since, until=query.until):
            cached = self._cached_answer()
            if cached is not None:
                return self._requested_rows(cached)
            table = self.unless_damaged(self._read)
            if table is not None:
                return LoadedTable(table, self.store.coverage.read_at)
        if query.params and not freshness.everything and not (query.needs_status and self._lacks_status()):
            answer = self._filtered()
            if answer is not None:
                return answer
        return self._refreshed()

    def offline(self) -> LoadedTable:
        """Return what is stored or cached, of any age; raise `CacheError` if there is nothing."""
        name = self.remote.table.name
        self.store.recover(must_be_readable=True)
        complete = self.store.coverage.covers(self.query.since)
        cached = self._cached_answer(only_if_newer=complete)
        if cached is not None:
            return self._requested_rows(cached)
        if not self.store.exists:
            raise CacheError(
                f"offline=True, and {self.store.folder.location} has no {name} of this token or account. "
                "Call once without offline, while the service can be reached"
            )
        if not complete:
            warn(
                f"not all {name} that are asked for are kept: the last pull was interrupted, or did not go back "
                "as far. Call without offline to get the others",
                DataQualityWarning,
            )
        try:
            table = self._read()
        except DamagedStoreError as error:
            error.add_note("Call without offline to read what is lost again.")
            raise
        return LoadedTable(table, self.store.coverage.read_at, complete=complete)

    def frame(self, answer: LoadedTable) -> pd.DataFrame:
        """Return an answer as a frame, and log one line."""
        name, counts = self.remote.table.name, self.counts
        _logger.info(
            "%s: %d rows in %.1f s, %s",
            name,
            answer.table.num_rows,
            time.monotonic() - self._began,
            f"{counted(counts.pages, 'page')} with {counts.records} rows from the network"
            if counts.requests
            else "from the cache",
        )
        return loaded_frame(
            answer.table,
            self.remote.table.schema,
            source=f"{self.client.base_url}{self.remote.path}",
            fetched_at=answer.fetched_at,
            requests=counts.requests,
            complete=answer.complete,
        )

    def bring_up_to_date(self) -> bool:
        """Read what the store lacks and what may have changed; return whether the store is complete then."""
        query = self.query
        reread = self.unless_damaged(self.reread) or self.reread()
        since = query.since
        oldest = since if since is None or reread.since is None else min(since, reread.since)
        pages_before = self.counts.pages
        with self.reader(oldest) as reader:
            refresh = Refresh(
                reader,
                self.freshness,
                since=since,
                until=query.until,
                reread_since=reread.since,
                stale=set(reread.ids),
            )
            try:
                refresh.run()
            except APIError as error:
                if self.counts.pages > pages_before:
                    error.add_note("The pages that were read are stored: the next call continues from there.")
                if self.store.coverage.read_at is not None:
                    error.add_note(_offline_note(self.store.coverage.read_at))
                self.remember_gone(refresh.gone)
                raise
        reader.decoder.warn_misfits()
        self.remember_gone(refresh.gone)
        return not refresh.is_contradicted

    def reread(self) -> Reread:
        """Return which stored rows are read again, in addition to those that the store knows to be open."""
        return Reread()

    def remember_gone(self, ids: Sequence[str]) -> None:
        """Remember rows that the service no longer has; the store itself does so by default."""

    def reader(self, oldest: datetime | None) -> closing[ListReader]:
        """Return a reader of the list and of single records; rows before `oldest` are not needed."""
        return closing(ListReader(self.client, self.remote, self.store, self.counts, oldest, self.progress))

    def unless_damaged(self, read: Callable[[], T]) -> T | None:
        """Return what `read` returns; if a store is damaged, set the damaged files aside and return ``None``."""
        try:
            return read()
        except DamagedStoreError:
            for store in self.stores:
                with store.writer_lock():
                    store.forget_damaged()
            return None

    def _cached_answer(self, *, only_if_newer: bool = True) -> cache.CachedTable | None:
        """Return the cached answer to this query; `only_if_newer`: only if it is newer than the store."""
        cached = None
        if self.query.params:
            cached = cache.read(self._answers, self._answer_name, self.remote.table.schema)
        if cached is None or not only_if_newer:
            return cached
        read_at = self.store.coverage.read_at
        is_newer = (read_at is None or read_at < cached.fetched_at) and cached.fetched_at <= datetime.now(UTC)
        return cached if is_newer else None

    def _requested_rows(self, cached: cache.CachedTable) -> LoadedTable:
        """Return the rows of a cached answer that this call asks for."""
        return LoadedTable(self._wanted(cached.table, until=self.query.until), cached.fetched_at)

    def _filtered(self) -> LoadedTable | None:
        """Read only the rows that pass the filters; they are cached, and not added to the store.

        Return ``None`` if the service does not know the filters, or they mean something else there.
        """
        cached = self._cached_answer(only_if_newer=False)
        if cached is None or not self.freshness.is_recent(cached.fetched_at):
            fetched_at = datetime.now(UTC)
            try:
                with self.reader(self.query.since) as reader:
                    pages = reader.pages_from(self.query.params, follow=self._until_past)
                    tables = [page.table for page in pages]
            except BadRequestError as error:
                if error.param in self.query.params:
                    return None
                raise
            except APIError as error:
                if cached is not None:
                    error.add_note(_offline_note(cached.fetched_at))
                raise
            table = reader.decoder.finish(tables)
            if self.query.needs_status and not self._has_status(table):
                return None
            cached = cache.CachedTable(self._wanted(table, until=None), fetched_at)
            cache.write(self._answers, self._answer_name, cached)
        return self._requested_rows(cached)

    def _until_past(self, page: ListedPage) -> ListedPage:
        """Return a page, marked as the last one if no later page has rows that are needed."""
        is_past = page.listing is not None and page.listing.reaches_back_to(self.query.since)
        if self.query.needs_status:
            # The filters mean something else, so that the rows are not used: more pages are not needed.
            is_past = is_past or not _all_from_service(page.table)
        return replace(page, has_more=page.has_more and not is_past)

    def _has_status(self, table: pa.Table) -> bool:
        """Return whether the service's records have a status; read one more page if `table` does not show it."""
        has_status = _all_from_service(table)
        # All runs with an error may be from before the edition changed; a page without filters shows the present.
        if not has_status or (table.num_rows and "has_error" not in self.query.params):
            return has_status
        with self.reader(None) as reader:
            (page,) = reader.pages_from({}, follow=lambda page: replace(page, has_more=False))
        return _all_from_service(page.table)

    def _lacks_status(self) -> bool:
        """Return whether a record of the newest stored day has no status: the filters mean something else then."""
        newest = self.unless_damaged(lambda: self.store.newest_rows(["status_from"]))
        return newest is not None and not _all_from_service(newest)

    def _refreshed(self) -> LoadedTable:
        complete = self.bring_up_to_date()
        table = self.unless_damaged(self._read)
        if table is None:
            complete = self.bring_up_to_date()
            table = self._read()
        return LoadedTable(table, self.store.coverage.read_at, complete=complete)

    def _read(self) -> pa.Table:
        return self.store.read(since=self.query.since, until=self.query.until, where=self.query.where)

    def _wanted(self, table: pa.Table, *, until: datetime | None) -> pa.Table:
        condition = self.remote.table.condition(self.query.since, until, self.query.where)
        return self.remote.table.newest_first([table if condition is None else table.filter(condition)])


def _all_from_service(table: pa.Table) -> bool:
    """Return whether all rows have a status from the service's records; True if there are no rows."""
    is_service = pc.is_in(table["status_from"], value_set=pa.array(["service"], pa.large_string()))
    return bool(pc.all(is_service, min_count=0).as_py())


def _offline_note(read_at: datetime) -> str:
    age = format_duration(datetime.now(UTC) - read_at)
    return f"The stored data was read {age} ago: pass offline=True to use it."
