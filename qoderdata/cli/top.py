"""``qoderdata top``: a live view of what runs, fires next, fails, is wrong, and costs."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

import qoderdata as qd
from qoderdata import errors
from qoderdata.arguments import parse_span
from qoderdata.cli import options, output, top_screen
from qoderdata.cli.service import (
    Service,
    advice_on_archived,
    live_service_options,
    metadata_keys,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd


#: The minimum time between two refreshes.
_SHORTEST = timedelta(seconds=5)
#: The pause per request of the last reading of a list: it leads to a tenth of the requests that are allowed.
_PAUSE_A_REQUEST = timedelta(seconds=1)
#: Runs are read this far back, as `check` does; their sessions may be a little older.
_HISTORY, _SESSION_HISTORY = "30D", "31D"
#: Retries and timeouts of the requests after the first view.
_PATIENCE: dict[str, Any] = {"max_retries": 1, "timeout": (10, 20)}
#: The greatest age of what was read a moment ago.
_JUST_NOW = timedelta(minutes=10)
_NUMBER = re.compile(r"\d[\d,.]*")
#: The key of metadata with the team.
_TEAM = "team"


@options.command("top", example="qoderdata top --once")
@click.option("--once", is_flag=True, help="Print one snapshot and end.")
@click.option(
    "--interval", default="30s", metavar="SPAN", help="Time between readings (default 30s, at least 5s)."
)
@click.option("--team", default=_TEAM, metavar="KEY", help="The key of metadata with the team (default team).")
@options.tz_option("of the times shown, and of the midnight at which today begins")
@live_service_options
def top(*, once: bool, interval: str, team: str, tz: str, service: Service) -> None:
    """Show live what is running, what is next, and what is wrong.

    It also shows the costs of today. Press q to end it.

    A reading costs one request for new runs, one for each run that has not ended (up to edition C), and one for
    each 100 sessions of the last 7 days. A list that took N requests is not read again for N seconds. Deployments
    are read when they are older than --max-age, with one request for each 100. Without the network the last view
    stays, and says how old it is.
    """
    every = parse_span(interval, name="interval")
    if every < _SHORTEST:
        raise click.UsageError(f"--interval {interval} is less than {_SHORTEST.total_seconds():.0f}s")
    if once:
        options.refuse_without_effect(["--interval"], "with --once")
    elif not (sys.stdout.isatty() and os.environ.get("TERM") not in {None, "", "dumb"}):
        raise click.UsageError("a live view needs a terminal; --once prints one snapshot")
    reader = _Reader(service, every, tz=tz, team=team)
    if once:
        _print_once(reader)
    else:
        _watch(reader)


class _Reader:
    """Reads what is new, each list no more often than its requests allow, and keeps what was read."""

    def __init__(self, service: Service, every: timedelta, *, tz: str, team: str) -> None:
        self._service = service
        self._client = service.client()
        self._every = every
        self._settings: dict[str, Any] = {"tz": tz, "team": team}
        self.pause = self._sessions_age = every
        self._frames: dict[str, Any] = {}
        self._snapshots: list[pd.DataFrame] = []

    def read(self, *, progress: bool | None = False, offline: bool = False) -> top_screen.View:
        """Return what is going on after reading what is new; what was read before an error is kept.

        `offline`: return what was going on when the service was last read, perhaps by another process.
        """
        offline = offline or self._service.offline
        account = {**self._service.account, "client": self._client, "progress": progress, "offline": offline}
        max_age: dict[str, Any] = {} if self._service.max_age is None else {"max_age": self._service.max_age}
        whole: dict[str, Any] = {"include_archived": True}
        with advice_on_archived(whole):
            deployments = qd.load_deployments(**whole, **max_age, **account)
        self._keep_deployments(deployments)
        if offline:
            self._frames["sessions"] = self._sessions(account)
            self._frames["runs"] = qd.load_runs(since=_HISTORY, outcomes=self._service.outcomes, **account)
        else:
            self._load_new(account)
        return self._view()

    def use_short_timeouts(self) -> None:
        """Let requests fail sooner from now on: the next reading comes soon."""
        known = self._client.page_limit
        self._client = self._service.client(**_PATIENCE)
        self._client.page_limit = known

    def wait_as_told(self, error: errors.QoderdataError) -> None:
        """Set the pause before the next reading to what an error asks for, where that is longer than usual."""
        asked = getattr(error, "retry_after", None) or 0.0
        self.pause = max(self._every, timedelta(seconds=asked))

    def _keep_deployments(self, deployments: pd.DataFrame) -> None:
        known = self._frames.get("deployments")
        team, keys = self._settings["team"], metadata_keys(deployments)
        if len(deployments) and team not in {_TEAM, *keys}:
            raise click.UsageError(
                f"--team {team}: no such key of metadata. Metadata: {', '.join(keys) or 'none'}"
            )
        if known is not None and known.attrs["fetched_at"] == deployments.attrs["fetched_at"]:
            return
        self._snapshots = self._service.snapshots("1D")
        self._frames["deployments"] = deployments

    def _load_new(self, account: dict[str, Any]) -> None:
        """Read new runs; read new sessions unless the pause after their last reading is not over."""
        runs = qd.load_runs(since=_HISTORY, outcomes="runs", refresh=True, **account)
        self.pause = max(self._every, _pause(runs))
        sessions = self._sessions(account, max_age=self._sessions_age)
        if sessions is not None and sessions.attrs["requests"]:
            self._sessions_age = max(self._every, _pause(sessions))
        if (runs["status_from"].isna() & runs["session_id"].notna()).any():
            # Both lists were read just now, or are recent enough: they are not read again.
            max_age = self._sessions_age + _JUST_NOW
            runs = qd.load_runs(since=_HISTORY, outcomes=self._service.outcomes, max_age=max_age, **account)
        self._frames |= {"runs": runs, "sessions": sessions}

    def _sessions(self, account: dict[str, Any], **freshness: Any) -> pd.DataFrame | None:  # noqa: ANN401 - max_age
        """Load sessions; ``None`` if they may not be read or are not stored, and outcomes need none."""
        try:
            return qd.load_sessions(since=_SESSION_HISTORY, **freshness, **account)
        except (errors.PermissionDeniedError, errors.CacheError) as error:
            if self._service.outcomes == "runs":
                return None
            words = "top --offline" if self._service.offline else "top"
            error.add_note(f"To see runs without sessions and costs: qoderdata {words} --outcomes runs")
            raise

    def _runs_for_streaks(self) -> pd.DataFrame | None:
        """Return all stored runs if there are no counters, and if runs could be stored.

        The view only reads 30 days, so older runs are usually not stored: there is no warning about them.
        """
        stored = replace(self._service, max_age=None, offline=True)
        with warnings.catch_warnings(action="ignore", category=errors.DataQualityWarning):
            try:
                return stored.runs_for_streaks(self._frames["deployments"], self._frames["runs"])
            except errors.CacheError:
                return None

    def _view(self) -> top_screen.View:
        import pandas as pd  # noqa: PLC0415 - slow to import

        from qoderdata.frames import fetched_at  # noqa: PLC0415 - as above
        from qoderdata.overview import overview  # noqa: PLC0415 - as above

        frames = self._frames
        found = overview(
            frames["deployments"],
            frames["runs"],
            frames["sessions"],
            all_runs=self._runs_for_streaks(),
            snapshots=self._snapshots,
            now=pd.Timestamp.now("UTC"),
            **self._settings,
        )
        found = replace(found, findings=options.use_option_names_in_findings(found.findings, top))
        read_at = {name: None if frame is None else fetched_at(frame) for name, frame in frames.items()}
        host = urlsplit(self._client.base_url).netloc
        return top_screen.View(found, read_at, tz=self._settings["tz"], host=host)


def _pause(frame: pd.DataFrame) -> timedelta:
    """Return how long a list is not read again after this reading."""
    return int(frame.attrs["requests"]) * _PAUSE_A_REQUEST


def _print_once(reader: _Reader) -> None:
    view = reader.read(progress=None)
    parts = top_screen.draw_once(view, now=datetime.now(UTC), width=output.available_width())
    output.echo(output.rendered(*parts))


def _watch(reader: _Reader) -> None:
    """Show the view until `q` or Ctrl-C."""
    with options.ended_by_signals():
        view = _first_view(reader)
        reader.use_short_timeouts()
        shown = top_screen.Screen(view)
        try:
            with _quiet(), shown:
                while True:
                    shown.view = replace(view, next_at=datetime.now(UTC) + reader.pause)
                    time.sleep(reader.pause.total_seconds())
                    view = _next_view(reader, view)
        except KeyboardInterrupt:
            if shown.failure is not None:
                raise shown.failure from None
            if not shown.has_quit:
                raise


def _first_view(reader: _Reader) -> top_screen.View:
    """Return the first view; without the network, the view of what is stored, if there is any."""
    try:
        return reader.read(progress=None)
    except errors.APIConnectionError as error:
        try:
            return replace(reader.read(offline=True), error=str(error))
        except errors.CacheError:
            raise error from None


def _next_view(reader: _Reader, last: top_screen.View) -> top_screen.View:
    """Return a newer view, or the last one with the reason why there is none."""
    try:
        return reader.read()
    except errors.AuthenticationError:
        raise
    except errors.QoderdataError as error:
        reader.wait_as_told(error)
        return replace(last, error=str(error))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Show warnings after the view has ended, and drop log records, if standard error is the terminal.

    If warnings only differ in their numbers, show the last one.
    """
    if not sys.stderr.isatty():
        yield
        return
    said: dict[str, Any] = {}
    show = warnings.showwarning

    def keep(message: Warning | str, *others: Any, **more: Any) -> None:  # noqa: ANN401 - as warnings has it
        said[_NUMBER.sub("0", str(message))] = lambda: show(message, *others, **more)

    try:
        with Path(os.devnull).open("w", encoding="utf-8") as nothing, contextlib.redirect_stderr(nothing):
            warnings.showwarning = keep
            yield
    finally:
        warnings.showwarning = show
        for say in said.values():
            say()
