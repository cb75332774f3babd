"""A file in the place of each folder of a cache, and a folder in the place of each file: no raw error, no loss.

The service has forgotten nearly all runs, so that whatever is removed is gone.
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
from qoderdata.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The names that differ from account to account and from write to write.
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


@pytest.fixture(scope="module")
def account() -> Iterator[Sandbox]:
    with Sandbox(deployments=3, seed=7, runs=6, edition="D") as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def client(account: Sandbox) -> qd.Client:
    return qd.Client(pat=account.pat, base_url=account.base_url, min_interval=0)


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
    """Give the calls that touch what lies below a folder of the cache."""
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
def kept(account: Sandbox, client: qd.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a cache with all kinds of files; then the service forgets."""
    folder = tmp_path_factory.mktemp("kept")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataQualityWarning)
        for name in ("deployments", "agents", "failed runs", "runs", "sessions"):
            call(name, client, folder)
    newest = pd.Timestamp(account.runs[0]["created_at"]).floor("s")
    account.forget_runs(newest.to_pydatetime() - timedelta(seconds=1))
    return folder


def kind_of(path: Path) -> str:
    text = path.as_posix()
    for pattern, short in _VARIABLE:
        text = re.sub(pattern, short, text)
    return text


def places(folder: Path) -> dict[str, Path]:
    """Name one path of each kind, relative to the cache."""
    found = {"": Path()}
    for path in sorted(folder.rglob("*")):
        found.setdefault(kind_of(path.relative_to(folder)), path.relative_to(folder))
    return found


def stored_ids(folder: Path) -> Counter[tuple[str, str]]:
    """Count the rows of the stores that are on disk, wherever they lie."""
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


def replace(path: Path) -> None:
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


#: What the errors say; no other may come.
ERRORS = ("cannot be read now", "has no ", "has none", "are gone", "gone or damaged", "no snapshot")


def error_of(do: Callable[[], object]) -> str | None:
    """Return the text of our own error; any other is raised."""
    try:
        do()
    except QoderdataError as error:
        return str(error)
    return None


def test_each_kind_of_place_is_tried(kept: Path) -> None:
    found = set(places(kept)) - {"queries/runs-K.parquet"}
    assert found == set(KINDS)


@pytest.mark.parametrize(
    "kind", [kind if kind.startswith("runs") else pytest.param(kind, marks=pytest.mark.long) for kind in KINDS]
)
def test_something_else_in_its_place(kept: Path, client: qd.Client, tmp_path: Path, kind: str) -> None:
    place = places(kept)[kind]
    for name, mode in calls_for(kind.partition("/")[0]):
        folder = tmp_path / f"{name}-{mode}"
        shutil.copytree(kept, folder)
        replace(folder / place)
        before = stored_ids(folder) if folder.is_dir() else Counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            said = error_of(partial(call, name, client, folder, **MODES[mode]))
        assert said is None or any(words in said for words in ERRORS)
        ours = CacheWarning, DataQualityWarning
        assert [warning for warning in caught if not issubclass(warning.category, ours)] == []
        if name != "clear_cache" and folder.is_dir():
            after = stored_ids(folder)
            assert before.keys() <= after.keys(), (name, mode)


@pytest.mark.parametrize("table", sorted(_STORES))
@pytest.mark.parametrize("kind", ["data/day/T.parquet", "manifest.json"])
def test_a_folder_in_the_place_of_a_file_is_set_aside(
    kept: Path, client: qd.Client, tmp_path: Path, table: str, kind: str
) -> None:
    """The next load mends the store, and the one after it says nothing."""
    folder = tmp_path / "cache"
    shutil.copytree(kept, folder)
    replace(folder / places(kept)[f"{table}/K/{kind}"])
    name = "sessions" if table == "sessions" else "runs"
    with pytest.warns(CacheWarning, match="files that cannot be used are in .*set-aside"):
        call(name, client, folder, refresh=True)
    (aside,) = folder.glob(f"{table}/*/set-aside-*")
    assert [path.name for path in aside.rglob("in the way")]
    with warnings.catch_warnings():
        warnings.simplefilter("error", CacheWarning)
        call(name, client, folder)
        call(name, client, folder, offline=True)


@pytest.mark.parametrize("name", ["deployments", "agents", "runs", "sessions"])
@pytest.mark.parametrize("mode", ["plain", "refresh", "offline"])
def test_a_folder_whose_name_is_too_long(client: qd.Client, tmp_path: Path, name: str, mode: str) -> None:
    folder = tmp_path / ("x" * 300)
    if mode == "offline":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)
            with pytest.raises(CacheError):
                call(name, client, folder, offline=True)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(name, client, folder, **MODES[mode])
    told = [str(warning.message) for warning in caught if warning.category is CacheWarning]
    assert told
    assert all("name too long" in text.lower() for text in told)


@pytest.mark.parametrize(
    "name", ["snapshots", "load_snapshots", "as_of", "cache_usage", "clear_cache", "scan_runs"]
)
def test_other_calls_on_a_folder_whose_name_is_too_long(client: qd.Client, tmp_path: Path, name: str) -> None:
    with pytest.raises(CacheError):
        call(name, client, tmp_path / ("x" * 300))
