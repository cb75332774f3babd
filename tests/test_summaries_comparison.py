"""Tests of `compare_periods` and `error_budget`, against published intervals, SciPy, SQL and brute force."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import dask.dataframe as dd
import duckdb
import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import stats

import qoderdata as qd
from qoderdata.errors import DataQualityWarning, FrameTypeError, MissingColumnError, UnknownOutcomesWarning
from qoderdata.frame_checks import TEXT
from qoderdata.summaries import wilson
from tests.engine_frames import collected, opened

END = datetime(2026, 6, 15, tzinfo=UTC)
DAY = timedelta(days=1)


def runs_at(rows: list[tuple[timedelta, str]], **columns: Any) -> pd.DataFrame:  # noqa: ANN401 any cells
    """Build runs of one deployment from (time before `END`, status)."""
    frame = pd.DataFrame({
        "id": [f"r{number:04}" for number in range(len(rows))],
        "deployment_id": "dep_1",
        "status": pd.Series([status for _, status in rows], dtype=TEXT),
        "triggered_at": pd.Series([END - ago for ago, _ in rows], dtype="datetime64[us, UTC]"),
        "duration_ms": pd.array([1000] * len(rows), dtype="Int64"),
    })  # fmt: skip
    return frame.assign(**columns)


def random_runs(seed: int, count: int = 600) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    ago = [timedelta(minutes=int(minutes)) for minutes in draw.integers(0, 60 * 24 * 30, count)]
    statuses = ["completed", "failed", "skipped", "cancelled", "running", None]
    return pd.DataFrame({
        "id": [f"r{number:04}" for number in range(count)],
        "deployment_id": pd.Series(draw.choice(np.array(["dep_1", "dep_2", "dep_3", None]), count), dtype=TEXT),
        "agent_id": pd.Series(draw.choice(np.array(["a", "b"]), count), dtype=TEXT),
        "status": pd.Series(
            draw.choice(np.array(statuses), count, p=[0.5, 0.25, 0.1, 0.05, 0.05, 0.05]), dtype=TEXT
        ),
        "triggered_at": pd.Series([END - one for one in ago], dtype="datetime64[us, UTC]"),
        "duration_ms": pd.array(draw.integers(0, 10**5, count), dtype="Int64"),
    })  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062), ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775), ((0, 10), (0, 10), -0.2775, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0), ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)  # fmt: skip
def test_interval_of_the_change_equals_the_published_one(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    """Compare with Newcombe (1998), table II, method 10, and with SciPy's Wilson intervals."""
    names = {side: (f"{side}_rate", f"{side}_low", f"{side}_high") for side in "ab"}
    counts = {"ak": [first[0]], "an": [first[1]], "bk": [second[0]], "bn": [second[1]]}
    frame = nw.from_native(pd.DataFrame(counts)).lazy()
    for side in "ab":
        frame = wilson.add_rate(frame, f"{side}k", f"{side}n", confidence=0.95, names=names[side])
    row = wilson.add_change(frame, names["a"], names["b"]).collect().to_native().iloc[0]
    assert (round(row["change_low"], 4), round(row["change_high"], 4)) == (low, high)
    one, two = (stats.binomtest(*side).proportion_ci(method="wilson") for side in (first, second))
    rate, other = first[0] / first[1], second[0] / second[1]
    assert row["change"] == pytest.approx(rate - other)
    assert row["change_low"] == pytest.approx(rate - other - math.hypot(rate - one.low, two.high - other))
    assert row["change_high"] == pytest.approx(rate - other + math.hypot(one.high - rate, other - two.low))


@pytest.mark.filterwarnings("ignore:the outcome of:qoderdata.errors.DataQualityWarning")
@pytest.mark.parametrize("by", [None, "deployment_id", ["agent_id", "deployment_id"]])
@pytest.mark.parametrize(("recent", "baseline"), [("7D", None), ("36h", "10D")])
def test_counts_and_medians_equal_those_of_sql(by: Any, recent: str, baseline: str | None) -> None:  # noqa: ANN401
    runs = random_runs(1)
    compared = qd.compare_periods(runs, by, recent=recent, baseline=baseline)
    end = runs["triggered_at"].max().floor("min") + pd.Timedelta("1min")
    middle = end - pd.Timedelta(recent)
    begin = middle - pd.Timedelta(baseline or recent)
    keys = [] if by is None else [by] if isinstance(by, str) else by
    parts = [
        f"""count(*) FILTER (status IN ('completed', 'failed') AND {inside}) AS {name}_decided,
            count(*) FILTER (status = 'failed' AND {inside}) AS {name}_failed,
            median(duration_ms) FILTER (status = 'completed' AND {inside}) AS {name}_p50_ms"""
        for name, inside in (("recent", "triggered_at >= $2"), ("baseline", "triggered_at < $2"))
    ]
    sql = f"""SELECT {", ".join([*keys, *parts])} FROM runs WHERE triggered_at >= $1 AND triggered_at < $3
              GROUP BY ALL"""  # noqa: S608 - constants of this test
    with duckdb.connect() as connection:
        connection.register("runs", runs)
        bounds = [begin.to_pydatetime(), middle.to_pydatetime(), end.to_pydatetime()]
        expected = connection.execute(sql, bounds).df()
    columns = [name for name in expected.columns if name not in keys]
    got = (compared.reset_index() if keys else compared)[[*keys, *columns]].sort_values(columns, ignore_index=True)
    expected = expected.sort_values(columns, ignore_index=True)
    assert got[columns].to_numpy("float64") == pytest.approx(expected[columns].to_numpy("float64"), nan_ok=True)
    for key in keys:
        assert got[key].fillna("?").tolist() == expected[key].fillna("?").tolist()
    decided = compared[compared["recent_decided"] > 0]
    assert (decided["recent_rate"] == decided["recent_failed"] / decided["recent_decided"]).all()
    assert compared["recent_rate"].isna().sum() == len(compared) - len(decided)


def test_period_bounds_are_half_open() -> None:
    ago = [timedelta(0), timedelta(microseconds=1), DAY, DAY + timedelta(microseconds=1), 3 * DAY]
    ago.append(3 * DAY + timedelta(microseconds=1))
    runs = runs_at([(one, "failed") for one in ago])
    row = qd.compare_periods(runs, None, recent="1D", baseline="2D", until=END).iloc[0]
    assert (row["recent_decided"], row["baseline_decided"]) == (2, 2)


def test_until_defaults_to_the_end_of_the_newest_runs_minute() -> None:
    runs = runs_at([(timedelta(0), "failed"), (DAY - timedelta(minutes=1), "failed"), (DAY, "completed")])
    row = qd.compare_periods(runs, None, recent="1D").iloc[0]
    assert (row["recent_decided"], row["baseline_decided"]) == (2, 1)


def test_until_may_be_an_age() -> None:
    old = runs_at([(DAY, "failed")])
    assert len(qd.compare_periods(old, until="0h", recent="1D")) == 0
    recent = old.assign(triggered_at=pd.Timestamp.now("UTC").as_unit("us") - pd.Timedelta("3h"))
    assert qd.compare_periods(recent, until="1h", recent="1D")["recent_decided"].tolist() == [1]
    assert qd.compare_periods(recent, until="4h", recent="1D").empty


def test_verdicts_and_their_order() -> None:
    def group(name: str, recent: tuple[int, int], before: tuple[int, int]) -> pd.DataFrame:
        rows = [(DAY, "failed")] * recent[0] + [(DAY, "completed")] * (recent[1] - recent[0])
        rows += [(9 * DAY, "failed")] * before[0] + [(9 * DAY, "completed")] * (before[1] - before[0])
        return runs_at(rows, deployment_id=name)

    frames = [
        group("worse", (30, 40), (5, 40)), group("better", (5, 40), (30, 40)), group("unclear", (5, 40), (6, 40)),
        group("new", (1, 2), (0, 0)), group("gone", (0, 0), (1, 2)), group("much worse", (40, 40), (0, 40)),
        runs_at([(DAY, "skipped"), (9 * DAY, "running")], deployment_id="nothing decided"),
        runs_at([(90 * DAY, "failed")], deployment_id="long ago"),
    ]  # fmt: skip
    runs = pd.concat(frames).assign(id=lambda rows: [f"r{number}" for number in range(len(rows))])
    compared = qd.compare_periods(runs, until=END)
    expected = {
        "much worse": "worse", "worse": "worse", "unclear": "unclear", "better": "better",
        "gone": "gone", "new": "new", "nothing decided": "unclear",
    }  # fmt: skip
    assert compared["verdict"].to_dict() == expected
    assert compared.index.tolist() == list(expected)
    missing = compared.loc[["gone", "new", "nothing decided"], ["change", "change_low", "change_high"]]
    assert missing.isna().all(axis=None)
    assert compared.loc[["new"], "baseline_rate"].isna().all()
    assert compared.loc[["new"], "recent_rate"].tolist() == [0.5]


@pytest.mark.filterwarnings("ignore:the outcome of:qoderdata.errors.DataQualityWarning")
def test_name_columns_come_first() -> None:
    runs = random_runs(2).assign(deployment_name="report", agent_name="helper")
    assert qd.compare_periods(runs).columns[0] == "name"
    assert qd.compare_periods(runs)["name"].unique().tolist() == ["report"]
    both = qd.compare_periods(runs, ["deployment_id", "agent_id"])
    assert both.columns[:2].tolist() == ["deployment_name", "agent_name"]
    assert qd.compare_periods(runs, None).columns[0] == "recent_decided"
    assert qd.error_budget(runs, by="agent_id")["name"].tolist() == ["helper", "helper"]


def runs_with_assumed(assumed: int = 1) -> pd.DataFrame:
    """Return 40 completed runs in each of two weeks; `assumed` of the recent ones have an assumed outcome."""
    rows = [(timedelta(days=days, minutes=n), "completed") for days in (1, 8) for n in range(40)]
    return runs_at(rows, status_from=["session"] * assumed + ["events"] * (80 - assumed))


@pytest.mark.parametrize("engine", [pd.DataFrame, pl.from_pandas, pa.Table.from_pandas])
def test_unequal_shares_of_assumed_outcomes_in_the_periods_warn(engine: Any) -> None:  # noqa: ANN401
    """The period with fewer assumed outcomes shows more of its failures, so it looks worse."""
    text = r"^5 of 40 completed runs of the recent period are assumed .* 0 of 40 of the baseline: .*'events'\)"
    with pytest.warns(DataQualityWarning, match=text) as caught:
        qd.compare_periods(engine(runs_with_assumed(5)), until=END)
    assert [warning.filename for warning in caught] == [__file__]
    older = runs_with_assumed(0)
    older.loc[older.index[-5:], "status_from"] = "session"
    with pytest.warns(DataQualityWarning, match=r"^0 of 40 completed runs .* and 5 of 40 of the baseline"):
        qd.compare_periods(engine(older), until=END)


def test_similar_shares_of_assumed_outcomes_do_not_warn() -> None:
    qd.compare_periods(runs_with_assumed(4), until=END)  # 10 points of 40 runs may be chance
    qd.compare_periods(runs_with_assumed(80), until=END)
    qd.compare_periods(runs_with_assumed(5).query("status_from == 'session'"), until=END)  # no baseline runs
    qd.compare_periods(pl.from_pandas(runs_with_assumed(5)).lazy(), until=END)  # lazy frames are not read to warn
    qd.compare_periods(runs_with_assumed(1).iloc[[0, 40]], until=END)  # one run in each period
    many = pd.concat([runs_with_assumed(2)] * 100)
    qd.compare_periods(many.assign(id=[str(n) for n in range(len(many))]), until=END)  # 5 points are allowed


@pytest.mark.parametrize("engine", [pd.DataFrame, pl.from_pandas, pa.Table.from_pandas])
@pytest.mark.parametrize("missed", [None, 9])
def test_error_budget_warns_of_unknown_outcomes(engine: Any, missed: int | None) -> None:  # noqa: ANN401
    runs = runs_at([(DAY, "completed")] * 9 + [(DAY, "failed")] * 9 + [(9 * DAY, "failed")] * 9)
    runs = runs.assign(status_from="session")
    runs.loc[8:9, "status"] = None
    absent = None if missed is None else missed_at([DAY] * missed)
    text = r"^the outcome of 2 of 18 counted runs is not known, and 8 are assumed .*, so more of the budget may be"
    with pytest.warns(UnknownOutcomesWarning, match=text) as caught:
        qd.error_budget(engine(runs), absent, window="7D", by="deployment_id", until=END)
    assert [warning.filename for warning in caught] == [__file__]
    qd.error_budget(engine(runs.assign(status="failed")), absent, window="7D", until=END)
    qd.error_budget(engine(runs), window="7D", until=END - 2 * DAY)  # the unknown ones are not in the window


def test_compare_periods_warns_once_of_unknown_outcomes() -> None:
    runs = runs_with_assumed(0)
    runs.loc[:9, "status"] = None
    runs.attrs["outcomes"] = "events"
    with pytest.warns(DataQualityWarning) as caught:
        qd.compare_periods(runs, until=END)
    (text,) = (str(warning.message) for warning in caught)
    assert text.startswith("the outcome of 10 of 80 counted runs is not known, and 0 are assumed")
    assert text.endswith(
        "so rates are those of the other runs alone. The service gave no session or no end for them"
    )


@pytest.mark.parametrize("invalid", [7, "7", 7.0, "0D", "soon", timedelta(0)])
@pytest.mark.parametrize("name", ["recent", "baseline"])
def test_a_span_without_unit_or_length_is_refused(name: str, invalid: Any) -> None:  # noqa: ANN401 anything
    with pytest.raises(ValueError, match=f"^{name}="):
        qd.compare_periods(runs_at([]), **{name: invalid})
    with pytest.raises(ValueError, match=r"^window="):
        qd.error_budget(runs_at([]), window=invalid)


@pytest.mark.parametrize("until", ["2026-06-15T00:00", 7, "7", datetime(2026, 6, 15)])  # noqa: DTZ001 no zone
def test_until_without_zone_or_unit_is_refused(until: Any) -> None:  # noqa: ANN401 anything
    for summarise in (qd.compare_periods, qd.error_budget):
        with pytest.raises(ValueError, match=r"^until="):
            summarise(runs_at([]), until=until)


@pytest.mark.parametrize("target", [0, 1, 99, True, "0.99", float("nan")])
def test_a_target_that_is_not_between_0_and_1_is_refused(target: Any) -> None:  # noqa: ANN401 anything
    with pytest.raises(ValueError, match="between 0 and 1"):
        qd.error_budget(runs_at([]), target=target)


def test_by_a_column_of_the_result_is_refused() -> None:
    runs = runs_at([(DAY, "failed")], verdict="x", budget="x")
    with pytest.raises(ValueError, match="'verdict' is a column of the result"):
        qd.compare_periods(runs, "verdict")
    with pytest.raises(ValueError, match="'budget' is a column of the result"):
        qd.error_budget(runs, by="budget")


def missed_at(ago: list[timedelta], *, certain: Any = True, deployment_id: Any = "dep_1") -> pd.DataFrame:  # noqa: ANN401
    return pd.DataFrame({
        "scheduled_at": pd.Series([END - one for one in ago], dtype="datetime64[us, UTC]"),
        "deployment_id": pd.Series(deployment_id, index=range(len(ago)), dtype=TEXT),
        "name": pd.Series("report", index=range(len(ago)), dtype=TEXT),
        "certain": pd.Series(certain, index=range(len(ago)), dtype="bool"),
        "reason": pd.Series("", index=range(len(ago)), dtype=TEXT),
    })  # fmt: skip


@pytest.mark.filterwarnings("ignore::qoderdata.errors.UnknownOutcomesWarning")
@pytest.mark.parametrize("target", [0.5, 0.9, 0.999])
@pytest.mark.parametrize("engine", ["pandas", "polars", "duckdb"])
def test_error_budget_equals_brute_force(target: float, engine: str) -> None:
    """Use 100 deployments, some without runs, and runs and missed triggers without a deployment."""
    draw = Random(f"{target} {engine}")  # noqa: S311 nothing secret

    def hours_ago() -> timedelta:
        return timedelta(hours=draw.randint(-5, 100))

    deployments = [None, *(f"dep_{number}" for number in range(100))]
    statuses = ["completed", "failed", "skipped", "running", None]
    runs: list[Any] = [(hours_ago(), draw.choice(statuses), draw.choice(deployments)) for _ in range(400)]
    missed = [(hours_ago(), draw.random() < 0.5, draw.choice(deployments)) for _ in range(200)]
    frame = runs_at([row[:2] for row in runs], deployment_id=pd.Series([row[2] for row in runs], dtype=TEXT))
    absent = missed_at(
        [row[0] for row in missed], certain=[row[1] for row in missed], deployment_id=[row[2] for row in missed]
    )
    runs_ = opened(frame, engine)
    result = qd.error_budget(runs_, absent, target=target, window="2D", by="deployment_id", until=END)
    got = {row["deployment_id"]: row for row in collected(result).to_pylist()}
    groups = {row[2] for row in runs} | {row[2] for row in missed if row[1]}
    assert set(got) == groups
    for group in groups:
        bad, all_, bad_of_day, of_day = 0, 0, 0, 0
        for ago, status, _ in (row for row in runs if row[2] == group):
            decided = status in {"completed", "failed"}
            if timedelta(0) < ago <= 2 * DAY:
                all_, bad = all_ + decided, bad + (status == "failed")
            if timedelta(0) < ago <= DAY:
                of_day, bad_of_day = of_day + decided, bad_of_day + (status == "failed")
        for ago, certain, _ in (row for row in missed if row[2] == group):
            all_, bad = (all_ + certain, bad + certain) if timedelta(0) < ago <= 2 * DAY else (all_, bad)
            within = certain and timedelta(0) < ago <= DAY
            of_day, bad_of_day = of_day + within, bad_of_day + within
        row = got[group]
        assert row["decided"] + row["missed"] == all_
        assert row["failed"] + row["missed"] == bad
        assert row["success_rate"] == (pytest.approx(1 - bad / all_) if all_ else None)
        assert row["budget"] == (pytest.approx((1 - target) * all_) if all_ else None)
        assert row["used"] == (pytest.approx(bad / ((1 - target) * all_)) if all_ else None)
        assert row["burn_rate"] == (pytest.approx(bad_of_day / of_day / (1 - target)) if of_day else None)


@pytest.mark.parametrize(
    ("target", "runs", "failed"), [(0.9, 10, 1), (0.8, 5, 1), (0.93, 100, 7), (0.9999, 10_000, 1)]
)
@pytest.mark.parametrize("engine", ["pandas", "polars", "duckdb"])
def test_a_target_that_is_just_met_uses_no_more_than_the_budget(
    target: float, runs: int, failed: int, engine: str
) -> None:
    """In floats 1 - 0.9 is less than 0.1, and 1 - 0.07 is less than 0.93."""
    statuses = ["failed"] * failed + ["completed"] * (runs - failed)
    given = opened(runs_at([(timedelta(hours=1), status) for status in statuses]), engine)
    row = collected(qd.error_budget(given, target=target)).to_pylist()[0]
    assert (row["success_rate"], row["burn_rate"]) == (target, 1)
    assert row["used"] <= 1
    assert (row["used"], row["budget"]) == pytest.approx((1, failed))


def test_error_budget_ends_with_the_newest_missed_trigger() -> None:
    """Without `until`, the newest missed trigger counts as well as the newest run."""
    runs = runs_at([(10 * DAY, "completed")] * 9)
    budget = qd.error_budget(runs, missed_at([timedelta(hours=hours) for hours in (1, 2)]), window="3D").iloc[0]
    assert (budget["decided"], budget["missed"], budget["success_rate"]) == (0, 2, 0.0)


def test_missed_is_unknown_where_no_missed_triggers_are_given() -> None:
    budget = qd.error_budget(runs_at([(DAY, "completed")]))
    assert budget["missed"].isna().all()
    assert budget["success_rate"].tolist() == [1.0]
    assert qd.error_budget(runs_at([(DAY, "completed")]), missed_at([]))["missed"].tolist() == [0]


def test_error_budget_of_a_window_without_runs_is_missing() -> None:
    budget = qd.error_budget(runs_at([(90 * DAY, "failed")]), until=END).iloc[0]
    assert budget["decided"] == 0
    assert budget[["success_rate", "budget", "used", "burn_rate"]].isna().all()


def test_a_deployment_with_only_missed_triggers_has_its_own_name() -> None:
    runs = runs_at([(DAY, "completed")], deployment_name="other")
    budget = qd.error_budget(runs, missed_at([DAY], deployment_id="dep_2"), by="deployment_id", until=END)
    assert budget["name"].to_dict() == {"dep_1": "other", "dep_2": "report"}


@pytest.mark.parametrize("kind", ["pandas", "pyarrow"])
@pytest.mark.parametrize("by", ["metadata_team", "agent_id", ["deployment_id", "metadata_team"]])
def test_missed_triggers_without_the_columns_to_group_by_are_refused_with_what_adds_them(
    by: str | list[str], kind: str
) -> None:
    runs = runs_at([(DAY, "completed")]).assign(metadata_team="a", agent_id="agent_1")
    missed = opened(missed_at([DAY]), kind)
    message = (
        r"^the missed frame has no column '(metadata_team|agent_id)'; it has: .*; the columns to group by are "
    )
    with pytest.raises(
        MissingColumnError, match=message + r"needed in both frames: with_names\(missed, df, metadata"
    ):
        qd.error_budget(runs, missed, by=by)


def test_missed_triggers_that_are_no_valid_pandas_frame_are_refused() -> None:
    runs, missed = runs_at([(DAY, "completed")]), missed_at([DAY])
    table = pa.Table.from_pandas(missed)
    for other, name in ((pl.DataFrame(table), "polars.DataFrame"), (table, "pyarrow.Table")):
        with pytest.raises(FrameTypeError, match=f"missed must be a pandas frame, not {name};"):
            qd.error_budget(runs, other)
    with pytest.raises(MissingColumnError, match="'agent_id'"):
        qd.error_budget(runs.assign(agent_id="a"), missed, by="agent_id")
    with pytest.raises(FrameTypeError, match="'certain'"):
        qd.error_budget(runs, missed.assign(certain="True"))


@pytest.mark.filterwarnings("ignore::qoderdata.errors.UnknownOutcomesWarning")
def test_dask_supports_error_budget_but_not_compare_periods() -> None:
    runs = dd.from_pandas(random_runs(3), npartitions=2)  # type: ignore[no-untyped-call] # Dask has no types
    missed = missed_at([DAY, 2 * DAY])
    got = qd.error_budget(runs, missed, by="deployment_id").compute()
    expected = qd.error_budget(random_runs(3), missed, by="deployment_id").reset_index()
    assert got["used"].tolist() == pytest.approx(expected["used"].tolist())
    with pytest.raises(NotImplementedError, match="compare_periods needs a median"):
        qd.compare_periods(runs)
