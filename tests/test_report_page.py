"""Tests of the form of a report: texts are escaped, nothing is fetched, and the page can be read in a browser."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import pytest
from matplotlib.image import imread
from pypdf import PdfReader

from qoderdata.frames import flatten_deployments, flatten_runs, flatten_sessions
from qoderdata.report import folded_sections
from qoderdata.report.page import write_report
from qoderdata.sandbox import Sandbox
from tests.browser import WatchedPage, page_of
from tests.test_report import SECRET, Reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

CSS = resources.files("qoderdata.report").joinpath("report.css").read_text(encoding="utf-8")
#: Names that would run code or change the page if they were not escaped.
HOSTILE = [
    "<script>window.hacked = 1; alert(1)</script>",
    "\"><img src=x onerror='window.hacked = 2'>",
    "</title></style></table><script src=https://evil.invalid/x.js></script>",
    "'); window.hacked = 3; //",
    "<svg/onload=window.hacked=4><iframe src=//evil.invalid>",
    "report \u202egnp.exe\u202c with \x00 and \x1b[31m",
    "<link rel=stylesheet href=https://evil.invalid/x.css>",
    "<meta http-equiv=refresh content='0;url=https://evil.invalid'>",
    "a" * 3000,
    "周报汇总 تدقيق الفواتير 🚀",
    "&lt;b&gt; &amp; {{7*7}} ${7*7}",
]


@cache
def hostile() -> tuple[pd.DataFrame, pd.DataFrame, pd.Timestamp]:
    """Return frames with a hostile text wherever the page shows a text, and the time of the report."""
    with Sandbox(deployments=60, seed=7) as sandbox:
        names = itertools.cycle(HOSTILE)
        ids: dict[str, str] = {}
        deployments = [
            {
                **record,
                "id": ids.setdefault(record["id"], f"{next(names)} {number}" if number % 7 == 0 else record["id"]),
                "name": next(names),
                "description": next(names),
                "agent": {"type": "agent", "id": next(names), "version": 1},
                "environment_variables": {"KEY": SECRET},
            }
            for number, record in enumerate(sandbox.deployments)
        ]
        for record in deployments[::5]:
            record["status"] = "paused"
            record["paused_reason"] = {"type": "error", "error": {"type": next(names)}}
        runs = [
            {
                **record,
                "deployment_id": ids[record["deployment_id"]],
                "error": record["error"] and {"type": next(names), "message": next(names)},
            }
            for record in sandbox.runs
        ]
        now = pd.Timestamp(sandbox.now)
    frames = flatten_deployments(deployments), flatten_runs(runs)
    for frame in frames:
        frame.attrs = {"source": HOSTILE[0], "fetched_at": f"{now - pd.Timedelta('3D')}", "complete": False}
    return *frames, now


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    deployments, runs, now = hostile()
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(deployments, path, runs=runs, start=now)
    return path


@pytest.fixture(scope="module")
def page(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


class TestPage:
    """Tests of the HTML of a page made of hostile texts."""

    def test_nothing_runs_and_nothing_is_fetched(self, page: Reader, path: Path) -> None:
        tags = {tag for tag, _ in page.elements}
        assert not tags & {"script", "iframe", "object", "embed", "base", "form"}
        addresses = [
            value for _, attributes in page.elements for key, value in attributes.items() if key in {"src", "href"}
        ]
        assert {str(address) for address in addresses if not str(address).startswith("#")} == {"data:,"}
        assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", path.read_text(encoding="utf-8"))
        assert not [
            key for _, attributes in page.elements for key in attributes if key.startswith("on") or key == "style"
        ]

    def test_content_security_policy_allows_only_the_style_sheet(self, page: Reader) -> None:
        digest = base64.b64encode(hashlib.sha256(CSS.encode()).digest()).decode()
        (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv")]
        assert policy == (
            f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
        )
        assert "@import" not in CSS
        assert "url(" not in CSS

    def test_every_hostile_name_is_shown_as_text(self, page: Reader) -> None:
        for name in HOSTILE:
            words = " ".join(name.split()).translate({0x202E: "�", 0x202C: "�", 0: "�", 0x1B: "�"})
            shown = words if len(words) <= 80 else words[:79] + "…"
            # Names that are equal after they were cut are followed by the end of the id.
            assert any(text == shown or text.startswith(f"{shown} ·") for text in page.words)

    def test_secrets_are_not_on_the_page(self, page: Reader) -> None:
        assert SECRET not in "".join(page.words)
        assert not [attributes for _, attributes in page.elements if SECRET in str(attributes)]

    def test_page_has_language_viewport_and_ordered_headings(self, page: Reader) -> None:
        assert page.all("html") == [{"lang": "en"}]
        assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
        assert [tag for tag, _ in page.elements if tag in {"h1", "h2", "h3"}] == [
            "h1",
            *["h2"] * 5,
            *["h3"] * FOLDED,
        ]

    def test_links_lead_to_ids_on_the_page(self, page: Reader) -> None:
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert {str(link["href"])[1:] for link in page.all("a")} <= set(ids)
        assert all(section["aria-labelledby"] in ids for section in page.all("section"))

    def test_tables_have_captions_scopes_and_labels(self, page: Reader) -> None:
        assert len(page.all("caption")) == len(page.all("table")) >= 8
        assert {cell.get("scope") for cell in page.all("th")} == {"col", "row"}
        assert all(cell.get("data-label") or "heat-" in str(cell["class"]) for cell in page.all("td"))

    def test_picture_is_inline_and_described_in_words(self, page: Reader) -> None:
        (picture,) = [svg for svg in page.all("svg") if svg.get("role") == "img"]
        title, description = str(picture["aria-labelledby"]).split()
        assert page.texts[title] == "Failure rate and runs of the last 30 days"
        assert page.texts[description].startswith("Over all ")
        assert "The worst day is" in page.texts[description]
        assert len(page.all("text")) > 10
        assert not page.all("image")
        assert not page.all("img")

    def test_colours_come_from_the_style_sheet(self, page: Reader) -> None:
        """A colour set on an element would be wrong in dark mode."""
        assert not [found for _, found in page.elements if {"fill", "stroke", "style"} & set(found)]
        shapes = {found["class"] for tag in ("rect", "path") for found in page.all(tag)}
        assert shapes == {"recent", "failed", "other", "axis", "span", "rate", "dot"}
        assert all(f".picture .{name} {{" in CSS for name in shapes)
        shades = {str(found.get("class")) for found in page.all("td") if "heat-" in str(found.get("class"))}
        assert "heat-9" in shades
        assert all(f".{name} {{" in CSS for name in shades)


def test_same_input_gives_the_same_file(path: Path, tmp_path: Path) -> None:
    deployments, runs, now = hostile()
    before = deployments.copy(deep=True), runs.copy(deep=True)
    write_report(deployments, tmp_path / "x.html", runs=runs, start=now)
    assert (tmp_path / "x.html").read_bytes() == path.read_bytes()
    pd.testing.assert_frame_equal(deployments, before[0])
    pd.testing.assert_frame_equal(runs, before[1])


def _luminance(colour: str) -> float:
    """Return the relative luminance of ``#rrggbb``, as WCAG 2.2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "ground"),
    [
        *itertools.product(("ink", "soft", "bad"), ("ground", "card")), ("ink", "heat"), ("ink", "recent"),
        ("accent", "ground"), ("bad", "bad-ground"), ("ink", "calm-ground"), ("caution", "caution-ground"),
    ],
)  # fmt: skip
def test_contrast_of_text_is_at_least_4_5_to_1(mode: int, ink: str, ground: str) -> None:
    """WCAG requires this of small text."""
    palette = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", re.findall(r":root \{([^}]*)\}", CSS)[mode]))
    darker, lighter = sorted([_luminance(palette[ink]), _luminance(palette[ground])])
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5


SCREENS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1200, "height": 900}},
    "tablet": {"viewport": {"width": 800, "height": 1100}},
    "phone": {"viewport": {"width": 390, "height": 844}},
    "desktop, dark": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"},
}


@pytest.fixture(params=SCREENS)
def browser(request: pytest.FixtureRequest, chromium: Browser, path: Path) -> Iterator[WatchedPage]:
    with page_of(chromium, **SCREENS[request.param]) as page:
        yield WatchedPage(page, path)


OPEN_ALL = "for (const part of document.querySelectorAll('details')) part.open = true"
#: The folded parts of a page that has everything: each function that returns a section makes one.
FOLDED = sum(
    getattr(part, "__annotations__", {}).get("return") == "Section" for part in vars(folded_sections).values()
)
FITS_WIDTH = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"


def test_page_works_in_a_browser(browser: WatchedPage, request: pytest.FixtureRequest) -> None:
    """No text is executed, nothing is fetched, the page fits screen and paper, and tables keep their roles."""
    page, screen = browser.page, request.node.callspec.params["browser"]
    assert page.title().startswith("Scheduled agents")
    assert page.evaluate("window.hacked") is None
    assert page.evaluate(FITS_WIDTH)
    text = page.locator("figure text").first
    assert text.evaluate("text => getComputedStyle(text).fill") == (
        "rgb(232, 230, 225)" if screen == "desktop, dark" else "rgb(29, 34, 38)"
    )
    assert text.evaluate("text => getComputedStyle(text).fontFamily").startswith("system-ui")

    page.evaluate(OPEN_ALL)
    assert page.evaluate(FITS_WIDTH)
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == ("rgb(21, 24, 27)" if screen == "desktop, dark" else "rgb(247, 246, 242)")
    table = page.locator("#failing")
    display = table.locator("tbody tr").first.evaluate("row => getComputedStyle(row).display")
    assert display == ("block" if screen == "phone" else "table-row")
    assert page.get_by_role("table").count() >= 7
    row = table.get_by_role("row").nth(1)
    assert [row.get_by_role(role).count() for role in ("rowheader", "cell")] == [1, 4]

    page.emulate_media(media="print")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert page.evaluate("window.hacked") is None
    assert browser.events == []


@pytest.fixture(scope="module")
def fleets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the page of a sandbox of 250 deployments in each language, with every part that a page can have."""
    with Sandbox(deployments=250, seed=7) as sandbox:
        frames = flatten_deployments(sandbox.deployments), flatten_runs(sandbox.runs)
        sessions, now = flatten_sessions(sandbox.sessions), pd.Timestamp(sandbox.now)
    then = frames[0].drop(index=range(0, 250, 20)).reset_index(drop=True)
    then.loc[::15, "schedule_expression"] = "59 23 31 12 *"
    then.attrs = {"fetched_at": f"{now - pd.Timedelta('7D')}"}
    folder = tmp_path_factory.mktemp("fleet")
    for lang in ("en", "zh"):
        path = folder / f"{lang}.html"
        write_report(frames[0], path, runs=frames[1], sessions=sessions, snapshots=[then], start=now, lang=lang)
    return {lang: folder / f"{lang}.html" for lang in ("en", "zh")}


@pytest.fixture
def fleet(fleets: dict[str, Path]) -> Path:
    return fleets["en"]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_folded_page_fits_on_two_sheets(fleets: dict[str, Path], chromium: Browser, lang: str) -> None:
    """The limits are 2,600 pixels and two numbered sheets while nothing is unfolded."""
    assert fleets[lang].stat().st_size < 2**20
    with page_of(chromium, viewport={"width": 1280, "height": 900}) as opened:
        browser = WatchedPage(opened, fleets[lang])
        page = browser.page
        assert page.evaluate("document.documentElement.lang") == {"en": "en", "zh": "zh-CN"}[lang]
        assert page.evaluate("document.documentElement.scrollHeight") <= 2600
        titles = page.locator("main summary h3").all_inner_texts()
        first = page.locator("main section h2").all_inner_texts()
        assert len(titles) == FOLDED
        sheets = words_on_sheets(page)
        assert [f"{number}/2" in text for number, text in enumerate(sheets, start=1)] == [True, True]
        assert unspaced(first[0]) in sheets[0]
        assert unspaced(first[4]) in sheets[1]
        assert unspaced(titles[1]) not in "".join(sheets)
        assert browser.events == []


def test_only_unfolded_parts_are_printed(fleet: Path, chromium: Browser) -> None:
    with page_of(chromium, viewport={"width": 1280, "height": 900}) as opened:
        browser = WatchedPage(opened, fleet)
        page = browser.page
        titles = page.locator("main summary h3").all_inner_texts()
        page.locator("main summary h3").nth(1).click()
        assert page.locator("#rates").is_visible()
        sheets = words_on_sheets(page)
        assert unspaced(titles[1]) in "".join(sheets)
        assert unspaced(titles[6]) not in "".join(sheets)
        assert browser.events == []


def test_bold_texts_are_bold_in_fonts_with_two_weights() -> None:
    """Browsers make a regular font bold, such as one for Chinese on Linux, from a weight of more than 600 on."""
    weights = {int(weight) for weight in re.findall(r"font-weight: (\d+)", CSS)}
    assert max(weights) > 600
    assert not [weight for weight in weights if 500 < weight <= 600]


def words_on_sheets(page: Page) -> list[str]:
    """Print the page on A4, and return the text of each sheet without spaces."""
    sheets = PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True))).pages
    assert {round(float(sheet.mediabox.width)) for sheet in sheets} == {595}
    return [unspaced(sheet.extract_text()) for sheet in sheets]


def unspaced(text: str) -> str:
    return "".join(text.split())


def test_page_has_roles_and_names_for_screen_readers(fleet: Path, chromium: Browser) -> None:
    """Landmarks, heading levels, names of sections and tables; the link of a figure opens its folded part."""
    with page_of(chromium) as page:
        WatchedPage(page, fleet)
        assert [page.get_by_role(role).count() for role in ("banner", "main", "contentinfo")] == [1, 1, 1]
        levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(one => Number(one.tagName[1]))")
        assert levels == [1, *[2] * 6, *[3] * FOLDED]
        assert page.get_by_role("region", name="What to do first").count() == 1
        assert (
            page.get_by_role("table", name="Failure rates by group, those that surely fail most first").count()
            == 1
        )
        assert page.get_by_role("img", name="Failure rate and runs of the last 30 days").count() == 1
        assert not page.locator("#failing").is_visible()
        page.get_by_role("link", name="Failing now").click()
        assert page.locator("#failing").is_visible()


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("width", [320, 360])
def test_narrow_phone_does_not_scroll_sideways(
    fleets: dict[str, Path], chromium: Browser, lang: str, width: int
) -> None:
    """The longest texts of changes and rates fit too."""
    with page_of(chromium, viewport={"width": width, "height": 700}) as page:
        WatchedPage(page, fleets[lang])
        page.evaluate(
            """() => {
                for (const cell of document.querySelectorAll(".overview :is(.badge, td.number:not(:has(.badge)))"))
                    cell.textContent = cell.textContent.replace(/[0-9.]+( ?%| )/, "100.0$1");
            }"""
        )
        assert page.locator(".overview .badge").count() >= 5
        assert page.evaluate(FITS_WIDTH)


def test_phone_shows_the_newest_days_of_the_picture(fleet: Path, chromium: Browser) -> None:
    with page_of(chromium, viewport={"width": 360, "height": 844}) as page:
        WatchedPage(page, fleet)
        frame = page.locator(".newest-first").bounding_box()
        assert frame is not None

        def are_inside(shapes: str) -> list[bool]:
            boxes = [shape.bounding_box() or {"x": -1.0, "width": 0.0} for shape in page.locator(shapes).all()]
            end = frame["x"] + frame["width"]
            return [frame["x"] <= box["x"] and box["x"] + box["width"] <= end for box in boxes]

        inside = are_inside("rect.other")
        assert inside[-7:] == [True] * 7
        assert inside[0] is False
        assert are_inside("figure text[text-anchor=end]") == [True] * 3


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_labels_of_the_picture_are_whole_on_every_screen(
    fleets: dict[str, Path], chromium: Browser, lang: str
) -> None:
    """A narrow screen shows the end of the picture, and cuts no label there, nor a large number of runs."""
    with page_of(chromium) as page:
        WatchedPage(page, fleets[lang])
        page.evaluate(
            """() => {
                for (const text of document.querySelectorAll("svg.picture text"))
                    if (/^[1-9][0-9,]*$/.test(text.textContent)) text.textContent = "999,999";
            }"""
        )
        for width in (320, 360, 390, 447, 449, 500, 575, 577, 640, 703, 705, 800, 961, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            labels = page.evaluate(
                """() => {
                    const frame = document.querySelector(".newest-first").getBoundingClientRect();
                    const end = document.querySelector("svg.picture").getBoundingClientRect().right;
                    return [...document.querySelectorAll("svg.picture text")].map(text => {
                        const box = text.getBoundingClientRect();
                        const isCut = box.left < frame.left + 1 && box.right > frame.left || box.right > end;
                        return [text.textContent, isCut, box.right > frame.left];
                    });
                }"""
            )
            assert [text for text, is_cut, _ in labels if is_cut] == [], width
            assert sum(is_visible for _, _, is_visible in labels) >= 9, width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_shadow_is_where_more_of_the_picture_is(
    fleet: Path, chromium: Browser, scheme: Literal["light", "dark"]
) -> None:
    with page_of(chromium, color_scheme=scheme) as page:
        WatchedPage(page, fleet)

        def has_shadows() -> list[bool]:
            """Return whether the left and the right edge of the frame differ in color from its inside."""
            image = imread(io.BytesIO(page.locator(".newest-first").screenshot()))
            row = image[-12]  # below the labels, above the round corners
            return [bool(abs(row[at] - row[len(row) // 2]).max() > 0.03) for at in (3, -4)]

        page.set_viewport_size({"width": 500, "height": 900})
        assert has_shadows() == [True, False]
        page.evaluate("document.querySelector('.newest-first').scrollLeft -= 90")
        assert has_shadows() == [True, True]
        page.evaluate("document.querySelector('.newest-first').scrollLeft -= 9000")
        assert has_shadows() == [False, True]
        page.set_viewport_size({"width": 1280, "height": 900})
        assert has_shadows() == [False, False]


def test_phone_shows_the_second_lines_of_headings(fleet: Path, chromium: Browser) -> None:
    """They are the scale of bars, what is expected, and the warning about intervals."""
    with page_of(chromium, viewport={"width": 500, "height": 900}) as page:
        WatchedPage(page, fleet)
        page.evaluate(OPEN_ALL)
        for part in ("rates", "all-costs", "errors"):
            headings = page.locator(f"#{part} thead th").evaluate_all(
                "all => all.slice(1).map(one => one.textContent.replace(/\\s+/g, ' '))"
            )
            labels = (
                page.locator(f"#{part} tbody tr")
                .first.locator("td")
                .evaluate_all(
                    "all => all.map(one => getComputedStyle(one, '::before').content.replace(/\"/g, ''))"
                )
            )
            assert [label.replace(" · ", " ") for label in labels] == headings
            assert "·" in "".join(labels)


@pytest.mark.parametrize("width", [390, 800])
def test_dates_are_not_broken_across_lines(fleet: Path, chromium: Browser, width: int) -> None:
    """Each date, with its time if it has one, is on one line, also in a narrow column."""
    with page_of(chromium, viewport={"width": width, "height": 844}) as page:
        WatchedPage(page, fleet)
        page.evaluate(OPEN_ALL)
        lines = page.evaluate(
            """() => {
                const lines = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
                while (walker.nextNode()) {
                    const text = walker.currentNode;
                    if (text.parentElement.closest("svg")) continue;
                    for (const day of text.data.matchAll(/[0-9]{4}-[0-9]{2}-[0-9]{2}( [0-9:]+ UTC)?/g)) {
                        const range = document.createRange();
                        range.setStart(text, day.index);
                        range.setEnd(text, day.index + day[0].length);
                        lines.push(range.getClientRects().length);
                    }
                }
                return lines;
            }"""
        )
        assert len(lines) > 100
        assert set(lines) == {1}


def test_phone_does_not_break_badges_or_cut_off_figures(fleet: Path, chromium: Browser) -> None:
    with page_of(chromium, viewport={"width": 390, "height": 844}) as page:
        WatchedPage(page, fleet)
        lines = page.locator(".overview > section > table .badge").evaluate_all(
            """badges => badges.map(badge => {
                badge.textContent = "unchanged";
                const range = document.createRange();
                range.selectNodeContents(badge);
                return range.getClientRects().length;
            })"""
        )
        assert set(lines) == {1}
        ends = page.locator(".tiles .figure").evaluate_all(
            """figures => figures.map(figure => {
                figure.textContent = "12,345,678,901.23";
                const range = document.createRange();
                range.selectNodeContents(figure);
                const tiles = figure.closest(".tiles").getBoundingClientRect();
                return range.getBoundingClientRect().right <= tiles.right;
            })"""
        )
        assert ends == [True] * 6


@pytest.mark.parametrize("width", [320, 420, 1280])
def test_no_percentage_is_broken_before_its_sign(fleet: Path, chromium: Browser, width: int) -> None:
    with page_of(chromium, viewport={"width": width, "height": 1000}) as page:
        WatchedPage(page, fleet)
        lines = page.locator("h1, p, li, dd").evaluate_all(
            r"""elements => {
                const lines = [];
                for (const element of elements) {
                    const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
                    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
                        for (const match of node.data.matchAll(/\d %/g)) {
                            const range = document.createRange();
                            range.setStart(node, match.index);
                            range.setEnd(node, match.index + 3);
                            const tops = [...range.getClientRects()].filter(box => box.width).map(box => box.top);
                            lines.push(new Set(tops).size);
                        }
                    }
                }
                return lines;
            }"""
        )
        assert lines
        assert set(lines) <= {0, 1}
        assert 1 in lines
