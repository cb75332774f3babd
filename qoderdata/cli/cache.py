"""``qoderdata cache``: where answers are stored, how big they are, and how to remove them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

import qoderdata as qd
from qoderdata.cli import options
from qoderdata.cli.output import echo
from qoderdata.formatting import counted
from qoderdata.settings import resolve_cache_dir

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_KIBI = 1024


@options.command("cache", example="qoderdata cache --json")
@click.argument("action", metavar="[show|clear]", type=click.Choice(["show", "clear"]), default="show")
@click.option(
    "--cache-dir", type=options.PATH, metavar="DIR", help="Folder of the cache; else QODERDATA_CACHE_DIR."
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def cache(action: str, *, cache_dir: str | None, as_json: bool) -> None:
    """Show the folder and size of stored answers, or remove them.

    The cache has answers of lists, runs, sessions, the outcomes of sessions, and snapshots of the
    deployments, which `qoderdata changes` compares. `clear` removes all of them without asking. Snapshots cannot
    be read from the service again: it only returns the present state.
    """
    location = resolve_cache_dir(cache_dir)
    if os.path.isfile(location):  # noqa: PTH113 - unlike a Path, no error if the folder above cannot be read
        raise click.UsageError(f"{location!r} is a file, not the folder of a cache")
    if not as_json and _is_missing(location):
        echo(f"nothing is stored: there is no folder {location!r}")
        return
    if action == "clear":
        removed = qd.clear_cache(cache_dir)
        text = f"{counted(removed, 'file')} removed: cached answers, stores and snapshots"
        echo(json.dumps({"removed": removed}) if as_json else text)
        return
    usage = qd.cache_usage(cache_dir)
    if as_json:
        echo(json.dumps(usage))
        return
    echo(usage["location"])
    for table, kept in usage.items():
        if isinstance(kept, dict):
            echo(f"  {table:12} {counted(kept['files'], 'file'):>12}  {_size(kept['bytes']):>10}")


def _is_missing(location: str) -> bool:
    """Return whether there certainly is no such folder: a URL, and what may not be read, may exist."""
    try:
        return "://" not in location and not Path(location).exists()
    except OSError:
        return False


def _size(count: float) -> str:
    for unit in _UNITS:
        if count < _KIBI or unit == _UNITS[-1]:
            break
        count /= _KIBI
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
