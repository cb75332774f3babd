from . import errors
from ._version import __version__
from .client import Client
from .export import export_csv, export_parquet
from .frame import expand_metadata, flatten_deployments, flatten_runs, upcoming_runs
from .load import (
    cache_usage,
    clear_cache,
    load_deployments,
    load_runs,
    scan_deployments,
    scan_runs,
)
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
    "flatten_deployments",
    "flatten_runs",
    "load_deployments",
    "load_runs",
    "missed_triggers",
    "next_triggers",
    "plot_durations",
    "plot_failure_rates",
    "plot_next_triggers",
    "plot_run_calendar",
    "plot_run_failure_rates",
    "plot_trigger_load",
    "run_failure_rates",
    "scan_deployments",
    "scan_runs",
    "schedule_lints",
    "start_delays",
    "trigger_load",
    "upcoming_runs",
    "write_report",
]
