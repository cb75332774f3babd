"""All pages of one list as tables: the next page is fetched while this one is decoded."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from qoderdata.decode import Decoder
from qoderdata.load._progress import bar
from qoderdata.pages import SAFE_PAGE, PageSize, walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from qoderdata.client import Client
    from qoderdata.decode import Page
    from qoderdata.schema import Schema


class Pull:
    """Fetch and decode the pages of a list.

    Parameters
    ----------
    client
        Sends the requests. It remembers the page size that the service grants for deployments and runs.
    schema
        The columns of the records.
    cursor_param
        The query parameter that takes the cursor: ``"after_id"``, or ``"page"`` for lists that know no other. The
        latter have at most 100 records a page.
    progress
        Whether to draw a progress bar on standard error; ``None``: on a terminal or in a notebook, once the pull
        takes more than a second.

    Attributes
    ----------
    decoder : Decoder
        Decodes the pages; its `finish` joins their tables.
    requests, pages, rows : int
        Requests (a retried one counts once), pages and records so far.
    """

    def __init__(
        self, client: Client, schema: Schema, *, cursor_param: str = "after_id", progress: bool | None = None
    ) -> None:
        self.client = client
        self.decoder = Decoder(schema)
        self.requests = 0
        self.pages = 0
        self.rows = 0
        self._unit = schema.name
        self._cursor_param = cursor_param
        self._progress = progress

    def tables(self, path: str, params: Mapping[str, str | Sequence[str]]) -> Iterator[pa.Table]:
        """Yield the table of each page, in the list's order.

        Parameters
        ----------
        path
            The list's path below the base URL.
        params
            Its filters, as the service takes them.

        Yields
        ------
        pyarrow.Table
            One row per record of the page.

        Raises
        ------
        APIError
            The list could not be read to its end; the pages before were yielded.
        """
        remembers = self._cursor_param == "after_id"
        size = PageSize(self.client.page_limit if remembers else SAFE_PAGE)

        def fetch(cursor: str | None, limit: int) -> Page:
            self.requests += 1
            query = {**params, "limit": str(limit)}
            if cursor is not None:
                query[self._cursor_param] = cursor
            return self.client.get(path, query, self.decoder.read_page)

        walked = walk(fetch, limit=size, max_pages=self.client.max_pages, mask=self.client.mask)
        with closing(walked) as pages, bar(self._unit, progress=self._progress) as shown:
            for page in pages:
                if remembers:
                    self.client.page_limit = size.value
                table = self.decoder.to_table(page)
                self.pages += 1
                self.rows += page.count
                shown.update(page.count)
                yield table
