"""Which path returns what, and which records does a query string ask for?

A router checks the token, finds the records of a path, filters them, and returns one page of them, as each edition
does. Editions A to C ignore unknown parameters; D refuses them. A known parameter with an invalid value is
refused.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from operator import eq, ge, gt, le, lt
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from qoderdata.sandbox.database import DEPLOYMENT_STATUSES, Table
from qoderdata.sandbox.run_history import MANUAL, STATUSES, TRIGGERS
from qoderdata.sandbox.sample_values import nanoseconds
from qoderdata.sandbox.scenarios import SESSION_STATUSES, Refusal
from qoderdata.sandbox.session_records import OLD_STATUSES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qoderdata.sandbox.database import Condition, Database


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
    503: "feature_not_available",
    529: "overloaded_error",
}
_DEFAULT_LIMIT = 20
#: Lists whose only cursor parameter is `page`.
_PAGE_ONLY = ("sessions", "agents", "environments")
#: The default order of lists that can be requested in both orders.
_ORDERS = {"sessions": "desc", "events": "asc"}


def _is_shown(archived: Any, word: int) -> Any:  # noqa: ANN401 - times, or truth values
    return (archived == 0) | (word == 0)


def _is_triggered_by(trigger: Any, word: int) -> Any:  # noqa: ANN401 - a column
    return (trigger == MANUAL) == word


def _is_refused(refusal: Any, word: int) -> Any:  # noqa: ANN401 - a column
    return (refusal != Refusal.NONE) == word


class _Filter(NamedTuple):
    """A query parameter of some lists in some editions, which selects values of a column."""

    lists: tuple[str, ...]
    name: str
    column: str
    #: The kind of the value, or the allowed words, whose indices are in the column.
    kind: str | tuple[str, ...]
    compare: Callable[[Any, Any], Any] = eq
    #: The first and the last edition that have it.
    first: str = "A"
    last: str = "Z"


#: Other editions ignore or refuse these parameters, like all that they do not know.
_FILTERS = (
    _Filter(("deployments", *_PAGE_ONLY), "include_archived", "archived", ("true", "false"), _is_shown),
    _Filter(("deployments",), "status", "status", DEPLOYMENT_STATUSES),
    _Filter(("deployment_runs", "runs"), "status", "status", STATUSES, last="C"),
    _Filter(("deployments", "sessions"), "agent_id", "agent", "agent"),
    _Filter(("deployment_runs", "sessions"), "deployment_id", "deployment", "deployment"),
    _Filter(("deployment_runs",), "trigger_type", "trigger", TRIGGERS, last="C"),
    # The newest edition calls a retry scheduled.
    _Filter(("deployment_runs",), "trigger_type", "trigger", ("schedule", "manual"), _is_triggered_by, first="D"),
    _Filter(("deployment_runs",), "has_error", "error", ("false", "true"), last="C"),
    _Filter(("deployment_runs",), "has_error", "refusal", ("false", "true"), _is_refused, first="D"),
    # Both bounds are assumed to be exclusive, as their names say; the documentation does not say it.
    _Filter(("runs",), "triggered_after", "triggered", "time", gt),
    _Filter(("runs",), "triggered_before", "triggered", "time", lt),
    _Filter(("deployment_runs", *_PAGE_ONLY), "created_at[gt]", "created", "time", gt, first="C"),
    _Filter(("deployments", "deployment_runs", *_PAGE_ONLY), "created_at[gte]", "created", "time", ge, first="C"),
    _Filter(("deployment_runs", *_PAGE_ONLY), "created_at[lt]", "created", "time", lt, first="C"),
    _Filter(("deployments", "deployment_runs", *_PAGE_ONLY), "created_at[lte]", "created", "time", le, first="C"),
    _Filter(("sessions",), "statuses[]", "last_status", OLD_STATUSES, np.isin, last="B"),
    _Filter(("sessions",), "statuses[]", "last_status", SESSION_STATUSES, np.isin, first="C", last="C"),
    _Filter(("sessions",), "statuses[]", "status", SESSION_STATUSES, np.isin, first="D"),
    _Filter(("sessions",), "agent_version", "version", "integer"),
    _Filter(("events",), "types[]", "type", "text", np.isin),
)


@dataclass
class Request:
    """One request that arrived."""

    #: When it arrived, from `time.monotonic`.
    at: float
    method: str
    #: Without the base URL's path, such as ``"/deployments"``.
    path: str
    #: The first value of each parameter.
    query: dict[str, str]
    #: Names are in lower case. Not shown in `repr`, since the access token is among them.
    headers: dict[str, str] = field(repr=False)
    #: The status of the response; ``None`` if none was sent.
    status: int | None = None
    #: The request id in the response.
    request_id: str | None = None
    #: All values of each parameter.
    lists: dict[str, list[str]] = field(default_factory=dict)


class RefusedError(Exception):
    """A request that the service refuses with the error envelope; `param` is the invalid query parameter."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param

    def envelope(self) -> dict[str, Any]:
        """Return the documented envelope, without the request id of newer editions."""
        error = {"type": ERROR_TYPES[self.status], "message": self.message}
        if self.param is not None:
            error["param"] = self.param
        return {"type": "error", "error": error}


@dataclass(frozen=True)
class Router:
    """Answer one request with its records; raise `RefusedError` if the edition refuses it."""

    database: Database
    request: Request
    edition: str
    #: The only token that is accepted.
    pat: str
    #: The name of a fault, which may change a page of a list.
    fault: str
    #: Whether envelopes have ``next_page``.
    next_page: bool
    #: Whether a page is filtered after its records were counted: it then has fewer records than requested, and
    #: ``last_id`` may be the id of a record that is not shown.
    short_pages: bool

    def respond(self, refused: int) -> bytes:
        """Return the page of a list, or an object; refuse requests without the token, and those that write.

        `refused` is the status with which to refuse any request, or 0.
        """
        tables, method = self.database.tables, self.request.method
        parts = self.request.path.split("/")[1:]
        if refused not in (0, 401):
            raise RefusedError(refused, f"Sandbox was told to answer {refused}.")
        if refused or self.request.headers.get("authorization") != f"Bearer {self.pat}":
            raise RefusedError(401, "Invalid API key or token.")
        if method != "GET" and parts and parts[0] in tables:
            raise RefusedError(501, f"{method} is not available in the sandbox, which only reads.")
        match parts:
            case [root] if root in tables:
                self._check_names(root)
                return self._list(root, tables[root])
            case [root, identity] if root in tables:
                self._check_names()
                return tables[root].body(self._find(root, identity), self.edition)
            case ["deployments", identity, "runs"]:
                deployment = self._find("deployments", identity)
                self._check_names("runs")
                return self._list("runs", self.database.runs, ("deployment", eq, deployment))
            case ["deployments", identity, "runs", run]:
                self._check_names()
                index = self._find("deployment_runs", run)
                if self.database.runs.columns["deployment"][index] != self._find("deployments", identity):
                    raise RefusedError(404, f"deployment run {run} was not found.")
                return self.database.runs.body(index, self.edition)
            case ["sessions", identity, "events"]:
                self._check_names("events")
                events = self.database.events(self._find("sessions", identity), self.edition)
                types = {"type": np.array([str(event.get("type")) for event in events])}
                return self._list(
                    "events", Table([event["id"] for event in events], types, lambda at, *_: events[at])
                )
            case _:
                raise RefusedError(404, "The requested resource was not found.")

    def _filters(self, what: str) -> list[_Filter]:
        """Return the filters of a list that the edition knows."""
        return [one for one in _FILTERS if what in one.lists and one.first <= self.edition <= one.last]

    def _check_names(self, what: str = "") -> None:
        """Refuse parameters of a list, or of an object, that edition D does not know."""
        known = ["limit", *_cursors(what), *(one.name for one in self._filters(what))] if what else []
        if what in _ORDERS:
            known.append("order")
        unknown = [name for name in self.request.query if name not in known]
        if unknown and self.edition >= "D":
            raise RefusedError(400, f"{unknown[0]} is not a known parameter", unknown[0])

    def _find(self, root: str, identity: str) -> int:
        """Return the index of a record, or refuse the request."""
        table = self.database.tables[root]
        index = table.index(identity)
        if index is None or index not in table.select(*self.database.known(table, self.edition)):
            raise RefusedError(404, f"{root.removesuffix('s').replace('_', ' ')} {identity} was not found.")
        return index

    def _list(self, what: str, table: Table, *conditions: Condition) -> bytes:
        """Return a page of the records that the query selects."""
        chosen = [*conditions, *self.database.known(table, self.edition)]
        for one in self._filters(what):
            texts = [text for text in self.request.lists.get(one.name, ()) if text]
            if one.name == "include_archived" and not texts:
                texts = ["false"]
            values = tuple(self._value(one.name, one.kind, text) for text in texts)
            if values:
                chosen.append((one.column, one.compare, values if one.name.endswith("[]") else values[0]))
        order = (what in _ORDERS and self.request.query.get("order")) or _ORDERS.get(what, "desc")
        ascending = self._value("order", ("desc", "asc"), order) == 1
        return self._page(table, what, chosen, ascending=ascending)

    def _value(self, name: str, kind: str | tuple[str, ...], text: str) -> Any:  # noqa: ANN401 - as columns have it
        """Parse the value of a parameter; for an id that does not exist, return a value that no row has."""
        if kind == "agent":
            return self.database.agents.get(text)
        if kind == "deployment":
            return self.database.deployments.index(text)
        if kind == "text":
            return text
        if kind == "time":
            with suppress(ValueError):
                return nanoseconds(text)
            expected = "an RFC 3339 time"
        elif kind == "integer":
            if text.isascii() and text.isdigit():
                return int(text)
            expected = "an integer"
        else:
            if text in kind:
                return kind.index(text)
            expected = f"one of {', '.join(kind)}"
        raise RefusedError(400, f"{name} must be {expected}", name)

    def _page(self, table: Table, what: str, conditions: Sequence[Condition], *, ascending: bool) -> bytes:
        """Return one page of the records that meet the conditions, oldest or newest first."""
        shown = table.select(*conditions)
        limit = self._page_size(what)
        cursor, index = self._cursor(table, _cursors(what))
        read = table.select() if self.short_pages else shown
        repeated = int(self.fault == "overlap")
        # Whether the page goes from the cursor to newer records.
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

    def _page_size(self, what: str) -> int:
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
        """Return the name of the cursor parameter, and the index of the cursor."""
        given = [name for name in names if self.request.query.get(name)]
        if len(given) > 1:
            raise RefusedError(400, f"{given[0]} and {given[1]} are mutually exclusive", given[1])
        if not given:
            return None, -1
        index = table.index(self.request.query[given[0]])
        if index is None:
            raise RefusedError(400, f"{given[0]} is not a valid cursor", given[0])
        return given[0], index


def _cursors(what: str) -> tuple[str, ...]:
    """Return the cursor parameters of a list."""
    return ("page",) if what in _PAGE_ONLY else ("after_id", "before_id", "page")
