"""A picture of the page after a run, as the README shows it.

``python -m tests.server.page.picture results/page.png`` serves pocket, asks it and shows what came;
``--url`` takes a server that runs already, ``--window`` and ``--whole`` show the form too,
``--phone`` and ``--dark`` the page in another width and scheme.
"""

import argparse
from contextlib import nullcontext
from typing import Any

from tests.server.page.browsing import DESKTOP, PHONE, chromium, visit

WARM_UP = "40"  # tokens, so that neither run pays for what is done once
SETTLE_MS = 400  # for bars that move
APART = 1  # Pillow's MAXCOVERAGE: a small mark in a colour of its own keeps it
QUESTION = "How many legs are there in total if you have 13 spiders, 7 cows, 4 chickens, 12 crabs?"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--url")
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--budget", default="160")
    parser.add_argument("--draft", default="hybrid")
    parser.add_argument("--most", default="2048")
    parser.add_argument("--during", type=int, help="tokens of the first run, then the picture")
    for name in ("phone", "dark", "window", "whole", "alone"):
        parser.add_argument(f"--{name}", action="store_true")
    given = parser.parse_args()
    with serving(given.url) as url, chromium() as browser:
        scheme = "dark" if given.dark else "light"
        size = PHONE if given.phone else DESKTOP
        with visit(browser, url, size, color_scheme=scheme) as seen:
            seen.ready().ask(given.question, most=WARM_UP).ended()
            seen.switch(compare=not given.alone)
            seen.ask(given.question, budget=given.budget, draft=given.draft, most=given.most)
            if given.during:
                seen.page.wait_for_selector(f"[data-at='{given.during}']")
            else:
                seen.ended().page.wait_for_timeout(SETTLE_MS)
            if given.window or given.whole:
                seen.page.screenshot(path=given.path, full_page=given.whole)
            else:
                seen.page.locator("#result").screenshot(path=given.path)
            shrink(given.path)
            for complaint in seen.complaints:
                print(complaint)


def shrink(path: str) -> None:
    """A third of the bytes: a palette, of colours as far apart as they come."""
    from PIL import Image

    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(method=APART, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def serving(url: str | None) -> Any:
    """The address of a server, one of our own where none is given."""
    if url:
        return nullcontext(url)
    from contextlib import contextmanager

    from sparing.api import load
    from tests.server.live import live

    @contextmanager
    def ours() -> Any:
        with live(load("pocket")) as server:
            yield server.url

    return ours()


if __name__ == "__main__":
    main()
