"""``qoderdata errors``: which errors made runs fail, and which of them are new?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click

import qoderdata as qd
from qoderdata.cli import grouping, options
from qoderdata.cli.output import MINOR, Output, TableColumn, note
from qoderdata.cli.runs import none_failed, unknown_outcomes
from qoderdata.cli.service import Service, run_service_options

_REACH = timedelta(days=14)
_ONLY_NEW = "only errors first seen in the last 7 days"
_SHORT = "which errors are new is not known: the runs cover less than 14 days"


@options.command("errors", example="qoderdata errors --since 30D --by agent")
@grouping.by_option("runs", "Group by (default: all together)")
@click.option("--new", "only_new", is_flag=True, help="Only errors first seen in the last 7 days, in their group.")
@options.run_window()
@run_service_options
@options.output_form()
def errors(
    by: tuple[str, ...], *, only_new: bool, window: dict[str, Any], service: Service, result: Output
) -> None:
    """Group errors of failed runs by message, and mark new ones.

    Messages that only differ in ids, numbers, addresses, paths and quoted texts are one group. The most frequent
    errors come first, also with --by.
    """
    period = options.describe_window(window, "runs triggered", result.tz)
    groups = grouping.Groups(by, "runs", service)
    runs = groups.add_names(service.runs(window))
    found = qd.error_groups(runs, by=groups.keys or None).sort_values("count", ascending=False, kind="stable")
    if only_new:
        found = found[found["is_new"]]
    unknown = unknown_outcomes(runs)
    times = runs["triggered_at"]
    is_short = len(runs) > 0 and times.max() - times.min() < _REACH
    columns = [*groups.columns(found), *([] if only_new or is_short else [_NEW]), *_COLUMNS]
    since, _ = options.bounds_of(window, runs)
    is_cut = since is not None and since > datetime.now(UTC) - _REACH - timedelta(days=1)
    short = f"{_SHORT} (--since 30D reads more)" if is_cut else _SHORT
    if runs.empty:
        empty = options.nothing_in(period, "runs")
    elif only_new and is_short:
        empty = short
    else:
        empty = "; ".join(["no error is new" if only_new else none_failed(unknown), *period, *unknown])
    if is_short and result.style in {"csv", "json"}:
        note(short)
    only = f"{_ONLY_NEW}, in their group" if groups.keys else _ONLY_NEW
    about = [only, *period] if only_new else [*period, *([short] if is_short else [])]
    result.print_frame(found, columns, empty=empty, notes=[*about, *unknown])


_NEW = TableColumn("new", lambda row: "new" if row.is_new else "", "fixed", is_alert=lambda row: row.is_new)
_COLUMNS = [
    TableColumn("failed", "count", "count"),
    TableColumn("error", "error_type"),
    TableColumn("message", "message", "prose"),
    TableColumn("share", "share", "percent", optional=3),
    TableColumn("deployments", "deployments", "count", optional=2),
    TableColumn("first seen", "first_seen", "time", optional=5),
    TableColumn("last seen", "last_seen", "time", optional=4),
    TableColumn("example", "example_run_id", "id", optional=MINOR),
]
