"""Tests of `upcoming_runs`, `expand_metadata` and `with_outcomes`, which derive frames, and of `is_in`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from qoderdata.errors import DataQualityWarning, MissingColumnError
from qoderdata.frame_checks import TEXT
from qoderdata.frames import (
    expand_metadata,
    flatten_deployments,
    flatten_runs,
    flatten_sessions,
    is_in,
    rows_before,
    upcoming_runs,
    with_names,
    with_outcomes,
)
from tests.engine_frames import ENGINES, opened, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable


def deployment(name: str, **fields: object) -> dict[str, object]:
    return {"id": name, **fields}


@pytest.mark.parametrize("dtype", [TEXT, object])
@pytest.mark.parametrize("kind", [pd.Series, pd.Index])
def test_is_in_gives_the_result_of_isin(dtype: Any, kind: Callable[..., Any]) -> None:  # noqa: ANN401 - any dtype
    ids = kind(["a", "b", None, "a", "d"], dtype=dtype)
    for others in (["a", "c", "a"], ["d", None], [None], []):
        known = kind(others, dtype=dtype)
        np.testing.assert_array_equal(is_in(ids, known), ids.isin(known))


def test_rows_before_keeps_rows_without_a_time() -> None:
    times = [pd.Timestamp("2026-06-14T12:00Z"), pd.NaT, pd.Timestamp("2026-06-15T12:00Z")]
    kept = rows_before(pd.DataFrame({"at": times}), "at", pd.Timestamp("2026-06-15T12:00Z"))
    assert kept.index.tolist() == [0, 1]


class TestUpcomingRuns:
    @pytest.fixture
    def df(self) -> pd.DataFrame:
        first = ["2026-06-15T01:00:00Z", "2026-06-16T01:00:00.5Z"]
        return flatten_deployments(
            [
                deployment("dep_1", schedule={"upcoming_runs_at": first}),
                deployment("dep_2", schedule=None),
                deployment("dep_3", schedule={"upcoming_runs_at": []}),
                deployment("dep_4", schedule={"upcoming_runs_at": ["2026-06-15T00:00:00Z"]}),
            ]
        )

    def test_each_listed_trigger_gives_one_row(self, df: pd.DataFrame) -> None:
        before = df.copy(deep=True)
        expected = pd.DataFrame(
            {
                "deployment_id": pd.Series(["dep_1", "dep_1", "dep_4"], dtype=TEXT),
                "position": np.array([0, 1, 0], dtype=np.int64),
                "upcoming_run_at": pd.to_datetime(
                    ["2026-06-15T01:00:00Z", "2026-06-16T01:00:00.5Z", "2026-06-15T00:00:00Z"], format="ISO8601"
                ).as_unit("us"),
            }
        )
        pd.testing.assert_frame_equal(upcoming_runs(df), expected)
        pd.testing.assert_frame_equal(df, before)

    @pytest.mark.parametrize("rows", [slice(0, 0), slice(1, 3)])
    def test_no_listed_triggers_give_an_empty_frame(self, df: pd.DataFrame, rows: slice) -> None:
        empty = upcoming_runs(df[rows])
        pd.testing.assert_frame_equal(empty, upcoming_runs(df)[:0])
        assert isinstance(empty.index, pd.RangeIndex)

    def test_index_of_the_frame_is_ignored(self, df: pd.DataFrame) -> None:
        shuffled = df.set_index(pd.Index(["x", "x", "y", "z"]))
        pd.testing.assert_frame_equal(upcoming_runs(shuffled), upcoming_runs(df))

    @pytest.mark.parametrize("kind", [list, tuple])
    def test_lists_of_times_in_another_zone_give_the_same_result(self, df: pd.DataFrame, kind: type) -> None:
        lists = df["schedule_upcoming_runs_at"].map(
            lambda times: kind(pd.DatetimeIndex(times, tz="UTC").tz_convert("Asia/Tokyo")), na_action="ignore"
        )
        given = df.assign(schedule_upcoming_runs_at=lists)
        pd.testing.assert_frame_equal(upcoming_runs(given), upcoming_runs(df))


class TestExpandMetadata:
    @pytest.fixture
    def df(self) -> pd.DataFrame:
        return flatten_deployments(
            [
                deployment("dep_1", metadata={"team": "数据", "cas_config": {"session_strategy": "new_session"}}),
                deployment("dep_2", metadata={"owner": "", "team": None, "cost": 1.50, "tags": ["a"]}),
                deployment("dep_3", metadata={}),
                deployment("dep_4"),
                deployment("dep_5", metadata={"team": "half \ud83d", "half \ud83d key": "x"}),
            ]
        ).set_index(pd.Index(list("abcde")))

    def test_every_metadata_key_becomes_a_text_column(self, df: pd.DataFrame) -> None:
        before = df.copy(deep=True)
        found = expand_metadata(df)
        assert list(found.columns) == [
            *df.columns,
            *("metadata_cost", "metadata_owner", "metadata_tags", "metadata_team"),
        ]
        assert set(found.dtypes[len(df.columns) :].astype(str)) == {"str"}
        assert found["metadata_team"].dropna().to_dict() == {"a": "数据", "e": r'"half \ud83d"'}
        assert found["metadata_owner"].dropna().to_dict() == {"b": ""}
        assert found["metadata_tags"].dropna().to_dict() == {"b": '["a"]'}
        assert found["metadata_cost"].dropna().to_dict() == {"b": "1.5"}
        pd.testing.assert_frame_equal(df, before)
        pd.testing.assert_frame_equal(found[df.columns], df)

    @pytest.mark.parametrize("keys", [["team", "nobody's"], "team", ()])
    def test_only_the_given_keys_become_columns(self, df: pd.DataFrame, keys: list[str] | str) -> None:
        chosen = [keys] if isinstance(keys, str) else keys
        found = expand_metadata(df, keys)
        assert list(found.columns) == [*df.columns, *(f"metadata_{key}" for key in chosen)]
        assert found.dtypes[len(df.columns) :].map(str).eq("str").all()

    @pytest.mark.parametrize("keys", [5, True, [None]])
    def test_keys_that_are_no_texts_raise_type_error(self, df: pd.DataFrame, keys: Any) -> None:  # noqa: ANN401
        with pytest.raises(TypeError, match="must be a key of the metadata, such as 'team', or a list of keys"):
            expand_metadata(df, keys)
        with pytest.raises(TypeError, match=r"^metadata=.* must be a key of the metadata"):
            with_names(df, df, metadata=keys)

    def test_dicts_give_the_same_result_as_json_text(self, df: pd.DataFrame) -> None:
        dicts = df["metadata"].map(json.loads, na_action="ignore").astype(object)
        found = expand_metadata(df.assign(metadata=dicts))
        pd.testing.assert_frame_equal(found.drop(columns="metadata"), expand_metadata(df).drop(columns="metadata"))

    def test_metadata_that_is_not_a_json_object_raises_value_error(self, df: pd.DataFrame) -> None:
        for text in ("[]", "nonsense", '"x"', "[" * 100_000):
            with pytest.raises(ValueError, match="in the column metadata is not a JSON object; pass the frame"):
                expand_metadata(df.assign(metadata=text))


class TestWithOutcomes:
    SESSIONS = flatten_sessions([{"id": f"sess_{number}", "title": f"no. {number}"} for number in range(30)])
    #: Some sessions have several runs, some none; the times of runs are in no order, and some are missing.
    RECORDS: tuple[dict[str, Any], ...] = tuple(
        {
            "id": f"drun_{number}",
            "session_id": f"sess_{session}" if session < 40 else None,
            "status": ["completed", "failed", "waiting", None][number % 4],
            "triggered_at": f"2026-06-{day:02}T00:00:00Z" if day else None,
        }
        for number, session, day in ((number, 17 * number % 45, 11 * number % 29) for number in range(60))
    )
    RUNS = flatten_runs(list(RECORDS))

    def expected(self) -> list[str | None]:
        newest: dict[str | None, tuple[str, str | None]] = {}
        for record in self.RECORDS:
            time, session = record["triggered_at"] or "", record["session_id"]
            if session not in newest or time > newest[session][0]:
                newest[session] = (time, record["status"])
        return [newest.get(name, ("", None))[1] for name in self.SESSIONS["id"]]

    def test_outcome_is_the_status_of_the_newest_run_of_each_session(self) -> None:
        expected = self.expected()
        assert {"completed", "failed", "waiting", None} == set(expected)
        given = self.SESSIONS.set_axis(range(100, 130))
        before = given.copy(deep=True)
        found = with_outcomes(given, self.RUNS)
        assert [value if isinstance(value, str) else None for value in found["outcome"]] == expected
        assert found["outcome"].dtype == TEXT
        pd.testing.assert_frame_equal(found.drop(columns="outcome"), before)
        pd.testing.assert_frame_equal(given, before)
        pd.testing.assert_frame_equal(with_outcomes(found, self.RUNS), found)

    @pytest.mark.parametrize("engine", ENGINES)
    def test_other_engines_give_the_outcomes_of_pandas(self, engine: str) -> None:
        found = with_outcomes(opened(self.SESSIONS[["id", "title"]], engine), opened(self.RUNS, engine))
        rows = sorted(rows_of(found), key=lambda row: int(row["id"].removeprefix("sess_")))
        assert [row["outcome"] for row in rows] == self.expected()

    def test_empty_frames_give_a_text_column(self) -> None:
        assert with_outcomes(self.SESSIONS[:0], self.RUNS)["outcome"].dtype == TEXT
        assert with_outcomes(self.SESSIONS, self.RUNS[:0])["outcome"].isna().all()

    def test_frames_of_another_kind_are_refused_or_give_a_warning(self) -> None:
        with pytest.raises(MissingColumnError, match=r"the runs frame has no column 'session_id', .*load_runs"):
            with_outcomes(self.SESSIONS, self.SESSIONS)
        with pytest.raises(MissingColumnError, match=r"its index has 'id': pass sessions.reset_index\(\)"):
            with_outcomes(self.SESSIONS.set_index("id"), self.RUNS)
        with pytest.warns(
            DataQualityWarning, match=r"none of the 60 ids in id, which begin with drun_, .*load_sessions"
        ):
            with_outcomes(self.RUNS, self.RUNS)
