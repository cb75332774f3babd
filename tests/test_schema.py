"""Tests of `qoderdata.schema`: the columns of each table and their JSON paths."""

from __future__ import annotations

import pyarrow as pa
import pytest

from qoderdata.outcomes import RUNNING_SESSIONS
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

TIME = pa.timestamp("us", tz="UTC")


def test_each_kind_has_one_arrow_type() -> None:
    texts = [Kind.TEXT, Kind.TEXT_OR_ID, Kind.JSON_OBJECT, Kind.JSON_LIST]
    assert {kind: kind.arrow for kind in Kind} == {
        **dict.fromkeys(texts, pa.large_string()),
        Kind.INTEGER: pa.int64(),
        Kind.NUMBER: pa.float64(),
        Kind.TIME: TIME,
        Kind.TEXTS: pa.list_(pa.string()),
        Kind.TIMES: pa.list_(TIME),
        Kind.SHARED_OBJECT: pa.dictionary(pa.int32(), pa.large_string()),
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
                expected = shorter.get(path, path.replace(".", "_"))
                assert column.name == expected, f"name it {expected}, or add its shorter name to `shorter`"

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


def test_meaning_of_the_status_of_sessions_names_every_status() -> None:
    (meaning,) = (column.meaning for column in SESSIONS.columns if column.name == "status")
    assert [word for word in (*RUNNING_SESSIONS, "idle", "terminated") if f"`{word}`" not in meaning] == []


def test_column_inside_another_column_raises_type_error() -> None:
    schema = Schema(
        name="broken",
        columns=(Column("a", ("a",), Kind.TEXT, "x"), Column("a_b", ("a", "b"), Kind.TEXT, "y")),
        constants=(),
    )
    with pytest.raises(TypeError, match="'a' is a column"):
        _ = schema.tree
