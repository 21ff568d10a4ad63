"""Example questions for a model."""

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec

from sparing.model.scope import Scope
from sparing.tasks.families import FAMILIES
from sparing.tasks.gym import entries
from sparing.tasks.wording import wording

GENERIC = (
    "Why is the sky blue?",
    "How many primes are there below 100?",
    "A train leaves at 09:48 and arrives at 17:05. How long is the journey?",
    "Name three rivers of Europe, and the seas that they reach.",
)
# Questions of seed 0, one of each family: generating them would import for seconds.
RECORDED = {
    "legs": "How many legs are there in total if you have 14 spiders, 6 sea slugs, 4 scorpions, "
    "6 humans, 3 leechs?",
    "countdown": "Calculate 17 using all of these numbers: 26, 2, 8.",
    "sums": "What is 113 + 190 - 795 - 587 + 186 + 894 + 171 - 786?",
    "times": "A conference call began at 05:24:31 and ended at 21:51:27. How long was the "
    "conference? Answer in HH:MM:SS.",
}


def examples(scope: Scope | None, seed: int) -> Sequence[str]:
    """A few questions for a model; with a scope, one of each family in it.

    They are no training questions. Raises OptionError for a seed other than 0 if reasoning-gym is
    not installed.
    """
    if scope is None:
        return GENERIC
    if seed == 0:
        return [RECORDED[name] for name in known(scope)]
    return [generated(name, seed) for name in known(scope)]


def known(scope: Scope) -> list[str]:
    """The names of the families in a scope."""
    return [name for name, question in RECORDED.items() if scope.outside(question) is None]


def has_more(scope: Scope | None) -> bool:
    """Whether another seed has other questions."""
    return bool(scope and known(scope)) and find_spec("reasoning_gym") is not None


@lru_cache(maxsize=256)
def generated(name: str, seed: int) -> str:
    """The first test question of a family's standard level for a seed."""
    family = FAMILIES[name]
    [entry] = entries(family.dataset, family.standard, "test", seed, 1)
    return wording(family.dataset, entry)
