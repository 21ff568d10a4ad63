"""Tiny checkpoints with a latent token, in transformers and made exact; rows with latents."""

import random
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparing.latent.attention import NAME
from sparing.latent.fusion import LatentVector
from sparing.latent.vector_config import Recipe
from tests.model.passes import exact_norms
from tests.tiny import reference, tiny

WORDS = 250  # token ids that rows are drawn from
LATENT = 255  # a byte that no row has
TINY = {"num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 4}


def recipe(**changed: Any) -> Recipe:
    return Recipe(**{"id": LATENT} | changed)


def vector(width: int = 24, seed: int = 0, **changed: Any) -> LatentVector:
    """In float64, whatever it learns drawn at random."""
    noise = torch.Generator().manual_seed(seed)
    made = LatentVector(recipe(**changed), width).double()
    for weight in made.parameters():
        weight.data = torch.randn(weight.shape, generator=noise).double() / weight.shape[-1] ** 0.5
    return made


@cache
def latent_reference(path: Path) -> Any:
    """The checkpoint in transformers, float64, with the attention of segments."""
    model = exact_norms(reference(path, attention="eager"))
    model.set_attn_implementation(NAME)
    return model


def model(family: str = "llama", **changed: Any) -> Any:
    return latent_reference(tiny(family, **TINY | changed))


def row(length: int, latents: int, seed: int = 0, longest: int = 2) -> list[int]:
    """``length`` words, and among them ``latents`` latents in runs of up to ``longest``."""
    noise = random.Random(seed)
    ids = [noise.randrange(WORDS) for _ in range(length)]
    while latents:
        run = min(noise.randint(1, longest), latents)
        at = noise.randint(1, len(ids))
        ids[at:at] = [LATENT] * run
        latents -= run
    return ids


def padded(rows: list[list[int]], more: int = 0, fill: int = 0) -> tuple[Tensor, Tensor]:
    """``ids`` [B, T] padded on the right, and the ``lengths``."""
    width = max(map(len, rows)) + more
    ids = torch.tensor([[*r, *[fill] * (width - len(r))] for r in rows])
    return ids, torch.tensor([len(r) for r in rows])
