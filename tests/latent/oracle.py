"""Latent sequences the slow way: for each latent the whole prefix is run anew, row by row, through
the transformers model alone, without a cache and without padding."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from sparing.latent.fusion import LatentVector, Table
from tests.model.passes import MAPS


def recomputed(
    model: Any, vector: LatentVector, ids: Sequence[int], sees: Tensor | None = None
) -> Any:
    """The model's output over one row; its ``hidden_states`` and ``logits`` at every position.

    ``sees`` [T, T]: which positions each one sees; None: all up to itself.
    """
    recipe, table = vector.recipe, model.get_input_embeddings()
    inputs = list(table(torch.tensor([t if t != recipe.id else 0 for t in ids])))
    for at in (at for at, token in enumerate(ids) if token == recipe.id):
        out = run(model, inputs[:at], sees)
        hidden = out.hidden_states[recipe.layer][:, -1]
        inputs[at] = vector(hidden, out.logits[:, -1], Table.of(model))[0]
    return run(model, inputs, sees)


def masks(config: Any, sees: Tensor, like: Tensor) -> Any:
    """What each kind of layer sees of ``sees`` [T, T], as masks that are added."""
    at = torch.arange(len(sees))
    narrowed = (
        {
            "full_attention": sees,
            "sliding_attention": sees & (at[:, None] - at < (config.sliding_window or 1 << 30)),
        }
        if hasattr(config, "sliding_window")
        else {"full_attention": sees}
    )
    if chunk := getattr(config, "attention_chunk_size", None):
        narrowed["chunked_attention"] = sees & (at[:, None] // chunk == at // chunk)
    found = {
        kind: like.new_zeros(seen.shape).masked_fill(~seen, float("-inf"))[None, None]
        for kind, seen in narrowed.items()
    }
    kinds = set(getattr(config, "layer_types", None) or [])
    if len(kinds) < 2:  # such models take one mask for all layers
        window = config.model_type in ("phi3", "mixtral", "mistral")
        return found["sliding_attention" if window else "full_attention"]
    return found


def run(model: Any, inputs: Sequence[Tensor], sees: Tensor | None = None) -> Any:
    """With the attention and the keys too, where the model's implementation has maps to give."""
    x, maps = torch.stack(list(inputs))[None], model.config._attn_implementation in ("eager", MAPS)
    mask = None
    if sees is not None:
        mask = masks(model.config, sees[: len(inputs), : len(inputs)], x)
    return model(
        inputs_embeds=x,
        attention_mask=mask,
        use_cache=maps,
        past_key_values=DynamicCache() if maps else None,  # with no config it keeps all
        output_hidden_states=True,
        output_attentions=maps,
    )
