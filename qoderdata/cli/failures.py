"""``qoderdata failures``: who fails most, by lifetime counters."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

import qoderdata as qd
from qoderdata.cli import grouping, options
from qoderdata.cli.output import Column, count
from qoderdata.formatting import format_interval, format_percent, format_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qoderdata.cli.options import Service
    from qoderdata.cli.output import Output

#: The exit code of `--fail-over`.
_RATE_IS_ABOVE = 1


@options.command("failures", example="qoderdata failures --by agent --top 10")
@options.by_option("DEPLOYMENTS", help="Group by (default deployment)")
@click.option(
    "--fail-over",
    type=click.FloatRange(0, 1),
    metavar="RATE",
    help="Exit with 1 if a rate is above: a share from 0 to 1, such as 0.2.",
)
@click.option(
    "--min-runs",
    type=click.IntRange(min=0),
    default=1,
    metavar="N",
    help="Leave out groups with fewer runs (default 1).",
)
@options.deployment_filters()
@options.outcomes
@options.service
@options.output_form
def failures(
    by: Sequence[str],
    *,
    fail_over: float | None,
    min_runs: int,
    filters: dict[str, Any],
    outcomes: str,
    service: Service,
    result: Output,
) -> int:
    """Show which deployments, agents or teams fail most.

    By the service's lifetime counters; where it gives none, runs are counted instead.
    """
    deployments = service.counted_deployments(filters, outcomes)
    groups = grouping.resolve(by or ["deployment"], "deployments", service, deployments=deployments)
    rates = qd.failure_rates(groups.add_names(deployments), by=groups.keys)
    rates = rates[(rates["total_runs"] >= min_runs).fillna(value=False)]
    since = deployments.attrs.get("counted_since")
    result.print_frame(
        rates,
        [*groups.columns(rates), *rate_columns()],
        empty="no deployment has run so often",
        notes=[
            f"the service gives no counters; runs since {format_time(datetime.fromisoformat(since))} are counted"
        ]
        if since
        else [],
    )
    is_above = fail_over is not None and bool((rates["failure_rate"] > fail_over).any())
    return _RATE_IS_ABOVE if is_above else 0


def rate_columns() -> list[Column]:
    """Return the figures of `failure_rates` for people."""
    return [
        Column("runs", lambda row: count(row.total_runs), "number"),
        Column("failed", lambda row: count(row.total_failures), "number"),
        Column("rate", lambda row: format_percent(row.failure_rate), "number"),
        Column("95 % interval", lambda row: format_interval(row.ci_low, row.ci_high), "number"),
        Column("failing in a row", lambda row: count(row.consecutive_failures), "number", optional=1),
    ]
