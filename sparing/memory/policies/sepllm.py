"""Attention sinks, separators and most recent tokens."""

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float

from sparing.engine.cache import Kind
from sparing.engine.eviction import SlotView

MARKS = frozenset(".,?!;:")
BREAKS = "\n\r\t"
_known: WeakKeyDictionary[Any, frozenset[int]] = WeakKeyDictionary()


@dataclass(frozen=True)
class SepLLM:
    """SepLLM (arXiv 2412.12094), a uniform variant as is the paper: all heads keep the same.

    The first ``sinks`` thinking tokens come first, then separators, then all others; of each the
    later ones. Unlike the paper, separators share the selection's room, so that the oldest of them
    can go; the question is protected, and a space by itself is no separator.
    """

    separators: frozenset[int]
    sinks: int = 4
    name = "sepllm"
    watches = 0

    def score(self, view: SlotView) -> Float[np.ndarray, " S"]:
        tier = np.isin(view.ids, list(self.separators)).astype(np.float64)
        tier[np.flatnonzero(view.kinds != Kind.PROMPT)[: self.sinks]] = 2
        return tier * (view.positions[-1] + 1) + view.positions


def separator_ids(tokenizer: Any) -> frozenset[int]:
    """The tokens that are one of ``. , ? ! ; :`` or nothing but line breaks and tabs.

    Spaces around are allowed. Found once a tokenizer: decoding a whole vocabulary takes seconds.
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
