"""
The busiest hours
=================

Do schedules collide? The triggers of four weeks, by weekday and hour.
"""

import qoderdata as qd

client, now = qd.connect(deployments=250, seed=7)
df = qd.load_deployments(client=client, include_archived=True)

# %%
# The picture:
triggers = qd.next_triggers(df, "28D", start=now, tz="Asia/Shanghai")
qd.plot_trigger_load(triggers)

# %%
# The busiest hours as a table:
qd.trigger_load(triggers, freq="1h").sort_values("triggers", ascending=False).head(5)
