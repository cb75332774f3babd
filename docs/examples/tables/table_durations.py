"""
What got slower, and what is unusual
====================================

Runs that succeed, but take longer than before; and single runs far from the others of their deployment.
"""

import qoderdata as qd

client, now = qd.connect(deployments=250, seed=7)
df = qd.load_deployments(client=client, include_archived=True)
runs = qd.with_names(qd.load_runs(client=client), df)

# %%
# The table:
qd.duration_regressions(runs).set_index("name").head(5).round(2)

# %%
# Single runs that took unusually long or short:
unusual = qd.unusual_runs(runs, df, now=now)
unusual.drop(columns=["run_id", "deployment_id"], errors="ignore").head(5)

# %%
# And how late runs start, per deployment:
qd.start_delays(runs).set_index("name").head(5).round(0)
