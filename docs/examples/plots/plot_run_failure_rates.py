"""
Failure rate day by day
=======================

Since when does it fail? A point is the failure rate of a day with its interval; the bars below count the runs.
"""

import pandas as pd

import qoderdata as qd

client, now = qd.connect(deployments=250, seed=7)
df = qd.load_deployments(client=client, include_archived=True)
runs = qd.with_names(qd.load_runs(client=client), df)

# %%
# The picture:
recent = runs[runs["triggered_at"] >= now - pd.Timedelta("21D")]
daily = qd.run_failure_rates(recent, by=None, freq="1D", tz="Asia/Shanghai")
qd.plot_run_failure_rates(daily)

# %%
# The same as a table:
daily[["runs", "completed", "failed", "failure_rate", "ci_low", "ci_high"]].tail(5).round(3)
