"""
Failure rates, with their intervals
===================================

Who fails most, and how sure is that? A bar is the failure rate, the line its 95 % interval.
"""

import qoderdata as qd

client, now = qd.connect(deployments=250, seed=7)
df = qd.load_deployments(client=client)

rates = qd.failure_rates(df)
qd.plot_failure_rates(rates)

# %%
# The same numbers as a table, the worst first:
rates.head(5)
