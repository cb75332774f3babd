"""Tests of `error_groups` (message templates on each engine, figures by brute force) and `error_breakdown`."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import qoderdata as qd
from qoderdata.frame_checks import TEXT
from qoderdata.summaries import run_errors
from tests.engine_frames import opened, rows_of
from tests.summary_frames import at, grouped, random_rows, records, runs_frame

END = datetime(2026, 6, 15, tzinfo=UTC)
DAY = timedelta(days=1)
TEMPLATES = {
    "can't open 'my file'": "can't open <text>",
    "it's 'x' and \"y z\"": "it's <text> and <text>",
    "users' keys aren't there": "users' keys aren't there",
    "“引用” 「引」 `code`": "<text> <text> <text>",
    "https://a.b/c?d=1&e=2 failed": "<url> failed",
    "(see http://127.0.0.1:80/x)": "(see <url>)",
    "GET /v1/x/12 -> 503": "GET <path> -> <number>",
    r"C:\a\b gone": "<path> gone",
    "~/x and ./a/b and ../c": "<path> and <path> and <path>",
    "src/app/main.py line 3": "<path> line <number>",
    "x=/a/b: 100%": "x=<path>: <number>%",
    "and/or": "and/or",
    "502 <html><h1>Bad</h1><br/></html>": "<number> <html><h1>Bad</h1><br/></html>",
    "<soap:Code>a/b.xml</soap:Code >": "<soap:Code><path></soap:Code >",
    "<p>/tmp/x</p><img src='x'/>": "<p><path></p><img src=<text>/>",
    "no file </tmp/x>, <~/x> or </tmp/x.txt>": "no file <<path>>, <<path>> or <<path>>",
    "/srv/中文/路径 end": "<path> end",
    "session sess_0a1b2c is gone": "session <id> is gone",
    "环境env_0a1b2c不存在": "环境<id>不存在",
    "9f86d081-884c-4d65-9a2f-eaa0c55ad015": "<id>",
    "deadbeef01 ab12cd3 0x7fff": "<id> <id> <id>",
    "agent_archived_error max_tokens a_b": "agent_archived_error max_tokens a_b",
    "12345678 of 1,000.5": "<number> of <number>",
    "超时30秒": "超时<number>秒",
    "after 1h30m or 30s or 10GB": "after <number> or <number> or <number>GB",
    "at 2026-06-15T00:00:01.5Z and 2026-06-15 00:00 +08:00": "at <number> and <number> +<number>",
    "10.0.0.1:8080": "<number>",
    "v2 utf8 gpt-4o": "v2 utf8 gpt-<number>o",
    "line\n12\n'x'": "line\n<number>\n<text>",
    "$1 \\1 {} [] ()": "$<number> \\<number> {} [] ()",
    "": "",
}


@pytest.mark.parametrize(("message", "template"), TEMPLATES.items())
def test_variable_parts_of_messages_are_replaced(message: str, template: str) -> None:
    assert run_errors._template(message) == template


def random_text(draw: Random) -> str:
    """Draw text of characters that matter to templates, or of any characters."""
    if draw.random() < 0.7:
        return "".join(draw.choices("a1_/'\"`:.~-<>中 \\x0Zf\n", k=draw.randrange(31)))
    points = [draw.randrange(1, draw.choice([0x80, 0x3000, 0x11_0000])) for _ in range(draw.randrange(21))]
    return "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)


def test_all_engines_give_the_same_templates() -> None:
    draw = Random(7)  # noqa: S311 nothing secret
    messages = [*TEMPLATES, None, *(random_text(draw) for _ in range(3000))]
    expected = [None if message is None else run_errors._template(message) for message in messages]
    template = run_errors._TEMPLATE
    column = pl.Series("message", messages, dtype=pl.String)
    assert pl.select(template.polars(pl.lit(column))).to_series().to_list() == expected
    with duckdb.connect() as connection:
        table = connection.from_arrow(pa.table({"message": pa.array(messages, pa.string())}))
        assert [row[0] for row in table.project(template.duckdb.format('"message"')).fetchall()] == expected
    on_pandas = template.pandas(pd.Series(messages, dtype=TEXT))
    assert [None if pd.isna(value) else value for value in on_pandas] == expected


def runs_of(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    """Build runs from (time before `END`, status, error type, message, deployment)."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    return pd.DataFrame({
        "id": pd.Series([f"r{number:03}" for number in range(len(rows))], dtype=TEXT),
        "deployment_id": pd.Series(columns[4], dtype=TEXT),
        "status": pd.Series(columns[1], dtype=TEXT),
        "error_type": pd.Series(columns[2], dtype=TEXT),
        "error_message": pd.Series(columns[3], dtype=TEXT),
        "triggered_at": pd.Series(
            [None if ago is None else END - ago for ago in columns[0]], dtype="datetime64[us, UTC]"
        ),
    })  # fmt: skip


@pytest.mark.parametrize("by", [None, "deployment_id"])
@pytest.mark.parametrize("days", [10, 20])
@pytest.mark.parametrize("engine", ["pandas", "polars", "duckdb"])
def test_error_groups_equal_brute_force(engine: str, by: str | None, days: int) -> None:
    draw = Random(f"{engine} {by} {days}")  # noqa: S311 nothing secret
    messages = ["no answer in 3 s", "no answer in 40 s", "no file '/x'", None]
    deployments = [None, *(f"dep_{number}" for number in range(20))]
    rows = [
        (
            draw.choice([None, *[timedelta(hours=draw.randrange(24 * days + 1))] * 9]),
            draw.choice(["failed", "failed", "failed", "completed", None]),
            draw.choice([*(f"error {number}" for number in range(8)), None]),
            draw.choice(messages),
            draw.choice(deployments),
        )
        for _ in range(250)
    ]
    got = rows_of(qd.error_groups(opened(runs_of(rows), engine), by))

    groups: dict[tuple[Any, ...], list[tuple[Any, ...]]] = defaultdict(list)
    of_group: dict[Any, int] = defaultdict(int)
    for number, (ago, status, type_, message, deployment) in enumerate(rows):
        if status == "failed":
            template = None if message is None else run_errors._template(message)
            key = (deployment,) if by else ()
            groups[(*key, type_, template)].append((ago, f"r{number:03}", message, deployment))
            of_group[key] += 1
    times = [row[0] for row in rows if row[0] is not None]
    end = -min(times) + timedelta(minutes=1) if times else None
    reach = end is not None and max(times) + end >= 14 * DAY
    assert len(got) == len(groups)
    for row in got:
        key = tuple(row[name] for name in ([by] if by else []))
        found = groups[(*key, row["error_type"], row["message"])]
        at = [END - ago for ago, *_ in found if ago is not None]
        assert row["count"] == len(found)
        assert row["share"] == pytest.approx(len(found) / of_group[key])
        assert row["deployments"] == len({deployment for *_, deployment in found} - {None})
        assert (row["first_seen"], row["last_seen"]) == (min(at, default=None), max(at, default=None))
        assert row["is_new"] == bool(reach and at and end is not None and min(at) >= END + end - 7 * DAY)
        latest = max(found, key=lambda run: (END - run[0] if run[0] is not None else END - 999 * DAY, run[1]))
        assert row["example_run_id"] == latest[1]
        assert row["example_message"] == latest[2]
    order = [(*((row[by] is None, row[by]) if by else ()), -row["count"]) for row in got]
    assert order == sorted(order)


def test_polars_categories_are_read_as_text() -> None:
    runs = runs_of([(timedelta(0), "failed", "api", message, "dep_1") for message in ("no 1", "no 2", None)])
    frame = pl.DataFrame(pa.Table.from_pandas(runs)).with_columns(pl.col("error_type").cast(pl.Categorical))
    categorical = frame.with_columns(pl.col("error_message").cast(pl.Enum(["no 2", "no 1"])))
    assert rows_of(qd.error_groups(categorical)) == rows_of(qd.error_groups(runs))


def test_counts_by_type_equal_error_breakdown() -> None:
    rows = [(timedelta(hours=n), "failed", ["a", "b", None][n % 3], f"run {n}", "dep_1") for n in range(20)]
    runs = runs_of(rows)
    by_type = qd.error_groups(runs).groupby("error_type", dropna=False)["count"].sum()
    pd.testing.assert_series_equal(by_type.sort_index(), qd.error_breakdown(runs)["count"].sort_index())


@pytest.mark.parametrize(
    ("reach", "first", "is_new"),
    [
        (14 * DAY, DAY, True), (14 * DAY, 7 * DAY - timedelta(minutes=1), True),
        (14 * DAY, 7 * DAY, False), (14 * DAY, 13 * DAY, False),
        (14 * DAY - timedelta(minutes=1), DAY, True), (14 * DAY - timedelta(minutes=2), DAY, False),
    ],
)  # fmt: skip
def test_an_error_is_new_if_runs_reach_back_14_days(reach: timedelta, first: timedelta, is_new: bool) -> None:  # noqa: FBT001
    """The last 7 days end with the minute of the newest run; completed runs count for the reach too."""
    rows = [(timedelta(0), "completed", None, None, "dep_1"), (first, "failed", "a", "x", "dep_1")]
    rows.append((reach, "completed", None, None, "dep_1"))
    assert qd.error_groups(runs_of(rows))["is_new"].tolist() == [is_new]


@pytest.mark.parametrize("engine", ["pandas", "polars", "duckdb"])
@pytest.mark.parametrize(
    ("assumed", "assumed_before", "is_new"),
    [(0, 0, True), (20, 20, True), (20, 0, True), (0, 3, True), (0, 4, False), (17, 20, True), (15, 20, False)],
)
def test_no_error_is_new_if_more_outcomes_are_assumed_before(
    engine: str,
    assumed: int,
    assumed_before: int,
    is_new: bool,  # noqa: FBT001
) -> None:
    """Of 20 completed runs in each of the last two weeks, so many are assumed; all older ones are."""
    weeks = {0: assumed, 7: assumed_before, 14: 20}
    found = [
        (timedelta(days=begin, hours=1 + number), "session" if number < count else "events")
        for begin, count in weeks.items()
        for number in range(20)
    ]
    rows = [(DAY, "failed", "a", "x", "dep_1"), *((ago, "completed", None, None, "dep_1") for ago, _ in found)]
    runs = runs_of(rows).assign(status_from=pd.Series(["events", *(by for _, by in found)], dtype=TEXT))
    (row,) = rows_of(qd.error_groups(opened(runs, engine)))
    assert row["is_new"] is is_new


@pytest.mark.parametrize("by", [None, "deployment_id"])
def test_runs_without_a_failure_give_no_rows(by: str | None) -> None:
    assert qd.error_groups(runs_of([(DAY, "completed", None, None, "dep_1")]), by).empty


def test_name_column_comes_first() -> None:
    runs = runs_of([(DAY, "failed", "a", "x 1", "dep_1")]).assign(deployment_name="report")
    named = qd.error_groups(runs, "deployment_id")
    assert named.columns[0] == "name"
    assert named["name"].tolist() == ["report"]


def test_by_a_column_of_the_result_is_refused() -> None:
    runs = runs_of([(DAY, "failed", "a", "x 1", "dep_1")])
    with pytest.raises(ValueError, match="'message' is a column of the result"):
        qd.error_groups(runs.assign(message="x"), "message")
    with pytest.raises(ValueError, match="'error_type' is a column of the result"):
        qd.error_breakdown(runs, "error_type")


def test_error_breakdown_counts_failed_runs_only() -> None:
    statuses, kinds = ["failed"] * 3 + ["skipped", "completed"], ["timeout", None, "timeout", "busy", None]
    runs = runs_frame(
        {"status": status, "error_type": kind, "triggered_at": at(hour)}
        for hour, (status, kind) in enumerate(zip(statuses, kinds, strict=True))
    )
    assert records(qd.error_breakdown(runs)) == [
        {"error_type": "timeout", "count": 2, "share": 2 / 3, "first_seen": at(0), "last_seen": at(2)},
        {"error_type": None, "count": 1, "share": 1 / 3, "first_seen": at(1), "last_seen": at(1)},
    ]


@pytest.mark.parametrize("by", ["deployment_id", None])
def test_error_breakdown_equals_brute_force(by: str | None) -> None:
    rows = random_rows("errors")
    failed = grouped([row for row in rows if row["status"] == "failed"], by)
    expected = []
    for key, members in failed.items():
        for kind, same in grouped(members, "error_type").items():
            seen = [run["triggered_at"] for run in same if run["triggered_at"]]
            first, last = min(seen, default=None), max(seen, default=None)
            expected.append((key, kind, len(same), pytest.approx(len(same) / len(members)), first, last))
    expected.sort(key=lambda row: (row[0] or "~", -row[2], row[1] or "~"))
    names = ["error_type", "count", "share", "first_seen", "last_seen"]
    got = [
        (row[by] if by else None, *(row[name] for name in names))
        for row in records(qd.error_breakdown(runs_frame(rows), by))
    ]
    assert got == expected
