"""One walk over a list: the next page is fetched while the last ones are decoded, and people see it move.

Joins the client, the cursor walk and the decoder; what becomes of the tables is the caller's business. A page is
decoded in the thread that fetched it, where it is still in the processor's cache. What its end says of the next
page is taken at its word; where the page turns out not to be whole, it is asked for again.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, wait
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qoderdata.errors import APIError
from qoderdata.frame import Decoder, NotJSONError
from qoderdata.load._progress import bar
from qoderdata.paging import PageSize, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pyarrow as pa

    from qoderdata.client import Client
    from qoderdata.frame import Page
    from qoderdata.schema import Schema

#: Pages that are decoded at once, while one more is fetched: pyarrow parses outside the interpreter's lock.
_DECODED_AT_ONCE = 2
#: Seconds to let pages be decoded that nobody wants any more; one that is asked for again may take for ever.
_LONGEST_DECODING = 1.0


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

    def tables(self, path: str, params: Mapping[str, str]) -> Iterator[pa.Table]:
        """Walk a list and give the table of each page, in order.

        Parameters
        ----------
        path
            The list's path below the base URL.
        params
            Its filters, as the service takes them.

        Yields
        ------
        pyarrow.Table
            The page's records, one row each.

        Raises
        ------
        APIError
            The walk ended before the list did; the pages before were given.
        """
        over = threading.Event()

        def fetch(cursor: str | None, limit: int) -> _Fetched:
            self.requests += 1
            query = {**params, "limit": str(limit)}
            if cursor is not None:
                query["after_id"] = cursor
            page = self.client.get(path, query, self.decoder.scan)
            return _Fetched(page, lambda: self._table(page, path, query))

        def decode(page: _Fetched) -> None:
            if over.is_set():
                page.table.cancel()
            else:
                page.decode()

        size = PageSize(self.client.page_limit)
        decoding: deque[_Fetched] = deque()
        pages = walk(fetch, then=decode, limit=size)
        with closing(pages), bar(self._unit, progress=self._progress) as shown:
            try:
                for page in pages:
                    self.client.page_limit = size.value
                    decoding.append(page)
                    if len(decoding) == _DECODED_AT_ONCE:
                        yield self._counted(decoding.popleft(), shown)
                while decoding:
                    yield self._counted(decoding.popleft(), shown)
            finally:
                over.set()
                wait([page.table for page in decoding], timeout=_LONGEST_DECODING)

    def _table(self, page: Page, path: str, query: Mapping[str, str]) -> pa.Table:
        try:
            return self.decoder.decode(page)
        except NotJSONError:
            return self.client.get(path, query, lambda body: self.decoder.decode(replace(page, body=body)))

    def _counted(self, page: _Fetched, shown: Any) -> pa.Table:  # noqa: ANN401 - the bar
        try:
            table = page.table.result()
        except APIError as error:
            error.pages, error.records = self.pages, self.rows
            raise
        self.pages += 1
        self.rows += table.num_rows
        shown.update(table.num_rows)
        return table


class _Fetched:
    """What the walk has to know of a page, and the table that is being made of it."""

    def __init__(self, page: Page, decode: Callable[[], pa.Table]) -> None:
        self.has_more = page.has_more
        self.last_id = page.last_id
        self.next_page = page.next_page
        self.table: Future[pa.Table] = Future()
        self._decode = decode

    @property
    def count(self) -> int:
        """How many records it has, once that is known."""
        return self.table.result().num_rows

    def decode(self) -> None:
        """Make the table, and let go of the page."""
        try:
            self.table.set_result(self._decode())
        except BaseException as error:  # noqa: BLE001 - raised where the table is waited for
            self.table.set_exception(error)
        del self._decode
