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
import orjson

from qoderdata.sandbox.database import DEPLOYMENT_STATUSES, Table
from qoderdata.sandbox.run_history import MANUAL, STATUSES, TRIGGERS
from qoderdata.sandbox.sample_values import nanoseconds
from qoderdata.sandbox.scenarios import SESSION_STATUSES
from qoderdata.sandbox.server import RefusedError
from qoderdata.sandbox.session_records import OLD_STATUSES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qoderdata.sandbox.database import Condition, Database
    from qoderdata.sandbox.server import Request

EDITIONS = ("A", "B", "C", "D")
_DEFAULT_LIMIT = 20
_CURSORS = ("after_id", "before_id", "page")
_OPERATORS = {"gt": gt, "gte": ge, "lt": lt, "lte": le}
#: Lists that are paged by `page` only.
_PAGE_ONLY = ("sessions", "agents", "environments")
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


@dataclass(frozen=True)
class Router:
    """Route one request to the records that it asks for; raise `RefusedError` where the edition refuses it."""

    database: Database
    request: Request
    edition: str
    #: The only token that is accepted.
    pat: str
    #: May make a page of a list false.
    fault: str
    #: Whether envelopes have ``next_page``.
    next_page: bool
    #: Whether what is filtered out counts towards the size of a page, which then holds fewer records than asked
    #: for, and ``last_id`` may be of a record that is not shown.
    short_pages: bool

    def respond(self) -> bytes:
        """Return the page of a list, or an object; refuse a request without the token, and one that writes."""
        tables, method = self.database.tables, self.request.method
        parts = self.request.path.split("/")[1:]
        if self.request.headers.get("authorization") != f"Bearer {self.pat}":
            raise RefusedError(401, "Invalid API key or token.")
        if method != "GET" and parts and parts[0] in tables:
            raise RefusedError(501, f"{method} is not available in the sandbox, which only reads.")
        match parts:
            case [root] if root in tables:
                self._check_names(root)
                filters = {
                    "deployments": self._deployments, "deployment_runs": self._runs, "sessions": self._sessions,
                }  # fmt: skip
                conditions = filters.get(root, self._named)()
                ascending = root == "sessions" and self._is_ascending(default="desc")
                return self._page(tables[root], root, conditions, ascending=ascending)
            case [root, identity] if root in tables:
                self._check_names("")
                return tables[root].body(self._find(root, identity), self.edition)
            case ["deployments", identity, "runs"]:
                deployment = self._find("deployments", identity)
                self._check_names("runs")
                return self._page(self.database.runs, "runs", self._runs_of(deployment))
            case ["deployments", identity, "runs", run]:
                self._check_names("")
                index = self._find("deployment_runs", run)
                if self.database.runs.columns["deployment"][index] != self._find("deployments", identity):
                    raise RefusedError(404, f"deployment run {run} was not found.")
                return self.database.runs.body(index, self.edition)
            case ["sessions", identity, "events"]:
                self._check_names("events")
                return self._events(self._find("sessions", identity))
            case _:
                raise RefusedError(404, "The requested resource was not found.")

    @property
    def _is_newest(self) -> bool:
        """Whether runs have no status, and unknown parameters are refused."""
        return self.edition == "D"

    def _check_names(self, what: str) -> None:
        """Refuse parameters that the edition does not know."""
        unknown = [name for name in self.request.query if name not in _KNOWN.get(what, ())]
        if self._is_newest and unknown:
            raise RefusedError(400, f"{unknown[0]} is not a known parameter", unknown[0])

    def _find(self, root: str, identity: str) -> int:
        """Find a record, or refuse."""
        table = self.database.tables[root]
        index = table.index(identity)
        if index is None or index not in table.select(*self.database.known(table, self.edition)):
            raise RefusedError(404, f"{root.removesuffix('s').replace('_', ' ')} {identity} was not found.")
        return index

    def _deployments(self) -> list[Condition]:
        """Return which deployments are asked for."""
        agent = self._reference("agent", self.database.agents.get)
        return self._archived() + self._status(DEPLOYMENT_STATUSES) + agent + self._created_at("gte", "lte")

    def _runs(self) -> list[Condition]:
        """Return which runs of the account are asked for."""
        conditions = self._run_status() + self._reference("deployment", self.database.deployments.index)
        trigger = self._choice("trigger_type", TRIGGERS[:2] if self._is_newest else TRIGGERS)
        if trigger is not None:
            # The newest edition calls a retry scheduled.
            is_scheduled = self._is_newest and trigger != MANUAL
            conditions.append(("trigger", ne, MANUAL) if is_scheduled else ("trigger", eq, trigger))
        error = self._choice("has_error", ("false", "true"))
        if error is not None:
            has_error = ("refusal", gt if error else le, 0) if self._is_newest else ("error", eq, bool(error))
            conditions.append(has_error)
        return conditions + self._created_at(*_OPERATORS)

    def _runs_of(self, deployment: int) -> list[Condition]:
        """Return which runs of one deployment are asked for; they have other filters."""
        # Both bounds are taken to be exclusive, as the words say; the documentation does not.
        times = self._times("triggered", {"triggered_after": gt, "triggered_before": lt})
        return [*self._run_status(), ("deployment", eq, deployment), *times]

    def _sessions(self) -> list[Condition]:
        """Return which sessions are asked for."""
        database = self.database
        conditions = database.known(database.sessions, self.edition) + self._named()
        words = OLD_STATUSES if self.edition in ("A", "B") else SESSION_STATUSES
        if statuses := [_number("statuses[]", word, words) for word in self._list("statuses[]")]:
            conditions.append(("status" if self._is_newest else database.last_status, np.isin, tuple(statuses)))
        if version := self.request.query.get("agent_version"):
            if not (version.isascii() and version.isdigit()):
                raise RefusedError(400, "agent_version must be an integer", "agent_version")
            conditions.append(("version", eq, int(version)))
        conditions += self._reference("deployment", database.deployments.index)
        return conditions + self._reference("agent", database.agents.get)

    def _named(self) -> list[Condition]:
        """Return which agents or environments are asked for."""
        return self._archived() + self._created_at(*_OPERATORS)

    def _events(self, index: int) -> bytes:
        """Return a page of the events of a session."""
        types = self._list("types[]")
        events = self.database.events(index, self.edition)
        is_chosen = np.array([not types or event["type"] in types for event in events], dtype=np.bool_)
        table = Table([event["id"] for event in events], {"chosen": is_chosen}, lambda index, *_: events[index])
        ascending = self._is_ascending(default="asc")
        return self._page(table, "events", [("chosen", eq, True)], ascending=ascending)

    def _page(self, table: Table, what: str, conditions: Sequence[Condition], *, ascending: bool = False) -> bytes:
        """Cut a page out of the records that meet the conditions, oldest or newest first."""
        shown = table.select(*conditions)
        limit = self._limit(what)
        cursor, index = self._cursor(table, ("page",) if what in _PAGE_ONLY else _CURSORS)
        read = table.select() if self.short_pages else shown
        repeated = int(self.fault == "overlap")
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
        shown = taken[np.isin(taken, shown)] if self.short_pages else taken
        first, last = (table.ids[taken[0]], table.ids[taken[-1]]) if len(taken) else (None, None)
        if self.fault in ("repeat-cursor", "no-cursor"):
            given = self.request.query.get("page") or self.request.query.get("after_id")
            last, more = given if self.fault == "repeat-cursor" else None, True
        bodies = [table.body(index, self.edition) for index in shown.tolist()]
        envelope = {"first_id": first, "has_more": more, "last_id": last}
        if self.next_page:
            envelope["next_page"] = last if more else None
        return b'{"data":[' + b",".join(bodies) + b"]," + orjson.dumps(envelope)[1:]

    def _limit(self, what: str) -> int:
        """Read the page size."""
        text = self.request.query.get("limit") or str(_DEFAULT_LIMIT)
        limit = int(text) if text.isascii() and text.isdigit() else 0
        newer = what in (*_PAGE_ONLY, "events")
        largest = 1000 if self.edition == "A" and not newer else 100
        if limit > largest and self.edition == "B" and not newer:
            return largest
        if not 1 <= limit <= largest:
            raise RefusedError(400, f"limit must be between 1 and {largest}", "limit")
        return limit

    def _cursor(self, table: Table, names: Sequence[str]) -> tuple[str | None, int]:
        """Read the cursor, and find its index."""
        given = [name for name in names if self.request.query.get(name)]
        if len(given) > 1:
            raise RefusedError(400, f"{given[0]} and {given[1]} are mutually exclusive", given[1])
        if not given:
            return None, -1
        index = table.index(self.request.query[given[0]])
        if index is None:
            raise RefusedError(400, f"{given[0]} is not a valid cursor", given[0])
        return given[0], index

    def _list(self, name: str) -> list[str]:
        """Read a parameter that may be repeated."""
        return [value for value in self.request.lists.get(name, ()) if value]

    def _choice(self, name: str, values: Sequence[str]) -> int | None:
        """Read a parameter that has a few values, as the number of its value."""
        value = self.request.query.get(name)
        return _number(name, value, values) if value else None

    def _is_ascending(self, *, default: str) -> bool:
        """Return whether a list is asked for oldest first."""
        return _number("order", self.request.query.get("order") or default, ("desc", "asc")) == 1

    def _status(self, values: Sequence[str]) -> list[Condition]:
        """Read the status."""
        status = self._choice("status", values)
        return [] if status is None else [("status", eq, status)]

    def _run_status(self) -> list[Condition]:
        """Read the status of runs, which the newest edition does not have."""
        return [] if self._is_newest else self._status(STATUSES)

    def _reference(self, column: str, find: Callable[[str], int | None]) -> list[Condition]:
        """Read the id of a deployment or an agent; no row has the value of one that is not there."""
        identity = self.request.query.get(f"{column}_id")
        return [(column, eq, find(identity))] if identity else []

    def _archived(self) -> list[Condition]:
        """Leave out what is archived, unless it is asked for."""
        return [] if self._choice("include_archived", ("true", "false")) == 0 else [("archived", eq, False)]

    def _created_at(self, *operators: str) -> list[Condition]:
        """Read the bounds of the creation, in editions that know them."""
        if self.edition in ("A", "B"):
            return []
        return self._times("created", {f"created_at[{name}]": _OPERATORS[name] for name in operators})

    def _times(self, column: str, bounds: dict[str, Any]) -> list[Condition]:
        """Read the bounds of a time."""
        conditions: list[Condition] = []
        for name, compare in bounds.items():
            if not (value := self.request.query.get(name)):
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
