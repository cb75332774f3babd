"""
Is anything wrong
=================

One verdict on the whole account: one row per finding, the worst first.
"""

import qoderdata as qd

client, now = qd.connect(deployments=250, seed=7)
df = qd.load_deployments(client=client, include_archived=True)
runs = qd.with_names(qd.load_runs(client=client), df)

# %%
# The table:
found = qd.check(df, runs, now=now)
found[["severity", "kind"]].value_counts().rename("findings").to_frame()

# %%
# Each finding is one sentence:
print("\n".join(found["detail"].head(8)))
