"""Tests of `failure_streaks`, `error_breakdown`, `duration_regressions`, `start_delays` and `consistency`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest

from qoderdata import decode, frames, schema
from qoderdata.errors import UnknownOutcomesWarning
from qoderdata.sandbox import Sandbox
from qoderdata.summaries import (
    consistency,
    duration_regressions,
    error_breakdown,
    failure_streaks,
    run_failure_rates,
    start_delays,
)
from tests.summary_frames import records, runs_frame

if TYPE_CHECKING:
    import pyarrow as pa

START = datetime(2026, 6, 1, tzinfo=UTC)
EVER = datetime(1, 1, 1, tzinfo=UTC)
HOUR_MS = 3_600_000.0


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def hourly_runs(letters: str) -> pd.DataFrame:
    """Build a run per hour: f(ailed), c(ompleted), s(kipped), r(unning), x (cancelled), w(aiting), ? (unknown)."""
    statuses = ["failed", "completed", "skipped", "running", "cancelled", "waiting", None]
    status_of = dict(zip("fcsrxw?", statuses, strict=True))
    return runs_frame(
        {"status": status_of[letter], "triggered_at": at(hour)} for hour, letter in enumerate(letters)
    )


@pytest.fixture(scope="module")
def account() -> tuple[pa.Table, pa.Table]:
    """Generate deployments and their runs."""
    with Sandbox(deployments=80, seed=7, runs=4000) as sandbox:
        return (
            decode.from_records(sandbox.deployments, schema.DEPLOYMENTS),
            decode.from_records(sandbox.runs, schema.RUNS),
        )


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


def test_a_run_without_a_time_does_not_end_a_streak() -> None:
    runs = runs_frame([{"status": "failed", "triggered_at": at(0)}, {"status": "completed"}])
    assert failure_streaks(runs)["current_streak"].tolist() == [1]


def test_streaks_are_sorted_by_current_then_longest_streak() -> None:
    letters_of = {"d1": "c", "d2": "ff", "d3": "fffc", "d4": "ff", None: "f"}
    runs = pd.concat([hourly_runs(letters).assign(deployment_id=key) for key, letters in letters_of.items()])
    runs["id"] = [f"drun_{number}" for number in range(len(runs))]
    assert [row["deployment_id"] for row in records(failure_streaks(runs))] == ["d2", "d4", None, "d3", "d1"]


def random_runs(seed: str, *, deployments: int = 40) -> list[dict[str, Any]]:
    """Draw 1 to 20 runs of each deployment, and some of no deployment."""
    draw = Random(seed)  # noqa: S311 nothing secret
    statuses = ["completed", "completed", "failed", "failed", "skipped", "running", "cancelled", "waiting", None]
    rows = [
        {
            "deployment_id": deployment,
            "status": draw.choice(statuses),
            "created_at": draw.choice([None, *map(at, range(4))]),
            "trigger_scheduled_at": draw.choice([None, *map(at, range(9))]),
            "triggered_at": draw.choice([None, *map(at, range(61))]),
            "started_at": draw.choice([None, *map(at, range(81))]),
            "duration_ms": draw.choice([None, *range(21)]),
            "error_type": draw.choice(["timeout", "api", None]),
        }
        for deployment in [None, *(f"dep_{number}" for number in range(deployments))]
        for _ in range(draw.randint(1, 20))
    ]
    draw.shuffle(rows)
    return rows


def grouped(rows: list[dict[str, Any]], by: str | None) -> dict[Any, list[dict[str, Any]]]:
    groups: dict[Any, list[dict[str, Any]]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row[by] if by else None, []).append({**row, "position": i})
    return groups


@pytest.mark.filterwarnings("ignore::qoderdata.errors.UnknownOutcomesWarning")
@pytest.mark.parametrize(("by", "deployments"), [("deployment_id", 40), (None, 1), (None, 4)])
def test_streaks_equal_brute_force(by: str | None, deployments: int) -> None:
    rows = random_runs("streaks", deployments=deployments)
    streaks = records(failure_streaks(runs_frame(rows), by=by))
    groups = grouped(rows, by)
    assert len(streaks) == len(groups)
    for row in streaks:
        decided = [
            run for run in groups[row[by] if by else None]
            if run["triggered_at"] and run["status"] in {"completed", "failed"}
        ]  # fmt: skip
        current, longest, since, recoveries = 0, 0, None, []
        for run in sorted(
            decided, key=lambda run: (run["triggered_at"], run["created_at"] or EVER, run["position"])
        ):
            if run["status"] == "failed":
                since = since or run["triggered_at"]
                current += 1
                longest = max(longest, current)
            else:
                if since:
                    recoveries.append((run["triggered_at"] - since) / timedelta(milliseconds=1))
                current, since = 0, None
        assert row["current_streak"] == current
        assert row["current_streak_since"] == since
        assert row["longest_streak"] == longest
        assert (row["incidents"], row["open_incidents"]) == (len(recoveries), int(current > 0))
        assert row["mttr_ms"] == (pytest.approx(mean(recoveries)) if recoveries else None)


def test_streaks_equal_those_of_sql(account: tuple[pa.Table, pa.Table]) -> None:
    listed = account[1]
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


def test_error_breakdown_counts_failed_runs_only() -> None:
    statuses, kinds = ["failed"] * 3 + ["skipped", "completed"], ["timeout", None, "timeout", "busy", None]
    runs = runs_frame(
        {"status": status, "error_type": kind, "triggered_at": at(hour)}
        for hour, (status, kind) in enumerate(zip(statuses, kinds, strict=True))
    )
    assert records(error_breakdown(runs)) == [
        {"error_type": "timeout", "count": 2, "share": 2 / 3, "first_seen": at(0), "last_seen": at(2)},
        {"error_type": None, "count": 1, "share": 1 / 3, "first_seen": at(1), "last_seen": at(1)},
    ]


@pytest.mark.parametrize("by", ["deployment_id", None])
def test_error_breakdown_equals_brute_force(by: str | None) -> None:
    rows = random_runs("errors")
    failed = grouped([row for row in rows if row["status"] == "failed"], by)
    expected = []
    for key, members in failed.items():
        for kind, same in grouped(members, "error_type").items():
            seen = [run["triggered_at"] for run in same if run["triggered_at"]]
            first, last = min(seen, default=None), max(seen, default=None)
            expected.append((key, kind, len(same), pytest.approx(len(same) / len(members)), first, last))
    expected.sort(key=lambda row: (row[0] or "~", -row[2], row[1] or "~"))
    names = ["error_type", "count", "share", "first_seen", "last_seen"]
    got = [
        (row[by] if by else None, *(row[name] for name in names))
        for row in records(error_breakdown(runs_frame(rows), by))
    ]
    assert got == expected


def runs_before_and_after(*, before: int, after: int, count: int = 6) -> pd.DataFrame:
    """Build `count` runs of `before` ms around day 10, then as many of `after` ms around day 13."""
    old = [
        {"status": "completed", "triggered_at": at(24 * 10 - i), "duration_ms": before}
        for i in range(1, 1 + count)
    ]
    new = [{"status": "completed", "triggered_at": at(24 * 13 - i), "duration_ms": after} for i in range(count)]
    return runs_frame(old + new)


@pytest.mark.parametrize(
    ("before", "after", "count", "found"),
    [
        (2000, 5000, 6, True), (2000, 2999, 6, False), (2000, 3000, 6, True), (5000, 2000, 6, False),
        (2000, 5000, 4, False),
    ],
    ids=["slower", "below the threshold", "at the threshold", "faster", "too few runs"],
)  # fmt: skip
def test_duration_regressions_of_one_deployment(before: int, after: int, count: int, *, found: bool) -> None:
    slower = duration_regressions(runs_before_and_after(before=before, after=after, count=count))
    assert len(slower) == found
    if found:
        assert records(slower) == [
            {
                "deployment_id": "dep_1", "recent_runs": count, "baseline_runs": count, "recent_p50_ms": after,
                "baseline_p50_ms": before, "change_ms": after - before, "ratio": after / before,
            }
        ]  # fmt: skip


def test_a_change_of_0_ms_is_no_regression() -> None:
    assert duration_regressions(runs_before_and_after(before=0, after=0), min_change_ms=0).empty
    from_nothing = duration_regressions(runs_before_and_after(before=0, after=1), min_change_ms=0)
    assert from_nothing["change_ms"].tolist() == [1.0]
    assert from_nothing["ratio"].isna().all()


@pytest.mark.parametrize("min_runs", [1, 2, 3])
@pytest.mark.parametrize(("by", "deployments"), [("deployment_id", 60), (None, 1), (None, 3)])
def test_duration_regressions_equal_brute_force(by: str | None, deployments: int, min_runs: int) -> None:
    rows = random_runs(f"regressions {min_runs}", deployments=deployments)
    end = max((row["triggered_at"] for row in rows if row["triggered_at"]), default=START)
    expected = {}
    for key, members in grouped(rows, by).items():
        done = [
            run
            for run in members
            if run["status"] == "completed" and None not in (run["duration_ms"], run["triggered_at"])
        ]
        recent = [run["duration_ms"] for run in done if end - run["triggered_at"] <= timedelta(hours=20)]
        baseline = [
            run["duration_ms"]
            for run in done
            if timedelta(hours=20) < end - run["triggered_at"] <= timedelta(hours=50)
        ]
        if min(len(recent), len(baseline)) >= min_runs and median(recent) - median(baseline) >= 3:
            expected[key] = (len(recent), len(baseline), median(recent), median(baseline))
    slower = duration_regressions(
        runs_frame(rows), by, recent="20h", baseline=timedelta(hours=30), min_runs=min_runs, min_change_ms=3
    )
    names = ["recent_runs", "baseline_runs", "recent_p50_ms", "baseline_p50_ms"]
    got = {row[by] if by else None: tuple(row[name] for name in names) for row in records(slower)}
    assert got == expected
    assert slower["change_ms"].is_monotonic_decreasing


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recent": "soon"}, "recent='soon' is not a length of time"),
        ({"recent": "0D"}, "recent='0D' must be longer than nothing"),
        ({"baseline": "-1D"}, "baseline='-1D'"),
        ({"min_runs": 0}, "min_runs=0 must be a whole number, 1 or more"),
        ({"min_runs": 2.5}, "min_runs=2.5"),
        ({"min_runs": True}, "min_runs=True"),
        ({"min_change_ms": -1}, "min_change_ms=-1 must be milliseconds, 0 or more"),
        ({"min_change_ms": float("nan")}, "min_change_ms=nan"),
        ({"min_change_ms": "1s"}, "min_change_ms='1s' must be milliseconds, 0 or more"),
        ({"min_change_ms": timedelta(seconds=1)}, "min_change_ms=datetime.timedelta"),
        ({"min_change_ms": True}, "min_change_ms=True"),
        ({"by": "ratio"}, "'ratio' is a column of the result"),
    ],
)
def test_duration_regressions_refuse_invalid_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        duration_regressions(hourly_runs("c"), **options)


def test_start_delays_equal_brute_force() -> None:
    """Runs without a start, and later runs of the same scheduled time, have no delay."""
    rows = random_runs("delays", deployments=80)
    delays = records(start_delays(runs_frame(rows)))
    groups = grouped(rows, "deployment_id")
    assert len(delays) == len(groups)
    for row in delays:
        firsts: dict[Any, dict[str, Any]] = {}
        for run in sorted(
            groups[row["deployment_id"]], key=lambda run: (run["created_at"] or EVER, run["position"])
        ):
            firsts.setdefault(run["trigger_scheduled_at"] or run["position"], run)
        waited = [
            (run["started_at"] - due) / timedelta(milliseconds=1)
            for run in firsts.values()
            if run["started_at"] and (due := run["trigger_scheduled_at"] or run["triggered_at"])
        ]
        expected = [*np.quantile(waited, [0.5, 0.95]), max(waited)] if waited else [None] * 3
        got = [row["delay_p50_ms"], row["delay_p95_ms"], row["delay_max_ms"]]
        assert row["runs"] == len(waited)
        assert got == (pytest.approx(expected) if waited else expected)
    order = [
        (row["delay_p95_ms"] is None, -(row["delay_p95_ms"] or 0), row["deployment_id"] or "~") for row in delays
    ]
    assert order == sorted(order)


def test_start_delays_ignore_retries() -> None:
    """The first attempt is found by ``created_at``, else by id, else by start."""
    due = {"trigger_scheduled_at": at(0), "triggered_at": at(0)}
    runs = runs_frame([
        {**due, "created_at": at(5), "started_at": at(6)}, {**due, "created_at": at(0), "started_at": at(1)},
        {"triggered_at": at(9), "started_at": at(10)}, {"triggered_at": at(9), "started_at": at(10)},
    ])  # fmt: skip
    for frame in (runs, runs.drop(columns="created_at"), runs.drop(columns=["created_at", "id"])):
        row = start_delays(frame).loc["dep_1"]
        by_id = "id" in frame and "created_at" not in frame
        assert (row["runs"], row["delay_max_ms"]) == (3, 6 * HOUR_MS if by_id else HOUR_MS)


def test_consistency_of_a_consistent_account_is_empty(account: tuple[pa.Table, pa.Table]) -> None:
    """All statuses count; missing counters are not compared."""
    df, runs = frames.to_pandas(account[0], schema.DEPLOYMENTS), frames.to_pandas(account[1], schema.RUNS)
    assert consistency(df, runs).empty
    assert df["stats_total_runs"].isna().any()
    assert (df["stats_consecutive_failures"] > 1).any()


def test_consistency_lists_each_counter_that_differs_from_the_runs(account: tuple[pa.Table, pa.Table]) -> None:
    df, runs = frames.to_pandas(account[0], schema.DEPLOYMENTS), frames.to_pandas(account[1], schema.RUNS)
    id_ = failure_streaks(runs).index[0]
    last = runs[runs["deployment_id"] == id_].sort_values(["triggered_at", "id"])
    last_failure = last[last["status"] == "failed"].index[-1]
    differences = consistency(df, runs.drop(index=last_failure))
    counters = df.set_index("id").loc[
        id_, ["stats_total_runs", "stats_total_failures", "stats_consecutive_failures"]
    ]
    assert differences["deployment_id"].tolist() == [id_] * 3
    assert differences["figure"].tolist() == ["total_runs", "total_failures", "consecutive_failures"]
    assert differences["counter"].tolist() == counters.tolist()
    assert differences["difference"].tolist() == [1, 1, 1]
    assert {str(dtype) for dtype in differences.dtypes[["counter", "listed", "difference"]]} == {"Int64"}


def test_consistency_compares_a_deployment_without_runs_with_0() -> None:
    df = pd.DataFrame(
        {"id": ["d1", "d2"], "name": "n", "stats_total_runs": [0, 2], "stats_total_failures": [0, 0]}
    )
    differences = consistency(df.assign(stats_consecutive_failures=0), hourly_runs(""))
    assert differences[["deployment_id", "figure", "counter", "listed"]].to_numpy().tolist() == [
        ["d2", "total_runs", 2, 0]
    ]
    assert list(consistency(df.iloc[:0].assign(stats_consecutive_failures=0), hourly_runs("f")).columns) == list(
        differences.columns
    )


def test_streaks_rates_and_delays_have_the_same_groups(account: tuple[pa.Table, pa.Table]) -> None:
    runs = frames.to_pandas(account[1], schema.RUNS)
    assert set(failure_streaks(runs).index) == set(run_failure_rates(runs).index) == set(start_delays(runs).index)
