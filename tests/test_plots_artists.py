"""Tests of drawn bars, intervals, marks and squares against the numbers of the frame."""

from __future__ import annotations

import math
import re
from collections import Counter
from datetime import timedelta
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import to_rgba
from matplotlib.container import BarContainer
from matplotlib.patches import Rectangle, StepPatch
from matplotlib.text import Annotation

import qoderdata as qd
from qoderdata.frame_checks import TEXT
from qoderdata.frames import with_names
from qoderdata.summaries import failure_rates, run_failure_rates
from tests.test_plots_timeline_costs import lanes_of, legend_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from matplotlib.axes import Axes
    from matplotlib.axes._base import _AxesBase
    from matplotlib.lines import Line2D

WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


def counters(rows: list[tuple[int | None, int | None, int | None]]) -> pd.DataFrame:
    columns = ["stats_total_runs", "stats_total_failures", "stats_consecutive_failures"]
    frame = pd.DataFrame(rows, columns=columns).astype("Int64")
    ids = pd.array([f"dep_{number:032x}" for number in range(len(rows))], dtype=TEXT)
    names = pd.array([f"job {number}" for number in range(len(rows))], dtype=TEXT)
    return frame.assign(id=ids, name=names, agent_id=pd.array(["agent_1"] * len(rows), dtype=TEXT))


def error_bars(ax: _AxesBase, axis: int) -> list[list[float]]:
    """Return the ends of the error bars along x (0) or y (1), in drawing order."""
    drawn = [
        part for lines in ax.collections if isinstance(lines, LineCollection) for part in lines.get_segments()
    ]
    return [part[:, axis].tolist() for part in drawn if len(part) and np.isfinite(part).all()]


def points_of(line: Line2D) -> list[tuple[float, float]]:
    return list(zip(numbers(line.get_xdata()), numbers(line.get_ydata()), strict=True))


def numbers(values: Any) -> list[float]:  # noqa: ANN401 - matplotlib says that it may be anything
    return [float(value) for value in np.asarray(values, dtype=float)]


def time_of(day_number: float) -> pd.Timestamp:
    """Convert a Matplotlib date, in days since 1970."""
    return pd.Timestamp(round(day_number * 86_400), unit="s", tz="UTC")


def column_beside(ax: Axes, header: str) -> list[str]:
    """Return the texts below a column header from top to bottom, ``""`` where a row has none."""
    texts = [text for text in ax.texts if isinstance(text, Annotation)]
    head = next(text for text in texts if text.get_text() == header)
    rows = {text.xy[1]: text.get_text() for text in texts if text.xyann[0] == head.xyann[0] and text is not head}
    return [rows.get(row, "") for row in range(len(ax.get_yticks()))]


@pytest.mark.parametrize(
    ("by", "words"),
    [
        (None, ""),
        ("deployment_id", " by deployment"),
        ("metadata_team", " by team"),
        (["agent_id", "metadata_$a$ <b>"], " by agent and $a$ <b>"),
    ],
)
def test_titles_say_what_the_groups_are(by: str | list[str] | None, words: str) -> None:
    columns = {"id": ["1", "2"], "deployment_id": ["dep_1", "dep_2"], "agent_id": "agent_1", "status": "failed"}
    times = {name: pd.Timestamp("2026-06-15T00:00Z") for name in ("triggered_at", "created_at")}
    frame = pd.DataFrame(
        {**columns, **times, "duration_ms": 1, "metadata_team": ["red", "blue"], "metadata_$a$ <b>": "x"}
    )
    sessions = frame.assign(usage_total_credits=1.0, usage_model_credits=1.0, usage_sandbox_runtime_credits=0.0)
    is_ordered = isinstance(by, str)  # the others are one group
    for ax, title in (
        (
            qd.plot_failure_rates(qd.run_failure_rates(frame, by)),
            f"Failure rate{words}{', worst first' * is_ordered}",
        ),
        (qd.plot_run_failure_rates(qd.run_failure_rates(frame, by, freq="1D")), f"Failure rate{words} over time"),
        (qd.plot_costs(qd.session_costs(sessions, by)), f"Credits{words}{', most expensive first' * is_ordered}"),
        (qd.plot_costs(qd.session_costs(sessions, by, freq="1D")), f"Credits{words} over time"),
    ):
        assert ax.get_title() == title
        assert not ax.title.get_parse_math()


def test_a_title_names_the_order_only_of_rows_that_are_in_it() -> None:
    rates = failure_rates(counters([(40, 12, 0), (20, 5, 0), (0, 0, 0), (None, None, None)]))
    sessions = pd.DataFrame({"id": ["1", "2", "3"], "deployment_id": ["a", "b", "c"]})
    sessions[["usage_total_credits", "usage_model_credits", "usage_sandbox_runtime_credits"]] = np.nan
    costs = qd.session_costs(sessions.assign(usage_total_credits=[1.0, 2.0, np.nan]))
    for plot, summary, words in (
        (qd.plot_failure_rates, rates, ", worst first"),
        (qd.plot_costs, costs, ", most expensive first"),
    ):
        assert plot(summary).get_title().endswith(words)
        assert words not in plot(summary.iloc[::-1]).get_title()


def luminance(color: Any) -> float:  # noqa: ANN401 - four numbers
    """Return the relative luminance as WCAG 2 defines it."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color[:3]]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


class TestFailureRates:
    def test_bars_are_rates_and_lines_are_intervals(self) -> None:
        rates = failure_rates(counters([(40, 12, 0), (10, 10, 3), (7, 0, 0), (0, 0, 0), (None, None, None)]))
        ax = qd.plot_failure_rates(rates)
        known = rates[rates["failure_rate"].notna()]
        bars = [bar for bar in ax.patches if isinstance(bar, Rectangle)]
        assert [bar.get_width() for bar in bars] == known["failure_rate"].tolist()
        assert [bar.get_y() + bar.get_height() / 2 for bar in bars] == pytest.approx([0, 1, 2])
        assert np.array(error_bars(ax, 0)) == pytest.approx(known[["ci_low", "ci_high"]].to_numpy())
        assert ax.get_ylim()[0] > ax.get_ylim()[1], "the worst row is on top"
        assert ax.get_xlim()[0] == 0

    @pytest.mark.parametrize("style", ["default", "dark_background"])
    def test_texts_about_what_fails_now_are_readable(self, style: str) -> None:
        with plt.style.context(style):
            ax = qd.plot_failure_rates(failure_rates(counters([(40, 12, 3)])))
        ground = np.array(to_rgba(ax.get_facecolor()))
        texts = [text for text in ax.texts if text.get_text() in {"failing now", "3 in a row"}]
        assert len(texts) == 2
        for text in texts:
            alpha = text.get_alpha() or 1
            color = alpha * np.array(to_rgba(text.get_color())) + (1 - alpha) * ground
            assert contrast(luminance(color), luminance(ground)) >= 4.5

    def test_scale_is_that_of_the_known_intervals_and_rates(self) -> None:
        rates = failure_rates(counters([(40, 12, 0), (20, 5, 0), (20, 1, 0)]))
        rates["ci_high"] = [math.nan, *rates["ci_high"][1:]]
        ax = qd.plot_failure_rates(rates)
        assert ax.get_xlim()[1] == pytest.approx(1.02 * rates["ci_high"].max())

    def test_counts_are_beside_the_bars_and_missing_ones_are_no_zeros(self) -> None:
        rates = failure_rates(counters([(40, 12, 0), (1000, 1000, 1), (7, 0, 0), (0, 0, 0), (None, None, None)]))
        ax = qd.plot_failure_rates(rates)
        assert column_beside(ax, "failed / runs") == ["1,000 / 1,000", "12 / 40", "0 / 7", "no runs", "unknown"]
        rates["total_failures"] = rates["total_failures"].mask(rates["total_runs"].eq(7))
        assert column_beside(qd.plot_failure_rates(rates), "failed / runs")[2] == "unknown"

    def test_streaks_of_unknown_length_or_deployments_are_marked(self) -> None:
        rates = failure_rates(counters([(40, 12, 3), (20, 5, 0)]))
        for name in ("deployments", "consecutive_failures"):
            for dtype in ("Int64", "object"):
                ax = qd.plot_failure_rates(
                    rates.assign(**{name: pd.Series([None, None], rates.index, dtype=dtype)})
                )
                assert column_beside(ax, "failing now") == ["1", ""]

    def test_streaks_are_marked(self) -> None:
        ax = qd.plot_failure_rates(failure_rates(counters([(40, 12, 0), (10, 9, 3), (7, 0, 0), (9, 1, 1)])))
        assert column_beside(ax, "failing now") == ["3 in a row", "", "1 in a row", ""]
        colours = [bar.get_facecolor() for bar in ax.patches if isinstance(bar, Rectangle)]
        assert colours[0] == colours[2] != colours[1] == colours[3]

    def test_failing_deployments_of_a_group_are_counted(self) -> None:
        frame = counters([(40, 12, 0), (10, 9, 3), (7, 0, 0), (9, 1, 1)])
        ax = qd.plot_failure_rates(failure_rates(frame, by="agent_id"))
        assert column_beside(ax, "failing now") == ["2 of 4"]

    def test_title_and_headers_do_not_overlap_in_narrow_axes(self) -> None:
        figure, ax = plt.subplots(figsize=(4, 3), layout="constrained")
        qd.plot_failure_rates(failure_rates(counters([(10, 9, 3)] * 9)), ax=ax, top=5)
        figure.draw_without_rendering()
        title = ax.title.get_window_extent()
        headers = [text for text in ax.texts if text.get_text() in {"failed / runs", "failing now"}]
        assert headers
        assert not any(title.overlaps(header.get_window_extent()) for header in headers)

    def test_without_streaks_there_is_no_column_failing_now(self) -> None:
        ax = qd.plot_failure_rates(failure_rates(counters([(40, 12, 0)])))
        assert "failing now" not in [text.get_text() for text in ax.texts]

    def test_rows_without_any_rate_are_drawn(self) -> None:
        ax = qd.plot_failure_rates(failure_rates(counters([(0, 0, 0), (None, None, None)])))
        ax.figure.canvas.draw()
        assert sorted(column_beside(ax, "failed / runs")) == ["no runs", "unknown"]
        assert not ax.patches

    def test_counts_of_run_failure_rates_are_decided_runs(self) -> None:
        runs = runs_of(
            [("2026-06-01T00:00Z", status) for status in ("failed", "completed", "completed", "skipped")]
        )
        ax = qd.plot_failure_rates(run_failure_rates(runs))
        assert column_beside(ax, "failed / decided runs") == ["1 / 3"]

    def test_top_draws_the_first_rows_and_the_title_counts_them(self) -> None:
        rates = failure_rates(counters([(100, number, 0) for number in range(30)]))
        ax = qd.plot_failure_rates(rates, top=3)
        assert lanes_of(ax) == ["job 29", "job 28", "job 27"]
        assert "(3 of 30 shown)" in ax.get_title()

    def test_a_missing_key_is_labelled_none(self) -> None:
        frame = counters([(40, 12, 0), (10, 1, 0)]).assign(team=pd.array([None, "red"], dtype=TEXT))
        ax = qd.plot_failure_rates(failure_rates(frame, by=["agent_id", "team"]))
        assert lanes_of(ax) == ["agent_1 · (none)", "agent_1 · red"]


def triggers_of(rows: Sequence[tuple[str, str, str | None]], tz: str = "UTC") -> pd.DataFrame:
    """Build a triggers frame from (time, deployment, agent)."""
    frame = pd.DataFrame(rows, columns=["trigger_at", "deployment_id", "agent_id"])
    at = pd.to_datetime(frame["trigger_at"], utc=True).dt.tz_convert(tz)
    names = frame["deployment_id"].str.upper()
    category = dict.fromkeys(["deployment_id", "name", "agent_id"], "category")
    return frame.assign(trigger_at=at, name=names).astype(category)


class TestNextTriggers:
    def test_each_trigger_is_a_mark_in_the_lane_of_its_deployment(self) -> None:
        rows = [
            ("2026-06-15T03:00Z", "c", "agent_1"),
            ("2026-06-15T01:00Z", "b", "agent_2"),
            ("2026-06-15T02:00Z", "a", "agent_1"),
            ("2026-06-15T04:30Z", "b", "agent_2"),
            ("2026-06-15T05:00Z", "a", None),
        ]
        ax = qd.plot_next_triggers(triggers_of(rows, "Asia/Kathmandu"))
        lanes = [lane.lower() for lane in lanes_of(ax)]
        assert lanes == ["b", "a", "c"], "lanes are sorted by their first trigger"
        drawn = [(f"{time_of(x):%Y-%m-%dT%H:%MZ}", lanes[int(y)]) for line in ax.lines for x, y in points_of(line)]
        assert sorted(drawn) == sorted((time, deployment) for time, deployment, _ in rows)
        assert "Asia/Kathmandu (UTC+05:45)" in ax.get_xlabel()
        assert "2026-06-15" in ax.get_xlabel()

    def test_each_agent_has_one_colour_and_one_number(self) -> None:
        rows = [(f"2026-06-15T{number:02d}:00Z", f"d{number}", f"agent_{number % 3}") for number in range(9)]
        ax = qd.plot_next_triggers(triggers_of(rows), labels={"agent_0": "first"})
        assert len(ax.lines) == 3
        colours = [line.get_color() for line in ax.lines]
        legend = ax.get_legend()
        assert legend is not None
        assert [handle.get_color() for handle in legend.get_lines()] == colours
        assert [text.get_text() for text in legend.get_texts()] == ["1  first", "2  agent_1", "3  agent_2"]
        assert [text.get_text() for text in ax.texts] == ["1", "2", "3"] * 3

    def test_legend_has_agent_names_of_with_names(self) -> None:
        rows = [(f"2026-06-15T{number:02d}:00Z", f"d{number}", f"agent_{number % 3}") for number in range(9)]
        named = {"agent_0": "Clerk", "agent_2": None}
        agents = pd.DataFrame({"id": named.keys(), "name": pd.array(list(named.values()), dtype=TEXT)})
        ax = qd.plot_next_triggers(with_names(triggers_of(rows), agents=agents))
        assert legend_of(ax) == ["1  Clerk", "2  agent_1", "3  agent_2"]

    def test_triggers_without_an_agent_have_no_number(self) -> None:
        rows = [("2026-06-15T01:00Z", "d0", None), ("2026-06-15T02:00Z", "d1", "agent_1")]
        ax = qd.plot_next_triggers(triggers_of(rows))
        assert legend_of(ax) == ["1  agent_1", "no agent"]
        assert [text.get_text() for text in ax.texts] == ["1"]
        assert [points_of(line)[0][1] for line in ax.lines] == [1, 0]

    def test_agents_beyond_six_share_one_line_and_legend_entry(self) -> None:
        rows = [(f"2026-06-15T{number:02d}:00Z", f"d{number}", f"agent_{number}") for number in range(10)]
        ax = qd.plot_next_triggers(triggers_of(rows))
        assert legend_of(ax)[-1] == "4 other agents"
        assert len(legend_of(ax)) == len(ax.lines) == 7
        assert len(points_of(ax.lines[-1])) == 4

    def test_legend_has_a_singular_for_one_other_agent(self) -> None:
        rows = [(f"2026-06-15T{number:02d}:00Z", f"d{number}", f"agent_{number}") for number in range(7)]
        assert legend_of(qd.plot_next_triggers(triggers_of(rows)))[-1] == "1 other agent"

    def test_axis_of_a_single_trigger_spans_less_than_an_hour(self) -> None:
        """Matplotlib itself shows four years around a single date."""
        ax = qd.plot_next_triggers(triggers_of([("2026-06-15T01:00Z", "a", "agent_1")]))
        low, high = map(time_of, ax.get_xlim())
        assert pd.Timedelta("5min") < high - low < pd.Timedelta("1h")

    def test_ticks_are_at_whole_local_hours_across_a_clock_change(self) -> None:
        rows = [("2026-10-24T22:00Z", "a", "agent_1"), ("2026-10-25T23:00Z", "a", "agent_1")]
        ax = qd.plot_next_triggers(triggers_of(rows, "Europe/Berlin"))
        ax.figure.canvas.draw()
        assert "Europe/Berlin (UTC+02:00 and UTC+01:00)" in ax.get_xlabel()
        ticks = [time_of(tick).tz_convert("Europe/Berlin") for tick in ax.get_xticks()]
        assert all(tick.hour % 4 == 0 and tick.minute == 0 for tick in ticks), (
            "ticks are at local hours divisible by 4"
        )

    def test_top_draws_the_deployments_that_fire_soonest(self) -> None:
        rows = [(f"2026-06-15T{number:02d}:00Z", f"d{23 - number}", "agent_1") for number in range(24)]
        ax = qd.plot_next_triggers(triggers_of(rows), top=2)
        assert lanes_of(ax) == ["D23", "D22"]
        assert "(2 of 24 deployments shown)" in ax.get_title()
        assert sum(len(points_of(line)) for line in ax.lines) == 2


def squares(ax: Axes) -> np.ma.MaskedArray[Any, Any]:
    (mesh,) = (artist for artist in ax.collections if isinstance(artist, QuadMesh))
    values = mesh.get_array()
    assert isinstance(values, np.ma.MaskedArray)
    return values


WINDOWS = [
    ("UTC", "2026-06-15T00:00Z", 24 * 7),
    ("UTC", "2026-06-17T13:20Z", 30),
    ("Asia/Kolkata", "2026-06-15T01:20Z", 24 * 8),  # offset of +05:30
    ("Asia/Kathmandu", "2026-06-15T01:20Z", 24),  # offset of +05:45
    ("Europe/Berlin", "2026-10-24T12:00Z", 24),  # an hour occurs twice
    ("America/New_York", "2026-03-08T00:00Z", 24),  # an hour is skipped
    ("Australia/Lord_Howe", "2026-04-04T03:00Z", 24),  # half an hour occurs twice
]


@cache
def local_minutes(tz: str, start: str, hours: int) -> list[tuple[int, int, int]]:
    """Return weekday, hour and minute in local time of each minute of a window."""
    first, zone = pd.Timestamp(start).to_pydatetime(), ZoneInfo(tz)
    local = [(first + timedelta(minutes=minute)).astimezone(zone) for minute in range(60 * hours)]
    return [(time.weekday(), time.hour, time.minute) for time in local]


class TestTriggerLoad:
    @pytest.mark.parametrize(("tz", "start", "hours"), WINDOWS)
    @settings(max_examples=5, deadline=None)
    @given(minutes=st.lists(st.integers(0, 10**6), min_size=1, max_size=60))
    def test_squares_equal_brute_force(self, tz: str, start: str, hours: int, minutes: list[int]) -> None:
        offsets = sorted(minute % (60 * hours) for minute in minutes)
        times = [pd.Timestamp(start) + pd.Timedelta(minutes=offset) for offset in offsets]
        frame = triggers_of([(time.isoformat(), "a", "agent_1") for time in times], tz)
        counted = Counter((time.weekday(), time.hour, time.minute) for time in frame["trigger_at"])
        occurrences = Counter(local_minutes(tz, start, hours)[offsets[0] : offsets[-1] + 1])
        expected = np.full((7, 24), np.nan)
        for weekday, hour, minute in occurrences:
            mean = counted[weekday, hour, minute] / occurrences[weekday, hour, minute]
            expected[weekday, hour] = np.nan_to_num(expected[weekday, hour]) + mean
        ax = qd.plot_trigger_load(frame)
        np.testing.assert_allclose(squares(ax).filled(np.nan), expected)
        assert squares(ax).mask.sum() == np.isnan(expected).sum()
        assert ("hatched" in ax.get_xlabel()) == bool(np.isnan(expected).any())
        plt.close("all")

    @pytest.mark.parametrize(("count", "text"), [(1, "1"), (999, "999"), (1500, "1.5k"), (12_345, "12k")])
    def test_large_numbers_in_squares_are_abbreviated(self, count: int, text: str) -> None:
        frame = triggers_of([("2026-06-15T01:00Z", "a", "x")] * count)
        ax = qd.plot_trigger_load(frame)
        assert [written.get_text() for written in ax.texts] == [text]
        assert squares(ax)[0, 1] == count

    @pytest.mark.parametrize(("weeks", "text"), [(1, "0.5"), (19, "0.1"), (20, "<0.1")])
    def test_small_means_in_squares_are_not_written_as_0(self, weeks: int, text: str) -> None:
        """An hour of each week has one trigger in all of the weeks."""
        times = [pd.Timestamp("2026-01-05T01:00Z"), pd.Timestamp("2026-01-05T03:00Z") + pd.Timedelta(weeks=weeks)]
        ax = qd.plot_trigger_load(triggers_of([(time.isoformat(), "a", "x") for time in times]))
        written = Counter(text.get_text() for text in ax.texts)
        assert written == {text: 2, "0": 7 * 24 - 2}

    def test_an_hour_split_between_start_and_end_of_a_week_counts_once(self) -> None:
        """Half of it is at the start and half at the end; the mean of both would be half of the load."""
        times = pd.date_range("2026-06-15T09:20Z", periods=7 * 24 * 12, freq="5min")
        ax = qd.plot_trigger_load(triggers_of([(time.isoformat(), "a", "x") for time in times]))
        assert np.unique(squares(ax)).tolist() == [12.0]

    def test_a_partly_covered_hour_does_not_raise_the_mean(self) -> None:
        """Once, an hour covered fully once and by one minute a second time was divided by 1."""
        times = pd.date_range("2026-06-15T01:30Z", "2026-06-25T01:00Z", freq="30min")
        ax = qd.plot_trigger_load(triggers_of([(time.isoformat(), "a", "x") for time in times]))
        assert np.unique(squares(ax)).tolist() == [2.0]

    @pytest.mark.parametrize(("style", "sign"), [("default", -1), ("dark_background", 1)])
    def test_busier_hours_contrast_more_with_the_background_and_all_numbers_are_readable(
        self, style: str, sign: int
    ) -> None:
        rows = [
            (f"2026-06-15T{hour:02}:{minute:02}:00Z", "a", "x") for hour in range(24) for minute in range(hour)
        ]
        with plt.style.context(style):
            ax = qd.plot_trigger_load(triggers_of([("2026-06-15T00:00:00Z", "a", "x"), *rows]))
        mesh = ax.collections[0]
        grounds = [luminance(color) for color in mesh.to_rgba(np.arange(1, 24))]
        assert (np.sign(np.diff(grounds)) == sign).all()
        for text in ax.texts:
            ground = luminance(mesh.to_rgba(np.array([float(text.get_text())]))[0])
            assert contrast(luminance(to_rgba(text.get_color())), ground) >= 4.5

    def test_hours_outside_the_triggers_are_masked_and_not_0(self) -> None:
        frame = triggers_of([("2026-06-15T01:00Z", "a", "x"), ("2026-06-15T03:59Z", "a", "x")])
        ax = qd.plot_trigger_load(frame)
        assert squares(ax)[0, :5].tolist() == [None, 1.0, 0.0, 1.0, None]
        assert [text.get_text() for text in ax.texts] == ["1", "0", "1"]
        assert lanes_of(ax) == WEEKDAYS
        assert [bar.get_ylabel() for bar in ax.child_axes] == ["triggers per hour"]


def runs_of(rows: Sequence[tuple[str | None, str]], duration_ms: list[int | None] | None = None) -> pd.DataFrame:
    """Build a runs frame from (triggered at, status)."""
    at = pd.to_datetime(pd.Series([time for time, _ in rows], dtype="object"), utc=True, format="ISO8601")
    return pd.DataFrame(
        {
            "id": pd.array([f"run_{number}" for number in range(len(rows))], dtype=TEXT),
            "deployment_id": pd.array(["dep_1"] * len(rows), dtype=TEXT),
            "status": pd.array([status for _, status in rows], dtype=TEXT),
            "triggered_at": at.astype("datetime64[us, UTC]"),
            "duration_ms": pd.array(duration_ms or [1000] * len(rows), dtype="Int64"),
        }
    )


def some_runs(tz: str = "UTC") -> pd.DataFrame:
    """Build runs of ten days; the fifth has none and the seventh only skipped ones; one run has no time."""
    random = np.random.default_rng(11)
    rows = []
    for day in range(10):
        for _ in range(0 if day == 4 else 20):
            time = pd.Timestamp("2026-06-01", tz=tz) + pd.Timedelta(days=day, minutes=int(random.integers(1440)))
            share = 0.02 * day**2
            status = "skipped" if day == 6 else "failed" if random.random() < share else "completed"
            rows.append((time.tz_convert("UTC").isoformat(), status))
    return runs_of([*rows, (None, "failed")])


class TestRunFailureRates:
    def test_line_intervals_and_bars_equal_the_frame(self) -> None:
        rates = run_failure_rates(some_runs().dropna(subset="triggered_at"), by=None, freq="1D")
        ax = qd.plot_run_failure_rates(rates)
        (line,) = ax.lines
        np.testing.assert_array_equal(numbers(line.get_ydata()), rates["failure_rate"].to_numpy())
        assert [time_of(x) for x in numbers(line.get_xdata())] == list(rates.index)
        known = rates.dropna(subset="failure_rate")
        assert np.array(error_bars(ax, 1)) == pytest.approx(known[["ci_low", "ci_high"]].to_numpy())
        (below,) = ax.child_axes
        drawn = [[bar.get_height() for bar in bars] for bars in below.containers if isinstance(bars, BarContainer)]
        other = rates["skipped"] + rates["unfinished"]
        assert drawn == [rates["failed"].tolist(), rates["completed"].tolist(), other.tolist()]

    def test_a_window_without_decided_runs_is_a_gap_in_the_line(self) -> None:
        rates = run_failure_rates(some_runs().dropna(subset="triggered_at"), by=None, freq="1D")
        ax = qd.plot_run_failure_rates(rates)
        gaps = np.isnan(numbers(ax.lines[0].get_ydata()))
        assert np.flatnonzero(gaps).tolist() == [4, 6]

    def test_each_group_has_a_panel_sorted_by_failures(self) -> None:
        rows = [("2026-06-01T00:00Z", "failed")] * 36 + [("2026-06-02T00:00Z", "completed")]
        which = [f"dep_{number}" for number in range(1, 9) for _ in range(number)] + ["dep_1"]
        rates = run_failure_rates(runs_of(rows).assign(deployment_id=which), freq="1D", tz="Asia/Tokyo")
        ax = qd.plot_run_failure_rates(rates, top=6, labels={"dep_6": "nightly"})
        titles = [panel.texts[0].get_text() for panel in ax.child_axes]
        names = ["dep_8", "dep_7", "nightly", "dep_5", "dep_4", "dep_3"]
        assert titles == [f"{name}: {count} / {count}" for count, name in zip(range(8, 2, -1), names, strict=True)]
        assert "(6 of 8 shown" in ax.get_title()
        assert not ax.lines
        for panel, number in zip(ax.child_axes, range(8, 2, -1), strict=True):
            panel_rows = rates[rates.index.get_level_values("deployment_id") == f"dep_{number}"]
            np.testing.assert_array_equal(
                numbers(panel.lines[0].get_ydata()), panel_rows["failure_rate"].to_numpy()
            )
            known = panel_rows.dropna(subset="failure_rate")
            drawn = np.array(error_bars(panel, 1), dtype=np.float64)
            assert drawn == pytest.approx(known[["ci_low", "ci_high"]].to_numpy())

    def test_windows_with_few_decided_runs_are_faint(self) -> None:
        rows = [
            (f"2026-06-0{day}T00:00Z", status)
            for day, count in ((1, 5), (2, 4), (3, 9), (4, 1))
            for status in ["failed", *["completed"] * (count - 1), "skipped", "skipped"]
        ]
        ax = qd.plot_run_failure_rates(run_failure_rates(runs_of(rows), by=None, freq="1D"))
        strong, faint = ax.lines
        assert numbers(strong.get_ydata())[::2] == [1 / 5, 1 / 9]
        assert np.isnan(numbers(strong.get_ydata())[1::2]).all()
        assert numbers(faint.get_ydata()) == [1 / 5, 1 / 4, 1 / 9, 1]
        assert faint.get_markevery() == [1, 3], "the faint line marks only windows with few decided runs"
        assert (strong.get_alpha(), faint.get_alpha()) == (1, 0.5)
        assert "fewer than 5 decided runs" in legend_of(ax)

    def test_the_legend_names_the_interval_if_all_windows_have_few_decided_runs(self) -> None:
        rows = [(f"2026-06-0{day}T00:00Z", "failed") for day in (1, 2, 3)]
        ax = qd.plot_run_failure_rates(run_failure_rates(runs_of(rows), by=None, freq="1D"))
        assert legend_of(ax) == ["rate, with Wilson interval;\nfewer than 5 decided runs", "failed runs"]

    @pytest.mark.parametrize(
        ("freq", "tick"), [("1M", "2026-06-01"), ("1D", "2026-06-15"), ("1h", "2026-06-15 09:00")]
    )
    @pytest.mark.parametrize("by", [None, "deployment_id"])
    def test_a_single_window_is_labelled_with_its_start_without_a_scale(
        self, freq: str, tick: str, by: str | None
    ) -> None:
        """Between ticks of days, the bar of a month was as wide as one day."""
        rows = [("2026-06-15T01:20Z", "failed"), ("2026-06-15T01:30Z", "completed")]
        runs = runs_of(rows).assign(deployment_id=["dep_1", "dep_2"])
        ax = qd.plot_run_failure_rates(run_failure_rates(runs, by=by, freq=freq, tz="Asia/Shanghai"))
        ax.figure.canvas.draw()
        labelled = ax.child_axes[-1] if by else ax
        assert [label.get_text() for label in labelled.get_xticklabels()] == [tick]

    def test_panel_titles_and_rows_use_the_names_of_the_frame(self) -> None:
        rows = [("2026-06-01T00:00Z", "failed"), ("2026-06-02T00:00Z", "completed")]
        named = runs_of(rows).assign(
            deployment_id=["dep_1", "dep_2"], deployment_name=pd.Series(["nightly", None])
        )
        ax = qd.plot_run_failure_rates(run_failure_rates(named, freq="1D"))
        assert [panel.texts[0].get_text() for panel in ax.child_axes] == ["nightly: 1 / 1", "dep_2: 0 / 1"]
        ax = qd.plot_failure_rates(run_failure_rates(named))
        assert lanes_of(ax) == ["nightly", "dep_2"]

    def test_an_arabic_name_is_between_left_to_right_marks(self) -> None:
        """Without these marks, "1 / 2" after the name is shown as "2 / 1"."""
        rates = run_failure_rates(some_runs().assign(deployment_id=lambda runs: runs.index % 2), freq="1D")
        ax = qd.plot_run_failure_rates(rates, labels={"0": "تقرير", "1": "report"})
        titles = sorted(panel.texts[0].get_text() for panel in ax.child_axes)
        assert titles[0].startswith("report: ")
        assert titles[1].startswith("\u200eتقرير\u200e: ")

    def test_rates_without_windows_are_refused_with_advice(self) -> None:
        rates = run_failure_rates(some_runs(), by=None)
        with pytest.raises(ValueError, match="give freq"):
            qd.plot_run_failure_rates(rates)
        over_time = run_failure_rates(some_runs().dropna(subset="triggered_at"), freq="1D")
        with pytest.raises(ValueError, match="must be the index"):
            qd.plot_run_failure_rates(over_time.reset_index())

    def test_bars_are_drawn_without_any_decided_run(self) -> None:
        rates = run_failure_rates(runs_of([("2026-06-01T00:00Z", "skipped")] * 3), by=None, freq="1D")
        ax = qd.plot_run_failure_rates(rates)
        ax.figure.canvas.draw()
        assert ax.child_axes[0].get_ylim()[1] == 3


def levels_by_brute_force(runs: pd.DataFrame, tz: str) -> dict[date, int | None]:
    """Return the failure level of each day with runs; ``None`` where no run was decided."""
    days: dict[date, list[str]] = {}
    for time, status in zip(runs["triggered_at"], runs["status"], strict=True):
        if not pd.isna(time):
            days.setdefault(time.tz_convert(tz).date(), []).append(status)
    levels: dict[date, int | None] = {}
    for day, statuses in days.items():
        failed, decided = statuses.count("failed"), statuses.count("failed") + statuses.count("completed")
        if not decided:
            levels[day] = None
        else:
            share = failed / decided
            levels[day] = (
                0 if not failed else 1 if share <= 0.05 else 2 if share <= 0.2 else 3 if share <= 0.5 else 4
            )
    return levels


class TestRunCalendar:
    @pytest.mark.parametrize("tz", ["UTC", "Asia/Shanghai", "America/Los_Angeles"])
    def test_squares_equal_brute_force(self, tz: str) -> None:
        runs = some_runs()
        levels = levels_by_brute_force(runs, tz)
        ax = qd.plot_run_calendar(runs, tz=tz)
        drawn = squares(ax)
        monday = pd.Timestamp(min(levels))
        monday -= pd.Timedelta(days=monday.weekday())
        expected = np.full(drawn.shape, np.nan)
        for day, level in levels.items():
            week = (pd.Timestamp(day) - monday).days // 7
            expected[day.weekday(), week] = np.nan if level is None else level
        np.testing.assert_array_equal(drawn.filled(np.nan), expected)
        assert tz in ax.get_xlabel()

    def test_days_without_runs_or_decided_runs_are_hatched_differently(self) -> None:
        ax = qd.plot_run_calendar(some_runs())
        hatched = {part.get_hatch(): len(part.get_paths()) for part in ax.collections if part.get_hatch()}
        assert hatched == {"////": 1, "....": 1}
        assert legend_of(ax)[-2:] == ["only skipped or unfinished", "no runs"]
        assert squares(ax).count() == 8

    def test_an_undocumented_status_is_unknown(self) -> None:
        ax = qd.plot_run_calendar(runs_of([("2026-06-15T01:00Z", "exploded")]))
        assert legend_of(ax)[-1] == "only skipped or unfinished or unknown"

    @pytest.mark.parametrize(("style", "sign"), [("default", -1), ("dark_background", 1)])
    def test_colours_of_worse_days_contrast_more_with_the_background(self, style: str, sign: int) -> None:
        with plt.style.context(style):
            legend = qd.plot_run_calendar(some_runs()).get_legend()
        assert legend is not None
        colours = [patch.get_facecolor() for patch in legend.get_patches()[:5]]
        brightness_steps = np.diff(np.array(colours)[:, :3] @ [0.299, 0.587, 0.114])
        assert (np.sign(brightness_steps) == sign).all()

    def test_squares_show_the_number_of_failures(self) -> None:
        runs = some_runs()
        ax = qd.plot_run_calendar(runs)
        failed = runs[runs["status"].eq("failed")].dropna(subset="triggered_at")
        by_day = failed["triggered_at"].dt.date.value_counts()
        assert sorted(text.get_text() for text in ax.texts if text.get_text()) == sorted(map(str, by_day))

    def test_numbers_fit_their_squares_in_a_figure_that_the_legend_makes_narrow(self) -> None:
        """The legend takes half of the width only when the figure is drawn."""
        days = pd.date_range("2026-02-25T01:00Z", periods=110, freq="1D")
        rows = [(day.isoformat(), "failed") for day in days for _ in range(100)]
        runs = runs_of([("2026-02-24T01:00Z", "exploded"), *rows])
        _, ax = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
        qd.plot_run_calendar(runs, ax=ax).figure.canvas.draw()
        assert max(text.get_window_extent().width for text in ax.texts) < ax.bbox.width / squares(ax).shape[1]

    def test_an_unknown_zone_is_refused(self) -> None:
        with pytest.raises(ValueError, match="Mars/Base"):
            qd.plot_run_calendar(some_runs(), tz="Mars/Base")

    @pytest.mark.parametrize("days", [1, 400, 2000])
    def test_1_to_2000_days_are_drawn(self, days: int) -> None:
        times = pd.date_range("2020-01-01", periods=days, freq="1D", tz="UTC")
        ax = qd.plot_run_calendar(runs_of([(time.isoformat(), "completed") for time in times]))
        ax.figure.canvas.draw()
        assert squares(ax).count() == days


class TestDurations:
    @pytest.mark.parametrize("length", [1, 5000, 60_000])
    def test_runs_of_one_length_are_a_bar_around_it(self, length: int) -> None:
        """Once, the bar lay beside the line of the median, by rounding on either side."""
        ax = qd.plot_durations(runs_of([("2026-06-01T00:00Z", "completed")], [length]))
        counts, edges, _ = next(part for part in ax.patches if isinstance(part, StepPatch)).get_data()
        (filled,) = np.flatnonzero(counts)
        assert edges[filled] * edges[filled + 1] == pytest.approx(length**2)

    @pytest.mark.parametrize("longest", [31_001, 32_000, 37_000, 39_000, 61_000])
    def test_runs_of_similar_lengths_are_a_bar_with_readable_labels(self, longest: int) -> None:
        """Once, the labels overlapped, and the line of the median hid the bar."""
        lengths = [31_000] * 20 + [longest]
        ax = qd.plot_durations(runs_of([("2026-06-01T00:00Z", "completed")] * 21, list(lengths)))
        ax.figure.canvas.draw()
        boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
        counts, edges, _ = next(part for part in ax.patches if isinstance(part, StepPatch)).get_data()
        fullest = int(np.argmax(counts))
        begin, end = ax.transData.transform([(edges[fullest], 0), (edges[fullest + 1], 0)])[:, 0]
        assert end - begin > 4 * ax.lines[0].get_linewidth()

    @settings(max_examples=20, deadline=None)
    @given(lengths=st.lists(st.integers(0, 10**8), min_size=1, max_size=50), failed=st.data())
    def test_each_run_is_counted_in_its_histogram_bin(self, lengths: list[int], failed: st.DataObject) -> None:
        statuses = [failed.draw(st.sampled_from(["completed", "failed"])) for _ in lengths]
        frame = runs_of([("2026-06-01T00:00Z", status) for status in statuses], list(lengths))
        ax = qd.plot_durations(frame)
        drawn = [part for part in ax.patches if isinstance(part, StepPatch)]
        by_status = [
            [max(length, 1) for length, is_ in zip(lengths, statuses, strict=True) if is_ == status]
            for status in ("completed", "failed")
        ]
        for step, durations in zip(drawn, [part for part in by_status if part], strict=True):
            values, edges, _ = step.get_data()
            assert values.sum() == len(durations)
            np.testing.assert_array_equal(values, np.histogram(durations, edges)[0])
        if by_status[0]:
            expected = [np.quantile(by_status[0], share) for share in (0.5, 0.95)]
            assert [numbers(line.get_xdata())[0] for line in ax.lines] == pytest.approx(expected)
        plt.close("all")

    def test_runs_without_a_valid_duration_are_left_out(self) -> None:
        statuses = ["completed", "completed", "failed", "skipped", "running", "completed"]
        frame = runs_of([("2026-06-01T00:00Z", s) for s in statuses], [5000, None, -3, None, None, 7000])
        ax = qd.plot_durations(frame)
        assert legend_of(ax)[0] == "completed (2 runs)"
        assert len(legend_of(ax)) == 3, "failed runs have no valid duration"

    def test_one_run_has_a_singular_and_the_y_ticks_are_whole_numbers(self) -> None:
        ax = qd.plot_durations(runs_of([("2026-06-01T00:00Z", "failed")], [5000]))
        assert legend_of(ax) == ["failed (1 run)"]
        assert all(tick == round(tick) for tick in ax.get_yticks())

    @pytest.mark.parametrize(
        "lengths",
        [
            [0], [1], [37], [1000], [123_456], [86_400_000], [9_000_000_000], [3, 4], [1_200, 1_600],
            [9718, 12_399], [3_901_597, 5_152_759],
        ],
    )  # fmt: skip
    def test_axis_of_one_or_two_runs_has_two_or_more_ticks_with_exact_labels(self, lengths: list[int]) -> None:
        ax = qd.plot_durations(runs_of([("2026-06-01T00:00Z", "completed")] * len(lengths), [*lengths]))
        ax.figure.canvas.draw()
        low, high = ax.get_xlim()
        assert len([tick for tick in ax.get_xticks() if low <= tick <= high]) >= 2
        units = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
        for tick, label in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True):
            parts = re.findall(r"([\d.]+) (\w+)", label.get_text())
            assert sum(float(count) * units[unit] for count, unit in parts) == tick
