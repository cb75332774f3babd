"""``qoderdata pull``: a list from the service into the cache and a file."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

import qoderdata as qd
from qoderdata.cli import options
from qoderdata.cli.output import echo
from qoderdata.cli.service import Service, run_service_options, service_options
from qoderdata.errors import CacheError, NotStoredWarning
from qoderdata.formatting import counted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd


@dataclass(frozen=True, slots=True)
class Destination:
    """The file that a pulled frame is written to, and the form of the message about it."""

    out: Path | None
    json: bool

    def pull(self, load: Callable[[], pd.DataFrame], what: str, left_out: str = "") -> None:
        """Load a frame, write it, and print what was done and what was left out.

        Without a file, raise `CacheError` if the cache cannot be written: what is read would be lost.
        """
        with warnings.catch_warnings():
            if self.out is None:
                warnings.simplefilter("error", NotStoredWarning)
            try:
                frame = load()
            except NotStoredWarning as warning:
                raise CacheError(str(warning)) from None
        if self.out is not None:
            options.write(frame, self.out)
        if self.json:
            out = None if self.out is None else str(self.out)
            echo(json.dumps({"rows": len(frame), **frame.attrs, "out": out}))
            return
        requests = frame.attrs["requests"]
        source = "the cache" if frame.attrs["from_cache"] else f"the service in {counted(requests, 'request')}"
        written = f", written to {self.out}" if self.out is not None else ""
        echo(f"{counted(len(frame), what)} from {source}{left_out}{written}")


_destination = options.gather(
    "destination",
    Destination,
    click.option(
        "--out",
        metavar="FILE",
        type=options.PATH,
        callback=options.table_path,
        help="Write to this .parquet, .csv or .csv.gz file.",
    ),
    click.option("--json", is_flag=True, help="Say what was done as JSON."),
    group="Output",
)


@click.group("pull", cls=options.CommandGroup)
def pull() -> None:
    """Pull a list from the service into the cache and a file."""


@pull.command("deployments", example="qoderdata pull deployments --out deployments.parquet")
@options.deployment_filters()
@service_options
@_destination
def _deployments(*, filters: dict[str, Any], service: Service, destination: Destination) -> None:
    """Pull all deployments.

    Without other filters, archived ones are stored too, as most commands need them with --offline;
    --include-archived also counts them, and writes them to FILE.
    """

    def load() -> pd.DataFrame:
        if service.offline or filters["include_archived"] or options.filters_given(filters):
            return service.deployments(filters)
        found = service.deployments()
        return found[found["archived_at"].isna()].reset_index(drop=True)

    destination.pull(load, "deployment", "" if filters["include_archived"] else ", without archived ones")


@pull.command("runs", example="qoderdata pull runs --since 30D --out runs.parquet")
@options.run_window(since=None)
@run_service_options
@_destination
def _runs(*, window: dict[str, Any], service: Service, destination: Destination) -> None:
    """Pull the runs of all deployments, or what is new of them."""
    destination.pull(lambda: service.runs(window), "run")


@pull.command("sessions", example="qoderdata pull sessions --since 30D --out sessions.parquet")
@options.in_group(
    "Which sessions", click.option("--agent", metavar="ID|NAME", help="Only sessions of this agent.")
)
@options.window(since=None, what="Created", of="sessions", group="Which sessions")
@service_options
@_destination
def _sessions(
    *, agent: str | None, window: dict[str, str | None], service: Service, destination: Destination
) -> None:
    """Pull all sessions with their cost, or what is new of them."""
    filters = {"agent_id": agent, **window}
    destination.pull(lambda: service.load_filtered(qd.load_sessions, filters, what="session"), "session")


@pull.command("agents", example="qoderdata pull agents --out agents.csv")
@service_options
@_destination
def _agents(*, service: Service, destination: Destination) -> None:
    """Pull all agents, archived ones too."""
    destination.pull(lambda: service.load(qd.load_agents), "agent")


@pull.command("environments", example="qoderdata pull environments --out environments.csv")
@service_options
@_destination
def _environments(*, service: Service, destination: Destination) -> None:
    """Pull all environments, archived ones too."""
    destination.pull(lambda: service.load(qd.load_environments), "environment")
