"""Bounds on a response: its size after decompression, and the time that the whole of it may take."""

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

from qoderdata import errors
from qoderdata.client import Client, retries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from conftest import FastClock, ScriptedService

_TLS = Path(__file__).with_name("test_client_tls.pem")
_LIMIT = 2**20

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"
#: A stored block of deflate without data: valid, and it decompresses to nothing.
EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


#: What is sent first, and what is then sent again and again.
DRIPS: dict[str, tuple[bytes, Iterable[bytes]]] = {
    "status line": (b"HTTP/1.1 200 ", [b"O"]),
    "headers": (OK + b"X-Long: ", [b"x"]),
    "100-continue": (b"", [b"HTTP/1.1 100 Continue\r\n\r\n"]),
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

#: The same, sent as fast as the client reads.
FLOODS = {name: drip for name, drip in DRIPS.items() if name not in {"status line", "headers", "chunk size"}} | {
    "body without a length": (OK + b"\r\n", [b" "]),
    "declared body": (OK + b"Content-Length: 100000000000\r\n\r\n", [b" "]),
}


@contextlib.contextmanager
def server(first: bytes, then: Iterable[bytes], *, every: float, tls: bool = False) -> Iterator[int]:
    """Send bytes to everyone who connects, and then more until the client closes the connection."""
    stopped = threading.Event()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_TLS)

    def talk(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            stream = context.wrap_socket(connection, server_side=True) if tls else connection
            with stream:
                stream.recv(65536)
                stream.sendall(first)
                for more in itertools.cycle(then):
                    if stopped.is_set() or (every and stopped.wait(every)):
                        return
                    stream.sendall(more if every else more * (50_000 // len(more)))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        stopped.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def _real_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure real time: the sockets do."""
    monkeypatch.setattr(retries, "SYSTEM", retries.SystemClock())


@pytest.mark.usefixtures("_real_clock")
class TestTime:
    @pytest.mark.parametrize("drip", DRIPS)
    def test_a_response_that_drips_for_ever_times_out(self, drip: str) -> None:
        first, then = DRIPS[drip]
        with server(first, then, every=0.01) as port:
            client = Client("pt-secret", f"http://127.0.0.1:{port}", timeout=(5, 0.1), max_retries=0)
            started = time.monotonic()
            with pytest.raises(errors.APITimeoutError, match="no whole answer in time"):
                client.get_deployment("dep_1")
            assert time.monotonic() - started < 5

    def test_over_tls_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(_TLS))
        with server(*DRIPS["headers"], every=0.01, tls=True) as port:
            client = Client("pt-secret", f"https://127.0.0.1:{port}", timeout=(5, 0.1), max_retries=0)
            with pytest.raises(errors.APITimeoutError):
                client.get_deployment("dep_1")

    def test_a_proxy_that_drips_times_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with server(*DRIPS["headers"], every=0.01) as port:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
            client = Client("pt-secret", "https://api.qoder.example", timeout=(5, 0.1), max_retries=0)
            with pytest.raises(errors.APIConnectionError):
                client.get_deployment("dep_1")


def test_each_response_on_one_connection_has_its_own_time(service: ScriptedService, clock: FastClock) -> None:
    """A whole one may take 300 s, and all of them together take longer."""
    client = Client("pt-secret", service.base_url, timeout=(10, 60), min_interval=100)
    for _ in range(6):
        assert client.get_deployment("dep_1") == {}
    assert clock.monotonic() == 500
    assert len({request.port for request in service.requests}) == 1


def send(answer: bytes) -> Callable[[socket.socket], None]:
    """Send an answer to a client that may close the connection."""
    return lambda connection: connection.sendall(answer)


class TestSize:
    @pytest.mark.parametrize(
        ("encoding", "compress"),
        [
            ("gzip", gzip.compress),
            ("deflate", zlib.compress),
            ("gzip, gzip", lambda b: gzip.compress(gzip.compress(b))),
        ],
        ids=["gzip", "deflate", "gzip twice"],
    )
    def test_a_small_body_that_inflates_beyond_the_limit(
        self, service: ScriptedService, encoding: str, compress: Callable[[bytes], bytes]
    ) -> None:
        body = compress(b" " * (50 * _LIMIT))
        assert len(body) < _LIMIT
        service.play(send(service.answer(body=body, Content_Encoding=encoding)))
        client = Client("pt-secret", service.base_url, max_response_bytes=_LIMIT)
        with pytest.raises(errors.APIResponseValidationError, match=r"more than 1048576 .*max_response_bytes"):
            client.get_deployment("dep_1")
        assert len(service.requests) == 1, "it would be as large again"

    def test_it_is_counted_while_it_is_read(self, service: ScriptedService) -> None:
        """The limit bounds the memory, not only the result."""
        import tracemalloc  # noqa: PLC0415 - only here

        body = gzip.compress(b" " * (60 * _LIMIT))
        service.play(send(service.answer(body=body, Content_Encoding="gzip")))
        client = Client("pt-secret", service.base_url, max_response_bytes=_LIMIT)
        tracemalloc.start()
        try:
            with pytest.raises(errors.APIResponseValidationError):
                client.get_deployment("dep_1")
            assert tracemalloc.get_traced_memory()[1] < 12 * _LIMIT
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("flood", FLOODS)
    @pytest.mark.usefixtures("_real_clock")
    def test_a_response_that_never_ends(self, flood: str) -> None:
        """At full speed the size ends it, in any part of the response, long before the time does."""
        first, then = FLOODS[flood]
        with server(first, then, every=0) as port:
            client = Client(
                "pt-secret", f"http://127.0.0.1:{port}", max_retries=0, max_response_bytes=_LIMIT, timeout=(5, 5)
            )
            with pytest.raises((errors.APIResponseValidationError, errors.APIConnectionError)) as caught:
                client.get_deployment("dep_1")
            assert not isinstance(caught.value, errors.APITimeoutError)

    @pytest.mark.parametrize("beyond", [0, 1])
    def test_the_limit_itself_is_granted(self, service: ScriptedService, beyond: int) -> None:
        service.play(send(service.answer(body=b" " * (_LIMIT + beyond))))
        client = Client("pt-secret", service.base_url, max_response_bytes=_LIMIT)
        if beyond:
            with pytest.raises(errors.APIResponseValidationError):
                client.get("/deployments", {}, len)
        else:
            assert client.get("/deployments", {}, len) == _LIMIT

    def test_the_client_is_as_good_as_before(self, service: ScriptedService) -> None:
        service.play(send(service.answer(body=b" " * (2 * _LIMIT))), service.answer(body=b'{"id": "dep_1"}'))
        client = Client("pt-secret", service.base_url, max_response_bytes=_LIMIT)
        with pytest.raises(errors.APIResponseValidationError):
            client.get_deployment("dep_1")
        assert client.get_deployment("dep_1") == {"id": "dep_1"}
