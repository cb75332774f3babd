"""What fires next, and what should have fired but did not: frame in, frame out.

==================== ================================================================================
`upcoming_triggers`  what fires next, and how much starts at the same time?
`missed`             which scheduled times did no run serve, and is that certain?
`lints`              what does a schedule say in words, and what about it may surprise?
`distinct_schedules` which schedules does a frame have, and which triggers does the service list?
==================== ================================================================================

No network, no disk; arguments are not changed.
"""

from qoderdata.timelines.lints import describe_schedule, schedule_lints
from qoderdata.timelines.missed import missed_triggers
from qoderdata.timelines.upcoming_triggers import next_triggers, trigger_load

__all__ = ["describe_schedule", "missed_triggers", "next_triggers", "schedule_lints", "trigger_load"]
