"""``qoderdata events``: what happened in a run or a session, or in the newest run of a deployment."""

from __future__ import annotations

import json
import math
import shlex
from typing import Any

import click

import qoderdata as qd
from qoderdata.arguments import ID_PREFIXES
from qoderdata.cli import options
from qoderdata.cli.output import Output, TableColumn, format_seconds, note
from qoderdata.cli.runs import none_failed, unseen_failures
from qoderdata.cli.service import Service, online_service_options
from qoderdata.errors import NotFoundError
from qoderdata.formatting import format_time, one_line, truncate

#: How much of one event's text and of its type a table shows, in columns of the terminal.
_LONGEST, _LONGEST_TYPE = 400, 40
#: The options that need `--deployment`.
_OF_DEPLOYMENT = (
    "--failed", "--since", "--until", "--outcomes", "--cache-dir", "--max-age", "--refresh", "--refresh-all",
)  # fmt: skip


@options.command("events", example='qoderdata events --deployment "Nightly report" --failed')
@click.argument("id", metavar="[RUN_ID|SESSION_ID]", required=False)
@click.option(
    "--type", "types", multiple=True, metavar="TYPE", help="Only events of this type, such as session.error."
)
@options.in_group(
    "Which runs", click.option("--deployment", metavar="ID|NAME", help="The newest run of this deployment.")
)
@options.in_group("Which runs", click.option("--failed", is_flag=True, help="The newest run that failed."))
@options.run_window(of=None)
@online_service_options
@options.output_form()
def events(
    id: str | None,  # noqa: A002 - click's name
    *,
    types: tuple[str, ...],
    deployment: str | None,
    failed: bool,
    window: dict[str, Any],
    service: Service,
    result: Output,
) -> None:
    """Show what happened in a run or in a session.

    With --deployment, that is the newest run of this deployment. If there are more events than --top, the last
    ones are shown. `qoderdata runs --failed --json`, `qoderdata errors --json` and `qoderdata unusual --json`
    print ids of runs.
    """
    if deployment is None:
        session_id = _session_of(service.account["client"], _given_id(id))
    elif id is None:
        session_id = _newest_session(service, {"deployment": deployment, **window}, result.tz, failed=failed)
    else:
        raise click.UsageError("give the id of a run or session, or --deployment, not both")
    frame = qd.flatten_events([], str(id or deployment))
    if session_id is not None:
        try:
            frame = qd.load_events(session_id, types=list(types) or None, client=service.account["client"])
        except NotFoundError:
            if session_id == id:
                raise
            note(f"the service no longer has session {one_line(session_id)} of this run")
            session_id = None
    columns = [
        TableColumn("#", "position", "number"),
        TableColumn("time", lambda row: format_seconds(row.processed_at, result.tz), "fixed", optional=1),
        TableColumn(
            "type",
            lambda row: truncate(one_line(row.type), _LONGEST_TYPE),
            "fixed",
            is_alert=lambda row: row.type == "session.error",
        ),
        TableColumn("what", _describe_event, "prose"),
    ]
    empty = f"session {one_line(session_id)} has no {'such ' if types else ''}events" if session_id else ""
    result.print_frame(frame, columns, empty=empty, newest=True)


def _given_id(id: str | None) -> str:  # noqa: A002 - as above
    """Return the id of a run or session, after a check that the options of `--deployment` are not given."""
    if id is None:
        raise click.UsageError("give the id of a run or session, or --deployment")
    options.refuse_without_effect(_OF_DEPLOYMENT, "without --deployment")
    if id.startswith(ID_PREFIXES["deployment_id"]):
        raise click.UsageError(f"{id!r} is a deployment; write --deployment {shlex.quote(id)}")
    return id


def _newest_session(service: Service, filters: dict[str, Any], tz: str, *, failed: bool) -> str | None:
    """Return the session of a deployment's newest run, or ``None``; a note says which run it is."""
    (period,) = options.describe_window(filters, "runs triggered", tz)
    if filters["since"] is not None:
        period += "; --since all reads older ones"
    if failed:
        from qoderdata.outcomes import STATUSES  # noqa: PLC0415 - imports pandas

        runs = service.runs(filters)
        found = runs[runs["status"].isin(STATUSES["failed"])]
    else:
        options.refuse_without_effect(["--outcomes"], "without --failed")
        found = runs = service.runs({**filters, "outcomes": "runs"})
    unknown = unseen_failures(runs) if failed else []
    if found.empty:
        note(f"{none_failed(unknown)}; {period}" if len(runs) else f"there are no {period}")
    else:
        run = found.iloc[0]
        status = f", {run['status']}" if _present(run["status"]) else ""
        has_shared_name = runs["deployment_id"].nunique() > 1
        of = f" of {run['deployment_id']}" if has_shared_name else ""
        note(one_line(f"run {run['id']}{of}, triggered {format_time(run['triggered_at'], tz)}{status}"))
        if runs["session_id"].eq(run["session_id"]).sum() > 1:
            note("its session served other runs too, whose events are shown as well")
    for text in unknown:
        note(text)
    return None if found.empty else _session_of_run(found.iloc[0])


def _session_of(client: qd.Client, id: str) -> str | None:  # noqa: A002 - as above
    """Return the session of a run or session; ``None`` if a run has none, with a note that says why."""
    if id.startswith(ID_PREFIXES["session_id"]):
        return id
    try:
        run = client.get_run(id)
    except NotFoundError:
        if id.startswith(ID_PREFIXES["run_id"]):
            raise
        note(f"no run has the id {one_line(id)}, so it may be a session's; for a deployment, write --deployment")
        return id
    return _session_of_run(qd.flatten_runs([run]).iloc[0])


def _session_of_run(run: Any) -> str | None:  # noqa: ANN401 - a row
    """Return the session of a run; ``None`` if it has none, with a note that says why."""
    session_id, status = _present(run["session_id"]), _present(run["status"])
    if not session_id:
        reason = _joined(run["error_type"], run["error_message"]) or ("" if status == "pending" else status)
        note(one_line(f"run {run['id']} has no session{f': {reason}' if reason else ' yet'}"))
    return session_id or None


def _describe_event(row: Any) -> str:  # noqa: ANN401 - a row
    """Return what an event says: its end or error, its cost, and the texts in it."""
    error = _joined(row.error_type, row.error_message)
    facts = [
        _present(row.stop_reason),
        f"{error} ({row.retry_status})" if error and _present(row.retry_status) else error,
        "" if math.isnan(row.model_credits) else f"{row.model_credits:g} credits",
        *_texts(json.loads(row.extra) if _present(row.extra) else {}),
    ]
    return truncate(one_line(" · ".join(fact for fact in facts if fact) or None), _LONGEST)


def _texts(extra: dict[str, Any]) -> list[str]:
    """Return the texts of an event's content, and the name of the tool that it calls."""
    found = [extra[name] for name in ("name", "tool_name") if isinstance(extra.get(name), str)]
    content = extra.get("content")
    for block in content if isinstance(content, list) else [content]:
        text = block.get("text") if isinstance(block, dict) else block
        if isinstance(text, str):
            found.append(text)
    return found


def _present(value: Any) -> str:  # noqa: ANN401 - a text or one of pandas' missing values
    return value if isinstance(value, str) else ""


def _joined(kind: Any, message: Any) -> str:  # noqa: ANN401 - as above
    return ": ".join(filter(None, (_present(kind), _present(message))))
