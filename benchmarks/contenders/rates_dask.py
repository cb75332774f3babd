"""Compute failure rates by deployment and day with this project, on Dask with two worker processes."""

import sys

import distributed

import qoderdata as qd

if __name__ == "__main__":
    with (
        distributed.LocalCluster(  # type: ignore[no-untyped-call] # Dask has no types
            n_workers=2,
            threads_per_worker=1,
            memory_limit="700MiB",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        distributed.Client(cluster),  # type: ignore[no-untyped-call] # likewise
    ):
        runs = qd.scan_runs(sys.argv[1], engine="dask")
        rates = qd.run_failure_rates(runs, freq="1D")
        sys.stdout.write(f"{len(rates.compute())} rows\n")
