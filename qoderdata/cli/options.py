"""Options that several commands share, and the frames that they ask for."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from qoderdata.client import Client
from qoderdata.load import load_deployments, load_runs

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from qoderdata.cli.tables import Style


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    summary: str,
    example: str,
) -> argparse.ArgumentParser:
    """Add a command whose help ends with an example to paste.

    Parameters
    ----------
    commands
        Where it is added.
    name
        What is typed.
    run
        Does it, and gives the exit code.
    summary
        What it does, as one sentence.
    example
        A command line that works.

    Returns
    -------
    argparse.ArgumentParser
        The command's parser, for its own options.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_service(parser: argparse.ArgumentParser) -> None:
    """Whom to ask, and how old an answer may be; the token comes from ``QODER_PAT`` alone."""
    group = parser.add_argument_group(
        "service and cache", "The token is taken from QODER_PAT, never from an option."
    )
    group.add_argument(
        "--base-url", metavar="URL", help="the service; else QODER_MANAGED_BASE_URL, else the international one"
    )
    group.add_argument("--workspace", metavar="ID", help="the workspace to read")
    group.add_argument("--cache-dir", metavar="DIR", help="where answers are kept; else QODERDATA_CACHE_DIR")
    group.add_argument(
        "--max-age", default="15min", metavar="AGE", help="how old a kept answer may be (default 15min)"
    )
    group.add_argument("--refresh", action="store_true", help="ask the service whatever is kept")
    group.add_argument(
        "--offline", action="store_true", help="never ask the service; take what is kept, of any age"
    )


def add_deployment_filters(parser: argparse.ArgumentParser) -> None:
    """Which deployments."""
    group = parser.add_argument_group("which deployments")
    group.add_argument("--status", choices=["active", "paused"])
    group.add_argument("--agent", metavar="ID", help="only this agent's")
    group.add_argument("--include-archived", action="store_true", help="archived ones too")
    group.add_argument("--created-since", metavar="TIME", help="created then or later, such as 2026-06-01T00:00Z")
    group.add_argument("--created-until", metavar="TIME", help="created before then")


def add_run_filters(parser: argparse.ArgumentParser, *, since: str | None = "30D") -> None:
    """Which runs."""
    group = parser.add_argument_group("which runs")
    group.add_argument(
        "--since",
        default=since,
        metavar="TIME|AGE",
        help=f"triggered then or later: a time with its zone, or an age (default {since or 'all'})",
    )
    group.add_argument("--until", metavar="TIME|AGE", help="triggered before then (default: now)")


def add_style(parser: argparse.ArgumentParser) -> None:
    """In which form the table comes."""
    group = parser.add_mutually_exclusive_group()
    for style, words in (("csv", "as CSV"), ("json", "as JSON"), ("markdown", "as a Markdown table")):
        group.add_argument(f"--{style}", dest="style", action="store_const", const=style, help=words)
    parser.set_defaults(style="text")


def style(arguments: argparse.Namespace) -> Style:
    """Give the form that was asked for."""
    chosen: Style = arguments.style
    return chosen


def client(arguments: argparse.Namespace) -> Client:
    """Make the client that the options describe."""
    return Client(base_url=arguments.base_url, workspace_id=arguments.workspace)


def deployments(arguments: argparse.Namespace, *, include_archived: bool | None = None) -> pd.DataFrame:
    """Load the deployments that the options describe."""
    return load_deployments(
        status=arguments.status,
        agent_id=arguments.agent,
        include_archived=arguments.include_archived if include_archived is None else include_archived,
        created_since=arguments.created_since,
        created_until=arguments.created_until,
        client=client(arguments),
        cache_dir=arguments.cache_dir,
        max_age=arguments.max_age,
        refresh=arguments.refresh,
        offline=arguments.offline,
    )


def runs(arguments: argparse.Namespace, *, deployment_id: str | None = None) -> pd.DataFrame:
    """Load the runs that the options describe."""
    return load_runs(
        deployment_id=deployment_id,
        since=arguments.since,
        until=arguments.until,
        client=client(arguments),
        cache_dir=arguments.cache_dir,
        max_age=arguments.max_age,
        refresh=arguments.refresh,
        offline=arguments.offline,
    )
