"""Tests of common analyses: the result equals that of a SQL query of the exported files."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import duckdb
import pandas as pd
import pytest

import qoderdata as qd
from qoderdata.frame_checks import TEXT
from qoderdata.sandbox import Sandbox

if TYPE_CHECKING:
    from pathlib import Path


class Account(NamedTuple):
    """The frames of an account, and the folder with the same frames as Parquet files."""

    df: pd.DataFrame
    runs: pd.DataFrame
    sessions: pd.DataFrame
    now: pd.Timestamp
    folder: Path

    def sql(self, query: str) -> pd.DataFrame:
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            query = query.replace("$", f"{self.folder}/").replace(":now", f"TIMESTAMPTZ '{self.now.isoformat()}'")
            return connection.execute(query).df()


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Account:
    folder = tmp_path_factory.mktemp("account")
    with Sandbox(deployments=40, seed=7, runs=160, edition="D", left_out=6) as sandbox:
        client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url, min_interval=0)
        cache = folder / "cache"
        df = qd.load_deployments(client=client, cache_dir=cache, include_archived=True)
        runs = qd.load_runs(client=client, cache_dir=cache, outcomes="events")
        sessions = qd.load_sessions(client=client, cache_dir=cache)
        agents = qd.load_agents(client=client, cache_dir=cache)
        now = pd.Timestamp(sandbox.now)
    runs = qd.with_names(runs, df, agents=agents, metadata=["team"])
    sessions = qd.with_names(sessions, df, agents=agents)
    for name, frame in {"deployments": df, "runs": runs, "sessions": sessions}.items():
        qd.export_parquet(frame, folder / f"{name}.parquet")
    return Account(df, runs, sessions, now, folder)


def test_compare_periods_by_team(account: Account) -> None:
    teams = qd.compare_periods(account.runs, by="metadata_team", recent="7D", until=account.now)

    expected = account.sql("""
        SELECT metadata_team,
            count(*) FILTER (is_recent AND status = 'failed') AS recent_failed,
            count(*) FILTER (is_recent AND status IN ('completed', 'failed')) AS recent_decided,
            count(*) FILTER (NOT is_recent AND status = 'failed') AS baseline_failed,
            count(*) FILTER (NOT is_recent AND status IN ('completed', 'failed')) AS baseline_decided
        FROM (SELECT *, triggered_at >= :now - INTERVAL 7 DAY AS is_recent FROM '$runs.parquet'
            WHERE triggered_at >= :now - INTERVAL 14 DAY AND triggered_at < :now)
        GROUP BY ALL""").set_index("metadata_team")
    expected.index = expected.index.astype(TEXT)
    assert len(teams) == len(expected) > 2
    for name in expected:
        assert teams[name].tolist() == expected[name].reindex(teams.index).tolist()
    worse = teams["change_low"] > 0
    assert ((teams["verdict"] == "worse") == (worse & (teams["baseline_decided"] > 0))).all()


def test_failures_and_costs_by_agent(account: Account) -> None:
    rates = qd.run_failure_rates(account.runs, by="agent_id")
    costs = qd.session_costs(account.sessions, by="agent_id")

    failed = account.sql("""
        SELECT agent_name, count(*) AS failed FROM '$runs.parquet' WHERE status = 'failed' GROUP BY ALL""")
    actual = rates[rates["failed"] > 0].groupby("name")["failed"].sum().sort_index()
    assert actual.to_dict() == failed.set_index("agent_name")["failed"].sort_index().to_dict()
    used = account.sql("""
        SELECT agent_name, sum(usage_total_credits) AS credits FROM '$sessions.parquet' GROUP BY ALL""")
    by_name = costs.groupby("name")["credits"].sum(min_count=1)
    assert by_name.to_dict() == pytest.approx(used.set_index("agent_name")["credits"].to_dict(), rel=1e-12)


def test_missed_triggers_of_last_night(account: Account) -> None:
    missed = qd.missed_triggers(
        account.df, account.runs, since=account.now - pd.Timedelta("12h"), until=account.now
    )

    named = account.df.set_index("id")["name"]
    assert not missed.empty
    assert missed["name"].tolist() == named.reindex(missed["deployment_id"]).tolist()
    assert missed["reason"][~missed["certain"]].notna().all()
    served = account.sql("""
        SELECT deployment_id, trigger_scheduled_at FROM '$runs.parquet'
        WHERE trigger_type = 'schedule' AND trigger_scheduled_at >= :now - INTERVAL 12 HOUR""")
    times = set(zip(served["deployment_id"], served["trigger_scheduled_at"].dt.floor("min"), strict=True))
    assert not times & set(zip(missed["deployment_id"], missed["scheduled_at"], strict=True))


@pytest.mark.filterwarnings("ignore:no installed font")  # on a machine without a Thai font
def test_run_timeline_of_last_night(account: Account) -> None:
    night = account.runs[account.runs["triggered_at"] >= account.now - pd.Timedelta("12h")]
    ax = qd.plot_run_timeline(night, tz="Asia/Shanghai", top=15)

    lanes = [label.get_text() for label in ax.get_yticklabels()]
    assert 0 < len(lanes) <= 16
    assert not any(lane.startswith("dep_") for lane in lanes)
    assert "Asia/Shanghai" in ax.get_xlabel()


def test_new_error_groups_of_this_week(account: Account) -> None:
    errors = qd.error_groups(account.runs)

    assert (
        errors["count"].sum()
        == account.sql("SELECT count(*) AS failed FROM '$runs.parquet' WHERE status = 'failed'")["failed"].item()
    )
    newest = account.runs["triggered_at"].max()
    assert (errors["is_new"] == (errors["first_seen"] > newest - pd.Timedelta("7D"))).all()


def test_report_shows_the_total_of_credits(account: Account, tmp_path: Path) -> None:
    qd.write_report(
        account.df, tmp_path / "report.html", runs=account.runs, sessions=account.sessions, start=account.now
    )

    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    total = account.sql("SELECT sum(usage_total_credits) AS credits FROM '$sessions.parquet'")["credits"].item()
    assert f"<strong>{total:,.2f} credits.</strong>" in text


def test_cost_forecast_of_30_days(account: Account) -> None:
    forecast = qd.cost_forecast(account.df, account.sessions, "30D", start=account.now)

    prices = account.sql("""
        SELECT deployment_id, avg(usage_total_credits) AS mean, count(usage_total_credits) AS sessions
        FROM '$sessions.parquet' WHERE status NOT IN ('running', 'rescheduling', 'canceling')
        GROUP BY ALL""").set_index("deployment_id")
    triggers = qd.next_triggers(account.df, "30D", start=account.now)["deployment_id"].value_counts()
    expected = (prices["mean"] * triggers.astype("float64")).dropna()
    actual = forecast["expected"].dropna()
    assert len(actual) > 10
    assert actual.to_dict() == pytest.approx(expected.reindex(actual.index).to_dict(), rel=1e-9)
    many = forecast[forecast["sessions"] >= 2]
    assert ((many["low"] <= many["expected"]) & (many["expected"] <= many["high"])).all()
