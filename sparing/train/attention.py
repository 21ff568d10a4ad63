"""Attention for training small models on a CPU, as two products and a softmax.

torch's flash kernel for CPUs takes over half of a training step where heads are 32 wide: at 16 rows
of 384 tokens, 4 heads, bfloat16, forward and backward take 32 ms a layer in it and 15 ms here. The
whole map is held, so this is for sequences of at most a few thousand tokens.
"""

import ctypes
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

NAME = "sparing_causal"
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # the parameters of glibc's mallopt
LARGEST_THRESHOLD = 32 << 20  # as much as mallopt takes


def causal_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """Causal attention without padding masks: query [B, H, T, D], key and value [B, G, T, D].

    Registered with transformers; returns [B, T, H, D]. Queries of one kv head go in one product.
    ``mask``: None, or [B, 1, T, T] to be added to the scores, causal itself.
    """
    rows, heads, length, width = query.shape
    groups = key.shape[1]
    scale = options.get("scaling") or width**-0.5
    flat = (rows * groups, heads // groups * length, width)
    if mask is None:
        ahead = _ahead(length, heads // groups, query.dtype, query.device)
    else:
        each = mask.to(query.dtype).expand(rows, groups, length, length)
        ahead = each.repeat(1, 1, heads // groups, 1).view(*flat[:2], length)
    scores = torch.baddbmm(
        ahead, (query * scale).reshape(flat), key.reshape(flat[0], length, width).mT
    )
    mixed = scores.softmax(-1) @ value.reshape(flat[0], length, width)
    return mixed.view(rows, heads, length, width).transpose(1, 2), None


@lru_cache(maxsize=4)
def _ahead(length: int, heads: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[1, heads * T, T]: minus infinity where a key is ahead of its query, for each head."""
    ahead = torch.full((length, length), float("-inf"), dtype=dtype, device=device).triu_(1)
    return ahead.repeat(heads, 1)[None]


AttentionInterface.register(NAME, causal_attention)


def keep_freed_memory() -> None:
    """Have glibc keep what is freed: fresh pages for every large tensor cost as much as the sums.

    Does nothing where there is no glibc.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(MMAP_THRESHOLD, LARGEST_THRESHOLD)
        libc.mallopt(TRIM_THRESHOLD, (2 << 30) - 1)
