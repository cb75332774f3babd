"""``qoderdata forecast``: what the next triggers will cost, in credits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import qoderdata as qd
from qoderdata.cli import grouping, options
from qoderdata.cli.costs import note_without_usage
from qoderdata.cli.output import DEPLOYMENT, Output, TableColumn
from qoderdata.cli.service import Service, service_options
from qoderdata.formatting import MISSING, counted, format_credits

if TYPE_CHECKING:
    import pandas as pd


@options.command("forecast", example="qoderdata forecast --horizon 30D --since 90D")
@grouping.by_option("deployments", "Group by (default deployment)")
@options.span_option("--horizon", "Length of time to look ahead (default 30D).", default="30D")
@options.time_option("--start", "Start of that time, with its zone (default: now).")
@options.window(since="90D", what="Sessions created")
@options.deployment_filters(archived=False)
@service_options
@options.output_form(times=None)
def forecast(
    by: tuple[str, ...],
    *,
    horizon: str,
    start: str | None,
    window: dict[str, Any],
    filters: dict[str, Any],
    service: Service,
    result: Output,
) -> None:
    """Show what the next triggers will cost, in credits.

    The number of triggers is exact. Each one is expected to cost the mean of the deployment's sessions that have
    ended. There is no interval where a deployment of a group has one session of known cost.

    "Of the budget" is about one session: the 95th percentile of their costs, as a share of the budget.
    """
    period = options.describe_window(window, "sessions created", "UTC")
    deployments = service.deployments(filters)
    sessions = service.load(qd.load_sessions, **window)
    groups = grouping.Groups(by, "deployments", service, deployments=deployments)
    named = groups.add_names(deployments)
    begin = start or datetime.now(UTC)
    found = qd.cost_forecast(named, sessions, horizon, by=groups.keys or "deployment_id", start=begin)
    total = qd.cost_forecast(named, sessions, horizon, by=None, start=begin)
    ahead = options.describe_horizon(horizon, start, "UTC")
    empty = options.nothing_fires(ahead, deployments, filters)
    costs_of = [f"from the costs of {sessions_of}" for sessions_of in period]
    notes = [*_notes(total, ahead), *note_without_usage(sessions), *costs_of, *options.filter_notes(filters)]
    unknown = [_UNKNOWN] if by and found["unknown"].any() else []
    columns = [*(groups.columns(found) if by else DEPLOYMENT), *_EXPECTED, *unknown, *_SESSIONS]
    result.print_frame(found, columns, empty=empty, notes=notes)


def _notes(total: pd.DataFrame, ahead: str) -> list[str]:
    """Return notes about all triggers together; none if nothing fires."""
    without, notes = total.attrs["triggers_without_credits"], []
    rows: Any = total.dropna(subset="expected").itertuples()
    for row in rows:
        interval = _interval(row)
        words = _NO_INTERVAL if interval == MISSING else f"95 % interval {interval}"
        notes.append(f"{format_credits(row.expected)} credits in all {ahead}; {words}")
    if without:
        what = counted(without, "more trigger" if notes else "trigger")
        notes.append(f"{what} of deployments without a session of known cost in that time: the cost is not known")
    return notes


def _interval(row: Any) -> str:  # noqa: ANN401 - a row
    low, high = format_credits(row.low), format_credits(row.high)
    return MISSING if MISSING in (low, high) else f"{low}–{high}"


_NO_INTERVAL = "no interval, as a deployment has a single session of known cost"
_EXPECTED = [
    TableColumn("triggers", "triggers", "count"),
    TableColumn("credits expected", "expected", "credits"),
    TableColumn("95 % interval", _interval, "number", optional=1),
]
_UNKNOWN = TableColumn("cost unknown", "unknown", "count")
_SESSIONS = [
    TableColumn("sessions known", "sessions", "count", optional=2),
    TableColumn("of the budget", "budget_use", "percent", optional=3),
]
