"""Tests of the sandbox's faults: each is met once, by the right request, in the form that a client sees."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest

from qoderdata.sandbox import Sandbox
from qoderdata.sandbox.changes import EDITIONS
from qoderdata.sandbox.sandbox import FAULT_NAMES
from tests.sandbox_requests import Response, connect, get

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(deployments=25, seed=3, runs=40) as running:
        yield running


def get_deployments(sandbox: Sandbox, query: str = "", **headers: str) -> Response:
    return get(sandbox, f"/deployments{query}", None, **headers)


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ("400", 400, "invalid_request_error"),
        ("401", 401, "authentication_error"),
        ("403", 403, "permission_error"),
        ("404", 404, "not_found_error"),
        ("409", 409, "conflict_error"),
        ("413", 413, "request_too_large"),
        ("422", 422, "invalid_request_error"),
        ("429-json", 429, "rate_limit_error"),
        ("529", 529, "overloaded_error"),
        ("500", 500, "api_error"),
        ("501", 501, "feature_not_available"),
        ("503", 503, "feature_not_available"),
    ],
)
def test_service_errors_have_a_json_envelope_and_a_request_id(
    sandbox: Sandbox, fault: str, status: int, kind: str
) -> None:
    sandbox.misbehave(fault)
    response = get_deployments(sandbox)
    error = response.json
    assert (response.status, error["type"], error["error"]["type"]) == (status, "error", kind)
    assert error["error"]["message"]
    assert response.headers["x-request-id"] == sandbox.requests[-1].request_id
    assert get_deployments(sandbox).status == 200


@pytest.mark.parametrize(
    ("fault", "status", "html"),
    [
        ("408", 408, False), ("429", 429, False), ("429-retry-after", 429, True), ("502-html", 502, True),
        ("503-empty", 503, False), ("503-html", 503, True), ("504", 504, True), ("html-200", 200, True),
    ],
)  # fmt: skip
def test_gateway_errors_have_an_html_body_or_none(
    sandbox: Sandbox, fault: str, status: int, *, html: bool
) -> None:
    sandbox.misbehave(fault)
    response = get_deployments(sandbox)
    headers = response.headers
    assert response.status == status
    assert (headers.get("content-type"), response.body[:6]) == (("text/html", b"<html>") if html else (None, b""))
    assert headers["content-length"] == str(len(response.body))
    assert "x-request-id" not in headers
    assert (sandbox.requests[-1].status, sandbox.requests[-1].request_id) == (status, None)
    assert get_deployments(sandbox).status == 200


@pytest.mark.parametrize(
    ("fault", "given", "sent"),
    [
        ("429", None, None),
        ("429-retry-after", None, "1"),
        ("429-retry-after", 7, "7"),
        ("429", 0.5, "0.5"),
        ("503-empty", "Mon, 15 Jun 2026 01:31:00 GMT", "Mon, 15 Jun 2026 01:31:00 GMT"),
        ("500", 3, "3"),
    ],
)
def test_retry_after_is_sent_as_seconds_or_as_a_date(
    sandbox: Sandbox, fault: str, given: float | str | None, sent: str | None
) -> None:
    sandbox.misbehave(fault, retry_after=given)
    assert get_deployments(sandbox).headers.get("retry-after") == sent


@pytest.mark.parametrize("fault", ["429", "429-retry-after", "429-json"])
def test_edition_d_answers_429_with_json(sandbox: Sandbox, fault: str) -> None:
    sandbox.edition = "D"
    sandbox.misbehave(fault, headers={"retry-after-ms": "250", "x-should-retry": "true"})
    response = get_deployments(sandbox)
    error, headers = response.json, response.headers
    assert (response.status, error["error"]["type"]) == (429, "rate_limit_error")
    assert error["request_id"] == headers["x-request-id"] == sandbox.requests[-1].request_id
    assert (headers["retry-after-ms"], headers["x-should-retry"]) == ("250", "true")
    assert headers["content-type"] == "application/json"
    assert headers.get("retry-after") == ("1" if fault == "429-retry-after" else None)


@pytest.mark.parametrize("edition", EDITIONS)
def test_only_edition_d_has_the_request_id_in_error_bodies(sandbox: Sandbox, edition: str) -> None:
    sandbox.edition = edition
    for query, authorization in (("?limit=0", f"Bearer {sandbox.pat}"), ("", "Bearer wrong")):
        response = get_deployments(sandbox, query, Authorization=authorization)
        expected = response.headers["x-request-id"] if edition >= "D" else None
        assert response.json.get("request_id") == expected
    assert "request_id" not in get_deployments(sandbox).json


@pytest.mark.parametrize("location", [None, "http://127.0.0.1:9/elsewhere"])
def test_redirect_fault_answers_302_with_a_location(sandbox: Sandbox, location: str | None) -> None:
    sandbox.misbehave("redirect", location=location)
    response = get_deployments(sandbox)
    assert (response.status, response.headers["location"]) == (302, location or "/api/v1/cloud/moved")


def test_reset_fault_closes_the_connection_without_a_response(sandbox: Sandbox) -> None:
    sandbox.misbehave("reset")
    with pytest.raises(ConnectionResetError):
        get_deployments(sandbox)
    assert sandbox.requests[-1].status is None
    assert get_deployments(sandbox).status == 200


def test_hang_lasts_until_the_sandbox_stops(sandbox: Sandbox) -> None:
    sandbox.misbehave("hang")
    ended = Event()

    def expect_disconnect() -> None:
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            get_deployments(sandbox)
        ended.set()

    thread = Thread(target=expect_disconnect)
    thread.start()
    while sandbox._faults._at:
        time.sleep(0.001)  # until the request has met the fault
    assert not ended.wait(0.2)
    assert get_deployments(sandbox).status == 200, "other requests are answered during the hang"
    sandbox.stop()
    assert ended.wait(10)
    thread.join()


def test_end_hangs_also_ends_a_hang_that_has_not_begun_to_wait(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`end_hangs` is called after the request was read and before it starts to wait."""
    assert sandbox._server is not None
    respond = sandbox._respond

    def respond_and_end(request: Any) -> Any:  # noqa: ANN401 - the sandbox's own types
        answer = respond(request)
        sandbox.end_hangs()
        return answer

    monkeypatch.setattr(sandbox._server, "respond", respond_and_end)
    sandbox.misbehave("hang")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        get_deployments(sandbox)


def test_hang_causes_a_client_timeout(sandbox: Sandbox) -> None:
    sandbox.misbehave("hang")
    connection = connect(sandbox)
    connection.timeout = 0.1
    connection.request("GET", "/api/v1/cloud/deployments")
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()


@pytest.mark.parametrize("accepted", ["identity", "gzip"])
def test_cut_body_fault_sends_half_of_the_announced_length(sandbox: Sandbox, accepted: str) -> None:
    whole = int(get_deployments(sandbox, Accept_Encoding=accepted).headers["content-length"])
    sandbox.misbehave("cut-body")
    with pytest.raises(http.client.IncompleteRead) as caught:
        get_deployments(sandbox, Accept_Encoding=accepted)
    assert len(caught.value.partial) == whole // 2
    assert get_deployments(sandbox).status == 200


@pytest.mark.parametrize("accepted", ["identity", "gzip"])
def test_cut_json_fault_sends_half_the_json_as_a_complete_body(sandbox: Sandbox, accepted: str) -> None:
    whole = get_deployments(sandbox).body
    sandbox.misbehave("cut-json")
    response = get_deployments(sandbox, Accept_Encoding=accepted)
    assert (response.status, int(response.headers["content-length"])) == (200, len(response.body))
    assert response.headers.get("content-encoding", "identity") == accepted
    assert response.plain == whole[: len(whole) // 2]


def test_torn_json_fault_only_inserts_a_zero_byte(sandbox: Sandbox) -> None:
    whole = get_deployments(sandbox).body
    sandbox.misbehave("torn-json")
    response = get_deployments(sandbox)
    assert response.status == 200
    assert response.body.replace(b"\x00", b"") == whole
    with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):  # which one depends on where the byte is
        _ = response.json


@pytest.mark.parametrize("cursor", ["page", "after_id"])
def test_repeat_cursor_fault_returns_the_cursor_of_the_request(sandbox: Sandbox, cursor: str) -> None:
    """The first page has no cursor to repeat, so the fault applies to the next page."""
    sandbox.misbehave("repeat-cursor")
    first = get_deployments(sandbox, "?limit=5").json
    second = get_deployments(sandbox, f"?limit=5&{cursor}={first['last_id']}").json
    assert (second["last_id"], second["next_page"], second["has_more"]) == (
        first["last_id"],
        first["last_id"],
        True,
    )
    third = get_deployments(sandbox, f"?limit=5&{cursor}={second['last_id']}").json
    assert third["data"] == second["data"]
    assert third["last_id"] != second["last_id"]


def test_no_cursor_fault_sends_has_more_without_a_cursor(sandbox: Sandbox) -> None:
    sandbox.misbehave("no-cursor")
    page = get_deployments(sandbox).json
    assert (page["last_id"], page["next_page"], page["has_more"]) == (None, None, True)


def test_overlap_fault_repeats_the_last_record_of_the_page_before(sandbox: Sandbox) -> None:
    sandbox.misbehave("overlap")
    first = get_deployments(sandbox, "?limit=5").json
    second = get_deployments(sandbox, f"?limit=5&after_id={first['last_id']}").json
    assert second["data"][0] == first["data"][-1]


def test_faults_are_met_in_order_or_at_the_given_request(sandbox: Sandbox) -> None:
    sandbox.misbehave("500", at=2)
    sandbox.misbehave("429")
    sandbox.misbehave("429")
    sandbox.misbehave("504")
    assert [get_deployments(sandbox).status for _ in range(5)] == [429, 429, 500, 504, 200]
    sandbox.misbehave("401", at=1)
    assert [get_deployments(sandbox).status for _ in range(3)] == [200, 401, 200]


def test_fault_also_applies_to_invalid_requests(sandbox: Sandbox) -> None:
    sandbox.misbehave("502-html")
    assert get_deployments(sandbox, Authorization="Bearer wrong").status == 502
    sandbox.misbehave("repeat-cursor")
    assert get_deployments(sandbox, "?limit=0&page=x").status == 400, "an error response has no cursor to repeat"


def test_unknown_fault_raises_value_error() -> None:
    with pytest.raises(ValueError, match=re.escape("fault='418' is none of 408, 429, 429-retry-after")):
        Sandbox(deployments=0).misbehave("418")
    with pytest.raises(ValueError, match="at=-1 is negative"):
        Sandbox(deployments=0).misbehave("500", at=-1)


def test_docstring_names_each_fault() -> None:
    described = (Sandbox.misbehave.__doc__ or "").partition("at\n")[0]
    assert set(re.findall(r'``"([^"]+)"``', described)) == set(FAULT_NAMES)


def test_sandbox_can_be_started_stopped_and_started_again() -> None:
    sandbox = Sandbox(deployments=3)
    with pytest.raises(RuntimeError, match="no address yet"):
        _ = sandbox.base_url
    sandbox.start()
    base_url = sandbox.base_url
    with pytest.raises(RuntimeError, match="serves already"):
        sandbox.start()
    kept_alive = connect(sandbox)
    kept_alive.request("GET", "/api/v1/cloud/deployments")
    kept_alive.getresponse().read()
    sandbox.stop()
    sandbox.stop()
    assert kept_alive.sock.recv(1) == b"", "the sandbox closed the connection"
    kept_alive.close()
    with pytest.raises(ConnectionRefusedError):
        get_deployments(sandbox)
    with sandbox:
        assert sandbox.base_url == base_url
        assert get_deployments(sandbox).status == 200


def test_given_port_is_used_and_must_be_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            Sandbox(deployments=0, port=port).start()
    with Sandbox(deployments=0, port=port) as sandbox:
        assert sandbox.base_url == f"http://127.0.0.1:{port}/api/v1/cloud"
        assert get_deployments(sandbox).status == 200


def test_internal_error_of_the_sandbox_is_printed(sandbox: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    """Otherwise a bug in the sandbox would look like a failure of the service."""
    sandbox._faults = None  # type: ignore[assignment]  # causes an internal error
    with pytest.raises(http.client.RemoteDisconnected):
        get_deployments(sandbox)
    assert "AttributeError: 'NoneType' object has no attribute" in capfd.readouterr().err


def test_client_that_disconnects_early_causes_no_output(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    """The response is larger than the socket buffers, so writing it fails."""
    sandbox.create_deployments(1_000)
    sandbox.edition = "A"
    connection = connect(sandbox)
    connection.connect()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    connection.request(
        "GET", "/api/v1/cloud/deployments?limit=1000", headers={"Authorization": f"Bearer {sandbox.pat}"}
    )
    connection.close()
    while not sandbox.requests:
        get_deployments(sandbox)
    sandbox.stop()
    assert capfd.readouterr() == ("", "")
