"""Tests of `check`, `missed`, `--fail-over`, `changes` and dated reports: exit codes, thresholds and snapshots."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pandas as pd
import pytest

import qoderdata as qd
from qoderdata import overview
from qoderdata.errors import CacheError, PermissionDeniedError
from qoderdata.formatting import counted, format_time, one_line
from qoderdata.frame_checks import TEXT
from qoderdata.sandbox import Sandbox
from tests.sandbox_requests import Record, active_deployments
from tests.test_cli_output import run_in_shell
from tests.wall_clock import WallClock, set_wall_clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Invoke

pytestmark = pytest.mark.filterwarnings("default:no run is in the time asked for")

NOW = datetime.now(UTC).replace(microsecond=0)
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def reset_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set `NOW` at the start of each test: minutes may have passed since the import of this file."""
    monkeypatch.setattr(sys.modules[__name__], "NOW", datetime.now(UTC).replace(microsecond=0))


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("QODERDATA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@contextlib.contextmanager
def current_sandbox(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[Sandbox]:  # noqa: ANN401
    """Serve a sandbox whose clock is the current time by default, and set the environment to it."""
    with Sandbox(seed=7, **{"now": NOW, **options}) as served:
        monkeypatch.setenv("QODER_PAT", served.pat)
        monkeypatch.setenv("QODER_BASE_URL", served.base_url)
        yield served


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Serve a sandbox whose clock is the current time and which missed some triggers."""
    set_wall_clock(monkeypatch, NOW, "load.lists")
    with current_sandbox(monkeypatch, deployments=25, runs=400, left_out=60) as served:
        yield served


@pytest.fixture
def small_sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Serve a sandbox with a deployment that fails, for tests that start processes: few requests, 100 ms apart."""
    with current_sandbox(monkeypatch, deployments=10, runs=60) as served:
        served.create_runs(5, status="failed", deployment_id=scheduled_deployments(served)[0]["id"])
        yield served


@pytest.fixture
def check_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute the findings once per test: for tests that compare the output of several calls of one command."""
    compute = qd.check
    found: list[pd.DataFrame] = []

    def check(*frames: Any, **options: Any) -> pd.DataFrame:  # noqa: ANN401 - the arguments of `qd.check`
        if not found:
            found.append(compute(*frames, **options))
        return found[0].copy()

    monkeypatch.setattr(qd, "check", check)


def archive_all(sandbox: Sandbox) -> None:
    """Archive all deployments, so that `check` finds nothing."""
    for one in sandbox.deployments:
        if not one["archived_at"]:
            sandbox.archive(one["id"])


def scheduled_deployments(sandbox: Sandbox) -> list[Record]:
    return [one for one in active_deployments(sandbox) if one["schedule"]]


def rewrite(sandbox: Sandbox, record: dict[str, Any], **facts: Any) -> None:  # noqa: ANN401
    sandbox.rewrite({**record, "updated_at": NOW.isoformat().replace("+00:00", "Z"), **facts})


# -- exit codes --------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "pipe"),
    [
        ("check", "head -1"),
        ("check", "true"),
        ("check", "cat"),
        ("missed --fail --since 7D", "true"),
        ("runs --fail-over 0 --since 7D", "head -1"),
    ],
)
def test_exit_code_does_not_depend_on_the_reader_of_the_pipe(words: str, pipe: str, sandbox: Sandbox) -> None:
    """Findings and each kind of error keep their exit code, however much of the output is read."""

    def code(*more: str) -> int:
        done = run_in_shell(f"qoderdata {' '.join([words, *more])} | {pipe} >/dev/null; echo ${{PIPESTATUS[0]}}")
        assert "Traceback" not in done.stderr
        return int(done.stdout)

    sandbox.create_runs(400, status="failed")
    codes = []
    for fault in ("", "401", "403", "stop"):
        if fault == "stop":
            sandbox.stop()
        elif fault:
            sandbox.misbehave(fault)
        codes.append(code("--refresh"))
    assert codes == [1, 3, 4, 5]
    assert code("--since 7") == 2


def test_commands_without_findings_return_0(sandbox: Sandbox, invoke: Invoke) -> None:
    archive_all(sandbox)
    sandbox.forget_runs(NOW + timedelta(days=1))
    for one in sandbox.deployments:  # archived long ago
        sandbox.rewrite({**one, "archived_at": "2020-01-01T00:00:00Z"})
    for words in ("check", "missed --fail --since 7D", "runs --fail-over 1 --since 7D"):
        invoke(words)


@pytest.mark.usefixtures("check_computed_once")
def test_exit_codes_of_check(sandbox: Sandbox, invoke: Invoke) -> None:
    deployment = scheduled_deployments(sandbox)[0]
    sandbox.create_runs(5, status="failed", deployment_id=deployment["id"])
    text = invoke("check --refresh", code=1).out
    assert "not new" not in text
    lines = text.splitlines()
    assert any(" failed " in line and deployment["id"] in line for line in lines)
    found = invoke.json("check", code=1)
    assert {"severity", "kind", "deployment_id", "name", "detail", "since"} == set(found[0])
    assert [one["severity"] for one in found] == sorted(one["severity"] for one in found)
    invoke("check --streak 0", code=2)
    invoke("check --since 7", code=2)
    sandbox.misbehave("401")
    invoke("check --refresh", code=3)
    sandbox.misbehave("403")
    invoke("check --refresh", code=4)
    sandbox.stop()
    invoke("check --refresh", code=5)


@pytest.mark.usefixtures("check_computed_once")
def test_by_adds_columns_to_findings(sandbox: Sandbox, invoke: Invoke) -> None:
    records = {one["id"]: one for one in sandbox.deployments}
    agents = {one["id"]: one["name"] for one in sandbox.agents}
    plain, found = (invoke.json("check", *words, code=1) for words in ((), ("--by", "agent", "--by", "owner")))
    added = [(row.pop("agent_id"), row.pop("agent_name"), row.pop("metadata_owner")) for row in found]
    assert found == plain
    for row, (agent, name, owner) in zip(found, added, strict=True):
        record = records[row["deployment_id"]]
        assert (agent, owner) == (record["agent"]["id"], record["metadata"].get("owner"))
        assert name == agents[agent]
    assert invoke("check --by owner", code=1).out.startswith("severity  owner  ")
    assert invoke.json("check --by deployment", code=1) == plain
    assert "'owner'" in invoke("check --by ownr", code=2).err


@pytest.mark.parametrize(
    "words",
    [
        f"missed --since {NOW - timedelta(days=30):%Y-%m-%dT%H:%MZ}", f"triggers --start {NOW:%Y-%m-%dT%H:%MZ}",
        "unusual --since all --threshold 1",
    ],
)  # fmt: skip
def test_by_adds_columns_about_the_deployment_of_each_row(words: str, sandbox: Sandbox, invoke: Invoke) -> None:
    records = {one["id"]: one for one in sandbox.deployments}
    agents = {one["id"]: one["name"] for one in sandbox.agents}
    plain, found = (invoke.json(words, *by) for by in ((), ("--by", "agent", "--by", "owner")))
    assert len(plain) == len(found) > 0
    for before, row in zip(plain, found, strict=True):
        record = records[row["deployment_id"]]
        assert {**row, **before} == row
        assert (row["agent_id"], row["metadata_owner"]) == (record["agent"]["id"], record["metadata"].get("owner"))
        assert row["agent_name"] == agents[row["agent_id"]]
    assert re.match(r"[a-z ]+  owner  +(name|deployment)  ", invoke(words, "--by", "owner").out)
    assert invoke.json(words, "--by", "deployment") == plain
    added = invoke.json(words, "--by", "deployment", "--by", "owner")[0].keys() - plain[0].keys()
    assert added == {"metadata_owner"}
    assert "'owner'" in invoke(words, "--by", "ownr", code=2).err


@pytest.mark.usefixtures("sandbox", "check_computed_once")
def test_findings_show_ids_of_agents_without_names(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    def refuse(**_: object) -> None:
        raise PermissionDeniedError("refused")

    monkeypatch.setattr(qd, "load_agents", refuse)
    captured = invoke("check --by agent", code=1)
    assert "ids are shown, as names could not be loaded" in captured.err
    rows = invoke.json("check --by agent", code=1)
    for line, row in zip(captured.out.splitlines()[2:], rows, strict=False):
        assert line.startswith(f"{row['severity']:8}  {row['agent_id']}  ")


def test_check_of_a_healthy_account_prints_no_finding(sandbox: Sandbox, invoke: Invoke) -> None:
    """All deployments are archived or new. A warning alone changes the exit code only with `--fail-on warning`.

    All runs are finished: `check` reports a run that is unfinished after some minutes.
    """
    for one in sandbox.runs:
        if one["status"] in {"running", "pending"}:
            sandbox.finish_run(one["id"])
    used = next(
        one["deployment_id"]
        for one in sandbox.sessions
        if one["deployment_id"] and one.get("usage", {}).get("total_credits", 0) > 1
    )
    sandbox.create_runs(1, deployment_id=used)  # so that its last run has not failed
    archive_all(sandbox)
    assert invoke("check").out == "nothing is wrong\n"
    sandbox.create_deployments(1)
    (new, *_) = sandbox.deployments
    budget = {"type": "limit", "max_credit_cost": "0.01"}
    rewrite(sandbox, {**new, "id": used}, budget=budget, name="expensive")
    assert "expensive uses" in invoke("check --refresh").out
    invoke("check --fail-on warning", code=1)


@pytest.mark.usefixtures("sandbox")
def test_check_only_new_counts_a_finding_again_after_a_check_without_it(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke, tmp_path: Path
) -> None:
    """The exit code, the table and JSON are about the new ones alone; a longer streak is no new finding."""
    failing = ("error", "failing", "dep_1", "one failed 3 times in a row.")
    longer = ("error", "failing", "dep_1", "one failed 4 times in a row.")
    stuck = ("error", "stuck", "dep_1", "one has a run that has not ended.")
    doubtful = ("warning", "incomplete_data", None, "The outcome of many runs is unknown.")
    seen = tmp_path / "seen.json"

    def new(*found: tuple[str | None, ...], words: str = "", code: int) -> list[str]:
        columns = ["severity", "kind", "deployment_id", "detail"]
        frame = pd.DataFrame(found, columns=columns, dtype=TEXT).assign(name="one", since=pd.Timestamp(NOW))
        monkeypatch.setattr(qd, "check", lambda *_, **__: frame.copy())
        rows = invoke.json(f"check {words} --only-new", str(seen), code=code)
        if "--top" not in words:
            kept = json.loads(seen.read_text(encoding="utf-8"))
            assert [row["detail"] for row in kept] == [row[3] for row in found]
        return [row["detail"] for row in rows]

    assert new(failing, doubtful, code=1) == [failing[3], doubtful[3]]
    assert new(longer, doubtful, code=0) == []
    printed = invoke("check --only-new", str(seen)).unwrapped
    assert printed.startswith("nothing new is wrong; not new: 2 findings; without --only-new all are shown")
    assert new(longer, stuck, code=1) == [stuck[3]]
    assert new(longer, stuck, doubtful, code=0) == [doubtful[3]]
    assert new(stuck, code=0) == []
    assert new(failing, stuck, doubtful, words="--fail-on warning", code=1) == [failing[3], doubtful[3]]
    assert new(failing, stuck, doubtful, words="--fail-on warning", code=0) == []
    assert new(code=0) == []
    assert new(failing, stuck, words="--top 1", code=1) == [failing[3]]
    assert new(failing, stuck, words="--top 1", code=1) == [stuck[3]]
    assert new(code=0) == []
    assert invoke("check --only-new", str(seen)).out.startswith("nothing is wrong")


@pytest.mark.parametrize(
    "content", ["", "[1]", "{}x", '{"a": 1}', '[{"kind": "failing"}]', "\N{LATIN SMALL LETTER E}"]
)
@pytest.mark.usefixtures("sandbox")
def test_check_only_new_refuses_and_keeps_a_file_of_another_kind(
    content: str, invoke: Invoke, tmp_path: Path
) -> None:
    file = tmp_path / "notes.txt"
    file.write_text(content, encoding="utf-8")
    message = invoke("check --only-new", str(file), code=2).err
    assert "holds no findings of a check; remove it, or name another" in message
    assert file.read_text(encoding="utf-8") == content


def test_check_only_new_keeps_its_file_if_the_check_fails(
    sandbox: Sandbox, invoke: Invoke, tmp_path: Path
) -> None:
    seen = tmp_path / "seen.json"
    invoke("check --only-new", str(seen), code=1)
    before = seen.read_bytes()
    sandbox.misbehave("403")
    invoke("check --refresh --only-new", str(seen), code=4)
    assert seen.read_bytes() == before


def test_missed_fail_considers_only_certain_rows(sandbox: Sandbox, invoke: Invoke) -> None:
    with Sandbox(deployments=25, seed=7, runs=400, now=NOW) as complete:
        invoke("missed --fail --base-url", complete.base_url)
    invoke("missed --since 30D")
    certain = [row for row in invoke.json("missed --since 30D") if row["certain"]]
    assert 0 < len(certain) <= len(sandbox.left_out)
    named = [f"{format_time(pd.Timestamp(row['scheduled_at']))}, {one_line(row['name'])}" for row in certain[:3]]
    more = f"; and {len(certain) - 3} more" if len(certain) > 3 else ""
    text = invoke("missed --since 30D --fail --top 1", code=1).out
    assert f"\ncertainly missed: {'; '.join(named)}{more}\n" in text


@pytest.mark.usefixtures("sandbox")
def test_runs_fail_over_compares_the_lower_bound(invoke: Invoke) -> None:
    words = "runs --by deployment_id --refresh"
    rows = invoke.json(words)
    lows = sorted((row["ci_low"], row["completed"] + row["failed"]) for row in rows if row["ci_low"] is not None)
    highest, decided = lows[-1]
    invoke(words, "--fail-over", str(highest - 1e-9), code=1)
    invoke(words, "--fail-over", str(highest - 1e-9), "--min-runs", str(decided), code=1)
    invoke(words, "--fail-over", str(highest + 1e-9))
    others = max(low for low, count in lows if count > decided) if any(n > decided for _, n in lows) else 0
    invoke(words, "--fail-over", str((highest + others) / 2), "--min-runs", str(decided + 1))


def note_of(text: str) -> str:
    """Return the line about the groups above the limit."""
    return next(line for line in text.splitlines() if line.startswith("above --fail-over "))


@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize(
    ("words", "figure", "label"),
    [
        ("runs --since all --freq 1D", "ci_low", "window"),
        ("runs --since all --by deployment", "ci_low", "name"),
        ("failures", "failure_rate", "name"),
    ],
)
def test_groups_above_fail_over_are_named_even_if_not_in_the_table(
    words: str, figure: str, label: str, invoke: Invoke
) -> None:
    rows = [row for row in invoke.json(words) if row[figure] is not None]
    rows.sort(key=lambda row: row[figure], reverse=True)
    for limit in sorted({row[figure] for row in rows}, reverse=True)[1:5]:
        above = [row for row in rows if row[figure] > limit + 1e-9]
        line = note_of(invoke(words, "--fail-over", str(limit + 1e-9), "--top", "1", code=1).out)
        named = line.partition(": ")[2].split("; ")
        assert named[3:] == ([f"and {len(above) - 3} more"] if len(above) > 3 else [])
        for one, row in zip(named[:3], above[:3], strict=True):
            name = format_time(pd.Timestamp(row[label])) if label == "window" else one_line(row[label])
            assert re.fullmatch(rf"{re.escape(name)}, {100 * row['failure_rate']:.1f} % \(\S+ %\)", one)


@pytest.mark.usefixtures("sandbox")
def test_fail_over_note_without_groups_has_no_name(invoke: Invoke) -> None:
    note = note_of(invoke("runs --since all --fail-over 0", code=1).out)
    assert re.fullmatch(r"above --fail-over 0: \S+ % \(\S+ %\)", note)
    words = "runs --since all --freq 1D --fail-over 0 --tz Asia/Tokyo"
    first = note_of(invoke(words, code=1).out).partition(": ")[2]
    assert re.match(r"\d{4}-\d\d-\d\d 00:00 \+09:00, \S+ % ", first)


def test_names_in_notes_are_escaped(sandbox: Sandbox, invoke: Invoke) -> None:
    for one in sandbox.deployments:
        sandbox.rewrite({**one, "name": "[x](http://evil.example)\x1b[2J"})
    for form in ("", "--markdown"):
        line = note_of(invoke(f"failures --fail-over 0 --include-archived {form}", code=1).out)
        assert "\x1b" not in line
        assert (": [x](http" in line) is not bool(form)


# -- thresholds --------------------------------------------------------------------------------------------------


def kinds(invoke: Invoke, *words: str) -> list[tuple[str, str]]:
    return [(one["kind"], one["deployment_id"]) for one in invoke.json("check", *words, code=None)]


@pytest.mark.parametrize(("words", "days"), [("", 30), ("--recent 20D", 40), ("--since 50D", 50)])
@pytest.mark.usefixtures("sandbox")
def test_check_reads_runs_as_far_back_as_it_looks(
    words: str, days: int, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    loads = Mock(wraps=qd.load_runs), Mock(wraps=qd.load_sessions)
    for load, name in zip(loads, ("load_runs", "load_sessions"), strict=True):
        monkeypatch.setattr(qd, name, load)
    monkeypatch.setattr(qd, "check", Mock(side_effect=KeyboardInterrupt))  # what it finds is of no interest here
    invoke(f"check {words}", code=130)
    assert [load.call_args_list[0].kwargs["since"] for load in loads] == [timedelta(days=days)] * 2


def test_thresholds_of_check_are_options(sandbox: Sandbox, invoke: Invoke) -> None:
    archive_all(sandbox)
    (one,) = sandbox.create_deployments(1)
    budget = {"type": "limit", "max_credit_cost": "1000000"}
    sandbox.rewrite({**one, "status": "active", "archived_at": None, "schedule": None, "budget": budget})
    sandbox.create_runs(20, status="completed", deployment_id=one["id"])
    sandbox.create_runs(4, status="failed", deployment_id=one["id"])
    deployment_id = one["id"]
    assert kinds(invoke, "--refresh") == [("failing", deployment_id)]
    assert kinds(invoke, "--streak", "4") == [("failing", deployment_id)]
    share = qd.session_costs(qd.flatten_sessions(sandbox.sessions))["credits_p95"][deployment_id] / 1_000_000
    assert kinds(invoke, "--streak", "5", "--budget-share", str(share * 0.99)) == [("over_budget", deployment_id)]
    assert kinds(invoke, "--streak", "5", "--budget-share", str(share * 1.01)) == []


def test_since_limits_the_missed_triggers_of_check(sandbox: Sandbox, invoke: Invoke) -> None:
    def missed(since: str) -> set[str]:
        return {id_ for kind, id_ in kinds(invoke, "--since", since) if kind == "missed"}

    found = {since: missed(since) for since in ("1D", "5D")}
    assert found["1D"] < found["5D"]
    for since, days in (("1D", 1), ("5D", 5)):
        frame = qd.load_deployments(include_archived=True)
        window: dict[str, Any] = {"since": since, "until": "0h"}
        snapshots = qd.load_snapshots("6D", include_archived=True)
        expected = qd.missed_triggers(frame, qd.load_runs(since="30D"), **window, snapshots=snapshots)
        live = frame.loc[frame["archived_at"].isna(), "id"]
        certain = expected[expected["certain"] & expected["deployment_id"].isin(live)]
        assert found[since] == set(certain["deployment_id"])
        truth = {id_ for id_, at in sandbox.left_out if at >= NOW - timedelta(days=days)}
        assert found[since] <= truth


@pytest.mark.filterwarnings("default:.* completed runs are assumed")
def test_doubtful_option_limits_the_share_of_doubtful_outcomes(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    with current_sandbox(monkeypatch, deployments=10, runs=100, edition="D") as served:
        served.create_runs(1, status="waiting")
        (run_without_session,) = served.create_runs(1)
        served.delete_session(run_without_session["session_id"])

        def is_reported(*words: str) -> bool:
            return "incomplete_data" in {kind for kind, _ in kinds(invoke, *words)}

        assert is_reported()
        recent = (NOW - timedelta(days=30)).isoformat()
        ends = [one for one in served.outcomes if one["triggered_at"] >= recent]
        doubtful = sum(
            one["status"] is None or (one["status"], one["status_from"]) == ("completed", "session")
            for one in ends
        )
        share = doubtful / len(ends)
        assert share > 0
        text = invoke("check --outcomes events --doubtful", str(share * 0.99), code=1).out
        assert "the service gave no session or no end for them" in " ".join(text.split())
        waiting = {one["id"] for one in ends if one["status"] == "waiting"}
        assert waiting
        assert invoke("runs --waiting --outcomes runs").out.startswith("no run is known to wait for a person; ")
        assert {row["id"] for row in invoke.json("runs --waiting")} == waiting
        assert f"waiting for a person: {counted(len(waiting), 'run')}; see `qoderdata runs --waiting`" in text
        assert not is_reported("--outcomes", "events", "--doubtful", str(share * 1.01))


@pytest.mark.filterwarnings("default:.* completed runs are assumed")
def test_check_counts_failures_older_than_30_days(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    """Edition D has no counters, and only one run of the deployment is in the 30 days.

    The newest run has an error; that the others failed follows from their sessions. No page is requested twice.
    The record of an archived deployment still has counters.
    """
    with current_sandbox(monkeypatch, now=NOW - timedelta(days=60), runs=250, edition="D") as served:
        deployment_id = scheduled_deployments(served)[0]["id"]
        archived = next(one for one in served.deployments if one["archived_at"])
        stats = {"total_runs": 7, "total_failures": 1, "consecutive_failures": 0}
        served.rewrite({**archived, "metadata": {"cas_config": {"stats": stats}}})
        served.create_runs(3, deployment_id=deployment_id)
        runs = [one for one in served.runs if one["deployment_id"] == deployment_id]
        newest, *others = runs
        triggers = [one["trigger_context"].get("scheduled_at", one["created_at"]) for one in others]
        first = min(datetime.fromisoformat(one) for one in triggers)
        recent = dict.fromkeys(["created_at", "triggered_at"], (NOW - timedelta(days=1)).isoformat())
        error = {"type": "unknown_error", "message": "x"}
        served.rewrite({**newest, **recent, "session_id": None, "error": error})
        session_ids = {one["session_id"] for one in others}
        for one in served.sessions:
            if one["id"] in session_ids:
                served.rewrite({**one, "status": "terminated", "archived_at": None})
        for words, pages in (("check", None), ("check --refresh", 1)):
            served.requests.clear()
            findings = invoke.json(words, code=1)
            page_requests = sum(one.path == "/deployment_runs" for one in served.requests)
            assert pages in {None, page_requests}
            failing = {one["deployment_id"]: one for one in findings if one["kind"] == "failing"}[deployment_id]
            assert f"failed {len(runs)} times in a row since {first:%Y-%m-%d %H:%M} UTC" in failing["detail"]
            assert datetime.fromisoformat(failing["since"]) == first
        assert re.search(rf"  {len(runs)}  .*  unknown_error$", invoke("top --once").out, re.MULTILINE)


@pytest.mark.filterwarnings("default:.* completed runs are assumed")
def test_older_events_are_read_where_they_decide_whether_a_deployment_fails(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    """Of three rare deployments, one failed ten times in a row; only the events of nine older sessions show it.

    The third did not run in the last 30 days; that its last runs failed is in their events too.
    """
    with current_sandbox(monkeypatch, now=NOW - timedelta(days=60), runs=150, edition="D") as served:
        failing, recovered, quiet = (one["id"] for one in scheduled_deployments(served)[:3])
        served.forget_runs(NOW)
        last_of_quiet = {one["session_id"] for one in served.create_runs(3, status="failed", deployment_id=quiet)}
        served.create_runs(9, status="failed", deployment_id=failing)
        served.create_runs(2, status="failed", deployment_id=recovered)
        (last,) = served.create_runs(1, deployment_id=recovered)
        older = {one["session_id"] for one in served.runs if one["deployment_id"] == failing}
        recent = dict.fromkeys(["created_at", "triggered_at"], (NOW - timedelta(days=1)).isoformat())
        for id_ in (failing, recovered):
            (newest,) = served.create_runs(1, deployment_id=id_)
            error = {"type": "unknown_error", "message": "x"}
            served.rewrite({**newest, **recent, "session_id": None, "error": error})

        def failing_found(words: str) -> dict[str, str]:
            served.requests.clear()
            findings = invoke.json(words, code=1)  # triggers are missed too
            return {one["deployment_id"]: one["detail"] for one in findings if one["kind"] == "failing"}

        def sessions_with_events() -> set[str]:
            return {one.path.split("/")[2] for one in served.requests if one.path.endswith("/events")}

        assert failing_found("check") == failing_found("check --outcomes events --offline") == {}
        assert failing_found("check --outcomes events --streak 1").keys() == {failing, recovered, quiet}
        assert sessions_with_events() == last_of_quiet
        found = failing_found("check --outcomes events")
        assert found.keys() == {failing, quiet}
        assert "failed 10 times in a row" in found[failing]
        assert "failed 3 times in a row" in found[quiet]
        assert sessions_with_events() >= {*older, last["session_id"]}
        assert failing_found("check --outcomes events") == failing_found("check") == found
        assert sessions_with_events() == set()


@pytest.mark.filterwarnings("default:.* completed runs are assumed", "default:.* that seem to be stuck")
def test_run_that_ended_is_not_stuck_while_a_person_continues_its_session(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke, tmp_path: Path
) -> None:
    """Two runs of a day ago have sessions that are running; the events of one show that its run has ended."""
    with current_sandbox(monkeypatch, now=NOW - timedelta(days=1), deployments=10, runs=10, edition="D") as served:
        served.forget_runs(NOW)
        deployment = scheduled_deployments(served)[0]
        id_ = deployment["id"]
        served.rewrite({**deployment, "name": "Nightly triage"})
        served.create_runs(11, deployment_id=id_)
        (running,) = served.create_runs(1, deployment_id=id_, status="running")
        continued = served.runs[1]
        for one in served.sessions:
            if one["id"] == continued["session_id"]:
                served.rewrite({**one, "status": "running"})
        paths = {f"/sessions/{one['session_id']}/events" for one in (continued, running)}

        def stuck_in(words: str) -> str:
            served.requests.clear()
            (found,) = (one["detail"] for one in invoke.json(words, code=1) if one["kind"] == "stuck")
            return str(found)

        alone = re.compile(r"Nightly triage: a run has not ended after [^.]*\.")
        assert alone.fullmatch(stuck_in("check --outcomes events"))
        assert {one.path for one in served.requests} >= paths
        assert alone.fullmatch(stuck_in("check"))
        assert {one.path for one in served.requests} == paths
        assert all("types[]" in one.query for one in served.requests)
        assert [row["run_id"] for row in invoke.json("unusual") if row["kind"] == "stuck"] == [running["id"]]
        invoke(f"report {tmp_path / 'r.html'} --runs")
        assert "a run has not ended after" in (tmp_path / "r.html").read_text(encoding="utf-8")

        unread = ": 2 runs have not ended, .* A run may have ended earlier, if a person continued its session."
        for words in ("check --offline", "check --outcomes sessions"):
            assert re.search(unread, stuck_in(words))
            assert paths.isdisjoint(one.path for one in served.requests)
        served.misbehave("403")
        served.misbehave("403")
        assert re.search(unread, stuck_in("check"))
        served.misbehave("403")
        served.misbehave("403")
        assert "2 sessions of runs that seem to be stuck could not be read" in invoke("check", code=1).err


@pytest.mark.filterwarnings("default:.* completed runs are assumed")
@pytest.mark.parametrize(("before", "last_status"), [(2, "failed"), (3, "completed")])
def test_ends_that_events_show_count_in_streaks(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke, tmp_path: Path, before: int, last_status: str
) -> None:
    """The service gives the errors of some runs; the session of the last run is running again.

    So is a session of another deployment, whose events have no times.
    """
    with current_sandbox(monkeypatch, now=NOW - timedelta(days=1), deployments=10, runs=10, edition="D") as served:
        served.forget_runs(NOW)
        id_, other = (one["id"] for one in scheduled_deployments(served)[:2])
        served.create_runs(11, deployment_id=id_)
        for one in served.create_runs(before, deployment_id=id_):
            served.rewrite({**one, "session_id": None, "error": {"type": "unknown_error", "message": "x"}})
        (last,) = served.create_runs(1, status=last_status, deployment_id=id_)
        *_, untimed = served.create_runs(11, deployment_id=other)
        untimed_end = {"id": "evt_1", "type": "session.status_idle", "stop_reason": {"type": "end_turn"}}
        served.rewrite_events(untimed["session_id"], [untimed_end])
        for one in served.sessions:
            if one["id"] in {last["session_id"], untimed["session_id"]}:
                served.rewrite({**one, "status": "running"})

        def found_by(words: str) -> dict[str, str]:
            found = invoke.json(words, code=1)
            return {one["kind"]: one["detail"] for one in found if one["deployment_id"] == id_}

        is_failing = last_status == "failed"
        for words in ("check --outcomes events", "check"):
            found = found_by(words)
            assert ("failed 3 times in a row" in found.get("failing", "")) == is_failing == ("failing" in found)
            assert "stuck" not in found
        found = found_by("check --outcomes sessions")
        assert ("failing" in found) != is_failing
        assert "stuck" in found
        invoke(f"report {tmp_path / 'r.html'} --runs")
        report = (tmp_path / "r.html").read_text(encoding="utf-8")
        assert ("failed 3 times in a row" in report) == is_failing


@pytest.mark.filterwarnings("default:.* completed runs are assumed", "default:not all runs")
def test_check_offline_warns_if_not_all_runs_are_stored(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    """A streak that began before the stored runs would be too short. `top` never reads more than 30 days.

    The view of `top` is computed from empty frames, as only the warnings of its reading are tested.
    """
    frames = qd.flatten_deployments([]), qd.flatten_runs([]), qd.flatten_sessions([])
    empty = overview.overview(*frames, now=pd.Timestamp(NOW))
    monkeypatch.setattr(overview, "overview", lambda *_, **__: empty)
    with current_sandbox(monkeypatch, deployments=15, runs=150, edition="D"):
        assert "not all runs" not in invoke("top --once").err
        message = " ".join(invoke("check --offline", code=1).err.split())
        assert "not all runs that are asked for are kept" in message
        assert "not all runs" not in invoke("top --once --offline").err
        set_wall_clock(monkeypatch, NOW + timedelta(days=3), "cli.service")
        assert "the stored" not in invoke("top --once --offline").err


@pytest.mark.usefixtures("check_computed_once")
def test_check_markdown_is_one_table_with_escaped_names(sandbox: Sandbox, invoke: Invoke) -> None:
    deployment = active_deployments(sandbox)[0]
    sandbox.rewrite({**deployment, "name": "a|b *c* <d>\x1b[31m\nhttps://evil.example"})
    sandbox.create_runs(9, status="failed", deployment_id=deployment["id"])
    text = invoke("check --markdown --top 1000", code=1).out
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == "| severity | what | since | deployment |"
    assert "\x1b" not in text
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert len(rows) - 2 == len(invoke.json("check", code=1))


@pytest.mark.usefixtures("sandbox", "check_computed_once")
def test_tz_option_sets_the_time_zone_of_findings(invoke: Invoke) -> None:
    found = invoke.json("check --tz Asia/Kolkata", code=1)
    assert {one["since"][-6:] for one in found if one["since"]} == {"+05:30"}
    assert not any(" UTC" in one["detail"] for one in found)
    assert any(" +05:30" in one["detail"] for one in found)
    assert " UTC" not in invoke("check --tz Asia/Kolkata --markdown", code=1).out


# -- snapshots ---------------------------------------------------------------------------------------------------


def test_missed_and_check_use_stored_snapshots(sandbox: Sandbox, invoke: Invoke, tmp_path: Path) -> None:
    """All deployments changed an hour ago; only an older snapshot shows that their schedules did not change."""
    WallClock.moment = NOW - timedelta(days=3)
    invoke("pull deployments --include-archived --refresh")
    stamp = (NOW - timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    for one in sandbox.deployments:
        sandbox.rewrite({**one, "updated_at": stamp, "description": "changed"})
    WallClock.moment = NOW

    def rows(*words: str) -> pd.DataFrame:
        return pd.DataFrame(invoke.json(*words, code=None))

    active_ids = {one["id"] for one in active_deployments(sandbox)}
    since, due = NOW - timedelta(days=2), NOW - timedelta(minutes=10)
    truth = {(id_, at) for id_, at in sandbox.left_out if since <= at < due and id_ in active_ids}
    assert truth
    found = rows("missed", "--since", since.isoformat(), "--until", NOW.isoformat())
    known = found[found["deployment_id"].isin(active_ids)]
    pairs = set(zip(known["deployment_id"], pd.to_datetime(known["scheduled_at"]), strict=True))
    assert pairs == truth
    assert known["certain"].all()
    checked = rows("check", "--since", "2D")
    assert set(checked.loc[checked["kind"] == "missed", "deployment_id"]) == {id_ for id_, _ in truth}
    other = ("--cache-dir", str(tmp_path / "without"))
    without = rows("missed", "--since", "2D", *other)
    assert not without.loc[without["deployment_id"].isin(active_ids), "certain"].any()
    checked = rows("check", "--since", "2D", *other)
    assert "missed" not in set(checked["kind"])


def test_missed_ends_when_the_runs_were_fetched(
    sandbox: Sandbox, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(*words: str) -> set[tuple[str, pd.Timestamp]]:
        listed = invoke.json("missed --since", since, *words)
        return {(one["deployment_id"], pd.Timestamp(one["scheduled_at"])) for one in listed if one["certain"]}

    since = (NOW - timedelta(days=2)).isoformat()
    found = rows("--refresh")
    assert found
    assert found <= set(sandbox.left_out)
    set_wall_clock(monkeypatch, NOW + timedelta(hours=6), "cli.missed")
    assert rows("--offline") == found
    since = (NOW + timedelta(hours=1)).isoformat()
    message = invoke(f"missed --since {since} --fail", code=2).err
    assert "not after --since; give an earlier --since, or read it again with --refresh" in message
    message = invoke(f"missed --since {since} --offline --fail", code=2).err
    assert "not after --since; give an earlier --since, or read it again without --offline" in message
    since = (NOW + timedelta(hours=7)).isoformat()
    assert "--since is in the future" in invoke(f"missed --since {since} --fail", code=2).err


# -- changes, and dated reports ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("sandbox")
def test_changes_without_a_snapshot_stores_the_first_one(invoke: Invoke) -> None:
    assert invoke("changes").out == "there was no snapshot to compare with; the first one is stored now\n"
    assert invoke("changes").out.startswith("nothing to compare: the deployments were last read at ")
    assert "; --refresh reads the present list" in invoke("changes").unwrapped
    assert "--refresh reads" not in invoke("changes --refresh").out


@pytest.mark.usefixtures("sandbox")
def test_changes_with_a_new_token_says_that_there_are_snapshots_of_another(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke("pull deployments")
    earlier = qd.Client().account
    monkeypatch.setenv("QODERDATA_ACCOUNT", "production")
    others = "There are snapshots of another token or account; "
    told = f"; the first one is stored now. {others}QODERDATA_ACCOUNT names whose are read"
    assert told in invoke("changes").unwrapped
    with pytest.raises(CacheError, match=others + r"Client\(account=…\) names whose are read"):
        qd.load_deployments(client=qd.Client(account="staging"), as_of="1D")
    monkeypatch.setenv("QODERDATA_ACCOUNT", earlier)
    assert invoke("changes").out.startswith("nothing to compare: the deployments were last read at ")


@pytest.mark.filterwarnings("ignore:no snapshot was kept")
@pytest.mark.usefixtures("sandbox")
def test_changes_without_any_snapshot_says_how_to_store_one(tmp_path: Path, invoke: Invoke) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "history").touch()
    words = ["changes", "--cache-dir", str(folder)]
    text = "there is no snapshot to compare with; {}\n"
    assert invoke(*words).out == text.format("none could be stored, for the reason in the warning")
    assert invoke(*words).out == text.format("--refresh stores one")
    assert invoke(*words, "--offline").out == text.format("call once without --offline to store one")
    (folder / "history").unlink()
    assert (
        invoke(*words, "--refresh").out == "there was no snapshot to compare with; the first one is stored now\n"
    )


@pytest.mark.usefixtures("sandbox")
def test_commands_go_on_without_snapshots_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    invoke("pull deployments --refresh")
    words = f"missed --since {NOW - timedelta(days=2):%Y-%m-%dT%H:%MZ}"
    expected = invoke(words).out
    monkeypatch.setattr(qd, "load_snapshots", Mock(side_effect=CacheError("pass another cache_dir")))
    printed = invoke(words)
    assert printed.out == expected
    note = "qoderdata: warning: pauses and earlier schedules are not known: pass another --cache-dir\n"
    assert printed.err == note


@pytest.mark.usefixtures("sandbox")
def test_missed_counts_from_the_time_that_it_prints(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    """An age is counted back once: loading may take minutes, and the runs of these minutes would be missing."""
    compute = Mock(wraps=qd.missed_triggers)
    monkeypatch.setattr(qd, "missed_triggers", compute)
    printed = " ".join(invoke("missed --since 2h"))
    assert f" from {compute.call_args.kwargs['since']:%Y-%m-%d %H:%M} UTC to " in printed


@pytest.mark.usefixtures("sandbox")
def test_missed_ends_when_the_deployments_were_fetched(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    """A deployment that was changed later may have had another schedule then."""
    df, compute = qd.load_deployments(), Mock(wraps=qd.missed_triggers)
    df.attrs["fetched_at"] = (NOW - timedelta(hours=2)).isoformat()
    monkeypatch.setattr(qd, "load_deployments", lambda **_: df)
    monkeypatch.setattr(qd, "missed_triggers", compute)
    invoke("missed --since 1D --grace 3h")
    until, grace = (compute.call_args.kwargs[name] for name in ("until", "grace"))
    assert (until, grace) == (NOW - timedelta(hours=2), "3h")


def test_changes_within_one_minute_are_dated_by_the_second(sandbox: Sandbox, invoke: Invoke) -> None:
    first, second = (NOW.replace(second=second) for second in (5, 50))
    WallClock.moment = first
    qd.load_deployments(refresh=True, include_archived=True)
    rewrite(sandbox, scheduled_deployments(sandbox)[0], name="another name")
    WallClock.moment = second
    out = invoke("changes --refresh").unwrapped
    assert f"from the snapshot of {first:%Y-%m-%d %H:%M:%S} UTC to {second:%Y-%m-%d %H:%M:%S} UTC" in out


def test_changes_say_that_no_deployment_passes_all_filters(sandbox: Sandbox, invoke: Invoke) -> None:
    invoke("changes")
    deployment = scheduled_deployments(sandbox)[0]
    teams = {one["metadata"]["team"] for one in sandbox.deployments if "team" in one["metadata"]}
    other = min(teams - {deployment["metadata"].get("team")})
    printed = invoke("changes", "--deployment", deployment["id"], "--where", f"team={other}")
    filters = f"--deployment {deployment['id']} --where team={other}"
    assert printed.err == f"qoderdata: no deployment passes the filters: {filters}\n"
    assert filters in printed.unwrapped


@pytest.mark.parametrize("archived", [True, False])
def test_changes_describes_each_change_in_words(sandbox: Sandbox, invoke: Invoke, *, archived: bool) -> None:
    for days in (9, 3):
        WallClock.moment = NOW - timedelta(days=days)
        qd.load_deployments(refresh=True, include_archived=archived)
        first, second, third, *_ = scheduled_deployments(sandbox)
        if days == 9:
            rewrite(sandbox, first, schedule={**first["schedule"], "expression": "1 8 * * *"})
    error = {"type": "error", "error": {"type": "vault_not_found_error"}}
    rewrite(sandbox, second, status="paused", paused_reason=error)
    rewrite(sandbox, third, name="evil\x1b[31m name")
    WallClock.moment = NOW
    out = invoke("changes --since 7D --refresh").out
    assert re.search(r"schedule \S+ \S+ \S+ \S+ \S+ → 1 8 \* \* \*\n", out)
    assert "paused by error: vault_not_found_error\n" in out
    assert re.search(r"name .* → evil�\[31m name\n", out)
    at = NOW - timedelta(days=9)
    assert f"from the snapshot of {at:%Y-%m-%d %H:%M} UTC" in out
    out = invoke("changes --since 7D --tz Asia/Tokyo").out
    assert f"from the snapshot of {at + timedelta(hours=9):%Y-%m-%d %H:%M} +09:00" in out
    assert [one["change"] for one in invoke.json("changes --since 2D")] == ["paused", "other"]
    assert len(invoke.json("changes --since 400D")) == 3
    assert "snapshots" in invoke("cache").out


def test_changes_since_a_snapshot_without_archived_deployments_show_which_were_archived(
    sandbox: Sandbox, invoke: Invoke
) -> None:
    WallClock.moment = NOW - timedelta(days=3)
    invoke("deployments")
    first = scheduled_deployments(sandbox)[0]
    rewrite(sandbox, first, archived_at=f"{NOW:%Y-%m-%dT%H:%M:%SZ}")
    WallClock.moment = NOW
    invoke("deployments --refresh")
    for words, change in (("", "archived"), ("--offline", "removed")):  # offline, the other list may not be stored
        rows = invoke.json(f"changes --since 2D {words}")
        assert [(row["deployment_id"], row["change"]) for row in rows] == [(first["id"], change)]
        is_said = "--refresh reads the present list" in invoke(f"changes --since 2D {words}").out
        assert is_said is (words == "")


def test_changes_show_what_was_created_and_archived_since_a_snapshot_without_any_archived_ones(
    sandbox: Sandbox, invoke: Invoke
) -> None:
    for one in sandbox.deployments:
        rewrite(sandbox, one, archived_at=None)
    WallClock.moment = NOW - timedelta(days=3)
    qd.load_deployments(refresh=True, include_archived=True)
    (new,) = sandbox.create_deployments(1)
    sandbox.archive(new["id"])
    WallClock.moment = NOW
    rows = invoke.json("changes --since 2D --refresh")
    assert [(row["deployment_id"], row["change"]) for row in rows] == [(new["id"], "created")]


@pytest.mark.parametrize(
    ("with_archived", "without", "shows_archived"),
    [(4, 3, False), (3, 4, True), (3, 3, True)],
)
def test_changes_compare_with_the_last_snapshot_of_either_list(
    sandbox: Sandbox, invoke: Invoke, *, with_archived: int, without: int, shows_archived: bool
) -> None:
    """At the same time, the list with archived deployments is taken, as it shows more."""
    archived, listed, *_ = scheduled_deployments(sandbox)
    rewrite(sandbox, archived, archived_at=f"{NOW - timedelta(days=9):%Y-%m-%dT%H:%M:%SZ}")
    for days in (5, 4, 3):
        WallClock.moment = NOW - timedelta(days=days)
        rewrite(sandbox, listed, name=f"{days} days ago")
        for is_archived in [one for one, age in ((True, with_archived), (False, without)) if age == days]:
            qd.load_deployments(refresh=True, include_archived=is_archived)
    rewrite(sandbox, archived, name="another name", archived_at=f"{NOW - timedelta(days=9):%Y-%m-%dT%H:%M:%SZ}")
    rewrite(sandbox, listed, name="now")
    WallClock.moment = NOW
    rows = invoke.json("changes --since 2D --refresh")
    expected = {(listed["id"], "3 days ago", "now")}
    if shows_archived:
        expected.add((archived["id"], archived["name"], "another name"))
    assert {(row["deployment_id"], row["before"], row["after"]) for row in rows} == expected


def test_by_adds_columns_to_changes_also_of_removed_deployments(sandbox: Sandbox, invoke: Invoke) -> None:
    first, second, *_ = scheduled_deployments(sandbox)
    for one in (first, second):
        rewrite(sandbox, one, metadata={**one["metadata"], "owner": "before"})
    WallClock.moment = NOW - timedelta(days=3)
    invoke("deployments")
    rewrite(sandbox, first, archived_at=f"{NOW:%Y-%m-%dT%H:%M:%SZ}")
    rewrite(sandbox, second, name="another name", metadata={**second["metadata"], "owner": "after"})
    WallClock.moment = NOW
    invoke("deployments --refresh")
    words = "changes --since 2D --offline --by owner"
    found = {row["deployment_id"]: row["metadata_owner"] for row in invoke.json(words)}
    assert found == {first["id"]: "before", second["id"]: "after"}
    assert invoke(words).out.startswith("owner  ")


def test_changes_of_one_team_are_those_of_deployments_that_are_or_were_of_it(
    sandbox: Sandbox, invoke: Invoke
) -> None:
    first, second, third, *_ = scheduled_deployments(sandbox)
    for one in (first, second, third):
        rewrite(sandbox, one, metadata={**one["metadata"], "team": "before"})
    WallClock.moment = NOW - timedelta(days=9)
    qd.load_deployments(refresh=True, include_archived=True)
    rewrite(sandbox, first, metadata={**first["metadata"], "team": "after"})
    rewrite(sandbox, second, name="renamed", metadata={**second["metadata"], "team": "before"})
    WallClock.moment = NOW
    invoke("changes --refresh")
    for words, ids in (
        ("--where team=before", {first["id"], second["id"]}),
        ("--where team=after", {first["id"]}),
        ("--deployment renamed --where team=before", {second["id"]}),
        (f"--deployment {third['id']}", set()),
    ):
        assert {row["deployment_id"] for row in invoke.json(f"changes {words}")} == ids
        assert f"only deployments that pass {words}" in invoke(f"changes {words}").unwrapped
    assert "no deployment has this value of 'team'" in invoke("changes --where team=none", code=2).err


def test_report_compares_with_the_snapshot_one_week_before_start(
    sandbox: Sandbox, invoke: Invoke, tmp_path: Path
) -> None:
    for days in (30, 18, 12, 1):
        WallClock.moment = NOW - timedelta(days=days)
        invoke("pull deployments --refresh --include-archived")
        rewrite(sandbox, scheduled_deployments(sandbox)[0], name=f"named {days} days ago")
    WallClock.moment = NOW
    path = tmp_path / "report.html"
    invoke("report", str(path), "--start", f"{NOW - timedelta(days=10):%Y-%m-%dT%H:%M:%SZ}")
    text = re.sub("<[^>]*>", "", path.read_text(encoding="utf-8"))
    assert f"Since the snapshot of {NOW - timedelta(days=18):%Y-%m-%d %H:%M} UTC" in text


def test_report_is_given_the_snapshots_of_two_weeks_and_that_of_a_week_ago(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    """Where none is a week old, the changes are those since the first one."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(qd, "write_report", lambda *_, **options: given.update(options))

    def days_of_snapshots() -> list[int]:
        invoke("report r.html --tz Asia/Tokyo")
        times = [datetime.fromisoformat(frame.attrs["fetched_at"]) for frame in given["snapshots"]]
        return [round((NOW - time) / timedelta(days=1)) for time in times]

    def pull(days: int) -> None:
        WallClock.moment = NOW - timedelta(days=days)
        qd.load_deployments(refresh=True, include_archived=True)
        rewrite(sandbox, scheduled_deployments(sandbox)[0], name=f"named {days} days ago")

    pull(5)
    pull(3)
    WallClock.moment = NOW
    assert days_of_snapshots() == [5, 3, 5]
    assert given["tz"] == "Asia/Tokyo"
    shutil.rmtree(qd.cache_usage()["location"])
    for days in (20, 12, 2):
        pull(days)
    WallClock.moment = NOW
    assert days_of_snapshots() == [20, 12, 2, 12]


def test_since_of_a_report_is_relative_to_start(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    arguments: dict[str, Any] = {}
    monkeypatch.setattr(qd, "write_report", lambda *_, **options: arguments.update(options))
    start = NOW - timedelta(days=20)
    for more, days, ended in (("", 30, NOW), ("--since 9D --until 2D", 9, start - timedelta(days=2))):
        invoke(f"report r.html --runs --costs --start {start.isoformat()} {more}")
        since = start - timedelta(days=days)
        ids = {one["id"] for one in sandbox.runs if since <= datetime.fromisoformat(one["triggered_at"]) < ended}
        assert set(arguments["runs"]["id"]) == ids
    expected_session_ids = {
        one["id"]
        for one in sandbox.sessions
        if datetime.fromisoformat(one["created_at"]) >= start - timedelta(days=90)
    }
    assert set(arguments["sessions"]["id"]) == expected_session_ids


@pytest.mark.filterwarnings("default:.* completed runs are assumed")
def test_report_of_a_time_counts_runs_before_it_and_names_its_filters(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(qd, "write_report", lambda df, *_, **more: given.update(more, deployments=df))
    with current_sandbox(monkeypatch, deployments=15, runs=150, edition="D") as served:
        start = NOW - timedelta(days=20)
        runs = [one for one in served.runs if datetime.fromisoformat(one["created_at"]) < start]
        assert 10 < len(runs) < 140
        for more in ("", "--runs"):
            invoke(f"report r.html --start {start.isoformat()} --status active {more}")
            deployments, all_runs = given["deployments"], given["all_runs"]
            assert (all_runs is None) == (not more)
            counted_runs = deployments if all_runs is None else qd.fill_counters(deployments, all_runs)
            counts = counted_runs.set_index("id")["stats_total_runs"]
            expected = Counter(one["deployment_id"] for one in runs if one["deployment_id"] in counts.index)
            assert counts[counts > 0].to_dict() == expected
            assert all_runs is None or set(all_runs["deployment_id"]) == expected.keys()
            assert given["title"] == "Scheduled agents on Qoder Cloud: status active"
        invoke("report r.html --lang zh --agent", given["deployments"]["agent_id"].iloc[0])
        assert given["title"].startswith("Qoder Cloud 定时智能体\N{FULLWIDTH COLON}agent_")
        invoke("report r.html --lang zh")
        assert given["title"] == "Qoder Cloud 定时智能体"
        invoke("report r.html --title", "Team data")
        assert given["title"] == "Team data"


def test_the_window_of_now_is_not_whole(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    with current_sandbox(monkeypatch, deployments=15, runs=150):
        for until in ((), ("--until", "2099-01-01T00:00Z")):
            words = ["runs", "--freq", "1D", "--since", "all", *until]
            last = datetime.fromisoformat(invoke.json(" ".join(words))[-1]["window"])
            has_note = "the last window is not whole" in invoke(" ".join(words)).out
            assert has_note is (last + timedelta(days=1) > NOW)


# -- recipes -----------------------------------------------------------------------------------------------------


def recipes() -> list[str]:
    """Return the commands in the section of the README about cron and CI."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("### In cron and in CI")[1].split("\n## ")[0]
    lines = re.findall(r"^(qoderdata .*?)\s*(?:#.*)?$", section, re.MULTILINE)
    assert len(lines) >= 3
    return lines


def test_recipes_of_the_readme_return_1_for_findings(sandbox: Sandbox, invoke: Invoke) -> None:
    sandbox.create_runs(60, status="failed")
    for line in recipes():
        captured = invoke(*shlex.split(line)[1:], code=1)
        assert captured.out
        assert "\x1b" not in captured.out + captured.err


# -- without a permission, and over which time ------------------------------------------------------------------


def test_check_without_permission_for_sessions_skips_budgets_and_says_so(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    """The error of an account that may not read sessions advises `--outcomes runs`, so that this must work."""
    with current_sandbox(monkeypatch, deployments=15, runs=80, edition="D") as served:
        assert any(one.get("budget") for one in served.deployments)
        invoke("pull runs --outcomes runs")
        invoke("pull deployments --include-archived")
        served.misbehave("403")
        printed = invoke("check --outcomes runs", code=1)
        assert printed.out
        assert "warning: budgets are not checked, as sessions could not be loaded: GET /sessions: " in printed.err
        assert "check --workspace" in printed.err


def test_missed_says_which_time_it_is_about(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    period = r"triggers from \d{4}-\d\d-\d\d \d\d:\d\d \+09:00 to \d{4}-\d\d-\d\d \d\d:\d\d \+09:00\n"
    assert re.search(period, invoke("missed --since 7D --tz Asia/Tokyo --base-url", sandbox.base_url).out)
    with current_sandbox(monkeypatch, deployments=1):
        deployment = qd.load_deployments(refresh=True)
        monkeypatch.setattr(qd, "load_deployments", lambda **_: deployment.assign(status="paused"))
        text = " ".join(invoke("missed --since", (NOW - timedelta(minutes=30)).isoformat()).out.split())
        latest = datetime.now(UTC) - timedelta(minutes=10)  # what is due later may still start
    begin = f"{NOW - timedelta(minutes=30):%Y-%m-%d %H:%M} UTC"
    period = f"nothing was missed from {re.escape(begin)} to (.*) UTC"
    paused = "1 deployment is paused now, and nothing is missed while paused"
    said = re.fullmatch(rf"{period}; {paused} \(see `qoderdata deployments --status paused`\)", text)
    assert said is not None
    assert said[1] in {f"{latest - timedelta(minutes=minutes):%Y-%m-%d %H:%M}" for minutes in (0, 1, 2)}


def test_missed_counts_paused_deployments_with_a_schedule(sandbox: Sandbox, invoke: Invoke) -> None:
    rewrite(sandbox, scheduled_deployments(sandbox)[0], status="paused", schedule=None)
    listed = [one for one in sandbox.deployments if one["archived_at"] is None]
    count = sum(one["status"] == "paused" and one["schedule"] is not None for one in listed)
    assert count > 1
    text = " ".join(invoke("missed --since 7D").out.split())
    assert f" {count} deployments are paused now, and nothing is missed while paused (see " in text
    assert "paused now" not in invoke("missed --since 7D --status active").out


def test_changes_since_before_the_first_snapshot_say_what_is_not_known(sandbox: Sandbox, invoke: Invoke) -> None:
    WallClock.moment = NOW - timedelta(days=3)
    invoke("pull deployments --include-archived")
    WallClock.moment = NOW
    unknown = "there is no earlier snapshot: what changed before is not known"
    assert unknown in invoke("changes --since 7D").out
    rewrite(sandbox, scheduled_deployments(sandbox)[0], name="another name")
    assert f"\n{unknown}\n" in invoke("changes --since 7D --refresh").out
    assert unknown not in invoke("changes --since 2D").out


CRON_PAGE = (ROOT / "docs" / "howto" / "cron-and-ci.md").read_text(encoding="utf-8")
CRONTAB = re.findall(r"^5 \* \* \* \* +(.*)$", CRON_PAGE, re.MULTILINE)


@pytest.mark.parametrize("line", CRONTAB, ids=["mail", "mail once", "chat"])
def test_the_crontab_lines_of_the_docs_mail_what_is_wrong(
    small_sandbox: Sandbox, tmp_path: Path, line: str
) -> None:
    """A line prints nothing while nothing (new) is wrong, and the findings, or why there are none, otherwise.

    As cron runs it: with a minimal environment, without a terminal, and with the token from a private file. The
    script that posts to a chat prints here what it is given.
    """
    token = tmp_path / ".qoder-token"
    token.write_text(f"export QODER_ACCESS_TOKEN={small_sandbox.pat}\n", encoding="utf-8")
    token.chmod(0o600)
    (tmp_path / "post_to_slack.py").write_text("import sys; sys.stdout.write(sys.stdin.read())", encoding="utf-8")
    for name, module in (("python", ""), ("qoderdata", "-m qoderdata")):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "QODER_BASE_URL": small_sandbox.base_url,
        "PYTHONPATH": str(ROOT),
    }

    def mailed() -> str:
        done = subprocess.run(
            ["/bin/sh", "-c", line], env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=False, timeout=60,
        )  # fmt: skip
        printed = done.stdout + done.stderr
        assert "\x1b" not in printed
        assert small_sandbox.pat not in printed
        return printed

    first = [line for line in mailed().splitlines() if line.startswith("error ")]
    assert first
    assert set(first).isdisjoint(mailed().splitlines()) == ("--only-new" in line)
    archive_all(small_sandbox)
    shutil.rmtree(tmp_path / ".cache")
    assert mailed() == ""
    small_sandbox.misbehave("401")
    shutil.rmtree(tmp_path / ".cache")
    assert "401 authentication_error" in mailed()
