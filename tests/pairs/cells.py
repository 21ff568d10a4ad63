"""The axes of the matrix, and what an engine says at each of its cells."""

import os
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sparing import Depth, Latent, Memory, Sampling
from sparing.api import Engine
from sparing.depth.layer_sets import TunedLayerSet
from sparing.depth.state import DraftingState
from sparing.engine.result import Result
from sparing.memory.find import POLICIES
from sparing.model.devices import placed
from tests.depth.planted import IDLE, planted
from tests.engine.driving import run
from tests.families import HUB
from tests.latent.thinking import thinker, thinking
from tests.memory.small import random_predictor
from tests.pairs.covering import covering

AXES = {
    "family": ["llama", "mistral", "qwen2", "qwen3"],
    "policy": ["full", *POLICIES],
    "latent": ["off", "learned", "confidence"],
    "picks": ["greedy", "sampled"],
    "draft": [
        "off", "lookup", "layers", "layers tree", "hybrid", "hybrid tree", "auto", "auto tree",
    ],
    "rows": ["alone", "together"],
}  # fmt: skip
HUB_AXES = AXES | {"family": list(HUB)}
ALL = os.environ.get("SPARING_PAIRS") == "all"
COUNT = 32
PROMPTS = ["Q<think>", "so, 7 + 9 is", "abcabcabcab<think>"]  # two think, one answers
ROOMS = (12, 15, 19)  # slots beside the prompt: evictions come at different times
LATENTS = {
    "off": Latent(),
    "learned": Latent(mode="learned", most=8),
    "confidence": Latent(mode="confidence", tau=0.12, most=8),
}
SURE = {"gemma2", "gemma3"}  # their random checkpoints are, so that they think below another tau
SAMPLINGS = {
    "greedy": Sampling(temperature=0.0, max_new_tokens=COUNT, ignore_eos=True),
    "sampled": Sampling(temperature=0.8, top_p=0.95, seed=3, max_new_tokens=COUNT, ignore_eos=True),
}


class Cell(NamedTuple):
    """A value of each axis."""

    family: str
    policy: str
    latent: str
    picks: str
    draft: str
    rows: str

    def __str__(self) -> str:
        return "-".join(self).replace(" ", "-")

    @property
    def plain(self) -> "Cell":
        """Without drafts, all rows together: what the cell has to equal."""
        return self._replace(draft="off", rows="together")

    @property
    def thoughts(self) -> Latent:
        """Its latent steps."""
        latent = LATENTS[self.latent]
        sure = self.latent == "confidence" and self.family in SURE
        return latent.model_copy(update={"tau": 0.9}) if sure else latent

    @property
    def depth(self) -> Depth:
        """However unsure a random model is, it drafts many tokens."""
        draft, _, shape = self.draft.partition(" ")
        trees = shape == "tree"
        return Depth(draft=draft, trees=trees, confidence=0.0, max_draft=30 if trees else 9)


def cells(axes: dict[str, list[str]] = AXES, strength: int = 3) -> list[Cell]:
    """Every ``strength`` values in some cell, those with the same ``plain`` one after another;
    all cells where SPARING_PAIRS=all asks for them."""
    return sorted(Cell(**row) for row in covering(axes, len(axes) if ALL else strength))


def checkpoint(family: str) -> Path:
    """It thinks latent steps, and some of its sub-layers do nothing."""
    return thinking(family, source=planted(family))


@cache
def engine(family: str, dtype: str = "float64", device: str = "cpu") -> Engine:
    """With a predictor of random weights and the set of the idle sub-layers."""
    bare = thinker(checkpoint(family), dtype, device=device)
    predictor = random_predictor(width(bare), dtype=torch.float64)
    predictor = predictor.to(bare.decoder.device, bare.decoder.dtype)
    drafting = DraftingState(bare.decoder, {"planted": TunedLayerSet(IDLE, 1.0, 2.0)})
    return Engine(bare.decoder, bare.chat, family, predictor, drafting, bare.latents)


def width(model: Engine) -> int:
    """Of its hidden states."""
    return model.decoder.embedding.rows(placed([0], model.decoder.device)).shape[1]


def memories(cell: Cell) -> list[Memory]:
    """Every row has a budget of its own."""
    if cell.policy == "full":
        return [Memory()] * len(PROMPTS)
    asked = [len(engine(cell.family).chat.encode(prompt).ids) for prompt in PROMPTS]
    return [
        Memory(budget=question + room, local=5, policy=cell.policy)
        for question, room in zip(asked, ROOMS, strict=True)
    ]


def answers(
    cell: Cell, heard: list[list[int]] | None = None, model: Engine | None = None, **parts: Any
) -> list[Result]:
    """``heard``: texts that lookup knows from earlier requests; ``parts``: of the loop; ``model``:
    by default the one in float64."""
    model = model or engine(cell.family)
    model.drafting.forget()
    for text in heard or []:
        model.drafting.ngrams.add(text, len(text))
    return run(
        model,
        PROMPTS,
        SAMPLINGS[cell.picks],
        memories(cell),
        batch_size=1 if cell.rows == "alone" else len(PROMPTS),
        depth=cell.depth,
        latent=cell.thoughts,
        **parts,
    )
