"""Layer sets found before, kept by model and task."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sparing.errors import ModelError, reason
from sparing.files import cache_folder, read_json, write_atomically
from sparing.model.extras import or_without
from sparing.model.fingerprint import fingerprint
from sparing.model.layer_set import LayerSet

SETS_FILE = "layer_sets.json"


@dataclass(frozen=True)
class TunedLayerSet:
    """A layer set and its measurements.

    ``matchness``: share of tokens on which it agrees with its model.
    ``speed``: expected tokens a plain step's time; 0 where it was not estimated.
    """

    layer_set: LayerSet
    matchness: float
    speed: float


def as_dict(tuned: TunedLayerSet) -> dict[str, Any]:
    """As JSON."""
    return {
        "skipped": tuned.layer_set.names,
        "matchness": tuned.matchness,
        "speed": tuned.speed,
    }


def as_tuned(content: Mapping[str, Any], layers: int) -> TunedLayerSet:
    """Inverse of ``as_dict``, for a model with that many layers."""
    layer_set = LayerSet.named(layers, content["skipped"])
    return TunedLayerSet(layer_set, float(content["matchness"]), float(content["speed"]))


def sets_file(here: str) -> Path:
    """The file of this machine's sets for a checkpoint; ``here``: its fingerprint."""
    return sets_folder() / f"{here}.json"


def sets_folder() -> Path:
    return cache_folder() / "layer_sets"


def read_sets(model: Path, tokenizer: Any) -> dict[str, TunedLayerSet]:
    """Sets by task: tuned on this machine, then the checkpoint's own.

    A file that is broken or was made for another model is left out, with a warning.
    """
    if not sets_folder().exists() and not (model / SETS_FILE).exists():
        return {}
    here = fingerprint(model, tokenizer)
    nothing: dict[str, TunedLayerSet] = {}
    found = or_without(partial(read_file, sets_file(here), here), nothing)
    brought = or_without(partial(read_file, model / SETS_FILE, here), nothing)
    return found | {task: tuned for task, tuned in brought.items() if task not in found}


def read_file(path: Path, here: str) -> dict[str, TunedLayerSet]:
    """The sets of one file, for the model with the fingerprint ``here``; none without a file.

    Raises ModelError if it is broken or was made for another model.
    """
    if not path.exists():
        return {}
    try:
        content = read_json(path)
        made_for, layers = str(content["fingerprint"]), int(content["layers"])
        found = {str(task): as_tuned(kept, layers) for task, kept in content["sets"].items()}
    except ModelError:
        raise
    except Exception as error:  # whatever is wrong with it
        raise ModelError(
            f"{path} must hold layer sets, got: {reason(error)}; remove it, and make it again with "
            "`sparing tune depth`"
        ) from None
    if made_for != here:
        raise ModelError(
            f"layer sets must be tuned for their model: those in {path} are for the model "
            f"{made_for}, this model is {here}; remove it, and tune anew with `sparing tune depth`"
        )
    return found


def write_sets(path: Path, here: str, sets: Mapping[str, TunedLayerSet]) -> None:
    """Write the sets; those of other tasks in the file stay."""
    together = read_file(path, here) | dict(sets)
    layers = len(next(iter(together.values())).layer_set.attention)
    content = {
        "fingerprint": here,
        "layers": layers,
        "sets": {task: as_dict(tuned) for task, tuned in together.items()},
    }
    write_atomically(path, json.dumps(content, indent=1) + "\n")
