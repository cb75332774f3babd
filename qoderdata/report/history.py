"""The sections that runs make possible: trend, errors, missed triggers, what got slower."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from qoderdata.plots import plot_run_failure_rates
from qoderdata.report.bars import scale_for, share_bar
from qoderdata.report.failing import error
from qoderdata.report.markup import element
from qoderdata.report.page import Section
from qoderdata.report.pictures import picture
from qoderdata.report.tables import Column, nothing, records, sentence, table
from qoderdata.summaries import duration_regressions, error_breakdown, run_failure_rates
from qoderdata.words import interval, milliseconds, moment, percent

if TYPE_CHECKING:
    from qoderdata.report.material import Material

_SPAN = pd.Timedelta("30D")
_SHORT = pd.Timedelta("3D")
_TREND_INCHES = 4.2


def trend(material: Material, runs: pd.DataFrame) -> Section:
    """Show how the failure rate went, day by day, or hour by hour where there are few days."""
    recent = runs[(runs["triggered_at"] >= material.start - _SPAN) & (runs["triggered_at"] < material.start)]
    title = "The last 30 days"
    if recent.empty:
        return Section("trend", title, [nothing("There are no runs of the last 30 days.")])
    short = recent["triggered_at"].max() - recent["triggered_at"].min() < _SHORT
    rates = run_failure_rates(recent, by=None, freq="1h" if short else "1D", tz=material.tz)
    (all_,) = records(run_failure_rates(recent, by=None))
    each = "hour" if short else "day"
    known = rates.dropna(subset=["failure_rate"]).reset_index()
    worst = known.sort_values(["failure_rate", "window"], ascending=[False, True]).head(1)
    words = [
        f"the worst {each} is that of {moment(row.window, material.tz)} with {percent(row.failure_rate)} of "
        f"{row.completed + row.failed:,} decided runs"
        for row in records(worst)
    ]
    alt = (
        f"Line of the failure rate by {each} with its interval, and bars of the number of runs, over {len(rates)} "
        f"{each}s; {words[0] if words else 'no run has ended'}. All together: {percent(all_.failure_rate)}."
    )
    return Section(
        "trend",
        title,
        [
            sentence(
                f"{all_.failed:,} of {all_.completed + all_.failed:,} decided runs failed: ",
                element("strong", percent(all_.failure_rate)),
                f" (95 % interval {interval(all_.ci_low, all_.ci_high)}). {all_.skipped:,} were skipped and "
                f"{all_.unfinished:,} have not ended; they decide nothing. A success took "
                f"{milliseconds(all_.duration_p50_ms)} in the median, 95 of 100 took at most "
                f"{milliseconds(all_.duration_p95_ms)}.",
            ),
            picture(lambda ax: plot_run_failure_rates(rates, ax=ax), alt=alt, height=_TREND_INCHES),
        ],
    )


def errors(material: Material, runs: pd.DataFrame) -> Section:
    """Show what went wrong, by type of error."""
    found = error_breakdown(runs).reset_index()
    title = "Errors"
    if found.empty:
        return Section("errors", title, [nothing("No run has failed.")])
    scale = scale_for(found["share"].max())
    columns = [
        Column("Error", lambda row: error(row.error_type, None)),
        Column("Failed runs", lambda row: f"{row.failed_runs:,}", number=True),
        Column(
            "Share",
            lambda row: element(
                "span", share_bar(row.share, scale=scale), " ", percent(row.share), class_="range"
            ),
            note=f"0 to {100 * scale:.0f} %",
        ),
        Column("First seen", lambda row: material.time(row.first_seen)),
        Column("Last seen", lambda row: material.time(row.last_seen)),
    ]
    # `count` is a method of every named tuple.
    shown = found.rename(columns={"count": "failed_runs"})
    return Section(
        "errors",
        title,
        [
            sentence(
                f"Of all {len(runs):,} runs given, from {moment(runs['triggered_at'].min(), material.tz)} to "
                f"{moment(runs['triggered_at'].max(), material.tz)}."
            ),
            table(
                shown, columns, caption="Failed runs by type of error, most frequent first", rows="types of error"
            ),
        ],
        count=f"{len(found):,}",
    )


def missed(material: Material) -> Section:
    """Show what should have fired but did not, by deployment."""
    title = "Missed triggers"
    if material.missed is None or material.missed_window is None:
        return Section("missed", title, [nothing("There are no runs to tell it from.")])
    since, until = (moment(time, material.tz) for time in material.missed_window)
    if material.missed.empty:
        return Section("missed", title, [nothing(f"Nothing was missed from {since} to {until}.")])
    times = material.missed.assign(doubtful=~material.missed["certain"])
    grouped = times.groupby("deployment_id")
    summary = grouped.agg(
        certain=("certain", "sum"),
        doubtful=("doubtful", "sum"),
        first=("scheduled_at", "min"),
        last=("scheduled_at", "max"),
    ).reset_index()
    summary = summary.sort_values(["certain", "doubtful", "deployment_id"], ascending=[False, False, True])
    columns = [
        Column("Deployment", lambda row: material.who(row.deployment_id)),
        Column("Missed", lambda row: element("strong", f"{row.certain:,}"), number=True),
        Column("In doubt", lambda row: f"{row.doubtful:,}", number=True),
        Column("First", lambda row: material.time(row.first)),
        Column("Last", lambda row: material.time(row.last)),
    ]
    return Section(
        "missed",
        title,
        [
            sentence(
                f"Scheduled times from {since} to {until} for which no run was triggered. In doubt where the "
                "deployment is paused now or was changed in that time: the service keeps no history of either."
            ),
            table(summary, columns, caption="Missed triggers by deployment", rows="deployments"),
        ],
        count=f"{times['certain'].sum():,}",
    )


def slower(material: Material, runs: pd.DataFrame) -> Section:
    """Show what takes longer than it did."""
    found = duration_regressions(runs).reset_index()
    title = "Slower than before"
    if found.empty:
        return Section("slower", title, [nothing("No deployment takes longer than before.")])
    columns = [
        Column("Deployment", lambda row: material.who(row.deployment_id)),
        Column("Now", lambda row: element("strong", milliseconds(row.recent_p50_ms)), number=True),
        Column("Before", lambda row: milliseconds(row.baseline_p50_ms), number=True),
        Column("Longer by", lambda row: milliseconds(row.change_ms), number=True),
        Column("Runs now / before", lambda row: f"{row.recent_runs:,} / {row.baseline_runs:,}", number=True),
    ]
    return Section(
        "slower",
        title,
        [
            sentence("Median time of a success in the last 3 days of the runs, against the 14 days before."),
            table(found, columns, caption="What got slower, most first", rows="deployments"),
        ],
        count=f"{len(found):,}",
    )
