"""Hold what a report is about: the frames, the moment, the zone, and what several sections need of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from qoderdata import summaries
from qoderdata.columns import require_frame
from qoderdata.cron import CronError, parse
from qoderdata.formatting import format_duration, format_time, one_line, truncate
from qoderdata.parsing import parse_instant
from qoderdata.timelines import missed_triggers, next_triggers

if TYPE_CHECKING:
    from collections.abc import Mapping

#: How far the load looks ahead, and the missed triggers look back.
WEEK = timedelta(days=7)
#: The most triggers that are listed at once; ten thousand deployments make more in four hours, one a minute each.
MOST_TRIGGERS = 2_000_000
_HOUR = timedelta(hours=1)
_HOURS_IN_WORDS = range(2, 49)
_NAME_COLUMNS = 80

_DEPLOYMENT_COLUMNS = (
    "id", "name", "status", "agent_id", "created_at", "updated_at", "archived_at", "paused_reason_type",
    "paused_reason_error_type", "schedule_expression", "schedule_timezone", "schedule_last_run_at",
    "schedule_upcoming_runs_at", "stats_total_runs", "stats_total_failures", "stats_consecutive_failures",
    "stats_next_trigger_at", "stats_last_triggered_at",
)  # fmt: skip
_RUN_COLUMNS = (
    "id", "deployment_id", "status", "trigger_type", "triggered_at", "duration_ms", "error_type", "error_message",
)  # fmt: skip
_SESSION_COLUMNS = ("id", "deployment_id", "usage_total_credits")
_NEWER_RUN_COLUMNS = ("status_from", "trigger_scheduled_at", "created_at", "attempt")


class DeploymentName(NamedTuple):
    """What a deployment is called, and the id to find it by."""

    name: str
    id: str


class Time(NamedTuple):
    """An instant as text in the report's zone, and as ISO 8601."""

    text: str
    iso: str


def fetched_at(frame: pd.DataFrame) -> pd.Timestamp | None:
    """Return when a frame was fetched, where that is known."""
    value = frame.attrs.get("fetched_at")
    return None if value is None else parse_instant(value, name="fetched_at")


def _agent_names(deployments: pd.DataFrame) -> dict[str, str]:
    if "agent_name" not in deployments:
        return {}
    named = deployments.dropna(subset=["agent_id", "agent_name"])
    return dict(zip(named["agent_id"], named["agent_name"], strict=True))


@dataclass(frozen=True)
class ReportData:
    """What a report is about.

    Attributes
    ----------
    deployments : pandas.DataFrame
        The deployments, archived ones too; `read` fills the counters from the runs where there are none.
    runs : pandas.DataFrame or None
        Their runs.
    sessions : pandas.DataFrame or None
        Their sessions.
    start : pandas.Timestamp
        The moment that the report is about, in UTC.
    horizon : datetime.timedelta
        How far it should look ahead.
    tz : str
        The zone that times are shown in.
    labels : mapping
        Names by id, which win over the deployments' own; those of agents too, where the deployments have them.
    """

    deployments: pd.DataFrame
    runs: pd.DataFrame | None
    sessions: pd.DataFrame | None
    start: pd.Timestamp
    horizon: timedelta
    tz: str
    labels: Mapping[str, str]

    @classmethod
    def read(
        cls,
        deployments: pd.DataFrame,
        runs: pd.DataFrame | None,
        sessions: pd.DataFrame | None,
        *,
        start: pd.Timestamp,
        horizon: timedelta,
        tz: str,
        labels: Mapping[str, str] | None,
    ) -> ReportData:
        """Check the frames, and fill the counters from the runs where the deployments have none."""
        deployments = require_frame(deployments, _DEPLOYMENT_COLUMNS, what="deployments")
        if runs is not None:
            runs = require_frame(runs, _RUN_COLUMNS, what="runs", optional=_NEWER_RUN_COLUMNS)
            if not runs.empty:
                deployments = summaries.fill_counters(deployments, runs)
        if sessions is not None:
            sessions = require_frame(sessions, _SESSION_COLUMNS, what="sessions")
        return cls(
            deployments, runs, sessions, start, horizon, tz, {**_agent_names(deployments), **(labels or {})}
        )

    @property
    def frames(self) -> dict[str, pd.DataFrame]:
        """The frames that there are, by name."""
        frames = {"deployments": self.deployments, "runs": self.runs, "sessions": self.sessions}
        return {name: frame for name, frame in frames.items() if frame is not None}

    @property
    def is_counted(self) -> bool:
        """Whether counters are made from runs, for some deployments at least."""
        return "counted_since" in self.deployments.attrs

    @cached_property
    def live(self) -> pd.DataFrame:
        """The deployments that are not archived."""
        return self.deployments[self.deployments["archived_at"].isna()]

    @cached_property
    def rates(self) -> pd.DataFrame:
        """Their failure rates, one row a deployment."""
        return summaries.failure_rates(self.live)

    @cached_property
    def triggers_a_day(self) -> int:
        """The most triggers that the schedules can have in a day."""
        active = self.live[self.live["status"].eq("active").fillna(value=False)]
        return sum(
            count * _fires_a_day(str(expression))
            for expression, count in active["schedule_expression"].value_counts().items()
        )

    @cached_property
    def longest_span(self) -> timedelta:
        """The longest time whose triggers can be listed, in whole hours, at least one."""
        hours = np.floor(24 * MOST_TRIGGERS / max(self.triggers_a_day, 1))
        return _HOUR * max(1, min(int(hours), 24 * 366 * 100))

    @property
    def shown_horizon(self) -> timedelta:
        """How far the report looks ahead: the horizon, or less where too much fires."""
        return min(self.horizon, self.longest_span)

    @cached_property
    def week(self) -> pd.DataFrame:
        """What fires in the next seven days, in the horizon where that is longer, or in `longest_span`."""
        span = min(max(self.horizon, WEEK), self.longest_span)
        return next_triggers(self.deployments, span, start=self.start, tz=self.tz)

    @cached_property
    def triggers(self) -> pd.DataFrame:
        """What fires within the horizon."""
        return self.week[self.week["trigger_at"] < self.start + self.shown_horizon]

    @cached_property
    def missed_window(self) -> tuple[pd.Timestamp, pd.Timestamp] | None:
        """The time in which missed triggers can be told: the last week, as far as the runs reach."""
        if self.runs is None or self.runs["triggered_at"].isna().all():
            return None
        until = min(self.start, fetched_at(self.runs) or self.runs["triggered_at"].max())
        since = max(until - min(WEEK, self.longest_span), self.runs["triggered_at"].min())
        return (since, until) if since < until else None

    @cached_property
    def missed(self) -> pd.DataFrame | None:
        """What should have fired in `missed_window` but did not; ``None`` where nothing can be told."""
        if self.runs is None or self.missed_window is None:
            return None
        since, until = self.missed_window
        return missed_triggers(self.deployments, self.runs, since=since, until=until)

    @cached_property
    def assumed(self) -> int:
        """How many runs count as completed because of their session's state alone."""
        if self.runs is None or "status_from" not in self.runs:
            return 0
        assumed = self.runs["status"].eq("completed") & self.runs["status_from"].eq("session")
        return int(assumed.fillna(value=False).sum())

    @cached_property
    def _names(self) -> dict[str, str]:
        named = self.deployments.dropna(subset=["name"])
        return {**dict(zip(named["id"], named["name"], strict=True)), **self.labels}

    def name(self, identifier: str) -> str:
        """Return a deployment's name, its id where it has none; the beginning of a very long one."""
        return truncate(one_line(self._names.get(identifier) or str(identifier)), _NAME_COLUMNS)

    def deployment(self, identifier: str) -> DeploymentName:
        """Return what a deployment is called, with its id."""
        return DeploymentName(self.name(identifier), str(identifier))

    def time(self, time: pd.Timestamp) -> Time | None:
        """Return an instant as text and as ISO 8601; ``None`` where it is missing."""
        return None if pd.isna(time) else Time(self.time_text(time), pd.Timestamp(time).isoformat())

    def time_text(self, time: pd.Timestamp) -> str:
        """Return an instant as text in the report's zone."""
        return format_time(time, self.tz)


def span_text(span: timedelta) -> str:
    """Return a span in words: up to two days in hours, as people say it."""
    hours = span / _HOUR
    return f"{hours:.0f} hours" if hours in _HOURS_IN_WORDS else format_duration(span)


def _fires_a_day(expression: str) -> int:
    """Return the most times that a cron text fires in a day; 0 where it cannot be read."""
    try:
        schedule = parse(expression, "UTC")
    except CronError:
        return 0
    return len(schedule.minutes) * len(schedule.hours)
