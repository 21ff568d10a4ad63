"""What drafts cost: the clock around a drafter."""

import time
from collections.abc import Sequence

from sparing.engine.drafting import Draft, Drafter
from sparing.engine.events import Event
from sparing.engine.row import Row


class Clocked:
    """``drafter`` as it is; what it takes is added to what each row has ``spent``."""

    def __init__(self, drafter: Drafter) -> None:
        self.drafter, self.name = drafter, drafter.name

    def propose(self, rows: Sequence[Row], rooms: Sequence[int]) -> list[Draft]:
        begun = time.perf_counter()
        drafts = self.drafter.propose(rows, rooms)
        seconds = time.perf_counter() - begun
        for row in rows:
            row.spent.draft += seconds
        return drafts

    def learn(self, row: Row, drafted: int, accepted: int) -> Sequence[Event]:
        return self.drafter.learn(row, drafted, accepted)
