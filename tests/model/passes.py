"""Single passes through a decoder's protocol, and the transformers model that they must equal."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.masking_utils import eager_mask

from sparing.model.assemble import load_decoder
from sparing.model.decoder import Decoder
from sparing.model.inputs import RowInput
from tests.tiny import reference

MAPS = "exact_maps"  # an attention by that name, of transformers' models


class Slots:
    """Keys and values behind the KeyValues protocol, full of leftovers that nobody may see."""

    def __init__(self, decoder: Any, rows: int = 1, slots: int = 64) -> None:
        shape = decoder.shape
        noise = torch.Generator().manual_seed(7)
        size = (2, rows, shape.kv_heads, slots, shape.head_dim)
        self.kv = [
            3 * torch.randn(size, generator=noise).to(decoder.dtype) for _ in range(shape.layers)
        ]
        self.scales: list[Tensor] = []
        self.positions = np.arange(slots)[None].repeat(rows, 0)

    def fill(self, row: int, past: DynamicCache, count: int) -> None:
        """Take a row's first ``count`` slots over from transformers."""
        for ours, theirs in zip(self.kv, past.layers, strict=True):
            ours[0, row, :, :count] = theirs.keys[0, :, :count]
            ours[1, row, :, :count] = theirs.values[0, :, :count]

    def copy(self) -> "Slots":
        other = object.__new__(Slots)
        other.kv, other.scales = [layer.clone() for layer in self.kv], []
        other.positions = self.positions.copy()
        return other


def new(ids: Sequence[int], cached: int = 0, row: int = 0, **more: Any) -> RowInput:
    """The next tokens of a row, in consecutive positions; all of them are scored."""
    positions = list(range(cached, cached + len(ids)))
    return RowInput(row, cached, list(ids), positions, **{"scored": len(ids)} | more)


@cache
def decoder(path: Path, dtype: str = "float64") -> Decoder:
    return load_decoder(path, dtype=getattr(torch, dtype))


@cache
def oracle(path: Path) -> Any:
    """transformers in float64 throughout: its norms would go through float32."""
    return exact_norms(reference(path))


def exact_norms(model: Any) -> Any:
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = _exact_norm.__get__(module)
    return model


def _exact_norm(self: Any, x: Tensor) -> Tensor:
    scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    return self.weight * (x * scale)


def exact_maps(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Eager attention in the model's own dtype: transformers' softmax goes through float32."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    scores = query @ key.mT * options["scaling"]
    if cap := options.get("softcap"):
        scores = cap * (scores / cap).tanh()
    scores = scores if mask is None else scores + mask
    if (sinks := options.get("s_aux")) is not None:
        sinks = sinks[None, :, None, None].expand(*scores.shape[:3], 1)
        scores = torch.cat((scores, sinks), -1)
    weights = scores.softmax(-1)[..., : key.shape[2]]
    return (weights @ value).transpose(1, 2).contiguous(), weights


AttentionInterface.register(MAPS, exact_maps)
AttentionMaskInterface.register(MAPS, eager_mask)


@torch.inference_mode()
def expected(model: Any, ids: Sequence[int], **options: Any) -> Any:
    """transformers over a whole sequence at once, without a cache."""
    return model(torch.tensor([list(ids)]), use_cache=False, **options)


def random_ids(count: int, vocabulary: int = 250, seed: int = 0) -> list[int]:
    noise = torch.Generator().manual_seed(seed)
    return torch.randint(vocabulary, (count,), generator=noise).tolist()


def assert_close(ours: Tensor, theirs: Tensor, within: float) -> None:
    assert ours.shape == theirs.shape
    assert ours.isfinite().all()
    assert ((ours.double() - theirs.double()).abs() < within).all()
