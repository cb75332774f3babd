"""Tests of the layout of the package: number, size and names of files, names of classes, and import cycles."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import grimp

PACKAGE = Path(__file__).parents[1] / "qoderdata"
#: The maximum number of files of the package, without those in `ADDED`.
MAX_FILES = 87
#: Files that were added for new features since version 0.1, by feature.
ADDED = {
    "outcomes of runs from sessions and events": [
        "cli/events.py", "load/run_outcomes.py", "load/sessions.py", "outcomes.py", "sandbox/scenarios.py",
        "sandbox/session_records.py",
    ],
    "connect: a client or a sandbox in one line": ["connect.py"],
    "names instead of ids on the command line": ["cli/grouping.py"],
    "one service and one cache for all commands": ["cli/service.py"],
    "costs": [
        "cli/compare_costs.py", "cli/costs.py", "cli/forecast.py", "forecast.py", "plots/cost_plots.py",
        "summaries/costs.py",
    ],
    "changes of deployments and between periods": [
        "cli/changes.py", "cli/compare.py", "history.py", "load/deployment_history.py", "summaries/comparison.py",
        "summaries/deployment_changes.py",
    ],
    "new errors and unusual runs": [
        "cli/errors.py", "cli/unusual.py", "plots/timeline_plots.py",
    ],
    "findings about the whole account": ["check.py", "cli/check.py"],
    "the deployments in a terminal": ["cli/deployments.py"],
    "a live view": ["cli/top_screen.py", "cli/top.py", "overview.py"],
    "an interactive page": [
        "explore/__init__.py", "explore/chart_tables.py", "explore/interactive.py", "explore/linked_views.py",
    ],
    "a report in another language": ["translation.py"],
    "secrets that are masked": ["masking.py"],
    "columns that were added after a table was stored": ["stored_columns.py"],
    "one file per question: they were parts of `arguments.py`, `decode/exact.py` and `plots/axes.py`": [
        "decode/unknown_fields.py", "plots/time_axes.py", "time_math.py",
    ],
}  # fmt: skip
MAX_LINES, MIN_LINES = 400, 80
EXEMPT = {"__init__.py", "__main__.py", "_version.py"}
#: Files of less than `MIN_LINES` lines of code, each with its reason.
SMALL: dict[str, str] = {
    "background.py": "shared by the page walk, the loaders and frames",
    "explore/interactive.py": "the public functions; imported without Altair, which is an optional dependency",
    "client/retries.py": "only the rules for waits and retries",
    "decode/unknown_fields.py": "only the column `extra`, for both ways of decoding and for stored tables",
    "time_math.py": "only integers and windows of time: used by decoding, summaries and timelines",
    "masking.py": "the rule for secrets: used by frames, exports, changes and the command",
    "connect.py": "the only module that imports both the client and the sandbox",
    "stored_columns.py": "used by the cache, the store and the snapshots",
    "translation.py": "used for the sentences of all layers",
    "summaries/wilson.py": "only the formulas of the intervals",
}


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def code_lines(path: Path) -> int:
    """Count lines that are neither blank, nor a comment, nor part of a docstring."""
    docstrings: set[int] = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if ast.get_docstring(node) is not None and first is not None and first.end_lineno is not None:
                docstrings |= set(range(first.lineno, first.end_lineno + 1))
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    return sum(1 for number, line in lines if line.strip() and line.strip()[0] != "#" and number not in docstrings)


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_number_of_files_is_limited() -> None:
    names = {path.relative_to(PACKAGE).as_posix() for path in sources()}
    added = [name for files in ADDED.values() for name in files]
    assert len(added) == len(set(added)), "a file is in ADDED twice"
    assert set(added) <= names, "remove files that no longer exist from ADDED"
    assert len(names) - len(added) <= MAX_FILES, "merge files, or add new ones to ADDED below their feature"


def test_file_names_are_unique() -> None:
    names = Counter(path.name for path in sources() if path.parent.name != "cli" and path.name not in EXEMPT)
    assert [name for name, count in names.items() if count > 1] == [], "rename one of the files"


def test_class_names_are_unique() -> None:
    nodes = [node for path in sources() for node in parse(path).body]
    names = Counter(node.name for node in nodes if isinstance(node, ast.ClassDef))
    assert len(names) > 100
    assert [name for name, count in names.items() if count > 1] == [], "rename one of the classes"


def test_number_of_code_lines_of_each_file_is_within_limits() -> None:
    sizes = {path.relative_to(PACKAGE).as_posix(): code_lines(path) for path in sources()}
    large = {name: size for name, size in sizes.items() if size > MAX_LINES}
    assert large == {}, (
        f"more than {MAX_LINES} lines of code: move a part to another file that answers its question"
    )
    small = {name for name, size in sizes.items() if size < MIN_LINES}
    small = {name for name in small if Path(name).name not in EXEMPT and not name.startswith("cli/")}
    assert small <= set(SMALL), (
        f"less than {MIN_LINES} lines of code: merge the file, or add it to SMALL with a reason"
    )
    assert set(SMALL) <= small, f"gone, or at least {MIN_LINES} lines of code now: remove the file from SMALL"


def test_there_are_no_import_cycles() -> None:
    """Remove modules without remaining imports until none is left. Imports for type checkers count too."""
    graph = grimp.build_graph("qoderdata", exclude_type_checking_imports=False)
    left = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert sum(map(len, left.values())) > 400
    while without_imports := {module for module, imported in left.items() if imported.isdisjoint(left)}:
        left = {module: imported for module, imported in left.items() if module not in without_imports}
    assert left == {}, "these modules import one another: move what they share to a module below them"
