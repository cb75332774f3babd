"""Tests of `plot_run_timeline`, `plot_costs` and `plot_style` against the numbers of the frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.dates import num2date
from matplotlib.patches import Rectangle

import qoderdata as qd
from qoderdata.errors import FrameTypeError
from qoderdata.frame_checks import TEXT
from qoderdata.plots import axes as palette
from qoderdata.plots.time_axes import describe_zone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

DAY = "2026-06-15T"


def times(texts: Sequence[str | None]) -> pd.Series[pd.Timestamp]:
    full = [None if text is None else f"{DAY}{text}Z" for text in texts]
    return pd.to_datetime(pd.Series(full, dtype="object"), utc=True, format="ISO8601").astype(
        "datetime64[us, UTC]"
    )


def runs_of(rows: Sequence[tuple[str | None, ...]]) -> pd.DataFrame:
    """Build a runs frame from (deployment, status, triggered, started, completed)."""
    deployment, status, triggered, started, completed = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "deployment_id": pd.array(deployment, dtype=TEXT),
            "status": pd.array(status, dtype=TEXT),
            "status_from": pd.array(["service"] * len(rows), dtype=TEXT),
            "triggered_at": times(triggered),
            "started_at": times(started),
            "completed_at": times(completed),
            "duration_ms": pd.array([None] * len(rows), dtype="Int64"),
        }
    )


def missed_of(rows: Sequence[tuple[str, str, bool]]) -> pd.DataFrame:
    deployment, scheduled, certain = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "scheduled_at": times(scheduled),
            "deployment_id": pd.array(deployment, dtype=TEXT),
            "name": pd.array([f"name of {one}" for one in deployment], dtype=TEXT),
            "certain": certain,
            "reason": pd.array([""] * len(rows), dtype=TEXT),
        }
    )


def triggers_of(rows: Sequence[tuple[str, str]]) -> pd.DataFrame:
    deployment, at = zip(*rows, strict=True)
    frame = pd.DataFrame(
        {"trigger_at": times(at), "deployment_id": deployment, "name": None, "agent_id": "agent_1"}
    )
    return frame.astype({"deployment_id": "category"})


def lanes_of(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def time_text(number: float) -> str:
    return f"{pd.Timestamp(num2date(number)).round('1s'):%H:%M:%S}"  # type: ignore[no-untyped-call]  # matplotlib's


def bars(ax: Axes) -> list[tuple[str, str, str, float, bool]]:
    """List the bars: lane, begin, end, height, and whether it is filled."""
    lanes = lanes_of(ax)
    read = []
    for collection in ax.collections:
        if isinstance(collection, PolyCollection):
            for path in collection.get_paths():
                corners = np.asarray(path.vertices, dtype=np.float64)
                (left, low), (right, high) = corners.min(axis=0), corners.max(axis=0)
                lane = lanes[round((low + high) / 2)]
                filled = len(np.asarray(collection.get_facecolor())) > 0
                read.append((lane, time_text(left), time_text(right), round(float(high - low), 2), filled))
    return read


def marks(ax: Axes, marker: str) -> list[tuple[str, str]]:
    """List the marks of one shape: lane and time."""
    lanes = lanes_of(ax)
    found: list[Line2D] = [line for line in ax.lines if line.get_marker() == marker]
    return [
        (lanes[round(float(y))], time_text(float(x)))
        for line in found
        for x, y in zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), strict=True)
    ]


def legend_of(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


class TestRunTimeline:
    def test_an_ended_run_is_a_bar_from_its_start_to_its_end(self) -> None:
        runs = runs_of(
            [
                ("a", "completed", "01:00:00", "01:00:05", "03:00:00"),
                ("b", "failed", "01:30:00", None, "02:30:00"),
                ("a", "cancelled", "04:00:00", "04:00:00", None),
                ("b", "completed", "04:00:00", "04:10:00", None),
            ]
        )
        runs.loc[2, "duration_ms"] = 3_600_000
        runs.loc[3, "duration_ms"] = 1_800_000
        runs.loc[3, "status_from"] = "session"
        ax = qd.plot_run_timeline(runs)
        assert lanes_of(ax) == ["b", "a"], "lanes are sorted by failed runs"
        assert sorted(bars(ax)) == [
            ("a", "01:00:05", "03:00:00", 0.5, True),
            ("a", "04:00:00", "05:00:00", 0.2, True),
            ("b", "01:30:00", "02:30:00", 0.86, True),
            ("b", "04:10:00", "04:40:00", 0.5, False),
        ]
        assert legend_of(ax) == ["failed (1)", "completed (1)", "completed, assumed (1)", "cancelled (1)"]

    def test_a_short_run_has_the_minimum_width_named_in_the_legend(self) -> None:
        rows: list[tuple[str | None, ...]]
        rows = [("a", "completed", "00:00:00", None, "02:00:00"), ("a", "completed", "05:00:00", None, "05:00:02")]
        rows += [("a", "completed", "08:00:00", None, None), ("a", "failed", "10:00:00", None, "09:00:00")]
        figure, ax = plt.subplots(figsize=(10, 2), dpi=100)
        qd.plot_run_timeline(runs_of(rows), ax=ax)
        figure.canvas.draw()
        drawn = {left: right for _, left, right, *_ in bars(ax)}
        width = pd.Timestamp(f"{DAY}{drawn['05:00:00']}Z") - pd.Timestamp(f"{DAY}05:00:00Z")
        assert drawn["00:00:00"] == "02:00:00"
        for start in ("08:00:00", "10:00:00"):
            assert pd.Timestamp(f"{DAY}{drawn[start]}Z") - pd.Timestamp(f"{DAY}{start}Z") == width
        points = width / pd.Timedelta("1D") / np.ptp(ax.get_xlim()) * ax.bbox.width / figure.dpi * 72
        assert points == pytest.approx(4, abs=0.1)
        minutes, seconds = divmod(width.round("1s").seconds, 60)
        text = f"narrowest bar: {minutes} min {seconds} s\n(1 shorter)\n(2 without a known end)"
        assert legend_of(ax)[-1] == text

    def test_completed_runs_are_pale_in_a_dark_style_too(self) -> None:
        """Once, they were brighter than the failed ones."""
        with plt.style.context("dark_background"):
            ax = qd.plot_run_timeline(runs_of([("a", "completed", "01:00:00", None, "02:00:00")]))
        (drawn,) = (part for part in ax.collections if isinstance(part, PolyCollection))
        assert to_hex(np.asarray(drawn.get_facecolor())[0]).upper() == palette.PALE_IN_DARK

    def test_an_unfinished_run_is_a_line_to_the_newest_time(self) -> None:
        runs = runs_of(
            [
                ("a", "running", "01:00:00", "01:01:00", None),
                ("b", "waiting", "02:00:00", "02:00:00", None),
                ("c", "pending", "02:30:00", None, None),
                ("d", "completed", "03:00:00", None, "03:30:00"),
            ]
        )
        ax = qd.plot_run_timeline(runs, missed=missed_of([("d", "04:00:00", True)]))
        assert sorted(marks(ax, ">")) == [("a", "04:00:00"), ("b", "04:00:00"), ("c", "04:00:00")]
        lines = [part for part in ax.collections if isinstance(part, LineCollection)]
        spans = [tuple(map(time_text, segment[:, 0])) for part in lines for segment in part.get_segments()]
        assert sorted(spans) == [("01:01:00", "04:00:00"), ("02:00:00", "04:00:00"), ("02:30:00", "04:00:00")]
        running, waiting = (part.get_linestyle() for part in lines)
        assert running != waiting, "they differ by line style, not by color only"
        assert {"running or pending (2)", "waits for a person (1)", "newest time of these runs"} <= set(
            legend_of(ax)
        )
        (newest,) = (line for line in ax.lines if line.get_linestyle() == ":")
        assert time_text(np.asarray(newest.get_xdata())[0]) == "04:00:00"
        assert len(bars(ax)) == 1

    def test_events_without_length_are_marks_of_different_shapes(self) -> None:
        rows: list[tuple[str | None, ...]] = [
            ("a", "skipped", "01:00:00", None, None),
            ("a", None, "02:00:00", None, None),
            ("a", "something_new", "03:00:00", None, "04:00:00"),
            ("a", "completed", None, None, "04:00:00"),
        ]
        missed = missed_of([("a", "03:30:00", True), ("z", "03:40:00", False)])
        triggers = triggers_of([("a", "04:10:00"), ("y", "04:20:00")])
        ax = qd.plot_run_timeline(runs_of(rows), missed=missed, triggers=triggers)
        assert lanes_of(ax) == ["name of a", "name of z", "y"]
        assert marks(ax, "x") == [("name of a", "01:00:00")]
        assert marks(ax, "$?$") == [("name of a", "02:00:00"), ("name of a", "03:00:00")]
        assert marks(ax, "D") == [("name of a", "03:30:00")]
        assert marks(ax, "o") == [("name of z", "03:40:00")]
        assert marks(ax, "|") == [("name of a", "04:10:00"), ("y", "04:20:00")]
        hollow = [line for line in ax.lines if line.get_marker() in {"D", "o"}]
        assert [line.get_markerfacecolor() for line in hollow] == ["none", "none"]
        words = ["missed (1)", "perhaps missed (1)", "skipped (1)", "outcome unknown (2)", "next triggers (2)"]
        assert legend_of(ax) == [*words, "newest time of these runs"]
        assert not bars(ax), "a run without a time is not drawn"

    def test_perhaps_missed_marks_lie_below_the_runs(self) -> None:
        """Dense ones would hide a run otherwise; certain ones lie above."""
        runs = runs_of(
            [("a", "completed", "01:00:00", None, "02:00:00"), ("a", "running", "01:30:00", None, None)]
        )
        missed = missed_of([("a", "01:30:00", False), ("a", "01:40:00", True)])
        ax = qd.plot_run_timeline(runs, missed=missed)
        orders = {line.get_marker(): line.get_zorder() for line in ax.lines}
        lowest = min(part.get_zorder() for part in ax.collections)
        assert orders["o"] < lowest < orders[">"] < orders["D"]

    def test_triggers_far_in_the_future_are_left_out_with_a_legend_note(self) -> None:
        runs = runs_of([("a", "completed", "01:00:00", None, "03:00:00")])
        triggers = triggers_of([("a", "03:30:00"), ("a", "05:00:00"), ("a", "05:00:01"), ("z", "20:00:00")])
        ax = qd.plot_run_timeline(runs, triggers=triggers, tz="Asia/Shanghai")
        assert marks(ax, "|") == [("a", "03:30:00"), ("a", "05:00:00")]
        assert "next triggers (2),\nup to 2026-06-15 13:00" in legend_of(ax)
        assert lanes_of(ax) == ["a"]

    def test_all_triggers_are_drawn_where_there_are_no_runs(self) -> None:
        ax = qd.plot_run_timeline(
            runs_of([("a", "failed", None, None, None)]),
            triggers=triggers_of([("a", "03:30:00"), ("b", "23:00:00")]),
        )
        assert marks(ax, "|") == [("a", "03:30:00"), ("b", "23:00:00")]
        assert legend_of(ax) == ["next triggers (2)"]

    def test_the_axis_is_in_the_given_zone_and_names_it(self) -> None:
        ax = qd.plot_run_timeline(runs_of([("a", "completed", "17:00:00", None, "18:00:00")]), tz="Asia/Kathmandu")
        ax.figure.canvas.draw()
        assert ax.get_xlabel() == "time, Asia/Kathmandu (UTC+05:45); 2026-06-15"
        assert "23:00" in [label.get_text() for label in ax.get_xticklabels()]
        with pytest.raises(ValueError, match="Mars/Base"):
            qd.plot_run_timeline(runs_of([("a", "completed", "17:00:00", None, None)]), tz="Mars/Base")

    def test_top_draws_lanes_with_the_most_failed_and_missed(self) -> None:
        rows: list[tuple[str | None, ...]]
        rows = [(f"d{n}", "failed", f"0{n}:00:00", None, None) for n in range(5) for _ in range(n)]
        rows += [("d0", "completed", "03:00:00", None, None), ("e", None, "03:00:00", None, None)]
        missed = missed_of([("d2", "03:00:00", True)] * 3 + [("e", "03:00:00", False)] * 9)
        ax = qd.plot_run_timeline(
            runs_of(rows).assign(deployment_name=lambda frame: frame["deployment_id"].str.upper()),
            missed=missed, top=4, labels={"d1": "mine"},
        )  # fmt: skip
        assert lanes_of(ax) == ["D2", "D4", "D3", "mine"]
        assert ax.get_title() == "Runs over time, most failed or missed first\n(4 of 6 deployments shown)"
        assert "failed (10)" in legend_of(ax)
        assert "missed (3)" in legend_of(ax)
        assert "perhaps missed (9)" not in legend_of(ax)

    def test_equal_lanes_are_in_the_order_of_their_labels(self) -> None:
        runs = runs_of([("a", "failed", "01:00:00", None, None), ("b", "failed", "01:00:00", None, None)])
        ax = qd.plot_run_timeline(runs.assign(deployment_name=pd.Series(["z", None], dtype="str")))
        assert lanes_of(ax) == ["b", "z"]

    def test_outcomes_differ_by_height_or_filling_of_the_bar(self) -> None:
        """Readers can tell them apart without colors, in the legend too."""
        statuses = ["failed", "completed", "cancelled"]
        runs = runs_of([("a", status, "01:00:00", None, "02:00:00") for status in statuses])
        runs = pd.concat([runs, runs.iloc[[1]].assign(status_from="session")])
        ax = qd.plot_run_timeline(runs)
        shapes = {(height, filled) for *_, height, filled in bars(ax)}
        assert len(shapes) == 4
        legend = ax.get_legend()
        assert legend is not None
        heights = [float(np.ptp(np.asarray(handle.get_marker())[:, 1])) for handle in legend.get_lines()]
        assert heights == [0.86, 0.5, 0.5, 0.2]
        assert [handle.get_markerfacecolor() == "none" for handle in legend.get_lines()] == [
            False,
            False,
            True,
            False,
        ]

    @pytest.mark.parametrize("column", ["triggered_at", "started_at", "completed_at"])
    def test_an_impossible_time_is_refused_by_name(self, column: str) -> None:
        runs = runs_of([("a", "completed", "01:00:00", None, "02:00:00")] * 2)
        runs.loc[1, column] = pd.Series(["0001-01-01T00:00:00+00:00"]).astype("datetime64[us, UTC]")[0]
        with pytest.raises(ValueError, match=rf"{column} reaches from .*0001-01-01"):
            qd.plot_run_timeline(runs)

    def test_columns_that_only_newer_frames_have_are_optional(self) -> None:
        runs = runs_of([("a", "completed", "01:00:00", None, "02:00:00")])[
            ["deployment_id", "status", "triggered_at"]
        ]
        ax = qd.plot_run_timeline(runs)
        assert [(lane, start) for lane, start, *_ in bars(ax)] == [("a", "01:00:00")]

    @pytest.mark.parametrize("length", [-5, 2**62])
    def test_an_impossible_duration_is_ignored(self, length: int) -> None:
        runs = runs_of([("a", "completed", "01:00:00", None, None)]).assign(
            duration_ms=pd.array([length], dtype="Int64")
        )
        assert "(1 without a known end)" in legend_of(qd.plot_run_timeline(runs))[-1]


def costs_of(
    rows: Sequence[tuple[str | None, float | None, float | None, float | None]],
    by: str | None = "deployment_id",
    *,
    freq: str | None = None,
) -> pd.DataFrame:
    """Build session costs from (deployment, total, model and sandbox credits), one session per day."""
    deployment, total, model, sandbox = zip(*rows, strict=True)
    sessions = pd.DataFrame(
        {
            "id": pd.array([f"sess_{number}" for number in range(len(rows))], dtype=TEXT),
            "deployment_id": pd.array(deployment, dtype=TEXT),
            "created_at": pd.date_range(f"{DAY}00:00Z", periods=len(rows), freq="1D", unit="us"),
            "usage_total_credits": np.array(total, dtype="float64"),
            "usage_model_credits": np.array(model, dtype="float64"),
            "usage_sandbox_runtime_credits": np.array(sandbox, dtype="float64"),
        }
    )
    return qd.session_costs(sessions, by, freq=freq)


SESSIONS = [
    ("a", 5.0, 3.0, 2.0),
    ("a", None, None, None),
    ("b", 3.0, None, None),
    (None, 1.0, 1.0, 0.0),
    ("z", None, None, None),
]


class TestCosts:
    def test_bars_are_stacked_from_the_parts_of_the_credits(self) -> None:
        ax = qd.plot_costs(costs_of(SESSIONS), labels={"b": "mine"})
        assert lanes_of(ax) == ["a", "mine", "(none)", "z"]
        parts = {
            to_hex(bars[0].get_facecolor()).upper(): [bar.get_width() for bar in bars] for bars in ax.containers
        }
        assert parts == {
            palette.BLUE: [3.0, 0.0, 1.0, 0.0],
            palette.ORANGE: [2.0, 0.0, 0.0, 0.0],
            palette.PALE: [0.0, 3.0, 0.0, 0.0],
        }
        ends = [
            max(bar.get_x() + bar.get_width() for bar in column) for column in zip(*ax.containers, strict=True)
        ]
        assert ends == [5.0, 3.0, 1.0, 0.0]
        assert legend_of(ax) == ["model", "sandbox runtime", "not itemized"]
        assert ax.get_xlabel() == "credits\ncredits of 2 of 5 sessions are unknown, and not counted"

    def test_truncation_of_the_service_is_not_drawn_as_not_itemized(self) -> None:
        """The service truncates to two decimals: it gives parts of 0.009 and 0.009 of 0.018 as 0 and 0 of 0.01."""
        truncated = qd.plot_costs(costs_of([("a", 0.05, 0.03, 0.01), ("a", 0.01, 0.0, 0.0)]))
        assert legend_of(truncated) == ["model", "sandbox runtime"]
        missing = qd.plot_costs(costs_of([("a", 0.05, 0.03, 0.01), ("a", 0.05, None, None)]))
        assert legend_of(missing) == ["model", "sandbox runtime", "not itemized"]

    def test_columns_of_costs_show_unknown_credits(self) -> None:
        ax = qd.plot_costs(costs_of(SESSIONS))
        texts = [text.get_text() for text in ax.texts]
        assert texts == [
            *("5.00", "3.00", "1.00", "unknown", "credits"),
            *("55.6 %", "33.3 %", "11.1 %", "share"),
            *("2", "1", "1", "1", "sessions"),
            *("1", "1", "unknown"),
        ]

    def test_costs_that_are_all_unknown_have_no_bars(self) -> None:
        ax = qd.plot_costs(costs_of(SESSIONS[-1:]))
        ax.figure.canvas.draw()
        assert not ax.patches
        assert ax.get_legend() is None

    def test_panels_of_unknown_costs_do_not_say_0(self) -> None:
        """Windows without sessions have 0 credits, also between sessions of unknown cost."""
        rows = [("d1", None, None, None), ("d2", 2.0, None, None), ("d1", None, None, None)]
        ax = qd.plot_costs(costs_of(rows, freq="1D"))
        assert [panel.texts[0].get_text() for panel in ax.child_axes] == ["d2: 2.00", "d1: unknown"]

    def test_top_draws_the_first_rows_and_the_title_counts_them(self) -> None:
        rows = [(f"d{number}", float(number), None, None) for number in range(30)]
        ax = qd.plot_costs(costs_of(rows), top=3)
        assert lanes_of(ax) == ["d29", "d28", "d27"]
        assert "(3 of 30 shown)" in ax.get_title()

    def test_windows_without_groups_are_vertical_bars(self) -> None:
        costs = costs_of(SESSIONS, by=None, freq="1D")
        ax = qd.plot_costs(costs)
        ends = [
            max(bar.get_y() + bar.get_height() for bar in column) for column in zip(*ax.containers, strict=True)
        ]
        assert ends == [5.0, 0.0, 3.0, 1.0, 0.0]
        assert [f"{num2date(bar.get_x() + bar.get_width() / 2):%d}" for bar in ax.containers[0]] == [  # type: ignore[no-untyped-call]  # matplotlib's
            "15", "16", "17", "18", "19",
        ]  # fmt: skip
        (unknown,) = ax.lines
        assert unknown.get_marker() == "$?$"
        assert [f"{num2date(x):%d}" for x in np.asarray(unknown.get_xdata())] == ["16", "19"]  # type: ignore[no-untyped-call]  # matplotlib's
        assert ax.get_ylabel() == "credits"
        assert "titles" not in ax.get_xlabel()

    def test_windows_of_groups_are_panels_sorted_by_credits(self) -> None:
        costs = costs_of(SESSIONS, freq="1D")
        ax = qd.plot_costs(costs, labels={"a": "mine"}, top=3)
        titles = [panel.texts[0].get_text() for panel in ax.child_axes]
        assert titles == ["mine: 5.00", "b: 3.00", "(none): 1.00"]
        assert "(3 of 4 shown" in ax.get_title()
        assert {panel.get_ylim() for panel in ax.child_axes} == {(0.0, 5.25)}
        for panel, total in zip(ax.child_axes, [5.0, 3.0, 1.0], strict=True):
            assert sum(bar.get_height() for bar in panel.patches if isinstance(bar, Rectangle)) == total

    @pytest.mark.parametrize("by", [None, "deployment_id"])
    def test_a_single_month_is_labelled_with_its_start_without_a_scale(self, by: str | None) -> None:
        ax = qd.plot_costs(costs_of(SESSIONS, by=by, freq="1M"))
        ax.figure.canvas.draw()
        lowest = (ax.child_axes or [ax])[-1]
        assert [label.get_text() for label in lowest.get_xticklabels()] == ["2026-06-01"]

    @pytest.mark.parametrize(
        ("highest", "marks"),
        [
            (2.0, ["0", "1", "2"]),
            (2e3, ["0", "1,000", "2,000"]),
            (2e5, ["0", "100k", "200k"]),
            (2e6, ["0", "1M", "2M"]),
            (2e11, ["0", "100B", "200B"]),
        ],
    )
    def test_large_credits_are_marked_in_units_without_a_factor(self, highest: float, marks: list[str]) -> None:
        """A factor such as 1e6 covered the titles of panels."""
        rows = [("a", highest, None, None), ("b", 0.0, None, None)]
        for freq in (None, "1D"):
            ax = qd.plot_costs(costs_of(rows, freq=freq))
            ax.figure.canvas.draw()
            axis = ax.child_axes[0].yaxis if freq else ax.xaxis
            assert set(marks) <= {label.get_text() for label in axis.get_ticklabels()}
            assert not axis.get_offset_text().get_text()

    def test_windows_from_csv_are_refused_with_the_conversion(self) -> None:
        """If their offsets differed, as with clock changes, the message was one of pandas."""
        costs = costs_of(SESSIONS, by=None, freq="1D")
        costs.index = pd.Index(["2026-03-29T00:00:00+01:00", *["2026-03-30T00:00:00+02:00"] * 4], name="window")
        message = r"column 'window' of the costs frame holds text, .*costs\['window'\] = pd\.to_datetime\("
        with pytest.raises(FrameTypeError, match=message):
            qd.plot_costs(costs)

    def test_bars_of_many_windows_are_at_least_1_pixel_wide(self) -> None:
        costs = costs_of([("a", 1.0, None, None), *[("b", 1.0, None, None)] * 450], freq="1D")
        ax = qd.plot_costs(costs)
        ax.figure.canvas.draw()
        assert min(bar.get_window_extent().width for panel in ax.child_axes for bar in panel.patches) >= 1

    def test_bars_are_light_blue_and_a_pale_color_of_its_own_in_a_dark_style(self) -> None:
        with plt.style.context("dark_background"):
            ax = qd.plot_costs(costs_of(SESSIONS))
        colors = [to_hex(bar.get_facecolor()).upper() for bar in ax.patches]
        assert colors[0] == palette.SKY
        assert colors[-1] == palette.PALE_IN_DARK, "credits that are not itemized"


class TestPlotStyle:
    def test_settings_are_restored_also_after_an_exception(self) -> None:
        plt.get_backend()
        before = dict(mpl.rcParams)
        with qd.plot_style():
            assert mpl.rcParams["axes.prop_cycle"].by_key()["color"] == list(palette.DISTINCT)
            assert dict(mpl.rcParams) != before
        assert dict(mpl.rcParams) == before
        with pytest.raises(ZeroDivisionError), qd.plot_style():
            _ = 1 / 0
        assert dict(mpl.rcParams) == before

    def test_texts_drawn_after_the_block_have_a_font_with_their_glyphs(self) -> None:
        """Matplotlib would warn at drawing of a character that no font of a text has."""
        words = "plan \N{MATHEMATICAL SCRIPT CAPITAL A}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("qoderdata.plots.labels._SCRIPTS", words)
            with qd.plot_style():
                figure, ax = plt.subplots()
                ax.barh([words, "other"], [1, 2], label=words)
                ax.set(title=words, xlabel=words)
                ax.legend()
        figure.canvas.draw()
        labels = ax.get_yticklabels()
        assert [label.get_text() for label in labels] == [words, "other"]
        assert all("STIXGeneral" in label.get_fontfamily() or len(label.get_fontfamily()) > 1 for label in labels)

    def test_other_figures_and_the_current_figure_are_not_changed(self) -> None:
        other, other_axes = plt.subplots()
        other_axes.barh(["a"], [1])
        with qd.plot_style():
            first, _ = plt.subplots()
            plt.subplots()
            plt.figure(first.number)
        assert plt.gcf() is first
        assert first.get_layout_engine() is not None
        assert other.get_layout_engine() is None
        assert other_axes.get_yticklabels()[0].get_fontfamily() == list(mpl.rcParams["font.family"])

    def test_plot_style_keeps_a_dark_style(self) -> None:
        with plt.style.context("dark_background"), qd.plot_style():
            figure, ax = plt.subplots()
            (line,) = ax.plot([1, 2])
        assert to_hex(figure.get_facecolor()) == "#000000"
        assert line.get_color() == palette.BLUE
        assert not ax.spines["top"].get_visible()


def test_triggers_may_be_in_another_zone_than_runs() -> None:
    """`next_triggers` returns times in its `tz`, and runs are in UTC."""
    runs = runs_of([("dep_1", "completed", "00:00:00", "00:00:01", "00:10:00")])
    df = qd.flatten_deployments(
        [{"id": "dep_1", "status": "active", "schedule": {"expression": "0 * * * *", "timezone": "Asia/Shanghai"}}]
    )
    triggers = qd.next_triggers(df, "3h", start=f"{DAY}00:30:00Z", tz="Asia/Shanghai")
    ax = qd.plot_run_timeline(runs, triggers=triggers, tz="Asia/Shanghai")
    assert ax.get_title()


def test_columns_of_a_timeline_may_be_in_different_zones() -> None:
    runs = runs_of(
        [("dep_1", "completed", "00:00:00", "00:00:01", "00:10:00"), ("dep_1", "running", "01:00:00", None, None)]
    )
    missed = missed_of([("dep_1", "00:30:00", True)])
    local = runs.assign(triggered_at=runs["triggered_at"].dt.tz_convert("Asia/Shanghai"))
    spans = []
    for frame in (runs, local):
        ax = qd.plot_run_timeline(frame, missed=missed)
        spans.append(
            [np.asarray(path.vertices).tolist() for lines in ax.collections for path in lines.get_paths()]
        )
    assert spans[0] == spans[1]


def test_zones_are_labelled_with_each_offset_between_the_first_and_last_time() -> None:
    berlin = pd.DatetimeIndex(["2026-01-05", "2026-12-01"], tz="Europe/Berlin")
    assert describe_zone(berlin) == "Europe/Berlin (UTC+01:00 and UTC+02:00)"
    assert describe_zone(berlin[:1]) == "Europe/Berlin (UTC+01:00)"
    assert describe_zone(pd.DatetimeIndex(["2026-01-05T00:00:00+08:00"])) == "UTC+08:00"
    assert describe_zone(berlin.tz_convert("UTC")) == "UTC"


def test_deployment_with_the_name_of_its_agent_has_no_id_in_its_label() -> None:
    schedule = {"expression": "0 * * * *", "timezone": "UTC"}
    df = qd.flatten_deployments(
        [
            {
                "id": f"dep_{number}",
                "name": name,
                "status": "active",
                "agent": {"id": "agent_1"},
                "schedule": schedule,
            }
            for number, name in enumerate(["Triage", "Report", "Report"])
        ]
    )
    df["agent_name"] = "Triage"
    ax = qd.plot_next_triggers(qd.next_triggers(df, "3h", start=f"{DAY}00:30:00Z"))
    shown = {label.get_text() for label in ax.get_yticklabels()}
    assert shown == {"Triage", "Report ·ep_1", "Report ·ep_2"}
