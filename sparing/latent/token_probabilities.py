"""How sure a model is of each token of its examples: where latents may go."""

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
    """Of each token of the examples ``[N]`` after those before it, in a teacher-forced pass; 1 for
    those that are not taught. No dropout of any kind.

    ``latent_token``: the latent token where the model has one, which is no word and has no probability;
    ``likeliest``: the probability of the likeliest word in the token's place.
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
    """As ``gold_probabilities`` of a model whose fingerprint is ``of``, kept in a file: a resumed
    run reads what it began with. The first process takes the time, the others wait for it."""
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
    """The probability that the likeliest word of ``plain`` examples stays below as often as the
    ``thinking`` ones had latents before a word: where a switch by confidence thinks as much as was
    trained."""
    latent = thinking.ids == token
    begun = latent[1:] & ~latent[:-1]
    rate = begun.sum() / ((thinking.roles != SHOWN) & ~latent).sum()
    exact = settings.model_copy(update={"precision": "float32"})
    found = gold_probabilities(model, plain, exact, token, likeliest=True)
    return float(np.quantile(found[plain.roles != SHOWN], rate))


def metadata(path: Path) -> dict[str, str] | None:
    """What a file says of its tensors; None where there is none."""
    if not path.exists():
        return None
    with safe_open(path, framework="numpy") as file:
        return file.metadata()
