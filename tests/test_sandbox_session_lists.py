"""Tests of the sandbox's lists of sessions, events, agents and environments, and of what edition D refuses."""

from __future__ import annotations

from itertools import product
from operator import ge, gt, le, lt
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qoderdata.sandbox import Sandbox
from qoderdata.sandbox.changes import EDITIONS
from qoderdata.sandbox.sample_values import nanoseconds, stamp
from tests.sandbox_requests import Record, get, walk

Params = dict[str, Any]

EVENT_TYPES = [
    "session.status_running", "session.status_idle", "session.status_rescheduled", "session.status_terminated",
    "session.error",
]  # fmt: skip


SANDBOX = {"deployments": 60, "seed": 11, "runs": 450}


@pytest.fixture(params=EDITIONS)
def edition(request: pytest.FixtureRequest, sandbox: Sandbox, longest: str) -> str:
    del longest  # requested first because it sets the edition too
    sandbox.edition = request.param
    return sandbox.edition


@pytest.fixture(scope="module")
def longest(sandbox: Sandbox) -> str:
    """Return the id of the session with the most events, among those that every edition knows."""
    sandbox.edition = "C"
    known = [session["id"] for session in sandbox.sessions]
    sandbox.edition = "D"
    return str(max(known, key=lambda identity: len(sandbox.events(identity))))


def read(sandbox: Sandbox, path: str, params: Params | None = None) -> Any:  # noqa: ANN401 - JSON
    response = get(sandbox, path, params)
    assert response.status == 200, response.plain
    return response.json


def live(records: list[Record]) -> list[Record]:
    return [record for record in records if record.get("archived_at") is None]


def records_of(sandbox: Sandbox, root: str) -> list[Record]:
    records: list[Record] = getattr(sandbox, root)
    return records


@pytest.mark.parametrize("root", ["sessions", "agents", "environments"])
def test_lists_are_paged_with_the_page_cursor_in_every_edition(sandbox: Sandbox, edition: str, root: str) -> None:
    records = records_of(sandbox, root)
    assert walk(sandbox, f"/{root}", {"limit": 100, "include_archived": "true"}) == records, edition
    assert walk(sandbox, f"/{root}", {"limit": 100}) == live(records) != records
    assert read(sandbox, f"/{root}")["data"] == live(records)[:20]
    assert read(sandbox, f"/{root}/{records[-1]['id']}") == records[-1]
    assert get(sandbox, f"/{root}/x").json["error"]["type"] == "not_found_error"
    assert get(sandbox, f"/{root}", method="POST").json["error"]["type"] == "feature_not_available"


@pytest.mark.parametrize("root", ["sessions", "agents", "environments"])
@pytest.mark.parametrize("limit", ["0", "101", "1000", "ten"])
def test_page_size_outside_1_to_100_is_refused_in_every_edition(
    sandbox: Sandbox, edition: str, root: str, limit: str
) -> None:
    response = get(sandbox, f"/{root}", {"limit": limit})
    assert (response.status, response.json["error"]["param"]) == (400, "limit"), edition


@pytest.mark.parametrize("root", ["sessions", "agents", "environments"])
@pytest.mark.parametrize("cursor", ["after_id", "before_id"])
def test_after_id_and_before_id_are_refused_by_edition_d_else_ignored(
    sandbox: Sandbox, edition: str, root: str, cursor: str
) -> None:
    records = live(records_of(sandbox, root))
    response = get(sandbox, f"/{root}", {cursor: records[2]["id"], "limit": 3})
    if edition >= "D":
        assert (response.status, response.json["error"]["param"]) == (400, cursor)
    else:
        assert response.json["data"] == records[:3]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    statuses=st.lists(st.sampled_from(["running", "rescheduling", "canceling", "idle", "terminated"]), max_size=3),
    deployment=st.sampled_from([0, 7, 20, None, "dep_0"]),
    agent=st.sampled_from([0, None, "agent_0"]),
    version=st.sampled_from(["", "1", "3"]),
    archived=st.sampled_from(["true", "false", ""]),
    order=st.sampled_from(["asc", "desc", ""]),
    requested_edition=st.sampled_from(EDITIONS),
)
def test_session_filters_return_the_matching_sessions(
    *, sandbox: Sandbox, statuses: list[str], deployment: int | str | None, agent: int | str | None, version: str,
    archived: str, order: str, requested_edition: str,
) -> None:  # fmt: skip
    sandbox.edition = requested_edition
    records = sandbox.sessions
    if requested_edition in "AB":
        statuses = ["processing" if word == "running" else word for word in statuses]
    deployment_id = records[deployment]["deployment_id"] if isinstance(deployment, int) else deployment
    agent_id = records[agent]["agent"]["id"] if isinstance(agent, int) else agent
    expected = [
        one
        for one in records
        if (archived == "true" or one["archived_at"] is None)
        and (not statuses or one["status"] in statuses)
        and (deployment_id is None or one["deployment_id"] == deployment_id)
        and (agent_id is None or one["agent"]["id"] == agent_id)
        and (not version or one["agent"]["version"] == int(version))
    ]
    params = {
        "statuses[]": statuses, "deployment_id": deployment_id, "agent_id": agent_id, "agent_version": version,
        "include_archived": archived, "order": order, "limit": 100,
    }  # fmt: skip
    sent = {name: value for name, value in params.items() if value}
    got = walk(sandbox, "/sessions", sent)
    assert got == (expected[::-1] if order == "asc" else expected)


@pytest.mark.parametrize(
    ("root", "operator"),
    [
        ("deployments", "gte"),
        ("deployments", "lte"),
        *product(["runs", "sessions", "agents", "environments"], ["gt", "gte", "lt", "lte"]),
    ],
)
def test_created_at_filters_work_from_edition_c_on(
    sandbox: Sandbox, edition: str, root: str, operator: str
) -> None:
    """Times are compared to the nanosecond; editions A and B ignore the filter."""
    records = live(records_of(sandbox, root))
    middle = records[len(records) // 2]["created_at"]
    compare = {"gt": gt, "gte": ge, "lt": lt, "lte": le}[operator]
    for shift in (-1, 0, 1) if edition in "CD" else (0,):
        at = nanoseconds(middle) + shift
        text = f"{stamp(at)[:19]}.{at % 10**9:09d}Z"
        kept = [one for one in records if compare(nanoseconds(one["created_at"]), at)]
        path = "/deployment_runs" if root == "runs" else f"/{root}"
        got = walk(sandbox, path, {f"created_at[{operator}]": text, "limit": 100})
        assert got == (records if edition in "AB" else kept)


@pytest.mark.parametrize("limit", [30, 100])
@pytest.mark.parametrize("cursor", ["page", "after_id"])
def test_events_are_paged_in_both_orders_and_filtered_by_type(
    sandbox: Sandbox, longest: str, edition: str, limit: int, cursor: str
) -> None:
    """The default order is oldest first."""
    events = sandbox.events(longest)
    path = f"/sessions/{longest}/events"
    assert len(events) > 100, edition
    assert walk(sandbox, path, {"limit": limit}, cursor=cursor) == events
    assert walk(sandbox, path, {"limit": limit, "order": "asc"}, cursor=cursor) == events
    assert walk(sandbox, path, {"limit": limit, "order": "desc"}, cursor=cursor) == events[::-1]
    chosen = [event for event in events if event["type"] in EVENT_TYPES]
    got = walk(sandbox, path, {"limit": limit // 30, "types[]": EVENT_TYPES}, cursor=cursor)
    assert got == chosen
    assert 3 < len(chosen) < len(events)


def test_before_id_returns_the_events_just_before_it(sandbox: Sandbox, longest: str, edition: str) -> None:
    events, path = sandbox.events(longest), f"/sessions/{longest}/events"
    page = read(sandbox, path, {"before_id": events[50]["id"], "limit": 10})
    assert (page["data"], page["has_more"]) == (events[40:50], True), edition
    newest = read(sandbox, path, {"before_id": events[50]["id"], "limit": 10, "order": "desc"})
    assert newest["data"] == events[51:61][::-1]
    both = get(sandbox, path, {"before_id": events[5]["id"], "page": events[5]["id"]})
    assert "mutually exclusive" in both.json["error"]["message"]
    assert get(sandbox, path, {"page": "evt_0"}).json["error"]["param"] == "page"
    assert get(sandbox, path, {"limit": 101}).json["error"]["param"] == "limit"


def test_rewritten_events_need_nothing_but_ids() -> None:
    """A filter by type does not return events without a type."""
    with Sandbox(3, 1, "D", 20) as sandbox:
        identity = sandbox.sessions[0]["id"]
        events: list[Record] = [
            {"id": "evt_1"},
            {"id": "evt_2", "type": "session.error"},
            {"id": "evt_3", "type": None},
        ]
        sandbox.rewrite_events(identity, events)
        assert read(sandbox, f"/sessions/{identity}/events")["data"] == events
        assert read(sandbox, f"/sessions/{identity}/events", {"types[]": "session.error"})["data"] == events[1:2]


def test_short_pages_return_fewer_events_than_the_limit(sandbox: Sandbox, longest: str) -> None:
    sandbox.edition, sandbox.short_pages = "D", True
    events = [event for event in sandbox.events(longest) if event["type"] in EVENT_TYPES]
    params = {"limit": 10, "types[]": EVENT_TYPES}
    try:
        assert walk(sandbox, f"/sessions/{longest}/events", params) == events
        assert len(read(sandbox, f"/sessions/{longest}/events", params)["data"]) < 10
        assert walk(sandbox, "/sessions", {"limit": 100}) == live(sandbox.sessions)
    finally:
        sandbox.short_pages = False


def test_sessions_that_only_edition_d_has_are_not_found_in_edition_c(sandbox: Sandbox) -> None:
    """Up to edition C, some sessions of edition D are turns of another session."""
    sandbox.edition = "D"
    newest = {session["id"] for session in sandbox.sessions}
    sandbox.edition = "C"
    older = {session["id"] for session in sandbox.sessions}
    assert older < newest
    for identity in sorted(newest - older)[:3]:
        assert get(sandbox, f"/sessions/{identity}").status == 404
        assert get(sandbox, f"/sessions/{identity}/events").status == 404


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/deployments", "sort"), ("/deployments", "created_at[gt]"), ("/deployments/{deployment}", "x"),
        ("/deployment_runs", "status"), ("/deployment_runs/{run}", "expand"),
        ("/deployments/{deployment}/runs", "status"), ("/deployments/{deployment}/runs/{run}", "x"),
        ("/sessions", "status"), ("/sessions/{session}", "x"),
        ("/sessions/{session}/events", "type"), ("/agents", "agent_id"), ("/environments", "name"),
    ],
)  # fmt: skip
def test_only_edition_d_refuses_unknown_parameters(sandbox: Sandbox, edition: str, path: str, param: str) -> None:
    run = next(one for one in sandbox.runs if one.get("session_id"))
    path = path.format(deployment=run["deployment_id"], run=run["id"], session=sandbox.sessions[0]["id"])
    # The runs have a filter `status` up to edition C, which refuses values that are no status of a run.
    response = get(sandbox, path, {param: "failed" if param == "status" and "run" in path else "x"})
    if edition >= "D":
        error = response.json
        assert (response.status, error["error"]["type"]) == (400, "invalid_request_error")
        assert error["error"]["param"] == param
        assert error["request_id"] == response.headers["x-request-id"]
    else:
        assert response.status == 200


def test_run_is_found_only_under_its_own_deployment(sandbox: Sandbox, edition: str) -> None:
    run, other = (
        sandbox.runs[3],
        next(one for one in sandbox.runs if one["deployment_id"] != sandbox.runs[3]["deployment_id"]),
    )
    assert read(sandbox, f"/deployments/{run['deployment_id']}/runs/{run['id']}") == run, edition
    assert get(sandbox, f"/deployments/{other['deployment_id']}/runs/{run['id']}").status == 404


def test_request_log_keeps_all_values_of_a_parameter(sandbox: Sandbox) -> None:
    read(sandbox, "/sessions", {"statuses[]": ["idle", "terminated"], "limit": 5})
    request = sandbox.requests[-1]
    assert (request.path, request.status) == ("/sessions", 200)
    assert request.lists == {"statuses[]": ["idle", "terminated"], "limit": ["5"]}
    assert request.query == {"statuses[]": "idle", "limit": "5"}


def test_overlap_fault_repeats_an_event(sandbox: Sandbox, longest: str) -> None:
    path = f"/sessions/{longest}/events"
    start = read(sandbox, path, {"limit": 5})
    sandbox.misbehave("overlap")
    assert read(sandbox, path, {"limit": 5, "page": start["last_id"]})["data"][0] == start["data"][-1]


@pytest.mark.parametrize("sandbox_edition", "CD")
def test_listing_100_of_many_sessions_builds_only_100_records(sandbox_edition: str) -> None:
    with Sandbox(100, 7, sandbox_edition, 2_000) as big:
        read(big, "/sessions", {"limit": 100})
        every_edition = big._database.sessions._bodies.values()
        assert sum(body is not None for bodies in every_edition for body in bodies) == 100
