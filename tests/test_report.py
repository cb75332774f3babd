"""The page says what the frames say; what it is made of is looked at in ``test_report_page.py``."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from qoderdata.errors import DataQualityWarning, FrameTypeError, MissingColumnError
from qoderdata.frames import flatten_deployments, flatten_runs, flatten_sessions, with_names
from qoderdata.report import write_report
from qoderdata.report.data import ReportData
from qoderdata.report.figures import round_scale

if TYPE_CHECKING:
    from pathlib import Path

START = "2026-06-15T01:30:00Z"
SECRET = "s3cret-value"  # noqa: S105 - looked for, and found nowhere


def deployment(number: int, name: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """Make a record that fires at minute 5 of every hour and has failed a little more than the one before."""
    stats = {
        "total_runs": 20 + number,
        "total_failures": min(number, 20),
        "consecutive_failures": number % 3,
        "last_triggered_at": "2026-06-15T01:05:00Z",
    }
    record: dict[str, Any] = {
        "type": "deployment",
        "id": f"dep_{number:032x}",
        "name": name,
        "status": "active",
        "agent": {"type": "agent", "id": f"agent_{number % 3:032x}", "version": 1},
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
        "schedule": {"type": "cron", "expression": "5 * * * *", "timezone": "Asia/Shanghai"},
        "metadata": {"cas_config": {"stats": stats}},
        "environment_variables": {"KEY": SECRET},
    }
    return {**record, **fields}


def run(deployment_number: int, hour: int, status: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """Make a record of one run on the 14th."""
    at = f"2026-06-14T{hour:02}:05:00Z"
    record: dict[str, Any] = {
        "type": "deployment_run",
        "id": f"drun_{deployment_number:016x}{hour:016x}",
        "deployment_id": f"dep_{deployment_number:032x}",
        "status": status,
        "trigger_context": {"type": "schedule"},
        "triggered_at": at,
        "created_at": at,
        "duration_ms": 1500,
    }
    return {**record, **fields}


class Reader(HTMLParser):
    """Notes elements, attributes and the words of a page; `words` has one entry an element's text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def tile(self, words: str) -> list[str]:
        """Give the number and the note of a headline number."""
        at = self.words.index(words)
        return self.words[at + 1 : at + 3]


def report(path: Path, deployments: pd.DataFrame, **options: Any) -> Reader:  # noqa: ANN401 - write_report's
    write_report(deployments, path / "report.html", **{"start": START, **options})
    return Reader((path / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the figures on axes but do not lay them out, which takes longest: these tests read words."""
    monkeypatch.setattr("matplotlib.figure.Figure.draw", lambda *_: None)


def test_start_is_now_when_it_is_not_given(tmp_path: Path) -> None:
    report(tmp_path, flatten_deployments([]), start=None)
    assert f"{pd.Timestamp.now('UTC'):%Y-%m-%d}" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_headline(tmp_path: Path) -> None:
    stats = {"total_runs": 0, "total_failures": 0, "consecutive_failures": 0}
    deployments = flatten_deployments(
        [
            deployment(3, "a"),
            deployment(4, "b", status="paused", paused_reason={"type": "error", "error": {"type": "x"}}),
            deployment(5, "c", status="paused", paused_reason={"type": "manual"}),
            deployment(6, "d", archived_at="2026-06-01T00:00:00Z"),
            deployment(7, "e", metadata={"cas_config": {"stats": stats}}, schedule=None),
            deployment(8, "f", metadata={}),
        ]
    )
    page = report(tmp_path, deployments)
    assert page.tile("Deployments") == ["6", "3 active, 2 paused, 1 archived"]
    assert page.tile("Runs") == ["98", "18 failed"]
    assert page.tile("Failure rate") == ["18.4 %", "95 % interval 11.9–27.2 %"]
    assert page.tile("Never run") == ["1", "of 6 deployments"]
    assert page.tile("Failing now") == ["2", "longest streak 2"]
    assert page.tile("Paused by error") == ["1", "1 more are paused"]
    assert page.tile("Next 24 hours") == ["48", "triggers of 2 deployments"]
    assert "Missed" not in page.words
    assert "The last 30 days" not in page.words


def test_a_few_runs_do_not_lead(tmp_path: Path) -> None:
    """One failure in one run is 100 %, and yet says less than 12 in 20."""
    once = {"total_runs": 1, "total_failures": 1, "consecutive_failures": 1}
    often = {"total_runs": 20, "total_failures": 12, "consecutive_failures": 0}
    deployments = flatten_deployments(
        [
            deployment(1, "once", metadata={"cas_config": {"stats": once}}),
            deployment(2, "often", metadata={"cas_config": {"stats": often}}),
        ]
    )
    page = report(tmp_path, deployments)
    names = [word for word in page.words if word in {"once", "often"}]
    assert names[:2] == ["often", "once"]


def test_labels_win_over_names(tmp_path: Path) -> None:
    page = report(tmp_path, flatten_deployments([deployment(3, "old")]), labels={f"dep_{3:032x}": "new"})
    assert "new" in page.words
    assert "old" not in page.words


def test_long_tables_are_cut_and_say_so(tmp_path: Path) -> None:
    page = report(tmp_path, flatten_deployments([deployment(number, f"n{number}") for number in range(1, 30)]))
    assert "20 of 29 deployments that failed are shown." in page.words
    assert "20 of 29 deployments are shown." in page.words


@pytest.mark.parametrize("runs", [None, flatten_runs([])])
def test_an_empty_account(tmp_path: Path, runs: pd.DataFrame | None) -> None:
    page = report(tmp_path, flatten_deployments([]), runs=runs)
    assert page.tile("Deployments") == ["0", "0 active, 0 paused, 0 archived"]
    assert page.tile("Failure rate") == ["–", "no runs"]
    assert not page.all("table")
    assert "Nothing fires in this time." in page.words


def test_a_healthy_fleet(tmp_path: Path) -> None:
    """Sections with nothing to show say so; runs that all succeed have no errors."""
    page = report(tmp_path, flatten_deployments([deployment(0, "a")]), runs=flatten_runs([run(0, 1, "completed")]))
    for words in (
        "No deployment has a failed run.",
        "No deployment has failed in its last run.",
        "The service has paused no deployment because of an error.",
        "No run has failed.",
        "No deployment takes longer than before.",
    ):
        assert words in page.words


@pytest.mark.parametrize(
    ("attrs", "words"),
    [
        (
            {"complete": False},
            "The deployments are not complete: a pull was cut short. Numbers here are too small.",
        ),
        ({"fetched_at": "2026-06-10T01:30:00+00:00", "complete": True}, "The deployments are 5 d old."),
    ],
)
def test_cautions(tmp_path: Path, attrs: dict[Any, Any], words: str) -> None:
    deployments = flatten_deployments([deployment(3, "a")])
    assert words not in report(tmp_path, deployments).words
    deployments.attrs = attrs
    assert words in report(tmp_path, deployments).words


@pytest.mark.parametrize(
    ("attrs", "words"),
    [
        ({}, "1 rows, not known whether complete, not known when fetched."),
        (
            {"complete": True, "fetched_at": "2026-06-15T01:10:00+00:00", "source": "the service"},
            "1 rows, complete, fetched 20 min before, from the service.",
        ),
        ({"complete": True, "fetched_at": "2026-06-15T09:10:00+00:00"}, "fetched on 2026-06-15 09:10 UTC"),
        (
            {"complete": True, "fetched_at": "2026-06-15T01:10:00+00:00", "from_cache": True},
            "kept in the cache since.",
        ),
    ],
)
def test_about_the_data(tmp_path: Path, attrs: dict[Any, Any], words: str) -> None:
    deployments = flatten_deployments([deployment(3, "a")])
    deployments.attrs = attrs
    assert any(words in found for found in report(tmp_path, deployments).words)


def test_what_could_not_be_used_is_on_the_page(tmp_path: Path) -> None:
    broken = deployment(3, "a", schedule={"type": "cron", "expression": "61 * * * *", "timezone": "UTC"})
    with pytest.warns(DataQualityWarning) as caught:
        page = report(tmp_path, flatten_deployments([broken]))
    assert str(caught[0].message) in page.words


class TestRuns:
    """What runs add."""

    def test_streaks(self, tmp_path: Path) -> None:
        """The service counts two failures; where the runs reach back that far, they say since when."""
        failed = {"error": {"type": "timeout_error", "message": "m" * 500}}
        runs = [run(5, 1, "completed"), run(5, 2, "failed"), run(5, 3, "failed", **failed), run(2, 4, "failed")]
        deployments = flatten_deployments([deployment(5, "whole"), deployment(2, "cut")])
        page = report(tmp_path, deployments, runs=flatten_runs(runs))
        at = page.words.index("Failing now", page.words.index("Worst offenders", 40))
        words = " ".join(page.words[at : page.words.index("Paused by error", at)])
        assert re.search(r"whole .* active 2026-06-14 02:05 UTC 23 h 25 min ago timeout_error m{200}…", words)
        assert re.search(r"cut .* active at least 2026-06-14 04:05 UTC", words)

    def test_trend_and_errors(self, tmp_path: Path) -> None:
        runs = [run(3, hour, "failed", error={"type": "api_error"}) for hour in range(2)]
        runs += [run(3, hour, "completed") for hour in range(2, 6)] + [run(3, 6, "skipped"), run(3, 7, "running")]
        page = report(tmp_path, flatten_deployments([deployment(3, "a")]), runs=flatten_runs(runs))
        text = " ".join(page.words)
        assert (
            "2 of 6 decided runs failed: 33.3 % (95 % interval 9.7–70.0 %). 1 were skipped and 1 have not" in text
        )
        assert "api_error 2 100.0 % 2026-06-14 00:05 UTC 2026-06-14 01:05 UTC" in text

    def test_missed(self, tmp_path: Path) -> None:
        """Told up to when the runs were fetched: what comes after is not known, and so not missed."""
        runs = flatten_runs([run(3, hour, "completed") for hour in range(10) if hour not in {4, 7}])
        deployments = flatten_deployments([deployment(3, "a")])
        runs.attrs = {"fetched_at": "2026-06-14T10:00:00+00:00"}
        page = report(tmp_path, deployments, runs=runs)
        assert page.tile("Missed") == ["2", "none in doubt"]
        text = " ".join(page.words)
        assert "from 2026-06-14 00:05 UTC to 2026-06-14 10:00 UTC" in text
        assert "2 0 2026-06-14 04:05 UTC 2026-06-14 07:05 UTC" in text
        runs.attrs = {}
        assert report(tmp_path, deployments, runs=runs).tile("Missed") == ["2", "none in doubt"]

    def test_what_cannot_be_told_is_not_missed(self, tmp_path: Path) -> None:
        """A deployment that was changed in that time may have had another schedule."""
        runs = flatten_runs([run(3, hour, "completed") for hour in (0, 2)])
        deployments = flatten_deployments([deployment(3, "a", updated_at="2026-06-14T01:30:00Z")])
        page = report(tmp_path, deployments, runs=runs)
        assert page.tile("Missed") == ["0", "1 more are in doubt"]
        assert "0 1 2026-06-14 01:05 UTC 2026-06-14 01:05 UTC" in " ".join(page.words)

    def test_slower(self, tmp_path: Path) -> None:
        runs = [
            run(3, hour, "completed", id=f"drun_{day}{hour}", triggered_at=f"2026-06-{day:02}T{hour:02}:05:00Z",
                duration_ms=60_000 if day > 11 else 20_000)
            for day in range(1, 15)
            for hour in range(0, 24, 6)
        ]  # fmt: skip
        page = report(tmp_path, flatten_deployments([deployment(3, "a")]), runs=flatten_runs(runs))
        assert "1 min 20 s 40 s 13 / 43" in " ".join(page.words)


def newest_runs() -> pd.DataFrame:
    """Give runs as the newest edition's are when they are resolved: with a status of each kind."""
    ends = [("completed", "session"), ("completed", "events"), ("failed", "events"), ("failed", "run"),
            ("cancelled", "events"), ("waiting", "events"), ("running", "session"), (None, None)]  # fmt: skip
    runs = flatten_runs([run(3, hour, "completed") for hour in range(len(ends))])
    runs["status"] = pd.array([status for status, _ in ends], dtype="str")
    runs["status_from"] = pd.array([source for _, source in ends], dtype="str")
    return runs


class TestNewestEdition:
    """Runs have no status of their own there, and deployments no counters."""

    def test_every_status(self, tmp_path: Path) -> None:
        page = report(tmp_path, flatten_deployments([deployment(3, "a")]), runs=newest_runs())
        text = " ".join(page.words)
        assert "2 of 4 decided runs failed: 50.0 %" in text
        assert (
            "1 were skipped and 2 have not ended; they decide nothing. Of 1 the outcome is unknown. 1 of the 2"
            in text
        )
        assert any(
            word.startswith("1 runs count as completed because their session came to rest") for word in page.words
        )

    def test_counters_are_made_from_the_runs(self, tmp_path: Path) -> None:
        deployments = flatten_deployments([deployment(3, "a", metadata={}), deployment(4, "b", metadata={})])
        runs = flatten_runs([run(3, hour, "failed" if hour > 1 else "completed") for hour in range(4)])
        before = deployments.copy(deep=True)
        page = report(tmp_path, deployments, runs=runs)
        pd.testing.assert_frame_equal(deployments, before)
        assert page.tile("Runs") == ["4", "2 failed"]
        assert page.tile("Never run") == ["1", "of 2 deployments"]
        assert page.tile("Failing now") == ["1", "longest streak 2"]
        text = " ".join(page.words)
        assert "rates, counted in the runs given where the service has no counters, of the deployments" in text
        assert "counted in the runs given (since 2026-06-14 00:05 UTC) where the service has none" in text

    def test_existing_counters_stay(self, tmp_path: Path) -> None:
        page = report(tmp_path, flatten_deployments([deployment(3, "a")]), runs=newest_runs())
        assert page.tile("Runs") == ["23", "3 failed"]

    def test_frames_without_the_new_columns(self, tmp_path: Path) -> None:
        """Such as an older version wrote to Parquet."""
        runs = newest_runs().drop(columns=["status_from", "trigger_scheduled_at"])
        deployments = flatten_deployments([deployment(3, "a")]).drop(columns="budget_max_credit_cost")
        assert "assumed" not in " ".join(report(tmp_path, deployments, runs=runs).words)

    @pytest.mark.parametrize("variables", [{"KEY": SECRET}, f"KEY={SECRET}\nB=2", f"A=1;KEY={SECRET}"])
    def test_secrets(self, tmp_path: Path, variables: object) -> None:
        report(tmp_path, flatten_deployments([deployment(3, "a", environment_variables=variables)]))
        assert SECRET not in (tmp_path / "report.html").read_text(encoding="utf-8")


class TestOddData:
    def test_a_failing_deployment_without_a_status(self, tmp_path: Path) -> None:
        page = report(tmp_path, flatten_deployments([deployment(5, "a", status=None)]))
        assert page.tile("Failing now") == ["1", "longest streak 2"]

    def test_a_run_of_2_to_the_62_milliseconds(self, tmp_path: Path) -> None:
        """No `timedelta` is as long; the one run must not take the page with it."""
        runs = flatten_runs([run(3, 1, "completed", duration_ms=2**62)])
        page = report(tmp_path, flatten_deployments([deployment(3, "a")]), runs=runs)
        assert "A success took 53375995583 d 15 h in the median" in " ".join(page.words)

    @pytest.mark.parametrize("time", ["0001-01-02T00:00:00Z", "9999-12-31T23:59:00Z"])
    @pytest.mark.parametrize("tz", ["UTC", "Asia/Shanghai", "America/New_York"])
    def test_runs_of_the_first_and_the_last_year(self, tmp_path: Path, time: str, tz: str) -> None:
        runs = flatten_runs([run(3, 1, "failed"), run(3, 2, "failed", triggered_at=time, created_at=time)])
        page = report(tmp_path, flatten_deployments([deployment(3, "a")]), runs=runs, tz=tz)
        assert any(time[:4] in word for word in page.words)

    def test_no_times_at_all(self, tmp_path: Path) -> None:
        runs = flatten_runs([run(3, 1, "failed", triggered_at=None, created_at=None)])
        page = report(tmp_path, flatten_deployments([deployment(3, "a")]), runs=runs)
        assert "There are no runs of the last 30 days." in page.words

    def test_schedules_that_fire_too_often_to_list(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ten thousand deployments that fire each minute took 7 GB; here bound and fleet are smaller."""
        monkeypatch.setattr("qoderdata.report.data.MOST_TRIGGERS", 1000)
        schedule = {"type": "cron", "expression": "* * * * *", "timezone": "UTC"}
        deployments = flatten_deployments([deployment(number, "a", schedule=schedule) for number in range(5)])
        runs = flatten_runs([run(3, hour, "completed") for hour in range(10)])
        page = report(tmp_path, deployments, runs=runs)
        text = " ".join(page.words)
        assert "fire up to 7,200 times a day, too often to list. This page looks 3 hours ahead and," in text
        assert page.tile("Next 3 hours") == ["900", "triggers of 5 deployments"]
        assert "900 triggers of the next 3 hours by weekday and hour" in text
        assert "Scheduled times from 2026-06-14 06:05 UTC to 2026-06-14 09:05 UTC" in text

    def test_the_bound_counts_what_can_fire(self) -> None:
        expressions = ["* * * * *", "0 9 * * *", "*/30 8-9 * * MON", "nonsense"]
        schedules = [{"type": "cron", "expression": text, "timezone": "UTC"} for text in expressions]
        records = [deployment(number, "a", schedule=schedule) for number, schedule in enumerate(schedules)]
        records.append(deployment(9, "paused", status="paused", schedule=schedules[0]))
        start = pd.Timestamp(START)
        data = ReportData.read(
            flatten_deployments(records),
            None,
            None,
            start=start,
            horizon=pd.Timedelta("1D"),
            tz="UTC",
            labels=None,
        )
        assert data.triggers_a_day == 1440 + 1 + 4


class TestRefusals:
    @pytest.mark.parametrize("name", ["x.pdf", "x.html.gz", "x.htmlx"])
    def test_another_format_than_the_name_says(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(
            ValueError, match=r"a report is an HTML page; give a name that ends in \.html or \.htm"
        ):
            write_report(flatten_deployments([]), tmp_path / name)

    @pytest.mark.parametrize("frame", [None, [], "deployments.csv"])
    def test_no_frame(self, tmp_path: Path, frame: Any) -> None:  # noqa: ANN401 - anything
        with pytest.raises(FrameTypeError, match="deployments must be a pandas frame"):
            write_report(frame, tmp_path / "x.html")

    def test_times_that_became_text(self, tmp_path: Path) -> None:
        runs = flatten_runs([run(3, 1, "failed")])
        runs["triggered_at"] = runs["triggered_at"].astype("str")
        with pytest.raises(FrameTypeError, match="'triggered_at' of the runs frame holds text"):
            write_report(flatten_deployments([]), tmp_path / "x.html", runs=runs)

    def test_no_such_columns(self, tmp_path: Path) -> None:
        with pytest.raises(MissingColumnError, match="deployments frame has no column 'archived_at'"):
            write_report(flatten_deployments([]).drop(columns="archived_at"), tmp_path / "x.html")
        with pytest.raises(MissingColumnError, match="runs frame has no column 'status'"):
            write_report(
                flatten_deployments([]), tmp_path / "x.html", runs=flatten_runs([]).drop(columns="status")
            )

    @pytest.mark.parametrize(
        ("option", "value"),
        [("start", "2026-06-15"), ("horizon", "soon"), ("horizon", "-1h"), ("tz", "Mars/Base")],
    )
    def test_no_such_option(self, tmp_path: Path, option: str, value: str) -> None:
        options: dict[str, Any] = {"start": START, option: value}
        with pytest.raises(ValueError, match=f"{option}='{value}'"):
            write_report(flatten_deployments([]), tmp_path / "x.html", **options)

    def test_an_old_file_stays(self, tmp_path: Path) -> None:
        (tmp_path / "x.html").write_text("old")
        with pytest.raises(ValueError, match="tz"):
            write_report(flatten_deployments([]), tmp_path / "x.html", start=START, tz="")
        assert (tmp_path / "x.html").read_text() == "old"


@pytest.mark.parametrize(("highest", "scale"), [(0.0, 0.1), (0.04, 0.1), (0.31, 0.4), (0.4, 0.4), (1.0, 1.0)])
def test_scale(highest: float, scale: float) -> None:
    assert round_scale(highest) == scale


def session(number: int, deployment_id: str | None, total: float | None) -> dict[str, Any]:
    usage = {} if total is None else {"usage": {"total_credits": total}}
    return {"id": f"sess_{number:032x}", "deployment_id": deployment_id, "status": "idle", **usage}


def test_costs(tmp_path: Path) -> None:
    """The first deployment fires 720 times in 30 days, at 2 credits each; the other one is archived."""
    ids = [f"dep_{number:032x}" for number in (1, 2)]
    deployments = flatten_deployments([deployment(1, "dear"), deployment(2, "old", archived_at=START)])
    records = [(ids[0], 1.0), (ids[0], 3.0), (ids[0], None), (ids[1], 0.5), (None, 0.25)]
    sessions = flatten_sessions([session(number, *record) for number, record in enumerate(records)])
    page = report(tmp_path, deployments, sessions=sessions)
    words = " ".join(page.words)
    assert (
        "4 sessions used 4.75 credits. The usage of 1 more is not known. "
        "720 triggers of the next 30 days are expected to use 1,440.00. Intervals do not add up."
    ) in words
    assert f"dear {ids[0]} 4.00 84.2 % 3 1,440.00 0.00–" in words
    assert f"old {ids[1]} 0.50 10.5 % 1 – –" in words
    assert "No deployment – 0.25 5.3 % 1 – –" in words
    assert "Sessions 5 rows, not known whether complete, not known when fetched" in words


def test_costs_that_nobody_knows(tmp_path: Path) -> None:
    sessions = flatten_sessions([session(1, f"dep_{1:032x}", None)])
    words = " ".join(report(tmp_path, flatten_deployments([deployment(1, "a")]), sessions=sessions).words)
    assert "0 sessions used – credits. The usage of 1 more is not known." in words
    assert "720 more are of deployments without a known session." in words


def test_costs_without_sessions(tmp_path: Path) -> None:
    page = report(tmp_path, flatten_deployments([deployment(1, "a")]), sessions=flatten_sessions([]))
    assert "There are no sessions." in page.words
    with pytest.raises(MissingColumnError, match="sessions"):
        report(tmp_path, flatten_deployments([]), sessions=flatten_runs([]))


def test_agents_have_names_where_the_deployments_have_them() -> None:
    """What is drawn of them is looked at in ``test_plots_artists.py``."""
    ids = [f"agent_{number:032x}" for number in (1, 2)]
    agents = pd.DataFrame({"id": ids, "name": ["Ledger clerk", "Report writer"]}).astype("str")
    deployments = with_names(flatten_deployments([deployment(n, "a") for n in (1, 2, 3)]), agents=agents)
    data = ReportData.read(
        deployments, None, None, start=pd.Timestamp(START), horizon=pd.Timedelta("1D"), tz="UTC",
        labels={ids[1]: "Her own name"},
    )  # fmt: skip
    assert data.labels == {ids[0]: "Ledger clerk", ids[1]: "Her own name"}
