"""Find a model by name: a GGUF file, or a complete directory in Hugging Face format.

A name is, in this order: an embedded model, a local directory or GGUF, a hub id `org/name` or
`org/name:TYPE`. This module only checks that the files exist; `checkpoint` reads them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from sparing.errors import ModelError
from sparing.model import hub, smollm2
from sparing.model.gguf_files import is_gguf

TOKENIZERS = [("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt")]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Embedded:
    """A model from an installed package."""

    licence: str
    description: str
    path: Callable[[], Path]  # raises ModelError if the model is missing
    present: Callable[[], Path | None]  # the path, or None


@dataclass(frozen=True)
class ModelEntry:
    """A line of `sparing models`; `path` is None until the model is installed."""

    name: str
    path: Path | None
    licence: str
    description: str


POCKET = Path(__file__).parent.parent / "pocket" / "weights"
POCKET_LATENT, POCKET_COT = POCKET.with_name("weights-latent"), POCKET.with_name("weights-cot")


def shipped(name: str, folder: Path, description: str) -> Embedded:
    """A model with its weights in this package."""

    def path() -> Path:
        if not folder.is_dir():
            raise ModelError(
                f"{name} is not in this installation: it comes with a checkout of the repository"
            )
        return _complete(folder, name)

    return Embedded(
        licence="Apache-2.0",
        description=description,
        path=path,
        present=lambda: folder if folder.is_dir() else None,
    )


EMBEDDED = {
    "pocket": shipped(
        "pocket",
        POCKET,
        "3M parameters, 16 layers, a chain of thought; only four families of questions",
    ),
    "pocket-latent": shipped(
        "pocket-latent", POCKET_LATENT, "pocket, trained further on latent thinking steps"
    ),
    "pocket-cot": shipped(
        "pocket-cot", POCKET_COT, "pocket, trained further for the same steps without latents"
    ),
    "smollm2": Embedded(
        licence="Apache-2.0",
        description="SmolLM2-135M-Instruct, 30 layers, a chat model without thinking",
        path=smollm2.gguf_file,
        present=smollm2.installed,
    ),
}


def find_model(name: str) -> Path:
    """The directory or GGUF called `name`; raises ModelError if there is none to load."""
    if here := find_here(name):
        return here
    if asked := hub.HUB_GGUF.fullmatch(name):
        return hub.download_gguf(*asked.groups())
    found = hub.download(name)
    return found if is_gguf(found) else _complete(found, name)


def find_here(name: str) -> Path | None:
    """The local model called `name`; None for the name of a hub model.

    Raises ModelError for any other name.
    """
    if name in EMBEDDED:
        return EMBEDDED[name].path()
    path = Path(name).expanduser()
    if name.strip() and path.is_dir():
        return _inside(path, name)
    if path.is_file():
        return _file(path, name)
    if hub.HUB_GGUF.fullmatch(name):
        return None
    if is_gguf(path):
        raise ModelError(f"a model must exist, got no file {name}; check the path")
    if hub.HUB_ID.fullmatch(name):
        return None
    raise _unknown(name)


def find_gguf(name: str) -> Path | None:
    """The GGUF called `name`; None if the model has another format."""
    path = find_model(name)
    return path if is_gguf(path) else None


def list_models() -> list[ModelEntry]:
    """The embedded models and their paths; loads nothing."""
    return [
        ModelEntry(name, model.present(), model.licence, model.description)
        for name, model in EMBEDDED.items()
    ]


def _unknown(name: str) -> ModelError:
    known = ", ".join(EMBEDDED)
    near = get_close_matches(name, EMBEDDED, n=1)
    if "/" in name or name.startswith((".", "~")):
        hint = "that directory does not exist; check the path"
    else:
        hint = f"did you mean {near[0]}?" if near else "give one of these"
    return ModelError(
        f"a model must be one of [{known}], a .gguf file, a directory or a hub id org/name, "
        f"got {name!r}; {hint}"
    )


def _file(path: Path, name: str) -> Path:
    if not is_gguf(path):
        raise ModelError(
            f"a model must be a .gguf file or a directory in Hugging Face format, got the file "
            f"{name}; give the directory, with config.json and *.safetensors in it"
        )
    return path


def _inside(path: Path, name: str) -> Path:
    """The model in a directory: its safetensors, else its one GGUF."""
    if any(path.glob("*.safetensors")) or (path / INDEX).is_file():
        return _complete(path, name)
    found = hub.models(sorted(file.name for file in path.glob("*.gguf")))
    if len(found) > 1:
        names = ", ".join(files[0] for files in found)
        raise ModelError(
            f"a folder must hold one model, {name} has {names}; give the path of one of them"
        )
    return path / found[0][0] if found else _complete(path, name)


def _complete(path: Path, name: str) -> Path:
    missing = _missing(path)
    if missing:
        raise ModelError(
            f"a model directory must hold config.json, a tokenizer and *.safetensors, {name} has "
            f"no {', no '.join(missing)}; {_hint(path, missing)}"
        )
    return path


def _hint(path: Path, missing: list[str]) -> str:
    """What to do about a directory with missing files."""
    if (path / "adapter_config.json").is_file():
        return (
            "it holds a LoRA adapter: merge that into its base with peft (merge_and_unload), and "
            "save the model and its tokenizer (save_pretrained)"
        )
    if "*.safetensors" in missing and any(path.glob("*.bin")):
        return "its weights are pickled: load them in transformers and save them (save_pretrained)"
    if WEIGHTS in missing:
        found = min(file.name for file in path.glob("*.safetensors"))
        return f"if {found} holds all of the weights, rename it to {WEIGHTS}"
    return "save the model and its tokenizer there (save_pretrained)"


def _missing(path: Path) -> list[str]:
    missing = [] if (path / "config.json").is_file() else ["config.json"]
    if not any(all((path / file).is_file() for file in files) for files in TOKENIZERS):
        missing.append("tokenizer (tokenizer.json, tokenizer.model, or vocab.json with merges.txt)")
    if (path / INDEX).is_file():
        return missing + _missing_shards(path)
    if (path / WEIGHTS).is_file():
        return missing
    return [*missing, WEIGHTS if any(path.glob("*.safetensors")) else "*.safetensors"]


def _missing_shards(path: Path) -> list[str]:
    """Files of the index that are missing, as after an interrupted download."""
    try:
        named = json.loads((path / INDEX).read_text())["weight_map"].values()
        shards = {str(shard) for shard in named}
    except (ValueError, KeyError, AttributeError, TypeError):
        return [f"readable {INDEX}"]
    return sorted(shard for shard in shards if not (path / shard).is_file())
