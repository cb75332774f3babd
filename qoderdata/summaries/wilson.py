"""Add the intervals of a rate, and of the difference of two rates, as columns to a frame of any engine."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import narwhals as nw

from qoderdata.arguments import check_number


def check_confidence(confidence: float) -> float:
    """Return a confidence level, such as 0.95, as a float; raise `ValueError` if it is not between 0 and 1."""
    must = "lie between 0 and 1, such as 0.95"
    check_number(confidence, lambda level: 0 < level < 1, name="confidence", must=must)
    return float(confidence)


def add_rate(
    frame: nw.LazyFrame[Any],
    hits: str,
    trials: str,
    *,
    confidence: float,
    names: tuple[str, str, str] = ("failure_rate", "ci_low", "ci_high"),
) -> nw.LazyFrame[Any]:
    """Add a rate of two integer columns and the bounds of its Wilson score interval; missing if there is no trial.

    With k hits in n trials and z the two-sided normal quantile, the bounds are ``(2k + z^2 -+ z sqrt(z^2 + 4k(n -
    k)/n)) / (2(n + z^2))``: Wilson, E. B. (1927), "Probable inference, the law of succession, and statistical
    inference", J. Am. Stat. Assoc. 22, 209-212. The bounds are exact at the ends: ``ci_low`` is 0 if there is no
    hit, and ``ci_high`` is 1 if all trials are hits.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    # Without trials, compute the rate of no hit in one trial: engines differ in the result of a division by zero,
    # and pandas computes with the values behind missing ones.
    some = (nw.col(trials) > 0).fill_null(value=False)
    frame = frame.with_columns(
        some.alias("_some"),
        nw.when(some).then(nw.col(hits)).otherwise(nw.lit(0)).cast(nw.Float64).alias("_k"),
        nw.when(some).then(nw.col(trials)).otherwise(nw.lit(1)).cast(nw.Float64).alias("_n"),
    )
    k, n, middle, spread, width = (nw.col(f"_{name}") for name in ("k", "n", "middle", "spread", "width"))
    frame = frame.with_columns(
        (2 * k + z * z).alias("_middle"),
        ((z * z + 4 * k * (n - k) / n).sqrt() * z).alias("_spread"),
        (2 * (n + z * z)).alias("_width"),
    )
    low = nw.when(k > 0).then((middle - spread) / width).otherwise(n * 0.0)
    high = nw.when(k < n).then((middle + spread) / width).otherwise(n * 0.0 + 1.0)
    values = zip((k / n, low, high), names, strict=True)
    return frame.with_columns(*(nw.when(nw.col("_some")).then(value).alias(name) for value, name in values))


def add_change(
    frame: nw.LazyFrame[Any], first: tuple[str, str, str], second: tuple[str, str, str]
) -> nw.LazyFrame[Any]:
    """Add ``change``, ``change_low`` and ``change_high``: the first rate minus the second, and its interval.

    The bounds are those of method 10 of Newcombe, R. G. (1998), "Interval estimation for the difference between
    independent proportions: comparison of eleven methods", Statistics in Medicine 17, 873-890: with rates p and
    the bounds l and u of their Wilson intervals, ``p1 - p2 - sqrt((p1 - l1)^2 + (u2 - p2)^2)`` and
    ``p1 - p2 + sqrt((u1 - p1)^2 + (p2 - l2)^2)``. They are missing if one of the rates is.

    `first` and `second` name the columns of a rate, its lower and its upper bound, as `add_rate` adds them.
    """
    (p1, low1, high1), (p2, low2, high2) = ([nw.col(name) for name in names] for names in (first, second))
    down = ((p1 - low1) * (p1 - low1) + (high2 - p2) * (high2 - p2)).sqrt()
    up = ((high1 - p1) * (high1 - p1) + (p2 - low2) * (p2 - low2)).sqrt()
    return frame.with_columns(
        (p1 - p2).alias("change"), (p1 - p2 - down).alias("change_low"), (p1 - p2 + up).alias("change_high")
    )
