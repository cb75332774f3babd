"""Which JSON path becomes which column of which type: two tables, `DEPLOYMENTS` and `RUNS`.

The rule is the JSON path joined by ``_``, without ``metadata.cas_config`` and ``cas_run_extras``. How the
values get there is the business of `qoderdata.frame`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable

_TIME = pa.timestamp("us", tz="UTC")


class Kind(enum.Enum):
    """What a column holds, and so which JSON values fit it."""

    TEXT = "text"
    INTEGER = "integer"
    TIME = "time"
    TEXTS = "list of texts"
    TIMES = "list of times"
    JSON_OBJECT = "object, as JSON text"
    JSON_LIST = "list, as JSON text"

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type; texts have wide offsets, as pandas keeps them, so that no copy is needed."""
        return _ARROW[self]


_ARROW: dict[Kind, pa.DataType] = {
    Kind.TEXT: pa.large_string(),
    Kind.INTEGER: pa.int64(),
    Kind.TIME: _TIME,
    Kind.TEXTS: pa.list_(pa.string()),
    Kind.TIMES: pa.list_(_TIME),
    Kind.JSON_OBJECT: pa.large_string(),
    Kind.JSON_LIST: pa.large_string(),
}


@dataclass(frozen=True)
class Column:
    """One column.

    Parameters
    ----------
    name
        The column's name.
    path
        Where its value stands in a record: the keys, from the outside in.
    kind
        What it holds.
    meaning
        What it says, in words.
    """

    name: str
    path: tuple[str, ...]
    kind: Kind
    meaning: str


@dataclass(slots=True)
class Branch:
    """What stands in one JSON object.

    Parameters
    ----------
    keys
        By key: a further object, a column, or the documented value of a constant.
    rest
        The column that all other keys belong to, as JSON text; ``None`` where other keys are unknown fields.
    """

    keys: dict[str, Branch | Column | str] = field(default_factory=dict)
    rest: Column | None = None


#: The last column of every frame: what has no column of its own, or does not fit it.
EXTRA = "extra"


@dataclass(frozen=True)
class Schema:
    """The columns of one kind of record.

    Parameters
    ----------
    name
        ``"deployments"`` or ``"runs"``.
    columns
        The columns in their order, without ``extra``, which ends every frame.
    constants
        Paths whose documented value says nothing, so that it leaves no trace; any other value does.
    """

    name: str
    columns: tuple[Column, ...]
    constants: tuple[tuple[tuple[str, ...], str], ...]

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema: one field a column, then ``extra``."""
        fields = [pa.field(column.name, column.kind.arrow) for column in self.columns]
        return pa.schema([*fields, pa.field(EXTRA, pa.large_string())])

    @cached_property
    def tree(self) -> Branch:
        """The same columns and constants by the keys that lead to them."""
        root = Branch()
        for column in self.columns:
            *above, key = column.path
            branch = _descend(root, above)
            if column.kind is Kind.JSON_OBJECT:
                _descend(branch, [key]).rest = column
            else:
                branch.keys[key] = column
        for (*above, key), constant in self.constants:
            _descend(root, above).keys[key] = constant
        return root

    @property
    def names(self) -> list[str]:
        """The names of all columns, ``extra`` too."""
        return [column.name for column in self.columns] + [EXTRA]


def _descend(branch: Branch, keys: Iterable[str]) -> Branch:
    for key in keys:
        below = branch.keys.setdefault(key, Branch())
        if not isinstance(below, Branch):
            raise TypeError(f"{key!r} is a column, so it cannot hold columns")
        branch = below
    return branch


def _column(path: str, kind: Kind, meaning: str, *, name: str | None = None) -> Column:
    return Column(name or path.replace(".", "_"), tuple(path.split(".")), kind, meaning)


def _cas(path: str, kind: Kind, meaning: str) -> Column:
    return _column(f"metadata.cas_config.{path}", kind, meaning, name=path.replace(".", "_"))


def _run_extra(key: str, kind: Kind, meaning: str) -> Column:
    return _column(f"cas_run_extras.{key}", kind, meaning, name=key)


DEPLOYMENTS = Schema(
    name="deployments",
    columns=(
        _column("id", Kind.TEXT, "the deployment"),
        _column("name", Kind.TEXT, "its name; an archived one's ends in `_archived_<unix time>`"),
        _column("description", Kind.TEXT, "what it is for"),
        _column("status", Kind.TEXT, "`active` or `paused`; an archived one stays `active`"),
        _column("agent.id", Kind.TEXT, "the agent that it starts"),
        _column("agent.version", Kind.INTEGER, "that agent's version"),
        _column("environment_id", Kind.TEXT, "the environment that it runs in"),
        _column("created_at", Kind.TIME, "when it was created"),
        _column("updated_at", Kind.TIME, "when it was last changed"),
        _column("archived_at", Kind.TIME, "when it was archived; nothing fires after that"),
        _column("paused_reason.type", Kind.TEXT, "`manual`, or `error` when the service paused it"),
        _column("paused_reason.error.type", Kind.TEXT, "the error that made the service pause it"),
        _column("schedule.type", Kind.TEXT, "`cron`; missing for a manual-only deployment"),
        _column("schedule.expression", Kind.TEXT, "the cron text"),
        _column("schedule.timezone", Kind.TEXT, "the IANA zone that the cron text is read in"),
        _column("schedule.last_run_at", Kind.TIME, "when the schedule last started a run"),
        _column("schedule.upcoming_runs_at", Kind.TIMES, "the next triggers that the service lists, UTC"),
        _cas("session_strategy", Kind.TEXT, "how a run gets its session"),
        _cas("config.max_concurrent", Kind.INTEGER, "runs at once; more are skipped"),
        _cas("config.max_retries", Kind.INTEGER, "retries of a failed run"),
        _cas("config.timeout_ms", Kind.INTEGER, "time that a run may take, in milliseconds"),
        _cas("stats.total_runs", Kind.INTEGER, "runs in its whole life"),
        _cas("stats.total_failures", Kind.INTEGER, "failed runs in its whole life"),
        _cas("stats.consecutive_failures", Kind.INTEGER, "failures since the last success"),
        _cas("stats.next_trigger_at", Kind.TIME, "the next trigger; stale once archived or paused"),
        _cas("stats.last_triggered_at", Kind.TIME, "the last trigger of any kind"),
        _column("vault_ids", Kind.TEXTS, "the vaults that its runs may read"),
        _column("initial_events", Kind.JSON_LIST, "what each run is told first"),
        _column("resources", Kind.JSON_LIST, "what each run is given"),
        _column("metadata", Kind.JSON_OBJECT, "the caller's own keys, without `cas_config`"),
    ),
    constants=((("type",), "deployment"), (("agent", "type"), "agent")),
)

RUNS = Schema(
    name="runs",
    columns=(
        _column("id", Kind.TEXT, "the run"),
        _column("deployment_id", Kind.TEXT, "the deployment that it belongs to"),
        _column("status", Kind.TEXT, "`pending`, `running`, `completed`, `failed` or `skipped`"),
        _column("trigger_context.type", Kind.TEXT, "`manual`, `schedule` or `retry`", name="trigger_type"),
        _column("agent.id", Kind.TEXT, "the agent that ran"),
        _column("agent.version", Kind.INTEGER, "that agent's version"),
        _column("session_id", Kind.TEXT, "its session, once there is one"),
        _run_extra("attempt", Kind.INTEGER, "1 for the first try, more for retries"),
        _run_extra("turn_id", Kind.TEXT, "the turn in the session"),
        _column("triggered_at", Kind.TIME, "when it was due, or asked for"),
        _column("created_at", Kind.TIME, "when the service recorded it"),
        _run_extra("started_at", Kind.TIME, "when it began"),
        _column("completed_at", Kind.TIME, "when it ended; missing until then"),
        _column("duration_ms", Kind.INTEGER, "how long it took, in milliseconds"),
        _column("error.type", Kind.TEXT, "what kind of error ended it"),
        _column("error.message", Kind.TEXT, "that error in words"),
    ),
    constants=((("type",), "deployment_run"), (("agent", "type"), "agent")),
)
