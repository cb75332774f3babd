"""The Wilson score interval, as columns.

Owns how sure a rate is. Knows nothing of deployments or runs.
"""

from __future__ import annotations

from statistics import NormalDist

import narwhals as nw


def check_confidence(confidence: float) -> float:
    """Refuse a confidence level that is none.

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


def rate_with_interval(hits: str, trials: str, *, rate: str, confidence: float) -> list[nw.Expr]:
    """Give the columns `rate`, ``ci_low`` and ``ci_high``; missing where there was no trial.

    With k hits in n trials and z the two-sided normal quantile, the bounds are
    ``(2k + z^2 -+ z sqrt(z^2 + 4k(n - k)/n)) / (2(n + z^2))``: Wilson, E. B. (1927), "Probable inference,
    the law of succession, and statistical inference", J. Am. Stat. Assoc. 22, 209-212. The bounds are exact
    at the ends: no hit, then ``ci_low`` is 0; nothing but hits, then ``ci_high`` is 1.

    Parameters
    ----------
    hits, trials
        Names of two integer columns, ``0 <= hits <= trials``.
    rate
        Name of the column for ``hits / trials``.
    confidence
        Share of such intervals that hold the true rate.

    Returns
    -------
    list of narwhals.Expr
        Three columns of 64-bit floats.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    # Zero trials become missing before the division, since engines differ in what a division by zero gives.
    k = nw.col(hits).cast(nw.Float64)
    n = nw.when(nw.col(trials) > 0).then(nw.col(trials).cast(nw.Float64))
    centre = 2 * k + z * z
    spread = (z * z + 4 * k * (n - k) / n).sqrt() * z
    low = (centre - spread) / (2 * (n + z * z))
    high = (centre + spread) / (2 * (n + z * z))
    return [
        (k / n).alias(rate),
        _where(k <= 0, n * 0.0, low).alias("ci_low"),
        _where(k >= n, n * 0.0 + 1.0, high).alias("ci_high"),
    ]


def _where(condition: nw.Expr, yes: nw.Expr, no: nw.Expr) -> nw.Expr:
    return nw.when(condition).then(yes).otherwise(no)
