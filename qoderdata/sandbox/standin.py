"""The stand-in itself: an account, its endpoints on a port, what was asked, and what is to go wrong.

Joins the modules of the sandbox, which know nothing of one another beyond what they import.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import RLock
from typing import TYPE_CHECKING, Any

from qoderdata.sandbox import changes
from qoderdata.sandbox.draws import uuid7
from qoderdata.sandbox.endpoints import read
from qoderdata.sandbox.faults import NAMES, Fault, Faults
from qoderdata.sandbox.ledger import Ledger
from qoderdata.sandbox.query import EDITIONS
from qoderdata.sandbox.server import Request, Server

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from qoderdata.sandbox.answers import Answer

#: The clock of an account that is given none: a Monday morning in Shanghai.
NOW = datetime(2026, 6, 15, 1, 30, 20, tzinfo=UTC)

_PREFIX = "/api/v1/cloud"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RUNS_A_DEPLOYMENT = 10


class Sandbox:
    """A local stand-in of the service: real HTTP on loopback, with a generated account behind it.

    The account is the same to the byte for the same arguments, and the same in every edition. Serves while it
    is used in a ``with`` statement, or between `start` and `stop`.

    Parameters
    ----------
    deployments
        How many, archived ones among them.
    seed
        Chooses the account.
    edition
        ``"A"``, ``"B"`` or ``"C"``; may be changed at any time.
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
        Whether some deployments have ``budget`` and ``environment_variables``, which newer editions added.

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
        self._ledger = Ledger(
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
        """The edition that answers: ``"A"``, ``"B"`` or ``"C"``."""
        return self._edition

    @edition.setter
    def edition(self, edition: str) -> None:
        if edition not in EDITIONS:
            raise ValueError(f"edition={edition!r} is none of {', '.join(EDITIONS)}")
        self._edition = edition

    @property
    def now(self) -> datetime:
        """The account's clock, in UTC."""
        return _EPOCH + timedelta(microseconds=self._ledger.now // 1_000)

    @property
    def base_url(self) -> str:
        """Where the service is, as clients want it; the same after a stop and a new start."""
        if not self._port:
            raise RuntimeError("the sandbox has no address yet; use it in a `with` statement, or start() it")
        return f"http://127.0.0.1:{self._port}{_PREFIX}"

    @property
    def deployments(self) -> list[dict[str, Any]]:
        """The truth: every deployment exactly as the service sends it, newest first, archived ones included."""
        with self._lock:
            return self._ledger.deployments.records()

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The truth: every run exactly as the service sends it, newest first."""
        with self._lock:
            return self._ledger.runs.records()

    @property
    def left_out(self) -> list[tuple[str, datetime]]:
        """Deployment and time of each scheduled occurrence that was not run, by time."""
        return [(identity, _EPOCH + timedelta(microseconds=at // 1_000)) for identity, at in self._ledger.left_out]

    def start(self) -> Self:
        """Serve from now on."""
        if self._server is not None:
            raise RuntimeError("the sandbox serves already")
        self._server = Server(self._respond, prefix=_PREFIX, port=self._port, compress=self._gzip).start()
        self._port = self._server.port
        return self

    def stop(self) -> None:
        """Serve no more, and hang up on everybody; the account stays, and `start` serves it again."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def prepare(self, *, runs: bool = True) -> None:
        """Write every record now instead of when it is first asked for, so that a benchmark does not wait for it.

        Parameters
        ----------
        runs
            Whether to write the runs too.
        """
        for table in (self._ledger.deployments, self._ledger.runs) if runs else (self._ledger.deployments,):
            for place in range(len(table)):
                table.body(place)

    def misbehave(
        self,
        fault: str,
        *,
        at: int | None = None,
        retry_after: float | str | None = None,
        location: str | None = None,
    ) -> None:
        """Let one coming request meet a fault, once.

        Parameters
        ----------
        fault
            A status of the service's own (``"400"``, ``"401"``, ``"403"``, ``"404"``, ``"409"``, ``"500"``,
            ``"501"``, with its envelope); one of the gateway's (``"408"``, ``"429"``, ``"429-retry-after"``,
            ``"502-html"``, ``"503-empty"``, ``"503-html"``, ``"504"``, ``"redirect"``, and ``"html-200"``);
            ``"reset"``, ``"hang"`` (until the sandbox stops), ``"cut-body"``, ``"cut-json"``, ``"torn-json"`` (a
            byte in its midst that JSON forbids); or a false page: ``"repeat-cursor"``, ``"no-cursor"`` (more, but
            no cursor), ``"overlap"`` (the record of the cursor is shown again).
        at
            Which request from now on, from 0; by default the next one that meets no fault yet, so that calling
            this three times spoils three requests in a row. ``"repeat-cursor"`` and ``"overlap"`` wait for a
            request that has a cursor.
        retry_after
            The header of that name, in seconds or as the text of a date; ``"429-retry-after"`` has 1 by default.
        location
            Where ``"redirect"`` points to; by default another path of the sandbox.
        """
        if fault not in NAMES:
            raise ValueError(f"fault={fault!r} is none of {', '.join(NAMES)}")
        if fault == "429-retry-after" and retry_after is None:
            retry_after = 1
        if fault == "redirect" and location is None:
            location = f"{_PREFIX}/moved"
        hint = None if retry_after is None else str(retry_after)
        self._faults.add(Fault(fault, retry_after=hint, location=location), at)

    def create_deployments(self, count: int) -> list[dict[str, Any]]:
        """Create deployments that never ran; they come first in the list."""
        with self._lock:
            return changes.create_deployments(self._ledger, count)

    def archive(self, deployment_id: str) -> dict[str, Any]:
        """Archive a deployment."""
        with self._lock:
            return changes.archive(self._ledger, deployment_id)

    def create_runs(
        self, count: int, *, status: str = "completed", deployment_id: str | None = None
    ) -> list[dict[str, Any]]:
        """Start runs by hand, of one deployment or of all in turn; the counters follow."""
        with self._lock:
            return changes.create_runs(self._ledger, count, status=status, deployment_id=deployment_id)

    def finish_run(self, run_id: str, *, status: str = "completed") -> dict[str, Any]:
        """Let a pending or running run end, ``"completed"`` or ``"failed"``; the counters follow."""
        with self._lock:
            return changes.finish_run(self._ledger, run_id, status=status)

    def forget_runs(self, before: datetime) -> int:
        """Let retention take the runs created before a time, and say how many; the lifetime counters stay."""
        with self._lock:
            return changes.forget_runs(self._ledger, _nanoseconds(before, name="before"))

    def rewrite(self, record: Mapping[str, Any]) -> None:
        """Serve this from now on in the place of the deployment or run that has its id, whatever it holds."""
        with self._lock:
            changes.rewrite(self._ledger, record)

    def _respond(self, request: Request) -> tuple[Answer, Fault | None]:
        """Answer one request, and note it."""
        fault = self._faults.meet(has_cursor=bool(request.query.get("after_id") or request.query.get("page")))
        answer = None if fault is None else fault.answer()
        with self._lock:
            if answer is None:
                answer = read(
                    self._ledger,
                    request,
                    pat=self.pat,
                    edition=EDITIONS[self.edition],
                    fault=fault,
                    next_page=self.send_next_page,
                    short_pages=self.short_pages,
                )
            if fault is None or not fault.from_gateway:
                request.request_id = f"req_{uuid7(self._ledger.now, len(self.requests))}"
                answer.headers["x-request-id"] = request.request_id
            if fault is None or fault.name not in ("hang", "reset"):
                request.status = answer.status
            self.requests.append(request)
        return answer, fault


def _nanoseconds(time: datetime, *, name: str) -> int:
    """Read a time that a caller gave."""
    if time.tzinfo is None:
        raise ValueError(f"{name}={time!r} has no time zone")
    return (time - _EPOCH) // timedelta(microseconds=1) * 1_000
