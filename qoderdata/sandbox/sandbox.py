"""How does a test use the sandbox: an account, its endpoints on a port, the log of requests, and coming faults?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import RLock
from typing import TYPE_CHECKING, Any

from qoderdata.cron import EPOCH
from qoderdata.sandbox import changes
from qoderdata.sandbox.database import Database
from qoderdata.sandbox.endpoints import EDITIONS, Router
from qoderdata.sandbox.sample_values import as_datetime, uuid7
from qoderdata.sandbox.server import FAULT_NAMES, Fault, Faults, RefusedError, Request, Server, WireResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    from qoderdata.sandbox.database import Table

#: The clock of an account that is given none: a Monday morning in Shanghai.
NOW = datetime(2026, 6, 15, 1, 30, 20, tzinfo=UTC)

_PREFIX = "/api/v1/cloud"
_RUNS_A_DEPLOYMENT = 10


class Sandbox:
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
        self.edition = edition
        self._database = Database(
            deployments,
            seed=seed,
            runs=runs,
            now=_nanoseconds(now, name="now"),
            left_out=left_out,
            new_fields=new_fields,
        )
        self.pat = f"pt-sandbox-{seed}"
        self.requests: list[Request] = []
        self.send_next_page = True
        self.short_pages = False
        self._faults = Faults()
        self._gzip, self._port = gzip, port
        self._server: Server | None = None
        self._lock = RLock()

    @property
    def edition(self) -> str:
        """The edition that answers: ``"A"``, ``"B"``, ``"C"`` or ``"D"``."""
        return self._edition

    @edition.setter
    def edition(self, edition: str) -> None:
        if edition not in EDITIONS:
            raise ValueError(f"edition={edition!r} is none of {', '.join(EDITIONS)}")
        self._edition = edition

    @property
    def now(self) -> datetime:
        """The account's clock, in UTC."""
        return as_datetime(self._database.now)

    @property
    def base_url(self) -> str:
        """Where the service is, as clients want it; the same after a stop and a new start."""
        if not self._port:
            raise RuntimeError("the sandbox has no address yet; use it in a `with` statement, or start() it")
        return f"http://127.0.0.1:{self._port}{_PREFIX}"

    @property
    def deployments(self) -> list[dict[str, Any]]:
        """Every deployment exactly as the edition serves it, newest first, archived ones included."""
        return self._list(self._database.deployments)

    @property
    def runs(self) -> list[dict[str, Any]]:
        """Every run exactly as the edition serves it, newest first."""
        return self._list(self._database.runs)

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """Every session exactly as the edition serves it, newest first; archived ones too, deleted ones not."""
        return self._list(self._database.sessions)

    @property
    def agents(self) -> list[dict[str, Any]]:
        """Every agent exactly as it is served, newest first, archived ones included."""
        return self._list(self._database.tables["agents"])

    @property
    def environments(self) -> list[dict[str, Any]]:
        """Every environment exactly as it is served, newest first, archived ones included."""
        return self._list(self._database.tables["environments"])

    def events(self, session_id: str) -> list[dict[str, Any]]:
        """Return all events of a session exactly as the edition serves them, oldest first."""
        with self._lock:
            return self._database.events(self._database.sessions.find(session_id), self.edition)

    @property
    def outcomes(self) -> list[dict[str, Any]]:
        """What became of every run, as far as edition D tells it by sessions and events, in the order of `runs`.

        Each has ``id``, ``deployment_id``, ``session_id``, ``triggered_at``, ``status``, ``status_from``
        (``"run"``, ``"session"``, ``"events"``, or None where the session was deleted), ``error_type``,
        ``error_message``, ``started_at``, ``completed_at``, and of the session ``session_status``,
        ``session_archived`` and ``session_deleted``. Times are texts to the nanosecond; what nobody can know is
        None. Rewritten events and runs are not looked at.
        """
        with self._lock:
            return [self._database.outcome(index) for index in self._database.runs.select()[::-1].tolist()]

    @property
    def left_out(self) -> list[tuple[str, datetime]]:
        """Deployment and time of each scheduled occurrence that was not run, by time."""
        return [(identity, as_datetime(at)) for identity, at in self._database.left_out]

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
        with self._lock:
            self._faults.add(Fault(fault, sent), at)

    def create_deployments(self, count: int) -> list[dict[str, Any]]:
        """Create deployments that never ran; they come first in the list."""
        with self._lock:
            indices = changes.create_deployments(self._database, count)
            return [self._database.deployments.record(index, self.edition) for index in indices]

    def archive(self, deployment_id: str) -> dict[str, Any]:
        """Archive a deployment."""
        return self._change(self._database.deployments, changes.archive, deployment_id)

    def create_runs(
        self, count: int, *, status: str = "completed", deployment_id: str | None = None
    ) -> list[dict[str, Any]]:
        """Start runs by hand, of one deployment or of all in turn; the counters follow.

        `status` is one of those that runs have up to edition C, ``"cancelled"`` or ``"waiting"``.
        """
        with self._lock:
            indices = changes.create_runs(self._database, count, status=status, deployment_id=deployment_id)
            return [self._database.runs.record(index, self.edition) for index in indices]

    def finish_run(self, run_id: str, *, status: str = "completed") -> dict[str, Any]:
        """Let an unfinished run end: ``"completed"``, ``"failed"`` or ``"cancelled"``; the counters follow."""
        return self._change(self._database.runs, changes.finish_run, run_id, status=status)

    def archive_session(self, session_id: str) -> dict[str, Any]:
        """Archive a session that has ended."""
        return self._change(self._database.sessions, changes.archive_session, session_id)

    def continue_session(self, session_id: str) -> dict[str, Any]:
        """Let a person continue a session that has ended; the outcome of its run stays."""
        return self._change(self._database.sessions, changes.continue_session, session_id)

    def delete_session(self, session_id: str) -> None:
        """Delete a session: it is neither listed nor found any more."""
        with self._lock:
            changes.delete_session(self._database, session_id)

    def forget_runs(self, before: datetime) -> int:
        """Let retention take the runs created before a time, and say how many; the lifetime counters stay."""
        with self._lock:
            return changes.forget_runs(self._database, _nanoseconds(before, name="before"))

    def rewrite(self, record: Mapping[str, Any]) -> None:
        """Serve this record from now on instead of the one with its id, whatever it holds, in every edition."""
        with self._lock:
            changes.rewrite(self._database, record)

    def rewrite_events(self, session_id: str, events: Sequence[Mapping[str, Any]]) -> None:
        """Serve these as the events of a session from now on, oldest first, whatever they hold besides ids."""
        with self._lock:
            self._database.own_events[session_id] = [dict(event) for event in events]

    def _list(self, table: Table) -> list[dict[str, Any]]:
        """Return the records as the edition serves them, newest first."""
        with self._lock:
            shown = table.select(*self._database.known(table, self.edition))
            return [table.record(index, self.edition) for index in shown[::-1].tolist()]

    def _change(self, table: Table, change: Callable[..., int], identity: str, **how: str) -> dict[str, Any]:
        """Change the record with an id, and return it as the edition serves it."""
        with self._lock:
            return table.record(change(self._database, identity, **how), self.edition)

    def _respond(self, request: Request) -> WireResponse:
        """Answer one request, and note it."""
        with self._lock:
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


def _nanoseconds(time: datetime, *, name: str) -> int:
    """Read a time that a caller gave."""
    if time.tzinfo is None:
        raise ValueError(f"{name}={time!r} has no time zone")
    return (time - EPOCH) // timedelta(microseconds=1) * 1_000
