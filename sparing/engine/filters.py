"""Sampling filters for many rows at once, equal to transformers' processors.

The order is temperature, top-k, top-p (the token that crosses p stays), min-p.
"""

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparing.engine.sums import sum_rows
from sparing.model.devices import placed


@runtime_checkable
class Filters(Protocol):
    """The sampling options of a row; ``temperature`` is above 0."""

    @property
    def temperature(self) -> float: ...
    @property
    def top_k(self) -> int | None: ...
    @property
    def top_p(self) -> float: ...
    @property
    def min_p(self) -> float: ...


def passing(
    logits: Float[Tensor, "M V"], options: Sequence[Filters]
) -> tuple[Int[Tensor, "M K"], Float[Tensor, "M K"]]:
    """The tokens that pass the filters, likeliest first, and their log p up to a constant.

    Returns their places in the row and their log p. At least one token passes. ``K`` is the number
    of candidates of the row with the most; shorter rows are filled with -inf. The likeliest token's
    log p is 0, so that no temperature is too low. NaN (from an infinite penalty, for example)
    passes.

    Few tokens are sorted: ``least`` drops most of them in one comparison.
    """
    highest = logits.amax(-1, keepdim=True)
    places, values = packed(logits, ~(logits < least(logits, highest, options)))
    temperature = column(logits, [o.temperature for o in options])
    log_p = (values.double() - highest.double()) / temperature
    log_p, order = log_p.sort(descending=True, stable=True)
    power = log_p.exp()
    top_p, min_p = (column(logits, [getattr(o, n) for o in options]) for n in ("top_p", "min_p"))
    whole = power.cumsum(-1)[:, -1:].clone()
    if open_ended := [at for at, o in enumerate(options) if o.top_k is None and o.top_p < 1]:
        at = placed(open_ended, logits.device)
        bare = rows_of(logits, open_ended).double() - highest[at].double()
        whole[at] = sum_rows(bare.div_(temperature[at]).exp_())[:, None]
    p = power / whole
    gone = (p.cumsum(-1) - p >= top_p) & (top_p < 1) | (p < min_p * p[:, :1])
    return places.gather(1, order), log_p.masked_fill(gone, float("-inf"))


def least(
    logits: Float[Tensor, "M V"], highest: Float[Tensor, "M 1"], options: Sequence[Filters]
) -> Float[Tensor, "M 1"]:
    """A logit below which no token passes: the k-th best, else a bound on p without its sum.

    p_i <= exp((x_i - max) / T). So a token below min_p of the likeliest fails. The tokens below
    (1 - top_p) / 2V are outside of the nucleus, even all of them together.
    """
    size = logits.shape[1]
    bounds = [max((1 - o.top_p) / (2 * size), o.min_p) for o in options]
    below = [math.log(bound) if bound else -math.inf for bound in bounds]
    below = [o.temperature * log_p for o, log_p in zip(options, below, strict=True)]
    floor = (highest.double() + column(logits, below) * (1 + 1e-9)).to(logits.dtype)
    floor = torch.nextafter(floor, torch.full_like(floor, -math.inf))
    if ranked := [at for at, o in enumerate(options) if o.top_k is not None]:
        ks = [min(options[at].top_k or size, size) for at in ranked]
        best = rows_of(logits, ranked).topk(max(ks)).values
        at = placed(ks, best.device)[:, None] - 1
        floor[placed(ranked, best.device)] = best.gather(1, at)
    return floor


def packed(
    logits: Float[Tensor, "M V"], kept: Bool[Tensor, "M V"]
) -> tuple[Int[Tensor, "M K"], Float[Tensor, "M K"]]:
    """Places and logits of the kept tokens, at the front of each row, followed by -inf.

    A device other than the CPU is not waited for to count them: there all keep their places.
    """
    if logits.device.type != "cpu":
        places = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
        return places, logits.masked_fill(~kept, float("-inf"))
    rows, places = kept.nonzero(as_tuple=True)
    counts = kept.sum(-1)
    at = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    shape = (len(logits), int(counts.max()))
    where, values = places.new_zeros(shape), logits.new_full(shape, float("-inf"))
    where[rows, at], values[rows, at] = places, logits[rows, places]
    return where, values


def rows_of(values: Float[Tensor, "M V"], rows: Sequence[int]) -> Float[Tensor, "_m V"]:
    """Some of the rows; no copy if all are chosen."""
    return values if len(rows) == len(values) else values[placed(list(rows), values.device)]


def column(like: Tensor, values: Sequence[float]) -> Float[Tensor, "M 1"]:
    return placed(values, like.device, torch.float64)[:, None]
