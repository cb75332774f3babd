"""The runs on disk, and which stretches of the service's list are complete; knows nothing of the network.

One store per base URL, workspace and account keeps the unfiltered list of runs, below the cache folder::

    runs/<digest>.lock                            held while a process pulls, or tidies up
    runs/<digest>/manifest.json                   what counts: files, stretches, open runs
    runs/<digest>/data/day=2026-06-14/….parquet   the runs, by the day (UTC) of ``triggered_at``
    runs/<digest>/inbox/….arrow                   answers that are not in the data set yet, one file each

**The data set** is plain Hive-partitioned Parquet: DuckDB, Polars, Dask and Spark read ``data`` as it lies. Runs
without ``triggered_at`` are in Hive's default partition. After a call that ended, every run is in it once, and a
day has one file (a day of very many runs: a few). `RunReader.files` gives the files that count.

**Nothing that was read is lost.** Every answer is in the inbox, whole, before the answer after the next is asked
for; so a pull that is cut off at any moment, by SIGKILL too, loses at most the one that was being kept and the
one under way. From time to time, and at the end, the inbox is *folded* into the data set: new data files are
written beside the old ones, then the manifest is replaced, in one step, then the superseded files and the inbox
are removed. Cut off in between, the old manifest still counts, or the new one does; the next call finds the inbox
not empty, and puts it in order. Superseded files are removed at once, not kept for a while: a reader of the bare
folder that comes in the middle of a fold gets an error because a file is gone, and not a run twice in silence.

**A run is there once.** A run that ended never changes, so what is stored stays, whatever comes again. An open run
(``pending``, ``running``) stands in the manifest with its day and the time of its last reading; a later reading
takes its place, in another day if need be. One that the service no longer knows stays as it is, and is not
asked for again.

**Complete stretches.** See `qoderdata.store.coverage`. What is not certain is not claimed, and so is read again:
a claim too few costs requests, a claim too many would lose runs.

**Several processes.** Whoever pulls holds the store's lock all the while; another that wants to pull waits, and
then finds what the first one brought. Readers take no lock: they read the files that the manifest names, and
start again when a fold takes one away. An object store has no lock. There, file names are unique, the manifest
is read again before a fold builds on it, and the last of two manifests counts: it is right in itself, and what
the other one claimed is pulled again. Should it name a file that the other one removed, that is found out, said in
a warning, and everything is read again.

**A folder that cannot be written** is a warning: the answers are kept in memory, for this call alone.

- `runs`: the store, to add to; `reader`: to read
- `coverage`: which stretches of the list are complete
- `inbox`: one file an answer
- `partitions`, `upkeep`: the data set, and how it is kept in order
- `merging`: which reading of a run counts, and in which order runs are given
- `manifest`: what counts
- `stores`: how much all stores of a cache folder hold, and how to clear them
"""

from qoderdata.store.coverage import Coverage, Listing, Stretch
from qoderdata.store.inbox import Reading
from qoderdata.store.manifest import Manifest, OpenRun
from qoderdata.store.merging import condition, newest_first
from qoderdata.store.partitions import DamagedStoreError, ids
from qoderdata.store.reader import RunReader
from qoderdata.store.runs import RunStore
from qoderdata.store.stores import Usage, clear, usage

__all__ = [
    "Coverage",
    "DamagedStoreError",
    "Listing",
    "Manifest",
    "OpenRun",
    "Reading",
    "RunReader",
    "RunStore",
    "Stretch",
    "Usage",
    "clear",
    "condition",
    "ids",
    "newest_first",
    "usage",
]
