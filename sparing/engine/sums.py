"""Sums over the vocabulary in an order that depends only on a row's length."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

LANES = 64  # partial sums of a row; torch would split a single long row among its threads
AT_ONCE = 1 << 18  # numbers copied at a time


def sum_rows(x: Float[Tensor, "M V"]) -> Float[Tensor, " M"]:
    """The sum of each row, bit for bit the same in any batch and with any number of threads."""
    even = x.shape[1] // LANES * LANES
    lanes = x[:, :even].unflatten(1, (LANES, -1)).sum(-1)
    return torch.cat([lanes, x[:, even:]], 1).sum(-1)


def likeliest(logits: Float[Tensor, "M V"]) -> tuple[Int[Tensor, " M"], Float[Tensor, " M"]]:
    """The likeliest token of each row, and its probability."""
    highest, argmax = logits.max(-1)
    return argmax, top_probability(logits, highest)


def top_probability(
    logits: Float[Tensor, "M V"], highest: Float[Tensor, " M"]
) -> Float[Tensor, " M"]:
    """p of the likeliest token: exp(max - logsumexp) = 1 / sum_i exp(x_i - max).

    Processes a few rows at a time, without a second ``[M, V]``.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    rows = max(AT_ONCE // logits.shape[1], 1)
    parts = zip(logits.split(rows), highest.split(rows), strict=True)
    powers = (part.to(wide).sub(high.to(wide)[:, None]).exp_() for part, high in parts)
    return torch.cat([sum_rows(part).reciprocal() for part in powers])
