"""A picture of the page after a run, as the README shows it.

``python -m tests.server.page.picture results/page.png`` serves pocket and asks it; ``--url`` takes
a server that runs already, ``--phone``, ``--dark`` and ``--whole`` other views.
"""

import argparse
from contextlib import nullcontext
from typing import Any

from tests.server.page.browsing import DESKTOP, PHONE, chromium, visit

SETTLE_MS = 400  # for bars that move


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--url")
    parser.add_argument("--question")
    parser.add_argument("--budget", default="160")
    parser.add_argument("--draft", default="hybrid")
    parser.add_argument("--most", default="2048")
    parser.add_argument("--during", type=int, help="tokens of the first run, then the picture")
    for name in ("phone", "dark", "whole", "alone"):
        parser.add_argument(f"--{name}", action="store_true")
    given = parser.parse_args()
    with serving(given.url) as url, chromium() as browser:
        scheme = "dark" if given.dark else "light"
        size = PHONE if given.phone else DESKTOP
        with visit(browser, url, size, color_scheme=scheme) as seen:
            seen.ready().switch(compare=not given.alone)
            seen.ask(given.question, budget=given.budget, draft=given.draft, most=given.most)
            if given.during:
                seen.page.wait_for_selector(f"[data-at='{given.during}']")
            else:
                seen.ended().page.wait_for_timeout(SETTLE_MS)
            seen.page.screenshot(path=given.path, full_page=given.whole)
            print(*seen.complaints, sep="\n")


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
