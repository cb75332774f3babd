"""What a report is made of: the frames, the moment it is about, and how a deployment is called.

Asks the summaries and timelines once for what several sections show.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from qoderdata import times
from qoderdata.report.markup import Markup, element, join
from qoderdata.summaries import failure_rates
from qoderdata.timelines import missed_triggers, next_triggers
from qoderdata.words import duration, moment, one_line, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping

#: How far the load looks ahead, and the missed triggers back.
WEEK = timedelta(days=7)
_NAME_COLUMNS = 80
_HOURS = range(2, 49)


def fetched_at(frame: pd.DataFrame) -> pd.Timestamp | None:
    """Give the time at which a frame was fetched, where it is known."""
    value = frame.attrs.get("fetched_at")
    return None if value is None else times.instant(value, name="fetched_at")


@dataclass(frozen=True)
class Material:
    """What a report is made of.

    Attributes
    ----------
    deployments : pandas.DataFrame
        The deployments, archived ones too.
    runs : pandas.DataFrame or None
        Their runs.
    start : pandas.Timestamp
        The moment that the report is about, in UTC.
    horizon : datetime.timedelta
        How far it looks ahead.
    tz : str
        The zone that times are shown in.
    labels : mapping
        Names by id, which win over the deployments' own.
    """

    deployments: pd.DataFrame
    runs: pd.DataFrame | None
    start: pd.Timestamp
    horizon: timedelta
    tz: str
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def ahead(self) -> str:
        """The horizon in words: up to two days in hours, as people say it."""
        hours = self.horizon / timedelta(hours=1)
        return f"{hours:.0f} hours" if hours in _HOURS else duration(self.horizon)

    @cached_property
    def live(self) -> pd.DataFrame:
        """The deployments that are not archived."""
        return self.deployments[self.deployments["archived_at"].isna()]

    @cached_property
    def rates(self) -> pd.DataFrame:
        """The failure rates of those, one row a deployment."""
        return failure_rates(self.live)

    @cached_property
    def week(self) -> pd.DataFrame:
        """What fires in the next seven days, or in the horizon where that is longer."""
        return next_triggers(self.deployments, max(self.horizon, WEEK), start=self.start, tz=self.tz)

    @cached_property
    def triggers(self) -> pd.DataFrame:
        """What fires within the horizon."""
        return self.week[self.week["trigger_at"] < self.start + self.horizon]

    @cached_property
    def missed_window(self) -> tuple[pd.Timestamp, pd.Timestamp] | None:
        """The time in which missed triggers can be told: the last week, as far as the runs reach."""
        if self.runs is None or self.runs["triggered_at"].isna().all():
            return None
        until = min(self.start, fetched_at(self.runs) or self.runs["triggered_at"].max())
        since = max(until - WEEK, self.runs["triggered_at"].min())
        return (since, until) if since < until else None

    @cached_property
    def missed(self) -> pd.DataFrame | None:
        """What should have fired in `missed_window` but did not; ``None`` where nothing can be told."""
        if self.runs is None or self.missed_window is None:
            return None
        since, until = self.missed_window
        return missed_triggers(self.deployments, self.runs, since=since, until=until)

    @cached_property
    def _names(self) -> dict[str, str]:
        named = self.deployments.dropna(subset=["name"])
        return {**dict(zip(named["id"], named["name"], strict=True)), **self.labels}

    def name(self, identifier: str) -> str:
        """Give a deployment's name, its id where it has none; the beginning of a very long one."""
        return shorten(one_line(self._names.get(identifier) or str(identifier)), _NAME_COLUMNS)

    def who(self, identifier: str) -> Markup:
        """Show a deployment: its name, and its id to find it by."""
        name = element("bdi", self.name(identifier), class_="name")
        return join(name, " ", element("code", str(identifier), class_="id"))

    def time(self, time: Any) -> Markup | str:  # noqa: ANN401 - a pandas time or one of its missing values
        """Show a moment in the report's zone."""
        words = moment(time, self.tz)
        return words if pd.isna(time) else element("time", words, datetime=pd.Timestamp(time).isoformat())
