"""Tests of `qoderdata top`: the live view in a pseudo-terminal, `--once`, requests of a reading, and drawing."""

from __future__ import annotations

import fcntl
import importlib
import itertools
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock, Mock, call

import pandas as pd
import pytest
from rich.cells import cell_len
from rich.console import Console

import qoderdata as qd
from qoderdata import overview
from qoderdata.cli import top_screen
from qoderdata.cli.service import Service
from qoderdata.sandbox import Sandbox
from tests.sandbox_requests import active_deployments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Self

    from conftest import Invoke

top = importlib.import_module("qoderdata.cli.top")  # the package has the command by this name

pytestmark = pytest.mark.filterwarnings("default:no run is in the time asked for")

NOW = datetime.now(UTC).replace(microsecond=0)
READ_AT = {"runs": NOW, "sessions": NOW, "deployments": None}
HOSTILE = "evil\x1b]0;title\x07\x1b[2J\x1b[31m\r\nname \u202e[bold]x[/bold]"
#: Seconds within which even a busy machine draws a view.
TIMEOUT_S = 90.0
#: Written to a terminal after its program ended, to know when all output was read.
END_MARK = b"end of output"
#: A program that allows an interval below 5 s, and sends each request once, with a timeout of 6 s.
PROGRAM = (
    "import sys; from datetime import timedelta; from qoderdata.cli import main\n"
    "top = sys.modules['qoderdata.cli.top']  # the package has the command by this name\n"
    "top._SHORTEST = top._PAUSE_A_REQUEST = timedelta(0)\n"
    "top._PATIENCE = {'max_retries': 0, 'timeout': (6, 6)}\n"
    "sys.exit(main(sys.argv[1:]))\n"
)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(deployments=20, seed=7, runs=100, now=NOW) as served:
        of_team = next(one["id"] for one in active_deployments(served) if "team" in one["metadata"])
        for status in ("failed", "running"):  # independent of the time of day: a deployment with a team
            served.create_runs(1, status=status, deployment_id=of_team)
        yield served


@pytest.fixture(autouse=True)
def set_environment(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QODER_PAT", sandbox.pat)
    monkeypatch.setenv("QODER_BASE_URL", sandbox.base_url)
    monkeypatch.setenv("QODERDATA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TERM", "xterm-256color")


@dataclass
class Terminal:
    """A program in a pseudo-terminal, with its output and the views that it drew."""

    words: list[str]
    size: tuple[int, int] = (80, 24)
    output: bytes = b""
    _searched: int = 0

    def __enter__(self) -> Self:
        self.keyboard, terminal = pty.openpty()
        self.resize(*self.size)
        self.mode = termios.tcgetattr(terminal)
        self.process = subprocess.Popen(
            self.words, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads run yet
        )  # fmt: skip
        self.terminal = terminal
        self.reader = threading.Thread(target=self._listen, daemon=True)
        self.reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)
        self.reader.join(TIMEOUT_S)
        os.close(self.keyboard)

    def _listen(self) -> None:
        with suppress(OSError):  # raised by Linux where the other end is closed
            while piece := os.read(self.keyboard, 1 << 16):
                self.output += piece

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        os.write(self.keyboard, keys)

    @property
    def views(self) -> list[str]:
        """All complete views, in the order in which they were drawn."""
        views = self.output.decode("utf-8", "replace").split("\x1b[H")[1:-1]
        return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", view) for view in views]

    @property
    def view(self) -> list[str]:
        """The lines of the last complete view."""
        return self.views[-1].split("\r\n") if self.views else []

    def wait_for(self, *texts: str, without: str | None = None) -> list[str]:
        """Wait until a view has these texts, and return it.

        The search continues from the view found last, so that it also finds views that were shown briefly.
        """
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            has_ended = self.process.poll() is not None
            for view in self.views[self._searched :]:
                if all(text in view for text in texts) and (without is None or without not in view):
                    return view.split("\r\n")
                self._searched += 1
            if has_ended:
                break
            time.sleep(0.05)
        raise AssertionError(f"{texts} not shown: {self.output[-4000:].decode('utf-8', 'replace')}")

    def end(self) -> int:
        """Wait for the end of the program, check that it restored the terminal, and return the exit code."""
        code = self.process.wait(TIMEOUT_S)
        self.process.returncode = code
        os.write(self.terminal, END_MARK)
        end = time.monotonic() + TIMEOUT_S
        while not self.output.endswith(END_MARK) and time.monotonic() < end:
            time.sleep(0.01)
        assert termios.tcgetattr(self.terminal) == self.mode
        assert self.output.count(b"\x1b[?1049h") == self.output.count(b"\x1b[?1049l")
        assert self.output.rfind(b"\x1b[?25h") >= self.output.rfind(b"\x1b[?25l")
        return code


def start_top(interval: str = "60s", size: tuple[int, int] = (80, 24)) -> Terminal:
    return Terminal([sys.executable, "-c", PROGRAM, "top", "--interval", interval], size)


def test_live_view_follows_resizes_survives_errors_and_ends_with_q(sandbox: Sandbox) -> None:
    with start_top("500ms") as terminal:
        view = terminal.wait_for("q quits", "Running", "Failing", "Next", "Wrong")
        assert len(view) == 24
        assert max(map(cell_len, view)) <= 80
        assert view[0].startswith(f"{len(active_deployments(sandbox))} active deployments")
        for columns, lines in ((200, 60), (20, 5), (80, 24)):
            terminal.resize(columns, lines)
            end = time.monotonic() + TIMEOUT_S
            while len(terminal.view) != lines and time.monotonic() < end:
                time.sleep(0.05)
            assert len(terminal.view) == lines
            assert max(map(cell_len, terminal.view)) <= columns
        sandbox.misbehave("403")
        terminal.wait_for("403", "not up to date")
        terminal.wait_for("q quits", without="not up to date")
        terminal.press(b"\x1bOq")  # the escape sequence of a keypad key is not q
        terminal.press(b"x")
        time.sleep(0.5)
        assert terminal.process.poll() is None
        terminal.press(b"q")
        assert terminal.end() == 0


def test_sigterm_ends_the_live_view_with_130() -> None:
    with start_top() as terminal:
        terminal.wait_for("q quits")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 130


@pytest.mark.long
def test_live_view_without_network_keeps_the_last_view(sandbox: Sandbox) -> None:
    with start_top("500ms") as terminal:
        running = int(re.search(r"Running: (\d+)", "\n".join(terminal.wait_for("q quits")))[1])  # type: ignore[index]
        sandbox.stop()
        try:
            view = terminal.wait_for("not up to date since", f"Running: {running}")
            assert any("the connection failed or broke" in line for line in view)
            terminal.wait_for("2 s ago; ", "not up to date")
        finally:
            sandbox.start()
        created = sandbox.create_runs(2, status="running")
        try:
            view = terminal.wait_for(f"Running: {running + 2}", without="not up to date")
        finally:
            for run in created:
                sandbox.finish_run(run["id"])
        terminal.wait_for(f"Running: {running} ")
        terminal.press(b"q")
        assert terminal.end() == 0


@pytest.mark.long
def test_top_starts_without_network_from_stored_data(sandbox: Sandbox, invoke: Invoke) -> None:
    sandbox.stop()
    try:
        with start_top("500ms") as terminal:
            assert terminal.process.wait(TIMEOUT_S) == 5
            assert b"1049h" not in terminal.output
        invoke("top --once", code=5)
    finally:
        sandbox.start()
    shown = invoke("top --once").out
    sandbox.stop()
    try:
        invoke("top --once", code=5)
        assert invoke("top --once --offline").out.splitlines()[1] == shown.splitlines()[1]
        with start_top("500ms") as terminal:
            terminal.wait_for("not up to date since", "active deployments")
            sandbox.start()
            terminal.wait_for("q quits", without="not up to date")
            terminal.press(b"Q")
            assert terminal.end() == 0
    finally:
        with suppress(RuntimeError):
            sandbox.start()


@pytest.mark.long
def test_live_view_reports_a_service_that_does_not_respond(sandbox: Sandbox) -> None:
    with start_top("500ms") as terminal:
        terminal.wait_for("q quits")
        sandbox.misbehave("hang")
        terminal.wait_for("reading for", without="reading for 0 s")
        terminal.wait_for("no complete response in time", "not up to date since")
        terminal.wait_for("q quits", without="not up to date")
        sandbox.misbehave("hang")
        terminal.wait_for("reading for", without="reading for 0 s")
        terminal.press(b"q")  # during the request
        began = time.monotonic()
        assert terminal.end() == 0
        assert time.monotonic() - began < 30


def test_ctrl_z_restores_the_terminal_and_fg_continues() -> None:
    job = f"set -m; '{sys.executable}' -c \"$0\" top --interval 60s; echo stopped; read line; fg; echo ended $?"
    with Terminal(["/bin/bash", "-c", job, PROGRAM]) as terminal:
        terminal.wait_for("q quits")
        terminal.press(b"\x1a")
        end = time.monotonic() + TIMEOUT_S
        while b"stopped" not in terminal.output and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(1)
        assert terminal.output.count(b"\x1b[?1049l") == 1
        assert terminal.output.count(b"\x1b[?1049h") == 1
        terminal.press(b"\n")
        while terminal.output.count(b"\x1b[?1049h") < 2 and time.monotonic() < end:
            time.sleep(0.05)
        assert terminal.output.count(b"\x1b[?1049h") == 2
        terminal.press(b"\x03")
        assert terminal.end() == 0
        assert b"ended 130" in terminal.output


def test_hostile_names_are_escaped_and_401_ends_the_live_view(sandbox: Sandbox) -> None:
    deployment = active_deployments(sandbox)[0]
    sandbox.rewrite({**deployment, "name": HOSTILE, "metadata": {**deployment["metadata"], "team": HOSTILE}})
    created = sandbox.create_runs(5, status="failed", deployment_id=deployment["id"])
    created += sandbox.create_runs(1, status="running", deployment_id=deployment["id"])
    sandbox.rewrite({**created[4], "error": {"type": HOSTILE, "message": HOSTILE}})
    try:
        with start_top("500ms", size=(160, 60)) as terminal:
            view = "\n".join(terminal.wait_for("q quits", "evil"))
            sandbox.misbehave("401")
            assert terminal.end() == 3
            output = terminal.output
    finally:
        sandbox.rewrite(deployment)
        sandbox.finish_run(created[5]["id"])
    assert "evil�]0;title��[2J�[31m name �[bold]x[/bold]" in view
    for code in (b"\x1b]0;", b"\x07", b"\x1b[2J", "\u202e".encode()):
        assert code not in output.split(b"\x1b[?1049h", 1)[1]
    assert b"qoderdata: " in output.split(b"\x1b[?1049l")[-1]


def test_top_with_wrong_or_missing_token_returns_3(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("QODER_PAT", "pt-wrong")
    assert "1049h" not in invoke("top", code=3).out
    monkeypatch.delenv("QODER_PAT")
    assert "1049h" not in invoke("top", code=3).out


# -- without a terminal ------------------------------------------------------------------------------------------


def test_live_view_without_a_terminal_returns_2(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "a live view needs a terminal; --once prints one snapshot" in invoke("top", code=2).err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    assert "--once" in invoke("top", code=2).err


def test_invalid_option_values_return_2(invoke: Invoke) -> None:
    for words, message in (
        ("--interval 30", "no unit"),
        ("--interval 4s", "--interval 4s is less than 5s"),
        ("--interval -1min", "interval"),
        ("--max-age 5", "no unit"),
        ("--tz Mars/Phobos", "Mars/Phobos"),
    ):
        assert message in invoke(f"top --once {words}", code=2).err
    assert "a live view needs a terminal" in invoke("top --interval 5s", code=2).err


def test_once_to_a_pipe_has_findings_and_no_escape_codes(sandbox: Sandbox, invoke: Invoke) -> None:
    text = invoke("top --once").out
    assert "\x1b" not in text
    worst = invoke.json("check --top 1", code=1)[0]
    assert re.search(rf"^error +{re.escape(worst['detail'])}$", text, re.MULTILINE)
    running = [one for one in sandbox.runs if one["status"] in {"running", "pending"}]
    assert f"Running: {len(running)} " in text


def test_once_keeps_headings_and_names_at_any_width(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    read: Callable[..., top_screen.View] = top._Reader.read
    views: list[top_screen.View] = []

    def read_once(reader: object, **how: Any) -> top_screen.View:  # noqa: ANN401 - the signature of `read`
        if not views:
            views.append(read(reader, **how))
        return views[0]

    monkeypatch.setattr(top._Reader, "read", read_once)
    piped = invoke("top --once").out
    titles = re.findall(r"^(?:Running|Failing|Next): .*?(?=  )", piped, re.MULTILINE)
    assert len(re.findall("  agent +team  ", piped)) == len(titles) == 3
    assert f"Failing: {len(views[0].overview.failing)} active deployments" in titles
    name_prefixes = {one["name"][:8].rstrip() for one in sandbox.deployments}
    sentences = re.findall(r"^(?:error|warning) +(.+)$", piped, re.MULTILINE)
    assert sentences
    for columns in (80, 40):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = invoke("top --once").out.splitlines()
        assert max(map(cell_len, lines)) <= columns
        for title in titles:
            index = next(index for index, line in enumerate(lines) if line.startswith(f"{title}  "))
            assert "team" not in lines[index]
            rows = list(itertools.takewhile(lambda line: line and not line.startswith("…"), lines[index + 1 :]))
            assert rows
            assert all(line[:8].split("  ")[0].rstrip() in name_prefixes for line in rows)
        without_spaces = "".join("".join(lines).split())
        assert [one for one in sentences if "".join(one.split()) not in without_spaces] == [], lines
        more = [line for line in piped.splitlines() if line.startswith("… and")]
        assert more
        assert [line for line in lines if line.startswith("… and")] == more


# -- number of requests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edition", ["A", "C", "D"])
@pytest.mark.filterwarnings("ignore:.* completed runs are assumed")
def test_second_reading_requests_only_new_data(
    edition: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top, "_PAUSE_A_REQUEST", timedelta(0))
    every = timedelta(0)
    with Sandbox(deployments=10, seed=7, runs=60, now=NOW, edition=edition) as served:
        service = Service(served.base_url, None, cache_dir=str(tmp_path))
        reader = top._Reader(service, every, tz="UTC", team="team")
        with monkeypatch.context() as patched:
            patched.setattr(reader, "_view", lambda: None)
            reader.read()
            assert "/deployments" in {request.path for request in served.requests}
            reader.read()
        served.requests.clear()
        created = served.create_runs(3, status="running")
        view = reader.read()
        paths = [request.path for request in served.requests]
        week = [one for one in served.sessions if one["created_at"] >= (NOW - timedelta(days=8)).isoformat()]
        unfinished = [one for one in served.runs if one.get("status") in {"running", "pending"}]
        assert "/deployments" not in paths
        assert paths.count("/deployment_runs") == 1
        assert len(paths) <= 1 + len(unfinished) + len(week) // 100 + 1 + len(created)
        assert {one["deployment_id"] for one in created} <= set(view.overview.running["deployment_id"])


def test_each_reading_has_new_deployments_and_reads_no_older_rows_than_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = [Mock(wraps=load) for load in (qd.load_runs, qd.load_sessions)]
    for name, load in zip(("load_runs", "load_sessions"), loads, strict=True):
        monkeypatch.setattr(qd, name, load)
    with Sandbox(deployments=10, seed=7, runs=60, now=NOW) as served:
        service = Service(served.base_url, None, cache_dir=str(tmp_path), max_age="0s")
        reader = top._Reader(service, timedelta(0), tz="UTC", team="team")
        before = reader.read().overview.active
        served.create_deployments(2)
        assert reader.read().overview.active == before + 2
    for load, since in zip(loads, ("30D", "31D"), strict=True):
        assert load.call_count > 1
        assert {one.kwargs["since"] for one in load.call_args_list} == {since}


def test_each_view_finds_streaks_in_all_stored_runs_of_the_newest_edition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, compute = [], overview.overview

    def view(*frames: pd.DataFrame, all_runs: pd.DataFrame, **options: Any) -> overview.Overview:  # noqa: ANN401
        given.append(len(all_runs))
        return compute(*frames, all_runs=all_runs, **options)

    monkeypatch.setattr(overview, "overview", view)
    with Sandbox(deployments=10, seed=7, runs=60, now=NOW, edition="D") as served:
        service = Service(served.base_url, None, cache_dir=str(tmp_path), outcomes="events")
        reader = top._Reader(service, timedelta(0), tz="UTC", team="team")
        reader.read()
        served.create_runs(3, status="completed")
        reader.read()
    assert given == [60, 63]


def test_keys_before_q_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    controller, terminal = pty.openpty()
    with os.fdopen(terminal) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with top_screen._keyboard() as next_key:
            for typed, key in ((b"xq", "q"), (b"xy", ""), (b"\x1b[A", ""), (b"\x1a", "\x1a")):
                os.write(controller, typed)
                assert next_key(TIMEOUT_S) == key
    os.close(controller)


def test_pause_grows_with_the_number_of_requests(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = timedelta(minutes=10)
    monkeypatch.setattr(top, "_PAUSE_A_REQUEST", pause)
    service = Service(sandbox.base_url, None, cache_dir=str(tmp_path))
    reader = top._Reader(service, timedelta(seconds=5), tz="UTC", team="team")
    monkeypatch.setattr(reader, "_view", lambda: None)
    sandbox.requests.clear()
    reader.read()
    runs = [one for one in sandbox.requests if one.path.startswith("/deployment_runs")]
    sessions = [one for one in sandbox.requests if one.path.startswith("/sessions")]
    assert reader.pause == len(runs) * pause
    assert reader._sessions_age == len(sessions) * pause
    sandbox.requests.clear()
    reader.read()
    assert {one.path for one in sandbox.requests} >= {"/deployment_runs"}
    assert not [one for one in sandbox.requests if one.path.startswith("/sessions")]
    reader.wait_as_told(qd.errors.RateLimitError("slow down"))
    assert reader.pause == timedelta(seconds=5)
    error = qd.errors.RateLimitError("slow down")
    error.retry_after = 300.0
    reader.wait_as_told(error)
    assert reader.pause == timedelta(seconds=300)


@pytest.mark.parametrize(
    ("failure", "has_quit", "raised"),
    [(None, True, None), (None, False, KeyboardInterrupt), (OSError("the terminal is gone"), False, OSError)],
)
def test_live_view_waits_before_each_reading(
    failure: OSError | None,
    raised: type[BaseException] | None,
    view: top_screen.View,
    monkeypatch: pytest.MonkeyPatch,
    *,
    has_quit: bool,
) -> None:
    screen = MagicMock(failure=failure, has_quit=has_quit)
    screen.__exit__.return_value = False  # so that it ignores no exception
    clock = Mock(sleep=Mock(side_effect=[None, None, KeyboardInterrupt]))
    reader = Mock(pause=timedelta(seconds=7), read=Mock(side_effect=3 * [view]))
    monkeypatch.setattr(top_screen, "Screen", lambda _: screen)
    monkeypatch.setattr(top, "time", clock)
    with pytest.raises(raised) if raised else nullcontext():
        top._watch(reader)
    assert clock.sleep.mock_calls == [call(7.0)] * 3


def test_once_without_permission_for_sessions_goes_on_where_outcomes_come_from_runs(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    """The error of an account that may not read sessions advises `--outcomes runs`, so that this must work."""
    offline = "top --once --outcomes runs --offline"
    with Sandbox(deployments=10, seed=7, runs=60, now=NOW, edition="D") as served:
        monkeypatch.setenv("QODER_BASE_URL", served.base_url)
        invoke("pull runs --outcomes runs")
        invoke("pull deployments --include-archived")
        for words, code in (("top --once --outcomes runs", 0), (offline, 0), ("top --once", 4)):
            served.requests.clear()
            served.misbehave("403", at=2)
            printed = invoke(words, code=code)
            if words != offline:
                assert [one.path for one in served.requests][:3] == [*2 * ["/deployment_runs"], "/sessions"]
            if code:
                assert "top --outcomes runs" in printed.err
            else:
                today = printed.out.splitlines()[1]
                assert re.fullmatch(
                    r"Today: [\d,]+ runs?, .* · costs not known, as sessions could not be read", today
                )
                assert "Next: " in printed.out
        advice = "To see runs without sessions and costs: qoderdata top --offline --outcomes runs"
        assert invoke("top --once --offline", code=2).err.endswith(f"can be reached. {advice}\n")


@pytest.mark.filterwarnings("ignore:the .* not:qoderdata.errors.NotStoredWarning")
@pytest.mark.filterwarnings("ignore:.* completed runs are assumed")
def test_once_counts_the_runs_that_it_read_if_nothing_can_be_stored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, invoke: Invoke
) -> None:
    (tmp_path / "file").touch()
    with Sandbox(deployments=10, seed=7, runs=60, now=NOW, edition="D") as served:
        monkeypatch.setenv("QODER_BASE_URL", served.base_url)
        stored = invoke("top --once").out
        assert (
            invoke("top --once --cache-dir", str(tmp_path / "file")).out.splitlines()[1] == stored.splitlines()[1]
        )


# -- drawing -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def view(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> top_screen.View:
    loading: dict[str, Any] = {
        "client": qd.Client(sandbox.pat, sandbox.base_url, min_interval=0),
        "cache_dir": tmp_path_factory.mktemp("cache"),
    }
    df, runs, sessions = qd.load_deployments(**loading), qd.load_runs(**loading), qd.load_sessions(**loading)
    return top_screen.View(
        overview.overview(df, runs, sessions, now=pd.Timestamp(NOW)), READ_AT, "UTC", "example.com"
    )


def draw_lines(view: top_screen.View, size: tuple[int, int], *, seconds: float = 7, tz: str = "UTC") -> list[str]:
    now = NOW + timedelta(seconds=seconds)
    written = StringIO()
    console = Console(file=written, width=size[0], height=size[1], force_terminal=False, color_system=None)
    console.print(top_screen.draw(replace(view, tz=tz), now=now, size=size), end="")
    return written.getvalue().split("\n")


@pytest.mark.parametrize(
    "size",
    [(10, 1), (20, 5), (40, 10), (80, 24), (81, 25), (120, 30), (140, 45), (300, 200)],
    ids=lambda size: f"{size[0]}x{size[1]}",
)
@pytest.mark.parametrize("error", ["", "no answer " * 40], ids=["no error", "long error"])
def test_view_fits_terminals_of_any_size(view: top_screen.View, size: tuple[int, int], error: str) -> None:
    lines = draw_lines(replace(view, error=error), size)
    assert len([line for line in lines if line]) <= max(size[1], 4)
    assert max(map(cell_len, lines)) <= size[0]


def test_larger_terminal_shows_more(view: top_screen.View) -> None:
    small, tall = draw_lines(view, (80, 24)), draw_lines(view, (80, 60))
    filled: Callable[[list[str]], int] = lambda lines: sum(bool(line.strip()) for line in lines)  # noqa: E731
    assert filled(small) > 20
    assert filled(tall) > filled(small)
    wide = "\n".join(draw_lines(view, (160, 24)))
    assert "team" in wide
    assert " team" not in "\n".join(small)
    assert not [line for line in small[2:-1] if "…" in line and line.startswith("Running")]


def test_names_that_differ_at_the_end_stay_distinct(view: top_screen.View) -> None:
    upcoming = view.overview.upcoming.head(2)
    named = upcoming.assign(name=[f"production-{'x' * 80}-{part}" for part in ("emea", "apac")])
    text = "\n".join(draw_lines(replace(view, overview=replace(view.overview, upcoming=named)), (80, 60)))
    assert re.findall(r"production-x+…x+-(\w+)", text) == ["emea", "apac"]


def test_ages_and_countdowns_are_updated(view: top_screen.View) -> None:
    found = view.overview
    first, run = found.upcoming.iloc[0], found.running.iloc[0]
    later = first["trigger_at"] - pd.Timedelta("90s")
    text = "\n".join(draw_lines(view, (160, 60), seconds=(later - NOW).total_seconds()))
    assert "1 min 30 s" in text
    assert str(first["name"]) in text
    shown = top_screen._age(later, run["since"])
    assert shown in text
    after = "\n".join(draw_lines(view, (160, 60), seconds=(first["trigger_at"] - NOW).total_seconds() + 1))
    assert f"Next: {len(found.upcoming[found.upcoming['trigger_at'] > first['trigger_at']])} within" in after


def test_status_line_shows_ages_and_errors(view: top_screen.View) -> None:
    soon = replace(view, next_at=NOW + timedelta(seconds=30))
    assert draw_lines(soon, (80, 24))[23].startswith("runs 7 s old, sessions 7 s, deployments –; next in 23 s")
    line = draw_lines(soon, (80, 24), seconds=95)[23]
    assert line.startswith("runs 1 min old, sessions 1 min, deployments –; reading for 1 min 5 s")
    stale = draw_lines(
        replace(soon, error="the connection\x1b[2J broke"), (80, 24), seconds=130, tz="Asia/Shanghai"
    )
    local = pd.Timestamp(NOW).tz_convert("Asia/Shanghai")
    assert f"not up to date since {local:%H:%M:%S} +08:00, 2 min 10 s ago" in stale[23]
    assert stale[22].startswith("the connection�[2J broke")


def test_failure_rate_states_the_number_of_decided_runs(view: top_screen.View) -> None:
    today = replace(view.overview.today, runs=40, completed=35, failed=3, assumed=2, credits=54.16)
    line = draw_lines(replace(view, overview=replace(view.overview, today=today)), (80, 24))[1]
    assert line.startswith("Today: 40 runs, 3 failed (7.9 % of 38 decided, 2 assumed) · 54.16 credits")


def test_credits_of_which_none_are_known_are_said_to_be_so(view: top_screen.View) -> None:
    today = replace(view.overview.today, sessions=3, credits=None, unknown=3)
    line = draw_lines(replace(view, overview=replace(view.overview, today=today)), (160, 24))[1]
    assert line.rstrip().endswith(" · credits of 3 sessions not known")


def test_credits_are_those_of_the_sessions_with_known_usage(view: top_screen.View) -> None:
    """As in `costs` and in the report."""
    today = replace(view.overview.today, sessions=12, credits=7.5, unknown=3)
    line = draw_lines(replace(view, overview=replace(view.overview, today=today)), (160, 24))[1]
    assert line.rstrip().endswith(" · 7.50 credits of 9 sessions, 3 more unknown")


def test_empty_account_is_shown_in_words() -> None:
    frames = qd.flatten_deployments([]), qd.flatten_runs([]), qd.flatten_sessions([])
    empty = top_screen.View(overview.overview(*frames, now=pd.Timestamp(NOW)), READ_AT, "UTC", "example.com")
    text = "\n".join(draw_lines(empty, (80, 24)))
    for words in ("0 errors, 0 warnings", "nothing runs", "nothing fails", "nothing fires", "0 failed (–)"):
        assert words in text
    assert "0.00 credits of 0 sessions" in text


def test_runs_of_unknown_outcome_are_not_said_to_succeed() -> None:
    df = qd.flatten_deployments([{"id": "dep_1", "name": "nightly", "status": "active"}])
    time = {"created_at": "2026-06-15T01:00:00Z"}
    runs = qd.flatten_runs([{"id": "drun_1", "deployment_id": "dep_1", "session_id": "sess_1", **time}])
    found = overview.overview(df, runs, qd.flatten_sessions([]), now=pd.Timestamp(NOW))
    text = "\n".join(draw_lines(top_screen.View(found, READ_AT, "UTC", "example.com"), (80, 24)))
    for words in ("0 errors, 1 warning", "nothing is known to run", "nothing is known to fail"):
        assert words in text


@pytest.mark.parametrize(("end", "length"), [("completed", "2"), ("unheard", "2+")])
def test_a_plus_says_that_a_streak_may_be_longer(end: str, length: str) -> None:
    df = qd.flatten_deployments([{"id": "dep_1", "name": "nightly", "status": "active"}])
    runs = qd.flatten_runs([
        {
            "id": f"drun_{hour}", "deployment_id": "dep_1", "status": status, "error": {"type": "timeout"},
            "triggered_at": f"2026-06-15T0{hour}:00:00Z",
        }
        for hour, status in enumerate([end, "failed", "failed"])
    ])  # fmt: skip
    found = overview.overview(df, runs, qd.flatten_sessions([]), now=pd.Timestamp(NOW))
    text = "\n".join(draw_lines(top_screen.View(found, READ_AT, "UTC", "example.com"), (80, 24)))
    assert re.search(rf"nightly .* {re.escape(length)} +.* timeout", text)
