"""What is kept on disk, opened lazily in another engine: `scan_deployments` and `scan_runs`.

Nothing is read into pandas. On a store at a URL, each engine reads through pyarrow's or fsspec's view of it, so
that none needs an extension of its own; Spark alone reads URLs by its own means.
"""

from __future__ import annotations

import importlib
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import narwhals as nw
import pyarrow.dataset as ds

from qoderdata import cache, store
from qoderdata.client import Client
from qoderdata.errors import CacheError, CredentialError
from qoderdata.files import Folder
from qoderdata.load.caches import QUERIES, answer_name
from qoderdata.schema import DEPLOYMENTS, RUNS, Schema
from qoderdata.settings import resolve_cache_dir
from qoderdata.times import Instant, Span, moment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    import pandas as pd


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
        Whose deployments; ``None``: those of the token in ``QODER_PAT``, and without one, of the only account
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
    folder = Folder(resolve_cache_dir(cache_dir)).folder(QUERIES)
    client = _known_client(client)
    kept = [entry.path for entry in cache.entries(folder)]
    if client is None:
        paths = [path for path in kept if path.rsplit("/", 1)[-1].startswith(DEPLOYMENTS.name)]
    else:
        filters = {"include_archived": "true"} if include_archived else {}
        wanted = folder.full(answer_name(DEPLOYMENTS.name, client, filters))
        paths = [path for path in kept if path == wanted]
    if len(paths) != 1:
        raise CacheError(_which("answers of load_deployments", len(paths), folder))
    return _open(engine, folder, paths, DEPLOYMENTS)


def scan_runs(
    cache_dir: str | Path | None = None,
    *,
    engine: str,
    since: Instant | Span | None = None,
    until: Instant | Span | None = None,
    client: Client | None = None,
) -> Any:  # noqa: ANN401 - whatever the engine's lazy frame is
    """Open the store of runs that `load_runs` keeps, lazily, in another engine.

    Only the days that can have runs in question are opened. The runs of a pull that was cut off are seen once
    the next `load_runs` has put them in their place.

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
        Whose runs; ``None``: those of the token in ``QODER_PAT``, and without one, of the only account that
        the cache has.

    Returns
    -------
    frame
        A DuckDB relation, a Polars LazyFrame, or a Dask or PySpark DataFrame: one row a run, in no particular
        order, with the columns of `qoderdata.schema.RUNS`.

    Raises
    ------
    CacheError
        There is no such store, or it is not clear which.
    ImportError
        The engine is not installed; the message names the extra.
    ValueError
        A time without a zone, or an engine that is not known.

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
    now = datetime.now(UTC)
    first = None if since is None else moment(since, now=now, name="since")
    last = None if until is None else moment(until, now=now, name="until")
    folder = Folder(resolve_cache_dir(cache_dir))
    reader = _reader(folder, _known_client(client))
    reader.load()
    frame = _open(engine, reader.folder, reader.files(since=first, until=last), RUNS)
    return _between(frame, first, last)


def _between(frame: Any, first: pd.Timestamp | None, last: pd.Timestamp | None) -> Any:  # noqa: ANN401
    with warnings.catch_warnings():
        # narwhals warns of a package to come with every frame of Dask's.
        warnings.filterwarnings("ignore", message="Dask support is moving", category=FutureWarning)
        bounded = nw.from_native(frame)
    if first is not None:
        bounded = bounded.filter(nw.col("triggered_at") >= first.to_pydatetime())
    if last is not None:
        bounded = bounded.filter(nw.col("triggered_at") < last.to_pydatetime())
    return bounded.to_native()


def _reader(folder: Folder, client: Client | None) -> store.RunReader:
    if client is not None:
        return store.RunReader(
            folder, base_url=client.base_url, workspace_id=client.workspace_id, account=client.account
        )
    stores = store.usage(folder)
    if len(stores) != 1:
        raise CacheError(_which("stores of runs", len(stores), folder))
    only = stores[0]
    return store.RunReader(folder, base_url=only.base_url, workspace_id=only.workspace_id, account=only.account)


def _known_client(client: Client | None) -> Client | None:
    try:
        return Client() if client is None else client
    except CredentialError:
        return None


def _which(what: str, count: int, folder: Folder) -> str:
    if count == 0:
        return f"{folder.location} has none of the {what} that are asked for; call the loader first"
    return f"{folder.location} has {count} {what}; say whose with client=, or set QODER_PAT"


def _open(engine: str, folder: Folder, paths: list[str], schema: Schema) -> Any:  # noqa: ANN401 - see above
    openers: dict[str, Callable[[Folder, list[str], Schema], Any]] = {
        "duckdb": _open_duckdb,
        "polars": _open_polars,
        "dask": _open_dask,
        "pyspark": _open_spark,
    }
    if engine not in openers:
        raise ValueError(f"engine={engine!r} is not known; allowed are {', '.join(map(repr, openers))}")
    return openers[engine](folder, paths, schema)


def _need(module: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is not installed: pip install 'qoderdata[{extra}]'") from error


def _dataset(folder: Folder, paths: list[str], schema: Schema) -> ds.Dataset:
    return ds.dataset(paths, schema=schema.arrow, format="parquet", filesystem=folder.filesystem)


def _open_duckdb(folder: Folder, paths: list[str], schema: Schema) -> Any:  # noqa: ANN401
    duckdb = _need("duckdb", "duckdb")
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    if folder.local and paths:
        columns = ", ".join(schema.names)
        return connection.read_parquet(paths, hive_partitioning=False).project(columns)
    return connection.from_arrow(_dataset(folder, paths, schema))


def _open_polars(folder: Folder, paths: list[str], schema: Schema) -> Any:  # noqa: ANN401
    polars = _need("polars", "polars")
    if folder.local and paths:
        return polars.scan_parquet(paths, hive_partitioning=False).select(schema.names)
    return polars.scan_pyarrow_dataset(_dataset(folder, paths, schema))


def _open_dask(folder: Folder, paths: list[str], schema: Schema) -> Any:  # noqa: ANN401
    dask = _need("dask.dataframe", "dask")
    if not paths:
        return dask.from_pandas(_pandas(schema), npartitions=1)
    options = {} if folder.local else {"filesystem": folder.filesystem}
    return dask.read_parquet(paths, columns=schema.names, dtype_backend="pyarrow", **options)


def _open_spark(folder: Folder, paths: list[str], schema: Schema) -> Any:  # noqa: ANN401
    sql = _need("pyspark.sql", "spark")
    session = sql.SparkSession.getActiveSession() or sql.SparkSession.builder.getOrCreate()
    if not paths:
        types = _need("pyspark.sql.pandas.types", "spark")
        return session.createDataFrame([], types.from_arrow_schema(schema.arrow))
    prefix = "" if folder.local else f"{folder.location.split('://', 1)[0]}://"
    return session.read.parquet(*(prefix + path for path in paths)).select(*schema.names)


def _pandas(schema: Schema) -> Any:  # noqa: ANN401 - a pandas frame
    import pandas as pd  # noqa: PLC0415

    return schema.arrow.empty_table().to_pandas(types_mapper=pd.ArrowDtype)
