"""Tests of `schedule_lints` and `describe_schedule`."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from qoderdata.frames import flatten_deployments
from qoderdata.sandbox import Sandbox
from qoderdata.timelines import describe_schedule, schedule_lints

START = "2026-06-15T00:00:00Z"


def deployment(cron: str | None, zone: str = "UTC", id_: str = "dep_1", **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    """Build a deployment record as the service sends it."""
    schedule = None if cron is None else {"type": "cron", "expression": cron, "timezone": zone}
    return {"id": id_, "name": f"name of {id_}", "status": "active", "schedule": schedule, **fields}


SCHEDULES_WITH_LINTS = [
    ("30 2 * * *", "America/New_York", "dst_gap",
     "02:30 does not exist on 2027-03-14 in America/New_York: it will not fire then"),
    ("30 1 * * *", "America/New_York", "dst_repeat",
     "01:30 occurs twice on 2026-11-01 in America/New_York: it will fire twice"),
    ("15 2 * * *", "Australia/Lord_Howe", "dst_gap",
     "02:15 does not exist on 2026-10-04 in Australia/Lord_Howe: it will not fire then"),
    ("45 1 * * *", "Australia/Lord_Howe", "dst_repeat",
     "01:45 occurs twice on 2027-04-04 in Australia/Lord_Howe: it will fire twice"),
    ("0 0 * * *", "America/Santiago", "dst_gap",
     "00:00 does not exist on 2026-09-06 in America/Santiago: it will not fire then"),
    ("*/15 2 * * *", "Europe/Berlin", "dst_gap",
     "02:00, 02:15, 02:30 and 02:45 do not exist on 2027-03-28 in Europe/Berlin: it will not fire then"),
    ("*/5 2 * * *", "Europe/Berlin", "dst_repeat",
     "02:00 to 02:55 (12 times) occur twice on 2026-10-25 in Europe/Berlin: it will fire twice"),
    ("0 */2 * * *", "Europe/Berlin", "dst_gap",
     "02:00 does not exist on 2027-03-28 in Europe/Berlin: it will not fire then"),
    ("0 * * * *", "Australia/Lord_Howe", "dst_gap",
     "02:00 does not exist on 2026-10-04 in Australia/Lord_Howe: it will not fire then"),
    ("30 2 8-14 3 */7", "America/New_York", "never_fires",
     "clock changes in America/New_York skip every local time that it has"),
    ("0 0 13 * 5", "UTC", "both_day_fields",
     "both day fields are restricted, and either is enough: on day 13 of the month or any Friday"),
    ("0 0 1-31 * 5", "UTC", "both_day_fields", "both day fields are restricted, and either is enough: every day"),
    ("* * 1-31 * 5", "UTC", "both_day_fields", "both day fields are restricted, and either is enough: every day"),
    ("0 0 */2 * 1", "UTC", "both_day_fields",
     ("a day field that begins with * is not restricted, so both must match: on days 1, 3, …, 31 of the "
      "month if that is a Monday")),
    ("*/7 * * * *", "UTC", "uneven_step", "*/7 is minute 0, 7, …, 56: from 56 to 0 it is 4 and not 7"),
    ("5/25 * * * *", "UTC", "uneven_step", "5/25 is minute 5, 30 and 55: from 55 to 5 it is 10 and not 25"),
    ("*/100 * * * *", "UTC", "uneven_step", "*/100 is minute 0: from 0 to 0 it is 60 and not 100"),
    ("0 */7 * * *", "UTC", "uneven_step", "*/7 is hour 0, 7, 14 and 21: from 21 to 0 it is 3 and not 7"),
    ("0 0 1 */5 *", "UTC", "uneven_step", "*/5 is month 1, 6 and 11: from 11 to 1 it is 2 and not 5"),
    ("0 0 1 JAN/5 *", "UTC", "uneven_step", "JAN/5 is month 1, 6 and 11: from 11 to 1 it is 2 and not 5"),
    ("0 0 * * */2", "UTC", "uneven_step", "*/2 is day of week 0, 2, 4 and 6: from 6 to 0 it is 1 and not 2"),
    ("0 0 */10 * *", "UTC", "uneven_step",
     "*/10 is days 1, 11, 21 and 31: it starts again each month, so the last gap is different"),
    ("0 0 31 * *", "UTC", "skips_months", "there is no day 31 in February, April, June, September and November"),
    ("0 0 29,30 2,3 *", "UTC", "skips_months",
     "there is a day 29 in February in leap years only; there is no day 30 in February"),
    ("0 0 28-31 4 *", "UTC", "skips_months", "there is no day 31 in April"),
    ("0 9 * * *", "Etc/GMT+8", "inverted_zone", "Etc/GMT+8 is 8 hours behind UTC: its sign is inverted"),
    ("0 9 * * *", "Etc/GMT-8", "inverted_zone", "Etc/GMT-8 is 8 hours ahead of UTC: its sign is inverted"),
    ("0 9 * * *", "Etc/GMT+1", "inverted_zone", "Etc/GMT+1 is 1 hour behind UTC: its sign is inverted"),
    ("0 9 * * *", "Etc/GMT-1", "inverted_zone", "Etc/GMT-1 is 1 hour ahead of UTC: its sign is inverted"),
    ("0 9 30 2 *", "UTC", "never_fires", "none of its months has such a day"),
    ("0 9 * * *", "Mars/Olympus", "unreadable",
     "'Mars/Olympus' is not an IANA time zone, like 'Asia/Shanghai' or 'UTC'"),
    ("@daily", "UTC", "unreadable",
     "'@daily' is not a cron text: write digits, names and * , / - only, at most 1,000"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("cron", "zone", "lint", "detail"),
    SCHEDULES_WITH_LINTS,
    ids=[f"{cron} {zone} {lint}" for cron, zone, lint, _ in SCHEDULES_WITH_LINTS],
)
def test_a_lint_is_found_with_its_detail(cron: str, zone: str, lint: str, detail: str) -> None:
    findings = schedule_lints(flatten_deployments([deployment(cron, zone)]), start=START)
    assert dict(zip(findings["lint"], findings["detail"], strict=True))[lint] == detail
    assert findings["lint"].is_unique
    assert set(findings["deployment_id"]) == {"dep_1"}
    assert set(findings["name"]) == {"name of dep_1"}


SCHEDULES_WITHOUT_LINTS = [
    ("0 9 * * *", "UTC"), ("0 9 * * 1-5", "America/New_York"), ("30 2 * * *", "Asia/Shanghai"),
    ("0 * * * *", "Europe/Berlin"), ("*/15 * * * *", "Europe/Berlin"), ("* * * * *", "America/New_York"),
    ("*/30 * * * *", "Australia/Lord_Howe"), ("30 2 1 6 *", "Europe/Berlin"), ("30 2 * * 1-6", "Europe/Berlin"),
    ("*/20 * * * *", "UTC"), ("5/20 * * * *", "UTC"), ("0 */6 * * *", "Asia/Kolkata"), ("0 9-17/3 * * *", "UTC"),
    ("7,21,35 * * * *", "UTC"), ("0 */24 * * *", "UTC"), ("0 0 */31 * *", "UTC"), ("0 0 1 */3 *", "UTC"),
    ("0 0 * * */7", "UTC"), ("0 0 31 1,3,5 *", "UTC"), ("0 0 1-28 * *", "UTC"), ("0 0 1-31 * *", "UTC"),
    ("0 9 * * *", "Etc/GMT"), ("0 9 * * *", "Etc/GMT+0"), (None, "UTC"),
]  # fmt: skip


@pytest.mark.parametrize(("cron", "zone"), SCHEDULES_WITHOUT_LINTS)
def test_schedules_without_surprises_have_no_lints(cron: str | None, zone: str) -> None:
    """A clock change that does not disturb the rhythm of a schedule gives no lint."""
    findings = schedule_lints(flatten_deployments([deployment(cron, zone)]), start=START)
    assert findings.empty, findings["detail"].tolist()


def test_a_step_of_all_days_skips_no_months() -> None:
    findings = schedule_lints(flatten_deployments([deployment("0 0 */2 * *")]), start=START)
    assert findings["lint"].tolist() == ["uneven_step"]


def test_only_the_first_gap_and_the_first_repeat_of_a_year_are_lints() -> None:
    """The year from 29 March 2026 has a gap on that day, and one on 28 March 2027."""
    df = flatten_deployments([deployment("30 2 * * *", "Europe/Berlin")])
    findings = schedule_lints(df, start="2026-03-29T00:00Z")
    assert findings["lint"].tolist() == ["dst_gap", "dst_repeat"]
    assert "2026-03-29" in findings["detail"][0]


def test_lints_keep_the_order_of_the_frame_without_archived_rows() -> None:
    df = flatten_deployments(
        [
            deployment("0 */7 31 * *", "UTC", "dep_b"),
            deployment("0 9 31 * *", "UTC", "dep_gone", archived_at="2026-06-01T00:00:00Z"),
            deployment("0 9 31 * *", "UTC", "dep_a", status="paused", name=None),
        ]
    )
    findings = schedule_lints(df.set_index(pd.Index([3, 3, 3])), start=START)
    assert list(zip(findings["deployment_id"], findings["lint"], strict=True)) == [
        ("dep_b", "uneven_step"),
        ("dep_b", "skips_months"),
        ("dep_a", "skips_months"),
    ]
    assert findings["name"].isna().tolist() == [False, False, True]
    assert isinstance(findings.index, pd.RangeIndex)


def test_columns_and_dtypes_with_and_without_rows() -> None:
    found = schedule_lints(flatten_deployments([deployment("*/7 * * * *")]), start=START)
    for findings in (
        found,
        schedule_lints(flatten_deployments([])),
        schedule_lints(flatten_deployments([deployment(None)])),
    ):
        assert list(findings.columns) == ["deployment_id", "name", "lint", "detail"]
        assert all(str(dtype) == "str" for dtype in findings.dtypes)


def test_the_checked_year_begins_now_or_at_start() -> None:
    df = flatten_deployments([deployment("30 2 * * *", "America/New_York")])
    year = pd.Timestamp.now("UTC").year
    (detail,) = schedule_lints(df)["detail"]
    assert f" {year}-03-" in detail or f" {year + 1}-03-" in detail
    (detail,) = schedule_lints(df, start="2019-01-01T00:00Z")["detail"]
    assert " 2019-03-10 " in detail
    with pytest.raises(ValueError, match=r"start=.*no time zone"):
        schedule_lints(df, start="2026-06-15")


def test_a_checked_year_beyond_9999_is_refused() -> None:
    with pytest.raises(ValueError, match="of the year after 9999-12-29 reach beyond the year 9999"):
        schedule_lints(flatten_deployments([]), start="9999-12-29T00:00Z")
    daily = {"id": "dep_1", "schedule": {"expression": "0 9 * * *", "timezone": "Pacific/Kiritimati"}}
    for start in ("0001-01-01T00:00Z", "9998-12-31T23:59Z"):
        assert schedule_lints(flatten_deployments([daily]), start=start).empty


def test_a_sandbox_account_has_common_lints() -> None:
    with Sandbox(deployments=200, seed=7) as sandbox:
        findings = schedule_lints(flatten_deployments(sandbox.deployments), start=sandbox.now)
    assert {"dst_gap", "both_day_fields", "uneven_step", "skips_months"} <= set(findings["lint"])


def test_describe_schedule() -> None:
    assert describe_schedule("0 9 * * 1-5", "Asia/Shanghai") == "at 09:00, Monday to Friday, Asia/Shanghai"
    with pytest.raises(ValueError, match="never fires"):
        describe_schedule("0 9 30 2 *", "UTC")
    with pytest.raises(ValueError, match="not an IANA time zone"):
        describe_schedule("0 9 * * *", "Mars/Olympus")
