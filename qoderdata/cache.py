"""One Parquet file per query: its name, age and format number.

A file is named by a digest of the query, the service and the account. Its metadata hold the time of the pull, and
the file's own name, so that a file that was renamed to another account's name is not used. A file that cannot be
read, or of another format, counts as absent; one that cannot be written is not kept, with a warning.
"""

from __future__ import annotations

import contextlib
import io
import json
import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from qoderdata.errors import CacheWarning, NotStoredWarning, warn
from qoderdata.files import digest
from qoderdata.schema import Schema, is_readable
from qoderdata.stored_columns import with_all_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qoderdata.files import Folder

#: The folder of cached answers, below the cache folder.
FOLDER = "queries"
#: Increases whenever the meaning of a column changes, so that older files are pulled again.
FORMAT = 2

_METADATA_KEY = b"qoderdata"
_CHECKSUM_KEY = b"qoderdata.seal"
_CHECKSUM_MARK = b"crc32:"
_CHECKSUM_LENGTH = 8


@dataclass(frozen=True, slots=True)
class CachedTable:
    """The answer to one query: one row per record, in the service's order."""

    table: pa.Table
    #: When the pull began, in UTC.
    fetched_at: datetime


def cache_key(kind: str, query: Mapping[str, object]) -> str:
    """Return the name of a query's file: what is listed, and a digest of everything that the answer depends on.

    `query` has the base URL, the workspace, the account, and the filters.

    Examples
    --------
    >>> cache_key("deployments", {"status": "active"})
    'deployments-127314c0eaa43cf2772ab830.parquet'
    """
    return f"{kind}-{digest({'kind': kind, **query})}.parquet"


def write(folder: Folder, name: str, answer: CachedTable) -> bool:
    """Write an answer, and return whether it is kept; the old one stays until the new one is whole.

    If the folder cannot be written, a `NotStoredWarning` says so, and nothing is kept.
    """
    facts = {"format": FORMAT, "name": name, "fetched_at": answer.fetched_at.isoformat()}
    metadata = {_METADATA_KEY: json.dumps(facts).encode(), _CHECKSUM_KEY: _CHECKSUM_MARK + bytes(_CHECKSUM_LENGTH)}
    try:
        table = answer.table.replace_schema_metadata(metadata)
        folder.replace(name, lambda sink: _write_with_checksum(table, sink))
        folder.remove_temporary_files(others_write=True)
    except Exception as error:  # noqa: BLE001 - each object store fails in its own way; the answer is whole
        warn(f"the answer was not cached: {folder.describe_write_failure(error)}", NotStoredWarning)
        return False
    return True


def read(folder: Folder, name: str, schema: Schema) -> CachedTable | None:
    """Return a cached answer with the columns of a schema; ``None`` if there is none that can be used.

    A `CacheWarning` says so if there is a file, but it is damaged or of another format.
    """
    try:
        content = folder.read(name)
        if content is None:
            return None
        _verify_checksum(memoryview(content))
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            facts = _facts(file.schema_arrow, name=name, expected=schema.arrow)
            return CachedTable(with_all_columns(file.read(), schema), datetime.fromisoformat(facts["fetched_at"]))
    except Exception as error:  # noqa: BLE001 - a damaged file can fail in any way, an object store in its own
        warn(f"the cached file {folder.path_of(name)} counts as absent: {error}", CacheWarning)
        return None


def _facts(schema: pa.Schema, *, name: str, expected: pa.Schema) -> dict[str, Any]:
    facts = json.loads((schema.metadata or {}).get(_METADATA_KEY, b"{}"))
    if not isinstance(facts, dict) or facts.get("format") != FORMAT or not is_readable(schema, expected):
        raise ValueError("it is of another format")
    if facts.get("name") != name:
        raise ValueError("it was written for another query or account")
    return facts


class _Checksummed(io.RawIOBase):
    """Pass on what is written, and compute its checksum."""

    def __init__(self, sink: pa.NativeFile | io.BytesIO) -> None:
        super().__init__()
        self.sink = sink
        self.checksum = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:  # noqa: ANN401 - bytes or a buffer
        self.checksum = zlib.crc32(content, self.checksum)
        return self.sink.write(content)


def _write_with_checksum(table: pa.Table, sink: pa.NativeFile) -> None:
    """Write a table; its footer has the checksum of all other bytes of the file.

    Parquet's own checksums cover the pages alone, so that a changed bit in the footer can give other values.
    """
    target, footer = _Checksummed(sink), io.BytesIO()
    # The file is read whole, and most texts are distinct: no statistics, no dictionaries.
    with pq.ParquetWriter(
        pa.PythonFile(target, mode="w"),
        table.schema,
        compression="lz4",
        write_statistics=False,
        use_dictionary=False,
    ) as writer:
        writer.write_table(table)
        checksum, target.sink = target.checksum, footer
    content = footer.getbuffer()
    start, end = _checksum_position(content)
    sink.write(content[:start])
    sink.write(_checksum(content[:start], content[end:], before=checksum))
    sink.write(content[end:])


def _verify_checksum(content: memoryview) -> None:
    """Raise `ValueError` unless a file is as it was written."""
    with contextlib.suppress(ValueError):
        start, end = _checksum_position(content)
        if content[start:end] == _checksum(content[:start], content[end:]):
            return
    raise ValueError("it is damaged or of another format")


def _checksum_position(content: memoryview) -> tuple[int, int]:
    """Return where the checksum lies; a Parquet file ends in its footer, the footer's length and four letters."""
    length = int.from_bytes(content[-8:-4], "little")
    footer = bytes(content[-8 - length : -8])
    start = len(content) - 8 - len(footer) + footer.rindex(_CHECKSUM_MARK) + len(_CHECKSUM_MARK)
    return start, start + _CHECKSUM_LENGTH


def _checksum(start: memoryview, end: memoryview, *, before: int = 0) -> bytes:
    """Return the checksum of two parts; `before` is that of all bytes before them."""
    return f"{zlib.crc32(end, zlib.crc32(start, before)):08x}".encode()
