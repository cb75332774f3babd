"""Tests of `qoderdata.files`: atomic replacement, special files, file name suffixes, folders and locks."""

from __future__ import annotations

import builtins
import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from qoderdata.errors import CacheError
from qoderdata.files import Folder, check_ending, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa


def writer_of(data: bytes) -> Callable[[pa.NativeFile], object]:
    """Return a function that writes these bytes."""
    return lambda sink: sink.write(data)


def write_and_raise(sink: pa.NativeFile) -> None:
    """Write some bytes, then raise `KeyboardInterrupt`."""
    sink.write(b"half of")
    raise KeyboardInterrupt


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def umask() -> Iterator[None]:
    old = os.umask(0o022)
    yield
    os.umask(old)


class TestReplace:
    def test_new_file_is_written(self, tmp_path: Path) -> None:
        replace(tmp_path / "file", writer_of(b"new"))
        assert (tmp_path / "file").read_bytes() == b"new"

    def test_existing_file_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"something longer")
        replace(str(tmp_path / "file"), writer_of(b"new"))
        assert (tmp_path / "file").read_bytes() == b"new"

    def test_old_file_is_unchanged_during_the_write(self, tmp_path: Path) -> None:
        target = tmp_path / "file"
        target.write_bytes(b"old")
        seen = []

        def write(sink: pa.NativeFile) -> None:
            sink.write(b"new")
            seen.append(target.read_bytes())

        replace(target, write)
        assert seen == [b"old"]

    @pytest.mark.parametrize("old", [None, b"old"])
    def test_failed_write_leaves_the_old_file(self, tmp_path: Path, old: bytes | None) -> None:
        """Temporary files are also removed after `KeyboardInterrupt`, which is no `Exception`."""
        folder = tmp_path / "out"
        folder.mkdir()
        if old is not None:
            (folder / "file").write_bytes(old)
        before = {path: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(KeyboardInterrupt):
            replace(folder / "file", write_and_raise)
        assert {path: path.read_bytes() for path in folder.iterdir()} == before

    @pytest.mark.parametrize("kept", [0o600, 0o640, 0o664, 0o755])
    @pytest.mark.usefixtures("umask")
    def test_mode_of_the_old_file_is_kept(self, tmp_path: Path, kept: int) -> None:
        target = tmp_path / "file"
        target.write_bytes(b"old")
        target.chmod(kept)
        replace(target, writer_of(b"new"))
        assert (mode(target), target.read_bytes()) == (kept, b"new")

    def test_read_only_file_is_left_as_it_is(self, tmp_path: Path) -> None:
        """Also by root, who could write it."""
        target = tmp_path / "file"
        target.write_bytes(b"old")
        target.chmod(0o444)
        with pytest.raises(PermissionError, match=r"the file is read-only: '.*file'$"):
            replace(target, writer_of(b"new"))
        assert [(path.name, mode(path), path.read_bytes()) for path in tmp_path.iterdir()] == [
            ("file", 0o444, b"old")
        ]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the owner of a file")
    def test_owner_of_the_old_file_is_kept(self, tmp_path: Path) -> None:
        target = tmp_path / "file"
        target.write_bytes(b"old")
        os.chown(target, 65534, 65534)
        replace(target, writer_of(b"new"))
        assert (target.stat().st_uid, target.stat().st_gid) == (65534, 65534)

    @pytest.mark.parametrize("exists", [True, False])
    def test_symbolic_link_is_followed(self, tmp_path: Path, *, exists: bool) -> None:
        (tmp_path / "real").mkdir()
        target, link, second = tmp_path / "real" / "file", tmp_path / "link", tmp_path / "second"
        if exists:
            target.write_bytes(b"old")
        link.symlink_to("real/file")
        second.symlink_to(link)
        replace(second, writer_of(b"new"))
        assert target.read_bytes() == b"new"
        assert link.is_symlink()
        assert second.is_symlink()
        assert [path.name for path in target.parent.iterdir()] == ["file"]

    def test_private_file_replaces_a_symbolic_link(self, tmp_path: Path) -> None:
        """Otherwise a link in the cache could overwrite a file of the user."""
        (tmp_path / "mine").write_bytes(b"mine")
        (tmp_path / "link").symlink_to("mine")
        replace(tmp_path / "link", writer_of(b"new"), private=True)
        assert (tmp_path / "mine").read_bytes() == b"mine"
        assert (tmp_path / "link").read_bytes() == b"new"

    def test_home_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        replace("~/file", writer_of(b"new"))
        assert (tmp_path / "file").read_bytes() == b"new"

    def test_file_name_of_maximum_length(self, tmp_path: Path) -> None:
        replace(tmp_path / ("表" * 85), writer_of(b"new"))
        assert [path.read_bytes() for path in tmp_path.glob("表*")] == [b"new"]

    @pytest.mark.parametrize(("private", "expected"), [(True, 0o600), (False, 0o644)])
    @pytest.mark.usefixtures("umask")
    def test_permissions_during_and_after_the_write(self, tmp_path: Path, *, private: bool, expected: int) -> None:
        """The temporary file has these permissions too, whatever those of the old file are."""
        target = tmp_path / "file"
        target.touch(0o666)
        seen: list[int] = []

        def write(sink: pa.NativeFile) -> None:
            sink.write(b"x")
            seen.extend(mode(path) for path in tmp_path.glob(".file.*"))

        replace(target, write, private=private)
        assert [*seen, mode(target)] == [expected, expected]

    def test_missing_folder_raises_file_not_found_error(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no such folder.*nowhere'$"):
            replace(tmp_path / "nowhere" / "file", writer_of(b"x"))
        assert not (tmp_path / "nowhere").exists()

    def test_folder_of_the_same_name_raises_os_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").mkdir()
        with pytest.raises(OSError, match="file"):
            replace(tmp_path / "file", writer_of(b"x"))
        assert not list(tmp_path.glob(".file*"))

    def test_concurrent_writers_use_separate_temporary_files(self, tmp_path: Path) -> None:
        def write(sink: pa.NativeFile) -> None:
            replace(tmp_path / "file", writer_of(b"inner"))
            sink.write(b"outer")

        replace(tmp_path / "file", write)
        assert (tmp_path / "file").read_bytes() == b"outer"
        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["file"]

    def test_killed_writer_leaves_the_old_file(self, tmp_path: Path) -> None:
        """The temporary file of the killed writer is not listed, and `remove_temporary_files` removes it."""
        target = tmp_path / "files" / "file"
        target.parent.mkdir()
        target.write_bytes(b"old")
        program = f"""
            from qoderdata.files import replace
            def write(sink):
                sink.write(b"half of")
                sink.flush()
                print("writing", flush=True)
                input()
            replace({str(target)!r}, write)
        """
        command = [sys.executable, "-c", textwrap.dedent(program)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"writing\n"
            process.send_signal(signal.SIGKILL)
        assert target.read_bytes() == b"old"
        folder = Folder(target.parent)
        assert len(list(target.parent.iterdir())) == 2
        assert [info.base_name for info in folder.files()] == ["file"]
        folder.remove_temporary_files()
        assert list(target.parent.iterdir()) == [target]


class TestSpecialFiles:
    """A device, a pipe or a socket is never replaced by a file; devices and pipes are written to."""

    def test_pipe_is_written_to(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        data = bytes(range(256)) * 4096  # more than the buffer of a pipe
        program = (
            "import pathlib, sys; pathlib.Path(sys.argv[2]).write_bytes(pathlib.Path(sys.argv[1]).read_bytes())"
        )
        with subprocess.Popen([sys.executable, "-c", program, pipe, tmp_path / "copy"]):
            replace(pipe, writer_of(data))
        found = (tmp_path / "copy").read_bytes()
        assert found == data
        assert stat.S_ISFIFO(pipe.stat().st_mode)

    def test_failed_write_sends_nothing_to_a_pipe(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        with pytest.raises(KeyboardInterrupt):
            replace(pipe, write_and_raise)
        assert os.read(reader, 100) == b""
        os.close(reader)

    def test_character_device_is_written_to(self, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(os.devnull)
        for path in (os.devnull, link):
            replace(path, writer_of(b"new"))
        assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
        assert link.is_symlink()

    def test_socket_raises_os_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)  # the path of a socket has at most 107 bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
            with pytest.raises(OSError, match="a socket or a disk"):
                replace("socket", writer_of(b"new"))
        assert stat.S_ISSOCK((tmp_path / "socket").stat().st_mode)

    @pytest.mark.parametrize(
        ("stream", "names"),
        [("stdout", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]), ("stderr", ["/dev/stderr", "/dev/fd/2"])],
        ids=["stdout", "stderr"],
    )
    @pytest.mark.parametrize("into", ["file", "pipe"])
    def test_output_to_standard_streams_keeps_the_order(
        self, tmp_path: Path, stream: str, names: list[str], into: str
    ) -> None:
        """Text printed before and after is kept, also where the shell redirects the output to a file."""
        program = f"""
            import sys
            from qoderdata.files import replace
            for name in {names}:
                print("before", name, file=sys.{stream})
                replace(name, lambda sink: sink.write(b"new\\n"))
                print("after", name, file=sys.{stream})
        """
        out = tmp_path / "out"
        with out.open("wb") as handle:
            target = handle if into == "file" else subprocess.PIPE
            done = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(program)],
                stdout=target, stderr=subprocess.STDOUT, check=True, timeout=60,
                env=os.environ | {"PYTHONUNBUFFERED": ""},  # so that printed text waits in the buffer
            )  # fmt: skip
        written = out.read_bytes() if into == "file" else done.stdout
        assert written.decode() == "".join(f"before {name}\nnew\nafter {name}\n" for name in names)


def test_full_disk_error_names_the_file(tmp_path: Path) -> None:
    """The error of Arrow has no file name."""
    write = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match="No space") as caught:
        replace(tmp_path / "file.csv", write)
    assert caught.value.__notes__ == [f"({tmp_path / 'file.csv'} was not written)"]
    assert list(tmp_path.iterdir()) == []


class TestCheckEnding:
    @pytest.mark.parametrize("name", ["a.html", "A.HTM", "of 2026.06.html", "no ending", ".html", "/dev/stdout"])
    def test_valid_file_names(self, name: str) -> None:
        check_ending(name, [".html", ".htm"], what="a report is an HTML page")

    @pytest.mark.parametrize("name", ["a.pdf", "a.html.gz", "a.html~.bak", "a.htmlx"])
    def test_invalid_suffix_raises_value_error(self, name: str) -> None:
        with pytest.raises(ValueError, match=rf"{name}.*a name that ends in \.html or \.htm$"):
            check_ending(name, [".html", ".htm"], what="a report is an HTML page")

    def test_path_of_another_type_raises_type_error(self) -> None:
        """Users may swap the arguments: `write_report("report.html", df)`."""
        with pytest.raises(TypeError, match="path is a list; give the name of a file"):
            check_ending([], [".html"], what="a report is an HTML page")  # type: ignore[arg-type]


@pytest.fixture(params=["local", "url"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, clean_memory: None) -> Folder:
    """Return a folder that does not exist yet."""
    del clean_memory  # needed only for its effect
    return Folder(tmp_path / "cache" / "inner" if request.param == "local" else "memory://cache/inner")


def text(folder: Folder, name: str) -> bytes | None:
    found = folder.read(name)
    return None if found is None else found.to_pybytes()


class TestFolder:
    def test_missing_folder_is_empty_and_is_not_created(self, folder: Folder) -> None:
        """Reading does not create the folder."""
        assert folder.read("a") is None
        assert folder.files() == []
        assert folder.files("below") == []
        folder.remove("a")
        folder.remove_temporary_files()
        assert not (folder.local and Path(folder.location).exists())

    def test_written_files_are_read_and_listed(self, folder: Folder) -> None:
        folder.replace("a", writer_of(b"1"))
        folder.replace("below/deep/b", writer_of(b"2"))
        folder.replace("a", writer_of(b"3"))
        assert text(folder, "a") == b"3"
        assert text(folder, "below/deep/b") == b"2"
        assert text(folder.folder("below").folder("deep"), "b") == b"2"
        assert sorted(info.base_name for info in folder.files()) == ["a", "b"]
        assert [info.base_name for info in folder.files("below")] == ["b"]
        assert {info.path for info in folder.files()} == {folder.path_of("a"), folder.path_of("below/deep/b")}

    def test_removed_file_is_absent(self, folder: Folder) -> None:
        folder.replace("a", writer_of(b"1"))
        folder.remove("a")
        assert folder.read("a") is None
        assert folder.files() == []

    def test_failed_write_in_a_folder_leaves_the_old_file(self, folder: Folder) -> None:
        folder.replace("a", writer_of(b"old"))
        with pytest.raises(KeyboardInterrupt):
            folder.replace("a", write_and_raise)
        assert text(folder, "a") == b"old"
        assert len(folder.files()) == 1

    def test_repr_and_location(self, folder: Folder) -> None:
        assert repr(folder) == f"Folder({folder.location!r})"
        assert folder.folder("x").location == folder.location + "/x"

    def test_lock_file_is_not_listed(self, folder: Folder) -> None:
        """`files` does not list the lock file. An object store has no lock."""
        with folder.lock("runs"):
            assert folder.files() == []


@pytest.mark.usefixtures("umask")
def test_local_folder_is_private(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "cache")
    folder.replace("below/a", writer_of(b"1"))
    with folder.lock("runs"):
        assert mode(tmp_path / "cache") == 0o700
    assert mode(tmp_path / "cache" / "below") == 0o700
    assert mode(tmp_path / "cache" / "below" / "a") == 0o600


def test_second_lock_in_this_process_raises(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "cache")
    with (
        folder.lock("runs"),
        pytest.raises(CacheError, match=r"another process holds .*runs\.lock"),
        Folder(tmp_path / "cache").lock("runs", timeout=0),
    ):
        raise AssertionError("the lock is held twice")
    with folder.lock("runs", timeout=0):
        pass


def test_lock_excludes_other_processes(tmp_path: Path) -> None:
    program = f"""
        from qoderdata.files import Folder
        with Folder({str(tmp_path)!r}).lock("runs"):
            print("held", flush=True)
            input()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    folder = Folder(tmp_path)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(CacheError), folder.lock("runs", timeout=0):
            raise AssertionError("two processes hold the lock")
        process.kill()
        process.wait()
        with folder.lock("runs", timeout=5):
            pass


@pytest.mark.parametrize("url", ["nonsense://bucket/folder", "nonsense://"])
def test_url_of_unknown_scheme_raises_cache_error(url: str) -> None:
    with pytest.raises(CacheError, match="no installed package opens nonsense://"):
        Folder(url)


class TestWithoutFsspec:
    """fsspec is optional; without it, URLs that pyarrow opens still work."""

    @pytest.fixture(autouse=True)
    def no_fsspec(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real_import = builtins.__import__

        def refuse(name: str, *arguments: Any) -> Any:  # noqa: ANN401 - the signature of `__import__`
            if name.startswith("fsspec"):
                raise ImportError(name)
            return real_import(name, *arguments)

        monkeypatch.setattr(builtins, "__import__", refuse)

    def test_file_url_is_opened_by_pyarrow(self, tmp_path: Path) -> None:
        folder = Folder(f"file://{tmp_path}")
        folder.replace("a", writer_of(b"1"))
        assert (tmp_path / "a").read_bytes() == b"1"

    def test_memory_url_raises_cache_error(self) -> None:
        with pytest.raises(CacheError, match="install fsspec"):
            Folder("memory://folder")


def test_unknown_home_folder_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"no home folder of this user: '~nobody-of-this-name/r.html'$"):
        replace("~nobody-of-this-name/r.html", lambda sink: sink.write(b"x"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_folder_in_which_no_file_can_be_made_is_named() -> None:
    with pytest.raises(PermissionError, match=r"no file can be written to the folder: '/proc'$"):
        replace("/proc/report.html", lambda sink: sink.write(b"x"))
