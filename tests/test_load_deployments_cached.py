"""Tests of `load_deployments` with its cache: when it is used, damage, failing services, log and progress bar."""

from __future__ import annotations

import io
import itertools
import logging
import re
import sys
import types
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import tqdm

from qoderdata import Client, cache, cache_usage, clear_cache, load_deployments
from qoderdata.errors import (
    APIConnectionError,
    APIError,
    AuthenticationError,
    CacheError,
    CacheWarning,
    CredentialError,
)
from qoderdata.files import Folder
from qoderdata.sandbox import Sandbox
from qoderdata.schema import DEPLOYMENTS
from tests.wall_clock import set_wall_clock

if TYPE_CHECKING:
    from pathlib import Path

OTHER_PAT = "pt-of-another-account"
ROWS = 23
SANDBOX = {"deployments": 25, "seed": 7, "runs": 60}


@pytest.fixture(autouse=True)
def forget_requests(sandbox: Sandbox) -> None:
    sandbox.requests.clear()


@pytest.fixture
def client(sandbox: Sandbox) -> Client:
    client = Client(sandbox.pat, sandbox.base_url, max_retries=0)
    client.page_limit = 100
    return client


@pytest.fixture(params=["path", "text", "environment", "url"])
def cache_dir(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_memory: None
) -> Path | str | None:
    """Return each kind of value of `cache_dir`."""
    del clean_memory  # needed only for its effect
    folder = tmp_path / "cache"
    if request.param == "environment":
        monkeypatch.setenv("QODERDATA_CACHE_DIR", str(folder))
    values: dict[str, Path | str | None] = {"path": folder, "text": str(folder), "url": "memory://cache"}
    return values.get(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def only_file(folder: Path) -> Path:
    (path,) = (folder / "queries").iterdir()
    return path


def set_age(folder: Path, age: timedelta) -> None:
    """Change the fetch time of the one cached answer."""
    files, name = Folder(folder / "queries"), only_file(folder).name
    answer = cache.read(files, name, DEPLOYMENTS)
    assert answer is not None
    cache.write(files, name, replace(answer, fetched_at=datetime.now(UTC) - age))


class TestCacheUse:
    def test_second_load_uses_the_cache(
        self, sandbox: Sandbox, client: Client, cache_dir: Path | str | None
    ) -> None:
        frames = [load_deployments(client=client, cache_dir=cache_dir) for _ in range(3)]
        assert len(sandbox.requests) == 1
        assert [frame.attrs["from_cache"] for frame in frames] == [False, True, True]
        for frame in frames:
            assert len(frame) == ROWS
            pd.testing.assert_frame_equal(frame, frames[0])

    @pytest.mark.parametrize(
        ("age", "max_age", "sends_request"),
        [
            ("14min", "15min", False),
            ("16min", "15min", True),
            ("16min", timedelta(minutes=17), False),
            ("6D", "7D", False),
            ("1s", "0s", True),
            ("1s", pd.Timedelta(0), True),
            ("9999D", pd.Timedelta("99999D"), False),
            ("-5min", "15min", True),
        ],
    )
    def test_cached_answer_is_used_up_to_max_age(
        self,
        sandbox: Sandbox,
        client: Client,
        folder: Path,
        age: str,
        max_age: Any,  # noqa: ANN401 - any type of time span
        *,
        sends_request: bool,
    ) -> None:
        """An answer from the future, written with a wrong clock, is not used."""
        load_deployments(client=client, cache_dir=folder)
        set_age(folder, pd.Timedelta(age).to_pytimedelta())
        frame = load_deployments(client=client, cache_dir=folder, max_age=max_age)
        assert frame.attrs["from_cache"] is not sends_request
        assert len(sandbox.requests) == 1 + sends_request

    def test_refresh_does_not_use_the_cache(self, sandbox: Sandbox, client: Client, folder: Path) -> None:
        for _ in range(2):
            assert not load_deployments(client=client, cache_dir=folder, refresh=True).attrs["from_cache"]
        assert len(sandbox.requests) == 2
        assert load_deployments(client=client, cache_dir=folder).attrs["from_cache"]

    @pytest.mark.parametrize("age", [timedelta(0), timedelta(days=4000), timedelta(days=-1)])
    def test_offline_uses_a_cached_answer_of_any_age(
        self, sandbox: Sandbox, client: Client, folder: Path, age: timedelta
    ) -> None:
        fresh = load_deployments(client=client, cache_dir=folder)
        set_age(folder, age)
        frame = load_deployments(client=client, cache_dir=folder, offline=True, max_age="0s")
        pd.testing.assert_frame_equal(frame, fresh)
        assert abs(datetime.now(UTC) - age - datetime.fromisoformat(frame.attrs["fetched_at"])).days == 0
        assert len(sandbox.requests) == 1

    def test_offline_without_a_cached_answer_raises_cache_error(
        self, sandbox: Sandbox, client: Client, cache_dir: Path | str | None
    ) -> None:
        with pytest.raises(CacheError, match="no answer to this call"):
            load_deployments(client=client, cache_dir=cache_dir, offline=True)
        load_deployments(client=client, cache_dir=cache_dir, status="active")
        with pytest.raises(CacheError, match="with the same filters"):
            load_deployments(client=client, cache_dir=cache_dir, status="paused", offline=True)
        assert len(sandbox.requests) == 1

    @pytest.mark.parametrize("whole", [True, False])
    def test_offline_filters_the_newest_answer_that_has_all_rows(
        self, sandbox: Sandbox, client: Client, folder: Path, *, whole: bool
    ) -> None:
        agent = sandbox.deployments[0]["agent"]["id"]
        calls: list[dict[str, Any]] = [{}, {"status": "paused"}, {"agent_id": agent}, {"created_since": "90D"}]
        load_deployments(client=client, cache_dir=folder, status="paused")
        set_age(folder, timedelta(days=3))
        stored = load_deployments(client=client, cache_dir=folder, include_archived=whole)
        for call in calls:
            frame = load_deployments(client=client, cache_dir=folder, offline=True, **call)
            expected = load_deployments(client=client, cache_dir=folder / "other", **call)
            pd.testing.assert_frame_equal(frame, expected)
            assert frame.attrs["fetched_at"] == stored.attrs["fetched_at"]
        if not whole:
            with pytest.raises(CacheError, match="no answer to this call"):
                load_deployments(client=client, cache_dir=folder, offline=True, include_archived=True)
        sandbox.misbehave("401")
        with pytest.raises(AuthenticationError) as caught:
            load_deployments(client=client, cache_dir=folder, agent_id=agent)
        assert "pass offline=True to use it" in " ".join(caught.value.__notes__)

    def test_each_filter_and_account_has_its_own_cached_answer(self, sandbox: Sandbox, folder: Path) -> None:
        """The cache key includes filters, account, workspace and service."""
        with Sandbox(deployments=4, seed=8) as other:
            other.pat = OTHER_PAT
            calls: list[tuple[Client, dict[str, Any]]] = [
                (Client(sandbox.pat, sandbox.base_url), {}),
                (Client(sandbox.pat, sandbox.base_url), {"status": "active"}),
                (Client(sandbox.pat, sandbox.base_url), {"status": "paused"}),
                (Client(sandbox.pat, sandbox.base_url), {"include_archived": True}),
                (Client(sandbox.pat, sandbox.base_url), {"agent_id": "agent_1"}),
                (Client(sandbox.pat, sandbox.base_url), {"created_since": "2026-01-01T00:00Z"}),
                (Client(sandbox.pat, sandbox.base_url), {"created_until": "2026-01-01T00:00Z"}),
                (Client(sandbox.pat, sandbox.base_url, "ws_1"), {}),
                (Client(OTHER_PAT, other.base_url), {}),
            ]
            for client, filters in calls:
                assert not load_deployments(client=client, cache_dir=folder, **filters).attrs["from_cache"]
            assert cache_usage(folder)["queries"]["files"] == len(calls)
            for client, filters in calls:
                assert load_deployments(client=client, cache_dir=folder, **filters).attrs["from_cache"]
            other_account = Client(OTHER_PAT, sandbox.base_url)
            with pytest.raises(CacheError):
                load_deployments(client=other_account, cache_dir=folder, offline=True)

    def test_same_time_in_another_zone_uses_the_same_cached_answer(self, client: Client, folder: Path) -> None:
        load_deployments(client=client, cache_dir=folder, created_since="2026-06-01T09:00+08:00")
        again = load_deployments(client=client, cache_dir=folder, created_since="2026-06-01T01:00:00.000Z")
        assert again.attrs["from_cache"]

    def test_same_age_later_uses_the_same_cached_answer(
        self, sandbox: Sandbox, client: Client, folder: Path
    ) -> None:
        first = load_deployments(client=client, cache_dir=folder, created_since="9999D", created_until="1h")
        again = load_deployments(client=client, cache_dir=folder, created_since="9999D", created_until="1h")
        assert again.attrs["from_cache"]
        pd.testing.assert_frame_equal(again, first)
        assert not load_deployments(client=client, cache_dir=folder, created_since="9998D").attrs["from_cache"]
        assert len(sandbox.requests) == 2

    def test_cached_rows_that_are_now_older_than_the_age_are_left_out(
        self, client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        created_at = load_deployments(client=client, cache_dir=folder)["created_at"]
        age = datetime.now(UTC) - created_at.iloc[10] + timedelta(minutes=1)
        first = load_deployments(client=client, cache_dir=folder, created_since=age)
        assert list(first["created_at"]) == list(created_at[:11])
        passed = created_at.iloc[5] - created_at.iloc[10]
        set_wall_clock(monkeypatch, datetime.now(UTC) + passed, "load.lists")
        again = load_deployments(client=client, cache_dir=folder, created_since=age, offline=True)
        assert list(again["created_at"]) == list(created_at[:6])

    def test_default_client_uses_the_environment(
        self, sandbox: Sandbox, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(CredentialError, match="QODER_PAT"):
            load_deployments(cache_dir=folder)
        monkeypatch.setenv("QODER_PAT", sandbox.pat)
        monkeypatch.setenv("QODER_MANAGED_BASE_URL", sandbox.base_url)
        assert len(load_deployments(cache_dir=folder)) == ROWS
        assert load_deployments(cache_dir=folder).attrs["from_cache"]

    def test_load_after_clear_cache_sends_a_request(
        self, sandbox: Sandbox, client: Client, cache_dir: Path | str | None
    ) -> None:
        load_deployments(client=client, cache_dir=cache_dir)
        usage = cache_usage(cache_dir)
        assert usage["queries"]["files"] == 1
        assert usage["queries"]["bytes"] > 1000
        assert clear_cache(cache_dir) == 1 + usage["snapshots"]["files"]
        assert cache_usage(cache_dir)["queries"] == {"files": 0, "bytes": 0}
        assert not load_deployments(client=client, cache_dir=cache_dir).attrs["from_cache"]
        assert len(sandbox.requests) == 2


class TestDamagedCache:
    def test_damaged_file_warns_and_is_loaded_again(self, sandbox: Sandbox, client: Client, folder: Path) -> None:
        fresh = load_deployments(client=client, cache_dir=folder)
        only_file(folder).write_bytes(b"")
        with pytest.warns(CacheWarning, match="counts as absent") as caught:
            frame = load_deployments(client=client, cache_dir=folder)
        assert [warning.filename for warning in caught] == [__file__]
        assert not frame.attrs["from_cache"]
        pd.testing.assert_frame_equal(frame, fresh)
        assert load_deployments(client=client, cache_dir=folder).attrs["from_cache"]
        assert len(sandbox.requests) == 2

    def test_damaged_file_raises_cache_error_offline(self, client: Client, folder: Path) -> None:
        load_deployments(client=client, cache_dir=folder)
        only_file(folder).write_bytes(b"")
        with (
            pytest.warns(CacheWarning, match="counts as absent"),
            pytest.raises(CacheError, match="no answer to this call"),
        ):
            load_deployments(client=client, cache_dir=folder, offline=True)

    def test_damaged_file_and_failing_service_warn_once(
        self, sandbox: Sandbox, client: Client, folder: Path
    ) -> None:
        load_deployments(client=client, cache_dir=folder)
        only_file(folder).write_bytes(b"")
        sandbox.misbehave("reset")
        with pytest.warns(CacheWarning) as caught, pytest.raises(APIConnectionError) as raised:
            load_deployments(client=client, cache_dir=folder)
        assert len(caught) == 1
        assert not hasattr(raised.value, "__notes__")

    def test_unwritable_folder_warns(self, sandbox: Sandbox, client: Client, folder: Path) -> None:
        folder.write_text("a file in place of the folder")
        for _ in range(2):
            with pytest.warns(CacheWarning, match="QODERDATA_CACHE_DIR") as caught:
                frame = load_deployments(client=client, cache_dir=folder)
            assert [warning.filename for warning in caught] == [__file__]
            assert len(frame) == ROWS
            assert not frame.attrs["from_cache"]
        assert len(sandbox.requests) == 2
        assert folder.read_text() == "a file in place of the folder"

    def test_unknown_url_scheme_raises_before_a_request(self, sandbox: Sandbox, client: Client) -> None:
        with pytest.raises(CacheError, match="no installed package opens"):
            load_deployments(client=client, cache_dir="nonsense://bucket")
        assert sandbox.requests == []


class TestFailingService:
    @pytest.mark.parametrize("fault", ["reset", "503-empty", "429", "401", "html-200", "no-cursor"])
    @pytest.mark.parametrize("refresh", [False, True])
    def test_error_says_how_old_the_cached_answer_is(
        self, sandbox: Sandbox, client: Client, folder: Path, fault: str, *, refresh: bool
    ) -> None:
        cached = load_deployments(client=client, cache_dir=folder)
        set_age(folder, timedelta(hours=3, minutes=20, seconds=9))
        sandbox.misbehave(fault)
        with pytest.raises(APIError) as raised:
            load_deployments(client=client, cache_dir=folder, refresh=refresh)
        assert raised.value.__notes__ == [
            "An answer that is 3 h 20 min old is cached: pass offline=True to use it."
        ]
        offline = load_deployments(client=client, cache_dir=folder, offline=True)
        pd.testing.assert_frame_equal(offline, cached)

    def test_error_without_a_cached_answer_has_no_note(
        self, sandbox: Sandbox, client: Client, folder: Path
    ) -> None:
        load_deployments(client=client, cache_dir=folder, status="paused")
        sandbox.misbehave("reset")
        with pytest.raises(APIConnectionError) as raised:
            load_deployments(client=client, cache_dir=folder, status="active")
        assert not hasattr(raised.value, "__notes__")

    def test_offline_works_after_the_service_is_stopped(self, folder: Path) -> None:
        with Sandbox(deployments=3, seed=1) as stopped:
            client = Client(stopped.pat, stopped.base_url, max_retries=1)
            cached = load_deployments(client=client, cache_dir=folder)
        with pytest.raises(APIConnectionError, match=r"\[2 attempts in .*; after 0 pages, 0 records\]") as raised:
            load_deployments(client=client, cache_dir=folder, refresh=True)
        assert "pass offline=True to use it" in raised.value.__notes__[0]
        offline = load_deployments(client=client, cache_dir=folder, offline=True)
        pd.testing.assert_frame_equal(offline, cached)
        assert load_deployments(client=client, cache_dir=folder).attrs["from_cache"]


class TestLogAndProgressBar:
    def test_each_load_logs_one_line(
        self, sandbox: Sandbox, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = Client(sandbox.pat, sandbox.base_url)
        patterns = [
            r"deployments: 1 page, 23 rows in \d+\.\d s from the network",
            r"deployments: 23 rows in \d+\.\d s from the cache, fetched at 2\d{3}-.*\+00:00",
            r"deployments: 23 rows in \d+\.\d s from the cache, fetched at 2\d{3}-.*\+00:00",
        ]
        with caplog.at_level(logging.DEBUG, logger="qoderdata"):
            load_deployments(client=client, cache_dir=folder)
            load_deployments(client=client, cache_dir=folder)
            load_deployments(client=client, cache_dir=folder, offline=True)
        assert [record.name for record in caplog.records] == ["qoderdata"] * 3
        assert {record.levelno for record in caplog.records} == {logging.INFO}
        for record, pattern in zip(caplog.records, patterns, strict=True):
            assert re.fullmatch(pattern, record.message)

    def test_no_output_outside_a_terminal(
        self, client: Client, folder: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        load_deployments(client=client, cache_dir=folder)
        load_deployments(client=client, cache_dir=folder, progress=None)
        load_deployments(client=client, cache_dir=folder, progress=False, refresh=True)
        assert capfd.readouterr() == ("", "")

    def test_progress_true_shows_a_bar_for_requests_only(
        self, client: Client, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        load_deployments(client=client, cache_dir=folder, progress=True)
        out, err = capsys.readouterr()
        assert out == ""
        assert "Pulling deployments" in err
        load_deployments(client=client, cache_dir=folder, progress=True)
        assert capsys.readouterr() == ("", ""), "a load from the cache shows no bar"

    @pytest.mark.parametrize("output", ["terminal", "notebook", "file"])
    @pytest.mark.parametrize("progress", [None, False, True])
    @pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow"])
    def test_progress_none_shows_a_bar_for_slow_pulls_in_a_terminal(
        self,
        client: Client,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        output: str,
        progress: bool | None,  # noqa: FBT001 - a parameter of parametrize
        *,
        slow: bool,
    ) -> None:
        screen = io.StringIO()
        monkeypatch.setattr(screen, "isatty", lambda: output == "terminal", raising=False)
        if output == "notebook":
            monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
        else:
            monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
        ticks = itertools.count(step=0.7 if slow else 0.001)
        monkeypatch.setattr(tqdm.std, "time", lambda: float(next(ticks)))
        monkeypatch.setattr(sys, "stderr", screen)
        client.page_limit = 5
        load_deployments(client=client, cache_dir=folder, progress=progress)
        expected = progress is True or (progress is None and output != "file" and slow)
        assert ("deployments" in screen.getvalue()) is expected
