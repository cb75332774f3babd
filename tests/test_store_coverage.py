"""The bookkeeping of complete segments, against a list that grows, forgets, and is read in pieces."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qoderdata.store.coverage import HEAD_IDS, STEPS, Coverage, Listing, Segment

NOW = datetime(2026, 6, 15, tzinfo=UTC)


def at(day: int | None) -> datetime | None:
    return None if day is None else NOW + timedelta(days=day)


@dataclass
class List:
    """The service's list, newest first, every run with the day when it was created, if that is known.

    A cursor is the id of a run after a mark. Every other page is short, where `is_short` says so.
    """

    page: int
    runs: list[tuple[str, int | None]] = field(default_factory=list)
    ever: list[str] = field(default_factory=list)
    today: int = 0
    requests: int = 0
    mark: str = ""
    is_short: bool = False

    def create(self, count: int, *, days: int, known: bool = True) -> None:
        for _ in range(count):
            run = f"run{len(self.ever)}"
            self.ever.append(run)
            self.runs.insert(0, (run, self.today if known else None))
        self.today += days

    def ask(self, after: str | None) -> Listing | None:
        """Return the page after a cursor; ``None`` where the cursor is refused."""
        self.requests += 1
        ids = [run for run, _ in self.runs]
        last = None if after is None else after.removeprefix(self.mark)
        if after is not None and (last not in ids or after != f"{self.mark}{last}"):
            return None
        start = 0 if last is None else ids.index(last) + 1
        size = 1 if self.is_short and self.requests % 2 else self.page
        shown = self.runs[start : start + size]
        days = [day for _, day in shown]
        known = [day for day in days if day is not None]
        reaches = NOW + timedelta(days=max(known), microseconds=1) if days and len(known) == len(days) else None
        cursor = f"{self.mark}{shown[-1][0]}" if start + size < len(self.runs) else None
        return Listing(after, tuple(run for run, _ in shown), cursor, reaches)


@dataclass
class Reader:
    """Reads the list as `load_runs` does, and checks what it claims to know."""

    list: List
    coverage: Coverage = field(default_factory=Coverage)
    stored: set[str] = field(default_factory=set)
    pulls: int = 0

    def pull(self, since: int | None, *, pages: int = 10_000) -> bool:
        """Read until there is enough, so many pages came, or the list contradicts itself; tell the first."""
        self.pulls += 1
        began = NOW + timedelta(seconds=self.pulls)
        while not (recent := self.coverage.read_at == began) or not self.coverage.covers(at(since)):
            if pages == 0:
                return False
            page = self.list.ask(self.coverage.cursor if recent else None)
            if page is not None and page.ids:
                page = replace(page, last_is_stored=page.ids[-1] in self.stored)
            if page is None:
                self.coverage = self.coverage.drop_last_cursor()
            elif self.coverage.contradicts(page):
                # All that is stored was forgotten, or the list breaks off: which of both, nobody knows.
                assert page.cursor is None
                assert self.stored - {run for run, _ in self.list.runs}
                assert not self.lowest_known & set(page.ids)
                self.stored.update(page.ids)
                if page.ids:
                    self.coverage = self.coverage.add(replace(page, cursor=page.ids[-1]), read_at=began)
                self.check()
                return False
            else:
                pages -= 1
                self.stored.update(page.ids)
                self.coverage = self.coverage.add(page, read_at=began)
            self.check()
        return True

    @property
    def lowest_known(self) -> set[str]:
        """The ids by which the lowest segment is known; a last page with one of them leaves no gap."""
        known = [set(segment.head_ids) for segment in self.coverage.segments if segment.head_ids]
        return known[-1] if known else set()

    def check(self) -> None:
        """Every claim holds: nothing that is in the list now and within a segment is missing."""
        order = {run: place for place, run in enumerate(reversed(self.list.ever))}
        order |= {f"{self.list.mark}{run}": place for run, place in order.items()}
        for segment in self.coverage.segments:
            within = [
                run
                for run, _ in self.list.runs
                if segment.head_ids
                and order[run] >= order[segment.head_ids[0]]
                and (segment.cursor is None or order[run] <= order[segment.cursor])
            ]
            assert self.stored.issuperset(within)
            if segment.reaches is not None and segment.cursor is not None:
                behind = [day for run, day in self.list.runs if order[run] > order[segment.cursor]]
                assert all(day is None or NOW + timedelta(days=day) < segment.reaches for day in behind)

    def missing(self, since: int | None) -> set[str]:
        wanted = {run for run, day in self.list.runs if since is None or (day is not None and day >= since)}
        return wanted - self.stored


steps = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.integers(1, 12), st.integers(0, 2), st.booleans()),
        st.tuples(st.just("forget"), st.integers(1, 12)),
        st.tuples(st.just("vanish"), st.integers(0, 60)),
        st.tuples(st.just("pull"), st.none() | st.integers(0, 12), st.integers(1, 6) | st.just(1000)),
    ),
    max_size=25,
)


_CUT_AFTER_ONE = [("create", 8, 0, True), ("pull", None, 1), ("create", 1, 0, True), ("pull", None, 1000)]


@settings(max_examples=400, deadline=None)
@example(page=4, mark="after ", is_short=True, steps=_CUT_AFTER_ONE)
@given(page=st.integers(1, 6), mark=st.sampled_from(["", "after "]), is_short=st.booleans(), steps=steps)
def test_whatever_happens_in_between_nothing_is_lost_and_no_claim_is_false(
    page: int, mark: str, steps: list[tuple[object, ...]], *, is_short: bool
) -> None:
    """New runs, retention, single runs that vanish, pulls that reach less far, pulls that are cut off."""
    reader = Reader(List(page, mark=mark, is_short=is_short))
    for step in steps:
        match step:
            case ("create", int(count), int(days), bool(known)):
                reader.list.create(count, days=days, known=known)
            case ("forget", int(count)):
                del reader.list.runs[-count:]
            case ("vanish", int(place)) if reader.list.runs:
                del reader.list.runs[place % len(reader.list.runs)]
            case ("pull", since, int(pages)) if since is None or isinstance(since, int):
                if reader.pull(since, pages=pages):
                    assert not reader.missing(since)
        reader.check()
    if not reader.pull(None):
        end = reader.list.ask(reader.coverage.cursor if reader.list.runs else None)
        # The cursor may be of a run that was forgotten since; the next pull drops it.
        assert end is None or end.cursor is None
    assert not reader.missing(None)


@settings(max_examples=200, deadline=None)
@given(page=st.integers(1, 7), old=st.integers(0, 40), new=st.integers(0, 40))
def test_a_refresh_costs_the_pages_of_what_is_new(page: int, old: int, new: int) -> None:
    reader = Reader(List(page))
    reader.list.create(old, days=1)
    reader.pull(None)
    before = reader.list.requests
    reader.list.create(new, days=1)
    reader.pull(None)
    assert reader.list.requests - before <= new // page + 1


@settings(max_examples=200, deadline=None)
@given(page=st.integers(1, 5), runs=st.integers(0, 60), cuts=st.lists(st.integers(0, 5), max_size=10))
def test_a_cut_costs_the_head_and_nothing_else(page: int, runs: int, cuts: list[int]) -> None:
    reader = Reader(List(page))
    reader.list.create(runs, days=0)
    for pages in cuts:
        reader.pull(None, pages=pages)
    reader.pull(None)
    uninterrupted = max(1, -(-runs // page))
    assert reader.list.requests <= uninterrupted + sum(1 for pages in cuts if pages)
    assert not reader.missing(None)


@settings(max_examples=100, deadline=None)
@given(page=st.integers(1, 5), first=st.integers(0, 30), second=st.integers(0, 30))
def test_an_older_segment_costs_its_own_pages(page: int, first: int, second: int) -> None:
    """Reaching back to one time and then to an earlier one costs what going to the earlier one at once does."""
    at_once = Reader(List(page))
    for _ in range(31):
        at_once.list.create(2, days=1)
    in_two = Reader(List(page, list(at_once.list.runs), list(at_once.list.ever)))
    at_once.pull(min(first, second))
    in_two.pull(max(first, second))
    in_two.pull(min(first, second))
    assert in_two.list.requests <= at_once.list.requests + 1
    assert in_two.stored == at_once.stored


def test_between_two_segments_lies_a_gap_until_a_page_meets_the_lower_one() -> None:
    reader = Reader(List(2))
    reader.list.create(6, days=1)
    reader.pull(None)
    reader.list.create(20, days=1)
    reader.pull(None, pages=3)
    assert [len(segment.head_ids) for segment in reader.coverage.segments] == [6, 6]
    assert reader.pull(None, pages=9)
    assert [segment.cursor for segment in reader.coverage.segments] == [None]


def test_a_page_says_what_is_still_to_be_read_again_even_if_it_claims_nothing() -> None:
    before = NOW - timedelta(days=7)
    coverage = Coverage().add(Listing(None, ("d", "c"), "c", reread_since=before), read_at=NOW)
    coverage = coverage.add(Listing("c", ("b", "a"), None, reread_since=before), read_at=NOW)
    assert (coverage.covers(None), coverage.reread_since) == (True, before)
    assert coverage.add(Listing("x", ("b", "a"), "a"), read_at=NOW) == Coverage(coverage.segments)


def test_a_page_that_fits_nowhere_claims_nothing() -> None:
    coverage = Coverage().add(Listing(None, ("d", "c"), "c"), read_at=NOW)
    assert coverage.add(Listing("x", ("b", "a"), None), read_at=NOW) is coverage


@pytest.mark.parametrize("cursors", ["cb", "12"], ids=["ids", "opaque"])
def test_a_page_may_go_beyond_the_segment_that_it_meets(cursors: str) -> None:
    """Then reading goes on behind the page, not behind the segment, and the list may end there."""
    coverage = Coverage().add(Listing(None, ("c",), cursors[0]), read_at=NOW)
    coverage = coverage.add(Listing(None, ("d", "c", "b"), cursors[1]), read_at=NOW)
    assert [segment.cursor for segment in coverage.segments] == [cursors[1]]
    assert not coverage.contradicts(Listing(cursors[1], ("a",), None))


def test_several_segments_within_one_page_become_one() -> None:
    lower = tuple(Segment(NOW, (mark,), mark) for mark in "eca")
    coverage = Coverage(lower).add(Listing(None, ("f", "e", "d", "c"), "c"), read_at=NOW)
    assert [segment.head_ids for segment in coverage.segments] == [("f", "e", "d", "c"), ("a",)]


def test_the_end_of_the_list_ends_every_gap_that_it_shows_to_be_none() -> None:
    """Where nothing is left of what a lower segment was known by, the list may have broken off above it."""
    lower = Coverage((Segment(NOW, ("d",), "c"), Segment(NOW, ("a",), "gone")))
    end = Listing(None, ("f", "d", "c", "a"), None)
    assert lower.add(end, read_at=NOW).segments == (Segment(NOW, ("f", "d", "c", "a"), None),)
    for ids in (("f", "e"), ("f", "d"), ("f", "d", "c")):
        end = Listing(None, ids, None)
        assert lower.contradicts(end)
        assert lower.add(end, read_at=NOW) == lower


@pytest.mark.parametrize(
    ("cursor", "reaches", "since", "covered"),
    [
        (None, None, None, True),
        (None, None, 3, True),
        ("c", None, None, False),
        ("c", None, 3, False),
        ("c", 3, None, False),
        ("c", 3, 2, False),
        ("c", 3, 3, True),
        ("c", 3, 4, True),
    ],
)
def test_what_a_segment_covers(
    cursor: str | None, reaches: int | None, since: int | None, *, covered: bool
) -> None:
    segment = Segment(NOW, ("e",), cursor, at(reaches))
    assert segment.covers(at(since)) is covered
    assert Coverage((segment,)).covers(at(since)) is covered
    assert not Coverage().covers(at(since))


def test_a_segment_of_any_length_is_described_in_little_space() -> None:
    reader = Reader(List(3))
    reader.list.create(3000, days=0)
    for page in iter(lambda: reader.list.ask(reader.coverage.cursor), None):
        reader.coverage = reader.coverage.add(page, read_at=NOW)
        if page.cursor is None:
            break
    (segment,) = reader.coverage.segments
    assert len(segment.head_ids) == HEAD_IDS
    assert 0 < len(segment.steps) <= STEPS


def test_a_refused_cursor_costs_a_part_of_the_segment_and_not_all_of_it() -> None:
    """Retention took the end of what was read; the pull finds a place to go on from a few steps before."""
    reader = Reader(List(2))
    reader.list.create(1000, days=0)
    reader.pull(None, pages=400)
    del reader.list.runs[700:]
    before = reader.list.requests
    assert reader.pull(None)
    assert reader.list.requests - before < 60


def test_when_the_newest_segment_is_given_up_the_one_below_is_not_taken_for_the_head_of_the_list() -> None:
    """Else its runs would be all that is new, with those of the given-up segment, and a gap in between."""
    lower = Segment(NOW, ("b",), None)
    coverage = Coverage((Segment(NOW, ("d",), "d"), lower)).drop_last_cursor()
    assert [segment.head_ids for segment in coverage.segments] == [("b",)]
    assert coverage.read_at is not None
    assert coverage.read_at < NOW


def test_a_step_back_is_never_to_the_same_cursor() -> None:
    """A page that was narrowed by time does not move the cursor, which then stands among the steps as well."""
    top = Segment(NOW, ("d",), "b", steps=(("c", None), ("b", None)))
    coverage = Coverage((top,)).drop_last_cursor()
    assert coverage.cursor == "c"
    assert not coverage.drop_last_cursor().segments
