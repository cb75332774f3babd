from .decoder import Decoder, Page
from .derived import expand_metadata, upcoming_runs
from .jsontext import NotJSONError
from .pandas import to_pandas
from .records import flatten_deployments, flatten_runs, from_records

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
