"""How are the stored files opened lazily in DuckDB, Polars, Dask or Spark?

At a URL, DuckDB and Polars read through a pyarrow dataset, and Dask through the store's own file system, so that
they need no extension. Only Spark reads URLs itself.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import narwhals as nw
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from qoderdata import cache, history
from qoderdata.arguments import Instant, Span, check_choice, check_flag, parse_period
from qoderdata.client import Client, given_client
from qoderdata.errors import CacheError, DataQualityWarning, warn
from qoderdata.files import Folder
from qoderdata.load.caches import store_files
from qoderdata.load.refresh import CLOCK_SKEW
from qoderdata.outcomes import apply_ends_lazy, current_ends_lazy, open_frame
from qoderdata.schema import DEPLOYMENTS
from qoderdata.settings import has_token, resolve_account, resolve_cache_dir
from qoderdata.store import OUTCOMES_TABLE, RUNS_TABLE, SESSIONS_TABLE, StoredTable, TableStore
from qoderdata.time_math import earlier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

    import pandas as pd
    from pyarrow import fs

    from qoderdata.schema import Schema
    from qoderdata.settings import Account

    _Opener = Callable[[Folder, list[str], Schema], Any]

#: Characters of a path that DuckDB would read as a pattern.
_GLOB = re.compile(r"[*?\[]")


def _opener(engine: str) -> _Opener:
    """Return a function that opens Parquet files in an engine as one lazy frame; without files it has no rows.

    Frames of one opener can be joined: DuckDB only joins relations of the same connection.
    """
    if engine != "duckdb":
        return _OPENERS[engine]
    connection = _import_extra("duckdb", "duckdb").connect()
    connection.execute("SET TimeZone = 'UTC'")
    return functools.partial(_duckdb, connection)


def _import_extra(module: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is not installed: pip install 'qoderdata[{extra}]'") from error


def _dataset(folder: Folder, paths: list[str], schema: Schema) -> ds.Dataset:
    return ds.dataset(paths, schema=schema.arrow, format="parquet", filesystem=folder.filesystem)


def _duckdb(connection: Any, folder: Folder, paths: list[str], schema: Schema) -> Any:  # noqa: ANN401
    if folder.local and paths and not _GLOB.search(folder.path):
        columns = ", ".join(f'"{name}"' for name in schema.names)
        return connection.read_parquet(paths, hive_partitioning=False).project(columns)
    return connection.from_arrow(_dataset(folder, paths, schema))


def _polars(folder: Folder, paths: list[str], schema: Schema) -> Any:  # noqa: ANN401
    polars = _import_extra("polars", "polars")
    if folder.local and paths:
        return polars.scan_parquet(paths, hive_partitioning=False, glob=False).select(schema.names)
    return polars.scan_pyarrow_dataset(_dataset(folder, paths, schema))


def _dask(folder: Folder, paths: list[str], schema: Schema) -> Any:  # noqa: ANN401
    dask = _import_extra("dask.dataframe", "dask")
    no_rows = _arrow_frame(schema.arrow.empty_table())
    if not paths:
        return dask.from_pandas(no_rows, npartitions=1)
    # Not `read_parquet`: it reads the folder's name as a column, or makes a plan that cannot be sent to workers.
    return dask.from_map(_read_part, paths, meta=no_rows, schema=schema.arrow, filesystem=folder.filesystem)


def _read_part(
    path: str, *, columns: list[str] | None = None, schema: pa.Schema, filesystem: fs.FileSystem
) -> pd.DataFrame:
    """Read a file as one partition; Dask gives the columns that it needs as `columns`."""
    dataset = ds.dataset([path], schema=schema, format="parquet", filesystem=filesystem)
    return _arrow_frame(dataset.to_table(columns=columns or schema.names))


def _arrow_frame(table: pa.Table) -> pd.DataFrame:
    """Return a frame with Arrow's types, without dictionaries, which many pyarrow versions cannot convert here."""
    import pandas as pd  # noqa: PLC0415 - no other engine needs it

    fields = [
        field.with_type(pa.large_string()) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields)).to_pandas(types_mapper=pd.ArrowDtype)


def _spark(folder: Folder, paths: list[str], schema: Schema) -> Any:  # noqa: ANN401
    sql = _import_extra("pyspark.sql", "spark")
    spark = sql.SparkSession.getActiveSession() or sql.SparkSession.builder.getOrCreate()
    if not paths:
        types = _import_extra("pyspark.sql.pandas.types", "spark")
        return spark.createDataFrame([], types.from_arrow_schema(schema.arrow))
    prefix = "file://" if folder.local else f"{folder.location.split('://', 1)[0]}://"
    exact = (re.sub(r"[][{}*?\\]", r"\\\g<0>", path) for path in paths)  # a path is a pattern in Spark
    return spark.read.parquet(*(prefix + path for path in exact)).select(*schema.names)


_OPENERS: dict[str, _Opener] = {"polars": _polars, "dask": _dask, "pyspark": _spark}
ENGINES = ("duckdb", *_OPENERS)


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
        Which of the two cached lists to open; the value that was given to `load_deployments`.
    client
        The account; ``None``: that of the token in the environment. Without a token: the account of the name in
        ``QODERDATA_ACCOUNT``; without a name, the only account in the cache that has snapshots and such an answer.

    Returns
    -------
    frame
        A DuckDB relation, a Polars LazyFrame, or a Dask or PySpark DataFrame: one row per deployment, with the
        columns of `qoderdata.schema.DEPLOYMENTS`. It is as old as the cached answer, and always the whole list:
        answers to calls with another filter are not used.

    Raises
    ------
    CacheError
        There is no such answer, it is damaged, or there are several and `client` is not given.
    ImportError
        The engine is not installed; the message names the extra.
    ValueError
        The engine is not known.

    Examples
    --------
    >>> import tempfile
    >>> import qoderdata as qd
    >>> from qoderdata.sandbox import Sandbox
    >>> with Sandbox(deployments=30, seed=7) as sandbox, tempfile.TemporaryDirectory() as folder:
    ...     client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url)
    ...     df = qd.load_deployments(client=client, cache_dir=folder)
    ...     qd.scan_deployments(folder, engine="polars", client=client).collect().height == len(df)
    True
    """
    check_choice(engine, ENGINES, name="engine")
    check_flag(include_archived, name="include_archived")
    root = Folder(resolve_cache_dir(cache_dir))
    folder = root.folder(cache.FOLDER)
    client = _client_or_none(client)
    filters = {"include_archived": "true"} if include_archived else {}
    accounts = _named(history.accounts(root)) if client is None else [client.identity]
    names = {cache.cache_key(DEPLOYMENTS.name, {**account, **filters}) for account in accounts}
    wanted = {folder.path_of(name): name for name in names}
    with folder.raising_cache_error("cached answers"):
        paths = [info.path for info in folder.parquet_files() if info.path in wanted]
    if len(paths) != 1:
        call = f"load_deployments(include_archived={include_archived})"
        raise CacheError(_wrong_count_message(f"answers of {call}", len(paths), folder))
    _add_lacking_columns(folder, wanted[paths[0]])
    return _opener(engine)(folder, paths, DEPLOYMENTS)


def _add_lacking_columns(folder: Folder, name: str) -> None:
    """Rewrite a cached list of deployments that lacks columns; raise `CacheError` if it cannot be used."""
    with contextlib.suppress(OSError, pa.ArrowException):
        if pq.read_schema(folder.path_of(name), filesystem=folder.filesystem).names == DEPLOYMENTS.names:
            return
    answer = cache.read(folder, name, DEPLOYMENTS)
    if answer is None or not cache.write(folder, name, answer):
        raise CacheError(_wrong_count_message("answers of load_deployments", 0, folder))


def scan_runs(
    cache_dir: str | Path | None = None,
    *,
    engine: str,
    since: Instant | Span | None = None,
    until: Instant | Span | None = None,
    client: Client | None = None,
) -> Any:  # noqa: ANN401 - whatever the engine's lazy frame is
    """Open the store of runs that `load_runs` keeps, lazily, in another engine.

    Only the files of days that can have such runs are opened. Outcomes come from the sessions and ends that
    `load_runs` has stored, by the same rules. The engine reads the files itself, so their checksums are not
    compared. The runs of a pull that was interrupted are visible after the next `load_runs`.

    Parameters
    ----------
    cache_dir
        The cache's folder, a path or a URL such as ``s3://bucket/folder``; ``None``: ``QODERDATA_CACHE_DIR``, else
        the platform's user cache folder.
    engine
        ``"duckdb"``, ``"polars"``, ``"dask"`` or ``"pyspark"``; each is an extra of this package.
    since
        Only runs triggered at this time or later: a zone-aware time, or an age such as ``"30D"``.
    until
        Only runs triggered before this time, or this long ago.
    client
        The account; ``None``: that of the token in the environment. Without a token: the account of the name in
        ``QODERDATA_ACCOUNT``; without a name, the only account in the cache.

    Returns
    -------
    frame
        A DuckDB relation, a Polars LazyFrame, or a Dask or PySpark DataFrame: one row per run, in no particular
        order, with the columns of `qoderdata.schema.RUNS`.

    Raises
    ------
    CacheError
        There is no such store; there are several and `client` is not given; data files are gone; or an earlier
        version wrote them, and they cannot be rewritten now.
    ImportError
        The engine is not installed; the message names the extra.
    ValueError
        A time has no zone, `until` is not after `since`, or the engine is not known.

    Warns
    -----
    DataQualityWarning
        Not all of these runs are stored: `load_runs` was not called for them, or was interrupted.

    Examples
    --------
    >>> import tempfile
    >>> import qoderdata as qd
    >>> from qoderdata.sandbox import Sandbox
    >>> with Sandbox(deployments=30, seed=7) as sandbox, tempfile.TemporaryDirectory() as folder:
    ...     client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url)
    ...     runs = qd.load_runs(client=client, cache_dir=folder)
    ...     lazy = qd.run_failure_rates(qd.scan_runs(folder, engine="polars", client=client), by=None)
    ...     lazy.collect()["runs"].item() == len(runs)
    True
    """
    return _scan(RUNS_TABLE, cache_dir, client, engine=engine, since=since, until=until)


def scan_sessions(
    cache_dir: str | Path | None = None,
    *,
    engine: str,
    since: Instant | Span | None = None,
    until: Instant | Span | None = None,
    client: Client | None = None,
) -> Any:  # noqa: ANN401 - whatever the engine's lazy frame is
    """Open the store of sessions that `load_sessions` keeps, lazily, in another engine.

    Only the files of days that can have such sessions are opened. The engine reads the files itself, so their
    checksums are not compared. The sessions of a pull that was interrupted are visible after the next
    `load_sessions`.

    Parameters
    ----------
    cache_dir
        The cache's folder, a path or a URL such as ``s3://bucket/folder``; ``None``: ``QODERDATA_CACHE_DIR``, else
        the platform's user cache folder.
    engine
        ``"duckdb"``, ``"polars"``, ``"dask"`` or ``"pyspark"``; each is an extra of this package.
    since
        Only sessions created at this time or later: a zone-aware time, or an age such as ``"30D"``.
    until
        Only sessions created before this time, or this long ago.
    client
        The account; ``None``: that of the token in the environment. Without a token: the account of the name in
        ``QODERDATA_ACCOUNT``; without a name, the only account in the cache.

    Returns
    -------
    frame
        A DuckDB relation, a Polars LazyFrame, or a Dask or PySpark DataFrame: one row per session, in no
        particular order, with the columns of `qoderdata.schema.SESSIONS`.

    Raises
    ------
    CacheError
        There is no such store; there are several and `client` is not given; data files are gone; or an earlier
        version wrote them, and they cannot be rewritten now.
    ImportError
        The engine is not installed; the message names the extra.
    ValueError
        A time has no zone, `until` is not after `since`, or the engine is not known.

    Warns
    -----
    DataQualityWarning
        Not all of these sessions are stored: `load_sessions` was not called for them, or was interrupted.

    Examples
    --------
    >>> import tempfile
    >>> import qoderdata as qd
    >>> from qoderdata.sandbox import Sandbox
    >>> with Sandbox(deployments=30, seed=7) as sandbox, tempfile.TemporaryDirectory() as folder:
    ...     client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url)
    ...     sessions = qd.load_sessions(client=client, cache_dir=folder)
    ...     qd.scan_sessions(folder, engine="polars", client=client).collect().height == len(sessions)
    True
    """
    return _scan(SESSIONS_TABLE, cache_dir, client, engine=engine, since=since, until=until)


def _scan(
    table: StoredTable,
    cache_dir: str | Path | None,
    client: Client | None,
    *,
    engine: str,
    since: Instant | Span | None,
    until: Instant | Span | None,
) -> Any:  # noqa: ANN401 - whatever the engine's lazy frame is
    check_choice(engine, ENGINES, name="engine")
    first, last = parse_period(since, until, now=datetime.now(UTC), what=table.schema.singular)
    folder, client = Folder(resolve_cache_dir(cache_dir)), _client_or_none(client)
    account = _only_account(table, folder) if client is None else client.identity
    store = TableStore(folder, table, **account)
    store.load()
    if not store.exists:
        raise CacheError(_wrong_count_message(f"stores of {table.name}", 0, folder))
    if not store.coverage.covers(first):
        warn(
            f"not all {table.name} that are asked for are stored: the last load was interrupted, or did not go "
            f"back as far. Call load_{table.name} with an earlier since, or without one, to get the others",
            DataQualityWarning,
        )
    opener = _opener(engine)
    frame = _open(store, opener, since=first, until=last)
    if table is not RUNS_TABLE:
        return frame
    sessions, outcomes = (TableStore(folder, other, **account) for other in (SESSIONS_TABLE, OUTCOMES_TABLE))
    sessions.load()
    outcomes.load()
    if not sessions.exists:
        return frame
    # A session is created when its run is, or a little later.
    earliest = None if first is None else earlier(first, CLOCK_SKEW)
    opened = [_open(other, opener, since=earliest) for other in (sessions, outcomes)]
    return apply_ends_lazy(frame, opened[0], current_ends_lazy(*opened))


def _open(
    store: TableStore, opener: _Opener, *, since: datetime | None = None, until: datetime | None = None
) -> Any:  # noqa: ANN401 - whatever the engine's lazy frame is
    files = store.files(since=since, until=until)
    gone = [path for path in files if store.folder.local and not Path(path).is_file()]
    if gone:
        loader = "load_sessions" if store.table is SESSIONS_TABLE else "load_runs"
        raise CacheError(
            f"{len(gone)} of {len(files)} data files of the store of {store.table.name} are gone (the first: "
            f"{gone[0]}). Call {loader}, which reads them again"
        )
    if store.lacks_columns:
        raise CacheError(
            f"an earlier version wrote the store of {store.table.name}, and its files in {store.folder.location} "
            "cannot be rewritten now, to add the columns that they lack. Try again later, or where the folder can "
            "be written"
        )
    frame = opener(store.folder, files, store.table.schema)
    time = nw.col(store.table.time_column)
    bounds = [] if since is None else [time >= since]
    bounds += [] if until is None else [time < until]
    return open_frame(frame).filter(*bounds).to_native() if bounds else frame


def _only_account(table: StoredTable, folder: Folder) -> Account:
    accounts = _named(account for account, _ in store_files(folder, table))
    if len(accounts) != 1:
        raise CacheError(_wrong_count_message(f"stores of {table.name}", len(accounts), folder))
    return accounts[0]


def _named(accounts: Iterable[Account]) -> list[Account]:
    """Return the accounts that have the name in the environment; all if there is none."""
    name = resolve_account()
    return [account for account in accounts if name in {None, account["account"]}]


def _client_or_none(client: Client | None) -> Client | None:
    """Return the given client, else one of the token in the environment, else ``None``."""
    return given_client(client) if client is not None or has_token() else None


def _wrong_count_message(what: str, count: int, folder: Folder) -> str:
    if count == 0:
        return f"{folder.location} has none of the {what} that are asked for; call the loader first"
    return (
        f"{folder.location} has {count} {what}; choose the account with client=, or set QODER_ACCESS_TOKEN or "
        "QODERDATA_ACCOUNT"
    )
