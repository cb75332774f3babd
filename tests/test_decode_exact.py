"""What fits a column, what goes to ``extra``, and what leaves no trace, one value at a time."""

from __future__ import annotations

import enum
import json
import warnings
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qoderdata.decode.jsontext import DEEPEST
from qoderdata.errors import APIResponseValidationError, DataQualityWarning
from qoderdata.frames import flatten_deployments, flatten_runs

MISSING = None

#: record without id | column | its value | extra
FITTING: list[tuple[dict[str, Any], str, Any, dict[str, Any] | None]] = [
    # Texts, as they are.
    ({"name": ""}, "name", "", None),
    ({"name": "每日\n\x00=1+1"}, "name", "每日\n\x00=1+1", None),
    ({"description": None}, "description", MISSING, None),
    # Integers, exact up to 64 bits.
    ({"agent": {"version": 9007199254740993}}, "agent_version", 9007199254740993, None),
    ({"agent": {"version": 2**63 - 1}}, "agent_version", 2**63 - 1, None),
    ({"agent": {"version": -(2**63)}}, "agent_version", -(2**63), None),
    # Times, cut to microseconds, in UTC.
    ({"created_at": "2026-06-14T08:58:01Z"}, "created_at", "2026-06-14T08:58:01+00:00", None),
    ({"created_at": "2026-06-14T08:58:17.13334Z"}, "created_at", "2026-06-14T08:58:17.133340+00:00", None),
    ({"created_at": "2026-06-14T08:58:06.999999999Z"}, "created_at", "2026-06-14T08:58:06.999999+00:00", None),
    ({"created_at": "2026-06-14T08:58:01+08:00"}, "created_at", "2026-06-14T00:58:01+00:00", None),
    ({"created_at": "2026-06-14T08:58:01-00:30"}, "created_at", "2026-06-14T09:28:01+00:00", None),
    ({"created_at": "9999-12-31T23:59:59Z"}, "created_at", "9999-12-31T23:59:59+00:00", None),
    ({"created_at": "0001-01-01T00:00:01Z"}, "created_at", "0001-01-01T00:00:01+00:00", None),
    # Nothing happened yet.
    ({"created_at": "0001-01-01T00:00:00Z"}, "created_at", MISSING, None),
    ({"created_at": "0001-01-01T00:00:00.000Z"}, "created_at", MISSING, None),
    ({"created_at": None}, "created_at", MISSING, None),
    # Lists; an empty one is not an absent one.
    ({"vault_ids": []}, "vault_ids", [], None),
    ({"vault_ids": ["a", "b"]}, "vault_ids", ["a", "b"], None),
    ({"vault_ids": None}, "vault_ids", MISSING, None),
    ({"schedule": {"upcoming_runs_at": []}}, "schedule_upcoming_runs_at", [], None),
    # JSON text, canonical, keys as they came.
    ({"metadata": {}}, "metadata", "{}", None),
    ({"metadata": {"b": "é<&>", "a": None}}, "metadata", '{"b":"é<&>","a":null}', None),
    ({"metadata": {"cas_config": None, "b": 1}}, "metadata", '{"b":1}', None),
    ({"metadata": None}, "metadata", MISSING, None),
    ({"resources": [{"b": [], "a": 1}]}, "resources", '[{"b":[],"a":1}]', None),
    # Documented values of fields without a column, and null, leave no trace.
    ({"type": "deployment", "agent": {"type": "agent"}}, "agent_id", MISSING, None),
    ({"schedule": None, "paused_reason": None, "agent": None}, "schedule_type", MISSING, None),
    ({"owner": None, "schedule": {"jitter": None}}, "schedule_type", MISSING, None),
]

#: record without id | extra: fields that no column is for, kept in silence
UNKNOWN: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"owner": 5}, {"owner": 5}),
    (
        {"owner": {"limit": {"usd": 5}, "left": [1, {"a": None}]}},
        {"owner.limit.usd": 5, "owner.left": [1, {"a": None}]},
    ),
    ({"owner": {"a": None, "b": {}}}, {"owner.b": {}}),
    ({"owner": {}}, {"owner": {}}),
    ({"schedule": {}}, {"schedule": {}}),
    ({"metadata": {"cas_config": {}}}, {"metadata.cas_config": {}}),
    ({"schedule": {"jitter": "5s"}}, {"schedule.jitter": "5s"}),
    ({"metadata": {"cas_config": {"stats": {"skipped": 1}}}}, {"metadata.cas_config.stats.skipped": 1}),
    ({"type": "deployment_v2", "agent": {"type": "team"}}, {"agent.type": "team", "type": "deployment_v2"}),
    ({"type": {"kind": "deployment"}}, {"type.kind": "deployment"}),
    # Keys that look like paths lose nothing: a dot in a key is escaped.
    ({"a.b": 1, "a": {"b": 2}}, {"a\\.b": 1, "a.b": 2}),
    ({"a\\.b": 1, "a\\": {"b": 2}}, {"a\\\\\\.b": 1, "a\\\\.b": 2}),
    ({"": 1, "a": {"": 2}}, {"": 1, "a.": 2}),
    ({"agent_id": "x", "extra": "y"}, {"agent_id": "x", "extra": "y"}),
]

#: record without id | extra: values that do not fit their columns, with a warning
MISFITS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"name": 5}, {"name": 5}),
    ({"name": ["x"]}, {"name": ["x"]}),
    ({"name": {"en": "x", "de": None}}, {"name.en": "x"}),
    ({"name": False}, {"name": False}),
    ({"name": "half \ud83d"}, {"name": "half \ud83d"}),
    ({"agent": "agent_1"}, {"agent": "agent_1"}),
    ({"agent": []}, {"agent": []}),
    ({"agent": {"version": True}}, {"agent.version": True}),
    ({"agent": {"version": "1"}}, {"agent.version": "1"}),
    ({"agent": {"version": 3.0}}, {"agent.version": 3.0}),
    ({"agent": {"version": 2**63}}, {"agent.version": 2**63}),
    ({"agent": {"version": -(2**63) - 1}}, {"agent.version": -(2**63) - 1}),
    ({"schedule": "0 9 * * *"}, {"schedule": "0 9 * * *"}),
    # A list holds real times only: one bad one, and it does not fit as a whole.
    *(
        ({"schedule": {"upcoming_runs_at": listed}}, {"schedule.upcoming_runs_at": listed})
        for listed in (["2026-06-15T01:00:00Z", "soon"], [None], ["0001-01-01T00:00:00Z"], "2026-06-15T01:00:00Z")
    ),
    ({"vault_ids": ["a", 1]}, {"vault_ids": ["a", 1]}),
    ({"vault_ids": [None]}, {"vault_ids": [None]}),
    ({"vault_ids": {}}, {"vault_ids": {}}),
    ({"metadata": "team=data"}, {"metadata": "team=data"}),
    ({"metadata": {"cas_config": "none"}}, {"metadata.cas_config": "none"}),
    ({"metadata": {"cas_config": {"stats": [1]}}}, {"metadata.cas_config.stats": [1]}),
    ({"initial_events": {"a": 1}}, {"initial_events.a": 1}),
    ({"resources": ""}, {"resources": ""}),
]

BAD_TIMES = [
    *("", "soon", "2026-06-14", "2026-06-14T08:58:01", "2026-06-14 08:58:01Z", "2026-06-14t08:58:01z"),
    *("2026-06-14T08:58Z", "2026-06-14T08:58:01.Z", "2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z"),
    *("2026-06-14T24:00:00Z", "2026-06-14T23:59:60Z", "0000-12-31T23:59:59Z", "10000-01-01T00:00:00Z"),
    *("2026-06-14T08:58:01+24:00", "2026-06-14T08:58:01+08", "0001-01-01T00:00:00+00:01"),
    *(
        "9999-12-31T23:59:59-00:01",
        "2026-06-14T08:58:01Z ",
        "2026-06-14T08:58:01Z\n",
        "\uff12\uff1026-06-14T08:58:01Z",
    ),
    *(1781427481, 0, True, {}, ["2026-06-14T08:58:01Z"]),
]


def flat(record: dict[str, Any]) -> tuple[pd.Series[Any], dict[str, Any] | None]:
    row = flatten_deployments([{"id": "dep_1", **record}]).iloc[0]
    return row, None if pd.isna(row["extra"]) else json.loads(row["extra"])


def plain(value: Any) -> Any:  # noqa: ANN401 - any cell
    if isinstance(value, np.ndarray):
        return value.tolist()
    if value is None or pd.isna(value):
        return MISSING
    return value.isoformat() if isinstance(value, pd.Timestamp) else value


@pytest.mark.parametrize(("record", "column", "value", "extra"), FITTING)
def test_what_fits(record: dict[str, Any], column: str, value: object, extra: dict[str, Any] | None) -> None:
    row, found = flat(record)
    assert plain(row[column]) == value
    assert found == extra


@pytest.mark.parametrize(("record", "extra"), UNKNOWN)
def test_what_is_unknown_is_kept_in_silence(record: dict[str, Any], extra: dict[str, Any]) -> None:
    row, found = flat(record)
    assert found == extra
    assert row.drop(["id", "extra", "metadata"]).map(plain).isna().all()


@pytest.mark.parametrize(("record", "extra"), MISFITS)
def test_what_does_not_fit_is_kept_with_a_warning(record: dict[str, Any], extra: dict[str, Any]) -> None:
    with pytest.warns(DataQualityWarning, match=r"^1 value of 1 deployment .* Ids: dep_1$"):
        row, found = flat(record)
    assert found == extra
    assert row.drop(["id", "extra", "metadata"]).map(plain).isna().all()


@pytest.mark.parametrize("value", BAD_TIMES)
def test_what_is_no_time_does_not_fit(value: object) -> None:
    with pytest.warns(DataQualityWarning, match="created_at: 1"):
        row, found = flat({"created_at": value})
    assert pd.isna(row["created_at"])
    assert found == {"created_at": value}


def test_a_partly_wrong_object_keeps_its_right_parts() -> None:
    with pytest.warns(DataQualityWarning, match=r"2 values of 1 deployment .*agent\.id: 1, schedule\.type: 1"):
        row, found = flat({"agent": {"id": 7, "version": 2}, "schedule": {"type": [], "timezone": "UTC"}})
    assert (row["agent_version"], row["schedule_timezone"]) == (2, "UTC")
    assert found == {"agent.id": 7, "schedule.type": []}


def test_extra_is_canonical_and_sorted() -> None:
    """Sorted by path, but objects inside lists as they came; non-ASCII as it is, half a pair as its escape."""
    row, _ = flat({"b": "é\ud83d", "a.c": [{"z": 1, "a": 2}], "a": {"é": 1.5}})
    assert row["extra"] == r'{"a.é":1.5,"a\\.c":[{"z":1,"a":2}],"b":"é\ud83d"}'


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 6, 14, 8, 58, 17, 133340, tzinfo=UTC),
        datetime(2026, 6, 14, 16, 58, 17, 133340, tzinfo=timezone(timedelta(hours=8))),
        pd.Timestamp("2026-06-14T08:58:17.133340999Z"),
    ],
)
def test_datetimes_are_times(value: datetime) -> None:
    row, found = flat({"created_at": value, "schedule": {"upcoming_runs_at": [value]}, "owner": {"at": value}})
    assert row["created_at"] == pd.Timestamp("2026-06-14T08:58:17.133340Z")
    assert row["schedule_upcoming_runs_at"].tolist() == [datetime(2026, 6, 14, 8, 58, 17, 133340)]  # noqa: DTZ001
    assert found == {"owner.at": "2026-06-14T08:58:17.13334Z"}


def test_a_datetime_without_zone_is_no_guess() -> None:
    with pytest.warns(DataQualityWarning, match="updated_at: 1"):
        row, found = flat({"created_at": pd.NaT, "updated_at": datetime(2026, 6, 14, 8, 58, 17)})  # noqa: DTZ001
    assert row[["created_at", "updated_at"]].isna().all()
    assert found == {"updated_at": "2026-06-14T08:58:17"}


def test_a_datetime_that_has_no_utc_does_not_fit() -> None:
    with pytest.warns(DataQualityWarning, match="created_at: 1"):
        _, found = flat({"created_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))})
    assert found == {"created_at": "0001-01-01T00:00:00+01:00"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1}, b"x", object(), {1: 2}, {"a": {None: 1}}])
@pytest.mark.parametrize("key", ["owner", "metadata", "name"])
def test_what_has_no_json_form_is_an_error(key: str, value: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataQualityWarning)
        if key == "metadata":
            value = {"team": value}
        with pytest.raises(APIResponseValidationError, match=r"no JSON form|JSON keys are strings"):
            flat({key: value})


class Version(enum.IntEnum):
    """A subclass of `int`: a search for one in a range looks at every number."""

    NEWEST = 2**62


def test_a_subclass_of_int_is_a_number() -> None:
    row, found = flat({"agent": {"version": Version.NEWEST}, "owner": Version.NEWEST})
    assert row["agent_version"] == 2**62
    assert found == {"owner": 2**62}


@pytest.mark.parametrize("value", [10**5000, -(10**5000), [10**5000]], ids=["large", "small", "in a list"])
@pytest.mark.parametrize("key", ["owner", "metadata", "name"])
def test_an_integer_that_python_does_not_write_is_our_error(key: str, value: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataQualityWarning)
        with pytest.raises(APIResponseValidationError, match="more than 4,300 digits"):
            flat({key: {"team": value} if key == "metadata" else value})


@pytest.mark.parametrize("key", ["owner", "metadata", "initial_events", "name"])
def test_what_is_nested_without_end_is_an_error(key: str) -> None:
    for value in (endless_list(), endless_object()):
        with pytest.raises(APIResponseValidationError, match="levels deep"):
            flat({key: value})


def endless_list() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def endless_object() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["again"] = value
    return value


def test_deep_values_are_kept() -> None:
    value: Any = 1
    for _ in range(DEEPEST - 1):
        value = [value]
    _, found = flat({"owner": value})
    assert found == {"owner": value}


def test_runs() -> None:
    run = {
        "id": "drun_1",
        "type": "deployment_run",
        "trigger_context": {"type": "retry", "of": "drun_0"},
        "error": {"type": "timeout", "message": "took too long", "code": 7},
        "cas_run_extras": {"attempt": 2, "turn_id": "turn_1", "started_at": "2026-06-14T08:58:17Z"},
    }
    row = flatten_runs([run]).iloc[0]
    names = ["trigger_type", "error_type", "error_message", "attempt", "turn_id"]
    assert row[names].tolist() == ["retry", "timeout", "took too long", 2, "turn_1"]
    assert row["started_at"] == pd.Timestamp("2026-06-14T08:58:17Z")
    assert json.loads(row["extra"]) == {"error.code": 7, "trigger_context.of": "drun_0"}
