"""Bring a stored table up to date: which pages of its list, and which single records, are read now?"""

from __future__ import annotations

import logging
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from qoderdata import errors
from qoderdata.arguments import is_usable_id
from qoderdata.background import gc_paused
from qoderdata.decode import Decoder, Page
from qoderdata.formatting import counted
from qoderdata.pages import (
    SAFE_PAGE,
    PageSize,
    ProgressBar,
    ReadCounts,
    format_bound,
    has_small_pages,
    list_query,
    walk,
)
from qoderdata.schema import Kind
from qoderdata.store import JournalEntry, Listing, StoredTable, TableStore, row_ids
from qoderdata.time_math import MICROSECOND, earlier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from qoderdata.client import Client

_logger = logging.getLogger("qoderdata")

#: How many cursors the service may refuse before a refresh gives up; after each, a few more pages are read again.
_REFUSALS = 100
#: How many times a refresh is tried if commits find damaged files.
_ATTEMPTS = 5
#: After this many consecutive errors of the service, no more single records are read.
MAX_FAILURES = 3
#: The list counts as past a time after at least this many consecutive records, and a whole page, that are older: a
#: single old record may be listed before new ones.
_MIN_OLDER_RECORDS = 20
#: The maximum difference of the clocks that set the times of a trigger, its run and its session. The filter by
#: time that is sent begins this much earlier.
CLOCK_SKEW = timedelta(hours=1)
_TIME: Any = Kind.TIME.arrow
_LAST_INSTANT = datetime.max.replace(tzinfo=UTC)
#: Errors about a single record, so that others can still be read; errors about the account are raised.
_RECORD_ERRORS = (errors.APIStatusError, errors.APIResponseValidationError, errors.PaginationError)
_ACCOUNT_ERRORS = (errors.AuthenticationError, errors.RateLimitError)

T = TypeVar("T")


@dataclass(frozen=True)
class RemoteList:
    """A list of the service that is kept in a store."""

    #: The path of the list; that of a single record is below it.
    path: str
    table: StoredTable
    cursor_param: str = "after_id"
    #: Parameters of every request.
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Freshness:
    """How recent an answer must be."""

    #: The earliest time at which it may have been read.
    not_before: datetime
    #: Whether all rows are read again; rows that only the store has are kept.
    everything: bool
    #: When this call read: always recent enough, even if the clock was set back during the call.
    own_times: set[datetime] = field(default_factory=set)

    def is_recent(self, time: datetime | None) -> bool:
        """Return whether a reading is recent enough; one in the future is not, as a clock was wrong."""
        return time is not None and (time in self.own_times or self.not_before <= time <= datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Reread:
    """Which stored rows are read again, in addition to those that the store knows to be open."""

    #: Rows that were created since then are listed again; ``None``: none are.
    since: datetime | None = None
    #: Rows that are read by id if no page has them.
    ids: AbstractSet[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ListedPage:
    """A page of a list, decoded; also the envelope that `walk` sees."""

    table: pa.Table
    #: The ids of its rows.
    ids: tuple[str, ...]
    #: Its position in the list; ``None`` if the service gives no cursor although there are more rows.
    listing: Listing | None
    #: When it was requested.
    asked_at: datetime
    #: Whether the walk continues.
    has_more: bool
    #: The cursor of the next page, as the service gives it; that of `listing` may have been corrected.
    cursor: str | None

    @property
    def count(self) -> int:
        """The number of rows."""
        return self.table.num_rows


@dataclass
class ListReader:
    """Read the pages of a list, and single records; `counts` counts requests, pages and rows.

    Each page is decoded before the next one is requested: its content decides whether the next one is needed.
    """

    client: Client
    remote: RemoteList
    store: TableStore
    counts: ReadCounts
    #: Records before this time are not needed; ``None``: all are.
    oldest: datetime | None
    progress: bool | None

    def __post_init__(self) -> None:
        self.decoder = Decoder(self.remote.table.schema)
        #: A filter by time. Newer editions know it, older ones ignore it; it only saves requests.
        self._time_filter: dict[str, str] = {}
        if self.oldest is not None:
            self._time_filter["created_at[gte]"] = format_bound(earlier(self.oldest, CLOCK_SKEW))
        #: Whether the next page may be filtered by time: ``None`` before the first page, True while all pages were
        #: full, False for good after one that was not, or after a filter that was refused.
        self._may_filter: bool | None = None
        # The page size of a list with small pages says nothing about other lists.
        self._remembers_size = not has_small_pages(self.remote.cursor_param)
        self._size = PageSize(self.client.page_limit if self._remembers_size else SAFE_PAGE)
        self._bar = ProgressBar(self.remote.table.name, self.oldest, progress=self.progress)

    def pages_from(
        self,
        params: Mapping[str, str],
        *,
        start: str | None = None,
        below: AbstractSet[str] = frozenset(),
        follow: Callable[[ListedPage], ListedPage],
    ) -> Iterator[ListedPage]:
        """Yield the pages of the list, one page ahead of the caller, from the first or after the cursor `start`.

        `follow` is called with each page in the fetching thread, and returns the page that the caller gets; the
        next page is read if that page `has_more`. `below` has ids of stored records that the list should reach. If
        it ends before them, the last page is read again without the filter by time.
        """
        recent = _RecentTimes()

        def fetch(cursor: str | None, limit: int) -> ListedPage:
            nonlocal below
            found = self._fetch(params, cursor, limit, recent, below)
            below = below if below.isdisjoint(found.ids) else frozenset()
            recent.add(found.table)
            return follow(found)

        client, path = self.client, self.remote.path
        walked = walk(path, fetch, start=start, limit=self._size, max_pages=client.max_pages, mask=client.mask)
        with closing(walked) as pages:
            for page in pages:
                if self._remembers_size:
                    self.client.page_limit = self._size.value
                self.counts.add(page)
                if self._bar.is_shown:
                    times = page.table["created_at"]
                    self._bar.advance(page.count, newest=pc.max(times).as_py(), oldest=pc.min(times).as_py())
                yield page

    def read_one(self, id_: str) -> tuple[datetime, pa.Table]:
        """Return when a record was requested, and its row, decoded like the records of a page."""
        self.counts.requests += 1
        asked_at = datetime.now(UTC)
        path = f"{self.remote.path}/{quote(id_, safe='')}"
        _, table = self.client.get(path, {}, lambda body: self._decode(b'{"data":[%b],"has_more":false}' % body))
        if row_ids(table) != [id_]:
            raise errors.APIResponseValidationError(
                f"the service returned another record than {id_!r} of {self.remote.path}; try again later"
            )
        return asked_at, table

    def close(self) -> None:
        """Remove the progress bar."""
        self._bar.close()

    def _fetch(
        self,
        params: Mapping[str, str],
        cursor: str | None,
        limit: int,
        times: _RecentTimes,
        below: AbstractSet[str],
    ) -> ListedPage:
        """Return a page: with the filter by time, but without it if the filter may hide rows."""
        time_filter = self._time_filter if cursor is not None and self._may_filter else {}
        try:
            found = self._ask({**params, **time_filter}, cursor, limit, times)
        except errors.BadRequestError:
            if not time_filter:
                raise
            # A service may accept a cursor only with the filters of the request that returned it.
            self._may_filter = False
            return self._ask(params, cursor, limit, times)
        if found.has_more:
            # In a page that is not full, the filter may have removed rows; this would hide a gap.
            self._may_filter = found.count == limit and self._may_filter is not False
            if time_filter and not self._may_filter:
                return self._ask(params, cursor, limit, times)
        elif time_filter and self._is_doubtful(found, below):
            # Either the filter ended the list, or the list itself ended too early: the page without the filter
            # shows which.
            return self._ask(params, cursor, limit, times)
        elif time_filter and found.listing is not None and not self._ignores_time_filter(found):
            # The list may continue with older rows: the page shows how far it reaches, and no end of the list.
            # A walk that needs older rows requests this page again, without the filter.
            return replace(found, listing=replace(found.listing, cursor=cursor, reaches=self.oldest))
        return found

    def _ask(self, params: Mapping[str, str], cursor: str | None, limit: int, times: _RecentTimes) -> ListedPage:
        self.counts.requests += 1
        asked_at = datetime.now(UTC)
        query = list_query({**self.remote.params, **params}, cursor, limit, cursor_param=self.remote.cursor_param)
        page, table = self.client.get(self.remote.path, query, self._decode)
        ids = tuple(row_ids(table))
        following = page.cursor if page.has_more else None
        listing = None
        if following or not page.has_more:
            is_stored = bool(ids) and self.store.contains(ids[-1], table.slice(len(ids) - 1))
            listing = Listing(cursor, ids, following, times.reached(table), is_stored)
        return ListedPage(table, ids, listing, asked_at, page.has_more, page.cursor)

    def _decode(self, body: bytes) -> tuple[Page, pa.Table]:
        page = self.decoder.read_page(body)
        return page, self.remote.table.schema.resolve(self.decoder.to_table(page))

    def _is_doubtful(self, page: ListedPage, below: AbstractSet[str]) -> bool:
        """Return whether the list may continue after a page that was filtered by time and ends it."""
        if not page.count and page.listing is not None and not page.listing.reaches_back_to(self.oldest):
            return True
        return bool(below) and below.isdisjoint(page.ids)

    def _ignores_time_filter(self, page: ListedPage) -> bool:
        """Return whether the service ignores the filter by time: the page has older rows."""
        oldest = cast("datetime | None", pc.min(page.table["created_at"]).as_py())
        return oldest is not None and self.oldest is not None and oldest < earlier(self.oldest, CLOCK_SKEW)


class _RecentTimes:
    """The creation times of the last rows of a walk, which show how far back it has read."""

    def __init__(self) -> None:
        self._times: Any = pa.chunked_array([], _TIME)

    def add(self, table: pa.Table) -> None:
        """Add a page."""
        self._times = self._followed_by(table)[-_MIN_OLDER_RECORDS:]

    def reached(self, table: pa.Table) -> datetime | None:
        """Return a time such that all rows after a page were created before it; ``None``: unknown."""
        times = self._followed_by(table)[-max(_MIN_OLDER_RECORDS, table.num_rows) :]
        if len(times) < _MIN_OLDER_RECORDS or times.null_count:
            return None
        newest = cast("datetime", pc.max(times).as_py())
        return None if newest == _LAST_INSTANT else newest + MICROSECOND

    def _followed_by(self, table: pa.Table) -> Any:  # noqa: ANN401 - an Arrow array
        """Return the last times, followed by those of a page."""
        return pa.chunked_array([*self._times.chunks, *table["created_at"].chunks], _TIME)


class SingleReads:
    """Read records one by one, and collect for one warning those that cannot be read."""

    def __init__(self) -> None:
        self.unread: list[str] = []
        #: Those of `unread` that the service refused, or that no request can name: they are not requested again
        #: before `max_age` has passed.
        self.refused: list[str] = []
        self._reason = ""

    def each(self, ids: Iterable[str], read: Callable[[str], T]) -> Iterator[tuple[str, T | None]]:
        """Yield each id with what `read` returns for it; ``None`` if the service has no such record.

        After `MAX_FAILURES` consecutive errors of the service, no more are read.
        """
        usable = []
        for id_ in ids:
            if is_usable_id(id_):
                usable.append(id_)
            else:
                self._skip([id_], "no request can name this id")
                self.refused.append(id_)
        failures = 0
        for number, id_ in enumerate(usable, start=1):
            found = None
            try:
                with suppress(errors.NotFoundError):
                    found = read(id_)
            except _ACCOUNT_ERRORS:
                raise
            except _RECORD_ERRORS as error:
                self._skip([id_], str(error))
                failures = failures + 1 if _is_failure(error) else 0
                if failures == MAX_FAILURES:
                    self._skip(usable[number:], str(error))
                    return
                if not failures:
                    self.refused.append(id_)
            else:
                failures = 0
                yield id_, found

    def warn(self, noun: str, consequence: str) -> None:
        """Warn about the records that could not be read, if there are any."""
        if self.unread:
            errors.warn(
                f"{counted(len(self.unread), noun)} {consequence} (the first: {self.unread[0]!r}, {self._reason})",
                errors.DataQualityWarning,
            )

    def _skip(self, ids: Sequence[str], reason: str) -> None:
        self.unread += ids
        self._reason = self._reason or reason


@dataclass
class Refresh:
    """Read from the service until a store can answer for ``since <= time < until``."""

    reader: ListReader
    freshness: Freshness
    since: datetime | None
    until: datetime | None
    #: Stored rows that were created since then still must be listed again; ``None``: none.
    reread_since: datetime | None
    #: The rows that still must be read by id if no page has them.
    stale: set[str]
    #: The open rows that the service no longer has.
    gone: list[str] = field(default_factory=list)
    #: Whether the list contradicts the store; the store is then not complete.
    is_contradicted: bool = False
    _refused: set[str] = field(default_factory=set)
    _singles: SingleReads = field(default_factory=SingleReads)

    def __post_init__(self) -> None:
        self.store = self.reader.store

    def run(self) -> None:
        """Walk from the first page until a complete segment is reached, and below that segment if needed.

        Each page is stored at once, so that after an interruption the next call continues from there. It is stored
        completely, including its rows of the segment that was reached.
        """
        with self.store.writer_lock(), gc_paused:
            if self.freshness.everything:
                self.store.forget_coverage()
            self.stale |= self.store.open_before(self.freshness.not_before, since=self.since, until=self.until)
            self._read()
        self._warn()

    def _read(self) -> None:
        for _ in range(_ATTEMPTS):
            while not self._is_done():
                self._walk_on()
            self._read_stale()
            # If the commit finds a damaged data file, nothing counts as complete any more.
            self.store.commit(compact=True)
            if self._is_done():
                return
        raise errors.CacheError(
            f"the data files in {self.store.folder.location} are damaged after each repair; use another cache_dir"
        )

    def _warn(self) -> None:
        name = self.store.table.name
        if self.is_contradicted:
            errors.warn(
                f"the service ended the list of {name} above older {name} that are stored, so this end is "
                "ignored. Call with refresh=True to read the rest, or with refresh='all' if the service has "
                f"forgotten the older {name}",
                errors.DataQualityWarning,
            )
        self._singles.warn(
            f"open {self.store.table.schema.singular}", "could not be read again, and what was read last is kept"
        )

    def _is_done(self) -> bool:
        coverage, is_recent = self.store.coverage, self.freshness.is_recent
        is_covered = coverage.covers(self.since, is_recent=is_recent) and is_recent(coverage.read_at)
        return self.is_contradicted or (is_covered and self.reread_since is None)

    def _walk_on(self) -> None:
        """Walk until enough is read, a segment that can be skipped is reached, or a cursor is refused.

        To save requests, it continues into that segment while each page has stale rows and others remain.
        """
        coverage = self.store.coverage
        goes_below = self.freshness.is_recent(coverage.read_at) and self.reread_since is None
        start = cursor = coverage.cursor if goes_below else None
        below = coverage.lowest_ids(after=start)

        def follow(page: ListedPage) -> ListedPage:
            """Add a page to the coverage that the store will have, and return the page as it is stored."""
            nonlocal coverage, cursor
            listing = page.listing
            if listing is None:
                return page
            self.is_contradicted = coverage.contradicts(listing)
            if listing.cursor is None or listing.reaches_back_to(self.reread_since):
                # The list has been reread back to that time, or to its end.
                self.reread_since = None
            listing = replace(listing, reread_since=self.reread_since)
            if self.is_contradicted and listing.ids:
                # The list is assumed to continue below this page.
                listing = replace(listing, cursor=listing.ids[-1])
            cursor = listing.cursor
            coverage = coverage.add(listing, read_at=page.asked_at)
            found = self.stale.intersection(listing.ids)
            self.stale -= found
            is_needed = coverage.cursor == cursor and not coverage.covers(self.since)
            goes_on = is_needed or self.reread_since is not None or (bool(found) and bool(self.stale))
            return replace(page, listing=listing, has_more=page.has_more and goes_on)

        try:
            for page in self.reader.pages_from({}, start=start, below=below, follow=follow):
                self.freshness.own_times.add(page.asked_at)
                self.store.add(JournalEntry(page.table, page.asked_at, page.listing))
        except (errors.BadRequestError, errors.NotFoundError) as error:
            may_go_back = cursor not in self._refused and len(self._refused) < _REFUSALS
            if cursor is None or error.param == "limit" or not may_go_back:
                raise
            _logger.info(
                "%s: the service no longer knows where an earlier pull ended (%s); reading a part again",
                self.store.table.name,
                error,
            )
            self._refused.add(cursor)
            # A page that joined a lower segment has moved the coverage's cursor on: the next walk starts there.
            if self.store.coverage.cursor == cursor:
                self.store.drop_last_cursor()

    def _read_stale(self) -> None:
        """Read the open rows that no page had."""
        if not self.stale:
            return
        no_rows = self.store.table.schema.arrow.empty_table()
        for id_, found in self._singles.each(self.stale, self.reader.read_one):
            if found is None:
                self.gone.append(id_)
                self.store.add(JournalEntry(no_rows, datetime.now(UTC), gone=(id_,)))
            else:
                asked_at, table = found
                self.store.add(JournalEntry(table, asked_at))
        if self._singles.refused:
            self.store.add(JournalEntry(no_rows, datetime.now(UTC), unreadable=tuple(self._singles.refused)))
        self.stale.clear()


def _is_failure(error: errors.APIError) -> bool:
    """Return whether the service itself may be failing, so that other requests would fail too."""
    return isinstance(error, errors.InternalServerError) or not isinstance(error, errors.APIStatusError)


def is_current(store: TableStore, freshness: Freshness, *, since: datetime | None, until: datetime | None) -> bool:
    """Return whether a store can answer for ``since <= time < until`` without the service."""
    return (
        not freshness.everything
        and freshness.is_recent(store.coverage.read_at)
        and store.coverage.reread_since is None
        and store.coverage.covers(since, is_recent=freshness.is_recent)
        and not store.open_before(freshness.not_before, since=since, until=until)
    )
