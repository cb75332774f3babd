"""What is a stored table: which of its rows may still change, and how are they sorted?"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qoderdata.schema import OUTCOMES, RUNS, SESSIONS, Schema

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    Ids = Collection[str] | pa.Array[Any] | pa.ChunkedArray[Any]

_OPEN = pa.array(["pending", "running"], pa.large_string())
_DOCUMENTED = pa.array(["pending", "running", "completed", "failed", "skipped"], pa.large_string())
_FINAL_ENDS = pa.array(["final", "gone"], pa.large_string())


@dataclass(frozen=True)
class StoredTable:
    """A table that a store keeps."""

    #: Its columns; ``id`` and ``created_at`` among them.
    schema: Schema
    #: The column whose day (UTC) is the partition.
    time_column: str
    #: Returns for each row whether a later reading replaces it; the others stay as they are.
    may_change: Callable[[pa.Table], Any]
    #: The columns that `may_change` reads.
    state_columns: tuple[str, ...] = ()
    #: Whether the manifest lists the rows that may change, which are then read one by one.
    is_read_singly: bool = False

    @property
    def name(self) -> str:
        """The table's name, also that of its folder."""
        return self.schema.name

    def condition(
        self, since: datetime | None, until: datetime | None, where: pc.Expression | None
    ) -> pc.Expression | None:
        """Return ``since <= time < until`` and a further condition as one condition; ``None`` if there is none."""
        time, kind = pc.field(self.time_column), self.schema.arrow.field(self.time_column).type
        first = None if since is None else time >= pa.scalar(since, kind)
        last = None if until is None else time < pa.scalar(until, kind)
        return all_of([where, first, last])

    def newest_first(self, tables: list[pa.Table], columns: list[str] | None = None) -> pa.Table:
        """Join tables and sort by `created_at`, then `id`, both descending; rows without `created_at` come last.

        `columns`: only these. The list `tables` is emptied, and the columns are sorted one after the other, so
        that only one column at a time is in memory twice.
        """
        names = self.schema.names if columns is None else columns
        tables.append(self.schema.arrow.empty_table())
        joined = pa.concat_tables(table.select(names) for table in tables).unify_dictionaries()
        tables.clear()
        order = pc.sort_indices(joined, sort_keys=[("created_at", "descending"), ("id", "descending")])
        if np.array_equal(order, np.arange(len(order))):
            return joined
        schema, arrays = joined.schema, joined.columns
        del joined
        for index in range(len(arrays)):
            arrays[index] = arrays[index].take(order)
            # Without this, the allocator keeps the memory of the unsorted column while the next one is sorted.
            pa.default_memory_pool().release_unused()
        return pa.Table.from_arrays(arrays, schema=schema)


def _run_may_change(runs: pa.Table) -> Any:  # noqa: ANN401 - an Arrow array
    """Return which runs are open; a run with an undocumented status is, unless it has a time of completion."""
    status = runs["status"]
    is_undocumented = pc.and_not(status.is_valid(), pc.is_in(status, value_set=_DOCUMENTED))
    is_undocumented = pc.and_(is_undocumented, runs["completed_at"].is_null())
    may_change = pc.or_(pc.is_in(status, value_set=_OPEN), is_undocumented)
    has_not_started: Any = status.is_null()
    for name in ("session_id", "error_type", "error_message"):
        has_not_started = pc.and_(has_not_started, runs[name].is_null())
    return pc.or_(may_change, has_not_started)


def _always(table: pa.Table) -> Any:  # noqa: ANN401 - an Arrow array
    return pa.repeat(pa.scalar(True), table.num_rows)  # noqa: FBT003 - pyarrow has it so


def _outcome_may_change(outcomes: pa.Table) -> Any:  # noqa: ANN401 - an Arrow array
    return pc.invert(pc.is_in(outcomes["end"], value_set=_FINAL_ENDS))


RUNS_TABLE = StoredTable(
    RUNS,
    "triggered_at",
    _run_may_change,
    ("status", "session_id", "completed_at", "error_type", "error_message"),
    is_read_singly=True,
)
#: Any session may be continued, so the latest reading counts.
SESSIONS_TABLE = StoredTable(SESSIONS, "created_at", _always)
OUTCOMES_TABLE = StoredTable(OUTCOMES, "created_at", _outcome_may_change, ("end",))

TABLES = (RUNS_TABLE, SESSIONS_TABLE, OUTCOMES_TABLE)


def row_ids(table: pa.Table) -> list[str]:
    """Return each row's id."""
    return cast("list[str]", table["id"].to_pylist())


def with_ids(table: pa.Table, ids: Ids) -> pa.Table:
    """Return the rows that have one of some ids."""
    return table.filter(_has_id(table, ids))


def without_ids(table: pa.Table, ids: Ids) -> pa.Table:
    """Return the rows that have none of some ids."""
    return table.filter(pc.invert(_has_id(table, ids))) if len(ids) else table


def _has_id(table: pa.Table, ids: Ids) -> Any:  # noqa: ANN401 - an Arrow array
    value_set = ids if isinstance(ids, pa.Array | pa.ChunkedArray) else pa.array(ids, pa.large_string())
    return pc.is_in(table["id"], value_set=value_set)


def take_rows(table: pa.Table, indices: Sequence[int] | NDArray[np.int64]) -> pa.Table:
    """Return the rows at ascending indices; consecutive rows are not copied."""
    if len(indices) and indices[-1] - indices[0] + 1 == len(indices):
        return table.slice(int(indices[0]), len(indices))
    return table.take(pa.array(indices, pa.int64()))


def all_of(conditions: Iterable[pc.Expression | None]) -> pc.Expression | None:
    """Return several conditions on rows as one; ``None`` if there is none."""
    parts = [condition for condition in conditions if condition is not None]
    return functools.reduce(operator.and_, parts) if parts else None
