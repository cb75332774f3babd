"""What do responses and faults look like, and how do they go over HTTP on loopback?

The gateway's faults have no request id and no envelope, except that it answers 429 with JSON in edition D. The
service's faults have both. The server acts out the faults of the connection. It keeps connections alive, without
Nagle's delay, and sends gzip where the client asks for it.
"""

from __future__ import annotations

import gzip
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Event, Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

    Respond = Callable[["Request"], "WireResponse"]

#: The error type of each status of the service.
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    501: "feature_not_available",
    529: "overloaded_error",
}
#: Faults that answer in place of the service.
_GATEWAY_FAULTS = {
    "408": (408, ""),
    "429": (429, ""),
    "429-retry-after": (429, "Too Many Requests"),
    "502-html": (502, "Bad Gateway"),
    "503-empty": (503, ""),
    "503-html": (503, "Service Temporarily Unavailable"),
    "504": (504, "Gateway Time-out"),
    "html-200": (200, "Sign in"),
    "redirect": (302, ""),
}
#: Those of the service, of which the gateway has a 429 of its own.
_SERVICE_FAULTS = {"429-json" if status == 429 else str(status): status for status in ERROR_TYPES}
#: Faults that change a page of a list.
_PAGE_FAULTS = ("repeat-cursor", "no-cursor", "overlap")
#: Faults of the connection.
_CONNECTION_FAULTS = ("reset", "hang", "cut-body", "cut-json", "torn-json")
FAULT_NAMES = (*_GATEWAY_FAULTS, *_SERVICE_FAULTS, *_PAGE_FAULTS, *_CONNECTION_FAULTS)


@dataclass
class Request:
    """One request that arrived."""

    #: When it arrived, by `time.monotonic`.
    at: float
    method: str
    #: Without the base URL's path, such as ``"/deployments"``.
    path: str
    #: The first value of each parameter.
    query: dict[str, str]
    #: Names in lower case. The authorization is among them, hence not shown.
    headers: dict[str, str] = field(repr=False)
    #: What was answered; missing where nothing was.
    status: int | None = None
    #: What was told to the client.
    request_id: str | None = None
    #: All values of each parameter.
    lists: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class WireResponse:
    """A response before it is sent."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    #: Whether the service never saw the request, so that there is no request id.
    from_gateway: bool = False
    #: The name of a fault that the server may have to act out.
    fault: str = ""


class RefusedError(Exception):
    """A request that the service refuses with the error envelope; `param` is the query parameter to blame."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param

    def response(self, request_id: str | None) -> WireResponse:
        """Return the documented envelope; newer editions have the request id in it."""
        error = {"type": ERROR_TYPES[self.status], "message": self.message}
        if self.param is not None:
            error["param"] = self.param
        envelope = {"type": "error", "error": error} | ({} if request_id is None else {"request_id": request_id})
        return WireResponse(self.status, orjson.dumps(envelope))


@dataclass(frozen=True)
class Fault:
    """One fault, for one request; without a name, none. `headers` are those of its answer."""

    name: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def response(self, *, json_rate_limit: bool) -> WireResponse | None:
        """Return the gateway's answer in place of the service, or raise the service's own error.

        ``None`` for other faults. `json_rate_limit`: the gateway's 429 is the service's error.
        """
        status, title = _GATEWAY_FAULTS.get(self.name, (0, ""))
        if self.name in _SERVICE_FAULTS or (json_rate_limit and status == 429):
            status = _SERVICE_FAULTS.get(self.name, status)
            message = "Invalid API key or token." if status == 401 else f"Sandbox was told to answer {status}."
            raise RefusedError(status, message)
        if not status:
            return None
        body = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>" if title else ""
        headers = {"Content-Type": "text/html"} if title else {}
        return WireResponse(status, body.encode(), headers, from_gateway=True)


@dataclass
class Faults:
    """Which coming request meets which fault."""

    _at: dict[int, Fault] = field(default_factory=dict)
    _next: int = 0

    def add(self, fault: Fault, at: int | None) -> None:
        """Assign a fault to the ``at``-th request from now; by default to the next one that has none yet."""
        self._at[self._free() if at is None else self._next + at] = fault

    def meet(self, *, has_cursor: bool) -> Fault:
        """Count a request, and return the fault that it meets."""
        fault = self._at.pop(self._next, Fault())
        self._next += 1
        if fault.name in ("repeat-cursor", "overlap") and not has_cursor:
            # The first page has no cursor to repeat: a later request meets the fault.
            self._at[self._free()] = fault
            return Fault()
        return fault

    def _free(self) -> int:
        """Return the number of the next request that meets no fault yet."""
        return next(number for number in count(self._next) if number not in self._at)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    #: Head and body of a response go out together.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Server

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
        lists = parse_qs(parts.query, keep_blank_values=True)
        query = {name: values[0] for name, values in lists.items()}
        prefix = self.server.prefix
        path = parts.path.removeprefix(prefix) if parts.path.startswith(f"{prefix}/") else ""
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(monotonic(), self.command, path, query, headers, lists=lists)
        hangs_end = self.server.hangs_end
        response = self.server.respond(request)
        fault = response.fault
        if fault == "hang":
            hangs_end.wait()
        if fault == "reset":
            # Lingering for no time makes the close a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if fault in ("hang", "reset"):
            self.close_connection = True
            self.connection.close()
            return
        body, middle = response.body, len(response.body) // 2
        if fault == "cut-json":
            body = body[:middle]
        if fault == "torn-json":
            body = body[:middle] + b"\x00" + body[middle:]
        if self.server.compress and body and _takes_gzip(headers.get("accept-encoding", "")):
            body = gzip.compress(body, compresslevel=1, mtime=0)
            response.headers["Content-Encoding"] = "gzip"
        # A body that nobody read would be taken for the next request.
        if self.command != "GET":
            response.headers["Connection"] = "close"
        self.send_response_only(response.status)
        own = {"Date": self.date_time_string(), "Content-Length": str(len(body))}
        for key, value in (response.headers | own).items():
            self.send_header(key, value)
        self.end_headers()
        if fault == "cut-body":
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(b"" if self.command == "HEAD" else body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - as the base class has it


def _takes_gzip(accepted: str) -> bool:
    """Return whether the client takes gzip."""
    codings = (coding.partition(";q=") for coding in accepted.lower().replace(" ", "").split(","))
    return any(name == "gzip" and float(quality or 1) > 0 for name, _, quality in codings)


class Server(ThreadingHTTPServer):
    """Serve in a thread of its own until it is stopped; port 0 takes a free one."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, respond: Respond, *, prefix: str, port: int, compress: bool) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.respond, self.prefix, self.compress = respond, prefix, compress
        self.hangs_end = Event()
        self.connections: set[socket.socket] = set()
        self.lock = Lock()
        self._thread = Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, name="qoderdata-sandbox", daemon=True
        )
        self._thread.start()

    def end_hangs(self) -> None:
        """Close the connections that a fault lets hang."""
        hanging, self.hangs_end = self.hangs_end, Event()
        hanging.set()

    def stop(self) -> None:
        """Stop serving, and close all connections."""
        self.end_hangs()
        self.shutdown()
        self._thread.join()
        self.server_close()
        with self.lock:
            connections = list(self.connections)
        for connection in connections:
            # Wakes the thread that waits for this client's next request; the client may be gone already.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the base class has it
        """Report nothing where a client hung up, as tests do."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)
