"""The page's files as they are served: from here alone, nothing inline, nothing else."""

import re
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path

import pytest

import sparing
from sparing.server.settings import ServerConfig
from sparing.server.static import FILES, FOLDER
from tests.server.live import live
from tests.tiny import engine, tiny

ROOT = Path(sparing.__file__).parents[1]


@pytest.fixture(scope="module")
def locked():
    """A server that asks for a key."""
    with live(engine(tiny()), ServerConfig(api_key="k")) as found:
        yield found


@pytest.mark.parametrize("path", FILES)
def test_a_file_is_open_to_all_and_runs_no_other_script(locked, path):
    reply = locked.ask("GET", path)
    assert reply.status == 200
    assert reply.body == FILES[path].read_bytes()
    kind = {".html": "html", ".css": "css", ".js": "javascript", ".svg": "svg"}[FILES[path].suffix]
    assert kind in reply.headers["content-type"]
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/page/", "/page/none.js", "/page/index.html", "/page/../app.py", "/page/..%2fapp.py"]
)
def test_nothing_else_is_given(locked, path):
    assert locked.ask("GET", path, authorization="Bearer k").status == 404


def test_whatever_is_no_file_of_the_page_needs_the_key(locked):
    for path in ("/page/none.js", "/v1/models", "/v1/examples", "/v1/runs/x", "/openapi.json"):
        assert locked.ask("GET", path).status == 401


def test_the_page_is_no_part_of_the_api(locked):
    paths = locked.ask("GET", "/openapi.json", authorization="Bearer k").json["paths"]
    assert not [path for path in paths if path == "/" or path.startswith("/page")]


class Inline(HTMLParser):
    """What a page has within itself that should be in files, and where its files are."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.files: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.files += [v for k, v in attrs if k in ("src", "href") and v]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.found.append(tag)
        self.found += [name for name in given if name == "style" or name.startswith("on")]


def test_nothing_is_inline_and_all_files_are_there():
    page = Inline()
    page.feed((FOLDER / "index.html").read_text())
    assert page.found == []
    assert page.files
    assert set(page.files) <= {*FILES, "/openapi.json", "/metrics"}


def test_no_file_names_another_host_or_writes_html():
    for file in FOLDER.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import", text), file
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)


def test_modules_import_what_is_there():
    for file in FOLDER.glob("*.js"):
        for name in re.findall(r'from "\./([^"]+)"', file.read_text()):
            assert f"/page/{name}" in FILES, (file.name, name)


def test_every_file_is_in_the_package():
    text = (ROOT / "pyproject.toml").read_text()
    [patterns] = re.findall(r"^sparing = \[(.*)\]$", text, re.MULTILINE)
    for file in FOLDER.iterdir():
        name = str(file.relative_to(ROOT / "sparing"))
        assert any(fnmatch(name, pattern) for pattern in re.findall(r'"([^"]+)"', patterns)), name
