"""``qoderdata sandbox``: a local service with a generated account, in a terminal."""

from __future__ import annotations

import contextlib
import json
import threading
from datetime import UTC, datetime
from typing import Any

import click

from qoderdata import settings
from qoderdata.cli import options
from qoderdata.cli.output import echo, flush

#: Adds the options that choose the generated account, as `account`.
account = options.gather(
    "account",
    dict,
    options.number_option(
        "--deployments", "Number of deployments to generate (default 100).", least=0, default=100
    ),
    options.number_option("--runs", "Number of runs to generate (default 10 a deployment).", least=0),
    click.option(
        "--seed",
        type=int,
        default=7,
        metavar="N",
        help="Seed of the account; another one makes another account (default 7).",
    ),
    click.option(
        "--edition",
        type=click.Choice(["A", "B", "C", "D"]),
        default="D",
        help="Edition of the service to imitate (default D, the newest).",
    ),
    group="Account",
)


@options.command("sandbox", example="qoderdata sandbox --deployments 250 --edition D")
@account
@click.option("--fixed", is_flag=True, help="Let the account end at the fixed time of the demo, not now.")
@click.option(
    "--port",
    type=options.WholeNumberRange(0, 65535),
    default=0,
    metavar="N",
    help="Port to listen on (default: a free one).",
)
@click.option("--no-gzip", is_flag=True, help="Never compress a response.")
@click.option("--json", "as_json", is_flag=True, help="Print base URL, token and clock as JSON.")
def sandbox(*, account: dict[str, Any], fixed: bool, port: int, no_gzip: bool, as_json: bool) -> None:
    """Serve a generated account on this machine until Ctrl-C.

    Its clock does not advance: after some minutes `check` and `missed` report triggers as missed. Start it again
    then.
    """
    from qoderdata.sandbox import Sandbox  # noqa: PLC0415 - `--help` needs none

    clock: dict[str, Any] = {} if fixed else {"now": datetime.now(UTC)}
    with contextlib.ExitStack() as until_the_end:
        try:
            served = until_the_end.enter_context(Sandbox(**account, gzip=not no_gzip, port=port, **clock))
        except OSError as error:
            raise click.UsageError(f"cannot listen on --port {port}: {error.strerror}") from error
        now = served.now.isoformat()
        if as_json:
            echo(json.dumps({"base_url": served.base_url, "pat": served.pat, "now": now}))
        else:
            echo(f"export {settings.BASE_URL_VARIABLE}={served.base_url}")
            echo(f"export {settings.ACCESS_TOKEN_VARIABLE}={served.pat}")  # the first one that is read
            # Some shells run what is pasted after a #: no quotes and backticks here.
            echo(f"# The clock of the account always shows {now}. Ctrl-C ends the sandbox.")
            if fixed:
                echo(f"# So triggers, forecast and report need --start {now}")
                echo("# Lists of runs and sessions need --since all; check and missed report triggers as missed.")
            else:
                echo("# It does not advance: after some minutes check and missed report triggers as missed.")
                echo("# Start the sandbox again then.")
        flush()
        until_the_end.enter_context(options.ended_by_signals())
        threading.Event().wait()
