"""Run the notebooks in fresh kernels: ``--write`` keeps the outputs, else they are compared with those kept.

Numbers and tables are compared, pictures are not: their pixels depend on the fonts of a machine.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
from nbclient import NotebookClient

if TYPE_CHECKING:
    from jupyter_client.manager import KernelManager

FOLDER = Path(__file__).parent
_PATIENCE_SECONDS = 600
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def notebooks() -> list[Path]:
    """List the notebooks in reading order."""
    return sorted(FOLDER.glob("[0-9][0-9]-*.ipynb"))


def read(path: Path) -> nbformat.NotebookNode:
    """Read a notebook as it is on disk."""
    return nbformat.read(path, as_version=4)


def run(path: Path, kernel: KernelManager | None = None) -> nbformat.NotebookNode:
    """Execute a notebook on the sandbox, and return it with its outputs.

    ``None``: in a fresh kernel. A `kernel` that is given runs one notebook after the other, each without the names
    of those before, and is left running.
    """
    book = read(path)
    # `multiprocessing` reads `__spec__`, which `%reset` deletes too.
    book.cells.append(nbformat.v4.new_code_cell("%reset -f\n__spec__ = None"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QODER")}
    folder = {"metadata": {"path": str(FOLDER)}}
    client = NotebookClient(book, km=kernel, timeout=_PATIENCE_SECONDS, resources=folder)
    client.execute(env=environment)
    if client.kc is not None:  # that of a kernel that goes on
        client.kc.stop_channels()
    del book.cells[-1]
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            # Progress bars and warnings, which name a file of this machine, are not kept.
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return book


def outputs(book: nbformat.NotebookNode) -> list[str]:
    """Return what the cells printed and returned, without pictures and warnings."""
    texts = []
    for cell in book.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stdout":
                texts.append(output.text)
            elif output.output_type == "execute_result":
                texts.append(_ADDRESS.sub("", output.data.get("text/plain", "")))
    return texts


def main() -> int:
    """Run all notebooks, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", type=Path, help="which notebooks (default: all)")
    parser.add_argument("--write", action="store_true", help="keep the outputs")
    arguments = parser.parse_args()
    stale = []
    for path in arguments.names or notebooks():
        book = run(path)
        if arguments.write:
            nbformat.write(book, path)
        elif outputs(book) != outputs(read(path)):
            stale.append(path.name)
        sys.stdout.write(f"{path.name}\n")
    if stale:
        sys.stdout.write(
            f"the stored outputs are outdated: {', '.join(stale)}; `make notebooks` writes them again\n"
        )
    return len(stale)


if __name__ == "__main__":
    sys.exit(main())
