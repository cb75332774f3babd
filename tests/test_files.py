"""A reader sees the old file or the new one, never half of one, whatever happens to the writer."""

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

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from qoderdata.errors import CacheError
from qoderdata.files import Folder, check_ending, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa


def writing(data: bytes) -> Callable[[pa.NativeFile], object]:
    return lambda sink: sink.write(data)


def failing(sink: pa.NativeFile) -> None:
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
    def test_new(self, tmp_path: Path) -> None:
        replace(tmp_path / "file", writing(b"new"))
        assert (tmp_path / "file").read_bytes() == b"new"

    def test_old_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"something longer")
        replace(str(tmp_path / "file"), writing(b"new"))
        assert (tmp_path / "file").read_bytes() == b"new"

    def test_old_is_there_while_the_new_is_written(self, tmp_path: Path) -> None:
        target = tmp_path / "file"
        target.write_bytes(b"old")
        seen = []

        def write(sink: pa.NativeFile) -> None:
            sink.write(b"new")
            seen.append(target.read_bytes())

        replace(target, write)
        assert seen == [b"old"]

    @pytest.mark.parametrize("old", [None, b"old"])
    def test_a_failed_write_changes_nothing(self, tmp_path: Path, old: bytes | None) -> None:
        """Ctrl-C is no `Exception`, and cleans up too."""
        folder = tmp_path / "out"
        folder.mkdir()
        if old is not None:
            (folder / "file").write_bytes(old)
        before = {path: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(KeyboardInterrupt):
            replace(folder / "file", failing)
        assert {path: path.read_bytes() for path in folder.iterdir()} == before

    @pytest.mark.parametrize("kept", [0o600, 0o640, 0o664, 0o755])
    @pytest.mark.usefixtures("umask")
    def test_the_mode_of_an_old_file_is_kept(self, tmp_path: Path, kept: int) -> None:
        target = tmp_path / "file"
        target.write_bytes(b"old")
        target.chmod(kept)
        replace(target, writing(b"new"))
        assert (mode(target), target.read_bytes()) == (kept, b"new")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
    def test_the_owner_of_an_old_file_is_kept(self, tmp_path: Path) -> None:
        target = tmp_path / "file"
        target.write_bytes(b"old")
        os.chown(target, 65534, 65534)
        replace(target, writing(b"new"))
        assert (target.stat().st_uid, target.stat().st_gid) == (65534, 65534)

    @pytest.mark.parametrize("exists", [True, False])
    def test_a_symbolic_link_is_followed(self, tmp_path: Path, *, exists: bool) -> None:
        (tmp_path / "real").mkdir()
        target, link, second = tmp_path / "real" / "file", tmp_path / "link", tmp_path / "second"
        if exists:
            target.write_bytes(b"old")
        link.symlink_to("real/file")
        second.symlink_to(link)
        replace(second, writing(b"new"))
        assert target.read_bytes() == b"new"
        assert link.is_symlink()
        assert second.is_symlink()
        assert [path.name for path in target.parent.iterdir()] == ["file"]

    def test_a_private_file_takes_the_place_of_a_link(self, tmp_path: Path) -> None:
        """A link in the cache could lead to a file of the user's."""
        (tmp_path / "mine").write_bytes(b"mine")
        (tmp_path / "link").symlink_to("mine")
        replace(tmp_path / "link", writing(b"new"), private=True)
        assert (tmp_path / "mine").read_bytes() == b"mine"
        assert (tmp_path / "link").read_bytes() == b"new"

    def test_a_long_name(self, tmp_path: Path) -> None:
        replace(tmp_path / ("表" * 85), writing(b"new"))
        assert [path.read_bytes() for path in tmp_path.glob("表*")] == [b"new"]

    @pytest.mark.parametrize(("private", "expected"), [(True, 0o600), (False, 0o644)])
    @pytest.mark.usefixtures("umask")
    def test_permissions(self, tmp_path: Path, *, private: bool, expected: int) -> None:
        """Also while it is written, and where an old file was open to all."""
        target = tmp_path / "file"
        target.touch(0o666)
        seen: list[int] = []

        def write(sink: pa.NativeFile) -> None:
            sink.write(b"x")
            seen.extend(mode(path) for path in tmp_path.glob(".file.*"))

        replace(target, write, private=private)
        assert [*seen, mode(target)] == [expected, expected]

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no such folder.*nowhere'$"):
            replace(tmp_path / "nowhere" / "file", writing(b"x"))
        assert not (tmp_path / "nowhere").exists()

    def test_a_folder_is_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "file").mkdir()
        with pytest.raises(OSError, match="file"):
            replace(tmp_path / "file", writing(b"x"))
        assert not list(tmp_path.glob(".file*"))

    def test_two_writers_do_not_share_a_file(self, tmp_path: Path) -> None:
        def write(sink: pa.NativeFile) -> None:
            replace(tmp_path / "file", writing(b"inner"))
            sink.write(b"outer")

        replace(tmp_path / "file", write)
        assert (tmp_path / "file").read_bytes() == b"outer"
        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["file"]

    def test_killed_while_writing(self, tmp_path: Path) -> None:
        """What the killed writer leaves is beside the target, is never listed, and goes with a sweep."""
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
    """No file takes the place of a device, a pipe or a socket; what can be written to is."""

    def test_a_pipe(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        data = bytes(range(256)) * 4096  # more than a pipe holds
        program = (
            "import pathlib, sys; pathlib.Path(sys.argv[2]).write_bytes(pathlib.Path(sys.argv[1]).read_bytes())"
        )
        with subprocess.Popen([sys.executable, "-c", program, pipe, tmp_path / "copy"]):
            replace(pipe, writing(data))
        found = (tmp_path / "copy").read_bytes()
        assert found == data
        assert stat.S_ISFIFO(pipe.stat().st_mode)

    def test_a_failed_write_sends_nothing(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        with pytest.raises(KeyboardInterrupt):
            replace(pipe, failing)
        assert os.read(reader, 100) == b""
        os.close(reader)

    def test_a_character_device(self, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(os.devnull)
        for path in (os.devnull, link):
            replace(path, writing(b"new"))
        assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
        assert link.is_symlink()

    def test_a_socket(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)  # the name of a socket may be no longer than 107 bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
            with pytest.raises(OSError, match="a socket or a disk"):
                replace("socket", writing(b"new"))
        assert stat.S_ISSOCK((tmp_path / "socket").stat().st_mode)

    @pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/dev/stderr", "/dev/fd/2"])
    @pytest.mark.parametrize("into", ["file", "pipe"])
    def test_standard_output(self, tmp_path: Path, name: str, into: str) -> None:
        """What was written before and comes after stays, also where the shell leads it into a file."""
        program = f"""
            import sys
            from qoderdata.files import replace
            stream = sys.stdout if "1" in {name!r} or "out" in {name!r} else sys.stderr
            print("before", file=stream)
            replace({name!r}, lambda sink: sink.write(b"new\\n"))
            print("after", file=stream)
        """
        out = tmp_path / "out"
        with out.open("wb") as handle:
            target = handle if into == "file" else subprocess.PIPE
            done = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(program)],
                stdout=target, stderr=subprocess.STDOUT, check=True, timeout=60,
            )  # fmt: skip
        assert (out.read_bytes() if into == "file" else done.stdout) == b"before\nnew\nafter\n"


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    """Arrow's error has none."""

    def write(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space") as caught:
        replace(tmp_path / "file.csv", write)
    assert caught.value.__notes__ == [f"({tmp_path / 'file.csv'} was not written)"]
    assert list(tmp_path.iterdir()) == []


class TestEnding:
    @pytest.mark.parametrize("name", ["a.html", "A.HTM", "of 2026.06.html", "no ending", ".html", "/dev/stdout"])
    def test_fits(self, name: str) -> None:
        check_ending(name, [".html", ".htm"], what="a report is an HTML page")

    @pytest.mark.parametrize("name", ["a.pdf", "a.html.gz", "a.html~.bak", "a.htmlx"])
    def test_does_not_fit(self, name: str) -> None:
        with pytest.raises(ValueError, match=rf"{name}.*a name that ends in \.html or \.htm$"):
            check_ending(name, [".html", ".htm"], what="a report is an HTML page")

    def test_no_name_at_all(self) -> None:
        """Arguments are easily swapped: `write_report("report.html", df)`."""
        with pytest.raises(TypeError, match="path is a list; give the name of a file"):
            check_ending([], [".html"], what="a report is an HTML page")  # type: ignore[arg-type]


@pytest.fixture(params=["local", "url"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    """Return a folder that is not there yet."""
    if request.param == "local":
        yield Folder(tmp_path / "cache" / "inner")
    else:
        yield Folder("memory://cache/inner")
        MemoryFileSystem.store.clear()
        MemoryFileSystem.pseudo_dirs[:] = [""]


def text(folder: Folder, name: str) -> bytes | None:
    found = folder.read(name)
    return None if found is None else found.to_pybytes()


class TestFolder:
    def test_nothing_there(self, folder: Folder) -> None:
        """Looking creates nothing."""
        assert folder.read("a") is None
        assert folder.files() == []
        assert folder.files("below") == []
        folder.remove("a")
        folder.remove_temporary_files()
        assert not (folder.local and Path(folder.location).exists())

    def test_write_and_read(self, folder: Folder) -> None:
        folder.replace("a", writing(b"1"))
        folder.replace("below/deep/b", writing(b"2"))
        folder.replace("a", writing(b"3"))
        assert text(folder, "a") == b"3"
        assert text(folder, "below/deep/b") == b"2"
        assert text(folder.folder("below").folder("deep"), "b") == b"2"
        assert sorted(info.base_name for info in folder.files()) == ["a", "b"]
        assert [info.base_name for info in folder.files("below")] == ["b"]
        assert {info.path for info in folder.files()} == {folder.path_of("a"), folder.path_of("below/deep/b")}

    def test_remove(self, folder: Folder) -> None:
        folder.replace("a", writing(b"1"))
        folder.remove("a")
        assert folder.read("a") is None
        assert folder.files() == []

    def test_a_failed_write_changes_nothing(self, folder: Folder) -> None:
        folder.replace("a", writing(b"old"))
        with pytest.raises(KeyboardInterrupt):
            folder.replace("a", failing)
        assert text(folder, "a") == b"old"
        assert len(folder.files()) == 1

    def test_repr_and_location(self, folder: Folder) -> None:
        assert repr(folder) == f"Folder({folder.location!r})"
        assert folder.folder("x").location == folder.location + "/x"

    def test_lock(self, folder: Folder) -> None:
        """A lock is no file of the folder's; an object store has none."""
        with folder.lock("runs"):
            assert folder.files() == []


@pytest.mark.usefixtures("umask")
def test_a_local_folder_is_private(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "cache")
    folder.replace("below/a", writing(b"1"))
    with folder.lock("runs"):
        assert mode(tmp_path / "cache") == 0o700
    assert mode(tmp_path / "cache" / "below") == 0o700
    assert mode(tmp_path / "cache" / "below" / "a") == 0o600


def test_a_lock_keeps_others_out(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "cache")
    with (
        folder.lock("runs"),
        pytest.raises(CacheError, match=r"another process holds .*runs\.lock"),
        Folder(tmp_path / "cache").lock("runs", timeout=0),
    ):
        raise AssertionError("two holders")
    with folder.lock("runs", timeout=0):
        pass


def test_a_lock_keeps_other_processes_out(tmp_path: Path) -> None:
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
            raise AssertionError("two holders")
        process.kill()
        process.wait()
        with folder.lock("runs", timeout=5):
            pass


@pytest.mark.parametrize("url", ["nonsense://bucket/folder", "nonsense://"])
def test_a_url_that_nothing_opens(url: str) -> None:
    with pytest.raises(CacheError, match="nothing here opens nonsense://"):
        Folder(url)


class TestWithoutFsspec:
    """fsspec comes with other packages; without it, what pyarrow itself opens still works."""

    @pytest.fixture(autouse=True)
    def no_fsspec(self, monkeypatch: pytest.MonkeyPatch) -> None:
        importing = builtins.__import__

        def refuse(name: str, *arguments: Any) -> Any:  # noqa: ANN401 - Python's own signature
            if name.startswith("fsspec"):
                raise ImportError(name)
            return importing(name, *arguments)

        monkeypatch.setattr(builtins, "__import__", refuse)

    def test_pyarrow_opens_it(self, tmp_path: Path) -> None:
        folder = Folder(f"file://{tmp_path}")
        folder.replace("a", writing(b"1"))
        assert (tmp_path / "a").read_bytes() == b"1"

    def test_nothing_opens_it(self) -> None:
        with pytest.raises(CacheError, match="install fsspec"):
            Folder("memory://folder")
