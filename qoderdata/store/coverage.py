"""Which parts of a remote list are complete in the store?

The service lists records newest first, page by page, and new records come before the first page. The list has no
stable index, so a position in it is named by a cursor or by record ids, never by a time: times may be missing or
equal.

A *segment* is a part of the list that was read without a gap, from its newest record back to a cursor. Segments
are sorted newest first, with a gap between each two. A page that was requested without a cursor starts a new
segment at the top; a page that was requested with the top segment's cursor extends that segment. If such a page
reaches a lower segment, the two are joined, and reading continues below the lower one: a refresh skips what is
stored.

A list may be wrong, and records are lost if a part counts as complete that is not. So:

- A page joins a lower segment only if it has one of that segment's newest records *and* its last record is stored.
  An old record that is listed again among new ones joins nothing.
- An empty page is never stored as the end of the list: the next refresh requests it again. If records after that
  end are stored, the page is ignored. A last page is also ignored if it leaves a gap before stored records
  (`Coverage.contradicts`).
- How far back a segment reaches is a time: all records of the list that were created then or later are in this
  segment or above it. The pages show it, since the list is in that order; see `Listing.reaches`.
- A page that belongs to no segment changes nothing.
- If stored records are read again, each page says since when this must still be done, so that an interrupted walk
  does not count as a finished one.

A refresh does not notice a record that was inserted further down than it reads, or records that a cursor skipped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: How many of its newest records identify a segment; several, since a record may be deleted.
HEAD_IDS = 100
#: How many cursors a segment keeps, evenly spaced, to go back to when the service refuses the last one.
STEPS = 32

#: A time of reading that is too old for any call.
LONG_AGO = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Listing:
    """The position of one page in the list."""

    #: The cursor that it was requested with; ``None`` for the first page.
    after: str | None
    #: The ids of its records, in the list's order.
    ids: tuple[str, ...]
    #: The cursor of the next page; ``None`` at the end of the list.
    cursor: str | None
    #: A time such that all records after this page were created before it; ``None``: unknown.
    reaches: datetime | None = None
    #: Whether its last record was in the store before this page was read.
    last_is_stored: bool = False
    #: Stored records that were created since then must still be read again after this page; ``None``: none.
    reread_since: datetime | None = None

    @property
    def is_empty_end(self) -> bool:
        """Whether the page has no records and says that the list ends."""
        return self.cursor is None and not self.ids

    def reaches_back_to(self, time: datetime | None) -> bool:
        """Return whether all records after this page were created before a time; False if that is not known."""
        return time is not None and self.reaches is not None and self.reaches <= time


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the list that is complete."""

    #: When its newest page was requested, as the first page of the list.
    read_at: datetime
    #: The ids of its newest records.
    head_ids: tuple[str, ...]
    #: The cursor at its older end; ``None`` at the end of the list.
    cursor: str | None
    #: A time such that all records after this segment were created before it; ``None``: unknown.
    reaches: datetime | None = None
    #: Earlier cursors, newest first, each with the time that the segment reached there.
    steps: tuple[tuple[str, datetime | None], ...] = ()
    #: When an empty page was read at `cursor`: the list ended there, as of that time.
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Coverage:
    """All complete segments of the list, newest first.

    Examples
    --------
    >>> from datetime import UTC
    >>> monday, tuesday = datetime(2026, 6, 15, tzinfo=UTC), datetime(2026, 6, 16, tzinfo=UTC)
    >>> coverage = Coverage().add(Listing(None, ("f", "e"), "e"), read_at=monday)
    >>> coverage = coverage.add(Listing("e", ("d", "c"), "c"), read_at=monday)
    >>> coverage = coverage.add(Listing(None, ("h", "g"), "g"), read_at=tuesday)
    >>> [segment.cursor for segment in coverage.segments]
    ['g', 'c']

    A page that reaches the lower segment closes the gap; reading continues after ``c``:

    >>> coverage = coverage.add(Listing("g", ("f", "e"), "e"), read_at=tuesday)
    >>> [segment.cursor for segment in coverage.segments], coverage.cursor
    (['c'], 'c')
    """

    segments: tuple[Segment, ...] = ()
    #: Whether records may be stored that belong to no segment.
    has_unclaimed: bool = False
    #: Stored records that were created since then must be read again after an interrupted walk; ``None``: none.
    reread_since: datetime | None = None

    @property
    def read_at(self) -> datetime | None:
        """When the first page of the list was last read."""
        return self.segments[0].read_at if self.segments else None

    @property
    def cursor(self) -> str | None:
        """The cursor after which reading continues; ``None``: from the first page, or at the end of the list."""
        return self.segments[0].cursor if self.segments else None

    def covers(self, since: datetime | None, *, is_recent: Callable[[datetime], bool] = lambda _: True) -> bool:
        """Return whether all records from the first one back to a time are stored; ``None``: the whole list.

        `is_recent` says whether an end of the list that was read at a time is still valid.
        """
        if not self.segments:
            return False
        top = self.segments[0]
        if top.cursor is None or (top.ended_at is not None and is_recent(top.ended_at)):
            return True
        return since is not None and top.reaches is not None and top.reaches <= since

    def lowest_ids(self, *, after: str | None) -> frozenset[str]:
        """Return the newest ids of the lowest segment that a walk from the first page or a cursor will reach."""
        below = reversed(self._segments_below(after))
        return next((frozenset(segment.head_ids) for segment in below if segment.head_ids), frozenset())

    def add(self, page: Listing, *, read_at: datetime) -> Coverage:
        """Return the coverage with a page that was requested at a time; unchanged if the page contradicts it.

        A page that belongs to no segment adds no records, but still says what must be read again.
        """
        if self.contradicts(page):
            return self
        return replace(self._with_records(page, read_at), reread_since=page.reread_since)

    def contradicts(self, page: Listing) -> bool:
        """Return whether a page ends the list although records after that end are stored.

        It does not contradict if it has one of the newest records of the lowest segment, or of a segment that
        overlaps with that one: the service may have deleted older records.
        """
        if page.cursor is not None:
            return False
        if page.after not in {None, self.cursor}:
            return page.is_empty_end
        lowest_ids = self.lowest_ids(after=page.after)
        if page.is_empty_end:
            return self.has_unclaimed or bool(lowest_ids)
        below = self._segments_below(page.after)
        met = _lowest_met(page, below)
        return bool(lowest_ids) and (met is None or lowest_ids.isdisjoint(below[met].head_ids))

    def drop_last_cursor(self) -> Coverage:
        """Shorten the top segment to its previous cursor, after the service refused its last one."""
        top, *lower = self.segments
        steps = [step for step in top.steps if step[0] != top.cursor]
        if not steps:
            # The segment that is now at the top does not begin the list: newer records were seen.
            lower[:1] = [replace(segment, read_at=LONG_AGO) for segment in lower[:1]]
            return replace(self, segments=tuple(lower), has_unclaimed=True)
        cursor, reaches = steps.pop()
        shorter = replace(top, cursor=cursor, reaches=reaches, steps=tuple(steps), ended_at=None)
        return replace(self, segments=(shorter, *lower))

    def _segments_below(self, cursor: str | None) -> tuple[Segment, ...]:
        """Return the segments below a page that was requested with no cursor, or with that of the top segment."""
        return self.segments if cursor is None else self.segments[1:]

    def _with_records(self, page: Listing, read_at: datetime) -> Coverage:
        if page.after not in {None, self.cursor}:
            return self
        lower = self._segments_below(page.after)
        if page.after is None:
            top = Segment(read_at, page.ids[:HEAD_IDS], page.cursor, page.reaches)
        elif page.is_empty_end:
            return replace(self, segments=(replace(self.segments[0], ended_at=read_at), *lower))
        else:
            top = _extended(self.segments[0], page)
        if page.cursor is None:
            return Coverage((top,))
        return self._joined_with(page, top, lower)

    def _joined_with(self, page: Listing, top: Segment, lower: tuple[Segment, ...]) -> Coverage:
        """Join the top segment, whose last page is `page`, with the lower segment that the page reaches."""
        index = _lowest_met(page, lower)
        if index is None:
            return replace(self, segments=(top, *lower))
        met, lower_still = lower[index], lower[index + 1 :]
        is_joined = page.last_is_stored or page.ids[-1] in met.head_ids
        # If the cursor is not the id of a record, look for the oldest known id of that segment instead.
        if met.cursor in page.ids or (not is_joined and met.head_ids[-1] in page.ids):
            # The page continues below that segment, so reading continues after the page.
            return replace(self, segments=(top, *lower_still))
        if not is_joined:
            return replace(self, segments=(top, *lower))
        joined = _joined(top, met)
        return Coverage((joined, *lower_still), self.has_unclaimed and joined.cursor is not None)


def _lowest_met(page: Listing, lower: tuple[Segment, ...]) -> int | None:
    """Return the index of the segment that has the last record of the page that is in any segment.

    All segments above it are within the page.
    """
    owners = {id_: index for index in reversed(range(len(lower))) for id_ in lower[index].head_ids}
    return next((owners[id_] for id_ in reversed(page.ids) if id_ in owners), None)


def _extended(top: Segment, page: Listing) -> Segment:
    steps = () if top.cursor is None else ((top.cursor, top.reaches),)
    return _joined(top, Segment(top.read_at, page.ids[:HEAD_IDS], page.cursor, page.reaches, steps))


def _joined(top: Segment, lower: Segment) -> Segment:
    steps = (*top.steps, *lower.steps)
    return replace(
        top,
        head_ids=tuple(dict.fromkeys(top.head_ids + lower.head_ids))[:HEAD_IDS],
        cursor=lower.cursor,
        reaches=min((time for time in (top.reaches, lower.reaches) if time is not None), default=None),
        # If there are too many, keep every second one, and the last.
        steps=steps if len(steps) <= STEPS else steps[-1::-2][::-1],
        ended_at=lower.ended_at,
    )
