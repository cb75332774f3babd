"""
Explore runs by mouse
=====================

Failure rates, a timeline and a calendar that follow the mouse, in a notebook or as a page.
"""

# sphinx_gallery_thumbnail_path = '_build/extra/example-explore.png'
import qoderdata as qd

client, now = qd.connect(deployments=60, seed=7)
df = qd.with_names(qd.load_deployments(client=client, include_archived=True), agents=qd.load_agents(client=client))
runs = qd.load_runs(client=client)

# %%
# In JupyterLab, the chart is shown if it is the last line of a cell. With ``path="runs.html"`` it is written as a
# page as well:
chart = qd.explore(df, runs, tz="Asia/Shanghai")

# %%
# This is what it looks like; click the picture to open the page.
#
# .. image:: /_build/extra/example-explore.png
#    :alt: Bars of runs over time, failure rates by agent and deployment, a timeline and a calendar of runs.
#    :target: ../../example-explore.html
