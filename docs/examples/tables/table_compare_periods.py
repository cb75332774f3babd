"""
Worse than last week
====================

The failure rate of seven days against the seven days before, with an interval of the difference.
"""

import qoderdata as qd

client, now = qd.connect(deployments=250, seed=7)
df = qd.load_deployments(client=client, include_archived=True)
runs = qd.with_names(qd.load_runs(client=client), df, metadata=["team"])

# %%
# The table:
compared = qd.compare_periods(runs, by="metadata_team", recent="7D", until=now)
compared[
    ["recent_decided", "recent_rate", "baseline_rate", "change", "change_low", "change_high", "verdict"]
].round(3)
