"""Append-only tables on disk.

==============  =================================================================================
file            question
==============  =================================================================================
`tables`        What is a stored table: which of its rows may still change, and how are they sorted?
`coverage`      Which parts of the remote list are complete?
`journal`       Which responses are on disk, but not in the data set yet?
`partitions`    In which partition and file is a row, and is a data file unchanged since it was written?
`manifest`      Which data files are valid, and to which account do they belong?
`table_store`   How is a table read and extended, and recovered after an interruption?
==============  =================================================================================

There is one store per table, base URL, workspace and account. It keeps the unfiltered list, below the cache
folder::

    runs/<digest>.lock                            held while a process writes
    runs/<digest>/manifest.json                   what is valid: files, segments, open rows
    runs/<digest>/data/day=2026-06-14/….parquet   the rows, by the day (UTC) of the table's time
    runs/<digest>/journal/….arrow                 responses that are not in the data set yet, one per file
    runs/<digest>/set-aside-<time>/               files that cannot be used; only clear_cache removes them

**Data set.** Plain Hive-partitioned Parquet: DuckDB, Polars, Dask and Spark can read ``data`` in place. After a
completed call, every row is in it once, and a day has one file (a day with very many rows has a few).

**No response is lost.** A response is in the journal before the request after the next one is sent. So a pull that
is interrupted at any time, even by SIGKILL, loses at most the response that was being written and the one that was
being received. A power failure may lose the responses of the last seconds; they are requested again. A *commit*
writes new data files beside the old ones, replaces the manifest in one step, then removes the superseded files and
the journal. If it is interrupted, either the old or the new manifest is valid; the next call finds a journal that
is not empty, and completes the commit.

**A row is stored once.** A row that cannot change is never replaced; any other row is replaced by a later reading.
A row that the service no longer has stays.

**Damage.** The manifest, each journal entry and each data file have a checksum, which every read compares; all of
them name the account. Damaged data files are set aside, nothing counts as complete any more, and the list is read
again. A manifest that is damaged or has another format is rebuilt from the data files that are not damaged. A
store of another account is set aside completely.

**New columns.** Rows that an earlier version stored may lack columns. Every read fills these from ``extra``, by
`qoderdata.stored_columns`, and the next writer rewrites the data files. A file with a column that this
version does not have counts as damaged. A store of version 0.1 is rewritten by the first writer.

**Several processes.** A writer holds the lock; other writers wait for it. Readers take no lock: they read the
files that the manifest names, and start again when a commit removes one. An object store has no locks. There, file
names are unique, a commit reads the manifest again before it changes it, and of two manifests the last one written
is valid. What the other one claimed is read again.

**If the folder cannot be written**, a warning says so, and the responses are kept in memory during this call.
"""

from qoderdata.store.coverage import LONG_AGO, Listing
from qoderdata.store.journal import JournalEntry
from qoderdata.store.manifest import NAME as MANIFEST_NAME
from qoderdata.store.manifest import UnusableManifestError, read_manifest
from qoderdata.store.partitions import DamagedStoreError
from qoderdata.store.table_store import TableStore
from qoderdata.store.tables import OUTCOMES_TABLE, RUNS_TABLE, SESSIONS_TABLE, TABLES, StoredTable, all_of, row_ids

__all__ = [
    "LONG_AGO",
    "MANIFEST_NAME",
    "OUTCOMES_TABLE",
    "RUNS_TABLE",
    "SESSIONS_TABLE",
    "TABLES",
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
