"""Tests of the sandbox's requests and responses over HTTP: each documented behaviour, in every edition."""

from __future__ import annotations

import socket
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoderdata.sandbox import Sandbox
from qoderdata.sandbox.changes import EDITIONS
from qoderdata.sandbox.sample_values import nanoseconds
from tests.sandbox_requests import Record, Response, connect, get, live_deployments, walk

if TYPE_CHECKING:
    from collections.abc import Callable

Params = dict[str, str]


SANDBOX = {"deployments": 130, "seed": 11, "runs": 1_050}


@pytest.fixture(params=EDITIONS)
def edition(request: pytest.FixtureRequest, sandbox: Sandbox) -> str:
    sandbox.edition = request.param
    return sandbox.edition


def busiest(sandbox: Sandbox) -> tuple[str, list[Record]]:
    """Return the id of the deployment with the most runs, and its runs."""
    runs = sandbox.runs
    identity = Counter(run["deployment_id"] for run in runs).most_common(1)[0][0]
    return identity, [run for run in runs if run["deployment_id"] == identity]


# -- the service ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": ""},
        {"Authorization": "Bearer pt-wrong"},
        {"Authorization": "pt-sandbox-11"},
        {"Authorization": "Basic pt-sandbox-11"},
        {"Authorization": "", "x_api_key": "pt-sandbox-11"},
    ],
)
@pytest.mark.parametrize("path", ["/deployments", "/deployment_runs", "/deployments/dep_1", "/nothing"])
def test_request_without_a_valid_token_gets_401(sandbox: Sandbox, path: str, headers: dict[str, str]) -> None:
    response = get(sandbox, path, None, **headers)
    assert response.status == 401
    assert response.json == {
        "type": "error",
        "error": {"type": "authentication_error", "message": "Invalid API key or token."},
    }


def test_every_response_has_its_own_request_id(sandbox: Sandbox) -> None:
    responses = [get(sandbox, path) for path in ("/deployments", "/nothing", "/deployment_runs")]
    responses.append(get(sandbox, "/deployments", Authorization=""))
    ids = [response.headers["x-request-id"] for response in responses]
    assert len(set(ids)) == 4
    assert ids == [request.request_id for request in sandbox.requests[-4:]]


def test_request_log_has_request_and_status_but_no_token(sandbox: Sandbox) -> None:
    get(sandbox, "/deployments")
    get(sandbox, "/deployments", {"limit": "3", "status": "paused"}, qoder_workspace_id="ws_1")
    request = sandbox.requests[-1]
    assert (request.method, request.path, request.status) == ("GET", "/deployments", 200)
    assert request.query == {"limit": "3", "status": "paused"}
    assert request.headers["qoder-workspace-id"] == "ws_1"
    assert sandbox.requests[-2].at <= request.at
    assert sandbox.pat not in repr(request)
    assert sandbox.pat not in repr(sandbox)


@pytest.mark.parametrize("accepted", ["gzip", "gzip, deflate", "deflate, GZIP;q=0.5"])
def test_response_is_gzipped_when_the_client_accepts_gzip(sandbox: Sandbox, accepted: str) -> None:
    plain, packed = get(sandbox, "/deployments"), get(sandbox, "/deployments", Accept_Encoding=accepted)
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < len(plain.body) / 2
    assert packed.json == plain.json
    assert get(sandbox, "/nothing", Accept_Encoding=accepted).json["type"] == "error"


@pytest.mark.parametrize("accepted", ["", "identity", "gzip;q=0", "br"])
def test_response_is_not_compressed_when_gzip_is_not_accepted(sandbox: Sandbox, accepted: str) -> None:
    assert "content-encoding" not in get(sandbox, "/deployments", Accept_Encoding=accepted).headers


def test_gzip_false_turns_compression_off() -> None:
    with Sandbox(deployments=3, gzip=False) as sandbox:
        assert "content-encoding" not in get(sandbox, "/deployments", Accept_Encoding="gzip").headers


def test_one_connection_serves_many_requests_without_delay(sandbox: Sandbox) -> None:
    """Keep-alive works, and Nagle's algorithm is off."""
    connection = connect(sandbox)
    connection.connect()
    own = connection.sock.getsockname()
    for _ in range(5):
        connection.request("GET", "/api/v1/cloud/deployments", headers={"Authorization": f"Bearer {sandbox.pat}"})
        assert Response(connection.getresponse()).status == 200
        assert connection.sock.getsockname() == own
    server = sandbox._server
    assert server is not None
    sockets = [one for one in server.connections if one.getpeername() == own]
    assert sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    connection.close()


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
def test_methods_other_than_get_are_answered_with_501(sandbox: Sandbox, method: str) -> None:
    response = get(sandbox, "/deployments", method=method)
    assert (response.status, response.json["error"]["type"]) == (501, "feature_not_available")


def test_records_are_escaped_as_go_escapes_json(sandbox: Sandbox) -> None:
    """``<``, ``>`` and ``&`` are escaped, non-ASCII characters are not; both forms are the same JSON."""
    raw = b"".join(get(sandbox, f"/deployments/{record['id']}").body for record in sandbox.deployments)
    assert b"\\u003cimg src=x onerror=alert(1)\\u003e" in raw
    assert not set(b"<>&") & set(raw)
    assert "每日销售日报".encode() in raw


# -- single records -------------------------------------------------------------------------------------------


def test_single_record_equals_the_listed_record(sandbox: Sandbox, edition: str) -> None:
    del edition
    for path, records in (("/deployments", sandbox.deployments), ("/deployment_runs", sandbox.runs)):
        for record in (records[0], records[-1], records[len(records) // 2]):
            assert get(sandbox, f"{path}/{record['id']}").json == record


@pytest.mark.parametrize(
    "path",
    [
        "/deployments/dep_0", "/deployment_runs/drun_0", "/deployments/dep_0/runs", "/deployment", "/", "",
        "/deployments/", "/deployments/a/runs/b", "/deployment_runs/a/b", "/../../../etc/passwd",
        "/deployments/%2e%2e",
    ],
)  # fmt: skip
def test_unknown_path_gets_404(sandbox: Sandbox, path: str) -> None:
    response = get(sandbox, path)
    assert (response.status, response.json["type"], response.json["error"]["type"]) == (
        404,
        "error",
        "not_found_error",
    )


@pytest.mark.parametrize("path", ["/deployments", "/api/v1/cloudx/deployments", "/api/v1/clouddeployments"])
def test_path_outside_the_base_url_gets_404(sandbox: Sandbox, path: str) -> None:
    connection = connect(sandbox)
    connection.request("GET", path, headers={"Authorization": f"Bearer {sandbox.pat}"})
    assert Response(connection.getresponse()).status == 404
    connection.close()


# -- envelope and cursors -------------------------------------------------------------------------------------


LISTS: dict[str, Callable[[Sandbox], tuple[str, Params, list[Record]]]] = {
    "deployments": lambda sandbox: ("/deployments", {}, live_deployments(sandbox)),
    "deployments with archived ones": lambda sandbox: (
        "/deployments",
        {"include_archived": "true"},
        sandbox.deployments,
    ),
    "runs": lambda sandbox: ("/deployment_runs", {}, sandbox.runs),
    "one deployment's runs": lambda sandbox: (f"/deployments/{busiest(sandbox)[0]}/runs", {}, busiest(sandbox)[1]),
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("limit", ["1", "70"])
@pytest.mark.parametrize("cursor", ["after_id", "page"])
def test_paging_returns_every_record_once_newest_first(
    sandbox: Sandbox, *, edition: str, name: str, limit: str, cursor: str
) -> None:
    path, params, expected = LISTS[name](sandbox)
    if len(expected) > 100 and limit == "1":
        limit = "23"
    before = len(sandbox.requests)
    assert walk(sandbox, path, params | {"limit": limit}, cursor=cursor) == expected, edition
    assert len(sandbox.requests) - before == max(1, -(-len(expected) // int(limit)))


@pytest.mark.parametrize("name", LISTS)
def test_envelope_of_the_first_and_the_last_page(sandbox: Sandbox, edition: str, name: str) -> None:
    path, params, expected = LISTS[name](sandbox)
    page = get(sandbox, path, params | {"limit": "5"}).json
    assert list(page) == ["data", "first_id", "has_more", "last_id", "next_page"], edition
    assert page["data"] == expected[:5]
    assert (page["first_id"], page["last_id"]) == (expected[0]["id"], expected[min(4, len(expected) - 1)]["id"])
    assert page["has_more"] == (len(expected) > 5)
    assert page["next_page"] == (page["last_id"] if page["has_more"] else None)
    last = get(sandbox, path, params | {"after_id": expected[-2]["id"], "limit": "5"}).json
    assert last == {
        "data": expected[-1:],
        "first_id": expected[-1]["id"],
        "has_more": False,
        "last_id": expected[-1]["id"],
        "next_page": None,
    }


@pytest.mark.parametrize("name", LISTS)
def test_envelope_of_an_empty_page(sandbox: Sandbox, edition: str, name: str) -> None:
    path, params, expected = LISTS[name](sandbox)
    page = get(sandbox, path, params | {"after_id": expected[-1]["id"]}).json
    assert page == {"data": [], "first_id": None, "has_more": False, "last_id": None, "next_page": None}, edition


def test_envelope_of_an_empty_account() -> None:
    with Sandbox(deployments=0) as sandbox:
        for path in ("/deployments", "/deployment_runs"):
            page = get(sandbox, path).json
            assert page == {"data": [], "first_id": None, "has_more": False, "last_id": None, "next_page": None}


def test_send_next_page_false_omits_next_page(sandbox: Sandbox) -> None:
    sandbox.send_next_page = False
    page = get(sandbox, "/deployments", {"limit": "2"}).json
    sandbox.send_next_page = True
    assert "next_page" not in page
    assert page["has_more"]


def test_before_id_returns_the_records_just_before_in_list_order(sandbox: Sandbox, edition: str) -> None:
    expected = sandbox.runs
    page = get(sandbox, "/deployment_runs", {"before_id": expected[30]["id"], "limit": "10"}).json
    assert page["data"] == expected[20:30], edition
    assert (page["first_id"], page["last_id"], page["has_more"]) == (expected[20]["id"], expected[29]["id"], True)
    first = get(sandbox, "/deployment_runs", {"before_id": expected[4]["id"], "limit": "10"}).json
    assert (first["data"], first["has_more"]) == (expected[:4], False)
    assert get(sandbox, "/deployment_runs", {"before_id": expected[0]["id"]}).json["data"] == []


@pytest.mark.parametrize(
    ("names", "param"),
    [
        (("after_id", "before_id"), "before_id"),
        (("after_id", "page"), "page"),
        (("before_id", "page"), "page"),
        (("after_id", "before_id", "page"), "before_id"),
    ],
)
def test_several_cursors_in_one_request_are_refused(
    sandbox: Sandbox, edition: str, names: tuple[str, ...], param: str
) -> None:
    response = get(sandbox, "/deployments", dict.fromkeys(names, sandbox.deployments[0]["id"]))
    assert response.status == 400, edition
    assert response.json["error"]["type"] == "invalid_request_error"
    assert response.json["error"]["param"] == param
    assert "mutually exclusive" in response.json["error"]["message"]


@pytest.mark.parametrize("name", ["after_id", "before_id", "page"])
def test_unknown_cursor_is_refused(sandbox: Sandbox, name: str) -> None:
    response = get(sandbox, "/deployments", {name: "dep_0"})
    assert (response.status, response.json["error"]["param"]) == (400, name)


def test_id_of_a_hidden_record_is_a_valid_cursor(sandbox: Sandbox) -> None:
    """An archived deployment has a position in the order, although the list does not contain it."""
    all_deployments = sandbox.deployments
    index = next(number for number, record in enumerate(all_deployments) if record["archived_at"] and number > 5)
    shown = [record for record in all_deployments[index + 1 :] if record["archived_at"] is None]
    assert (
        get(sandbox, "/deployments", {"after_id": all_deployments[index]["id"], "limit": "3"}).json["data"]
        == shown[:3]
    )


def test_short_pages_may_be_empty_and_have_cursors_of_hidden_records(sandbox: Sandbox, edition: str) -> None:
    """The service may filter after it has counted; then only ``has_more`` says whether there are more records."""
    sandbox.short_pages = True
    pages: list[Record] = []
    cursor: Params = {}
    while not pages or pages[-1]["has_more"]:
        pages.append(get(sandbox, "/deployments", {"limit": "10", "status": "paused"} | cursor).json)
        cursor = {"after_id": pages[-1]["last_id"]}
    sandbox.short_pages = False
    paused = [record for record in live_deployments(sandbox) if record["status"] == "paused"]
    assert [record for page in pages for record in page["data"]] == paused, edition
    assert len(pages) == 13
    assert any(not page["data"] for page in pages)
    assert any(page["last_id"] not in [record["id"] for record in page["data"]] for page in pages)


# -- the page size, by edition --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requested_edition", "limit", "answer"),
    [
        ("A", "", 20), ("A", "1", 1), ("A", "1000", 1000), ("A", "1001", "limit must be between 1 and 1000"),
        ("B", "", 20), ("B", "1", 1), ("B", "100", 100), ("B", "101", 100), ("B", "1000", 100),
        ("B", "123456789", 100),
        ("C", "", 20), ("C", "1", 1), ("C", "100", 100), ("C", "101", "limit must be between 1 and 100"),
        ("C", "1000", "limit must be between 1 and 100"),
        ("A", "0", "limit must be between 1 and 1000"), ("B", "0", "limit must be between 1 and 100"),
        ("C", "-1", "limit must be between 1 and 100"), ("C", "ten", "limit must be between 1 and 100"),
        ("C", "1.5", "limit must be between 1 and 100"), ("B", "²", "limit must be between 1 and 100"),
    ],
)  # fmt: skip
def test_page_size_limit_of_each_edition(
    sandbox: Sandbox, requested_edition: str, limit: str, answer: int | str
) -> None:
    sandbox.edition = requested_edition
    response = get(sandbox, "/deployment_runs", {"limit": limit} if limit else {})
    if isinstance(answer, int):
        assert (response.status, len(response.json["data"])) == (200, answer)
    else:
        error = {"type": "invalid_request_error", "message": answer, "param": "limit"}
        assert (response.status, response.json) == (400, {"type": "error", "error": error})


# -- filters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("include_archived", ["true", "false", ""])
@pytest.mark.parametrize("status", ["active", "paused", ""])
@pytest.mark.parametrize("agent", [0, None, "agent_0"])
def test_deployment_filters_return_the_matching_deployments(
    sandbox: Sandbox, *, edition: str, include_archived: str, status: str, agent: int | str | None
) -> None:
    records = sandbox.deployments
    agent_id = records[agent]["agent"]["id"] if isinstance(agent, int) else agent or ""
    expected = [
        record
        for record in records
        if (include_archived == "true" or record["archived_at"] is None)
        and (not status or record["status"] == status)
        and (not agent_id or record["agent"]["id"] == agent_id)
    ]
    filters = {"include_archived": include_archived, "status": status, "agent_id": agent_id, "limit": "100"}
    assert (
        walk(sandbox, "/deployments", {name: text for name, text in filters.items() if text}, cursor="after_id")
        == expected
    ), edition


def test_times_with_utc_offsets_are_accepted_in_filters(sandbox: Sandbox) -> None:
    sandbox.edition = "C"
    responses = [
        get(sandbox, "/deployment_runs", {"created_at[lt]": text, "limit": "100"}).ids
        for text in ("2026-06-14T00:00:00Z", "2026-06-14T08:00:00+08:00", "2026-06-13T20:00:00.000-04:00")
    ]
    assert responses[0] == responses[1] == responses[2] != []


@settings(max_examples=60, deadline=None)
@given(
    status=st.sampled_from(["pending", "running", "completed", "failed", "skipped", ""]),
    trigger=st.sampled_from(["manual", "schedule", "retry", ""]),
    has_error=st.sampled_from(["true", "false", ""]),
    deployment=st.sampled_from([0, 3, None, "dep_0"]),
    requested_edition=st.sampled_from(EDITIONS),
)
def test_run_filters_return_the_matching_runs(
    *,
    sandbox: Sandbox,
    status: str,
    trigger: str,
    has_error: str,
    deployment: int | str | None,
    requested_edition: str,
) -> None:
    sandbox.edition = requested_edition
    if requested_edition >= "D":
        status, trigger = "", trigger.replace("retry", "schedule")
    records = sandbox.runs
    deployment_id = records[deployment]["deployment_id"] if isinstance(deployment, int) else deployment or ""
    expected = [
        run
        for run in records
        if status in ("", run.get("status"))
        and trigger in ("", run["trigger_context"]["type"])
        and (not has_error or (run["error"] is not None) == (has_error == "true"))
        and deployment_id in ("", run["deployment_id"])
    ]
    filters = {"status": status, "trigger_type": trigger, "has_error": has_error, "deployment_id": deployment_id}
    sent = {name: text for name, text in filters.items() if text}
    assert walk(sandbox, "/deployment_runs", sent | {"limit": "100"}, cursor="after_id") == expected


def test_filters_of_one_deployments_runs_return_the_matching_runs(sandbox: Sandbox, edition: str) -> None:
    """Edition D also filters by the time of the trigger, although its records do not contain it."""
    identity, runs = busiest(sandbox)
    sandbox.edition = "C"
    old = busiest(sandbox)[1]
    sandbox.edition = edition
    after, before = old[-3]["triggered_at"], old[1]["triggered_at"]
    path = f"/deployments/{identity}/runs"
    bounds = {"triggered_after": after, "triggered_before": before}
    ids = {one["id"] for one in old if nanoseconds(after) < nanoseconds(one["triggered_at"]) < nanoseconds(before)}
    within = [run for run in runs if run["id"] in ids]
    assert walk(sandbox, path, bounds, cursor="after_id") == within != [], edition
    if edition >= "D":
        return
    for status in ("completed", "failed"):
        expected = [run for run in within if run["status"] == status]
        assert walk(sandbox, path, bounds | {"status": status}, cursor="after_id") == expected != []
    assert walk(sandbox, path, {"trigger_type": "retry", "has_error": "true"}, cursor="after_id") == runs, (
        "trigger_type and has_error are filters of /deployment_runs only"
    )


@pytest.mark.parametrize(
    ("requested_edition", "path", "param", "value"),
    [
        ("C", "/deployments", "status", "archived"),
        ("C", "/deployments", "include_archived", "yes"),
        ("C", "/deployments", "created_at[gte]", "yesterday"),
        ("C", "/deployments", "created_at[lte]", "2026-06-15"),
        ("C", "/deployment_runs", "status", "done"),
        ("C", "/deployment_runs", "trigger_type", "cron"),
        ("D", "/deployment_runs", "trigger_type", "retry"),
        ("C", "/deployment_runs", "has_error", "1"),
        ("D", "/deployment_runs", "has_error", "1"),
        ("C", "/deployment_runs", "created_at[gt]", "2026-06-15T00:00:00"),
        ("C", "/deployment_runs", "created_at[lt]", "2026-06-15T00:00:00 00:00"),
        ("C", "/deployments/{deployment}/runs", "status", "ok"),
        ("C", "/deployments/{deployment}/runs", "triggered_after", "1718000000"),
        ("C", "/deployments/{deployment}/runs", "triggered_before", "never"),
        ("D", "/sessions", "statuses[]", "done"),
        ("D", "/sessions", "order", "newest"),
        ("D", "/sessions", "agent_version", "one"),
        ("D", "/sessions", "include_archived", "yes"),
        ("D", "/sessions", "created_at[gte]", "yesterday"),
        ("D", "/agents", "created_at[lt]", "never"),
        ("D", "/environments", "include_archived", "1"),
        ("D", "/sessions/{session}/events", "order", "up"),
    ],
)
def test_invalid_parameter_value_is_refused_with_the_parameter_name(
    sandbox: Sandbox, requested_edition: str, path: str, param: str, value: str
) -> None:
    sandbox.edition = requested_edition
    path = path.format(deployment=sandbox.deployments[0]["id"], session=sandbox.sessions[0]["id"])
    response = get(sandbox, path, {param: value})
    assert (response.status, response.json["error"]["type"]) == (400, "invalid_request_error")
    assert response.json["error"]["param"] == param
    assert param in response.json["error"]["message"]


def test_unknown_and_empty_parameters_are_ignored_up_to_edition_c(sandbox: Sandbox) -> None:
    sandbox.edition = "C"
    expected = get(sandbox, "/deployments").ids
    assert get(sandbox, "/deployments", {"created_by": "me", "sort": "name"}).ids == expected
    assert (
        get(sandbox, "/deployments", {"status": "", "after_id": "", "limit": "", "agent_id": ""}).ids == expected
    )


def test_first_value_of_a_repeated_parameter_is_used(sandbox: Sandbox) -> None:
    assert len(get(sandbox, f"/deployments?limit=3&limit=5&{quote('status')}=active").ids) == 3
