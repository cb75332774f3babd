"""Compute failure rates in plain SQL, written with knowledge of DuckDB and of the store's files."""

import sys

import duckdb

QUERY = """
WITH counted AS (
    SELECT
        deployment_id,
        date_trunc('day', timezone('UTC', triggered_at)) AS day,
        count(*) AS runs,
        count(*) FILTER (status = 'completed') AS completed,
        count(*) FILTER (status = 'failed') AS failed,
        count(*) FILTER (status = 'skipped') AS skipped,
        count(*) FILTER (status IN ('pending', 'running')) AS unfinished,
        quantile_cont(duration_ms, 0.5) FILTER (status = 'completed') AS duration_p50_ms,
        quantile_cont(duration_ms, 0.95) FILTER (status = 'completed') AS duration_p95_ms
    FROM read_parquet($files, hive_partitioning = false)
    GROUP BY ALL
), decided AS (
    SELECT *, nullif(completed + failed, 0)::DOUBLE AS n, 1.959963984540054 AS z FROM counted
), spread AS (
    SELECT *, z * sqrt(z * z + 4 * failed * completed / n) AS s FROM decided
)
SELECT
    * EXCLUDE (n, z, s),
    failed / n AS failure_rate,
    (2 * failed + z * z - s) / (2 * (n + z * z)) AS ci_low,
    (2 * failed + z * z + s) / (2 * (n + z * z)) AS ci_high
FROM spread
ORDER BY deployment_id, day
"""
connection = duckdb.connect()
rates = connection.sql(QUERY, params={"files": f"{sys.argv[1]}/runs/*/data/*/*.parquet"}).to_arrow_table()
sys.stdout.write(f"{len(rates)} rows\n")
