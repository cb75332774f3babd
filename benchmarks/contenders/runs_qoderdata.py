"""Load runs into a new store with this project, and compute daily failure rates by deployment."""

import sys
import tempfile

import qoderdata as qd

url, folder = sys.argv[1:]
client = qd.Client(pat="pt-bench", base_url=url, min_interval=0)
with tempfile.TemporaryDirectory(dir=folder) as cache_dir:
    runs = qd.load_runs(client=client, cache_dir=cache_dir, progress=False)
    rates = qd.run_failure_rates(runs, freq="1D")
sys.stdout.write(f"{len(runs)} {len(rates)}\n")
