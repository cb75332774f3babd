"""Whole files or none: write beside, check, rename; private permissions; locks; the same on an object store.

On a local disk a file is written under a temporary name in the same folder, flushed to the disk and renamed
over its target, so that a reader sees the old file or the new one. An object store has no rename, but an
upload appears only when it is complete: there the bytes are made first and sent in one upload, and one that
breaks off leaves the old object. Listings are never remembered, since other machines write too. What is in a file
is its writer's business.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from qoderdata.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_PRIVATE_FILE = 0o600
_PRIVATE_FOLDER = 0o700
_TEMPORARY = ".tmp"
_LOCK = ".lock"


def replace(path: str | Path, write: Callable[[pa.NativeFile], object], *, private: bool = False) -> None:
    """Write a local file so that it is there whole or not at all.

    Parameters
    ----------
    path
        The target. A file that is there stays until the new one is whole.
    write
        Called with an open binary file. What it raises is raised on, and the target is untouched.
    private
        Readable by the user alone; else as the umask has it.

    Raises
    ------
    OSError
        The folder is not there or cannot be written.
    """
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}{_TEMPORARY}")
    try:
        descriptor = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE_FILE if private else 0o666)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(target.parent)) from None
    os.close(descriptor)
    try:
        with pa.OSFile(str(beside), "wb") as sink:
            write(sink)
        with beside.open("rb+") as handle:
            os.fsync(handle.fileno())
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


class Folder:
    """A folder of files, on this machine or at a URL that pyarrow or fsspec opens.

    Making one touches nothing; a folder comes to be with its first file, private to the user.

    Parameters
    ----------
    location
        A path, or a URL such as ``s3://bucket/folder`` or ``memory://folder``; ``file:///folder`` is a path too.

    Attributes
    ----------
    location : str
        As given, in full.
    filesystem : pyarrow.fs.FileSystem
        What opens `path`.
    path : str
        The folder's path in `filesystem`.

    Raises
    ------
    CacheError
        Nothing here opens such a URL.
    """

    def __init__(self, location: str | Path) -> None:
        self.location = str(location)
        is_url, is_file = "://" in self.location, self.location.startswith("file://")
        self.local = is_file or not is_url
        self._remote: Any = None
        if self.local:
            self.filesystem: fs.FileSystem = fs.LocalFileSystem()
            self.path = str(Path(_file_path(self.location) if is_file else self.location).absolute())
        else:
            self.filesystem, self.path, self._remote = _open_url(self.location)

    def __repr__(self) -> str:
        return f"Folder({self.location!r})"

    def folder(self, name: str) -> Folder:
        """Give the folder below this one; nothing is created."""
        return Folder(f"{self.location.rstrip('/')}/{name}")

    def full(self, name: str) -> str:
        """Give the path, in `filesystem`, of a file below this folder."""
        return f"{self.path.rstrip('/')}/{name}"

    def replace(self, name: str, write: Callable[[pa.NativeFile], object]) -> None:
        """Write a file below this folder, whole or not at all, private to the user.

        Parameters
        ----------
        name
            Its path below the folder; folders on the way are created.
        write
            Called with an open binary file. What it raises is raised on, and an old file stays.

        Raises
        ------
        OSError
            The folder cannot be written.
        """
        path = self.full(name)
        if self.local:
            _make_private(Path(path).parent)
            replace(path, write, private=True)
            return
        sink = pa.BufferOutputStream()
        write(sink)
        with self.naming_failure():
            if self._remote is not None:
                self._remote.pipe_file(path, sink.getvalue().to_pybytes())
                return
            with self.filesystem.open_output_stream(path) as upload:
                upload.write(sink.getvalue())

    def read(self, name: str) -> pa.Buffer | None:
        """Give a file's bytes, or ``None`` where there is no such file."""
        path = self.full(name)
        try:
            with self.naming_failure():
                if self._remote is not None:
                    return pa.py_buffer(self._remote.cat_file(path))
                with self.filesystem.open_input_file(path) as source:
                    return source.read_buffer()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def files(self, below: str = "") -> list[fs.FileInfo]:
        """List the files under a folder below this one, at any depth; temporary ones and locks left out."""
        base = self.full(below) if below else self.path
        with self.naming_failure():
            infos = self._list(base)
        return [
            info
            for info in infos
            if info.type == fs.FileType.File and not info.base_name.endswith((_TEMPORARY, _LOCK))
        ]

    def remove(self, name: str) -> None:
        """Remove a file below this folder; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError), self.naming_failure():
            self.filesystem.delete_file(self.full(name))

    def sweep(self) -> None:
        """Remove what killed writers left half-written below this folder; call it where nobody else writes."""
        if self.local:
            for beside in Path(self.path).rglob(f".*{_TEMPORARY}"):
                beside.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self, name: str, *, timeout: float = -1) -> Iterator[None]:
        """Hold a lock that other processes on this machine respect; an object store has none.

        Parameters
        ----------
        name
            The lock's name; its file lies in this folder.
        timeout
            Seconds to wait for another holder; -1 waits for ever.

        Raises
        ------
        CacheError
            Another process held it all the time.
        OSError
            The folder cannot be written.
        """
        import filelock  # noqa: PLC0415 - slow to import, and only runs need it

        if not self.local:
            yield
            return
        _make_private(Path(self.path))
        path = self.full(name + _LOCK)
        try:
            with filelock.FileLock(path, timeout=timeout, mode=_PRIVATE_FILE):
                yield
        except filelock.Timeout as error:
            raise CacheError(f"another process holds {path}; try again when it has finished") from error

    def _list(self, base: str) -> list[fs.FileInfo]:
        if self._remote is None:
            return self.filesystem.get_file_info(fs.FileSelector(base, allow_not_found=True, recursive=True))
        # pyarrow's view of fsspec asks three times as often, and does not tell when an object was written.
        try:
            found = self._remote.find(base, detail=True)
        except FileNotFoundError:
            return []
        return [
            fs.FileInfo(path, fs.FileType.File, size=facts["size"], mtime=_written_at(facts))
            for path, facts in found.items()
            if facts["type"] == "file"
        ]

    @contextlib.contextmanager
    def naming_failure(self) -> Iterator[None]:
        """Turn what an object store's client raises into an `OSError`, as a disk does."""
        try:
            yield
        except Exception as error:
            if self.local or isinstance(error, OSError):
                raise
            raise OSError(f"{self.location} cannot be reached: {error}") from error


def _written_at(facts: Mapping[str, Any]) -> datetime | None:
    """Find when an object was written; each store has a word of its own for it."""
    times = (facts.get(name) for name in ("mtime", "LastModified", "last_modified", "updated", "created"))
    return next((time for time in times if isinstance(time, datetime)), None)


def _make_private(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):  # `mkdir` itself makes private only the last one
        path.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)


def _file_path(url: str) -> str:
    from urllib.request import url2pathname  # noqa: PLC0415 - heavy, and only where such a URL is given

    return url2pathname(urlsplit(url).path)


def _open_url(url: str) -> tuple[fs.FileSystem, str, Any]:
    """Open a URL: pyarrow's view of it, the path in that, and fsspec's own view where there is one."""
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415 - only where a URL is given
    except ImportError:
        try:
            return *fs.FileSystem.from_uri(url), None
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise CacheError(f"nothing here opens {url}: install fsspec and the package for that store") from error
    try:
        opened, path = url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise CacheError(f"nothing here opens {url}: {error}") from error
    return fs.PyFileSystem(fs.FSSpecHandler(opened)), path, opened  # type: ignore[abstract]
