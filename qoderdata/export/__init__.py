"""Write frames to files for other programs.

| file | question |
|---|---|
| `writers` | how is a frame written as CSV or Parquet? |
| `csv_cells` | how is each kind of value written, and what would a spreadsheet run? |
| `masking` | which values may be secrets? |
| `frame_batches` | how is a frame of any engine read, batch by batch? |
"""

from qoderdata.export.writers import csv_text, export_csv, export_parquet

__all__ = ["csv_text", "export_csv", "export_parquet"]
