"""Arrow to pandas: tables to frames, records from elsewhere to rows, and names to ids.

The dtypes follow from the schema alone, never from the data.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from narwhals.dependencies import is_dask_dataframe

from qoderdata.arguments import check_id, parse_instant
from qoderdata.background import gc_paused
from qoderdata.decode import Records, from_records
from qoderdata.decode.jsontext import is_utf8, parse, write
from qoderdata.errors import (
    APIResponseValidationError,
    DataQualityWarning,
    MissingColumnError,
    frame_hint,
    not_a_frame,
    require_columns,
    warn,
)
from qoderdata.formatting import counted, first_few
from qoderdata.frame_checks import TEXT, require_dtypes, require_frame
from qoderdata.masking import mask_value
from qoderdata.schema import DEPLOYMENTS, EVENTS, EXTRA, RUNS, SESSIONS, Schema

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable
    from datetime import datetime

    from narwhals.typing import IntoFrame, IntoFrameT
    from numpy.typing import NDArray

#: The column with the names of ids, as `with_names` adds it.
NAMES = {"deployment_id": "deployment_name", "agent_id": "agent_name", "environment_id": "environment_name"}
#: Columns that agents, environments and events have, whose ``id`` is not a deployment's.
_COLUMNS_OF_OTHERS = {"model", "config_type", "session_id"}
#: The accepted kinds of frames, for messages.
KINDS = "a frame (pandas, Polars, PyArrow, DuckDB, Dask, PySpark)"
#: Older data should be loaded again.
STALE = pd.Timedelta("1D")
_OBJECT_OF_TEXTS = msgspec.json.Decoder(dict[str, str])
_DTYPES: dict[pa.DataType, pd.api.extensions.ExtensionDtype] = {
    pa.large_string(): TEXT,
    pa.int64(): pd.Int64Dtype(),
}


class ExtraArray(TEXT.construct_array_type()):  # type: ignore[misc] # its name differs between pandas 2 and 3
    """The column ``extra``, of dtype ``str``; a frame or column that is shown masks environment variables.

    A row of a frame, such as ``df.iloc[0]``, is a `Series` of plain objects, which this class cannot reach: it
    shows them.
    """

    def _formatter(self, boxed: bool = False) -> Callable[[Any], str]:  # noqa: FBT001, FBT002 - pandas' signature
        show = str if boxed else repr
        return lambda value: show(mask_value(value))


def to_pandas(table: pa.Table, schema: Schema) -> pd.DataFrame:
    """Return a table with columns of a schema, in any order, as a frame with a `pandas.RangeIndex`.

    The columns are in the schema's order: text ``str``, integers ``Int64``, numbers ``float64``, times
    ``datetime64[us, UTC]``, text that many records share ``category``, lists ``object`` (a NumPy array per row, of
    strings, or of ``datetime64[us]`` in UTC; ``None`` if absent).

    Examples
    --------
    >>> from qoderdata.schema import RUNS
    >>> to_pandas(RUNS.arrow.empty_table(), RUNS).dtypes["duration_ms"]
    Int64Dtype()
    """
    wanted = pa.schema([part for part in schema.arrow if part.name in table.schema.names])
    table = table.select(wanted.names).cast(wanted).replace_schema_metadata(None)
    with gc_paused:
        frame = table.to_pandas(types_mapper=_DTYPES.get)
    if EXTRA in wanted.names:
        frame[EXTRA] = ExtraArray._from_sequence(table[EXTRA], dtype=TEXT)  # noqa: SLF001 - for authors of arrays
    return frame


def loaded_frame(
    table: pa.Table,
    schema: Schema,
    *,
    source: str,
    fetched_at: datetime | None,
    requests: int,
    complete: bool = True,
) -> pd.DataFrame:
    """Return what a loader returns: a frame whose `attrs` say where its rows are from, and when they were read."""
    frame = to_pandas(table, schema)
    frame.attrs = loaded_attrs(source, fetched_at, requests=requests, complete=complete)
    return frame


def loaded_attrs(
    source: str, fetched_at: datetime | None, *, requests: int, complete: bool = True
) -> dict[Hashable | None, Any]:
    """Return the `attrs` of a frame that a loader returns."""
    return {
        "source": source,
        "fetched_at": None if fetched_at is None else fetched_at.isoformat(),
        "from_cache": requests == 0,
        "complete": complete,
        "requests": requests,
    }


def events_to_pandas(table: pa.Table, session_id: str) -> pd.DataFrame:
    """Return a table of one session's events, in the list's order, as an events frame."""
    frame = to_pandas(table, EVENTS)
    frame.insert(0, "session_id", pd.Series([session_id] * len(frame), dtype=TEXT))
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
        columns and dtypes. A record with a ``status`` keeps it; for the others ``status`` is missing if only
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
    return _flatten(records, RUNS)


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
    ValueError
        ``session_id`` is not the id of one session.

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
    session_id = check_id(session_id, name="session_id")
    frame = events_to_pandas(from_records(records, EVENTS), session_id)
    frame.attrs["source"] = "records"
    return frame


def _flatten(records: Records, schema: Schema) -> pd.DataFrame:
    frame = to_pandas(schema.resolve(from_records(records, schema)), schema)
    frame.attrs["source"] = "records"
    return frame


def fetched_at(*frames: pd.DataFrame) -> pd.Timestamp | None:
    """Return when the first of some frames was fetched, as far as that is known."""
    values = [value for frame in frames if (value := frame.attrs.get("fetched_at")) is not None]
    return min((parse_instant(value, name="fetched_at") for value in values), default=None)


def rows_before(frame: pd.DataFrame, column: str, moment: pd.Timestamp) -> pd.DataFrame:
    """Return the rows whose time is before a moment, and those without a time."""
    return frame[~(frame[column] >= moment)]


def is_in(ids: pd.Series[str] | pd.Index[str], others: pd.Series[str] | pd.Index[str]) -> NDArray[np.bool_]:
    """Return which ids are among others; `Series.isin` makes a Python object of each of the others."""
    texts, value_set = (pa.array(one.array, pa.large_string()) for one in (ids, others))
    among = pc.is_in(texts, value_set=value_set)
    return among.to_numpy(zero_copy_only=False)


def upcoming_runs(df: pd.DataFrame) -> pd.DataFrame:
    """Return the next triggers that the service lists, one per row.

    This is the service's own list: it is filled in for paused deployments too, although nothing will fire.
    `next_triggers` leaves out paused deployments by default, and also computes triggers after the end of the list.

    Parameters
    ----------
    df
        A deployments frame: its columns ``id`` and ``schedule_upcoming_runs_at``.

    Returns
    -------
    pandas.DataFrame
        One row per listed trigger, in the order of ``df`` and of each list: ``deployment_id`` (``str``),
        ``position`` (``int64``, 0 is the first listed) and ``upcoming_run_at`` (``datetime64[us, UTC]``).
        Nothing listed: no rows, same columns and dtypes.

    Raises
    ------
    MissingColumnError
        ``df`` lacks one of the two columns.
    FrameTypeError
        ``df`` is no frame, or the lists have become something else, such as text from a CSV file.

    Examples
    --------
    >>> import qoderdata as qd
    >>> df = qd.flatten_deployments([{"id": "dep_1", "schedule": {"upcoming_runs_at": ["2026-06-15T01:00:00Z"]}}])
    >>> qd.upcoming_runs(df)
      deployment_id  position           upcoming_run_at
    0         dep_1         0 2026-06-15 01:00:00+00:00
    """
    df = require_frame(df, ["id", "schedule_upcoming_runs_at"], what="deployments")
    lists = [listed_times(listed) for listed in df["schedule_upcoming_runs_at"]]
    lengths = np.array([len(listed) for listed in lists], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    times = pd.Series(np.concatenate([listed_times(None), *lists])).dt.tz_localize("UTC")
    return pd.DataFrame(
        {
            "deployment_id": df["id"].astype(TEXT).repeat(lengths.tolist()).reset_index(drop=True),
            "position": np.arange(len(times)) - np.repeat(starts, lengths),
            "upcoming_run_at": times,
        }
    )


def listed_times(listed: object) -> NDArray[np.datetime64]:
    """Return one cell of a column of lists of times, which may be missing, as an array of times in UTC."""
    if isinstance(listed, np.ndarray) and listed.dtype.kind == "M":
        return listed.astype("datetime64[us]", copy=False)
    if isinstance(listed, np.ndarray | list | tuple):
        return pd.DatetimeIndex(pd.to_datetime(list(listed), utc=True)).tz_localize(None).as_unit("us").to_numpy()
    return np.array([], dtype="datetime64[us]")


def expand_metadata(df: pd.DataFrame, keys: Iterable[str] | None = None) -> pd.DataFrame:
    """Return a copy with one column per metadata key, to group by team or owner.

    Parameters
    ----------
    df
        A deployments frame: its column ``metadata``, of JSON text or of dicts.
    keys
        The keys to expand; ``None`` takes every key that is valid Unicode, in alphabetical order.

    Returns
    -------
    pandas.DataFrame
        A copy of ``df`` with one column ``metadata_<key>`` (``str``) per key: the key's value, as JSON text if it
        is not a string; missing if the key is absent or ``null``. A key that no deployment has gives a
        column that is missing everywhere.

    Raises
    ------
    MissingColumnError
        ``df`` has no column ``metadata``.
    FrameTypeError
        ``df`` is no frame.
    TypeError
        ``keys`` are no texts.
    ValueError
        A text in ``metadata`` is not a JSON object.

    Examples
    --------
    >>> import qoderdata as qd
    >>> df = qd.flatten_deployments([{"id": "dep_1", "metadata": {"team": "data"}}, {"id": "dep_2"}])
    >>> qd.expand_metadata(df)[["id", "metadata_team"]]
          id metadata_team
    0  dep_1          data
    1  dep_2           NaN
    """
    require_frame(df, [], keys=["metadata"], what="deployments")
    rows = [_object(value) for value in df["metadata"]]
    if keys is None:
        keys = sorted({key for row in rows for key in row if is_utf8(key)})
    else:
        keys = _key_list(keys, name="keys")
    columns = {
        f"metadata_{key}": pd.Series([_cell(row.get(key)) for row in rows], index=df.index, dtype=TEXT)
        for key in keys
    }
    return df.assign(**columns)


def _key_list(keys: object, *, name: str) -> list[str]:
    listed: list[Any] = list(keys) if isinstance(keys, Iterable) and not isinstance(keys, str) else [keys]
    if not all(isinstance(key, str) for key in listed):
        raise TypeError(f"{name}={keys!r} must be a key of the metadata, such as 'team', or a list of keys")
    return listed


def _object(text: object) -> Mapping[str, Any]:
    """Parse a JSON object; if a value is no text, the exact parser is needed."""
    if not isinstance(text, str):
        return text if isinstance(text, Mapping) else {}
    with contextlib.suppress(msgspec.MsgspecError, UnicodeError):
        return _OBJECT_OF_TEXTS.decode(text)
    found = None
    with contextlib.suppress(ValueError, APIResponseValidationError):
        found = parse(text.encode())
    if not isinstance(found, dict):
        hint = frame_hint("deployments")
        raise ValueError(f"a text in the column metadata is not a JSON object{hint}")  # noqa: TRY004 - a bad value
    return found


def _cell(value: object) -> str | None:
    if value is None:
        return None
    return value if isinstance(value, str) and is_utf8(value) else write(value)


def with_names(
    frame: IntoFrameT,
    deployments: IntoFrame | None = None,
    *,
    agents: IntoFrame | None = None,
    environments: IntoFrame | None = None,
    metadata: str | Iterable[str] = (),
) -> IntoFrameT:
    """Add the names of deployments, agents and environments beside their ids.

    A summary that is grouped by an id of a frame with names has them as its first column, so that names are added
    once.

    Parameters
    ----------
    frame
        A frame with ids, of pandas or any engine that narwhals knows: runs, sessions, triggers, missed triggers,
        deployments, or a summary of them, with the ids as columns or as index levels. If it has no
        ``deployment_id``, a column or level ``id`` is used as such, except in a frame of agents, environments
        or events.
    deployments
        A deployments frame: its columns ``id`` and ``name``, and ``metadata`` if keys of it are asked for.
    agents
        An agents frame (its columns ``id`` and ``name``), or a sessions frame, of which the newest
        ``agent_name`` of each ``agent_id`` is taken.
    environments
        An environments frame: its columns ``id`` and ``name``.
    metadata
        The keys of the deployments' metadata to add, such as ``["team"]``. If `frame` is a deployments frame,
        `deployments` may be left out.

    Returns
    -------
    frame
        A copy of the same kind, lazy if `frame` is lazy, with the same rows, index and columns, and with
        these columns (``str`` on pandas):

        ==================== =============================================================================
        ``deployment_name``  after ``deployment_id``, if `deployments` is given; none beside an ``id``
        ``agent_name``       after ``agent_id``, if `agents` is given
        ``environment_name`` after ``environment_id``, if `environments` is given
        ``metadata_<key>``   at the end: the value of the key, as `expand_metadata` returns it
        ==================== =============================================================================

        The names of index levels are the first columns. An id that is not known has no name: it is missing,
        unless `frame` had such a column before. DuckDB and Spark give the rows in any order. The other frames
        may be of any engine; they are read at once.

    Raises
    ------
    FrameTypeError
        An argument is not a frame, or a column has lost its dtype.
    MissingColumnError
        `frame` has none of the ids that are to be named, or another frame lacks a column.
    TypeError
        ``metadata`` is no text or list of texts.
    ValueError
        Nothing to add was given, ``metadata`` without deployments, or a text in ``metadata`` is not a JSON object.

    Warns
    -----
    DataQualityWarning
        No id of a pandas frame is known, and the ids of the frame with the names have another prefix, for example
        because agents were given as deployments; or no deployment has a key of ``metadata``, while there are
        other keys.

    Examples
    --------
    >>> import qoderdata as qd
    >>> df = qd.flatten_deployments([{"id": "dep_1", "name": "nightly", "metadata": {"team": "data"}}])
    >>> runs = qd.flatten_runs([
    ...     {"id": "drun_1", "deployment_id": "dep_1", "status": "failed"},
    ...     {"id": "drun_2", "deployment_id": "dep_2", "status": "completed"},
    ... ])
    >>> named = qd.with_names(runs, df, metadata=["team"])
    >>> named[["deployment_id", "deployment_name", "status", "metadata_team"]]
      deployment_id deployment_name     status metadata_team
    0         dep_1         nightly     failed          data
    1         dep_2             NaN  completed           NaN
    >>> qd.run_failure_rates(named)[["name", "runs", "failed"]]
                      name  runs  failed
    deployment_id
    dep_1          nightly     1       1
    dep_2              NaN     1       0
    """
    keys = _key_list(metadata, name="metadata")
    columns = _column_names(frame)
    levels = frame.index.names if isinstance(frame, pd.DataFrame) else ()
    present = [*columns, *(level for level in levels if level is not None)]
    if deployments is None and keys:
        if "deployment_id" in present or not {"id", "metadata"} <= set(columns):
            raise ValueError(f"metadata={keys!r} is of deployments; pass the frame that load_deployments returns")
        deployments = frame
    sources = {"deployment_id": deployments, "agent_id": agents, "environment_id": environments}
    if all(source is None for source in sources.values()):
        raise ValueError("give deployments, agents or environments, or keys of metadata")
    is_of_others = "agent_id" not in present and not _COLUMNS_OF_OTHERS.isdisjoint(present)
    is_id_of_deployments = "deployment_id" not in present and (deployments is frame or not is_of_others)
    tables = {}
    for key, source in sources.items():
        column = "id" if key == "deployment_id" and is_id_of_deployments else key
        if source is not None and column in present:
            table = _names_by_id(source, key, keys)
            tables[column] = table.drop(columns=NAMES[key]) if column == "id" and "name" in present else table
    if not tables:
        ids = " or ".join(repr(key) for key, source in sources.items() if source is not None)
        raise MissingColumnError(
            f"the frame has no column {ids} to name; it has: {', '.join(map(str, present)) or 'none'}"
            f"{frame_hint('frame')}"
        )
    result: IntoFrameT = _named(frame, tables)
    if isinstance(frame, pd.DataFrame):
        for key, table in tables.items():
            named_ids = frame[key] if key in columns else frame.index.get_level_values(key)
            what = "deployments" if key == "id" else key.replace("_id", "s")
            hint = "; one of the two frames is not of deployments" if key == "id" else frame_hint(what, start=":")
            _warn_of_other_ids(named_ids, key, table.index, what=what, hint=hint)
    return result


def with_outcomes(sessions: IntoFrameT, runs: IntoFrame) -> IntoFrameT:
    """Add to each session the outcome of its run, for example to know what failed runs cost.

    Parameters
    ----------
    sessions
        A sessions frame, of pandas or any engine that narwhals knows.
    runs
        The runs of these sessions, of any engine; they are read at once. Load them from before the first session
        on; ``outcomes="events"`` also finds failures inside sessions.

    Returns
    -------
    frame
        A copy of `sessions` of the same kind, lazy if it is lazy, with the same rows and index, and with the
        column ``outcome`` (``str`` on pandas) at the end: the ``status`` of the session's run; of several runs
        that share the session, the newest by ``triggered_at``. It is missing if no run of `runs` has the
        session, or if the status of that run is not known. DuckDB and Spark give the rows in any order.

    Raises
    ------
    FrameTypeError
        An argument is not a frame, or a column has lost its dtype.
    MissingColumnError
        `sessions` has no ``id``, or `runs` lacks ``session_id``, ``status`` or ``triggered_at``.

    Warns
    -----
    DataQualityWarning
        No id of a pandas frame is the session of a run, and the ids have another prefix: it is not of sessions.

    Examples
    --------
    >>> import qoderdata as qd
    >>> sessions = qd.flatten_sessions([
    ...     {"id": "sess_1", "deployment_id": "dep_1", "usage": {"total_credits": 1.5}},
    ...     {"id": "sess_2", "deployment_id": "dep_1", "usage": {"total_credits": 0.5}},
    ... ])
    >>> runs = qd.flatten_runs([{"id": "drun_1", "session_id": "sess_1", "status": "failed"}])
    >>> costs = qd.session_costs(qd.with_outcomes(sessions, runs), by="outcome")
    >>> costs[["sessions", "credits", "share"]]
             sessions  credits  share
    outcome
    failed          1      1.5   0.75
    NaN             1      0.5   0.25
    """
    levels = sessions.index.names if isinstance(sessions, pd.DataFrame) else ()
    require_columns(_column_names(sessions, "sessions"), ["id"], what="sessions", levels=levels)
    table = _read(runs, ["session_id", "status", "triggered_at"], what="runs").dropna(subset="session_id")
    newest = table.sort_values("triggered_at", ascending=False, kind="stable").drop_duplicates("session_id")
    outcomes = newest.set_index("session_id")[["status"]].rename(columns={"status": "outcome"})
    result: IntoFrameT = _named(sessions, {"id": outcomes})
    if isinstance(sessions, pd.DataFrame):
        hint = frame_hint("sessions", start=":")
        _warn_of_other_ids(sessions["id"], "id", outcomes.index, what="runs", hint=hint)
    return result


def _warn_of_other_ids(column: Iterable[Any], key: str, known: pd.Index[Any], *, what: str, hint: str) -> None:
    """Warn if no id is known and the known ids have other prefixes: one of the two frames is of another kind."""
    ids = {str(one) for one in pd.unique(pd.Series(column).dropna())}
    found, other = ({one.partition("_")[0] + "_" for one in group if "_" in one} for group in (ids, known))
    if found and other and found.isdisjoint(other) and ids.isdisjoint(known):
        warn(
            f"none of the {counted(len(ids), 'id')} in {key}, which begin with {first_few(sorted(found))}, is in "
            f"the {what} frame, whose ids begin with {first_few(sorted(other))}{hint}",
            DataQualityWarning,
        )


def _column_names(frame: Any, what: str = "frame") -> list[str]:  # noqa: ANN401 - a frame of any engine
    if isinstance(frame, pd.DataFrame) or is_dask_dataframe(frame):
        return list(frame.columns)
    try:
        names: list[str] = nw.from_native(frame).collect_schema().names()
    except TypeError:
        raise not_a_frame(frame, what=what, kinds=KINDS) from None
    return names


def _read(frame: Any, wanted: Collection[str], *, what: str) -> pd.DataFrame:  # noqa: ANN401 - of any engine
    """Return some columns of a small frame of any engine as a pandas frame."""
    if not isinstance(frame, pd.DataFrame):
        require_columns(_column_names(frame, what), wanted, what=what)
        if is_dask_dataframe(frame):
            frame = frame[list(wanted)].compute()
        else:
            opened = nw.from_native(frame).lazy().select(*wanted)
            require_dtypes(opened.collect_schema(), wanted, what=what)
            frame = opened.collect("pyarrow").to_native().to_pandas(types_mapper=_DTYPES.get)
    return require_frame(frame, wanted, what=what)[list(wanted)].reset_index(drop=True)


def _names_by_id(source: Any, key: str, metadata: Collection[str]) -> pd.DataFrame:  # noqa: ANN401 - as above
    """Return the names, and the metadata of deployments, by id; each id once."""
    what = key.replace("_id", "s")
    if key == "agent_id" and {"agent_id", "agent_name"} <= set(_column_names(source, what)):
        sessions = _read(source, ["agent_id", "agent_name", "created_at"], what="sessions")
        newest = sessions.dropna(subset="agent_name").sort_values("created_at", ascending=False, kind="stable")
        table = newest[["agent_id", "agent_name"]].rename(columns={"agent_id": "id"})
    else:
        has_metadata = key == "deployment_id" and bool(metadata)
        table = _read(source, ["id", "name", *(["metadata"] if has_metadata else [])], what=what)
        table = table.rename(columns={"name": NAMES[key]})
        if has_metadata:
            texts, table = table["metadata"], expand_metadata(table, metadata).drop(columns="metadata")
            _warn_of_unknown_keys([key for key in metadata if table[f"metadata_{key}"].isna().all()], texts)
    return table.dropna(subset="id").drop_duplicates("id").astype(TEXT).set_index("id")


def _warn_of_unknown_keys(keys: Collection[str], texts: pd.Series[Any]) -> None:
    """Warn if some of these keys are in no metadata while others are; all values of `keys` are missing."""
    known = {name for text in texts for name in _object(text)} if keys else set()
    unknown = [key for key in keys if key not in known]
    if known and unknown:
        warn(
            f"no deployment has the key {', '.join(map(repr, unknown))} in its metadata; there are: "
            f"{first_few([repr(key) for key in sorted(known)])}",
            DataQualityWarning,
        )


def _named_in_pandas(frame: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    require_frame(frame, [], what="given", keys=[key for key in tables if key in frame.columns])
    result = frame.copy()
    names_of_levels = 0
    for key, table in tables.items():
        is_column = key in frame.columns
        ids = frame[key] if is_column else frame.index.get_level_values(key)
        rows = table.index.get_indexer(pd.Index(ids).astype(TEXT))
        for name in table.columns:
            values = pd.Series(table[name].array.take(rows, allow_fill=True), index=result.index, dtype=TEXT)
            is_name = name in NAMES.values()
            if not is_name:
                result[name] = values
            elif name in result.columns:
                result[name] = values.fillna(result[name].astype(TEXT))
            else:
                at = list(result.columns).index(key) + 1 if is_column else names_of_levels
                result.insert(at, name, values)
                if not is_column:
                    names_of_levels += 1
    return result


def _named(frame: Any, tables: Mapping[str, pd.DataFrame]) -> Any:  # noqa: ANN401 - of any engine
    if isinstance(frame, pd.DataFrame):
        return _named_in_pandas(frame, tables)
    if is_dask_dataframe(frame):
        return frame.map_partitions(_named_in_pandas, dict(tables))  # type: ignore[no-untyped-call] # Dask's
    opened = nw.from_native(frame)
    order = opened.collect_schema().names()
    for key, table in tables.items():
        looked_up = _looked_up(opened, key, table.set_axis([f"_name_{n}" for n in range(table.shape[1])], axis=1))
        new = {name: nw.col(f"_name_{number}") for number, name in enumerate(table.columns)}
        for name, value in new.items():
            is_name = name in NAMES.values()
            if name not in order:
                order.insert(order.index(key) + 1 if is_name else len(order), name)
            elif is_name:
                new[name] = nw.coalesce(value, nw.col(name))
        opened = looked_up.with_columns(**new).select(*order)
    return opened.to_native()


def _looked_up(opened: Any, key: str, table: pd.DataFrame) -> Any:  # noqa: ANN401 - narwhals frames of any kind
    """Return a frame of narwhals with the columns of `table`, looked up by the ids in column `key`."""
    native, engine = opened.to_native(), opened.implementation
    arrow = pa.Table.from_pandas(table.rename_axis("_key").reset_index(), preserve_index=False)
    if engine.is_polars():
        ids, found = nw.col(key).cast(nw.String), arrow.to_pydict()
        for name in table.columns:
            text = ids.replace_strict(found["_key"], found[name], default=None, return_dtype=nw.String)
            opened = opened.with_columns(text.alias(name))
        return opened
    if engine.is_pyarrow():
        rows = pc.index_in(native[key].cast(arrow["_key"].type), arrow["_key"])
        for name in table.columns:
            native = native.append_column(name, arrow[name].take(rows))
        return nw.from_native(native)
    if engine.is_duckdb():
        # A relation can only be joined with relations of its own connection; `query` uses it, and finds the local
        # variable `arrow` by its name.
        other = native.query("_", "SELECT * FROM arrow")
    elif engine.is_spark_like():
        other = native.sparkSession.createDataFrame(arrow)
    else:
        raise not_a_frame(native, what="frame", kinds=KINDS)
    return opened.join(nw.from_native(other), left_on=key, right_on="_key", how="left")
