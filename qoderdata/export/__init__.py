"""Frames to files for other programs: CSV that is safe to open in a spreadsheet, and Parquet.

`formulas` knows what a spreadsheet would run, `masking` what must not be shown, `engines` how a frame of any
engine is read batch by batch, `csvfile` and `parquetfile` write. Nothing here computes.
"""

from __future__ import annotations

from qoderdata.export.csvfile import csv_text, export_csv
from qoderdata.export.parquetfile import export_parquet

__all__ = ["csv_text", "export_csv", "export_parquet"]
