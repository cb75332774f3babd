"""Tests of ``qoderdata deployments``."""

from __future__ import annotations

import csv
import io
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

import qoderdata as qd
from qoderdata import cron

if TYPE_CHECKING:
    from conftest import Invoke
    from qoderdata.sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("shared_account")


SANDBOX = {"deployments": 60, "seed": 7}


def listed(words: str, invoke: Invoke) -> list[dict[str, Any]]:
    """Return the rows of the command."""
    found: list[dict[str, Any]] = invoke.json(f"deployments {words}")
    return found


def state_of(record: dict[str, Any]) -> str:
    """Return the state of a deployment by its record."""
    if record["archived_at"] is not None:
        return "archived"
    by_error = record["status"] == "paused" and (record["paused_reason"] or {}).get("type") == "error"
    return "paused by error" if by_error else str(record["status"])


def next_trigger_of(record: dict[str, Any], now: datetime) -> datetime | None:
    """Return the next trigger of a deployment by its record, of the schedule alone."""
    schedule = record["schedule"]
    if state_of(record) != "active" or schedule is None:
        return None
    try:
        return next(cron.parse(schedule["expression"], schedule["timezone"]).following(now), None)
    except cron.CronError:
        return None


def time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def test_rows_are_all_deployments_newest_first(sandbox: Sandbox, invoke: Invoke) -> None:
    records = {one["id"]: one for one in sandbox.deployments}
    found = listed("--include-archived", invoke)
    assert [row["id"] for row in found] == qd.load_deployments(include_archived=True)["id"].to_list()
    assert {row["id"] for row in found} == set(records)
    for row in found:
        record = records[row["id"]]
        assert (row["name"], row["agent_id"]) == (record["name"], record["agent"]["id"])
        assert row["state"] == state_of(record)
    assert {row["state"] for row in found} == {"active", "paused", "paused by error", "archived"}
    assert len(listed("", invoke)) == sum(one["archived_at"] is None for one in sandbox.deployments) < len(found)


def test_times_of_creation_are_shown_where_they_are_asked_for(sandbox: Sandbox, invoke: Invoke) -> None:
    del sandbox
    newest = qd.load_deployments()["created_at"].iloc[0]
    heading, _, first, *_ = invoke(f"deployments --created-since {newest.isoformat()}").out.splitlines()
    assert "  created  " in heading
    assert newest.strftime("  %Y-%m-%d %H:%M UTC") in first
    until = f"deployments --created-until {newest.isoformat()}"
    assert "  created  " in invoke(until).out.splitlines()[0]
    assert "  created  " not in invoke("deployments --top 1").out


def test_times_to_sort_by_are_written_as_all_times_of_a_table(sandbox: Sandbox, invoke: Invoke) -> None:
    del sandbox
    last = qd.load_deployments()["stats_last_triggered_at"].min().tz_convert("Asia/Tokyo")
    first = invoke("deployments --by stats_last_triggered_at --tz Asia/Tokyo").out.splitlines()[2]
    assert first.startswith(f"{last:%Y-%m-%d %H:%M} +09:00  ")


@pytest.mark.filterwarnings("ignore::qoderdata.errors.DataQualityWarning")
def test_next_triggers_equal_those_of_the_schedules(sandbox: Sandbox, invoke: Invoke) -> None:
    """The accounts' clock stands still, so that no list of the service reaches to the present."""
    before = datetime.now(UTC)
    found = {row["id"]: time(row["next_trigger_at"]) for row in listed("--include-archived", invoke)}
    after = datetime.now(UTC)
    for record in sandbox.deployments:
        possible = {next_trigger_of(record, before), next_trigger_of(record, after)}
        assert found[record["id"]] in possible, record["schedule"]
    assert sum(at is None for at in found.values()) > 5
    assert len({at for at in found.values() if at is not None}) > 5


@pytest.mark.filterwarnings("ignore:2 deployments have a schedule that cannot be read")
def test_schedules_that_fire_rarely_have_a_next_trigger(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    texts = {"dep_1": "* * * * *", "dep_2": "0 0 20 * *", "dep_3": "0 0 29 2 *", "dep_4": "0 0 30 2 *"}
    texts["dep_5"] = "x"
    deployments = qd.flatten_deployments(
        {"id": id_, "name": id_, "status": "active", "schedule": {"expression": text, "timezone": "UTC"}}
        for id_, text in texts.items()
    )
    monkeypatch.setattr(qd, "load_deployments", lambda **_: deployments)
    now = datetime.now(UTC)
    found = {row["id"]: time(row["next_trigger_at"]) for row in listed("", invoke)}
    assert {id_ for id_, at in found.items() if at is None} == {"dep_4", "dep_5"}
    assert found["dep_3"] is not None
    assert (found["dep_3"].month, found["dep_3"].day, found["dep_3"].year % 4) == (2, 29, 0)
    assert found["dep_3"].year - now.year <= 4
    lines = invoke("deployments").out.splitlines()
    assert [line.split()[:4] for line in lines if line.startswith(("dep_4", "dep_5"))] == [
        ["dep_4", "dep_4", "active", "0"], ["dep_5", "dep_5", "active", "x"],
    ]  # fmt: skip


def test_rows_are_sorted_by_team(sandbox: Sandbox, invoke: Invoke) -> None:
    teams = {one["id"]: one["metadata"].get("team") for one in sandbox.deployments}
    found = listed("--by team --include-archived", invoke)
    assert [row["metadata_team"] for row in found] == [teams[row["id"]] for row in found]
    with_team = [row["metadata_team"] for row in found if row["metadata_team"] is not None]
    assert with_team == sorted(with_team)
    assert all(row["metadata_team"] is None for row in found[len(with_team) :])
    newest = {row["id"]: index for index, row in enumerate(listed("--include-archived", invoke))}
    for team in set(with_team):
        order = [newest[row["id"]] for row in found if row["metadata_team"] == team]
        assert order == sorted(order)


def test_rows_are_sorted_by_the_name_of_the_agent(sandbox: Sandbox, invoke: Invoke) -> None:
    names = {one["id"]: one["name"] for one in sandbox.agents}
    found = listed("--by agent", invoke)
    assert [row["agent_name"] for row in found] == sorted(names[row["agent_id"]] for row in found)


def test_rows_are_sorted_by_all_groups(invoke: Invoke) -> None:
    found = [(row["status"], row["agent_name"]) for row in listed("--by status --by agent", invoke)]
    assert found == sorted(found)


@pytest.mark.parametrize("word", ["deployment", "name", "id"])
def test_the_name_is_shown_once(word: str, monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    heading = invoke("deployments --by", word).out.splitlines()[0]
    assert heading.split() == ["name", "deployment", "state", "fires", "next"]


def test_csv_has_no_long_columns_but_those_asked_for(invoke: Invoke) -> None:
    headers = [
        next(csv.reader(io.StringIO(invoke(f"deployments --csv {words}").out)))
        for words in ("", "--by initial_events")
    ]
    assert set(headers[1]) - set(headers[0]) == {"initial_events"}
    missing = set(qd.load_deployments().columns) - set(headers[0])
    assert missing == {
        "schedule_upcoming_runs_at", "vault_ids", "initial_events", "resources", "metadata", "extra",
    }  # fmt: skip


def test_paused_deployments_are_shown_with_their_error(sandbox: Sandbox, invoke: Invoke) -> None:
    """They have no next trigger."""
    heading, _, *rows = invoke("deployments --status paused").out.partition("\n\n")[0].splitlines()
    assert heading.split() == ["name", "deployment", "state", "fires", "error"]
    paused = [one for one in sandbox.deployments if state_of(one).startswith("paused")]
    errors = [(one["paused_reason"] or {}).get("error", {}).get("type", "–") for one in paused]
    assert len({*errors}) > 2
    assert sorted(row.split()[-1] for row in rows) == sorted(errors)


def test_an_empty_table_says_why(invoke: Invoke) -> None:
    shown = invoke("deployments --created-until 2001-01-01T00:00Z --by team")
    assert shown.out == ""
    assert "no deployment passes the filters: --created-until 2001-01-01T00:00Z" in shown.err


@pytest.mark.filterwarnings("ignore::qoderdata.errors.DataQualityWarning")
def test_a_line_counts_the_states_of_all_rows(sandbox: Sandbox, invoke: Invoke) -> None:
    states = Counter(map(state_of, sandbox.deployments))
    text = invoke("deployments --include-archived --top 3").out.splitlines()
    counts = text[-2].split(", ")
    assert sorted(f"{count} {state}" for state, count in states.items()) == sorted(counts)
    assert [int(count.split()[0]) for count in counts] == sorted(states.values(), reverse=True)
