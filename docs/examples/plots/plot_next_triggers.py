"""
What fires in the next 24 hours
===============================

One lane per deployment, a mark for each trigger, colored by agent.
"""

import qoderdata as qd

client, now = qd.connect(deployments=250, seed=7)
df = qd.load_deployments(client=client, include_archived=True)

# %%
# The picture:
triggers = qd.next_triggers(df, "24h", start=now, tz="Asia/Shanghai")
named = qd.with_names(triggers, agents=qd.load_agents(client=client))
qd.plot_next_triggers(named, top=15)

# %%
# The same as a table:
named[["trigger_at", "name", "agent_name", "schedule_expression", "source"]].head(5)
