"""Tests of the escaping of formulas in CSV: text that a spreadsheet would run is escaped, and can be restored."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoderdata.export import _BREAKS, _SEPARATORS, _SKIPPED, _STARTS, cells, escape

#: Characters that some program takes for the start of a formula.
STARTS = "=+-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\x00"
SEPARATORS = ";\t\r\n"
#: Characters that some program skips in front of a formula.
SKIPPED = " '\"\xa0\u3000\u200b\ufeff\u202e\x0b"

texts = st.one_of(
    st.text(st.sampled_from(STARTS + SEPARATORS + SKIPPED + "a1(,")), st.text(st.characters(codec="utf-8"))
)

_ESCAPED = re.compile(rf"\A'(?={_SKIPPED}{_BREAKS})|(?:\A|(?<={_SEPARATORS}))'(?={_SKIPPED}{_STARTS})")


def unescape(text: str) -> str:
    """Return the text that `escape` was given."""
    return _ESCAPED.sub("", text)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("=1+1", "'=1+1"),
        ("+49 30 1234", "'+49 30 1234"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\uff1d1\uff0b1", "'\uff1d1\uff0b1"),
        ("\uff0b1", "'\uff0b1"),
        ("\uff0d1", "'\uff0d1"),
        ("\uff20SUM(A1)", "'\uff20SUM(A1)"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("\nx", "'\nx"),
        ("\0x", "'\0x"),
        ("  =1+1", "'  =1+1"),
        ('"=1+1"', '\'"=1+1"'),
        ("'=1+1", "''=1+1"),
        ("\u200b=1+1", "'\u200b=1+1"),
        ("\ufeff=1+1", "'\ufeff=1+1"),
        ("a;=1+1", "a;'=1+1"),
        ("a\t=1+1", "a\t'=1+1"),
        ("a\n=1+1", "a\n'=1+1"),
        ("a\r\n\n=1+1", "a\r\n\n'=1+1"),
        ("", ""),
        ("'", "'"),
        ("'tis", "'tis"),
        ("a = b - c @ d", "a = b - c @ d"),
        ("a;b", "a;b"),
        ("line\nline", "line\nline"),
        ("2026-06-15", "2026-06-15"),
        ('[-1,"=x"]', '[-1,"=x"]'),
    ],
)
def test_escape_adds_an_apostrophe_where_a_formula_starts(text: str, escaped: str) -> None:
    assert escape(text) == escaped
    assert unescape(escaped) == text


@given(texts)
def test_unescape_restores_every_text(text: str) -> None:
    assert unescape(escape(text)) == text


@given(texts)
def test_no_escaped_cell_starts_a_formula(text: str) -> None:
    """Also where a program splits at a semicolon or tab, and skips characters other than the apostrophe."""
    escaped = escape(text)
    assert not escaped.startswith(("\t", "\r", "\n", "\0"))
    for cell in escaped.translate(str.maketrans(SEPARATORS, "\n" * len(SEPARATORS))).split("\n"):
        bare = cell.lstrip(SKIPPED.replace("'", ""))
        assert not bare.startswith(tuple(STARTS))


@given(st.lists(st.none() | texts))
def test_cells_of_an_array_are_escaped_as_texts_are(column: list[str | None]) -> None:
    """Arrow's regular expression matches the same texts as Python's."""
    array = pa.array(column, pa.large_string())
    expected = [None if text is None else escape(text) for text in column]
    assert cells(array, name="name", safe=True).to_pylist() == expected
