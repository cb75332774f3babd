"""``qoderdata unusual``: which runs took unusually long or short, ran past their timeout, or are stuck?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

import qoderdata as qd
from qoderdata import arguments
from qoderdata.cli import grouping, options
from qoderdata.cli.output import MINOR, Output, TableColumn
from qoderdata.cli.runs import unknown_outcomes
from qoderdata.cli.service import Service, run_service_options
from qoderdata.formatting import MISSING, counted

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

#: How many completed runs of a deployment `qoderdata.unusual_runs` needs for a median, by default.
RUNS_FOR_MEDIAN = 10


@options.command("unusual", example="qoderdata unusual --since 7D")
@click.option(
    "--threshold",
    type=options.NumberRange(min=0, min_open=True),
    default=3.5,
    metavar="Z",
    help="Least distance from the median, as a modified z score (default 3.5).",
)
@options.number_option(
    "--min-runs",
    f"Number of completed runs that a deployment needs for a median (default {RUNS_FOR_MEDIAN}).",
    least=1,
    default=RUNS_FOR_MEDIAN,
)
@options.time_option("--now", "Time up to which unfinished runs have been running (default: when they were read).")
@grouping.by_option("deployments", "Show also, of each deployment")
@options.run_window()
@run_service_options
@options.output_form()
def unusual(
    by: tuple[str, ...],
    *,
    threshold: float,
    min_runs: int,
    now: str | None,
    window: dict[str, Any],
    service: Service,
    result: Output,
) -> None:
    """Show runs that took unusually long or short, or are stuck.

    A run is compared with the completed runs of its deployment in the time asked for, and with its timeout. It is
    stuck if it has not ended after its timeout or, where that is not known, after ten times the median. The events
    of its session are read first: the run may have ended, and a person may have continued the session.
    """
    from qoderdata.frames import fetched_at  # noqa: PLC0415 - imports pandas

    period = options.describe_window(window, "runs triggered", result.tz)
    groups = grouping.Groups(["deployment"], "runs", service)
    deployments = groups.lists.get("deployments")
    if by and deployments is None:
        deployments = service.deployments()
    about = grouping.Groups(by, "deployments", service, deployments=deployments)
    runs = service.runs(window)
    present = fetched_at(runs) if now is None else arguments.parse_instant(now, name="now")
    runs = groups.add_names(service.with_ends_of_stuck(runs, deployments, now=present))
    notes = [*unknown_outcomes(runs), *_unknown_durations(runs), *not_judged(runs, deployments, min_runs)]
    found = qd.unusual_runs(runs, deployments, now=present, threshold=threshold, min_runs=min_runs)
    waiting = int((found["status"] == "waiting").sum())
    if waiting:
        stuck = counted(int((found["kind"] == "stuck").sum()), "stuck run")
        notes.append(f"waiting for a person: {waiting:,} of {stuck}")
    found, about_columns = (found, []) if deployments is None else about.add_to(found, deployments)
    columns = [_TRIGGERED, *about_columns, *groups.columns(found), *_COLUMNS]
    found_none = "; ".join(["no run is unusual", *period, *notes])
    empty = options.nothing_in(period, "runs") if runs.empty else found_none
    result.print_frame(found, columns, empty=empty, notes=[*period, *notes])


def not_judged(
    runs: pd.DataFrame, deployments: pd.DataFrame | None, min_runs: int, *, until: datetime | None = None
) -> list[str]:
    """Return a note: how many runs have not ended and have neither a timeout nor a median to compare with.

    `until`: only those that were triggered before then.
    """
    from qoderdata.outcomes import STATUSES  # noqa: PLC0415 - imports pandas

    completed = runs[runs["status"].eq("completed") & runs["duration_ms"].notna()]["deployment_id"].value_counts()
    known = {*completed.index[completed >= min_runs]}
    if deployments is not None:
        known.update(deployments["id"][deployments["config_timeout_ms"] > 0])
    is_open = runs["status"].isin(STATUSES["unfinished"]) & ~runs["deployment_id"].isin(known)
    if until is not None:
        is_open &= runs["triggered_at"] < until
    count = int(is_open.sum())
    if not count:
        return []
    have, whose = ("has", "its deployment has") if count == 1 else ("have", "their deployments have")
    reason = f"{whose} no known timeout and fewer than {min_runs:,} completed runs of known duration"
    if runs.attrs.get("outcomes") != "events":
        reason += "; --outcomes events reads durations"
    age = "" if until is None else " triggered more than a day ago"
    return [f"{counted(count, 'run')}{age} {have} not ended and cannot be compared: {reason}"]


def _unknown_durations(runs: pd.DataFrame) -> list[str]:
    """Return a note: how many completed runs have no known duration, which only events show."""
    took = runs["duration_ms"][runs["status"] == "completed"]
    unknown = int(took.isna().sum())
    if not unknown:
        return []
    advice = "" if runs.attrs.get("outcomes") == "events" else "; --outcomes events reads it"
    return [f"the duration of {unknown:,} of {len(took):,} completed runs is not known{advice}"]


_TRIGGERED = TableColumn("triggered", "triggered_at", "time", optional=1)
_COLUMNS = [
    TableColumn("run", "run_id", "id", optional=MINOR),
    TableColumn("what", lambda row: row.kind.replace("_", " "), "fixed", is_alert=lambda row: row.kind == "stuck"),
    TableColumn("status", "status", "fixed", optional=4),
    TableColumn("took", "duration_ms", "milliseconds"),
    TableColumn("median", "median_ms", "milliseconds"),
    TableColumn("timeout", "timeout_ms", "milliseconds", optional=3),
    TableColumn(
        "z score", lambda row: MISSING if math.isnan(row.z_score) else f"{row.z_score:+.1f}", "number", optional=2
    ),
]
