"""Tests of scans on Spark: rows and summaries equal those of pandas. Need Java; run by ``make test-spark``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pytest

from qoderdata import schema
from qoderdata.client import Client
from qoderdata.frames import to_pandas
from qoderdata.load.runs import load_runs
from qoderdata.load.scans import scan_deployments, scan_runs
from qoderdata.sandbox import Sandbox
from qoderdata.summaries import error_breakdown, failure_rates, failure_streaks, run_failure_rates
from tests.engine_frames import by_id, rows_of
from tests.sandbox_loads import load_account_of_edition_a

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Loaded = tuple[Path, pd.DataFrame, pd.DataFrame]

pytestmark = [
    pytest.mark.spark,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]

ZONE_OF_THE_SESSION = "America/New_York"
RUN_SUMMARIES: dict[str, Callable[[Any], Any]] = {
    "rates": run_failure_rates,
    "days in Shanghai": lambda runs: run_failure_rates(runs, freq="1D", tz="Asia/Shanghai"),
    "errors": error_breakdown,
    "streaks": failure_streaks,
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Load an account once; return the cache folder and the frames of deployments and runs."""
    folder = tmp_path_factory.mktemp("cache of spark")
    return folder, *load_account_of_edition_a(folder, runs=250)


def collected(scanned: Any, of: schema.Schema) -> pd.DataFrame:  # noqa: ANN401 - Spark has no types
    return by_id(to_pandas(scanned.toArrow().cast(of.arrow), of))


@pytest.fixture(autouse=True)
def check_session_time_zone(spark: Any) -> Iterator[None]:  # noqa: ANN401 - Spark has no types
    """Check that scans and summaries leave the time zone of the caller's session unchanged."""
    yield
    assert spark.conf.get("spark.sql.session.timeZone") == ZONE_OF_THE_SESSION


def test_rows_equal_those_of_pandas(loaded: Loaded) -> None:
    folder, deployments, runs = loaded
    scanned = scan_runs(folder, engine="pyspark")
    assert scanned.columns == schema.RUNS.names
    pd.testing.assert_frame_equal(collected(scanned, schema.RUNS), by_id(runs), check_flags=False)
    scanned = scan_deployments(folder, engine="pyspark")
    assert scanned.columns == schema.DEPLOYMENTS.names
    pd.testing.assert_frame_equal(collected(scanned, schema.DEPLOYMENTS), by_id(deployments))


def test_bounds_are_exact_and_only_their_days_are_read(loaded: Loaded) -> None:
    folder, _, runs = loaded
    times = runs["triggered_at"].dropna().sort_values()
    since, until = times.iloc[60], times.iloc[190]
    expected = runs[(runs["triggered_at"] >= since) & (runs["triggered_at"] < until)]
    scanned = scan_runs(folder, engine="pyspark", since=since, until=until)
    pd.testing.assert_frame_equal(collected(scanned, schema.RUNS), by_id(expected))
    days = {path.split("day=")[1][:10] for path in scanned.inputFiles()}
    assert days == {
        f"{time:%Y-%m-%d}" for time in runs["triggered_at"].dropna() if since.floor("D") <= time < until
    }


@pytest.mark.parametrize("name", RUN_SUMMARIES)
def test_summaries_of_runs_equal_those_of_pandas(loaded: Loaded, name: str) -> None:
    folder, _, runs = loaded
    expected = RUN_SUMMARIES[name](runs).reset_index()
    if "window" in expected:
        expected = expected[expected["runs"] > 0]
    summary = RUN_SUMMARIES[name](scan_runs(folder, engine="pyspark"))
    assert rows_of(summary.toArrow()) == rows_of(pa.Table.from_pandas(expected, preserve_index=False))


def test_lifetime_rates_equal_those_of_pandas(loaded: Loaded) -> None:
    folder, deployments, _ = loaded
    summary = failure_rates(scan_deployments(folder, engine="pyspark"))
    expected = failure_rates(deployments).reset_index()
    assert rows_of(summary.toArrow()) == rows_of(pa.Table.from_pandas(expected, preserve_index=False))


def test_account_without_runs_gives_no_rows_and_all_columns(tmp_path: Path) -> None:
    with Sandbox(deployments=2, seed=7, runs=0) as sandbox:
        runs = load_runs(client=Client(pat=sandbox.pat, base_url=sandbox.base_url), cache_dir=tmp_path)
    pd.testing.assert_frame_equal(collected(scan_runs(tmp_path, engine="pyspark"), schema.RUNS), runs)


@pytest.mark.parametrize("name", ["a [b]* ? {c} 'd' day=1", "50 % of a#b, c:d"])
def test_cache_folder_with_special_characters_can_be_scanned(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    _, runs = load_account_of_edition_a(folder, runs=20)
    pd.testing.assert_frame_equal(collected(scan_runs(folder, engine="pyspark"), schema.RUNS), by_id(runs))
