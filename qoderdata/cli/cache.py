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


@options.command("cache", example="qoderdata cache --json")
@click.argument("action", metavar="[show|clear]", type=click.Choice(["show", "clear"]), default="show")
@click.option(
    "--cache-dir",
    type=options.PATH,
    metavar="DIR",
    help="Folder where answers are stored; else QODERDATA_CACHE_DIR.",
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


def _size(count: int) -> str:
    from rich.filesize import pick_unit_and_suffix  # noqa: PLC0415 - `--help` needs none

    size, unit = pick_unit_and_suffix(count, ["B", "KiB", "MiB", "GiB", "TiB"], base=1024)
    return f"{count} B" if size == 1 else f"{count / size:.1f} {unit}"
