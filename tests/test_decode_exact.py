"""Tests of `qoderdata.decode.exact`: which values fit a column, go to ``extra``, or are dropped."""

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

#: Record without its id, column, value of the column, ``extra``.
FITTING: list[tuple[dict[str, Any], str, Any, dict[str, Any] | None]] = [
    # Texts are unchanged.
    ({"name": ""}, "name", "", None),
    ({"name": "每日\n\x00=1+1"}, "name", "每日\n\x00=1+1", None),
    ({"description": None}, "description", MISSING, None),
    # Integers are exact up to 64 bits.
    ({"agent": {"version": 9007199254740993}}, "agent_version", 9007199254740993, None),
    ({"agent": {"version": 2**63 - 1}}, "agent_version", 2**63 - 1, None),
    ({"agent": {"version": -(2**63)}}, "agent_version", -(2**63), None),
    # Times are truncated to microseconds, in UTC.
    ({"created_at": "2026-06-14T08:58:01Z"}, "created_at", "2026-06-14T08:58:01+00:00", None),
    ({"created_at": "2026-06-14T08:58:17.13334Z"}, "created_at", "2026-06-14T08:58:17.133340+00:00", None),
    ({"created_at": "2026-06-14T08:58:06.999999999Z"}, "created_at", "2026-06-14T08:58:06.999999+00:00", None),
    ({"created_at": "2026-06-14T08:58:01+08:00"}, "created_at", "2026-06-14T00:58:01+00:00", None),
    ({"created_at": "2026-06-14T08:58:01-00:30"}, "created_at", "2026-06-14T09:28:01+00:00", None),
    ({"created_at": "9999-12-31T23:59:59Z"}, "created_at", "9999-12-31T23:59:59+00:00", None),
    ({"created_at": "0001-01-01T00:00:01Z"}, "created_at", "0001-01-01T00:00:01+00:00", None),
    # The zero time and null mean that nothing has happened yet.
    ({"created_at": "0001-01-01T00:00:00Z"}, "created_at", MISSING, None),
    ({"created_at": "0001-01-01T00:00:00.000Z"}, "created_at", MISSING, None),
    ({"created_at": None}, "created_at", MISSING, None),
    # An empty list is not a missing list.
    ({"vault_ids": []}, "vault_ids", [], None),
    ({"vault_ids": ["a", "b"]}, "vault_ids", ["a", "b"], None),
    ({"vault_ids": None}, "vault_ids", MISSING, None),
    ({"schedule": {"upcoming_runs_at": []}}, "schedule_upcoming_runs_at", [], None),
    # JSON text is canonical; the order of keys is kept.
    ({"metadata": {}}, "metadata", "{}", None),
    ({"metadata": {"b": "é<&>", "a": None}}, "metadata", '{"b":"é<&>","a":null}', None),
    ({"metadata": {"cas_config": None, "b": 1}}, "metadata", '{"b":1}', None),
    ({"metadata": None}, "metadata", MISSING, None),
    ({"resources": [{"b": [], "a": 1}]}, "resources", '[{"b":[],"a":1}]', None),
    # Documented values of fields without a column are dropped, and so is null.
    ({"type": "deployment", "agent": {"type": "agent"}}, "agent_id", MISSING, None),
    ({"schedule": None, "paused_reason": None, "agent": None}, "schedule_type", MISSING, None),
    ({"owner": None, "schedule": {"jitter": None}}, "schedule_type", MISSING, None),
]

#: Record without its id, ``extra``: fields without a column, kept without a warning.
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
    # A dot or backslash in a key is escaped, so that keys and paths cannot be confused.
    ({"a.b": 1, "a": {"b": 2}}, {"a\\.b": 1, "a.b": 2}),
    ({"a\\.b": 1, "a\\": {"b": 2}}, {"a\\\\\\.b": 1, "a\\\\.b": 2}),
    ({"": 1, "a": {"": 2}}, {"": 1, "a.": 2}),
    ({"agent_id": "x", "extra": "y"}, {"agent_id": "x", "extra": "y"}),
]

#: Record without its id, ``extra``: values that do not fit their columns, kept with a warning.
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
    # One invalid time makes the whole list not fit.
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


def decode(record: dict[str, Any]) -> tuple[pd.Series[Any], dict[str, Any] | None]:
    row = flatten_deployments([{"id": "dep_1", **record}]).iloc[0]
    return row, None if pd.isna(row["extra"]) else json.loads(row["extra"])


def plain_value(value: Any) -> Any:  # noqa: ANN401 - any cell
    if isinstance(value, np.ndarray):
        return value.tolist()
    if value is None or pd.isna(value):
        return MISSING
    return value.isoformat() if isinstance(value, pd.Timestamp) else value


@pytest.mark.parametrize(("record", "column", "value", "extra"), FITTING)
def test_fitting_values_go_to_their_column(
    record: dict[str, Any], column: str, value: object, extra: dict[str, Any] | None
) -> None:
    row, found = decode(record)
    assert plain_value(row[column]) == value
    assert found == extra


@pytest.mark.parametrize(("record", "extra"), UNKNOWN)
def test_unknown_fields_go_to_extra_without_a_warning(record: dict[str, Any], extra: dict[str, Any]) -> None:
    row, found = decode(record)
    assert found == extra
    assert row.drop(["id", "extra", "metadata"]).map(plain_value).isna().all()


@pytest.mark.parametrize(("record", "extra"), MISFITS)
def test_values_that_do_not_fit_go_to_extra_with_a_warning(record: dict[str, Any], extra: dict[str, Any]) -> None:
    with pytest.warns(DataQualityWarning, match=r"^1 value of 1 deployment .* Ids: dep_1$"):
        row, found = decode(record)
    assert found == extra
    assert row.drop(["id", "extra", "metadata"]).map(plain_value).isna().all()


@pytest.mark.parametrize("value", BAD_TIMES)
def test_invalid_times_go_to_extra_with_a_warning(value: object) -> None:
    with pytest.warns(DataQualityWarning, match="created_at: 1"):
        row, found = decode({"created_at": value})
    assert pd.isna(row["created_at"])
    assert found == {"created_at": value}


def test_valid_fields_of_a_partly_invalid_object_are_kept() -> None:
    with pytest.warns(DataQualityWarning, match=r"2 values of 1 deployment .*agent\.id: 1, schedule\.type: 1"):
        row, found = decode({"agent": {"id": 7, "version": 2}, "schedule": {"type": [], "timezone": "UTC"}})
    assert (row["agent_version"], row["schedule_timezone"]) == (2, "UTC")
    assert found == {"agent.id": 7, "schedule.type": []}


def test_extra_is_canonical_json_sorted_by_path() -> None:
    """Paths are sorted, keys inside lists are not; only lone surrogates are escaped."""
    row, _ = decode({"b": "é\ud83d", "a.c": [{"z": 1, "a": 2}], "a": {"é": 1.5}})
    assert row["extra"] == r'{"a.é":1.5,"a\\.c":[{"z":1,"a":2}],"b":"é\ud83d"}'


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 6, 14, 8, 58, 17, 133340, tzinfo=UTC),
        datetime(2026, 6, 14, 16, 58, 17, 133340, tzinfo=timezone(timedelta(hours=8))),
        pd.Timestamp("2026-06-14T08:58:17.133340999Z"),
    ],
)
def test_datetimes_with_a_zone_fit_time_columns(value: datetime) -> None:
    row, found = decode({"created_at": value, "schedule": {"upcoming_runs_at": [value]}, "owner": {"at": value}})
    assert row["created_at"] == pd.Timestamp("2026-06-14T08:58:17.133340Z")
    assert row["schedule_upcoming_runs_at"].tolist() == [datetime(2026, 6, 14, 8, 58, 17, 133340)]  # noqa: DTZ001
    assert found == {"owner.at": "2026-06-14T08:58:17.13334Z"}


def test_datetime_without_a_zone_goes_to_extra_with_a_warning() -> None:
    with pytest.warns(DataQualityWarning, match="updated_at: 1"):
        row, found = decode({"created_at": pd.NaT, "updated_at": datetime(2026, 6, 14, 8, 58, 17)})  # noqa: DTZ001
    assert row[["created_at", "updated_at"]].isna().all()
    assert found == {"updated_at": "2026-06-14T08:58:17"}


def test_datetime_outside_the_utc_range_goes_to_extra_with_a_warning() -> None:
    with pytest.warns(DataQualityWarning, match="created_at: 1"):
        _, found = decode({"created_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))})
    assert found == {"created_at": "0001-01-01T00:00:00+01:00"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        *((value, "no JSON form") for value in (float("nan"), float("inf"), {1}, b"x", object())),
        *((value, "JSON keys are strings") for value in ({1: 2}, {"a": {None: 1}})),
    ],
)
@pytest.mark.parametrize("key", ["owner", "metadata", "name"])
def test_value_without_a_json_form_raises_validation_error(key: str, value: object, message: str) -> None:
    with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
        if key == "metadata":
            value = {"team": value}
        with pytest.raises(APIResponseValidationError, match=message):
            decode({key: value})


class Version(enum.IntEnum):
    """A subclass of `int`, for which ``in range(...)`` is a slow linear search."""

    NEWEST = 2**62


def test_subclass_of_int_fits_an_integer_column() -> None:
    row, found = decode({"agent": {"version": Version.NEWEST}, "owner": Version.NEWEST})
    assert row["agent_version"] == 2**62
    assert found == {"owner": 2**62}


@pytest.mark.parametrize("value", [10**5000, -(10**5000), [10**5000]], ids=["large", "small", "in a list"])
@pytest.mark.parametrize("key", ["owner", "metadata", "name"])
@pytest.mark.filterwarnings("ignore::qoderdata.errors.DataQualityWarning")
def test_integer_of_more_than_4300_digits_raises_validation_error(key: str, value: object) -> None:
    with pytest.raises(APIResponseValidationError, match="more than 4,300 digits"):
        decode({key: {"team": value} if key == "metadata" else value})


@pytest.mark.parametrize("key", ["owner", "metadata", "initial_events", "name"])
def test_self_containing_value_raises_validation_error(key: str) -> None:
    for value in (self_containing_list(), self_containing_object()):
        with pytest.raises(APIResponseValidationError, match="levels deep"):
            decode({key: value})


def self_containing_list() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def self_containing_object() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["again"] = value
    return value


def test_value_at_the_depth_limit_is_kept() -> None:
    value: Any = 1
    for _ in range(DEEPEST - 1):
        value = [value]
    _, found = decode({"owner": value})
    assert found == {"owner": value}


def test_fields_of_a_run_go_to_their_columns() -> None:
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
