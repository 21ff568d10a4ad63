"""Models of the Hugging Face hub: what is there, what of it is fetched, where it lies."""

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
    """A model's directory, or its GGUF where that is all there is, from the hub or its cache."""
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
    """The first file of a repository's GGUF of a type (``Q4_K_M``), all its parts fetched.

    Without a type there must be one model alone. Raises ModelError naming the types there are.
    """
    from huggingface_hub import hf_hub_download

    found = models_by_type(name)
    kinds = list(found) if wanted is None else [k for k in found if k.lower() == wanted.lower()]
    if len(kinds) != 1 or len(found[kinds[0]]) != 1:
        asked = f"{name}:{wanted}" if wanted else name
        raise ModelError(
            f"a hub model must have one GGUF of the type asked for, {asked} has "
            f"{', '.join(sorted(found)) or 'none'}; pass {name}:TYPE with one of them"
        )
    files = found[kinds[0]][0]
    paths = [reached(name, partial(hf_hub_download, name, file)) for file in files]
    return Path(paths[0])


def models_by_type(name: str) -> dict[str, list[list[str]]]:
    """Models of a repository by type, each as its files in order."""
    found: dict[str, list[list[str]]] = defaultdict(list)
    for files in models(sorted(repository_files(name))):
        found[type_of(files[0])].append(files)
    return dict(found)


def models(files: list[str]) -> list[list[str]]:
    """GGUF files as models: the parts of a split one together, what belongs to vision left out."""
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
    """From the hub; without it, what its cache has."""
    from huggingface_hub import HfApi, constants, snapshot_download

    if constants.HF_HUB_OFFLINE:
        folder = Path(reached(name, lambda: snapshot_download(name, local_files_only=True)))
        return [str(path.relative_to(folder)) for path in folder.rglob("*.gguf")]
    return reached(name, lambda: HfApi().list_repo_files(name))


def reached(name: str, ask: Callable[[], T]) -> T:
    """What the hub answers; raises ModelError where it cannot be reached or does not have it."""
    try:
        return ask()
    except Exception as error:  # the transport below the hub has errors of its own, which change
        first = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        raise ModelError(
            f"the hub model {name} must be reachable or downloaded before, "
            f"got {type(error).__name__} ({first}); "
            "check the name, the network and HF_TOKEN, or give a local directory"
        ) from error
