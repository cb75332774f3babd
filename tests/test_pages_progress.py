"""Tests of `qoderdata.pages.progress_bar`: when it is shown, and what remains after it is closed."""

from __future__ import annotations

import io
import sys
import types
from typing import TYPE_CHECKING

import pytest

import qoderdata as qd
from qoderdata.pages import progress_bar
from qoderdata.sandbox import Sandbox

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("output", ["terminal", "notebook"])
def test_closed_bar_is_cleared_in_a_terminal_and_stays_in_a_notebook(
    monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    """A terminal is cleared with blanks; in a notebook these would be an empty strip, so the last line stays."""
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if output == "notebook":
        monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("runs", progress=True) as bar:
        bar.update(1200)
    last = stream.getvalue().rstrip("\n").rpartition("\r")[2] or stream.getvalue().split("\r")[-2]
    assert ("1.20k runs" in last) == (output == "notebook")


@pytest.mark.parametrize("in_notebook", [True, False])
def test_short_pull_shows_no_bar(monkeypatch: pytest.MonkeyPatch, *, in_notebook: bool) -> None:
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if in_notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("runs", progress=None) as bar:
        bar.update(1200)
    assert stream.getvalue() == ""


def test_reading_events_is_told_from_reading_the_list_of_sessions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One takes a request for each hundred sessions, the other one for each session."""
    with Sandbox(deployments=5, seed=7, runs=20, edition="D") as sandbox:
        client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url)
        qd.load_runs(client=client, cache_dir=tmp_path, outcomes="events", progress=True)
    said = capsys.readouterr().err
    assert "Pulling sessions: " in said
    assert "Pulling events of sessions: " in said
