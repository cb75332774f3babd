"""Tests of `with_all_columns`: a table that was stored without a column equals one that was decoded with it."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoderdata.decode import from_records
from qoderdata.errors import DataQualityWarning
from qoderdata.frames import flatten_runs, to_pandas
from qoderdata.schema import AGENTS, DEPLOYMENTS, ENVIRONMENTS, EVENTS, RUNS, SESSIONS, Column, Kind, Schema
from qoderdata.stored_columns import with_all_columns
from tests.hostile_pages import lost, parse
from tests.test_decode_properties import SOME, records, rows

if TYPE_CHECKING:
    from collections.abc import Collection


def without(schema: Schema, *names: str) -> Schema:
    """Return a schema as an earlier version had it, without some columns."""
    return replace(schema, columns=tuple(column for column in schema.columns if column.name not in names))


def decoded(found: list[dict[str, Any]], schema: Schema) -> pa.Table:
    with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
        return from_records(found, schema)


def is_in_object(column: Column, schema: Schema) -> bool:
    """Return whether the value of a column without that column is in the text of an object column."""
    return any(
        other.kind.is_object and column.path[: len(other.path)] == other.path and other is not column
        for other in schema.columns
        if column.path[:2] != ("metadata", "cas_config")
    )


#: Columns that an earlier version may have lacked, one of each kind: their values were in ``extra``.
ADDED = {
    column.kind: pytest.param(schema, column, id=f"{schema.name}.{column.name}")
    for schema in (ENVIRONMENTS, AGENTS, SESSIONS, replace(RUNS, resolve=lambda table: table), EVENTS, DEPLOYMENTS)
    for column in schema.columns
    if column.path and column.name != "id" and not is_in_object(column, schema)
}


@pytest.mark.parametrize(("schema", "column"), ADDED.values())
@given(st.data())
@settings(SOME, max_examples=20)
def test_filled_table_equals_the_table_decoded_with_the_column(
    schema: Schema, column: Column, data: st.DataObject
) -> None:
    """The text of an object column has its keys in another order, so only its values are compared."""
    found = data.draw(records(schema, odd=True))
    filled = with_all_columns(decoded(found, without(schema, column.name)), schema)
    assert filled.schema.equals(schema.arrow)
    if column.kind.is_object:
        for record, row in zip(found, rows(filled), strict=True):
            assert lost(parse(json.dumps(record)), row, schema) == []
    else:
        assert rows(filled) == rows(decoded(found, schema))


NEW = (
    Column("plain", ("plain",), Kind.TEXT, ""),
    Column("dotted", ("a.b", "\\c"), Kind.INTEGER, ""),
    Column("nested_time", ("one", "two", "at"), Kind.TIME, ""),
    Column("shared", ("shared",), Kind.SHARED_OBJECT, ""),
    Column("texts", ("texts",), Kind.TEXTS, ""),
)
WIDER = replace(
    AGENTS,
    columns=(*AGENTS.columns[:2], *NEW, *AGENTS.columns[2:]),
    constants=(*AGENTS.constants, (("one", "two", "type"), "two")),
)


@pytest.mark.parametrize(
    ("record", "values", "extra"),
    [
        ({}, {}, None),
        ({"plain": "x", "other": 1.50}, {"plain": "x"}, '{"other":1.5}'),
        ({"plain": 5, "a.b": {"\\c": 7}}, {"dotted": 7}, '{"plain":5}'),
        ({"a": {"b": {"\\c": 7}}}, {}, '{"a.b.\\\\\\\\c":7}'),
        (
            {"one": {"two": {"at": "2026-06-14T00:00:00Z", "by": "é"}}},
            {"nested_time": 1781395200000000},
            '{"one.two.by":"é"}',
        ),
        ({"one": {"two": {"type": "two"}}}, {}, None),
        ({"one": {"two": {"type": "three"}}}, {}, '{"one.two.type":"three"}'),
        ({"one": {"two": {"at": "soon"}}}, {}, '{"one.two.at":"soon"}'),
        ({"one": "plain"}, {}, '{"one":"plain"}'),
        ({"one": {"two": {"at": "0001-01-01T00:00:00Z"}}}, {}, None),
        ({"shared": {"b": {"c": [1, {}]}, "a": 2}}, {"shared": '{"a":2,"b":{"c":[1,{}]}}'}, None),
        ({"shared": {}, "texts": ["a", "b"]}, {"shared": "{}", "texts": ["a", "b"]}, None),
        ({"texts": ["a", 1]}, {}, '{"texts":["a",1]}'),
        ({"": {"": 1}, ".": {"\\": 2}, "plain": "x"}, {"plain": "x"}, '{".":1,"\\\\..\\\\\\\\":2}'),
    ],
)
def test_values_that_fit_leave_extra_and_others_stay(
    record: dict[str, Any], values: dict[str, Any], extra: str | None
) -> None:
    (row,) = rows(with_all_columns(from_records([{"id": "agent_1", **record}], AGENTS), WIDER))
    assert {column.name: row[column.name] for column in NEW if row[column.name] is not None} == values
    assert row["extra"] == extra
    assert list(row) == WIDER.names


def test_table_with_all_columns_is_unchanged() -> None:
    table = from_records([{"id": "agent_1", "more": 1}], AGENTS)
    assert with_all_columns(table, AGENTS).equals(table)


@pytest.mark.parametrize("change", [
    lambda table: table.append_column("more", table["id"]),
    lambda table: table.drop_columns(["extra"]),
    lambda table: table.set_column(0, "id", pa.nulls(table.num_rows, pa.int64())).drop_columns(["name"]),
    lambda table: table.select(["name", "id", "extra"]),
])  # fmt: skip
def test_other_columns_types_or_order_raise_value_error(change: Any) -> None:  # noqa: ANN401
    table = from_records([{"id": "agent_1"}], AGENTS)
    with pytest.raises(ValueError, match="columns"):
        with_all_columns(change(table), AGENTS)


RUN_RECORDS: list[dict[str, Any]] = [
    {"id": "drun_1", "status": "completed", "triggered_at": "2026-06-14T00:00:00Z"},
    {"id": "drun_2", "created_at": "2026-06-14T00:00:00Z", "session_id": "s",
     "trigger_context": {"scheduled_at": "2026-06-13T00:00:00Z"}},
    {"id": "drun_3", "created_at": "2026-06-14T00:00:00Z", "error": {"type": "timeout"}},
    {"id": "drun_4", "created_at": "2026-06-14T00:00:00Z"},
]  # fmt: skip


@pytest.mark.parametrize("lacking", [["status_from", "trigger_scheduled_at"], ["status_from"], ["turn_id"], []])
def test_derived_columns_are_filled_as_for_fresh_rows(lacking: Collection[str]) -> None:
    """Rows whose status was derived before keep its source."""
    table = from_records(RUN_RECORDS, without(RUNS, *lacking))
    if "status_from" not in lacking:
        table = RUNS.resolve(with_all_columns(table, RUNS)).drop_columns(list(lacking))
    found = with_all_columns(table, RUNS)
    assert to_pandas(found, RUNS).equals(flatten_runs(RUN_RECORDS))
    assert RUNS.resolve(found).equals(found)
