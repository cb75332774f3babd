"""Hold what a report is about (frames, time, periods, zone), and compute what several of its parts need."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from qoderdata import summaries
from qoderdata.check import check, failing_now, is_paused_by_error
from qoderdata.cron import CronError, parse
from qoderdata.errors import DataQualityWarning, warn
from qoderdata.forecast import cost_forecast
from qoderdata.formatting import format_duration, format_time, make_distinct, one_line, truncate
from qoderdata.frame_checks import TEXT, require_frame, require_snapshots, require_unique_deployments
from qoderdata.frames import expand_metadata, fetched_at, is_in, rows_before
from qoderdata.outcomes import is_assumed
from qoderdata.summaries.deployment_changes import ARCHIVED_SUFFIX, without_unlisted
from qoderdata.summaries.run_rates import DOUBTFUL
from qoderdata.timelines import missed_triggers, next_triggers
from qoderdata.translation import gettext as _
from qoderdata.translation import ngettext

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The period that the headline and the figures are about, and the one before it.
WEEK = timedelta(days=7)
#: The period of the picture and of the folded tables of runs.
MONTH = timedelta(days=30)
#: The most triggers that are listed at once; ten thousand deployments that fire each minute have as many in 200
#: minutes.
MOST_TRIGGERS = 2_000_000
#: The fewest decided runs that each of two periods needs to be compared.
LEAST_DECIDED = 20
_NOTHING, _DAY, _HOUR = timedelta(0), timedelta(days=1), timedelta(hours=1)
_HOURS_IN_WORDS = range(2, 49)
_NAME_COLUMNS = 80
_FORECAST_SPAN = "30D"

_DEPLOYMENT_COLUMNS = (
    "id", "name", "status", "agent_id", "created_at", "updated_at", "archived_at", "paused_reason_type",
    "paused_reason_error_type", "schedule_expression", "schedule_timezone", "schedule_last_run_at",
    "schedule_upcoming_runs_at", "stats_total_runs", "stats_total_failures", "stats_consecutive_failures",
    "stats_next_trigger_at", "stats_last_triggered_at",
)  # fmt: skip
_RUN_COLUMNS = (
    "id", "deployment_id", "status", "trigger_type", "triggered_at", "duration_ms", "error_type", "error_message",
)  # fmt: skip
_SESSION_COLUMNS = ("id", "deployment_id", "created_at", "usage_total_credits")
_NEWER_RUN_COLUMNS = ("status_from", "trigger_scheduled_at", "created_at", "attempt", "session_id")


class Deployment(NamedTuple):
    """The name of a deployment, and its id."""

    name: str
    id: str


@dataclass(frozen=True)
class ReportData:
    """The frames, the time and the periods of a report, and figures that several of its parts need."""

    #: Archived ones too; `read` fills the counters from all runs if there are none, and shortens names. It adds
    #: the column ``group`` to the deployments and the runs: the group of the failure rates, else an empty text.
    deployments: pd.DataFrame
    #: The deployments as they were given.
    given: pd.DataFrame
    runs: pd.DataFrame | None
    #: All runs, for streaks; `runs` if no others were given.
    all_runs: pd.DataFrame | None
    sessions: pd.DataFrame | None
    #: Earlier deployments frames, the oldest first.
    snapshots: Sequence[pd.DataFrame]
    #: What the groups are: ``"agent"``, ``"environment"``, a column, or a key of the metadata, with ``metadata_``
    #: before it if one of these has its name.
    group_word: str
    #: The moment that the report is about, in UTC.
    start: pd.Timestamp
    #: How far it should look ahead.
    horizon: timedelta
    #: The zone that times are shown in.
    tz: str

    @classmethod
    def read(
        cls,
        deployments: pd.DataFrame,
        runs: pd.DataFrame | None,
        sessions: pd.DataFrame | None,
        snapshots: Sequence[pd.DataFrame] | None = None,
        *,
        all_runs: pd.DataFrame | None = None,
        by: str | None = None,
        start: pd.Timestamp,
        horizon: timedelta,
        tz: str,
        labels: Mapping[str, str],
    ) -> ReportData:
        """Check the frames, make names safe, and fill the counters from the runs if there are none."""
        given = require_frame(deployments, _DEPLOYMENT_COLUMNS, what="deployments")
        given = _as_of(given, start).reset_index(drop=True)
        require_unique_deployments(given)
        names = [
            _short(labels.get(identifier) or ("" if pd.isna(name) else name)) or _short(identifier)
            for identifier, name in zip(given["id"], given["name"], strict=True)
        ]
        word, groups = _groups(given, by, labels)
        named = given.assign(name=pd.Series(names, given.index, dtype=TEXT), group=groups)
        if runs is not None:
            runs = require_frame(runs, _RUN_COLUMNS, what="runs", optional=_NEWER_RUN_COLUMNS)
            runs = _with_groups(rows_before(runs.reset_index(drop=True), "triggered_at", start), named)
            if all_runs is None:
                all_runs = runs
            else:
                all_runs = require_frame(all_runs, _RUN_COLUMNS, what="all_runs", optional=_NEWER_RUN_COLUMNS)
                all_runs = rows_before(all_runs, "triggered_at", start)
            if not all_runs.empty:
                named = summaries.fill_counters(named, all_runs)
        elif all_runs is not None:
            raise ValueError("all_runs needs runs: give both")
        if sessions is not None:
            sessions = require_frame(sessions, _SESSION_COLUMNS, what="sessions")
            sessions = rows_before(sessions.reset_index(drop=True), "created_at", start)
        earlier = [frame for frame in require_snapshots(snapshots) if (fetched_at(frame) or start) < start]
        earlier.sort(key=lambda frame: fetched_at(frame) or start)
        return cls(named, given, runs, all_runs, sessions, earlier, word, start, horizon, tz)

    @property
    def frames(self) -> dict[str, pd.DataFrame]:
        """The frames that there are, by name."""
        frames = {"deployments": self.deployments, "runs": self.runs, "sessions": self.sessions}
        return {name: frame for name, frame in frames.items() if frame is not None}

    # -- periods -------------------------------------------------------------------------------------------------

    def within(
        self, frame: pd.DataFrame, column: str, length: timedelta, *, ago: timedelta = _NOTHING
    ) -> pd.DataFrame:
        """Return the rows of a period of a length that ends at the start, or a time before it."""
        until = self.start - ago
        return frame[(frame[column] >= until - length) & (frame[column] < until)]

    def runs_within(self, length: timedelta, *, ago: timedelta = _NOTHING) -> pd.DataFrame:
        """Return the runs of such a period; there must be runs."""
        assert self.runs is not None  # noqa: S101 - for mypy
        return self.within(self.runs, "triggered_at", length, ago=ago)

    def reaches_back(self, times: pd.Series[Any], length: timedelta = 2 * WEEK) -> bool:
        """Return whether the times begin this long before the start, or less than a day later.

        Two weeks are needed to compare the last one with the one before.
        """
        return bool(times.min() < self.start - length + _DAY)

    @cached_property
    def do_runs_reach_back(self) -> bool:
        """Whether there are runs, and `reaches_back` is true for their times."""
        return self.runs is not None and self.reaches_back(self.runs["triggered_at"])

    @cached_property
    def live(self) -> pd.DataFrame:
        """The deployments that are not archived."""
        return self.deployments[self.deployments["archived_at"].isna()]

    @cached_property
    def live_before(self) -> pd.DataFrame:
        """The deployments that were there a week ago, and not archived."""
        then = self.start - WEEK
        all_ = self.deployments
        return all_[~(all_["created_at"] > then) & (all_["archived_at"].isna() | (all_["archived_at"] > then))]

    @cached_property
    def paused_by_error(self) -> pd.DataFrame:
        """The live deployments that the service has paused."""
        return self.live[is_paused_by_error(self.live)]

    @cached_property
    def compared(self) -> Any:  # noqa: ANN401 - a row as a named tuple
        """All runs of the last week against those of the week before; ``None`` without any."""
        if self.runs is None:
            return None
        return first_row(summaries.compare_periods(self.runs, by=None, recent=WEEK, until=self.start))

    @cached_property
    def rates(self) -> Any:  # noqa: ANN401 - a row as a named tuple
        """The failure rate of all runs of the last week; ``None`` without any."""
        return first_row(summaries.run_failure_rates(self.runs_within(WEEK), by=None))

    def rates_by(self, key: str, length: timedelta) -> pd.DataFrame:
        """Return failure rates of the runs of such a period; without runs those of live deployments' counters."""
        if self.runs is None:
            rates = summaries.failure_rates(self.live.assign(deployment_id=self.live["id"]), key)
            return rates.assign(failed=rates["total_failures"], decided=rates["total_runs"])
        rates = summaries.run_failure_rates(self.runs_within(length), key)
        return rates.assign(decided=rates["failed"] + rates["completed"])

    @cached_property
    def has_enough_runs(self) -> bool:
        """Whether enough runs are decided in both weeks, and the runs reach back to the first one."""
        if self.compared is None or not self.do_runs_reach_back:
            return False
        return bool(min(self.compared.recent_decided, self.compared.baseline_decided) >= LEAST_DECIDED)

    @cached_property
    def is_comparable(self) -> bool:
        """Whether there are enough runs, and similar shares of them are assumed in both weeks."""
        return self.has_enough_runs and self.has_similar_outcomes

    @cached_property
    def has_similar_outcomes(self) -> bool:
        """Whether similar shares of the completed runs are assumed in both weeks; else rates are not compared."""
        shares = [_assumed_share(self.runs_within(WEEK, ago=ago)) for ago in (_NOTHING, WEEK)]
        return abs(shares[0] - shares[1]) <= DOUBTFUL

    @cached_property
    def failing_by_counters(self) -> int | None:
        """How many live deployments fail by the service's counters; ``None`` if it gives none."""
        in_a_row = self.live["stats_consecutive_failures"]
        return None if len(in_a_row) and in_a_row.isna().all() else int((in_a_row > 0).sum())

    @cached_property
    def streaks(self) -> pd.DataFrame:
        """The live deployments whose last run failed, paused ones too, as `failing_now` says, longest first."""
        assert self.all_runs is not None  # noqa: S101 - for mypy
        return failing_now(self.all_runs, self.live)

    @cached_property
    def failing_before(self) -> int | None:
        """How many deployments were failing a week ago; ``None`` if the runs do not reach back."""
        if self.all_runs is None or not self.do_runs_reach_back:
            return None
        earlier = self.all_runs[self.all_runs["triggered_at"] < self.start - WEEK]
        then = failing_now(earlier, self.live_before.drop(columns="stats_consecutive_failures"))["deployment_id"]
        # A streak that began before the first run already existed a week ago.
        longer = self.streaks.loc[self.streaks["since"].isna(), "deployment_id"]
        return len({*then, *longer[is_in(longer, self.live_before["id"])]})

    # -- triggers ------------------------------------------------------------------------------------------------

    @cached_property
    def triggers_a_day(self) -> int:
        """The most triggers that the schedules can have in a day."""
        active = self.live[self.live["status"].eq("active")]
        return sum(
            count * _fires_a_day(str(expression))
            for expression, count in active["schedule_expression"].value_counts().items()
        )

    @cached_property
    def longest_span(self) -> timedelta:
        """The longest time whose triggers can be listed, in whole hours, at least one."""
        hours = 24 * MOST_TRIGGERS // max(self.triggers_a_day, 1)
        return _HOUR * min(max(hours, 1), 24 * 366 * 100)

    @property
    def shown_horizon(self) -> timedelta:
        """How far the report looks ahead: the horizon, or less if too much fires."""
        return min(self.horizon, self.longest_span)

    @cached_property
    def week(self) -> pd.DataFrame:
        """What fires in the next seven days, in the horizon if that is longer, or in `longest_span`."""
        span = min(max(self.horizon, WEEK), self.longest_span)
        return next_triggers(self.deployments, span, start=self.start, tz=self.tz)

    @cached_property
    def triggers(self) -> pd.DataFrame:
        """What fires within the horizon."""
        return self.week[self.week["trigger_at"] < self.start + self.shown_horizon]

    @cached_property
    def missed_window(self) -> tuple[pd.Timestamp, pd.Timestamp] | None:
        """The part of the last week whose missed triggers can be known, as far as the runs reach.

        If there is no run at all, it is the last day, as in `check`. There must be a frame of runs.
        """
        assert self.runs is not None  # noqa: S101 - for mypy
        times = self.runs["triggered_at"].dropna()
        newest = self.start if times.empty else times.max()
        until = min(self.start, fetched_at(self.runs) or newest, fetched_at(self.deployments) or self.start)
        since = self.start - min(_DAY, self.longest_span)
        if not times.empty:
            since = max(self.start - WEEK, until - min(WEEK, self.longest_span), times.min())
        return (since, until) if since < until else None

    @cached_property
    def missed(self) -> pd.DataFrame | None:
        """What should have fired in the last week but did not; ``None`` if that is not known."""
        return None if self.missed_window is None else self._missed_within(*self.missed_window)

    @cached_property
    def missed_before(self) -> pd.DataFrame | None:
        """What should have fired a week before `missed` but did not; ``None`` if the runs do not reach back.

        Whether a time before the first run was missed is not known.
        """
        if self.missed_window is None or self.longest_span < 2 * WEEK or not self.do_runs_reach_back:
            return None
        assert self.runs is not None  # noqa: S101 - for mypy
        since, until = self.missed_window
        before = self._missed_within(since - WEEK, until - WEEK)
        return None if (before["scheduled_at"] < self.runs["triggered_at"].min()).any() else before

    def _missed_within(self, since: pd.Timestamp, until: pd.Timestamp) -> pd.DataFrame:
        assert self.runs is not None  # noqa: S101 - for mypy
        return missed_triggers(self.deployments, self.runs, since=since, until=until, snapshots=self.snapshots)

    # -- findings, changes, costs --------------------------------------------------------------------------------

    @cached_property
    def findings(self) -> pd.DataFrame:
        """What `check` finds, the worst first; triggers are missed from the begin of `missed_window` on.

        If the runs do not say when they were read, those after the newest run count here, and not in `missed`.
        """
        window = None if self.runs is None else self.missed_window
        since = _DAY if window is None else min(_DAY, self.start - window[0])
        return check(
            self.deployments,
            self.runs,
            self.sessions,
            all_runs=self.all_runs,
            snapshots=self.snapshots,
            now=self.start,
            since=min(since, self.longest_span),
            tz=self.tz,
        )

    @cached_property
    def before(self) -> pd.DataFrame | None:
        """The last whole snapshot that is a week old at least, else the first one; ``None`` without any."""
        whole = [frame for frame in self.snapshots if {"name", "archived_at"} <= set(frame.columns)]
        old = [frame for frame in whole if (fetched_at(frame) or self.start) <= self.start - WEEK]
        if old:
            return old[-1]
        return whole[0] if whole else None

    @cached_property
    def changes(self) -> pd.DataFrame:
        """What changed since `before`, which there must be."""
        assert self.before is not None  # noqa: S101 - for mypy
        return summaries.changes(*without_unlisted(self.before, self.given))

    @cached_property
    def forecast(self) -> pd.DataFrame:
        """The credits of the next 30 days, by deployment."""
        assert self.sessions is not None  # noqa: S101 - for mypy
        return cost_forecast(self.deployments, self.sessions, _FORECAST_SPAN, start=self.start)

    @cached_property
    def assumed(self) -> int:
        """How many runs count as completed because of their session's state alone."""
        return 0 if self.runs is None else int(is_assumed(self.runs).sum())

    # -- names and times -----------------------------------------------------------------------------------------

    @cached_property
    def _name_of(self) -> dict[str, str]:
        ids = self.deployments["id"].to_list()
        names = dict(zip(ids, make_distinct(self.deployments["name"].to_list(), ids), strict=True))
        if self.before is None:
            return names
        earlier = self.before.loc[~is_in(self.before["id"], self.deployments["id"]), ["id", "name"]].dropna()
        return dict(zip(earlier["id"], earlier["name"].map(_short), strict=True)) | names

    def name(self, identifier: str) -> str:
        """Return a deployment's name, its id if it has none; the beginning of a very long one."""
        return self._name_of.get(identifier) or _short(identifier)

    def deployment(self, identifier: str) -> Deployment:
        """Return what a deployment is called, with its id; there may be none, as of a session of a person."""
        if pd.isna(identifier):
            return Deployment(_("No deployment"), "")
        return Deployment(self.name(identifier), identifier)

    def time_text(self, time: pd.Timestamp | None) -> str:
        """Return an instant as text in the report's zone."""
        return format_time(time, self.tz)

    def age_of(self, frame: pd.DataFrame) -> str | None:
        """Return when a frame was fetched, in words; ``None`` if that is not known."""
        at = fetched_at(frame)
        if at is None:
            return None
        if at > self.start:
            return _("fetched on {time}", time=self.time_text(at))
        return _("fetched {length} before", length=format_duration(self.start - at))


def first_row(frame: pd.DataFrame) -> Any:  # noqa: ANN401 - a row as a named tuple
    """Return the first row of a frame; ``None`` without rows."""
    return next(frame.itertuples(index=False), None)


def span_text(span: timedelta) -> str:
    """Return a span in words: up to two days in hours, as people say it, and whole days in days."""
    hours = span / _HOUR
    if hours in _HOURS_IN_WORDS:
        return ngettext("{count} hour", "{count} hours", int(hours))
    if span >= _DAY and not span % _DAY:
        return ngettext("{count} day", "{count} days", span // _DAY)
    return format_duration(span)


def _short(text: object) -> str:
    return truncate(one_line(str(text)), _NAME_COLUMNS)


def _as_of(deployments: pd.DataFrame, start: pd.Timestamp) -> pd.DataFrame:
    """Return deployments as they were at a time: without later ones, and not archived if that was later."""
    read_at = fetched_at(deployments)
    if read_at is not None and read_at <= start:
        return deployments
    deployments = rows_before(deployments, "created_at", start)
    archived_at, names = deployments["archived_at"], deployments["name"]
    is_later = archived_at > start
    old_names = names.str.replace(ARCHIVED_SUFFIX, "", regex=True)
    return deployments.assign(archived_at=archived_at.mask(is_later), name=names.mask(is_later, old_names))


def _groups(deployments: pd.DataFrame, by: str | None, labels: Mapping[str, str]) -> tuple[str, pd.Series[str]]:
    """Return the kind of group, and the group of each deployment: by default the key ``team``, else the agent."""
    if not isinstance(by, str | None):
        raise TypeError(f"by={by!r}: a report is grouped by one column or one key of metadata; give its name")
    keys = expand_metadata(deployments[["id", "metadata"]]) if "metadata" in deployments else deployments[["id"]]
    names = [str(name).removeprefix("metadata_") for name in keys.columns if str(name).startswith("metadata_")]
    ids = {"agent": "agent_id", "environment": "environment_id"}
    words = {name: word for word, name in ids.items()}
    word = ("team" if "team" in names else "agent") if by is None else words.get(by, by)
    of_ids: pd.Series[str] | None = None
    if by is not None and word not in ids and (by in deployments or by in keys):
        values = (deployments if by in deployments else keys)[by]
        key = word.removeprefix("metadata_")
        word = word if key in ids or key in deployments else key
    elif word in ids and ids[word] in deployments:
        of_ids = deployments[ids[word]].astype(TEXT)
        named = deployments.get(f"{word}_name", of_ids).astype(TEXT).fillna(of_ids)
        values = of_ids.map(labels).fillna(named) if labels else named
    elif word in names:
        values = keys[f"metadata_{word}"]
    elif deployments.empty:
        values = deployments["id"]
    else:
        known = ", ".join([*ids, *map(one_line, names)])
        raise ValueError(
            f"by={by!r} is neither a column nor a key of the deployments' metadata; there are {known}"
        )
    texts = ["" if pd.api.types.is_scalar(value) and pd.isna(value) else _short(value) for value in values]
    if of_ids is not None:
        # Two agents of one name are two groups, as on the command line.
        texts = make_distinct(texts, of_ids.fillna("").to_list())
    return word, pd.Series(texts, deployments.index, dtype=TEXT)


def _with_groups(runs: pd.DataFrame, deployments: pd.DataFrame) -> pd.DataFrame:
    """Add the group of each run's deployment; warn if most runs are of deployments that are not listed."""
    unlisted = int((~is_in(runs["deployment_id"], deployments["id"])).sum())
    if unlisted > len(runs) / 2:
        message = _(
            "{others} of {count} runs are of deployments that are not listed here, and count too",
            others=f"{unlisted:,}",
            count=f"{len(runs):,}",
        )
        warn(message, DataQualityWarning)
    groups = runs["deployment_id"].map(deployments.set_index("id")["group"])
    return runs.assign(group=groups.astype(TEXT).fillna(_("deployments not listed")))


def _assumed_share(runs: pd.DataFrame) -> float:
    """Return which share of the completed runs is assumed to be so."""
    completed = int(runs["status"].eq("completed").sum())
    return int(is_assumed(runs).sum()) / completed if completed else 0.0


def _fires_a_day(expression: str) -> int:
    """Return the most times that a cron text fires in a day; 0 if it cannot be read."""
    try:
        schedule = parse(expression, "UTC")
    except CronError:
        return 0
    return len(schedule.minutes) * len(schedule.hours)
