"""Tests of `plots.labels`: names of any script, length or characters become readable labels."""

from __future__ import annotations

import logging
import unicodedata
import warnings
from functools import cache
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, fontManager

import qoderdata as qd
from qoderdata.frame_checks import TEXT
from qoderdata.plots import labels as plot_labels
from qoderdata.summaries import failure_rates
from tests.test_plots_artists import counters, triggers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from matplotlib.axes import Axes

    Plot = Callable[..., Axes]

IDS = [f"dep_0197aaaa00007bbb{number:016x}" for number in range(40)]


@pytest.fixture(autouse=True)
def matplotlib_logs_no_warning(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Assert that Matplotlib logs no warning, such as one about fonts that it does not find."""
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.fixture
def only_dejavu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a machine that has only the fonts that Matplotlib brings."""
    bundled = [entry for entry in fontManager.ttflist if entry.fname.startswith(mpl.get_data_path())]
    monkeypatch.setattr(fontManager, "ttflist", bundled)
    monkeypatch.setattr(plot_labels, "_add_new_fonts", lambda: None)


@cache
def rates_of(count: int) -> pd.DataFrame:
    return failure_rates(counters([(40, 10, 2)] * count).assign(id=IDS[:count]))


def rates(names: Sequence[str | None]) -> pd.DataFrame:
    return rates_of(len(names)).assign(name=pd.array(names, dtype=TEXT))


def triggers(names: Sequence[str | None]) -> pd.DataFrame:
    rows = [(f"2026-06-15T{hour:02}:00Z", IDS[hour], "agent_1") for hour in range(len(names))]
    return triggers_of(rows).assign(name=pd.Series(names, dtype="category"))


each_plot = pytest.mark.parametrize(
    "plot",
    [
        lambda names, **options: qd.plot_failure_rates(rates(names), **options),
        lambda names, **options: qd.plot_next_triggers(triggers(names), **options),
    ],
    ids=["failure_rates", "next_triggers"],
)


def draw(ax: Axes) -> list[str]:
    """Draw the figure, as a notebook does, and return its row labels from top to bottom."""
    assert isinstance(ax.figure, Figure)
    ax.figure.canvas.draw()
    return [label.get_text() for label in ax.get_yticklabels()]


# (name from the service, label)
NAMES = [
    ("nightly", "nightly"),
    ("two\nlines\tand a tab", "two lines and a tab"),
    ("\x1b[31mred\x00", "�[31mred�"),
    ("a\u202egnp.exe", "a�gnp.exe"),
    ("costs $5 and $x^2$", "costs $5 and $x^2$"),
    (r"$\badmacro{", r"$\badmacro{"),
    (r"\textbf{tex} & 50% of_it #1 ~^", r"\textbf{tex} & 50% of_it #1 ~^"),
    ("<b>bold</b>", "<b>bold</b>"),
    ("_private", "_private"),
    ("%d %s {0}", "%d %s {0}"),
    *((name, "the id") for name in ("  ", "", None)),
    ("é" * 3, "é" * 3),
    ("a" + "\u0301" * 40, "á\u0301\u0301"),
    ("Ежедневный отчёт", "Ежедневный отчёт"),
    ("Ημερήσια αναφορά", "Ημερήσια αναφορά"),
    ("תקציר יומי", "תקציר יומי"),
    ("تقرير يومي", "تقرير يومي"),
]


@each_plot
def test_labels_of_unusual_names(plot: Plot) -> None:
    drawn = draw(plot([name for name, _ in NAMES]))
    ids = (f"{one[:19]}…{one[-12:]}" for one in IDS)
    expected = [one if shown == "the id" else shown for one, (_, shown) in zip(ids, NAMES, strict=False)]
    assert [unicodedata.normalize("NFC", text) for text in drawn] == expected


@each_plot
def test_names_are_not_parsed_as_tex_or_mathtext(plot: Plot) -> None:
    """Not even with ``text.usetex``, with which TeX would run commands in a name."""
    with plt.style.context({"text.usetex": True}):
        ax = plot([r"\input{/etc/passwd} $x$"])
    for label in ax.get_yticklabels():
        assert not label.get_usetex()
        assert not label.get_parse_math()


@each_plot
def test_long_names_are_shortened_to_leave_room_for_the_data(plot: Plot) -> None:
    names = ["W" * 300, "weekly-report-" * 20 + "eu", "夜间报表" * 30, "🚀" * 3 + "x" * 200]
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # the machine may have no font for them
        ax = plot(names)
    shown = draw(ax)
    assert all("…" in text for text in shown)
    assert "eu" in next(text for text in shown if text.startswith("weekly"))[-2:]
    assert ax.get_position().width > 0.25


@each_plot
def test_equal_names_get_the_end_of_their_id(plot: Plot) -> None:
    assert draw(plot(["nightly", "hourly", "nightly"])) == ["nightly ·0000", "hourly", "nightly ·0002"]


@each_plot
def test_given_labels_replace_names(plot: Plot) -> None:
    labels = {IDS[0]: "mine\n(the first)", "dep_of_somebody_else": "x"}
    assert draw(plot(["nightly", "hourly"], labels=labels)) == ["mine (the first)", "hourly"]


def test_labels_may_name_groups() -> None:
    frame = rates(["a", "b"]).drop(columns="name")
    frame.index = pd.Index(["agent_1", "agent_2"], name="agent_id")
    assert draw(qd.plot_failure_rates(frame, labels={"agent_2": "Triage"})) == ["agent_1", "Triage"]


@each_plot
@pytest.mark.usefixtures("only_dejavu")
def test_characters_that_no_font_has_become_boxes_with_one_warning(plot: Plot) -> None:
    """Matplotlib itself would warn of each character, at each drawing, from a line inside the package."""
    with pytest.warns(UserWarning, match="no installed font has 6 of the characters") as caught:
        ax = plot(["夜间报表", "nightly", "報告 x"])
    assert draw(ax) == ["□□□□", "nightly", "□□ x"]
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "(U+544A CJK UNIFIED IDEOGRAPH-544A, …)" in message
    assert "fonts-wqy-microhei" in message
    assert "labels" in message
    assert caught[0].filename == __file__


@each_plot
@pytest.mark.usefixtures("only_dejavu")
def test_names_that_consist_of_boxes_get_the_end_of_their_id(plot: Plot) -> None:
    with pytest.warns(UserWarning, match="no installed font"):
        ax = plot(["夜间", "報告"])
    assert draw(ax) == ["□□ ·0000", "□□ ·0001"]


@each_plot
@pytest.mark.usefixtures("only_dejavu")
def test_a_font_that_has_the_characters_is_found(plot: Plot) -> None:
    """Of the fonts that Matplotlib brings, only STIX has this script capital."""
    ax = plot(["plan \N{MATHEMATICAL SCRIPT CAPITAL A}"])
    assert draw(ax) == ["plan \N{MATHEMATICAL SCRIPT CAPITAL A}"]
    families = ax.get_yticklabels()[0].get_fontfamily()
    assert families == ["sans-serif", "STIXGeneral"], "the font family of the caller stays the first"


def test_fonts_are_set_on_the_texts_and_not_in_rc_params() -> None:
    before = list(mpl.rcParams["font.family"]), list(mpl.rcParams["font.sans-serif"])
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        draw(qd.plot_failure_rates(rates(["夜间报表 한국어 日本語"])))
    assert (list(mpl.rcParams["font.family"]), list(mpl.rcParams["font.sans-serif"])) == before


def test_a_font_installed_after_matplotlib_made_its_list_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matplotlib caches its font list in a file, so a newly installed font would not be found."""
    bundled = mpl.get_data_path() + "/fonts/ttf/STIXSizOneSymReg.ttf"
    listed = [entry for entry in fontManager.ttflist if entry.fname != bundled]
    monkeypatch.setattr(fontManager, "ttflist", listed)
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [bundled, "/nowhere/broken.ttf"])
    plot_labels._add_new_fonts.__wrapped__()
    assert bundled in [entry.fname for entry in fontManager.ttflist]


def test_an_unreadable_or_missing_font_has_no_glyphs(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = FontEntry("/nowhere/broken.ttf", name="A Broken Font", weight=400)
    monkeypatch.setattr(fontManager, "ttflist", [*fontManager.ttflist, broken])
    assert plot_labels.glyphs.__wrapped__("A Broken Font") == frozenset()
    assert plot_labels.glyphs.__wrapped__("A Font Of Nobody") == frozenset()


@settings(max_examples=25, deadline=None)
@given(names=st.lists(st.text(max_size=40), min_size=1, max_size=6))
def test_random_names_give_distinct_one_line_labels(names: list[str]) -> None:
    figure = Figure(layout="constrained")
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        ax = qd.plot_failure_rates(rates(names), ax=figure.add_subplot())
    canvas.draw()  # type: ignore[no-untyped-call]  # Matplotlib would warn here of each character that it cannot draw
    shown = [label.get_text() for label in ax.get_yticklabels()]
    assert len(set(shown)) == len(names)
    assert all(text.strip() and "\n" not in text for text in shown)
    assert np.isfinite(ax.get_position().bounds).all()


@pytest.mark.usefixtures("only_dejavu")
def test_a_script_that_is_neither_east_asian_nor_emoji_is_told_its_fonts() -> None:
    with pytest.warns(UserWarning, match="DEVANAGARI .* fonts-noto-core for other scripts"):
        qd.plot_failure_rates(rates(["साप्ताहिक", "nightly"]))
