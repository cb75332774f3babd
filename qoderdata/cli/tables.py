"""Frames as text: a table that fits the terminal, Markdown for a chat, CSV and JSON for machines."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from qoderdata.words import one_line, shorten, width

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Style = Literal["text", "markdown", "csv", "json"]

_GAP = "  "
_NARROWEST = 8
#: A terminal's width where there is no terminal.
_DEFAULT_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Column:
    """A column for people: its heading, and how a row of the frame becomes its cell.

    Attributes
    ----------
    heading : str
        What stands above.
    cell : callable
        Given a row as a named tuple, gives the text.
    number : bool
        Set to the right.
    """

    heading: str
    cell: Callable[[Any], str]
    number: bool = False


def for_people(frame: pd.DataFrame, columns: Sequence[Column], *, markdown: bool = False) -> str:
    """Draw a frame as a table.

    Parameters
    ----------
    frame
        One row a line; its index counts as columns.
    columns
        What is shown, from left to right.
    markdown
        A Markdown table of any width, instead of one that fits the terminal.

    Returns
    -------
    str
        The lines, without a line break at the end.
    """
    rows = [[one_line(column.cell(row)) for column in columns] for row in _records(frame).itertuples(index=False)]
    return _markdown(rows, columns) if markdown else _aligned(rows, columns)


def as_json(frame: pd.DataFrame) -> str:
    """Write a frame as a JSON list of objects, one a row; times in ISO 8601, missing values as ``null``."""
    text = _records(frame).to_json(orient="records", date_format="iso", date_unit="us", double_precision=15)
    return json.dumps(json.loads(text), ensure_ascii=False, indent=2)


def _records(frame: pd.DataFrame) -> pd.DataFrame:
    return frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()


def _markdown(rows: list[list[str]], columns: Sequence[Column]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    escaped = [[_markdown_cell(cell) for cell in row] for row in rows]
    rule = ["---:" if column.number else "---" for column in columns]
    return "\n".join([line([column.heading for column in columns]), line(rule), *map(line, escaped)])


def _markdown_cell(text: str) -> str:
    for character in "\\`*_[]<>|~#&@":
        text = text.replace(character, "\\" + character)
    return text


def _aligned(rows: list[list[str]], columns: Sequence[Column]) -> str:
    headings = [column.heading for column in columns]
    widths = [max(map(width, cells)) for cells in zip(headings, *rows, strict=True)]
    _fit(widths, columns)

    def line(cells: Sequence[str]) -> str:
        return _GAP.join(
            _pad(shorten(cell, room), room, right=column.number)
            for cell, room, column in zip(cells, widths, columns, strict=True)
        ).rstrip()

    return "\n".join([line(headings), _GAP.join("─" * room for room in widths), *map(line, rows)])


def _fit(widths: list[int], columns: Sequence[Column]) -> None:
    room = shutil.get_terminal_size((_DEFAULT_WIDTH, 24)).columns
    texts = [position for position, column in enumerate(columns) if not column.number]
    while texts and sum(widths) + len(_GAP) * (len(widths) - 1) > room:
        widest = max(texts, key=lambda position: widths[position])
        if widths[widest] <= _NARROWEST:
            return
        widths[widest] -= 1


def _pad(text: str, room: int, *, right: bool) -> str:
    blanks = " " * (room - width(text))
    return blanks + text if right else text + blanks
