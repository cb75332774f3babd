"""One walk over a list: the next page is fetched while the last ones are decoded, and people see it move.

Joins the client, the cursor walk and the decoder; what becomes of the tables is the caller's business. What the
end of a page says of the next one is taken at its word; where the page turns out not to be whole, it is asked for
again.
"""

from __future__ import annotations

from collections import deque
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qoderdata.background import Workers
from qoderdata.errors import APIError
from qoderdata.frame import Decoder, NotJSONError
from qoderdata.load._progress import bar
from qoderdata.paging import PageSize, walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Future

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
        workers = Workers(_DECODED_AT_ONCE, name="qoderdata-decode")

        def fetch(cursor: str | None, limit: int) -> _Fetched:
            self.requests += 1
            query = {**params, "limit": str(limit)}
            if cursor is not None:
                query["after_id"] = cursor
            page = self.client.get(path, query, self.decoder.scan)
            table = workers.submit(lambda: self._table(page, path, query))
            return _Fetched(page.has_more, page.last_id, page.next_page, table)

        size = PageSize(self.client.page_limit)
        decoding: deque[_Fetched] = deque()
        with closing(walk(fetch, limit=size)) as pages, bar(self._unit, progress=self._progress) as shown:
            try:
                for page in pages:
                    self.client.page_limit = size.value
                    decoding.append(page)
                    if len(decoding) == _DECODED_AT_ONCE:
                        yield self._counted(decoding.popleft(), shown)
                while decoding:
                    yield self._counted(decoding.popleft(), shown)
            finally:
                workers.close(timeout=_LONGEST_DECODING)

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


@dataclass(frozen=True, slots=True)
class _Fetched:
    """What the walk has to know of a page, and the table that is being made of it."""

    has_more: bool
    last_id: str | None
    next_page: str | None
    table: Future[pa.Table]

    @property
    def count(self) -> int:
        """How many records it has, once that is known."""
        return self.table.result().num_rows
