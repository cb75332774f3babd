"""Tests of `load_runs` over real HTTP: all runs with current values, for few requests."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pandas as pd
import pytest

from qoderdata import pages
from qoderdata.client import Client
from qoderdata.errors import CacheError, CacheWarning, DataQualityWarning
from qoderdata.load.deployment_history import snapshots
from qoderdata.load.lists import load_deployments
from qoderdata.load.runs import load_runs
from qoderdata.load.sessions import load_sessions
from qoderdata.pages import ProgressBar
from qoderdata.sandbox import Sandbox
from tests.sandbox_loads import expected_runs, load, sandbox_with_newest, triggered_at
from tests.wall_clock import set_wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PAGE_SIZES = {"A": 1000, "B": 100, "C": 100}
#: Without edition A, which differs from B only in its larger pages.
EDITIONS_WITH_SMALL_PAGES = pytest.mark.parametrize("sandbox", ["B", "C"], indirect=True)


@pytest.fixture(params=["A", "B", "C"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Serve two pages of edition A, or three of B and C."""
    size = {"runs": 1_050, "deployments": 200, "generated": 1_500} if request.param == "A" else {"runs": 250}
    with sandbox_with_newest(**size, edition=request.param) as running:
        yield running


@pytest.fixture
def service() -> Iterator[Sandbox]:
    """Serve an account with the default edition."""
    with sandbox_with_newest(250) as running:
        yield running


def test_all_runs_are_loaded_with_the_fewest_requests(sandbox: Sandbox, tmp_path: Path) -> None:
    frame = load(sandbox, tmp_path)
    pd.testing.assert_frame_equal(frame, expected_runs(sandbox))
    refused = sandbox.edition == "C"
    assert len(sandbox.requests) == -(-len(frame) // PAGE_SIZES[sandbox.edition]) + refused
    assert {name: frame.attrs[name] for name in ("source", "from_cache", "complete", "requests")} == {
        "source": f"{sandbox.base_url}/deployment_runs",
        "from_cache": False,
        "complete": True,
        "requests": len(sandbox.requests),
    }
    again = load(sandbox, tmp_path)
    pd.testing.assert_frame_equal(again, frame)
    assert again.attrs == frame.attrs | {"from_cache": True, "requests": 0}


def test_refresh_requests_only_new_and_open_runs(sandbox: Sandbox, tmp_path: Path) -> None:
    load(sandbox, tmp_path)
    for new in (0, 1, 250) if sandbox.edition == "A" else (0, 1, 98, 99, 100, 101, 250):
        sandbox.create_runs(new)
        before = len(sandbox.requests)
        still_open = sum(run["status"] in {"pending", "running"} for run in sandbox.runs)
        frame = load(sandbox, tmp_path, refresh=True)
        assert len(sandbox.requests) - before <= new // PAGE_SIZES[sandbox.edition] + 2 + still_open
        pd.testing.assert_frame_equal(frame, expected_runs(sandbox))


def test_refresh_reads_open_runs_again_until_they_end(service: Sandbox, tmp_path: Path) -> None:
    open_runs = [run["id"] for run in service.create_runs(2, status="running")]
    service.create_runs(200)
    load(service, tmp_path)
    for run in open_runs:
        service.create_runs(1)
        service.finish_run(run, status="failed")
        pd.testing.assert_frame_equal(load(service, tmp_path, refresh=True), expected_runs(service))
    before = [request.path for request in service.requests]
    load(service, tmp_path, refresh=True)
    after = [request.path for request in service.requests][len(before) :]
    assert not any(path.endswith(run) for path in after for run in open_runs)
    assert any(path.endswith(open_runs[0]) for path in before)


def test_refresh_reads_many_adjacent_open_runs_in_pages(service: Sandbox, tmp_path: Path) -> None:
    open_runs = [run["id"] for run in service.create_runs(250, status="running")]
    load(service, tmp_path)
    for run in open_runs:
        service.finish_run(run)
    before = len(service.requests)
    pd.testing.assert_frame_equal(load(service, tmp_path, refresh=True), expected_runs(service))
    assert len(service.requests) - before < 10


def test_run_that_the_service_forgot_is_kept(service: Sandbox, tmp_path: Path) -> None:
    """Also an open run stays, with its last status; it is requested only once more."""
    service.create_runs(1, status="running")
    first = load(service, tmp_path)
    service.create_runs(1)
    assert service.forget_runs(triggered_at(service.runs[0]))
    # No stored run is listed any more, so the list cannot show that there is no gap.
    with pytest.warns(DataQualityWarning, match="refresh='all' if the service has forgotten the older runs"):
        frame = load(service, tmp_path, refresh=True)
    pd.testing.assert_frame_equal(frame.iloc[1:].reset_index(drop=True), first)
    assert len(service.requests) > len(first) // 100
    load(service, tmp_path, refresh="all")
    before = len(service.requests)
    load(service, tmp_path, refresh=True)
    assert {request.path for request in service.requests[before:]} == {"/deployment_runs"}


BOUNDS = [("2026-06-14T00:00Z", None), (None, "2026-06-13T00:00Z"), ("2026-06-13T00:00Z", "2026-06-14T00:00Z")]


@EDITIONS_WITH_SMALL_PAGES
@pytest.mark.parametrize(("since", "until"), BOUNDS)
def test_since_and_until_are_half_open_on_triggered_at(
    sandbox: Sandbox, tmp_path: Path, since: str | None, until: str | None
) -> None:
    def wanted(run: dict[str, Any]) -> bool:
        at = triggered_at(run)
        return (since is None or pd.Timestamp(since) <= at) and (until is None or at < pd.Timestamp(until))

    frame = load(sandbox, tmp_path, since=since, until=until)
    assert 0 < len(frame) < len(sandbox.runs)
    pd.testing.assert_frame_equal(frame, expected_runs(sandbox, wanted))
    assert load(sandbox, tmp_path, since=since, until=until).attrs["requests"] == 0
    if since is not None:
        assert (
            len(sandbox.requests)
            <= 2 + sum(pd.Timestamp(since) <= triggered_at(run) for run in sandbox.runs) // 50
        )


def test_run_at_the_bound_is_in_since_and_not_in_until(service: Sandbox, tmp_path: Path) -> None:
    run = service.runs[100]
    at = triggered_at(run).floor("us")
    assert run["id"] in set(load(service, tmp_path, since=at)["id"])
    assert run["id"] not in set(load(service, tmp_path, until=at)["id"])


def test_since_as_age_counts_back_from_now(
    service: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    set_wall_clock(monkeypatch, now, "load.runs")
    at = triggered_at(service.runs[100]) - pd.Timedelta("1s")
    frame = load(service, tmp_path, since=now - at)
    assert list(frame["id"]) == [run["id"] for run in service.runs if triggered_at(run) > at]


@EDITIONS_WITH_SMALL_PAGES
def test_load_of_more_time_requests_only_the_missing_runs(sandbox: Sandbox, tmp_path: Path) -> None:
    load(sandbox, tmp_path, since=triggered_at(sandbox.runs[50]))
    requests_with_since = len(sandbox.requests)
    pd.testing.assert_frame_equal(load(sandbox, tmp_path), expected_runs(sandbox))
    requests_for_all = -(-len(sandbox.runs) // 100) + 2 * (sandbox.edition == "C")
    assert requests_with_since < requests_for_all
    assert requests_with_since <= len(sandbox.requests) <= requests_for_all + 1
    assert load(sandbox, tmp_path, since=triggered_at(sandbox.runs[220])).attrs["requests"] == 0


def test_since_is_sent_with_all_pages_but_the_first(service: Sandbox, tmp_path: Path) -> None:
    load(service, tmp_path, since=triggered_at(service.runs[150]))
    bounds = [request.query.get("created_at[gte]") for request in service.requests if request.status == 200]
    assert bounds[0] is None
    assert all(bounds[1:])
    assert len(bounds) == 2


@pytest.mark.parametrize("sandbox", ["A"], indirect=True)
def test_page_size_of_sessions_is_not_used_for_runs(sandbox: Sandbox, tmp_path: Path) -> None:
    client = Client(pat=sandbox.pat, base_url=sandbox.base_url)
    load_sessions(client=client, cache_dir=tmp_path)
    assert load(sandbox, tmp_path, client=client).attrs["requests"] == 2


def test_since_before_the_year_1000_is_sent_with_a_4_digit_year(service: Sandbox, tmp_path: Path) -> None:
    pd.testing.assert_frame_equal(load(service, tmp_path, since="0900-01-01T00:00Z"), expected_runs(service))
    narrowed = {request.query.get("created_at[gte]") for request in service.requests if request.status == 200}
    assert narrowed - {None} == {"0899-12-31T23:00:00.000000Z"}


FILTERS: list[tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = [
    ({"status": "failed"}, lambda run: run["status"] == "failed"),
    ({"trigger_type": "retry"}, lambda run: run["trigger_context"]["type"] == "retry"),
    ({"has_error": True}, lambda run: run["error"] is not None),
    ({"has_error": False, "status": "skipped"}, lambda run: run["status"] == "skipped"),
    (
        {"status": "completed", "since": "2026-06-13T00:00Z"},
        lambda run: run["status"] == "completed" and triggered_at(run) >= pd.Timestamp("2026-06-13T00:00Z"),
    ),
]


@EDITIONS_WITH_SMALL_PAGES
def test_filters_give_the_same_rows_from_service_and_store(sandbox: Sandbox, tmp_path: Path) -> None:
    load(sandbox, tmp_path / "stored")
    for filters, wanted in FILTERS:
        expected = expected_runs(sandbox, wanted)
        assert len(expected)
        stored = load(sandbox, tmp_path / "stored", **filters)
        pd.testing.assert_frame_equal(stored, expected)
        assert stored.attrs["requests"] == 0
        for sandbox.short_pages in (False, True):
            from_service = load(sandbox, tmp_path / f"short pages {sandbox.short_pages}", **filters)
            pd.testing.assert_frame_equal(from_service, expected)
            assert not from_service.attrs["from_cache"]


def test_deployment_id_is_sent_to_the_service(service: Sandbox, tmp_path: Path) -> None:
    one = service.runs[0]["deployment_id"]
    frame = load(service, tmp_path, deployment_id=one)
    pd.testing.assert_frame_equal(frame, expected_runs(service, lambda run: run["deployment_id"] == one))
    assert {request.query.get("deployment_id") for request in service.requests} == {one}
    assert load(service, tmp_path, deployment_id="dep_unknown").empty


def test_filtered_load_is_cached_but_does_not_fill_the_store(service: Sandbox, tmp_path: Path) -> None:
    first = load(service, tmp_path, status="failed", since="2026-01-01T00:00Z")
    until = pd.Timestamp("2026-06-14T00:00Z")
    again = load(service, tmp_path, status="failed", since="2026-01-01T00:00Z", until=until)
    assert again.attrs["requests"] == 0
    assert set(again["id"]) == set(first.loc[first["triggered_at"] < until, "id"])
    assert 0 < len(again) < len(first)
    assert load(service, tmp_path, status="failed", since="2026-01-01T00:00Z", max_age="0s").attrs["requests"]
    with pytest.raises(CacheError, match="has no runs"):
        load(service, tmp_path, offline=True)
    offline = load(service, tmp_path, offline=True, status="failed", since="2026-01-01T00:00Z")
    pd.testing.assert_frame_equal(offline, first)
    pd.testing.assert_frame_equal(load(service, tmp_path), expected_runs(service))


def test_cached_filtered_load_newer_than_the_store_is_used(service: Sandbox, tmp_path: Path) -> None:
    everything = load(service, tmp_path)
    deployment = everything["deployment_id"].iloc[0]
    before = int((everything["deployment_id"] == deployment).sum())
    service.create_runs(1, deployment_id=deployment)
    assert len(load(service, tmp_path, deployment_id=deployment, refresh=True)) == before + 1
    for offline in (False, True):
        again = load(service, tmp_path, deployment_id=deployment, offline=offline)
        assert (len(again), again.attrs["requests"]) == (before + 1, 0)
    load(service, tmp_path, refresh=True)
    service.create_runs(1, deployment_id=deployment)
    load(service, tmp_path, refresh=True)
    for offline in (False, True):
        assert len(load(service, tmp_path, deployment_id=deployment, offline=offline)) == before + 2


def test_cached_filtered_load_is_used_offline_if_the_store_is_incomplete(service: Sandbox, tmp_path: Path) -> None:
    first = load(service, tmp_path, status="failed")
    load(service, tmp_path, since=triggered_at(service.runs[50]))
    pd.testing.assert_frame_equal(load(service, tmp_path, status="failed", offline=True), first)


def test_cached_filtered_load_is_that_of_the_same_since(service: Sandbox, tmp_path: Path) -> None:
    load(service, tmp_path, status="failed", since=triggered_at(service.runs[50]))
    expected = expected_runs(service, lambda run: run["status"] == "failed")
    pd.testing.assert_frame_equal(load(service, tmp_path, status="failed"), expected)


def test_refresh_all_with_a_filter_reads_the_whole_list(service: Sandbox, tmp_path: Path) -> None:
    load(service, tmp_path, status="failed", refresh="all")
    assert load(service, tmp_path).attrs["requests"] == 0


def test_filter_that_no_run_passes_causes_no_warning_about_the_time(service: Sandbox, tmp_path: Path) -> None:
    load(service, tmp_path)
    assert load(service, tmp_path, deployment_id="dep_unknown", since="2026-06-01T00:00Z").empty


def test_has_error_finds_old_and_new_runs_in_edition_d(tmp_path: Path) -> None:
    """In the newest edition the service's filter finds only runs whose session could not be created."""
    with sandbox_with_newest(100, seed=3) as sandbox:
        old = sandbox.runs
        sandbox.edition = "D"
        for run in old:
            sandbox.rewrite(run)
        new = {run["id"] for run in sandbox.create_runs(3, status="failed")}
        failed = load(sandbox, tmp_path, has_error=True, outcomes="events")
        assert new | {run["id"] for run in old if run["error"]} == set(failed["id"])


def test_filtered_load_of_sessions_is_cached(tmp_path: Path) -> None:
    with sandbox_with_newest(200, edition="D") as sandbox:
        client = Client(pat=sandbox.pat, base_url=sandbox.base_url)
        options: dict[str, Any] = {"agent_id": sandbox.sessions[0]["agent"]["id"], "cache_dir": tmp_path}
        first = load_sessions(client=client, **options)
        again = load_sessions(client=client, **options)
        assert (first.attrs["requests"] > 0, again.attrs["requests"]) == (True, 0)
        pd.testing.assert_frame_equal(again, first)
        pd.testing.assert_frame_equal(load_sessions(client=client, offline=True, **options), first)


@pytest.mark.parametrize("outcomes", ["sessions", "events"])
def test_outcomes_are_loaded_without_a_writable_cache_folder(tmp_path: Path, outcomes: str) -> None:
    (tmp_path / "file").touch()
    with sandbox_with_newest(30, edition="D") as sandbox:
        sandbox.delete_session(next(run["session_id"] for run in sandbox.runs if run["session_id"]))
        expected = load(sandbox, tmp_path / "folder", outcomes=outcomes)
        with pytest.warns(CacheWarning) as warned:
            frame = load(sandbox, tmp_path / "file" / "folder", outcomes=outcomes)
        pd.testing.assert_frame_equal(frame, expected)
        kinds = [str(warning.message).split(" are not kept")[0] for warning in warned]
        assert sorted(kinds) == sorted(set(kinds))


def test_offline_attrs_name_the_outcomes_that_are_stored(tmp_path: Path) -> None:
    with sandbox_with_newest(20, edition="D") as sandbox:
        load(sandbox, tmp_path, outcomes="runs")
        assert load(sandbox, tmp_path, outcomes="runs", offline=True).attrs["complete"]
        for outcomes in ("auto", "sessions", "events"):
            with pytest.warns(DataQualityWarning, match="sessions of these runs are not stored"):
                unknown = load(sandbox, tmp_path, outcomes=outcomes, offline=True)
            assert (unknown.attrs["outcomes"], unknown.attrs["complete"]) == ("sessions", False)
        load(sandbox, tmp_path, outcomes="sessions")
        message = r"17 of 17 completed runs are assumed.* load_runs\(outcomes='events'\) without offline reads"
        with pytest.warns(DataQualityWarning, match=message):
            assumed = load(sandbox, tmp_path, outcomes="events", offline=True)
        assert (assumed.attrs["outcomes"], assumed.attrs["complete"]) == ("sessions", False)
        load(sandbox, tmp_path, outcomes="events")
        known = load(sandbox, tmp_path, outcomes="sessions", offline=True)
        assert (known.attrs["outcomes"], known.attrs["complete"]) == ("events", True)


def test_warning_of_one_assumed_run_is_in_the_singular(tmp_path: Path) -> None:
    message = "of all loaded runs, 1 of 1 completed run is assumed, .* about 1 request, 100 ms"
    with Sandbox(deployments=1, runs=1, edition="D") as sandbox, pytest.warns(DataQualityWarning, match=message):
        assert load(sandbox, tmp_path).attrs["complete"]


def test_name_instead_of_an_id_is_reported(tmp_path: Path) -> None:
    with sandbox_with_newest(20) as sandbox:
        client = Client(pat=sandbox.pat, base_url=sandbox.base_url)
        given = {"client": client, "cache_dir": tmp_path}
        message = "nothing was found: deployment_id='nightly' does not look like an id, which begins with dep_"
        loaders: list[Callable[..., pd.DataFrame]] = [load_runs, load_sessions]
        for loader in loaders:
            with pytest.warns(DataQualityWarning, match=message):
                assert loader(deployment_id="nightly", **given).empty
            assert loader(deployment_id="dep_none", **given).empty
        message = "agent_id='Writer' does not look like an id, which begins with agent_"
        loaders = [load_deployments, load_sessions]
        for loader in loaders:
            with pytest.warns(DataQualityWarning, match=message):
                assert loader(agent_id="Writer", **given).empty
            assert loader(agent_id="agent_none", **given).empty


def test_account_without_runs(tmp_path: Path) -> None:
    with Sandbox(deployments=3, seed=1, runs=0) as sandbox:
        frame = load(sandbox, tmp_path)
        pd.testing.assert_frame_equal(frame, expected_runs(sandbox))
        assert load(sandbox, tmp_path, since="1D").attrs["requests"] == 0
        sandbox.create_runs(3)
        pd.testing.assert_frame_equal(load(sandbox, tmp_path, refresh=True), expected_runs(sandbox))


def test_two_processes_at_once_request_each_page_once(service: Sandbox, tmp_path: Path) -> None:
    """The second process waits for the first, and uses the runs that it stored."""
    code = (
        "import sys\nfrom qoderdata.client import Client\nfrom qoderdata.load.runs import load_runs\n"
        "frame = load_runs(client=Client(pat=sys.argv[1], base_url=sys.argv[2]), cache_dir=sys.argv[3])\n"
        "print(len(frame), frame['id'].nunique())"
    )
    command = [sys.executable, "-c", code, service.pat, service.base_url, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == ["250 250", "250 250"]
    assert len(service.requests) == 4


def test_store_at_a_memory_url(service: Sandbox) -> None:
    pytest.importorskip("fsspec")
    location = f"memory://test/{uuid4()}"  # unique, because a port may be used again
    load(service, location)
    service.create_runs(3, status="running")
    frame = load(service, location, refresh=True)
    pd.testing.assert_frame_equal(frame, expected_runs(service))
    assert load(service, location).attrs["requests"] == 0


def test_each_workspace_has_its_own_store(service: Sandbox, tmp_path: Path) -> None:
    load(service, tmp_path)
    other = Client(pat=service.pat, base_url=service.base_url, workspace_id="ws_other")
    assert load(service, tmp_path, client=other).attrs["requests"]
    for client in (Client(pat=service.pat, base_url=service.base_url), other):
        assert load(service, tmp_path / "filtered", client=client, status="failed").attrs["requests"]
    assert len(list(tmp_path.glob("runs/*/manifest.json"))) == 2


def test_new_token_of_a_named_account_finds_what_is_stored(service: Sandbox, tmp_path: Path) -> None:
    def client(pat: str, account: str | None) -> Client:
        return Client(pat=pat, base_url=service.base_url, account=account)

    stored = load(service, tmp_path, client=client(service.pat, "production"))
    deployments = load_deployments(client=client(service.pat, "production"), cache_dir=tmp_path)
    new = client("pt-new", "production")
    pd.testing.assert_frame_equal(load(service, tmp_path, client=new, offline=True), stored)
    as_of = load_deployments(client=new, cache_dir=tmp_path, as_of="0s")
    assert set(as_of["id"]) == set(deployments["id"])
    assert len(snapshots(client=new, cache_dir=tmp_path)) == 1
    for other in (client("pt-new", None), client(service.pat, None), client(service.pat, "staging")):
        with pytest.raises(CacheError):
            load(service, tmp_path, client=other, offline=True)


def test_data_of_an_earlier_token_is_found_under_its_account(service: Sandbox, tmp_path: Path) -> None:
    earlier = Client(pat=service.pat, base_url=service.base_url)
    stored = load(service, tmp_path, client=earlier)
    new = Client(pat="pt-new", base_url=service.base_url, account=earlier.account)
    pd.testing.assert_frame_equal(load(service, tmp_path, client=new, offline=True), stored)


def test_progress_bar_shows_oldest_time_and_estimated_total(capsys: pytest.CaptureFixture[str]) -> None:
    """Half of the time range has two runs, so the bar expects two more."""
    newest, oldest, since = (datetime(2026, 6, day, tzinfo=UTC) for day in (15, 14, 13))
    bar = ProgressBar("runs", since, progress=True)
    bar._bar.mininterval = bar._bar.delay = 0
    bar.advance(2, newest=newest, oldest=oldest)
    bar.close()
    shown = capsys.readouterr().err
    assert "back to 2026-06-14 00:00" in shown
    assert "2.00/4.00" in shown


def test_progress_bar_is_shown_outside_a_terminal_only_with_progress_true(
    service: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pages, "BAR_DELAY", 0)
    load(service, tmp_path, progress=False)
    load(service, tmp_path, refresh=True)
    assert capsys.readouterr() == ("", "")
    load(service, tmp_path, refresh=True, progress=True)
    assert "Pulling runs" in capsys.readouterr().err


def test_each_load_logs_one_line(service: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "qoderdata")
    load(service, tmp_path)
    load(service, tmp_path)
    first, second = (record.getMessage() for record in caplog.records if record.name == "qoderdata")
    assert "250 rows" in first
    assert "3 pages" in first
    assert "from the cache" in second


def test_cache_folder_can_be_moved(service: Sandbox, tmp_path: Path) -> None:
    load(service, tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert load(service, tmp_path / "there").attrs["requests"] == 0
