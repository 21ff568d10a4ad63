"""Attention of one pass's flat tokens over all that the passes before it left, with gradients.

A pass is given to a transformers model as a single row ``[1, N, E]``, so that its matrix products
run on no padding at all; only here do the rows part again. Registered with transformers by name;
as no mask goes by that name, the model makes none. Without a segment it is the causal attention.
"""

from typing import Any

from torch import Tensor
from transformers import AttentionInterface

from sparing.latent.segments import Segment
from sparing.train.attention import causal_attention

NAME = "sparing_segmented"


class Past:
    """Keys and values of a batch ``[B, G, T, D]`` by layer, each token in its position's slot.

    Every pass makes new ones, of which the old are a part: gradients flow through all of them.
    """

    def __init__(self, rows: int, width: int) -> None:
        self.rows, self.width = rows, width
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(
        self, layer: int, keys: Tensor, values: Tensor, segment: Segment
    ) -> tuple[Tensor, Tensor]:
        """Put in the pass's ``[N, G, D]``; those of its rows and slots, ``[R, G, S, D]``."""
        if layer not in self._layers:
            size = (self.rows, self.width, *keys.shape[1:])
            self._layers[layer] = (keys.new_zeros(size), values.new_zeros(size))
        at = (segment.rows, segment.positions)
        old = self._layers[layer]
        new = old[0].index_put(at, keys), old[1].index_put(at, values)
        self._layers[layer] = new
        return tuple(x[: segment.count, : segment.slots].transpose(1, 2) for x in new)  # type: ignore[return-value]


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
