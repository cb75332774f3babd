"""Load deployments with Polars: read each page, unnest structs, parse times, and write one Parquet file."""

import io
import sys

import polars as pl
import requests

url, folder = sys.argv[1:]
session = requests.Session()
session.headers["Authorization"] = "Bearer pt-bench"
frames, query = [], {"limit": "1000", "include_archived": "true"}
while True:
    body = session.get(f"{url}/deployments", params=query, timeout=60).content
    page = pl.read_json(io.BytesIO(body), infer_schema_length=None)
    frames.append(page.select("data").explode("data").unnest("data"))
    if not page["has_more"].item():
        break
    query["after_id"] = page["last_id"].item()
frame = pl.concat(frames, how="diagonal_relaxed")
while structs := [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Struct)]:
    name = structs[0]
    fields = frame[name].struct.fields
    frame = frame.with_columns(pl.col(name).struct.rename_fields([f"{name}_{field}" for field in fields])).unnest(
        name
    )
times = [name for name, dtype in frame.schema.items() if name.endswith("_at") and dtype == pl.String]
frame = frame.with_columns(pl.col(times).str.to_datetime(time_zone="UTC", strict=False))
frame.write_parquet(f"{folder}/polars.parquet")
sys.stdout.write(f"{len(frame)}\n")
