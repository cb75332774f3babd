"""``qoderdata pull deployments`` and ``qoderdata pull runs``: from the service to a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from qoderdata.cli import options
from qoderdata.export import export_csv, export_parquet

if TYPE_CHECKING:
    import argparse

    import pandas as pd

_WRITERS = {".csv": export_csv, ".parquet": export_parquet}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``pull`` and what it pulls."""
    parser = commands.add_parser("pull", help="Pull a list from the service, into the cache and a file.")
    what = parser.add_subparsers(required=True, metavar="deployments|runs")

    deployments = options.add_command(
        what,
        "deployments",
        _pull_deployments,
        summary="Pull all deployments.",
        example="qoderdata pull deployments --out deployments.parquet",
    )
    options.add_deployment_filters(deployments)

    runs = options.add_command(
        what,
        "runs",
        _pull_runs,
        summary="Pull the runs of all deployments, or what is new of them.",
        example="qoderdata pull runs --since 30D --out runs.parquet",
    )
    options.add_run_filters(runs, since=None)
    runs.add_argument("--deployment", metavar="ID", help="only this deployment's")

    for command in (deployments, runs):
        options.add_service(command)
        command.add_argument("--out", metavar="FILE", type=output_path, help="write to this .parquet or .csv file")
        command.add_argument("--json", action="store_true", help="say what was done as JSON")


def output_path(text: str) -> Path:
    """Read the name of a file to write; its ending says in which form."""
    path = Path(text)
    if path.suffix not in _WRITERS:
        raise ValueError(text)
    return path


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame in the form that the file's ending names."""
    _WRITERS[path.suffix](frame, path)


def _pull_deployments(arguments: argparse.Namespace) -> int:
    return _finish(options.deployments(arguments), "deployments", arguments)


def _pull_runs(arguments: argparse.Namespace) -> int:
    return _finish(options.runs(arguments, deployment_id=arguments.deployment), "runs", arguments)


def _finish(frame: pd.DataFrame, what: str, arguments: argparse.Namespace) -> int:
    if arguments.out is not None:
        write(frame, arguments.out)
    facts = {"rows": len(frame), **frame.attrs, "out": None if arguments.out is None else str(arguments.out)}
    if arguments.json:
        print(json.dumps(facts, ensure_ascii=False))
        return 0
    origin = "the cache" if frame.attrs["from_cache"] else f"the service in {frame.attrs['requests']} requests"
    written = f", written to {arguments.out}" if arguments.out is not None else ""
    print(f"{len(frame):,} {what} from {origin}{written}")
    return 0
