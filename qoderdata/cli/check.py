"""``qoderdata check``: what is wrong now, as a table and as an exit code."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

import qoderdata as qd
from qoderdata.arguments import parse_span
from qoderdata.cli import grouping, options, output
from qoderdata.cli.output import MINOR, Output, TableColumn
from qoderdata.cli.service import Service, dated_service_options
from qoderdata.cli.unusual import RUNS_FOR_MEDIAN, not_judged
from qoderdata.errors import PermissionDeniedError
from qoderdata.formatting import counted

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

#: Runs are read this far back at least, so that streaks and typical durations are known.
_LEAST = timedelta(days=30)
_SEVERITY = TableColumn("severity", "severity", "fixed", is_alert=lambda row: row.severity == "error")
_COLUMNS = [
    TableColumn("what", "detail", "prose", readable=60),
    TableColumn("since", "since", "time", optional=MINOR),
    TableColumn("deployment", "deployment_id", "id", optional=MINOR),
]


@options.command("check", example="qoderdata check --since 1D --fail-on warning")
@grouping.by_option("deployments", "Show also, of each deployment")
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning"]),
    default="error",
    help="Exit with 1 if there is an error (default), or also if there is a warning.",
)
@click.option(
    "--only-new",
    metavar="FILE",
    type=options.PATH,
    callback=options.output_path,
    help="Show only what the last check with this FILE did not find. The FILE keeps the findings.",
)
@options.span_option("--since", "How far back missed triggers count (default 1D).", default="1D")
@options.number_option("--streak", "Failures in a row to report (default 3).", least=1, default=3)
@options.span_option("--recent", "The recent period, compared with the one before (default 7D).", default="7D")
@options.share_option("--budget-share", "Share of a budget that sessions may use (default 0.9).", default=0.9)
@options.share_option(
    "--doubtful", "Share of outcomes that may be assumed or unknown (default 0.05).", default=0.05, most=1
)
@options.gather("which", dict, *options.deployment_options(""), group="Which deployments")
@dated_service_options
@options.output_form()
def check(
    by: tuple[str, ...],
    *,
    fail_on: str,
    only_new: Path | None,
    since: str,
    recent: str,
    which: dict[str, Any],
    service: Service,
    result: Output,
    **thresholds: Any,  # noqa: ANN401 - those of the library's `check`
) -> int:
    """Show what is wrong, the worst first.

    The exit code is 1 if an error is found; 2 to 5 mean that the check could not be made. A run is stuck if it has
    not ended after its timeout or, where that is not known, after ten times the median of its deployment, which
    needs 10 completed runs of the last 30 days. The events of its session are read first: the run may have ended,
    and a person may have continued the session. A trigger counts as missed 10 minutes after its time: for a check
    once a day, give --since 25h.

    With --only-new, a finding counts again only after a check that did not find it; one that --top leaves out
    stays new. Give each choice of deployments a FILE of its own.

    Failed retries count in a streak of failures. A run of unknown outcome ends a streak, and so does one that is
    assumed to have completed; then the finding says that there may be more failures. `runs --streaks` ignores runs
    of unknown outcome. With --outcomes events, events are read for runs of the last 30 days, and for older ones
    where they decide whether a deployment is failing.
    """
    earlier = set() if only_new is None else _read_findings(only_new)
    history = max(_LEAST, 2 * parse_span(recent, name="recent"), parse_span(since, name="since"))
    deployments = service.deployments({"include_archived": True, **which})
    snapshots = service.snapshots(since)  # that of these deployments too
    groups = grouping.Groups(by, "deployments", service, deployments=deployments)
    runs = service.with_ends_of_stuck(service.runs({"since": history, **which}), deployments)
    all_runs = service.runs_for_streaks(deployments, runs, streak=thresholds["streak"])
    has_budgets = deployments["budget_max_credit_cost"].notna().any()
    sessions = _sessions(service, {"since": history, **which}) if has_budgets else None
    findings = qd.check(
        deployments,
        runs,
        sessions,
        all_runs=all_runs,
        snapshots=snapshots,
        since=since,
        recent=recent,
        tz=result.tz,
        **thresholds,
    )
    findings, group_columns = groups.add_to(options.use_option_names_in_findings(findings), deployments)
    new = findings[~_keys(findings).isin(earlier)]
    waiting = int(runs["status"].eq("waiting").sum())
    notes = [f"waiting for a person: {counted(waiting, 'run')}; see `qoderdata runs --waiting`"] if waiting else []
    live = deployments[deployments["archived_at"].isna()]
    runs = runs[runs["deployment_id"].isin(live["id"])]
    notes += not_judged(runs, live, RUNS_FOR_MEDIAN, until=datetime.now(UTC) - timedelta(days=1))
    notes += options.filter_notes(which)
    verdict = "nothing is wrong" if len(deployments) else "nothing to check, as there are no deployments"
    if len(new) < len(findings):
        verdict = "nothing new is wrong"
        old = counted(len(findings) - len(new), "finding")
        notes.insert(0, f"not new: {old}; without --only-new all are shown")
    columns = [_SEVERITY, *group_columns, *_COLUMNS]
    result.print_frame(new, columns, empty="; ".join([verdict, *notes]), notes=notes)
    if only_new is not None:
        from qoderdata.files import replace  # noqa: PLC0415 - imports pyarrow

        kept = findings.drop(new.index[result.limit(new) :])
        replace(only_new, lambda sink: sink.write(output.json_text(kept).encode()))
    failures = new[new["severity"].eq("error")] if fail_on == "error" else new
    return 0 if failures.empty else options.FOUND


def _read_findings(path: Path) -> set[str]:
    """Return the keys of the findings in a file of `--only-new`; none if there is no file yet."""
    try:
        return {f"{row['kind']} {row['deployment_id'] or ''}" for row in json.loads(path.read_bytes())}
    except FileNotFoundError:
        return set()
    except (ValueError, TypeError, KeyError) as error:
        raise click.UsageError(
            f"--only-new {path}: this file holds no findings of a check; remove it, or name another"
        ) from error


def _keys(found: pd.DataFrame) -> pd.Series[str]:
    """Return a key of each finding that is the same in the next check: its kind and deployment."""
    return found["kind"].str.cat(found["deployment_id"], sep=" ", na_rep="")


def _sessions(service: Service, filters: dict[str, Any]) -> pd.DataFrame | None:
    """Load the sessions, which only the check of budgets needs; print a warning if the token may not read them."""
    try:
        return service.load_of(qd.load_sessions, filters)
    except PermissionDeniedError as error:
        reason = options.use_option_names(str(error))
        output.note(f"warning: budgets are not checked, as sessions could not be loaded: {reason}")
        return None
