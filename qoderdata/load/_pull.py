"""One walk over a list: the next page is fetched while the last ones are decoded, and people see it move.

Joins the client, the cursor walk and the decoder; what becomes of the tables is the caller's business.
"""

from __future__ import annotations

import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

from qoderdata.frame import Decoder, Page
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
#: Pulls shorter than this show no bar.
_BAR_AFTER_SECONDS = 1.0


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
        with closing(pages), self._bar() as bar, ThreadPoolExecutor(_DECODERS, "qoderdata-decode") as pool:
            for page in pages:
                self.client.page_limit = size.value
                self.pages += 1
                self.rows += page.count
                bar.update(page.count)
                waiting.append((page, pool.submit(self.decoder.decode, page)))
                while len(waiting) > _WAITING:
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)

    def _bar(self) -> Any:  # noqa: ANN401 - tqdm is loaded when it is needed
        from tqdm import tqdm  # noqa: PLC0415 - likewise

        return tqdm(
            disable=not (_is_watched() if self._progress is None else self._progress),
            delay=_BAR_AFTER_SECONDS if self._progress is None else 0,
            unit=f" {self._unit}",
            unit_scale=True,
            desc=f"Pulling {self._unit}",
            file=sys.stderr,
            leave=False,
        )


def _first(waiting: deque[tuple[Page, Future[pa.Table]]]) -> tuple[Page, pa.Table]:
    page, future = waiting.popleft()
    return page, future.result()


def _is_watched() -> bool:
    if "ipykernel" in sys.modules:
        return True
    return sys.stderr is not None and sys.stderr.isatty()
