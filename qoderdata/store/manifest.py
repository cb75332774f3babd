"""Which data files of a table count, what do they hold, and whose are they?

``manifest.json`` is replaced in one step, and holds a checksum of itself. One that is damaged, of another format,
or of another account is never used.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003 - msgspec reads these annotations
from typing import TYPE_CHECKING

import msgspec

from qoderdata.errors import CacheError
from qoderdata.store.coverage import Coverage, Segment

if TYPE_CHECKING:
    from qoderdata.files import Folder
    from qoderdata.settings import Account

#: Increases whenever the stored data changes its meaning.
FORMAT = 2
#: Written by version 0.1: no checksums, fewer columns.
OLD_FORMAT = 1
NAME = "manifest.json"


class UnusableManifestError(CacheError):
    """A manifest is damaged, of another format or of another account."""

    #: What it says, where it is of the format of version 0.1.
    old: Manifest | None = None
    #: Whether it is of another account.
    is_foreign: bool = False
    #: Whether a folder lies in its place.
    is_folder: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """What a store holds, and whose it is."""

    table: str
    base_url: str
    workspace_id: str | None
    #: A digest.
    account: str

    @property
    def owner(self) -> Account:
        """The account."""
        return {"base_url": self.base_url, "workspace_id": self.workspace_id, "account": self.account}


@dataclass(frozen=True, slots=True)
class DataFile:
    """One data file."""

    rows: int
    #: The CRC-32 of its bytes, in hexadecimal; empty in the format of version 0.1.
    checksum: str


@dataclass(frozen=True, slots=True)
class OpenRow:
    """A row that may still change."""

    #: The partition that it lies in.
    day: str
    #: When it was last read.
    read_at: datetime


@dataclass(frozen=True, slots=True)
class Manifest:
    """The state of a store."""

    identity: Identity
    #: The number of the last journal entry that is in the data set.
    sequence: int = 0
    #: The data files that count, by their name below ``data``.
    files: dict[str, DataFile] = field(default_factory=dict)
    coverage: Coverage = field(default_factory=Coverage)
    #: The rows that may still change, by their ids; only of a table that asks for them one by one.
    open_rows: dict[str, OpenRow] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The number of rows of the data set."""
        return sum(file.rows for file in self.files.values())


def checksum(content: bytes | memoryview) -> str:
    """Return the CRC-32 of bytes, in hexadecimal."""
    return f"{zlib.crc32(content):08x}"


def unreadable_error(folder: Folder, name: str, error: OSError) -> CacheError:
    """Return the error that a store of a table cannot be read now, which is no reason to give it up."""
    return CacheError(
        f"the store of {name} in {folder.location} cannot be read now ({error.strerror or error}). Nothing in it "
        "was changed: try again later, or use another cache_dir"
    )


def read_manifest(folder: Folder, identity: Identity | None = None) -> Manifest | None:
    """Return a store's manifest, ``None`` where there is none; `identity` is the expected one, ``None``: any.

    Raise `UnusableManifestError` where it cannot be used, and `OSError` where it cannot be read now.
    """
    try:
        content = folder.read(NAME)
    except IsADirectoryError as error:
        in_the_way = UnusableManifestError("its manifest cannot be used (a folder lies in its place)")
        in_the_way.is_folder = True
        raise in_the_way from error
    if content is None:
        return None
    try:
        written = _decode(content.to_pybytes())
    except (ValueError, msgspec.MsgspecError) as error:
        raise UnusableManifestError(f"its manifest cannot be used ({error})") from error
    manifest = written if isinstance(written, Manifest) else written.upgraded()
    if identity is not None and manifest.identity != identity:
        foreign = UnusableManifestError("its manifest cannot be used (it is of another account)")
        foreign.is_foreign = True
        raise foreign
    if not isinstance(written, Manifest):
        old = UnusableManifestError(f"its manifest cannot be used as it is (it is of format {OLD_FORMAT})")
        old.old = manifest
        raise old
    return manifest


def write_manifest(folder: Folder, manifest: Manifest) -> None:
    """Replace a store's manifest, in one step; where the folder cannot be written, the old one counts."""
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    sealed = b'{"format": %d, "checksum": "%b", "content": %b}\n' % (FORMAT, checksum(content).encode(), content)
    folder.replace(NAME, lambda sink: sink.write(sealed))


class _Sealed(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    checksum: str
    content: msgspec.Raw


class _AnyFormat(msgspec.Struct):
    format: int


def _decode(content: bytes) -> Manifest | _OldManifest:
    version = msgspec.json.decode(content, type=_AnyFormat).format
    if version == OLD_FORMAT:
        return msgspec.json.decode(content, type=_OldManifest)
    if version != FORMAT:
        raise ValueError(f"it is of format {version}, not {FORMAT}")
    sealed = msgspec.json.decode(content, type=_Sealed)
    if sealed.checksum != checksum(bytes(sealed.content)):
        raise ValueError("it is damaged")
    return msgspec.json.decode(sealed.content, type=Manifest)


class _OldSegment(msgspec.Struct):
    read_at: datetime
    marks: tuple[str, ...]
    cursor: str | None
    reaches: datetime | None = None
    steps: tuple[tuple[str, datetime | None], ...] = ()


class _OldCoverage(msgspec.Struct):
    stretches: tuple[_OldSegment, ...] = ()


class _OldManifest(msgspec.Struct):
    """The manifest of version 0.1."""

    base_url: str
    workspace_id: str | None
    account: str
    format: int
    sequence: int
    files: dict[str, int]
    coverage: _OldCoverage
    open_runs: dict[str, OpenRow]

    def upgraded(self) -> Manifest:
        """Return the same as a manifest of today; the files are still the old ones."""
        segments = (
            Segment(old.read_at, old.marks, old.cursor, old.reaches, old.steps) for old in self.coverage.stretches
        )
        return Manifest(
            Identity("runs", self.base_url, self.workspace_id, self.account),
            self.sequence,
            {name: DataFile(rows, "") for name, rows in self.files.items()},
            Coverage(tuple(segments)),
            self.open_runs,
        )
