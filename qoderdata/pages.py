"""How is a list walked along its cursors: page size, prefetch of the next page, progress bar, end?

`walk` is given a function that fetches one page; nothing here knows HTTP. A walk ends where the service says that
there is no more, or with an exception. It does not stop early, and a repeated cursor is an error.
"""

from __future__ import annotations

import re
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from qoderdata import errors
from qoderdata.background import prefetch
from qoderdata.formatting import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from datetime import datetime

#: The page size to ask for first; edition A grants it.
LARGEST_PAGE = 1000
#: The page size that every list of every edition grants.
SAFE_PAGE = 100

#: A pull that takes less than this, in seconds, shows no bar.
BAR_DELAY = 1.0

_SHOWN_CURSOR = 80
#: How many times one page is asked for again with a smaller size.
_MAX_RESIZES = 3
_ABOUT_LIMIT = re.compile(r"\blimit\b")
_GRANTED = re.compile(r"between\s+\d+\s+and\s+(\d{1,9})\b")

QueryParams = dict[str, "str | Sequence[str]"]


class Envelope(Protocol):
    """The fields of a page that a walk reads."""

    @property
    def has_more(self) -> bool:
        """Whether the list continues; only this field says so."""

    @property
    def cursor(self) -> str | None:
        """The cursor of the next page."""

    @property
    def count(self) -> int:
        """The number of records."""


E = TypeVar("E", bound=Envelope)


class PageSize:
    """The page size to ask for: large at first, and reduced to what the service grants."""

    def __init__(self, value: int | None = None) -> None:
        self.value = LARGEST_PAGE if value is None else value

    def reduce(self, refusal: errors.BadRequestError) -> bool:
        """Reduce the size after a refusal that is about ``limit``, and return whether to ask again.

        The new size is what the message grants ("between 1 and N"), else 100.

        Examples
        --------
        >>> refusal = errors.BadRequestError("limit must be between 1 and 200")
        >>> refusal.param = "limit"
        >>> size = PageSize()
        >>> size.reduce(refusal), size.value
        (True, 200)
        """
        message = str(refusal)
        is_about_limit = refusal.param == "limit" or (refusal.param is None and _ABOUT_LIMIT.search(message))
        if not is_about_limit:
            return False
        granted = _GRANTED.search(message)
        smaller = int(granted[1]) if granted else SAFE_PAGE
        if not 0 < smaller < self.value:
            smaller = SAFE_PAGE
        if smaller >= self.value:
            return False
        self.value = smaller
        return True


@dataclass
class ReadCounts:
    """Count requests (a retried one once), and the pages and records that the caller has handled."""

    requests: int = 0
    pages: int = 0
    records: int = 0

    def add(self, page: Envelope) -> None:
        """Count a page that the caller has handled."""
        self.pages += 1
        self.records += page.count


def has_small_pages(cursor_param: str) -> bool:
    """Return whether a list grants no more than `SAFE_PAGE` records a page, by its cursor parameter.

    These lists are sessions, events, agents and environments. Their page size says nothing of other lists.
    """
    return cursor_param == "page"


def list_query(
    params: Mapping[str, str | Sequence[str]], cursor: str | None, limit: int, *, cursor_param: str = "after_id"
) -> QueryParams:
    """Return the query of one page; the cursor is ``None`` for the first one.

    Examples
    --------
    >>> list_query({"order": "asc"}, "c1", 100, cursor_param="page")
    {'order': 'asc', 'limit': '100', 'page': 'c1'}
    """
    query: QueryParams = {**params, "limit": str(limit)}
    if cursor is not None:
        query[cursor_param] = cursor
    return query


def format_bound(time: datetime) -> str:
    """Return a time in UTC as the filters of a list take it.

    Examples
    --------
    >>> from datetime import datetime
    >>> format_bound(datetime.fromisoformat("0900-01-01T00:00+00:00"))
    '0900-01-01T00:00:00.000000Z'
    """
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def walk(
    path: str,
    fetch: Callable[[str | None, int], E],
    *,
    start: str | None = None,
    limit: PageSize,
    max_pages: int,
    mask: Callable[[str], str],
) -> Generator[E, None, None]:
    """Walk a list from page to page, one page ahead of the caller, as `prefetch` does it.

    Every page before a failure is yielded. Raise `PaginationError` if there is "more" without a cursor, a
    cursor repeats, or the list has more than `max_pages` pages, and what `fetch` raised; `pages` and `records` of
    an `APIError` say how far the walk got. `fetch` takes a cursor and a page size. `path` is that of the list, for
    messages; `mask` masks the access token in a cursor that a message quotes.
    """
    handled = ReadCounts()
    fetched = fetch_pages(path, fetch, start=start, limit=limit, max_pages=max_pages, mask=mask)
    with closing(prefetch(fetched, name="qoderdata-fetch")) as pages:
        try:
            for page in pages:
                yield page
                handled.add(page)
        except errors.APIError as error:
            error.pages, error.records = handled.pages, handled.records
            raise


def fetch_pages(
    path: str,
    fetch: Callable[[str | None, int], E],
    *,
    start: str | None = None,
    limit: PageSize,
    max_pages: int,
    mask: Callable[[str], str],
) -> Iterator[E]:
    """Fetch page after page along the cursors, without prefetch; parameters and exceptions are those of `walk`."""
    cursor = start
    seen = {cursor}
    for _ in range(max_pages):
        page = _fetch_granted(fetch, cursor, limit)
        yield page
        if not page.has_more:
            return
        cursor = page.cursor
        if not cursor:
            raise _broken_list_error(path, "said that there is more, but gave no cursor")
        if cursor in seen:
            raise _broken_list_error(path, f"sent the cursor {mask(cursor)[:_SHOWN_CURSOR]!r} again")
        seen.add(cursor)
    raise errors.PaginationError(
        f"GET {path}: the list goes on after {counted(max_pages, 'page')}, the most that may be read. Ask for "
        "less, such as a shorter time, or allow more: Client(max_pages=…)"
    )


def _fetch_granted(fetch: Callable[[str | None, int], E], cursor: str | None, size: PageSize) -> E:
    """Fetch a page, again with a smaller size if the service refuses the size."""
    for _ in range(_MAX_RESIZES):
        try:
            return fetch(cursor, size.value)
        except errors.BadRequestError as refusal:
            if not size.reduce(refusal):
                raise
    return fetch(cursor, size.value)


def _broken_list_error(path: str, reason: str) -> errors.PaginationError:
    return errors.PaginationError(
        f"GET {path}: the service {reason}: the rest of the list cannot be reached. Try again, else report it to "
        "the service."
    )


def progress_bar(unit: str, *, of: str = "", progress: bool | None) -> Any:  # noqa: ANN401 - tqdm is loaded when it is needed
    """Return a progress bar on standard error; ``None``: on a terminal or in a notebook, after `BAR_DELAY`.

    `of` is what is read of each unit, such as ``"events"``. A terminal shows nothing of the bar once it is closed;
    a notebook keeps its last line, as an empty output would remain otherwise.
    """
    from tqdm import tqdm  # noqa: PLC0415 - as above

    return tqdm(
        disable=not (_is_watched() if progress is None else progress),
        delay=BAR_DELAY if progress is None else 0,
        unit=f" {unit}",
        unit_scale=True,
        desc=f"Pulling {of} of {unit}" if of else f"Pulling {unit}",
        file=sys.stderr,
        leave=_is_notebook(),
    )


class ProgressBar:
    """A progress bar: rows, their rate, how far back the walk is, and what is left as far as that is known."""

    def __init__(self, name: str, since: datetime | None, *, progress: bool | None) -> None:
        self._since = since
        self._walked = 0.0
        self._bar = progress_bar(name, progress=progress)
        #: Whether it is drawn; the times that it shows are computed only then.
        self.is_shown = not self._bar.disable

    def advance(self, count: int, *, newest: datetime | None, oldest: datetime | None) -> None:
        """Count the records of a page, and how far back they reach."""
        if newest is not None and oldest is not None:
            self._walked += (newest - oldest).total_seconds()
            if self._since is not None and self._walked > 0:
                left = max((oldest - self._since).total_seconds(), 0.0)
                self._bar.total = round((self._bar.n + count) * (1 + left / self._walked))
            self._bar.set_postfix_str(f"back to {oldest:%Y-%m-%d %H:%M}", refresh=False)
        self._bar.update(count)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()


def _is_notebook() -> bool:
    return "ipykernel" in sys.modules


def _is_watched() -> bool:
    return _is_notebook() or (sys.stderr is not None and sys.stderr.isatty())
