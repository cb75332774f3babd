"""Tests of the notebooks: each runs from top to bottom, and its committed outputs equal those of the run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from jupyter_client.manager import KernelManager

FOLDER = Path(__file__).parents[1] / "notebooks"


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    """Load ``notebooks/run.py`` only where a test needs it: it imports nbformat, which takes seconds."""
    spec = importlib.util.spec_from_file_location("run_notebooks", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelManager]:
    """Share one kernel among all notebooks: its start and its imports take longer than most of them."""
    from jupyter_client.manager import KernelManager  # noqa: PLC0415 - slow to import

    manager = KernelManager(kernel_name="python3")
    yield manager
    if manager.has_kernel:
        manager.shutdown_kernel(now=True)


NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_notebooks_are_numbered_without_gaps(runner: ModuleType) -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{number:02d}" for number in range(1, len(NOTEBOOKS) + 1)]
    assert runner.notebooks() == NOTEBOOKS


#: Slow, as it starts a cluster of processes.
SLOW = "05-beyond-one-machine"


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.long) if path.stem == SLOW else path for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_committed_outputs_equal_those_of_a_new_run(runner: ModuleType, kernel: KernelManager, path: Path) -> None:
    found, stored = runner.outputs(runner.run(path, kernel)), runner.outputs(runner.read(path))
    assert found == stored, "`make notebooks` stores the outputs again"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_have_plots_and_no_warnings_or_local_paths(runner: ModuleType, path: Path) -> None:
    notebook = runner.read(path)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    pictures = [cell for cell in notebook.cells if "'image/png'" in str(cell.get("outputs"))]
    assert all(cell.metadata["mystnb"]["image"]["alt"] for cell in pictures)
    text = str(outputs)
    assert not [trace for trace in ("127.0.0.1", str(FOLDER.parent), "Bearer", "Traceback") if trace in text]
