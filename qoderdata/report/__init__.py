"""Write a report: one self-contained HTML page out of summaries, timelines and plots.

| file | question |
|---|---|
| `page` | how is the page rendered and written; what are its headline and its notes on the data? |
| `sections` | what does each section say? |
| `layout` | what are a section, a table and a cell? |
| `data` | which frames, window and names is it about? |
| `figures` | how does a plot become a figure of the page? |
| `report.html.j2`, `report.css` | how is it laid out? |
"""

from qoderdata.report.page import write_report

__all__ = ["write_report"]
