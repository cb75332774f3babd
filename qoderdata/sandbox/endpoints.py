"""Answer a request: check the token, find the records that its path names, and cut the page out of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qoderdata.sandbox.http_responses import Answer, Page, RefusedError
from qoderdata.sandbox.ledger import encode
from qoderdata.sandbox.query import (
    check_names,
    is_ascending,
    list_deployments,
    list_named,
    list_runs,
    list_sessions,
    page_of,
)

if TYPE_CHECKING:
    from qoderdata.sandbox.http_responses import Fault
    from qoderdata.sandbox.json_records import Record
    from qoderdata.sandbox.ledger import Ledger
    from qoderdata.sandbox.query import Edition
    from qoderdata.sandbox.server import Request

_ROOTS = ("deployments", "deployment_runs", "sessions", "agents", "environments")


class _Events:
    """The events of one session, oldest first, as a list that pages are cut out of."""

    def __init__(self, events: list[Record]) -> None:
        self._bodies = [encode(event) for event in events]
        self.ids: list[str] = [event["id"] for event in events]

    def place(self, identity: str) -> int | None:
        """Find an event."""
        return self.ids.index(identity) if identity in self.ids else None

    def body(self, place: int, edition: str = "C") -> bytes:
        """Return an event as it goes over the wire; all editions tell the same."""
        del edition
        return self._bodies[place]


def read(
    ledger: Ledger,
    request: Request,
    *,
    pat: str,
    edition: Edition,
    fault: Fault | None = None,
    next_page: bool = True,
    short_pages: bool = False,
) -> Answer:
    """Answer a request as the service does.

    Parameters
    ----------
    ledger
        The account.
    request
        What is asked.
    pat
        The token that is accepted.
    edition
        The edition that answers.
    fault
        What makes a page of a list false.
    next_page
        Whether envelopes have ``next_page``.
    short_pages
        Whether what is filtered out counts towards the size of a page.

    Returns
    -------
    Answer
        The answer, or the envelope of a refusal.
    """
    overlap = fault is not None and fault.name == "overlap"
    try:
        _check(request, pat)
        answer = _Reading(ledger, request, edition, short=short_pages, overlap=overlap).answer()
    except RefusedError as refusal:
        return refusal.answer()
    if isinstance(answer, bytes):
        return Answer(200, answer)
    if fault is not None:
        answer = fault.spoil(answer, request.query)
    return answer.answer(next_page=next_page)


def _check(request: Request, pat: str) -> None:
    """Refuse who has no token, and whoever wants to write."""
    if request.headers.get("authorization") != f"Bearer {pat}":
        raise RefusedError(401, "Invalid API key or token.")
    if request.method != "GET" and request.path.removeprefix("/").partition("/")[0] in _ROOTS:
        raise RefusedError(501, f"{request.method} is not available in the sandbox, which only reads.")


class _Reading:
    """One authorised request."""

    def __init__(self, ledger: Ledger, request: Request, edition: Edition, *, short: bool, overlap: bool) -> None:
        self._ledger, self._request, self._edition = ledger, request, edition
        self._short, self._overlap = short, overlap
        self._tables = dict(zip(_ROOTS, ledger.tables, strict=True))

    def answer(self) -> Page | bytes:
        """Return the page of a list, or an object."""
        match self._request.path.split("/")[1:]:
            case [root] if root in _ROOTS:
                return self._list(root)
            case [root, identity] if root in _ROOTS:
                self._check_names("")
                table = self._tables[root]
                return table.body(self._find(root, identity), self._edition.name)
            case ["deployments", identity, "runs"]:
                self._find("deployments", identity)
                return self._list("runs", of_one=identity)
            case ["deployments", identity, "runs", run]:
                self._check_names("")
                place = self._find("deployment_runs", run)
                if self._ledger.runs.columns["deployment"][place] != self._find("deployments", identity):
                    raise RefusedError(404, f"deployment run {run} was not found.")
                return self._ledger.runs.body(place, self._edition.name)
            case ["sessions", identity, "events"]:
                self._check_names("events")
                return self._events(self._find("sessions", identity))
            case _:
                raise RefusedError(404, "The requested resource was not found.")

    def _list(self, what: str, *, of_one: str | None = None) -> Page:
        """Return a page of records."""
        ledger, query, edition = self._ledger, self._request.query, self._edition
        self._check_names(what)
        table = self._tables["deployment_runs" if what == "runs" else what]
        ascending = False
        if what == "deployments":
            found = list_deployments(table, query, edition, agents=ledger.agents)
        elif what == "sessions":
            found = list_sessions(ledger, query, self._request.lists, edition)
            ascending = is_ascending(query, default="desc")
        elif table is ledger.runs:
            found = list_runs(table, query, edition, deployments=ledger.deployments, of_one=of_one)
        else:
            found = list_named(table, query, edition)
        scanned = table.select("all", lambda: np.ones(len(table), dtype=np.bool_)) if self._short else None
        return page_of(
            table, found, query, edition, what=what, ascending=ascending, scanned=scanned, overlap=self._overlap
        )

    def _events(self, place: int) -> Page:
        """Return a page of the events of a session."""
        query, types = self._request.query, [kind for kind in self._request.lists.get("types[]", ()) if kind]
        events = self._ledger.events(place, self._edition.name)
        chosen = [index for index, event in enumerate(events) if not types or event["type"] in types]
        return page_of(
            _Events(events),
            np.array(chosen, dtype=np.int64),
            query,
            self._edition,
            what="events",
            ascending=is_ascending(query, default="asc"),
            scanned=np.arange(len(events)) if self._short else None,
            overlap=self._overlap,
        )

    def _check_names(self, what: str) -> None:
        """Refuse parameters that the edition does not know."""
        check_names(self._request.query, what, self._edition)

    def _find(self, root: str, identity: str) -> int:
        """Find a record, or refuse."""
        table = self._tables[root]
        place = table.place(identity)
        known = place is not None and table.columns["kept"][place]
        if known and table is self._ledger.sessions:
            known = self._ledger.visible_sessions(self._edition.name)[place]
        if place is None or not known:
            raise RefusedError(404, f"{root.removesuffix('s').replace('_', ' ')} {identity} was not found.")
        return place
