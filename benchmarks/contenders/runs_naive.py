"""Load runs as typical notebook code does, and compute daily failure rates by deployment."""

import sys

import pandas as pd
import requests

url, folder = sys.argv[1:]
session = requests.Session()
session.headers["Authorization"] = "Bearer pt-bench"
records, query = [], {"limit": "1000"}
while True:
    page = session.get(f"{url}/deployment_runs", params=query, timeout=60).json()
    records += page["data"]
    if not page["has_more"]:
        break
    query["after_id"] = page["last_id"]
runs = pd.json_normalize(records, sep="_")
for column in runs.columns:
    if column.endswith("_at"):
        runs[column] = pd.to_datetime(runs[column], format="ISO8601", errors="coerce", utc=True)
runs.to_parquet(f"{folder}/runs.parquet")
groups = runs.assign(
    day=runs["triggered_at"].dt.floor("D"),
    failed=runs["status"] == "failed",
    decided=runs["status"].isin(["completed", "failed"]),
).groupby(["deployment_id", "day"])
rates = groups.agg(runs=("id", "size"), failed=("failed", "sum"), decided=("decided", "sum"))
rates["failure_rate"] = rates["failed"] / rates["decided"]
completed = runs[runs["status"] == "completed"].assign(day=lambda frame: frame["triggered_at"].dt.floor("D"))
by_day = completed.groupby(["deployment_id", "day"])["duration_ms"]
rates["duration_p50_ms"] = by_day.quantile(0.5)
rates["duration_p95_ms"] = by_day.quantile(0.95)
sys.stdout.write(f"{len(runs)} {len(rates)}\n")
