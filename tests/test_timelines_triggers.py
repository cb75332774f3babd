"""What fires next: whose list counts when, what never fires, and what the frame looks like."""

from __future__ import annotations

import warnings
from datetime import datetime
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qoderdata.errors import DataQualityWarning, MissingColumnError
from qoderdata.frames import flatten_deployments, with_names
from qoderdata.sandbox import Sandbox
from qoderdata.timelines import next_triggers

START = "2026-06-15T00:00:00Z"
CATEGORIES = ["deployment_id", "name", "agent_id", "environment_id", "schedule_expression", "schedule_timezone"]


def deployment(
    id_: str = "dep_1",
    cron: str | None = "0 9 * * *",
    zone: str | None = "UTC",
    **facts: Any,  # noqa: ANN401 a record's values
) -> dict[str, Any]:
    """Make a record as the service sends it; `listed` is its own list of triggers."""
    listed = facts.pop("listed", [])
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
    return {**record, **facts}


def days(triggers: pd.DataFrame) -> list[str]:
    """List what fires as ``id day hour:minute source``."""
    return [
        f"{row.deployment_id} {row.trigger_at:%d %H:%M} {row.source}" for row in triggers.itertuples(index=False)
    ]


def at(*times: str) -> list[str]:
    """List times in June 2026, as the service writes them."""
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
    ids=["no list", "ends inside", "begins inside", "all before", "covers all", "all after", "in disorder, twice"],
)  # fmt: skip
def test_the_list_reaches_from_its_first_to_its_last_time(listed: list[str], expected: list[str]) -> None:
    """Cron covers what lies before and after."""
    triggers = next_triggers(flatten_deployments([deployment(listed=listed)]), "3D", start=START)
    assert days(triggers) == [f"dep_1 {row}" for row in expected]


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
    ids=["one left out", "one more", "moved", "a microsecond late", "over a year", "beyond the window"],
)
def test_the_list_wins_and_who_disagrees_is_named(listed: list[str], expected: list[str]) -> None:
    """The schedule may have changed since the list was made."""
    df = flatten_deployments([deployment(listed=listed), deployment("dep_2", listed=at("15 09:00", "16 09:00"))])
    with pytest.warns(DataQualityWarning, match="disagree for 1 deployment;.*dep_1$") as caught:
        triggers = next_triggers(df, "3D", start=START)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert days(triggers[triggers["deployment_id"] == "dep_1"]) == [f"dep_1 {row}" for row in expected]


def test_a_hostile_list_costs_no_time() -> None:
    """Every minute of ten thousand years would be five thousand million triggers."""
    listed = ["0002-01-01T00:00:00Z", "2026-06-15T00:00:00Z", "9998-12-31T00:00:00Z"]
    df = flatten_deployments([deployment(cron="* * * * *", listed=listed)])
    with pytest.warns(DataQualityWarning, match="dep_1"):
        triggers = next_triggers(df, "1h", start=START)
    assert days(triggers) == ["dep_1 15 00:00 api"]


def test_a_rare_schedule_agrees_with_its_list() -> None:
    """A list of leap days spans 16 years."""
    listed = [f"{year}-02-29T09:00:00Z" for year in (2028, 2032, 2036, 2040, 2044)]
    df = flatten_deployments([deployment(cron="0 9 29 2 *", listed=listed)])
    triggers = next_triggers(df, "7000D", start=START)
    assert triggers["source"].tolist() == ["api"] * 5
    assert triggers["trigger_at"].dt.year.tolist() == [2028, 2032, 2036, 2040, 2044]


def test_what_never_fires() -> None:
    """The service goes on listing triggers of paused deployments; that of an archived one is stale."""
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


@pytest.mark.parametrize(
    ("cron", "zone"),
    [("whenever", "UTC"), ("0 9 30 2 *", "UTC"), ("0 0 L * *", "UTC"), ("0 9 * * *", "Mars/Olympus"), ("", "UTC")],
)
def test_what_cannot_be_read_gives_no_rows_and_is_named(cron: str, zone: str) -> None:
    df = flatten_deployments(
        [
            deployment("dep_1"),
            deployment("dep_2", cron=cron, zone=zone, listed=at("15 09:00")),
            deployment("dep_3", cron=cron, zone=zone),
            deployment("dep_4", cron=cron, zone=zone, status="paused"),
        ]
    )
    with pytest.warns(DataQualityWarning, match=r"2 deployments .* cannot be read.*: dep_2, dep_3$") as caught:
        triggers = next_triggers(df, "1D", start=START)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert days(triggers) == ["dep_1 15 09:00 cron"]


def test_half_a_schedule_cannot_be_read() -> None:
    df = flatten_deployments([deployment("dep_1", zone=None), deployment("dep_2", cron=None)])
    with pytest.warns(DataQualityWarning, match="there is no zone.*: dep_1$"):
        assert next_triggers(df, start=START).empty


def test_a_hostile_text_cannot_forge_the_warning() -> None:
    df = flatten_deployments([deployment("dep\n\x1b[31m1", cron="0 9 * * *\n\x1b[31mALL IS WELL")])
    with pytest.warns(DataQualityWarning) as caught:
        next_triggers(df, "1D", start=START)
    assert str(caught[0].message).isprintable()


def test_only_the_first_ids_are_named() -> None:
    df = flatten_deployments([deployment(f"dep_{number:03d}", cron="x") for number in range(100)])
    with pytest.warns(DataQualityWarning, match=r"100 deployments .* dep_009 and 90 more$"):
        next_triggers(df, "1D", start=START)


def expect_shape(triggers: pd.DataFrame, tz: str) -> None:
    assert list(triggers.columns) == ["trigger_at", *CATEGORIES, "local_time", "source"]
    assert triggers["trigger_at"].dtype == f"datetime64[us, {tz}]"
    assert triggers["local_time"].dtype == "datetime64[us]"
    for name in [*CATEGORIES, "source"]:
        assert isinstance(triggers[name].dtype, pd.CategoricalDtype), name
        assert triggers[name].cat.categories.dtype == "str", name
    assert triggers["source"].cat.categories.tolist() == ["api", "cron"]
    assert isinstance(triggers.index, pd.RangeIndex)


@pytest.mark.parametrize("tz", ["UTC", "Asia/Shanghai", "Australia/Lord_Howe"])
def test_the_shape_is_the_same_with_and_without_rows(tz: str) -> None:
    df = flatten_deployments([deployment(), deployment("dep_2", cron=None)])
    expect_shape(next_triggers(df, "3D", start=START, tz=tz), tz)
    for nothing in (df, df.iloc[:0], flatten_deployments([])):
        empty = next_triggers(nothing, "0s", start=START, tz=tz)
        assert empty.empty
        expect_shape(empty, tz)


def test_texts_are_as_they_were_and_missing_ones_stay_missing() -> None:
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


def test_names_that_were_added_are_there_too() -> None:
    df = flatten_deployments([deployment("dep_1"), deployment("dep_2", agent={"id": "agent_2"})])
    agents = pd.DataFrame({"id": ["agent_1"], "name": ["Writer"]}, dtype="str")
    environments = pd.DataFrame({"id": ["env_1"], "name": ["Cloud"]}, dtype="str")
    found = next_triggers(with_names(df, agents=agents, environments=environments), "1D", start=START)
    assert found["agent_name"].astype("object").fillna("-").tolist() == ["Writer", "-"]
    assert found["environment_name"].tolist() == ["Cloud", "Cloud"]
    assert found.drop(columns=["agent_name", "environment_name"]).equals(next_triggers(df, "1D", start=START))


def test_the_local_time_is_that_of_the_schedule_whatever_zone_is_asked_for() -> None:
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


def test_rows_are_in_order_of_time_then_id() -> None:
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


def test_without_a_start_it_begins_now() -> None:
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
        ({"tz": "Mars/Olympus"}, "tz='Mars/Olympus'"),
    ],
)  # fmt: skip
def test_parameters_that_make_no_sense(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        next_triggers(flatten_deployments([]), **{"start": START, **arguments})


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(MissingColumnError, match="schedule_timezone"):
        next_triggers(flatten_deployments([]).drop(columns="schedule_timezone"), start=START)


def test_the_argument_is_left_as_it_was() -> None:
    df = flatten_deployments([deployment(listed=at("16 09:00", "15 09:00")), deployment("dep_2", status="paused")])
    copy = df.copy(deep=True)
    triggers = next_triggers(df, "3D", start=START, include_paused=True)
    triggers.loc[:, "local_time"] = pd.NaT
    pd.testing.assert_frame_equal(df, copy)
    assert df["schedule_upcoming_runs_at"][0].tolist() == copy["schedule_upcoming_runs_at"][0].tolist()


def test_any_index_and_any_kind_of_list_will_do() -> None:
    """A frame may be filtered, sorted, or come from another reader of Parquet."""
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
    odd = df.sample(frac=1, random_state=1).set_index(pd.Index([7, 7, 7, 3, 3]))
    pd.testing.assert_frame_equal(next_triggers(odd, "3D", start=START), expected)


SCHEDULES = ["0 9 * * *", "*/30 * * * *", "0 0 1 * *", "30 2 * * 0", "0 8 13 * FRI", "nonsense"]


def random_fleet(draw: Random) -> list[dict[str, Any]]:
    """Draw deployments whose lists are a few triggers, or none, or something else."""
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
def test_a_fleet_at_once_is_the_same_as_one_by_one(include_paused: bool) -> None:  # noqa: FBT001
    """What is worked out once for all that are alike must be right for each."""
    records = random_fleet(Random(include_paused))  # noqa: S311 nothing secret
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataQualityWarning)
        df = flatten_deployments(records)
        together = next_triggers(df, "4D", start=START, include_paused=include_paused)
        unlisted = df.assign(schedule_upcoming_runs_at=None)
        expected = []
        for number, (record, listed) in enumerate(zip(records, df["schedule_upcoming_runs_at"], strict=True)):
            listed = np.unique([] if listed is None else listed).astype("datetime64[us]")  # noqa: PLW2901
            bare = next_triggers(unlisted[number : number + 1], "4D", start=START, include_paused=include_paused)
            rows = [(time, "cron") for time in bare["trigger_at"].dt.tz_localize(None).to_numpy()]
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


def test_a_sandbox_account_agrees_with_itself() -> None:
    """Its lists come from its cron texts, so no warning may be given, and the first trigger is the next one."""
    with Sandbox(deployments=120, seed=11) as sandbox:
        df, now = flatten_deployments(sandbox.deployments), sandbox.now
    next_triggers(df, "40D", start=now, include_paused=True)
    triggers = next_triggers(df, "40D", start=now)
    first = triggers.groupby("deployment_id", observed=True)["trigger_at"].min()
    active = df[df["archived_at"].isna() & (df["status"] == "active")]
    told = active[active["stats_next_trigger_at"].notna()]  # some have no cas_config
    expected = dict(zip(told["id"], told["stats_next_trigger_at"], strict=True))
    found = {id_: first.get(id_, expected[id_]) for id_ in expected}
    assert found == expected
    assert len(set(first.index) & set(expected)) > 50


@pytest.mark.parametrize(
    ("horizon", "message"),
    [(24, "horizon=24 is not a length of time, as it has no unit"), ("24", "has no unit"), ("99999D", None)],
)
def test_a_horizon_has_a_unit_and_may_be_long(horizon: str, message: str | None) -> None:
    df = flatten_deployments([])
    if message is None:
        assert next_triggers(df, horizon, start="2026-06-15T00:00Z").empty
        return
    with pytest.raises(ValueError, match=message):
        next_triggers(df, horizon)


def test_a_horizon_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(ValueError, match="horizon='2D' reaches beyond the year 9999"):
        next_triggers(flatten_deployments([]), "2D", start="9999-12-31T00:00Z")


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "Pacific/Kiritimati", "UTC"])
@pytest.mark.parametrize("start", ["0001-01-01T00:00Z", "9999-12-31T11:00Z"])
def test_triggers_at_the_ends_of_the_calendar(zone: str, start: str) -> None:
    """The local time of some lies beyond it."""
    triggers = next_triggers(flatten_deployments([deployment(cron="30 * * * *", zone=zone)]), "12h", start=start)
    offset = (triggers["local_time"] - triggers["trigger_at"].dt.tz_localize(None)).unique()
    assert (len(triggers), len(offset)) == (12, 1)
    assert abs(offset[0]) <= pd.Timedelta("14h")
    assert set(triggers["local_time"].dt.minute) == {30}
