"""Tests of `unusual_runs`, against SciPy and brute force."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import qoderdata as qd
from qoderdata.frame_checks import TEXT
from tests.engine_frames import collected, opened

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = datetime(2026, 6, 15, tzinfo=UTC)
HOUR = timedelta(hours=1)


def runs_of(rows: list[tuple[Any, ...]], **columns: Any) -> pd.DataFrame:  # noqa: ANN401 any cells
    """Build runs from (deployment, status, duration, hours since the trigger, hours since the start)."""
    parts = list(zip(*rows, strict=True)) if rows else [()] * 5

    def times(hours: Any) -> pd.Series[Any]:  # noqa: ANN401 numbers
        return pd.Series([None if ago is None else NOW - ago * HOUR for ago in hours], dtype="datetime64[us, UTC]")

    frame = pd.DataFrame({
        "id": pd.Series([f"r{number:03}" for number in range(len(rows))], dtype=TEXT),
        "deployment_id": pd.Series(parts[0], dtype=TEXT),
        "status": pd.Series(parts[1], dtype=TEXT),
        "duration_ms": pd.array(list(parts[2]), dtype="Int64"),
        "triggered_at": times(parts[3]),
        "started_at": times(parts[4]),
    })  # fmt: skip
    return frame.assign(**columns)


def completed(durations: Sequence[int | None], deployment: str | None = "dep_1") -> list[tuple[Any, ...]]:
    return [(deployment, "completed", one, 100 + number, None) for number, one in enumerate(durations)]


def deployments_of(timeouts: dict[str, int | None]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": pd.Series([*timeouts], dtype=TEXT),
            "config_timeout_ms": pd.array([*timeouts.values()], dtype="Int64"),
        }
    )


def score(durations: list[int], of: int) -> float | None:
    """Compute the modified z score with SciPy and NumPy."""
    logs = np.log(np.maximum(durations, 1))
    deviation, distance = stats.median_abs_deviation(logs), math.log(max(of, 1)) - float(np.median(logs))
    if deviation > 0:
        return float(0.6745 * distance / deviation)
    mean = float(np.abs(logs - np.median(logs)).mean())
    return distance / (1.253314 * mean) if mean > 0 else None


def brute_force(
    rows: list[tuple[Any, ...]], timeouts: dict[str, int | None], *, threshold: float, min_runs: int
) -> dict[tuple[str, str], tuple[float | None, float | None]]:
    found: dict[tuple[str, str], tuple[float | None, float | None]] = {}
    durations: dict[str, list[int]] = {}
    for deployment, status, duration, *_ in rows:
        if deployment is not None and status == "completed" and duration is not None:
            durations.setdefault(deployment, []).append(duration)
    for number, (deployment, status, duration, triggered, started) in enumerate(rows):
        own = durations.get(deployment, [])
        enough = len(own) >= min_runs
        median = float(np.median(own)) if enough else None
        timeout = (timeouts.get(deployment) or None) if deployment is not None else None
        z = score(own, duration) if enough and status == "completed" and duration is not None else None
        limit = timeout if timeout is not None else None if median is None else 10 * median
        ago = started if started is not None else triggered
        kinds = {
            "too_short": z is not None and z < -threshold,
            "too_long": z is not None and z > threshold,
            "past_timeout": None not in {timeout, duration}
            and status in {"completed", "failed", "cancelled"}
            and duration > timeout,
            "stuck": limit is not None
            and ago is not None
            and status in {"pending", "running", "waiting"}
            and ago * 3_600_000 > limit,
        }
        found |= {(f"r{number:03}", kind): (z, median) for kind, holds in kinds.items() if holds}
    return found


def random_runs(draw: Random) -> tuple[list[tuple[Any, ...]], dict[str, int | None]]:
    """Draw 40 deployments with 0 to 20 runs each, runs of no deployment, and some timeouts."""
    names = [f"dep_{number}" for number in range(40)]
    sizes = [draw.randrange(21) for _ in names]
    rows = [
        (
            name,
            draw.choice([*["completed"] * 4, "failed", "running", "waiting", None]),
            draw.choice([None, 0, 1, 900, 1000, 1000, 1000, 1100, 10**5, 10**8]),
            draw.choice([None, *range(51)]),
            draw.choice([None, draw.randrange(51)]),
        )
        for name in [*(name for name, size in zip(names, sizes, strict=True) for _ in range(size)), *[None] * 20]
    ]
    draw.shuffle(rows)
    return rows, {name: draw.choice([None, 0, 1000, 10**7]) for name in draw.sample([*names, "dep_gone"], 25)}


@pytest.mark.parametrize("min_runs", [1, 3, 6])
@pytest.mark.parametrize("engine", ["pandas", "polars lazy", "duckdb", "pyarrow"])
def test_unusual_runs_equal_brute_force(engine: str, min_runs: int) -> None:
    rows, timeouts = random_runs(Random(f"{engine} {min_runs}"))  # noqa: S311 nothing secret
    runs = opened(runs_of(rows), engine)
    result = qd.unusual_runs(runs, deployments_of(timeouts), now=NOW, threshold=2, min_runs=min_runs)
    got = collected(result).to_pylist()
    expected = brute_force(rows, timeouts, threshold=2, min_runs=min_runs)
    assert {kind for _, kind in expected} == {"too_short", "too_long", "past_timeout", "stuck"}
    assert {(row["run_id"], row["kind"]) for row in got} == set(expected)
    assert len(got) == len(expected)
    for row in got:
        z, median = expected[row["run_id"], row["kind"]]
        assert row["z_score"] == (None if z is None else pytest.approx(z))
        assert row["median_ms"] == (None if median is None else pytest.approx(median))
    newest = [
        (row["triggered_at"] is None, row["triggered_at"] and -row["triggered_at"].timestamp()) for row in got
    ]
    assert newest == sorted(newest)


def test_scores_of_lognormal_durations_equal_scipy() -> None:
    draw = np.random.default_rng(5)
    durations = [int(one) for one in np.exp(draw.normal(8, 0.4, 500))] + [1, 10**7]
    unusual = qd.unusual_runs(runs_of(completed([*durations])), now=NOW, threshold=2.5)
    expected = {number: score(durations, one) or 0 for number, one in enumerate(durations)}
    expected = {number: z for number, z in expected.items() if abs(z) > 2.5}
    got = {int(row["run_id"][1:]): row["z_score"] for row in collected(unusual).to_pylist()}
    assert got == pytest.approx(expected)
    assert {500, 501} < set(got)
    assert unusual.loc[unusual["run_id"] == "r500", "kind"].tolist() == ["too_short"]


def test_a_median_deviation_of_0_is_replaced_by_the_mean_deviation() -> None:
    unusual = qd.unusual_runs(runs_of(completed([1000] * 20 + [5000])), now=NOW)
    assert unusual["z_score"].tolist() == pytest.approx([21 / 1.253314])
    assert qd.unusual_runs(runs_of(completed([1000] * 21)), now=NOW).empty


def test_a_run_whose_score_is_the_threshold_is_not_unusual() -> None:
    runs = runs_of(completed([900, 1000, 1100] * 4 + [5, 10**6]))
    unusual = qd.unusual_runs(runs, now=NOW)
    assert unusual["kind"].tolist() == ["too_short", "too_long"]
    for z in unusual["z_score"]:
        assert z not in qd.unusual_runs(runs, now=NOW, threshold=abs(z))["z_score"].tolist()


def test_a_duration_of_0_counts_as_1_ms() -> None:
    """The logarithm of 0 is not defined, so 0 and 1 ms have the same score."""
    assert qd.unusual_runs(runs_of(completed([0] * 10 + [1] * 11)), now=NOW).empty
    unusual = qd.unusual_runs(runs_of(completed([900, 1000, 1100] * 7 + [0])), now=NOW)
    assert unusual[["kind", "duration_ms"]].to_numpy().tolist() == [["too_short", 0]]


def test_fewer_runs_than_min_runs_give_no_median() -> None:
    rows = [*completed([900, 1000, 1100] * 3), ("dep_1", "running", None, 40, None)]
    assert qd.unusual_runs(runs_of(rows), now=NOW).empty
    more = runs_of([*rows, *completed([10**7])])
    assert sorted(qd.unusual_runs(more, now=NOW)["kind"]) == ["stuck", "too_long"]


def test_a_run_is_stuck_if_it_began_longer_than_the_timeout_ago() -> None:
    rows = [
        ("dep_1", "running", None, 9, 2),
        ("dep_1", "pending", None, 3, None),
        ("dep_1", "waiting", None, 1, None),
    ]
    rows += [("dep_2", "running", None, 90, None), ("dep_1", "completed", None, 90, None)]
    df = deployments_of({"dep_1": 2 * 3_600_000, "dep_2": None})
    unusual = qd.unusual_runs(runs_of(rows), df, now=NOW)
    assert unusual[["run_id", "kind", "duration_ms", "timeout_ms"]].to_numpy().tolist() == [
        ["r001", "stuck", 3 * 3_600_000, 2 * 3_600_000]
    ]
    later = qd.unusual_runs(runs_of(rows), df, now=NOW + timedelta(milliseconds=1))
    assert later["run_id"].tolist() == ["r001", "r000"]
    assert qd.unusual_runs(runs_of(rows), now=NOW).empty


def test_a_run_without_a_timeout_is_stuck_after_10_medians() -> None:
    runs = runs_of([*completed([3_600_000] * 10), ("dep_1", "running", None, 10, None)])
    assert qd.unusual_runs(runs, now=NOW).empty
    assert qd.unusual_runs(runs, now=NOW + timedelta(milliseconds=1))["kind"].tolist() == ["stuck"]


def test_one_run_may_have_two_kinds() -> None:
    rows = [*completed([900, 1000, 1100] * 4), *completed([10**6])]
    unusual = qd.unusual_runs(runs_of(rows), deployments_of({"dep_1": 5000}), now=NOW)
    assert unusual["kind"].tolist() == ["past_timeout", "too_long"]
    assert unusual["run_id"].tolist() == ["r012", "r012"]


def test_a_cancelled_run_may_be_past_its_timeout() -> None:
    unusual = qd.unusual_runs(
        runs_of([("dep_1", "cancelled", 5001, 1, None)]), deployments_of({"dep_1": 5000}), now=NOW
    )
    assert unusual["kind"].tolist() == ["past_timeout"]


def test_dtypes_of_durations() -> None:
    unusual = qd.unusual_runs(runs_of([*completed([900, 1000, 1100] * 4), *completed([10**6])]), now=NOW)
    assert str(unusual["duration_ms"].dtype) == str(unusual["timeout_ms"].dtype) == "Int64"


def test_name_column_comes_first() -> None:
    rows = [*completed([900, 1000, 1100] * 4), *completed([10**6])]
    named = qd.unusual_runs(runs_of(rows, deployment_name="report"), now=NOW)
    assert named.columns[0] == "name"
    assert named["name"].tolist() == ["report"]


def test_frames_without_started_at_are_accepted() -> None:
    runs = runs_of([*completed([900, 1000, 1100] * 4), *completed([10**6])])
    without_start = qd.unusual_runs(runs.drop(columns="started_at"), now=NOW)
    pd.testing.assert_frame_equal(without_start, qd.unusual_runs(runs, now=NOW))


@pytest.mark.parametrize(
    "invalid",
    [{"threshold": 0}, {"threshold": "3"}, {"threshold": float("nan")}, {"min_runs": 0}, {"min_runs": 2.5},
     {"now": "2026-06-15T00:00"}, {"now": "soon"}],
)  # fmt: skip
def test_invalid_parameters_are_named(invalid: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(invalid))}="):
        qd.unusual_runs(runs_of([]), **invalid)


def test_numpy_numbers_are_accepted_as_parameters() -> None:
    runs = runs_of([*completed([900, 1000, 1100] * 4), *completed([10**6])])
    plain = qd.unusual_runs(runs, now=NOW, threshold=3.5, min_runs=10)
    numbers: dict[str, Any] = {"threshold": np.float32(3.5), "min_runs": np.int64(10)}
    pd.testing.assert_frame_equal(qd.unusual_runs(runs, now=NOW, **numbers), plain)


def test_dask_does_not_support_unusual_runs_and_error_groups() -> None:
    runs = dd.from_pandas(runs_of(completed([1000])), npartitions=1)  # type: ignore[no-untyped-call] # Dask has no types
    for summarise in (qd.unusual_runs, qd.error_groups):
        given = runs if summarise is qd.unusual_runs else runs.assign(error_type="a", error_message="b")
        with pytest.raises(NotImplementedError, match="which Dask does not have"):
            summarise(given)
