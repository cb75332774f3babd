"""Fixtures of all tests and doctests: an isolated environment, a fake clock, and no access to the internet.

The developer's token, proxies, certificates, cache, ``~/.netrc`` and Matplotlib settings do not influence a test,
nor does a test influence the next one.
"""

from __future__ import annotations

import contextlib
import gc
import http.server
import json
import os
import signal
import socket
import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import settings

from qoderdata.client import Client, retries

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from playwright.sync_api import Browser

    from qoderdata.sandbox import Sandbox

_ENVIRONMENT_VARIABLES = (
    "QODER_ACCESS_TOKEN",
    "QODER_PAT",
    "QODER_MANAGED_BASE_URL",
    "QODER_BASE_URL",
    "QODERDATA_ACCOUNT",
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

# Set before Matplotlib is imported: no window, no settings of the developer, and a font list that is made once.
os.environ["MPLBACKEND"] = "Agg"
os.environ["MATPLOTLIBRC"] = os.devnull
os.environ["MPLCONFIGDIR"] = str(Path(__file__).resolve().parent / ".pytest_cache" / "matplotlib")

# Altair imports jsonschema, which, where it finds this package, compiles grammars for 2 s in each process: for the
# formats "iri" and "iri-reference", which the schema of Vega-Lite does not have.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment] # so that its import raises ImportError

# On a busy machine an example can take longer than the default deadline of 200 ms.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


#: Seconds to wait for the end of a background thread; enough for the slowest machine.
JOIN_TIMEOUT_S = 60


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exclude modules and tests from garbage collection, which would take seconds: they are never freed.

    Garbage of tests is collected after 20,000 new objects, not 700: this saves about a tenth of their time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000)
        gc.enable()


class FastClock(retries.SystemClock):
    """A fake clock whose `sleep` returns at once and advances the time; thread-safe.

    Attributes
    ----------
    sleeps : list of float
        All waits requested, in order.
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
    """Use one fake clock for all clients that the test makes, and return it."""
    fast = FastClock()
    monkeypatch.setattr(retries, "SYSTEM", fast)
    return fast


@pytest.fixture
def real_clock(monkeypatch: pytest.MonkeyPatch, clock: FastClock) -> None:
    """Use the real clock for all clients that the test makes, as the timeouts of sockets do."""
    del clock  # replaced
    monkeypatch.setattr(retries, "SYSTEM", retries.SystemClock())


@pytest.fixture
def clean_memory() -> Iterator[None]:
    """Remove all files in memory (``memory://``) at the end of the test."""
    from fsspec.implementations.memory import MemoryFileSystem  # noqa: PLC0415 few tests need it

    yield
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture(scope="session", autouse=True)
def no_fsync() -> Iterator[None]:
    """Replace `os.fsync` by a function that does nothing, for speed; processes that tests start keep it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def empty_homes() -> list[Path]:
    """Return the list of home folders that are still empty, for reuse: most tests write nothing there."""
    return []


@pytest.fixture(autouse=True)
def isolated_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, empty_homes: list[Path]
) -> Iterator[Path]:
    """Remove all settings from the environment, and return an empty home folder."""
    for variable in _ENVIRONMENT_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    home = empty_homes.pop() if empty_homes else tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    # A background job of a shell starts with SIGINT ignored, and libraries change its handler.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield home
    if not any(home.iterdir()):
        empty_homes.append(home)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="module")
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Serve a sandbox with the options `SANDBOX` of the module."""
    from qoderdata.sandbox import Sandbox  # noqa: PLC0415 few tests need it

    with Sandbox(**request.module.SANDBOX) as served:
        yield served


@pytest.fixture
def client(sandbox: Sandbox) -> Client:
    """Return a new client of the sandbox of the module."""
    return Client(sandbox.pat, sandbox.base_url)


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one cache folder for all tests of a module."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def shared_account(sandbox: Sandbox, shared_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set the environment to the sandbox and the cache of the module, and work in an empty folder."""
    monkeypatch.setenv("QODER_ACCESS_TOKEN", sandbox.pat)
    monkeypatch.setenv("QODER_MANAGED_BASE_URL", sandbox.base_url)
    monkeypatch.setenv("QODERDATA_CACHE_DIR", str(shared_cache))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def empty_cache(shared_account: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set the environment to the sandbox of the module and an empty cache."""
    del shared_account  # needed only for its effect
    monkeypatch.setenv("QODERDATA_CACHE_DIR", str(tmp_path / "cache"))


class Printed(NamedTuple):
    """What a command printed."""

    out: str
    err: str

    @property
    def unwrapped(self) -> str:
        """The standard output as one line, with single spaces."""
        return " ".join(self.out.split())


@dataclass(frozen=True)
class Invoke:
    """A function that runs the command `qoderdata` in this process."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, words: str, *more: str, code: int | None = 0) -> Printed:
        """Run the command, check its exit code (``None``: any), and return what it printed.

        `words` are split at spaces, `more` are not.
        """
        from qoderdata.cli import main  # noqa: PLC0415 few tests need it

        self.capsys.readouterr()
        result = main([*words.split(), *more])
        assert code is None or result == code
        return Printed(*self.capsys.readouterr())

    def json(self, words: str, *more: str, code: int | None = 0) -> Any:  # noqa: ANN401 any JSON value
        """Run the command with ``--json``, and return the value that it printed."""
        return json.loads(self(words, *more, "--json", code=code).out)


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Return a function that runs the command `qoderdata` in this process."""
    return Invoke(capsys)


@pytest.fixture(autouse=True)
def join_background_threads(clock: FastClock, isolated_home: Path) -> Iterator[None]:
    """Wait for the threads of a load that stopped early: the next test may count requests."""
    del clock, isolated_home  # the threads may need them until they end
    yield
    for thread in threading.enumerate():
        if thread.name in {"qoderdata-fetch", "qoderdata-decode", "qoderdata-events", "qoderdata-import"}:
            thread.join(JOIN_TIMEOUT_S)
            assert not thread.is_alive(), f"{thread.name} is still running after the test"


@pytest.fixture(autouse=True)
def no_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def connect_locally(self: socket.socket, address: tuple[str, int] | str | bytes) -> None:
        is_local = (
            self.family not in {socket.AF_INET, socket.AF_INET6}
            or self.type & socket.SOCK_DGRAM
            or str(address[0]).startswith("127.")
            or address[0] in {"localhost", "::1"}
        )
        if not is_local:
            self.close()
            raise AssertionError(f"a test connected to the internet: {address[0]!r}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_locally)


@dataclass(frozen=True)
class Received:
    """One request that the service received."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    raw_path: str
    port: int = 0


@dataclass
class ScriptedService:
    """A fake service on loopback with given responses: one for each request, the last one for all later ones.

    For invalid responses; valid ones come from the sandbox. A response is the bytes of the whole HTTP response, or
    a function that is called with the socket.
    """

    base_url: str
    responses: list[bytes | Callable[[socket.socket], None]] = field(default_factory=list)
    requests: list[Received] = field(default_factory=list)

    def respond_with(self, *responses: bytes | Callable[[socket.socket], None]) -> None:
        """Set the responses to the next requests."""
        self.responses[:] = responses

    @staticmethod
    def response(status: int = 200, body: bytes = b"{}", **headers: str) -> bytes:
        """Return an HTTP response; ``_`` in the name of a header stands for ``-``."""
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

        def do_GET(self) -> None:  # the name is given by http.server
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
                left = scripted.responses
                response = left.pop(0) if len(left) > 1 else left[0]
            if callable(response):
                self.close_connection = True
                with contextlib.suppress(OSError):
                    response(self.connection)
            else:
                self.wfile.write(response)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        scripted = ScriptedService(f"http://127.0.0.1:{server.server_address[1]}/api/v1/cloud")
        scripted.respond_with(scripted.response())
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield scripted
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Run one Chromium for the tests of a module, each of which opens its own context."""
    from tests.browser import running_browser  # noqa: PLC0415 few tests need it

    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """Start a local Spark session whose time zone is not UTC."""
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
