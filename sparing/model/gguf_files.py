"""The names of GGUF files; `gguf` reads their content."""

import re
from pathlib import Path

SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


def is_gguf(path: Path) -> bool:
    """Whether a model is a GGUF file, by its name."""
    return path.suffix == ".gguf"


def split_paths(path: Path) -> list[Path]:
    """The files of a model, by the name of any of them."""
    found = SPLIT.fullmatch(path.name)
    if not found:
        return [path]
    stem, _, count = found.groups()
    return [path.with_name(f"{stem}-{n:05}-of-{count}.gguf") for n in range(1, int(count) + 1)]
