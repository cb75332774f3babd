"""``qoderdata report``: one page for a colleague."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

import qoderdata as qd
from qoderdata import arguments, time_math
from qoderdata.cli import grouping, options
from qoderdata.cli.output import echo
from qoderdata.cli.service import Service, dated_service_options
from qoderdata.errors import CacheError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


#: How far back changes are shown, missed triggers computed (two weeks, for the comparison), and costs added up.
_CHANGES, _MISSED, _COSTS = timedelta(days=7), timedelta(days=14), timedelta(days=90)


def _page_path(ctx: click.Context, param: click.Parameter, value: str) -> Path | None:
    """Read the name of a file to write; its ending, where it has one, is that of an HTML page."""
    from qoderdata.report.page import check_ending  # noqa: PLC0415 - `--help` needs none

    path = options.output_path(ctx, param, value)
    check_ending(value)
    return path


@options.command("report", example="qoderdata report report.html --runs --by team --tz Asia/Shanghai")
@click.argument("path", metavar="FILE", type=options.PATH, callback=_page_path)
@click.option("--runs", "with_runs", is_flag=True, help="Add runs: headline, changes, errors, missed triggers.")
@click.option("--costs", "with_costs", is_flag=True, help="Add what sessions of 90 days cost, and will cost.")
@click.option(
    "--by",
    metavar="WHAT",
    multiple=True,
    help="Failure rates by agent, environment, a column, or a key of metadata (default team, else agent).",
)
@click.option(
    "--title", metavar="TEXT", help="What the page is about; by default it names the filters of deployments."
)
@click.option("--lang", type=click.Choice(["en", "zh"]), default="en", help="The language (default en).")
@options.span_option("--horizon", "Length of time to look ahead, for triggers (default 24h).", default="24h")
@options.time_option("--start", "Time that the report is about, with its zone (default: now).")
@options.tz_option("of the times shown")
@options.run_window(of=None)
@options.deployment_filters(archived=False)
@dated_service_options
def report(
    path: Path,
    *,
    with_runs: bool,
    with_costs: bool,
    by: tuple[str, ...],
    lang: str,
    title: str | None,
    horizon: str,
    start: str | None,
    tz: str,
    window: dict[str, Any],
    filters: dict[str, Any],
    service: Service,
) -> None:
    """Write one self-contained HTML page to FILE.

    Stored snapshots show changes, pauses and earlier schedules; see `qoderdata changes`.
    """
    from qoderdata.report.page import default_title  # noqa: PLC0415 - `--help` needs none

    if len(by) > 1:
        raise click.UsageError("give --by once: a report has rates by one thing")
    if not with_runs:
        options.refuse_without_effect(["--since", "--until"], "without --runs")
    at = datetime.now(UTC) if start is None else arguments.parse_instant(start, name="start").to_pydatetime()
    for name in ("since", "until"):  # ages are counted from the time that the report is about
        if window[name] is not None:
            window[name] = arguments.parse_bound(window[name], now=at, name=name).isoformat()
    until = None if start is None else at.isoformat()
    snapshots = _snapshots(service, at)
    runs = all_runs = None
    if with_runs:
        deployments = service.deployments(filters)
        runs = service.with_ends_of_stuck(service.runs(window), deployments)
        all_runs = service.runs_for_streaks(deployments, runs, until=until)
    else:
        deployments = service.counted_deployments(filters, until=until)
    sessions = service.load(qd.load_sessions, since=time_math.earlier(at, _COSTS)) if with_costs else None
    if options.filters_given(filters):
        ids = deployments["id"]
        snapshots = [frame[frame["id"].isin(ids)] for frame in snapshots]
        runs, all_runs, sessions = (
            None if frame is None else frame[frame["deployment_id"].isin(ids)]
            for frame in (runs, all_runs, sessions)
        )
    group = by[0] if by else None
    by_environment = group in {"environment", "environment_id"}
    agents = grouping.load_or_none(lambda: service.load(qd.load_agents))
    environments = grouping.load_or_none(lambda: service.load(qd.load_environments)) if by_environment else None
    if agents is not None or environments is not None:
        deployments = qd.with_names(deployments, agents=agents, environments=environments)
    qd.write_report(
        deployments,
        path,
        runs=runs,
        sessions=sessions,
        all_runs=all_runs,
        snapshots=snapshots,
        by=group,
        start=start,
        horizon=horizon,
        tz=tz,
        lang=lang,
        title=title or default_title(lang, _title_words(filters)),
    )
    echo(f"report written to {path}")


def _title_words(filters: dict[str, Any]) -> str:
    """Return the filters that were given, for a reader who does not know the command."""
    return ", ".join(
        text if option in {"where", "deployment", "agent"} else f"{option.replace('-', ' ')} {text}"
        for option, text in options.filter_texts(filters)
    )


def _snapshots(service: Service, start: datetime) -> list[pd.DataFrame]:
    """Return the stored schedules, and the whole snapshot of a week before the start, else the first one."""
    account = {**service.account, "include_archived": True}
    found = service.snapshots(time_math.earlier(start, _MISSED))
    with contextlib.suppress(CacheError):
        return [*found, qd.load_deployments(as_of=time_math.earlier(start, _CHANGES), **account)]
    if found:
        return [*found, qd.load_deployments(as_of=found[0].attrs["fetched_at"], **account)]
    return found
