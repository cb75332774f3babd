"""Tests of `qoderdata.pages.progress_bar`: when it is shown, and what remains after it is closed."""

from __future__ import annotations

import io
import itertools
import sys
import types
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import tqdm.std

import qoderdata as qd
from qoderdata.pages import ProgressBar, progress_bar
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


def test_bar_of_a_list_in_order_of_time_shows_how_far_back_it_is_and_what_is_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    since, day = datetime(2026, 6, 1, tzinfo=UTC), timedelta(days=1)
    bar = ProgressBar("runs", since, progress=True)
    assert bar.is_shown
    bar.advance(100, newest=since + 9 * day, oldest=since + 8 * day)
    assert bar._bar.total == 900
    bar.advance(100, newest=since + 8 * day, oldest=since + 6 * day)
    assert bar._bar.total == 600
    bar.advance(0, newest=None, oldest=None)
    bar._bar.refresh()
    bar.close()
    said = capsys.readouterr().err
    assert "200/600" in said
    assert "back to 2026-06-07 00:00" in said


def test_bar_does_not_estimate_what_is_left_while_all_records_have_one_time() -> None:
    since, day = datetime(2026, 6, 1, tzinfo=UTC), timedelta(days=1)
    bar = ProgressBar("runs", since, progress=True)
    bar.advance(1, newest=since + day, oldest=since + day)
    assert (bar._bar.n, bar._bar.total) == (1, None)
    bar.close()


def test_bar_of_a_list_that_goes_back_too_far_shows_that_nothing_is_left() -> None:
    since, day = datetime(2026, 6, 1, tzinfo=UTC), timedelta(days=1)
    bar = ProgressBar("runs", since, progress=True)
    bar.advance(100, newest=since + day, oldest=since - day)
    assert (bar._bar.n, bar._bar.total) == (100, 100)
    bar.close()


def test_process_without_standard_error_shows_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys, "stderr", None)
    with progress_bar("runs", progress=None) as bar:
        bar.update(1200)
    assert bar.disable


def test_pull_of_runs_advances_its_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ticks = itertools.count()  # a second each, so that tqdm draws each change
    monkeypatch.setattr(tqdm.std, "time", lambda: float(next(ticks)))
    with Sandbox(deployments=5, seed=7, runs=20) as sandbox:
        client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url)
        qd.load_runs(client=client, cache_dir=tmp_path, progress=True)
    assert "back to 20" in capsys.readouterr().err
