"""Tests of the page of `explore` in Chromium: tooltips, clicks, zoom, search and screen sizes."""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import pytest

import qoderdata as qd
from qoderdata.explore import chart_tables
from qoderdata.sandbox import Sandbox
from tests.browser import WatchedPage, page_of
from tests.test_report_page import HOSTILE, hostile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

TIMEOUT_SECONDS = 60
ZONE = "Asia/Shanghai"
Datum = dict[str, Any]
Frames = tuple[pd.DataFrame, pd.DataFrame]

#: JavaScript that returns the data and the screen positions of the marks of one name, from the Vega view.
MARKS = """
(name) => {
  const found = [];
  const walk = (mark, x, y) => {
    for (const item of mark.items || []) {
      if (mark.name === name) {
        const { x1, x2, y1, y2 } = item.bounds;
        found.push([item.datum, x + (x1 + x2) / 2, y + (y1 + y2) / 2, item.opacity]);
      }
      for (const child of mark.marktype === "group" ? item.items || [] : [])
        walk(child, x + (item.x || 0), y + (item.y || 0));
    }
  };
  walk(view.scenegraph().root, 0, 0);
  const box = document.querySelector("#chart canvas").getBoundingClientRect();
  const left = box.left + view.origin()[0] + view.padding().left;
  const top = box.top + view.origin()[1] + view.padding().top;
  return found.map(([datum, x, y, opacity]) => ({ datum: { ...datum }, x: left + x, y: top + y, opacity }));
}
"""


#: JavaScript that returns the labels of all axes.
AXIS_LABELS = """
() => {
  const walk = (mark) => mark.role === "axis-label" ? mark.items.map((item) => item.text)
    : (mark.items || []).flatMap((item) => (item.items || []).flatMap(walk));
  return walk(view.scenegraph().root);
}
"""
#: JavaScript that returns all titles.
TITLES = AXIS_LABELS.replace("axis-label", "title-text")


class Mark(NamedTuple):
    """A mark of the chart: its data, and its position on the screen."""

    datum: Datum
    x: float
    y: float
    opacity: float = 1.0


@pytest.fixture(scope="module")
def frames() -> Frames:
    """Return the frames of a sandbox, with the agents' names."""
    with Sandbox(deployments=60, seed=7) as sandbox:
        df, runs = qd.flatten_deployments(sandbox.deployments), qd.flatten_runs(sandbox.runs)
    ids = sorted(df["agent_id"].unique())
    agents = pd.DataFrame({"id": ids, "name": [f"Agent {number}" for number in range(len(ids))]}, dtype="str")
    return qd.with_names(df, agents=agents), runs


@pytest.fixture(scope="module")
def path(frames: Frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explore") / "runs.html"
    qd.explore(*frames, path, tz=ZONE)
    return path


@contextlib.contextmanager
def open_chart(chromium: Browser, path: Path, **screen: Any) -> Iterator[Chart]:  # noqa: ANN401 - Playwright's
    """Open a written page; assert at the end that it wrote nothing to the console and requested nothing."""
    with page_of(chromium, **{"viewport": {"width": 1280, "height": 1200}, **screen}) as page:
        chart = Chart(page, path)
        yield chart
        assert chart.events == []


def wait_until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition; Playwright's `wait_for_function` evaluates text, which the page's policy forbids."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"timeout: waited {TIMEOUT_SECONDS} s for {what}"
        time.sleep(0.05)


class Chart(WatchedPage):
    """A written page in the browser, and the marks of its chart."""

    def __init__(self, page: Page, path: Path) -> None:
        super().__init__(page, path)
        wait_until(lambda: page.evaluate("!!window.view"), "the chart")

    def marks(self, name: str) -> list[Mark]:
        return [Mark(**mark) for mark in self.page.evaluate(MARKS, name)]

    def data(self, name: str) -> list[Datum]:
        return [mark.datum for mark in self.marks(name)]

    def click(self, mark: Mark) -> None:
        self.page.mouse.click(mark.x, mark.y)

    def hover(self, mark: Mark) -> dict[str, str]:
        """Move the mouse to a mark, and return the rows of its tooltip."""
        self.page.mouse.move(mark.x - 3, mark.y)
        self.page.mouse.move(mark.x, mark.y)
        return tooltip(self.page)


def tooltip(page: Page, *, seconds: float = TIMEOUT_SECONDS) -> dict[str, str]:
    element = page.locator("#vg-tooltip-element.visible")
    element.wait_for(timeout=1000 * seconds)
    keys, values = element.locator("td.key").all_inner_texts(), element.locator("td.value").all_inner_texts()
    return dict(zip((key.rstrip(":") for key in keys), values, strict=True))


@pytest.fixture(scope="module")
def chart(chromium: Browser, path: Path) -> Iterator[Chart]:
    """Open a page that several tests use; each test restores its state."""
    with open_chart(chromium, path) as shown:
        yield shown


def expected_cells(runs: pd.DataFrame) -> set[tuple[str, int, int, int]]:
    """Compute the cells of the calendar: day, hour, failed runs and all runs."""
    wall = runs["triggered_at"].dt.tz_convert(ZONE)
    cells: dict[tuple[str, int], list[int]] = {}
    for moment, status in zip(wall, runs["status"], strict=True):
        cell = cells.setdefault((f"{moment:%Y-%m-%d}", moment.hour), [0, 0])
        cell[0] += status == "failed"
        cell[1] += 1
    return {(day, hour, failed, count) for (day, hour), (failed, count) in cells.items()}


def drawn_cells(chart: Chart) -> set[tuple[str, int, int, int]]:
    return {
        (f"{pd.Timestamp(cell['day'], unit='ms'):%Y-%m-%d}", cell["hour"], cell["failed"], cell["runs"])
        for cell in chart.data("calendar_marks")
    }


def rows_from_top(chart: Chart) -> list[int]:
    """Return the numbers of the shown deployments from top to bottom."""
    rows = sorted(chart.marks("deployment_rows_0_marks"), key=lambda mark: mark.y)
    return [row.datum["d"] for row in rows]


def overview_sums(chart: Chart) -> dict[str, int]:
    """Return the sums of the overview's bars by outcome."""
    sums: dict[str, int] = {}
    for bar in chart.data("overview_marks"):
        sums[bar["outcome"]] = sums.get(bar["outcome"], 0) + bar["runs"]
    return sums


def expected_sums(runs: pd.DataFrame) -> dict[str, int]:
    words = {"pending": "running or pending", "running": "running or pending"}
    return {str(key): int(count) for key, count in runs["status"].replace(words).value_counts().items()}


class TestPage:
    def test_all_runs_are_shown_at_first(self, chart: Chart, frames: Frames) -> None:
        runs = frames[1]
        assert drawn_cells(chart) == expected_cells(runs)
        assert overview_sums(chart) == expected_sums(runs)
        rows = chart.data("deployment_rows_0_marks")
        assert [row["d"] for row in rows] == list(range(30))
        worst = runs["deployment_id"].isin([row["id"] for row in rows])
        assert len(chart.data("timeline_marks")) == int(worst.sum())

    def test_tooltip_of_a_run_has_name_outcome_duration_and_error(self, chart: Chart, frames: Frames) -> None:
        df, runs = frames
        runs = qd.with_names(runs, df)
        marks = chart.marks("timeline_marks")
        mark = marks[-1]  # the last mark is drawn above all others
        assert mark.datum["outcome"] == "failed"
        wall = runs["triggered_at"].dt.tz_convert(ZONE).dt.tz_localize(None).dt.as_unit("ms").astype("int64")
        (found,) = runs[(wall == mark.datum["t"]) & (runs["status"] == "failed")].to_dict("records")
        rows = chart.hover(mark)
        assert rows["name"] == found["deployment_name"]
        assert rows["outcome"] == "failed"
        assert rows["time"] == f"{found['triggered_at'].tz_convert(ZONE):%Y-%m-%d %H:%M:%S}"
        assert rows["error"] == " ".join(f"{found['error_type']}: {found['error_message']}".split())
        seconds = found["duration_ms"] / 1000
        unit = re.fullmatch(r"(?:(\d+) min )?([\d.]+) (s|ms)", rows["duration"])
        assert unit is not None
        tooltip_seconds = int(unit[1] or 0) * 60 + float(unit[2]) / (1000 if unit[3] == "ms" else 1)
        assert tooltip_seconds == pytest.approx(seconds, abs=1 if unit[1] else 0.051)

    def test_tooltip_of_a_deployment_has_rate_and_interval(self, chart: Chart, frames: Frames) -> None:
        rates = qd.run_failure_rates(qd.with_names(frames[1], frames[0]))
        rows = chart.hover(chart.marks("deployment_rows_0_marks")[4])
        rate = rates.iloc[4]
        assert rows["name"] == rate["name"]
        assert rows["failure rate"] == f"{100 * rate['failure_rate']:.1f} %"
        assert rows["95 % interval"] == f"{100 * rate['ci_low']:.1f}–{100 * rate['ci_high']:.1f} %"
        assert (rows["runs"], rows["failed"]) == (str(rate["runs"]), str(rate["failed"]))

    def test_a_click_on_an_agent_selects_its_runs(self, chart: Chart, frames: Frames) -> None:
        runs = frames[1]
        agent = chart.marks("agent_rows_0_marks")[1]
        selected = runs[runs["agent_id"] == agent.datum["id"]]
        chart.click(agent)
        wait_until(lambda: overview_sums(chart) == expected_sums(selected), "the runs of one agent")
        assert drawn_cells(chart) == expected_cells(selected)
        assert {row["id"] for row in chart.data("deployment_rows_0_marks")} == set(selected["deployment_id"])
        assert len(chart.data("timeline_marks")) == len(selected)
        chart.page.mouse.dblclick(agent.x, agent.y)
        wait_until(lambda: overview_sums(chart) == expected_sums(runs), "all runs again")

    def test_a_click_on_another_agent_replaces_a_selected_deployment(self, chart: Chart, frames: Frames) -> None:
        runs = frames[1]
        row = chart.marks("deployment_rows_0_marks")[3]
        selected = runs[runs["deployment_id"] == row.datum["id"]]
        chart.click(row)
        wait_until(lambda: overview_sums(chart) == expected_sums(selected), "the runs of one deployment")
        assert drawn_cells(chart) == expected_cells(selected)
        assert {mark["d"] for mark in chart.data("timeline_marks")} == {row.datum["d"]}
        assert len(chart.data("timeline_marks")) == len(selected)
        rows = chart.marks("deployment_rows_0_marks")
        assert len(rows) == 30
        assert [mark.datum["d"] for mark in rows if mark.opacity > 0.1] == [row.datum["d"]]
        dots = chart.marks("concat_0_concat_0_layer_3_marks")
        own = set(selected["agent_id"])
        assert {mark.datum["id"] for mark in dots if mark.opacity == 1} == own
        other = next(mark for mark in chart.marks("agent_rows_0_marks") if mark.datum["id"] not in own)
        chart.click(other)
        of_other = runs[runs["agent_id"] == other.datum["id"]]
        wait_until(lambda: overview_sums(chart) == expected_sums(of_other), "the runs of the other agent")
        chart.page.mouse.dblclick(other.x, other.y)
        wait_until(lambda: overview_sums(chart) == expected_sums(runs), "all runs again")

    def test_dragging_on_the_overview_zooms_to_a_time_range(self, chart: Chart, frames: Frames) -> None:
        runs = frames[1]
        last = max(chart.marks("overview_marks"), key=lambda mark: mark.x)
        bottom = chart.marks("zoom_brush_bg")[0].y
        chart.page.mouse.move(last.x - 60, bottom)
        chart.page.mouse.down()
        chart.page.mouse.move(last.x - 30, bottom, steps=3)
        chart.page.mouse.move(last.x - 5, bottom, steps=3)
        chart.page.mouse.up()
        wait_until(lambda: chart.page.evaluate("view.signal('zoom').begin"), "the zoom")
        # Run the view first, so that the signal includes the last mouse move.
        low, high = chart.page.evaluate("view.runAsync().then(() => view.signal('zoom').begin)")
        wall = runs["triggered_at"].dt.tz_convert(ZONE).dt.tz_localize(None).dt.as_unit("ms").astype("int64")
        selected = runs[wall.between(low, high)]
        assert 0 < len(selected) < len(runs) / 2
        wait_until(lambda: drawn_cells(chart) == expected_cells(selected), "the calendar of that time")
        shown = runs["deployment_id"].isin([row["id"] for row in chart.data("deployment_rows_0_marks")])
        marks = chart.marks("timeline_marks")
        assert len(marks) == int((wall.between(low, high) & shown).sum())
        # The position of a run is proportional to its time within the zoomed range.
        left, right = min(marks, key=lambda mark: mark.x), max(marks, key=lambda mark: mark.x)
        width = (right.x - left.x) / (right.datum["t"] - left.datum["t"]) * (high - low)
        assert width == pytest.approx(520, abs=8)
        assert overview_sums(chart) == expected_sums(runs)
        chart.page.mouse.dblclick(last.x - 30, bottom)
        wait_until(lambda: drawn_cells(chart) == expected_cells(runs), "all times again")

    def test_slider_scrolls_and_search_filters_the_rows(self, chart: Chart, frames: Frames) -> None:
        slider = chart.page.locator("#controls input[type=range]")
        slider.focus()
        slider.press("End")
        count = frames[1]["deployment_id"].nunique()
        wait_until(lambda: rows_from_top(chart) == list(range(count - 30, count)), "the last rows")
        slider.press("Home")
        search = chart.page.locator("#controls input[type=search]")
        search.fill("aGENT 3")
        ids = qd.with_names(frames[1], frames[0]).merge(
            frames[0][["id", "agent_name"]], left_on="deployment_id", right_on="id"
        )
        selected = set(ids.loc[ids["agent_name"] == "Agent 3", "deployment_id"])
        wait_until(
            lambda: {row["id"] for row in chart.data("deployment_rows_0_marks")} == selected,
            "the rows that match the search",
        )
        assert {mark["d"] for mark in chart.data("timeline_marks")} == {
            row["d"] for row in chart.data("deployment_rows_0_marks")
        }
        search.fill("no such name")
        nothing = "No agent or deployment has this in its name"
        wait_until(lambda: nothing in chart.page.evaluate(TITLES), "the sentence that nothing matches")
        assert chart.data("deployment_rows_0_marks") == chart.data("timeline_marks") == []
        search.fill("")
        wait_until(lambda: rows_from_top(chart) == list(range(30)), "all rows")
        assert "Failure rate by agent" in chart.page.evaluate(TITLES)


def test_windows_of_a_week_begin_on_monday(
    frames: Frames, chromium: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bars of the overview and cells of the calendar are the sums of whole weeks."""
    runs, path = frames[1], tmp_path / "weeks.html"
    monkeypatch.setattr(chart_tables, "MOST_ROWS", 300)
    summed = qd.explore(*frames, path, tz=ZONE)
    assert "within 7 d." in summed.to_dict()["title"]["subtitle"][1]
    weeks = runs["triggered_at"].dt.tz_convert(ZONE).dt.tz_localize(None).dt.to_period("W-SUN").dt.start_time
    expected = runs.groupby(weeks).size().to_dict()
    failed = runs["status"].eq("failed").groupby(weeks).sum().to_dict()
    with open_chart(chromium, path) as chart:
        bars_of: dict[pd.Timestamp, int] = {}
        for bar in chart.data("overview_marks"):
            begin = pd.Timestamp(bar["begin"], unit="ms")
            bars_of[begin] = bars_of.get(begin, 0) + bar["runs"]
        assert bars_of == expected
        cells = {pd.Timestamp(cell["day"], unit="ms"): cell for cell in chart.data("calendar_marks")}
        assert {week: cell["failed"] for week, cell in cells.items()} == failed
        assert all(week.weekday() == 0 for week in cells)
        row = chart.hover(chart.marks("timeline_marks")[-1])
        assert int(row["runs"]) >= 1
        assert set(row) == {"name", "outcome", "from", "runs", "median duration", "most frequent error"}


SCREENS: dict[str, dict[str, Any]] = {
    "desk": {},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}},
}


@pytest.mark.parametrize("width", [320, 360])
def test_controls_fit_a_narrow_phone(chromium: Browser, path: Path, width: int) -> None:
    with open_chart(chromium, path, viewport={"width": width, "height": 740}) as chart:
        for control in chart.page.locator("#controls input").all():
            box = control.bounding_box()
            assert box is not None
            assert box["x"] + box["width"] <= width


def test_timeline_rows_have_names_on_a_phone(chromium: Browser, path: Path) -> None:
    with open_chart(chromium, path, **SCREENS["phone"]) as chart:

        def count_named_rows() -> int:
            """Return the number of rows if all have their names beside them in order, else 0."""
            names = [row["label"] for row in chart.data("deployment_rows_0_marks")]
            shown: list[str] = chart.page.evaluate(AXIS_LABELS)
            return len(names) if names == [label for label in shown if label in names] else 0

        assert count_named_rows() == 30
        chart.page.locator("#controls input[type=search]").fill("Agent 3")
        wait_until(lambda: 0 < count_named_rows() < 30, "the names of the rows that match the search")
        assert chart.page.evaluate("document.querySelector('.scroll').scrollWidth") <= 390


@pytest.mark.parametrize("width", [480, 1280])
def test_labels_of_short_periods_have_days_and_whole_numbers(
    width: int, frames: Frames, chromium: Browser, tmp_path: Path
) -> None:
    """Vega leaves out labels that overlap, once all but those of noon, and rounds half a run to 1."""
    deployments, runs = frames
    at = pd.date_range("2026-11-25T08:11Z", "2026-11-30T19:11Z", periods=3, unit="us")
    few = runs.head(3).assign(triggered_at=at)
    qd.explore(deployments, few, tmp_path / "few.html")
    with open_chart(chromium, tmp_path / "few.html", viewport={"width": width, "height": 800}) as chart:
        script = AXIS_LABELS.replace("mark.items.map", "mark.items.filter((item) => item.opacity > 0).map")
        shown: list[str] = chart.page.evaluate(script)
    assert len([label for label in shown if label in {"26 Nov", "27 Nov", "28 Nov", "30 Nov"}]) >= 6
    assert [label for label in shown if re.fullmatch(r"\d", label)] == ["0", "1"]


@pytest.fixture(scope="module")
def hostile_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explore") / "hostile.html"
    qd.explore(*hostile()[:2], path)
    return path


@pytest.mark.parametrize("screen", SCREENS)
def test_hostile_texts_are_shown_as_text_and_not_executed(
    screen: str, chromium: Browser, hostile_path: Path
) -> None:
    """No script of a text runs, no request is sent, and the page fits the screen."""
    with open_chart(chromium, hostile_path, **SCREENS[screen]) as chart:
        page = chart.page
        rows, points = chart.marks("deployment_rows_0_marks"), chart.marks("timeline_marks")
        for mark in [*rows[:12], points[-1]]:
            page.evaluate("y => window.scrollTo(0, y - window.innerHeight / 2)", mark.y)
            page.mouse.move(2, 2)
            rows_of_tooltip = chart.hover(mark._replace(y=mark.y - page.evaluate("window.scrollY")))
            assert rows_of_tooltip["name"] == mark.datum["full"]
        assert rows_of_tooltip["error"] == points[-1].datum["error"]
        assert len({row.datum["full"] for row in rows[:12]} & set(HOSTILE)) > 3
        assert any(name[:40] in rows_of_tooltip["error"] for name in HOSTILE)
        assert page.locator("#vg-tooltip-element :is(img, script, iframe, svg, link, meta, b)").count() == 0
        assert page.evaluate("window.hacked") is None
        assert page.title() == "Runs of scheduled agents"
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(21, 24, 27)" if screen == "dark" else "rgb(255, 255, 255)")


def test_a_switch_to_the_dark_color_scheme_recolors_the_chart(chromium: Browser, path: Path) -> None:
    with open_chart(chromium, path) as chart:

        def name_color() -> str:
            walk = (
                "(m) => m.name === 'concat_1_concat_0_layer_1_marks' ? m.items[0].fill : (m.items || []).flatMap"
            )
            walk += "(i => i.items || []).map(walk).find(Boolean)"
            text: str = chart.page.evaluate(
                f"() => {{ const walk = {walk}; return walk(view.scenegraph().root); }}"
            )
            return text

        assert name_color() == "#1d2226"
        chart.page.emulate_media(color_scheme="dark")
        wait_until(lambda: name_color() == "#e8e6e1", "light names")
        assert chart.page.locator("#controls input[type=search]").count() == 1


def test_the_picture_is_saved_by_keyboard_too(chromium: Browser, path: Path) -> None:
    """Vega makes the file when the mouse is pressed on the link."""
    with open_chart(chromium, path) as chart:
        link = chart.page.get_by_text("Save as SVG")
        link.focus()
        wait_until(lambda: link.get_attribute("href") != "#", "the picture")
        with chart.page.expect_download() as download:
            chart.page.keyboard.press("Enter")
        assert download.value.path().read_bytes().startswith(b"<svg")
