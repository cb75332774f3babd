"""Tests of scans on a Dask cluster of two worker processes: tasks can be serialized, and results are right."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import distributed
import pytest

from qoderdata.errors import DataQualityWarning
from qoderdata.load.scans import scan_deployments, scan_runs
from qoderdata.summaries import error_breakdown, failure_rates, failure_streaks, run_failure_rates
from tests.engine_frames import rows_of
from tests.sandbox_loads import load_account_of_edition_a

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pandas as pd

    Loaded = tuple[Path, pd.DataFrame, pd.DataFrame]


@pytest.fixture(scope="module")
def cluster() -> Iterator[distributed.Client]:
    """Start a cluster on loopback; Dask computes everything there meanwhile."""
    with (
        distributed.LocalCluster(  # type: ignore[no-untyped-call] # Dask has no types
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as local,
        distributed.Client(local) as client,  # type: ignore[no-untyped-call] # likewise
    ):
        yield client


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Load an account once; return the cache folder and the frames of deployments and runs."""
    folder = tmp_path_factory.mktemp("cache")
    return folder, *load_account_of_edition_a(folder, runs=30)


RUN_SUMMARIES: dict[str, Callable[[Any], Any]] = {
    "rates": run_failure_rates,
    "days in Shanghai": lambda runs: run_failure_rates(runs, freq="1D", tz="Asia/Shanghai"),
    "errors by agent": lambda runs: error_breakdown(runs, "agent_id"),
}


def test_workers_are_separate_processes(cluster: distributed.Client) -> None:
    """Threads would not show that tasks can be serialized."""
    processes = set(cluster.run(os.getpid).values())
    assert len(processes) == 2
    assert os.getpid() not in processes


@pytest.mark.parametrize("name", RUN_SUMMARIES)
@pytest.mark.usefixtures("cluster")
def test_summaries_of_runs_equal_those_of_pandas(loaded: Loaded, name: str) -> None:
    folder, _, runs = loaded
    with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
        summary = RUN_SUMMARIES[name](scan_runs(folder, engine="dask")).compute()
    expected = RUN_SUMMARIES[name](runs)
    if "runs" in expected:
        expected = expected[expected["runs"] > 0].assign(duration_p50_ms=None, duration_p95_ms=None)
    assert len(expected)
    assert rows_of(summary) == rows_of(expected)


@pytest.mark.usefixtures("cluster")
def test_lifetime_rates_equal_those_of_pandas(loaded: Loaded) -> None:
    folder, deployments, _ = loaded
    summary = failure_rates(scan_deployments(folder, engine="dask"), "agent_id").compute()
    assert rows_of(summary) == rows_of(failure_rates(deployments, "agent_id"))


def test_failure_streaks_on_dask_raises_not_implemented_error(loaded: Loaded) -> None:
    folder, _, _ = loaded
    with pytest.raises(NotImplementedError, match=r"failure_streaks needs .* Dask .*engine='duckdb'"):
        failure_streaks(scan_runs(folder, engine="dask"))
