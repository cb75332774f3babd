"""
More expensive than last week
=============================

The credits of seven days and of the seven days before, the largest increase first. A team costs more if it has
more sessions, or if a session costs more.
"""

import qoderdata as qd

client, now = qd.connect(deployments=250, seed=7, edition="D")
df = qd.load_deployments(client=client, include_archived=True)
sessions = qd.with_names(qd.load_sessions(client=client), df, metadata=["team"])

# %%
# The table:
compared = qd.compare_costs(sessions, by="metadata_team", recent="7D", until=now)
compared[["recent_credits", "baseline_credits", "change", "recent_sessions", "recent_credits_p50"]].round(2)
