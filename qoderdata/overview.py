"""What is going on now: what runs, what fires next, what fails, what is wrong, and what today cost."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from qoderdata.check import check, distinct_names, failing_now
from qoderdata.errors import UnknownOutcomesWarning
from qoderdata.frame_checks import TEXT, require_frame
from qoderdata.frames import expand_metadata, flatten_sessions, with_names
from qoderdata.outcomes import STATUSES
from qoderdata.summaries import run_failure_rates, session_costs
from qoderdata.summaries.time_windows import local_midnight
from qoderdata.timelines import next_triggers

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How far ahead triggers are looked for: the shortest time in which there are `_ENOUGH` of them.
_HORIZONS = ("1h", "24h", "7D")
_ENOUGH = 100
_COLUMNS = ("id", "agent_id", "status", "archived_at")
_RUN_COLUMNS = ("id", "deployment_id", "agent_id", "status", "triggered_at", "started_at", "error_type")
_SESSION_COLUMNS = ("agent_id", "agent_name", "created_at")
_LABELS = ["deployment_id", "name", "agent", "team"]
_FAILING = ["streak", "since", "doubt", "error_type"]


@dataclass(frozen=True, slots=True)
class Today:
    """The runs and sessions since midnight; the number of sessions is missing if they could not be read.

    Credits are missing if the sessions could not be read, or if no session has credits.
    """

    runs: int
    completed: int
    failed: int
    assumed: int
    sessions: int | None
    credits: float | None
    unknown: int


@dataclass(frozen=True, slots=True)
class Overview:
    """What is going on at one time.

    Each frame but `findings` begins with ``deployment_id``, ``name``, ``agent`` and ``team``.
    """

    #: Deployments that are not archived.
    active: int
    paused: int
    #: Runs that have not ended, the longest first: ``status``, ``since``.
    running: pd.DataFrame
    #: Triggers within `horizon`, the next first: ``trigger_at``.
    upcoming: pd.DataFrame
    horizon: str
    #: Active deployments whose last run failed, the longest streak first: ``streak``, ``since``, ``doubt`` (as
    #: `failing_now` returns them), ``error_type``.
    failing: pd.DataFrame
    #: What `check` returns.
    findings: pd.DataFrame
    #: Runs and credits since midnight.
    today: Today


def overview(
    df: pd.DataFrame,
    runs: pd.DataFrame,
    sessions: pd.DataFrame | None,
    *,
    all_runs: pd.DataFrame | None = None,
    snapshots: Sequence[pd.DataFrame] = (),
    now: pd.Timestamp,
    tz: str = "UTC",
    team: str = "team",
) -> Overview:
    """Return what is going on at a time, `now`; nothing is read or changed.

    Runs and sessions are those since midnight in the zone `tz` at least, as `check` takes them and `all_runs`;
    sessions, ``None`` if they could not be read, also hold the names of agents. `team` is the key of the
    deployments' metadata that names the team.

    Examples
    --------
    >>> import qoderdata as qd
    >>> df = qd.flatten_deployments([{"id": "dep_1", "name": "nightly", "status": "active"}])
    >>> runs = qd.flatten_runs([{
    ...     "id": "drun_1", "deployment_id": "dep_1", "status": "running", "triggered_at": "2026-06-15T09:00:00Z",
    ... }])
    >>> now = pd.Timestamp("2026-06-15T09:05Z")
    >>> found = overview(df, runs, qd.flatten_sessions([]), now=now)
    >>> found.running[["name", "status"]].to_numpy().tolist(), found.today.runs, found.today.credits
    ([['nightly', 'running']], 1, 0.0)
    """
    df = require_frame(df, _COLUMNS, what="deployments")
    runs = require_frame(runs, _RUN_COLUMNS, what="runs")
    if sessions is not None:
        sessions = require_frame(sessions, _SESSION_COLUMNS, what="sessions")
    agents = flatten_sessions([]) if sessions is None else sessions
    live = df[df["archived_at"].isna()]
    is_paused = live["status"] == "paused"
    # Not every account has teams.
    teams = expand_metadata(df, [team]).set_index("id")[f"metadata_{team}"]

    names = distinct_names(df)

    def named(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
        labelled = with_names(frame, df, agents=agents).rename(columns={"agent_name": "agent"})
        ids = labelled["deployment_id"]
        labelled = labelled.assign(name=ids.map(names).fillna(ids), team=teams.reindex(ids).array)
        return labelled[[*_LABELS, *columns]].reset_index(drop=True)

    upcoming, horizon = _upcoming(live, now)
    return Overview(
        active=int((~is_paused).sum()),
        paused=int(is_paused.sum()),
        running=named(_running(runs), ["status", "since"]),
        upcoming=named(upcoming, ["trigger_at"]),
        horizon=horizon,
        failing=named(_failing(runs if all_runs is None else all_runs, live[~is_paused]), _FAILING),
        findings=check(df, runs, sessions, all_runs=all_runs, snapshots=snapshots, now=now, tz=tz),
        today=_today(runs, sessions, local_midnight(now, tz)),
    )


def _running(runs: pd.DataFrame) -> pd.DataFrame:
    running = runs[runs["status"].isin(STATUSES["unfinished"])]
    running = running.assign(since=running["started_at"].fillna(running["triggered_at"]))
    return running.sort_values(["since", "id"], kind="stable")


def _upcoming(live: pd.DataFrame, now: pd.Timestamp) -> tuple[pd.DataFrame, str]:
    for horizon in _HORIZONS:
        triggers = next_triggers(live, horizon, start=now)
        if len(triggers) >= _ENOUGH:
            break
    texts = dict.fromkeys(["deployment_id", "agent_id"], TEXT)
    return triggers[["trigger_at", *texts]].astype(texts), horizon


def _failing(runs: pd.DataFrame, active: pd.DataFrame) -> pd.DataFrame:
    failing = failing_now(runs, active)
    agents = active.set_index("id")["agent_id"].reindex(failing["deployment_id"])
    return failing.assign(agent_id=agents.astype(TEXT).array)


def _today(runs: pd.DataFrame, sessions: pd.DataFrame | None, begin: pd.Timestamp) -> Today:
    since = runs[runs["triggered_at"] >= begin]
    with warnings.catch_warnings(action="ignore", category=UnknownOutcomesWarning):  # `check` says it
        rates = run_failure_rates(since, by=None)
    count: int | None = None
    total, unknown = np.nan, 0.0
    if sessions is not None:
        created = sessions[sessions["created_at"] >= begin]
        costs = session_costs(created, by=None)
        # Without sessions there is no row, and the sum is 0; a row without credits has no sum.
        count, total, unknown = len(created), costs["credits"].sum(min_count=len(costs)), costs["unknown"].sum()
    return Today(
        runs=len(since),
        completed=int(rates["completed"].sum()),
        failed=int(rates["failed"].sum()),
        assumed=int(rates["assumed"].sum()),
        sessions=count,
        credits=None if pd.isna(total) else float(total),
        unknown=int(unknown),
    )
