"""Tests of the output of commands: table layout, escaping of hostile text, CSV and JSON, and messages."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import mistune
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

import qoderdata as qd
from qoderdata.cli import output
from qoderdata.cli.output import Output, TableColumn
from qoderdata.formatting import MISSING, format_count, format_milliseconds, format_percent, one_line
from qoderdata.sandbox import Sandbox
from tests.test_client_errors import error_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Invoke, ScriptedService

pytestmark = pytest.mark.usefixtures("shared_account")

HOSTILE = "evil\n\x1b[31m| [red]name[/red] \x07\x9b2J\u202egnp.exe http://evil.example/?a|b www.evil.example"
NOW = "2026-06-15T01:30:20Z"
SINCE = "--since 2026-05-01T00:00Z"
#: An id of the service: a prefix and a long hexadecimal number.
ID = re.compile(r"\b(?:dep|agent|env|drun|sess)_[0-9a-f]{5,}")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(deployments=40, seed=7, left_out=6) as served:
        served.rewrite(next(one for one in served.deployments if one["archived_at"] is None) | {"name": HOSTILE})
        yield served


@pytest.fixture(scope="module")
def edition_d() -> Iterator[Sandbox]:
    """Serve a sandbox of edition D whose clock is the current time."""
    with Sandbox(deployments=15, seed=7, edition="D", runs=80, now=datetime.now(UTC)) as served:
        yield served


@pytest.fixture(scope="module")
def cache_with_events(edition_d: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache with all runs of the sandbox of edition D, and their outcomes from events."""
    folder = tmp_path_factory.mktemp("cache")
    client = qd.Client(edition_d.pat, edition_d.base_url, min_interval=0)
    qd.load_runs(outcomes="events", client=client, cache_dir=folder)
    return folder


@pytest.fixture
def newest_edition(edition_d: Sandbox, empty_cache: None, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """Set the environment to the sandbox of edition D and an empty cache."""
    del empty_cache  # needed only for its effect
    monkeypatch.setenv("QODER_MANAGED_BASE_URL", edition_d.base_url)
    return edition_d


@pytest.fixture
def newest_edition_with_events(
    newest_edition: Sandbox, cache_with_events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set the environment to the sandbox of edition D and the cache with all events."""
    del newest_edition  # needed only for its effect
    monkeypatch.setenv("QODERDATA_CACHE_DIR", str(cache_with_events))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that makes standard output and standard error a fake terminal of 80 columns."""

    def patch_terminal() -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setenv("TERM", "xterm-256color")

    return patch_terminal


def printed_lines(
    widths: tuple[int, ...], words: str, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> Iterator[tuple[int, list[str]]]:
    """Run a command once, and yield the lines of its result for each terminal width."""
    calls = []
    print_frame = Output.print_frame
    with monkeypatch.context() as patched:
        patched.setattr(Output, "print_frame", lambda *given, **named: calls.append((given, named)))
        invoke(words)
    ((given, named),) = calls
    for width in widths:
        monkeypatch.setenv("COLUMNS", str(width))
        print_frame(*given, **named)
        yield width, invoke.capsys.readouterr().out.splitlines()


# -- tables ------------------------------------------------------------------------------------------------------


TABLES_WITHOUT_NAMES = [f"runs {SINCE}", f"runs {SINCE} --errors", f"triggers --start {NOW} --load 1h"]
TABLES_WITH_NAMES = [
    "deployments",
    "deployments --by team --include-archived --tz Asia/Tokyo",
    "failures",
    "failures --by agent",
    "failures --by agent_id --by status",
    "failures --by deployment --by environment",
    f"runs {SINCE} --by deployment",
    f"runs {SINCE} --by deployment_id --freq 7D --tz Asia/Shanghai",
    f"runs {SINCE} --by agent --freq 14D",
    f"runs {SINCE} --by environment",
    f"runs {SINCE} --streaks --tz Asia/Shanghai",
    f"runs {SINCE} --streaks --by agent_id",
    f"runs {SINCE} --errors --by agent",
    f"runs {SINCE} --failed --tz Asia/Shanghai",
    f"compare --until {NOW}",
    f"compare --until {NOW} --recent 14D --by team --by agent",
    f"errors {SINCE} --by agent",
    f"errors {SINCE} --by deployment",
    f"unusual {SINCE} --now {NOW} --threshold 2",
    f"unusual {SINCE} --now {NOW} --threshold 2 --by owner",
    f"costs {SINCE}",
    f"costs {SINCE} --by agent --freq 14D",
    f"costs {SINCE} --by environment --freq 14D",
    f"compare-costs --until {NOW}",
    f"compare-costs --until {NOW} --recent 7D --baseline 14D --by team --by agent",
    f"forecast {SINCE} --start {NOW}",
    f"triggers --start {NOW} --tz Asia/Shanghai",
    f"triggers --start {NOW} --by team",
    f"missed --since 2026-05-15T00:00Z --until {NOW}",
    f"missed --since 2026-05-15T00:00Z --until {NOW} --by team",
]


@pytest.mark.parametrize("words", [*TABLES_WITH_NAMES, *TABLES_WITHOUT_NAMES])
def test_table_fits_the_terminal_and_prefers_names_to_ids(
    words: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    names = [one["name"] for one in [*sandbox.deployments, *sandbox.agents, *sandbox.environments]]
    has_names = words in TABLES_WITH_NAMES
    for columns, lines in printed_lines((60, 80, 120, 1000), words, monkeypatch, invoke):
        rule = next(index for index, line in enumerate(lines) if set(line) == {"─", " "})
        assert rule in {1, 2}  # below a heading of one or two lines
        assert lines[rule + 1]
        assert max(map(cell_len, lines)) <= columns
        text = "\n".join(lines)
        if columns == 80:
            assert (len({name for name in names if name[:8].strip() in text}) > 1) is has_names
            assert ID.findall(text) == []
        if columns == 1000:
            assert (ID.search(text) is not None) is has_names


#: The columns of tables: each heading with the column of JSON if that has another name, or with a text of several;
#: "?": computed for people.
TABLE_COLUMNS = {
    "failures": (
        "name, id, runs=total_runs, failed=total_failures, rate=failure_rate, 95 % interval=?, "
        "failing in a row=consecutive_failures"
    ),
    "failures --by agent": (
        "agent=name, agent_id, runs=total_runs, failed=total_failures, rate=failure_rate, 95 % interval=?, "
        "most in a row=consecutive_failures"
    ),
    f"runs {SINCE} --freq 7D": (
        "from=window, runs, completed, failed, skipped, unfinished, rate=failure_rate, 95 % interval=?, "
        "median duration=duration_p50_ms, 95th percentile of duration=duration_p95_ms"
    ),
    f"runs {SINCE} --errors": (
        "error=error_type, failed=count, share, first seen in this window=first_seen, last seen=last_seen"
    ),
    f"runs {SINCE} --streaks": (
        "deployment=name, deployment_id, failing in a row=current_streak, failing since=current_streak_since, "
        "longest streak, mean time to repair=mttr_ms"
    ),
    f"runs {SINCE} --failed": (
        "triggered=triggered_at, deployment=name, deployment_id, run=id, error=error_type, took=duration_ms, "
        "message=error_message"
    ),
    f"compare --until {NOW}": (
        "deployment=name, deployment_id, failed={recent_failed}/{recent_decided}, rate=recent_rate, "
        "failed before={baseline_failed}/{baseline_decided}, rate before=baseline_rate, change in points=?, "
        "95 % interval=?, verdict, median duration=recent_p50_ms, median before=baseline_p50_ms"
    ),
    f"errors {SINCE}": (
        "new=is_new, failed=count, error=error_type, message, share, deployments, first seen, last seen, "
        "example=example_run_id"
    ),
    f"unusual {SINCE} --now {NOW} --threshold 2": (
        "triggered=triggered_at, deployment=name, deployment_id, run=run_id, what=kind, status, took=duration_ms, "
        "median=median_ms, timeout=timeout_ms, z score=?"
    ),
    f"costs {SINCE}": (
        "deployment=name, deployment_id, sessions, credits, share, median a session=credits_p50, "
        "95th percentile=credits_p95, highest=credits_max, usage unknown=unknown"
    ),
    f"compare-costs --until {NOW}": (
        "deployment=name, deployment_id, credits=recent_credits, credits before=baseline_credits, change=?, "
        "sessions=recent_sessions, sessions before=baseline_sessions, median a session=recent_credits_p50, "
        "median before=baseline_credits_p50, usage unknown=recent_unknown, unknown before=baseline_unknown"
    ),
    f"forecast {SINCE} --start {NOW}": (
        "name, deployment=deployment_id, triggers, credits expected=expected, 95 % interval=?, "
        "sessions known=sessions, of the budget=budget_use"
    ),
    f"triggers --start {NOW}": (
        "fires at=trigger_at, name, deployment=deployment_id, schedule=schedule_expression, "
        "zone=schedule_timezone, local time=?"
    ),
    f"triggers --start {NOW} --load 1h": "from=window, triggers, deployments, on the hour=at_minute_0",
    f"missed --since 2026-05-15T00:00Z --until {NOW}": (
        "should have fired=scheduled_at, name, deployment=deployment_id, certain, reason"
    ),
    "deployments": "name, deployment=id, state, fires=?, next=next_trigger_at",
    "check": "severity, what=detail, since, deployment=deployment_id",
}


@pytest.mark.filterwarnings("ignore:no run is in the time")
@pytest.mark.parametrize(("words", "columns"), TABLE_COLUMNS.items())
def test_table_has_the_values_of_json(
    words: str, columns: str, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Output, "print_frame", lambda *given, **_: calls.append(given))
    invoke(words, code=None)
    ((_, frame, shown),) = calls
    fields = dict(column.partition("=")[::2] for column in columns.split(", "))
    assert [column.heading for column in shown] == list(fields)
    rows = json.loads(output.json_text(frame))
    cells = output._cells(frame, shown, "UTC")
    for (heading, field), of_column in zip(fields.items(), cells, strict=True):
        for cell, row in zip(of_column, rows, strict=True):
            if "{" in field:
                assert cell.plain == field.format(**row)
            elif field != "?":
                assert cell.plain in forms(row[field or heading.replace(" ", "_")]), heading


def forms(value: str | float | None) -> set[str]:
    """Return the texts that a table may have for a value of JSON."""
    if isinstance(value, bool):
        return {"yes", "new"} if value else {"no", ""}
    if isinstance(value, str):
        return {one_line(value), value.replace("_", " "), f"{value[:10]} {value[11:16]} UTC"}
    if value is None:
        return {MISSING}
    if isinstance(value, int):
        return {f"{value:,}", format_milliseconds(value)}
    credits_ = {f"{number:,.2f}" for number in (value - 1e-9, value + 1e-9)}  # 0.805 may be rounded down
    return {*credits_, format_percent(value), format_milliseconds(value)}


@pytest.mark.parametrize("words", ["runs --since all --freq 1D", "costs --since all --by agent --freq 1D"])
def test_top_keeps_the_newest_windows_in_time_order(words: str, invoke: Invoke) -> None:
    rows = invoke.json(words)
    times = sorted({row["window"] for row in rows})
    groups = len(rows) // len(times)
    assert len(rows) == len(times) * groups > 10 * groups
    top = 3 * groups
    assert invoke.json(words, "--top", str(top)) == [row for row in rows if row["window"] in times[-3:]]
    text = invoke(words, "--top", str(top)).out
    days = re.findall(r"^.*(\d{4}-\d\d-\d\d) 00:00 UTC", text, re.MULTILINE)
    assert days == [time[:10] for time in times[-3:]] * groups
    left = f"{len(rows) - top:,} {'earlier rows' if groups == 1 else 'rows'}"
    assert f"not shown: {left}; --top shows more, --csv and --json without --top give all" in text


@pytest.mark.parametrize(
    ("words", "period"),
    [
        ("runs --since 2026-05-15T00:00Z", "runs triggered since 2026-05-15 00:00 UTC"),
        ("runs --since all --errors", ""),
        ("runs --since all --until 2026-06-01T00:00Z --streaks", "runs triggered before 2026-06-01 00:00 UTC"),
        (
            "errors --since 2026-05-15T00:00Z --until 2026-06-01T00:00Z --tz Asia/Tokyo",
            "runs triggered since 2026-05-15 09:00 +09:00 and before 2026-06-01 09:00 +09:00",
        ),
        (f"unusual --since 2026-05-15T00:00Z --now {NOW}", "runs triggered since 2026-05-15 00:00 UTC"),
        ("costs --since 2026-05-15T00:00Z", "sessions created since 2026-05-15 00:00 UTC"),
        (
            f"compare --until {NOW} --baseline 14D",
            "recent: from 2026-06-08 01:30 UTC to 2026-06-15 01:30 UTC; before: from 2026-05-25 01:30 UTC",
        ),
        (
            f"compare --until {NOW} --tz Asia/Tokyo",
            (
                "recent: from 2026-06-08 10:30 +09:00 to 2026-06-15 10:30 +09:00; "
                "before: from 2026-06-01 10:30 +09:00"
            ),
        ),
    ],
)
def test_table_states_its_period(words: str, period: str, invoke: Invoke) -> None:
    lines = invoke(words).out.replace("\n  ", " ").splitlines()
    assert [line for line in lines if re.match("(runs|sessions|recent:) .*(since|before|from) ", line)] == (
        [period] if period else []
    )


@pytest.mark.filterwarnings("ignore:no run is in the time")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("runs", "there are no runs triggered "),
        ("runs --streaks", "there are no runs triggered "),
        ("runs --failed", "there are no runs triggered "),
        ("runs --errors", "there are no runs triggered "),
        ("errors", "there are no runs triggered "),
        ("unusual", "there are no runs triggered "),
        ("costs", "there are no sessions created "),
    ],
)
def test_table_without_runs_states_its_period(words: str, message: str, invoke: Invoke) -> None:
    window = ["--since", "2020-01-01T00:00Z", "--until", "2020-02-01T00:00Z"]
    assert invoke(words, *window).out == f"{message}since 2020-01-01 00:00 UTC and before 2020-02-01 00:00 UTC\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("errors", "no run failed"),
        ("runs --errors", "no run failed"),
        ("runs --failed", "no run failed"),
        ("unusual --threshold 99", "no run is unusual"),
    ],
)
def test_result_without_rows_states_its_period(words: str, message: str, invoke: Invoke) -> None:
    runs = qd.load_runs()
    minutes = runs["triggered_at"].dt.floor("min")
    minute = minutes[~minutes.isin(minutes[runs["status"] != "completed"])].iloc[0]
    since, until = (f"{at:%Y-%m-%d %H:%M} UTC" for at in (minute, minute + pd.Timedelta("1min")))
    window = ["--since", minute.isoformat(), "--until", (minute + pd.Timedelta("1min")).isoformat()]
    assert invoke(words, *window).out == f"{message}; runs triggered since {since} and before {until}\n"


def test_names_are_truncated_before_dates_and_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pd.DataFrame({"name": ["n" * 100], "at": ["2026-06-15 09:00 +08:00"], "runs": [1_234_567]})
    columns = [
        TableColumn("name", lambda row: row.name),
        TableColumn("at", lambda row: row.at, "fixed"),
        TableColumn("runs", lambda row: format_count(row.runs), "number"),
        TableColumn("a wide column", lambda _: "x" * 30, "fixed", optional=1),
    ]
    monkeypatch.setenv("COLUMNS", "50")
    assert output.print_table(frame, columns) == ["a wide column"]
    row = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"n+… +2026-06-15 09:00 \+08:00 +1,234,567", row)


@pytest.mark.parametrize(
    ("width", "left_out"),
    [(39, []), (38, ["not known"]), (32, ["not known"]), (31, ["not known", "all of the runs"])],
)
def test_optional_columns_are_dropped_before_names_are_truncated(
    width: int, left_out: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids and columns without any value are dropped first, whatever their priority is."""
    frame = pd.DataFrame({"name": ["Monthly pipeline check"], "none": [None], "runs": [7]})
    columns = [
        TableColumn("name", lambda row: row.name),
        TableColumn("id", lambda _: "i" * 37, "id", optional=9),
        TableColumn("not known", lambda row: row.none, "number", optional=1),
        TableColumn("all of the runs", lambda row: format_count(row.runs), "number", optional=5),
    ]
    monkeypatch.setenv("COLUMNS", str(width))
    assert output.print_table(frame, columns) == left_out
    assert "…" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "width", "shown"),
    [
        ([("one", "dep_1a"), ("one", "dep_1b")], 30, ["one dep_1a", "one dep_1b"]),
        ([("one", "dep_1a"), ("one", "dep_1b")], 12, ["one ·p_1a", "one ·p_1b"]),
        ([("one", "dep_1a"), ("one", "dep_1a"), ("two", "dep_1b")], 12, ["one", "one", "two"]),
        ([("a long name", "dep_1a"), ("a long name", "dep_1b")], 12, ["a long …p_1a", "a long …p_1b"]),
        ([(None, "dep_1a"), ("", "dep_1b"), (None, None)], 12, ["dep_1a", "dep_1b", "–"]),
    ],
)
def test_names_have_the_ends_of_ids_if_these_have_no_room_and_several_have_one_name(
    rows: list[tuple[str | None, str | None]],
    width: int,
    shown: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    frame = pd.DataFrame(rows, columns=["name", "deployment_id"])
    monkeypatch.setenv("COLUMNS", str(width))
    assert output.print_table(frame, output.DEPLOYMENT) == []
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[2:]] == shown


def test_names_that_differ_at_the_end_are_cut_in_the_middle(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = [TableColumn("name", "name"), TableColumn("runs", "runs", "count")]
    monkeypatch.setenv("COLUMNS", "26")
    for names, shown in (
        (
            ["prod-reconciliation-emea-1", "prod-reconciliation-apac"],
            ["prod-reconc…-emea-1", "prod-reconc…on-apac"],
        ),
        (["夜间对账检查与汇总任务甲", "夜间对账检查与汇总任务乙"], ["夜间对账检…任务甲", "夜间对账检…任务乙"]),
        (["prod-reconciliation-emea-1", "test"], ["prod-reconciliatio…", "test"]),
        (["prod-reconciliation-emea-1"] * 2, ["prod-reconciliatio…"] * 2),
    ):
        output.print_table(pd.DataFrame({"name": names, "runs": 1_000}), columns)
        rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
        assert rows == [[name, "1,000"] for name in shown]


@pytest.mark.parametrize(("width", "left_out"), [(32, []), (31, ["message"])])
def test_optional_column_with_readable_width_is_cut_to_it(
    width: int, left_out: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pd.DataFrame({"error": ["tool_error"], "message": ["word " * 30]})
    columns = [TableColumn("error", "error"), TableColumn("message", "message", optional=1, readable=20)]
    monkeypatch.setenv("COLUMNS", str(width))
    assert output.print_table(frame, columns) == left_out
    shown = capsys.readouterr().out
    assert ("…" in shown) == ("message" not in left_out)
    assert max(map(len, shown.splitlines())) <= width


@pytest.mark.parametrize(("width", "has_id"), [(97, True), (96, False)])
def test_an_id_beside_a_schedule_is_whole_or_left_out(
    width: int,
    has_id: bool,  # noqa: FBT001 - a parameter of the test
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An id that is cut cannot be copied."""
    frame = pd.DataFrame(
        {"name": ["Monthly pipeline check"], "deployment_id": ["i" * 40], "fires": ["word " * 30]}
    )
    columns = [*output.DEPLOYMENT, TableColumn("fires", "fires", "prose", readable=31)]
    monkeypatch.setenv("COLUMNS", str(width))
    output.print_table(frame, columns)
    shown = capsys.readouterr().out
    assert ("i" * 40 in shown) == has_id
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width


@pytest.mark.parametrize(("width", "left_out"), [(66, []), (65, ["runs"])])
def test_column_with_readable_width_displaces_optional_columns(
    width: int, left_out: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.DataFrame({"what": ["word " * 30], "runs": [7]})
    columns = [
        TableColumn("what", lambda row: row.what, "prose", readable=60),
        TableColumn("runs", lambda row: format_count(row.runs), "number", optional=1),
    ]
    monkeypatch.setenv("COLUMNS", str(width))
    assert output.print_table(frame, columns) == left_out


def test_columns_0_is_ignored(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    assert "\nrates are of all runs, also skipped and unfinished ones\n" in invoke("failures").out


def test_pipe_output_is_not_truncated(invoke: Invoke) -> None:
    text = invoke("triggers --start", NOW, "--top", "500").out
    assert "…" not in text
    triggers = qd.next_triggers(qd.load_deployments(), "24h", start=NOW)
    assert all(deployment in text for deployment in triggers["deployment_id"])


def test_colors_only_on_a_capable_terminal_without_no_color(
    terminal: Callable[[], None], monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    words = "runs --since all --streaks"
    terminal()
    coloured = invoke(words).out
    streaks = [row["current_streak"] for row in invoke.json(words)]
    red = [int(cell) for cell in re.findall(r"\x1b\[31m *(\d+)\x1b\[0m", coloured)]
    assert red == [streak for streak in streaks[: output.DEFAULT_TOP] if streak > 0] != streaks
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert invoke(words).out == re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert "\x1b" not in invoke(words).out


# -- hostile text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_hostile_names_are_escaped_in_tables(form: str, invoke: Invoke) -> None:
    style = [] if form == "text" else ["--markdown"]
    text = invoke("failures --top 500 --min-runs 0", *style).out
    assert "[red]name[/red]" in text
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    notes = r"|rates are .*|archived .* left out|.* without counters .*"
    rows = [line for line in text.splitlines() if not re.fullmatch(notes, line)]
    known = qd.failure_rates(qd.load_deployments()).query("total_runs >= 0")
    assert len(rows) == 2 + len(known)
    if form == "markdown":
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {8}


@pytest.mark.parametrize("form", ["--csv", "--json"])
def test_csv_and_json_to_a_terminal_escape_control_characters(
    form: str, terminal: Callable[[], None], invoke: Invoke
) -> None:
    terminal()
    text = invoke("failures --min-runs 0", form).out
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert all(escaped in text for escaped in ("\\u001b", "\\u0007", "\\u009b", "\\u202e"))
    if form == "--json":
        assert HOSTILE in {row["name"] for row in json.loads(text)}


@pytest.mark.parametrize("form", ["--csv", "--json"])
def test_csv_and_json_to_a_pipe_are_exact(form: str, monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="\r\n")
    monkeypatch.setattr(sys, "stdout", pipe)
    invoke("failures --min-runs 0", form)
    text = pipe.buffer.getvalue().decode("utf-8")
    names = csv.DictReader(io.StringIO(text, newline="")) if form == "--csv" else json.loads(text)
    assert HOSTILE in {row["name"] for row in names}
    assert "\r" not in text


@given(st.text())
def test_escape_controls_removes_controls_and_keeps_the_json_value(text: str) -> None:
    escaped = output.escape_controls(json.dumps(text, ensure_ascii=False))
    assert json.loads(escaped) == text
    assert not any(output._is_unsafe(character) for character in escaped)
    assert output.escape_controls("日报\tok\n") == "日报\tok\n"


class _TagCollector(HTMLParser):
    """Collect the tags and the text of an HTML page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, _attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


PIECES = [
    "http://evil.example", "www.evil.example", "evil.example/x", "a@b.example", "`", "``", "|", "\\", "[x](y)",
    "<img>",
]  # fmt: skip


@given(st.lists(st.sampled_from([*PIECES, " ", "a", "*", "_", "!"]), min_size=1, max_size=8).map("".join))
def test_markdown_cell_shows_the_text_without_links(text: str) -> None:
    """The Markdown renderer turns bare URLs into links, as chat programs do."""
    cell = "x" + text.strip() + "x"
    read = _TagCollector()
    table = f"| a | b |\n|---|---|\n| {output._markdown_cell(cell)} | end |\n"
    html = mistune.create_markdown(escape=False, plugins=["table", "url"])(table)
    assert isinstance(html, str)
    read.feed(html)
    assert read.tags <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
    words = "".join(read.text).split()
    assert words[-1] == "end"
    assert "".join(words[2:-1]) == "".join(cell.split())


# -- broken pipe, full disk, interrupts, messages ----------------------------------------------------------------


def run_in_shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `qoderdata` is the command of this package."""
    line = command.replace("qoderdata", f"{shlex.quote(sys.executable)} -m qoderdata")
    return subprocess.run(["/bin/bash", "-c", line], capture_output=True, text=True, check=False)


def test_exit_code_is_kept_if_the_reader_closes_the_pipe_early() -> None:
    done = run_in_shell("qoderdata failures --top 500 --fail-over 0.01 | head -c 20; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (1, "")
    assert len(done.stdout) == 20


@pytest.mark.parametrize("style", ["--csv", "--json", "--markdown"])
@pytest.mark.parametrize(("limit", "code"), [(0.01, 1), (1, 0)])
def test_exit_code_is_kept_if_the_pipe_has_no_reader(
    style: str, limit: float, code: int, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", buffering=1, encoding="utf-8") as pipe:  # noqa: PTH123 - a file descriptor
        monkeypatch.setattr(sys, "stdout", pipe)
        printed = invoke(f"failures {style} --fail-over {limit}", code=code)
    assert printed.err == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")  # noqa: PTH110 - a device
def test_full_disk_prints_one_line_and_returns_2(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    for rows in ("1", "500"):  # less and more than one buffer
        with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123 - a device
            monkeypatch.setattr(sys, "stdout", full)
            printed = invoke("failures --top", rows, code=2)
        assert re.fullmatch(r"qoderdata: .*No space left on device: 'standard output'\n", printed.err)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")  # noqa: PTH110 - a device
@pytest.mark.parametrize("verbose", ["", " --verbose"])
def test_full_standard_error_changes_no_exit_code(verbose: str, invoke: Invoke) -> None:
    words = f"failures --fail-over 0.01 --json --refresh{verbose}"
    expected = invoke(words, code=1).out
    done = run_in_shell(f"qoderdata {words} 2>/dev/full")
    assert (done.returncode, done.stdout) == (1, expected)


def test_closed_standard_output_is_not_an_error(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    words = "export failures rates.csv"  # the file may get the descriptor of standard output
    invoke(words)
    written = Path("rates.csv").read_bytes()
    Path("rates.csv").unlink()
    done = run_in_shell(f"qoderdata {words} >&- 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert Path("rates.csv").read_bytes() == written
    monkeypatch.setattr(sys, "stdout", None)
    printed = invoke("failures --json")
    sys.stdout.close()  # the null device, which `main` leaves open
    assert printed.err == ""


def test_unexpected_exception_prints_a_traceback_and_returns_2(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    monkeypatch.setattr(qd, "failure_rates", lambda *_, **__: None)
    captured = invoke("failures --fail-over 0.9", code=2)
    assert captured.out == ""
    assert captured.err.startswith("Traceback")
    assert captured.err.endswith("\n")


interrupt = Mock(side_effect=KeyboardInterrupt)


@pytest.mark.usefixtures("empty_cache")
def test_interrupted_pull_states_what_is_stored(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    """The report is interrupted between two lists; the first one is not requested again."""
    words = "report r.html --runs --since all"
    with monkeypatch.context() as patched:
        patched.setattr(qd, "load_agents", interrupt)
        captured = invoke(words, code=130)
    monkeypatch.setattr(qd, "write_report", lambda *_, **__: None)
    message = "interrupted; runs, sessions and events that were read so far are stored, and are not read again, "
    assert (captured.out, captured.err.strip().partition("unless")[0]) == ("", f"qoderdata: {message}")
    sandbox.requests.clear()
    invoke(words)
    assert {request.path for request in sandbox.requests} == {"/agents"}


@pytest.mark.parametrize("words", ["top --once", "events sess_1", "failures --offline"])
def test_interrupt_of_a_command_that_stores_nothing_is_silent(
    words: str, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    monkeypatch.setattr(qd, "load_events", interrupt)
    monkeypatch.setattr(qd, "load_deployments", interrupt)
    monkeypatch.setattr(sys.modules["qoderdata.cli.top"], "_print_once", interrupt)
    assert invoke(words, code=130).err.strip() == ""


def test_retries_are_shown_only_on_a_terminal(
    terminal: Callable[[], None], monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    words = "failures --base-url http://127.0.0.1:9"
    assert len(invoke(words, code=5).err.splitlines()) == 1
    terminal()
    *retries, last = invoke(words, code=5).err.replace("\r\x1b[K", "").strip("\r").splitlines()
    assert len(retries) == 4
    for number, line in enumerate(retries, start=2):  # the first one is not shown
        assert re.search(rf"Trying again in .* s \({number} of 5\)\.$", line)
    assert last.startswith("qoderdata: ")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in invoke(words, code=5).err


def test_control_characters_in_errors_are_escaped(invoke: Invoke) -> None:
    err = invoke("failures --by", "x\x1b[2J\u202e", code=2).err
    assert "\x1b" not in err
    assert "\u202e" not in err


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        ("failures --offline --cache-dir empty", "--offline, and .* Call once without --offline"),
        ("runs --offline --cache-dir empty", "--offline, and .* Call once without --offline"),
        ("runs --since 30", "--since '30' has no unit"),
        ("check --recent 7", "--recent '7' .* has no unit"),
        ("missed --grace 10", r"--grace '10' .* has no unit \(.* h, D"),
        ("compare --until yesterday", "--until 'yesterday' is not a time"),
        ("unusual --now 2026-06-15", "--now '2026-06-15' has no time zone; write one, like '2026-06-15T00:00Z'"),
        ("triggers --horizon 24", "--horizon '24' .* has no unit"),
        (
            "pull deployments --created-since 2026-01-01",
            "--created-since '2026-01-01' has no time zone; write one, like '2026-01-01T00:00Z'",
        ),
        ("triggers --load 0h", "--load '0h' must fill a day evenly in whole minutes"),
        ("changes --since all", "--since 'all' is not a time"),
        ("runs --workspace a\tb", r"--workspace 'a\\tb' has characters"),
        ("runs --base-url 127.0.0.1:9", r"the base URL in --base-url is not an absolute http\(s\) URL"),
        ("events ''", r"RUN_ID\|SESSION_ID '' is not the id of anything"),
        ("failures --agent ''", "--agent '': no agent has this id or name"),
        ("pull runs --deployment ''", "--deployment '': no deployment has this id or name"),
        (
            "runs --since all --by deployment --freq 1min",
            ".* too many to list; choose longer windows, such as --freq '1W', or a shorter period$",
        ),
        ("errors --since all --by error_type", "--by .* is a column of the result and cannot be a group"),
        (
            "report r.html --by nothing",
            "--by 'nothing' is neither a column nor a key of the deployments' metadata",
        ),
        ("errors --until 2020-01-01T00:00Z", "the default --since '30D' is not before --until '2020"),
        ("errors --until 2020-01-01T00:00Z --since 30D", "--since '30D' is not before --until '2020"),
        ("errors --until 2020-01-01T00:00Z --since=30D", "--since '30D' is not before --until '2020"),
    ],
)
def test_error_messages_name_options_not_parameters(words: str, pattern: str, invoke: Invoke) -> None:
    message = invoke(*["" if word == "''" else word for word in words.split(" ")], code=2).err
    assert re.match(f"qoderdata: {pattern}", message)
    assert "=" not in message


@pytest.mark.filterwarnings("default")
def test_warnings_name_options_not_parameters(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "Call with refresh=True, or refresh='all', or load_runs(outcomes='events'); 'since=1' and team= stay. "
        "Set QODERDATA_CACHE_DIR or cache_dir to a folder, or use another cache_dir"
    )
    agents = qd.load_agents()
    monkeypatch.setattr(qd, "load_agents", lambda **_: warnings.warn(text, stacklevel=1) or agents)
    message = (
        "Call with --refresh, or --refresh-all, or --outcomes events; 'since=1' and team= stay. "
        "Set QODERDATA_CACHE_DIR or --cache-dir to a folder, or use another --cache-dir"
    )
    assert invoke("pull agents").err == f"qoderdata: warning: {message}\n"


def test_message_of_the_service_is_not_rewritten(service: ScriptedService, invoke: Invoke) -> None:
    text = "since=3 with offline=True. Call once without offline and make a new Client"
    for status, code in ((400, 4), (401, 3)):
        service.respond_with(service.response(status, body=error_body("x", text)))
        message = invoke("pull runs --refresh --base-url", service.base_url, code=code).err
        assert f": {text}. " in message
    assert message.count("make a new Client") == 1
    assert re.search(r"token in Qoder Cloud and set QODER_ACCESS_TOKEN or QODER_PAT to it\. \[", message)


def test_advice_in_errors_names_options_not_parameters(newest_edition: Sandbox, invoke: Invoke) -> None:
    newest_edition.misbehave("403", at=2)  # request 1 lists the runs, request 2 the sessions
    assert invoke("runs", code=4).err.endswith(
        " The runs and what was read of their sessions are stored; --outcomes runs reads run records only.\n"
    )


def test_retry_messages_and_notes_name_options_not_parameters(
    service: ScriptedService, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    body = error_body("rate_limit_error", "Slow down with offline=True")
    service.respond_with(service.response(429, body=body, retry_after_ms="1"), service.response(403, body=body))
    retry = invoke("pull runs --refresh --verbose --base-url", service.base_url, code=4).err.splitlines()[0]
    assert "Slow down with offline=True. The service asks to wait 0.0 s. Wait and try again. [" in retry
    assert "Trying again in" in retry
    monkeypatch.setattr(qd, "load_runs", lambda **_: qd.flatten_runs([]))
    note = invoke("compare --offline --cache-dir empty").err
    assert "could not be loaded: --offline, and" in note
    assert "Call once without --offline" in note


@pytest.mark.filterwarnings("default")
def test_advice_for_python_users_is_omitted(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qoderdata.plots.labels._fonts_for", lambda text: ([], set(text) & {"e"}))
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)
    monkeypatch.setattr(qd, "write_report", lambda *_, **__: None)
    message = invoke("demo --deployments 5").err
    assert "no installed font has" in message
    assert "restart" not in message
    assert "labels=" not in message


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("newest_edition")
def test_repeated_warning_is_printed_once(tmp_path: Path, invoke: Invoke) -> None:
    """On edition D, `check` loads the runs twice."""
    (tmp_path / "file").touch()
    lines = invoke("check --cache-dir", str(tmp_path / "file"), code=1).err.splitlines()
    assert any("the runs are not kept" in line for line in lines)
    assert len(lines) == len(set(lines))


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("newest_edition")
def test_findings_name_options_not_parameters(invoke: Invoke) -> None:
    (finding,) = [one for one in invoke.json("check", code=1) if one["kind"] == "incomplete_data"]
    assert "--outcomes events reads how they ended" in finding["detail"]
    text = invoke("top --once").out
    assert "--outcomes events reads how they ended" in text
    assert "load_runs" not in text


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("newest_edition_with_events")
def test_advice_to_read_events_is_omitted_after_all_were_read(invoke: Invoke) -> None:
    (finding,) = [one for one in invoke.json("check --doubtful 0", code=1) if one["kind"] == "incomplete_data"]
    assert finding["detail"].endswith("the service gave no session or no end for them.")


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("newest_edition_with_events")
def test_narrow_table_keeps_names_and_complete_numbers(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    words = "runs --since all --by agent --freq 7D --top 3 --outcomes events"
    (_, lines), *calls = printed_lines((1000, 20, 40, 60), words, monkeypatch, invoke)
    wide = lines[2]
    assert "no room for" not in "".join(lines)
    left_out = (
        "no room for completed,( assumed completed,)? skipped, unfinished,( outcome unknown,)? 95 % interval, "
        "median duration, 95th percentile of duration: --csv and --json have all columns"
    )
    for columns, (heading, _, narrow, *notes) in calls:
        assert heading.split() == ["agent", "from", "runs", "failed", "rate"]
        assert re.search(left_out, " ".join(" ".join(notes).split()))
        assert cell_len(narrow) <= max(columns, 60)
        name, *figures = re.split(r"  +", narrow)
        assert wide.startswith(name.rstrip("…"))
        assert len(name) >= 5
        assert set(figures) <= set(re.split(r"  +", wide))
        assert "…" not in "".join(figures)
    words = "errors --since all --outcomes events"
    for _, (heading, _, row, *_) in printed_lines((20, 40, 60), words, monkeypatch, invoke):
        assert heading.split()[:4] == ["new", "failed", "error", "message"]
        assert re.search(r"\d  \w{8,}", row)


@pytest.mark.parametrize(
    ("words", "note"),
    [
        ("cache", "`clear` removes all of them without asking. Snapshots cannot be read from the service again"),
        (
            "sandbox",
            "Its clock does not advance: after some minutes `check` and `missed` report triggers as missed.",
        ),
        ("events", "qoderdata events --deployment"),
        ("pull runs", "Only runs of this deployment."),
        ("pull sessions", "Only sessions of this deployment."),
        *[
            (
                words,
                "if it has not ended after its timeout or, where that is not known, after ten times the median",
            )
            for words in ("check", "unusual")
        ],
    ],
)
def test_help_contains_important_notes(words: str, note: str, invoke: Invoke) -> None:
    assert note in invoke(words, "--help").unwrapped


@pytest.mark.parametrize("columns", [40, 80])
def test_note_with_wide_characters_fits_the_terminal(
    columns: int, terminal: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal()
    monkeypatch.setenv("COLUMNS", str(columns))
    frame = pd.DataFrame({"name": ["每日库存与订单核对报告", "週次リリースノート"], "failure_rate": [0.9, 0.8]})
    frame = frame.assign(ci_low=0.1, ci_high=0.95)
    name = TableColumn("name", lambda row: row.name)
    result = Output("text")
    notes = result.name_above(frame, 0.5, figure="failure_rate", groups=[name])
    result.print_frame(frame, [name], empty="", notes=notes)
    note = capsys.readouterr().out.partition("\n\n")[2].splitlines()
    assert max(map(cell_len, note)) <= columns
    expected = "每日库存与订单核对报告, 90.0 % (10.0–95.0 %); 週次リリースノート, 80.0 % (10.0–95.0 %)"
    assert " ".join(line.strip() for line in note) == f"above --fail-over 0.5: {expected}"


def test_long_text_in_a_column_is_wrapped_not_truncated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "a sentence that has more words than fit beside the rest of the table " * 3
    frame = pd.DataFrame({"n": [1], "what": [text]})
    columns = [
        TableColumn("n", lambda row: format_count(row.n), "number"),
        TableColumn("what", lambda row: row.what, "prose"),
    ]
    monkeypatch.setenv("COLUMNS", "40")
    Output("text").print_frame(frame, columns, empty="")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40
    assert " ".join(" ".join(lines[2:]).split()) == f"1 {text.strip()}"


def test_triggers_show_no_local_time_without_its_zone(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    shown = set()
    for width in range(60, 160, 10):
        monkeypatch.setenv("COLUMNS", str(width))
        table = invoke("triggers --tz Asia/Shanghai --start 2026-06-15T00:00Z").out.partition("\n\n")[0]
        shown.add(("zone" in table, "local" in table))
    assert shown == {(False, False), (True, False), (True, True)}


def test_workspace_is_sent_and_max_age_decides_whether_the_service_is_asked(
    sandbox: Sandbox, invoke: Invoke
) -> None:
    def requests_of(words: str) -> int:
        sandbox.requests.clear()
        invoke(words)
        return len(sandbox.requests)

    assert requests_of("deployments --workspace ws_1") > 0
    assert {one.headers["qoder-workspace-id"] for one in sandbox.requests} == {"ws_1"}
    assert (
        requests_of("deployments --workspace ws_1")
        == requests_of("deployments --workspace ws_1 --max-age 1D")
        == 0
    )
    assert requests_of("deployments --workspace ws_1 --max-age 0s") > 0
    assert requests_of("deployments --workspace ws_2 --max-age 1D") > 0


@pytest.mark.parametrize(
    ("tz", "expected"), [("UTC", "01:30:20.000007Z"), ("Asia/Tokyo", "10:30:20.000007+09:00")]
)
def test_json_has_microseconds_and_null_in_each_zone(
    tz: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pd.DataFrame({"at": pd.Series(["2026-06-15T01:30:20.000007Z", None], dtype="datetime64[us, UTC]")})
    Output("json", tz=tz).print_frame(frame, [], empty="")
    assert json.loads(capsys.readouterr().out) == [{"at": f"2026-06-15T{expected}"}, {"at": None}]


def test_a_note_says_that_rows_are_left_out_only_if_some_are(capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.DataFrame({"id": ["a", "b", "c"]})
    for top, note in ((2, "2 of 3 rows; --top shows more, --csv and --json without --top give all"), (3, None)):
        Output("text", top=top).print_frame(frame, [TableColumn("id", "id")], empty="")
        lines = capsys.readouterr().out.splitlines()
        assert lines[2:] == [*frame["id"][:top], *(["", note] if note else [])]


def test_only_groups_above_the_limit_are_named() -> None:
    rates = pd.DataFrame({"team": ["at", "above"], "failure_rate": [0.5, 0.75], "ci_low": 0.25, "ci_high": 0.875})
    columns = [TableColumn("team", "team")]
    notes = Output("text").name_above(rates, 0.5, figure="failure_rate", groups=columns)
    assert notes == ["above --fail-over 0.5: above, 75.0 % (25.0–87.5 %)"]
    assert Output("text").name_above(rates, None, figure="failure_rate", groups=columns) == []


def test_a_lone_surrogate_is_printed_as_bytes(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    output.print_exact("a\ud800b")
    assert capfdbinary.readouterr().out == b"a\xed\xa0\x80b"
