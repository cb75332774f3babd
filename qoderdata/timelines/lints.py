"""Describe schedules in words, and list what about them may surprise their owner.

A lint is a hint, not an error: most of these schedules are valid.
"""

from __future__ import annotations

import re
from datetime import MAXYEAR, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from qoderdata.arguments import Instant, parse_instant
from qoderdata.cron import (
    DAY,
    EPOCH,
    FIELDS,
    CronError,
    CronField,
    NeverFiresError,
    Schedule,
    days_in_month,
    describe_days,
    describe_months,
    describe_numbers,
    join_words,
    offset_segments,
    parse,
    split_fields,
    whole_seconds,
)
from qoderdata.frame_checks import TEXT, require_frame
from qoderdata.timelines.distinct_schedules import DistinctSchedules
from qoderdata.translation import gettext as _
from qoderdata.translation import ngettext

if TYPE_CHECKING:
    from collections.abc import Iterator

_COLUMNS = ("id", "name", "archived_at", "schedule_expression", "schedule_timezone")
_YEAR = 366 * DAY
_HOUR, _MINUTE = 3600, 60
_MOST_LISTED = 4
_OPEN_STEP = re.compile(r"(?:\*|[0-9A-Z]+)/(?P<step>[0-9]+)")
#: The number of values of each field, after which it starts again; the days of a month have no fixed number.
_CYCLES = {"minute": 60, "hour": 24, "month": 12, "day of week": 7}
_ETC_ZONE = re.compile(r"Etc/GMT(?P<sign>[+-])(?P<hours>[1-9][0-9]?)")
_EVERY_DAY, _LEAP_DAY = 31, 29


def describe_schedule(expression: str, timezone: str) -> str:
    """Return in plain English when a cron text fires.

    Parameters
    ----------
    expression
        The cron text.
    timezone
        The IANA name of its zone.

    Returns
    -------
    str
        Time of day, days and zone.

    Raises
    ------
    ValueError
        The text cannot be read or never fires, or there is no such zone.

    Examples
    --------
    >>> import qoderdata as qd
    >>> qd.describe_schedule("0 9 * * 1-5", "Asia/Shanghai")
    'at 09:00, Monday to Friday, Asia/Shanghai'
    """
    return parse(expression, timezone).describe()


def schedule_lints(df: pd.DataFrame, *, start: Instant | None = None) -> pd.DataFrame:
    """Return what may surprise about the schedules of a frame.

    Parameters
    ----------
    df
        A deployments frame. Archived and manual-only deployments are left out, paused ones are not.
    start
        The beginning of the year whose clock changes count, zone-aware; ``None`` is now.

    Returns
    -------
    pandas.DataFrame
        One row per finding, in order of ``df``: ``deployment_id``, ``name``, ``lint``, ``detail`` (a sentence),
        all ``str``. Nothing found: no rows, same columns and dtypes.

        ==================== ===================================================================================
        ``unreadable``       the cron text or the zone cannot be read, or it has none, as its type is another than
                             cron
        ``never_fires``      none of its months has such a day, or clock changes skip its only local times
        ``dst_gap``          a clock change skips a time of it, which will not fire
        ``dst_repeat``       a clock change repeats a time of it, which will fire twice
        ``both_day_fields``  day of month and day of week are both set: either is enough, or both must match
        ``uneven_step``      a step, written as ``*/7`` or ``a/7``, that does not divide its field: it starts again
                             at the end of the field, so that the last interval is shorter
        ``skips_months``     days 29 to 31, which not every month has
        ``inverted_zone``    a zone such as ``Etc/GMT+8``, which is *behind* UTC
        ==================== ===================================================================================

        A clock change is no finding if the schedule goes on as before, such as every hour.

    Raises
    ------
    ValueError
        ``start`` is not a time, has no zone, or lies in the last year of the calendar, 9999.
    FrameTypeError
        Not a pandas frame, or a column that has lost its dtype; the message says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.

    Examples
    --------
    >>> import qoderdata as qd
    >>> df = qd.flatten_deployments([
    ...     {"id": "dep_1", "name": "report", "schedule": {"expression": "0 */7 * * *", "timezone": "Asia/Tokyo"}}
    ... ])
    >>> qd.schedule_lints(df, start="2026-06-15T00:00Z")[["deployment_id", "lint"]]
      deployment_id         lint
    0         dep_1  uneven_step
    """
    df = require_frame(df, _COLUMNS, what="deployments", optional=["schedule_type"])
    begin = parse_instant(pd.Timestamp.now("UTC") if start is None else start, name="start").to_pydatetime()
    if begin.year == MAXYEAR:
        raise ValueError(f"the schedules of the year after {begin:%Y-%m-%d} reach beyond the year {MAXYEAR}")
    distinct = DistinctSchedules.parse(df)
    rows = np.flatnonzero(df["archived_at"].isna().to_numpy() & (distinct.of_row >= 0))
    of_row = distinct.of_row[rows]
    findings = {
        number: list(_findings(distinct.schedules[number], whole_seconds(begin)))
        for number in np.unique(of_row).tolist()
    }
    deployments = zip(df["id"].iloc[rows], df["name"].iloc[rows], of_row.tolist(), strict=True)
    found = [(id_, name, *finding) for id_, name, number in deployments for finding in findings[number]]
    return pd.DataFrame(found, columns=["deployment_id", "name", "lint", "detail"]).astype(TEXT)


def _findings(schedule: Schedule | CronError, begin: int) -> Iterator[tuple[str, str]]:
    """Yield each lint of a schedule with its detail, the worst first; only its error if it cannot be parsed."""
    if isinstance(schedule, NeverFiresError):
        yield "never_fires", schedule.reason
        return
    if isinstance(schedule, CronError):
        yield "unreadable", str(schedule)
        return
    if next(schedule.following(EPOCH + timedelta(seconds=begin)), None) is None:
        detail = _("clock changes in {zone} skip every local time that it has", zone=schedule.timezone)
        yield "never_fires", detail
    yield from _clock_changes(schedule, begin)
    texts = split_fields(schedule.expression)
    day, weekday = texts[2], texts[4]
    if day != "*" and weekday != "*":
        days = describe_days(schedule) or _("every day")
        if schedule.either_day:
            detail = _("both day fields are restricted, and either is enough: {days}", days=days)
        else:
            detail = _("a day field that begins with * is not restricted, so both must match: {days}", days=days)
        yield "both_day_fields", detail
    numbers = (schedule.minutes, schedule.hours, schedule.days, schedule.months, schedule.weekdays)
    for text, values, field in zip(texts, numbers, FIELDS, strict=True):
        yield from _uneven_step(text, values, field)
    if not day.startswith("*"):
        yield from _skipped_months(schedule)
    if inverted := _ETC_ZONE.fullmatch(schedule.timezone):
        zone, hours = schedule.timezone, int(inverted["hours"])
        if inverted["sign"] == "+":
            detail = ngettext(
                "{zone} is {count} hour behind UTC: its sign is inverted",
                "{zone} is {count} hours behind UTC: its sign is inverted", hours, zone=zone,
            )  # fmt: skip
        else:
            detail = ngettext(
                "{zone} is {count} hour ahead of UTC: its sign is inverted",
                "{zone} is {count} hours ahead of UTC: its sign is inverted", hours, zone=zone,
            )  # fmt: skip
        yield "inverted_zone", detail


def _clock_changes(schedule: Schedule, begin: int) -> Iterator[tuple[str, str]]:
    """Yield the first skipped and the first repeated times of the year."""
    seen = set()
    for before, after in pairwise(offset_segments(schedule.timezone, begin, begin + _YEAR)):
        shift = after.offset - before.offset
        edges = sorted((after.begin + before.offset, after.begin + after.offset))
        at = schedule.wall_times(*edges)
        lint = "dst_gap" if shift > 0 else "dst_repeat"
        if not at.size or lint in seen or _keeps_its_intervals(schedule, shift):
            continue
        seen.add(lint)
        clock = [f"{second // _HOUR % 24:02d}:{second // _MINUTE % 60:02d}" for second in at.tolist()]
        times = join_words(clock)
        if len(clock) > _MOST_LISTED:
            times = _("{first} to {last} ({count} times)", first=clock[0], last=clock[-1], count=len(clock))
        day = f"{EPOCH + timedelta(seconds=int(at[0])):%Y-%m-%d}"
        facts = {"times": times, "day": day, "zone": schedule.timezone}
        if shift > 0:
            detail = ngettext(
                "{times} does not exist on {day} in {zone}: it will not fire then",
                "{times} do not exist on {day} in {zone}: it will not fire then", len(clock), **facts,
            )  # fmt: skip
        else:
            detail = ngettext(
                "{times} occurs twice on {day} in {zone}: it will fire twice",
                "{times} occur twice on {day} in {zone}: it will fire twice", len(clock), **facts,
            )  # fmt: skip
        yield lint, detail


def _keeps_its_intervals(schedule: Schedule, shift: int) -> bool:
    """Return whether a schedule fires at the same intervals across a clock change, such as every hour."""
    day = {hour * _HOUR + minute * _MINUTE for hour in schedule.hours for minute in schedule.minutes}
    return day == {(second + shift) % DAY for second in day}


def _uneven_step(text: str, values: tuple[int, ...], field: CronField) -> Iterator[tuple[str, str]]:
    match = _OPEN_STEP.fullmatch(text)
    if match is None or (step := int(match["step"])) == 1:
        return
    if field.name not in _CYCLES:
        if len(values) > 1:
            days = describe_numbers(values)
            detail = _(
                "{text} is days {days}: it starts again each month, so the last gap is different",
                text=text,
                days=days,
            )
            yield "uneven_step", detail
        return
    for earlier, later in pairwise((*values, values[0] + _CYCLES[field.name])):
        if later - earlier != step:
            detail = _(
                "{text} is {field} {numbers}: from {earlier} to {later} it is {gap} and not {step}",
                text=text,
                field=_(field.name),
                numbers=describe_numbers(values),
                earlier=earlier,
                later=later % _CYCLES[field.name],
                gap=later - earlier,
                step=step,
            )
            yield "uneven_step", detail
            return


def _skipped_months(schedule: Schedule) -> Iterator[tuple[str, str]]:
    if len(schedule.days) == _EVERY_DAY:
        return
    parts = []
    for day in schedule.days:
        without = [month for month in schedule.months if days_in_month(month) < day]
        if without and day == _LEAP_DAY:
            parts.append(_("there is a day 29 in February in leap years only"))
        elif without:
            parts.append(_("there is no day {day} in {months}", day=day, months=describe_months(without)))
    if parts:
        yield "skips_months", _("; ").join(parts)
