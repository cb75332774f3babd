"""The sections on what fails: worst offenders, current streaks, paused by error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from qoderdata.report.bars import interval_bar, scale_for
from qoderdata.report.markup import Child, Markup, element
from qoderdata.report.page import Section
from qoderdata.report.tables import MOST_ROWS, Column, nothing, sentence, table
from qoderdata.summaries import failure_streaks
from qoderdata.words import NOTHING, duration, interval, percent

if TYPE_CHECKING:
    from qoderdata.report.material import Material

_MOST_CHARACTERS = 200


def worst_offenders(material: Material) -> Section:
    """Show who fails most; a high rate of few runs does not lead, since chance may have made it."""
    known = material.rates.reset_index()
    worst = known[known["failure_rate"] > 0].sort_values(
        ["ci_low", "total_failures", "id"], ascending=[False, False, True]
    )
    if worst.empty:
        return Section("offenders", "Worst offenders", [nothing("No deployment has a failed run.")])
    scale = scale_for(worst["ci_high"].head(MOST_ROWS).max())
    columns = [
        Column("Deployment", lambda row: material.who(row.id)),
        Column("Failure rate", lambda row: element("strong", percent(row.failure_rate)), number=True),
        Column("95 % interval", lambda row: _interval(row, scale), note=f"0 to {100 * scale:.0f} %"),
        Column("Failed / runs", lambda row: f"{row.total_failures:,} / {row.total_runs:,}", number=True),
        Column("In a row now", lambda row: in_a_row(row.consecutive_failures), number=True),
    ]
    return Section(
        "offenders",
        "Worst offenders",
        [
            sentence(
                "Lifetime failure rates of the deployments that are not archived, in the order of the lower end "
                "of the interval: whoever fails at least that often. So one failure in one run does not lead."
            ),
            table(
                worst, columns, caption="Failure rates by deployment, worst first", rows="deployments that failed"
            ),
        ],
        count=f"{len(worst):,}",
    )


def streaks(material: Material) -> Section:
    """Show who fails in a row now; with runs, since when and with what error."""
    failing = _failing_now(material)
    title = "Failing now"
    if failing.empty:
        return Section("streaks", title, [nothing("No deployment has failed in its last run.")])
    columns = [
        Column("Deployment", lambda row: material.who(row.id)),
        Column("In a row", lambda row: in_a_row(row.in_a_row), number=True),
        Column("State", _state),
    ]
    if material.runs is not None:
        columns += [
            Column("Since", lambda row: _since(material, row)),
            Column("Last error", lambda row: error(row.error_type, row.error_message), wide=True),
        ]
    else:
        columns.append(Column("Last run", lambda row: material.time(row.stats_last_triggered_at)))
    return Section(
        "streaks",
        title,
        [
            sentence("Failures since the last success, as the service counts them, longest first."),
            table(failing, columns, caption="Current streaks of failures", rows="failing deployments"),
        ],
        count=f"{len(failing):,}",
    )


def paused_by_error(material: Material) -> Section:
    """Show what the service itself has stopped."""
    live = material.live
    paused = live[live["paused_reason_type"] == "error"].sort_values(
        ["stats_last_triggered_at", "id"], ascending=[False, True]
    )
    title = "Paused by error"
    if paused.empty:
        return Section("paused", title, [nothing("The service has paused no deployment because of an error.")])
    columns = [
        Column("Deployment", lambda row: material.who(row.id)),
        Column("Error", lambda row: error(row.paused_reason_error_type, None)),
        Column("Failed in a row", lambda row: in_a_row(row.stats_consecutive_failures), number=True),
        Column("Last run", lambda row: material.time(row.stats_last_triggered_at)),
    ]
    return Section(
        "paused",
        title,
        [
            sentence(
                "The service stopped these after errors. They will not fire again until someone resumes them."
            ),
            table(paused, columns, caption="Deployments that the service has paused", rows="paused deployments"),
        ],
        count=f"{len(paused):,}",
    )


def _failing_now(material: Material) -> pd.DataFrame:
    """Give the live deployments with a streak: as the service counts it, else as the runs say."""
    live = material.live
    failing = live.assign(in_a_row=live["stats_consecutive_failures"])
    if material.runs is not None:
        by_runs = failure_streaks(material.runs)[["current_streak", "current_streak_since"]]
        failed = material.runs[material.runs["status"] == "failed"].sort_values(["triggered_at", "id"])
        last = failed.drop_duplicates("deployment_id", keep="last").set_index("deployment_id")
        failing = failing.join(by_runs, on="id").join(last[["error_type", "error_message"]], on="id")
        failing["in_a_row"] = failing["in_a_row"].fillna(failing["current_streak"])
    failing = failing[(failing["in_a_row"] > 0).fillna(value=False)]
    return failing.sort_values(["in_a_row", "id"], ascending=[False, True])


def _since(material: Material, row: Any) -> Child:  # noqa: ANN401 - a row as a named tuple
    """Say when the streak began; where the runs given do not reach back to its start, at least since when."""
    since = row.current_streak_since
    if pd.isna(since):
        return NOTHING
    ago = element("span", f"{duration(material.start - since)} ago", class_="line minor")
    whole = row.current_streak == row.in_a_row
    return [None if whole else "at least ", material.time(since), " ", ago if since <= material.start else None]


def _interval(row: Any, scale: float) -> Markup:  # noqa: ANN401 - a row as a named tuple
    bar = interval_bar(row.failure_rate, row.ci_low, row.ci_high, scale=scale)
    return element("span", bar, " ", interval(row.ci_low, row.ci_high), class_="range")


def _state(row: Any) -> Markup:  # noqa: ANN401 - a row as a named tuple
    if row.paused_reason_type == "error":
        return element("span", "paused by error", class_="badge bad")
    return element("span", row.status, class_="badge" if row.status == "active" else "badge calm")


def in_a_row(count: Any) -> Child:  # noqa: ANN401 - an integer or one of pandas' missing values
    """Show a number of failures in a row; none is nothing to look at."""
    if pd.isna(count):
        return NOTHING
    return element("strong", f"{count:,}", class_="bad") if count > 0 else element("span", "0", class_="minor")


def error(kind: Any, message: Any) -> Child:  # noqa: ANN401 - texts or pandas' missing values
    """Show an error: its type, and the beginning of what it says."""
    if pd.isna(kind) and pd.isna(message):
        return NOTHING
    words = None if pd.isna(message) else str(message)
    if words and len(words) > _MOST_CHARACTERS:
        words = words[:_MOST_CHARACTERS] + "…"
    return [
        None if pd.isna(kind) else element("code", str(kind)),
        None if words is None else [" ", element("bdi", words, class_="minor")],
    ]
