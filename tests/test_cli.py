"""The command: each help's example runs, errors are one line and a code, machines get what machines read."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

import qoderdata as qd
from qoderdata.cli import main, parser
from qoderdata.sandbox import Sandbox
from qoderdata.words import width

if TYPE_CHECKING:
    from collections.abc import Iterator

# Which fonts a machine has is not what is shown here.
pytestmark = pytest.mark.filterwarnings("ignore:no installed font")

TOKEN_VARIABLE, URL_VARIABLE = "QODER_PAT", "QODER_MANAGED_BASE_URL"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(deployments=250, seed=7) as served:
        yield served


@pytest.fixture(autouse=True)
def account(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Point the environment at the sandbox, and work in an empty folder."""
    monkeypatch.setenv(TOKEN_VARIABLE, sandbox.pat)
    monkeypatch.setenv(URL_VARIABLE, sandbox.base_url)
    monkeypatch.chdir(tmp_path)


def leaves(
    command: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> dict[tuple[str, ...], argparse.ArgumentParser]:
    below = [action for action in command._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        return {words: command}
    found: dict[tuple[str, ...], argparse.ArgumentParser] = {}
    for name, child in below[0].choices.items():
        found |= leaves(child, (*words, name))
    return found


LEAVES = leaves(parser())


def example(command: argparse.ArgumentParser) -> list[str]:
    text = command.format_help()
    found = re.search(r"^example:\n  (qoderdata .*)\Z", text.strip(), re.MULTILINE)
    assert found is not None, text
    return shlex.split(found[1])[1:]


def test_the_command_has_what_is_promised() -> None:
    names = {words[0] for words in LEAVES}
    assert names == {
        "demo",
        "pull",
        "failures",
        "runs",
        "triggers",
        "missed",
        "report",
        "export",
        "sandbox",
        "cache",
    }


@pytest.mark.parametrize("words", [words for words in LEAVES if words != ("sandbox",)], ids=" ".join)
def test_the_example_in_the_help_runs(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = example(LEAVES[words])
    assert tuple(arguments[: len(words)]) == words
    assert main(arguments) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_sandbox_serves_until_it_is_interrupted(ending: signal.Signals, sandbox: Sandbox) -> None:
    command = [sys.executable, "-m", "qoderdata", *example(LEAVES["sandbox",])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().removeprefix("export ").strip() for _ in range(2)]
        exports = dict(line.split("=", 1) for line in lines)
        client = qd.Client(pat=exports[TOKEN_VARIABLE], base_url=exports[URL_VARIABLE])
        frame = qd.load_deployments(client=client, include_archived=True)
        process.send_signal(ending)
        try:
            assert process.wait(timeout=20) == 130
        finally:
            process.kill()
    assert len(frame) == 250
    assert exports[TOKEN_VARIABLE] == sandbox.pat


def test_failures_for_machines_are_the_library_s(capsys: pytest.CaptureFixture[str]) -> None:
    expected = qd.failure_rates(qd.load_deployments()).query("total_runs >= 1").reset_index()
    assert main(["failures", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in rows] == expected["id"].to_list()
    assert [row["failure_rate"] for row in rows] == pytest.approx(expected["failure_rate"].to_list(), abs=1e-14)
    assert main(["failures", "--csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [line["id"] for line in lines] == expected["id"].to_list()
    assert [int(line["total_runs"]) for line in lines] == expected["total_runs"].to_list()


@pytest.mark.parametrize(
    "arguments",
    [
        ["runs"],
        ["runs", "--by", "agent_id", "--freq", "7D", "--tz", "Asia/Shanghai"],
        ["runs", "--errors"],
        ["runs", "--errors", "--by", "trigger_type"],
        ["runs", "--streaks"],
        ["runs", "--streaks", "--by", "agent_id"],
        ["triggers", "--load", "1h", "--start", "2026-06-15T01:30:20Z"],
        ["missed", "--until", "2026-06-15T00:00Z"],
    ],
    ids=" ".join,
)
def test_every_table_is_drawn_from_rows(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    since = [] if arguments[0] == "triggers" else ["--since", "2026-05-01T00:00Z"]
    assert main([*arguments, *since]) == 0
    heading, rule, *rows = capsys.readouterr().out.splitlines()
    assert set(rule) == {"─", " "}
    assert heading
    assert rows


def test_fail_over_tells_by_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["failures", "--by", "status", "--fail-over", "0.9"]) == 0
    assert main(["failures", "--by", "status", "--fail-over", "0.01"]) == 1
    assert "paused" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_a_table_fits_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["failures"]) == 0
    assert main(["triggers", "--start", "2026-06-15T01:30:20Z"]) == 0
    widths = [width(line) for line in capsys.readouterr().out.splitlines() if "rows; --top" not in line]
    assert max(widths) <= columns


def test_hostile_names_cannot_steer_the_terminal_or_break_a_table(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    record = next(one for one in sandbox.deployments if one["archived_at"] is None)
    sandbox.rewrite(record | {"name": "evil\n\x1b[31m| name"})
    main(["pull", "deployments", "--include-archived", "--refresh"])
    capsys.readouterr()
    for style in ([], ["--markdown"]):
        assert main(["failures", "--top", "500", "--include-archived", *style]) == 0
        output = capsys.readouterr().out
        assert "\x1b" not in output
        rows = [line for line in output.splitlines() if line]
        assert len(rows) == 2 + len(
            qd.failure_rates(qd.load_deployments(include_archived=True)).query("total_runs > 0")
        )
        if style:
            assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}
            assert "<img" not in output.replace("\\<", "")


def test_pull_writes_both_forms_and_says_so_for_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pull", "deployments", "--include-archived", "--out", "d.parquet", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["rows"], facts["out"], facts["from_cache"]) == (250, "d.parquet", False)
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "d.parquet"), qd.load_deployments(include_archived=True)
    )
    assert main(["pull", "runs", "--out", "runs.csv"]) == 0
    with (tmp_path / "runs.csv").open(encoding="utf-8", newline="") as lines:
        assert len(list(csv.DictReader(lines))) == len(qd.load_runs())


def test_filters_reach_the_service(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["pull", "deployments", "--status", "paused", "--created-since", "2026-01-01T00:00Z", "--json"]) == 0
    )
    facts = json.loads(capsys.readouterr().out)
    assert facts["rows"] == len(qd.load_deployments(status="paused", created_since="2026-01-01T00:00Z")) > 0


def test_what_was_left_out_is_shown_as_missed(capsys: pytest.CaptureFixture[str]) -> None:
    with Sandbox(deployments=60, seed=7, left_out=4) as served:
        pointer = [
            "--base-url",
            served.base_url,
            "--since",
            "2026-01-01T00:00Z",
            "--until",
            "2026-06-15T00:00Z",
            "--json",
        ]
        assert main(["missed", *pointer]) == 0
        rows = json.loads(capsys.readouterr().out)
        expected = {(key, pd.Timestamp(at)) for key, at in served.left_out}
    assert {
        (row["deployment_id"], pd.Timestamp(row["scheduled_at"])) for row in rows if row["certain"]
    } == expected


@pytest.mark.parametrize(
    ("fault", "code"),
    [("401", 3), ("403", 4), ("404", 4), ("400", 4), ("redirect", 4)],
)
def test_an_answer_of_the_service_is_one_line_and_its_code(
    fault: str, code: int, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.misbehave(fault)
    assert main(["pull", "deployments", "--refresh"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"qoderdata: .+\n", captured.err)
    assert sandbox.pat not in captured.err


@pytest.mark.parametrize(
    ("environment", "arguments", "code"),
    [
        ({TOKEN_VARIABLE: ""}, ["failures"], 3),
        ({URL_VARIABLE: "http://127.0.0.1:9"}, ["failures"], 5),
        ({}, ["failures", "--offline"], 2),
        ({}, ["failures", "--by", "nonsense"], 2),
        ({}, ["pull", "deployments", "--created-since", "2026-01-01"], 2),
        ({}, ["triggers", "--tz", "Mars/Base"], 2),
        ({}, ["export", "failures", "no/such/folder/f.csv"], 2),
        ({URL_VARIABLE: "http://example.com"}, ["failures"], 2),
    ],
)
def test_what_goes_wrong_here_is_one_line_and_its_code(
    environment: dict[str, str],
    arguments: list[str],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"qoderdata: .+\n", captured.err)


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["pull"], ["export", "failures", "x.docx"], ["pull", "deployments", "--out", "x.txt"]],
)
def test_a_command_line_that_cannot_be_understood_is_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_the_cache_is_shown_and_cleared(capsys: pytest.CaptureFixture[str]) -> None:
    main(["pull", "deployments"])
    main(["pull", "runs"])
    capsys.readouterr()
    assert main(["cache", "--json"]) == 0
    usage = json.loads(capsys.readouterr().out)
    assert usage["queries"]["files"] == 1
    assert usage["runs"]["bytes"] > 0
    assert main(["cache", "clear"]) == 0
    assert main(["cache", "show"]) == 0
    assert usage["location"] in capsys.readouterr().out
    assert qd.cache_usage()["queries"] == qd.cache_usage()["runs"] == {"files": 0, "bytes": 0}


def test_a_reader_that_has_seen_enough_is_no_error(sandbox: Sandbox) -> None:
    environment = os.environ | {TOKEN_VARIABLE: sandbox.pat, URL_VARIABLE: sandbox.base_url}
    command = f"{shlex.quote(sys.executable)} -m qoderdata failures --csv | head -n 1"
    done = subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith('"id","name",')
    assert done.stderr == ""


def test_the_demo_writes_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", "out", "--deployments", "60"]) == 0
    output = capsys.readouterr().out
    written = {
        Path(line.strip()).name for line in output.split("Written:\n")[1].splitlines() if line.startswith("  ")
    }
    assert written == {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert {
        "deployments.parquet",
        "deployments.csv",
        "runs.parquet",
        "report.html",
        "failure-rates.png",
    } <= written
    assert len(pd.read_parquet(tmp_path / "out" / "deployments.parquet")) == 60
