"""Tests of `cost_forecast`, against `next_triggers`, NumPy, SciPy and simulations."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import qoderdata as qd
from qoderdata import forecast
from qoderdata.errors import DataQualityWarning, MissingColumnError
from qoderdata.sandbox import Sandbox

START = datetime(2026, 6, 15, tzinfo=UTC)


def deployments_of(schedules: dict[str, str | None], **columns: Any) -> pd.DataFrame:  # noqa: ANN401 any cells
    records = [
        {
            "id": id_,
            "name": f"name of {id_}",
            "status": "active",
            "schedule": expression and {"expression": expression, "timezone": "Europe/Berlin"},
        }
        for id_, expression in schedules.items()
    ]
    return qd.flatten_deployments(records).assign(**columns)


def sessions_of(credits_: dict[str, list[float | None]]) -> pd.DataFrame:
    rows = [(id_, value) for id_, values in credits_.items() for value in values]
    return pd.DataFrame({
        "id": pd.Series([f"s{number}" for number in range(len(rows))], dtype="str"),
        "deployment_id": pd.Series([id_ for id_, _ in rows], dtype="str"),
        "usage_total_credits": pd.Series([value for _, value in rows], dtype="float64"),
    })  # fmt: skip


@pytest.mark.parametrize("degrees", [*range(1, 40), 99, 100, 499, 500, 501, 502, 1000, 10**6])
def test_t_quantiles_equal_scipy(degrees: int) -> None:
    for confidence in (0.5, 0.8, 0.95, 0.99, 0.9999, 0.999999):
        expected = stats.t.ppf((1 + confidence) / 2, degrees)
        assert forecast._t_quantile(degrees, confidence) == pytest.approx(expected, rel=1e-9)


def test_sessions_that_still_run_are_not_known() -> None:
    df = deployments_of({"dep_1": "0 9 * * *", "dep_2": "0 9 * * *"})
    sessions = sessions_of({"dep_1": [0.0, 4.0, 2.0], "dep_2": [0.0]}).assign(status="idle")
    sessions.loc[sessions["usage_total_credits"] == 0, "status"] = ["running", "rescheduling"]
    forecast_ = qd.cost_forecast(df, sessions, "1D", start=START)
    assert forecast_["sessions"].to_dict() == {"dep_1": 2, "dep_2": 0}
    assert forecast_["expected"].iloc[0] == 3.0
    assert forecast_.attrs["triggers_without_credits"] == 1


def test_triggers_equal_next_triggers() -> None:
    with Sandbox(deployments=60, seed=3) as sandbox:
        df, now = qd.flatten_deployments(sandbox.deployments), sandbox.now
    sessions = sessions_of({id_: [1.0, 2.0] for id_ in df["id"][::2]})
    for horizon in ("1h", "1D", "30D"):
        result = qd.cost_forecast(df, sessions, horizon, start=now)
        listed = qd.next_triggers(df, horizon, start=now)["deployment_id"].astype("str").value_counts()
        assert result["triggers"].astype("int64").to_dict() == listed[listed > 0].to_dict()
        with_credits = set(sessions["deployment_id"])
        without_credits = sum(count for id_, count in listed.items() if id_ not in with_credits)
        assert result.attrs == {"triggers_without_credits": without_credits}
    assert without_credits > 0
    assert result["name"].to_dict() == df.set_index("id").loc[result.index, "name"].to_dict()


def test_figures_equal_numpy_and_scipy() -> None:
    draw = np.random.default_rng(1)
    credits_ = {"dep_1": draw.gamma(2, 1, 30).tolist(), "dep_2": draw.gamma(2, 3, 7).tolist(), "dep_3": [5.0, 5.0]}
    df = deployments_of(dict.fromkeys(credits_, "0 */6 * * *"), budget_max_credit_cost=[4.0, np.nan, 0.0])
    sessions = sessions_of({id_: [*values, None] for id_, values in credits_.items()})
    result = qd.cost_forecast(df, sessions, "10D", start=START, confidence=0.9)
    for id_, values in credits_.items():
        row, n, m = result.loc[id_], len(values), 40
        mean, half = (
            m * np.mean(values),
            stats.t.ppf(0.95, n - 1) * np.std(values, ddof=1) * math.sqrt(m + m * m / n),
        )
        assert (row["triggers"], row["sessions"]) == (m, n)
        assert row["expected"] == pytest.approx(mean)
        assert (row["low"], row["high"]) == pytest.approx((max(0, mean - half), mean + half))
    assert result.loc["dep_1", "budget_use"] == pytest.approx(np.quantile(credits_["dep_1"], 0.95) / 4)
    assert result.loc[["dep_2", "dep_3"], "budget_use"].isna().all()
    assert result["expected"].is_monotonic_decreasing


@pytest.mark.parametrize("sessions", [20, 60])
@pytest.mark.parametrize("triggers", [5, 30, 300])
@pytest.mark.parametrize("shape", ["gamma", "lognormal", "uniform"])
def test_the_interval_contains_the_true_sum_in_90_percent_of_draws(
    sessions: int, triggers: int, shape: str
) -> None:
    """Use 10,000 draws of past and future sessions with moderately skewed credits, at 95 % confidence."""
    draw, draws = np.random.default_rng(7), 10_000
    samples: dict[str, Any] = {
        "gamma": lambda size: draw.gamma(2, 1.5, size),
        "lognormal": lambda size: draw.lognormal(1, 0.5, size),
        "uniform": lambda size: draw.uniform(0, 6, size),
    }
    sample = samples[shape]
    past = sample((draws, sessions))
    future = sum(sample((draws, 20)).sum(axis=1) for _ in range(triggers // 20)) + sample(
        (draws, triggers % 20)
    ).sum(axis=1)
    half = forecast._t_quantile(sessions - 1, 0.95) * past.std(axis=1, ddof=1)
    half *= math.sqrt(triggers + triggers**2 / sessions)
    expected = triggers * past.mean(axis=1)
    low, high = np.maximum(expected - half, 0), expected + half
    inside = ((low <= future) & (future <= high)).mean()
    assert inside >= 0.90
    # Check that the function uses the formula above, for the first draw.
    expression = "* * * * *"
    df = deployments_of({"dep_1": expression})
    row = qd.cost_forecast(df, sessions_of({"dep_1": past[0].tolist()}), f"{triggers}min", start=START).iloc[0]
    assert (row["low"], row["high"]) == pytest.approx((low[0], high[0]))


def test_the_interval_is_too_narrow_for_strongly_skewed_credits() -> None:
    """As the docstring of `cost_forecast` says; here 1 session in 100 costs 50 times as much."""
    draw, draws, count, triggers = np.random.default_rng(7), 2000, 20, 300

    def sample(size: tuple[int, int]) -> Any:  # noqa: ANN401 an array
        return np.where(draw.random(size) < 0.01, 50.0, 1.0) * draw.gamma(4, 1, size)

    past, future = sample((draws, count)), sample((draws, triggers)).sum(axis=1)
    half = forecast._t_quantile(count - 1, 0.95) * past.std(axis=1, ddof=1)
    half *= math.sqrt(triggers + triggers**2 / count)
    assert (abs(triggers * past.mean(axis=1) - future) <= half).mean() < 0.5


def test_interval_needs_two_sessions_and_expected_needs_one() -> None:
    df = deployments_of(
        {"none": "0 0 * * *", "one": "0 0 * * *", "two": "0 0 * * *", "unknown": "0 * * * *", "manual": None}
    )
    sessions = sessions_of({"one": [3.0, None], "two": [1.0, 1.0], "unknown": [None], "elsewhere": [9.0]})
    result = qd.cost_forecast(df, sessions, "2D", start=START)
    assert result.index.tolist() == ["one", "two", "none", "unknown"]
    assert result["expected"].tolist() == pytest.approx([6, 2, np.nan, np.nan], nan_ok=True)
    assert result["sessions"].tolist() == [1, 2, 0, 0]
    assert result["low"].tolist() == pytest.approx([np.nan, 2, np.nan, np.nan], nan_ok=True)
    assert result["high"].tolist() == pytest.approx([np.nan, 2, np.nan, np.nan], nan_ok=True)
    assert result.attrs == {"triggers_without_credits": 2 + 48}


def test_groups_equal_numpy_and_scipy() -> None:
    draw = np.random.default_rng(1)
    counts = {"dep_1": 30, "dep_2": 7, "dep_3": 2, "dep_4": 12, "dep_5": 0, "dep_6": 1}
    teams = {"dep_1": "a", "dep_2": "a", "dep_3": "a", "dep_4": None, "dep_5": None, "dep_6": "b"}
    credits_ = {id_: draw.gamma(2, scale, count).tolist() for scale, (id_, count) in enumerate(counts.items(), 1)}
    hours = dict(zip(counts, (1, 2, 3, 4, 6, 8), strict=True))
    df = deployments_of(
        {id_: f"0 */{step} * * *" for id_, step in hours.items()},
        metadata_team=pd.Series(teams.values(), dtype="str"),
        budget_max_credit_cost=[8.0, 4.0, np.nan, 5.0, 1.0, 0.0],
    )
    triggers = {id_: 10 * 24 // step for id_, step in hours.items()}
    sessions = sessions_of({id_: [*values, None] for id_, values in credits_.items()})
    each = qd.cost_forecast(df, sessions, "10D", start=START)
    result = qd.cost_forecast(df, sessions, "10D", by="metadata_team", start=START)
    everything = qd.cost_forecast(df, sessions, "10D", by=None, start=START)
    groups = {"a": ["dep_1", "dep_2", "dep_3"], None: ["dep_4", "dep_5"], "b": ["dep_6"], "all": list(counts)}
    rows = {name if isinstance(name, str) else None: row for name, row in result.iterrows()}
    assert rows.keys() == groups.keys() - {"all"}
    for name, row in {**rows, "all": everything.iloc[0]}.items():
        ids = groups[name]
        known = [id_ for id_ in ids if counts[id_]]
        assert row["triggers"] == sum(triggers[id_] for id_ in ids)
        assert row["sessions"] == sum(counts[id_] for id_ in ids)
        assert row["unknown"] == sum(triggers[id_] for id_ in ids if not counts[id_])
        assert row["budget_use"] == pytest.approx(each.loc[ids, "budget_use"].max(), nan_ok=True)
        expected = math.fsum(triggers[id_] * np.mean(credits_[id_]) for id_ in known)
        assert row["expected"] == pytest.approx(expected)
        if any(counts[id_] == 1 for id_ in ids):
            assert row[["low", "high"]].isna().all()
            continue
        variances = [
            np.var(credits_[id_], ddof=1) * (triggers[id_] + triggers[id_] ** 2 / counts[id_]) for id_ in known
        ]
        parts = [variance**2 / (counts[id_] - 1) for id_, variance in zip(known, variances, strict=True)]
        degrees = math.floor(sum(variances) ** 2 / sum(parts) + 1e-9)
        half = stats.t.ppf(0.975, degrees) * math.sqrt(sum(variances))
        assert (row["low"], row["high"]) == pytest.approx((max(0, expected - half), expected + half))
    assert result.attrs == everything.attrs == each.attrs == {"triggers_without_credits": triggers["dep_5"]}


@pytest.mark.parametrize(("count", "least"), [(2, 0.89), (5, 0.93), (20, 0.94)])
def test_the_interval_of_a_group_contains_the_true_sum(count: int, least: float) -> None:
    """Of three deployments, the one with `count` sessions costs most; 10,000 draws of past and future sessions."""
    draw, draws, triggers = np.random.default_rng(7), 10_000, 24
    sizes, scales = {"dep_1": count, "dep_2": 10, "dep_3": 30}, {"dep_1": 9.0, "dep_2": 2.0, "dep_3": 1.0}
    past = {id_: draw.normal(9 * scales[id_], scales[id_], (draws, size)) for id_, size in sizes.items()}
    future = sum(draw.normal(9 * scale, scale, (draws, triggers)).sum(axis=1) for scale in scales.values())
    variances = {
        id_: values.var(axis=1, ddof=1) * (triggers + triggers**2 / sizes[id_]) for id_, values in past.items()
    }
    variance = sum(variances.values())
    degrees = variance**2 / sum(part**2 / (sizes[id_] - 1) for id_, part in variances.items())
    half = stats.t.ppf(0.975, np.floor(degrees)) * np.sqrt(variance)
    expected = sum(triggers * values.mean(axis=1) for values in past.values())
    assert (abs(expected - future) <= half).mean() >= least
    # Check that the function uses the formula above, for the first draw.
    df = deployments_of(dict.fromkeys(sizes, "0 * * * *"))
    first = sessions_of({id_: values[0].tolist() for id_, values in past.items()})
    row = qd.cost_forecast(df, first, "1D", by=None, start=START).iloc[0]
    assert (row["low"], row["high"]) == pytest.approx((expected[0] - half[0], expected[0] + half[0]))


def test_groups_are_columns_of_the_deployments() -> None:
    df = deployments_of(
        {"dep_1": "0 0 * * *", "dep_2": "0 0 * * *"}, agent_id=pd.Series(["a1", "a1"], dtype="str")
    )
    sessions = sessions_of({"dep_1": [1.0, 2.0], "dep_2": [3.0, 3.0]})
    by_id = qd.cost_forecast(df, sessions, "1D", by=["deployment_id", "status"], start=START)
    assert by_id.index.tolist() == [("dep_2", "active"), ("dep_1", "active")]
    assert by_id["name"].tolist() == ["name of dep_2", "name of dep_1"]
    named = df.assign(agent_name=pd.Series(["Agent", "Agent"], dtype="str"))
    by_agent = qd.cost_forecast(named, sessions, "1D", by="agent_id", start=START)
    assert (by_agent.index.name, by_agent.columns[0]) == ("agent_id", "name")
    assert by_agent[["name", "expected"]].to_dict("index") == {"a1": {"name": "Agent", "expected": 4.5}}
    assert qd.cost_forecast(df.iloc[:0], sessions, by="agent_id", start=START).empty
    with pytest.raises(ValueError, match="by='expected' is a column of the result"):
        qd.cost_forecast(df, sessions, by="expected")
    with pytest.raises(MissingColumnError, match=r"metadata=\['team'\]"):
        qd.cost_forecast(df, sessions, by="metadata_team")


def test_the_last_row_of_a_session_counts() -> None:
    df = deployments_of({"dep_1": "0 0 * * *"})
    sessions = sessions_of({"dep_1": [1.0, 2.0, 3.0]})
    earlier = sessions.assign(usage_total_credits=0.5)
    both = qd.cost_forecast(df, pd.concat([earlier, sessions]), "1D", start=START)
    pd.testing.assert_frame_equal(both, qd.cost_forecast(df, sessions, "1D", start=START))


def test_deployments_that_do_not_fire_have_no_row() -> None:
    df = deployments_of({"dep_1": "0 0 * * *", "dep_2": "0 0 * * *"})
    df["archived_at"] = pd.Series([pd.NaT, START], dtype="datetime64[us, UTC]")
    df["status"] = pd.Series(["paused", "active"], dtype="str")
    full = qd.cost_forecast(deployments_of({"dep_1": "0 0 * * *"}), sessions_of({}), "1D", start=START)
    for frame in (df, df.iloc[:0]):
        empty = qd.cost_forecast(frame, sessions_of({}), "1D", start=START)
        assert empty.empty
        pd.testing.assert_frame_equal(full.iloc[:0], empty)
        assert empty.attrs == {"triggers_without_credits": 0}


def test_43_million_triggers_are_counted_without_listing_them() -> None:
    """A frame of all triggers would not fit into memory."""
    df = deployments_of({f"dep_{number:04}": "* * * * *" for number in range(1000)})
    result = qd.cost_forecast(df, sessions_of({"dep_0001": [1.0, 2.0]}), "30D", start=START)
    assert result["triggers"].unique().tolist() == [30 * 24 * 60]
    assert result.index[0] == "dep_0001"


def test_invalid_arguments_are_refused() -> None:
    df, sessions = deployments_of({"dep_1": "0 0 * * *"}), sessions_of({})
    with pytest.raises(ValueError, match=r"horizon=30 .* no unit"):
        qd.cost_forecast(df, sessions, 30)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="start="):
        qd.cost_forecast(df, sessions, start="2026-06-15T00:00")
    with pytest.raises(ValueError, match="confidence="):
        qd.cost_forecast(df, sessions, confidence=95)
    with pytest.raises(ValueError, match="twice"):
        qd.cost_forecast(pd.concat([df, df]), sessions)


def test_an_unreadable_schedule_gives_no_row_and_a_warning() -> None:
    df = deployments_of({"dep_1": "0 0 * * *"}).assign(schedule_expression="soon")
    with pytest.warns(DataQualityWarning, match="cannot be read"):
        assert qd.cost_forecast(df, sessions_of({}), start=START).empty
