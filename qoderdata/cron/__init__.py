"""One cron text in one zone: is it valid, what does it say in words, when does it fire.

`fields` reads the text, `zones` knows when clocks change, `words` puts it into English, `schedule` joins them.
Knows nothing of frames and of the network; for many deployments, evaluate each distinct pair of text and zone
once.
"""

from qoderdata.cron.fields import CronError
from qoderdata.cron.schedule import Schedule, parse

__all__ = ["CronError", "Schedule", "parse"]
