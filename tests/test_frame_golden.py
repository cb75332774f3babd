"""The documented answers and the frames that they become, which people have read and found right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from qoderdata.frame import Decoder, flatten_deployments, flatten_runs, to_pandas
from qoderdata.schema import DEPLOYMENTS, RUNS, Schema

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(__file__).resolve().parent.parent / "data"

ANSWERS = pytest.mark.parametrize(
    ("name", "schema", "flatten"),
    [("list_deployments", DEPLOYMENTS, flatten_deployments), ("list_deployment_runs", RUNS, flatten_runs)],
)


def readable(frame: pd.DataFrame) -> dict[str, Any]:
    """Write a frame as JSON that people can read: by column, its dtype and its values."""
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


@ANSWERS
def test_flattened(name: str, schema: Schema, flatten: Callable[[Any], pd.DataFrame]) -> None:
    frame = flatten(json.loads((DATA / f"{name}.json").read_bytes()))
    assert readable(frame) == json.loads((DATA / f"{name}.frame.json").read_bytes())
    assert list(frame.columns) == schema.names


@ANSWERS
def test_decoded(name: str, schema: Schema, flatten: Callable[[Any], pd.DataFrame]) -> None:
    """From the bytes of a page, the same frame as from its records."""
    body = (DATA / f"{name}.json").read_bytes()
    decoder = Decoder(schema)
    frame = to_pandas(decoder.finish([decoder.decode(decoder.scan(body))]), schema)
    pd.testing.assert_frame_equal(frame, flatten(json.loads(body)))


def test_the_envelope_of_the_documented_answer() -> None:
    """Its last id is not that of a record shown: cursors come from the envelope."""
    page = Decoder(DEPLOYMENTS).scan((DATA / "list_deployments.json").read_bytes())
    last = "dep_019ec53748f7784bac33f208c0f66982"
    assert (page.has_more, page.last_id, page.next_page) == (True, last, last)
    assert page.first_id == "dep_019ec55a2b687b3f94eee77dd77e4b2a"
