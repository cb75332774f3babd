"""What is kept on disk, opened lazily in another engine: `scan_deployments` and `scan_runs`.

Owns which files are meant. Leaves to `_engines` how each engine opens them. Nothing is read into pandas.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qoderdata import cache
from qoderdata.client import Client
from qoderdata.errors import CacheError
from qoderdata.files import Folder
from qoderdata.load.caches import StoreUsage, store_usage
from qoderdata.load.lazy_frames import Bound, check_engine, open_files, open_session
from qoderdata.outcomes import apply_ends_lazy, current_ends_lazy
from qoderdata.parsing import Instant, Span, parse_period
from qoderdata.schema import DEPLOYMENTS
from qoderdata.settings import has_token, resolve_cache_dir
from qoderdata.store import OUTCOMES_TABLE, RUNS_TABLE, SESSIONS_TABLE, StoredTable, TableStore

if TYPE_CHECKING:
    import pandas as pd


_CLOCKS_DIFFER = timedelta(hours=1)


def scan_deployments(
    cache_dir: str | Path | None = None,
    *,
    engine: str,
    include_archived: bool = False,
    client: Client | None = None,
) -> Any:  # noqa: ANN401 - whatever the engine's lazy frame is
    """Open the deployments that `load_deployments` cached, lazily, in another engine.

    Parameters
    ----------
    cache_dir
        The cache's folder, a path or a URL; ``None``: ``QODERDATA_CACHE_DIR``, else the platform's user cache
        folder.
    engine
        ``"duckdb"``, ``"polars"``, ``"dask"`` or ``"pyspark"``; each is an extra of this package.
    include_archived
        Which of the two answers: as given to `load_deployments`.
    client
        Whose deployments; ``None``: those of the environment's token, and without one, of the only account
        that the cache has.

    Returns
    -------
    frame
        A DuckDB relation, a Polars LazyFrame, or a Dask or PySpark DataFrame: one row a deployment, with the
        columns of `qoderdata.schema.DEPLOYMENTS`. It is as old as the cached answer.

    Raises
    ------
    CacheError
        There is no such answer, or it is not clear which.
    ImportError
        The engine is not installed; the message names the extra.
    ValueError
        An engine that is not known.

    Examples
    --------
    >>> import tempfile
    >>> from qoderdata import load_deployments
    >>> from qoderdata.sandbox import Sandbox
    >>> with Sandbox(deployments=30, seed=7) as sandbox, tempfile.TemporaryDirectory() as folder:
    ...     client = Client(pat=sandbox.pat, base_url=sandbox.base_url)
    ...     df = load_deployments(client=client, cache_dir=folder)
    ...     scan_deployments(folder, engine="polars", client=client).collect().height == len(df)
    True
    """
    check_engine(engine)
    folder = Folder(resolve_cache_dir(cache_dir)).folder(cache.FOLDER)
    client = _known_client(client)
    with folder.opened("cached answers"):
        kept = [entry.path for entry in cache.entries(folder)]
    if client is None:
        paths = [path for path in kept if path.rsplit("/", 1)[-1].startswith(DEPLOYMENTS.name)]
    else:
        filters = {"include_archived": "true"} if include_archived else {}
        wanted = folder.full(cache.file_name(DEPLOYMENTS.name, {**client.identity, **filters}))
        paths = [path for path in kept if path == wanted]
    if len(paths) != 1:
        raise CacheError(_which("answers of load_deployments", len(paths), folder))
    return open_files(engine, folder, paths, DEPLOYMENTS)


def scan_runs(
    cache_dir: str | Path | None = None,
    *,
    engine: str,
    since: Instant | Span | None = None,
    until: Instant | Span | None = None,
    client: Client | None = None,
) -> Any:  # noqa: ANN401 - whatever the engine's lazy frame is
    """Open the store of runs that `load_runs` keeps, lazily, in another engine.

    Only the days that can have runs in question are opened. Outcomes come from the sessions and ends that
    `load_runs` has stored, by the same rules. The engine reads the files itself, so their checksums are not
    compared. The runs of a pull that was cut off are seen after the next `load_runs`.

    Parameters
    ----------
    cache_dir
        The cache's folder, a path or a URL such as ``s3://bucket/folder``; ``None``: ``QODERDATA_CACHE_DIR``, else
        the platform's user cache folder.
    engine
        ``"duckdb"``, ``"polars"``, ``"dask"`` or ``"pyspark"``; each is an extra of this package.
    since
        Only runs triggered at this time or later: a time with its zone, or an age such as ``"30D"``.
    until
        Only runs triggered before this time, or this long ago.
    client
        Whose runs; ``None``: those of the environment's token, and without one, of the only account that
        the cache has.

    Returns
    -------
    frame
        A DuckDB relation, a Polars LazyFrame, or a Dask or PySpark DataFrame: one row a run, in no particular
        order, with the columns of `qoderdata.schema.RUNS`.

    Raises
    ------
    CacheError
        There is no such store, it is not clear which, or some of its data files are gone.
    ImportError
        The engine is not installed; the message names the extra.
    ValueError
        A time without a zone, bounds with nothing in between, or an engine that is not known.

    Examples
    --------
    >>> import tempfile
    >>> from qoderdata import load_runs, run_failure_rates
    >>> from qoderdata.sandbox import Sandbox
    >>> with Sandbox(deployments=30, seed=7) as sandbox, tempfile.TemporaryDirectory() as folder:
    ...     client = Client(pat=sandbox.pat, base_url=sandbox.base_url)
    ...     runs = load_runs(client=client, cache_dir=folder)
    ...     lazy = run_failure_rates(scan_runs(folder, engine="polars", client=client), by=None)
    ...     lazy.collect()["runs"].item() == len(runs)
    True
    """
    check_engine(engine)
    now = datetime.now(UTC)
    first, last = parse_period(since, until, now=now, what="run")
    folder = Folder(resolve_cache_dir(cache_dir))
    return _scan(RUNS_TABLE, folder, _known_client(client), engine=engine, since=first, until=last)


def scan_sessions(
    cache_dir: str | Path | None = None,
    *,
    engine: str,
    since: Instant | Span | None = None,
    until: Instant | Span | None = None,
    client: Client | None = None,
) -> Any:  # noqa: ANN401 - whatever the engine's lazy frame is
    """Open the store of sessions that `load_sessions` keeps, lazily, in another engine.

    Only the days that can have sessions in question are opened. The engine reads the files itself, so their
    checksums are not compared. The sessions of a pull that was cut off are seen after the next `load_sessions`.

    Parameters
    ----------
    cache_dir
        The cache's folder, a path or a URL such as ``s3://bucket/folder``; ``None``: ``QODERDATA_CACHE_DIR``, else
        the platform's user cache folder.
    engine
        ``"duckdb"``, ``"polars"``, ``"dask"`` or ``"pyspark"``; each is an extra of this package.
    since
        Only sessions created at this time or later: a time with its zone, or an age such as ``"30D"``.
    until
        Only sessions created before this time, or this long ago.
    client
        The account; ``None``: that of the token in the environment, and without one, the only account that the
        cache has.

    Returns
    -------
    frame
        A DuckDB relation, a Polars LazyFrame, or a Dask or PySpark DataFrame: one row per session, in no
        particular order, with the columns of `qoderdata.schema.SESSIONS`.

    Raises
    ------
    CacheError
        There is no such store, it is not clear which, or some of its data files are gone.
    ImportError
        The engine is not installed; the message names the extra.
    ValueError
        A time without a zone, bounds with nothing in between, or an unknown engine.

    Examples
    --------
    >>> import tempfile
    >>> from qoderdata import load_sessions
    >>> from qoderdata.sandbox import Sandbox
    >>> with Sandbox(deployments=30, seed=7) as sandbox, tempfile.TemporaryDirectory() as folder:
    ...     client = Client(pat=sandbox.pat, base_url=sandbox.base_url)
    ...     sessions = load_sessions(client=client, cache_dir=folder)
    ...     scan_sessions(folder, engine="polars", client=client).collect().height == len(sessions)
    True
    """
    check_engine(engine)
    first, last = parse_period(since, until, now=datetime.now(UTC), what="session")
    folder = Folder(resolve_cache_dir(cache_dir))
    return _scan(SESSIONS_TABLE, folder, _known_client(client), engine=engine, since=first, until=last)


def _scan(
    table: StoredTable,
    folder: Folder,
    client: Client | None,
    *,
    engine: str,
    since: pd.Timestamp | None,
    until: pd.Timestamp | None,
) -> Any:  # noqa: ANN401 - whatever the engine's lazy frame is
    store = _store(table, folder, client)
    store.load()
    if not store.exists:
        raise CacheError(_which(f"stores of {table.name}", 0, folder))
    session = open_session(engine)
    frame = _open(store, engine, session, since=since, until=until)
    if table is not RUNS_TABLE:
        return frame
    sessions, outcomes = (_sibling(store, other, folder) for other in (SESSIONS_TABLE, OUTCOMES_TABLE))
    if not sessions.exists:
        return frame
    # A session is created when its run is, or a little later.
    earliest = None if since is None else since - _CLOCKS_DIFFER
    opened = [_open(other, engine, session, since=earliest) for other in (sessions, outcomes)]
    return apply_ends_lazy(frame, opened[0], current_ends_lazy(*opened))


def _open(
    store: TableStore,
    engine: str,
    session: Any,  # noqa: ANN401 - see `open_session`
    *,
    since: pd.Timestamp | None = None,
    until: pd.Timestamp | None = None,
) -> Any:  # noqa: ANN401 - whatever the engine's lazy frame is
    column = store.table.time_column
    bounds = [(">=", since), ("<", until)]
    where = [Bound(column, operator, time.to_pydatetime()) for operator, time in bounds if time is not None]
    files = store.files(since=since, until=until)
    gone = [path for path in files if store.folder.local and not Path(path).is_file()]
    if gone:
        loader = "load_sessions" if store.table is SESSIONS_TABLE else "load_runs"
        raise CacheError(
            f"{len(gone)} of {len(files)} data files of the store of {store.table.name} are gone (the first: "
            f"{gone[0]}). Call {loader}, which reads them again"
        )
    return open_files(engine, store.folder, files, store.table.schema, where=where, session=session)


def _sibling(store: TableStore, table: StoredTable, folder: Folder) -> TableStore:
    """Return the store of another table of the same account."""
    whose = store.identity
    other = TableStore(
        folder, table, base_url=whose.base_url, workspace_id=whose.workspace_id, account=whose.account
    )
    other.load()
    return other


def _store(table: StoredTable, folder: Folder, client: Client | None) -> TableStore:
    if client is None:
        stores = store_usage(folder, table)
        if len(stores) != 1:
            raise CacheError(_which(f"stores of {table.name}", len(stores), folder))
        whose: Client | StoreUsage = stores[0]
    else:
        whose = client
    return TableStore(
        folder, table, base_url=whose.base_url, workspace_id=whose.workspace_id, account=whose.account
    )


def _known_client(client: Client | None) -> Client | None:
    return Client() if client is None and has_token() else client


def _which(what: str, count: int, folder: Folder) -> str:
    if count == 0:
        return f"{folder.location} has none of the {what} that are asked for; call the loader first"
    return f"{folder.location} has {count} {what}; say whose with client=, or set QODER_ACCESS_TOKEN"
