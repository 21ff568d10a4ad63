"""Which slots an eviction keeps when a row reaches its budget (spec: DynTS, arXiv 2601.18383).

A policy only scores slots. The protected slots and the number of survivors follow one rule for all
policies.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparing.engine.cache import Kind
from sparing.errors import OptionError, PromptTooLong
from sparing.options import Memory

DEFAULT_RATIO = 0.4  # local: of the budget without the question; selection: of unprotected slots
LEAST_FREED = 0.05  # of the budget without the question, at every eviction
TOGETHER = 64  # passes whose attention is read at a time
LARGEST_MISS = 100_000  # slots, within which a larger budget is looked for
NO_TOKEN = -1  # the id of a latent's slot


@dataclass(frozen=True)
class Budget:
    """A row's memory in slots.

    ``slots``: the budget; an eviction is due when they are all in use
    ``question``: slots of the prompt
    ``local``: number of most recent slots, which are protected
    ``selection``: survivors among the unprotected slots, a count or a ratio
    """

    slots: int
    question: int
    local: int
    selection: int | float

    @classmethod
    def of(cls, memory: Memory, question: int, thinking: int) -> "Budget | None":
        """The budget of a row with a prompt of ``question`` tokens; None without a budget.

        A share s means ``question + s * thinking`` slots. Raises PromptTooLong if the prompt does
        not fit, with the smallest budget under which something can be evicted.
        """
        if memory.budget is None:
            return None
        share = isinstance(memory.budget, float)
        slots = question + int(memory.budget * thinking) if share else int(memory.budget)
        budget = cls.sized(memory, question, slots)
        if budget.fits:
            return budget
        larger = range(question + 2, question + LARGEST_MISS)
        least = next((n for n in larger if cls.sized(memory, question, n).evicts), larger.stop)
        raise PromptTooLong(
            f"budget must be at least {least} slots for this prompt of {question} tokens, got "
            f"{slots}; pass a budget of {least} or more, or a shorter prompt"
        )

    @classmethod
    def sized(cls, memory: Memory, question: int, slots: int) -> "Budget":
        """A budget of ``slots``, whether anything could be evicted under it or not."""
        ratio = DEFAULT_RATIO if memory.local is None else memory.local
        counted = isinstance(memory.local, int)
        local = int(ratio) if counted else max(1, int(ratio * (slots - question)))
        selection = DEFAULT_RATIO if memory.selection is None else memory.selection
        return cls(slots, question, local, selection)

    @property
    def fits(self) -> bool:
        """Whether a slot behind the question is unprotected."""
        return self.question + self.local + 1 <= self.slots

    @property
    def evicts(self) -> bool:
        """Whether an eviction frees enough."""
        unprotected = self.slots - self.question - self.local
        return self.fits and unprotected - self.survivors(unprotected) >= self.least_freed

    def survivors(self, unprotected: int) -> int:
        """Number of unprotected slots to keep."""
        if isinstance(self.selection, float):
            return int(self.selection * unprotected)
        return min(self.selection, unprotected)

    @property
    def least_freed(self) -> float:
        return max(1.0, LEAST_FREED * (self.slots - self.question))


def select(
    scores: Float[np.ndarray, " S"], kinds: Int[np.ndarray, " S"], budget: Budget
) -> Bool[np.ndarray, " S"] | None:
    """Mark the slots to keep; None if no eviction can free enough, which ends the row.

    Protected are the prompt, the ``local`` last slots and the answer. If the rest is too little to
    free, the answer loses its protection, the oldest slots first. Of the unprotected slots the best
    ``selection`` stay; ties go to the later slot.
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
    """A policy's view of a row: its slots in use, in position order.

    ``positions``, ``kinds``: of the slots
    ``ids``: token ids, ``NO_TOKEN`` for a latent
    ``scores``: predicted importance for each of the predictor's horizons; 0 without a predictor
    ``seed``: the row's, for random policies
    ``keys``: per layer, each in the rotary position of its write
    ``attention``: None unless the policy watches it
    """

    positions: Int[np.ndarray, " S"]
    kinds: Int[np.ndarray, " S"]
    ids: Int[np.ndarray, " S"]
    scores: Float[np.ndarray, "S K"]
    seed: int
    keys: Sequence[Float[Tensor, "G S D"]] = ()
    attention: "AttentionRecord | None" = None


@runtime_checkable
class EvictionPolicy(Protocol):
    """Scores the slots of a row at its budget; the highest scores stay.

    ``watches``: number of last tokens in ``AttentionRecord.recent``; 0: no attention is computed
    """

    @property
    def name(self) -> str: ...

    @property
    def watches(self) -> int: ...

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]: ...


def scores_of(policy: EvictionPolicy, view: SlotView) -> Float[np.ndarray, " S"]:
    """A policy's scores; raises OptionError unless each slot gets a finite number."""
    scores = np.asarray(policy.score(view), np.float64)
    if scores.shape != view.positions.shape or not np.isfinite(scores).all():
        shape = " x ".join(map(str, scores.shape)) or "one"
        raise OptionError(
            f"policy {policy.name} must give each of {len(view.positions)} slots a finite number, "
            f"got {shape} of which {np.isfinite(scores).sum()} are finite; correct its score"
        )
    return scores


class AttentionRecord:
    """Attention weights of a row's generated tokens over its slots in use, means over all layers
    and heads.

    ``total [S]``: the sum over all generated tokens
    ``recent [m, S]``: a row for each of the last tokens, at most ``last``, the latest at the end
    """

    def __init__(self, last: int) -> None:
        self._slots = 0
        self._sums = np.zeros(0, np.float64)  # with spare slots, so that it rarely grows
        self._recent = deque[Float[np.ndarray, " _S"]](maxlen=last)  # each as long as when added
        self._unread: list[Float[Tensor, "_m _S"]] = []

    @property
    def total(self) -> Float[np.ndarray, " S"]:
        self._read()
        return self._sums[: self._slots]

    @property
    def recent(self) -> Float[np.ndarray, "m S"]:
        self._read()
        rows = np.zeros((len(self._recent), self._slots))
        for row, attention in zip(rows, self._recent, strict=True):
            row[: len(attention)] = attention
        return rows

    def add(self, attention: Float[Tensor, "m S"]) -> None:
        """Add the committed tokens of a pass, over the slots in use after it.

        What lies on a device stays there for a while: to read it would be to wait for it.
        """
        self._unread.append(attention)
        if attention.device.type == "cpu" or len(self._unread) == TOGETHER:
            self._read()

    def _read(self) -> None:
        if not self._unread:
            return
        shapes, together = [u.shape for u in self._unread], [u.flatten() for u in self._unread]
        flat = torch.cat(together).double().cpu().numpy()
        self._unread.clear()
        for tokens, slots in shapes:
            attention, flat = flat[: tokens * slots].reshape(tokens, slots), flat[tokens * slots :]
            self._slots = slots
            if slots > len(self._sums):
                self._sums = np.pad(self._sums, (0, 2 * slots - len(self._sums)))
            self._sums[:slots] += attention.sum(0)
            self._recent.extend(attention)

    def keep(self, kept: Bool[np.ndarray, " S"]) -> None:
        """Drop the evicted slots; ``kept`` marks the others."""
        total = self.total
        sums, self._sums = total[kept[: self._slots]], np.zeros_like(self._sums)
        self._slots = len(sums)
        self._sums[: len(sums)] = sums
        for at, attention in enumerate(self._recent):
            self._recent[at] = attention[kept[: len(attention)]]
