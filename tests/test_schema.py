"""Tests of `qoderdata.schema`: the columns of each table and their JSON paths."""

from __future__ import annotations

import pyarrow as pa
import pytest

from qoderdata.schema import (
    AGENTS,
    DEPLOYMENTS,
    ENVIRONMENTS,
    EVENTS,
    EXTRA,
    RUNS,
    SESSIONS,
    Branch,
    Column,
    Kind,
    Schema,
)  # fmt: skip

TEXTS = (
    "id", "name", "description", "status", "agent_id", "environment_id", "paused_reason_type",
    "paused_reason_error_type", "schedule_type", "schedule_expression", "schedule_timezone", "session_strategy",
    "initial_events", "resources", "metadata", "extra",
)  # fmt: skip
INTEGERS = (
    "agent_version", "config_max_concurrent", "config_max_retries", "config_timeout_ms", "stats_total_runs",
    "stats_total_failures", "stats_consecutive_failures",
)  # fmt: skip
TIMES = (
    "created_at", "updated_at", "archived_at", "schedule_last_run_at", "stats_next_trigger_at",
    "stats_last_triggered_at",
)  # fmt: skip
TIME = pa.timestamp("us", tz="UTC")


def test_deployments_have_the_documented_columns_and_types() -> None:
    documented: dict[str, pa.DataType] = {
        **dict.fromkeys(TEXTS, pa.large_string()),
        **dict.fromkeys(INTEGERS, pa.int64()),
        **dict.fromkeys(TIMES, TIME),
        "budget_max_credit_cost": pa.float64(),
        "schedule_upcoming_runs_at": pa.list_(TIME),
        "vault_ids": pa.list_(pa.string()),
    }
    assert {field.name: field.type for field in DEPLOYMENTS.arrow} == documented


def test_runs_have_the_documented_columns() -> None:
    assert RUNS.names == [
        "id", "deployment_id", "status", "status_from", "trigger_type", "trigger_scheduled_at", "agent_id",
        "agent_version", "session_id", "attempt", "turn_id", "triggered_at", "created_at", "started_at",
        "completed_at", "duration_ms", "error_type", "error_message", "extra",
    ]  # fmt: skip


def test_sessions_have_the_documented_columns_and_types() -> None:
    texts = ["id", "title", "status", "deployment_id", "agent_id", "agent_name", "agent_model", "environment_id"]
    numbers = [
        *("usage_total_credits", "usage_model_credits", "usage_sandbox_runtime_credits", "stats_active_seconds"),
        *("stats_duration_seconds", "budget_max_credit_cost"),
    ]
    integers = ["agent_version", "usage_input_tokens", "usage_output_tokens", "usage_cache_read_input_tokens"]
    json_texts = ["resources", "outcome_evaluations", "metadata", "extra"]
    assert {field.name: field.type for field in SESSIONS.arrow} == {
        **dict.fromkeys([*texts, *json_texts], pa.large_string()),
        **dict.fromkeys(integers, pa.int64()),
        **dict.fromkeys(numbers, pa.float64()),
        **dict.fromkeys(["created_at", "updated_at", "archived_at"], TIME),
        "vault_ids": pa.list_(pa.string()),
        "agent": pa.dictionary(pa.int32(), pa.large_string()),
    }


@pytest.mark.parametrize(
    "schema", [DEPLOYMENTS, RUNS, SESSIONS, EVENTS, AGENTS, ENVIRONMENTS], ids=lambda schema: schema.name
)
class TestEverySchema:
    def test_names_and_paths_are_unique(self, schema: Schema) -> None:
        assert len(set(schema.names)) == len(schema.names)
        paths = [column.path for column in schema.columns if column.path]
        assert len(set(paths)) == len(paths)

    def test_name_of_a_column_is_derived_from_its_path(self, schema: Schema) -> None:
        """Columns without a path are derived; a few names are shorter than their paths."""
        shorter = {
            "trigger_context.type": "trigger_type",
            "trigger_context.scheduled_at": "trigger_scheduled_at",
            "stop_reason.type": "stop_reason",
            "error.retry_status.type": "retry_status",
            "model_usage.credits": "model_credits",
        }
        for column in schema.columns:
            if column.path:
                path = ".".join(column.path).removeprefix("metadata.cas_config.").removeprefix("cas_run_extras.")
                assert column.name == shorter.get(path, path.replace(".", "_"))

    def test_extra_is_the_last_column(self, schema: Schema) -> None:
        assert schema.names[-1] == EXTRA
        assert schema.arrow.names == schema.names

    def test_every_column_has_a_meaning(self, schema: Schema) -> None:
        assert all(column.meaning for column in schema.columns)

    def test_tree_contains_every_column_and_constant(self, schema: Schema) -> None:
        def walk(branch: Branch, path: tuple[str, ...]) -> None:
            if branch.rest is not None:
                columns[path] = branch.rest
            for key, known in branch.keys.items():
                if isinstance(known, Branch):
                    walk(known, (*path, key))
                elif isinstance(known, Column):
                    columns[*path, key] = known
                else:
                    constants.append(((*path, key), known))

        columns: dict[tuple[str, ...], Column] = {}
        constants: list[tuple[tuple[str, ...], str]] = []
        walk(schema.tree, ())
        assert columns == {column.path: column for column in schema.columns if column.path}
        assert sorted(constants) == sorted(schema.constants)


def test_column_inside_another_column_raises_type_error() -> None:
    schema = Schema(
        name="broken",
        columns=(Column("a", ("a",), Kind.TEXT, "x"), Column("a_b", ("a", "b"), Kind.TEXT, "y")),
        constants=(),
    )
    with pytest.raises(TypeError, match="'a' is a column"):
        _ = schema.tree
