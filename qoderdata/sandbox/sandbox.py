"""How does a test use the sandbox: an account, its endpoints on a port, the log of requests, and coming faults?"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from qoderdata.sandbox.changes import ChangingAccount, nanoseconds_of
from qoderdata.sandbox.database import Database
from qoderdata.sandbox.endpoints import Router
from qoderdata.sandbox.sample_values import uuid7
from qoderdata.sandbox.server import FAULT_NAMES, Fault, Faults, RefusedError, Request, Server, WireResponse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

#: The clock of an account that is given none: a Monday morning in Shanghai.
NOW = datetime(2026, 6, 15, 1, 30, 20, tzinfo=UTC)

_PREFIX = "/api/v1/cloud"
_RUNS_A_DEPLOYMENT = 10


class Sandbox(ChangingAccount):
    """A local stand-in of the service: real HTTP on loopback, with a generated account behind it.

    The account is the same to the byte for the same arguments, and the same in every edition: the same runs
    happened, and an edition decides what is told of them. Serves while it is used in a ``with`` statement, or
    between `start` and `stop`.

    Parameters
    ----------
    deployments
        How many, archived ones among them.
    seed
        Chooses the account.
    edition
        ``"A"``, ``"B"``, ``"C"`` or ``"D"``; may be changed at any time.
    runs
        Exactly how many runs; by default ten a deployment. With 0 nothing has a history.
    now
        The account's clock, a zone-aware time. It stands still, but for a millisecond for each record that is
        made or changed.
    left_out
        How many scheduled occurrences are not run, though they should have been: of active, never edited
        deployments, neither the first nor the last. None lies within half an hour of `now`.
    gzip
        Whether clients that ask for compressed answers get them.
    port
        Where to listen on 127.0.0.1; 0 takes a free one.
    new_fields
        Whether some deployments have ``budget`` and ``environment_variables`` up to edition C. In D they do.

    Attributes
    ----------
    requests : list of Request
        What was asked, in order of arrival.
    send_next_page : bool
        Whether envelopes have ``next_page``.
    short_pages : bool
        Whether what a filter drops is dropped after a page was counted, so that pages hold fewer records than
        asked for and ``last_id`` may be of a record that is not shown.
    pat : str
        The one token that is accepted; it opens nothing but this.

    Examples
    --------
    >>> import requests
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
        runs = _RUNS_A_DEPLOYMENT * deployments if runs is None else runs
        for name, value in (("deployments", deployments), ("runs", runs), ("left_out", left_out)):
            if value < 0:
                raise ValueError(f"{name}={value} is negative")
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
        """Where the service is, as clients want it; the same after a stop and a new start."""
        if not self._port:
            raise RuntimeError("the sandbox has no address yet; use it in a `with` statement, or start() it")
        return f"http://127.0.0.1:{self._port}{_PREFIX}"

    def start(self) -> Self:
        """Start serving."""
        if self._server is not None:
            raise RuntimeError("the sandbox serves already")
        self._server = Server(self._respond, prefix=_PREFIX, port=self._port, compress=self._gzip)
        self._port = self._server.server_port
        return self

    def stop(self) -> None:
        """Stop serving, and close all connections; the account stays, and `start` serves it again."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def end_hangs(self) -> None:
        """Close the connections that the fault ``hang`` lets wait."""
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
        """Let one coming request meet a fault, once.

        Parameters
        ----------
        fault
            A status of the service's own (``"400"``, ``"401"``, ``"403"``, ``"404"``, ``"409"``, ``"413"``,
            ``"422"``, ``"429-json"``, ``"500"``, ``"501"``, ``"529"``, with its envelope); one of the gateway's
            (``"408"``, ``"429"``, ``"429-retry-after"``, ``"502-html"``, ``"503-empty"``, ``"503-html"``,
            ``"504"``, ``"redirect"``, and ``"html-200"``); ``"reset"``, ``"hang"`` (until the sandbox stops),
            ``"cut-body"``, ``"cut-json"``, ``"torn-json"`` (with a byte that JSON forbids); or a false page:
            ``"repeat-cursor"``, ``"no-cursor"`` (more, but no cursor), ``"overlap"`` (the record of the cursor is
            shown again). In edition D, ``"429"`` and ``"429-retry-after"`` have the envelope.
        at
            Which request from now on, from 0; by default the next one that meets no fault yet, so that calling
            this three times spoils three requests in a row. ``"repeat-cursor"`` and ``"overlap"`` wait for a
            request that has a cursor.
        retry_after
            The header of that name, in seconds or as the text of a date; ``"429-retry-after"`` has 1 by default.
        location
            Where ``"redirect"`` points to; by default another path of the sandbox.
        headers
            Further headers of a fault that is an answer, such as ``retry-after-ms``.
        """
        if fault not in FAULT_NAMES:
            raise ValueError(f"fault={fault!r} is none of {', '.join(FAULT_NAMES)}")
        sent = dict(headers or {})
        if fault == "429-retry-after" or retry_after is not None:
            sent["Retry-After"] = "1" if retry_after is None else str(retry_after)
        if fault == "redirect":
            sent["Location"] = location or f"{_PREFIX}/moved"
        with self._database:
            self._faults.add(Fault(fault, sent), at)

    def _respond(self, request: Request) -> WireResponse:
        """Answer one request, and note it."""
        with self._database:
            is_newest = self.edition == "D"
            fault = self._faults.meet(has_cursor=bool(request.query.get("after_id") or request.query.get("page")))
            request_id = f"req_{uuid7(self._database.now, len(self.requests))}"
            router = Router(
                self._database, request, self.edition, self.pat, fault.name, self.send_next_page, self.short_pages
            )
            try:
                response = fault.response(json_rate_limit=is_newest) or WireResponse(200, router.respond())
            except RefusedError as refusal:
                response = refusal.response(request_id if is_newest else None)
            if not response.from_gateway:
                request.request_id = response.headers["x-request-id"] = request_id
            response.headers |= fault.headers
            response.fault = fault.name
            if fault.name not in ("hang", "reset"):
                request.status = response.status
            self.requests.append(request)
        return response
