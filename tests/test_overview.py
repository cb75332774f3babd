"""Tests of `qoderdata.overview`: each number is compared with the records of the sandbox."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

import qoderdata as qd
from qoderdata.errors import MissingColumnError
from qoderdata.frame_checks import TEXT
from qoderdata.overview import _today, overview
from qoderdata.sandbox import Sandbox
from qoderdata.summaries.time_windows import local_midnight
from tests.sandbox_requests import active_deployments, live_deployments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qoderdata.overview import Overview

Frames = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]
ZONE = "Asia/Shanghai"


def parse_time(text: str) -> datetime:
    return pd.Timestamp(text).floor("us").to_pydatetime()


@pytest.fixture(scope="module", params=["C", "D"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox(deployments=40, seed=11, runs=100, edition=request.param) as served:
        yield served


@pytest.fixture(scope="module")
def frames(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Frames:
    account: dict[str, Any] = {
        "client": qd.Client(sandbox.pat, sandbox.base_url, min_interval=0),
        "cache_dir": tmp_path_factory.mktemp("cache"),
    }
    df = qd.load_deployments(include_archived=True, **account)
    runs = qd.load_runs(outcomes="events", **account)
    return df, runs, qd.load_sessions(**account)


@pytest.fixture(scope="module")
def found(sandbox: Sandbox, frames: Frames) -> Overview:
    copies = [frame.copy(deep=True) for frame in frames]
    result = overview(*frames, now=pd.Timestamp(sandbox.now), tz=ZONE)
    for frame, before in zip(frames, copies, strict=True):
        pd.testing.assert_frame_equal(frame, before)
    return result


def test_counts_of_active_and_paused_deployments(sandbox: Sandbox, found: Overview) -> None:
    statuses = [one["status"] for one in live_deployments(sandbox)]
    assert (found.active, found.paused) == (statuses.count("active"), statuses.count("paused"))
    assert found.paused > 0


def test_running_lists_unfinished_runs(sandbox: Sandbox, found: Overview) -> None:
    """In edition D a session that runs, or that a person resumed, also counts as running."""
    truth = [
        one for one in sandbox.outcomes
        if one["status"] in {"pending", "running", "waiting"}
        or (sandbox.edition == "D" and one["session_status"] == "running" and not one["session_deleted"])
    ]  # fmt: skip
    assert truth
    assert found.running["deployment_id"].value_counts().to_dict() == {
        one["deployment_id"]: [other["deployment_id"] for other in truth].count(one["deployment_id"])
        for one in truth
    }
    assert found.running["since"].dropna().is_monotonic_increasing
    began = {parse_time(one["started_at"] or one["triggered_at"]) for one in truth}
    near = timedelta(seconds=90)  # a run starts shortly after its record, and not every edition has its start time
    for since in found.running["since"]:
        assert any(abs(since - one) < near for one in began)


def test_upcoming_lists_triggers_within_the_horizon(sandbox: Sandbox, found: Overview) -> None:
    end = sandbox.now + pd.Timedelta(found.horizon)
    listed = {
        one["id"]: [parse_time(text) for text in one["schedule"]["upcoming_runs_at"]]
        for one in active_deployments(sandbox)
        if one["schedule"] and one["schedule"]["upcoming_runs_at"]
    }
    due = {(id_, at) for id_, times in listed.items() for at in times if sandbox.now <= at < end}
    assert due
    shown = set(zip(found.upcoming["deployment_id"], found.upcoming["trigger_at"], strict=True))
    assert due <= shown
    assert {id_ for id_, _ in shown} == {id_ for id_, _ in due}
    assert found.upcoming["trigger_at"].is_monotonic_increasing
    # Triggers that the service does not list come after those that it lists.
    assert all(at > max(listed[id_]) for id_, at in shown - due)


def test_failing_lists_failure_streaks(sandbox: Sandbox, found: Overview) -> None:
    expected = {}
    for one in active_deployments(sandbox):
        mine = [run for run in sandbox.outcomes if run["deployment_id"] == one["id"]]
        decided = [run for run in mine if run["status"] in {"completed", "failed"}]
        decided.sort(key=lambda run: (run["triggered_at"], run["id"]), reverse=True)
        streak = next((n for n, run in enumerate(decided) if run["status"] != "failed"), len(decided))
        if streak:
            expected[one["id"]] = (streak, decided[0]["error_type"])
    assert expected
    rows = zip(found.failing["deployment_id"], found.failing["streak"], found.failing["error_type"], strict=True)
    assert {id_: (streak, error) for id_, streak, error in rows} == expected
    assert found.failing["streak"].is_monotonic_decreasing


def test_today_begins_at_local_midnight(sandbox: Sandbox, found: Overview) -> None:
    local = sandbox.now.astimezone(ZoneInfo(ZONE))
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    today = found.today
    runs = [one for one in sandbox.outcomes if parse_time(one["triggered_at"]) >= midnight]
    assert runs
    statuses = [one["status"] for one in runs]
    assert (today.runs, today.completed, today.failed) == (
        len(runs), statuses.count("completed"), statuses.count("failed"),
    )  # fmt: skip
    sessions = [one for one in sandbox.sessions if parse_time(one["created_at"]) >= midnight]
    known = [one["usage"]["total_credits"] for one in sessions if "usage" in one]
    assert (today.sessions, today.unknown) == (len(sessions), len(sessions) - len(known))
    assert today.credits == pytest.approx(sum(known))


@pytest.mark.parametrize(
    ("now", "zone", "begin"),
    [
        ("2026-04-24T10:00Z", "Africa/Cairo", "2026-04-23T22:00Z"),  # DST skips midnight
        ("2026-09-06T10:00Z", "America/Santiago", "2026-09-06T04:00Z"),
        ("2026-03-29T10:00Z", "Asia/Beirut", "2026-03-28T22:00Z"),
        ("2026-11-01T10:00Z", "America/Havana", "2026-11-01T04:00Z"),  # DST repeats midnight
        ("2026-11-01T10:00Z", "UTC", "2026-11-01T00:00Z"),
    ],
)
def test_today_begins_at_midnight_on_a_day_with_a_dst_change(now: str, zone: str, begin: str) -> None:
    times = [pd.Timestamp(begin) + pd.Timedelta(minutes=minutes) for minutes in (-1, 0, 59)]
    runs = qd.flatten_runs([
        {"id": f"drun_{at}", "deployment_id": "dep_1", "status": "completed", "triggered_at": at.isoformat()}
        for at in times
    ])  # fmt: skip
    today = _today(runs, qd.flatten_sessions([]), local_midnight(pd.Timestamp(now), zone))
    assert today.runs == 2


def test_tables_have_names_agents_and_teams(sandbox: Sandbox, found: Overview) -> None:
    names = {one["id"]: " ".join(one["name"].split()) for one in sandbox.deployments}
    teams = {one["id"]: one["metadata"].get("team") for one in sandbox.deployments}
    agents = {one["id"]: one["name"] for one in sandbox.agents}
    agent_of = {one["id"]: one["agent"]["id"] for one in sandbox.deployments}
    for frame in (found.running, found.failing, found.upcoming):
        for id_, name, team in frame[["deployment_id", "name", "team"]].to_numpy().tolist():
            assert name == names[id_]
            assert (team if isinstance(team, str) else None) == teams[id_]
    for id_, agent in found.failing[["deployment_id", "agent"]].to_numpy().tolist():
        assert not isinstance(agent, str) or agent == agents[agent_of[id_]]
    assert found.failing["agent"].notna().any()


def test_names_that_several_deployments_share_have_the_end_of_the_id() -> None:
    """The other deployment of a name need not be in the same table; a removed deployment only has its id."""
    names = {"dep_1a": "nightly", "dep_1b": "nightly", "dep_2c": "hourly", "dep_3d": None}
    df = qd.flatten_deployments([{"id": id_, "name": name, "status": "active"} for id_, name in names.items()])
    ids = ["dep_1a", "dep_2c", "dep_3d", "dep_4e"]
    runs = qd.flatten_runs([
        {"id": id_, "deployment_id": id_, "status": "running", "triggered_at": f"2026-06-15T0{hour}:00:00Z"}
        for hour, id_ in enumerate(ids)
    ])  # fmt: skip
    found = overview(df, runs, None, now=pd.Timestamp("2026-06-15T12:00Z"))
    assert found.running["name"].tolist() == ["nightly ·p_1a", "hourly", "dep_3d", "dep_4e"]


def test_account_without_teams_has_none_and_causes_no_warning(sandbox: Sandbox, frames: Frames) -> None:
    """The whole test fails on a warning."""
    found = overview(*frames, now=pd.Timestamp(sandbox.now), tz=ZONE, team="crew")
    for frame in (found.running, found.failing, found.upcoming):
        assert len(frame)
        assert frame["team"].isna().all()
        assert frame["team"].dtype == TEXT


def test_findings_equal_check(sandbox: Sandbox, frames: Frames, found: Overview) -> None:
    pd.testing.assert_frame_equal(found.findings, qd.check(*frames, now=sandbox.now, tz=ZONE))


def test_missing_credits_are_none_not_zero() -> None:
    now = pd.Timestamp("2026-06-15T12:00Z")
    df, runs = qd.flatten_deployments([]), qd.flatten_runs([])
    session: dict[str, Any] = {"id": "sess_1", "created_at": "2026-06-15T11:00:00Z", "status": "idle"}
    nothing = overview(df, runs, qd.flatten_sessions([]), now=now)
    assert (nothing.today.sessions, nothing.today.credits, nothing.today.unknown) == (0, 0.0, 0)
    unknown = _today(runs, qd.flatten_sessions([session]), now.normalize())
    assert (unknown.sessions, unknown.credits, unknown.unknown) == (1, None, 1)
    unread = _today(runs, None, now.normalize())
    assert (unread.sessions, unread.credits, unread.unknown) == (None, None, 0)
    known = [{**session, "id": "sess_2", "usage": {"total_credits": 2.5}}, session]
    both = _today(runs, qd.flatten_sessions(known), now.normalize())
    assert (both.sessions, both.credits, both.unknown) == (2, 2.5, 1)
    for frame in (nothing.running, nothing.upcoming, nothing.failing):
        assert frame.empty
        assert list(frame.columns[:4]) == ["deployment_id", "name", "agent", "team"]


@pytest.mark.parametrize(
    ("what", "column"),
    [
        ("deployments", "status"), ("deployments", "archived_at"),
        ("runs", "id"), ("runs", "deployment_id"), ("runs", "agent_id"), ("runs", "status"),
        ("runs", "triggered_at"), ("runs", "started_at"), ("runs", "error_type"),
        ("sessions", "agent_id"), ("sessions", "agent_name"), ("sessions", "created_at"),
    ],
)  # fmt: skip
def test_missing_column_is_named_in_the_error(what: str, column: str) -> None:
    frames = {
        "deployments": qd.flatten_deployments([]),
        "runs": qd.flatten_runs([]),
        "sessions": qd.flatten_sessions([]),
    }
    frames[what] = frames[what].drop(columns=column)
    with pytest.raises(MissingColumnError, match=f"the {what} frame has no column '{column}'; it has: "):
        overview(*frames.values(), now=pd.Timestamp("2026-06-15T00:00Z"))


def test_paused_and_archived_deployments_are_not_listed() -> None:
    now = datetime(2026, 6, 15, 12, 0, 30, tzinfo=UTC)
    base = {
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "status": "active",
        "schedule": {"type": "cron", "expression": "0 * * * *", "timezone": "UTC"},
    }  # fmt: skip
    df = qd.flatten_deployments(
        [
            {**base, "id": "dep_1", "name": "one"},
            {**base, "id": "dep_2", "name": "two", "status": "paused", "paused_reason": {"type": "manual"}},
            {**base, "id": "dep_3", "name": "three", "archived_at": "2026-06-14T00:00:00Z"},
        ]
    )
    runs = qd.flatten_runs(
        [
            {
                "id": f"drun_{number}", "deployment_id": f"dep_{number}", "status": "failed",
                "triggered_at": "2026-06-13T00:00:00Z", "error": {"type": "timeout_error", "message": ""},
            }
            for number in (1, 2, 3)
        ]
    )  # fmt: skip
    found = overview(df, runs, qd.flatten_sessions([]), now=pd.Timestamp(now))
    assert (found.active, found.paused) == (1, 1)
    assert found.failing[["name", "streak", "error_type"]].to_numpy().tolist() == [["one", 1, "timeout_error"]]
    assert set(found.upcoming["name"]) == {"one"}
    assert found.upcoming["trigger_at"].iloc[0] == pd.Timestamp("2026-06-15T13:00Z")
