"""Layer sets that were found before, kept by model and task."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparing.errors import ModelError, reason
from sparing.files import write_atomically
from sparing.model.config import read_json
from sparing.model.fingerprint import fingerprint
from sparing.model.layer_set import LayerSet
from sparing.model.smollm2 import cache_folder

SETS_FILE = "layer_sets.json"


@dataclass(frozen=True)
class Tuned:
    """A layer set, the share of tokens on which it agreed with its model, and the tokens a plain
    step's time that were to be expected of it."""

    layer_set: LayerSet
    matchness: float
    speed: float


def sets_file(model: Path, tokenizer: Any) -> Path:
    """Where this machine keeps the sets of a checkpoint that brings none of its own."""
    return cache_folder() / "layer_sets" / f"{fingerprint(model, tokenizer)}.json"


def read_sets(model: Path, tokenizer: Any) -> dict[str, Tuned]:
    """By task, what was tuned on this machine before what the checkpoint brings along.

    Raises ModelError where a file is broken, or was made for another model.
    """
    found: dict[str, Tuned] = {}
    if (cache_folder() / "layer_sets").exists():
        found |= read_file(sets_file(model, tokenizer), model, tokenizer)
    return found | {
        task: tuned
        for task, tuned in read_file(model / SETS_FILE, model, tokenizer).items()
        if task not in found
    }


def read_file(path: Path, model: Path, tokenizer: Any) -> dict[str, Tuned]:
    """The sets of one file; none where there is no such file."""
    if not path.exists():
        return {}
    try:
        content = read_json(path)
        made_for, layers = str(content["fingerprint"]), int(content["layers"])
        found = {
            str(task): Tuned(
                LayerSet.named(layers, kept["skipped"]), float(kept["matchness"]), kept["speed"]
            )
            for task, kept in content["sets"].items()
        }
    except ModelError:
        raise
    except Exception as error:  # whatever is wrong with it
        raise ModelError(
            f"{path} must hold layer sets, got: {reason(error)}; remove it, and make it again with "
            "`sparing tune depth`"
        ) from None
    here = fingerprint(model, tokenizer)
    if made_for != here:
        raise ModelError(
            f"layer sets must be tuned for their model: those in {path} are for the model "
            f"{made_for}, this model is {here}; remove it, and tune anew with `sparing tune depth`"
        )
    return found


def write_sets(path: Path, model: Path, tokenizer: Any, sets: Mapping[str, Tuned]) -> None:
    """Write the sets, beside those of other tasks that are there already."""
    together = read_file(path, model, tokenizer) | dict(sets)
    layers = len(next(iter(together.values())).layer_set.attention)
    content = {
        "fingerprint": fingerprint(model, tokenizer),
        "layers": layers,
        "sets": {
            task: {"skipped": t.layer_set.names, "matchness": t.matchness, "speed": t.speed}
            for task, t in together.items()
        },
    }
    write_atomically(path, json.dumps(content, indent=1) + "\n")
