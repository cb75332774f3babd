"""Tests of the sandbox's generated account: it is deterministic, complete and consistent."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoderdata import cron
from qoderdata.sandbox import NOW, Sandbox, run_history
from qoderdata.sandbox.account import Pair, upcoming
from qoderdata.sandbox.sample_values import nanoseconds, stamp, uuid7

if TYPE_CHECKING:
    from collections.abc import Iterable

Record = dict[str, Any]

#: Accounts of different sizes, seeds, numbers of runs and current times. Some times are just after a DST change;
#: one is half a second after an occurrence of the most frequent schedule (09:00 in Shanghai).
ACCOUNTS = {
    "default": Sandbox(),
    "tiny": Sandbox(deployments=8, seed=1),
    "busy": Sandbox(deployments=60, seed=2, runs=3_000, left_out=25),
    "after Europe's spring change": Sandbox(
        60, 3, runs=2_500, now=datetime(2026, 3, 30, 1, tzinfo=UTC), left_out=5
    ),
    "after America's autumn change": Sandbox(60, 4, runs=2_500, now=datetime(2026, 11, 2, 9, 0, 1, tzinfo=UTC)),
    "half a second past an occurrence": Sandbox(60, 3, runs=900, now=datetime(2026, 6, 15, 1, 0, 0, 500_000, UTC)),
    "after Lord Howe's half-hour DST change": Sandbox(
        60, 5, runs=2_500, now=datetime(2026, 4, 5, 1, 17, 30, tzinfo=UTC)
    ),
    "many left out": Sandbox(deployments=8, seed=1, runs=90, left_out=20),
    "fewer runs than deployments": Sandbox(deployments=80, seed=6, runs=30),
    "no history": Sandbox(deployments=40, runs=0),
}


@pytest.fixture(params=ACCOUNTS)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return ACCOUNTS[request.param]


def parse_time(text: str) -> datetime:
    """Parse a time; digits after the microsecond are dropped."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))


def by_deployment(sandbox: Sandbox) -> dict[str, list[Record]]:
    """Group the runs by deployment, newest first."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for run in sandbox.runs:
        groups[run["deployment_id"]].append(run)
    return groups


def counters_of(deployment: Record) -> Record | None:
    stats: Record | None = deployment["metadata"].get("cas_config", {}).get("stats")
    return stats


def end_of_schedule(sandbox: Sandbox, deployment: Record) -> datetime:
    """Return the time until which a deployment fires."""
    stopped = deployment["archived_at"] is not None or deployment["status"] == "paused"
    return parse_time(deployment["updated_at"]) if stopped else sandbox.now


def digest(sandbox: Sandbox) -> str:
    text = json.dumps([sandbox.deployments, sandbox.runs, sandbox.left_out], default=str)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def test_same_arguments_give_the_same_account() -> None:
    assert digest(Sandbox(40, 9, left_out=3)) == digest(Sandbox(40, 9, "A", left_out=3, gzip=False))


@pytest.mark.parametrize(
    "other", [{"seed": 10}, {"runs": 401}, {"now": NOW + timedelta(seconds=1)}, {"left_out": 1}]
)
def test_different_arguments_give_a_different_account(other: dict[str, Any]) -> None:
    assert digest(Sandbox(40, **{"seed": 9, "runs": 400} | other)) != digest(Sandbox(40, 9, runs=400))


def test_account_is_the_same_in_another_process_and_read_order() -> None:
    """The account depends neither on hash seeds nor on the order in which records are first read."""
    program = (
        "import json, sys; from hashlib import blake2b; from qoderdata.sandbox import Sandbox; s = Sandbox(40, 9);"
        "r = s.runs; text = json.dumps([s.deployments, r, s.left_out], default=str);"
        "sys.stdout.write(blake2b(text.encode(), digest_size=16).hexdigest())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "5"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout == digest(Sandbox(40, 9))


@pytest.mark.parametrize(
    ("arguments", "runs"),
    [
        ((250,), 2_500), ((1,), 10), ((3,), 30), ((0,), 0), ((40, 7, "C", 0), 0), ((40, 7, "C", 1), 1),
        ((40, 7, "C", 39), 39), ((40, 7, "C", 4_321), 4_321), ((2, 7, "C", 777), 777),
    ],
)  # fmt: skip
def test_numbers_of_deployments_and_runs_are_exactly_as_given(arguments: tuple[Any, ...], runs: int) -> None:
    sandbox = Sandbox(*arguments)
    assert len(sandbox.deployments) == arguments[0]
    assert len(sandbox.runs) == runs


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**40), st.integers(0, 600))
def test_number_of_runs_is_exactly_as_given_for_random_arguments(deployments: int, seed: int, runs: int) -> None:
    assert len(Sandbox(deployments, seed, runs=runs).runs) == runs


def test_number_of_runs_is_exact_when_manual_runs_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scheduled runs take the place of the manual ones."""
    monkeypatch.setattr(run_history, "_EXTRA_SHARE", 0.9)
    sandbox = Sandbox(deployments=5, runs=40)
    assert len(sandbox.runs) == 40
    assert sum(run["trigger_context"]["type"] == "schedule" for run in sandbox.runs) > 10


def test_upcoming_occurrences_begin_at_the_given_time_and_may_be_months_apart() -> None:
    now = nanoseconds("2026-07-31T00:00:00Z")
    found = upcoming(Pair("0 0 31 JAN-DEC/3 *", "UTC", 24), now)[:3]
    assert [stamp(at)[:10] for at in found] == ["2026-07-31", "2026-10-31", "2027-01-31"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"deployments": -1}, "deployments=-1 must be a whole number, 0 or more"),
        ({"deployments": None}, "deployments=None must be a whole number, 0 or more"),
        ({"runs": -1}, "runs=-1 must be a whole number, 0 or more"),
        ({"edition": "E"}, "edition='E' is none of A, B, C, D"),
        ({"now": datetime(2026, 6, 15)}, "must be a datetime with a time zone"),  # noqa: DTZ001 - must be refused
        ({"deployments": 0, "runs": 5}, "no deployment of this account ever runs"),
        ({"deployments": 3, "left_out": 100}, "left_out=100: only"),
        ({"deployments": 1, "runs": 2_000_000}, "decades old"),
    ],
)
def test_invalid_arguments_raise_value_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Sandbox(**arguments)


def test_lists_are_newest_first_and_ids_sort_by_creation_time(sandbox: Sandbox) -> None:
    for records, prefix in ((sandbox.deployments, "dep"), (sandbox.runs, "drun")):
        ids = [record["id"] for record in records]
        assert ids == sorted(ids, reverse=True)
        assert len(set(ids)) == len(ids)
        assert all(re.fullmatch(rf"{prefix}_[0-9a-f]{{12}}7[0-9a-f]{{3}}[89ab][0-9a-f]{{15}}", id_) for id_ in ids)
        created = [nanoseconds(record["created_at"]) for record in records]
        assert created == sorted(created, reverse=True)
        assert all(
            int(id_.split("_")[1][:12], 16) == at // 1_000_000 for id_, at in zip(ids, created, strict=True)
        )


def test_only_next_triggers_are_in_the_future(sandbox: Sandbox) -> None:
    for record in [*sandbox.deployments, *sandbox.runs]:
        times = [value for key, value in leaves(record) if key.endswith("_at") and value is not None]
        times = [text for text in times if not text.startswith("0001")]
        assert all(parse_time(text) <= sandbox.now for text in times), record


def leaves(value: Any, key: str = "") -> Iterable[tuple[str, Any]]:  # noqa: ANN401 - JSON
    """Yield key and value of every leaf except the next triggers, which are in the future."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name not in ("upcoming_runs_at", "next_trigger_at"):
                yield from leaves(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, key)
    else:
        yield key, value


def test_counters_match_the_listed_runs(sandbox: Sandbox) -> None:
    runs = by_deployment(sandbox)
    for deployment in sandbox.deployments:
        own_runs = runs[deployment["id"]]
        decided = [run["status"] for run in own_runs if run["status"] in ("completed", "failed")]
        streak = decided.index("completed") if "completed" in decided else len(decided)
        last = max((run["triggered_at"] for run in own_runs), default=None, key=nanoseconds)
        if deployment["schedule"] is not None:
            assert deployment["schedule"].get("last_run_at") == last
        if (stats := counters_of(deployment)) is not None:
            assert stats["total_runs"] == len(own_runs)
            assert stats["total_failures"] == decided.count("failed")
            assert stats["consecutive_failures"] == streak
            assert stats.get("last_triggered_at") == last


def test_scheduled_runs_are_all_occurrences_except_those_left_out(sandbox: Sandbox) -> None:
    """Each run starts at most 90 seconds late, so that it belongs to exactly one occurrence.

    An occurrence at exactly the current time has not run yet; it is the first of the next triggers.
    """
    runs, left_out = by_deployment(sandbox), set(sandbox.left_out)
    for deployment in sandbox.deployments:
        own_runs = [run for run in runs[deployment["id"]] if run["trigger_context"]["type"] == "schedule"]
        triggered = sorted(parse_time(run["triggered_at"]) for run in own_runs)
        if deployment["schedule"] is None:
            assert not triggered
            continue
        schedule = cron.parse(deployment["schedule"]["expression"], deployment["schedule"]["timezone"])
        instants = schedule.instants(
            parse_time(deployment["created_at"]), end_of_schedule(sandbox, deployment)
        ).tolist()
        due = [at.replace(tzinfo=UTC) for at in instants]
        expected = [at for at in due if (deployment["id"], at) not in left_out]
        assert len(triggered) == len(expected)
        assert all(
            timedelta(0) <= run - at <= timedelta(seconds=90) for run, at in zip(triggered, expected, strict=True)
        )


def test_upcoming_runs_match_the_cron_expression(sandbox: Sandbox) -> None:
    for deployment in sandbox.deployments:
        stats = counters_of(deployment) or {}
        if deployment["schedule"] is None:
            assert stats.get("next_trigger_at") in (None, "0001-01-01T00:00:00Z")
            continue
        schedule = cron.parse(deployment["schedule"]["expression"], deployment["schedule"]["timezone"])
        just_before = end_of_schedule(sandbox, deployment) - timedelta(microseconds=1)
        following = [f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in islice(schedule.following(just_before), 5)]
        archived = deployment["archived_at"] is not None
        assert deployment["schedule"]["upcoming_runs_at"] == ([] if archived else following)
        assert stats.get("next_trigger_at", following[0]) == following[0]


@pytest.mark.parametrize(("account", "count"), [("busy", 25), ("many left out", 20)])
def test_left_out_occurrences_are_certainly_missed(account: str, count: int) -> None:
    """They belong to active, never updated deployments, lie between two runs, and are as many as requested."""
    sandbox = ACCOUNTS[account]
    deployments = {deployment["id"]: deployment for deployment in sandbox.deployments}
    runs = by_deployment(sandbox)
    assert len(set(sandbox.left_out)) == count
    assert [at for _, at in sandbox.left_out] == sorted(at for _, at in sandbox.left_out)
    for identity, at in sandbox.left_out:
        deployment = deployments[identity]
        assert (deployment["status"], deployment["archived_at"]) == ("active", None)
        assert deployment["updated_at"] == deployment["created_at"]
        assert parse_time(deployment["created_at"]) < at < sandbox.now - timedelta(minutes=30)
        own_runs = [
            parse_time(run["triggered_at"])
            for run in runs[identity]
            if run["trigger_context"]["type"] == "schedule"
        ]
        assert min(own_runs) < at < max(own_runs)
        assert not any(at <= triggered <= at + timedelta(minutes=10) for triggered in own_runs)


def test_account_has_deployments_of_every_kind(sandbox: Sandbox) -> None:
    deployments, runs = sandbox.deployments, by_deployment(sandbox)
    for deployment in deployments:
        archived = deployment["archived_at"] is not None
        reason = deployment["paused_reason"]
        assert (deployment["status"] == "paused") == (reason is not None)
        if archived:
            assert deployment["status"] == "active"
            assert deployment["updated_at"] == deployment["archived_at"]
            unix = int(parse_time(deployment["archived_at"]).timestamp())
            assert deployment["name"].endswith(f"_archived_{unix}")
        if reason is not None and reason["type"] == "error":
            assert isinstance(reason["error"]["type"], str)
    kinds = Counter(
        "archived" if deployment["archived_at"] else (deployment["paused_reason"] or {"type": "active"})["type"]
        for deployment in deployments
    )
    assert set(kinds) == {"archived", "manual", "error", "active"}
    assert any(deployment["schedule"] is None for deployment in deployments)
    assert any(deployment["schedule"] and not runs[deployment["id"]] for deployment in deployments)
    stats = [counters_of(deployment) for deployment in deployments]
    if len(sandbox.runs) >= len(deployments):
        assert any(one and one["consecutive_failures"] >= 2 for one in stats)
        assert any(one and not one["consecutive_failures"] and one["total_runs"] for one in stats)


def test_last_three_runs_of_a_deployment_paused_by_error_failed() -> None:
    runs = by_deployment(ACCOUNTS["busy"])
    broken = [one for one in ACCOUNTS["busy"].deployments if (one["paused_reason"] or {}).get("type") == "error"]
    assert broken
    for deployment in broken:
        decided = [run["status"] for run in runs[deployment["id"]] if run["status"] in ("completed", "failed")]
        assert decided[:3] == ["failed"] * 3


def test_fields_of_a_run_match_its_status(sandbox: Sandbox) -> None:
    """A run that failed to create a session has no session id; waiting runs would have ended in the last two days.

    A run takes less than an hour.
    """
    outcomes = {outcome["id"]: outcome for outcome in sandbox.outcomes}
    for run in sandbox.runs:
        extras, status = run.get("cas_run_extras", {}), run["status"]
        times = [run["triggered_at"], run["created_at"]]
        times += [at for at in (extras.get("started_at"), run.get("completed_at")) if at is not None]
        assert times == sorted(times, key=nanoseconds)
        ended = status in ("completed", "failed")
        assert ("completed_at" in run) == ("duration_ms" in run) == ended
        refused = outcomes[run["id"]]["status_from"] == "run"
        assert ("session_id" in run) == ((ended and not refused) or status == "running")
        assert (run["error"] is not None) == (status == "failed")
        if extras and ended:
            between = nanoseconds(run["completed_at"]) - nanoseconds(extras["started_at"])
            assert run["duration_ms"] == between // 1_000_000
        if status in ("pending", "running"):
            waits = outcomes[run["id"]]["status"] == "waiting"
            assert sandbox.now - parse_time(run["triggered_at"]) < (
                timedelta(days=2, hours=1) if waits else timedelta(hours=1)
            )


def test_retries_directly_follow_the_failed_attempt(sandbox: Sandbox) -> None:
    """They come before the next run of any kind, so the attempts of one scheduled time can be recognized."""
    for own_runs in by_deployment(sandbox).values():
        ordered = sorted(own_runs, key=lambda run: nanoseconds(run["triggered_at"]))
        assert [run["id"] for run in ordered] == [run["id"] for run in reversed(own_runs)]
        for before, run in pairwise(ordered):
            if run["trigger_context"]["type"] == "retry":
                assert before["status"] == "failed"
                assert before["trigger_context"]["type"] in ("schedule", "retry")
                assert (
                    run["cas_run_extras"]["attempt"] == before.get("cas_run_extras", {"attempt": 1})["attempt"] + 1
                )
                assert nanoseconds(run["triggered_at"]) > nanoseconds(before["completed_at"])
            else:
                assert run.get("cas_run_extras", {"attempt": 1})["attempt"] == 1
        assert ordered[0]["trigger_context"]["type"] != "retry"


def test_default_account_has_every_kind_of_value() -> None:
    sandbox = ACCOUNTS["default"]
    deployments, runs = sandbox.deployments, sandbox.runs
    live = [deployment for deployment in deployments if deployment["schedule"]]
    assert 8 <= len({one["agent"]["id"] for one in deployments}) <= 20
    assert 2 <= len({one["environment_id"] for one in deployments}) <= 8
    assert len({one["schedule"]["timezone"] for one in live}) >= 8
    assert {run["status"] for run in runs} == {"pending", "running", "completed", "failed", "skipped"}
    assert {run["trigger_context"]["type"] for run in runs} == {"schedule", "manual", "retry"}
    assert {run["error"]["type"] for run in runs if run["error"]} >= {
        "timeout_error", "tool_error", "rate_limit_error", "overloaded_error", "permission_error", "api_error",
        "cancelled", "budget_reached", "retries_exhausted", "session_terminated", "session_rate_limited_error",
    }  # fmt: skip
    assert 0 < sum("cas_run_extras" not in run for run in runs) < len(runs) // 10
    text = json.dumps(deployments, ensure_ascii=False)
    parts = ("=HYPERLINK(", "<img src=x onerror=alert(1)>", "日报", "تقرير", "отчёт", "🚀", '\\"', "\\r\\n", ", ")
    assert [part for part in parts if part not in text] == []
    assert all(len(one["metadata"]) <= 17 for one in deployments)
    assert {"team", "owner", "环境"} <= {key for one in deployments for key in one["metadata"]}
    configs = [one["metadata"].get("cas_config") for one in deployments]
    assert None in configs
    for part in ("config", "session_strategy", "stats"):
        assert any(config is not None and part not in config for config in configs)
    assert any(one["description"] is None for one in deployments)
    contents = [event.get("content") for one in deployments for event in one["initial_events"]]
    assert any(isinstance(content, str) for content in contents)
    assert any(isinstance(content, list) for content in contents)
    assert any("budget" in one for one in deployments)
    assert any("environment_variables" in one for one in deployments)


def test_timestamps_have_0_to_9_decimals_and_no_trailing_zeros() -> None:
    digits = Counter()  # type: Counter[int]
    for run in ACCOUNTS["busy"].runs:
        for text in (run["triggered_at"], run["created_at"], run.get("completed_at", run["created_at"])):
            match = re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.(\d{0,8}[1-9]))?Z", text)
            assert match is not None, text
            digits[len(match[1] or "")] += 1
    assert set(digits) == set(range(10))


def test_new_fields_false_omits_fields_of_newer_editions() -> None:
    newer = {"budget", "environment_variables"}
    assert not any(newer & set(one) for one in Sandbox(deployments=100, new_fields=False).deployments)


def test_large_account_has_few_distinct_schedules_and_realistic_sizes() -> None:
    sandbox = Sandbox(deployments=20_000, runs=0)
    table = sandbox._database.deployments
    sizes = [len(table.body(index)) for index in range(0, 20_000, 20)]
    pairs = {
        (record["schedule"]["expression"], record["schedule"]["timezone"])
        for record in map(table.record, range(0, 20_000, 5))
        if record["schedule"]
    }
    assert 1_300 <= sum(sizes) / len(sizes) <= 1_800
    assert len(pairs) <= 500
    for expression, timezone in pairs:
        cron.parse(expression, timezone)


@given(st.integers(0, 2**62), st.integers(0, 2**54 - 1))
def test_ids_sort_by_time(nanosecond: int, tail: int) -> None:
    assert uuid7(nanosecond, 2**54 - 1) < uuid7(nanosecond + 1, tail)


@given(st.integers(0, 4_000_000_000 * 10**9))
def test_timestamps_round_trip(nanosecond: int) -> None:
    assert nanoseconds(stamp(nanosecond)) == nanosecond


@pytest.mark.parametrize(
    "text",
    ["2026-06-15", "2026-06-15T00:00:00", "2026-06-15T00:00:00.Z", "2026-06-15T00:00:00.0000000001Z", "now", ""],
)
def test_invalid_timestamps_raise_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=f"{text!r} is not an RFC 3339 time|Invalid isoformat string: {text!r}"):
        nanoseconds(text)
