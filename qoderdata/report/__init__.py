"""One self-contained HTML page out of summaries, timelines and pictures.

- `material`: the frames and what several sections need of them
- `summary`, `failing`, `schedule`, `history`: what each section says
- `page`, `tables`, `pictures`, `bars`, `style.css`: how it looks
- `write`: all of it to a file
- `markup`: HTML that cannot be broken out of
"""

from __future__ import annotations

from qoderdata.report.write import write_report

__all__ = ["write_report"]
