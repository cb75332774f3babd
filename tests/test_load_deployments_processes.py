"""Whole processes: what an import does, two at once on one cache, and one that is killed at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from qoderdata import Client, cache_usage, clear_cache, flatten_deployments, load_deployments
from qoderdata.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Process = subprocess.Popen[str]

SIZE = 100


@pytest.fixture(scope="module")
def account() -> Iterator[Sandbox]:
    with Sandbox(deployments=250, seed=7, runs=250) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def truth(account: Sandbox) -> pd.DataFrame:
    return flatten_deployments(account.deployments)


@pytest.fixture
def sandbox(account: Sandbox) -> Sandbox:
    account.requests.clear()
    return account


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the variables of a machine that is nobody's."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
    return kept | {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"} | more


@contextmanager
def running(program: str, sandbox: Sandbox, folder: Path) -> Iterator[Process]:
    """Run a program that finds `client` and `load()` ready; it is killed at the end, whatever happens."""
    prologue = """
        import os, sys, warnings
        import qoderdata
        warnings.simplefilter("error")
        client = qoderdata.Client(min_interval=0)
        client.page_limit = 100
        def load(**options):
            return qoderdata.load_deployments(include_archived=True, client=client, **options)
    """
    variables = environment(
        folder.parent,
        QODER_PAT=sandbox.pat,
        QODER_MANAGED_BASE_URL=sandbox.base_url,
        QODERDATA_CACHE_DIR=str(folder),
    )
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(prologue) + textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=variables,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def check(sandbox: Sandbox, folder: Path, truth: pd.DataFrame, *, kept: bool) -> None:
    """See that what was killed left either nothing or a whole answer, and that the next call works."""
    client = Client(sandbox.pat, sandbox.base_url)
    options: dict[str, Any] = {"include_archived": True, "client": client, "cache_dir": folder}
    assert cache_usage(folder)["queries"]["files"] == int(kept)
    if kept:
        pd.testing.assert_frame_equal(load_deployments(**options, offline=True), truth)
    pd.testing.assert_frame_equal(load_deployments(**options), truth)
    pd.testing.assert_frame_equal(load_deployments(**options, refresh=True), truth)
    assert cache_usage(folder)["queries"]["files"] == 1
    for path in folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


# -- importing -----------------------------------------------------------------------------------------------

HEAVY = (
    "requests", "urllib3", "matplotlib", "tqdm", "IPython", "ipykernel", "jupyter_core", "jupyterlab", "notebook",
    "duckdb", "polars", "dask", "distributed", "pyspark", "fsspec", "s3fs", "scipy", "hypothesis", "qca",
)  # fmt: skip

IMPORT = """
    import json, sys
    deeds = []
    WRITING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.",
               "socket.", "subprocess.", "os.system", "os.exec", "os.fork", "tempfile.")
    def hook(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            if isinstance(flags, int) and flags & 3 and str(path) != "/dev/null":
                deeds.append([event, str(path)])
        elif event.startswith(WRITING):
            deeds.append([event, repr(arguments)])
    import numpy, pandas, pyarrow.parquet, pyarrow.compute, pyarrow.json   # what they do is theirs
    sys.addaudithook(hook)
    import qoderdata
    from qoderdata import cli, sandbox
    for module in MODULES:
        __import__(module)
    print(json.dumps({"deeds": deeds, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def test_an_import_loads_nothing_heavy_and_touches_neither_disk_nor_network(isolated_home: Path) -> None:
    home = isolated_home
    program = textwrap.dedent(IMPORT).replace("MODULES", repr(["qoderdata.load", "qoderdata.report"]))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=home,
        env=environment(home, QODERDATA_CACHE_DIR=str(home / "cache")),
    )
    told = json.loads(done.stdout)
    assert told["deeds"] == []
    assert set(HEAVY) & set(told["modules"]) == set()
    assert list(home.iterdir()) == []
    assert done.stderr == ""


# -- two at once ---------------------------------------------------------------------------------------------


def test_two_processes_at_once_on_one_cache(sandbox: Sandbox, folder: Path, truth: pd.DataFrame) -> None:
    """Both pull and keep, over and over, while this one reads: a whole answer each time, and no warning."""
    program = """
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(5):
            load(refresh=True)
            frame = load(offline=True)
        print(len(frame), frame.attrs["from_cache"], flush=True)
    """
    client = Client(sandbox.pat, sandbox.base_url)
    load_deployments(include_archived=True, client=client, cache_dir=folder)
    with running(program, sandbox, folder) as one, running(program, sandbox, folder) as other:
        assert (line_of(one), line_of(other)) == ("ready", "ready")
        for process in (one, other):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        reads = 0
        while one.poll() is None or other.poll() is None:
            frame = load_deployments(include_archived=True, client=client, cache_dir=folder, offline=True)
            assert len(frame) == len(truth)
            reads += 1
        pd.testing.assert_frame_equal(frame, truth)
        for process in (one, other):
            out, err = process.communicate()
            assert (process.returncode, out, err) == (0, f"{len(truth)} True\n", "")
    assert reads > 0
    check(sandbox, folder, truth, kept=True)
    snapshots = cache_usage(folder)["snapshots"]["files"]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 1 + snapshots, "the answer, the snapshots, and nothing that was left over"


# -- killed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "kept"), [(0, False), (2, True)])
def test_killed_while_it_pulls(
    sandbox: Sandbox,
    folder: Path,
    truth: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    *,
    kept: bool,
) -> None:
    """The service kills who asks, in the middle of the answer to a certain request."""
    if kept:
        client = Client(sandbox.pat, sandbox.base_url)
        load_deployments(include_archived=True, client=client, cache_dir=folder)
        sandbox.requests.clear()
    assert sandbox._server is not None
    respond = sandbox._respond
    with running("print('ready', flush=True); load(refresh=True)", sandbox, folder) as process:

        def kill(request: Any) -> Any:  # noqa: ANN401 - the sandbox's own types
            answer = respond(request)
            if len(sandbox.requests) == number + 1:
                process.kill()
            return answer

        with monkeypatch.context() as patch:
            patch.setattr(sandbox._server, "respond", kill)
            assert process.wait(timeout=60) == -signal.SIGKILL
    check(sandbox, folder, truth, kept=kept)


@pytest.mark.parametrize(
    ("owner", "name", "kept"),
    [("pyarrow.parquet", "ParquetWriter", False), ("os", "fsync", True), ("pathlib.Path", "replace", True)],
)
def test_killed_while_it_keeps_the_answer(
    sandbox: Sandbox, folder: Path, truth: pd.DataFrame, owner: str, name: str, *, kept: bool
) -> None:
    """What it left half-written is nobody's answer, and goes when the cache is cleared, folders too."""
    if kept:
        client = Client(sandbox.pat, sandbox.base_url)
        load_deployments(include_archived=True, client=client, cache_dir=folder)
    program = f"""
        import pathlib, pyarrow.parquet
        def stop(*arguments, **options):
            print("now", flush=True)
            sys.stdin.readline()
        {owner}.{name} = stop
        load(refresh=True)
    """
    with running(program, sandbox, folder) as process:
        assert line_of(process) == "now"
        process.kill()
        process.wait()
    assert list(folder.rglob("*.tmp")), "it was killed while it wrote"
    check(sandbox, folder, truth, kept=kept)
    snapshots = cache_usage(folder)["snapshots"]["files"]
    assert clear_cache(folder) == 1 + snapshots
    assert list(folder.rglob("*")) == []


PULLING = """
    print("ready", flush=True)
    while True:
        load(refresh=True)
"""
KEEPING = """
    from qoderdata import cache
    kept = []
    cache.write, write = lambda *arguments: kept.append(arguments), cache.write
    load(refresh=True)
    print("ready", flush=True)
    while True:
        write(*kept[0])
"""


@pytest.mark.long
@pytest.mark.parametrize("program", [PULLING, KEEPING], ids=["pulling", "keeping"])
@pytest.mark.parametrize("seed", range(12))
def test_killed_at_any_moment(
    sandbox: Sandbox, folder: Path, truth: pd.DataFrame, program: str, seed: int
) -> None:
    """The moment is of the real clock: that is the point."""
    dice = random.Random(seed)  # noqa: S311 - not for secrets
    for _ in range(2):
        with running(program, sandbox, folder) as process:
            assert line_of(process) == "ready"
            time.sleep(dice.uniform(0, 0.6))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        kept = cache_usage(folder)["queries"]["files"] == 1
        check(sandbox, folder, truth, kept=kept)
