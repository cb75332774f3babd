"""``qoderdata runs``: how often runs fail over time, why, and since when."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

import qoderdata as qd
from qoderdata.cli import grouping, options
from qoderdata.cli.output import MINOR, RATE_INTERVAL, Output, TableColumn, columns_where_any
from qoderdata.cli.service import Service, run_service_options
from qoderdata.formatting import counted

if TYPE_CHECKING:
    import pandas as pd

    #: A frame, and its columns for people.
    _Table = tuple[pd.DataFrame, list[TableColumn]]

RATES_OF = "rates are of completed and failed runs only"
_LAST_RUN_COUNTS = "of a run and its retries, only the last one counts"
_STREAKS_OF_A_PERIOD = "failures before that are not counted; --since all counts them"


@options.command("runs", example="qoderdata runs --since 30D --freq 1D")
@grouping.by_option("runs", "Group by (default: all together)")
@options.freq_option
@click.option(
    "--per",
    type=click.Choice(["attempt", "occurrence"]),
    default="attempt",
    help="Count every run, or each scheduled time once by its last run, after retries (default attempt).",
)
@click.option(
    "--errors",
    is_flag=True,
    help="Show what went wrong, by error type, the most frequent first; by message: `qoderdata errors`.",
)
@click.option("--streaks", is_flag=True, help="Show streaks: first who fails now, also if paused or archived.")
@click.option("--failed", is_flag=True, help="List the failed runs, the newest first.")
@click.option("--waiting", is_flag=True, help="List the runs that wait for a person, the newest first.")
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
    per: str,
    errors: bool,
    streaks: bool,
    failed: bool,
    waiting: bool,
    fail_over: float | None,
    min_runs: int,
    window: dict[str, Any],
    service: Service,
    result: Output,
) -> int:
    """Show failure rates of runs over time, errors, or streaks.

    With --failed or --waiting, list runs; --by then adds columns, such as the owner.

    A run of unknown outcome does not end a streak here; in check, failures, export, top and report it does.
    """
    views = {"--errors": errors, "--streaks": streaks, "--failed": failed, "--waiting": waiting}
    given = [name for name, is_given in views.items() if is_given]
    if len(given) > 1:
        raise click.UsageError("give one of --errors, --streaks, --failed and --waiting")
    is_list = failed or waiting
    if given:
        others = ["--freq", "--fail-over", "--min-runs", *([] if failed else ["--per"])]
        options.refuse_without_effect(others, f"with {given[0]}")
    if fail_over is None:
        options.refuse_without_effect(["--min-runs"], "without --fail-over")
    window = options.with_default_months(window, freq, result.tz)
    period = options.describe_window(window, "runs triggered", result.tz)
    has_deployment = not {"deployment", "deployment_id"}.isdisjoint(by)
    added = ["deployment"] if (is_list and not has_deployment) or (streaks and not by) else []
    groups = grouping.Groups([*by, *added], "runs", service)
    frame = groups.add_names(service.runs(window))
    empty = options.nothing_in(period, "runs")
    if per == "occurrence":
        period.append(_LAST_RUN_COUNTS)
        if failed:
            last_runs = qd.run_failure_rates(frame, by="id", per=per).index
            frame = frame[frame["id"].isin(last_runs)]
    unknown = unseen_failures(frame) if errors or failed else []
    if len(frame) and (errors or is_list):
        none = "no run is known to wait for a person" if waiting else none_failed(unknown)
        empty = "; ".join([none, *period, *unknown])
    if streaks and window["since"] is not None:
        period.append(_STREAKS_OF_A_PERIOD)
    if given:
        found, columns = _view(given[0], frame, groups, window)
        if streaks:
            failing = int(found["current_streak"].gt(0).sum())
            period.append(f"failing now: {failing:,} of {counted(len(found), 'row')}")
        result.print_frame(found, columns, empty=empty, notes=[*period, *unknown])
        return 0
    found = qd.run_failure_rates(frame, by=groups.keys or None, freq=freq, tz=result.tz, per=per)
    labels = groups.columns(found)
    enough = found["completed"] + found["failed"] >= min_runs
    above = result.name_above(found[enough], fail_over, figure="ci_low", groups=labels)
    notes = [*period, RATES_OF, *options.cut_windows(found, freq, *options.bounds_of(window, frame)), *above]
    columns = [*labels, *_rate_columns(found)]
    result.print_frame(found, columns, empty=empty, notes=notes, newest=freq is not None)
    return options.FOUND if above else 0


def unknown_outcomes(runs: pd.DataFrame) -> list[str]:
    """Return a note that says of how many runs the outcome is not known; none if all are known."""
    from qoderdata.outcomes import is_unknown  # noqa: PLC0415 - imports pandas

    unknown = int(is_unknown(runs).sum())
    if not unknown:
        return []
    advice = "; --outcomes events reads how they ended" if runs.attrs.get("outcomes") == "runs" else ""
    return [f"the outcome of {unknown:,} of {counted(len(runs), 'run')} is not known{advice}"]


def unseen_failures(runs: pd.DataFrame) -> list[str]:
    """Return notes that say how many runs may have failed although no failure is known; none if there are none."""
    from qoderdata.outcomes import STATUSES, is_assumed  # noqa: PLC0415 - imports pandas

    notes, assumed = unknown_outcomes(runs), int(is_assumed(runs).sum())
    if assumed:
        completed = counted(int(runs["status"].isin(STATUSES["completed"]).sum()), "completed run")
        advice = "" if runs.attrs.get("outcomes") == "events" else "; --outcomes events reads them"
        notes.append(f"assumed: {assumed:,} of {completed}; failures inside their sessions are not seen{advice}")
    return notes


def none_failed(unseen: list[str]) -> str:
    """Return words for no failed runs; `unseen` is what `unseen_failures` returns."""
    return "no run is known to have failed" if unseen else "no run failed"


def _view(option: str, runs: pd.DataFrame, groups: grouping.Groups, window: dict[str, Any]) -> _Table:
    """Return what an option shows instead of rates."""
    if option == "--errors":
        return _errors(runs, groups, window)
    if option == "--streaks":
        found = qd.failure_streaks(runs, by=groups.keys)
        return found, [*groups.columns(found), *_STREAK_COLUMNS]
    if option == "--failed":
        from qoderdata.outcomes import STATUSES  # noqa: PLC0415 - imports pandas

        return _listed(runs[runs["status"].isin(STATUSES["failed"])], groups, _FAILED_COLUMNS)
    found, columns = _listed(runs[runs["status"] == "waiting"], groups, _WAITING_COLUMNS)
    # In 80 columns, an answer needs the session more than a long name.
    return found, [replace(column, readable=19) if column.kind == "text" else column for column in columns]


def _errors(runs: pd.DataFrame, groups: grouping.Groups, window: dict[str, Any]) -> _Table:
    found = qd.error_breakdown(runs, by=groups.keys or None).sort_values("count", ascending=False, kind="stable")
    first_seen = "first seen in this window" if window["since"] or window["until"] else "first seen"
    columns = [
        *groups.columns(found),
        TableColumn("error", "error_type"),
        TableColumn("failed", "count", "count"),
        TableColumn("share", "share", "percent", optional=2),
        TableColumn(first_seen, "first_seen", "time", optional=3),
        TableColumn("last seen", "last_seen", "time", optional=1),
    ]
    return found, columns


def _listed(runs: pd.DataFrame, groups: grouping.Groups, columns: list[TableColumn]) -> _Table:
    found = runs.reset_index(drop=True).rename(columns={"deployment_name": "name"})
    return found, [TableColumn("triggered", "triggered_at", "time"), *groups.columns(found), *columns]


def _rate_columns(rates: pd.DataFrame) -> list[TableColumn]:
    return [
        TableColumn("runs", "runs", "count"),
        TableColumn("completed", "completed", "count", optional=2),
        *columns_where_any(rates, "assumed", "assumed completed"),
        TableColumn("failed", "failed", "count"),
        TableColumn("skipped", "skipped", "count", optional=5),
        TableColumn("unfinished", "unfinished", "count", optional=4),
        *columns_where_any(rates, "unknown", "outcome unknown"),
        TableColumn("rate", "failure_rate", "percent"),
        RATE_INTERVAL,
        TableColumn("median duration", "duration_p50_ms", "milliseconds", optional=3),
        TableColumn("95th percentile of duration", "duration_p95_ms", "milliseconds", optional=6),
    ]


_FAILED_COLUMNS = [
    TableColumn("run", "id", "id", optional=MINOR),
    TableColumn("error", "error_type"),
    TableColumn("took", "duration_ms", "milliseconds", optional=2),
    TableColumn("message", "error_message", optional=1, readable=30),
]
_WAITING_COLUMNS = [
    TableColumn("session", "session_id", "id", optional=1),
    TableColumn("run", "id", "id", optional=MINOR),
]
_STREAK_COLUMNS = [
    TableColumn("failing in a row", "current_streak", "count", is_alert=lambda row: bool(row.current_streak > 0)),
    TableColumn("failing since", "current_streak_since", "time"),
    TableColumn("longest streak", "longest_streak", "count", optional=1),
    TableColumn("mean time to repair", "mttr_ms", "milliseconds", optional=2),
]
