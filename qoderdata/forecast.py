"""What the coming triggers will cost, in credits."""

from __future__ import annotations

import functools
import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import narwhals as nw
import numpy as np
import pandas as pd

from qoderdata.frame_checks import require_frame, require_unique_deployments
from qoderdata.outcomes import RUNNING_SESSIONS, open_frame
from qoderdata.summaries.dataframe_engines import open_source
from qoderdata.summaries.wilson import check_confidence
from qoderdata.timelines.upcoming_triggers import trigger_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qoderdata.arguments import Instant, Span

_FORECAST = {
    "triggers": "Int64",
    **dict.fromkeys(("expected", "low", "high"), "float64"),
    "sessions": "Int64",
    "budget_use": "float64",
    "unknown": "Int64",
}
#: What a quotient of floats may lack to a whole number.
_ROUNDING = 1e-6
#: With more degrees of freedom than this, four terms are exact to about ten digits.
_MANY_DEGREES = 500


def cost_forecast(
    df: pd.DataFrame,
    sessions: pd.DataFrame,
    horizon: Span = "30D",
    *,
    by: str | Sequence[str] | None = "deployment_id",
    start: Instant | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Forecast the credits of the triggers in ``[start, start + horizon)``.

    A deployment's triggers (m, as `next_triggers` returns them) times the mean credits of its known sessions. With
    their number n, mean and standard deviation s, the prediction interval of the sum is
    ``m mean -+ t s sqrt(m + m^2 / n)``, t being the quantile of Student's t with n - 1 degrees of freedom. For a
    group of deployments, the expected credits and the variances ``v = s^2 (m + m^2 / n)`` add up; the degrees of
    freedom are then ``(sum v)^2 / sum(v^2 / (n - 1))``, rounded down (Satterthwaite 1946).

    The interval assumes that credits are independent and moderately skewed. In simulations at 95 %, with credits
    that are gamma (shape 2) or log-normal (sigma 0.5), it contains the true sum in 92 to 95 % of cases for 20
    sessions or more, in about 91 % for 5 sessions, and in about 90 % for a group in which a deployment with 2
    sessions costs most. It is too narrow for strongly skewed credits: with 20 sessions and several triggers, 77 to
    88 % of cases if they are log-normal (sigma 1.5), and less than half for a hundred triggers or more if one
    session in a hundred costs fifty times as much. It is wrong if credits change over time: a deployment that
    became more expensive will cost more than its earlier sessions show. Each trigger is assumed to start one
    session. If several triggers share one (``session_strategy`` is ``reuse``), or runs are retried or started by
    hand, the sum differs.

    Parameters
    ----------
    df
        A deployments frame.
    sessions
        A sessions frame, with those of these deployments. Each session counts once, by its last row; those
        without usage are not known, and do not count. Nor do those that still run, if the frame has ``status``.
    horizon
        How far to look: a length of time with a unit, such as ``"30D"``.
    by
        A column of `df`, a list of columns, or ``None`` for all deployments together; ``"deployment_id"`` is each
        deployment. A missing key is a group of its own. `with_names` adds columns such as ``metadata_team``.
    start
        From when, zone-aware; ``None`` is now.
    confidence
        The share of such intervals that contain the true sum.

    Returns
    -------
    pandas.DataFrame
        One row per group with a deployment that fires in that time, the most expensive first, those without a
        known session last, then by key. The keys are the index; if `by` is an id and the frame has the column of
        its names, the first column is ``name``. ``low`` and ``high`` of rows cannot be added: ``by=None`` gives
        the interval of the total. ``attrs["triggers_without_credits"]`` is the sum of ``unknown``. Nothing fires:
        no rows.

        ============== ======= ================================================================================
        ``triggers``   Int64   in the horizon
        ``expected``   float64 credits of those that are not ``unknown``; NaN if all are
        ``low``        float64 the lower bound of the interval, at least 0; NaN if a deployment has only one known
                               session, or none has any
        ``high``       float64 the upper bound; NaN likewise
        ``sessions``   Int64   known sessions (n)
        ``budget_use`` float64 the 95th percentile of their credits over ``budget_max_credit_cost``, of a group
                               the highest; NaN without a budget above 0
        ``unknown``    Int64   triggers of deployments without a known session
        ============== ======= ================================================================================

    Raises
    ------
    ValueError
        A parameter is not valid, or an id is in `df` twice.
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
    >>> qd.cost_forecast(df, sessions, by=None, start="2026-06-15T00:00Z")[["triggers", "expected", "unknown"]]
       triggers  expected  unknown
    0        30      45.0        0
    """
    confidence = check_confidence(confidence)
    df = require_frame(df, ["id", "name"], what="deployments", optional=["budget_max_credit_cost"])
    wanted = ["id", "deployment_id", "usage_total_credits"]
    sessions = require_frame(sessions, wanted, what="sessions", optional=["status"])
    require_unique_deployments(df)
    named = df.assign(deployment_id=df["id"], deployment_name=df["name"])
    source = open_source(named, by, results=["name", *_FORECAST], wanted=["id"], what="deployments")
    figures = _figures(df, sessions, trigger_counts(df, horizon, start=start))
    rows = source.frame.join(open_frame(figures.reset_index()).lazy(), on="id")
    sums = (nw.col("expected", "_variance", "_squares").sum(), nw.col("budget_use").max())
    dtypes = {str(name): dtype for name, dtype in figures.dtypes.items()}
    counts = [name for name, dtype in dtypes.items() if dtype == "Int64"]
    grouped = source.group(rows, *sums, sums=counts)
    expected = nw.when(nw.col("unknown") < nw.col("triggers")).then(nw.col("expected"))
    totals = source.finalize(grouped.with_columns(expected), dtypes=dtypes, order={"expected": True})
    result = _add_interval(totals, confidence)[[*source.names, *_FORECAST]].astype(_FORECAST)
    result.attrs = {"triggers_without_credits": int(result["unknown"].sum())}
    return result


def _figures(df: pd.DataFrame, sessions: pd.DataFrame, triggers: pd.Series[int]) -> pd.DataFrame:
    """Return what groups add up, by deployment: the figures of a forecast, and the parts of its interval."""
    last = sessions.drop_duplicates("id", keep="last").reset_index(drop=True)
    if "status" in last:
        last = last[~last["status"].isin(RUNNING_SESSIONS)]
    usage = last.groupby("deployment_id", observed=True)["usage_total_credits"]

    def known(values: pd.Series[Any]) -> pd.Series[float]:
        return values.reindex(triggers.index).astype("float64")

    count, fires = known(usage.count()).fillna(0.0), triggers.astype("float64")
    variance = (known(usage.var()) * (fires + fires**2 / count)).fillna(0.0)
    budget = known(df.set_index("id").get("budget_max_credit_cost", pd.Series(dtype="float64")))
    figures = {
        "triggers": triggers,
        "expected": fires * known(usage.mean()),
        "sessions": count.astype("Int64"),
        "budget_use": known(usage.quantile(0.95)) / budget.where(budget > 0),
        "unknown": triggers.where(count == 0, 0),
        "_variance": variance,
        "_squares": variance**2 / (count - 1).clip(lower=1),
        "_known_once": (count == 1).astype("Int64"),
    }
    return pd.DataFrame(figures).rename_axis("id")


def _add_interval(sums: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Add the interval of each group, where no deployment has only one known session."""
    degrees = (sums["_variance"] ** 2 / sums["_squares"]).fillna(1.0)  # without any variance, all degrees give 0
    t = np.array([_t_quantile(int(number + _ROUNDING), confidence) for number in degrees], dtype="float64")
    spread = (t * sums["_variance"] ** 0.5).where(sums["_known_once"] == 0)
    return sums.assign(low=(sums["expected"] - spread).clip(lower=0), high=sums["expected"] + spread)


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
