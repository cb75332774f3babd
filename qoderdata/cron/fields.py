"""The grammar of a cron text: which numbers each of its five fields matches.

Strict: what the service would refuse, or what implementations read differently, is an error and not a guess.
Leaves to `schedule` what the numbers mean together.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: Everything that a cron text may be made of. Its length is bounded because it comes from elsewhere.
_TEXT = re.compile(r"[0-9A-Za-z*,/ \t-]{1,1000}")
_SHOWN = 80

#: One item of a comma-separated list: `*`, `a` or `a-b`, each with an optional step.
_ITEM = re.compile(
    r"(?:(?P<star>\*)|(?P<first>[0-9]{1,4}|[A-Z]{3})(?:-(?P<last>[0-9]{1,4}|[A-Z]{3}))?)(?:/(?P<step>[0-9]{1,4}))?"
)


class CronError(ValueError):
    """A cron text that cannot be read or never fires, or a zone that does not exist."""


class Field(NamedTuple):
    """What one of the five fields may hold: whole numbers, or names that count up from the least one."""

    name: str
    least: int
    largest: int
    names: tuple[str, ...] = ()


FIELDS = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of month", 1, 31),
    Field("month", 1, 12, ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")),
    Field("day of week", 0, 7, ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")),
)


def split(expression: str) -> list[str]:
    """Cut a cron text into the texts of its five fields, in upper case.

    Parameters
    ----------
    expression
        The cron text.

    Returns
    -------
    list of str
        Minute, hour, day of month, month, day of week.

    Raises
    ------
    CronError
        It is no text, has other characters than a cron text, or not five fields.

    Examples
    --------
    >>> split("0 9 * * mon-fri")
    ['0', '9', '*', '*', 'MON-FRI']
    """
    if not isinstance(expression, str):
        raise CronError(f"{expression!r} is not a cron text")
    if not _TEXT.fullmatch(expression):
        raise CronError(f"{expression[:_SHOWN]!r} is not a cron text: write digits, names and * , / - only")
    texts = expression.upper().split()
    if len(texts) != len(FIELDS):
        raise CronError(f"{expression[:_SHOWN]!r} is not a cron text: it has {len(texts)} fields, not five")
    return texts


def values(text: str, field: Field) -> tuple[int, ...]:
    """List what one field matches.

    Parameters
    ----------
    text
        The field's text, in upper case.
    field
        Which field it is.

    Returns
    -------
    tuple of int
        Ascending, without duplicates.

    Raises
    ------
    CronError
        Not a list of numbers, names, ranges and steps, or one that is out of bounds or runs backwards.

    Examples
    --------
    >>> values("5/20,*/30", FIELDS[0])
    (0, 5, 25, 30, 45)
    """
    found: set[int] = set()
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise CronError(f"{item[:_SHOWN]!r} is no {field.name}, no range of them and no step")
        step = int(match["step"] or 1)
        if step == 0:
            raise CronError(f"the {field.name} {item!r} has a step of 0")
        first = field.least if match["star"] else _number(match["first"], field)
        # `*`, and a step without a range, run to the field's end.
        is_open = match["star"] or (match["step"] and not match["last"])
        last = field.largest if is_open else _number(match["last"] or match["first"], field)
        if first > last:
            raise CronError(f"the range {item!r} of the {field.name} runs backwards")
        found.update(range(first, last + 1, step))
    return tuple(sorted(found))


def _number(word: str, field: Field) -> int:
    if word in field.names:
        return field.names.index(word) + field.least
    if not word.isdigit() or not field.least <= int(word) <= field.largest:
        raise CronError(f"{word!r} is no {field.name} ({field.least} to {field.largest})")
    return int(word)
