"""Pictures for the page: what draws on axes becomes a PNG inside the page, with words for who cannot see it."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from qoderdata.report.markup import Markup, element

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

_WIDTH_INCHES = 9.0
_DOTS_PER_INCH = 180


def picture(draw: Callable[[Axes], object], *, alt: str, height: float) -> Markup:
    """Draw a picture into the page.

    It has matplotlib's own style, whatever the caller's is, and so a white ground; the page gives it a card.

    Parameters
    ----------
    draw
        Called with the axes to draw on.
    alt
        What the picture says, in words.
    height
        Inches; it is 9 wide.

    Returns
    -------
    Markup
        A ``figure``.
    """
    # Heavy, and needed only when a picture is drawn; pyplot is left alone, which is the caller's.
    from matplotlib import style  # noqa: PLC0415
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with style.context("default"):
        figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        draw(axes)
        axes.set_title("")  # the page's headings say it
        sink = io.BytesIO()
        figure.savefig(sink, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    data = base64.b64encode(sink.getvalue()).decode()
    width_pixels, height_pixels = (round(96 * inches) for inches in (_WIDTH_INCHES, height))
    image = element(
        "img",
        src=f"data:image/png;base64,{data}",
        alt=alt,
        width=width_pixels,
        height=height_pixels,
    )
    return element("figure", element("div", image, class_="card scroll", tabindex=0, role="group", aria_label=alt))
