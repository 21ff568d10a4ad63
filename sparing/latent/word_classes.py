"""Classes of words: words that differ only in their digits are of one kind.

Words are dropped by kind, because a model can learn a rule but not the noise of single words.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sparing.train.examples import ExampleSet

# A token with one of these first begins a word, in byte-level and SentencePiece vocabularies.
SPACES = tuple("ĠĊĉ▁ \t\n")


@dataclass(frozen=True)
class Kinds:
    """The kinds of all tokens of some examples.

    ``kind``: the index of a token's kind in ``names``
    ``piece``: the running number of a token's piece: a number, a run of letters, or another token
    ``names``: the word up to the piece, with zeros for digits, the piece in brackets: ``Ġ0+[00]``

    The rest of the word does not count, so a token's kind depends only on the text up to it.
    """

    kind: Int[np.ndarray, " N"]
    piece: Int[np.ndarray, " N"]
    names: list[str]

    def whole(self, free: Bool[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
        """Mark the tokens of entirely ``free`` pieces, so that no number or name is cut in two."""
        return (np.bincount(self.piece, ~free) == 0)[self.piece]

    def means(
        self, values: Float[np.ndarray, " N"], of: Bool[np.ndarray, " N"]
    ) -> dict[str, float]:
        """The mean value of each kind, by name, over its tokens in the mask ``of``."""
        count = np.bincount(self.kind[of], minlength=len(self.names))
        total = np.bincount(self.kind[of], values[of], minlength=len(self.names))
        return {
            name: float(total[number] / count[number])
            for number, name in enumerate(self.names)
            if count[number]
        }


def kinds_of(examples: ExampleSet, tokenizer: Any) -> Kinds:
    """The kinds of all tokens of ``examples``; a word never spans two examples."""
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
    """For each token of a word the name of its kind, and whether it begins a piece."""
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
