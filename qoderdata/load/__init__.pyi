from .caches import cache_usage, clear_cache
from .events import load_events
from .lists import load_agents, load_deployments, load_environments
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
    "scan_deployments",
    "scan_runs",
    "scan_sessions",
]
