"""Download models from the Hugging Face hub."""

import re
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from sparing.errors import ModelError
from sparing.model.gguf_files import SPLIT

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
HUB_GGUF = re.compile(r"(\w[\w.-]*/\w[\w.-]*):([\w.-]+)")
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "merges.txt"]
T = TypeVar("T")


def download(name: str) -> Path:
    """Fetch a model; returns its directory, or its GGUF if it has no safetensors."""
    from huggingface_hub import snapshot_download

    folder = Path(
        reached(
            name,
            lambda: snapshot_download(name, allow_patterns=HUB_FILES, ignore_patterns=["*/*"]),
        )
    )
    if any(folder.glob("*.safetensors")):
        return folder
    return download_gguf(name, None) if models_by_type(name) else folder


def download_gguf(name: str, wanted: str | None) -> Path:
    """Fetch a repository's GGUF of a type (``Q4_K_M``), all its files; returns the first.

    ``wanted`` may be None if there is only one model. Raises ModelError with the types there are.
    """
    from huggingface_hub import hf_hub_download

    found = models_by_type(name)
    kinds = list(found) if wanted is None else [k for k in found if k.lower() == wanted.lower()]
    if len(kinds) != 1 or len(found[kinds[0]]) != 1:
        asked = f"{name}:{wanted}" if wanted else name
        raise ModelError(
            f"a hub model must have one GGUF of the given type, {asked} has "
            f"{', '.join(sorted(found)) or 'none'}; pass {name}:TYPE with one of them"
        )
    files = found[kinds[0]][0]
    paths = [reached(name, partial(hf_hub_download, name, file)) for file in files]
    return Path(paths[0])


def models_by_type(name: str) -> dict[str, list[list[str]]]:
    """A repository's models by type, each as a list of its files in order."""
    found: dict[str, list[list[str]]] = defaultdict(list)
    for files in models(sorted(repository_files(name))):
        found[type_of(files[0])].append(files)
    return dict(found)


def models(files: list[str]) -> list[list[str]]:
    """Group GGUF files by model, without the files for vision (mmproj)."""
    found: dict[str, list[str]] = defaultdict(list)
    for file in files:
        name = file.rsplit("/", 1)[-1]
        if name.endswith(".gguf") and not name.startswith("mmproj"):
            split = SPLIT.fullmatch(file)
            found[split.group(1) if split else file].append(file)
    return list(found.values())


def type_of(file: str) -> str:
    """The type in a file's name: ``Q4_K_M`` of ``model-Q4_K_M-00001-of-00002.gguf``."""
    split = SPLIT.fullmatch(file)
    stem = (split.group(1) if split else file.removesuffix(".gguf")).rsplit("/", 1)[-1]
    return re.split(r"[-.](?=[^-.]*$)", stem)[-1].upper()


def repository_files(name: str) -> list[str]:
    """The files of a repository on the hub; offline, those in the local cache."""
    from huggingface_hub import HfApi, constants, snapshot_download

    if constants.HF_HUB_OFFLINE:
        folder = Path(reached(name, lambda: snapshot_download(name, local_files_only=True)))
        return [str(path.relative_to(folder)) for path in folder.rglob("*.gguf")]
    return reached(name, lambda: HfApi().list_repo_files(name))


def reached(name: str, ask: Callable[[], T]) -> T:
    """Call ``ask``; raises ModelError if the hub is unreachable or lacks the model."""
    try:
        return ask()
    except Exception as error:  # the transport below the hub has its own types, which change
        first = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        raise ModelError(
            f"the hub model {name} must be reachable or already downloaded, "
            f"got {type(error).__name__} ({first}); "
            "check the name, the network and HF_TOKEN, or give a local directory"
        ) from error
