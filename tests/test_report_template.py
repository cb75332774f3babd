"""Tests of the template of a report: untrusted text cannot leave its element."""

from __future__ import annotations

import re
from importlib import resources

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoderdata.report.page import environment
from tests.test_report import Reader

HOSTILE = st.text(
    st.one_of(st.sampled_from("<>&\"'/=! \t\n\0\x1b\u202e\ud800-`{}%"), st.characters(exclude_categories=()))
)
TEMPLATE = resources.files("qoderdata.report").joinpath("report.html.j2").read_text(encoding="utf-8")


def render(source: str, **values: object) -> str:
    return environment().from_string(source).render(values)


@given(HOSTILE, HOSTILE)
def test_hostile_text_stays_in_its_element_and_attribute(text: str, attribute: str) -> None:
    html = render('<p title="{{ attribute }}">before {{ text }} after</p>', text=text, attribute=attribute)
    seen = Reader(html)
    assert [(tag, list(attributes)) for tag, attributes in seen.elements] == [("p", ["title"])]
    assert re.fullmatch("before .* after", seen.text)
    html.encode()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("\"'&", "&#34;&#39;&amp;"),
        ("two\nlines\tand tab", "two lines and tab"),
        ("a \u202egpj.exe", "a �gpj.exe"),
        ("\x00\x1b[31m", "��[31m"),
        ("\ud83d", "�"),
        ("报告 الفواتير 👩\u200d💻", "报告 الفواتير 👩\u200d💻"),
        ("{{ 7 * 7 }}", "{{ 7 * 7 }}"),
        ("", ""),
        (7, "7"),
        (None, "–"),
    ],
)
def test_values_are_escaped_and_cleaned(value: object, shown: str) -> None:
    assert render("{{ value }}", value=value) == shown


def test_undefined_value_raises_undefined_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="nowhere"):
        render("{{ nowhere }}")


def test_template_has_no_unescaped_values_and_no_scripts() -> None:
    """Every value is escaped, every attribute is quoted, and nothing runs or is fetched."""
    assert not re.search(r"\|\s*safe|autoescape|Markup", TEMPLATE)
    assert not re.findall(r"=\s*{{", TEMPLATE)
    assert not re.search(r"<(script|iframe|object|embed|base|form|template|img)", TEMPLATE)
    assert not re.search(r"\s(on\w+|style|srcdoc|src)=", TEMPLATE)
    assert set(re.findall(r'href="([^"]*)"', TEMPLATE)) == {"data:,", "#{{ tile.anchor }}"}
