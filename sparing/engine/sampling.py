"""Sampling as a function of (seed, position, token id), without a stream of random numbers.

The token is argmax(log p + g), g Gumbel noise hashed from seed, position and token id, over the
filtered distribution p (the Gumbel-max trick; drafter-invariant speculation, arXiv 2408.07978). So
a seed gives the same tokens with and without drafting, in any batch, in any run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparing.engine.events import Logprobs
from sparing.engine.filters import column, passing, rows_of
from sparing.model.devices import moved, placed

AT_ONCE = 1 << 21  # logits processed at a time
GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64: splitmix64's increment
NONE = -1  # no token
Finder: TypeAlias = Callable[..., Tensor]
MIX_1, MIX_2 = -4658895280553007687, -7723592293110705685  # 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _shift(x: Int[Tensor, "..."], bits: int) -> Int[Tensor, "..."]:
    """Logical right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """splitmix64's finalizer (Steele, Lea and Flood 2014), on wrapping int64."""
    x = (x ^ _shift(x, 30)) * MIX_1
    x = (x ^ _shift(x, 27)) * MIX_2
    return x ^ _shift(x, 31)


def uniform(
    seed: int | Int[Tensor, "M 1"], position: int | Int[Tensor, "M 1"], ids: Int[Tensor, "*M K"]
) -> Float[Tensor, "*M K"]:
    """Uniform noise in (0, 1), float64, one number for each (seed, position, id)."""
    state = mix(torch.as_tensor(seed, device=ids.device) + GOLDEN)
    state = mix((state ^ position) + GOLDEN)
    bits = _shift(mix((state ^ ids) + GOLDEN), 11)  # 53 bits
    return (bits.double() + 0.5) * 2.0**-53


def gumbel(
    seed: int | Int[Tensor, "M 1"], position: int | Int[Tensor, "M 1"], ids: Int[Tensor, "*M K"]
) -> Float[Tensor, "*M K"]:
    """-log(-log u), u uniform: Gumbel noise for the token ids."""
    return -torch.log(-torch.log(uniform(seed, position, ids)))


# The logits of the next token, from prompt and output so far and the model's own logits.
Processor: TypeAlias = Callable[[Sequence[int], Tensor], Tensor]


@dataclass(frozen=True)
class Sampler:
    """The sampling options of a row. Temperature 0 is greedy; see ``filters`` for the others.

    ``logprobs``: number of likeliest tokens in ``Logprobs.top``; None: no Logprobs at all
    ``processor``: changes the logits of each picked token, before temperature and filters
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    logprobs: int | None = None
    processor: Processor | None = None

    @property
    def is_argmax(self) -> bool:
        """Whether the token is the argmax of the unchanged logits."""
        return self.temperature == 0 and self.plain

    @property
    def plain(self) -> bool:
        """Whether the tokens before it leave the logits unchanged."""
        return self.repetition_penalty == 1.0 and self.processor is None

    @property
    def filters(self) -> bool:
        """Whether a filter excludes some tokens."""
        return self.top_k is not None or self.top_p < 1 or self.min_p > 0

    def pick(
        self, logits: Float[Tensor, " V"], position: int, seen: Bool[Tensor, " V"] | None
    ) -> int:
        """The token for ``position``; ``seen``: the ids of prompt and output, for the penalty."""
        return draw([Draw(self, position, seen)], logits[None])[0][0]

    def told(self, logits: Float[Tensor, " V"], token: int) -> Logprobs | None:
        """The Logprobs of a picked token; None unless asked for."""
        if self.logprobs is None:
            return None
        log_p = logits.double().log_softmax(-1)
        top = log_p.topk(min(self.logprobs, len(log_p)))
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return Logprobs(float(log_p[token]), list(pairs))


@dataclass(frozen=True)
class Draw:
    """One token to draw: the sampler, the position, and the ids ``seen`` so far.

    ``tokens``: prompt and output before it, for the processor; None: it is not asked
    """

    sampler: Sampler
    position: int
    seen: Bool[Tensor, " _V"] | None = None
    tokens: Sequence[int] | None = None

    @property
    def changed(self) -> bool:
        """Whether the logits are changed."""
        by_penalty = self.seen is not None and self.sampler.repetition_penalty != 1.0
        return by_penalty or (self.tokens is not None and self.sampler.processor is not None)

    @property
    def found_by(self) -> "Finder":
        if self.sampler.temperature == 0:
            return likeliest
        return of_some if self.sampler.filters else of_all

    def after(
        self, logits: Float[Tensor, " V"], words: Int[Tensor, " V"] | None
    ) -> Float[Tensor, " V"]:
        """The logits of ``words`` by the processor, and with the penalty of the seen ids."""
        if self.tokens is not None and self.sampler.processor is not None:
            logits = self.sampler.processor(self.tokens, logits)
        if self.seen is None or self.sampler.repetition_penalty == 1.0:
            return logits
        seen = self.seen if words is None else self.seen[words]
        return penalized(logits, seen, self.sampler.repetition_penalty)


def draw(
    draws: Sequence[Draw],
    logits: Float[Tensor, "M V"],
    count: int = 1,
    words: Int[Tensor, " V"] | None = None,
) -> list[list[int]]:
    """The ``count`` best tokens of each draw, or fewer if fewer pass its filters.

    The first is the token to pick. A draw's tokens do not depend on the other draws.

    ``words``: the token ids of the logits' columns; None: all ids, in order
    """
    found: list[list[int]] = best(draws, logits, count, words).tolist()
    return [[token for token in tokens if token != NONE] for tokens in found]


@torch.inference_mode()
def best(
    draws: Sequence[Draw],
    logits: Float[Tensor, "M V"],
    count: int = 1,
    words: Int[Tensor, " V"] | None = None,
) -> Int[Tensor, "M K"]:
    """As ``draw``, on the logits' device; ``NONE`` where fewer pass."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if any(one.changed for one in draws):
        logits = torch.stack([one.after(x, words) for one, x in zip(draws, logits, strict=True)])
    if words is None:
        words = torch.arange(logits.shape[1], device=logits.device)
    count, at_once = min(count, len(words)), max(AT_ONCE // len(words), 1)
    found = []
    for find in (likeliest, of_some, of_all):
        places = [at for at, one in enumerate(draws) if one.found_by is find]
        for begin in range(0, len(places), at_once):
            part = places[begin : begin + at_once]
            ids = find([draws[at] for at in part], rows_of(logits, part), count, words)
            found.append((part, ids))
    if len(found) == 1:
        return found[0][1]
    every = words.new_full((len(draws), count), NONE)
    for part, ids in found:
        every[placed(part, words.device), : ids.shape[1]] = ids
    return every


def likeliest(
    draws: Sequence[Draw], logits: Float[Tensor, "M V"], count: int, words: Int[Tensor, " V"]
) -> Int[Tensor, "M K"]:
    """The best tokens at temperature 0."""
    if count == 1:
        return words[logits.argmax(-1, keepdim=True)]
    return words[logits.topk(count).indices]


def of_all(
    draws: Sequence[Draw], logits: Float[Tensor, "M V"], count: int, words: Int[Tensor, " V"]
) -> Int[Tensor, "M K"]:
    """The best tokens without filters."""
    temperature = column(logits, [one.sampler.temperature for one in draws])
    log_p = (logits.double() - logits.amax(-1, keepdim=True).double()) / temperature
    return noisiest(draws, words.expand(len(draws), -1), log_p, count)


def of_some(
    draws: Sequence[Draw], logits: Float[Tensor, "M V"], count: int, words: Int[Tensor, " V"]
) -> Int[Tensor, "M K"]:
    """The best tokens of those that pass the filters."""
    places, log_p = passing(logits, [one.sampler for one in draws])
    return noisiest(draws, words[places], log_p, count)


def noisiest(
    draws: Sequence[Draw], ids: Int[Tensor, "M N"], log_p: Float[Tensor, "M N"], count: int
) -> Int[Tensor, "M K"]:
    """argmax(log p + g), and the next best tokens."""
    settings = [[one.sampler.seed, one.position] for one in draws]
    seed, position = placed(settings, ids.device)[:, :, None].unbind(1)
    noisy = log_p + gumbel(seed, position, ids)
    if count == 1:
        return ids.gather(1, noisy.argmax(-1, keepdim=True))
    at = noisy.topk(min(count, noisy.shape[1])).indices
    return ids.gather(1, at).masked_fill(torch.isneginf(log_p.gather(1, at)), NONE)


def penalized(
    logits: Float[Tensor, " V"], seen: Bool[Tensor, " V"], penalty: float
) -> Float[Tensor, " V"]:
    """CTRL's repetition penalty (arXiv 1909.05858), on seen ids: x / penalty, x * penalty if
    x <= 0."""
    seen = moved(seen, logits.device)
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
