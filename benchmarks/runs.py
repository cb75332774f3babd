"""Compare `run_failure_rates` on DuckDB and Dask with plain SQL, on a store that is too large for a frame.

The runs are generated straight into the store's layout, a day at a time. Every figure is of a whole process with
all its children, imports included. Needs the extras ``duckdb`` and ``dask``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil  # type: ignore[import-untyped] # has no types
import pyarrow as pa

from benchmarks.measure import ENVIRONMENT, HERE, Cost, describe_machine, measure_in_turn, temporary_folder
from benchmarks.run import write_section
from qoderdata.files import Folder
from qoderdata.schema import RUNS
from qoderdata.store import RUNS_TABLE, JournalEntry, TableStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DEPLOYMENTS = 2_000
_RUNS_A_DAY = 96
_FIRST_DAY = datetime(2025, 6, 1, tzinfo=UTC)
_SAMPLE_SECONDS = 0.02
_BASE_URL, _ACCOUNT = "http://127.0.0.1/bench", "bench"
_HEX_DIGITS = 32

NAMES = {
    "duckdb": "**qoderdata** `run_failure_rates` on DuckDB",
    "sql": "plain SQL in DuckDB",
    "dask": "**qoderdata** `run_failure_rates` on Dask, two worker processes (one run)",
}


def generate(folder: str, runs: int) -> int:
    """Write a store with this number of runs, and return its size in bytes."""
    store = TableStore(Folder(folder), RUNS_TABLE, base_url=_BASE_URL, workspace_id=None, account=_ACCOUNT)
    rng = np.random.default_rng(7)
    deployments = _ids("dep_", rng, _DEPLOYMENTS)
    left, day = runs, _FIRST_DAY
    with store.writer_lock():
        while left:
            rows = min(left, _DEPLOYMENTS * _RUNS_A_DAY)
            store.add(JournalEntry(_day(day, rows, deployments, rng), day))
            store.commit()
            left, day = left - rows, day + timedelta(days=1)
    return sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))


def _day(day: datetime, rows: int, deployments: pa.LargeStringArray, rng: np.random.Generator) -> pa.Table:
    """Return the runs of a day, newest first."""
    order = np.arange(rows)[::-1]
    of_deployment = order % _DEPLOYMENTS
    seconds = order // _DEPLOYMENTS * (86_400 // _RUNS_A_DAY)
    triggered = np.datetime64(day.replace(tzinfo=None), "us") + (seconds * 1_000_000).astype("timedelta64[us]")
    started = triggered + rng.integers(0, 5_000_000, rows).astype("timedelta64[us]")
    took = rng.lognormal(10.5, 0.6, rows).astype("int64")
    status = rng.choice(4, rows, p=[0.90, 0.06, 0.03, 0.01])
    ended, failed = status < 2, status == 1
    statuses = pa.array(["completed", "failed", "skipped", "running"], pa.large_string())
    errors = pa.array(["timeout", "api_error", "overloaded"], pa.large_string())
    nothing = pa.nulls(rows, pa.large_string())
    columns = {
        "id": _ids("drun_", rng, rows),
        "deployment_id": deployments.take(_indices(of_deployment)),
        "status": statuses.take(_indices(status)),
        "status_from": pa.array(["service"], pa.large_string()).take(_indices(np.zeros(rows, dtype="int64"))),
        "trigger_type": pa.array(["schedule"], pa.large_string()).take(_indices(np.zeros(rows, dtype="int64"))),
        "agent_id": deployments.take(_indices(of_deployment % 40)),
        "agent_version": pa.array(of_deployment % 7),
        "session_id": _ids("sess_", rng, rows),
        "attempt": pa.array(np.ones(rows, dtype="int64")),
        "turn_id": nothing,
        "triggered_at": _times(triggered),
        "created_at": _times(triggered),
        "started_at": _times(started),
        "completed_at": _times(started + (took * 1_000).astype("timedelta64[us]"), missing=~ended),
        "duration_ms": pa.array(took, mask=~ended),
        "error_type": errors.take(_indices(rng.integers(0, 3, rows), missing=~failed)),
        "error_message": nothing,
    }
    absent = {field.name: pa.nulls(rows, field.type) for field in RUNS.arrow if field.name not in columns}
    return pa.table({name: {**absent, **columns}[name] for name in RUNS.names}).cast(RUNS.arrow)


def _ids(prefix: str, rng: np.random.Generator, count: int) -> Any:  # noqa: ANN401 - an Arrow array
    """Return random ids as one Arrow array, without a Python object per id."""
    letters = np.empty((count, len(prefix) + _HEX_DIGITS), dtype=np.uint8)
    letters[:, : len(prefix)] = np.frombuffer(prefix.encode(), np.uint8)
    digits = np.frombuffer(rng.bytes(count * _HEX_DIGITS // 2).hex().encode(), np.uint8)
    letters[:, len(prefix) :] = digits.reshape(count, _HEX_DIGITS)
    offsets = np.arange(count + 1, dtype=np.int64) * letters.shape[1]
    pieces = [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(letters.tobytes())]
    return pa.Array.from_buffers(pa.large_string(), count, pieces)


def _indices(values: Any, *, missing: Any = None) -> pa.Int64Array:  # noqa: ANN401 - numbers of NumPy's
    return pa.array(values.astype("int64"), pa.int64(), mask=missing)


def _times(stamps: Any, *, missing: Any = None) -> Any:  # noqa: ANN401 - times of NumPy's and Arrow's
    return pa.array(stamps, pa.timestamp("us"), mask=missing).cast(pa.timestamp("us", tz="UTC"))


def measure_with_children(command: Sequence[str]) -> Cost:
    """Run a command; return its cost including child processes, whose memory is sampled every 20 ms."""
    began = time.perf_counter()
    peak, cpu = 0, 0.0
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            memory, spent = _resources_of(root)
            peak, cpu = max(peak, memory), max(cpu, spent)
            time.sleep(_SAMPLE_SECONDS)
        wall = time.perf_counter() - began
        assert process.stderr is not None
        error_output = process.stderr.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {error_output}")
    return Cost(wall, cpu, peak / 2**20)


def _resources_of(root: psutil.Process) -> tuple[int, float]:
    """Return the resident memory in bytes and the CPU seconds of a process and its children."""
    memory, spent = 0, 0.0
    try:
        members = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return memory, spent
    for member in members:
        try:
            with member.oneshot():
                memory += member.memory_info().rss
                spent += sum(member.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return memory, spent


def measure(folder: str, rounds: int) -> dict[str, Cost]:
    """Run the contenders in turn, after one warm-up round, and return the medians; run Dask once."""
    commands = {name: [sys.executable, str(HERE / "contenders" / f"rates_{name}.py"), folder] for name in NAMES}
    dask = measure_with_children(commands.pop("dask"))
    return {**measure_in_turn(commands, rounds=rounds, measure=measure_with_children), "dask": dask}


def format_table(costs: Mapping[str, Cost], *, runs: int, size: int, took: float) -> str:
    """Return the measurement as a Markdown table."""
    sql = costs["sql"].wall
    rows = ["| | wall s | CPU s | peak MiB, all processes | wall, SQL = 1 |", "|---|---:|---:|---:|---:|"]
    rows += [
        f"| {NAMES[name]} | {cost.wall:.2f} | {cost.cpu:.2f} | {cost.peak:,.0f} | {cost.wall / sql:.2f} |"
        for name, cost in costs.items()
    ]
    days = -(-runs // (_DEPLOYMENTS * _RUNS_A_DAY))
    head = (
        f"{runs:,} runs of {_DEPLOYMENTS:,} deployments in {days} days: {size / 2**30:.2f} GiB of Parquet,\n"
        f"generated in {took:.0f} s. Measured on: {describe_machine()}.\n\n"
    )
    return head + "\n".join(rows)


def main() -> int:
    """Generate a store and measure on it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="print, and do not change README.md")
    arguments = parser.parse_args()
    with temporary_folder() as folder:
        began = time.perf_counter()
        size = generate(folder, arguments.runs)
        took = time.perf_counter() - began
        costs = measure(folder, arguments.rounds)
    text = format_table(costs, runs=arguments.runs, size=size, took=took)
    sys.stdout.write(f"\n{text}\n")
    if not arguments.dry:
        write_section("runs", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
