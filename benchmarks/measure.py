"""Measure commands: run whole processes in turn, and take the medians of what the operating system reports."""

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
    from collections.abc import Callable, Iterator, Mapping, Sequence

HERE = Path(__file__).parent
_SETTINGS = {
    "ARROW_DEFAULT_MEMORY_POOL",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "PYTHONDONTWRITEBYTECODE",
}
#: The environment of each process: without the developer's settings, and so with cached bytecode, as for users.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in _SETTINGS} | {
    "PYTHONWARNINGS": "ignore"
}


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one process: wall time and CPU time in seconds, and peak memory in MiB."""

    wall: float
    cpu: float
    peak: float


def measure_once(command: Sequence[str]) -> Cost:
    """Run a command, and return its cost; raise `RuntimeError` if it fails."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT)
    assert process.stderr is not None
    error_output = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {error_output.decode(errors='replace')}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def output_of(command: Sequence[str]) -> str:
    """Run a command, and return its standard output; raise `CalledProcessError` if it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT).stdout


def measure_in_turn(
    commands: Mapping[str, Sequence[str]], *, rounds: int, measure: Callable[[Sequence[str]], Cost] = measure_once
) -> dict[str, Cost]:
    """Run commands in turn (A B C, A B C, …), after one warm-up round; return the median costs."""
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            cost = measure(command)
            if number:
                costs[name].append(cost)
        sys.stderr.write("." if number < rounds else ".\n")
        sys.stderr.flush()
    return {
        name: Cost(*(median(getattr(cost, figure) for cost in found) for figure in ("wall", "cpu", "peak")))
        for name, found in costs.items()
    }


@contextmanager
def running_server(*options: str) -> Iterator[str]:
    """Run `serve.py` in a separate process, and yield its base URL."""
    command = [sys.executable, str(HERE / "serve.py"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextmanager
def temporary_folder() -> Iterator[str]:
    """Yield a temporary folder, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="qoderdata-bench-") as folder:
        yield folder


def contender_command(name: str, url: str, folder: str) -> list[str]:
    """Return the command of a contender."""
    return [sys.executable, str(HERE / "contenders" / f"{name}.py"), url, folder]


def python_command(code: str) -> list[str]:
    """Return the command that runs a line of Python."""
    return [sys.executable, "-c", code]


def describe_machine() -> str:
    """Describe this machine: cores, memory and version of Python."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, Python {sys.version.split()[0]}"
