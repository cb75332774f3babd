"""Runs, accounts and rows that several tests of summaries use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
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
START = datetime(2026, 3, 27, 12, tzinfo=UTC)
YEAR_1 = datetime(1, 1, 1, tzinfo=UTC)
HOUR_MS = 3_600_000.0


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def runs_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Build a runs frame whose ids are in the order of the rows."""
    runs = [{"id": f"drun_{i:04}", "deployment_id": "dep_1", **row} for i, row in enumerate(rows)]
    return frames.to_pandas(pa.Table.from_pylist(runs, schema.RUNS.arrow), schema.RUNS)


def records(result: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows with their keys, missing values as `None`."""
    rows = result.reset_index().to_dict("records")
    return [{str(name): None if pd.isna(value) else value for name, value in row.items()} for row in rows]


@cache
def account_tables(deployments: int = 15, runs: int = 400) -> tuple[pa.Table, pa.Table]:
    """Return deployments of a sandbox and their runs, as Arrow tables, which are immutable."""
    with Sandbox(deployments=deployments, seed=7, runs=runs) as sandbox:
        return (
            decode.from_records(sandbox.deployments, schema.DEPLOYMENTS),
            decode.from_records(sandbox.runs, schema.RUNS),
        )


def account_frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return 80 deployments of a sandbox and their 4,000 runs."""
    deployments, runs = account_tables(80, 4000)
    return frames.to_pandas(deployments, schema.DEPLOYMENTS), frames.to_pandas(runs, schema.RUNS)


def hourly_runs(letters: str) -> pd.DataFrame:
    """Build a run per hour: f(ailed), c(ompleted), s(kipped), r(unning), x (cancelled), w(aiting), ? (unknown)."""
    statuses = ["failed", "completed", "skipped", "running", "cancelled", "waiting", None]
    status_of = dict(zip("fcsrxw?", statuses, strict=True))
    return runs_frame(
        {"status": status_of[letter], "triggered_at": at(hour)} for hour, letter in enumerate(letters)
    )


def random_rows(seed: str, *, deployments: int = 40) -> list[dict[str, Any]]:
    """Draw 1 to 20 runs of each deployment, and some of no deployment."""
    draw = Random(seed)  # noqa: S311 nothing secret
    statuses = ["completed", "completed", "failed", "failed", "skipped", "running", "cancelled", "waiting", None]
    rows = [
        {
            "deployment_id": deployment,
            "status": draw.choice(statuses),
            "created_at": draw.choice([None, *map(at, range(4))]),
            "trigger_scheduled_at": draw.choice([None, *map(at, range(9))]),
            "triggered_at": draw.choice([None, *map(at, range(61))]),
            "started_at": draw.choice([None, *map(at, range(81))]),
            "duration_ms": draw.choice([None, *range(21)]),
            "error_type": draw.choice(["timeout", "api", None]),
        }
        for deployment in [None, *(f"dep_{number}" for number in range(deployments))]
        for _ in range(draw.randint(1, 20))
    ]
    draw.shuffle(rows)
    return rows


def grouped(rows: list[dict[str, Any]], by: str | None) -> dict[Any, list[dict[str, Any]]]:
    groups: dict[Any, list[dict[str, Any]]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row[by] if by else None, []).append({**row, "position": i})
    return groups
