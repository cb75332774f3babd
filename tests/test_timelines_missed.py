"""Tests of `missed_triggers`: due times, the matching of runs to them, and certainty."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from qoderdata import cron
from qoderdata.errors import DataQualityWarning
from qoderdata.frame_checks import TEXT
from qoderdata.frames import flatten_deployments, flatten_runs
from qoderdata.sandbox import Sandbox
from qoderdata.timelines import missed, missed_triggers

SANDBOX_TIMES = ["2026-06-15T09:00", "2026-11-03T12:00", "2026-03-31T08:00"]
SINCE, UNTIL = "2026-06-15T00:00:00Z", "2026-06-16T00:00:00Z"


def deployment(id_: str = "dep_1", cron: str | None = "0 * * * *", **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    """Build a deployment record as the service sends it."""
    record = {
        "id": id_,
        "name": f"name of {id_}",
        "status": "active",
        "schedule": None if cron is None else {"type": "cron", "expression": cron, "timezone": "UTC"},
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
    }
    return {**record, **fields}


def run(
    at: str, id_: str = "dep_1", trigger: str | None = "schedule", status: str = "completed"
) -> dict[str, Any]:
    """Build a record of a run on 15 June 2026, as the service sends it."""
    return {
        "id": f"drun_{id_}_{at}_{trigger}", "deployment_id": id_, "status": status,
        "trigger_context": {"type": trigger}, "triggered_at": f"2026-06-15T{at}Z",
    }  # fmt: skip


def times(found: pd.DataFrame) -> list[str]:
    return [f"{at:%H:%M}" for at in found["scheduled_at"]]


def find(records: list[dict[str, Any]], runs: list[dict[str, Any]], **window: Any) -> pd.DataFrame:  # noqa: ANN401
    bounds = {"since": SINCE, "until": "2026-06-15T03:30:00Z", **window}
    return missed_triggers(flatten_deployments(records), flatten_runs(runs), **bounds)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([], ["00:00", "01:00", "02:00", "03:00"]),
        ([run("00:00:00"), run("01:10:00"), run("02:10:00.000001"), run("02:59:59.999999")], ["02:00", "03:00"]),
        ([run(f"{hour:02d}:00:01", status="skipped") for hour in range(4)], []),
        ([run(f"{hour:02d}:00:01", status="failed") for hour in range(3)], ["03:00"]),
        ([run("00:00:01", trigger="manual"), run("01:00:01", trigger="retry"), run("02:00:01")],
         ["00:00", "01:00", "03:00"]),
        ([run("00:00:01", trigger=None), run("01:00:01", "dep_2"), run("02:00:01", "dep_unknown")],
         ["00:00", "01:00", "02:00", "03:00"]),
        ([run("00:00:01"), run("00:00:02"), run("00:09:00")], ["01:00", "02:00", "03:00"]),
    ],
    ids=["no runs", "run at the end of grace", "skipped run", "failed run", "manual run and retry",
         "run of another deployment", "several runs for one time"],
)  # fmt: skip
def test_scheduled_times_without_a_matching_run_are_missed(
    runs: list[dict[str, Any]], expected: list[str]
) -> None:
    assert times(find([deployment(), deployment("dep_2", cron=None)], runs)) == expected


@pytest.mark.parametrize(
    ("since", "until", "grace", "expected"),
    [
        (SINCE, "2026-06-15T03:10:00Z", "10min", ["00:00", "01:00", "02:00"]),
        (SINCE, "2026-06-15T03:10:00.000001Z", "10min", ["00:00", "01:00", "02:00", "03:00"]),
        ("2026-06-15T00:00:00.000001Z", "2026-06-15T02:00Z", "0s", ["01:00"]),
        ("2026-06-15T08:00+08:00", "2026-06-15T10:30+08:00", "10min", ["00:00", "01:00", "02:00"]),
        (SINCE, "2026-06-15T03:00:00Z", "2h", ["00:00"]),
        (SINCE, "2026-06-15T00:05:00Z", "10min", []),
    ],
)
def test_due_times_begin_at_since_and_their_grace_ends_before_until(
    since: str, until: str, grace: str, expected: list[str]
) -> None:
    """Before the grace of a time is over, its run may still come, so it is not due yet."""
    assert times(find([deployment()], [], since=since, until=until, grace=grace)) == expected


def new_run(scheduled_at: str, created_at: str, trigger: str | None = "schedule") -> dict[str, Any]:
    """Build a run record of the newest edition, which has its scheduled time and no `triggered_at`."""
    return {
        "id": f"drun_{scheduled_at}_{created_at}", "deployment_id": "dep_1", "session_id": "sess_1",
        "trigger_context": {"type": trigger, "scheduled_at": f"2026-06-15T{scheduled_at}Z"},
        "created_at": f"2026-06-15T{created_at}Z",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([new_run("00:00:00", "00:59:00"), new_run("01:00:59.9", "01:01:00")], ["02:00", "03:00"]),
        ([new_run("00:00:00", "00:00:01"), new_run("00:00:00", "00:08:00")], ["01:00", "02:00", "03:00"]),
        ([new_run("01:00:00", "01:30:00", "retry")], ["00:00", "02:00", "03:00"]),
        ([new_run("01:00:00", "01:30:00", "manual")], ["00:00", "01:00", "02:00", "03:00"]),
        ([new_run("01:00:00", "01:30:00", None)], ["00:00", "02:00", "03:00"]),
        ([new_run("01:05:00", "01:05:00"), new_run("02:11:00", "02:11:00")], ["00:00", "02:00", "03:00"]),
        ([new_run("00:00:00", "00:00:01"), run("00:00:01"), run("01:00:01")], ["02:00", "03:00"]),
    ],
    ids=["after grace", "run and retry", "retry only", "manual run", "run of unknown kind",
         "not a due time, matched by grace", "both editions"],
)  # fmt: skip
def test_a_run_is_matched_to_its_own_scheduled_time(runs: list[dict[str, Any]], expected: list[str]) -> None:
    assert times(find([deployment()], runs)) == expected


def test_a_run_without_scheduled_time_is_matched_to_a_remaining_time() -> None:
    """The run at 00:11 is matched to 00:05, as 00:10 is the scheduled time of another run."""
    runs = [run("00:00:01"), new_run("00:10:00", "00:10:05"), run("00:11:00")]
    found = find([deployment(cron="*/5 * * * *")], runs, until="2026-06-15T00:30Z", grace="10min")
    assert times(found) == ["00:15"]


def test_a_frame_without_scheduled_times_is_matched_by_triggered_at() -> None:
    df, runs = flatten_deployments([deployment()]), flatten_runs([run("00:00:01"), run("02:00:01")])
    old = runs.drop(columns=["trigger_scheduled_at", "status_from"])
    assert times(missed_triggers(df, old, since=SINCE, until="2026-06-15T03:30:00Z")) == ["01:00", "03:00"]


def test_since_and_until_as_ages_are_counted_back_from_now() -> None:
    df, runs = flatten_deployments([deployment(cron="0 0 * * *")]), flatten_runs([])
    before = pd.Timestamp.now("UTC")
    found = missed_triggers(df, runs, since="3D", until=timedelta(hours=0), grace="0s")["scheduled_at"]
    after = pd.Timestamp.now("UTC")
    expected_days = [
        pd.date_range((now - pd.Timedelta("3D")).ceil("D"), now, freq="D", inclusive="left")
        for now in (before, after)
    ]
    assert any(found.tolist() == days.tolist() for days in expected_days)


@pytest.mark.parametrize("grace", [0, 60, 300, 600, 1200, 7200])
@pytest.mark.parametrize("named_share", [0, 0.5], ids=["no scheduled times", "some scheduled times"])
def test_matching_covers_the_most_scheduled_times(grace: int, named_share: float) -> None:
    """Compare with SciPy's maximum matching, after runs with a scheduled time are matched to that one.

    Use 100 deployments; the window ends long after the last run.
    """
    draw = Random(f"{grace} {named_share}")  # noqa: S311 nothing secret
    begin = datetime.fromisoformat(SINCE)
    end = begin + timedelta(hours=8)
    expressions = ["*/5 * * * *", "*/20 * * * *", "7,9,50 * * * *", "0 * * * *"]
    expression_of = {f"dep_{number}": draw.choice(expressions) for number in range(100)}
    runs = {
        id_: [(15 * draw.randint(0, 4 * 60 * 4), draw.random() < named_share) for _ in range(draw.randint(0, 40))]
        for id_ in expression_of
    }
    records = []
    for id_, own in runs.items():
        for number, (second, named) in enumerate(own):
            at = f"{begin + timedelta(seconds=second):%H:%M:%S}"
            record = new_run(at, at) if named else run(at)
            records.append({**record, "deployment_id": id_, "id": f"drun_{id_}_{number}"})
    found = missed_triggers(
        flatten_deployments([deployment(id_, cron=expression) for id_, expression in expression_of.items()]),
        flatten_runs(records),
        since=begin,
        until=end,
        grace=timedelta(seconds=grace),
    )
    seconds = ((found["scheduled_at"] - begin) // pd.Timedelta("1s")).tolist()
    missing: dict[str, list[int]] = {id_: [] for id_ in expression_of}
    for id_, second in zip(found["deployment_id"], seconds, strict=True):
        missing[id_].append(second)
    for id_, expression in expression_of.items():
        due = cron.parse(expression, "UTC").instants(begin, end - timedelta(seconds=grace))
        scheduled = (due - np.datetime64(begin.replace(tzinfo=None), "s")).astype(int).tolist()
        taken_minutes = {second // 60 for second, named in runs[id_] if named}
        remaining = [at for at in scheduled if at // 60 not in taken_minutes]
        others = [second for second, named in runs[id_] if not named or second // 60 * 60 not in scheduled]
        late = np.array(others, dtype=int)[None, :] - np.array(remaining, dtype=int)[:, None]
        can_match = (late >= 0) & (late <= grace)
        matched = 0
        if others and remaining:
            matching = maximum_bipartite_matching(csr_array(can_match), perm_type="column")
            matched = int((matching >= 0).sum())
        unmatchable = [at for at, can in zip(remaining, can_match.any(axis=1), strict=True) if not can]
        assert set(unmatchable) <= set(missing[id_]) <= set(remaining)
        assert len(missing[id_]) == len(remaining) - matched
        if np.diff(remaining).min(initial=10**6) > grace:
            assert missing[id_] == unmatchable


def test_due_times_certainty_and_reason_follow_the_rules() -> None:
    """Use all combinations of status and times.

    The service gives no history of pauses and cron texts, so times that depend on it are not certain.
    """
    stamps = [None, *(f"2026-06-{at}Z" for at in ("14T00:00:00", "15T00:00:00", "15T02:30:59", "20T00:00:00"))]
    fields: dict[str, dict[str, Any]] = {
        f"dep_{number}": dict(zip(("status", "created_at", "updated_at", "archived_at"), values, strict=True))
        for number, values in enumerate(product(["active", "paused"], stamps, stamps, stamps))
    }
    found = find([deployment(id_, **own) for id_, own in fields.items()], [])
    rows: dict[str, list[Any]] = {id_: [] for id_ in fields}
    for id_, *row in found[["deployment_id", "scheduled_at", "reason", "certain"]].itertuples(index=False):
        rows[id_].append(row)
    since = datetime.fromisoformat(SINCE)
    for id_, own in fields.items():
        created, updated, archived = (
            None if text is None else datetime.fromisoformat(text) for text in list(own.values())[1:]
        )
        paused = own["status"] == "paused"
        expected = [
            at
            for at in (since + timedelta(hours=hour) for hour in range(4))
            if (created is None or at >= created)
            and (archived is None or at < archived)
            and not (paused and updated is not None and updated < since)
        ]
        reason = ""
        if paused:
            reason = f"paused since {updated:%Y-%m-%d %H:%M} UTC" if updated else "paused since an unknown time"
        elif updated and updated >= since and (created is None or updated > created):
            reason = f"changed at {updated:%Y-%m-%d %H:%M} UTC"
        elif created is None:
            reason = "created without time"
        assert rows[id_] == [[at, reason, not reason] for at in expected], own


def test_no_time_is_certain_if_the_runs_are_not_complete() -> None:
    records = [deployment(), deployment("dep_2", status="paused", updated_at=None)]
    df, runs = flatten_deployments(records), flatten_runs([])
    for is_complete in (None, True, False):
        runs.attrs["complete"] = is_complete
        found = missed_triggers(df, runs, since=SINCE, until=UNTIL)
        reasons = dict(found[["deployment_id", "reason"]].drop_duplicates().to_numpy().tolist())
        is_certain = is_complete is not False
        assert reasons["dep_1"] == ("" if is_certain else "the runs are not complete")
        assert reasons["dep_2"] == "paused since an unknown time"
        assert found["certain"].equals(found["deployment_id"].eq("dep_1") & is_certain)


def test_a_window_of_all_time_is_limited_to_the_deployments_life() -> None:
    found = find([deployment(cron="* * * * *", created_at="2026-06-15T03:00:00Z")], [], since="0001-01-01T00:00Z")
    assert len(found) == 20


def test_a_late_run_after_archiving_is_matched() -> None:
    record = deployment(cron="*/5 * * * *", archived_at="2026-06-15T00:11:00Z")
    assert times(find([record], [run("00:00:01"), run("00:05:02"), run("00:16:00")])) == []


@pytest.mark.parametrize(
    ("left_out", "delays"),
    [
        ({3}, [1]), ({0}, [1]), ({20}, [1]), ({3, 4, 5}, [5]), ({2, 7, 11}, [1, 200, 30]), (set(), [250]),
        ({9}, [299, 0]),
    ],
)  # fmt: skip
def test_the_right_time_is_missed_where_grace_exceeds_the_interval(left_out: set[int], delays: list[int]) -> None:
    """Each run could be matched to an earlier time too; that must not move the gap to a later time."""
    begin = datetime.fromisoformat(SINCE)
    runs = []
    for number in range(60):
        if number not in left_out:
            at = begin + timedelta(minutes=5 * number, seconds=delays[number % len(delays)])
            runs.append(run(f"{at:%H:%M:%S}"))
    found = find([deployment(cron="*/5 * * * *")], runs, until="2026-06-15T03:00Z", grace="20min")
    assert times(found) == [f"{begin + timedelta(minutes=5 * number):%H:%M}" for number in sorted(left_out)]


def test_delayed_runs_at_one_time_are_matched_to_earlier_times() -> None:
    runs = [run(f"00:16:0{second}") for second in range(4)]
    found = find([deployment(cron="*/5 * * * *")], runs, until="2026-06-15T00:40Z", grace="20min")
    assert times(found) == []  # the runs match 00:00 to 00:15, and later times are not due yet


def test_many_deployments_give_the_rows_of_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vary how many deployments are matched in one batch."""
    draw = Random(1)  # noqa: S311 nothing secret
    expressions = ["*/5 * * * *", "0 * * * *", "*/20 0-3 * * *", "30 9 1 * *", "0 9 * * *"]
    hours = ["2026-01-01T00:00:00Z", "2026-06-15T00:40:00Z", "2026-06-15T02:00:00Z"]
    records = [
        deployment(
            f"dep_{number:02}", draw.choice(expressions), created_at=draw.choice(hours),
            archived_at=draw.choice([None, None, "2026-06-15T02:30:00Z"]),
        )
        for number in range(40)
    ]  # fmt: skip
    runs = {
        record["id"]: [
            run(f"{minute // 60:02d}:{minute % 60:02d}:00", record["id"])
            for minute in draw.sample(range(201), draw.randint(0, 20))
        ]
        for record in records
    }
    parts = [find([record], runs[record["id"]]) for record in records]
    expected = pd.concat(parts).sort_values(["scheduled_at", "deployment_id"], ignore_index=True)
    for at_once in (1, 3, 1 << 24):
        monkeypatch.setattr(missed, "_TIMES_AT_ONCE", at_once)
        together = find(records, [one for own in runs.values() for one in own])
        pd.testing.assert_frame_equal(together, expected)


def test_another_deployment_with_the_same_schedule_does_not_change_what_a_run_serves() -> None:
    """The run names a time after its deployment was archived, at which the other deployment still fires."""
    archived = deployment(cron="*/5 * * * *", archived_at="2026-06-15T02:02:00Z")
    late = run("02:05:00")
    late["trigger_context"]["scheduled_at"] = late["triggered_at"]
    alone = find([archived], [late], since="2026-06-15T01:58:00Z")
    together = find([archived, deployment("dep_2", "*/5 * * * *")], [late], since="2026-06-15T01:58:00Z")
    assert times(alone) == times(together[together["deployment_id"] == "dep_1"]) == []


def test_rows_are_sorted_by_time_then_id_and_have_fixed_dtypes() -> None:
    found = find([deployment(id_, name=None) for id_ in ("dep_c", "dep_a", "dep_b")], [])
    keys = list(zip(found["scheduled_at"], found["deployment_id"], strict=True))
    assert keys == sorted(keys)
    assert len(keys) == 12
    assert found["name"].isna().all()
    shape = {
        "scheduled_at": "datetime64[us, UTC]",
        "deployment_id": "str",
        "name": "str",
        "certain": "bool",
        "reason": "str",
    }
    for frame in (found, find([], []), find([deployment()], [run("00:00:01")], until="2026-06-15T01:00Z")):
        assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == shape
        assert isinstance(frame.index, pd.RangeIndex)


def test_an_unreadable_schedule_gives_no_rows_and_a_warning() -> None:
    records = [deployment("dep_1"), deployment("dep_2", "0 9 30 2 *"), deployment("dep_3", cron=None)]
    with pytest.warns(DataQualityWarning, match=r"^1 deployment has .* cannot be read.* \(dep_2\)$") as caught:
        found = find(records, [], until="2026-06-15T00:30Z")
    assert caught[0].filename == __file__
    assert found["deployment_id"].tolist() == ["dep_1"]


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ({"since": "2026-06-15"}, "since=.*no time zone"),
        ({"until": "noon"}, "until='noon'"),
        ({"grace": "-1min"}, "grace='-1min'"),
        ({"grace": "a bit"}, "grace='a bit'"),
        ({"grace": 10}, "grace=10 is not a length of time, as it has no unit"),
        ({"since": 7}, "since=7 has no unit"),
        ({"since": None}, "since=None must be a time with its zone, or an age such as '7D'; '0D' is now"),
        ({"until": None}, "until=None must be a time"),
        ({"since": UNTIL, "until": SINCE}, "since=.* is not before until=.*: no scheduled time can be in between"),
        ({"since": "1h", "until": "1D"}, "since='1h' is not before until='1D'"),
    ],
)
def test_invalid_parameters_are_refused(window: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find([deployment()], [], **window)


def test_a_run_serves_the_minute_that_it_names_even_after_until() -> None:
    late = run("00:00:45")
    late["trigger_context"]["scheduled_at"] = "2026-06-15T00:00:40Z"
    window = {"until": "2026-06-15T00:00:30Z", "grace": "10s"}
    assert find([deployment()], [late], **window).empty
    assert times(find([deployment()], [], **window)) == ["00:00"]


def test_a_run_in_two_rows_serves_one_time() -> None:
    """Otherwise the second row of a run would serve a missed time, and hide it; rows without an id all count."""
    runs = flatten_runs([run("00:00:02"), run("00:10:02")])
    df = flatten_deployments([deployment(cron="*/5 * * * *")])
    window: dict[str, Any] = {"since": SINCE, "until": "2026-06-15T00:20:00Z", "grace": "10min"}
    once = missed_triggers(df, runs, **window)
    assert times(once) == ["00:05"]
    pd.testing.assert_frame_equal(missed_triggers(df, pd.concat([runs, runs]), **window), once)
    without_time = runs.assign(triggered_at=runs["triggered_at"].mask(runs["id"].notna()))
    pd.testing.assert_frame_equal(missed_triggers(df, pd.concat([without_time, runs]), **window), once)
    pd.testing.assert_frame_equal(missed_triggers(df, runs.drop(columns="id"), **window), once)
    assert missed_triggers(df, pd.concat([runs, runs]).assign(id=None).astype({"id": TEXT}), **window).empty


def test_a_duplicate_id_is_refused() -> None:
    df = pd.concat([flatten_deployments([deployment()])] * 2)
    with pytest.raises(ValueError, match="twice"):
        missed_triggers(df, flatten_runs([]), since=SINCE, until=UNTIL)


@pytest.mark.parametrize(
    ("timezone", "expression", "expected"),
    [
        ("Europe/Berlin", "30 2 * * *", "24 00:30, 25 00:30, 25 01:30, 26 01:30, 27 01:30"),
        ("Australia/Lord_Howe", "15 2 * * *", "23 15:15, 24 15:15, 25 15:15, 26 15:15"),
    ],
)
def test_both_occurrences_of_a_repeated_local_time_are_due(timezone: str, expression: str, expected: str) -> None:
    df = [deployment(schedule={"type": "cron", "expression": expression, "timezone": timezone})]
    window = {"since": "2026-10-23T12:00Z", "until": "2026-10-27T12:00Z"}
    found = find(df, [], **window)
    due = [f"{at:%d %H:%M}" for at in found["scheduled_at"]]
    assert ", ".join(due) == expected
    one = {**run("00:00:00"), "triggered_at": f"{found['scheduled_at'][1]:%Y-%m-%dT%H:%M}:05Z"}
    assert [f"{at:%d %H:%M}" for at in find(df, [one], **window)["scheduled_at"]] == [due[0], *due[2:]]


@pytest.mark.parametrize(("now", "seed"), list(product(SANDBOX_TIMES, [1, 2])))
def test_missed_triggers_are_those_that_the_sandbox_left_out(now: str, seed: int) -> None:
    """Two of the times are in weeks with clock changes."""
    clock = datetime.fromisoformat(now).replace(tzinfo=UTC)
    with Sandbox(deployments=60, seed=seed, runs=1500, left_out=25, now=clock) as sandbox:
        df, runs = flatten_deployments(sandbox.deployments), flatten_runs(sandbox.runs)
        left_out, end = sandbox.left_out, sandbox.now
    assert len(left_out) == 25
    found = missed_triggers(df, runs, since=clock - timedelta(days=3650), until=end)
    certain = found[found["certain"]]
    expected = {(id_, pd.Timestamp(at)) for id_, at in left_out}
    assert expected <= set(zip(found["deployment_id"], found["scheduled_at"], strict=True))
    assert set(zip(certain["deployment_id"], certain["scheduled_at"], strict=True)) <= expected
