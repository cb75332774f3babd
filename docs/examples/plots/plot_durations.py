"""
How long runs take
==================

Completed and failed runs, over one logarithmic axis of time.
"""

import pandas as pd

import qoderdata as qd

client, now = qd.connect(deployments=250, seed=7)
df = qd.load_deployments(client=client, include_archived=True)
runs = qd.with_names(qd.load_runs(client=client), df)

# %%
# The picture:
recent = runs[runs["triggered_at"] >= now - pd.Timedelta("21D")]
qd.plot_durations(recent)
