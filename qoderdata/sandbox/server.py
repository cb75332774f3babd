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
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    #: Answers a request; a fault that the server has to act out comes with the response.
    Respond = Callable[["Request"], tuple["WireResponse", "Fault | None"]]

_STATUSES = frozenset(HTTPStatus)
#: The error type of each status of the service.
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
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
_SERVICE_FAULTS = {str(status): status for status in ERROR_TYPES} | {"429-json": 429}
_RATE_LIMIT = "rate_limit_error"
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
    #: Whether the body is the error envelope.
    is_error: bool = False
    #: Whether the service never saw the request, so that there is no request id.
    from_gateway: bool = False

    def with_request_id(self, request_id: str) -> WireResponse:
        """Return the error with its request id in the body."""
        return replace(self, body=orjson.dumps(orjson.loads(self.body) | {"request_id": request_id}))


class RefusedError(Exception):
    """A request that the service refuses with the error envelope; `param` is the query parameter to blame."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param

    def response(self) -> WireResponse:
        """Return the documented envelope."""
        kind = _RATE_LIMIT if self.status == 429 else ERROR_TYPES[self.status]  # an HTTP status
        error = {"type": kind, "message": self.message}
        if self.param is not None:
            error["param"] = self.param
        return WireResponse(self.status, orjson.dumps({"type": "error", "error": error}), is_error=True)


@dataclass
class ListPage:
    """One page of a list."""

    bodies: Sequence[bytes]
    first_id: str | None
    last_id: str | None
    has_more: bool

    def response(self, *, next_page: bool) -> WireResponse:
        """Return the documented envelope, with or without ``next_page``."""
        last = orjson.dumps(self.last_id)
        parts = [
            b'{"data":[', b",".join(self.bodies), b'],"first_id":', orjson.dumps(self.first_id),
            b',"has_more":', orjson.dumps(self.has_more), b',"last_id":', last,
        ]  # fmt: skip
        if next_page:
            parts += [b',"next_page":', last if self.has_more else b"null"]
        return WireResponse(200, b"".join([*parts, b"}"]))


@dataclass(frozen=True)
class Fault:
    """One fault, for one request."""

    name: str
    retry_after: str | None = None
    location: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def response(self, *, json_rate_limit: bool = False) -> WireResponse | None:
        """Return the response of a fault that answers in place of the service; ``None`` for other faults."""
        headers = dict(self.headers)
        if self.retry_after is not None:
            headers["Retry-After"] = self.retry_after
        if self.name in _SERVICE_FAULTS or (json_rate_limit and self.name.startswith("429")):
            status = _SERVICE_FAULTS.get(self.name, 429)
            message = "Invalid API key or token." if status == 401 else f"Sandbox was told to answer {status}."
            response = RefusedError(status, message).response()
            response.headers |= headers
            return response
        if self.name not in _GATEWAY_FAULTS:
            return None
        status, title = _GATEWAY_FAULTS[self.name]
        body = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>" if title else ""
        if title:
            headers["Content-Type"] = "text/html"
        if self.location is not None:
            headers["Location"] = self.location
        return WireResponse(status, body.encode(), headers, from_gateway=True)

    @property
    def needs_cursor(self) -> bool:
        """Whether it makes sense only for a page that is not the first."""
        return self.name in ("repeat-cursor", "overlap")

    def spoil(self, page: ListPage, params: Mapping[str, str]) -> ListPage:
        """Return the page with the fault applied."""
        if self.name == "repeat-cursor":
            return replace(page, last_id=params.get("page") or params.get("after_id"), has_more=True)
        if self.name == "no-cursor":
            return replace(page, last_id=None, has_more=True)
        return page


@dataclass
class Faults:
    """Which coming request meets which fault."""

    _at: dict[int, Fault] = field(default_factory=dict)
    _next: int = 0
    _lock: Lock = field(default_factory=Lock)

    def add(self, fault: Fault, at: int | None) -> None:
        """Assign a fault to the ``at``-th request from now; by default to the next one that has none yet."""
        with self._lock:
            self._at[self._free() if at is None else self._next + at] = fault

    def meet(self, *, has_cursor: bool) -> Fault | None:
        """Count a request, and return the fault that it meets."""
        with self._lock:
            number = self._next
            self._next += 1
            fault = self._at.pop(number, None)
            if fault is not None and fault.needs_cursor and not has_cursor:
                # The first page has no cursor to repeat: a later request meets the fault.
                self._at[self._free()] = fault
                return None
            return fault

    def _free(self) -> int:
        """Return the number of the next request that meets no fault yet."""
        number = self._next
        while number in self._at:
            number += 1
        return number


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
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
        response, fault = self.server.respond(request)
        name = "" if fault is None else fault.name
        if name == "hang":
            hangs_end.wait()
        if name == "reset":
            # Lingering for no time makes the close a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if name in ("hang", "reset"):
            self.close_connection = True
            self.connection.close()
            return
        body, middle = response.body, len(response.body) // 2
        if name in ("cut-json", "torn-json"):
            body = body[:middle] + (b"\x00" + body[middle:] if name == "torn-json" else b"")
        if self.server.compress and body and _takes_gzip(headers.get("accept-encoding", "")):
            body = gzip.compress(body, compresslevel=1, mtime=0)
            response.headers["Content-Encoding"] = "gzip"
        # A body that nobody read would be taken for the next request.
        if self.command != "GET":
            self.close_connection = True
            response.headers["Connection"] = "close"
        phrase = HTTPStatus(response.status).phrase if response.status in _STATUSES else "Overloaded"
        head = [f"HTTP/1.1 {response.status} {phrase}", f"Date: {self.date_time_string()}"]
        head += [f"{key}: {value}" for key, value in response.headers.items()]
        head += [f"Content-Length: {len(body)}", "", ""]
        if name == "cut-body":
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write("\r\n".join(head).encode("latin-1") + (b"" if self.command == "HEAD" else body))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - as the base class has it


def _takes_gzip(accepted: str) -> bool:
    """Return whether the client takes gzip."""
    for coding in accepted.split(","):
        name, _, quality = coding.partition(";")
        if name.strip().lower() == "gzip":
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


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

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server_address[1]

    def start(self) -> Self:
        """Serve from now on."""
        self._thread.start()
        return self

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
