"""Tests of `changes`: the differences between two deployments frames."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import qoderdata as qd
from qoderdata.sandbox import Sandbox
from qoderdata.summaries.deployment_changes import describe_change
from tests.sandbox_requests import active_deployments

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


def changes_of(**fields: Any) -> list[tuple[str, ...]]:  # noqa: ANN401
    """Change these fields of one deployment and nothing of another; return the rows of `changes`."""
    other = {**RECORD, "id": "dep_2"}
    after = copy.deepcopy(RECORD)
    for path, value in fields.items():
        *parents, key = path.split("__")
        target = after
        for step in parents:
            target = target[step]
        target[key] = value
    found = qd.changes(qd.flatten_deployments([RECORD, other]), qd.flatten_deployments([after, other]))
    assert set(found["deployment_id"]) <= {"dep_1"}
    return [
        tuple(row) for row in found[["change", "field", "before", "after"]].fillna("–").itertuples(index=False)
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"status": "paused", "paused_reason": {"type": "manual"}},
         [("paused", "status", "active", "paused by hand")]),
        ({"status": "paused", "paused_reason": {"type": "error", "error": {"type": "vault_not_found_error"}}},
         [("paused", "status", "active", "paused by error: vault_not_found_error")]),
        ({"paused_reason": {"type": "manual"}}, []),
        ({"schedule__expression": "0 8 * * *"}, [("schedule", "schedule_expression", "0 9 * * *", "0 8 * * *")]),
        ({"schedule__timezone": "Asia/Tokyo"}, [("schedule", "schedule_timezone", "UTC", "Asia/Tokyo")]),
        ({"schedule": None}, [("schedule", "schedule", "0 9 * * * UTC", "–")]),
        ({"schedule__type": "interval"}, [("schedule", "schedule_type", "cron", "interval")]),
        ({"metadata__cas_config__stats": {"total_runs": 6, "total_skipped": 1}}, []),
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
        ({"environment_variables": ""}, [("other", "extra.environment_variables", "***", "–")]),
        ({"resources": [{"environment_variables": {"TOKEN": "s3cret"}}]},
         [("other", "resources", "–", '[{"environment_variables":{"TOKEN":"***"}}]')]),
        ({"sidecars": [{"environment_variables": "TOKEN=s3cret"}]},
         [("other", "extra.sidecars", "–", '[{"environment_variables":"***"}]')]),
        ({"region": {"zone": 1}}, [("other", "extra.region.zone", "–", "1")]),
        ({"type": "other"}, [("other", "extra.type", "–", "other")]),
        ({"region": "", "labels": []}, []),
        ({"updated_at": "2026-06-15T00:00:00Z", "metadata__cas_config__stats": {"total_runs": 9},
          "schedule__last_run_at": "2026-06-15T00:00:00Z", "schedule__upcoming_runs_at": ["2026-06-16T00:00:00Z"]},
         []),
    ],
)  # fmt: skip
def test_rows_for_changed_fields(fields: dict[str, Any], expected: list[tuple[str, ...]]) -> None:
    assert changes_of(**fields) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (1, True, ("1", "true")), (0, False, ("0", "false")), (1, "1", ("1", "1")), (None, 0, ("–", "0")),
        (None, False, ("–", "false")), (False, None, ("false", "–")), ([1], [True], ("[1]", "[true]")),
        (None, "", None), ({}, None, None), (None, [], None),
    ],
)  # fmt: skip
def test_values_are_compared_as_json(before: Any, after: Any, expected: tuple[str, str] | None) -> None:  # noqa: ANN401 JSON
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
        assert [tuple(row) for row in rows] == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("1" * 5000, "2" * 5000, ("1" * 5000, "2" * 5000)),
        ("1" * 5000, "1" * 5000, None),
        (r'"\ud800"', r'"\udc00"', (r"\ud800", r"\udc00")),
        (r'["\ud800"]', r'["\ud800", 1]', (r'["\ud800"]', r'["\ud800",1]')),
        ("0.1", "0.10", None),
    ],
)
@pytest.mark.parametrize("key", ["a", r"\ud800", "日报"])
def test_values_that_python_cannot_encode_or_parse_by_default_are_compared(
    key: str, before: str, after: str, expected: tuple[str, str] | None
) -> None:
    """Python's own parser refuses integers of more than 4,300 digits, and no frame can hold half a character."""
    plain = qd.flatten_deployments([{**RECORD, "metadata": {}}])
    pair = [plain.assign(metadata=f'{{"{key}": {value}}}') for value in (before, after)]
    rows = qd.changes(*pair)[["field", "before", "after"]].itertuples(index=False)
    assert [tuple(row) for row in rows] == ([(f"metadata.{key}", *expected)] if expected else [])


@pytest.mark.filterwarnings("ignore:.*did not fit a column:qoderdata.errors.DataQualityWarning")
def test_next_triggers_and_times_that_do_not_fit_their_columns_are_no_changes() -> None:
    triggers = ["2026-06-16T09:00:00Z", "0001-01-01T00:00:00Z"]
    fields = {"updated_at": "now", "schedule__last_run_at": "soon", "schedule__upcoming_runs_at": triggers}
    assert changes_of(**fields) == []


def test_another_order_of_json_keys_is_no_change() -> None:
    one, other = ({**RECORD, "labels": [dict(pairs)]} for pairs in ([("a", 1), ("b", 2)], [("b", 2), ("a", 1)]))
    assert qd.changes(qd.flatten_deployments([one]), qd.flatten_deployments([other])).empty


def test_resumed_created_and_removed_deployments() -> None:
    paused = {**RECORD, "status": "paused", "paused_reason": {"type": "manual"}}
    gone, new = {**RECORD, "id": "dep_3", "name": "old"}, {**RECORD, "id": "dep_4", "name": "new"}
    found = qd.changes(qd.flatten_deployments([paused, gone]), qd.flatten_deployments([new, RECORD]))
    assert found[["name", "change", "field"]].to_numpy().tolist() == [
        ["new", "created", ""], ["nightly", "resumed", "status"], ["old", "removed", ""],
    ]  # fmt: skip
    assert found["before"].tolist()[1] == "paused by hand"


def test_missing_cas_config_of_the_newest_edition_is_no_change() -> None:
    plain = {**RECORD, "metadata": {"team": "data"}}
    assert qd.changes(qd.flatten_deployments([RECORD]), qd.flatten_deployments([plain])).empty


def test_a_column_that_an_earlier_version_did_not_have_is_no_change() -> None:
    """Version 0.1 kept the budget in `extra`."""
    new = qd.flatten_deployments([{**RECORD, "budget": {**RECORD["budget"], "currency": "credits"}}])
    extra = {"budget.max_credit_cost": "12.50", "budget.type": "limit", "environment_variables": "TOKEN=abc"}
    old = new.drop(columns="budget_max_credit_cost").assign(extra=pd.Series([json.dumps(extra)], dtype="str"))
    found = [qd.changes(old, new), qd.changes(new, old)]
    assert [one["field"].tolist() for one in found] == [["extra.budget.currency"]] * 2


def test_first_setting_of_a_kind_is_a_change() -> None:
    """Settings are left out only if a frame has none at all."""
    configured = copy.deepcopy(RECORD)
    configured["metadata"]["cas_config"]["config"]["max_retries"] = 3
    found = qd.changes(qd.flatten_deployments([RECORD]), qd.flatten_deployments([configured]))
    assert found[["change", "field", "after"]].to_numpy().tolist() == [["config", "config_max_retries", "3"]]


def test_first_setting_of_a_deployment_is_a_change_where_a_removed_one_had_settings() -> None:
    plain = {**RECORD, "metadata": {"team": "data"}}
    before = qd.flatten_deployments([plain, {**RECORD, "id": "dep_2"}])
    found = qd.changes(before, qd.flatten_deployments([RECORD]))
    assert found.loc[found["change"] == "config", "field"].tolist() == ["session_strategy", "config_timeout_ms"]


def test_a_setting_of_0_is_not_a_missing_setting() -> None:
    records = [{"id": "dep_1", "metadata": {"cas_config": {"config": {"max_retries": n}}}} for n in (0, 1)]
    found = qd.changes(*(qd.flatten_deployments([record]) for record in records))
    assert found[["field", "before", "after"]].to_numpy().tolist() == [["config_max_retries", "0", "1"]]


def test_a_status_that_was_missing_is_not_resumed() -> None:
    found = qd.changes(qd.flatten_deployments([{**RECORD, "status": None}]), qd.flatten_deployments([RECORD]))
    assert found[["change", "field", "after"]].to_numpy().tolist() == [["other", "status", "active"]]


@pytest.mark.parametrize("text", ["not json", "{", "[1]", "null"])
@pytest.mark.parametrize("column", ["metadata", "extra"])
def test_text_that_is_no_json_object_is_refused_by_name(column: str, text: str) -> None:
    some = qd.flatten_deployments([RECORD])
    with pytest.raises(ValueError, match=rf"{column} of the deployment 'dep_1' is not a JSON object"):
        qd.changes(some, some.assign(**{column: text}))


def test_empty_lists_and_the_order_of_keys_are_no_changes() -> None:
    empty: dict[str, Any] = {"resources": [], "initial_events": [], "vault_ids": []}
    old = qd.flatten_deployments([RECORD | dict.fromkeys(empty)])
    assert qd.changes(old, qd.flatten_deployments([RECORD | empty])).empty
    one, other = (
        qd.flatten_deployments([RECORD | {"resources": [dict(items), {"c": 3}], "vault_ids": ["v", "w"]}])
        for items in ([("a", 1), ("b", 2)], [("b", 2), ("a", 1)])
    )
    assert qd.changes(one, other).empty
    swapped = qd.flatten_deployments(
        [RECORD | {"resources": [{"c": 3}, {"a": 1, "b": 2}], "vault_ids": ["w", "v"]}]
    )
    assert set(qd.changes(one, swapped)["field"]) == {"resources", "vault_ids"}


def test_initial_events_as_text_equal_the_same_text_in_blocks() -> None:
    def frame_with_content(content: Any) -> pd.DataFrame:  # noqa: ANN401 JSON
        return qd.flatten_deployments(
            [{**RECORD, "initial_events": [{"type": "user.message", "content": content}]}]
        )

    old = frame_with_content("count 日报")
    assert qd.changes(old, frame_with_content([{"type": "text", "text": "count 日报"}])).empty
    assert qd.changes(frame_with_content([{"text": "count 日报", "type": "text"}]), old).empty
    for other in (
        "count",
        [{"type": "text", "text": "count"}],
        [],
        None,
        [{"type": "image", "text": "count 日报"}],
    ):
        assert qd.changes(old, frame_with_content(other))["field"].tolist() == ["initial_events"]
    assert qd.changes(old, qd.flatten_deployments([RECORD]))["field"].tolist() == ["initial_events"]
    for text in ("7", "null", "no JSON"):
        assert qd.changes(old, old.assign(initial_events=text))["field"].tolist() == ["initial_events"]


@pytest.mark.parametrize("edition", ["C", "D"])
def test_seven_changes_in_the_sandbox_give_seven_rows(edition: str) -> None:
    """New runs, counters and times of the other deployments give no rows."""
    with Sandbox(deployments=60, seed=7, runs=600, edition=edition) as sandbox:
        client = qd.Client(sandbox.pat, sandbox.base_url)
        before = qd.load_deployments(client=client, include_archived=True, refresh=True)
        active = [one for one in active_deployments(sandbox) if one["schedule"]]
        later = "2026-06-15T01:31:00Z"
        error = {"type": "error", "error": {"type": "vault_not_found_error"}}
        (created,) = sandbox.create_deployments(1)
        sandbox.archive(active[0]["id"])
        changed_fields: list[dict[str, Any]] = [
            {"status": "paused", "paused_reason": error},
            {"schedule": {**active[2]["schedule"], "expression": "0 8 * * *", "timezone": "Asia/Tokyo"}},
            {"agent": {**active[3]["agent"], "id": "agent_other", "version": 77}},
            {"environment_id": "env_other"},
            {"metadata": {**active[5]["metadata"], "team": "another team"}},
        ]
        for record, changed in zip(active[1:], changed_fields, strict=False):
            sandbox.rewrite({**record, "updated_at": later, **changed})
        sandbox.create_runs(90, status="failed")
        after = qd.load_deployments(client=client, include_archived=True, refresh=True)
    copies = before.copy(deep=True), after.copy(deep=True)
    found = qd.changes(before, after)
    expected = {
        created["id"]: "created", active[0]["id"]: "archived", active[1]["id"]: "paused",
        active[2]["id"]: "schedule", active[3]["id"]: "agent", active[4]["id"]: "environment",
        active[5]["id"]: "metadata",
    }  # fmt: skip
    assert len(found) == 7
    assert dict(zip(found["deployment_id"], found["change"], strict=True)) == expected
    pd.testing.assert_frame_equal(before, copies[0])
    pd.testing.assert_frame_equal(after, copies[1])
    assert qd.changes(after, after).empty


def test_a_frame_read_from_csv_equals_the_exported_frame(tmp_path: Path) -> None:
    """CSV masks environment variables, so their former values are not known and are not compared."""
    resources = [{"type": "file", "environment_variables": {"KEY": "s3cret"}}]
    nested = {"sidecar": {"environment_variables": "KEY=s3cret"}, "resources": resources}
    records = [{**RECORD, "vault_ids": ["vault_1", "vault_2"]}, {**RECORD, **nested, "id": "dep_2"}]
    fresh = qd.flatten_deployments(records)
    qd.export_csv(fresh, tmp_path / "deployments.csv")
    old = pd.read_csv(tmp_path / "deployments.csv", parse_dates=["created_at", "updated_at"])
    assert qd.changes(old, fresh).empty
    assert qd.changes(fresh, old).empty
    assert qd.changes(old, qd.flatten_deployments([RECORD, records[1]]))["field"].tolist() == ["vault_ids"]


def test_added_columns_of_any_dtype_are_compared() -> None:
    frame = qd.flatten_deployments([RECORD, {**RECORD, "id": "dep_2"}])
    before, after = frame.assign(failed=False, window="night"), frame.assign(failed=[True, False], window="night")
    found = qd.changes(before, after)
    assert found[["deployment_id", "field", "before", "after"]].to_numpy().tolist() == [
        ["dep_1", "failed", "False", "True"]
    ]


def test_empty_results_have_the_same_columns_and_dtypes() -> None:
    empty, some = qd.flatten_deployments([]), qd.flatten_deployments([RECORD])
    shapes = [qd.changes(*pair) for pair in ((empty, empty), (empty, some), (some, empty), (some, some))]
    assert [len(one) for one in shapes] == [0, 1, 1, 0]
    for one in shapes:
        assert list(one.columns) == ["deployment_id", "name", "change", "field", "before", "after"]
        assert set(map(str, one.dtypes)) == {"str"}
        assert isinstance(one.index, pd.RangeIndex)


def test_a_duplicate_id_is_refused() -> None:
    some = qd.flatten_deployments([RECORD])
    with pytest.raises(ValueError, match="twice"):
        qd.changes(some, pd.concat([some, some]))


LONG = "Compare the stock of three sites with the orders of the week, and list the articles that run out"
BLOCKS = [{"type": "text", "text": LONG}, {"type": "text", "text": "in five days."}]


def described(before: object, after: object) -> list[str]:
    """Return the words for the changes of a deployment whose initial events change."""
    frames = [qd.flatten_deployments([{**RECORD, "initial_events": events}]) for events in (before, after)]
    return [describe_change(row) for row in qd.changes(*frames).itertuples()]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([{"content": "short"}], "prompt Compare the stock of three sites wit…t run out in five days. → short"),
        ([{"content": f"{LONG} in six days."}], "prompt …hat run out in five days. → …hat run out in six days."),
        (None, "prompt Compare the stock of three sites wit…t run out in five days. → none"),
        ([{"content": [{"type": "image"}]}], '{"type":"image"}'),
        ([{"content": [*BLOCKS, {"type": "text", "text": 7}]}], '"text":7'),
        ([{"content": BLOCKS, "type": "system.message"}], '"type":"system.message"}]'),
    ],
)
def test_changed_prompt_is_shown_as_text_from_its_first_difference(after: object, expected: str) -> None:
    """Where the prompt cannot be read, or only the rest of the events changed, their JSON is shown."""
    (words,) = described([{"content": BLOCKS}], after)
    assert expected in words
    assert len(words) < 140


def test_a_text_that_became_longer_is_described() -> None:
    frames = [
        qd.flatten_deployments([{"id": "dep_1", "name": "job", "description": text}])
        for text in ("daily", "daily and weekly")
    ]
    (row,) = qd.changes(*frames).itertuples()
    assert describe_change(row) == "description daily → daily and weekly"


def test_paused_and_resumed_are_described_by_the_state() -> None:
    paused = {**RECORD, "status": "paused", "paused_reason": {"type": "manual"}}
    frames = [qd.flatten_deployments([record]) for record in (RECORD, paused)]
    found = pd.concat([qd.changes(*frames), qd.changes(*frames[::-1])])
    words = [describe_change(row) for row in found.itertuples()]
    assert words == ["paused by hand", "resumed (was paused by hand)"]
