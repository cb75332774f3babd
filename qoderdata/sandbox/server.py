"""Serve HTTP on loopback: read requests, send the responses, and act out the faults of the connection.

Keep-alive, without Nagle's delay; gzip where the client asks for it.
"""

from __future__ import annotations

import gzip
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from qoderdata.sandbox.http_responses import Answer, Fault

    #: Answers a request; a fault that the server has to act out comes with the answer.
    Respond = Callable[["Request"], tuple[Answer, Fault | None]]

_STATUSES = frozenset(HTTPStatus)


@dataclass
class Request:
    """One request that arrived.

    Attributes
    ----------
    at : float
        When it arrived, by `time.monotonic`.
    method, path : str
        The path without the base URL's, such as ``"/deployments"``.
    query : dict
        The first value of each parameter.
    headers : dict
        Names in lower case. The authorization is among them, hence not shown.
    status : int or None
        What was answered; missing where nothing was.
    request_id : str or None
        What was told to the client.
    lists : dict
        All values of each parameter.
    """

    at: float
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str] = field(repr=False)
    status: int | None = None
    request_id: str | None = None
    lists: dict[str, list[str]] = field(default_factory=dict)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], prefix: str, respond: Respond) -> None:
        super().__init__(address, _Handler)
        self.prefix, self.respond = prefix, respond
        self.gzip = True
        self.stopping = Event()
        self.connections: set[socket.socket] = set()
        self.lock = Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the base class has it
        # Clients hang up, above all in tests; that is no news.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections.add(self.connection)

    def finish(self) -> None:
        with self.server.lock:
            self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
        """Print nothing."""

    def answer(self) -> None:
        """Answer one request, of whatever method."""
        parts = urlsplit(self.path)
        lists: dict[str, list[str]] = {}
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            lists.setdefault(name, []).append(value)
        query = {name: values[0] for name, values in lists.items()}
        path = parts.path.removeprefix(self.server.prefix) if parts.path.startswith(self.server.prefix) else ""
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(monotonic(), self.command, path, query, headers, lists=lists)
        answer, fault = self.server.respond(request)
        name = "" if fault is None else fault.name
        if name == "hang":
            self.server.stopping.wait()
        if name == "reset":
            # Lingering for no time makes the close a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if name in ("hang", "reset"):
            self.close_connection = True
            self.connection.close()
            return
        body, middle = answer.body, len(answer.body) // 2
        if name in ("cut-json", "torn-json"):
            body = body[:middle] + (b"\x00" + body[middle:] if name == "torn-json" else b"")
        if self.server.gzip and body and _takes_gzip(headers.get("accept-encoding", "")):
            body = gzip.compress(body, compresslevel=1, mtime=0)
            answer.headers["Content-Encoding"] = "gzip"
        # A body that nobody read would be taken for the next request.
        if self.command != "GET":
            self.close_connection = True
            answer.headers["Connection"] = "close"
        phrase = HTTPStatus(answer.status).phrase if answer.status in _STATUSES else "Overloaded"
        head = [f"HTTP/1.1 {answer.status} {phrase}", f"Date: {self.date_time_string()}"]
        head += [f"{key}: {value}" for key, value in answer.headers.items()]
        head += [f"Content-Length: {len(body)}", "", ""]
        if name == "cut-body":
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write("\r\n".join(head).encode("latin-1") + (b"" if self.command == "HEAD" else body))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - as the base class has it


def _takes_gzip(accepted: str) -> bool:
    """Whether the client takes gzip."""
    for coding in accepted.split(","):
        name, _, quality = coding.partition(";")
        if name.strip().lower() == "gzip":
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


class Server:
    """Serves in a thread of its own until it is stopped.

    Parameters
    ----------
    respond
        Answers a request.
    prefix
        The base URL's path.
    port
        Where; 0 takes a free one.
    compress
        Whether clients that ask for gzip get it.
    """

    def __init__(self, respond: Respond, *, prefix: str, port: int, compress: bool) -> None:
        self._server = _Server(("127.0.0.1", port), prefix, respond)
        self._server.gzip = compress
        self.port: int = self._server.server_address[1]
        self._thread = Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.02},
            name="qoderdata-sandbox",
            daemon=True,
        )

    def start(self) -> Self:
        """Serve from now on."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving, and close all connections."""
        self._server.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        with self._server.lock:
            connections = list(self._server.connections)
        for connection in connections:
            # Wakes the thread that waits for this client's next request; the client may be gone already.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
