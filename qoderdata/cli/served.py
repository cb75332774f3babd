"""``qoderdata sandbox``: the stand-in of the service, in a terminal."""

from __future__ import annotations

import json
import signal
import threading
from typing import TYPE_CHECKING

from qoderdata import settings
from qoderdata.cli import options
from qoderdata.sandbox import Sandbox

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``sandbox``."""
    command = options.add_command(
        commands,
        "sandbox",
        _serve,
        summary="Serve a generated account on this machine, until Ctrl-C; no account is needed.",
        example="qoderdata sandbox --deployments 250 --edition C",
    )
    add_account(command)
    command.add_argument("--edition", choices=["A", "B", "C"], default="C", help="of the service (default C)")
    command.add_argument("--port", type=int, default=0, metavar="N", help="where to listen (default: a free port)")
    command.add_argument("--no-gzip", action="store_true", help="never compress an answer")
    command.add_argument("--json", action="store_true", help="print base URL, token and clock as JSON")


def add_account(command: argparse.ArgumentParser) -> None:
    """Which account is generated."""
    command.add_argument("--deployments", type=int, default=250, metavar="N", help="how many (default 250)")
    command.add_argument("--runs", type=int, default=None, metavar="N", help="how many (default 10 a deployment)")
    command.add_argument(
        "--seed", type=int, default=7, metavar="N", help="another seed, another account (default 7)"
    )


def _serve(arguments: argparse.Namespace) -> int:
    with Sandbox(
        arguments.deployments,
        seed=arguments.seed,
        edition=arguments.edition,
        runs=arguments.runs,
        gzip=not arguments.no_gzip,
        port=arguments.port,
    ) as sandbox:
        facts = {"base_url": sandbox.base_url, "pat": sandbox.pat, "now": sandbox.now.isoformat()}
        if arguments.json:
            print(json.dumps(facts), flush=True)
        else:
            print(f"export {settings.BASE_URL_VARIABLE}={sandbox.base_url}")
            print(f"export {settings.PAT_VARIABLE}={sandbox.pat}")
            print(f"# its clock stands at {facts['now']}: --start {facts['now']}. Ctrl-C ends it.", flush=True)
        # A shell's background job ignores the one, and Python knows nothing of the other.
        for ending in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ending, signal.default_int_handler)
        threading.Event().wait()
    return 0
