"""``qoderdata export``: a table to a CSV or Parquet file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import qoderdata as qd
from qoderdata.cli import options
from qoderdata.cli.output import echo
from qoderdata.cli.service import Service, run_service_options
from qoderdata.formatting import counted

if TYPE_CHECKING:
    from pathlib import Path


#: The tables, and which options have an effect on each.
_TABLES = {
    "deployments": ("--include-archived",),
    "failures": ("--outcomes", "--include-archived"),
    "triggers": ("--horizon", "--start"),
    "lints": ("--start",),
}


class _TableName(click.Choice[str]):
    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in {"runs", "sessions"}:
            self.fail(f"`qoderdata pull {value} --out FILE` writes {value} to a file", param, ctx)
        return super().convert(value, param, ctx)


@options.command("export", example="qoderdata export failures failures.csv")
@click.argument("what", metavar="TABLE", type=_TableName(list(_TABLES)))
@click.argument("path", metavar="FILE", type=options.PATH, callback=options.table_path)
@options.span_option("--horizon", "Length of time to look ahead, for triggers (default 7D).", default="7D")
@options.time_option("--start", "Start of that time, for triggers and lints, with its zone (default: now).")
@options.deployment_filters()
@run_service_options
def export(
    what: str, path: Path, *, horizon: str, start: str | None, filters: dict[str, Any], service: Service
) -> None:
    """Write a TABLE to a .csv, .csv.gz or .parquet FILE.

    TABLE is deployments, failures, triggers or lints; failures also has deployments that never ran. For runs and
    sessions: `qoderdata pull runs --out FILE`.
    """
    others = {option for those in _TABLES.values() for option in those} - set(_TABLES[what])
    options.refuse_without_effect(sorted(others), f"on {what}")
    if what == "failures":
        table = qd.failure_rates(service.counted_deployments(filters))
    else:
        table = service.deployments(filters)
        if what == "triggers":
            table = qd.next_triggers(table, horizon, start=start)
        elif what == "lints":
            table = qd.schedule_lints(table, start=start)
    options.write(table, path)
    echo(f"{counted(len(table), 'row')} written to {path}")
