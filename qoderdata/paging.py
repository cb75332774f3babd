"""Many pages: the walk along a list's cursors, and how large a page the service grants.

The walk is handed a function that fetches one page; it knows nothing of HTTP, and is tested without it. It ends
where the service says that there is no more, or in an exception: never early, and never in a circle.
"""

from __future__ import annotations

import re
from collections import deque
from contextlib import closing
from typing import TYPE_CHECKING, Protocol, TypeVar

from qoderdata import errors
from qoderdata.background import one_ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

#: What is asked for first; the oldest edition of the service grants it.
LARGEST_PAGE = 1000
#: What every edition grants.
SAFE_PAGE = 100

_SHOWN = 80
#: Of so many of the newest pages, the records are not asked for before they have to be.
_COUNTED_LATE = 2
_ABOUT_LIMIT = re.compile(r"\blimit\b")
_GRANTED = re.compile(r"between\s+\d+\s+and\s+(\d{1,9})\b")


class Envelope(Protocol):
    """What the walk needs to know of a page."""

    @property
    def has_more(self) -> bool:
        """Whether the list goes on; nothing else says so."""
        ...

    @property
    def last_id(self) -> str | None:
        """The cursor, where the service gives no `next_page`."""
        ...

    @property
    def next_page(self) -> str | None:
        """The cursor of the next page."""
        ...

    @property
    def count(self) -> int:
        """How many records the page holds; asked for late, since they may still be on their way."""
        ...


E = TypeVar("E", bound=Envelope)


class PageSize:
    """How many records to ask for in one page; starts large and gives way to what the service grants.

    Parameters
    ----------
    value
        What is known already, such as `Client.page_limit`; ``None`` starts with the largest page of any edition.

    Attributes
    ----------
    value : int
        The page size to ask for. Keep it for the next walk.
    """

    def __init__(self, value: int | None = None) -> None:
        self.value = LARGEST_PAGE if value is None else value

    def __repr__(self) -> str:
        return f"PageSize({self.value})"

    def give_way(self, refusal: errors.BadRequestError) -> bool:
        """Become smaller after a refusal.

        Parameters
        ----------
        refusal
            What the service answered.

        Returns
        -------
        bool
            Whether it makes sense to ask again: the refusal is about ``limit``, and there is a smaller size to
            ask for, which is what the message grants ("between 1 and N"), else 100.

        Examples
        --------
        >>> refusal = errors.BadRequestError("limit must be between 1 and 200")
        >>> refusal.param = "limit"
        >>> size = PageSize()
        >>> size.give_way(refusal), size.value
        (True, 200)
        """
        message = str(refusal)
        about = refusal.param == "limit" or (refusal.param is None and _ABOUT_LIMIT.search(message))
        if not about:
            return False
        granted = _GRANTED.search(message)
        smaller = int(granted[1]) if granted else SAFE_PAGE
        if not 0 < smaller < self.value:
            smaller = SAFE_PAGE
        if smaller >= self.value:
            return False
        self.value = smaller
        return True


def walk(
    fetch: Callable[[str | None, int], E], *, start: str | None = None, limit: PageSize | None = None
) -> Generator[E, None, None]:
    """Walk a list from page to page, one page ahead of the caller.

    While the caller handles a page, the next one is being fetched in another thread; never two at once, since a
    page's cursor comes with the page before. Closing the iterator early, or leaving it by an exception or Ctrl-C,
    waits for nothing: a page that is under way is dropped when it comes.

    Parameters
    ----------
    fetch
        Called with a cursor (``None`` for the first page) and a page size; gives the page.
    start
        The cursor to start from.
    limit
        The page size to ask for; given way to the service's, and to be kept for the next walk.

    Yields
    ------
    Envelope
        The pages, in the list's order; every page before a failure, too.

    Raises
    ------
    PaginationError
        There is "more" without a cursor, or a cursor comes again.
    APIError
        What `fetch` raised; `pages` and `records` say how far the walk got.
    """
    size = PageSize() if limit is None else limit
    progress = _Progress()
    with closing(one_ahead(_chain(fetch, start, size), name="qoderdata-fetch")) as pages:
        try:
            for page in pages:
                yield page
                progress.add(page)
        except errors.APIError as error:
            progress.tell_in(error)
            raise


def _chain(fetch: Callable[[str | None, int], E], cursor: str | None, size: PageSize) -> Iterator[E]:
    """Follow the cursors."""
    seen = {cursor}
    while True:
        page = _fetch_granted(fetch, cursor, size)
        yield page
        if not page.has_more:
            return
        cursor = page.next_page or page.last_id
        if not cursor or cursor in seen:
            raise _lost(cursor)
        seen.add(cursor)


def _fetch_granted(fetch: Callable[[str | None, int], E], cursor: str | None, size: PageSize) -> E:
    while True:
        try:
            return fetch(cursor, size.value)
        except errors.BadRequestError as refusal:
            if not size.give_way(refusal):
                raise


class _Progress:
    """How far a walk got; the newest pages are counted late, since their records may still be on their way."""

    def __init__(self) -> None:
        self._pages = 0
        self._records = 0
        self._newest: deque[Envelope] = deque()

    def add(self, page: Envelope) -> None:
        """Count a page in."""
        self._pages += 1
        self._newest.append(page)
        if len(self._newest) > _COUNTED_LATE:
            self._records += self._newest.popleft().count

    def tell_in(self, error: errors.APIError) -> None:
        """Say in an error how far the walk got."""
        error.pages = self._pages
        error.records = self._records + sum(page.count for page in self._newest)


def _lost(cursor: str | None) -> errors.PaginationError:
    what = (
        f"sent the cursor {cursor[:_SHOWN]!r} again" if cursor else "said that there is more, but gave no cursor"
    )
    return errors.PaginationError(
        f"the service {what}: the rest of the list cannot be reached. Try again, else report it to the service"
    )
