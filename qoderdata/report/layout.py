"""Define what the template lays out: sections, tables, the kinds of cells, and the shapes of a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from qoderdata.formatting import format_interval, format_percent
from qoderdata.outcomes import is_unknown
from qoderdata.translation import gettext as _
from qoderdata.translation import ngettext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from qoderdata.report.data import ReportData

    #: Rows of a name and 24 pairs of a shade (0 to 9) and a number.
    HeatRows = list[tuple[str, list[tuple[int, str]]]]

#: The most rows that a folded table shows, and the most that an unfolded one shows.
MOST_ROWS, MOST_AT_FIRST = 20, 5
#: How many names are shown for equal rows.
_FIRST_NAMES = 3
_MOST_CHARACTERS = 200


class Bar(NamedTuple):
    """What a small bar shows: its line and, unless `dot` is ``None``, a dot, from 0 to 1 along its track."""

    text: str
    begin: float
    end: float
    dot: float | None = None


class Badge(NamedTuple):
    """A word with its own background color."""

    text: str
    is_bad: bool = False


class Error(NamedTuple):
    """The beginnings of an error's type and message; either may be missing."""

    type: str | None
    message: str | None


class Since(NamedTuple):
    """When a streak began: then, before that if the runs do not reach back, or perhaps earlier."""

    time: pd.Timestamp
    ago: str
    is_older: bool
    may_be_earlier: bool


class ScheduleText(NamedTuple):
    """A schedule in words, and as it is written."""

    words: str
    expression: str


class Names(NamedTuple):
    """The first names of some deployments, and how many more there are."""

    names: list[str]
    more: str | None


class Sentence(NamedTuple):
    """A sentence that begins with names, and what to do about it; `is_listed` if it is said of each name."""

    names: Names
    text: str
    hint: str | None = None
    is_bad: bool = False
    is_listed: bool = False


class PageColumn(NamedTuple):
    """A column of a table.

    `kind` names the template's way to show a cell: ``text``, ``strong``, ``deployment``, ``time`` and
    so on. `look` is ``number`` (set to the right) or ``wide`` (lines of its own on a narrow screen).
    """

    heading: str
    kind: str
    cell: Callable[[Any], object]
    look: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class PageTable:
    """The first rows of a frame."""

    caption: str
    #: The first one says what a row is about.
    columns: Sequence[PageColumn]
    #: ``None`` is a missing value.
    rows: list[list[object]]
    #: A sentence: how many rows are shown, and which command or call shows more.
    more: str | None


class Box(NamedTuple):
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float
    look: str


class Label(NamedTuple):
    """A text."""

    x: float
    y: float
    text: str
    anchor: str


class Picture(NamedTuple):
    """A picture, and what it shows in words; its paths are by their look."""

    title: str
    description: str
    width: int
    height: int
    boxes: list[Box]
    paths: dict[str, str]
    labels: list[Label]


@dataclass(frozen=True)
class Section:
    """One section of the page, or one folded part."""

    #: The id of its HTML element, used in links.
    anchor: str
    title: str
    #: The introduction; `strong`, which is emphasized, and `rest` follow it.
    about: str = ""
    strong: str = ""
    rest: str = ""
    #: The sentence shown if there is nothing to list.
    nothing: str | None = None
    #: How many findings there are, beside the title.
    count: int | None = None
    picture: Picture | None = None
    sentences: list[Sentence] = field(default_factory=list)
    #: Whether the order of the sentences counts.
    is_ordered: bool = False
    #: Triggers by weekday and hour.
    heat: HeatRows | None = None
    table: PageTable | None = None
    folded: Section | None = None
    sources: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Tile(NamedTuple):
    """A figure, its change against the period before, what it is about, and the folded part that has more."""

    title: str
    figure: str
    change: str | None
    note: str
    is_bad: bool = False
    anchor: str | None = None


def make_table(
    frame: pd.DataFrame,
    columns: Sequence[PageColumn],
    caption: str,
    *,
    shows_more: str = "",
    most: int = MOST_ROWS,
) -> PageTable:
    """Return the first rows of a frame as a table; `shows_more` is the command or call that has the others."""
    shown = frame.head(most)
    more = None
    if len(shown) < len(frame):
        more = ngettext(
            "{shown} of {count} row is shown; {call} shows more.",
            "{shown} of {count} rows are shown; {call} shows more.",
            len(frame),
            shown=len(shown),
            call=shows_more,
        )
    cells = [[_or_none(column.cell(row)) for column in columns] for row in rows_of(shown)]
    return PageTable(caption, columns, cells, more)


def command(text: str, rows: int) -> str:
    """Return a command with `--top`, as it prints fewer rows by default."""
    return f"qoderdata {text} --top {rows}"


def _or_none(cell: Any) -> object:  # noqa: ANN401 - any cell
    return None if pd.api.types.is_scalar(cell) and pd.isna(cell) else cell


def rows_of(frame: pd.DataFrame) -> list[Any]:
    """Return the rows of a frame as named tuples, without its index."""
    return list(frame.itertuples(index=False))


def deployment_column(data: ReportData) -> PageColumn:
    """Return the column that says which deployment a row is about."""
    return PageColumn(_("Deployment"), "deployment", lambda row: data.deployment(row.deployment_id))


def names_of(data: ReportData, identifiers: Iterable[str]) -> Names:
    """Return the first names of some deployments, and how many more there are."""
    all_ = [str(identifier) for identifier in identifiers]
    first = [data.name(identifier) for identifier in all_[:_FIRST_NAMES]]
    left = len(all_) - len(first)
    return Names(first, _("and {count} more", count=f"{left:,}") if left else None)


def join_sentences(*sentences: str) -> str:
    """Return the sentences that are not empty as one text; a language without blanks has none between them."""
    return reduce(
        lambda text, sentence: _("{text} {sentence}", text=text, sentence=sentence), filter(None, sentences)
    )


def unknown_note(runs: pd.DataFrame | None) -> str:
    """Return a sentence about the runs whose outcome is unknown; an empty text if there are none."""
    unknown = 0 if runs is None else int(is_unknown(runs).sum())
    note = ngettext("The outcome of {count} run is unknown.", "The outcome of {count} runs is unknown.", unknown)
    return note if unknown else ""


def join_facts(*facts: str) -> str:
    """Return the facts that are not empty as one text, with commas."""
    return reduce(lambda text, fact: _("{what}, {change}", what=text, change=fact), filter(None, facts))


def round_scale(shares: pd.Series[Any]) -> float:
    """Return the end of a scale that holds the highest of some shares: a whole tenth, at most 1."""
    known = shares.dropna().astype("float64")
    return min(1.0, max(0.1, math.ceil(10 * known.max()) / 10)) if len(known) else 0.1


def rate_columns(rates: pd.DataFrame) -> tuple[PageColumn, PageColumn, PageColumn]:
    """Return the columns of known failure rates, of their intervals as bars, and of failed and decided runs."""
    scale = round_scale(rates["ci_high"].head(MOST_ROWS))
    runs = _("Failed / decided") if "completed" in rates else _("Failed / runs")

    def interval(row: Any) -> Bar:  # noqa: ANN401 - a row as a named tuple
        parts = (min(share / scale, 1.0) for share in (row.ci_low, row.ci_high, row.failure_rate))
        return Bar(format_interval(row.ci_low, row.ci_high), *parts)

    return (
        PageColumn(_("Failure rate"), "strong", lambda row: format_percent(row.failure_rate), "number"),
        PageColumn(_("95 % interval"), "bar", interval, note=_scale_note(scale)),
        PageColumn(runs, "text", lambda row: f"{row.failed:,} / {row.decided:,}", "number"),
    )


def share_column(found: pd.DataFrame) -> PageColumn:
    """Return the column of shares as bars."""
    scale = round_scale(found["share"])

    def cell(row: Any) -> Bar | None:  # noqa: ANN401 - a row as a named tuple
        if pd.isna(row.share):
            return None
        return Bar(format_percent(row.share), 0, row.share / scale)

    return PageColumn(_("Share"), "bar", cell, note=_scale_note(scale))


def counters_note(data: ReportData) -> str:
    """Return sentences that say what the figures of a page without runs are over."""
    if "counted_since" not in data.deployments.attrs:
        return _("Over the whole life of the deployments that are not archived, by the service's counters.")
    return join_sentences(_("Over the deployments that are not archived."), counted_note(data))


def certainty_note(data: ReportData) -> str:
    """Return a sentence that says how many outcomes of counted runs are not proved; an empty text if all are."""
    attrs = data.deployments.attrs
    runs, assumed, unknown = (attrs.get(f"counted_{name}", 0) for name in ("runs", "assumed", "unknown"))
    if not assumed and not unknown:
        return ""
    return ngettext(
        "Of the {count} run that was counted, {assumed} completed by assumption, and the outcome of {unknown} "
        "is unknown.",
        "Of all {count} runs that were counted, {assumed} completed by assumption, and the outcome of {unknown} "
        "is unknown.", runs, assumed=f"{assumed:,}", unknown=f"{unknown:,}",
    )  # fmt: skip


def counted_note(data: ReportData) -> str:
    """Return a sentence that says which runs were counted, if the service has no counters."""
    since = data.deployments.attrs["counted_since"]
    counted = _("since {time}", time=data.time_text(pd.Timestamp(since))) if since else _("of any age")
    return _("Where the service has no counters, runs are counted instead ({since}).", since=counted)


def order_note() -> str:
    """Return a sentence that says in which order failure rates are shown."""
    return _("The order is by the lower end of the interval, so one failure in one run does not come first.")


def _scale_note(scale: float) -> str:
    """Return the text on the scale of a column of bars."""
    return _("0 to {percent} %", percent=f"{100 * scale:.0f}")


def error_cell(kind: Any, message: Any) -> Error | None:  # noqa: ANN401 - texts or pandas' missing values
    """Return the cell of an error, whose texts may be long."""
    if pd.isna(kind) and pd.isna(message):
        return None
    return Error(*(None if pd.isna(text) else _beginning(str(text)) for text in (kind, message)))


def _beginning(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + "…"
