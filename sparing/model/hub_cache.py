"""The models in the hub's cache, by the names that `--model` takes; imports nothing of the hub."""

import os
from collections.abc import Iterator
from pathlib import Path

from sparing.model.hub import models, type_of


def cached_models() -> dict[str, Path]:
    """``org/name`` for safetensors, ``org/name:TYPE`` for a GGUF, each with its folder or file."""
    return {name: path for folder in repositories() for name, path in models_in(folder)}


def cache_folder() -> Path:
    """Where the hub keeps downloads."""
    if given := os.environ.get("HF_HUB_CACHE"):
        return Path(given).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{caches}/huggingface"
    return Path(home).expanduser() / "hub"


def repositories() -> list[Path]:
    return sorted(cache_folder().glob("models--*--*"))


def models_in(repository: Path) -> Iterator[tuple[str, Path]]:
    """The models of a repository's current commit."""
    name = repository.name.removeprefix("models--").replace("--", "/", 1)
    try:
        commit = (repository / "refs" / "main").read_text().strip()
    except (OSError, ValueError):
        return
    snapshot = repository / "snapshots" / commit
    if (snapshot / "config.json").exists() and any(snapshot.glob("*.safetensors")):
        yield name, snapshot
        return
    files = sorted(str(path.relative_to(snapshot)) for path in snapshot.rglob("*.gguf"))
    for parts in models(files):
        if all((snapshot / part).exists() for part in parts):
            yield f"{name}:{type_of(parts[0])}", snapshot / parts[0]
