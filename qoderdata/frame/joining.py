"""The tables of all pages to one, an id once, and one warning for each kind of oddity."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qoderdata.errors import DataQualityWarning, warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qoderdata.frame.exact import Misfit
    from qoderdata.schema import Schema

#: How many ids a warning names.
_NAMED = 5


def join(tables: Sequence[pa.Table], misfits: Iterable[Misfit], schema: Schema) -> pa.Table:
    """Join tables, keep the later of two records with one id, and warn of what was odd.

    Parameters
    ----------
    tables
        Tables of ``schema.arrow``.
    misfits
        The values in them that did not fit.
    schema
        The columns.

    Returns
    -------
    pyarrow.Table
        The rows of all tables, an id once.
    """
    table = pa.concat_tables(tables) if tables else schema.arrow.empty_table()
    _tell_misfits(list(misfits), schema)
    return _without_repeats(table, schema)


def _tell_misfits(misfits: list[Misfit], schema: Schema) -> None:
    if not misfits:
        return
    ids = list(dict.fromkeys(misfit.id for misfit in misfits))
    paths = Counter(misfit.path for misfit in misfits)
    warn(
        f"{len(misfits)} values of {len(ids)} {schema.name} do not fit their columns, which are missing there; "
        f"the values are in 'extra' ({_few([f'{path}: {count}' for path, count in paths.most_common()])}). "
        f"First ids: {_few(ids)}",
        DataQualityWarning,
    )


def _without_repeats(table: pa.Table, schema: Schema) -> pa.Table:
    ids = table["id"]
    if len(pc.unique(ids)) == len(ids):
        return table
    names = [str(name) for name in ids.to_pylist()]
    last = {name: place for place, name in enumerate(names)}
    repeated = [name for name, count in Counter(names).items() if count > 1]
    warn(
        f"{len(repeated)} {schema.name} came more than once; the later record of each is kept. "
        f"First ids: {_few(repeated)}",
        DataQualityWarning,
    )
    return table.take(np.sort(np.fromiter(last.values(), dtype=np.int64)))


def _few(names: list[str]) -> str:
    shown = ", ".join(ascii(name)[1:-1][:80] for name in names[:_NAMED])
    return shown + (", …" if len(names) > _NAMED else "")
