"""Tests of `check`, `missed`, `--fail-over`, `changes` and dated reports: exit codes, thresholds and snapshots."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import qoderdata as qd
from qoderdata import overview
from qoderdata.cli import main
from qoderdata.formatting import counted, format_time, one_line
from qoderdata.load import lists
from qoderdata.sandbox import Sandbox
from tests.test_cli_output import run_in_shell

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("default:no run is in the time asked for")

NOW = datetime.now(UTC).replace(microsecond=0)
ROOT = Path(__file__).parents[1]


class Clock(datetime):
    """A fake `datetime` whose `now` the tests set."""

    moment = NOW

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override] # noqa: ANN401
        return cls.moment.astimezone(tz)


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
    """Serve a sandbox whose clock is the current time, and set the environment to it."""
    with Sandbox(seed=7, now=NOW, **options) as served:
        monkeypatch.setenv("QODER_PAT", served.pat)
        monkeypatch.setenv("QODER_BASE_URL", served.base_url)
        yield served


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Serve a sandbox whose clock is the current time and which missed some triggers."""
    monkeypatch.setattr(lists, "datetime", Clock)
    monkeypatch.setattr(Clock, "moment", NOW)
    with current_sandbox(monkeypatch, deployments=25, runs=400, left_out=60) as served:
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


def active_deployments(sandbox: Sandbox) -> list[dict[str, Any]]:
    return [
        one for one in sandbox.deployments
        if one["status"] == "active" and not one["archived_at"] and one["schedule"]
    ]  # fmt: skip


def rewrite(sandbox: Sandbox, record: dict[str, Any], **facts: Any) -> None:  # noqa: ANN401
    sandbox.rewrite({**record, "updated_at": NOW.isoformat().replace("+00:00", "Z"), **facts})


# -- exit codes --------------------------------------------------------------------------------------------------

COMMANDS_WITH_EXIT_CODE_1 = ["check", "missed --fail --since 7D", "runs --fail-over 0 --since 7D"]


@pytest.mark.long
@pytest.mark.parametrize("words", COMMANDS_WITH_EXIT_CODE_1)
@pytest.mark.parametrize("pipe", ["head -1", "true", "cat"])
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


def test_commands_without_findings_return_0(sandbox: Sandbox) -> None:
    archive_all(sandbox)
    sandbox.forget_runs(NOW + timedelta(days=1))
    for one in sandbox.deployments:  # archived long ago
        sandbox.rewrite({**one, "archived_at": "2020-01-01T00:00:00Z"})
    for words in ("check", "missed --fail --since 7D", "runs --fail-over 1 --since 7D"):
        assert main(words.split()) == 0


def test_exit_codes_of_check(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    deployment = active_deployments(sandbox)[0]
    sandbox.create_runs(5, status="failed", deployment_id=deployment["id"])
    assert main(["check", "--refresh"]) == 1
    assert f"{deployment['name']} failed" in capsys.readouterr().out
    assert main(["check", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {"severity", "kind", "deployment_id", "name", "detail", "since"} == set(found[0])
    assert [one["severity"] for one in found] == sorted(one["severity"] for one in found)
    assert main(["check", "--streak", "0"]) == 2
    assert main(["check", "--since", "7"]) == 2
    sandbox.misbehave("401")
    assert main(["check", "--refresh"]) == 3
    sandbox.misbehave("403")
    assert main(["check", "--refresh"]) == 4
    sandbox.stop()
    assert main(["check", "--refresh"]) == 5


def test_check_of_a_healthy_account_prints_no_finding(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert main(["check"]) == 0
    assert capsys.readouterr().out == "nothing is wrong\n"
    sandbox.create_deployments(1)
    (new, *_) = sandbox.deployments
    budget = {"type": "limit", "max_credit_cost": "0.01"}
    rewrite(sandbox, {**new, "id": used}, budget=budget, name="expensive")
    assert main(["check", "--refresh"]) == 0
    assert "expensive uses" in capsys.readouterr().out
    assert main(["check", "--fail-on", "warning"]) == 1


def test_missed_fail_considers_only_certain_rows(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    with Sandbox(deployments=25, seed=7, runs=400, now=NOW) as complete:
        assert main(["missed", "--fail", "--base-url", complete.base_url]) == 0
    words = ("missed", "--since", "30D")
    assert main(words) == 0
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    certain = [row for row in json.loads(capsys.readouterr().out) if row["certain"]]
    assert 0 < len(certain) <= len(sandbox.left_out)
    assert main([*words, "--fail", "--top", "1"]) == 1
    named = [f"{format_time(pd.Timestamp(row['scheduled_at']))}, {one_line(row['name'])}" for row in certain[:3]]
    more = f"; and {len(certain) - 3} more" if len(certain) > 3 else ""
    assert f"\ncertainly missed: {'; '.join(named)}{more}\n" in capsys.readouterr().out


@pytest.mark.usefixtures("sandbox")
def test_runs_fail_over_compares_the_lower_bound(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("runs", "--by", "deployment_id", "--refresh")
    assert main([*words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    lows = sorted((row["ci_low"], row["completed"] + row["failed"]) for row in rows if row["ci_low"] is not None)
    highest, decided = lows[-1]
    assert main([*words, "--fail-over", str(highest - 1e-9)]) == 1
    assert main([*words, "--fail-over", str(highest + 1e-9)]) == 0
    others = max(low for low, count in lows if count > decided) if any(n > decided for _, n in lows) else 0
    assert main([*words, "--fail-over", str((highest + others) / 2), "--min-runs", str(decided + 1)]) == 0
    assert main(["runs", "--min-runs", "3"]) == 2
    assert main(["runs", "--errors", "--fail-over", "0.5"]) == 2
    assert main(["runs", "--fail-over", "20"]) == 2


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
    words: str, figure: str, label: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words.split(), "--json"]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out) if row[figure] is not None]
    rows.sort(key=lambda row: row[figure], reverse=True)
    for limit in sorted({row[figure] for row in rows}, reverse=True)[1:5]:
        above = [row for row in rows if row[figure] > limit + 1e-9]
        assert main([*words.split(), "--fail-over", str(limit + 1e-9), "--top", "1"]) == 1
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("above --fail-over "))
        named = line.partition(": ")[2].split("; ")
        assert named[3:] == ([f"and {len(above) - 3} more"] if len(above) > 3 else [])
        for one, row in zip(named[:3], above[:3], strict=True):
            name = format_time(pd.Timestamp(row[label])) if label == "window" else one_line(row[label])
            assert re.fullmatch(rf"{re.escape(name)}, {100 * row['failure_rate']:.1f} % \(\S+ %\)", one)


@pytest.mark.usefixtures("sandbox")
def test_fail_over_note_without_groups_has_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--since", "all", "--fail-over", "0"]) == 1
    assert re.search(r"^above --fail-over 0: \S+ % \(\S+ %\)$", capsys.readouterr().out, re.MULTILINE)


def test_names_in_notes_are_escaped(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    for one in sandbox.deployments:
        sandbox.rewrite({**one, "name": "[x](http://evil.example)\x1b[2J"})
    for form in ([], ["--markdown"]):
        assert main(["failures", "--fail-over", "0", "--include-archived", *form]) == 1
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("above --fail-over "))
        assert "\x1b" not in line
        assert (": [x](http" in line) is not bool(form)


# -- thresholds --------------------------------------------------------------------------------------------------


def kinds(capsys: pytest.CaptureFixture[str], *words: str) -> list[tuple[str, str]]:
    main(["check", "--json", *words])
    return [(one["kind"], one["deployment_id"]) for one in json.loads(capsys.readouterr().out)]


def test_thresholds_of_check_are_options(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    archive_all(sandbox)
    (one,) = sandbox.create_deployments(1)
    record = {
        **one,
        "status": "active",
        "archived_at": None,
        "schedule": None,
        "budget": {"type": "limit", "max_credit_cost": "1000000"},
    }
    sandbox.rewrite(record)
    sandbox.create_runs(20, status="completed", deployment_id=one["id"])
    sandbox.create_runs(4, status="failed", deployment_id=one["id"])
    deployment_id = one["id"]
    assert kinds(capsys, "--refresh") == [("failing", deployment_id)]
    assert kinds(capsys, "--streak", "4") == [("failing", deployment_id)]
    share = qd.session_costs(qd.flatten_sessions(sandbox.sessions))["credits_p95"][deployment_id] / 1_000_000
    assert kinds(capsys, "--streak", "5", "--budget-share", str(share * 0.99)) == [("over_budget", deployment_id)]
    assert kinds(capsys, "--streak", "5", "--budget-share", str(share * 1.01)) == []


def test_since_limits_the_missed_triggers_of_check(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    def missed(since: str) -> set[str]:
        return {id_ for kind, id_ in kinds(capsys, "--since", since) if kind == "missed"}

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
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with current_sandbox(monkeypatch, deployments=10, runs=100, edition="D") as served:
        served.create_runs(1, status="waiting")
        (run_without_session,) = served.create_runs(1)
        served.delete_session(run_without_session["session_id"])

        def is_reported(*words: str) -> bool:
            return "incomplete_data" in {kind for kind, _ in kinds(capsys, *words)}

        assert is_reported()
        recent = (NOW - timedelta(days=30)).isoformat()
        ends = [one for one in served.outcomes if one["triggered_at"] >= recent]
        doubtful = sum(
            one["status"] is None or (one["status"], one["status_from"]) == ("completed", "session")
            for one in ends
        )
        share = doubtful / len(ends)
        assert share > 0
        assert main(["check", "--outcomes", "events", "--doubtful", str(share * 0.99)]) == 1
        text = capsys.readouterr().out
        assert "the service gave no session or no end for them" in " ".join(text.split())
        waiting = sum(one["status"] == "waiting" and one["triggered_at"] >= recent for one in served.outcomes)
        assert waiting > 0
        assert f"waiting for a person: {counted(waiting, 'run')}; see `qoderdata top`" in text
        assert not is_reported("--outcomes", "events", "--doubtful", str(share * 1.01))


@pytest.mark.filterwarnings("default:.* completed runs are assumed")
def test_check_counts_failures_older_than_30_days(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Edition D has no counters, and a monthly deployment has only one run in the 30 days.

    The newest run has an error; that the others failed follows from their sessions. No page is requested twice.
    """
    with current_sandbox(monkeypatch, deployments=25, runs=250, edition="D") as served:
        active_deployments = {
            one["id"] for one in served.deployments if (one["status"], one["archived_at"]) == ("active", None)
        }
        before = (NOW - timedelta(days=31)).isoformat()
        old = {one["deployment_id"]: 0 for one in served.runs if one["created_at"] < before}
        deployment_id = next(id_ for id_ in old if id_ in active_deployments)
        runs = [one for one in served.runs if one["deployment_id"] == deployment_id]
        newest, *others = runs
        served.rewrite({**newest, "session_id": None, "error": {"type": "unknown_error", "message": "x"}})
        session_ids = {one["session_id"] for one in others}
        for one in served.sessions:
            if one["id"] in session_ids:
                served.rewrite({**one, "status": "terminated", "archived_at": None})
        for words, pages in (([], None), (["--refresh"], 1)):
            served.requests.clear()
            main(["check", "--json", *words])
            page_requests = sum(one.path == "/deployment_runs" for one in served.requests)
            assert pages in {None, page_requests}
            found = {one["deployment_id"]: one for one in json.loads(capsys.readouterr().out)}
            assert found[deployment_id]["kind"] == "failing"
            assert (
                f"failed {len(runs)} times in a row, the last one with unknown_error"
                in found[deployment_id]["detail"]
            )
            assert found[deployment_id]["since"] is None
        assert main(["top", "--once"]) == 0
        assert re.search(rf"  {len(runs)}  .*  unknown_error$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.filterwarnings("default:.* completed runs are assumed", "default:not all runs")
def test_check_offline_warns_if_not_all_runs_are_stored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A streak that began before the stored runs would be too short. `top` never reads more than 30 days.

    The view of `top` is computed from empty frames, as only the warnings of its reading are tested.
    """
    frames = qd.flatten_deployments([]), qd.flatten_runs([]), qd.flatten_sessions([])
    empty = overview.overview(*frames, now=pd.Timestamp(NOW))
    monkeypatch.setattr(overview, "overview", lambda *_, **__: empty)
    with current_sandbox(monkeypatch, deployments=15, runs=150, edition="D"):
        assert main(["top", "--once"]) == 0
        assert "not all runs" not in capsys.readouterr().err
        assert main(["check", "--offline"]) == 1
        assert "not all runs that are asked for are kept" in " ".join(capsys.readouterr().err.split())
        assert main(["top", "--once", "--offline"]) == 0
        assert "not all runs" not in capsys.readouterr().err


@pytest.mark.usefixtures("check_computed_once")
def test_check_markdown_is_one_table_with_escaped_names(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = next(one for one in sandbox.deployments if one["status"] == "active" and not one["archived_at"])
    sandbox.rewrite({**deployment, "name": "a|b *c* <d>\x1b[31m\nhttps://evil.example"})
    sandbox.create_runs(9, status="failed", deployment_id=deployment["id"])
    assert main(["check", "--markdown", "--top", "1000"]) == 1
    text = capsys.readouterr().out
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == "| severity | what | since | deployment |"
    assert "\x1b" not in text
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert main(["check", "--json"]) == 1
    assert len(rows) - 2 == len(json.loads(capsys.readouterr().out))


@pytest.mark.usefixtures("sandbox", "check_computed_once")
def test_tz_option_sets_the_time_zone_of_findings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--tz", "Asia/Kolkata", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {one["since"][-6:] for one in found if one["since"]} == {"+05:30"}
    assert not any(" UTC" in one["detail"] for one in found)
    assert any(" +05:30" in one["detail"] for one in found)
    assert main(["check", "--tz", "Asia/Kolkata", "--markdown"]) == 1
    assert " UTC" not in capsys.readouterr().out


# -- snapshots ---------------------------------------------------------------------------------------------------


def test_missed_and_check_use_stored_snapshots(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All deployments changed an hour ago; only an older snapshot shows that their schedules did not change."""
    monkeypatch.setattr(Clock, "moment", NOW - timedelta(days=3))
    assert main(["pull", "deployments", "--include-archived", "--refresh"]) == 0
    stamp = (NOW - timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    for one in sandbox.deployments:
        sandbox.rewrite({**one, "updated_at": stamp, "description": "changed"})
    monkeypatch.setattr(Clock, "moment", NOW)
    capsys.readouterr()

    def rows(*words: str) -> pd.DataFrame:
        main([*words, "--json"])
        return pd.DataFrame(json.loads(capsys.readouterr().out))

    active_ids = {one["id"] for one in sandbox.deployments if one["status"] == "active" and not one["archived_at"]}
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
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(*words: str) -> set[tuple[str, pd.Timestamp]]:
        assert main(["missed", "--since", since, "--json", *words]) == 0
        listed = json.loads(capsys.readouterr().out)
        return {(one["deployment_id"], pd.Timestamp(one["scheduled_at"])) for one in listed if one["certain"]}

    since = (NOW - timedelta(days=2)).isoformat()
    found = rows("--refresh")
    assert found
    assert found <= set(sandbox.left_out)
    monkeypatch.setattr(sys.modules["qoderdata.cli.missed"], "datetime", Clock)
    monkeypatch.setattr(Clock, "moment", NOW + timedelta(hours=6))
    assert rows("--offline") == found
    capsys.readouterr()
    assert main(["missed", "--since", (NOW + timedelta(hours=1)).isoformat(), "--offline", "--fail"]) == 2
    assert "not after --since; --refresh reads newer ones" in capsys.readouterr().err


# -- changes, and dated reports ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("sandbox")
def test_changes_without_a_snapshot_stores_the_first_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["changes"]) == 0
    assert capsys.readouterr().out == "there was no snapshot to compare with; the first one is stored now\n"
    assert main(["changes"]) == 0
    assert capsys.readouterr().out.startswith("nothing changed since ")


@pytest.mark.parametrize("archived", [True, False])
def test_changes_describes_each_change_in_words(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, archived: bool
) -> None:
    pull = ("pull", "deployments", "--refresh", *(["--include-archived"] if archived else []))
    for days in (9, 3):
        monkeypatch.setattr(Clock, "moment", NOW - timedelta(days=days))
        assert main(pull) == 0
        first, second, third, *_ = active_deployments(sandbox)
        if days == 9:
            rewrite(sandbox, first, schedule={**first["schedule"], "expression": "1 8 * * *"})
    error = {"type": "error", "error": {"type": "vault_not_found_error"}}
    rewrite(sandbox, second, status="paused", paused_reason=error)
    rewrite(sandbox, third, name="evil\x1b[31m name")
    monkeypatch.setattr(Clock, "moment", NOW)
    capsys.readouterr()
    assert main(["changes", "--since", "7D", "--refresh"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"schedule \S+ \S+ \S+ \S+ \S+ → 1 8 \* \* \*\n", out)
    assert "paused by error: vault_not_found_error\n" in out
    assert re.search(r"name .* → evil�\[31m name\n", out)
    at = NOW - timedelta(days=9)
    assert f"since the snapshot of {at:%Y-%m-%d %H:%M} UTC" in out
    assert main(["changes", "--since", "7D", "--tz", "Asia/Tokyo"]) == 0
    assert f"since the snapshot of {at + timedelta(hours=9):%Y-%m-%d %H:%M} +09:00" in capsys.readouterr().out
    assert main(["changes", "--since", "2D", "--json"]) == 0
    assert [one["change"] for one in json.loads(capsys.readouterr().out)] == ["paused", "other"]
    assert main(["changes", "--since", "400D", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert main(["cache"]) == 0
    assert "snapshots" in capsys.readouterr().out


def test_report_compares_with_the_snapshot_one_week_before_start(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for days in (30, 18, 12, 1):
        monkeypatch.setattr(Clock, "moment", NOW - timedelta(days=days))
        assert main(["pull", "deployments", "--refresh", "--include-archived"]) == 0
        rewrite(sandbox, active_deployments(sandbox)[0], name=f"named {days} days ago")
    monkeypatch.setattr(Clock, "moment", NOW)
    path = tmp_path / "report.html"
    assert main(["report", str(path), "--start", f"{NOW - timedelta(days=10):%Y-%m-%dT%H:%M:%SZ}"]) == 0
    text = re.sub("<[^>]*>", "", path.read_text(encoding="utf-8"))
    assert f"Since the snapshot of {NOW - timedelta(days=18):%Y-%m-%d %H:%M} UTC" in text


def test_since_of_a_report_is_relative_to_start(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {}
    monkeypatch.setattr(qd, "write_report", lambda *_, **options: arguments.update(options))
    start = NOW - timedelta(days=20)
    words = ("report", "r.html", "--runs", "--costs", "--start", start.isoformat())
    for more, days, ended in (((), 30, NOW), (("--since", "9D", "--until", "2D"), 9, start - timedelta(days=2))):
        assert main([*words, *more]) == 0
        since = start - timedelta(days=days)
        ids = {one["id"] for one in sandbox.runs if since <= datetime.fromisoformat(one["triggered_at"]) < ended}
        assert set(arguments["runs"]["id"]) == ids
    expected_session_ids = {
        one["id"]
        for one in sandbox.sessions
        if datetime.fromisoformat(one["created_at"]) >= start - timedelta(days=90)
    }
    assert set(arguments["sessions"]["id"]) == expected_session_ids


# -- recipes -----------------------------------------------------------------------------------------------------


def recipes() -> list[str]:
    """Return the commands in the section of the README about cron and CI."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("### In cron and in CI")[1].split("\n## ")[0]
    lines = re.findall(r"^(qoderdata .*?)\s*(?:#.*)?$", section, re.MULTILINE)
    assert len(lines) >= 3
    return lines


def test_recipes_of_the_readme_return_1_for_findings(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    sandbox.create_runs(60, status="failed")
    for line in recipes():
        assert main(shlex.split(line)[1:]) == 1
        captured = capsys.readouterr()
        assert captured.out
        assert "\x1b" not in captured.out + captured.err


def crontab_environment(sandbox: Sandbox, home: Path) -> dict[str, str]:
    """Install the command into a home folder, and return the few variables that cron sets for it."""
    program = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m qoderdata "$@"\n'
    (home / "qoderdata").write_text(program, encoding="utf-8")
    (home / "qoderdata").chmod(0o755)
    return {
        "PATH": f"{home}:/usr/bin:/bin",
        "HOME": str(home),
        "QODER_BASE_URL": sandbox.base_url,
        "PYTHONPATH": str(ROOT),
    }


def test_recipe_of_the_readme_runs_in_a_minimal_environment(sandbox: Sandbox, tmp_path: Path) -> None:
    """As in a crontab: the token is read from a private file, and there is no terminal."""
    token = tmp_path / "token"
    token.write_text(f"export QODER_ACCESS_TOKEN={sandbox.pat}\n", encoding="utf-8")
    token.chmod(0o600)
    sandbox.create_runs(60, status="failed")
    environment = crontab_environment(sandbox, tmp_path)
    done = subprocess.run(
        ["/bin/sh", "-c", f". {token}; {recipes()[0]}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert sandbox.pat not in done.stdout + done.stderr


# -- without a permission, and over which time ------------------------------------------------------------------


def test_check_without_permission_for_sessions_skips_budgets_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error of an account that may not read sessions advises `--outcomes runs`, so that this must work."""
    with current_sandbox(monkeypatch, deployments=15, runs=80, edition="D") as served:
        assert any(one.get("budget") for one in served.deployments)
        assert main(["pull", "runs", "--outcomes", "runs"]) == 0
        assert main(["pull", "deployments", "--include-archived"]) == 0
        served.misbehave("403")
        capsys.readouterr()
        assert main(["check", "--outcomes", "runs"]) in {0, 1}
        printed = capsys.readouterr()
        assert printed.out
        assert "warning: budgets are not checked, as sessions could not be loaded: GET /sessions: " in printed.err
        assert "check --workspace" in printed.err


def test_missed_says_which_time_it_is_about(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["missed", "--since", "7D", "--tz", "Asia/Tokyo", "--base-url", sandbox.base_url]) == 0
    period = r"triggers from \d{4}-\d\d-\d\d \d\d:\d\d \+09:00 to \d{4}-\d\d-\d\d \d\d:\d\d \+09:00\n"
    assert re.search(period, capsys.readouterr().out)
    with current_sandbox(monkeypatch, deployments=0):
        assert main(["missed", "--since", (NOW - timedelta(minutes=30)).isoformat()]) == 0
        latest = datetime.now(UTC) - timedelta(minutes=10)  # what is due later may still start
    begin = f"{NOW - timedelta(minutes=30):%Y-%m-%d %H:%M} UTC"
    said = re.fullmatch(f"nothing was missed from {re.escape(begin)} to (.*) UTC\n", capsys.readouterr().out)
    assert said is not None
    assert said[1] in {f"{latest - timedelta(minutes=minutes):%Y-%m-%d %H:%M}" for minutes in (0, 1, 2)}


def test_changes_since_before_the_first_snapshot_say_what_is_not_known(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Clock, "moment", NOW - timedelta(days=3))
    assert main(["pull", "deployments", "--include-archived"]) == 0
    monkeypatch.setattr(Clock, "moment", NOW)
    unknown = "there is no earlier snapshot: what changed before is not known"
    capsys.readouterr()
    assert main(["changes", "--since", "7D"]) == 0
    assert unknown in capsys.readouterr().out
    rewrite(sandbox, active_deployments(sandbox)[0], name="another name")
    assert main(["changes", "--since", "7D", "--refresh"]) == 0
    assert f"\n{unknown}\n" in capsys.readouterr().out
    assert main(["changes", "--since", "2D"]) == 0
    assert unknown not in capsys.readouterr().out


def test_the_crontab_line_of_the_docs_mails_only_what_is_wrong(sandbox: Sandbox, tmp_path: Path) -> None:
    """It prints nothing while nothing is wrong, and the findings, or why there are none, otherwise."""
    page = (ROOT / "docs" / "howto" / "cron-and-ci.md").read_text(encoding="utf-8")
    lines = re.findall(r"^5 \* \* \* \* +(.*)$", page, re.MULTILINE)
    assert len(lines) == 1
    (tmp_path / ".qoder-token").write_text(f"export QODER_ACCESS_TOKEN={sandbox.pat}\n", encoding="utf-8")
    environment = crontab_environment(sandbox, tmp_path)

    def mailed() -> str:
        done = subprocess.run(
            ["/bin/sh", "-c", lines[0]], env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        return done.stdout + done.stderr

    assert "error " in mailed()
    archive_all(sandbox)
    shutil.rmtree(tmp_path / ".cache")
    assert mailed() == ""
    sandbox.misbehave("401")
    shutil.rmtree(tmp_path / ".cache")
    assert "401 authentication_error" in mailed()
