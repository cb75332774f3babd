"""Which stretches of the service's list of runs are complete: pure bookkeeping, without disk and network.

The service lists runs newest first, gives the list page by page, and new runs come only before its first page.
The list has no index that stays, so places in it are named by cursors and by ids, never by times: times may be
missing or equal.

A *stretch* is a part of the list that was read without a gap, from its newest run down to a cursor. Stretches
are kept newest first, with a gap between each two. A page that was asked for without a cursor begins a new
stretch, at the top; one that was asked for with the top stretch's cursor makes it longer. When such a page has a
run that is among the newest of a lower stretch, the two are one, and reading goes on below that one: that is how
a refresh jumps over what is there. A page that fits nowhere claims nothing.

How far back a stretch reaches is a time: all later runs in the list that were created then or later are in it.
A whole page with runs that were created before a time shows this, since the list is in that order.

Should the service not know a cursor any more and begin anew, instead of refusing it, nothing is lost: the pages
that follow are the list from its head, and reading them to the end is complete whatever came before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

#: How many of its newest runs a stretch is known by. One would do, if no run ever vanished.
MARKS = 100
#: How many cursors on its way a stretch keeps, evenly spread, to go back to when the service forgot the last one.
STEPS = 32

_LONG_AGO = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Listing:
    """What one page says about the list.

    Parameters
    ----------
    after
        The cursor that it was asked for with; ``None`` for the newest runs.
    ids
        Its runs, in the list's order.
    cursor
        Where the next page begins; ``None`` where the list ends.
    reaches
        A time such that nothing that was created then or later comes behind this page; ``None`` when unknown.
    """

    after: str | None
    ids: tuple[str, ...]
    cursor: str | None
    reaches: datetime | None = None


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the list that is complete.

    Parameters
    ----------
    read_at
        When its newest end was read, as the head of the list.
    marks
        The ids of its newest runs.
    cursor
        Its older end; ``None`` where that is the end of the list.
    reaches
        A time such that nothing that was created then or later is older than this stretch.
    steps
        Cursors on the way to `cursor`, newest first, each with what the stretch reached there.
    """

    read_at: datetime
    marks: tuple[str, ...]
    cursor: str | None
    reaches: datetime | None = None
    steps: tuple[tuple[str, datetime | None], ...] = ()

    def covers(self, since: datetime | None) -> bool:
        """Tell whether everything from its newest end back to a time is in it; ``None``: the whole list."""
        if self.cursor is None:
            return True
        return since is not None and self.reaches is not None and self.reaches <= since

    def _longer(self, page: Listing) -> Stretch:
        steps = self.steps if self.cursor is None else (*self.steps, (self.cursor, self.reaches))
        return replace(
            self,
            marks=_marks(self.marks, page.ids),
            cursor=page.cursor,
            reaches=_earlier(self.reaches, page.reaches),
            steps=_spread(steps),
        )

    def _joined(self, lower: Stretch) -> Stretch:
        return replace(
            self,
            marks=_marks(self.marks, lower.marks),
            cursor=lower.cursor,
            reaches=_earlier(self.reaches, lower.reaches),
            steps=_spread((*self.steps, *lower.steps)),
        )


@dataclass(frozen=True, slots=True)
class Coverage:
    """All stretches of the list that are complete, newest first.

    Examples
    --------
    >>> from datetime import UTC
    >>> monday, tuesday = datetime(2026, 6, 15, tzinfo=UTC), datetime(2026, 6, 16, tzinfo=UTC)
    >>> coverage = Coverage().add(Listing(None, ("f", "e"), "e"), read_at=monday)
    >>> coverage = coverage.add(Listing("e", ("d", "c"), "c"), read_at=monday)
    >>> coverage = coverage.add(Listing(None, ("h", "g"), "g"), read_at=tuesday)
    >>> [stretch.cursor for stretch in coverage.stretches]
    ['g', 'c']

    The page that meets the lower stretch closes the gap; reading goes on behind ``c``:

    >>> coverage = coverage.add(Listing("g", ("f", "e"), "e"), read_at=tuesday)
    >>> [stretch.cursor for stretch in coverage.stretches], coverage.cursor
    (['c'], 'c')
    """

    stretches: tuple[Stretch, ...] = ()

    @property
    def read_at(self) -> datetime | None:
        """When the head of the list was last read."""
        return self.stretches[0].read_at if self.stretches else None

    @property
    def cursor(self) -> str | None:
        """Where reading goes on, to get further back; ``None``: from the newest run, or there is no more."""
        return self.stretches[0].cursor if self.stretches else None

    def covers(self, since: datetime | None) -> bool:
        """Tell whether everything from the head of the list back to a time is complete."""
        return bool(self.stretches) and self.stretches[0].covers(since)

    def add(self, page: Listing, *, read_at: datetime) -> Coverage:
        """Count a page in.

        Parameters
        ----------
        page
            What the page says.
        read_at
            When it was asked for.

        Returns
        -------
        Coverage
            With the page; the same where the page fits nowhere.
        """
        if page.after is None:
            top, lower = Stretch(read_at, _marks(page.ids), page.cursor, page.reaches), self.stretches
        elif self.cursor == page.after:
            top, lower = self.stretches[0]._longer(page), self.stretches[1:]  # noqa: SLF001 - a part of this module
        else:
            return self
        if page.cursor is None:
            return Coverage((top,))
        ids = frozenset(page.ids)
        # The lowest one that the page meets: what lies between is within the page.
        for place in reversed(range(len(lower))):
            met = lower[place]
            if not ids.isdisjoint(met.marks):
                beyond = met.cursor in ids
                return Coverage((top if beyond else top._joined(met), *lower[place + 1 :]))  # noqa: SLF001
        return Coverage((top, *lower))

    def retreat(self) -> Coverage:
        """Claim less of the top stretch, after the service refused its cursor: back to the step before."""
        top, *lower = self.stretches
        steps = [step for step in top.steps if step[0] != top.cursor]
        if not steps:
            # What is now on top is not the head of the list: something newer was seen.
            return Coverage((*(replace(one, read_at=_LONG_AGO) for one in lower[:1]), *lower[1:]))
        cursor, reaches = steps.pop()
        return Coverage((replace(top, cursor=cursor, reaches=reaches, steps=tuple(steps)), *lower))


def _marks(*ids: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(mark for part in ids for mark in part[:MARKS]))[:MARKS]


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((moment for moment in (one, other) if moment is not None), default=None)


def _spread(steps: tuple[tuple[str, datetime | None], ...]) -> tuple[tuple[str, datetime | None], ...]:
    return steps if len(steps) <= STEPS else steps[-1::-2][::-1]
