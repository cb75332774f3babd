"""One walk over a list of runs, which ends where its caller has enough; and people see how far it got.

Unlike the walk over deployments, each page is decoded before the next one is asked for: what is in a page
decides whether the next one is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pyarrow.compute as pc

from qoderdata.errors import APIResponseValidationError
from qoderdata.frame import Decoder, Page, from_records
from qoderdata.load._progress import bar
from qoderdata.paging import PageSize, walk
from qoderdata.schema import RUNS
from qoderdata.store import Listing, ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from qoderdata.client import Client
    from qoderdata.load._runs_query import Query

_PATH = "/deployment_runs"
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Answer:
    """A page of the list, decoded; it is also the envelope that the walk sees.

    Parameters
    ----------
    page
        The page, as the service sent it.
    table
        Its runs.
    listing
        What it says about the list; ``None`` where the service gives no cursor although there is more.
    asked_at
        When it was asked for.
    has_more
        Whether the walk goes on.
    """

    page: Page
    table: pa.Table
    listing: Listing | None
    asked_at: datetime
    has_more: bool

    @property
    def last_id(self) -> str | None:
        """The cursor, where there is no `next_page`."""
        return self.page.last_id

    @property
    def next_page(self) -> str | None:
        """The cursor of the next page."""
        return self.page.next_page

    @property
    def count(self) -> int:
        """How many runs it has."""
        return self.table.num_rows


class RunWalk:
    """Asks for runs, by the page or one at a time, and counts.

    Parameters
    ----------
    client
        Sends the requests; it remembers the page size that the service grants.
    query
        What is asked for.
    progress
        Whether to draw a progress bar on standard error; ``None``: on a terminal or in a notebook, once the
        walk takes more than a second.

    Attributes
    ----------
    requests, pages, rows : int
        Requests (a retried one counts once), pages and runs so far.
    """

    def __init__(self, client: Client, query: Query, *, progress: bool | None) -> None:
        self.client = client
        self.query = query
        self.requests = 0
        self.pages = 0
        self.rows = 0
        self._decoder = Decoder(RUNS)
        self._may_narrow: bool | None = None
        self._size = PageSize(client.page_limit)
        self._bar = _Bar(query.since, progress=progress)

    def answers(
        self, params: Mapping[str, str], *, start: str | None = None, goes_on: Callable[[Answer], bool]
    ) -> Iterator[Answer]:
        """Walk the list, one page ahead of the caller.

        Parameters
        ----------
        params
            Filters, as the service takes them.
        start
            The cursor to begin after; ``None`` begins with the newest run.
        goes_on
            Told each page, in the fetching thread, before the next one is asked for; says whether that is wanted.

        Yields
        ------
        Answer
            The pages, in the list's order.

        Raises
        ------
        APIError
            The walk ended before the list did; the pages before were given.
        """

        def fetch(cursor: str | None, limit: int) -> Answer:
            narrow = self.query.narrow if cursor is not None and self._may_narrow else {}
            answer = self._ask({**params, **narrow}, cursor, limit)
            if answer.has_more:
                # A page that is not full may have lost runs to the filter, and then it would hide a gap.
                self._may_narrow = answer.count == limit and self._may_narrow is not False
                if narrow and not self._may_narrow:
                    answer = self._ask(params, cursor, limit)
            elif narrow and answer.listing is not None and not self._is_ignored(answer):
                # Perhaps the list goes on, with older runs: the page tells how far it reaches, not where it ends.
                answer = replace(answer, listing=replace(answer.listing, cursor=cursor, reaches=self.query.since))
            return replace(answer, has_more=goes_on(answer) and answer.has_more)

        for answer in walk(fetch, start=start, limit=self._size):
            self.client.page_limit = self._size.value
            self.pages += 1
            self.rows += answer.count
            self._bar.move(answer)
            yield answer

    def _ask(self, params: Mapping[str, str], cursor: str | None, limit: int) -> Answer:
        self.requests += 1
        asked_at = datetime.now(UTC)
        asked = {**params, "limit": str(limit)}
        if cursor is not None:
            asked["after_id"] = cursor
        page, table = self.client.get(_PATH, asked, self._read)
        return Answer(page, table, _listing(page, table, cursor), asked_at, page.has_more)

    def _read(self, body: bytes) -> tuple[Page, pa.Table]:
        page = self._decoder.scan(body)
        return page, self._decoder.decode(page)

    def _is_ignored(self, answer: Answer) -> bool:
        oldest = _earliest(answer.table)
        return oldest is not None and self.query.narrowed_to is not None and oldest < self.query.narrowed_to

    def one(self, run: str) -> tuple[datetime, pa.Table]:
        """Ask for one run: when, and what came.

        Raises
        ------
        NotFoundError
            The service does not know it.
        APIError
            The service could not be asked.
        """
        self.requests += 1
        asked_at = datetime.now(UTC)
        table = from_records([self.client.get_run(run)], RUNS)
        if table["id"].to_pylist() != [run]:
            raise APIResponseValidationError(
                f"the service was asked for the run {run!r} and answered with another one; try again later"
            )
        return asked_at, table

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()

    def finish(self, tables: Sequence[pa.Table]) -> pa.Table:
        """Join tables, and warn of what was odd in all pages.

        Parameters
        ----------
        tables
            Those of the pages, in their order; none where they went elsewhere.

        Returns
        -------
        pyarrow.Table
            One row a run.

        Warns
        -----
        DataQualityWarning
            Values that did not fit their column are in ``extra``; or a run came twice.
        """
        return self._decoder.finish(tables)


class _Bar:
    """A progress bar: runs, their rate, how far back the walk is, and what is left as far as that can be told."""

    def __init__(self, since: datetime | None, *, progress: bool | None) -> None:
        self._since = since
        self._walked = 0.0
        self._bar = bar("runs", progress=progress)

    def move(self, answer: Answer) -> None:
        """Count a page in."""
        if self._bar.disable:
            return
        newest, oldest = _latest(answer.table), _earliest(answer.table)
        if newest is not None and oldest is not None:
            self._walked += (newest - oldest).total_seconds()
            if self._since is not None and self._walked > 0:
                left = max((oldest - self._since).total_seconds(), 0.0)
                self._bar.total = round((self._bar.n + answer.count) * (1 + left / self._walked))
            self._bar.set_postfix_str(f"back to {oldest:%Y-%m-%d %H:%M}", refresh=False)
        self._bar.update(answer.count)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()


def _listing(page: Page, table: pa.Table, after: str | None) -> Listing | None:
    """Read what a page says about the list."""
    cursor = (page.next_page or page.last_id) if page.has_more else None
    if page.has_more and not cursor:
        return None
    newest = _latest(table)
    reaches = newest + _INSTANT if newest is not None and table["created_at"].null_count == 0 else None
    return Listing(after, tuple(ids(table)), cursor, reaches)


def _latest(table: pa.Table) -> datetime | None:
    return cast("datetime | None", pc.max(table["created_at"]).as_py())


def _earliest(table: pa.Table) -> datetime | None:
    return cast("datetime | None", pc.min(table["created_at"]).as_py())
