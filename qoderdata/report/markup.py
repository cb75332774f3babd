"""HTML that cannot be broken out of: every text is escaped where an element is made, by construction.

Only `element` makes `Markup`, and it escapes whatever is not `Markup` already; there is no way to put text on
the page as it is. Attributes that run something or fetch something are refused. Knows nothing of reports.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass

from qoderdata.words import one_line

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")
_VOID = frozenset({"img", "link", "meta"})
#: Elements that run something, fetch something or take it in; none has a place here.
_REFUSED = frozenset({"script", "iframe", "object", "embed", "base", "form", "template", "style"})
#: Elements that a line of the file ends with, so that two files can be compared.
_BLOCKS = frozenset({"div", "dl", "figure", "footer", "header", "li", "main", "meta", "nav", "p", "section", "tr"})
_STAYS = re.compile(r"#[a-z-]+|data:(image/png;base64)?,[A-Za-z0-9+/=]*")


@dataclass(frozen=True, slots=True)
class Markup:
    """HTML that is safe as it is.

    Attributes
    ----------
    html : str
        The HTML.
    """

    html: str


#: What may stand in an element: text, which is escaped; other elements; nothing; or several of these.
Child = Markup | str | None | Iterable["Child"]


def element(name: str, /, *children: Child, **attributes: str | int | None) -> Markup:
    r"""Make an element.

    Parameters
    ----------
    name
        Of the element.
    *children
        What stands in it. Text is escaped; control characters and marks that turn the direction of writing
        become ``�``.
    **attributes
        Its attributes; ``_`` in a name stands for ``-``, one at the end is dropped. ``None`` leaves it out.

    Returns
    -------
    Markup
        The element.

    Raises
    ------
    ValueError
        The element or attribute could run or fetch something.

    Examples
    --------
    >>> element("p", "<b>", element("b", "bold"), class_="a&b").html
    '<p class="a&amp;b">&lt;b&gt;<b>bold</b></p>\n'
    """
    if name in _REFUSED or not _NAME.fullmatch(name):
        raise ValueError(f"no element {name!r} is made here")
    opening = "".join(
        _attribute(key.removesuffix("_").replace("_", "-"), str(value))
        for key, value in attributes.items()
        if value is not None
    )
    end = "\n" if name in _BLOCKS else ""
    if name in _VOID:
        return Markup(f"<{name}{opening}>{end}")
    return Markup(f"<{name}{opening}>{join(*children).html}</{name}>{end}")


def join(*children: Child) -> Markup:
    """Put several things next to each other.

    Parameters
    ----------
    *children
        As of `element`.

    Returns
    -------
    Markup
        One after the other.

    Examples
    --------
    >>> join("a < b", None, [element("i", "c")]).html
    'a &lt; b<i>c</i>'
    """
    return Markup("".join(_html(child) for child in children))


def _html(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child.html
    if isinstance(child, str):
        return html.escape(_clean(child))
    return join(*child).html


def _clean(text: str) -> str:
    """Make text harmless for those who read it too; blanks at its ends may part it from its neighbours."""
    if not text.strip():
        return text[:0] or " " * bool(text)
    return " " * text[0].isspace() + one_line(text) + " " * text[-1].isspace()


def _attribute(key: str, value: str) -> str:
    if not _NAME.fullmatch(key) or key.startswith("on") or key in {"style", "srcdoc"}:
        raise ValueError(f"no attribute {key!r} is made here")
    if key in {"href", "src"} and not _STAYS.fullmatch(value):
        raise ValueError(f"{key}={value!r:.60} would leave the page")
    return f' {key}="{html.escape(_clean(value))}"'
