"""JSON records to Arrow table to DataFrame, by the schema; what has no column goes to ``extra``.

- `decoder`: the pages of a pull, from bytes to one table; `joining`: the tables to one
- `records`: records that are there already
- `exact`, `jsontext`: one value at a time; takes anything, loses nothing, defines what is right
- `fast`, `texts`, `shapes`, `collecting`: a page at a time, where it can be proved that nothing is lost
- `pandas`: table to frame
- `derived`: what lies folded in a deployments frame, unfolded
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
