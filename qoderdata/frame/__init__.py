"""JSON records to Arrow table to DataFrame, by the schema; what has no column goes to ``extra``.

- `decoder`: the pages of a pull, from bytes to one table
- `records`: records that are there already
- `derived`: what lies folded in a deployments frame, unfolded
- `pandas`: table to frame and back
- `exact`, `jsontext`: one value at a time, losing nothing
"""

from qoderdata.frame.decoder import Decoder, Page
from qoderdata.frame.derived import expand_metadata, upcoming_runs
from qoderdata.frame.jsontext import NotJSONError
from qoderdata.frame.pandas import to_pandas
from qoderdata.frame.records import flatten_deployments, flatten_runs, from_records

__all__ = [
    "Decoder",
    "NotJSONError",
    "Page",
    "expand_metadata",
    "flatten_deployments",
    "flatten_runs",
    "from_records",
    "to_pandas",
    "upcoming_runs",
]
