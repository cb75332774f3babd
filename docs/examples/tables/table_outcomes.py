"""
What became of each run
=======================

On the newest edition, what is read decides what is known: run records, sessions, or events.
"""

import pandas as pd

import qoderdata as qd

client, now = qd.connect(deployments=60, seed=7, edition="D")

# %%
# The statuses of one week, after each way of reading:
since = now - pd.Timedelta("7D")
known = {
    outcomes: qd.load_runs(client=client, since=since, outcomes=outcomes)["status"].value_counts(dropna=False)
    for outcomes in ["runs", "sessions", "events"]
}
pd.DataFrame(known).fillna(0).astype(int)

# %%
# That edition has no lifetime counters either; ``fill_counters`` counts the runs that are listed:
df = qd.load_deployments(client=client)
counted = qd.fill_counters(df, qd.load_runs(client=client, outcomes="events"))
qd.failure_rates(counted).set_index("name")[["total_runs", "total_failures", "failure_rate"]].head(5).round(3)
