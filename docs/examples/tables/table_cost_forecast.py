"""
What the next month will cost
=============================

The triggers of the next 30 days are known. What a run costs is taken from the sessions that have ended.
"""

import qoderdata as qd

client, now = qd.connect(deployments=120, seed=7, edition="D")
df = qd.load_deployments(client=client, include_archived=True)
sessions = qd.load_sessions(client=client)

# %%
# The table:
forecast = qd.cost_forecast(df, sessions, "30D", start=now).set_index("name")
forecast[["triggers", "sessions", "expected", "low", "high", "budget_use"]].head(8).round(2)

# %%
# By team. The cost of the ``unknown`` triggers is not in ``expected``:
teams = qd.expand_metadata(df, ["team"])
by_team = qd.cost_forecast(teams, sessions, "30D", by="metadata_team", start=now)
by_team[["triggers", "expected", "low", "high", "unknown"]].round(2)
