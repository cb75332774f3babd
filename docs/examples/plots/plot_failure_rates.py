"""
Failure rates with their intervals
==================================

Which deployments fail most, and how sure is that? A bar is the failure rate, the line on it is the 95 % interval.
"""

import qoderdata as qd

client, now = qd.connect(deployments=250, seed=7)
df = qd.load_deployments(client=client)

# %%
# The picture:
rates = qd.failure_rates(df)
qd.plot_failure_rates(rates)

# %%
# The same as a table, the worst first:
rates.set_index("name")[["total_runs", "total_failures", "failure_rate", "ci_low", "ci_high"]].head(5).round(3)
