"""Tests of `qoderdata.frames`: `flatten_deployments` and `flatten_runs` turn records into pandas frames."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from qca.managed import Managed

from qoderdata.decode import decoder, from_records
from qoderdata.errors import APIResponseValidationError, DataQualityWarning
from qoderdata.frame_checks import TEXT
from qoderdata.frames import flatten_deployments, flatten_runs
from qoderdata.sandbox import Sandbox
from qoderdata.schema import DEPLOYMENTS, RUNS

if TYPE_CHECKING:
    from collections.abc import Callable

RECORDS: list[dict[str, Any]] = [{"id": "a", "agent": {"version": 1}}, {"id": "b"}]


@pytest.mark.parametrize(
    "given",
    [
        RECORDS, tuple(RECORDS), (record for record in RECORDS), {"data": RECORDS, "has_more": True},
        {"data": tuple(RECORDS)},
    ],
    ids=["list", "tuple", "generator", "envelope", "tuple in an envelope"],
)  # fmt: skip
def test_flatten_accepts_lists_iterables_and_envelopes(given: Any) -> None:  # noqa: ANN401 - what callers write
    df = flatten_deployments(given)
    assert df["id"].tolist() == ["a", "b"]
    assert df["agent_version"].isna().tolist() == [False, True]
    assert df.attrs == {"source": "records"}


@pytest.mark.parametrize("given", [None, 5, "[]", b"{}", {"id": "a"}, {}, pd.DataFrame({"id": ["a"]})])
def test_flatten_refuses_other_types(given: Any) -> None:  # noqa: ANN401 - what callers write
    with pytest.raises(TypeError, match="records is a"):
        flatten_deployments(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": None}, "data is not a list"),
        ({"data": {"id": "a"}}, "data is not a list"),
        ([{"id": "a"}, None], "record 1 is not a dict with an 'id'"),
        ([[]], "record 0 is not a dict"),
        ([{"id": "a"}, {"name": "x"}], "record 1 is not a dict with an 'id' that is text"),
        ([{"id": None}], "record 0 is not a dict with"),
        ([{"id": 5}], "record 0 is not a dict with"),
        ([{"id": "\ud800"}], "record 0 is not a dict with"),
    ],
)
def test_one_invalid_record_raises_validation_error(given: Any, message: str) -> None:  # noqa: ANN401 - what callers write
    with pytest.raises(APIResponseValidationError, match=message):
        flatten_deployments(given)


@pytest.mark.parametrize(("flatten", "schema"), [(flatten_deployments, DEPLOYMENTS), (flatten_runs, RUNS)])
def test_no_records_give_an_empty_frame(
    flatten: Callable[[Any], pd.DataFrame],
    schema: Any,  # noqa: ANN401 - a schema
) -> None:
    empty = flatten([])
    full = flatten([{"id": "a"}])
    assert list(empty.columns) == schema.names
    assert empty.dtypes.equals(full.dtypes)
    assert isinstance(empty.index, pd.RangeIndex)
    assert len(empty) == 0


def test_dtypes_of_a_deployments_frame() -> None:
    df = flatten_deployments(RECORDS)
    kinds = {str(dtype) for dtype in df.dtypes}
    assert kinds == {"str", "Int64", "float64", "datetime64[us, UTC]", "object"}
    assert sorted(df.columns[df.dtypes == "object"]) == ["schedule_upcoming_runs_at", "vault_ids"]
    assert df["name"].dtype == pd.StringDtype(na_value=np.nan)


def test_lists_become_numpy_arrays() -> None:
    times = ["2026-06-15T01:00:00.123456789Z"]
    df = flatten_deployments(
        [{"id": "a", "vault_ids": ["v"], "schedule": {"upcoming_runs_at": times}}, {"id": "b"}]
    )
    vaults, upcoming = df["vault_ids"], df["schedule_upcoming_runs_at"]
    assert isinstance(vaults[0], np.ndarray)
    assert vaults[0].tolist() == ["v"]
    assert upcoming[0].dtype == np.dtype("datetime64[us]")
    assert upcoming[0].tolist() == [pd.Timestamp("2026-06-15T01:00:00.123456").to_pydatetime()]
    assert vaults[1] is None
    assert upcoming[1] is None


def test_later_of_two_records_with_one_id_is_kept_with_a_warning() -> None:
    given = [{"id": "a", "name": "old"}, {"id": "b"}, {"id": "a", "name": "new"}]
    with pytest.warns(DataQualityWarning, match=r"^1 deployment came more than once.*Ids: a$"):
        df = flatten_deployments(given)
    assert df["id"].tolist() == ["b", "a"]
    assert df["name"][1] == "new"


def test_one_warning_counts_all_misfits_and_names_the_first_ids() -> None:
    given = [{"id": f"d{number}", "name": number, "vault_ids": 1} for number in range(12)]
    with warnings.catch_warnings(record=True, action="always") as caught:
        flatten_deployments(given)
    (warning,) = caught
    assert warning.category is DataQualityWarning
    assert str(warning.message) == (
        "24 values of 12 deployments did not fit a column, which is missing there; 'extra' has the values "
        "(name: 12, vault_ids: 12). Ids: d0, d1, d2, d3, d4, d5, d6, d7, d8, d9 and 2 more"
    )


def test_ids_in_a_warning_are_escaped_and_shortened() -> None:
    with pytest.warns(DataQualityWarning, match=r"Ids: x �\[31m中9+…$") as caught:
        flatten_deployments([{"id": "x\n\x1b[31m中" + "9" * 500, "name": 1}])
    assert len(str(caught[0].message)) < 400


def test_records_are_decoded_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator is read in batches; there is one warning for all, and errors name the right index."""
    monkeypatch.setattr(decoder, "_BATCH", 3)
    given = [{"id": f"dep_{number}", "name": 5 if number % 2 else "x"} for number in range(10)]
    with pytest.warns(DataQualityWarning, match="^5 values of 5 deployments"):
        table = from_records(iter(given), DEPLOYMENTS)
    assert table.schema.equals(DEPLOYMENTS.arrow)
    assert table["id"].to_pylist() == [record["id"] for record in given]
    with pytest.raises(APIResponseValidationError, match="record 7 is"):
        from_records([*({"id": str(number)} for number in range(7)), {}], DEPLOYMENTS)


def test_flatten_does_not_change_the_records() -> None:
    given: dict[str, Any] = {"id": "a", "metadata": {"cas_config": {"stats": {}}, "x": "y"}}
    flatten_deployments([given])
    assert given == {"id": "a", "metadata": {"cas_config": {"stats": {}}, "x": "y"}}


def test_arrow_schema_does_not_depend_on_the_records() -> None:
    assert from_records([], RUNS).schema.equals(RUNS.arrow)
    assert from_records([{"id": "a"}], RUNS).schema.equals(RUNS.arrow)
    assert from_records([{"id": "a"}], RUNS)["started_at"].type == pa.timestamp("us", tz="UTC")


def test_flatten_accepts_records_of_the_official_sdk() -> None:
    """``to_dict()`` returns datetimes instead of texts, and orders the keys of typed objects differently."""
    with Sandbox(deployments=40, seed=3) as sandbox, Managed(pat=sandbox.pat, base_url=sandbox.base_url) as sdk:
        with warnings.catch_warnings():
            # The SDK's models do not foresee an object in metadata, and warn when they write one.
            warnings.filterwarnings("ignore", message="Pydantic serializer warnings")
            deployments = [item.to_dict() for item in sdk.deployments.list(include_archived=True, limit=100)]
            runs = [item.to_dict() for item in sdk.deployment_runs.list(limit=100)]
        found, expected = flatten_deployments(deployments), flatten_deployments(sandbox.deployments)
        typed = ["initial_events", "resources"]
        for name in typed:
            assert found[name].map(json.loads).tolist() == expected[name].map(json.loads).tolist()
        pd.testing.assert_frame_equal(found.drop(columns=typed), expected.drop(columns=typed))
        pd.testing.assert_frame_equal(flatten_runs(runs), flatten_runs(sandbox.runs))


def test_environment_variables_are_masked_in_displayed_frames() -> None:
    """`extra` keeps the values; every display of a frame or column masks them."""
    records: list[dict[str, Any]] = [
        {"id": "a", "environment_variables": "KEY=s3cret"},
        {"id": "b", "environment_variables": {"KEY": "s3cret", "EMPTY": ""}},
        {"id": "c", "owner": "x", "runtime": {"environment_variables": "KEY=s3cret"}},
        {"id": "d", "owners": [{"environment_variables": {"KEY": "s3cret"}}]},
    ]
    df = flatten_deployments(records)
    assert df["extra"].str.contains("s3cret").sum() == 4
    for shown in (df, df["extra"], df.head(1), df[["extra"]], pd.concat([df, df]), df[::-1], df.set_index("id")):
        assert "s3cret" not in repr(shown)
    assert "s3cret" not in repr(df["extra"].array) + repr(df["extra"].str[:35].array)
    assert "s3cret" not in df.to_html()
    assert "***" in repr(df["extra"])
    assert "owner" in repr(df["extra"])
    pd.testing.assert_frame_equal(df, df.assign(extra=df["extra"].astype("object").astype(TEXT)))
