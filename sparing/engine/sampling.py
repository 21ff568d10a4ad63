"""Sampling as a function of (seed, position, token id): no stream of random numbers.

The token is argmax(log p + g), g Gumbel noise hashed from seed, position and token id, over the
filtered distribution p (the Gumbel-max trick; drafter-invariant speculation, arXiv 2408.07978). So
a seed gives the same tokens with drafting on or off, in any batch, on any run.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparing.engine.events import Logprobs

GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64: splitmix64's increment
MIX_1, MIX_2 = -4658895280553007687, -7723592293110705685  # 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _shift(x: Int[Tensor, "..."], bits: int) -> Int[Tensor, "..."]:
    """Logical right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """splitmix64's finalizer (Steele, Lea and Flood 2014), on wrapping int64."""
    x = (x ^ _shift(x, 30)) * MIX_1
    x = (x ^ _shift(x, 27)) * MIX_2
    return x ^ _shift(x, 31)


def uniform(seed: int, position: int, ids: Int[Tensor, " K"]) -> Float[Tensor, " K"]:
    """Noise in (0, 1), float64, one number for each (seed, position, id)."""
    state = mix(torch.tensor(seed, device=ids.device) + GOLDEN)
    state = mix((state ^ position) + GOLDEN)
    bits = _shift(mix((state ^ ids) + GOLDEN), 11)  # 53 bits
    return (bits.double() + 0.5) * 2.0**-53


def gumbel(seed: int, position: int, ids: Int[Tensor, " K"]) -> Float[Tensor, " K"]:
    """-log(-log u), u uniform: Gumbel noise for the token ids."""
    return -torch.log(-torch.log(uniform(seed, position, ids)))


@dataclass(frozen=True)
class Sampler:
    """How a row's tokens are picked. Temperature 0 is greedy. Filters as in transformers:
    temperature, then top-k, then top-p (the token that crosses p stays), then min-p.

    ``logprobs``: how many of the likeliest tokens are named beside a picked one; None: not even its
    own log p is told."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    logprobs: int | None = None

    @property
    def is_argmax(self) -> bool:
        """The token is the argmax of the bare logits."""
        return self.temperature == 0 and self.repetition_penalty == 1.0

    def pick(
        self, logits: Float[Tensor, " V"], position: int, seen: Bool[Tensor, " V"] | None
    ) -> int:
        """The token for ``position``; ``seen``: the ids of prompt and output, for the penalty."""
        return self.ranked(logits, position, seen, 1)[0]

    def ranked(
        self, logits: Float[Tensor, " V"], position: int, seen: Bool[Tensor, " V"] | None, n: int
    ) -> list[int]:
        """The ``n`` best tokens for ``position``, or as many as pass the filters; the first is the
        one to pick."""
        logits = logits.double() if logits.dtype == torch.float64 else logits.float()
        if self.repetition_penalty != 1.0 and seen is not None:
            logits = penalized(logits, seen, self.repetition_penalty)
        if self.temperature == 0:
            return (
                [int(logits.argmax())]
                if n == 1
                else logits.topk(min(n, len(logits))).indices.tolist()
            )
        ids, log_p = self.filtered(logits)
        noisy = log_p + gumbel(self.seed, position, ids)
        best = noisy.argmax()[None] if n == 1 else noisy.topk(min(n, len(ids))).indices
        found: list[int] = ids[best].tolist()
        return found

    def told(self, logits: Float[Tensor, " V"], token: int) -> Logprobs | None:
        """log p of the token and of the likeliest, as the model has them; None unless wanted."""
        if self.logprobs is None:
            return None
        log_p = logits.double().log_softmax(-1)
        top = log_p.topk(min(self.logprobs, len(log_p)))
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return Logprobs(float(log_p[token]), list(pairs))

    def filtered(
        self, logits: Float[Tensor, " V"]
    ) -> tuple[Int[Tensor, " K"], Float[Tensor, " K"]]:
        """Ids that pass the filters, one at least, and their log p up to a constant.

        The likeliest token's is 0, so that no temperature is too low. What is not a number, as
        behind a penalty beyond all bounds, stays: a step that fails would end all rows.
        """
        logits = logits.double()
        scaled = (logits - logits.max()) / self.temperature
        if self.top_k is None and self.top_p == 1.0 and self.min_p == 0.0:
            return torch.arange(len(scaled), device=scaled.device), scaled
        ids = torch.arange(len(scaled), device=scaled.device)
        if self.top_k is not None:
            least = scaled.topk(min(self.top_k, len(scaled))).values[-1]
            ids = (~(scaled < least)).nonzero()[:, 0]
            scaled = scaled[ids]
        p = scaled.softmax(0)
        # what is below this share is behind the nucleus, even all of it together: it is not sorted
        least_p = (self.min_p * p.max()).clamp(min=(1 - self.top_p) / (2 * len(p)))
        some = (~(p < least_p)).nonzero()[:, 0]
        scaled, order = scaled[some].sort(descending=True, stable=True)
        ids, p = ids[some[order]], p[some[order]]
        gone = (p.cumsum(0) - p >= self.top_p) | (p < self.min_p * p[0])
        return ids[~gone], scaled[~gone]


def penalized(
    logits: Float[Tensor, " V"], seen: Bool[Tensor, " V"], penalty: float
) -> Float[Tensor, " V"]:
    """CTRL's repetition penalty (arXiv 1909.05858): seen logits over or times ``penalty``."""
    seen = seen.to(logits.device)
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
