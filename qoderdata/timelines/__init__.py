"""What fires when, and what should have fired: frame in, frame out.

`pairs` finds the distinct schedules of a frame, `listed` the triggers that the service lists itself;
`triggers` projects, `windows` counts what starts together, `missed` looks back, and `lints` says what may
surprise; `clock` is what they reckon in. Knows nothing of network, disk and plots, and changes no argument.
"""

from qoderdata.timelines.lints import describe_schedule, schedule_lints
from qoderdata.timelines.missed import missed_triggers
from qoderdata.timelines.triggers import next_triggers
from qoderdata.timelines.windows import trigger_load

__all__ = ["describe_schedule", "missed_triggers", "next_triggers", "schedule_lints", "trigger_load"]
