"""Tests of the documented responses against golden files: the frames, which people have checked line by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from qoderdata.decode import Decoder, from_records
from qoderdata.frames import (
    events_to_pandas,
    flatten_deployments,
    flatten_events,
    flatten_runs,
    flatten_sessions,
    to_pandas,
)
from qoderdata.outcomes import resolve_outcomes
from qoderdata.schema import AGENTS, DEPLOYMENTS, ENVIRONMENTS, EVENTS, RUNS, SESSIONS, Schema

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(__file__).resolve().parent.parent / "data"

SESSION = "sess_019e392c0d787cfaa21bda98e06cd913"


def flatten_session_events(records: Any) -> pd.DataFrame:  # noqa: ANN401 - an envelope
    return flatten_events(records, SESSION)


def flatten_agents(records: Any) -> pd.DataFrame:  # noqa: ANN401 - an envelope
    return to_pandas(from_records(records, AGENTS), AGENTS)


def flatten_environments(records: Any) -> pd.DataFrame:  # noqa: ANN401 - an envelope
    return to_pandas(from_records(records, ENVIRONMENTS), ENVIRONMENTS)


#: File, schema of its records, function that makes a frame of them.
EACH_RESPONSE = pytest.mark.parametrize(
    ("name", "schema", "flatten"),
    [
        ("list_deployments", DEPLOYMENTS, flatten_deployments),
        ("list_deployment_runs", RUNS, flatten_runs),
        ("d_list_deployments", DEPLOYMENTS, flatten_deployments),
        ("d_list_deployment_runs", RUNS, flatten_runs),
        ("d_list_sessions", SESSIONS, flatten_sessions),
        ("d_list_session_events", EVENTS, flatten_session_events),
        ("d_list_agents", AGENTS, flatten_agents),
        ("d_list_environments", ENVIRONMENTS, flatten_environments),
    ],
)


def readable(frame: pd.DataFrame) -> dict[str, Any]:
    """Return a frame as readable JSON: the dtype and the values of each column."""
    return {
        str(name): {"dtype": str(column.dtype), "values": [cell(value) for value in column]}
        for name, column in frame.items()
    }


def cell(value: Any) -> Any:  # noqa: ANN401 - any cell
    if isinstance(value, np.ndarray):
        return [str(element) for element in value]
    if pd.isna(value):
        return None
    if isinstance(value, np.integer):
        return int(value)
    return value.isoformat() if isinstance(value, pd.Timestamp) else value


def from_table(table: Any, schema: Schema) -> pd.DataFrame:  # noqa: ANN401 - an Arrow table
    """Convert a decoded table to a frame, as its loader does."""
    if schema is EVENTS:
        return events_to_pandas(table, SESSION)
    frame = to_pandas(table, schema)
    return resolve_outcomes(frame) if schema is RUNS else frame


@EACH_RESPONSE
def test_flattened_records_equal_the_golden_frame(
    name: str, schema: Schema, flatten: Callable[[Any], pd.DataFrame]
) -> None:
    frame = flatten(json.loads((DATA / f"{name}.json").read_bytes()))
    expected = json.loads((DATA / f"{name}.frame.json").read_bytes())
    assert readable(frame) == expected, f"if this change is meant, edit data/{name}.frame.json by hand"
    own = ["session_id", "position"] if schema is EVENTS else []
    assert list(frame.columns) == own + schema.names


@EACH_RESPONSE
def test_decoded_page_equals_the_flattened_records(
    name: str, schema: Schema, flatten: Callable[[Any], pd.DataFrame]
) -> None:
    """The bytes of a page give the same frame as its records."""
    body = (DATA / f"{name}.json").read_bytes()
    decoder = Decoder(schema)
    frame = from_table(decoder.finish([decoder.to_table(decoder.read_page(body))]), schema)
    pd.testing.assert_frame_equal(frame, flatten(json.loads(body)))


def test_envelope_of_the_documented_page_is_read() -> None:
    """The last id is not that of a listed record: cursors come from the envelope."""
    page = Decoder(DEPLOYMENTS).read_page((DATA / "list_deployments.json").read_bytes())
    last = "dep_019ec53748f7784bac33f208c0f66982"
    assert (page.has_more, page.cursor) == (True, last)
