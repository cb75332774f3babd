"""A local stand-in of the Qoder Cloud Agents API with generated accounts, served over real HTTP on loopback.

    with Sandbox(deployments=250, seed=7) as sandbox:
        client = qoderdata.Client(pat=sandbox.pat, base_url=sandbox.base_url)

Shares nothing with the code that it checks but the cron evaluator. `standin` joins the rest: `account`,
`schedules`, `history` and `runs` decide what there is, `records` and `texts` write it, `ledger`, `table` and
`changes` keep it, `query`, `answers`, `faults` and `server` serve it, and `draws` is the chance behind it all.
"""

from qoderdata.sandbox.server import Request
from qoderdata.sandbox.standin import NOW, Sandbox

__all__ = ["NOW", "Request", "Sandbox"]
