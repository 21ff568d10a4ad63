"""Attention of one pass's flat tokens over all that the passes before it left, with gradients.

A pass is given to a transformers model as a single row ``[1, N, E]``, so that its matrix products
run on no padding at all; only here do the rows part again. Registered with transformers by name;
as no mask goes by that name, the model makes none. Without a segment it is the causal attention.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface

from sparing.latent.segments import PassSegment
from sparing.train.attention import attend, causal_attention

NAME = "sparing_segmented"


class Past:
    """Keys and values of ``rows`` rows by layer, a token in its position's of ``slots`` slots.

    Each pass depends on the ``_last`` one, so that gradients come back in order. That is kept here
    and not in ``SegmentCache``, which the graph holds: it would hold itself, for good.
    """

    def __init__(self, rows: int, slots: int) -> None:
        self.rows, self.slots = rows, slots
        self._layers: dict[int, SegmentCache] = {}
        self._last: dict[int, Tensor] = {}

    def attend(
        self,
        number: int,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        segment: PassSegment,
        scale: float | None,
    ) -> Tensor:
        """In layer ``number``: query ``[R, H, T, D]``; the pass's keys, values ``[N, G, D]``."""
        if number not in self._layers:
            groups, width = keys.shape[1:]
            table = keys.new_zeros(2, self.rows, groups, self.slots, width)
            self._layers[number] = SegmentCache(table[0], table[1])
            self._last[number] = torch.zeros((), device=keys.device, requires_grad=True)
        layer, last = self._layers[number], self._last[number]
        mixed, self._last[number] = Attend.apply(query, keys, values, last, layer, segment, scale)
        return mixed


@dataclass
class SegmentCache:
    """``keys``, ``values`` ``[R, G, S, D]``, which every pass writes its own into; ``gradients``
    ``[2, R, G, S, D]`` of both, from the passes behind."""

    keys: Tensor
    values: Tensor
    gradients: Tensor | None = None

    def upto(self, segment: PassSegment) -> tuple[Tensor, Tensor]:
        """What a pass sees."""
        rows, slots = segment.count, segment.slots
        return self.keys[:rows, :, :slots], self.values[:rows, :, :slots]


class Attend(torch.autograd.Function):
    """``attend`` over a ``SegmentCache`` that holds a pass's keys and values ``[N, G, D]``.

    Nothing of the past is copied or kept for a pass: its gradient computes the attention once more
    over the same slots (what is written later is behind the mask) and adds up those of the keys and
    values, of which a pass takes its own when all behind it have added theirs.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        last: Tensor,
        layer: SegmentCache,
        segment: PassSegment,
        scale: float | None,
    ) -> tuple[Tensor, Tensor]:
        at = segment.rows, slice(None), segment.positions
        layer.keys[at], layer.values[at] = keys, values
        ctx.save_for_backward(query)
        ctx.of, ctx.at, ctx.device = (layer, segment, scale), at, query.device.type
        ctx.mixed = torch.is_autocast_enabled(ctx.device), torch.get_autocast_dtype(ctx.device)
        return attend(query, *layer.upto(segment), segment.mask, scale), last.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, mixed: Tensor, last: Tensor) -> tuple[Tensor | None, ...]:
        layer, segment, scale = ctx.of
        enabled, dtype = ctx.mixed
        (query,) = ctx.saved_tensors
        q, k, v = (x.detach().requires_grad_() for x in (query, *layer.upto(segment)))
        with torch.enable_grad(), torch.autocast(ctx.device, dtype, enabled):
            again = attend(q, k, v, segment.mask, scale)
        query, *past = torch.autograd.grad(again, (q, k, v), mixed)
        if layer.gradients is None:
            layer.gradients = layer.keys.new_zeros(2, *layer.keys.shape)
        own = []
        for total, gradient in zip(layer.gradients, past, strict=True):
            total[: segment.count, :, : segment.slots] += gradient
            own.append(total[ctx.at])
            total[ctx.at] = 0
        return query, *own, last, None, None, None


def segmented_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Any,
    *,
    segment: PassSegment | None = None,
    past: Past | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """softmax(q k^T / sqrt(D) + mask) v; query [1, H, N, D], key and value [1, G, N, D].

    Returns [1, N, H, D].
    """
    if segment is None or past is None:
        return causal_attention(module, query, key, value, mask, **options)
    k, v = key[0].transpose(0, 1), value[0].transpose(0, 1)
    q = query[0].transpose(0, 1)[segment.padded].transpose(1, 2)
    mixed = past.attend(module.layer_idx, q, k, v, segment, options.get("scaling"))
    return mixed.transpose(1, 2).flatten(0, 1)[segment.unpadded][None], None


AttentionInterface.register(NAME, segmented_attention)
