"""Tests of rules for all analysis functions: arguments stay as they are, and empty frames give all columns."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

import qoderdata as qd
from qoderdata.errors import MissingColumnError
from qoderdata.outcomes import STATUSES
from tests.analysis_calls import CALLS, DEPLOYMENTS, MISSED, RUNS, SESSIONS, TRIGGERS, Function

#: Calls whose rows do not come from the frame that they are given.
ROWS_OF_ANOTHER_FRAME = {
    "unusual_runs-deployments", "changes-deployments", "fill_counters-runs", "consistency-runs",
    "missed_triggers-runs", "cost_forecast-sessions", "check-runs", "check-sessions",
    "error_budget-missed",
}  # fmt: skip
#: More options of the functions of which the result has other columns.
MORE_CALLS: dict[str, tuple[Function, pd.DataFrame]] = {
    "failure_rates by two": (lambda df: qd.failure_rates(df, ["agent_id", "status"]), DEPLOYMENTS),
    "failure_rates of all": (lambda df: qd.failure_rates(df, None), DEPLOYMENTS),
    **{
        f"run_failure_rates by {by}, {freq}, {per}": (
            partial(qd.run_failure_rates, by=by, freq=freq, tz="Asia/Kolkata", per=per),
            RUNS,
        )
        for by, freq in (
            ("deployment_id", None),
            ("deployment_id", "1D"),
            ("deployment_id", "6h"),
            (["deployment_id", "trigger_type"], None),
            (None, None),
            (None, "1D"),
        )
        for per in ("attempt", "occurrence")
    },
    "error_breakdown by two": (lambda runs: qd.error_breakdown(runs, ["deployment_id", "status"]), RUNS),
    "error_groups by one": (lambda runs: qd.error_groups(runs, "deployment_id"), RUNS),
    "compare_periods of all": (lambda runs: qd.compare_periods(runs, None), RUNS),
    "error_budget of all": (qd.error_budget, RUNS),
    "error_budget, no missed ones": (lambda runs: qd.error_budget(runs, MISSED.iloc[:0]), RUNS),
    "session_costs of all": (lambda sessions: qd.session_costs(sessions, None), SESSIONS),
    "session_costs by day": (
        lambda sessions: qd.session_costs(sessions, freq="1D", tz="America/Havana"),
        SESSIONS,
    ),
    "compare_costs of all": (lambda sessions: qd.compare_costs(sessions, None), SESSIONS),
    "session_costs by 6 hours": (lambda sessions: qd.session_costs(sessions, None, freq="6h"), SESSIONS),
    "trigger_load by day": (lambda triggers: qd.trigger_load(triggers, "1D"), TRIGGERS),
}


ALL_CALLS = [
    *(
        pytest.param(function, frame, call not in ROWS_OF_ANOTHER_FRAME, id=call)
        for call, function, frame, _ in CALLS
    ),
    *(pytest.param(function, frame, True, id=call) for call, (function, frame) in MORE_CALLS.items()),
]


@pytest.mark.parametrize(("function", "frame", "has_its_rows"), ALL_CALLS)
def test_argument_is_not_changed_and_empty_frame_gives_the_same_columns_and_dtypes(
    function: Function, frame: pd.DataFrame, *, has_its_rows: bool
) -> None:
    before = pa.Table.from_pandas(frame)
    full, empty = function(frame), function(frame.iloc[:0])
    assert pa.Table.from_pandas(frame).equals(before), "not even a list in a cell may be sorted"
    assert len(full) > 0
    assert empty.empty or not has_its_rows
    # Categories are those of the rows.
    pd.testing.assert_series_equal(empty.dtypes.map(str), full.dtypes.map(str))
    assert empty.index.names == full.index.names
    if full.index.names != [None]:
        pd.testing.assert_series_equal(empty.reset_index().dtypes, full.reset_index().dtypes)


#: The newest run of a deployment failed, others were retried, and all of one deployment took too long.
FAILING = RUNS.assign(
    status=RUNS["status"].array[::-1], attempt=RUNS.index.to_series().mod(4).eq(0).astype("Int64") + 1
)
CALLS_WITH_RUNS: dict[str, Function] = {
    **{call: function for call, function, frame, _ in CALLS if frame is RUNS},
    **{call: function for call, (function, frame) in MORE_CALLS.items() if frame is RUNS},
    "unusual_runs past the timeout": lambda runs: qd.unusual_runs(runs, DEPLOYMENTS.assign(config_timeout_ms=1)),
}
del CALLS_WITH_RUNS["error_breakdown by two"]  # one of them is the status


@pytest.mark.parametrize("function", CALLS_WITH_RUNS.values(), ids=CALLS_WITH_RUNS)
def test_only_statuses_says_what_counts_as_failed(function: Function, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = function(FAILING)
    monkeypatch.setitem(STATUSES, "failed", [*STATUSES["failed"], "timed_out"])
    found = function(FAILING.assign(status=FAILING["status"].replace("failed", "timed_out")))
    if "status" in found:
        found["status"] = found["status"].replace("timed_out", "failed")
    pd.testing.assert_frame_equal(found, expected)


def test_every_analysis_function_has_a_call_here() -> None:
    """Only `describe_schedule` takes no frame."""
    calls = (Path(__file__).parent / "analysis_calls.py").read_text() + Path(__file__).read_text()
    packages = ("qoderdata.summaries", "qoderdata.timelines")
    names = [name for name in dir(qd) if getattr(getattr(qd, name), "__module__", "").startswith(packages)]
    assert len(names) > 10
    assert [name for name in names if f"qd.{name}" not in calls] == ["describe_schedule"]


FUNCTIONS = {call: (function, frame, kind) for call, function, frame, kind in CALLS}


@pytest.mark.parametrize(
    ("call", "column"),
    [
        ("failure_streaks-runs", "triggered_at"),
        ("error_breakdown-runs", "triggered_at"),
        ("duration_regressions-runs", "triggered_at"),
        ("start_delays-runs", "triggered_at"),
        ("missed_triggers-runs", "trigger_type"),
        ("missed_triggers-deployments", "created_at"),
        ("schedule_lints-deployments", "schedule_expression"),
        ("next_triggers-deployments", "schedule_timezone"),
        ("trigger_load-triggers", "deployment_id"),
        ("failure_rates-deployments", "name"),
        ("fill_counters-deployments", "stats_last_triggered_at"),
        ("fill_counters-runs", "status"),
        ("changes-deployments", "status"),
        ("check-deployments", "paused_reason_type"),
        ("cost_forecast-sessions", "usage_total_credits"),
        ("upcoming_runs-deployments", "schedule_upcoming_runs_at"),
        ("expand_metadata-deployments", "metadata"),
    ],
)
def test_missing_column_is_named(call: str, column: str) -> None:
    function, frame, kind = FUNCTIONS[call]
    with pytest.raises(MissingColumnError, match=f"^the {kind} frame has no column '{column}'; it has: "):
        function(frame.drop(columns=column))
