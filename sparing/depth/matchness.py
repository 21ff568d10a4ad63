"""A row's last tokens run again through a layer set: matchness on the live context."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from sparing.depth.costs import VERIFIED, Costs, measure
from sparing.engine.cache import SlotCache
from sparing.engine.eviction import NO_TOKEN
from sparing.engine.row import Row
from sparing.engine.sampling import draw
from sparing.model.inputs import Forward, RowInput
from sparing.model.layer_set import LayerSet
from sparing.model.matrix import Matrix


@dataclass(frozen=True)
class Replay:
    """A row's last tokens, to be run again in spare slots behind the row.

    ``new``: the tokens; they see the live cache before their first run.
    ``said [W]``: the full model's pick after each; ``NO_TOKEN`` for a latent, which does not count.
    """

    row: Row
    cache: SlotCache
    new: RowInput
    said: Int[Tensor, " W"]

    @classmethod
    def of(cls, row: Row, cache: SlotCache, window: int) -> "Replay | None":
        """The last ``window`` tokens. None without that many since the prompt and since the last
        eviction, which changed the context, or without the spare slots."""
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
            [max(token, 0) for token in ids],  # the id of a latent is never used
            positions,
            scored=window,
            visible=length - window,
            vectors=vectors,
        )
        return cls(row, cache, new, torch.tensor(after))

    def costs(self, decoder: Forward, head: Matrix | None) -> Costs:
        """Costs of passes at this context length; ``head``: of drafts."""
        self.cache.reserve(self.new.cached + VERIFIED)
        return measure(decoder, self.cache, self.row.index, self.row.position, head)

    def matchness(self, decoder: Forward, layer_set: LayerSet) -> float:
        """Share of the full model's picks that the layer set picks too, given the same past, in one
        parallel pass (SWIFT, arXiv 2410.06916, eq. 3)."""
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
