"""Attention of a pass's flat tokens over the tokens of all passes so far, with gradients.

A pass enters a transformers model as a single row ``[1, N, E]``, so that its matrix products have
no padding; only the attention separates the rows. It is registered with transformers under a name
without a mask function, so the model makes no mask. Without a segment it is causal attention.
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
    """Keys and values of ``rows`` rows by layer; a token's slot is its position, below ``slots``.

    Each pass depends on the ``_last`` one, so that gradients come back in order. ``_last`` is here
    and not in ``SegmentCache``, which the graph holds: that would be a reference cycle.
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
        """Attention in layer ``number``: query ``[R, H, T, D]``, the pass's keys and values
        ``[N, G, D]``."""
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
    """The keys and values of a layer.

    ``keys``, ``values``: ``[R, G, S, D]``, written pass by pass
    ``gradients``: ``[2, R, G, S, D]``, of both, summed over the later passes
    """

    keys: Tensor
    values: Tensor
    gradients: Tensor | None = None

    def upto(self, segment: PassSegment) -> tuple[Tensor, Tensor]:
        """The keys and values visible to a pass."""
        rows, slots = segment.count, segment.slots
        return self.keys[:rows, :, :slots], self.values[:rows, :, :slots]


class Attend(torch.autograd.Function):
    """``attend`` over a ``SegmentCache``, after a write of the pass's keys and values.

    Nothing of the past is copied or saved for a pass. The backward pass computes the attention
    again over the same slots (later writes are masked) and adds its gradients of all visible keys
    and values to the cache. A pass takes the gradients of its own keys and values once all later
    passes have added theirs.
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
