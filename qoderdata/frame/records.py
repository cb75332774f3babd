"""Records that are there already, such as the official SDK's ``to_dict()`` output or a saved page, to a frame."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from qoderdata.errors import APIResponseValidationError
from qoderdata.frame.exact import Misfit, flatten
from qoderdata.frame.joining import join
from qoderdata.frame.pandas import to_pandas
from qoderdata.schema import DEPLOYMENTS, RUNS, Schema

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: Records that are held as Python objects at a time.
_BATCH = 5_000

Records = Mapping[str, Any] | Iterable[Mapping[str, Any]]


def from_records(records: Records, schema: Schema) -> pa.Table:
    """Flatten records to an Arrow table.

    Parameters
    ----------
    records
        Records (any iterable, read once), or one envelope: a mapping with the list ``data``.
    schema
        The columns.

    Returns
    -------
    pyarrow.Table
        One row an id, columns of ``schema.arrow``.

    Raises
    ------
    APIResponseValidationError
        A record is not an object or has no id, or an envelope's ``data`` is not a list.
    TypeError
        ``records`` is neither.
    """
    tables: list[pa.Table] = []
    misfits: list[Misfit] = []
    remaining = iter(_listed(records))
    for first in itertools.count(step=_BATCH):
        batch = list(itertools.islice(remaining, _BATCH))
        if not batch:
            break
        columns = flatten(batch, schema, first=first)
        tables.append(columns.table)
        misfits += columns.misfits
    return join(tables, misfits, schema)


def flatten_deployments(records: Records) -> pd.DataFrame:
    """Flatten deployments that come from elsewhere to the frame that `load_deployments` gives.

    Parameters
    ----------
    records
        Deployments as the service describes them (an iterable of dicts, read once), the official SDK's
        ``to_dict()`` output, or one saved page (a dict with ``"data"``).

    Returns
    -------
    pandas.DataFrame
        One row a deployment, in the order given; the columns and dtypes of a deployments frame. No records: no
        rows, same columns and dtypes. A `datetime` value is a time as it is; one without a zone does not fit
        and goes to ``extra`` as text. ``extra`` is JSON text of dotted paths and values, an object leaf by leaf;
        a dot or backslash in a key is written after a backslash. ``attrs["source"]`` is ``"records"``.

    Raises
    ------
    APIResponseValidationError
        A record is not an object or has no id.
    TypeError
        ``records`` is neither an iterable of dicts nor an envelope.

    Warns
    -----
    DataQualityWarning
        Once for all values that did not fit their columns, once for all ids that came twice (the later is kept).

    Examples
    --------
    >>> df = flatten_deployments([{"id": "dep_1", "schedule": {"expression": "0 9 * * *"}, "budget": {"usd": 5}}])
    >>> df[["id", "schedule_expression", "extra"]]
          id schedule_expression           extra
    0  dep_1           0 9 * * *  {"budget.usd":5}
    """
    return _frame(records, DEPLOYMENTS)


def flatten_runs(records: Records) -> pd.DataFrame:
    """Flatten runs that come from elsewhere to the frame that `load_runs` gives.

    Parameters
    ----------
    records
        Runs, as `flatten_deployments` takes deployments.

    Returns
    -------
    pandas.DataFrame
        One row a run, in the order given; the columns and dtypes of a runs frame. No records: no rows, same
        columns and dtypes. ``attrs["source"]`` is ``"records"``.

    Raises
    ------
    APIResponseValidationError
        A record is not an object or has no id.
    TypeError
        ``records`` is neither an iterable of dicts nor an envelope.

    Warns
    -----
    DataQualityWarning
        As `flatten_deployments`.

    Examples
    --------
    >>> runs = flatten_runs([{"id": "drun_1", "status": "failed", "error": {"type": "timeout"}}])
    >>> runs[["id", "status", "error_type"]]
           id  status error_type
    0  drun_1  failed    timeout
    """
    return _frame(records, RUNS)


def _frame(records: Records, schema: Schema) -> pd.DataFrame:
    frame = to_pandas(from_records(records, schema), schema)
    frame.attrs["source"] = "records"
    return frame


def _listed(records: Records) -> Iterable[object]:
    if isinstance(records, Mapping):
        if "data" not in records:
            raise TypeError(
                "records is a mapping without 'data', so it is no envelope; for a single record, give a list of it"
            )
        if not isinstance(records["data"], list | tuple):
            raise APIResponseValidationError("the envelope's data is not a list of records; nothing was flattened")
        return list(records["data"])
    if isinstance(records, str | bytes) or not isinstance(records, Iterable):
        raise TypeError(
            f"records is a {type(records).__name__}; give an iterable of dicts, or an envelope (with 'data')"
        )
    return records
