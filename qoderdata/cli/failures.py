"""``qoderdata failures``: who fails most, by lifetime counters."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import qoderdata as qd
from qoderdata.cli import grouping, options
from qoderdata.cli.output import RATE_INTERVAL, Output, TableColumn
from qoderdata.cli.service import Service, run_service_options
from qoderdata.formatting import counted, format_time, is_or_are

if TYPE_CHECKING:
    import pandas as pd


@options.command("failures", example="qoderdata failures --by agent --top 10")
@grouping.by_option("deployments", "Group by (default deployment)")
@options.fail_over_option("Exit with 1 if the rate of a group is above RATE, a share from 0 to 1, such as 0.2.")
@options.number_option("--min-runs", "Leave out groups with fewer runs (default 1).", least=0, default=1)
@options.deployment_filters()
@run_service_options
@options.output_form()
def failures(
    by: tuple[str, ...],
    *,
    fail_over: float | None,
    min_runs: int,
    filters: dict[str, Any],
    service: Service,
    result: Output,
) -> int:
    """Show which deployments, agents or teams fail most.

    Rates come from the service's lifetime counters. If no deployment has counters, runs are counted instead. If
    only some deployments have no counters, these are left out. For the last week: `qoderdata runs --since 7D --by
    deployment`.
    """
    deployments = service.counted_deployments(filters)
    groups = grouping.Groups(by or ["deployment"], "deployments", service, deployments=deployments)
    rates = qd.failure_rates(groups.add_names(deployments), by=groups.keys)
    with_few = int((rates["total_runs"] < min_runs).sum())
    rates = rates[rates["total_runs"] >= min_runs]
    notes = ["rates are of all runs, also skipped and unfinished ones", *options.filter_notes(filters)]
    if not filters["include_archived"]:
        notes.append("archived deployments are left out")
    if with_few:
        few = "no runs" if min_runs == 1 else f"fewer than {min_runs:,} runs"
        what = "deployment" if groups.keys == ["id"] else "group"
        notes.append(f"{counted(with_few, what)} with {few} left out; --min-runs 0 shows all")
    notes += _notes_on_counters(deployments, result.tz)
    labels = groups.columns(rates)
    above = result.name_above(rates, fail_over, figure="failure_rate", groups=labels)
    columns = [*labels, *rate_columns(is_grouped=groups.keys != ["id"])]
    none_left = f"no group has {min_runs:,} runs" if min_runs > 1 else "no run has been counted"
    empty = options.empty_table_text(none_left, deployments, filters)
    result.print_frame(rates, columns, empty=empty, notes=[*notes, *above])
    return options.FOUND if above else 0


def _notes_on_counters(deployments: pd.DataFrame, tz: str) -> list[str]:
    """Return notes: which runs were counted instead of counters, and what is not known."""
    notes = []
    since = deployments.attrs.get("counted_since")
    if since:
        time = format_time(datetime.fromisoformat(since), tz)
        notes.append(f"the service gives no counters; runs since {time} are counted")
    counts = {name: deployments.attrs.get(f"counted_{name}", 0) for name in ("runs", "assumed", "unknown")}
    if counts["assumed"] or counts["unknown"]:
        notes.append(
            f"of all loaded runs, {counts['runs']:,} {is_or_are(counts['runs'])} of these "
            f"deployments: {counts['assumed']:,} completed by assumption, and the outcome of "
            f"{counts['unknown']:,} is unknown"
        )
    uncounted = int(deployments[["stats_total_runs", "stats_total_failures"]].isna().any(axis=1).sum())
    if uncounted:
        what = "a known outcome" if since else "counters"
        left_out = f"{counted(uncounted, 'deployment')} without {what} left out"
        notes.append(f"{left_out}; see `qoderdata runs --by deployment --since all`")
    return notes


def rate_columns(*, is_grouped: bool = False) -> list[TableColumn]:
    """Return the figures of `failure_rates` for people; of a group, the most failures in a row of a deployment."""
    in_a_row = "most in a row" if is_grouped else "failing in a row"
    return [
        TableColumn("runs", "total_runs", "count"),
        TableColumn("failed", "total_failures", "count"),
        TableColumn("rate", "failure_rate", "percent"),
        RATE_INTERVAL,
        TableColumn(in_a_row, "consecutive_failures", "count", optional=2),
    ]
