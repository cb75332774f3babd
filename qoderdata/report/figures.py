"""Draw figures for the page: plots as inline SVG with real text in the page's own colors, and small bars.

The reader's browser draws the texts in its own fonts, so no glyph is ever missing, and CSS variables give the
colors, so dark mode is right. The page's policy forbids style attributes, so each becomes classes and plain
attributes.
"""

from __future__ import annotations

import io
import math
import re
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree as ET

from markupsafe import Markup, escape

from qoderdata.formatting import display_width
from qoderdata.plots import axes as palette
from qoderdata.plots.labels import glyphs, text_as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from matplotlib.axes import Axes

_WIDTH_INCHES = 9.0
_POINTS = 72
_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"

#: Colors of the plots, and the CSS variables that stand for them on the page.
_COLOR_NAMES = {
    "#000000": "soft",
    palette.ON_LIGHT: "on-light",
    "#333333": "ink",
    "#ffffff": "card",
    "#b0b0b0": "line",
    palette.HATCHED["edgecolor"].lower(): "soft",
    palette.PALE.lower(): "pale",
    palette.GREY.lower(): "grey",
    palette.BLUE.lower(): "blue",
    palette.ORANGE.lower(): "orange",
    palette.GREEN.lower(): "green",
    palette.VERMILLION.lower(): "vermillion",
    palette.SKY.lower(): "sky",
    palette.PURPLE.lower(): "purple",
}
_ELEMENTS = frozenset({"svg", "g", "path", "text", "use", "defs", "clipPath", "rect", "pattern"})
_ATTRIBUTES = frozenset({"d", "x", "y", "width", "height", "transform", "clip-path", "fill", "patternUnits"})
_STYLES = frozenset(
    {
        "fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-dashoffset", "stroke-linecap",
        "stroke-linejoin", "stroke-opacity", "fill-opacity", "opacity", "font-size", "font-weight", "text-anchor",
    }
)  # fmt: skip
_REFERENCE = re.compile(r"url\(#([\w-]+)\)")
_NUMBER = re.compile(r"-?\d+\.\d+")
_UPRIGHT = re.compile(r"\s*M 0 (-?[\d.]+)\s+L 0 (-?[\d.]+)\s*")

_BAR_WIDTH, _BAR_MARGIN = 128, 6


class Figure(NamedTuple):
    """A plot on the page, and what it shows in words."""

    svg: Markup
    alt: str


class Bar(NamedTuple):
    """Where the parts of a small bar begin and end, in its own units; `dot` is ``None`` where there is none."""

    track: tuple[float, float]
    line: tuple[float, float]
    dot: float | None


def round_scale(highest: float) -> float:
    """Return the end of a scale that holds the highest share: a whole tenth, at most 1."""
    return min(1.0, max(0.1, math.ceil(10 * highest) / 10))


def interval_bar(rate: float, low: float, high: float, *, scale: float) -> Bar:
    """Return a bar with the interval of a rate as its line, and the rate as its dot."""
    return Bar((_x(0, scale), _x(scale, scale)), (_x(low, scale), _x(high, scale)), _x(rate, scale))


def share_bar(share: float, *, scale: float) -> Bar:
    """Return a bar whose line begins at 0."""
    return Bar((_x(0, scale), _x(scale, scale)), (_x(0, scale), _x(share, scale)), None)


def _x(share: float, scale: float) -> float:
    return round(_BAR_MARGIN + (_BAR_WIDTH - 2 * _BAR_MARGIN) * min(share / scale, 1.0), 1)


def plot_figure(draw: Callable[[Axes], object], *, name: str, alt: str, height: float) -> Figure:
    """Plot a figure for the page.

    Parameters
    ----------
    draw
        Called with the axes to draw on; their style is matplotlib's default, not the caller's.
    name
        The beginning of the ids in the SVG, unique on the page.
    alt
        What the figure shows, in words.
    height
        Inches; it is 9 wide.

    Returns
    -------
    Figure
        The figure.
    """
    return Figure(_page_svg(_plot_svg(draw, height), name=name, alt=alt), alt)


def _plot_svg(draw: Callable[[Axes], object], height: float) -> str:
    """Return a plot as matplotlib writes it: texts as texts, and the same bytes for the same input."""
    # Heavy, and needed only when drawing; pyplot is left alone, which is the caller's.
    from matplotlib import figure as mpl_figure  # noqa: PLC0415
    from matplotlib import style  # noqa: PLC0415

    renderer_class, canvas_class = _svg_backend()
    sink = io.StringIO()
    settings = {"svg.fonttype": "none", "svg.hashsalt": "qoderdata", "figure.dpi": _POINTS}
    with style.context(["default", settings]), text_as_text():
        figure = mpl_figure.Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
        renderer = renderer_class(_WIDTH_INCHES * _POINTS, height * _POINTS, sink, _POINTS)
        canvas_class(figure).renderer = renderer
        axes = figure.add_subplot()
        draw(axes)
        axes.set_title("")  # the page's headings say it
        figure.draw(renderer)
        renderer.finalize()
    return sink.getvalue()


@cache
def _svg_backend() -> tuple[Any, Any]:
    """Return a renderer that measures what it has no glyph for, and a canvas whose layout uses it."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG, RendererSVG  # noqa: PLC0415 - heavy

    class Renderer(RendererSVG):
        def get_text_width_height_descent(self, s: str, prop: Any, ismath: Any) -> Any:  # noqa: ANN401 - matplotlib's
            return super().get_text_width_height_descent(_measurable(s), prop, ismath)  # type: ignore[no-untyped-call]  # matplotlib's

    class Canvas(FigureCanvasSVG):
        renderer: Any = None

        def get_renderer(self) -> Any:  # noqa: ANN401 - matplotlib's
            return self.renderer

    return Renderer, Canvas


def _measurable(text: str) -> str:
    """Replace each character that matplotlib's own font lacks by one that is about as wide."""
    known = _known_characters()
    return "".join(
        character if character in known else ("", "n", "W")[min(display_width(character), 2)] for character in text
    )


@cache
def _known_characters() -> frozenset[str]:
    return frozenset(map(chr, glyphs("DejaVu Sans").tolist()))


def _page_svg(source: str, *, name: str, alt: str) -> Markup:
    """Rewrite matplotlib's SVG for the page: known elements and attributes only, classes for colors."""
    root = ET.fromstring(source)  # noqa: S314 - written by matplotlib just now
    paths = {path.get("id"): path for path in root.iter(f"{_SVG}path") if path.get("id")}
    shapes = {identifier: path.get("d", "") for identifier, path in paths.items() if identifier}
    used = {f"{use.get(_LINK, '')[1:]}" for use in root.iter(f"{_SVG}use")}
    used.update(
        found for element in root.iter() for found in _REFERENCE.findall(" ".join(element.attrib.values()))
    )
    writer = _Writer(name, frozenset(used), shapes)
    body = "".join(writer.elements(root))
    opening = Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(root.get("viewBox", ""), alt)
    return opening + Markup(body) + Markup("</svg>")  # noqa: S704 - `_Writer` has escaped it


class _Writer:
    """Write elements of matplotlib's SVG as elements of the page."""

    def __init__(self, name: str, used: frozenset[str], shapes: Mapping[str, str]) -> None:
        self._name = name
        self._used = used
        self._shapes = shapes

    def elements(self, parent: ET.Element) -> Iterator[str]:
        """Write the children of an element; marks that are upright lines become one path."""
        marks: dict[tuple[str, str], dict[str, None]] = {}
        for child in parent:
            shape = _UPRIGHT.fullmatch(self._shapes.get(child.get(_LINK, "")[1:], ""))
            if child.tag == f"{_SVG}use" and shape:
                x, y = round(2 * float(child.get("x", 0))) / 2, float(child.get("y", 0))
                ends = sorted(y + float(end) for end in shape.groups())
                marks.setdefault((child.get("style", ""), ""), {})[f"M{x:g} {ends[0]:.1f}V{ends[1]:.1f}"] = None
            else:
                yield self._element(child)
        for (style, _), parts in marks.items():
            yield f'<path d="{"".join(parts)}"{self._attributes({"style": style})}/>'

    def _element(self, element: ET.Element) -> str:
        tag = element.tag.removeprefix(_SVG)
        if tag not in _ELEMENTS:
            return ""
        inner = "".join(self.elements(element)) + (str(escape(element.text)) if tag == "text" else "")
        if not inner and tag in {"g", "defs", "text"}:
            return ""
        attributes = self._attributes(element.attrib)
        if tag == "g" and not attributes:
            return inner
        return f"<{tag}{attributes}>{inner}</{tag}>" if inner else f"<{tag}{attributes}/>"

    def _attributes(self, given: Mapping[str, str]) -> str:
        attributes: dict[str, str] = {}
        classes: list[str] = []
        for key, value in given.items():
            if key == "style":
                self._style(value, attributes, classes)
            elif key == "id" and value in self._used:
                attributes["id"] = f"{self._name}-{value}"
            elif key == _LINK:
                attributes["href"] = f"#{self._name}-{value[1:]}"
            elif key in _ATTRIBUTES:
                attributes[key] = self._value(value)
        if classes:
            attributes["class"] = " ".join(classes)
        return "".join(f' {key}="{escape(value)}"' for key, value in attributes.items())

    def _style(self, text: str, attributes: dict[str, str], classes: list[str]) -> None:
        for declaration in text.split(";"):
            key, _, value = (part.strip() for part in declaration.partition(":"))
            level = _heat_levels().get(value)
            if value in _COLOR_NAMES:
                classes.append(f"{key}-{_COLOR_NAMES[value]}")
            elif level is not None:
                classes.append(f"{key}-heat")
                attributes[f"{key}-opacity"] = level
            elif key in _STYLES:
                attributes[key] = self._value(value)

    def _value(self, value: str) -> str:
        value = _REFERENCE.sub(lambda found: f"url(#{self._name}-{found[1]})", value)
        return _NUMBER.sub(
            lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), " ".join(value.split())
        )


@cache
def _heat_levels() -> dict[str, str]:
    """Return how much of the heat color stands for each color of the load's color map."""
    from matplotlib import colormaps  # noqa: PLC0415 - heavy, and needed only when drawing
    from matplotlib.colors import to_hex  # noqa: PLC0415 - as above

    colors = colormaps[palette.HEAT_COLORS]
    return {to_hex(colors(step)): f"{step / 255:.2f}" for step in range(256) if to_hex(colors(step)) != "#ffffff"}
