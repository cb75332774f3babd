"""Scheduled agents on Qoder Cloud as pandas frames.

What do I have, what is failing and how badly, what will fire next, and what should have fired but did not::

    import qoderdata as qd

    df = qd.load_deployments()                        # every page, typed, cached
    qd.plot_failure_rates(qd.failure_rates(df))       # who fails most, and can I trust that number
    qd.plot_next_triggers(qd.next_triggers(df))       # what fires next
    qd.missed_triggers(df, qd.load_runs(since="7D"), since="2026-06-08T00:00Z", until="2026-06-15T00:00Z")
    qd.write_report(df, "report.html")                # one page for a colleague

The token comes from ``QODER_PAT``; `qoderdata.sandbox` needs none.
"""

from qoderdata._version import __version__
from qoderdata.client import Client
from qoderdata.export import export_csv, export_parquet
from qoderdata.frame import expand_metadata, flatten_deployments, flatten_runs, upcoming_runs
from qoderdata.load import (
    cache_usage,
    clear_cache,
    load_deployments,
    load_runs,
    scan_deployments,
    scan_runs,
)
from qoderdata.plots import (
    plot_durations,
    plot_failure_rates,
    plot_next_triggers,
    plot_run_calendar,
    plot_run_failure_rates,
    plot_trigger_load,
)
from qoderdata.report import write_report
from qoderdata.summaries import (
    consistency,
    duration_regressions,
    error_breakdown,
    failure_rates,
    failure_streaks,
    run_failure_rates,
    start_delays,
)
from qoderdata.timelines import (
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
