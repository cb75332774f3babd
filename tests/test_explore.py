"""Tests of `explore`: the data of the linked chart, its page, hostile texts and many runs."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

import qoderdata as qd
from qoderdata import errors
from qoderdata.explore import chart_tables
from qoderdata.sandbox import Sandbox
from tests.test_report import SECRET, Reader
from tests.test_report_page import HOSTILE, hostile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qoderdata.explore.chart_tables import ChartTables

ZONE = "Asia/Shanghai"
Record = dict[str, Any]
Rows = list[dict[str, Any]]
Account = tuple[Rows, Rows]
Frames = tuple[pd.DataFrame, pd.DataFrame]


@pytest.fixture(scope="module")
def account() -> Account:
    """Return the records of deployments and runs of a sandbox."""
    with Sandbox(deployments=60, seed=7) as sandbox:
        return list(sandbox.deployments), list(sandbox.runs)


@pytest.fixture(scope="module")
def frames(account: Account) -> Frames:
    return qd.flatten_deployments(account[0]), qd.flatten_runs(account[1])


def tables_of(df: pd.DataFrame, runs: pd.DataFrame) -> ChartTables:
    return chart_tables.make_tables(df, runs, ZoneInfo(ZONE))


@pytest.fixture(scope="module")
def account_tables(frames: Frames) -> ChartTables:
    """Return the tables of the chart of the sandbox account."""
    return tables_of(*frames)


def datasets(spec: dict[str, Any]) -> dict[str, Rows]:
    """Return the tables of a chart's specification."""
    return {name: json.loads(text) for name, text in spec["datasets"].items()}


def spec_text_of(page: str) -> str:
    """Return the JSON text of the chart in a page."""
    start = page.index('id="spec">') + len('id="spec">')
    return page[start : page.index("</script", start)]


def wall_ms(text: str, zone: str = ZONE) -> int:
    """Return the local time in milliseconds since 1970, as if it were UTC."""
    return int(pd.Timestamp(text).tz_convert(ZoneInfo(zone)).tz_localize(None).timestamp() * 1000)


def error_text(record: Record) -> str | None:
    """Return a record's error in one line."""
    error = record["error"]
    return " ".join(f"{error['type']}: {error['message']}".split()) if error else None


def wilson(failed: int, decided: int) -> tuple[float, float]:
    z, p = 1.959963984540054, failed / decided
    middle, half = p + z * z / (2 * decided), z * math.sqrt(p * (1 - p) / decided + z * z / (4 * decided**2))
    return (middle - half) / (1 + z * z / decided), (middle + half) / (1 + z * z / decided)


def runs_of(statuses: list[str | None], **columns: Any) -> pd.DataFrame:  # noqa: ANN401 - of any dtype
    """Build runs of one deployment, an hour apart."""
    count = len(statuses)
    times = pd.date_range("2026-06-15T00:00Z", periods=count, freq="1h", unit="us")
    frame = pd.DataFrame({"deployment_id": ["dep_1"] * count, "status": pd.Series(statuses, dtype="str")})
    return frame.assign(triggered_at=times, duration_ms=pd.array([1000] * count, dtype="Int64"), **columns)


class TestFigures:
    """Compare the tables of the chart with figures recomputed from the records."""

    def test_rates_and_intervals(self, account: Account, account_tables: ChartTables) -> None:
        names = {record["id"]: record["name"] for record in account[0]}
        by_deployment: dict[str, Counter[str]] = {}
        for record in account[1]:
            by_deployment.setdefault(record["deployment_id"], Counter())[record["status"]] += 1
        rows = account_tables.deployments
        assert {row["id"] for row in rows} == set(by_deployment)
        for row in rows:
            counts = by_deployment[row["id"]]
            decided = counts["failed"] + counts["completed"]
            name = " ".join(names[row["id"]].split())
            assert row["full"] == (name if len(name) <= 120 else f"{name[:119]}…")
            assert row["runs"] == sum(counts.values())
            assert (row["failed"], row["completed"]) == (counts["failed"], counts["completed"])
            assert row["skipped"] == counts["skipped"]
            assert row["unfinished"] == counts["pending"] + counts["running"]
            if decided:
                assert (row["low"], row["high"]) == pytest.approx(wilson(counts["failed"], decided), abs=1e-9)
                assert row["rate"] == pytest.approx(counts["failed"] / decided)
                assert row["share"] == f"{100 * counts['failed'] / decided:.1f} %"
            else:
                assert (row["rate"], row["share"]) == (None, "–")
        rates = [-1.0 if row["rate"] is None else row["rate"] for row in rows]
        assert rates == sorted(rates, reverse=True)
        assert [row["d"] for row in rows] == list(range(len(rows)))

    def test_agents_and_their_deployments(self, account: Account, account_tables: ChartTables) -> None:
        agent_of = {record["id"]: record["agent"]["id"] for record in account[1]}
        assert len(agent_of) == len(account[1])
        pairs = {(record["deployment_id"], record["agent"]["id"]) for record in account[1]}
        agents, deployments = account_tables.agents, account_tables.deployments
        assert {(deployments[d]["id"], row["id"]) for row in agents for d in row["deployments"]} == pairs
        assert {(row["id"], agents[a]["id"]) for row in deployments for a in row["agents"]} == pairs
        failed = Counter(record["agent"]["id"] for record in account[1] if record["status"] == "failed")
        assert {row["id"]: row["failed"] for row in agents} == {row["id"]: failed[row["id"]] for row in agents}

    def test_each_run_is_a_row(self, account: Account, account_tables: ChartTables) -> None:
        found_rows = Counter(
            (
                account_tables.deployments[row["d"]]["id"],
                account_tables.agents[row["a"]]["id"],
                row["t"],
                chart_tables.OUTCOMES[row["o"]],
                row["ms"],
                account_tables.errors[row["e"]]["error"] if row["e"] >= 0 else None,
            )
            for row in account_tables.runs
        )
        outcomes = {"pending": "running"}
        expected = Counter(
            (
                record["deployment_id"],
                record["agent"]["id"],
                wall_ms(record["triggered_at"]),
                outcomes.get(record["status"], record["status"]),
                record.get("duration_ms"),
                error_text(record),
            )
            for record in account[1]
        )
        assert found_rows == expected
        assert {row["n"] for row in account_tables.runs} == {1}

    def test_notes_count_runs_and_deployments(self, account: Account, account_tables: ChartTables) -> None:
        with_runs = {record["deployment_id"] for record in account[1]}
        count_without = len(account[0]) - len(with_runs)
        times = sorted(record["triggered_at"] for record in account[1])
        first, last = (
            pd.Timestamp(time).tz_convert(ZONE).strftime("%Y-%m-%d %H:%M +08:00") for time in (times[0], times[-1])
        )
        assert (
            account_tables.notes[0]
            == f"{len(account[1]):,} runs of {len(with_runs)} deployments from {first} to {last}."
        )
        assert count_without > 1
        assert account_tables.notes[1] == f"{count_without} deployments without a run are not shown."

    def test_tables_and_notes_are_in_the_chart(self, frames: Frames, account_tables: ChartTables) -> None:
        spec = qd.explore(*frames, tz=ZONE).to_dict()
        found = datasets(spec)
        assert found.pop("notes") == [{"text": note} for note in account_tables.notes]
        assert found == {
            name: getattr(account_tables, name) for name in ("agents", "deployments", "errors", "runs")
        }
        assert spec["title"]["subtitle"][:-1] == account_tables.notes

    def test_rows_are_shaded_only_after_a_click(self, frames: Frames) -> None:
        views = qd.explore(*frames, tz=ZONE).to_dict()["vconcat"]
        for view, selection in zip(views, ("agent", "deployment"), strict=True):
            (shaded,) = view["hconcat"][0]["layer"][0]["encoding"]["opacity"]["condition"]
            assert (shaded["param"], shaded["empty"]) == (selection, False)


class TestManyRuns:
    """Above `MOST_ROWS`, a row summarizes several runs, and a note says so."""

    @pytest.mark.parametrize("limit", [580, 400, 200, 40])
    def test_rows_have_counts_medians_and_most_frequent_errors(
        self, limit: int, account: Account, frames: Frames, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(chart_tables, "MOST_ROWS", limit)
        found = tables_of(*frames)
        note = found.notes[1]
        assert len(account[1]) > limit
        window = re.fullmatch(
            rf"These are more than {limit:,} runs: each mark stands for the runs of one deployment, agent "
            r"and outcome within (\d+) (h|d)\.",
            note,
        )
        assert window is not None
        step = int(window[1]) * (3_600_000 if window[2] == "h" else 86_400_000)
        monday = wall_ms("2026-06-15T00:00+08:00")
        groups: dict[tuple[str, int, str], Rows] = {}
        for record in account[1]:
            time = wall_ms(record["triggered_at"])
            begin = monday + (time - monday) // step * step if step <= 7 * 86_400_000 else 4 * 86_400_000 + (
                time - 4 * 86_400_000
            ) // step * step  # fmt: skip
            status = "running" if record["status"] == "pending" else record["status"]
            groups.setdefault((record["deployment_id"], begin, status), []).append(record)
        found_rows = {
            (found.deployments[row["d"]]["id"], row["t"], chart_tables.OUTCOMES[row["o"]]): row
            for row in found.runs
        }
        assert found_rows.keys() == groups.keys()
        assert len(found_rows) <= limit or step == 28 * 86_400_000
        frequency = Counter(map(error_text, account[1]))
        errors_by_number = {row["e"]: row["error"] for row in found.errors}
        for key, row in found_rows.items():
            records = groups[key]
            assert row["n"] == len(records)
            known = [int(record["duration_ms"]) for record in records if record.get("duration_ms") is not None]
            assert (row["ms"] is None) == (not known)
            assert not known or abs(row["ms"] - median(known)) <= 0.5
            texts = Counter(text for record in records if (text := error_text(record)) is not None)
            if texts:
                shown = errors_by_number[row["e"]]
                assert (texts[shown], frequency[shown]) == max((texts[text], frequency[text]) for text in texts)
            else:
                assert row["e"] == -1

    @pytest.mark.parametrize(
        ("limit", "bar", "cell"),
        [
            (50_000, "day", "day and hour"), (580, "day", "day and 3 hours"), (430, "day", "day"),
            (400, "window", "7 days"), (200, "window", "28 days"),
        ],
    )  # fmt: skip
    def test_titles_and_tooltips_say_what_a_mark_is(
        self, limit: int, bar: str, cell: str, frames: Frames, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(chart_tables, "MOST_ROWS", limit)
        (_, over_time), (_, timeline) = (
            row["hconcat"] for row in qd.explore(*frames, tz=ZONE).to_dict()["vconcat"]
        )
        overview, calendar = over_time["vconcat"]
        assert overview["title"] == f"Runs per {bar}: drag to zoom"
        assert calendar["title"] == f"Failed runs by {cell} (grey: none)"
        names = [
            [one.get("title", one["field"]) for one in view["encoding"]["tooltip"]]
            for view in (overview, calendar, timeline)
        ]
        of_runs = ["time", "duration", "error"]
        of_windows = ["from", "runs", "median duration", "most frequent error"]
        assert names == [
            ["from", "outcome", "runs"],
            ["day", "from hour", "failed", "completed", "runs"],
            ["name", "outcome", *(of_runs if limit == 50_000 else of_windows)],
        ]

    def test_rates_do_not_depend_on_the_limit(
        self, frames: Frames, account_tables: ChartTables, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(chart_tables, "MOST_ROWS", 100)
        assert tables_of(*frames).deployments == account_tables.deployments


class TestEditions:
    def test_assumed_and_unknown_outcomes_are_counted_and_noted(self) -> None:
        with Sandbox(deployments=40, seed=7, runs=150, edition="D") as sandbox:
            client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url, min_interval=0)
            df = qd.load_deployments(client=client, include_archived=True, max_age="0s")
            with pytest.warns(errors.DataQualityWarning, match="assumed"):
                runs = qd.load_runs(client=client)
        found = tables_of(df, runs)
        outcomes = Counter(chart_tables.OUTCOMES[row["o"]] for row in found.runs)
        assumed = int((runs["status"].eq("completed") & runs["status_from"].eq("session")).sum())
        assert outcomes["assumed"] == assumed > 0
        assert outcomes["unknown"] == int(runs["status"].isna().sum()) > 0
        note = found.notes[1]
        assert f"{assumed:,} runs are assumed to have completed" in note
        assert f"the outcome of {outcomes['unknown']} runs is unknown." in note

    def test_outcomes_of_all_statuses(self) -> None:
        statuses = [
            *["completed", "failed", "skipped", "cancelled", "waiting", "running", "pending"],
            None,
            "strange",
        ]
        found = tables_of(qd.flatten_deployments([]), runs_of(statuses))
        outcomes = [chart_tables.OUTCOMES[row["o"]] for row in sorted(found.runs, key=lambda row: row["t"])]
        assert outcomes == [*statuses[:6], "running", "unknown", "unknown"]
        (row,) = found.deployments
        assert (row["label"], row["unknown"], row["unfinished"], row["skipped"]) == ("dep_1", 2, 3, 2)

    def test_runs_without_an_agent_get_the_agent_of_the_deployment(self) -> None:
        df = qd.with_names(
            qd.flatten_deployments([{"id": "dep_1", "name": "nightly", "agent": {"id": "agent_1"}}]),
            agents=pd.DataFrame({"id": ["agent_1"], "name": ["Triage"]}, dtype="str"),
        )
        for runs in (runs_of(["failed"]), runs_of(["failed"], agent_id=pd.Series([None], dtype="str"))):
            assert [row["label"] for row in tables_of(df, runs).agents] == ["Triage"]
        (row,) = tables_of(qd.flatten_deployments([]), runs_of(["failed"])).agents
        assert row["label"] == "(none)"

    def test_a_run_without_deployment_and_time_is_in_the_rates_only(self) -> None:
        runs = runs_of(["failed", "completed"])
        runs.loc[0, ["deployment_id", "triggered_at"]] = None
        found = tables_of(qd.flatten_deployments([]), runs)
        assert {row["label"]: row["failed"] for row in found.deployments} == {"(none)": 1, "dep_1": 0}
        assert len(found.runs) == 1
        assert "1 run without a time is in the rates only." in found.notes
        assert tables_of(qd.flatten_deployments([]), runs[:1]).zone == ZONE


class TestArguments:
    def test_no_runs_give_a_chart_with_one_sentence(self, tmp_path: Path) -> None:
        df, runs = qd.flatten_deployments([]), qd.flatten_runs([])
        chart = qd.explore(df, runs, tmp_path / "empty.html")
        assert datasets(chart.to_dict()) == {"notes": [{"text": "There are no runs to show."}]}
        assert type(chart) is type(qd.explore(df, runs_of(["failed"])))
        page = Reader((tmp_path / "empty.html").read_text(encoding="utf-8"))
        assert "There are no runs to show." in page.words

    @pytest.mark.parametrize("position", [0, 1])
    def test_a_list_or_a_frame_without_ids_is_refused(self, position: int, frames: Frames) -> None:
        arguments: list[Any] = list(frames)
        arguments[position] = [1, 2]
        with pytest.raises(errors.FrameTypeError, match="must be a pandas frame, not list"):
            qd.explore(*arguments)
        arguments[position] = frames[position].drop(columns=["id", "deployment_id"], errors="ignore")
        with pytest.raises(errors.MissingColumnError, match="has no column"):
            qd.explore(*arguments)

    def test_a_text_column_of_times_is_refused(self, frames: Frames) -> None:
        runs = frames[1].astype({"triggered_at": "str"})
        with pytest.raises(errors.FrameTypeError, match="'triggered_at' of the runs frame holds text"):
            qd.explore(frames[0], runs)

    def test_times_over_more_than_100_years_are_refused(self, frames: Frames) -> None:
        runs = frames[1].copy()
        runs.loc[0, "triggered_at"] = pd.Timestamp("1821-01-01T00:00Z")
        with pytest.raises(ValueError, match="at most 100 years"):
            qd.explore(frames[0], runs)

    def test_invalid_zone_file_name_and_folder_are_refused(self, frames: Frames, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="Mars"):
            qd.explore(*frames, tz="Mars/Olympus")
        with pytest.raises(ValueError, match=r"HTML page; give a name that ends in \.html or \.htm"):
            qd.explore(*frames, tmp_path / "runs.json")
        with pytest.raises(FileNotFoundError):
            qd.explore(frames[0], frames[1][:0], tmp_path / "nowhere" / "runs.html")
        assert list(tmp_path.glob("*.json")) == []

    def test_a_failed_write_keeps_the_old_page(
        self, frames: Frames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "runs.html"
        path.write_text("old", encoding="utf-8")
        monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            qd.explore(frames[0], frames[1][:0], path)
        assert path.read_text(encoding="utf-8") == "old"
        assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["runs.html"]

    def test_the_page_is_deterministic_and_the_frames_are_not_changed(
        self, hostile_page: str, tmp_path: Path
    ) -> None:
        frames = hostile()[:2]
        before = [frame.copy(deep=True) for frame in frames]
        qd.explore(*frames, tmp_path / "runs.html")
        assert (tmp_path / "runs.html").read_text(encoding="utf-8") == hostile_page
        for frame, copy in zip(frames, before, strict=True):
            pd.testing.assert_frame_equal(frame, copy)

    def test_without_altair_and_vl_convert_explore_raises_import_error(self) -> None:
        """The package can be imported without them."""
        code = (
            "import sys; sys.modules['altair'] = sys.modules['vl_convert'] = None\n"
            "from qoderdata import *\n"
            "try:\n"
            "    explore(flatten_deployments([]), flatten_runs([]))\n"
            "except ImportError as error:\n"
            "    print(error)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "Altair is not installed: pip install 'qoderdata[interactive]'\n"

    def test_without_vl_convert_explore_raises_import_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "qoderdata.explore.linked_views", raising=False)
        monkeypatch.setitem(sys.modules, "vl_convert", None)
        with pytest.raises(ImportError, match=r"vl-convert-python is not installed: pip install 'qoderdata\[int"):
            qd.explore(qd.flatten_deployments([]), qd.flatten_runs([]))


def spec_texts(part: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    """Yield all texts of a Vega-Lite specification but those of its datasets."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key != "datasets":
                yield from spec_texts(value)
    elif isinstance(part, list):
        yield from itertools.chain.from_iterable(map(spec_texts, part))
    elif isinstance(part, str):
        yield part


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("explore") / "hostile.html"
    deployments, runs, _ = hostile()
    qd.explore(deployments, runs, path)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hostile_spec(hostile_page: str) -> str:
    """Return the JSON text of the chart in the page."""
    return spec_text_of(hostile_page)


class TestHostileTexts:
    def test_hostile_texts_are_in_the_datasets_only(self, hostile_spec: str) -> None:
        texts = list(spec_texts(json.loads(hostile_spec)))
        assert len(texts) > 100
        assert not [text for text in texts for name in HOSTILE if name in text or name[:20] in text]

    def test_hostile_texts_are_cleaned_and_truncated(self, hostile_spec: str) -> None:
        found = json.loads(hostile_spec)["datasets"]
        texts = [text for rows in found.values() for row in rows for text in row.values() if isinstance(text, str)]
        assert not [text for text in texts if re.search("[\x00-\x1f\u202a-\u202e\u2066-\u2069]", text)]
        assert max(len(row["full"]) for row in found["deployments"]) <= 120
        assert max(len(row["error"]) for row in found["errors"]) <= 200

    def test_the_page_has_no_elements_from_hostile_texts(self, hostile_page: str, hostile_spec: str) -> None:
        reader = Reader(hostile_page)
        assert [tag for tag, _ in reader.elements].count("script") == 2
        assert hostile_page.count("</script") == 2
        tags = {tag for tag, _ in reader.elements}
        assert not tags & {"img", "iframe", "object", "embed", "base", "form", "svg", "a"}
        assert [attributes["href"] for attributes in reader.all("link")] == ["data:,"]
        assert not [
            key
            for _, attributes in reader.elements
            for key in attributes
            if key.startswith("on") or key == "style"
        ]
        assert not re.search("[<>&]", hostile_spec)
        names = {row["full"] for row in json.loads(hostile_spec)["datasets"]["deployments"]}
        assert len(names & set(HOSTILE)) > 4
        assert HOSTILE[2].startswith("</title>")
        assert HOSTILE[2] in names

    def test_the_content_security_policy_allows_two_hashes_only(self, hostile_page: str) -> None:
        (policy,) = [meta["content"] for meta in Reader(hostile_page).all("meta") if meta.get("http-equiv")]
        assert re.fullmatch(
            r"default-src 'none'; img-src data: blob:; script-src 'sha256-[\w+/=]+'; style-src 'sha256-[\w+/=]+'; "
            r"base-uri 'none'; form-action 'none'",
            str(policy),
        )

    def test_secrets_are_not_in_the_page(self, hostile_page: str) -> None:
        assert SECRET not in hostile_page
        assert SECRET in str(hostile()[0]["extra"].tolist())


def large_account(deployments: int, runs: int, days: int) -> Frames:
    """Return the frames of a large account, the same at each call."""
    random = np.random.default_rng(1)
    ids = np.array([f"dep_{number:032x}" for number in range(deployments)])
    df = pd.DataFrame({"id": ids, "name": [f"Team {number % 40} job {number}" for number in range(deployments)]})
    df = df.assign(agent_id=[f"agent_{number % 30}" for number in range(deployments)]).astype("str")
    status = random.choice(["completed", "failed", "skipped"], runs, p=[0.88, 0.1, 0.02])
    started = pd.Timestamp("2026-03-15T00:00Z") + pd.to_timedelta(
        random.integers(0, days * 86_400, runs), unit="s"
    )
    messages = np.array([f"step {number % 9000} did not end in time" for number in range(runs)], dtype="object")
    frame = pd.DataFrame({
        "deployment_id": pd.Series(ids[random.integers(0, deployments, runs)], dtype="str"),
        "status": pd.Series(status, dtype="str"),
        "triggered_at": pd.Series(started).dt.as_unit("us"),
        "duration_ms": pd.array(random.integers(500, 4_000_000, runs), dtype="Int64"),
        "error_message": pd.Series(messages).where(status == "failed").astype("str"),
    })  # fmt: skip
    return df, frame


def test_50000_runs_give_a_row_each(tmp_path: Path) -> None:
    df, runs = large_account(500, 50_000, 90)
    qd.explore(df, runs, tmp_path / "runs.html")
    found = json.loads(spec_text_of((tmp_path / "runs.html").read_text(encoding="utf-8")))["datasets"]
    assert len(found["runs"]) == 50_000
    assert len(found["deployments"]) == 500
    assert (tmp_path / "runs.html").stat().st_size < 6_000_000


def test_60000_runs_are_summarized() -> None:
    found = tables_of(*large_account(500, 60_000, 90))
    assert len(found.runs) <= 50_000
    assert sum(row["n"] for row in found.runs) == 60_000
    assert sum(row["runs"] for row in found.deployments) == 60_000
    assert "more than 50,000 runs" in found.notes[1]
