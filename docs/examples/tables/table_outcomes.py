"""
What became of each run
=======================

On the newest edition, what is read decides what is known: run records, sessions, or events.
"""

import pandas as pd

import qoderdata as qd

client, now = qd.connect(deployments=60, seed=7, edition="D")
since = now - pd.Timedelta("7D")
known = {
    outcomes: qd.load_runs(client=client, since=since, outcomes=outcomes)["status"].value_counts(dropna=False)
    for outcomes in ["runs", "sessions", "events"]
}
pd.DataFrame(known).fillna(0).astype(int)
