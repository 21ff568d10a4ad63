"""Writing files so that they are never seen half written, and where those of the machine go."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile


def write_atomically(path: Path, content: str | bytes) -> None:
    """The file is the old one or the whole new one; its directory is made where it is missing."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        file.write(data)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


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
