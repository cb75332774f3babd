"""Read one cron text in one zone.

| file | question |
|---|---|
| `schedule` | which cron texts are valid, and at which instants do they fire in their zone? |
| `descriptions` | what does a schedule say in plain English? |

Knows nothing of frames and of the network. For many
deployments, evaluate each distinct pair of text and zone once.
"""

from qoderdata.cron.schedule import CronError, NeverFiresError, Schedule, parse

__all__ = ["CronError", "NeverFiresError", "Schedule", "parse"]
