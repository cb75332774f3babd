"""Bring the store of runs up to date: ask the service for what is new, what is missing, and what is still open."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from qoderdata.errors import BadRequestError, NotFoundError
from qoderdata.schema import RUNS
from qoderdata.store import Reading

if TYPE_CHECKING:
    from qoderdata.load._runs_query import Query
    from qoderdata.load._runs_walk import Answer, RunWalk
    from qoderdata.store import RunStore

_logger = logging.getLogger("qoderdata")

#: How many cursors the service may refuse before the pull gives up; each time a little more is read again.
_REFUSALS = 100


def is_current(store: RunStore, query: Query, *, not_before: datetime) -> bool:
    """Tell whether the store can answer.

    Parameters
    ----------
    store
        What is kept.
    query
        What is asked for.
    not_before
        What was read before this time is too old.

    Returns
    -------
    bool
        Whether it reaches back as far as is asked for, and the head of the list and every open run in question
        was read recently enough.
    """
    return _reaches(store, query, not_before) and not store.open_before(
        not_before, since=query.since, until=query.until
    )


def bring_up_to_date(store: RunStore, walk: RunWalk, *, not_before: datetime) -> None:
    """Ask the service until the store can answer.

    Walks from the newest run until it meets a stretch of the list that is complete, jumps over it, and goes on
    behind it where the query reaches further back. Each answer is kept at once: when this is cut off, the next
    call goes on from there.

    Parameters
    ----------
    store
        Where the answers are kept.
    walk
        Asks the service; its query says how far back to go, and which open runs matter.
    not_before
        What was read before this time is read again.

    Raises
    ------
    APIError
        The service could not be asked to the end.
    """
    query = walk.query
    with store.pulling():
        stale = store.open_before(not_before, since=query.since, until=query.until)
        refused: set[str] = set()
        while True:
            while not _reaches(store, query, not_before):
                start = store.coverage.cursor if _has_recent_head(store, not_before) else None
                _walk_on(store, walk, start, stale, refused)
            while stale:
                _read_again(store, walk, stale.pop())
            store.fold(compact=True)
            # A fold that finds a data file damaged takes every claim back.
            if _reaches(store, query, not_before):
                return


def _walk_on(store: RunStore, walk: RunWalk, start: str | None, stale: set[str], refused: set[str]) -> None:
    """Walk until there is enough, or a stretch is met that can be jumped over, or a cursor is refused.

    Open runs mostly lie together, near the head of the list: the walk goes on into the stretch that it met while
    each page has at least one of them: that saves more requests than it costs.
    """
    plan = store.coverage
    cursor = start

    def goes_on(answer: Answer) -> bool:
        """Follow, in the fetching thread, what the store will know once it has this page."""
        nonlocal plan
        if answer.listing is None:
            return True
        plan = plan.add(answer.listing, read_at=answer.asked_at)
        found = stale.intersection(answer.listing.ids)
        stale.difference_update(found)
        needed = plan.cursor == answer.listing.cursor and not plan.covers(walk.query.since)
        return needed or (bool(found) and bool(stale))

    try:
        for answer in walk.answers({}, start=start, goes_on=goes_on):
            store.add(Reading(answer.asked_at, answer.listing), answer.table)
            if answer.listing is not None:
                cursor = answer.listing.cursor
    except (BadRequestError, NotFoundError) as error:
        if cursor is None or error.param == "limit" or cursor in refused or len(refused) >= _REFUSALS:
            raise
        _logger.info(
            "runs: the service no longer knows where an earlier pull ended (%s); reading a part again", error
        )
        refused.add(cursor)
        if store.coverage.cursor == cursor:
            store.retreat()


def _read_again(store: RunStore, walk: RunWalk, run: str) -> None:
    """Read a run that was open once more; one that the service no longer knows stays as it is."""
    try:
        asked_at, table = walk.one(run)
    except NotFoundError:
        store.add(Reading(datetime.now(UTC), gone=(run,)), RUNS.arrow.empty_table())
    else:
        store.add(Reading(asked_at), table)


def _reaches(store: RunStore, query: Query, not_before: datetime) -> bool:
    return _has_recent_head(store, not_before) and store.coverage.covers(query.since)


def _has_recent_head(store: RunStore, not_before: datetime) -> bool:
    read_at = store.coverage.read_at
    return read_at is not None and not_before <= read_at <= datetime.now(UTC)
