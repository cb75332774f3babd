"""Tests of `next_triggers` by brute force: random schedules in all IANA zones, checked minute by minute.

The brute force does not parse cron texts and shares no code with the package: each schedule is drawn as sets of
numbers, its text is written from them, and the local time of each minute is looked up in the sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import pandas as pd
import pytest

from qoderdata.timelines import next_triggers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

ZONES = sorted(available_timezones() - {"localtime", "Factory"})
SCHEDULES_IN_A_ZONE = 4
PARTS = 12
MINUTES = 60 * 24 * 2
NAMES = {
    "month": ["", "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    "weekday": ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"],
}


@dataclass(frozen=True)
class Field:
    """The text of a cron field, and the numbers that it matches."""

    text: str
    numbers: frozenset[int]

    @property
    def restricted(self) -> bool:
        return not self.text.startswith("*")


def random_field(random: Random, least: int, largest: int, *, kind: str = "", star: float = 0.3) -> Field:
    """Draw the numbers of a cron field, and a text that matches them."""
    if random.random() < star:
        step = random.choice([1, 1, 1, 2, 3, 5, 7, 15])
        every = frozenset(range(least, largest + 1, step))
        return Field("*" if step == 1 else f"*/{step}", every)
    texts, values = [], set[int]()
    for _ in range(random.choice([1, 1, 2, 3])):
        first, last = sorted(random.choices(range(least, largest + 1), k=2))
        step = random.randint(1, 6)
        names = NAMES.get(kind)
        word = names.__getitem__ if names and random.random() < 0.4 and (kind, last) != ("weekday", 7) else str
        forms: list[tuple[str, Iterable[int]]] = [
            (word(first), [first]),
            (f"{word(first)}-{word(last)}", range(first, last + 1)),
            (f"{word(first)}-{word(last)}/{step}", range(first, last + 1, step)),
            (f"{word(first)}/{step}", range(first, largest + 1, step)),
        ]
        text, numbers = random.choice(forms)
        texts.append(random.choice([text, text.lower(), text.title()]))
        values.update(numbers)
    return Field(",".join(texts), frozenset(values))


@dataclass(frozen=True)
class RandomSchedule:
    """A schedule as the numbers that its fields match."""

    minute: Field
    hour: Field
    day: Field
    month: Field
    weekday: Field

    @classmethod
    def make(cls, random: Random, start: datetime) -> RandomSchedule:
        """Draw a schedule; most fire from 0:00 to 3:59 only, and all fire in the month of `start`."""
        hour = random_field(random, 0, 23) if random.random() < 0.4 else random_field(random, 0, 3, star=0)
        # "first/step" was drawn for the hours 0 to 3, but means up to hour 23, so list the numbers instead.
        if "/" in hour.text and hour.restricted:
            hour = Field(",".join(map(str, sorted(hour.numbers))), hour.numbers)
        month = Field("*", frozenset(range(1, 13)))
        if random.random() < 0.3:
            month = random_field(random, 1, 12, kind="month")
        if start.month not in month.numbers:
            month = Field(f"{month.text},{start.month}", month.numbers | {start.month})
        return cls(
            minute=random_field(random, 0, 59),
            hour=hour,
            day=random_field(random, 1, 31, star=0.75),
            month=month,
            weekday=random_field(random, 0, 7, kind="weekday", star=0.7),
        )

    @property
    def text(self) -> str:
        return " ".join(part.text for part in (self.minute, self.hour, self.day, self.month, self.weekday))

    def matches(self, clock: dict[str, NDArray[np.int64]]) -> NDArray[np.bool_]:
        """Return which local minutes the schedule matches."""
        on_day = np.isin(clock["day"], list(self.day.numbers))
        on_weekday = np.isin(clock["weekday"], [value % 7 for value in self.weekday.numbers])
        both = self.day.restricted and self.weekday.restricted
        found: NDArray[np.bool_] = (on_day | on_weekday) if both else (on_day & on_weekday)
        for name in ("minute", "hour", "month"):
            found &= np.isin(clock[name], list(getattr(self, name).numbers))
        return found


def local_parts(local: NDArray[np.datetime64]) -> dict[str, NDArray[np.int64]]:
    at = pd.DatetimeIndex(local)
    parts = {name: getattr(at, name).to_numpy() for name in ("minute", "hour", "day", "month")}
    return {**parts, "weekday": (at.day_of_week.to_numpy() + 1) % 7}


def random_start(random: Random, zone: ZoneInfo) -> datetime:
    """Draw the start of a window around a clock change of a year from 1975 to 2060, if the zone has one."""
    first = datetime(random.randint(1975, 2060), 1, 1, tzinfo=UTC)
    days = [first + timedelta(days=day) for day in range(366)]
    offsets = [day.astimezone(zone).utcoffset() for day in days]
    changes = [day for day in range(1, 366) if offsets[day] != offsets[day - 1]]
    day = random.choice(changes) if changes and random.random() < 0.85 else random.randrange(366)
    return days[day] - timedelta(minutes=random.randint(60 * 24, 60 * 24 * 2))


def offsets_of_every_minute(zone: ZoneInfo, start: datetime) -> NDArray[np.timedelta64]:
    """Return the UTC offset of each minute; look all 60 up only in hours whose first and last offsets differ."""

    def offset_at(minute: int) -> int:
        offset = (start + timedelta(minutes=minute)).astimezone(zone).utcoffset()
        return (offset or timedelta()) // timedelta(microseconds=1)

    offsets: list[int] = []
    for begin in range(0, MINUTES, 60):
        first = offset_at(begin)
        offsets += [first] * 60 if offset_at(begin + 59) == first else map(offset_at, range(begin, begin + 60))
    return np.array(offsets).astype("timedelta64[us]")


ROWS = [f"dep_{number:02d}" for number in range(SCHEDULES_IN_A_ZONE)]
DEPLOYMENTS = pd.DataFrame(
    {
        "id": ROWS,
        "name": ROWS,
        "agent_id": "agent",
        "environment_id": "env",
        "status": "active",
        "archived_at": pd.Series([pd.NaT] * len(ROWS), dtype="datetime64[us, UTC]"),
        "schedule_upcoming_runs_at": pd.Series([None] * len(ROWS), dtype=object),
    }
)


def deployments(schedules: list[RandomSchedule], timezone: str) -> pd.DataFrame:
    texts = [schedule.text for schedule in schedules]
    return DEPLOYMENTS.assign(schedule_expression=texts, schedule_timezone=timezone)


def test_at_least_2000_schedules_and_all_special_zones_are_tested() -> None:
    assert len(ZONES) * SCHEDULES_IN_A_ZONE >= 2000
    assert {"Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia", "America/Santiago", "UTC"} <= set(ZONES)


@pytest.mark.parametrize("part", range(PARTS))
def test_triggers_equal_brute_force_over_each_minute(part: int) -> None:
    fired = 0
    for timezone in ZONES[part::PARTS]:
        random = Random(timezone)  # noqa: S311 nothing secret
        zone = ZoneInfo(timezone)
        start = random_start(random, zone).replace(second=0)
        schedules = [RandomSchedule.make(random, start) for _ in range(SCHEDULES_IN_A_ZONE)]
        utc = np.datetime64(start.replace(tzinfo=None), "us") + np.arange(MINUTES) * np.timedelta64(1, "m")
        local = utc + offsets_of_every_minute(zone, start)
        triggers = next_triggers(deployments(schedules, timezone), timedelta(minutes=MINUTES), start=start)
        ids, local_clock = triggers["deployment_id"].to_numpy(), local_parts(local)
        found, found_local = (triggers[name].to_numpy("datetime64[us]") for name in ("trigger_at", "local_time"))
        for number, schedule in enumerate(schedules):
            of_this = ids == f"dep_{number:02d}"
            expected = schedule.matches(local_clock)
            context = f"{schedule.text!r} in {timezone} from {start}"
            assert np.array_equal(found[of_this], utc[expected]), context
            assert np.array_equal(found_local[of_this], local[expected]), context
            fired += int(expected.sum())
    assert fired > 2000, "too few triggers were compared"
