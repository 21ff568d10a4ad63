"""Attention for training small models on a CPU: torch's flash kernel in float32, else two products.

In bfloat16 that kernel takes over half of a training step where heads are 32 wide: at 16 rows of
384 tokens, 4 heads, forward and backward take 32 ms a layer in it and 15 ms as two products and a
softmax. In float32 it is the other way round, 35 ms and 110 at 7 rows of 410, and a step takes two
thirds. The products hold the whole map: they are for sequences of at most a few thousand tokens.
"""

import ctypes
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

NAME = "sparing_causal"
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # the parameters of glibc's mallopt
LARGEST_THRESHOLD = 32 << 20  # as much as mallopt takes


def causal_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """Causal attention without padding masks: query [B, H, T, D], key and value [B, G, T, D].

    Registered with transformers; returns [B, T, H, D]. ``mask``: None, or [B, 1, T, T] to be added
    to the scores, causal itself.
    """
    return attend(query, key, value, mask, options.get("scaling")).transpose(1, 2), None


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
) -> Tensor:
    """softmax(scale q k^T + mask) v: [B, H, T, D], of queries as many, and of key and value
    [B, G, S, D]. ``mask``: [B, 1, T, S], or None: causal, S = T. ``scale``: 1 / sqrt(D) for None.
    """
    if mask is not None:
        mask = mask.to(query.dtype)
    if query.dtype == torch.bfloat16:
        mask = _ahead(query.shape[2], query.dtype, query.device) if mask is None else mask
        return products(query * (scale or query.shape[3] ** -0.5), key, value, mask)
    return F.scaled_dot_product_attention(
        query, key, value, mask, is_causal=mask is None, scale=scale, enable_gqa=True
    )


def products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """``attend`` as two products and a softmax; queries of one kv head go in one product."""
    rows, heads, tokens, _ = query.shape
    groups, slots = key.shape[1:3]
    scores = query.reshape(rows, groups, -1, query.shape[3]) @ key.mT
    scores.view(rows, groups, heads // groups, tokens, slots).add_(mask[:, None])
    return (scores.softmax(-1) @ value).view(query.shape)


@lru_cache(maxsize=4)
def _ahead(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[1, 1, T, T]: minus infinity where a key is ahead of its query."""
    return torch.full((1, 1, length, length), float("-inf"), dtype=dtype, device=device).triu_(1)


AttentionInterface.register(NAME, causal_attention)


def keep_freed_memory() -> None:
    """Have glibc keep what is freed: fresh pages for every large tensor cost as much as the sums.

    Does nothing where there is no glibc.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(MMAP_THRESHOLD, LARGEST_THRESHOLD)
        libc.mallopt(TRIM_THRESHOLD, (2 << 30) - 1)
