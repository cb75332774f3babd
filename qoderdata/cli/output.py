"""Print results: a table for people, Markdown for a chat, CSV and JSON for programs.

On a terminal a table fits its width: names are cut a little, then columns are left out, and a line says which. In
a pipe or a file nothing is cut. Text from the service never reaches a terminal with control characters.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import unicodedata
from dataclasses import dataclass
from functools import cache
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal

from qoderdata import arguments, formatting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    import pandas as pd
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text

#: Rows of a table for people, unless `--top` says otherwise.
DEFAULT_TOP = 40
#: The value of `optional` for ids, and for columns that repeat what other columns say.
MINOR = 9
#: How many rows a note names.
_NAMED = 3
#: How the values of some kinds of columns are written.
_FORMATS: dict[str, Callable[[Any], str]] = {
    "count": formatting.format_count,
    "percent": formatting.format_percent,
    "credits": formatting.format_credits,
    "milliseconds": formatting.format_milliseconds,
}
_NUMBERS = {"number", *_FORMATS}
#: How narrow a column may become, in columns of the terminal; other kinds keep their width.
_NARROWEST = {"text": 12, "id": 20, "prose": 15}
#: How wide it should be before columns that may be left out are shown.
_READABLE = {"text": 22, "id": 20, "prose": 22}
_GAP = 2
#: Characters that Markdown gives a meaning.
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~#&@!])")
#: Text that some Markdown renderers or chats turn into a link: a scheme, `www.`, an e-mail address, a domain.
_LINK = re.compile(r"://|www\.|@|\b(?:mailto|xmpp|tel|data|javascript):|\w\.[^\W\d_]{2,}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of a table for people."""

    heading: str
    #: The column of the frame that has the values, or a function of a row, which is a named tuple.
    value: str | Callable[[Any], Any]
    #: How a value is written, and what happens if room is short: a ``"text"`` or ``"id"`` is cut and
    #: ``"prose"`` is wrapped; ``"fixed"``, times and numbers (set to the right) keep their width.
    kind: Literal[
        "text", "prose", "id", "fixed", "time", "number", "count", "percent", "credits", "milliseconds"
    ] = "text"
    #: 0: always shown. Else left out if room is short: first `MINOR`, then columns without any value, then
    #: the highest.
    optional: int = 0
    #: Whether a row's cell is shown in red.
    is_alert: Callable[[Any], bool] | None = None
    #: How wide it should be before optional ones are shown, and at least if it is one; ``None``: as its kind, and
    #: an optional one is not cut.
    readable: int | None = None
    #: Whether it has the ids of what the column before it names.
    follows_name: bool = False


#: The name of a deployment and, where there is room, its id.
DEPLOYMENT = (
    TableColumn("name", "name"),
    TableColumn("deployment", "deployment_id", "id", optional=MINOR, follows_name=True),
)
#: A window of time.
WINDOW = TableColumn("from", "window", "time")
RATE_INTERVAL = TableColumn(
    "95 % interval", lambda row: formatting.format_interval(row.ci_low, row.ci_high), "number", optional=1
)
_RATE = TableColumn(
    "rate",
    lambda row: (
        f"{formatting.format_percent(row.failure_rate)} ({formatting.format_interval(row.ci_low, row.ci_high)})"
    ),
    "number",
)


def columns_where_any(frame: pd.DataFrame, name: str, heading: str) -> list[TableColumn]:
    """Return the column of a count if any is above 0, else none."""
    return [TableColumn(heading, name, "count", optional=2)] if frame[name].gt(0).any() else []


@dataclass(frozen=True, slots=True)
class Output:
    """How a command prints its result."""

    #: ``"text"``, ``"csv"``, ``"json"`` or ``"markdown"``.
    style: str
    #: The greatest number of rows; ``None``: the default of the form.
    top: int | None = None
    #: The zone of times.
    tz: str = "UTC"

    def print_frame(
        self,
        frame: pd.DataFrame,
        columns: Sequence[TableColumn],
        *,
        empty: str,
        notes: Sequence[str] = (),
        newest: bool = False,
    ) -> None:
        """Print a frame: all its columns as CSV or JSON; these columns, with `notes` below, as text or Markdown.

        `empty`: the text for a frame without rows; an empty text prints nothing.
        `newest`: if there are too many rows, print the newest windows or the last rows, not the first rows.
        """
        top = self.limit(frame)
        shown = _in_zone(_newest(frame, top) if newest else frame.head(top), self.tz)
        if self.style == "csv":
            from qoderdata.export import csv_text  # noqa: PLC0415 - slow to import

            print_exact(csv_text(shown))
        elif self.style == "json":
            print_exact(json_text(shown) + "\n")
        elif frame.empty:
            if empty:
                _echo_wrapped(empty)
        else:
            left_out = print_table(shown, columns, self.tz, markdown=self.style == "markdown")
            below = list(notes)
            if left_out:
                below.append(f"no room for {', '.join(left_out)}: --csv and --json have all columns")
            if len(frame) > top:
                # Of several groups, some rows of the newest window may have no room.
                left = formatting.counted(len(frame) - top, "earlier row" if frame.index.nlevels == 1 else "row")
                what = f"not shown: {left}" if newest else f"{top:,} of {len(frame):,} rows"
                without = " without --top" if self.top else ""
                below.append(f"{what}; --top shows more, --csv and --json{without} give all")
            if below:
                echo()
            for line in below:
                _echo_wrapped(line)

    def limit(self, frame: pd.DataFrame) -> int:
        """Return the greatest number of rows of a frame that are printed."""
        return self.top or (len(frame) if self.style in {"csv", "json"} else DEFAULT_TOP)

    def name_above(
        self, rates: pd.DataFrame, limit: float | None, *, figure: str, groups: Sequence[TableColumn]
    ) -> list[str]:
        """Return a note that names the groups whose `figure` is above `--fail-over`, the worst first."""
        if limit is None:
            return []
        above = rates[rates[figure] > limit].sort_values(figure, ascending=False, kind="stable")
        return self.name_rows(above, [*groups, _RATE], f"above --fail-over {limit:g}")

    def name_rows(self, frame: pd.DataFrame, columns: Sequence[TableColumn], what: str) -> list[str]:
        """Return a note that names the first rows of a frame, if it has any; the table may not show them."""
        if frame.empty:
            return []
        escape = _markdown_cell if self.style == "markdown" else str
        cells = _cells(frame.head(_NAMED), [column for column in columns if column.optional < MINOR], self.tz)
        named = [", ".join(escape(cell.plain) for cell in row) for row in zip(*cells, strict=True)]
        if len(frame) > _NAMED:
            named.append(f"and {len(frame) - _NAMED:,} more")
        return [f"{what}: {'; '.join(named)}"]


def _newest(frame: pd.DataFrame, top: int) -> pd.DataFrame:
    """Return the rows of the newest windows, in the order of the frame; without windows, the last rows."""
    if "window" not in frame.index.names:
        return frame.tail(top)
    windows = frame.index.get_level_values("window").to_frame(index=False)["window"]
    return frame.iloc[sorted(windows.sort_values(ascending=False, kind="stable").index[:top])]


def _echo_wrapped(text: str) -> None:
    """Print a text in lines that fit the terminal, names with wide characters too."""
    from rich.console import Console  # noqa: PLC0415 - only tables need it
    from rich.text import Text  # noqa: PLC0415 - as above

    width = available_width()
    if width is None:
        echo(text)
        return
    indent = "  "
    room = max(width - len(indent), 1)
    lines = Text(text).wrap(Console(width=room, file=StringIO()), room)
    echo(f"\n{indent}".join(line.plain.rstrip() for line in lines))


def _in_zone(frame: pd.DataFrame, tz: str) -> pd.DataFrame:
    times = frame.select_dtypes("datetimetz").columns
    return frame.assign(**{name: frame[name].dt.tz_convert(arguments.pandas_zone(tz)) for name in times})


def format_seconds(time: datetime | None, tz: str) -> str:
    """Write a time as `format_time` does, with seconds."""
    minute, _, offset = formatting.format_time(time, tz).rpartition(" ")
    return f"{minute}:{time:%S} {offset}" if minute else formatting.MISSING


def print_table(
    frame: pd.DataFrame, columns: Sequence[TableColumn], tz: str = "UTC", *, markdown: bool = False
) -> list[str]:
    """Print a frame as a table for people, of any width in Markdown; its index counts as columns.

    Return the headings of the columns that had no room, without those of `MINOR` ones that repeat other columns.
    """
    cells = _cells(frame, columns, tz)
    if markdown:
        echo(_markdown_table(cells, columns))
        return []
    width = available_width()
    kept, _ = _fit(cells, columns, width)
    for index, column in enumerate(columns):
        if column.follows_name and index not in kept:
            _name_by_ids(cells[index - 1], cells[index])
    kept, headings = _fit(cells, columns, width)
    echo(_text_table([cells[index] for index in kept], [columns[index] for index in kept], headings))
    return [
        column.heading for index, column in enumerate(columns) if index not in kept and column.optional < MINOR
    ]


def _name_by_ids(names: list[Text], ids: list[Text]) -> None:
    """Write the id in place of a missing or empty name, and its end after a name that several ids have."""
    plain = [
        id_.plain if name.plain in {"", formatting.MISSING} else name.plain
        for name, id_ in zip(names, ids, strict=True)
    ]
    distinct = formatting.make_distinct(plain, [id_.plain for id_ in ids])
    for name, text in zip(names, distinct, strict=True):
        name.plain = text


def _cells(frame: pd.DataFrame, columns: Sequence[TableColumn], tz: str) -> list[list[Text]]:
    """Return the cells of each column, safe texts of one line, secrets masked; rich never reads them as markup."""
    from rich.text import Text  # noqa: PLC0415 - only tables need it

    from qoderdata.masking import is_secret, mask_value  # noqa: PLC0415 - slow to import

    frame = _with_index_as_columns(frame)
    rows = list(frame.itertuples(index=False))
    cells = []
    for column in columns:
        values = frame[column.value] if isinstance(column.value, str) else map(column.value, rows)
        hide = isinstance(column.value, str) and is_secret(column.value)
        cells.append(
            [
                Text(
                    formatting.one_line(_formatted(mask_value(value, hide=hide), column.kind, tz)),
                    style="red" if column.is_alert is not None and column.is_alert(row) else "",
                    no_wrap=column.kind != "prose",
                )
                for value, row in zip(values, rows, strict=True)
            ]
        )
    return cells


def _formatted(value: Any, kind: str, tz: str) -> Any:  # noqa: ANN401 - a value of a frame
    if kind == "time":
        return formatting.format_time(value, tz)
    return _FORMATS[kind](value) if kind in _FORMATS else value


# -- to standard output ------------------------------------------------------------------------------------------


def echo(text: str = "", *, end: str = "\n") -> None:
    """Print text; if the reader has closed the pipe, as `| head` does, drop the text and go on."""
    with _to_standard_output():
        print(text, end=end)


def note(text: str) -> None:
    """Print a note about the result on standard error, in one line without control characters."""
    print_to_stderr(f"qoderdata: {escape_controls(' '.join(text.split()))}")


def print_to_stderr(text: str) -> None:
    """Print text on standard error; one that is full or closed changes no exit code."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)


def print_exact(text: str) -> None:
    """Print text for programs: the exact bytes into a pipe or file, control characters escaped on a terminal."""
    if sys.stdout.isatty():
        echo(escape_controls(text), end="")
        return
    buffer = getattr(sys.stdout, "buffer", None)
    with _to_standard_output():
        if buffer is None:
            sys.stdout.write(text)
        else:
            sys.stdout.flush()
            buffer.write(text.encode("utf-8", "surrogatepass"))


def flush() -> None:
    """Write the buffered text; it is no error if the reader has closed the pipe."""
    with _to_standard_output():
        sys.stdout.flush()


@contextlib.contextmanager
def _to_standard_output() -> Iterator[None]:
    """Name standard output in the error of a failed write; ignore the error if the reader closed the pipe."""
    try:
        yield
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            error.filename = "standard output"
            raise


def escape_controls(text: str) -> str:
    r"""Escape characters that can control a terminal, as JSON escapes them; keep line ends and tabs."""
    return "".join(json.dumps(character)[1:-1] if _is_unsafe(character) else character for character in text)


def _is_unsafe(character: str) -> bool:
    return character not in "\n\t" and unicodedata.category(character) in formatting.UNPRINTABLE


# -- forms -------------------------------------------------------------------------------------------------------


def json_text(frame: pd.DataFrame) -> str:
    """Write a JSON list of objects, one per row; times in ISO 8601, missing values as ``null``, secrets masked."""
    import pandas as pd  # noqa: PLC0415 - slow to import

    from qoderdata.masking import is_secret, mask_value  # noqa: PLC0415 - as above

    frame = _with_index_as_columns(frame)
    for name, times in frame.select_dtypes("datetimetz").items():
        if str(times.dt.tz) != "UTC":  # pandas would write it in UTC
            texts: Any = [None if at is pd.NaT else at.isoformat(timespec="microseconds") for at in times]
            frame = frame.assign(**{str(name): texts})
    text = frame.to_json(orient="records", date_format="iso", date_unit="us", double_precision=15)
    rows = [
        {name: mask_value(value, hide=is_secret(name)) for name, value in row.items()} for row in json.loads(text)
    ]
    return json.dumps(rows, ensure_ascii=False, indent=2)


def _with_index_as_columns(frame: pd.DataFrame) -> pd.DataFrame:
    from qoderdata.export import is_meaningful  # noqa: PLC0415 - slow to import

    return frame.reset_index() if is_meaningful(frame.index) else frame


def _markdown_table(cells: list[list[Text]], columns: Sequence[TableColumn]) -> str:
    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(texts) + " |"

    rule = ["---:" if column.kind in _NUMBERS else "---" for column in columns]
    headings = [_markdown_cell(column.heading) for column in columns]
    rows = [[_markdown_cell(cell.plain) for cell in row] for row in zip(*cells, strict=True)]
    return "\n".join(map(line, [headings, rule, *rows]))


def _markdown_cell(text: str) -> str:
    """Escape a cell; one that could become a link is code, where nothing is a link."""
    if not _LINK.search(text):
        return _MARKDOWN.sub(r"\\\1", text)
    return r"\|".join(_markdown_code(part) for part in text.split("|"))


def _markdown_code(text: str) -> str:
    if not text:
        return ""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    room = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{room}{text}{room}{fence}"


def is_dumb() -> bool:
    """Return whether the terminal cannot interpret escape sequences."""
    return os.environ.get("TERM") == "dumb"


def available_width() -> int | None:
    """Return the width that a table must fit, ``None`` for any: `COLUMNS`, else the terminal's."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() or os.environ.get("COLUMNS") else None


def _fit(cells: list[list[Text]], columns: Sequence[TableColumn], room: int | None) -> tuple[list[int], list[str]]:
    """Return the indices of the columns that fit, and their headings, each on one line or on two."""
    from rich.cells import cell_len  # noqa: PLC0415 - only tables need it

    kept = list(range(len(columns)))
    widths = [max((cell.cell_len for cell in column), default=0) for column in cells]

    def needed(headings: list[str], *, is_cut: bool) -> int:
        total = _GAP * (len(kept) - 1)
        for index in kept:
            column = columns[index]
            natural = max(widths[index], *map(cell_len, headings[index].splitlines()))
            readable = column.readable or _READABLE.get(column.kind, natural)
            total += min(natural, readable) if is_cut and (column.readable or not column.optional) else natural
        return total

    headings = [column.heading for column in columns]
    if room is not None and needed(headings, is_cut=False) > room:
        headings = [
            _on_two_lines(heading) if cell_len(heading) > width else heading
            for heading, width in zip(headings, widths, strict=True)
        ]
        worth = [
            column.optional < MINOR and any(cell.plain != formatting.MISSING for cell in of_column)
            for column, of_column in zip(columns, cells, strict=True)
        ]
        for index in sorted(kept, key=lambda index: (worth[index], -columns[index].optional, -index)):
            if columns[index].optional and needed(headings, is_cut=True) > room:
                kept.remove(index)
    return kept, [headings[index] for index in kept]


def _on_two_lines(heading: str) -> str:
    spaces = [index for index, character in enumerate(heading) if character == " "]
    if not spaces:
        return heading
    middle = min(spaces, key=lambda index: abs(index - len(heading) / 2))
    return f"{heading[:middle]}\n{heading[middle + 1 :]}"


def _text_table(cells: list[list[Text]], columns: Sequence[TableColumn], headings: Sequence[str]) -> str:
    from rich.box import Box  # noqa: PLC0415 - only tables need it
    from rich.cells import cell_len  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    rule_only = Box("    \n    \n ─  \n    \n    \n    \n    \n    \n")
    table = Table(box=rule_only, show_edge=False, padding=(0, _GAP - 1, 0, 0), pad_edge=False, header_style="bold")
    least = -_GAP
    for column, heading, of_column in zip(columns, headings, cells, strict=True):
        natural = max([*map(cell_len, heading.splitlines()), *(cell.cell_len for cell in of_column)])
        is_whole = bool(column.optional) and column.readable is None  # as `_fit` counts
        narrowest = natural if is_whole else min(natural, _NARROWEST.get(column.kind, natural))
        least += narrowest + _GAP
        table.add_column(
            Text(heading),
            min_width=narrowest if column.kind == "text" else None,
            justify="right" if column.kind in _NUMBERS else "left",
            no_wrap=is_whole or column.kind not in _NARROWEST,
            overflow="fold" if column.kind == "prose" else "ellipsis",
        )
    shown = [
        distinct_cells(of_column) if column.kind == "text" else of_column
        for column, of_column in zip(columns, cells, strict=True)
    ]
    for row in zip(*shown, strict=True):
        table.add_row(*row)
    return rendered(table, least=least)


def distinct_cells(texts: Sequence[Text]) -> list[RenderableType]:
    """Return texts that are cut in the middle where different ones would look the same if their ends were cut."""
    from rich.measure import Measurement  # noqa: PLC0415 - only tables need it

    different = {text.plain for text in texts}

    @cache
    def looks_same(width: int) -> bool:
        return len({formatting.truncate(text, width) for text in different}) < len(different)

    @dataclass(frozen=True, slots=True)
    class Cell:
        text: Text

        def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
            return Measurement.get(console, options, self.text)

        def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[Text]:
            shown = self.text.copy()
            if looks_same(options.max_width):
                shown.plain = formatting.truncate_middle(shown.plain, options.max_width)
            yield shown

    return [Cell(text) for text in texts]


def rendered(*parts: RenderableType, least: int = 0) -> str:
    """Return what rich draws, in lines that fit the terminal but may be `least` wide; of any width elsewhere."""
    from rich.console import Console  # noqa: PLC0415 - only tables need it

    is_styled = sys.stdout.isatty() and not is_dumb() and not os.environ.get("NO_COLOR")
    drawn = StringIO()
    width = available_width()
    console = Console(
        file=drawn,
        width=max(width, least) if width is not None else 1 << 20,
        force_terminal=is_styled,
        color_system="standard" if is_styled else None,
        legacy_windows=False,
    )
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in drawn.getvalue().splitlines())
