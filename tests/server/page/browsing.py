"""A browser without a screen: Debian's Chromium, driven by Playwright."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CHROMIUM = shutil.which("chromium")
HOW = (
    "the page is tried in Debian's Chromium, which is not here: "
    "apt-get install --no-install-recommends chromium"
)
# Nothing but the page: no first-run dialogue, no look-ups of its own.
FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE_S = 120
DESKTOP, PHONE = (1280, 900), (390, 844)


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser, from its start to its end."""
    from playwright.sync_api import sync_playwright

    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *as_root])
        yield browser
        browser.close()


@contextmanager
def visit(
    browser: Any, url: str, size: tuple[int, int] = DESKTOP, **context: Any
) -> Iterator["Visit"]:
    """The page at ``url`` in a window of its own; ``context``: color_scheme, reduced_motion, ..."""
    window = browser.new_context(viewport={"width": size[0], "height": size[1]}, **context)
    window.set_default_timeout(PATIENCE_S * 1000)
    page = window.new_page()
    visit = Visit(page)
    page.goto(url)
    yield visit
    window.close()


class Visit:
    """A page that is looked at. ``complaints``: what the browser's console had to say."""

    def __init__(self, page: Any) -> None:
        self.page, self.complaints = page, list[str]()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def count(self, selector: str) -> int:
        return self.page.locator(selector).count()

    def ready(self) -> "Visit":
        """Wait until it knows the model and its examples."""
        self.page.wait_for_selector("#examples button:not([hidden])")
        return self

    def switch(self, **wanted: bool) -> None:
        """Savings by name, and ``compare``."""
        for name, on in wanted.items():
            box = "#compare" if name == "compare" else f"#{name}-on"
            self.page.set_checked(box, on)

    def ask(self, question: str | None = None, **fields: str) -> "Visit":
        """Send the form; ``fields``: budget, policy, draft, most."""
        if question is not None:
            self.page.fill("#question", question)
        for name, value in fields.items():
            if name in ("policy", "draft"):
                self.page.select_option(f"#{name}", value)
            else:
                self.page.fill(f"#{name}", value)
        self.page.click("#go")
        return self

    def ended(self) -> "Visit":
        """Wait until there is nothing to stop any more."""
        self.page.wait_for_selector("#go:not([disabled])")
        return self

    def until(self, script: str, given: Any = None) -> None:
        """Wait until a script is true (Playwright's own way needs eval, which the page forbids)."""
        end = time.monotonic() + PATIENCE_S
        while not self.page.evaluate(script, given):
            assert time.monotonic() < end, script
            self.page.wait_for_timeout(20)
