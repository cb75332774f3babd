"""Serve a local copy of the Qoder Cloud Agents API with generated accounts, over real HTTP on loopback.

    with Sandbox(deployments=250, seed=7) as sandbox:
        client = qoderdata.Client(pat=sandbox.pat, base_url=sandbox.base_url)

It shares nothing with the code that it checks, except the cron evaluator.

| file | question |
|---|---|
| `sandbox` | how does a test start the sandbox and inject faults, and how are responses sent? |
| `account` | which deployments are there, and when do their schedules fire? |
| `run_history` | which runs are there, and how long did they take? |
| `scenarios` | what happened in each session? |
| `json_records` | how are deployments and runs written as JSON? |
| `session_records` | how are sessions, their events, agents and environments written as JSON? |
| `sample_values` | where do columns, random numbers, ids and times come from? |
| `sample_texts.toml` | which names, prompts and messages do records have? |
| `database` | how are records stored, found and changed? |
| `changes` | which records does a test see, and how do they change while a client reads them? |
| `endpoints` | which path returns what, and which records does a query string ask for? |
"""

from qoderdata.sandbox.endpoints import Request
from qoderdata.sandbox.sandbox import NOW, Sandbox

__all__ = ["NOW", "Request", "Sandbox"]
