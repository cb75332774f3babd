"""Sandboxes with runs of a few days, and the frames that are expected from them.

A store has a file for each day, and reading and writing these files takes most of the time of a test of the
loaders. The histories that a sandbox generates spread a few hundred runs over weeks or months.
"""

from __future__ import annotations

import contextlib
import functools
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from qoderdata.client import Client
from qoderdata.frames import flatten_runs
from qoderdata.load.lists import load_deployments
from qoderdata.load.runs import load_runs
from qoderdata.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


#: In nanoseconds, the unit of the sandbox's times.
_MINUTE = 60 * 10**9


@contextlib.contextmanager
def sandbox_with_newest(
    runs: int, *, deployments: int = 60, generated: int = 600, seed: int = 7, edition: str = "C"
) -> Iterator[Sandbox]:
    """Serve an account with only the newest of its `generated` runs; 60 deployments start about 350 in 8 days."""
    with Sandbox(deployments=deployments, seed=seed, runs=generated, edition=edition) as sandbox:
        with sandbox._database as database:  # its columns, because making all records takes long
            created = database.runs.columns["created"]
            first = np.sort(created)[-runs]
            database.runs.forget(created < first)
            database.sessions.forget(database.sessions.columns["created"] < first - _MINUTE)
            assert database.runs.columns["kept"].sum() == runs
        yield sandbox


def load(sandbox: Sandbox, folder: Path | str, *, client: Client | None = None, **options: Any) -> pd.DataFrame:  # noqa: ANN401
    """Load the runs, with a new client by default."""
    client = client or Client(pat=sandbox.pat, base_url=sandbox.base_url)
    return load_runs(client=client, cache_dir=folder, **options)


def load_account_of_edition_a(folder: Path, runs: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Load the deployments and the runs of an account of edition A, and return their frames."""
    with Sandbox(deployments=20, seed=7, runs=runs, edition="A") as sandbox:
        client = Client(pat=sandbox.pat, base_url=sandbox.base_url, min_interval=0)
        return load_deployments(client=client, cache_dir=folder), load_runs(client=client, cache_dir=folder)


@functools.cache
def _flatten_json(records: str) -> pd.DataFrame:
    return flatten_runs(json.loads(records))


def expected_runs(sandbox: Sandbox, is_wanted: Callable[[dict[str, Any]], bool] = lambda _: True) -> pd.DataFrame:
    """Return the frame of the runs of the account that are wanted."""
    return _flatten_json(json.dumps([run for run in sandbox.runs if is_wanted(run)]))


def triggered_at(run: dict[str, Any]) -> pd.Timestamp:
    """Return the trigger time of a run record."""
    return pd.Timestamp(run["triggered_at"])
