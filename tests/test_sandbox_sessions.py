"""Tests of the sandbox's edition D: records, sessions and events describe the same outcome of each run."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest

from qoderdata.sandbox import Sandbox
from qoderdata.sandbox.sample_values import nanoseconds
from tests.sandbox_requests import Record, get

if TYPE_CHECKING:
    from collections.abc import Iterator

PAUSING = {
    "environment_archived_error", "agent_archived_error", "environment_not_found_error", "vault_not_found_error",
    "vault_archived_error", "file_not_found_error", "memory_store_archived_error", "skill_not_found_error",
    "session_resource_not_found_error", "workspace_archived_error", "organization_disabled_error", "unknown_error",
    "self_hosted_resources_unsupported_error", "mcp_egress_blocked_error",
}  # fmt: skip
NOT_PAUSING = {"session_rate_limited_error", "session_creation_rejected_error"}
ACCOUNTS = {
    "default": Sandbox(edition="D"),
    "busy": Sandbox(60, 2, "D", 2_500, left_out=25),
    "tiny": Sandbox(8, 1, "D"),
    "no runs": Sandbox(40, 5, "D", 0),
    "empty": Sandbox(0, 7, "D"),
}


@pytest.fixture(params=ACCOUNTS)
def account(request: pytest.FixtureRequest) -> Sandbox:
    return ACCOUNTS[request.param]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(20, 5, "D", 150) as running:
        yield running


# -- the outcome of a run: slow, and directly from the rules --------------------------------------------------


def stop_reason(event: Record) -> str | None:
    reason: str | None = (event.get("stop_reason") or {}).get("type")
    return reason


def is_fatal(event: Record) -> bool:
    retry = (event["error"].get("retry_status") or {}).get("type")
    return retry in ("exhausted", "terminal")


def find_end(log: list[Record]) -> int | None:
    """Return the index of the event that ends the run: the first end, else a fatal error that nothing voids."""
    for index, event in enumerate(log):
        idle = event["type"] == "session.status_idle" and stop_reason(event) != "requires_action"
        if idle or event["type"] == "session.status_terminated":
            return index
    voiding = ("session.status_running", "session.status_rescheduled")
    fatal = [index for index, event in enumerate(log) if event["type"] == "session.error" and is_fatal(event)]
    left = [index for index in fatal if not any(event["type"] in voiding for event in log[index:])]
    return left[-1] if left else None


def outcome_from_event(log: list[Record], end: int) -> Record:
    """Return the outcome according to the event that ends the run."""
    last = log[end]
    errors = [event for event in log[: end + 1] if event["type"] == "session.error"]
    fatal, reason, idle = (
        [one for one in errors if is_fatal(one)],
        stop_reason(last),
        last["type"].endswith("_idle"),
    )
    result: Record = {"status": None, "status_from": "events"}
    if idle and (reason == "end_turn" or (reason is None and not fatal)):
        result["status"] = "completed"
    elif idle and reason == "cancelled":
        result["status"] = "cancelled"
    elif not idle or reason in ("retries_exhausted", "budget_reached", None):
        result |= {"status": "failed", "error_type": reason or "session_terminated"}
        if errors:
            error = (fatal or errors)[-1]["error"]
            result |= {"error_type": error["type"], "error_message": error["message"]}
    if result["status"] is not None:
        result["completed_at"] = last.get("processed_at")
    return result


def outcome_from_session(session: Record) -> Record:
    """Return the outcome according to the session alone, where its events show no end."""
    if session["status"] in ("running", "rescheduling", "canceling"):
        return {"status": "running", "status_from": "session"}
    if session["status"] == "terminated" and session["archived_at"] is None:
        return {"status": "failed", "status_from": "session", "error_type": "session_terminated"}
    return {"status": "completed", "status_from": "session"}


def derive_outcome(run: Record, sessions: dict[str, Record], events: dict[str, list[Record]]) -> Record:
    """Apply the rules to one run, one after the other."""
    result: Record = dict.fromkeys(
        ("status", "status_from", "error_type", "error_message", "started_at", "completed_at")
    )
    if run["error"] is not None:
        error = {"error_type": run["error"]["type"], "error_message": run["error"]["message"]}
        return result | {"status": "failed", "status_from": "run"} | error
    session = sessions.get(run["session_id"])
    if session is None:
        return result
    log = events[run["session_id"]]
    starts = [event.get("processed_at") for event in log if event["type"] == "session.status_running"]
    result["started_at"] = (starts[0] if starts else None) or session["created_at"]
    end = find_end(log)
    if end is not None:
        return result | outcome_from_event(log, end)
    statuses = [event for event in log if event["type"].startswith("session.status_")]
    if statuses and statuses[-1]["type"] == "session.status_idle":
        return result | {"status": "waiting", "status_from": "events"}
    return result | outcome_from_session(session)


def check_outcomes(sandbox: Sandbox) -> Counter[tuple[str | None, str | None]]:
    sessions = {session["id"]: session for session in sandbox.sessions}
    events = {identity: sandbox.events(identity) for identity in sessions}
    kinds: Counter[tuple[str | None, str | None]] = Counter()
    outcomes = sandbox.outcomes
    for run, expected in zip(sandbox.runs, outcomes, strict=True):
        derived = derive_outcome(run, sessions, events)
        assert {name: expected[name] for name in derived} == derived, run
        assert [expected[name] for name in ("id", "deployment_id", "session_id")] == [
            run["id"], run["deployment_id"], run["session_id"],
        ]  # fmt: skip
        assert expected["triggered_at"] == run["trigger_context"].get("scheduled_at", run["created_at"])
        session = sessions.get(run["session_id"])
        assert expected["session_deleted"] == (run["session_id"] is not None and session is None)
        if session is not None:
            assert expected["session_status"] == session["status"]
            assert expected["session_archived"] == (session["archived_at"] is not None)
        kinds[expected["status"], expected["status_from"]] += 1
    return kinds


def test_outcome_of_every_run_follows_from_its_session_and_events(account: Sandbox) -> None:
    kinds = check_outcomes(account)
    if account is ACCOUNTS["default"]:
        assert set(kinds) == {
            ("completed", "events"), ("failed", "events"), ("cancelled", "events"), ("waiting", "events"),
            (None, "events"), ("completed", "session"), ("failed", "session"), ("running", "session"),
            ("failed", "run"), (None, None),
        }  # fmt: skip


def test_editions_c_and_d_describe_the_same_runs() -> None:
    """In edition C, cancelled runs are failed, waiting runs are running, runs of unknown outcome are completed."""
    sandbox = Sandbox(60, 2, "D", 2_500)
    outcomes, newest = sandbox.outcomes, sandbox.runs
    sandbox.edition = "C"
    trigger_types = Counter[str]()
    for expected, new, old in zip(outcomes, newest, sandbox.runs, strict=True):
        assert (old["id"], old["deployment_id"], old["created_at"]) == (
            new["id"],
            new["deployment_id"],
            new["created_at"],
        )
        status, error = old["status"], old["error"] or {"type": None}
        pair = (expected["status"], status)
        trigger_types[old["trigger_context"]["type"]] += 1
        if expected["session_deleted"]:
            assert pair[0] is None
            assert status in ("completed", "failed")
        elif expected["status_from"] == "run":
            skipped = expected["error_type"] == "session_creation_rejected_error"
            assert (status, error["type"]) == (
                ("skipped", None) if skipped else ("failed", expected["error_type"])
            )
            assert "session_id" not in old
        else:
            assert pair in {
                ("completed", "completed"), ("failed", "failed"), ("cancelled", "failed"), ("waiting", "running"),
                (None, "completed"), ("running", "running"), ("running", "pending"),
            }  # fmt: skip
            named = "cancelled" if expected["status"] == "cancelled" else expected["error_type"]
            assert error["type"] == named
            if expected["error_message"] is not None:
                assert error["message"] == expected["error_message"]
            if expected["completed_at"] is not None:
                assert expected["completed_at"] == old["completed_at"]
        context = new["trigger_context"]
        if old["trigger_context"]["type"] == "manual":
            assert context == {"type": "manual"}
        else:
            assert set(context) == {"type", "scheduled_at"}
            assert context["type"] == "schedule"
    assert trigger_types["retry"] > 10


def test_retry_has_the_scheduled_time_of_the_first_attempt() -> None:
    sandbox = Sandbox(60, 2, "D", 2_500)
    newest = sandbox.runs
    sandbox.edition = "C"
    by_time: dict[tuple[str, str], list[str]] = defaultdict(list)
    for new, old in zip(newest, sandbox.runs, strict=True):
        if "scheduled_at" in new["trigger_context"]:
            at = new["trigger_context"]["scheduled_at"]
            assert at.endswith(":00Z")
            assert 0 <= nanoseconds(old["triggered_at"]) - nanoseconds(at) < 3_600 * 10**9
            by_time[new["deployment_id"], at].append(old["trigger_context"]["type"])
    kinds = {tuple(reversed(found)) for found in by_time.values()}
    assert kinds >= {("schedule",), ("schedule", "retry"), ("schedule", "retry", "retry")}
    assert all(found[-1] == "schedule" and set(found[:-1]) <= {"retry"} for found in by_time.values())


# -- shapes ---------------------------------------------------------------------------------------------------


#: The keys of the documented responses.
SHAPES = {
    "run": {"agent", "created_at", "deployment_id", "error", "id", "session_id", "trigger_context", "type"},
    "deployment": {
        "agent", "archived_at", "created_at", "description", "environment_id", "environment_variables", "id",
        "initial_events", "metadata", "name", "paused_reason", "resources", "schedule", "status", "type",
        "updated_at", "vault_ids",
    },
    "session": {
        "id", "type", "agent", "environment_id", "title", "status", "metadata", "resources", "vault_ids",
        "deployment_id", "outcome_evaluations", "stats", "environment_variables", "archived_at", "created_at",
        "updated_at",
    },
    "agent": {
        "type", "id", "name", "description", "model", "system", "tools", "mcp_servers", "skills", "metadata",
        "multiagent", "version", "archived_at", "created_at", "updated_at",
    },
    "environment": {
        "id", "type", "name", "description", "config", "metadata", "archived_at", "created_at", "updated_at",
    },
}  # fmt: skip


def test_runs_have_the_documented_shape(account: Sandbox) -> None:
    for run in account.runs:
        assert set(run) == SHAPES["run"], "name a new field in SHAPES"
        assert (run["session_id"] is None) != (run["error"] is None)
        assert run["error"] is None or run["error"]["type"] in PAUSING | NOT_PAUSING
    assert len({run["session_id"] for run in account.runs if run["session_id"]}) == sum(
        run["session_id"] is not None for run in account.runs
    )


def test_deployments_have_the_documented_shape(account: Sandbox) -> None:
    last = {run["deployment_id"]: run for run in reversed(account.runs)}
    for record in account.deployments:
        assert set(record) - {"budget"} == SHAPES["deployment"]
        assert "cas_config" not in record["metadata"]
        for variable in (
            re.split(r"[\n;]", record["environment_variables"]) if record["environment_variables"] else []
        ):
            assert re.fullmatch(r"[A-Z_]+=.+", variable)
        if "budget" in record:
            assert set(record["budget"]) == {"type", "max_credit_cost"}
            assert record["budget"]["type"] == "limit"
            assert re.fullmatch(r"\d{1,12}\.\d{2}", record["budget"]["max_credit_cost"])
        for event in record["initial_events"]:
            assert isinstance(event.get("content", []), list)
        reason = record["paused_reason"] or {}
        if reason.get("type") == "error":
            assert reason["error"]["type"] in PAUSING
            if record["id"] in last:
                assert last[record["id"]]["error"]["type"] == reason["error"]["type"]
    for run in account.runs:
        if run["error"] and run["error"]["type"] in PAUSING:
            assert run == last[run["deployment_id"]], "a paused deployment has no later run"


def test_sessions_agents_and_environments_have_the_documented_shape(account: Sandbox) -> None:
    agents = {agent["id"]: agent for agent in account.agents}
    environments = {environment["id"]: environment for environment in account.environments}
    deployments = {deployment["id"]: deployment for deployment in account.deployments}
    for session in account.sessions:
        assert set(session) - {"budget", "usage"} == SHAPES["session"]
        assert session["stats"] == {"active_seconds": 0, "duration_seconds": 0}
        assert session["status"] in ("running", "rescheduling", "canceling", "idle", "terminated")
        assert session["environment_id"] in environments
        agent = agents[session["agent"]["id"]]
        assert session["agent"]["name"] == agent["name"]
        assert session["agent"]["version"] <= agent["version"]
        assert all(isinstance(value, str) for value in session["environment_variables"].values())
        usage = session.get("usage", {})
        assert all(amount >= 0 and round(amount, 2) == amount for amount in usage.values())
        parts = usage.get("model_credits", 0) + usage.get("sandbox_runtime_credits", 0)
        assert not parts or parts <= usage["total_credits"] + 1e-9 <= parts + 0.02
        times = [nanoseconds(session[name]) for name in ("created_at", "updated_at")]
        assert times == sorted(times)
        if session["deployment_id"] is not None:
            deployment = deployments[session["deployment_id"]]
            assert session["title"] == re.sub(r"_archived_\d+$", "", deployment["name"])
            assert session["environment_id"] == deployment["environment_id"]
            assert session.get("budget") == deployment.get("budget")
    assert {deployment["environment_id"] for deployment in deployments.values()} <= set(environments)
    assert {deployment["agent"]["id"] for deployment in deployments.values()} <= set(agents)
    for record in account.agents:
        assert set(record) == SHAPES["agent"]
        assert record["name"]
    for record in account.environments:
        assert set(record) == SHAPES["environment"]
        assert record["name"]


def test_lists_are_newest_first_and_no_time_is_in_the_future(account: Sandbox) -> None:
    now = int(account.now.timestamp() * 1e6) * 1_000 + 1_000
    for records in (account.sessions, account.agents, account.environments):
        ids = [record["id"] for record in records]
        assert ids == sorted(ids, reverse=True)
        assert len(set(ids)) == len(ids)
        for record in records:
            for name in ("created_at", "updated_at", "archived_at"):
                assert record[name] is None or nanoseconds(record[name]) <= now


def test_events_have_unique_ids_and_documented_types(account: Sandbox) -> None:
    for session in account.sessions[:400]:
        events = account.events(session["id"])
        assert events[0]["type"] == "user.message"
        ids = [event["id"] for event in events]
        assert len(set(ids)) == len(ids)
        for event in events:
            assert set(event) >= {"id", "type"}
            if event["type"] == "session.error":
                assert set(event["error"]) - {"retry_status"} == {"type", "message"}
            if event["type"] == "span.model_request_end":
                assert event["model_usage"]["credits"] >= 0
            if "processed_at" in event:
                assert nanoseconds(event["processed_at"]) >= nanoseconds(session["created_at"])


def test_default_account_has_every_kind_of_session_and_event() -> None:
    sandbox = ACCOUNTS["default"]
    sessions = sandbox.sessions
    events = {session["id"]: sandbox.events(session["id"]) for session in sessions}
    assert {session["status"] for session in ACCOUNTS["busy"].sessions + sessions} >= {
        "running",
        "idle",
        "terminated",
    }
    usage = [session.get("usage", {}).get("total_credits") for session in sessions]
    assert usage.count(None) > 20
    assert usage.count(0) > 20
    assert any(session["archived_at"] for session in sessions)
    assert any(session["deployment_id"] is None for session in sessions)
    assert any(isinstance(session["agent"]["model"], str) for session in sessions)
    assert any(isinstance(session["agent"]["model"], dict) for session in sessions)
    assert any(session["environment_variables"] for session in sessions)
    assert any(session["outcome_evaluations"] for session in sessions)
    reasons = {
        stop_reason(event) for log in events.values() for event in log if event["type"] == "session.status_idle"
    }
    assert reasons == {
        None, "end_turn", "requires_action", "cancelled", "retries_exhausted", "budget_reached",
        "max_iterations_reached",
    }  # fmt: skip
    retries = {
        (event["error"].get("retry_status") or {}).get("type")
        for log in events.values() for event in log if event["type"] == "session.error"
    }  # fmt: skip
    assert retries == {None, "retrying", "exhausted", "terminal"}
    ends = {
        identity: [
            (event["type"], stop_reason(event)) for event in log
            if event["type"] in ("session.status_idle", "session.status_terminated")
        ]
        for identity, log in events.items()
    }  # fmt: skip
    assert any(
        len(set(found)) > 1 and ("session.status_idle", "requires_action") not in found for found in ends.values()
    )
    assert sum(len(log) > 100 for log in events.values()) > 5
    first = ("session.status_running", "session.status_idle", "session.status_rescheduled")
    assert any(sum(event["type"] in first for event in log) > 80 for log in events.values())
    assert any("processed_at" not in event for log in events.values() for event in log)
    late = [
        session for session in sessions
        if nanoseconds(session["updated_at"]) - nanoseconds(session["created_at"]) > 19 * 3_600 * 10**9
        and session["archived_at"] is None
    ]  # fmt: skip
    assert late, "no session was continued a day later"
    assert any(agent["archived_at"] for agent in sandbox.agents)
    assert any(environment["archived_at"] for environment in sandbox.environments)
    assert "sandbox-secret-" in json.dumps(sandbox.deployments)
    separators = {mark for one in sandbox.deployments for mark in "\n;" if mark in one["environment_variables"]}
    assert separators == {"\n", ";"}


def test_only_sessions_that_reached_their_budget_used_it_up() -> None:
    reached = {one["session_id"] for one in ACCOUNTS["default"].outcomes if one["error_type"] == "budget_reached"}
    assert reached
    for session in ACCOUNTS["default"].sessions:
        used = session.get("usage", {}).get("total_credits")
        if "budget" in session and used:
            assert (used >= float(session["budget"]["max_credit_cost"])) == (session["id"] in reached)


def test_each_generated_name_uses_one_script() -> None:
    """A name has letters of one script, except for a product's name in front of it."""
    names = [one["name"] for one in Sandbox(700, 3, runs=0).deployments]
    generated = [name for name in names if not re.search(r"[<=@🚀\u202e☕]|_archived_", name)]
    for name in generated:
        latin, other = re.search(r"[A-Za-z]", name), re.search(r"[\u0400-\u04ff\u0600-\u06ff\u3040-\u9fff]", name)
        assert not (latin and other), name
    assert len(set(generated)) == len(generated) > 600
    assert len(names) - len(generated) < 90


# -- up to edition C ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edition", "AC")
def test_several_runs_may_share_one_session_up_to_edition_c(edition: str) -> None:
    sandbox = Sandbox(60, 2, edition, 2_000)
    sessions = {session["id"]: session for session in sandbox.sessions}
    runs: dict[str, list[Record]] = defaultdict(list)
    for run in sandbox.runs:
        if "session_id" in run:
            runs[run["session_id"]].append(run)
    deployments = {record["id"]: record for record in sandbox.deployments}
    shared = {identity: own_runs for identity, own_runs in runs.items() if len(own_runs) > 1}
    assert {3} <= {len(own_runs) for own_runs in shared.values()} <= {2, 3}
    for identity, own_runs in shared.items():
        (deployment,) = {run["deployment_id"] for run in own_runs}
        config = deployments[deployment]["metadata"].get("cas_config", {})
        assert config.get("session_strategy") in ("reuse", None)
        assert sessions[identity]["deployment_id"] == deployment
        messages = [event for event in sandbox.events(identity) if event["type"] == "user.message"]
        assert len(messages) >= len(own_runs)
    statuses = {session["status"] for session in sandbox.sessions}
    assert statuses >= ({"processing"} if edition in "AB" else {"running"})
    assert statuses.isdisjoint({"running"} if edition in "AB" else {"processing"})
    assert any("usage" in session for session in sandbox.sessions) == (edition == "C")
    assert set(runs) - set(sessions), "no session of a run was deleted"
    assert len(set(runs) - set(sessions)) < len(runs) / 20


# -- changes --------------------------------------------------------------------------------------------------


def outcome_of(sandbox: Sandbox, run: Record) -> Record:
    return next(one for one in sandbox.outcomes if one["id"] == run["id"])


@pytest.mark.parametrize(
    ("status", "then"),
    [
        ("pending", "running"), ("running", "running"), ("completed", "completed"), ("failed", "failed"),
        ("skipped", "failed"), ("cancelled", "cancelled"), ("waiting", "waiting"),
    ],
)  # fmt: skip
def test_created_runs_have_sessions_and_outcomes(sandbox: Sandbox, status: str, then: str) -> None:
    created = sandbox.create_runs(5, status=status)
    assert sandbox.runs[:5] == created[::-1]
    assert get(sandbox, "/deployment_runs", {"limit": 5}).json["data"] == created[::-1]
    for run in created:
        assert set(run) == SHAPES["run"], "name a new field in SHAPES"
        assert outcome_of(sandbox, run)["status"] == then
        if status != "skipped":
            session = get(sandbox, f"/sessions/{run['session_id']}").json
            assert session["deployment_id"] == run["deployment_id"]
            page = get(sandbox, f"/sessions/{run['session_id']}/events", {"limit": 100}).json
            assert page["data"] == sandbox.events(run["session_id"])[:100]
    check_outcomes(sandbox)


def test_created_and_archived_deployments_have_the_documented_shape(sandbox: Sandbox) -> None:
    created = sandbox.create_deployments(2)
    archived = sandbox.archive(created[0]["id"])
    assert [set(record) for record in (*created, archived)] == [SHAPES["deployment"]] * 3
    assert sandbox.deployments[:2] == [created[1], archived]
    assert created[0]["environment_variables"] == ""
    assert created[0]["initial_events"][0]["content"] == [{"text": "Say what changed.", "type": "text"}]
    (run,) = sandbox.create_runs(1, deployment_id=created[1]["id"])
    assert get(sandbox, f"/sessions/{run['session_id']}").json["title"] == created[1]["name"]


def test_finish_run_updates_the_session_that_several_runs_share() -> None:
    """Whichever of its runs ends, the session that editions A to C show is updated."""
    sandbox = Sandbox(60, 2, runs=2_000)
    columns = sandbox._database.sessions.columns
    index = next(index for index, leader in enumerate(columns["leader"].tolist()) if leader != index)
    run = int(columns["run"][index])
    sandbox._database.sessions.change(index, None, {"end": 1, "ended": 0, "status": 0})
    sandbox._database.runs.change(run, None, {"status": 1})
    leader = sandbox._database.sessions.ids[columns["leader"][index]]
    before = next(one for one in sandbox.sessions if one["id"] == leader)
    finished = sandbox.finish_run(sandbox._database.runs.ids[run])
    after = next(one for one in sandbox.sessions if one["id"] == leader)
    assert (finished["status"], finished["session_id"]) == ("completed", leader)
    assert nanoseconds(after["updated_at"]) > nanoseconds(before["updated_at"])


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_finish_run_appends_events_to_unfinished_runs(sandbox: Sandbox, status: str) -> None:
    for kind in ("pending", "running", "waiting"):
        sandbox.create_runs(4, status=kind)
    unfinished = [one for one in sandbox.outcomes if one["status"] in ("running", "waiting")]
    assert len(unfinished) > 12
    for one in unfinished:
        before, session = sandbox.events(one["session_id"]), get(sandbox, f"/sessions/{one['session_id']}").json
        record = next(run for run in sandbox.runs if run["id"] == one["id"])
        assert sandbox.finish_run(one["id"], status=status) == record, "a record of edition D never changes"
        after = sandbox.events(one["session_id"])
        assert after[: len(before)] == before
        assert len(after) > len(before)
        moved = get(sandbox, f"/sessions/{one['session_id']}").json
        assert nanoseconds(moved["updated_at"]) > nanoseconds(session["updated_at"])
        assert outcome_of(sandbox, record)["status"] == status
    check_outcomes(sandbox)
    assert not [one for one in sandbox.outcomes if one["status"] in ("running", "waiting")]


def test_continued_and_archived_session_keeps_the_outcome_of_its_run(sandbox: Sandbox) -> None:
    (run,) = sandbox.create_runs(1, status="failed")
    before, expected = sandbox.events(run["session_id"]), outcome_of(sandbox, run)
    sandbox.continue_session(run["session_id"])
    grown = sandbox.events(run["session_id"])
    archived = sandbox.archive_session(run["session_id"])
    after = sandbox.events(run["session_id"])
    assert (grown[: len(before)], after[: len(grown)]) == (before, grown)
    assert (after[-1]["type"], archived["status"]) == ("session.status_terminated", "terminated")
    assert outcome_of(sandbox, run) == expected | {"session_status": "terminated", "session_archived": True}
    assert run["session_id"] not in [one["id"] for one in get(sandbox, "/sessions", {"limit": 9}).json["data"]]
    with pytest.raises(ValueError, match="archived already"):
        sandbox.archive_session(run["session_id"])
    with pytest.raises(ValueError, match="is archived"):
        sandbox.continue_session(run["session_id"])
    check_outcomes(sandbox)


def test_deleted_session_is_not_found_and_its_run_stays(sandbox: Sandbox) -> None:
    (run,) = sandbox.create_runs(1)
    sandbox.delete_session(run["session_id"])
    for path in (f"/sessions/{run['session_id']}", f"/sessions/{run['session_id']}/events"):
        assert get(sandbox, path).json["error"]["type"] == "not_found_error"
    assert run["session_id"] not in [session["id"] for session in sandbox.sessions]
    assert sandbox.runs[0] == run
    assert outcome_of(sandbox, run)["status"] is None


def test_archiving_a_running_session_is_refused(sandbox: Sandbox) -> None:
    (run,) = sandbox.create_runs(1, status="running")
    with pytest.raises(ValueError, match="has not ended"):
        sandbox.archive_session(run["session_id"])


def test_events_of_an_unknown_session_raise_key_error(sandbox: Sandbox) -> None:
    with pytest.raises(KeyError, match="nothing has the id 'sess_0'"):
        sandbox.events("sess_0")


def test_rewrite_of_sessions_and_events_accepts_any_values(sandbox: Sandbox) -> None:
    session = sandbox.sessions[3] | {"status": "hibernating", "usage": None, "new": [1]}
    sandbox.rewrite(session)
    assert sandbox.sessions[3] == session == get(sandbox, f"/sessions/{session['id']}").json
    events = [{"id": f"evt_{number}", "type": "session.odd", "x": {"y": None}} for number in range(120)]
    sandbox.rewrite_events(session["id"], events)
    page = get(sandbox, f"/sessions/{session['id']}/events", {"limit": 100}).json
    rest = get(sandbox, f"/sessions/{session['id']}/events", {"limit": 100, "page": page["next_page"]}).json
    assert page["data"] + rest["data"] == events
    agent = sandbox.agents[0] | {"name": None}
    sandbox.rewrite(agent)
    assert get(sandbox, "/agents").json["data"][0] == agent


def test_account_does_not_depend_on_the_order_of_reading() -> None:
    one, other = Sandbox(40, 9, "D"), Sandbox(40, 9, "C")
    _ = other.sessions, other.runs, [other.events(session["id"]) for session in other.sessions]
    other.edition = "D"
    texts = [
        json.dumps(
            [
                sandbox.sessions,
                sandbox.runs,
                sandbox.outcomes,
                [sandbox.events(one["id"]) for one in sandbox.sessions],
            ]
        )
        for sandbox in (one, other)
    ]
    assert texts[0] == texts[1]
