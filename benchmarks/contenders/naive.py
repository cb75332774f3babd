"""Load deployments as typical notebook code does; counters that are not numbers are lost."""

import sys

import pandas as pd
import requests

url, folder = sys.argv[1:]
session = requests.Session()
session.headers["Authorization"] = "Bearer pt-bench"
records, query = [], {"limit": "1000", "include_archived": "true"}
while True:
    page = session.get(f"{url}/deployments", params=query, timeout=60).json()
    records += page["data"]
    if not page["has_more"]:
        break
    query["after_id"] = page["last_id"]
frame = pd.json_normalize(records, sep="_")
for column in frame.columns:
    if column.endswith("_at") and column != "schedule_upcoming_runs_at":
        frame[column] = pd.to_datetime(frame[column], format="ISO8601", errors="coerce", utc=True)
for column in frame.select_dtypes("object").columns:
    if column.endswith(("_runs", "_failures", "_version")):
        frame[column] = pd.to_numeric(frame[column], errors="coerce")
frame.to_parquet(f"{folder}/naive.parquet")
sys.stdout.write(f"{len(frame)}\n")
