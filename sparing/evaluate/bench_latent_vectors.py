"""What the vectors of latent steps are like: their lengths, and whether they collapse into one."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from statistics import mean
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sparing.api import Engine
from sparing.engine.latent_switch import Thought
from sparing.engine.run import Run
from sparing.evaluate.batch_generate import Settings
from sparing.latent.switch import LearnedSwitch, Thinker
from sparing.tasks.problem import Problem

LONGEST = 32  # latents of a row that are looked at


@dataclass(frozen=True)
class Watching(Thinker):
    """A Thinker that keeps the lengths of the hidden state and of the vector it makes of it."""

    hidden: list[float] = field(default_factory=list)
    fused: list[float] = field(default_factory=list)

    def __call__(self, hidden: Float[Tensor, " E"], logits: Float[Tensor, " V"]) -> Thought:
        thought = super().__call__(hidden, logits)
        self.hidden.append(float(hidden.norm()))
        self.fused.append(float(thought.vector.norm()))
        return thought


def vectors(engine: Engine, problems: Sequence[Problem], settings: Settings) -> dict[str, Any]:
    """Mean lengths of hidden state, embedding and vector, and of each row's latents the distance to
    the one before it, relative to their mean length; no lengths where nothing was thought.

    A distance of 0 is a latent that is the one before it again: collapse.
    """
    requests = [settings.request(engine, problem, tag) for tag, problem in enumerate(problems)]
    switches = [request.switch for request in requests if isinstance(request.switch, LearnedSwitch)]
    known = {f.name: getattr(switches[0].thinker, f.name) for f in fields(Thinker)}
    watching = Watching(**known)
    for switch in switches:
        switch.thinker = watching
    run = Run(engine.loop(requests, settings.depth, settings.batch_size), requests)
    for _ in run:
        pass
    rows = [[row.vectors[at] for at in sorted(row.vectors)][:LONGEST] for row in run.rows]
    return {
        "problems": len(problems),
        "latents": len(watching.hidden),
        "hidden": mean(watching.hidden) if watching.hidden else None,
        "embedding": float(watching.embeddings.norm()),
        "fused": mean(watching.fused) if watching.fused else None,
        "distances": [distances(row) for row in rows if len(row) > 1],
    }


def distances(row: Sequence[Float[Tensor, " E"]]) -> list[float]:
    """Of each latent to the one before it, over the mean length of both."""
    z = torch.stack(list(row)).double()
    lengths = z.norm(dim=1)
    apart = (z[1:] - z[:-1]).norm(dim=1)
    return [round(d, 4) for d in (2 * apart / (lengths[1:] + lengths[:-1])).tolist()]
