"""What lies folded in a deployments frame, unfolded: listed triggers to rows, the callers' metadata to columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pandas as pd

from qoderdata.errors import require_columns
from qoderdata.frame.jsontext import is_utf8, parse, write

if TYPE_CHECKING:
    from collections.abc import Iterable


def upcoming_runs(df: pd.DataFrame) -> pd.DataFrame:
    """List the next triggers that the service announced, one a row.

    It is the service's own list as it stands: for paused deployments it is filled in too, though nothing will
    fire. `next_triggers` knows about that, and goes beyond the list.

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
    >>> from qoderdata.frame import flatten_deployments
    >>> df = flatten_deployments([{"id": "dep_1", "schedule": {"upcoming_runs_at": ["2026-06-15T01:00:00Z"]}}])
    >>> upcoming_runs(df)
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
    """Give the callers' own metadata keys a column each, to group by team or owner.

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
    >>> from qoderdata.frame import flatten_deployments
    >>> df = flatten_deployments([{"id": "dep_1", "metadata": {"team": "data"}}, {"id": "dep_2"}])
    >>> expand_metadata(df)[["id", "metadata_team"]]
          id metadata_team
    0  dep_1          data
    1  dep_2           NaN
    """
    require_columns(df.columns, ["metadata"], what="deployments")
    rows = [_read(text) if isinstance(text, str) else {} for text in df["metadata"]]
    if keys is None:
        keys = sorted({key for row in rows for key in row})
    elif isinstance(keys, str):
        keys = [keys]
    columns = {
        f"metadata_{key}": pd.Series([_shown(row.get(key)) for row in rows], index=df.index, dtype="str")
        for key in keys
    }
    return df.assign(**columns)


def _read(text: str) -> dict[str, Any]:
    """Read an object; only where all values are strings is the fast reader sure to change none."""
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


def _shown(value: object) -> str | None:
    if value is None:
        return None
    return value if isinstance(value, str) and is_utf8(value) else write(value)
