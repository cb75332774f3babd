"""``qoderdata changes``: what changed in the deployments since an earlier time."""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

import qoderdata as qd
from qoderdata.cli import grouping, options
from qoderdata.cli.output import DEPLOYMENT, Output, TableColumn, format_seconds
from qoderdata.cli.service import Service, service_options
from qoderdata.errors import CacheError
from qoderdata.formatting import format_time

if TYPE_CHECKING:
    import pandas as pd


@options.command("changes", example="qoderdata changes --since 7D")
@click.option(
    "--since",
    default="7D",
    metavar="TIME|AGE",
    help="Compare with the last snapshot at or before then (default 7D); where there is none, with the first.",
)
@grouping.by_option("deployments", "Show also, of each deployment")
@options.gather("which", dict, *options.deployment_options("changes of "), group="Which changes")
@service_options
@options.output_form()
def changes(by: tuple[str, ...], *, since: str, which: dict[str, Any], service: Service, result: Output) -> None:
    """Show what changed in the deployments since an earlier time.

    Each pull of the whole list stores a snapshot; this compares one with the present. A change that was undone in
    between is not shown. The service does not say who made a change. --where and --deployment show a deployment
    that passes them now, or passed them then. --by adds columns, such as the owner.
    """
    import pandas as pd  # noqa: PLC0415 - slow to import

    from qoderdata.frames import fetched_at  # noqa: PLC0415 - imports pandas
    from qoderdata.summaries.deployment_changes import (  # noqa: PLC0415 - as above
        describe_change,
        without_unlisted,
    )

    before, is_archived, is_old_enough = _frame_before(service, since)
    after = service.deployments({"include_archived": is_archived or not service.offline})
    if before is None:
        result.print_frame(qd.changes(after, after), [], empty=_without_snapshot(service, after))
        return
    if not is_archived:
        before, after = without_unlisted(before, after)
    times = [fetched_at(frame) for frame in (before, after)]
    at, present = (format_time(time, result.tz) for time in times)
    if at == present:
        at, present = (format_seconds(time, result.tz) for time in times)
    found = qd.changes(before, after)
    if options.filters_given(which):
        found = found[found["deployment_id"].isin(service.ids_in([before, after], which))]
    deployments = pd.concat([after, before]).drop_duplicates("id", ignore_index=True)
    groups = grouping.Groups(by, "deployments", service, deployments=deployments)
    found, group_columns = groups.add_to(found, deployments)
    columns = [*group_columns, *DEPLOYMENT, TableColumn("change", describe_change, "prose")]
    limits = options.filter_notes(which)
    if not is_old_enough:
        limits.append("there is no earlier snapshot: what changed before is not known")
    if after.attrs["from_cache"] and not service.offline:
        limits.append("--refresh reads the present list")
    nothing = f"nothing changed from {at} to {present}"
    if times[0] == times[1]:
        nothing = f"nothing to compare: the deployments were last read at {at}"
    empty = "; ".join([nothing, *limits])
    result.print_frame(found, columns, empty=empty, notes=[f"from the snapshot of {at} to {present}", *limits])


def _without_snapshot(service: Service, present: pd.DataFrame) -> str:
    """Return the text for an account without an earlier snapshot: whether there is one now, else how to get it."""
    from qoderdata.load.deployment_history import has_other_accounts  # noqa: PLC0415 - imports pyarrow

    others = ""
    if has_other_accounts(**service.account):
        others = ". There are snapshots of another token or account; QODERDATA_ACCOUNT names whose are read"
    if len(qd.snapshots(**service.account)):
        return f"there was no snapshot to compare with; the first one is stored now{others}"
    if service.offline:
        advice = "call once without --offline to store one"
    elif present.attrs["from_cache"]:
        advice = "--refresh stores one"
    else:
        advice = "none could be stored, for the reason in the warning"
    return f"there is no snapshot to compare with; {advice}{others}"


def _frame_before(service: Service, since: str) -> tuple[pd.DataFrame | None, bool, bool]:
    """Return the frame to compare with, whether it has archived deployments, and whether it is old enough."""
    account = service.account
    found = []
    for is_archived in (True, False):
        with contextlib.suppress(CacheError):
            found.append((qd.load_deployments(as_of=since, include_archived=is_archived, **account), is_archived))
    if found:
        before, is_archived = max(found, key=lambda one: datetime.fromisoformat(one[0].attrs["fetched_at"]))
        return before, is_archived, True
    listed = qd.snapshots(**account)
    if listed.empty:
        return None, True, False
    first = listed.iloc[0]
    is_archived = bool(first["include_archived"])
    before = qd.load_deployments(as_of=first["fetched_at"], include_archived=is_archived, **account)
    return before, is_archived, False
