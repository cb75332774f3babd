"""Chromium for the tests of pages, and a page that records its dialogs, messages, errors and requests."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page, Route

#: The timeout in milliseconds to start Chromium, load a page, or find an element on a busy machine.
TIMEOUT_MS = 120_000
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def _chromium() -> str:
    """Return the path of Chromium; where there is none, fail the test in CI, and skip it elsewhere."""
    chromium = shutil.which("chromium")
    if chromium is None:
        reason = "there is no chromium on this machine; install it (Debian: apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return chromium


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """Run one Chromium for several tests, each of which opens its own context."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_chromium(), args=ARGUMENTS, timeout=TIMEOUT_MS)
        with contextlib.closing(browser):
            yield browser


@contextlib.contextmanager
def page_of(browser: Browser, **options: Any) -> Iterator[Page]:  # noqa: ANN401 - Playwright's
    """Open a page in its own context, which shares no cookies, cache or storage with others."""
    with contextlib.closing(browser.new_context(**options)) as context:
        context.set_default_timeout(TIMEOUT_MS)
        yield context.new_page()


class WatchedPage:
    """A local page in a browser, with a record of its messages and requests.

    Attributes
    ----------
    page : playwright.sync_api.Page
        The page.
    events : list of str
        Dialogs, console messages, errors, and requests other than for the page itself, which are aborted.
    """

    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self.events: list[str] = []
        page.on("dialog", self._dialog)
        page.on("console", lambda message: self.events.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.events.append(f"error: {error}"))
        page.context.route("**/*", lambda route: self._request(route, path.as_uri()))
        page.goto(path.as_uri())

    def _dialog(self, dialog: Any) -> None:  # noqa: ANN401 - Playwright's
        self.events.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, route: Route, address: str) -> None:
        if route.request.url == address:
            route.continue_()
        else:
            self.events.append(f"request: {route.request.url}")
            route.abort()
