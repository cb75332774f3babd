"""Which runs does an account have: from the service and the store of runs to a frame."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Literal

import pyarrow.compute as pc

from qoderdata.arguments import (
    Instant,
    Span,
    bound_text,
    check_choice,
    check_flag,
    check_id,
    check_refresh,
    parse_period,
    parse_span,
    warn_if_no_id,
)
from qoderdata.client import Client, given_client
from qoderdata.errors import APIError, DataQualityWarning, warn
from qoderdata.files import Folder
from qoderdata.formatting import counted, format_duration, is_or_are
from qoderdata.load.refresh import Freshness, RemoteList
from qoderdata.load.run_outcomes import LEVELS, Level, RunOutcomes
from qoderdata.load.stored import Query, StoredLoading
from qoderdata.outcomes import STATUSES, apply_ends, is_assumed
from qoderdata.settings import resolve_cache_dir
from qoderdata.store import RUNS_TABLE, all_of

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

_STATUSES = (*chain.from_iterable(STATUSES.values()), None)
_TRIGGERS = ("manual", "schedule", "retry", None)


class RunLoading(StoredLoading):
    """Bring the stored runs up to date."""

    remote = RemoteList("/deployment_runs", RUNS_TABLE)


def load_runs(
    *,
    deployment_id: str | None = None,
    status: str | None = None,
    trigger_type: str | None = None,
    has_error: bool | None = None,
    since: Instant | Span | None = None,
    until: Instant | Span | None = None,
    outcomes: Level = "auto",
    client: Client | None = None,
    cache_dir: str | Path | None = None,
    max_age: Span = "15min",
    refresh: bool | Literal["all"] = False,
    offline: bool = False,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Return the runs of an account; the service is asked only for what is not stored yet.

    The list of all runs is kept in a store on disk. A call costs the requests for what is new, and one for each
    run that was still open. A pull that was interrupted, for any reason, continues where it ended. A call with
    filters is answered from the store if that goes back far enough and is recent; otherwise only those runs are
    requested, and the answer is cached separately.

    A refresh reads pages from the newest run until a page ends with a run that is stored, and stores each page
    completely. So a run that the service inserted late is found if it is on one of these pages. A refresh does not
    find runs that were inserted further down, that a cursor skipped, that follow a page whose last runs were
    listed before, or that are missing because the list ended too early, if no older runs are stored.
    ``refresh="all"`` finds them: it reads until the list ends.

    Parameters
    ----------
    deployment_id
        Only the runs of this deployment.
    status
        Only those with this status, as `outcomes` resolves it: ``"pending"``, ``"running"``, ``"waiting"``,
        ``"completed"``, ``"failed"``, ``"cancelled"`` or ``"skipped"``.
    trigger_type
        Only those started by ``"manual"``, ``"schedule"`` or ``"retry"``.
    has_error
        Only those with an ``error_type``, or only those without.
    since
        Only those triggered at this time or later: ISO 8601 text with an offset, a zone-aware datetime, or an age
        such as ``"30D"``. Older runs are not requested either; ``None``: all, back to the first run.
    until
        Only those triggered before this time, or this long ago.
    outcomes
        What is read to find the outcome of runs whose records have no ``status``, as in the newest edition.
        ``"runs"``: run records only. ``"sessions"``: also the sessions, one request per 100; a run whose session
        is idle or archived counts as completed, which is an assumption. ``"events"``: also the events of each
        session that no longer runs, about one request each, once. ``"auto"``: ``"runs"`` if every record has a
        status, else ``"sessions"``. An end that was read once is kept, for ``"auto"`` and ``"sessions"``
        too. See `resolve_outcomes` for the rules.
    client
        The account; ``None`` makes a `Client` from the environment.
    cache_dir
        The cache's folder, a path or a URL; ``None``: ``QODERDATA_CACHE_DIR``, else the platform's user cache
        folder.
    max_age
        How old stored answers may be: the newest runs, the runs that were still open, and refusals of sessions.
        Anything that `pandas.Timedelta` accepts, except a bare number.
    refresh
        Always ask for what is new. Runs that have ended never change, and are not read again. ``"all"`` reads the
        list again from the newest run back to `since` and adds what the store lacks; runs that only the store has
        are kept. Those before `since` are read again by the next call that asks for them.
    offline
        Never use the network; take what the store has, of any age.
    progress
        Draw a progress bar; ``None``: on a terminal or in a notebook, once a pull takes more than a second.

    Returns
    -------
    pandas.DataFrame
        One row per run, newest first (by `created_at`), with the columns and dtypes of `qoderdata.schema.RUNS`,
        also if there are none. Times are in UTC. ``attrs`` holds ``source``, ``fetched_at`` (when the newest runs
        were read), ``from_cache``, ``complete`` (false offline if not all is stored, or if the service
        contradicts the store), ``requests``, ``outcomes`` (what was read, now or earlier: ``"runs"``,
        ``"sessions"`` or ``"events"``; also if some of it could not be read) and, if there are no rows,
        ``newest``: when the newest stored run was triggered.

    Raises
    ------
    ValueError
        A parameter cannot be understood, such as a time without a zone.
    CredentialError
        There is no token.
    APIError
        The list could not be read to its end. What was read is kept, and the next call continues from there.
    CacheError
        ``offline=True``, and nothing is stored, or a stored file is damaged; or another process locks the store
        and makes no progress.

    Warns
    -----
    DataQualityWarning
        With ``outcomes="auto"``, runs count as completed by assumption; values that do not fit their column were
        kept in ``extra``; there are no runs in the period although there are others; ``offline=True`` and not all
        runs, or not all of the sessions that `outcomes` needs, are stored; the list ended although older runs are
        stored; or open runs or sessions could not be read again.
    CacheWarning
        The store could not be read or written (`NotStoredWarning`), was repaired, or is locked by another
        process.

    Examples
    --------
    >>> import qoderdata as qd
    >>> from qoderdata.sandbox import Sandbox
    >>> with Sandbox(deployments=30, seed=7) as sandbox:
    ...     client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url)
    ...     runs = qd.load_runs(client=client)
    ...     failed = qd.load_runs(client=client, status="failed")
    >>> len(runs) == len(sandbox.runs), runs["id"].is_unique, set(failed["status"]), failed.attrs["requests"]
    (True, True, {'failed'}, 0)
    """
    now = datetime.now(UTC)
    start, end = parse_period(since, until, now=now, what="run")
    check_choice(outcomes, LEVELS, name="outcomes")
    if has_error is not None:
        check_flag(has_error, name="has_error")
    asked = {
        "deployment_id": None if deployment_id is None else check_id(deployment_id, name="deployment_id"),
        "status": check_choice(status, _STATUSES, name="status"),
        "trigger_type": check_choice(trigger_type, _TRIGGERS, name="trigger_type"),
        "has_error": None if has_error is None else str(has_error).lower(),
    }
    params = {name: value for name, value in asked.items() if value is not None}
    columns = params.keys() & {"deployment_id", "trigger_type"}
    query = Query(
        since=start,
        until=end,
        since_text=bound_text(since),
        params=params,
        where=all_of(pc.field(name) == params[name] for name in columns),
        needs_status=status is not None or has_error is not None or trigger_type == "retry",
    )
    age = parse_span(max_age, name="max_age")
    check_refresh(refresh=refresh, offline=offline, may_be_all=True)
    client = given_client(client)
    folder = Folder(resolve_cache_dir(cache_dir))
    freshness = Freshness(now if refresh else now - age, everything=refresh == "all")
    loading = RunLoading(query, client, folder, freshness, progress)
    answer = loading.offline() if offline else loading.online()
    reader = RunOutcomes(answer.table, client, folder, freshness=freshness, progress=progress)
    try:
        known = reader.read(outcomes, offline=offline)
    except APIError as error:
        error.add_note(
            "The runs and what was read of their sessions are stored; load_runs(outcomes='runs') reads run "
            "records only."
        )
        raise
    loading.counts.requests += reader.loading.counts.requests
    runs = loading.frame(answer)
    runs.attrs["outcomes"] = reader.level
    if known is not None:
        runs = apply_ends(runs, *known)
        if outcomes == "auto" or (outcomes == "events" and offline):
            is_known = _warn_assumed(runs, known[1], reader.undecided, offline=offline)
            runs.attrs["complete"] &= is_known or outcomes == "auto"
        if offline and reader.missing:
            warn(
                f"{counted(reader.missing, 'session')} of these runs {is_or_are(reader.missing)} not "
                "stored, so that the outcomes of their runs are not known. Call without offline to read them",
                DataQualityWarning,
            )
            runs.attrs["complete"] = False
    runs = _with_outcome(runs, status=status, has_error=has_error)
    if runs.empty:
        time = loading.unless_damaged(loading.store.newest)
        runs.attrs["newest"] = newest = None if time is None else time.isoformat()
        warn_if_no_id(deployment_id, name="deployment_id")
        if newest is not None and not query.params and (since is not None or until is not None):
            warn(f"no run is in the time asked for; the newest was triggered at {newest}", DataQualityWarning)
    return runs


def _with_outcome(runs: pd.DataFrame, *, status: str | None, has_error: bool | None) -> pd.DataFrame:
    """Return the runs with an outcome; the service's own filters may not mean the resolved columns."""
    if status is not None:
        runs = runs[runs["status"] == status]
    if has_error is not None:
        runs = runs[runs["error_type"].notna() == has_error]
    return runs.reset_index(drop=True)


def _warn_assumed(runs: pd.DataFrame, ends: pd.DataFrame, undecided: int, *, offline: bool) -> bool:
    """Warn how many outcomes are assumed; return whether all events are stored, so that none would show more."""
    completed, assumed = runs[runs["status"] == "completed"], runs[is_assumed(runs)]
    if not set(assumed["session_id"]) - set(ends["session_id"]):
        return True
    length = format_duration(undecided * timedelta(milliseconds=100))  # at the rate that the service asks for
    how = "load_runs(outcomes='events')" + (" without offline" if offline else "")
    warn(
        f"of all loaded runs, {len(assumed):,} of {counted(len(completed), 'completed run')} "
        f"{is_or_are(len(assumed))} assumed, since the session is idle or archived. Failures inside "
        "such a session are not seen, nor whether it waits for a person. "
        f"{how} reads the events of all sessions without a known end: about {counted(undecided, 'request')}, "
        f"{length}",
        DataQualityWarning,
    )
    return False
