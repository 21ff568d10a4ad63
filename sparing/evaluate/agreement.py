"""How often a model with layers left out says what the whole model says: what drafting lives on."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparing.engine.cache import SlotCache
from sparing.engine.result import Result
from sparing.model.inputs import Forward, RowInput
from sparing.model.layer_set import LayerSet


@dataclass(frozen=True)
class Spoken:
    """What a model said: all token ids, and how many of the last ones it chose itself."""

    ids: list[int]
    chosen: int

    @classmethod
    def of(cls, result: Result) -> "Spoken":
        return cls([*result.prompt_token_ids, *result.token_ids], len(result.token_ids))


def likeliest(decoder: Forward, said: Sequence[Spoken], layer_set: LayerSet | None) -> Tensor:
    """The likeliest token at each chosen position of every text, in one flat tensor."""
    shape = decoder.shape
    found = []
    for spoken in said:
        cache = SlotCache(
            shape.layers,
            1,
            shape.kv_heads,
            shape.head_dim,
            len(spoken.ids),
            dtype=decoder.dtype,
            device=decoder.device,
        )
        ids = spoken.ids[:-1]
        row = RowInput(0, 0, ids, list(range(len(ids))), scored=spoken.chosen)
        found.append(decoder([row], cache, layer_set).logits.argmax(-1))
    return torch.cat(found)


def agreement(decoder: Forward, said: Sequence[Spoken], layer_set: LayerSet) -> float:
    """Share of tokens on which the layer set and the whole model agree, both given the same past.

    A skipped sub-layer's keys are not needed: the layers that run read their own.
    """
    whole, part = likeliest(decoder, said, None), likeliest(decoder, said, layer_set)
    return float((whole == part).float().mean())


def best_layer_set(
    decoder: Forward,
    said: Sequence[Spoken],
    skipped: float,
    tries: int,
    seed: int,
) -> LayerSet:
    """The best set found with a share ``skipped`` of all sub-layers left out.

    From the first layers alone (an early exit), by exchanging one sub-layer at a time, each
    exchange kept where it does not lower the agreement on ``said``.
    """
    rng = random.Random(seed)
    layers = decoder.shape.layers
    kept = set(range(2 * layers - round(2 * layers * skipped)))
    whole = likeliest(decoder, said, None)

    def right(kept: set[int]) -> int:
        return int((likeliest(decoder, said, as_layer_set(kept, layers)) == whole).sum())

    best = right(kept)
    for _ in range(tries):
        out, back = rng.choice(sorted(kept)), rng.choice(sorted(set(range(2 * layers)) - kept))
        other = kept - {out} | {back}
        found = right(other)
        if found >= best:
            kept, best = other, found
    return as_layer_set(kept, layers)


def as_layer_set(kept: set[int], layers: int) -> LayerSet:
    """Sub-layers numbered in the order in which they run: attention 2 l, MLP 2 l + 1."""
    return LayerSet(
        tuple(2 * i in kept for i in range(layers)), tuple(2 * i + 1 in kept for i in range(layers))
    )
