"""Tests of `session_costs` and `compare_costs`, against brute force, SQL and other dataframe engines."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import qoderdata as qd
from qoderdata.errors import DataQualityWarning
from qoderdata.frame_checks import TEXT
from qoderdata.sandbox import Sandbox
from tests.engine_frames import ENGINES, computed, opened, quietly, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

START = datetime(2025, 10, 30, 20, tzinfo=UTC)
CREDITS = ["usage_total_credits", "usage_model_credits", "usage_sandbox_runtime_credits"]
QUANTILES = ["credits_p50", "credits_p95"]


def sessions_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    texts = {name: pd.Series([row.get(name) for row in rows], dtype=TEXT) for name in ("id", "deployment_id")}
    times = {
        name: pd.Series([row.get(name, START) for row in rows], dtype="datetime64[us, UTC]")
        for name in ("created_at", "updated_at")
    }
    credits_ = {name: pd.Series([row.get(name) for row in rows], dtype="float64") for name in CREDITS}
    return pd.DataFrame({**texts, **times, **credits_})


LAZY = ["polars lazy", "duckdb", "dask"]


def brute_force(rows: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    last = {row["id"]: row for row in rows}
    costs: dict[Any, dict[str, Any]] = {}
    for group in {row["deployment_id"] for row in last.values()}:
        own = [row for row in last.values() if row["deployment_id"] == group]
        sums = {}
        for name in CREDITS:
            known = [row[name] for row in own if row[name] is not None]
            sums[name] = sum(known) if known else None
        known = [row[CREDITS[0]] for row in own if row[CREDITS[0]] is not None]
        costs[group] = {
            "sessions": len(own),
            "credits": sums[CREDITS[0]],
            "model_credits": sums[CREDITS[1]],
            "sandbox_runtime_credits": sums[CREDITS[2]],
            "credits_p50": float(np.quantile(known, 0.5)) if known else None,
            "credits_p95": float(np.quantile(known, 0.95)) if known else None,
            "credits_max": max(known, default=None),
            "unknown": len(own) - len(known),
        }
    all_ = sum(cost["credits"] or 0 for cost in costs.values())
    for cost in costs.values():
        cost["share"] = None if cost["credits"] is None or not all_ else cost["credits"] / all_
    return costs


def random_rows(seed: str, *, sessions: int, deployments: int) -> list[dict[str, Any]]:
    """Draw rows of sessions; some sessions have several rows, each later than the one before."""
    draw = Random(seed)  # noqa: S311 nothing secret

    def amount() -> float | None:
        return draw.choice([None, draw.randrange(1001) / 100, draw.randrange(1001) / 100])

    ids = [f"s{draw.randrange(sessions)}" for _ in range(sessions)]
    groups = [None, *(f"dep_{number}" for number in range(deployments))]
    return [
        {
            "id": id_,
            "deployment_id": draw.choice(groups),
            "created_at": draw.choice(
                [None, *(START + timedelta(minutes=40 * draw.randrange(201)) for _ in "123")]
            ),
            "updated_at": START + timedelta(minutes=number),
            **{name: amount() for name in CREDITS},
        }
        for number, id_ in enumerate(ids)
    ]


@pytest.mark.parametrize(("sessions", "deployments"), [(0, 1), (3, 1), (150, 40)])
@pytest.mark.parametrize("engine", ["pandas", *ENGINES])
def test_costs_equal_brute_force(engine: str, sessions: int, deployments: int) -> None:
    """The last row of a session counts; where an engine keeps no row order, it is the latest ``updated_at``."""
    rows = random_rows(f"{engine} {sessions}", sessions=sessions, deployments=deployments)
    got = rows_of(computed(quietly(qd.session_costs, opened(sessions_of(rows), engine))))
    expected = brute_force(rows)
    assert len(got) == len(expected)
    for row in got:
        cost = expected[row.pop("deployment_id")]
        cost |= dict.fromkeys(QUANTILES) if engine == "dask" else {}
        assert row == cost
    order = [
        (row["credits"] is None, -(row["credits"].expected if row["credits"] is not None else 0)) for row in got
    ]
    assert order == sorted(order)


SUMMARIES: dict[str, Callable[[Any], Any]] = {
    "all": lambda sessions: qd.session_costs(sessions, None),
    "days in Havana": lambda sessions: qd.session_costs(sessions, freq="1D", tz="America/Havana"),
    "months in Havana": lambda sessions: qd.session_costs(sessions, freq="1M", tz="America/Havana"),
    "hours": lambda sessions: qd.session_costs(sessions, None, freq="6h"),
}


@pytest.mark.parametrize("name", SUMMARIES)
@pytest.mark.parametrize("engine", ENGINES)
def test_other_engines_give_the_rows_of_pandas(name: str, engine: str) -> None:
    """In Havana, clocks go back at 01:00 on 2 November 2025, within the sessions."""
    sessions = sessions_of(random_rows(f"{engine} {name}", sessions=60, deployments=3))
    got = rows_of(computed(quietly(SUMMARIES[name], opened(sessions, engine))))
    expected = rows_of(SUMMARIES[name](sessions))
    if engine in LAZY and name != "all":
        expected = [row for row in expected if row["sessions"]]
    if engine == "dask":
        expected = [{**row, **dict.fromkeys(QUANTILES)} for row in expected]
    assert got == expected


@pytest.fixture(scope="module")
def account() -> pd.DataFrame:
    with Sandbox(deployments=15, seed=7, runs=400, edition="D") as sandbox:
        return qd.flatten_sessions(sandbox.sessions)


def test_sums_equal_those_of_sql_over_parquet(account: pd.DataFrame) -> None:
    file = io.BytesIO()
    account[["id", "deployment_id", *CREDITS]].to_parquet(file)
    table = pa.Table.from_pandas(pd.read_parquet(file), preserve_index=False)
    sql = """SELECT deployment_id, count(*) AS sessions, sum(usage_total_credits) AS credits,
             count(*) - count(usage_total_credits) AS unknown, quantile_cont(usage_total_credits, 0.95) AS p95
             FROM t GROUP BY ALL ORDER BY credits DESC NULLS LAST, deployment_id NULLS LAST"""
    with duckdb.connect() as connection:
        connection.register("t", table)
        expected = connection.execute(sql).df()
    costs = qd.session_costs(account).reset_index()
    assert costs["deployment_id"].fillna("").tolist() == expected["deployment_id"].fillna("").tolist()
    for name, column in {
        "sessions": "sessions",
        "credits": "credits",
        "unknown": "unknown",
        "p95": "credits_p95",
    }.items():
        got = costs[column].astype("float64").to_numpy()
        assert got == pytest.approx(expected[name].astype("float64").to_numpy(), nan_ok=True)
    assert costs["share"].sum() == pytest.approx(1)
    assert costs["credits"].sum() == pytest.approx(account["usage_total_credits"].sum())
    assert costs["unknown"].sum() == account["usage_total_credits"].isna().sum() > 0
    by_day = qd.session_costs(account, freq="1D")
    assert by_day["credits"].sum() == pytest.approx(account["usage_total_credits"].sum())
    assert by_day["share"].sum() == pytest.approx(1)


def test_the_last_row_of_a_session_replaces_earlier_ones(account: pd.DataFrame) -> None:
    earlier = account.assign(usage_total_credits=account["usage_total_credits"] / 2)
    both = pd.concat([earlier, account], ignore_index=True)
    pd.testing.assert_frame_equal(qd.session_costs(both), qd.session_costs(account))
    reversed_order = pd.concat([account, earlier], ignore_index=True)
    half = qd.session_costs(reversed_order)["credits"].sum()
    assert half == pytest.approx(account["usage_total_credits"].sum() / 2)


@pytest.mark.parametrize("engine", ["pandas", "polars lazy", "pyarrow", "dask"])
def test_the_last_row_of_a_session_counts_even_if_it_is_the_older_one(engine: str) -> None:
    row = {"id": "s1", "deployment_id": "dep_1"}
    later = {**row, "updated_at": START + timedelta(hours=1), "usage_total_credits": 2.0}
    sessions = sessions_of([later, {**row, "usage_total_credits": 1.0}])
    costs = computed(quietly(qd.session_costs, opened(sessions, engine)))
    assert [group["credits"] for group in rows_of(costs)] == [1.0]


def test_missing_credits_are_not_0() -> None:
    rows: list[dict[str, Any]] = [
        {"id": "s1", "deployment_id": "free", "usage_total_credits": 0.0},
        {"id": "s2", "deployment_id": "unknown"}, {"id": "s3", "deployment_id": "unknown"},
    ]  # fmt: skip
    costs = qd.session_costs(sessions_of(rows))
    assert costs.index.tolist() == ["free", "unknown"]
    assert costs["credits"].tolist() == pytest.approx([0, np.nan], nan_ok=True)
    assert costs["unknown"].tolist() == [0, 2]
    assert costs["share"].isna().all(), "a share needs a sum above 0"


def test_windows_without_sessions_cost_0_with_unknown_ones_missing() -> None:
    rows: list[dict[str, Any]] = [
        {"id": "s1", "deployment_id": "dep_1", "created_at": START, "usage_total_credits": 2.0},
        {"id": "s2", "deployment_id": "dep_1", "created_at": START + timedelta(days=2)},
    ]
    costs = qd.session_costs(sessions_of(rows).assign(deployment_name="report"), freq="1D")
    assert costs["credits"].tolist() == pytest.approx([2, 0, np.nan], nan_ok=True)
    assert costs["sessions"].tolist() == [1, 0, 1]
    assert costs["unknown"].tolist() == [0, 0, 1]
    assert costs["credits_max"].tolist() == pytest.approx([2, np.nan, np.nan], nan_ok=True)
    assert costs["name"].tolist() == ["report"] * 3


def test_integer_credits_give_the_same_windows_as_floats() -> None:
    rows = [
        {"id": f"s{day}", "deployment_id": "dep_1", "created_at": START + timedelta(days=day),
         "usage_total_credits": day, "usage_model_credits": day, "usage_sandbox_runtime_credits": 0}
        for day in (0, 2)
    ]  # fmt: skip
    from_integers = qd.session_costs(pd.DataFrame(rows), freq="1D")
    pd.testing.assert_frame_equal(from_integers, qd.session_costs(sessions_of(rows), freq="1D"))


def test_name_column_comes_first(account: pd.DataFrame) -> None:
    by_agent = qd.session_costs(account, "agent_id")
    assert by_agent.columns[0] == "name"
    names = account.groupby("agent_id")["agent_name"].max()
    assert by_agent["name"].to_dict() == names.to_dict()


@pytest.mark.parametrize("freq", [None, "1D"])
def test_a_renamed_agent_gets_its_newest_name(freq: str | None) -> None:
    names = ["Zoe", "Amy", "Mia", None]  # the newest session has no name
    sessions = sessions_of([{"id": f"s{n}", "created_at": START + n * timedelta(days=1)} for n in (1, 3, 2, 4)])
    sessions = sessions.assign(agent_id="agent_1", agent_name=pd.Series(names, dtype=TEXT))
    costs = qd.session_costs(sessions, "agent_id", freq=freq)
    assert costs["name"].tolist() == ["Amy"] * (4 if freq else 1)
    both = rows_of(qd.session_costs(sessions, ["agent_id", "agent_name"]))
    assert {row["agent_name"] for row in both} == {*names}
    once: Any = iter(["agent_id"])
    pd.testing.assert_frame_equal(qd.session_costs(sessions, once, freq=freq), costs)


@pytest.mark.parametrize(
    "column", [{"agent_id": 1}, {"agent_name": 1}, {"created_at": "2026-06-14T00:00:00Z"}], ids=str
)
def test_names_and_times_of_other_dtypes_are_accepted(column: dict[str, Any]) -> None:
    sessions = sessions_of([{"id": "s1"}, {"id": "s2"}]).assign(agent_id="agent_1", agent_name="Zoe")
    assert qd.session_costs(sessions.assign(**column), "agent_id")["sessions"].tolist() == [2]


def test_dask_warns_that_percentiles_are_missing() -> None:
    sessions = sessions_of(random_rows("dask", sessions=20, deployments=3))
    with pytest.warns(DataQualityWarning, match=r"credits_p50 and credits_p95 .*scan_sessions"):
        costs = qd.session_costs(opened(sessions, "dask"))
    pd.testing.assert_frame_equal(costs.compute(), computed(costs))


def test_invalid_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="'credits' is a column of the result"):
        qd.session_costs(sessions_of([]), "credits")
    with pytest.raises(ValueError, match="freq="):
        qd.session_costs(sessions_of([]), freq="7")
    early: list[dict[str, Any]] = [
        {"id": "s1", "created_at": datetime(1, 1, 2, tzinfo=UTC)},
        {"id": "s2", "created_at": START},
    ]
    with pytest.raises(ValueError, match="created_at reaches from"):
        qd.session_costs(sessions_of(early), freq="1h")


PERIODS = ("recent", "baseline")


def compared_by_brute_force(
    rows: list[dict[str, Any]], *, recent: timedelta, baseline: timedelta, until: datetime
) -> dict[Any, dict[str, Any]]:
    last = {row["id"]: row for row in rows}
    middle = until - recent
    bounds = {"recent": (middle, until), "baseline": (middle - baseline, middle)}
    compared: dict[Any, dict[str, Any]] = {}
    for group in {row["deployment_id"] for row in last.values()}:
        own = [row for row in last.values() if row["deployment_id"] == group and row["created_at"]]
        result: dict[str, Any] = {}
        for period, (begin, end) in bounds.items():
            inside = [row[CREDITS[0]] for row in own if begin <= row["created_at"] < end]
            known = [credits_ for credits_ in inside if credits_ is not None]
            result |= {
                f"{period}_sessions": len(inside),
                f"{period}_credits": sum(known) if known or not inside else None,
                f"{period}_credits_p50": float(np.median(known)) if known else None,
                f"{period}_unknown": len(inside) - len(known),
            }
        if any(result[f"{period}_sessions"] for period in PERIODS):
            new, old = (result[f"{period}_credits"] for period in PERIODS)
            result["change"] = None if None in (new, old) else new - old * (recent / baseline)
            compared[group] = result
    return compared


@pytest.mark.parametrize(("recent", "baseline"), [("36h", None), ("12h", "4D")])
@pytest.mark.parametrize("engine", ["pandas", *(name for name in ENGINES if name != "dask")])
def test_compared_costs_equal_brute_force(engine: str, recent: str, baseline: str | None) -> None:
    rows = random_rows(f"{engine} {recent}", sessions=150, deployments=12)
    until = START + timedelta(minutes=40 * 200)
    lengths = pd.Timedelta(recent).to_pytimedelta(), pd.Timedelta(baseline or recent).to_pytimedelta()
    expected = compared_by_brute_force(rows, recent=lengths[0], baseline=lengths[1], until=until)
    assert len(expected) > 8
    compared = qd.compare_costs(opened(sessions_of(rows), engine), recent=recent, baseline=baseline, until=until)
    got = rows_of(compared)
    assert len(got) == len(expected)
    order = [(row["change"] is None, -(row["change"].expected if row["change"] is not None else 0)) for row in got]
    assert order == sorted(order)
    for row in got:
        assert expected[row.pop("deployment_id")] == row


def test_changes_of_all_groups_add_up_to_the_change_of_all(account: pd.DataFrame) -> None:
    by_agent = qd.compare_costs(account, "agent_id", recent="10D", baseline="20D")
    total = qd.compare_costs(account, None, recent="10D", baseline="20D")
    assert list(total.columns) == [*by_agent.columns][1:]
    assert by_agent.columns[0] == "name"
    for name in ("change", "recent_credits", "baseline_credits", "recent_sessions", "baseline_unknown"):
        assert by_agent[name].sum() == pytest.approx(total[name].item())
    newest = account["created_at"].max()
    age = newest.floor("min") + pd.Timedelta("1min") - account["created_at"]
    known = account["usage_total_credits"].where(age > pd.Timedelta(0))
    assert total["recent_credits"].item() == pytest.approx(known[age <= pd.Timedelta("10D")].sum())


def test_costs_that_are_not_known_are_not_compared() -> None:
    times = {"old": START - timedelta(days=8), "new": START - timedelta(days=1)}
    rows: list[dict[str, Any]] = [
        {"id": "s1", "deployment_id": "new", "created_at": times["new"], "usage_total_credits": 2.0},
        {"id": "s2", "deployment_id": "gone", "created_at": times["old"], "usage_total_credits": 3.0},
        {"id": "s3", "deployment_id": "not known", "created_at": times["new"]},
        {"id": "s4", "deployment_id": "not known", "created_at": times["old"], "usage_total_credits": 1.0},
    ]
    compared = qd.compare_costs(sessions_of(rows), until=START)
    assert compared["change"].to_dict() == pytest.approx({"new": 2, "gone": -3, "not known": np.nan}, nan_ok=True)
    assert compared.index.tolist() == ["new", "gone", "not known"]
    assert compared["recent_credits"].tolist() == pytest.approx([2, 0, np.nan], nan_ok=True)
    assert compared["baseline_credits_p50"].tolist() == pytest.approx([np.nan, 3, 1], nan_ok=True)


def test_compare_costs_refuses_dask_and_invalid_arguments() -> None:
    sessions = sessions_of(random_rows("dask", sessions=5, deployments=1))
    with pytest.raises(NotImplementedError, match=r"a median within a group.*scan_sessions\(engine='pyspark'\)"):
        qd.compare_costs(opened(sessions, "dask"))
    with pytest.raises(ValueError, match="'change' is a column of the result"):
        qd.compare_costs(sessions, "change")
    with pytest.raises(ValueError, match="baseline='0D' must be longer than 0"):
        qd.compare_costs(sessions, baseline="0D")


@pytest.mark.parametrize("summary", [qd.session_costs, qd.compare_costs])
def test_a_session_with_several_values_of_the_key_warns(summary: Any) -> None:  # noqa: ANN401 - one of two functions
    """After a merge with a table that has a key twice. Versions of one session at two times are no reason."""
    at = pd.to_datetime(["2026-06-15T01:00Z", "2026-06-15T02:00Z"] * 2).as_unit("us")
    sessions = pd.DataFrame({
        "id": ["sess_1", "sess_2"] * 2, "created_at": at, "updated_at": at, "usage_total_credits": 1.0,
        "usage_model_credits": 1.0, "usage_sandbox_runtime_credits": 0.0, "owner": ["amy", "amy", "bob", "amy"],
    })  # fmt: skip
    expected = "^1 session of the frame has several values of owner, as after a merge"
    with pytest.warns(qd.errors.DataQualityWarning, match=expected) as caught:
        summary(sessions, "owner")
    assert caught[0].filename == __file__
    summary(sessions, None)
    later = at.where([True, True, False, True], at + pd.Timedelta("1h"))
    summary(sessions.assign(updated_at=later), "owner")
