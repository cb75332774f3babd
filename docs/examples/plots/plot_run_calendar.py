"""
Calendar of failures
====================

One square per day. Its color is the share of decided runs that failed.
"""

import pandas as pd

import qoderdata as qd

client, now = qd.connect(deployments=250, seed=7)
df = qd.load_deployments(client=client, include_archived=True)
runs = qd.with_names(qd.load_runs(client=client), df)

# %%
# The picture:
recent = runs[runs["triggered_at"] >= now - pd.Timedelta("120D")]
qd.plot_run_calendar(recent, tz="Asia/Shanghai")
