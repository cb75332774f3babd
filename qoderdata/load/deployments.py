"""`load_deployments`: from the service or the cache to a frame."""

from __future__ import annotations

import functools
import importlib
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from qoderdata import cache
from qoderdata.client import Client
from qoderdata.errors import APIError, CacheError
from qoderdata.files import Folder
from qoderdata.frame.collecting import UNCOLLECTED
from qoderdata.load._answers import QUERIES, answer_name
from qoderdata.load._pull import Pull
from qoderdata.schema import DEPLOYMENTS
from qoderdata.settings import resolve_cache_dir
from qoderdata.times import Instant, Span, instant, span
from qoderdata.words import duration

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

_logger = logging.getLogger("qoderdata")

_STATUSES = ("active", "paused")


@dataclass(frozen=True, slots=True)
class _Filters:
    """What is asked for, as the service takes it and as this side makes sure of it."""

    status: str | None
    agent_id: str | None
    include_archived: bool
    created_since: pd.Timestamp | None
    created_until: pd.Timestamp | None

    def params(self) -> dict[str, str]:
        asked = {
            "status": self.status,
            "agent_id": self.agent_id,
            "include_archived": "true" if self.include_archived else None,
            "created_at[gte]": _wire_time(self.created_since),
            "created_at[lte]": _wire_time(self.created_until),
        }
        return {name: value for name, value in asked.items() if value is not None}

    def apply(self, table: pa.Table) -> pa.Table:
        """Keep the rows that are asked for, since an edition may ignore a filter."""
        created = table["created_at"]
        conditions = []
        if self.status is not None:
            conditions.append(pc.equal(table["status"], pa.scalar(self.status)))
        if self.agent_id is not None:
            conditions.append(pc.equal(table["agent_id"], pa.scalar(self.agent_id)))
        if not self.include_archived:
            conditions.append(pc.is_null(table["archived_at"]))
        if self.created_since is not None:
            conditions.append(pc.greater_equal(created, pa.scalar(self.created_since, created.type)))
        if self.created_until is not None:
            conditions.append(pc.less(created, pa.scalar(self.created_until, created.type)))
        if not conditions:
            return table
        wanted = functools.reduce(pc.and_, conditions)
        return table if pc.all(wanted, skip_nulls=False).as_py() else table.filter(wanted)

    def is_past(self, table: pa.Table) -> bool:
        """Tell whether a page, and so all behind it, was created before what is asked for."""
        if self.created_since is None:
            return False
        newest = pc.max(table["created_at"]).as_py()
        return newest is not None and newest < self.created_since


def load_deployments(
    *,
    status: str | None = None,
    agent_id: str | None = None,
    include_archived: bool = False,
    created_since: Instant | None = None,
    created_until: Instant | None = None,
    client: Client | None = None,
    cache_dir: str | Path | None = None,
    max_age: Span = "15min",
    refresh: bool = False,
    offline: bool = False,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Load all deployments of an account, from every page of the list or from the cache.

    Parameters
    ----------
    status
        Only those ``"active"`` or ``"paused"``; ``None``: all.
    agent_id
        Only those of this agent.
    include_archived
        Archived ones too. Their status stays ``"active"``; they never fire.
    created_since
        Only those created at this time or later: ISO 8601 text with an offset, or a zone-aware datetime.
    created_until
        Only those created before this time.
    client
        Who asks; ``None`` makes a `Client` from the environment.
    cache_dir
        The cache's folder, a path or a URL; ``None``: ``QODERDATA_CACHE_DIR``, else the platform's user cache
        folder.
    max_age
        How old a cached answer may be: anything `pandas.Timedelta` takes.
    refresh
        Pull whatever the cache has.
    offline
        Never ask the network; take a cached answer of any age.
    progress
        Draw a progress bar; ``None``: on a terminal or in a notebook, once a pull takes more than a second.

    Returns
    -------
    pandas.DataFrame
        One row a deployment, newest first, with the columns and dtypes of `qoderdata.schema.DEPLOYMENTS`,
        also where there are none. Times are in UTC. ``attrs`` holds ``source``, ``fetched_at``,
        ``from_cache``, ``complete`` and ``requests``.

    Raises
    ------
    ValueError
        A parameter cannot be understood, such as a time without a zone.
    CredentialError
        There is no token.
    APIError
        The service could not be asked to the end. Nothing is returned then; a cached answer stays, and a note
        says how old it is.
    CacheError
        ``offline=True``, and no answer to this call is cached.

    Warns
    -----
    DataQualityWarning
        Values that do not fit their column were kept in ``extra``, or a record came twice.
    CacheWarning
        The cache could not be read or written.

    Examples
    --------
    >>> from qoderdata import Client
    >>> from qoderdata.sandbox import Sandbox
    >>> with Sandbox(deployments=30, seed=7) as sandbox:
    ...     client = Client(pat=sandbox.pat, base_url=sandbox.base_url)
    ...     df = load_deployments(client=client, include_archived=True)
    >>> len(df), df["id"].is_unique, str(df["created_at"].dtype)
    (30, True, 'datetime64[us, UTC]')
    """
    filters = _Filters(
        status=_known_status(status),
        agent_id=agent_id,
        include_archived=include_archived,
        created_since=None if created_since is None else instant(created_since, name="created_since"),
        created_until=None if created_until is None else instant(created_until, name="created_until"),
    )
    limit = span(max_age, name="max_age")
    if refresh and offline:
        raise ValueError("refresh=True asks the network and offline=True never does; give one of them")
    client = Client() if client is None else client
    folder = Folder(resolve_cache_dir(cache_dir)).folder(QUERIES)
    name = answer_name(DEPLOYMENTS.name, client, filters.params())

    began, now = time.monotonic(), datetime.now(UTC)
    kept = None if refresh else cache.read(folder, name, DEPLOYMENTS.arrow)
    if kept is not None and (offline or timedelta(0) <= now - kept.fetched_at <= limit):
        seconds = time.monotonic() - began
        _logger.info(
            "deployments: %d rows in %.1f s from the cache, fetched at %s",
            len(kept.table),
            seconds,
            kept.fetched_at,
        )
        return _to_frame(kept, client, requests=0)
    if offline:
        raise CacheError(
            f"offline=True, and {folder.location} has no answer to this call. Call once without offline, "
            "with the same filters, while the service can be reached"
        )
    try:
        answer, requests = _ask(client, filters, progress=progress)
    except APIError as error:
        kept = cache.read(folder, name, DEPLOYMENTS.arrow) if refresh else kept
        if kept is not None:
            age = duration(now - kept.fetched_at)
            error.add_note(f"An answer that is {age} old is cached: offline=True takes it.")
        raise
    with ThreadPoolExecutor(1) as meanwhile:
        frame = meanwhile.submit(_to_frame, answer, client, requests=requests)
        cache.write(folder, name, answer)
    return frame.result()


def _ask(client: Client, filters: _Filters, *, progress: bool | None) -> tuple[cache.Answer, int]:
    began, fetched_at = time.monotonic(), datetime.now(UTC)
    # pandas takes as long to import as a page takes to come, and is needed after the last one.
    threading.Thread(target=_import_pandas, daemon=True).start()
    pull = Pull(client, DEPLOYMENTS, progress=progress)
    tables = []
    for table in pull.tables("/deployments", filters.params()):
        tables.append(table)
        if filters.is_past(table):
            break
    table = filters.apply(pull.decoder.finish(tables))
    _logger.info(
        "deployments: %d pages, %d rows in %.1f s from the network",
        pull.pages,
        len(table),
        time.monotonic() - began,
    )
    return cache.Answer(table, fetched_at), pull.requests


def _import_pandas() -> None:
    with UNCOLLECTED:
        importlib.import_module("qoderdata.frame.pandas")


def _to_frame(answer: cache.Answer, client: Client, *, requests: int) -> pd.DataFrame:
    from qoderdata.frame import to_pandas  # noqa: PLC0415 - imports pandas; see _ask

    frame = to_pandas(answer.table, DEPLOYMENTS)
    frame.attrs = {
        "source": f"{client.base_url}/deployments",
        "fetched_at": answer.fetched_at.isoformat(),
        "from_cache": requests == 0,
        "complete": True,
        "requests": requests,
    }
    return frame


def _known_status(status: str | None) -> str | None:
    if status is not None and status not in _STATUSES:
        raise ValueError(f"status={status!r} is not known; allowed are {', '.join(map(repr, _STATUSES))}, None")
    return status


def _wire_time(moment: pd.Timestamp | None) -> str | None:
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
