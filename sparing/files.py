"""Decode text, read JSON, write files atomically, and find the folders for state and cache."""

import codecs
import json
import os
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from sparing.errors import ModelError

MARKS = {  # the longer ones first: UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def decode_text(data: bytes) -> str:
    """Text in UTF-8, or in what its byte order mark says; raises ValueError for anything else."""
    encoding = next((e for mark, e in MARKS.items() if data.startswith(mark)), "utf-8")
    text = data.decode(encoding)
    if "\0" in text:
        raise ValueError("zero bytes")
    return text


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that it is either the old or the new one; makes its directory."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        file.write(data)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one if there is no file. Raises ModelError."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(f"{path} must be JSON, got: {error}; fetch it again") from None
    if not isinstance(found, dict):
        raise ModelError(
            f"{path} must hold a JSON object, got {type(found).__name__}; fetch it again"
        )
    return found


def state_folder() -> Path:
    """`$XDG_STATE_HOME/sparing`, else `~/.local/state/sparing`."""
    root = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(root).expanduser() / "sparing"


def cache_folder() -> Path:
    """`$SPARING_CACHE`, else `$XDG_CACHE_HOME/sparing`, else `~/.cache/sparing`."""
    if own := os.environ.get("SPARING_CACHE"):
        return Path(own).expanduser()
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "sparing"
