"""``qoderdata errors``: which errors made runs fail, and which of them are new?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click

import qoderdata as qd
from qoderdata.arguments import parse_bound
from qoderdata.cli import grouping, options
from qoderdata.cli.output import MINOR, Output, TableColumn, note
from qoderdata.cli.runs import none_failed, unseen_failures
from qoderdata.cli.service import Service, run_service_options
from qoderdata.formatting import format_time

_NEW = timedelta(days=7)


@options.command("errors", example="qoderdata errors --since 30D --by agent")
@grouping.by_option("runs", "Group by (default: all together)")
@click.option("--new", "only_new", is_flag=True, help="Only errors first seen in the last 7 days, in their group.")
@click.option(
    "--new-since", metavar="TIME|AGE", help="Only errors first seen then or later, such as after a release."
)
@options.run_window()
@run_service_options
@options.output_form()
def errors(
    by: tuple[str, ...],
    *,
    only_new: bool,
    new_since: str | None,
    window: dict[str, Any],
    service: Service,
    result: Output,
) -> None:
    """Group errors of failed runs by message, and mark new ones.

    Messages that only differ in ids, numbers, addresses, paths and quoted texts are one group. The most frequent
    errors come first, also with --by.
    """
    from qoderdata.outcomes import STATUSES, is_assumed  # noqa: PLC0415 - imports pandas
    from qoderdata.summaries.run_errors import more_assumed_before  # noqa: PLC0415 - likewise

    new_from = _parse_new_since(new_since, window, only_new=only_new)
    period = options.describe_window(window, "runs triggered", result.tz)
    groups = grouping.Groups(by, "runs", service)
    runs = groups.add_names(service.runs(window))
    found = qd.error_groups(runs, by=groups.keys or None).sort_values("count", ascending=False, kind="stable")
    times = runs["triggered_at"]
    if new_from is None:
        new = "in the last 7 days"
        end = times.max().floor("min") + timedelta(minutes=1)  # as in `error_groups`
        recent_from = end - _NEW
        is_unknown = len(runs) > 0 and end - times.min() < 2 * _NEW
        why = "the runs cover less than 14 days"
        since, _ = options.bounds_of(window, runs)
        is_cut = since is not None and since > datetime.now(UTC) - 2 * _NEW - timedelta(days=1)
        why += " (--since 30D reads more)" if is_cut else ""
    else:
        new = f"since {format_time(new_from, result.tz)}"
        recent_from = new_from
        is_unknown = len(runs) > 0 and not times.min() < new_from
        why = "no run before --new-since was read"
    recent, before = runs[times >= recent_from], runs[times.between(recent_from - _NEW, recent_from, "left")]
    counts = ((is_assumed(part), part["status"].isin(STATUSES["completed"])) for part in (recent, before))
    if not is_unknown and more_assumed_before(*(int(mask.sum()) for masks in counts for mask in masks)):
        is_unknown, why = True, "before that, more outcomes are assumed (--outcomes events reads them)"
    if new_from is not None:
        found["is_new"] = found["first_seen"].ge(new_from) & (not is_unknown)
    unknown_new = f"which errors are new is not known: {why}"
    only_new = only_new or new_from is not None
    if only_new:
        found = found[found["is_new"]]
    unknown = unseen_failures(runs)
    columns = [
        *groups.columns(found),
        *([] if only_new or is_unknown else [_IS_NEW]),
        *_columns(only_new=only_new, is_grouped=bool(groups.keys)),
    ]
    if runs.empty:
        empty = options.nothing_in(period, "runs")
    elif only_new and is_unknown:
        empty = unknown_new
    else:
        empty = "; ".join(["no error is new" if only_new else none_failed(unknown), *period, *unknown])
    if is_unknown and result.style in {"csv", "json"}:
        note(unknown_new)
    only = f"only errors first seen {new}{', in their group' if groups.keys else ''}"
    about = [only, *period] if only_new else [*period, *([unknown_new] if is_unknown else [])]
    result.print_frame(found, columns, empty=empty, notes=[*about, *unknown])


def _parse_new_since(new_since: str | None, window: dict[str, Any], *, only_new: bool) -> datetime | None:
    """Return the time from which errors are new; ``None`` if it was not given.

    Raise `click.UsageError` if there is also ``--new``, or the time is not within the window.
    """
    if new_since is None:
        return None
    if only_new:
        raise click.UsageError("--new and --new-since are two limits of what is new; give one of them")
    now = datetime.now(UTC)
    new_from = parse_bound(new_since, now=now, name="new_since")
    bounds = options.parse_bounds(window, now)
    if bounds["since"] is not None and new_from <= bounds["since"]:
        raise click.UsageError(
            f"--new-since {new_since} is not after --since {window['since']}: all errors would be new; give an "
            "earlier --since"
        )
    if bounds["until"] is not None and new_from >= bounds["until"]:
        raise click.UsageError(
            f"--new-since {new_since} is not before --until {window['until']}: no error would be new; give an "
            "earlier --new-since"
        )
    return new_from


_IS_NEW = TableColumn("new", lambda row: "new" if row.is_new else "", "fixed", is_alert=lambda row: row.is_new)


def _columns(*, only_new: bool, is_grouped: bool) -> list[TableColumn]:
    """Return the columns of each error; beside groups, texts are cut so that "first seen" of new ones has room."""
    readable = 12 if only_new and is_grouped else None
    return [
        TableColumn("failed", "count", "count"),
        TableColumn("error", "error_type", readable=readable),
        TableColumn("message", "message", "prose", readable=readable),
        TableColumn("share", "share", "percent", optional=3),
        TableColumn("deployments", "deployments", "count", optional=2),
        TableColumn("first seen", "first_seen", "time", optional=1),
        TableColumn("last seen", "last_seen", "time", optional=4),
        TableColumn("example", "example_run_id", "id", optional=MINOR),
    ]
