"""A head for drafts: frequent and recent words instead of the whole vocabulary."""

from collections.abc import Iterable

import torch

from sparing.model.decoder import Decoder
from sparing.model.inputs import Forward
from sparing.model.matrix import Matrix

SIZE = 4096  # words
SMALL = 4 * SIZE  # vocabularies up to it are scored whole


class Shortlist:
    """The words that drafts may use. Ours: SWIFT scores the whole vocabulary.

    The list begins with the lowest ids: tokenizers that merge give them to frequent words. A used
    word takes the place of the least recently used one.

    ``ids``: the words.
    ``head``: scores them.
    """

    def __init__(self, full: Matrix, vocabulary: int, size: int = SIZE) -> None:
        self._full, self.vocabulary = full, vocabulary
        self.ids = torch.arange(size)
        self.head = full.take(self.ids)
        self._places = {token: token for token in range(size - 1, -1, -1)}  # oldest use first

    def use(self, tokens: Iterable[int]) -> None:
        """Take in words of prompts and output."""
        for token in tokens:
            place = self._places.pop(token, None)
            if place is None:
                place = self._places.pop(next(iter(self._places)))
                self.ids[place] = token
                self.head.put(place, self._full, token)
            self._places[token] = place


def shortlist(decoder: Forward) -> Shortlist | None:
    """A shortlist where scoring the whole vocabulary is expensive and the head can be parted."""
    vocabulary = decoder.shape.vocabulary
    if vocabulary <= SMALL or not isinstance(decoder, Decoder):
        return None
    return Shortlist(decoder.head, vocabulary)
