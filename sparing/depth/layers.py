"""Drafts by the model itself with some sub-layers left out (SWIFT, arXiv 2410.06916, sec. 4.2)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sparing.depth.search import LayerSearch
from sparing.depth.shortlist import Shortlist
from sparing.depth.trees import tree_width
from sparing.engine.cache import SlotCache
from sparing.engine.drafting import PENDING, Draft
from sparing.engine.events import Event
from sparing.engine.row import Row
from sparing.engine.sampling import draw
from sparing.engine.verify import Predictions
from sparing.model.decoder import Decoder
from sparing.model.inputs import RowInput


class LayerDrafter:
    """All rows draft together, a pass a position, each until it is not sure any more.

    A draft token reads the keys and values that the full model wrote, and writes its own behind
    them in the sub-layers that run; verification overwrites them in all layers. The layer set is
    that of the ``search``; as long as it has none nothing is drafted.

    ``most`` tokens a draft at most; it ends behind the first whose probability is below
    ``confidence``. ``trees``: likely siblings stand beside each token, see ``tree_width``; else a
    chain. ``shortlist``: of words that drafts may use; None: all.
    """

    name = "layers"

    def __init__(
        self,
        decoder: Decoder,
        cache: SlotCache,
        search: LayerSearch,
        *,
        most: int = 25,
        confidence: float = 0.8,
        trees: bool = False,
        shortlist: Shortlist | None = None,
    ) -> None:
        self.decoder, self.cache, self.search = decoder, cache, search
        self.most, self.confidence, self.trees = most, confidence, trees
        self.shortlist = shortlist

    def propose(self, rows: Sequence[Row], rooms: Sequence[int]) -> list[Draft]:
        drafts = [PartialDraft(row, room, self.most) for row, room in zip(rows, rooms, strict=True)]
        live = [draft for draft in drafts if draft.grows] if self.search.layer_set else []
        if live:
            lengths = [self.cache.lengths[d.row.index] + self.most for d in live]
            self.cache.reserve(min(max(lengths) + 1, self.cache.limit))
        while live:
            self._grow(live)
            live = [draft for draft in live if draft.grows]
        for draft in drafts:
            draft.row.notes[self.name] = len(draft.trunk)
        return [draft.draft() for draft in drafts]

    def learn(self, row: Row, drafted: int, accepted: int) -> Sequence[Event]:
        ended = row.transcript.finish_reason is not None  # what was drafted behind was not judged
        self.search.learn(accepted if ended else row.notes[self.name], accepted)
        if self.shortlist:
            listed = row.notes.get("listed", 0)
            row.notes["listed"] = len(row.tokens)
            new = row.tokens[listed:][-len(self.shortlist.ids) // 2 :]
            self.shortlist.use(new)
        return ()

    def _grow(self, live: Sequence["PartialDraft"]) -> None:
        """One more position of every draft."""
        head = self.shortlist.head if self.shortlist else None
        inputs = [draft.input(self.cache) for draft in live]
        output = self.decoder(inputs, self.cache, self.search.layer_set, head=head)
        words = Predictions(output.logits, output.hidden)
        for draft, found, confidence in zip(
            live, self._guesses(live, words), words.confidence, strict=True
        ):
            draft.add(found)
            if confidence < self.confidence:
                draft.most = 0

    def _guesses(self, live: Sequence["PartialDraft"], words: Predictions) -> list[list[int]]:
        """The token that each row would pick and, in a tree, the next best."""
        ids = self.shortlist.ids if self.shortlist else None
        if not self.trees and all(draft.row.greedy for draft in live):
            return [[at if ids is None else int(ids[at])] for at in words.argmax]
        counts = [
            tree_width(confidence, draft.row.sampled) if self.trees else 1
            for draft, confidence in zip(live, words.confidence, strict=True)
        ]
        draws = [draft.row.transcript.draw(len(draft.trunk)) for draft in live]
        drawn = draw(draws, words.logits, max(counts), ids)
        return [found[:count] for found, count in zip(drawn, counts, strict=True)]


@dataclass
class PartialDraft:
    """A row's draft while it grows: a chain, each of its tokens perhaps with siblings.

    ``room``: for how many more nodes there is; ``most``: tokens in a row, 0 where it is done.
    """

    row: Row
    room: int
    most: int
    ids: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    trunk: list[int] = field(default_factory=list)  # nodes that are followed by others

    @property
    def grows(self) -> bool:
        return self.room > 0 and len(self.trunk) < self.most

    def input(self, cache: SlotCache) -> RowInput:
        """What the next pass takes in: the pending token at first, then the last of the trunk."""
        row, ahead = self.row, len(self.trunk)
        vectors: dict[int, Any] = {}
        if not ahead and row.pending.thought:
            vectors = {0: row.pending.thought.vector}
        return RowInput(
            row=row.index,
            cached=cache.lengths[row.index] + ahead,
            ids=[self.ids[self.trunk[-1]]] if ahead else list(row.pending.ids),
            positions=[row.position + ahead],
            vectors=vectors,
        )

    def add(self, found: list[int]) -> None:
        """Append the token that would be picked and its siblings.

        Where that is the one that is never said, a thought without words is likely to come: the
        draft ends.
        """
        parent, found = self.trunk[-1] if self.trunk else PENDING, found[: self.room]
        if found[0] == self.row.latent_token:
            self.most = 0
            return
        self.trunk.append(len(self.ids))
        self.ids += found
        self.parents += [parent] * len(found)
        self.room -= len(found)

    def draft(self) -> Draft:
        return Draft(tuple(self.ids), tuple(self.parents))
