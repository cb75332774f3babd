"""Tests of `qoderdata.errors`: class hierarchy, attributes and texts of the exceptions."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoderdata import errors, failure_rates, flatten_deployments, flatten_runs, missed_triggers

if TYPE_CHECKING:
    from collections.abc import Callable

EXCEPTIONS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, Exception) and kind.__module__ == errors.__name__
]


@pytest.mark.parametrize(
    ("kind", "parent"),
    [
        (errors.CredentialError, errors.QoderdataError),
        (errors.CacheError, errors.QoderdataError),
        (errors.MissingColumnError, errors.QoderdataError),
        (errors.MissingColumnError, KeyError),
        (errors.APIError, errors.QoderdataError),
        (errors.APIConnectionError, errors.APIError),
        (errors.APITimeoutError, errors.APIConnectionError),
        (errors.APIStatusError, errors.APIError),
        (errors.BadRequestError, errors.APIStatusError),
        (errors.AuthenticationError, errors.APIStatusError),
        (errors.PermissionDeniedError, errors.APIStatusError),
        (errors.NotFoundError, errors.APIStatusError),
        (errors.ConflictError, errors.APIStatusError),
        (errors.RateLimitError, errors.APIStatusError),
        (errors.InternalServerError, errors.APIStatusError),
        (errors.APIResponseValidationError, errors.APIError),
        (errors.PaginationError, errors.APIError),
        (errors.DataQualityWarning, UserWarning),
    ],
)
def test_exception_is_a_subclass(kind: type[Exception], parent: type[Exception]) -> None:
    assert issubclass(kind, parent)


def test_class_names_equal_those_of_the_official_sdk() -> None:
    """Users of the SDK know the names of these exceptions already."""
    import qca  # noqa: PLC0415 - slow to import, and used only here

    shared = {kind.__name__ for kind in EXCEPTIONS if issubclass(kind, errors.APIError)} & set(dir(qca))
    assert {"APIError", "APIConnectionError", "APITimeoutError", "APIStatusError", "NotFoundError"} <= shared


@pytest.mark.parametrize(
    ("status", "kind"),
    [(301, errors.APIStatusError), (408, errors.APIStatusError), (599, errors.InternalServerError)],
)
def test_class_of_other_statuses_than_the_documented_ones(status: int, kind: type[errors.APIStatusError]) -> None:
    """Those of documented statuses are in `test_client_errors`."""
    assert errors.status_error_class(status) is kind


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({}, "no"),
        ({"request_id": "req_1"}, "no [request id req_1]"),
        ({"attempts": 1}, "no [1 attempt]"),
        ({"attempts": 6, "seconds": 14.26}, "no [6 attempts in 14.3 s]"),
        ({"pages": 0}, "no [after 0 pages]"),
        ({"pages": 1, "records": 0}, "no [after 1 page, 0 records]"),
        (
            {"pages": 3, "records": 3000, "attempts": 2, "seconds": 0.5, "request_id": "r"},
            "no [2 attempts in 0.5 s; after 3 pages, 3000 records; request id r]",
        ),
    ],
)
def test_text_ends_with_the_attributes(facts: dict[str, object], text: str) -> None:
    error = errors.APIError("no")
    vars(error).update(facts)
    assert str(error) == text


@pytest.mark.parametrize("kind", EXCEPTIONS)
def test_exception_is_unchanged_by_pickling_and_copying(kind: type[Exception]) -> None:
    error = kind("what happened")
    error.retry_after = 7.0  # type: ignore[attr-defined] # set after construction, as in the package
    error.add_note("a note")
    for duplicate in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301 - made by this test
        assert type(duplicate) is kind
        assert str(duplicate) == str(error) == "what happened"
        assert vars(duplicate) == vars(error)


class TestRequireColumns:
    def test_present_columns_raise_nothing(self) -> None:
        errors.require_columns(["a", "b"], ["b"], what="runs")

    @pytest.mark.parametrize(
        ("present", "text"),
        [
            (
                ["b", 7],
                "the runs frame has no column 'a', 'c'; it has: b, 7; pass the frame that load_runs returns",
            ),
            ([], "the runs frame has no column 'a', 'c'; it has: none; pass the frame that load_runs returns"),
        ],
    )
    def test_missing_columns_are_named(self, present: list[object], text: str) -> None:
        """The message is not quoted, although ``str`` of a ``KeyError`` quotes it."""
        with pytest.raises(errors.MissingColumnError) as caught:
            errors.require_columns(present, ["a", "c"], what="runs")
        assert str(caught.value) == text

    def test_missing_column_that_is_an_index_level_is_named_with_what_makes_it_a_column(self) -> None:
        text = "the runs frame has no column 'a', 'c'; it has: b; its index has 'c': pass runs.reset_index()"
        with pytest.raises(errors.MissingColumnError, match=f"^{re.escape(text)}$"):
            errors.require_columns(["b"], ["a", "c"], what="runs", levels=["c", None])

    @given(present=st.lists(st.text(max_size=3)), wanted=st.lists(st.text(max_size=3)))
    def test_raises_if_and_only_if_a_column_is_missing(self, present: list[str], wanted: list[str]) -> None:
        try:
            errors.require_columns(present, wanted, what="x")
        except errors.MissingColumnError:
            assert set(wanted) - set(present)
        else:
            assert set(wanted) <= set(present)


@pytest.mark.parametrize(
    "call",
    [
        lambda: flatten_deployments([{"id": "dep_1", "name": 5}]),
        lambda: flatten_runs([{"id": "drun_1"}, {"id": "drun_1"}]),
        lambda: failure_rates(
            flatten_deployments(
                [{"id": "dep_1", "metadata": {"cas_config": {"stats": {"total_runs": 1, "total_failures": 2}}}}]
            )
        ),
        lambda: missed_triggers(
            flatten_deployments([{"id": "dep_1", "schedule": {"expression": "never", "timezone": "UTC"}}]),
            flatten_runs([]),
            since="2026-06-14T00:00Z",
            until="2026-06-15T00:00Z",
        ),
    ],
    ids=["value of the wrong type", "duplicate id", "more failures than runs", "invalid cron expression"],
)
def test_warning_points_at_the_line_of_the_caller(call: Callable[[], object]) -> None:
    """Otherwise Python would show equal warnings from different calls only once."""
    with pytest.warns(errors.DataQualityWarning) as caught:
        call()
    assert [warning.filename for warning in caught] == [__file__]
