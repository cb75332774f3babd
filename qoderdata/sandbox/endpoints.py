"""Which path reads what, and who may.

Takes a request as it arrived and gives an answer; how records are kept, filtered and sent is left to others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qoderdata.sandbox.answers import Answer, RefusedError
from qoderdata.sandbox.query import list_deployments, list_runs, page_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qoderdata.sandbox.faults import Fault
    from qoderdata.sandbox.ledger import Ledger
    from qoderdata.sandbox.query import Edition
    from qoderdata.sandbox.server import Request
    from qoderdata.sandbox.table import Table


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
    try:
        table, found = _route(ledger, request, pat=pat, edition=edition)
        if isinstance(found, int):
            return Answer(200, table.body(found))
        scanned = table.select("all", lambda: np.ones(len(table), dtype=np.bool_)) if short_pages else None
        overlap = fault is not None and fault.name == "overlap"
        page = page_of(table, found, request.query, edition, scanned=scanned, overlap=overlap)
    except RefusedError as refusal:
        return refusal.answer()
    if fault is not None:
        page = fault.spoil(page, request.query)
    return page.answer(next_page=next_page)


def _route(
    ledger: Ledger, request: Request, *, pat: str, edition: Edition
) -> tuple[Table, NDArray[np.int64] | int]:
    """Find the table, and in it the places of a list or the one place of an object."""
    if request.headers.get("authorization") != f"Bearer {pat}":
        raise RefusedError(401, "Invalid API key or token.")
    deployments, runs = ledger.deployments, ledger.runs
    match request.path.split("/"):
        case ["", "deployments" | "deployment_runs", *_] if request.method != "GET":
            raise RefusedError(501, f"{request.method} is not available in the sandbox, which only reads.")
        case ["", "deployments"]:
            return deployments, list_deployments(deployments, request.query, edition, agents=ledger.agents)
        case ["", "deployments", identity]:
            return deployments, _find(deployments, identity, "deployment")
        case ["", "deployments", identity, "runs"]:
            _find(deployments, identity, "deployment")
            return runs, list_runs(runs, request.query, edition, deployments=deployments, of_one=identity)
        case ["", "deployment_runs"]:
            return runs, list_runs(runs, request.query, edition, deployments=deployments)
        case ["", "deployment_runs", identity]:
            return runs, _find(runs, identity, "deployment run")
        case _:
            raise RefusedError(404, "The requested resource was not found.")


def _find(table: Table, identity: str, what: str) -> int:
    """Find a record, or refuse."""
    place = table.place(identity)
    if place is None or not table.columns["kept"][place]:
        raise RefusedError(404, f"{what} {identity} was not found.")
    return place
