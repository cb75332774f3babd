"""The pages of one pull to one Arrow table.

`Decoder.scan` proves in the fetching thread that a page is whole, `Decoder.decode` makes a table of it in any
thread, `Decoder.finish` joins the tables and says once what was odd. Knows nothing of network and disk.
"""

from __future__ import annotations

import itertools
import threading
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qoderdata.errors import APIResponseValidationError, DataQualityWarning
from qoderdata.frame.exact import Misfit, flatten
from qoderdata.frame.jsontext import NotJSONError, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qoderdata.schema import Schema

#: How many ids a warning names.
_NAMED = 5


@dataclass(frozen=True, slots=True, repr=False)
class Page:
    """One scanned page: what its envelope says, and its bytes.

    Parameters
    ----------
    number
        Its place in the pull, from 0.
    body
        The answer's body.
    count
        How many records it has; it may be fewer than were asked for.
    has_more
        Whether more pages follow.
    first_id, last_id, next_page
        The cursors of the envelope, ``None`` where it has none.
    """

    number: int
    body: bytes
    count: int
    has_more: bool
    first_id: str | None
    last_id: str | None
    next_page: str | None


class Decoder:
    """Turns the pages of one pull into one table; `decode` may be called from several threads.

    Parameters
    ----------
    schema
        The columns.

    Examples
    --------
    >>> from qoderdata.schema import RUNS
    >>> decoder = Decoder(RUNS)
    >>> page = decoder.scan(b'{"data": [{"id": "drun_1", "duration_ms": 5}], "has_more": false}')
    >>> page.count, page.has_more
    (1, False)
    >>> decoder.finish([decoder.decode(page)]).select(["id", "duration_ms"]).to_pylist()
    [{'id': 'drun_1', 'duration_ms': 5}]
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._numbers = itertools.count()
        self._misfits: dict[int, list[Misfit]] = {}
        self._lock = threading.Lock()

    def scan(self, body: bytes) -> Page:
        """Prove that a body is a whole page, and read its envelope.

        Parameters
        ----------
        body
            The answer's body.

        Returns
        -------
        Page
            The page.

        Raises
        ------
        NotJSONError
            The body is cut short or not JSON.
        APIResponseValidationError
            It is JSON, but not the contract's envelope.
        """
        envelope = parse(body)
        if not isinstance(envelope, dict):
            raise _broken("is not an object")
        data = envelope.get("data")
        if not isinstance(data, list):
            raise _broken("has no list data")
        if not isinstance(envelope.get("has_more"), bool):
            raise _broken("has no has_more that is true or false")
        cursors = [envelope.get(name) for name in ("first_id", "last_id", "next_page")]
        if not all(cursor is None or isinstance(cursor, str) for cursor in cursors):
            raise _broken("has a cursor that is not a string")
        return Page(next(self._numbers), body, len(data), envelope["has_more"], *cursors)

    def decode(self, page: Page) -> pa.Table:
        """Make the table of one page.

        Parameters
        ----------
        page
            What `scan` gave.

        Returns
        -------
        pyarrow.Table
            One row a record, in the page's order; columns of ``schema.arrow``.

        Raises
        ------
        APIResponseValidationError
            A record is not an object, or has no id, or the page is not JSON in its depths.
        """
        try:
            records = parse(page.body)["data"]
        except NotJSONError as error:
            raise APIResponseValidationError(str(error)) from error
        columns = flatten(records, self.schema)
        with self._lock:
            self._misfits[page.number] = columns.misfits
        return columns.table

    def finish(self, tables: Sequence[pa.Table]) -> pa.Table:
        """Join the tables of all pages, in the order given, and warn of what was odd.

        Parameters
        ----------
        tables
            What `decode` gave, in the order of the pages.

        Returns
        -------
        pyarrow.Table
            One row an id. Where an id came twice, the later record is kept, in its place.

        Warns
        -----
        DataQualityWarning
            Once for all values that did not fit their columns, once for all ids that came twice.
        """
        misfits = itertools.chain.from_iterable(self._misfits[number] for number in sorted(self._misfits))
        return join(tables, misfits, self.schema)


def join(tables: Sequence[pa.Table], misfits: Iterable[Misfit], schema: Schema) -> pa.Table:
    """Join tables, keep the later of two records with one id, and warn of what was odd.

    Parameters
    ----------
    tables
        Tables of ``schema.arrow``.
    misfits
        The values in them that did not fit.
    schema
        The columns.

    Returns
    -------
    pyarrow.Table
        The rows of all tables, an id once.
    """
    table = pa.concat_tables(tables) if tables else schema.arrow.empty_table()
    _tell_misfits(list(misfits), schema)
    return _without_repeats(table, schema)


def _tell_misfits(misfits: list[Misfit], schema: Schema) -> None:
    if not misfits:
        return
    ids = list(dict.fromkeys(misfit.id for misfit in misfits))
    paths = Counter(misfit.path for misfit in misfits)
    warnings.warn(
        f"{len(misfits)} values of {len(ids)} {schema.name} do not fit their columns; the columns are missing "
        f"there and the values are in 'extra' ({_few([f'{path}: {count}' for path, count in paths.most_common()])}). "
        f"First ids: {_few(ids)}",
        DataQualityWarning,
        stacklevel=4,
    )


def _without_repeats(table: pa.Table, schema: Schema) -> pa.Table:
    ids = table["id"]
    if pc.count_distinct(ids).as_py() == len(ids):
        return table
    names = [str(name) for name in ids.to_pylist()]
    last = {name: place for place, name in enumerate(names)}
    repeated = [name for name, count in Counter(names).items() if count > 1]
    warnings.warn(
        f"{len(repeated)} {schema.name} came more than once; the later record of each is kept. "
        f"First ids: {_few(repeated)}",
        DataQualityWarning,
        stacklevel=4,
    )
    return table.take(np.sort(np.fromiter(last.values(), dtype=np.int64)))


def _few(names: list[str]) -> str:
    shown = ", ".join(ascii(name)[1:-1][:80] for name in names[:_NAMED])
    return shown + (", …" if len(names) > _NAMED else "")


def _broken(what: str) -> APIResponseValidationError:
    return APIResponseValidationError(
        f"the answer {what}, so that it is not a page of a list. Check that the base URL is the service's; "
        "nothing was loaded"
    )
