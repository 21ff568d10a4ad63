"""A head for drafts alone: frequent and recent words, not the whole vocabulary."""

from collections.abc import Iterable

import torch

from sparing.model.decoder import Decoder
from sparing.model.matrix import Matrix

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
        self.head = full.take(self.ids)
        self._places = {token: token for token in range(size - 1, -1, -1)}  # oldest use first

    def use(self, tokens: Iterable[int]) -> None:
        """Take in words that were asked or said."""
        for token in tokens:
            place = self._places.pop(token, None)
            if place is None:
                place = self._places.pop(next(iter(self._places)))
                self.ids[place] = token
                self.head.put(place, self._full, token)
            self._places[token] = place


def shortlist(decoder: Decoder) -> Shortlist | None:
    """Where scoring all words costs enough to do without most of them."""
    vocabulary = decoder.shape.vocabulary
    return Shortlist(decoder.head, vocabulary) if vocabulary > SMALL else None
