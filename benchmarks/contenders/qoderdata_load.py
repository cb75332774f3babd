"""Load deployments with this project, in one call that also writes the Parquet file."""

import sys

import qoderdata as qd

url, folder = sys.argv[1:]
client = qd.Client(pat="pt-bench", base_url=url, min_interval=0)
frame = qd.load_deployments(client=client, cache_dir=folder, refresh=True, include_archived=True, progress=False)
sys.stdout.write(f"{len(frame)}\n")
