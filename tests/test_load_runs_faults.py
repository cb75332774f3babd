"""Tests of `load_runs` when the service, network or disk fails: no run is lost, and errors are reported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pandas as pd
import pytest

from qoderdata import cache_usage, scan_runs
from qoderdata.client import Client
from qoderdata.errors import (
    APIError,
    AuthenticationError,
    CacheError,
    CacheWarning,
    DataQualityWarning,
    NotFoundError,
    PaginationError,
)
from qoderdata.files import Folder
from qoderdata.load.runs import load_runs
from tests.runs_store import data_files
from tests.sandbox_loads import expected_runs, load, sandbox_with_newest, triggered_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from qoderdata.sandbox import Sandbox


@pytest.fixture
def service() -> Iterator[Sandbox]:
    """Serve an account with the default edition."""
    with sandbox_with_newest(350) as running:
        yield running


def test_offline_returns_stored_runs_and_warns_of_missing_ones(service: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="Call once without offline"):
        load(service, tmp_path, offline=True)
    at = triggered_at(service.runs[50])
    recent = load(service, tmp_path, since=at)
    before = len(service.requests)
    pd.testing.assert_frame_equal(load(service, tmp_path, since=at, offline=True), recent)
    with pytest.warns(DataQualityWarning, match="not all runs that are asked for are kept"):
        frame = load(service, tmp_path, offline=True)
    assert frame.attrs["complete"] is False
    assert set(frame["id"]) >= set(recent["id"])
    assert len(service.requests) == before


def test_401_during_a_pull_keeps_the_loaded_pages(service: Sandbox, tmp_path: Path) -> None:
    service.misbehave("401", at=4)
    with pytest.raises(AuthenticationError) as caught:
        load(service, tmp_path)
    assert "The pages that were read are stored: the next call continues from there." in caught.value.__notes__
    before = len(service.requests)
    pd.testing.assert_frame_equal(load(service, tmp_path), expected_runs(service))
    assert before + len(service.requests[before:]) <= 5 + 3


@pytest.mark.parametrize("fault", ["repeat-cursor", "no-cursor"])
def test_missing_or_repeated_cursor_raises_pagination_error(service: Sandbox, tmp_path: Path, fault: str) -> None:
    service.misbehave(fault, at=3)
    with pytest.raises(PaginationError):
        load(service, tmp_path)
    pd.testing.assert_frame_equal(load(service, tmp_path), expected_runs(service))


@pytest.mark.parametrize(
    "fault", ["429", "500", "502-html", "503-empty", "reset", "cut-body", "cut-json", "overlap"]
)
def test_temporary_faults_do_not_change_the_runs(service: Sandbox, tmp_path: Path, fault: str) -> None:
    for at in (1, 3, 5):
        service.misbehave(fault, at=at)
    pd.testing.assert_frame_equal(load(service, tmp_path), expected_runs(service))


@pytest.mark.parametrize("fault", ["reset", "500", "401"])
def test_error_suggests_offline_if_there_is_stored_data(service: Sandbox, tmp_path: Path, fault: str) -> None:
    client = Client(pat=service.pat, base_url=service.base_url, max_retries=0)
    load(service, tmp_path, client=client)
    load(service, tmp_path, client=client, status="failed", max_age="0s")
    for options in ({}, {"status": "failed"}):
        service.misbehave(fault)
        with pytest.raises(APIError) as caught:
            load(service, tmp_path, client=client, refresh=True, **options)
        (note,) = caught.value.__notes__
        assert "pass offline=True to use it" in note


@pytest.mark.parametrize("refusal", ["400", "404"])
@pytest.mark.parametrize("failed_request", [2, 4])
def test_pull_continues_after_an_unknown_cursor(
    service: Sandbox, tmp_path: Path, refusal: str, failed_request: int
) -> None:
    """A pull failed, and the run of its last cursor is gone: a few pages are loaded again."""
    service.misbehave("401", at=failed_request)
    with pytest.raises(AuthenticationError):
        load(service, tmp_path)
    client = Client(pat=service.pat, base_url=service.base_url)
    client.page_limit = 100
    for at in range(failed_request // 2):
        service.misbehave(refusal, at=at)
    frame = load(service, tmp_path, client=client)
    pd.testing.assert_frame_equal(frame, expected_runs(service))
    assert frame.attrs["requests"] <= 2 + 4


def test_first_page_is_not_filtered_by_time_after_an_unknown_cursor(service: Sandbox, tmp_path: Path) -> None:
    """A filtered first page would look like the whole list."""
    client = Client(pat=service.pat, base_url=service.base_url)
    client.page_limit = 100
    service.misbehave("404", at=1)
    load(service, tmp_path, client=client, since=triggered_at(service.runs[50]))
    pd.testing.assert_frame_equal(load(service, tmp_path, client=client), expected_runs(service))


def test_not_found_error_is_raised_if_all_cursors_are_unknown(service: Sandbox, tmp_path: Path) -> None:
    service.misbehave("401", at=3)
    with pytest.raises(AuthenticationError):
        load(service, tmp_path)
    for at in range(1, 30):
        service.misbehave("404", at=at)
    with pytest.raises(NotFoundError):
        load(service, tmp_path)
    assert len(service.requests) < 20


def test_response_with_another_run_is_ignored_with_a_warning(
    service: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.create_runs(1, status="running")
    service.create_runs(100)
    load(service, tmp_path)
    get, other = Client.get, f"/deployment_runs/{service.runs[0]['id']}"

    def get_other(client: Client, path: str, params: Any, read: Any) -> Any:  # noqa: ANN401
        return get(client, path if path == "/deployment_runs" else other, params, read)

    monkeypatch.setattr(Client, "get", get_other)
    with pytest.warns(
        DataQualityWarning, match=r"\d open runs? could not be read again.*returned another record than"
    ):
        frame = load(service, tmp_path, refresh=True)
    pd.testing.assert_frame_equal(frame, expected_runs(service))


def test_unwritable_cache_folder_warns(service: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    service.create_runs(1, status="running")
    with pytest.warns(CacheWarning, match="the runs are not kept.* to a folder that can be written$"):
        frame = load(service, tmp_path / "file")
    pd.testing.assert_frame_equal(frame, expected_runs(service))


def test_full_disk_warns(service: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, left = Folder.replace, [4]

    def fail_after_four(self: Folder, name: str, write: Any, **options: Any) -> None:  # noqa: ANN401
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        replace(self, name, write, **options)

    monkeypatch.setattr(Folder, "replace", fail_after_four)
    with pytest.warns(CacheWarning, match="No space left on device"):
        frame = load(service, tmp_path)
    pd.testing.assert_frame_equal(frame, expected_runs(service))
    monkeypatch.setattr(Folder, "replace", replace)
    again = load(service, tmp_path)
    pd.testing.assert_frame_equal(again, frame)
    assert again.attrs["requests"] < frame.attrs["requests"]


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda file: file.write_bytes(b"PAR1 nothing PAR1")], ids=["missing", "overwritten"]
)
@pytest.mark.parametrize(("refresh", "file_index"), [(False, 0), (True, 0), (True, -1)])
def test_runs_of_a_damaged_data_file_are_loaded_again(
    service: Sandbox, tmp_path: Path, damage: Callable[[Path], object], *, refresh: bool, file_index: int
) -> None:
    """The damage is found when the file is read, or when new runs of its day are added."""
    load(service, tmp_path)
    damage(data_files(tmp_path)[file_index])
    with pytest.warns(CacheWarning, match=r"1 of \d+ data files .* is gone or damaged"):
        frame = load(service, tmp_path, refresh=refresh)
    pd.testing.assert_frame_equal(frame, expected_runs(service))
    assert load(service, tmp_path).attrs["requests"] == 0


def test_filtered_load_with_a_damaged_data_file_reads_the_list_again(service: Sandbox, tmp_path: Path) -> None:
    load(service, tmp_path)
    data_files(tmp_path)[-1].unlink()
    with pytest.warns(CacheWarning, match=r"1 of \d+ data files .* is gone or damaged"):
        frame = load(service, tmp_path, status="failed", refresh=True)
    pd.testing.assert_frame_equal(frame, expected_runs(service, lambda run: run["status"] == "failed"))


def read_files(folder: Path) -> dict[Path, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path: path.read_bytes() for path in files}


def raise_permission_error(folder: Folder, name: str) -> NoReturn:
    raise PermissionError(13, "Permission denied", folder.path_of(name))


def test_manifest_with_permission_error_is_not_replaced(
    service: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may name runs that the service has forgotten, so it must not be replaced as if there were none."""
    load(service, tmp_path)
    files_before = read_files(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "read", raise_permission_error)
        with pytest.warns(CacheWarning, match=r"not kept: .* cannot be read now \(Permission denied\)") as caught:
            frame = load(service, tmp_path)
        assert len(caught) == 1
        pd.testing.assert_frame_equal(frame, expected_runs(service))
        for use in (
            lambda: load(service, tmp_path, offline=True),
            lambda: scan_runs(tmp_path, engine="polars"),
            lambda: cache_usage(tmp_path),
        ):
            with pytest.raises(CacheError, match=r"cannot be read now.* Call as the user who owns the folder"):
                use()
    assert read_files(tmp_path) == files_before
    assert load(service, tmp_path).attrs["requests"] == 0


def test_data_file_with_permission_error_raises_and_is_kept(
    service: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(service, tmp_path)
    files_before = read_files(tmp_path)
    read = Folder.read
    with monkeypatch.context() as patch:
        patch.setattr(
            Folder,
            "read",
            lambda folder, name: (
                raise_permission_error(folder, name) if name.endswith(".parquet") else read(folder, name)
            ),
        )
        for refresh in (False, True):
            service.create_runs(1)
            with pytest.raises(CacheError, match=r"cannot be read now \(Permission denied\)"):
                load(service, tmp_path, refresh=refresh)
    assert files_before.items() <= read_files(tmp_path).items()
    pd.testing.assert_frame_equal(load(service, tmp_path, refresh=True), expected_runs(service))


def test_reading_a_data_file_is_retried_after_an_error(
    service: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(service, tmp_path)
    read, failures = Folder.read, iter([True])

    def fail_once(folder: Folder, name: str) -> pa.Buffer | None:
        if name.endswith(".parquet") and next(failures, False):
            raise_permission_error(folder, name)
        return read(folder, name)

    monkeypatch.setattr(Folder, "read", fail_once)
    frame = load(service, tmp_path)
    pd.testing.assert_frame_equal(frame, expected_runs(service))
    assert frame.attrs["requests"] == 0


def test_damaged_data_file_raises_offline(service: Sandbox, tmp_path: Path) -> None:
    load(service, tmp_path)
    data_files(tmp_path)[0].unlink()
    with pytest.raises(CacheError, match="gone or damaged") as caught:
        load(service, tmp_path, offline=True)
    assert caught.value.__notes__ == ["Call without offline to read what is lost again."]


def test_values_of_the_wrong_type_are_in_extra_with_one_warning(service: Sandbox, tmp_path: Path) -> None:
    odd = service.runs[3] | {"duration_ms": "long"}
    service.rewrite(odd)
    with pytest.warns(DataQualityWarning, match="did not fit"):
        frame = load(service, tmp_path)
    assert frame.loc[3, "extra"] == '{"duration_ms":"long"}'
    pd.testing.assert_frame_equal(load(service, tmp_path), frame)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"status": "done"}, "'waiting', 'completed', 'failed', 'cancelled', 'skipped', None"),
        ({"trigger_type": "cron"}, "allowed are 'manual', 'schedule', 'retry', None"),
        ({"deployment_id": " "}, "deployment_id=' ' is not the id of anything"),
        ({"deployment_id": float("nan")}, "deployment_id=nan is not the id of anything"),
        ({"has_error": "false"}, "has_error='false' is neither True nor False"),
        ({"since": "2026-06-01"}, "has no time zone"),
        ({"until": "soon"}, "or an age, like '30D'"),
        ({"since": "2026-06-02T00:00Z", "until": "2026-06-01T00:00Z"}, "no run can be in between"),
        ({"outcomes": "event"}, "allowed are 'auto', 'runs', 'sessions', 'events'"),
        ({"max_age": "old"}, "max_age='old' is not a length of time"),
        ({"refresh": True, "offline": True}, "give one of them"),
        ({"refresh": 1}, "refresh=1 is not known; allowed are True, False and 'all'"),
        ({"offline": "false"}, "offline='false' is neither True nor False"),
    ],
)
def test_invalid_arguments_raise_value_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_runs(**options)
