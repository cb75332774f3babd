from .caches import cache_usage, clear_cache
from .deployment_history import load_snapshots, snapshots
from .lists import load_agents, load_deployments, load_environments, load_events
from .runs import load_runs
from .scans import scan_deployments, scan_runs, scan_sessions
from .sessions import load_sessions

__all__ = [
    "cache_usage",
    "clear_cache",
    "load_agents",
    "load_deployments",
    "load_environments",
    "load_events",
    "load_runs",
    "load_sessions",
    "load_snapshots",
    "scan_deployments",
    "scan_runs",
    "scan_sessions",
    "snapshots",
]
