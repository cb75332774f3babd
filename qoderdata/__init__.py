"""Scheduled agents on Qoder Cloud as pandas frames.

What do I have, what is failing and how badly, what will fire next, and what should have fired but did not::

    import qoderdata as qd

    df = qd.load_deployments()                        # every page, typed, cached
    qd.plot_failure_rates(qd.failure_rates(df))       # who fails most, and can I trust that number
    qd.plot_next_triggers(qd.next_triggers(df))       # what fires next
    qd.missed_triggers(df, qd.load_runs(since="7D"), since="2026-06-08T00:00Z", until="2026-06-15T00:00Z")
    qd.write_report(df, "report.html")                # one page for a colleague

The access token comes from ``QODER_ACCESS_TOKEN`` or ``QODER_PAT``; without one, `connect` starts a sandbox.

A name is imported when it is first used, so that a pull does not wait for the plots; the names are in
``__init__.pyi``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
