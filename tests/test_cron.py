"""Tests of `cron`: valid and invalid cron texts, fire times, clock changes, and descriptions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from croniter import croniter
from cronsim import CronSim

from qoderdata.cron import CronError, Schedule, parse


def table(text: str) -> list[list[str]]:
    """Split lines into cells at ``|``."""
    return [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]


def fire_times(schedule: Schedule, start: str, end: str) -> list[str]:
    """Return the fire times from `start` to `end` in UTC, to the minute."""
    at = schedule.instants(datetime.fromisoformat(start + "T00:00Z"), datetime.fromisoformat(end + "T00:00Z"))
    return [str(one)[:16].replace("T", " ") for one in at]


FIELD_VALUES = table("""
    minutes | *                    | 0-59
    minutes | */20                 | 0 20 40
    minutes | 5/20                 | 5 25 45
    minutes | 5-45/20              | 5 25 45
    minutes | 5-5/20               | 5
    minutes | 10-12,3,11           | 3 10 11 12
    minutes | */100                | 0
    minutes | 05,007               | 5 7
    hours   | 9-17/4               | 9 13 17
    days    | */10                 | 1 11 21 31
    months  | JAN,mar,Dec          | 1 3 12
    months  | feb-APR              | 2 3 4
    months  | JUN/3                | 6 9 12
    months  | OCT-12               | 10 11 12
    weekdays| 0                    | 0
    weekdays| 7                    | 0
    weekdays| SUN,mon              | 0 1
    weekdays| 5-7                  | 0 5 6
    weekdays| 0-7                  | 0-6
    weekdays| */2                  | 0 2 4 6
    weekdays| 1/2                  | 0 1 3 5
    weekdays| Mon-fri              | 1 2 3 4 5
""")


@pytest.mark.parametrize(
    ("name", "text", "expected"), FIELD_VALUES, ids=[" ".join(row[:2]) for row in FIELD_VALUES]
)
def test_numbers_that_a_field_matches(name: str, text: str, expected: str) -> None:
    """`5-5/20` is one minute, though other parsers read it as `5/20`; Sunday is 0 and 7."""
    position = ["minutes", "hours", "days", "months", "weekdays"].index(name)
    schedule = parse(" ".join([*["*"] * position, text, *["*"] * (4 - position)]), "UTC")
    first, _, last = expected.partition("-")
    numbers = range(int(first), int(last) + 1) if last else map(int, expected.split())
    assert getattr(schedule, name) == tuple(numbers)


INVALID = [
    "", " ", "* * * *", "* * * * * *", "@daily",
    "? * * * *", "0 0 L * *", "0 0 15W * *", "0 0 LW * *", "0 0 * * 5L",
    "0 0 * * 5#2", "60 * * * *", "0 24 * * *", "0 0 0 * *", "0 0 32 * *", "0 0 * 0 *", "0 0 * 13 *", "0 0 * * 8",
    "-1 * * * *", "5- * * * *", "-5 * * * *", "1-2-3 * * * *", "*/0 * * * *", "*/ * * * *", "/5 * * * *",
    "1/2/3 * * * *", "*/-5 * * * *", "5,, * * * *", ",5 * * * *", "5, * * * *", "10-5 * * * *", "0 22-2 * * *",
    "0 0 * * FRI-MON", "0 0 * * SAT-SUN", "0 0 * NOV-FEB *", "JAN * * * *", "0 0 * MON *", "0 0 * * JAN",
    "0 0 * JANUARY *", "0 0 * * MO", "1.5 * * * *", "+5 * * * *", "** * * * *", "*5 * * * *", "5* * * * *",
    "1e1 * * * *", "0x5 * * * *", "\u0665 * * * *", "0 0 * * \u017fun", "0\u00a00 * * *", "0 9 * * 1-5\n",
    "0 9 * * *\x00",
    "0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 30,31 FEB *", "0 0 31 4 */2", "9" * 5000 + " * * * *", "*" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("expression", INVALID, ids=lambda text: ascii(text[:24]))
def test_invalid_cron_texts_are_refused(expression: str) -> None:
    """Extensions, wrapping ranges, digits and letters of other alphabets, and texts that never fire."""
    with pytest.raises(CronError) as caught:
        parse(expression, "UTC")
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("expression", [None, 5, float("nan"), b"* * * * *"])
def test_expressions_that_are_not_str_are_refused(expression: object) -> None:
    with pytest.raises(CronError, match="not a cron text"):
        parse(expression, "UTC")


INVALID_ZONES = [
    "", "Mars/Olympus", "America", "../etc/passwd", "/etc/localtime", "Asia/Shanghai\x00", "\udc80", "UTC+8",
    "localtime", "posixrules", "posix/UTC", "right/UTC", "Factory", None, 8, "x" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("timezone", INVALID_ZONES, ids=lambda zone: ascii(str(zone)[:24]))
def test_invalid_zones_are_refused(timezone: str) -> None:
    """Other files in the zone folder are refused too: the local zone, and zones that count leap seconds."""
    with pytest.raises(CronError, match="not an IANA time zone") as caught:
        parse("* * * * *", timezone)
    assert len(str(caught.value)) < 200


def test_schedules_are_immutable_and_compared_by_value() -> None:
    schedule = parse("0 9 * * *", "Asia/Shanghai")
    assert schedule == parse("0 9 * * *", "Asia/Shanghai")
    assert schedule != parse("0 9 * * *", "Asia/Tokyo")
    assert len({schedule, parse("0 9 * * *", "Asia/Shanghai")}) == 1
    assert (schedule.expression, schedule.timezone) == ("0 9 * * *", "Asia/Shanghai")
    with pytest.raises(AttributeError):
        schedule.minutes = (5,)  # type: ignore[misc]


DAY_RULES = table("""
    0 0 13 * 5      | 2026-11-01 | 2026-12-01 | 06 13 20 27           | both day fields restricted: either matches
    0 0 1,2 * MON   | 2026-11-01 | 2026-11-12 | 01 02 09              | a day that both day fields match fires once
    0 0 */2 * MON   | 2026-11-01 | 2026-12-01 | 09 23                 | a field that begins with * is unrestricted
    0 0 13 * */2    | 2026-10-01 | 2026-12-31 | 13 13                 | a weekday field that begins with * too
    0 0 *,5 * MON   | 2026-11-01 | 2026-11-20 | 02 09 16              | * as the first item of a list
    0 0 1-31 * MON  | 2026-11-01 | 2026-11-05 | 01 02 03 04           | 1-31 is restricted, unlike *
    0 0 31 * *      | 2026-01-01 | 2026-07-01 | 31 31 31              | months without a 31st are skipped
    0 0 29 2 *      | 2026-01-01 | 2033-01-01 | 29 29                 | leap years only
    0 0 31 2 MON    | 2026-02-01 | 2026-03-01 | 02 09 16 23           | day 31 never occurs, Mondays do
    0 0 29 2 */7    | 2026-01-01 | 2061-01-01 | 29 29                 | 29 February on a Sunday: 2032 and 2060
    0 0 * * 7       | 2026-11-01 | 2026-11-10 | 01 08                 | 7 is Sunday
""")


@pytest.mark.parametrize(
    ("expression", "start", "end", "days", "reason"), DAY_RULES, ids=[f"{row[0]}: {row[4]}" for row in DAY_RULES]
)
def test_days_on_which_a_schedule_fires(expression: str, start: str, end: str, days: str, reason: str) -> None:
    found = fire_times(parse(expression, "UTC"), start, end)
    assert [at[8:10] for at in found] == days.split(), reason


CLOCK_CHANGES = table("""
    30 2 * * *   | Europe/Berlin       | 2026-03-28 | 2026-03-31 | 28 01:30, 30 00:30           | skipped hour
    30 2 * * *   | Europe/Berlin       | 2026-10-24 | 2026-10-26 | 24 00:30, 25 00:30, 25 01:30 | repeated hour
    0 1-4 * * *  | Europe/Berlin       | 2026-03-29 | 2026-03-30 | 29 00:00, 29 01:00, 29 02:00, 29 23:00 | no 02
    0 3 * * *    | Europe/Berlin       | 2026-10-24 | 2026-10-26 | 24 01:00, 25 02:00           | not repeated
    30 2 * * *   | America/New_York    | 2026-03-07 | 2026-03-10 | 07 07:30, 09 06:30           | skipped hour
    30 1 * * *   | America/New_York    | 2026-11-01 | 2026-11-02 | 01 05:30, 01 06:30           | repeated hour
    15 2 * * *   | Australia/Lord_Howe | 2026-10-02 | 2026-10-05 | 02 15:45, 04 15:15           | skipped
    45 2 * * *   | Australia/Lord_Howe | 2026-10-02 | 2026-10-05 | 02 16:15, 03 15:45, 04 15:45 | not skipped
    45 1 * * *   | Australia/Lord_Howe | 2026-04-03 | 2026-04-05 | 03 14:45, 04 14:45, 04 15:15 | repeated
    15 1 * * *   | Australia/Lord_Howe | 2026-04-03 | 2026-04-05 | 03 14:15, 04 14:15           | not repeated
    0 0 * * *    | America/Santiago    | 2026-09-05 | 2026-09-08 | 05 04:00, 07 03:00           | midnight skipped
    30 23 * * *  | America/Santiago    | 2026-04-04 | 2026-04-06 | 04 02:30, 05 02:30, 05 03:30 | repeated hour
    0 0 * * *    | Asia/Beirut         | 2026-03-27 | 2026-03-30 | 27 22:00, 29 21:00           | midnight skipped
    0 0 * * FRI  | Africa/Cairo        | 2026-04-16 | 2026-05-02 | 16 22:00, 30 21:00           | midnight skipped
    30 2 * * *   | Africa/Casablanca   | 2026-02-14 | 2026-02-16 | 14 01:30, 15 01:30, 15 02:30 | Ramadan begins
    30 2 * * *   | Africa/Casablanca   | 2026-03-21 | 2026-03-24 | 21 02:30, 23 01:30           | Ramadan ends
    30 1 * * *   | Europe/Dublin       | 2026-10-24 | 2026-10-26 | 24 00:30, 25 00:30, 25 01:30 | winter is DST
    0 12 * * *   | Pacific/Apia        | 2011-12-28 | 2012-01-01 | 28 22:00, 29 22:00, 30 22:00, 31 22:00 | no 30th
    0 12 30 12 * | Pacific/Apia        | 2011-12-01 | 2012-01-01 |                              | skipped day
    0 6 * * *    | Pacific/Kwajalein   | 1993-08-19 | 1993-08-23 | 19 18:00, 20 18:00, 21 18:00, 22 18:00 | no 21st
    30 1,2 * * * | Antarctica/Troll    | 2026-03-29 | 2026-03-30 | 29 23:30                     | two skipped hours
    45 2 * * *   | America/Caracas     | 2016-04-30 | 2016-05-03 | 30 07:15, 02 06:45           | offset changed
    45 23 * * *  | Asia/Pyongyang      | 2015-08-14 | 2015-08-15 | 14 14:45, 14 15:15           | offset changed
    30 2 * * *   | Asia/Shanghai       | 2026-03-28 | 2026-03-30 | 28 18:30, 29 18:30           | no change
    0 9 * * *    | Asia/Kathmandu      | 2026-06-15 | 2026-06-16 | 15 03:15                     | offset +05:45
""")  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "timezone", "start", "end", "expected", "reason"),
    CLOCK_CHANGES,
    ids=[" ".join(row[:2]) for row in CLOCK_CHANGES],
)
def test_fire_times_around_clock_changes(  # noqa: PLR0917 one column of the table each
    expression: str, timezone: str, start: str, end: str, expected: str, reason: str
) -> None:
    """A skipped local time does not fire; one that occurs twice fires twice."""
    found = [at[8:] for at in fire_times(parse(expression, timezone), start, end)]
    assert ", ".join(found) == expected, reason


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2026-06-15T09:00:00+00:00", "2026-06-15T09:02:00+00:00", ["09:00", "09:01"]),
        ("2026-06-15T09:00:00.000001+00:00", "2026-06-15T09:02:00.000001+00:00", ["09:01", "09:02"]),
        ("2026-06-15T17:00:00+08:00", "2026-06-15T09:01:00+00:00", ["09:00"]),
        ("2026-06-15T09:00:00+00:00", "2026-06-15T09:00:00+00:00", []),
        ("2026-06-15T09:00:00+00:00", "2026-06-15T08:00:00+00:00", []),
    ],
)
def test_bounds_of_instants_are_half_open(start: str, end: str, expected: list[str]) -> None:
    at = parse("* * * * *", "UTC").instants(datetime.fromisoformat(start), datetime.fromisoformat(end))
    assert at.dtype == np.dtype("datetime64[s]")
    assert [str(one)[11:16] for one in at] == expected


def test_a_time_without_a_zone_is_refused() -> None:
    naive = datetime(2026, 6, 15)  # noqa: DTZ001 a naive time is what is tested
    with pytest.raises(ValueError, match="no time zone"):
        parse("* * * * *", "UTC").instants(naive, naive)
    with pytest.raises(ValueError, match="no time zone"):
        next(parse("* * * * *", "UTC").following(naive))


def test_following_yields_times_strictly_after_the_given_time() -> None:
    following = parse("0 9 * * *", "Asia/Shanghai").following(datetime(2026, 6, 15, 1, tzinfo=UTC))
    found = list(islice(following, 1000))
    assert found[0] == datetime(2026, 6, 16, 1, tzinfo=UTC)
    assert found == [found[0] + timedelta(days=day) for day in range(1000)]
    assert all(at.tzinfo is UTC for at in found)


def test_following_yields_the_next_minute() -> None:
    just_before = datetime(2026, 6, 15, 0, 59, 59, 999_999, tzinfo=UTC)
    assert next(parse("0 1 * * *", "UTC").following(just_before)) == datetime(2026, 6, 15, 1, tzinfo=UTC)


def test_following_finds_rare_times_and_ends_where_there_are_none() -> None:
    """New York's clocks skip 02:30 on the second Sunday in March, each year."""
    after = datetime(2026, 6, 15, tzinfo=UTC)
    leap_sundays = islice(parse("0 0 29 2 */7", "UTC").following(after), 4)
    assert [at.year for at in leap_sundays] == [2032, 2060, 2088, 2128]
    assert list(parse("30 2 8-14 3 */7", "America/New_York").following(after)) == []


def test_following_ends_on_29_december_9999() -> None:
    late = datetime(9999, 12, 28, tzinfo=UTC)
    assert list(parse("0 12 * * *", "UTC").following(late))[-1] == datetime(9999, 12, 29, 12, tzinfo=UTC)


def test_following_and_instants_agree() -> None:
    for expression, timezone in [("*/20 1-3 * * *", "Europe/Berlin"), ("0 0 1,15 * MON", "Australia/Lord_Howe")]:
        schedule = parse(expression, timezone)
        start = datetime(2026, 2, 1, tzinfo=UTC)
        end = start + timedelta(days=300)
        by_one = []
        for at in schedule.following(start - timedelta(microseconds=1)):
            if at >= end:
                break
            by_one.append(at.replace(tzinfo=None))
        assert np.array_equal(schedule.instants(start, end), np.array(by_one, dtype="datetime64[s]"))


def random_cron(random: Random) -> str:
    """Draw a cron text that all parsers read alike: without steps of ``*`` in the day fields."""

    def field(least: int, largest: int, *, steps: bool = True) -> str:
        kind = random.randrange(6)
        first, last = sorted(random.sample(range(least, largest + 1), 2))
        if kind == 0:
            return "*"
        if kind == 1 and steps:
            return f"*/{random.randint(1, largest)}"
        if kind == 2:
            return f"{first}-{last}" + (f"/{random.randint(1, 9)}" if steps else "")
        return ",".join(str(random.randint(least, largest)) for _ in range(random.randint(1, 4)))

    return " ".join([
        field(0, 59), field(0, 23), field(1, 28, steps=False), field(1, 12), field(0, 6, steps=False),
    ])  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_fire_times_equal_croniter_in_zones_without_dst(seed: int) -> None:
    random = Random(seed)  # noqa: S311 nothing secret
    for _ in range(60):
        expression, timezone = (
            random_cron(random),
            random.choice(["UTC", "Asia/Shanghai", "Asia/Kolkata", "America/Lima"]),
        )
        start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=random.randrange(2_000_000))
        iterator = croniter(expression, start.astimezone(ZoneInfo(timezone)), ret_type=datetime)
        expected = [iterator.get_next().astimezone(UTC) for _ in range(20)]
        assert list(islice(parse(expression, timezone).following(start), 20)) == expected, (expression, timezone)


@pytest.mark.parametrize("seed", range(4))
def test_fire_times_equal_cronsim_in_local_time(seed: int) -> None:
    """Cronsim handles clock changes differently, so it gets naive times; skipped local times are dropped."""
    random = Random(seed)  # noqa: S311 nothing secret
    zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "America/Santiago"]
    for _ in range(40):
        expression, timezone = random_cron(random), random.choice(zones)
        zone = ZoneInfo(timezone)
        start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=random.randrange(1000))
        end = start + timedelta(days=40)
        expected = set()
        local_end = end.replace(tzinfo=None) + timedelta(days=2)
        for local in CronSim(expression, start.replace(tzinfo=None) - timedelta(days=2)):
            if local > local_end:
                break
            for fold in (0, 1):
                at = local.replace(tzinfo=zone, fold=fold).astimezone(UTC)
                if at.astimezone(zone).replace(tzinfo=None) == local and start <= at < end:
                    expected.add(at.replace(tzinfo=None))
        found = parse(expression, timezone).instants(start, end)
        assert np.array_equal(found, np.array(sorted(expected), dtype="datetime64[s]")), (
            expression,
            timezone,
            start,
        )


DESCRIPTIONS = table("""
    * * * * *                 | every minute
    */5 * * * *               | every 5 minutes
    */7 * * * *               | at minutes 0, 7, …, 56 of every hour
    5/20 * * * *              | at minutes 5, 25 and 45 of every hour
    0-29 * * * *              | at minutes 0 to 29 of every hour
    17 * * * *                | every hour at minute 17
    17 * * * MON              | every hour at minute 17, every Monday
    0 9 * * *                 | at 09:00, every day
    0 9,12,17 * * *           | at 09:00, 12:00 and 17:00, every day
    0,30 9 * * *              | at 09:00 and 09:30, every day
    0 9-17 * * *              | every hour from 09:00 to 17:00, every day
    0 */2 * * *               | every 2 hours from 00:00 to 22:00, every day
    0 */5 * * *               | at 00:00, 05:00, 10:00, 15:00 and 20:00, every day
    */15 8-17 * * *           | every 15 minutes from 08:00 to 17:45, every day
    */10 9 * * *              | every 10 minutes from 09:00 to 09:50, every day
    * 9,17 * * *              | every minute in the hours 9 and 17, every day
    5,10,20 9,17 * * *        | at minutes 5, 10 and 20 of the hours 9 and 17, every day
    0 9 * * 1-5               | at 09:00, Monday to Friday
    0 9 * * SAT,SUN           | at 09:00, Saturday and Sunday
    0 9 * * 5-7               | at 09:00, Friday to Sunday
    0 9 * * MON,WED,FRI       | at 09:00, Monday, Wednesday and Friday
    0 9 * * 0                 | at 09:00, every Sunday
    0 9 * * 0-6               | at 09:00, every day
    0 9 * 6 *                 | at 09:00, every day in June
    0 9 * 6-8 1               | at 09:00, every Monday in June to August
    0 0 1 * *                 | at 00:00, on day 1 of the month
    0 0 1,15 * *              | at 00:00, on days 1 and 15 of the month
    0 0 1-7 1,4,7,10 *        | at 00:00, on days 1 to 7 of January, April, July and October
    0 0 31 * *                | at 00:00, on day 31 of the month, where there is one
    0 0 31 1 *                | at 00:00, on day 31 of January
    0 0 29 2 *                | at 00:00, on day 29 of February, where there is one
    0 0 13 * 5                | at 00:00, on day 13 of the month or any Friday
    0 0 13 6 5,6              | at 00:00, on day 13 of June or any Friday or Saturday in June
    0 0 */2 * 1               | at 00:00, on days 1, 3, …, 31 of the month if that is a Monday
    0 0 1-31 * 1              | at 00:00, every day
""")


@pytest.mark.parametrize(("expression", "expected"), DESCRIPTIONS, ids=[row[0] for row in DESCRIPTIONS])
def test_descriptions_of_schedules(expression: str, expected: str) -> None:
    assert parse(expression, "Asia/Shanghai").describe() == f"{expected}, Asia/Shanghai"


def test_equal_schedules_have_equal_descriptions() -> None:
    descriptions = {
        parse(text, "UTC").describe() for text in ["0 9 * * 1-5", "00 9 * * mon-FRI", "0 9 * * 1,2,3,4,5"]
    }
    assert len(descriptions) == 1
