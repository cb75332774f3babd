"""Tests of `--by` in commands, of names in tables, and that commands give the results of the library functions."""

from __future__ import annotations

import csv
import html
import inspect
import json
import math
import re
from datetime import UTC, datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import click
import pandas as pd
import pytest

import qoderdata as qd
from qoderdata.cli import commands
from qoderdata.cli.unusual import RUNS_FOR_MEDIAN
from qoderdata.errors import PermissionDeniedError
from qoderdata.sandbox import NOW, Sandbox
from tests.test_cli_output import ID, SINCE

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Invoke

pytestmark = pytest.mark.usefixtures("shared_account")

NOW_TEXT = "2026-06-15T01:30:20Z"


SANDBOX = {"deployments": 40, "seed": 7, "left_out": 6}


def test_runs_per_occurrence_do_not_count_failures_that_a_retry_repaired(invoke: Invoke) -> None:
    words, runs = "runs --since all --by agent", qd.load_runs()
    failed = {}
    for per in ("attempt", "occurrence"):
        found = invoke.json(f"{words} --per {per}")
        expected = qd.run_failure_rates(runs, by="agent_id", per=per)
        failed[per] = [row["failed"] for row in found]
        assert failed[per] == expected["failed"].to_list()
    assert sum(failed["occurrence"]) < sum(failed["attempt"])
    note = "of a run and its retries, only the last one counts\n"
    assert note in invoke(f"{words} --per occurrence").out
    assert note not in invoke(words).out


def test_errors_by_agent_begin_with_the_most_frequent_error_of_all_agents(invoke: Invoke) -> None:
    counts = [row["count"] for row in invoke.json("errors --since all --by agent")]
    groups = qd.error_groups(qd.load_runs(), by="agent_id")
    assert counts == sorted(groups["count"], reverse=True)
    assert counts != groups["count"].to_list()


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as the command writes them to JSON."""
    with_keys = frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()
    text = with_keys.to_json(orient="records", date_format="iso", date_unit="us", double_precision=15)
    return list(json.loads(text))


def team_of(sandbox: Sandbox) -> dict[str, str | None]:
    return {one["id"]: one["metadata"].get("team") for one in sandbox.deployments}


# -- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "key", "table"), [("agent", "agent_id", "agents"), ("environment", "environment_id", "environments")]
)
def test_by_agent_groups_by_id_and_adds_names(
    word: str, key: str, table: str, sandbox: Sandbox, invoke: Invoke
) -> None:
    names = {one["id"]: one["name"] for one in getattr(sandbox, table)}
    found = invoke.json(f"failures --by {word} --min-runs 0")
    expected = qd.failure_rates(qd.load_deployments(), by=key)
    assert [row[key] for row in found] == expected.index.to_list()
    assert [row["name"] for row in found] == [names[row[key]] for row in found]
    assert [row["total_failures"] for row in found] == expected["total_failures"].to_list()


@pytest.mark.parametrize(("words", "heading"), [("id --by name", "name"), ("deployment --by name", "deployment")])
def test_name_of_a_deployment_has_one_column(
    words: str, heading: str, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert invoke(f"failures --by {words}").out.split()[:6] == ["95", "%", "most", "in", heading, "runs"]


def test_top_keeps_the_most_frequent_errors_of_groups(invoke: Invoke) -> None:
    """`error_breakdown` orders its rows by group, not by count."""
    found = invoke.json(f"runs {SINCE} --errors --by agent --top 3")
    counts = qd.error_breakdown(qd.load_runs(since=SINCE.rsplit(maxsplit=1)[-1]), by="agent_id")["count"]
    assert [row["count"] for row in found] == counts.nlargest(3).to_list()
    assert [row["count"] for row in found] != counts.head(3).to_list()


@pytest.mark.filterwarnings("ignore:no run is in the time asked for")
def test_runs_are_grouped_by_the_model_of_their_agent_in_its_version(sandbox: Sandbox, invoke: Invoke) -> None:
    sessions = qd.flatten_sessions(sandbox.sessions)
    model_of = dict(
        zip(
            zip(sessions["agent_id"], sessions["agent_version"], strict=True), sessions["agent_model"], strict=True
        )
    )
    runs = qd.load_runs(since=SINCE.rsplit(maxsplit=1)[-1])
    models = [model_of.get(one, "none") for one in zip(runs["agent_id"], runs["agent_version"], strict=True)]
    counts = runs.assign(failed=runs["status"] == "failed").groupby(models)["failed"].agg(["size", "sum"])
    found = invoke.json(f"runs {SINCE} --by agent_model")
    assert {row["agent_model"] or "none": [row["runs"], row["failed"]] for row in found} == dict(
        zip(counts.index, counts.to_numpy().tolist(), strict=True)
    )
    assert len(found) > 2
    assert invoke("runs --by agent_model --since 2036-01-01T00:00Z").out.startswith("there are no runs")
    assert "did you mean 'agent_model'?" in invoke("runs --by model", code=2).err


def test_runs_of_a_version_without_a_known_model_have_none(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    runs, sessions = qd.load_runs().head(3), qd.load_sessions().head(3)
    runs = runs.assign(agent_id="agent_1", agent_version=[1, 2, 3])
    sessions = sessions.assign(agent_id="agent_1", agent_version=[1, 2, 2])
    sessions["agent_model"] = pd.Series(["one", None, "two"])
    monkeypatch.setattr(qd, "load_runs", lambda **_: runs)
    monkeypatch.setattr(qd, "load_sessions", lambda **_: sessions)
    found = invoke.json("runs --since all --by agent_model")
    assert {row["agent_model"]: row["runs"] for row in found} == {"one": 1, "two": 1, None: 1}


def test_runs_are_grouped_by_environment_of_their_deployment(sandbox: Sandbox, invoke: Invoke) -> None:
    environment_of = {one["id"]: one["environment_id"] for one in sandbox.deployments}
    counts = pd.Series([environment_of[one["deployment_id"]] for one in sandbox.runs]).value_counts()
    found = invoke.json("runs --since all --by environment")
    assert {row["environment_id"]: row["runs"] for row in found} == counts.to_dict()
    names = {one["id"]: one["name"] for one in sandbox.environments}
    assert {row["environment_id"]: row["name"] for row in found} == {key: names[key] for key in counts.index}


@pytest.mark.parametrize("command", ["runs --since all", "costs --since all"])
def test_metadata_key_groups_by_its_values(command: str, sandbox: Sandbox, invoke: Invoke) -> None:
    teams = team_of(sandbox)
    of = sandbox.runs if command.startswith("runs") else sandbox.sessions
    counts = pd.Series([teams.get(one["deployment_id"]) for one in of]).value_counts(dropna=False)
    found = invoke.json(f"{command} --by team")
    figure = "runs" if command.startswith("runs") else "sessions"
    assert {row["metadata_team"]: row[figure] for row in found} == {
        team if isinstance(team, str) else None: count for team, count in counts.items()
    }
    assert invoke(command, "--by", "team").out.splitlines()[0].split()[0] == "team"


def test_several_groups_have_one_name_column_each(sandbox: Sandbox, invoke: Invoke) -> None:
    found = invoke.json("failures --by deployment --by agent --by team")
    truth = {one["id"]: one for one in sandbox.deployments}
    agents = {one["id"]: one["name"] for one in sandbox.agents}
    for row in found:
        one = truth[row["deployment_id"]]
        assert row["deployment_name"] == one["name"]
        assert (row["agent_id"], row["agent_name"]) == (one["agent"]["id"], agents[one["agent"]["id"]])
        assert row["metadata_team"] == one["metadata"].get("team")


@pytest.mark.parametrize("form", ["", "--markdown", "--csv", "--json"])
def test_tables_mask_secrets(form: str, sandbox: Sandbox, invoke: Invoke) -> None:
    secret = next(one["environment_variables"] for one in sandbox.deployments if one.get("environment_variables"))
    assert "=" in secret
    printed = invoke(f"failures --by extra {form}").out
    assert "environment" in printed
    assert not [part for part in re.split(r"[=;\n]", secret) if len(part) > 10 and part in printed]


@pytest.mark.parametrize("words", ["environment", "agent_id", "status --by agent"])
def test_deployments_by_an_id_show_its_name(words: str, sandbox: Sandbox, invoke: Invoke) -> None:
    """The column `name` is the deployment's."""
    word = words.rsplit(maxsplit=1)[-1].removesuffix("_id")
    printed = invoke(f"deployments --by {words} --csv")
    header, *rows = csv.reader(printed.out.splitlines())
    column = header.index(f"{word}_name")
    named = {one["id"]: one["name"] for one in getattr(sandbox, f"{word}s")}
    assert {row[column] for row in rows} <= set(named.values())
    table = invoke(f"deployments --by {words} --markdown").out.splitlines()
    heads = [cell.strip() for cell in table[0].strip("|").split("|")]
    cells = [line.split(" | ")[heads.index(word)].strip("| ") for line in table[2:] if line.startswith("|")]
    assert {cell.replace("\\", "") for cell in cells} <= set(named.values())


@pytest.mark.usefixtures("empty_cache")
def test_names_are_loaded_once(sandbox: Sandbox, invoke: Invoke) -> None:
    sandbox.requests.clear()
    invoke.json(f"runs {SINCE} --by agent")
    paths = [request.path for request in sandbox.requests]
    assert sum(path.endswith("/agents") for path in paths) == -(-len(sandbox.agents) // 100) == 1
    assert not any(path.endswith(("/deployments", "/environments")) for path in paths)
    sandbox.requests.clear()
    invoke.json(f"errors {SINCE} --by agent")
    invoke.json(f"runs {SINCE}")
    assert [request.path for request in sandbox.requests] == []


@pytest.mark.usefixtures("empty_cache")
def test_ids_are_shown_if_names_cannot_be_loaded(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    words = f"runs {SINCE} --by agent"
    invoke(f"runs {SINCE}")
    sandbox.misbehave("403")
    monkeypatch.setenv("COLUMNS", "80")
    for given in (words, f"{words} --offline"):
        captured = invoke(given)
        assert "ids are shown, as names could not be loaded" in captured.err
        assert len(captured.err.splitlines()) == 1
        assert ID.search(captured.out)
    assert "ids are shown" in invoke(f"unusual {SINCE} --now {NOW_TEXT} --offline").err
    assert "has no answer to this call" in invoke(f"unusual {SINCE} --offline --by team", code=2).err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("failures --by agnet", "did you mean 'agent'?"),
        (f"runs {SINCE} --by tema", "did you mean 'team'?"),
        (f"costs {SINCE} --by deploment", "did you mean 'deployment'?"),
        (f"errors {SINCE} --by statsu", "did you mean 'status'?"),
        ("compare --by xyzzy", "no such column or key of metadata. Names:"),
    ],
)
def test_unknown_group_lists_all_valid_groups(words: str, message: str, sandbox: Sandbox, invoke: Invoke) -> None:
    captured = invoke(words, code=2)
    assert captured.out == ""
    assert re.fullmatch(r"qoderdata: .+; see `qoderdata.* --help`\n", captured.err)
    assert message in captured.err
    assert "Names: deployment, agent, environment." in captured.err
    keys = sorted({key for one in sandbox.deployments for key in one["metadata"] if key != "cas_config"})
    assert f"Metadata: {', '.join(keys)}." in captured.err
    assert "Columns: id, " in captured.err


@pytest.mark.parametrize(
    "command", ["forecast", "failures", "deployments", "triggers --start 2026-06-15T01:30:20Z --include-paused"]
)
def test_group_may_be_a_key_that_a_filter_leaves_out(command: str, sandbox: Sandbox, invoke: Invoke) -> None:
    teams = team_of(sandbox)
    alone = next(row["id"] for row in invoke.json("deployments --top 999") if teams[row["id"]] is None)
    words = f"{command} --deployment {alone} --by team"
    assert {row["metadata_team"] for row in invoke.json(words)} == {None}
    assert invoke(words).err == "qoderdata: --by team: no deployment has a value\n"
    assert "did you mean 'team'?" in invoke(f"{command} --deployment {alone} --by tema", code=2).err


@pytest.mark.parametrize("command", ["deployments --top 999", "failures --min-runs 0", "runs --since all"])
def test_metadata_key_with_the_name_of_a_column(
    command: str, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    """`--by` takes the column, `metadata_<key>` the key; `--where` reads metadata alone."""
    df = qd.load_deployments(include_archived=True)
    stages = ["prod", "test"] * (len(df) // 2)
    df["metadata"] = [json.dumps({"environment": stage, "status": stage, "team": "data"}) for stage in stages]
    monkeypatch.setattr(qd, "load_deployments", lambda **_: df)
    ids = {row["environment_id"] for row in invoke.json(f"{command} --by environment")}
    assert ids <= {*df["environment_id"].dropna(), None}
    for key in ("environment", "status"):
        found = invoke.json(f"{command} --by metadata_{key}")
        assert {row[f"metadata_{key}"] for row in found} == {"prod", "test"}
        found = invoke.json(f"{command} --by metadata_{key} --where {key}=test")
        assert {row[f"metadata_{key}"] for row in found} == {"test"}
    assert invoke.json(f"{command} --by metadata_team") == invoke.json(f"{command} --by team")
    assert "no deployment has the key 'name' in its metadata" in invoke(command, "--where", "name=x", code=2).err


def test_repeated_by_is_refused_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    monkeypatch.setattr(qd, "load_deployments", lambda **_: pytest.fail("deployments were loaded"))
    said = invoke("failures --by team --by metadata_team", code=2).err
    assert "--by team --by metadata_team: two of them are the same" in said


# -- commands ----------------------------------------------------------------------------------------------------


def test_compare_equals_compare_periods(invoke: Invoke) -> None:
    runs = qd.with_names(qd.load_runs(), qd.load_deployments(include_archived=True), metadata="team")
    expected = qd.compare_periods(runs, by="metadata_team", recent="10D", baseline="20D", until=NOW)
    found = invoke.json(f"compare --recent 10D --baseline 20D --until {NOW_TEXT} --by team")
    assert found == rows_of(expected)
    assert {row["verdict"] for row in found} - {"unclear"}


@pytest.mark.usefixtures("empty_cache")
def test_compare_ends_now_by_default(invoke: Invoke) -> None:
    with Sandbox(deployments=20, seed=7, now=datetime.now(UTC)) as served:
        found = invoke.json(f"compare --by trigger_type --base-url {served.base_url}")
        week = pd.Timedelta("7D")
        ages = [pd.Timestamp.now("UTC") - pd.Timestamp(one["triggered_at"]) for one in served.runs]
        decided = [one["status"] in {"completed", "failed"} for one in served.runs]
    recent = sum(age < week and is_decided for age, is_decided in zip(ages, decided, strict=True))
    assert sum(row["recent_decided"] for row in found) == pytest.approx(recent, abs=1)


def test_compare_costs_equals_the_function(invoke: Invoke) -> None:
    sessions = qd.with_names(qd.load_sessions(), qd.load_deployments(include_archived=True), metadata="team")
    expected = qd.compare_costs(sessions, by="metadata_team", recent="5D", baseline="20D", until=NOW)
    words = f"compare-costs --recent 5D --baseline 20D --until {NOW_TEXT} --by team"
    assert invoke.json(words) == rows_of(expected)
    total = qd.compare_costs(sessions, by=None, recent="5D", baseline="20D", until=NOW).iloc[0]
    text = invoke(words).out
    assert f"{total['recent_credits']:,.2f} credits in all, {total['change']:+,.2f} against before" in text
    assert "credits before: those of the 20 d before, scaled to 5 d; sessions before: not scaled" in text
    unknown = int(total["recent_unknown"] + total["baseline_unknown"])
    assert f"the usage of {unknown:,} sessions is not known" in text
    team, first = next(expected[expected.index.isin(["data", "sre", "finance"])].iterrows())
    cells = next(line.split() for line in text.splitlines() if line.startswith(f"{team} "))
    before = first["baseline_credits"] / 4
    assert cells[1:4] == [f"{first['recent_credits']:,.2f}", f"{before:,.2f}", f"{first['change']:+,.2f}"]


def test_an_unchanged_cost_has_no_minus_sign(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    """As floats, 0.3 - (0.1 + 0.2) is a little below 0."""
    sessions = qd.load_sessions().head(3).assign(deployment_id="dep_1", usage_total_credits=[0.3, 0.1, 0.2])
    sessions["created_at"] = [pd.Timestamp(NOW) - pd.Timedelta(age) for age in ("1D", "8D", "9D")]
    monkeypatch.setattr(qd, "load_sessions", lambda **_: sessions)
    text = invoke(f"compare-costs --until {NOW_TEXT}").out
    assert text.count("+0.00") == 2
    assert "-0.00" not in text


def test_errors_equals_error_groups_and_marks_new_ones(invoke: Invoke) -> None:
    runs = qd.load_runs(since="2026-05-01T00:00Z")
    expected = qd.error_groups(runs)
    assert invoke.json(f"errors {SINCE}") == rows_of(expected)
    new = expected[expected["is_new"]]
    assert 0 < len(new) < len(expected)
    assert invoke.json(f"errors {SINCE} --new") == rows_of(new)
    assert len(re.findall(r"^new +\d", invoke(f"errors {SINCE}").out, re.MULTILINE)) == len(new)
    assert invoke(f"errors {SINCE}").out.split("\n", 1)[0].split()[0] == "new"
    assert invoke(f"errors {SINCE} --new").out.split("\n", 1)[0].split()[0] == "failed"
    assert "\nonly errors first seen in the last 7 days\n" in invoke(f"errors {SINCE} --new").out
    assert "only errors" not in invoke(f"errors {SINCE}").out
    by_team = invoke(f"errors {SINCE} --new --by team").out
    assert "\nonly errors first seen in the last 7 days, in their group\n" in by_team


def test_errors_new_needs_14_days_of_runs(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    short = "errors --since 2026-06-10T00:00Z"
    text = "which errors are new is not known: the runs cover less than 14 days\n"
    assert invoke(f"{short} --new").out == text
    assert invoke(f"{short} --new --json") == ("[]\n", f"qoderdata: {text}")
    assert "less than 14 days" in invoke(short).out
    assert invoke(short).out.split()[0] == "failed"  # a column without a single mark would take room
    assert "less than 14 days" not in invoke(f"errors {SINCE}").out
    runs = qd.load_runs(since="2026-06-10T00:00Z")
    monkeypatch.setattr(qd, "load_runs", lambda **_: runs)
    for since, advice in (("7D", " (--since 30D reads more)"), ("30D", ""), ("all", "")):
        expected = text.replace("\n", f"{advice}\n")
        assert invoke(f"errors --new --since {since}").unwrapped == expected.strip()
    times = pd.to_datetime(["2026-06-15T00:00:00Z", "2026-06-01T00:00:59Z"])  # to the end of the minute: 14 days
    runs = runs.head(2).assign(
        triggered_at=times.as_unit("us"), status=["failed", "completed"], error_type="timeout"
    )
    assert qd.error_groups(runs)["is_new"].any()
    assert "less than 14 days" not in invoke("errors --since all").out


def test_errors_are_not_new_if_more_outcomes_are_assumed_before(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    runs = qd.load_runs(since="2026-05-01T00:00Z")
    week, end = pd.Timedelta("7D"), runs["triggered_at"].max().floor("min") + pd.Timedelta("1min")
    is_before = runs["triggered_at"] < end - week
    assumed = runs["status_from"].mask(runs["status"].eq("completed") & is_before, "session")
    mixed = runs.assign(status_from=assumed)
    monkeypatch.setattr(qd, "load_runs", lambda **_: mixed)
    why = "before that, more outcomes are assumed (--outcomes events reads them)"
    text = f"which errors are new is not known: {why}"
    for words in ("--new", f"--new-since {end - week:%Y-%m-%dT%H:%M:%SZ}"):
        assert invoke(f"errors {SINCE} {words}").unwrapped == text
    assert text in invoke(f"errors {SINCE}").unwrapped
    assert not qd.error_groups(mixed)["is_new"].any()


@pytest.mark.filterwarnings("ignore:.*without created_at")
def test_costs_of_sessions_without_a_time_have_no_outcome(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    sessions = qd.load_sessions()
    sessions["created_at"] = pd.Series(pd.NaT, sessions.index, dtype=sessions["created_at"].dtype)
    monkeypatch.setattr(qd, "load_sessions", lambda **_: sessions)
    (row,) = invoke.json("costs --since all --by outcome")
    assert (row["outcome"], row["sessions"]) == (None, len(sessions))


def test_errors_new_since_shows_those_first_seen_later(invoke: Invoke) -> None:
    expected = qd.error_groups(qd.load_runs(since="2026-05-01T00:00Z"))
    first = expected["first_seen"].sort_values()
    new_from = first.iloc[-2]
    assert first.iloc[-3] < new_from
    words = f"errors {SINCE} --new-since {new_from:%Y-%m-%dT%H:%M:%S.%fZ}"
    new = expected[expected["first_seen"] >= new_from]
    assert invoke.json(words) == rows_of(new.assign(is_new=True))
    text = invoke(f"{words} --by team --tz Asia/Tokyo").out
    assert text.split()[0] != "new"
    local = new_from.tz_convert("Asia/Tokyo")
    assert f"\nonly errors first seen since {local:%Y-%m-%d %H:%M} +09:00, in their group\n" in text
    later = f"errors {SINCE} --new-since {first.iloc[-1] + pd.Timedelta('1s'):%Y-%m-%dT%H:%M:%S.%fZ}"
    assert invoke(later).out.startswith("no error is new; runs triggered since")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--new --new-since 3D", "--new and --new-since are two limits of what is new; give one of them"),
        ("--new-since 30D", "--new-since 30D is not after --since 30D: all errors would be new; give an earlier"),
        ("--new-since 3D --until 3D", "--new-since 3D is not before --until 3D: no error would be new; give an"),
        ("--new-since 3", "--new-since '3' has no unit"),
    ],
)
def test_errors_new_since_refuses_a_time_that_says_nothing(invoke: Invoke, more: str, message: str) -> None:
    assert message in invoke(f"errors {more}", code=2).err


def test_errors_new_shows_when_each_was_first_seen_at_80_columns(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    of_all = f"errors {SINCE} --by agent"
    assert "first seen" not in invoke(of_all).out.splitlines()[0]
    lines = invoke(f"{of_all} --new-since 2026-05-03T00:00Z").out.splitlines()
    assert lines[0].endswith("  first seen")
    assert max(map(len, lines)) <= 80


def test_errors_new_since_needs_earlier_runs(invoke: Invoke) -> None:
    text = "which errors are new is not known: no run before --new-since was read\n"
    words = "errors --since all --new-since 1970-01-01T00:00Z"
    assert invoke(words).out == text
    assert invoke(f"{words} --json") == ("[]\n", f"qoderdata: {text}")


def test_unusual_equals_unusual_runs(invoke: Invoke) -> None:
    df = qd.load_deployments(include_archived=True)
    runs = qd.with_names(qd.load_runs(since="2026-05-01T00:00Z"), df)
    expected = qd.unusual_runs(runs, df, now=NOW, threshold=2, min_runs=5)
    found = invoke.json(f"unusual {SINCE} --now {NOW_TEXT} --threshold 2 --min-runs 5")
    assert found == rows_of(expected)
    assert len(found) > 0


def test_runs_for_a_median_are_those_of_unusual_runs() -> None:
    assert inspect.signature(qd.unusual_runs).parameters["min_runs"].default == RUNS_FOR_MEDIAN
    assert f"needs {RUNS_FOR_MEDIAN} completed runs" in (commands.commands["check"].help or "")


@pytest.mark.parametrize("waiting", [0, 3])
def test_unusual_counts_stuck_runs_that_wait_for_a_person(
    waiting: int, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    df, runs = qd.load_deployments(include_archived=True), qd.load_runs(since="2026-05-01T00:00Z")
    runs["status"] = "completed"
    timed = runs.index[runs["deployment_id"].isin(df["id"][df["config_timeout_ms"] > 0])]
    runs.loc[timed[:5], "status"] = "running"
    runs.loc[timed[:waiting], "status"] = "waiting"
    monkeypatch.setattr(qd, "load_runs", lambda **_: runs)
    text = invoke(f"unusual {SINCE} --now 2026-07-15T00:00Z").unwrapped
    assert ("waiting for a person: 3 of 5 stuck runs" in text) is bool(waiting)
    assert ("waiting for a person" in text) is bool(waiting)


def test_unusual_counts_runs_that_cannot_be_compared(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    df, runs = qd.load_deployments(include_archived=True), qd.load_runs(since="2026-05-01T00:00Z")
    runs.loc[runs.index[::9], "status"] = "running"
    runs.loc[runs.index[::5], "duration_ms"] = pd.NA
    df.loc[df.index[::2], "config_timeout_ms"] = pd.NA
    df.loc[df.index[::4], "config_timeout_ms"] = 0
    df.loc[df.index[::8], "archived_at"] = pd.Timestamp(NOW)
    monkeypatch.setattr(qd, "load_runs", lambda **_: runs)
    monkeypatch.setattr(qd, "load_deployments", lambda **_: df)
    with_timeout, counts = set(df[df["config_timeout_ms"] > 0]["id"]), []
    for least in (1, 20, 1_000_000):
        count = 0
        for id_, of_deployment in runs.groupby("deployment_id"):
            known = of_deployment[of_deployment["status"] == "completed"]["duration_ms"].count()
            if known < least and id_ not in with_timeout:
                count += int(of_deployment["status"].isin(["pending", "running", "waiting"]).sum())
        note = f"{count} run{' has' if count == 1 else 's have'} not ended and cannot be compared"
        out = invoke(f"unusual {SINCE} --min-runs {least}").unwrapped
        assert (note in out) is bool(count), (least, count)
        counts.append(count)
    assert counts[0] < counts[1] <= counts[2]

    live = df[df["archived_at"].isna()]
    open_ = runs[runs["status"].isin(["pending", "running", "waiting"])]["deployment_id"]
    completed = runs[(runs["status"] == "completed") & runs["duration_ms"].notna()]["deployment_id"].value_counts()
    judged = {*live["id"][live["config_timeout_ms"] > 0], *completed.index[completed >= 10]}
    count = int((open_.isin(live["id"]) & ~open_.isin(judged)).sum())
    assert count < int((~open_.isin(judged)).sum())
    text = invoke("check", code=1).unwrapped
    assert f"{count} runs triggered more than a day ago have not ended and cannot be compared: their" in text
    assert "; --outcomes events reads durations" in text
    assert count > 1


def test_costs_sum_to_the_credits_of_all_sessions(sandbox: Sandbox, invoke: Invoke) -> None:
    usage = [one.get("usage", {}).get("total_credits") for one in sandbox.sessions]
    known = [credits_ for credits_ in usage if credits_ is not None]
    found = invoke.json("costs --since all")
    assert sum(row["credits"] or 0 for row in found) == pytest.approx(sum(known))
    assert sum(row["unknown"] for row in found) == len(usage) - len(known) > 0
    names = {one["id"]: one["name"] for one in sandbox.deployments}
    assert [row["name"] for row in found] == [names.get(row["deployment_id"]) for row in found]
    note = f"{sum(known):,.2f} credits in {len(known):,} sessions; the usage of {len(usage) - len(known)} more"
    text = invoke("costs --since all").out
    assert note in text
    manual = sum(one["deployment_id"] is None for one in sandbox.sessions)
    assert f"–: {manual} sessions without a deployment" in text
    text = invoke(f"compare-costs --recent 3650D --until {NOW_TEXT} --top 1").out
    assert f"–: {manual} sessions without a deployment" in text
    assert "without a deployment" not in invoke(f"compare-costs --recent 3650D --until {NOW_TEXT} --by agent").out


def test_costs_by_outcome_are_those_of_the_newest_run_of_each_session(sandbox: Sandbox, invoke: Invoke) -> None:
    status = {one.get("session_id"): one["status"] for one in sorted(sandbox.runs, key=itemgetter("triggered_at"))}
    credits_: dict[str | None, float] = {}
    for one in sandbox.sessions:
        outcome = status.get(one["id"])
        credits_[outcome] = credits_.get(outcome, 0.0) + one.get("usage", {}).get("total_credits", 0.0)
    assert {"completed", "failed", None} <= set(credits_)
    found = invoke.json("costs --since all --by outcome")
    assert {row["outcome"]: row["credits"] for row in found} == {
        outcome: pytest.approx(spent) for outcome, spent in credits_.items()
    }
    manual = sum(one["deployment_id"] is None for one in sandbox.sessions)
    unknown = sum(status.get(one["id"]) is None for one in sandbox.sessions) - manual
    note = f"–: {manual} sessions without a deployment" + (
        f", {unknown} sessions without a known outcome" if unknown else ""
    )
    assert note in invoke("costs --since all --by outcome").unwrapped
    compared = invoke.json(f"compare-costs --recent 3650D --until {NOW_TEXT} --by outcome")
    assert {row["outcome"] for row in compared} == set(credits_)
    assert invoke("costs --since 2036-01-01T00:00Z --by outcome").out.startswith("there are no sessions")


@pytest.mark.filterwarnings("default:.*completed runs are assumed")
@pytest.mark.usefixtures("empty_cache")
def test_costs_by_outcome_on_the_newest_edition_come_from_events(invoke: Invoke) -> None:
    with Sandbox(deployments=12, seed=7, edition="D") as served:
        options = f"--since all --base-url {served.base_url}"
        assumed = invoke(f"costs --by outcome {options}")
        assert "completed runs are assumed" in assumed.err
        completed = next(line.split()[1] for line in assumed.out.splitlines() if line.startswith("completed "))
        note = (
            f"completed by assumption: {completed} of {completed} sessions; --outcomes events reads how they ended"
        )
        assert f"\n{note}\n" in assumed.out
        found = invoke.json(f"costs --by team --by outcome --outcomes events {options}")
        client = qd.Client(pat=served.pat, base_url=served.base_url)
        runs = qd.load_runs(client=client, outcomes="events")
        named = qd.with_names(
            qd.load_sessions(client=client),
            qd.load_deployments(client=client, include_archived=True),
            metadata="team",
        )
        expected = qd.session_costs(qd.with_outcomes(named, runs), by=["metadata_team", "outcome"])
        assert found == rows_of(expected)
        assert len({row["outcome"] for row in found}) > 3
        ended = qd.with_outcomes(named, runs[runs["status_from"] == "session"])["outcome"].eq("completed").sum()
        note = f"completed by assumption: {ended} of"
        out = invoke(f"costs --by outcome --outcomes events {options}").out
        assert ended > 0
        assert note in out
        assert "reads how they ended" not in out
        teams = int((named["metadata_team"].isna() & named["deployment_id"].notna()).sum())
        text = invoke(f"costs --by team --offline {options}").unwrapped
        assert f"{teams} sessions without a known team" in text


@pytest.mark.parametrize("command", ["costs", "compare-costs"])
def test_outcomes_have_no_effect_on_costs_without_by_outcome(command: str, invoke: Invoke) -> None:
    assert "--outcomes has no effect without --by outcome" in invoke(f"{command} --outcomes events", code=2).err


@pytest.mark.usefixtures("empty_cache")
def test_costs_without_known_usage_print_no_sum(invoke: Invoke) -> None:
    """Edition A has no usage."""
    reason = "\nno session has data on its usage, which older editions of the service do not report\n"
    with Sandbox(deployments=5, seed=7, edition="A") as served:
        out = invoke(f"costs --since all --base-url {served.base_url}").out
        assert f"\nthe usage of {len(served.sessions)} sessions is not known{reason}" in out
        out = invoke(f"compare-costs --recent 365D --until {NOW_TEXT} --base-url {served.base_url}").out
        assert f"\nthe usage of {len(served.sessions)} sessions is not known, and not in the sums{reason}" in out
        assert "in all" not in out
        out = invoke(f"forecast --start {NOW_TEXT} --since 2026-01-01T00:00Z --base-url {served.base_url}").out
        assert re.search(
            r"\n[\d,]+ triggers of deployments without a session of known cost in that time: the cost is", out
        )
        assert reason in out
        none = f"forecast --start {NOW_TEXT} --since 2036-01-01T00:00Z --base-url {served.base_url}"
        assert reason not in invoke(none).out
        assert "\nfrom the costs of sessions created since 20" in out
        assert "in all" not in out


@pytest.mark.usefixtures("empty_cache")
def test_report_costs_cover_the_sessions_of_90_days(tmp_path: Path, invoke: Invoke) -> None:
    with Sandbox(deployments=20, seed=7, now=datetime.now(UTC)) as served:
        invoke("report r.html --costs --base-url", served.base_url)
        since = pd.Timestamp.now("UTC") - pd.Timedelta("90D")
        sessions = [one for one in served.sessions if pd.Timestamp(one["created_at"]) >= since]
    known = [one["usage"]["total_credits"] for one in sessions if "total_credits" in one.get("usage", {})]
    assert len(known) > 100
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert f"{len(known):,} sessions used <strong>{math.fsum(known):,.2f} credits.</strong>" in text


def test_costs_by_agent_groups_by_agent_id(sandbox: Sandbox, invoke: Invoke) -> None:
    """Not by the column ``agent`` of the sessions, which is JSON text."""
    names = {one["id"]: one["name"] for one in sandbox.agents}
    found = invoke.json("costs --since all --by agent")
    assert {row["agent_id"]: row["name"] for row in found} == {
        one["agent"]["id"]: names[one["agent"]["id"]] for one in sandbox.sessions
    }


def test_forecast_equals_cost_forecast(invoke: Invoke) -> None:
    df, sessions = qd.load_deployments(include_archived=True), qd.load_sessions(since="2026-05-01T00:00Z")
    expected = qd.cost_forecast(df, sessions, "20D", start=NOW)
    words = f"forecast {SINCE} --horizon 20D --start {NOW_TEXT}"
    assert invoke.json(words) == rows_of(expected)
    text = invoke(words).out
    assert f"{expected['expected'].sum():,.2f} credits in all" in text
    assert "; no interval, as a deployment has a single session of known cost" in text
    without = expected.attrs["triggers_without_credits"]
    assert (f"{without:,} more trigger" in text) is (without > 0)

    id_ = expected.index[expected["sessions"].astype("int64") > 1][0]
    interval = "{low:,.2f}–{high:,.2f}".format(**expected.loc[id_])
    of_one = invoke(words, "--deployment", id_).unwrapped
    assert f"95 % interval {interval}" in of_one
    assert "the cost is not known" not in of_one
    assert "cost unknown" not in invoke(words, "--deployment", id_, "--by", "status").out
    assert ("cost unknown" in invoke(words, "--by", "status").out) is (without > 0)

    until = "2026-06-01T00:00Z"
    early = qd.load_sessions(since="2026-05-01T00:00Z", until=until)
    assert invoke.json(words, "--until", until) == rows_of(qd.cost_forecast(df, early, "20D", start=NOW))

    named = qd.with_names(df, agents=qd.load_agents(), metadata=["team"])
    for options, by in (("--by agent", "agent_id"), ("--by team --by status", ["metadata_team", "status"])):
        grouped = qd.cost_forecast(named, sessions, "20D", by=by, start=NOW)
        assert invoke.json(f"{words} {options}") == rows_of(grouped)


def test_triggers_include_those_of_paused_deployments_if_asked_for(invoke: Invoke) -> None:
    df, start = qd.load_deployments(), "2026-06-15T00:00Z"
    for words, include_paused in (("", False), ("--include-paused", True)):
        expected = qd.next_triggers(df, "2D", start=start, include_paused=include_paused)
        found = invoke.json(f"triggers --horizon 2D --start {start} {words}")
        assert [row["deployment_id"] for row in found] == expected["deployment_id"].to_list()
    assert set(df["id"][df["status"] == "paused"]) & {row["deployment_id"] for row in found}


@pytest.mark.parametrize(
    "words",
    ["failures --by vault_ids", "failures --by schedule_upcoming_runs_at", "costs --since all --by vault_ids"],
)
def test_column_of_lists_is_refused_as_a_group(words: str, invoke: Invoke) -> None:
    message = invoke(words, code=2).err
    column = words.rsplit(maxsplit=1)[-1]
    assert message.startswith(f"qoderdata: --by {column}: no such column")
    assert column not in message.partition("Columns:")[2]
    option = next(one for one in commands.commands[words.split(maxsplit=1)[0]].params if one.name == "by")
    context = click.Context(commands)
    assert [one.value for one in option.shell_complete(context, column[:-2])] == []
    assert [one.value for one in option.shell_complete(context, "agent_i")] == ["agent_id"]


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("failures", "deployment"),
        ("failures", "agent"),
        (f"runs {SINCE}", "environment"),
        (f"costs {SINCE}", "deployment"),
    ],
)
def test_by_agent_id_equals_by_agent(command: str, word: str, invoke: Invoke) -> None:
    assert invoke.json(f"{command} --by {word}_id") == invoke.json(f"{command} --by {word}")


@pytest.mark.parametrize("word", ["agent", "environment"])
def test_report_by_accepts_id_columns(tmp_path: Path, invoke: Invoke, word: str) -> None:
    page = tmp_path / "r.html"
    pages = []
    invoke("pull deployments")  # else the first page says that the service was asked
    for by in (word, f"{word}_id"):
        invoke(f"report {page} --by {by} --start 2026-06-15T01:30:20Z")
        pages.append(page.read_bytes())
    assert pages[0] == pages[1]


def test_report_by_environment_has_their_names(sandbox: Sandbox, tmp_path: Path, invoke: Invoke) -> None:
    invoke(f"report {tmp_path / 'r.html'} --by environment")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    used = {one["environment_id"] for one in sandbox.deployments if one["environment_id"]}
    assert len(used) > 1
    for environment in sandbox.environments:
        assert environment["id"] not in page
        assert (environment["id"] not in used) or html.escape(environment["name"]) in page


def test_report_names_agents_and_environments_where_they_can_be_loaded(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    given: list[pd.DataFrame] = []
    monkeypatch.setattr(qd, "write_report", lambda df, *_, **__: given.append(df))
    df = qd.load_deployments(include_archived=True)
    named = qd.with_names(df, agents=qd.load_agents())
    invoke("report r.html --by agent")
    pd.testing.assert_frame_equal(given.pop(), named)
    monkeypatch.setattr(qd, "load_agents", Mock(side_effect=PermissionDeniedError("refused")))
    assert "ids are shown" in invoke("report r.html --by environment").err
    expected = qd.with_names(df, environments=qd.load_environments())
    pd.testing.assert_frame_equal(given[0], expected)


def test_costs_with_freq_and_without_by_group_all_sessions_together(invoke: Invoke) -> None:
    found = invoke.json("costs --since all --freq 14D")
    expected = qd.session_costs(qd.load_sessions(), by=None, freq="14D")
    assert found == rows_of(expected)
    assert len(found) > 3
    found = invoke.json("costs --since all --freq 14D --tz Asia/Tokyo")
    expected = qd.session_costs(qd.load_sessions(), by=None, freq="14D", tz="Asia/Tokyo")
    assert [pd.Timestamp(row["window"]) for row in found] == expected.index.to_list()
    assert [row["credits"] for row in found] == pytest.approx(expected["credits"].to_list())


@pytest.mark.parametrize(
    ("words", "headings"),
    [
        ("deployments --by deployment --by team", "| team | name | deployment | state | fires | next |"),
        (
            "runs --since all --failed --by id",
            r"| triggered | id | deployment | deployment\_id | run | error | took | message |",
        ),
        (
            "runs --since all --failed --by deployment --by id",
            r"| triggered | deployment | deployment\_id | id | run | error | took | message |",
        ),
    ],
)
def test_each_row_of_a_list_names_its_deployment_once(words: str, headings: str, invoke: Invoke) -> None:
    assert invoke(f"{words} --markdown").out.splitlines()[0] == headings


@pytest.mark.parametrize("form", ["", "--markdown", "--csv", "--json"])
@pytest.mark.usefixtures("empty_cache")
def test_a_group_by_a_secret_is_masked(form: str, invoke: Invoke) -> None:
    with Sandbox(deployments=5, seed=7) as served:
        first = served.deployments[0]
        served.rewrite({**first, "metadata": {**first["metadata"], "environment_variables": "s3cret"}})
        printed = invoke(f"failures --by environment_variables --base-url {served.base_url} {form}").out
    assert "***" in printed.replace("\\", "")  # escaped in Markdown
    assert "s3cret" not in printed


@pytest.mark.usefixtures("empty_cache")
def test_metadata_is_text_also_if_its_key_ends_like_the_name_of_a_time(invoke: Invoke) -> None:
    with Sandbox(deployments=5, seed=7) as served:
        first = served.deployments[0]
        served.rewrite({**first, "metadata": {**first["metadata"], "released_at": "in May"}})
        out = invoke(f"failures --by released_at --min-runs 0 --base-url {served.base_url}").out
    assert re.search(r"^in May +\d", out, re.MULTILINE)
