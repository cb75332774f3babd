"""The front door: `load_deployments` and `load_runs`, and what they keep on disk.

This layer alone joins the client, the cursor walk, the decoder, the cache and the store of runs.
"""

from qoderdata.load.caches import cache_usage, clear_cache
from qoderdata.load.deployments import load_deployments
from qoderdata.load.runs import load_runs
from qoderdata.load.scans import scan_deployments, scan_runs

__all__ = ["cache_usage", "clear_cache", "load_deployments", "load_runs", "scan_deployments", "scan_runs"]
