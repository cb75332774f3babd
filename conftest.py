"""What tests and doctests run on: a machine without settings, a clock that nobody waits for, and no internet.

The developer's own token, proxies, certificates, cache, ``~/.netrc`` and Matplotlib settings cannot leak into
a test, and what a test leaves behind cannot leak into the next.
"""

from __future__ import annotations

import contextlib
import gc
import http.server
import os
import signal
import socket
import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import settings

from qoderdata.client import retries

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from qoderdata.sandbox import Sandbox

_LEAKS = (
    "QODER_ACCESS_TOKEN",
    "QODER_PAT",
    "QODER_MANAGED_BASE_URL",
    "QODER_BASE_URL",
    "QODERDATA_CACHE_DIR",
    "NETRC",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "COLUMNS",
    "LINES",
    "NO_COLOR",
    "FORCE_COLOR",
    *(
        variable
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
        for variable in (name, name.upper())
    ),
)

# Set before Matplotlib is imported: no window, no settings of the developer's, and a font list that is made once.
os.environ["MPLBACKEND"] = "Agg"
os.environ["MATPLOTLIBRC"] = os.devnull
os.environ["MPLCONFIGDIR"] = str(Path(__file__).resolve().parent / ".pytest_cache" / "matplotlib")

# A busy machine takes longer than 200 ms for an example now and then, which says nothing about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


#: Seconds after which something that should have happened has not, on the slowest machine.
PATIENCE = 60


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Let no search for garbage walk over the modules and tests, which stay to the end: it takes seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


class FastClock(retries.SystemClock):
    """A clock that jumps over every wait; safe to use from several threads.

    Attributes
    ----------
    sleeps : list of float
        Every wait that was asked for, in order.
    """

    def __init__(self) -> None:
        self.sleeps: list[float] = []
        self.start = datetime(2026, 6, 15, tzinfo=UTC)
        self._elapsed = 0.0
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        with self._lock:
            return self._elapsed

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.monotonic())

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.sleeps.append(seconds)
            self._elapsed += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> FastClock:
    """Return every `Client` that the test makes one fast clock."""
    fast = FastClock()
    monkeypatch.setattr(retries, "SYSTEM", fast)
    return fast


@pytest.fixture(scope="session", autouse=True)
def fast_disk() -> Iterator[None]:
    """Do not wait for the disk after each file: no power fails here. Processes that tests start do wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def empty_homes() -> list[Path]:
    """Return the home folders to which no test has written: most tests write nothing."""
    return []


@pytest.fixture(autouse=True)
def nobodys_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, empty_homes: list[Path]
) -> Iterator[Path]:
    """Put the test on a machine without settings; the value is its home folder, which is empty."""
    for variable in _LEAKS:
        monkeypatch.delenv(variable, raising=False)
    home = empty_homes.pop() if empty_homes else tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    # A shell's background job starts with Ctrl-C ignored, and libraries handle it in their own ways.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield home
    if not any(home.iterdir()):
        empty_homes.append(home)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache folder for all tests of a module."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def shared_account(sandbox: Sandbox, shared_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Point the environment at the module's sandbox and its one cache, and work in an empty folder."""
    monkeypatch.setenv("QODER_ACCESS_TOKEN", sandbox.pat)
    monkeypatch.setenv("QODER_MANAGED_BASE_URL", sandbox.base_url)
    monkeypatch.setenv("QODERDATA_CACHE_DIR", str(shared_cache))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def empty_cache(shared_account: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Point the environment at the module's sandbox and an empty cache."""
    del shared_account  # which has set the rest
    monkeypatch.setenv("QODERDATA_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def nothing_under_way(clock: FastClock, nobodys_machine: Path) -> Iterator[None]:
    """Wait for the request ahead that a load leaves under way when it stops early: the next test may count."""
    del clock, nobodys_machine  # which it may need
    yield
    for thread in threading.enumerate():
        if thread.name in {"qoderdata-fetch", "qoderdata-decode", "qoderdata-events", "qoderdata-import"}:
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"{thread.name} goes on after the test"


@pytest.fixture(autouse=True)
def no_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: tuple[str, int] | str | bytes) -> None:
        stays = (
            self.family not in {socket.AF_INET, socket.AF_INET6}
            or self.type & socket.SOCK_DGRAM
            or str(address[0]).startswith("127.")
            or address[0] in {"localhost", "::1"}
        )
        if not stays:
            self.close()
            raise AssertionError(f"a test reached for the internet: {address[0]!r}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


@dataclass(frozen=True)
class Received:
    """One request as it came in."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    raw_path: str
    port: int = 0


@dataclass
class ScriptedService:
    """A server on loopback that plays a script: one answer a request, byte for byte; the last one for ever.

    For answers that no sane service gives; the sandbox is the one for sane ones. An answer is the whole
    HTTP response in bytes, or a function that is handed the socket and writes what it likes.
    """

    base_url: str
    script: list[bytes | Callable[[socket.socket], None]] = field(default_factory=list)
    requests: list[Received] = field(default_factory=list)

    def play(self, *answers: bytes | Callable[[socket.socket], None]) -> None:
        """Set the answers to come."""
        self.script[:] = answers

    @staticmethod
    def answer(status: int = 200, body: bytes = b"{}", **headers: str) -> bytes:
        """Write an HTTP response; ``_`` in a header's name stands for ``-``."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        lines = {"Content-Length": str(len(body)), "x-request-id": "req_scripted", **given}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"HTTP/1.1 {status} Scripted\r\n{head}\r\n".encode("latin-1") + body


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    """Run a `ScriptedService` while the test runs."""
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # http.server's name for it
            parts = urlsplit(self.path)
            with lock:
                scripted.requests.append(
                    Received(
                        parts.path,
                        dict(parse_qsl(parts.query)),
                        dict(self.headers.items()),
                        self.path,
                        self.client_address[1],
                    )
                )
                answer = scripted.script.pop(0) if len(scripted.script) > 1 else scripted.script[0]
            if callable(answer):
                self.close_connection = True
                with contextlib.suppress(OSError):
                    answer(self.connection)
            else:
                self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        scripted = ScriptedService(f"http://127.0.0.1:{server.server_address[1]}/api/v1/cloud")
        scripted.play(scripted.answer())
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield scripted
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """Start Spark on this machine, with another zone for its session than UTC."""
    from pyspark.sql import SparkSession  # noqa: PLC0415 only tests with the mark `spark` need it

    session = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "1")
        .config("spark.sql.session.timeZone", "America/New_York")
        .getOrCreate()
    )
    yield session
    session.stop()
