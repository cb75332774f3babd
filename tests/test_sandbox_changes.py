"""Tests of changes to the sandbox's records while a client reads them: counters and cursors stay correct."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

from qoderdata import cron
from qoderdata.sandbox import NOW, Sandbox
from qoderdata.sandbox.sample_values import nanoseconds
from tests.sandbox_requests import Record, get

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(deployments=30, seed=5, runs=400) as running:
        yield running


def read(sandbox: Sandbox, path: str, **params: str) -> Any:  # noqa: ANN401 - JSON
    return get(sandbox, path, params).json


def check_counters(sandbox: Sandbox) -> None:
    """Check that the counters of each deployment match its listed runs, newest first."""
    for deployment in sandbox.deployments:
        own_runs = [run for run in sandbox.runs if run["deployment_id"] == deployment["id"]]
        decided = [run["status"] for run in own_runs if run["status"] in ("completed", "failed")]
        last = own_runs[0]["triggered_at"] if own_runs else None
        stats = deployment["metadata"].get("cas_config", {}).get("stats")
        if stats is not None:
            streak = decided.index("completed") if "completed" in decided else len(decided)
            assert stats["total_runs"] == len(own_runs)
            assert stats["total_failures"] == decided.count("failed")
            assert stats["consecutive_failures"] == streak
            assert stats.get("last_triggered_at") == last
        if deployment["schedule"] is not None:
            assert deployment["schedule"].get("last_run_at") == last


def test_clock_advances_by_1_ms_per_created_record(sandbox: Sandbox) -> None:
    assert sandbox.now == NOW
    sandbox.create_deployments(3)
    sandbox.create_runs(2)
    assert sandbox.now - NOW == timedelta(milliseconds=5)


def test_created_deployments_are_listed_first_and_are_complete(sandbox: Sandbox) -> None:
    before = sandbox.deployments
    created = sandbox.create_deployments(3)
    assert sandbox.deployments == [*reversed(created), *before]
    assert read(sandbox, f"/deployments/{created[0]['id']}") == created[0]
    assert read(sandbox, "/deployments", limit="3")["data"] == created[::-1]
    assert (
        read(sandbox, "/deployments", limit="100", agent_id=created[0]["agent"]["id"])["data"][:3] == created[::-1]
    )
    assert [record["id"] for record in created] == sorted(record["id"] for record in created)
    schedule = created[0]["schedule"]
    following = islice(cron.parse(schedule["expression"], schedule["timezone"]).following(sandbox.now), 5)
    assert schedule["upcoming_runs_at"] == [f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in following]
    check_counters(sandbox)


def test_paging_does_not_return_runs_created_meanwhile(sandbox: Sandbox) -> None:
    expected = sandbox.runs
    seen: list[Record] = []
    cursor: dict[str, str] = {}
    while True:
        page = read(sandbox, "/deployment_runs", limit="30", **cursor)
        seen += page["data"]
        cursor = {"page": page["last_id"]}
        sandbox.create_runs(7)
        if not page["has_more"]:
            break
    assert [run["id"] for run in seen] == [run["id"] for run in expected]


def test_paging_continues_after_the_cursor_record_was_archived(sandbox: Sandbox) -> None:
    live = [record["id"] for record in sandbox.deployments if record["archived_at"] is None]
    first = read(sandbox, "/deployments", limit="10")
    sandbox.archive(first["last_id"])
    second = read(sandbox, "/deployments", limit="10", after_id=first["last_id"])
    assert [record["id"] for record in second["data"]] == live[10:20]


def test_archive_changes_name_times_and_upcoming_runs_only(sandbox: Sandbox) -> None:
    before = next(record for record in sandbox.deployments if record["schedule"] and not record["archived_at"])
    after = sandbox.archive(before["id"])
    assert read(sandbox, f"/deployments/{before['id']}") == after
    assert before["id"] not in [record["id"] for record in read(sandbox, "/deployments", limit="100")["data"]]
    assert nanoseconds(after["archived_at"]) == sandbox._database.now
    assert after["updated_at"] == after["archived_at"]
    assert after["status"] == before["status"]
    assert re.fullmatch(re.escape(before["name"]) + rf"_archived_{int(sandbox.now.timestamp())}", after["name"])
    assert after["schedule"]["upcoming_runs_at"] == []
    assert after["metadata"] == before["metadata"], "next_trigger_at is not updated"
    with pytest.raises(ValueError, match="archived already"):
        sandbox.archive(before["id"])


def test_archive_works_without_a_schedule(sandbox: Sandbox) -> None:
    manual = next(record for record in sandbox.deployments if record["schedule"] is None)
    assert sandbox.archive(manual["id"])["schedule"] is None


@pytest.mark.parametrize("status", ["completed", "failed", "skipped", "running", "pending"])
def test_created_runs_are_listed_first_and_counted(sandbox: Sandbox, status: str) -> None:
    before = sandbox.runs
    created = sandbox.create_runs(40, status=status)
    assert sandbox.runs == [*reversed(created), *before]
    assert {run["status"] for run in created} == {status}
    assert read(sandbox, "/deployment_runs", limit="40")["data"] == created[::-1]
    assert read(sandbox, "/deployment_runs", status=status, limit="1")["data"] == created[-1:]
    archived = {record["id"] for record in sandbox.deployments if record["archived_at"]}
    assert len({run["deployment_id"] for run in created}) > 20
    assert not archived & {run["deployment_id"] for run in created}
    check_counters(sandbox)


def test_create_runs_for_one_deployment(sandbox: Sandbox) -> None:
    identity = sandbox.deployments[4]["id"]
    created = sandbox.create_runs(3, deployment_id=identity)
    assert read(sandbox, f"/deployments/{identity}/runs", limit="3")["data"] == created[::-1]
    check_counters(sandbox)


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_finish_run_ends_pending_and_running_runs(sandbox: Sandbox, status: str) -> None:
    sandbox.create_runs(20, status="pending")
    unfinished = [run for run in sandbox.runs if run["status"] in ("pending", "running")]
    assert {run["status"] for run in unfinished} == {"pending", "running"}
    assert len(read(sandbox, "/deployment_runs", status="running")["data"]) > 0
    for run in unfinished:
        finished = sandbox.finish_run(run["id"], status=status)
        assert read(sandbox, f"/deployment_runs/{run['id']}") == finished
        assert (finished["status"], finished["error"] is None) == (status, status == "completed")
        length = nanoseconds(finished["completed_at"]) - nanoseconds(finished["cas_run_extras"]["started_at"])
        assert finished["duration_ms"] == length // 1_000_000
        assert finished["session_id"]
    assert not any(run["status"] in ("pending", "running") for run in sandbox.runs)
    assert read(sandbox, "/deployment_runs", status="running")["data"] == []
    check_counters(sandbox)


def test_finish_run_refuses_a_run_that_has_ended(sandbox: Sandbox) -> None:
    ended = next(run for run in sandbox.runs if run["status"] == "completed")
    with pytest.raises(ValueError, match="completed already, and such runs never change"):
        sandbox.finish_run(ended["id"])


def test_forget_runs_removes_runs_and_keeps_counters_and_cursors(sandbox: Sandbox) -> None:
    runs, deployments = sandbox.runs, sandbox.deployments
    before = datetime.fromisoformat(runs[150]["created_at"][:19] + "+00:00")
    kept = [run for run in runs if nanoseconds(run["created_at"]) >= int(before.timestamp()) * 10**9]
    assert read(sandbox, "/deployment_runs", limit="100", after_id=kept[100]["id"])["has_more"]
    assert sandbox.forget_runs(before) == len(runs) - len(kept) > 200
    assert sandbox.runs == kept
    assert sandbox.deployments == deployments
    page = read(sandbox, "/deployment_runs", limit="100", after_id=kept[100]["id"])
    assert (page["data"], page["has_more"]) == (kept[101:], False)
    gone = runs[-1]["id"]
    assert read(sandbox, f"/deployment_runs/{gone}")["error"]["type"] == "not_found_error"
    assert read(sandbox, "/deployment_runs", after_id=runs[-10]["id"])["data"] == [], (
        "the id of a removed run is a valid cursor"
    )
    assert sandbox.forget_runs(before) == 0
    with pytest.raises(ValueError, match="must be a datetime with a time zone"):
        sandbox.forget_runs(datetime(2026, 6, 1))  # noqa: DTZ001 - must be refused


def test_rewrite_accepts_unknown_fields_and_invalid_values(sandbox: Sandbox) -> None:
    strange = sandbox.deployments[2] | {"status": 7, "agent": None, "created_at": "soon", "new": {"a": [1, None]}}
    run = sandbox.runs[2] | {"status": "paused", "trigger_context": "none", "deployment_id": 1, "error": "x"}
    sandbox.rewrite(strange)
    sandbox.rewrite(run)
    assert sandbox.deployments[2] == strange
    assert read(sandbox, "/deployments", limit="100", include_archived="true")["data"][2] == strange
    assert read(sandbox, "/deployment_runs")["data"][2] == run
    assert run["id"] not in [
        one["id"] for one in read(sandbox, "/deployment_runs", has_error="false", limit="100")["data"]
    ]
    assert read(sandbox, "/deployments", agent_id="agent_0", include_archived="true")["data"] == []
    assert read(sandbox, "/deployment_runs", deployment_id="dep_0")["data"] == []
    paused = sandbox.deployments[5] | {"status": "paused"}
    sandbox.rewrite(paused)
    assert paused in read(sandbox, "/deployments", status="paused", limit="100", include_archived="true")["data"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda sandbox: sandbox.archive("dep_0"), KeyError, "nothing has the id 'dep_0'"),
        (lambda sandbox: sandbox.finish_run("drun_0"), KeyError, "nothing has the id 'drun_0'"),
        (lambda sandbox: sandbox.rewrite({"id": "x"}), KeyError, "nothing has the id 'x'"),
        (lambda sandbox: sandbox.create_runs(1, status="done"), ValueError, "status='done' is none of pending"),
        (lambda sandbox: sandbox.create_runs(1, deployment_id="dep_0"), KeyError, "nothing has the id 'dep_0'"),
        (lambda sandbox: sandbox.finish_run("x", status="skipped"), ValueError, "is not how a run ends"),
        (lambda _: Sandbox(deployments=0).create_runs(1), ValueError, "there is no deployment to run"),
        (lambda sandbox: sandbox.rewrite_events("sess_1", [{"type": "x"}]), ValueError, "an event has no id"),
        (lambda sandbox: setattr(sandbox, "edition", "d"), ValueError, "edition='d' is none of A, B, C"),
    ],
)
def test_invalid_changes_are_refused(
    sandbox: Sandbox, change: Callable[[Sandbox], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        change(sandbox)


def test_records_can_be_created_in_an_empty_account() -> None:
    sandbox = Sandbox(deployments=0, now=datetime(2026, 1, 1, tzinfo=UTC))
    sandbox.create_deployments(2)
    sandbox.create_runs(3, status="failed")
    assert (len(sandbox.deployments), len(sandbox.runs)) == (2, 3)
    check_counters(sandbox)
