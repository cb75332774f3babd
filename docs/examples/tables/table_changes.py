"""
What changed between two pulls
==============================

Two lists of the same deployments, and one row for each difference.
"""

import qoderdata as qd

client, now = qd.connect(deployments=250, seed=7)
df = qd.load_deployments(client=client, include_archived=True)

# %%
# The table:
later = df.copy()
later.loc[3, "status"] = "paused"
later.loc[5, "schedule_expression"] = "0 6 * * *"
qd.changes(df, later)
