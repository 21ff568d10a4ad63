"""Rows that draft in different ways, in one loop."""

from collections.abc import Sequence
from itertools import groupby

from sparing.depth.find import DraftingState, find_drafter
from sparing.engine.cache import SlotCache
from sparing.engine.drafting import Draft, Drafter
from sparing.engine.events import Event
from sparing.engine.row import Row
from sparing.options import Depth, DraftName

NOTE = "asks"  # where a row notes whom it asks
# Tokens that all rows together draft in a step, and a row at most where they are many: steps stay
# short for those who wait.
SHARED_DRAFTS, SHARED_DRAFT = 64, 8


class PerRequestDrafter:
    """Each row asks the drafter that its request names; those of one kind draft together.

    All share what the engine has ``known`` about drafting, and the other options of ``depth``. So
    that a newcomer's first token comes soon, drafts are the shorter the more rows there are, and
    nobody drafts in a pass that takes in a prompt too.
    """

    name = "by request"

    def __init__(self, known: DraftingState, cache: SlotCache, depth: Depth) -> None:
        """Raises OptionError where the model cannot draft as ``depth`` says."""
        self.known, self.cache, self.depth = known, cache, depth
        self._plain = False  # nobody drafts in this step
        self._drafters: dict[str, Drafter] = {depth.draft: find_drafter(depth, known, cache)}

    def begin(self, row: Row, draft: DraftName, *, alone: bool) -> None:
        """A row that was admitted. Where it is ``alone`` its drafter is a new one, as at the start
        of any call: what was measured stays, who was slow is tried again sooner. Among others that
        come and go all the time this would never end."""
        if alone or draft not in self._drafters:
            depth = self.depth.model_copy(update={"draft": draft})
            self._drafters[draft] = find_drafter(depth, self.known, self.cache)
        row.notes[NOTE] = draft

    def of(self, row: Row) -> Drafter:
        return self._drafters[row.notes.get(NOTE, self.depth.draft)]

    def propose(self, rows: Sequence[Row], rooms: Sequence[int]) -> list[Draft]:
        drafts = [Draft()] * len(rows)
        self._plain = len(rows) > 1 and any(row.reading for row in rows)
        if self._plain:
            return drafts
        if len(rows) > 1:
            most = max(SHARED_DRAFTS // len(rows), SHARED_DRAFT)
            rooms = [min(room, most) for room in rooms]
        order = sorted(range(len(rows)), key=lambda at: rows[at].notes[NOTE])
        for draft, group in groupby(order, key=lambda at: rows[at].notes[NOTE]):
            places = list(group)
            found = self._drafters[draft].propose(
                [rows[at] for at in places], [rooms[at] for at in places]
            )
            for at, proposed in zip(places, found, strict=True):
                drafts[at] = proposed
        return drafts

    def learn(self, row: Row, drafted: int, accepted: int) -> Sequence[Event]:
        return () if self._plain else self.of(row).learn(row, drafted, accepted)
