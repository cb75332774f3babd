"""Which path returns what, and which records does a query string ask for?

Checks the token, finds the records that a path names, filters them, and cuts the page out of them, as each edition
does. Editions A to C ignore parameters that they do not know; D refuses them. A known parameter with an impossible
value is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from qoderdata.sandbox.database import DEPLOYMENT_STATUSES, encode
from qoderdata.sandbox.run_history import MANUAL, STATUSES, TRIGGERS
from qoderdata.sandbox.sample_values import nanoseconds
from qoderdata.sandbox.scenarios import SESSION_STATUSES
from qoderdata.sandbox.server import Page, RefusedError, WireResponse
from qoderdata.sandbox.session_records import OLD_STATUSES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from qoderdata.sandbox.database import Database, Table
    from qoderdata.sandbox.json_records import Record
    from qoderdata.sandbox.server import Fault, Request

    Mask = NDArray[np.bool_]

_ROOTS = ("deployments", "deployment_runs", "sessions", "agents", "environments")
_DEFAULT_LIMIT = 20
_CURSORS = ("after_id", "before_id", "page")
_OPERATORS = ("gt", "gte", "lt", "lte")
#: Lists that are paged by `page` only.
_PAGE_ONLY = ("sessions", "agents", "environments")


@dataclass(frozen=True)
class Edition:
    """What tells one edition of the service from another."""

    name: str
    largest_page: int
    cuts_silently: bool
    filters_created_at: bool

    @property
    def is_newest(self) -> bool:
        """Whether runs have no status, and unknown parameters are refused."""
        return self.name == "D"


EDITIONS = {
    "A": Edition("A", largest_page=1000, cuts_silently=False, filters_created_at=False),
    "B": Edition("B", largest_page=100, cuts_silently=True, filters_created_at=False),
    "C": Edition("C", largest_page=100, cuts_silently=False, filters_created_at=True),
    "D": Edition("D", largest_page=100, cuts_silently=False, filters_created_at=True),
}

_CREATED_AT = tuple(f"created_at[{operator}]" for operator in _OPERATORS)
#: The parameters of each list in edition D.
_KNOWN = {
    "deployments": (
        "limit", *_CURSORS, "status", "include_archived", "agent_id", "created_at[gte]", "created_at[lte]",
    ),
    "deployment_runs": ("limit", *_CURSORS, "deployment_id", "trigger_type", "has_error", *_CREATED_AT),
    "runs": ("limit", *_CURSORS, "triggered_after", "triggered_before"),
    "sessions": (
        "limit", "page", "agent_id", "agent_version", "deployment_id", "statuses[]", "order", "include_archived",
        *_CREATED_AT,
    ),
    "events": ("limit", *_CURSORS, "types[]", "order"),
    "agents": ("limit", "page", "include_archived", *_CREATED_AT),
    "environments": ("limit", "page", "include_archived", *_CREATED_AT),
}  # fmt: skip


class Listed(Protocol):
    """Records that a page can be cut out of."""

    ids: list[str]

    def index(self, identity: str) -> int | None:
        """Find a record."""

    def body(self, index: int, edition: str = "C") -> bytes:
        """Return a record as it goes over the wire."""


class _Events:
    """The events of one session, oldest first, as a list that pages are cut out of."""

    def __init__(self, events: list[Record]) -> None:
        self._bodies = [encode(event) for event in events]
        self.ids: list[str] = [event["id"] for event in events]

    def index(self, identity: str) -> int | None:
        """Find an event."""
        return self.ids.index(identity) if identity in self.ids else None

    def body(self, index: int, edition: str = "C") -> bytes:
        """Return an event as it goes over the wire; all editions tell the same."""
        del edition
        return self._bodies[index]


def respond(
    database: Database,
    request: Request,
    *,
    pat: str,
    edition: Edition,
    fault: Fault | None,
    next_page: bool,
    short_pages: bool,
) -> WireResponse:
    """Return the response of the service to a request.

    Parameters
    ----------
    database
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
    WireResponse
        The response, or the envelope of a refusal.
    """
    overlap = fault is not None and fault.name == "overlap"
    try:
        _check(request, pat)
        found = _Router(database, request, edition, short=short_pages, overlap=overlap).route()
    except RefusedError as refusal:
        return refusal.response()
    if isinstance(found, bytes):
        return WireResponse(200, found)
    if fault is not None:
        found = fault.spoil(found, request.query)
    return found.response(next_page=next_page)


def _check(request: Request, pat: str) -> None:
    """Refuse a request without the token, and one that writes."""
    if request.headers.get("authorization") != f"Bearer {pat}":
        raise RefusedError(401, "Invalid API key or token.")
    if request.method != "GET" and request.path.removeprefix("/").partition("/")[0] in _ROOTS:
        raise RefusedError(501, f"{request.method} is not available in the sandbox, which only reads.")


class _Router:
    """Route one authorised request to the records that it asks for."""

    def __init__(
        self, database: Database, request: Request, edition: Edition, *, short: bool, overlap: bool
    ) -> None:
        self._database, self._request, self._edition = database, request, edition
        self._short, self._overlap = short, overlap
        self._tables = dict(zip(_ROOTS, database.tables, strict=True))

    def route(self) -> Page | bytes:
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
                index = self._find("deployment_runs", run)
                if self._database.runs.columns["deployment"][index] != self._find("deployments", identity):
                    raise RefusedError(404, f"deployment run {run} was not found.")
                return self._database.runs.body(index, self._edition.name)
            case ["sessions", identity, "events"]:
                self._check_names("events")
                return self._events(self._find("sessions", identity))
            case _:
                raise RefusedError(404, "The requested resource was not found.")

    def _list(self, what: str, *, of_one: str | None = None) -> Page:
        """Return a page of records."""
        database, query, edition = self._database, self._request.query, self._edition
        self._check_names(what)
        table = self._tables["deployment_runs" if what == "runs" else what]
        ascending = False
        if what == "deployments":
            found = list_deployments(table, query, edition, agents=database.agents)
        elif what == "sessions":
            found = list_sessions(database, query, self._request.lists, edition)
            ascending = is_ascending(query, default="desc")
        elif table is database.runs:
            found = list_runs(table, query, edition, deployments=database.deployments, of_one=of_one)
        else:
            found = list_named(table, query, edition)
        scanned = table.select("all", lambda: np.ones(len(table), dtype=np.bool_)) if self._short else None
        return page_of(
            table, found, query, edition, what=what, ascending=ascending, scanned=scanned, overlap=self._overlap
        )

    def _events(self, index: int) -> Page:
        """Return a page of the events of a session."""
        query, types = self._request.query, [kind for kind in self._request.lists.get("types[]", ()) if kind]
        events = self._database.events(index, self._edition.name)
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
        unknown = [name for name in self._request.query if name not in _KNOWN.get(what, ())]
        if self._edition.is_newest and unknown:
            raise RefusedError(400, f"{unknown[0]} is not a known parameter", unknown[0])

    def _find(self, root: str, identity: str) -> int:
        """Find a record, or refuse."""
        table = self._tables[root]
        index = table.index(identity)
        known = index is not None and table.columns["kept"][index]
        if known and table is self._database.sessions:
            known = self._database.visible_sessions(self._edition.name)[index]
        if index is None or not known:
            raise RefusedError(404, f"{root.removesuffix('s').replace('_', ' ')} {identity} was not found.")
        return index


def list_deployments(
    table: Table, params: Mapping[str, str], edition: Edition, *, agents: Mapping[str, int]
) -> NDArray[np.int64]:
    """Return the indices of the deployments that a query asks for, ascending.

    Parameters
    ----------
    table
        All deployments.
    params
        The query.
    edition
        The edition that answers.
    agents
        The number of each agent's id.

    Returns
    -------
    numpy.ndarray
        Indices into the table.
    """
    columns = table.columns
    masks: list[Callable[[], Mask]] = []
    archived = _choice(params, "include_archived", ("true", "false")) == 0
    if not archived:
        masks.append(lambda: ~columns["archived"])
    if (status := _choice(params, "status", DEPLOYMENT_STATUSES)) is not None:
        masks.append(lambda: columns["status"] == status)
    if agent := params.get("agent_id"):
        masks.append(lambda: columns["agent"] == agents.get(agent, -1))
    times = _times(params, "created_at", ("gte", "lte")) if edition.filters_created_at else ()
    masks += [_compare(columns["created"], operator, at) for operator, at in times]
    return table.select((archived, status, agent, times), lambda: _all(masks, len(table)))


def list_runs(
    table: Table, params: Mapping[str, str], edition: Edition, *, deployments: Table, of_one: str | None = None
) -> NDArray[np.int64]:
    """Return the indices of the runs that a query asks for, ascending.

    Parameters
    ----------
    table
        All runs.
    params
        The query.
    edition
        The edition that answers.
    deployments
        The deployments that the runs are of.
    of_one
        The deployment in the path, where the list is one deployment's; it has other filters.

    Returns
    -------
    numpy.ndarray
        Indices into the table.
    """
    columns = table.columns
    masks: list[Callable[[], Mask]] = []
    status = None if edition.is_newest else _choice(params, "status", STATUSES)
    if status is not None:
        masks.append(lambda: columns["status"] == status)
    deployment = of_one or params.get("deployment_id")
    if deployment:
        index = deployments.index(deployment)
        masks.append(lambda: columns["deployment"] == (-1 if index is None else index))
    trigger = error = None
    times: tuple[tuple[str, int], ...] = ()
    if of_one is not None:
        # Both bounds are taken to be exclusive, as the words say; the documentation does not.
        bounds = [(_time(params, "triggered_after"), "gt"), (_time(params, "triggered_before"), "lt")]
        times = tuple((operator, at) for at, operator in bounds if at is not None)
        masks += [_compare(columns["triggered"], operator, at) for operator, at in times]
    else:
        trigger = _choice(params, "trigger_type", TRIGGERS[:2] if edition.is_newest else TRIGGERS)
        error = _choice(params, "has_error", ("false", "true"))
        if trigger is not None and edition.is_newest:
            masks.append(lambda: (columns["trigger"] == MANUAL) == (trigger == MANUAL))
        elif trigger is not None:
            masks.append(lambda: columns["trigger"] == trigger)
        if error is not None:
            masks.append(
                lambda: (columns["refusal"] > 0 if edition.is_newest else columns["error"]) == bool(error)
            )
        if edition.filters_created_at:
            times = _times(params, "created_at", ("gt", "gte", "lt", "lte"))
            masks += [_compare(columns["created"], operator, at) for operator, at in times]
    key = (edition.is_newest, status, deployment, of_one is None, trigger, error, times)
    return table.select(key, lambda: _all(masks, len(table)))


def list_sessions(
    database: Database, params: Mapping[str, str], lists: Mapping[str, Sequence[str]], edition: Edition
) -> NDArray[np.int64]:
    """Return the indices of the sessions that a query asks for, ascending.

    Parameters
    ----------
    database
        The account.
    params, lists
        The query: the first value of each parameter, and all of them.
    edition
        The edition that answers.

    Returns
    -------
    numpy.ndarray
        Indices into the table of sessions.
    """
    table = database.sessions
    columns = table.columns
    masks: list[Callable[[], Mask]] = [lambda: database.visible_sessions(edition.name)]
    archived, times = _archived_and_times(params, edition)
    if not archived:
        masks.append(lambda: columns["archived"] == 0)
    words = OLD_STATUSES if edition.name in "AB" else SESSION_STATUSES
    statuses = tuple(
        code
        for word in lists.get("statuses[]", ())
        if (code := _choice({"statuses[]": word}, "statuses[]", words)) is not None
    )
    if statuses:
        masks.append(lambda: np.isin(database.session_status(edition.name), list(statuses)))
    deployment, agent, version = (params.get(name) for name in ("deployment_id", "agent_id", "agent_version"))
    if deployment:
        index = database.deployments.index(deployment)
        masks.append(lambda: columns["deployment"] == (-2 if index is None else index))
    if agent:
        masks.append(lambda: columns["agent"] == database.agents.get(agent, -2))
    if version:
        if not (version.isascii() and version.isdigit()):
            raise RefusedError(400, "agent_version must be an integer", "agent_version")
        masks.append(lambda: columns["agent"] % 7 + 1 == int(version))
    masks += [_compare(columns["created"], operator, at) for operator, at in times]
    key = (edition.name, archived, statuses, deployment, agent, version, times)
    return table.select(key, lambda: _all(masks, len(table)))


def list_named(table: Table, params: Mapping[str, str], edition: Edition) -> NDArray[np.int64]:
    """Return the indices of the agents or environments that a query asks for, ascending."""
    archived, times = _archived_and_times(params, edition)
    masks = [_compare(table.columns["created"], operator, at) for operator, at in times]
    if not archived:
        masks.append(lambda: ~table.columns["archived"])
    return table.select((archived, times), lambda: _all(masks, len(table)))


def is_ascending(params: Mapping[str, str], *, default: str) -> bool:
    """Return whether a list is asked for oldest first."""
    return _choice({"order": params.get("order") or default}, "order", ("desc", "asc")) == 1


def _archived_and_times(params: Mapping[str, str], edition: Edition) -> tuple[bool, tuple[tuple[str, int], ...]]:
    """Read what sessions, agents and environments are filtered by."""
    archived = _choice(params, "include_archived", ("true", "false")) == 0
    return archived, _times(params, "created_at", _OPERATORS) if edition.filters_created_at else ()


def page_of(
    table: Listed,
    indices: NDArray[np.int64],
    params: Mapping[str, str],
    edition: Edition,
    *,
    what: str,
    ascending: bool,
    scanned: NDArray[np.int64] | None,
    overlap: bool,
) -> Page:
    """Cut a page out of a list.

    Parameters
    ----------
    table
        Holds the records.
    indices
        What the list shows, ascending.
    params
        The query.
    edition
        The edition that answers.
    what
        The name of the list, on which cursors and page sizes depend.
    ascending
        Whether the list is oldest first.
    scanned
        What the service reads to fill a page, where it drops records only after it has counted them: pages
        then hold fewer records than asked for, and ``last_id`` may be of a record that is not shown.
    overlap
        Show the record of the cursor again.

    Returns
    -------
    Page
        In the order asked for.
    """
    limit = _limit(params, edition, what)
    cursor, index = _cursor(table, params, ("page",) if what in _PAGE_ONLY else _CURSORS)
    read = indices if scanned is None else scanned
    # Whether the page reaches from the cursor towards newer records.
    if (cursor == "before_id") != ascending:
        side: Literal["left", "right"] = "left" if overlap else "right"
        low = 0 if cursor is None else int(np.searchsorted(read, index, side=side))
        high = min(len(read), low + limit)
        more = high < len(read)
    else:
        side = "right" if overlap else "left"
        high = len(read) if cursor is None else int(np.searchsorted(read, index, side=side))
        low = max(0, high - limit)
        more = low > 0
    taken = read[low:high] if ascending else read[low:high][::-1]
    shown = taken if scanned is None else taken[np.isin(taken, indices)]
    ends = (table.ids[taken[0]], table.ids[taken[-1]]) if len(taken) else (None, None)
    bodies = [table.body(index, edition.name) for index in shown.tolist()]
    return Page(bodies, ends[0], ends[1], has_more=more)


def _limit(params: Mapping[str, str], edition: Edition, what: str) -> int:
    """Read the page size."""
    text = params.get("limit") or str(_DEFAULT_LIMIT)
    limit = int(text) if text.isascii() and text.isdigit() else 0
    newer = what in (*_PAGE_ONLY, "events")
    largest = 100 if newer else edition.largest_page
    if limit > largest and edition.cuts_silently and not newer:
        return largest
    if not 1 <= limit <= largest:
        raise RefusedError(400, f"limit must be between 1 and {largest}", "limit")
    return limit


def _cursor(table: Listed, params: Mapping[str, str], names: Sequence[str]) -> tuple[str | None, int]:
    """Read the cursor, and find its index."""
    given = [name for name in names if params.get(name)]
    if len(given) > 1:
        raise RefusedError(400, f"{given[0]} and {given[1]} are mutually exclusive", given[1])
    if not given:
        return None, -1
    index = table.index(params[given[0]])
    if index is None:
        raise RefusedError(400, f"{given[0]} is not a valid cursor", given[0])
    return given[0], index


def _choice(params: Mapping[str, str], name: str, values: Sequence[str]) -> int | None:
    """Read a parameter that has a few values, as the number of its value."""
    value = params.get(name)
    if not value:
        return None
    if value not in values:
        raise RefusedError(400, f"{name} must be one of {', '.join(values)}", name)
    return values.index(value)


def _time(params: Mapping[str, str], name: str) -> int | None:
    """Read a time."""
    value = params.get(name)
    if not value:
        return None
    try:
        return nanoseconds(value)
    except ValueError:
        raise RefusedError(400, f"{name} must be an RFC 3339 time", name) from None


def _times(params: Mapping[str, str], name: str, operators: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Read the bounds of a time."""
    found = [(operator, _time(params, f"{name}[{operator}]")) for operator in operators]
    return tuple((operator, at) for operator, at in found if at is not None)


def _compare(column: NDArray[np.int64], operator: str, at: int) -> Callable[[], Mask]:
    """Return a filter by time."""
    ufunc = {"gt": np.greater, "gte": np.greater_equal, "lt": np.less, "lte": np.less_equal}[operator]
    return lambda: ufunc(column, at)


def _all(masks: Sequence[Callable[[], Mask]], length: int) -> Mask:
    """Combine filters."""
    result = np.ones(length, dtype=np.bool_)
    for mask in masks:
        result &= mask()
    return result
