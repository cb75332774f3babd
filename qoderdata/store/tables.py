"""Which rows of a stored table may still change, and how does a row of version 0.1 become one of today?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from qoderdata.schema import EXTRA, OUTCOMES, RUNS, SESSIONS, Schema

if TYPE_CHECKING:
    from collections.abc import Callable

_OPEN = pa.array(["pending", "running"], pa.large_string())
_ENDED = pa.array(["completed", "failed", "skipped"], pa.large_string())
_ENDS_KEPT = pa.array(["final", "gone"], pa.large_string())

#: What version 0.1 did not have, and where it kept a scheduled time.
_NEW_COLUMNS = frozenset({"status_from", "trigger_scheduled_at"})
_OLD_KEY = "trigger_context.scheduled_at"
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?\d{0,3}Z")
_ZERO_TIME = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class StoredTable:
    """A table that a store keeps.

    Parameters
    ----------
    schema
        Its columns; ``id`` and ``created_at`` among them.
    time_column
        The column whose day (UTC) is the partition.
    may_change
        Returns for each row whether a later reading replaces it; the others stay as they are.
    state_columns
        The columns that `may_change` reads.
    is_read_singly
        Whether the rows that may change are listed in the manifest, to be read one by one.
    resolve
        Fills what follows from a record alone.
    upgrade
        Turns rows of version 0.1 into rows of today; returns ``None`` for other columns.
    """

    schema: Schema
    time_column: str
    may_change: Callable[[pa.Table], Any]
    state_columns: tuple[str, ...] = ()
    is_read_singly: bool = False
    resolve: Callable[[pa.Table], pa.Table] = lambda table: table
    upgrade: Callable[[pa.Table], pa.Table | None] = lambda _: None

    @property
    def name(self) -> str:
        """The table's name, also that of its folder."""
        return self.schema.name


def resolve_record(runs: pa.Table) -> pa.Table:
    """Fill the columns of runs that follow from the record alone.

    A record with a status keeps every field. Without one: it failed where it has an error, it is pending where it
    has neither an error nor a session, else only its session tells.
    """
    has_status = runs["status"].is_valid()
    failed = pc.or_(runs["error_type"].is_valid(), runs["error_message"].is_valid())
    pending = pc.and_(pc.invert(failed), runs["session_id"].is_null())
    known = pc.or_(failed, pending)
    derived = pc.if_else(failed, _text("failed"), pc.if_else(pending, _text("pending"), _text(None)))
    source = pc.if_else(known, _text("run"), _text(None))
    triggered_at = pc.coalesce(runs["triggered_at"], runs["trigger_scheduled_at"], runs["created_at"])
    columns = {
        "status": pc.coalesce(runs["status"], derived),
        "status_from": pc.if_else(has_status, _text("service"), source),
        "triggered_at": pc.if_else(has_status, runs["triggered_at"], triggered_at),
    }
    for name, column in columns.items():
        runs = runs.set_column(runs.schema.get_field_index(name), runs.schema.field(name), column)
    return runs


def _run_may_change(runs: pa.Table) -> Any:  # noqa: ANN401 - an Arrow array
    """Tell which runs are open. An unknown status counts as an end where the run has one."""
    status = runs["status"]
    unknown = pc.and_(status.is_valid(), pc.invert(pc.is_in(status, value_set=_ENDED)))
    unknown = pc.and_(unknown, runs["completed_at"].is_null())
    started = pc.or_(runs["session_id"].is_valid(), runs["error_type"].is_valid())
    started = pc.or_(started, runs["error_message"].is_valid())
    nothing = pc.and_(status.is_null(), pc.invert(started))
    return pc.or_(pc.or_(pc.is_in(status, value_set=_OPEN), unknown), nothing)


def _always(table: pa.Table) -> Any:  # noqa: ANN401 - an Arrow array
    return pa.repeat(pa.scalar(True), table.num_rows)  # noqa: FBT003 - pyarrow has it so


def _outcome_may_change(outcomes: pa.Table) -> Any:  # noqa: ANN401 - an Arrow array
    return pc.invert(pc.is_in(outcomes["end"], value_set=_ENDS_KEPT))


def _upgrade_runs(old: pa.Table) -> pa.Table | None:
    expected = {field.name: field.type for field in RUNS.arrow if field.name not in _NEW_COLUMNS}
    if dict(zip(old.schema.names, old.schema.types, strict=True)) != expected:
        return None
    scheduled, extra = [], old[EXTRA].to_pylist()
    for index, text in enumerate(extra):
        time, extra[index] = (None, text) if text is None or _OLD_KEY not in text else _split(text)
        scheduled.append(time)
    columns = {name: old[name] for name in expected}
    columns[EXTRA] = pa.chunked_array([pa.array(extra, pa.large_string())])
    columns["trigger_scheduled_at"] = pa.chunked_array([pa.array(scheduled, pa.timestamp("us", tz="UTC"))])
    columns["status_from"] = pa.chunked_array([pa.nulls(old.num_rows, pa.large_string())])
    return resolve_record(pa.table([columns[name] for name in RUNS.arrow.names], schema=RUNS.arrow))


def _split(extra: str) -> tuple[datetime | None, str | None]:
    """Take the scheduled time out of a row's ``extra``; one that is no time stays there."""
    fields = msgspec.json.decode(extra, type=dict[str, msgspec.Raw])
    written = msgspec.json.decode(fields.get(_OLD_KEY, msgspec.Raw(b"null")))
    match = _TIME.fullmatch(written) if isinstance(written, str) else None
    if match is None:
        return None, extra
    try:
        time = datetime.fromisoformat(f"{match[1]}{match[2] or ''}+00:00")
    except ValueError:
        return None, extra
    del fields[_OLD_KEY]
    return None if time == _ZERO_TIME else time, msgspec.json.encode(fields).decode() if fields else None


def _text(value: str | None) -> pa.Scalar[Any]:
    return pa.scalar(value, pa.large_string())


RUNS_TABLE = StoredTable(
    RUNS,
    "triggered_at",
    _run_may_change,
    ("status", "session_id", "completed_at", "error_type", "error_message"),
    is_read_singly=True,
    resolve=resolve_record,
    upgrade=_upgrade_runs,
)
#: Any session may be continued, so the latest reading counts.
SESSIONS_TABLE = StoredTable(SESSIONS, "created_at", _always)
OUTCOMES_TABLE = StoredTable(OUTCOMES, "created_at", _outcome_may_change, ("end",))

TABLES = (RUNS_TABLE, SESSIONS_TABLE, OUTCOMES_TABLE)
