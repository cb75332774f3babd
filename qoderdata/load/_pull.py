"""One walk over a list: the next page is fetched while the last ones are decoded, and people see it move.

Joins the client, the cursor walk and the decoder; what becomes of the tables is the caller's business.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

from qoderdata.frame import Decoder, Page
from qoderdata.load._progress import bar
from qoderdata.paging import PageSize, walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

    from qoderdata.client import Client
    from qoderdata.schema import Schema

#: pyarrow parses outside the interpreter's lock, so that two threads keep up with one that fetches.
_DECODERS = 2
#: Pages that may wait for a decoder; more would only hold memory.
_WAITING = 4


class Pull:
    """Walks a list and decodes its pages.

    Parameters
    ----------
    client
        Sends the requests; it remembers the page size that the service grants.
    schema
        What the records are.
    progress
        Whether to draw a progress bar on standard error; ``None``: where somebody watches, on a terminal or in
        a notebook, once the pull takes more than a second.

    Attributes
    ----------
    requests : int
        Requests so far; a retried one counts once.
    rows : int
        Records so far.
    pages : int
        Pages so far.
    """

    def __init__(self, client: Client, schema: Schema, *, progress: bool | None = None) -> None:
        self.client = client
        self.decoder = Decoder(schema)
        self.requests = 0
        self.rows = 0
        self.pages = 0
        self._unit = schema.name
        self._progress = progress

    def tables(
        self, path: str, params: Mapping[str, str], *, start: str | None = None
    ) -> Iterator[tuple[Page, pa.Table]]:
        """Walk a list and give each page with its table, in order.

        Parameters
        ----------
        path
            The list's path below the base URL.
        params
            Its filters, as the service takes them.
        start
            The cursor to begin after; ``None`` begins with the newest record.

        Yields
        ------
        tuple of Page and pyarrow.Table
            The page's envelope and its records, one row each.

        Raises
        ------
        APIError
            The walk ended before the list did; the pages before were given.
        """

        def fetch(cursor: str | None, limit: int) -> Page:
            self.requests += 1
            query = {**params, "limit": str(limit)}
            if cursor is not None:
                query["after_id"] = cursor
            return self.client.get(path, query, self.decoder.scan)

        size = PageSize(self.client.page_limit)
        waiting: deque[tuple[Page, Future[pa.Table]]] = deque()
        pages = walk(fetch, start=start, limit=size)
        with (
            closing(pages),
            bar(self._unit, progress=self._progress) as shown,
            ThreadPoolExecutor(_DECODERS, "qoderdata-decode") as pool,
        ):
            for page in pages:
                self.client.page_limit = size.value
                self.pages += 1
                self.rows += page.count
                shown.update(page.count)
                waiting.append((page, pool.submit(self.decoder.decode, page)))
                while len(waiting) > _WAITING:
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)


def _first(waiting: deque[tuple[Page, Future[pa.Table]]]) -> tuple[Page, pa.Table]:
    page, future = waiting.popleft()
    return page, future.result()
