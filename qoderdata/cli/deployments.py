"""``qoderdata deployments``: what is there, in which state, and when does it fire?"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import qoderdata as qd
from qoderdata.cli import grouping, options
from qoderdata.cli.output import MINOR, Output, TableColumn
from qoderdata.cli.service import Service, service_options
from qoderdata.formatting import MISSING, one_line

if TYPE_CHECKING:
    import pandas as pd

#: How far ahead to look for the next trigger, one length after the other. Most deployments fire within the first
#: one. The last one contains a 29 February if it begins before 2096.
_HORIZONS = ("1D", "32D", "1462D")
_PAUSED_BY_ERROR = "paused by error"
#: Columns of lists and JSON text, which `qoderdata pull deployments --out` writes.
_LONG = ["schedule_upcoming_runs_at", "vault_ids", "initial_events", "resources", "metadata", "extra"]


@options.command("deployments", example="qoderdata deployments --by team")
@grouping.by_option("deployments", "Show also, and sort by")
@options.deployment_filters()
@service_options
@options.output_form()
def deployments(by: tuple[str, ...], *, filters: dict[str, Any], service: Service, result: Output) -> None:
    """Show which deployments there are, the newest first.

    Those that are paused or archived, and those without a schedule, have no next trigger; --status paused shows
    the error that paused them. All columns, such as the prompts, are in what `qoderdata pull deployments --out
    FILE` writes.
    """
    found = service.deployments(filters)
    groups = grouping.Groups(by, "deployments", service, deployments=found)
    listed = groups.add_names(found).drop(columns=[name for name in _LONG if name not in groups.keys])
    listed = listed.assign(state=_states(found), next_trigger_at=_next_triggers(found))
    if by:
        names = [grouping.NAMES[key] if grouping.NAMES.get(key) in listed else key for key in groups.keys]
        listed = listed.sort_values(names, kind="stable")
    is_by_creation = bool(filters["created_since"] or filters["created_until"])
    fires = TableColumn("fires", _schedule, "prose", readable=15)
    if by or is_by_creation:
        fires = replace(fires, optional=3, readable=24)
    next_or_error = TableColumn("next", "next_trigger_at", "time")
    if filters["status"] == "paused":
        next_or_error = TableColumn("error", "paused_reason_error_type", readable=24)
    columns = [
        *(column for column in groups.columns(listed) if column.heading not in grouping.OWN_HEADINGS),
        TableColumn("name", "name", readable=14),
        TableColumn("deployment", "id", "id", optional=MINOR, follows_name=True),
        *([TableColumn("created", "created_at", "time", optional=1)] if is_by_creation else []),
        TableColumn("state", "state", "fixed", optional=2, is_alert=lambda row: row.state == _PAUSED_BY_ERROR),
        fires,
        next_or_error,
    ]
    counts = [f"{count:,} {one_line(state)}" for state, count in Counter(listed["state"]).most_common()]
    empty = options.empty_table_text("there are no deployments", found, filters)
    result.print_frame(listed, columns, empty=empty, notes=[", ".join(counts), *options.filter_notes(filters)])


def _states(deployments: pd.DataFrame) -> pd.Series[str]:
    """Return the state of each deployment: its status, archived, or paused by error."""
    from qoderdata.check import is_paused_by_error  # noqa: PLC0415 - slow to import

    states = deployments["status"].mask(is_paused_by_error(deployments), _PAUSED_BY_ERROR)
    return states.mask(deployments["archived_at"].notna(), "archived")


def _next_triggers(deployments: pd.DataFrame) -> pd.Series[pd.Timestamp]:
    """Return the next trigger of each deployment, in their order; missing if there is none."""
    import pandas as pd  # noqa: PLC0415 - slow to import

    found, left = [], deployments
    for horizon in _HORIZONS:
        # pandas 2 warns if it appends an empty index to one of categories.
        triggers = qd.next_triggers(left, horizon).astype({"deployment_id": "object"})
        found.append(triggers.groupby("deployment_id")["trigger_at"].min())
        left = left[~left["id"].isin(found[-1].index)]
    by_id: pd.Series[pd.Timestamp] = pd.concat(found)
    return by_id.reindex(deployments["id"]).reset_index(drop=True)


def _schedule(row: Any) -> str:  # noqa: ANN401 - a row
    """Return in words when a deployment fires; the cron text if it cannot be read."""
    if not isinstance(row.schedule_expression, str):
        return MISSING
    try:
        return qd.describe_schedule(row.schedule_expression, row.schedule_timezone)
    except ValueError:
        return row.schedule_expression
