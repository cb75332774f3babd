"""Load what the service lists, and keep it on disk.

This layer alone joins the client, the page walk, the decoder, the cache, the stores and the snapshots.

====================  ==========================================================================================
file                  question
====================  ==========================================================================================
`lists`               How are deployments, agents, environments and the events of a session loaded?
`runs`                How are runs loaded?
`sessions`            How are sessions loaded, and which of them are read again?
`stored`              Is a call answered from the store, from the service, or from a cached answer?
`refresh`             Which pages and single records are read to bring a store up to date?
`run_outcomes`        Which sessions and events are read to find out what became of runs?
`deployment_history`  Which snapshots are there, and how are they loaded?
`scans`               How does another engine open what is on disk?
`caches`              How much is on disk, and how is it removed?
====================  ==========================================================================================
"""
