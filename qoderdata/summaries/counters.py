"""Compute rates from lifetime counters, fill in counters that are missing, and compare counters with runs."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import narwhals as nw
import pandas as pd

from qoderdata import errors
from qoderdata.formatting import MISSING, first_few
from qoderdata.frame_checks import TEXT, require_frame
from qoderdata.frames import is_in
from qoderdata.summaries import dataframe_engines as engines
from qoderdata.summaries import wilson
from qoderdata.summaries.run_rates import failure_streaks, run_failure_rates, warn_of_unknown
from qoderdata.translation import gettext as _
from qoderdata.translation import ngettext

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narwhals.typing import IntoFrameT

_TOTALS = ("total_runs", "total_failures")
#: Counters are summed in two parts, so that no sum leaves 64 bits: engines wrap below zero, or fail.
_PART = 2**31
_INT64_END = 2.0**63

_LIFETIME = {
    **dict.fromkeys(("deployments", *_TOTALS), "Int64"),
    **dict.fromkeys(("failure_rate", "ci_low", "ci_high"), "float64"),
    **dict.fromkeys(("consecutive_failures", "failing", "never_run"), "Int64"),
}

#: Each counter, with the figure of the runs that it should equal.
_COUNTERS = {
    "stats_total_runs": "runs",
    "stats_total_failures": "failed",
    "stats_consecutive_failures": "current_streak",
}
_LAST = "stats_last_triggered_at"
_COMPARED: dict[str, Any] = {
    **dict.fromkeys(("deployment_id", "name", "figure"), TEXT),
    **dict.fromkeys(("counter", "listed"), "Int64"),
}


def failure_rates(
    df: IntoFrameT, by: str | Sequence[str] | None = "id", *, confidence: float = 0.95
) -> IntoFrameT:
    """Compute how often deployments failed, from the service's lifetime counters.

    The rate is ``total_failures / total_runs``, and missing without runs. A deployment that lacks one of the two
    counters is left out of both sums; one without counters only counts in ``deployments``. Impossible counters
    (negative, or more failures than runs) give no rate and are left out of sums. A total beyond the range of 64
    bits is missing.

    Parameters
    ----------
    df
        A deployments frame, of pandas or any engine that narwhals knows.
    by
        ``"id"`` for one row per deployment; a column or a list of columns to add up the counters of deployments
        that have the same values (a missing key is a group of its own); ``None`` for one row for all.
    confidence
        The share of such intervals that contain the true rate.

    Returns
    -------
    frame
        One row per group, worst first: by ``failure_rate``, then ``total_failures``, both descending, missing
        last, then by key. On pandas the keys are the index; on other engines they are the first columns, and
        lazy frames stay lazy. With ``by="id"`` the first column is ``name``, as it is for ``by="agent_id"`` and
        ``by="environment_id"`` if `df` has their names (see `with_names`); of several ids, ``agent_name`` and
        ``environment_name`` come first. An empty frame gives no rows.

        =========================== ========= ==========================================================
        ``deployments``             Int64     the number of deployments
        ``total_runs``              Int64     missing if no deployment has counters
        ``total_failures``          Int64     missing if no deployment has counters
        ``failure_rate``            float64   between 0 and 1; NaN (null elsewhere) if nothing ran
        ``ci_low``, ``ci_high``     float64   Wilson score interval of the rate
        ``consecutive_failures``    Int64     the longest current streak
        ``failing``                 Int64     the number of deployments with a current streak
        ``never_run``               Int64     the number of deployments with both counters that never ran
        =========================== ========= ==========================================================

    Raises
    ------
    ValueError
        ``by`` or ``confidence`` is not valid.
    FrameTypeError
        Not a frame, or a column that has lost its dtype; the message says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.

    Warns
    -----
    DataQualityWarning
        No deployment has any counter, as in the newest edition of the service: `fill_counters` counts runs
        instead. Or counters are impossible (the warning has the first ids), or totals are beyond 64 bits, or a
        group of a pandas frame has an ``id`` more than once: each row counts. There are no warnings for lazy
        frames, which are not read here.

    Notes
    -----
    The interval: Wilson, E. B. (1927), "Probable inference, the law of succession, and statistical
    inference", J. Am. Stat. Assoc. 22, 209-212.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> df = pd.DataFrame({
    ...     "id": ["dep_1", "dep_2"], "name": ["nightly", "hourly"], "stats_total_runs": [10, 0],
    ...     "stats_total_failures": [2, 0], "stats_consecutive_failures": [1, 0],
    ... })
    >>> qd.failure_rates(df)[["name", "failure_rate", "ci_low", "ci_high"]].round(3)
              name  failure_rate  ci_low  ci_high
    id
    dep_1  nightly           0.2   0.057     0.51
    dep_2   hourly           NaN     NaN      NaN
    """
    confidence = wilson.check_confidence(confidence)
    is_by_id = engines.group_keys(by, results=_LIFETIME) == ["id"]
    wanted = [*_COUNTERS, "name"] if is_by_id else [*_COUNTERS]
    source = engines.open_source(df, by, results=_LIFETIME, wanted=wanted, what="deployments", optional=["id"])

    runs, failures, streak = (nw.col(name) for name in _COUNTERS)
    impossible = (runs < 0) | (failures < 0) | (failures > runs) | (streak < 0)
    rows = source.frame.with_columns(engines.flag(impossible).alias("_impossible"))
    possible = nw.col("_impossible") == 0
    known = possible & ~runs.is_null() & ~failures.is_null()
    rows = rows.with_columns(
        nw.lit(1).alias("deployments"),
        engines.flag(known).alias("_known"),
        nw.when(known).then(runs).alias("total_runs"),
        nw.when(known).then(failures).alias("total_failures"),
        nw.when(possible).then(streak).alias("consecutive_failures"),
        engines.flag(possible & (streak > 0)).alias("failing"),
        engines.flag(known & (runs == 0)).alias("never_run"),
    )
    if source.eager:
        _warn_of_no_counters(rows)
        _warn_of_impossible(rows)
        _warn_of_overflow(rows, source)
    rows = rows.with_columns(*_split_counter("total_runs"), *_split_counter("total_failures"))
    sums = ["deployments", "_known", "failing", "never_run"]
    sums += [f"{total}_{part}" for total in _TOTALS for part in ("high", "low")]
    grouped = source.group(rows, nw.col("consecutive_failures").max(), sums=sums)

    def finish(frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        carried = (_upper_part(name).alias(f"{name}_high") for name in _TOTALS)
        # If no counters are known, the sum is missing, not zero.
        totals = (nw.when(nw.col("_known") > 0).then(_joined_parts(name)).alias(name) for name in _TOTALS)
        frame = frame.with_columns(*carried).with_columns(*totals)
        return wilson.add_rate(frame, "total_failures", "total_runs", confidence=confidence)

    worst_first = {"failure_rate": True, "total_failures": True}
    return source.finalize(grouped, finish, dtypes=_LIFETIME, order=worst_first)


def _warn_of_no_counters(rows: nw.LazyFrame[Any]) -> None:
    counts = rows.select(nw.len().alias("rows"), nw.col(*_COUNTERS).count()).collect()
    if counts["rows"].item() and not any(counts[name].item() for name in _COUNTERS):
        errors.warn(
            _(
                "no deployment has counters, so there are no rates: the newest edition of the service gives none. "
                "Count runs instead, with failure_rates(fill_counters(df, load_runs()))"
            ),
            errors.DataQualityWarning,
        )


def _warn_of_impossible(rows: nw.LazyFrame[Any]) -> None:
    found = rows.filter(nw.col("_impossible") == 1).collect()
    if found.is_empty():
        return
    ids = found["id"].to_list() if "id" in found.columns else []
    errors.warn(
        ngettext(
            "{count} deployment has impossible counters (negative, or more failures than runs); it gets no rate "
            "and is left out of sums: {ids}",
            "{count} deployments have impossible counters (negative, or more failures than runs); they get no "
            "rate and are left out of sums: {ids}",
            len(found),
            ids=first_few(ids) or MISSING,
        ),
        errors.DataQualityWarning,
    )


def _warn_of_overflow(rows: nw.LazyFrame[Any], source: engines.Source[Any]) -> None:
    total = nw.col("_total")
    totals = rows.with_columns(nw.col("total_runs").cast(nw.Float64).alias("_total"))
    grouped = source.group(totals, total.sum(), sums=["deployments"])
    too_large = grouped.filter(total >= _INT64_END).collect()
    if not too_large.is_empty():
        errors.warn(
            ngettext(
                "the counters of {count} group add up to more than 64 bits can hold; its totals and rates are "
                "missing. A counter is wrong: look for the largest stats_total_runs",
                "the counters of {count} groups add up to more than 64 bits can hold; their totals and rates are "
                "missing. A counter is wrong: look for the largest stats_total_runs",
                len(too_large),
            ),
            errors.DataQualityWarning,
        )


def _split_counter(name: str) -> list[nw.Expr]:
    """Return a counter in two parts that can be summed; the division has no remainder, as Spark divides floats."""
    counter = nw.col(name).fill_null(0).cast(nw.Int64)
    low = counter % _PART
    return [((counter - low) // _PART).cast(nw.Int64).alias(f"{name}_high"), low.alias(f"{name}_low")]


def _upper_part(name: str) -> nw.Expr:
    """Return the upper part of a sum, with the carry of the lower part; missing beyond 64 bits."""
    low = nw.col(f"{name}_low")
    high = nw.col(f"{name}_high") + ((low - low % _PART) // _PART).cast(nw.Int64)
    return nw.when(high < 2 * _PART).then(high)


def _joined_parts(name: str) -> nw.Expr:
    return nw.col(f"{name}_high") * _PART + nw.col(f"{name}_low") % _PART


def fill_counters(df: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return the deployments with the counters that the service does not give, counted in their runs.

    The newest edition of the service has no lifetime counters. They are counted in `runs`, so they go back no
    further than `runs`, and depend on its ``status``: resolve the runs first, as `load_runs` does. With them,
    `failure_rates` divides the failed runs by all runs, including skipped and unfinished ones and those whose
    outcome is not known. The rate of `run_failure_rates` is higher, as it divides by decided runs.

    Parameters
    ----------
    df
        A deployments frame, as `load_deployments` returns it: its columns ``id``, ``stats_total_runs``,
        ``stats_total_failures``, ``stats_consecutive_failures`` and ``stats_last_triggered_at``.
    runs
        A runs frame, as `load_runs` returns it: its columns ``id``, ``deployment_id``, ``status``,
        ``triggered_at`` and ``duration_ms``, and ``created_at`` and ``status_from`` if it has them.

    Returns
    -------
    pandas.DataFrame
        A copy of `df` with the same rows, index and columns. A deployment with any of the three numbers keeps all
        of its counters as they are. For the others these are filled:

        ============================== =================== ====================================================
        ``stats_total_runs``           Int64               its runs, of any status; 0 if `runs` has none, even if
                                                           it ran earlier
        ``stats_total_failures``       Int64               its failed runs; missing if it has runs, and the
                                                           outcome of none of them is known
        ``stats_consecutive_failures`` Int64               its current streak, as `failure_streaks` counts it;
                                                           missing as above
        ``stats_last_triggered_at``    datetime64[us, UTC] if it is missing, the last ``triggered_at``, if any
        ============================== =================== ====================================================

        If a counter is filled, ``attrs["counted_since"]`` is the first ``triggered_at`` in `runs` as ISO 8601
        text, or ``None`` if no run has a time. ``counted_runs`` in ``attrs`` is how many runs were counted,
        ``counted_unknown`` how many of them have an unknown outcome, and ``counted_assumed`` how many are assumed
        to have completed.

    Raises
    ------
    FrameTypeError
        Not a pandas frame, or a column that has lost its dtype; the message says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.

    Warns
    -----
    DataQualityWarning
        A run's ``id`` is in `runs` more than once: each row counts.
    UnknownOutcomesWarning
        The outcome of more than 5 % of the counted runs is not known. The warning says of how many, and how many
        are assumed to have completed.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> df = qd.flatten_deployments([{"id": "dep_1", "name": "nightly"}, {"id": "dep_2", "name": "hourly"}])
    >>> runs = pd.DataFrame({
    ...     "id": ["drun_2", "drun_1"], "deployment_id": "dep_1", "status": ["failed", "completed"],
    ...     "triggered_at": pd.to_datetime(["2026-06-15T02:00Z", "2026-06-15T01:00Z"]),
    ...     "duration_ms": [9000, 7000],
    ... })
    >>> counted = qd.fill_counters(df, runs)
    >>> counted[["id", "stats_total_runs", "stats_total_failures"]]
          id  stats_total_runs  stats_total_failures
    0  dep_1                 2                     1
    1  dep_2                 0                     0
    >>> counted.attrs["counted_since"]
    '2026-06-15T01:00:00+00:00'
    """
    deployments = require_frame(df, ["id", *_COUNTERS, _LAST], what="deployments")
    wanted = ["id", "deployment_id", "status", "triggered_at", "duration_ms"]
    optional = ["created_at", "status_from"]
    runs = require_frame(runs, wanted, what="runs", optional=optional)
    runs = runs[wanted + [name for name in optional if name in runs.columns]].reset_index(drop=True)
    result = deployments.copy()
    uncounted = deployments[list(_COUNTERS)].isna().all(axis=1)
    if not uncounted.any():
        return result
    counts = _counts(runs)
    ids = deployments.loc[uncounted, "id"]
    counts = counts[is_in(counts.index, ids)]
    sums = {name: int(counts[name].sum()) for name in ("runs", "unknown", "assumed")}
    warn_of_unknown(
        sums,
        runs,
        consequence="rates of deployments are too low, and groups leave out deployments without a known outcome",
    )
    counts.loc[counts["unknown"] == counts["runs"], ["failed", "current_streak"]] = pd.NA
    for column, figure in _COUNTERS.items():
        filled = counts[figure].reindex(ids, fill_value=0).array
        result[column] = result[column].astype("Int64")
        result.loc[uncounted, column] = filled
    times = runs["triggered_at"].astype("datetime64[us, UTC]").groupby(runs["deployment_id"]).max()
    last = times.reindex(result["id"]).set_axis(result.index)
    result[_LAST] = result[_LAST].astype(last.dtype).where(~uncounted | result[_LAST].notna(), last)
    first = runs["triggered_at"].min()
    result.attrs["counted_since"] = None if pd.isna(first) else first.isoformat()
    result.attrs |= {f"counted_{name}": count for name, count in sums.items()}
    return result


def _counts(runs: pd.DataFrame) -> pd.DataFrame:
    """Return what `run_failure_rates` counts of each deployment, and its current streak."""
    with warnings.catch_warnings(action="ignore", category=errors.UnknownOutcomesWarning):
        return run_failure_rates(runs).join(failure_streaks(runs)["current_streak"])


def consistency(df: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Compare the service's lifetime counters with the runs that it lists.

    ``total_runs`` is compared with the number of listed runs of the deployment, whatever their status,
    ``total_failures`` with the failed ones, ``consecutive_failures`` with the current streak of `failure_streaks`.
    A missing counter is not compared; runs of deployments that are not in `df` (such as archived ones) are
    ignored. If `runs` covers only a part of the time, or the service has deleted runs since, the result has
    differences.

    Parameters
    ----------
    df
        A deployments frame, pandas.
    runs
        All runs of these deployments, pandas.

    Returns
    -------
    pandas.DataFrame
        One row per counter that differs, in the order of `df`; no rows if all are equal. Columns:
        ``deployment_id``, ``name``, ``figure`` (``"total_runs"``, ``"total_failures"`` or
        ``"consecutive_failures"``), all ``str``; ``counter`` (the service's counter), ``listed`` (counted in
        `runs`) and ``difference`` (``counter - listed``), all ``Int64``.

    Raises
    ------
    FrameTypeError
        Not a pandas frame, or a column that has lost its dtype; the message says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.

    Warns
    -----
    DataQualityWarning
        No deployment has any counter, as in the newest edition of the service, so nothing is compared. Or a
        run's ``id`` is in `runs` more than once: each row counts.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> df = pd.DataFrame({
    ...     "id": ["dep_1"], "name": ["nightly"], "stats_total_runs": [3],
    ...     "stats_total_failures": [1], "stats_consecutive_failures": [1],
    ... })
    >>> runs = pd.DataFrame({
    ...     "id": ["r1", "r2"], "deployment_id": "dep_1", "status": ["completed", "failed"],
    ...     "triggered_at": pd.to_datetime(["2026-06-15T00:00Z", "2026-06-16T00:00Z"]), "duration_ms": [5, 5],
    ... })
    >>> qd.consistency(df, runs)[["deployment_id", "figure", "counter", "listed", "difference"]]
      deployment_id      figure  counter  listed  difference
    0         dep_1  total_runs        3       2           1
    """
    df = require_frame(df, ["id", "name", *_COUNTERS], what="deployments")
    runs = require_frame(runs, ["id", "deployment_id"], what="runs")
    if len(df) and df[list(_COUNTERS)].isna().all(axis=None):
        errors.warn(
            "no deployment has counters, so there is nothing to compare: the newest edition of the service gives "
            "none",
            errors.DataQualityWarning,
        )
    listed = _counts(runs)[list(_COUNTERS.values())].reindex(df["id"], fill_value=0)
    given = df[["id", "name", *_COUNTERS]].reset_index(drop=True).rename(columns={"id": "deployment_id"})
    compared = given.melt(["deployment_id", "name"], var_name="figure", value_name="counter", ignore_index=False)
    compared["figure"] = compared["figure"].str.removeprefix("stats_")
    # Both are in the order of `_COUNTERS` and of `df`.
    compared["listed"] = listed.melt()["value"].array
    compared = compared.astype(_COMPARED).sort_index(kind="stable")
    compared["difference"] = compared["counter"] - compared["listed"]
    return compared[compared["difference"] != 0].reset_index(drop=True)
