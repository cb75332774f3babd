from .caches import cache_usage, clear_cache
from .deployments import load_deployments
from .runs import load_runs
from .scans import scan_deployments, scan_runs

__all__ = ["cache_usage", "clear_cache", "load_deployments", "load_runs", "scan_deployments", "scan_runs"]
