r"""What a spreadsheet would take for a formula, and the apostrophe that makes it text again.

A cell is a formula when it starts with ``=``, ``+``, ``-`` or ``@``; programs differ in what they skip before
looking (spaces, quotes, an apostrophe, invisible characters), and East Asian versions take the full-width
forms too. A tab or a line break at the start is skipped by some and starts a new cell in others. And a program
that takes ``;`` or a tab for the separator, as much of Europe's do, sees further cells inside a text. So an
apostrophe goes before whatever looks dangerous at the start of a text, after ``;``, after a tab or after a line
break.

Nothing is lost: a text that looks as if it had been escaped already is escaped once more, so `unescape` gives
every text back.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Callable

_MARK = "'"
#: Skipped by one program or another before it looks: quotes, controls, spaces, invisible characters.
_SKIPPED = (
    r"""['"\x01-\x08\x0b\x0c\x0e-\x20\x7f-\xa0\xad"""
    "\u061c\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]*"
)
#: Starts a formula, or hides what follows (NUL). Full-width and small forms are what East Asian versions take.
_STARTS = "[=+@\\-\\x00\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b]"
_SEPARATORS = r"[;\t\r\n]"
_BREAKS = r"[\t\r\n]"

_AT_START = rf"\A(?={_SKIPPED}{_BREAKS})"
_IN_EACH_CELL = rf"(?:\A|(?<={_SEPARATORS}))(?={_SKIPPED}{_STARTS})"
_ESCAPE = re.compile(f"{_AT_START}|{_IN_EACH_CELL}")
_UNESCAPE = re.compile(rf"\A'(?={_SKIPPED}{_BREAKS})|(?:\A|(?<={_SEPARATORS}))'(?={_SKIPPED}{_STARTS})")
#: The same as `_ESCAPE` for Arrow's regular expressions, which cannot look around; `\x00` is spelt for RE2.
_NEEDS = rf"\A{_SKIPPED}{_BREAKS}|(?:\A|{_SEPARATORS}){_SKIPPED}{_STARTS}"


def escape(text: str) -> str:
    """Put an apostrophe before everything that a spreadsheet could run.

    Parameters
    ----------
    text
        Any text.

    Returns
    -------
    str
        The same text where there is nothing to fear.

    Examples
    --------
    >>> escape("=1+1"), escape("Nightly - report"), escape("a;  =1+1")
    ("'=1+1", 'Nightly - report', "a;'  =1+1")
    """
    return _ESCAPE.sub(_MARK, text)


def unescape(text: str) -> str:
    """Give back the text that `escape` was given.

    Parameters
    ----------
    text
        What `escape` returned.

    Returns
    -------
    str
        The text before.

    Examples
    --------
    >>> unescape("'=1+1"), unescape(escape("'=1+1")), unescape("'tis")
    ('=1+1', "'=1+1", "'tis")
    """
    return _UNESCAPE.sub("", text)


def escape_array(texts: pa.Array[Any]) -> pa.Array[Any]:
    """Escape every text of an Arrow array; missing ones stay missing.

    Parameters
    ----------
    texts
        A string array of any width.

    Returns
    -------
    pyarrow.Array
        An array of the same length and type.
    """
    return replace_some(texts, _NEEDS, escape)


def replace_some(texts: pa.Array[Any], pattern: str, change: Callable[[str], str]) -> pa.Array[Any]:
    """Change those texts that match a pattern, so that the many others never become Python objects.

    Parameters
    ----------
    texts
        A string array of any width.
    pattern
        RE2: which texts are looked at.
    change
        What becomes of one of them.

    Returns
    -------
    pyarrow.Array
        An array of the same length and type.
    """
    matches: Any = pc.match_substring_regex(texts, pattern).fill_null(fill_value=False)
    found = texts.filter(matches).to_pylist()
    if not found:
        return texts
    changed = pa.array([change(str(text)) for text in found], texts.type)
    replaced: pa.Array[Any] = pc.replace_with_mask(texts, matches, changed)
    return replaced
