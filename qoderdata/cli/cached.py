"""``qoderdata cache``: where it is, how big it is, and how to clear it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from qoderdata.cli import options
from qoderdata.load import cache_usage, clear_cache

if TYPE_CHECKING:
    import argparse

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_KIBI = 1024


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``cache``."""
    command = options.add_command(
        commands,
        "cache",
        _cache,
        summary="Show where answers and runs are kept, and how big they are; or clear them.",
        example="qoderdata cache --json",
    )
    command.add_argument("action", nargs="?", choices=["show", "clear"], default="show")
    command.add_argument("--cache-dir", metavar="DIR", help="which cache; else QODERDATA_CACHE_DIR")
    command.add_argument("--json", action="store_true", help="as JSON")


def _cache(arguments: argparse.Namespace) -> int:
    if arguments.action == "clear":
        removed = clear_cache(arguments.cache_dir)
        print(json.dumps({"removed": removed}) if arguments.json else f"{removed:,} files removed")
        return 0
    usage = cache_usage(arguments.cache_dir)
    if arguments.json:
        print(json.dumps(usage, ensure_ascii=False))
        return 0
    print(usage["location"])
    for kind in ("queries", "runs"):
        print(f"  {kind:8} {usage[kind]['files']:6,} files  {_size(usage[kind]['bytes']):>10}")
    return 0


def _size(count: float) -> str:
    for unit in _UNITS:
        if count < _KIBI or unit == _UNITS[-1]:
            break
        count /= _KIBI
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
