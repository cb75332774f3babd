"""What did the deployments look like at an earlier time: which snapshots are there, and what is in them?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from qoderdata import history
from qoderdata.arguments import Instant, Span, check_flag, parse_period
from qoderdata.client import Client, given_client
from qoderdata.errors import CacheError
from qoderdata.files import Folder
from qoderdata.formatting import counted, format_time
from qoderdata.schema import DEPLOYMENTS
from qoderdata.settings import resolve_cache_dir

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa


def snapshots(client: Client | None = None, cache_dir: str | Path | None = None) -> pd.DataFrame:
    """Return the list of the dated snapshots of an account's deployments.

    Each pull of the whole list by `load_deployments` (no filter but ``include_archived``) writes one. All of the
    last 24 hours are kept, then the last one of each day (UTC), for 400 days. Snapshots with archived deployments
    and those without are two series.

    Parameters
    ----------
    client
        The account; ``None`` makes a `Client` from the environment. No request is sent.
    cache_dir
        The cache's folder, a path or a URL; ``None``: ``QODERDATA_CACHE_DIR``, else the platform's user cache
        folder.

    Returns
    -------
    pandas.DataFrame
        One row per snapshot, the oldest first. No snapshots: no rows, same columns and dtypes.

        ===================== =================== ===========================================================
        ``fetched_at``        datetime64[us, UTC] when its pull began
        ``deployments``       int64               the number of deployments
        ``include_archived``  bool                whether archived ones are among them
        ``bytes``             int64               size of its file; texts that snapshots share are not counted
        ===================== =================== ===========================================================

    Raises
    ------
    CredentialError
        There is no token.
    CacheError
        The folder of snapshots cannot be read now.

    Warns
    -----
    CacheWarning
        Snapshots are damaged, and were left out.

    Examples
    --------
    >>> import qoderdata as qd
    >>> from qoderdata.sandbox import Sandbox
    >>> with Sandbox(deployments=30, seed=7) as sandbox:
    ...     client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url)
    ...     df = qd.load_deployments(client=client, include_archived=True)
    >>> qd.snapshots(client=client)[["deployments", "include_archived"]]
       deployments  include_archived
    0           30              True
    """
    import pandas as pd  # noqa: PLC0415 - slow to import

    client = given_client(client)
    rows = []
    for include_archived in (False, True):
        series, files = _listed(client, cache_dir, include_archived=include_archived)
        found = [snapshot.file for snapshot in history.read(series, files, ["id"])]
        rows += [(file.fetched_at, file.rows, include_archived, file.size) for file in found]
    dtypes = {
        "fetched_at": "datetime64[us, UTC]",
        "deployments": "int64",
        "include_archived": "bool",
        "bytes": "int64",
    }
    return pd.DataFrame(sorted(rows), columns=list(dtypes)).astype(dtypes)


def load_snapshots(
    since: Instant | Span | None = None,
    until: Instant | Span | None = None,
    *,
    include_archived: bool = False,
    columns: Sequence[str] | None = None,
    client: Client | None = None,
    cache_dir: str | Path | None = None,
) -> list[pd.DataFrame]:
    """Return the snapshots of an account's deployments in a period.

    Parameters
    ----------
    since, until
        Only snapshots fetched at `since` or later, and before `until`: zone-aware times, or ages such as ``"7D"``;
        ``None``: no bound.
    include_archived
        The series with archived deployments, instead of the one without; the two are never mixed.
    columns
        Read this column, or these, only, which takes less time and memory; ``None``: all.
    client
        The account; ``None`` makes a `Client` from the environment. No request is sent.
    cache_dir
        The cache's folder, a path or a URL; ``None``: ``QODERDATA_CACHE_DIR``, else the platform's user cache
        folder.

    Returns
    -------
    list of pandas.DataFrame
        The frames that `load_deployments` returned then, the oldest first; ``attrs["fetched_at"]`` says when.
        A column that did not exist yet when a snapshot was written has the values that were in ``extra`` then.
        No snapshots: an empty list.

    Raises
    ------
    ValueError
        A bound cannot be understood, or there is no such column.
    CredentialError
        There is no token.
    CacheError
        The folder of snapshots cannot be read now.

    Warns
    -----
    CacheWarning
        Snapshots are damaged, and were left out.

    Examples
    --------
    >>> import qoderdata as qd
    >>> from qoderdata.sandbox import Sandbox
    >>> with Sandbox(deployments=30, seed=7) as sandbox:
    ...     client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url)
    ...     df = qd.load_deployments(client=client, include_archived=True)
    >>> then = qd.load_snapshots("7D", include_archived=True, client=client)
    >>> then[-1].equals(df)
    True
    """
    from qoderdata.frames import loaded_frame  # noqa: PLC0415 - imports pandas

    first, last = parse_period(since, until, now=datetime.now(UTC), what="snapshot")
    check_flag(include_archived, name="include_archived")
    names = _checked_columns(columns)
    client = given_client(client)
    series, listed = _listed(client, cache_dir, include_archived=include_archived)
    files = [
        file
        for file in listed
        if (first is None or file.fetched_at >= first) and (last is None or file.fetched_at < last)
    ]
    found = history.read(series, files, names)
    source = f"{client.base_url}/{DEPLOYMENTS.name}"
    frames = [
        loaded_frame(snapshot.table, DEPLOYMENTS, source=source, fetched_at=snapshot.file.fetched_at, requests=0)
        for snapshot in found
    ]
    return frames if names is None else [frame[names] for frame in frames]


def _checked_columns(columns: str | Sequence[str] | None) -> list[str] | None:
    """Return the columns to read, each once."""
    if columns is None:
        return None
    names = [*columns] if isinstance(columns, Iterable) and not isinstance(columns, str) else [columns]
    unknown = [name for name in names if name not in DEPLOYMENTS.names]
    if unknown or not names:
        raise ValueError(f"columns={unknown!r}: give columns that a deployments frame has")
    return list(dict.fromkeys(names))


def read_as_of(
    time: datetime, *, include_archived: bool, client: Client, cache_dir: str | Path | None
) -> tuple[pa.Table, datetime]:
    """Return the last snapshot at or before a time, and when it was fetched.

    Raise `CacheError` if there is none, or all of them are damaged.
    """
    series, files = _listed(client, cache_dir, include_archived=include_archived)
    candidates = [file for file in files if file.fetched_at <= time]
    found = history.read(series, reversed(candidates), most=1)
    if found:
        return found[0].table, found[0].file.fetched_at
    if candidates:
        raise CacheError(f"no snapshot at or before {format_time(time)} can be used; damaged: {len(candidates)}")
    if files:
        raise CacheError(
            f"there is no snapshot at or before {format_time(time)}: the first one is of "
            f"{format_time(files[0].fetched_at)}"
        )
    which = "with archived deployments" if include_archived else "without archived deployments"
    _, others = _listed(client, cache_dir, include_archived=not include_archived)
    hint = f"; with include_archived={not include_archived}: {counted(len(others), 'snapshot')}" if others else ""
    if has_other_accounts(client, cache_dir):
        hint += ". There are snapshots of another token or account; Client(account=…) names whose are read"
    raise CacheError(
        f"there is no snapshot {which} in {series.folder.location}; each load_deployments("
        f"include_archived={include_archived}) without other filters leaves one when it asks the service{hint}"
    )


def has_other_accounts(client: Client, cache_dir: str | Path | None) -> bool:
    """Return whether snapshots of another token, account or workspace at this service can be read."""
    with contextlib.suppress(CacheError):
        found = history.accounts(Folder(resolve_cache_dir(cache_dir)))
        return any(account["base_url"] == client.base_url and account != client.identity for account in found)
    return False


def _listed(
    client: Client, cache_dir: str | Path | None, *, include_archived: bool
) -> tuple[history.Series, list[history.SnapshotFile]]:
    """Return an account's series, and its snapshots, the oldest first."""
    series = history.series(
        Folder(resolve_cache_dir(cache_dir)), client.identity, include_archived=include_archived
    )
    with series.folder.raising_cache_error("snapshots"):
        return series, history.files_of(series)
