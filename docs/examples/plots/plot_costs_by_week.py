"""
What each week costs
====================

Credits of all sessions, week by week.
"""

import qoderdata as qd

client, now = qd.connect(deployments=120, seed=7, edition="D")
df = qd.load_deployments(client=client, include_archived=True)
sessions = qd.load_sessions(client=client)
sessions = qd.with_names(sessions, df, agents=sessions, metadata=["team"])

# %%
# The picture:
qd.plot_costs(qd.session_costs(sessions, by=None, freq="1W", tz="Asia/Shanghai"))
