"""The command `qoderdata`: one file a command, each a few lines over the library.

| question | file |
|---|---|
| which options do commands share, and what becomes of their values? | `options` |
| what does `--by` mean, and how do ids get their names? | `grouping` |
| how is a table, CSV, JSON or Markdown printed? | `output` |
| how is the live view of `top` drawn, and how are its keys read? | `screen` |
| how does an error become one line and an exit code? | this one |
| what does the command *x* do? | the file named *x* |

Nothing heavy is imported before a command needs it: the library's names are loaded when they are used.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from typing import TYPE_CHECKING

import click

from qoderdata import errors as exceptions
from qoderdata._version import __version__
from qoderdata.cli import output
from qoderdata.cli.cache import cache
from qoderdata.cli.changes import changes
from qoderdata.cli.check import check
from qoderdata.cli.compare import compare
from qoderdata.cli.costs import costs
from qoderdata.cli.demo import demo
from qoderdata.cli.errors import errors
from qoderdata.cli.events import events
from qoderdata.cli.export import export
from qoderdata.cli.failures import failures
from qoderdata.cli.forecast import forecast
from qoderdata.cli.missed import missed
from qoderdata.cli.options import Group
from qoderdata.cli.pull import pull
from qoderdata.cli.report import report
from qoderdata.cli.runs import runs
from qoderdata.cli.sandbox import sandbox
from qoderdata.cli.top import top
from qoderdata.cli.triggers import triggers
from qoderdata.cli.unusual import unusual

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_INTERRUPTED = 130
_USAGE = 2
_EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (exceptions.CredentialError, 3),
    (exceptions.AuthenticationError, 3),
    (exceptions.APIConnectionError, 5),
    (exceptions.APIError, 4),
    (exceptions.QoderdataError, 2),
    (ValueError, 2),
    (OSError, 2),
)
_EPILOG = """
Example:
  qoderdata demo

Exit codes:
  0    done
  1    something was found (check, missed --fail), or a rate is above --fail-over
  2    the command line is wrong, or a file cannot be read or written
  3    the token is missing or refused
  4    any other error that the service answers
  5    the service cannot be reached
  130  interrupted

Completion in the shell (bash; zsh and fish likewise):
  eval "$(_QODERDATA_COMPLETE=bash_source qoderdata)"
"""


class _Main(Group):
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example and the exit codes as they stand."""
        del ctx
        formatter.write(_EPILOG)


@click.group("qoderdata", cls=_Main)
@click.version_option(__version__, message="qoderdata %(version)s")
def commands() -> None:
    """Scheduled agents on Qoder Cloud: what fails, what fires next, what never started."""


for _command in (
    demo, pull, check, top, changes, failures, runs, compare, errors, unusual, costs, forecast, triggers, missed,
    events, report, export, sandbox, cache,
):  # fmt: skip
    commands.add_command(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        The words after the program's name; ``None``: those of this process.

    Returns
    -------
    int
        The exit code.
    """
    with _messages():
        try:
            code: int | None = commands.main(argv, prog_name="qoderdata", standalone_mode=False)
            output.flush()
        except (KeyboardInterrupt, click.Abort):
            return _INTERRUPTED
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            return _USAGE
        except click.UsageError as error:
            path = "qoderdata" if error.ctx is None else error.ctx.command_path
            output.note(f"{error.format_message().rstrip('.')}; see `{path} --help`")
            return _USAGE
        except tuple(kind for kind, _ in _EXIT_CODES) as error:
            output.note(" ".join([str(error), *getattr(error, "__notes__", [])]))
            return next(code for kind, code in _EXIT_CODES if isinstance(error, kind))
        return code or 0


@contextlib.contextmanager
def _messages() -> Iterator[None]:
    """Show warnings, logs and retries as lines on standard error while a command runs."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks is no error
            stream.reconfigure(errors="replace")
    package, client = logging.getLogger("qoderdata"), logging.getLogger("qoderdata.client")
    levels = package.level, client.level
    handler = _Lines(package)
    package.addHandler(handler)
    if sys.stderr.isatty():
        client.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            yield
    finally:
        package.removeHandler(handler)
        package.setLevel(levels[0])
        client.setLevel(levels[1])


class _Lines(logging.Handler):
    """Prints log records; without `--verbose` only the retries after the first, for who waits at a terminal."""

    def __init__(self, package: logging.Logger) -> None:
        super().__init__()
        self._package = package
        self._retries = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        if record.levelno < logging.WARNING and not self._package.isEnabledFor(logging.INFO):
            self._retries += 1
            if self._retries == 1:
                return
        erase = "\r\x1b[K" if sys.stderr.isatty() else ""  # a progress bar draws itself again
        print(erase + output.escape_controls(" ".join(record.getMessage().split())), file=sys.stderr)


def _show_warning(message: Warning | str, *_: object) -> None:
    text = str(message).replace("load_runs(outcomes='events')", "--outcomes events")
    output.note(f"warning: {text}")
