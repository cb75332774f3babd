"""``qoderdata demo``: the main job on the bundled sandbox, from the first request to the report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from qoderdata.cli import options
from qoderdata.cli.analysis import rate_columns, trigger_columns
from qoderdata.cli.served import add_account
from qoderdata.cli.tables import for_people
from qoderdata.client import Client
from qoderdata.export import export_csv, export_parquet
from qoderdata.load import load_deployments, load_runs
from qoderdata.plots import plot_failure_rates, plot_next_triggers, plot_run_calendar, plot_trigger_load
from qoderdata.report import write_report
from qoderdata.sandbox import Sandbox
from qoderdata.summaries import failure_rates
from qoderdata.timelines import next_triggers

if TYPE_CHECKING:
    import argparse

    import pandas as pd
    from matplotlib.axes import Axes

_SHOWN = 8
_HORIZON = "24h"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``demo``."""
    command = options.add_command(
        commands,
        "demo",
        _demo,
        summary="Pull a generated account from the bundled sandbox, analyse it, and write everything.",
        example="qoderdata demo --out demo",
    )
    add_account(command)
    command.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="where to write (default demo)"
    )


def _demo(arguments: argparse.Namespace) -> int:
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    with Sandbox(arguments.deployments, seed=arguments.seed, runs=arguments.runs) as sandbox:
        print(f"A sandbox of the service runs at {sandbox.base_url}\n")
        client = Client(pat=sandbox.pat, base_url=sandbox.base_url)
        began = time.monotonic()
        deployments = load_deployments(include_archived=True, client=client, cache_dir=out / "cache", refresh=True)
        runs = load_runs(client=client, cache_dir=out / "cache")
        now = sandbox.now
    requests = deployments.attrs["requests"] + runs.attrs["requests"]
    print(
        f"{len(deployments):,} deployments and {len(runs):,} runs pulled in {requests} requests "
        f"and {time.monotonic() - began:.1f} s\n"
    )

    rates = failure_rates(deployments)
    triggers = next_triggers(deployments, _HORIZON, start=now)
    _say("Who fails most, by lifetime counters", rates, for_people(rates.head(_SHOWN), rate_columns("id")))
    _say(f"What fires in the next {_HORIZON}", triggers, for_people(triggers.head(_SHOWN), trigger_columns("UTC")))

    export_parquet(deployments, out / "deployments.parquet")
    export_csv(deployments, out / "deployments.csv")
    export_parquet(runs, out / "runs.parquet")
    names = dict(zip(deployments["id"], deployments["name"], strict=True))
    _save(plot_failure_rates(rates), out / "failure-rates.png")
    _save(plot_next_triggers(triggers, labels=names), out / "next-triggers.png")
    _save(plot_trigger_load(triggers), out / "trigger-load.png")
    _save(plot_run_calendar(runs), out / "run-calendar.png")
    write_report(deployments, out / "report.html", runs=runs, start=now, horizon=_HORIZON)

    print("Written:")
    for path in sorted(out.iterdir()):
        if path.is_file():
            print(f"  {path}")
    print(f"\nOpen {out / 'report.html'} in a browser; `make lab` opens the notebooks.")
    return 0


def _say(title: str, frame: pd.DataFrame, table: str) -> None:
    more = f" (first {_SHOWN} of {len(frame):,})" if len(frame) > _SHOWN else ""
    print(f"{title}{more}\n\n{table}\n")


def _save(ax: Axes, path: Path) -> None:
    figure = ax.get_figure(root=True)
    assert figure is not None  # noqa: S101 - the plots draw on figures
    figure.savefig(path, dpi=120)
