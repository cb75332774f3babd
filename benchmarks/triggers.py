"""Compare `next_triggers` for a large fleet with croniter, which is called for each deployment.

Each contender runs in its own process and prints its cost. The time does not include imports and the generation of
the fleet. croniter runs for a sample, and its time is extrapolated.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from qoderdata import next_triggers
from qoderdata.cron import parse
from qoderdata.sandbox.account import make_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

START = datetime(2026, 10, 20, tzinfo=UTC)  # clocks go back in Europe within the week
LISTED = 5
AGENTS, ENVIRONMENTS = 2000, 20


def fleet(deployments: int, schedules: int) -> pd.DataFrame:
    """Generate deployments that share schedules, each with the service's list of its next triggers."""
    pairs = make_pairs(schedules, seed=7)
    random = np.random.default_rng(7)
    of_row = random.integers(0, schedules, deployments)
    following = [parse(pair.expression, pair.timezone).following(START) for pair in pairs]
    listed = [
        np.array([at.replace(tzinfo=None) for at in islice(times, LISTED)], "datetime64[us]")
        for times in following
    ]
    ids = [f"dep_{number:032x}" for number in random.permutation(deployments)]
    return pd.DataFrame(
        {
            "id": ids,
            "name": [f"report {number}" for number in range(deployments)],
            "agent_id": [f"agent_{number:032x}" for number in random.integers(0, AGENTS, deployments)],
            "environment_id": [f"env_{number:032x}" for number in random.integers(0, ENVIRONMENTS, deployments)],
            "status": "active",
            "archived_at": pd.Series([pd.NaT] * deployments, dtype="datetime64[us, UTC]"),
            "schedule_expression": [pairs[number].expression for number in of_row],
            "schedule_timezone": [pairs[number].timezone for number in of_row],
            "schedule_upcoming_runs_at": pd.Series([listed[number].copy() for number in of_row], dtype=object),
        }
    )


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ours(df: pd.DataFrame, days: int) -> dict[str, float]:
    before, began = peak_mib(), time.perf_counter()
    triggers = next_triggers(df, timedelta(days=days), start=START)
    seconds = time.perf_counter() - began
    size = triggers.memory_usage(deep=True).sum() / 2**20
    return {"rows": len(triggers), "seconds": seconds, "result": size, "memory": peak_mib() - before}


def croniter(df: pd.DataFrame, days: int, sample: int) -> dict[str, float]:
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - only this process needs it

    from croniter import croniter_range  # noqa: PLC0415 - likewise

    some = df.sample(min(sample, len(df)), random_state=7)
    rows = 0
    began = time.perf_counter()
    for expression, timezone in zip(some["schedule_expression"], some["schedule_timezone"], strict=True):
        start = START.astimezone(ZoneInfo(timezone))
        rows += sum(1 for _ in croniter_range(start, start + timedelta(days=days), expression))
    scale = len(df) / len(some)
    return {"rows": rows * scale, "seconds": (time.perf_counter() - began) * scale, "result": 0, "memory": 0}


def measure(arguments: Sequence[str]) -> dict[str, float]:
    """Run one contender in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> int:
    """Measure both, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployments", type=int, default=100_000)
    parser.add_argument("--schedules", type=int, default=500, help="distinct pairs of cron text and zone")
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument(
        "--sample", type=int, default=1000, help="the number of deployments that croniter projects"
    )
    parser.add_argument("--only", choices=["ours", "croniter"], help="run one contender here, and print JSON")
    arguments = parser.parse_args()
    if arguments.only:
        df = fleet(arguments.deployments, arguments.schedules)
        days, sample = arguments.days, arguments.sample
        found = ours(df, days) if arguments.only == "ours" else croniter(df, days, sample)
        print(json.dumps({name: float(value) for name, value in found.items()}))
        return 0
    mine = measure([*sys.argv[1:], "--only", "ours"])
    theirs = measure([*sys.argv[1:], "--only", "croniter"])
    print(
        "| deployments | triggers | `next_triggers` s | croniter s, extrapolated | ratio | result MiB "
        "| extra peak MiB |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|")
    print(
        f"| {arguments.deployments:,} | {mine['rows']:,.0f} | {mine['seconds']:.2f} | {theirs['seconds']:.1f} "
        f"| {theirs['seconds'] / mine['seconds']:.0f} | {mine['result']:.0f} | {mine['memory']:.0f} |"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
