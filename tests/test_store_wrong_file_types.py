"""Tests of a cache with a file in place of each folder, and a folder in place of each file.

Only errors of the package are raised, and no row is lost. The service has forgotten nearly all runs, so that
lost rows cannot be loaded again.
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections import Counter
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import qoderdata as qd
from qoderdata.errors import CacheError, CacheWarning, DataQualityWarning, QoderdataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from qoderdata.sandbox import Sandbox

#: Parts of paths that differ between accounts and between writes, and their short names.
_VARIABLE = [
    (r"\d{8}T\d+Z?-[-0-9a-f]+", "T"),
    (r"day=[-0-9]+", "day"),
    (r"[0-9a-f]{24}", "K"),
    (r"\d{12}-[-0-9a-f]+", "N"),
]
_STORES = {"runs", "sessions", "outcomes"}
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "refresh": {"refresh": True},
    "all": {"refresh": "all"},
    "offline": {"offline": True},
}
Call = tuple[str, str]
SANDBOX = {"deployments": 3, "seed": 7, "runs": 6, "edition": "D"}


@pytest.fixture(scope="module")
def client(sandbox: Sandbox) -> qd.Client:
    return qd.Client(pat=sandbox.pat, base_url=sandbox.base_url, min_interval=0)


def call(name: str, client: qd.Client, folder: Path, **mode: Any) -> object:  # noqa: ANN401
    options: dict[str, Any] = {"client": client, "cache_dir": folder, **mode}
    calls: dict[str, Callable[[], object]] = {
        "deployments": lambda: qd.load_deployments(include_archived=True, **options),
        "agents": lambda: qd.load_agents(**options),
        "runs": lambda: qd.load_runs(outcomes="events", progress=False, **options),
        "failed runs": lambda: qd.load_runs(outcomes="sessions", status="failed", progress=False, **options),
        "sessions": lambda: qd.load_sessions(progress=False, **options),
        "snapshots": lambda: qd.snapshots(client, folder),
        "load_snapshots": lambda: qd.load_snapshots(include_archived=True, client=client, cache_dir=folder),
        "as_of": lambda: qd.load_deployments(as_of="0s", include_archived=True, client=client, cache_dir=folder),
        "scan_runs": lambda: qd.scan_runs(folder, engine="polars", client=client).collect(),
        "scan_sessions": lambda: qd.scan_sessions(folder, engine="polars", client=client).collect(),
        "scan_deployments": lambda: qd.scan_deployments(
            folder, engine="polars", include_archived=True, client=client
        ).collect(),
        "cache_usage": lambda: qd.cache_usage(folder),
        "clear_cache": lambda: qd.clear_cache(folder),
    }
    return calls[name]()


def calls_for(top: str) -> list[Call]:
    """Return the calls that use files below a folder of the cache."""
    names = {
        "": ["deployments", "runs", "sessions", "snapshots", "scan_runs"],
        "queries": ["deployments", "agents", "scan_deployments"],
        "history": ["deployments", "snapshots", "load_snapshots", "as_of"],
        "runs": ["runs", "failed runs", "scan_runs"],
        "sessions": ["sessions", "runs", "scan_sessions", "scan_runs"],
        "outcomes": ["runs", "scan_runs"],
    }[top]
    found: list[Call] = []
    for name in [*names, "cache_usage", "clear_cache"]:
        modes = {"plain"}
        if name in {"deployments", "agents", "runs", "failed runs", "sessions"}:
            modes = set(MODES) - ({"all"} if name in {"deployments", "agents"} else set())
        found += [(name, mode) for mode in sorted(modes)]
    return found


@pytest.fixture(scope="module")
def filled_cache(sandbox: Sandbox, client: qd.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache with all kinds of files; the service then forgets all runs but the newest."""
    folder = tmp_path_factory.mktemp("filled")
    with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
        for name in ("deployments", "agents", "failed runs", "runs", "sessions"):
            call(name, client, folder)
    newest = pd.Timestamp(sandbox.runs[0]["created_at"]).floor("s")
    sandbox.forget_runs(newest.to_pydatetime() - timedelta(seconds=1))
    return folder


def kind_of(path: Path) -> str:
    text = path.as_posix()
    for pattern, short in _VARIABLE:
        text = re.sub(pattern, short, text)
    return text


def paths_by_kind(folder: Path) -> dict[str, Path]:
    """Return one path of each kind, relative to the cache."""
    found = {"": Path()}
    for path in sorted(folder.rglob("*")):
        found.setdefault(kind_of(path.relative_to(folder)), path.relative_to(folder))
    return found


def stored_ids(folder: Path) -> Counter[tuple[str, str]]:
    """Count the rows of the stores in all data files and journal entries."""
    found: Counter[tuple[str, str]] = Counter()
    for path in folder.rglob("*.parquet"):
        table = path.relative_to(folder).parts[0]
        if path.is_file() and table in _STORES:
            found.update((table, str(id_)) for id_ in pq.ParquetFile(path).read(["id"])["id"].to_pylist())
    for path in folder.rglob("*.arrow"):
        with pa.memory_map(str(path)) as source:
            ids = pa.ipc.open_file(source).read_all()["id"].to_pylist()
        found.update((path.relative_to(folder).parts[0], str(id_)) for id_ in ids)
    return found


def replace_with_other_type(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("in the way")
    else:
        path.unlink()
        path.mkdir()
        (path / "in the way").write_text("x")


KINDS = [
    "", "history", "history/K", "history/K/T.parquet", "history/K/base-T.parquet", "queries",
    "queries/agents-K.parquet", "queries/deployments-K.parquet",
    *(
        f"{table}{below}"
        for table in sorted(_STORES)
        for below in ("", "/K", "/K.lock", "/K/data", "/K/data/day", "/K/data/day/T.parquet", "/K/journal",
                      "/K/manifest.json")
    ),
]  # fmt: skip


#: Parts of the expected error messages.
ERRORS = (
    "cannot be read now",
    "cannot be deleted",
    "has no ",
    "has none",
    "are gone",
    "gone or damaged",
    "no snapshot",
)


def error_message(function: Callable[[], object]) -> str | None:
    """Return the message of an error of the package; other exceptions are raised."""
    try:
        function()
    except QoderdataError as error:
        return str(error)
    return None


def test_kinds_are_all_kinds_of_paths_in_the_cache(filled_cache: Path) -> None:
    found = set(paths_by_kind(filled_cache)) - {"queries/runs-K.parquet"}
    assert found == set(KINDS)


@pytest.mark.parametrize(
    "kind", [kind if kind.startswith("runs") else pytest.param(kind, marks=pytest.mark.long) for kind in KINDS]
)
def test_wrong_file_type_raises_only_package_errors_and_loses_no_row(
    filled_cache: Path, client: qd.Client, tmp_path: Path, kind: str
) -> None:
    path = paths_by_kind(filled_cache)[kind]
    for name, mode in calls_for(kind.partition("/")[0]):
        folder = tmp_path / f"{name}-{mode}"
        shutil.copytree(filled_cache, folder)
        replace_with_other_type(folder / path)
        before = stored_ids(folder) if folder.is_dir() else Counter()
        with warnings.catch_warnings(record=True, action="always") as caught:
            message = error_message(partial(call, name, client, folder, **MODES[mode]))
        assert message is None or any(words in message for words in ERRORS)
        ours = CacheWarning, DataQualityWarning
        assert [warning for warning in caught if not issubclass(warning.category, ours)] == []
        if name != "clear_cache" and folder.is_dir():
            after = stored_ids(folder)
            assert before.keys() <= after.keys(), (name, mode)


@pytest.mark.parametrize("table", sorted(_STORES))
@pytest.mark.parametrize("kind", ["data/day/T.parquet", "manifest.json"])
def test_folder_in_place_of_a_file_is_set_aside(
    filled_cache: Path, client: qd.Client, tmp_path: Path, table: str, kind: str
) -> None:
    """The next load repairs the store, and the loads after it do not warn."""
    folder = tmp_path / "cache"
    shutil.copytree(filled_cache, folder)
    replace_with_other_type(folder / paths_by_kind(filled_cache)[f"{table}/K/{kind}"])
    name = "sessions" if table == "sessions" else "runs"
    with pytest.warns(CacheWarning, match="file that cannot be used is in .*set-aside"):
        call(name, client, folder, refresh=True)
    (set_aside,) = folder.glob(f"{table}/*/set-aside-*")
    assert [path.name for path in set_aside.rglob("in the way")]
    with warnings.catch_warnings(action="error", category=CacheWarning):
        call(name, client, folder)
        call(name, client, folder, offline=True)


@pytest.mark.parametrize("name", ["deployments", "agents", "runs", "sessions"])
@pytest.mark.parametrize("mode", ["plain", "refresh", "offline"])
def test_load_with_a_too_long_folder_name_warns_or_raises_offline(
    client: qd.Client, tmp_path: Path, name: str, mode: str
) -> None:
    folder = tmp_path / ("x" * 300)
    if mode == "offline":
        with warnings.catch_warnings(action="ignore", category=CacheWarning), pytest.raises(CacheError):
            call(name, client, folder, offline=True)
        return
    with warnings.catch_warnings(record=True, action="always") as caught:
        call(name, client, folder, **MODES[mode])
    messages = [str(warning.message) for warning in caught if issubclass(warning.category, CacheWarning)]
    assert messages
    assert all("name too long" in text.lower() for text in messages)


@pytest.mark.parametrize(
    "name", ["snapshots", "load_snapshots", "as_of", "cache_usage", "clear_cache", "scan_runs"]
)
def test_other_calls_with_a_too_long_folder_name_raise_cache_error(
    client: qd.Client, tmp_path: Path, name: str
) -> None:
    with pytest.raises(CacheError):
        call(name, client, tmp_path / ("x" * 300))
