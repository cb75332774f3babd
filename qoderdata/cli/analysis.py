"""``failures``, ``runs``, ``triggers`` and ``missed``: the analysis as tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pandas as pd

from qoderdata import times
from qoderdata.cli import options
from qoderdata.cli.tables import Column, as_json, for_people
from qoderdata.export import csv_text
from qoderdata.summaries import error_breakdown, failure_rates, failure_streaks, run_failure_rates
from qoderdata.timelines import missed_triggers, next_triggers, trigger_load
from qoderdata.words import interval, milliseconds, moment, percent

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

#: The exit code of ``--fail-over``.
_OVER = 1


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands that print tables."""
    failures = options.add_command(
        commands,
        "failures",
        _failures,
        summary="Which deployments, agents or teams fail most, by their lifetime counters.",
        example="qoderdata failures --by agent_id --top 10",
    )
    failures.add_argument("--by", default="id", metavar="COLUMN", help="group by this column (default id)")
    failures.add_argument(
        "--fail-over", type=float, metavar="RATE", help="exit with 1 if a rate is above, such as 0.2"
    )
    failures.add_argument("--min-runs", type=int, default=1, metavar="N", help="leave out what has fewer runs")
    options.add_deployment_filters(failures)

    runs = options.add_command(
        commands,
        "runs",
        _runs,
        summary="Failure rates of runs over time, with errors or streaks.",
        example="qoderdata runs --since 30D --freq 1D",
    )
    runs.add_argument("--by", default=None, metavar="COLUMN", help="group by this column (default: all together)")
    runs.add_argument("--freq", default=None, metavar="SPAN", help="a row a window, such as 1D or 1h")
    runs.add_argument("--tz", default="UTC", metavar="ZONE", help="the zone of the windows (default UTC)")
    kind = runs.add_mutually_exclusive_group()
    kind.add_argument("--errors", action="store_true", help="what went wrong, by error type")
    kind.add_argument("--streaks", action="store_true", help="who fails now, and since when")
    options.add_run_filters(runs)

    triggers = options.add_command(
        commands,
        "triggers",
        _triggers,
        summary="What fires next.",
        example="qoderdata triggers --horizon 24h --tz Asia/Shanghai",
    )
    triggers.add_argument("--horizon", default="24h", metavar="SPAN", help="how far to look (default 24h)")
    triggers.add_argument("--start", metavar="TIME", help="from when; with its zone (default: now)")
    triggers.add_argument(
        "--tz", default="UTC", metavar="ZONE", help="the zone that times are shown in (default UTC)"
    )
    triggers.add_argument("--include-paused", action="store_true", help="as if nothing were paused")
    triggers.add_argument("--load", metavar="SPAN", help="how many start in each window, such as 1h")
    options.add_deployment_filters(triggers)

    missed = options.add_command(
        commands,
        "missed",
        _missed,
        summary="What should have fired but did not.",
        example="qoderdata missed --since 7D",
    )
    missed.add_argument(
        "--grace", default="10min", metavar="SPAN", help="how late a run may start (default 10min)"
    )
    options.add_run_filters(missed, since="7D")
    options.add_deployment_filters(missed)

    for command in (failures, runs, triggers, missed):
        command.add_argument("--top", type=int, default=40, metavar="N", help="show so many rows (default 40)")
        options.add_service(command)
        options.add_style(command)


def _show(frame: pd.DataFrame, columns: Sequence[Column], arguments: argparse.Namespace, *, nothing: str) -> None:
    style = options.style(arguments)
    if style == "csv":
        print(csv_text(frame), end="")
    elif style == "json":
        print(as_json(frame))
    elif frame.empty:
        print(nothing)
    else:
        print(for_people(frame.head(arguments.top), columns, markdown=style == "markdown"))
        if len(frame) > arguments.top:
            print(f"\n{arguments.top} of {len(frame):,} rows; --top shows more, --csv and --json give all")


def _failures(arguments: argparse.Namespace) -> int:
    rates = failure_rates(options.deployments(arguments), by=arguments.by)
    rates = rates[(rates["total_runs"] >= arguments.min_runs).fillna(value=False)]
    _show(rates, rate_columns(arguments.by), arguments, nothing="no deployment has run so often")
    if arguments.fail_over is not None and (rates["failure_rate"] > arguments.fail_over).any():
        return _OVER
    return 0


def rate_columns(by: str) -> list[Column]:
    """Say how `failure_rates` are shown."""
    key = "name" if by == "id" else by
    return [
        Column(key, lambda row: getattr(row, key) if key.isidentifier() else row[0]),
        Column("runs", lambda row: f"{row.total_runs:,}", number=True),
        Column("failed", lambda row: f"{row.total_failures:,}", number=True),
        Column("rate", lambda row: percent(row.failure_rate), number=True),
        Column("95 % interval", lambda row: interval(row.ci_low, row.ci_high), number=True),
        Column("in a row", lambda row: _count(row.consecutive_failures), number=True),
    ]


def _runs(arguments: argparse.Namespace) -> int:
    runs = options.runs(arguments)
    by = None if arguments.by is None else arguments.by
    if arguments.errors:
        _show(error_breakdown(runs, by=by), error_columns(by), arguments, nothing="no run failed")
    elif arguments.streaks:
        streaks = failure_streaks(runs, by=by or "deployment_id")
        _show(streaks, streak_columns(by or "deployment_id"), arguments, nothing="there are no runs")
    else:
        rates = run_failure_rates(runs, by=by, freq=arguments.freq, tz=arguments.tz)
        _show(rates, _run_rate_columns(by, arguments), arguments, nothing="there are no runs")
    return 0


def _run_rate_columns(by: str | None, arguments: argparse.Namespace) -> list[Column]:
    keys = [] if by is None else [Column(by, lambda row: getattr(row, by))]
    if arguments.freq is not None:
        keys.append(Column("from", lambda row: moment(row.window, arguments.tz)))
    return [
        *keys,
        Column("runs", lambda row: f"{row.runs:,}", number=True),
        Column("failed", lambda row: f"{row.failed:,}", number=True),
        Column("skipped", lambda row: f"{row.skipped:,}", number=True),
        Column("unfinished", lambda row: f"{row.unfinished:,}", number=True),
        Column("rate", lambda row: percent(row.failure_rate), number=True),
        Column("95 % interval", lambda row: interval(row.ci_low, row.ci_high), number=True),
        Column("median", lambda row: milliseconds(row.duration_p50_ms), number=True),
        Column("95th", lambda row: milliseconds(row.duration_p95_ms), number=True),
    ]


def error_columns(by: str | None) -> list[Column]:
    """Say how an `error_breakdown` is shown."""
    return [
        *([] if by is None else [Column(by, lambda row: getattr(row, by))]),
        Column("error", lambda row: row.error_type),
        Column("failed", lambda row: f"{row.count:,}", number=True),
        Column("share", lambda row: percent(row.share), number=True),
        Column("first seen", lambda row: moment(row.first_seen)),
        Column("last seen", lambda row: moment(row.last_seen)),
    ]


def streak_columns(by: str) -> list[Column]:
    """Say how `failure_streaks` are shown."""
    return [
        Column(by, lambda row: getattr(row, by)),
        Column("in a row", lambda row: _count(row.current_streak), number=True),
        Column("since", lambda row: moment(row.current_streak_since)),
        Column("longest", lambda row: _count(row.longest_streak), number=True),
        Column("mean repair", lambda row: milliseconds(row.mttr_ms)),
    ]


def _triggers(arguments: argparse.Namespace) -> int:
    triggers = next_triggers(
        options.deployments(arguments),
        horizon=arguments.horizon,
        start=arguments.start,
        tz=arguments.tz,
        include_paused=arguments.include_paused,
    )
    if arguments.load is not None:
        load = trigger_load(triggers, freq=arguments.load)
        _show(load, _load_columns(arguments.tz), arguments, nothing="nothing fires")
    else:
        _show(triggers, trigger_columns(arguments.tz), arguments, nothing="nothing fires")
    return 0


def trigger_columns(tz: str) -> list[Column]:
    """Say how `next_triggers` are shown."""
    return [
        Column("fires at", lambda row: moment(row.trigger_at, tz)),
        Column("name", lambda row: row.name),
        Column("schedule", lambda row: row.schedule_expression),
        Column("zone", lambda row: row.schedule_timezone),
        Column("there", lambda row: row.local_time.strftime("%a %H:%M")),
    ]


def _load_columns(tz: str) -> list[Column]:
    return [
        Column("from", lambda row: moment(row.window, tz)),
        Column("triggers", lambda row: f"{row.triggers:,}", number=True),
        Column("deployments", lambda row: f"{row.deployments:,}", number=True),
        Column("on the hour", lambda row: f"{row.at_minute_0:,}", number=True),
    ]


def _missed(arguments: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    since = times.moment(arguments.since, now=now, name="since")
    until = now if arguments.until is None else times.moment(arguments.until, now=now, name="until")
    deployments = options.deployments(arguments, include_archived=True)
    missed = missed_triggers(deployments, options.runs(arguments), since=since, until=until, grace=arguments.grace)
    _show(missed, missed_columns(), arguments, nothing="nothing was missed")
    return 0


def missed_columns() -> list[Column]:
    """Say how `missed_triggers` are shown."""
    return [
        Column("should have fired", lambda row: moment(row.scheduled_at)),
        Column("name", lambda row: row.name),
        Column("certain", lambda row: "yes" if row.certain else "no: paused or changed since"),
    ]


def _count(value: Any) -> str:  # noqa: ANN401 - an integer or one of pandas' missing values
    return "–" if pd.isna(value) else f"{value:,}"
