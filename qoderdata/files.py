"""Write files whole or not at all, private to the user and under locks, on a local disk or an object store.

On a local disk a file is written under a temporary name in the same folder, flushed to the disk and renamed
over its target, so that a reader sees the old file or the new one. An object store has no rename, but an
upload appears only when it is complete: there the bytes are made first and sent in one upload, and an upload that
breaks off leaves the old object. Listings are never cached, since other machines write too.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from qoderdata.errors import CacheError, CacheWarning, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import filelock

_PRIVATE_FILE = 0o600
_NEW_FILE = 0o666
_PRIVATE_FOLDER = 0o700
_TEMPORARY = ".tmp"
#: How long a writer may need a file that is not complete, or that no manifest names yet.
LEFTOVER_AGE = timedelta(hours=1)
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_LOCK = ".lock"
#: Seconds of waiting for a lock after which a process warns, and seconds without a renewal after which it stops
#: waiting.
LOCK_NOTICE = 1.0
LOCK_PATIENCE = 120.0
#: Seconds between two renewals of a lock.
LOCK_RENEWAL = 15.0
#: Paths that name an open file of this process.
_OWN_DESCRIPTOR = re.compile(r"/dev/(stdout|stderr)|/(?:dev|proc/self)/fd/(\d+)")
#: How many characters of a file's name its temporary file repeats, so that the whole name fits into 255 bytes.
_REPEATED = 40
_DIGEST_LENGTH = 24


def check_ending(path: str | Path, endings: Sequence[str], *, what: str) -> None:
    """Raise `ValueError` unless a file's name ends in a way that fits what is written to it.

    A name without an ending passes, and so does a path that is there and is no regular file. Raise `TypeError` for
    what is no path.

    Examples
    --------
    >>> check_ending("fleet.pdf", [".html", ".htm"], what="a report is an HTML page")
    Traceback (most recent call last):
    ValueError: 'fleet.pdf': a report is an HTML page; give a name that ends in .html or .htm
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path is a {type(path).__name__}; give the name of a file, after the frame")
    name = Path(path).name
    fits = name.lower().endswith(tuple(endings))
    if not fits and Path(name).suffix and not _is_special(Path(path)):
        raise ValueError(f"{str(path)!r}: {what}; give a name that ends in {' or '.join(endings)}")


def digest(facts: object) -> str:
    """Return a digest of facts that JSON can hold, which names a file or folder.

    Examples
    --------
    >>> digest({"kind": "deployments", "status": "active"})
    '127314c0eaa43cf2772ab830'
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:_DIGEST_LENGTH]


def policy_digest(text: str) -> str:
    """Return the digest of a style or script as the Content-Security-Policy of an HTML page names it.

    Examples
    --------
    >>> policy_digest("")
    '47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='
    """
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def replace(
    path: str | Path, write: Callable[[pa.NativeFile], object], *, private: bool = False, durable: bool = True
) -> None:
    """Write a local file so that it is there whole or not at all; what `write` raises leaves it untouched.

    A file that is there keeps its mode; one that its owner may not write raises `PermissionError`. If a symbolic
    link is there, its target is replaced. A pipe, a terminal or another character device is written to once the
    content is complete. `private`: replace whatever is there, links too, by a file that only the user can read.
    `durable`: wait until the disk has the content, so that no power cut leaves an empty file.
    """
    try:
        given = Path(path).expanduser()
    except RuntimeError:
        raise FileNotFoundError(errno.ENOENT, "there is no home folder of this user", str(path)) from None
    if not private and _is_special(given):
        _write_through(given, write)
        return
    target = given if private else Path(os.path.realpath(given))
    old = None if private else _status(target)
    mode = _PRIVATE_FILE if private else _NEW_FILE if old is None else stat.S_IMODE(old.st_mode)
    if not mode & stat.S_IWUSR:
        raise PermissionError(errno.EACCES, "the file is read-only", str(target))
    temporary = target.with_name(f".{target.name[:_REPEATED]}.{os.getpid()}-{secrets.token_hex(4)}{_TEMPORARY}")
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    except FileNotFoundError:
        if target.parent.is_dir():  # as in `/proc`
            message = "no file can be written to the folder"
            raise PermissionError(errno.EACCES, message, str(target.parent)) from None
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(target.parent)) from None
    try:
        with os.fdopen(descriptor, "wb"):
            if old is not None:
                _keep_owner_and_mode(temporary, old)
            with pa.OSFile(str(temporary), "wb") as sink:
                write(sink)
            if durable:
                os.fsync(descriptor)
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.add_note(f"({target} was not written)")
        raise


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_special(path: Path) -> bool:
    """Return whether a path is an existing folder, pipe, socket or device, or an open descriptor."""
    if _OWN_DESCRIPTOR.fullmatch(str(path)):
        return True
    status = _status(path)
    return status is not None and not stat.S_ISREG(status.st_mode)


def _write_through(path: Path, write: Callable[[pa.NativeFile], object]) -> None:
    """Write to a pipe, a character device or an open descriptor, once the content is complete."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "this is a folder; give the name of a file", str(path))
    if stat.S_ISSOCK(status.st_mode) or stat.S_ISBLK(status.st_mode):
        raise OSError(errno.EINVAL, "this is a socket or a disk; give the name of a file", str(path))
    with tempfile.NamedTemporaryFile() as content:
        with pa.OSFile(content.name, "wb") as sink:
            write(sink)
        try:
            with _open_in_place(path) as target:
                shutil.copyfileobj(content, target)
        except OSError as error:
            error.filename = error.filename or str(path)
            raise


def _open_in_place(path: Path) -> IO[bytes]:
    """Open a special file for writing; an open descriptor of this process keeps its position."""
    own = _OWN_DESCRIPTOR.fullmatch(str(path))
    if own is None:
        return path.open("wb")
    sys.stdout.flush()  # so that earlier output comes first
    name, number = own.groups()
    return os.fdopen(os.dup(int(number) if number else {"stdout": 1, "stderr": 2}[name]), "wb")


def _keep_owner_and_mode(path: Path, old: os.stat_result) -> None:
    if hasattr(os, "geteuid") and (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        with contextlib.suppress(OSError):  # only root may give a file away
            os.chown(path, old.st_uid, old.st_gid)
    path.chmod(stat.S_IMODE(old.st_mode))


class Folder:
    """A folder of files: a path, or a URL that pyarrow or fsspec opens, such as ``s3://bucket/folder``.

    Creating the object reads and writes nothing; the folder is created with its first file, private to the user.
    Raise `CacheError` if no installed package opens the URL. `path` is the folder's path in `filesystem`.
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
        """Return the folder below this one; nothing is created."""
        return Folder(f"{self.location.rstrip('/')}/{name}")

    def path_of(self, name: str) -> str:
        """Return the path, in `filesystem`, of a file below this folder."""
        return f"{self.path.rstrip('/')}/{name}"

    def replace(self, name: str, write: Callable[[pa.NativeFile], object], *, durable: bool = True) -> None:
        """Write a file below this folder, whole or not at all, private to the user.

        Folders on the way are created. What `write` raises is raised on, and an old file stays. An object store is
        always waited for.
        """
        path = self.path_of(name)
        if self.local:
            _make_private(Path(path).parent)
            replace(path, write, private=True, durable=durable)
            return
        sink = pa.BufferOutputStream()
        write(sink)
        with self._raising_os_error():
            if self._remote is not None:
                self._remote.pipe_file(path, sink.getvalue().to_pybytes())
                return
            with self.filesystem.open_output_stream(path) as upload:
                upload.write(sink.getvalue())

    def read(self, name: str) -> pa.Buffer | None:
        """Return a file's bytes, or ``None`` if there is no such file.

        Raise `IsADirectoryError` if a folder has its name, and `OSError` if it cannot be read now.
        """
        path = self.path_of(name)
        if self.local and Path(path).is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder has the name of the file", path)
        try:
            with self._raising_os_error():
                if self._remote is not None:
                    return pa.py_buffer(self._remote.cat_file(path))
                with self.filesystem.open_input_file(path) as source:
                    return source.read_buffer()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def open_file(self, name: str) -> pa.NativeFile | None:
        """Return an open file, or ``None`` if there is no such file; of an object store it is read whole."""
        if not self.local:
            content = self.read(name)
            return None if content is None else pa.BufferReader(content)
        try:
            return self.filesystem.open_input_file(self.path_of(name))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def files(self, below: str = "") -> list[fs.FileInfo]:
        """List the files below this folder, or a folder in it, at any depth, without temporary files and locks."""
        base = self.path_of(below) if below else self.path
        with self._raising_os_error():
            infos = self._list(base)
        return [
            info
            for info in infos
            if info.type == fs.FileType.File and not info.base_name.endswith((_TEMPORARY, _LOCK))
        ]

    def parquet_files(self) -> list[fs.FileInfo]:
        """List the Parquet files below this folder, at any depth."""
        return [info for info in self.files() if info.extension == "parquet"]

    def folders(self) -> list[str]:
        """Return the names of the folders in this folder, in order."""
        with self._raising_os_error():
            infos = self.filesystem.get_file_info(fs.FileSelector(self.path, allow_not_found=True))
        return sorted(info.base_name for info in infos if info.type == fs.FileType.Directory)

    def clear(self) -> int:
        """Remove the Parquet files below this folder, and return how many there were.

        Temporary files of writers that were killed are removed too, and folders that are empty then. A process
        that writes at that moment loses its file.
        """
        paths = [info.path for info in self.parquet_files()]
        self.remove_temporary_files()
        self.delete(paths)
        if self.local:
            for emptied in (*{Path(path).parent for path in paths}, Path(self.path)):
                with contextlib.suppress(OSError):
                    emptied.rmdir()
        return len(paths)

    def remove(self, name: str) -> None:
        """Remove a file below this folder; one that is not there is no error."""
        self.delete([self.path_of(name)])

    def delete(self, paths: Iterable[str]) -> None:
        """Remove files, given by their paths in `filesystem`; one that is not there is no error."""
        for path in paths:
            with contextlib.suppress(FileNotFoundError), self._raising_os_error():
                self.filesystem.delete_file(path)

    def remove_all(self) -> None:
        """Remove this folder and all that is in it; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError), self._raising_os_error():
            self.filesystem.delete_dir(self.path)

    def move(self, name: str, to: str) -> bool:
        """Move a file below this folder, or what lies in its place, and return whether there was anything."""
        if self.local:
            target = Path(self.path_of(to))
            _make_private(target.parent)
            try:
                Path(self.path_of(name)).rename(target)
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True
        content = self.read(name)
        if content is None:
            return False
        self.replace(to, lambda sink: sink.write(content))
        self.remove(name)
        return True

    def remove_temporary_files(self, *, others_write: bool = False) -> None:
        """Remove the temporary files of writers that were killed; if others may write, only old ones."""
        if not self.local:
            return
        written_before = time.time() - LEFTOVER_AGE.total_seconds() if others_write else math.inf
        for temporary in Path(self.path).rglob(f".*{_TEMPORARY}"):
            with contextlib.suppress(OSError):
                if temporary.lstat().st_mtime < written_before:
                    temporary.unlink()

    @contextlib.contextmanager
    def lock(self, name: str, *, timeout: float | None = None) -> Iterator[None]:
        """Hold a lock that other processes on this machine respect; an object store has none.

        A thread renews it, also while this process waits for the service, but not while the process is stopped.
        `timeout`: seconds to wait for another holder. ``None``: wait as long as the holder renews the lock, with a
        warning after a second, and give up after `LOCK_PATIENCE` seconds without a renewal. Raise `CacheError`
        if another process holds the lock.
        """
        import filelock  # noqa: PLC0415 - slow to import, and only stores need it

        if not self.local:
            yield
            return
        _make_private(Path(self.path))
        path = Path(self.path_of(name + _LOCK))
        lock = filelock.FileLock(path, mode=_PRIVATE_FILE)
        try:
            lock.acquire(timeout=LOCK_NOTICE if timeout is None else timeout)
        except filelock.Timeout as error:
            if timeout is not None:
                raise CacheError(f"another process holds {path}; try again when it has finished") from error
            _wait_for(lock, path)
        try:
            with _renewing(path):
                yield
        finally:
            lock.release()

    def describe_write_failure(self, error: BaseException) -> str:
        """Return a message: this folder cannot be written, the reason, and what to do."""
        reason = (isinstance(error, OSError) and error.strerror) or error
        advice = "Set QODERDATA_CACHE_DIR or cache_dir to a folder that can be written"
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            advice = "Free some space, or set QODERDATA_CACHE_DIR or cache_dir to a folder on another disk"
        return f"{self.location} cannot be written ({reason}). {advice}"

    @contextlib.contextmanager
    def raising_cache_error(self, what: str, *, is_deleted: bool = False) -> Iterator[None]:
        """Turn an `OSError` into a `CacheError` that says what cannot be read now, or cannot be deleted."""
        fault, advice = "read now", "Try again later, or use another cache_dir"
        if is_deleted:
            fault, advice = "deleted", "Make the folder writable, or clear the cache as the user who owns it"
        try:
            yield
        except OSError as error:
            if isinstance(error, PermissionError) and not is_deleted:
                advice = "Call as the user who owns the folder, or use another cache_dir"
            raise CacheError(
                f"the {what} in {self.location} cannot be {fault} ({error.strerror or error}). {advice}"
            ) from error

    def _list(self, base: str) -> list[fs.FileInfo]:
        if self._remote is None:
            return self.filesystem.get_file_info(fs.FileSelector(base, allow_not_found=True, recursive=True))
        # pyarrow's view of fsspec asks three times as often.
        try:
            found = self._remote.find(base, detail=True)
        except FileNotFoundError:
            return []
        return [
            fs.FileInfo(path, fs.FileType.File, size=facts["size"])
            for path, facts in found.items()
            if facts["type"] == "file"
        ]

    @contextlib.contextmanager
    def _raising_os_error(self) -> Iterator[None]:
        """Turn what an object store's client raises into an `OSError`, as a disk does."""
        try:
            yield
        except Exception as error:
            if self.local or isinstance(error, OSError):
                raise
            raise OSError(f"{self.location} cannot be reached: {error}") from error


def _wait_for(lock: filelock.BaseFileLock, path: Path) -> None:
    """Warn, and wait for a lock as long as its holder renews it."""
    from filelock import Timeout  # noqa: PLC0415 - as in `Folder.lock`

    warn(f"waiting for another process, which holds {path}", CacheWarning)
    seen, since = _touched_at(path), time.monotonic()
    while time.monotonic() - since < LOCK_PATIENCE:
        try:
            lock.acquire(timeout=LOCK_NOTICE)
        except Timeout:
            if (touched := _touched_at(path)) != seen:
                seen, since = touched, time.monotonic()
        else:
            return
    raise CacheError(
        f"another process holds {path} and has done nothing for {LOCK_PATIENCE:.0f} s. It seems to be stopped: "
        "continue or end it, then try again"
    )


@contextlib.contextmanager
def _renewing(path: Path) -> Iterator[None]:
    """Renew a lock from another thread."""
    is_released = threading.Event()

    def renew() -> None:
        while not is_released.wait(LOCK_RENEWAL):
            with contextlib.suppress(OSError):
                os.utime(path)

    threading.Thread(target=renew, name="qoderdata-lock", daemon=True).start()
    try:
        yield
    finally:
        is_released.set()


def _touched_at(path: Path) -> int | None:
    """Return the access time of a lock, which its holder renews.

    The time of change cannot be used: with older versions of filelock, each attempt to take the lock sets it.
    """
    try:
        return path.stat().st_atime_ns
    except OSError:
        return None


def _make_private(folder: Path) -> None:
    missing = itertools.takewhile(lambda path: not path.exists(), (folder, *folder.parents))
    for path in reversed(list(missing)):  # `mkdir` itself makes private only the last one
        path.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)


def _file_path(url: str) -> str:
    from urllib.request import url2pathname  # noqa: PLC0415 - heavy, and only if such a URL is given

    return url2pathname(urlsplit(url).path)


def _open_url(url: str) -> tuple[fs.FileSystem, str, Any]:
    """Open a URL; return pyarrow's file system, the path in it, and fsspec's file system or ``None``."""
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415 - only if a URL is given
    except ImportError:
        try:
            return *fs.FileSystem.from_uri(url), None
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise CacheError(
                f"no installed package opens {url}: install fsspec and the package for that store"
            ) from error
    try:
        opened, path = url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise CacheError(f"no installed package opens {url}: {error}") from error
    return fs.PyFileSystem(fs.FSSpecHandler(opened)), path, opened  # type: ignore[abstract]
