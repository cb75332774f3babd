"""``qoderdata demo``: the main job on the bundled sandbox, from the first request to the report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

import qoderdata as qd
from qoderdata.cli import options
from qoderdata.cli.failures import rate_columns
from qoderdata.cli.output import MINOR, TableColumn, echo, print_table
from qoderdata.cli.sandbox import account
from qoderdata.cli.service import lacks_counters
from qoderdata.cli.triggers import TRIGGER_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = 8
_HORIZON = "24h"
_NAME_AND_ID = [TableColumn("name", "name"), TableColumn("id", "id", "id", optional=MINOR)]


@options.command("demo", example="qoderdata demo --out demo")
@account
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    metavar="DIR",
    help="Folder to write to (default demo).",
)
def demo(*, account: dict[str, Any], out: Path) -> None:
    """Pull and analyse a generated account; no account is needed.

    The account is served by the bundled sandbox over HTTP. Tables, pictures and a report are written to a folder.
    """
    from qoderdata.sandbox import Sandbox  # noqa: PLC0415 - `--help` needs none

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(
            f"no folder {str(out)!r} can be made ({error.strerror}); give another --out"
        ) from error
    with Sandbox(**account) as sandbox:
        echo(f"A sandbox of the service, edition {account['edition']}, runs at {sandbox.base_url}\n")
        client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url, min_interval=0)
        began = time.monotonic()
        kept: dict[str, Any] = {"client": client, "cache_dir": out / "cache"}
        deployments = qd.load_deployments(include_archived=True, refresh=True, **kept)
        runs = qd.load_runs(**kept, outcomes="events")
        sessions = qd.load_sessions(**kept)
        agents = qd.load_agents(**kept)
        now = sandbox.now
    requests = sum(frame.attrs["requests"] for frame in (deployments, runs, sessions, agents))
    echo(
        f"{len(deployments):,} deployments, {len(runs):,} runs, {len(sessions):,} sessions and {len(agents):,} "
        f"agents pulled in {requests:,} requests and {time.monotonic() - began:.1f} s\n"
    )

    is_counted_here = lacks_counters(deployments)
    counted = qd.fill_counters(deployments, runs) if is_counted_here else deployments
    rates = qd.failure_rates(counted)
    triggers = qd.next_triggers(deployments, _HORIZON, start=now)
    title = "Who fails most" if is_counted_here else "Who fails most, by lifetime counters"
    _print_section(title, rates, [*_NAME_AND_ID, *rate_columns()])
    _print_section(f"What fires in the next {_HORIZON}", triggers, TRIGGER_COLUMNS)

    qd.export_parquet(deployments, out / "deployments.parquet")
    qd.export_csv(deployments, out / "deployments.csv")
    qd.export_parquet(runs, out / "runs.parquet")
    _save(qd.plot_failure_rates(rates), out / "failure-rates.png")
    _save(qd.plot_next_triggers(qd.with_names(triggers, agents=agents)), out / "next-triggers.png")
    _save(qd.plot_trigger_load(qd.next_triggers(deployments, "7D", start=now)), out / "trigger-load.png")
    _save(qd.plot_run_calendar(runs), out / "run-calendar.png")
    qd.write_report(
        qd.with_names(counted, agents=agents),
        out / "report.html",
        runs=runs,
        sessions=sessions,
        start=now,
        horizon=_HORIZON,
    )

    echo("Written:")
    for path in sorted(out.iterdir()):
        if path.is_file():
            echo(f"  {path}")
    echo(f"\nOpen {out / 'report.html'} in a browser.")


def _print_section(title: str, frame: pd.DataFrame, columns: Sequence[TableColumn]) -> None:
    more = f" (first {_SHOWN} of {len(frame):,})" if len(frame) > _SHOWN else ""
    echo(f"{title}{more}\n")
    print_table(frame.head(_SHOWN), columns)
    echo()


def _save(ax: Axes, path: Path) -> None:
    cast("Figure", ax.figure).savefig(path, dpi=120)
