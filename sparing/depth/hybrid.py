"""Lookup where the text repeats itself, fewer layers elsewhere."""

from collections.abc import Sequence
from weakref import WeakSet

from sparing.depth.layers import LayerDrafter
from sparing.depth.lookup import PromptLookup
from sparing.engine.draft import Draft
from sparing.engine.drafter import BuiltInDrafter, Outcome
from sparing.engine.events import Event
from sparing.engine.row import Row


class Hybrid(BuiltInDrafter):
    """Asks ``lookup`` first, which costs nothing; rows without a match draft with fewer layers."""

    name, label, skips_layers = "hybrid", "text, else layers", True

    def __init__(self, lookup: PromptLookup, layers: LayerDrafter) -> None:
        self.lookup, self.layers = lookup, layers
        self._matched: WeakSet[Row] = WeakSet()  # rows whose last draft is lookup's

    def propose(self, rows: Sequence[Row], rooms: Sequence[int]) -> list[Draft]:
        found = self.lookup.propose(rows, rooms)
        left = [0 if draft.ids else room for draft, room in zip(found, rooms, strict=True)]
        more = self.layers.propose(rows, left)
        self._matched = WeakSet(row for row, draft in zip(rows, found, strict=True) if draft.ids)
        return [a if a.ids else b for a, b in zip(found, more, strict=True)]

    def learn(self, outcomes: Sequence[Outcome], seconds: float) -> Sequence[Event]:
        matched = [outcome for outcome in outcomes if outcome.row in self._matched]
        others = [outcome for outcome in outcomes if outcome.row not in self._matched]
        return [*self.lookup.learn(matched, seconds), *self.layers.learn(others, seconds)]
