"""Insert latent tokens into the token ids of examples, and remove them.

All randomness comes from (seed, stage, example), so a repeated run inserts at the same places.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from sparing.latent.settings import StageSettings
from sparing.train.examples import SHOWN, TAUGHT, Encoded, ExampleSet


def with_latents(
    examples: ExampleSet, gold: np.ndarray | None, token: int, settings: StageSettings
) -> ExampleSet:
    """The examples of a stage, with latents.

    ``gold [N]``: the probability of each token under the model of the stage before; None for fixed
        positions
    """

    def each(row: int) -> Encoded:
        example, start = examples[row], examples.starts[row]
        if gold is None:
            candidates = spread(example.roles, settings.most)
        else:
            own = gold[start : start + len(example.ids)]
            candidates = unsure(own, example.roles, settings.tau)
        rng = np.random.default_rng([settings.seed, settings.stage, row])
        drawn = draw(candidates, settings.most, settings.chances, rng)
        return insert(example, drawn, token, taught=settings.targets == "predict")

    return ExampleSet(map(each, range(len(examples))))


def unsure(gold: Sequence[float] | np.ndarray, roles: Sequence[int], tau: float) -> list[int]:
    """The taught tokens with a probability below ``tau``.

    Shown tokens (mistakes) are left out: they are unlikely by design.
    """
    return [at for at, role in enumerate(roles) if role != SHOWN and gold[at] < tau]


def spread(roles: Sequence[int], count: int) -> list[int]:
    """``count`` taught tokens at even distances, for fixed positions."""
    taught = [at for at, role in enumerate(roles) if role != SHOWN]
    count = min(count, len(taught))
    return [taught[(2 * i + 1) * len(taught) // (2 * count)] for i in range(count)]


def draw(
    candidates: Sequence[int], most: int, chances: Sequence[float], rng: np.random.Generator
) -> dict[int, int]:
    """Draw at most ``most`` candidates, without replacement, and the latents before each.

    A candidate gets j latents with probability ``chances[j]``.
    """
    count = min(most, len(candidates))
    chosen = np.sort(rng.choice(np.asarray(candidates, np.int64), count, replace=False))
    numbers = rng.choice(len(chances), size=count, p=chances)
    return {int(at): int(n) for at, n in zip(chosen, numbers, strict=True) if n}


def insert(example: Encoded, before: Mapping[int, int], token: int, taught: bool) -> Encoded:
    """Insert ``before[at]`` latents in front of the token at ``at``, as targets if ``taught``."""
    assert token not in example.ids
    assert not before or min(before) > 0
    ids: list[int] = []
    roles: list[int] = []
    for begin, end in pairwise([0, *sorted(before), len(example.ids)]):
        count = before.get(begin, 0)
        ids += [token] * count + example.ids[begin:end]
        roles += [TAUGHT if taught else SHOWN] * count + example.roles[begin:end]
    return Encoded(ids, roles, example.task)


def removed(example: Encoded, token: int) -> Encoded:
    """The example without its latents."""
    kept = [at for at, id_ in enumerate(example.ids) if id_ != token]
    ids, roles = ([values[at] for at in kept] for values in (example.ids, example.roles))
    return Encoded(ids, roles, example.task)
