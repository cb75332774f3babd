"""Nothing that comes in as text can leave its element, whatever it is."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoderdata.report.markup import Markup, element, join

HOSTILE = st.text(
    st.one_of(st.sampled_from("<>&\"'/=! \t\n\0\x1b\u202e\ud800-`"), st.characters(exclude_categories=()))
)


class Reader(HTMLParser):
    """Notes what a browser would see."""

    def __init__(self, markup: Markup) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(markup.html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@given(HOSTILE, HOSTILE)
def test_text_stays_text(text: str, attribute: str) -> None:
    made = element("p", "before ", text, " after", title=attribute)
    seen = Reader(made)
    assert seen.tags == ["p"]
    assert [name for name, _ in seen.attributes] == ["title"]
    assert seen.text.startswith("before ")
    assert seen.text.endswith(" after\n")
    made.html.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("\"'&", "&quot;&#x27;&amp;"),
        ("two\nlines\tand tab", "two lines and tab"),
        ("a \u202egpj.exe", "a �gpj.exe"),
        ("\x00\x1b[31m", "��[31m"),
        ("\ud83d", "�"),
        ("报告 الفواتير 👩\u200d💻", "报告 الفواتير 👩\u200d💻"),
        (" of ", " of "),
        ("\n", " "),
        ("", ""),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert join(text).html == shown


def test_children() -> None:
    made = element("ul", None, [element("li", "a"), [element("li", number, class_="x") for number in "12"]])
    assert made.html == '<ul><li>a</li>\n<li class="x">1</li>\n<li class="x">2</li>\n</ul>'


def test_attributes() -> None:
    made = element("td", data_label="<a>", class_=None, colspan=2)
    assert made.html == '<td data-label="&lt;a&gt;" colspan="2"></td>'


@pytest.mark.parametrize("name", ["script", "iframe", "style", "base", "form", "p><b", ""])
def test_elements_that_are_never_made(name: str) -> None:
    with pytest.raises(ValueError, match="no element"):
        element(name)


@pytest.mark.parametrize("name", ["onclick", "style", "srcdoc", "a b", "a>"])
def test_attributes_that_are_never_made(name: str) -> None:
    with pytest.raises(ValueError, match="no attribute"):
        element("p", **{name: "x"})


@pytest.mark.parametrize("name", ["href", "src"])
@pytest.mark.parametrize(
    "value",
    ["https://example.com", "//example.com", "javascript:alert(1)", "data:text/html,x", "/x", "#\njavascript:"],
)
def test_nothing_leads_off_the_page(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="would leave the page"):
        element("a", **{name: value})


@pytest.mark.parametrize("value", ["#trend", "data:,", "data:image/png;base64,AAAA=="])
def test_what_stays_on_the_page(value: str) -> None:
    assert element("a", href=value).html == f'<a href="{value}"></a>'
