"""
What agents cost
================

Credits of sessions by agent, split into what the model and the sandbox used.
"""

import qoderdata as qd

client, now = qd.connect(deployments=120, seed=7, edition="D")
df = qd.load_deployments(client=client, include_archived=True)
sessions = qd.load_sessions(client=client)
sessions = qd.with_names(sessions, df, agents=sessions, metadata=["team"])

# %%
# The picture:
costs = qd.session_costs(sessions, by="agent_id")
qd.plot_costs(costs, top=12)

# %%
# The same as a table:
costs.set_index("name")[["sessions", "credits", "credits_p50", "credits_p95", "share", "unknown"]].head(5).round(2)
