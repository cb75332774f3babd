"""Compare this project with its alternatives, and write the tables into benchmarks/README.md.

Every figure is of a whole process, imports included, unless it says otherwise. This process imports little: Linux
counts its memory in the peak of each process that it starts.
"""

from __future__ import annotations

import argparse
import re
import sys
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.measure import (
    HERE,
    Cost,
    contender_command,
    describe_machine,
    measure_in_turn,
    measure_once,
    output_of,
    python_command,
    running_server,
    temporary_folder,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

OURS = "qoderdata_load"
NAMES = {
    OURS: "**qoderdata** `load_deployments`",
    "naive": "requests, `json_normalize`, `to_datetime`, `to_parquet`",
    "polars_pages": "requests, Polars `read_json` a page",
    "floor": "the lower bound: requests, `orjson.loads`, nothing kept",
    "sdk": "the official SDK, `json_normalize`",
    "runs_qoderdata": "**qoderdata** `load_runs`, `run_failure_rates`",
    "runs_naive": "requests, `json_normalize`, `to_datetime`, `to_parquet`, `groupby`",
}


def pull(variant: str, contenders: Sequence[str], records: int, rounds: int) -> str:
    """Compare contenders on records of a variant of `serve.py`."""
    with running_server("--records", str(records), "--variant", variant) as url, temporary_folder() as folder:
        commands = {name: contender_command(name, url, folder) for name in contenders}
        return _table(measure_in_turn(commands, rounds=rounds), NAMES)


def growth(largest: int) -> str:
    """Measure the peak memory for results of three sizes."""
    rows = ["| records | wall s | frame MiB | peak MiB | Parquet MiB |", "|---:|---:|---:|---:|---:|"]
    for count in (largest // 100, largest // 10, largest):
        with running_server("--records", str(count)) as url, temporary_folder() as folder:
            cost = measure_once(contender_command(OURS, url, folder))
            size = sum(file.stat().st_size for file in _files(folder))
            frame_mib = _frame_mib(url, folder)
        rows.append(f"| {count:,} | {cost.wall:.2f} | {frame_mib:,.0f} | {cost.peak:,.0f} | {size / 2**20:,.1f} |")
    return "\n".join(rows)


def _frame_mib(url: str, folder: str) -> float:
    """Return the size in MiB of the frame that a cached answer becomes, including lists."""
    code = (
        "import qoderdata as qd\n"
        f"client = qd.Client(pat='pt-bench', base_url={url!r})\n"
        f"df = qd.load_deployments(client=client, cache_dir={folder!r}, include_archived=True, offline=True)\n"
        "print(df.memory_usage(deep=True).sum() / 2**20)"
    )
    return float(output_of(python_command(code)))


def _files(folder: str) -> list[Path]:
    return [path for path in Path(folder).rglob("*.parquet") if path.is_file()]


def cached(records: int, rounds: int) -> str:
    """Compare a call that the cache answers with `pandas.read_parquet` of the same file."""
    with running_server("--records", str(records)) as url, temporary_folder() as folder:
        measure_once(contender_command(OURS, url, folder))
        (file,) = _files(f"{folder}/queries")
        call = (
            f"client = qd.Client(pat='pt-bench', base_url={url!r})\n"
            f"qd.load_deployments(client=client, cache_dir={folder!r}, include_archived=True, offline=True)"
        )
        ours = "import pandas, pyarrow.parquet\nimport qoderdata as qd\n" + call
        theirs = f"import pandas, pyarrow.parquet\nimport qoderdata as qd\npandas.read_parquet({str(file)!r})"
        costs = measure_in_turn({"ours": python_command(ours), "theirs": python_command(theirs)}, rounds=rounds)
        inside = _inside(ours, theirs)
    names = {"ours": "`load_deployments`, answered from the cache", "theirs": "`pandas.read_parquet` of that file"}
    return (
        _table(costs, names)
        + f"\n\nThe calls alone, without starting Python: {inside[0]:.3f} s and {inside[1]:.3f} s."
    )


def _inside(*codes: str) -> list[float]:
    """Run the last line of each code nine times, in one process per code; return the medians in seconds."""
    found = []
    for code in codes:
        setup, call = code.rsplit("\n", 1)
        timed = (
            f"{setup}\nimport time\nfrom statistics import median\ntook = []\nfor _ in range(9):\n"
            f"    began = time.perf_counter()\n    {call}\n    took.append(time.perf_counter() - began)\n"
            "print(median(took))"
        )
        found.append(float(output_of(python_command(timed))))
    return found


def imports(rounds: int) -> str:
    """Compare importing the package, and importing its loader, with importing pandas and pyarrow."""
    commands = {
        "ours": python_command("import qoderdata"),
        "used": python_command("from qoderdata import Client, load_deployments"),
        "theirs": python_command("import pandas, pyarrow"),
    }
    names = {
        "ours": "`import qoderdata`",
        "used": "`from qoderdata import Client, load_deployments`",
        "theirs": "`import pandas, pyarrow`",
    }
    return _table(measure_in_turn(commands, rounds=rounds), names)


def slow_network(pages: int, rounds: int) -> str:
    """Compare a pull over a slow network with the latency alone."""
    return "\n".join(_slow(pages, size, rounds) for size in (100, 1000))


def _slow(pages: int, size: int, rounds: int) -> str:
    options = ("--records", str(size * pages), "--page", str(size), "--latency", "0.1")
    with running_server(*options) as url, temporary_folder() as folder:
        code = (
            "import time\nfrom qoderdata import Client, load_deployments\n"
            f"options = dict(cache_dir={folder!r}, include_archived=True, progress=False, refresh=True)\n"
            f"client = Client(pat='pt-bench', base_url={url!r})\nbegan = time.perf_counter()\n"
            "frame = load_deployments(client=client, **options)\n"
            "print(time.perf_counter() - began, frame.attrs['requests'])"
        )
        runs = [output_of(python_command(code)).split() for _ in range(rounds)]
    took, requests = median(float(seconds) for seconds, _ in runs), int(runs[0][1])
    least = requests * 0.1
    return (
        f"- Pages of {size:,}: {requests} requests of 100 ms each, at the default `min_interval` of 100 ms: "
        f"{took:.2f} s, {100 * (took / least - 1):+.1f} % of the {least:.1f} s that the latency alone takes."
    )


def triggers() -> str:
    """Compare `next_triggers` for a large fleet with croniter, which is called for each deployment."""
    return output_of([sys.executable, "-m", "benchmarks.triggers"]).strip()


def _table(costs: Mapping[str, Cost], names: Mapping[str, str]) -> str:
    ours = next(iter(costs.values()))
    rows = ["| | wall s | CPU s | peak MiB | wall, ours = 1 | peak, ours = 1 |", "|---|---:|---:|---:|---:|---:|"]
    rows += [
        f"| {names[name]} | {cost.wall:.2f} | {cost.cpu:.2f} | {cost.peak:,.0f} "
        f"| {cost.wall / ours.wall:.2f} | {cost.peak / ours.peak:.2f} |"
        for name, cost in costs.items()
    ]
    return "\n".join(rows)


def write_section(section: str, text: str) -> None:
    """Replace the text between the markers of a section in benchmarks/README.md."""
    path = HERE / "README.md"
    begin, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    content, count = pattern.subn(lambda _: f"{begin}\n{text}\n{end}", path.read_text(encoding="utf-8"))
    if count != 1:
        raise RuntimeError(f"{path} has no place for {section!r}")
    path.write_text(content, encoding="utf-8")


SECTIONS: dict[str, Callable[[int, int], str]] = {
    "pull": partial(pull, "plain", (OURS, "naive", "polars_pages", "floor", "sdk")),
    # Not all of these records are as documented.
    "unknown": partial(pull, "unknown", (OURS, "naive")),
    "misfit": partial(pull, "misfit", (OURS, "naive")),
    # Runs go into a new store, and their daily rates are computed by deployment.
    "load_runs": lambda records, rounds: pull("runs", ("runs_qoderdata", "runs_naive"), 2 * records, rounds),
    "growth": lambda records, _: growth(10 * records),
    "cached": cached,
    "imports": lambda _, rounds: imports(3 * rounds),
    "triggers": lambda *_: triggers(),
    "slow": lambda records, rounds: slow_network(records // 1000, rounds),
}


def main() -> int:
    """Run the measurements that the command line names, by default all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", choices=[*SECTIONS, []], help="which measurements (default: all)")
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="print, and do not change README.md")
    arguments = parser.parse_args()
    for section in arguments.only or SECTIONS:
        text = SECTIONS[section](arguments.records, arguments.rounds)
        sys.stdout.write(f"\n{section}\n\n{text}\n")
        if not arguments.dry:
            write_section(section, text)
    if not arguments.dry:
        write_section("machine", describe_machine())
    return 0


if __name__ == "__main__":
    sys.exit(main())
