"""The measured cost of passes with sub-layers left out, and the speed of a layer set by it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from sparing.engine.cache import SlotCache
from sparing.model.inputs import Forward, RowInput
from sparing.model.layer_set import LayerSet
from sparing.model.matrix import Matrix

REPEATS = 2
VERIFIED = 8  # tokens of the pass that shows what more of them cost


@dataclass(frozen=True)
class Costs:
    """Costs at one context length, in plain steps.

    ``rest``: of a draft pass without any sub-layer: head and norms.
    ``attention``, ``mlp``: of one sub-layer.
    ``token``: of each further token in a verify pass.
    """

    rest: float
    attention: float
    mlp: float
    token: float

    def draft(self, layer_set: LayerSet) -> float:
        """Of a drafted token."""
        ran = sum(layer_set.attention), sum(layer_set.mlp)
        return self.rest + ran[0] * self.attention + ran[1] * self.mlp

    def verify(self, drafted: int) -> float:
        return 1 + drafted * self.token

    def speed(self, layer_set: LayerSet, agreement: float, most: int) -> float:
        """Expected tokens a plain step's time, at the best draft length ``k`` up to ``most``.

        ``max_k (1 - a^(k+1)) / (1 - a) / (k c + v(k))`` (Leviathan et al. 2023, arXiv 2211.17192,
        theorem 3.8); ``a``: the ``agreement``, ``c``: a draft pass, ``v``: the verify pass.
        """
        cost = self.draft(layer_set)
        best, expected, power = 0.0, 1.0, 1.0
        for drafted in range(1, most + 1):
            power *= agreement
            expected += power
            best = max(best, expected / (drafted * cost + self.verify(drafted)))
        return best

    def cautious_speed(
        self, layer_set: LayerSet, matchness: float, tokens: int, most: int
    ) -> float:
        """``speed`` by a ``matchness`` over few ``tokens``: two more are added, one right and one
        wrong, which draws the share towards a half."""
        return self.speed(layer_set, (matchness * tokens + 1) / (tokens + 2), most)


def measure(
    decoder: Forward, cache: SlotCache, row: int, position: int, head: Matrix | None = None
) -> Costs:
    """Time passes over a row's cache, in its ``VERIFIED`` next slots; ``head``: of drafts."""
    layers = decoder.shape.layers
    every, none = (True,) * layers, (False,) * layers
    whole = LayerSet(every, every)

    def step(layer_set: LayerSet, count: int, of_drafts: bool) -> Callable[[], object]:
        length = cache.lengths[row]
        new = RowInput(row, length, [0] * count, [position + i for i in range(count)], scored=count)
        return lambda: decoder([new], cache, layer_set, head=head if of_drafts else None)

    plain, verify, drafted, attention, mlp, rest = timed(
        decoder.device,
        [
            step(whole, 1, False),
            step(whole, VERIFIED, False),
            step(whole, 1, True),
            step(LayerSet(every, none), 1, True),
            step(LayerSet(none, every), 1, True),
            step(LayerSet(none, none), 1, True),
        ],
    )
    # the mean of two estimates: the sub-layer alone, and beside all others
    one_attention = (attention - rest + drafted - mlp) / 2 / layers
    one_mlp = (mlp - rest + drafted - attention) / 2 / layers
    return Costs(
        rest=max(rest / plain, 0.0),
        attention=max(one_attention / plain, 0.0),
        mlp=max(one_mlp / plain, 0.0),
        token=max((verify / plain - 1) / (VERIFIED - 1), 0.0),
    )


def timed(device: torch.device, passes: Sequence[Callable[[], object]]) -> list[float]:
    """Median seconds of each pass, run in turns, a GPU synchronized."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds: list[list[float]] = [[] for _ in passes]
    for _ in range(REPEATS):
        for run, found in zip(passes, seconds, strict=True):
            begun = time.perf_counter()
            run()
            wait()
            found.append(time.perf_counter() - begun)
    return [median(found) for found in seconds]
