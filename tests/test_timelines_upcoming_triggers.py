"""Tests of `next_triggers`: the service's list, cron texts, and the columns of the result."""

from __future__ import annotations

import warnings
from datetime import datetime
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qoderdata.errors import DataQualityWarning
from qoderdata.frames import flatten_deployments, with_names
from qoderdata.sandbox import Sandbox
from qoderdata.timelines import next_triggers

START = "2026-06-15T00:00:00Z"
CATEGORIES = ["deployment_id", "name", "agent_id", "environment_id", "schedule_expression", "schedule_timezone"]


def deployment(
    id_: str = "dep_1",
    cron: str | None = "0 9 * * *",
    zone: str | None = "UTC",
    **fields: Any,  # noqa: ANN401 a record's values
) -> dict[str, Any]:
    """Build a deployment record as the service sends it; `listed` is its list of upcoming triggers."""
    listed = fields.pop("listed", [])
    schedule = {"type": "cron", "expression": cron, "timezone": zone, "upcoming_runs_at": listed}
    record = {
        "id": id_,
        "name": f"name of {id_}",
        "status": "active",
        "agent": {"id": "agent_1"},
        "environment_id": "env_1",
        "schedule": None if cron is None else schedule,
        "created_at": "2026-01-01T00:00:00Z",
    }
    return {**record, **fields}


def formatted(triggers: pd.DataFrame) -> list[str]:
    """Format each trigger as ``id day hour:minute source``."""
    return [
        f"{row.deployment_id} {row.trigger_at:%d %H:%M} {row.source}" for row in triggers.itertuples(index=False)
    ]


def at(*times: str) -> list[str]:
    """Format times in June 2026 as the service does."""
    return [f"2026-06-{time.replace(' ', 'T')}:00Z" for time in times]


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ([], ["15 09:00 cron", "16 09:00 cron", "17 09:00 cron"]),
        (at("15 09:00", "16 09:00"), ["15 09:00 api", "16 09:00 api", "17 09:00 cron"]),
        (at("16 09:00"), ["15 09:00 cron", "16 09:00 api", "17 09:00 cron"]),
        (at("13 09:00", "14 09:00"), ["15 09:00 cron", "16 09:00 cron", "17 09:00 cron"]),
        (at("14 09:00", "15 09:00", "16 09:00", "17 09:00", "18 09:00"),
         ["15 09:00 api", "16 09:00 api", "17 09:00 api"]),
        (at("19 09:00", "20 09:00"), ["15 09:00 cron", "16 09:00 cron", "17 09:00 cron"]),
        (at("16 09:00", "15 09:00", "15 09:00"), ["15 09:00 api", "16 09:00 api", "17 09:00 cron"]),
    ],
    ids=["empty list", "list ends inside the window", "list begins inside the window", "list before the window",
         "list covers the window", "list after the window", "unsorted list with a duplicate"],
)  # fmt: skip
def test_listed_triggers_are_used_from_the_first_to_the_last_listed(
    listed: list[str], expected: list[str]
) -> None:
    """The cron text gives the triggers before and after."""
    triggers = next_triggers(flatten_deployments([deployment(listed=listed)]), "3D", start=START)
    assert formatted(triggers) == [f"dep_1 {row}" for row in expected]


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (at("15 09:00", "17 09:00"), ["15 09:00 api", "17 09:00 api"]),
        (
            at("15 09:00", "15 10:30", "16 09:00"),
            ["15 09:00 api", "15 10:30 api", "16 09:00 api", "17 09:00 cron"],
        ),
        (at("15 10:00", "16 10:00"), ["15 09:00 cron", "15 10:00 api", "16 10:00 api", "17 09:00 cron"]),
        (["2026-06-15T09:00:00.000001Z"], ["15 09:00 cron", "15 09:00 api", "16 09:00 cron", "17 09:00 cron"]),
        (["2025-06-15T09:00:00Z", "2026-06-15T09:00:00Z"], ["15 09:00 api", "16 09:00 cron", "17 09:00 cron"]),
        (at("20 09:00", "22 09:00"), ["15 09:00 cron", "16 09:00 cron", "17 09:00 cron"]),
    ],
    ids=[
        "one time less",
        "one time more",
        "other times",
        "one microsecond later",
        "times in two years",
        "list after the window",
    ],
)
def test_the_list_is_used_where_it_differs_from_cron_and_warns(listed: list[str], expected: list[str]) -> None:
    """The schedule may have changed since the service made the list."""
    df = flatten_deployments([deployment(listed=listed), deployment("dep_2", listed=at("15 09:00", "16 09:00"))])
    with pytest.warns(
        DataQualityWarning, match=r"disagree for 1 deployment;.*: 'name of dep_1' \(dep_1\)$"
    ) as caught:
        triggers = next_triggers(df, "3D", start=START)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert formatted(triggers[triggers["deployment_id"] == "dep_1"]) == [f"dep_1 {row}" for row in expected]


def test_a_list_that_spans_9996_years_is_fast() -> None:
    """Computing each minute of that span would give 5,000 million triggers."""
    listed = ["0002-01-01T00:00:00Z", "2026-06-15T00:00:00Z", "9998-12-31T00:00:00Z"]
    df = flatten_deployments([deployment(cron="* * * * *", listed=listed)])
    with pytest.warns(DataQualityWarning, match="dep_1"):
        triggers = next_triggers(df, "1h", start=START)
    assert formatted(triggers) == ["dep_1 15 00:00 api"]


def test_a_list_of_leap_days_agrees_with_cron() -> None:
    """The list spans 16 years."""
    listed = [f"{year}-02-29T09:00:00Z" for year in (2028, 2032, 2036, 2040, 2044)]
    df = flatten_deployments([deployment(cron="0 9 29 2 *", listed=listed)])
    triggers = next_triggers(df, "7000D", start=START)
    assert triggers["source"].tolist() == ["api"] * 5
    assert triggers["trigger_at"].dt.year.tolist() == [2028, 2032, 2036, 2040, 2044]


def test_archived_manual_and_paused_deployments_do_not_fire() -> None:
    """The service still lists triggers of paused deployments; they are used with ``include_paused``."""
    df = flatten_deployments(
        [
            deployment("archived", archived_at="2026-06-01T00:00:00Z", name="x_archived_1780272000"),
            deployment("manual", cron=None),
            deployment("paused", status="paused", listed=at("15 09:00", "16 09:00")),
            deployment("active"),
        ]
    )
    assert set(next_triggers(df, "3D", start=START)["deployment_id"]) == {"active"}
    both = next_triggers(df, "3D", start=START, include_paused=True)
    assert both["deployment_id"].value_counts().to_dict() == {"active": 3, "paused": 3}
    with pytest.raises(ValueError, match="include_paused='no' is neither True nor False"):
        next_triggers(df, "3D", start=START, include_paused="no")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cron", "zone"),
    [("whenever", "UTC"), ("0 9 30 2 *", "UTC"), ("0 0 L * *", "UTC"), ("0 9 * * *", "Mars/Olympus"), ("", "UTC")],
)
def test_an_unreadable_schedule_gives_no_rows_and_a_warning(cron: str, zone: str) -> None:
    df = flatten_deployments(
        [
            deployment("dep_1"),
            deployment("dep_2", cron=cron, zone=zone, listed=at("15 09:00")),
            deployment("dep_3", cron=cron, zone=zone),
            deployment("dep_4", cron=cron, zone=zone, status="paused"),
        ]
    )
    with pytest.warns(
        DataQualityWarning, match=r"2 deployments .* cannot be read.*\(dep_2\), .*\(dep_3\)$"
    ) as caught:
        triggers = next_triggers(df, "1D", start=START)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert formatted(triggers) == ["dep_1 15 09:00 cron"]


def test_a_schedule_without_zone_warns_and_without_cron_does_not() -> None:
    df = flatten_deployments([deployment("dep_1", zone=None), deployment("dep_2", cron=None)])
    with pytest.warns(DataQualityWarning, match=r"there is no zone.*: 'name of dep_1' \(dep_1\)$"):
        assert next_triggers(df, start=START).empty


def test_control_characters_of_a_record_are_not_in_the_warning() -> None:
    df = flatten_deployments([deployment("dep\n\x1b[31m1", cron="0 9 * * *\n\x1b[31mALL IS WELL")])
    with pytest.warns(DataQualityWarning) as caught:
        next_triggers(df, "1D", start=START)
    assert str(caught[0].message).isprintable()


def test_a_warning_names_the_first_10_ids() -> None:
    df = flatten_deployments([deployment(f"dep_{number:03d}", cron="x") for number in range(100)])
    with pytest.warns(DataQualityWarning, match=r"100 deployments .* \(dep_009\) and 90 more$"):
        next_triggers(df, "1D", start=START)


@pytest.mark.parametrize(
    ("name", "shown"), [("夜" * 100, f"'{'夜' * 17}…' (dep_{'0' * 32})"), (None, f"dep_{'0' * 32}")]
)
def test_a_warning_has_the_whole_id_beside_a_long_or_missing_name(name: str | None, shown: str) -> None:
    df = flatten_deployments([deployment("dep_" + "0" * 32, cron="x") | {"name": name}])
    with pytest.warns(DataQualityWarning) as caught:
        next_triggers(df, "1D", start=START)
    assert str(caught[0].message).endswith(f": {shown}")


def check_columns(triggers: pd.DataFrame, tz: str) -> None:
    assert list(triggers.columns) == ["trigger_at", *CATEGORIES, "local_time", "source"]
    assert triggers["trigger_at"].dtype == f"datetime64[us, {tz}]"
    assert triggers["local_time"].dtype == "datetime64[us]"
    for name in [*CATEGORIES, "source"]:
        assert isinstance(triggers[name].dtype, pd.CategoricalDtype), name
        assert triggers[name].cat.categories.dtype == "str", name
    assert triggers["source"].cat.categories.tolist() == ["api", "cron"]
    assert isinstance(triggers.index, pd.RangeIndex)


@pytest.mark.parametrize("tz", ["UTC", "Asia/Shanghai", "Australia/Lord_Howe"])
def test_columns_and_dtypes_with_and_without_rows(tz: str) -> None:
    df = flatten_deployments([deployment(), deployment("dep_2", cron=None)])
    check_columns(next_triggers(df, "3D", start=START, tz=tz), tz)
    for nothing in (df, df.iloc[:0], flatten_deployments([])):
        empty = next_triggers(nothing, "0s", start=START, tz=tz)
        assert empty.empty
        check_columns(empty, tz)


def test_texts_are_unchanged_and_missing_texts_stay_missing() -> None:
    df = flatten_deployments([
        deployment("dep_2", name='日报, "a"\n=1+1', zone="Asia/Shanghai"),
        deployment("dep_1", name=None, agent=None, environment_id=None),
    ])  # fmt: skip
    first, second = next_triggers(df, "1D", start=START).to_dict("records")
    assert (first["deployment_id"], first["name"]) == ("dep_2", '日报, "a"\n=1+1')  # fmt: skip
    assert (first["agent_id"], first["environment_id"]) == ("agent_1", "env_1")
    assert (first["schedule_expression"], first["schedule_timezone"]) == ("0 9 * * *", "Asia/Shanghai")
    assert second["deployment_id"] == "dep_1"
    assert all(pd.isna(second[name]) for name in ("name", "agent_id", "environment_id"))


def test_name_columns_of_with_names_are_kept() -> None:
    df = flatten_deployments([deployment("dep_1"), deployment("dep_2", agent={"id": "agent_2"})])
    agents = pd.DataFrame({"id": ["agent_1"], "name": ["Writer"]}, dtype="str")
    environments = pd.DataFrame({"id": ["env_1"], "name": ["Cloud"]}, dtype="str")
    found = next_triggers(with_names(df, agents=agents, environments=environments), "1D", start=START)
    assert found["agent_name"].astype("object").fillna("-").tolist() == ["Writer", "-"]
    assert found["environment_name"].tolist() == ["Cloud", "Cloud"]
    assert found.drop(columns=["agent_name", "environment_name"]).equals(next_triggers(df, "1D", start=START))


def test_local_time_is_in_the_zone_of_the_schedule_and_not_in_tz() -> None:
    df = flatten_deployments(
        [
            deployment("dep_1", zone="Asia/Shanghai"),
            deployment("dep_2", zone="America/New_York", listed=at("15 13:00", "16 13:00")),
        ]
    )
    triggers = next_triggers(df, "1D", start=START, tz="Asia/Tokyo")
    assert [str(time) for time in triggers["local_time"]] == ["2026-06-15 09:00:00"] * 2
    assert [str(time) for time in triggers["trigger_at"]] == [
        "2026-06-15 10:00:00+09:00",
        "2026-06-15 22:00:00+09:00",
    ]


def test_local_time_across_clock_changes_of_several_zones() -> None:
    zones = ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "UTC"]
    df = flatten_deployments([deployment(zone, "*/30 * * * *", zone) for zone in zones])
    triggers = next_triggers(df, "60D", start="2026-09-20T00:00Z")
    for zone in zones:
        of_zone = triggers[triggers["schedule_timezone"] == zone]
        expected = of_zone["trigger_at"].dt.tz_convert(zone).dt.tz_localize(None)
        pd.testing.assert_series_equal(of_zone["local_time"], expected, check_names=False)


def test_rows_are_sorted_by_time_then_id() -> None:
    ids = ["dep_b", "dep_a", "dep_c", "dep_A"]
    df = flatten_deployments(
        [deployment(id_, cron) for id_, cron in zip(ids, ["0 9 * * *", "*/30 9 * * *"] * 2, strict=True)]
    )
    triggers = next_triggers(df, "2D", start=START)
    keys = list(zip(triggers["trigger_at"], triggers["deployment_id"].astype("str"), strict=True))
    assert keys == sorted(keys)
    assert len(keys) == 12


@pytest.mark.parametrize(
    ("start", "horizon", "expected"),
    [
        ("2026-06-15T09:00Z", "1D", ["15 09:00"]), ("2026-06-15T09:00:00.000001Z", "1D", ["16 09:00"]),
        ("2026-06-15T09:00Z", "24h 1s", ["15 09:00", "16 09:00"]),
        ("2026-06-15T17:00+08:00", "1min", ["15 09:00"]), ("2026-06-15T09:00Z", "0s", []),
    ],
)  # fmt: skip
@pytest.mark.parametrize("listed", [[], at("15 09:00", "16 09:00", "17 09:00")])
def test_the_window_is_half_open(start: str, horizon: str, expected: list[str], listed: list[str]) -> None:
    triggers = next_triggers(flatten_deployments([deployment(listed=listed)]), horizon, start=start)
    assert [f"{time:%d %H:%M}" for time in triggers["trigger_at"]] == expected


def test_start_defaults_to_now() -> None:
    df = flatten_deployments([deployment(cron="* * * * *")])
    before = pd.Timestamp.now("UTC")
    triggers = next_triggers(df, "10min")
    after = pd.Timestamp.now("UTC")
    assert len(triggers) == 10
    assert before <= triggers["trigger_at"].iloc[0] <= after.ceil("min")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": "soon"}, "horizon='soon'"), ({"horizon": "-1D"}, "horizon='-1D'"),
        ({"start": "2026-06-15"}, "no time zone"), ({"start": "noon"}, "start='noon'"),
        ({"tz": "Mars/Olympus"}, "tz='Mars/Olympus'"), ({"horizon": "24"}, "has no unit"),
        ({"horizon": 24}, "horizon=24 is not a length of time, as it has no unit"),
        ({"horizon": "2D", "start": "9999-12-31T00:00Z"}, "horizon='2D' reaches beyond the year 9999"),
    ],
)  # fmt: skip
def test_invalid_parameters_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        next_triggers(flatten_deployments([]), **{"start": START, **arguments})


def test_any_index_and_any_type_of_list_are_accepted() -> None:
    """A frame may be filtered, sorted, or read by another Parquet reader."""
    df = flatten_deployments([deployment(f"dep_{n}", listed=at("15 09:00", "16 09:00")) for n in range(5)])
    expected = next_triggers(df, "3D", start=START)
    stamp = pd.Timestamp("2026-06-15T09:00", tz="UTC")
    lists: list[object] = [
        np.array(["2026-06-15T09:00", "2026-06-16T09:00"], dtype="datetime64[ns]"),
        [stamp, stamp + pd.Timedelta("1D")],
        [datetime(2026, 6, 15, 9), datetime(2026, 6, 16, 9)],  # noqa: DTZ001 naive means UTC in this column
        np.array([stamp, stamp + pd.Timedelta("1D")], dtype=object),
        np.array(["2026-06-15T09:00", "NaT", "2026-06-16T09:00"], dtype="datetime64[us]"),
    ]
    df["schedule_upcoming_runs_at"] = pd.Series(lists, dtype=object)
    shuffled = df.sample(frac=1, random_state=1).set_index(pd.Index([7, 7, 7, 3, 3]))
    pd.testing.assert_frame_equal(next_triggers(shuffled, "3D", start=START), expected)


SCHEDULES = ["0 9 * * *", "*/30 * * * *", "0 0 1 * *", "30 2 * * 0", "0 8 13 * FRI", "nonsense"]


def random_deployments(draw: Random) -> list[dict[str, Any]]:
    """Draw deployments whose lists have 0 to 5 random times, and whose schedules may be missing or invalid."""
    zones = ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Nowhere"]
    return [
        deployment(
            f"dep_{number:02d}",
            draw.choice([*SCHEDULES, None]),
            draw.choice(zones),
            status=draw.choice(["active", "active", "paused"]),
            listed=[
                (pd.Timestamp(START) + pd.Timedelta(minutes=15 * draw.randrange(6 * 24 * 4 + 1))).isoformat()
                for _ in range(draw.randrange(6))
            ],
            archived_at=draw.choice([None, None, None, "2026-06-10T00:00:00Z"]),
        )
        for number in range(60)
    ]


@pytest.mark.parametrize("include_paused", [True, False])
def test_many_deployments_give_the_rows_of_each_alone(include_paused: bool) -> None:  # noqa: FBT001
    """Triggers are computed once for all deployments with the same schedule."""
    records = random_deployments(Random(include_paused))  # noqa: S311 nothing secret
    with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
        df = flatten_deployments(records)
        together = next_triggers(df, "4D", start=START, include_paused=include_paused)
        unlisted = df.assign(schedule_upcoming_runs_at=None)
        expected = []
        for number, (record, listed) in enumerate(zip(records, df["schedule_upcoming_runs_at"], strict=True)):
            listed = np.unique([] if listed is None else listed).astype("datetime64[us]")  # noqa: PLW2901
            from_cron = next_triggers(
                unlisted[number : number + 1], "4D", start=START, include_paused=include_paused
            )
            rows = [(time, "cron") for time in from_cron["trigger_at"].dt.tz_localize(None).to_numpy()]
            readable = (
                record["schedule"]
                and "nonsense" not in record["schedule"]["expression"]
                and record["schedule"]["timezone"] != "Nowhere"
            )
            fires = record["archived_at"] is None and (include_paused or record["status"] == "active")
            if listed.size and readable and fires:
                rows = [row for row in rows if not listed[0] <= row[0] <= listed[-1]]
                end = np.datetime64("2026-06-19T00:00")
                rows += [(time, "api") for time in listed if time < end]
            expected += [(time, record["id"], source) for time, source in rows]
    found = zip(
        together["trigger_at"].dt.tz_localize(None).to_numpy(),
        together["deployment_id"],
        together["source"],
        strict=True,
    )
    assert list(found) == sorted(expected)
    assert {source for *_, source in expected} == {"api", "cron"}


def test_lists_and_next_triggers_of_the_sandbox_agree_with_cron() -> None:
    """The sandbox computes its lists from its cron texts, so there is no warning."""
    with Sandbox(deployments=120, seed=11) as sandbox:
        df, now = flatten_deployments(sandbox.deployments), sandbox.now
    next_triggers(df, "40D", start=now, include_paused=True)
    triggers = next_triggers(df, "40D", start=now)
    first = triggers.groupby("deployment_id", observed=True)["trigger_at"].min()
    active = df[df["archived_at"].isna() & (df["status"] == "active")]
    with_next_trigger = active[active["stats_next_trigger_at"].notna()]  # some have no cas_config
    expected = dict(zip(with_next_trigger["id"], with_next_trigger["stats_next_trigger_at"], strict=True))
    found = {id_: first.get(id_, expected[id_]) for id_ in expected}
    assert found == expected
    assert len(set(first.index) & set(expected)) > 50


def test_a_horizon_of_270_years_is_accepted() -> None:
    assert next_triggers(flatten_deployments([]), "99999D", start=START).empty


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "Pacific/Kiritimati", "UTC"])
@pytest.mark.parametrize("start", ["0001-01-01T00:00Z", "9999-12-31T11:00Z"])
def test_triggers_at_the_ends_of_the_calendar(zone: str, start: str) -> None:
    """The local time of some lies beyond it."""
    triggers = next_triggers(flatten_deployments([deployment(cron="30 * * * *", zone=zone)]), "12h", start=start)
    offset = (triggers["local_time"] - triggers["trigger_at"].dt.tz_localize(None)).unique()
    assert (len(triggers), len(offset)) == (12, 1)
    assert abs(offset[0]) <= pd.Timedelta("14h")
    assert set(triggers["local_time"].dt.minute) == {30}
