from . import errors
from ._version import __version__
from .client import Client
from .export import export_csv, export_parquet
from .frames import (
    expand_metadata,
    flatten_deployments,
    flatten_events,
    flatten_runs,
    flatten_sessions,
    upcoming_runs,
)
from .load import (
    cache_usage,
    clear_cache,
    load_agents,
    load_deployments,
    load_environments,
    load_events,
    load_runs,
    load_sessions,
    scan_deployments,
    scan_runs,
    scan_sessions,
)
from .outcomes import resolve_outcomes
from .plots import (
    plot_durations,
    plot_failure_rates,
    plot_next_triggers,
    plot_run_calendar,
    plot_run_failure_rates,
    plot_trigger_load,
)
from .report import write_report
from .summaries import (
    consistency,
    duration_regressions,
    error_breakdown,
    failure_rates,
    failure_streaks,
    fill_counters,
    run_failure_rates,
    start_delays,
)
from .timelines import (
    describe_schedule,
    missed_triggers,
    next_triggers,
    schedule_lints,
    trigger_load,
)

__all__ = [
    "Client",
    "__version__",
    "cache_usage",
    "clear_cache",
    "consistency",
    "describe_schedule",
    "duration_regressions",
    "error_breakdown",
    "errors",
    "expand_metadata",
    "export_csv",
    "export_parquet",
    "failure_rates",
    "failure_streaks",
    "fill_counters",
    "flatten_deployments",
    "flatten_events",
    "flatten_runs",
    "flatten_sessions",
    "load_agents",
    "load_deployments",
    "load_environments",
    "load_events",
    "load_runs",
    "load_sessions",
    "missed_triggers",
    "next_triggers",
    "plot_durations",
    "plot_failure_rates",
    "plot_next_triggers",
    "plot_run_calendar",
    "plot_run_failure_rates",
    "plot_trigger_load",
    "resolve_outcomes",
    "run_failure_rates",
    "scan_deployments",
    "scan_runs",
    "scan_sessions",
    "schedule_lints",
    "start_delays",
    "trigger_load",
    "upcoming_runs",
    "write_report",
]
