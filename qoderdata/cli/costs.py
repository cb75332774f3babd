"""``qoderdata costs``: what sessions cost, in credits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import qoderdata as qd
from qoderdata.cli import grouping, options
from qoderdata.cli.output import Output, TableColumn, columns_where_any
from qoderdata.cli.service import Service, run_service_options
from qoderdata.formatting import MISSING, counted, format_credits

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


@options.command("costs", example="qoderdata costs --since 30D --by agent")
@grouping.by_option("sessions", "Group by (default deployment; with --freq all together)")
@options.freq_option
@options.window(since="30D", what="Created", of="sessions", group="Which sessions")
@run_service_options
@options.output_form(times="of windows and times")
def costs(
    by: tuple[str, ...], *, freq: str | None, window: dict[str, Any], service: Service, result: Output
) -> None:
    """Show what sessions cost, in credits.

    Sessions without usage data are counted as unknown, not as free. --by outcome shows what failed runs cost.
    """
    refuse_outcomes(by)
    window = options.with_default_months(window, freq, result.tz)
    period = options.describe_window(window, "sessions created", result.tz)
    groups = grouping.Groups(by or (["deployment"] if freq is None else []), "sessions", service)
    sessions = groups.add_names(service.load_of(qd.load_sessions, window))
    found = qd.session_costs(sessions, by=groups.keys or None, freq=freq, tz=result.tz)
    unknown = columns_where_any(found, "unknown", "usage unknown")
    columns = [*groups.columns(found), *_COLUMNS, *unknown]
    cut = options.cut_windows(found, freq, *options.bounds_of(window, sessions))
    notes = [*_notes(sessions, groups.keys), *groups.notes, *period, *cut]
    result.print_frame(
        found, columns, empty=options.nothing_in(period, "sessions"), notes=notes, newest=freq is not None
    )


def _notes(sessions: pd.DataFrame, by: list[str]) -> list[str]:
    if sessions.empty:
        return []
    total = qd.session_costs(sessions, by=None).iloc[0]
    unknown = int(total["unknown"])
    known = int(total["sessions"]) - unknown
    more = f"; the usage of {unknown:,} more is not known" if unknown else ""
    notes = [
        f"{format_credits(total['credits'])} credits in {counted(known, 'session')}{more}"
        if known
        else f"the usage of {counted(unknown, 'session')} is not known"
    ]
    return [*notes, *note_without_usage(sessions), *note_on_missing(sessions, by)]


def refuse_outcomes(by: Sequence[str]) -> None:
    """Refuse `--outcomes` for a table that does not show them."""
    if "outcome" not in by:
        options.refuse_without_effect(["--outcomes"], "without --by outcome")


def note_without_usage(sessions: pd.DataFrame) -> list[str]:
    """Return a note that says why, if there are sessions and none has usage data."""
    if sessions.empty or sessions["usage_total_credits"].notna().any():
        return []
    return ["no session has data on its usage, which older editions of the service do not report"]


def note_on_missing(sessions: pd.DataFrame, by: list[str]) -> list[str]:
    """Return a note that says which sessions are in rows without a deployment, an outcome or a key of metadata."""
    keys = [key for key in by if key in {"deployment_id", "outcome"} or key.startswith("metadata_")]
    manual = sessions["deployment_id"].isna()
    counts = {"deployment": int(manual.sum()) if keys else 0}
    for key in keys:
        counts[f"known {key.removeprefix('metadata_')}"] = int((sessions[key].isna() & ~manual).sum())
    found = [f"{counted(count, 'session')} without a {what}" for what, count in counts.items() if count]
    return [f"{MISSING}: {', '.join(found)}"] if found else []


_COLUMNS = [
    TableColumn("sessions", "sessions", "count"),
    TableColumn("credits", "credits", "credits"),
    TableColumn("share", "share", "percent", optional=1),
    TableColumn("median a session", "credits_p50", "credits", optional=2),
    TableColumn("95th percentile", "credits_p95", "credits", optional=3),
    TableColumn("highest", "credits_max", "credits", optional=2),
]
