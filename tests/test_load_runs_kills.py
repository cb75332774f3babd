"""Tests of `load_runs` in processes that are killed with SIGKILL at random times, and of 200,000 runs."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from qoderdata.client import Client
from qoderdata.frames import flatten_runs
from qoderdata.load.runs import load_runs
from qoderdata.sandbox import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

_PULL = """
import sys
from qoderdata.client import Client
from qoderdata.load.runs import load_runs
load_runs(client=Client(pat=sys.argv[1], base_url=sys.argv[2], min_interval=0), cache_dir=sys.argv[3])
"""


def pull_and_kill(sandbox: Sandbox, folder: Path, *, after: int, delay: float) -> bool:
    """Load in a process, kill it `delay` seconds after that many requests; return whether it was still running."""
    seen = len(sandbox.requests)
    with subprocess.Popen([sys.executable, "-c", _PULL, sandbox.pat, sandbox.base_url, str(folder)]) as process:
        while len(sandbox.requests) < seen + after and process.poll() is None:
            time.sleep(0.001)
        time.sleep(delay)
        process.kill()
    return process.returncode != 0


@pytest.mark.parametrize(
    ("runs", "kills"),
    [pytest.param(3_000, 3, id="short"), pytest.param(200_000, 50, id="long", marks=pytest.mark.long)],
)
def test_load_runs_after_kills_returns_all_runs(tmp_path: Path, runs: int, kills: int) -> None:
    rng = random.Random(7)  # noqa: S311 - no secrets
    with Sandbox(deployments=max(250, runs // 100), seed=7, runs=runs) as sandbox:
        pages = -(-runs // 100)
        killed = 0
        for _ in range(kills):
            after = rng.randrange(2 * pages // kills)
            killed += pull_and_kill(sandbox, tmp_path, after=after, delay=rng.uniform(0, 0.03))
        client = Client(pat=sandbox.pat, base_url=sandbox.base_url, min_interval=0)
        frame = load_runs(client=client, cache_dir=tmp_path)
        truth = flatten_runs(sandbox.runs)
        requests = len(sandbox.requests)
    pd.testing.assert_frame_equal(frame, truth)
    assert killed
    # The page size and all pages; and for each kill the page size, the first page, and two pages being loaded.
    assert requests <= 1 + pages + 4 * killed


@pytest.mark.long
def test_load_and_refresh_of_200_000_runs_in_each_edition(tmp_path: Path) -> None:
    """The first load and the refresh send as few requests as possible."""
    with Sandbox(deployments=2_000, seed=7, runs=200_000) as sandbox:
        truth = flatten_runs(sandbox.runs)
        for edition, page in (("A", 1_000), ("B", 100), ("C", 100)):
            sandbox.edition = edition
            before, refused = len(sandbox.requests), edition == "C"
            client = Client(pat=sandbox.pat, base_url=sandbox.base_url, min_interval=0)
            frame = load_runs(client=client, cache_dir=tmp_path / edition)
            pd.testing.assert_frame_equal(frame, truth)
            assert len(sandbox.requests) - before == -(-len(truth) // page) + refused
            new = sandbox.create_runs(1_234)[::-1]
            before = len(sandbox.requests)
            still_open = truth["status"].isin(["pending", "running"]).sum()
            client = Client(pat=sandbox.pat, base_url=sandbox.base_url, min_interval=0)
            frame = load_runs(client=client, cache_dir=tmp_path / edition, refresh=True)
            truth = pd.concat([flatten_runs(new), truth], ignore_index=True)
            pd.testing.assert_frame_equal(frame, truth)
            assert len(sandbox.requests) - before <= 1_234 // page + 2 + still_open
