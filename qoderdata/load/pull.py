"""How are all pages of a list pulled, and how do people see it move?"""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

from qoderdata.decode import Decoder
from qoderdata.pages import SAFE_PAGE, Progress, walk_list

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from qoderdata.client import Client
    from qoderdata.schema import Schema

#: Pulls shorter than this show no bar.
AFTER_SECONDS = 1.0


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
    done : Progress
        Requests, pages and records so far.
    """

    def __init__(
        self, client: Client, schema: Schema, *, cursor_param: str = "after_id", progress: bool | None = None
    ) -> None:
        self.client = client
        self.decoder = Decoder(schema)
        self.done = Progress()
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
        walked = walk_list(
            self.client,
            path,
            params,
            self.decoder.read_page,
            cursor_param=self._cursor_param,
            most=SAFE_PAGE if self._cursor_param == "page" else None,
            progress=self.done,
        )
        with closing(walked) as pages, bar(self._unit, progress=self._progress) as shown:
            for page in pages:
                table = self.decoder.to_table(page)
                shown.update(page.count)
                yield table


def bar(unit: str, *, progress: bool | None) -> Any:  # noqa: ANN401 - tqdm is loaded when it is needed
    """Return a progress bar.

    Parameters
    ----------
    unit
        What is counted, such as ``"runs"``.
    progress
        Whether there is one; ``None``: on a terminal or in a notebook, after `AFTER_SECONDS`.

    Returns
    -------
    tqdm.tqdm
        A bar on standard error. When it is closed, it is gone from a terminal; in a notebook its last line stays,
        since a notebook would leave an empty strip.
    """
    from tqdm import tqdm  # noqa: PLC0415 - as above

    return tqdm(
        disable=not (_is_watched() if progress is None else progress),
        delay=AFTER_SECONDS if progress is None else 0,
        unit=f" {unit}",
        unit_scale=True,
        desc=f"Pulling {unit}",
        file=sys.stderr,
        leave=_is_notebook(),
    )


def _is_notebook() -> bool:
    return "ipykernel" in sys.modules


def _is_watched() -> bool:
    if _is_notebook():
        return True
    return sys.stderr is not None and sys.stderr.isatty()
