"""What a query string means in each edition: filters, page size, cursors, and what is refused.

Filters that an edition does not know it ignores, as it ignores every unknown parameter; a known one with an
impossible value is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from qoderdata.sandbox.answers import Page, RefusedError
from qoderdata.sandbox.draws import nanoseconds
from qoderdata.sandbox.runs import STATUSES, TRIGGERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from qoderdata.sandbox.table import Table

    Mask = NDArray[np.bool_]

_DEFAULT_LIMIT = 20
_CURSORS = ("after_id", "before_id", "page")
DEPLOYMENT_STATUSES = ("active", "paused")


@dataclass(frozen=True)
class Edition:
    """What tells one edition of the service from another."""

    largest_page: int
    cuts_silently: bool
    filters_created_at: bool


EDITIONS = {
    "A": Edition(largest_page=1000, cuts_silently=False, filters_created_at=False),
    "B": Edition(largest_page=100, cuts_silently=True, filters_created_at=False),
    "C": Edition(largest_page=100, cuts_silently=False, filters_created_at=True),
}


def list_deployments(
    table: Table, params: Mapping[str, str], edition: Edition, *, agents: Mapping[str, int]
) -> NDArray[np.int64]:
    """Return the places of the deployments that a query asks for, ascending.

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
        Places in the table.
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
    """Return the places of the runs that a query asks for, ascending.

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
        Places in the table.
    """
    columns = table.columns
    masks: list[Callable[[], Mask]] = []
    status = _choice(params, "status", STATUSES)
    if status is not None:
        masks.append(lambda: columns["status"] == status)
    deployment = of_one or params.get("deployment_id")
    if deployment:
        place = deployments.place(deployment)
        masks.append(lambda: columns["deployment"] == (-1 if place is None else place))
    trigger = error = None
    times: tuple[tuple[str, int], ...] = ()
    if of_one is not None:
        # Both bounds are taken to be exclusive, as the words say; the documentation does not.
        bounds = [(_time(params, "triggered_after"), "gt"), (_time(params, "triggered_before"), "lt")]
        times = tuple((operator, at) for at, operator in bounds if at is not None)
        masks += [_compare(columns["triggered"], operator, at) for operator, at in times]
    else:
        trigger = _choice(params, "trigger_type", TRIGGERS)
        error = _choice(params, "has_error", ("false", "true"))
        if trigger is not None:
            masks.append(lambda: columns["trigger"] == trigger)
        if error is not None:
            masks.append(lambda: columns["error"] == bool(error))
        if edition.filters_created_at:
            times = _times(params, "created_at", ("gt", "gte", "lt", "lte"))
            masks += [_compare(columns["created"], operator, at) for operator, at in times]
    key = (status, deployment, of_one is None, trigger, error, times)
    return table.select(key, lambda: _all(masks, len(table)))


def page_of(
    table: Table,
    places: NDArray[np.int64],
    params: Mapping[str, str],
    edition: Edition,
    *,
    scanned: NDArray[np.int64] | None = None,
    overlap: bool = False,
) -> Page:
    """Cut a page out of a list.

    Parameters
    ----------
    table
        Holds the records.
    places
        What the list shows, ascending.
    params
        The query.
    edition
        The edition that answers.
    scanned
        What the service reads to fill a page, where it drops records only after it has counted them: pages
        then hold fewer records than asked for, and ``last_id`` may be of a record that is not shown.
    overlap
        Show the record of the cursor again.

    Returns
    -------
    Page
        Newest first.
    """
    limit = _limit(params, edition)
    cursor, place = _cursor(table, params)
    read = places if scanned is None else scanned
    if cursor == "before_id":
        low = int(np.searchsorted(read, place, side="right"))
        high = min(len(read), low + limit)
        more = high < len(read)
    else:
        side: Literal["left", "right"] = "right" if overlap else "left"
        high = len(read) if cursor is None else int(np.searchsorted(read, place, side=side))
        low = max(0, high - limit)
        more = low > 0
    taken = read[low:high][::-1]
    shown = taken if scanned is None else taken[np.isin(taken, places)]
    ends = (table.ids[taken[0]], table.ids[taken[-1]]) if len(taken) else (None, None)
    return Page([table.body(place) for place in shown.tolist()], ends[0], ends[1], has_more=more)


def _limit(params: Mapping[str, str], edition: Edition) -> int:
    """Read the page size."""
    text = params.get("limit") or str(_DEFAULT_LIMIT)
    limit = int(text) if text.isascii() and text.isdigit() else 0
    if limit > edition.largest_page and edition.cuts_silently:
        return edition.largest_page
    if not 1 <= limit <= edition.largest_page:
        raise RefusedError(400, f"limit must be between 1 and {edition.largest_page}", "limit")
    return limit


def _cursor(table: Table, params: Mapping[str, str]) -> tuple[str | None, int]:
    """Read the cursor, and find its place."""
    given = [name for name in _CURSORS if params.get(name)]
    if len(given) > 1:
        raise RefusedError(400, f"{given[0]} and {given[1]} are mutually exclusive", given[1])
    if not given:
        return None, -1
    place = table.place(params[given[0]])
    if place is None:
        raise RefusedError(400, f"{given[0]} is not a valid cursor", given[0])
    return given[0], place


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
