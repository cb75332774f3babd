"""What changed between two frames: these changes, in these words, and nothing else."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import qoderdata as qd
from qoderdata.errors import MissingColumnError
from qoderdata.sandbox import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

RECORD: dict[str, Any] = {
    "id": "dep_1", "name": "nightly", "description": "a report", "status": "active",
    "agent": {"id": "agent_1", "version": 3}, "environment_id": "env_1",
    "created_at": "2026-06-01T00:00:00Z", "updated_at": "2026-06-01T00:00:00Z",
    "schedule": {"type": "cron", "expression": "0 9 * * *", "timezone": "UTC"},
    "budget": {"type": "limit", "max_credit_cost": "12.50"}, "vault_ids": ["vault_1"],
    "metadata": {
        "team": "data",
        "cas_config": {"session_strategy": "new", "config": {"timeout_ms": 60000}, "stats": {"total_runs": 5}},
    },
    "environment_variables": "TOKEN=abc",
}  # fmt: skip


def change(**facts: Any) -> list[tuple[str, ...]]:  # noqa: ANN401
    """Return the rows for one deployment that got these facts, beside one that stays."""
    other = {**RECORD, "id": "dep_2"}
    after = copy.deepcopy(RECORD)
    for path, value in facts.items():
        *above, key = path.split("__")
        place = after
        for step in above:
            place = place[step]
        place[key] = value
    found = qd.changes(qd.flatten_deployments([RECORD, other]), qd.flatten_deployments([after, other]))
    assert set(found["deployment_id"]) <= {"dep_1"}
    return [
        tuple(row) for row in found[["change", "field", "before", "after"]].fillna("–").itertuples(index=False)
    ]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, []),
        ({"status": "paused", "paused_reason": {"type": "manual"}},
         [("paused", "status", "active", "paused by hand")]),
        ({"status": "paused", "paused_reason": {"type": "error", "error": {"type": "vault_not_found_error"}}},
         [("paused", "status", "active", "paused by error: vault_not_found_error")]),
        ({"schedule__expression": "0 8 * * *"}, [("schedule", "schedule_expression", "0 9 * * *", "0 8 * * *")]),
        ({"schedule__timezone": "Asia/Tokyo"}, [("schedule", "schedule_timezone", "UTC", "Asia/Tokyo")]),
        ({"schedule": None}, [("schedule", "schedule", "0 9 * * * UTC", "–")]),
        ({"agent": {"id": "agent_2", "version": 1}}, [("agent", "agent", "agent_1 3", "agent_2 1")]),
        ({"agent__version": 4}, [("agent", "agent_version", "3", "4")]),
        ({"environment_id": "env_2"}, [("environment", "environment_id", "env_1", "env_2")]),
        ({"budget__max_credit_cost": "1234567.89"},
         [("config", "budget_max_credit_cost", "12.5", "1234567.89")]),
        ({"metadata__cas_config__config__timeout_ms": 90000}, [("config", "config_timeout_ms", "60000", "90000")]),
        ({"metadata__team": "web", "metadata__owner": "Zoë"},
         [("metadata", "metadata.team", "data", "web"), ("metadata", "metadata.owner", "–", "Zoë")]),
        ({"name": "daily", "description": None},
         [("other", "name", "nightly", "daily"), ("other", "description", "a report", "–")]),
        ({"vault_ids": ["vault_1", "vault_2"]},
         [("other", "vault_ids", '["vault_1"]', '["vault_1","vault_2"]')]),
        ({"archived_at": "2026-06-15T00:00:00Z", "name": "nightly_archived_1781481600"},
         [("archived", "archived_at", "–", "2026-06-15T00:00:00+00:00")]),
        ({"environment_variables": "TOKEN=def"},
         [("other", "extra.environment_variables", "***", "***")]),
        ({"resources": [{"environment_variables": {"TOKEN": "s3cret"}}]},
         [("other", "resources", "–", '[{"environment_variables":{"TOKEN":"***"}}]')]),
        ({"sidecars": [{"environment_variables": "TOKEN=s3cret"}]},
         [("other", "extra.sidecars", "–", '[{"environment_variables":"***"}]')]),
        ({"region": {"zone": 1}}, [("other", "extra.region.zone", "–", "1")]),
        ({"region": "", "labels": []}, []),
        ({"updated_at": "2026-06-15T00:00:00Z", "metadata__cas_config__stats": {"total_runs": 9},
          "schedule__last_run_at": "2026-06-15T00:00:00Z", "schedule__upcoming_runs_at": ["2026-06-16T00:00:00Z"]},
         []),
    ],
)  # fmt: skip
def test_one_change(facts: dict[str, Any], expected: list[tuple[str, ...]]) -> None:
    assert change(**facts) == expected


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (1, True, ("1", "true")), (0, False, ("0", "false")), (1, "1", ("1", "1")), (None, 0, ("–", "0")),
        (None, False, ("–", "false")), (False, None, ("false", "–")), ([1], [True], ("[1]", "[true]")),
        (None, "", None), ({}, None, None), (None, [], None),
    ],
)  # fmt: skip
def test_values_are_compared_as_json(before: Any, after: Any, shown: tuple[str, str] | None) -> None:  # noqa: ANN401 JSON
    frames = [
        qd.flatten_deployments([{**RECORD, "labels": {} if value is None else {"a": value}}])
        for value in (before, after)
    ]
    given = [{**RECORD, "metadata": {} if value is None else {"a": value}} for value in (before, after)]
    for name, pair in (
        ("extra.labels.a", frames),
        ("metadata.a", [qd.flatten_deployments([one]) for one in given]),
    ):
        found = qd.changes(*pair)
        rows = found.loc[found["field"] == name, ["before", "after"]].fillna("–").itertuples(index=False)
        assert [tuple(row) for row in rows] == ([shown] if shown else [])


def test_the_order_of_keys_is_no_change() -> None:
    one, other = ({**RECORD, "labels": [dict(pairs)]} for pairs in ([("a", 1), ("b", 2)], [("b", 2), ("a", 1)]))
    assert qd.changes(qd.flatten_deployments([one]), qd.flatten_deployments([other])).empty


def test_resumed_created_and_removed() -> None:
    paused = {**RECORD, "status": "paused", "paused_reason": {"type": "manual"}}
    gone, new = {**RECORD, "id": "dep_3", "name": "old"}, {**RECORD, "id": "dep_4", "name": "new"}
    found = qd.changes(qd.flatten_deployments([paused, gone]), qd.flatten_deployments([new, RECORD]))
    assert found[["name", "change", "field"]].to_numpy().tolist() == [
        ["new", "created", ""], ["nightly", "resumed", "status"], ["old", "removed", ""],
    ]  # fmt: skip
    assert found["before"].tolist()[1] == "paused by hand"


def test_the_newest_edition_takes_no_settings_away() -> None:
    plain = {**RECORD, "metadata": {"team": "data"}}
    assert qd.changes(qd.flatten_deployments([RECORD]), qd.flatten_deployments([plain])).empty


def test_the_newest_edition_writes_the_same_initial_events_in_blocks() -> None:
    def told(content: Any) -> pd.DataFrame:  # noqa: ANN401 JSON
        return qd.flatten_deployments(
            [{**RECORD, "initial_events": [{"type": "user.message", "content": content}]}]
        )

    old = told("count 日报")
    assert qd.changes(old, told([{"type": "text", "text": "count 日报"}])).empty
    assert qd.changes(told([{"text": "count 日报", "type": "text"}]), old).empty
    for other in (
        "count",
        [{"type": "text", "text": "count"}],
        [],
        None,
        [{"type": "image", "text": "count 日报"}],
    ):
        assert qd.changes(old, told(other))["field"].tolist() == ["initial_events"]
    assert qd.changes(old, qd.flatten_deployments([RECORD]))["field"].tolist() == ["initial_events"]
    for odd in ("7", "null", "no JSON"):
        assert qd.changes(old, old.assign(initial_events=odd))["field"].tolist() == ["initial_events"]


@pytest.mark.parametrize("edition", ["C", "D"])
def test_a_fleet_that_changed_in_seven_ways_shows_these_seven(edition: str) -> None:
    """Runs, counters and time move on for all; the seven changes are all that is shown."""
    with Sandbox(deployments=60, seed=7, runs=600, edition=edition) as sandbox:
        client = qd.Client(sandbox.pat, sandbox.base_url)
        before = qd.load_deployments(client=client, include_archived=True, refresh=True)
        fine = [
            one for one in sandbox.deployments
            if one["status"] == "active" and not one["archived_at"] and one["schedule"]
        ]  # fmt: skip
        later = "2026-06-15T01:31:00Z"
        error = {"type": "error", "error": {"type": "vault_not_found_error"}}
        (created,) = sandbox.create_deployments(1)
        sandbox.archive(fine[0]["id"])
        facts: list[dict[str, Any]] = [
            {"status": "paused", "paused_reason": error},
            {"schedule": {**fine[2]["schedule"], "expression": "0 8 * * *", "timezone": "Asia/Tokyo"}},
            {"agent": {**fine[3]["agent"], "id": "agent_other", "version": 77}},
            {"environment_id": "env_other"},
            {"metadata": {**fine[5]["metadata"], "team": "another team"}},
        ]
        for record, fact in zip(fine[1:], facts, strict=False):
            sandbox.rewrite({**record, "updated_at": later, **fact})
        sandbox.create_runs(90, status="failed")
        after = qd.load_deployments(client=client, include_archived=True, refresh=True)
    copies = before.copy(deep=True), after.copy(deep=True)
    found = qd.changes(before, after)
    expected = {
        created["id"]: "created", fine[0]["id"]: "archived", fine[1]["id"]: "paused", fine[2]["id"]: "schedule",
        fine[3]["id"]: "agent", fine[4]["id"]: "environment", fine[5]["id"]: "metadata",
    }  # fmt: skip
    assert len(found) == 7
    assert dict(zip(found["deployment_id"], found["change"], strict=True)) == expected
    pd.testing.assert_frame_equal(before, copies[0])
    pd.testing.assert_frame_equal(after, copies[1])
    assert qd.changes(after, after).empty


def test_a_frame_from_csv_equals_the_one_that_was_exported(tmp_path: Path) -> None:
    """CSV masks environment variables, so that what they were is not known."""
    records = [{**RECORD, "vault_ids": ["vault_1", "vault_2"]}, {**RECORD, "id": "dep_2"}]
    fresh = qd.flatten_deployments(records)
    qd.export_csv(fresh, tmp_path / "deployments.csv")
    old = pd.read_csv(tmp_path / "deployments.csv", parse_dates=["created_at", "updated_at"])
    assert qd.changes(old, fresh).empty
    assert qd.changes(fresh, old).empty
    assert qd.changes(old, qd.flatten_deployments([RECORD, records[1]]))["field"].tolist() == ["vault_ids"]


def test_columns_of_a_users_own_may_hold_anything() -> None:
    frame = qd.flatten_deployments([RECORD, {**RECORD, "id": "dep_2"}])
    before, after = frame.assign(failed=False, window="night"), frame.assign(failed=[True, False], window="night")
    found = qd.changes(before, after)
    assert found[["deployment_id", "field", "before", "after"]].to_numpy().tolist() == [
        ["dep_1", "failed", "False", "True"]
    ]


def test_nothing_is_an_empty_frame_of_the_same_shape() -> None:
    empty, some = qd.flatten_deployments([]), qd.flatten_deployments([RECORD])
    shapes = [qd.changes(*pair) for pair in ((empty, empty), (empty, some), (some, empty), (some, some))]
    assert [len(one) for one in shapes] == [0, 1, 1, 0]
    for one in shapes:
        assert list(one.columns) == ["deployment_id", "name", "change", "field", "before", "after"]
        assert set(map(str, one.dtypes)) == {"str"}
        assert isinstance(one.index, pd.RangeIndex)
    with pytest.raises(ValueError, match="twice"):
        qd.changes(some, pd.concat([some, some]))
    with pytest.raises(MissingColumnError, match="status"):
        qd.changes(some.drop(columns="status"), some)
