"""Which data files of a table are valid, what do they contain, and to which account do they belong?

``manifest.json`` is replaced in one step, and has a checksum of itself. A manifest that is damaged, of another
format, or of another account is never used.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003 - msgspec reads these annotations
from typing import TYPE_CHECKING

import msgspec

from qoderdata.errors import CacheError
from qoderdata.store.coverage import Coverage

if TYPE_CHECKING:
    import pyarrow as pa

    from qoderdata.files import Folder
    from qoderdata.settings import Account

#: Increases whenever the stored data changes its meaning.
FORMAT = 2
#: Written by version 0.1: no checksums, fewer columns.
OLD_FORMAT = 1
NAME = "manifest.json"


class UnusableManifestError(CacheError):
    """A manifest is damaged, of another format or of another account.

    `old`: its content, if its format is that of version 0.1. `is_foreign`: it belongs to another account.
    `is_folder`: a folder has its name.
    """

    def __init__(
        self, reason: object, *, old: Manifest | None = None, is_foreign: bool = False, is_folder: bool = False
    ) -> None:
        super().__init__(f"its manifest cannot be used ({reason})")
        self.old, self.is_foreign, self.is_folder = old, is_foreign, is_folder


@dataclass(frozen=True, slots=True)
class Identity:
    """The table of a store, and the account to which it belongs."""

    table: str
    base_url: str
    workspace_id: str | None
    #: A name, or a digest of the token.
    account: str

    @property
    def owner(self) -> Account:
        """The account to which the store belongs."""
        return {"base_url": self.base_url, "workspace_id": self.workspace_id, "account": self.account}


@dataclass(frozen=True, slots=True)
class DataFile:
    """One data file."""

    rows: int
    #: The CRC-32 of its bytes, in hexadecimal; empty in the format of version 0.1.
    checksum: str
    #: How many columns it has.
    columns: int = 0


@dataclass(frozen=True, slots=True)
class OpenRow:
    """A row that may still change."""

    #: Its partition.
    day: str
    #: When it was last read, or when reading it was last refused.
    read_at: datetime


@dataclass(frozen=True, slots=True)
class Manifest:
    """The state of a store."""

    identity: Identity
    #: The number of the last journal entry that is in the data set.
    sequence: int = 0
    #: The valid data files, by their name below ``data``.
    files: dict[str, DataFile] = field(default_factory=dict)
    coverage: Coverage = field(default_factory=Coverage)
    #: The rows that may still change, by their ids; only for a table whose rows are read one by one.
    open_rows: dict[str, OpenRow] = field(default_factory=dict)


def checksum(content: bytes | pa.Buffer) -> str:
    """Return the CRC-32 of bytes, in hexadecimal."""
    return f"{zlib.crc32(memoryview(content)):08x}"


def read_manifest(folder: Folder, identity: Identity | None = None) -> Manifest | None:
    """Return a store's manifest; ``None`` if there is none. `identity`: the expected one; ``None``: any.

    Raise `UnusableManifestError` if it cannot be used, and `OSError` if it cannot be read now.
    """
    try:
        content = folder.read(NAME)
    except IsADirectoryError as error:
        raise UnusableManifestError("a folder has its name", is_folder=True) from error
    if content is None:
        return None
    try:
        version = msgspec.json.decode(content, type=_AnyFormat).format
        if version not in {FORMAT, OLD_FORMAT}:
            raise ValueError(f"it is of format {version}, not {FORMAT}")  # noqa: TRY301 - as one of `_decode`
        manifest = _decode_old(content) if version == OLD_FORMAT else _decode(content)
    except (ValueError, LookupError, TypeError, AttributeError, msgspec.MsgspecError) as error:
        raise UnusableManifestError(error) from error
    if identity is not None and manifest.identity != identity:
        raise UnusableManifestError("it is of another account", is_foreign=True)
    if version == OLD_FORMAT:
        raise UnusableManifestError(f"it is of format {OLD_FORMAT}", old=manifest)
    return manifest


def write_manifest(folder: Folder, manifest: Manifest) -> None:
    """Replace a store's manifest in one step; if the folder cannot be written, the old one stays valid."""
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    document = b'{"format": %d, "checksum": "%b", "content": %b}\n' % (FORMAT, checksum(content).encode(), content)
    folder.replace(NAME, lambda sink: sink.write(document))


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    checksum: str
    content: msgspec.Raw


class _AnyFormat(msgspec.Struct):
    format: int


def _decode(content: pa.Buffer) -> Manifest:
    document = msgspec.json.decode(content, type=_Document)
    if document.checksum != checksum(bytes(document.content)):
        raise ValueError("it is damaged")
    return msgspec.json.decode(document.content, type=Manifest)


def _decode_old(content: pa.Buffer) -> Manifest:
    """Convert a manifest of version 0.1 to the present format; its data files are still in the old format."""
    old = msgspec.json.decode(content)
    segments = [{**segment, "head_ids": segment["marks"]} for segment in old["coverage"].get("stretches", [])]
    found = {
        "identity": {**old, "table": "runs"},
        "sequence": old["sequence"],
        "files": {name: {"rows": rows, "checksum": ""} for name, rows in old["files"].items()},
        "coverage": {"segments": segments},
        "open_rows": old["open_runs"],
    }
    return msgspec.convert(found, Manifest)
