"""The probability of each token of the examples: latents go before unlikely tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from safetensors import safe_open
from safetensors.numpy import load_file, save

from sparing.files import write_atomically
from sparing.latent.fusion import of_words
from sparing.latent.settings import StageSettings
from sparing.train.attention import NAME as CAUSAL
from sparing.train.batches import bucketed
from sparing.train.examples import SHOWN, ExampleSet
from sparing.train.objective import hidden_states

TENSOR = "gold"


@torch.no_grad()
def gold_probabilities(
    model: Any,
    examples: ExampleSet,
    settings: StageSettings,
    latent_token: int | None = None,
    likeliest: bool = False,
) -> np.ndarray:
    """The probability ``[N]`` of each token in a teacher-forced pass without dropout; 1 for tokens
    that are not taught.

    ``latent_token``: the model's latent token, if any; it gets probability 0
    ``likeliest``: return the probability of the likeliest word in each token's place
    """
    found = np.ones(len(examples.ids), np.float32)
    device, head = next(model.parameters()).device, model.get_output_embeddings()
    model.set_attn_implementation(CAUSAL)
    model.eval()
    mixed = settings.precision == "bfloat16"
    for rows in bucketed(examples.lengths, settings.batch_tokens, 0, 0):
        ids, roles = (values.to(device) for values in examples.batch(rows))
        taught = roles[:, 1:] != SHOWN
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            [states] = hidden_states(model, ids, ())
            logits = head(states[:, :-1][taught]).float()
        if latent_token is not None:
            logits = of_words(logits, latent_token)
        p = logits.softmax(-1)
        p = p.amax(1) if likeliest else p.gather(1, ids[:, 1:][taught][:, None])[:, 0]
        row, at = (values.cpu().numpy() for values in taught.nonzero(as_tuple=True))
        found[examples.starts[np.asarray(rows)[row]] + at + 1] = p.cpu().numpy()
    model.train()
    return found


def kept_probabilities(
    path: Path,
    model: Any,
    of: str,
    examples: ExampleSet,
    settings: StageSettings,
    latent_token: int | None = None,
) -> np.ndarray:
    """``gold_probabilities`` of a model with the fingerprint ``of``, stored in a file.

    A resumed run reads the file. The first process computes it, the others wait.
    """
    process = PartialState(cpu=not torch.cuda.is_available())
    told = {"model": of, "examples": examples.fingerprint()}
    if process.is_main_process and metadata(path) != told:
        found = gold_probabilities(model, examples, settings, latent_token)
        write_atomically(path, save({TENSOR: found}, told))
    process.wait_for_everyone()
    return load_file(path)[TENSOR]


def unsure_at(
    model: Any, plain: ExampleSet, thinking: ExampleSet, token: int, settings: StageSettings
) -> float:
    """The threshold at which a switch by confidence thinks as often as in training.

    The likeliest word of ``plain`` examples is below it as often as the ``thinking`` ones have
    latents before a word.
    """
    latent = thinking.ids == token
    begun = latent[1:] & ~latent[:-1]
    rate = begun.sum() / ((thinking.roles != SHOWN) & ~latent).sum()
    exact = settings.model_copy(update={"precision": "float32"})
    found = gold_probabilities(model, plain, exact, token, likeliest=True)
    return float(np.quantile(found[plain.roles != SHOWN], rate))


def metadata(path: Path) -> dict[str, str] | None:
    """The metadata of a safetensors file; None if it does not exist."""
    if not path.exists():
        return None
    with safe_open(path, framework="numpy") as file:
        return file.metadata()
