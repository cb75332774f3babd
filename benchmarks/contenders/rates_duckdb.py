"""Compute failure rates by deployment and day with this project, on DuckDB."""

import sys

import qoderdata as qd

runs = qd.scan_runs(sys.argv[1], engine="duckdb")
rates = qd.run_failure_rates(runs, freq="1D")
sys.stdout.write(f"{len(rates.to_arrow_table())} rows\n")
