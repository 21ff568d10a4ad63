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
from sparing.train.attention import attend, causal_attention

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

    Returns [1, N, H, D].
    """
    if segment is None or past is None:
        return causal_attention(module, query, key, value, mask, **options)
    k, v = past.extend(module.layer_idx, key[0].transpose(0, 1), value[0].transpose(0, 1), segment)
    q = query[0].transpose(0, 1)[segment.padded]
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    mixed = attend(q, k, v, segment.mask, options.get("scaling"))
    return mixed.transpose(1, 2).flatten(0, 1)[segment.unpadded][None], None


AttentionInterface.register(NAME, segmented_attention)
