"""Tests of `qoderdata.pages`: cursors, page size and prefetch, with a fake function that fetches pages."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoderdata import errors
from qoderdata.load.lists import _read_list
from qoderdata.pages import PageSize, list_query
from qoderdata.pages import walk as walk_pages
from qoderdata.schema import AGENTS, DEPLOYMENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from qoderdata.client import Client
    from qoderdata.schema import Schema

R = TypeVar("R")


@dataclass(frozen=True)
class Page:
    has_more: bool
    cursor: str | None = None
    count: int = 10


def more(cursor: str | None, count: int = 10) -> Page:
    return Page(True, cursor, count)  # noqa: FBT003 - its name is in the function's name


def last(cursor: str | None = None, count: int = 10) -> Page:
    return Page(False, cursor, count)  # noqa: FBT003 - its name is in the function's name


def fetch_in_turn(*pages: Page | Exception) -> Callable[[str | None, int], Page]:
    """Return a fetch function that returns these pages in turn, for any cursor."""
    remaining = list(pages)

    def fetch(_cursor: str | None, _limit: int) -> Page:
        page = remaining.pop(0)
        if isinstance(page, Exception):
            raise page
        return page

    return fetch


def bad_request(
    message: str = "limit must be between 1 and 100", param: str | None = "limit"
) -> errors.BadRequestError:
    error = errors.BadRequestError(message)
    error.param = param
    return error


def walk(
    path: str,
    fetch: Callable[[str | None, int], Page],
    *,
    start: str | None = None,
    limit: PageSize | None = None,
    max_pages: int = 100,
    mask: Callable[[str], str] = str,
) -> Generator[Page, None, None]:
    return walk_pages(path, fetch, start=start, limit=limit or PageSize(), max_pages=max_pages, mask=mask)


class TestCursors:
    def test_next_page_is_requested_with_the_cursor(self) -> None:
        requested: list[str | None] = []
        pages = iter([more("a"), more("b"), more("c"), last("d")])

        def fetch(cursor: str | None, _limit: int) -> Page:
            requested.append(cursor)
            return next(pages)

        assert [page.cursor for page in walk("/deployments", fetch)] == ["a", "b", "c", "d"]
        assert requested == [None, "a", "b", "c"]

    def test_walk_ends_only_when_has_more_is_false(self) -> None:
        """A short or empty page is not the last one; the last page may have cursors."""
        pages = [more("a", count=0), more("b", count=1), last("c", count=1000)]
        assert list(walk("/deployments", fetch_in_turn(*pages))) == pages

    def test_walk_starts_at_a_given_cursor(self) -> None:
        requested: list[str | None] = []

        def fetch(cursor: str | None, _limit: int) -> Page:
            requested.append(cursor)
            return last()

        assert len(list(walk("/deployments", fetch, start="k"))) == 1
        assert requested == ["k"]

    @pytest.mark.parametrize(
        ("pages", "start", "message"),
        [
            ([more(None)], None, "gave no cursor"),
            ([more("a"), more("")], None, "gave no cursor"),
            ([more("a"), more("a")], None, "'a' again"),
            ([more("a"), more("b"), more("c"), more("a")], None, "'a' again"),
            ([more("k")], "k", "'k' again"),
        ],
        ids=["no cursor", "empty cursor", "repeated", "cycle", "start repeated"],
    )
    def test_missing_or_repeated_cursor_raises_after_the_pages(
        self, pages: list[Page], start: str | None, message: str
    ) -> None:
        """All pages are yielded before the error, so that a store can keep them."""
        got: list[Page] = []
        with pytest.raises(errors.PaginationError, match=f"^GET /deployments: the service .*{message}") as caught:
            got.extend(walk("/deployments", fetch_in_turn(*pages), start=start))
        assert got == pages
        assert caught.value.pages == len(pages)
        assert caught.value.records == 10 * len(pages)
        assert f"after {len(pages)} page" in str(caught.value)

    def test_hostile_cursor_is_one_short_printable_line_in_the_message(self) -> None:
        cursor = "\x1b[2J\n" + "x" * 10_000
        with pytest.raises(errors.PaginationError) as caught:
            list(walk("/deployments", fetch_in_turn(more(cursor), more(cursor))))
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500

    @pytest.mark.parametrize("max_pages", [1, 3])
    def test_more_than_max_pages_raises(self, max_pages: int) -> None:
        requested: list[str | None] = []

        def fetch(cursor: str | None, _limit: int) -> Page:
            requested.append(cursor)
            return more(f"c{len(requested)}")

        with pytest.raises(
            errors.PaginationError,
            match=rf"^GET /deployments: the list goes on after {max_pages} pages?, .*max_pages",
        ) as caught:
            list(walk("/deployments", fetch, max_pages=max_pages))
        assert len(requested) == caught.value.pages == max_pages

    def test_exactly_max_pages_do_not_raise(self) -> None:
        assert len(list(walk("/deployments", fetch_in_turn(more("a"), more("b"), last()), max_pages=3))) == 3

    def test_secret_in_a_cursor_is_masked_before_the_cursor_is_shortened(self) -> None:
        cursor = "x" * 75 + "secret"
        with pytest.raises(errors.PaginationError) as caught:
            list(
                walk(
                    "/deployments",
                    fetch_in_turn(more(cursor), more(cursor)),
                    mask=lambda text: text.replace("secret", "***"),
                )
            )
        assert "x***' again" in str(caught.value)


class TestErrors:
    def test_pages_before_an_error_are_yielded_and_counted(self) -> None:
        failure = errors.InternalServerError("failed")
        failure.request_id = "req_1"
        pages = walk("/deployments", fetch_in_turn(more("a"), more("b"), failure))
        assert next(pages).cursor == "a"
        assert next(pages).cursor == "b"
        with pytest.raises(errors.InternalServerError) as caught:
            next(pages)
        assert caught.value is failure
        assert str(failure) == "failed [after 2 pages, 20 records; request id req_1]"
        with pytest.raises(StopIteration):
            next(pages)

    def test_other_exceptions_are_not_changed(self) -> None:
        """The message of an exception such as a bug in decoding is not changed."""
        with pytest.raises(ZeroDivisionError, match=r"^division$"):
            list(walk("/deployments", fetch_in_turn(more("a"), ZeroDivisionError("division"))))


class TestPrefetch:
    def test_next_page_is_requested_before_a_page_is_yielded(self) -> None:
        requested: list[str | None] = []
        started = {cursor: threading.Event() for cursor in (None, "0", "1", "2")}

        def fetch(cursor: str | None, _limit: int) -> Page:
            requested.append(cursor)
            started[cursor].set()
            number = 0 if cursor is None else int(cursor) + 1
            return Page(number < 2, str(number))

        pages = walk("/deployments", fetch)
        next(pages)
        assert started["0"].wait(10)
        assert requested == [None, "0"], "only one page is requested ahead"
        assert len(list(pages)) == 2
        assert requested == [None, "0", "1"]

    def test_no_request_is_sent_before_the_first_next_call(self) -> None:
        requested: list[str | None] = []

        def fetch(cursor: str | None, _limit: int) -> Page:
            requested.append(cursor)
            return last()

        pages = walk("/deployments", fetch)
        assert requested == []
        pages.close()
        assert requested == []

    @pytest.mark.parametrize("end", ["close", "interrupt"])
    def test_close_or_interrupt_does_not_wait_for_a_running_request(self, end: str) -> None:
        """The caller does not wait for a running request, and no further request is sent."""
        begun, release, ended = threading.Event(), threading.Event(), threading.Event()
        requested: list[str | None] = []

        def fetch(cursor: str | None, _limit: int) -> Page:
            requested.append(cursor)
            if cursor is None:
                return more("a")
            begun.set()
            release.wait(30)
            ended.set()
            return more("b")

        pages = walk("/deployments", fetch)
        next(pages)
        assert begun.wait(10)
        if end == "close":
            pages.close()
        else:
            with pytest.raises(KeyboardInterrupt):
                pages.throw(KeyboardInterrupt)
        assert not ended.is_set()
        release.set()
        assert ended.wait(10)
        assert requested == [None, "a"]

    def test_only_one_request_runs_at_a_time(self) -> None:
        busy = threading.Lock()

        def fetch(cursor: str | None, _limit: int) -> Page:
            assert busy.acquire(blocking=False)
            number = 0 if cursor is None else int(cursor) + 1
            busy.release()
            return Page(number < 50, str(number))

        assert len(list(walk("/deployments", fetch))) == 51


class TestPageSize:
    @pytest.mark.parametrize(
        ("known", "granted", "message", "requested", "expected"),
        [
            (None, 1000, "", [1000], 1000),
            (None, 100, "limit must be between 1 and 100", [1000, 100], 100),
            (None, 250, "limit must be between 1 and 250", [1000, 250], 250),
            (None, 100, "limit is too large", [1000, 100], 100),
            (None, 100, "limit must be between 1 and 5000", [1000, 100], 100),
            (None, 50, "limit must be between 1 and 50", [1000, 50], 50),
            (None, 50, "limit must be between 10 and 50", [1000, 50], 50),
            (None, 100, "limit must be between 1 and 0", [1000, 100], 100),
            (100, 100, "", [100], 100),
            (100, 20, "limit must be between 1 and 20", [100, 20], 20),
        ],
    )
    def test_refused_page_size_is_reduced_to_what_the_service_allows(
        self, known: int | None, granted: int, message: str, requested: list[int], expected: int
    ) -> None:
        sizes: list[int] = []

        def fetch(_cursor: str | None, limit: int) -> Page:
            sizes.append(limit)
            if limit > granted:
                raise bad_request(message)
            return last()

        size = PageSize(known)
        assert len(list(walk("/deployments", fetch, limit=size))) == 1
        assert sizes == requested
        assert size.value == expected

    def test_page_size_refused_on_a_later_page_is_reduced(self) -> None:
        sizes: list[int] = []

        def fetch(cursor: str | None, limit: int) -> Page:
            sizes.append(limit)
            if cursor == "a" and limit > 100:
                raise bad_request()
            return more("a") if cursor is None else last()

        assert len(list(walk("/deployments", fetch))) == 2
        assert sizes == [1000, 1000, 100]

    @pytest.mark.parametrize(
        "refused",
        [bad_request("limit must be between 1 and 0"), bad_request("limit must be an integer"), bad_request()],
        ids=["0 allowed", "no number allowed", "no smaller size allowed"],
    )
    def test_refusal_without_a_smaller_valid_size_is_raised(self, refused: errors.BadRequestError) -> None:
        sizes: list[int] = []

        def fetch(_cursor: str | None, limit: int) -> Page:
            sizes.append(limit)
            raise refused

        with pytest.raises(errors.BadRequestError) as caught:
            list(walk("/deployments", fetch, limit=PageSize(100)))
        assert caught.value is refused
        assert sizes == [100]

    def test_refusal_of_every_size_is_raised_after_three_retries(self) -> None:
        sizes: list[int] = []

        def fetch(_cursor: str | None, limit: int) -> Page:
            sizes.append(limit)
            raise bad_request(f"limit must be between 1 and {limit // 2}")

        with pytest.raises(errors.BadRequestError):
            list(walk("/deployments", fetch))
        assert sizes == sorted(set(sizes), reverse=True)
        assert len(sizes) == 1 + 3

    def test_refusal_on_a_later_page_is_raised_after_three_retries(self) -> None:
        requested: list[tuple[str | None, int]] = []

        def fetch(cursor: str | None, limit: int) -> Page:
            requested.append((cursor, limit))
            if cursor == "b":
                raise bad_request(f"limit must be between 1 and {limit - 1}")
            return more("a") if cursor is None else more("b")

        with pytest.raises(errors.BadRequestError, match="after 2 pages, 20 records"):
            list(walk("/deployments", fetch))
        assert [cursor for cursor, _ in requested] == [None, "a", "b", "b", "b", "b"]

    @pytest.mark.parametrize(
        ("message", "param", "size"),
        [
            ("limit must be between 1 and 100", "limit", 100),
            ("limit must be between 1 and 100", None, 100),
            ("created_at is not a time", "created_at[gte]", 1000),
            ("limit and page disagree", "page", 1000),
            ("unlimited nonsense", None, 1000),
        ],
    )
    def test_page_size_is_reduced_only_for_a_refusal_of_limit(
        self, message: str, param: str | None, size: int
    ) -> None:
        requested = PageSize()
        assert requested.reduce(bad_request(message, param)) is (size != 1000)
        assert requested.value == size

    @pytest.mark.parametrize(("known", "value"), [(None, 1000), (50, 50), (1000, 1000)])
    def test_initial_page_size(self, known: int | None, value: int) -> None:
        assert PageSize(known).value == value


class FakeClient:
    """Return these pages in turn, and refuse more than 100 records per page."""

    def __init__(self, *pages: Page, page_limit: int | None = None) -> None:
        self.page_limit = page_limit
        self.max_pages = 10
        self.pages = iter(pages)
        self.requested: list[dict[str, object]] = []

    def get(self, path: str, params: Mapping[str, str | Sequence[str]], read: Callable[[bytes], R]) -> R:
        assert path == "/things"
        self.requested.append(dict(params))
        if int(str(params["limit"])) > 100:
            raise bad_request()
        page = next(self.pages)
        return read(msgspec.json.encode({"data": [], "has_more": page.has_more, "next_page": page.cursor}))

    def mask(self, text: str) -> str:
        return text.replace("secret", "***")

    def read(self, schema: Schema) -> int:
        """Read a list, and return the number of its pages."""
        return _read_list(cast("Client", self), schema, "/things", {"order": "asc"})[1].pages


class TestLists:
    @pytest.mark.parametrize(("schema", "cursor_param"), [(DEPLOYMENTS, "after_id"), (AGENTS, "page")])
    def test_cursor_is_sent_in_the_parameter_of_the_list(self, schema: Schema, cursor_param: str) -> None:
        client = FakeClient(more("a"), more("b"), last(), page_limit=100)
        assert client.read(schema) == 3
        same = {"order": "asc", "limit": "100"}
        assert client.requested == [same, same | {cursor_param: "a"}, same | {cursor_param: "b"}]

    @pytest.mark.parametrize("known", [None, 50, 1000])
    def test_list_with_small_pages_does_not_change_the_page_limit(self, known: int | None) -> None:
        client = FakeClient(more("a"), last(), page_limit=known)
        assert client.read(AGENTS) == 2
        assert [query["limit"] for query in client.requested] == ["100", "100"]
        assert client.page_limit == known

    def test_allowed_page_size_is_stored_in_the_client(self) -> None:
        client = FakeClient(more("a"), last())
        assert client.read(DEPLOYMENTS) == 2
        assert [query["limit"] for query in client.requested] == ["1000", "100", "100"]
        assert client.page_limit == 100

    def test_max_pages_and_mask_of_the_client_are_used(self) -> None:
        with pytest.raises(errors.PaginationError, match="after 10 pages"):
            FakeClient(*(more(str(number)) for number in range(11))).read(AGENTS)
        with pytest.raises(errors.PaginationError, match="the cursor '\\*\\*\\*' again"):
            FakeClient(more("secret"), more("secret")).read(AGENTS)

    def test_list_query_adds_limit_and_cursor(self) -> None:
        params = {"types[]": ["a", "b"]}
        assert list_query(params, None, 7) == {"types[]": ["a", "b"], "limit": "7"}
        assert list_query(params, "c", 7) == {"types[]": ["a", "b"], "limit": "7", "after_id": "c"}
        assert params == {"types[]": ["a", "b"]}


@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=30), granted=st.sampled_from([1000, 100, 37]))
def test_walk_yields_each_page_once_and_in_order(counts: list[int], granted: int) -> None:
    def fetch(cursor: str | None, limit: int) -> Page:
        if limit > granted:
            raise bad_request(f"limit must be between 1 and {granted}")
        number = 0 if cursor is None else int(cursor) + 1
        return Page(number < len(counts) - 1, str(number), counts[number])

    assert [page.count for page in walk("/deployments", fetch)] == counts
