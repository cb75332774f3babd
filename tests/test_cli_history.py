"""The commands that look back and that decide: changes, check, missed --fail, runs --fail-over."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import qoderdata as qd
from qoderdata.cli import main
from qoderdata.formatting import format_time, one_line
from qoderdata.load import lists
from qoderdata.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("default:no run is in the time asked for")

NOW = datetime.now(UTC).replace(microsecond=0)


class Clock(datetime):
    """The present of a pull."""

    moment = NOW

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override] # noqa: ANN401
        return cls.moment.astimezone(tz)


@pytest.fixture(autouse=True)
def present(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin each test in the present: minutes may pass after this file was imported."""
    monkeypatch.setattr(sys.modules[__name__], "NOW", datetime.now(UTC).replace(microsecond=0))


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Serve an account whose clock is the present."""
    monkeypatch.setattr(lists, "datetime", Clock)
    monkeypatch.setattr(Clock, "moment", NOW)
    with Sandbox(deployments=25, seed=7, runs=400, now=NOW) as served:
        monkeypatch.setenv("QODER_PAT", served.pat)
        monkeypatch.setenv("QODER_BASE_URL", served.base_url)
        yield served


def run(*words: str) -> int:
    return main(list(words))


def active(sandbox: Sandbox) -> list[dict[str, Any]]:
    return [
        one for one in sandbox.deployments
        if one["status"] == "active" and not one["archived_at"] and one["schedule"]
    ]  # fmt: skip


def rewrite(sandbox: Sandbox, record: dict[str, Any], **facts: Any) -> None:  # noqa: ANN401
    sandbox.rewrite({**record, "updated_at": NOW.isoformat().replace("+00:00", "Z"), **facts})


@pytest.mark.usefixtures("sandbox")
def test_changes_without_a_snapshot(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("changes") == 0
    assert capsys.readouterr().out == "there was no snapshot to compare with; the first one is stored now\n"
    assert run("changes") == 0
    assert capsys.readouterr().out.startswith("nothing changed since ")


@pytest.mark.parametrize("archived", [True, False])
def test_changes_says_what_a_person_would_say(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, archived: bool
) -> None:
    pull = ("pull", "deployments", "--refresh", *(["--include-archived"] if archived else []))
    for days in (9, 3):
        monkeypatch.setattr(Clock, "moment", NOW - timedelta(days=days))
        assert run(*pull) == 0
        first, second, third, *_ = active(sandbox)
        if days == 9:
            rewrite(sandbox, first, schedule={**first["schedule"], "expression": "1 8 * * *"})
    error = {"type": "error", "error": {"type": "vault_not_found_error"}}
    rewrite(sandbox, second, status="paused", paused_reason=error)
    rewrite(sandbox, third, name="evil\x1b[31m name")
    monkeypatch.setattr(Clock, "moment", NOW)
    capsys.readouterr()
    assert run("changes", "--since", "7D", "--refresh") == 0
    out = capsys.readouterr().out
    assert re.search(r"schedule \S+ \S+ \S+ \S+ \S+ → 1 8 \* \* \*\n", out)
    assert "paused by error: vault_not_found_error\n" in out
    assert re.search(r"name .* → evil�\[31m name\n", out)
    at = NOW - timedelta(days=9)
    assert f"since the snapshot of {at:%Y-%m-%d %H:%M} UTC" in out
    assert run("changes", "--since", "7D", "--tz", "Asia/Tokyo") == 0
    assert f"since the snapshot of {at + timedelta(hours=9):%Y-%m-%d %H:%M} +09:00" in capsys.readouterr().out
    assert run("changes", "--since", "2D", "--json") == 0
    assert [one["change"] for one in json.loads(capsys.readouterr().out)] == ["paused", "other"]
    assert run("changes", "--since", "400D", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert run("cache") == 0
    assert "snapshots" in capsys.readouterr().out


def test_a_report_of_an_earlier_time_compares_with_a_week_before_it(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for days in (30, 18, 12, 1):
        monkeypatch.setattr(Clock, "moment", NOW - timedelta(days=days))
        assert run("pull", "deployments", "--refresh", "--include-archived") == 0
        rewrite(sandbox, active(sandbox)[0], name=f"named {days} days ago")
    monkeypatch.setattr(Clock, "moment", NOW)
    path = tmp_path / "report.html"
    assert run("report", str(path), "--start", f"{NOW - timedelta(days=10):%Y-%m-%dT%H:%M:%SZ}") == 0
    text = re.sub("<[^>]*>", "", path.read_text(encoding="utf-8"))
    assert f"Since the snapshot of {NOW - timedelta(days=18):%Y-%m-%d %H:%M} UTC" in text


def test_ages_of_a_report_are_counted_from_its_time(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(qd, "write_report", lambda *_, **options: told.update(options))
    start = NOW - timedelta(days=20)
    words = ("report", "r.html", "--runs", "--costs", "--start", start.isoformat())
    for more, days, ended in (((), 30, NOW), (("--since", "9D", "--until", "2D"), 9, start - timedelta(days=2))):
        assert run(*words, *more) == 0
        since = start - timedelta(days=days)
        ids = {one["id"] for one in sandbox.runs if since <= datetime.fromisoformat(one["triggered_at"]) < ended}
        assert set(told["runs"]["id"]) == ids
    paid = {
        one["id"]
        for one in sandbox.sessions
        if datetime.fromisoformat(one["created_at"]) >= start - timedelta(days=90)
    }
    assert set(told["sessions"]["id"]) == paid


def test_check_finds_exits_and_never_mixes_up(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    victim = active(sandbox)[0]
    sandbox.create_runs(5, status="failed", deployment_id=victim["id"])
    assert run("check", "--refresh") == 1
    assert f"{victim['name']} failed" in capsys.readouterr().out
    assert run("check", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert {"severity", "kind", "deployment_id", "name", "detail", "since"} == set(found[0])
    assert [one["severity"] for one in found] == sorted(one["severity"] for one in found)
    assert run("check", "--markdown") == 1
    assert capsys.readouterr().out.startswith("| severity | what |")
    assert run("check", "--streak", "0") == 2
    assert run("check", "--since", "7") == 2
    sandbox.misbehave("401")
    assert run("check", "--refresh") == 3
    sandbox.misbehave("403")
    assert run("check", "--refresh") == 4


def test_a_service_that_cannot_be_reached_is_no_verdict(sandbox: Sandbox) -> None:
    sandbox.stop()
    assert run("check", "--refresh") == 5


def test_check_of_a_healthy_account_is_quiet(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    """Every deployment is archived or new, so that there is nothing to find; and --fail-on decides.

    No run goes on: after some minutes, one would be found that does not end.
    """
    for one in sandbox.runs:
        if one["status"] in {"running", "pending"}:
            sandbox.finish_run(one["id"])
    for one in sandbox.deployments:
        if not one["archived_at"]:
            sandbox.archive(one["id"])
    assert run("check") == 0
    assert capsys.readouterr().out == "nothing is wrong\n"
    sandbox.create_deployments(1)
    (new, *_) = sandbox.deployments
    budget = {"type": "limit", "max_credit_cost": "0.01"}
    used = next(
        one
        for one in sandbox.sessions
        if one["deployment_id"] and one.get("usage", {}).get("total_credits", 0) > 1
    )
    rewrite(sandbox, {**new, "id": used["deployment_id"]}, budget=budget, name="dear")
    assert run("check", "--refresh") == 0
    assert "dear uses" in capsys.readouterr().out
    assert run("check", "--fail-on", "warning") == 1


@pytest.mark.usefixtures("sandbox")
def test_missed_fails_on_certain_rows_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("missed", "--fail", "--refresh") == 0
    capsys.readouterr()
    with Sandbox(deployments=25, seed=7, runs=400, now=NOW, left_out=80, port=0) as other:
        words = ("missed", "--since", "30D", "--base-url", other.base_url)
        assert run(*words) == 0
        assert run(*words, "--fail") == 1
        capsys.readouterr()
        assert run(*words, "--json") == 0
        certain = [row for row in json.loads(capsys.readouterr().out) if row["certain"]]
        assert run(*words, "--fail", "--top", "1") == 1
        named = [
            f"{format_time(pd.Timestamp(row['scheduled_at']))}, {one_line(row['name'])}" for row in certain[:3]
        ]
        more = f"; and {len(certain) - 3} more" if len(certain) > 3 else ""
        assert f"\ncertainly missed: {'; '.join(named)}{more}\n" in capsys.readouterr().out


@pytest.mark.usefixtures("sandbox")
def test_runs_fail_over_goes_by_the_lower_bound(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("runs", "--by", "deployment_id", "--refresh")
    assert run(*words, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    lows = sorted((row["ci_low"], row["completed"] + row["failed"]) for row in rows if row["ci_low"] is not None)
    highest, decided = lows[-1]
    assert run(*words, "--fail-over", str(highest - 1e-9)) == 1
    assert run(*words, "--fail-over", str(highest + 1e-9)) == 0
    others = max(low for low, count in lows if count > decided) if any(n > decided for _, n in lows) else 0
    assert run(*words, "--fail-over", str((highest + others) / 2), "--min-runs", str(decided + 1)) == 0
    assert run("runs", "--min-runs", "3") == 2
    assert run("runs", "--errors", "--fail-over", "0.5") == 2
    assert run("runs", "--fail-over", "20") == 2


@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize(
    ("words", "figure", "label"),
    [
        ("runs --since all --freq 1D", "ci_low", "window"),
        ("runs --since all --by deployment", "ci_low", "name"),
        ("failures", "failure_rate", "name"),
    ],
)
def test_what_is_above_fail_over_is_named_wherever_the_table_ends(
    words: str, figure: str, label: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words.split(), "--json") == 0
    rows = [row for row in json.loads(capsys.readouterr().out) if row[figure] is not None]
    rows.sort(key=lambda row: row[figure], reverse=True)
    for limit in sorted({row[figure] for row in rows}, reverse=True)[1:5]:
        above = [row for row in rows if row[figure] > limit + 1e-9]
        assert run(*words.split(), "--fail-over", str(limit + 1e-9), "--top", "1") == 1
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("above --fail-over "))
        named = line.partition(": ")[2].split("; ")
        assert named[3:] == ([f"and {len(above) - 3} more"] if len(above) > 3 else [])
        for one, row in zip(named[:3], above[:3], strict=True):
            name = format_time(pd.Timestamp(row[label])) if label == "window" else one_line(row[label])
            assert re.fullmatch(rf"{re.escape(name)}, {100 * row['failure_rate']:.1f} % \(\S+ %\)", one)


@pytest.mark.usefixtures("sandbox")
def test_all_runs_together_have_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("runs", "--since", "all", "--fail-over", "0") == 1
    assert re.search(r"^above --fail-over 0: \S+ % \(\S+ %\)$", capsys.readouterr().out, re.MULTILINE)


def test_a_name_in_a_note_is_escaped_as_in_the_table(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    for one in sandbox.deployments:
        sandbox.rewrite({**one, "name": "[x](http://evil.example)\x1b[2J"})
    for form in ([], ["--markdown"]):
        assert run("failures", "--fail-over", "0", "--include-archived", *form) == 1
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("above --fail-over "))
        assert "\x1b" not in line
        assert (": [x](http" in line) is not bool(form)
