"""A drafter and, beside it, the search for the layer set that it drafts with (figure 003)."""

import time
from collections.abc import Sequence

from sparing.depth.search import LayerSearch
from sparing.engine.cache import SlotCache
from sparing.engine.drafting import Draft, Drafter
from sparing.engine.events import Event
from sparing.engine.row import Row


class OnTheFly:
    """``drafter`` as it is; every step first gives the ``search`` its turn."""

    def __init__(self, drafter: Drafter, search: LayerSearch, cache: SlotCache) -> None:
        self.drafter, self.search, self.cache = drafter, search, cache
        self.name = drafter.name
        if not search.news:
            search.tell()

    def propose(self, rows: Sequence[Row], rooms: Sequence[int]) -> list[Draft]:
        self._since, before = time.perf_counter(), self.search.seconds
        self.search.step(rows, self.cache)
        for row in rows:
            row.spent.search += self.search.seconds - before
        return self.drafter.propose(rows, rooms)

    def learn(self, row: Row, drafted: int, accepted: int) -> Sequence[Event]:
        told = self.drafter.learn(row, drafted, accepted)
        now = time.perf_counter()
        self.search.passed(now - self._since, accepted + 1)
        self._since = now
        return [*told, *self.search.told()]
