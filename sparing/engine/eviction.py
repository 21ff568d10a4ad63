"""What stays in the cache when a row reaches its budget (spec: DynTS, arXiv 2601.18383).

A policy only scores slots; what is protected and how many survive is one rule for all of them.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from sparing.engine.cache import Kind
from sparing.engine.sampling import uniform
from sparing.errors import OptionError, PromptError
from sparing.options import Memory

DEFAULT_RATIO = 0.4  # of the thoughts' room for the local window; of the unprotected that survive
LEAST_FREED = 0.05  # of the budget, at every eviction
ANY_TOKEN = -1  # the token id under which the random policy draws its noise


@dataclass(frozen=True)
class Budget:
    """A row's memory in slots: an eviction is due when ``slots`` are in use.

    ``local``: most recent tokens protected; ``selection``: survivors among the unprotected, a
    count or a ratio of them.
    """

    slots: int
    question: int
    local: int
    selection: int | float

    @classmethod
    def of(cls, memory: Memory, question: int, thinking: int) -> "Budget | None":
        """The budget of a row whose prompt has ``question`` tokens; None where all is kept.

        A share s means ``question + s * thinking``. Raises PromptError where the prompt does not
        fit, naming the smallest budget that does.
        """
        if memory.budget is None:
            return None
        share = isinstance(memory.budget, float)
        slots = question + int(memory.budget * thinking) if share else int(memory.budget)
        local = memory.local or max(1, int(DEFAULT_RATIO * (slots - question)))
        if question + local + 1 > slots:
            least = question + (memory.local or 1) + 1
            raise PromptError(
                f"budget must be at least question + local + 1 = {least} slots, got {slots}; "
                f"pass --budget {least} or more, or a shorter prompt"
            )
        selection = DEFAULT_RATIO if memory.selection is None else memory.selection
        return cls(slots, question, local, selection)

    def survivors(self, unprotected: int) -> int:
        """How many of the unprotected slots stay."""
        if isinstance(self.selection, float):
            return int(self.selection * unprotected)
        return min(self.selection, unprotected)

    @property
    def least_freed(self) -> float:
        return max(1.0, LEAST_FREED * self.slots)


def select(
    scores: Float[np.ndarray, " S"], kinds: Int[np.ndarray, " S"], budget: Budget
) -> Bool[np.ndarray, " S"] | None:
    """Which slots stay; None where no eviction can free enough (the row ends).

    Protected: the prompt, the ``local`` last slots, answers as long as that leaves enough to free,
    then no longer, oldest first. Of the rest the best ``selection`` stay, ties to the later.
    """
    window = np.arange(len(kinds)) >= len(kinds) - budget.local
    fixed = window | (kinds == Kind.PROMPT)
    free = ~fixed & (kinds != Kind.ANSWER)
    answers = np.flatnonzero(~fixed & (kinds == Kind.ANSWER))
    thoughts = int(free.sum())
    for opened in range(len(answers) + 1):
        unprotected = thoughts + opened
        if unprotected - budget.survivors(unprotected) >= budget.least_freed:
            free[answers[:opened]] = True
            return ~free | top(scores, free, budget.survivors(unprotected))
    return None


def top(
    scores: Float[np.ndarray, " S"], among: Bool[np.ndarray, " S"], count: int
) -> Bool[np.ndarray, " S"]:
    """Mark the ``count`` highest scores among the given slots; ties go to the later slot."""
    candidates = np.flatnonzero(among)
    order = np.lexsort((candidates, scores[candidates]))
    marked = np.zeros(len(scores), bool)
    marked[candidates[order[len(order) - count :]]] = True
    return marked


@dataclass(frozen=True)
class SlotView:
    """What a policy sees of a row: its slots in use, in position order."""

    positions: Int[np.ndarray, " S"]
    kinds: Int[np.ndarray, " S"]
    scores: Float[np.ndarray, " S"]  # predicted importance, 0 without a predictor
    seed: int


@runtime_checkable
class EvictionPolicy(Protocol):
    """Scores the slots of a row that reached its budget: higher stays."""

    name: ClassVar[str]

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]: ...


class Window:
    """Question and most recent tokens: what was said last is kept."""

    name: ClassVar[str] = "window"

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        return view.positions.astype(np.float64)


@dataclass(frozen=True)
class Streaming:
    """Attention sinks and most recent tokens (StreamingLLM, arXiv 2309.17453).

    The first ``sinks`` thinking tokens stay beside the recent ones. Unlike the paper, the question
    is protected here as under every policy, so it holds the sinks of the prompt as well.
    """

    sinks: int = 4
    name: ClassVar[str] = "streaming"

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        first = np.flatnonzero(view.kinds != Kind.PROMPT)[: self.sinks]
        scores = view.positions.astype(np.float64)
        scores[first] += scores[-1] + 1
        return scores


class Random:
    """Noise hashed from the row's seed and the position: a slot's score never changes."""

    name: ClassVar[str] = "random"

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        positions = torch.from_numpy(view.positions)
        return uniform(view.seed, ANY_TOKEN, positions).numpy()


def find_policy(memory: Memory) -> EvictionPolicy | None:
    """The policy that the options ask for; None keeps everything."""
    if memory.budget is None:
        return None
    if memory.policy == "learned":
        raise OptionError(
            "policy learned needs a model with an importance predictor, got one without; "
            "use window, or train one with `sparing train predictor`"
        )
    policies: dict[str, EvictionPolicy] = {
        "auto": Window(),
        "window": Window(),
        "streaming": Streaming(),
        "random": Random(),
    }
    return policies[memory.policy]
