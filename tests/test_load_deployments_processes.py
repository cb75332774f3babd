"""Tests of imports, of two processes with one cache, and of killed processes."""

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

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qoderdata.sandbox import Sandbox

    Process = subprocess.Popen[str]

SIZE = 100
SANDBOX = {"deployments": 250, "seed": 7, "runs": 250}


@pytest.fixture(scope="module")
def truth(sandbox: Sandbox) -> pd.DataFrame:
    return flatten_deployments(sandbox.deployments)


@pytest.fixture(autouse=True)
def forget_requests(sandbox: Sandbox) -> None:
    sandbox.requests.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return environment variables without the settings of this machine."""
    variables = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
    return variables | {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"} | more


@contextmanager
def running(program: str, sandbox: Sandbox, folder: Path) -> Iterator[Process]:
    """Run a program that can use `client` and `load()`; kill it at the end in any case."""
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


def read_line(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def check(sandbox: Sandbox, folder: Path, truth: pd.DataFrame, *, is_cached: bool) -> None:
    """Check that the cache has no answer or a whole one, and that the next load works."""
    client = Client(sandbox.pat, sandbox.base_url)
    options: dict[str, Any] = {"include_archived": True, "client": client, "cache_dir": folder}
    assert cache_usage(folder)["queries"]["files"] == int(is_cached)
    if is_cached:
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
    actions = []
    WRITING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.",
               "socket.", "subprocess.", "os.system", "os.exec", "os.fork", "tempfile.")
    def hook(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            if isinstance(flags, int) and flags & 3 and str(path) != "/dev/null":
                actions.append([event, str(path)])
        elif event.startswith(WRITING):
            actions.append([event, repr(arguments)])
    import numpy, pandas, pyarrow.parquet, pyarrow.compute, pyarrow.json   # not what is tested
    sys.addaudithook(hook)
    import qoderdata
    from qoderdata import cli, sandbox
    for module in MODULES:
        __import__(module)
    print(json.dumps({"actions": actions, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def test_import_loads_no_heavy_module_and_uses_no_disk_or_network(isolated_home: Path) -> None:
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
    result = json.loads(done.stdout)
    assert result["actions"] == []
    assert set(HEAVY) & set(result["modules"]) == set()
    assert list(home.iterdir()) == []
    assert done.stderr == ""


# -- two at once ---------------------------------------------------------------------------------------------


def test_two_processes_can_write_one_cache_at_once(sandbox: Sandbox, folder: Path, truth: pd.DataFrame) -> None:
    """Two processes load and write the cache while this one reads it: each answer is whole, without a warning."""
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
        assert (read_line(one), read_line(other)) == ("ready", "ready")
        for process in (one, other):
            assert process.stdin is not None
            process.stdin.write("start\n")
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
    check(sandbox, folder, truth, is_cached=True)
    snapshots = cache_usage(folder)["snapshots"]["files"]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 1 + snapshots, "only the answer and the snapshots are left"


# -- killed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("request_number", "is_cached"), [(0, False), (2, True)])
def test_kill_during_a_pull_leaves_the_cache_as_it_was(
    sandbox: Sandbox,
    folder: Path,
    truth: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    request_number: int,
    *,
    is_cached: bool,
) -> None:
    """The process is killed during the response to a given request."""
    if is_cached:
        client = Client(sandbox.pat, sandbox.base_url)
        load_deployments(include_archived=True, client=client, cache_dir=folder)
        sandbox.requests.clear()
    assert sandbox._server is not None
    respond = sandbox._respond
    with running("print('ready', flush=True); load(refresh=True)", sandbox, folder) as process:

        def kill(request: Any) -> Any:  # noqa: ANN401 - private types of the sandbox
            answer = respond(request)
            if len(sandbox.requests) == request_number + 1:
                process.kill()
            return answer

        with monkeypatch.context() as patch:
            patch.setattr(sandbox._server, "respond", kill)
            assert process.wait(timeout=60) == -signal.SIGKILL
    check(sandbox, folder, truth, is_cached=is_cached)


@pytest.mark.parametrize(
    ("owner", "name", "is_cached"),
    [("pyarrow.parquet", "ParquetWriter", False), ("os", "fsync", True), ("pathlib.Path", "replace", True)],
)
def test_kill_while_the_answer_is_written_leaves_the_cache_as_it_was(
    sandbox: Sandbox, folder: Path, truth: pd.DataFrame, owner: str, name: str, *, is_cached: bool
) -> None:
    """A partly written file is not used, and `clear_cache` removes it and all folders."""
    if is_cached:
        client = Client(sandbox.pat, sandbox.base_url)
        load_deployments(include_archived=True, client=client, cache_dir=folder)
    program = f"""
        import pathlib, pyarrow.parquet
        def stop(*arguments, **options):
            print("writing", flush=True)
            sys.stdin.readline()
        {owner}.{name} = stop
        load(refresh=True)
    """
    with running(program, sandbox, folder) as process:
        assert read_line(process) == "writing"
        process.kill()
        process.wait()
    assert list(folder.rglob("*.tmp")), "the process is killed while it writes"
    check(sandbox, folder, truth, is_cached=is_cached)
    snapshots = cache_usage(folder)["snapshots"]["files"]
    assert clear_cache(folder) == 1 + snapshots
    assert list(folder.rglob("*")) == []


PULL_IN_A_LOOP = """
    print("ready", flush=True)
    while True:
        load(refresh=True)
"""
WRITE_IN_A_LOOP = """
    from qoderdata import cache
    answers = []
    cache.write, write = lambda *arguments: answers.append(arguments), cache.write
    load(refresh=True)
    print("ready", flush=True)
    while True:
        write(*answers[0])
"""


@pytest.mark.long
@pytest.mark.parametrize("program", [PULL_IN_A_LOOP, WRITE_IN_A_LOOP], ids=["load", "write"])
@pytest.mark.parametrize("seed", range(12))
def test_kill_at_a_random_time_leaves_a_usable_cache(
    sandbox: Sandbox, folder: Path, truth: pd.DataFrame, program: str, seed: int
) -> None:
    """The delay uses the real clock, so that the kill is at a random point."""
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    for _ in range(2):
        with running(program, sandbox, folder) as process:
            assert read_line(process) == "ready"
            time.sleep(rng.uniform(0, 0.6))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        is_cached = cache_usage(folder)["queries"]["files"] == 1
        check(sandbox, folder, truth, is_cached=is_cached)
