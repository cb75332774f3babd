"""What a store of runs makes of answers: which reading of a run counts, which runs are open, and in which order.

Only `folded` writes; the rest turns tables into tables.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qoderdata.schema import RUNS
from qoderdata.store import partitions
from qoderdata.store.manifest import Manifest, OpenRun

if TYPE_CHECKING:
    from datetime import datetime

    from qoderdata.files import Folder
    from qoderdata.store.inbox import Item

_OPEN = frozenset({"pending", "running"})
_ENDED = frozenset({"completed", "failed", "skipped"})


def folded(folder: Folder, before: Manifest, items: list[Item]) -> Manifest:
    """Write what items bring into the data set, and give the manifest that counts it."""
    runs, read_at = _merged(items)
    files, runs = partitions.add(
        folder, before.files, runs, open_days={run: known.day for run, known in before.open_runs.items()}
    )
    open_runs = dict(before.open_runs)
    for run, day, is_open in zip(partitions.ids(runs), partitions.days(runs), _are_open(runs), strict=True):
        if is_open:
            open_runs[run] = OpenRun(day, read_at[run])
        else:
            open_runs.pop(run, None)
    coverage = before.coverage
    for item in items:
        for run in item.reading.gone:
            open_runs.pop(run, None)
        if item.reading.listing is not None:
            coverage = coverage.add(item.reading.listing, read_at=item.reading.read_at)
    sequence = max([before.sequence, *(item.number for item in items)])
    return replace(before, sequence=sequence, files=files, coverage=coverage, open_runs=open_runs)


def _merged(items: list[Item]) -> tuple[pa.Table, dict[str, datetime]]:
    """Give the runs of several answers, each as it was read last, and when; one that ended stays so."""
    table = pa.concat_tables([RUNS.arrow.empty_table(), *(item.table for item in items)])
    times = [item.reading.read_at for item in items for _ in range(item.table.num_rows)]
    is_open = _are_open(table)
    last: dict[str, int] = {}
    for place, run in enumerate(partitions.ids(table)):
        if run not in last or is_open[last[run]] or not is_open[place]:
            last[run] = place
    return table.take(np.sort(np.fromiter(last.values(), dtype=np.int64))), {
        run: times[at] for run, at in last.items()
    }


def _are_open(table: pa.Table) -> list[bool]:
    """Tell which runs may still change. A status that is not known is taken as an end where the run has one."""
    statuses, ends = table["status"].to_pylist(), table["completed_at"].is_valid().to_pylist()
    return [
        status in _OPEN or (status not in _ENDED and not ended)
        for status, ended in zip(statuses, ends, strict=True)
    ]


def with_items(table: pa.Table, items: list[Item], condition: pc.Expression | None) -> list[pa.Table]:
    """Add what is only in memory, and takes the place of stored runs that had not ended."""
    runs, _ = _merged(items)
    again = table.filter(pc.is_in(table["id"], value_set=runs["id"]))
    ended = again.filter(pa.array([not is_open for is_open in _are_open(again)], pa.bool_()))
    runs = runs.filter(pc.invert(pc.is_in(runs["id"], value_set=ended["id"])))
    stored = table.filter(pc.invert(pc.is_in(table["id"], value_set=runs["id"])))
    return [stored, runs if condition is None else runs.filter(condition)]


def condition(since: datetime | None, until: datetime | None, where: pc.Expression | None) -> pc.Expression | None:
    """Write ``since <= triggered_at < until``, and a further condition, as one; ``None`` where there is none."""
    triggered = pc.field("triggered_at")
    kind = RUNS.arrow.field("triggered_at").type
    parts = [] if where is None else [where]
    if since is not None:
        parts.append(triggered >= pa.scalar(since, kind))
    if until is not None:
        parts.append(triggered < pa.scalar(until, kind))
    return functools.reduce(operator.and_, parts) if parts else None


def newest_first(tables: list[pa.Table]) -> pa.Table:
    """Join tables and sort them by `created_at`, then `id`, both descending; runs without `created_at` come last.

    Parameters
    ----------
    tables
        Columns of `RUNS`. The list is emptied, and columns are sorted one after the other, so that of millions of
        runs no more than one column is there twice.
    """
    joined = pa.concat_tables([RUNS.arrow.empty_table(), *tables])
    tables.clear()
    order = pc.sort_indices(joined, sort_keys=[("created_at", "descending"), ("id", "descending")])
    columns = joined.columns
    del joined
    for place in range(len(columns)):
        columns[place] = columns[place].take(order)
        # What the unsorted column leaves is small pieces, which the allocator would keep beside the next one.
        pa.default_memory_pool().release_unused()
    return pa.Table.from_arrays(columns, schema=RUNS.arrow)
