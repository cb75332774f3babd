"""Small drawings beside numbers: a rate and its interval as a dot on a line, in the page's own colours."""

from __future__ import annotations

import math

from qoderdata.report.markup import Markup, element

_WIDTH, _MIDDLE, _MARGIN = 128, 7, 6


def scale_for(highest: float) -> float:
    """Give the end of a scale that holds the highest value: a whole tenth, at most 1."""
    return min(1.0, max(0.1, math.ceil(10 * highest) / 10))


def interval_bar(rate: float, low: float, high: float, *, scale: float) -> Markup:
    """Draw a rate and its interval; the numbers stand beside it, so it is silent for screen readers.

    Parameters
    ----------
    rate, low, high
        The rate and the ends of its interval, between 0 and 1.
    scale
        The value at the right end of the line.

    Returns
    -------
    Markup
        An ``svg``.
    """
    dot = element("circle", cx=_at(rate, scale), cy=_MIDDLE, r=4)
    return _drawing(_line(0, scale, scale, "track"), _line(low, high, scale, "interval"), dot)


def share_bar(share: float, *, scale: float) -> Markup:
    """Draw a share as a line from 0; likewise silent.

    Parameters
    ----------
    share
        Between 0 and 1.
    scale
        The value at the right end of the line.

    Returns
    -------
    Markup
        An ``svg``.
    """
    return _drawing(_line(0, scale, scale, "track"), _line(0, share, scale, "share"))


def _drawing(*parts: Markup) -> Markup:
    size = {"width": _WIDTH, "height": 2 * _MIDDLE}
    return element("svg", *parts, viewBox=f"0 0 {_WIDTH} {2 * _MIDDLE}", class_="bar", aria_hidden="true", **size)


def _line(low: float, high: float, scale: float, look: str) -> Markup:
    return element("line", x1=_at(low, scale), x2=_at(high, scale), y1=_MIDDLE, y2=_MIDDLE, class_=look)


def _at(share: float, scale: float) -> str:
    return f"{_MARGIN + (_WIDTH - 2 * _MARGIN) * min(share / scale, 1.0):.1f}"
