"""Lookup where the text repeats itself, fewer layers where it does not."""

from collections.abc import Sequence

from sparing.depth.layers import LayerDrafter
from sparing.depth.lookup import PromptLookup
from sparing.engine.drafting import Draft
from sparing.engine.events import Event
from sparing.engine.row import Row


class Hybrid:
    """Asks ``lookup`` first, which costs nothing; rows without a match draft with fewer layers."""

    name = "hybrid"

    def __init__(self, lookup: PromptLookup, layers: LayerDrafter) -> None:
        self.lookup, self.layers = lookup, layers

    def propose(self, rows: Sequence[Row], rooms: Sequence[int]) -> list[Draft]:
        found = self.lookup.propose(rows, rooms)
        left = [0 if draft.ids else room for draft, room in zip(found, rooms, strict=True)]
        more = self.layers.propose(rows, left)
        for row, draft in zip(rows, found, strict=True):
            row.notes[self.name] = bool(draft.ids)
        return [a if a.ids else b for a, b in zip(found, more, strict=True)]

    def learn(self, row: Row, drafted: int, accepted: int) -> Sequence[Event]:
        asked = self.lookup if row.notes.get(self.name) else self.layers
        return asked.learn(row, drafted, accepted)
