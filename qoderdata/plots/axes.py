"""Prepare what all plots share: axes, colors, rows, grids, legends, numbers, the message of an empty plot.

matplotlib's settings (text color, font size) are read, so that a caller's own style holds, and never written.
matplotlib is imported when something is drawn, not before.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from math import ceil
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from qoderdata.arguments import check_count, check_labels
from qoderdata.formatting import counted, is_or_are
from qoderdata.plots.labels import font_families, keys_and_names, make_labels, title_of_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.backend_bases import RendererBase
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.container import BarContainer
    from matplotlib.text import Text
    from numpy.typing import NDArray

    from qoderdata.plots.labels import Labels

    #: The lengths of some bars, and their look.
    Part = tuple[NDArray[np.float64], dict[str, Any]]

# Okabe and Ito, "Color Universal Design" (2008): the color-blind can distinguish them. Their yellow is left out,
# since thin marks in it vanish on white.
BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
DISTINCT = (BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE)
#: The texts on dark and on light squares of a grid.
_ON_DARK, _ON_LIGHT = "#FFFFFF", "#010101"
#: The color of backgrounds in a light and in a dark style, on which lines can still be seen.
PALE, PALE_IN_DARK = "#A9BCCB", "#566A7A"
GREY = "#8C8C8C"

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

_WIDTH_INCHES, _ROW_INCHES, _MARGIN_INCHES = 9.0, 0.27, 1.3
#: Fewer rows than this keep the height of rows and leave room around them.
FEWEST_ROWS = 3
#: Agg refuses a picture of 65,536 pixels; this keeps well below it at 300 dots an inch.
_MOST_INCHES = 200.0
#: The luminance of a color on which black and white text have the same contrast: sqrt(1.05 * 0.05) - 0.05.
_EQUAL_CONTRAST = 0.179
_SMALLEST_POINTS, _USUAL_POINTS, _POINTS_PER_INCH = 3.5, 10.0, 72.0
#: Narrower squares of a grid have no text.
_NARROWEST_WITH_TEXT_POINTS = 14.0
_MOST_LABEL_COLUMNS, _LABEL_SHARE = 32, 0.35
#: The mean width of digits and letters of sans-serif faces, in font sizes.
_LETTER = 0.6
#: Heights in font sizes: a line of the title, the headers of columns below it, the ticks and label of the x axis.
_LINE, _HEADERS, _TICKS_AND_LABEL = 1.2, 1.7, 5.0
#: The height of a figure as a multiple of that of its axes before a layout, which leave 23 % as margins.
_FIGURE_HEIGHT = 1.3
#: On axes of a smaller area, in square inches, texts are smaller, to this share at least, and labels shorter.
_FULL_AREA, _SMALLEST_SCALE, _SMALL_SHARE = 10.0, 0.5, 0.85
#: The least end of an axis that is written in a unit, the size of the unit, and its letter.
_UNITS = ((1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))


@contextmanager
def plot_style() -> Iterator[None]:
    """Draw figures made inside a ``with`` block in the fonts and palette of this package's plots.

    Names in Chinese, Japanese, Korean, Arabic and other scripts are drawn with installed fonts that have their
    characters, not as empty boxes; what no installed font has stays a box. Lines and bars take colors that the
    color-blind tell apart (Okabe and Ito 2008); there is no frame at the top and on the right, and no box around
    a legend. Colors of text and background, and font sizes, stay the caller's, so that a dark style stays dark.

    Make the figure, its axes and its texts inside the block; it may be drawn and saved later.

    Yields
    ------
    None
        Nothing; ``matplotlib.rcParams`` are as before when the block has ended, also after an exception.

    Notes
    -----
    Tick labels, which matplotlib makes late, get the fonts when the block ends, in figures that
    `matplotlib.pyplot` made inside it. For other figures draw inside the block.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import qoderdata as qd
    >>> with qd.plot_style():
    ...     figure, ax = plt.subplots()
    ...     bars = ax.bar(["夜间报表", "nightly"], [3, 5])
    >>> bars[0].get_facecolor() == plt.matplotlib.colors.to_rgba("#0072B2")
    True
    >>> plt.close(figure)
    """
    import matplotlib as mpl  # noqa: PLC0415 - heavy, and needed only when drawing
    import matplotlib.pyplot as plt  # noqa: PLC0415 - as above
    from cycler import cycler  # noqa: PLC0415 - as above

    families = font_families()
    settings: dict[Any, Any] = {
        "font.family": families,
        "axes.prop_cycle": cycler(color=DISTINCT),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.unicode_minus": True,
        "figure.constrained_layout.use": True,
        "legend.frameon": False,
    }
    before = set(plt.get_fignums())
    with mpl.rc_context(settings):
        yield
        if made := set(plt.get_fignums()) - before:
            current = plt.gcf()
            for ax in (ax for number in made for ax in plt.figure(number).axes):
                ax.tick_params(which="both", labelfontfamily=families)
            plt.figure(current)


def check_top_and_labels(top: int, labels: Mapping[str, str] | None) -> None:
    """Raise if `top` leaves nothing to draw, or `labels` are no mapping."""
    check_count(top, name="top")
    check_labels(labels)


def given_or_new(ax: Axes | None, *, height: float, width: float | None = None) -> Axes:
    """Return the caller's axes, or one in a new figure of these inches.

    If the caller's font is large, the figure is higher, and wider if it has a width of its own. A new figure
    is made with pyplot, so that a notebook shows it. Pyplot's current axes are never drawn on.
    """
    if ax is not None:
        from matplotlib.axes import Axes as Drawable  # noqa: PLC0415 - as below

        if not isinstance(ax, Drawable):
            kind = type(ax).__name__
            raise TypeError(f"ax must be one matplotlib Axes, as figure, ax = plt.subplots() returns, not {kind}")
        scale_texts(ax, text_scale(ax))
        return ax
    import matplotlib.pyplot as plt  # noqa: PLC0415 - heavy, and needed only when drawing

    larger = max(1.0, float(plt.rcParams["font.size"]) / _USUAL_POINTS)
    size = _WIDTH_INCHES if width is None else width * larger, min(height * larger, _MOST_INCHES)
    return plt.figure(figsize=size, layout="constrained").add_subplot()


def text_scale(ax: Axes) -> float:
    """Return the size of texts on these axes as a share of the style's: less than 1 on small axes."""
    area = float(ax.bbox.width * ax.bbox.height) / ax.figure.dpi**2
    return max(_SMALLEST_SCALE, min(1.0, float((area / _FULL_AREA) ** 0.5)))


def scale_texts(ax: Axes, scale: float) -> None:
    """Write title, labels and tick labels in this share of their size in the style."""
    import matplotlib as mpl  # noqa: PLC0415 - heavy, and needed only when drawing
    from matplotlib.font_manager import FontProperties  # noqa: PLC0415 - as above

    if scale == 1:
        return

    def points(size: float | str) -> float:
        return scale * FontProperties(size=size).get_size_in_points()

    style = mpl.rcParams
    ax.title.set_fontsize(points(style["axes.titlesize"]))
    for axis, size in ((ax.xaxis, style["xtick.labelsize"]), (ax.yaxis, style["ytick.labelsize"])):
        axis.label.set_fontsize(points(style["axes.labelsize"]))
        axis.set_tick_params(labelsize=points(size))


def width_points(ax: Axes) -> float:
    """Return the width of the axes in points, before names and legends have taken their part."""
    return float(ax.bbox.width / ax.figure.dpi * _POINTS_PER_INCH)


def row_points(ax: Axes, rows: int) -> float:
    """Return the font size in points that fits a row, of `rows` rows in all."""
    import matplotlib as mpl  # noqa: PLC0415 - heavy, and needed only when drawing

    height = ax.bbox.height / ax.figure.dpi * _POINTS_PER_INCH
    # A layout makes low axes lower, as what is above and below them needs more than the margins.
    title, label = float(ax.title.get_fontsize()), float(ax.xaxis.label.get_fontsize())
    title_lines = 1 + ax.get_title().count("\n")
    around = (_HEADERS + _LINE * title_lines) * title + _TICKS_AND_LABEL * label
    points = min(height, _FIGURE_HEIGHT * height - around) / max(rows, 1)
    largest = 0.9 * float(mpl.rcParams["font.size"]) * text_scale(ax)
    return max(_SMALLEST_POINTS, min(largest, 0.75 * points))


def label_columns(ax: Axes, rows: int) -> int:
    """Return the maximum width in letters of a row label: about a third of narrow axes."""
    room = _LABEL_SHARE * width_points(ax) / (_LETTER * row_points(ax, rows))
    return max(1, min(_MOST_LABEL_COLUMNS, int(room)))


def line_color() -> str:
    """Return the color of lines that lie on bars and beside them: dark, but light if the text is light."""
    return "#FFFFFF" if is_dark() else "#333333"


def series_color() -> str:
    """Return the color of a line of values: blue, and a light one on a dark background."""
    return SKY if is_dark() else BLUE


def alert_text_color() -> str:
    """Return the color of text about what is wrong: vermillion, darker on a light background, else lighter."""
    return "#FF8A4C" if is_dark() else "#963F00"


def pale_color() -> str:
    """Return the color of what is only a background, on which the lines of `line_color` lie."""
    return PALE_IN_DARK if is_dark() else PALE


def hatched(pattern: str) -> dict[str, Any]:
    """Return the look of a square or bar that is hatched, on a grid or in its legend."""
    color = "#777777" if is_dark() else "#BBBBBB"
    return {"hatch": pattern, "facecolor": "none", "edgecolor": color, "linewidth": 0.0}


def is_dark() -> bool:
    """Return whether the style is dark, that is, its text is light."""
    import matplotlib as mpl  # noqa: PLC0415 - heavy, and needed only when drawing
    from matplotlib.colors import to_rgb  # noqa: PLC0415 - as above

    return _luminance(to_rgb(mpl.rcParams["text.color"])) >= _EQUAL_CONTRAST


def _luminance(color: Sequence[float]) -> float:
    """Return the relative luminance of a color, from 0 for black to 1 for white (WCAG 2.2)."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4  # noqa: PLR2004 - as sRGB is defined
        for part in color[:3]
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def write_title(
    ax: Axes,
    title: str,
    shown: int = 0,
    count: int = 0,
    words: str = "shown",
    **properties: Any,  # noqa: ANN401 - of texts
) -> None:
    """Write the title; if rows are left out, add "(`shown` of `count` `words`)". Break a long title."""
    parts = [title, f"({shown} of {count:,} {words})"] if shown < count else [title]
    whole, letters = " ".join(parts), _letters(ax, ax.title)
    text = whole if len(whole) <= letters else _break_lines(parts, letters)
    ax.set_title(text, fontsize=ax.title.get_fontsize(), **properties)


def _letters(ax: Axes, text: Text) -> int:
    """Return how many letters fit a line of a title or label; labels beside the axes will make these narrower."""
    return max(1, int(1.5 * width_points(ax) / float(text.get_fontsize())))


def _break_lines(lines: Iterable[str], letters: int) -> str:
    """Join lines; break those with more letters at their commas, or between words if that is not enough."""
    broken: list[str] = []
    for line in lines:
        first, *rest = re.split(r"(?<=[,;]) ", line)
        if max(map(len, (first, *rest))) > letters:
            broken += wrap(line, letters)
            continue
        broken.append(first)
        for part in rest:
            if len(broken[-1]) + len(part) < letters:
                broken[-1] += f" {part}"
            else:
                broken.append(part)
    return "\n".join(broken)


def show_message(ax: Axes, text: str) -> Axes:
    """Write one plain sentence if there is nothing to draw, and return the axes."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", alpha=0.7, wrap=True)
    return ax


def open_rows(
    ax: Axes | None, title: str, order: tuple[str, str], summary: pd.DataFrame, top: int
) -> tuple[Axes, pd.DataFrame]:
    """Return axes for the first rows of a summary, and these rows.

    `order` is a column, and the words for rows that are sorted by it, the largest first: the title has them.
    """
    shown = summary.head(top)
    keys_and_names(shown)  # raises if there are no keys, before a figure is made, which would stay open
    ax = given_or_new(ax, height=_MARGIN_INCHES + _ROW_INCHES * max(len(shown), FEWEST_ROWS))
    column, words = order
    is_sorted = len(summary) > 1 and summary[column].fillna(-np.inf).is_monotonic_decreasing
    text, properties = title_of_groups(f"{title}{words if is_sorted else ''}", summary)
    pad = _HEADERS * float(ax.title.get_fontsize())
    write_title(ax, text, len(shown), len(summary), pad=pad, **properties)
    return ax, shown


def prepare_rows(ax: Axes, shown: pd.DataFrame, labels: Mapping[str, str] | None) -> float:
    """Prepare one row for each row of a frame, from the top down, named by its key; return the font size."""
    return label_rows(ax, make_labels(*keys_and_names(shown), labels, columns=label_columns(ax, len(shown))))


def label_rows(ax: Axes, labels: Labels) -> float:
    """Prepare a row for each label, with pale vertical lines behind; return the font size."""
    count = len(labels.texts)
    room = max(count, FEWEST_ROWS) / 2 + 0.1
    middle = (count - 1) / 2
    ax.set_ylim(middle + room, middle - room)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=True, axis="x", alpha=0.35, linewidth=0.6)
    ax.set_axisbelow(True)
    points = row_points(ax, count)
    ax.set_yticks(range(count), labels.texts, fontsize=points, **labels.properties)
    return points


def style_values(ax: Axes) -> None:
    """Draw no frame at the top and on the right, and a pale line at each mark of the y axis."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=True, axis="y", alpha=0.35, linewidth=0.6)


def legend_beside(
    ax: Axes,
    samples: Mapping[str, Any],
    *,
    title: str | None = None,
    properties: Mapping[str, Any] | None = None,
    right: float = 6.0,
    below: float | None = None,
) -> None:
    """Write a legend of samples by text where it covers nothing: to the right of the axes, or in a row below.

    It begins `right` points to the right of the axes; with `below`, it ends there, that far below the axes.
    """
    import matplotlib as mpl  # noqa: PLC0415 - heavy, and needed only when drawing
    from matplotlib.transforms import ScaledTranslation  # noqa: PLC0415 - as above

    points = 0.833 * float(mpl.rcParams["font.size"]) * text_scale(ax)  # matplotlib's "small"
    down = 0.0 if below is None else below
    beside = ScaledTranslation(right / _POINTS_PER_INCH, -down / _POINTS_PER_INCH, ax.figure.dpi_scale_trans)
    # The texts are set afterwards, since matplotlib leaves out labels that start with an underscore.
    legend = ax.legend(
        list(samples.values()),
        ["-"] * len(samples),
        title=title,
        alignment="left",
        loc="upper left" if below is None else "upper right",
        bbox_to_anchor=(1.0, 1.0) if below is None else (1.0, 0.0),
        bbox_transform=ax.transAxes + beside,
        borderaxespad=0,
        frameon=False,
        fontsize=points,
        title_fontsize=1.2 * points,
        handlelength=1.4,
        ncols=1 if below is None else len(samples),
    )
    for text, words in zip(legend.get_texts(), samples, strict=True):
        text.set(text=words, **(properties or {}))


def stack_bars(
    draw: Callable[..., BarContainer], positions: NDArray[np.float64], parts: Mapping[str, Part], thickness: float
) -> dict[str, BarContainer]:
    """Draw a stack at each position by `ax.bar` or `ax.barh`; return the bars of the parts that are not all 0."""
    floor, bars = np.zeros(len(positions)), {}
    for words, (lengths, look) in parts.items():
        if lengths.any():
            bars[words] = draw(positions, lengths, thickness, floor, **look)
        floor = floor + lengths
    return bars


def draw_grid(
    ax: Axes,
    values: NDArray[np.float64],
    *,
    colors: Colormap,
    norm: Normalize,
    texts: NDArray[np.str_],
    fewest_columns: int = 1,
) -> None:
    """Draw a grid of colored squares, a row per weekday; a value that is not a number draws none.

    The square of row r and column c lies around (c, r). Squares that are large enough hold their texts.
    """
    columns = max(values.shape[1], fewest_columns)
    width = width_points(ax) / columns
    edges = {"edgecolors": ax.get_facecolor(), "linewidth": min(0.8, 0.05 * width)}
    look: dict[str, Any] = {"cmap": colors, "norm": norm, "antialiased": True, **edges}
    ax.pcolormesh(*_edges(values), np.ma.masked_invalid(values), **look)
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(len(WEEKDAYS) - 0.5, -0.5), ylabel="weekday")
    ax.set_yticks(range(len(WEEKDAYS)), WEEKDAYS)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    if width < _NARROWEST_WITH_TEXT_POINTS:
        return

    from matplotlib.text import Text  # noqa: PLC0415 - heavy, and needed only when drawing

    letters = max(2, *(len(text) for text in texts.flat))

    class SquareText(Text):
        """A text in a font that fits its square, whose width is known when it is drawn."""

        def draw(self, renderer: RendererBase) -> None:
            self.set_fontsize(max(_SMALLEST_POINTS, min(8.0, width_points(ax) / columns / letters * 1.25)))
            super().draw(renderer)

    for row, column in np.argwhere(np.isfinite(values)):
        color = _ON_DARK if _luminance(colors(norm(values[row, column]))) < _EQUAL_CONTRAST else _ON_LIGHT
        ax.add_artist(SquareText(column, row, texts[row, column], color=color, ha="center", va="center_baseline"))


def hatch_cells(ax: Axes, where: NDArray[np.bool_], pattern: str) -> None:
    """Hatch squares of a grid that have no value."""
    if where.any():
        marked = np.ma.masked_where(~where, np.zeros(where.shape))
        ax.pcolor(*_edges(marked), marked, **hatched(pattern))


def _edges(values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows, columns = values.shape
    return np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5


def ticks_up_to(top: float, count: int) -> list[float]:
    """Return about `count` round ticks from 0 to the top, none above it."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - heavy, and needed only when drawing

    ticks = MaxNLocator(count, steps=[1, 2, 5, 10]).tick_values(0, top)
    return [float(tick) for tick in ticks if 0 <= tick <= top]


def percent_axis(axis: Axis) -> None:
    """Format an axis of shares in per cent, with no more digits than its marks need."""
    axis.set_major_formatter(lambda share, _: f"{100 * share:g} %")


def number_axis(axis: Axis) -> None:
    """Format an axis of counts or credits, from 10,000 on in thousands (k), millions (M) or billions (B).

    matplotlib would write a factor such as 1e6 beside the axis, where the title of a panel is.
    """

    def text(value: float, _: object) -> str:
        top = max(axis.get_view_interval())
        size, unit = next(((size, unit) for least, size, unit in _UNITS if top >= least), (1, ""))
        return f"{value / size:,.10g}{unit if value else ''}"

    axis.set_major_formatter(text)


def write_column(
    ax: Axes, header: str, texts: Sequence[str], *, offset: float, points: float, color: str | None = None
) -> float:
    """Write one text per row to the right of the axes, right-aligned under a header; return where the column ends.

    Rows lie at y = 0, 1, 2 and so on; `offset` and the result are points from the axes.
    """
    end = offset + _LETTER * points * max(map(len, (header, *texts)))
    style: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "fontsize": points, "color": color}
    for row, text in enumerate(texts):
        if text:
            ax.annotate(
                text, (1, row), xycoords=ax.get_yaxis_transform(), xytext=(end, 0), va="center_baseline", **style
            )
    if header:
        ax.annotate(header, (1, 1), xycoords="axes fraction", xytext=(end, 2), va="bottom", alpha=0.8, **style)
    return end


def assumed_note(assumed: float, completed: float) -> str:
    """Return a line of a label: how many completed runs are assumed; an empty text if none is."""
    if not assumed:
        return ""
    of_runs = f"of {counted(int(completed), 'completed run')}"
    return f"{assumed:,.0f} {of_runs} {is_or_are(assumed)} assumed, not proved"


def label_x(ax: Axes, *lines: str) -> None:
    """Label the x axis with the lines that are not empty; break those longer than the axes at their commas."""
    letters = _letters(ax, ax.xaxis.label)
    if text_scale(ax) < 1:  # a legend beside them takes more of their width
        letters = int(_SMALL_SHARE * letters)
    ax.set_xlabel(_break_lines(filter(None, lines), letters))


def label_ticks(ax: Axes, labels: Mapping[float, str], *, most: int) -> None:
    """Mark the x axis, and label every n-th tick if not all labels fit; `most`: the ticks of a full axis.

    The first and another one always have labels: a single one gives no scale.
    """
    longest = max(map(len, labels.values()))

    def text(value: float, number: float | None) -> str:
        step = min(ceil(most / max(1, label_room(ax, longest))), max(1, len(labels) - 1))
        return labels[value] if (number or 0) % step == 0 else ""

    ax.set_xticks(list(labels))
    ax.xaxis.set_major_formatter(text)


def label_room(ax: Axes, letters: int) -> int:
    """Return how many labels of `letters` letters fit on the x axis, as wide as it is when it is drawn."""
    return int(3 * ax.xaxis.get_tick_space() / (0.62 * letters + 1))  # a tick space is 3 em wide
