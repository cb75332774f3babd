"""
What never started
==================

Scheduled times that no run serves. This sandbox left out six scheduled runs on purpose.
"""

import pandas as pd

import qoderdata as qd

client, now = qd.connect(deployments=250, seed=7, left_out=6)
df = qd.load_deployments(client=client, include_archived=True)
runs = qd.load_runs(client=client)

# %%
# The table. One of the six is older than these 30 days:
missed = qd.missed_triggers(df, runs, since=now - pd.Timedelta("30D"), until=now)
missed[missed["certain"]]

# %%
# Where it is not certain, the reason says why:
missed["reason"].str.replace(r"\d.*", "…", regex=True).value_counts()

# %%
# Do the runs agree with the service's own counters? Each row would be a disagreement:
qd.consistency(df, runs)
