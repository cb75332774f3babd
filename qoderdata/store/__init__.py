"""Append-only tables on disk.

==============  =================================================================================
file            question
==============  =================================================================================
`tables`        What is a stored table: which of its rows may still change, and in which order are they?
`coverage`      Which parts of the remote list are complete?
`journal`       Which responses are on disk, but not in the data set yet?
`dataset`       Where does a row lie, and is a data file what was written?
`manifest`      Which data files count, and whose are they?
`table_store`   How is a table read, extended and repaired?
`upgrade`       How do the rows and the journal of version 0.1 become those of today?
==============  =================================================================================

One store per table, base URL, workspace and account keeps the unfiltered list, below the cache folder::

    runs/<digest>.lock                            held while a process writes
    runs/<digest>/manifest.json                   what counts: files, segments, open rows
    runs/<digest>/data/day=2026-06-14/….parquet   the rows, by the day (UTC) of the table's time
    runs/<digest>/journal/….arrow                 responses that are not in the data set yet, one file each
    runs/<digest>/set-aside-<time>/               files that cannot be used; never read, never removed

**Data set.** Plain Hive-partitioned Parquet: DuckDB, Polars, Dask and Spark read ``data`` where it lies. After a
call that ended, every row is in it once, and a day has one file (a day of very many rows: a few).

**No response is lost.** Each one is in the journal before the second-next request is sent, so a pull that is cut
off at any moment, by SIGKILL too, loses at most the response that was being written and the one under way; a
power cut may lose those of the last seconds, which are asked for again. A *commit* writes new data files beside
the old ones, replaces the manifest in one step, then removes the superseded files and the journal. Cut off in
between, the old manifest counts, or the new one; the next call finds the journal not empty and finishes the work.

**A row is stored once.** A row that cannot change stays as it is, whatever comes later; any other is replaced by a
later reading. A row that the service no longer knows stays.

**Damage.** The manifest, each journal entry and each data file have a checksum, which every read compares;
manifest, entries and data files name the account. Data files that are damaged are set aside, nothing counts as
complete any more, and the list is read again. A manifest that is damaged or of another format is rebuilt from the
data files that are whole. A store of another account is set aside as a whole. A store of version 0.1 is upgraded
on first use.

**Several processes.** A writer holds the lock; another one waits for it. Readers take no lock: they read the files
that the manifest names, and start again when a commit removes one. An object store has no locks: there, file names
are unique, the manifest is read again before a commit builds on it, and the last of two manifests counts. What the
other one claimed is read again.

**A folder that cannot be written** is a warning: the responses are kept in memory, for this call alone.
"""

from qoderdata.store.coverage import LONG_AGO, Coverage, Listing
from qoderdata.store.dataset import DamagedStoreError
from qoderdata.store.journal import JournalEntry
from qoderdata.store.manifest import NAME as MANIFEST_NAME
from qoderdata.store.manifest import UnusableManifestError, read_manifest
from qoderdata.store.table_store import TableStore
from qoderdata.store.tables import (
    OUTCOMES_TABLE,
    RUNS_TABLE,
    SESSIONS_TABLE,
    TABLES,
    StoredTable,
    all_of,
    row_ids,
)

__all__ = [
    "LONG_AGO",
    "MANIFEST_NAME",
    "OUTCOMES_TABLE",
    "RUNS_TABLE",
    "SESSIONS_TABLE",
    "TABLES",
    "Coverage",
    "DamagedStoreError",
    "JournalEntry",
    "Listing",
    "StoredTable",
    "TableStore",
    "UnusableManifestError",
    "all_of",
    "read_manifest",
    "row_ids",
]
