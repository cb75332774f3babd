"""Tests of the summaries on each dataframe engine: the rows and their order are those of pandas."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import duckdb
import narwhals as nw
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoderdata import frames, schema
from qoderdata.errors import DataQualityWarning
from qoderdata.summaries import (
    compare_periods,
    duration_regressions,
    error_breakdown,
    error_budget,
    error_groups,
    failure_rates,
    failure_streaks,
    run_failure_rates,
    start_delays,
    unusual_runs,
)
from tests.engine_frames import ZONE_OF_THE_SESSION, collected, computed, opened, quietly, rows_of
from tests.summary_frames import account_tables

EAGER = ["polars", "pyarrow"]
LAZY = ["polars lazy", "duckdb", "dask"]
ALL_BUT_DASK = ["polars", "pyarrow", "polars lazy", "duckdb"]
DURATIONS = ["duration_p50_ms", "duration_p95_ms"]


def to_engine(table: pa.Table, table_schema: schema.Schema, engine: str) -> Any:  # noqa: ANN401 a frame of any engine
    """Return the table as a frame of this engine."""
    return opened(frames.to_pandas(table, table_schema) if engine in {"pandas", "dask"} else table, engine)


def compare(summarise: Summary, native: Any, engine: str, expected: list[dict[str, Any]]) -> None:  # noqa: ANN401
    """Assert that a summary has the rows of pandas on this engine, but for the documented differences."""
    got = rows_of(computed(quietly(summarise, native)))
    if engine in LAZY and expected and "window" in expected[0]:
        expected = [row for row in expected if row["runs"]]
    if engine == "dask":
        expected = [{**row, **dict.fromkeys(set(DURATIONS) & set(row))} for row in expected]
    assert got == expected
    assert [list(row) for row in got] == [list(row) for row in expected]


def compare_all(summarise: Summary, table: pa.Table, table_schema: schema.Schema, engines: list[str]) -> None:
    expected = rows_of(quietly(summarise, to_engine(table, table_schema, "pandas")))
    for engine in engines:
        compare(summarise, to_engine(table, table_schema, engine), engine, expected)


Summary = Callable[[Any], Any]
NOW = datetime(2026, 6, 15, tzinfo=UTC)
TIMEOUTS = pd.DataFrame({"id": ["dep_1", "dep_2"], "config_timeout_ms": pd.array([1000, None], dtype="Int64")})
SUMMARIES: dict[str, Summary] = {
    "rates": run_failure_rates,
    "rates by two": lambda runs: run_failure_rates(runs, ["agent_id", "trigger_type"]),
    "rates of all": lambda runs: run_failure_rates(runs, None),
    "days in Berlin": lambda runs: run_failure_rates(runs, freq="1D", tz="Europe/Berlin"),
    "hours in Havana": lambda runs: run_failure_rates(runs, None, freq="6h", tz="America/Havana"),
    "weeks": lambda runs: run_failure_rates(runs, "agent_id", freq="1W"),
    "errors": error_breakdown,
    "errors by one": lambda runs: error_breakdown(runs, "deployment_id"),
    "errors by two": lambda runs: error_breakdown(runs, ["agent_id", "trigger_type"]),
    "budget": error_budget,
    "budget by two": lambda runs: error_budget(runs, by=["agent_id", "trigger_type"], window="12h"),
}
#: Summaries that need the order of runs, or percentiles within groups, which Dask does not support.
NOT_ON_DASK: dict[str, Summary] = {
    "streaks": failure_streaks,
    "streaks by two": lambda runs: failure_streaks(runs, ["agent_id", "trigger_type"]),
    "streaks of all": lambda runs: failure_streaks(runs, None),
    "occurrences": lambda runs: run_failure_rates(runs, per="occurrence"),
    "occurrences by day": lambda runs: run_failure_rates(runs, freq="1D", tz="Asia/Beirut", per="occurrence"),
    "regressions": lambda runs: duration_regressions(
        runs, recent="12h", baseline="2D", min_runs=1, min_change_ms=1
    ),
    "delays": start_delays,
    "periods": lambda runs: compare_periods(runs, recent="12h", baseline="2D"),
    "periods by two": lambda runs: compare_periods(runs, ["agent_id", "trigger_type"], recent="1D"),
    "messages": error_groups,
    "messages by one": lambda runs: error_groups(runs, "deployment_id"),
    "unusual": lambda runs: unusual_runs(runs, TIMEOUTS, now=NOW, threshold=1, min_runs=2),
}
OF_RUNS = {**SUMMARIES, **NOT_ON_DASK}
#: Summaries that each read times in a different way.
READ_TIMES = [
    "days in Berlin", "hours in Havana", "errors", "budget", "streaks", "occurrences by day", "regressions",
    "delays", "periods", "messages", "unusual",
]  # fmt: skip
OF_DEPLOYMENTS: dict[str, Summary] = {
    "by id": failure_rates,
    "by one": lambda df: failure_rates(df, "agent_id"),
    "by two": lambda df: failure_rates(df, ["status", "agent_id"]),
    "of all": lambda df: failure_rates(df, None),
}


@cache
def pandas_rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of a summary of the account on pandas."""
    if name in OF_DEPLOYMENTS:
        return rows_of(quietly(OF_DEPLOYMENTS[name], deployments_on("pandas")))
    return rows_of(quietly(OF_RUNS[name], runs_on("pandas")))


@cache
def deployments_on(engine: str) -> Any:  # noqa: ANN401 a frame of any engine
    """Return the deployments of the account as a frame of this engine; summaries do not change it."""
    return to_engine(account_tables()[0], schema.DEPLOYMENTS, engine)


@cache
def runs_on(engine: str) -> Any:  # noqa: ANN401 a frame of any engine
    """Return the runs of the account as a frame of this engine; summaries do not change it."""
    return to_engine(account_tables()[1], schema.RUNS, engine)


@pytest.mark.parametrize("engine", [*EAGER, *LAZY])
@pytest.mark.parametrize("name", ["rates by two", "days in Berlin", "hours in Havana", "errors by one"])
def test_run_summaries_have_the_rows_of_pandas(name: str, engine: str) -> None:
    compare(SUMMARIES[name], runs_on(engine), engine, pandas_rows(name))


def test_pyarrow_gives_each_of_many_groups_its_own_error_shares() -> None:
    """PyArrow joins in chunks of 32,768 rows and does not keep their order."""
    rows = [(f"d{i}", "timeout" if j else "api") for i in range(80_000) for j in range(i % 5 + 1)]
    table = pa.table(dict(zip(["deployment_id", "error_type"], zip(*rows, strict=True), strict=True)))
    table = table.append_column("status", [["failed"] * len(rows)]).append_column(
        "triggered_at", [[NOW] * len(rows)]
    )
    found = error_breakdown(table, "deployment_id").to_pandas()
    failures = pd.Series([row[0] for row in rows]).value_counts()
    assert len(found) == 144_000
    assert (found["share"] == found["count"] / found["deployment_id"].map(failures)).all()


def test_pyarrow_gives_windows_of_many_groups_their_own_names() -> None:
    ids = [f"d{i}" for i in range(40_000)]
    hour = timedelta(hours=1)
    table = pa.table({
        "deployment_id": ids, "deployment_name": [f"name of {one}" for one in ids],
        "status": ["failed"] * len(ids), "duration_ms": pa.nulls(len(ids), pa.int64()),
        "triggered_at": [NOW + hour * (i % 3) for i in range(len(ids))],
    })  # fmt: skip
    found = run_failure_rates(table, freq="1h").to_pandas()
    assert len(found) == 3 * len(ids)
    assert (found["name"] == "name of " + found["deployment_id"]).all()


@pytest.mark.parametrize(
    "summarise",
    [
        lambda runs, by: run_failure_rates(runs, by, freq="1D", tz="Europe/Berlin"),
        lambda runs, by: failure_streaks(runs, [by, "trigger_type"]),
        error_groups,
        failure_rates,
    ],
)
def test_groups_by_a_column_with_a_dot_in_its_name_are_those_of_pandas(
    summarise: Callable[[Any, str], Any],
) -> None:
    deployments, runs = account_tables()
    key, table = "metadata_cost.center", deployments if summarise is failure_rates else runs
    table = table.rename_columns({"agent_id": key})
    expected = rows_of(quietly(lambda frame: summarise(frame, key), table.to_pandas()))
    for engine in [*EAGER, "duckdb"]:
        compare(lambda frame: summarise(frame, key), opened(table, engine), engine, expected)


def test_categories_as_names_on_dask_give_the_rows_of_text() -> None:
    runs = frames.to_pandas(account_tables()[1], schema.RUNS)
    runs = runs.assign(deployment_name="name of " + runs["deployment_id"])
    expected = rows_of(run_failure_rates(runs))
    compare(run_failure_rates, opened(runs.astype({"deployment_name": "category"}), "dask"), "dask", expected)


@pytest.mark.parametrize("engine", ALL_BUT_DASK)
@pytest.mark.parametrize(
    "name", ["streaks", "occurrences by day", "regressions", "periods", "messages", "unusual"]
)
def test_run_summaries_that_dask_lacks_have_the_rows_of_pandas(name: str, engine: str) -> None:
    compare(NOT_ON_DASK[name], runs_on(engine), engine, pandas_rows(name))


@pytest.mark.parametrize("engine", [*EAGER, *LAZY])
@pytest.mark.parametrize("name", ["by id", "by two"])
def test_deployment_summaries_have_the_rows_of_pandas(name: str, engine: str) -> None:
    compare(OF_DEPLOYMENTS[name], deployments_on(engine), engine, pandas_rows(name))


NO_RUNS = frames.to_pandas(schema.RUNS.arrow.empty_table(), schema.RUNS)


@cache
def columns_of(name: str) -> list[str]:
    """Return the columns of a summary of no runs on pandas, keys first."""
    names: list[str] = collected(OF_RUNS[name](NO_RUNS)).column_names
    return names


@pytest.mark.parametrize("engine", [*EAGER, *LAZY])
def test_empty_frames_have_the_columns_of_pandas(engine: str) -> None:
    """Expect no rows, and the same columns in the same order."""
    native = to_engine(schema.RUNS.arrow.empty_table(), schema.RUNS, engine)
    names = ["rates by two", "hours in Havana", "errors by one", "budget by two"]
    if engine != "dask":
        names += [
            "streaks",
            "occurrences by day",
            "regressions",
            "delays",
            "periods",
            "messages by one",
            "unusual",
        ]
    for name in names:
        result = collected(computed(quietly(OF_RUNS[name], native)))
        assert (result.column_names, len(result)) == (columns_of(name), 0)


HOURS = st.integers(0, 24 * 6).map(lambda n: datetime(2025, 10, 30, 20, tzinfo=UTC) + timedelta(minutes=30 * n))
RUNS = st.lists(
    st.fixed_dictionaries(
        {
            "deployment_id": st.sampled_from(["dep_1", "dep_2", None]),
            "agent_id": st.sampled_from(["a", None]),
            "status": st.sampled_from(
                ["completed", "completed", "failed", "failed", "skipped", "running", "cancelled", "waiting", None]
            ),
            "status_from": st.sampled_from(["service", "session", None]),
            "trigger_scheduled_at": st.one_of(st.none(), HOURS),
            "created_at": st.one_of(st.none(), HOURS),
            "trigger_type": st.sampled_from(["schedule", "retry", None]),
            "attempt": st.sampled_from([1, 2, 3, None]),
            "triggered_at": st.one_of(st.none(), HOURS),
            "started_at": st.one_of(st.none(), HOURS),
            "duration_ms": st.one_of(st.none(), st.integers(0, 10**6)),
            "error_type": st.sampled_from(["timeout", "api", None]),
            "error_message": st.sampled_from(["no answer in 3 s", "no answer in 40 s", "no '/x'", None]),
        }
    ),
    max_size=20,
)


def table_of_runs(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([{"id": f"r{i:03}", **row} for i, row in enumerate(rows)], schema.RUNS.arrow)


@given(rows=RUNS, name=st.sampled_from([*OF_RUNS]))
@settings(max_examples=25)
def test_run_summaries_of_random_runs_have_the_rows_of_pandas(rows: list[dict[str, Any]], name: str) -> None:
    """Draw missing keys, times and values, times around a clock change, and groups without decided runs."""
    compare_all(OF_RUNS[name], table_of_runs(rows), schema.RUNS, ALL_BUT_DASK)


@given(rows=RUNS, name=st.sampled_from([*SUMMARIES]))
@settings(max_examples=6)
def test_run_summaries_of_random_runs_on_dask(rows: list[dict[str, Any]], name: str) -> None:
    compare_all(SUMMARIES[name], table_of_runs(rows), schema.RUNS, ["dask"])


COUNTER = st.one_of(st.none(), st.integers(-1, 5), st.sampled_from([2**31, 2**53 + 1, 2**62, 2**63 - 1]))
DEPLOYMENTS = st.lists(
    st.fixed_dictionaries(
        {
            "agent_id": st.sampled_from(["a", "b", None]),
            "status": st.sampled_from(["active", "paused"]),
            "stats_total_runs": COUNTER,
            "stats_total_failures": COUNTER,
            "stats_consecutive_failures": COUNTER,
        }
    ),
    max_size=12,
)


@given(rows=DEPLOYMENTS, name=st.sampled_from([*OF_DEPLOYMENTS]))
@pytest.mark.parametrize("engines", [["polars", "polars lazy", "duckdb"], ["dask", "pyarrow"]])
@settings(max_examples=6)
def test_failure_rates_of_random_deployments(rows: list[dict[str, Any]], name: str, engines: list[str]) -> None:
    if "dask" in engines:  # Dask and PyArrow are exact up to 2**53 only
        rows = [
            {name: 7 if isinstance(value, int) and value > 2**32 else value for name, value in row.items()}
            for row in rows
        ]
    records = [{"id": f"d{i:03}", "name": f"n{i}", **row} for i, row in enumerate(rows)]
    table = pa.Table.from_pylist(records, schema.DEPLOYMENTS.arrow)
    compare_all(OF_DEPLOYMENTS[name], table, schema.DEPLOYMENTS, engines)


@pytest.mark.parametrize("engine", [*EAGER, *LAZY])
def test_result_is_a_frame_of_the_same_engine(engine: str) -> None:
    """A lazy frame gives a lazy frame."""
    runs, deployments = runs_on(engine), deployments_on(engine)
    for summarise in (SUMMARIES["days in Berlin"], error_breakdown):
        assert type(quietly(summarise, runs)) is type(runs)
    assert type(quietly(failure_rates, deployments)) is type(deployments)


@pytest.mark.parametrize("name", ["days in Berlin", "errors by two"])
def test_dask_optimizer_does_not_change_the_result(name: str) -> None:
    result = quietly(SUMMARIES[name], runs_on("dask"))
    pd.testing.assert_frame_equal(result.compute(), computed(result))


@pytest.mark.parametrize("name", READ_TIMES)
@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_times_in_nanoseconds_give_the_rows_of_pandas(name: str, engine: str) -> None:
    compare(OF_RUNS[name], runs_in_nanoseconds_on(engine), engine, pandas_rows(name))


@cache
def runs_in_nanoseconds_on(engine: str) -> Any:  # noqa: ANN401 a frame of any engine
    """Return the runs of the account with times in nanoseconds as a frame of this engine."""
    runs = account_tables()[1]
    types = [
        pa.timestamp("ns", "UTC") if pa.types.is_timestamp(field.type) else field.type for field in runs.schema
    ]
    return opened(runs.cast(pa.schema(zip(runs.schema.names, types, strict=True))), engine)


@pytest.mark.parametrize("engine", EAGER)
def test_dtypes_on_eager_engines(engine: str) -> None:
    result = nw.from_native(SUMMARIES["days in Berlin"](runs_on(engine)), eager_only=True)
    types = dict(result.schema)
    assert types["window"] == nw.Datetime("us", "Europe/Berlin")
    assert {types[name] for name in ("runs", "completed", "assumed", "failed", "unknown")} == {nw.Int64()}
    assert {types[name] for name in ("failure_rate", "ci_low", "ci_high", *DURATIONS)} == {nw.Float64()}
    streaks = nw.from_native(failure_streaks(runs_on(engine)), eager_only=True)
    assert streaks.schema["current_streak_since"] == nw.Datetime("us", "UTC")
    assert result["duration_p50_ms"].null_count() > 0
    assert not result["failure_rate"].is_nan().any()


@pytest.mark.parametrize("tz", ["UTC", "Asia/Shanghai"])
def test_duckdb_session_time_zone_is_not_changed_and_not_used(tz: str) -> None:
    """Windows are those of `tz`, even if the session's zone changes before they are computed."""
    with duckdb.connect() as connection:
        connection.execute(f"SET TimeZone = '{ZONE_OF_THE_SESSION}'")
        rates = run_failure_rates(connection.from_arrow(account_tables()[1]), None, freq="1D", tz=tz)
        assert connection.execute("SELECT current_setting('TimeZone')").fetchall() == [(ZONE_OF_THE_SESSION,)]
        expected = run_failure_rates(runs_on("pandas"), None, freq="1D", tz=tz)
        expected = expected[expected["runs"] > 0]
        for session in (ZONE_OF_THE_SESSION, "Asia/Tokyo"):
            connection.execute(f"SET TimeZone = '{session}'")
            assert rows_of(rates) == rows_of(expected)


def test_times_of_pyarrow_tables_are_in_utc_on_a_machine_in_another_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    at = pa.array([datetime(2026, 6, 15, tzinfo=UTC)])
    runs = pa.table({"status": ["failed"], "error_type": ["timeout"], "triggered_at": at})
    assert error_breakdown(runs).schema.field("first_seen").type == pa.timestamp("us", "UTC")


@pytest.mark.parametrize("engine", EAGER)
def test_impossible_counters_on_eager_frames_warn(engine: str) -> None:
    row = {"id": "dep_bad", "stats_total_runs": 1, "stats_total_failures": 2}
    table = pa.Table.from_pylist([row], schema.DEPLOYMENTS.arrow)
    with pytest.warns(DataQualityWarning, match="dep_bad"):
        failure_rates(to_engine(table, schema.DEPLOYMENTS, engine))


@pytest.mark.parametrize("engine", LAZY)
def test_impossible_counters_on_lazy_frames_do_not_warn(engine: str) -> None:
    """Lazy frames are not read to warn, but the rate is missing too. Warnings are errors in these tests."""
    row = {"id": "dep_bad", "stats_total_runs": 1, "stats_total_failures": 2}
    table = pa.Table.from_pylist([row], schema.DEPLOYMENTS.arrow)
    assert rows_of(failure_rates(to_engine(table, schema.DEPLOYMENTS, engine)))[0]["failure_rate"] is None


def test_dask_warns_that_percentiles_are_missing() -> None:
    with pytest.warns(
        DataQualityWarning, match="Dask has no percentiles .* duration_p50_ms and duration_p95_ms are missing"
    ):
        lazy_rates = run_failure_rates(runs_on("dask"))
    rates = lazy_rates.compute()
    assert rates[DURATIONS].isna().all(axis=None)
    assert str(rates["runs"].dtype) == "Int64"
    assert rates.index.tolist() == list(range(len(rates)))


@pytest.mark.parametrize(
    ("operation", "summarise"),
    [
        ("failure_streaks", failure_streaks),
        ("per='occurrence'", NOT_ON_DASK["occurrences"]),
        ("duration_regressions", duration_regressions),
        ("start_delays", start_delays),
    ],
)
def test_dask_refuses_unsupported_summaries_by_name(operation: str, summarise: Summary) -> None:
    runs = to_engine(schema.RUNS.arrow.empty_table(), schema.RUNS, "dask")
    with pytest.raises(NotImplementedError, match=r"^failure|^per=|^duration|^start") as caught:
        summarise(runs)
    assert str(caught.value).startswith(f"{operation} needs ")
    assert "Dask does not have" in str(caught.value)
    assert "scan_runs(engine='duckdb')" in str(caught.value)


def test_pyarrow_without_duckdb_raises_import_error_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ImportError, match=r"pip install 'qoderdata\[duckdb\]'"):
        failure_streaks(schema.RUNS.arrow.empty_table())
