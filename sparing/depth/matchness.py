"""The last tokens of a row once more, through a layer set: matchness on the live context."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from sparing.depth.costs import VERIFIED, Costs, measure
from sparing.engine.cache import SlotCache
from sparing.engine.eviction import NO_TOKEN
from sparing.engine.row import Row
from sparing.engine.sampling import draw
from sparing.model.decoder import Decoder
from sparing.model.inputs import RowInput
from sparing.model.layer_set import LayerSet
from sparing.model.matrix import Matrix


@dataclass(frozen=True)
class Replay:
    """``new``: a row's last committed tokens, to be run in the spare slots behind it, over the live
    cache before them; ``said``: what the full model picked after each, a latent not counted."""

    row: Row
    cache: SlotCache
    new: RowInput
    said: Int[Tensor, " W"]

    @classmethod
    def of(cls, row: Row, cache: SlotCache, window: int) -> "Replay | None":
        """None where fewer tokens went by since the prompt and since the last eviction, before
        which the context was another, or fewer slots are spare."""
        length = cache.lengths[row.index]
        spare = min(cache.limit, row.request.slots) - length
        if row.reading or min(spare, row.position - row.last_eviction) <= max(window, VERIFIED):
            return None
        positions = cache.positions[row.index, length - window : length].tolist()
        ids = [row.id_at(position) for position in positions]
        after = [row.id_at(position + 1) for position in positions]
        if all(token == NO_TOKEN for token in after):
            return None
        vectors = {at: row.vectors[p] for at, p in enumerate(positions) if p in row.vectors}
        new = RowInput(
            row.index,
            length,
            [max(token, 0) for token in ids],  # what stands for a latent is not looked at
            positions,
            scored=window,
            visible=length - window,
            vectors=vectors,
        )
        return cls(row, cache, new, torch.tensor(after))

    def costs(self, decoder: Decoder, head: Matrix | None) -> Costs:
        """Of passes at this context length; ``head``: of drafts."""
        self.cache.reserve(self.new.cached + VERIFIED)
        return measure(decoder, self.cache, self.row.index, self.row.position, head)

    def matchness(self, decoder: Decoder, layer_set: LayerSet) -> float:
        """Share of the tokens that the full model picked which the layer set picks as well, all
        given the same past (SWIFT, arXiv 2410.06916, eq. 3), in one parallel pass."""
        self.cache.reserve(self.new.cached + len(self.new.ids))
        logits = decoder([self.new], self.cache, layer_set).logits
        if self.row.sampled:
            now = self.row.transcript.position
            draws = [self.row.transcript.draw(p + 1 - now) for p in self.new.positions]
            picks = [token for [token] in draw(draws, logits)]
        else:
            picks = logits.argmax(-1).tolist()
        counted = self.said != NO_TOKEN
        return float((torch.tensor(picks) == self.said)[counted].float().mean())
