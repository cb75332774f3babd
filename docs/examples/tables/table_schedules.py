"""
What a schedule says
====================

Schedules in words, and what may surprise about them.
"""

import qoderdata as qd

client, now = qd.connect(deployments=250, seed=7)
df = qd.load_deployments(client=client, include_archived=True)

# %%
# The table:
lints = qd.schedule_lints(df, start=now)
lints.groupby("lint").head(1)[["name", "lint", "detail"]]

# %%
# A cron text in words:
qd.describe_schedule("0 9 * * 1-5", "Asia/Shanghai")
