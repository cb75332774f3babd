"""Scheduled agents on Qoder Cloud as pandas frames.

What do I have, what is failing and how badly, what will fire next, and what should have fired but did not::

    import qoderdata as qd

    df = qd.load_deployments(include_archived=True)   # every page, typed, cached
    runs = qd.load_runs(since="30D")                  # only what is new, the next time
    rates = qd.run_failure_rates(qd.with_names(runs, df))
    qd.plot_failure_rates(rates)                      # failure rates with their intervals
    qd.plot_next_triggers(qd.next_triggers(df))       # what fires next
    qd.missed_triggers(df, runs, since="7D", until="0h")  # what never started
    qd.write_report(df, "report.html", runs=runs)     # one page for a colleague

The access token comes from ``QODER_ACCESS_TOKEN`` or ``QODER_PAT``; without one, `connect` starts a sandbox.

A name is imported when it is first used, so that a pull does not wait for the plots; the names are in
``__init__.pyi``.
"""

import os
import sys

import lazy_loader

if sys.platform == "linux":
    # Arrow's default, mimalloc, gets memory in pages of 2 MiB, which the kernel clears each time. With the
    # system's allocator, a pull takes about 10 % less time and 15 % less memory. Arrow reads this when imported.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
