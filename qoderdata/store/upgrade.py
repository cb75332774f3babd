"""How are the rows and the journal of version 0.1 converted? The old manifest is read in `manifest`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from qoderdata.decode.exact import MISFIT, fit
from qoderdata.schema import EXTRA, RUNS, Kind, resolve_record
from qoderdata.store.journal import UNREADABLE_ENTRY_ERRORS, JournalEntry, decode_entry, entry_files
from qoderdata.store.tables import RUNS_TABLE, StoredTable

if TYPE_CHECKING:
    from qoderdata.files import Folder

#: The folder of the journal of version 0.1.
OLD_FOLDER = "inbox"

#: The columns that version 0.1 did not have, and the key in ``extra`` under which it kept the scheduled time.
_NEW_COLUMNS = frozenset({"status_from", "trigger_scheduled_at"})
_OLD_KEY = "trigger_context.scheduled_at"


def upgrade_rows(old: pa.Table, table: StoredTable) -> pa.Table | None:
    """Convert rows of runs of version 0.1 to the present columns; ``None`` if they have other columns."""
    expected = {field.name: field.type for field in RUNS.arrow if field.name not in _NEW_COLUMNS}
    if table is not RUNS_TABLE or dict(zip(old.schema.names, old.schema.types, strict=True)) != expected:
        return None
    split = [_split(text) if text and _OLD_KEY in text else (None, text) for text in old[EXTRA].to_pylist()]
    columns: dict[str, Any] = {name: old[name] for name in expected}
    columns[EXTRA] = pa.array([extra for _, extra in split], pa.large_string())
    columns["trigger_scheduled_at"] = pa.array([time for time, _ in split], pa.timestamp("us", tz="UTC"))
    columns["status_from"] = pa.nulls(old.num_rows, pa.large_string())
    return resolve_record(pa.table([columns[name] for name in RUNS.arrow.names], schema=RUNS.arrow))


def upgraded_entries(folder: Folder, table: StoredTable, *, after: int) -> list[JournalEntry]:
    """Return the journal entries of version 0.1 after a number, without those that cannot be read."""
    files = entry_files(folder, OLD_FOLDER)
    found = [_read(folder, name, table) for name, number in files.items() if number > after]
    return [entry for entry in found if entry is not None]


def _read(folder: Folder, name: str, table: StoredTable) -> JournalEntry | None:
    try:
        content = folder.read(name)
        if content is None:
            return None
        old, facts = decode_entry(content)
    except UNREADABLE_ENTRY_ERRORS:
        return None
    rows = upgrade_rows(old, table)
    return None if rows is None else JournalEntry(rows, facts.read_at, facts.listing, facts.gone)


def _split(extra: str) -> tuple[object, str | None]:
    """Return the scheduled time in a row's ``extra``, and the rest of it; a value that is no time stays there."""
    fields = msgspec.json.decode(extra, type=dict[str, msgspec.Raw])
    time = fit(msgspec.json.decode(fields.pop(_OLD_KEY, msgspec.Raw(b"null"))), Kind.TIME)
    if time is MISFIT:
        return None, extra
    return time, msgspec.json.encode(fields).decode() if fields else None
