"""Tests of the limits of a response: its size after decompression, and the time for the whole of it."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import socket
import ssl
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import urllib3

from qoderdata import errors
from qoderdata.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from conftest import FastClock, ScriptedService

TLS = Path(__file__).with_name("test_client_tls.pem")
_LIMIT = 2**20

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"
#: A stored block of deflate without data: valid, and it decompresses to nothing.
EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


#: Endless responses, by the part that does not end: what the server sends first, and what it then repeats.
SLOW_RESPONSES: dict[str, tuple[bytes, Iterable[bytes]]] = {
    "status line": (b"HTTP/1.1 200 ", [b"O"]),
    "headers": (OK + b"X-Long: ", [b"x"]),
    "interim responses": (b"", [b"HTTP/1.1 100 Continue\r\n\r\n"]),
    "body": (OK + b"Content-Length: 1000000\r\n\r\n", [b" "]),
    "chunks": (CHUNKED + b"\r\n", [chunk(b" ")]),
    "chunk size": (CHUNKED + b"\r\n", [b"0"]),
    "chunk extension": (CHUNKED + b"\r\n2;", [b"x"]),
    "trailers": (CHUNKED + b"\r\n" + chunk(b"{}") + b"0\r\n", [b"X-Trailer: x\r\n"]),
    "empty deflate blocks": (
        CHUNKED + b"Content-Encoding: gzip\r\n\r\n" + chunk(GZIP_HEADER),
        [chunk(EMPTY_BLOCK)],
    ),
    "body of an error": (b"HTTP/1.1 503 No\r\nContent-Length: 1000000000\r\n\r\n", [b" "]),
}

#: Endless responses that arrive as fast as the client reads.
FAST_RESPONSES = {
    name: response
    for name, response in SLOW_RESPONSES.items()
    if name not in {"status line", "headers", "chunk size"}
} | {
    "body without a length": (OK + b"\r\n", [b" "]),
    "body with a large Content-Length": (OK + b"Content-Length: 100000000000\r\n\r\n", [b" "]),
}


@contextlib.contextmanager
def listening(talk: Callable[[socket.socket], None], *, tls: bool = False) -> Iterator[int]:
    """Call `talk` with each connection to a port of this machine, in a thread of its own; yield the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS)

    def serve(connection: socket.socket) -> None:
        with (
            connection,
            contextlib.suppress(OSError),
            context.wrap_socket(connection, server_side=True) if tls else connection as stream,
        ):
            talk(stream)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextlib.contextmanager
def server(first: bytes, then: Iterable[bytes], *, every: float, tls: bool = False) -> Iterator[int]:
    """Send `first` to each client, then repeat `then` until the client closes the connection."""
    stopped = threading.Event()

    def talk(stream: socket.socket) -> None:
        stream.recv(65536)
        stream.sendall(first)
        for more in itertools.cycle(then):
            if stopped.is_set() or (every and stopped.wait(every)):
                return
            stream.sendall(more if every else more * (50_000 // len(more)))

    with listening(talk, tls=tls) as port:
        yield port
        stopped.set()


@pytest.mark.usefixtures("real_clock")
class TestTimeLimit:
    @pytest.mark.parametrize("part", SLOW_RESPONSES)
    def test_slow_endless_response_times_out(self, part: str) -> None:
        first, then = SLOW_RESPONSES[part]
        with server(first, then, every=0.01) as port:
            client = Client("pt-secret", f"http://127.0.0.1:{port}", timeout=(5, 0.1), max_retries=0)
            started = time.monotonic()
            with pytest.raises(errors.APITimeoutError, match="no complete response in time"):
                client.get_deployment("dep_1")
            assert time.monotonic() - started < 5

    def test_slow_endless_response_over_tls_times_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(TLS))
        with server(*SLOW_RESPONSES["headers"], every=0.01, tls=True) as port:
            client = Client("pt-secret", f"https://127.0.0.1:{port}", timeout=(5, 0.1), max_retries=0)
            with pytest.raises(errors.APITimeoutError):
                client.get_deployment("dep_1")

    def test_slow_endless_proxy_response_raises_connection_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with server(*SLOW_RESPONSES["headers"], every=0.01) as port:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
            client = Client("pt-secret", "https://api.qoder.example", timeout=(5, 0.1), max_retries=0)
            with pytest.raises(errors.APIConnectionError):
                client.get_deployment("dep_1")


def test_connection_has_its_own_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []

    def hang(_: tuple[str, int], timeout: float, **__: object) -> None:
        limits.append(timeout)
        raise TimeoutError

    monkeypatch.setattr(urllib3.util.connection, "create_connection", hang)
    client = Client("pt-secret", "http://127.0.0.1", timeout=(7, 60), max_retries=0)
    with pytest.raises(errors.APITimeoutError, match="no connection in time"):
        client.get_deployment("dep_1")
    assert limits == [7]


def test_time_limit_applies_to_each_response_not_to_the_connection(
    service: ScriptedService, clock: FastClock
) -> None:
    """One response may take 300 s; here the six requests take 500 s by the fake clock."""
    client = Client("pt-secret", service.base_url, timeout=(10, 60), min_interval=100)
    for _ in range(6):
        assert client.get_deployment("dep_1") == {}
    assert clock.monotonic() == 500
    assert len({request.port for request in service.requests}) == 1


def send(answer: bytes) -> Callable[[socket.socket], None]:
    """Return a function that sends this response to a client which may close the connection."""
    return lambda connection: connection.sendall(answer)


class TestSizeLimit:
    @pytest.mark.parametrize(
        ("encoding", "compress"),
        [
            ("gzip", gzip.compress),
            ("deflate", zlib.compress),
            ("gzip, gzip", lambda b: gzip.compress(gzip.compress(b))),
        ],
        ids=["gzip", "deflate", "gzip twice"],
    )
    def test_limit_applies_to_the_decompressed_size(
        self, service: ScriptedService, encoding: str, compress: Callable[[bytes], bytes]
    ) -> None:
        body = compress(b" " * (50 * _LIMIT))
        assert len(body) < _LIMIT
        service.respond_with(send(service.response(body=body, Content_Encoding=encoding)))
        client = Client("pt-secret", service.base_url, max_response_bytes=_LIMIT)
        with pytest.raises(errors.APIResponseValidationError, match=r"more than 1048576 .*max_response_bytes"):
            client.get_deployment("dep_1")
        assert len(service.requests) == 1, "a response above the limit is not requested again"

    def test_limit_bounds_the_memory_used_for_decompression(self, service: ScriptedService) -> None:
        """The body is counted while it is read, not afterwards."""
        import tracemalloc  # noqa: PLC0415 - only here

        body = gzip.compress(b" " * (60 * _LIMIT))
        service.respond_with(send(service.response(body=body, Content_Encoding="gzip")))
        client = Client("pt-secret", service.base_url, max_response_bytes=_LIMIT)
        tracemalloc.start()
        try:
            with pytest.raises(errors.APIResponseValidationError):
                client.get_deployment("dep_1")
            assert tracemalloc.get_traced_memory()[1] < 12 * _LIMIT
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("part", FAST_RESPONSES)
    @pytest.mark.usefixtures("real_clock")
    def test_fast_endless_response_is_stopped_by_the_size_limit(self, part: str) -> None:
        """In each part of a response the size limit is reached long before the time limit."""
        first, then = FAST_RESPONSES[part]
        with server(first, then, every=0) as port:
            # A small limit, as a busy machine takes seconds to read a megabyte in chunks of one byte.
            client = Client(
                "pt-secret", f"http://127.0.0.1:{port}", max_retries=0, max_response_bytes=2**14, timeout=(5, 5)
            )
            with pytest.raises((errors.APIResponseValidationError, errors.APIConnectionError)) as caught:
                client.get_deployment("dep_1")
            assert not isinstance(caught.value, errors.APITimeoutError)

    @pytest.mark.parametrize("beyond", [0, 1])
    def test_body_of_exactly_the_limit_is_accepted(self, service: ScriptedService, beyond: int) -> None:
        service.respond_with(send(service.response(body=b" " * (_LIMIT + beyond))))
        client = Client("pt-secret", service.base_url, max_response_bytes=_LIMIT)
        if beyond:
            with pytest.raises(errors.APIResponseValidationError):
                client.get("/deployments", {}, len)
        else:
            assert client.get("/deployments", {}, len) == _LIMIT

    def test_client_stays_usable_after_a_response_above_the_limit(self, service: ScriptedService) -> None:
        too_large = service.response(body=b" " * (2 * _LIMIT))
        service.respond_with(send(too_large), service.response(body=b'{"id": "dep_1"}'))
        client = Client("pt-secret", service.base_url, max_response_bytes=_LIMIT)
        with pytest.raises(errors.APIResponseValidationError):
            client.get_deployment("dep_1")
        assert client.get_deployment("dep_1") == {"id": "dep_1"}
