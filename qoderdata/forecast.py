"""What the coming triggers will cost, in credits."""

from __future__ import annotations

import functools
import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from qoderdata.frame_checks import TEXT, require_frame, require_unique_deployments
from qoderdata.outcomes import RUNNING_SESSIONS
from qoderdata.summaries.wilson import check_confidence
from qoderdata.timelines.upcoming_triggers import trigger_counts

if TYPE_CHECKING:
    from qoderdata.arguments import Instant, Span

_FORECAST: dict[str, Any] = {
    "name": TEXT,
    "triggers": "Int64",
    **dict.fromkeys(("expected", "low", "high"), "float64"),
    "sessions": "Int64",
    "budget_use": "float64",
}
#: With more degrees of freedom than this, four terms are exact to about ten digits.
_MANY_DEGREES = 500


def cost_forecast(
    df: pd.DataFrame,
    sessions: pd.DataFrame,
    horizon: Span = "30D",
    *,
    start: Instant | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Forecast the credits of the triggers in ``[start, start + horizon)``, per deployment.

    A deployment's triggers (m, as `next_triggers` returns them) times the mean credits of its known sessions. With
    their number n, mean and standard deviation s, the prediction interval of the sum is
    ``m mean -+ t s sqrt(m + m^2 / n)``, t being the quantile of Student's t with n - 1 degrees of freedom.

    The interval assumes that credits are independent and moderately skewed. In simulations at 95 %, the true
    sum lies within it 92 to 95 % of the time for 20 sessions and more of gamma (shape 2) or log-normal (sigma
    0.5) credits, and about 91 % for 5 sessions. It is too narrow for strongly skewed credits: 77 to 88 % for 20
    sessions of log-normal ones (sigma 1.5), and less than half of the time if one session in a hundred costs
    fifty times as much. It is wrong if credits change over time: a deployment that became more expensive will
    cost more than its earlier sessions show. Each trigger is assumed to start one session. If several triggers
    share one (``session_strategy`` is ``reuse``), or runs are retried or started by hand, the sum differs.

    Parameters
    ----------
    df
        A deployments frame.
    sessions
        A sessions frame, with those of these deployments. Each session counts once, by its last row; those
        without usage are not known, and do not count. Nor do those that still run, if the frame has ``status``.
    horizon
        How far to look: a length of time with a unit, such as ``"30D"``.
    start
        From when, zone-aware; ``None`` is now.
    confidence
        How often intervals made this way hold the true sum.

    Returns
    -------
    pandas.DataFrame
        One row per deployment that fires in that time, the most expensive first, those without a known session
        last, then by ``deployment_id``, which is the index. There is no total row: intervals cannot be added.
        ``attrs["triggers_without_credits"]`` is the number of triggers of deployments without a known session,
        whose cost is in no row. Nothing fires: no rows.

        ============== ======= ================================================================================
        ``name``       str     as in `df`
        ``triggers``   Int64   in the horizon
        ``expected``   float64 credits; NaN without a known session
        ``low``,       float64 the interval, `low` at least 0; NaN with less than two known sessions
        ``high``
        ``sessions``   Int64   known sessions (n)
        ``budget_use`` float64 the 95th percentile of their credits over ``budget_max_credit_cost``; NaN without
                               one above 0
        ============== ======= ================================================================================

    Raises
    ------
    ValueError
        A parameter makes no sense, or an id is in `df` twice.
    FrameTypeError
        Not a pandas frame, or a column that has lost its dtype; the message says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.

    Warns
    -----
    DataQualityWarning
        As `next_triggers` warns: of cron texts that cannot be read, and if the service's list disagrees.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> df = qd.flatten_deployments([{
    ...     "id": "dep_1", "name": "report", "status": "active",
    ...     "schedule": {"expression": "0 9 * * *", "timezone": "Asia/Shanghai"},
    ... }])
    >>> sessions = pd.DataFrame({
    ...     "id": ["sess_1", "sess_2", "sess_3"], "deployment_id": "dep_1", "usage_total_credits": [1.0, 2.0, 1.5],
    ... })
    >>> forecast = qd.cost_forecast(df, sessions, start="2026-06-15T00:00Z")
    >>> forecast[["name", "triggers", "expected", "low", "high"]].round(1)
                     name  triggers  expected  low  high
    deployment_id
    dep_1          report        30      45.0  5.9  84.1
    >>> forecast.attrs["triggers_without_credits"]
    0
    """
    confidence = check_confidence(confidence)
    df = require_frame(df, ["id", "name"], what="deployments", optional=["budget_max_credit_cost"])
    wanted = ["id", "deployment_id", "usage_total_credits"]
    sessions = require_frame(sessions, wanted, what="sessions", optional=["status"])
    require_unique_deployments(df)
    triggers = trigger_counts(df, horizon, start=start)

    last = sessions.drop_duplicates("id", keep="last").reset_index(drop=True)
    if "status" in last:
        last = last[~last["status"].isin(RUNNING_SESSIONS)]
    usage = last.groupby("deployment_id", observed=True)["usage_total_credits"]
    known = pd.DataFrame({
        "sessions": usage.count(),
        "mean": usage.mean(),
        "std": usage.std(),
        "p95": usage.quantile(0.95),
    }).reindex(triggers.index)  # fmt: skip
    count, fires = known["sessions"].fillna(0).astype("int64"), triggers.astype("float64")
    t = np.array([_t_quantile(n - 1, confidence) if n > 1 else math.nan for n in count], dtype="float64")
    spread = t * known["std"] * np.sqrt(fires + fires**2 / count.where(count > 0))
    expected = fires * known["mean"]
    by_id = df.set_index("id").reindex(triggers.index)
    budget = by_id.get("budget_max_credit_cost", pd.Series(math.nan, index=by_id.index))
    forecast = pd.DataFrame({
        "name": by_id["name"],
        "triggers": triggers,
        "expected": expected,
        "low": (expected - spread).clip(lower=0),
        "high": expected + spread,
        "sessions": count,
        "budget_use": known["p95"] / budget.where(budget > 0),
    }).astype(_FORECAST)  # fmt: skip
    forecast = forecast.sort_values("expected", ascending=False, kind="stable", na_position="last")
    forecast.attrs = {"triggers_without_credits": int(triggers[count == 0].sum())}
    return forecast


@functools.lru_cache(maxsize=4096)
def _t_quantile(degrees: int, confidence: float) -> float:
    """Return the value that the absolute value of Student's t does not exceed, with probability `confidence`.

    Abramowitz and Stegun 1964: a series for many degrees (26.7.5), a finite sum for few (26.7.3, 26.7.4).
    """
    if degrees > _MANY_DEGREES:
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        series = (
            z,
            (z**3 + z) / 4,
            (5 * z**5 + 16 * z**3 + 3 * z) / 96,
            (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
            (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
        )
        return math.fsum(term / float(degrees) ** power for power, term in enumerate(series))
    powers = np.arange(degrees % 2, degrees - 1, 2)
    factors = np.cumprod(np.concatenate(([1.0], (powers[:-1] + 1) / (powers[:-1] + 2))))[: powers.size]
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        angle = (low + high) / 2
        share = math.sin(angle) * float((factors * math.cos(angle) ** powers).sum())
        if degrees % 2:
            share = 2 / math.pi * (angle + share)
        low, high = (angle, high) if share < confidence else (low, angle)
    return math.sqrt(degrees) * math.tan((low + high) / 2)
