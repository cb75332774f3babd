"""Tests of the summaries on Spark, whose rows are those of pandas. They need Java; run ``make test-spark``."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from qoderdata import decode, frames, schema
from qoderdata.frame_checks import TEXT
from qoderdata.outcomes import open_frame
from qoderdata.sandbox import Sandbox
from qoderdata.summaries import (
    compare_costs,
    dataframe_engines,
    error_budget,
    run_failure_rates,
    session_costs,
    time_windows,
)
from tests.engine_frames import plain
from tests.summary_frames import account_tables
from tests.test_summaries_engines import NOT_ON_DASK, OF_DEPLOYMENTS, SUMMARIES, Summary

pytestmark = [
    pytest.mark.spark,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]

MISSED = pd.DataFrame({
    "scheduled_at": pd.to_datetime(["2025-11-01T00:00Z", "2025-11-02T00:00Z", "2025-11-02T12:00Z"]).as_unit("us"),
    "deployment_id": ["dep_1", "dep_9", "dep_1"],
    "certain": [True, True, False],
})  # fmt: skip
OF_RUNS: dict[str, Summary] = {
    "budget with missed": lambda runs: error_budget(runs, MISSED, by="deployment_id"),
    **{
        name: {**SUMMARIES, **NOT_ON_DASK}[name]
        for name in (
            "rates", "rates of all", "days in Berlin", "hours in Havana", "weeks", "occurrences by day",
            "errors by two", "streaks", "streaks of all", "regressions", "delays", "periods", "messages by one",
            "unusual", "budget by two",
        )
    },
}  # fmt: skip
ACCOUNT: dict[str, Any] = {"deployments": 15, "seed": 7, "runs": 400, "edition": "D"}


@cache
def runs_with_status() -> pd.DataFrame:
    with Sandbox(**ACCOUNT) as sandbox:
        runs = frames.flatten_runs(sandbox.runs)
    return runs.assign(status=pd.Series(["completed", "failed", None] * len(runs), dtype=TEXT))


OF_SESSIONS: dict[str, Summary] = {
    "costs": session_costs,
    "costs of all": lambda sessions: session_costs(sessions, None),
    "compared costs": lambda sessions: compare_costs(sessions, recent="5D", baseline="12D"),
    "costs by month in Berlin": lambda sessions: session_costs(sessions, freq="1M", tz="Europe/Berlin"),
    "costs by day in Havana": lambda sessions: session_costs(sessions, freq="1D", tz="America/Havana"),
    "costs by outcome": lambda sessions: session_costs(
        frames.with_outcomes(sessions, runs_with_status()), "outcome"
    ),
}


def random_runs(seed: int) -> pa.Table:
    """Draw runs with missing keys, times and values, around the night when Havana's clocks go back."""
    draw = random.Random(seed)  # noqa: S311 no secret
    start = datetime(2025, 10, 30, 20, tzinfo=UTC)

    def time() -> datetime | None:
        return None if draw.random() < 0.1 else start + timedelta(minutes=30 * draw.randrange(24 * 6))

    rows = [
        {
            "id": f"r{i:03}",
            "deployment_id": draw.choice(["dep_1", "dep_2", None]),
            "agent_id": draw.choice(["a", None]),
            "status": draw.choice(
                ["completed", "completed", "failed", "failed", "skipped", "running", "cancelled", "waiting", None]
            ),
            "status_from": draw.choice(["service", "session", None]),
            "trigger_scheduled_at": time(),
            "created_at": time(),
            "trigger_type": draw.choice(["schedule", "retry", None]),
            "attempt": draw.choice([1, 2, 3, None]),
            "triggered_at": time(),
            "started_at": time(),
            "duration_ms": draw.choice([None, draw.randrange(10**6)]),
            "error_type": draw.choice(["timeout", "api", None]),
            "error_message": draw.choice(["no answer in 3 s", "can't open 'x'", "no \\B C:\\x", None]),
        }
        for i in range(40)
    ]
    return pa.Table.from_pylist(rows, schema.RUNS.arrow)


def cells(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: plain(value) for name, value in row.items()} for row in rows]


def compare(session: Any, summarise: Summary, table: pa.Table, table_schema: schema.Schema) -> None:  # noqa: ANN401 a SparkSession
    """Assert that a summary on Spark has the rows of pandas, without empty windows."""
    on_pandas = summarise(frames.to_pandas(table, table_schema))
    if "window" in on_pandas.index.names:
        on_pandas = on_pandas[on_pandas["runs" if "runs" in on_pandas else "sessions"] > 0]
    keyed = on_pandas if on_pandas.index.names == [None] else on_pandas.reset_index()
    without_lists = table.drop_columns(
        [name for name in ("schedule_upcoming_runs_at", "vault_ids") if name in table.column_names]
    )
    on_spark = summarise(session.createDataFrame(without_lists))
    assert on_spark.columns == list(keyed.columns)
    expected = cells(pa.Table.from_pandas(keyed, preserve_index=False).to_pylist())
    assert cells(on_spark.toArrow().to_pylist()) == expected


@pytest.mark.parametrize("name", OF_RUNS)
def test_run_summaries_have_the_rows_of_pandas(spark: Any, name: str) -> None:  # noqa: ANN401
    compare(spark, OF_RUNS[name], account_tables()[1], schema.RUNS)


@pytest.mark.parametrize("name", OF_SESSIONS)
def test_session_costs_have_the_rows_of_pandas(spark: Any, name: str) -> None:  # noqa: ANN401
    with Sandbox(**ACCOUNT) as sandbox:
        table = decode.from_records(sandbox.sessions, schema.SESSIONS)
    both = pa.concat_tables([table.slice(0, 50), table]).combine_chunks()  # Spark reads the first chunk only
    halves = pc.divide(both["usage_total_credits"], pa.array([2.0] * 50 + [1.0] * len(table)))
    index = both.column_names.index("usage_total_credits")
    compare(spark, OF_SESSIONS[name], both.set_column(index, "usage_total_credits", halves), schema.SESSIONS)


@pytest.mark.parametrize("name", ["by id", "by two", "of all"])
def test_failure_rates_have_the_rows_of_pandas(spark: Any, name: str) -> None:  # noqa: ANN401
    compare(spark, OF_DEPLOYMENTS[name], account_tables()[0], schema.DEPLOYMENTS)


@pytest.mark.filterwarnings("ignore::qoderdata.errors.UnknownOutcomesWarning")  # statuses are random
@pytest.mark.parametrize("name", OF_RUNS)
@pytest.mark.parametrize("seed", range(3))
def test_run_summaries_of_random_runs_have_the_rows_of_pandas(spark: Any, name: str, seed: int) -> None:  # noqa: ANN401
    compare(spark, OF_RUNS[name], random_runs(seed), schema.RUNS)


@pytest.mark.parametrize("name", ["rates", "days in Berlin", "errors by two", "streaks"])
def test_run_summaries_of_no_runs_have_the_columns_of_pandas(spark: Any, name: str) -> None:  # noqa: ANN401
    compare(spark, OF_RUNS[name], schema.RUNS.arrow.empty_table(), schema.RUNS)


def test_key_with_a_dot_in_its_name_is_refused(spark: Any) -> None:  # noqa: ANN401
    runs = spark.createDataFrame(account_tables()[1]).withColumnRenamed("agent_id", "metadata_cost.center")
    names = ("metadata_cost.center", "metadata_cost_center")
    with pytest.raises(ValueError, match=re.escape(f"rename the column: frame.withColumnRenamed{names}")):
        run_failure_rates(runs, names[0])
    assert names[1] in run_failure_rates(runs.withColumnRenamed(*names), names[1]).columns


def test_session_time_zone_is_not_changed_and_not_used(spark: Any) -> None:  # noqa: ANN401
    """Windows are those of `tz`, even if the session's zone changes before they are computed."""
    runs = account_tables()[1]
    rates = run_failure_rates(spark.createDataFrame(runs), None, freq="1D", tz="Asia/Shanghai")
    assert spark.conf.get("spark.sql.session.timeZone") == "America/New_York"
    on_pandas = run_failure_rates(frames.to_pandas(runs, schema.RUNS), None, freq="1D", tz="Asia/Shanghai")
    expected = [window.tz_convert("UTC") for window in on_pandas.index[on_pandas["runs"] > 0]]
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    try:
        got = [value.astimezone(UTC) for value in rates.toArrow()["window"].to_pylist()]
    finally:
        spark.conf.set("spark.sql.session.timeZone", "America/New_York")
    assert got == expected


@pytest.mark.parametrize(
    "zone",
    [
        "Africa/Cairo", "America/Havana", "America/Sao_Paulo", "Asia/Amman", "Asia/Beirut", "Asia/Chita",
        "Atlantic/Azores", "Australia/Lord_Howe", "Pacific/Apia", "Europe/Berlin", "UTC",
    ],
)  # fmt: skip
def test_first_instant_of_days_equals_pandas(spark: Any, zone: str) -> None:  # noqa: ANN401
    days = pd.date_range("2010-01-01", "2025-12-31", freq="D").as_unit("us").astype("int64")
    table = open_frame(spark.createDataFrame(pa.table({"day": pa.array(days)})))
    begins = (
        dataframe_engines.add_column(table.lazy(), "begins", time_windows.first_instant(zone), "day")
        .to_native()
        .toArrow()["begins"]
    )
    expected = time_windows.first_instant(zone).pandas(pd.Series(days, dtype="Int64"))
    assert begins.to_pylist() == expected.tolist()


def test_with_names_adds_the_names_of_pandas(spark: Any) -> None:  # noqa: ANN401
    """A summary of the result has a name column too."""
    deployments_table, runs_table = account_tables()
    df, runs = frames.to_pandas(deployments_table, schema.DEPLOYMENTS), frames.to_pandas(runs_table, schema.RUNS)
    lists = (df, spark.createDataFrame(deployments_table.select(["id", "name", "metadata"])))
    expected = frames.with_names(runs, df, metadata=["team"]).sort_values("id", ignore_index=True)
    for deployments in lists:
        named = frames.with_names(spark.createDataFrame(runs_table), deployments, metadata=["team"])
        assert named.columns == list(expected.columns)
        found = named.toArrow().to_pandas().sort_values("id", ignore_index=True)
        for name in ("id", "deployment_id", "deployment_name", "metadata_team"):
            assert found[name].fillna("").to_list() == expected[name].fillna("").to_list()
        rates = run_failure_rates(named).toArrow().to_pandas()
        assert rates["name"].to_list() == run_failure_rates(expected)["name"].to_list()
