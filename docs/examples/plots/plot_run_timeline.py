"""
Timeline of runs
================

What happened in the last two days, and what comes next?
One lane per deployment, the most failed first. A bar is a run.
"""

import pandas as pd

import qoderdata as qd

client, now = qd.connect(deployments=250, seed=7)
df = qd.load_deployments(client=client, include_archived=True)
runs = qd.with_names(qd.load_runs(client=client), df)

# %%
# The picture:
last = runs[runs["triggered_at"] >= now - pd.Timedelta("48h")]
soon = qd.next_triggers(df, "12h", start=now, tz="Asia/Shanghai")
qd.plot_run_timeline(last, triggers=soon, tz="Asia/Shanghai", top=15)
