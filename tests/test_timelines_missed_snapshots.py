"""Tests of `missed_triggers` with snapshots, against the documented rules and simulated histories."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import product, takewhile
from random import Random
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from cronsim import CronSim

from qoderdata import Client, cron, load_deployments, load_snapshots, missed_triggers, write_report
from qoderdata.errors import FrameTypeError
from qoderdata.frames import flatten_deployments, flatten_runs
from qoderdata.sandbox import Sandbox
from tests.wall_clock import WallClock, set_wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BEGIN = datetime(2026, 6, 15, tzinfo=UTC)
END = BEGIN + timedelta(hours=12)
#: Different times of these are at least 10 minutes apart, so that with 5 minutes of grace a match is unambiguous.
CRONS = ["0 * * * *", "30 * * * *", "*/20 * * * *"]
GRACE = timedelta(minutes=5)


def stamp(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def hour(number: float) -> datetime:
    return BEGIN + timedelta(hours=number)


def record(id_: str, state: tuple[str, bool], updated: datetime | None, **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    expression, paused = state
    return {
        "id": id_, "name": f"name of {id_}", "status": "paused" if paused else "active",
        "schedule": {"type": "cron", "expression": expression, "timezone": "UTC"},
        "created_at": "2026-01-01T00:00:00Z", "updated_at": None if updated is None else stamp(updated), **fields,
    }  # fmt: skip


def frame(records: list[dict[str, Any]], fetched_at: datetime | None) -> pd.DataFrame:
    found = flatten_deployments(records)
    if fetched_at is not None:
        found.attrs["fetched_at"] = fetched_at.isoformat()
    return found


def run(id_: str, at: datetime) -> dict[str, Any]:
    return {
        "id": f"drun_{id_}_{stamp(at)}", "deployment_id": id_, "status": "completed",
        "trigger_context": {"type": "schedule"}, "triggered_at": stamp(at),
    }  # fmt: skip


@cache
def fires(expression: str, at: datetime) -> bool:
    return bool(cron.parse(expression, "UTC").instants(at, at + timedelta(minutes=1)).size)


def find(df: pd.DataFrame, runs: list[dict[str, Any]], snapshots: list[pd.DataFrame]) -> pd.DataFrame:
    return missed_triggers(df, flatten_runs(runs), since=BEGIN, until=END, grace=GRACE, snapshots=snapshots)


def random_history(draw: Random) -> list[tuple[datetime, tuple[str, bool]]]:
    """Draw the times at which a deployment changed and its new states; the first is its creation."""
    minutes = sorted(draw.sample(range(1, 11 * 60), draw.randrange(6)))
    times = [BEGIN - timedelta(days=9), *(hour(minute / 60) for minute in minutes)]
    return [(at, random_state(draw)) for at in times]


def random_state(draw: Random) -> tuple[str, bool]:
    return draw.choice(CRONS), draw.random() < 0.5


def state_at(
    history: list[tuple[datetime, tuple[str, bool]]], time: datetime
) -> tuple[datetime, tuple[str, bool]]:
    return [one for one in history if one[0] <= time][-1]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [1, 4, 12])
def test_snapshots_around_each_change_make_all_rows_certain(seed: int, size: int) -> None:
    """Snapshots are taken 20 s before and after each change, and times within these 20 s are left out."""
    draw = Random(f"{seed} {size}")  # noqa: S311 nothing secret
    histories = [random_history(draw) for _ in range(size)]
    left_out = set(draw.sample(range(12 * 6), draw.randrange(12 * 6)))
    changes = sorted({at for history in histories for at, _ in history[1:]})
    second = timedelta(seconds=1)
    moments = sorted({BEGIN - second, *(at + side for at in changes for side in (-20 * second, 20 * second)), END})

    def snapshot_at(at: datetime) -> pd.DataFrame:
        records = []
        for number, history in enumerate(histories):
            changed, state = state_at(history, at)
            records.append(record(f"dep_{number}", state, changed))
        return frame(records, at)

    expected_pairs, runs = set(), []
    for number, history in enumerate(histories):
        for minutes in range(10, 12 * 60 - 5, 10):
            at = BEGIN + timedelta(minutes=minutes)
            expression, paused = state_at(history, at)[1]
            if paused or not fires(expression, at) or any(abs(at - one) <= 20 * second for one in changes):
                continue
            if minutes // 10 in left_out:
                expected_pairs.add((f"dep_{number}", at))
            else:
                runs.append(run(f"dep_{number}", at + second))
    *snapshots, newest = [snapshot_at(at) for at in moments]
    found = find(newest, runs, snapshots)
    found = found[found["scheduled_at"] > BEGIN]
    within = found["scheduled_at"].isin(changes)  # at the exact time of a change, either state may apply
    assert found["certain"][~within].all()
    assert set(zip(found["deployment_id"][~within], found["scheduled_at"][~within], strict=True)) == expected_pairs


@pytest.mark.parametrize("seed", range(6))
def test_rows_of_random_snapshots_follow_the_rules(seed: int) -> None:
    """Draw snapshots of 30 deployments with any states, in any order; some deployments are not in all of them."""
    draw = Random(seed)  # noqa: S311 nothing secret
    minutes = sorted(draw.sample(range(12 * 60 + 1), draw.randint(2, 6)))
    states_of: dict[str, list[tuple[datetime, tuple[str, bool], datetime | None]]] = {}
    frames = []
    for minute in minutes:
        at, records = hour(minute / 60), []
        for id_ in (f"dep_{number}" for number in range(30)):
            state, updated = random_state(draw), draw.choice([None, draw.randint(-60, 12 * 60)])
            changed = None if updated is None else min(hour(updated / 60), at)
            if minute == minutes[-1] or draw.random() < 0.5:
                records.append(record(id_, state, changed))
                states_of.setdefault(id_, []).append((at, state, changed))
        frames.append(frame(records, at))
    df = frames.pop()
    draw.shuffle(frames)
    found = find(df, [], frames)
    expected: dict[tuple[str, datetime], bool] = {}
    for (id_, own), minute in product(states_of.items(), range(0, 12 * 60 - 5, 10)):
        at = BEGIN + timedelta(minutes=minute)
        before = [one for one in own if one[0] <= at]
        after = [one for one in own if one[0] > at]
        due: set[str] = set()
        certain = True
        if before and not after:
            due = set() if before[-1][1][1] else {before[-1][1][0]}
        elif not before:
            _, (expression, paused), changed = after[0]
            certain = changed <= at if changed is not None else not paused
            due = set() if certain and paused else {expression}
        else:
            firing = [None if one[1][1] else one[1][0] for one in (before[-1], after[0])]
            changed = after[0][2]
            certain = firing[0] == firing[1] or (changed is not None and before[-1][0] < changed <= at)
            due = {one for one in (firing[1:] if certain else firing) if one is not None}
        if any(fires(expression, at) for expression in due):
            expected[id_, at] = certain
    rows = zip(found["deployment_id"], found["scheduled_at"], found["certain"], strict=True)
    assert {(id_, at): certain for id_, at, certain in rows} == expected
    assert len(found) == len(expected)
    assert ((found["reason"] == "") == found["certain"]).all()


def test_uncertain_rows_have_a_reason() -> None:
    before = frame([record("dep_1", (CRONS[0], False), None)], hour(1.5))
    changed = frame([record("dep_1", (CRONS[1], False), hour(3.25))], hour(4))
    paused = frame([record("dep_1", (CRONS[1], True), hour(5.75))], hour(6))
    found = find(paused, [], [before, changed])
    rows = [(f"{row.scheduled_at:%H:%M}", row.certain, row.reason) for row in found.itertuples()]
    change, pause = "changed at 2026-06-15 03:15 UTC", "paused since 2026-06-15 05:45 UTC"
    assert rows == [
        ("00:00", True, ""), ("01:00", True, ""), ("01:30", False, change), ("02:00", False, change),
        ("02:30", False, change), ("03:00", False, change), ("03:30", True, ""), ("04:30", False, pause),
        ("05:30", False, pause),
    ]  # fmt: skip


def test_without_a_time_of_creation_only_times_before_the_first_snapshot_are_uncertain() -> None:
    one = record("dep_1", ("0 * * * *", False), None, created_at=None)
    found = find(frame([one], END), [], [frame([one], hour(3.5))])
    assert found["reason"].tolist() == ["created without time"] * 4 + [""] * 8


def test_an_empty_list_of_snapshots_gives_the_rows_without_snapshots() -> None:
    df = frame([record("dep_1", (CRONS[0], False), None)], hour(6))
    assert find(df, [], []).equals(missed_triggers(df, flatten_runs([]), since=BEGIN, until=END, grace=GRACE))


def test_frames_are_not_changed() -> None:
    df, old = (frame([record("dep_1", (CRONS[0], False), None)], at) for at in (hour(6), hour(1)))
    copies = df.copy(deep=True), old.copy(deep=True)
    assert find(df, [], [old])["certain"].all()
    pd.testing.assert_frame_equal(df, copies[0])
    pd.testing.assert_frame_equal(old, copies[1])


def test_invalid_snapshots_are_refused() -> None:
    df, old = (frame([record("dep_1", (CRONS[0], False), None)], at) for at in (hour(6), hour(1)))
    with pytest.raises(ValueError, match="no attrs"):
        find(df, [], [flatten_deployments([])])
    with pytest.raises(ValueError, match="no attrs"):
        write_report(df, "report.html", snapshots=[flatten_deployments([])])
    with pytest.raises(ValueError, match="twice"):
        find(df, [], [pd.concat([old, old])])
    wrong: list[Any] = [old, "7D", 7, [old, "7D"]]
    for snapshots in wrong:
        with pytest.raises(FrameTypeError, match="snapshots must be a list of frames"):
            find(df, [], snapshots)


FLEET_CRONS = ["*/30 * * * *", "15 */2 * * *", "5 1-23/3 * * *"]
FLEET_GRACE = timedelta(minutes=3)
Histories = dict[str, list[tuple[datetime, tuple[str, bool]]]]


def change_deployments(
    sandbox: Sandbox, random: Random, since: datetime, pull: Callable[[datetime], object]
) -> Histories:
    """Pause, resume and reschedule deployments, and call `pull` a second before and after each change."""
    deployments = [one for one in sandbox.deployments if not one["archived_at"]][:10]
    second, old = timedelta(seconds=1), since - timedelta(days=30)

    def change(one: dict[str, Any], at: datetime) -> tuple[datetime, tuple[str, bool]]:
        expression, paused = random.choice(FLEET_CRONS), random.random() < 0.4
        fields = {
            "created_at": stamp(old), "updated_at": stamp(at), "status": "paused" if paused else "active",
            "paused_reason": {"type": "manual"} if paused else None,
            "schedule": {"type": "cron", "expression": expression, "timezone": "UTC", "upcoming_runs_at": []},
        }  # fmt: skip
        sandbox.rewrite({**one, **fields})
        return at, (expression, paused)

    histories = {one["id"]: [change(one, old)] for one in deployments}
    pull(since - second)
    for minute in sorted(random.sample(range(22 * 60), 24)):
        at = since.replace(second=30) + timedelta(minutes=minute)
        one = random.choice(deployments)
        pull(at - second)
        histories[one["id"]].append(change(one, at))
        pull(at + second)
    return histories


def due_times(
    history: list[tuple[datetime, tuple[str, bool]]], since: datetime, until: datetime
) -> list[datetime]:
    """Return the times at which a deployment had to fire, from its history and cronsim."""
    due = set()
    for expression in FLEET_CRONS:
        for at in takewhile(lambda at: at < until, CronSim(expression, since - timedelta(minutes=1))):
            if at >= since and state_at(history, at)[1] == (expression, False):
                due.add(at)
    return sorted(due)


def test_saved_snapshots_make_all_missed_triggers_of_a_day_certain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_wall_clock(monkeypatch, BEGIN, "load.lists")
    random = Random(11)  # noqa: S311 - the same each time
    with Sandbox(deployments=20, seed=7, runs=20) as sandbox:
        loading: dict[str, Any] = {"client": Client(sandbox.pat, sandbox.base_url), "cache_dir": tmp_path}
        loading["include_archived"] = True
        until = sandbox.now
        since = until - timedelta(hours=23)

        def pull(at: datetime) -> pd.DataFrame:
            WallClock.moment = at
            return load_deployments(**loading, refresh=True)

        histories = change_deployments(sandbox, random, since, pull)
        df = pull(until)
        snapshots = load_snapshots(**loading)
    assert {paused for history in histories.values() for _, (_, paused) in history} == {True, False}
    runs, expected_pairs = [], set()
    for id_, history in histories.items():
        for at in due_times(history, since, until):
            if random.random() >= 0.1:
                runs.append(run(id_, at + timedelta(seconds=random.randrange(90))))
            elif at < until - FLEET_GRACE:
                expected_pairs.add((id_, at))
    assert len(expected_pairs) > 10
    changed_df = df[df["id"].isin(histories)]
    window: dict[str, Any] = {"since": since, "until": until, "grace": FLEET_GRACE}
    found = missed_triggers(changed_df, flatten_runs(runs), **window, snapshots=snapshots)
    pairs = list(zip(found["deployment_id"], found["scheduled_at"], strict=True))
    assert len(pairs) == len(expected_pairs)
    assert set(pairs) == expected_pairs
    assert found["certain"].all()
    assert not missed_triggers(changed_df, flatten_runs(runs), **window)["certain"].all()
