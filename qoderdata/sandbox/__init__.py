"""A local stand-in of the Qoder Cloud Agents API with generated accounts, served over real HTTP on loopback.

    with Sandbox(deployments=250, seed=7) as sandbox:
        client = qoderdata.Client(pat=sandbox.pat, base_url=sandbox.base_url)

Shares nothing with the code that it checks but the cron evaluator.

================  ==========================================================================================
file              question
================  ==========================================================================================
`standin`         how does a test use the sandbox?
`account`         which deployments are there?
`schedules`       which cron texts do they use, and when do these fire?
`run_history`     which runs are there, and how long did they take?
`stories`         what happened in each session?
`session_events`  what do its events, and the record of its run, say of it?
`json_records`    how are deployments and runs written as JSON?
`session_records` how are sessions, agents and environments written as JSON?
`wordlists`       which names, prompts and messages are there?
`ledger`          where are the records kept?
`changes`         how does an account change while somebody reads it?
`query`           which records does a query string ask for?
`endpoints`       which path answers what?
`http_responses`  what do pages, errors and faults look like?
`server`          how does it go over the wire?
`draws`           where do random numbers, ids and time stamps come from?
================  ==========================================================================================
"""

from qoderdata.sandbox.server import Request
from qoderdata.sandbox.standin import NOW, Sandbox

__all__ = ["NOW", "Request", "Sandbox"]
