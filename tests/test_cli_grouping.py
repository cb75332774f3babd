"""Tests of `--by` in commands, of names in tables, and that commands give the results of the library functions."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import click
import pandas as pd
import pytest

import qoderdata as qd
from qoderdata.cli import commands, main
from qoderdata.sandbox import NOW, Sandbox
from tests.test_cli_output import ID, SINCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("shared_account")

NOW_TEXT = "2026-06-15T01:30:20Z"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(deployments=40, seed=7, left_out=6) as served:
        yield served


def json_rows(words: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Run a command with `--json`, and return its rows."""
    assert main([*words.split(), "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as the command writes them to JSON."""
    with_keys = frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()
    text = with_keys.to_json(orient="records", date_format="iso", date_unit="us", double_precision=15)
    return list(json.loads(text))


def team_of(sandbox: Sandbox) -> dict[str, str | None]:
    return {one["id"]: one["metadata"].get("team") for one in sandbox.deployments}


# -- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "key", "table"),
    [("agent", "agent_id", "agents"), ("environment", "environment_id", "environments")],
)
def test_by_agent_groups_by_id_and_adds_names(
    word: str, key: str, table: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {one["id"]: one["name"] for one in getattr(sandbox, table)}
    found = json_rows(f"failures --by {word} --min-runs 0", capsys)
    expected = qd.failure_rates(qd.load_deployments(), by=key)
    assert [row[key] for row in found] == expected.index.to_list()
    assert [row["name"] for row in found] == [names[row[key]] for row in found]
    assert [row["total_failures"] for row in found] == expected["total_failures"].to_list()


def test_top_keeps_the_most_frequent_errors_of_groups(capsys: pytest.CaptureFixture[str]) -> None:
    """`error_breakdown` orders its rows by group, not by count."""
    found = json_rows(f"runs {SINCE} --errors --by agent --top 3", capsys)
    counts = qd.error_breakdown(qd.load_runs(since=SINCE.rsplit(maxsplit=1)[-1]), by="agent_id")["count"]
    assert [row["count"] for row in found] == counts.nlargest(3).to_list()
    assert [row["count"] for row in found] != counts.head(3).to_list()


def test_runs_are_grouped_by_environment_of_their_deployment(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    environment_of = {one["id"]: one["environment_id"] for one in sandbox.deployments}
    counts = pd.Series([environment_of[one["deployment_id"]] for one in sandbox.runs]).value_counts()
    found = json_rows("runs --since all --by environment", capsys)
    assert {row["environment_id"]: row["runs"] for row in found} == counts.to_dict()
    names = {one["id"]: one["name"] for one in sandbox.environments}
    assert {row["environment_id"]: row["name"] for row in found} == {key: names[key] for key in counts.index}


@pytest.mark.parametrize("command", ["runs --since all", "costs --since all"])
def test_metadata_key_groups_by_its_values(
    command: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    teams = team_of(sandbox)
    of = sandbox.runs if command.startswith("runs") else sandbox.sessions
    counts = pd.Series([teams.get(one["deployment_id"]) for one in of]).value_counts(dropna=False)
    found = json_rows(f"{command} --by team", capsys)
    figure = "runs" if command.startswith("runs") else "sessions"
    assert {row["metadata_team"]: row[figure] for row in found} == {
        team if isinstance(team, str) else None: count for team, count in counts.items()
    }
    assert main([*command.split(), "--by", "team"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[0] == "team"


def test_several_groups_have_one_name_column_each(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    found = json_rows("failures --by deployment --by agent --by team", capsys)
    truth = {one["id"]: one for one in sandbox.deployments}
    agents = {one["id"]: one["name"] for one in sandbox.agents}
    for row in found:
        one = truth[row["deployment_id"]]
        assert row["deployment_name"] == one["name"]
        assert (row["agent_id"], row["agent_name"]) == (one["agent"]["id"], agents[one["agent"]["id"]])
        assert row["metadata_team"] == one["metadata"].get("team")


@pytest.mark.usefixtures("empty_cache")
def test_names_are_loaded_once(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    sandbox.requests.clear()
    json_rows(f"runs {SINCE} --by agent", capsys)
    paths = [request.path for request in sandbox.requests]
    assert sum(path.endswith("/agents") for path in paths) == -(-len(sandbox.agents) // 100) == 1
    assert not any(path.endswith(("/deployments", "/environments")) for path in paths)
    sandbox.requests.clear()
    json_rows(f"errors {SINCE} --by agent", capsys)
    json_rows(f"runs {SINCE}", capsys)
    assert [request.path for request in sandbox.requests] == []


@pytest.mark.usefixtures("empty_cache")
def test_ids_are_shown_if_names_cannot_be_loaded(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"runs {SINCE} --by agent"
    assert main(f"runs {SINCE}".split()) == 0
    sandbox.misbehave("403")
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "80")
    for given in (words, f"{words} --offline"):
        assert main(given.split()) == 0
        captured = capsys.readouterr()
        assert "ids are shown, as names could not be loaded" in captured.err
        assert len(captured.err.splitlines()) == 1
        assert ID.search(captured.out)


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
def test_unknown_group_lists_all_valid_groups(
    words: str, message: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"qoderdata: .+; see `qoderdata.* --help`\n", captured.err)
    assert message in captured.err
    assert "Names: deployment, agent, environment." in captured.err
    keys = sorted({key for one in sandbox.deployments for key in one["metadata"] if key != "cas_config"})
    assert f"Metadata: {', '.join(keys)}." in captured.err
    assert "Columns: id, " in captured.err


# -- commands ----------------------------------------------------------------------------------------------------


def test_compare_equals_compare_periods(capsys: pytest.CaptureFixture[str]) -> None:
    runs = qd.with_names(qd.load_runs(), qd.load_deployments(include_archived=True), metadata="team")
    expected = qd.compare_periods(runs, by="metadata_team", recent="10D", baseline="20D", until=NOW)
    found = json_rows(f"compare --recent 10D --baseline 20D --until {NOW_TEXT} --by team", capsys)
    assert found == rows_of(expected)
    assert {row["verdict"] for row in found} - {"unclear"}


@pytest.mark.usefixtures("empty_cache")
def test_compare_ends_now_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    with Sandbox(deployments=20, seed=7, now=pd.Timestamp.now("UTC").floor("s").to_pydatetime()) as served:
        found = json_rows(f"compare --by trigger_type --base-url {served.base_url}", capsys)
        week = pd.Timedelta("7D")
        ages = [pd.Timestamp.now("UTC") - pd.Timestamp(one["triggered_at"]) for one in served.runs]
        decided = [one["status"] in {"completed", "failed"} for one in served.runs]
    recent = sum(age < week and is_decided for age, is_decided in zip(ages, decided, strict=True))
    assert sum(row["recent_decided"] for row in found) == pytest.approx(recent, abs=1)


def test_errors_equals_error_groups_and_marks_new_ones(capsys: pytest.CaptureFixture[str]) -> None:
    runs = qd.load_runs(since="2026-05-01T00:00Z")
    expected = qd.error_groups(runs)
    assert json_rows(f"errors {SINCE}", capsys) == rows_of(expected)
    new = expected[expected["is_new"]]
    assert 0 < len(new) < len(expected)
    assert json_rows(f"errors {SINCE} --new", capsys) == rows_of(new)
    assert main(f"errors {SINCE}".split()) == 0
    assert len(re.findall(r"^new +\d", capsys.readouterr().out, re.MULTILINE)) == len(new)


def test_errors_new_needs_14_days_of_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["errors", "--since", "2026-06-10T00:00Z", "--new"]) == 0
    assert capsys.readouterr().out == "less than 14 days of runs cannot tell which errors are new\n"
    assert main(["errors", "--since", "2026-06-10T00:00Z"]) == 0
    assert "less than 14 days" in capsys.readouterr().out
    assert main(f"errors {SINCE}".split()) == 0
    assert "less than 14 days" not in capsys.readouterr().out


def test_unusual_equals_unusual_runs(capsys: pytest.CaptureFixture[str]) -> None:
    df = qd.load_deployments(include_archived=True)
    runs = qd.with_names(qd.load_runs(since="2026-05-01T00:00Z"), df)
    expected = qd.unusual_runs(runs, df, now=NOW, threshold=2, min_runs=5)
    found = json_rows(f"unusual {SINCE} --now {NOW_TEXT} --threshold 2 --min-runs 5", capsys)
    assert found == rows_of(expected)
    assert len(found) > 0


def test_costs_sum_to_the_credits_of_all_sessions(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    usage = [one.get("usage", {}).get("total_credits") for one in sandbox.sessions]
    known = [credits_ for credits_ in usage if credits_ is not None]
    found = json_rows("costs --since all", capsys)
    assert sum(row["credits"] or 0 for row in found) == pytest.approx(sum(known))
    assert sum(row["unknown"] for row in found) == len(usage) - len(known) > 0
    names = {one["id"]: one["name"] for one in sandbox.deployments}
    assert [row["name"] for row in found] == [names.get(row["deployment_id"]) for row in found]
    assert main(["costs", "--since", "all"]) == 0
    note = f"{sum(known):,.2f} credits in {len(known):,} sessions; the usage of {len(usage) - len(known)} more"
    text = capsys.readouterr().out
    assert note in text
    manual = sum(one["deployment_id"] is None for one in sandbox.sessions)
    assert f"–: {manual} sessions without a deployment" in text


@pytest.mark.usefixtures("empty_cache")
def test_costs_without_known_usage_print_no_sum(capsys: pytest.CaptureFixture[str]) -> None:
    """Edition A has no usage."""
    with Sandbox(deployments=5, seed=7, edition="A") as served:
        assert main(["costs", "--since", "all", "--base-url", served.base_url]) == 0
        assert f"\nthe usage of {len(served.sessions)} sessions is not known\n" in capsys.readouterr().out
        assert main(["forecast", "--start", NOW_TEXT, "--base-url", served.base_url]) == 0
        out = capsys.readouterr().out
        assert re.search(r"\n[\d,]+ triggers without a known session, so without a price\n", out)
        assert "in all" not in out


@pytest.mark.usefixtures("empty_cache")
def test_report_costs_cover_the_sessions_of_90_days(tmp_path: Path) -> None:
    with Sandbox(deployments=20, seed=7, now=pd.Timestamp.now("UTC").floor("s").to_pydatetime()) as served:
        assert main(["report", "r.html", "--costs", "--base-url", served.base_url]) == 0
        since = pd.Timestamp.now("UTC") - pd.Timedelta("90D")
        sessions = [one for one in served.sessions if pd.Timestamp(one["created_at"]) >= since]
    known = [one["usage"]["total_credits"] for one in sessions if "total_credits" in one.get("usage", {})]
    assert len(known) > 100
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert f"{len(known):,} sessions used <strong>{math.fsum(known):,.2f} credits.</strong>" in text


def test_costs_by_agent_groups_by_agent_id(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    """Not by the column ``agent`` of the sessions, which is JSON text."""
    names = {one["id"]: one["name"] for one in sandbox.agents}
    found = json_rows("costs --since all --by agent", capsys)
    assert {row["agent_id"]: row["name"] for row in found} == {
        one["agent"]["id"]: names[one["agent"]["id"]] for one in sandbox.sessions
    }


def test_forecast_equals_cost_forecast(capsys: pytest.CaptureFixture[str]) -> None:
    df = qd.load_deployments(include_archived=True)
    expected = qd.cost_forecast(df, qd.load_sessions(since="2026-05-01T00:00Z"), "20D", start=NOW)
    words = f"forecast {SINCE} --horizon 20D --start {NOW_TEXT}"
    assert json_rows(words, capsys) == rows_of(expected)
    assert main(words.split()) == 0
    text = capsys.readouterr().out
    assert f"{expected['expected'].sum():,.2f} credits in all" in text
    without = expected.attrs["triggers_without_credits"]
    assert (f"{without:,} more trigger" in text) is (without > 0)


@pytest.mark.parametrize(
    "words",
    ["failures --by vault_ids", "failures --by schedule_upcoming_runs_at", "costs --since all --by vault_ids"],
)
def test_column_of_lists_is_refused_as_a_group(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    message = capsys.readouterr().err
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
def test_by_agent_id_equals_by_agent(command: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert json_rows(f"{command} --by {word}_id", capsys) == json_rows(f"{command} --by {word}", capsys)


def test_report_by_accepts_id_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[Any] = []
    monkeypatch.setattr(qd, "write_report", lambda *_, by, **__: groups.append(by))
    for words in ([], ["--by", "agent_id"], ["--by", "environment_id"], ["--by", "owner"]):
        assert main(["report", "r.html", *words]) == 0
    assert groups == [None, "agent", "environment", "owner"]


def test_costs_with_freq_and_without_by_group_all_sessions_together(capsys: pytest.CaptureFixture[str]) -> None:
    found = json_rows("costs --since all --freq 14D", capsys)
    expected = qd.session_costs(qd.load_sessions(), by=None, freq="14D")
    assert found == rows_of(expected)
    assert len(found) > 3
