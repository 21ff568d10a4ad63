"""From a model's name to a directory in Hugging Face format that is complete enough to load.

A name is, in this order: an embedded model, a local directory, a hub id `org/name`. What is inside
the files is for `config` and `weights` to judge; here they only have to be there.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from sparing.errors import ModelError
from sparing.model import smollm2

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "merges.txt"]
TOKENIZERS = [("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt")]
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Embedded:
    """A model that needs no hub: how to get its directory, and how to look whether it is there."""

    licence: str
    description: str
    directory: Callable[[], Path]
    present: Callable[[], Path | None]
    gguf: Callable[[], Path] | None = None  # the file that it is converted from


@dataclass(frozen=True)
class ModelEntry:
    """A line of `sparing models`; `path` is None until the model is installed and converted."""

    name: str
    path: Path | None
    licence: str
    description: str


POCKET = Path(__file__).parent.parent / "pocket" / "weights"
POCKET_LATENT, POCKET_COT = POCKET.with_name("weights-latent"), POCKET.with_name("weights-cot")


def shipped(name: str, folder: Path, description: str) -> Embedded:
    """A model whose weights lie in this package."""
    return Embedded(
        licence="Apache-2.0",
        description=description,
        directory=lambda: _complete(folder, name),
        present=lambda: folder if folder.is_dir() else None,
    )


EMBEDDED = {
    "pocket": shipped(
        "pocket",
        POCKET,
        "3M parameters, 16 layers, thinks aloud; four families of questions, no others",
    ),
    "pocket-latent": shipped(
        "pocket-latent", POCKET_LATENT, "pocket, trained on to think some steps without words"
    ),
    "pocket-cot": shipped(
        "pocket-cot", POCKET_COT, "pocket, trained on for as many steps with words alone"
    ),
    "smollm2": Embedded(
        licence="Apache-2.0",
        description="SmolLM2-135M-Instruct, 30 layers, a chat model without thinking",
        directory=smollm2.smollm2_directory,
        present=smollm2.converted_directory,
        gguf=smollm2.gguf_file,
    ),
}


def find_model(name: str) -> Path:
    """The directory of the model called `name`; raises ModelError where there is none to load."""
    if name in EMBEDDED:
        return EMBEDDED[name].directory()
    path = Path(name).expanduser()
    if name.strip() and path.is_dir():
        return _complete(path, name)
    if path.is_file():
        raise ModelError(
            f"a model must be a directory in Hugging Face format, got the file {name}; "
            "give the directory, with config.json and *.safetensors in it"
        )
    if HUB_ID.fullmatch(name):
        return _complete(_download(name), name)
    raise _unknown(name)


def find_gguf(name: str) -> Path | None:
    """The GGUF that the model called `name` was converted from; None where it was from none."""
    gguf = EMBEDDED[name].gguf if name in EMBEDDED else None
    return gguf() if gguf else None


def list_models() -> list[ModelEntry]:
    """The embedded models and where they are; loads and converts nothing."""
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
        f"a model must be one of [{known}], a directory or a hub id org/name, got {name!r}; {hint}"
    )


def _download(name: str) -> Path:
    """Fetch a hub model's top-level files, or take them from the hub's own cache."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(name, allow_patterns=HUB_FILES, ignore_patterns=["*/*"])
    except Exception as error:  # the transport below the hub has errors of its own, which change
        first = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        raise ModelError(
            f"the hub model {name} must be reachable or downloaded before, "
            f"got {type(error).__name__} ({first}); "
            "check the name, the network and HF_TOKEN, or give a local directory"
        ) from error
    return Path(folder)


def _complete(path: Path, name: str) -> Path:
    missing = _missing(path)
    if missing:
        raise ModelError(
            f"a model directory must hold config.json, a tokenizer and *.safetensors, {name} has "
            f"no {', no '.join(missing)}; save the model and its tokenizer there (save_pretrained)"
        )
    return path


def _missing(path: Path) -> list[str]:
    missing = [] if (path / "config.json").is_file() else ["config.json"]
    if not any(all((path / file).is_file() for file in files) for files in TOKENIZERS):
        missing.append("tokenizer (tokenizer.json, tokenizer.model, or vocab.json with merges.txt)")
    if (path / INDEX).is_file():
        return missing + _missing_shards(path)
    return missing if any(path.glob("*.safetensors")) else [*missing, "*.safetensors"]


def _missing_shards(path: Path) -> list[str]:
    """Files that the index names and the directory lacks, as after a download cut short."""
    try:
        named = json.loads((path / INDEX).read_text())["weight_map"].values()
        shards = {str(shard) for shard in named}
    except (ValueError, KeyError, AttributeError, TypeError):
        return [f"readable {INDEX}"]
    return sorted(shard for shard in shards if not (path / shard).is_file())
