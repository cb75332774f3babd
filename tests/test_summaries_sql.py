"""Tests of summaries against SQL: DuckDB recomputes them from exported Parquet files, without this package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pandas as pd
import pytest

import qoderdata as qd
from qoderdata.sandbox import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

WILSON = """
    (p + z * z / (2 * n) - z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (1 + z * z / n) AS ci_low,
    (p + z * z / (2 * n) + z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (1 + z * z / n) AS ci_high
"""
#: The normal quantile of a 95 % interval, as printed in tables.
Z = "1.959963984540054 AS z"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame, Path]:
    folder = tmp_path_factory.mktemp("exported")
    with Sandbox(deployments=150, seed=11) as sandbox:
        deployments = qd.flatten_deployments(sandbox.deployments)
        runs = qd.flatten_runs(sandbox.runs)
    qd.export_parquet(deployments, folder / "deployments.parquet")
    qd.export_parquet(runs, folder / "runs.parquet")
    return deployments, runs, folder


def sql(query: str, folder: Path) -> pd.DataFrame:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(query.replace("$", f"{folder}/")).df()


@pytest.mark.parametrize("by", ["id", "agent_id", "environment_id", "status"])
def test_failure_rates_and_intervals_equal_those_in_sql(
    by: str, exported: tuple[pd.DataFrame, pd.DataFrame, Path]
) -> None:
    deployments, _, folder = exported
    expected = sql(
        f"""SELECT *, {WILSON} FROM (
            SELECT {by}, sum(stats_total_runs) AS n, sum(stats_total_failures) AS failed,
                failed / nullif(n, 0) AS p, {Z}
            FROM '$deployments.parquet' GROUP BY ALL)""",  # noqa: S608 - the test's own words
        folder,
    ).set_index(by)
    rates = qd.failure_rates(deployments, by=by)
    assert len(rates) == len(expected)
    for column, name in {
        "failure_rate": "p",
        "ci_low": "ci_low",
        "ci_high": "ci_high",
        "total_runs": "n",
    }.items():
        pd.testing.assert_series_equal(
            rates[column].astype("float64"),
            expected[name].reindex(rates.index).astype("float64"),
            check_names=False,
            check_index_type=False,
            rtol=1e-12,
        )


def test_daily_run_failure_rates_and_durations_equal_those_in_sql(
    exported: tuple[pd.DataFrame, pd.DataFrame, Path],
) -> None:
    _, runs, folder = exported
    expected = sql(
        f"""SELECT *, {WILSON} FROM (
            SELECT date_trunc('day', triggered_at) AS day,
                count(*) FILTER (status = 'failed') AS failed,
                failed + count(*) FILTER (status = 'completed') AS n,
                failed / nullif(n, 0) AS p, {Z},
                quantile_cont(duration_ms, 0.5) FILTER (status = 'completed') AS p50,
                quantile_cont(duration_ms, 0.95) FILTER (status = 'completed') AS p95
            FROM '$runs.parquet' GROUP BY ALL)""",  # noqa: S608 - the test's own words
        folder,
    ).set_index("day")
    rates = qd.run_failure_rates(runs, by=None, freq="1D")
    with_runs = rates[rates["runs"] > 0]
    assert len(with_runs) == len(expected)
    names = {"failure_rate": "p", "ci_low": "ci_low", "ci_high": "ci_high", "failed": "failed"}
    for column, name in {**names, "duration_p50_ms": "p50", "duration_p95_ms": "p95"}.items():
        pd.testing.assert_series_equal(
            with_runs[column].astype("float64").reset_index(drop=True),
            expected[name].sort_index().astype("float64").reset_index(drop=True),
            check_names=False,
            rtol=1e-12,
        )
    empty = rates[rates["runs"] == 0]
    assert len(empty) == len(pd.date_range(expected.index.min(), expected.index.max(), freq="D")) - len(expected)
    assert empty["failure_rate"].isna().all()


def test_current_streaks_equal_those_in_sql(exported: tuple[pd.DataFrame, pd.DataFrame, Path]) -> None:
    """The current streak of a deployment is the number of failures after its last success."""
    _, runs, folder = exported
    expected = sql(
        """SELECT deployment_id,
                count(*) FILTER (status = 'failed' AND (happened > coalesce(done, '-infinity'))) AS streak
            FROM (
            SELECT deployment_id, status, triggered_at AS happened,
                max(triggered_at) FILTER (status = 'completed') OVER (PARTITION BY deployment_id) AS done
            FROM '$runs.parquet') GROUP BY ALL""",
        folder,
    ).set_index("deployment_id")["streak"]
    streaks = qd.failure_streaks(runs)["current_streak"]
    assert streaks.max() > 1
    assert streaks.astype("int64").to_dict() == expected.astype("int64").to_dict()
