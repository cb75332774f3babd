"""``qoderdata events``: what happened in a run or a session."""

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
from qoderdata.cli.service import Service, connection_options
from qoderdata.formatting import one_line, truncate

#: How much of one event's text and of its type a table shows, in columns of the terminal.
_LONGEST, _LONGEST_TYPE = 400, 40


@options.command("events", example="qoderdata events RUN_ID")
@click.argument("id", metavar="RUN_ID|SESSION_ID")
@click.option(
    "--type", "types", multiple=True, metavar="TYPE", help="Only events of this type, such as session.error."
)
@connection_options
@options.output_form(times="of the times shown")
def events(id: str, *, types: tuple[str, ...], service: Service, result: Output) -> None:  # noqa: A002 - click's name
    """Show what happened in a run's session, or in a session.

    If there are more events than --top, the last ones are shown. `qoderdata runs --failed --json`, `qoderdata
    errors --json` and `qoderdata unusual --json` print ids of runs.
    """
    if id.startswith(ID_PREFIXES["deployment_id"]):
        runs = f"qoderdata runs --failed --json --deployment {shlex.quote(id)}"
        raise click.UsageError(f"{id!r} is a deployment; the ids of its failed runs are in `{runs}`")
    client = service.client()
    session_id = _session_of(client, id)
    if session_id is None:
        result.print_frame(qd.flatten_events([], id), [], empty="")
        return
    frame = qd.load_events(session_id, types=list(types) or None, client=client)
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
    empty = f"session {one_line(session_id)} has no {'such ' if types else ''}events"
    result.print_frame(frame, columns, empty=empty, newest=True)


def _session_of(client: qd.Client, id: str) -> str | None:  # noqa: A002 - as above
    """Return the session of a run or session; ``None`` where a run has none, with a note that says why."""
    if id.startswith("sess_"):
        return id
    try:
        run = client.get_run(id)
    except qd.errors.NotFoundError:
        if id.startswith("drun_"):
            raise
        return id
    session_id, error = _present(run.get("session_id")), run.get("error")
    if not session_id:
        why = f": {_joined(error.get('type'), error.get('message'))}" if isinstance(error, dict) else " yet"
        note(one_line(f"run {id} has no session{why}"))
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
