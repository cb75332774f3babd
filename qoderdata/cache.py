"""One Parquet file per query: where it lies, how old it is, its format number, and how to clear it.

A file is named by a digest of what was asked, of whom and for which account, and says in its own metadata
when it was fetched. One that cannot be read, or that another version of this package wrote in another
format, counts as absent: the worst that a broken cache does is one more pull.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from qoderdata.errors import CacheWarning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qoderdata.files import Folder

#: Goes up whenever the meaning of a column changes, so that older files are pulled again.
FORMAT = 1

_METADATA_KEY = b"qoderdata"
_DIGEST_LENGTH = 24
_SUFFIX = ".parquet"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer of the service.

    Attributes
    ----------
    table : pyarrow.Table
        One row a record, in the service's order.
    fetched_at : datetime.datetime
        When the pull began, in UTC.
    """

    table: pa.Table
    fetched_at: datetime


def file_name(kind: str, query: Mapping[str, str | None]) -> str:
    """Give the name of a query's file.

    Parameters
    ----------
    kind
        What is listed, such as ``"deployments"``.
    query
        Everything that tells one answer from another: base URL, workspace, account digest, filters.

    Returns
    -------
    str
        The kind and a digest of the query.

    Examples
    --------
    >>> file_name("deployments", {"status": "active"})
    'deployments-127314c0eaa43cf2772ab830.parquet'
    """
    canonical = json.dumps({"kind": kind, **query}, sort_keys=True)
    return f"{kind}-{hashlib.sha256(canonical.encode()).hexdigest()[:_DIGEST_LENGTH]}{_SUFFIX}"


def write(folder: Folder, name: str, answer: Answer) -> None:
    """Keep an answer; the one that is there stays until the new one is whole.

    Parameters
    ----------
    folder
        Where; created if need be.
    name
        From `file_name`.
    answer
        What to keep.

    Warns
    -----
    CacheWarning
        The folder cannot be written; nothing is kept.
    """
    facts = {"format": FORMAT, "fetched_at": answer.fetched_at.isoformat()}
    table = answer.table.replace_schema_metadata({_METADATA_KEY: json.dumps(facts).encode()})
    try:
        folder.replace(
            name, lambda sink: pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        )
    except OSError as error:
        warnings.warn(
            f"the answer was not cached: {folder.location} cannot be written ({error.strerror or error}). "
            "Set QODERDATA_CACHE_DIR or cache_dir to a folder that can",
            CacheWarning,
            stacklevel=2,
        )


def read(folder: Folder, name: str, schema: pa.Schema) -> Answer | None:
    """Give a kept answer.

    Parameters
    ----------
    folder
        Where it is kept.
    name
        From `file_name`.
    schema
        The columns and types that it must have.

    Returns
    -------
    Answer or None
        ``None`` where there is none that can be used.

    Warns
    -----
    CacheWarning
        There is a file, but it is damaged or of another format.
    """
    try:
        content = folder.read(name)
        if content is None:
            return None
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
            facts = _facts(file.schema_arrow, expected=schema)
            return Answer(file.read(), datetime.fromisoformat(facts["fetched_at"]))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        warnings.warn(
            f"the cached file {folder.full(name)} was passed over: {error}. It is pulled again",
            CacheWarning,
            stacklevel=2,
        )
        return None


def _facts(schema: pa.Schema, *, expected: pa.Schema) -> dict[str, Any]:
    facts = json.loads((schema.metadata or {}).get(_METADATA_KEY, b"{}"))
    if not isinstance(facts, dict) or facts.get("format") != FORMAT or not schema.equals(expected):
        raise ValueError("it is of another format")
    return facts


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the cache: its path, its size in bytes, and when it was written (UTC)."""

    path: str
    size: int
    written_at: datetime | None


def entries(folder: Folder) -> list[Entry]:
    """List the cache's files, newest first."""
    found = [
        Entry(info.path, info.size, info.mtime.astimezone(UTC) if info.mtime else None)
        for info in folder.files()
        if info.extension == "parquet"
    ]
    return sorted(found, key=lambda entry: entry.written_at or datetime.min.replace(tzinfo=UTC), reverse=True)


def clear(folder: Folder) -> int:
    """Remove the cache's files, and give how many there were."""
    found = entries(folder)
    for entry in found:
        with contextlib.suppress(FileNotFoundError):
            folder.filesystem.delete_file(entry.path)
    return len(found)
