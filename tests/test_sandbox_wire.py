"""What goes over the wire: every line of the service's documentation about it, in every edition."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoderdata.sandbox import Sandbox
from qoderdata.sandbox.sample_values import nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Record = dict[str, Any]
Params = dict[str, str]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(deployments=130, seed=11, runs=1_050) as running:
        yield running


@pytest.fixture(params="ABCD")
def edition(request: pytest.FixtureRequest, sandbox: Sandbox) -> str:
    sandbox.edition = request.param
    return sandbox.edition


class Reply:
    """One response, with its JSON."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.raw = response.status, response.read()
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        plain = gzip.decompress(self.raw) if self.headers.get("content-encoding") == "gzip" else self.raw
        self.json: Any = json.loads(plain) if self.headers.get("content-type") == "application/json" else None

    @property
    def ids(self) -> list[str]:
        return [record["id"] for record in self.json["data"]]


def get(
    sandbox: Sandbox, path: str, params: Params | None = None, *, method: str = "GET", **headers: str
) -> Reply:
    """Ask with nothing but the standard library; ``_`` in a header's name stands for ``-``."""
    parts = urlsplit(sandbox.base_url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    sent = {"Authorization": f"Bearer {sandbox.pat}"} | {
        name.replace("_", "-"): text for name, text in headers.items()
    }
    query = f"?{urlencode(params)}" if params else ""
    connection.request(method, f"{parts.path}{path}{query}", headers=sent)
    try:
        return Reply(connection.getresponse())
    finally:
        connection.close()


def walk(sandbox: Sandbox, path: str, params: Params, *, cursor: str = "after_id") -> list[Record]:
    """Read every page, by the envelope's cursor."""
    records: list[Record] = []
    at: Params = {}
    while True:
        page = get(sandbox, path, params | at).json
        records += page["data"]
        if not page["has_more"]:
            return records
        at = {cursor: page["last_id"]}


def live(sandbox: Sandbox) -> list[Record]:
    return [record for record in sandbox.deployments if record["archived_at"] is None]


def busiest(sandbox: Sandbox) -> tuple[str, list[Record]]:
    """Return the deployment with the most runs, and them."""
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
def test_without_the_token_nothing_is_answered(sandbox: Sandbox, path: str, headers: dict[str, str]) -> None:
    reply = get(sandbox, path, None, **headers)
    assert reply.status == 401
    assert reply.json == {
        "type": "error",
        "error": {"type": "authentication_error", "message": "Invalid API key or token."},
    }


def test_every_answer_has_a_request_id_of_its_own(sandbox: Sandbox) -> None:
    replies = [get(sandbox, path) for path in ("/deployments", "/nothing", "/deployment_runs")]
    replies.append(get(sandbox, "/deployments", Authorization=""))
    ids = [reply.headers["x-request-id"] for reply in replies]
    assert len(set(ids)) == 4
    assert ids == [request.request_id for request in sandbox.requests[-4:]]


def test_the_log_has_what_was_asked_and_answered(sandbox: Sandbox) -> None:
    get(sandbox, "/deployments", {"limit": "3", "status": "paused"}, qoder_workspace_id="ws_1")
    request = sandbox.requests[-1]
    assert (request.method, request.path, request.status) == ("GET", "/deployments", 200)
    assert request.query == {"limit": "3", "status": "paused"}
    assert request.headers["qoder-workspace-id"] == "ws_1"
    assert sandbox.requests[-2].at <= request.at
    assert sandbox.pat not in repr(request)
    assert sandbox.pat not in repr(sandbox)


@pytest.mark.parametrize("accepted", ["gzip", "gzip, deflate", "deflate, GZIP;q=0.5"])
def test_answers_are_compressed_for_clients_that_ask_for_it(sandbox: Sandbox, accepted: str) -> None:
    plain, packed = get(sandbox, "/deployments"), get(sandbox, "/deployments", Accept_Encoding=accepted)
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.raw) < len(plain.raw) / 2
    assert packed.json == plain.json
    assert get(sandbox, "/nothing", Accept_Encoding=accepted).json["type"] == "error"


@pytest.mark.parametrize("accepted", ["", "identity", "gzip;q=0", "br"])
def test_answers_are_plain_for_the_others(sandbox: Sandbox, accepted: str) -> None:
    assert "content-encoding" not in get(sandbox, "/deployments", Accept_Encoding=accepted).headers


def test_compression_can_be_turned_off() -> None:
    with Sandbox(deployments=3, gzip=False) as sandbox:
        assert "content-encoding" not in get(sandbox, "/deployments", Accept_Encoding="gzip").headers


def test_one_connection_serves_many_requests_without_delay(sandbox: Sandbox) -> None:
    """Keep-alive, and no waiting for acknowledgements: Nagle's algorithm is off."""
    parts = urlsplit(sandbox.base_url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    connection.connect()
    own = connection.sock.getsockname()
    for _ in range(5):
        connection.request("GET", f"{parts.path}/deployments", headers={"Authorization": f"Bearer {sandbox.pat}"})
        assert Reply(connection.getresponse()).status == 200
        assert connection.sock.getsockname() == own
    server = sandbox._server
    assert server is not None
    sockets = [one for one in server.connections if one.getpeername() == own]
    assert sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    connection.close()


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
def test_nothing_but_reading_is_available(sandbox: Sandbox, method: str) -> None:
    reply = get(sandbox, "/deployments", method=method)
    assert (reply.status, reply.json["error"]["type"]) == (501, "feature_not_available")


def test_records_are_written_as_go_writes_them(sandbox: Sandbox) -> None:
    """``<``, ``>`` and ``&`` are escaped, and everything else is as it is: both are the same JSON."""
    raw = b"".join(get(sandbox, f"/deployments/{record['id']}").raw for record in sandbox.deployments)
    assert b"\\u003cimg src=x onerror=alert(1)\\u003e" in raw
    assert not set(b"<>&") & set(raw)
    assert "每日销售日报".encode() in raw


# -- single objects -------------------------------------------------------------------------------------------


def test_one_object_is_as_the_list_has_it(sandbox: Sandbox, edition: str) -> None:
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
def test_what_is_not_there_is_not_found(sandbox: Sandbox, path: str) -> None:
    reply = get(sandbox, path)
    assert (reply.status, reply.json["type"], reply.json["error"]["type"]) == (404, "error", "not_found_error")


@pytest.mark.parametrize("path", ["/deployments", "/api/v1/cloudx/deployments", "/api/v1/clouddeployments"])
def test_a_path_outside_the_base_url_is_not_found(sandbox: Sandbox, path: str) -> None:
    parts = urlsplit(sandbox.base_url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    connection.request("GET", path, headers={"Authorization": f"Bearer {sandbox.pat}"})
    assert Reply(connection.getresponse()).status == 404
    connection.close()


# -- envelope and cursors -------------------------------------------------------------------------------------


LISTS: dict[str, Callable[[Sandbox], tuple[str, Params, list[Record]]]] = {
    "deployments": lambda sandbox: ("/deployments", {}, live(sandbox)),
    "with archived": lambda sandbox: ("/deployments", {"include_archived": "true"}, sandbox.deployments),
    "runs": lambda sandbox: ("/deployment_runs", {}, sandbox.runs),
    "one deployment's runs": lambda sandbox: (f"/deployments/{busiest(sandbox)[0]}/runs", {}, busiest(sandbox)[1]),
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("limit", ["1", "70"])
@pytest.mark.parametrize("cursor", ["after_id", "page"])
def test_a_walk_gives_every_record_once_newest_first(
    sandbox: Sandbox, *, edition: str, name: str, limit: str, cursor: str
) -> None:
    path, params, expected = LISTS[name](sandbox)
    if len(expected) > 100 and limit == "1":
        limit = "23"
    before = len(sandbox.requests)
    assert walk(sandbox, path, params | {"limit": limit}, cursor=cursor) == expected, edition
    assert len(sandbox.requests) - before == max(1, -(-len(expected) // int(limit)))


@pytest.mark.parametrize("name", LISTS)
def test_the_envelope(sandbox: Sandbox, edition: str, name: str) -> None:
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
def test_an_empty_list(sandbox: Sandbox, edition: str, name: str) -> None:
    path, params, expected = LISTS[name](sandbox)
    page = get(sandbox, path, params | {"after_id": expected[-1]["id"]}).json
    assert page == {"data": [], "first_id": None, "has_more": False, "last_id": None, "next_page": None}, edition


def test_an_empty_account() -> None:
    with Sandbox(deployments=0) as sandbox:
        for path in ("/deployments", "/deployment_runs"):
            page = get(sandbox, path).json
            assert page == {"data": [], "first_id": None, "has_more": False, "last_id": None, "next_page": None}


def test_next_page_can_be_left_out(sandbox: Sandbox) -> None:
    sandbox.send_next_page = False
    page = get(sandbox, "/deployments", {"limit": "2"}).json
    sandbox.send_next_page = True
    assert "next_page" not in page
    assert page["has_more"]


def test_before_id_gives_the_records_just_before_in_list_order(sandbox: Sandbox, edition: str) -> None:
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
def test_cursors_exclude_one_another(sandbox: Sandbox, edition: str, names: tuple[str, ...], param: str) -> None:
    reply = get(sandbox, "/deployments", dict.fromkeys(names, sandbox.deployments[0]["id"]))
    assert reply.status == 400, edition
    assert reply.json["error"]["type"] == "invalid_request_error"
    assert reply.json["error"]["param"] == param
    assert "mutually exclusive" in reply.json["error"]["message"]


@pytest.mark.parametrize("name", ["after_id", "before_id", "page"])
def test_a_cursor_that_names_nothing_is_refused(sandbox: Sandbox, name: str) -> None:
    reply = get(sandbox, "/deployments", {name: "dep_0"})
    assert (reply.status, reply.json["error"]["param"]) == (400, name)


def test_a_cursor_may_be_of_a_record_that_the_list_does_not_show(sandbox: Sandbox) -> None:
    """An archived deployment is a place in the order, though it is not shown."""
    every = sandbox.deployments
    place = next(number for number, record in enumerate(every) if record["archived_at"] and number > 5)
    shown = [record for record in every[place + 1 :] if record["archived_at"] is None]
    assert get(sandbox, "/deployments", {"after_id": every[place]["id"], "limit": "3"}).json["data"] == shown[:3]


def test_pages_can_be_short_with_cursors_of_records_not_shown(sandbox: Sandbox, edition: str) -> None:
    """Where the service filters after it has counted, only ``has_more`` says whether there is more."""
    sandbox.short_pages = True
    pages: list[Record] = []
    cursor: Params = {}
    while not pages or pages[-1]["has_more"]:
        pages.append(get(sandbox, "/deployments", {"limit": "10", "status": "paused"} | cursor).json)
        cursor = {"after_id": pages[-1]["last_id"]}
    sandbox.short_pages = False
    paused = [record for record in live(sandbox) if record["status"] == "paused"]
    assert [record for page in pages for record in page["data"]] == paused, edition
    assert len(pages) == 13
    assert any(not page["data"] for page in pages)
    assert any(page["last_id"] not in [record["id"] for record in page["data"]] for page in pages)


# -- the page size, by edition --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edition_", "limit", "answer"),
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
def test_the_page_size_of_each_edition(sandbox: Sandbox, edition_: str, limit: str, answer: int | str) -> None:
    sandbox.edition = edition_
    reply = get(sandbox, "/deployment_runs", {"limit": limit} if limit else {})
    if isinstance(answer, int):
        assert (reply.status, len(reply.json["data"])) == (200, answer)
    else:
        error = {"type": "invalid_request_error", "message": answer, "param": "limit"}
        assert (reply.status, reply.json) == (400, {"type": "error", "error": error})


# -- filters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("include_archived", ["true", "false", ""])
@pytest.mark.parametrize("status", ["active", "paused", ""])
@pytest.mark.parametrize("agent", [0, None, "agent_0"])
def test_filters_of_deployments(
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
    given_ = {"include_archived": include_archived, "status": status, "agent_id": agent_id, "limit": "100"}
    assert walk(sandbox, "/deployments", {name: text for name, text in given_.items() if text}) == expected, (
        edition
    )


def test_offsets_in_times_are_understood(sandbox: Sandbox) -> None:
    sandbox.edition = "C"
    replies = [
        get(sandbox, "/deployment_runs", {"created_at[lt]": text, "limit": "100"}).ids
        for text in ("2026-06-14T00:00:00Z", "2026-06-14T08:00:00+08:00", "2026-06-13T20:00:00.000-04:00")
    ]
    assert replies[0] == replies[1] == replies[2] != []


@settings(max_examples=60, deadline=None)
@given(
    status=st.sampled_from(["pending", "running", "completed", "failed", "skipped", ""]),
    trigger=st.sampled_from(["manual", "schedule", "retry", ""]),
    has_error=st.sampled_from(["true", "false", ""]),
    deployment=st.sampled_from([0, 3, None, "dep_0"]),
    edition_=st.sampled_from("ABCD"),
)
def test_filters_of_runs(
    *, sandbox: Sandbox, status: str, trigger: str, has_error: str, deployment: int | str | None, edition_: str
) -> None:
    sandbox.edition = edition_
    if edition_ == "D":
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
    given_ = {"status": status, "trigger_type": trigger, "has_error": has_error, "deployment_id": deployment_id}
    sent = {name: text for name, text in given_.items() if text}
    assert walk(sandbox, "/deployment_runs", sent | {"limit": "100"}) == expected


def test_filters_of_one_deployments_runs(sandbox: Sandbox, edition: str) -> None:
    """The newest edition filters by the time of the trigger too, though it does not tell it."""
    identity, runs = busiest(sandbox)
    sandbox.edition = "C"
    old = busiest(sandbox)[1]
    sandbox.edition = edition
    after, before = old[-3]["triggered_at"], old[1]["triggered_at"]
    path = f"/deployments/{identity}/runs"
    bounds = {"triggered_after": after, "triggered_before": before}
    ids = {one["id"] for one in old if nanoseconds(after) < nanoseconds(one["triggered_at"]) < nanoseconds(before)}
    within = [run for run in runs if run["id"] in ids]
    assert walk(sandbox, path, bounds) == within != [], edition
    if edition == "D":
        return
    for status in ("completed", "failed"):
        expected = [run for run in within if run["status"] == status]
        assert walk(sandbox, path, bounds | {"status": status}) == expected
    assert walk(sandbox, path, {"trigger_type": "retry", "has_error": "true"}) == runs, "filters of the other list"


@pytest.mark.parametrize(
    ("edition_", "path", "param", "value"),
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
def test_impossible_values_are_refused_by_name(
    sandbox: Sandbox, edition_: str, path: str, param: str, value: str
) -> None:
    sandbox.edition = edition_
    path = path.format(deployment=sandbox.deployments[0]["id"], session=sandbox.sessions[0]["id"])
    reply = get(sandbox, path, {param: value})
    assert (reply.status, reply.json["error"]["type"]) == (400, "invalid_request_error")
    assert reply.json["error"]["param"] == param
    assert param in reply.json["error"]["message"]


def test_unknown_parameters_are_ignored_and_empty_ones_are_none(sandbox: Sandbox) -> None:
    sandbox.edition = "C"
    expected = get(sandbox, "/deployments").ids
    assert get(sandbox, "/deployments", {"created_by": "me", "sort": "name"}).ids == expected
    assert (
        get(sandbox, "/deployments", {"status": "", "after_id": "", "limit": "", "agent_id": ""}).ids == expected
    )


def test_the_first_of_a_repeated_parameter_counts(sandbox: Sandbox) -> None:
    assert len(get(sandbox, f"/deployments?limit=3&limit=5&{quote('status')}=active").ids) == 3
