"""A drafter, and beside it the search for its layer set (SWIFT, arXiv 2410.06916, sec. 4.1)."""

from collections.abc import Sequence
from dataclasses import replace

from sparing.depth.search import LayerSearch
from sparing.engine.cache import SlotCache
from sparing.engine.draft import Draft
from sparing.engine.drafter import Drafter, Outcome
from sparing.engine.events import Event
from sparing.engine.row import Row


class OnlineSearch:
    """``drafter`` as it is; after each step the ``search`` may try a candidate."""

    def __init__(self, drafter: Drafter, search: LayerSearch, cache: SlotCache) -> None:
        self.drafter, self.search, self.cache = drafter, search, cache
        search.announce()

    @property
    def name(self) -> str:
        return self.drafter.name

    def propose(self, rows: Sequence[Row], rooms: Sequence[int]) -> list[Draft]:
        return self.drafter.propose(rows, rooms)

    def learn(self, outcomes: Sequence[Outcome], seconds: float) -> Sequence[Event]:
        events = self.drafter.learn(outcomes, seconds)
        rows = [outcome.row for outcome in outcomes]
        live = [row for row in rows if row.transcript.finish_reason is None]
        self.search.step(live, self.cache)
        self.search.count(seconds, sum(outcome.tokens for outcome in outcomes))
        tag = rows[0].request.tag
        return [*events, *(replace(event, row=tag) for event in self.search.news())]
