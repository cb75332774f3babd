"""Generate the reference pages of functions, exceptions and commands, and copy the notebooks of the tutorial.

Before Sphinx looks for pages, this extension writes a page for each public name (`qoderdata.__all__`), for the
exceptions, for the sandbox, and for each command that click knows. So a new name or command has its page without
anyone writing one.
"""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import qoderdata as qd
from qoderdata import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

#: The title of each group of names, by the folder or file of the package that they come from.
GROUPS = {
    "client": "Connect",
    "connect": "Connect",
    "load": "Load",
    "frames": "Shape, names and outcomes",
    "outcomes": "Shape, names and outcomes",
    "summaries": "Summaries",
    "forecast": "Summaries",
    "timelines": "Schedules",
    "check": "Check",
    "plots": "Plots",
    "explore": "Plots",
    "report": "Share",
    "export": "Share",
}
_OTHERS = "More"
#: The types in public signatures that are not Python's and have no page.
TYPES = {
    "pd.DataFrame": "a pandas frame",
    "IntoFrameT": "a frame of pandas, Polars, DuckDB, Dask or Spark; the result is one of the same kind",
    "Span": 'a length of time with a unit: text such as ``"7D"``, ``"24h"`` or ``"15min"``, or a ``timedelta``',
    "Instant": 'a time with its zone: ISO 8601 text such as ``"2026-06-15T00:00Z"``, or a ``datetime``',
    "Axes": "matplotlib's; what a plot is drawn on",
    "Records": "a list of JSON objects as dicts, or a whole page of the service",
}


def public_names() -> list[str]:
    """Return the public names that have a page of their own."""
    return [name for name in dir(qd) if name not in {"__version__", "errors"}]


def exception_names() -> list[str]:
    """Return the names of the public exceptions and warnings, base classes first."""
    kinds = [kind for kind in vars(qd.errors).values() if inspect.isclass(kind) and issubclass(kind, Exception)]
    return [kind.__name__ for kind in kinds if kind.__module__ == qd.errors.__name__]


def group_of(name: str) -> str:
    """Return the title of the group that a public name belongs to."""
    parts = getattr(qd, name).__module__.split(".")
    return GROUPS.get(parts[1] if len(parts) > 1 else "", _OTHERS)


def write_pages(app: Sphinx) -> None:
    """Write all generated pages below the source folder, and remove those of names that are gone."""
    source = Path(app.srcdir)
    _replace(source / "reference" / "api", dict(_api_pages()), keep="examples")
    _replace(source / "reference" / "command", dict(_command_pages()))
    for notebook in (source.parent / "notebooks").glob("*.ipynb"):
        shutil.copy2(notebook, source / "tutorial")
    _write_examples(source / "_build" / "extra")


def _write_examples(folder: Path) -> None:
    """Write the report and the interactive page that the how-to and the gallery link to."""
    folder.mkdir(parents=True, exist_ok=True)
    client, now = qd.connect(deployments=60, seed=7)
    df = qd.load_deployments(client=client, include_archived=True)
    sessions = qd.load_sessions(client=client)
    df = qd.with_names(df, agents=sessions)
    runs = qd.load_runs(client=client)
    qd.write_report(df, folder / "example-report.html", runs=runs, sessions=sessions, start=now)
    chart = qd.explore(df, runs, folder / "example-explore.html", tz="Asia/Shanghai")
    chart.save(folder / "example-explore.png", scale_factor=2)


def _replace(folder: Path, pages: dict[str, str], keep: str | None = None) -> None:
    """Make the folder hold these pages and no others; a page that is as it was keeps its time."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in pages and path.name != keep:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _heading(text: str, line: str = "=") -> str:
    return f"{text}\n{line * len(text)}\n"


# -- names --------------------------------------------------------------------------------------------------------


def _api_pages() -> Iterator[tuple[str, str]]:
    for name in public_names():
        directive = "autoclass" if inspect.isclass(getattr(qd, name)) else "autofunction"
        yield f"{name}.rst", _name_page(name, "qoderdata", directive)
    yield "Sandbox.rst", _name_page("Sandbox", "qoderdata.sandbox", "autoclass")
    yield "errors.rst", _errors_page()
    yield "index.rst", _api_index()


def _name_page(name: str, module: str, directive: str) -> str:
    members = "   :members:\n" if directive == "autoclass" else ""
    return (
        f"{_heading(name)}\n.. currentmodule:: {module}\n\n.. {directive}:: {module}.{name}\n{members}\n"
        f".. minigallery:: {module}.{name}\n   :add-heading: In the gallery\n   :heading-level: -\n"
    )


def _errors_page() -> str:
    described = "\n".join(
        f".. autoexception:: qoderdata.errors.{name}\n   :show-inheritance:\n" for name in exception_names()
    )
    return (
        f"{_heading('Exceptions and warnings')}\n.. currentmodule:: qoderdata.errors\n\n"
        "All are in ``qd.errors``. Every exception derives from `QoderdataError`, so that one ``except`` catches "
        f"all of them. Facts are attributes; no text has to be parsed.\n\n{described}"
    )


def _api_index() -> str:
    groups: dict[str, list[str]] = {title: [] for title in [*dict.fromkeys(GROUPS.values()), _OTHERS]}
    for name in public_names():
        groups[group_of(name)].append(name)
    groups["Connect"].append("sandbox.Sandbox")
    tables = "\n".join(
        f"{_heading(title, '-')}\n.. autosummary::\n   :nosignatures:\n\n"
        + "".join(f"   ~{name}\n" for name in names)
        for title, names in groups.items()
        if names
    )
    types = "".join(f"   * - ``{name}``\n     - {meaning}\n" for name, meaning in TYPES.items())
    pages = "".join(f"   {name}\n" for name in [*public_names(), "Sandbox"])
    return (
        f"{_heading('Python: every public name')}\n.. currentmodule:: qoderdata\n\n"
        "All names but ``Sandbox`` are in the package itself: ``import qoderdata as qd``, then "
        f"``qd.failure_rates``. What can go wrong is in :doc:`errors`.\n\n{tables}\n{_heading('Types', '-')}\n"
        f"These words are used in signatures.\n\n.. list-table::\n   :widths: 20 80\n\n{types}\n"
        f".. toctree::\n   :hidden:\n\n{pages}"
    )


# -- commands -----------------------------------------------------------------------------------------------------


def _command_pages() -> Iterator[tuple[str, str]]:
    main = cli.commands
    for name, command in main.commands.items():
        yield f"{name}.rst", "\n".join(_command_page(command, f"qoderdata {name}", "="))
    yield "index.rst", _command_index(main)
    yield "exit-codes.rst", _exit_codes_page()


def _command_index(main: click.Group) -> str:
    listed = "".join(
        f"   * - :doc:`qoderdata {name} <{name}>`\n     - {_escape(command.get_short_help_str(200))}\n"
        for name, command in main.commands.items()
    )
    pages = "".join(f"   {name}\n" for name in main.commands)
    return (
        f"{_heading('The command qoderdata')}\n{_escape(inspect.cleandoc(main.help or ''))}\n\n"
        f".. list-table::\n   :widths: 35 65\n\n{listed}\n.. toctree::\n   :hidden:\n\n{pages}"
    )


def _exit_codes_page() -> str:
    codes = "".join(f"   * - ``{code}``\n     - {meaning}\n" for code, meaning in exit_codes())
    return (
        f"{_heading('Exit codes')}\nEvery ``qoderdata`` command ends with one of these.\n\n"
        f".. list-table::\n   :widths: 10 90\n\n{codes}"
    )


def exit_codes() -> list[tuple[str, str]]:
    """Return the exit codes and their meanings, as the command's own help lists them."""
    text = cli.commands.get_help(click.Context(cli.commands, info_name="qoderdata"))
    lines = text.partition("Exit codes:\n")[2].partition("\n\n")[0].splitlines()
    return [(code, meaning) for code, meaning in (line.split(maxsplit=1) for line in lines)]


def _command_page(command: click.Command, path: str, line: str) -> Iterator[str]:
    """Return the lines of a command's page: usage, help, options by group, example, and the commands below it."""
    context = click.Context(command, info_name=path, color=False)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"{_heading(path, line)}\n.. program:: {path}\n\n.. code-block:: text\n\n   {path} {usage}\n"
    yield f"{_escape(inspect.cleandoc(command.help or ''))}\n"
    for title, options in _option_groups(command, context).items():
        yield f".. rubric:: {_escape(title)}\n"
        yield from options
    if hasattr(command, "example"):
        yield f".. rubric:: Example\n\n.. code-block:: sh\n\n   {command.example}\n"
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from _command_page(below, f"{path} {name}", "-")


def _option_groups(command: click.Command, context: click.Context) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            names = record[0].replace("[", "<").replace("]", ">")
            groups.setdefault(getattr(parameter, "group", "Options"), []).append(
                f".. option:: {names}\n\n   {_escape(record[1])}\n"
            )
    return groups


def _escape(text: str) -> str:
    """Return words of the command as reStructuredText that shows them as they are; `code` stays code."""
    parts = text.replace("\\", "\\\\").replace("*", "\\*").replace("|", "\\|").replace("_ ", "\\_ ").split("`")
    return "".join(f"``{part}``" if number % 2 else part for number, part in enumerate(parts))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the generator, before the gallery and before pages are looked for."""
    app.connect("builder-inited", write_pages, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
