"""A real browser: Chromium, found or installed, and what one visit to a page asked for and complained about."""

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
"""How long the browser waits for what a test expects of it, on a busy machine too: only what fails takes as long."""

_DEBIAN_PACKAGE = "chromium"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS = (
    "--headless",
    # Containers seldom allow what the sandbox is made of, and the pages are our own.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    # It is to ask for nothing but what the pages ask for.
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # The shared memory of containers is small.
    "--disable-dev-shm-usage",
)
_REFUSAL = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")
_REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`violates ${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
"""


class BrowserError(Exception):
    """No browser is here; the message says what to do."""


def ensure_chromium() -> Path:
    """Find Chromium, or install Debian's package of it where that is allowed.

    Raises ``BrowserError`` that says what to install where neither works.
    """
    program = find_or_install(_DEBIAN_PACKAGE, _find_chromium)
    if program is None:
        message = f"No browser here: install {_DEBIAN_PACKAGE} (Debian) or Google Chrome, so that it is in PATH."
        raise BrowserError(message)
    return program


def _find_chromium() -> Path | None:
    found = filter(None, map(shutil.which, _NAMES))
    return next(map(Path, found), None)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Chromium without a window and with an empty profile.

    While it runs, an event loop counts as running in this thread, so that no other can be run in it.
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
    """A page in a browser that knows nothing yet, and all that it asked for and complained about since."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    refusals: Counter[tuple[int, str]] = field(default_factory=Counter)
    """How often an answer was an error, by status and path; the browser complains of those by itself."""

    def settle(self) -> None:
        """Hear what the browser has told until now: it is listened to only while it is asked something."""
        self.page.evaluate("null")

    def hosts(self) -> set[str]:
        """Where requests went to; those that stay in the browser (``data:``, ``blob:``) went nowhere."""
        return {parts.netloc for parts in map(urlsplit, self.requests) if parts.netloc}

    def note(self, message: ConsoleMessage) -> None:
        """Remember an error or a warning of the console, a refused request apart from the others."""
        refusal = _REFUSAL.match(message.text)
        if refusal is not None:
            self.refusals[int(refusal[1]), urlsplit(message.location["url"]).path] += 1
        elif message.type in {"error", "warning", "assert"}:
            self.complaints.append(message.text)


@contextmanager
def visiting(browser: Browser, url: str) -> Iterator[Visit]:
    """A visit to a server; paths are relative to its URL.

    The console tells of violations of the page's Content-Security-Policy, inline ones too.
    """
    with browser.new_context(base_url=url) as context:
        context.set_default_timeout(TIMEOUT_SECONDS * 1000)
        context.add_init_script(_REPORT_VIOLATIONS)
        visit = Visit(page=context.new_page())
        context.on("request", lambda request: visit.requests.append(request.url))
        # Playwright leaves marks on the object of a bound method, and a Visit is frozen.
        context.on("console", lambda message: visit.note(message))  # noqa: PLW0108
        context.on("weberror", lambda error: visit.complaints.append(str(error.error)))
        yield visit
