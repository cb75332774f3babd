"""How are deployments, agents and environments loaded, from the service or the cache, and a session's events?"""

from __future__ import annotations

import functools
import importlib
import logging
import threading
import time
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from qoderdata import cache, history
from qoderdata.arguments import (
    ID_PREFIXES,
    Instant,
    Span,
    bound_text,
    check_choice,
    check_flag,
    check_id,
    check_refresh,
    parse_bound,
    parse_period,
    parse_span,
    warn_if_no_id,
)
from qoderdata.background import gc_paused
from qoderdata.client import Client, given_client
from qoderdata.decode import Decoder, Page
from qoderdata.errors import (
    APIError,
    CacheError,
    CacheWarning,
    DataQualityWarning,
    NotFoundError,
    warn,
)
from qoderdata.files import Folder
from qoderdata.formatting import counted, format_duration
from qoderdata.load.deployment_history import read_as_of
from qoderdata.pages import (
    SAFE_PAGE,
    PageSize,
    ReadCounts,
    format_bound,
    has_small_pages,
    list_query,
    progress_bar,
    walk,
)
from qoderdata.schema import AGENTS, DEPLOYMENTS, ENVIRONMENTS, EVENTS, Schema
from qoderdata.settings import resolve_cache_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

_logger = logging.getLogger("qoderdata")

_STATUSES = ("active", "paused", None)
#: The types of events that the service's documentation and its SDK name; there may be others.
_EVENT_TYPES = (
    "agent.message", "agent.thinking", "agent.tool_result", "agent.tool_use", "session.error",
    "session.status_idle", "session.status_rescheduled", "session.status_running", "session.status_terminated",
    "span.model_request_end", "system.message", "user.custom_tool_result",
    "user.define_outcome", "user.interrupt", "user.message", "user.tool_confirmation", "user.tool_result",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Filters:
    """The filters of a call: sent to the service, and applied again here, since an edition may ignore them."""

    status: str | None = None
    agent_id: str | None = None
    include_archived: bool = False
    created_since: datetime | None = None
    created_until: datetime | None = None
    #: The bounds as the caller wrote them, for the cache key: the same age in a later call has the same key.
    written: Mapping[str, str] = field(default_factory=dict)

    def params(self) -> dict[str, str]:
        asked = {
            "status": self.status,
            "agent_id": self.agent_id,
            "include_archived": "true" if self.include_archived else None,
            "created_at[gte]": _wire_time(self.created_since),
            "created_at[lte]": _wire_time(self.created_until),
        }
        return {name: value for name, value in asked.items() if value is not None}

    @property
    def is_whole(self) -> bool:
        """Whether no filter but `include_archived` is set."""
        return self == _Filters(include_archived=self.include_archived)

    def covering_filters(self) -> list[_Filters]:
        """Return the filters whose answers contain all wanted rows: these, and those of whole lists."""
        return [self, *(_Filters(include_archived=archived) for archived in {True, self.include_archived})]

    def apply(self, table: pa.Table) -> pa.Table:
        """Return the rows that pass the filters."""
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
        """Return whether all records of a page, and so all that follow, are older than `created_since`."""
        if self.created_since is None:
            return False
        newest = pc.max(table["created_at"]).as_py()
        return newest is not None and newest < self.created_since


def load_deployments(
    *,
    status: str | None = None,
    agent_id: str | None = None,
    include_archived: bool = False,
    created_since: Instant | Span | None = None,
    created_until: Instant | Span | None = None,
    as_of: Instant | Span | None = None,
    client: Client | None = None,
    cache_dir: str | Path | None = None,
    max_age: Span = "15min",
    refresh: bool = False,
    offline: bool = False,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Return all deployments of an account, from every page of the list, from the cache, or from a snapshot.

    A pull of the whole list (no filter but `include_archived`) also writes a dated snapshot; see `snapshots`.

    Parameters
    ----------
    status
        Only those with this status, ``"active"`` or ``"paused"``; ``None``: all.
    agent_id
        Only those of this agent.
    include_archived
        Include archived ones. Their status stays ``"active"``; they never fire.
    created_since
        Only those created at this time or later: ISO 8601 text with an offset, a zone-aware datetime, or an age
        such as ``"30D"``.
    created_until
        Only those created before this time, or this long ago. Ages count back from now, with `as_of` too.
    as_of
        Return what was pulled at or before this time, from the last snapshot: a zone-aware time, or an age such as
        ``"7D"``. Filters are applied to the snapshot, and no request is sent.
    client
        The account; ``None`` makes a `Client` from the environment.
    cache_dir
        The cache's folder, a path or a URL; ``None``: ``QODERDATA_CACHE_DIR``, else the platform's user cache
        folder.
    max_age
        How old a cached answer may be: anything that `pandas.Timedelta` accepts, except a bare number.
    refresh
        Ignore the cache and pull again.
    offline
        Never use the network; take the newest cached answer, of any age: to the same call, or to one for the whole
        list, which is filtered here.
    progress
        Draw a progress bar; ``None``: on a terminal or in a notebook, once a pull takes more than a second.

    Returns
    -------
    pandas.DataFrame
        One row per deployment, newest first, with the columns and dtypes of `qoderdata.schema.DEPLOYMENTS`,
        also if there are none. Times are in UTC. ``attrs`` holds ``source``, ``fetched_at``,
        ``from_cache``, ``complete`` and ``requests``.

    Raises
    ------
    ValueError
        A parameter cannot be understood, such as a time without a zone; `created_since` is not before
        `created_until`; or `refresh` is given with `as_of`.
    CredentialError
        There is no token.
    APIError
        The list could not be read to its end. Nothing is returned; a cached answer stays, and a note of the
        exception says how old it is.
    CacheError
        ``offline=True``, and no answer to such a call is cached; or there is no snapshot at or before `as_of`.

    Warns
    -----
    DataQualityWarning
        Values that do not fit their column were kept in ``extra``, or a record came twice.
    CacheWarning
        The cache could not be read, or written (`NotStoredWarning`).

    Examples
    --------
    >>> import qoderdata as qd
    >>> from qoderdata.sandbox import Sandbox
    >>> with Sandbox(deployments=30, seed=7) as sandbox:
    ...     client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url)
    ...     df = qd.load_deployments(client=client, include_archived=True)
    >>> len(df), df["id"].is_unique, str(df["created_at"].dtype)
    (30, True, 'datetime64[us, UTC]')
    """
    now = datetime.now(UTC)
    written = {"created_at[gte]": bound_text(created_since), "created_at[lte]": bound_text(created_until)}
    since, until = parse_period(created_since, created_until, now=now, what="deployment", prefix="created_")
    check_flag(include_archived, name="include_archived")
    filters = _Filters(
        status=check_choice(status, _STATUSES, name="status"),
        agent_id=None if agent_id is None else check_id(agent_id, name="agent_id"),
        include_archived=include_archived,
        created_since=since,
        created_until=until,
        written={name: bound for name, bound in written.items() if bound is not None},
    )
    limit = parse_span(max_age, name="max_age")
    if as_of is not None:
        time = parse_bound(as_of, now=now, name="as_of")
        check_refresh(refresh=refresh, offline=offline)
        if refresh:
            raise ValueError("refresh=True asks the service, which does not know as_of; give one of them")
        client = given_client(client)
        table, fetched_at = read_as_of(time, include_archived=include_archived, client=client, cache_dir=cache_dir)
        return _to_frame(filters.apply(table), DEPLOYMENTS, client, fetched_at=fetched_at)
    frame = _load(
        DEPLOYMENTS,
        filters,
        client=client,
        cache_dir=cache_dir,
        max_age=limit,
        refresh=refresh,
        offline=offline,
        progress=progress,
    )
    if frame.empty:
        warn_if_no_id(agent_id, name="agent_id")
    return frame


def load_agents(
    *,
    client: Client | None = None,
    cache_dir: str | Path | None = None,
    max_age: Span = "1D",
    refresh: bool = False,
    offline: bool = False,
) -> pd.DataFrame:
    """Return all agents of an account, archived ones too, from the service or the cache.

    Parameters
    ----------
    client
        The account; ``None`` makes a `Client` from the environment.
    cache_dir
        The cache's folder, a path or a URL; ``None``: ``QODERDATA_CACHE_DIR``, else the platform's user cache
        folder.
    max_age
        How old a cached answer may be: anything that `pandas.Timedelta` accepts, except a bare number.
    refresh
        Ignore the cache and pull again.
    offline
        Never use the network; take a cached answer of any age.

    Returns
    -------
    pandas.DataFrame
        One row per agent, newest first: ``id``, ``name``, ``description``, ``model`` (``str``), ``version``
        (``Int64``, the newest), ``created_at``, ``updated_at``, ``archived_at`` (``datetime64[us, UTC]``),
        ``metadata`` and ``extra`` (``str``, JSON text). No agents: no rows, same columns and dtypes. ``attrs`` as
        `load_deployments`.

    Raises
    ------
    ValueError
        A parameter cannot be understood.
    CredentialError
        There is no token.
    APIError
        The list could not be read to its end. Nothing is returned; a cached answer stays.
    CacheError
        ``offline=True``, and no answer is cached.

    Warns
    -----
    DataQualityWarning
        Values that do not fit their column were kept in ``extra``, or a record came twice.
    CacheWarning
        The cache could not be read, or written (`NotStoredWarning`).

    Examples
    --------
    >>> import qoderdata as qd
    >>> from qoderdata.sandbox import Sandbox
    >>> with Sandbox(deployments=30, seed=7) as sandbox:
    ...     client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url)
    ...     agents = qd.load_agents(client=client)
    >>> agents["id"].is_unique, agents["name"].hasnans
    (True, False)
    """
    return _load(
        AGENTS,
        _Filters(include_archived=True),
        client=client,
        cache_dir=cache_dir,
        max_age=parse_span(max_age, name="max_age"),
        refresh=refresh,
        offline=offline,
    )


def load_environments(
    *,
    client: Client | None = None,
    cache_dir: str | Path | None = None,
    max_age: Span = "1D",
    refresh: bool = False,
    offline: bool = False,
) -> pd.DataFrame:
    """Return all environments of an account, archived ones too, from the service or the cache.

    Parameters
    ----------
    client
        The account; ``None`` makes a `Client` from the environment.
    cache_dir
        The cache's folder, a path or a URL; ``None``: ``QODERDATA_CACHE_DIR``, else the platform's user cache
        folder.
    max_age
        How old a cached answer may be: anything that `pandas.Timedelta` accepts, except a bare number.
    refresh
        Ignore the cache and pull again.
    offline
        Never use the network; take a cached answer of any age.

    Returns
    -------
    pandas.DataFrame
        One row per environment, newest first: ``id``, ``name``, ``description``, ``config_type`` (``str``),
        ``created_at``, ``updated_at``, ``archived_at`` (``datetime64[us, UTC]``), ``metadata`` and ``extra``
        (``str``, JSON text). No environments: no rows, same columns and dtypes. ``attrs`` as `load_deployments`.

    Raises
    ------
    ValueError
        A parameter cannot be understood.
    CredentialError
        There is no token.
    APIError
        The list could not be read to its end. Nothing is returned; a cached answer stays.
    CacheError
        ``offline=True``, and no answer is cached.

    Warns
    -----
    DataQualityWarning
        Values that do not fit their column were kept in ``extra``, or a record came twice.
    CacheWarning
        The cache could not be read, or written (`NotStoredWarning`).

    Examples
    --------
    >>> import qoderdata as qd
    >>> from qoderdata.sandbox import Sandbox
    >>> with Sandbox(deployments=30, seed=7) as sandbox:
    ...     client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url)
    ...     environments = qd.load_environments(client=client)
    >>> environments["id"].is_unique, environments["name"].hasnans
    (True, False)
    """
    return _load(
        ENVIRONMENTS,
        _Filters(include_archived=True),
        client=client,
        cache_dir=cache_dir,
        max_age=parse_span(max_age, name="max_age"),
        refresh=refresh,
        offline=offline,
    )


def load_events(
    session_id: str, *, types: str | Iterable[str] | None = None, client: Client | None = None
) -> pd.DataFrame:
    """Return the events of one session in the list's order, the oldest first; they are not cached.

    Parameters
    ----------
    session_id
        The session's id (``sess_…``), as in the column ``session_id`` of a runs frame.
    types
        Only events of this type, such as ``"session.error"``, or of these types; ``None``: all.
    client
        The account; ``None`` makes a `Client` from the environment.

    Returns
    -------
    pandas.DataFrame
        One row per event, in the list's order: ``session_id`` (``str``), ``position`` (``int64``, 0 is the first
        that is returned), ``id``, ``type`` (``str``), ``processed_at`` (``datetime64[us, UTC]``, may be missing on
        any event), ``stop_reason``, ``error_type``, ``error_message``, ``retry_status`` (``str``),
        ``model_credits`` (``float64``) and ``extra`` (``str``, JSON text of everything else, such as messages). No
        events: no rows, same columns and dtypes. ``attrs`` as `load_deployments`.

    Raises
    ------
    ValueError
        `session_id` cannot be an id, or `types` names no type.
    CredentialError
        There is no token.
    NotFoundError
        There is no such session.
    APIError
        The list could not be read to its end; nothing is returned.

    Warns
    -----
    DataQualityWarning
        Values that do not fit their column were kept in ``extra``; or there is no event of one of `types` that
        may be misspelt.

    Examples
    --------
    >>> import qoderdata as qd
    >>> from qoderdata.sandbox import Sandbox
    >>> with Sandbox(deployments=30, seed=7, edition="D") as sandbox:
    ...     client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url)
    ...     events = qd.load_events(sandbox.sessions[0]["id"], client=client)
    >>> list(events["position"]) == list(range(len(events)))
    True
    """
    from qoderdata.frames import events_to_pandas, loaded_attrs  # noqa: PLC0415 - imports pandas

    path, wanted = events_path(session_id), _event_types(types)
    client, fetched_at = given_client(client), datetime.now(UTC)
    params = {"order": "asc"} if wanted is None else {"order": "asc", "types[]": wanted}
    try:
        table, counts = _read_list(client, EVENTS, path, params)
    except NotFoundError as error:
        if session_id.startswith(ID_PREFIXES["run_id"]):
            error.add_note("This is the id of a run: give its session_id.")
        elif session_id.startswith(ID_PREFIXES["deployment_id"]):
            error.add_note("This is the id of a deployment: give the session_id of one of its runs.")
        raise
    if wanted is not None:  # an edition may ignore the parameter
        table = table.filter(pc.is_in(table["type"], value_set=pa.array(wanted, pa.large_string())))
        for name in sorted({*wanted} - {*_EVENT_TYPES} - {*table["type"].to_pylist()}):
            warn(
                f"no event has the type {name!r}, which is not documented; these are: {', '.join(_EVENT_TYPES)}",
                DataQualityWarning,
            )
    _logger.info("events of %s: %s from the network", session_id, counted(len(table), "row"))
    frame = events_to_pandas(table, session_id)
    frame.attrs = loaded_attrs(f"{client.base_url}{path}", fetched_at, requests=counts.requests)
    return frame


def events_path(session_id: str) -> str:
    """Return the path of a session's events."""
    return f"/sessions/{quote(check_id(session_id, name='session_id'), safe='')}/events"


def _event_types(types: str | Iterable[str] | None) -> list[str] | None:
    if types is None:
        return None
    names = [types] if isinstance(types, str) else list(types) if isinstance(types, Iterable) else []
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(
            f"types={types!r} names no type of events; give some like 'session.error', or None for all"
        )
    return names


def _load(
    schema: Schema,
    filters: _Filters,
    *,
    client: Client | None,
    cache_dir: str | Path | None,
    max_age: timedelta,
    refresh: bool,
    offline: bool,
    progress: bool | None = None,
) -> pd.DataFrame:
    check_refresh(refresh=refresh, offline=offline)
    client = given_client(client)
    root = Folder(resolve_cache_dir(cache_dir))
    folder = root.folder(cache.FOLDER)
    began, now = time.monotonic(), datetime.now(UTC)
    queries = filters.covering_filters() if offline else [filters]
    cached = None if refresh else _newest_answer(folder, schema, client, queries)
    if cached is not None and (offline or timedelta(0) <= now - cached.fetched_at <= max_age):
        facts = (schema.name, len(cached.table), time.monotonic() - began, cached.fetched_at)
        _logger.info("%s: %d rows in %.1f s from the cache, fetched at %s", *facts)
        return _to_frame(filters.apply(cached.table), schema, client, fetched_at=cached.fetched_at)
    if offline:
        raise CacheError(
            f"offline=True, and {folder.location} has no answer to this call with this token or account. Call "
            "once without offline, with the same filters or with none, while the service can be reached"
        )
    try:
        answer, requests = _pull(schema, client, filters, progress=progress)
    except APIError as error:
        with warnings.catch_warnings(action="ignore", category=CacheWarning):  # the answer is not used
            cached = _newest_answer(folder, schema, client, filters.covering_filters())
        if cached is not None:
            age = format_duration(now - cached.fetched_at)
            error.add_note(f"An answer that is {age} old is cached: pass offline=True to use it.")
        raise
    return _store_answer(root, schema, client, filters, answer, requests=requests)


def _store_answer(
    root: Folder, schema: Schema, client: Client, filters: _Filters, answer: cache.CachedTable, *, requests: int
) -> pd.DataFrame:
    """Return an answer as a frame; meanwhile write it to the cache, and a whole list to its snapshots."""
    series = history.series(root, client.identity, include_archived=filters.include_archived)
    with ThreadPoolExecutor(1) as pool:
        is_snapshot = schema is DEPLOYMENTS and filters.is_whole
        written = pool.submit(history.write, series, answer.table, answer.fetched_at) if is_snapshot else None
        framed = pool.submit(
            _to_frame, answer.table, schema, client, fetched_at=answer.fetched_at, requests=requests
        )
        is_cached = cache.write(root.folder(cache.FOLDER), _cache_key(schema, client, filters), answer)
    frame, failure = framed.result(), None if written is None else written.exception()
    if is_cached and failure is not None:
        warn(f"no snapshot was kept: {series.folder.describe_write_failure(failure)}", CacheWarning)
    return frame


def _cache_key(schema: Schema, client: Client, filters: _Filters) -> str:
    return cache.cache_key(schema.name, {**client.identity, **filters.params(), **filters.written})


def _newest_answer(
    folder: Folder, schema: Schema, client: Client, queries: Iterable[_Filters]
) -> cache.CachedTable | None:
    """Return the newest cached answer to any of these queries."""
    names = {_cache_key(schema, client, query) for query in queries}
    answers = [answer for name in names if (answer := cache.read(folder, name, schema)) is not None]
    return max(answers, key=lambda answer: answer.fetched_at, default=None)


def _pull(
    schema: Schema, client: Client, filters: _Filters, *, progress: bool | None
) -> tuple[cache.CachedTable, int]:
    began, fetched_at = time.monotonic(), datetime.now(UTC)
    # Importing pandas takes as long as reading a page, and pandas is needed only after the last page. The thread
    # is no daemon: the process may abort if it ends during the import of a C++ module.
    threading.Thread(target=_import_pandas, name="qoderdata-import").start()
    table, counts = _read_list(
        client, schema, f"/{schema.name}", filters.params(), is_past=filters.is_past, progress=progress
    )
    table = filters.apply(table)
    seconds = time.monotonic() - began
    _logger.info(
        "%s: %s, %d rows in %.1f s from the network",
        schema.name,
        counted(counts.pages, "page"),
        len(table),
        seconds,
    )
    return cache.CachedTable(table, fetched_at), counts.requests


def _to_frame(
    table: pa.Table, schema: Schema, client: Client, *, fetched_at: datetime, requests: int = 0
) -> pd.DataFrame:
    from qoderdata.frames import loaded_frame  # noqa: PLC0415 - imports pandas

    source = f"{client.base_url}/{schema.name}"
    return loaded_frame(table, schema, source=source, fetched_at=fetched_at, requests=requests)


def _import_pandas() -> None:
    with gc_paused:
        importlib.import_module("qoderdata.frames")


def _read_list(
    client: Client,
    schema: Schema,
    path: str,
    params: Mapping[str, str | Sequence[str]],
    *,
    is_past: Callable[[pa.Table], bool] = lambda _: False,
    progress: bool | None = None,
) -> tuple[pa.Table, ReadCounts]:
    """Return the table of a list, up to the first page for which `is_past` is true, and what was read.

    The client remembers the page size that the service grants, unless the list `has_small_pages`.
    """
    decoder, counts, tables = Decoder(schema), ReadCounts(), []
    cursor_param = "after_id" if schema is DEPLOYMENTS else "page"
    is_small = has_small_pages(cursor_param)

    def fetch(cursor: str | None, limit: int) -> Page:
        counts.requests += 1
        query = list_query(params, cursor, limit, cursor_param=cursor_param)
        page = client.get(path, query, decoder.read_page)
        if not is_small:
            client.page_limit = limit
        return page

    size = PageSize(SAFE_PAGE if is_small else client.page_limit)
    walked = walk(path, fetch, limit=size, max_pages=client.max_pages, mask=client.mask)
    with gc_paused, closing(walked) as pages, progress_bar(schema.name, progress=progress) as shown:
        for page in pages:
            tables.append(decoder.to_table(page))
            counts.add(page)
            shown.update(page.count)
            if is_past(tables[-1]):
                break
    return decoder.finish(tables), counts


def _wire_time(time: datetime | None) -> str | None:
    return None if time is None else format_bound(time)
