"""Rows that draft in different ways, in one loop."""

from collections.abc import Sequence
from itertools import groupby

from sparing.depth.find import Known, find_drafter
from sparing.engine.cache import SlotCache
from sparing.engine.drafting import Draft, Drafter
from sparing.engine.events import Event
from sparing.engine.row import Row
from sparing.options import Depth, DraftName

NOTE = "asks"  # where a row notes whom it asks
SHARED_DRAFT = 8  # tokens of a draft beside other rows: steps stay short for those who wait


class ByRequest:
    """Each row asks the drafter that its request names; those of one kind draft together.

    All share what the engine has ``known`` about drafting, and the other options of ``depth``. So
    that a newcomer's first token comes soon, drafts are short where there are several rows, and
    nobody drafts while one of them reads its prompt.
    """

    name = "by request"

    def __init__(self, known: Known, cache: SlotCache, depth: Depth) -> None:
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
        return self._drafters[row.notes[NOTE]]

    def propose(self, rows: Sequence[Row], rooms: Sequence[int]) -> list[Draft]:
        drafts = [Draft()] * len(rows)
        self._plain = len(rows) > 1 and any(row.reading for row in rows)
        if self._plain:
            return drafts
        if len(rows) > 1:
            rooms = [min(room, SHARED_DRAFT) for room in rooms]
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
