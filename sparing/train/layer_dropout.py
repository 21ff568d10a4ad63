"""Layer dropout and early-exit loss (LayerSkip, arXiv 2404.16710), so that layers can be skipped.

Differences from the paper: attention and MLP are dropped separately, because layer sets skip them
separately; the exits are a few fixed depths, all of them in every step.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class LayerDropout:
    """Drops sub-layers of a Llama-like transformers model, independently for each row of a batch.

    The rate grows with depth: ``rate * (exp(l ln 2 / (L - 1)) - 1)`` for layer l of L (LayerSkip,
    eq. 1 and 2), so the first layer always runs.
    """

    def __init__(self, model: Any, rate: float) -> None:
        self.layers = list(model.model.layers)
        count = len(self.layers)
        self.rates = [rate * math.expm1(i * math.log(2) / max(count - 1, 1)) for i in range(count)]
        self.keep: Tensor | None = None  # [2 L, B] of 0 and 1 while training, else None
        self.rows: Tensor | None = None  # [N] the row of each token, in passes over flat tokens
        for i, layer in enumerate(self.layers):
            for part, last in enumerate((layer.self_attn.o_proj, layer.mlp.down_proj)):
                last.register_forward_hook(self._hook(2 * i + part))

    def draw(self, rows: int, *seed: int) -> None:
        """Draw the dropped sub-layers of the next pass of ``rows`` rows, from the seed alone."""
        rates = np.repeat(self.rates, 2)[:, None]
        noise = np.random.default_rng(seed).random((len(rates), rows))
        self.keep = torch.from_numpy((noise >= rates).astype(np.float32))

    def off(self) -> None:
        self.keep = None

    def _hook(self, at: int) -> Any:
        def scale(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            if self.keep is None:
                return output
            keep = self.keep[at].to(output)
            return output * (keep[:, None, None] if self.rows is None else keep[self.rows][:, None])

        return scale


def exit_depths(layers: int, shares: Sequence[float]) -> list[int]:
    """The number of layers before each early exit; the last layer is not an early exit."""
    depths = {max(1, round(layers * share)) for share in shares}
    return sorted(depth for depth in depths if depth < layers)
