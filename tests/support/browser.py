"""A real browser, Chromium, found or installed, and the requests and console errors of a visit to a page."""

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.support.debian import find_or_install

TIMEOUT_SECONDS = 60
"""The maximum wait for an expected state, also on a busy machine. Only failing tests wait this long."""

_DEBIAN_PACKAGE = "chromium"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS = (
    "--headless",
    # Containers seldom allow the sandbox's system calls, and the pages are the project's own.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    # The browser must send no requests but those of the pages.
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Containers have little shared memory.
    "--disable-dev-shm-usage",
)
_REFUSAL = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")
_REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`violates ${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
"""


class BrowserError(Exception):
    """The browser is missing. The message says how to install it."""


def ensure_chromium() -> Path:
    """Return the path of Chromium, installing Debian's package if needed and allowed.

    Raise ``BrowserError`` with install instructions if it cannot be found or installed.
    """
    program = find_or_install(_DEBIAN_PACKAGE, _find_chromium)
    if program is None:
        message = f"No browser found: install {_DEBIAN_PACKAGE} (Debian) or Google Chrome, and put it in PATH."
        raise BrowserError(message)
    return program


def _find_chromium() -> Path | None:
    found = filter(None, map(shutil.which, _NAMES))
    return next(map(Path, found), None)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Yield a headless Chromium with an empty profile.

    While it runs, an event loop counts as running in this thread, so no other loop can run in it.
    """
    program = ensure_chromium()
    expect.set_options(timeout=TIMEOUT_SECONDS * 1000)
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=program, args=_OPTIONS) as browser,
    ):
        yield browser


@dataclass(frozen=True)
class Visit:
    """A page in a fresh browser, with all its requests and console errors."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    refusals: Counter[tuple[int, str]] = field(default_factory=Counter)
    """The number of error responses by status and path. The browser logs each of them to the console."""

    def settle(self) -> None:
        """Process the browser's pending events, which Playwright delivers only during a call to the browser."""
        self.page.evaluate("null")

    def hosts(self) -> set[str]:
        """Return the hosts of all requests, without those that stay in the browser (``data:``, ``blob:``)."""
        return {parts.netloc for parts in map(urlsplit, self.requests) if parts.netloc}

    def note(self, message: ConsoleMessage) -> None:
        """Record an error or a warning of the console; count a failed request separately."""
        refusal = _REFUSAL.match(message.text)
        if refusal is not None:
            self.refusals[int(refusal[1]), urlsplit(message.location["url"]).path] += 1
        elif message.type in {"error", "warning", "assert"}:
            self.complaints.append(message.text)


@contextmanager
def visiting(browser: Browser, url: str) -> Iterator[Visit]:
    """Yield a visit to a server. Paths are relative to its URL.

    The console reports violations of the page's Content-Security-Policy, inline ones too.
    """
    with browser.new_context(base_url=url) as context:
        context.set_default_timeout(TIMEOUT_SECONDS * 1000)
        context.add_init_script(_REPORT_VIOLATIONS)
        visit = Visit(page=context.new_page())
        context.on("request", lambda request: visit.requests.append(request.url))
        # Playwright sets attributes on the object of a bound method, and a Visit is frozen.
        context.on("console", lambda message: visit.note(message))  # noqa: PLW0108
        context.on("weberror", lambda error: visit.complaints.append(str(error.error)))
        yield visit
