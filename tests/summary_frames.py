"""Runs, accounts and rows that several tests of summaries use."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from qoderdata import decode, frames, schema
from qoderdata.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterable


#: Two columns of a SQL query, from its columns `n`, `p` and `z`.
WILSON_SQL = """
    (p + z * z / (2 * n) - z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (1 + z * z / n) AS ci_low,
    (p + z * z / (2 * n) + z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (1 + z * z / n) AS ci_high
"""
#: The normal quantile of a 95 % interval, as printed in tables.
Z_SQL = "1.959963984540054 AS z"


def runs_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Build a runs frame whose ids are in the order of the rows."""
    runs = [{"id": f"drun_{i:04}", "deployment_id": "dep_1", **row} for i, row in enumerate(rows)]
    return frames.to_pandas(pa.Table.from_pylist(runs, schema.RUNS.arrow), schema.RUNS)


def records(result: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows with their keys, missing values as `None`."""
    rows = result.reset_index().to_dict("records")
    return [{str(name): None if pd.isna(value) else value for name, value in row.items()} for row in rows]


@cache
def account_tables() -> tuple[pa.Table, pa.Table]:
    """Return 15 deployments of a sandbox and their 400 runs, as Arrow tables, which are immutable."""
    with Sandbox(deployments=15, seed=7, runs=400) as sandbox:
        return (
            decode.from_records(sandbox.deployments, schema.DEPLOYMENTS),
            decode.from_records(sandbox.runs, schema.RUNS),
        )
