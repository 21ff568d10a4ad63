"""A head for drafts alone: frequent and recent words, not the whole vocabulary."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from sparing.model.decoder import Decoder
from sparing.model.matrix import Matrix, TransposedMatrix

SIZE = 4096  # words
SMALL = 4 * SIZE  # vocabularies up to it are scored whole


class Shortlist:
    """The words that drafts may use, ``ids``, and the ``head`` that scores them. Ours: SWIFT scores
    the whole vocabulary.

    Tokenizers that merge give frequent words low ids, so the first ones are the start; a word that
    is used takes the place of the one that has not been for longest.
    """

    def __init__(self, full: Matrix, vocabulary: int, size: int = SIZE) -> None:
        self._full, self.vocabulary = full, vocabulary
        self.ids = torch.arange(size)
        self.head = TransposedMatrix(full.rows(self.ids))
        self._places = {token: token for token in range(size - 1, -1, -1)}  # oldest use first

    def use(self, tokens: Iterable[int]) -> None:
        """Take in words that were asked or said."""
        for token in tokens:
            place = self._places.pop(token, None)
            if place is None:
                place = self._places.pop(next(iter(self._places)))
                self.ids[place] = token
                self.head.weight[:, place] = self._full.rows(torch.tensor([token]))[0]
            self._places[token] = place

    def spread(self, logits: Float[Tensor, " K"]) -> Float[Tensor, " V"]:
        """Over the whole vocabulary, words off the list at minus infinity."""
        whole = logits.new_full((self.vocabulary,), float("-inf"))
        whole[self.ids] = logits
        return whole


def shortlist(decoder: Decoder) -> Shortlist | None:
    """Where scoring all words costs enough to do without most of them, and single rows of the head
    can be read (of a packed one they cannot, but for the embedding that it is tied to)."""
    vocabulary = decoder.shape.vocabulary
    source = decoder.embedding if decoder.config.tied else decoder.head
    if vocabulary <= SMALL or source.kind == "packed":
        return None
    return Shortlist(source, vocabulary)
