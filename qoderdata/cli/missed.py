"""``qoderdata missed``: what should have fired but did not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

import qoderdata as qd
from qoderdata.arguments import parse_bound, parse_period, parse_span
from qoderdata.cli import grouping, options
from qoderdata.cli.output import DEPLOYMENT, Output, TableColumn
from qoderdata.cli.service import Service, service_options
from qoderdata.formatting import counted, format_time, is_or_are

if TYPE_CHECKING:
    import pandas as pd

_TIME = TableColumn("should have fired", "scheduled_at", "time")
_COLUMNS = [
    *DEPLOYMENT,
    TableColumn("certain", lambda row: "yes" if row.certain else "no", "fixed", is_alert=lambda row: row.certain),
    TableColumn("reason", "reason", "prose"),
]


@options.command("missed", example="qoderdata missed --since 7D")
@options.span_option("--grace", "How late a run may start (default 10min).", default="10min", may_be_zero=True)
@click.option("--fail", is_flag=True, help="Exit with 1 if a trigger was certainly missed.")
@grouping.by_option("deployments", "Show also, of each deployment")
@options.window(since="7D", what="Scheduled", may_be_all=False)
@options.deployment_filters(archived=False)
@service_options
@options.output_form()
def missed(
    by: tuple[str, ...],
    *,
    grace: str,
    fail: bool,
    window: dict[str, Any],
    filters: dict[str, Any],
    service: Service,
    result: Output,
) -> int:
    """Show what should have fired but did not.

    Stored snapshots show pauses and earlier schedules; see `qoderdata changes`.
    """
    from qoderdata.frames import fetched_at  # noqa: PLC0415 - imports pandas

    since, now = window["since"], datetime.now(UTC)
    if since is None:
        raise click.UsageError("--since needs a time or an age here, such as 30D")
    _, until = parse_period(since, window["until"], now=now, what="trigger")
    deployments = service.deployments(filters)
    groups = grouping.Groups(by, "deployments", service, deployments=deployments)
    snapshots = service.snapshots(since)  # that of these deployments too
    runs = service.runs({**window, "outcomes": "runs"})  # a run of any outcome serves its trigger
    until = until or now
    until = min(until, fetched_at(deployments, runs) or until)
    # Ages count back from now, as loading may have taken minutes: all runs since `begin` are loaded.
    begin = parse_bound(since, now=datetime.now(UTC), name="since")
    end = format_time(until, result.tz)
    judged_until = until - parse_span(grace, name="grace")
    if begin >= datetime.now(UTC):
        raise click.UsageError("--since is in the future, and no trigger has been missed there yet")
    if begin >= until:
        reading = "without --offline" if service.offline else "with --refresh"
        raise click.UsageError(
            f"the service was read at {end}, not after --since; give an earlier --since, "
            f"or read it again {reading}"
        )
    if begin >= judged_until:
        raise click.UsageError(
            f"no trigger can be missed, as --grace covers all the time from --since to {end}; "
            "give an earlier --since"
        )
    period = f"from {format_time(begin, result.tz)} to {format_time(judged_until, result.tz)}"
    found = qd.missed_triggers(deployments, runs, since=begin, until=until, grace=grace, snapshots=snapshots)
    found, group_columns = groups.add_to(found, deployments)
    certain = result.name_rows(found[found["certain"]], [_TIME, *DEPLOYMENT], "certainly missed") if fail else []
    paused = _paused_note(deployments)
    nothing = "; ".join([f"nothing was missed {period}", *paused])
    empty = options.empty_table_text(nothing, deployments, filters)
    columns = [_TIME, *group_columns, *_COLUMNS]
    notes = [f"triggers {period}", *options.filter_notes(filters), *paused, *certain]
    result.print_frame(found, columns, empty=empty, notes=notes)
    return options.FOUND if certain else 0


def _paused_note(deployments: pd.DataFrame) -> list[str]:
    """Return a note that says how many deployments with a schedule are paused; none if there are none."""
    count = int((deployments["status"].eq("paused") & deployments["schedule_expression"].notna()).sum())
    if not count:
        return []
    paused = f"{counted(count, 'deployment')} {is_or_are(count)} paused now"
    return [f"{paused}, and nothing is missed while paused (see `qoderdata deployments --status paused`)"]
