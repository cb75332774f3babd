"""Which JSON path is which column of which dtype, for each table.

The rule for a name is the JSON path joined by ``_``, without ``metadata.cas_config`` and ``cas_run_extras``.
`qoderdata.decode` reads the values; `resolve_record` fills the columns of a run that its record alone determines.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_TIME = pa.timestamp("us", tz="UTC")


class Kind(enum.Enum):
    """What a column holds, and so which JSON values fit it; the value is a description and the Arrow type."""

    TEXT = "text", pa.large_string()
    TEXT_OR_ID = "text, or the id of an object", pa.large_string()
    INTEGER = "integer", pa.int64()
    NUMBER = "number, or a decimal number as text", pa.float64()
    TIME = "time", _TIME
    TEXTS = "list of texts", pa.list_(pa.string())
    TIMES = "list of times", pa.list_(_TIME)
    JSON_OBJECT = "object, as JSON text", pa.large_string()
    JSON_LIST = "list, as JSON text", pa.large_string()
    SHARED_OBJECT = "object that many records share, as JSON text", pa.dictionary(pa.int32(), pa.large_string())

    def __init__(self, _: str, arrow: pa.DataType) -> None:
        #: The Arrow type; text has 64-bit offsets, as in pandas, so that no copy is needed.
        self.arrow = arrow

    @property
    def is_object(self) -> bool:
        """Whether the column holds the keys of an object that have no column of their own."""
        return self in {Kind.JSON_OBJECT, Kind.SHARED_OBJECT}


@dataclass(frozen=True)
class Column:
    """One column."""

    name: str
    #: The keys that lead to its value in a record; empty for a column that this package derives.
    path: tuple[str, ...]
    kind: Kind
    #: A description.
    meaning: str


@dataclass(slots=True)
class Branch:
    """The known contents of one JSON object."""

    #: By key: a nested object, a column, or the documented value of a constant.
    keys: dict[str, Branch | Column | str] = field(default_factory=dict)
    #: The column that takes all other keys, as JSON text; ``None`` if other keys are unknown fields.
    rest: Column | None = None


#: The last column of every frame: what has no column of its own, or does not fit it.
EXTRA = "extra"


@dataclass(frozen=True)
class Schema:
    """The columns of one table."""

    name: str
    #: The columns in their order, without ``extra``, which ends every frame.
    columns: tuple[Column, ...]
    #: Paths with their documented value, which is not kept; any other value goes to ``extra``.
    constants: tuple[tuple[tuple[str, ...], str], ...] = ()
    #: Fills the derived columns, as far as a record alone determines them; a second call changes nothing.
    resolve: Callable[[pa.Table], pa.Table] = lambda table: table

    @property
    def singular(self) -> str:
        """What a row is, such as ``"deployment"``."""
        return self.name.removesuffix("s")

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
            if not column.path:
                continue
            *above, key = column.path
            branch = _descend(root, above)
            if column.kind.is_object:
                _descend(branch, [key]).rest = column
            else:
                branch.keys[key] = column
        for (*above, key), constant in self.constants:
            _descend(root, above).keys[key] = constant
        return root

    @property
    def names(self) -> list[str]:
        """The names of all columns, including ``extra``."""
        return self.arrow.names


def is_readable(found: pa.Schema, expected: pa.Schema) -> bool:
    """Return whether a stored table has the expected columns, in their order; it may lack some, but not ``extra``.

    Two dictionary types are taken to be equal: Parquet does not keep whether the offsets of texts have 64 bits.
    """
    names = found.names
    fields = [field for field in expected if field.name in names]
    return (
        EXTRA in names
        and names == [field.name for field in fields]
        and all(
            one.equals(field.type) or (pa.types.is_dictionary(one) and pa.types.is_dictionary(field.type))
            for one, field in zip(found.types, fields, strict=True)
        )
    )


def _descend(branch: Branch, keys: Iterable[str]) -> Branch:
    for key in keys:
        below = branch.keys.setdefault(key, Branch())
        if not isinstance(below, Branch):
            raise TypeError(f"{key!r} is a column, so it cannot hold columns")
        branch = below
    return branch


def _column(path: str, kind: Kind, meaning: str, *, name: str | None = None) -> Column:
    return Column(name or path.replace(".", "_"), tuple(path.split(".")), kind, meaning)


def _derived(name: str, kind: Kind, meaning: str) -> Column:
    return Column(name, (), kind, meaning)


def _cas(path: str, kind: Kind, meaning: str) -> Column:
    return _column(f"metadata.cas_config.{path}", kind, meaning, name=path.replace(".", "_"))


def _run_extra(key: str, kind: Kind, meaning: str) -> Column:
    return _column(f"cas_run_extras.{key}", kind, meaning, name=key)


def resolve_record(runs: pa.Table) -> pa.Table:
    """Fill the columns of runs that the record alone determines.

    A record with a status keeps every field. Without one: it failed if it has an error, of any form, it is
    pending if it has neither an error nor a session, else only its session tells.
    """
    has_status = runs["status"].is_valid()
    failed = pc.or_(runs["error_type"].is_valid(), runs["error_message"].is_valid())
    failed = pc.or_(failed, pa.array(map(_has_error, runs[EXTRA].to_pylist()), pa.bool_()))
    has_no_session = runs["session_id"].is_null()
    derived = pc.if_else(failed, _text("failed"), pc.if_else(has_no_session, _text("pending"), _text(None)))
    source = pc.if_else(derived.is_valid(), _text("run"), _text(None))
    triggered_at = pc.coalesce(runs["triggered_at"], runs["trigger_scheduled_at"], runs["created_at"])
    columns = {
        "status": pc.coalesce(runs["status"], derived),
        "status_from": pc.coalesce(runs["status_from"], pc.if_else(has_status, _text("service"), source)),
        "triggered_at": pc.if_else(has_status, runs["triggered_at"], triggered_at),
    }
    for name, column in columns.items():
        runs = runs.set_column(runs.schema.get_field_index(name), runs.schema.field(name), column)
    return runs


def _has_error(extra: str | None) -> bool:
    """Return whether `extra` has an error, as it has no column for this form of errors."""
    return (
        extra is not None
        and '"error' in extra
        and any(path.split(".")[0] == "error" for path in json.loads(extra))
    )


def _text(value: str | None) -> pa.Scalar[Any]:
    return pa.scalar(value, pa.large_string())


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
        _column("budget.max_credit_cost", Kind.NUMBER, "credits that one run may use at most"),
        _column("vault_ids", Kind.TEXTS, "the vaults that its runs may read"),
        _column("initial_events", Kind.JSON_LIST, "what each run is told first"),
        _column("resources", Kind.JSON_LIST, "what each run is given"),
        _column("metadata", Kind.JSON_OBJECT, "the caller's own keys, without `cas_config`"),
    ),
    constants=((("type",), "deployment"), (("agent", "type"), "agent"), (("budget", "type"), "limit")),
)

RUNS = Schema(
    name="runs",
    columns=(
        _column("id", Kind.TEXT, "the run"),
        _column("deployment_id", Kind.TEXT, "the deployment that it belongs to"),
        _column(
            "status",
            Kind.TEXT,
            "`pending`, `running`, `waiting`, `completed`, `failed`, `cancelled` or `skipped`; missing: unknown",
        ),
        _derived(
            "status_from",
            Kind.TEXT,
            "what told the status: `service`, `run`, `session` (`completed` is assumed) or `events`",
        ),
        _column("trigger_context.type", Kind.TEXT, "`manual`, `schedule` or `retry`", name="trigger_type"),
        _column(
            "trigger_context.scheduled_at",
            Kind.TIME,
            "the scheduled time that it serves (newest edition)",
            name="trigger_scheduled_at",
        ),
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
    resolve=resolve_record,
)

SESSIONS = Schema(
    name="sessions",
    columns=(
        _column("id", Kind.TEXT, "the session"),
        _column("title", Kind.TEXT, "its title"),
        _column(
            "status",
            Kind.TEXT,
            "`running` (`processing` up to edition B), `rescheduling`, `canceling`, `idle` or `terminated`",
        ),
        _column("deployment_id", Kind.TEXT, "the deployment that started it; missing where a person did"),
        _column("agent.id", Kind.TEXT, "the agent that runs in it"),
        _column("agent.version", Kind.INTEGER, "that agent's version"),
        _column("agent.name", Kind.TEXT, "that agent's name when the session began"),
        _column("agent.model", Kind.TEXT_OR_ID, "that agent's model"),
        _column("environment_id", Kind.TEXT, "the environment that it runs in"),
        _column("created_at", Kind.TIME, "when it was created"),
        _column("updated_at", Kind.TIME, "when it was last changed"),
        _column("archived_at", Kind.TIME, "when it was archived"),
        _column("usage.total_credits", Kind.NUMBER, "credits used so far; missing: unknown, not 0"),
        _column("usage.model_credits", Kind.NUMBER, "of these, for model calls"),
        _column("usage.sandbox_runtime_credits", Kind.NUMBER, "of these, for the time of its machine"),
        _column("usage.input_tokens", Kind.INTEGER, "tokens read"),
        _column("usage.output_tokens", Kind.INTEGER, "tokens written"),
        _column("usage.cache_read_input_tokens", Kind.INTEGER, "tokens read from the prompt cache"),
        _column("stats.active_seconds", Kind.NUMBER, "seconds of work, as the service says; 0 may mean unknown"),
        _column("stats.duration_seconds", Kind.NUMBER, "seconds from start to end, likewise"),
        _column("budget.max_credit_cost", Kind.NUMBER, "credits that it may use at most"),
        _column("vault_ids", Kind.TEXTS, "the vaults that it may read"),
        _column("resources", Kind.JSON_LIST, "what it is given"),
        _column("outcome_evaluations", Kind.JSON_LIST, "evaluations of what it did"),
        _column("metadata", Kind.JSON_OBJECT, "the caller's own keys"),
        _column("agent", Kind.SHARED_OBJECT, "the rest of the agent's snapshot: system prompt, tools and so on"),
    ),
    constants=((("type",), "session"), (("agent", "type"), "agent"), (("budget", "type"), "limit")),
)

#: `qoderdata.frames` puts ``session_id`` and ``position`` before these columns.
EVENTS = Schema(
    name="events",
    columns=(
        _column("id", Kind.TEXT, "the event"),
        _column("type", Kind.TEXT, "what happened, such as `session.status_idle`"),
        _column("processed_at", Kind.TIME, "when it happened; may be missing on any event"),
        _column("stop_reason.type", Kind.TEXT, "why a turn ended", name="stop_reason"),
        _column("error.type", Kind.TEXT, "what kind of error it tells"),
        _column("error.message", Kind.TEXT, "that error in words"),
        _column(
            "error.retry_status.type", Kind.TEXT, "`retrying`, `exhausted` or `terminal`", name="retry_status"
        ),
        _column("model_usage.credits", Kind.NUMBER, "credits of one model call", name="model_credits"),
    ),
)

AGENTS = Schema(
    name="agents",
    columns=(
        _column("id", Kind.TEXT, "the agent"),
        _column("name", Kind.TEXT, "its name"),
        _column("description", Kind.TEXT, "what it is for"),
        _column("model", Kind.TEXT_OR_ID, "its model"),
        _column("version", Kind.INTEGER, "its newest version"),
        _column("created_at", Kind.TIME, "when it was created"),
        _column("updated_at", Kind.TIME, "when it was last changed"),
        _column("archived_at", Kind.TIME, "when it was archived"),
        _column("metadata", Kind.JSON_OBJECT, "the caller's own keys"),
    ),
    constants=((("type",), "agent"),),
)

ENVIRONMENTS = Schema(
    name="environments",
    columns=(
        _column("id", Kind.TEXT, "the environment"),
        _column("name", Kind.TEXT, "its name"),
        _column("description", Kind.TEXT, "what it is for"),
        _column("config.type", Kind.TEXT, "where it runs, such as `cloud`"),
        _column("created_at", Kind.TIME, "when it was created"),
        _column("updated_at", Kind.TIME, "when it was last changed"),
        _column("archived_at", Kind.TIME, "when it was archived"),
        _column("metadata", Kind.JSON_OBJECT, "the caller's own keys"),
    ),
    constants=((("type",), "environment"),),
)

#: One row per session whose events were read or that the service no longer has; only on disk, not for users.
OUTCOMES = Schema(
    name="outcomes",
    columns=(
        _derived("id", Kind.TEXT, "the session"),
        _derived("created_at", Kind.TIME, "when its run was created"),
        _derived("end", Kind.TEXT, "`final`, `error`, `waiting` or `gone`; missing: events tell nothing"),
        _derived("status", Kind.TEXT, "the status of its run; missing where events tell nothing"),
        _derived("started_at", Kind.TIME, "when its first turn began"),
        _derived("completed_at", Kind.TIME, "when its run ended"),
        _derived("error_type", Kind.TEXT, "what kind of error ended it"),
        _derived("error_message", Kind.TEXT, "that error in words"),
        _derived(
            "session_updated_at",
            Kind.TIME,
            "its session's `updated_at` when events were read; missing: could not be read, or gone",
        ),
        _derived("read_at", Kind.TIME, "when they were read"),
    ),
)
