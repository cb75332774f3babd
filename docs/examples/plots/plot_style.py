"""
A plot of your own
==================

``plot_style`` gives your own figures the fonts and the colors of the other plots.
"""

import matplotlib.pyplot as plt

import qoderdata as qd

client, now = qd.connect(deployments=250, seed=7)
df = qd.load_deployments(client=client, include_archived=True)

# %%
# The picture:
states = df["status"].mask(df["archived_at"].notna(), "archived").value_counts()
with qd.plot_style():
    figure, ax = plt.subplots(figsize=(7, 2.2), layout="constrained")
    ax.barh(states.index, states)
    ax.set_title("Deployments by state")
