"""Define what the template lays out: sections, tables, columns, and the kinds of cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from qoderdata.formatting import MISSING, format_interval, format_percent
from qoderdata.report.figures import interval_bar, share_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qoderdata.report.data import Time
    from qoderdata.report.figures import Bar, Figure

#: The most rows that a table shows.
MOST_ROWS = 20
_MOST_CHARACTERS = 200


class BarText(NamedTuple):
    """A small bar, and the number that it shows."""

    bar: Bar
    text: str


class Badge(NamedTuple):
    """A word on a ground of its own."""

    text: str
    is_bad: bool = False


class Error(NamedTuple):
    """An error's type, and the beginning of its message; either may be missing."""

    type: str | None
    message: str | None


class Since(NamedTuple):
    """When a streak began: then, or earlier where the runs do not reach back."""

    time: Time
    is_at_least: bool
    ago: str | None


class Schedule(NamedTuple):
    """A schedule in words, and as it is written."""

    words: str
    expression: str


class Column(NamedTuple):
    """A column of a table.

    `kind` names the template's way to show a cell: ``text``, ``strong``, ``number``, ``deployment``, ``time`` and
    so on. `look` is ``number`` (set to the right) or ``wide`` (lines of its own on a narrow screen).
    """

    heading: str
    kind: str
    cell: Callable[[Any], object]
    look: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Table:
    """The first rows of a frame.

    Attributes
    ----------
    caption : str
        What the table shows, in words.
    columns : sequence of Column
        The first one says what a row is about.
    rows : list of list
        The cells; ``None`` is a missing value.
    more : str or None
        How many rows are not shown.
    """

    caption: str
    columns: Sequence[Column]
    rows: list[list[object]]
    more: str | None


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Attributes
    ----------
    anchor, title : str
        The end of its address, and its heading.
    about : str
        What it is about; `strong` and `rest` go on, the first one emphasized.
    nothing : str or None
        What stands there where there is nothing to show, which mostly is good news.
    count : str or None
        How many findings there are, for the contents.
    """

    anchor: str
    title: str
    about: str = ""
    strong: str = ""
    rest: str = ""
    nothing: str | None = None
    count: str | None = None
    figure: Figure | None = None
    table: Table | None = None
    sources: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Tile(NamedTuple):
    """A headline number."""

    title: str
    figure: str
    note: str
    is_bad: bool = False


def make_table(frame: pd.DataFrame, columns: Sequence[Column], *, caption: str, rows: str) -> Table:
    """Return the first rows of a frame as a table."""
    shown = frame.head(MOST_ROWS)
    more = None if len(shown) == len(frame) else f"{len(shown)} of {len(frame):,} {rows} are shown."
    return Table(
        caption, columns, [[_or_none(column.cell(row)) for column in columns] for row in rows_of(shown)], more
    )


def _or_none(cell: Any) -> object:  # noqa: ANN401 - any cell
    return None if pd.api.types.is_scalar(cell) and pd.isna(cell) else cell


def rows_of(frame: pd.DataFrame) -> list[Any]:
    """Return the rows of a frame as named tuples, without its index."""
    return list(frame.itertuples(index=False))


def interval_cell(row: Any, scale: float) -> BarText:  # noqa: ANN401 - a row as a named tuple
    """Return the cell of a rate and its interval."""
    bar = interval_bar(row.failure_rate, row.ci_low, row.ci_high, scale=scale)
    return BarText(bar, format_interval(row.ci_low, row.ci_high))


def share_cell(share: float, scale: float) -> BarText:
    """Return the cell of a share."""
    return BarText(share_bar(share, scale=scale), format_percent(share))


def scale_note(scale: float) -> str:
    """Return the text on the scale of a column of bars."""
    return f"0 to {100 * scale:.0f} %"


def error_cell(kind: Any, message: Any) -> Error | None:  # noqa: ANN401 - texts or pandas' missing values
    """Return the cell of an error, whose message may be long."""
    if pd.isna(kind) and pd.isna(message):
        return None
    words = None if pd.isna(message) else str(message)
    if words and len(words) > _MOST_CHARACTERS:
        words = words[:_MOST_CHARACTERS] + "…"
    return Error(None if pd.isna(kind) else str(kind), words)


def format_count(number: Any) -> str:  # noqa: ANN401 - an integer or one of pandas' missing values
    """Format an integer; a missing one is a dash."""
    return MISSING if pd.isna(number) else f"{number:,}"
