"""Tests of the cache and the stores on an S3 server on loopback, with the same guarantees as on disk."""

from __future__ import annotations

import contextlib
import socket
import threading
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3  # type: ignore[import-untyped] # comes with moto, without types
import dask
import moto.backends
import pandas as pd
import pyarrow as pa
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from qoderdata import schema
from qoderdata.client import Client
from qoderdata.errors import CacheError, CacheWarning, DataQualityWarning, InternalServerError
from qoderdata.files import Folder
from qoderdata.frames import flatten_runs
from qoderdata.load.caches import cache_usage, clear_cache
from qoderdata.load.lists import load_deployments
from qoderdata.load.runs import load_runs
from qoderdata.load.scans import scan_deployments, scan_runs
from qoderdata.summaries import run_failure_rates
from tests.engine_frames import by_id, collected, collected_scan
from tests.sandbox_loads import sandbox_with_newest, triggered_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qoderdata.sandbox import Sandbox

BUCKET = "fleet"
ENGINES = ["duckdb", "polars", "dask"]
_HEAD_END = b"\r\n\r\n"


@dataclass
class Proxy:
    """A TCP proxy in front of the object store that records requests and can interrupt uploads."""

    target: tuple[str, int]
    cut_uploads: bool = False
    requests: list[str] = field(default_factory=list)

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.create_connection(self.target) as store, contextlib.suppress(OSError):
            back = threading.Thread(target=self._pass_back, args=(store, client), daemon=True)
            back.start()
            while sent := client.recv(65_536):
                line = sent.split(b"\r\n", 1)[0].decode("latin-1")
                if line.endswith(("HTTP/1.1", "HTTP/1.0")):
                    self.requests.append(line)
                if self.cut_uploads and line.startswith(("PUT", "POST")):
                    # Send the headers and half of the body, then close the connection.
                    head, _, body = sent.partition(_HEAD_END)
                    store.sendall(head + _HEAD_END + body[: len(body) // 2])
                    store.shutdown(socket.SHUT_WR)
                    client.shutdown(socket.SHUT_RDWR)
                    return
                store.sendall(sent)
            store.shutdown(socket.SHUT_WR)
            back.join()

    @staticmethod
    def _pass_back(store: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while received := store.recv(65_536):
                client.sendall(received)
            client.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            moto.backends, "list_of_moto_modules", lambda: ["s3"]
        )  # so that it does not list a folder for each request
        running = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        running.start()
        yield running.get_host_and_port()
        running.stop()


@pytest.fixture(scope="module")
def proxy(server: tuple[str, int]) -> Iterator[Proxy]:
    """Start the proxy, set the environment variables for it, and create a bucket."""
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.MonkeyPatch.context() as patch:
        running = Proxy(server)
        threading.Thread(target=running.serve, args=(listener,), daemon=True).start()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{listener.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "test-key-id",
            "AWS_SECRET_ACCESS_KEY": "test-key",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.delenv(name, raising=False)
        # Do not wait between the attempts of s3fs itself.
        patch.setattr(s3fs.S3FileSystem, "retries", 1)
        s3fs.S3FileSystem.clear_instance_cache()
        direct_client(server).create_bucket(Bucket=BUCKET)
        yield running
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def location(proxy: Proxy, request: pytest.FixtureRequest) -> str:
    """Return the URL of a folder that no other test uses."""
    proxy.cut_uploads = False
    return f"s3://{BUCKET}/{request.node.name.replace('[', '/').rstrip(']')}/folder"


def direct_client(server: tuple[str, int]) -> Any:  # noqa: ANN401 boto3 has no types
    """Return a boto3 client of the object store, without the proxy and the package."""
    return boto3.client("s3", endpoint_url=f"http://{server[0]}:{server[1]}")


def keys_below(server: tuple[str, int], below: str) -> set[str]:
    """Return the keys of all objects whose URLs begin with `below`, without that prefix."""
    prefix = below.removeprefix(f"s3://{BUCKET}/")
    pages = direct_client(server).get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return {entry["Key"].removeprefix(prefix) for page in pages for entry in page.get("Contents", [])}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with sandbox_with_newest(105, deployments=90, generated=150) as running:
        yield running


@dataclass(frozen=True)
class StoredAccount:
    """A cache folder that tests only read, and the frames in it."""

    location: str
    runs: pd.DataFrame
    deployments: pd.DataFrame


@pytest.fixture(scope="module")
def stored(proxy: Proxy, sandbox: Sandbox) -> StoredAccount:
    del proxy
    client, location = Client(pat=sandbox.pat, base_url=sandbox.base_url, min_interval=0), f"s3://{BUCKET}/stored"
    runs = load_runs(client=client, cache_dir=location)
    return StoredAccount(location, runs, load_deployments(client=client, cache_dir=location))


def test_stored_runs_and_deployments_are_read_back(
    sandbox: Sandbox, client: Client, stored: StoredAccount, server: tuple[str, int]
) -> None:
    """Only Parquet files and manifests remain: no temporary files, locks, folder markers or journal."""
    pd.testing.assert_frame_equal(stored.runs, flatten_runs(sandbox.runs))
    requests_before = len(sandbox.requests)
    runs = load_runs(client=client, cache_dir=stored.location)
    deployments = load_deployments(client=client, cache_dir=stored.location)
    assert len(sandbox.requests) == requests_before
    assert deployments.attrs["from_cache"]
    pd.testing.assert_frame_equal(runs, stored.runs, check_flags=False)
    pd.testing.assert_frame_equal(deployments, stored.deployments)
    found = keys_below(server, stored.location)
    assert found
    assert not [key for key in found if "/journal/" in key or not key.endswith((".parquet", "/manifest.json"))]


def test_cache_usage_and_clear_cache_only_affect_the_folder(
    server: tuple[str, int], client: Client, location: str
) -> None:
    """Other objects in the bucket are not changed, also if their keys begin with the folder's name."""
    assert cache_usage(location)["runs"] == {"files": 0, "bytes": 0}
    assert clear_cache(location) == 0
    load_runs(client=client, cache_dir=location)
    load_deployments(client=client, cache_dir=location)
    other_folder = Folder(f"{location}-of-another")
    other_folder.replace("queries/other.parquet", lambda sink: sink.write(b"other"))
    usage = cache_usage(location)
    assert usage["queries"]["files"] == 1
    assert usage["runs"]["files"] == len(keys_below(server, f"{location}/runs/"))
    assert min(usage["queries"]["bytes"], usage["runs"]["bytes"]) > 0
    assert clear_cache(location) == sum(usage[kind]["files"] for kind in ("queries", "runs", "snapshots"))
    assert keys_below(server, location) == {"-of-another/queries/other.parquet"}
    assert cache_usage(location)["queries"] == {"files": 0, "bytes": 0}


def test_changes_by_other_clients_are_seen(server: tuple[str, int], location: str) -> None:
    """The listing cache must not be used; s3fs itself does not use it in `find`, other packages of fsspec do."""
    folder, direct = Folder(location), direct_client(server)
    assert not folder._remote.dircache.use_listings_cache
    there = {"Bucket": BUCKET, "Key": f"{location.removeprefix(f's3://{BUCKET}/')}/a"}
    assert folder.files() == []
    assert folder.read("a") is None
    direct.put_object(**there, Body=b"one")
    assert [info.base_name for info in folder.files()] == ["a"]
    assert folder.read("a") == pa.py_buffer(b"one")
    direct.put_object(**there, Body=b"longer")
    assert folder.read("a") == pa.py_buffer(b"longer")
    assert folder.files()[0].size == len(b"longer")
    direct.delete_object(**there)
    assert folder.files() == []
    assert folder.read("a") is None
    folder.remove("a")


def test_interrupted_upload_keeps_the_old_object(server: tuple[str, int], proxy: Proxy, location: str) -> None:
    folder = Folder(location)
    old, new = b"old" * 10_000, b"newer" * 10_000
    folder.replace("object", lambda sink: sink.write(old))
    proxy.cut_uploads = True
    for name in ("object", "another"):
        with pytest.raises(OSError, match=r"."):
            folder.replace(name, lambda sink: sink.write(new))
    proxy.cut_uploads = False
    assert keys_below(server, location) == {"/object"}
    assert folder.read("object") == pa.py_buffer(old)
    folder.replace("object", lambda sink: sink.write(new))
    assert folder.read("object") == pa.py_buffer(new)


def test_exception_while_writing_keeps_the_old_object(location: str) -> None:
    """Nothing that was written before the exception is uploaded."""
    folder = Folder(location)
    folder.replace("object", lambda sink: sink.write(b"old"))

    def fail(sink: pa.NativeFile) -> None:
        sink.write(b"new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.replace("object", fail)
    assert folder.read("object") == pa.py_buffer(b"old")


def test_failed_pull_keeps_the_cached_answer(sandbox: Sandbox, client: Client, location: str) -> None:
    fresh = load_deployments(client=client, cache_dir=location)
    for place in range(10):
        sandbox.misbehave("500", at=place)
    with pytest.raises(InternalServerError):
        load_deployments(client=client, cache_dir=location, refresh=True)
    stored = load_deployments(client=client, cache_dir=location, offline=True)
    pd.testing.assert_frame_equal(stored, fresh, check_flags=False)


def test_failing_uploads_warn_and_keep_the_store(
    server: tuple[str, int], proxy: Proxy, sandbox: Sandbox, client: Client, location: str
) -> None:
    """All runs are returned, and the store is unchanged."""
    load_runs(client=client, cache_dir=location, since=triggered_at(sandbox.runs[20]))
    before = keys_below(server, location)
    assert before
    proxy.cut_uploads = True
    with pytest.warns(CacheWarning, match="cannot be written"):
        runs = load_runs(client=client, cache_dir=location)
    pd.testing.assert_frame_equal(runs, flatten_runs(sandbox.runs))
    with pytest.warns(CacheWarning, match="cannot be written"):
        load_deployments(client=client, cache_dir=location)
    proxy.cut_uploads = False
    assert keys_below(server, location) == before
    pd.testing.assert_frame_equal(load_runs(client=client, cache_dir=location), runs, check_flags=False)


@pytest.mark.usefixtures("proxy")
def test_bucket_root_can_be_the_cache_folder(client: Client) -> None:
    fresh = load_deployments(client=client, cache_dir=f"s3://{BUCKET}")
    again = load_deployments(client=client, cache_dir=f"s3://{BUCKET}", offline=True)
    pd.testing.assert_frame_equal(again, fresh, check_flags=False)


@pytest.mark.usefixtures("proxy")
def test_missing_bucket_warns(client: Client) -> None:
    """The package creates no bucket."""
    missing_bucket = "s3://no-such-bucket/folder"
    with pytest.warns(CacheWarning, match="cannot be written"):
        load_deployments(client=client, cache_dir=missing_bucket)
    with pytest.raises(CacheError):
        load_deployments(client=client, cache_dir=missing_bucket, offline=True)
    assert cache_usage(missing_bucket)["queries"]["files"] == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_scans_give_the_loaded_rows(stored: StoredAccount, engine: str) -> None:
    found = collected_scan(scan_runs(stored.location, engine=engine), schema.RUNS, optimize=True)
    pd.testing.assert_frame_equal(found, by_id(stored.runs), check_flags=False)
    scanned = scan_deployments(stored.location, engine=engine)
    found = collected_scan(scanned, schema.DEPLOYMENTS, optimize=True)
    pd.testing.assert_frame_equal(found, by_id(stored.deployments))


@pytest.mark.parametrize("engine", ENGINES)
def test_scan_with_bounds_reads_only_files_of_those_days(proxy: Proxy, stored: StoredAccount, engine: str) -> None:
    """The requests to the object store show the days that are read."""
    until = stored.runs["triggered_at"].max().floor("D")
    since = until - pd.Timedelta(hours=36)
    proxy.requests.clear()
    scanned = scan_runs(stored.location, engine=engine, since=since, until=until)
    found = collected_scan(scanned, schema.RUNS, optimize=True)
    days = {line.split("day%3D")[-1][:10] for line in proxy.requests if ".parquet" in line}
    assert days == {f"{until - pd.Timedelta(days=day):%Y-%m-%d}" for day in (1, 2)}
    times = stored.runs["triggered_at"]
    pd.testing.assert_frame_equal(found, by_id(stored.runs[(times >= since) & (times < until)]))


@pytest.mark.parametrize("engine", ENGINES)
def test_run_failure_rates_of_a_scan_equal_those_of_the_frame(stored: StoredAccount, engine: str) -> None:
    with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
        lazy = run_failure_rates(scan_runs(stored.location, engine=engine), None, freq="1D", tz="Asia/Shanghai")
    with dask.config.set(scheduler="synchronous"):
        counted = collected(lazy)
    expected = run_failure_rates(stored.runs, None, freq="1D", tz="Asia/Shanghai")
    expected = expected[expected["runs"] > 0]
    for name in ("runs", "failed", "completed"):
        assert counted[name].to_pylist() == expected[name].tolist()
