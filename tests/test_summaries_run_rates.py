"""Tests of `run_failure_rates` (decided runs, time windows, occurrences) and of `failure_streaks`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from statistics import mean
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy.stats import binomtest

import qoderdata as qd
from qoderdata import decode, frames, schema
from qoderdata.errors import DataQualityWarning, MissingColumnError, UnknownOutcomesWarning
from qoderdata.sandbox import Sandbox
from qoderdata.summaries import failure_streaks, run_failure_rates, start_delays
from tests.summary_frames import (
    HOUR_MS,
    WILSON_SQL,
    YEAR_1,
    Z_SQL,
    account_frames,
    account_tables,
    at,
    grouped,
    hourly_runs,
    random_rows,
    records,
    runs_frame,
)


def run(status: str | None, hours: float = 0, **more: Any) -> dict[str, Any]:  # noqa: ANN401 any column
    return {"status": status, "triggered_at": at(hours), **more}


def test_rate_is_computed_from_completed_and_failed_runs() -> None:
    """Skipped, cancelled and unfinished runs are not in the rate; any other status counts as `unknown`."""
    statuses = ["completed"] * 3 + ["failed", "skipped", "pending", "running", "waiting", "cancelled", "odd", None]
    with pytest.warns(DataQualityWarning, match="the outcome of 2 of 11 counted runs is not known"):
        rates = run_failure_rates(runs_frame({"status": status} for status in statuses))
    assert records(rates)[0] == {
        "deployment_id": "dep_1", "runs": 11, "completed": 3, "assumed": 0, "failed": 1, "skipped": 2,
        "unfinished": 3, "unknown": 2,
        "failure_rate": 0.25, "ci_low": pytest.approx(0.045587, abs=1e-6),
        "ci_high": pytest.approx(0.699358, abs=1e-6),
        "duration_p50_ms": None, "duration_p95_ms": None,
    }  # fmt: skip


@pytest.mark.parametrize("engine", [pd.DataFrame, pl.from_pandas, pa.Table.from_pandas])
@pytest.mark.parametrize("options", [{}, {"by": None, "freq": "1D"}, {"per": "occurrence"}])
def test_many_unknown_outcomes_warn(engine: Any, options: dict[str, Any]) -> None:  # noqa: ANN401
    """In the newest edition, run records alone have an outcome only where no session could be created."""
    few = runs_frame([run("failed", 0), *(run(None, hours) for hours in range(1, 19)), run("completed", 30)])
    with pytest.warns(DataQualityWarning) as caught:
        run_failure_rates(engine(few), **options)
    (text,) = (str(warning.message) for warning in caught)
    assert text.startswith("the outcome of 18 of 20 counted runs is not known")
    assert "so rates are those of the other runs alone" in text
    assert caught[0].filename == __file__


def test_up_to_5_percent_of_unknown_outcomes_do_not_warn() -> None:
    """Lazy frames are not read to warn, whatever their share of unknown outcomes."""
    frame = runs_frame([run(None, 0), *(run("completed", hours) for hours in range(1, 20))])
    run_failure_rates(frame)
    run_failure_rates(pl.from_pandas(frame[:2]).lazy())


def test_rate_is_missing_without_decided_runs() -> None:
    rates = run_failure_rates(runs_frame([{"status": "skipped"}, {"status": "running"}]))
    assert rates[["failure_rate", "ci_low", "ci_high"]].isna().all(axis=None)
    assert rates[["runs", "completed", "failed"]].to_numpy().tolist() == [[2, 0, 0]]


def test_rows_are_sorted_worst_first_missing_last_then_by_key() -> None:
    rows = [
        ("d3", "failed"),
        ("d2", "failed"),
        ("d2", "failed"),
        ("d1", "completed"),
        ("d0", "skipped"),
        (None, "failed"),
    ]
    rates = run_failure_rates(runs_frame({"deployment_id": key, "status": status} for key, status in rows))
    assert [row["deployment_id"] for row in records(rates)] == ["d2", "d3", None, "d1", "d0"]


def test_of_equal_rates_the_one_with_more_failures_is_first() -> None:
    rows = [("a", "failed"), ("a", "completed"), *[("b", "failed"), ("b", "completed")] * 2]
    rates = run_failure_rates(runs_frame({"deployment_id": key, "status": status} for key, status in rows))
    assert [row["deployment_id"] for row in records(rates)] == ["b", "a"]


def test_rows_with_windows_are_sorted_by_key_and_time() -> None:
    rows = [
        run("failed", 24, deployment_id="d2"),
        run("completed", 0, deployment_id="d1"),
        run("failed", 0, deployment_id=None),
    ]
    rates = run_failure_rates(runs_frame(rows), freq="1D")
    assert [(row["deployment_id"], row["window"].day, row["runs"]) for row in records(rates)] == [
        ("d1", 27, 1), ("d1", 28, 0), ("d2", 27, 0), ("d2", 28, 1), (None, 27, 1), (None, 28, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("freq", "tz", "hours", "begins"),
    [
        ("1h", "UTC", [0.5, 2.5], ["03-27T12:00+00:00", "03-27T13:00+00:00", "03-27T14:00+00:00"]),
        ("1h", "Asia/Kolkata", [0.4, 0.6], ["03-27T17:00+05:30", "03-27T18:00+05:30"]),
        ("1D", "Asia/Shanghai", [0, 12], ["03-27T00:00+08:00", "03-28T00:00+08:00"]),
        ("1D", "Europe/Berlin", [0, 48], ["03-27T00:00+01:00", "03-28T00:00+01:00", "03-29T00:00+01:00"]),
        ("1D", "Europe/Berlin", [36, 60], ["03-29T00:00+01:00", "03-30T00:00+02:00"]),
        ("6h", "Europe/Berlin", [36, 48], ["03-29T00:00+01:00", "03-29T07:00+02:00", "03-29T13:00+02:00"]),
        ("1W", "UTC", [0, 72], ["03-23T00:00+00:00", "03-30T00:00+00:00"]),
        ("W", "Asia/Shanghai", [0, 60], ["03-23T00:00+08:00", "03-30T00:00+08:00"]),
        ("30min", "UTC", [0.1, 0.9], ["03-27T12:00+00:00", "03-27T12:30+00:00"]),
        ("2D", "UTC", [0, 72], ["03-26T00:00+00:00", "03-28T00:00+00:00", "03-30T00:00+00:00"]),
    ],
)
def test_windows_follow_the_wall_clock(freq: str, tz: str, hours: list[float], begins: list[str]) -> None:
    """On 29 March 2026 clocks in Berlin go forward at 02:00: the day has 23 hours and begins at midnight."""
    rates = run_failure_rates(runs_frame(run("failed", hour) for hour in hours), by=None, freq=freq, tz=tz)
    assert [window.isoformat()[5:16] + window.isoformat()[-6:] for window in rates.index] == begins
    assert str(rates.index.dtype) == f"datetime64[us, {tz}]"
    assert rates["runs"].sum() == len(hours)


def test_a_repeated_hour_has_two_windows() -> None:
    """In New York, the hour from 01:00 to 02:00 occurs twice on 1 November 2026."""
    times = pd.date_range("2026-11-01T04:30Z", "2026-11-01T07:30Z", freq="1h")
    rates = run_failure_rates(
        runs_frame({"status": "failed", "triggered_at": time} for time in times),
        by=None,
        freq="1h",
        tz="America/New_York",
    )
    assert rates["runs"].tolist() == [1, 1, 1, 1]
    assert [window.strftime("%H%z") for window in rates.index] == ["00-0400", "01-0400", "01-0500", "02-0500"]


def test_a_run_without_a_time_has_a_missing_window() -> None:
    rates = run_failure_rates(runs_frame([run("failed"), {"status": "completed"}]), by=None, freq="1D")
    assert [(row["window"] and row["window"].day, row["runs"]) for row in records(rates)] == [(27, 1), (None, 1)]
    timeless = run_failure_rates(runs_frame([{"status": "completed"}]), by=None, freq="1D")
    assert [row["window"] for row in records(timeless)] == [None]


def test_dtypes_of_counts_and_rates() -> None:
    df = runs_frame([run("completed", duration_ms=5), run("failed", 3)])
    rates = run_failure_rates(df, freq="1h", per="occurrence")
    assert {name: str(dtype) for name, dtype in rates.dtypes.items()} == {
        **dict.fromkeys(["runs", "completed", "assumed", "failed", "skipped", "unfinished", "unknown"], "Int64"),
        **dict.fromkeys(["failure_rate", "ci_low", "ci_high", "duration_p50_ms", "duration_p95_ms"], "float64"),
    }


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"by": "team"}, MissingColumnError, "runs frame has no column 'team'; it has: id, deployment_id"),
        ({"by": "agent_name"}, MissingColumnError, "with_names adds the names of ids, and the keys"),
        (
            {"by": "environment_id"},
            MissingColumnError,
            r"runs\['deployment_id'\]\.map\(.*'environment_id'.* adds it",
        ),
        ({"by": "window"}, ValueError, "'window' is a column of the result"),
        ({"freq": "3M"}, ValueError, "freq='3M' is not a length of time"),
        ({"freq": "0h"}, ValueError, "freq='0h'"),
        ({"freq": 3600}, ValueError, "freq=3600 .* write one like '7D'"),
        ({"freq": "7h"}, ValueError, "freq='7h' must fill a day evenly"),
        ({"freq": "24h"}, ValueError, "whole days are written as text in days, such as '1D'"),
        ({"freq": "36h"}, ValueError, "freq='36h' must fill a day evenly"),
        ({"freq": "1D", "tz": "Mars/Olympus"}, ValueError, "tz='Mars/Olympus' is not an IANA time zone"),
        ({"per": "run"}, ValueError, "per='run' is not known; allowed are 'attempt', 'occurrence'"),
        ({"confidence": 95}, ValueError, "confidence=95"),
    ],
)
def test_invalid_arguments_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run_failure_rates(runs_frame([run("failed")]), **options)


def test_advice_on_a_column_of_the_deployments_adds_it() -> None:
    runs = runs_frame([run("failed")])
    df = qd.flatten_deployments([{"id": runs["deployment_id"][0], "environment_id": "env_1"}])
    with pytest.raises(MissingColumnError) as caught:
        run_failure_rates(runs, by="environment_id")
    column, _, values = str(caught.value).rpartition("; ")[2].removesuffix(" adds it").partition(" = ")
    assert column == "runs['environment_id']"
    assert values == "runs['deployment_id'].map(df.set_index('id')['environment_id'])"
    runs["environment_id"] = runs["deployment_id"].map(df.set_index("id")["environment_id"])
    assert run_failure_rates(runs, by="environment_id").loc["env_1", "failed"] == 1


def test_lists_are_no_groups() -> None:
    df = qd.flatten_deployments([{"id": "dep_1", "vault_ids": ["v"]}])
    sessions = qd.flatten_sessions([{"id": "sess_1", "vault_ids": ["v"]}])
    with pytest.raises(ValueError, match="by='vault_ids' holds lists"):
        qd.failure_rates(df, by="vault_ids")
    with pytest.raises(ValueError, match="by='vault_ids' holds lists"):
        qd.session_costs(sessions, by="vault_ids")


@pytest.mark.parametrize(
    ("runs", "failed", "completed", "skipped"),
    [
        (["1 failed", "2 completed"], 0, 1, 0),
        (["1 failed", "2 failed", "3 failed"], 1, 0, 0),
        (["1 failed", "1 failed"], 2, 0, 0),
        (["1 failed", "1 skipped", "2 completed"], 0, 1, 1),
        (["1 failed", "2 failed", "1 skipped", "3 completed"], 0, 1, 1),
        (["1 completed", "2 completed"], 0, 2, 0),
        (["2 completed"], 0, 1, 0),
        (["1 failed", "3 failed"], 2, 0, 0),
        (["- failed", "r completed"], 0, 1, 0),
        (["1 failed", "2 running"], 0, 0, 0),
    ],
    ids=[
        "retry completed", "all attempts failed", "two occurrences", "other occurrence skipped before the retry",
        "other occurrence skipped between retries", "attempt 2 after a completed attempt 1",
        "attempt 1 missing", "attempt 2 missing", "attempt numbers unknown", "retry still running",
    ],
)  # fmt: skip
def test_an_occurrence_counts_once_by_its_last_attempt(
    runs: list[str], failed: int, completed: int, skipped: int
) -> None:
    rows = []
    for hour, entry in enumerate(runs):
        attempt, status = entry.split()
        kind = "retry" if attempt in {"r", "2", "3"} else "schedule"
        rows.append(run(status, hour, trigger_type=kind, attempt=int(attempt) if attempt.isdigit() else None))
    rates = run_failure_rates(runs_frame(rows), per="occurrence").iloc[0]
    assert rates[["failed", "completed", "skipped"]].tolist() == [failed, completed, skipped]


def test_windows_begin_at_the_first_attempt_of_an_occurrence() -> None:
    rows = [run("failed", 0, attempt=1), run("completed", 24, attempt=2, trigger_type="retry")]
    rates = run_failure_rates(runs_frame(rows), freq="1D", per="occurrence")
    assert rates["runs"].tolist() == [0, 1]


@cache
def day_begins(day: datetime, zone: str) -> datetime:
    """Go back by hours, then by minutes, to the first minute with the local date of `day`."""
    clock = ZoneInfo(zone)
    date = day.astimezone(clock).date()
    begin = day.replace(second=0, microsecond=0)
    if (begin - timedelta(hours=1)).astimezone(clock).date() == date:
        return day_begins(begin - timedelta(hours=1), zone)
    while (begin - timedelta(minutes=1)).astimezone(clock).date() == date:
        begin -= timedelta(minutes=1)
    return begin


def window_of(when: datetime, freq: str, zone: str) -> datetime:
    day = day_begins(when.replace(second=0, microsecond=0), zone)
    if freq == "1D":
        return day
    if freq == "1W":
        while day.astimezone(ZoneInfo(zone)).weekday() != 0:
            day = day_begins(day - timedelta(minutes=1), zone)
        return day
    step = timedelta(hours=int(freq[:-1]))
    return day + (when - day) // step * step


STATUSES = [
    "completed",
    "completed",
    "failed",
    "failed",
    "skipped",
    "cancelled",
    "running",
    "waiting",
    "odd",
    None,
]


def random_run(draw: Random, deployments: int) -> dict[str, Any]:
    return {
        "deployment_id": draw.choice([None, *(f"dep_{number}" for number in range(deployments))]),
        "status": draw.choice(STATUSES),
        "status_from": draw.choice(["service", "run", "session", "events", None]),
        "trigger_scheduled_at": draw.choice([None, at(0), at(1), at(60)]),
        "created_at": draw.choice([None, *map(at, range(4))]),
        "trigger_type": draw.choice(["schedule", "manual", "retry", None]),
        "attempt": draw.choice([1, 1, 2, 3, None]),
        "triggered_at": draw.choice([None, *[at(draw.randrange(24 * 60) / 12)] * 4]),
        "duration_ms": draw.choice([None, draw.randrange(10**6)]),
    }


def last_attempts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the last attempt of each occurrence, by the documented rules.

    Runs of one deployment with the same scheduled time are one occurrence. Of the others, a retry continues the
    latest earlier failed run with one attempt less.
    """
    scheduled: dict[tuple[Any, ...], int] = {}
    for i, row in enumerate(rows):
        if row["trigger_scheduled_at"]:
            key = (row["deployment_id"], row["trigger_scheduled_at"])
            scheduled[key] = max(
                scheduled.get(key, i),
                i,
                key=lambda j: (rows[j]["created_at"] or YEAR_1, rows[j]["triggered_at"] or YEAR_1, j),
            )
    last = [rows[i] for i in scheduled.values()]
    return last + last_retries([row for row in rows if not row["trigger_scheduled_at"]])


def last_retries(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    order = sorted(range(len(rows)), key=lambda i: (rows[i]["triggered_at"] or YEAR_1, i))
    attempts: dict[int, int] = {}
    continued = set()
    for position, i in enumerate(order):
        row = rows[i]
        retry = row["trigger_type"] == "retry" or (row["attempt"] or 0) > 1
        attempts[i] = max(row["attempt"] or 0, 2 if retry else 1)
        if retry:
            for j in reversed(order[:position]):
                earlier = rows[j]
                same = earlier["deployment_id"] == row["deployment_id"] and attempts[j] == attempts[i] - 1
                if same and earlier["status"] == "failed":
                    continued.add(j)
                    break
    return [row for i, row in enumerate(rows) if i not in continued]


COUNTED_AS: dict[str, set[str | None]] = {
    "completed": {"completed"},
    "failed": {"failed"},
    "skipped": {"skipped", "cancelled"},
    "unfinished": {"pending", "running", "waiting"},
    "unknown": {"odd", None},
}


@pytest.mark.filterwarnings("ignore:the outcome of:qoderdata.errors.DataQualityWarning")
@pytest.mark.parametrize(
    ("by", "window"),
    [
        (None, None), ("deployment_id", None), ("deployment_id", ("1D", "UTC")), (None, ("1W", "UTC")),
        (None, ("1D", "Europe/Berlin")), ("deployment_id", ("1W", "Asia/Beirut")),
        ("deployment_id", ("6h", "Europe/Berlin")), (None, ("1h", "Australia/Lord_Howe")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("per", ["attempt", "occurrence"])
def test_all_figures_equal_brute_force(by: str | None, window: tuple[str, str] | None, per: str) -> None:
    """Use five days around the clock change in March."""
    draw = Random(f"{by} {window} {per}")  # noqa: S311 nothing secret
    rows = [random_run(draw, deployments=15) for _ in range(150)]
    options: dict[str, Any] = {"by": by, "per": per}
    counted = last_attempts(rows) if per == "occurrence" else rows
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    timed = [row["triggered_at"] for row in rows if row["triggered_at"]]
    if window:
        options |= {"freq": window[0], "tz": window[1]}
        every: list[datetime] = (
            list(pd.date_range(min(timed), max(timed), freq="30min").to_pydatetime()) if timed else []
        )
        begins = {window_of(when, *window) for when in [*every, *timed]}
        keys = {row[by] if by else None for row in counted}
        groups = {(key, begin): [] for key in keys for begin in begins}
    for row in counted:
        begin = window_of(row["triggered_at"], *window) if window and row["triggered_at"] else None
        groups.setdefault((row[by] if by else None, begin), []).append(row)
    rates = records(run_failure_rates(runs_frame(rows), **options))
    assert len(rates) == len(groups)
    for row in rates:
        begin = row["window"].to_pydatetime() if window and row["window"] else None
        members = groups[row[by] if by else None, begin]
        count = {
            name: sum(member["status"] in statuses for member in members) for name, statuses in COUNTED_AS.items()
        }
        assert row["runs"] == len(members) == sum(count.values())
        assert {name: row[name] for name in count} == count
        assert row["assumed"] == sum(
            member["status"] == "completed" and member["status_from"] == "session" for member in members
        )
        decided = count["completed"] + count["failed"]
        if decided:
            interval = binomtest(count["failed"], decided).proportion_ci(0.95, method="wilson")
            assert row["failure_rate"] == count["failed"] / decided
            assert [row["ci_low"], row["ci_high"]] == pytest.approx([interval.low, interval.high])
        else:
            assert [row["failure_rate"], row["ci_low"], row["ci_high"]] == [None] * 3
        took = [
            member["duration_ms"]
            for member in members
            if member["status"] == "completed" and member["duration_ms"] is not None
        ]
        expected = np.quantile(took, [0.5, 0.95]).tolist() if took else [None, None]
        assert [row["duration_p50_ms"], row["duration_p95_ms"]] == (pytest.approx(expected) if took else expected)


def test_frames_without_newer_columns_are_accepted() -> None:
    """Without ``status_from``, no run counts as assumed."""
    rows = [run("completed", 0, status_from="session"), run("failed", 1), run("skipped", 2)]
    old = runs_frame(rows).drop(columns=["status_from", "trigger_scheduled_at", "created_at"])
    for per in ("attempt", "occurrence"):
        rates = run_failure_rates(old, per=per)
        assert rates[["runs", "completed", "assumed", "failed"]].to_numpy().tolist() == [[3, 1, 0, 1]]


def test_windows_after_2037_follow_dst() -> None:
    runs = runs_frame([{"status": "failed", "triggered_at": datetime(2050, 7, 1, 22, 30, tzinfo=UTC)}])
    ((_, window),) = run_failure_rates(runs, freq="1D", tz="Europe/Berlin").index
    assert window.isoformat() == "2050-07-02T00:00:00+02:00"


@pytest.mark.parametrize("tz", ["UTC", "Asia/Shanghai"])
@pytest.mark.parametrize("freq", ["1h", "15min"])
def test_windows_over_thousands_of_years_are_refused(freq: str, tz: str) -> None:
    for wrong in ("0001-06-15T03:04:05Z", "9999-06-15T03:04:05Z"):
        runs = runs_frame([run("failed", 0), {**run("failed", 0), "triggered_at": datetime.fromisoformat(wrong)}])
        with pytest.raises(
            ValueError, match=rf"triggered_at reaches from .*{wrong[:10]}T.*\nIf .* is wrong, leave its row out"
        ):
            run_failure_rates(runs, freq=freq, tz=tz)
        assert run_failure_rates(runs)["failed"].tolist() == [2]


@pytest.mark.parametrize("tz", ["America/New_York", "Asia/Shanghai"])
def test_windows_that_begin_before_year_1_are_refused(tz: str) -> None:
    first = {**run("failed", 0), "triggered_at": datetime(1, 1, 1, tzinfo=UTC)}
    # pandas 2 has no wall clock at the ends of the calendar.
    reach = "from 0001-01-01T00:00Z to 2026-" if pd.__version__ >= "3" else "to an end of the years 1 to 9999"
    with pytest.raises(ValueError, match=f"triggered_at reaches {reach}"):
        run_failure_rates(runs_frame([run("failed", 0), first]), freq="1h", tz=tz)
    with pytest.raises(
        ValueError, match=f"to an end of the years 1 to 9999.*no windows in {tz}\nLeave its row out"
    ):
        run_failure_rates(runs_frame([first]), freq="1h", tz=tz)


def test_too_many_windows_for_many_groups_are_refused() -> None:
    rows = [run("failed", 24 * 15 * i, deployment_id=f"dep_{i}") for i in range(40)]
    with pytest.raises(ValueError, match=r"windows for each of 40 groups, too many"):
        run_failure_rates(runs_frame(rows), freq="1min")


def test_a_duration_of_2_to_62_ms_is_accepted() -> None:
    runs = runs_frame([run("completed", 0, duration_ms=2**62), run("completed", 1, duration_ms=2**62)])
    assert run_failure_rates(runs)["duration_p95_ms"].tolist() == [float(2**62)]


def test_all_figures_equal_those_of_sql_and_counters() -> None:
    """Use the runs of a sandbox account, by deployment and day in Shanghai."""
    with Sandbox(deployments=60, seed=7, runs=3000) as sandbox:
        listed = decode.from_records(sandbox.runs, schema.RUNS)
        counters = {
            deployment["id"]: deployment["metadata"].get("cas_config", {}).get("stats", {})
            for deployment in sandbox.deployments
        }
    expected = duckdb.execute(
        f"""
        SELECT deployment_id, day, runs, completed, failed, skipped, unfinished, p, {WILSON_SQL}, p50, p95 FROM (
            SELECT deployment_id, date_trunc('day', timezone('Asia/Shanghai', triggered_at)) AS day,
                count(*) AS runs, count(*) FILTER (status = 'completed') AS completed,
                count(*) FILTER (status = 'failed') AS failed,
                count(*) FILTER (status IN ('skipped', 'cancelled')) AS skipped,
                count(*) FILTER (status IN ('pending', 'running', 'waiting')) AS unfinished,
                nullif(completed + failed, 0) AS n, failed / n AS p, {Z_SQL},
                quantile_cont(duration_ms, 0.5) FILTER (status = 'completed') AS p50,
                quantile_cont(duration_ms, 0.95) FILTER (status = 'completed') AS p95
            FROM listed GROUP BY ALL)
        ORDER BY ALL
        """  # noqa: S608 constants of the tests
    ).fetchall()
    runs = frames.to_pandas(listed, schema.RUNS)
    rates = run_failure_rates(runs, freq="1D", tz="Asia/Shanghai")
    got = records(rates[rates["runs"] > 0])
    assert len(got) == len(expected)
    for row, expected_row in zip(got, expected, strict=True):
        counts = [row[name] for name in ("runs", "completed", "failed", "skipped", "unfinished")]
        assert [row["deployment_id"], row["window"].tz_localize(None).to_pydatetime(), *counts] == list(
            expected_row[:7]
        )
        figures = ["failure_rate", "ci_low", "ci_high", "duration_p50_ms", "duration_p95_ms"]
        assert [row[name] for name in figures] == [
            None if value is None else pytest.approx(value, rel=1e-12, abs=1e-15) for value in expected_row[7:]
        ]
    days = [row[1] for row in expected]
    assert len(rates) == len({row[0] for row in expected}) * ((max(days) - min(days)).days + 1)
    assert rates.loc[rates["runs"] == 0, "failure_rate"].isna().all()
    for row in records(run_failure_rates(runs)):
        if counters[row["deployment_id"]]:
            stats = counters[row["deployment_id"]]
            assert (row["runs"], row["failed"]) == (stats["total_runs"], stats["total_failures"])


@pytest.mark.filterwarnings("ignore::qoderdata.errors.UnknownOutcomesWarning")
@pytest.mark.parametrize(
    ("letters", "current", "since", "longest", "incidents", "mttr_hours", "open_"),
    [
        ("c", 0, None, 0, 0, None, 0), ("f", 1, 0, 1, 0, None, 1), ("fc", 0, None, 1, 1, 1, 0),
        ("ffc", 0, None, 2, 1, 2, 0), ("cff", 2, 1, 2, 0, None, 1), ("fffcfcff", 2, 6, 3, 2, 2, 1),
        ("fsf", 2, 0, 2, 0, None, 1), ("frsc", 0, None, 1, 1, 3, 0), ("fcs", 0, None, 1, 1, 1, 0),
        ("sr", 0, None, 0, 0, None, 0), ("fx?wf", 2, 0, 2, 0, None, 1), ("f?xc", 0, None, 1, 1, 3, 0),
    ],
)  # fmt: skip
def test_streaks_and_recoveries_of_hourly_runs(  # noqa: PLR0917 one column of the table each
    letters: str, current: int, since: int | None, longest: int, incidents: int, mttr_hours: int | None, open_: int
) -> None:
    """Skipped and unfinished runs neither end nor extend a streak; an open incident has no recovery time."""
    assert records(failure_streaks(hourly_runs(letters))) == [
        {
            "deployment_id": "dep_1",
            "current_streak": current,
            "current_streak_since": None if since is None else pd.Timestamp(at(since)),
            "longest_streak": longest,
            "incidents": incidents,
            "mttr_ms": None if mttr_hours is None else mttr_hours * HOUR_MS,
            "open_incidents": open_,
        }
    ]


def test_streaks_warn_of_unknown_outcomes() -> None:
    text = r"^the outcome of 1 of 3 counted runs is not known.* so a streak may be longer .*'events'\)"
    with pytest.warns(UnknownOutcomesWarning, match=text):
        failure_streaks(hourly_runs("f?f"))
    failure_streaks(pl.from_pandas(hourly_runs("f?f")).lazy())  # lazy frames are not read to warn


def test_streaks_do_not_depend_on_the_order_of_rows() -> None:
    newest_first = hourly_runs("fffc").iloc[::-1]
    pd.testing.assert_frame_equal(failure_streaks(newest_first), failure_streaks(hourly_runs("fffc")))


def test_runs_at_the_same_time_are_ordered_by_id() -> None:
    runs = runs_frame({"status": status, "triggered_at": at(0)} for status in ("completed", "failed"))
    assert failure_streaks(runs)["current_streak"].tolist() == [1]
    assert failure_streaks(runs.iloc[::-1])["current_streak"].tolist() == [1]


def test_a_retry_repairs_in_the_time_between_the_creations() -> None:
    rows = [{"status": status, "triggered_at": at(0)} for status in ("failed", "failed", "completed")]
    runs = runs_frame(rows)
    assert failure_streaks(runs)["mttr_ms"].tolist() == [0.0]
    runs = runs_frame([row | {"created_at": at(hour)} for hour, row in enumerate(rows)])
    assert failure_streaks(runs)["mttr_ms"].tolist() == [2 * HOUR_MS]


def test_a_run_without_a_time_does_not_end_a_streak() -> None:
    runs = runs_frame([{"status": "failed", "triggered_at": at(0)}, {"status": "completed"}])
    assert failure_streaks(runs)["current_streak"].tolist() == [1]


def test_streaks_are_sorted_by_current_then_longest_streak() -> None:
    letters_of = {"d1": "c", "d2": "ff", "d3": "fffc", "d4": "ff", None: "f"}
    runs = pd.concat([hourly_runs(letters).assign(deployment_id=key) for key, letters in letters_of.items()])
    runs["id"] = [f"drun_{number}" for number in range(len(runs))]
    assert [row["deployment_id"] for row in records(failure_streaks(runs))] == ["d2", "d4", None, "d3", "d1"]


@pytest.mark.filterwarnings("ignore::qoderdata.errors.UnknownOutcomesWarning")
@pytest.mark.parametrize(("by", "deployments"), [("deployment_id", 40), (None, 1), (None, 4)])
def test_streaks_equal_brute_force(by: str | None, deployments: int) -> None:
    rows = random_rows("streaks", deployments=deployments)
    streaks = records(failure_streaks(runs_frame(rows), by=by))
    groups = grouped(rows, by)
    assert len(streaks) == len(groups)
    for row in streaks:
        decided = [
            run for run in groups[row[by] if by else None]
            if run["triggered_at"] and run["status"] in {"completed", "failed"}
        ]  # fmt: skip
        current, longest, since, recoveries = 0, 0, None, []
        created: list[datetime] = []
        for run in sorted(
            decided, key=lambda run: (run["triggered_at"], run["created_at"] or YEAR_1, run["position"])
        ):
            if run["status"] == "failed":
                since = since or run["triggered_at"]
                created += [run["created_at"]] if run["created_at"] else []
                current += 1
                longest = max(longest, current)
            else:
                if since:
                    took = run["triggered_at"] - since
                    if not took and created and run["created_at"]:
                        took = run["created_at"] - min(created)
                    recoveries.append(took / timedelta(milliseconds=1))
                current, since, created = 0, None, []
        assert row["current_streak"] == current
        assert row["current_streak_since"] == since
        assert row["longest_streak"] == longest
        assert (row["incidents"], row["open_incidents"]) == (len(recoveries), int(current > 0))
        assert row["mttr_ms"] == (pytest.approx(mean(recoveries)) if recoveries else None)


def test_streaks_equal_those_of_sql() -> None:
    listed = account_tables(80, 4000)[1]
    expected = duckdb.execute(
        """
        WITH with_last_completed AS (
            SELECT *, max(triggered_at) FILTER (status = 'completed') OVER own_runs AS last_completed_at
            FROM listed WINDOW own_runs AS (PARTITION BY deployment_id))
        SELECT deployment_id, count(*) AS streak, epoch_us(min(triggered_at))
        FROM with_last_completed
        WHERE status = 'failed' AND (last_completed_at IS NULL OR triggered_at > last_completed_at)
        GROUP BY 1 ORDER BY streak DESC, deployment_id
        """
    ).fetchall()
    streaks = failure_streaks(frames.to_pandas(listed, schema.RUNS))
    failing = streaks[streaks["current_streak"] > 0].sort_values("current_streak", ascending=False, kind="stable")
    got = [
        (row["deployment_id"], row["current_streak"], row["current_streak_since"].value // 1000)
        for row in records(failing)
    ]
    assert sorted(got) == sorted(expected)
    assert [row[1] for row in got] == [row[1] for row in expected]


def test_streaks_rates_and_delays_have_the_same_groups() -> None:
    runs = account_frames()[1]
    assert set(failure_streaks(runs).index) == set(run_failure_rates(runs).index) == set(start_delays(runs).index)
