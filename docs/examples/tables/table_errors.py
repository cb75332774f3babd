"""
Errors, and which of them are new
=================================

Error messages, grouped without their variable parts such as ids and numbers.
"""

import qoderdata as qd

client, now = qd.connect(deployments=250, seed=7)
df = qd.load_deployments(client=client, include_archived=True)
runs = qd.with_names(qd.load_runs(client=client), df)

# %%
# The table:
groups = qd.error_groups(runs).reset_index()
groups[["error_type", "message", "count", "deployments", "is_new"]].head(8)

# %%
# By type alone:
qd.error_breakdown(runs).head(5).round(3)
