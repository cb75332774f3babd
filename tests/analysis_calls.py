"""Frames of a small account, and a call of each analysis function with one of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pandas as pd

import qoderdata as qd

START = datetime(2026, 6, 15, tzinfo=UTC)
BOUNDS: dict[str, Any] = {"since": START, "until": START + timedelta(days=1)}


def stamp(hours: float) -> str:
    return f"{START + timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}"


DEPLOYMENTS = qd.flatten_deployments(
    [
        {
            "id": f"dep_{number}", "name": f"name {number}", "status": "active", "agent": {"id": "agent_1"},
            "environment_id": "env_1", "created_at": stamp(-100), "updated_at": stamp(-100),
            "budget": {"type": "limit", "max_credit_cost": "2.00"},
            "schedule": {
                "expression": "0 */7 * * *", "timezone": "Asia/Tokyo",
                "upcoming_runs_at": [stamp(15), stamp(12)] if number else [],
            },
            "metadata": {
                "cas_config": {"stats": {"total_runs": 9, "total_failures": 4, "consecutive_failures": number}}
            },
        }
        for number in range(3)
    ]
)  # fmt: skip
RUNS = qd.flatten_runs(
    [
        {
            "id": f"drun_{number}", "deployment_id": f"dep_{number % 2}", "agent": {"id": "agent_1"},
            "status": ["completed", "failed", "completed", "completed"][number % 4],
            "trigger_context": {"type": "schedule"}, "triggered_at": stamp(3 * number),
            "created_at": stamp(3 * number), "duration_ms": 1000 * number,
            "cas_run_extras": {"attempt": 1, "started_at": stamp(3 * number + 0.5)},
            "error": {"type": "timeout", "message": "late"} if number % 4 == 1 else None,
        }
        for number in range(24)
    ]
)  # fmt: skip
SESSIONS = qd.flatten_sessions(
    [
        {
            "id": f"sess_{number}", "deployment_id": f"dep_{number % 2}",
            "agent": {"id": "agent_1", "name": "helper"},
            "status": "idle", "created_at": stamp(3 * number), "updated_at": stamp(3 * number + 1),
            "usage": {
                "total_credits": number / 4, "model_credits": number / 8, "sandbox_runtime_credits": number / 8
            },
        }
        for number in range(12)
    ]
)  # fmt: skip
TRIGGERS = qd.next_triggers(DEPLOYMENTS.assign(schedule_upcoming_runs_at=None), "2D", start=START)

Function = Callable[[pd.DataFrame], pd.DataFrame]


DEPLOYMENT_FUNCTIONS: dict[str, Function] = {
    "failure_rates": qd.failure_rates,
    "failure_rates by agent": lambda df: qd.failure_rates(df, "agent_id"),
    "consistency": lambda df: qd.consistency(df, RUNS),
    "next_triggers": lambda df: qd.next_triggers(df, "2D", start=START),
    "schedule_lints": lambda df: qd.schedule_lints(df, start=START),
    "missed_triggers": lambda df: qd.missed_triggers(df, RUNS, **BOUNDS),
    "unusual_runs": lambda df: qd.unusual_runs(RUNS, df, now=START, min_runs=2),
    "cost_forecast": lambda df: qd.cost_forecast(df, SESSIONS, start=START),
    "changes": lambda df: qd.changes(df, DEPLOYMENTS.iloc[1:]),
    "upcoming_runs": qd.upcoming_runs,
    "expand_metadata": lambda df: qd.expand_metadata(df, ["team"])[["metadata_team"]].reset_index(drop=True),
    "fill_counters": lambda df: qd.failure_rates(qd.fill_counters(df, RUNS)),
    "check": lambda df: qd.check(df, RUNS, SESSIONS, now=START + timedelta(days=1), streak=1),
}
RUN_FUNCTIONS: dict[str, Function] = {
    "run_failure_rates": qd.run_failure_rates,
    "fill_counters": lambda runs: qd.fill_counters(DEPLOYMENTS, runs),
    "run_failure_rates by day": lambda runs: qd.run_failure_rates(runs, freq="1D", tz="Asia/Shanghai"),
    "run_failure_rates by occurrence": lambda runs: qd.run_failure_rates(runs, per="occurrence"),
    "failure_streaks": qd.failure_streaks,
    "error_breakdown": qd.error_breakdown,
    "duration_regressions": lambda runs: qd.duration_regressions(runs, recent="1D", min_runs=1),
    "start_delays": qd.start_delays,
    "consistency": lambda runs: qd.consistency(DEPLOYMENTS, runs),
    "missed_triggers": lambda runs: qd.missed_triggers(DEPLOYMENTS, runs, **BOUNDS),
    "compare_periods": lambda runs: qd.compare_periods(runs, recent="1D"),
    "error_groups": qd.error_groups,
    "error_budget": lambda runs: qd.error_budget(runs, by="deployment_id"),
    "unusual_runs": lambda runs: qd.unusual_runs(runs, now=START, threshold=1, min_runs=2),
    "check": lambda runs: qd.check(DEPLOYMENTS, runs, now=START + timedelta(days=3), streak=1),
}
SESSION_FUNCTIONS: dict[str, Function] = {
    "session_costs": qd.session_costs,
    "session_costs by day": lambda sessions: qd.session_costs(sessions, "agent_id", freq="1D", tz="Asia/Shanghai"),
    "compare_costs": lambda sessions: qd.compare_costs(sessions, recent="12h"),
    "cost_forecast": lambda sessions: qd.cost_forecast(DEPLOYMENTS, sessions, start=START),
    "with_outcomes": lambda sessions: qd.session_costs(
        qd.with_outcomes(sessions, RUNS.assign(session_id=SESSIONS["id"])), by="outcome"
    ),
    "check": lambda sessions: qd.check(DEPLOYMENTS, None, sessions, now=START + timedelta(days=2), streak=1),
}
MISSED = qd.missed_triggers(DEPLOYMENTS, RUNS, **BOUNDS)
MISSED_FUNCTIONS: dict[str, Function] = {
    "error_budget": lambda missed: qd.error_budget(RUNS, missed, by="deployment_id"),
}
TRIGGER_FUNCTIONS: dict[str, Function] = {"trigger_load": qd.trigger_load}
CALLS: list[tuple[str, Function, pd.DataFrame, str]] = [
    (f"{name}-{kind}", function, frame, kind)
    for functions, frame, kind in (
        (DEPLOYMENT_FUNCTIONS, DEPLOYMENTS, "deployments"), (RUN_FUNCTIONS, RUNS, "runs"),
        (TRIGGER_FUNCTIONS, TRIGGERS, "triggers"), (SESSION_FUNCTIONS, SESSIONS, "sessions"),
        (MISSED_FUNCTIONS, MISSED, "missed"),
    )
    for name, function in functions.items()
]  # fmt: skip


@cache
def expected(call: str) -> pd.DataFrame:
    """Return the result of a call with the unchanged frame; computed once."""
    return next(function(frame) for name, function, frame, _ in CALLS if name == call)
