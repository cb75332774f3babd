"""Tests that all plots have in common: figures and axes, empty frames, layout, wrong times, missing columns."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any, cast

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text

import qoderdata as qd
from qoderdata.errors import DataQualityWarning, MissingColumnError
from qoderdata.frame_checks import TEXT
from qoderdata.outcomes import STATUSES
from qoderdata.plots.axes import PALE_IN_DARK, VERMILLION, write_title
from qoderdata.summaries import failure_rates, run_failure_rates, session_costs
from tests.test_plots_timeline_costs import lanes_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHANGHAI = "Asia/Shanghai"


def deployments(count: int) -> pd.DataFrame:
    random = np.random.default_rng(count)
    runs = random.integers(0, 400, count)
    failures = random.binomial(runs, random.beta(0.6, 4, count))
    streaks = np.where(np.arange(count) % 4 == 0, np.minimum(failures, 3), 0)
    return pd.DataFrame(
        {
            "id": pd.array([f"dep_{number:032x}" for number in range(count)], dtype=TEXT),
            "name": pd.array([f"job-{number:03d}" for number in range(count)], dtype=TEXT),
            "agent_id": pd.array([f"agent_{number % 9:032x}" for number in range(count)], dtype=TEXT),
            "stats_total_runs": pd.array(runs, dtype="Int64"),
            "stats_total_failures": pd.array(failures, dtype="Int64"),
            "stats_consecutive_failures": pd.array(streaks, dtype="Int64"),
        }
    )


def rates(count: int = 20) -> pd.DataFrame:
    return failure_rates(deployments(count))


def triggers(count: int = 12) -> pd.DataFrame:
    """Return the triggers of three days; the interval grows with the number of the deployment."""
    first = pd.Timestamp("2026-06-15T01:20Z")
    parts = []
    for number, row in enumerate(deployments(count).itertuples(index=False)):
        begin, freq = first + pd.Timedelta(minutes=7 * number), f"{60 * (1 + number % 30)}min"
        times = pd.date_range(begin, first + pd.Timedelta(days=3), freq=freq, unit="us").tz_convert(SHANGHAI)
        ids = {"deployment_id": row.id, "name": row.name, "agent_id": row.agent_id}
        parts.append(pd.DataFrame({"trigger_at": times, **ids}))
    frame = pd.concat(parts).sort_values(["trigger_at", "deployment_id"], ignore_index=True)
    return frame.astype(dict.fromkeys(["deployment_id", "name", "agent_id"], "category"))


def runs(count: int = 600, *, days: float = 40, deployment_count: int = 8) -> pd.DataFrame:
    random = np.random.default_rng(count)
    at = pd.Timestamp("2026-05-03T05:00Z") + pd.to_timedelta(
        np.sort(random.random(count)) * days * 86_400, unit="s"
    )
    at = at[at.day % 9 != 0]
    status = random.choice(["completed", "failed", "skipped", "running"], len(at), p=[0.7, 0.15, 0.1, 0.05])
    status[at.day == 20] = "skipped"
    ended = np.isin(status, ["completed", "failed"])
    return pd.DataFrame(
        {
            "id": pd.array([f"run_{number}" for number in range(len(at))], dtype=TEXT),
            "deployment_id": pd.array([f"dep_{n % deployment_count:032x}" for n in range(len(at))], dtype=TEXT),
            "status": pd.array(status, dtype=TEXT),
            "trigger_type": pd.array(["schedule"] * len(at), dtype=TEXT),
            "attempt": pd.array([1] * len(at), dtype="Int64"),
            "triggered_at": at.as_unit("us"),
            "duration_ms": pd.array(random.lognormal(10, 1, len(at)).astype("int64"), dtype="Int64").copy(),
        }
    ).assign(duration_ms=lambda frame: frame["duration_ms"].where(ended))


@cache
def run_rates(by: str | None = None) -> pd.DataFrame:
    return run_failure_rates(runs(), by=by, freq="1D", tz=SHANGHAI)


def sessions(count: int = 6) -> pd.DataFrame:
    random = np.random.default_rng(count)
    rows = 400
    total = np.where(random.random(rows) < 0.1, np.nan, random.lognormal(0, 1, rows).round(2))
    return pd.DataFrame(
        {
            "id": pd.array([f"sess_{number}" for number in range(rows)], dtype=TEXT),
            "deployment_id": pd.array([f"dep_{n % count:032x}" for n in range(rows)], dtype=TEXT),
            "deployment_name": pd.array([f"job {n % count}" for n in range(rows)], dtype=TEXT),
            "created_at": pd.date_range("2026-05-03T05:00Z", periods=rows, freq="2h", unit="us"),
            "usage_total_credits": total,
            "usage_model_credits": np.where(np.arange(rows) < 100, np.nan, (0.8 * total).round(2)),
            "usage_sandbox_runtime_credits": np.where(np.arange(rows) < 100, np.nan, (0.2 * total).round(2)),
        }
    )


def costs(by: str | None = "deployment_id", *, count: int = 6, freq: str | None = None) -> pd.DataFrame:
    return session_costs(sessions(count), by, freq=freq, tz=SHANGHAI)


@dataclass
class Case:
    """A plot function and a frame for it."""

    plot: Callable[..., Axes]
    make: Callable[[], pd.DataFrame]
    words: tuple[str, ...]  # texts that its labels must contain

    @cached_property
    def _made(self) -> pd.DataFrame:
        return self.make()

    def frame(self) -> pd.DataFrame:
        return self._made.copy()


CASES = {
    "failure_rates": Case(qd.plot_failure_rates, rates, ("failure rate", "Wilson", "failed / runs")),
    "failure_rates_of_one": Case(qd.plot_failure_rates, lambda: rates(1), ("failure rate",)),
    "failure_rates_of_500": Case(qd.plot_failure_rates, lambda: rates(500), ("20 of 500 shown",)),
    "failure_rates_by_agent": Case(
        qd.plot_failure_rates, lambda: failure_rates(deployments(90), by="agent_id"), ("failure rate", " of 10")
    ),
    "failure_rates_of_all": Case(qd.plot_failure_rates, lambda: failure_rates(deployments(90), by=None), ("all",)),
    "failure_rates_of_runs": Case(
        qd.plot_failure_rates, lambda: run_failure_rates(runs()), ("failed / decided runs",)
    ),
    "next_triggers": Case(qd.plot_next_triggers, triggers, ("trigger time", "Asia/Shanghai (UTC+08:00)", "agent")),
    "next_triggers_of_one": Case(qd.plot_next_triggers, lambda: triggers(1), ("trigger time",)),
    "next_triggers_of_150": Case(qd.plot_next_triggers, lambda: triggers(150), ("40 of 150", "3 other agents")),
    "trigger_load": Case(qd.plot_trigger_load, triggers, ("hour of day", "Asia/Shanghai", "weekday", "hatched")),
    "run_failure_rates": Case(qd.plot_run_failure_rates, run_rates, ("failure rate", "Asia/Shanghai", "Wilson")),
    "run_failure_rates_by": Case(
        qd.plot_run_failure_rates, lambda: run_rates("deployment_id"), ("start of window", "failed / decided runs")
    ),
    "run_failure_rates_of_30": Case(
        qd.plot_run_failure_rates,
        lambda: run_failure_rates(runs(deployment_count=30), freq="1D"),
        ("12 of 30 shown", "faint: fewer than 5 decided runs"),
    ),
    "run_timeline": Case(qd.plot_run_timeline, runs, ("time, UTC", "failed (", "skipped (", "narrowest bar")),
    "run_timeline_of_60": Case(
        qd.plot_run_timeline, lambda: runs(deployment_count=60), ("40 of 60 deployments shown", "running")
    ),
    "costs": Case(qd.plot_costs, costs, ("credits", "share", "sandbox runtime", "are unknown")),
    "costs_of_50": Case(qd.plot_costs, lambda: costs(count=50), ("20 of 50 shown", "unknown")),
    "costs_over_time": Case(
        qd.plot_costs, lambda: costs(by=None, freq="1D"), ("credits", "Asia/Shanghai", "start of window")
    ),
    "costs_over_time_by": Case(
        partial(qd.plot_costs, top=6),
        lambda: costs(count=30, freq="1W"),
        ("6 of 30 shown", "titles: credits", "model"),
    ),
    "run_calendar": Case(qd.plot_run_calendar, runs, ("weekday", "UTC", "no runs", "only skipped or unfinished")),
    "durations": Case(qd.plot_durations, runs, ("duration", "runs", "median", "completed", "failed")),
}

#: Cases that draw the same kinds of marks as another case; they are drawn once and not rendered, to save time.
SAME_BUT_FOR_SIZE = [case for name, case in CASES.items() if re.search("_of_|_by_agent", name)]


def cases_without(*names: str) -> pytest.MarkDecorator:
    """Parametrize with all cases except those whose input equals that of another case."""
    left = {name: case for name, case in CASES.items() if name not in names}
    assert len(left) == len(CASES) - len(names)
    return pytest.mark.parametrize("case", left.values(), ids=left.keys())


#: Every plot function that a case has.
PLOTS = sorted(
    {case.plot for case in CASES.values() if not isinstance(case.plot, partial)}, key=lambda plot: plot.__name__
)


def test_each_public_plot_has_a_case() -> None:
    plots = {name for name in dir(qd) if name.startswith("plot_")} - {"plot_style"}
    assert {plot.__name__ for plot in PLOTS} == plots


def texts_of(ax: Axes) -> list[Text]:
    """List the visible texts in an axes and its children."""
    return [text for text in ax.findobj(Text) if isinstance(text, Text) and text.get_text() and text.get_visible()]


def words_of(ax: Axes) -> str:
    return "\n".join(text.get_text() for text in texts_of(ax))


def figure_of(ax: Axes) -> Figure:
    figure = ax.get_figure()
    assert isinstance(figure, mpl.figure.Figure)
    return figure


def x_labels_touch(ax: Axes, pixels: float = 6) -> bool:
    """Return whether labels of the x axis are less than so many pixels apart."""
    drawn = [label for label in ax.get_xticklabels() if label.get_text() and label.get_visible()]
    boxes = sorted((label.get_window_extent() for label in drawn), key=lambda box: box.x0)
    return any(left.x1 + pixels > right.x0 for left, right in pairwise(boxes))


def texts_cut_off(ax: Axes, right: float | None = None) -> list[Text]:
    """List the texts that reach over an edge of the figure, or over the x position `right`."""
    edges = figure_of(ax).bbox.padded(1)
    boxes = [(text, text.get_window_extent()) for text in texts_of(ax)]
    return [
        text
        for text, box in boxes
        if not (edges.contains(*box.min) and edges.contains(*box.max)) or box.x1 > (right or edges.x1)
    ]


class TestEveryPlot:
    @cases_without()
    def test_draws_in_a_new_figure_and_changes_nothing_else(
        self, case: Case, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The frame, the settings of Matplotlib, and pyplot's current figure stay as they are."""

        def forbidden(*_: object, **__: object) -> None:
            raise AssertionError("a plot function must not show, close or save a figure")

        other_figure, other_axes = plt.subplots()
        children, settings = len(other_axes.get_children()), dict(mpl.rcParams)
        frame = case.frame()
        before = frame.copy(deep=True)
        with monkeypatch.context() as during:
            for name in ("show", "close", "savefig"):
                during.setattr(plt, name, forbidden)
            for name in ("show", "savefig"):
                during.setattr(mpl.figure.Figure, name, forbidden)
            drawn = [case.plot(frame) for _ in range(1 if case in SAME_BUT_FOR_SIZE else 2)]
        first = drawn[0]
        pd.testing.assert_frame_equal(frame, before)
        assert dict(mpl.rcParams) == settings
        assert len({other_figure, *map(figure_of, drawn)}) == len(plt.get_fignums()) == 1 + len(drawn)
        assert len(other_axes.get_children()) == children
        assert len(set(map(words_of, drawn))) == 1

        if case in SAME_BUT_FOR_SIZE:
            figure_of(first).draw_without_rendering()
        else:
            figure_of(first).canvas.draw()
        assert first.get_title()
        assert first.get_xlabel()
        assert not [words for words in case.words if words not in words_of(first)]
        assert not texts_cut_off(first)

    @cases_without(
        "failure_rates_of_one", "failure_rates_of_500", "next_triggers_of_one", "next_triggers_of_150",
        "run_timeline_of_60", "costs_of_50",
    )  # fmt: skip
    def test_an_empty_frame_gives_a_title_and_one_sentence(self, case: Case) -> None:
        ax = case.plot(case.frame().iloc[:0])
        figure_of(ax).draw_without_rendering()
        (sentence,) = (text.get_text() for text in ax.texts)
        assert sentence.endswith(".")
        assert ax.get_title()
        assert not [*ax.lines, *ax.patches, *ax.collections]

    @cases_without()
    def test_draws_on_given_narrow_axes_only_and_may_be_repeated(self, case: Case) -> None:
        figure, (given, other) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
        plt.sca(other)
        before = [repr(child) for child in other.get_children()], other.get_xlim(), other.get_ylim()
        assert case.plot(case.frame(), ax=given) is given
        figure.draw_without_rendering()
        assert ([repr(child) for child in other.get_children()], other.get_xlim(), other.get_ylim()) == before
        assert plt.gca() is other
        assert plt.get_fignums() == [figure.number]
        assert figure.axes == [given, other]
        assert not any(x_labels_touch(cast("Axes", axes)) for axes in (given, *given.child_axes))
        other_box = other.get_tightbbox()
        assert other_box is not None
        assert not texts_cut_off(given, right=other_box.x0)
        if case not in SAME_BUT_FOR_SIZE:
            case.plot(case.frame(), ax=given)
            figure.draw_without_rendering()

    @pytest.mark.parametrize("plot", PLOTS)
    def test_a_frame_with_other_columns_is_refused(self, plot: Callable[..., Axes]) -> None:
        with pytest.raises(MissingColumnError, match="it has: colour"):
            plot(pd.DataFrame({"colour": ["red"]}))
        assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("width", "title"),
    [
        (9, "Failure rate over time (12 of 30 shown, most failures first)"),
        (5, "Failure rate over time\n(12 of 30 shown,\nmost failures first)"),
        (2.5, "Failure rate over\ntime\n(12 of 30 shown,\nmost failures\nfirst)"),
    ],
)
def test_a_title_wider_than_the_axes_is_wrapped(width: float, title: str) -> None:
    """It is wrapped before the bracket first, then after commas, then between words."""
    _, ax = plt.subplots(figsize=(width, 4), layout="constrained")
    write_title(ax, "Failure rate over time", 12, 30, "shown, most failures first")
    assert ax.get_title() == title


@pytest.mark.filterwarnings("error")
def test_panels_over_three_years_have_year_labels() -> None:
    """Without help, Matplotlib finds no ticks for more than a year and a half, and warns each time it draws."""
    many = runs(200, days=1100)
    ax = qd.plot_run_failure_rates(run_failure_rates(many, freq="28D"))
    figure_of(ax).draw_without_rendering()
    assert "2027" in [label.get_text() for label in ax.child_axes[-1].get_xticklabels()]


def test_panels_of_one_day_are_labelled_with_it() -> None:
    day = runs(60, days=1 / 24)
    ax = qd.plot_run_failure_rates(run_failure_rates(day, freq="1D"))
    figure_of(ax).draw_without_rendering()
    assert [label.get_text() for label in ax.child_axes[-1].get_xticklabels()] == ["2026-05-03"]


def test_calendar_labels_do_not_touch_above_a_timeline_with_long_names() -> None:
    """The names and the legend of the timeline below make the calendar narrow."""
    figure, grid = plt.subplots(3, 2, figsize=(8, 9), layout="constrained")
    ax = qd.plot_run_calendar(runs(days=300), ax=grid[0, 1])
    qd.plot_run_timeline(runs(), ax=grid[1, 1])
    figure.draw_without_rendering()
    assert not x_labels_touch(ax)


def test_a_calendar_over_several_years_has_year_labels() -> None:
    ax = qd.plot_run_calendar(runs(200, days=800))
    figure_of(ax).draw_without_rendering()
    labels = [label.get_text() for label in ax.get_xticklabels() if label.get_text()]
    assert labels[0] == "May 2026"
    assert {label[-4:] for label in labels} == {"2026", "2027", "2028"}


@pytest.mark.parametrize("weeks", [50, 60, 170, 400])
def test_weekdays_and_legend_of_a_long_calendar_have_room(weeks: int) -> None:
    """Once, the figure was as low as the squares are narrow."""
    ax = qd.plot_run_calendar(runs(200, days=7 * weeks))
    figure = figure_of(ax)
    figure.draw_without_rendering()
    assert not rows_overlap(ax)
    legend = ax.get_legend()
    assert legend is not None
    assert legend.get_window_extent().y0 >= figure.bbox.y0


@pytest.mark.parametrize("name", ["run_calendar", "run_timeline", "durations"])
def test_runs_that_are_drawn_twice_cause_a_warning(name: str) -> None:
    with pytest.warns(DataQualityWarning, match="rows of the runs frame have an id that an earlier row has"):
        CASES[name].plot(pd.concat([runs(), runs()]))


@pytest.mark.parametrize("column", ["deployments", "consecutive_failures"])
def test_failure_rates_without_a_streak_column_are_refused(column: str) -> None:
    with pytest.raises(MissingColumnError, match=f"the rates frame has no column '{column}'"):
        qd.plot_failure_rates(rates().drop(columns=column))


@pytest.mark.parametrize("case", ["failure_rates", "trigger_load", "run_calendar", "durations"])
def test_lines_and_texts_are_light_in_a_dark_style(case: str) -> None:
    with plt.style.context("dark_background"):
        ax = CASES[case].plot(CASES[case].frame())
        figure_of(ax).draw_without_rendering()
    assert mpl.colors.same_color(ax.title.get_color(), "white")
    if case == "failure_rates":
        assert mpl.colors.same_color(np.asarray(ax.collections[0].get_edgecolor())[0], "white")
        colors = {mpl.colors.to_hex(bar.get_facecolor()).upper() for bar in ax.patches}
        assert colors == {PALE_IN_DARK, VERMILLION}  # the light lines are drawn on these bars


def rows_overlap(ax: Axes) -> bool:
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    boxes.sort(key=lambda box: -box.y0)
    return any(below.y1 > above.y0 + 1 for above, below in pairwise(boxes))


@pytest.mark.parametrize("top", [1, 40])
def test_row_labels_do_not_overlap(top: int) -> None:
    for ax in (qd.plot_failure_rates(rates(45), top=top), qd.plot_next_triggers(triggers(45), top=top)):
        figure_of(ax).draw_without_rendering()
        assert len(ax.get_yticklabels()) == top
        assert not rows_overlap(ax)


def test_a_large_font_leaves_room_for_rows_and_squares() -> None:
    """Once, title, labels and legend took the room of the rows, and squares became narrow."""
    with mpl.rc_context({"font.size": 20}):
        bars, squares = (CASES[name].plot(CASES[name].frame()) for name in ("costs", "run_calendar"))
        for ax in (bars, squares):
            figure_of(ax).draw_without_rendering()
    assert not rows_overlap(bars)
    headers = [text for text in bars.texts if text.get_text() in {"credits", "share", "sessions"}]
    assert len(headers) == 3
    assert max(header.get_window_extent().y1 for header in headers) < bars.title.get_window_extent().y0
    box = squares.get_window_extent()
    assert box.width / np.ptp(squares.get_xlim()) > 0.9 * box.height / np.ptp(squares.get_ylim())


def test_texts_of_panels_are_as_large_as_the_font_of_the_style() -> None:
    sizes = []
    for font_size in (10, 16):
        with mpl.rc_context({"font.size": font_size}):
            ax = CASES["costs_over_time_by"].plot(CASES["costs_over_time_by"].frame())
            figure_of(ax).draw_without_rendering()
        panel = ax.child_axes[0]
        sizes.append([text.get_fontsize() for text in (panel.get_yticklabels()[0], panel.texts[0])])
    assert np.divide(sizes[1], sizes[0]) == pytest.approx(1.6, rel=0.15)


@pytest.mark.filterwarnings("error::UserWarning")  # Matplotlib warns if the axes have no room at all
@pytest.mark.parametrize("size", [(4, 3), (3, 2)])
@cases_without("next_triggers_of_150", "run_timeline_of_60", "costs_of_50")  # their rows need more than 2 inches
def test_labels_in_a_small_figure_do_not_overlap_and_are_not_cut_off(
    case: Case, size: tuple[float, float]
) -> None:
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    case.plot(case.frame(), ax=ax)
    figure.draw_without_rendering()
    assert not rows_overlap(ax)
    assert not any(x_labels_touch(cast("Axes", axes), pixels=3) for axes in (ax, *ax.child_axes))
    assert not texts_cut_off(ax)


@pytest.mark.parametrize("plot", [qd.plot_run_timeline, qd.plot_run_calendar, qd.plot_durations])
def test_a_status_that_counts_as_failed_is_drawn_as_failed(
    plot: Callable[..., Axes], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [text.get_text() for text in texts_of(plot(runs()))]
    monkeypatch.setitem(STATUSES, "failed", [*STATUSES["failed"], "timed_out"])
    frame = runs()
    renamed = frame.assign(status=frame["status"].replace("failed", "timed_out"))
    assert [text.get_text() for text in texts_of(plot(renamed))] == expected


@pytest.mark.parametrize("size", [(3, 2), (4, 3), (9, 5)])
def test_the_lines_between_the_days_of_a_calendar_do_not_hide_their_colors(size: tuple[float, float]) -> None:
    days = pd.date_range("2026-01-05T12:00Z", periods=31 * 7, freq="1D")
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    qd.plot_run_calendar(pd.DataFrame({"triggered_at": days, "status": "failed"}), ax=ax)
    canvas: Any = figure.canvas
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[::-1]
    left, bottom, right, top = (int(side) for side in ax.get_window_extent().extents)
    is_dark_red = (pixels[bottom:top, left:right, :3] < (192, 128, 128)).all(axis=2)
    assert is_dark_red.mean() > 0.5


@pytest.mark.parametrize("case", ["run_calendar", "durations", "next_triggers"])
def test_a_narrow_axis_has_two_labels_at_least(case: str) -> None:
    figure, ax = plt.subplots(figsize=(4, 3), layout="constrained")
    CASES[case].plot(CASES[case].frame(), ax=ax)
    figure.draw_without_rendering()
    assert len([label for label in ax.get_xticklabels() if label.get_text()]) > 1


def test_a_week_of_triggers_has_two_times_at_least_in_narrow_axes() -> None:
    """Once, Matplotlib found only the fifth day of a month, and wrote 00:00."""
    days = pd.date_range("2026-12-01T09:17Z", periods=170, freq="1h").tz_convert(SHANGHAI)
    week = pd.DataFrame({"trigger_at": days, "deployment_id": "dep_1", "name": "job", "agent_id": "agent_1"})
    figure, ax = plt.subplots(figsize=(3, 3), layout="constrained")
    qd.plot_next_triggers(week, ax=ax)
    figure.draw_without_rendering()
    assert len([label for label in ax.get_xticklabels() if label.get_text()]) > 1


def test_days_are_written_alike_on_all_axes_of_time() -> None:
    days = r"\d\d [A-Z][a-z]{2}"
    calendar, timeline = qd.plot_run_calendar(runs()), qd.plot_next_triggers(triggers())
    for ax in (calendar, timeline):
        figure_of(ax).draw_without_rendering()
        labels = [label.get_text() for label in ax.get_xticklabels()]
        named = [label for label in labels if re.search("[A-Z]", label)]
        assert named
        assert not [label for label in named if not re.fullmatch(days, label)]


@pytest.mark.parametrize("case", ["failure_rates_of_500", "next_triggers_of_150"])
def test_row_labels_do_not_overlap_in_small_axes(case: str) -> None:
    figure, axes = plt.subplots(2, 2, figsize=(14, 9), layout="constrained")
    ax = CASES[case].plot(CASES[case].frame(), ax=axes[0, 0])
    figure.draw_without_rendering()
    assert not rows_overlap(ax)


@pytest.mark.parametrize(
    "case", ["failure_rates", "next_triggers", "run_failure_rates", "run_timeline", "costs", "costs_over_time"]
)
def test_top_0_and_labels_that_are_no_mapping_are_refused(case: str) -> None:
    with pytest.raises(ValueError, match="top=0"):
        CASES[case].plot(CASES[case].frame(), top=0)
    with pytest.raises(TypeError, match=r"^labels must be a mapping of ids to texts, such as .*, not list$"):
        CASES[case].plot(CASES[case].frame(), labels=["a"])
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    "case",
    ["failure_rates", "next_triggers", "trigger_load", "run_failure_rates", "run_timeline", "costs",
     "costs_over_time", "run_calendar", "durations"],
)  # fmt: skip
def test_ax_that_is_no_axes_is_refused(case: str) -> None:
    with pytest.raises(TypeError, match=r"^ax must be one matplotlib Axes, as .* returns, not str$"):
        CASES[case].plot(CASES[case].frame(), ax="x")


@pytest.mark.parametrize("name", ["job", "nightly reconciliation of all ledgers and branches"])
def test_cost_bars_have_room_beside_long_names_in_a_small_figure(name: str) -> None:
    spent = sessions().assign(deployment_name=lambda frame: f"{name} " + frame["deployment_id"].str[-1])
    figure, ax = plt.subplots(figsize=(5, 4), layout="constrained")
    qd.plot_costs(session_costs(spent), ax=ax)
    figure.draw_without_rendering()
    assert not texts_cut_off(ax)
    assert ax.get_position().width > 0.08


def test_panel_titles_do_not_overlap_in_narrow_axes() -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    CASES["run_timeline"].plot(CASES["run_timeline"].frame(), ax=left)
    CASES["run_failure_rates_of_30"].plot(CASES["run_failure_rates_of_30"].frame(), ax=right)
    figure.draw_without_rendering()
    texts = [panel.texts[0] for panel in right.child_axes]
    titles = [text.get_window_extent() for text in texts]
    assert len(titles) == 12
    assert len({text.get_fontsize() for text in texts}) == 1
    assert not any(one.overlaps(other) for one, other in combinations(titles, 2))


@pytest.mark.parametrize("case", ["run_failure_rates_of_30", "costs_over_time_by"])
def test_panels_have_one_scale_and_do_not_overlap(case: str) -> None:
    ax = CASES[case].plot(CASES[case].frame())
    figure_of(ax).draw_without_rendering()
    panels = ax.child_axes
    assert len(panels) == (12 if case == "run_failure_rates_of_30" else 6)
    assert len({(panel.get_xlim(), panel.get_ylim()) for panel in panels}) == 1
    titles = [panel.texts[0].get_window_extent() for panel in panels]
    boxes = [panel.get_window_extent() for panel in panels]
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])
        assert not any(titles[number].overlaps(other) for other in [*titles[number + 1 :], *boxes])


each_plot_with_times = pytest.mark.parametrize(
    ("plot", "column", "make"),
    [
        (qd.plot_next_triggers, "trigger_at", triggers),
        (qd.plot_trigger_load, "trigger_at", triggers),
        (qd.plot_run_calendar, "triggered_at", runs),
    ],
)


@each_plot_with_times
def test_times_without_a_zone_are_refused(
    plot: Callable[..., Axes], column: str, make: Callable[[], pd.DataFrame]
) -> None:
    frame = make()
    frame[column] = frame[column].dt.tz_localize(None)
    with pytest.raises(ValueError, match=f"column '{column}' of the .* frame has no time zone; attach"):
        plot(frame)


@each_plot_with_times
@pytest.mark.parametrize("wrong", ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:00+00:00"])
def test_an_impossible_time_is_refused_by_name(
    plot: Callable[..., Axes], column: str, make: Callable[[], pd.DataFrame], wrong: str
) -> None:
    """A calendar of 8,000 years would take gigabytes of memory."""
    frame = make()
    frame[column] = frame[column].dt.tz_convert("UTC").astype("datetime64[us, UTC]")
    frame.loc[0, column] = pd.Series([wrong]).astype("datetime64[us, UTC]")[0]
    with pytest.raises(ValueError, match=rf"{column} reaches from .*{wrong[:10]}.*leave out the rows"):
        plot(frame)


def test_groups_with_the_same_text_are_drawn_apart() -> None:
    """A missing team, and one whose name is the text for a missing one."""
    days = pd.date_range("2026-06-01", periods=3, tz="UTC", unit="us")
    runs = pd.DataFrame(
        {
            "status": ["failed", "completed"] * 3,
            "duration_ms": 5,
            "metadata_team": ["(none)", None] * 3,
            "triggered_at": days.repeat(2),
        }
    )
    rates = run_failure_rates(runs, by="metadata_team", freq="1D")
    ax = qd.plot_run_failure_rates(rates)
    drawn = [np.asarray(panel.lines[0].get_ydata()).tolist() for panel in ax.child_axes]
    assert sorted(drawn) == [[0.0] * 3, [1.0] * 3]


def test_windows_that_repeat_without_keys_are_refused() -> None:
    two = pd.concat([run_rates()] * 2)
    with pytest.raises(ValueError, match=r"a window is there more than once: .* set_index"):
        qd.plot_run_failure_rates(two)


@pytest.mark.parametrize("top", [None, "5", 2.5, 0, True])
def test_top_must_be_a_whole_number(top: Any) -> None:  # noqa: ANN401 - wrong on purpose
    with pytest.raises(ValueError, match=r"top=.* must be a whole number, 1 or more"):
        qd.plot_run_failure_rates(run_rates(), top=top)


def test_run_failure_rates_over_200_years_are_refused() -> None:
    rates = run_rates()
    times = pd.DatetimeIndex(rates.index)
    late = pd.DatetimeIndex(["2226-01-01"], tz=times.tz).as_unit("us")
    wrong = rates.set_axis(times[:-1].append(late)).rename_axis("window")
    with pytest.raises(ValueError, match="window reaches from 2026-05-02 16:00 UTC to 2225-12-31"):
        qd.plot_run_failure_rates(wrong)


def test_run_failure_rates_without_any_time_give_a_sentence() -> None:
    """Windows that are all missing once raised NumPy's error about a zero-size array."""
    rates = run_rates().iloc[:2]
    index = pd.DatetimeIndex([pd.NaT, pd.NaT], tz="UTC", name="window")
    ax = qd.plot_run_failure_rates(rates.set_axis(index))
    assert [text.get_text() for text in ax.texts] == ["There are no runs to show."]


def test_plot_failure_rates_refuses_rates_over_time() -> None:
    by_day = run_failure_rates(resolved_runs().dropna(subset="status"), freq="1D")
    with pytest.raises(ValueError, match="these rates are over time; draw them with plot_run_failure_rates"):
        qd.plot_failure_rates(by_day)


@pytest.mark.parametrize("rows", [1, 3])
def test_rows_without_their_keys_in_the_index_are_refused(rows: int) -> None:
    """After ``reset_index()`` all rows would have the same name, a single one ``all``. No figure stays open."""
    rates, spent = failure_rates(deployments(3)).reset_index().head(rows), costs().reset_index().head(rows)
    for plot, frame in ((qd.plot_failure_rates, rates), (qd.plot_costs, spent)):
        figures = plt.get_fignums()
        with pytest.raises(ValueError, match=r"no keys to be named by.*set_index"):
            plot(frame)
        assert plt.get_fignums() == figures
        assert len(set(lanes_of(plot(frame.set_index(frame.columns[0]))))) == len(frame)


def resolved_runs() -> pd.DataFrame:
    """Return runs of the newest edition, with a status of each kind."""
    status = ["completed", "completed", "failed", "cancelled", "waiting", "running", None, "completed"]
    status_from = ["session", "session", "events", "events", "events", "session", None, "events"]
    return pd.DataFrame(
        {
            "id": pd.array([f"run_{number}" for number in range(8)], dtype=TEXT),
            "deployment_id": pd.array(["dep_1"] * 8, dtype=TEXT),
            "status": pd.array(status, dtype=TEXT),
            "status_from": pd.array(status_from, dtype=TEXT),
            "triggered_at": pd.date_range("2026-06-15T01:00Z", periods=8, freq="1D", unit="us"),
            "duration_ms": pd.array([1000, None, 2000, None, None, None, None, 3000], dtype="Int64"),
        }
    )


class TestResolvedRuns:
    """Each plot says how many runs are only assumed to be completed."""

    NOTE = "2 of 3 completed runs are assumed, not proved"

    def test_calendar(self) -> None:
        ax = qd.plot_run_calendar(resolved_runs())
        assert ax.get_xlabel().endswith(self.NOTE)
        assert "only skipped or unfinished" in words_of(ax)

    def test_one_run(self) -> None:
        one = resolved_runs().query("status_from == 'session'").head(1)
        assert qd.plot_run_calendar(one).get_xlabel().endswith("1 of 1 completed run is assumed, not proved")

    def test_durations(self) -> None:
        assert "completed (2 runs, 1 assumed)" in words_of(qd.plot_durations(resolved_runs()))

    def test_rates(self) -> None:
        runs = resolved_runs()
        with pytest.warns(DataQualityWarning, match="the outcome of 1 of 8 counted runs is not known"):
            by_day, rates = run_failure_rates(runs, by=None, freq="1D"), run_failure_rates(runs)
        ax = qd.plot_run_failure_rates(by_day)
        assert ax.get_xlabel().endswith(self.NOTE)
        assert "skipped or unfinished or unknown" in words_of(ax)
        bars = [sum(bar.get_height() for bar in part) for part in ax.child_axes[0].containers]
        assert bars == [1, 3, 4]
        assert qd.plot_failure_rates(rates).get_xlabel().endswith(self.NOTE)

    def test_unknown_outcomes_are_not_shown_as_no_runs(self) -> None:
        runs = resolved_runs().assign(status=pd.Series([None] * 7 + ["skipped"], dtype=TEXT))
        runs["deployment_id"] = ["dep_1"] * 7 + ["dep_2"]
        with pytest.warns(DataQualityWarning, match="7 of 8"):
            rates = run_failure_rates(runs)
        words = words_of(qd.plot_failure_rates(rates))
        assert "unknown" in words
        assert "none decided" in words
        assert "no runs" not in words
        assert "only skipped or unfinished or unknown" in words_of(qd.plot_run_calendar(runs))

    @pytest.mark.parametrize("dtype", ["Int64", "object"])
    def test_rates_with_missing_counts_of_unknown_outcomes_are_drawn(self, dtype: str) -> None:
        rates = run_failure_rates(runs().iloc[:3]).assign(completed=0, failed=0)
        rates = rates.assign(unknown=pd.Series([None] * len(rates), rates.index, dtype=dtype))
        words = words_of(qd.plot_failure_rates(rates))
        assert "none decided" in words
        assert "unknown" not in words

    def test_rates_without_assumed_and_unknown_columns_are_drawn(self) -> None:
        old = run_rates().drop(columns=["assumed", "unknown"], errors="ignore")
        assert "assumed" not in qd.plot_run_failure_rates(old).get_xlabel()


def test_a_run_of_2_to_the_62_milliseconds_is_drawn() -> None:
    """Such a length does not fit into a `timedelta`."""
    frame = runs()
    frame.loc[0, "status"], frame.loc[0, "duration_ms"] = "completed", 2**62
    ax = qd.plot_durations(frame)
    figure_of(ax).draw_without_rendering()
    assert ax.get_xlim()[1] > 2**62


def test_importing_the_plots_does_not_import_matplotlib() -> None:
    """The import takes almost a second, and most calls of the command draw nothing."""
    code = "import sys, qoderdata.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
