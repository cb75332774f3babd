"""Arrow to pandas: tables to frames, and records from elsewhere to rows.

The dtypes follow from the schema alone, never from the data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa

from qoderdata.background import gc_paused
from qoderdata.decode import Records, from_records
from qoderdata.decode.jsontext import is_utf8, parse, write
from qoderdata.errors import require_columns
from qoderdata.outcomes import resolve_outcomes
from qoderdata.schema import DEPLOYMENTS, EVENTS, RUNS, SESSIONS, Schema

if TYPE_CHECKING:
    from collections.abc import Iterable

_DTYPES: dict[pa.DataType, pd.api.extensions.ExtensionDtype] = {
    pa.large_string(): pd.StringDtype(na_value=float("nan")),
    pa.int64(): pd.Int64Dtype(),
}


def to_pandas(table: pa.Table, schema: Schema) -> pd.DataFrame:
    """Return a table as a frame.

    Parameters
    ----------
    table
        A table with the columns of ``schema``, in any order; string columns of any Arrow string type.
    schema
        The columns.

    Returns
    -------
    pandas.DataFrame
        One row per row of the table, a `pandas.RangeIndex`, the schema's columns in its order: text ``str``,
        integers ``Int64``, numbers ``float64``, times ``datetime64[us, UTC]``, text that many records share
        ``category``, lists ``object`` (a NumPy array per row, of strings, or of ``datetime64[us]`` in UTC;
        ``None`` where absent).

    Examples
    --------
    >>> from qoderdata.schema import RUNS
    >>> to_pandas(RUNS.arrow.empty_table(), RUNS).dtypes["duration_ms"]
    Int64Dtype()
    """
    table = table.select(schema.names).cast(schema.arrow).replace_schema_metadata(None)
    with gc_paused:
        return table.to_pandas(types_mapper=_DTYPES.get)


def events_to_pandas(table: pa.Table, session_id: str) -> pd.DataFrame:
    """Return a table of one session's events, in the list's order, as an events frame."""
    frame = to_pandas(table, EVENTS)
    frame.insert(0, "session_id", pd.Series([session_id] * len(frame), dtype="str"))
    frame.insert(1, "position", np.arange(len(frame), dtype=np.int64))
    return frame


def flatten_deployments(records: Records) -> pd.DataFrame:
    """Flatten deployments from elsewhere to the frame that `load_deployments` returns.

    Parameters
    ----------
    records
        Deployments as the service describes them (an iterable of dicts, read once), the official SDK's
        ``to_dict()`` output, or one saved page (a dict with ``"data"``).

    Returns
    -------
    pandas.DataFrame
        One row per deployment, in the order given; the columns and dtypes of a deployments frame. No records: no
        rows, same columns and dtypes. A `datetime` value is a time; one without a zone does not fit and goes to
        ``extra`` as text. ``extra`` is JSON text of dotted paths and values, an object leaf by leaf; a dot or
        backslash in a key is written after a backslash. ``attrs["source"]`` is ``"records"``.

    Raises
    ------
    APIResponseValidationError
        A record is not an object or has no id.
    TypeError
        ``records`` is neither an iterable of dicts nor an envelope.

    Warns
    -----
    DataQualityWarning
        Once for all values that did not fit their columns, once for all ids that came more than once (the last
        record is kept).

    Examples
    --------
    >>> import qoderdata as qd
    >>> df = qd.flatten_deployments([{"id": "dep_1", "schedule": {"expression": "0 9 * * *"}, "owner": {"x": 5}}])
    >>> df[["id", "schedule_expression", "extra"]]
          id schedule_expression        extra
    0  dep_1           0 9 * * *  {"owner.x":5}
    """
    return _flatten(records, DEPLOYMENTS)


def flatten_runs(records: Records) -> pd.DataFrame:
    """Flatten runs from elsewhere to the frame that `load_runs` returns, resolved from the records alone.

    Parameters
    ----------
    records
        Runs, in the forms that `flatten_deployments` takes.

    Returns
    -------
    pandas.DataFrame
        One row per run, in the order given; the columns and dtypes of a runs frame. No records: no rows, same
        columns and dtypes. A record with a ``status`` keeps it; for the others ``status`` is missing where only
        the session tells it (see `resolve_outcomes`). ``attrs["source"]`` is ``"records"``.

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
    >>> import qoderdata as qd
    >>> runs = qd.flatten_runs([{"id": "drun_1", "status": "failed", "error": {"type": "timeout"}}])
    >>> runs[["id", "status", "error_type"]]
           id  status error_type
    0  drun_1  failed    timeout
    """
    frame = resolve_outcomes(_flatten(records, RUNS))
    frame.attrs["source"] = "records"
    return frame


def flatten_sessions(records: Records) -> pd.DataFrame:
    """Flatten sessions from elsewhere to the frame that `load_sessions` returns.

    Parameters
    ----------
    records
        Sessions, in the forms that `flatten_deployments` takes.

    Returns
    -------
    pandas.DataFrame
        One row per session, in the order given; the columns and dtypes of a sessions frame. No records: no rows,
        same columns and dtypes. Credits are a snapshot; a missing value is unknown, not 0. ``attrs["source"]`` is
        ``"records"``.

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
    >>> import qoderdata as qd
    >>> sessions = qd.flatten_sessions([{"id": "sess_1", "status": "idle", "usage": {"total_credits": 1.25}}])
    >>> sessions[["id", "status", "usage_total_credits"]]
           id status  usage_total_credits
    0  sess_1   idle                 1.25
    """
    return _flatten(records, SESSIONS)


def flatten_events(records: Records, session_id: str) -> pd.DataFrame:
    """Flatten one session's events from elsewhere to the frame that `load_events` returns.

    Parameters
    ----------
    records
        Events in the list's order, in the forms that `flatten_deployments` takes.
    session_id
        The session that they belong to.

    Returns
    -------
    pandas.DataFrame
        One row per event, in the order given: ``session_id`` (``str``), ``position`` (``int64``, 0 is the first),
        then the columns and dtypes of an events frame. No records: no rows, same columns and dtypes.
        ``attrs["source"]`` is ``"records"``.

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
    >>> import qoderdata as qd
    >>> events = qd.flatten_events(
    ...     [{"id": "evt_1", "type": "session.status_idle", "stop_reason": {"type": "end_turn"}}], "sess_1"
    ... )
    >>> events[["session_id", "position", "type", "stop_reason"]]
      session_id  position                 type stop_reason
    0     sess_1         0  session.status_idle    end_turn
    """
    frame = events_to_pandas(from_records(records, EVENTS), session_id)
    frame.attrs["source"] = "records"
    return frame


def _flatten(records: Records, schema: Schema) -> pd.DataFrame:
    frame = to_pandas(from_records(records, schema), schema)
    frame.attrs["source"] = "records"
    return frame


def upcoming_runs(df: pd.DataFrame) -> pd.DataFrame:
    """Return the next triggers that the service lists, one per row.

    This is the service's own list: it is filled in for paused deployments too, although nothing will fire.
    `next_triggers` knows about that, and goes beyond the list.

    Parameters
    ----------
    df
        A deployments frame: its columns ``id`` and ``schedule_upcoming_runs_at``.

    Returns
    -------
    pandas.DataFrame
        One row a listed trigger, in the order of ``df`` and of each list: ``deployment_id`` (``str``),
        ``position`` (``int64``, 0 is the first listed) and ``upcoming_run_at`` (``datetime64[us, UTC]``).
        Nothing listed: no rows, same columns and dtypes.

    Raises
    ------
    MissingColumnError
        ``df`` lacks one of the two columns.

    Examples
    --------
    >>> import qoderdata as qd
    >>> df = qd.flatten_deployments([{"id": "dep_1", "schedule": {"upcoming_runs_at": ["2026-06-15T01:00:00Z"]}}])
    >>> qd.upcoming_runs(df)
      deployment_id  position           upcoming_run_at
    0         dep_1         0 2026-06-15 01:00:00+00:00
    """
    require_columns(df.columns, ["id", "schedule_upcoming_runs_at"], what="deployments")
    none = np.array([], dtype="datetime64[us]")
    lists = [
        np.asarray(listed, dtype="datetime64[us]") if isinstance(listed, np.ndarray | list) else none
        for listed in df["schedule_upcoming_runs_at"]
    ]
    lengths = np.array([len(listed) for listed in lists], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    times = pd.Series(np.concatenate([none, *lists])).dt.tz_localize("UTC")
    return pd.DataFrame(
        {
            "deployment_id": df["id"].astype("str").repeat(lengths.tolist()).reset_index(drop=True),
            "position": np.arange(len(times)) - np.repeat(starts, lengths),
            "upcoming_run_at": times,
        }
    )


def expand_metadata(df: pd.DataFrame, keys: Iterable[str] | None = None) -> pd.DataFrame:
    """Return a copy with one column per metadata key, to group by team or owner.

    Parameters
    ----------
    df
        A deployments frame: its column ``metadata``.
    keys
        The keys to expand; ``None`` takes every key there is, in alphabetical order.

    Returns
    -------
    pandas.DataFrame
        A copy of ``df`` with a column ``metadata_<key>`` (``str``) a key: the key's value, as JSON text where it
        is not a string; missing where the key is absent or ``null``. A key that no deployment has gives a
        column that is missing everywhere.

    Raises
    ------
    MissingColumnError
        ``df`` has no column ``metadata``.
    ValueError
        A text in ``metadata`` is not JSON.

    Examples
    --------
    >>> import qoderdata as qd
    >>> df = qd.flatten_deployments([{"id": "dep_1", "metadata": {"team": "data"}}, {"id": "dep_2"}])
    >>> qd.expand_metadata(df)[["id", "metadata_team"]]
          id metadata_team
    0  dep_1          data
    1  dep_2           NaN
    """
    require_columns(df.columns, ["metadata"], what="deployments")
    rows = [_object(text) if isinstance(text, str) else {} for text in df["metadata"]]
    if keys is None:
        keys = sorted({key for row in rows for key in row})
    elif isinstance(keys, str):
        keys = [keys]
    columns = {
        f"metadata_{key}": pd.Series([_cell(row.get(key)) for row in rows], index=df.index, dtype="str")
        for key in keys
    }
    return df.assign(**columns)


def _object(text: str) -> dict[str, Any]:
    """Parse a JSON object; orjson is exact only where all values are strings."""
    try:
        found = orjson.loads(text)
        exact = isinstance(found, dict) and all(isinstance(value, str) for value in found.values())
    except orjson.JSONDecodeError:
        exact = False
    if not exact:
        found = parse(text.encode())
    if not isinstance(found, dict):
        raise ValueError("a text in the column metadata is JSON, but not an object")  # noqa: TRY004 - a bad value
    return found


def _cell(value: object) -> str | None:
    if value is None:
        return None
    return value if isinstance(value, str) and is_utf8(value) else write(value)
