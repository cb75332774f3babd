"""How does a test start the sandbox and inject faults, and how are responses and faults sent over HTTP?

Faults of the gateway have no request id and no envelope, except that its 429 has JSON in edition D. Faults of the
service have both. The server itself makes the faults of the connection. It keeps connections alive, without
Nagle's delay, and sends gzip if the client accepts it.
"""

from __future__ import annotations

import gzip
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import orjson

from qoderdata.sandbox.changes import ChangingAccount, nanoseconds_of
from qoderdata.sandbox.database import Database
from qoderdata.sandbox.endpoints import ERROR_TYPES, RefusedError, Request, Router
from qoderdata.sandbox.sample_values import uuid7

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

#: The default clock of an account: a Monday morning in Shanghai.
NOW = datetime(2026, 6, 15, 1, 30, 20, tzinfo=UTC)

_PREFIX = "/api/v1/cloud"
_RUNS_A_DEPLOYMENT = 10
#: Faults with a response in place of that of the service: its status, and the title of its page, if it has one.
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
#: Faults of the service; the gateway has its own 429.
_SERVICE_FAULTS = {"429-json" if status == 429 else str(status): status for status in ERROR_TYPES}
#: Faults that change a page of a list.
_PAGE_FAULTS = ("repeat-cursor", "no-cursor", "overlap")
#: Faults of the connection.
_CONNECTION_FAULTS = ("reset", "hang", "cut-body", "cut-json", "torn-json")
FAULT_NAMES = (*_GATEWAY_FAULTS, *_SERVICE_FAULTS, *_PAGE_FAULTS, *_CONNECTION_FAULTS)


@dataclass
class WireResponse:
    """A response before it is sent."""

    status: int
    body: bytes
    headers: dict[str, str]
    #: The name of the fault; the server itself makes those of the connection.
    fault: str = ""


class Fault(NamedTuple):
    """One fault for one request; no fault if it has no name. `headers` are those of its response."""

    name: str = ""
    headers: Mapping[str, str] = {}


@dataclass
class Faults:
    """The faults of later requests."""

    _at: dict[int, Fault] = field(default_factory=dict)
    _next: int = 0

    def add(self, fault: Fault, at: int | None) -> None:
        """Assign a fault to request number `at` from now on; by default to the next one without a fault."""
        self._at[self._next_without_fault() if at is None else self._next + at] = fault

    def next_fault(self, *, has_cursor: bool) -> Fault:
        """Count a request, and return its fault."""
        fault = self._at.pop(self._next, Fault())
        self._next += 1
        if fault.name in ("repeat-cursor", "overlap") and not has_cursor:
            # The first page has no cursor to repeat: a later request gets the fault.
            self._at[self._next_without_fault()] = fault
            return Fault()
        return fault

    def _next_without_fault(self) -> int:
        """Return the number of the next request without a fault."""
        return next(number for number in count(self._next) if number not in self._at)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    #: Head and body of a response are sent together.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
        """Print nothing."""

    def answer(self) -> None:
        """Answer one request of any method."""
        hangs_end = self.server.hangs_end
        response = self.server.respond(self._request())
        if response.fault == "hang":
            hangs_end.wait()
        if response.fault == "reset":
            # With a linger time of 0, closing the connection sends a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if response.fault in ("hang", "reset"):
            self.close_connection = True
            self.connection.close()
        else:
            self._send(response)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - as the base class has it

    def _request(self) -> Request:
        parts = urlsplit(self.path)
        lists = parse_qs(parts.query, keep_blank_values=True)
        query = {name: values[0] for name, values in lists.items()}
        path = parts.path.removeprefix(_PREFIX) if parts.path.startswith(f"{_PREFIX}/") else ""
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Request(monotonic(), self.command, path, query, headers, lists=lists)

    def _send(self, response: WireResponse) -> None:
        """Send a response, with the fault of its body."""
        body, middle = response.body, len(response.body) // 2
        if response.fault == "cut-json":
            body = body[:middle]
        if response.fault == "torn-json":
            body = body[:middle] + b"\x00" + body[middle:]
        if self.server.compress and body and _takes_gzip(self.headers.get("Accept-Encoding", "")):
            body = gzip.compress(body, compresslevel=1, mtime=0)
            response.headers["Content-Encoding"] = "gzip"
        # An unread body would be read as the next request.
        if self.command != "GET":
            response.headers["Connection"] = "close"
        self.send_response_only(response.status)
        own = {"Date": self.date_time_string(), "Content-Length": str(len(body))}
        for key, value in (response.headers | own).items():
            self.send_header(key, value)
        self.end_headers()
        if response.fault == "cut-body":
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(b"" if self.command == "HEAD" else body)


def _takes_gzip(accepted: str) -> bool:
    codings = (coding.partition(";q=") for coding in accepted.lower().replace(" ", "").split(","))
    return any(name == "gzip" and float(quality or 1) > 0 for name, _, quality in codings)


class Server(ThreadingHTTPServer):
    """Serve in its own thread until it is stopped; port 0 chooses a free port."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, respond: Callable[[Request], WireResponse], *, port: int, compress: bool) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.respond, self.compress = respond, compress
        self.hangs_end = Event()
        self.connections: set[socket.socket] = set()
        self._thread = Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, name="qoderdata-sandbox", daemon=True
        )
        self._thread.start()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection, and remember it until it is closed."""
        connection, address = super().get_request()
        self.connections.add(connection)
        return connection, address

    def close_request(self, request: Any) -> None:  # noqa: ANN401 - as the base class has it
        """Close a connection."""
        self.connections.discard(request)
        super().close_request(request)

    def end_hangs(self) -> None:
        """Close the connections that the fault ``hang`` keeps open."""
        hanging, self.hangs_end = self.hangs_end, Event()
        hanging.set()

    def stop(self) -> None:
        """Stop serving, and close all connections."""
        self.end_hangs()
        self.shutdown()
        self._thread.join()
        self.server_close()
        for connection in list(self.connections):
            # This wakes the thread that waits for this client's next request; the client may have closed already.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the base class has it
        """Report no error if a client closed the connection, as tests do."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Sandbox(ChangingAccount):
    """A local copy of the service with a generated account, served over real HTTP on loopback.

    The same arguments give the same account, byte for byte. It is the same in every edition: the same runs
    happened, and the editions only differ in what they show of them. The sandbox serves inside a ``with``
    statement, or between `start` and `stop`.

    Parameters
    ----------
    deployments
        The number of deployments, including archived ones.
    seed
        Chooses the account.
    edition
        ``"A"``, ``"B"``, ``"C"`` or ``"D"``; may be changed at any time.
    runs
        The exact number of runs; by default ten per deployment. With 0, there is no history.
    now
        The account's clock, a zone-aware time. It does not advance, except by a millisecond for each record that
        is created or changed.
    left_out
        The number of scheduled occurrences that have no run although they should have one. They are of active
        deployments that were never edited, neither the first nor the last one, and at least half an hour from
        `now`.
    gzip
        Whether responses are compressed for clients that accept it.
    port
        The port on 127.0.0.1; 0 chooses a free one.
    new_fields
        Whether some deployments have ``budget`` and ``environment_variables`` up to edition C. In D they always
        do.

    Attributes
    ----------
    requests : list of Request
        The requests in order of arrival.
    send_next_page : bool
        Whether envelopes have ``next_page``.
    short_pages : bool
        Whether a page is filtered after its records were counted, so that pages have fewer records than requested,
        and ``last_id`` may be the id of a record that is not shown.
    pat : str
        The only token that is accepted; it is valid for this sandbox only.

    Examples
    --------
    >>> import requests
    >>> from qoderdata.sandbox import Sandbox
    >>> with Sandbox(deployments=3, seed=1) as sandbox:
    ...     answer = requests.get(
    ...         f"{sandbox.base_url}/deployments", headers={"Authorization": f"Bearer {sandbox.pat}"}, timeout=10
    ...     )
    >>> answer.status_code, len(answer.json()["data"]), answer.json()["has_more"]
    (200, 3, False)
    """

    def __init__(
        self,
        deployments: int = 250,
        seed: int = 7,
        edition: str = "C",
        runs: int | None = None,
        *,
        now: datetime = NOW,
        left_out: int = 0,
        gzip: bool = True,
        port: int = 0,
        new_fields: bool = True,
    ) -> None:
        counts = {"deployments": deployments, "runs": 0 if runs is None else runs, "left_out": left_out}
        for name, value in counts.items():
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"{name}={value!r} must be a whole number, 0 or more")
        runs = _RUNS_A_DEPLOYMENT * deployments if runs is None else runs
        at = nanoseconds_of(now, name="now")
        database = Database(deployments, seed=seed, runs=runs, now=at, left_out=left_out, new_fields=new_fields)
        super().__init__(database, edition)
        self.pat = f"pt-sandbox-{seed}"
        self.requests: list[Request] = []
        self.send_next_page = True
        self.short_pages = False
        self._faults = Faults()
        self._gzip, self._port = gzip, port
        self._server: Server | None = None

    @property
    def base_url(self) -> str:
        """The base URL for clients; the same after a stop and a new start."""
        if not self._port:
            raise RuntimeError("the sandbox has no address yet; use it in a `with` statement, or start() it")
        return f"http://127.0.0.1:{self._port}{_PREFIX}"

    def start(self) -> Self:
        """Start serving."""
        if self._server is not None:
            raise RuntimeError("the sandbox serves already")
        self._server = Server(self._respond, port=self._port, compress=self._gzip)
        self._port = self._server.server_port
        return self

    def stop(self) -> None:
        """Stop serving, and close all connections; the account stays, and `start` serves it again."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def end_hangs(self) -> None:
        """Close the connections that the fault ``hang`` keeps open."""
        if self._server is not None:
            self._server.end_hangs()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def misbehave(
        self,
        fault: str,
        *,
        at: int | None = None,
        retry_after: float | str | None = None,
        location: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Give one later request a fault, once.

        Parameters
        ----------
        fault
            A status of the service's own (``"400"``, ``"401"``, ``"403"``, ``"404"``, ``"409"``, ``"413"``,
            ``"422"``, ``"429-json"``, ``"500"``, ``"501"``, ``"503"``, ``"529"``, with its envelope); one of the
            gateway's (``"408"``, ``"429"``, ``"429-retry-after"``, ``"502-html"``, ``"503-empty"``,
            ``"503-html"``, ``"504"``, ``"redirect"``, and ``"html-200"``); ``"reset"``, ``"hang"`` (until
            `end_hangs`), ``"cut-body"``, ``"cut-json"``, ``"torn-json"`` (with a byte that JSON forbids); or a
            wrong page: ``"repeat-cursor"``, ``"no-cursor"`` (there are more records, but no cursor), ``"overlap"``
            (the record of the cursor is shown again). In edition D, ``"429"`` and ``"429-retry-after"``
            have the envelope.
        at
            The number of the request from now on, from 0; by default the next one without a fault, so that three
            calls give faults to three requests in a row. ``"repeat-cursor"`` and ``"overlap"`` wait for a request
            that has a cursor.
        retry_after
            The header ``Retry-After``, in seconds or as the text of a date; 1 by default for
            ``"429-retry-after"``.
        location
            Where ``"redirect"`` points to; by default another path of the sandbox.
        headers
            Further headers of a fault that has a response, such as ``retry-after-ms``.
        """
        if fault not in FAULT_NAMES:
            raise ValueError(f"fault={fault!r} is none of {', '.join(FAULT_NAMES)}")
        if at is not None and at < 0:
            raise ValueError(f"at={at} is negative")
        sent = dict(headers or {})
        if fault == "429-retry-after" or retry_after is not None:
            sent["Retry-After"] = "1" if retry_after is None else str(retry_after)
        if fault == "redirect":
            sent["Location"] = location or f"{_PREFIX}/moved"
        with self._database:
            self._faults.add(Fault(fault, sent), at)

    def _respond(self, request: Request) -> WireResponse:
        """Answer one request, and add it to `requests`."""
        with self._database:
            fault = self._faults.next_fault(
                has_cursor=bool(request.query.get("after_id") or request.query.get("page"))
            )
            status, title = _GATEWAY_FAULTS.get(fault.name, (0, ""))
            if not status or (status == 429 and self.edition >= "D"):
                response = self._service_response(request, fault.name, _SERVICE_FAULTS.get(fault.name, status))
            elif title:
                page = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
                response = WireResponse(status, page.encode(), {"Content-Type": "text/html"})
            else:
                response = WireResponse(status, b"", {})
            response.headers |= fault.headers
            response.fault = fault.name
            if fault.name not in ("hang", "reset"):
                request.status = response.status
            self.requests.append(request)
        return response

    def _service_response(self, request: Request, fault: str, refused: int) -> WireResponse:
        """Return the service's own response; `refused` is the status of an error that it is told to send, or 0."""
        request.request_id = f"req_{uuid7(self._database.now, len(self.requests))}"
        router = Router(
            self._database, request, self.edition, self.pat, fault, self.send_next_page, self.short_pages
        )
        try:
            status, body = 200, router.respond(refused)
        except RefusedError as refusal:
            envelope = refusal.envelope() | ({"request_id": request.request_id} if self.edition >= "D" else {})
            status, body = refusal.status, orjson.dumps(envelope)
        return WireResponse(status, body, {"Content-Type": "application/json", "x-request-id": request.request_id})
