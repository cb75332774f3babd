"""How a command is measured: whole processes, in turn, medians; the operating system's own account of each."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = Path(__file__).parent
#: Bytecode is cached, as it is for users, and no developer's settings leak in.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in {"PYTHONDONTWRITEBYTECODE", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}
} | {"PYTHONWARNINGS": "ignore"}


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process took: seconds by the clock, seconds of processor, MiB at its peak."""

    wall: float
    cpu: float
    peak: float


def once(command: Sequence[str]) -> Cost:
    """Run a command to its end and give its cost; raises when it fails."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT)
    assert process.stderr is not None
    complaint = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {complaint.decode(errors='replace')}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def printed(command: Sequence[str]) -> str:
    """Run a command to its end and give what it printed; raises when it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT).stdout


def in_turn(commands: Mapping[str, Sequence[str]], *, rounds: int) -> dict[str, Cost]:
    """Run commands A B C, A B C, …, after one round that does not count, and give the medians."""
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            cost = once(command)
            if number:
                costs[name].append(cost)
        sys.stderr.write("." if number < rounds else ".\n")
        sys.stderr.flush()
    return {
        name: Cost(
            median(cost.wall for cost in found),
            median(cost.cpu for cost in found),
            median(cost.peak for cost in found),
        )
        for name, found in costs.items()
    }


@contextmanager
def served(*options: str) -> Iterator[str]:
    """Run the server of ready pages in a process of its own, and give its base URL."""
    command = [sys.executable, str(HERE / "serve.py"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextmanager
def scratch() -> Iterator[str]:
    """Return a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="qoderdata-bench-") as folder:
        yield folder


def contender(name: str, url: str, folder: str) -> list[str]:
    """Return the command of a contender."""
    return [sys.executable, str(HERE / "contenders" / f"{name}.py"), url, folder]


def python(code: str) -> list[str]:
    """Return the command that runs a line of Python."""
    return [sys.executable, "-c", code]


def machine() -> str:
    """Say what this was measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, Python {sys.version.split()[0]}"
