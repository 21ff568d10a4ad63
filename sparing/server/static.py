"""What a browser is given at ``/``: plain files, which ask the API as anybody else does."""

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
    # Its own scripts and styles alone, none of them inline: whatever a model says stays text.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def show_page(app: FastAPI) -> None:
    """The routes of the page. They are no part of the API, so its description leaves them out."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return file("/")

    @app.get("/page/{name}", include_in_schema=False)
    async def asset(name: str) -> FileResponse:
        return file(f"/page/{name}")


def file(path: str) -> FileResponse:
    """One of ``FILES``; anything else is not there."""
    if path not in FILES:
        raise HTTPException(404)
    found = FILES[path]
    return FileResponse(found, headers=HEADERS, media_type=TYPES[found.suffix])
