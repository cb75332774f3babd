"""Words on a command line to the calls of the library; errors to one line and an exit code.

0: done. 1: a rate is above ``--fail-over``. 2: the command line cannot be understood, or a file cannot be
read or written. 3: a missing or refused token. 4: any other answer of the service. 5: no connection.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING

from qoderdata._version import __version__
from qoderdata.cli import analysis, cached, demo, output, pull, served
from qoderdata.errors import APIConnectionError, APIError, AuthenticationError, CredentialError, QoderdataError

if TYPE_CHECKING:
    from collections.abc import Sequence

_INTERRUPTED = 130
_EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (CredentialError, 3),
    (AuthenticationError, 3),
    (APIConnectionError, 5),
    (APIError, 4),
    (QoderdataError, 2),
    (ValueError, 2),
    (OSError, 2),
)


def parser() -> argparse.ArgumentParser:
    """Give the whole command line."""
    top = argparse.ArgumentParser(
        prog="qoderdata",
        description="Scheduled agents on Qoder Cloud: what fails, what fires next, what never started.",
        epilog="example:\n  qoderdata demo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"qoderdata {__version__}")
    top.add_argument("--verbose", action="store_true", help="one line a pull on standard error")
    commands = top.add_subparsers(required=True, metavar="command")
    for module in (demo, pull, analysis, output, served, cached):
        module.add(commands)
    return top


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
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING, format="%(message)s")
    warnings.showwarning = _warn  # type: ignore[assignment]
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the table has seen enough, as with `| head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except tuple(kind for kind, _ in _EXIT_CODES) as error:
        print(f"qoderdata: {' '.join(_message(error).split())}", file=sys.stderr)
        return next(code for kind, code in _EXIT_CODES if isinstance(error, kind))
    return code


def _message(error: Exception) -> str:
    return " ".join([str(error), *getattr(error, "__notes__", [])])


def _warn(message: Warning | str, *_: object) -> None:
    print(f"qoderdata: warning: {' '.join(str(message).split())}", file=sys.stderr)
