"""How is the live view drawn, and how does it share the terminal with the keyboard?

The view is drawn again each second, and when the terminal's size changes. One thread draws it and reads the keys;
it switches to the alternate screen, and always restores the terminal, even after an error in another thread.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import select
import signal
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from qoderdata.arguments import parse_span
from qoderdata.cli.output import distinct_cells, format_seconds
from qoderdata.formatting import (
    MISSING,
    counted,
    display_width,
    format_credits,
    format_duration,
    format_percent,
    format_time,
    one_line,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Self

    import pandas as pd
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from qoderdata.overview import Overview

#: How many columns of the terminal must be free beside the other cells, so that agents and teams are shown.
_FOR_AGENT, _FOR_TEAM = 56, 80
#: The greatest width of a column other than names, and the least width of the column of names.
_WIDEST, _NARROWEST = 24, 16
_GAP = 2
#: If the tables have fewer rows than this, there are no empty lines between them.
_FEW = 3
#: More lines than any terminal has.
_MOST = 500
#: Rows of a table of `--once`.
_MOST_ONCE = 10
_STYLES = {"error": "red", "warning": "yellow"}
#: How often, in seconds, the terminal's size and the view are checked for changes.
_POLL = 0.2
_UNTIL_STOPPED = 0.5
_QUIT = frozenset("qQ")
_SUSPEND = "\x1a"


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What is shown: an overview, how old it is, and why it is not newer."""

    #: The last one that could be made.
    overview: Overview
    #: When runs, sessions and deployments were read; ``None``: not known.
    read_at: Mapping[str, datetime | None]
    #: The zone of the times shown.
    tz: str
    #: The service that was read.
    host: str
    #: When the next reading begins, or began.
    next_at: datetime | None = None
    #: Why the last reading failed; empty if it did not.
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Section:
    """One table: the headings of its columns, the first of which is its title, and its first rows of `total`."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: int
    empty: str
    #: Which column has names or sentences, and is cut if room is short.
    wide: int = 0

    def table(self, most: int, width: int | None, *, is_whole: bool = False) -> Table:
        """Draw the first rows; if the width is limited, no other column than the wide one takes much room.

        `is_whole`: sentences are wrapped, not cut.
        """
        from rich.table import Table  # noqa: PLC0415 - only a view needs it
        from rich.text import Text  # noqa: PLC0415 - as above

        table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
        columns = len(self.headings) if width is None else self._columns_with_room(most, width)
        for index, heading in enumerate(self.headings[:columns]):
            is_wide = index == self.wide
            table.add_column(
                Text(heading, no_wrap=True, overflow="ellipsis"),
                no_wrap=not is_wide,
                overflow="ellipsis",
                max_width=None if width is None or is_wide else _WIDEST,
            )
        if not self.rows and most:
            table.add_row(Text(self.empty, style="dim"))
        too_long: dict[str, Any] = {"no_wrap": True, "overflow": "ellipsis"}
        if is_whole and self.wide:
            too_long = {"overflow": "fold"}
        cells = []
        for row in self.rows[:most]:
            style = _STYLES.get(row[0], "") if self.wide else ""
            cells.append([Text(cell, style=style, **too_long) for cell in row[:columns]])
        firsts = [first for first, *_ in cells]
        for first, (_, *others) in zip(firsts if self.wide else distinct_cells(firsts), cells, strict=True):
            table.add_row(first, *others)
        return table

    def _columns_with_room(self, most: int, width: int) -> int:
        """Return how many columns there are room for beside the title and the beginnings of names."""
        taken = -_GAP
        for index, texts in enumerate(zip(self.headings, *self.rows[:most], strict=True)):
            widest = max(map(display_width, texts))
            least = max(display_width(texts[0]), _NARROWEST) if index == self.wide else _WIDEST
            taken += min(widest, least) + _GAP
            if taken > width:
                return max(index, self.wide + 1)
        return len(self.headings)


# -- drawing -----------------------------------------------------------------------------------------------------


def draw(view: View, *, now: datetime, size: tuple[int, int]) -> RenderableType:
    """Return what fills a terminal of a size, in columns and lines."""
    from rich.console import Group  # noqa: PLC0415 - only a view needs it
    from rich.layout import Layout  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    width, height = size
    counts, today = _summary(view)
    top: list[RenderableType] = [
        _both_ends(Text(counts, style="bold"), Text(_local(now, view.tz), style="bold")),
        Text(today, no_wrap=True, overflow="ellipsis"),
    ]
    bottom = _footer(view, now)
    room = max(height - len(top) - len(bottom), 1)
    body = _stack(_sections(view, now, width, _MOST), room, width)
    layout = Layout()
    layout.split_column(
        Layout(Group(*top), size=len(top)),
        Layout(Group(*body), size=room),
        Layout(Group(*bottom), size=len(bottom)),
    )
    return layout


def draw_once(view: View, *, now: datetime, width: int | None) -> list[RenderableType]:
    """Return one snapshot that fits a width (`None`: any), with the first rows of each table."""
    from rich.text import Text  # noqa: PLC0415 - only a view needs it

    counts, today = _summary(view)
    parts: list[RenderableType] = [Text(f"{format_time(now, view.tz)}: {counts}"), Text(today)]
    for section in _sections(view, now, width, _MOST_ONCE):
        parts += ["", section.table(_MOST_ONCE, width, is_whole=True)]
        if section.total > _MOST_ONCE:
            parts.append(f"… and {section.total - _MOST_ONCE:,} more")
    return parts


def _stack(sections: Sequence[_Section], room: int, width: int) -> list[RenderableType]:
    """Return tables one below the other; each gets its share of the lines, and lines that others do not need."""
    wanted = [max(len(section.rows), 1) for section in sections]
    gaps = len(sections) - 1
    left = room - len(sections) - gaps
    if left < _FEW * len(sections):
        left, gaps = left + gaps, 0
    rows = [0] * len(sections)
    while left > 0 and rows != wanted:
        for index, most in enumerate(wanted):
            if rows[index] < most and left > 0:
                rows[index] += 1
                left -= 1
    parts: list[RenderableType] = []
    for section, most in zip(sections, rows, strict=True):
        if parts and gaps:
            parts.append("")
        parts.append(section.table(most, width))
    return parts


def _sections(view: View, now: datetime, width: int | None, most: int) -> list[_Section]:
    """Return the tables of a view that fits a width (`None`: any), with at most `most` rows each."""
    found = view.overview
    errors = int(found.findings["severity"].eq("error").sum())
    counts = f"{counted(errors, 'error')}, {counted(len(found.findings) - errors, 'warning')}"
    shown = found.findings.head(most)
    findings = [[str(record.severity), one_line(str(record.detail))] for record in shown.itertuples()]
    upcoming = found.upcoming[found.upcoming["trigger_at"] > now]
    horizon = format_duration(parse_span(found.horizon, name="horizon"))
    labelled = partial(_labelled, width=width, most=most)
    is_doubtful = found.findings["kind"].eq("incomplete_data").any()
    return [
        _Section(["Wrong:", counts], findings, len(found.findings), "nothing", wide=1),
        labelled(
            [f"Running: {len(found.running):,}", "for", "status"],
            found.running,
            lambda record: [_age(now, record.since), one_line(record.status)],
            "nothing is known to run" if is_doubtful else "nothing runs",
        ),
        labelled(
            [f"Failing: {counted(len(found.failing), 'active deployment')}", "in a row", "for", "last error"],
            found.failing,
            lambda record: [
                _at_least(record.streak, record.doubt),
                _age(now, record.since),
                one_line(record.error_type),
            ],
            "nothing is known to fail" if is_doubtful else "nothing fails",
        ),
        labelled(
            [f"Next: {len(upcoming):,} within {horizon}", "in", "at"],
            upcoming,
            lambda record: [_age(record.trigger_at, now), _clock(record.trigger_at, now, view.tz)],
            "nothing fires",
        ),
    ]


def _labelled(
    headings: list[str],
    frame: pd.DataFrame,
    cells: Callable[[Any], list[str]],
    empty: str,
    *,
    width: int | None,
    most: int,
) -> _Section:
    """Return a table of deployments: name, agent and team if there is room, then the other cells."""
    shown = frame.head(most)
    others = [cells(record) for record in shown.itertuples()]
    taken = sum(
        min(max(map(display_width, texts)), _WIDEST) + _GAP for texts in zip(headings[1:], *others, strict=True)
    )
    labels = [
        name
        for name, least in (("agent", _FOR_AGENT), ("team", _FOR_TEAM))
        if (width is None or width - taken >= least) and frame[name].notna().any()
    ]
    names = [[one_line(name) for name in row] for row in shown[["name", *labels]].itertuples(index=False)]
    rows = [[*name, *other] for name, other in zip(names, others, strict=True)]
    return _Section([headings[0], *labels, *headings[1:]], rows, len(frame), empty)


def _summary(view: View) -> tuple[str, str]:
    """Return one line about the deployments and one about today."""
    found, today = view.overview, view.overview.today
    decided = today.completed + today.failed
    share = f"{format_percent(today.failed / decided)} of {decided:,} decided" if decided else MISSING
    assumed = f", {today.assumed:,} assumed" if today.assumed else ""
    unknown = f", {today.unknown:,} more unknown" if today.unknown else ""
    counts = f"{counted(found.active, 'active deployment')}, {found.paused:,} paused · {one_line(view.host)}"
    costs = "costs not known, as sessions could not be read"
    if today.sessions is not None:
        costs = f"credits of {counted(today.sessions, 'session')} not known"
        if today.credits is not None:
            known = counted(today.sessions - today.unknown, "session")
            costs = f"{format_credits(today.credits)} credits of {known}{unknown}"
    return counts, f"Today: {counted(today.runs, 'run')}, {today.failed:,} failed ({share}{assumed}) · {costs}"


def _footer(view: View, now: datetime) -> list[RenderableType]:
    """Return the age of the view; if it could not be refreshed, return the reason above the age."""
    from rich.text import Text  # noqa: PLC0415 - only a view needs it

    ages = {name: " ".join(_age(now, at).split()[:2]) for name, at in view.read_at.items()}
    then = "reading …"
    if view.next_at is not None and view.next_at > now:
        then = f"next in {_age(view.next_at, now)}"
    elif view.next_at is not None:
        then = f"reading for {_age(now, view.next_at)}"
    end = Text(" q quits", style="dim")
    if not view.error:
        what = f"runs {ages['runs']} old, sessions {ages['sessions']}, deployments {ages['deployments']}; {then}"
        return [_both_ends(Text(what, style="dim"), end)]
    runs_at = view.read_at["runs"]
    what = f"not up to date since {_local(runs_at, view.tz)}, {_age(now, runs_at)} ago; {then}"
    return [
        Text(one_line(view.error), style="red", no_wrap=True, overflow="ellipsis"),
        _both_ends(Text(what, style="bold red"), end),
    ]


def _both_ends(left: Text, right: Text) -> Table:
    from rich.table import Table  # noqa: PLC0415 - only a view needs it

    line = Table.grid(expand=True)
    line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    line.add_column(justify="right", no_wrap=True)
    line.add_row(left, right)
    return line


def _at_least(streak: int, doubt: object) -> str:
    """Return the length of a streak, with a plus if it may be longer."""
    return f"{streak:,}{'+' if isinstance(doubt, str) else ''}"


def _age(later: datetime, earlier: datetime | None) -> str:
    """Return the time between two instants in whole seconds; never below 0, as clocks differ."""
    if earlier is None or earlier != earlier:  # noqa: PLR0124 - NaT
        return MISSING
    return format_duration(timedelta(seconds=max(int((later - earlier).total_seconds()), 0)))


def _local(time: datetime | None, tz: str) -> str:
    """Return the clock to the second, in a zone."""
    return format_seconds(time, tz)[11:] or MISSING


def _clock(time: datetime, now: datetime, tz: str) -> str:
    """Return the clock to the minute, with the day unless that is today."""
    whole = format_time(time, tz)
    return whole[11:16] if whole[:10] == format_time(now, tz)[:10] else whole[5:16]


# -- the terminal ------------------------------------------------------------------------------------------------


class Screen:
    """The terminal while the view is shown.

    A thread draws it and reads the keys, so that the main one can wait for the service. On `q` it interrupts the
    main thread as Ctrl-C does: what is being read is kept, and goes on next time.
    """

    def __init__(self, view: View) -> None:
        self.view = view
        self.has_quit = False
        self.failure: BaseException | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="qoderdata-screen")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._show():
                os.kill(0, signal.SIGTSTP)  # the whole job, until the shell continues it
                # Another thread may take the signal: until it does, this one must not go on.
                time.sleep(_UNTIL_STOPPED)
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            self.failure = error
        if not self._closing.is_set():
            _interrupt_main_thread()

    def _show(self) -> bool:
        """Show the view until it is closed, or `q` or Ctrl-Z is pressed; return whether it was Ctrl-Z."""
        from rich.console import Console, ConsoleDimensions  # noqa: PLC0415 - only a view needs it
        from rich.live import Live  # noqa: PLC0415 - as above

        console = Console(file=sys.stdout)
        drawn: Any = None
        with (
            _keyboard() as next_key,
            Live(
                console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
            ) as live,
        ):
            while not self._closing.is_set():
                now, size = datetime.now(UTC), _terminal_size()
                shown = (id(self.view), size, now.replace(microsecond=0))
                if shown != drawn:
                    drawn = shown
                    console.size = ConsoleDimensions(*size)
                    live.update(draw(self.view, now=now, size=size), refresh=True)
                key = next_key(_POLL)
                if key in _QUIT:
                    self.has_quit = True
                    return False
                if key == _SUSPEND:
                    return True
        return False


@contextlib.contextmanager
def _keyboard() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits some seconds for a key and returns it, or `""` if none was pressed.

    Keys are not echoed, and Ctrl-Z is a key too. Without a terminal, no key is ever pressed. The terminal is
    restored at the end.
    """
    if sys.stdin is None or not sys.stdin.isatty() or sys.platform == "win32":
        yield _wait
        return
    import termios  # noqa: PLC0415 - there is none on Windows
    import tty  # noqa: PLC0415 - as above

    keyboard = sys.stdin.fileno()

    def next_key(seconds: float) -> str:
        if not select.select([keyboard], [], [], seconds)[0]:
            return ""
        typed = os.read(keyboard, 1024)
        if not typed:
            raise OSError("the terminal is gone")
        if typed.startswith(b"\x1b"):
            return ""
        return next((key for key in typed.decode("ascii", "replace") if key in _QUIT or key == _SUSPEND), "")

    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        mode = termios.tcgetattr(keyboard)
        mode[6][termios.VSUSP] = b"\0"
        termios.tcsetattr(keyboard, termios.TCSANOW, mode)
        yield next_key
    finally:
        termios.tcsetattr(keyboard, termios.TCSAFLUSH, before)


def _terminal_size() -> tuple[int, int]:
    """Return the terminal's size now; `COLUMNS` and `LINES`, which a shell sets, do not follow it."""
    columns, lines = os.get_terminal_size(sys.stdout.fileno())
    return columns or 80, lines or 24  # some terminals do not know theirs


def _wait(seconds: float) -> str:
    time.sleep(seconds)
    return ""


def _interrupt_main_thread() -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()
