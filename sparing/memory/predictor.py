"""The importance predictor: from a token's last hidden state to its predicted importance."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from sparing.errors import ModelError, reason
from sparing.files import read_json, write_atomically
from sparing.memory.files import CONFIG_FILE, WEIGHTS_FILE
from sparing.model.fingerprint import fingerprint
from sparing.options import Memory


class ImportancePredictor(nn.Module):
    """Three linear maps d -> 2d -> d/2 -> K without biases, a softplus behind each.

    DynTS (arXiv 2601.18383), whose 7B and 8B models have 3584 or 4096 -> 8192 -> 2048 -> 1. K is
    ours: an output for each of ``horizons``, see ``targets.importance``; the paper has one, for 0.

    ``memory``: ``local`` and ``selection`` that suit the model, where known.
    """

    memory: Mapping[str, float] = MappingProxyType({})

    def __init__(self, width: int, horizons: Sequence[int] = (0,)) -> None:
        super().__init__()
        self.horizons = tuple(horizons)
        sizes = (width, 2 * width, max(width // 2, 1), len(self.horizons))
        self.maps = nn.ModuleList(nn.Linear(i, o, bias=False) for i, o in pairwise(sizes))

    def forward(self, hidden: Float[Tensor, "N E"]) -> Float[Tensor, "N K"]:
        """Predicted importance on the length-free scale of ``targets``, each above 0."""
        for linear in self.maps:
            hidden = F.softplus(linear(hidden))
        return hidden


def save_predictor(predictor: ImportancePredictor, config: dict[str, Any], out: Path) -> None:
    """Write the weights, then the config; without it there is no predictor."""
    tensors = {name: t.contiguous() for name, t in predictor.state_dict().items()}
    write_atomically(out / WEIGHTS_FILE, save(tensors))
    write_atomically(out / CONFIG_FILE, json.dumps(config, indent=1) + "\n")


def load_predictor(
    directory: Path, model: Path, tokenizer: Any, dtype: torch.dtype, device: str = "cpu"
) -> ImportancePredictor:
    """The predictor in ``directory``, for the checkpoint in ``model``.

    Raises ModelError where it is broken or was trained for another model; the message then names
    both fingerprints.
    """
    try:
        config = read_json(directory / CONFIG_FILE)
        predictor = ImportancePredictor(int(config["width"]), [int(h) for h in config["horizons"]])
        trained_for = str(config["fingerprint"])
        suited: dict[str, Any] = {k: float(v) for k, v in config.get("memory", {}).items()}
        Memory(budget=1, **suited)  # raises what is wrong with it
        predictor.memory = suited
        predictor.load_state_dict(load_file(directory / WEIGHTS_FILE))
    except ModelError:
        raise
    except Exception as error:  # torch, safetensors and JSON have errors of their own
        raise ModelError(
            f"{directory} must hold a readable importance predictor, got: {reason(error)}; "
            "train it again with `sparing train predictor`"
        ) from None
    here = fingerprint(model, tokenizer)
    if trained_for != here:
        raise ModelError(
            f"an importance predictor must be trained for its model: the one in {directory} is for "
            f"the model {trained_for}, this model is {here}; train one with "
            "`sparing train predictor`"
        )
    return predictor.to(device, dtype).eval().requires_grad_(False)
