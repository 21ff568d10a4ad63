"""The page at ``/``: static files that use the API like any other client."""

from pathlib import Path

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse

FOLDER = Path(__file__).parent / "page"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FILES = {"/": FOLDER / "index.html"} | {
    f"/page/{file.name}": file
    for file in sorted(FOLDER.iterdir())
    if file.suffix in TYPES and file.suffix != ".html"
}
HEADERS = {
    "cache-control": "no-cache",
    # Only the page's own scripts and styles, none inline: a model's output stays text.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def show_page(app: FastAPI) -> None:
    """Add the routes of the page; they are not in the API's description."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return file("/")

    @app.get("/page/{name}", include_in_schema=False)
    async def asset(name: str) -> FileResponse:
        return file(f"/page/{name}")


def file(path: str) -> FileResponse:
    """A file of ``FILES``; raises a 404 for any other path."""
    if path not in FILES:
        raise HTTPException(404)
    found = FILES[path]
    return FileResponse(found, headers=HEADERS, media_type=TYPES[found.suffix])
