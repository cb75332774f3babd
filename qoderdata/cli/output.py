"""``export`` and ``report``: files for other people and other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qoderdata.cli import options
from qoderdata.cli.pull import output_path, write
from qoderdata.report import write_report
from qoderdata.summaries import failure_rates
from qoderdata.timelines import next_triggers, schedule_lints

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    import pandas as pd


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands that write files."""
    export = options.add_command(
        commands,
        "export",
        _export,
        summary="Write deployments, failures, triggers or lints to a CSV or Parquet file.",
        example="qoderdata export failures failures.csv",
    )
    export.add_argument("what", choices=list(_TABLES), help="which table")
    export.add_argument("path", type=output_path, metavar="FILE", help="a .csv or .parquet file")
    export.add_argument("--horizon", default="7D", metavar="SPAN", help="triggers: how far to look (default 7D)")

    report = options.add_command(
        commands,
        "report",
        _report,
        summary="Write one self-contained HTML page.",
        example="qoderdata report report.html --tz Asia/Shanghai",
    )
    report.add_argument("path", type=Path, metavar="FILE", help="the .html file")
    report.add_argument("--runs", action="store_true", help="with trend, errors, streaks and missed triggers")
    report.add_argument(
        "--horizon", default="24h", metavar="SPAN", help="how far to look for triggers (default 24h)"
    )
    report.add_argument(
        "--tz", default="UTC", metavar="ZONE", help="the zone that times are shown in (default UTC)"
    )
    options.add_run_filters(report)

    for command in (export, report):
        command.add_argument("--start", metavar="TIME", help="triggers from when; with its zone (default: now)")
        options.add_deployment_filters(command)
        options.add_service(command)


_TABLES: dict[str, Callable[[pd.DataFrame, argparse.Namespace], pd.DataFrame]] = {
    "deployments": lambda frame, _: frame,
    "failures": lambda frame, _: failure_rates(frame),
    "triggers": lambda frame, arguments: next_triggers(frame, arguments.horizon, start=arguments.start),
    "lints": lambda frame, arguments: schedule_lints(frame, start=arguments.start),
}


def _export(arguments: argparse.Namespace) -> int:
    table = _TABLES[arguments.what](options.deployments(arguments), arguments)
    write(table, arguments.path)
    print(f"{len(table):,} rows written to {arguments.path}")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    deployments = options.deployments(arguments, include_archived=True)
    write_report(
        deployments,
        arguments.path,
        runs=options.runs(arguments) if arguments.runs else None,
        start=arguments.start,
        horizon=arguments.horizon,
        tz=arguments.tz,
    )
    print(f"report written to {arguments.path}")
    return 0
