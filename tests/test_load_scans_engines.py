"""Tests of `scan_runs` and `scan_deployments` on real engines: rows equal those of pandas, few files are read."""

from __future__ import annotations

import shutil
import sys
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import dask
import dask.dataframe as dd
import duckdb
import pandas as pd
import polars as pl
import pytest

from qoderdata import cache, schema
from qoderdata.client import Client
from qoderdata.decode import from_records
from qoderdata.errors import CacheError, CacheWarning, CredentialError, DataQualityWarning
from qoderdata.files import Folder
from qoderdata.frames import flatten_deployments, flatten_runs
from qoderdata.load.lists import load_deployments
from qoderdata.load.runs import load_runs
from qoderdata.load.scans import scan_deployments, scan_runs
from qoderdata.sandbox import Sandbox
from qoderdata.store import RUNS_TABLE, JournalEntry, Listing, TableStore, row_ids
from qoderdata.summaries import error_breakdown, failure_rates, run_failure_rates
from tests.engine_frames import by_id, collected_scan, computed, rows_of
from tests.runs_store import NOW, commit_entries, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENGINES = {"duckdb": duckdb.DuckDBPyRelation, "polars": pl.LazyFrame, "dask": dd.DataFrame}


@pytest.fixture(autouse=True)
def single_threaded_dask() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


SANDBOX = {"deployments": 20, "seed": 7, "runs": 250, "edition": "A"}


@pytest.fixture(params=["local", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a cache folder of its own for each test: a path or a URL."""
    return str(tmp_path / "cache") if request.param == "local" else f"memory://scans/{tmp_path.name}"


@dataclass
class Stored:
    """An account in a cache folder that no test changes."""

    location: str
    client: Client
    runs: pd.DataFrame
    #: The key says whether archived deployments are included.
    deployments: dict[bool, pd.DataFrame]


def load_account(sandbox: Sandbox, location: str) -> Stored:
    client = Client(sandbox.pat, sandbox.base_url)
    return Stored(
        location,
        client,
        load_runs(client=client, cache_dir=location),
        {
            archived: load_deployments(client=client, cache_dir=location, include_archived=archived)
            for archived in (True, False)
        },
    )


@pytest.fixture(scope="module")
def on_disk(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return load_account(sandbox, str(tmp_path_factory.mktemp("stored")))


@pytest.fixture(scope="module")
def in_memory(sandbox: Sandbox) -> Stored:
    return load_account(sandbox, "memory://scans/stored")


@pytest.fixture(params=["on_disk", "in_memory"])
def stored(request: pytest.FixtureRequest) -> Stored:
    found: Stored = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_runs_equal_those_of_pandas_row_by_row(stored: Stored, engine: str) -> None:
    scanned = scan_runs(stored.location, engine=engine)
    assert isinstance(scanned, ENGINES[engine])
    found = collected_scan(scanned, schema.RUNS, optimize=True)
    pd.testing.assert_frame_equal(found, by_id(stored.runs), check_flags=False)


def test_dask_reads_only_the_columns_that_are_used(on_disk: Stored) -> None:
    scanned = scan_runs(on_disk.location, engine="dask")
    assert list(scanned[["id", "status"]].compute().columns) == ["id", "status"]
    assert len(scanned) == len(on_disk.runs)


@pytest.mark.parametrize("engine", ENGINES)
def test_cache_folder_with_glob_characters_can_be_scanned(
    sandbox: Sandbox, client: Client, tmp_path: Path, engine: str
) -> None:
    folder = tmp_path / "a [b]* ? {c} 'd' day=1"
    load_runs(client=client, cache_dir=folder)
    assert len(collected_scan(scan_runs(folder, engine=engine), schema.RUNS)) == len(sandbox.runs)


@pytest.mark.parametrize("include_archived", [True, False])
@pytest.mark.parametrize("engine", ENGINES)
def test_deployments_equal_those_of_pandas_row_by_row(
    stored: Stored, engine: str, *, include_archived: bool
) -> None:
    """Both cached lists are kept side by side; lists and JSON texts are unchanged."""
    scanned = scan_deployments(
        stored.location, engine=engine, include_archived=include_archived, client=stored.client
    )
    assert isinstance(scanned, ENGINES[engine])
    wanted = stored.deployments[include_archived]
    pd.testing.assert_frame_equal(collected_scan(scanned, schema.DEPLOYMENTS), by_id(wanted))


@pytest.mark.parametrize("engine", ENGINES)
def test_bounds_are_exact_and_files_of_other_days_are_not_read(client: Client, location: str, engine: str) -> None:
    """The files of all other days are deleted from the store, and the scan still works."""
    runs = load_runs(client=client, cache_dir=location)
    times = runs["triggered_at"].dropna().sort_values()
    since, until = times.iloc[60], times.iloc[190]
    days = {f"day={day:%Y-%m-%d}" for day in pd.date_range(since.floor("D"), until.floor("D"))}
    folder = Folder(location)
    removed = [
        info.path
        for info in folder.files("runs")
        if "/data/" in info.path and days.isdisjoint(info.path.split("/"))
    ]
    assert removed
    for path in removed:
        folder.filesystem.delete_file(path)
    expected = runs[(runs["triggered_at"] >= since) & (runs["triggered_at"] < until)]
    scanned = scan_runs(location, engine=engine, since=since, until=until)
    pd.testing.assert_frame_equal(collected_scan(scanned, schema.RUNS), by_id(expected))


@pytest.mark.parametrize(
    ("since", "until"), [(60, None), (None, 190), (60, 61)], ids=["since", "until", "one run"]
)
@pytest.mark.parametrize("engine", ENGINES)
def test_since_is_inclusive_and_until_exclusive(
    on_disk: Stored, engine: str, since: int | None, until: int | None
) -> None:
    times = on_disk.runs["triggered_at"].dropna().sort_values()
    bounds = {
        name: times.iloc[index].tz_convert("Asia/Shanghai")
        for name, index in (("since", since), ("until", until))
        if index is not None
    }
    expected = load_runs(client=on_disk.client, cache_dir=on_disk.location, offline=True, **bounds)
    assert 0 < len(expected) < len(on_disk.runs)
    scanned = scan_runs(on_disk.location, engine=engine, **bounds)
    pd.testing.assert_frame_equal(collected_scan(scanned, schema.RUNS), by_id(expected))


@pytest.mark.parametrize("engine", ENGINES)
def test_account_without_runs_gives_no_rows_and_all_columns(location: str, engine: str) -> None:
    with Sandbox(deployments=2, seed=7, runs=0) as sandbox:
        runs = load_runs(client=Client(sandbox.pat, sandbox.base_url), cache_dir=location)
        rates = run_failure_rates(runs)
    scanned = scan_runs(location, engine=engine)
    pd.testing.assert_frame_equal(collected_scan(scanned, schema.RUNS), runs)
    with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
        lazy = run_failure_rates(scanned)
    assert rows_of(computed(lazy)) == rows_of(rates) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_summaries_of_a_scan_equal_those_of_the_frame(on_disk: Stored, engine: str) -> None:
    runs = on_disk.runs
    scanned = scan_runs(on_disk.location, engine=engine)
    with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
        rates = rows_of(computed(run_failure_rates(scanned, freq="1D", tz="Asia/Shanghai")))
    expected = run_failure_rates(runs, freq="1D", tz="Asia/Shanghai")
    if engine == "dask":
        expected[["duration_p50_ms", "duration_p95_ms"]] = None
    assert rates == rows_of(expected[expected["runs"] > 0])
    assert rows_of(computed(error_breakdown(scanned))) == rows_of(error_breakdown(runs))
    lifetime = computed(failure_rates(scan_deployments(on_disk.location, engine=engine)))
    assert rows_of(lifetime) == rows_of(failure_rates(on_disk.deployments[False]))


@pytest.mark.parametrize("engine", ENGINES)
def test_files_of_a_version_without_a_column_are_rewritten_before_a_scan(
    location: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another engine finds no value in ``extra``; where the files cannot be rewritten, an error says so."""
    runs = [run(2, cas_run_extras={"turn_id": "t"}), run(1, cas_run_extras={"attempt": 1})]
    deployments: list[dict[str, Any]] = [{"id": "dep_1", "agent": {"version": 3}}, {"id": "dep_2"}]
    old_runs, old_deployments = (
        replace(new, columns=tuple(one for one in new.columns if one.name not in {"turn_id", "agent_version"}))
        for new in (schema.RUNS, schema.DEPLOYMENTS)
    )
    client = Client(pat="pt-test", base_url="http://127.0.0.1:9")
    store = TableStore(Folder(location), replace(RUNS_TABLE, schema=old_runs), **client.identity)
    table = old_runs.resolve(from_records(runs, old_runs))
    commit_entries(store, JournalEntry(table, NOW, Listing(None, tuple(row_ids(table)), None)))
    answer = cache.CachedTable(from_records(deployments, old_deployments), NOW)
    name = cache.cache_key("deployments", client.identity)
    cache.write(Folder(location).folder(cache.FOLDER), name, answer)

    def locked(*_: Any, **__: Any) -> Any:  # noqa: ANN401
        raise CacheError("another process holds the lock")

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "lock", locked)
        with pytest.raises(CacheError, match="an earlier version wrote the store"):
            scan_runs(location, engine=engine, client=client)
    found = collected_scan(scan_runs(location, engine=engine, client=client), schema.RUNS)
    pd.testing.assert_frame_equal(found, by_id(flatten_runs(runs)), check_flags=False)
    scanned = scan_deployments(location, engine=engine, client=client)
    pd.testing.assert_frame_equal(collected_scan(scanned, schema.DEPLOYMENTS), flatten_deployments(deployments))


def test_scan_of_a_damaged_answer_raises_cache_error(location: str) -> None:
    client = Client(pat="pt-test", base_url="http://127.0.0.1:9")
    folder, name = Folder(location).folder(cache.FOLDER), cache.cache_key("deployments", client.identity)
    cache.write(folder, name, cache.CachedTable(from_records([{"id": "dep_1"}], schema.DEPLOYMENTS), NOW))
    content = folder.read(name)
    assert content is not None
    folder.replace(name, lambda sink: sink.write(content[:500]))
    with pytest.warns(CacheWarning, match="damaged"), pytest.raises(CacheError, match="call the loader first"):
        scan_deployments(location, engine="polars", client=client)


@pytest.mark.parametrize("scan", [scan_runs, scan_deployments])
def test_scan_of_an_empty_cache_raises_cache_error(client: Client, location: str, scan: Any) -> None:  # noqa: ANN401
    for one in (None, client):
        with pytest.raises(CacheError, match=r"has none of the .*; call the loader first"):
            scan(location, engine="polars", client=one)


def test_client_or_token_selects_one_of_several_accounts(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account is that of the client, else of the token in the environment; otherwise an error is raised."""
    with Sandbox(deployments=5, seed=8, runs=40, edition="A") as other:
        counts = {}
        for one in (sandbox, other):
            client = Client(one.pat, one.base_url)
            counts[one.base_url] = (
                len(load_runs(client=client, cache_dir=tmp_path)),
                len(load_deployments(client=client, cache_dir=tmp_path)),
            )

        def scanned(client: Client | None = None) -> tuple[int, int]:
            return (
                scan_runs(tmp_path, engine="polars", client=client).collect().height,
                scan_deployments(tmp_path, engine="polars", client=client).collect().height,
            )

        with pytest.raises(
            CacheError, match=r"has 2 stores of runs; choose the account with client=, or set QODER_ACCESS_TOKEN"
        ):
            scan_runs(tmp_path, engine="polars")
        with pytest.raises(CacheError, match=r"has 2 answers of load_deployments.*; choose the account"):
            scan_deployments(tmp_path, engine="polars")
        for one in (sandbox, other):
            assert scanned(Client(one.pat, one.base_url)) == counts[one.base_url]
            monkeypatch.setenv("QODER_PAT", one.pat)
            monkeypatch.setenv("QODER_MANAGED_BASE_URL", one.base_url)
            monkeypatch.setenv("QODERDATA_CACHE_DIR", str(tmp_path))
            assert scan_runs(engine="polars").collect().height == counts[one.base_url][0]
            assert scanned() == counts[one.base_url]
            monkeypatch.delenv("QODER_PAT")


def test_name_in_the_environment_selects_an_account_without_a_token(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(sandbox.pat, sandbox.base_url, account="production")
    counts = (
        len(load_runs(client=client, cache_dir=tmp_path)),
        len(load_deployments(client=client, cache_dir=tmp_path)),
    )
    scans = scan_runs, scan_deployments
    monkeypatch.setenv("QODERDATA_ACCOUNT", "production")
    assert tuple(scan(tmp_path, engine="polars").collect().height for scan in scans) == counts
    monkeypatch.setenv("QODERDATA_ACCOUNT", "staging")
    for scan in scans:
        with pytest.raises(CacheError, match=r"has none of the .*; call the loader first"):
            scan(tmp_path, engine="polars")


def test_scan_deployments_without_a_client_ignores_filtered_lists(
    sandbox: Sandbox, client: Client, tmp_path: Path
) -> None:
    """The snapshots show which account the cached lists belong to, and so which file to scan."""
    load_deployments(client=client, cache_dir=tmp_path, status="paused")
    for archived in (True, False):
        missing = rf"has none of the answers of load_deployments\(include_archived={archived}\)"
        with pytest.raises(CacheError, match=missing):
            scan_deployments(tmp_path, engine="polars", include_archived=archived)
        wanted = load_deployments(client=client, cache_dir=tmp_path, include_archived=archived)
        scanned = scan_deployments(tmp_path, engine="polars", include_archived=archived)
        assert scanned.collect()["id"].to_list() == wanted["id"].to_list()
    load_deployments(client=Client(sandbox.pat, sandbox.base_url, workspace_id="ws_2"), cache_dir=tmp_path)
    assert scan_deployments(tmp_path, engine="polars", include_archived=True).collect().height
    with pytest.raises(CacheError, match=r"has 2 answers of load_deployments.*; choose the account with client="):
        scan_deployments(tmp_path, engine="polars")
    for file in tmp_path.glob("history/*/*"):
        file.write_bytes(b"damaged")
    with pytest.raises(CacheError, match="has none of the answers"):
        scan_deployments(tmp_path, engine="polars")


def test_invalid_token_raises_credential_error(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the runs of another account might be returned."""
    load_runs(client=client, cache_dir=tmp_path)
    monkeypatch.setenv("QODER_PAT", "pt-broken\x07")
    with pytest.raises(CredentialError):
        scan_runs(tmp_path, engine="polars")


@pytest.mark.parametrize("scan", [scan_runs, scan_deployments])
def test_unknown_engine_raises_value_error(tmp_path: Path, scan: Any) -> None:  # noqa: ANN401
    """The error is raised before the cache is read."""
    with pytest.raises(ValueError, match=r"'pandas' is not known; .* 'duckdb', 'polars', 'dask', 'pyspark'"):
        scan(tmp_path, engine="pandas")


def test_include_archived_that_is_no_bool_raises_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="include_archived='false' is neither True nor False"):
        scan_deployments(tmp_path, engine="polars", include_archived="false")  # type: ignore[arg-type]


def test_empty_interval_of_bounds_raises_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run can be in between"):
        scan_runs(tmp_path, engine="polars", since="1D", until="1D")


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Client, Path, pd.DataFrame]:
    """Load an account of edition D once; return its client, the cache folder and the runs."""
    folder = tmp_path_factory.mktemp("newest")
    with Sandbox(deployments=5, seed=7, runs=15, edition="D") as sandbox:
        client = Client(pat=sandbox.pat, base_url=sandbox.base_url, min_interval=0)
        return client, folder, load_runs(client=client, cache_dir=folder, outcomes="sessions")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("bound", "text"), [("since", "0001-01-01T00:30Z"), ("until", "0001-01-01T00:00Z")])
def test_bounds_in_the_first_hour_of_year_1_are_accepted(
    newest: tuple[Client, Path, pd.DataFrame], engine: str, bound: str, text: str
) -> None:
    client, folder, runs = newest
    lazy = scan_runs(folder, engine=engine, client=client, **{bound: text})
    assert len(collected_scan(lazy, schema.RUNS)) == (len(runs) if bound == "since" else 0)


@pytest.mark.parametrize("bound", ["since", "until"])
def test_bound_without_a_time_zone_raises_value_error(tmp_path: Path, bound: str) -> None:
    with pytest.raises(ValueError, match=bound):
        scan_runs(tmp_path, engine="polars", **{bound: "2026-06-15T00:00:00"})  # type: ignore[arg-type] # a bound


@pytest.mark.parametrize(
    ("engine", "module", "extra"),
    [
        ("duckdb", "duckdb", "duckdb"),
        ("polars", "polars", "polars"),
        ("dask", "dask.dataframe", "dask"),
        ("pyspark", "pyspark.sql", "spark"),
    ],
)
def test_engine_that_is_not_installed_raises_import_error(
    client: Client, tmp_path: Path, engine: str, module: str, extra: str
) -> None:
    load_runs(client=client, cache_dir=tmp_path)
    load_deployments(client=client, cache_dir=tmp_path)
    for scan in (scan_runs, scan_deployments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(ImportError, match=rf"{module} is not installed: .*'qoderdata\[{extra}\]'"):
                scan(tmp_path, engine=engine)


def test_damaged_manifest_causes_a_warning_and_cache_error(
    sandbox: Sandbox, client: Client, tmp_path: Path
) -> None:
    load_runs(client=client, cache_dir=tmp_path)
    (manifest,) = tmp_path.glob("runs/*/manifest.json")
    shutil.copy(manifest, tmp_path / "kept.json")
    manifest.write_text("{")
    with (
        pytest.warns(UserWarning, match="its manifest cannot be used"),
        pytest.raises(CacheError, match="call the loader first"),
    ):
        scan_runs(tmp_path, engine="polars", client=client)
    shutil.copy(tmp_path / "kept.json", manifest)
    assert scan_runs(tmp_path, engine="polars").collect().height == len(sandbox.runs)
