"""Attention of one pass's flat tokens over all that the passes before it left, with gradients.

A pass is given to a transformers model as a single row ``[1, N, E]``, so that its matrix products
run on no padding at all; only here do the rows part again. Registered with transformers by name;
as no mask goes by that name, the model makes none. Without a segment it is the causal attention.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from sparing.latent.segments import Segment
from sparing.train.attention import causal_attention

NAME = "sparing_segmented"


class Past:
    """Keys and values ``[R, S, G, D]`` by layer, each token in its position's slot: of the rows
    that took part in the last pass, as far as they have got.

    Every pass makes new ones, of which the old are a part: gradients flow through all of them.
    """

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(
        self, layer: int, keys: Tensor, values: Tensor, segment: Segment
    ) -> tuple[Tensor, Tensor]:
        """Put in the pass's ``[N, G, D]``; those of its rows and slots, ``[R, S, G, D]``."""
        old = self._layers.get(layer, (None, None))
        new = grown(old[0], keys, segment), grown(old[1], values, segment)
        self._layers[layer] = new
        return new


def grown(old: Tensor | None, new: Tensor, segment: Segment) -> Tensor:
    """``old`` ``[R', S', G, D]`` cut to the rows of a pass, its ``new`` ones in their slots."""
    rows, slots = segment.count, segment.slots
    if old is None:
        table = new.new_zeros(rows, slots, *new.shape[1:])
    else:
        kept = old[:rows, :slots]
        table = F.pad(kept, (0, 0, 0, 0, 0, slots - kept.shape[1]))  # a copy, even of as many slots
    return table.index_put_((segment.rows, segment.positions), new)


def segmented_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Any,
    *,
    segment: Segment | None = None,
    past: Past | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """softmax(q k^T / sqrt(D) + mask) v; query [1, H, N, D], key and value [1, G, N, D].

    Queries of one kv head go in one product. Returns [1, N, H, D].
    """
    if segment is None or past is None:
        return causal_attention(module, query, key, value, mask, **options)
    heads, groups, dim = query.shape[1], key.shape[1], query.shape[3]
    scale = options.get("scaling") or dim**-0.5
    k, v = past.extend(module.layer_idx, key[0].transpose(0, 1), value[0].transpose(0, 1), segment)
    k, v = k.transpose(1, 2), v.transpose(1, 2)
    q = (query[0].transpose(0, 1) * scale)[segment.padded]
    rows, tokens = q.shape[:2]
    q = q.view(rows, tokens, groups, heads // groups, dim).permute(0, 2, 3, 1, 4)
    scores = q.reshape(rows, groups, -1, dim) @ k.transpose(2, 3)
    scores = scores.view(rows, groups, heads // groups, tokens, -1)
    weights = (scores + segment.mask[:, None].to(scores.dtype)).softmax(-1)
    mixed = weights.view(rows, groups, -1, k.shape[2]) @ v
    mixed = mixed.view(rows, groups, heads // groups, tokens, dim).permute(0, 3, 1, 2, 4)
    return mixed.reshape(rows * tokens, heads, dim)[segment.unpadded][None], None


AttentionInterface.register(NAME, segmented_attention)
