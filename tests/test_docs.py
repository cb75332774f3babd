"""Tests of the documentation: code on its pages, links, completeness, and its pages in a browser.

``make docs`` builds the pages; ``make test-docs`` builds and tests them.
"""

from __future__ import annotations

import contextlib
import doctest
import functools
import http.server
import inspect
import io
import json
import os
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit

import click
import pytest

import qoderdata
from qoderdata import cli, schema
from qoderdata.sandbox import Sandbox
from tests.browser import page_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SITE = DOCS / "_build" / "html"
#: A base URL to resolve links with; it has no server.
BASE = "http://site.invalid/"
#: Pages with code that were written by hand; the others are generated from the package and the notebooks.
WRITTEN_PAGES = sorted(
    path
    for path in DOCS.rglob("*.md")
    if not {"_build", "gallery"} & set(path.relative_to(DOCS).parts) and "```" in path.read_text(encoding="utf-8")
)
_FENCE = re.compile(
    r"^(?:% not run: (?P<reason>[^\n]+)\n)?```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
#: Blocks of these languages are run; others, such as text and yaml, are not.
_LANGUAGES = {"python", "pycon", "sh"}


def blocks(path: Path) -> list[tuple[str, str]]:
    """Return language and code of each block of a page that is run."""
    found = _FENCE.finditer(path.read_text(encoding="utf-8"))
    return [(one["language"], one["code"]) for one in found if one["language"] in _LANGUAGES and not one["reason"]]


# -- code ---------------------------------------------------------------------------------------------------------


def run_python(code: str, language: str, names: dict[str, Any], page: str) -> None:
    """Run a block with the names of the blocks before it; check the output of one with prompts."""
    if language == "python":
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(code, page, "exec"), names)  # noqa: S102 - a page of this repository
        return
    test = doctest.DocTestParser().get_doctest(code, names, page, page, 0)
    output: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, verbose=False)
    runner.run(test, out=output.append, clear_globs=False)
    names.update(test.globs)
    assert runner.summarize(verbose=False).failed == 0, "".join(output)
    assert test.examples


@pytest.mark.filterwarnings("ignore:this is a sandbox")
@pytest.mark.parametrize("path", WRITTEN_PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_python_code_of_each_page_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    for language, code in blocks(path):
        if language != "sh":
            run_python(code, language, names, path.name)


def test_script_for_slack_posts_text_that_notifies_nobody() -> None:
    codes = [code for _, code in blocks(DOCS / "howto" / "cron-and-ci.md") if "SLACK_WEBHOOK_URL" in code]
    assert len(codes) == 1
    posted: list[dict[str, str]] = []

    class Webhook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Webhook) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        environment = os.environ | {"SLACK_WEBHOOK_URL": f"http://127.0.0.1:{server.server_address[1]}/"}
        text = "<!channel> & 夜间 failed 3 times in a row"
        subprocess.run([sys.executable, "-c", codes[0]], input=text.encode(), env=environment, check=True)
        thread.join()
    assert posted == [{"text": "```\n&lt;!channel&gt; &amp; 夜间 failed 3 times in a row```"}]


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Serve a sandbox of edition D whose clock is the current time, and return its environment variables.

    It is small, and all pages have one cache, since the commands keep to the service's rate limit.
    """
    cache = tmp_path_factory.mktemp("cache")
    with Sandbox(deployments=20, seed=7, now=datetime.now(UTC), edition="D") as sandbox:
        yield {
            "QODER_ACCESS_TOKEN": sandbox.pat,
            "QODER_BASE_URL": sandbox.base_url,
            "QODERDATA_CACHE_DIR": str(cache),
        }


@pytest.mark.parametrize(
    "path",
    [path for path in WRITTEN_PAGES if "sh" in dict(blocks(path))],
    ids=lambda path: path.relative_to(DOCS).as_posix(),
)
def test_commands_of_each_page_run(path: Path, tmp_path: Path, account: dict[str, str]) -> None:
    """Exit code 1 means that a command found something."""
    environment = os.environ | account | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    lines = [line for language, code in blocks(path) if language == "sh" for line in code.splitlines()]
    assert lines
    for line in lines:
        done = subprocess.run(  # noqa: S602 - a page of this repository
            line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode in {0, 1}, f"{line}\n{done.stderr}"
        assert done.returncode == 0 or "qoderdata" in line


def test_blocks_that_are_not_run_state_a_reason() -> None:
    found = [
        (path.name, one["reason"])
        for path in WRITTEN_PAGES
        for one in _FENCE.finditer(path.read_text(encoding="utf-8"))
        if one["reason"]
    ]
    assert sorted(found) == [
        ("cron-and-ci.md", "writes to the reader's home folder"),
        ("dask-and-spark.md", "needs Java; `make test-spark` runs the same calls"),
        ("index.md", "the token is an example"),
        ("object-stores.md", "needs a bucket"),
        ("object-stores.md", "needs a bucket"),
        ("offline.md", "serves until it is interrupted"),
        ("proxy.md", "the proxy is an example"),
        ("watch.md", "fills the terminal until it is ended"),
    ]


# -- pages --------------------------------------------------------------------------------------------------------


class PageParser(HTMLParser):
    """Collect the ids, the links and the text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag
        for key, value in attrs:
            if key in {"id", "name"} and value:
                self.ids.add(value)
            elif key in {"href", "src"} and value:
                self.links.add(value)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


@pytest.fixture(scope="module")
def pages() -> dict[str, PageParser]:
    if not (SITE / "index.html").exists():
        pytest.fail("there is no site; build it first: make docs")
    files = [path.relative_to(SITE) for path in sorted(SITE.rglob("*.html"))]
    return {file.as_posix(): PageParser(SITE / file) for file in files if file.parts[0] != "_static"}


def test_targets_of_links_and_anchors_exist(pages: dict[str, PageParser]) -> None:
    broken = []
    for name, page in pages.items():
        for link in page.links:
            target = urlsplit(urljoin(BASE + name, link))
            if target.hostname != urlsplit(BASE).hostname:
                continue
            path = unquote(target.path).lstrip("/")
            is_there = (SITE / path).is_file()
            has_anchor = not target.fragment or path not in pages or unquote(target.fragment) in pages[path].ids
            if not is_there or not has_anchor:
                broken.append((name, link))
    assert broken == []
    assert sum(len(page.links) for page in pages.values()) > 1000


PUBLIC = [name for name in dir(qoderdata) if name not in {"__version__", "errors"}]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_page(name: str, pages: dict[str, PageParser]) -> None:
    page = pages[f"reference/api/{name}.html"]
    assert f"qoderdata.{name}" in page.ids
    assert f"reference/api/{name}.html" in linked_from("reference/api/index.html", pages)
    public = getattr(qoderdata, name)
    for parameter in inspect.signature(public).parameters:
        assert parameter in page.text
    assert ">>>" in page.text


def linked_from(name: str, pages: dict[str, PageParser]) -> set[str]:
    return {urlsplit(urljoin(BASE + name, link)).path.lstrip("/") for link in pages[name].links}


def test_sandbox_and_exceptions_are_described(pages: dict[str, PageParser]) -> None:
    assert "qoderdata.sandbox.Sandbox" in pages["reference/api/Sandbox.html"].ids
    exceptions = [
        kind
        for kind in vars(qoderdata.errors).values()
        if inspect.isclass(kind) and issubclass(kind, Exception) and kind.__module__ == "qoderdata.errors"
    ]
    assert len(exceptions) > 15
    described = pages["reference/api/errors.html"]
    assert [kind.__name__ for kind in exceptions if f"qoderdata.errors.{kind.__name__}" not in described.ids] == []


def commands(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield a command and its subcommands, each with its words."""
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, (*path, name))


COMMANDS = [(path, command) for path, command in commands(cli.commands) if path]


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])
def test_every_command_has_a_page_with_all_options(
    path: tuple[str, ...], command: click.Command, pages: dict[str, PageParser]
) -> None:
    page = pages[f"reference/command/{path[0]}.html"]
    assert f"qoderdata {' '.join(path)}" in page.text
    options = [one for one in command.params if isinstance(one, click.Option)]
    for option in options:
        assert f"cmdoption-qoderdata-{'-'.join(path)}-{option.opts[0].lstrip('-')}" in page.ids
        assert option.help is None or " ".join(option.help.replace("`", "").split()) in page.text
    assert f"reference/command/{path[0]}.html" in linked_from("reference/command/index.html", pages)


def test_every_exit_code_is_described(pages: dict[str, PageParser]) -> None:
    shown = pages["reference/command/exit-codes.html"].text
    context = click.Context(cli.commands, info_name="qoderdata")
    codes = re.findall(r"^  (\d+) +(\S.*)$", cli.commands.get_help(context), re.MULTILINE)
    assert [code for code, _ in codes] == ["0", "1", "2", "3", "4", "5", "130"]
    assert [(code, meaning) for code, meaning in codes if f"{code} {meaning}" not in shown] == []


def test_every_column_is_described(pages: dict[str, PageParser]) -> None:
    shown = pages["reference/columns.html"].text
    for table in (
        schema.DEPLOYMENTS,
        schema.RUNS,
        schema.SESSIONS,
        schema.EVENTS,
        schema.AGENTS,
        schema.ENVIRONMENTS,
    ):
        assert [
            column.name
            for column in table.columns
            if column.name not in shown or column.meaning.split("`")[0] not in shown
        ] == []


def test_glossary_has_all_terms(pages: dict[str, PageParser]) -> None:
    words = ["deployment", "agent", "environment", "run", "session", "trigger"]
    words += ["decided", "missed", "certain", "assumed", "credit"]
    assert [word for word in words if f"term-{word}" not in pages["glossary.html"].ids] == []


# -- a browser ----------------------------------------------------------------------------------------------------


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def address(pages: dict[str, PageParser]) -> Iterator[str]:
    """Serve the site on loopback."""
    assert pages
    handler = functools.partial(_Files, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.fixture(params=[("light", 1280), ("dark", 390)], ids=["desktop light", "phone dark"])
def page(request: pytest.FixtureRequest, chromium: Browser) -> Iterator[Page]:
    scheme, width = request.param
    with page_of(chromium, viewport={"width": width, "height": 800}, color_scheme=scheme) as opened:
        yield opened


def record_problems(page: Page, address: str) -> list[str]:
    """Return a list to which errors on the console, requests to other hosts and failed requests are added."""
    problems: list[str] = []

    def record_message(message: ConsoleMessage) -> None:
        if message.type == "error":
            problems.append(f"{page.url}: {message.text}")

    def record_request(request: Request) -> None:
        if not request.url.startswith((address, "data:")):
            problems.append(f"{page.url}: request {request.url}")

    def record_response(response: Response) -> None:
        if response.status >= 400:
            problems.append(f"{page.url}: {response.status} {response.url}")

    page.on("console", record_message)
    page.on("pageerror", lambda error: problems.append(f"{page.url}: error {error}"))
    page.on("request", record_request)
    page.on("response", record_response)
    return problems


#: Return the texts of a page that extend beyond the screen and cannot be scrolled to.
CUT_OFF_SCRIPT = """
() => [...document.querySelectorAll("article p, article li, article dt, article td, article pre, article h1")]
  .filter(one => one.getBoundingClientRect().right > window.innerWidth + 1)
  .filter(one => {
    for (let box = one; box && box.tagName !== "ARTICLE"; box = box.parentElement) {
      if (["auto", "scroll"].includes(getComputedStyle(box).overflowX)) {
        return box.getBoundingClientRect().right > window.innerWidth + 1;
      }
    }
    return true;
  })
  .map(one => one.textContent.trim().slice(0, 40))
"""


def test_every_page_opens_without_an_error(page: Page, address: str, pages: dict[str, PageParser]) -> None:
    """No error on the console, no request to another host, no missing file; and the page fits the screen."""
    problems = record_problems(page, address)
    for name in pages:
        page.goto(address + name, wait_until="load")
        if not page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"):
            problems.append(f"{name} is wider than the screen")
        problems += [f"{name}: cut off: {text}" for text in page.evaluate(CUT_OFF_SCRIPT)]
        if not page.evaluate("[...document.images].every(one => !one.complete || one.naturalWidth > 0)"):
            problems.append(f"{name}: a picture is broken")
    assert problems == []


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("failure_rates", "reference/api/failure_rates.html"),
        ("cost agent team", "howto/agent-cost.html"),
        ("what did an agent cost last week by team", "howto/agent-cost.html"),
        ("crontab", "howto/cron-and-ci.html"),
        ("proxy", "howto/proxy.html"),
        ("RateLimitError", "reference/api/errors.html"),
    ],
)
def test_search_finds_the_page(words: str, found: str, page: Page, address: str) -> None:
    """Open the start page, press Ctrl+K, type, and press Enter."""
    page.goto(address)
    page.keyboard.press("Control+k")
    page.keyboard.type(words)
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=*")
    page.wait_for_selector(f"#search-results a[href*='{found}']", timeout=10_000)
    results = page.eval_on_selector_all("#search-results li > a", "all => all.map(one => one.href)")
    assert found in " ".join(results[:5])
