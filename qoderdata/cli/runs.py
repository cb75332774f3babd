"""``qoderdata runs``: how often runs fail over time, why, and since when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import qoderdata as qd
from qoderdata.cli import grouping, options
from qoderdata.cli.output import MINOR, Output, TableColumn, columns_where_any, window_columns
from qoderdata.cli.service import Service, run_service_options
from qoderdata.formatting import format_count, format_interval, format_milliseconds, format_percent, format_time

if TYPE_CHECKING:
    import pandas as pd


RATES_OF = "rates are of completed and failed runs only"
_STREAKS_OF_A_PERIOD = "failures before that are not counted; --since all counts them"


@options.command("runs", example="qoderdata runs --since 30D --freq 1D")
@grouping.by_option("runs", "Group by (default: all together)")
@options.freq_option("1D or 1h")
@click.option("--errors", is_flag=True, help="Show what went wrong, by error type, the most frequent first.")
@click.option("--streaks", is_flag=True, help="Show who fails now and since when, also if paused or archived.")
@click.option("--failed", is_flag=True, help="List the failed runs, the newest first.")
@options.fail_over_option(
    "Exit with 1 if a group or window has its whole 95 % interval above RATE, a share from 0 to 1."
)
@options.number_option(
    "--min-runs",
    "With --fail-over, ignore groups and windows with fewer runs that completed or failed (default 1).",
    least=0,
    default=1,
)
@options.run_window()
@run_service_options
@options.output_form(times="of windows and times")
def runs(
    by: tuple[str, ...],
    *,
    freq: str | None,
    errors: bool,
    streaks: bool,
    failed: bool,
    fail_over: float | None,
    min_runs: int,
    window: dict[str, Any],
    service: Service,
    result: Output,
) -> int:
    """Show failure rates of runs over time, with errors or streaks, or list the failed runs.

    A run of unknown outcome does not end a streak here; in check, top and the report it does.
    """
    flags = {"--errors": errors, "--streaks": streaks, "--failed": failed}
    chosen = [name for name, is_given in flags.items() if is_given]
    if len(chosen) > 1:
        raise click.UsageError("give one of --errors, --streaks and --failed")
    if chosen:
        options.refuse_without_effect(["--freq", "--fail-over", "--min-runs"], f"with {chosen[0]}")
    elif freq is None:
        options.refuse_without_effect(["--tz"], "without --freq, --errors, --streaks or --failed")
    if failed:
        options.refuse_without_effect(["--by"], "with --failed")
    if fail_over is None:
        options.refuse_without_effect(["--min-runs"], "without --fail-over")
    period = options.describe_window(window, "runs triggered", result.tz)
    groups = grouping.Groups(by or (["deployment"] if streaks or failed else []), "runs", service)
    frame = groups.add_names(service.runs(window))
    keys = groups.keys or None
    empty = options.nothing_in(period, "runs")
    if len(frame) and (errors or failed):
        empty = "; ".join(["no run failed", *period])
    if errors:
        found = qd.error_breakdown(frame, by=keys).sort_values("count", ascending=False, kind="stable")
        columns = [*groups.columns(found), *_error_columns(result.tz, is_whole=not period)]
        result.print_frame(found, columns, empty=empty, notes=period)
    elif failed:
        found = (
            frame[frame["status"] == "failed"].reset_index(drop=True).rename(columns={"deployment_name": "name"})
        )
        columns = _failed_columns(groups.columns(found), result.tz)
        result.print_frame(found, columns, empty=empty, notes=period)
    elif streaks:
        found = qd.failure_streaks(frame, by=keys)
        notes = period if window["since"] is None else [*period, _STREAKS_OF_A_PERIOD]
        result.print_frame(found, [*groups.columns(found), *_streak_columns(result.tz)], empty=empty, notes=notes)
    else:
        rates = qd.run_failure_rates(frame, by=keys, freq=freq, tz=result.tz)
        labels = [*groups.columns(rates), *window_columns(rates, result.tz)]
        enough = rates["completed"] + rates["failed"] >= min_runs
        above = result.name_above(rates[enough], fail_over, figure="ci_low", groups=labels)
        columns = [*labels, *_rate_columns(rates)]
        notes = [*period, RATES_OF, *above]
        result.print_frame(rates, columns, empty=empty, notes=notes, newest=freq is not None)
        return options.FOUND if above else 0
    return 0


def _rate_columns(rates: pd.DataFrame) -> list[TableColumn]:
    return [
        TableColumn("runs", lambda row: format_count(row.runs), "number"),
        *columns_where_any(rates, "assumed", "assumed completed"),
        TableColumn("failed", lambda row: format_count(row.failed), "number"),
        TableColumn("skipped", lambda row: format_count(row.skipped), "number", optional=4),
        TableColumn("unfinished", lambda row: format_count(row.unfinished), "number", optional=3),
        *columns_where_any(rates, "unknown", "outcome unknown"),
        TableColumn("rate", lambda row: format_percent(row.failure_rate), "number"),
        TableColumn("95 % interval", lambda row: format_interval(row.ci_low, row.ci_high), "number", optional=1),
        TableColumn("median duration", lambda row: format_milliseconds(row.duration_p50_ms), "number", optional=2),
        TableColumn(
            "95th percentile of duration",
            lambda row: format_milliseconds(row.duration_p95_ms),
            "number",
            optional=5,
        ),
    ]


def _error_columns(tz: str, *, is_whole: bool) -> list[TableColumn]:
    """Return the columns of an `error_breakdown` for people; `is_whole`: of all runs, not of some time."""
    first_seen = "first seen" if is_whole else "first seen in this window"
    return [
        TableColumn("error", lambda row: row.error_type),
        TableColumn("failed", lambda row: format_count(row.count), "number"),
        TableColumn("share", lambda row: format_percent(row.share), "number", optional=1),
        TableColumn(first_seen, lambda row: format_time(row.first_seen, tz), "fixed", optional=2),
        TableColumn("last seen", lambda row: format_time(row.last_seen, tz), "fixed"),
    ]


def _failed_columns(groups: list[TableColumn], tz: str) -> list[TableColumn]:
    return [
        TableColumn("triggered", lambda row: format_time(row.triggered_at, tz), "fixed"),
        *groups,
        TableColumn("run", lambda row: row.id, "id", optional=MINOR),
        TableColumn("error", lambda row: row.error_type),
        TableColumn("took", lambda row: format_milliseconds(row.duration_ms), "number", optional=2),
        TableColumn("message", lambda row: row.error_message, optional=1),
    ]


def _streak_columns(tz: str) -> list[TableColumn]:
    return [
        TableColumn(
            "failing in a row", lambda row: format_count(row.current_streak), "number", is_alert=_is_failing
        ),
        TableColumn("failing since", lambda row: format_time(row.current_streak_since, tz), "fixed"),
        TableColumn("longest streak", lambda row: format_count(row.longest_streak), "number", optional=1),
        TableColumn("mean time to repair", lambda row: format_milliseconds(row.mttr_ms), "number", optional=2),
    ]


def _is_failing(row: Any) -> bool:  # noqa: ANN401 - a row
    return bool(row.current_streak > 0)
