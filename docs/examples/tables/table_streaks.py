"""
What fails now, and since when
==============================

Failures in a row: the current streak, the longest one, and how many incidents there were.
"""

import qoderdata as qd

client, now = qd.connect(deployments=250, seed=7)
df = qd.load_deployments(client=client, include_archived=True)
runs = qd.with_names(qd.load_runs(client=client), df)

# %%
# The table:
streaks = qd.failure_streaks(runs).set_index("name")
streaks[["current_streak", "current_streak_since", "longest_streak", "incidents"]].head(8)
