"""``qoderdata triggers``: what fires next."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

import qoderdata as qd
from qoderdata import arguments
from qoderdata.cli import grouping, options
from qoderdata.cli.output import DEPLOYMENT, WINDOW, Output, TableColumn
from qoderdata.cli.service import Service, service_options
from qoderdata.formatting import counted, format_time

if TYPE_CHECKING:
    import pandas as pd

#: The columns of `next_triggers` for people.
TRIGGER_COLUMNS = [
    TableColumn("fires at", "trigger_at", "time"),
    *DEPLOYMENT,
    TableColumn("schedule", "schedule_expression", optional=1, readable=14),
    TableColumn("zone", "schedule_timezone", optional=2),
    TableColumn("local time", lambda row: row.local_time.strftime("%a %H:%M"), "fixed", optional=3),
]
_LOAD_COLUMNS = [
    WINDOW,
    TableColumn("triggers", "triggers", "count"),
    TableColumn("deployments", "deployments", "count"),
    TableColumn("on the hour", "at_minute_0", "count"),
]


@options.command("triggers", example="qoderdata triggers --horizon 24h --tz Asia/Shanghai")
@options.span_option("--horizon", "Length of time to look ahead (default 24h).", default="24h")
@options.time_option("--start", "Start of that time, with its zone (default: now).")
@click.option("--include-paused", is_flag=True, help="Treat paused deployments as active.")
@options.window_option("--load", "Count how many fire in each window of time, such as 1h.")
@grouping.by_option("deployments", "Show also, of each deployment")
@options.deployment_filters(archived=False)
@service_options
@options.output_form()
def triggers(
    by: tuple[str, ...],
    *,
    horizon: str,
    start: str | None,
    include_paused: bool,
    load: str | None,
    filters: dict[str, Any],
    service: Service,
    result: Output,
) -> None:
    """Show what fires next."""
    if load is not None:
        options.refuse_without_effect(["--by"], "with --load")
    deployments = service.deployments({**filters, "include_archived": False})
    groups = grouping.Groups(by, "deployments", service, deployments=deployments)
    upcoming = qd.next_triggers(deployments, horizon, start=start, tz=result.tz, include_paused=include_paused)
    period = options.describe_horizon(horizon, start, result.tz)
    advice = "; --include-paused treats them as active"
    empty = options.nothing_fires(period, deployments, filters, include_paused=include_paused, advice=advice)
    notes = [f"triggers {period}", *options.filter_notes(filters)]
    if load is None:
        upcoming, group_columns = groups.add_to(upcoming, deployments)
        fires_at, *others = TRIGGER_COLUMNS
        result.print_frame(upcoming, [fires_at, *group_columns, *others], empty=empty, notes=notes)
    else:
        counts = qd.trigger_load(upcoming, freq=load)
        begin = datetime.now(UTC) if start is None else arguments.parse_instant(start, name="start")
        end = begin + arguments.parse_span(horizon, name="horizon")
        notes += [*_busiest(counts, result.tz), *options.cut_windows(counts, load, begin, end)]
        result.print_frame(counts, _LOAD_COLUMNS, empty=empty, notes=notes)


def _busiest(counts: pd.DataFrame, tz: str) -> list[str]:
    """Return a note that names the first window with the most triggers; none if all have as many."""
    most = counts[counts["triggers"] == counts["triggers"].max()]
    if len(most) == len(counts):
        return []
    busiest, others = most.iloc[0], len(most) - 1
    as_many = f"; {counted(others, 'other')} with as many" if others else ""
    triggers = counted(busiest["triggers"], "trigger")
    return [f"the busiest window: {triggers} from {format_time(busiest['window'], tz)}{as_many}"]
