"""Attention sinks, separators and most recent tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float

from sparing.engine.cache import Kind
from sparing.engine.eviction import EvictionPolicy, SlotView
from sparing.memory.policies.policy import BuiltInPolicy

MARKS = frozenset(".,?!;:")
BREAKS = "\n\r\t"
_known: WeakKeyDictionary[Any, frozenset[int]] = WeakKeyDictionary()


@dataclass(frozen=True)
class SepLLM(BuiltInPolicy):
    """SepLLM (arXiv 2412.12094); in the paper, too, all heads keep the same slots.

    The first ``sinks`` thinking tokens rank highest, then separators, then all others; within each
    group later ones rank higher. Unlike in the paper, separators share the room of the selection,
    so the oldest can go; the question is protected; a space alone is no separator.
    """

    separators: frozenset[int]
    sinks: int = 4
    name, label = "sepllm", "SepLLM"
    watches = 0

    @classmethod
    def for_model(cls, tokenizer: Any, horizons: Sequence[int]) -> EvictionPolicy:
        return cls(separator_ids(tokenizer))

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        tier = np.isin(view.ids, list(self.separators)).astype(np.float64)
        tier[np.flatnonzero(view.kinds != Kind.PROMPT)[: self.sinks]] = 2
        return tier * (view.positions[-1] + 1) + view.positions


def separator_ids(tokenizer: Any) -> frozenset[int]:
    """Tokens that are one of ``. , ? ! ; :`` or only line breaks and tabs, with or without spaces.

    Computed once a tokenizer: decoding a whole vocabulary takes seconds.
    """
    if tokenizer not in _known:
        ids = sorted(set(tokenizer.get_vocab().values()))
        texts = tokenizer.batch_decode([[i] for i in ids], clean_up_tokenization_spaces=False)
        _known[tokenizer] = frozenset(
            i for i, text in zip(ids, texts, strict=True) if separates(text.strip(" "))
        )
    return _known[tokenizer]


def separates(text: str) -> bool:
    return text in MARKS or (text != "" and not text.strip(BREAKS))
