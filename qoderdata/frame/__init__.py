"""JSON records to Arrow table to DataFrame, by the schema; what has no column goes to ``extra``.

- `decoder`: the pages of a pull, from bytes to one table; `joining`: the tables to one
- `records`: records that are there already
- `exact`, `jsontext`: one value at a time; takes anything, loses nothing, defines what is right
- `fast`, `texts`, `shapes`, `counting`, `repeats`, `collecting`: a page at a time, where it can be proved that
  nothing is lost
- `pandas`: table to frame
- `derived`: what lies folded in a deployments frame, unfolded
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
