"""Tests of `load_deployments` with faults: it returns all rows, or raises and leaves the cache unchanged."""

from __future__ import annotations

import functools
import os
import signal
import tempfile
import threading
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoderdata import Client, errors, flatten_deployments, load_deployments
from qoderdata.decode import Decoder
from qoderdata.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from conftest import FastClock

Record = dict[str, Any]

DEPLOYMENTS = 43
PAGE_SIZE = 10
PAGES = 5
RETRIES = 5

#: Temporary faults, with the exception that is raised when retries fail.
TEMPORARY_FAULTS: dict[str, type[errors.APIError]] = {
    "408": errors.APIStatusError,
    "429": errors.RateLimitError,
    "429-retry-after": errors.RateLimitError,
    "500": errors.InternalServerError,
    "502-html": errors.InternalServerError,
    "503": errors.InternalServerError,
    "503-empty": errors.InternalServerError,
    "503-html": errors.InternalServerError,
    "504": errors.InternalServerError,
    "html-200": errors.APIResponseValidationError,
    "reset": errors.APIConnectionError,
    "cut-body": errors.APIConnectionError,
    "cut-json": errors.APIResponseValidationError,
}
#: Faults that are not retried, with their exception.
PERMANENT_FAULTS: dict[str, type[errors.APIError]] = {
    "400": errors.BadRequestError,
    "401": errors.AuthenticationError,
    "403": errors.PermissionDeniedError,
    "404": errors.NotFoundError,
    "409": errors.ConflictError,
    "501": errors.InternalServerError,
    "redirect": errors.APIStatusError,
    "no-cursor": errors.PaginationError,
}


def on_pages(faults: Iterable[str], *everywhere: str) -> list[tuple[str, int]]:
    """Return each fault on the third page, and those of `everywhere` on the first and the last page too.

    The client handles a fault without knowing the page, so a few faults show what the first and last page change.
    """
    return [*((fault, 2) for fault in faults), *((fault, at) for fault in everywhere for at in (0, PAGES - 1))]


@pytest.fixture(scope="module")
def account() -> Iterator[Sandbox]:
    with Sandbox(deployments=DEPLOYMENTS, seed=13, runs=90) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def truth(account: Sandbox) -> pd.DataFrame:
    return flatten_deployments(account.deployments)


def client_of(sandbox: Sandbox, **options: Any) -> Client:  # noqa: ANN401 - options of the client
    client = Client(sandbox.pat, sandbox.base_url, **options)
    client.page_limit = PAGE_SIZE
    return client


@dataclass
class LoadedCache:
    """A service, a client, and a cache folder with one response in it."""

    sandbox: Sandbox
    client: Client
    folder: Path
    files_before: dict[str, bytes] = field(default_factory=dict)

    def load(self, **options: Any) -> pd.DataFrame:  # noqa: ANN401 - options of load_deployments
        return load_deployments(include_archived=True, client=self.client, cache_dir=self.folder, **options)

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}

    def reset(self) -> None:
        """Clear the recorded requests, and record the files of the cache."""
        self.files_before = self.files()
        self.sandbox.requests.clear()

    def check_cache_unchanged(self, truth: pd.DataFrame) -> None:
        """Check that the cache is unchanged, and that `offline` uses it without a request."""
        assert self.files() == self.files_before
        # Wait for a request that the pull has already sent, so that it is not counted for the offline call.
        for thread in pull_threads():
            thread.join(10)
        asked = len(self.sandbox.requests)
        pd.testing.assert_frame_equal(self.load(offline=True), truth)
        assert len(self.sandbox.requests) == asked


def pull_threads() -> list[threading.Thread]:
    """Return the running threads of pulls."""
    return [thread for thread in threading.enumerate() if thread.name in {"qoderdata-fetch", "qoderdata-decode"}]


@functools.cache
def first_pull(account: Sandbox) -> dict[str, bytes]:
    """Return the cache files that a pull writes, by relative path."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        LoadedCache(account, client_of(account), folder).load()
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_loaded_cache(account: Sandbox, folder: Path) -> LoadedCache:
    # Remove the faults that the previous test did not use.
    account._faults = type(account._faults)()
    account.send_next_page = True
    for name, content in first_pull(account).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    cache = LoadedCache(account, client_of(account, max_retries=RETRIES), folder)
    cache.reset()
    return cache


@pytest.fixture
def cache(account: Sandbox, tmp_path: Path) -> LoadedCache:
    return make_loaded_cache(account, tmp_path / "cache")


# -- one fault ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "at"), on_pages(TEMPORARY_FAULTS, "500", "reset", "cut-json"))
def test_temporary_fault_is_retried_once(cache: LoadedCache, truth: pd.DataFrame, fault: str, at: int) -> None:
    cache.sandbox.misbehave(fault, at=at)
    frame = cache.load(refresh=True)
    pd.testing.assert_frame_equal(frame, truth)
    assert len(cache.sandbox.requests) == PAGES + 1
    assert frame.attrs["requests"] == PAGES
    cache.reset()
    cache.check_cache_unchanged(truth)


def test_timeout_is_retried(cache: LoadedCache, truth: pd.DataFrame) -> None:
    cache.client = client_of(cache.sandbox, timeout=(10, 1))
    cache.sandbox.misbehave("hang", at=2)
    pd.testing.assert_frame_equal(cache.load(refresh=True), truth)
    assert len(cache.sandbox.requests) > PAGES


@pytest.mark.parametrize("at", [0, 2, PAGES - 1])
def test_page_with_damaged_json_is_requested_again(cache: LoadedCache, truth: pd.DataFrame, at: int) -> None:
    """The next cursor is at the end of the page, so the next page is requested before the damage is found."""
    cache.sandbox.misbehave("torn-json", at=at)
    frame = cache.load(refresh=True)
    pd.testing.assert_frame_equal(frame, truth)
    assert len(cache.sandbox.requests) == PAGES + 1


def test_page_with_damaged_json_after_all_retries_raises(cache: LoadedCache, truth: pd.DataFrame) -> None:
    get = cache.client.get

    def get_damaged(path: str, params: dict[str, str], read: Callable[[bytes], Any]) -> Any:  # noqa: ANN401
        is_damaged = params.get("after_id") == cache.sandbox.deployments[2 * PAGE_SIZE - 1]["id"]
        return get(
            path, params, lambda body: read(body.replace(b'"status"', b'"status" x') if is_damaged else body)
        )

    cache.client.get = get_damaged  # type: ignore[method-assign, assignment]
    with pytest.raises(errors.APIResponseValidationError, match="not with complete JSON") as caught:
        cache.load(refresh=True)
    error = caught.value
    assert (error.pages, error.records, error.attempts) == (2, 2 * PAGE_SIZE, RETRIES + 1)
    cache.check_cache_unchanged(truth)


@pytest.mark.parametrize(("fault", "at"), on_pages(PERMANENT_FAULTS, "401", "no-cursor"))
def test_permanent_fault_is_raised_without_a_retry(
    cache: LoadedCache, truth: pd.DataFrame, clock: FastClock, fault: str, at: int
) -> None:
    clock.sleeps.clear()
    cache.sandbox.misbehave(fault, at=at)
    with pytest.raises(errors.APIError) as caught:
        cache.load(refresh=True)
    error = caught.value
    assert type(error) is PERMANENT_FAULTS[fault]
    pages = at + isinstance(error, errors.PaginationError)
    assert (error.pages, error.records) == (pages, min(PAGE_SIZE * pages, DEPLOYMENTS))
    assert len(cache.sandbox.requests) == at + 1
    assert max(clock.sleeps, default=0) == pytest.approx(0.1 if at else 0), "only the rate limiter waits"
    cache.check_cache_unchanged(truth)


@pytest.mark.parametrize("at", [1, PAGES - 1])
def test_repeated_cursor_raises_pagination_error(cache: LoadedCache, truth: pd.DataFrame, at: int) -> None:
    cache.sandbox.misbehave("repeat-cursor", at=at)
    with pytest.raises(errors.PaginationError, match=r"the rest of the list .* the service\. \[after") as caught:
        cache.load(refresh=True)
    assert caught.value.pages == len(cache.sandbox.requests) == at + 1
    cache.check_cache_unchanged(truth)


@pytest.mark.parametrize(("fault", "page"), on_pages(TEMPORARY_FAULTS, "500", "cut-json"))
def test_error_after_all_retries_says_how_many_pages_were_loaded(
    cache: LoadedCache, truth: pd.DataFrame, fault: str, page: int
) -> None:
    for number in range(RETRIES + 1):
        cache.sandbox.misbehave(fault, at=page + number)
    with pytest.raises(errors.APIError) as caught:
        cache.load(refresh=True)
    error = caught.value
    assert type(error) is TEMPORARY_FAULTS[fault]
    assert (error.pages, error.records, error.attempts) == (page, PAGE_SIZE * page, RETRIES + 1)
    assert f"after {page} pages, {PAGE_SIZE * page} records" in str(error)
    assert "pass offline=True to use it" in error.__notes__[0]
    assert len(cache.sandbox.requests) == page + RETRIES + 1
    cache.check_cache_unchanged(truth)
    pd.testing.assert_frame_equal(cache.load(refresh=True), truth)


@pytest.mark.parametrize("fault", ["429-retry-after", "503-empty"])
def test_retry_after_above_60_s_is_raised_at_once(
    cache: LoadedCache, truth: pd.DataFrame, clock: FastClock, fault: str
) -> None:
    clock.sleeps.clear()
    cache.sandbox.misbehave(fault, at=2, retry_after=61)
    with pytest.raises(errors.APIStatusError) as caught:
        cache.load(refresh=True)
    assert caught.value.retry_after == 61
    assert max(clock.sleeps) == pytest.approx(0.1), "only the rate limiter waits"
    cache.check_cache_unchanged(truth)


def test_retry_after_of_59_s_is_waited_for(cache: LoadedCache, truth: pd.DataFrame, clock: FastClock) -> None:
    clock.sleeps.clear()
    cache.sandbox.misbehave("429-retry-after", at=2, retry_after=59)
    pd.testing.assert_frame_equal(cache.load(refresh=True), truth)
    assert max(clock.sleeps) == pytest.approx(59, abs=0.2)


def test_record_without_an_id_is_raised_without_a_retry(cache: LoadedCache, truth: pd.DataFrame) -> None:
    """A retry would return the same record without an id."""
    victim = cache.sandbox.deployments[2 * PAGE_SIZE]["id"].encode()
    get = cache.client.get

    def without_an_id(path: str, params: dict[str, str], read: Callable[[bytes], Any]) -> Any:  # noqa: ANN401
        return get(path, params, lambda body: read(body.replace(b'"id":"' + victim + b'"', b'"id":null')))

    cache.client.get = without_an_id  # type: ignore[method-assign, assignment]
    with pytest.raises(errors.APIResponseValidationError) as caught:
        cache.load(refresh=True)
    assert str(caught.value).startswith("GET /deployments: record 0 of the answer has no id")
    assert f"after 2 pages, {2 * PAGE_SIZE} records; request id req_" in str(caught.value)
    assert caught.value.__context__ is None
    assert len(cache.sandbox.requests) <= PAGES
    cache.check_cache_unchanged(truth)


# -- several faults -----------------------------------------------------------------------------------------


def expected_error(faults: dict[int, str]) -> type[errors.APIError] | None:
    """Return the exception that the documented rules expect for these faults; ``None`` for success."""
    remaining, request = dict(faults), 0
    for page in range(PAGES):
        tries = 0
        while True:
            fault = remaining.pop(request, None)
            request += 1
            if fault in ("repeat-cursor", "overlap") and page == 0:
                # The first page has no cursor, so the sandbox moves the fault to the next request without a fault.
                remaining[next(number for number in range(request, 99) if number not in remaining)] = fault
                fault = None
            if fault in TEMPORARY_FAULTS:
                tries += 1
                if tries > RETRIES:
                    return TEMPORARY_FAULTS[fault]
                continue
            if fault == "repeat-cursor":
                return errors.PaginationError
            if fault in PERMANENT_FAULTS:
                return PERMANENT_FAULTS[fault]
            break
    return None


sequences = st.dictionaries(
    st.integers(0, PAGES + 9),
    st.sampled_from(
        [*TEMPORARY_FAULTS, *TEMPORARY_FAULTS, *TEMPORARY_FAULTS, "overlap", "repeat-cursor", *PERMANENT_FAULTS]
    ),
    max_size=12,
)
recoverable_sequences = st.lists(
    st.sampled_from(list(TEMPORARY_FAULTS)) | st.none() | st.none(), max_size=PAGES + 12
).filter(lambda faults: expected_error({at: fault for at, fault in enumerate(faults) if fault}) is None)


def check_random_faults(account: Sandbox, truth: pd.DataFrame, faults: dict[int, str]) -> None:
    expected = expected_error(faults)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\d deployments? came more than once", errors.DataQualityWarning)
        cache = make_loaded_cache(account, Path(folder))
        for at, fault in faults.items():
            cache.sandbox.misbehave(fault, at=at)
        if expected is None:
            pd.testing.assert_frame_equal(cache.load(refresh=True), truth)
            cache.reset()
        else:
            with pytest.raises(errors.APIError) as caught:
                cache.load(refresh=True)
            assert type(caught.value) is expected
            assert caught.value.pages is not None
        cache.check_cache_unchanged(truth)


def check_random_temporary_faults(
    account: Sandbox, truth: pd.DataFrame, faults: list[str | None], *, send_next_page: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cache = make_loaded_cache(account, Path(folder))
        cache.sandbox.send_next_page = send_next_page
        for at, fault in enumerate(faults):
            if fault is not None:
                cache.sandbox.misbehave(fault, at=at)
        pd.testing.assert_frame_equal(cache.load(refresh=True), truth)


with_random_faults = given(faults=sequences)
with_random_temporary_faults = given(faults=recoverable_sequences, send_next_page=st.booleans())
few = settings(max_examples=20, deadline=None)
many = settings(max_examples=300, deadline=None)

test_random_faults_give_all_rows_or_the_documented_error = few(with_random_faults(check_random_faults))
test_300_sequences_of_faults_give_all_rows_or_the_documented_error = pytest.mark.long(
    many(with_random_faults(check_random_faults))
)
test_random_temporary_faults_do_not_change_the_frame = few(
    with_random_temporary_faults(check_random_temporary_faults)
)
test_300_sequences_of_temporary_faults_do_not_change_the_frame = pytest.mark.long(
    many(with_random_temporary_faults(check_random_temporary_faults))
)


# -- interruptions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize(
    ("owner", "name", "number"),
    [
        (Client, "get", 0),
        (Client, "get", 3),
        (Decoder, "read_page", 2),
        (Decoder, "to_table", 0),
        (Decoder, "to_table", 4),
        (Decoder, "finish", 0),
    ],
)
def test_interruption_leaves_the_cache_unchanged(  # noqa: PLR0917 - a table
    cache: LoadedCache,
    truth: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    number: int,
    *,
    interruption: type[BaseException],
) -> None:
    original = getattr(owner, name)
    calls = iter(range(99))

    def interrupt(self: object, *arguments: object, **options: object) -> object:
        if next(calls) == number:
            raise interruption
        return original(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupt)
        with pytest.raises(interruption):
            cache.load(refresh=True)
    cache.check_cache_unchanged(truth)
    pd.testing.assert_frame_equal(cache.load(refresh=True), truth)


def test_interruption_of_a_cache_write_keeps_the_old_answer(
    cache: LoadedCache, truth: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner, name in ((pq, "ParquetWriter"), (os, "fsync"), (Path, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                cache.load(refresh=True)
        # The load may have written a snapshot before the answer.
        assert cache.files_before.items() <= cache.files().items()
        pd.testing.assert_frame_equal(cache.load(offline=True), truth)


def press_ctrl_c(account: Sandbox, monkeypatch: pytest.MonkeyPatch, *, at: int) -> None:
    """Send SIGINT to the main thread after the request with the number `at`."""
    respond = account._respond
    numbers = iter(range(99))

    def press(request: Any) -> Any:  # noqa: ANN401 - private types of the sandbox
        answer = respond(request)
        if next(numbers) == at:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return answer

    assert account._server is not None
    monkeypatch.setattr(account._server, "respond", press)


@pytest.mark.parametrize("request_number", [0, 1, 3])
def test_ctrl_c_ends_a_pull_that_waits_for_a_response(
    account: Sandbox, truth: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_number: int
) -> None:
    """The service does not respond; a load that waits for it raises a time-out instead."""
    cache = make_loaded_cache(account, tmp_path / "cache")
    cache.client = client_of(account, timeout=15)
    cache.sandbox.misbehave("hang", at=request_number)
    press_ctrl_c(account, monkeypatch, at=request_number)
    with pytest.raises(KeyboardInterrupt):
        cache.load(refresh=True)
    monkeypatch.undo()
    cache.sandbox.end_hangs()
    cache.check_cache_unchanged(truth)


def test_ctrl_c_does_not_wait_for_a_retry_of_a_page(
    account: Sandbox, truth: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One page was damaged, and the service does not respond to the requests for it and the next page."""
    cache = make_loaded_cache(account, tmp_path / "cache")
    cache.client = client_of(account, timeout=5)
    cache.sandbox.misbehave("torn-json", at=2)
    cache.sandbox.misbehave("hang", at=3)
    press_ctrl_c(account, monkeypatch, at=3)
    with pytest.raises(KeyboardInterrupt):
        cache.load(refresh=True)
    assert pull_threads(), "the load waited for the request"
    monkeypatch.undo()
    cache.sandbox.end_hangs()
    cache.check_cache_unchanged(truth)


# -- an account that changes during a load ---------------------------------------------------------------------


@dataclass
class CallDuringLoad:
    """Call functions after given requests of a client."""

    client: Client
    actions: dict[int, list[Callable[[], object]]]

    def __enter__(self) -> None:
        get, numbers = self.client.get, iter(range(999))

        def get_then_call(path: str, params: dict[str, str], read: Callable[[bytes], Any]) -> Any:  # noqa: ANN401
            answer = get(path, params, read)
            for action in self.actions.get(next(numbers), []):
                action()
            return answer

        self.client.get = get_then_call  # type: ignore[method-assign, assignment]

    def __exit__(self, *_: object) -> None:
        del self.client.get


def test_deployments_created_during_a_load_are_not_in_the_frame(tmp_path: Path) -> None:
    with Sandbox(deployments=35, seed=2, runs=0) as sandbox:
        before = flatten_deployments(sandbox.deployments)
        client = client_of(sandbox)
        with CallDuringLoad(client, {page: [lambda: sandbox.create_deployments(7)] for page in range(3)}):
            frame = load_deployments(include_archived=True, client=client, cache_dir=tmp_path)
        pd.testing.assert_frame_equal(frame, before)
        after = load_deployments(include_archived=True, client=client, cache_dir=tmp_path, refresh=True)
        assert len(after) == 35 + 3 * 7
        assert list(after["id"][21:]) == list(before["id"])


def test_repeated_deployment_warns_and_the_later_values_are_used(tmp_path: Path) -> None:
    with Sandbox(deployments=35, seed=2, runs=0) as sandbox:
        cursor = sandbox.deployments[PAGE_SIZE - 1]
        client = client_of(sandbox)
        sandbox.misbehave("overlap", at=1)
        with (
            CallDuringLoad(client, {0: [lambda: sandbox.rewrite(cursor | {"name": "renamed during the load"})]}),
            pytest.warns(errors.DataQualityWarning, match=f"1 deployment came more than once.*{cursor['id']}"),
        ):
            frame = load_deployments(include_archived=True, client=client, cache_dir=tmp_path)
        pd.testing.assert_frame_equal(frame, flatten_deployments(sandbox.deployments))
        assert frame["name"][PAGE_SIZE - 1] == "renamed during the load"


actions = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["create", "archive", "rename"]), st.integers(0, 400)),
    max_size=12,
)


def check_random_changes(
    plan: list[tuple[int, str, int]], edition: str, *, include_archived: bool, short_pages: bool
) -> None:
    with (
        Sandbox(deployments=34, seed=4, runs=0, edition=edition) as sandbox,
        tempfile.TemporaryDirectory() as folder,
    ):
        sandbox.short_pages = short_pages
        before = sandbox.deployments
        changed: set[str] = set()

        def perform(action: str, number: int) -> None:
            record = next(one for one in sandbox.deployments if one["id"] == before[number % len(before)]["id"])
            if action == "create":
                sandbox.create_deployments(1 + number % 3)
            elif record["archived_at"] is None:
                changed.add(record["id"])
                if action == "archive":
                    sandbox.archive(record["id"])
                else:
                    sandbox.rewrite(record | {"name": "renamed"})

        todo: dict[int, list[Callable[[], object]]] = {}
        for after, action, number in plan:
            todo.setdefault(after, []).append(lambda action=action, number=number: perform(action, number))  # type: ignore[misc]
        client = client_of(sandbox)
        with CallDuringLoad(client, todo):
            frame = load_deployments(include_archived=include_archived, client=client, cache_dir=folder)
        assert frame["id"].is_unique
        assert frame["id"].is_monotonic_decreasing
        shown = flatten_deployments(one for one in before if include_archived or one["archived_at"] is None)
        is_unchanged = ~shown["id"].isin(changed)
        pd.testing.assert_frame_equal(
            frame[~frame["id"].isin(changed)].reset_index(drop=True), shown[is_unchanged].reset_index(drop=True)
        )
        if include_archived:
            assert len(frame) == len(before)


with_random_changes = given(
    plan=actions, edition=st.sampled_from("BC"), include_archived=st.booleans(), short_pages=st.booleans()
)
test_changes_during_a_load_repeat_or_lose_no_unchanged_deployment = few(with_random_changes(check_random_changes))
test_300_random_changes_during_a_load_repeat_or_lose_no_unchanged_deployment = pytest.mark.long(
    many(with_random_changes(check_random_changes))
)


def test_as_of_with_only_damaged_snapshots_raises_cache_error(account: Sandbox, tmp_path: Path) -> None:
    load_deployments(client=client_of(account), cache_dir=tmp_path)
    for file in (tmp_path / "history").rglob("*.parquet"):
        file.write_bytes(b"PAR1")
    with (
        pytest.warns(errors.CacheWarning, match="was left out"),
        pytest.raises(errors.CacheError, match=r"no snapshot at or before .* can be used; damaged: 1"),
    ):
        load_deployments(client=client_of(account), cache_dir=tmp_path, as_of="0s")
