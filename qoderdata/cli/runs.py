"""``qoderdata runs``: how often runs fail over time, why, and since when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import qoderdata as qd
from qoderdata.cli import options
from qoderdata.cli.output import Column, count, key_columns
from qoderdata.formatting import format_interval, format_milliseconds, format_percent, format_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from qoderdata.cli.options import Service
    from qoderdata.cli.output import Output

_EMPTY = "there are no runs"


@options.command("runs", example="qoderdata runs --since 30D --freq 1D")
@options.by_option("RUNS", help="Group by this column; may be given several times (default: all together).")
@click.option("--freq", metavar="SPAN", help="One row a window of time, such as 1D or 1h.")
@click.option("--errors", is_flag=True, help="What went wrong, by error type.")
@click.option("--streaks", is_flag=True, help="Who fails now, and since when.")
@options.tz_option("of windows and times")
@options.run_filters()
@options.service
@options.output_form
def runs(
    by: Sequence[str],
    *,
    freq: str | None,
    errors: bool,
    streaks: bool,
    tz: str,
    run_filters: dict[str, Any],
    service: Service,
    result: Output,
) -> None:
    """Show failure rates of runs over time, with errors or streaks."""
    if errors and streaks:
        raise click.UsageError("give one of --errors and --streaks")
    if errors or streaks:
        options.refuse_without_effect(["--freq"], f"with --{'errors' if errors else 'streaks'}")
    elif freq is None:
        options.refuse_without_effect(["--tz"], "without --freq, --errors or --streaks")
    frame = service.runs(run_filters)
    keys = list(by) or None
    notes = _assumed_notes(frame, run_filters["outcomes"])
    if errors:
        is_whole = run_filters["since"] is None and run_filters["until"] is None
        found = options.in_zone(qd.error_breakdown(frame, by=keys), tz)
        columns = error_columns(keys or [], tz, is_whole=is_whole)
        result.print_frame(found, columns, empty="no run failed" if len(frame) else _EMPTY, notes=notes)
    elif streaks:
        keys = keys or ["deployment_id"]
        found = options.in_zone(qd.failure_streaks(frame, by=keys), tz)
        result.print_frame(found, _streak_columns(keys, tz), empty=_EMPTY, notes=notes)
    else:
        rates = qd.run_failure_rates(frame, by=keys, freq=freq, tz=tz)
        columns = _rate_columns(rates, keys or [], None if freq is None else tz)
        result.print_frame(rates, columns, empty=_EMPTY, notes=notes)


def _assumed_notes(runs: pd.DataFrame, outcomes: str) -> list[str]:
    """Say how many completed runs are assumed."""
    if "status_from" not in runs.columns:
        return []
    completed = runs["status"] == "completed"
    assumed = int((completed & (runs["status_from"] == "session")).sum())
    if not assumed:
        return []
    proof = "; --outcomes events reads how they ended" if outcomes != "events" else ""
    return [f"{assumed:,} of {completed.sum():,} completed runs are assumed{proof}"]


def _rate_columns(rates: pd.DataFrame, keys: Sequence[str], tz: str | None) -> list[Column]:
    first = key_columns(keys)
    if tz is not None:
        first.append(Column("from", lambda row: format_time(row.window, tz), "fixed"))
    return [
        *first,
        Column("runs", lambda row: count(row.runs), "number"),
        *_where_any(rates, "assumed", "assumed completed"),
        Column("failed", lambda row: count(row.failed), "number"),
        Column("skipped", lambda row: count(row.skipped), "number", optional=4),
        Column("unfinished", lambda row: count(row.unfinished), "number", optional=3),
        *_where_any(rates, "unknown", "outcome unknown"),
        Column("rate", lambda row: format_percent(row.failure_rate), "number"),
        Column("95 % interval", lambda row: format_interval(row.ci_low, row.ci_high), "number", optional=1),
        Column("median duration", lambda row: format_milliseconds(row.duration_p50_ms), "number", optional=2),
        Column(
            "95th percentile of duration",
            lambda row: format_milliseconds(row.duration_p95_ms),
            "number",
            optional=5,
        ),
    ]


def _where_any(rates: pd.DataFrame, name: str, heading: str) -> list[Column]:
    if name not in rates.columns or not rates[name].gt(0).any():
        return []
    return [Column(heading, lambda row: count(getattr(row, name)), "number")]


def error_columns(keys: Sequence[str], tz: str, *, is_whole: bool) -> list[Column]:
    """Return the columns of an `error_breakdown` for people; `is_whole`: of all runs, not of some time."""
    first_seen = "first seen" if is_whole else "first seen in this window"
    return [
        *key_columns(keys),
        Column("error", lambda row: row.error_type),
        Column("failed", lambda row: count(row.count), "number"),
        Column("share", lambda row: format_percent(row.share), "number"),
        Column(first_seen, lambda row: format_time(row.first_seen, tz), "fixed", optional=1),
        Column("last seen", lambda row: format_time(row.last_seen, tz), "fixed"),
    ]


def _streak_columns(keys: Sequence[str], tz: str) -> list[Column]:
    return [
        *key_columns(keys),
        Column("failing in a row", lambda row: count(row.current_streak), "number", is_alert=_is_failing),
        Column("failing since", lambda row: format_time(row.current_streak_since, tz), "fixed"),
        Column("longest streak", lambda row: count(row.longest_streak), "number", optional=1),
        Column("mean time to repair", lambda row: format_milliseconds(row.mttr_ms), "number", optional=2),
    ]


def _is_failing(row: Any) -> bool:  # noqa: ANN401 - a row
    return bool(row.current_streak > 0)
