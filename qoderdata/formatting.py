"""Format values for people: text that is safe in one line, shares, lengths of time, and times with their zone.

Text from the service is untrusted until it has passed `one_line`: it may hold line breaks, escape sequences of
a terminal, or marks that turn the direction of what follows.
"""

from __future__ import annotations

import math
import unicodedata
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, TypeGuard, TypeVar
from zoneinfo import ZoneInfo

from qoderdata.translation import gettext as _
from qoderdata.translation import mark

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

T = TypeVar("T", bound="str | float | timedelta | datetime")

#: Stands where there is no value: missing is not zero.
MISSING = "–"

#: Units of time, with their lengths in seconds.
_SECOND = mark("s")
_UNITS = ((mark("d"), 86400), (mark("h"), 3600), (mark("min"), 60), (_SECOND, 1))
#: How many code points of a text are read for each column when it is cut: a message may have 100,000.
_MOST_CODE_POINTS = 4
_ELLIPSIS = "…"
#: The most texts that a warning names, and the most columns of each.
_NAMED = 10
_NAMED_COLUMNS = 80
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
#: Unicode categories of characters that can control a terminal or change the direction of what follows.
UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINERS = frozenset("\u200c\u200d")
_ID_TAIL, _LONGEST_TAIL = 4, 16


def one_line(text: str | float | None) -> str:
    r"""Return text that is safe to show in one line; a missing value becomes `MISSING`.

    White space and line breaks become single blanks; control characters, direction marks and unassigned characters
    become ``�``.

    Examples
    --------
    >>> one_line("nightly\n report \x1b[31m")
    'nightly report �[31m'
    """
    if not _is_known(text):
        return MISSING
    line = " ".join(str(text).split())
    return line if line.isprintable() else "".join(map(_printable, line))


def _printable(character: str) -> str:
    if character not in _JOINERS and unicodedata.category(character) in UNPRINTABLE:
        return _REPLACEMENT
    return character


def make_distinct(names: Sequence[str], ids: Sequence[str]) -> list[str]:
    """Return names; append the end of the id to a name that several ids share, as long as needed to differ.

    Examples
    --------
    >>> make_distinct(["nightly", "hourly", "nightly"], ["dep_1a2b", "dep_1c2d", "dep_1e2f"])
    ['nightly ·1a2b', 'hourly', 'nightly ·1e2f']
    """
    ids_of: dict[str, dict[str, str]] = defaultdict(dict)
    for name, id_ in zip(names, ids, strict=True):
        ids_of[name][id_] = ""
    for same in ids_of.values():
        if len(same) > 1:
            same.update(zip(same, _distinct_tails(list(same)), strict=True))
    return [f"{name}{ids_of[name][id_]}" for name, id_ in zip(names, ids, strict=True)]


def _distinct_tails(ids: list[str]) -> list[str]:
    """Return the ends of different ids that make them differ; numbers if those would be long."""
    for length in range(_ID_TAIL, _LONGEST_TAIL + 1):
        tails = [one_line(id_[-length:]) for id_ in ids]
        if len(set(tails)) == len(ids):
            return [f" ·{tail}" for tail in tails]
    return [f" ·{number}" for number in range(1, len(ids) + 1)]


def display_width(text: str) -> int:
    """Return how many columns of a terminal a line takes: two for a wide character, none for a combining mark.

    Examples
    --------
    >>> display_width("报告 ok")
    7
    """
    if text.isascii() and text.isprintable():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415 - as pandas in _is_known

    return cell_len(text)


def truncate(text: str, columns: int) -> str:
    """Cut the end of a line that takes more columns than these, and mark the cut by ``…``.

    Examples
    --------
    >>> truncate("nightly report", 8)
    'nightly…'
    """
    if display_width(text) <= columns:
        return text
    return "".join(_fitting(_characters(text[: _MOST_CODE_POINTS * columns]), columns - 1)) + _ELLIPSIS


def truncate_middle(text: str, columns: int) -> str:
    """Cut the middle of a line that takes more columns than these: names often differ only at one end.

    Examples
    --------
    >>> truncate_middle("weekly-report-for-the-board-of-directors", 20)
    'weekly-repor…rectors'
    """
    if display_width(text) <= columns:
        return text
    tail_columns, most = (columns - 1) * 2 // 5, _MOST_CODE_POINTS * columns
    head = _fitting(_characters(text[:most]), columns - 1 - tail_columns)
    tail = _fitting(_characters(text[-most:])[::-1], tail_columns)[::-1]
    return "".join([*head, _ELLIPSIS, *tail])


def _characters(text: str) -> list[str]:
    """Split a text into characters as they are seen: with their combining marks, or joined as some emoji are."""
    if text.isascii():
        return list(text)
    from rich.cells import split_graphemes  # noqa: PLC0415 - as pandas in _is_known

    return [text[start:end] for start, end, _ in split_graphemes(text)[0]]


def _fitting(characters: Sequence[str], columns: int) -> list[str]:
    """Return the first characters that fit into a number of columns."""
    kept, used = [], 0
    for character in characters:
        used += display_width(character)
        if used > columns:
            break
        kept.append(character)
    return kept


def format_percent(share: float | None) -> str:
    """Format a share as a percentage with one digit; only 0 is shown as 0.0 %, and only 1 as 100.0 %.

    Examples
    --------
    >>> [format_percent(share) for share in (0.125, 0, 0.0002, 0.9998, None)]
    ['12.5 %', '0.0 %', '<0.1 %', '>99.9 %', '–']
    """
    return _("{percent} %", percent=_percentage(share)) if _is_known(share) else MISSING


def format_interval(low: float | None, high: float | None) -> str:
    """Format an interval of shares as percentages, each as `format_percent` does.

    Examples
    --------
    >>> format_interval(0.042, 0.21), format_interval(0.0002, 0.0008)
    ('4.2–21.0 %', '<0.1–0.1 %')
    """
    if _is_known(low) and _is_known(high):
        return _("{low}–{high} %", low=_percentage(low), high=_percentage(high))
    return MISSING


def _percentage(share: float) -> str:
    text = f"{100 * share:.1f}"
    if text == "0.0" and share > 0:
        return "<0.1"
    return ">99.9" if text == "100.0" and share < 1 else text


def first_few(texts: Sequence[str]) -> str:
    """Return at most ten texts, such as ids, that are safe to print, and how many more there are.

    Examples
    --------
    >>> first_few([f"dep_{number}" for number in range(12)])
    'dep_0, dep_1, dep_2, dep_3, dep_4, dep_5, dep_6, dep_7, dep_8, dep_9 and 2 more'
    """
    shown = _(", ").join(truncate(one_line(text), _NAMED_COLUMNS) for text in texts[:_NAMED])
    left = len(texts) - _NAMED
    return _("{names} and {count} more", count=f"{left:,}", names=shown) if left > 0 else shown


def counted(number: int, noun: str) -> str:
    """Return a number with its noun in English, in the plural unless it is 1.

    Examples
    --------
    >>> counted(1, "run"), counted(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def is_or_are(number: float) -> str:
    """Return the English verb that goes with a number."""
    return "is" if number == 1 else "are"


def format_count(number: int | None) -> str:
    """Format a whole number; a missing one is not 0.

    Examples
    --------
    >>> format_count(12345), format_count(None)
    ('12,345', '–')
    """
    return f"{number:,}" if _is_known(number) else MISSING


def format_credits(number: float | None) -> str:
    """Format credits as the service does, with two decimals; a missing number is not 0.

    Examples
    --------
    >>> format_credits(1234.5), format_credits(None)
    ('1,234.50', '–')
    """
    return f"{number:,.2f}" if _is_known(number) else MISSING


def format_duration(length: timedelta | None) -> str:
    """Format a length of time with its two largest units.

    Examples
    --------
    >>> from datetime import timedelta
    >>> format_duration(timedelta(hours=3, minutes=20, seconds=7)), format_duration(timedelta(milliseconds=1500))
    ('3 h 20 min', '1.5 s')
    >>> format_duration(timedelta(milliseconds=40))
    '40 ms'
    """
    return _format_seconds(length.total_seconds()) if _is_known(length) else MISSING


def format_milliseconds(count: float | None) -> str:
    """Format milliseconds as `format_duration` does, however many there are.

    Examples
    --------
    >>> format_milliseconds(9300), format_milliseconds(2**62)
    ('9.3 s', '53375995583 d 15 h')
    """
    return _format_seconds(float(count) / 1000) if _is_known(count) and math.isfinite(count) else MISSING


def _format_seconds(seconds: float) -> str:
    if seconds < 0:
        return "-" + _format_seconds(-seconds)
    thousandths, tenths, whole = round(1000 * seconds), round(10 * seconds), round(seconds)
    if 0 < thousandths < 1000:  # noqa: PLR2004 - a second
        return _("{count} ms", count=thousandths)
    if tenths < 100:  # noqa: PLR2004 - a digit below ten seconds
        return f"{tenths / 10:g} {_(_SECOND)}"
    for (unit, size), (smaller, part) in pairwise(_UNITS):
        if whole >= size:
            rest = whole % size // part
            large = f"{whole // size} {_(unit)}"
            return f"{large} {rest} {_(smaller)}" if rest else large
    return f"{whole} {_(_SECOND)}"


def format_time(time: datetime | None, tz: str = "UTC") -> str:
    """Format an instant to the minute, with its offset from UTC.

    A time that has no local time in years 1 to 9999 is written in UTC.

    Examples
    --------
    >>> from datetime import datetime
    >>> time = datetime.fromisoformat("2026-06-15T01:00Z")
    >>> format_time(time, "Asia/Shanghai"), format_time(time)
    ('2026-06-15 09:00 +08:00', '2026-06-15 01:00 UTC')
    """
    import pandas as pd  # noqa: PLC0415 - see _is_known

    if not _is_known(time):
        return MISSING
    # pandas refuses a time without a zone; Python would take it for the machine's own.
    stamp = pd.Timestamp(time).tz_convert("UTC")
    try:
        text = stamp.to_pydatetime(warn=False).astimezone(ZoneInfo(tz)).isoformat(" ", "minutes")
    except (OverflowError, ValueError):
        text, tz = stamp.isoformat(" ", "minutes"), "UTC"
    # The offset of a time in a former century may have seconds, which are left out.
    return f"{text[:-6]} UTC" if tz == "UTC" else f"{text[:16]} {text[16:22]}"


def _is_known(value: T | None) -> TypeGuard[T]:
    import pandas as pd  # noqa: PLC0415 - slow to import, and few calls are made where it is not there already

    return not pd.isna(value)
