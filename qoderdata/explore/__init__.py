"""Explore runs by mouse: one linked view in a notebook, or as one HTML page.

| file | question |
|---|---|
| `interactive` | what does the caller get, and how is the page written? |
| `linked_views` | what is drawn, and what follows a click? |
| `chart_tables` | which rows are drawn, one per run or one per window of time, and what is said about them? |
| `explore.html.j2`, `explore.css`, `explore.js` | how is the page laid out and started? |
"""
