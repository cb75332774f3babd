"""Load deployments with the official SDK, which pages by itself, and `json_normalize`."""

import sys

import pandas as pd
from qca.managed import Client

url, folder = sys.argv[1:]
client = Client(pat="pt-bench", base_url=url)
records = [record.to_dict() for record in client.deployments.list(limit=1000, include_archived=True)]
frame = pd.json_normalize(records, sep="_")
frame.to_parquet(f"{folder}/sdk.parquet")
sys.stdout.write(f"{len(frame)}\n")
