"""Tests of `frame_checks`: lost dtypes are converted where that is unambiguous, else an error says how."""

from __future__ import annotations

import io
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import qoderdata as qd
from qoderdata import frame_checks, schema
from qoderdata.errors import FRAME_SOURCES, DataQualityWarning, FrameTypeError, MissingColumnError, QoderdataError
from qoderdata.frame_checks import TEXT
from tests.analysis_calls import (
    CALLS,
    DEPLOYMENT_FUNCTIONS,
    DEPLOYMENTS,
    MISSED,
    RUN_FUNCTIONS,
    RUNS,
    SESSIONS,
    START,
    TRIGGERS,
    Function,
    expected,
    stamp,
)
from tests.engine_frames import collected, opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_check_has_findings_that_come_from_the_sessions() -> None:
    """Otherwise the calls of `check` with converted sessions would prove nothing."""
    assert "over_budget" in expected("check-sessions")["kind"].tolist()


def through_csv(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(frame.to_csv(index=False)))


def without_zones(frame: pd.DataFrame) -> pd.DataFrame:
    aware = frame.select_dtypes("datetimetz")
    return frame.assign(**{str(name): aware[name].dt.tz_localize(None) for name in aware})


def through_parquet_to_arrow(frame: pd.DataFrame) -> pd.DataFrame:
    file = io.BytesIO()
    frame.to_parquet(file)
    return pd.read_parquet(file, dtype_backend="pyarrow")


def with_columns_in_the_index(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_index([str(name) for name in frame if frame[name].dtype != object], drop=False)


def with_floats_and_objects(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype(
        dict.fromkeys(frame.select_dtypes("Int64"), "float64") | dict.fromkeys(text_columns(frame), "object")
    )


#: Conversions in which no value is lost or ambiguous.
UNAMBIGUOUS: dict[str, Function] = {
    "convert_dtypes": lambda frame: frame.convert_dtypes(),
    "Parquet to Arrow dtypes": through_parquet_to_arrow,
    "floats for integers, objects for text, an index of many columns": lambda frame: with_floats_and_objects(
        with_columns_in_the_index(frame)
    ),
    "times in ns and another zone, categories for text, an index column": lambda frame: frame.astype(
        # The windows have the zone of `trigger_at`.
        {
            name: f"datetime64[ns, {'UTC' if name == 'trigger_at' else 'Asia/Tokyo'}]"
            for name in time_columns(frame)
        }
        | dict.fromkeys(text_columns(frame), "category")
    ).set_index(frame.columns[0], drop=False),
    "Polars and back, a constant index": lambda frame: (
        pl.DataFrame(pa.Table.from_pandas(frame)).to_pandas().set_axis([7] * len(frame))
    ),
}
#: Those that change the most, each alone.
OTHER_CONVERSIONS: dict[str, Function] = {
    "convert_dtypes": UNAMBIGUOUS["convert_dtypes"],
    "Parquet to Arrow dtypes": through_parquet_to_arrow,
    "floats for integers, objects for text": with_floats_and_objects,
    "an index of many columns": with_columns_in_the_index,
}
#: Conversions after which times are text or have no zone, or the value is not a frame.
AMBIGUOUS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "CSV": through_csv,
    "times without a zone": without_zones,
    "integers for times": lambda frame: frame.assign(**{name: range(len(frame)) for name in time_columns(frame)}),
    "a list of dicts": lambda frame: frame.to_dict("records"),
    "a series": lambda frame: frame.iloc[:, 0],
    "None": lambda _: None,
    "a path": lambda _: "runs.parquet",
}


def time_columns(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.select_dtypes("datetimetz")]


def text_columns(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame if frame[name].dtype == TEXT]


@pytest.mark.parametrize("conversion", UNAMBIGUOUS)
@pytest.mark.parametrize(
    ("call", "function", "frame"), [call[:3] for call in CALLS], ids=[call[0] for call in CALLS]
)
def test_unambiguous_dtypes_are_converted_and_give_the_same_result(
    call: str, function: Function, frame: pd.DataFrame, conversion: str
) -> None:
    """The result is the same, including the dtypes."""
    given = UNAMBIGUOUS[conversion](frame)
    copy = given.copy(deep=True)
    result = function(given)
    pd.testing.assert_frame_equal(result, expected(call))
    pd.testing.assert_frame_equal(given, copy)


def error_and_result(function: Function, given: Any) -> tuple[FrameTypeError | None, pd.DataFrame]:  # noqa: ANN401 anything
    try:
        return None, function(given)
    except FrameTypeError as error:
        return error, pd.DataFrame()


#: Arguments that may be ``None``; the result then differs.
NONE_IS_VALID = {"error_budget-missed", "check-runs", "check-sessions"}
#: Calls that need no column with times.
NO_TIMES_NEEDED = {
    "failure_rates-deployments", "failure_rates by agent-deployments", "consistency-deployments",
    "unusual_runs-deployments", "expand_metadata-deployments", "run_failure_rates-runs", "cost_forecast-sessions",
}  # fmt: skip
#: For each ambiguous conversion, the calls that need none of the lost columns, or not the frame at all.
UNAFFECTED: dict[str, set[str]] = {
    "CSV": NO_TIMES_NEEDED | {"schedule_lints-deployments", "fill_counters-deployments"},
    "times without a zone": NO_TIMES_NEEDED | {
        f"{name}-deployments"
        for name in ("schedule_lints", "fill_counters", "next_triggers", "cost_forecast", "upcoming_runs")
    },
    "integers for times": NO_TIMES_NEEDED | {"upcoming_runs-deployments"},
    "None": {"unusual_runs-deployments"},
}  # fmt: skip


def calls_with(conversion: str, *, is_affected: bool) -> list[Any]:
    """Return the parameters of the calls that need, or do not need, what an ambiguous conversion loses."""
    return [
        pytest.param(*call, conversion, id=f"{call[0]}-{conversion}")
        for call in CALLS
        if (call[0] not in UNAFFECTED.get(conversion, ())) == is_affected
        and not (conversion == "None" and call[0] in NONE_IS_VALID)
    ]


@pytest.mark.parametrize(
    ("call", "function", "frame", "kind", "conversion"),
    [parameters for conversion in AMBIGUOUS for parameters in calls_with(conversion, is_affected=True)],
)
def test_error_about_a_lost_dtype_says_how_to_restore_it(
    call: str, function: Function, frame: pd.DataFrame, kind: str, conversion: str
) -> None:
    del call  # it only names the case
    given = AMBIGUOUS[conversion](frame)
    with pytest.raises(FrameTypeError) as caught:
        function(given)
    error = caught.value
    assert isinstance(error, QoderdataError)
    assert f"pass the frame that {FRAME_SOURCES[kind]} returns" in str(error)
    if isinstance(given, pd.DataFrame):
        assert error.column in given.columns
        assert f"column {error.column!r} of the {kind} frame" in str(error)
        is_list = error.column == "schedule_upcoming_runs_at"
        own = f"{kind}[columns] = " if "so do others" in str(error) else f"{kind}[{error.column!r}] = "
        assert ("use Parquet" if is_list else own) in str(error)
    else:
        assert error.column is None
        assert f"{kind} must be a" in str(error)


@pytest.mark.parametrize(
    ("call", "function", "frame", "kind", "conversion"),
    [parameters for conversion in AMBIGUOUS for parameters in calls_with(conversion, is_affected=False)],
)
def test_lost_dtypes_of_columns_that_are_not_needed_change_nothing(
    call: str, function: Function, frame: pd.DataFrame, kind: str, conversion: str
) -> None:
    del kind
    pd.testing.assert_frame_equal(function(AMBIGUOUS[conversion](frame)), expected(call))


EVENTS = qd.flatten_events(
    [
        {"id": "event_1", "type": "session.status_running", "processed_at": stamp(0)},
        {"id": "event_2", "type": "session.status_idle", "stop_reason": {"type": "end_turn"}},
    ],
    "sess_0",
)
RUNS_WITHOUT_STATUS = RUNS.iloc[:3].assign(status=RUNS["status"].iloc[:0], session_id="sess_0")
#: The other functions that take frames: they return pictures, files, or the argument with more columns. With the
#: argument, and what the errors call it.
OTHER_FUNCTIONS: dict[str, tuple[Callable[[Any], object], pd.DataFrame, str]] = {
    "plot_failure_rates": (qd.plot_failure_rates, qd.failure_rates(DEPLOYMENTS), "rates"),
    "plot_run_failure_rates": (qd.plot_run_failure_rates, qd.run_failure_rates(RUNS, freq="1D"), "rates"),
    "plot_costs": (qd.plot_costs, qd.session_costs(SESSIONS), "costs"),
    "plot_run_calendar": (qd.plot_run_calendar, RUNS, "runs"),
    "plot_durations": (qd.plot_durations, RUNS, "runs"),
    "plot_run_timeline": (qd.plot_run_timeline, RUNS, "runs"),
    "plot_run_timeline, missed": (lambda missed: qd.plot_run_timeline(RUNS, missed=missed), MISSED, "missed"),
    "plot_run_timeline, triggers": (
        lambda triggers: qd.plot_run_timeline(RUNS, triggers=triggers), TRIGGERS, "triggers",
    ),
    "plot_next_triggers": (qd.plot_next_triggers, TRIGGERS, "triggers"),
    "plot_trigger_load": (qd.plot_trigger_load, TRIGGERS, "triggers"),
    "write_report": (lambda df: qd.write_report(df, os.devnull, start=START), DEPLOYMENTS, "deployments"),
    "write_report, runs": (
        lambda runs: qd.write_report(DEPLOYMENTS, os.devnull, runs=runs, start=START), RUNS, "runs",
    ),
    "with_names": (lambda runs: qd.with_names(runs, DEPLOYMENTS), RUNS, "frame"),
    "with_names, sessions": (
        lambda sessions: qd.with_names(RUNS, DEPLOYMENTS, agents=sessions), SESSIONS, "(agents|sessions)",
    ),
    "with_outcomes, runs": (lambda runs: qd.with_outcomes(SESSIONS, runs), RUNS, "runs"),
    "resolve_outcomes": (
        lambda runs: qd.resolve_outcomes(runs, SESSIONS, EVENTS), RUNS_WITHOUT_STATUS, "runs",
    ),
    "resolve_outcomes, sessions": (
        lambda sessions: qd.resolve_outcomes(RUNS_WITHOUT_STATUS, sessions, EVENTS), SESSIONS, "sessions",
    ),
    "resolve_outcomes, events": (
        lambda events: qd.resolve_outcomes(RUNS_WITHOUT_STATUS, SESSIONS, events), EVENTS, "events",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def report_page(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the page of the unchanged frames."""
    path = tmp_path_factory.mktemp("report") / "x.html"
    qd.write_report(DEPLOYMENTS, path, runs=RUNS, start=START)
    return path.read_bytes()


@pytest.mark.parametrize("conversion", list(UNAMBIGUOUS)[:3])
def test_report_of_converted_frames_is_the_same_page(report_page: bytes, conversion: str, tmp_path: Path) -> None:
    convert = UNAMBIGUOUS[conversion]
    qd.write_report(convert(DEPLOYMENTS), tmp_path / "x.html", runs=convert(RUNS), start=START)
    assert (tmp_path / "x.html").read_bytes() == report_page


#: For each of the other functions, the ambiguous conversions that it accepts: it needs none of the lost columns,
#: reads times with an offset from text, or does not need the frame.
ACCEPTED: dict[str, tuple[str, ...]] = {
    "plot_failure_rates": ("times without a zone", "integers for times"),
    "plot_run_failure_rates": ("times without a zone", "integers for times"),
    "plot_costs": ("times without a zone", "integers for times"),
    "plot_durations": ("CSV", "times without a zone", "integers for times"),
    "with_names": ("CSV", "times without a zone", "integers for times"),
    "plot_run_timeline, missed": ("None",),
    "plot_run_timeline, triggers": ("None",),
    "write_report, runs": ("None",),
    "with_names, sessions": ("None",),
    "resolve_outcomes": ("CSV",),
    "resolve_outcomes, sessions": ("CSV", "None"),
    "resolve_outcomes, events": ("CSV", "None"),
}
#: Functions whose argument has its times or keys in the index, conversions that lose it, and the error.
LOST_INDEX = {
    ("plot_run_failure_rates", "CSV"): "not over time",
    ("plot_run_failure_rates", "an index of many columns"): "not over time",
    ("plot_failure_rates", "CSV"): "no keys",
    ("plot_costs", "CSV"): "no keys",
}


@pytest.mark.parametrize(
    ("name", "conversion"),
    [
        (name, conversion)
        for name in OTHER_FUNCTIONS
        for conversion in AMBIGUOUS
        if conversion not in ACCEPTED.get(name, ()) and (name, conversion) not in LOST_INDEX
    ],
)
def test_other_functions_raise_frame_type_error_for_lost_dtypes(name: str, conversion: str) -> None:
    function, frame, what = OTHER_FUNCTIONS[name]
    message = rf"^({what} must be a .*; pass the frame that |column '\w+' of the {what} frame )"
    with pytest.raises(FrameTypeError, match=message):
        function(AMBIGUOUS[conversion](frame))


@pytest.mark.parametrize(
    ("name", "conversion"),
    [
        (name, conversion)
        for name in OTHER_FUNCTIONS
        for conversion in (
            *ACCEPTED.get(name, ()), *(() if name.startswith("write_report") else OTHER_CONVERSIONS)
        )
        if (name, conversion) not in LOST_INDEX
    ],
)  # fmt: skip
def test_other_functions_accept_frames_that_have_all_they_need(name: str, conversion: str) -> None:
    function, frame, _ = OTHER_FUNCTIONS[name]
    function({**AMBIGUOUS, **OTHER_CONVERSIONS}[conversion](frame))


def test_each_public_plot_is_among_the_other_functions() -> None:
    plots = {name for name in dir(qd) if name.startswith("plot_")} - {"plot_style"}
    assert plots <= OTHER_FUNCTIONS.keys()


@pytest.mark.parametrize(("name", "conversion"), LOST_INDEX)
def test_plots_of_summaries_without_their_index_raise_value_error(name: str, conversion: str) -> None:
    function, frame, _ = OTHER_FUNCTIONS[name]
    with pytest.raises(ValueError, match=LOST_INDEX[name, conversion]):
        function({**AMBIGUOUS, **OTHER_CONVERSIONS}[conversion](frame))


@pytest.mark.parametrize("conversion", ["CSV", "times without a zone"])
def test_conversion_named_in_the_error_restores_the_times(conversion: str) -> None:
    runs = AMBIGUOUS[conversion](RUNS)
    scope = {"pd": pd, "runs": runs}
    error, result = error_and_result(qd.failure_streaks, runs)
    while error is not None:
        text = str(error)
        statement = text[text.index("columns = " if "columns = " in text else "runs[") :].partition(" (or")[0]
        exec(statement, scope)  # noqa: S102 - the statement in the error message
        column, (error, result) = error.column, error_and_result(qd.failure_streaks, runs)
        assert error is None or error.column != column
    pd.testing.assert_frame_equal(result, qd.failure_streaks(RUNS))


@pytest.mark.parametrize(
    ("function", "frame", "what"),
    [(qd.failure_streaks, RUNS, "runs"), (DEPLOYMENT_FUNCTIONS["missed_triggers"], DEPLOYMENTS, "deployments")],
    ids=["runs", "deployments"],
)
def test_one_error_names_all_columns_of_times_that_csv_made_text(
    function: Function, frame: pd.DataFrame, what: str
) -> None:
    scope: dict[str, Any] = {"pd": pd, what: through_csv(frame)}
    error, _ = error_and_result(function, scope[what])
    text = str(error)
    exec(text[text.index("columns = ") :].partition(" (or")[0], scope)  # noqa: S102 - the statement in the message
    known = [name for name in time_columns(frame) if frame[name].notna().any()]
    assert scope["columns"] == known
    assert len(known) > 1
    pd.testing.assert_frame_equal(scope[what][known].astype(frame[known].dtypes), frame[known])


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("duration_ms", ["5", "7"], "holds text, not whole numbers"),
        ("duration_ms", [0.5, 1.0], "holds numbers that are not whole"),
        ("duration_ms", [float("inf"), 1.0], "holds numbers that are not whole"),
        ("duration_ms", [1e19, 1.0], "holds numbers that are not whole"),
        ("duration_ms", [True, False], "holds values of dtype bool"),
        ("duration_ms", pd.Series([5, 7], dtype=object), r"holds Python objects \(integer\), not whole numbers"),
        ("status", [1, 2], "holds values of dtype int64, not text"),
        ("status", [b"failed", b"failed"], r"holds Python objects \(bytes\), not text"),
        ("status", [{"type": "failed"}, "failed"], r"holds Python objects \(mixed\), not text"),
        ("status_from", [datetime(2026, 6, 15, tzinfo=UTC)] * 2, "holds values of dtype datetime64"),
    ],
)
def test_column_of_a_wrong_kind_raises_frame_type_error(column: str, values: list[Any], message: str) -> None:
    with pytest.raises(FrameTypeError, match=message) as caught:
        qd.run_failure_rates(RUNS.iloc[:2].assign(**{column: values}))
    assert caught.value.column == column


@pytest.mark.parametrize("values", [[1, 0], [1.0, 0.0], ["True", "false"]])
def test_error_about_flags_names_a_working_conversion(values: list[Any]) -> None:
    at = pd.to_datetime(["2026-06-15T01:00Z"] * 2).as_unit("us")
    missed = pd.DataFrame({"deployment_id": ["dep_1", "dep_2"], "scheduled_at": at, "certain": values})
    with pytest.raises(FrameTypeError, match=r"'certain'.*convert it with ") as caught:
        qd.error_budget(RUNS, missed, target=0.9)
    code = str(caught.value).partition("convert it with ")[2].partition(" (or")[0]
    exec(code, {"missed": missed})  # noqa: S102 from the message
    assert missed["certain"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pd.Series([pd.Timestamp("2026-06-15T08:00")] * 2, dtype=object), "frame has no time zone; attach"),
        (pd.Series([datetime(2026, 6, 15, 8)] * 2, dtype=object), "frame has no time zone; attach"),  # noqa: DTZ001 tested
        (["2026-06-15 08:00:00", "2026-06-15T08:00"], "holds text without a time zone; attach"),
        ([1781510400000] * 2, "holds values of dtype int64, not times with a zone"),
        ([1781510400] * 2, "holds values of dtype int64, not times with a zone"),
        ([1781510400_000_000, None], "holds values of dtype float64, not times with a zone"),
        ([1781510400_000_000_000] * 2, "holds values of dtype int64, not times with a zone"),
        (pd.Series([1781510400000] * 2, dtype="float64"), "holds values of dtype float64, not times"),
    ],
)
def test_error_about_times_names_a_working_conversion(values: Any, message: str) -> None:  # noqa: ANN401 not times
    runs = RUNS.iloc[:2].assign(triggered_at=values)
    with pytest.raises(FrameTypeError, match=message) as caught:
        qd.failure_streaks(runs)
    assert ("tz_localize('UTC')" if "zone; attach" in message else "unit='") in str(caught.value)
    assert "utc=True, format" not in str(caught.value)
    scope = {"pd": pd, "runs": runs}
    exec(str(caught.value)[str(caught.value).index("runs[") :].partition(" (or")[0], scope)  # noqa: S102 from the message
    assert runs["triggered_at"].dropna().dt.strftime("%Y-%m-%d %H:%M").eq("2026-06-15 08:00").all()
    assert qd.failure_streaks(runs).equals(
        qd.failure_streaks(RUNS.iloc[:2].assign(triggered_at=runs["triggered_at"]))
    )
    assert str(runs["triggered_at"].iloc[0]) == "2026-06-15 08:00:00+00:00"


def test_error_about_times_with_a_zone_as_objects_names_a_working_conversion() -> None:
    expected = qd.failure_streaks(RUNS)
    runs = RUNS.assign(triggered_at=RUNS["triggered_at"].astype(object))
    with pytest.raises(FrameTypeError, match=r"Python objects \(datetime\), not times with a zone") as caught:
        qd.failure_streaks(runs)
    scope = {"pd": pd, "runs": runs}
    exec(str(caught.value)[str(caught.value).index("runs[") :].partition(" (or")[0], scope)  # noqa: S102 from the message
    pd.testing.assert_frame_equal(qd.failure_streaks(runs), expected)


@pytest.mark.parametrize("function", RUN_FUNCTIONS.values(), ids=RUN_FUNCTIONS)
def test_categorical_names_and_messages_give_the_same_result(function: Function) -> None:
    named = qd.with_names(RUNS, DEPLOYMENTS).assign(agent_name="helper")
    texts = dict.fromkeys(["deployment_name", "agent_name", "error_message"], "category")
    pd.testing.assert_frame_equal(function(named.astype(texts)), function(named))


def test_ordered_categorical_key_keeps_its_order() -> None:
    sizes = pd.CategoricalDtype(["small", "large"], ordered=True)
    sized = RUNS.assign(size=pd.Series(["small", "large"] * 12, dtype=sizes))
    assert qd.run_failure_rates(sized, "size").loc[["small", "large"], "runs"].tolist() == [12, 12]
    assert qd.run_failure_rates(sized, "size", freq="1D").index.get_level_values(0).dtype == sizes


@pytest.mark.parametrize("function", [qd.run_failure_rates, qd.failure_streaks, qd.error_groups])
def test_arrow_dictionary_keys_give_the_same_result_as_text(
    function: Callable[[pd.DataFrame, str], pd.DataFrame],
) -> None:
    teams = pa.chunked_array([pa.array(["b", None, "a"] * 8).dictionary_encode()])
    runs = RUNS.assign(team=pd.arrays.ArrowExtensionArray(teams))
    pd.testing.assert_frame_equal(function(runs, "team"), function(runs.astype({"team": TEXT}), "team"))


@pytest.mark.parametrize("listed", [[1781489820000], (1.5,), np.array([1781489820000])])
def test_lists_of_numbers_are_no_times(listed: object) -> None:
    """In JSON, times of pandas are numbers of milliseconds; once, they were read as times in 1970."""
    lists: list[Any] = [listed, ["2026-06-15T02:17:00.000"], None, np.array([])]
    df = DEPLOYMENTS.assign(schedule_upcoming_runs_at=lists[:3])
    for function in (qd.upcoming_runs, lambda df: qd.next_triggers(df, "1D", start=START)):
        with pytest.raises(FrameTypeError, match=r"'schedule_upcoming_runs_at' .* not lists of times"):
            function(df)
    text = DEPLOYMENTS.assign(schedule_upcoming_runs_at=lists[1:])
    assert qd.upcoming_runs(text)["upcoming_run_at"].tolist() == [pd.Timestamp("2026-06-15T02:17Z")]


def test_duplicate_run_ids_cause_a_warning() -> None:
    overlapping = pd.concat([RUNS.iloc[:20], RUNS.iloc[18:]])
    functions: list[Function] = [
        qd.run_failure_rates,
        qd.error_breakdown,
        lambda runs: qd.error_budget(runs, MISSED),
    ]
    for function in functions:
        with pytest.warns(
            DataQualityWarning, match="^2 rows of the runs frame have an id that an earlier row has"
        ):
            function(overlapping)
    with pytest.warns(DataQualityWarning, match="^1 row of the runs frame has an id that an earlier row has"):
        qd.run_failure_rates(pd.concat([RUNS, RUNS.iloc[:1]]))
    qd.run_failure_rates(overlapping.drop(columns="id"))
    qd.run_failure_rates(RUNS.assign(id=None))
    qd.session_costs(pd.concat([SESSIONS, SESSIONS]))


def test_duplicate_deployment_ids_cause_a_warning_unless_they_are_in_different_groups() -> None:
    twice = pd.concat([DEPLOYMENTS.assign(day="1"), DEPLOYMENTS.assign(day="2")])
    functions: list[Function] = [
        qd.failure_rates,
        lambda df: qd.failure_rates(df, "agent_id"),
        lambda df: qd.next_triggers(df, "1D", start=START),
    ]
    for function in functions:
        with pytest.warns(DataQualityWarning, match="^3 rows of the deployments frame have an id that an earlier"):
            function(twice)
    assert qd.failure_rates(twice, "day")["deployments"].tolist() == [3, 3]


def test_column_of_missing_values_gets_the_required_dtype() -> None:
    """CSV readers give such a column another dtype."""
    runs = RUNS.assign(error_type=np.nan, started_at=None, duration_ms=None, completed_at=float("nan"))
    assert qd.error_breakdown(runs)["count"].tolist() == [6]
    assert qd.start_delays(runs)["runs"].tolist() == [0, 0]
    assert qd.run_failure_rates(runs)["duration_p50_ms"].isna().all()


@pytest.mark.parametrize("dtype", ["object", "float64", "datetime64[ns]", pd.ArrowDtype(pa.null())])
def test_id_column_of_missing_values_becomes_text(dtype: Any) -> None:  # noqa: ANN401 any dtype
    """CSV readers give an empty column of ids another dtype."""
    at = RUNS["triggered_at"].min()
    missed = pd.DataFrame({"deployment_id": ["dep_9"], "scheduled_at": [at], "certain": [True]})
    for runs in (RUNS, RUNS[:0]):
        lost = runs.assign(deployment_id=pd.Series([None] * len(runs), runs.index, dtype))
        ids = qd.run_failure_rates(lost.astype({"deployment_id": TEXT})).index
        pd.testing.assert_index_equal(qd.run_failure_rates(lost).index, ids)
        assert qd.error_budget(lost, missed, by="deployment_id").index.dropna().tolist() == ["dep_9"]


def test_two_columns_of_one_name_raise_frame_type_error() -> None:
    twice = pd.concat([RUNS, RUNS[["status"]]], axis=1)
    with pytest.raises(FrameTypeError, match="several columns 'status'"):
        qd.run_failure_rates(twice)


def test_columns_that_a_function_does_not_need_are_not_checked() -> None:
    odd = RUNS.assign(triggered_at="soon", status_from=1.5, name=3)
    with pytest.raises(FrameTypeError, match="'status_from'"):
        qd.run_failure_rates(odd)
    pd.testing.assert_frame_equal(
        qd.run_failure_rates(odd.drop(columns="status_from"))[["runs"]], qd.run_failure_rates(RUNS)[["runs"]]
    )


@pytest.mark.parametrize(
    ("function", "frame"),
    [
        *((function, RUNS) for function in RUN_FUNCTIONS.values()), (qd.failure_rates, DEPLOYMENTS),
        (lambda frame: qd.changes(frame[:0], frame), DEPLOYMENTS),
        (lambda frame: qd.changes(frame, frame.assign(name="other")), DEPLOYMENTS),
    ],
)  # fmt: skip
def test_columns_that_a_function_does_not_need_may_be_there_twice(function: Function, frame: pd.DataFrame) -> None:
    mine = frame.assign(mine=1)
    twice = pd.concat([mine, mine[["mine"]]], axis=1)
    assert not function(frame).empty
    pd.testing.assert_frame_equal(function(twice), function(frame))


@pytest.mark.parametrize("column", ["deployment_id", "triggered_at", "started_at", "duration_ms", "error_message"])
def test_arrow_null_columns_count_as_missing_values(column: str) -> None:
    """PyArrow reads an empty CSV column as the null type."""
    plain = RUNS.assign(**{column: pd.Series([None] * len(RUNS), dtype=RUNS[column].dtype)})
    table = pa.Table.from_pandas(plain, preserve_index=False)
    table = table.set_column(table.schema.get_field_index(column), column, pa.nulls(len(RUNS)))
    functions: list[Callable[[Any], Any]] = [
        qd.run_failure_rates,
        qd.failure_streaks,
        qd.error_groups,
        qd.start_delays,
    ]
    for function in functions:
        expected = function(plain).select_dtypes("number").astype("float64").reset_index(drop=True)
        for engine in ("polars lazy", "pyarrow"):
            rows = collected(function(opened(table, engine))).to_pandas()
            pd.testing.assert_frame_equal(rows[list(expected)].astype("float64"), expected)


@pytest.mark.parametrize("engine", ["polars", "polars lazy", "pyarrow", "duckdb"])
@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (pa.string(), "column 'triggered_at' of the runs frame holds String, not times with a zone"),
        (pa.timestamp("us"), "column 'triggered_at' of the runs frame has no time zone"),
    ],
)
@pytest.mark.parametrize(
    "function", [qd.failure_streaks, qd.error_breakdown, lambda runs: qd.run_failure_rates(runs, freq="1D")]
)
def test_lost_dtypes_on_other_engines_raise_frame_type_error(
    function: Callable[[Any], Any], dtype: pa.DataType, message: str, engine: str
) -> None:
    names = ["id", "deployment_id", "status", "error_type", "duration_ms", "triggered_at"]
    table = pa.Table.from_pandas(RUNS[names])
    times = table["triggered_at"].cast(dtype)
    table = table.set_column(names.index("triggered_at"), "triggered_at", times)
    with pytest.raises(FrameTypeError, match=message):
        function(opened(table, engine))


def test_plots_of_failure_rates_refuse_a_lazy_frame_without_a_warning_of_polars() -> None:
    rates: Any = pl.from_pandas(RUNS).lazy().pipe(qd.run_failure_rates)
    with pytest.raises(FrameTypeError, match=r"rates must be a pandas frame, not polars\.LazyFrame;"):
        qd.plot_failure_rates(rates)


def test_missing_column_error_names_the_loader_to_use() -> None:
    with pytest.raises(
        MissingColumnError, match=r"no column 'status'; .*; pass the frame that load_runs returns$"
    ):
        frame_checks.require_frame(RUNS.drop(columns="status"), ["status"], what="runs")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: qd.run_failure_rates(RUNS.set_index("deployment_id")), "'deployment_id': pass runs"),
        (lambda: qd.run_failure_rates(RUNS.assign(x=1).set_index(["x", "id"]), by="x"), "'x': pass runs"),
        (lambda: qd.plot_run_timeline(RUNS.set_index("deployment_id")), "'deployment_id': pass runs"),
        (lambda: qd.next_triggers(DEPLOYMENTS.set_index("id")), "'id': pass deployments"),
        (lambda: qd.with_names(RUNS, DEPLOYMENTS.set_index("id")), "'id': pass deployments"),
        (
            lambda: qd.error_budget(RUNS, MISSED.set_index("deployment_id"), by="deployment_id"),
            "'deployment_id': pass missed",
        ),
        (lambda: qd.resolve_outcomes(RUNS, SESSIONS.set_index("id"), EVENTS), "'id': pass sessions"),
    ],
)
def test_missing_column_that_is_in_the_index_is_told_as_such(call: Callable[[], object], message: str) -> None:
    with pytest.raises(
        MissingColumnError, match=rf"frame has no column .*; its index has {message}.reset_index\(\)$"
    ):
        call()


def test_dtypes_match_the_schemas() -> None:
    kinds = {
        schema.Kind.TEXT: frame_checks.Dtype.TEXT,
        schema.Kind.INTEGER: frame_checks.Dtype.INTEGER,
        schema.Kind.NUMBER: frame_checks.Dtype.NUMBER,
        schema.Kind.TIME: frame_checks.Dtype.TIME,
        schema.Kind.TIMES: frame_checks.Dtype.TIMES,
    }
    tables = (schema.DEPLOYMENTS, schema.RUNS, schema.SESSIONS, schema.EVENTS)
    known = {
        (column.name, kinds[column.kind])
        for table in tables
        for column in table.columns
        if column.name in frame_checks.DTYPES and column.kind in kinds
    }
    assert known <= set(frame_checks.DTYPES.items())
    assert len(known) > 30
