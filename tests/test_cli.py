"""Tests of the command `qoderdata`: help, options, exit codes, one-line errors, and JSON and CSV output."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock
from zoneinfo import ZoneInfo

import click
import pandas as pd
import pytest

import qoderdata as qd
from qoderdata.cli import commands
from qoderdata.cli.options import Command, cut_windows
from qoderdata.formatting import counted
from qoderdata.formatting import display_width as width
from qoderdata.sandbox import Sandbox
from qoderdata.sandbox.changes import EDITIONS
from tests.wall_clock import set_wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Invoke, ScriptedService

# The result must not depend on the fonts of the machine.
pytestmark = [pytest.mark.filterwarnings("ignore:no installed font"), pytest.mark.usefixtures("shared_account")]

#: The clock of the sandbox is fixed in June 2026, so that `--since 30D` finds no run.
ALLOW_NO_RUNS_WARNING = pytest.mark.filterwarnings("default:no run is in the time asked for")
#: Whether this version of click names similar commands.
SUGGESTS = hasattr(click.exceptions, "NoSuchCommand")
TOKEN_VARIABLE, URL_VARIABLE = "QODER_ACCESS_TOKEN", "QODER_MANAGED_BASE_URL"


SANDBOX = {"deployments": 60, "seed": 7}


def leaf_commands(command: click.Command, words: tuple[str, ...] = ()) -> dict[tuple[str, ...], Command]:
    """Return each command that is not a group, by its words."""
    if isinstance(command, click.Group):
        return {
            path: leaf
            for name, child in command.commands.items()
            for path, leaf in leaf_commands(child, (*words, name)).items()
        }
    assert isinstance(command, Command)
    return {words: command}


LEAF_COMMANDS = leaf_commands(commands)


def parse(words: list[str]) -> None:
    """Parse a command line without running it; raise a click error where it is invalid."""
    command: click.Command = commands
    words = [word for word in words if word != "--verbose"]
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    command.make_context("qoderdata", words)


def test_list_of_commands() -> None:
    shared = {"__init__", "grouping", "options", "output", "service", "top_screen"}
    files = {path.stem for path in (Path(__file__).parents[1] / "qoderdata" / "cli").glob("*.py")}
    assert {words[0].replace("-", "_") for words in LEAF_COMMANDS} == files - shared, (
        "import the command in cli/__init__.py, or name a file that is not a command in `shared`"
    )
    assert {words[1] for words in LEAF_COMMANDS if words[0] == "pull"} == {
        "deployments", "runs", "sessions", "agents", "environments",
    }  # fmt: skip


@pytest.mark.parametrize("words", ["", "pull"])
def test_list_of_commands_is_not_cut_in_a_narrow_terminal(
    words: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    commands = invoke(words, "--help").out.partition("Commands:")[2].partition("Example:")[0]
    assert "..." not in commands
    assert max(map(width, commands.splitlines())) <= 60


@pytest.mark.parametrize("words", LEAF_COMMANDS, ids=" ".join)
def test_help_ends_with_an_example_that_parses(words: tuple[str, ...], invoke: Invoke) -> None:
    text = invoke(*words, "--help").out
    found = re.search(r"^Example:\n  (qoderdata .*)\n\Z", text, re.MULTILINE)
    assert found is not None, text
    example = shlex.split(found[1])[1:]
    assert tuple(example[: len(words)]) == words
    parse(example)
    assert max(map(width, text.splitlines())) <= 80


@ALLOW_NO_RUNS_WARNING
@pytest.mark.parametrize(
    "words",
    [words for words in LEAF_COMMANDS if words not in {("demo",), ("sandbox",), ("events",)}],
    ids=" ".join,
)
def test_example_of_the_help_runs(words: tuple[str, ...], invoke: Invoke) -> None:
    found_something = words == ("check",)  # the sandbox has deployments that fail
    assert invoke(*shlex.split(LEAF_COMMANDS[words].example)[1:], code=int(found_something)).out


def test_commands_in_the_readmes_parse() -> None:
    for name in ("README.md", "README.zh-CN.md"):
        text = (Path(__file__).parents[1] / name).read_text(encoding="utf-8")
        lines = [
            line.partition("#")[0]
            for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
            for line in block.splitlines()
            if line.startswith("qoderdata ")
        ]
        assert lines
        for line in lines:
            parse(shlex.split(line)[1:])


def test_sandbox_command_has_all_editions() -> None:
    choice = next(param.type for param in LEAF_COMMANDS["sandbox",].params if param.name == "edition")
    assert isinstance(choice, click.Choice)
    assert tuple(choice.choices) == EDITIONS, "add the edition to --edition in cli/sandbox.py"


def test_help_lists_all_exit_codes(invoke: Invoke) -> None:
    text = invoke("--help").out
    codes = {int(code) for code in re.findall(r"^  (\d+)  ", text, re.MULTILINE)}
    assert codes == {0, 1, 2, 3, 4, 5, 130}
    assert "qoderdata demo" in text


def test_commands_with_an_outcomes_option() -> None:
    with_outcomes = {
        words for words, leaf in LEAF_COMMANDS.items() if "outcomes" in {param.name for param in leaf.params}
    }
    assert with_outcomes == {
        ("check",), ("top",), ("failures",), ("runs",), ("compare",), ("errors",), ("unusual",), ("report",),
        ("export",), ("pull", "runs"), ("events",), ("costs",), ("compare-costs",),
    }, "a command lost the option --outcomes, or has it: then add it here"  # fmt: skip


def test_help_imports_no_large_library() -> None:
    program = (
        "import sys; from qoderdata.cli import main; main(['--help'])\n"
        "print({'pandas', 'pyarrow', 'numpy', 'rich', 'requests', 'tqdm'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "set()\n"


def test_shell_completion_of_commands_and_paths() -> None:
    environment = os.environ | {
        "_QODERDATA_COMPLETE": "bash_complete",
        "COMP_WORDS": "qoderdata r",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "qoderdata"], env=environment, capture_output=True, text=True, check=False
    )
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == {"runs", "report"}
    # For these types the shell itself completes names of files and folders.
    paths = [one for leaf in LEAF_COMMANDS.values() for one in leaf.params if one.metavar in {"FILE", "DIR"}]
    assert len(paths) > 20
    kinds = [one.shell_complete(click.Context(commands), "x")[0].type for one in paths]
    assert set(kinds) == {"file", "dir"}


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_sandbox_serves_until_a_signal_ends_it(ending: signal.Signals, sandbox: Sandbox) -> None:
    command = [sys.executable, "-m", "qoderdata", *shlex.split(LEAF_COMMANDS["sandbox",].example)[1:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().removeprefix("export ").strip() for _ in range(2)]
        exports = dict(line.split("=", 1) for line in lines)
        try:
            client = qd.Client(pat=exports[TOKEN_VARIABLE], base_url=exports[URL_VARIABLE])
            frame = qd.load_deployments(client=client, include_archived=True)
            process.send_signal(ending)
            assert process.wait(timeout=20) == 130
            comments = process.stdout.readlines()
        finally:
            process.kill()
    assert len(frame) == 250
    assert exports[TOKEN_VARIABLE] == sandbox.pat  # the variable that takes precedence
    assert "It does not advance" in "".join(comments)
    # An interactive zsh runs a pasted comment as a command.
    assert all(re.fullmatch(r"# [^'\"`$]+\n", comment) for comment in comments)


@pytest.mark.parametrize("is_fixed", [True, False])
def test_sandbox_prints_how_to_use_it(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, invoke: Invoke, *, is_fixed: bool
) -> None:
    module = importlib.import_module("qoderdata.cli.sandbox")  # the package has the command by this name
    monkeypatch.setattr(module, "threading", Mock(Event=Mock(side_effect=KeyboardInterrupt)))
    words = f"sandbox --deployments 1 {'--fixed' if is_fixed else ''}"
    facts = invoke.json(words, code=130)
    assert facts.keys() == {"base_url", "pat", "now"}
    assert facts["base_url"].startswith("http://127.0.0.1:")
    assert facts["pat"] == sandbox.pat
    assert (datetime.fromisoformat(facts["now"]) == sandbox.now) is is_fixed
    text = invoke(words, code=130).out
    assert (f"\n# So triggers, forecast and report need --start {facts['now']}\n" in text) is is_fixed
    assert ("\n# Lists of runs and sessions need --since all; " in text) is is_fixed
    assert ("\n# Start the sandbox again then.\n" in text) is not is_fixed


def test_port_in_use_is_an_error_message(sandbox: Sandbox, invoke: Invoke) -> None:
    port = sandbox.base_url.rpartition(":")[2].partition("/")[0]
    message = (
        f"qoderdata: cannot listen on --port {port}: Address already in use; see `qoderdata sandbox --help`\n"
    )
    assert invoke("sandbox --deployments 1 --port", port, code=2) == ("", message)


def test_failures_json_and_csv_equal_failure_rates(invoke: Invoke) -> None:
    expected = qd.failure_rates(qd.load_deployments()).query("total_runs >= 1").reset_index()
    rows = invoke.json("failures")
    assert [row["id"] for row in rows] == expected["id"].to_list()
    assert [row["failure_rate"] for row in rows] == pytest.approx(expected["failure_rate"].to_list(), abs=1e-14)
    lines = list(csv.DictReader(io.StringIO(invoke("failures --csv").out)))
    assert [line["id"] for line in lines] == expected["id"].to_list()
    assert [int(line["total_runs"]) for line in lines] == expected["total_runs"].to_list()
    for options, is_said in (("", True), ("--include-archived", False)):
        assert ("archived deployments are left out" in invoke(f"failures {options}").out) is is_said
    assert max(row["failure_rate"] or 0 for row in invoke.json("failures")) == 1
    invoke("failures --fail-over 1")  # no rate is above it


@pytest.mark.usefixtures("empty_cache")
def test_refresh_all_pulls_all_pages_again(sandbox: Sandbox, invoke: Invoke) -> None:
    def count_list_requests() -> int:
        return sum(request.path.endswith("/deployment_runs") for request in sandbox.requests)

    costs = []
    for option in ([], ["--refresh"], ["--refresh-all"], []):
        before = count_list_requests()
        invoke("pull runs --out runs.csv", *option)
        costs.append(count_list_requests() - before)
    first, refreshed, again, last = costs
    assert again >= first - 1 > refreshed >= 1
    assert last == 0


@pytest.mark.parametrize(("what", "refresh"), [("runs", "all"), ("sessions", "all"), ("agents", True)])
def test_refresh_all_is_passed_on(
    what: str, refresh: object, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    load = Mock(side_effect=KeyboardInterrupt)  # nothing needs to be loaded here
    monkeypatch.setattr(qd, f"load_{what}", load)
    invoke(f"pull {what} --refresh-all", code=130)
    assert load.call_args.kwargs["refresh"] == refresh


@pytest.mark.usefixtures("empty_cache")
def test_run_duration_of_2_to_the_62_ms_causes_no_failure(invoke: Invoke) -> None:
    """An exception must not end the command with exit code 1, which means that a rate is too high."""
    with Sandbox(deployments=3, seed=7, runs=9) as small:
        small.rewrite(small.runs[4] | {"status": "completed", "duration_ms": 2**62})
        account = ["--base-url", small.base_url]
        assert invoke.json("runs --since all", *account)[0]["duration_p95_ms"] > 2**61
        start = f"--start {small.now.isoformat()}"
        for words in (
            "runs --since all --fail-over 1", f"report x.html --runs --since all {start}", "unusual --since all",
            "compare --recent 3650D",
        ):  # fmt: skip
            assert "Traceback" not in invoke(words, *account).err


@pytest.mark.usefixtures("empty_cache")
def test_pull_writes_parquet_and_csv_and_prints_json(tmp_path: Path, invoke: Invoke) -> None:
    facts = invoke.json("pull deployments --include-archived --out d.parquet")
    assert (facts["rows"], facts["out"], facts["from_cache"]) == (60, "d.parquet", False)
    df = qd.load_deployments(include_archived=True)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "d.parquet").astype(df.dtypes), df)
    invoke("pull runs --out runs.csv")
    with (tmp_path / "runs.csv").open(encoding="utf-8", newline="") as lines:
        assert len(list(csv.DictReader(lines))) == len(qd.load_runs())


@pytest.mark.usefixtures("empty_cache")
def test_pull_deployments_stores_archived_ones_for_other_commands(
    sandbox: Sandbox, tmp_path: Path, invoke: Invoke
) -> None:
    facts = invoke.json("pull deployments --out d.parquet")
    assert facts["rows"] == len(pd.read_parquet(tmp_path / "d.parquet")) < len(sandbox.deployments)
    sandbox.requests.clear()
    both = [invoke.json("deployments --offline", *option) for option in ((), ("--include-archived",))]
    assert list(map(len, both)) == [facts["rows"], len(sandbox.deployments)]
    texts = [invoke("pull deployments --offline", *option).out for option in ((), ("--include-archived",))]
    assert texts[0] == f"{facts['rows']} deployments from the cache, without archived ones\n"
    assert texts[1].endswith(" deployments from the cache\n")
    assert invoke.json("failures --offline --status paused")
    assert not sandbox.requests


@pytest.mark.usefixtures("empty_cache")
def test_pull_deployments_offline_needs_no_archived_ones(invoke: Invoke) -> None:
    count = len(invoke.json("deployments"))
    text = f"{count} deployments from the cache, without archived ones\n"
    assert invoke("pull deployments --offline").out == text
    invoke("triggers --offline")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("what", ["deployments", "runs", "sessions", "agents", "environments"])
def test_pull_that_can_store_nothing_is_an_error_unless_it_writes_a_file(
    what: str, tmp_path: Path, invoke: Invoke
) -> None:
    folder = tmp_path / "in the way"
    folder.touch()
    captured = invoke("pull", what, "--cache-dir", str(folder), code=2)
    assert re.fullmatch(r"qoderdata: .*(not cached|not kept).* cannot be written.*\n", captured.err)
    assert captured.out == ""
    assert "cannot be written" in invoke("pull", what, "--cache-dir", str(folder), "--out", "all.csv").err
    assert (tmp_path / "all.csv").stat().st_size > 0


def test_pull_sends_filters_to_the_service(invoke: Invoke) -> None:
    facts = invoke.json("pull deployments --status paused --created-since 2026-01-01T00:00Z")
    assert facts["rows"] == len(qd.load_deployments(status="paused", created_since="2026-01-01T00:00Z")) > 0


def test_missed_lists_exactly_the_triggers_left_out(invoke: Invoke) -> None:
    with Sandbox(deployments=60, seed=7, left_out=4) as served:
        window = "--since 2026-01-01T00:00Z --until 2026-06-15T00:00Z"
        rows = invoke.json(f"missed {window} --base-url", served.base_url)
        expected = {(key, pd.Timestamp(at)) for key, at in served.left_out}
    assert {
        (row["deployment_id"], pd.Timestamp(row["scheduled_at"])) for row in rows if row["certain"]
    } == expected


@pytest.mark.parametrize(("fault", "code"), [("401", 3), ("403", 4), ("404", 4), ("400", 4), ("redirect", 4)])
def test_service_error_prints_one_line_and_returns_its_exit_code(
    fault: str, code: int, sandbox: Sandbox, invoke: Invoke
) -> None:
    sandbox.misbehave(fault)
    captured = invoke("pull deployments --refresh", code=code)
    assert captured.out == ""
    assert re.fullmatch(r"qoderdata: .+\n", captured.err)
    assert sandbox.pat not in captured.err


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize(
    ("environment", "words", "code"),
    [
        ({TOKEN_VARIABLE: ""}, "failures", 3),
        ({URL_VARIABLE: "http://127.0.0.1:9"}, "failures", 5),
        ({URL_VARIABLE: "http://example.com"}, "failures", 2),
        ({}, "triggers --tz Mars/Base", 2),
    ],
)
def test_local_error_prints_one_line_and_returns_its_exit_code(
    environment: dict[str, str], words: str, code: int, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    captured = invoke(words, code=code)
    assert captured.out == ""
    assert re.fullmatch(r"qoderdata: .+\n", captured.err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nonsense", "No such command 'nonsense'"),
        ("explore", "Did you mean 'export'? See `qoderdata --help`" if SUGGESTS else "No such command 'explore'"),
        ("chek", "(Did you mean one of: 'cache', 'check'?) See" if SUGGESTS else "No such command 'chek'"),
        ("failures --nonsense", "No such option"),
        ("export failures x.docx", "must end with .csv, .csv.gz or .parquet"),
        ("pull deployments --out x.txt", "must end with .csv, .csv.gz or .parquet"),
        ("export failures no/such/f.csv", "there is no such folder: 'no/such'"),
        ("pull runs --out no/such/f.csv", "there is no such folder: 'no/such'"),
        ("report no/such/report.html", "there is no such folder: 'no/such'"),
        ("pull runs --out x\udcff.csv", "is no text in the encoding of this terminal"),
        ("report ~nobody-of-this-name/r.html", "is below the home folder of a user who is not known"),
        ("report .", "this is a folder: '.'; give the name of a file"),
        ("report r.html --lang fr", "--lang': 'fr' is not one of 'en', 'zh'"),
        ("check --recent 0D", "--recent 0D must be longer than 0"),
        ("compare --baseline 0h", "--baseline 0h must be longer than 0"),
        ("triggers --horizon 0h", "--horizon 0h must be longer than 0"),
        ("failures --fail-over 20", "not in the range 0<=x<=1"),
        ("failures --fail-over -0.1", "not in the range 0<=x<=1"),
        ("failures --fail-over nan", "--fail-over': 'nan' is not a number"),
        ("failures --fail-over x", "--fail-over': 'x' is not a valid number;"),
        ("failures --top x", "--top': 'x' is not a valid whole number;"),
        ("sandbox --port x", "--port': 'x' is not a valid whole number;"),
        ("failures --top 0", "not in the range"),
        ("runs --top -1", "not in the range"),
        ("failures --csv --json", "give one of --csv and --json"),
        ("runs --min-runs 3", "--min-runs has no effect without --fail-over"),
        ("runs --errors --fail-over 0.5", "--fail-over has no effect with --errors"),
        ("runs --errors --streaks", "give one of --errors, --streaks, --failed and --waiting"),
        ("runs --failed --streaks", "give one of --errors, --streaks, --failed and --waiting"),
        ("runs --failed --freq 1D", "--freq has no effect with --failed"),
        ("runs --errors --freq 1D", "--freq has no effect with --errors"),
        ("runs --waiting --per attempt", "--per has no effect with --waiting"),
        ("runs --streaks --freq 1D", "--freq has no effect with --streaks"),
        ("unusual --threshold 0", "not in the range x>0"),
        ("failures --offline --refresh", "give one of them"),
        ("failures --offline --max-age 1h", "--max-age has no effect with --offline"),
        ("export runs r.csv", "'TABLE': `qoderdata pull runs --out FILE` writes runs to a file"),
        ("export events e.csv", "'events' is not one of 'deployments', 'failures', 'triggers', 'lints'"),
        ("export deployments d.csv --horizon 1h", "--horizon has no effect on deployments"),
        ("export lints l.csv --outcomes runs", "--outcomes has no effect on lints"),
        ("report r.html --since 7D", "--since has no effect without --runs"),
        ("report r.html --until 7D", "--until has no effect without --runs"),
        ("missed --since all", "--since needs a time or an age"),
        ("missed --outcomes runs", "Commands that have it: pull runs, check, top, failures, runs,"),
        ("failures --since 7D", "for a period: `qoderdata runs --since 7D --by deployment --outcomes events`"),
        ("--where team=data runs", " before the command; write it after the command; see"),
        ("triggers --load 1h --by team", "--by has no effect with --load"),
        ("triggers --include-archived", "Commands that have it: pull deployments, deployments, failures,"),
        ("pull --json", "Commands that have it: pull deployments, pull runs,"),
        ("export triggers t.csv --include-archived", "--include-archived has no effect on triggers"),
        ("export lints l.csv --include-archived", "--include-archived has no effect on lints"),
        ("top --once --interval 10s", "--interval has no effect with --once"),
        ("top --once --team nope", "--team nope: no such key of metadata. Metadata: cost_center, owner"),
        ("report r.html --by team --by agent", "give --by once"),
        ("pull runs --since", "'--since' requires an argument; see `qoderdata pull runs --help`"),
        ("runs --by", "'--by' requires an argument; see `qoderdata runs --help`"),
        (f"demo --out {__file__}", f"'{__file__}' is a file"),
        ("failures --by agent --by agent_id", "--by agent --by agent_id: two of them are the same"),
    ],
)
def test_invalid_command_line_prints_one_line_and_returns_2(words: str, message: str, invoke: Invoke) -> None:
    captured = invoke(words, code=2)
    assert captured.out == ""
    assert re.fullmatch(r"qoderdata: .+((?<!\?)(?<!\?\)); see|\?\)? See) `qoderdata.* --help`\n", captured.err)
    assert message in captured.err


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize(
    "words",
    [
        "report . --runs", "report r.pdf --runs", "report r.html --runs --since 7", "report r.html --horizon 7",
        "report r.html --lang de", "runs --freq 7", "costs --freq 7", "triggers --load 7", "forecast --horizon 7",
        "missed --grace 7", "check --recent 0D", "compare --baseline 0D", "compare-costs --recent 0D",
        "export triggers t.csv --start 7", "missed --since 1D --until 2D",
        "unusual --now 7", "unusual --threshold nan", "check --doubtful nan", "check --budget-share nan",
    ],
)  # fmt: skip
def test_invalid_value_is_refused_before_any_request(
    words: str, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE)
    assert "no access token" not in invoke(words, code=2).err


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("runs --freq 2M", ", or '1M' for calendar months"),
        ("costs --freq quarter", ", or '1M' for calendar months"),
        ("triggers --load YS", ", or '1M' for calendar months"),
        ("forecast --horizon 1M", ""),
    ],
)
def test_month_or_year_as_a_length_is_refused_with_advice_for_the_command(
    words: str, advice: str, invoke: Invoke
) -> None:
    assert invoke(words, code=2).err.endswith(f"have no fixed length; write days, like '30D'{advice}\n")


@pytest.mark.parametrize(
    "words", ["report r.html", "export failures f.csv", "pull runs --out r.parquet", "check --only-new f.json"]
)
def test_read_only_file_is_refused_before_any_request(
    words: str, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE)
    path = Path(words.rsplit(maxsplit=1)[-1])
    path.touch(0o444)
    assert f"the file '{path}' is read-only; see `qoderdata" in invoke(words, code=2).err


@pytest.mark.parametrize("words", ["report r.html", "export failures f.csv", "pull runs --out r.parquet"])
def test_folder_without_permission_is_refused_before_any_request(
    words: str, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "no file can be written to the folder" in invoke(words, code=2).err


def test_tilde_in_the_name_of_a_file_is_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, invoke: Invoke
) -> None:
    """A shell does not replace it in ``--out=~/runs.csv``."""
    monkeypatch.setenv("HOME", str(tmp_path))
    invoke("pull deployments --out=~/home.csv")
    assert len(pd.read_csv(tmp_path / "home.csv")) == len(qd.load_deployments())


def test_report_to_a_device_ignores_folder_permissions(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    invoke("report", os.devnull)


def test_file_suffix_is_case_insensitive(invoke: Invoke) -> None:
    for name in ("L.CSV", "L.Parquet", "l.csv", "l.parquet", "L.CSV.gz"):
        assert invoke("export lints", name).err == ""
    assert (
        Path("L.CSV").read_bytes() == Path("l.csv").read_bytes() == gzip.decompress(Path("L.CSV.gz").read_bytes())
    )
    pd.testing.assert_frame_equal(pd.read_parquet("L.Parquet"), pd.read_parquet("l.parquet"))


@pytest.mark.parametrize(
    ("words", "table"),
    [
        ("deployments --include-archived", lambda df: df),
        ("failures --include-archived", qd.failure_rates),
        (
            "triggers --horizon 2D --start 2026-06-15T00:00Z",
            lambda df: qd.next_triggers(df, "2D", start="2026-06-15T00:00Z"),
        ),
        ("lints --start 9000-12-01T00:00Z", lambda df: qd.schedule_lints(df, start="9000-12-01T00:00Z")),
    ],
)
def test_export_writes_the_tables_of_the_library(
    words: str, table: Callable[[pd.DataFrame], pd.DataFrame], invoke: Invoke
) -> None:
    what, *options = words.split()
    df = qd.load_deployments(include_archived="--include-archived" in options)
    qd.export_csv(table(df), "expected.csv")
    printed = invoke("export", what, "table.csv", *options).out
    assert Path("table.csv").read_bytes() == Path("expected.csv").read_bytes()
    assert printed == f"{counted(len(table(df)), 'row')} written to table.csv\n"


@pytest.mark.filterwarnings("ignore:.* completed runs are assumed")
@pytest.mark.usefixtures("edition_d")
def test_export_of_failures_counts_runs_if_there_are_no_counters(invoke: Invoke) -> None:
    invoke("export failures f.csv")
    found = list(csv.DictReader(Path("f.csv").read_text(encoding="utf-8-sig").splitlines()))
    expected = qd.failure_rates(qd.fill_counters(qd.load_deployments(), qd.load_runs()))
    assert [(row["id"], int(row["total_runs"])) for row in found] == list(expected["total_runs"].items())
    assert expected["total_runs"].sum() > 0


def test_invalid_report_name_gives_the_message_of_write_report(invoke: Invoke) -> None:
    nothing = qd.flatten_deployments([])
    with pytest.raises(ValueError, match="a report is an HTML page") as error:
        qd.write_report(nothing, "r.pdf")
    assert invoke("report r.pdf", code=2).err == f"qoderdata: {error.value}\n"


@pytest.mark.parametrize("words", ["", "pull"])
def test_group_without_a_command_shows_its_help(words: str, invoke: Invoke) -> None:
    assert "Commands:" in invoke(words, code=2).err


@pytest.mark.parametrize("form", ["--csv", "--json", "--markdown"])
def test_top_limits_the_rows_in_every_output_format(form: str, invoke: Invoke) -> None:
    text = invoke("failures --top 3", form).out
    rows = {
        "--csv": lambda: len(list(csv.DictReader(io.StringIO(text)))),
        "--json": lambda: len(json.loads(text)),
        "--markdown": lambda: sum(line.startswith("|") for line in text.splitlines()) - 2,
    }
    assert rows[form]() == 3


def test_times_are_in_the_zone_of_tz_in_every_output_format(invoke: Invoke) -> None:
    words = "runs --errors --since all --tz Asia/Shanghai --top 1"
    text = invoke(words).out
    line = next(csv.DictReader(io.StringIO(invoke(words, "--csv").out)))
    breakdown = qd.error_breakdown(qd.load_runs())
    expected = breakdown["first_seen"].iloc[0].tz_convert("Asia/Shanghai")
    assert pd.Timestamp(line["first_seen"]).isoformat() == expected.isoformat()
    assert f"{expected:%Y-%m-%d %H:%M} +08:00" in text
    assert "CST" not in text
    (row,) = invoke.json(words)
    assert row["first_seen"] == expected.isoformat(timespec="microseconds")


def test_first_seen_heading_mentions_the_window(invoke: Invoke) -> None:
    since_may = invoke("runs --errors --since 2026-05-01T00:00Z").out.splitlines()[0]
    assert "first seen in this window" in since_may
    until_june = invoke("runs --errors --since all --until 2026-06-01T00:00Z").out.splitlines()[0]
    assert "first seen in this window" in until_june
    assert "first seen  " in invoke("runs --errors --since all").out.splitlines()[0]


@pytest.mark.parametrize("words", ["--verbose pull deployments", "pull deployments --verbose"])
def test_verbose_is_accepted_before_and_after_the_command(words: str, invoke: Invoke) -> None:
    assert re.search(r"^deployments: .* rows in", invoke(words, "--refresh").err, re.MULTILINE)
    assert invoke("pull deployments --refresh").err == ""


@ALLOW_NO_RUNS_WARNING
@pytest.mark.parametrize(
    "words", ["runs --since 1min", "missed --since 1h", "report r.html --runs", "pull runs --since 1h"]
)
def test_period_without_runs_prints_the_time_of_the_newest_run(
    words: str, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    monkeypatch.setattr(qd, "write_report", lambda *_, **__: None)
    message = invoke(words).err
    newest = qd.load_runs()["triggered_at"].max()
    assert f"the newest was triggered at {newest:%Y-%m-%d %H:%M} UTC\n" in message


def test_columns_of_assumed_and_unknown_runs_appear_only_if_present(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    runs = qd.load_runs()
    completed = runs.index[runs["status"] == "completed"]
    plain = runs.assign(status_from="service")
    mixed = plain.copy()
    mixed.loc[completed[:7], "status_from"] = "session"
    mixed.loc[completed[7:10], ["status", "status_from"]] = None
    for frame, is_shown in ((plain, False), (mixed, True)):
        monkeypatch.setattr(qd, "load_runs", lambda frame=frame, **_: frame)
        text = invoke("runs").out
        assert ("assumed completed" in text) is is_shown
        assert ("outcome unknown" in text) is is_shown
        if is_shown:
            headings, _, row, *_ = text.splitlines()
            cells = dict(zip(re.split(r"  +", headings), re.split(r"  +", row), strict=True))
            assert (cells["assumed completed"], cells["outcome unknown"]) == ("7", "3")
    monkeypatch.setenv("COLUMNS", "60")
    headings = invoke("runs").out.splitlines()[1]
    assert headings.count("completed") == 2  # of how many the assumed ones are


def test_missing_counters_are_counted_from_runs(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    deployments, runs = qd.load_deployments(), qd.load_runs()
    counters = [name for name in deployments.columns if name.startswith("stats_")]
    without = deployments.assign(
        **{name: pd.Series(pd.NA, deployments.index, deployments[name].dtype) for name in counters}
    )
    monkeypatch.setattr(qd, "load_deployments", lambda **_: without)
    rows = {row["id"]: row for row in invoke.json("failures --min-runs 0")}
    failed = runs[runs["status"] == "failed"]["deployment_id"].value_counts()
    everything = runs["deployment_id"].value_counts()
    for name, count in (("total_runs", everything), ("total_failures", failed)):
        assert {key: row[name] for key, row in rows.items()} == {
            key: count.get(key, 0) for key in deployments["id"]
        }
    first = runs["triggered_at"].min().tz_convert("Asia/Tokyo")
    note = f"the service gives no counters; runs since {first:%Y-%m-%d %H:%M} +09:00 are counted"
    assert note in invoke("failures --top 1 --tz Asia/Tokyo").out


@pytest.mark.parametrize(
    ("words", "runs"),
    [
        ("failures", "all runs, also skipped and unfinished ones"),
        ("runs --since all", "completed and failed runs only"),
        ("compare --recent 10D --until 2026-06-15T00:00Z", "completed and failed runs only"),
    ],
)
def test_tables_state_which_runs_their_rates_include(words: str, runs: str, invoke: Invoke) -> None:
    assert f"\nrates are of {runs}\n" in invoke(words).out


def test_agent_option_accepts_a_name(invoke: Invoke) -> None:
    agents, deployments = qd.load_agents(), qd.load_deployments()
    name = agents.set_index("id")["name"][deployments["agent_id"].mode()[0]]
    named = agents["id"][agents["name"] == name]
    found = {row["id"] for row in invoke.json("failures --agent", name, "--min-runs", "0")}
    known = deployments[deployments["stats_total_runs"].notna()]
    assert found == set(known["id"][known["agent_id"].isin(named)])
    assert len(found) > 1


def test_all_agents_of_a_name_are_included(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    agents, deployments = qd.load_agents(), qd.load_deployments()
    same = deployments["agent_id"].dropna().unique()[:2]
    agents.loc[agents["id"].isin(same), "name"] = "a name of two"
    monkeypatch.setattr(qd, "load_agents", lambda **_: agents)
    expected = set(deployments["id"][deployments["agent_id"].isin(same)])
    assert {row["id"] for row in invoke.json("deployments --agent", "a name of two")} == expected
    message = invoke("deployments --agent", "a name of two").err
    assert message == "qoderdata: --agent a name of two: 2 agents with this id or name are included\n"


FILTERED = (
    "failures", "failures --by team", "triggers", "triggers --load 1h", "missed --since 2026-06-01T00:00Z",
    "forecast", "report r.html", "deployments", "export lints l.csv", "pull deployments",
)  # fmt: skip
OF_RUNS = ("runs", "runs --failed", "errors", "unusual", "costs", "pull runs", "pull sessions")


def test_only_options_that_are_alike_are_suggested(invoke: Invoke) -> None:
    assert "--since" in invoke("runs --sinc 7D", code=2).err
    assert "--tz" not in invoke("runs --last 7D", code=2).err


@pytest.mark.parametrize("words", FILTERED)
def test_no_match_for_filters_prints_only_that_message(words: str, invoke: Invoke) -> None:
    captured = invoke(words, "--created-since", "2036-01-01T00:00Z")
    assert captured.err == "qoderdata: no deployment passes the filters: --created-since 2036-01-01T00:00Z\n"
    assert re.fullmatch("|report written.*\n|0 (rows written|deployments from).*\n", captured.out)


@pytest.mark.parametrize("words", [*FILTERED, "failures --fail-over 0", "missed --fail", "pull sessions"])
def test_agent_that_is_not_known_is_an_error(words: str, invoke: Invoke) -> None:
    name = next(name for name in qd.load_agents()["name"] if name.isascii() and name.isprintable())
    message = invoke(words, "--agent", f"{name}s", code=2).err
    assert message.startswith(f"qoderdata: --agent {name + 's'!r}: no agent has this id or name; did you mean ")
    assert repr(name) in message
    assert repr(name) in invoke(words, "--agent", name.split()[0].lower(), code=2).err
    removed = [] if words == "pull sessions" else ["agent_qqqq"]  # of sessions, the agent may have been removed
    for agent in ("qqqq", *removed):
        message = invoke(words, "--agent", agent, code=2).err
        assert "; `qoderdata deployments --by agent` lists them; " in message


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize("words", ["deployments", "pull sessions"])
def test_unknown_name_of_an_agent_costs_no_requests_for_the_list(
    words: str, sandbox: Sandbox, invoke: Invoke
) -> None:
    sandbox.requests.clear()
    assert "no agent has this id or name" in invoke(words, "--agent", "qqqq", code=2).err
    assert {request.path for request in sandbox.requests} == {"/agents"}


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize("words", ["failures --fail-over 0", "runs --fail-over 0", "missed --fail"])
def test_names_that_cannot_be_looked_up_are_an_error(words: str, invoke: Invoke) -> None:
    """A gate must not pass since nothing was checked."""
    df = qd.load_deployments()
    name = df["name"][df["stats_total_failures"] > 0].iloc[0]
    qd.load_runs()
    code = 1 if words == "failures --fail-over 0" else 2
    message = invoke(words, "--offline", "--deployment", name, code=code).err
    assert code == 1 or "has no answer to this call" in message
    if words.startswith("failures"):
        agents = qd.load_agents()["name"].iloc[0]
        qd.clear_cache()
        qd.load_deployments()
        assert "has no answer to this call" in invoke(words, "--offline", "--agent", agents, code=2).err


@pytest.mark.filterwarnings("ignore:no run is in the time")
@pytest.mark.parametrize("words", [*FILTERED, *OF_RUNS, "compare"])
def test_deployment_that_is_not_known_is_an_error(words: str, invoke: Invoke) -> None:
    name = next(name for name in qd.load_deployments()["name"] if name.isascii() and name[0].isalpha())
    message = invoke(words, "--deployment", name[1:], code=2).err
    assert message.startswith(f"qoderdata: --deployment {name[1:]!r}: no deployment has this id or name; did you ")
    assert repr(name) in message
    assert "`qoderdata deployments` lists them" in invoke(words, "--deployment", "qqqq", code=2).err
    is_of_runs = words in {*OF_RUNS, "compare"}
    message = invoke(words, "--deployment", "dep_removed", code=0 if is_of_runs else 2).err
    note = "--deployment dep_removed: no deployment that is listed has this id; it may have been removed"
    assert (note in message) is is_of_runs


@pytest.mark.parametrize("words", ["runs --failed", "pull runs", "costs", "triggers --horizon 30D", "deployments"])
def test_deployment_may_be_given_by_name_or_id(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    df, runs = qd.load_deployments(), qd.load_runs()
    counts = runs["deployment_id"][runs["status"] == "failed"].value_counts()
    active = df[(df["status"] == "active") & df["schedule_expression"].notna() & df["id"].isin(counts.index)]
    same, id_, name = set(active["id"][:3]), active["id"].iloc[0], "a name of three"
    df.loc[df["id"].isin(same), "name"] = name
    monkeypatch.setattr(qd, "load_deployments", lambda **_: df)
    window = [] if words.startswith(("triggers", "deployments")) else ["--since", "all"]
    files = ["--out", "runs.csv"] if words == "pull runs" else []

    def ids(word: str) -> set[str]:
        if words == "pull runs":
            invoke(words, *window, *files, "--deployment", word)
            return set(pd.read_csv(tmp_path / "runs.csv")["deployment_id"])
        return {
            row.get("deployment_id", row.get("id"))
            for row in invoke.json(f"{words} --top 999", *window, "--deployment", word)
        }

    assert ids(id_) == {id_}
    assert ids(name) == same
    note = f"--deployment {name}: {len(same)} deployments with this id or name are included"
    assert invoke(words, *window, "--deployment", name, *files).err.count(note) == 1
    assert note not in invoke(words, *window, "--deployment", id_, *files).err


def test_where_without_a_value_selects_deployments_without_the_key(invoke: Invoke) -> None:
    """An empty value counts as none; conditions on other keys still apply."""
    deployments = qd.load_deployments()
    owners = [json.loads(text).get("owner", "") for text in deployments["metadata"]]
    unowned = set(deployments["id"][[owner == "" for owner in owners]])
    assert 0 < len(unowned) < len(deployments)
    assert {row["id"] for row in invoke.json("deployments --where owner=")} == unowned
    without_team = {row["id"] for row in invoke.json("deployments --where team=")}
    assert {row["id"] for row in invoke.json("deployments --where owner= --where team=")} == unowned & without_team
    owned = {row["id"] for row in invoke.json("deployments --where owner!=")}
    assert owned == {row["id"] for row in invoke.json("deployments")} - unowned
    of_runs = {row["deployment_id"] for row in invoke.json("runs --since all --by deployment_id --where owner=")}
    assert of_runs & unowned
    assert not of_runs & (set(deployments["id"]) - unowned)


def test_where_selects_deployments_with_another_value_or_none(invoke: Invoke) -> None:
    df = qd.expand_metadata(qd.load_deployments(), "team")
    team = df["metadata_team"].value_counts().index[0]
    others = {row["id"] for row in invoke.json("deployments --where", f"team!={team}")}
    assert others == set(df["id"][df["metadata_team"].fillna("") != team])
    with_team = {row["id"] for row in invoke.json("deployments --where", f"team!={team}", "--where", "team!=")}
    assert 0 < len(with_team) < len(others)
    assert with_team == set(df["id"][df["metadata_team"].notna() & (df["metadata_team"] != team)])


@pytest.mark.parametrize("words", [*FILTERED, *OF_RUNS, "compare", "check", "failures --fail-over 0"])
def test_where_with_an_unknown_key_or_value_is_an_error(words: str, invoke: Invoke) -> None:
    """A gate must not pass because of a typing error."""
    teams = qd.expand_metadata(qd.load_deployments(include_archived=True), "team")["metadata_team"].dropna()
    team = teams.iloc[0]
    message = invoke(words, "--where", f"team={team}s", code=2).err
    assert message.startswith(
        f"qoderdata: --where {'team=' + team + 's'!r}: no deployment has this value of 'team'; "
    )
    assert f"did you mean {team!r}" in message
    assert f"did you mean {team!r}" in invoke(words, "--where", f"team!={team}s", code=2).err
    assert f"; there are: {', '.join(sorted(teams.unique()))};" in invoke(words, "--where", "team=%", code=2).err
    for condition in (f"taem={team}", "taem=", "taem!="):
        message = invoke(words, "--where", condition, code=2).err
        assert re.search("no deployment has the key 'taem' in its metadata; there are: .*team", message)
    for condition in ("team", "=data", "!=data"):
        message = invoke(words, "--where", condition, code=2).err
        assert f"{condition!r} has no key and value; write KEY=VALUE, such as team=data" in message


@pytest.mark.parametrize(
    "words", ["runs --failed --since all", "errors --since all", "costs --since all", "triggers", "deployments"]
)
def test_where_selects_deployments_by_their_metadata(words: str, invoke: Invoke) -> None:
    df = qd.expand_metadata(qd.load_deployments(include_archived=True))
    first, second = df["metadata_team"].value_counts().index[:2]
    owner = df["metadata_owner"][df["metadata_team"] == first].value_counts().index[0]
    for conditions in ({"team": first}, {"team": second}, {"team": first, "owner": owner}):
        options = [word for key, value in conditions.items() for word in ("--where", f"{key}={value}")]
        found = invoke.json(f"{words} --top 9999", *options)
        fits = [df[f"metadata_{key}"] == value for key, value in conditions.items()]
        ids = set(df["id"][pd.concat(fits, axis=1).all(axis=1)])
        if words.startswith("errors"):
            failed = qd.load_runs(status="failed")
            assert sum(row["count"] for row in found) == failed["deployment_id"].isin(ids).sum() > 0
        else:
            assert {row.get("deployment_id", row.get("id")) for row in found} <= ids
            assert found


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("check --since 3650D", "check"), ("compare --recent 3650D", "compare_periods"),
        ("compare-costs --recent 3650D", "compare_costs"),
        ("forecast", "cost_forecast"),
        ("report r.html --runs --costs --since all --start 2026-06-15T01:30:20Z", "write_report"),
        ("missed --since 2026-06-01T00:00Z", "missed_triggers"), ("unusual --since all", "unusual_runs"),
    ],
)  # fmt: skip
def test_where_passes_only_rows_of_these_deployments(
    words: str, name: str, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    df = qd.expand_metadata(qd.load_deployments(include_archived=True), "team")
    team = df["metadata_team"].value_counts().index[0]
    of_team = set(df["id"][df["metadata_team"] == team])
    passed: list[pd.DataFrame] = []
    call = getattr(qd, name)

    def recorded(*frames: object, **options: object) -> object:
        given = (*frames, options.get("runs"), options.get("sessions"))
        passed.extend(frame for frame in given if isinstance(frame, pd.DataFrame))
        return call(*frames, **options)

    monkeypatch.setattr(qd, name, recorded)
    invoke(words, "--where", f"team={team}", code=None)
    if name in {
        "cost_forecast",
        "unusual_runs",
        "missed_triggers",
    }:  # rows of others in the second frame have no effect
        del passed[1:]
    ids = [set(frame["deployment_id" if "deployment_id" in frame else "id"].dropna()) for frame in passed]
    assert all(ids)
    assert set().union(*ids) <= of_team


@pytest.mark.filterwarnings("ignore:no run is in the time")
@pytest.mark.parametrize(
    "words",
    [
        "triggers", "deployments", "missed --since 2026-06-01T00:00Z", "forecast", "failures",
        "compare --recent 3650D", "compare-costs --recent 3650D", "check --since 3650D",
        "missed --since 2026-06-14T00:01Z --until 2026-06-14T00:12Z", "failures --min-runs 100000",
    ],
)  # fmt: skip
def test_tables_say_which_deployments_they_are_about(words: str, invoke: Invoke) -> None:
    """The last two are empty: without the note they would seem to be about all deployments."""
    teams = qd.expand_metadata(qd.load_deployments(), "team")["metadata_team"]
    team = teams.value_counts().index[0]
    text = invoke(words, "--where", f"team={team}", code=None).unwrapped
    assert f"only deployments that pass --where {shlex.quote(f'team={team}')}" in text
    assert "only deployments" not in invoke(words, code=None).out


@pytest.mark.parametrize(
    ("words", "note"),
    [
        ("runs --since 2026-05-20T12:00Z --until 2026-06-10T12:00Z", "first and the last"),
        ("runs --since 2026-05-20T00:00Z --until 2026-06-11T00:00Z", ""),
        ("runs --since 2026-05-20T00:00Z --until 2036-01-01T00:00Z", ""),
        ("runs --tz Asia/Shanghai --since 2026-05-20T00:00Z --until 2026-06-11T00:00+08:00", "first"),
        ("costs --since all --until 2026-06-10T12:00Z", "last"),
        ("triggers --horizon 7D --start 2026-06-15T00:00Z", ""),
        ("triggers --horizon 7D --start 2026-06-15T12:00Z", "first and the last"),
    ],
)
def test_windows_that_are_not_whole_are_named(words: str, note: str, invoke: Invoke) -> None:
    freq = "--load" if words.startswith("triggers") else "--freq"
    text = invoke(f"{words} {freq} 1D").out
    assert re.findall(r"^the (.*) window (?:is|are) not whole$", text, re.MULTILINE) == ([note] if note else [])


@pytest.mark.parametrize(("command", "loader"), [("runs", "load_runs"), ("costs", "load_sessions")])
def test_months_without_since_are_the_last_six(
    command: str, loader: str, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    load = Mock(return_value=getattr(qd, loader)())
    monkeypatch.setattr(qd, loader, load)

    def since(words: str) -> str:
        invoke(f"{command} --freq {words}")
        return str(load.call_args.kwargs["since"])

    set_wall_clock(monkeypatch, datetime(2026, 5, 31, 16, tzinfo=UTC), "cli.options")
    assert since("1M") == "2025-12-01T00:00:00+00:00"
    assert since("M --tz Asia/Tokyo") == "2026-01-01T00:00:00+09:00"
    assert since("1M --tz America/New_York") == "2025-12-01T00:00:00-05:00"
    assert since("1M --until 2025-07-01T00:00Z") == "2025-01-01T00:00:00+00:00"
    assert since("1M --until 9999-12-31T00:00Z") == "2025-12-01T00:00:00+00:00"
    assert since("1M --since 30D") == since("1W") == "30D"
    assert since("1M --until 0001-03-01T00:00Z") == "30D"


@pytest.mark.parametrize("freq", ["1h", "6h", "1D", "1M"])
@pytest.mark.parametrize(
    ("zone", "first", "last"),
    [
        ("America/Havana", "2026-10-30", "2026-11-03"),
        ("America/New_York", "2026-03-06", "2026-04-02"),
        ("Africa/Cairo", "2026-04-22", "2026-05-02"),
        ("Australia/Lord_Howe", "2026-03-30", "2026-04-07"),
    ],
)
def test_a_window_is_whole_until_the_next_one_begins(zone: str, first: str, last: str, freq: str) -> None:
    """In Havana the first midnight of November 2026 occurs twice; in Cairo a midnight is skipped."""
    times = pd.to_datetime([first, last]).tz_localize(ZoneInfo(zone)).as_unit("us")
    load = qd.trigger_load(pd.DataFrame({"trigger_at": times, "deployment_id": "dep_1"}), freq=freq)
    ends = load["window"].dt.tz_convert("UTC").tolist()[1:]
    assert ends
    for count, end in enumerate(ends, start=1):
        assert cut_windows(load.head(count), freq, None, end) == []
        one_earlier = end - pd.Timedelta(1, "us")
        assert cut_windows(load.head(count), freq, None, one_earlier) == ["the last window is not whole"]


def test_a_window_that_ends_after_the_year_9999_is_not_whole(invoke: Invoke) -> None:
    text = invoke("triggers --start 9999-12-30T00:00Z --horizon 1D --load 1W").out
    assert "the first and the last window are not whole" in text


@pytest.mark.parametrize(("horizon", "others"), [("1D", ""), ("7D", "; 6 others with as many")])
def test_the_busiest_window_is_named(horizon: str, others: str, invoke: Invoke) -> None:
    words = f"triggers --horizon {horizon} --start 2026-06-15T00:00Z --tz Asia/Shanghai --load 1h"
    counts = invoke.json(words)
    most = max(counts, key=lambda row: row["triggers"])
    time = pd.Timestamp(most["window"]).strftime("%Y-%m-%d %H:%M +08:00")
    text = " ".join([*invoke(words).out.split(), ""])
    assert f" the busiest window: {most['triggers']} triggers from {time}{others} " in text
    assert "busiest" not in invoke("triggers --horizon 1h --start 2026-06-15T00:00Z --load 1h").out


def test_one_row_and_one_trigger_are_singular(tmp_path: Path, invoke: Invoke) -> None:
    triggers = qd.next_triggers(qd.load_deployments(), "2D", start="2026-06-15T00:00Z")
    counts = triggers["deployment_id"].value_counts()
    one = str(counts.index[counts == 2][0])
    assert invoke("export deployments", str(tmp_path / "d.csv"), "--deployment", one).out.startswith(
        "1 row written"
    )
    assert invoke("pull deployments --deployment", one).out.startswith("1 deployment from ")
    hours = "triggers --start 2026-06-15T00:00Z --horizon 2D --load 1h --deployment"
    assert "the busiest window: 1 trigger from " in invoke(hours, one).out


def test_where_and_deployment_together(invoke: Invoke) -> None:
    df = qd.expand_metadata(qd.load_deployments(), "team")
    teams = df["metadata_team"].value_counts().index
    name = df["name"][df["metadata_team"] == teams[0]].iloc[0]
    assert invoke.json("deployments --deployment", name, "--where", f"team={teams[0]}")
    message = invoke("deployments --deployment", name, "--where", f"team={teams[1]}").err
    assert message.startswith(f"qoderdata: no deployment passes the filters: --deployment {shlex.quote(name)}")
    assert f"--where {shlex.quote(f'team={teams[1]}')}" in message
    text = invoke(f"runs --where team={teams[0]} --since 2020-01-01T00:00Z").unwrapped
    assert f"runs of team={teams[0]} triggered since 2020-01-01 00:00 UTC" in text


def test_table_of_one_deployment_names_it(invoke: Invoke) -> None:
    df = qd.load_deployments()
    name = df["name"][df["id"].isin(qd.load_runs()["deployment_id"]) & df["name"].map(str.isascii)].iloc[0]
    text = invoke("runs --since all --deployment", name).out
    assert f"\nruns of {name}\n" in text
    assert "first seen in this window" not in invoke("runs --errors --since all --deployment", name).out
    text = invoke("errors --since 2099-01-01T00:00Z --deployment", name).out
    assert f"there are no runs of {name} triggered since 2099" in " ".join(text.split())


def test_message_for_no_match_says_that_archived_deployments_are_left_out(invoke: Invoke) -> None:
    left_out = "; archived deployments are left out\n"
    deployments = qd.expand_metadata(qd.load_deployments(include_archived=True), ["team", "owner"])
    archived = deployments[deployments["archived_at"].notna()].dropna(subset=["metadata_team", "metadata_owner"])
    one = archived.iloc[0]
    assert invoke("deployments --deployment", one["id"]).err.endswith(left_out)
    words = ["--where", f"team={one['metadata_team']}", "--where", f"owner={one['metadata_owner']}"]
    assert invoke("deployments", *words).err.endswith(left_out)
    assert not invoke("deployments --include-archived", *words).err
    assert "archived" not in invoke("deployments --created-since 2036-01-01T00:00Z").err


@pytest.mark.parametrize("grace", ["1h", "60min", "7D"])
def test_grace_as_long_as_the_window_is_refused(grace: str, invoke: Invoke) -> None:
    words = "missed --since 2026-06-14T00:00Z --until 2026-06-14T01:00Z --tz Asia/Tokyo --grace"
    invoke(words, "59min")
    invoke(words, "0min")
    message = invoke(words, grace, code=2).err
    assert (
        "no trigger can be missed, as --grace covers all the time from --since to 2026-06-14 10:00 +09:00"
        in message
    )
    message = invoke("missed --since 1D --until 2D", code=2).err
    assert message == "qoderdata: --since '1D' is not before --until '2D': no trigger can be in between\n"


def test_message_for_no_match_names_the_agent_as_given(invoke: Invoke) -> None:
    agents, deployments = qd.load_agents(), qd.load_deployments()
    name = agents["name"][agents["id"].isin(deployments["agent_id"])].iloc[0]
    since = "2036-01-01T00:00Z"
    message = invoke("pull deployments --agent", name, "--created-since", since).err
    assert message.startswith("qoderdata: no deployment passes the filters: ")
    assert f"--agent {shlex.quote(name)}" in message
    assert f"--created-since {since}" in message


def test_pull_sessions_accepts_an_agent_name(invoke: Invoke) -> None:
    agents, deployments, sessions = qd.load_agents(), qd.load_deployments(), qd.load_sessions()
    name = agents.set_index("id")["name"][deployments["agent_id"].mode()[0]]
    expected = sessions["agent_id"].isin(agents["id"][agents["name"] == name]).sum()
    captured = invoke("pull sessions --json --agent", name)
    assert (json.loads(captured.out)["rows"], captured.err) == (expected, "")
    assert expected > 0
    until = sessions["created_at"].iloc[len(sessions) // 2].isoformat()
    rows = invoke.json("pull sessions --until", until)["rows"]
    assert rows == len(qd.load_sessions(until=until)) < len(sessions)


@pytest.mark.parametrize(
    ("words", "first_line"),
    [
        ("triggers --status paused", "paused deployments do not fire; --include-paused treats them as active\n"),
        ("triggers --status paused --load 1h", "paused deployments do not fire; --include-paused"),
        ("forecast --status paused", "paused deployments do not fire\n"),
    ],
)
def test_output_states_that_paused_deployments_do_not_fire(words: str, first_line: str, invoke: Invoke) -> None:
    assert invoke(words).out.startswith(first_line)
    command, _, rest = words.partition(" --status paused")
    paused = qd.load_deployments(status="paused")["id"][0]
    assert invoke(f"{command} --deployment {paused}{rest}").out.startswith(first_line)


@pytest.mark.parametrize("words", ["triggers", "triggers --load 1h", "triggers --include-paused", "forecast"])
def test_output_states_that_no_deployment_has_a_schedule(words: str, invoke: Invoke) -> None:
    df = qd.load_deployments(status="active")
    manual = df["id"][df["schedule_expression"].isna()].iloc[0]
    out = invoke(words, "--deployment", manual).out
    assert re.match(r"nothing fires within the next \d+ d: no active deployment has a schedule; only ", out)


def test_load_and_freq_accept_the_same_units_as_horizon(invoke: Invoke) -> None:
    triggers = "triggers --start 2026-06-15T01:30:20Z"
    for words in (f"{triggers} --load", "runs --since all --freq"):
        assert len({invoke(words, length).out for length in ("1D", "1d", "1 day")}) == 1
        for length in ("60T", "7", "soon"):
            messages = {
                invoke(option, length, code=2).err.replace(option.split()[-1], "--option")
                for option in (words, f"{triggers} --horizon")
            }
            assert len(messages) == 1
    invoke(f"{triggers} --load 3600S")


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize("words", ["check", "top --once", "forecast", "runs --by team", "report r.html"])
def test_offline_error_names_the_command_that_stores_archived_ones(words: str, invoke: Invoke) -> None:
    assert "archived" not in invoke("deployments --offline", code=2).err
    invoke("deployments")
    message = invoke(words, "--offline", code=2).err
    found = re.search(r"\(with archived deployments: `qoderdata (.*)`\)\n$", message)
    assert found is not None, message
    invoke(found[1])
    assert "archived" not in invoke(words, "--offline", code=None).err


@pytest.mark.usefixtures("empty_cache")
def test_offline_names_each_list_that_is_older_than_a_day(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    """The commands that show how old the data are have no note."""
    frames = {
        "deployments": qd.load_deployments(include_archived=True),
        "runs": qd.load_runs(),
        "sessions": qd.load_sessions(),
    }
    qd.load_agents()
    fetched = {what: datetime.fromisoformat(frame.attrs["fetched_at"]) for what, frame in frames.items()}
    oldest, newest = min(fetched.values()), max(fetched.values())
    for words, lists in (
        ("deployments --include-archived", ["deployments"]),
        ("runs --since 2026-01-01T00:00Z", ["runs"]),
        ("costs --since 2026-01-01T00:00Z", ["deployments", "sessions"]),
    ):
        set_wall_clock(monkeypatch, oldest + timedelta(days=1), "cli.service")
        assert " ago" not in invoke(words, "--offline").err
        set_wall_clock(monkeypatch, newest + timedelta(days=3, hours=2), "cli.service")
        assert " ago" not in invoke(words).err
        assert invoke(words, "--offline").err.splitlines() == [
            f"qoderdata: the stored {what} are of {fetched[what]:%Y-%m-%d %H:%M} UTC, 3 d 2 h ago"
            for what in lists
        ]
    for words in ("check", "report r.html"):
        assert " ago" not in invoke(words, "--offline", code=None).err


@pytest.mark.usefixtures("empty_cache")
def test_agents_are_requested_only_with_the_agent_option(sandbox: Sandbox, invoke: Invoke) -> None:
    sandbox.requests.clear()
    invoke("pull deployments --created-since 2036-01-01T00:00Z")
    assert {request.path for request in sandbox.requests} == {"/deployments"}


@pytest.mark.filterwarnings("default:.* completed runs are assumed")
@pytest.mark.usefixtures("empty_cache")
def test_maximum_page_size_is_determined_once(sandbox: Sandbox, invoke: Invoke) -> None:
    sandbox.requests.clear()
    invoke("runs --since all --by deployment")
    refused = [request.path for request in sandbox.requests if request.status == 400]
    assert refused == ["/deployments"]
    assert "/deployment_runs" in {request.path for request in sandbox.requests}
    with Sandbox(deployments=25, seed=7, runs=250, edition="D", now=datetime.now(UTC)) as edition_d:
        # Edition D has no counters, so that runs are loaded twice.
        invoke("check --base-url", edition_d.base_url, code=1)
        assert [request.path for request in edition_d.requests if request.status == 400] == ["/deployments"]


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize("fault", ["403", "404"])
def test_agent_name_that_cannot_be_looked_up_is_an_error(sandbox: Sandbox, invoke: Invoke, fault: str) -> None:
    sandbox.requests.clear()
    sandbox.misbehave(fault)
    message = invoke("pull deployments --agent nobody", code=4).err
    recorded = [(request.path, request.status) for request in sandbox.requests]
    assert recorded == [("/agents", int(fault))]
    assert f"GET /agents: the service answered {fault}" in message


def test_number_of_deployments_without_counters_is_printed(invoke: Invoke) -> None:
    without = int(qd.load_deployments()["stats_total_runs"].isna().sum())
    assert f"{counted(without, 'deployment')} without counters left out" in invoke("failures").out


def test_number_of_deployments_that_never_ran_is_printed(invoke: Invoke) -> None:
    never = int(qd.load_deployments()["stats_total_runs"].eq(0).sum())
    note = f"\n{counted(never, 'deployment')} with no runs left out; --min-runs 0 shows all\n"
    assert never > 1
    assert note in invoke("failures").out
    assert "with no runs" not in invoke("failures --min-runs 0").out
    most = max(row["total_runs"] for row in invoke.json("failures --by team"))
    words = f"failures --by team --min-runs {most}"
    left_out = len(invoke.json("failures --by team --min-runs 0")) - len(invoke.json(words))
    note = f"\n{left_out} groups with fewer than {most} runs left out; --min-runs 0 shows all\n"
    assert note in invoke(words).out


def test_filtered_report_has_only_runs_and_sessions_that_match(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    arguments: dict[str, pd.DataFrame] = {}
    monkeypatch.setattr(
        qd, "write_report", lambda frame, _path, **options: arguments.update(options, deployments=frame)
    )
    agent = qd.load_deployments()["agent_id"].iloc[0]
    invoke("report r.html --runs --costs --since all --start 2026-06-15T01:30:20Z --agent", agent)
    ids, sessions = set(arguments["deployments"]["id"]), qd.load_sessions(since="2026-03-17T01:30:20Z")
    for name, frame in (("runs", qd.load_runs()), ("sessions", sessions)):
        assert set(arguments[name]["id"]) == set(frame["id"][frame["deployment_id"].isin(ids)])
        assert 0 < len(arguments[name]) < len(frame)


def test_streaks_with_since_mention_since_all(invoke: Invoke) -> None:
    since = "--since 2026-05-01T00:00Z"
    for words, is_shown in ((f"--streaks {since}", True), ("--streaks --since all", False), (since, False)):
        assert ("--since all counts them" in invoke(f"runs {words}").out) is is_shown


def test_streaks_say_how_many_fail_now(invoke: Invoke) -> None:
    words = "runs --streaks --since all"
    streaks = [row["current_streak"] for row in invoke.json(words)]
    failing = sum(streak > 0 for streak in streaks)
    assert 0 < failing < len(streaks)
    assert f"failing now: {failing} of {len(streaks)} rows\n" in invoke(words, "--top", "1").out
    since = [row["current_streak_since"] for row in invoke.json(words, "--tz", "Asia/Tokyo")]
    assert [time is None for time in since] == [streak == 0 for streak in streaks]


def test_streaks_by_agent_are_those_of_the_agents(invoke: Invoke) -> None:
    found = invoke.json("runs --streaks --since all --by agent")
    expected = qd.failure_streaks(qd.load_runs(), by="agent_id")
    assert [row["agent_id"] for row in found] == expected.index.to_list()
    assert [row["longest_streak"] for row in found] == expected["longest_streak"].to_list()


@pytest.mark.parametrize(("min_runs", "code"), [(5, 1), (6, 0)])
def test_min_runs_counts_runs_that_completed_or_failed(
    min_runs: int, code: int, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    runs = (
        qd.load_runs().head(10).assign(status=["completed", *["failed"] * 4, *["skipped"] * 3, *["running"] * 2])
    )
    monkeypatch.setattr(qd, "load_runs", lambda **_: runs)
    invoke(f"runs --fail-over 0.1 --min-runs {min_runs}", code=code)


FAILED_SINCE_MAY = "runs --failed --since 2026-05-01T00:00Z"


def test_failed_lists_failed_runs_newest_first(sandbox: Sandbox, invoke: Invoke) -> None:
    found = invoke.json(FAILED_SINCE_MAY)
    since_may = [one for one in sandbox.runs if one["triggered_at"] >= "2026-05-01"]
    expected = sorted(one["id"] for one in since_may if one["status"] == "failed")
    assert sorted(one["id"] for one in found) == expected
    assert len(expected) > 10
    names = {one["id"]: one["name"] for one in sandbox.deployments}
    assert [one["name"] for one in found] == [names[one["deployment_id"]] for one in found]
    created = [one["created_at"] for one in found]
    assert created == sorted(created, reverse=True)


@pytest.mark.filterwarnings("ignore:no run is in the time asked for")
def test_failed_per_occurrence_leaves_out_failures_that_were_retried(invoke: Invoke) -> None:
    listed, left = invoke.json(FAILED_SINCE_MAY), invoke.json(f"{FAILED_SINCE_MAY} --per occurrence")
    runs = qd.load_runs(since="2026-05-01T00:00Z")
    assert 0 < len(left) == qd.run_failure_rates(runs, by=None, per="occurrence")["failed"].item() < len(listed)
    retried = {one["id"] for one in listed} - {one["id"] for one in left}
    last_retries = runs[runs["trigger_type"].eq("retry")].groupby("deployment_id")["created_at"].max()
    runs = runs[runs["id"].isin(retried)].set_index("deployment_id")
    assert last_retries.reindex(runs.index).gt(runs["created_at"]).all()
    text = invoke(f"{FAILED_SINCE_MAY} --per occurrence").out
    assert "\nof a run and its retries, only the last one counts\n" in text
    empty = invoke("runs --failed --per occurrence --since 2000-01-01T00:00Z --until 2000-01-02T00:00Z").out
    assert empty.startswith("there are no runs triggered ")


@pytest.mark.parametrize("view", ["--failed", "--waiting"])
def test_by_adds_columns_to_a_list_of_runs(view: str, edition_d: Sandbox, invoke: Invoke) -> None:
    words = f"runs {view} --since all --outcomes events --base-url {edition_d.base_url}"
    records = {one["id"]: one for one in edition_d.deployments}
    plain, found = invoke.json(words), invoke.json(f"{words} --by agent --by team")
    assert [one["id"] for one in found] == [one["id"] for one in plain]
    for one in found:
        record = records[one["deployment_id"]]
        assert (one["name"], one["metadata_team"]) == (record["name"], record["metadata"].get("team"))
    heading = invoke(f"{words} --by agent --by team").out.splitlines()[0]
    assert re.match(r"triggered +agent +agent_id +team +deployment +deployment_id +", heading)


@pytest.mark.parametrize(("width", "has_ids"), [("80", False), ("200", True)])
def test_table_of_failed_runs_has_ids_only_on_a_wide_terminal(
    width: str, monkeypatch: pytest.MonkeyPatch, invoke: Invoke, *, has_ids: bool
) -> None:
    found = invoke.json(FAILED_SINCE_MAY)[:8]
    monkeypatch.setenv("COLUMNS", width)
    lines = invoke(f"{FAILED_SINCE_MAY} --top 8").out.splitlines()[2:10]
    assert [line[:16] for line in lines] == [one["triggered_at"][:16].replace("T", " ") for one in found]
    for line, one in zip(lines, found, strict=True):
        assert (one["error_type"] or "–") in line
        assert (one["id"] in line) is has_ids


def test_table_of_waiting_runs_has_their_sessions_in_80_columns(
    edition_d: Sandbox, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    """A person who wants to answer needs the session."""
    words = f"runs --waiting --since all --outcomes events --base-url {edition_d.base_url}"
    found = invoke.json(words)
    monkeypatch.setenv("COLUMNS", "80")
    lines = invoke(words).out.splitlines()[2 : 2 + len(found)]
    assert found
    assert all(one["session_id"] in line for line, one in zip(lines, found, strict=True))


def test_unusual_uses_the_fetch_time_as_default_of_now(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    runs, original, recorded = qd.load_runs(), qd.unusual_runs, {}
    runs.attrs["fetched_at"] = "2026-06-15T01:30:00+00:00"

    def recording_unusual_runs(*frames: Any, **options: Any) -> Any:  # noqa: ANN401
        recorded.update(options)
        return original(*frames, **options)

    monkeypatch.setattr(qd, "load_runs", lambda **_: runs)
    monkeypatch.setattr(qd, "unusual_runs", recording_unusual_runs)
    for words, expected in (
        ("unusual", "2026-06-15T01:30Z"),
        ("unusual --now 2026-06-16T00:00Z", "2026-06-16T00:00Z"),
    ):
        invoke(words)
        assert recorded["now"] == pd.Timestamp(expected)


def test_events_accepts_a_run_id_or_a_session_id(invoke: Invoke) -> None:
    runs = qd.load_runs()
    run = runs[(runs["status"] == "failed") & runs["session_id"].notna()].iloc[0]
    run_id, session_id = str(run["id"]), str(run["session_id"])
    outputs = [invoke("events", either).out for either in (run_id, session_id)]
    assert outputs[0] == outputs[1]
    heading, _, *rows = outputs[0].splitlines()
    assert heading.split() == ["#", "time", "type", "what"]
    assert len(rows) == len(qd.load_events(session_id))
    assert {row["type"] for row in invoke.json("events", run_id, "--type", "session.error")} == {"session.error"}


@pytest.mark.filterwarnings("default:.* completed runs are assumed")
@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize("edition", EDITIONS)
def test_events_of_a_deployment_are_those_of_its_newest_run(edition: str, invoke: Invoke) -> None:
    with Sandbox(deployments=15, seed=7, runs=200, edition=edition, now=datetime.now(UTC)) as account:
        service = ["--since", "all", "--base-url", account.base_url]
        outcomes = account.outcomes if edition >= "D" else account.runs
        without_session = shared = 0
        for deployment, key in zip(account.deployments, itertools.cycle(["name", "id"]), strict=False):
            own = [run for run in outcomes if run["deployment_id"] == deployment["id"]]
            failed = [run for run in own if run["status"] == "failed"]
            for runs, options in ((own, []), (failed, ["--failed", "--outcomes", "events"])):
                if not runs:
                    continue
                newest, words = runs[0], ["events", "--json", *options, *service]
                found = invoke(*words, "--deployment", deployment[key])
                first, *others = found.err.splitlines()
                time = newest["triggered_at"][:16].replace("T", " ")
                assert first.startswith(f"qoderdata: run {newest['id']}, triggered {time} UTC")
                if options:
                    assert first.endswith(", failed")
                session_id = newest.get("session_id")
                without_session += not session_id
                says_why = any(line.startswith(f"qoderdata: run {newest['id']} has no session") for line in others)
                assert says_why is not bool(session_id)
                is_shared = bool(session_id) and [run.get("session_id") for run in own].count(session_id) > 1
                assert any("its session served other runs too" in line for line in others) is is_shared
                shared += is_shared
                events = account.events(session_id) if session_id else []
                assert [row["id"] for row in json.loads(found.out)] == [event["id"] for event in events]
        assert without_session
        assert bool(shared) is (edition < "D")


@pytest.mark.filterwarnings("default:.* completed runs are assumed")
@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize("edition", "AD")
def test_events_of_a_deployment_without_such_a_run_say_so(edition: str, invoke: Invoke) -> None:
    with Sandbox(deployments=3, runs=0, edition=edition, now=datetime.now(UTC)) as account:
        deployment = account.deployments[0]
        words = ["events", "--deployment", deployment["name"], "--base-url", account.base_url, "--refresh"]
        period = f"of {re.escape(deployment['name'])} triggered since .* UTC; --since all reads older ones"
        printed = invoke(*words)
        assert printed.out == ""
        assert re.fullmatch(f"qoderdata: there are no runs {period}\n", printed.err)
        account.create_runs(2, deployment_id=deployment["id"])
        message = invoke(*words, "--failed", "--outcomes", "runs").err
        none = "no run is known to have failed" if edition >= "D" else "no run failed"
        assert re.search(f"qoderdata: {none}; runs {period}\n", message)
        unknown = "qoderdata: the outcome of 2 of 2 runs is not known; --outcomes events reads how they ended\n"
        assert (unknown in message) is (edition >= "D")
        assert "--since all reads" not in invoke(*words, "--failed", "--since", "all", "--outcomes", "runs").err
        assert invoke.json(*words, "--failed") == []


@pytest.mark.filterwarnings("default:.* completed runs are assumed")
@pytest.mark.usefixtures("empty_cache")
def test_events_of_a_shared_name_say_of_which_deployment_the_run_is(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    with Sandbox(deployments=15, runs=200, edition="D", now=datetime.now(UTC)) as account:
        service = ["--since", "all", "--base-url", account.base_url]
        client = qd.Client(pat=account.pat, base_url=account.base_url)
        df, newest = qd.load_deployments(client=client), account.outcomes[0]
        assert df["id"].eq(newest["deployment_id"]).any()
        df["name"] = "the same"
        monkeypatch.setattr(qd, "load_deployments", lambda **_: df)
        message = invoke("events", "--deployment", "the same", *service).err
        assert f"qoderdata: run {newest['id']} of {newest['deployment_id']}, triggered " in message
        assert f"{len(df)} deployments with this id or name are included" in message


@pytest.mark.usefixtures("empty_cache")
def test_events_of_a_failed_run_are_described_by_all_runs_of_the_name(invoke: Invoke) -> None:
    """Only one of two deployments of the same name failed, in a session that a run of the other one used too."""
    with Sandbox(deployments=5, runs=0, edition="C", now=datetime.now(UTC)) as account:
        first, second = account.deployments[:2]
        for one in (first, second):
            account.rewrite({**one, "name": "the same"})
        (failed,) = account.create_runs(1, status="failed", deployment_id=first["id"])
        (other,) = account.create_runs(1, deployment_id=second["id"])
        account.rewrite({**other, "session_id": failed["session_id"]})
        words = ["events", "--failed", "--deployment", "the same", "--base-url", account.base_url]
        *_, run, note = invoke(*words).err.splitlines()
    assert run.startswith(f"qoderdata: run {failed['id']} of {first['id']}, triggered ")
    assert note == "qoderdata: its session served other runs too, whose events are shown as well"


@pytest.mark.usefixtures("empty_cache")
def test_events_of_a_run_whose_session_was_deleted_say_so(invoke: Invoke) -> None:
    with Sandbox(deployments=3, runs=30, edition="C", now=datetime.now(UTC)) as account:
        newest = {run["deployment_id"]: run for run in reversed(account.runs)}.values()
        run = next(run for run in newest if run.get("session_id"))
        words = ["--base-url", account.base_url]
        account.delete_session(run["session_id"])
        message = f"qoderdata: the service no longer has session {run['session_id']} of this run\n"
        printed = invoke("events", run["id"], *words)
        assert (printed.out, printed.err) == ("", message)
        assert message in invoke("events --since all --deployment", run["deployment_id"], *words).err
        assert "was not found" in invoke("events", run["session_id"], *words, code=4).err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "give the id of a run or session, or --deployment"),
        ("dep_1", "'dep_1' is a deployment; write --deployment dep_1"),
        ("drun_1 --deployment dep_1", "give the id of a run or session, or --deployment, not both"),
        ("drun_1 --failed", "--failed has no effect without --deployment"),
        ("sess_1 --since 1D", "--since has no effect without --deployment"),
        ("sess_1 --until 1D", "--until has no effect without --deployment"),
        ("sess_1 --outcomes runs", "--outcomes has no effect without --deployment"),
        ("sess_1 --cache-dir x", "--cache-dir has no effect without --deployment"),
        ("sess_1 --max-age 1D", "--max-age has no effect without --deployment"),
        ("sess_1 --refresh", "--refresh has no effect without --deployment"),
        ("sess_1 --refresh-all", "--refresh-all has no effect without --deployment"),
        ("--deployment dep_1 --outcomes events", "--outcomes has no effect without --failed"),
    ],
)
def test_options_without_effect_on_events_are_refused(
    words: str, message: str, sandbox: Sandbox, invoke: Invoke
) -> None:
    sandbox.requests.clear()
    assert f"qoderdata: {message}; see `qoderdata events --help`\n" in invoke(f"events {words}", code=2).err
    assert sandbox.requests == []


def test_events_of_a_name_say_that_it_is_no_run(sandbox: Sandbox, invoke: Invoke) -> None:
    name = sandbox.deployments[0]["name"]
    message = invoke("events", name, code=4).err
    assert f"no run has the id {name}, so it may be a session's; for a deployment, write --deployment\n" in message
    assert "no run has" not in invoke("events drun_0", code=4).err
    near = invoke("events", "--deployment", f"{name}x", code=2).err
    assert f"--deployment {name + 'x'!r}: no deployment has this id or name; did you mean {name!r}" in near


def test_advice_names_no_option_that_events_lacks(invoke: Invoke) -> None:
    """Events are not stored."""
    message = invoke("events --deployment dep_1 --refresh --base-url http://127.0.0.1:9", code=5).err
    assert "127.0.0.1:9" in message
    assert "--offline" not in message


def serve_events(service: ScriptedService, events: list[dict[str, Any]]) -> None:
    """Let the service return these events as one page."""
    ends = {"first_id": events[0]["id"], "last_id": events[-1]["id"], "has_more": False, "next_page": None}
    service.respond_with(service.response(body=json.dumps({"data": events, **ends}).encode()))


def test_events_table_shows_the_last_40_events(service: ScriptedService, invoke: Invoke) -> None:
    error = {"type": "tool_error", "message": "gone"}
    events: list[dict[str, Any]] = [{"id": f"evt_{number}", "type": "agent.tool_use"} for number in range(55)]
    events += [
        {"id": "evt_55", "type": "agent.tool_use", "name": "bash", "content": [{"type": "text", "text": "ls\n/"}]},
        {"id": "evt_56", "type": "session.status_idle", "stop_reason": {"type": "end_turn"}, "content": "done"},
        {"id": "evt_57", "type": "span.model_request_end", "model_usage": {"credits": 1.5}},
        {"id": "evt_58", "type": "session.error", "error": {**error, "retry_status": {"type": "retrying"}}},
        {"id": "evt_59", "type": "session.error", "error": error},
    ]
    serve_events(service, events)
    words = f"events sess_1 --base-url {service.base_url}"
    text = invoke(words).out
    rows = text.splitlines()[2:42]
    assert [row.split()[0] for row in rows] == [str(number) for number in range(20, 60)]
    said = ["bash · ls /", "end_turn · done", "1.5 credits", "tool_error: gone (retrying)", "tool_error: gone"]
    assert [re.split(" {2,}", row)[-1] for row in rows[-5:]] == said
    assert "not shown: 20 earlier rows; --top shows more" in text
    assert [row["position"] for row in invoke.json(words, "--top", "2")] == [58, 59]
    assert len(invoke.json(words)) == 60


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"tool_name": "bash", "content": None}, "bash"),
        ({"name": {"first": "x"}, "tool_name": 7, "content": [{"text": ["x"]}, 7, "ls"]}, "ls"),
        ({"model_usage": {"credits": 0}}, "0 credits"),
        ({}, "–"),
    ],
)
def test_an_event_is_described_by_the_texts_and_numbers_that_it_has(
    event: dict[str, Any], said: str, service: ScriptedService, invoke: Invoke
) -> None:
    serve_events(service, [{"id": "evt_1", "type": "x", "processed_at": "2026-06-15T01:30:20Z", **event}])
    row = invoke("events sess_1 --tz Asia/Tokyo --base-url", service.base_url).out.splitlines()[2]
    assert re.split(" {2,}", row) == ["0", "2026-06-15 10:30:20 +09:00", "x", said]


def test_long_event_types_are_truncated(
    service: ScriptedService, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    events = [{"id": "evt_1", "type": "session.status_rescheduled"}, {"id": "evt_2", "type": "x\n" * 500}]
    serve_events(service, events)
    text = invoke("events sess_1 --base-url", service.base_url).out
    assert "session.status_rescheduled" in text
    assert len(text.splitlines()) == 4
    assert max(map(width, text.splitlines())) <= 80


def test_secrets_in_events_are_masked(service: ScriptedService, invoke: Invoke) -> None:
    event = {"id": "evt_1", "type": "session.updated", "environment_variables": {"KEY": "s3cret"}}
    serve_events(service, [event])
    for form in ([], ["--json"], ["--csv"], ["--markdown"]):
        text = invoke("events sess_1 --base-url", service.base_url, *form).out
        assert "session.updated" in text
        assert "s3cret" not in text


def test_events_of_a_run_without_session_prints_the_error_of_the_run(
    service: ScriptedService, invoke: Invoke
) -> None:
    run = {"id": "drun_1", "session_id": None, "error": {"type": "agent_archived_error", "message": "gone\x1b[2J"}}
    service.respond_with(*[service.response(body=json.dumps(run).encode())] * 3)
    header = ",".join(f'"{name}"' for name in qd.flatten_events([], "sess_1").columns)
    for form, nothing in (([], ""), (["--json"], "[]\n"), (["--csv"], f"{header}\n")):
        captured = invoke("events drun_1 --base-url", service.base_url, *form)
        assert captured.err == "qoderdata: run drun_1 has no session: agent_archived_error: gone�[2J\n"
        assert captured.out.replace("\r\n", "\n").lstrip("\ufeff") == nothing


@pytest.mark.parametrize(
    ("facts", "reason"), [({}, " yet"), ({"status": "pending"}, " yet"), ({"status": "skipped"}, ": skipped")]
)
def test_events_of_a_run_that_has_not_started_say_so(
    facts: dict[str, str], reason: str, service: ScriptedService, invoke: Invoke
) -> None:
    service.respond_with(service.response(body=json.dumps({"id": "drun_1", **facts}).encode()))
    err = invoke("events drun_1 --base-url", service.base_url).err
    assert err == f"qoderdata: run drun_1 has no session{reason}\n"


@pytest.mark.usefixtures("empty_cache")
def test_cache_shows_usage_and_clears_it(invoke: Invoke) -> None:
    pulled = invoke("pull deployments").out
    assert re.fullmatch(r"\d+ deployments from the service in \d+ requests?, without archived ones\n", pulled)
    invoke("pull runs")
    usage = invoke.json("cache")
    assert usage["queries"]["files"] == 1
    assert usage["runs"]["bytes"] > 0
    size = f"{usage['runs']['bytes'] / 1024:.1f} KiB"
    assert re.search(rf"^  runs +\d+ files +{re.escape(size)}$", invoke("cache").out, re.MULTILINE)
    files = sum(kept["files"] for kept in usage.values() if isinstance(kept, dict))
    assert invoke("cache clear").out == f"{files} files removed: cached answers, stores and snapshots\n"
    assert invoke.json("cache clear") == {"removed": 0}
    assert usage["location"] in invoke("cache show").out
    kept = {name: size for name, size in qd.cache_usage().items() if name != "location"}
    assert list(kept.values()) == [{"files": 0, "bytes": 0}] * len(kept)
    assert re.search(r"^  runs +0 files +0 B$", invoke("cache").out, re.MULTILINE)


@pytest.mark.usefixtures("empty_cache")
def test_cache_of_another_folder_is_shown_and_cleared_alone(tmp_path: Path, invoke: Invoke) -> None:
    other = str(tmp_path / "other")
    invoke("pull agents")
    before = invoke.json("cache")
    invoke("pull agents --cache-dir", other)
    shown = invoke.json("cache --cache-dir", other)
    assert (shown["location"], shown["queries"]) == (other, before["queries"])
    removed = sum(kept["files"] for kept in shown.values() if isinstance(kept, dict))
    assert invoke.json("cache clear --cache-dir", other) == {"removed": removed}
    assert invoke.json("cache") == before


@pytest.mark.usefixtures("clean_memory")
def test_cache_of_an_object_store_is_shown(invoke: Invoke) -> None:
    assert invoke("cache --cache-dir memory://cache").out.startswith("memory://cache\n  queries ")


@pytest.mark.parametrize("action", ["show", "clear"])
def test_cache_says_that_there_is_no_such_folder(action: str, tmp_path: Path, invoke: Invoke) -> None:
    text = invoke("cache", action, "--cache-dir", str(tmp_path / "none")).out
    assert text == f"nothing is stored: there is no folder {str(tmp_path / 'none')!r}\n"
    facts = invoke.json("cache", action, "--cache-dir", str(tmp_path / "none"))
    assert facts == ({"removed": 0} if action == "clear" else qd.cache_usage(tmp_path / "none"))
    (tmp_path / "file").touch()
    message = invoke("cache", action, "--cache-dir", str(tmp_path / "file"), code=2).err
    assert "is a file, not the folder of a cache" in message
    message = invoke("demo --out", str(tmp_path / "file" / "below"), code=2).err
    assert "can be made (Not a directory); give another --out" in message


@pytest.fixture(scope="module")
def served_edition_d() -> Iterator[Sandbox]:
    """Serve a sandbox of edition D, which gives neither counters nor outcomes."""
    with Sandbox(deployments=20, seed=7, runs=100, edition="D") as served:
        yield served


@pytest.fixture
def edition_d(served_edition_d: Sandbox, empty_cache: None, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """Set the environment to the sandbox of edition D and an empty cache."""
    del empty_cache  # needed only for its effect
    monkeypatch.setenv(URL_VARIABLE, served_edition_d.base_url)
    return served_edition_d


@pytest.mark.usefixtures("edition_d")
@pytest.mark.parametrize(
    ("words", "notes"),
    [
        ("runs --since all --outcomes events --by attempt --by agent", ["--by attempt: no run has a value"]),
        ("deployments --by stats_total_runs --by status", ["--by stats_total_runs: no deployment has a value"]),
        (
            "unusual --since all --outcomes runs --by stats_total_runs",
            ["--by stats_total_runs: no deployment has a value"],
        ),
        ("costs --by agent --by team", []),
    ],
)
def test_a_note_says_that_no_row_has_a_value(words: str, notes: list[str], invoke: Invoke) -> None:
    assert re.findall(r"^qoderdata: (--by .*)$", invoke(words).err, re.MULTILINE) == notes


@pytest.mark.filterwarnings("default:.* completed runs are assumed")
@pytest.mark.filterwarnings("default:the outcome of")
@pytest.mark.usefixtures("edition_d")
def test_run_of_unknown_outcome_ends_a_streak(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    runs = qd.load_runs(outcomes="events").sort_values(["triggered_at", "created_at", "id"])
    back = runs.groupby("deployment_id").cumcount(ascending=False)
    runs["status"] = runs["status"].mask(back.isin([0, 2]), "failed").mask(back == 1)
    found: list[pd.DataFrame] = []
    monkeypatch.setattr(qd, "write_report", lambda frame, _path, **_: found.append(frame))
    monkeypatch.setattr(qd, "load_runs", lambda **_: runs)
    invoke("report report.html")
    shown = found[0]["stats_consecutive_failures"]
    assert shown.tolist() == found[0]["id"].isin(runs["deployment_id"]).astype(int).tolist()
    assert set(shown) == {0, 1}
    failures = invoke.json("failures --min-runs 0 --include-archived")
    assert {row["id"]: row["consecutive_failures"] for row in failures} == dict(
        zip(found[0]["id"], shown, strict=True)
    )
    assert runs["deployment_id"].value_counts().max() > 2


@pytest.mark.filterwarnings("default:.* completed runs are assumed")
@pytest.mark.usefixtures("edition_d")
def test_lists_and_tables_work_on_edition_d(invoke: Invoke) -> None:
    for words in ("sessions", "agents", "environments"):
        invoke("pull", words)
    for words in ("failures", "missed --since 2026-06-01T00:00Z", "triggers --start 2026-06-15T01:30:20Z"):
        assert "─" in invoke(words).out


@pytest.mark.filterwarnings("default:.* completed runs are assumed")
@pytest.mark.usefixtures("edition_d")
def test_assumed_outcomes_on_edition_d_are_reported_once(invoke: Invoke) -> None:
    captured = invoke("runs --since all")
    assert "assumed completed" in captured.out
    assert (captured.out + captured.err).count("completed runs are assumed") == 1
    assert "--outcomes events reads" in captured.err
    assert "load_runs(" not in captured.err
    words = "report report.html --runs --start 2026-06-15T01:30:20Z --since 7D"
    assert invoke(words).err.count("completed runs are assumed") == 1
    assert "completed runs is not known; --outcomes events reads it" in invoke("unusual --since all").out


@pytest.mark.filterwarnings("default:.* completed runs are assumed")
def test_outcomes_events_on_edition_d_gives_the_true_outcomes(edition_d: Sandbox, invoke: Invoke) -> None:
    (row,) = invoke.json("runs --since all --outcomes events")
    truth = [outcome["status"] for outcome in edition_d.outcomes]
    assert (row["runs"], row["failed"]) == (100, truth.count("failed"))
    rows = invoke.json("failures --min-runs 0 --outcomes events --include-archived")
    assert sum(row["total_failures"] for row in rows) == truth.count("failed")
    assert "--outcomes" not in invoke("unusual --since all").out


@pytest.mark.filterwarnings("default:.* completed runs are assumed")
@pytest.mark.usefixtures("edition_d")
@pytest.mark.parametrize("words", ["runs --failed", "runs --errors", "errors", "errors --new", "unusual"])
def test_lists_on_edition_d_say_how_many_outcomes_are_not_known(words: str, invoke: Invoke) -> None:
    runs = qd.load_runs(outcomes="runs")
    unknown = int(runs["status"].isna().sum())
    text = invoke(f"{words} --since all --outcomes runs").unwrapped
    note = f"the outcome of {unknown} of {len(runs)} runs is not known; --outcomes events reads how they ended"
    assert note in text
    assert "reads how they ended" not in invoke(f"{words} --since all").unwrapped


@pytest.mark.filterwarnings("default:of all loaded runs")
@pytest.mark.usefixtures("empty_cache")
def test_advice_to_read_events_is_omitted_after_sessions_were_read(invoke: Invoke) -> None:
    with Sandbox(deployments=3, runs=0, edition="D", now=datetime.now(UTC)) as account:
        first, _ = account.create_runs(2)
        account.delete_session(first["session_id"])
        text = invoke("runs --failed --base-url", account.base_url).unwrapped
    assert text.startswith("no run is known to have failed; ")
    assert text.endswith(
        "; the outcome of 1 of 2 runs is not known; assumed: 1 of 1 completed run; failures inside their sessions "
        "are not seen; --outcomes events reads them"
    )


@pytest.mark.usefixtures("edition_d")
@pytest.mark.parametrize("words", ["runs --failed", "runs --errors", "errors"])
def test_no_run_failed_is_not_said_of_unknown_outcomes(words: str, invoke: Invoke) -> None:
    runs = qd.load_runs(outcomes="runs")
    known = runs["triggered_at"][runs["status"].notna()].max()
    after = [f"--since={(known + pd.Timedelta('1s')).isoformat()}", "--outcomes", "runs"]
    assert invoke(words, *after).out.startswith("no run is known to have failed; ")


@pytest.mark.parametrize(("edition", "source"), [("D", "events"), ("C", "service")])
def test_demo_writes_the_files_that_it_lists(
    edition: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    """On edition D, counters are computed from runs, and outcomes come from events."""
    # `test_installs` runs the demo with its plots, which take longest.
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda _, path, **__: path.touch())
    out = tmp_path / "new" / "out"
    if edition == "C":
        out.mkdir(parents=True)
    started: list[Sandbox] = []

    def start(self: Sandbox) -> Sandbox:
        started.append(self)
        return self.start()

    monkeypatch.setattr(Sandbox, "__enter__", start)
    text = invoke("demo --out new/out --deployments 12 --runs 60 --edition", edition).out
    assert f" agents pulled in {len(started[0].requests):,} requests and " in text
    assert ("Who fails most, by lifetime counters (" in text) is (edition == "C")
    assert len(text.split("\n\n")[3].splitlines()) == 2 + 8  # the heading, a rule, and the first 8 rows
    written = {
        Path(line.strip()).name for line in text.split("Written:\n")[1].splitlines() if line.startswith("  ")
    }
    assert written == {path.name for path in out.iterdir() if path.is_file()}
    assert written >= {
        "deployments.parquet",
        "deployments.csv",
        "runs.parquet",
        "report.html",
        "failure-rates.png",
    }
    assert len(pd.read_parquet(out / "deployments.parquet")) == 12
    runs = pd.read_parquet(out / "runs.parquet")
    assert len(runs) == 60
    assert source in set(runs["status_from"])
    assert re.search(r"^name +id +runs +failed +rate", text, re.MULTILINE)
    assert "Costs and forecast" in (out / "report.html").read_text(encoding="utf-8")
    assert text.endswith(f"\nOpen {Path('new') / 'out' / 'report.html'} in a browser.\n")


def test_short_option_h_shows_the_help() -> None:
    """Runs in a new process, as click caches the help option of a command from its first use."""
    commands_ = [[*words, "-h"] for words in ((), ("pull",), *LEAF_COMMANDS)]
    program = f"from qoderdata.cli import main\nfor words in {commands_}: main(words) and print(words)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout.count("-h, --help"), done.stderr) == (len(commands_), "")


@pytest.mark.filterwarnings("default:the outcome of")
@pytest.mark.usefixtures("empty_cache")
def test_number_of_deployments_without_known_outcome_is_printed(invoke: Invoke) -> None:
    with Sandbox(deployments=30, seed=7, edition="D") as edition_d:
        words = "failures --outcomes runs --min-runs 0 --base-url"
        text = invoke(words, edition_d.base_url).out
        with_error = {one["deployment_id"] for one in edition_d.runs if one.get("error")}
        with_runs = {one["deployment_id"] for one in edition_d.runs}
        left_out = sum(
            one["id"] in with_runs - with_error for one in edition_d.deployments if one["archived_at"] is None
        )
    assert left_out > 1
    assert f"{left_out} deployments without a known outcome left out" in text


@pytest.mark.filterwarnings("default:.* completed runs are assumed")
@pytest.mark.usefixtures("empty_cache")
def test_note_about_assumed_runs_names_the_deployments_and_the_warning_is_of_all_loaded_runs(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    with Sandbox(deployments=30, seed=7, edition="D") as edition_d:
        monkeypatch.setenv(URL_VARIABLE, edition_d.base_url)
        captured = invoke("failures")
        shown = set(qd.load_deployments()["id"])
        runs = qd.load_runs(outcomes="sessions")
    own = runs[runs["deployment_id"].isin(shown)]
    assumed, all_assumed = (
        (some["status"].eq("completed") & some["status_from"].eq("session")).sum() for some in (own, runs)
    )
    assert 0 < assumed < all_assumed
    note = f"of all loaded runs, {len(own)} are of these deployments: {assumed} completed by assumption, and the"
    assert note in captured.unwrapped
    all_completed = runs["status"].eq("completed").sum()
    assert f"of all loaded runs, {all_assumed} of {all_completed} completed runs are assumed" in captured.err


@pytest.mark.parametrize(("assumed", "unknown"), [(0, 0), (1, 0), (0, 1)])
def test_runs_that_are_assumed_or_unknown_are_counted_in_a_note(assumed: int, unknown: int) -> None:
    df = qd.flatten_deployments([])
    df.attrs |= {"counted_runs": 1, "counted_assumed": assumed, "counted_unknown": unknown}
    notes = importlib.import_module("qoderdata.cli.failures")._notes_on_counters(df, "UTC")
    text = (
        f"of all loaded runs, 1 is of these deployments: {assumed} completed by assumption, and the outcome of "
        f"{unknown} is unknown"
    )
    assert notes == ([text] if assumed or unknown else [])


@pytest.mark.usefixtures("empty_cache")
def test_missed_reads_no_sessions(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    """Sessions would take time to read, and cron would mail a warning about assumed outcomes."""
    with Sandbox(deployments=30, seed=7, edition="D", left_out=6) as edition_d:
        monkeypatch.setenv(URL_VARIABLE, edition_d.base_url)
        window: dict[str, Any] = {"since": "2026-05-15T00:00Z", "until": "2026-06-15T00:00Z"}
        words = [word for name, bound in window.items() for word in (f"--{name}", bound)]
        captured = invoke("missed", *words, "--json")
        assert {request.path for request in edition_d.requests} == {"/deployments", "/deployment_runs"}
        assert invoke("missed", *words, "--json").out == captured.out, "with the snapshot of the first call"
        deployments = qd.load_deployments(include_archived=True)
        snapshots = qd.load_snapshots(include_archived=True)
        runs = qd.load_runs(**window, outcomes="sessions")
    expected = qd.missed_triggers(deployments, runs, **window, snapshots=snapshots)
    assert captured.err == ""
    found = [(row["deployment_id"], pd.Timestamp(row["scheduled_at"])) for row in json.loads(captured.out)]
    assert found == list(zip(expected["deployment_id"], expected["scheduled_at"], strict=True))
    assert found


def test_account_without_deployments_is_not_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, invoke: Invoke
) -> None:
    # Standard error says that none passes the filters.
    assert invoke("failures --by team --created-since 2036-01-01T00:00Z").out == ""
    with Sandbox(deployments=0, runs=0) as empty:
        monkeypatch.setenv(URL_VARIABLE, empty.base_url)
        monkeypatch.setenv("QODERDATA_CACHE_DIR", str(tmp_path / "cache"))
        for words in ("deployments --include-archived", "missed --since 2h", "triggers"):
            assert invoke(words).out == "there are no deployments\n"
        for words in ("deployments", "failures --by team"):
            text = "there are no deployments; archived ones are left out (--include-archived)\n"
            assert invoke(words).out == text
        assert invoke("runs --by team").out.startswith("there are no runs triggered since ")
        invoke("costs --by team")
        invoke("errors --by team")
        assert invoke("check").out == "nothing to check, as there are no deployments\n"


def test_objects_are_frozen_at_exit() -> None:
    code = """
import atexit, gc
atexit.register(lambda: print(gc.get_freeze_count() > 10_000))
from qoderdata.cli import main
main(["--version"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["True"]


def test_failures_of_deployments_without_runs_say_that_none_was_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, invoke: Invoke
) -> None:
    with Sandbox(deployments=5, runs=0, edition="D") as served:
        monkeypatch.setenv(URL_VARIABLE, served.base_url)
        monkeypatch.setenv("QODERDATA_CACHE_DIR", str(tmp_path / "cache"))
        assert invoke("failures").out == "no run has been counted\n"
        assert invoke("failures --min-runs 5000").out == "no group has 5,000 runs\n"
