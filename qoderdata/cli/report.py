"""``qoderdata report``: one page for a colleague."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import qoderdata as qd
from qoderdata.cli import grouping, options
from qoderdata.cli.output import echo

if TYPE_CHECKING:
    from qoderdata.cli.options import Service


@options.command("report", example="qoderdata report report.html --tz Asia/Shanghai")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--runs", "with_runs", is_flag=True, help="With trend, errors, streaks and missed triggers.")
@click.option("--costs", "with_costs", is_flag=True, help="With what sessions of 90 days cost, and will cost.")
@click.option("--horizon", default="24h", metavar="SPAN", help="How far to look for triggers (default 24h).")
@click.option("--start", metavar="TIME", help="Triggers from when, with its zone (default: now).")
@options.tz_option("of the times shown")
@options.run_filters()
@options.deployment_filters(archived=False)
@options.service
def report(
    path: Path,
    *,
    with_runs: bool,
    with_costs: bool,
    horizon: str,
    start: str | None,
    tz: str,
    run_filters: dict[str, Any],
    filters: dict[str, Any],
    service: Service,
) -> None:
    """Write one self-contained HTML page to FILE."""
    if not with_runs:
        options.refuse_without_effect(["--since", "--until"], "without --runs")
    deployments = service.counted_deployments(filters, run_filters["outcomes"])
    runs = service.runs(run_filters) if with_runs else None
    agents = grouping.optional(lambda service: service.load(qd.load_agents), service)
    if agents is not None:
        deployments = qd.with_names(deployments, agents=agents)
    sessions = service.load(qd.load_sessions, is_incremental=True, since="90D") if with_costs else None
    qd.write_report(deployments, path, runs=runs, sessions=sessions, start=start, horizon=horizon, tz=tz)
    echo(f"report written to {path}")
