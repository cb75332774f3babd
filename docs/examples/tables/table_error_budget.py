"""
Error budget
============

How much of the failures that a target of 99 % allows has been used in 30 days.
"""

import qoderdata as qd

client, now = qd.connect(deployments=250, seed=7)
df = qd.load_deployments(client=client, include_archived=True)
runs = qd.with_names(qd.load_runs(client=client), df)

# %%
# The table:
qd.error_budget(runs, target=0.99, window="30D", by=None, until=now).round(3)
