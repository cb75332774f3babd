"""Tests of `check`: each kind of finding on an account with one fault, and none on a healthy account."""

from __future__ import annotations

import inspect
import json
import re
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pytest

import qoderdata as qd
from qoderdata.check import KINDS
from qoderdata.errors import DataQualityWarning, FrameTypeError

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 6, 15, 12, 0, 30, tzinfo=UTC)
#: The finding `worse` compares two weeks.
DAYS = 15


def stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


@cache
def flatten_cached(function: Callable[[list[dict[str, Any]]], pd.DataFrame], records: str) -> pd.DataFrame:
    return function(json.loads(records))


class Account:
    """Five healthy deployments that fire each hour, with their runs of some days and sessions of 48 hours."""

    def __init__(self, days: int = DAYS) -> None:
        self.deployments: list[dict[str, Any]] = [
            {
                "id": f"dep_{number}", "name": f"job {number}", "status": "active",
                "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
                "schedule": {"type": "cron", "expression": "0 * * * *", "timezone": "UTC"},
                "budget": {"type": "limit", "max_credit_cost": "10"},
                "metadata": {"cas_config": {"config": {"timeout_ms": 600_000}}},
            }
            for number in range(5)
        ]  # fmt: skip
        self.runs: list[dict[str, Any]] = []
        self.sessions: list[dict[str, Any]] = []
        end = NOW.replace(minute=0, second=0)
        for hours in range(24 * days):
            for number in range(5):
                at = end - timedelta(hours=hours)
                self.runs.append({
                    "id": f"drun_{number}_{hours}", "deployment_id": f"dep_{number}", "status": "completed",
                    "trigger_context": {"type": "schedule"}, "triggered_at": stamp(at), "created_at": stamp(at),
                    "duration_ms": 20_000 + 100 * (hours * 7 % 13), "session_id": f"sess_{number}_{hours}",
                })  # fmt: skip
                if hours < 48:
                    self.sessions.append({
                        "id": f"sess_{number}_{hours}", "deployment_id": f"dep_{number}", "status": "idle",
                        "created_at": stamp(at), "usage": {"total_credits": 4 + hours % 3},
                    })  # fmt: skip

    def runs_of(self, number: int) -> list[dict[str, Any]]:
        """Return the runs of a deployment, newest first."""
        return [run for run in self.runs if run["deployment_id"] == f"dep_{number}"]

    def frames(self) -> list[pd.DataFrame]:
        return [
            qd.flatten_deployments(self.deployments),
            flatten_cached(qd.flatten_runs, json.dumps(self.runs)).copy(),
            flatten_cached(qd.flatten_sessions, json.dumps(self.sessions)).copy(),
        ]

    def check(self, **options: Any) -> pd.DataFrame:  # noqa: ANN401
        frames = self.frames()
        copies = [frame.copy() for frame in frames]
        found = qd.check(*frames, now=NOW, **options)
        for frame, before in zip(frames, copies, strict=True):
            assert frame.equals(before)
        return found


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def short_account() -> Account:
    """Return an account for tests without failed runs, where the finding `worse` needs no second week."""
    return Account(days=3)


def single_row(found: pd.DataFrame) -> Any:  # noqa: ANN401 - a row
    assert len(found) == 1, found.to_string()
    return next(found.itertuples())


def detail_of(account: Account, *expected: str) -> str:
    """Check the severity, the kind and the name of the only finding, and return its sentence."""
    row = single_row(account.check())
    assert (row.severity, row.kind, row.name) == expected
    return str(row.detail)


def test_a_healthy_account_has_no_findings(account: Account) -> None:
    found = account.check()
    assert found.empty
    assert {name: str(dtype) for name, dtype in found.dtypes.items()} == {
        "severity": "str", "kind": "str", "deployment_id": "str", "name": "str", "detail": "str",
        "since": "datetime64[us, UTC]",
    }  # fmt: skip


def test_docstring_has_the_severity_of_each_kind() -> None:
    documented = dict(re.findall(r"^ *``(\w+)`` +(error|warning) ", inspect.getdoc(qd.check) or "", re.MULTILINE))
    assert documented == {kind: severity for kind, (severity, _) in KINDS.items()}


def fail(runs: list[dict[str, Any]], error: str = "timeout") -> None:
    for run in runs:
        run.update(status="failed", error={"type": error, "message": "x"})


def test_finding_failing_for_a_failure_streak(account: Account) -> None:
    fail(account.runs_of(1)[:3])
    account.runs_of(1)[2]["error"] = {"type": "session_rate_limited_error"}
    row = single_row(account.check())
    assert (row.severity, row.kind, row.deployment_id, row.name) == ("error", "failing", "dep_1", "job 1")
    assert row.detail == "job 1 failed 3 times in a row since 2026-06-15 10:00 UTC, the last one with timeout."
    assert row.since == pd.Timestamp("2026-06-15T10:00Z")
    assert account.check(streak=4).empty
    df = qd.flatten_deployments(account.deployments).assign(stats_consecutive_failures=[0, 3, 0, 0, 2])
    assert qd.check(df, now=NOW)["detail"].tolist() == ["job 1 failed 3 times in a row."]


def test_equal_names_get_the_end_of_their_id_in_the_detail(account: Account) -> None:
    df = qd.flatten_deployments(account.deployments).assign(stats_consecutive_failures=3, name="nightly")
    df.loc[0, "name"] = "hourly"
    found = qd.check(df, now=NOW)
    names = ["hourly", "nightly ·ep_1", "nightly ·ep_2", "nightly ·ep_3", "nightly ·ep_4"]
    assert sorted(found["detail"]) == [f"{name} failed 3 times in a row." for name in names]
    assert list(found["name"]) == ["hourly", *["nightly"] * 4]


def test_counters_of_any_numeric_dtype_are_accepted(account: Account) -> None:
    fail(account.runs_of(1)[:3])
    df, runs, _ = account.frames()
    plain = qd.check(df, runs, now=NOW)
    for dtype in (pd.ArrowDtype(pa.null()), pd.ArrowDtype(pa.int32()), "float64"):
        unknown = df.assign(stats_consecutive_failures=pd.Series([None] * len(df), dtype=dtype))
        pd.testing.assert_frame_equal(qd.check(unknown, runs, now=NOW), plain)
    with pytest.raises(FrameTypeError, match="stats_consecutive_failures"):
        qd.check(df.assign(stats_consecutive_failures="none"), runs, now=NOW)


def test_sessions_without_created_at_and_runs_without_error_message_are_accepted(short_account: Account) -> None:
    df, runs, sessions = short_account.frames()
    assert qd.check(df, runs.drop(columns="error_message"), sessions.drop(columns="created_at"), now=NOW).empty


def test_a_run_of_unknown_outcome_ends_a_streak(account: Account) -> None:
    runs = account.runs_of(1)
    fail(runs[:4])
    df, frame, _ = account.frames()
    frame["status"] = frame["status"].mask(frame["id"].eq(runs[1]["id"]))
    assert "failing" not in set(qd.check(df, frame, now=NOW)["kind"])
    # Without completed runs, the counter is not used as the streak either.
    frame["status"] = frame["status"].where(frame["status"] != "completed")
    df["stats_consecutive_failures"] = df["id"].eq("dep_1").astype("Int64") * 4
    assert "failing" not in set(qd.check(df, frame, now=NOW)["kind"])


def test_a_finding_says_why_there_may_be_more_failures(account: Account) -> None:
    """A completed run whose end was seen ends a streak; one before an earlier streak says nothing."""
    for number in (1, 2, 3):
        fail(account.runs_of(number)[:4])
    fail(account.runs_of(1)[5:7])
    account.runs_of(1)[4]["status"] = account.runs_of(2)[5]["status"] = None
    df, runs, _ = account.frames()
    assumed = {account.runs_of(3)[4]["id"], account.runs_of(2)[5]["id"]}
    runs["status_from"] = runs["status_from"].mask(runs["id"].isin(assumed), "session")
    found = qd.check(df, runs, now=NOW).query("kind == 'failing'")
    details = found.set_index("deployment_id")["detail"].to_dict()
    begin = account.runs_of(1)[3]["triggered_at"][:16].replace("T", " ")
    ends = {
        "dep_1": " There may be more: the outcome of the run before them is not known.",
        "dep_2": "",
        "dep_3": " There may be more: the run before them is assumed to have completed.",
    }
    assert details == {
        id_: f"job {id_[-1]} failed 4 times in a row since {begin} UTC, the last one with timeout.{end}"
        for id_, end in ends.items()
    }


def test_all_runs_show_streaks_that_began_before_the_runs(account: Account) -> None:
    """Everything else is found in the runs given first."""
    runs = account.runs_of(1)
    fail(runs[:200])
    df, all_runs, sessions = account.frames()
    all_runs["status"] = all_runs["status"].mask(
        all_runs["id"].isin([one["id"] for one in account.runs_of(2)[200:]])
    )
    recent = all_runs[all_runs["triggered_at"] > pd.Timestamp(runs[100]["triggered_at"])]
    row = single_row(qd.check(df, recent, sessions, all_runs=all_runs, now=NOW).query("kind == 'failing'"))
    assert row.detail.startswith("job 1 failed 200 times in a row since 2026-06-07 05:00 UTC")
    assert row.since == pd.Timestamp(runs[199]["triggered_at"])
    pd.testing.assert_frame_equal(
        qd.check(df, recent, all_runs=all_runs, now=NOW).query("kind != 'failing'").reset_index(drop=True),
        qd.check(df, recent, now=NOW).query("kind != 'failing'").reset_index(drop=True),
    )
    earlier = NOW - timedelta(hours=150)
    found = qd.check(df, recent, all_runs=all_runs, now=earlier).query("kind == 'failing'")
    assert "failed 50 times in a row" in single_row(found).detail
    with pytest.raises(ValueError, match="all_runs needs runs: give both"):
        qd.check(df, all_runs=all_runs, now=NOW)


def test_an_undocumented_status_is_an_unknown_outcome(account: Account) -> None:
    runs = account.runs_of(1)
    fail(runs[:4])
    runs[1]["status"] = "timed_out"
    assert "failing" not in set(account.check()["kind"])
    for run in account.runs_of(2)[:200]:
        run["status"] = "timed_out"
    row = single_row(account.check())
    assert row.kind == "incomplete_data"
    assert row.detail.startswith(
        "Of 1,800 runs, 0 completed by assumption, and the outcome of 201 is unknown (11.2 %)"
    )


def test_runs_and_sessions_at_or_after_now_are_ignored(account: Account) -> None:
    fail(account.runs_of(1)[:3])
    expected = account.check()
    later = {**account.runs_of(1)[0], "id": "drun_later", "status": "completed", "triggered_at": stamp(NOW)}
    account.runs.append(later)
    account.sessions.append({**account.sessions[0], "id": "sess_later", "usage": {"total_credits": 10**6}})
    account.sessions[-1]["created_at"] = stamp(NOW)
    pd.testing.assert_frame_equal(account.check(), expected)


def test_finding_incomplete_data_without_runs_and_counters(account: Account) -> None:
    """The newest edition of the service gives no counters."""
    df = qd.flatten_deployments(account.deployments)
    row = single_row(
        qd.check(df.assign(stats_consecutive_failures=pd.Series(pd.NA, df.index, dtype="Int64")), now=NOW)
    )
    assert (row.kind, row.detail) == (
        "incomplete_data", "Without runs it is not known which deployments are failing.",
    )  # fmt: skip


@pytest.mark.parametrize("differing", ["triggered_at", "created_at", "id"])
def test_the_last_error_in_the_detail_is_that_of_the_last_retry(account: Account, differing: str) -> None:
    """In edition D, retries have the time of the first attempt; runs without a time are not the last run."""
    runs = account.runs_of(1)
    fail(runs[:5], "second_retry")
    errors = ["second_retry", "first_retry", "first_try"]
    for number, (run, error) in enumerate(zip(runs[:3], errors, strict=True)):
        position = 9 - number if differing == "id" else number
        run.update(id=f"drun_1_x{position}", error={"type": error, "message": "x"})
        equal = {"triggered_at", "created_at"} - {differing}
        run.update({name: runs[2][name] for name in equal})
    runs[4].update(triggered_at=None, error={"type": "without_time", "message": "x"})
    detail = account.check().query("kind == 'failing'")["detail"].item()
    assert detail.endswith("the last one with second_retry.")


def test_a_counter_may_extend_a_streak_beyond_the_listed_runs(account: Account) -> None:
    """A monthly deployment has one run in the last 30 days, so the counter of the service is used."""
    monthly = account.deployments[1]
    monthly["schedule"] = {"type": "cron", "expression": "0 8 1 * *", "timezone": "UTC"}
    monthly["metadata"]["cas_config"] = {**monthly["metadata"]["cas_config"], "stats": {"consecutive_failures": 7}}
    account.runs = [
        run
        for run in account.runs
        if run["deployment_id"] != "dep_1" or run["triggered_at"] == "2026-06-01T08:00:00Z"
    ]
    (last,) = account.runs_of(1)
    assert account.check().empty  # the last run completed after the failures that the counter counts
    fail([last])
    row = single_row(account.check())
    assert (row.kind, row.name) == ("failing", "job 1")
    assert row.detail == "job 1 failed 7 times in a row, the last one with timeout."
    assert pd.isna(row.since)
    assert account.check(streak=8).empty
    account.runs.remove(last)
    assert single_row(account.check(streak=7)).detail == "job 1 failed 7 times in a row."


def test_deployments_paused_by_hand_or_archived_have_no_findings(account: Account) -> None:
    fail(account.runs_of(1)[:5] + account.runs_of(2)[:5])
    account.deployments[1].update(status="paused", paused_reason={"type": "manual"})
    account.deployments[2].update(archived_at="2026-06-15T12:00:00Z")
    assert account.check().empty


def test_finding_paused_by_error(short_account: Account) -> None:
    error = {"type": "error", "error": {"type": "vault_not_found_error"}}
    short_account.deployments[2].update(status="paused", paused_reason=error, updated_at="2026-06-10T08:00:00Z")
    detail = detail_of(short_account, "error", "paused_by_error", "job 2")
    assert detail == "job 2 is paused by error since 2026-06-10 08:00 UTC: vault_not_found_error."


def test_finding_missed_for_triggers_without_runs(short_account: Account) -> None:
    runs_of_3 = short_account.runs_of(3)
    for run in (runs_of_3[2], runs_of_3[3], runs_of_3[30]):
        short_account.runs.remove(run)
    detail = detail_of(short_account, "error", "missed", "job 3")
    assert detail == "job 3 missed 2 triggers from 2026-06-15 09:00 UTC to 2026-06-15 10:00 UTC."
    detail = single_row(short_account.check(tz="Asia/Shanghai")).detail
    assert detail == "job 3 missed 2 triggers from 2026-06-15 17:00 +08:00 to 2026-06-15 18:00 +08:00."
    assert single_row(short_account.check(since="2D")).detail.startswith("job 3 missed 3 triggers")
    assert short_account.check(since="1h").empty
    # After a change of the deployment, missed triggers are certain only with snapshots.
    short_account.deployments[3]["updated_at"] = "2026-06-15T11:30:00Z"
    assert short_account.check().empty
    old = qd.flatten_deployments(short_account.deployments)
    old.attrs["fetched_at"] = "2026-06-15T11:00:00+00:00"
    older = old.copy()
    older.attrs["fetched_at"] = "2026-06-14T11:00:00+00:00"
    assert single_row(short_account.check(snapshots=[older, old])).kind == "missed"


def test_finding_stuck_for_runs_without_an_end(short_account: Account) -> None:
    run = short_account.runs_of(4)[1]
    run.update(status="running", duration_ms=None)
    detail = detail_of(short_account, "error", "stuck", "job 4")
    assert detail == "job 4: a run has not ended after 1 h."
    run.update(status="waiting")
    short_account.runs_of(4)[2].update(status="running", duration_ms=None)
    assert single_row(short_account.check()).detail == (
        "job 4: 2 runs have not ended, the longest after 2 h. Waiting for a person: 1."
    )


def test_stuck_by_its_session_may_have_ended_before_the_session_was_continued(short_account: Account) -> None:
    short_account.runs_of(4)[1].update(status="running", duration_ms=None)
    df, runs, sessions = short_account.frames()
    detail = "job 4: a run has not ended after 1 h."
    hint = " A run may have ended earlier, if a person continued its session."
    for source, expected in (("session", detail + hint), ("events", detail), ("run", detail)):
        runs["status_from"] = runs["status_from"].mask(runs["status"].eq("running"), source)
        assert single_row(qd.check(df, runs, sessions, now=NOW)).detail == expected


def test_large_numbers_in_findings_have_separators(short_account: Account) -> None:
    first = short_account.runs[0]
    short_account.runs += [
        first
        | {"id": f"drun_{status}_{number}", "deployment_id": id_, "status": status, "triggered_at": stamp(at)}
        for id_, status, at, count in (
            ("dep_0", "running", NOW - timedelta(hours=1), 1000),
            ("dep_0", "waiting", NOW - timedelta(hours=1), 1234),
            ("dep_1", "failed", NOW - timedelta(seconds=1), 2500),
        )
        for number in range(count)
    ]
    details = short_account.check()["detail"].tolist()
    assert "job 0: 2,234 runs have not ended, the longest after 1 h. Waiting for a person: 1,234." in details
    assert any(detail.startswith("job 1 failed 2,500 times in a row") for detail in details), details


def test_missed_and_stuck_are_judged_at_the_time_the_runs_were_read(short_account: Account) -> None:
    """In runs read 6 h ago, later triggers are not missed, and a run that had just begun is not stuck."""
    read_at = NOW - timedelta(hours=6)
    short_account.runs = [run for run in short_account.runs if run["triggered_at"] <= stamp(read_at)]
    short_account.runs_of(4)[0].update(status="running", duration_ms=None)  # 30 s before the runs were read
    df, runs, _ = short_account.frames()
    assert sorted(qd.check(df, runs, now=NOW)["kind"]) == ["missed"] * 5 + ["stuck"]
    runs.attrs["fetched_at"] = read_at.isoformat()
    assert qd.check(df, runs, now=NOW).empty
    assert qd.check(df, runs, now=NOW, since="1h").empty
    incomplete = runs[~runs["id"].isin({"drun_3_8", "drun_3_23", "drun_3_24"})]  # the last one is before `since`
    assert single_row(qd.check(df, incomplete, now=NOW)).detail == (
        "job 3 missed 2 triggers from 2026-06-14 13:00 UTC to 2026-06-15 04:00 UTC."
    )
    late = runs.copy()
    late.loc[late["id"].eq("drun_4_7"), ["status", "duration_ms"]] = ["running", None]
    assert single_row(qd.check(df, late, now=NOW)).detail == "job 4: a run has not ended after 1 h."
    # A ``fetched_at`` in the future, from a wrong clock, is ignored.
    runs.attrs["fetched_at"] = df.attrs["fetched_at"] = (NOW + timedelta(hours=1)).isoformat()
    assert sorted(qd.check(df, runs, now=NOW)["kind"]) == ["missed"] * 5 + ["stuck"]


def test_counters_that_some_deployments_lack_are_incomplete_data(short_account: Account) -> None:
    df, _, _ = short_account.frames()
    df["stats_consecutive_failures"] = 0
    assert qd.check(df, now=NOW).empty
    df.loc[:0, "stats_consecutive_failures"] = None
    count = len(df)
    assert single_row(qd.check(df, now=NOW)).detail == (
        f"Without runs it is not known whether 1 of {count} deployments are failing."
    )
    assert qd.check(df, now=NOW, doubtful=1 / count).empty


def test_no_trigger_is_missed_after_the_deployments_were_read(short_account: Account) -> None:
    """A deployment may have been paused since."""
    read_at = NOW - timedelta(hours=6)
    short_account.runs = [run for run in short_account.runs if run["triggered_at"] <= stamp(read_at)]
    df, runs, _ = short_account.frames()
    df.attrs["fetched_at"] = read_at.isoformat()
    assert qd.check(df, runs, now=NOW).empty


def test_finding_worse_for_a_higher_failure_rate(account: Account) -> None:
    fail(account.runs_of(0)[5:100:4])
    detail = detail_of(account, "warning", "worse", "job 0")
    assert detail == "job 0 failed 24 of 168 runs in the last 7 d (14.3 %), and 0 of 168 before (0.0 %)."
    assert account.check(recent="1D")["kind"].tolist() == []


def test_runs_that_were_assumed_to_have_completed_are_no_better_period(account: Account) -> None:
    """Failures of such runs are not seen: read recent outcomes would always be worse than assumed earlier ones."""
    fail(account.runs_of(0)[5:100:4])
    df, runs, _ = account.frames()
    is_older = runs["triggered_at"] < pd.Timestamp(NOW) - pd.Timedelta("7D")
    for share, kinds in ((0.04, ["worse"]), (1, ["incomplete_data"])):
        of_job = runs.index[is_older & runs["deployment_id"].eq("dep_0")]
        changed = runs.copy()
        changed.loc[of_job[: int(share * len(of_job))], "status_from"] = "session"
        if share == 1:
            changed.loc[is_older, "status_from"] = "session"
        assert qd.check(df, changed, now=NOW)["kind"].tolist() == kinds


def test_new_failures_are_worse_if_all_successes_are_assumed(account: Account) -> None:
    """As on the newest edition without events: the share is that of the completed runs."""
    fail(account.runs_of(0)[5:100:4])
    df, runs, _ = account.frames()
    runs["status_from"] = runs["status_from"].mask(runs["status"].eq("completed"), "session")
    assert qd.check(df, runs, now=NOW)["kind"].tolist() == ["worse", "incomplete_data"]


def test_finding_over_budget_for_sessions_near_the_budget(short_account: Account) -> None:
    """5 of 48 sessions are near the budget, so the 95th percentile is, and the median is not."""
    for session in [session for session in short_account.sessions if session["deployment_id"] == "dep_1"][:5]:
        session["usage"]["total_credits"] = 9.5
    detail = detail_of(short_account, "warning", "over_budget", "job 1")
    assert detail == "job 1 uses 95.0 % of its budget of 10 credits at the 95th percentile of its sessions (9.50)."
    assert short_account.check(budget_share=0.95).empty
    short_account.deployments[1]["budget"]["max_credit_cost"] = "1234567.89"
    for session in short_account.sessions:
        session["usage"]["total_credits"] *= 123456.789 if session["deployment_id"] == "dep_1" else 1
    detail = single_row(short_account.check()).detail
    assert "of its budget of 1,234,567.89 credits" in detail
    assert "(1,172,839.50)" in detail


def test_a_budget_used_to_exactly_the_share_is_not_over_it(short_account: Account) -> None:
    """8.73 / 9.7 is 0.9, but the quotient of the nearest floats is a little above it."""
    short_account.deployments[1]["budget"]["max_credit_cost"] = "9.70"
    of_job = [session for session in short_account.sessions if session["deployment_id"] == "dep_1"]
    for credits_, kinds in ((8.73, []), (8.74, ["over_budget"])):
        for session in of_job:
            session["usage"]["total_credits"] = credits_
        assert short_account.check()["kind"].tolist() == kinds


def test_finding_unreadable_schedule_for_an_unknown_zone(short_account: Account) -> None:
    short_account.deployments[1]["schedule"] = {
        "type": "cron",
        "expression": "30 2 31 3 *",
        "timezone": "Mars/Phobos",
    }
    detail = detail_of(short_account, "error", "unreadable_schedule", "job 1")
    assert detail.startswith("job 1 has a schedule that cannot be read: ")
    assert "Mars/Phobos" in detail


def test_finding_unreadable_schedule_for_another_type_than_cron(short_account: Account) -> None:
    short_account.deployments[1]["schedule"] = {"type": "interval", "interval": "PT1H"}
    detail = detail_of(short_account, "error", "unreadable_schedule", "job 1")
    assert detail.endswith("its type is 'interval', and only cron can be read.")
    df = qd.flatten_deployments(short_account.deployments)
    with pytest.warns(
        DataQualityWarning, match=r"^1 deployment has a schedule that cannot be read .* 'job 1' \(dep_1\)$"
    ):
        assert set(qd.next_triggers(df, "1D", start=NOW)["deployment_id"]) == {"dep_0", "dep_2", "dep_3", "dep_4"}
    runs = qd.flatten_runs(short_account.runs)
    df = pd.concat([df, df[["description", "description"]]], axis=1)  # names of other columns may repeat
    with pytest.warns(
        DataQualityWarning, match=r"^1 deployment has a schedule that cannot be read .* 'job 1' \(dep_1\)$"
    ):
        assert qd.missed_triggers(df, runs, since=NOW - timedelta(hours=3), until=NOW).empty


def test_finding_never_fires_for_schedules_without_fire_times(short_account: Account) -> None:
    short_account.deployments[0]["schedule"] = {"type": "cron", "expression": "0 9 30 2 *", "timezone": "UTC"}
    detail = detail_of(short_account, "warning", "never_fires", "job 0")
    assert detail == "job 0 never fires: none of its months has such a day."
    skipped = {"expression": "30 2 8-14 3 */7", "timezone": "America/New_York"}
    short_account.deployments[0]["schedule"] = {"type": "cron", **skipped}
    detail = detail_of(short_account, "warning", "never_fires", "job 0")
    assert "clock changes in America/New_York skip every local time" in detail


def test_finding_incomplete_data_for_old_partial_or_doubtful_data(account: Account) -> None:
    df, runs, _ = account.frames()
    assert qd.check(df, runs, now=NOW).empty
    df.attrs["fetched_at"] = "2026-06-14T11:00:00+00:00"
    row = single_row(qd.check(df, runs, now=NOW))
    assert (row.severity, row.kind) == ("warning", "incomplete_data")
    assert pd.isna(row.deployment_id)
    assert row.detail == "The deployments are of 2026-06-14 11:00 UTC, 1 d 1 h ago; load them again."
    del df.attrs["fetched_at"]
    runs.attrs["complete"] = False
    incomplete = "The runs are not complete, so that no missed trigger is certain; load them again."
    assert single_row(qd.check(df, runs, now=NOW)).detail == incomplete
    assert single_row(qd.check(df, runs.iloc[len(runs) // 2 :], now=NOW)).detail == incomplete
    runs.attrs["complete"] = True
    doubtful = runs.assign(status_from="service")
    doubtful.loc[: len(runs) // 10, "status_from"] = "session"
    doubtful.loc[20:29, "status"] = None
    detail = single_row(qd.check(df, doubtful, now=NOW)).detail
    assert detail.startswith(
        f"Of {len(runs):,} runs, {len(runs) // 10 + 1 - 10:,} completed by assumption, and the outcome of 10 is"
    )
    assert detail.endswith("; load_runs(outcomes='events') reads how they ended.")
    assert qd.check(df, doubtful, now=NOW, doubtful=0.2).empty
    detail = single_row(qd.check(df.iloc[:0], doubtful.head(1), now=NOW)).detail
    assert detail.startswith("Of 1 run, 1 completed by assumption, and the outcome of 0 is unknown (100.0 %); ")
    doubtful.attrs["outcomes"] = "events"
    detail = single_row(qd.check(df, doubtful, now=NOW)).detail
    assert "load_runs" not in detail
    assert detail.endswith("; the service gave no session or no end for them.")


def test_findings_are_sorted_worst_first(account: Account) -> None:
    fail(account.runs_of(0)[:3])
    fail(account.runs_of(1)[:9])
    account.runs_of(2)[1].update(status="running", duration_ms=None)
    fail(account.runs_of(3)[5:100:4])
    found = account.check()
    assert found[["severity", "kind", "name"]].to_numpy().tolist() == [
        ["error", "failing", "job 1"], ["error", "failing", "job 0"], ["error", "stuck", "job 2"],
        ["warning", "worse", "job 3"], ["warning", "worse", "job 1"],
    ]  # fmt: skip


def test_kinds_are_in_their_order_whatever_is_found_first(short_account: Account) -> None:
    fail(short_account.runs_of(0)[:3])
    short_account.deployments[1].update(status="paused", paused_reason={"type": "error"})
    short_account.deployments[2]["schedule"]["timezone"] = "Mars/Base"
    short_account.deployments[3]["schedule"]["expression"] = "0 0 30 2 *"
    df, runs, sessions = short_account.frames()
    runs.attrs["complete"] = False
    found = qd.check(df, runs, sessions, now=NOW)
    assert found[["severity", "kind"]].to_numpy().tolist() == [
        ["error", "failing"], ["error", "paused_by_error"], ["error", "unreadable_schedule"],
        ["warning", "never_fires"], ["warning", "incomplete_data"],
    ]  # fmt: skip


def test_a_paused_deployment_can_be_stuck_and_over_its_budget(short_account: Account) -> None:
    short_account.deployments[2].update(status="paused", paused_reason={"type": "manual"})
    short_account.runs_of(2)[5].update(status="running", duration_ms=None)
    for session in short_account.sessions:
        if session["deployment_id"] == "dep_2":
            session["usage"]["total_credits"] = 9.5
    assert short_account.check()["kind"].tolist() == ["stuck", "over_budget"]


def test_a_budget_of_0_is_no_budget(short_account: Account) -> None:
    short_account.deployments[1]["budget"]["max_credit_cost"] = "0"
    assert short_account.check().empty


def test_a_frame_without_budgets_has_nothing_over_budget(short_account: Account) -> None:
    df, *others = short_account.frames()
    assert qd.check(df.drop(columns="budget_max_credit_cost"), *others, now=NOW).empty


def test_details_have_no_control_characters(account: Account) -> None:
    fail(account.runs_of(1)[:3], error="bad\x1b[31m\nerror")
    account.deployments[1]["name"] = "evil\x1b]0;x\x07\nname"
    detail = single_row(account.check()).detail
    assert "\x1b" not in detail
    assert "\n" not in detail
    account.deployments[1]["name"] = None
    assert single_row(account.check()).detail.startswith("dep_1 failed")


@pytest.mark.parametrize(
    "options",
    [
        {"streak": 0}, {"streak": "3"}, {"streak": 2.5}, {"budget_share": -1}, {"budget_share": "0.9"},
        {"doubtful": float("nan")}, {"since": 1}, {"since": "0D"}, {"recent": "7"},
    ],
    ids=str,
)  # fmt: skip
def test_invalid_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        qd.check(qd.flatten_deployments([]), qd.flatten_runs([]), now=NOW, **options)


def test_duplicate_deployments_are_refused() -> None:
    twice = pd.concat([qd.flatten_deployments([{"id": "dep_1"}])] * 2)
    for sessions in (None, qd.flatten_sessions([{"id": "sess_1", "deployment_id": "dep_1"}])):
        with pytest.raises(ValueError, match="twice"):
            qd.check(twice, sessions=sessions, now=NOW)


def test_runs_may_have_a_repeated_index() -> None:
    account = Account()
    for number in range(0, 24 * 7 * 5, 3):  # of the last week
        account.runs[number] |= {"status": "failed", "error": {"type": "a"}}
    df, runs = qd.flatten_deployments(account.deployments), qd.flatten_runs(account.runs)
    expected = qd.check(df, runs, now=NOW)
    joined = pd.concat([runs.iloc[::2].reset_index(drop=True), runs.iloc[1::2].reset_index(drop=True)])
    found = qd.check(df, joined, now=NOW)
    pd.testing.assert_frame_equal(found, expected)
    assert not found.empty
