"""Write frames to files for other programs.

| file | question |
|---|---|
| `writers` | how is a frame of any engine read, and written as CSV or Parquet? |
| `csv_cells` | how is each kind of value written, what would a spreadsheet run, and which values may be secrets? |
"""

from qoderdata.export.writers import csv_text, export_csv, export_parquet

__all__ = ["csv_text", "export_csv", "export_parquet"]
