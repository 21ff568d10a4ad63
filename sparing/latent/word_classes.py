"""Which words are of one kind: the same but for their digits. What goes is decided by kind, as a
model can learn only a rule where words go, not the noise of each single value."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sparing.train.examples import ExampleSet

# What a token that begins a word begins with, in byte-level and in sentencepiece vocabularies.
SPACES = tuple("ĠĊĉ▁ \t\n")


@dataclass(frozen=True)
class Kinds:
    """Of the tokens of examples. ``kind``: its number in ``names``; ``piece``: a running number of
    the piece of a word that a token is of, which is a number, a run of letters or one other token.

    A name is the word with zeros for digits, up to the piece, which is in brackets: ``Ġ0+[00]``.
    What is behind does not count, so that what stands before a token tells whether it goes.
    """

    kind: Int[np.ndarray, " N"]
    piece: Int[np.ndarray, " N"]
    names: list[str]

    def whole(self, free: Bool[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
        """Tokens all of whose piece is ``free``: no number, and no name, is cut in two."""
        return (np.bincount(self.piece, ~free) == 0)[self.piece]

    def means(
        self, values: Float[np.ndarray, " N"], of: Bool[np.ndarray, " N"]
    ) -> dict[str, float]:
        """By name, the mean value of a kind over those of its tokens that ``of`` says."""
        count = np.bincount(self.kind[of], minlength=len(self.names))
        total = np.bincount(self.kind[of], values[of], minlength=len(self.names))
        return {
            name: float(total[number] / count[number])
            for number, name in enumerate(self.names)
            if count[number]
        }


def kinds_of(examples: ExampleSet, tokenizer: Any) -> Kinds:
    """The kinds of all tokens of ``examples``, which a word never spans two of."""
    words: dict[tuple[int, ...], list[tuple[str, bool]]] = {}
    numbers: dict[str, int] = {}
    used, place = np.unique(examples.ids, return_inverse=True)
    text = dict(zip(used.tolist(), tokenizer.convert_ids_to_tokens(used.tolist()), strict=True))
    begins = np.array([token.startswith(SPACES) for token in text.values()], bool)[place]
    begins[examples.starts[:-1]] = True
    kind, first = np.zeros((2, len(examples.ids)), np.int64)
    edges = np.append(np.flatnonzero(begins), len(examples.ids))
    for begin, end in pairwise(edges.tolist()):
        ids = tuple(examples.ids[begin:end].tolist())
        if ids not in words:
            words[ids] = pieces([text[id_] for id_ in ids])
        for at, (name, opens) in enumerate(words[ids], begin):
            kind[at], first[at] = numbers.setdefault(name, len(numbers)), opens
    return Kinds(kind, np.cumsum(first) - 1, list(numbers))


def pieces(tokens: Sequence[str]) -> list[tuple[str, bool]]:
    """Of each token of a word the name of its kind, and whether it opens a piece."""
    groups: list[list[str]] = []
    last = ""
    for token in tokens:
        bare = token.strip("".join(SPACES))
        sort = "digits" if bare.isdigit() else "letters" if bare.isalpha() else ""
        if sort and sort == last:
            groups[-1].append(token)
        else:
            groups.append([token])
        last = sort
    texts = [re.sub(r"\d", "0", "".join(group)) for group in groups]
    found = []
    for at, group in enumerate(groups):
        name = f"{''.join(texts[:at])}[{texts[at]}]"
        found += [(name, place == 0) for place in range(len(group))]
    return found
