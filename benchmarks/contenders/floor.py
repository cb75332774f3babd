"""Measure the lower bound: fetch and decode every page, and keep nothing."""

import sys

import orjson
import requests

url, _ = sys.argv[1:]
session = requests.Session()
session.headers["Authorization"] = "Bearer pt-bench"
count, query = 0, {"limit": "1000", "include_archived": "true"}
while True:
    page = orjson.loads(session.get(f"{url}/deployments", params=query, timeout=60).content)
    count += len(page["data"])
    if not page["has_more"]:
        break
    query["after_id"] = page["last_id"]
sys.stdout.write(f"{count}\n")
