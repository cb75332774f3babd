"""Which path returns what, and which records does a query string ask for?

Checks the token, finds the records that a path names, filters them, and cuts the page out of them, as each edition
does. Editions A to C ignore parameters that they do not know; D refuses them. A known parameter with an impossible
value is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import eq, ge, gt, le, lt, ne
from typing import TYPE_CHECKING, Any

import numpy as np

from qoderdata.sandbox.database import DEPLOYMENT_STATUSES, Table
from qoderdata.sandbox.run_history import MANUAL, STATUSES, TRIGGERS
from qoderdata.sandbox.sample_values import nanoseconds
from qoderdata.sandbox.scenarios import SESSION_STATUSES
from qoderdata.sandbox.server import ListPage, RefusedError, WireResponse
from qoderdata.sandbox.session_records import OLD_STATUSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from qoderdata.sandbox.database import Condition, Database
    from qoderdata.sandbox.server import Fault, Request

_ROOTS = ("deployments", "deployment_runs", "sessions", "agents", "environments")
_DEFAULT_LIMIT = 20
_CURSORS = ("after_id", "before_id", "page")
_OPERATORS = {"gt": gt, "gte": ge, "lt": lt, "lte": le}
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
    """Return the response of the service to a request, or the envelope of a refusal.

    `fault` makes a page of a list false; `short_pages`: what is filtered out counts towards the size of a page,
    which then holds fewer records than asked for, and ``last_id`` may be of a record that is not shown.
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
        self._database, self._edition = database, edition
        self._path, self._query, self._lists = request.path, request.query, request.lists
        self._short, self._overlap = short, overlap
        self._tables = dict(zip(_ROOTS, database.tables, strict=True))

    def route(self) -> ListPage | bytes:
        """Return the page of a list, or an object."""
        match self._path.split("/")[1:]:
            case [root] if root in _ROOTS:
                self._check_names(root)
                filters = {
                    "deployments": self._deployments, "deployment_runs": self._runs, "sessions": self._sessions,
                }  # fmt: skip
                conditions = filters.get(root, self._named)()
                ascending = root == "sessions" and self._is_ascending(default="desc")
                return self._page(self._tables[root], root, conditions, ascending=ascending)
            case [root, identity] if root in _ROOTS:
                self._check_names("")
                return self._tables[root].body(self._find(root, identity), self._edition.name)
            case ["deployments", identity, "runs"]:
                deployment = self._find("deployments", identity)
                self._check_names("runs")
                return self._page(self._database.runs, "runs", self._runs_of(deployment))
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

    def _check_names(self, what: str) -> None:
        """Refuse parameters that the edition does not know."""
        unknown = [name for name in self._query if name not in _KNOWN.get(what, ())]
        if self._edition.is_newest and unknown:
            raise RefusedError(400, f"{unknown[0]} is not a known parameter", unknown[0])

    def _find(self, root: str, identity: str) -> int:
        """Find a record, or refuse."""
        table = self._tables[root]
        is_session = table is self._database.sessions
        conditions = self._database.known_sessions(self._edition.name) if is_session else ()
        index = table.index(identity)
        if index is None or index not in table.select(*conditions):
            raise RefusedError(404, f"{root.removesuffix('s').replace('_', ' ')} {identity} was not found.")
        return index

    def _deployments(self) -> list[Condition]:
        """Return which deployments are asked for."""
        conditions = self._archived()
        if (status := self._choice("status", DEPLOYMENT_STATUSES)) is not None:
            conditions.append(("status", eq, status))
        if agent := self._query.get("agent_id"):
            conditions.append(("agent", eq, self._database.agents.get(agent, -1)))
        return conditions + self._created_at("gte", "lte")

    def _runs(self) -> list[Condition]:
        """Return which runs of the account are asked for."""
        is_newest = self._edition.is_newest
        conditions = [] if is_newest else self._run_status()
        if deployment := self._query.get("deployment_id"):
            index = self._database.deployments.index(deployment)
            conditions.append(("deployment", eq, -1 if index is None else index))
        trigger = self._choice("trigger_type", TRIGGERS[:2] if is_newest else TRIGGERS)
        if trigger is not None:
            # The newest edition calls a retry scheduled.
            is_scheduled = is_newest and trigger != MANUAL
            conditions.append(("trigger", ne, MANUAL) if is_scheduled else ("trigger", eq, trigger))
        error = self._choice("has_error", ("false", "true"))
        if error is not None:
            has_error = ("refusal", gt if error else le, 0) if is_newest else ("error", eq, bool(error))
            conditions.append(has_error)
        return conditions + self._created_at(*_OPERATORS)

    def _runs_of(self, deployment: int) -> list[Condition]:
        """Return which runs of one deployment are asked for; they have other filters."""
        conditions = [] if self._edition.is_newest else self._run_status()
        conditions.append(("deployment", eq, deployment))
        # Both bounds are taken to be exclusive, as the words say; the documentation does not.
        return conditions + self._times("triggered", {"triggered_after": gt, "triggered_before": lt})

    def _run_status(self) -> list[Condition]:
        status = self._choice("status", STATUSES)
        return [] if status is None else [("status", eq, status)]

    def _sessions(self) -> list[Condition]:
        """Return which sessions are asked for."""
        database, edition = self._database, self._edition
        conditions = [*database.known_sessions(edition.name), *self._archived(), *self._created_at(*_OPERATORS)]
        words = OLD_STATUSES if edition.name in "AB" else SESSION_STATUSES
        given = [_number("statuses[]", word, words) for word in self._lists.get("statuses[]", ()) if word]
        if given:
            status = "status" if edition.is_newest else database.last_status
            conditions.append((status, np.isin, tuple(given)))
        if deployment := self._query.get("deployment_id"):
            index = database.deployments.index(deployment)
            conditions.append(("deployment", eq, -2 if index is None else index))
        if agent := self._query.get("agent_id"):
            conditions.append(("agent", eq, database.agents.get(agent, -2)))
        if version := self._query.get("agent_version"):
            if not (version.isascii() and version.isdigit()):
                raise RefusedError(400, "agent_version must be an integer", "agent_version")
            conditions.append(("agent", _has_version, int(version)))
        return conditions

    def _named(self) -> list[Condition]:
        """Return which agents or environments are asked for."""
        return self._archived() + self._created_at(*_OPERATORS)

    def _events(self, index: int) -> ListPage:
        """Return a page of the events of a session."""
        types = [kind for kind in self._lists.get("types[]", ()) if kind]
        events = self._database.events(index, self._edition.name)
        is_chosen = np.array([not types or event["type"] in types for event in events], dtype=np.bool_)
        table = Table([event["id"] for event in events], {"chosen": is_chosen}, lambda index, *_: events[index])
        ascending = self._is_ascending(default="asc")
        return self._page(table, "events", [("chosen", eq, True)], ascending=ascending)

    def _page(
        self, table: Table, what: str, conditions: Sequence[Condition], *, ascending: bool = False
    ) -> ListPage:
        """Cut a page out of the records that meet the conditions, oldest or newest first."""
        shown = table.select(*conditions)
        limit = self._limit(what)
        cursor, index = self._cursor(table, ("page",) if what in _PAGE_ONLY else _CURSORS)
        read = table.select() if self._short else shown
        repeated = int(self._overlap)
        # Whether the page reaches from the cursor towards newer records.
        if (cursor == "before_id") != ascending:
            low = 0 if cursor is None else int(np.searchsorted(read, index + 1 - repeated))
            high = min(len(read), low + limit)
            more = high < len(read)
        else:
            high = len(read) if cursor is None else int(np.searchsorted(read, index + repeated))
            low = max(0, high - limit)
            more = low > 0
        taken = read[low:high] if ascending else read[low:high][::-1]
        shown = taken[np.isin(taken, shown)] if self._short else taken
        first, last = (table.ids[taken[0]], table.ids[taken[-1]]) if len(taken) else (None, None)
        return ListPage([table.body(index, self._edition.name) for index in shown.tolist()], first, last, more)

    def _limit(self, what: str) -> int:
        """Read the page size."""
        text = self._query.get("limit") or str(_DEFAULT_LIMIT)
        limit = int(text) if text.isascii() and text.isdigit() else 0
        newer = what in (*_PAGE_ONLY, "events")
        largest = 100 if newer else self._edition.largest_page
        if limit > largest and self._edition.cuts_silently and not newer:
            return largest
        if not 1 <= limit <= largest:
            raise RefusedError(400, f"limit must be between 1 and {largest}", "limit")
        return limit

    def _cursor(self, table: Table, names: Sequence[str]) -> tuple[str | None, int]:
        """Read the cursor, and find its index."""
        given = [name for name in names if self._query.get(name)]
        if len(given) > 1:
            raise RefusedError(400, f"{given[0]} and {given[1]} are mutually exclusive", given[1])
        if not given:
            return None, -1
        index = table.index(self._query[given[0]])
        if index is None:
            raise RefusedError(400, f"{given[0]} is not a valid cursor", given[0])
        return given[0], index

    def _choice(self, name: str, values: Sequence[str]) -> int | None:
        """Read a parameter that has a few values, as the number of its value."""
        value = self._query.get(name)
        return _number(name, value, values) if value else None

    def _is_ascending(self, *, default: str) -> bool:
        """Return whether a list is asked for oldest first."""
        return _number("order", self._query.get("order") or default, ("desc", "asc")) == 1

    def _archived(self) -> list[Condition]:
        """Leave out what is archived, unless it is asked for."""
        return [] if self._choice("include_archived", ("true", "false")) == 0 else [("archived", eq, False)]

    def _created_at(self, *operators: str) -> list[Condition]:
        """Read the bounds of the creation, in editions that know them."""
        if not self._edition.filters_created_at:
            return []
        return self._times("created", {f"created_at[{name}]": _OPERATORS[name] for name in operators})

    def _times(self, column: str, bounds: dict[str, Any]) -> list[Condition]:
        """Read the bounds of a time."""
        conditions: list[Condition] = []
        for name, compare in bounds.items():
            if not (value := self._query.get(name)):
                continue
            try:
                conditions.append((column, compare, nanoseconds(value)))
            except ValueError:
                raise RefusedError(400, f"{name} must be an RFC 3339 time", name) from None
        return conditions


def _number(name: str, value: str, values: Sequence[str]) -> int:
    """Return the number of a parameter's value among those that it may have."""
    if value not in values:
        raise RefusedError(400, f"{name} must be one of {', '.join(values)}", name)
    return values.index(value)


def _has_version(agents: NDArray[np.int64], version: int) -> NDArray[np.bool_]:
    """Return which agents had this version when a session began."""
    has_version: NDArray[np.bool_] = agents % 7 + 1 == version
    return has_version
