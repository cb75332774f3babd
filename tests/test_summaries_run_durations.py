"""Tests of `duration_regressions` and `start_delays`: thresholds, retries, and all figures by brute force."""

from __future__ import annotations

from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qoderdata.summaries import duration_regressions, start_delays
from tests.summary_frames import HOUR_MS, START, YEAR_1, at, grouped, hourly_runs, random_rows, records, runs_frame

if TYPE_CHECKING:
    import pandas as pd


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


def test_the_begin_of_the_recent_period_is_in_it_and_not_in_the_one_before() -> None:
    times_and_durations = [(0, 1000), (48, 5000), (120, 5000)]
    runs = runs_frame(
        {"status": "completed", "triggered_at": at(h), "duration_ms": ms} for h, ms in times_and_durations
    )
    (row,) = records(duration_regressions(runs, recent="3D", min_runs=1))
    assert (row["recent_runs"], row["baseline_runs"]) == (2, 1)


@pytest.mark.parametrize("min_runs", [1, 2, 3])
@pytest.mark.parametrize(("by", "deployments"), [("deployment_id", 60), (None, 1), (None, 3)])
def test_duration_regressions_equal_brute_force(by: str | None, deployments: int, min_runs: int) -> None:
    rows = random_rows(f"regressions {min_runs}", deployments=deployments)
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
        ({"recent": "0D"}, "recent='0D' must be longer than 0"),
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
    rows = random_rows("delays", deployments=80)
    delays = records(start_delays(runs_frame(rows)))
    groups = grouped(rows, "deployment_id")
    assert len(delays) == len(groups)
    for row in delays:
        firsts: dict[Any, dict[str, Any]] = {}
        for run in sorted(
            groups[row["deployment_id"]], key=lambda run: (run["created_at"] or YEAR_1, run["position"])
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
