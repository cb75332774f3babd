"""The events of one session, from the service."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from qoderdata.client import Client
from qoderdata.load.pull import Pull
from qoderdata.schema import EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pandas as pd
    import pyarrow as pa

#: The types of events that tell what became of a run.
OUTCOME_TYPES = (
    "session.status_running",
    "session.status_idle",
    "session.status_rescheduled",
    "session.status_terminated",
    "session.error",
)


def load_events(
    session_id: str, *, types: Iterable[str] | None = None, client: Client | None = None
) -> pd.DataFrame:
    """Return the events of one session, in the order in which they happened; they are not cached.

    Parameters
    ----------
    session_id
        The session's id (``sess_…``), as in the column ``session_id`` of a runs frame.
    types
        Only events of these types, such as ``["session.error"]``; ``None``: all.
    client
        The account; ``None`` makes a `Client` from the environment.

    Returns
    -------
    pandas.DataFrame
        One row per event, in the list's order: ``session_id`` (``str``), ``position`` (``int64``, 0 is the first
        that is returned), ``id``, ``type`` (``str``), ``processed_at`` (``datetime64[us, UTC]``, may be missing on
        any event), ``stop_reason``, ``error_type``, ``error_message``, ``retry_status`` (``str``),
        ``model_credits`` (``float64``) and ``extra`` (``str``, JSON text of everything else, such as messages). No
        events: no rows, same columns and dtypes. ``attrs`` holds ``source``, ``complete`` and ``requests``.

    Raises
    ------
    ValueError
        ``session_id`` cannot be an id.
    CredentialError
        There is no token.
    NotFoundError
        There is no such session.
    APIError
        The list could not be read to its end; nothing is returned.

    Warns
    -----
    DataQualityWarning
        Values that do not fit their column were kept in ``extra``.

    Examples
    --------
    >>> import qoderdata as qd
    >>> from qoderdata.sandbox import Sandbox
    >>> with Sandbox(deployments=30, seed=7, edition="D") as sandbox:
    ...     client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url)
    ...     events = qd.load_events(sandbox.sessions[0]["id"], client=client)
    >>> list(events["position"]) == list(range(len(events)))
    True
    """
    from qoderdata.frames import events_to_pandas  # noqa: PLC0415 - imports pandas

    client = Client() if client is None else client
    pull = Pull(client, EVENTS, cursor_param="page")
    tables = list(event_tables(pull, session_id, types))
    frame = events_to_pandas(pull.decoder.finish(tables), session_id)
    frame.attrs = {
        "source": f"{client.base_url}{events_path(session_id)}",
        "complete": True,
        "requests": pull.done.requests,
    }
    return frame


def event_tables(pull: Pull, session_id: str, types: Iterable[str] | None) -> Iterator[pa.Table]:
    """Yield the pages of a session's events, oldest first; the next page is fetched meanwhile."""
    params: dict[str, str | list[str]] = {"order": "asc"}
    if types is not None:
        params["types[]"] = list(types)
    return pull.tables(events_path(session_id), params)


def events_path(session_id: str) -> str:
    """Return the path of a session's events."""
    if session_id.strip() in {"", ".", ".."}:
        raise ValueError(f"session_id={session_id!r} is not the id of anything; ids look like sess_0197…")
    return f"/sessions/{quote(session_id, safe='')}/events"
