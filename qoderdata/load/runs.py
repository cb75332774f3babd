"""`load_runs`: from the service or the store of runs to a frame."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from qoderdata import cache
from qoderdata.client import Client
from qoderdata.errors import APIConnectionError, APIError, CacheError, DataQualityWarning, warn
from qoderdata.files import Folder
from qoderdata.frame import to_pandas
from qoderdata.load._answers import QUERIES, answer_name
from qoderdata.load._runs_pull import bring_up_to_date, is_current
from qoderdata.load._runs_query import Query, query
from qoderdata.load._runs_walk import Answer, RunWalk
from qoderdata.schema import RUNS
from qoderdata.settings import resolve_cache_dir
from qoderdata.store import DamagedStoreError, RunStore, condition, newest_first
from qoderdata.times import Instant, Span, span
from qoderdata.words import duration

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa

_logger = logging.getLogger("qoderdata")


def load_runs(
    *,
    deployment_id: str | None = None,
    status: str | None = None,
    trigger_type: str | None = None,
    has_error: bool | None = None,
    since: Instant | Span | None = None,
    until: Instant | Span | None = None,
    client: Client | None = None,
    cache_dir: str | Path | None = None,
    max_age: Span = "15min",
    refresh: bool = False,
    offline: bool = False,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Load the runs of an account; the service is asked only for what is not there yet.

    The list of all runs is kept in a store on disk, and a call costs the requests for what is new, and one for
    each run that was still open. A pull that was cut off, by whatever, goes on where it ended. A call with filters
    is answered from the store where it reaches far enough back and is recent; else the service is asked for those
    runs alone, and their answer is cached by itself.

    Parameters
    ----------
    deployment_id
        Only the runs of this deployment.
    status
        Only those ``"pending"``, ``"running"``, ``"completed"``, ``"failed"`` or ``"skipped"``.
    trigger_type
        Only those started by ``"manual"``, ``"schedule"`` or ``"retry"``.
    has_error
        Only those with an error, or only those without.
    since
        Only those triggered at this time or later: ISO 8601 text with an offset, a zone-aware datetime, or an age
        such as ``"30D"``. It also says how far back the service is asked; ``None``: to the first run.
    until
        Only those triggered before this time, or this long ago.
    client
        Who asks; ``None`` makes a `Client` from the environment.
    cache_dir
        The cache's folder, a path or a URL; ``None``: ``QODERDATA_CACHE_DIR``, else the platform's user cache
        folder.
    max_age
        How long ago the newest runs, and those that were still open, may have been read: anything
        `pandas.Timedelta` takes.
    refresh
        Ask for what is new whatever the store has. Runs that ended never change, and are not asked for again.
    offline
        Never ask the network; take what the store has, of any age.
    progress
        Draw a progress bar; ``None``: on a terminal or in a notebook, once a pull takes more than a second.

    Returns
    -------
    pandas.DataFrame
        One row a run, newest first (by `created_at`), with the columns and dtypes of `qoderdata.schema.RUNS`, also
        where there are none. Times are in UTC. ``attrs`` holds ``source``, ``fetched_at`` (when the newest runs
        were read), ``from_cache``, ``complete`` (false only offline) and ``requests``.

    Raises
    ------
    ValueError
        A parameter cannot be understood, such as a time without a zone.
    CredentialError
        There is no token.
    APIError
        The service could not be asked to the end. What was read is kept, and the next call goes on from there.
    CacheError
        ``offline=True``, and nothing is kept.

    Warns
    -----
    DataQualityWarning
        Values that do not fit their column were kept in ``extra``; or ``offline=True`` and not all runs are kept.
    CacheWarning
        The store could not be read or written.

    Examples
    --------
    >>> from qoderdata import Client
    >>> from qoderdata.sandbox import Sandbox
    >>> with Sandbox(deployments=30, seed=7) as sandbox:
    ...     client = Client(pat=sandbox.pat, base_url=sandbox.base_url)
    ...     runs = load_runs(client=client)
    ...     failed = load_runs(client=client, status="failed")
    >>> len(runs) == len(sandbox.runs), runs["id"].is_unique, set(failed["status"]), failed.attrs["requests"]
    (True, True, {'failed'}, 0)
    """
    now = datetime.now(UTC)
    asked = query(
        deployment_id=deployment_id,
        status=status,
        trigger_type=trigger_type,
        has_error=has_error,
        since=since,
        until=until,
        now=now,
    )
    age = span(max_age, name="max_age")
    if refresh and offline:
        raise ValueError("refresh=True asks the network and offline=True never does; give one of them")
    client = Client() if client is None else client
    folder = Folder(resolve_cache_dir(cache_dir))
    loading = _Loading(asked, client, folder, not_before=now if refresh else now - age, progress=progress)
    return loading.offline() if offline else loading.online()


class _Loading:
    """One call of `load_runs`."""

    def __init__(
        self, asked: Query, client: Client, folder: Folder, *, not_before: datetime, progress: bool | None
    ) -> None:
        self.asked = asked
        self.client = client
        self.not_before = not_before
        self.began = time.monotonic()
        self.walk = RunWalk(client, asked, progress=progress)
        self.answers = folder.folder(QUERIES)
        self.name = answer_name(RUNS.name, client, {**asked.filters, "since": asked.window})
        self.store = RunStore(
            folder, base_url=client.base_url, workspace_id=client.workspace_id, account=client.account
        )

    def online(self) -> pd.DataFrame:
        """Answer from what is recent enough, else from the service."""
        self.store.take_over()
        if is_current(self.store, self.asked, not_before=self.not_before):
            table = self._stored()
            if table is not None:
                return self._frame(table, self.store.coverage.read_at)
        if self.asked.filters:
            return self._these_alone()
        try:
            table = self._up_to_date()
        except APIError as error:
            if self.walk.pages:
                error.add_note("The pages that came are kept: the next call goes on from there.")
            if isinstance(error, APIConnectionError) and self.store.coverage.read_at is not None:
                error.add_note(_offline_note(self.store.coverage.read_at))
            raise
        finally:
            self.walk.close()
        self.walk.finish([])
        return self._frame(table, self.store.coverage.read_at)

    def offline(self) -> pd.DataFrame:
        """Answer from what is kept, of any age."""
        self.store.take_over()
        complete = self.store.coverage.covers(self.asked.since)
        if self.asked.filters and not complete:
            kept = cache.read(self.answers, self.name, RUNS.arrow)
            if kept is not None:
                return self._frame(self._wanted(kept.table, until=self.asked.until), kept.fetched_at)
        if not self.store.exists:
            raise CacheError(
                f"offline=True, and {self.store.folder.location} has no runs. Call once without offline, while "
                "the service can be reached"
            )
        if not complete:
            warn(
                "not all runs that are asked for are kept: the last pull was cut off, or did not go back as far. "
                "Call without offline to get the others",
                DataQualityWarning,
            )
        return self._frame(self._read(), self.store.coverage.read_at, complete=complete)

    def _up_to_date(self) -> pa.Table:
        bring_up_to_date(self.store, self.walk, not_before=self.not_before)
        table = self._stored()
        if table is None:
            bring_up_to_date(self.store, self.walk, not_before=self.not_before)
            table = self._read()
        return table

    def _stored(self) -> pa.Table | None:
        """Read the store; ``None`` where it is damaged, and has forgotten what it claimed."""
        try:
            return self._read()
        except DamagedStoreError:
            with self.store.pulling():
                self.store.forget_damaged()
            return None

    def _read(self) -> pa.Table:
        return self.store.read(since=self.asked.since, until=self.asked.until, where=self.asked.where())

    def _these_alone(self) -> pd.DataFrame:
        """Ask for what the filters let through; nothing is learned about the list of all runs."""
        kept = cache.read(self.answers, self.name, RUNS.arrow)
        if kept is None or kept.fetched_at < self.not_before:
            fetched_at = datetime.now(UTC)
            try:
                tables = [
                    answer.table for answer in self.walk.answers(self.asked.filters, goes_on=self._is_wanted)
                ]
            except APIConnectionError as error:
                if kept is not None:
                    error.add_note(_offline_note(kept.fetched_at))
                raise
            finally:
                self.walk.close()
            kept = cache.Answer(self._wanted(self.walk.finish(tables), until=None), fetched_at)
            cache.write(self.answers, self.name, kept)
        return self._frame(self._wanted(kept.table, until=self.asked.until), kept.fetched_at)

    def _is_wanted(self, answer: Answer) -> bool:
        """Tell whether the list goes on with runs that were created in the time that is asked for."""
        since, listing = self.asked.since, answer.listing
        return since is None or listing is None or listing.reaches is None or listing.reaches > since

    def _wanted(self, table: pa.Table, *, until: datetime | None) -> pa.Table:
        """Keep the runs that are asked for: an edition may ignore a filter, and time has gone by."""
        wanted = condition(self.asked.since, until, self.asked.where())
        return newest_first([table if wanted is None else table.filter(wanted)])

    def _frame(self, table: pa.Table, fetched_at: datetime | None, *, complete: bool = True) -> pd.DataFrame:
        walk = self.walk
        _logger.info(
            "runs: %d rows in %.1f s, %s",
            table.num_rows,
            time.monotonic() - self.began,
            f"{walk.pages} pages with {walk.rows} rows from the network" if walk.requests else "from the cache",
        )
        frame = to_pandas(table, RUNS)
        frame.attrs = {
            "source": f"{self.client.base_url}/deployment_runs",
            "fetched_at": None if fetched_at is None else fetched_at.isoformat(),
            "from_cache": walk.requests == 0,
            "complete": complete,
            "requests": walk.requests,
        }
        return frame


def _offline_note(read_at: datetime) -> str:
    return f"What is kept was read {duration(datetime.now(UTC) - read_at)} ago: offline=True takes it."
