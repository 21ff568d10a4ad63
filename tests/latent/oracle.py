"""Latent sequences the slow way: for each latent the whole prefix is run anew, row by row, through
the transformers model alone, without a cache and without padding."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

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
        inputs[at] = vector(hidden, out.logits[:, -1], Table(table.weight))[0]
    return run(model, inputs, sees)


def run(model: Any, inputs: Sequence[Tensor], sees: Tensor | None = None) -> Any:
    """With the attention and the keys too, where the model's implementation has maps to give."""
    x, maps = torch.stack(list(inputs))[None], model.config._attn_implementation in ("eager", MAPS)
    mask = None
    if sees is not None:
        seen = sees[: len(inputs), : len(inputs)]
        mask = x.new_zeros(seen.shape).masked_fill(~seen, float("-inf"))[None, None]
    return model(
        inputs_embeds=x,
        attention_mask=mask,
        use_cache=maps,
        output_hidden_states=True,
        output_attentions=maps,
    )
