"""Tests of `fill_counters`, `consistency`, and the warnings about counters and unknown outcomes."""

from __future__ import annotations

import json
import warnings
from random import Random
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import pytest

from qoderdata import (
    Client,
    check,
    compare_periods,
    consistency,
    failure_rates,
    failure_streaks,
    fill_counters,
    flatten_deployments,
    flatten_runs,
    load_deployments,
    load_runs,
    write_report,
)
from qoderdata.errors import DataQualityWarning
from qoderdata.sandbox import Sandbox
from tests.summary_frames import account_frames, hourly_runs

if TYPE_CHECKING:
    from pathlib import Path

COUNTERS = ["stats_total_runs", "stats_total_failures", "stats_consecutive_failures"]
LAST = "stats_last_triggered_at"

Row = dict[str, Any]


def deployments(*ids: str, **stats: Any) -> pd.DataFrame:  # noqa: ANN401 counters
    """Build deployments without counters; the first one gets the counters `stats`."""
    records: list[Row] = [{"id": id_, "name": f"name of {id_}"} for id_ in ids]
    if stats:
        records[0]["metadata"] = {"cas_config": {"stats": stats}}
    return flatten_deployments(records)


def runs(*rows: tuple[str, str | None, int | None]) -> pd.DataFrame:
    """Build runs from (deployment, status, minute)."""
    return flatten_runs(
        [
            {
                "id": f"drun_{number}",
                "deployment_id": deployment,
                "status": status or "unknown",
                "triggered_at": None if minute is None else f"2026-06-15T00:{minute:02}:00Z",
            }
            for number, (deployment, status, minute) in enumerate(rows)
        ]
    )


def counter_rows(frame: pd.DataFrame) -> list[list[Any]]:
    rows = frame[["id", *COUNTERS, LAST]].to_numpy(dtype=object).tolist()
    return [[None if pd.isna(value) else value for value in row] for row in rows]


def minute(value: int) -> pd.Timestamp:
    return pd.Timestamp("2026-06-15", tz="UTC") + pd.Timedelta(minutes=value)


def test_counters_are_counted_from_runs() -> None:
    df = deployments("dep_1", "dep_2")
    listed = runs(
        ("dep_1", "completed", 1), ("dep_1", "failed", 2), ("dep_1", "skipped", 3), ("dep_1", "failed", 4),
        ("dep_1", "waiting", 5), ("dep_9", "failed", 0),
    )  # fmt: skip
    counted = fill_counters(df, listed)
    assert counter_rows(counted) == [["dep_1", 5, 2, 2, minute(5)], ["dep_2", 0, 0, 0, None]]
    assert counted.attrs["counted_since"] == "2026-06-15T00:00:00+00:00"
    assert [counted.attrs[f"counted_{name}"] for name in ("runs", "unknown", "assumed")] == [5, 0, 0]
    assert failure_rates(counted).loc["dep_1", "failure_rate"] == pytest.approx(2 / 5)


@pytest.mark.parametrize(
    "own", [{"total_runs": 9}, {"total_failures": 0}, {"consecutive_failures": 1}, {"total_runs": 0}]
)
def test_counters_of_the_service_are_kept(own: dict[str, int]) -> None:
    """A deployment with any counter gets none from runs, as counters of two sources do not fit together."""
    df = deployments("dep_1", "dep_2", **own)
    counted = fill_counters(df, runs(("dep_1", "failed", 1), ("dep_2", "failed", 2)))
    assert counter_rows(counted)[0] == counter_rows(df)[0]
    assert counter_rows(counted)[1] == ["dep_2", 1, 1, 1, minute(2)]


def test_a_known_last_trigger_is_kept() -> None:
    df = deployments("dep_1", last_triggered_at="2026-06-20T00:00:00Z")
    counted = fill_counters(df, runs(("dep_1", "failed", 1)))
    assert counter_rows(counted) == [["dep_1", 1, 1, 1, pd.Timestamp("2026-06-20", tz="UTC")]]


def test_a_frame_with_all_counters_is_returned_unchanged() -> None:
    df = deployments("dep_1", total_runs=1)
    counted = fill_counters(df, runs(("dep_1", "failed", 1)))
    pd.testing.assert_frame_equal(counted, df)
    assert "counted_since" not in counted.attrs


def test_unknown_outcomes_do_not_count_as_successes() -> None:
    df = deployments("dep_1", "dep_2", "dep_3")
    listed = runs(
        ("dep_1", None, 1), ("dep_1", None, 2), ("dep_2", None, 3), ("dep_2", "failed", 4),
        ("dep_2", "completed", 5), ("dep_9", None, 6),
    ).assign(status_from=["run", "run", "run", "events", "session", "run"])  # fmt: skip
    with pytest.warns(
        DataQualityWarning, match=r"the outcome of 3 of 5 counted runs is not known, and 1 are assumed"
    ) as caught:
        counted = fill_counters(df, listed)
    assert len(caught) == 1
    assert counter_rows(counted) == [
        ["dep_1", 2, None, None, minute(2)], ["dep_2", 3, 1, 0, minute(5)], ["dep_3", 0, 0, 0, None],
    ]  # fmt: skip
    rates = failure_rates(counted)
    assert rates.loc["dep_1", ["total_runs", "total_failures", "failure_rate"]].isna().all()
    assert rates.loc["dep_2", "failure_rate"] == pytest.approx(1 / 3)
    assert failure_rates(counted, None)["failure_rate"].tolist() == pytest.approx([1 / 3])


def test_a_run_that_is_there_twice_warns_and_counts_twice() -> None:
    listed = pd.concat([runs(("dep_1", "completed", 1), ("dep_1", None, 2))] * 2)
    with pytest.warns(DataQualityWarning) as caught:
        counted = fill_counters(deployments("dep_1"), listed)
    assert counter_rows(counted)[0][1] == 4
    assert any("2 rows of the runs frame have an id that an earlier row has" in str(one.message) for one in caught)


def test_up_to_5_percent_of_unknown_outcomes_do_not_warn() -> None:
    listed = runs(*[("dep_1", "completed", 1)] * 19, ("dep_1", None, 2))
    assert counter_rows(fill_counters(deployments("dep_1"), listed))[0][1:4] == [20, 0, 0]
    few = listed.iloc[1:].copy()
    for outcomes, advice in (("sessions", "outcomes='events'"), ("events", "The service gave no session")):
        few.attrs["outcomes"] = outcomes
        with pytest.warns(DataQualityWarning, match=f"the outcome of 1 of 19 counted runs .*{advice}"):
            fill_counters(deployments("dep_1"), few)


def test_failures_are_missing_where_no_outcome_is_known() -> None:
    """In the newest edition, run records alone have an outcome only for runs that could not start."""
    with Sandbox(deployments=30, seed=7, runs=60, edition="D") as sandbox:
        client = Client(sandbox.pat, sandbox.base_url)
        df = load_deployments(client=client, include_archived=True)
        unresolved, resolved = (load_runs(client=client, outcomes=outcomes) for outcomes in ("runs", "events"))
    with pytest.warns(DataQualityWarning, match="the outcome of"):
        counted = fill_counters(df, unresolved)
    known = unresolved.groupby("deployment_id")["status"].count()
    missing = counted.set_index("id")["stats_total_failures"].isna()
    assert set(missing.index[missing]) == set(known.index[known == 0]) & set(df["id"]) != set()
    with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
        assert fill_counters(df, resolved)["stats_total_failures"].sum() > counted["stats_total_failures"].sum()


def test_compare_periods_warns_of_outcomes_except_in_check_and_report(tmp_path: Path) -> None:
    """`check` has a finding and a report has a line, so the summaries that they call do not warn as well."""
    listed = runs(*[("dep_1", "completed", 0)] * 50)
    now = minute(0) + pd.Timedelta("14D")
    listed["triggered_at"] = pd.date_range(end=now - pd.Timedelta("1h"), periods=50, freq="6h", unit="us")
    listed["status_from"] = pd.array(["events"] * 20 + ["session"] * 20 + ["events"] * 10, dtype="str")
    listed.loc[40:, "status"] = None
    df = deployments("dep_1")
    assert set(check(df, listed, now=now)["kind"]) == {"incomplete_data"}
    write_report(df, tmp_path / "report.html", runs=listed, start=now)  # a warning would be an error
    assert "The outcome of 10 runs is unknown." in (tmp_path / "report.html").read_text(encoding="utf-8")
    for module in ("__main__", "qoderdata.cli.compare"):
        call = {"__name__": module, "compare": compare_periods, "runs": listed, "now": now}
        with pytest.warns(DataQualityWarning) as caught:
            exec("compare(runs, None, until=now)", call)  # noqa: S102 - our own line
        assert len(caught) == 2


def test_consecutive_failures_of_retries_at_one_time_equal_streaks() -> None:
    listed = runs(("dep_1", "completed", 1), ("dep_1", "failed", 1))
    listed = listed.assign(created_at=[minute(9), minute(2)]).astype({"created_at": "datetime64[us, UTC]"})
    assert failure_streaks(listed)["current_streak"].tolist() == [0]
    assert fill_counters(deployments("dep_1"), listed)["stats_consecutive_failures"].tolist() == [0]


def test_fill_counters_keeps_its_arguments_index_and_dtypes() -> None:
    df, listed = deployments("dep_1", "dep_2"), runs(("dep_1", "failed", 1))
    df = df.set_axis(pd.Index([5, 5], name="row"))
    before, runs_before = df.copy(), listed.copy()
    counted = fill_counters(df, listed)
    pd.testing.assert_frame_equal(df, before)
    pd.testing.assert_frame_equal(listed, runs_before)
    assert "counted_since" not in df.attrs
    assert json.loads(json.dumps(counted.attrs)) == counted.attrs
    pd.testing.assert_index_equal(counted.index, before.index)
    assert counted.dtypes.to_dict() == before.dtypes.to_dict()
    assert [row[1] for row in counter_rows(counted)] == [1, 0]


@pytest.mark.parametrize("dtype", ["datetime64[s, Asia/Tokyo]", "datetime64[ns, UTC]"])
def test_times_of_other_units_and_zones_are_filled(dtype: str) -> None:
    df, listed = deployments("dep_1", "dep_2"), runs(("dep_1", "failed", 1))
    listed["triggered_at"] += pd.Timedelta("1us")
    expected = fill_counters(df, listed)
    pd.testing.assert_frame_equal(fill_counters(df.astype({LAST: dtype}), listed), expected)
    other = listed.astype({"triggered_at": "datetime64[ns, Asia/Tokyo]"})
    pd.testing.assert_frame_equal(fill_counters(df, other).iloc[:, :-1], expected.iloc[:, :-1])


def test_fill_counters_of_empty_frames() -> None:
    df = deployments()
    pd.testing.assert_frame_equal(fill_counters(df, runs(("dep_1", "failed", 1))), df)
    counted = fill_counters(deployments("dep_1"), runs())
    assert counter_rows(counted) == [["dep_1", 0, 0, 0, None]]
    assert counted.attrs["counted_since"] is None


def test_consistency_warns_where_no_deployment_has_counters() -> None:
    listed = runs(("dep_1", "failed", 1))
    with pytest.warns(DataQualityWarning, match="no deployment has counters, so there is nothing to compare"):
        assert consistency(deployments("dep_1"), listed).empty
    assert consistency(deployments(), listed).empty
    assert len(consistency(deployments("dep_1", "dep_2", total_runs=2), listed)) == 1


def test_failure_rates_warns_where_no_deployment_has_counters() -> None:
    df = deployments("dep_1", "dep_2")
    with pytest.warns(DataQualityWarning, match=r"fill_counters\(df, load_runs\(\)\)"):
        assert failure_rates(df)["failure_rate"].isna().all()
    failure_rates(deployments("dep_1", "dep_2", total_runs=1, total_failures=0))
    failure_rates(deployments())
    failure_rates(fill_counters(df, runs()))


SQL = """
WITH ordered AS (
    SELECT *, row_number() OVER (PARTITION BY deployment_id ORDER BY triggered_at, id) AS position FROM listed
    WHERE triggered_at IS NOT NULL
), successes AS (
    SELECT deployment_id, max(position) AS last FROM ordered WHERE status = 'completed' GROUP BY ALL
), streaks AS (
    SELECT deployment_id, count(*) AS streak FROM ordered LEFT JOIN successes USING (deployment_id)
    WHERE status = 'failed' AND position > coalesce(last, 0) GROUP BY ALL
), totals AS (
    SELECT deployment_id, count(*) AS runs, count(*) FILTER (status = 'failed') AS failed,
        count(*) FILTER (status <> 'unknown') = 0 AS all_unknown, max(triggered_at) AS triggered_at
    FROM listed GROUP BY ALL
)
SELECT id, coalesce(runs, 0), CASE WHEN all_unknown THEN NULL ELSE coalesce(failed, 0) END,
    CASE WHEN all_unknown THEN NULL ELSE coalesce(streak, 0) END, epoch_us(totals.triggered_at)
FROM deployed LEFT JOIN totals ON id = totals.deployment_id LEFT JOIN streaks ON id = streaks.deployment_id
ORDER BY id
"""


@pytest.mark.filterwarnings("ignore:the outcome of:qoderdata.errors.DataQualityWarning")
@pytest.mark.parametrize("count", [0, 5, 300])
def test_counted_counters_equal_those_of_sql(count: int) -> None:
    draw = Random(count)  # noqa: S311 nothing secret
    ids = [f"dep_{number:02}" for number in range(count // 6 + 1)]
    statuses = ["completed", "failed", "failed", "skipped", "cancelled", "waiting", "pending", None]
    rows = [
        (draw.choice([*ids, "dep_gone"]), draw.choice(statuses), draw.choice([None, *range(60)]))
        for _ in range(count)
    ]
    listed, deployed = runs(*rows), deployments(*ids)
    with duckdb.connect() as connection:
        connection.register("listed", listed[["id", "deployment_id", "status", "triggered_at"]])
        connection.register("deployed", deployed[["id"]])
        expected = [list(row) for row in connection.execute(SQL).fetchall()]
    counted = fill_counters(deployed, listed)
    got = [[*row[:4], row[4] and row[4].value // 1000] for row in counter_rows(counted)]
    assert got == expected
    times = [at for _, _, at in rows if at is not None]
    since = minute(min(times)).isoformat() if times else None
    assert counted.attrs["counted_since"] == since


def test_consistency_of_a_consistent_account_is_empty() -> None:
    """All statuses count; missing counters are not compared."""
    df, runs = account_frames()
    assert consistency(df, runs).empty
    assert df["stats_total_runs"].isna().any()
    assert (df["stats_consecutive_failures"] > 1).any()


def test_consistency_lists_each_counter_that_differs_from_the_runs() -> None:
    df, runs = account_frames()
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
    assert differences.index.tolist() == [0]
    assert list(consistency(df.iloc[:0].assign(stats_consecutive_failures=0), hourly_runs("f")).columns) == list(
        differences.columns
    )
