"""Drafts by the model itself with some sub-layers left out (SWIFT, arXiv 2410.06916, sec. 4)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from sparing.depth.search import LayerSearch
from sparing.depth.shortlist import Shortlist
from sparing.engine.cache import SlotCache
from sparing.engine.draft import PENDING, Draft
from sparing.engine.drafter import BuiltInDrafter, Outcome
from sparing.engine.events import Event
from sparing.engine.row import Row
from sparing.engine.sampling import draw
from sparing.engine.verify import Predictions
from sparing.model.inputs import Forward, RowInput

# Siblings at a drafted position whose top-1 probability is above the first number, in greedy and in
# sampled decoding (sec. 4.3; the numbers of the reference code).
WIDTHS = ((0.95, 3, 1), (0.8, 5, 3), (0.5, 8, 5), (0.0, 10, 10))


@dataclass
class LayersState:
    """What the drafter knows of a row.

    ``length``: of its last draft, siblings not counted.
    ``listed``: how many of its tokens the shortlist has seen.
    """

    length: int = 0
    listed: int = 0


class LayerDrafter(BuiltInDrafter):
    """All rows draft together, a pass a position, each row until it is unsure.

    A drafted token reads the keys and values of the full model, and writes its own behind them in
    the sub-layers that run; verification overwrites them in all layers. The layer set is that of
    the ``search``; while it has none nothing is drafted.

    ``most``: tokens of a draft.
    ``confidence``: a draft ends behind the first token whose probability is below it.
    ``trees``: each token has likely siblings, see ``tree_width``; else a draft is a chain.
    ``shortlist``: words that drafts may use; None: all.
    """

    name, label, skips_layers = "layers", "fewer layers", True

    def __init__(
        self,
        decoder: Forward,
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
        self.draft_state: WeakKeyDictionary[Row, LayersState] = WeakKeyDictionary()

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
            self.draft_state.setdefault(draft.row, LayersState()).length = len(draft.trunk)
        return [draft.draft() for draft in drafts]

    def learn(self, outcomes: Sequence[Outcome], seconds: float) -> Sequence[Event]:
        for outcome in outcomes:
            row, state, accepted = outcome.row, self.draft_state[outcome.row], outcome.accepted
            ended = row.transcript.finish_reason is not None  # the rest of the draft is not judged
            self.search.learn(accepted if ended else state.length, accepted)
            if self.shortlist:
                self.shortlist.use(row.tokens[state.listed :][-len(self.shortlist.ids) // 2 :])
                state.listed = len(row.tokens)
        return ()

    def _grow(self, live: Sequence["PartialDraft"]) -> None:
        """One more position of every draft."""
        head = self.shortlist.head if self.shortlist else None
        inputs = [draft.input(self.cache) for draft in live]
        output = self.decoder(inputs, self.cache, self.search.layer_set, head=head)
        words = Predictions(output.logits, output.hidden, top=output.top)
        for draft, found, confidence in zip(
            live, self._guesses(live, words), words.confidence, strict=True
        ):
            draft.add(found)
            if confidence < self.confidence:
                draft.most = 0

    def _guesses(self, live: Sequence["PartialDraft"], words: Predictions) -> list[list[int]]:
        """The token that each row would pick and, in a tree, the next best ones."""
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
    """A row's draft while it grows: a trunk of tokens, each perhaps with siblings.

    ``room``: for more nodes.
    ``most``: tokens of the trunk; 0 when the draft is done.
    ``trunk``: the nodes that are followed by others.
    """

    row: Row
    room: int
    most: int
    ids: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    trunk: list[int] = field(default_factory=list)

    @property
    def grows(self) -> bool:
        return self.room > 0 and len(self.trunk) < self.most

    def input(self, cache: SlotCache) -> RowInput:
        """What the next pass takes in: first the pending token, then the end of the trunk."""
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
        """Append the picked token and its siblings.

        A picked latent token ends the draft: a latent step is likely to come.
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


def tree_width(confidence: float, sampled: bool) -> int:
    """Tokens side by side at a position of a tree: the surer, the fewer. Only the first of them is
    followed by others."""
    for above, greedy, drawn in WIDTHS:
        if confidence > above:
            return drawn if sampled else greedy
    return WIDTHS[-1][2]
