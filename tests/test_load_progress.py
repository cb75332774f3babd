"""Tests of `qoderdata.pages.progress_bar`: when it is shown, and what remains after it is closed."""

from __future__ import annotations

import io
import sys
import types

import pytest

from qoderdata.pages import progress_bar


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
