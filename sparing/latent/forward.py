"""The teacher-forced forward pass of sequences with latent steps, with gradients throughout."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparing.latent.attention import Past
from sparing.latent.fusion import LatentVector, Table
from sparing.latent.segments import PassSegment, segments

OnPass = Callable[[Tensor], None]


def segmented_forward(
    model: Any,
    vector: LatentVector,
    ids: Int[Tensor, "B T"],
    lengths: Int[Tensor, " B"],
    depths: Sequence[int] = (),
    holes: Float[Tensor, "B 1 T T"] | None = None,
    on_pass: OnPass = lambda rows: None,
) -> list[Float[Tensor, "B T E"]]:
    """The inputs of the head after each of ``depths`` layers and at the end.

    Where ``ids`` has the recipe's id the input is a latent: ``vector`` of the position before it,
    from the hidden state at the recipe's layer and the logits at full depth.

    ``lengths``: number of tokens to run in each row; the states behind them are zero
    ``holes``: added to the attention's scores
    ``on_pass``: called before each pass with the row of each of its tokens

    The result equals a new pass over the whole prefix for each latent. It takes one pass more than
    the most latents of a row. The model's attention must be ``attention.NAME``.
    """
    body, head = model.get_decoder(), model.get_output_embeddings()
    table = Table.of(model)
    latent = ids == vector.recipe.id
    latent &= torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    order = latent.sum(1).argsort(descending=True, stable=True)
    ids, latent = ids.masked_fill(latent, 0)[order], latent[order]
    passes = segments(latent, lengths[order], None if holes is None else holes[order])
    past, z = Past(passes[0].count, max(segment.slots for segment in passes)), None
    found: list[list[Tensor]] = []
    for at, segment in enumerate(passes):
        on_pass(order[segment.rows])
        states = run_pass(body, ids, segment, past, z)
        found.append([*(body.norm(states[depth][0]) for depth in depths), states[-1][0]])
        if at + 1 < len(passes):
            ends = segment.lasts[: passes[at + 1].count]
            z = vector(states[vector.recipe.layer][0, ends], head(states[-1][0, ends]), table)
    where = order[torch.cat([s.rows for s in passes])], torch.cat([s.positions for s in passes])
    flat = [torch.cat(states) for states in zip(*found, strict=True)]
    return [s.new_zeros(*ids.shape, s.shape[1]).index_put(where, s) for s in flat]


def iterated_forward(
    model: Any,
    vector: LatentVector,
    ids: Int[Tensor, "B T"],
    dropped: Int[Tensor, "3 M"],
    rounds: int,
    depths: Sequence[int] = (),
    mask: Float[Tensor, "B 1 T T"] | None = None,
) -> list[Float[Tensor, "B T E"]]:
    """``segmented_forward`` by fixed-point iteration.

    Each round makes all latents at once from the latents of the round before. The first latents are
    the mean embeddings of the words in their place: ``dropped`` has a row, a position and a word
    for each.

    The result is exact for a latent with fewer than ``rounds`` others before it. For later ones it
    is the closer, the nearer a latent is to its words' mean. With ``rounds`` 0 the words' means are
    the latents (teacher forcing).
    """
    body, head = model.get_decoder(), model.get_output_embeddings()
    embed = model.get_input_embeddings()
    latent = ids == vector.recipe.id
    places = latent.nonzero(as_tuple=True)
    before = places[0], places[1] - 1
    of = (latent.flatten().cumsum(0) - 1)[dropped[0] * ids.shape[1] + dropped[1]]
    z = embed.weight.new_zeros(len(places[0]), embed.weight.shape[1])
    z = z.index_add(0, of, embed(dropped[2])) / of.bincount()[:, None]
    x = embed(ids.masked_fill(latent, 0))
    for at in range(rounds + 1):
        out = body(
            inputs_embeds=x.index_put(places, z.to(x.dtype)),
            attention_mask=mask,
            use_cache=False,
            output_hidden_states=True,
        )
        if at < rounds:
            last = head(out.last_hidden_state[before])
            z = vector(out.hidden_states[vector.recipe.layer][before], last, Table.of(model))
    return [*(body.norm(out.hidden_states[depth]) for depth in depths), out.last_hidden_state]


def run_pass(
    body: Any, ids: Int[Tensor, "B T"], segment: PassSegment, past: Past, z: Tensor | None
) -> Sequence[Tensor]:
    """The hidden states [1, N, E] of one pass after each layer, the last after the final norm.

    ``z`` [R, E]: the first input vectors of its rows; None in the first pass
    """
    x = body.get_input_embeddings()(ids[segment.rows, segment.positions])
    if z is not None:
        x = x.index_put((segment.firsts,), z.to(x.dtype))
    out = body(
        inputs_embeds=x[None],
        position_ids=segment.positions[None],
        use_cache=False,
        output_hidden_states=True,
        segment=segment,
        past=past,
    )
    states: Sequence[Tensor] = out.hidden_states
    return states
