"""Write a report: one self-contained HTML page out of check, summaries and timelines.

| file | question |
|---|---|
| `page` | how is the page rendered and written? |
| `figures` | what are the headline and the six figures? |
| `sections` | what do the sections say: the picture, what to do first, changes, costs, groups? |
| `folded_sections` | what do the folded sections say? |
| `layout` | what are a section, a table and a cell? |
| `data` | which frames, periods and names is it about? |
| `report.html.j2`, `report.css` | how is it laid out? |
"""
