"""The Wilson score interval of a rate, as columns of a frame of any engine."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import narwhals as nw


def check_confidence(confidence: float) -> float:
    """Return a confidence level, or raise where it is none.

    Parameters
    ----------
    confidence
        How often intervals made this way hold the true rate, such as 0.95.

    Returns
    -------
    float
        The same number.

    Raises
    ------
    ValueError
        It is not between 0 and 1, both excluded.
    """
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence!r} must lie between 0 and 1, such as 0.95")
    return float(confidence)


def add_rate(frame: nw.LazyFrame[Any], hits: str, trials: str, *, confidence: float) -> nw.LazyFrame[Any]:
    """Add ``failure_rate``, ``ci_low`` and ``ci_high``; missing where there was no trial.

    With k hits in n trials and z the two-sided normal quantile, the bounds are
    ``(2k + z^2 -+ z sqrt(z^2 + 4k(n - k)/n)) / (2(n + z^2))``: Wilson, E. B. (1927), "Probable inference,
    the law of succession, and statistical inference", J. Am. Stat. Assoc. 22, 209-212. The bounds are exact
    at the ends: no hit, then ``ci_low`` is 0; nothing but hits, then ``ci_high`` is 1.

    Parameters
    ----------
    frame
        One row a group.
    hits, trials
        Names of two integer columns, ``0 <= hits <= trials``.
    confidence
        How often intervals made this way hold the true rate.

    Returns
    -------
    narwhals.LazyFrame
        With three columns of 64-bit floats more.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    k, n, spread = nw.col("_k"), nw.col("_n"), nw.col("_spread")
    # No trial is computed as no hit in one trial, since engines differ in the result of a division by zero, and
    # pandas computes with what lies under a missing value.
    some = (nw.col(trials) > 0).fill_null(value=False)
    frame = frame.with_columns(
        nw.when(some).then(nw.col(hits)).otherwise(nw.lit(0)).cast(nw.Float64).alias("_k"),
        nw.when(some).then(nw.col(trials)).otherwise(nw.lit(1)).cast(nw.Float64).alias("_n"),
    )
    frame = frame.with_columns(((z * z + 4 * k * (n - k) / n).sqrt() * z).alias("_spread"))
    low = (2 * k + z * z - spread) / (2 * (n + z * z))
    high = (2 * k + z * z + spread) / (2 * (n + z * z))
    frame = frame.with_columns(
        (k / n).alias("failure_rate"),
        nw.when(k <= 0).then(n * 0.0).otherwise(low).alias("ci_low"),
        nw.when(k >= n).then(n * 0.0 + 1.0).otherwise(high).alias("ci_high"),
    )
    names = ("failure_rate", "ci_low", "ci_high")
    return frame.with_columns(*(nw.when(some).then(nw.col(name)).alias(name) for name in names))
