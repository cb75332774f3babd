"""Tests of the loaders with a service of edition D that shares no code with this package: each run, each request.

`edition_d_service` sets the expected outcome of each run, and makes its session and events to match.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import logging
import re
import shutil
import signal
import threading
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import pyarrow.dataset as ds
import pytest

import qoderdata as qd
from qoderdata.errors import (
    APIConnectionError,
    AuthenticationError,
    CacheError,
    CacheWarning,
    DataQualityWarning,
    NotFoundError,
    PermissionDeniedError,
)
from tests.edition_d_service import (
    KINDS,
    SECRET,
    SETTLED,
    TOKEN,
    Account,
    EditionD,
    Refusal,
    Request,
    Truth,
    count_requests,
    parse,
    walk,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_OUTCOME_COLUMNS = (
    "status", "status_from", "triggered_at", "started_at", "completed_at", "duration_ms", "error_type",
    "error_message",
)  # fmt: skip
_FEW = tuple(kind._replace(runs=1 if kind.requests > 1 else min(kind.runs, 2)) for kind in KINDS)
_REFUSED_FIRST_REQUEST = {"deployment_runs 400": 1}  # a client asks for 1,000 runs once, as edition A allows
Query = dict[str, Any]


class Loaded(NamedTuple):
    """The result of one load, its requests, its warnings, and its cache folder."""

    frame: pd.DataFrame
    requests: list[Request]
    warning_texts: list[str]
    folder: Path


@pytest.fixture(scope="module")
def service() -> Iterator[EditionD]:
    """Serve the large account, which has runs of 12 days; no test changes it."""
    with EditionD(Account(spacing=30)) as running:
        yield running


@pytest.fixture(scope="module")
def loads(service: EditionD, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loaded]:
    """Load the runs once in each mode, into separate caches; `auto` sends the same requests as `sessions`."""
    found = {}
    for mode in ("runs", "auto", "events"):
        folder = tmp_path_factory.mktemp(mode)
        with warnings.catch_warnings(record=True, action="always") as caught:
            found[mode] = load(service, folder, outcomes=mode)
        found[mode] = found[mode]._replace(warning_texts=[str(each.message) for each in caught])
        assert all(each.category is DataQualityWarning for each in caught)
    return found


@pytest.fixture(scope="module")
def few() -> Iterator[EditionD]:
    """Serve one or two runs of each kind; no test changes them."""
    with EditionD(Account(_FEW, spacing=20)) as running:
        yield running


def client_of(service: EditionD, **options: Any) -> qd.Client:  # noqa: ANN401
    return qd.Client(pat=TOKEN, base_url=service.base_url, min_interval=0, **options)


def load(service: EditionD, folder: Path, client: qd.Client | None = None, **options: Any) -> Loaded:  # noqa: ANN401
    before = len(service.requests)
    frame = qd.load_runs(client=client or client_of(service), cache_dir=folder, progress=False, **options)
    requests = service.requests[before:]
    assert frame.attrs["requests"] == len(requests)
    # Only a first request in the form of edition A may be refused: it asks for 1,000 runs.
    refused = [request for request in requests if request.status not in {200, 404}]
    assert all(request.list == "deployment_runs" and ("limit", "1000") in request.query for request in refused)
    return Loaded(frame, requests, [], folder)


def value(each: Any) -> Any:  # noqa: ANN401
    return None if pd.isna(each) else each


def assert_truth(frame: pd.DataFrame, truth: dict[str, Truth]) -> None:
    """Compare each run with its expected values; durations may differ by less than 1 ms."""
    assert frame["id"].is_unique
    assert frame["created_at"].is_monotonic_decreasing
    assert set(frame["id"]) == set(truth)
    wrong = []
    for row in frame.to_dict("records"):
        for name in _OUTCOME_COLUMNS:
            actual, expected = value(row[name]), getattr(truth[row["id"]], name)
            nearly_equal = name == "duration_ms" and None not in {actual, expected} and abs(actual - expected) < 1
            if actual != expected and not nearly_equal:
                wrong.append((row["id"], name, actual, expected))
    assert wrong == []


def sessions_of(account: Account, *kinds: str) -> list[str]:
    """Return the session ids of the runs of these kinds, newest first."""
    return [run["session_id"] for run in account.runs if account.kind_of[run["id"]].name in kinds]


def get(service: EditionD, path: str, query: Sequence[tuple[str, str]] = (), token: str = TOKEN) -> Any:  # noqa: ANN401
    url = f"{service.base_url}/{path}?{urllib.parse.urlencode(query)}".removesuffix("?")
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return json.loads(answer.read())


# -- the fake service


def test_fake_account_has_runs_of_all_kinds(service: EditionD) -> None:
    account = service.account
    assert len(account.runs) == 540
    assert len(account.deployments) == 40
    assert {kind.name for kind in account.kind_of.values()} == {kind.name for kind in KINDS}
    assert {truth.status for truth in account.truth.values()} == {
        *("pending", "running", "waiting", "completed", "failed", "cancelled", "skipped"),
        None,
    }
    assert not any("cas_config" in record["metadata"] for record in account.deployments)
    old = {run["id"] for run in account.runs if "status" in run}
    assert {account.kind_of[id_].name[:3] for id_ in old} == {"old"}
    assert sum(len(events) > 100 for events in account.events.values()) >= 10
    assert sum("processed_at" not in event for events in account.events.values() for event in events) >= 20


@pytest.mark.parametrize("name", ["deployments", "deployment_runs", "sessions", "agents", "environments"])
def test_fake_service_lists_each_record_once(service: EditionD, name: str) -> None:
    account = service.account
    records = list(walk(lambda query: get(service, name, [*query.items()]), limit="97"))
    listed = {
        "deployments": account.deployments,
        "deployment_runs": account.runs,
        "sessions": [each for each in account.sessions if each["id"] not in account.not_listed],
        "agents": account.agents,
        "environments": account.environments,
    }[name]
    assert records == [each for each in listed if each.get("archived_at") is None]
    assert get(service, f"{name}/{records[-1]['id']}") == records[-1]


@pytest.mark.parametrize(
    ("path", "query", "param"),
    [
        ("deployment_runs", [("limit", "101")], "limit"),
        ("deployment_runs", [("limit", "0")], "limit"),
        ("deployment_runs", [("status", "failed")], "status"),
        ("deployment_runs", [("trigger_type", "retry")], "trigger_type"),
        ("deployment_runs", [("after_id", "x"), ("page", "x")], "page"),
        ("deployment_runs", [("after_id", "nothing")], "after_id"),
        ("deployment_runs", [("created_at[gte]", "yesterday")], "created_at[gte]"),
        ("deployments", [("since", "1")], "since"),
        ("sessions", [("after_id", "x")], "after_id"),
        ("sessions", [("order", "up")], "order"),
        ("agents", [("before_id", "x")], "before_id"),
        ("sessions/sess_000001", [("limit", "1")], "limit"),
    ],
)
def test_fake_service_refuses_invalid_query_parameters(
    service: EditionD, path: str, query: list[tuple[str, str]], param: str
) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(service, path, query)
    body = json.loads(caught.value.read())
    assert caught.value.code == 400
    assert (body["error"]["type"], body["error"]["param"]) == ("invalid_request_error", param)
    assert body["request_id"].startswith("req_")
    assert "x-request-id" not in caught.value.headers


@pytest.mark.parametrize(("path", "token", "status"), [("sessions/none", TOKEN, 404), ("sessions", "pt-no", 401)])
def test_fake_service_returns_404_for_unknown_ids_and_401_for_bad_tokens(
    service: EditionD, path: str, token: str, status: int
) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(service, path, token=token)
    assert caught.value.code == status
    caught.value.close()


# -- outcomes, and the number of requests


def test_outcomes_from_events_are_correct(service: EditionD, loads: dict[str, Loaded]) -> None:
    assert_truth(loads["events"].frame, service.account.truth)
    assert loads["events"].warning_texts == []


def test_outcomes_from_sessions_are_correct_without_events(service: EditionD, loads: dict[str, Loaded]) -> None:
    sessions = load(service, loads["auto"].folder, outcomes="sessions")
    assert sessions.requests == []
    assert_truth(sessions.frame, service.account.truth_without_events)
    pd.testing.assert_frame_equal(loads["auto"].frame, sessions.frame, check_flags=False)


def test_auto_warns_of_assumed_runs_and_the_requests_that_events_need(
    service: EditionD, loads: dict[str, Loaded]
) -> None:
    assumed = sum(
        (each.status, each.status_from) == ("completed", "session")
        for each in service.account.truth_without_events.values()
    )
    (warning,) = loads["auto"].warning_texts
    assert re.search(rf"\b{assumed:,} ", warning)
    assert "outcomes='events'" in warning
    requests = int(re.findall(r"([\d,]+) requests", warning)[0].replace(",", ""))
    read = {request.path for request in loads["events"].requests if request.list == "sessions/*/events"}
    assert requests == len(read)
    assert re.search(rf" requests, {round(requests / 10)} s", warning)  # at 100 ms a request


def test_outcomes_runs_reads_only_run_records(service: EditionD, loads: dict[str, Loaded]) -> None:
    frame = loads["runs"].frame
    assert count_requests(loads["runs"].requests) == {"deployment_runs": 6} | _REFUSED_FIRST_REQUEST
    truth_from_runs = {
        id_: truth for id_, truth in service.account.truth.items() if truth.status_from in {"service", "run"}
    }
    known = frame[frame["status_from"].notna()]
    assert_truth(known, truth_from_runs)
    unknown = frame[frame["status_from"].isna()]
    assert unknown[["status", "started_at", "completed_at", "duration_ms", "error_type"]].isna().all(axis=None)
    assert list(unknown["triggered_at"]) == [service.account.truth[id_].triggered_at for id_ in unknown["id"]]


def test_first_load_sends_the_expected_requests(service: EditionD, loads: dict[str, Loaded]) -> None:
    account = service.account
    needed = [run for run in account.runs if "status" not in run and run["session_id"]]
    listed = [each for each in account.sessions if each["id"] not in account.not_listed]
    reached = sum(parse(each["created_at"]) >= parse(needed[-1]["created_at"]) for each in listed)
    sessions = -(-reached // 100)
    gone, unlisted = (len(sessions_of(account, name)) for name in ("deleted", "not listed"))
    costs = {
        "deployment_runs": 6,
        "sessions": sessions,
        "sessions/* 404": gone,
        "sessions/*": unlisted,
    } | _REFUSED_FIRST_REQUEST
    assert count_requests(loads["auto"].requests) == costs
    events = sum(kind.requests for kind in account.kind_of.values())
    assert count_requests(loads["events"].requests) == costs | {"sessions/*/events": events}
    each = Counter(request.path.split("/")[1] for request in loads["events"].requests if "events" in request.path)
    for run in account.runs:
        assert each[run["session_id"]] == account.kind_of[run["id"]].requests, account.kind_of[run["id"]].name
    queries = [request.query for request in loads["events"].requests if "events" in request.path]
    assert all(("order", "asc") in query and ("limit", "100") in query for query in queries)


@pytest.mark.parametrize("mode", ["sessions", "events"])
def test_load_within_max_age_or_offline_sends_no_request(
    service: EditionD, loads: dict[str, Loaded], mode: str
) -> None:
    truth = service.account.truth if mode == "events" else service.account.truth_without_events
    folder = loads["events" if mode == "events" else "auto"].folder
    for offline in (False, True):
        again = load(service, folder, outcomes=mode, offline=offline)
        assert again.requests == []
        assert_truth(again.frame, truth)


@pytest.mark.parametrize("mode", ["auto", "sessions"])
def test_outcomes_from_stored_events_are_used_in_every_mode(
    service: EditionD, loads: dict[str, Loaded], mode: str
) -> None:
    again = load(service, loads["events"].folder, outcomes=mode)
    assert again.requests == []
    assert_truth(again.frame, service.account.truth)


def test_refresh_reads_no_events_again_if_nothing_changed(service: EditionD, loads: dict[str, Loaded]) -> None:
    again = load(service, loads["events"].folder, outcomes="events", refresh=True)
    assert_truth(again.frame, service.account.truth)
    counts = count_requests(again.requests)
    pending = len(sessions_of(service.account, "pending"))
    # A pending run is read by its id or in a page.
    assert counts["deployment_runs"] + counts["deployment_runs/*"] == 1 + pending
    assert counts["deployment_runs"] <= 2
    assert counts["sessions"] <= count_requests(loads["events"].requests)["sessions"]
    assert set(counts) <= {"deployment_runs", "deployment_runs/*", "deployment_runs 400", "sessions", "sessions/*"}


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EditionD, qd.Client, Path]]:
    """Serve an account in which all runs have ended, and load it with its events."""
    kinds = tuple(kind._replace(runs=min(4, kind.runs)) for kind in SETTLED if kind.name != "done")
    folder = tmp_path_factory.mktemp("settled")
    with EditionD(Account(kinds, spacing=60), max_requests=1_500) as service:
        client = client_of(service)
        assert_truth(load(service, folder, client, outcomes="events").frame, service.account.truth)
        yield service, client, folder


@pytest.mark.parametrize("mode", ["events", "sessions", "auto"])
def test_refresh_of_ended_runs_reads_only_recent_sessions(
    settled: tuple[EditionD, qd.Client, Path], mode: str
) -> None:
    """It reads one page of runs, the sessions of the last 7 days, and at most one page more of sessions."""
    service, client, folder = settled
    account = service.account
    recent = [each for each in account.sessions if parse(each["created_at"]) > account.now - timedelta(days=7)]
    assert len(account.runs) > 150
    assert 100 < len(recent) < len(account.sessions) - 150
    again = load(service, folder, client, outcomes=mode, refresh=True)
    counts = count_requests(again.requests)
    assert set(counts) == {"deployment_runs", "sessions"}
    assert counts["deployment_runs"] == 1
    assert counts["sessions"] <= -(-len(recent) // 100) + 1
    assert_truth(again.frame, account.truth)


@pytest.mark.parametrize("since", ["2D", "8D"])
def test_refresh_with_since_reads_at_most_three_pages_of_sessions(tmp_path: Path, since: str) -> None:
    """`since` may be later or earlier than the start of the sessions that are read again."""
    kinds = tuple(kind._replace(runs=60 if kind.name == "done" else 2) for kind in KINDS[:20])
    with EditionD(Account(kinds, spacing=180), max_requests=100) as service:
        client = client_of(service)
        for refresh in (False, True, True):
            loaded = load(service, tmp_path, client, outcomes="sessions", since=since, refresh=refresh)
            start, truths = service.account.now - pd.Timedelta(since), service.account.truth_without_events
            assert_truth(loaded.frame, {id_: each for id_, each in truths.items() if each.triggered_at >= start})
            assert count_requests(loaded.requests)["sessions"] <= 3


# -- accounts that change between two loads


@pytest.fixture(scope="module")
def loaded_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EditionD, qd.Client, Account, Path]]:
    """Serve a small account, and load it with its events."""
    folder = tmp_path_factory.mktemp("loaded-once")
    names = {
        "done", "runs", "waits", "idle, no end", "continued, failed", "deleted", "no session", "fatal, no end",
    }  # fmt: skip
    kinds = tuple(kind._replace(runs=3) for kind in KINDS if kind.name in names)
    with EditionD(Account(kinds, spacing=600)) as service:
        client = client_of(service)
        load(service, folder, client, outcomes="events")
        again = load(service, folder, client, outcomes="events", refresh=True)
        assert_truth(again.frame, service.account.truth)
        assert set(count_requests(again.requests)) == _REFRESH
        yield service, client, service.account, folder


@pytest.fixture
def changing(loaded_once: tuple[EditionD, qd.Client, Account, Path], tmp_path: Path) -> Changing:
    """Return a copy of that account and its cache, and a function that loads it again, for one test."""
    service, client, account, folder = loaded_once
    service.account, service.before = copy.deepcopy(account), None
    service.max_requests = len(service.requests) + 300
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)

    def again(**options: Any) -> Loaded:  # noqa: ANN401
        loaded = load(service, tmp_path, client, outcomes="events", **{"refresh": True, **options})
        assert_truth(loaded.frame, service.account.truth)
        return loaded

    return service, client, again


#: The lists that a refresh reads; the open sessions older than 7 days are on the one page of sessions too.
_REFRESH = {"deployment_runs", "sessions"}
Changing = tuple[EditionD, qd.Client, Callable[..., Loaded]]


def add_run_of(account: Account, name: str, time: datetime | None = None) -> dict[str, Any]:
    """Add a run of the kind of this name, by default now, and return it."""
    return account.add_run(next(kind for kind in KINDS if kind.name == name), time or account.now)


def delete_session(account: Account, session: str) -> None:
    account.sessions.remove(account.session(session))


def truth_of(account: Account, session: str) -> Truth:
    return next(account.truth[run["id"]] for run in account.runs if run["session_id"] == session)


def set_end(truth: Truth, status: str, end: dict[str, Any]) -> None:
    """Expect that events say that the run ended with this event."""
    truth.status, truth.status_from, truth.completed_at = status, "events", parse(end["processed_at"])
    assert truth.started_at is not None
    truth.duration_ms = (truth.completed_at - truth.started_at) / timedelta(milliseconds=1)


def events_read(loaded: Loaded) -> list[str]:
    return [request.path.split("/")[1] for request in loaded.requests if request.list == "sessions/*/events"]


def test_events_of_a_running_session_are_read_once_it_ends(changing: Changing) -> None:
    service, _, again = changing
    session = sessions_of(service.account, "runs")[1]
    begun = service.account.events[session][0]["processed_at"]
    *_, end = service.account.continue_session(session, "msg; idle end_turn", "idle")
    truth = truth_of(service.account, session)
    truth.started_at = parse(begun)
    set_end(truth, "completed", end)
    loaded = again()
    assert events_read(loaded) == [session]
    assert set(count_requests(loaded.requests)) == {*_REFRESH, "sessions/*/events"}
    assert events_read(again()) == []


def test_waiting_session_is_running_and_then_cancelled(changing: Changing) -> None:
    service, _, again = changing
    session = sessions_of(service.account, "waits")[0]
    service.account.continue_session(session, "run", "running")
    truth = truth_of(service.account, session)
    truth.status, truth.status_from, waited = "running", "session", truth.started_at
    truth.started_at = parse(service.account.session(session)["created_at"])
    assert events_read(again()) == []
    *_, end = service.account.continue_session(session, "idle cancelled", "idle")
    truth.started_at = waited
    set_end(truth, "cancelled", end)
    assert events_read(again()) == [session]


def test_failed_run_is_completed_after_its_session_continues(changing: Changing) -> None:
    service, _, again = changing
    session = add_run_of(service.account, "fatal, no end")["session_id"]
    assert events_read(again()) == [session]
    *_, end = service.account.continue_session(session, "run; idle")
    truth = truth_of(service.account, session)
    truth.error_type = truth.error_message = None
    set_end(truth, "completed", end)
    assert events_read(again()) == [session]


def test_only_events_without_a_final_end_are_read_again(changing: Changing) -> None:
    service, _, again = changing
    settled = sessions_of(service.account, "done", "continued, failed")
    undecided = sessions_of(service.account, "idle, no end")
    for session in (*settled, *undecided):
        service.account.continue_session(session, "msg")
    assert sorted(events_read(again())) == sorted(undecided)
    for session in settled:  # a final end is kept if the session continues
        service.account.continue_session(session, "run; error terminal", "running")
    assert events_read(again()) == []


def test_refresh_requests_sessions_and_events_of_new_runs_only(changing: Changing) -> None:
    service, _, again = changing
    for name in ("out of retries", "deleted", "runs", "no session", "long"):
        add_run_of(service.account, name)
    loaded = again()
    new = [run["session_id"] for run in service.account.runs[:5]]
    assert sorted(set(events_read(loaded))) == sorted([new[0], new[4]])
    counts = count_requests(loaded.requests)
    assert (counts["deployment_runs"], counts["sessions/* 404"]) == (1, 1)
    assert counts["sessions"] <= 2
    assert counts["sessions/*/events"] == 3
    assert set(count_requests(again().requests)) <= _REFRESH


def test_deleted_session_of_an_ended_run_is_requested_once(changing: Changing, tmp_path: Path) -> None:
    service, client, _ = changing
    run = add_run_of(service.account, "done")
    load(service, tmp_path, client, outcomes="sessions", refresh=True)
    delete_session(service.account, run["session_id"])
    loaded = load(service, tmp_path, client, outcomes="events")
    assert count_requests(loaded.requests) == {"sessions/*/events 404": 1}
    for options in ({}, {"refresh": True}):
        loaded = load(service, tmp_path, client, outcomes="events", **options)
        assert not any(run["session_id"] in request.path for request in loaded.requests)


def test_old_deleted_session_of_a_running_run_is_requested_once(changing: Changing, tmp_path: Path) -> None:
    """The run is no longer running, and its outcome is unknown."""
    service, client, _ = changing
    session = sessions_of(service.account, "runs")[-1]
    (run,) = (run for run in service.account.runs if run["session_id"] == session)
    delete_session(service.account, session)
    for outcomes, times in (("sessions", 1), ("sessions", 0), ("events", 0)):
        loaded = load(service, tmp_path, client, outcomes=outcomes, refresh=True)
        assert sum(session in request.path for request in loaded.requests) == times
        assert loaded.frame.set_index("id").loc[run["id"], ["status", "completed_at", "duration_ms"]].isna().all()


@pytest.mark.parametrize("continued", [False, True])
def test_run_of_a_deleted_waiting_session_stays_waiting(
    changing: Changing, tmp_path: Path, *, continued: bool
) -> None:
    service, client, _ = changing
    session = sessions_of(service.account, "waits")[0]
    if continued:
        service.account.continue_session(session, "run", "running")
        load(service, tmp_path, client, outcomes="sessions", refresh=True)
    delete_session(service.account, session)
    (run,) = (run for run in service.account.runs if run["session_id"] == session)
    for times in (1, 0):
        loaded = load(service, tmp_path, client, outcomes="events", refresh=True)
        assert sum(session in request.path for request in loaded.requests) == times
        (row,) = loaded.frame[loaded.frame["id"] == run["id"]].itertuples()
        assert (row.status, row.status_from) == ("waiting", "events")


def test_recent_deleted_session_of_a_running_run_is_requested_once(changing: Changing, tmp_path: Path) -> None:
    service, client, again = changing
    run = add_run_of(service.account, "runs")
    again()
    delete_session(service.account, run["session_id"])
    for times in (1, 0):
        loaded = load(service, tmp_path, client, outcomes="sessions", refresh=True)
        assert sum(run["session_id"] in request.path for request in loaded.requests) == times
        assert pd.isna(loaded.frame.set_index("id").loc[run["id"], "status"])


def test_load_sessions_reads_old_waiting_sessions_again(changing: Changing, tmp_path: Path) -> None:
    """`load_runs` then uses the sessions that `load_sessions` has stored."""
    service, client, _ = changing
    session = sessions_of(service.account, "waits")[-1]
    created = parse(service.account.session(session)["created_at"])
    assert created < service.account.now - timedelta(days=7)
    service.account.continue_session(session, "run; idle end_turn")
    sessions = qd.load_sessions(client=client, cache_dir=tmp_path, refresh=True, progress=False)
    updated = parse(service.account.session(session)["updated_at"])
    assert sessions.set_index("id").loc[session, "updated_at"] == updated
    truth = truth_of(service.account, session)
    assert truth.status == "waiting"
    runs = load(service, tmp_path, client, outcomes="events").frame.set_index("session_id")
    assert list(runs.loc[session, ["status", "status_from"]]) == ["completed", "events"]


def test_session_created_a_day_after_its_run_has_one_stored_end(changing: Changing, tmp_path: Path) -> None:
    """The end is stored in the partition of its run, also the one written after the session is deleted."""
    service, client, again = changing
    evening = (service.account.now + timedelta(days=1)).replace(hour=23, minute=59, second=22)
    run = add_run_of(service.account, "waits", evening)
    session = service.account.session(run["session_id"])
    session["created_at"] = (evening + timedelta(minutes=1)).isoformat().replace("+00:00", "Z")
    assert run["created_at"][:10] < session["created_at"][:10]
    again()
    service.account.sessions.remove(session)
    loaded = load(service, tmp_path, client, outcomes="events", refresh=True)
    assert loaded.frame.set_index("id").loc[run["id"], "status"] == "waiting"
    (folder,) = (path for path in (tmp_path / "outcomes").iterdir() if path.is_dir())
    ends = ds.dataset(folder / "data").to_table(["id", "end"]).to_pylist()
    assert [row["end"] for row in ends if row["id"] == session["id"]] == ["final"]


@pytest.mark.parametrize(("name", "status"), [("not listed", 403), ("done", 410)])
def test_refused_session_is_requested_again_after_max_age(tmp_path: Path, name: str, status: int) -> None:
    """Until then its run is unknown, or its outcome is assumed from the session."""
    kinds = tuple(kind._replace(runs=3) for kind in KINDS if kind.name in {"not listed", "done", "fatal, no end"})
    with EditionD(Account(kinds, spacing=60), max_requests=400) as service:
        refused = sessions_of(service.account, name)[0]

        def refuse(request: Request) -> None:
            if refused in request.path:
                raise Refusal(status, "permission_error", "not allowed")

        def ask(**options: Any) -> tuple[int, Any]:  # noqa: ANN401
            before = len(service.requests)
            frame = qd.load_runs(
                client=client_of(service), cache_dir=tmp_path, outcomes="events", progress=False, **options
            )
            row = frame.set_index("session_id").loc[refused]
            return sum(refused in request.path for request in service.requests[before:]), row["status_from"]

        service.before = refuse
        for times, options in zip((1, 0, 1, 0), ({}, {}, {"refresh": True}, {}), strict=True):
            with expect_unread_warning(expected=times > 0):
                asked, known_from = ask(**options)
            assert asked == times
            assert known_from == "session" if name == "done" else pd.isna(known_from)
        if name == "not listed":
            assert ask(offline=True)[0] == 0  # and no warning that its session is not stored
        service.before = None
        assert ask(max_age="0s") == (1 if name == "done" else 2, "events")


@pytest.mark.parametrize(
    ("status", "name", "known"), [(403, "waits", "waiting"), (501, "fatal, no end", "failed")]
)
def test_outcome_from_earlier_events_is_kept_if_events_are_refused(
    changing: Changing, tmp_path: Path, status: int, name: str, known: str
) -> None:
    """The session changes, runs for some time, and is then deleted."""
    service, client, _ = changing
    session = sessions_of(service.account, name)[0]
    service.account.continue_session(session, "msg")

    def refuse(request: Request) -> None:
        if request.path.endswith(f"{session}/events"):
            raise Refusal(status, "permission_error", "not allowed")

    def statuses(**options: Any) -> list[Any]:  # noqa: ANN401
        runs = qd.load_runs(client=client, cache_dir=tmp_path, progress=False, **options)
        lazy = qd.scan_runs(tmp_path, engine="polars", client=client).collect()
        of_lazy = dict(zip(lazy["session_id"], lazy["status"], strict=True))
        return [*runs.set_index("session_id").loc[session, ["status", "status_from"]], of_lazy[session]]

    service.before = refuse
    for refresh in (True, False):
        before = len(service.requests)
        times = 1 if refresh or status == 501 else 0
        with expect_unread_warning(expected=times == 1):
            assert statuses(outcomes="events", refresh=refresh) == [known, "events", known]
        paths = [request.path for request in service.requests[before:]]
        assert sum(path.endswith(f"{session}/events") for path in paths) == times
    assert statuses(outcomes="sessions") == [known, "events", known]
    service.account.continue_session(session, "run", "running")
    assert statuses(outcomes="events", refresh=True) == ["running", "session", "running"]
    delete_session(service.account, session)
    for times in (1, 0):
        before = len(service.requests)
        assert statuses(outcomes="events", refresh=True) == [known, "events", known]
        assert sum(session in request.path for request in service.requests[before:]) == times


@pytest.mark.parametrize(("name", "known"), [("waits", "waiting"), ("fatal, no end", "failed")])
def test_outcome_from_events_is_kept_if_the_session_is_deleted(
    changing: Changing, tmp_path: Path, name: str, known: str
) -> None:
    service, client, _ = changing
    session = sessions_of(service.account, name)[0]
    service.account.continue_session(session, "msg")
    qd.load_runs(outcomes="sessions", client=client, cache_dir=tmp_path, refresh=True, progress=False)
    delete_session(service.account, session)
    for times in (1, 0):
        before = len(service.requests)
        runs = qd.load_runs(outcomes="events", client=client, cache_dir=tmp_path, refresh=True, progress=False)
        found = runs.set_index("session_id").loc[session, ["status", "status_from"]]
        assert list(found) == [known, "events"]
        assert sum(session in request.path for request in service.requests[before:]) == times


def test_outcomes_of_a_damaged_data_file_are_read_again(few: EditionD, tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
        before = load(few, tmp_path, outcomes="events")
        # Which sessions are in the file of a day depends on the time of day: damage all.
        for file in tmp_path.glob("outcomes/*/data/*/*.parquet"):
            file.write_bytes(b"")
        with pytest.warns(CacheWarning, match=r"(\d+) of \1 data files .* are gone .* list of outcomes"):
            again = load(few, tmp_path, outcomes="events")
    pd.testing.assert_frame_equal(again.frame, before.frame)
    assert {request.list for request in again.requests} == {"sessions/*", "sessions/*/events"}


def expect_unread_warning(*, expected: bool) -> contextlib.AbstractContextManager[object]:
    """Expect the warning about a session that could not be read, or no warning."""
    if expected:
        return pytest.warns(DataQualityWarning, match="1 session could not be read, and what was known")
    return contextlib.nullcontext()


# -- filters


def has_runs_of(
    run_ids: pd.Series, account: Account, keep: Callable[[dict[str, Any], Truth], object], truth: dict[str, Truth]
) -> bool:
    """Return whether these are the runs that `keep` selects."""
    return set(run_ids) == {run["id"] for run in account.runs if keep(run, truth[run["id"]])}


Keep = Callable[[dict[str, Any], Truth], object]


def with_status(status: str) -> Keep:
    return lambda _, truth: truth.status == status


def triggered_by(type_: str) -> Keep:
    return lambda run, _: run["trigger_context"]["type"] == type_


_STATUSES = ("failed", "waiting", "running", "skipped")
_FILTERS: dict[str, tuple[Query, Keep]] = {
    **{f"status={status}": ({"status": status}, with_status(status)) for status in _STATUSES},
    "has_error": ({"has_error": True}, lambda _, truth: truth.error_type is not None),
    "has no error": ({"has_error": False}, lambda _, truth: truth.error_type is None),
    **{f"trigger_type={type_}": ({"trigger_type": type_}, triggered_by(type_)) for type_ in ("schedule", "retry")},
    "deployment": ({"deployment_id": "dep_0003"}, lambda run, _: run["deployment_id"] == "dep_0003"),
    "deployment failed": (
        {"deployment_id": "dep_0011", "status": "failed"},
        lambda run, truth: run["deployment_id"] == "dep_0011" and truth.status == "failed",
    ),
}


@pytest.fixture(scope="module")
def stored_folders(few: EditionD, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Load the small account with its sessions, and with its events."""
    folders = {mode: tmp_path_factory.mktemp(f"few-{mode}") for mode in ("sessions", "events")}
    for mode, folder in folders.items():
        load(few, folder, outcomes=mode)
    return folders


@pytest.mark.parametrize("name", _FILTERS)
def test_filters_of_stored_runs_send_no_request(few: EditionD, stored_folders: dict[str, Path], name: str) -> None:
    query, keep = _FILTERS[name]
    for mode, offline in (("events", False), ("events", True), ("sessions", False)):
        truth = few.account.truth if mode == "events" else few.account.truth_without_events
        loaded = load(few, stored_folders[mode], outcomes=mode, offline=offline, **query)
        assert loaded.requests == []
        assert has_runs_of(loaded.frame["id"], few.account, keep, truth)
        assert_truth(loaded.frame, {id_: truth[id_] for id_ in loaded.frame["id"]})


def test_filter_by_deployment_and_status_in_the_large_account(service: EditionD, loads: dict[str, Loaded]) -> None:
    query, keep = _FILTERS["deployment failed"]
    loaded = load(service, loads["events"].folder, outcomes="events", **query)
    assert loaded.requests == []
    assert not loaded.frame.empty
    assert has_runs_of(loaded.frame["id"], service.account, keep, service.account.truth)


@pytest.mark.parametrize("name", _FILTERS)
def test_filters_of_a_first_load_send_few_requests(few: EditionD, tmp_path: Path, name: str) -> None:
    query, keep = _FILTERS[name]
    loaded = load(few, tmp_path, outcomes="sessions", **query)
    assert has_runs_of(loaded.frame["id"], few.account, keep, few.account.truth_without_events)
    assert set(count_requests(loaded.requests)) <= {
        "deployment_runs",
        "deployment_runs 400",
        "sessions",
        "sessions/*",
        "sessions/* 404",
    }
    needed = -(-len(few.account.runs) // 100)
    assert count_requests(loaded.requests)["deployment_runs"] <= 2 * needed
    assert count_requests(loaded.requests)["deployment_runs 400"] <= 2  # because the edition is not known yet


@pytest.mark.parametrize("name", _FILTERS)
def test_filters_of_other_editions_are_not_sent_to_a_known_account(
    settled: tuple[EditionD, qd.Client, Path], name: str
) -> None:
    """A refresh loads new runs without the filter, and filters the stored ones."""
    service, client, folder = settled
    query, keep = _FILTERS[name]
    loaded = load(service, folder, client, outcomes="events", refresh=True, **query)
    assert has_runs_of(loaded.frame["id"], service.account, keep, service.account.truth)
    names = {key for request in loaded.requests for key, _ in request.query}
    assert names.isdisjoint({"status", "has_error"})
    assert {request.status for request in loaded.requests} == {200}


def test_status_filter_of_a_first_load_reads_the_events_of_all_runs(few: EditionD, tmp_path: Path) -> None:
    query, keep = _FILTERS["status=failed"]
    loaded = load(few, tmp_path, outcomes="events", **query)
    assert has_runs_of(loaded.frame["id"], few.account, keep, few.account.truth)
    assert count_requests(loaded.requests)["sessions/*/events"] == sum(
        kind.requests for kind in few.account.kind_of.values()
    )


@pytest.mark.parametrize(("first", "last"), [(None, 30), (30, None), (20, 60), (0, None), (None, None)])
@pytest.mark.parametrize("stored", [True, False])
def test_since_and_until(
    few: EditionD,
    stored_folders: dict[str, Path],
    tmp_path: Path,
    first: int | None,
    last: int | None,
    *,
    stored: bool,
) -> None:
    """The range is half-open, and uses the scheduled time if there is one."""
    times = sorted((truth.triggered_at for truth in few.account.truth.values()), reverse=True)
    since, until = (None if at is None else times[at] for at in (last, first))
    folder, mode = (stored_folders["events"], "events") if stored else (tmp_path, "sessions")
    loaded = load(few, folder, outcomes=mode, since=since, until=until)
    truth = few.account.truth if stored else few.account.truth_without_events
    wanted = {
        id_: each
        for id_, each in truth.items()
        if (since is None or since <= each.triggered_at) and (until is None or each.triggered_at < until)
    }
    assert_truth(loaded.frame, wanted)
    if stored:
        assert loaded.requests == []
    elif last is not None:
        counts = count_requests(loaded.requests)
        assert max(counts["deployment_runs"], counts["sessions"]) <= 2


def test_since_as_age_time_without_runs_and_offline_without_cache(
    service: EditionD, loads: dict[str, Loaded]
) -> None:
    recent = load(service, loads["events"].folder, since="3D").frame
    assert 100 < len(recent) < 200
    with pytest.warns(DataQualityWarning, match="newest"):
        assert load(service, loads["events"].folder, since="1min").frame.empty
    with pytest.raises(CacheError):
        load(service, loads["events"].folder / "none", offline=True)


# -- interrupted loads


class Fault(NamedTuple):
    """A fault, the number of requests in a row that have it, and the exception of a load with one retry."""

    inject: Callable[[], None]
    requests: int
    error: type[BaseException]


def load_with_fault(service: EditionD, folder: Path, after: int, fault: Fault) -> None:
    """Load with a fault from one event read on, and wait for a request that may still be running."""
    reads = itertools.count()

    def inject(request: Request) -> None:
        if request.list == "sessions/*/events" and after <= next(reads) < after + fault.requests:
            fault.inject()

    service.before = inject
    with pytest.raises(fault.error):
        load(service, folder, client_of(service, max_retries=1), outcomes="events")
    for thread in threading.enumerate():
        if thread.name in {"qoderdata-events", "qoderdata-fetch"}:
            thread.join(timeout=60)
            assert not thread.is_alive()
    service.before = None


def press_ctrl_c() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def refuse_token() -> None:
    raise Refusal(401, "authentication_error", "revoked")


def break_connection() -> None:
    raise ConnectionResetError


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(press_ctrl_c, 1, KeyboardInterrupt), id="Ctrl-C"),
        pytest.param(Fault(refuse_token, 1, AuthenticationError), id="401"),
        pytest.param(Fault(break_connection, 2, APIConnectionError), id="connection error"),
    ],
)
def test_events_read_before_an_interruption_are_kept(tmp_path: Path, fault: Fault) -> None:
    kinds = tuple(kind._replace(runs=min(kind.runs, 1)) for kind in KINDS)
    with EditionD(Account(kinds, spacing=10), max_requests=1_000) as service:
        account = service.account
        for after in (0, 17, 30):
            load_with_fault(service, tmp_path, after, fault)
        loaded = load(service, tmp_path, outcomes="events")
        assert_truth(loaded.frame, account.truth)
        assert load(service, tmp_path, outcomes="events").requests == []
    read = Counter(request.path for request in service.requests if request.list == "sessions/*/events")
    needed = {f"sessions/{run['session_id']}/events": account.kind_of[run["id"]].requests for run in account.runs}
    assert all(read[path] >= count for path, count in needed.items())
    repeated = {path: count - needed[path] for path, count in read.items() if count > needed[path]}
    assert sum(repeated.values()) <= 3 * 4
    lists = Counter(request.list for request in service.requests if request.status == 200)
    assert lists["deployment_runs"] == 1
    assert lists["sessions"] <= 3
    assert lists["sessions/*"] == 1


# -- tables, and secrets in them


class Tables(NamedTuple):
    """The tables of the small account."""

    deployments: pd.DataFrame
    sessions: pd.DataFrame
    runs: pd.DataFrame
    events: pd.DataFrame


@pytest.fixture(scope="module")
def tables(few: EditionD, stored_folders: dict[str, Path]) -> Tables:
    client, folder = client_of(few), stored_folders["events"]
    runs = load(few, folder, client, outcomes="events").frame
    return Tables(
        qd.load_deployments(client=client, cache_dir=folder, include_archived=True, progress=False),
        qd.load_sessions(client=client, cache_dir=folder, progress=False),
        runs,
        qd.load_events(sessions_of(few.account, "recovered")[0], client=client),
    )


def assert_no_secret(*texts: str) -> None:
    assert [text for text in texts if SECRET in text or TOKEN in text] == []


def test_exports_and_report_contain_no_secret(tables: Tables, tmp_path: Path) -> None:
    for name, frame in tables._asdict().items():
        assert name in {"runs", "events"} or frame["extra"].str.contains(SECRET).all()
        qd.export_csv(frame, tmp_path / f"{name}.csv")
    some = tables.deployments.head(5)
    runs = tables.runs[tables.runs["deployment_id"].isin(some["id"])]
    qd.write_report(some, tmp_path / "report.html", runs=runs)
    texts = [path.read_text(encoding="utf-8") for path in sorted(tmp_path.glob("*.*"))]
    assert len(texts) == 5
    assert min(map(len, texts)) > 400
    assert_no_secret(*texts)


def test_logs_errors_and_client_repr_contain_no_secret(
    few: EditionD, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = client_of(few)
    qd.load_deployments(client=client, cache_dir=tmp_path, progress=False)
    qd.load_sessions(client=client, cache_dir=tmp_path, progress=False)
    load(few, tmp_path, client, outcomes="events", since="1D")
    with pytest.raises(NotFoundError) as caught:
        client.get_session("sess_none")
    assert len(caplog.text) > 1_000
    assert_no_secret(
        caplog.text, repr(client), str(client), repr(vars(client)), repr(caught.value), str(caught.value)
    )


@pytest.mark.parametrize("name", ["deployments", "sessions", "runs", "events"])
def test_repr_of_a_frame_contains_no_secret(tables: Tables, name: str) -> None:
    """Also not in the text of a part of a frame; `extra` still holds the values."""
    frame = tables._asdict()[name]
    parts = [frame.head(2), pd.concat([frame, frame]), frame.sort_values("id"), frame["extra"], frame[["extra"]]]
    assert_no_secret(*map(repr, parts), *(part.to_html() for part in parts if isinstance(part, pd.DataFrame)))
    html: Callable[[], object] = getattr(frame, "_repr_html_")  # noqa: B009 - for pandas' types it is a column
    assert_no_secret(repr(frame), str(frame), str(html()), repr(frame.attrs))


def listed(account: Account) -> list[dict[str, Any]]:
    return [each for each in account.sessions if each["id"] not in account.not_listed]


def test_sessions_have_the_values_of_their_records(service: EditionD, tmp_path: Path) -> None:
    before = len(service.requests)
    frame = qd.load_sessions(client=client_of(service), cache_dir=tmp_path, progress=False)
    records = {record["id"]: record for record in listed(service.account)}
    assert count_requests(service.requests[before:]) == {"sessions": -(-len(records) // 100)}
    assert sorted(frame["id"]) == sorted(records)
    assert frame["created_at"].is_monotonic_decreasing
    for row in frame.to_dict("records"):
        record = records[row["id"]]
        model = record["agent"]["model"]
        expected = {
            "title": record["title"],
            "status": record["status"],
            "deployment_id": record["deployment_id"],
            "agent_id": record["agent"]["id"],
            "agent_name": record["agent"]["name"],
            "agent_version": record["agent"]["version"],
            "agent_model": model if isinstance(model, str) else model["id"],
            "environment_id": record["environment_id"],
            **{
                f"{name}_at": record[f"{name}_at"] and parse(record[f"{name}_at"])
                for name in ("created", "updated", "archived")
            },
            **{
                f"usage_{name}": record.get("usage", {}).get(name)
                for name in ("total_credits", "model_credits", "input_tokens")
            },
            "stats_duration_seconds": record["stats"]["duration_seconds"],
            "budget_max_credit_cost": None,
        }
        assert {name: value(row[name]) for name in expected} == expected
        assert json.loads(row["agent"])["system"] == "Be brief."
        api_key = json.loads(row["extra"])["environment_variables.API_KEY"]
        assert api_key == record["environment_variables"]["API_KEY"]
    flat = qd.flatten_sessions(listed(service.account))
    one, other = (
        each.assign(agent=each["agent"].astype("str")).sort_values("id", ignore_index=True)
        for each in (flat, frame)
    )
    pd.testing.assert_frame_equal(one, other, check_flags=False)
    golden = json.loads((Path(__file__).parents[1] / "data/d_list_sessions.frame.json").read_bytes())
    assert frame.dtypes.map(str).to_dict() == {name: column["dtype"] for name, column in golden.items()}


def test_sessions_of_one_deployment_or_agent(few: EditionD, tmp_path: Path) -> None:
    client = client_of(few)
    frame = qd.load_sessions(deployment_id="dep_0003", client=client, cache_dir=tmp_path, progress=False)
    assert set(frame["id"]) == {each["id"] for each in listed(few.account) if each["deployment_id"] == "dep_0003"}
    frame = qd.load_sessions(agent_id="agent_0003", client=client, cache_dir=tmp_path, progress=False)
    assert set(frame["id"]) == {each["id"] for each in listed(few.account) if each["agent"]["id"] == "agent_0003"}


@pytest.mark.parametrize("name", ["agents", "environments"])
def test_load_agents_and_environments_have_the_values_of_the_records(
    few: EditionD, tmp_path: Path, name: str
) -> None:
    loader = qd.load_agents if name == "agents" else qd.load_environments
    before = len(few.requests)
    frame = loader(client=client_of(few), cache_dir=tmp_path)
    assert count_requests(few.requests[before:]) == {name: 1}
    records = few.account.agents if name == "agents" else few.account.environments
    for row, record in zip(frame.to_dict("records"), records, strict=True):
        assert [value(row[key]) for key in ("id", "name", "description")] == [
            record[key] for key in ("id", "name", "description")
        ]
        assert value(row["archived_at"]) == (record["archived_at"] and parse(record["archived_at"]))
        assert json.loads(row["metadata"]) == record["metadata"]
        if name == "agents":
            model = record["model"]
            assert row["model"] == (model if isinstance(model, str) else model["id"])
            assert row["version"] == record["version"]
        else:
            assert row["config_type"] == "cloud"
            assert "environment_variables" not in row
    assert frame["archived_at"].notna().sum() == 1
    loader(client=client_of(few), cache_dir=tmp_path)
    assert len(few.requests) == before + 1


@pytest.mark.parametrize(
    "kind", ["many messages", "out of retries", "no time at the end", "long, waits", "idle, no events"]
)
def test_events_have_the_values_of_their_records(service: EditionD, kind: str) -> None:
    session = sessions_of(service.account, kind)[0]
    records = service.account.events[session]
    before = len(service.requests)
    frame = qd.load_events(session, client=client_of(service))
    assert count_requests(service.requests[before:]) == {"sessions/*/events": max(1, -(-len(records) // 100))}
    assert list(frame["position"]) == list(range(len(records)))
    assert (frame["session_id"] == session).all()
    for row, record in zip(frame.to_dict("records"), records, strict=True):
        error = record.get("error", {})
        expected = {
            "id": record["id"],
            "type": record["type"],
            "processed_at": parse(record["processed_at"]) if "processed_at" in record else None,
            "stop_reason": (record.get("stop_reason") or {}).get("type"),
            "error_type": error.get("type"),
            "error_message": error.get("message"),
            "retry_status": error.get("retry_status", {}).get("type"),
            "model_credits": record.get("model_usage", {}).get("credits"),
        }
        assert {name: value(row[name]) for name in expected} == expected
    pd.testing.assert_frame_equal(qd.flatten_events(records, session), frame, check_flags=False)
    assert (frame.attrs["from_cache"], frame.attrs["complete"]) == (False, True)
    assert datetime.now(UTC) - datetime.fromisoformat(frame.attrs["fetched_at"]) < timedelta(minutes=1)
    idle = qd.load_events(session, types=["session.status_idle"], client=client_of(service))
    assert len(idle) == sum(record["type"] == "session.status_idle" for record in records)
    assert list(idle.dtypes) == list(frame.dtypes)
    assert list(idle["position"]) == list(range(len(idle)))
    one = qd.load_events(session, types="session.status_idle", client=client_of(service))
    pd.testing.assert_frame_equal(one, idle)


def test_load_events_asks_for_the_types_and_the_oldest_first(service: EditionD) -> None:
    session, client = sessions_of(service.account, "many messages")[0], client_of(service)
    before = len(service.requests)
    qd.load_events(session, client=client)
    qd.load_events(session, types=["session.error", "session.status_idle"], client=client)
    whole = [sorted(request.query) for request in service.requests[before:]]
    assert [query for query in whole if not dict(query).get("page")] == [
        [("limit", "100"), ("order", "asc")],
        [("limit", "100"), ("order", "asc"), ("types[]", "session.error"), ("types[]", "session.status_idle")],
    ]


def test_load_events_filters_types_if_the_service_does_not(
    service: EditionD, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service may ignore the parameter."""
    session, client = sessions_of(service.account, "many messages")[0], client_of(service)
    idle = qd.load_events(session, types={"session.status_idle"}, client=client)
    get = qd.Client.get

    def get_all_types(self: qd.Client, path: str, params: dict[str, Any], read: Callable[[bytes], Any]) -> Any:  # noqa: ANN401
        return get(self, path, {name: each for name, each in params.items() if name != "types[]"}, read)

    monkeypatch.setattr(qd.Client, "get", get_all_types)
    every = qd.load_events(session, client=client)
    assert 0 < len(idle) < len(every)
    again = qd.load_events(session, types="session.status_idle", client=client)
    pd.testing.assert_frame_equal(again, idle, check_flags=False)
    types = ["no.such_type", "user.interrupt"]
    with pytest.warns(DataQualityWarning, match=r"no event has the type 'no\.such_type'.* session\.error,"):
        assert qd.load_events(session, types=types, client=client).empty


@pytest.mark.parametrize(
    ("session", "types", "message"),
    [
        ("sess_1", [], r"types=\[\] names no type of events; .* None for all"),
        ("sess_1", "", "types='' names no type"),
        ("sess_1", 5, "types=5 names no type"),
        ("sess_1", ["session.error", 5], "names no type"),
        (float("nan"), None, "session_id=nan is a missing value: this run has no session"),
        (None, None, "this run has no session"),
        (" ", None, "session_id=' ' is not the id of anything"),
    ],
)
def test_load_events_refuses_invalid_session_ids_and_types(session: Any, types: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=message):
        qd.load_events(session, types=types)


@pytest.mark.parametrize("session", [None, 5, ["sess_1"], " "])
def test_flatten_events_refuses_what_is_no_session_id(session: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match="session_id"):
        qd.flatten_events([{"id": "evt_1", "type": "session.error"}], session)


def test_load_events_with_the_id_of_a_run_or_deployment_hints_at_the_session_id(service: EditionD) -> None:
    notes = {
        "drun_1": ["This is the id of a run: give its session_id."],
        "dep_1": ["This is the id of a deployment: give the session_id of one of its runs."],
        "sess_none": [],
    }
    for given, expected in notes.items():
        with pytest.raises(NotFoundError) as caught:
            qd.load_events(given, client=client_of(service))
        assert getattr(caught.value, "__notes__", []) == expected


@pytest.mark.parametrize("outcomes", ["auto", "sessions", "events"])
def test_error_for_refused_sessions_says_that_the_runs_are_stored(
    few: EditionD,
    tmp_path: Path,
    outcomes: Any,  # noqa: ANN401
) -> None:
    def refuse(request: Request) -> None:
        if request.list == "sessions":
            raise Refusal(403, "permission_error", "not allowed")

    few.before = refuse
    try:
        with pytest.raises(PermissionDeniedError) as caught:
            qd.load_runs(client=client_of(few), cache_dir=tmp_path, outcomes=outcomes)
        (note,) = caught.value.__notes__
        stored = "The runs and what was read of their sessions are stored"
        assert note.startswith(f"{stored}; load_runs(outcomes='runs')")
        runs = qd.load_runs(client=client_of(few), cache_dir=tmp_path, outcomes="runs")
    finally:
        few.before = None
    assert (len(runs), runs.attrs["requests"]) == (len(few.account.runs), 0)


# -- figures compared with an independent count


def count_failed_in_a_row(account: Account, deployment: str) -> int:
    """Count the failed runs after the last completed one."""
    runs = [(account.truth[run["id"]], run) for run in account.runs if run["deployment_id"] == deployment]
    runs.sort(key=lambda each: (each[0].triggered_at, each[1]["created_at"]), reverse=True)
    decided = [truth.status == "failed" for truth, _ in runs if truth.status in {"failed", "completed"}]
    return decided.index(False) if False in decided else len(decided)


def test_counters_are_filled_from_the_runs(service: EditionD, loads: dict[str, Loaded], tmp_path: Path) -> None:
    account = service.account
    deployments = qd.load_deployments(
        client=client_of(service), cache_dir=tmp_path, include_archived=True, progress=False
    )
    counters = [
        "stats_total_runs",
        "stats_total_failures",
        "stats_consecutive_failures",
        "stats_last_triggered_at",
    ]
    assert deployments[counters].isna().all(axis=None)
    with pytest.warns(UserWarning, match="fill_counters"):
        qd.failure_rates(deployments)
    filled = qd.fill_counters(deployments, loads["events"].frame)
    for row in filled.to_dict("records"):
        truths = [account.truth[run["id"]] for run in account.runs if run["deployment_id"] == row["id"]]
        expected = [
            len(truths),
            sum(truth.status == "failed" for truth in truths),
            count_failed_in_a_row(account, row["id"]),
            max((truth.triggered_at for truth in truths), default=None),
        ]
        assert [value(row[name]) for name in counters] == expected, row["id"]
    assert (filled["stats_total_runs"] == 0).sum() == 2
    budgets = {record["id"]: record.get("budget") for record in account.deployments}
    assert set(filled["id"][filled["budget_max_credit_cost"].eq(12.5)]) == {
        id_ for id_, budget in budgets.items() if budget
    }


@pytest.mark.parametrize("mode", ["events", "sessions"])
def test_run_failure_rates_count_assumed_and_unknown_runs(
    service: EditionD, loads: dict[str, Loaded], mode: str
) -> None:
    account = service.account
    truth = account.truth if mode == "events" else account.truth_without_events
    rates = qd.run_failure_rates(loads["events" if mode == "events" else "auto"].frame)
    by = rates.reset_index().set_index("deployment_id")
    for deployment, row in by.iterrows():
        truths = [truth[run["id"]] for run in account.runs if run["deployment_id"] == deployment]
        statuses = Counter(each.status for each in truths)
        expected = {
            "runs": len(truths),
            "completed": statuses["completed"],
            "assumed": sum((each.status, each.status_from) == ("completed", "session") for each in truths),
            "failed": statuses["failed"],
            "skipped": statuses["skipped"] + statuses["cancelled"],
            "unfinished": statuses["pending"] + statuses["running"] + statuses["waiting"],
            "unknown": statuses[None],
        }
        assert {name: row[name] for name in expected} == expected
        assert row[["completed", "failed", "skipped", "unfinished", "unknown"]].sum() == row["runs"]
    assert len(by) == len({run["deployment_id"] for run in account.runs})
    assert str(rates["assumed"].dtype) == str(rates["unknown"].dtype) == "Int64"


def test_run_failure_rates_per_occurrence_use_the_last_run(service: EditionD, loads: dict[str, Loaded]) -> None:
    """The last run at a scheduled time counts; a run without a scheduled time is its own occurrence."""
    account = service.account
    last: dict[object, dict[str, Any]] = {}
    for run in account.runs:  # newest first
        if "status" not in run:
            time = run["trigger_context"].get("scheduled_at", run["id"])
            last.setdefault((run["deployment_id"], time), run)
    new = loads["events"].frame
    new = new[new["status_from"] != "service"]
    rates = qd.run_failure_rates(new, by=None, per="occurrence").iloc[0]
    statuses = Counter(account.truth[run["id"]].status for run in last.values())
    assert len(last) < len(new)
    expected = [statuses["completed"], statuses["failed"], statuses[None]]
    assert rates[["completed", "failed", "unknown"]].tolist() == expected
