"""Tests of `qoderdata.connect`: the account of the environment, or a sandbox where there is no token."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import qoderdata as qd
from qoderdata import connect as module
from qoderdata.sandbox import NOW, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def stop_sandboxes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stop the sandboxes that the test started."""
    sandboxes: dict[str, Sandbox] = {}
    monkeypatch.setattr(sys.modules["qoderdata.connect"], "_SERVING", sandboxes)
    yield
    for sandbox in sandboxes.values():
        sandbox.stop()


def test_without_a_token_connect_warns_and_starts_a_sandbox(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="this is a sandbox.*2026-06-15T01:30:20.*QODER_ACCESS_TOKEN") as caught:
        client, now = qd.connect(deployments=12, seed=3, edition="D")
    assert [warning.filename for warning in caught] == [__file__]
    assert now == NOW
    assert isinstance(now, pd.Timestamp)
    df = qd.load_deployments(client=client, include_archived=True, cache_dir=tmp_path)
    with Sandbox(deployments=12, seed=3, edition="D") as same:
        assert df["id"].to_list() == [one["id"] for one in same.deployments]


@pytest.mark.filterwarnings("ignore:this is a sandbox")
def test_same_arguments_return_the_same_sandbox() -> None:
    first, again, other = (qd.connect(**given)[0] for given in ({"seed": 3}, {"seed": 3}, {"seed": 4}))
    assert first.base_url == again.base_url != other.base_url


@pytest.mark.parametrize("variable", ["QODER_ACCESS_TOKEN", "QODER_PAT"])
def test_with_a_token_connect_uses_the_account_of_the_environment(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Sandbox(deployments=5, seed=9) as sandbox:
        monkeypatch.setenv(variable, sandbox.pat)
        monkeypatch.setenv("QODER_MANAGED_BASE_URL", sandbox.base_url)
        with warnings.catch_warnings(action="error"):
            client, now = qd.connect(deployments=12, seed=3)
        assert client.base_url == sandbox.base_url
        assert len(qd.load_deployments(client=client, include_archived=True, cache_dir=tmp_path)) == 5
    assert abs(pd.Timestamp.now("UTC") - now) < pd.Timedelta("1min")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"deploys": 3}, TypeError),
        ({"edition": "Z"}, ValueError),
        ({"deployments": "60"}, ValueError),
        ({"deployments": 2.0}, ValueError),
        ({"now": "2026-06-15"}, ValueError),
    ],
)
def test_invalid_arguments_raise_an_error(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        qd.connect(**arguments)
    assert module is qd.connect


def test_process_with_a_sandbox_ends_by_itself() -> None:
    code = "import qoderdata as qd; client, now = qd.connect(deployments=3); print(client.base_url)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QODER")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("http://127.0.0.1:")
    assert "UserWarning: this is a sandbox" in done.stderr


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("load_deployments", {}), ("load_deployments", {"as_of": "1D"}), ("load_runs", {}), ("load_sessions", {}),
        ("load_agents", {}), ("load_environments", {}), ("load_events", {"session_id": "sess_1"}),
        ("snapshots", {}), ("load_snapshots", {}), ("scan_deployments", {"engine": "duckdb"}),
        ("scan_runs", {"engine": "duckdb"}), ("scan_sessions", {"engine": "duckdb"}),
    ],
    ids=str,
)  # fmt: skip
def test_tuple_returned_by_connect_is_refused_as_client(name: str, arguments: dict[str, str]) -> None:
    """Users who write `client = qd.connect()` get this error."""
    call = functools.partial(getattr(qd, name), **arguments)
    with pytest.raises(TypeError, match=r"^client is a tuple; give Client\(pat=…\), or the first of the two"):
        call(client=(object(), pd.Timestamp(NOW)))
    with pytest.raises(TypeError, match=r"^client is a class; give Client"):
        call(client=qd.Client)
