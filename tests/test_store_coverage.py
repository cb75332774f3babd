"""Tests of `qoderdata.store.coverage`: segments of a list that grows, loses runs, and is read in parts."""

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
class FakeList:
    """A fake list of the service, newest first; each run has the day of its creation, if known.

    A cursor is `mark` and the id of a run. With `is_short` every other page is short.
    """

    page: int
    runs: list[tuple[str, int | None]] = field(default_factory=list)
    created: list[str] = field(default_factory=list)
    today: int = 0
    requests: int = 0
    mark: str = ""
    is_short: bool = False

    def create(self, count: int, *, days: int, known: bool = True) -> None:
        for _ in range(count):
            run = f"run{len(self.created)}"
            self.created.append(run)
            self.runs.insert(0, (run, self.today if known else None))
        self.today += days

    def read_page(self, after: str | None) -> Listing | None:
        """Return the page after a cursor; ``None`` if the cursor is refused."""
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
    """Read the list as `load_runs` does, and check the coverage."""

    list: FakeList
    coverage: Coverage = field(default_factory=Coverage)
    stored: set[str] = field(default_factory=set)
    pulls: int = 0

    def pull(self, since: int | None, *, pages: int = 10_000) -> bool:
        """Read until `since` is covered; return ``False`` after `pages` pages or if the list is inconsistent."""
        self.pulls += 1
        began = NOW + timedelta(seconds=self.pulls)
        while not (recent := self.coverage.read_at == began) or not self.coverage.covers(at(since)):
            if pages == 0:
                return False
            page = self.list.read_page(self.coverage.cursor if recent else None)
            if page is not None and page.ids:
                page = replace(page, last_is_stored=page.ids[-1] in self.stored)
            if page is None:
                self.coverage = self.coverage.drop_last_cursor()
            elif self.coverage.contradicts(page):
                # Either the service forgot all stored runs, or the list ends too early: these look the same.
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
        """The first ids of the lowest segment; a last page with one of them leaves no gap."""
        known = [set(segment.head_ids) for segment in self.coverage.segments if segment.head_ids]
        return known[-1] if known else set()

    def check(self) -> None:
        """Check that all listed runs within a segment are stored."""
        order = {run: place for place, run in enumerate(reversed(self.list.created))}
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
        st.tuples(st.just("remove"), st.integers(0, 60)),
        st.tuples(st.just("pull"), st.none() | st.integers(0, 12), st.integers(1, 6) | st.just(1000)),
    ),
    max_size=25,
)


_INTERRUPTED_AFTER_ONE_PAGE = [
    ("create", 8, 0, True),
    ("pull", None, 1),
    ("create", 1, 0, True),
    ("pull", None, 1000),
]
#: The record at which a read was interrupted is deleted, so that the next first page ends below it.
_DELETED_AT_THE_CURSOR = [
    ("create", 9, 0, False),
    ("pull", None, 1),
    ("remove", 5),
    ("forget", 1),
    ("pull", None, 1000),
    ("forget", 1),
]


def check_random_changes(page: int, mark: str, steps: list[tuple[object, ...]], *, is_short: bool) -> None:
    """Create, forget and remove runs, and pull with bounds and interruptions."""
    reader = Reader(FakeList(page, mark=mark, is_short=is_short))
    for step in steps:
        match step:
            case ("create", int(count), int(days), bool(known)):
                reader.list.create(count, days=days, known=known)
            case ("forget", int(count)):
                del reader.list.runs[-count:]
            case ("remove", int(index)) if reader.list.runs:
                del reader.list.runs[index % len(reader.list.runs)]
            case ("pull", since, int(pages)) if since is None or isinstance(since, int):
                if reader.pull(since, pages=pages):
                    assert not reader.missing(since)
        reader.check()
    if not reader.pull(None):
        end = reader.list.read_page(reader.coverage.cursor if reader.list.runs else None)
        # The run of the cursor may be gone; the next pull drops the cursor.
        assert end is None or end.cursor is None
    assert not reader.missing(None)


with_random_changes = given(
    page=st.integers(1, 6), mark=st.sampled_from(["", "after "]), is_short=st.booleans(), steps=steps
)
test_random_changes_and_interruptions_keep_correct_coverage = settings(max_examples=150, deadline=None)(
    example(page=4, mark="after ", is_short=True, steps=_INTERRUPTED_AFTER_ONE_PAGE)(
        example(page=6, mark="", is_short=False, steps=_DELETED_AT_THE_CURSOR)(
            with_random_changes(check_random_changes)
        )
    )
)
test_2000_random_changes_and_interruptions_keep_correct_coverage = pytest.mark.long(
    settings(max_examples=2_000, deadline=None)(with_random_changes(check_random_changes))
)


@settings(max_examples=80, deadline=None)
@given(page=st.integers(1, 7), old=st.integers(0, 40), new=st.integers(0, 40))
def test_refresh_reads_only_the_pages_of_new_runs(page: int, old: int, new: int) -> None:
    reader = Reader(FakeList(page))
    reader.list.create(old, days=1)
    reader.pull(None)
    before = reader.list.requests
    reader.list.create(new, days=1)
    reader.pull(None)
    assert reader.list.requests - before <= new // page + 1


@settings(max_examples=80, deadline=None)
@given(page=st.integers(1, 5), runs=st.integers(0, 60), pages_per_pull=st.lists(st.integers(0, 5), max_size=10))
def test_interrupted_pull_adds_at_most_one_request(page: int, runs: int, pages_per_pull: list[int]) -> None:
    reader = Reader(FakeList(page))
    reader.list.create(runs, days=0)
    for pages in pages_per_pull:
        reader.pull(None, pages=pages)
    reader.pull(None)
    uninterrupted = max(1, -(-runs // page))
    assert reader.list.requests <= uninterrupted + sum(1 for pages in pages_per_pull if pages)
    assert not reader.missing(None)


@settings(max_examples=40, deadline=None)
@given(page=st.integers(1, 5), first=st.integers(0, 30), second=st.integers(0, 30))
def test_older_bound_reads_only_the_missing_pages(page: int, first: int, second: int) -> None:
    """Two pulls to a time and an earlier one need as many requests as one pull to the earlier time."""
    at_once = Reader(FakeList(page))
    for _ in range(31):
        at_once.list.create(2, days=1)
    in_two = Reader(FakeList(page, list(at_once.list.runs), list(at_once.list.created)))
    at_once.pull(min(first, second))
    in_two.pull(max(first, second))
    in_two.pull(min(first, second))
    assert in_two.list.requests <= at_once.list.requests + 1
    assert in_two.stored == at_once.stored


def test_two_segments_are_joined_when_a_page_meets_the_lower_one() -> None:
    reader = Reader(FakeList(2))
    reader.list.create(6, days=1)
    reader.pull(None)
    reader.list.create(20, days=1)
    reader.pull(None, pages=3)
    assert [len(segment.head_ids) for segment in reader.coverage.segments] == [6, 6]
    assert reader.pull(None, pages=9)
    assert [segment.cursor for segment in reader.coverage.segments] == [None]


def test_reread_since_is_set_from_each_page() -> None:
    before = NOW - timedelta(days=7)
    coverage = Coverage().add(Listing(None, ("d", "c"), "c", reread_since=before), read_at=NOW)
    coverage = coverage.add(Listing("c", ("b", "a"), None, reread_since=before), read_at=NOW)
    assert (coverage.covers(None), coverage.reread_since) == (True, before)
    assert coverage.add(Listing("x", ("b", "a"), "a"), read_at=NOW) == Coverage(coverage.segments)


def test_page_with_an_unknown_start_does_not_change_the_coverage() -> None:
    coverage = Coverage().add(Listing(None, ("d", "c"), "c"), read_at=NOW)
    assert coverage.add(Listing("x", ("b", "a"), None), read_at=NOW) == coverage


@pytest.mark.parametrize("cursors", ["cb", "12"], ids=["ids", "opaque"])
def test_page_that_ends_below_a_segment_moves_its_cursor(cursors: str) -> None:
    """Reading then continues after the page, not after the segment, and the list may end there."""
    coverage = Coverage().add(Listing(None, ("c",), cursors[0]), read_at=NOW)
    coverage = coverage.add(Listing(None, ("d", "c", "b"), cursors[1]), read_at=NOW)
    assert [segment.cursor for segment in coverage.segments] == [cursors[1]]
    assert not coverage.contradicts(Listing(cursors[1], ("a",), None))


def test_page_that_ends_with_a_new_record_joins_nothing() -> None:
    """An old record is listed again among new ones."""
    coverage = Coverage((Segment(NOW, ("d", "c"), "a"),)).add(Listing(None, ("f", "d", "e"), "e"), read_at=NOW)
    assert [segment.cursor for segment in coverage.segments] == ["e", "a"]


def test_segments_within_one_page_are_joined() -> None:
    lower = tuple(Segment(NOW, (mark,), mark) for mark in "eca")
    coverage = Coverage(lower).add(Listing(None, ("f", "e", "d", "c"), "c"), read_at=NOW)
    assert [segment.head_ids for segment in coverage.segments] == [("f", "e", "d", "c"), ("a",)]


def test_page_that_ends_in_two_segments_joins_the_upper_one() -> None:
    """An old record is listed again among newer ones: the gap between the two segments must still be read."""
    coverage = Coverage((Segment(NOW, ("f", "b"), "opaque"), Segment(NOW, ("b", "a"), None)))
    coverage = coverage.add(Listing(None, ("g", "f", "b"), "b", last_is_stored=True), read_at=NOW)
    assert [segment.cursor for segment in coverage.segments] == ["opaque", None]


def test_segment_without_ids_does_not_hide_the_segments_above_it() -> None:
    """The service may send a page that has no records, but a cursor."""
    coverage = Coverage((Segment(NOW, ("b",), "b"), Segment(NOW, (), "a")))
    assert coverage.contradicts(Listing(None, (), None))


def test_last_page_joins_all_segments_that_it_reaches() -> None:
    """A last page without the first id of a lower segment may have ended above it."""
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
def test_segment_covers_since(
    cursor: str | None, reaches: int | None, since: int | None, *, covered: bool
) -> None:
    segment = Segment(NOW, ("e",), cursor, at(reaches))
    assert Coverage((segment,)).covers(at(since)) is covered
    assert not Coverage().covers(at(since))


def test_list_that_ended_with_an_empty_page_is_covered_only_for_a_time() -> None:
    coverage = Coverage().add(Listing(None, ("b",), "b"), read_at=NOW).add(Listing("b", (), None), read_at=NOW)
    assert coverage.covers(None, is_recent=lambda time: time == NOW)
    assert not coverage.covers(None, is_recent=lambda time: time > NOW)


def test_empty_page_with_a_cursor_moves_the_cursor() -> None:
    coverage = Coverage().add(Listing(None, ("b",), "b"), read_at=NOW).add(Listing("b", (), "a"), read_at=NOW)
    assert coverage.cursor == "a"
    assert not coverage.covers(None)


def test_segment_has_a_limited_number_of_ids_and_steps() -> None:
    reader = Reader(FakeList(3))
    reader.list.create(3000, days=0)
    for page in iter(lambda: reader.list.read_page(reader.coverage.cursor), None):
        reader.coverage = reader.coverage.add(page, read_at=NOW)
        if page.cursor is None:
            break
    (segment,) = reader.coverage.segments
    assert len(segment.head_ids) == HEAD_IDS
    assert 0 < len(segment.steps) <= STEPS


def test_refused_cursor_drops_only_a_part_of_the_segment() -> None:
    """Retention removed the end of the segment; the pull continues at an earlier step of it."""
    reader = Reader(FakeList(2))
    reader.list.create(1000, days=0)
    reader.pull(None, pages=400)
    del reader.list.runs[700:]
    before = reader.list.requests
    assert reader.pull(None)
    assert reader.list.requests - before < 60


def test_segment_below_a_dropped_one_is_not_the_head_of_the_list() -> None:
    """Otherwise the gap between its runs and those of the dropped segment would never be read."""
    lower = Segment(NOW, ("b",), None)
    coverage = Coverage((Segment(NOW, ("d",), "d"), lower)).drop_last_cursor()
    assert [segment.head_ids for segment in coverage.segments] == [("b",)]
    assert coverage.read_at is not None
    assert coverage.read_at < NOW


def test_segment_without_its_last_cursor_reaches_less_far() -> None:
    top = Segment(NOW, ("d",), "b", at(1), steps=(("d", at(3)), ("c", at(2))), ended_at=NOW)
    shorter = Segment(NOW, ("d",), "c", at(2), steps=(("d", at(3)),))
    assert Coverage((top,)).drop_last_cursor() == Coverage((shorter,))


def test_drop_last_cursor_never_returns_to_the_same_cursor() -> None:
    """A page filtered by time does not change the cursor, which is then among the steps too."""
    top = Segment(NOW, ("d",), "b", steps=(("c", None), ("b", None)))
    coverage = Coverage((top,)).drop_last_cursor()
    assert coverage.cursor == "c"
    assert not coverage.drop_last_cursor().segments


def test_rows_of_a_dropped_segment_are_unclaimed() -> None:
    assert Coverage((Segment(NOW, ("d",), "d"),)).drop_last_cursor() == Coverage(has_unclaimed=True)


def test_a_list_that_continues_after_an_empty_page_is_not_covered() -> None:
    coverage = Coverage((Segment(NOW, ("b",), "b", ended_at=NOW),))
    assert coverage.covers(None)
    assert not coverage.add(Listing("b", ("a",), "a"), read_at=NOW).covers(None)


def test_an_empty_last_page_that_belongs_to_no_segment_contradicts() -> None:
    coverage = Coverage((Segment(NOW, ("d", "c"), None),), reread_since=NOW - timedelta(days=7))
    end = Listing("d", (), None)
    assert coverage.contradicts(end)
    assert coverage.add(end, read_at=NOW) == coverage
