"""Tables for the page: rows to cells, with a caption; on a narrow screen each row becomes a card of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qoderdata.report.markup import Child, Markup, element, join

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

#: The most rows that a table shows.
MOST_ROWS = 20


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, and how a row of the frame becomes its cell.

    Attributes
    ----------
    heading : str
        What stands above.
    cell : callable
        Given a row as a named tuple, gives what stands in it.
    number : bool
        Set to the right.
    wide : bool
        Text of some length, which needs lines of its own on a narrow screen.
    note : str or None
        What stands behind the heading where there is room, such as a scale.
    """

    heading: str
    cell: Callable[[Any], Child]
    number: bool = False
    wide: bool = False
    note: str | None = None


def records(frame: pd.DataFrame) -> list[Any]:
    """Give the rows of a frame as named tuples, without its index."""
    return list(frame.itertuples(index=False))


def table(frame: pd.DataFrame, columns: Sequence[Column], *, caption: str, rows: str) -> Markup:
    """Show the first rows of a frame.

    Parameters
    ----------
    frame
        One row a line; its index is not shown.
    columns
        What is shown; the first one says what the row is about.
    caption
        What the table says, in words.
    rows
        What its rows are, for the line that says how many are not shown.

    Returns
    -------
    Markup
        The table, and that line.
    """
    shown = frame.head(MOST_ROWS)
    headings = [_heading(column) for column in columns]
    lines = [
        element("tr", [_cell(column, row, first=column is columns[0]) for column in columns], role="row")
        for row in records(shown)
    ]
    # The roles say that it is a table also where the style lays the rows out as cards.
    made = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", headings, role="row"), role="rowgroup"),
        element("tbody", lines, role="rowgroup"),
        role="table",
    )
    if len(shown) == len(frame):
        return made
    return join(made, element("p", f"{len(shown)} of {len(frame):,} {rows} are shown.", class_="more"))


def _heading(column: Column) -> Markup:
    note: Child = None if column.note is None else [" ", element("span", column.note, class_="minor")]
    return element("th", column.heading, note, scope="col", role="columnheader", class_=_class(column))


def _cell(column: Column, row: object, *, first: bool) -> Markup:
    content = element("div", column.cell(row))
    if first:
        return element("th", content, scope="row", role="rowheader")
    return element("td", content, role="cell", class_=_class(column), data_label=column.heading)


def _class(column: Column) -> str | None:
    return "number" if column.number else "wide" if column.wide else None


def sentence(*words: Child) -> Markup:
    """Say in a plain sentence what a section is about."""
    return element("p", *words, class_="about")


def nothing(words: str) -> Markup:
    """Say that a section has nothing to show, which mostly is good news."""
    return element("p", words, class_="nothing")
