"""The page around the sections: head, policy, style, title, contents.

The policy lets the browser do nothing but draw: no script, no request, no style but the one whose digest it
names.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from qoderdata.report.markup import Markup, element

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qoderdata.report.markup import Child


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the page.

    Attributes
    ----------
    anchor : str
        What a link to it says.
    title : str
        Its heading.
    blocks : sequence
        What stands in it.
    count : str or None
        What the contents say behind its title, such as how many findings there are.
    """

    anchor: str
    title: str
    blocks: Sequence[Child]
    count: str | None = None


def page(*, title: str, head: Sequence[Child], sections: Sequence[Section], foot: Child) -> str:
    """Write the whole page.

    Parameters
    ----------
    title
        Of the document.
    head
        What stands above the contents.
    sections
        The sections, in their order.
    foot
        What stands last.

    Returns
    -------
    str
        An HTML document.
    """
    css = resources.files(__package__ or "").joinpath("style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    document = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=policy),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="referrer", content="no-referrer"),
            element("meta", name="color-scheme", content="light dark"),
            element("title", title),
            element("link", rel="icon", href="data:,"),
            Markup(f"<style>{css}</style>"),
        ),
        element(
            "body",
            element("header", *head),
            _contents(sections),
            element("main", [_section(section) for section in sections]),
            element("footer", foot),
        ),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{document.html}\n"


def _contents(sections: Sequence[Section]) -> Markup:
    links = [
        element(
            "li",
            element(
                "a",
                section.title,
                [" ", element("span", section.count, class_="count")] if section.count else None,
                href=f"#{section.anchor}",
            ),
        )
        for section in sections
    ]
    return element("nav", element("ul", links), aria_label="Contents")


def _section(section: Section) -> Markup:
    heading = f"{section.anchor}-title"
    return element(
        "section",
        element("h2", section.title, id=heading),
        *section.blocks,
        id=section.anchor,
        aria_labelledby=heading,
    )
