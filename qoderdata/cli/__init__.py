"""The command `qoderdata`: one file per command; each calls the library and prints the result.

| question | file |
|---|---|
| which options do commands share, and what becomes of their values? | `options` |
| which service and cache does a command use, and what does it load from them? | `service` |
| what does `--by` mean, and how do ids get their names? | `grouping` |
| how is a table, CSV, JSON or Markdown printed? | `output` |
| how is the live view of `top` drawn, and how are its keys read? | `top_screen` |
| how does an error become one line and an exit code? | this one |
| what does the command *x* do? | the file named *x* |

Modules that are slow to import are imported when a command needs them.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import os
import re
import sys
import traceback
import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qoderdata import errors as exceptions
from qoderdata._version import __version__
from qoderdata.cli import output
from qoderdata.cli.cache import cache
from qoderdata.cli.changes import changes
from qoderdata.cli.check import check
from qoderdata.cli.compare import compare
from qoderdata.cli.compare_costs import compare_costs
from qoderdata.cli.costs import costs
from qoderdata.cli.demo import demo
from qoderdata.cli.deployments import deployments
from qoderdata.cli.errors import errors
from qoderdata.cli.events import events
from qoderdata.cli.export import export
from qoderdata.cli.failures import failures
from qoderdata.cli.forecast import forecast
from qoderdata.cli.missed import missed
from qoderdata.cli.options import CommandGroup, use_option_names
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
#: The exit code of each class of errors; the first class that matches counts. Other errors: `_USAGE`.
_EXIT_CODES = {
    exceptions.CredentialError: 3,
    exceptions.AuthenticationError: 3,
    exceptions.APIConnectionError: 5,
    exceptions.APIError: 4,
}
_EPILOG = """
Example:
  qoderdata demo

Exit codes:
  0    done
  1    something was found (check, missed --fail), or a rate is above --fail-over
  2    wrong command line, a file that cannot be read or written, or a bug
  3    the token is missing or refused
  4    any other error of the service
  5    the service cannot be reached
  130  interrupted

Completion in the shell (bash; zsh and fish likewise):
  eval "$(_QODERDATA_COMPLETE=bash_source qoderdata)"
"""


class _Main(CommandGroup):
    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example and the exit codes, without wrapping their lines."""
        formatter.write(_EPILOG)


@click.group("qoderdata", cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="qoderdata %(version)s")
def commands() -> None:
    """Scheduled agents on Qoder Cloud: what fails, what fires next, what never started."""


for _command in (
    demo, pull, check, top, deployments, changes, failures, runs, compare, errors, unusual, costs,
    compare_costs, forecast, triggers, missed, events, report, export, sandbox, cache,
):  # fmt: skip
    commands.add_command(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of this process, and return the exit code."""
    # At its exit Python looks for cycles among all objects, which takes a fifth of a short command's time.
    atexit.register(gc.freeze)
    words = sys.argv[1:] if argv is None else argv
    command = _named_command(words)
    with _messages(command):
        try:
            code: int | None = commands.main(argv, prog_name="qoderdata", standalone_mode=False)
            output.flush()
        except (KeyboardInterrupt, click.Abort) as error:
            for kept in getattr(error.__cause__, "__notes__", ()):
                output.note(kept)
            return _INTERRUPTED
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            return _USAGE
        except click.UsageError as error:
            path = "qoderdata" if error.ctx is None else error.ctx.command_path
            message = _no_such_option(error) if isinstance(error, click.NoSuchOption) else error.format_message()
            message = message.rstrip(".")
            link = " See" if message.endswith(("?", "?)")) else "; see"
            output.note(f"{message}{link} `{path} --help`")
            return _USAGE
        except (exceptions.QoderdataError, ValueError, OSError) as error:
            output.note(_error_text(error, command, words))
            return next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), _USAGE)
        except Exception:  # noqa: BLE001 - Python's exit code 1 would say that something was found
            traceback.print_exc()
            return _USAGE
        return code or 0


def _commands_with(option: str, group: click.Group) -> Iterator[str]:
    """Yield the names of the commands of a group, and of the groups in it, that have an option."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from (f"{name} {inner}" for inner in _commands_with(option, command))
        elif any(option in part.opts for part in command.params):
            yield name


def _no_such_option(error: click.NoSuchOption) -> str:
    """Return the message of an option that a command does not have; it names the commands that have it."""
    name = error.option_name
    others = list(_commands_with(name, commands))
    if not others:
        word = name.strip("-")  # click also compares the hyphens
        alike = [option for option in error.possibilities or () if get_close_matches(word, [option.strip("-")])]
        return click.NoSuchOption(name, error.message, alike).format_message()
    if error.ctx is None or error.ctx.command is commands:
        return f"{error.message.rstrip('.')} before the command; write it after the command"
    if error.ctx.command.name == "failures" and name in {"--since", "--until"}:
        return (
            f"{error.message.rstrip('.')}, as failures counts all runs of a deployment; for a period: "
            "`qoderdata runs --since 7D --by deployment --outcomes events`"
        )
    # Click also names options that only look similar.
    near = [f"{option!r}" for option in error.possibilities or () if name.strip("-") in option]
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    return f"{error.message.rstrip('.')}{hint} Commands that have it: {', '.join(others)}"


def _error_text(error: Exception, command: click.Command, words: Sequence[str] | None = None) -> str:
    """Return the message of an error; its advice names the options of the command, not Python's parameters."""
    # The advice is the last sentence before the facts. Text from the service comes before it, and is not changed.
    can_be_offline = any(param.name == "offline" for param in command.params)
    no_advice_here = ("frame[",) if can_be_offline else ("frame[", "offline=True")
    notes = [note for note in getattr(error, "__notes__", []) if not any(word in note for word in no_advice_here)]
    text = str(error)
    for note in notes:
        full_stop = "" if text.endswith((".", "]", ")")) or note.startswith("(") else "."
        text += f"{full_stop} {note}"
    before = re.match(r"(?s).*\. (?!\[)", str(error)) if isinstance(error, exceptions.APIError) else None
    advice = before.end() if before else 0
    return text[:advice] + use_option_names(text[advice:], command, words)


@contextlib.contextmanager
def _messages(command: click.Command) -> Iterator[None]:
    """Show warnings (each once), logs and retries as lines on standard error while a command runs."""
    said: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in said:
            said.add(str(message))
            output.note(f"warning: {use_option_names(str(message), command)}")

    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as `>&-` does
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - for good
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks is no error
            stream.reconfigure(errors="replace")
    package, client = logging.getLogger("qoderdata"), logging.getLogger("qoderdata.client")
    levels = package.level, client.level
    handler = _Lines(package, command)
    package.addHandler(handler)
    if sys.stderr.isatty():
        client.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        package.removeHandler(handler)
        package.setLevel(levels[0])
        client.setLevel(levels[1])


class _Lines(logging.Handler):
    """Prints log records; without `--verbose` only the retries after the first, for a user who waits."""

    def __init__(self, package: logging.Logger, command: click.Command) -> None:
        super().__init__()
        self._package = package
        self._command = command
        self._retries = 0

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING and not self._package.isEnabledFor(logging.INFO):
            self._retries += 1
            if self._retries == 1:
                return
        text = record.getMessage()
        for error in record.args or ():
            if isinstance(error, Exception):
                text = text.replace(str(error), _error_text(error, self._command))
        # Erase the progress bar first; its next update draws it again.
        erase = "\r\x1b[K" if sys.stderr.isatty() and not output.is_dumb() else ""
        output.print_to_stderr(erase + output.escape_controls(" ".join(text.split())))


def _named_command(words: Sequence[str]) -> click.Command:
    command: click.Command = commands
    for word in words:
        if isinstance(command, click.Group):
            command = command.commands.get(word, command)
    return command
