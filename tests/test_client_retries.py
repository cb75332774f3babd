"""Tests of retries in `Client.get`: which faults are retried. For how long it waits: `test_client_wait_times`."""

from __future__ import annotations

import gzip
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import ScriptedService
from qoderdata import errors
from qoderdata.client import Client, retries
from qoderdata.pages import PageSize, walk

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import FastClock

    Response = bytes | Callable[[socket.socket], None]


response = ScriptedService.response


def then_close(head: bytes) -> Response:
    """Return a function that sends these bytes and closes the connection."""
    return lambda connection: connection.sendall(head)


def reset(connection: socket.socket) -> None:
    """Close the connection with a TCP reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
ZIPPED = gzip.compress(json.dumps(list(range(1000))).encode())

#: Each fault that is retried, and the exception that is raised after the last attempt.
RETRYABLE: dict[str, tuple[Response, type[errors.APIError]]] = {
    "408": (response(408), errors.APIStatusError),
    "429": (response(429), errors.RateLimitError),
    "429 with Retry-After": (response(429, Retry_After="3"), errors.RateLimitError),
    "500": (response(500), errors.InternalServerError),
    "502 in HTML": (response(502, b"<html>Bad gateway</html>"), errors.InternalServerError),
    "503 with an empty body": (response(503, b""), errors.InternalServerError),
    "504": (response(504), errors.InternalServerError),
    "529": (response(529), errors.InternalServerError),
    "400 with x-should-retry": (response(400, x_should_retry="true"), errors.BadRequestError),
    "TCP reset": (reset, errors.APIConnectionError),
    "closed without a response": (then_close(b""), errors.APIConnectionError),
    "truncated headers": (then_close(b"HTTP/1.1 200 OK\r\nContent-Le"), errors.APIResponseValidationError),
    "not HTTP": (then_close(b"SSH-2.0-OpenSSH\r\n"), errors.APIConnectionError),
    "truncated body": (then_close(response(body=b'{"a"', Content_Length="100")), errors.APIConnectionError),
    "truncated chunk": (then_close(CHUNKED + b"\r\n64\r\n{}"), errors.APIConnectionError),
    "last chunk missing": (then_close(CHUNKED + b"\r\n2\r\n{}\r\n"), errors.APIConnectionError),
    "truncated gzip chunk": (
        then_close(CHUNKED + b"Content-Encoding: gzip\r\n\r\n%x\r\n" % len(ZIPPED) + ZIPPED[:50]),
        errors.APIConnectionError,
    ),
    "gzip header but no gzip body": (response(body=b"[1]", Content_Encoding="gzip"), errors.APIConnectionError),
    "truncated gzip body": (
        response(body=ZIPPED[:-50], Content_Encoding="gzip"),
        errors.APIResponseValidationError,
    ),
    "truncated JSON": (response(body=b'{"a": [1, 2'), errors.APIResponseValidationError),
    "200 in HTML": (response(body=b"<!doctype html><p>Log in"), errors.APIResponseValidationError),
    "200 with an empty body": (response(body=b""), errors.APIResponseValidationError),
    "204": (response(204, b""), errors.APIResponseValidationError),
    "text after the JSON": (response(body=b"{} {}"), errors.APIResponseValidationError),
    "not UTF-8": (response(body=b'{"a": "\xff"}'), errors.APIResponseValidationError),
}


class TestRetryableFaults:
    @pytest.mark.parametrize("fault", RETRYABLE)
    def test_request_is_retried_after_a_fault(
        self, service: ScriptedService, clock: FastClock, fault: str
    ) -> None:
        service.respond_with(RETRYABLE[fault][0], response(body=b'{"id": "dep_1"}'))
        assert Client("pt-secret", service.base_url).get_deployment("dep_1") == {"id": "dep_1"}
        assert len(service.requests) == len(clock.sleeps) + 1 == 2
        assert clock.sleeps[0] == 3 if "Retry-After" in fault else 0.375 <= clock.sleeps[0] <= 0.5

    def test_docstring_of_the_client_names_each_status_that_is_retried(self) -> None:
        named = re.search(r"HTTP ([\d, and\n]+),", Client.__doc__ or "")
        assert named is not None
        assert {int(status) for status in re.findall(r"\d+", named[1])} == retries._RETRYABLE_STATUSES

    @pytest.mark.parametrize("fault", RETRYABLE)
    def test_repeated_fault_is_raised_after_max_retries(self, service: ScriptedService, fault: str) -> None:
        service.respond_with(RETRYABLE[fault][0])
        with pytest.raises(errors.APIError) as caught:
            Client("pt-secret", service.base_url, max_retries=2).get_deployment("dep_1")
        assert type(caught.value) is RETRYABLE[fault][1]
        assert len(service.requests) == 3
        assert caught.value.attempts == 3
        assert "[3 attempts in " in str(caught.value)

    def test_refused_connection_is_retried_then_raised(self, clock: FastClock) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))  # reserves the port, on which nothing listens
            port = unused.getsockname()[1]
            message = rf"^GET /deployments/dep_1 from 127\.0\.0\.1:{port}: .*refused"
            with pytest.raises(errors.APIConnectionError, match=message) as caught:
                Client("pt-secret", f"http://127.0.0.1:{port}/api").get_deployment("dep_1")
        assert caught.value.attempts == 6
        assert caught.value.seconds == pytest.approx(sum(clock.sleeps))

    def test_missing_response_is_retried_then_times_out(self, service: ScriptedService) -> None:
        release = threading.Event()

        def hang(_connection: socket.socket) -> None:
            release.wait(30)

        service.respond_with(hang)
        client = Client("pt-secret", service.base_url, timeout=(5, 0.05), max_retries=1)
        with pytest.raises(errors.APITimeoutError, match=r"no complete response in time.*timeout") as caught:
            client.get_deployment("dep_1")
        release.set()
        assert caught.value.attempts == 2

    def test_slow_endless_body_times_out_and_closes_the_connection(
        self, service: ScriptedService, clock: FastClock
    ) -> None:
        """Each byte arrives within the read timeout, but the body as a whole takes too long."""
        connection_closed = threading.Event()

        def send_slowly(connection: socket.socket) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            try:
                for _ in range(1_000_000):
                    clock.sleep(20)
                    connection.sendall(b"x")
            except OSError:
                connection_closed.set()

        service.respond_with(send_slowly)
        with pytest.raises(errors.APITimeoutError):
            Client("pt-secret", service.base_url, timeout=(10, 60), max_retries=0).get_deployment("dep_1")
        assert connection_closed.wait(10)

    def test_response_with_an_invalid_header_is_retried(self, service: ScriptedService) -> None:
        twice = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"
        service.respond_with(twice, response())
        assert "id" not in Client("pt-secret", service.base_url).get_deployment("dep_1")
        service.respond_with(twice)
        with pytest.raises(errors.APIConnectionError, match="response is incomplete or invalid"):
            Client("pt-secret", service.base_url, max_retries=0).get_deployment("dep_1")

    def test_retries_are_logged_at_info_and_not_printed(
        self, service: ScriptedService, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        service.respond_with(response(503, b""), response(500), response())
        with caplog.at_level(logging.INFO, "qoderdata"):
            Client("pt-secret", service.base_url).get_deployment("dep_1")
        assert [(record.name, record.levelname) for record in caplog.records] == [("qoderdata.client", "INFO")] * 2
        assert "answered 503" in caplog.messages[0]
        assert "(2 of 5)" in caplog.messages[1]
        assert capfd.readouterr() == ("", "")

    def test_value_error_from_read_causes_a_retry(self, service: ScriptedService) -> None:
        bodies: list[bytes] = []

        def read(body: bytes) -> int:
            bodies.append(body)
            if len(bodies) < 3:
                raise ValueError("incomplete")
            return len(bodies)

        service.respond_with(response(body=b"1"), response(body=b"2"), response(body=b"3"))
        assert Client("pt-secret", service.base_url).get("/deployments", {}, read) == 3
        assert bodies == [b"1", b"2", b"3"]


class TestNotRetried:
    @pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 409, 410, 413, 418, 422, 501, 505])
    def test_client_error_status_is_raised_at_once(
        self, service: ScriptedService, clock: FastClock, status: int
    ) -> None:
        service.respond_with(response(status))
        with pytest.raises(errors.APIStatusError) as caught:
            Client("pt-secret", service.base_url).get_deployment("dep_1")
        assert type(caught.value) is errors.status_error_class(status)
        assert caught.value.status_code == status
        assert (len(service.requests), clock.sleeps) == (1, [])

    @pytest.mark.parametrize(
        ("status", "directive"), [(429, "false"), (503, "false"), (409, "true"), (404, "yes"), (404, "")]
    )
    def test_status_with_this_x_should_retry_is_not_retried(
        self, service: ScriptedService, status: int, directive: str
    ) -> None:
        """``x-should-retry`` is read as in the official SDK, where 409 is never retried."""
        service.respond_with(response(status, x_should_retry=directive))
        with pytest.raises(errors.APIStatusError):
            Client("pt-secret", service.base_url).get_deployment("dep_1")
        assert len(service.requests) == 1

    def test_validation_error_from_read_gets_the_request_id(self, service: ScriptedService) -> None:
        def read(body: bytes) -> None:
            raise errors.APIResponseValidationError(f"{len(body)} bytes, not a list")

        with pytest.raises(errors.APIResponseValidationError) as caught:
            Client("pt-secret", service.base_url).get("/deployments", {}, read)
        assert (
            str(caught.value)
            == "GET /deployments: 2 bytes, not a list [1 attempt in 0.0 s; request id req_scripted]"
        )
        assert len(service.requests) == 1

    def test_other_error_from_read_is_raised_unchanged(self, service: ScriptedService) -> None:
        with pytest.raises(ZeroDivisionError):
            Client("pt-secret", service.base_url).get("/deployments", {}, lambda _: 1 // 0)
        assert len(service.requests) == 1


class TestKeyboardInterrupt:
    def test_interrupt_during_a_wait_leaves_the_client_usable(
        self, service: ScriptedService, clock: FastClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service.respond_with(response(503), response())
        client = Client("pt-secret", service.base_url)
        with monkeypatch.context() as patch:
            patch.setattr(clock, "sleep", Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                client.get_deployment("dep_1")
        assert client.get_deployment("dep_1") == {}

    def test_interrupt_during_a_response_leaves_the_client_usable(
        self, service: ScriptedService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = Client("pt-secret", service.base_url)
        with monkeypatch.context() as patch:
            patch.setattr(client._transport, "_read", Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                client.get_deployment("dep_1")
        assert client.get_deployment("dep_1") == {}
        assert len(service.requests) == 2

    def test_sigint_ends_a_process_that_waits_for_a_page(self, service: ScriptedService) -> None:
        """The process gets a real SIGINT while `walk` waits for a page."""
        request_received, release = threading.Event(), threading.Event()

        def hang(_connection: socket.socket) -> None:
            request_received.set()
            release.wait(60)

        service.respond_with(hang)
        program = (
            "import sys; from qoderdata.client import Client; from qoderdata.pages import PageSize, walk\n"
            "client = Client('pt-secret', sys.argv[1])\n"
            "fetch = lambda cursor, limit: client.get('/deployments', {}, len)\n"
            "next(walk('/deployments', fetch, limit=PageSize(), max_pages=10, mask=str))\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, service.base_url], stderr=subprocess.PIPE, text=True
        ) as process:
            assert request_received.wait(60)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
        release.set()
        assert process.returncode == -signal.SIGINT
        assert stderr.rstrip().endswith("KeyboardInterrupt")


class _Page:
    def __init__(self, body: bytes) -> None:
        self.data: list[int] = (page := json.loads(body))["data"]
        self.has_more: bool = page["has_more"]
        self.cursor: str | None = page["last_id"]
        self.count = len(self.data)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(faults=st.lists(st.lists(st.sampled_from(sorted(RETRYABLE)), max_size=5), min_size=1, max_size=4))
def test_walk_yields_the_same_pages_with_any_retryable_faults(
    service: ScriptedService, faults: list[list[str]]
) -> None:
    responses: list[Response] = []
    for number, before in enumerate(faults):
        responses += [RETRYABLE[fault][0] for fault in before]
        page = {"data": [number], "has_more": number < len(faults) - 1, "last_id": f"id_{number}"}
        responses.append(response(body=json.dumps(page).encode()))
    service.respond_with(*responses)
    client = Client("pt-secret", service.base_url, max_retries=5)

    def fetch(cursor: str | None, limit: int) -> _Page:
        params = {"limit": str(limit)} | ({"after_id": cursor} if cursor else {})
        return client.get("/deployments", params, _Page)

    service.requests.clear()
    pages = walk("/deployments", fetch, limit=PageSize(), max_pages=len(faults), mask=client.mask)
    assert [page.data for page in pages] == [[number] for number in range(len(faults))]
    cursors = [request.query.get("after_id") for request in service.requests]
    assert cursors == [
        f"id_{number - 1}" if number else None
        for number, before in enumerate(faults)
        for _ in range(len(before) + 1)
    ]
