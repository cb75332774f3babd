"""Stores on disk with a few runs, and a base class of fake services, for tests of stores and of loads."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from qoderdata.decode import from_records
from qoderdata.files import Folder
from qoderdata.schema import RUNS
from qoderdata.store import RUNS_TABLE, JournalEntry, Listing, StoredTable, TableStore, row_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pyarrow as pa

NOW = datetime(2026, 6, 15, tzinfo=UTC)
BASE_URL = "https://service.test"


@dataclass(kw_only=True)
class FakeClient:
    """The attributes of a client that loaders read, for fake services without HTTP."""

    base_url: str = BASE_URL
    workspace_id: str | None = None
    account: str = "someone"
    page_limit: int | None = 100
    max_pages: int = 1_000_000

    @property
    def identity(self) -> dict[str, str | None]:
        return {"base_url": self.base_url, "workspace_id": self.workspace_id, "account": self.account}

    def mask(self, text: str) -> str:
        return text


def make_store(folder: Folder | Path, table: StoredTable = RUNS_TABLE, *, account: str = "someone") -> TableStore:
    """Return the store of an account; it is not loaded."""
    folder = folder if isinstance(folder, Folder) else Folder(folder)
    return TableStore(folder, table, base_url=BASE_URL, workspace_id=None, account=account)


def run(number: int, *, status: str = "completed", day: int | None = 14, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a run record that was created at noon of a day of June."""
    at = None if day is None else f"2026-06-{day:02}T12:00:00Z"
    return {"id": f"drun_{number:03}", "status": status, "triggered_at": at, "created_at": at, **more}


def runs_table(*runs: dict[str, Any]) -> pa.Table:
    """Return the Arrow table of run records."""
    return from_records(list(runs), RUNS)


def page(*runs: dict[str, Any], after: str | None = None, more: bool = False) -> JournalEntry:
    """Return the journal entry of a page of the list; by default the page is the whole list."""
    ids = tuple(one["id"] for one in runs)
    return JournalEntry(runs_table(*runs), NOW, Listing(after, ids, ids[-1] if more else None))


def commit_entries(store: TableStore, *entries: JournalEntry) -> None:
    """Add entries and commit them, as a whole pull does."""
    with store.writer_lock():
        for entry in entries:
            store.add(entry)
        store.commit(compact=True)


def data_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("runs/*/data/*/*.parquet"))


def stored(store: TableStore, column: str = "status", **bounds: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the values of a column by id."""
    found = store.read(**bounds)
    assert found.schema.equals(store.table.schema.arrow)
    return dict(zip(row_ids(found), found[column].to_pylist(), strict=True))


@contextlib.contextmanager
def killed_after(changes: int, *methods: str) -> Iterator[None]:
    """End what is done inside after some calls of these methods of `Folder`, as the end of the process would."""

    class KilledError(BaseException):
        """Nothing in the package catches it."""

    left = itertools.count(changes, -1)

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            if next(left) <= 0:
                raise KilledError
            return change(*arguments, **options)

        return wrapped

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KilledError):
        for method in methods:
            patch.setattr(Folder, method, counted(getattr(Folder, method)))
        yield
