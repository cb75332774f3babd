"""``qoderdata compare-costs``: what costs more than before?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import qoderdata as qd
from qoderdata.cli import grouping, options
from qoderdata.cli.compare import Periods, periods_options
from qoderdata.cli.costs import note_on_missing, note_without_usage, refuse_outcomes
from qoderdata.cli.output import Output, TableColumn, columns_where_any
from qoderdata.cli.service import Service, run_service_options
from qoderdata.formatting import MISSING, counted, format_credits, format_duration

if TYPE_CHECKING:
    import pandas as pd


@options.command("compare-costs", example="qoderdata compare-costs --recent 7D --by team")
@grouping.by_option("sessions", "Group by (default deployment)")
@periods_options
@options.gather("which", dict, *options.deployment_options("sessions of "), group="Which sessions")
@run_service_options
@options.output_form()
def compare_costs(
    by: tuple[str, ...], *, periods: Periods, which: dict[str, Any], service: Service, result: Output
) -> None:
    """Compare what sessions cost with the period before.

    A session counts when it was created, with all credits that it has cost so far. The largest increase comes
    first.
    """
    refuse_outcomes(by)
    groups = grouping.Groups(by or ["deployment"], "sessions", service)
    sessions = groups.add_names(service.load_of(qd.load_sessions, {**periods.bounds, **which}))
    found = qd.compare_costs(sessions, by=groups.keys, **periods._asdict())
    unknown = [
        *columns_where_any(found, "recent_unknown", "usage unknown"),
        *columns_where_any(found, "baseline_unknown", "unknown before"),
    ]
    about = [periods.note(result.tz), *options.filter_notes(which)]
    notes = [
        *_notes(sessions, periods),
        *note_without_usage(sessions),
        *note_on_missing(sessions, groups.keys),
        *groups.notes,
        *about,
    ]
    columns = [*groups.columns(found), *_columns(periods), *unknown]
    result.print_frame(found, columns, empty="; ".join(["there are no sessions", *about]), notes=notes)


def _notes(sessions: pd.DataFrame, periods: Periods) -> list[str]:
    if sessions.empty:
        return []
    total = qd.compare_costs(sessions, by=None, **periods._asdict())
    spent, change = total["recent_credits"].item(), total["change"].item()
    against = "" if math.isnan(change) else f", {_signed(change)} against before"
    notes = [] if math.isnan(spent) else [f"{format_credits(spent)} credits in all{against}"]
    if unknown := int(total["recent_unknown"].item() + total["baseline_unknown"].item()):
        notes.append(f"the usage of {counted(unknown, 'session')} is not known, and not in the sums")
    if periods.recent != periods.baseline:
        length, recent = format_duration(periods.baseline), format_duration(periods.recent)
        notes.append(
            f"credits before: those of the {length} before, scaled to {recent}; sessions before: not scaled"
        )
    return notes


def _columns(periods: Periods) -> list[TableColumn]:
    share = periods.recent / periods.baseline
    return [
        TableColumn("credits", "recent_credits", "credits"),
        TableColumn("credits before", lambda row: row.baseline_credits * share, "credits"),
        TableColumn("change", lambda row: _signed(row.change), "number"),
        TableColumn("sessions", "recent_sessions", "count", optional=1),
        TableColumn("sessions before", "baseline_sessions", "count", optional=1),
        TableColumn("median a session", "recent_credits_p50", "credits", optional=2),
        TableColumn("median before", "baseline_credits_p50", "credits", optional=3),
    ]


def _signed(credits_: float) -> str:
    return MISSING if math.isnan(credits_) else f"{round(credits_, 2) + 0.0:+,.2f}"  # never -0.00
