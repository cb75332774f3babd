"""Client and walk against the sandbox: every edition, every fault, as few requests as there can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from qoderdata import errors
from qoderdata.client import Client
from qoderdata.pages import PageSize, walk
from qoderdata.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import FastClock


class Page(msgspec.Struct):
    data: list[dict[str, Any]]
    has_more: bool
    last_id: str | None
    next_page: str | None = None

    @property
    def count(self) -> int:
        return len(self.data)


@pytest.fixture(scope="module")
def account() -> Iterator[Sandbox]:
    with Sandbox(deployments=250, seed=7, runs=0) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(account: Sandbox) -> Sandbox:
    account.edition, account.send_next_page, account.short_pages = "C", True, False
    account.requests.clear()
    return account


def pull(
    sandbox: Sandbox, size: PageSize, *, by: str = "page", min_interval: float = 0.1, patience: float = 60
) -> list[Page]:
    asked = Client(sandbox.pat, sandbox.base_url, timeout=(10, patience), min_interval=min_interval)

    def fetch(cursor: str | None, limit: int) -> Page:
        params = {"limit": str(limit), "include_archived": "true"} | ({by: cursor} if cursor else {})
        return asked.get("/deployments", params, msgspec.json.Decoder(Page).decode)

    return list(walk(fetch, limit=size))


def ids(pages: list[Page]) -> list[str]:
    return [record["id"] for page in pages for record in page.data]


@pytest.mark.parametrize("by", ["page", "after_id"])
@pytest.mark.parametrize("send_next_page", [True, False], ids=["with next_page", "without next_page"])
@pytest.mark.parametrize("short_pages", [False, True], ids=["full pages", "short pages"])
@pytest.mark.parametrize(
    ("edition", "requests", "known_requests", "limit"), [("A", 1, 1, 1000), ("B", 3, 3, 1000), ("C", 4, 3, 100)]
)
def test_every_edition_is_walked_whole_with_the_fewest_requests(
    sandbox: Sandbox,
    edition: str,
    requests: int,
    known_requests: int,
    limit: int,
    *,
    by: str,
    send_next_page: bool,
    short_pages: bool,
) -> None:
    sandbox.edition, sandbox.send_next_page, sandbox.short_pages = edition, send_next_page, short_pages
    truth = [record["id"] for record in sandbox.deployments]
    size = PageSize()
    assert ids(pull(sandbox, size, by=by)) == truth
    assert size.value == limit
    assert len(sandbox.requests) == requests
    sandbox.requests.clear()
    assert ids(pull(sandbox, size, by=by)) == truth
    assert len(sandbox.requests) == known_requests


@pytest.mark.parametrize(
    "fault",
    [
        "408",
        "429",
        "429-retry-after",
        "500",
        "502-html",
        "503-empty",
        "503-html",
        "504",
        "html-200",
        "reset",
        "cut-body",
        "cut-json",
    ],
)
@pytest.mark.parametrize("at", [0, 2])
def test_a_fault_that_passes_changes_nothing(sandbox: Sandbox, clock: FastClock, fault: str, at: int) -> None:
    sandbox.misbehave(fault, at=at)
    assert ids(pull(sandbox, PageSize(100), min_interval=0)) == [record["id"] for record in sandbox.deployments]
    assert len(sandbox.requests) == 4
    assert len(clock.sleeps) == 1


def test_a_hang_is_a_time_out_that_passes(sandbox: Sandbox) -> None:
    sandbox.misbehave("hang", at=1)
    pages = pull(sandbox, PageSize(100), patience=0.2)
    assert ids(pages) == [record["id"] for record in sandbox.deployments]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("400", errors.BadRequestError),
        ("401", errors.AuthenticationError),
        ("403", errors.PermissionDeniedError),
        ("404", errors.NotFoundError),
        ("409", errors.ConflictError),
        ("501", errors.InternalServerError),
        ("redirect", errors.APIStatusError),
        ("no-cursor", errors.PaginationError),
        ("repeat-cursor", errors.PaginationError),
    ],
)
def test_a_fault_that_does_not_pass_ends_the_walk(
    sandbox: Sandbox, clock: FastClock, fault: str, kind: type[errors.APIError]
) -> None:
    sandbox.misbehave(fault, at=1)
    with pytest.raises(errors.APIError) as caught:
        pull(sandbox, PageSize(100), min_interval=0)
    assert type(caught.value) is kind
    told = 200 if kind is errors.PaginationError else 100
    assert f"after {told // 100} page" in str(caught.value)
    assert caught.value.records == told
    assert len(sandbox.requests) == 2
    assert clock.sleeps == []


def test_one_object_and_one_that_is_not_there(sandbox: Sandbox) -> None:
    client = Client(sandbox.pat, sandbox.base_url)
    record = sandbox.deployments[0]
    assert client.get_deployment(record["id"]) == record
    with pytest.raises(errors.NotFoundError) as caught:
        client.get_run(record["id"])
    assert caught.value.type == "not_found_error"
    assert caught.value.request_id == sandbox.requests[-1].request_id


def test_a_wrong_token_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(errors.AuthenticationError, match="QODER_PAT") as caught:
        Client("pt-wrong", sandbox.base_url).get_deployment("dep_1")
    assert caught.value.type == "authentication_error"
